"""Pruning vs Quantization, executed: the library behind the book.

The public names load on first use, so that ``import pqlib`` is quick and needs no torch.
"""

import sys
from importlib import import_module
from types import ModuleType

__version__ = "0.1.0"

_HOME = {
    "Distribution": "density",
    "Normal": "distributions",
    "Laplace": "distributions",
    "Uniform": "distributions",
    "StudentT": "distributions",
    "Truncated": "distributions",
    "Empirical": "distributions",
    "IntegerGrid": "grids",
    "matched_sparsity": "budget",
    "n_zeros": "budget",
    "storage_bits": "budget",
    "mse": "metrics",
    "relative_error": "metrics",
    "sqnr_db": "metrics",
    "kurtosis": "metrics",
    "cka": "metrics",
    "quantize": "quantize",
    "dequantize": "quantize",
    "fake_quantize": "quantize",
    "magnitude_mask": "prune",
    "n_m_mask": "prune",
    "expected_quantization_mse": "expected_error",
    "expected_pruning_mse": "expected_error",
    "expected_sqnr_db": "expected_error",
    "quantization_error_parts": "expected_error",
    "monte_carlo_quantization_mse": "expected_error",
    "monte_carlo_pruning_mse": "expected_error",
    "optimal_scale": "ranges",
    "optimal_scales": "ranges",
    "search_scale": "ranges",
    "Comparison": "comparison",
    "compare": "comparison",
    "compare_bits": "comparison",
    "crossing": "comparison",
    "profile": "comparison",
    "truncation_at_kurtosis": "comparison",
    "verdict": "verdicts",
    "read_tensor": "zoo",
    "read_weights": "zoo",
    "scan": "scan",
    "scan_tensor": "tensor_scan",
    "scan_tensor_bits": "tensor_scan",
    "LayerProblem": "layers.problem",
    "Result": "bounds.result",
    "solve_pruning": "bounds.pruning",
    "pruning_curve": "bounds.pruning",
    "solve_quantization": "bounds.quantization",
    "certified_lower": "bounds.quantization_bounds",
    "solve_channels": "bounds.parallel",
    "Allocation": "bounds.allocation",
    "allocate": "bounds.allocation",
    "Certificate": "bounds.verification",
    "verify": "bounds.verification",
    "Finding": "findings",
    "Table": "findings",
    "glue": "findings",
}
__all__ = [*_HOME]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'pqlib' has no attribute {name!r}")
    value = getattr(import_module(f"pqlib.{_HOME[name]}"), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])


class _Package(ModuleType):
    def __setattr__(self, name: str, value: object) -> None:
        # importing the module pqlib.quantize must not hide the function of that name
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
