"""Compact temporal super-resolution (paper, Section 3.3, in small): twice the size, steady in time.

What bicubic enlargement lacks is learnt: a stem at the size of the input, a body at half of it,
where every other block also sees the frame before and the one after, and two convolutions back up.
Where a sharp picture of the same person, moved into place, is at hand, the stem sees it too, and
the last layer says for each pixel how much of its detail is taken over.

The last layer starts at zero: an untrained network gives bicubic enlargement, exactly. No layer
looks at a mean over the picture, so small crops train what whole frames need.

Shapes: T frames in order (the batch axis of every layer), C channels, h and w the input's size.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.networks.compact_blocks import zeroed
from metaportrait_cli.networks.layers import conv2d, leaky_relu, upsample_twice
from metaportrait_cli.networks.network import Network

SCALE = 2
STRIP_PIXELS = 512**2
"""Of the input, that enter and leave the stream at a time: the layers at its size are wide."""
STRIP_MARGIN = 2
"""Rows of the body beside a strip that what is made of it depends on."""
# Blocks start near the identity, so that depth costs nothing at first.
FIRST_STEP = 0.1


@dataclass(frozen=True)
class CompactSRConfig:
    fine_width: int = 32
    """Of the layers at the input's size."""
    width: int = 48
    """Of the body, at half of the input's size."""
    stages: int = 3
    """Of the body: a block a frame, then one across three frames. Each makes the stream lag by one
    frame more."""

    def __post_init__(self) -> None:
        if min(self.fine_width, self.width, self.stages) < 1:
            raise ValueError("widths and stages start at 1")


@dataclass(frozen=True)
class Reference:
    """A sharp picture of the same scene, moved to where each frame shows it."""

    image: Tensor
    """(T, 3, 2h, 2w), RGB in [0, 1]"""
    valid: Tensor
    """(T, 1, 2h, 2w) in [0, 1]; 0 where the picture doesn't show what the frame does"""


class FrameBlock(nn.Module):
    """Residual block of two convolutions, each frame alone: (T, C, H, W) -> the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = conv2d(width, width, kernel=3)
        self.conv2 = _small_step(conv2d(width, width, kernel=3))

    def forward(self, frames: Tensor) -> Tensor:
        return frames + self.conv2(leaky_relu(self.conv1(frames)))


class CompactTemporalBlock(nn.Module):
    """Residual space-time convolution: 3x3x3, then 1x3x3 (Equation 10).

    Beyond the clip's ends time runs backwards, as the paper says; a single frame repeats itself.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        # A 3x3x3 convolution is a plain one over (previous, current, next) side by side.
        self.conv1 = conv2d(3 * width, width, kernel=3)
        self.conv2 = _small_step(conv2d(width, width, kernel=3))

    def forward(self, frames: Tensor) -> Tensor:
        """A whole clip, (T, C, H, W) -> the same."""
        first, last = (frames[1:2], frames[-2:-1]) if len(frames) > 1 else (frames, frames)
        known = torch.cat([first, frames, last])
        return self._inner(known[:-2], known[1:-1], known[2:])

    def stream(self, parts: Iterator[Tensor]) -> Iterator[Tensor]:
        """The same for a clip in parts of any length, one frame behind, keeping two frames."""
        kept: list[Tensor] = []  # one by one; of the last two the later one is still to be given
        begun = False
        for part in parts:
            kept += part.split(1)
            del part
            if len(kept) > 1 and not begun:
                kept.insert(0, kept[1])
                begun = True
            if len(kept) > 2:
                inner = _in_strips(
                    self._inner, *(_joined(kept[n : len(kept) - 2 + n]) for n in range(3))
                )
                del kept[:-2]
                yield inner
                del inner  # large, and the next part takes its time
        if kept:
            before = kept[0]  # of a single frame, itself
            yield _in_strips(self._inner, before, kept[-1], before)

    def _inner(self, before: Tensor, current: Tensor, after: Tensor) -> Tensor:
        """Frames (T, C, H, W), with those before and after each -> the same."""
        neighbourhood = torch.cat([before, current, after], dim=1)
        return current + self.conv2(leaky_relu(self.conv1(neighbourhood)))


