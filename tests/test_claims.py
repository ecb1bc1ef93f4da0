"""A claim holds against others, and ends with its file."""

import sys
import types

import pytest

from pqlib import claims


def test_a_claim_is_for_one(tmp_path):
    with (tmp_path / "running").open("a") as first, (tmp_path / "running").open("a") as second:
        claims.claim(first)
        with pytest.raises(OSError):
            claims.claim(second)
        first.close()
        claims.claim(second)


def test_on_windows_a_byte_beyond_the_text_is_locked(tmp_path, monkeypatch):
    calls = []
    fake = types.ModuleType("msvcrt")
    fake.LK_NBLCK, fake.locking = 2, lambda *arguments: calls.append(arguments)
    monkeypatch.setitem(sys.modules, "msvcrt", fake)
    monkeypatch.setattr(claims, "fcntl", None)
    with (tmp_path / "running").open("a+") as file:
        claims.claim(file)
        assert calls == [(file.fileno(), 2, 1)] and file.tell() > 10**6
        file.write("1234")
    assert (tmp_path / "running").read_text() == "1234"
