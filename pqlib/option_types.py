"""Types of command-line options."""

from typing import Any

import click


class Bits(click.ParamType):
    """Bit-widths such as 4, 2-8 or 2,4,8."""

    name = "BITS"

    def convert(self, value: Any, param: Any, ctx: Any) -> list[int]:
        if not isinstance(value, str):
            return value
        bits: list[int] = []
        for part in value.split(","):
            first, _, last = part.partition("-")
            if not first.isdecimal() or not (last or first).isdecimal():
                self.fail(f"{value!r} is not a list of bit-widths such as 2-8 or 2,4,8")
            bits += range(int(first), int(last or first) + 1)
        if not bits or min(bits) < 2 or max(bits) > 16 or len(set(bits)) < len(bits):
            self.fail(f"{value!r} must name different bit-widths from 2 to 16")
        return bits


class Names(click.ParamType):
    """Names with commas between them; "all" is none in particular."""

    name = "NAMES"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, ...]:
        if not isinstance(value, str):
            return value
        names = tuple(part.strip() for part in value.split(",") if part.strip())
        if not names:
            self.fail("name at least one, or leave the option out")
        return () if names == ("all",) else names
