"""Temporal super-resolution (paper, Section 3.3, Equation 10): 256 -> 512, consistent in time.

A U-Net with residual space-time convolutions estimates latents and feature maps; a StyleGAN2
decoder, steered by them, paints each frame. Of the whole network only the 2 * levels temporal
blocks mix frames, each one with its two neighbours, so a clip of any length can be streamed:
see :meth:`TemporalSR.stream`.

Shapes: T frames in order (the batch axis of every layer), C, H, W.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from typing import Literal, NamedTuple, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.networks.layers import conv2d, leaky_relu, upsample_twice
from metaportrait_cli.networks.network import Network
from metaportrait_cli.networks.style_decoder import START_SIZE, StyleDecoder

WINDOW_RELEASED = 16  # frames per segment of the released test settings; segments don't overlap


@dataclass(frozen=True)
class TemporalSRConfig:
    output_size: int = 512
    style_dim: int = 512
    channel_multiplier: int = 2
    narrow: float = 1.0
    """Factor of all widths."""
    temporal: bool = True
    """False: the two-dimensional GFPGAN network, which restores each frame alone."""
    noise: Literal["zero", "stored"] = "zero"
    """What the decoder adds to its features; the released setting is none."""

    def __post_init__(self) -> None:
        if self.output_size < 2 * START_SIZE or self.output_size & (self.output_size - 1):
            raise ValueError("output_size must be a power of two, at least 8")

    @classmethod
    def released(cls) -> Self:
        return cls()

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides of the feature maps, 4 ... output_size."""
        return tuple(2**power for power in range(2, self.output_size.bit_length()))

    def decoder_width(self, size: int) -> int:
        full = 512 if size <= 32 else 16 * (1024 // size) * self.channel_multiplier
        return int(full * self.narrow)

    def unet_width(self, size: int) -> int:
        return self.decoder_width(size) // 2


class ResBlock(nn.Module):
    """Residual block that halves or doubles the size; no activation after the sum."""

    def __init__(self, *, in_width: int, out_width: int, up: bool) -> None:
        super().__init__()
        self.up = up
        self.conv1 = conv2d(in_width, in_width, kernel=3)
        self.conv2 = conv2d(in_width, out_width, kernel=3)
        self.skip = conv2d(in_width, out_width, kernel=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = leaky_relu(self.conv1(x))
        if self.up:
            # A 1x1 convolution and resizing commute; before it, there is a quarter of the work.
            return leaky_relu(self.conv2(upsample_twice(y))) + upsample_twice(self.skip(x))
        # Bilinear x0.5 with align_corners=False is the mean of 2x2.
        return leaky_relu(self.conv2(F.avg_pool2d(y, 2))) + self.skip(F.avg_pool2d(x, 2))


class TemporalBlock(nn.Module):
    """Residual space-time convolution: 3x3x3 (C -> 3C), LeakyReLU, 1x3x3 (3C -> C), plus input.

    The frames beyond the clip's ends repeat its first and last one. The paper says reflection;
    the released weights were trained with repetition.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        # A 3x3x3 convolution is a plain one over (previous, current, next) side by side.
        self.conv1 = conv2d(3 * width, 3 * width, kernel=3)
        self.conv2 = conv2d(3 * width, width, kernel=3)

    def forward(self, frames: Tensor) -> Tensor:
        """All frames of a window at once, (T, C, H, W)."""
        return self.step(
            torch.cat([frames[:1], frames[:-1]]), frames, torch.cat([frames[1:], frames[-1:]])
        )

    def step(self, before: Tensor, current: Tensor, after: Tensor) -> Tensor:
        neighbourhood = torch.cat([before, current, after], dim=1)
        return self.conv2(leaky_relu(self.conv1(neighbourhood))) + current

    def stream(self, frames: Iterator[Tensor]) -> Iterator[Tensor]:
        """The same frame by frame, (1, C, H, W) each, keeping two of them."""
        current = next(frames, None)
        if current is None:
            return
        before = current
        for after in frames:
            yield self.step(before, current, after)
            before, current = current, after
        yield self.step(before, current, current)


class ConditionHead(nn.Module):
    """Features -> scale and shift of the decoder's, (T, C, h, w) each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.shared = conv2d(width, 2 * width, kernel=3)  # both heads' first convolutions
        self.scale = conv2d(width, width, kernel=3)
        self.shift = conv2d(width, width, kernel=3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for_scale, for_shift = leaky_relu(self.shared(x)).chunk(2, dim=1)
        return self.scale(for_scale), self.shift(for_shift)


class _Level(NamedTuple):
    """One level of the U-Net: a block per frame, then one across frames (absent in 2D)."""

    block: ResBlock
    temporal: TemporalBlock | None

    def stream(self, frames: Iterator[Tensor]) -> Iterator[Tensor]:
        frames = map(self.block, frames)
        return frames if self.temporal is None else self.temporal.stream(frames)

    def window(self, frames: Tensor) -> Tensor:
        frames = self.block(frames)
        return frames if self.temporal is None else self.temporal(frames)


class TemporalSR(Network):
    """Frames (T, 3, h, w), RGB in [0, 1] -> (T, 3, S, S), nominally in [0, 1] but not clamped."""

    config_type = TemporalSRConfig

    def __init__(self, config: TemporalSRConfig) -> None:
        super().__init__(config)
        sizes = config.sizes
        widths = [config.unet_width(size) for size in sizes]
        pairs = list(pairwise(widths))  # (small, large), coarse to fine
        self.stem = nn.Conv2d(3, widths[-1], 1)
        self.down = nn.ModuleList(
            ResBlock(in_width=large, out_width=small, up=False) for small, large in reversed(pairs)
        )
        self.up = nn.ModuleList(
            ResBlock(in_width=small, out_width=large, up=True) for small, large in pairs
        )
        self.temporal_down = nn.ModuleList()
        self.temporal_up = nn.ModuleList()
        if config.temporal:
            self.temporal_down.extend(TemporalBlock(small) for small, _ in reversed(pairs))
            self.temporal_up.extend(TemporalBlock(large) for _, large in pairs)
        self.middle = conv2d(widths[0], widths[0], kernel=3)
        self.latent_count = 2 * len(pairs) + 2
        self.to_latents = nn.Linear(widths[0] * START_SIZE**2, self.latent_count * config.style_dim)
        self.conditions = nn.ModuleList(ConditionHead(large) for _, large in pairs)
        self.decoder = StyleDecoder(
            widths=[config.decoder_width(size) for size in sizes], style_dim=config.style_dim
        )

    def forward(self, frames: Tensor) -> Tensor:
        """One window, all frames at once."""
        x = self._enter(frames)
        remembered = []
        for level in self._levels(self.down, self.temporal_down):
            x = level.window(x)
            remembered.append(x)
        x = leaky_relu(self.middle(x))
        latents, features = self._latents(x), []
        for level in self._levels(self.up, self.temporal_up):
            x = level.window(x + remembered.pop())
            features.append(x)
        return self._paint(latents, features)

    def stream(self, frames: Iterable[Tensor], *, window: int | None = None) -> Iterator[Tensor]:
        """Frames (3, h, w) in, frames (3, S, S) out, one for one, in memory independent of T.

        Without ``window`` the whole clip is one window: the same numbers as :meth:`forward` on
        all of it, at the same cost, a few frames behind the input. With one, the clip is cut into
        independent segments of that length, as the released tool does
        (:data:`WINDOW_RELEASED`); results then jump a little at each cut.
        """
        frames = iter(frames)
        if window is None:
            yield from self._stream(frames)
            return
        for first in frames:
            yield from self._stream(chain([first], islice(frames, window - 1)))

    def fold(self, dtype: torch.dtype = torch.float32) -> Self:
        """Ready it for inference, in place; ``dtype`` is that of features and of the heavy
        weights. Modulation, demodulation, latents and RGB sums stay in float32."""
        self.eval().requires_grad_(False)
        for part in (
            *(self.stem, self.down, self.up, self.temporal_down, self.temporal_up),
            *(self.middle, self.conditions),
        ):
            part.to(dtype)
        return self

    def _stream(self, frames: Iterator[Tensor]) -> Iterator[Tensor]:
        # Every level runs ahead of the next by a frame or more; what a later stage will need
        # again waits in a queue, whose length the number of levels bounds.
        flow = (self._enter(frame[None]) for frame in frames)
        skips = []
        for level in self._levels(self.down, self.temporal_down):
            flow, queue = _remembering(level.stream(flow))
            skips.append(queue)
        flow, bottoms = _remembering(leaky_relu(self.middle(x)) for x in flow)
        queues = []
        for level in self._levels(self.up, self.temporal_up):
            flow, queue = _remembering(level.stream(_adding(flow, skips.pop())))
            queues.append(queue)
        for _ in flow:
            features = [queue.popleft() for queue in queues]
            yield self._paint(self._latents(bottoms.popleft()), features)[0]

    def _levels(self, blocks: nn.ModuleList, temporal: nn.ModuleList) -> list[_Level]:
        typed = cast("list[ResBlock]", blocks)
        if not self.config.temporal:
            return [_Level(block, None) for block in typed]
        across = cast("list[TemporalBlock]", temporal)
        return [_Level(*pair) for pair in zip(typed, across, strict=True)]

    def _enter(self, frames: Tensor) -> Tensor:
        """To [-1, 1], then to full size, in this order; sizes other than half and full fail."""
        x = 2 * frames.to(torch.float32) - 1
        if x.shape[-1] != self.config.output_size:
            x = upsample_twice(x)
        return leaky_relu(self.stem(x.to(self.stem.weight.dtype)))

    def _latents(self, bottom: Tensor) -> Tensor:
        """(T, C, 4, 4) -> (T, n, style_dim): used as they are, without StyleGAN's mapping."""
        return self.to_latents(bottom.float().flatten(1)).unflatten(1, (self.latent_count, -1))

    def _paint(self, latents: Tensor, features: list[Tensor]) -> Tensor:
        conditions = [head(x) for head, x in zip(self.conditions, features, strict=True)]
        image = self.decoder(latents, conditions, stored_noise=self.config.noise == "stored")
        return (image + 1) / 2


def _remembering(frames: Iterator[Tensor]) -> tuple[Iterator[Tensor], deque[Tensor]]:
    queue: deque[Tensor] = deque()

    def pass_on() -> Iterator[Tensor]:
        for frame in frames:
            queue.append(frame)
            yield frame

    return pass_on(), queue


def _adding(frames: Iterator[Tensor], queue: deque[Tensor]) -> Iterator[Tensor]:
    for frame in frames:
        yield frame + queue.popleft()
