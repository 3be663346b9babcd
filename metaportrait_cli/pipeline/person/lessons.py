"""A teacher's pictures of one person under many motions, for a student to learn from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.source import Source
from metaportrait_cli.face.track import LARGEST_FACE
from metaportrait_cli.motion.imagined import imagined
from metaportrait_cli.motion.retarget import Retargeter
from metaportrait_cli.pipeline.compensation import compensate
from metaportrait_cli.pipeline.compose import all_resized
from metaportrait_cli.pipeline.driver import load_motion
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.performance import DriveOptions, Performance
from metaportrait_cli.progress import Progress, Stopwatch
from metaportrait_cli.render.protocol import Driven, Frames, Session
from metaportrait_cli.training.data.lessons import FLOW_SIDE

AT_ONCE: Final = 48
"""Pictures in a shard"""
WINDOW: Final = 16
SEED: Final = 17


@dataclass(frozen=True)
class Teacher:
    """A source opened by the renderer that is to be imitated, at the student's size."""

    source: Source
    session: Session
    engine: Engine
    size: int
    retargeter: Retargeter
    """The person, ready to be driven"""
    weights: Mapping[str, str] = field(default_factory=dict)
    """Files of the renderer, with the hashes of what they hold"""

    def pictures(self, points: NDArray[np.float32]) -> tuple[Frames, NDArray[np.float32] | None]:
        """Of landmarks (T, 478, 3) in sides of the crop: frames (T, S, S, 3), and flows
        (T, G, G, 2) in half sides where the renderer tells them."""
        frames, flows = [], []
        for start in range(0, len(points), WINDOW):
            driven = Driven.of(points[start : start + WINDOW] * np.float32(self.size))
            rendered = self.session.render(driven)
            frames.append(all_resized(rendered.frames, self.size))
            flows += [
                cv2.resize(flow.shift, (FLOW_SIDE, FLOW_SIDE), interpolation=cv2.INTER_AREA)
                / np.float32(flow.side / 2)
                for flow in rendered.flows or ()
            ]
        return np.concatenate(frames), np.stack(flows) if flows else None

    def in_crop(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Points of the source's picture in sides of its crop."""
        return self.source.crop.to_crop(points, 1)


def imagined_motion(teacher: Teacher, count: int) -> Iterator[NDArray[np.float32]]:
    """Landmarks (n, 478, 3) in sides of the crop, a shard's at a time: drawn at random."""
    retargeter = teacher.retargeter
    for number, first in enumerate(range(0, count, AT_ONCE)):
        draw = np.random.default_rng((SEED, number))
        found = imagined(retargeter.model, retargeter.rest, draw, min(AT_ONCE, count - first))
        yield teacher.in_crop(found)


def clip_motion(
    teacher: Teacher, clips: Sequence[Path], *, most: int, on_progress: Progress
) -> Iterator[NDArray[np.float32]]:
    """The same out of clips: at most `most` frames of each, retargeted as `animate` does it."""
    for clip in clips:
        motion = load_motion(
            clip,
            choice=LARGEST_FACE,
            engine=teacher.engine,
            stopwatch=Stopwatch(),
            on_progress=on_progress,
        )
        with closing(motion.track):
            performance = Performance(
                track=motion.track,
                source=teacher.source,
                model=teacher.engine.face_model,
                options=DriveOptions(),
            )
            compensate(performance, teacher.session, size=teacher.size, engine=teacher.engine)
            points = np.concatenate(list(performance.windows(WINDOW)))
        chosen = points[np.linspace(0, len(points) - 1, min(most, len(points))).astype(np.intp)]
        for first in range(0, len(chosen), AT_ONCE):
            yield teacher.in_crop(chosen[first : first + AT_ONCE])
