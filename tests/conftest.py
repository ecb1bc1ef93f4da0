"""What all tests share: under CI a skipped test of the book is a failure."""

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: xdist uses all cores already

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background; processes that the tests interrupt would ignore it as well.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    in_book = "tests/book" in item.path.as_posix()
    if report.skipped and in_book and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr[-1]}"
