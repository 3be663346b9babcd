"""MegaPortraits behind the seam: the source as a volume, turned and moved as the driver's face.

Pose comes from driven landmarks, so that whatever moves these turns the head; expressions are read
from the driver's own pictures. Where there are none, the face keeps the source's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.face import topology
from metaportrait_cli.face.matte import Segmenter, Silhouette, matte
from metaportrait_cli.face.source import Source
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.networks.mega.base import Appearance, BaseModel
from metaportrait_cli.networks.mega.blocks import fold
from metaportrait_cli.networks.mega.enhancer import MegaEnhancer
from metaportrait_cli.pixels import as_pictures, as_tensor
from metaportrait_cli.render.behind.plate import background
from metaportrait_cli.render.mega.pose import aligned_face, head_matrices
from metaportrait_cli.render.opening import Opening, Rendering
from metaportrait_cli.render.protocol import Driven, DriverLooks, Rendered, Session
from metaportrait_cli.weights import bundled_path
from metaportrait_cli.weights.store import load_network, read_header

BASE, ENHANCER = "base", "enhancer"
SEGMENTER = "selfie_segmenter"
AT_ONCE = 2
"""Frames: a volume takes 25 MB each, and its features several times as much"""


def from_file(opening: Opening) -> Rendering:
    """Reads weights made by `train mega` or `train mega-hr`. Raises `WeightsError`."""
    path = opening.path
    base = load_network(BaseModel, path, part=BASE).float()
    enhancer = None
    if ENHANCER in read_header(path).configs:
        enhancer = load_network(MegaEnhancer, path, part=ENHANCER).float()
        if enhancer.config.size != base.config.size:
            raise WeightsError(f"{path}: its base and its enhancer don't belong together")
    renderer = MegaRenderer(
        base,
        enhancer,
        silhouette=Segmenter(bundled_path(SEGMENTER)),
        on_notice=opening.on_notice,
        device=opening.device,
        dtype=opening.dtype,
    )
    return Rendering(renderer, reads_driver=True)


@dataclass(frozen=True)
class View:
    """A picture of the source as the networks take it, at the base model's size."""

    picture: NDArray[np.uint8]
    """(S, S, 3)"""
    alpha: NDArray[np.float32]
    """(S, S), the person's share"""
    points: NDArray[np.float32]
    """(478, 3)"""


class MegaRenderer:
    """The networks, ready to paint."""

    keeps_detail = False

    def __init__(
        self,
        base: BaseModel,
        enhancer: MegaEnhancer | None,
        *,
        silhouette: Silhouette,
        on_notice: Callable[[str], None],
        device: str,
        dtype: torch.dtype,
    ) -> None:
        for network in (base, enhancer):
            if network is not None:
                fold(network)
                network.to(device, dtype)
        self._base = base
        self._enhancer = enhancer
        self._silhouette = silhouette
        self._on_notice = on_notice
        self._device = device
        self._dtype = dtype
        self._model = MorphableModel.bundled()

    @property
    def fixed_size(self) -> int:
        """Side of the pictures that are painted."""
        return self._base.config.size * (1 if self._enhancer is None else 2)

    @torch.inference_mode()
    def open(self, source: Source, *, size: int, rate: Fraction | None = None) -> MegaSession:
        """Brings all pictures of the source into canonical space, where their mean is taken."""
        del rate
        views = [self._view(each) for each in (source, *source.others)]
        seen, expressions = [], []
        for view in views:
            picture = self.tensor((view.picture * view.alpha[..., None])[None])
            head = self.heads(view.points[None], side=self._base.config.size)
            z = self._base.expression(picture, head)
            seen.append(self._base.appearance(picture, head, z))
            expressions.append(z)
        appearance = Appearance(
            canonical=torch.stack([each.canonical for each in seen]).mean(dim=0),
            e=torch.stack([each.e for each in seen]).mean(dim=0),
        )
        return MegaSession(self, appearance, expressions[0], plate=self._plate(views[0]), size=size)

    def expressions(self, seen: DriverLooks) -> Tensor:
        """z (T, N) of a driver's pictures."""
        heads = head_matrices(seen.landmarks, side=seen.pictures.shape[1], model=self._model)
        size = self._base.config.look
        looks = [
            aligned_face(picture, head, size=size)
            for picture, head in zip(seen.pictures, heads, strict=True)
        ]
        return self._base.expression_encoder(self.tensor(np.stack(looks)))

    def paint(self, seen: Appearance, head: Tensor, z: Tensor) -> Tensor:
        """Colours and matte (B, 4, S, S) in [0, 1]."""
        count = len(z)
        each = Appearance(
            canonical=seen.canonical.expand(count, *seen.canonical.shape[1:]),
            e=seen.e.expand(count, *seen.e.shape[1:]),
        )
        image = self._base.drive(each, head, z)
        return image if self._enhancer is None else self._enhancer(image)

    def heads(self, points: NDArray[np.float32], *, side: int) -> Tensor:
        """(T, 4, 4) of landmarks (T, 478, 3) in pixels of a crop of `side`."""
        found = head_matrices(points, side=side, model=self._model)
        return torch.from_numpy(found).to(self._device)

    def tensor(self, pictures: NDArray[np.generic]) -> Tensor:
        """Pictures (B, S, S, 3) in [0, 255] as the networks take them."""
        whole = np.rint(pictures.astype(np.float32)).astype(np.uint8)
        return as_tensor(whole, self._device).to(self._dtype)

    def _view(self, source: Source) -> View:
        side = self._base.config.size
        picture, points = source.crop.cut(source.picture, side), source.landmarks(side)
        alpha = matte(picture, points, self._silhouette)
        if alpha is None:
            self._on_notice(
                f"{source.path.name}: the person can't be told from the background, which will"
                " move with them"
            )
            alpha = np.ones((side, side), np.float32)
        return View(picture, alpha, points)

    def _plate(self, view: View) -> NDArray[np.uint8]:
        """The background at the painted size, (S, S, 3) in [0, 255]."""
        oval = view.points[topology.ring("face_oval"), 0]
        plate = background(view.picture, view.alpha, width=float(np.ptp(oval)))
        size = self.fixed_size
        return np.asarray(cv2.resize(plate, (size, size), interpolation=cv2.INTER_CUBIC), np.uint8)


class MegaSession(Session):
    """One person, in canonical space."""

    def __init__(
        self,
        renderer: MegaRenderer,
        appearance: Appearance,
        z: Tensor,
        *,
        plate: NDArray[np.uint8],
        size: int,
    ) -> None:
        self._renderer = renderer
        self._appearance = appearance
        self._z = z
        self._plate = as_tensor(plate[None])
        self._size = size

    @torch.inference_mode()
    def render(self, driven: Driven) -> Rendered:
        """Pictures (T, S, S, 3) at the networks' own size."""
        painted = [
            self._render(driven.at(slice(start, start + AT_ONCE)))
            for start in range(0, len(driven), AT_ONCE)
        ]
        return Rendered(np.concatenate(painted))

    def _render(self, driven: Driven) -> NDArray[np.uint8]:
        renderer = self._renderer
        head = renderer.heads(driven.landmarks, side=self._size)
        z = self._z.expand(len(driven), -1)
        if driven.seen is not None:
            z = renderer.expressions(driven.seen)
        image = renderer.paint(self._appearance, head, z).float().cpu()
        colours, alpha = image.split([3, 1], dim=1)
        return as_pictures(colours * alpha + self._plate * (1 - alpha))
