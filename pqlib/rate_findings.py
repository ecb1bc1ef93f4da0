"""What a sweep says of its learning rates: which were chosen, and which lie at the end of a range.

Its table is that of `pqlib.table1_leads.leads`.
"""

import pandas as pd

from pqlib.training_findings import NAMES
from pqlib.verdicts import bits_phrase, by_bits

METHODS = "quantization", "pruning"


def chosen_words(cells: pd.DataFrame, method: str) -> str:
    """The rates chosen for a method, by budget: "0.01 at 2 and 4 bits, 0.003 at 8 bits".

    Budgets at which a single rate was tried took it over from another and are left out, unless
    there are no others.
    """
    chosen = {}
    several = cells[f"tried_{method}"].map(lambda text: len(_numbers(text)) > 1)
    for n_bits, rows in (cells[several] if several.any() else cells).groupby("n_bits"):
        rates = {rate for text in rows[f"rate_{method}"] for rate in _numbers(text)}
        chosen[int(n_bits)] = " or ".join(f"{rate:.2g}" for rate in sorted(rates, reverse=True))
    return by_bits(chosen)


def ends_words(cells: pd.DataFrame) -> dict[str, str]:
    """Where the best rate is the largest or the smallest of those tried, so that more might help.

    Parameters
    ----------
    cells : DataFrame
        Fine-tuned cells of `pqlib.table1_leads.leads`. Those for which a single rate was tried, as
        it was best at a budget nearby, have no part in it.

    Returns
    -------
    dict
        ``rates_tried``: how many, where several were; ``rates_largest``, ``rates_smallest``: for
        which method, network and budgets.
    """
    numbers = set()
    ends: dict[str, dict[tuple[str, str], list[int]]] = {"largest": {}, "smallest": {}}
    for _, row in cells.iterrows():
        for method in METHODS:
            tried, chosen = (_numbers(row[f"{kind}_{method}"]) for kind in ("tried", "rate"))
            if len(tried) > 1:
                numbers.add(len(tried))
                for end, rate in (("largest", max(tried)), ("smallest", min(tried))):
                    if chosen[0] == rate:  # of the first seed, which alone has several rates
                        ends[end].setdefault((method, row["model"]), []).append(int(row["n_bits"]))
    fewest_and_most = sorted({min(numbers, default=1), max(numbers, default=1)})
    return {
        "rates_tried": " to ".join(map(str, fewest_and_most)),
        **{f"rates_{end}": _places(found) for end, found in ends.items()},
    }


def _places(found) -> str:
    """By method, the networks and their budgets: "pruning (ResNet-18 at 2 bits)"."""
    texts = []
    for method in METHODS:
        networks = [
            f"{NAMES.get(model, model)} at {bits_phrase(sorted(bits))}"
            for (of, model), bits in found.items()
            if of == method
        ]
        texts += [f"{method} ({'; '.join(networks)})"] if networks else []
    return " and ".join(texts) or "neither method"


def _numbers(text) -> list[float]:
    return [float(word) for word in str(text).split()]
