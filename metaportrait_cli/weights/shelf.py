"""Networks written down for ncnn, kept for later runs, which then start without torch."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from metaportrait_cli import networks
from metaportrait_cli.errors import UsageError
from metaportrait_cli.media.outputs import atomic_output
from metaportrait_cli.networks.swift.program import Program
from metaportrait_cli.weights.download import sha256_of

MOST_KEPT = 32
"""Those that were used last; a set of weights has about ten."""


class WeightsShelf:
    """Of one file of weights; what other code or another ncnn has written is not found."""

    def __init__(self, weights: Path) -> None:
        self._of = f"{sha256_of(weights)} {_makers()}"

    def holds(self, name: str) -> bool:
        """See `Shelf`."""
        return self._path(name).is_file()

    def get(self, name: str) -> Program | None:
        """See `Shelf`."""
        path = self._path(name)
        try:
            header, text, weights = path.read_bytes().split(b"\0", 2)
            with suppress(OSError):  # others' shelf may serve, too
                path.touch()
            told = json.loads(header)
            if told["sum"] != _sum(text, weights):
                return None
            inputs, outputs = (tuple(map(tuple, told[key])) for key in ("inputs", "outputs"))
            return Program(text.decode(), weights, inputs, outputs)
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def put(self, name: str, program: Program) -> None:
        """See `Shelf`."""
        path, text = self._path(name), program.text.encode()
        told = {
            "inputs": program.inputs,
            "outputs": program.outputs,
            "sum": _sum(text, program.weights),
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_output(path) as partial:
                partial.write_bytes(b"\0".join([json.dumps(told).encode(), text, program.weights]))
            kept = sorted(path.parent.glob("[0-9a-f]*"), key=lambda file: -file.stat().st_mtime)
            for old in kept[MOST_KEPT:]:
                old.unlink(missing_ok=True)
        except (OSError, UsageError):
            return  # the next run writes it down again

    def _path(self, name: str) -> Path:
        key = hashlib.sha256(f"{self._of} {name}".encode()).hexdigest()
        return _folder() / key[:32]


def _folder() -> Path:
    try:
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # a user whom the system doesn't know, as in containers
        caches = os.devnull  # where nothing is, and nothing stays
    return Path(caches) / "metaportrait" / "swift"


def _sum(text: bytes, weights: bytes) -> str:
    digest = hashlib.sha256(text)
    digest.update(weights)
    return digest.hexdigest()


@cache
def _makers() -> str:
    """The code of our networks, and the ncnn that reads what it writes down."""
    digest = hashlib.sha256()
    for path in sorted(Path(networks.__path__[0]).rglob("*.py")):
        digest.update(path.read_bytes())
    try:
        return f"{digest.hexdigest()} {version('ncnn')}"
    except PackageNotFoundError:
        return digest.hexdigest()
