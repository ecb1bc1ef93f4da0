"""Data flows downward: a module imports only from rooms above its own."""

import subprocess
import sys

import grimp

ROOMS = (
    *("_validation", "incomplete", "metrics", "density", "distributions"),
    *("grids", "budget", "quantize", "prune"),
    *("expected_error", "distribution_scale"),
    *("compilation", "accurate", "kernels", "scale_search", "ranges"),
    *("comparison", "verdicts", "results", "claims", "paired_bootstrap"),
    *("tensor_formats", "checkpoints", "downloads", "zoo"),
    *("layers", "bounds", "training"),
    *("tensor_scan", "scan", "authors", "zoo_statistics", "zoo_predictors", "zoo_words"),
    *("findings", "plot_style", "plots", "prediction_plots", "zoo_plots", "scan_command"),
    *("experiments", "option_types", "layers_command", "run_command", "layer_accuracy_command"),
    *("layer_findings", "layer_words", "layer_plots"),
    *("training_findings", "simple_models", "training_words", "rate_findings", "sweep_findings"),
    *("spared_findings", "edition_tables", "edition_findings"),
    *("table1_leads", "leads_command", "table1_again", "compare_command"),
    *("agreement_findings", "agreement_command", "training_plots"),
    *("snr_statistics", "snr_findings", "snr_words", "snr_networks", "snr_plots"),
    *("representations_command", "representation_findings", "representation_words"),
    *("representation_rates", "representation_verdicts", "representation_plots"),
    *("book", "cli", "__main__"),
)


def test_no_import_points_up():
    graph = grimp.build_graph("pqlib", cache_dir=None)
    rank = {f"pqlib.{room}": place for place, room in enumerate(ROOMS)} | {"pqlib": -1}
    room = {m: ".".join(m.split(".")[:2]) for m in graph.modules}
    unknown = {r for r in room.values() if r not in rank}
    assert not unknown, f"give {unknown} a place in ROOMS"
    arrows = [(m, n) for m in room for n in graph.find_modules_directly_imported_by(m)]
    assert not [(m, n) for m, n in arrows if rank[room[n]] > rank[room[m]]]
    only_cli = {m for m, n in arrows if room[n] == "pqlib.book" and room[m] != "pqlib.book"}
    assert only_cli <= {"pqlib.cli"}


def test_import_is_light():
    heavy = "{'torch', 'cvxpy', 'numba', 'pandas', 'scipy', 'matplotlib', 'papermill'}"
    code = f"import pqlib, sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
