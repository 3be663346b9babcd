"""Downloads that end in a whole, checked file or in a WeightsError."""

from __future__ import annotations

import hashlib
import os
import re
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.weights.files import reject_pointer

CONNECT_SECONDS = 10.0
SHA256 = re.compile("[0-9a-f]{64}")


def offline() -> bool:
    """Whether the user forbade downloads, in the hub's own way."""
    return any(
        os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


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
    # Here, for they take longer to import than most runs wait for weights.
    import socket  # noqa: PLC0415
    import urllib.request  # noqa: PLC0415

    parts = urlsplit(address)
    proxied = urllib.request.getproxies() and not urllib.request.proxy_bypass(parts.netloc)
    if proxied:  # names may be known to the proxy alone
        return True
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, modified_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
