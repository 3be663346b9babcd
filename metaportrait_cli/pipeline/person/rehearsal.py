"""A renderer that is asked for the same frames again and again, and makes each of them once.

Personalizing renders the same driven frames by several ways, which share pictures, and with several
networks, which share the warps that they repaint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.regions import Kind
from metaportrait_cli.face.source import Source
from metaportrait_cli.render.protocol import (
    Adaptable,
    Driven,
    Rendered,
    Repainting,
    Session,
    Warped,
)
from metaportrait_cli.render.views import blended

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
        return blended(self._open_one, source, size=size, rate=rate)

    def _open_one(self, source: Source, *, size: int) -> Session:
        content = hashlib.blake2b(source.picture.tobytes())
        content.update(source.face.points.tobytes())
        content.update(repr((source.picture.shape, source.crop, size)).encode())
        key = content.digest()
        if key not in self._warps:
            self._warps[key] = _KeptWarp(self._renderer.open_warp(source, size=size))
        if key not in self._sessions:
            warp = self._warps[key]
            self._sessions[key] = _KeptSession(warp, warp.session.repainted_by(self._networks))
        return self._sessions[key]


@dataclass(frozen=True)
class _KeptWarp:
    """One picture's session and what it has moved, by the driven landmarks."""

    session: Warped
    made: dict[bytes, tuple[NDArray[np.uint8], NDArray[np.float32]]] = field(default_factory=dict)

    def warped(self, points: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """As of `Warped`; not to be written on."""
        key = points.tobytes()
        if key not in self.made:
            self.made[key] = self.session.warped(points)
        return self.made[key]


@dataclass(frozen=True)
class _KeptSession(Session):
    """One picture's warps, repainted by one set of networks."""

    warp: _KeptWarp
    regions: Repainting | None
    made: dict[bytes, NDArray[np.uint8]] = field(default_factory=dict)

    def render(self, driven: Driven) -> Rendered:
        """Pictures (T, S, S, 3)."""
        new = [points for points in driven.landmarks if points.tobytes() not in self.made]
        if new:
            pictures, gaps = zip(*map(self.warp.warped, new), strict=True)
            frames = np.stack(pictures)
            if self.regions is not None:
                self.regions.repaint(frames, np.stack(new), gaps)
            self.made.update((p.tobytes(), f) for p, f in zip(new, frames, strict=True))
        return Rendered(np.stack([self.made[points.tobytes()] for points in driven.landmarks]))
