"""Few-shot talking heads: the face is painted from landmarks, in the style of all pictures.

Each picture of the source gives an embedding; their mean styles the generator, which sees nothing
of the pictures themselves. More of them make it a better likeness at no cost a frame.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.face.landmark_image import SCHEMAS, landmark_image
from metaportrait_cli.face.source import Source
from metaportrait_cli.networks.fewshot import Embedder, FewShotConfig, Generator
from metaportrait_cli.networks.layers import fold_for_inference
from metaportrait_cli.pixels import as_pictures, as_tensor
from metaportrait_cli.render.opening import Opening, Rendering
from metaportrait_cli.render.protocol import Driven, Rendered, Session
from metaportrait_cli.weights.store import load_network

AT_ONCE = 4
"""Frames: self-attention on the way up takes memory by the fourth power of the side"""


def from_file(opening: Opening) -> Rendering:
    """Reads weights made by `train fewshot`. Raises `WeightsError`."""
    path = opening.path
    embedder = load_network(Embedder, path, part="embedder").float()
    generator = load_network(Generator, path, part="generator").float()
    if embedder.config != generator.config:
        raise WeightsError(f"{path}: its embedder and its generator don't belong together")
    if generator.config.landmarks not in SCHEMAS:
        raise WeightsError(
            f"{path}: was trained on landmarks drawn as {generator.config.landmarks!r}; this"
            f" version draws {' and '.join(SCHEMAS)}; train it again"
        )
    known = dict(generator.named_parameters())
    for name, delta in opening.deltas.items():
        part, _, parameter = name.partition(".")
        own = known.get(parameter) if part == "generator" else None
        if own is None or own.shape != delta.shape:
            raise WeightsError(f"{path}: has no {name} of the shape that the portrait adapts")
        own.data += delta.float()
    renderer = FewShotRenderer(
        embedder, generator, file=path, device=opening.device, dtype=opening.dtype
    )
    return Rendering(renderer, styled=renderer)


class FewShotRenderer:
    """The two networks, ready to paint."""

    keeps_detail = False

    def __init__(
        self,
        embedder: Embedder,
        generator: Generator,
        *,
        file: Path,
        device: str,
        dtype: torch.dtype,
    ) -> None:
        self.file = file
        for network in (embedder, generator):
            fold_for_inference(network)
            network.to(device, dtype)
        self._embedder = embedder
        self._generator = generator
        self.device = torch.device(device)
        self._dtype = dtype

    @property
    def config(self) -> FewShotConfig:
        """Of both networks."""
        return self._generator.config

    @property
    def fixed_size(self) -> int:
        """Side of the pictures that the generator paints."""
        return self.config.size

    @torch.inference_mode()
    def open(self, source: Source, *, size: int, rate: Fraction | None = None) -> FewShotSession:
        """Embeds all pictures of the source, whatever they are said to lend."""
        del rate
        style = self._generator.style(self.embedding(source).to(self._dtype))
        return FewShotSession(self, style, size=size)

    def with_generator(self, generator: Generator) -> FewShotRenderer:
        """The same embedder with another generator, which is folded."""
        return FewShotRenderer(
            self._embedder, generator, file=self.file, device=str(self.device), dtype=self._dtype
        )

    @torch.inference_mode()
    def embedding(self, source: Source) -> Tensor:
        """(1, N), the mean over all pictures of the source."""
        side = self.fixed_size
        views = (source, *source.others)
        # In float32: the style is made once, and all frames hang on it.
        each = [
            self._embedder(
                self.planes([view.crop.cut(view.picture, side)]),
                self.drawn(view.landmarks(side)[None], size=side),
            ).float()
            for view in views
        ]
        return torch.stack(each).mean(dim=0)

    def paint(self, landmarks: Tensor, style: Tensor) -> Tensor:
        """Pictures (B, 3, S, S) in [0, 1] of landmark images, in a style (1, A)."""
        image = self._generator.painted(landmarks, style.expand(len(landmarks), -1))
        return (image.float() + 1) / 2

    def drawn(self, points: NDArray[np.float32], *, size: int) -> Tensor:
        """Landmark images (B, 3, S, S) of points (B, 478, 3) in pixels of a crop of `size`."""
        side, schema = self.fixed_size, self.config.landmarks
        return self.planes(
            landmark_image(each, side=size, size=side, schema=schema) for each in points
        )

    def planes(self, pictures: Iterable[NDArray[np.uint8]]) -> Tensor:
        """Pictures (S, S, 3) as the networks take them, (B, 3, S, S) in [-1, 1]."""
        return (as_tensor(np.stack(list(pictures)), self.device) * 2 - 1).to(self._dtype)


class FewShotSession(Session):
    """One person's style."""

    def __init__(self, renderer: FewShotRenderer, style: Tensor, *, size: int) -> None:
        self._renderer = renderer
        self._style = style
        self._size = size

    @torch.inference_mode()
    def render(self, driven: Driven) -> Rendered:
        """Pictures (T, S, S, 3) at the generator's own size."""
        painted = [
            as_pictures(
                self._renderer.paint(self._renderer.drawn(points, size=self._size), self._style)
            )
            for start in range(0, len(driven), AT_ONCE)
            for points in [driven.landmarks[start : start + AT_ONCE]]
        ]
        return Rendered(np.concatenate(painted))
