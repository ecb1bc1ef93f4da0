"""One file from the web: resumed where it stopped, checked, and renamed only when it is whole.

Of the well-kept libraries none does this for any address: pooch starts again from zero and wants
the whole hash, torch.hub starts again from zero, huggingface_hub serves its own repositories.
"""

import hashlib
import http.client
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

CHUNK_BYTES = 2**20
TIMEOUT = 30.0  # seconds without any answer
N_TRIES = 5  # in a row that bring nothing new
PAUSE = 0.5  # seconds before the second try, then doubled


def fetch(
    url: str,
    path: str | Path,
    *,
    sha256: str | None = None,
    size: int | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    folder_variable: str | None = None,
) -> Path:
    """Download ``url`` to ``path``, unless it is there already.

    Parameters
    ----------
    url : str
        http or https; proxies come from the environment, as in urllib.
    path : str or Path
        The file to make. Until it is whole it is ``path`` + ``.part``, which a later call resumes.
    sha256 : str, optional
        Its SHA-256 in hex, or the first digits of it.
    size : int, optional
        Its number of bytes.
    progress : callable, optional
        Called with the bytes had so far and the total, None if the server does not tell it.
    folder_variable : str, optional
        The environment variable that chooses the folder of ``path``, to be named in messages.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    ValueError
        If the file, there or downloaded, is not the one wanted: its size or hash differs.
    OSError
        If it cannot be had; the message says what to do by hand.

    Notes
    -----
    A part is resumed by an HTTP range with If-Range, so that a file that changed on the server is
    started again. Without a validator of the server only a hash makes a resumption safe; without
    either it is started again. Two processes must not download to one path at once.
    """
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise ValueError(f"url must start with http:// or https://, got {url!r}")
    if sha256 is not None and not re.fullmatch(r"[0-9a-f]{1,64}", sha256):
        raise ValueError(f"sha256 must be up to 64 lower-case hex digits, got {sha256!r}")
    path = Path(path).expanduser()
    if path.exists():
        wrong = _difference(path, sha256, size)
        if wrong:
            raise ValueError(f"{path} {wrong}; delete it, so that it is downloaded again")
        return path
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        resumed = _download(url, part, sha256, size, progress)
        wrong = _difference(part, sha256, size)
        if wrong and resumed:  # perhaps the old part was of another file
            _discard(part)
            _download(url, part, sha256, size, progress)
            wrong = _difference(part, sha256, size)
    except (OSError, http.client.HTTPException) as error:
        by_variable = f", in the folder that {folder_variable} chooses" if folder_variable else ""
        raise OSError(
            f"cannot download {url}: {_reason(error)}; run again, which resumes it, or put the "
            f"file by hand at {path}{by_variable}"
        ) from None
    if wrong:
        _discard(part)
        raise ValueError(f"{url} as downloaded {wrong}; it has changed there or on the way")
    part.replace(path)
    _discard(part)
    return path


def _download(url, part, sha256, size, progress) -> bool:
    """Complete the part; return whether it holds bytes of an earlier call."""
    resumed = _n_bytes(part) > 0
    started, n_failed, most = False, 0, _n_bytes(part)
    while True:
        try:
            cause = _receive(url, part, sha256, size, progress)
            if cause is None:
                return resumed
        except urllib.error.HTTPError as error:
            error.close()  # it is an answer too, with a connection of its own
            if error.code < 500 and error.code not in (408, 416, 429):
                raise
            if error.code == 416:  # asked for what lies behind the end
                if error.headers.get("Content-Range", "").endswith(f"/{_n_bytes(part)}"):
                    return resumed
                _discard(part)
            cause = error
        except urllib.error.URLError as error:
            if not started:
                raise  # no connection at all: nothing to wait for
            cause = error
        except (ConnectionError, TimeoutError, http.client.HTTPException) as error:
            cause = error
        else:
            started = True
        n_failed = 0 if _n_bytes(part) > most else n_failed + 1
        most = max(most, _n_bytes(part))
        if n_failed == N_TRIES:
            raise cause
        time.sleep(PAUSE * 2 ** max(n_failed - 1, 0))


def _receive(url, part, sha256, size, progress) -> Exception | None:
    """One request; the reason why it ended early, or None."""
    tag_file = _tag_file(part)
    tag = tag_file.read_text() if tag_file.exists() else ""
    had = _n_bytes(part) if tag or sha256 else 0
    headers = {"User-Agent": "pqlib"}
    if had:
        headers["Range"] = f"bytes={had}-"
        if tag:
            headers["If-Range"] = tag
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
        if response.status == 206:
            span = re.match(rf"bytes {had}-\d+/(\d+)$", response.headers.get("Content-Range", ""))
            if not span:
                _discard(part)
                return OSError("the server sent another range than was asked for")
            total = int(span[1])
        else:
            had = 0
        if size is not None and total not in (None, size):
            raise ValueError(f"{url} has {total} bytes, not {size}; it has changed there")
        free = shutil.disk_usage(part.parent).free
        if total is not None and total - had > free:
            raise OSError(f"it needs {total - had} bytes where {free} are free")
        if not had:
            etag = response.headers.get("ETag", "")
            strong = "" if etag.startswith("W/") else etag
            tag_file.write_text(strong or response.headers.get("Last-Modified", ""))
        with part.open("ab" if had else "wb") as out:
            while True:
                if progress is not None:
                    progress(had, total)
                try:
                    chunk = response.read1(CHUNK_BYTES)
                except (OSError, http.client.HTTPException) as error:
                    return error
                if not chunk:
                    break
                had += out.write(chunk)
    if total is not None and had < total:
        return ConnectionError(f"the connection ended after {had} of {total} bytes")
    return None


def _difference(path: Path, sha256: str | None, size: int | None) -> str:
    """How the file is not the one wanted, or nothing."""
    n_bytes = _n_bytes(path)
    if size is not None and n_bytes != size:
        return f"has {n_bytes} bytes, not {size}"
    if sha256 is not None:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if not digest.startswith(sha256):
            return f"has SHA-256 {digest}, not {sha256}"
    return ""


def _n_bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _tag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag_file(part).unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} {error.reason}"
    return str(getattr(error, "reason", error)) or type(error).__name__
