"""When `animate` renders smaller than is wanted: our temporal super-resolution after the renderer.

A renderer that moves the source's own pixels needs none where the source has enough of them. A
network that paints at a fixed size does; where it also tells its flow, the source's pixels, moved
along it, show ours what the details are.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.face.source import Source
from metaportrait_cli.networks.compact_blocks import enlarge, warp
from metaportrait_cli.networks.compact_sr import CompactSR, Reference
from metaportrait_cli.render.learned import LearnedSession, Moved
from metaportrait_cli.render.named import Rendering
from metaportrait_cli.render.protocol import Frames, Session
from metaportrait_cli.render.super_resolution import PART, CompactFaces, eight_bit, load_compact

AFFORDABLE_SECONDS = 0.25
"""For a frame, on a CPU, unless a size was asked for."""


def super_resolved(
    rendering: Rendering,
    *,
    own: int,
    doublings: int,
    asked: bool,
    device: str,
    precision: str,
    on_notice: Callable[[str], None],
) -> Rendering | None:
    """Our super-resolution after a renderer that gives pictures of side `own`; or `None`.

    None where its weights aren't there, or where it would be slow and nobody `asked` for it; what
    was chosen, and why, is said. Raises `UsageError` for a device that isn't there.
    """
    try:
        faces, digests = load_compact(PART, device=device, precision=precision)
    except WeightsError as error:
        on_notice(f"enlarged without super-resolution: {error}")
        return None
    enhancer = PortraitEnhancer(faces, doublings=doublings, own=own)
    if not asked and faces.device.type == "cpu":
        seconds = enhancer.seconds_per_frame()
        if seconds > AFFORDABLE_SECONDS:
            on_notice(
                f"enlarged without super-resolution, which would take {seconds:.1f} s a frame on"
                f" this processor; --size {own << doublings} asks for it"
            )
            return None
    on_notice(f"super-resolution: {own} to {own << doublings} pixels")
    return Rendering(rendering.renderer, enhancer, {**rendering.weights, **digests})


class PortraitEnhancer:
    """Doubles the rendered pictures once or twice, with the source for reference where it moved."""

    def __init__(self, faces: CompactFaces, *, doublings: int, own: int) -> None:
        self._network: CompactSR = faces.network
        self._device = faces.device
        self._pixels_at_once = faces.pixels_at_once
        self._doublings = doublings
        self._own = own

    def window(self, session: Session, driven: NDArray[np.float32]) -> Moved:
        """Renders driven landmarks (T, 478, 3) at the renderer's own size."""
        if isinstance(session, LearnedSession):
            return session.render_moved(driven)
        frames = torch.from_numpy(session.render(driven).transpose(0, 3, 1, 2))
        return Moved(image=frames.contiguous().to(self._device).float() / 255)

    def enhance(self, windows: Iterable[Moved], source: Source) -> Iterator[Frames]:
        """Windows in order → pictures (n, S, S, 3) of the same frames; lags, loses none."""
        flows = [deque[Moved]() for _ in range(self._doublings)]

        def rendered() -> Iterator[Tensor]:
            for window in windows:
                for waiting in flows if window.flow is not None else ():
                    waiting.extend(window.frames())
                yield window.image

        images = rendered()
        for number, waiting in enumerate(flows):
            images = self._doubled(images, waiting, source, side=self._own << number)
        while True:
            # The mode must not leak into the consumer, which runs between two parts.
            with torch.inference_mode():
                part = next(images, None)
            if part is None:
                return
            yield eight_bit(part)

    def seconds_per_frame(self) -> float:
        """Measured on a frame of the size that will be worked on."""
        frame = torch.zeros(1, 3, self._own, self._own, device=self._device)
        with torch.inference_mode():
            self._network(frame)  # the first one prepares the kernels
            started = time.perf_counter()
            self._network(frame)
        once = time.perf_counter() - started
        return once * sum(4**number for number in range(self._doublings))

    def _doubled(
        self, images: Iterator[Tensor], flows: deque[Moved], source: Source, *, side: int
    ) -> Iterator[Tensor]:
        """Parts (n, 3, S, S) → (m, 3, 2S, 2S) in [0, 1]; `flows` come before their frames."""
        crop = torch.from_numpy(source.crop.cut(source.picture, 2 * side).transpose(2, 0, 1))
        full = crop[None].contiguous().to(self._device).float() / 255  # (1, 3, 2S, 2S)
        lengths = deque[int]()
        at_once = max(1, self._pixels_at_once // side**2)

        def parts() -> Iterator[Tensor]:
            for image in images:
                for part in image.split(at_once):
                    lengths.append(len(part))
                    yield part

        def references() -> Iterator[Reference]:
            while True:
                count = lengths.popleft()
                yield _reference(full, [flows.popleft() for _ in range(count)])

        first = next(images, None)
        if first is None:
            return
        images = chain([first], images)
        enhanced = self._network.stream(parts(), references() if flows else None)
        yield from (part.clamp(0, 1) for part in enhanced)


def _reference(full: Tensor, moved: list[Moved]) -> Reference:
    """The source crop (1, 3, 2S, 2S) moved to where the frames show it."""
    size = full.shape[-1]
    flow = torch.cat([frame.flow for frame in moved if frame.flow is not None])
    valid = torch.cat([frame.valid for frame in moved if frame.valid is not None])
    image = warp(full.expand(len(flow), -1, -1, -1), enlarge(flow, size))
    return Reference(image, enlarge(valid, size))
