"""Motion templates: a driver's landmarks as a `.motion.npz`, reusable in place of the clip.

A zip of plain arrays (no pickle): `version` (), `size` (width, height), `rate` (numerator,
denominator), and per frame `time` (T,), `shot` (T,), `state` (T,), `confidence` (T,), `points`
(T, 478, 3) float32 in pixels, `blendshapes` (T, 52) float32. Read and written in pieces.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from tokenize import TokenError
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from metaportrait_cli.errors import MediaError
from metaportrait_cli.face.track import CHUNK, RECORD, MotionTrack, State
from metaportrait_cli.media.info import LARGEST_SIDE
from metaportrait_cli.media.probe import require_file
from metaportrait_cli.media.timing import HIGHEST_RATE, LOWEST_RATE

VERSION = 1
SUFFIX = ".motion.npz"
FARTHEST = 1e6
"""Pixels or seconds; numbers beyond are damage."""
HEAD_BYTES = 4096
_DAMAGES = (
    *(zipfile.BadZipFile, LookupError, EOFError, ValueError, TypeError, ArithmeticError),
    *(RuntimeError, NotImplementedError, SyntaxError, TokenError, MemoryError, struct.error),
)
"""What is raised for a template that is none."""


def write_motion(track: MotionTrack, path: Path) -> None:
    """Writes the track under exactly this path (give a temporary one for atomic output)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, value in (
            ("version", np.array(VERSION, np.int64)),
            ("size", np.array([track.width, track.height], np.int64)),
            ("rate", np.array([track.rate.numerator, track.rate.denominator], np.int64)),
        ):
            with archive.open(f"{name}.npy", "w") as member:
                npy.write_array(member, value, allow_pickle=False)
        for name in RECORD.names or ():
            base, shape = RECORD[name].base, RECORD[name].shape
            header = {
                "descr": npy.dtype_to_descr(base),
                "fortran_order": False,
                "shape": (len(track), *shape),
            }
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                npy.write_array_header_2_0(member, header)
                for chunk in track.chunks():
                    member.write(np.ascontiguousarray(chunk[name]).tobytes())


def read_motion(path: Path) -> MotionTrack:
    """Reads a template. Raises `MediaError` for anything that isn't one, or is damaged."""
    require_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            # As written here, and so no larger unpacked than it is now.
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("compressed")
            return _read(archive, path)
    except (*_DAMAGES, OSError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # the track's own place is full
        raise MediaError(
            f"{path}: not a motion template, or damaged; make one with 'metaportrait landmarks'"
        ) from error


def _read(archive: zipfile.ZipFile, path: Path) -> MotionTrack:
    version, width, height, *rate = (
        int(v)
        for name, shape in (("version", ()), ("size", (2,)), ("rate", (2,)))
        for v in _head(archive, name, shape)
    )
    if version != VERSION:
        raise MediaError(f"{path}: motion template of version {version}, not {VERSION}")
    track = MotionTrack(width=width, height=height, rate=Fraction(*rate))
    if not (min(width, height) >= 1 and max(width, height) <= LARGEST_SIDE):
        raise ValueError("size out of range")
    if track.rate < LOWEST_RATE or track.rate > HIGHEST_RATE:
        raise ValueError("rate out of range")
    columns = {name: _pieces(archive, name) for name in RECORD.names or ()}
    while True:
        pieces = {name: next(column, None) for name, column in columns.items()}
        lengths = {0 if piece is None else len(piece) for piece in pieces.values()}
        if len(lengths) != 1:
            raise ValueError("columns of different length")
        if lengths == {0}:
            break
        records = np.zeros(lengths.pop(), RECORD)
        for name, piece in pieces.items():
            records[name] = piece
        _check_values(records)
        track.append(records)
    if not len(track):
        raise ValueError("empty")
    return track


def _check_values(records: NDArray[np.void]) -> None:
    """Raises `ValueError` for numbers that no face has."""
    for name in ("time", "confidence", "points", "blendshapes"):
        if not (np.abs(records[name]) <= FARTHEST).all():  # NaN included
            raise ValueError(f"{name} out of range")
    sizes = np.ptp(records["points"][..., :2], axis=1).max(axis=1)
    shown = records["state"] != State.ABSENT
    if records["state"].max() > max(State) or (sizes[shown] < 1).any():
        raise ValueError("state out of range, or a face of no size")


def _head(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...]) -> NDArray[np.int64]:
    if archive.getinfo(f"{name}.npy").file_size > HEAD_BYTES:
        raise ValueError(f"{name} is too large")
    with archive.open(f"{name}.npy") as member:
        value = npy.read_array(member, allow_pickle=False)
    if value.shape != shape or value.dtype != np.int64:
        raise ValueError(f"{name} has another layout")
    return value.reshape(-1)


def _pieces(archive: zipfile.ZipFile, name: str) -> Iterator[NDArray[np.generic]]:
    base, shape = RECORD[name].base, RECORD[name].shape
    with archive.open(f"{name}.npy") as member:
        npy.read_magic(member)
        full, fortran, dtype = npy.read_array_header_2_0(member)
        if fortran or dtype != base or not full or full[1:] != shape:
            raise ValueError(f"{name} has another layout")
        size = base.itemsize * int(np.prod(shape, dtype=np.int64))
        for start in range(0, full[0], CHUNK):
            count = min(CHUNK, full[0] - start)
            yield np.frombuffer(_exactly(member, count * size), base).reshape(count, *shape)


def _exactly(member: IO[bytes], size: int) -> bytes:
    data = member.read(size)
    if len(data) != size:
        raise EOFError("file ends early")
    return data
