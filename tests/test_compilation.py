"""Compiled loops: cached, never stale, and working where nothing can be cached."""

import os
import subprocess
import sys

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
        code = "import kernels_of_test as k; print(k.scaled(7), sum(k.scaled.stats.cache_hits.values()))"
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
    real = numba.njit

    def without_cache(*, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function 'add': no locator available")
        return real(**options)

    monkeypatch.setattr(compilation.numba, "njit", without_cache)

    def add(x):
        total = 0.0
        for value in x:
            total += value
        return total

    for options in ({}, {"reorder_sums": True}):
        assert compiled(**options)(add)(np.arange(5.0)) == 10.0
