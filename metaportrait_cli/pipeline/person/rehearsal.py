"""A renderer that is asked for the same frames again and again, and makes each of them once.

Personalizing renders the same driven frames by several ways, which share pictures, and with several
networks, which share the warps that they repaint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.correspondence import Correspondence
from metaportrait_cli.face.regions import Kind
from metaportrait_cli.face.source import Source
from metaportrait_cli.render.joined import JoinedSession
from metaportrait_cli.render.protocol import (
    Adaptable,
    Driven,
    Rendered,
    Session,
    Warped,
)
from metaportrait_cli.render.views import alike
from metaportrait_cli.stages import Once

if TYPE_CHECKING:
    from metaportrait_cli.networks.regions import RegionNetwork


class Rehearsal:
    """Renders as `renderer` does under its `networks`; for few frames, for it keeps them all.

    Pictures are told apart by what is in them: recoloured ones are made anew for each session.
    """

    fixed_size = None
    keeps_detail = True

    def __init__(
        self,
        renderer: Adaptable,
        networks: Mapping[Kind, RegionNetwork],
        warps: dict[bytes, _KeptWarp] | None = None,
    ) -> None:
        """`warps` are those of another rehearsal of the same renderer."""
        self._renderer = renderer
        self._networks = networks
        self._warps = {} if warps is None else warps
        self._sessions: dict[bytes, _KeptSession] = {}

    def adapted(self, networks: Mapping[Kind, RegionNetwork]) -> Rehearsal:
        """The same with other networks of mouth and eyes, over the same warps."""
        return Rehearsal(self._renderer, networks, self._warps)

    def open(self, source: Source, *, size: int, rate: Fraction | None = None) -> Session:
        """As of `Renderer`; for frames that have nothing to do with each other."""
        first = self._open_one(source, size=size)
        if not source.others:
            return first
        views = [first, *(self._open_one(other, size=size) for other in alike(source))]
        return JoinedSession(source, views, size=size, rate=rate)

    def _open_one(self, source: Source, *, size: int) -> _KeptSession:
        content = hashlib.blake2b(source.picture.tobytes())
        content.update(source.face.points.tobytes())
        content.update(repr((source.picture.shape, source.crop, size)).encode())
        key = content.digest()
        if key not in self._warps:
            alone = replace(source, others=())
            self._warps[key] = _KeptWarp(self._renderer.open_warp(alone, size=size))
        if key not in self._sessions:
            self._sessions[key] = _KeptSession(self._warps[key], self._networks)
        return self._sessions[key]


@dataclass(frozen=True)
class _KeptWarp:
    """One picture's session and what it has moved, by the driven landmarks."""

    session: Warped
    made: dict[bytes, tuple[NDArray[np.uint8], Correspondence]] = field(default_factory=dict)
    faces: dict[bytes, tuple[NDArray[np.uint8], NDArray[np.float32]]] = field(default_factory=dict)

    def moved(self, points: NDArray[np.float32]) -> tuple[NDArray[np.uint8], Correspondence]:
        """As of `Warped`, with the light's change; not to be written on."""
        key = points.tobytes()
        if key not in self.made:
            (change,) = self.session.changes(points[None])
            self.made[key] = self.session.moved(points, change)
        return self.made[key]

    def face(
        self, points: NDArray[np.float32], box: tuple[slice, slice]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """As of `Warped`."""
        key = points.tobytes() + repr(box).encode()
        if key not in self.faces:
            self.faces[key] = self.session.face(points, box)
        return self.faces[key]


class _KeptSession(Session):
    """One picture's warps, repainted by one set of networks."""

    def __init__(self, warp: _KeptWarp, networks: Mapping[Kind, RegionNetwork]) -> None:
        self._warp = warp
        self.regions = Once(lambda: warp.session.repainted_by(networks))
        self._made: dict[bytes, NDArray[np.uint8]] = {}
        self.crop = warp.session.crop
        self.face = warp.face
        self.repainted_by = warp.session.repainted_by

    def render(self, driven: Driven) -> Rendered:
        """Pictures (T, S, S, 3)."""
        new = [points for points in driven.landmarks if points.tobytes() not in self._made]
        if new:
            pictures, flows = zip(*map(self._warp.moved, new), strict=True)
            frames = np.stack(pictures)
            if (regions := self.regions()) is not None:
                regions.repaint(frames, np.stack(new), [flow.mouth_gap for flow in flows])
            self._made.update((p.tobytes(), f) for p, f in zip(new, frames, strict=True))
        return Rendered(np.stack([self._made[points.tobytes()] for points in driven.landmarks]))

    def changes(self, points: NDArray[np.float32]) -> Sequence[None]:
        """They are told when it is moved."""
        return [None] * len(points)

    def moved(
        self, points: NDArray[np.float32], change: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.uint8], Correspondence]:
        """See `Warped`."""
        del change
        return self._warp.moved(points)

    def warped(self, points: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """See `Warped`."""
        frame, flow = self._warp.moved(points)
        return frame, flow.mouth_gap
