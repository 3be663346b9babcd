"""The folder layout of the authors' preprocessing, read without unpickling anything.

    src_<k>.png  src_<k>_ldmk.npy  src_<k>_id.npy  src_map_dict.pkl (or .json)
    <k>/imgs/<name>.png  <k>/ldmks/<name>_ldmk.npy  <k>/thetas/<name>_theta.npy

Landmarks are (669, 2), (x, y) in [0, 1] of the crop; the identity is 256 numbers. The map says
which source each driving image belongs to, by file name; without it, the folder's name does. The
thetas and the driving images are not needed to render.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image

from metaportrait_cli.errors import MediaError
from metaportrait_cli.media.stills import open_image

SIZE = 256
LANDMARK_SUFFIX = "_ldmk.npy"
MAP_BYTES = 64 << 20  # no map of real clips is larger
ARRAY_BYTES = 1 << 20
POINTS_SHAPE = (669, 2)
IDENTITY_SIZE = 256


_DAMAGES = (
    *(OSError, ValueError, TypeError, LookupError, EOFError, AttributeError, ArithmeticError),
    *(SyntaxError, TokenError, RecursionError, MemoryError, pickle.UnpicklingError),
)
"""What the parsers raise on damaged files."""


@dataclass(frozen=True)
class PreparedSource:
    picture: NDArray[np.uint8]
    """(256, 256, 3) RGB"""
    landmarks: NDArray[np.float32]
    """(669, 2)"""
    identity: NDArray[np.float32]
    """(256,)"""


@dataclass(frozen=True)
class PreparedFrame:
    name: str
    """Of the driving image, without folder and suffix"""
    source: str
    """Key of its source, the ``<k>`` of ``src_<k>.png``"""
    landmarks: NDArray[np.float32]
    """(669, 2)"""


def is_prepared(folder: Path) -> bool:
    """Whether this is a folder with `src_<k>.png` and landmarks beside them."""
    return folder.is_dir() and any(folder.glob("src_*_ldmk.npy"))


def read_source(folder: Path, key: str) -> PreparedSource:
    path = folder / f"src_{key}.png"
    with open_image(path) as image:
        picture = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    identity = _array(folder / f"src_{key}_id.npy").reshape(-1)
    if identity.size != IDENTITY_SIZE:
        raise MediaError(f"{folder}/src_{key}_id.npy: holds {identity.size} numbers, not 256")
    return PreparedSource(
        picture=np.asarray(picture),
        landmarks=_landmarks(folder / f"src_{key}{LANDMARK_SUFFIX}"),
        identity=identity,
    )


def read_frames(folder: Path) -> Iterator[PreparedFrame]:
    """All driving frames below the folder, sorted by path."""
    paths = sorted(folder.glob(f"**/ldmks/*{LANDMARK_SUFFIX}"))
    if not paths:
        raise MediaError(f"{folder}: no driving landmarks (<k>/ldmks/<name>_ldmk.npy) in it")
    sources = read_map(folder)
    for path in paths:
        name = path.name.removesuffix(LANDMARK_SUFFIX)
        key = sources.get(name) or sources.get(f"{name}.png")
        yield PreparedFrame(
            name=name, source=key or path.parents[1].name, landmarks=_landmarks(path)
        )


def read_map(folder: Path) -> dict[str, str]:
    """Driving image's file name -> key of its source; empty if there is no map."""
    for path, parse in (
        (folder / "src_map_dict.json", json.loads),
        (folder / "src_map_dict.pkl", _unpickle_plain),
    ):
        if not path.is_file():
            continue
        try:
            if path.stat().st_size > MAP_BYTES:
                raise ValueError("too large")
            content = parse(path.read_bytes())
        except _DAMAGES as error:
            raise MediaError(f"{path}: refused as a map of sources: {error}") from None
        plain = isinstance(content, dict) and all(
            isinstance(key, str) and isinstance(value, str | int) for key, value in content.items()
        )
        if not plain:
            raise MediaError(f"{path}: is not a map from file names to sources")
        return {key: str(value) for key, value in content.items()}
    return {}


class _PlainUnpickler(pickle.Unpickler):
    """Builds containers, text and numbers only. Without names to look up a pickle can call
    nothing."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, a map needs no such thing")


def _unpickle_plain(content: bytes) -> Any:
    return _PlainUnpickler(io.BytesIO(content)).load()


def _landmarks(path: Path) -> NDArray[np.float32]:
    points = _array(path)
    if points.shape != POINTS_SHAPE or not np.isfinite(points).all():
        raise MediaError(f"{path}: holds {points.shape} numbers, not 669 points (x, y)")
    return points


def _array(path: Path) -> NDArray[np.float32]:
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no regular file")
        if path.exists() and path.stat().st_size > ARRAY_BYTES:
            raise ValueError("it is too large")
        with path.open("rb") as file:
            values = npy.read_array(file, allow_pickle=False)
        with np.errstate(over="ignore"):  # what is too large is infinite, and refused
            values = values.astype(np.float32)
        if not np.isfinite(values).all():
            raise ValueError("it holds what is no number")
        return values
    except _DAMAGES as error:
        raise MediaError(f"{path}: can't be read as an array: {error}") from None
