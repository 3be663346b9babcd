"""The list of weights this version knows, and the folder of those it brings along."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from metaportrait_cli.errors import WeightsError

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class ManifestEntry:
    name: str
    file: str
    size: int
    """Bytes"""
    sha256: str
    """Hexadecimal, of the whole file"""
    licence: str
    source: str
    """Where to download it: ``hf://owner/repo/file``; empty if nowhere"""
    revision: str
    """Commit, tag or version of the source"""
    about: str


def bundled_folder() -> Path:
    """``_weights`` in an installed package, ``weights`` beside the package in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "_weights"
    return installed if installed.is_dir() else package.parent / "weights"


@cache
def read_manifest() -> dict[str, ManifestEntry]:
    """All known weights by name."""
    path = bundled_folder() / MANIFEST
    try:
        listed = json.loads(path.read_text())
        return {name: ManifestEntry(name=name, **fields) for name, fields in listed.items()}
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(
            f"{path}: the list of weights can't be read ({error}); reinstall metaportrait-cli"
        ) from None


def bundled_path(name: str) -> Path:
    """Where the named weights lie in the bundle. Raises WeightsError if they are not bundled.

    ``name`` is a manifest name or a file name.
    """
    entry = find_entry(name)
    path = bundled_folder() / entry.file
    if not path.is_file():
        raise WeightsError(
            f"{entry.name}: not bundled with this installation; "
            f"fetch it with: metaportrait weights pull {entry.name}"
        )
    return path


def find_entry(name: str) -> ManifestEntry:
    """The manifest's entry of that name or file name."""
    manifest = read_manifest()
    if name in manifest:
        return manifest[name]
    for entry in manifest.values():
        if entry.file == name:
            return entry
    raise WeightsError(
        f"{name}: no weights of that name and no such file; known names: "
        f"{', '.join(sorted(manifest))}"
    )
