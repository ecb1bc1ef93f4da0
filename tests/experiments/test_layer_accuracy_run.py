"""The run over all layers: nothing lost, nothing twice, and what it says of mistakes."""

import pandas as pd
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")
pytest.importorskip("timm")

from pqlib.cli import main  # noqa: E402
from pqlib.experiments import layer_accuracy_run as runs  # noqa: E402
from pqlib.experiments.layer_accuracy_run import TABLE, LayerAccuracy, run  # noqa: E402

CONFIG = LayerAccuracy("python:finetune_cases:tiny", "digits", size=8, limit=60, bits=(2, 5))
N_ROWS = 2 * 2 * 2  # layers, bits, methods


@pytest.fixture
def measured(monkeypatch):
    """What was measured, in order."""
    seen, measure = [], runs.measure

    def noted(model, batches, original, *case):
        seen.append(case)
        return measure(model, batches, original, *case)

    monkeypatch.setattr(runs, "measure", noted)
    return seen


def without_time(table):
    return table.drop(columns="seconds")


def test_an_interrupted_run_goes_on_to_the_same_rows(tmp_path, measured):
    whole = run(CONFIG, tmp_path / "whole")
    assert len(whole) == N_ROWS == len(measured)
    measured.clear()
    rows = []

    def interrupted(row):
        rows.append(row)
        if len(rows) == 3:
            raise KeyboardInterrupt

    folder = tmp_path / "halves"
    with pytest.raises(KeyboardInterrupt):
        run(CONFIG, folder, on_row=interrupted)
    assert len(pd.read_csv(folder / TABLE)) == 3  # what there is can be read at once
    started = []
    again = run(CONFIG, folder, on_start=lambda *counts: started.append(counts))
    assert started == [(N_ROWS, 3)]
    assert len(measured) == N_ROWS == len(set(measured))  # nothing twice
    pd.testing.assert_frame_equal(without_time(again), without_time(whole), check_exact=True)
    text = (folder / TABLE).read_text("utf-8")
    pd.testing.assert_frame_equal(run(CONFIG, folder), again, check_exact=True)
    assert len(measured) == N_ROWS and (folder / TABLE).read_text("utf-8") == text


def test_a_row_that_is_lost_is_measured_again(tmp_path, measured):
    run(CONFIG, tmp_path)
    damaged = next(p for p in tmp_path.glob("*.json") if '"snr"' in p.read_text("utf-8"))
    damaged.write_text("{", "utf-8")
    measured.clear()
    assert len(run(CONFIG, tmp_path)) == N_ROWS and len(measured) == 1


def test_rows_say_how_they_were_made(tmp_path):
    table = run(CONFIG, tmp_path)
    assert table["model"].unique().tolist() == [CONFIG.model]
    assert table["layer"].unique().tolist() == ["0", "5"]
    for column in ("hardware", "versions", "command", "seconds"):
        assert table[column].astype(bool).all()
    assert table["command"].iloc[0] == CONFIG.command
    assert "--bits 2,5" in CONFIG.command and "--limit 60" in CONFIG.command
    words = CONFIG.command.split()[3:]
    options = runs_options(words)
    assert LayerAccuracy(**options).hash == CONFIG.hash


def runs_options(words):
    from pqlib.layer_accuracy_command import layer_accuracy

    options = dict(layer_accuracy.make_context("layer-accuracy", words).params)
    del options["folder"], options["dry_run"]
    return options


def test_the_folder_belongs_to_one_network(tmp_path, monkeypatch):
    run(CONFIG, tmp_path)
    other = LayerAccuracy("python:finetune_cases:tiny", "digits", size=8, limit=60, bits=(2,))
    with pytest.raises(ValueError, match="holds a run with other options"):
        run(other, tmp_path)
    monkeypatch.setattr(runs, "fingerprint", lambda model: "other")
    with pytest.raises(ValueError, match="holds rows of a network with other weights"):
        run(CONFIG, tmp_path)


def test_threads_are_given_back(tmp_path):
    before = torch.get_num_threads()
    run(LayerAccuracy(CONFIG.model, "digits", size=8, limit=20, bits=(4,), n_threads=2), tmp_path)
    assert torch.get_num_threads() == before


def test_a_dry_run_times_with_the_threads_of_the_run(monkeypatch):
    before, seen = torch.get_num_threads(), []
    measured = runs.measure

    def measure(*arguments):
        seen.append(torch.get_num_threads())
        return measured(*arguments)

    monkeypatch.setattr(runs, "measure", measure)
    config = LayerAccuracy(
        CONFIG.model, "digits", size=8, limit=20, bits=(4,), n_threads=before + 1
    )
    runs.cost(config)
    assert seen == [before + 1] and torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"bits": ()}, ValueError, "bits must be one or several"),
        ({"bits": (4, 4)}, ValueError, "different bit-widths"),
        ({"bits": (1,)}, ValueError, "bits must be a whole number"),
        ({"bits": 4}, TypeError, "bits must be a sequence, got 4"),
        ({"layers": "conv1"}, TypeError, "layers must be a sequence"),
        ({"split": "val"}, ValueError, "split must be one of train, test"),
        ({"batch_size": 0}, ValueError, "batch_size must be"),
        ({"n_threads": 0}, ValueError, "n_threads must be"),
        ({"seed": -1}, ValueError, "seed must be"),
        ({"model": "deeplab_v3_mobilenet_v2"}, ValueError, "must classify, and 'deeplab"),
    ],
)
def test_bad_configs(changes, error, text):
    with pytest.raises(error, match=text):
        LayerAccuracy(**{"model": "cifar_resnet20", "data": "digits"} | changes)


def call(*arguments):
    done = CliRunner().invoke(main, ["run", "layer-accuracy", *map(str, arguments)])
    return done.exit_code, " ".join(done.output.split())


def test_help_teaches():
    code, output = call("--help")
    assert code == 0
    for part in ("one layer at a time", "Figure 6", "--weights", "goes on where an interrupted",
                 "pqlib run layer-accuracy --weights pretrained"):  # fmt: skip
        assert part in output


def test_the_command(tmp_path):
    options = ("--model", CONFIG.model, "--size", 8, "--limit", 60, "--bits", "2,5")
    code, output = call(*options, "--dry-run", "--folder", tmp_path / "run")
    assert code == 0 and "8 rows: 2 layers at 2 budgets by two methods, each on 60 images" in output
    assert not (tmp_path / "run").exists()
    code, output = call(*options, "--folder", tmp_path / "run")
    assert code == 0 and "layer_accuracy.csv in" in output
    assert len(pd.read_csv(tmp_path / "run" / TABLE)) == N_ROWS


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--bits", "1"), "different bit-widths from 2 to 16"),
        (("--layers", "head"), "layer 'head' is no convolution"),
        (("--data", "folder:nowhere"), "nowhere is not there"),
        (("--model", "efficientdet"), "must classify"),
        (("--weights", "nowhere.pth"), "'nowhere.pth' are no file"),
    ],
)
def test_mistakes(tmp_path, options, text):
    code, output = call("--folder", tmp_path / "run", *options)
    assert code in (1, 2) and text in output, output
    assert "Traceback" not in output and not (tmp_path / "run").exists()
