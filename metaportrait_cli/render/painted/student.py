"""The renderer of one person or a few, learnt from another renderer's pictures of them, see
`networks.student`."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.face.source import Source
from metaportrait_cli.networks.swift.function import Function, Running
from metaportrait_cli.render.opening import Opening, Rendering
from metaportrait_cli.render.painted.moving import PART, SwiftStudent, part_of
from metaportrait_cli.render.protocol import Driven, Frames, Rendered, Session
from metaportrait_cli.stages import Once
from metaportrait_cli.weights.shelf import WeightsShelf
from metaportrait_cli.weights.tensors import opened, read_header

if TYPE_CHECKING:
    from torch import Tensor

    from metaportrait_cli.networks.student import Student

COMPARED: Final = 64
"""Side at which a source is compared with the picture that the student knows"""
OTHER: Final = 15.0
"""Mean difference of RGB in grey levels from which on it is another picture. JPEG and what a
training changes are below 3; two people's crops, 38 and more"""
AT_ONCE: Final = 4


def from_file(opening: Opening) -> Rendering:
    """Reads a file made by `distill`. Raises `WeightsError`."""
    running = Running(opening.device, opening.precision, WeightsShelf(opening.path))
    shapes = read_header(opening.path).shapes
    count = 1 + sum(f"{part_of(number)}.pictures" in shapes for number in range(1, len(shapes)))
    painters = [_painter(opening.path, number, running) for number in range(count)]
    return Rendering(StudentRenderer(painters, path=opening.path), knows_its_people=True)


def _painter(path: Path, number: int, running: Running) -> Painter:
    """The student of one person of the file."""
    network = Once(partial(load_student, path, number))
    if not running.swift:
        return TorchStudent(network(), running)
    swift = SwiftStudent(path, running, partial(still, network), part=part_of(number))
    if not swift.is_known:  # what is wrong with it is told now
        network()
    return swift


class Painter(Protocol):
    """A student ready to paint."""

    @property
    def own(self) -> NDArray[np.uint8]:
        """The person's own picture (S, S, 3)."""
        ...

    def __call__(self, landmarks: NDArray[np.float32]) -> Frames:
        """Pictures (T, S, S, 3) of landmarks (T, 478, 3) in sides of the crop."""
        ...


class StudentRenderer:
    """A student of those it knows, and nobody else."""

    keeps_detail = True

    def __init__(self, painters: Sequence[Painter], *, path: Path) -> None:
        self._painters = painters
        self.path = path

    @property
    def fixed_size(self) -> int:
        """Side of its pictures."""
        return len(self._painters[0].own)

    def open(self, source: Source, *, size: int, rate: Fraction | None = None) -> StudentSession:
        """Raises `WeightsError` for any source but a picture it was taught with."""
        del rate
        shown = _small(source.crop.cut(source.picture, self.fixed_size))
        apart = [np.abs(_small(painter.own) - shown).mean() for painter in self._painters]
        nearest = int(np.argmin(apart))
        if apart[nearest] > OTHER:
            count = len(self._painters)
            known = "one picture of one person" if count == 1 else f"{count} people, a picture each"
            raise WeightsError(
                f"{self.path}: knows {known}, and {source.path} is not it;"
                " animate it with `portrait` alone, or teach another: metaportrait distill"
            )
        return StudentSession(self._painters[nearest], size=size)


def _small(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The picture as it is compared."""
    resized = cv2.resize(picture, (COMPARED, COMPARED), interpolation=cv2.INTER_AREA)
    return np.asarray(resized, np.float64)


class StudentSession(Session):
    """The one person."""

    def __init__(self, painter: Painter, *, size: int) -> None:
        self._painter = painter
        self._size = size

    def render(self, driven: Driven) -> Rendered:
        """Pictures (T, S, S, 3) at the student's own size."""
        points = driven.landmarks / np.float32(self._size)
        starts = range(0, len(points), AT_ONCE)
        return Rendered(np.concatenate([self._painter(points[n : n + AT_ONCE]) for n in starts]))


class TorchStudent:
    """The network as it is, for other devices and precisions."""

    def __init__(self, network: Student, running: Running) -> None:
        self._network = running.placed(network)
        self._pictures = network.pictures_at(network.config.size)

    @property
    def own(self) -> NDArray[np.uint8]:
        """See `Painter`."""
        return self._network.pictures[0].permute(1, 2, 0).cpu().numpy()

    def __call__(self, landmarks: NDArray[np.float32]) -> Frames:
        """See `Painter`."""
        import torch  # noqa: PLC0415  it is seldom needed, and takes seconds

        from metaportrait_cli.pixels import as_pictures  # noqa: PLC0415

        with torch.inference_mode():
            points = torch.from_numpy(landmarks).to(self._pictures)
            return as_pictures(self._network(points, self._pictures))


def still(network: Once[Student]) -> Function:
    """The student's maps and paint of a head that stands still, see `moving.observed`."""
    import torch  # noqa: PLC0415  as above

    from metaportrait_cli.networks.student import HEAD_WEIGHT  # noqa: PLC0415

    def found(places: Tensor, depths: Tensor, pose: Tensor) -> tuple[Tensor, Tensor]:
        return network().still(torch.cat([places, depths, HEAD_WEIGHT * pose], dim=1))

    return found


def load_student(path: Path, number: int = 0) -> Student:
    """The network of one person of the file. Raises `WeightsError`."""
    from metaportrait_cli.networks.student import OF_ONE, Student  # noqa: PLC0415  torch
    from metaportrait_cli.weights.store import assign, load_network  # noqa: PLC0415

    network = load_network(Student, path, part=PART)
    if number:
        part = part_of(number)
        shared = {name: v for name, v in network.state_dict().items() if name not in OF_ONE}
        with opened(path) as file:
            keys = {f"{part}.{name}": name for name in OF_ONE}
            own = {keys[key]: file.get_tensor(key) for key in file.keys() if key in keys}  # noqa: SIM118
        network = assign(network, {**shared, **own}, where=f"{path} ({part})")
    return network.float().requires_grad_(False)
