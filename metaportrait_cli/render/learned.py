"""The compact model as a renderer: pictures at 256², detail from the source at full size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaportrait_cli.face.conditions import GRID, Condition, Conditioner
from metaportrait_cli.face.crop import border_fade
from metaportrait_cli.face.identity import embed
from metaportrait_cli.face.source import Source
from metaportrait_cli.networks.compact import (
    CompactModel,
    Driving,
    Motion,
    Picture,
    SourceFeatures,
)
from metaportrait_cli.networks.compact_blocks import channels_last, enlarge, shrink, warp
from metaportrait_cli.networks.identity import IdentityNetwork
from metaportrait_cli.render.protocol import Frames
from metaportrait_cli.render.warped import WarpRenderer
from metaportrait_cli.weights import bundled_path
from metaportrait_cli.weights.store import load_network, read_header

PART = "compact"
IDENTITY_NOTE = "identity"
"""Metadata of weights that were trained with identity embeddings: "1"."""
FRAMES_AT_ONCE = 8
"""Frames in one pass of the network: more doesn't make a CPU faster, only fuller."""


class LearnedRenderer:
    """Renders with the compact model, in the precision `dtype` (float32 or bfloat16).

    `identity` gives the embedding that modulates it; without one it is zero, for models that were
    trained so.
    """

    def __init__(
        self,
        model: CompactModel,
        *,
        identity: IdentityNetwork | None = None,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._device = torch.device(device)
        self._identity = identity
        model = model.eval().requires_grad_(False).to(self._device, dtype)
        self._model = channels_last(model)

    @classmethod
    def load(cls, weights: Path, *, device: str, dtype: torch.dtype) -> LearnedRenderer:
        """Reads weights made by `train base`. Raises `WeightsError`."""
        model = load_network(CompactModel, weights, part=PART)
        with_identity = read_header(weights).notes.get(IDENTITY_NOTE) == "1"
        identity = None
        if with_identity:
            identity = load_network(
                IdentityNetwork, bundled_path("identity"), part="identity"
            ).float()
        return cls(model, identity=identity, device=device, dtype=dtype)

    keeps_detail = True
    """See `at_full_size`."""

    @property
    def fixed_size(self) -> int:
        """Side of the pictures that the network itself makes."""
        return self._model.config.image_size

    @torch.inference_mode()
    def open(self, source: Source, *, size: int) -> LearnedSession:
        """Encodes the source; pictures will be `size` × `size`."""
        side = self._model.config.image_size
        height, width = source.picture.shape[:2]
        fade = border_fade(
            source.crop,
            width=width,
            height=height,
            size=GRID,
            share=WarpRenderer.FADE_SHARE,
        )
        landmarks = source.landmarks(side)
        conditioner = Conditioner(landmarks, side=side, fade=fade)
        crop = source.crop.cut(source.picture, side)
        lines = shrink(_planes(conditioner.source_lines, self._device), side // 2)
        image = _planes(crop, self._device)
        return LearnedSession(
            model=self._model,
            conditioner=conditioner,
            features=self._model.encode(image, lines, self._embedding(crop, landmarks)),
            full=_planes(source.crop.cut(source.picture, size), self._device),
        )

    def _embedding(self, crop: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> Tensor:
        if self._identity is None:
            return torch.zeros(1, self._model.config.identity_dim, device=self._device)
        return embed(self._identity, crop[None], landmarks[None]).to(self._device)


@dataclass(frozen=True)
class Moved:
    """Rendered frames and, where they show the source moved, from where in its crop."""

    image: Tensor
    """(T, 3, S, S) in [0, 1]"""
    flow: Tensor | None = None
    """(T, 2, G, G), backward, see `compact_blocks.warp`"""
    valid: Tensor | None = None
    """(T, 1, S, S) in [0, 1]: how far a pixel is the source's own, neither hidden nor painted"""

    def frames(self) -> Iterator[Moved]:
        """One by one."""
        if self.flow is None or self.valid is None:
            return (Moved(image) for image in self.image.split(1))
        return map(Moved, self.image.split(1), self.flow.split(1), self.valid.split(1))


class LearnedSession:
    """One encoded source. `full` (1, 3, S, S) is the crop at the output's size."""

    def __init__(
        self,
        *,
        model: CompactModel,
        conditioner: Conditioner,
        features: SourceFeatures,
        full: Tensor,
    ) -> None:
        self._model = model
        self._conditioner = conditioner
        self._features = features
        self._full = full

    @torch.inference_mode()
    def render(self, driven: NDArray[np.float32]) -> Frames:
        """Pictures (T, S, S, 3) for driven landmarks (T, 478, 3) in pixels of the crop."""
        frames = []
        for picture, motion in self._passes(driven):
            # One by one: at full size a frame is many times what the network handles.
            for n in range(len(picture.image)):
                frames.append(_eight_bit(at_full_size(self._full, picture, motion, n)))
        return np.stack(frames)

    @torch.inference_mode()
    def render_moved(self, driven: NDArray[np.float32]) -> Moved:
        """The same at the network's own size, for super-resolution to go on from."""
        passes = list(self._passes(driven))
        size = self._model.config.image_size
        return Moved(
            image=torch.cat([picture.image for picture, _ in passes]).clamp(0, 1),
            flow=torch.cat([motion.flow for _, motion in passes]),
            valid=torch.cat(
                [enlarge(motion.visible, size) * (1 - picture.mask) for picture, motion in passes]
            ),
        )

    def _passes(self, driven: NDArray[np.float32]) -> Iterator[tuple[Picture, Motion]]:
        scale = np.float32(self._model.config.image_size / self._full.shape[-1])
        for start in range(0, len(driven), FRAMES_AT_ONCE):
            points = driven[start : start + FRAMES_AT_ONCE] * scale
            conditions = [self._conditioner(frame) for frame in points]
            grid = self._model.config.image_size // 2
            driving = stacked(conditions, grid=grid, device=self._full.device)
            yield self._model(self._features.repeated(len(points)), driving)


def at_full_size(full: Tensor, picture: Picture, motion: Motion, n: int) -> Tensor:
    """Frame `n` of the pictures at the size of the source crop `full` (1, 3, S, S): (3, S, S).

    Above the network's size, what it painted is enlarged; where it only copied, the detail it
    never saw comes from the full-size source along the same flow.
    """
    size = full.shape[-1]
    own = picture.image.shape[-1]
    image = picture.image[n : n + 1]
    if size <= own:
        if size == own:
            return image[0]
        return torch.nn.functional.interpolate(
            image, size=(size, size), mode="bilinear", align_corners=False, antialias=True
        )[0]
    sharp = warp(full, enlarge(motion.flow[n : n + 1], size))
    detail = sharp - enlarge(picture.warped[n : n + 1], size)
    return (enlarge(image, size) + (1 - enlarge(picture.mask[n : n + 1], size)) * detail)[0]


def stacked(conditions: list[Condition], *, grid: int, device: torch.device) -> Driving:
    """Conditions of several frames as the model takes them, on its grid."""
    return Driving(
        flow=shrink(torch.cat([_tensor(c.flow, device) for c in conditions]), grid),
        lines=shrink(torch.cat([_planes(c.lines, device) for c in conditions]), grid),
        gap=shrink(torch.cat([_planes(c.gap[..., None], device) for c in conditions]), grid),
    )


def _planes(image: NDArray[np.uint8], device: torch.device) -> Tensor:
    """(H, W, C) in [0, 255] → (1, C, H, W) in [0, 1]."""
    return _tensor(image, device).float() / 255


def _tensor(image: NDArray[np.generic], device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].to(device)


def _eight_bit(image: Tensor) -> NDArray[np.uint8]:
    """(3, S, S) in [0, 1] → (S, S, 3) in [0, 255]."""
    rounded = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    return rounded.permute(1, 2, 0).cpu().numpy()
