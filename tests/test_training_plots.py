import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from figure_checks import assert_readable, contrast
from matplotlib.colors import to_rgb

from pqlib import sweep_findings, training_findings, training_plots, training_words

RESULTS = str(Path(__file__).parents[1] / "book" / "results")


class Accuracy:
    """A task whose rows say which images are right."""

    def scores(self, per_image, draws):
        return np.array([100 * np.mean(per_image[draw]) for draw in draws])


def saved(folder, name, correct):
    (folder / name).mkdir()
    np.savez(folder / name / "per_image.npz", test=np.asarray(correct, dtype=bool))


def records(folder, right):
    """Runs on 200 images by (method, bits), of which the first ``right`` are classified right."""
    found = []
    for (method, n_bits), n in right.items():
        name = f"{method}-{n_bits}"
        saved(folder, name, np.arange(200) < n)
        found.append({"method": method, "n_bits": n_bits, "hash": name, "value": n / 2.0})
    return [{"method": "none", "n_bits": None, "hash": "-", "value": 99.0}, *found]


RIGHT = {
    ("lsq", 2): 150, ("prune", 2): 180, ("lsq", 4): 190, ("prune", 4): 189, ("lsq", 8): 198,
    ("prune", 8): 120, ("post_training_quantize", 2): 40, ("post_training_prune", 2): 20,
    ("post_training_quantize", 4): 180, ("post_training_prune", 4): 180,
    ("post_training_quantize", 8): 190, ("post_training_prune", 8): 20,
}  # fmt: skip


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    runs = records(folder, RIGHT)
    return training_findings.compare_runs(runs, folder, Accuracy(), n_draws=300, seed=0)


def test_comparisons_with_two_layers_spared(tmp_path):
    runs = [
        {"method": "none", "n_bits": None, "hash": "-", "value": 99.0, "keep_first_last": False}
    ]
    for method, keep, n, bits in (
        *(("lsq", False, 100, 2.0), ("lsq", True, 180, 3.0)),
        *(("prune", False, 120, 2.0), ("prune", True, 120, 3.0)),
    ):
        name = f"{method}-{keep}"
        saved(tmp_path, name, np.arange(200) < n)
        run = {"method": method, "n_bits": 2, "hash": name, "value": n / 2, "bits_per_weight": bits}
        runs += [run | {"keep_first_last": keep}, run | {"n_bits": 4, "keep_first_last": keep}]
    found = training_findings.compare_spared(runs, tmp_path, Accuracy(), 2, n_draws=300, seed=0)
    assert found["lead"].tolist() == [-10.0, 30.0, 30.0]
    assert found["bits_quantization"].tolist() == [2.0, 3.0, 3.0]
    assert found["bits_pruning"].tolist() == [2.0, 2.0, 3.0]
    for _, row in found.iterrows():  # one set of images differs by 20, the others by 60 of 200
        assert row["low"] < row["lead"] < row["high"] and row["low"] * row["high"] > 0
    assert re.fullmatch(r"−10\.0 \(−1\d\.\d to −\d\.\d\)", training_words.lead_words(found.iloc[0]))


@pytest.fixture(scope="module")
def paper():
    table = training_findings.read_table(training_findings.PAPER, RESULTS)
    return training_findings.cells(table)


def swept(compared, *models):
    """The same cells for each network, as `pqlib.table1_leads.leads` has them."""
    rows = compared.assign(metric="accuracy", fp_value=95.0, comparison=training_findings.ALIKE)
    return pd.concat([rows.assign(model=model) for model in models])


@pytest.fixture(scope="module")
def findings(compared, paper):
    ratio = np.linspace(-3, 3, 301)
    steps = np.geomspace(2, 0.1, 40)
    return [
        training_plots.scale_gradient(
            ratio, np.round(ratio) - ratio, np.round(ratio), 2, name="fig-a"
        ),
        training_plots.schedule(range(5), {2: [0, 0.5, 0.8, 0.875, 0.875], 4: [0.75] * 5}, 3, "b"),
        training_plots.loss_curves(
            {b: {"quantization": steps, "pruning": steps[::-1]} for b in (2, 3, 4, 5, 8)}, 30, "c"
        ),
        training_plots.loss_curves({2: {"quantization": [1.0], "pruning": [2.0]}}, 0, "d"),
        training_plots.value_by_bits(compared, 99.0, "accuracy", "e"),
        training_plots.value_by_bits(compared[compared["n_bits"] == 2], 99.0, "accuracy", "f"),
        training_plots.sweep_by_bits(swept(compared, "cifar_resnet20", "cifar_resnet32"), "i"),
        training_plots.sweep_by_bits(swept(compared[compared["n_bits"] == 2], "resnet18"), "j"),
        training_plots.lead_map(paper, "g"),
        training_plots.lead_map(paper[paper["model"] == "resnet50"], "h"),
    ]


@pytest.mark.filterwarnings("error")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of others
def test_figures_are_readable(findings):
    for finding in findings:
        assert_readable(finding)


