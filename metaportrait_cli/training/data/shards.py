"""Prepared training data: many small faces in few files.

A prepared folder holds shards and `index.json` (size of the pictures, names of the shards). A
shard is two files of one stem:

- `.mp4`: H.264, all frames of its clips one after the other, `size` × `size`; each clip starts
  with a key frame. A photo is a clip of one frame. The frame rate means nothing.
- `.safetensors`: `points` uint8, the packed landmarks (below); `frame` (N,) int32, each picture's
  number in its original clip. Its metadata holds `clips`, JSON: for each clip `file`, `identity`,
  `kind` (`clip` or `photo`), `origin`, `crop` (x0, y0, side in the original's pixels), `count` (its
  pictures in this shard), and `recipe`, which says what the shard was made from and how. It is
  written last: a shard without it is not finished.

Landmarks are pixels of the crop in 1/`LANDMARK_STEPS` (478, 3; x, y, z as in `face.detector`),
an eighth of a pixel at 256², far below the detector's noise. What is packed (zlib) is each point's
deviation from its mean over the clip, less that of its neighbour in the mesh: a few hundred bytes
a frame. Means come first, clip by clip.

Reading takes cv2, numpy and safetensors alone, so that training machines need no more.
"""

from __future__ import annotations

import json
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from metaportrait_cli.errors import MediaError
from metaportrait_cli.face import topology
from metaportrait_cli.media.outputs import atomic_output

INDEX = "index.json"
_TABLE = ".safetensors"
LANDMARK_STEPS = 2048
RUN_FRAMES = 7
"""Consecutive frames, in shards of runs; see `prepare_runs`."""
CRF = 21
NOSE_TIP = 1
KEY_PICTURE = 1  # AV_PICTURE_TYPE_I


@dataclass(frozen=True)
class ClipRecord:
    """One clip or photo in a shard."""

    file: str
    identity: str
    kind: str
    origin: str
    crop: tuple[int, int, int]
    count: int


@dataclass(frozen=True)
class Shard:
    """Pictures (N, S, S, 3) RGB, points (N, 478, 3) in pixels, and the clips they come from."""

    images: NDArray[np.uint8]
    points: NDArray[np.float32]
    frame: NDArray[np.int32]
    clips: tuple[ClipRecord, ...]


def begin_shard(stem: Path) -> None:
    """Nothing of an earlier shard of that name counts any more, nor the folder as complete."""
    for path in (stem.parent / INDEX, stem.with_suffix(_TABLE), low_path(stem)):
        path.unlink(missing_ok=True)


def write_shard(stem: Path, shard: Shard, *, recipe: str, crf: int = CRF) -> None:
    """Writes both files; the second one makes the shard count. `crf` is H.264's."""
    size = shard.images.shape[1]
    starts = np.cumsum([0, *(clip.count for clip in shard.clips)])
    with atomic_output(stem.with_suffix(".mp4")) as partial:
        encode_pictures(partial, shard.images, starts=set(starts[:-1].tolist()), crf=crf)
    steps = np.rint(shard.points * (LANDMARK_STEPS / size)).astype(np.int16)
    packed = pack_points([steps[a:b] for a, b in pairwise(starts)])
    tensors = {"points": np.frombuffer(packed, np.uint8), "frame": shard.frame}
    notes = {"recipe": recipe, "clips": json.dumps([asdict(clip) for clip in shard.clips])}
    with atomic_output(stem.with_suffix(_TABLE)) as partial:
        save_file(tensors, partial, notes)


def low_path(stem: Path) -> Path:
    """Where a shard's copy at half size lies."""
    return stem.with_suffix(".low.mp4")


def run_starts(frame: NDArray[np.int32]) -> NDArray[np.int64]:
    """Where runs begin among pictures (N,) with these numbers in their clips."""
    return np.flatnonzero(np.diff(frame, prepend=frame[0] - 2) != 1)


def read_recipe(stem: Path) -> str | None:
    """What a finished shard was made from; `None` if there is none, or it is damaged."""
    if not stem.with_suffix(_TABLE).is_file() or not stem.with_suffix(".mp4").is_file():
        return None
    with suppress(MediaError), _table(stem) as file:
        return (file.metadata() or {}).get("recipe")
    return None


def read_clips(stem: Path) -> tuple[ClipRecord, ...]:
    """The clips of a finished shard, without its pictures. Raises `MediaError` if it is damaged."""
    with _table(stem) as file:
        return _clips(file)


def read_shard(stem: Path, *, size: int) -> Shard:
    """Decodes a shard. Raises `MediaError` if it is damaged."""
    with _table(stem) as file:
        clips, frame = _clips(file), file.get_tensor("frame")
        packed = file.get_tensor("points").tobytes()
        steps = unpack_points(packed, [clip.count for clip in clips])
    images = decode_pictures(stem.with_suffix(".mp4"), count=len(frame), size=size)
    points = steps.astype(np.float32) * np.float32(size / LANDMARK_STEPS)
    return Shard(images=images, points=points, frame=frame, clips=clips)


