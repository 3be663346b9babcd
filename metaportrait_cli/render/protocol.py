"""From driven landmarks to pictures of the crop: the seam where renderers are exchanged.

What crosses it is `Driven` on the way in and `Rendered` on the way out. A renderer works in windows
of consecutive frames and does its source-only work once, in `open`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.correspondence import Correspondence
from metaportrait_cli.face.regions import Kind, OwnRegions
from metaportrait_cli.face.source import Source
from metaportrait_cli.face.topology import head_axes

if TYPE_CHECKING:
    import torch

    from metaportrait_cli.networks import fewshot
    from metaportrait_cli.networks.regions import RegionNetwork
    from metaportrait_cli.render.mouths.shown import ShownMouth

Frames = NDArray[np.uint8]  # (T, S, S, 3) RGB
Memory = Mapping[str, NDArray[np.float32]]
"""What pictures owe to those before them."""


@dataclass(frozen=True)
class DriverLooks:
    """The driver's own pictures, for renderers that read them (`Rendering.reads_driver`)."""

    pictures: Frames
    """(T, P, P, 3), squares around the face"""
    landmarks: NDArray[np.float32]
    """(T, 478, 3) of the driver, in their pixels"""

    def at(self, frames: NDArray[np.intp] | slice) -> Self:
        """Some of the frames, by their place in the window."""
        return type(self)(self.pictures[frames], self.landmarks[frames])


@dataclass(frozen=True)
class Driven:
    """T frames of motion: where the face is to be."""

    landmarks: NDArray[np.float32]
    """(T, 478, 3) in pixels of the crop"""
    numbers: NDArray[np.intp]
    """(T,) frames of the driver, from 0, for renderers that look at its pixels"""
    seen: DriverLooks | None = None
    """The driver in these frames; `None` where there is nothing to be seen, or no need"""

    @classmethod
    def of(cls, landmarks: NDArray[np.float32], *, first: int = 0) -> Self:
        """Consecutive frames from number `first` on."""
        return cls(landmarks, np.arange(first, first + len(landmarks)))

    @property
    def rotation(self) -> NDArray[np.float32]:
        """Where the head looks, (T, 3, 3); see `topology.head_axes`."""
        return head_axes(self.landmarks)

    def at(self, frames: NDArray[np.intp] | slice) -> Self:
        """Some of the frames, by their place in the window."""
        seen = None if self.seen is None else self.seen.at(frames)
        return type(self)(self.landmarks[frames], self.numbers[frames], seen)

    def __len__(self) -> int:
        return len(self.landmarks)


@dataclass(frozen=True)
class Rendered:
    """Pictures of the crop, of the size asked for or of the network's own; composing scales them.

    `flows` says, where it is known, from where in the source's crop each frame was moved;
    `reference.trust` tells how far.
    """

    frames: Frames
    flows: tuple[Correspondence, ...] | None = None


class Session(Protocol):
    """One source, ready to be driven. Whose pictures depend on their own frame alone inherits from
    this, and remembers nothing.
    """

    def render(self, driven: Driven) -> Rendered:
        """Pictures for consecutive frames of motion."""
        ...

    def stream(self, windows: Iterable[Driven]) -> Generator[Rendered, None, None]:
        """The same for one window after another; work on the next one may be under way.

        Close it before `windows`, which another thread may read.
        """
        for driven in windows:
            yield self.render(driven)

    def expect_turns(self) -> None:
        """Makes what only heads that turn need, for they will, if that isn't there yet."""
        return

    def memory(self) -> Memory:
        """All that pictures after those given depend on beside their own frames."""
        return {}

    def recall(self, memory: Memory) -> None:
        """Goes on where a session of the same source had this memory; at the start with none."""
        assert not memory  # noqa: S101  what has none gets none


