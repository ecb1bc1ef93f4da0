"""What is kept of a fine-tuning run beside its numbers: who, where, with what, and why not."""

import errno
import hashlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from pqlib.experiments.finetune_config import FineTune

_PACKAGES = ("pqlib", "torch", "torchvision", "timm", "effdet", "segmentation-models-pytorch")


def failure(config: FineTune, error: BaseException | str, command: str = "") -> dict[str, Any]:
    """The record of a run that came to nothing, with its reason in one line."""
    return described(config, command) | {"status": "failed", "reason": reason_of(error)}


def reason_of(error: BaseException | str) -> str:
    """Why a run failed, and what to do where that is known."""
    if isinstance(error, str):
        return error
    text = " ".join(str(error).split())[:500]
    no_memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in text
    )
    if no_memory:
        return f"out of memory: {text}; take a smaller batch_size, or more memory"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full: {error.strerror}"
    return f"{type(error).__name__}: {text}"


def described(config: FineTune, command: str) -> dict[str, Any]:
    """What a row says of any run, done or failed."""
    plain = config.as_json()
    settings = plain.pop("settings")
    return {
        "hash": config.hash,
        **{key: list(v) if isinstance(v, tuple) else v for key, v in plain.items()},
        **settings,
        **made_with(config.device),
        "command": command,
    }


def made_with(device: str) -> dict[str, str]:
    """Hardware, versions of the packages that numbers depend on, and commit."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "hardware": _hardware(device),
        "versions": " ".join(f"{k}={v}" for k, v in versions.items()),
        "commit": _commit(),
    }


def fingerprint(model: torch.nn.Module) -> str:
    """Of all that the network holds: equal for equal bits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _hardware(device: str) -> str:
    if device.startswith("cuda") and torch.cuda.is_available():
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        name = next(x.partition(":")[2].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {os.cpu_count()} cores"


def _commit() -> str:
    """Of the checkout that this is, "" elsewhere; "-dirty" with changes."""
    words = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=40"]
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        done = subprocess.run(words, cwd=root, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
