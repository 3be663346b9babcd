"""Where weights are."""

from __future__ import annotations

from pathlib import Path

from metaportrait_cli.errors import WeightsError


def bundled_path(name: str) -> Path:
    """A file that comes with the package. Raises `WeightsError` if the install is incomplete."""
    package = Path(__file__).parent
    for folder in (package / "_weights", package.parent / "weights"):
        if (folder / name).is_file():
            return folder / name
    raise WeightsError(f"bundled file missing: {name}; reinstall metaportrait-cli")
