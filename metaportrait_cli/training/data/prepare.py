"""`prepare`: a folder of clips and photos → face crops with landmarks, packed for training.

The folder has an `index.tsv`, tab-separated, a header and a line a file: `file` (its path in the
folder), `split` (any name: `train`, `test`), `kind` (`clip` or `photo`), `identity` (the person's
name), `origin` (`real`, `restored` or `generated`); further columns are ignored.

Each clip is cropped once, around its median face, so that the camera stands still; of its frames
those are kept that differ most in pose, mouth and eyes. Identities share the frames evenly, however
many clips they have.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.errors import MediaError, NoFaceError, UsageError
from metaportrait_cli.face import topology
from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.detector import MediaPipeDetector
from metaportrait_cli.media.outputs import check_folder, make_folder
from metaportrait_cli.media.reader import open_frames
from metaportrait_cli.media.stills import read_still
from metaportrait_cli.progress import Progress
from metaportrait_cli.training.data.shards import (
    CRF,
    ClipRecord,
    Shard,
    begin_shard,
    read_clips,
    read_recipe,
    write_index,
    write_shard,
)

SHUFFLE_SALT = "prepare"
KINDS = ("clip", "photo")
# Lips and lids are a small part of the points and most of an expression.
EXPRESSION_WEIGHT = 3.0
# Frames nearer than this to a kept one (root mean square of weighted pixels at 256²) repeat it.
LEAST_DIFFERENCE = 1.2
# Faces that leave the crop by more than this share of the points teach borders, not faces.
POINTS_OUTSIDE = 0.05


@dataclass(frozen=True)
class PrepareOptions:
    """Settings of one preparation; they are part of every shard's recipe."""

    split: str = "train"
    size: int = 256
    frames_per_identity: int = 36
    least_per_clip: int = 6
    """Kept frames of a clip, although its identity has many clips."""
    step: int = 3
    """Every how many frames of a clip a face is looked for."""
    files_per_shard: int = 96

    def __post_init__(self) -> None:
        if self.size % 32 or self.size < 64:
            raise UsageError(f"`size` {self.size} is not a multiple of 32 from 64 on")
        if min(self.frames_per_identity, self.least_per_clip, self.step) < 1:
            raise UsageError("`frames_per_identity`, `least_per_clip` and `step` start at 1")


@dataclass(frozen=True)
class Item:
    """A line of the index."""

    file: str
    kind: str
    identity: str
    origin: str


@dataclass(frozen=True)
class Sightings:
    """Frames of a clip in which its face was found: `frame` (T,), `points` (T, 478, 3)."""

    frame: NDArray[np.int64]
    points: NDArray[np.float32]


FaceFinder = Callable[[Path, Item], Sightings]


@dataclass(frozen=True)
class Prepared:
    """What was done."""

    files: int
    frames: int
    identities: int
    megabytes: float
    skipped: tuple[str, ...]
    """Files without a face, or that can't be read"""


def prepare(
    folder: Path,
    output: Path,
    options: PrepareOptions,
    *,
    find_faces: FaceFinder,
    on_progress: Progress,
) -> Prepared:
    """Prepares one split of `folder` into `output`; finished shards of an earlier run are kept.

    `find_faces` is `looking_with(detector)`, or reads landmarks from elsewhere. Raises
    `MediaError` if the index is missing or nothing of it can be used.
    """
    items = read_items(folder, split=options.split)
    clips_of = Counter(item.identity for item in items if item.kind == "clip")

    def cut(item: Item) -> Shard:
        quota = _quota(item, clips_of, options)
        return _cut(folder, item, find_faces, quota=quota, size=options.size)

    done = in_shards(
        items,
        output,
        asdict(options),
        each=options.files_per_shard,
        cut=cut,
        on_progress=on_progress,
    )
    if done is None:
        raise MediaError(f"{folder}: no face in any file of split {options.split!r}")
    return done


def in_shards(
    items: Sequence[Item],
    output: Path,
    settings: Mapping[str, Any],
    *,
    each: int,
    cut: Callable[[Item], Shard],
    on_progress: Progress,
    write: Callable[[Path, Shard, int], None] = lambda _stem, _shard, _number: None,
    crf: int = CRF,
) -> Prepared | None:
    """What is `cut` of the items, in shards of `each` so many; those that an earlier run has
    finished with the same `settings` are kept. `None` where nothing of any item can be used.

    The settings' `size` is that of the pictures. `write` puts something beside a shard, before
    that itself is written at quality `crf`.
    """
    check_folder(output)
    skipped: list[str] = []
    names: list[str] = []
    for number, first in enumerate(range(0, len(items), each)):
        group = items[first : first + each]
        stem = output / f"shard-{number:04d}"
        recipe = _digest(json.dumps([settings, [asdict(item) for item in group]]))
        if read_recipe(stem) != recipe:
            parts = []
            for done, item in enumerate(group, first + 1):
                try:
                    parts.append(cut(item))
                except (MediaError, NoFaceError):
                    skipped.append(item.file)
                on_progress("prepare", done, len(items))
            if not parts:
                continue
            make_folder(output)
            begin_shard(stem)
            shard = joined(parts)
            write(stem, shard, number)
            write_shard(stem, shard, recipe=recipe, crf=crf)
        names.append(stem.name)
    if not names:
        return None
    write_index(output, size=settings["size"], shards=names)
    return summary(output, names, skipped)


