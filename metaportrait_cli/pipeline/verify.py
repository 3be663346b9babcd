"""Whether files of weights are what they should be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metaportrait_cli.weights.manifest import read_manifest
from metaportrait_cli.weights.sources import check, local_copy, resolve


@dataclass(frozen=True)
class Report:
    path: str
    verdict: str


def verify_all(specs: Sequence[str] | None) -> list[Report]:
    """Check the named weights, or all known ones that are here; raise WeightsError at the first
    that is damaged."""
    if specs is None:
        here = ((entry, local_copy(entry)) for entry in read_manifest().values())
        return [Report(str(check(path, entry)), "sha256 as listed") for entry, path in here if path]
    return [_verify(resolve(spec)) for spec in specs]


def _verify(path: Path) -> Report:
    known = {entry.file: entry for entry in read_manifest().values()}
    if path.name in known:
        return Report(str(check(path, known[path.name])), "sha256 as listed")
    from metaportrait_cli.convert.checkpoint import read_checkpoint  # noqa: PLC0415
    from metaportrait_cli.pipeline.person import portrait_file  # noqa: PLC0415
    from metaportrait_cli.weights.store import read_header  # noqa: PLC0415

    if path.suffix == portrait_file.SUFFIX or portrait_file.is_portrait(path):
        portrait = portrait_file.load_portrait(path)
        portrait.check_base()
        return Report(str(path), portrait_file.described(portrait))
    if path.suffix == ".safetensors":
        header = read_header(path)
        parts = ", ".join(sorted(header.configs))
        return Report(str(path), f"{header.architecture} ({parts}), {len(header.shapes)} tensors")
    entries = ", ".join(map(str, list(read_checkpoint(path))[:5]))
    return Report(str(path), f"a checkpoint to convert, with: {entries}")
