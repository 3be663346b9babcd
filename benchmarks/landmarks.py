"""Following a face against finding it anew in every frame: speed, steadiness, blinks, lost frames.

    python benchmarks/landmarks.py FOLDER_OF_CLIPS

For each clip: frames in which the face was missed, the jitter of the points (third differences
over time, in hundredths of the face's height), blinks, and milliseconds of processor time a frame;
found anew, then followed. Blinks are runs of frames in which the eyes are less than 0.6 of their
median openness.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.detector import MediaPipeDetector
from metaportrait_cli.face.face import Face
from metaportrait_cli.face.pursuit import Pursuit
from metaportrait_cli.face.track import LARGEST_FACE, CutDetector, FaceFollower
from metaportrait_cli.media.reader import Frame, open_frames
from metaportrait_cli.weights import bundled_path

SHUT = 0.6


@dataclass
class Seen:
    """What one way of looking saw of a clip."""

    follower: FaceFollower
    points: list[NDArray[np.float32]] = field(default_factory=list)
    missed: int = 0
    seconds: float = 0.0

    def take(self, faces: list[Face], *, cut: bool, seconds: float) -> None:
        face = self.follower.follow(faces, cut=cut)
        self.seconds += seconds
        if face is None:
            self.missed += 1
        else:
            self.points.append(face.points)

    def described(self) -> str:
        points = np.stack(self.points)[..., :2]  # (T, 478, 2)
        height = float(np.median(np.ptp(points[..., 1], axis=1)))
        third = points[3:] - 3 * points[2:-1] + 3 * points[1:-2] - points[:-3]
        # Of independent noise, third differences have 20 times the variance.
        jitter = 100 * float(np.linalg.norm(third, axis=-1).mean()) / 20**0.5 / height
        openness = np.mean(
            [
                np.linalg.norm(points[:, upper] - points[:, lower], axis=-1)
                for eye in topology.LIDS
                for upper, lower in eye
            ],
            axis=0,
        )
        shut = openness < SHUT * np.median(openness)
        blinks = int(np.count_nonzero(np.diff(np.concatenate([[0], shut.astype(int)])) == 1))
        spent = 1000 * self.seconds / (len(self.points) + self.missed)
        return f"missed {self.missed:3d}  jitter {jitter:.3f}  blinks {blinks:2d}  {spent:5.1f} ms"


Look = Callable[[Frame, Seen, bool], list[Face]]
"""Frame, what was seen so far, whether a shot begins."""


def anew(detector: MediaPipeDetector) -> Look:
    """Faces as the detector alone finds them."""

    def look(frame: Frame, seen: Seen, first: bool) -> list[Face]:
        if first or seen.follower.lost:
            return detector.search(frame.image)
        return detector.detect_all(frame.image, hints=seen.follower.hints)

    return look


def followed(detector: MediaPipeDetector) -> Look:
    """Faces as they are followed."""
    pursuit = Pursuit(detector)

    def look(frame: Frame, seen: Seen, first: bool) -> list[Face]:
        if first:
            return pursuit.begin(frame.image, all_faces=False)
        if seen.follower.lost:
            return pursuit.search(frame.image, all_faces=False)
        return pursuit.follow(frame.image, hints=seen.follower.hints)

    return look


def main() -> None:
    """Prints two lines a clip."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    for path in sorted(parser.parse_args().folder.glob("*.mp4")):
        with (
            MediaPipeDetector(bundled_path("face_landmarker")) as detector,
            open_frames(path) as frames,
        ):
            ways = [
                (look(detector), Seen(FaceFollower(LARGEST_FACE, rate=frames.info.rate)))
                for look in (anew, followed)
            ]
            cuts = CutDetector()
            for number, frame in enumerate(frames):
                cut = cuts.is_cut(frame.image)
                for look, seen in ways:
                    began = time.process_time()
                    faces = look(frame, seen, cut or number == 0)
                    seen.take(faces, cut=cut, seconds=time.process_time() - began)
        before, after = (seen.described() for _, seen in ways)
        print(f"{path.stem}, {frames.width}x{frames.height}")
        print(f"  found anew  {before}\n  followed    {after}")


if __name__ == "__main__":
    main()
