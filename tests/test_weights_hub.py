"""Downloads against a server on this machine that speaks the hub's protocol."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

REPO = "people/portraits"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()

Pull = Callable[..., subprocess.CompletedProcess[str]]


class Hub(ThreadingHTTPServer):
    """Serves one file; can break off or lie."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.etag = SHA256
        self.content = CONTENT
        self.break_after: int | None = None  # bytes of the next answer alone
        self.ranges: list[str | None] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub  # pyrefly: ignore[bad-override]

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def _answer(self, *, with_content: bool) -> None:
        if not self.path.endswith("/tiny.safetensors"):
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content, start = self.server.content, 0
        wanted = self.headers.get("Range")
        if with_content:
            self.server.ranges.append(wanted)
        if wanted:
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("ETag", f'"{self.server.etag}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if with_content:
            limit, self.server.break_after = self.server.break_after, None
            self.wfile.write(content[start:limit] if limit else content[start:])
            if limit:
                self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Quietly."""


@contextmanager
def serving(server: Hub) -> Iterator[Hub]:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub()) as server:
        yield server


@pytest.fixture
def pull(hub: Hub, tmp_path: Path) -> Pull:
    """`metaportrait weights pull` in a process of its own: the hub's settings are read once."""

    def run(spec: str, *, offline: bool = False) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "HF_ENDPOINT": hub.address,
            "HF_HOME": str(tmp_path / "hub"),
            "HF_HUB_OFFLINE": "1" if offline else "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_XET": "1",
            "PYTHONPATH": os.pathsep.join(sys.path),
            "NO_PROXY": "127.0.0.1",
        }
        code = "from metaportrait_cli.cli.weights import app; app()"
        return subprocess.run(
            [sys.executable, "-c", code, "pull", spec],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
            timeout=120,
        )

    return run


def assert_refused(result: subprocess.CompletedProcess[str], message: str) -> None:
    assert result.returncode == 5, result.stderr
    assert result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, result.stderr
    assert message in errors[0]


def test_hub_download_then_offline(pull: Pull, hub: Hub) -> None:
    spec = f"hf://{REPO}/tiny.safetensors@{COMMIT}"
    assert_refused(pull(spec, offline=True), "HF_HUB_OFFLINE")
    assert hub.ranges == []
    result = pull(spec)
    assert result.returncode == 0, result.stderr
    path = Path(result.stdout.strip())
    assert path.read_bytes() == CONTENT
    assert COMMIT in str(path)
    again = pull(spec, offline=True)
    assert again.stdout == result.stdout
    assert len(hub.ranges) == 1


def test_hub_download_resumes(pull: Pull, hub: Hub) -> None:
    # The hub's client writes pieces of 10 MiB; the connection breaks within the second.
    hub.content = CONTENT * 14
    hub.etag = hashlib.sha256(hub.content).hexdigest()
    hub.break_after = 12 << 20
    result = pull(f"hf://{REPO}/tiny.safetensors@{COMMIT}")
    if result.returncode:  # it may give up at the break; the next try goes on from there
        result = pull(f"hf://{REPO}/tiny.safetensors@{COMMIT}")
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()).read_bytes() == hub.content
    assert hub.ranges[0] is None
    assert hub.ranges[-1] == f"bytes={10 << 20}-"


def test_hub_content_with_another_hash(pull: Pull, hub: Hub) -> None:
    hub.content = CONTENT[:-1] + b"!"
    assert_refused(pull(f"hf://{REPO}/tiny.safetensors@{COMMIT}"), "sha256")


def test_hub_has_no_such_file(pull: Pull) -> None:
    assert_refused(pull(f"hf://{REPO}/other.safetensors@{COMMIT}"), "no such repository")


def test_hub_out_of_reach(pull: Pull, hub: Hub) -> None:
    hub.shutdown()
    hub.server_close()
    assert_refused(pull(f"hf://{REPO}/tiny.safetensors@{COMMIT}"), "not in the local cache")
