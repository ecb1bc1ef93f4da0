"""Commands in processes of their own, which tests wait for, interrupt and kill."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def start(arguments, log, *paths, cwd=None):
    """``python -m pqlib`` with these arguments; what it prints goes to the file ``log``.

    No pipe: workers that outlive it would keep that open.
    """
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, [ROOT, *paths])),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "pqlib", *map(str, arguments)],
            cwd=cwd,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    process.log = log
    return process


def finish(process, code=0):
    """What it printed, in one line, once it has ended with this exit status."""
    process.wait(timeout=400)
    output = process.log.read_text()
    assert process.returncode == code, output
    return " ".join(output.split())


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.log.read_text()
        assert time.monotonic() < end
        time.sleep(0.02)


def kill(process):
    """SIGKILL; whether it was alive."""
    alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return alive
