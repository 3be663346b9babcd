"""From what the user wrote to a checked local file.

A path is taken as it is. A name from the manifest is looked up in ``$METAPORTRAIT_WEIGHTS``, in
the bundle, in the download cache, and only then downloaded. ``hf://owner/repo/file@revision``
names a download directly. ``HF_HUB_OFFLINE`` forbids all downloads.
``sha256:…`` names content, wherever it lies here; it is never downloaded, so that a file from
elsewhere may say it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urldefrag

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.weights.download import (
    SHA256,
    download_hub,
    sha256_of,
    verify_sha256,
)
from metaportrait_cli.weights.files import reject_pointer
from metaportrait_cli.weights.manifest import (
    ManifestEntry,
    bundled_folder,
    find_entry,
    read_manifest,
)

FOLDER_VARIABLE = "METAPORTRAIT_WEIGHTS"
BY_CONTENT = "sha256:"
HUB_SPEC = re.compile(
    r"hf://(?P<repo>[\w.-]+/[\w.-]+)/(?P<file>[^@#]+)(?:@(?P<revision>[^#]+))?", re.ASCII
)


def resolve(spec: str | Path) -> Path:
    """A local file for a path, a manifest name or file name, a hash or ``hf://…``.

    What has a known sha256 is checked against it. Raises WeightsError.
    """
    text = str(spec)
    if "://" in text:
        return _download(text)
    if text.startswith(BY_CONTENT):
        return _of_content(text.removeprefix(BY_CONTENT))
    path = Path(spec)
    if path.is_file():
        reject_pointer(path)
        return path
    if path.is_dir():
        raise WeightsError(f"{text} is a folder: give a file of weights, or a name")
    if isinstance(spec, Path) or len(path.parts) > 1:
        raise WeightsError(f"{text}: no such file")
    return _find(find_entry(text))


def name_of_content(sha256: str) -> str:
    """What a file may call weights by that others shall find: a manifest name, else their hash."""
    known = {entry.sha256: name for name, entry in read_manifest().items()}
    return known.get(sha256, f"{BY_CONTENT}{sha256}")


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


def _of_content(sha256: str) -> Path:
    """The file of that hash among the known weights and in the user's folder."""
    if not SHA256.fullmatch(sha256):
        raise WeightsError(f"{BY_CONTENT}{sha256}: a sha256 is 64 hexadecimal digits")
    for entry in read_manifest().values():
        if entry.sha256 == sha256 and (path := local_copy(entry)):
            return check(path, entry)
    folder = os.environ.get(FOLDER_VARIABLE)
    for path in sorted(Path(folder).glob("*.safetensors")) if folder else ():
        if path.is_file() and sha256_of(path) == sha256:
            return path
    raise WeightsError(
        f"no weights with sha256 {sha256[:12]}… here; name their file with `weights`, or put it"
        f" into the folder that ${FOLDER_VARIABLE} names"
    )


def _find(entry: ManifestEntry) -> Path:
    if path := local_copy(entry):
        return check(path, entry)
    if not entry.source:
        raise WeightsError(
            f"{entry.name}: not found, and there is no place to download it from; put "
            f"{entry.file} into the folder that ${FOLDER_VARIABLE} names"
        )
    return check(_download(f"{entry.source}@{entry.revision}"), entry)


def _download(spec: str) -> Path:
    address, fragment = urldefrag(spec)
    match = HUB_SPEC.fullmatch(address)
    if match is None:
        raise WeightsError(
            f"{spec}: is not hf://owner/repo/file@revision; fetch it by another tool and name the"
            " file"
        )
    path = download_hub(match["repo"], match["file"], match["revision"])
    if fragment:
        verify_sha256(path, fragment.removeprefix("sha256="))
    return path
