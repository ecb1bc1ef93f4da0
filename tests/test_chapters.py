"""The chapters as a reader re-runs them: plain papermill, other parameters, solutions."""

import re
from ast import literal_eval
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest

from pqlib import compare, scan
from pqlib.zoo_statistics import distinct, split_by_kurtosis, wins

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = sorted((ROOT / "book").glob("*.md"))
SOLUTION = re.compile(r"\{solution\}.*?```python\n(.*?)```", re.S)
GLUED = "application/papermill.record/text/plain"
SMOKE = {
    "one_tensor": {"n_points": 80},
    "distribution_error": {"n_samples": 5000, "n_ranges": 12},
    "zoo_tensors": {"n_resamples": 20, "n_curve": 20, "n_seen": 100},
    "layer_bounds": {
        "others": [],
        "n_images": 2,
        "n_channels": 1,
        "n_chunks": 1,
        "bits": [4],
        "max_nodes": 100_000,
        "results": "",
    },
    "fine_tuning": {
        "model": "cifar_resnet20",
        "preset": "smoke",
        "bits": [2],
        "epochs": 1,
        "n_threads": 1,
    },
    "layer_snr": {"bits": [2, 4], "epochs": 1, "n_draws": 50, "size": 8},
    "representations": {"preset": "smoke", "bits": [2], "epochs": 1, "n_images": 32},
}
FAVORS_PRUNING = "_blocks.8._depthwise_conv.weight"

# chapter, parameters, and the one who wins at the chapter's own bit-width
RUNS = [
    ("one_tensor", {"n_bits": 2, "layer": FAVORS_PRUNING}, "pruning"),
    ("one_tensor", {"n_bits": 8}, "quantization"),
    (
        "distribution_error",
        {"n_bits": 2, "distribution": "student_t", "shape": 1000.0, "model": ""},
        "pruning",
    ),
    (
        "distribution_error",
        {"n_bits": 8, "distribution": "uniform", "grid": "narrow"},
        "quantization",
    ),
]


def solutions():
    for path in CHAPTERS:
        for cell in nbformat.read(path, 4).cells:
            for number, code in enumerate(SOLUTION.findall(cell.source)):
                yield pytest.param(code, id=f"{path.stem}-{cell.id}-{number}")
    for path in PAGES:
        for number, code in enumerate(SOLUTION.findall(path.read_text("utf-8"))):
            yield pytest.param(code, id=f"{path.stem}-{number}")


@pytest.mark.parametrize("code", list(solutions()))
def test_solutions_run(code):
    assert "assert" in code  # a solution checks its own answer
    exec(compile(code, "solution", "exec"), {})


def test_every_chapter_has_three_exercises_with_solutions():
    for path in CHAPTERS:
        text = "\n".join(cell.source for cell in nbformat.read(path, 4).cells)
        assert len(re.findall(r"\{exercise\}", text)) == 3
        assert len(SOLUTION.findall(text)) == 3


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_cells_are_short_and_functions_are_by_hand(path):
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type != "code":
            continue
        assert not cell.outputs and cell.execution_count is None
        lines, tags = cell.source.strip().splitlines(), set(cell.metadata.get("tags", []))
        if "by-hand" in tags:
            assert len(lines) <= 12
        else:
            assert not any(re.match(r"\s*(def|class) ", line) for line in lines)
        if not tags & {"hide-input", "hide-cell"}:
            assert len(lines) <= 14


def execute(chapter, parameters, folder):
    """Run a chapter by papermill; what it glued, and the alternative texts of its figures."""
    notebook = papermill.execute_notebook(
        ROOT / "notebooks" / f"{chapter}.ipynb",
        folder / "out.ipynb",
        SMOKE[chapter] | parameters,
        progress_bar=False,
    )
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    glued = {
        o.metadata["scrapbook"]["name"]: literal_eval(o.data[GLUED])
        for o in outputs
        if "scrapbook" in o.get("metadata", {})
    }
    findings = {
        o.metadata["pqlib"]["name"]: o.metadata["pqlib"]["alt"]
        for o in outputs
        if "pqlib" in o.get("metadata", {})
    }
    return glued, findings


