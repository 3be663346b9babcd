"""The portrait file: one person, learnt from their own video or photos, in one safetensors file.

Metadata: `architecture` ("portrait"), `format`, `base` (JSON: name and sha256 of the weights it
was made for; the name is "none", one of the list of weights, or "sha256:…", for the file may come
from elsewhere, and nothing is opened or fetched because it says so), `lends` (see `Source`),
`settings` and `report` (JSON), and
for each view its crop in `crops` (JSON). Tensors, V views, the first being the canvas:

- `view.0`, …: uint8, a JPEG each; the canvas is the whole picture, the others their crops
- `points` (V, 478, 3) float32: the face in pixels of each picture
- `blendshapes` (V, 52) float32: the expression in each, from which the person's rest is told; older
  files have none and are taken to show it
- `strangers` (N, 478, 3) float32: other faces in the views that `strangers_of` (JSON) lists
- `shape` (K,) float32: identity in the morphable model
- `embedding` (128,) float32: of the identity network
- `delta.NAME` float16: what is added to the parameter NAME of the base; none if the base serves
  the person best as it is
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from metaportrait_cli.errors import MediaError, WeightsError, counted
from metaportrait_cli.face.face import BLENDSHAPE_COUNT, Face
from metaportrait_cli.face.source import Source
from metaportrait_cli.face.topology import POINTS
from metaportrait_cli.pipeline.person.stored_view import as_jpeg, crop_of, limited, of_jpeg
from metaportrait_cli.weights.architectures import PORTRAIT, STUDENT
from metaportrait_cli.weights.download import SHA256, sha256_of
from metaportrait_cli.weights.files import reject_pointer
from metaportrait_cli.weights.manifest import read_manifest
from metaportrait_cli.weights.sources import BY_CONTENT, name_of_content, resolve
from metaportrait_cli.weights.tensors import read_header

if TYPE_CHECKING:  # it takes seconds to import, and runs without networks do without
    from torch import Tensor

ARCHITECTURE = PORTRAIT
HOLD_PORTRAITS = (PORTRAIT, STUDENT)
FORMAT = "1"
SUFFIX = ".portrait"
EMBEDDING_SIZE = 128
MOST_VIEWS = 64
MOST_TENSORS = 4096
"""More than any portrait has; a file from elsewhere could unpack to any size."""
ANALYTIC = "none"
PERSON = "person"
"""With a number, where a student file has those after the first"""


@dataclass(frozen=True)
class Base:
    """The weights that a portrait belongs to."""

    name: str = ANALYTIC
    """As given to --weights; "none" is the analytic warp"""
    sha256: str = ""

    @classmethod
    def of(cls, sha256: str) -> Base:
        """The weights of that hash, by a name that means the same everywhere."""
        return cls(name_of_content(sha256), sha256)

    @classmethod
    def read(cls, text: str) -> Base:
        """From a file's metadata. Raises `ValueError` for what no portrait has to say."""
        found = json.loads(text)
        base = cls(**found) if isinstance(found, dict) else None
        if base == cls():
            return base
        if (
            base is None
            or not isinstance(base.sha256, str)
            or not SHA256.fullmatch(base.sha256)
            or base.name not in (f"{BY_CONTENT}{base.sha256}", *read_manifest())
        ):
            raise ValueError("it names its weights neither by a known name nor by their sha256")
        return base

    def check(self, path: Path | None, *, portrait: Path) -> None:
        """Raises `WeightsError` unless `path` holds just these weights; `None` is no weights."""
        if path is None:
            found, other = "", "the analytic warp"
        else:
            found = sha256_of(path)
            other = f"{path} ({found[:12]}…)"
        if found != self.sha256:
            named = self.name.startswith(BY_CONTENT)
            give = "name their file with `weights`" if named else f"give `weights` {self.name}"
            raise WeightsError(
                f"{portrait}: was made for {self.described}, not for {other}; {give}, or"
                " personalize again"
            )

    @property
    def described(self) -> str:
        """Name and hash, in words."""
        if not self.sha256:
            return "the analytic warp"
        name = "weights" if self.name.startswith(BY_CONTENT) else self.name
        return f"{name} ({self.sha256[:12]}…)"


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
    from metaportrait_cli.weights.store import save_tensors  # noqa: PLC0415

    save_tensors(path, *portrait_tensors(portrait))