class CompactSR(Network):
    """Frames (T, 3, h, w), RGB in [0, 1] -> (T, 3, 2h, 2w), float32, not clamped.

    h and w are even. Weights may be in lower precision; pictures stay in float32.
    """

    config_type = CompactSRConfig

    def __init__(self, config: CompactSRConfig) -> None:
        super().__init__(config)
        fine, width = config.fine_width, config.width
        phases = SCALE * SCALE
        self.see = conv2d(3, fine, kernel=3)
        # Without a reference this is as if there were one that is valid nowhere.
        self.recall = conv2d(4 * phases, fine, kernel=3, bias=False)
        self.down = conv2d(fine, width, kernel=3, stride=2)
        self.frame_blocks = nn.ModuleList(FrameBlock(width) for _ in range(config.stages))
        self.temporal_blocks = nn.ModuleList(
            CompactTemporalBlock(width) for _ in range(config.stages)
        )
        self.up = conv2d(width, phases * fine, kernel=3)
        self.join = conv2d(fine, fine, kernel=3)
        # Change of RGB, and the share of the reference's detail.
        self.head = zeroed(conv2d(fine, 4 * phases, kernel=3))

    def forward(self, frames: Tensor, reference: Reference | None = None) -> Tensor:
        """A whole clip at once."""
        features = self._enter(frames, reference)
        x = leaky_relu(self.down(features))  # (T, C, h/2, w/2)
        for block, across in self._stages():
            x = across(block(x))
        return self._leave(x, features, frames, reference)

    def stream(
        self, frames: Iterable[Tensor], references: Iterable[Reference] | None = None
    ) -> Iterator[Tensor]:
        """Parts (n, 3, h, w) of a clip in, parts (m, 3, 2h, 2w) of the result out.

        The same frames in the same order and, up to rounding, the same numbers as `forward` on the
        whole clip, `stages` frames behind, in memory independent of the clip's length. Parts may be
        of any length; a reference comes with each, as long as the part.
        """
        shown = _Queue()
        recalled = _Queue()
        together = zip(frames, repeat(None) if references is None else references, strict=False)

        def enter() -> Iterator[Tensor]:
            for part, reference in together:
                shown.put(part)
                if reference is not None:
                    recalled.put(torch.cat([reference.image, reference.valid], dim=1))
                yield self._enter_in_strips(part, reference)

        flow = enter()
        for block, across in self._stages():
            flow = across.stream(map(partial(_in_strips, block), flow))
        for x in flow:
            reference = None
            if references is not None:
                picture, valid = recalled.take(len(x)).split([3, 1], dim=1)
                reference = Reference(picture, valid)
            image = self._leave_in_strips(x, shown.take(len(x)), reference)
            del x, reference
            yield image
            del image

    def _enter_in_strips(self, frames: Tensor, reference: Reference | None) -> Tensor:
        """What the body begins with, (T, C, h/2, w/2)."""
        strips = [
            leaky_relu(self.down(self._enter(part, known)))[:, :, inner]
            for inner, part, known in _strips(frames, reference)
        ]
        return _joined(strips, dim=2)

    def _leave_in_strips(self, x: Tensor, frames: Tensor, reference: Reference | None) -> Tensor:
        """The same as `_leave`, with features made anew from the frames.

        That is little work; kept until their frame leaves they were what memory is full of.
        """
        strips, row = [], 0
        for inner, part, known in _strips(frames, reference):
            low = row - inner.start
            image = self._leave(
                x[:, :, low : low + part.shape[2] // 2], self._enter(part, known), part, known
            )
            strips.append(image[:, :, 4 * inner.start : 4 * inner.stop])
            row += inner.stop - inner.start
        return _joined(strips, dim=2)

    def _stages(self) -> Iterator[tuple[FrameBlock, CompactTemporalBlock]]:
        return zip(
            cast("Iterable[FrameBlock]", self.frame_blocks),
            cast("Iterable[CompactTemporalBlock]", self.temporal_blocks),
            strict=True,
        )

    def _enter(self, frames: Tensor, reference: Reference | None) -> Tensor:
        """Features of frames and reference at the input's size, (T, C, h, w)."""
        dtype = self.see.weight.dtype
        x = self.see(frames.to(dtype, memory_format=torch.channels_last))
        if reference is not None:
            sharp = torch.cat([reference.image * reference.valid, reference.valid], dim=1)
            phases = F.pixel_unshuffle(sharp, SCALE)  # (T, 16, h, w)
            x = x + self.recall(phases.to(dtype, memory_format=torch.channels_last))
        return leaky_relu(x)

    def _leave(
        self, x: Tensor, features: Tensor, frames: Tensor, reference: Reference | None
    ) -> Tensor:
        fine = F.pixel_shuffle(leaky_relu(self.up(x)), SCALE)  # (T, C, h, w)
        fine = leaky_relu(self.join(fine + features))
        change, share = F.pixel_shuffle(self.head(fine), SCALE).float().split([3, 1], dim=1)
        image = enlarged(frames) + change
        if reference is not None:
            image = image + share * reference.valid * detail(reference.image)
        return image


def enlarged(frames: Tensor) -> Tensor:
    """Bicubic (T, 3, h, w) -> (T, 3, 2h, 2w), float32: what the network adds to."""
    return F.interpolate(frames.float(), scale_factor=SCALE, mode="bicubic", align_corners=False)


def detail(picture: Tensor) -> Tensor:
    """What a picture (T, 3, 2h, 2w) loses at half of its size."""
    picture = picture.float()
    return picture - upsample_twice(F.avg_pool2d(picture, SCALE))


def _joined(parts: list[Tensor], dim: int = 0) -> Tensor:
    """Side by side, without a copy where there is one only."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _in_strips(block: Callable[..., Tensor], *bodies: Tensor) -> Tensor:
    """A block of bodies (T, C, h/2, w/2), in the memory of a few rows."""
    height, width = bodies[0].shape[2:]
    rows = max(1, STRIP_PIXELS // (4 * width))
    result = torch.empty_like(bodies[0])
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        low, high = max(start - STRIP_MARGIN, 0), min(stop + STRIP_MARGIN, height)
        strip = block(*(body[:, :, low:high] for body in bodies))
        result[:, :, start:stop] = strip[:, :, start - low : stop - low]
    return result


def _strips(
    frames: Tensor, reference: Reference | None
) -> Iterator[tuple[slice, Tensor, Reference | None]]:
    """Strips of rows, with some beside them: which of the body's rows in each count, the frames'
    rows, and the reference's."""
    half = frames.shape[2] // 2
    rows = max(1, STRIP_PIXELS // (2 * frames.shape[3]))
    for start in range(0, half, rows):
        stop = min(start + rows, half)
        low, high = max(start - STRIP_MARGIN, 0), min(stop + STRIP_MARGIN, half)
        known = None
        if reference is not None:
            inside = slice(4 * low, 4 * high)
            known = Reference(reference.image[:, :, inside], reference.valid[:, :, inside])
        yield slice(start - low, stop - low), frames[:, :, 2 * low : 2 * high], known


class _Queue:
    """Frames that wait for the body, put and taken in parts of different lengths."""

    def __init__(self) -> None:
        self._parts: deque[Tensor] = deque()

    def put(self, part: Tensor) -> None:
        self._parts.append(part)

    def take(self, count: int) -> Tensor:
        taken = []
        while count:
            part = self._parts.popleft()
            if len(part) > count:
                self._parts.appendleft(part[count:])
                part = part[:count]
            taken.append(part)
            count -= len(part)
        return _joined(taken)


def _small_step(layer: nn.Conv2d) -> nn.Conv2d:
    with torch.no_grad():
        layer.weight.mul_(FIRST_STEP)
    return layer
