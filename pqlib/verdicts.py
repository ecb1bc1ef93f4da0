"""Verdicts in words, put together from records so that they cannot contradict them."""

from collections.abc import Iterable, Mapping, Sequence

from pqlib.comparison import Comparison


def bits_phrase(bits: Sequence[int]) -> str:
    """Bit-widths in words: "4 bits", "2, 3 and 5 bits", "2 to 8 bits", "no bit-width"."""
    bits = sorted(set(bits))
    if not bits:
        return "no bit-width"
    if len(bits) > 2 and bits == list(range(bits[0], bits[-1] + 1)):
        return f"{bits[0]} to {bits[-1]} bits"
    return f"{listed(map(str, bits))} bits"


def by_bits(texts: Mapping[int, str], separator: str = ", ") -> str:
    """Texts with their bit-widths, equal ones together: "a at 2 bits, b at 3 and 4 bits"."""
    groups: dict[str, list[int]] = {}
    for n_bits, text in texts.items():
        groups.setdefault(text, []).append(n_bits)
    return separator.join(f"{text} at {bits_phrase(bits)}" for text, bits in groups.items())


def listed(texts: Iterable[str]) -> str:
    """One or several texts as a list in a sentence: "a, b and c"."""
    *head, last = texts
    return f"{', '.join(head)} and {last}" if head else last


def winner(low: float, high: float) -> str:
    """Who is ahead by an interval of quantization's lead, "neither" where it holds zero.

    An end within 1e-9 of zero is zero: differences of percentages leave dust of that kind.
    """
    return "quantization" if low > 1e-9 else "pruning" if high < -1e-9 else "neither"


def signed(value: float) -> str:
    """A difference to one decimal, with a real minus sign and none before zero: "−0.3", "4.0"."""
    return f"{value:z.1f}".replace("-", "−")


def points(value: float) -> str:
    """A difference of percentages, with its sign: "+4.0 points"."""
    return f"{value:+z.1f} points".replace("-", "−")


def verdict(records: Sequence[Comparison]) -> str:
    """Who wins where, as a clause: "quantization wins at 3 to 8 bits, pruning at 2 bits"."""
    groups = {
        method: [r.n_bits for r in records if r.winner == method]
        for method in ("quantization", "pruning", "neither")
    }
    if len(records) > 1:
        for method in ("quantization", "pruning"):
            if len(groups[method]) == len(records):
                return f"{method} wins at every bit-width shown, {bits_phrase(groups[method])}"
    clauses = [
        f"{method} wins at {bits_phrase(groups[method])}"
        for method in ("quantization", "pruning")
        if groups[method]
    ]
    if groups["neither"]:
        clauses.append(f"both are equally good at {bits_phrase(groups['neither'])}")
    return ", ".join(clauses)
