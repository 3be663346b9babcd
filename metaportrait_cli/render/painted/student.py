"""The renderer of one person, learnt from another renderer's pictures, see `networks.student`."""

from __future__ import annotations

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
from metaportrait_cli.render.painted.moving import PART, SwiftStudent
from metaportrait_cli.render.protocol import Driven, Frames, Rendered, Session
from metaportrait_cli.stages import Once
from metaportrait_cli.weights.shelf import WeightsShelf

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
    network = Once(partial(_network, opening.path))
    painter: Painter
    if running.swift:
        painter = swift = SwiftStudent(opening.path, running, partial(still, network))
        if not swift.is_known:  # what is wrong with it is told now
            network()
    else:
        painter = TorchStudent(network(), running)
    return Rendering(StudentRenderer(painter, name=str(opening.path)))


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
    """A student of the person it knows, and nobody else."""

    keeps_detail = True

    def __init__(self, painter: Painter, *, name: str) -> None:
        self._painter = painter
        self._name = name

    @property
    def fixed_size(self) -> int:
        """Side of its pictures."""
        return len(self._painter.own)

    def open(self, source: Source, *, size: int, rate: Fraction | None = None) -> StudentSession:
        """Raises `WeightsError` for any source but the picture it was taught with."""
        del rate
        shown = source.crop.cut(source.picture, self.fixed_size)
        ours, theirs = (
            cv2.resize(picture, (COMPARED, COMPARED), interpolation=cv2.INTER_AREA).astype(float)
            for picture in (self._painter.own, shown)
        )
        if np.abs(ours - theirs).mean() > OTHER:
            raise WeightsError(
                f"{self._name}: knows one picture of one person, and {source.path} is not it;"
                " animate it with `portrait` alone, or teach another: metaportrait distill"
            )
        return StudentSession(self._painter, size=size)


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


def _network(path: Path) -> Student:
    from metaportrait_cli.networks.student import Student  # noqa: PLC0415  torch
    from metaportrait_cli.weights.store import load_network  # noqa: PLC0415

    return load_network(Student, path, part=PART).float().requires_grad_(False)
