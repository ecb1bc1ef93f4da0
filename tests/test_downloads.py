"""A server on this machine that breaks, changes, lies and refuses, as real ones do."""

import hashlib
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from pqlib import downloads
from pqlib.downloads import fetch

DATA = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


class Server:
    """What the handler serves, and what it was asked."""

    def __init__(self):
        self.data, self.etag = DATA, '"one"'
        self.ranges, self.break_after, self.status = True, [], 200
        self.asked, self.told = [], {}

    def handle(self, request):
        self.asked.append(request.headers.get("Range"))
        if self.status != 200:
            request.send_error(self.status)
            return
        start, wanted = 0, request.headers.get("Range")
        condition = request.headers.get("If-Range")
        if wanted and self.ranges and condition in (None, self.etag):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start and start >= len(self.data):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(self.data)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        body = self.data[start:]
        request.send_response(206 if start else 200)
        if start:
            span = f"bytes {start}-{len(self.data) - 1}/{len(self.data)}"
            request.send_header("Content-Range", self.told.get("Content-Range", span))
        if self.etag:
            request.send_header("ETag", self.etag)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[: self.break_after.pop(0)] if self.break_after else body)
        request.close_connection = True


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(downloads, "PAUSE", 0.001)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            state.handle(self)

        def log_message(self, *args):
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True).start()
    state.url = f"http://127.0.0.1:{web.server_port}/weights.pth"
    yield state
    web.shutdown()
    web.server_close()


def test_an_answer_that_refuses_is_closed(server, tmp_path, monkeypatch):
    refused, open_url = [], urllib.request.urlopen

    def watched(*args, **options):
        try:
            return open_url(*args, **options)
        except urllib.error.HTTPError as error:
            refused.append(error)
            raise

    monkeypatch.setattr(urllib.request, "urlopen", watched)
    server.status = 404
    with pytest.raises(OSError, match="404"):
        fetch(server.url, tmp_path / "weights.pth")
    assert len(refused) == 1 and refused[0].fp.isclosed()


def only(folder):
    return sorted(f.name for f in folder.iterdir())


def test_a_file_is_fetched_once(server, tmp_path):
    seen = []
    path = tmp_path / "deep" / "w.pth"
    options = {"sha256": SHA256[:8], "size": len(DATA)}
    assert fetch(server.url, path, progress=lambda *a: seen.append(a), **options) == path
    assert path.read_bytes() == DATA
    assert only(path.parent) == ["w.pth"]
    assert seen[0] == (0, len(DATA)) and seen[-1] == (len(DATA), len(DATA))
    server.status = 500
    assert fetch(server.url, path, **options) == path
    assert server.asked == [None]
    path.write_bytes(b"other")
    with pytest.raises(ValueError, match=r"w\.pth has SHA-256 .*; delete it"):
        fetch(server.url, path, sha256=SHA256)


def test_broken_connections_are_resumed(server, tmp_path):
    server.break_after = [100_000, 50_000, 1]
    fetch(server.url, tmp_path / "w", sha256=SHA256)
    assert (tmp_path / "w").read_bytes() == DATA
    assert server.asked == [None, "bytes=100000-", "bytes=150000-", "bytes=150001-"]


def test_a_later_call_resumes(server, tmp_path):
    server.break_after = [1000, *[0] * downloads.N_TRIES]
    with pytest.raises(OSError, match=r"ended after 1000 of 300000 bytes; run again"):
        fetch(server.url, tmp_path / "w")
    assert only(tmp_path) == ["w.part", "w.part.tag"]
    fetch(server.url, tmp_path / "w")
    assert server.asked[-1] == "bytes=1000-"
    assert (tmp_path / "w").read_bytes() == DATA
    assert only(tmp_path) == ["w"]


@pytest.mark.parametrize("change", ["etag", "no ranges", "wrong range", "no validator"])
def test_what_cannot_be_resumed_starts_again(server, tmp_path, change):
    server.break_after = [1000, *[0] * downloads.N_TRIES]
    if change == "no validator":
        server.etag = ""
    with pytest.raises(OSError):
        fetch(server.url, tmp_path / "w")
    if change == "etag":
        server.etag, server.data = '"two"', DATA[::-1]
    elif change == "no ranges":
        server.ranges = False
    elif change == "wrong range":
        server.told["Content-Range"] = "bytes 0-9/10"
    fetch(server.url, tmp_path / "w")
    assert (tmp_path / "w").read_bytes() == server.data


def test_an_old_part_of_another_file_is_found_out_by_its_hash(server, tmp_path):
    (tmp_path / "w.part").write_bytes(b"x" * 1000)
    fetch(server.url, tmp_path / "w", sha256=SHA256)
    assert server.asked == ["bytes=1000-", None]
    assert (tmp_path / "w").read_bytes() == DATA


@pytest.mark.parametrize("length", [len(DATA), len(DATA) + 5])
def test_a_part_as_long_as_the_file(server, tmp_path, length):
    (tmp_path / "w.part").write_bytes((DATA + b"12345")[:length])
    fetch(server.url, tmp_path / "w", sha256=SHA256)
    assert (tmp_path / "w").read_bytes() == DATA


def test_a_wrong_file_is_refused_and_removed(server, tmp_path):
    with pytest.raises(ValueError, match=r"has SHA-256 [0-9a-f]{64}, not 0000; it has changed"):
        fetch(server.url, tmp_path / "w", sha256="0000")
    with pytest.raises(ValueError, match="has 300000 bytes, not 7"):
        fetch(server.url, tmp_path / "w", size=7)
    assert only(tmp_path) == []


def test_refusals_say_what_to_do_by_hand(server, tmp_path):
    server.status = 404
    by_hand = r"answered 404 .*put the file by hand at .*w, in the folder that TORCH_HOME chooses"
    with pytest.raises(OSError, match=by_hand):
        fetch(server.url, tmp_path / "w", folder_variable="TORCH_HOME")
    assert len(server.asked) == 1
    server.status = 503
    with pytest.raises(OSError, match="answered 503"):
        fetch(server.url, tmp_path / "w")
    assert len(server.asked) == 1 + downloads.N_TRIES
    with pytest.raises(ValueError, match="url must start with http"):
        fetch("file:///etc/hostname", tmp_path / "w")
    with pytest.raises(ValueError, match="sha256 must be"):
        fetch(server.url, tmp_path / "w", sha256="xyz")


def test_without_a_network_it_says_so_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "PAUSE", 60)  # a second try would be noticed
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OSError, match=r"cannot download https://[^ ]*: .*run again"):
        fetch("https://no-such-host.invalid/w.pth", tmp_path / "w.pth")


def test_a_full_disk_is_noticed_before(server, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="needs 300000 bytes where 1000 are free"):
        fetch(server.url, tmp_path / "w")