class Renderer(Protocol):
    """Makes sessions; holds weights, if any."""

    @property
    def fixed_size(self) -> int | None:
        """The side of the pictures that its network paints, if it paints whole ones."""
        ...

    @property
    def keeps_detail(self) -> bool:
        """Whether larger pictures show what detail the source has, rather than enlarged paint."""
        ...

    def open(self, source: Source, *, size: int, rate: Fraction | None = None) -> Session:
        """Does all work that depends on the source alone, for output of `size` × `size`.

        Further pictures of the source belong to it; `views.blended` serves renderers that can't
        join pictures themselves. `rate` is that of the one clip whose frames will be rendered, in
        order; `None` if frames have nothing to do with each other.
        """
        ...


class Enhancer(Protocol):
    """Takes rendered windows in order and gives enhanced ones; may lag, must not lose a frame."""

    @property
    def reach(self) -> int | None:
        """Frames on either side that a picture depends on; None is all of them."""
        ...

    def enhance(self, windows: Iterable[Frames]) -> Iterator[Frames]:
        """Windows (T, S, S, 3) → pictures (n, 2S, 2S, 3) of the same frames in the same order."""
        ...


class Warped(Protocol):
    """One picture under a renderer's warp, before its networks repaint mouth and eyes."""

    @property
    def crop(self) -> NDArray[np.uint8]:
        """(S, S, 3), the source's own"""
        ...

    def warped(self, points: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The crop (S, S, 3) moved to driven landmarks (478, 3), and the outline (N, 2) of the part
        of the mouth that the source doesn't show."""
        ...

    def changes(self, points: NDArray[np.float32]) -> Sequence[NDArray[np.float32] | None]:
        """What driven faces (T, 478, 3) change of the light on it, (G, G) each, if it is known."""
        ...

    def moved(
        self, points: NDArray[np.float32], change: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.uint8], Correspondence]:
        """The crop (S, S, 3) in that light moved to landmarks (478, 3), and its flow."""
        ...

    def face(
        self, points: NDArray[np.float32], box: tuple[slice, slice]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """A box of it, (H, W, 3), quickly: the face is moved to landmarks (478, 3), and what isn't
        face doesn't matter; and the part of the mouth (N, 2) that it doesn't show."""
        ...

    def repainted_by(self, networks: Mapping[Kind, RegionNetwork]) -> Repainting | None:
        """The other half: what networks make of such warps; `None` where nothing is repainted."""
        ...


class Repainting(Protocol):
    """One picture's mouth and eyes, ready to be repainted."""

    def repaint(
        self,
        frames: Frames,
        driven: NDArray[np.float32],
        gaps: Sequence[NDArray[np.float32]],
        own: Sequence[OwnRegions] | None = None,
        shown: Sequence[ShownMouth] | None = None,
    ) -> None:
        """Repaints warps (T, S, S, 3) in place: their landmarks (T, 478, 3), their mouths' gaps;
        of several pictures, their own mouths and eyes, and how wide those mouths are open."""
        ...


class Adaptable(Protocol):
    """What personalizing asks of a renderer: networks of mouth and eyes that may be exchanged."""

    @property
    def networks(self) -> Mapping[Kind, RegionNetwork]:
        """By kind of region."""
        ...

    @property
    def device(self) -> str:
        """Where they are."""
        ...

    def open_warp(self, source: Source, *, size: int) -> Warped:
        """The source's first picture alone, as the networks get to see it."""
        ...

    def for_many(self) -> AbstractContextManager[None]:
        """Within, opening sources is cheaper, at the price of memory."""
        ...


class Styled(Protocol):
    """What personalizing asks of a renderer that paints whole pictures in a person's style."""

    @property
    def file(self) -> Path:
        """Of its weights."""
        ...

    @property
    def device(self) -> torch.device:
        """Where its networks are."""
        ...

    def embedding(self, source: Source) -> torch.Tensor:
        """(1, N) of all pictures of a source."""
        ...

    def with_generator(self, generator: fewshot.Generator) -> Renderer:
        """The same renderer with another one."""
        ...