def test_numbers_on_the_map_are_readable(findings):
    for finding in findings[-2:]:
        (axes,) = finding.figure.axes
        (image,) = axes.images
        colors = image.cmap(image.norm(image.get_array()))
        assert len(axes.texts) == image.get_array().size
        for text in axes.texts:
            column, row = map(int, text.get_position())
            assert contrast(to_rgb(text.get_color()), tuple(colors[row, column][:3])) >= 4.5


def test_ties_stand_in_brackets_on_the_map(findings, compared):
    assert "brackets" not in findings[-2].caption  # the paper's table has no intervals
    fine = swept(compared, "resnet18").query("when == 'fine-tuned'")
    finding = training_plots.lead_map(fine, "l")
    (axes,) = finding.figure.axes
    assert [text.get_text() for text in axes.texts] == ["+39.0", "(+0.5)", "−15.0"]
    assert "in brackets: a tie" in finding.caption


def test_a_sweep_shows_each_network_that_was_fine_tuned(compared):
    before = compared[compared["when"] == "post-training"]
    table = pd.concat([swept(compared, "cifar_resnet32", "resnet18"), swept(before, "resnet50")])
    finding = training_plots.sweep_by_bits(table, "k")
    labels = [axes.get_ylabel() for axes in finding.figure.axes[::2]]
    assert labels == ["ResNet-32: accuracy", "ResNet-18: accuracy"]
    leads = sweep_findings.swept(table).query("model == 'resnet18' and when == 'fine-tuned'")
    *_, right = finding.figure.axes
    drawn = [(line.get_xdata()[0], line.get_ydata()[0]) for line in right.lines[1:]]
    assert drawn == [*zip(leads["n_bits"], leads["lead"], strict=True)]
    assert f"for ResNet-18 {training_findings.ahead_words(compared)}." in finding.caption


def test_words_are_whole_sentences(findings):
    for finding in findings:
        for words in (finding.alt, finding.caption):
            assert words.endswith(".") and "nan" not in words and "inf" not in words.split()


def test_words_follow_the_data(findings, compared):
    assert training_findings.ahead_words(compared) == (
        "pruning is ahead at 2 bits, a tie at 4 bits, quantization is ahead at 8 bits"
    )
    assert training_findings.ahead_words(compared) in findings[4].alt
    assert "a tie" not in findings[5].alt.split(";")[0]
    assert "it reaches 0.875 at 2 bits, 0.750 at 4 bits" in findings[1].alt
    assert "it ends at 1 (quantization) and 2 (pruning) at 2 bits" in findings[3].alt
    assert "beyond it is −2 on one side and 1 on the other" in findings[0].alt


def test_what_fine_tuning_adds(compared):
    words = training_findings.gain_words(compared, "pruning")
    assert words == "+80.0 points at 2 bits, +4.5 points at 4 bits, +50.0 points at 8 bits"


def test_the_papers_cells(paper):
    assert len(paper) == 56
    assert training_findings.count_words(paper) == (
        "quantization is ahead in 53 of 56 cells, pruning in 2, 1 is a tie"
    )
    assert training_findings.exceptions(paper) == (
        "pruning is ahead for ResNet-50 at 2 and 8 bits; they tie for ResNet-50 at 7 bits"
    )
    assert training_findings.exceptions(paper[paper["lead"] > 0]) == "no exception"
    assert training_findings.lead_by_model(paper).index[0] == "resnet50"
    inside, total = map(int, re.findall(r"\d+", training_findings.within_noise(paper)))
    assert total == 42 and 0 < inside < 20


def test_cells_average_seeds_and_leave_gaps_out():
    rows = [
        ("a", "lsq", 2, 50.0), ("a", "lsq", 2, 60.0), ("a", "prune", 2, 54.0),
        ("a", "lsq", 3, 70.0), ("a", "prune", 3, None),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["model", "method", "n_bits", "value"])
    found = training_findings.cells(table.assign(metric="accuracy", fp_value=80.0))
    assert found[["n_bits", "lead", "winner"]].to_numpy().tolist() == [[2, 1.0, "quantization"]]
    assert training_findings.read_table(training_findings.PAPER, "") is None
    assert training_findings.read_table("no such", RESULTS) is None


def test_spared_weights():
    pytest.importorskip("timm")
    pytest.importorskip("torchvision")
    found = training_findings.spared_weights(["mobilenet_v2", "resnet18"]).set_index("model")
    assert found.loc["mobilenet_v2", "share"] == pytest.approx(0.3692, abs=5e-5)
    assert found.loc["resnet18", ["spared", "total"]].tolist() == [9408 + 512_000, 11_678_912]
    assert training_findings.mean_bits(0.25, 4) == 5 and training_findings.mean_bits(0.25, 9) == 9


def test_a_network_whose_package_is_missing(monkeypatch):
    models = pytest.importorskip("pqlib.training.models")

    def missing(*args, **options):
        raise ModuleNotFoundError("pip install it")

    monkeypatch.setattr(models, "build_model", missing)
    found = training_findings.spared_weights(["efficientdet"])
    assert found["missing"].tolist() == ["pip install it"] and np.isnan(found["share"]).all()
