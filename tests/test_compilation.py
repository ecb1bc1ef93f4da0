"""Compiled loops: cached, never stale, and working where nothing can be cached."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numba
import numpy as np

from pqlib import compilation
from pqlib.compilation import compiled

KERNELS = """
from typing import no_type_check
from pqlib.compilation import compiled

@compiled
@no_type_check
def factor():
    return {factor}

@compiled
@no_type_check
def scaled(x):
    return factor() * x
"""


def test_an_edited_callee_is_noticed(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    results = []
    for factor in (2, 2, 30):  # of another length: time stamps may be coarse
        (tmp_path / "kernels_of_test.py").write_text(KERNELS.format(factor=factor))
        code = "from kernels_of_test import scaled\nprint(scaled(7), len(scaled.stats.cache_hits))"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        results.append(done.stdout.split())
    assert results == [["14", "0"], ["14", "1"], ["210", "0"]]


def test_it_works_where_nothing_can_be_cached(monkeypatch):
    def without_cache(*, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function 'add': no locator available")
        return numba.njit(**options)

    monkeypatch.setattr(compilation, "numba", SimpleNamespace(njit=without_cache))

    def add(x):
        total = 0.0
        for value in x:
            total += value
        return total

    for options in ({}, {"reorder_sums": True}):
        assert compiled(**options)(add)(np.arange(5.0)) == 10.0
