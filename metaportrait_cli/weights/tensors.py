"""What files of weights hold, read without torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.weights.files import reject_pointer


@dataclass(frozen=True)
class Header:
    """What a file says about itself, read without its tensors."""

    architecture: str
    configs: dict[str, dict[str, Any]]
    """Part -> fields of its config"""
    notes: dict[str, str]
    """Free metadata: licence, source, training"""
    shapes: dict[str, tuple[int, ...]]


def read_header(path: Path) -> Header:
    with opened(path, framework="np") as file:
        notes = dict(file.metadata() or {})
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    try:
        architecture, configs = notes.pop("architecture"), json.loads(notes.pop("config"))
        if not isinstance(configs, dict):
            raise ValueError("no parts")
    except (KeyError, ValueError, RecursionError):
        raise WeightsError(
            f"{path}: does not say which network it is for; made by another program? "
            "Convert released files with: metaportrait weights convert"
        ) from None
    return Header(architecture=architecture, configs=configs, notes=notes, shapes=shapes)


def read_config(path: Path, part: str) -> dict[str, Any]:
    """The fields of a part's config. Raises `WeightsError`."""
    configs = read_header(path).configs
    if part not in configs:
        raise WeightsError(f"{path}: holds no {part!r} network, only {', '.join(sorted(configs))}")
    return configs[part]


def read_arrays(path: Path, part: str, names: Sequence[str]) -> list[NDArray[np.float32]]:
    """Some tensors of a part of a bundled file. Raises `WeightsError`."""
    with opened(path, framework="np") as file:
        return [file.get_tensor(f"{part}.{name}").astype(np.float32) for name in names]


@contextmanager
def opened(path: Path, *, framework: str = "pt", device: str = "cpu") -> Iterator[Any]:
    """The file for reading; its tensors are torch's (`pt`) or numpy's (`np`)."""
    reject_pointer(path)
    try:
        file = safe_open(path, framework=framework, device=device)
    except (SafetensorError, OSError, UnicodeError) as error:
        raise WeightsError(
            f"{path}: is not a whole safetensors file ({error}); download or convert it again"
        ) from None
    with file:
        yield file
