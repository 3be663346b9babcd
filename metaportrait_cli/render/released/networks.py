"""Runs the paper's released networks: warp, refine, and temporal super-resolution.

``encode`` does all that depends on the source alone; ``render`` paints driving frames. Pictures
are (256, 256, 3) RGB uint8; landmarks are in units of the crop's side, origin at its top left:
(669, 2) of the authors' layout, or (478, 3) of MediaPipe's through the experimental bridge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaportrait_cli.networks.refinement import RefinementNetwork, SourceState
from metaportrait_cli.networks.temporal_sr import TemporalSR
from metaportrait_cli.networks.warping import WarpingNetwork
from metaportrait_cli.pixels import as_pictures, as_tensor
from metaportrait_cli.progress import Progress
from metaportrait_cli.render.released.bridge669 import to_669
from metaportrait_cli.render.released.folder import read_frames, read_source
from metaportrait_cli.render.released.maps import gaze_points, mouth_mask
from metaportrait_cli.render.released.rasterise import metaportrait669
from metaportrait_cli.weights.store import load_network, read_header

NO_IDENTITY_NETWORK = (
    "the network that describes a person to the released weights was never published; "
    "a description is fitted to the source instead, so the likeness may suffer"
)
FIT_STEPS = 24
FIT_RATE = 0.1

Frames = NDArray[np.uint8]
Landmarks = NDArray[np.float32]
Notice = Callable[[str], None]


@dataclass(frozen=True)
class EncodedSource:
    """One person, ready to be driven."""

    picture: Tensor
    """(1, 3, 256, 256) in [0, 1]"""
    state: SourceState


@dataclass(frozen=True)
class _Driving:
    line: Tensor
    """(1, 3, 256, 256) in [0, 1]"""
    mouth: Tensor
    """(1, 1, 256, 256), 0 or 1"""
    gaze: Tensor
    """(1, 8, 2) in [-1, 1]"""


class ReleasedRenderer:
    """The base model: warping and refinement at 256²."""

    def __init__(self, warping: WarpingNetwork, refinement: RefinementNetwork) -> None:
        """Networks are taken as they are: fold them first."""
        self._warping = warping
        self._refinement = refinement

    @classmethod
    def load(cls, path: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Self:
        """From a converted file. ``dtype`` is that of the heavy parts; bfloat16 pays where the
        processor computes in it."""
        return cls(
            load_network(WarpingNetwork, path, part="warping", device=device).fold(dtype),
            load_network(RefinementNetwork, path, part="refinement", device=device).fold(dtype),
        )

    @property
    def size(self) -> int:
        return self._refinement.config.image_size

    @torch.inference_mode()
    def encode(
        self,
        picture: NDArray[np.uint8],
        landmarks: Landmarks,
        *,
        identity: NDArray[np.float32] | None = None,
        on_notice: Notice | None = None,
        on_progress: Progress | None = None,
    ) -> EncodedSource:
        """All source-only work. Without an identity vector (256,), one is fitted.

        Fitting takes minutes on a CPU: the vector is improved until the network, driven by the
        source's own landmarks, gives back the source.
        """
        image = self._to_tensor(picture)
        line = self._driving(landmarks).line
        config = self._refinement.config
        vector = (
            _start_identity(config.identity_dim).to(image)
            if identity is None
            else torch.from_numpy(identity).to(image).reshape(1, -1)
        )
        state = self._refinement.encode(source=image, source_line=line, identity=vector)
        encoded = EncodedSource(picture=image, state=state)
        if identity is not None:
            return encoded
        if on_notice:
            on_notice(NO_IDENTITY_NETWORK)
        fitted = self._fit_identity(encoded, landmarks, vector, on_progress)
        seed, styles = self._refinement.identify(fitted)
        return replace(encoded, state=replace(state, seed=seed, styles=styles))

    def render(self, source: EncodedSource, landmarks: Landmarks) -> Frames:
        """Landmarks (T, K, ·) -> pictures (T, 256, 256, 3)."""
        return np.stack([self._render_one(source, points) for points in landmarks])

    def render_folder(self, folder: Path) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        """The authors' preprocessed folder -> (name, picture (256, 256, 3)) per driving frame."""
        sources: dict[str, EncodedSource] = {}
        for frame in read_frames(folder):
            if frame.source not in sources:
                prepared = read_source(folder, frame.source)
                sources[frame.source] = self.encode(
                    prepared.picture, prepared.landmarks, identity=prepared.identity
                )
            yield frame.name, self._render_one(sources[frame.source], frame.landmarks)

    @torch.inference_mode()
    def _render_one(self, source: EncodedSource, points: Landmarks) -> NDArray[np.uint8]:
        driving = self._driving(points)
        motion = self._warping(
            source=source.picture, source_line=source.state.line, driving_line=driving.line
        )
        image = self._refinement(
            source.state,
            motion,
            driving_line=driving.line,
            mouth_mask=driving.mouth,
            gaze=driving.gaze,
        )
        # The authors cut fractions off here, and round after super-resolution.
        scaled = (image[0] * 255).clamp(0, 255).to(torch.uint8)
        return scaled.permute(1, 2, 0).cpu().numpy()

    def _fit_identity(
        self,
        source: EncodedSource,
        landmarks: Landmarks,
        start: Tensor,
        on_progress: Progress | None,
    ) -> Tensor:
        """The vector (1, 256) that lets the network reproduce the source from itself."""
        driving = self._driving(landmarks)
        motion = self._warping(
            source=source.picture, source_line=source.state.line, driving_line=driving.line
        )
        conditions = self._refinement.conditions(
            source.state,
            motion,
            driving_line=driving.line,
            mouth_mask=driving.mouth,
            gaze=driving.gaze,
        )
        best, least = start, float("inf")
        with torch.inference_mode(mode=False), torch.enable_grad():
            # Tensors of inference mode can't take part in a backward pass; copies can.
            fixed = [condition.clone() for condition in conditions]
            target = source.picture.clone()
            vector = start.clone().requires_grad_()
            optimiser = torch.optim.Adam([vector], lr=FIT_RATE)
            for step in range(FIT_STEPS):
                image = self._refinement.paint(*self._refinement.identify(vector), fixed)
                loss = (image - target).abs().mean()
                if loss.item() < least:
                    best, least = vector.detach().clone(), loss.item()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                if on_progress:
                    on_progress("identity", step + 1, FIT_STEPS)
        return best

    def _driving(self, points: Landmarks) -> _Driving:
        layout = to_669(points) if points.shape == (478, 3) else points
        mask = mouth_mask(layout, self.size)
        return _Driving(
            line=self._to_tensor(metaportrait669().draw(layout, self.size)),
            mouth=torch.from_numpy(mask).to(self._device, torch.float32)[None, None],
            gaze=torch.from_numpy(gaze_points(layout)).to(self._device)[None],
        )

    def _to_tensor(self, picture: NDArray[np.uint8]) -> Tensor:
        """(H, W, 3) -> (1, 3, H, W) in [0, 1]."""
        if picture.shape != (self.size, self.size, 3):
            raise ValueError(f"expected a picture of {self.size}², not {picture.shape}")
        return as_tensor(picture[None], self._device)

    @property
    def _device(self) -> torch.device:
        return self._warping.flow_head.scale.device


