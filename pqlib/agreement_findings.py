"""What a network still answers once it is compressed without training: tables and words."""

import pandas as pd

from pqlib import training_findings
from pqlib.verdicts import by_bits

TABLE = "agreement"
_METHODS = {"quantize": "quantization", "prune": "pruning"}


def read_table(folder: str) -> pd.DataFrame | None:
    """Committed rows of `pqlib run agreement`, methods by their nouns; None if they are not there.

    Parameters
    ----------
    folder : str
        See `pqlib.training_findings.read_table`.
    """
    table = training_findings.read_table(TABLE, folder)
    return None if table is None else prepared(table)


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of `pqlib.experiments.agreement` with ``method`` as a noun, by method and budget."""
    found = table.assign(method=table["method"].map(_METHODS))
    return found.sort_values(["method", "n_bits"], ascending=[False, True], ignore_index=True)


def compared(table: pd.DataFrame) -> pd.DataFrame:
    """Both methods side by side at each budget, and who keeps more answers.

    Parameters
    ----------
    table : DataFrame
        Of `prepared`, for one network and one set of images.

    Returns
    -------
    DataFrame
        ``n_bits``, ``quantization`` and ``pruning`` (% of answers kept), and ``winner``, "neither"
        where the two intervals overlap. Both methods saw the same images, so that this is cautious:
        some real differences are called a tie.
    """
    rows = []
    for n_bits, pair in table.groupby("n_bits"):
        pair = pair.set_index("method")
        first, second = pair["agreement"].sort_values(ascending=False, kind="stable").index
        apart = pair.loc[first, "agreement_low"] > pair.loc[second, "agreement_high"]
        rows.append(
            {
                "n_bits": int(n_bits),
                **pair["agreement"].to_dict(),
                "winner": first if apart else "neither",
            }
        )
    return pd.DataFrame(rows)


def ahead_words(table: pd.DataFrame) -> str:
    """Who keeps more answers, by budget: "a tie at 2 bits, quantization ahead at 8 bits"."""
    rows = compared(table)
    said = {"neither": "a tie"}
    texts = {
        b: said.get(winner, f"{winner} ahead")
        for b, winner in zip(rows["n_bits"], rows["winner"], strict=True)
    }
    return by_bits(texts)


def least_bits(table: pd.DataFrame, method: str, share: float) -> int | None:
    """The smallest budget from which on at least ``share`` % of the answers are kept, if any."""
    rows = table[table["method"] == method].sort_values("n_bits", ascending=False)
    kept = rows[(rows["agreement"] >= share).cummin()]
    return int(kept["n_bits"].iloc[-1]) if len(kept) else None


def words(table: pd.DataFrame, share: float = 90.0) -> str:
    """From which budget on each method keeps ``share`` % of the answers, in a clause.

    Examples
    --------
    >>> import pandas as pd
    >>> from pqlib.agreement_findings import words
    >>> rows = [("quantization", 4, 50.0), ("quantization", 8, 99.0), ("pruning", 8, 1.0)]
    >>> said = words(pd.DataFrame(rows, columns=["method", "n_bits", "agreement"]))
    >>> said.removeprefix("quantization keeps 90 % of the answers ")
    'from 8 bits on, pruning at no budget (at most 1.0 %, at 8 bits)'
    """
    said = []
    for method in _METHODS.values():
        bits = least_bits(table, method, share)
        if bits is None:
            rows = table[table["method"] == method]
            best = rows.loc[rows["agreement"].idxmax()]
            most = f"at most {best['agreement']:.1f} %, at {best['n_bits']} bits"
            said.append(f"{method} at no budget ({most})")
        else:
            said.append(f"{method} from {bits} bits on")
    first, second = said
    noun, rest = first.split(" ", 1)
    return f"{noun} keeps {share:g} % of the answers {rest}, {second}"


def facts(table: pd.DataFrame) -> dict[str, str]:
    """What to say of one network and one set of images.

    Returns
    -------
    dict
        "images" (how many), "words" (`words`), "ahead" (`ahead_words`), and of the largest budget
        "bits", "top" (answers kept by quantization and by pruning) and "snr" (of their logits).
    """
    n_bits = table["n_bits"].max()
    rows = table[table["n_bits"] == n_bits].set_index("method")
    shares, decibels = rows["agreement"], rows["logit_snr_db"]
    quantization, pruning = _METHODS.values()
    return {
        "images": str(int(table["n_images"].iloc[0])),
        "words": words(table),
        "ahead": ahead_words(table),
        "bits": str(n_bits),
        "top": f"{shares[quantization]:.1f} % of the answers against {shares[pruning]:.1f} %",
        "snr": f"{decibels[quantization]:z.1f} dB and {decibels[pruning]:z.1f} dB".replace(
            "-", "−"
        ),
    }
