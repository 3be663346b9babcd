"""The released networks behind the renderer's protocol, driven by our landmarks.

Experimental: the released weights were trained on another detector's 669 landmarks, which ours are
bridged to, and on a face descriptor that was never published, which is fitted to the source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction

import numpy as np

from metaportrait_cli.face.source import Source
from metaportrait_cli.progress import Progress
from metaportrait_cli.render.opening import Opening, Rendering
from metaportrait_cli.render.protocol import Driven, Frames, Rendered, Session
from metaportrait_cli.render.released.networks import (
    EncodedSource,
    ReleasedRenderer,
    TemporalEnhancer,
    has_super_resolution,
)
from metaportrait_cli.render.views import blended


def from_file(opening: Opening) -> Rendering:
    """The networks of a converted file; the enhancer if it holds super-resolution too."""
    path, device, dtype = opening.path, opening.device, opening.dtype
    base = ReleasedRenderer.load(path, device=device, dtype=dtype)
    enhancer = None
    if has_super_resolution(path):
        enhancer = ReleasedEnhancer(TemporalEnhancer.load(path, device=device, dtype=dtype))
    portrait = ReleasedPortrait(base, on_notice=opening.on_notice, on_progress=opening.on_progress)
    return Rendering(portrait, enhancer)


class ReleasedPortrait:
    """Warp and refinement at the networks' own 256²."""

    def __init__(
        self,
        base: ReleasedRenderer,
        *,
        on_notice: Callable[[str], None],
        on_progress: Progress,
    ) -> None:
        self._base = base
        self._on_notice = on_notice
        self._on_progress = on_progress

    keeps_detail = False

    @property
    def fixed_size(self) -> int:
        """Side of the pictures that the networks make."""
        return self._base.size

    def open(self, source: Source, *, size: int, rate: Fraction | None = None) -> Session:
        """Encodes the crops and fits their identity; `size` is the unit of the driven landmarks."""
        return blended(self._open_one, source, size=size, rate=rate)

    def _open_one(self, source: Source, *, size: int) -> ReleasedSession:
        own = self._base.size
        encoded = self._base.encode(
            source.crop.cut(source.picture, own),
            source.landmarks(1),
            on_notice=self._on_notice,
            on_progress=self._on_progress,
        )
        return ReleasedSession(self._base, encoded, size=size)


class ReleasedSession(Session):
    """One encoded source."""

    def __init__(self, base: ReleasedRenderer, encoded: EncodedSource, *, size: int) -> None:
        self._base = base
        self._encoded = encoded
        self._size = size

    def render(self, driven: Driven) -> Rendered:
        """Pictures (T, 256, 256, 3)."""
        landmarks = driven.landmarks / np.float32(self._size)
        return Rendered(self._base.render(self._encoded, landmarks))


class ReleasedEnhancer:
    """Temporal super-resolution 256² → 512², the whole clip as one window."""

    reach = None

    def __init__(self, network: TemporalEnhancer) -> None:
        self._network = network

    def enhance(self, windows: Iterable[Frames]) -> Iterator[Frames]:
        """Windows (T, 256, 256, 3) → single frames (1, 512, 512, 3) in the same order."""
        frames = (frame for window in windows for frame in window)
        for frame in self._network.enhance(frames):
            yield frame[None]
