"""Motion templates: a driver's landmarks as a `.motion.npz`, reusable in place of the clip.

A zip of plain arrays (no pickle): `version` (), `size` (width, height), `rate` (numerator,
denominator), and per frame `time` (T,), `shot` (T,), `state` (T,), `confidence` (T,), `points`
(T, 478, 3) float32 in pixels, `blendshapes` (T, 52) float32. Read and written in pieces.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from metaportrait_cli.errors import MediaError
from metaportrait_cli.face.track import CHUNK, RECORD, MotionTrack, State

VERSION = 1
SUFFIX = ".motion.npz"


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
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive, path)
    except FileNotFoundError as error:
        raise MediaError(f"{path}: no such file") from error
    except (zipfile.BadZipFile, KeyError, EOFError, OSError, ValueError) as error:
        raise MediaError(
            f"{path}: not a motion template, or damaged; make one with 'metaportrait landmarks'"
        ) from error


def _read(archive: zipfile.ZipFile, path: Path) -> MotionTrack:
    head = {}
    for name in ("version", "size", "rate"):
        with archive.open(f"{name}.npy") as member:
            head[name] = npy.read_array(member, allow_pickle=False)
    if int(head["version"]) != VERSION:
        raise MediaError(f"{path}: motion template of version {head['version']}, not {VERSION}")
    width, height = (int(v) for v in head["size"])
    rate = Fraction(*(int(v) for v in head["rate"]))
    columns = {name: _pieces(archive, name) for name in RECORD.names or ()}
    track = MotionTrack(width=width, height=height, rate=rate)
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
        if not np.isfinite(records["points"]).all() or records["state"].max() > max(State):
            raise ValueError("values out of range")
        track.append(records)
    if not len(track) or rate <= 0 or min(width, height) < 1:
        raise ValueError("empty")
    return track


def _pieces(archive: zipfile.ZipFile, name: str) -> Iterator[NDArray[np.generic]]:
    base, shape = RECORD[name].base, RECORD[name].shape
    with archive.open(f"{name}.npy") as member:
        npy.read_magic(member)
        full, fortran, dtype = npy.read_array_header_2_0(member)
        if fortran or dtype != base or full[1:] != shape:
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
