"""From what the user wrote to a checked local file.

A path is taken as it is. A name from the manifest is looked up in ``$METAPORTRAIT_WEIGHTS``, in
the bundle, in the download caches, and only then downloaded. ``hf://owner/repo/file@revision``
and ``https://…#sha256=…`` name downloads directly. ``HF_HUB_OFFLINE`` forbids all downloads.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urldefrag, urlsplit

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.weights.download import download_https, download_hub, verify_sha256
from metaportrait_cli.weights.files import reject_pointer
from metaportrait_cli.weights.manifest import ManifestEntry, bundled_folder, find_entry

FOLDER_VARIABLE = "METAPORTRAIT_WEIGHTS"
HUB_SPEC = re.compile(
    r"hf://(?P<repo>[\w.-]+/[\w.-]+)/(?P<file>[^@#]+)(?:@(?P<revision>[^#]+))?", re.ASCII
)
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".tar", ".task", ".portrait")


def resolve(spec: str | Path) -> Path:
    """A local file for a path, a manifest name or file name, an ``hf://`` or an ``https://`` spec.

    What has a known sha256 is checked against it. Raises WeightsError.
    """
    text = str(spec)
    if "://" in text:
        return _download(text)
    path = Path(spec)
    if path.is_file():
        reject_pointer(path)
        return path
    if isinstance(spec, Path) or len(path.parts) > 1:
        raise WeightsError(f"{text}: no such file")
    return _find(find_entry(text))


def local_copy(entry: ManifestEntry) -> Path | None:
    """Where the entry's file already lies, unchecked; in the user's folder before the bundle."""
    folder = os.environ.get(FOLDER_VARIABLE)
    for candidate in (folder, bundled_folder()):
        if candidate and (path := Path(candidate) / entry.file).is_file():
            return path
    return None


def check(path: Path, entry: ManifestEntry) -> Path:
    """Return ``path`` if it holds just what the manifest promises, else raise WeightsError."""
    reject_pointer(path)
    verify_sha256(path, entry.sha256)
    return path


def _find(entry: ManifestEntry) -> Path:
    if path := local_copy(entry):
        return check(path, entry)
    if not entry.source:
        raise WeightsError(
            f"{entry.name}: not found, and there is no place to download it from; put "
            f"{entry.file} into the folder that ${FOLDER_VARIABLE} names"
        )
    if entry.source.startswith("hf://"):
        return check(_download(f"{entry.source}@{entry.revision}"), entry)
    return _download(f"{entry.source}#sha256={entry.sha256}")


def _download(spec: str) -> Path:
    address, fragment = urldefrag(spec)
    sha256 = fragment.removeprefix("sha256=") if fragment else None
    if match := HUB_SPEC.fullmatch(address):
        path = download_hub(match["repo"], match["file"], match["revision"])
        if sha256:
            verify_sha256(path, sha256)
        return path
    if urlsplit(address).scheme not in {"https", "http"}:
        raise WeightsError(f"{spec}: is neither hf://owner/repo/file@revision nor https://…")
    if sha256 is None:
        raise WeightsError(
            f"{spec}: add the file's checksum, so that a damaged or swapped download is noticed: "
            f"{address}#sha256=…"
        )
    return download_https(address, sha256)
