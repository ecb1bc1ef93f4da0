"""A file that one process claims, so that no other works on the same folder."""

from typing import IO

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

_FAR = 2**30  # the byte that is locked on Windows: beyond what is written and read


def claim(file: IO) -> None:
    """Claim an open file; the claim ends when it is closed, or with the process.

    Raises
    ------
    OSError
        If another process has claimed it.
    """
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        import msvcrt

        file.seek(_FAR)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