class TemporalEnhancer:
    """Temporal super-resolution of a stream: 256² -> 512², frame for frame."""

    def __init__(self, network: TemporalSR, *, window: int | None = None) -> None:
        """``window``: independent segments of so many frames, as the released tool has; without,
        the clip is one window, which costs the same and has no seams."""
        self._network = network
        self._window = window

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        window: int | None = None,
    ) -> Self:
        network = load_network(TemporalSR, path, part="temporal_sr", device=device)
        return cls(network.fold(dtype), window=window)

    def enhance(self, frames: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        """(256, 256, 3) -> (512, 512, 3); lags behind its input by some frames, loses none."""
        device = self._network.to_latents.weight.device

        def tensors() -> Iterator[Tensor]:
            for frame in frames:
                yield as_tensor(frame[None], device)[0]

        enhanced = self._network.stream(tensors(), window=self._window)
        while True:
            # The mode must not leak into the consumer, which runs between two frames.
            with torch.inference_mode():
                image = next(enhanced, None)
            if image is None:
                return
            yield as_pictures(image[None])[0]


def _start_identity(length: int) -> Tensor:
    """Where fitting starts, always the same, (1, length).

    Not at zero: there the decoder's first feature map is flat, and normalising it has no useful
    gradient.
    """
    return torch.randn(1, length, generator=torch.Generator().manual_seed(0))


def has_super_resolution(path: Path) -> bool:
    """Whether a converted file holds the temporal super-resolution too."""
    return "temporal_sr" in read_header(path).configs
