"""The renderer of one person, learnt from another renderer's pictures, see `networks.student`."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

import numpy as np
import torch
from torch import Tensor

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.face.source import Source
from metaportrait_cli.networks.compact_blocks import channels_last, shrink
from metaportrait_cli.networks.student import Student, Trunk
from metaportrait_cli.networks.swift.function import SwiftFunction
from metaportrait_cli.pixels import as_pictures, as_tensor
from metaportrait_cli.render.opening import Opening, Rendering
from metaportrait_cli.render.protocol import Driven, Rendered, Session
from metaportrait_cli.weights.store import load_network

PART: Final = "student"
COMPARED: Final = 64
"""Side at which a source is compared with the picture that the student knows"""
OTHER: Final = 0.06
"""Mean difference of RGB in [0, 1] from which on it is another picture. JPEG and what a training
changes are below .01; two people's crops, .15 and more"""
AT_ONCE: Final = 4


def from_file(opening: Opening) -> Rendering:
    """Reads a file made by `distill`. Raises `WeightsError`."""
    network = load_network(Student, opening.path, part=PART).float()
    return Rendering(
        StudentRenderer(network, name=str(opening.path), device=opening.device, dtype=opening.dtype)
    )


class StudentRenderer:
    """A student, ready to paint the person it knows, and nobody else."""

    keeps_detail = True

    def __init__(self, network: Student, *, name: str, device: str, dtype: torch.dtype) -> None:
        self._network = channels_last(network.to(device, dtype))
        self._pictures = network.pictures_at(network.config.size)
        self._trunk = swift_trunk(network, device=device, dtype=dtype)
        self._name = name
        self._device = device

    @property
    def fixed_size(self) -> int:
        """Side of its pictures."""
        return self._network.config.size

    @torch.inference_mode()
    def open(self, source: Source, *, size: int, rate: Fraction | None = None) -> StudentSession:
        """Raises `WeightsError` for any source but the picture it was taught with."""
        del rate
        shown = as_tensor(source.crop.cut(source.picture, self.fixed_size)[None], self._device)
        apart = shrink(self._pictures[:1].float() - shown, COMPARED).abs().mean()
        if apart > OTHER:
            raise WeightsError(
                f"{self._name}: knows one picture of one person, and {source.path} is not it;"
                " animate it with `portrait` alone, or teach another: metaportrait distill"
            )
        return StudentSession(self._network, self._pictures, self._trunk, size=size)


class StudentSession(Session):
    """The one person."""

    def __init__(self, network: Student, pictures: Tensor, trunk: Trunk, *, size: int) -> None:
        self._network = network
        self._pictures = pictures
        self._trunk = trunk
        self._size = size

    @torch.inference_mode()
    def render(self, driven: Driven) -> Rendered:
        """Pictures (T, S, S, 3) at the student's own size."""
        points = torch.from_numpy(driven.landmarks / np.float32(self._size)).to(self._pictures)
        painted = [
            as_pictures(self._network(part, self._pictures, trunk=self._trunk))
            for part in points.split(AT_ONCE)
        ]
        return Rendered(np.concatenate(painted))


def swift_trunk(network: Student, *, device: str, dtype: torch.dtype) -> Trunk:
    """The student's convolutions as they are fastest there."""
    run = SwiftFunction(lambda: lambda *given: (network.trunk(*given),))

    def trunk(coarse: Tensor, h: Tensor) -> Tensor:
        with torch.inference_mode(False):  # in which nothing can be recorded
            (found,) = run(coarse.numpy(), h.numpy())
        return torch.from_numpy(found)

    return trunk if device == "cpu" and dtype == torch.float32 else network.trunk