def portrait_tensors(portrait: Portrait) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of the file."""
    import torch  # noqa: PLC0415

    views = [portrait.source, *map(limited, portrait.source.others)]
    tensors = {f"view.{k}": torch.from_numpy(as_jpeg(view.picture)) for k, view in enumerate(views)}
    tensors["points"] = torch.from_numpy(np.stack([view.face.points for view in views]))
    shapes = np.stack([view.face.blendshapes for view in views])
    tensors["blendshapes"] = torch.from_numpy(shapes.astype(np.float32))
    tensors["shape"] = torch.from_numpy(portrait.shape.astype(np.float32))
    tensors["embedding"] = torch.from_numpy(portrait.embedding.astype(np.float32))
    for name, delta in portrait.deltas.items():
        tensors[f"delta.{name}"] = delta.to(torch.float16).contiguous()
    others = [(k, face.points) for k, view in enumerate(views) for face in view.strangers]
    if others:
        tensors["strangers"] = torch.from_numpy(np.stack([points for _, points in others]))
    crops = [[view.crop.x0, view.crop.y0, view.crop.side] for view in views]
    metadata = {
        "architecture": ARCHITECTURE,
        "format": FORMAT,
        "base": json.dumps(vars(portrait.base)),
        "crops": json.dumps(crops),
        "strangers_of": json.dumps([k for k, _ in others]),
        "lends": portrait.source.lends,
        "settings": json.dumps(portrait.settings),
        "report": json.dumps(portrait.report),
    }
    return tensors, metadata


def is_portrait(path: Path) -> bool:
    """Whether a file says that it is a portrait."""
    try:
        with safe_open(path, framework="np") as file:
            return (file.metadata() or {}).get("architecture") in HOLD_PORTRAITS
    except (SafetensorError, OSError):
        return False


def whose(named: Path) -> tuple[Path, str | None]:
    """The file, and the person that `FILE:NAME` names of those whom a student file holds."""
    file, colon, person = str(named).rpartition(":")
    return (Path(file), person) if colon and not named.exists() else (named, None)


def load_portrait(named: Path) -> Portrait:
    """Reads a file written by `save_portrait`, or a portrait in a student file, whose weights are
    then the file itself; `FILE:NAME` is that of one of several. Raises `WeightsError`."""
    path, person = whose(named)
    reject_pointer(path)
    try:
        with safe_open(path, framework="np") as file:
            notes = file.metadata() or {}
            if notes.get("architecture") in HOLD_PORTRAITS and len(file.keys()) > MOST_TENSORS:
                raise SafetensorError(f"{len(file.keys())} parts")
            keys = list(file.keys())
            prefix, notes = _one_of(path, notes, person)
            others = (STUDENT,) if prefix else (STUDENT, PERSON)
            ours = [key for key in keys if key.startswith(prefix) and not key.startswith(others)]
            tensors = {key.removeprefix(prefix): file.get_tensor(key) for key in ours}
    except (SafetensorError, OSError, UnicodeError, TypeError) as error:  # of kinds numpy lacks
        raise WeightsError(
            f"{path}: is not a whole portrait file ({error}); make it with: metaportrait"
            " personalize"
        ) from None
    if notes.get("architecture") not in HOLD_PORTRAITS:
        raise WeightsError(f"{path}: is not a portrait; make one with: metaportrait personalize")
    if notes.get("format") != FORMAT:
        raise WeightsError(
            f"{path}: has format {notes.get('format')}, this version reads {FORMAT}; make it again"
            " with: metaportrait personalize"
        )
    try:
        portrait = _read(path, notes, tensors)
    except (MediaError, LookupError, ValueError, TypeError, RecursionError, cv2.error) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(
            f"{path}: is damaged ({reason}); make it again with: metaportrait personalize"
        ) from None
    if notes["architecture"] == STUDENT:
        return replace(portrait, base=Base(str(path), sha256_of(path)))
    return portrait


def portraits_in(path: Path) -> list[Portrait]:
    """Those of all people whom a portrait or student file holds. Raises `WeightsError`."""
    people = people_in(read_header(path).notes)
    return [load_portrait(Path(f"{path}:{person}")) for person in people] or [load_portrait(path)]


def people_in(notes: Mapping[str, str]) -> list[str]:
    """Names of those whom a student file of several holds. Raises `ValueError`."""
    names = json.loads(notes.get("people", "[]"))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its people have no names")
    return names


def _one_of(path: Path, notes: dict[str, str], person: str | None) -> tuple[str, dict[str, str]]:
    """How the names of a person's tensors begin, and their part of a file's metadata."""
    try:
        names = people_in(notes)
        if person in names and (number := names.index(person)):
            return f"{PERSON}{number}.", {**notes, **json.loads(notes[f"{PERSON}{number}"])}
    except (LookupError, ValueError, TypeError, RecursionError) as error:
        raise WeightsError(f"{path}: is damaged ({error}); make it again") from None
    if person not in names and (names or person is not None):
        held = ", ".join(names) or "one person, who needs no name"
        first = f"{path}:{names[0]}" if names else path
        raise WeightsError(f"{path}: holds {held}; choose as in `portrait` {first}")
    return "", notes


def described(portrait: Portrait) -> str:
    """What a portrait holds, in one line."""
    deltas = sum(delta.numel() for delta in portrait.deltas.values())
    learnt = f"{deltas} adapted weights" if deltas else "no adapted weights"
    return (
        f"portrait of {counted(len(portrait.views), 'view')}, lending {portrait.source.lends},"
        f" {learnt}, for {portrait.base.described}"
    )


def _read(path: Path, notes: Mapping[str, str], tensors: Mapping[str, NDArray]) -> Portrait:
    crops = [crop_of(*crop) for crop in json.loads(notes["crops"])]
    points = _numbers(tensors["points"], len(crops), POINTS, 3)
    if not 1 <= len(crops) <= MOST_VIEWS or notes["lends"] not in ("face", "head", "all"):
        raise ValueError("its parts don't fit together")
    shapes = np.zeros((len(crops), BLENDSHAPE_COUNT), np.float32)
    if "blendshapes" in tensors:
        shapes = _numbers(tensors["blendshapes"], *shapes.shape)
    strangers = _strangers(notes, tensors, views=len(crops))
    views = [
        Source(
            path=path,
            picture=of_jpeg(tensors[f"view.{k}"]),
            face=Face.of(points[k], shapes[k], 1.0),
            faces_seen=1,
            crop=crop,
            strangers=strangers[k],
        )
        for k, crop in enumerate(crops)
    ]
    for view in views:
        height, width = view.picture.shape[:2]
        rows, columns, _, _ = view.crop.inside(width, height)
        if rows.start >= rows.stop or columns.start >= columns.stop:
            raise ValueError("a crop lies beside its picture")
    deltas = {
        key.removeprefix("delta."): values
        for key, values in tensors.items()
        if key.startswith("delta.")
    }
    for name, delta in deltas.items():
        if not (np.issubdtype(delta.dtype, np.floating) and np.isfinite(delta).all()):
            raise ValueError(f"delta.{name} holds what is no number")
    settings, report = (json.loads(notes[name]) for name in ("settings", "report"))
    if not (isinstance(settings, dict) and isinstance(report, dict)):
        raise ValueError("its settings or report are no such thing")
    return Portrait(
        source=replace(views[0], others=tuple(views[1:]), lends=notes["lends"]),
        shape=_numbers(tensors["shape"], len(tensors["shape"])),
        embedding=_numbers(tensors["embedding"], EMBEDDING_SIZE),
        base=Base.read(notes["base"]),
        deltas=_tensors(deltas),
        settings=settings,
        report=report,
    )


def _strangers(
    notes: Mapping[str, str], tensors: Mapping[str, NDArray], *, views: int
) -> list[tuple[Face, ...]]:
    """Other people's faces in each view."""
    of = json.loads(notes.get("strangers_of", "[]"))
    if not all(isinstance(k, int) and 0 <= k < views for k in of):
        raise ValueError("a face belongs to no view")
    points = _numbers(tensors["strangers"], len(of), POINTS, 3) if of else ()
    rest = np.zeros(BLENDSHAPE_COUNT, np.float32)
    faces = [(k, Face.of(each, rest, 1.0)) for k, each in zip(of, points, strict=True)]
    return [tuple(face for owner, face in faces if owner == k) for k in range(views)]


def _tensors(deltas: Mapping[str, NDArray]) -> dict[str, Tensor]:
    if not deltas:
        return {}
    import torch  # noqa: PLC0415  as above

    return {name: torch.tensor(values) for name, values in deltas.items()}


def _numbers(values: NDArray, *shape: int) -> NDArray[np.float32]:
    if values.shape != shape or values.dtype != np.float32 or not np.isfinite(values).all():
        raise ValueError("its parts don't fit together")
    return values
