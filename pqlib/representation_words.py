"""Sentences and small tables of the chapter on what fine-tuning learns, made of its tables.

What is counted and judged is in `pqlib.representation_findings`.
"""

import pandas as pd

from pqlib.representation_findings import (
    CLOSER,
    FARTHER,
    NAMES,
    OPEN,
    change_words,
    changes,
    claim_words,
    difference_words,
    differences,
    final_epoch,
    last_layer,
    last_layer_moves,
    last_layer_words,
    plain,
    rows_of,
    signed,
    verdict_words,
)
from pqlib.verdicts import by_bits

_PRUNING = {"prune": "prune", "once": "prune_at_once"}
_PREDICTION = {
    FARTHER: "it departs, as predicted",
    CLOSER: "it does not depart, and the prediction fails",
    OPEN: "there is no verdict, and the prediction is not confirmed",
}


def ends_words(table: pd.DataFrame, n_bits: int) -> str:
    """Accuracy after the last epoch, by method: "91.2 % under quantization, 89 ..."."""
    last = table[(table["n_bits"] == n_bits) & (table["epoch"] == table["epoch"].max())]
    ends = last.groupby("method")["accuracy"].first()
    return ", ".join(f"{ends[m]:.1f} % under {name}" for m, name in NAMES.items() if m in ends)


def accuracy_words(table: pd.DataFrame) -> str:
    """Accuracy at epoch 0 and at the last, by method, at the fewest bits and without compression.

    Methods stand in the order of the table: "quantization from 10.0 to 80.0 %; pruning from ...".
    """
    fewest = table["n_bits"].eq(table["n_bits"].min()).fillna(False)
    said = []
    for method, rows in table[fewest | table["n_bits"].isna()].groupby("method", sort=False):
        accuracy = rows.groupby("epoch")["accuracy"].first()
        said.append(f"{NAMES[method]} from {accuracy.iloc[0]:.1f} to {accuracy.iloc[-1]:.1f} %")
    return "; ".join(said)


def control_words(table: pd.DataFrame) -> str:
    """Where the network ends that is fine-tuned without compression, on average over layers."""
    rows = table[(table["method"] == "uncompressed") & (table["epoch"] == table["epoch"].max())]
    if rows.empty:
        return "was not run"
    snr, cka = (plain(rows[measure].mean(), measure) for measure in ("sqnr_db", "cka"))
    return f"ends at {snr} dB and a CKA of {cka}, on average over layers"


def ends_beside_control(table: pd.DataFrame) -> str:
    """Where runs end by CKA, on average over layers, beside training without compression.

    "quantization ends at 0.930 at 2 bits, 0.976 at 4 bits; ...; training without compression ends
    at 0.976". Without a control it says so.
    """
    last = table[table["epoch"] == table["epoch"].max()]
    said = []
    for method, runs in last.dropna(subset="n_bits").groupby("method", sort=False):
        ends = runs.groupby("n_bits")["cka"].mean()
        texts = by_bits({int(b): plain(cka, "cka") for b, cka in ends.items()})
        said.append(f"{NAMES[method]} ends at {texts}")
    control = last.loc[last["method"] == "uncompressed", "cka"]
    alone = f"ends at {plain(control.mean(), 'cka')}" if len(control) else "was not run"
    return "; ".join([*said, f"training without compression {alone}"])


def remeasured_words(table: pd.DataFrame) -> str:
    """Why the network without compression does not begin with the accuracy of the original.

    A sentence in brackets; empty if it does, or was not run.
    """
    rows = table[(table["method"] == "uncompressed") & (table["epoch"] == 0)]
    begin, original = (f"{rows[name].mean():.1f}" for name in ("accuracy", "fp_value"))
    if rows.empty or begin == original:
        return ""
    return f"(No compression begins with {begin} %, since batch norm was measured again.)"


