"""What jaxtyping's import hook runs under pytest: shapes and dtypes of arrays, nothing else.

Checking every annotation would refuse an int where a float is asked for, and would answer bad
input before pqlib's own errors, which the tests are about.
"""

from collections.abc import Callable
from typing import get_args

import jaxtyping
from beartype import beartype


def arrays_only(function: Callable) -> Callable:
    """Have beartype check the jaxtyping annotations of ``function`` and leave out the others."""
    function.__annotations__ = {
        name: hint for name, hint in function.__annotations__.items() if _is_array(hint)
    }
    return beartype(function)


def _is_array(hint: object) -> bool:
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(_is_array(part) for part in get_args(hint))
