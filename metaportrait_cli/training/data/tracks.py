"""Landmark tracks of many people: what the morphable model is learnt from."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.errors import MediaError
from metaportrait_cli.face.face import BLENDSHAPE_COUNT
from metaportrait_cli.face.topology import POINTS
from metaportrait_cli.motion.alignment import Floats


@dataclass(frozen=True)
class Track:
    """Landmarks (T, 478, 3) of one person in pixels, from a clip or a photo."""

    person: str
    landmarks: Floats
    frame: NDArray[np.int64]
    """(T,) number of each frame in its clip: tells which frames follow each other."""

    blendshapes: Floats | None = None
    """(T, B) that the detector gave."""


def load_tracks(folder: Path) -> list[Track]:
    """Reads every .npz of a folder: `landmarks` (T, 478, 3) in pixels, and optionally `identity`
    (a name; without it every file is a person), `frame` (T,) and `blendshapes` (T, B).

    Raises MediaError, with the file's name, when there is nothing to read or it is something else.
    """
    tracks = [_track(path) for path in sorted(folder.glob("*.npz"))]
    if not tracks:
        raise MediaError(f"{folder}: no .npz landmark tracks")
    return tracks


def _track(path: Path) -> Track:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise MediaError(f"{path}: can't be read as a landmark track ({error})") from None
    landmarks = arrays.get("landmarks", np.zeros(0))
    if landmarks.shape[1:] != (POINTS, 3) or not len(landmarks):
        raise MediaError(f"{path}: no landmarks of shape (T, {POINTS}, 3)")
    if not np.isfinite(landmarks).all():
        raise MediaError(f"{path}: some landmarks are not finite")
    frame = arrays.get("frame", np.arange(len(landmarks)))
    blendshapes = arrays.get("blendshapes")
    if frame.shape != (len(landmarks),):
        raise MediaError(f"{path}: frame has not a number for each of {len(landmarks)} frames")
    if blendshapes is not None and blendshapes.shape != (len(landmarks), BLENDSHAPE_COUNT):
        raise MediaError(f"{path}: blendshapes are not of shape (T, {BLENDSHAPE_COUNT})")
    person = str(arrays.get("identity", path.stem))
    return Track(person, landmarks.astype(np.float32), frame, blendshapes)
