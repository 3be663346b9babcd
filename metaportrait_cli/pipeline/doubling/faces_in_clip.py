"""The first pass of `upscale`: finds and follows the faces in a clip."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.errors import MediaError
from metaportrait_cli.face.crowd import Crowd, FacePath
from metaportrait_cli.media.outputs import atomic_output
from metaportrait_cli.media.reader import open_frames
from metaportrait_cli.pipeline.driver import shown_frames
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.sightings import sightings
from metaportrait_cli.pipeline.work import Work
from metaportrait_cli.progress import Progress, Stopwatch

_PLACES, _NOTICED = "faces.npz", "faces.json"


@dataclass(frozen=True)
class FacesInClip:
    """What the first pass found."""

    paths: list[FacePath]
    frames: int
    """Of the clip"""
    shots: int
    rate: Fraction
    order: Sequence[int]
    """For each frame of the result, which has a constant rate, the number of the clip's that it
    shows."""
    warning: str | None

    def in_frames(self) -> NDArray[np.intp]:
        """How many faces each frame shows, (T,)."""
        count = np.zeros(self.frames, int)
        for path in self.paths:
            count[path.start : path.stop] += 1
        return count

    def leads(self) -> NDArray[np.intp]:
        """For each frame (T,) the number of the largest face's path: the last one's, where a frame
        shows none."""
        leads = np.full(self.frames, -1)
        for which in sorted(range(len(self.paths)), key=lambda n: self.paths[n].side):
            path = self.paths[which]
            leads[path.start : path.stop] = which
        known = np.flatnonzero(leads >= 0)
        last = np.searchsorted(known, np.arange(self.frames), side="right") - 1
        return leads[known[np.maximum(last, 0)]]

    def save(self, folder: Path) -> None:
        """Keeps it for a run that goes on after this one."""
        arrays = {
            f"{name}{number}": getattr(path, name)
            for number, path in enumerate(self.paths)
            for name in ("corners", "presence")
        }
        with atomic_output(folder / _PLACES) as partial:
            np.savez(partial, **arrays)
        known = {
            "paths": [[path.start, path.side] for path in self.paths],
            "frames": self.frames,
            "shots": self.shots,
            "rate": str(self.rate),
            "order": list(self.order),
            "warning": self.warning,
        }
        with atomic_output(folder / _NOTICED) as partial:
            partial.write_text(json.dumps(known))

    @classmethod
    def saved(cls, folder: Path) -> FacesInClip | None:
        """What `save` kept, if it was come to. Raises `MediaError` if it is damaged."""
        if not (folder / _NOTICED).is_file():
            return None
        try:
            known = json.loads((folder / _NOTICED).read_text())
            with np.load(folder / _PLACES, allow_pickle=False) as arrays:
                paths = [
                    FacePath(start, side, arrays[f"corners{number}"], arrays[f"presence{number}"])
                    for number, (start, side) in enumerate(known.pop("paths"))
                ]
            return cls(paths=paths, rate=Fraction(known.pop("rate")), **known)
        except (OSError, ValueError, TypeError, LookupError, zipfile.BadZipFile) as error:
            raise MediaError(
                f"{folder}: what was begun is damaged; `discard` starts anew"
            ) from error


def find_faces(
    clip: Path, engine: Engine, stopwatch: Stopwatch, on_progress: Progress, work: Work | None
) -> FacesInClip:
    """Where each face is, in each shot, and when each frame is shown."""
    with open_frames(clip) as frames:
        info = frames.info
        crowd = Crowd(width=frames.width, height=frames.height, rate=info.rate)
        times = []
        shots = 0
        diary = work.diary(info.rate) if work is not None else None
        looking = sightings(
            frames, watch=crowd, detector=engine.detector, stopwatch=stopwatch, diary=diary
        )
        with closing(looking):
            for seen in looking:
                crowd.follow(seen.glance.faces, cut=seen.cut, everywhere=seen.glance.everywhere)
                times.append(float(seen.time))
                shots = seen.shot + 1
                on_progress("faces", len(times), info.frames)
        warning = frames.warning
    even = not info.variable_rate
    order = range(len(times)) if even else shown_frames(np.array(times), info.rate)
    return FacesInClip(
        paths=crowd.paths(),
        frames=crowd.frames,
        shots=shots,
        rate=info.rate,
        order=order,
        warning=warning,
    )
