"""`prepare --runs`: a folder of clips → short runs of sharp face crops, for super-resolution.

As `prepare` (same index, same shards), but of each clip that is large enough a few runs of
consecutive frames are kept. The crop is never enlarged where the picture has room for a larger
one: what is learnt from must be sharp. Beside each shard lies `.low.mp4`, the same pictures at half
of the size and at a low bit rate, as a sender would have made them; its quality differs from shard
to shard, see `LOW_CRFS`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.errors import MediaError, NoFaceError, UsageError
from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.detector import MediaPipeDetector
from metaportrait_cli.media.outputs import atomic_output
from metaportrait_cli.media.reader import open_frames
from metaportrait_cli.progress import Progress
from metaportrait_cli.training.data.prepare import (
    POINTS_OUTSIDE,
    Item,
    Prepared,
    in_shards,
    read_items,
)
from metaportrait_cli.training.data.shards import (
    RUN_FRAMES,
    ClipRecord,
    Shard,
    encode_pictures,
    low_path,
    run_starts,
)

# Quality of the pictures to learn from: H.264 at its best, for grain is what is to be learnt.
SHARP_CRF = 13
LOW_CRFS = (20, 24, 28, 32)
# The longest side of the landmarks' box, as a share of the crop; smaller faces show no detail.
LEAST_FACE = 0.39
# A picture may be this much smaller than the crop.
LEAST_PICTURE = 0.875


@dataclass(frozen=True)
class PrepareRunsOptions:
    """Settings of one preparation; they are part of every shard's recipe."""

    split: str = "train"
    size: int = 512
    runs: int = 3
    """Of each clip, at most, evenly spread."""
    clips_per_shard: int = 8

    def __post_init__(self) -> None:
        if self.size % 32 or self.size < 64:
            raise UsageError(f"`size` {self.size} is not a multiple of 32 from 64 on")
        if self.runs < 1:
            raise UsageError("`runs` starts at 1")


def prepare_runs(
    folder: Path,
    output: Path,
    options: PrepareRunsOptions,
    *,
    detector: MediaPipeDetector,
    on_progress: Progress,
) -> Prepared:
    """Prepares one split of `folder` into `output`; finished shards of an earlier run are kept.

    Only real clips are taken: restored and generated ones have invented detail. Raises `MediaError`
    if the index is missing or no clip of it can be used.
    """
    clips = [
        item
        for item in read_items(folder, split=options.split)
        if item.kind == "clip" and item.origin == "real" and _large(folder / item.file, options)
    ]

    def write(stem: Path, shard: Shard, number: int) -> None:
        _write_low(stem, shard, crf=LOW_CRFS[number % len(LOW_CRFS)])

    done = in_shards(
        clips,
        output,
        asdict(options),
        each=options.clips_per_shard,
        cut=lambda item: _cut(folder, item, options, detector),
        write=write,
        crf=SHARP_CRF,
        on_progress=on_progress,
    )
    if done is None:
        raise MediaError(
            f"{folder}: no real clip of split {options.split!r} shows a face of"
            f" {round(LEAST_FACE * options.size)} pixels or more"
        )
    return done


def spread_runs(count: int, runs: int) -> list[range]:
    """At most `runs` runs of frame numbers in the middles of equal parts of `count` frames."""
    runs = min(runs, count // RUN_FRAMES)
    part = count / max(runs, 1)
    starts = (int(part * k + (part - RUN_FRAMES) / 2) for k in range(runs))
    return [range(start, start + RUN_FRAMES) for start in starts]


def sharp_crop(points: NDArray[np.float32], *, size: int, width: int, height: int) -> Crop:
    """The crop around a face, or as much more of the picture as `size` has room for."""
    usual = Crop.around(points)
    if usual.side >= size:
        return usual
    side = min(size, width, height)
    x0 = round(usual.x0 + (usual.side - side) / 2)
    y0 = round(usual.y0 + (usual.side - side) / 2)
    return Crop(min(max(x0, 0), width - side), min(max(y0, 0), height - side), side)


def _cut(
    folder: Path, item: Item, options: PrepareRunsOptions, detector: MediaPipeDetector
) -> Shard:
    path = folder / item.file
    with open_frames(path) as frames:
        count = sum(1 for _ in frames)
    images, points, numbers = [], [], []
    box: NDArray[np.float32] | None = None
    wanted = {number for run in spread_runs(count, options.runs) for number in run}
    for number, image in _numbered(path):
        if number not in wanted:
            continue
        faces = detector.detect(image, hint=box)
        if not faces:
            raise NoFaceError(f"{path}: no face in frame {number}")
        face = max(faces, key=lambda face: face.size)
        box = face.box
        images.append(image)
        points.append(face.points)
        numbers.append(number)
    if not images:
        raise MediaError(f"{path}: fewer than {RUN_FRAMES} frames")
    landmarks = np.stack(points)
    height, width = images[0].shape[:2]
    crop = sharp_crop(np.median(landmarks, axis=0), size=options.size, width=width, height=height)
    landmarks = crop.to_crop(landmarks, options.size)
    face_size = np.ptp(landmarks[..., :2], axis=1).max(-1)
    outside = ((landmarks[..., :2] < 0) | (landmarks[..., :2] > options.size)).any(-1).mean()
    if face_size.mean() < LEAST_FACE * options.size or outside > POINTS_OUTSIDE:
        raise NoFaceError(f"{path}: the face is small, or cut off")
    record = ClipRecord(
        file=item.file,
        identity=item.identity,
        kind=item.kind,
        origin=item.origin,
        crop=(crop.x0, crop.y0, crop.side),
        count=len(images),
    )
    pictures = np.stack([crop.cut(image, options.size) for image in images])
    return Shard(pictures, landmarks, np.array(numbers, np.int32), (record,))


def _write_low(stem: Path, shard: Shard, *, crf: int) -> None:
    half = shard.images.shape[1] // 2
    small = np.stack(
        [cv2.resize(image, (half, half), interpolation=cv2.INTER_AREA) for image in shard.images]
    )
    with atomic_output(low_path(stem)) as partial:
        encode_pictures(partial, small, starts=set(run_starts(shard.frame).tolist()), crf=crf)


def _numbered(path: Path) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    with open_frames(path) as frames:
        for frame in frames:
            yield frame.index, frame.image


def _large(path: Path, options: PrepareRunsOptions) -> bool:
    """Whether a picture of the clip nearly fills the crop; unreadable ones are reported later."""
    try:
        with open_frames(path) as frames:
            shape = next(iter(frames)).image.shape
    except (MediaError, StopIteration):
        return True
    return min(shape[:2]) >= LEAST_PICTURE * options.size