def negative_words(table: pd.DataFrame) -> str:
    """How many layers have an SNR below zero at epoch 0, and how many at the last.

    "quantization 9 and then 2 of 20 at 2 bits, 0 and then 0 of 20 at 4 bits; pruning ...".
    """
    said = []
    for method, runs in changes(table).groupby("method", sort=False):
        counts = {
            int(n_bits): f"{(run['sqnr_db_before'] < 0).sum()} and then "
            f"{(run['sqnr_db_after'] < 0).sum()} of {len(run)}"
            for n_bits, run in runs.groupby("n_bits")
        }
        said.append(f"{NAMES[method]} {by_bits(counts)}")
    return "; ".join(said)


def starts_words(table: pd.DataFrame) -> dict[str, str]:
    """Where methods begin by SNR, on average over layers.

    Parameters
    ----------
    table : DataFrame
        Of `pqlib run representations`.

    Returns
    -------
    dict
        ``starts_ends``: where each method begins and ends at the fewest bits; ``start_nearest``:
        the beginning that is nearest to the original, of all methods and budgets.
    """
    runs = changes(table).groupby(["n_bits", "method"], sort=False)
    ends = runs[["sqnr_db_before", "sqnr_db_after"]].mean()
    fewest = ends.loc[ends.index.get_level_values("n_bits").min()]
    n_bits, method = nearest = ends["sqnr_db_before"].idxmax()
    begin = plain(ends.loc[nearest, "sqnr_db_before"], "sqnr_db")
    return {
        "starts_ends": ", ".join(
            f"{NAMES[of]} from {plain(first, 'sqnr_db')} to {plain(last, 'sqnr_db')} dB"
            for of, (first, last) in fewest.iterrows()
        ),
        "start_nearest": f"{begin} dB ({NAMES[method]} at {n_bits:.0f} bits)",
    }


def table_words(table: pd.DataFrame) -> dict[str, str]:
    """What a table of `pqlib run representations` holds.

    Returns
    -------
    dict
        ``shown_layers``, ``shown_epochs`` and ``shown_bits`` (the fewest), as numbers alone;
        ``shown_fp``, the accuracy of the original; ``shown_accuracy``, see `accuracy_words`;
        ``shown_final``, the epoch from which gradual pruning has its final zeros, a dash if it was
        not run; ``chance_range`` of CKA with unpaired images, of all layers, and ``chance_last``,
        of the last one before the classifier; ``control_words``; ``beside_control``, see
        `ends_beside_control`; ``remeasured``, see `remeasured_words`.
    """
    chance = table["cka_unpaired"]
    of_last = chance[table["layer"] == last_layer(table)]
    return {
        "shown_layers": str(table["layer"].nunique()),
        "shown_epochs": str(int(table["epoch"].max())),
        "shown_fp": f"{table['fp_value'].iloc[0]:.1f} %",
        "shown_bits": str(int(table["n_bits"].min())),
        "shown_accuracy": accuracy_words(table),
        "shown_final": str(final_epoch(table)) if "prune" in set(table["method"]) else "–",
        "chance_range": f"{chance.min():.2f} and {chance.max():.2f}",
        "chance_last": f"{of_last.min():.2f} and {of_last.max():.2f}",
        "control_words": control_words(table),
        "beside_control": ends_beside_control(table),
        "remeasured": remeasured_words(table),
    }


def trend_words(found: pd.DataFrame) -> dict[str, str]:
    """What `pqlib.representation_findings.trends` say of each method by each measure.

    Returns
    -------
    dict
        ``fig7_quantization``, ``fig7_pruning``: mean changes of SNR; ``fig8_snr``, ``fig8_cka``:
        the last layer's values, and ``last_moves``, where its SNR goes, of every method;
        ``quant_snr``: verdicts on quantization; ``claim_words``, with pruning by the schedule, and
        ``claim_once``, with pruning at once. Empty for a method that was not run.
    """
    present = [method for method in NAMES if method in set(found["method"])]

    def of_all(say, measure):
        return "; ".join(f"{NAMES[m]} {say(found, m, measure)}" for m in present)

    words = {
        "fig7_quantization": change_words(found, "lsq", "sqnr_db"),
        "fig7_pruning": change_words(found, "prune", "sqnr_db"),
        "last_moves": of_all(last_layer_moves, "sqnr_db"),
        "quant_snr": verdict_words(found, "lsq", "sqnr_db"),
        "claim_words": claim_words(found),
        "claim_once": claim_words(found, "prune_at_once"),
    }
    for short, measure in (("snr", "sqnr_db"), ("cka", "cka")):
        words[f"fig8_{short}"] = of_all(last_layer_words, measure)
    return words


