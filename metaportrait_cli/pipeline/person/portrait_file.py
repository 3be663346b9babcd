"""The portrait file: one person, learnt from their own video or photos, in one safetensors file.

Metadata: `architecture` ("portrait"), `format`, `base` (JSON: name and sha256 of the weights it
was made for, or the name "none"), `lends` (see `Source`), `settings` and `report` (JSON), and
for each view its crop in `crops` (JSON). Tensors, V views, the first being the canvas:

- `view.0`, …: uint8, a JPEG each; the canvas is the whole picture, the others their crops
- `points` (V, 478, 3) float32: the face in pixels of each picture
- `shape` (K,) float32: identity in the morphable model
- `embedding` (128,) float32: of the identity network
- `delta.NAME` float16: what is added to the parameter NAME of the base; none if the base serves
  the person best as it is
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.detector import BLENDSHAPE_COUNT, Face
from metaportrait_cli.face.source import Source
from metaportrait_cli.face.topology import POINTS
from metaportrait_cli.media.outputs import atomic_output
from metaportrait_cli.weights.files import reject_pointer
from metaportrait_cli.weights.sources import resolve

ARCHITECTURE = "portrait"
FORMAT = "1"
SUFFIX = ".portrait"
JPEG_QUALITY = 92
LONGEST_CROP = 1024
"""Crops of larger faces are stored at this side."""
ANALYTIC = "none"


@dataclass(frozen=True)
class Base:
    """The weights that a portrait belongs to."""

    name: str = ANALYTIC
    """As given to --weights; "none" is the analytic warp"""
    sha256: str = ""

    def check(self, path: Path | None, *, portrait: Path) -> None:
        """Raises `WeightsError` unless `path` holds just these weights; `None` is no weights."""
        if path is None:
            found, other = "", "the analytic warp"
        else:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            other = f"{path} ({found[:12]}…)"
        if found != self.sha256:
            raise WeightsError(
                f"{portrait}: was made for {self.described}, not for {other}; give --weights"
                f" {self.name}, or personalize again"
            )

    @property
    def described(self) -> str:
        """Name and hash, in words."""
        if not self.sha256:
            return "the analytic warp"
        return f"{self.name} ({self.sha256[:12]}…)"


@dataclass(frozen=True)
class Portrait:
    """What is known of a person."""

    source: Source
    """The canvas, with the atlas as its further pictures"""
    shape: NDArray[np.float32]
    """(K,) identity in the morphable model"""
    embedding: NDArray[np.float32]
    """(128,) of the identity network"""
    base: Base = Base()
    deltas: Mapping[str, Tensor] = field(default_factory=dict)
    """What is added to parameters of the base, by their names"""
    settings: Mapping[str, Any] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)

    @property
    def views(self) -> tuple[Source, ...]:
        """The canvas, then the others."""
        return (self.source, *self.source.others)

    def check_base(self) -> None:
        """Raises `WeightsError` unless the weights it was made for are here."""
        path = resolve(self.base.name) if self.base.sha256 else None
        self.base.check(path, portrait=self.source.path)


def save_portrait(path: Path, portrait: Portrait) -> None:
    """Writes the file, whole or not at all."""
    views = [portrait.source, *map(_limited, portrait.source.others)]
    tensors = {f"view.{k}": torch.from_numpy(_jpeg(view.picture)) for k, view in enumerate(views)}
    tensors["points"] = torch.from_numpy(np.stack([view.face.points for view in views]))
    tensors["shape"] = torch.from_numpy(portrait.shape.astype(np.float32))
    tensors["embedding"] = torch.from_numpy(portrait.embedding.astype(np.float32))
    for name, delta in portrait.deltas.items():
        tensors[f"delta.{name}"] = delta.to(torch.float16).contiguous()
    crops = [[view.crop.x0, view.crop.y0, view.crop.side] for view in views]
    metadata = {
        "architecture": ARCHITECTURE,
        "format": FORMAT,
        "base": json.dumps(vars(portrait.base)),
        "crops": json.dumps(crops),
        "lends": portrait.source.lends,
        "settings": json.dumps(portrait.settings),
        "report": json.dumps(portrait.report),
    }
    with atomic_output(path) as partial:
        save_file(tensors, partial, metadata)


def is_portrait(path: Path) -> bool:
    """Whether a file says that it is a portrait."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("architecture") == ARCHITECTURE
    except (SafetensorError, OSError):
        return False


