"""Downloads that end in a whole, checked file or in a WeightsError."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import urllib.error
import urllib.request
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.weights.files import reject_pointer

if TYPE_CHECKING:
    from collections.abc import Callable
    from http.client import HTTPMessage

BLOCK = 1 << 20
TIMEOUT = 30.0  # seconds without any data
CONNECT_SECONDS = 10.0
SHA256 = re.compile("[0-9a-f]{64}")


def offline() -> bool:
    """Whether the user forbade downloads, in the hub's own way."""
    return any(
        os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def cache_folder() -> Path:
    """Of https downloads; hub downloads lie in the hub's own cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metaportrait"


def sha256_of(path: Path) -> str:
    """Hexadecimal, of the file's content; remembered as long as the file stays as it is."""
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


def verify_sha256(path: Path, expected: str) -> None:
    """Raise WeightsError unless the file's content has that hash (hexadecimal)."""
    actual = sha256_of(path)
    if actual != expected.lower():
        raise WeightsError(
            f"{path}: is damaged or another version (sha256 {actual[:12]}…, expected "
            f"{expected[:12]}…); delete it and fetch it again"
        )


def download_hub(repo: str, file: str, revision: str | None) -> Path:
    """From the Hugging Face hub or its cache; interrupted downloads go on where they stopped."""
    from huggingface_hub import hf_hub_download  # noqa: PLC0415
    from huggingface_hub.constants import ENDPOINT  # noqa: PLC0415
    from huggingface_hub.errors import (  # noqa: PLC0415
        EntryNotFoundError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"hf://{repo}/{file}@{revision or 'main'}"
    here_only = offline() or not _reachable(ENDPOINT)
    try:
        path = Path(hf_hub_download(repo, file, revision=revision, local_files_only=here_only))
    except LocalEntryNotFoundError:
        reason = "HF_HUB_OFFLINE forbids downloading" if offline() else "the hub can't be reached"
        raise WeightsError(f"{where}: not in the local cache, and {reason}") from None
    except (EntryNotFoundError, RevisionNotFoundError, RepositoryNotFoundError):
        raise WeightsError(
            f"{where}: there is no such repository, revision or file, or it is private "
            "(set HF_TOKEN)"
        ) from None
    except (HfHubHTTPError, OSError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{where}: download failed: {_first_line(error)}") from None
    reject_pointer(path)
    # The hub files large content under its sha256, which so comes for free.
    if SHA256.fullmatch(blob := path.resolve().name):
        verify_sha256(path, blob)
    return path


def _reachable(address: str) -> bool:
    """Whether a server can be connected to. The hub's own client tries for half a minute, and
    tells each try on stderr."""
    if urllib.request.getproxies():  # names may be known to the proxy alone
        return True
    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def download_https(
    address: str, sha256: str, *, on_progress: Callable[[int, int | None], None] | None = None
) -> Path:
    """From a web server into our cache; goes on where an interrupted download stopped.

    ``on_progress(done, total)`` hears of bytes; the total may be unknown.
    """
    name = PurePosixPath(urlsplit(address).path).name or "weights"
    path = cache_folder() / f"{sha256[:16]}-{name}"
    if path.is_file():
        verify_sha256(path, sha256)
        return path
    if offline():
        raise WeightsError(f"{address}: not in the local cache, and HF_HUB_OFFLINE forbids it")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.incomplete")
    try:
        _fetch(address, partial, on_progress)
    except (OSError, ValueError) as error:  # URLError, timeouts and broken connections included
        raise WeightsError(
            f"{address}: download failed: {_first_line(error)}; try again to go on from there"
        ) from None
    try:
        verify_sha256(partial, sha256)
    except WeightsError:
        partial.unlink()
        raise WeightsError(
            f"{address}: what the server sent has another sha256 than {sha256[:12]}…; "
            "the source has changed or is not to be trusted"
        ) from None
    partial.replace(path)
    return path


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a server's redirects to https addresses alone."""

    def redirect_request(  # noqa: PLR0917  the base class's own
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme != "https":
            raise OSError(f"the server redirects to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _fetch(
    address: str, partial: Path, on_progress: Callable[[int, int | None], None] | None
) -> None:
    done = partial.stat().st_size if partial.exists() else 0
    headers = {"Range": f"bytes={done}-"} if done else {}
    request = urllib.request.Request(address, headers=headers)  # noqa: S310 (scheme was checked)
    try:
        response = urllib.request.build_opener(_SecureRedirects).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if done and error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # it was complete; its hash decides
        raise
    with response:
        if response.status != HTTPStatus.PARTIAL_CONTENT:
            done = 0  # the server starts over
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else None
        with partial.open("ab" if done else "wb") as file:
            while block := response.read(BLOCK):
                file.write(block)
                done += len(block)
                if on_progress:
                    on_progress(done, total)
    if total is not None and done < total:
        raise OSError(f"connection closed after {done} of {total} bytes")


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, modified_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