@contextmanager
def _table(stem: Path) -> Iterator[Any]:
    path = stem.with_suffix(_TABLE)
    try:
        with safe_open(path, "numpy") as file:
            yield file
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, zlib.error) as error:
        raise MediaError(
            f"{path}: is damaged or missing ({error}); make it again with: metaportrait prepare"
        ) from None


def _clips(file: Any) -> tuple[ClipRecord, ...]:
    listed = json.loads((file.metadata() or {})["clips"])
    return tuple(ClipRecord(**clip | {"crop": tuple(clip["crop"])}) for clip in listed)


def write_index(folder: Path, *, size: int, shards: Sequence[str]) -> None:
    """Lists the finished shards; a folder with an index is complete."""
    with atomic_output(folder / INDEX) as partial:
        partial.write_text(json.dumps({"size": size, "shards": list(shards)}, indent=1) + "\n")


def read_index(folder: Path) -> tuple[int, list[Path]]:
    """Size of the pictures and stems of the shards. Raises `MediaError`."""
    try:
        index = json.loads((folder / INDEX).read_text())
        return int(index["size"]), [folder / name for name in index["shards"]]
    except (OSError, ValueError, KeyError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaError(
            f"{folder}: no prepared data ({reason}); make it with: metaportrait prepare"
        ) from None


def pack_points(clips: Sequence[NDArray[np.int16]]) -> bytes:
    """Landmarks of clips, (T, 478, 3) int16 each, without loss."""
    order, parent = _mesh_tree()
    means = np.stack([np.rint(clip.mean(0)) for clip in clips]).astype(np.int16)
    deviation = np.concatenate(
        [clip - mean for clip, mean in zip(clips, means, strict=True)]
    )  # (N, 478, 3)
    change = deviation[:, order].copy()
    change[:, 1:] -= deviation[:, parent[order[1:]]]
    values = np.concatenate([means, change]).astype("<i2")
    # Point by point and byte by byte: equal things lie together, as zlib likes them.
    planes = values.transpose(2, 1, 0).copy().view(np.uint8).reshape(-1, 2).T
    return zlib.compress(planes.tobytes(), 9)


def unpack_points(packed: bytes, counts: Sequence[int]) -> NDArray[np.int16]:
    """The inverse of `pack_points`: (N, 478, 3) for clips of `counts` frames."""
    order, parent = _mesh_tree()
    planes = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(2, -1)
    values = np.ascontiguousarray(planes.T).view("<i2").reshape(3, len(order), -1)
    values = values.transpose(2, 1, 0)
    means, change = values[: len(counts)], values[len(counts) :]
    points = np.zeros((len(change), len(order), 3), np.int16)
    points[:, order[0]] = change[:, 0]
    for place, point in enumerate(order[1:], start=1):
        points[:, point] = points[:, parent[point]] + change[:, place]
    return points + np.repeat(means, counts, axis=0)


@cache
def _mesh_tree() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All points in breadth-first order from the nose tip, and each one's predecessor."""
    neighbours: list[set[int]] = [set() for _ in range(topology.POINTS)]
    edges = [(t[i], t[(i + 1) % 3]) for t in topology.triangles() for i in range(3)]
    for side, (centre, *around) in zip(("right", "left"), topology.IRISES, strict=True):
        edges.append((topology.ring(f"{side}_eye")[0], centre))
        edges += [(centre, point) for point in around]
    for a, b in edges:
        neighbours[int(a)].add(int(b))
        neighbours[int(b)].add(int(a))
    parent = np.full(topology.POINTS, -1)
    order, waiting, seen = [], deque([NOSE_TIP]), {NOSE_TIP}
    while waiting:
        point = waiting.popleft()
        order.append(point)
        for other in sorted(neighbours[point] - seen):
            seen.add(other)
            parent[other] = point
            waiting.append(other)
    return np.array(order), parent


def encode_pictures(path: Path, images: NDArray[np.uint8], *, starts: set[int], crf: int) -> None:
    """Pictures (N, S, S, 3) as H.264, with key frames where `starts` says."""
    import av  # noqa: PLC0415  not there on training machines

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = images.shape[1]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(crf), "preset": "slow", "g": "1000000"}
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = number
            frame.pict_type = KEY_PICTURE if number in starts else 0
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def decode_pictures(path: Path, *, count: int, size: int) -> NDArray[np.uint8]:
    """Pictures (count, size, size, 3). Raises `MediaError` if there are fewer, or others."""
    capture = cv2.VideoCapture(str(path))
    images = np.empty((count, size, size, 3), np.uint8)
    try:
        for number in range(count):
            found, image = capture.read()
            if not found or image.shape != images.shape[1:]:
                raise MediaError(f"{path}: picture {number} of {count} can't be read")
            cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=images[number])
    finally:
        capture.release()
    return images