def load_portrait(path: Path) -> Portrait:
    """Reads a file written by `save_portrait`. Raises `WeightsError`."""
    reject_pointer(path)
    try:
        with safe_open(path, framework="pt") as file:
            notes = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise WeightsError(
            f"{path}: is not a whole portrait file ({error}); make it with: metaportrait"
            " personalize"
        ) from None
    if notes.get("architecture") != ARCHITECTURE:
        raise WeightsError(f"{path}: is not a portrait; make one with: metaportrait personalize")
    if notes.get("format") != FORMAT:
        raise WeightsError(
            f"{path}: has format {notes.get('format')}, this version reads {FORMAT}; make it again"
            " with: metaportrait personalize"
        )
    try:
        return _read(path, notes, tensors)
    except (KeyError, ValueError, TypeError, IndexError, cv2.error) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(
            f"{path}: is damaged ({reason}); make it again with: metaportrait personalize"
        ) from None


def described(portrait: Portrait) -> str:
    """What a portrait holds, in one line."""
    deltas = sum(delta.numel() for delta in portrait.deltas.values())
    learnt = f"{deltas} adapted weights" if deltas else "no adapted weights"
    return (
        f"portrait of {len(portrait.views)} views, lending {portrait.source.lends}, {learnt},"
        f" for {portrait.base.described}"
    )


def _read(path: Path, notes: Mapping[str, str], tensors: Mapping[str, Tensor]) -> Portrait:
    points = tensors["points"].numpy()
    crops = [Crop(*crop) for crop in json.loads(notes["crops"])]
    if points.shape != (len(crops), POINTS, 3) or notes["lends"] not in ("face", "head", "all"):
        raise ValueError("its parts don't fit together")
    views = [
        Source(
            path=path,
            picture=_picture(tensors[f"view.{k}"].numpy()),
            face=Face(points[k], np.zeros(BLENDSHAPE_COUNT, np.float32), 1.0),
            faces_seen=1,
            crop=crop,
        )
        for k, crop in enumerate(crops)
    ]
    return Portrait(
        source=replace(views[0], others=tuple(views[1:]), lends=notes["lends"]),
        shape=tensors["shape"].numpy(),
        embedding=tensors["embedding"].numpy(),
        base=Base(**json.loads(notes["base"])),
        deltas={
            key.removeprefix("delta."): tensor
            for key, tensor in tensors.items()
            if key.startswith("delta.")
        },
        settings=json.loads(notes["settings"]),
        report=json.loads(notes["report"]),
    )


def _limited(view: Source) -> Source:
    """The view's crop alone, no larger than `LONGEST_CROP`."""
    view = _trimmed(view)
    scale = LONGEST_CROP / view.crop.side
    if scale >= 1:
        return view
    height, width = (round(side * scale) for side in view.picture.shape[:2])
    picture = cv2.resize(view.picture, (width, height), interpolation=cv2.INTER_AREA)
    crop = view.crop
    return replace(
        view,
        picture=np.asarray(picture, np.uint8),
        face=replace(view.face, points=(view.face.points * scale).astype(np.float32)),
        crop=Crop(round(crop.x0 * scale), round(crop.y0 * scale), LONGEST_CROP),
    )


def _trimmed(view: Source) -> Source:
    """The view without what lies outside its crop."""
    height, width = view.picture.shape[:2]
    rows, columns, _, _ = view.crop.inside(width, height)
    crop = view.crop
    return replace(
        view,
        picture=view.picture[rows, columns],
        face=replace(
            view.face,
            points=view.face.points - np.array([columns.start, rows.start, 0], np.float32),
        ),
        crop=Crop(crop.x0 - columns.start, crop.y0 - rows.start, crop.side),
    )


def _jpeg(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    settings = [
        *(cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY),
        *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    ]
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), settings)
    return encoded.ravel()


def _picture(encoded: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
