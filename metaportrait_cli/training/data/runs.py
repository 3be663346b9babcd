"""Samples for super-resolution: a window of a few frames, degraded as frames in the wild are.

All frames of a sample are degraded alike, in one of four ways: halved; blurred, halved and
compressed as JPEG; halved and compressed as video (made by `prepare --runs`); or as the analytic
renderer's pictures are: another frame of the clip, halved and then moved. The reference is another
frame of the clip, moved into place.

Sample number `i` is a function of seed and `i` alone, whatever process draws it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from metaportrait_cli.errors import MediaError
from metaportrait_cli.face import topology
from metaportrait_cli.networks.compact_sr import SCALE, Reference
from metaportrait_cli.pixels import as_tensor
from metaportrait_cli.render.reference import (
    Placement,
    ReferenceWarp,
    Window,
    cut_window,
    displaced,
)
from metaportrait_cli.training.data.shards import (
    RUN_FRAMES,
    ClipRecord,
    decode_pictures,
    low_path,
    read_index,
    read_shard,
    run_starts,
)

# Shares of the ways to degrade, in the order of `WAYS`.
WAYS = ("halved", "jpeg", "video", "moved")
SHARES = (0.6, 0.1, 0.15, 0.15)
# Blur in pixels of the large picture before it is halved, and JPEG quality; drawn evenly.
HALVED_BLUR = (0.0, 0.9)
JPEG_BLUR = (0.0, 1.6)
JPEG_QUALITY = (40, 96)
# Share of the windows around a point of eyes, lips or the face's outline.
AT_A_FEATURE = 0.65
FEATURES = ("right_eye", "left_eye", "lips_outer", "face_oval")
# Points of the oval are moved out by up to this share of the way from the face's middle: hair.
TO_THE_HAIR = 0.35


@dataclass(frozen=True)
class Runs:
    """Prepared runs: `images` (N, S, S, 3), `low` (N, S/2, S/2, 3), `points` (N, 478, 3) in pixels
    of the images; `starts` of the runs and the number of the clip each one is from."""

    images: NDArray[np.uint8]
    low: NDArray[np.uint8]
    points: NDArray[np.float32]
    clips: tuple[ClipRecord, ...]
    starts: NDArray[np.int64]
    clip_of: NDArray[np.int64]

    @classmethod
    def load(cls, folder: Path) -> Runs:
        """Reads all shards of a prepared folder into memory, 1 MB a picture."""
        size, names = read_index(folder)
        shards, lows, starts = [], [], []
        offset = 0
        for name in names:
            if not low_path(folder / name).is_file():
                raise MediaError(
                    f"{folder}: holds no runs; make it with: metaportrait prepare --runs 3"
                )
            shard = read_shard(folder / name, size=size)
            count = len(shard.images)
            shards.append(shard)
            lows.append(decode_pictures(low_path(folder / name), count=count, size=size // SCALE))
            starts.append(offset + run_starts(shard.frame))
            offset += count
        clips = tuple(clip for shard in shards for clip in shard.clips)
        all_starts = np.concatenate(starts)
        ends = np.cumsum([clip.count for clip in clips])
        return cls(
            images=np.concatenate([shard.images for shard in shards]),
            low=np.concatenate(lows),
            points=np.concatenate([shard.points for shard in shards]),
            clips=clips,
            starts=all_starts,
            clip_of=np.searchsorted(ends, all_starts, side="right"),
        )


@dataclass(frozen=True)
class SRSample:
    """`frames` (T, 3, p, p) and `truth` (T, 3, 2p, 2p) in [0, 1]; the reference, if any."""

    frames: torch.Tensor
    truth: torch.Tensor
    reference: Reference | None


class RunDataset(Dataset[SRSample]):
    """Windows of `patch`² small pixels, `frames` long, of the runs of some people."""

    def __init__(
        self,
        runs: Runs,
        *,
        people: Sequence[str],
        length: int,
        seed: int,
        patch: int,
        frames: int,
        with_reference: float,
        ways: Sequence[float] = SHARES,
    ) -> None:
        if not 1 <= frames <= RUN_FRAMES:
            raise ValueError(f"a run has {RUN_FRAMES} frames")
        self._runs = runs
        self._length = length
        self._seed = seed
        self._patch = patch
        self._frames = frames
        self._with_reference = with_reference
        self._ways = np.array(ways) / sum(ways)
        self._side = runs.images.shape[1]
        of_clip: defaultdict[int, list[int]] = defaultdict(list)
        for start, clip in zip(runs.starts.tolist(), runs.clip_of.tolist(), strict=True):
            of_clip[clip].append(start)
        self._of_person: defaultdict[str, list[list[int]]] = defaultdict(list)
        for clip, starts in of_clip.items():
            self._of_person[runs.clips[clip].identity].append(starts)
        self._people = [person for person in people if person in self._of_person]
        if not self._people:
            raise MediaError("no runs of anybody to learn from; prepare more clips")
        # Placements are drawn again and again; 80 kB each.
        self._placed: dict[tuple[int, int], Placement] = {}
        self._warps: dict[int, ReferenceWarp] = {}

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> SRSample:
        rng = np.random.default_rng([self._seed, index])
        # Flat walls and clips without focus teach little: the more detailed of two draws.
        drawn = [self._drawn(rng) for _ in range(2)]
        source, start, window = max(drawn, key=lambda draw: self._detail(draw[1], draw[2]))
        first = start + int(rng.integers(RUN_FRAMES - self._frames + 1))
        chosen = list(range(first, first + self._frames))
        if rng.random() < 0.5:
            chosen.reverse()
        way = WAYS[rng.choice(len(WAYS), p=self._ways)]
        if way == "moved" and source is None:
            way = "halved"

        referred = source is not None and rng.random() < self._with_reference
        moved = None
        if way == "moved" and source is not None:
            placed = [self._warp_of(source).place(self._runs.points[n]) for n in chosen]
            moved = self._moved(source, placed, window)
            truth = moved[0]
            frames = np.stack([self._moved_small(source, place, window) for place in placed])
        else:
            truth = np.stack([cut_window(self._runs.images[n], window) for n in chosen])
            frames = self._degraded(rng, way, chosen, window)
            if source is not None and referred:
                placed = [self._settled(source, n) for n in chosen]
                moved = self._moved(source, placed, window)
        reference = None
        if referred and moved is not None:
            reference = Reference(as_tensor(moved[0]), torch.from_numpy(moved[1])[:, None])
        sample = SRSample(as_tensor(frames), as_tensor(truth), reference)
        return _mirrored(sample) if rng.random() < 0.5 else sample

    def _drawn(self, rng: np.random.Generator) -> tuple[int | None, int, Window]:
        """The picture to refer to, the start of a run, and where to look; people share the draws
        evenly. The picture is the middle one of the clip's next run, if there is another."""
        person = self._people[rng.integers(len(self._people))]
        clips = self._of_person[person]
        starts = clips[rng.integers(len(clips))]
        number = int(rng.integers(len(starts)))
        start = starts[number]
        following = starts[(number + 1) % len(starts)] + RUN_FRAMES // 2
        source = following if len(starts) > 1 else None
        return source, start, self._window(rng, self._runs.points[start])

    def _detail(self, start: int, window: Window) -> float:
        """What a window of a run's first picture loses at half of its size."""
        image = cut_window(self._runs.images[start], window)
        back = cv2.resize(_halved(image), image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        return float(cv2.absdiff(image, back).mean())

    def _window(self, rng: np.random.Generator, points: NDArray[np.float32]) -> Window:
        """Where to look, in pixels of the large picture, even so that halving keeps its grid."""
        half = self._patch  # of the large window
        centre = rng.uniform(half, max(self._side - half, half + 1), 2)
        if rng.random() < AT_A_FEATURE:
            name = FEATURES[rng.integers(len(FEATURES))]
            centre = points[rng.choice(topology.ring(name)), :2].astype(float)
            if name == "face_oval":
                centre += (centre - points[:, :2].mean(0)) * rng.uniform(0, TO_THE_HAIR)
            centre += rng.normal(0, half / 3, 2)
        corner = np.clip(np.rint((centre - half) / SCALE), 0, (self._side // SCALE) - half)
        x, y = (int(value) * SCALE for value in corner)
        return x, y, x + 2 * half, y + 2 * half

    def _degraded(
        self, rng: np.random.Generator, way: str, chosen: list[int], window: Window
    ) -> NDArray[np.uint8]:
        x0, y0, x1, y1 = (value // SCALE for value in window)
        if way == "video":
            return self._runs.low[chosen, y0:y1, x0:x1]
        blur = rng.uniform(*(JPEG_BLUR if way == "jpeg" else HALVED_BLUR))
        if way == "halved" and rng.random() < 0.5:
            blur = 0.0  # as downscaled clips are
        quality = int(rng.integers(*JPEG_QUALITY))
        # A margin, so that the blur doesn't see the window's edge.
        margin = 4 * SCALE
        ax, ay = max(window[0] - margin, 0), max(window[1] - margin, 0)
        wide = (ax, ay, window[2] + margin, window[3] + margin)
        cut = (x0 - ax // SCALE, y0 - ay // SCALE, x1 - ax // SCALE, y1 - ay // SCALE)
        frames = []
        for number in chosen:
            image = cut_window(self._runs.images[number], wide)
            if blur > 0.2:
                image = cv2.GaussianBlur(image, (0, 0), blur)
            image = _halved(image)
            if way == "jpeg":
                image = _jpeg(image, quality)
            frames.append(cut_window(image, cut))
        return np.stack(frames)

    def _moved(
        self, source: int, placed: list[Placement], window: Window
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """A picture in each of its places, (T, h, w, 3), and how far it is valid, (T, h, w)."""
        warp = self._warp_of(source)
        images, valid = zip(*(warp.moved(place, window) for place in placed), strict=True)
        return np.stack(images), np.stack(valid)

    def _moved_small(self, source: int, place: Placement, window: Window) -> NDArray[np.uint8]:
        small = _halved(self._runs.images[source])
        side = self._side // SCALE
        shift = cv2.resize(place.shift, (side, side)) / SCALE
        x0, y0, x1, y1 = (value // SCALE for value in window)
        return displaced(small, shift, (x0, y0, x1, y1), bicubic=False)

    def _settled(self, source: int, frame: int) -> Placement:
        key = source, frame
        if key not in self._placed:
            warp = self._warp_of(source)
            place = warp.place(self._runs.points[frame])
            self._placed[key] = warp.settled(place, _halved(self._runs.images[frame]))
        return self._placed[key]

    def _warp_of(self, source: int) -> ReferenceWarp:
        if source not in self._warps:
            runs = self._runs
            self._warps[source] = ReferenceWarp.analytic(runs.images[source], runs.points[source])
        return self._warps[source]


def run_people(runs: Runs) -> list[str]:
    """Names of all people that show in the runs."""
    return sorted({clip.identity for clip in runs.clips})


def _halved(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    return cv2.resize(image, (width // SCALE, height // SCALE), interpolation=cv2.INTER_AREA)


def _jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    # Channels change places and back: JPEG's colours would be others otherwise.
    _, packed = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.ascontiguousarray(cv2.imdecode(packed, cv2.IMREAD_COLOR)[..., ::-1])


def _mirrored(sample: SRSample) -> SRSample:
    reference = sample.reference
    if reference is not None:
        reference = Reference(reference.image.flip(-1), reference.valid.flip(-1))
    return SRSample(sample.frames.flip(-1), sample.truth.flip(-1), reference)
