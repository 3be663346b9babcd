"""Super-resolution after a renderer: its pictures at twice or four times their size."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor

from metaportrait_cli.devices import keep_freed_memory
from metaportrait_cli.errors import WeightsError
from metaportrait_cli.pixels import as_pictures, as_tensor
from metaportrait_cli.render.opening import Rendering
from metaportrait_cli.render.protocol import Frames
from metaportrait_cli.render.super_resolution import CompactFaces, load_compact
from metaportrait_cli.weights.architectures import COMPACT_SR

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
        faces, digests = load_compact(COMPACT_SR, device=device, precision=precision)
    except WeightsError as error:
        on_notice(f"enlarged without super-resolution: {error}")
        return None
    if faces.device.type == "cpu":
        keep_freed_memory()
    enhancer = PortraitEnhancer(faces, doublings=doublings, own=own)
    if not asked and faces.device.type == "cpu":
        seconds = enhancer.seconds_per_frame()
        if seconds > AFFORDABLE_SECONDS:
            on_notice(
                f"enlarged without super-resolution, which would take {seconds:.1f} s a frame on"
                f" this processor; `size` {own << doublings} asks for it"
            )
            return None
    on_notice(f"super-resolution: {own} to {own << doublings} pixels")
    return replace(rendering, enhancer=enhancer, weights={**rendering.weights, **digests})


class PortraitEnhancer:
    """Doubles the rendered pictures once or twice.

    Without a reference: the renderer has shown all the pixels that the source has already.
    """

    def __init__(self, faces: CompactFaces, *, doublings: int, own: int) -> None:
        self._faces = faces
        self._doublings = doublings
        self._own = own

    @property
    def reach(self) -> int:
        """That of each doubling."""
        return self._doublings * self._faces.reach

    def enhance(self, windows: Iterable[Frames]) -> Iterator[Frames]:
        """Windows in order → pictures (n, S, S, 3) of the same frames; lags, loses none."""
        images = (as_tensor(window, self._faces.device) for window in windows)
        for number in range(self._doublings):
            images = self._doubled(images, side=self._own << number)
        while True:
            # The mode must not leak into the consumer, which runs between two parts.
            with torch.inference_mode():
                part = next(images, None)
            if part is None:
                return
            yield as_pictures(part)

    def seconds_per_frame(self) -> float:
        """Measured on a frame of the size that will be worked on."""
        frame = torch.zeros(1, 3, self._own, self._own, device=self._faces.device)
        with torch.inference_mode():
            self._faces.network(frame)  # the first one prepares the kernels
            started = time.perf_counter()
            self._faces.network(frame)
        once = time.perf_counter() - started
        return once * sum(4**number for number in range(self._doublings))

    def _doubled(self, images: Iterator[Tensor], *, side: int) -> Iterator[Tensor]:
        """Parts (n, 3, S, S) → (m, 3, 2S, 2S) in [0, 1]."""
        at_once = max(1, self._faces.pixels_at_once // side**2)
        first = next(images, None)
        if first is None:
            return
        parts = (part for image in chain([first], images) for part in image.split(at_once))
        yield from (part.clamp(0, 1) for part in self._faces.network.stream(parts))