@pytest.mark.parametrize(
    ("chapter", "parameters", "winner"), RUNS, ids=[f"{c}-{p['n_bits']}" for c, p, _ in RUNS]
)
def test_words_follow_the_numbers_when_re_executed(chapter, parameters, winner, tmp_path):
    glued, findings = execute(chapter, parameters, tmp_path)
    loser = {"pruning": "quantization", "quantization": "pruning"}[winner]
    assert f"{winner} wins" in glued["verdict_here"]
    assert f"{loser} wins" not in glued["verdict_here"]
    density = next(alt for name, alt in findings.items() if name in DENSITIES)
    assert f"the error of {loser} is" in density
    assert f"times that of {winner}" in density
    by_bits = next(alt for name, alt in findings.items() if name.endswith("sqnr-by-bits"))
    assert glued["verdict_by_bits"] in by_bits


@pytest.mark.parametrize("n_bits", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_the_zoo_in_which_pruning_is_ahead(n_bits, tmp_path):
    rng = np.random.default_rng(0)
    tails = {f"layer{i}": rng.standard_t(0.8, size=(30, 50)) for i in range(8)}
    np.savez(tmp_path / "heavy.npz", **tails)
    parameters = {"models": [str(tmp_path / "heavy.npz")], "bits": [n_bits], "n_bits": n_bits}
    glued, findings = execute("zoo_tensors", parameters, tmp_path)
    won = [compare(w, n_bits).winner == "quantization" for w in tails.values()]
    assert glued["verdict_here"] == f"quantization wins {sum(won)} of 8 tensors at {n_bits} bits"
    assert glued["wins_by_bits"] == glued["verdict_here"] and sum(won) < 4
    assert f"{np.mean(won):.1%} at {n_bits} bits" in findings["fig-zoo-scatter"]
    assert glued["crossing_words"].startswith("On these tensors the densities do not cross")
    assert "none (quantization wins" in findings["fig-zoo-kurtosis"]
    assert glued["median_lead"].startswith("−") and glued["place_words"].endswith("linear.")
    assert glued["zoo_own_left"] == f"{np.mean(won):.1%} at {n_bits} bits"
    assert glued["zoo_paper_left"].startswith("not run: `pqlib scan paper")


def test_the_zoo_at_its_other_defaults(tmp_path, monkeypatch):
    monkeypatch.delenv("PQLIB_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    glued, findings = execute("zoo_tensors", {"bits": [2, 8], "n_bits": 2}, tmp_path)
    rows = distinct(scan(["pip:efficientnet-lite0", "pip:minilm"], [2, 8]))
    assert glued["wins_by_bits"] == wins(rows)
    assert glued["beside_words"] == "Here they are not."
    assert "are not at hand" in glued["authors_words"]
    split = split_by_kurtosis(rows, 2)
    many = f"(with {split.tensors['pruning'].size} tensors that pruning wins)"
    assert f"{split.crossings['joint']:.1f} {many} at 2 bits" in glued["crossing_words"]
    assert f"{split.crossings['joint']:.3g} at 2 bits" in findings["fig-zoo-kurtosis"]


# the layer, what else, and what the chapter must say of it
LAYERS = [
    ({"layer": "conv_stem", "n_bits": 2}, {"quantize_lost": "dB", "chunk_words": "single chunk"}),
    ({"layer": "blocks.0.0.conv_dw", "chunk": 5, "n_bits": 3}, {"chunk_words": "The 2 chunks"}),
    (
        {"layer": "classifier", "n_bits": 8, "bits": [8]},
        {"rank_words": "of rank 2,", "whole_words": "singular, so no limit is proven"},
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("parameters", "said"), LAYERS, ids=[p["layer"] for p, _ in LAYERS])
def test_the_layers_chapter_on_other_layers(parameters, said, tmp_path):
    pytest.importorskip("cvxpy")
    pytest.importorskip("timm")
    glued, findings = execute("layer_bounds", parameters, tmp_path)
    for name, words in said.items():
        assert words in glued[name]
    assert glued["verdict_here"].endswith(f"at {parameters['n_bits']} bits")
    assert "nan" not in " ".join([*glued.values(), *findings.values()])
    assert glued["table3_words"] == "11 rows, 0 run here"
    if parameters["layer"] == "conv_stem":
        assert "1 more at the best scale only" in glued["verdict_here"]
        assert "for pruning at this scale and budget" in findings["fig-layer-rectangles"]


# what is trained otherwise, and what the chapter must say of it
TRAINED = [
    {"bits": [8], "seed": 3},
    {"model": "mobilenet_v2", "bits": [4, 8], "size": 32},  # at 2 so few steps diverge
    {"model": "deeplab_v3_mobilenet_v2", "data": "scenes:80", "bits": [4], "size": 0},
]


@pytest.mark.slow
@pytest.mark.parametrize("parameters", TRAINED, ids=[p.get("model", "small") for p in TRAINED])
def test_the_training_chapter_on_other_networks(parameters, tmp_path):
    pytest.importorskip("torchmetrics")
    glued, findings = execute("fine_tuning", parameters, tmp_path)
    words = " ".join([*glued.values(), *findings.values()])
    assert "nan" not in words.split()
    assert glued["live_verdict"].endswith("bits")
    assert glued["live_verdict"] in findings["fig-live-accuracy"]
    for n_bits in parameters["bits"]:
        assert f"{n_bits} bits" in findings["fig-live-loss"]
        assert f"at {n_bits} bits" in findings["fig-sparsity-schedule"]
    assert glued["lowest"] == str(parameters["bits"][0])
    if parameters["bits"] == [8]:
        assert "+0.0 points for quantization and +0.0 for pruning" in glued["spared_effect"]
        assert glued["authors_lead"] == glued["fair_lead"] == glued["both_lead"]
        assert glued["scale_moved"].endswith("at 8 bits")
    if "mIoU" in glued["fp_words"]:
        assert glued["simple_words"] == "" and "mIoU" in findings["fig-live-accuracy"]
    assert glued["table1_counts"].startswith("quantization is ahead in 53 of 56 cells")
    assert glued["edition_counts"].startswith("quantization is ahead in")
    assert glued["edition_ahead"].startswith("quantization is ahead in")


# what is compressed otherwise: nothing lost, one budget, another network, rows of this run alone
ONE_LAYER_AT_A_TIME = [
    {"bits": [2, 8], "seed": 3, "epochs": 3},
    {"bits": [8], "results": ""},
    {"bits": [2], "results": "", "epochs": 4, "size": 16},
    {"model": "cifar_resnet32", "bits": [4], "results": ""},
]


# what is watched otherwise; without the finished table the live run stands in for it
WATCHED = [
    {"bits": [2, 8], "seed": 3, "results": "", "epochs": 2},
    {"bits": [8], "mild": 2, "n_images": 40},
    {"bits": [3], "model": "mobilenet_v2", "size": 32, "results": ""},
]


@pytest.mark.slow
@pytest.mark.parametrize("parameters", ONE_LAYER_AT_A_TIME, ids=[0, 1, 2, 3])
def test_the_chapter_on_layer_snr(parameters, tmp_path):
    pytest.importorskip("torchvision")
    glued, findings = execute("layer_snr", parameters, tmp_path)
    words = " ".join([*glued.values(), *findings.values()])
    assert "nan" not in re.findall(r"\w+", words) and "inf" not in re.findall(r"\w+", words)
    assert glued["order_both"] in findings["fig-snr-correlations"]
    assert glued["spread"] in findings["fig-loss-noise"]
    for at in ("gap_prune", "gap_quant"):
        assert glued[at] in findings["fig-equal-snr"]
    costs = [glued["gap_prune"], glued["gap_quant"]]
    for method in ("pruning", "quantization"):
        both = all(words.startswith(f"{method} costs more") for words in costs)
        assert both == (f"{method} is the dearer one at equal SNR" in glued["fair"])
    assert all("the two tie" in w for w in costs) == glued["fair"].startswith("Either way it is a")
    n_live = int(glued["n_live"])
    assert n_live == int(glued["live_layers"]) * len(parameters["bits"]) * 2
    if parameters.get("results") == "":
        assert glued["table_rows"] == str(n_live)
        assert glued["table_made"].startswith("It is not at hand")
        assert glued["networks_said"] == "There is no other network to compare it with"
        assert glued["elsewhere"] == "" and "ResNet-18" not in glued["agree"]
    else:
        assert (glued["table_rows"], glued["table_images"]) == ("280", "1,017")
        assert glued["table_made"].startswith("The table was made at commit")
        assert glued["networks_said"].startswith("Alike in all 3 are")
        for name in ("agree", "drop_networks", "drop_shared", "right_networks"):
            assert all(n in glued[name] for n in ("live run", "ResNet-20", "ResNet-18"))
    if len(parameters["bits"]) == 1:
        assert glued["apart_claim"].startswith("Within a layer there is nothing to put")


@pytest.mark.slow
@pytest.mark.parametrize("parameters", WATCHED, ids=["both", "mild", "mobilenet"])
def test_the_chapter_on_representations_otherwise(parameters, tmp_path):
    pytest.importorskip("torchmetrics")
    glued, findings = execute("representations", parameters, tmp_path)
    words = " ".join([*glued.values(), *findings.values()])
    assert not {"nan", "nan%", "inf"} & set(words.replace(";", " ").split())
    assert glued["lowest"] == str(parameters["bits"][0])
    assert glued["mild_bits"] == str(parameters.get("mild", 8))
    assert glued["prediction"].startswith(("it departs", "it does not depart", "there is no"))
    for name in ("live_quant", "live_once", "live_claim"):
        for n_bits in parameters["bits"]:
            assert str(n_bits) in glued[name] and "bits" in glued[name]
    assert glued["start_snr"] in findings["fig-before-after"]
    live_again = parameters.get("results") == ""
    assert glued["shown_words"].startswith("the live run again") == live_again
    if live_again:
        assert glued["claim_once"] == glued["live_claim"]
        assert findings["fig-last-layer"] == findings["fig-live-last-layer"]
        assert glued["control_words"] == "was not run"
        assert "was not run" in glued["control_sentences"] and "was not run" in glued["repaired"]
        assert glued["rate_words"].endswith("was not tried") and glued["remeasured"] == ""
        assert glued["vit_rate_words"] == glued["rate_words"]
    else:
        assert glued["shown_layers"] == "20" and "ResNet-20" in glued["shown_words"]
        assert glued["shown_rate"] in glued["rate_words"] and "chose" in glued["vit_rate_words"]
        assert glued["starts_ends"] in glued["starts_compared"]
    assert glued["vit_words"].startswith("the live run again") == live_again
    if not live_again:
        assert glued["vit_shown_layers"] == "50" and "ViT" in glued["vit_words"]


DENSITIES = ("fig-tensor-density", "fig-density")


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_parameters_are_one_line_each_with_help(path):
    cells = nbformat.read(path, 4).cells
    (cell,) = (c for c in cells if "parameters" in c.metadata.get("tags", []))
    names = [line.split(":")[0] for line in cell.source.splitlines()]
    inspected = papermill.inspect_notebook(path)
    assert list(inspected) == names
    assert all(p["help"] and p["inferred_type_name"] for p in inspected.values())


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_prose_leaves_the_verdict_to_cells(path):
    """No sentence outside of theorems and fixed cases may name a winner in typed words."""
    fixed = (
        "every win of quantization below is a win with that handicap",
        "for one heavy-tailed family, which method wins at which kurtosis",
        "For the truncated Student-t pruning wins from kurtosis",
        "pruning wins none of them either",
        "there is a range beyond which pruning wins",
        "To its left quantization wins, to its right pruning.",
        "find those where pruning wins at 2 bits",
        "found it hard to beat",
        "At which kurtosis does pruning start to win",
        "one over the tensors that quantization wins and one over those that pruning wins",
        "fits the probability that pruning wins",
        "the probability that pruning wins, given $x$",
        "the odds that pruning wins",
        "as pruning's wins become rare",
        "nine wins in ten for quantization",
        "Take one tensor that pruning wins and one that quantization wins",
        "Where one method wins everything",
    )
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"```.*?```", "", cell.source, flags=re.S)
            for phrase in fixed:
                text = text.replace(phrase, "")
            assert not re.search(r"\b(wins?|beats?|loses? less|is better)\b(?! or|\?)", text), text
