"""What the chapter on what fine-tuning learns may conclude from its tables, in words.

Each sentence has the condition under which it holds; without it another stands in its place.
"""

import pandas as pd

from pqlib.representation_findings import NAMES, changes, plain
from pqlib.representation_rates import rate_words, run_words
from pqlib.representation_words import beside_words, control_words, starts_words, table_words
from pqlib.verdicts import listed

_ALIKE = 1.0  # dB: starts within that are called alike
_TWICE = 3.0  # dB: half the SNR, twice the noise


def network_words(
    table: pd.DataFrame, runs: pd.DataFrame, edition: pd.DataFrame | None, *, seed: int
) -> dict[str, str]:
    """What is said of every network alike.

    Parameters
    ----------
    table : DataFrame
        Of `pqlib run representations`, of one network.
    runs, edition : DataFrame
        As `pqlib.representation_rates.rate_words` takes them.
    seed : int
        Of the intervals.

    Returns
    -------
    dict
        Those of `table_words`, `beside_words` and `starts_words` in `pqlib.representation_words`
        and of `pqlib.representation_rates.run_words`; ``rate_words`` and ``repaired``.
    """
    return {
        **table_words(table),
        **beside_words(table, seed=seed),
        **starts_words(table),
        **run_words(runs, table["model"].iloc[0]),
        "rate_words": rate_words(table, runs, edition),
        "repaired": repaired_words(table),
    }


def control_sentences(table: pd.DataFrame) -> str:
    """What the network says that is fine-tuned without compression, or that it was not run."""
    words = control_words(table)
    if not (table["method"] == "uncompressed").any():
        return (
            f"The control, the original fine-tuned without any compression, {words} here. Without "
            "it nobody can tell how far training alone would walk away"
        )
    return (
        "Hold the figure against the control: the original, fine-tuned without any compression, "
        f"{words}. Training at this rate moves even an intact network away from itself"
    )


def starts_compared(table: pd.DataFrame) -> dict[str, str]:
    """Whether methods begin alike by SNR at the fewest bits, so that their ends can be compared.

    Parameters
    ----------
    table : DataFrame
        Of `pqlib run representations`.

    Returns
    -------
    dict
        ``starts_compared``, sentences of the section, and ``starts_lesson``, a clause of the
        takeaways. Starts are alike within 1 dB, on average over layers.
    """
    moved = changes(table)
    fewest = int(moved["n_bits"].min())
    begins = moved[moved["n_bits"] == fewest].groupby("method")["sqnr_db_before"].mean()
    ends = starts_words(table)["starts_ends"]
    apart = float(begins.max() - begins.min())
    if len(begins) > 1 and apart < _ALIKE:
        ckas = moved[moved["n_bits"] == fewest].groupby("method", sort=False)["cka_before"].mean()
        by_cka = listed(f"{plain(cka, 'cka')} ({NAMES[m]})" for m, cka in ckas.items())
        return {
            "starts_compared": f"Compare methods that begin alike. At {fewest} bits their starts "
            f"lie within {plain(apart, 'sqnr_db')} dB, on average over layers, and they go: {ends}."
            " The SNR at the start alone, then, does not decide the end. But the starts are alike "
            f"in this average only: by CKA they lie at {by_cka}. And it is one rate and one seed",
            "starts_lesson": f"But see where starts of one mean SNR end: {ends}",
        }
    many = f"At {fewest} bits the starts lie {plain(apart, 'sqnr_db')} dB apart"
    lies = many if len(begins) > 1 else "The table has a single method"
    return {
        "starts_compared": "Methods that begin alike would tell. "
        f"{lies}, on average over layers, and they go: {ends}. A difference at the end may be the "
        "start's",
        "starts_lesson": f"Methods with one start are needed to tell it from the method. {lies}: "
        f"{ends}",
    }


def repaired_words(table: pd.DataFrame) -> str:
    """Whether fine-tuning repairs the old network, by its answers and by what is inside; a clause.

    Parameters
    ----------
    table : DataFrame
        Of `pqlib run representations`. Quantization and pruning by the schedule are looked at, at
        the fewest bits and after the last epoch, beside the network without compression. The
        numbers of a layer count as others where its SNR, on average over layers, is 3 dB below
        that network's, which is twice the noise.
    """
    last = table[table["epoch"] == table["epoch"].max()]
    fewest = int(last["n_bits"].min())
    ends = {}
    for method in ("lsq", "prune", "uncompressed"):
        rows = last[last["method"] == method]
        rows = rows if method == "uncompressed" else rows[rows["n_bits"].eq(fewest).fillna(False)]
        if len(rows):
            ends[method] = rows[["sqnr_db", "cka", "accuracy"]].mean()
    control = ends.pop("uncompressed", None)
    if not ends:
        return "neither quantization nor pruning by the schedule was run"
    said = [
        f"{NAMES[m]} at {plain(e['sqnr_db'], 'sqnr_db')} dB with {e['accuracy']:.1f} %"
        for m, e in ends.items()
    ]
    text = f"by SNR and accuracy, fine-tuning at {fewest} bits ends under {listed(said)}"
    if control is None:
        return f"{text}; how far training alone would go was not run"
    others = [m for m, e in ends.items() if e["sqnr_db"] < control["sqnr_db"] - _TWICE]
    if len(others) == len(ends):
        numbers = "the numbers inside are others"
    elif others:
        numbers = f"the numbers inside are others under {listed(NAMES[m] for m in others)} alone"
    else:
        numbers = "the numbers inside are about as near"
    alike = listed(plain(end["cka"], "cka") for end in ends.values())
    return (
        f"{text}, where training alone leaves the original at "
        f"{plain(control['sqnr_db'], 'sqnr_db')} dB with {control['accuracy']:.1f} %: {numbers}. "
        f"By CKA, which asks which images are alike, they end at {alike}, training alone at "
        f"{plain(control['cka'], 'cka')}"
    )