def read_items(folder: Path, *, split: str) -> list[Item]:
    """Lines of the index that belong to the split, in a fixed mixed order."""
    path = folder / "index.tsv"
    items = []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file, delimiter="\t"), start=2):
                if row["split"] == split:
                    items.append(_item(row, where=f"{path}, line {number}"))
    except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaError(
            f"{path}: can't be read as an index ({reason}); it needs the columns"
            " file, split, kind, identity, origin, separated by tabs"
        ) from None
    if not items:
        raise MediaError(f"{path}: no file of split {split!r}")
    # Mixed, so that any part of the shards stands for the whole.
    return sorted(items, key=lambda item: _digest(SHUFFLE_SALT + item.file))


def _item(row: Mapping[str, str | None], *, where: str) -> Item:
    file, kind, identity, origin = (row[name] for name in ("file", "kind", "identity", "origin"))
    if not (file and identity and origin) or kind not in KINDS:
        raise MediaError(
            f"{where}: file, identity and origin must be there, and kind be clip or photo"
        )
    return Item(file, kind, identity, origin)


def looking_with(detector: MediaPipeDetector, *, step: int) -> FaceFinder:
    """Looks for the face in every `step`-th frame of a clip."""

    def find(path: Path, item: Item) -> Sightings:
        if item.kind == "photo":
            frames: Iterable[tuple[int, NDArray[np.uint8]]] = [(0, read_still(path).image)]
        else:
            frames = _every(path, step)
        numbers, points = [], []
        box: NDArray[np.float32] | None = None
        for number, image in frames:
            # Searching takes long: once for what has a face somewhere, photos above all.
            faces = detector.search(image) if number == 0 else detector.detect(image, hint=box)
            if not faces:
                continue
            face = max(faces, key=lambda face: face.size)
            box = face.box
            numbers.append(number)
            points.append(face.points)
        if not numbers:
            raise NoFaceError(f"{path}: no face found")
        return Sightings(np.array(numbers), np.stack(points))

    return find


def chosen_frames(points: NDArray[np.float32], *, count: int) -> NDArray[np.int64]:
    """Which of the landmarks (T, 478, 3), in pixels at 256², to keep: in order, at most `count`.

    Farthest point sampling from the frame nearest to the mean; ends early where only repetitions
    are left.
    """
    looks = points[..., :2].copy()
    inner = np.concatenate(
        [topology.ring(n) for n in ("lips_inner", "lips_outer", "right_eye", "left_eye")]
    )
    looks[:, inner] *= EXPRESSION_WEIGHT
    looks = looks.reshape(len(points), -1)
    first = int(np.linalg.norm(looks - looks.mean(0), axis=1).argmin())
    kept = [first]
    distance = np.full(len(points), np.inf)
    while len(kept) < min(count, len(points)):
        newest = np.sqrt(np.square(looks - looks[kept[-1]]).mean(axis=1))
        distance = np.minimum(distance, newest)
        farthest = int(distance.argmax())
        if distance[farthest] < LEAST_DIFFERENCE:
            break
        kept.append(farthest)
    return np.sort(np.array(kept))


def _cut(folder: Path, item: Item, find_faces: FaceFinder, *, quota: int, size: int) -> Shard:
    path = folder / item.file
    seen = find_faces(path, item)
    crop = Crop.around(np.median(seen.points, axis=0))
    points = crop.to_crop(seen.points, size)
    outside = ((points[..., :2] < 0) | (points[..., :2] > size)).any(-1).mean(-1)
    within = np.flatnonzero(outside <= POINTS_OUTSIDE)
    if not len(within):
        raise NoFaceError(f"{path}: the face is cut off")
    kept = within[chosen_frames(points[within] * (256 / size), count=quota)]
    if item.kind == "photo":
        images = [crop.cut(read_still(path).image, size)]
    else:
        wanted = set(seen.frame[kept].tolist())
        images = [crop.cut(image, size) for n, image in _every(path, 1) if n in wanted]
    if len(images) != len(kept):
        raise MediaError(f"{path}: frames are missing")
    record = ClipRecord(
        file=item.file,
        identity=item.identity,
        kind=item.kind,
        origin=item.origin,
        crop=(crop.x0, crop.y0, crop.side),
        count=len(kept),
    )
    return Shard(np.stack(images), points[kept], seen.frame[kept].astype(np.int32), (record,))


def _every(path: Path, step: int) -> Iterable[tuple[int, NDArray[np.uint8]]]:
    with open_frames(path) as frames:
        for frame in frames:
            if frame.index % step == 0:
                yield frame.index, frame.image


def joined(parts: Sequence[Shard]) -> Shard:
    """The clips of several shards in one."""
    return Shard(
        images=np.concatenate([part.images for part in parts]),
        points=np.concatenate([part.points for part in parts]),
        frame=np.concatenate([part.frame for part in parts]),
        clips=tuple(clip for part in parts for clip in part.clips),
    )


def _quota(item: Item, clips_of: Counter[str], options: PrepareOptions) -> int:
    if item.kind == "photo":
        return 1
    share = options.frames_per_identity // max(clips_of[item.identity], 1)
    return max(share, options.least_per_clip)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def summary(output: Path, names: Sequence[str], skipped: Sequence[str]) -> Prepared:
    """What lies in the finished shards `names`."""
    clips = [clip for name in names for clip in read_clips(output / name)]
    files = [output / f"{name}{ending}" for name in names for ending in (".mp4", ".safetensors")]
    return Prepared(
        files=len(clips),
        frames=sum(clip.count for clip in clips),
        identities=len({clip.identity for clip in clips}),
        megabytes=round(sum(file.stat().st_size for file in files) / 1e6, 2),
        skipped=tuple(skipped),
    )
