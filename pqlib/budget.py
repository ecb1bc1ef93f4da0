"""The budget: how sparse a pruned tensor must be to cost as much as a quantized one."""

import math

from pqlib._validation import check_integer, check_number
from pqlib.grids import MAX_BITS

REFERENCE_BITS = 16  # what an uncompressed weight costs (section 2 of the paper: FP16)


def matched_sparsity(n_bits: float, reference_bits: int = REFERENCE_BITS) -> float:
    """Sparsity 1 - n_bits / reference_bits, which costs as much as n_bits per weight (section 2).

    Parameters
    ----------
    n_bits : float
        Bits per weight, more than 0 and at most ``reference_bits``.
    reference_bits : int, default 16
        Bits of a weight that is kept.

    Returns
    -------
    float
        Share of zeros in [0, 1): 0.5 for 8 bits, 0.75 for 4, 0.875 for 2. Storing which weights
        are zero is not counted; see `storage_bits`.
    """
    reference_bits = check_integer("reference_bits", reference_bits, low=1, high=64)
    n_bits = check_number("n_bits", n_bits, low=0, high=reference_bits, open_low=True)
    return 1.0 - n_bits / reference_bits


def n_zeros(n: int, sparsity: float) -> int:
    """Number of weights pruned out of ``n``: floor(n * sparsity + 1e-9), the authors' rounding.

    The 1e-9 keeps a product such as 0.7 * 10, which is 6.999... in floating point, at 7.
    """
    n = check_integer("n", n, low=1, high=2**62)
    sparsity = check_number("sparsity", sparsity, low=0.0, high=1.0, open_high=True)
    return math.floor(n * sparsity + 1e-9)


def storage_bits(
    n: int,
    *,
    n_bits: int | None = None,
    sparsity: float | None = None,
    mask: bool = False,
    reference_bits: int = REFERENCE_BITS,
) -> int:
    """Bits that ``n`` compressed weights take (section 6 of the paper).

    Give either ``n_bits`` (quantized: n * n_bits; the one scale per tensor is not counted) or
    ``sparsity`` (pruned: the kept weights at ``reference_bits``, plus one bit for every weight if
    ``mask``, which says where they are).
    """
    n = check_integer("n", n, low=1, high=2**62)
    if (n_bits is None) == (sparsity is None):
        raise ValueError("give exactly one of n_bits (quantized) and sparsity (pruned)")
    if n_bits is not None:
        if mask:
            raise ValueError("mask=True goes with sparsity; quantized weights have no mask")
        return n * check_integer("n_bits", n_bits, low=2, high=MAX_BITS)
    reference_bits = check_integer("reference_bits", reference_bits, low=1, high=64)
    return (n - n_zeros(n, sparsity)) * reference_bits + (n if mask else 0)
