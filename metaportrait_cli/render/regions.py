"""Mouth and eyes of rendered frames: repainted by the region networks, then
teeth and the line of closed lids drawn over that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.identity import Identity
from metaportrait_cli.face.regions import (
    REGIONS,
    Kind,
    OwnRegions,
    Region,
    add_patch,
    kind_of,
    patch_to_picture,
)
from metaportrait_cli.networks.swift.function import Function, Running, SwiftFunction
from metaportrait_cli.networks.swift.repainted import (
    OF_FRAME,
    OF_SOURCE,
    below_teeth,
    light_of,
    painted,
)
from metaportrait_cli.networks.teeth import DRAWN
from metaportrait_cli.render.lid_line import LidLine
from metaportrait_cli.render.mouths import lip_line
from metaportrait_cli.render.mouths.shown import ShownMouth
from metaportrait_cli.render.mouths.teeth import Drawn, OpenedTeeth, TeethPainter, drawn_patches
from metaportrait_cli.render.protocol import Memory
from metaportrait_cli.stages import Once, by_turns, side_by_side

if TYPE_CHECKING:
    from metaportrait_cli.networks.regions import RegionNetwork

TOGETHER = 8
"""Frames that go through a network at once: half the time of one by one, and no less by more."""


@dataclass(frozen=True)
class RegionMaker:
    """Gives a network when torch needs it."""

    make: Callable[[], RegionNetwork]
    keep_shown: bool
    """See `RegionConfig`"""


class RegionRefiner:
    """Repaints with networks, one for each kind of region."""

    def __init__(
        self,
        networks: Mapping[Kind, RegionMaker],
        identity: Identity,
        *,
        teeth: TeethPainter,
        running: Running | None = None,
    ) -> None:
        self._running = running = running or Running()
        self._identity = identity
        self._teeth = teeth
        self._makers = networks
        self._networks = {
            kind: Once(_placing(maker.make, running)) for kind, maker in networks.items()
        }
        self._convolutions = {
            kind: SwiftFunction(_convolutions(network), running, name=kind)
            for kind, network in self._networks.items()
        }
        # The first convolution is a sum, of which most stays the same, or is nothing.
        self._of_source = {
            kind: SwiftFunction(_entering(network, OF_SOURCE), running, name=f"{kind}, source")
            for kind, network in self._networks.items()
        }
        self._of_drawn = {
            kind: SwiftFunction(
                _entering(network, range(DRAWN.start, DRAWN.stop)),
                running,
                name=f"{kind}, drawn",
                any_size=True,
            )
            for kind, network in self._networks.items()
            if kind == "mouth"
        }
        self._of_networks = WeakValueDictionary[tuple[int, ...], RegionRefiner]()

    @property
    def kinds(self) -> Iterable[Kind]:
        """Those that are repainted."""
        return self._networks

    @property
    def networks(self) -> Mapping[Kind, RegionNetwork]:
        """By kind of region, frozen."""
        return {kind: network() for kind, network in self._networks.items()}

    @property
    def device(self) -> str:
        """Where they are."""
        return self._running.device

    @property
    def is_known(self) -> bool:
        """Whether it can probably go without torch."""
        # Not `_of_drawn`: a mouth may never have been open.
        needed = [*self._convolutions.values(), *self._of_source.values()]
        return all(each.is_known for each in needed) and self._identity.is_known

    def for_many(self) -> AbstractContextManager[None]:
        """Within, opening sources is cheaper, at the price of memory."""
        return self._identity.held()

    def of_networks(self, networks: Mapping[Kind, RegionNetwork]) -> RegionRefiner:
        """A refiner with other networks, on the same device in the same precision."""
        # One for all sources of a person: making it ready takes as long as several frames.
        key = tuple(map(id, networks.values()))
        known = self._of_networks.get(key)
        if known is None:
            makers = {kind: _maker_of(network) for kind, network in networks.items()}
            running = replace(self._running, shelf=None)
            known = RegionRefiner(makers, self._identity, teeth=self._teeth, running=running)
            self._of_networks[key] = known
        return known

    def of_person(
        self, pictures: Iterable[tuple[NDArray[np.uint8], NDArray[np.float32]]]
    ) -> RegionRefiner:
        """A refiner that knows the teeth of somebody, see `TeethPainter.of_person`."""
        teeth = self._teeth.of_person(pictures)
        made = {
            kind: replace(maker, make=self._networks[kind]) for kind, maker in self._makers.items()
        }
        return RegionRefiner(made, self._identity, teeth=teeth, running=self._running)

    def open(
        self,
        crop: NDArray[np.uint8],
        points: NDArray[np.float32],
        *,
        rate: Fraction | None = None,
    ) -> OpenedRegions:
        """Looks at a source crop (S, S, 3) with its face points (478, 3) in pixels.

        `rate` as of `Renderer.open`.
        """
        known = self._identity(crop, points)
        teeth = self._teeth.open(crop, points, rate=rate)
        lids = LidLine(crop, points) if "eyes" in self.kinds else None
        return OpenedRegions(self, OwnRegions(crop, points), known, teeth=teeth, lids=lids)

    def of_source(self, kind: Kind, own: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What a source's planes (5, P, P) add to the first convolution, (W, P / 2, P / 2)."""
        return self._of_source[kind](own[None])[0][0]

    def changes(
        self,
        kind: Kind,
        patches: NDArray[np.uint8],
        identity: NDArray[np.float32],
        *,
        of_source: Sequence[NDArray[np.float32]],
    ) -> list[Change]:
        """What to add to each of the patches (N, C, P, P) of one kind.

        `of_source` is what the source's planes add to each one's first convolution.
        """
        entered = np.stack(of_source)
        if kind in self._of_drawn:
            side_by_side(
                lambda n: self._add_drawn(entered[n], patches[n, DRAWN], kind), range(len(patches))
            )
        heads, *lights = self._convolutions[kind](patches[:, OF_FRAME], entered, identity)
        keep_shown = self._makers[kind].keep_shown

        @by_turns
        def change(n: int) -> Change:
            found = painted(heads[n], patches[n], keep_shown=keep_shown)
            light = light_of(lights[0][n], patches[n]) if lights else None
            if light is not None:
                found = below_teeth(found, patches[n], light)
            return Change(255 * found, light)

        return side_by_side(change, range(len(patches)))

    def _add_drawn(
        self, entered: NDArray[np.float32], drawn: NDArray[np.uint8], kind: Kind
    ) -> None:
        """Adds what is drawn (16, P, P) to the first convolution (W, P / 2, P / 2), in place."""
        x, y, width, height = cv2.boundingRect(np.bitwise_or.reduce(drawn))
        if not width:
            return
        # A convolution reaches one of its pixels, two by two of the patch's, beyond the box.
        left, top = max(x // 2 - 1, 0), max(y // 2 - 1, 0)
        right, bottom = (x + width + 1) // 2 + 1, (y + height + 1) // 2 + 1
        box = drawn[None, :, 2 * top : 2 * bottom, 2 * left : 2 * right]
        entered[:, top:bottom, left:right] += self._of_drawn[kind](box)[0][0]


@dataclass(frozen=True)
class Change:
    """`pixels` (P, P, 3) in grey levels are added to a patch before teeth are drawn over it, under
    the `light` (10, h, w) that the network of the mouth gives."""

    pixels: NDArray[np.float32]
    light: NDArray[np.float32] | None


class OpenedRegions:
    """One source's regions, ready to be repainted."""

    def __init__(
        self,
        refiner: RegionRefiner,
        own: OwnRegions,
        identity: NDArray[np.float32],
        *,
        teeth: OpenedTeeth,
        lids: LidLine | None = None,
    ) -> None:
        self._refiner = refiner
        self._own = own
        self._known = identity
        self._teeth = teeth
        self._lids = lids
        self._of_source = {
            region: Once(partial(refiner.of_source, kind, own.of_source(region)))
            for kind in refiner.kinds
            for region in _regions_of(kind)
        }

    def by(self, networks: Mapping[Kind, RegionNetwork]) -> OpenedRegions:
        """The same source's, repainted by other networks."""
        refiner = self._refiner.of_networks(networks)
        return OpenedRegions(refiner, self._own, self._known, teeth=self._teeth, lids=self._lids)

    def repaint(
        self,
        frames: NDArray[np.uint8],
        driven: NDArray[np.float32],
        gaps: Sequence[NDArray[np.float32]],
        own: Sequence[OwnRegions] | None = None,
        shown: Sequence[ShownMouth] | None = None,
    ) -> None:
        """Repaints mouth and eyes of warped frames (T, S, S, 3), in place.

        `driven` (T, 478, 3) is where their faces are; each of `gaps` (N, 2) is the mouth opening
        that the source doesn't show, see `Correspondence`. A frame that is of other pictures has
        theirs in place of its `own`, and theirs are the mouths `shown`.
        """
        own = own or [self._own] * len(frames)
        mouths = shown or [self._teeth.shown] * len(frames)
        gaps = [
            mouth.replaced(face, gap) for mouth, face, gap in zip(mouths, driven, gaps, strict=True)
        ]
        for first in range(0, len(frames), TOGETHER):
            part = slice(first, first + TOGETHER)
            self._repaint(frames[part], driven[part], gaps[part], own[part])
        for frame, points, mouth in zip(frames, driven, mouths, strict=True):
            if "mouth" in self._refiner.kinds:
                lip_line.meet(frame, points, shown=mouth.height)
            if self._lids is not None:
                self._lids.draw(frame, points)

    def memory(self) -> Memory:
        """The light on the teeth."""
        light = self._teeth.light
        return {} if light is None else {"light": light}

    def recall(self, memory: Memory) -> None:
        """See `protocol.Session`."""
        self._teeth.light = memory.get("light")

    def _seen_of(self, own: OwnRegions, kind: Kind, region: Region) -> NDArray[np.float32]:
        """What own mouth or eyes add to the first convolution; this picture's are known."""
        if own is self._own:
            return self._of_source[region]()
        return self._refiner.of_source(kind, own.of_source(region))

    def _repaint(
        self,
        frames: NDArray[np.uint8],
        driven: NDArray[np.float32],
        gaps: Sequence[NDArray[np.float32]],
        own: Sequence[OwnRegions],
    ) -> None:
        size = frames.shape[1]
        drawn: dict[int, Drawn | None] = {}

        @by_turns
        def cut(place: tuple[int, Region]) -> NDArray[np.uint8]:
            t, region = place
            patch = own[t].beside(frames[t], driven[t], gaps[t], region)
            if region != "mouth":
                return patch
            drawn[t] = self._teeth.draw(driven[t], gaps[t], size=size)
            return np.concatenate([patch, *drawn_patches([drawn[t]])])

        def found(kind: Kind) -> dict[tuple[int, Region], Change]:
            places = [(t, region) for t in range(len(frames)) for region in _regions_of(kind)]
            patches = np.stack(side_by_side(cut, places))
            of_source = [self._seen_of(own[t], kind, region) for t, region in places]
            changes = self._refiner.changes(kind, patches, self._known, of_source=of_source)
            return dict(zip(places, changes, strict=True))

        # Several frames keep all cores busy with one network; for one, it takes both.
        kinds = list(self._refiner.kinds)
        each = side_by_side(found, kinds) if len(frames) == 1 else map(found, kinds)
        changes = {place: change for some in each for place, change in some.items()}
        # Patches of a face overlap: all are cut before any is changed.
        for (t, region), change in changes.items():
            add_patch(frames[t], change.pixels, patch_to_picture(driven[t], region))
        for (t, region), change in changes.items():
            if region == "mouth" and change.light is not None:
                self._teeth.blend(frames[t], drawn[t], change.light)


def _convolutions(made: Callable[[], RegionNetwork]) -> Callable[[], Function]:
    def function() -> Function:
        network = made()
        dtype = network.look.weight.dtype
        return lambda patches, entered, identity: network.found_of(
            network.entered(patches / 255, OF_FRAME) + entered.to(dtype), identity
        )

    return function


def _entering(made: Callable[[], RegionNetwork], channels: Sequence[int]) -> Callable[[], Function]:
    def function() -> Function:
        network = made()
        return lambda planes: [network.entered(planes / 255, channels)]

    return function


def _placing(make: Callable[[], RegionNetwork], running: Running) -> Callable[[], RegionNetwork]:
    return lambda: running.placed(make())


def _maker_of(network: RegionNetwork) -> RegionMaker:
    return RegionMaker(lambda: network, network.config.keep_shown)


def _regions_of(kind: Kind) -> list[Region]:
    return [region for region in REGIONS if kind_of(region) == kind]