def beside_words(table: pd.DataFrame, **draws: int) -> dict[str, str]:
    """How much closer layers come under quantization than under pruning, by SNR.

    Parameters
    ----------
    table : DataFrame
        Of `pqlib run representations`.
    **draws : int
        ``n_draws`` and ``seed`` of `pqlib.representation_findings.differences`.

    Returns
    -------
    dict
        ``beside_prune`` and ``beside_once``: than under pruning by the schedule, and at once.
    """
    return {
        f"beside_{key}": difference_words(differences(table, method, **draws), "sqnr_db")
        for key, method in _PRUNING.items()
    }


def trends_table(found: pd.DataFrame) -> dict[str, list]:
    """Columns of `pqlib.representation_findings.trends`: a row per method and bit-width.

    Mean changes over layers with their intervals, and verdicts, by both measures; how many layers
    come closer, by SNR.
    """
    rows, by_cka = (found[found["measure"] == measure] for measure in ("sqnr_db", "cka"))
    return {
        "method": [NAMES[method] for method in rows["method"]],
        "bits": rows["n_bits"].tolist(),
        "change of SNR (dB)": _changes(rows, "sqnr_db"),
        "layers closer": _counts(rows),
        "by SNR": rows["verdict"].tolist(),
        "change of CKA": _changes(by_cka, "cka"),
        "by CKA": by_cka["verdict"].tolist(),
    }


def starts_table(table: pd.DataFrame, found: pd.DataFrame) -> dict[str, list]:
    """Columns: where quantization begins and ends by SNR, a row per bit-width.

    Parameters
    ----------
    table : DataFrame
        Of `pqlib run representations`.
    found : DataFrame
        Its `pqlib.representation_findings.trends`.
    """
    rows = rows_of(found, "lsq", "sqnr_db")
    ends = _ends(table)
    return {
        "quantization at bits": rows["n_bits"].tolist(),
        "SNR at epoch 0 (dB)": ends["sqnr_db_before"].tolist(),
        "at the end": ends["sqnr_db_after"].tolist(),
        "layers that come closer": _counts(rows),
        "verdict": rows["verdict"].tolist(),
    }


def prediction_words(table: pd.DataFrame, found: pd.DataFrame, n_bits: int) -> dict[str, str]:
    """Whether quantization at a budget that does little harm departs, as predicted.

    Parameters
    ----------
    table, found
        As in `starts_table`.
    n_bits : int
        The budget; both must hold it.

    Returns
    -------
    dict
        ``prediction``, and ``mild_ends``: the SNR that it begins and ends with.
    """
    rows = rows_of(found, "lsq", "sqnr_db")
    verdict = rows.loc[rows["n_bits"] == n_bits, "verdict"].iloc[0]
    begin, end = (plain(v, "sqnr_db") for v in _ends(table).loc[n_bits])
    return {
        "prediction": _PREDICTION[verdict],
        "mild_ends": f"{begin} dB on average over layers and ends at {end} dB",
    }


def _ends(table):
    moved = changes(table)
    by_width = moved[moved["method"] == "lsq"].groupby("n_bits")
    return by_width[["sqnr_db_before", "sqnr_db_after"]].mean()


def _changes(rows, measure):
    """Mean changes with their intervals, without a unit."""
    return [
        f"{signed(change, measure).removesuffix(' dB')} ({plain(low, measure)} to "
        f"{plain(high, measure)})"
        for change, low, high in zip(rows["change"], rows["low"], rows["high"], strict=True)
    ]


def _counts(rows):
    return [f"{k} of {n}" for k, n in zip(rows["n_closer"], rows["n_layers"], strict=True)]
