"""How much of the motion each part of the face passes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Final

import numpy as np

from metaportrait_cli.errors import UsageError
from metaportrait_cli.face import topology
from metaportrait_cli.face.crop import smoothstep
from metaportrait_cli.motion.alignment import Floats

LARGEST: Final = 3.0
_REGIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "all": ("pose", "lips", "eyes", "brows", "rest"),
    "expression": ("lips", "eyes", "brows", "rest"),
    **{name: (name,) for name in ("pose", "lips", "eyes", "brows")},
}
# Distance to the part up to which a point belongs to it, and from which on it doesn't; 1 is the
# distance of the eyes' outer corners.
_REACH: Final = {"lips": (0.05, 0.3), "eyes": (0.03, 0.17), "brows": (0.06, 0.3)}
_JAW: Final = (0.0, 0.15)
"""The same below the corners of the mouth, where points move with it as they do with the jaw."""


@dataclass(frozen=True)
class Strengths:
    """0 keeps a part still, 1 moves it as much as the driver's, more exaggerates."""

    pose: float = 0.0
    lips: float = 0.0
    """The mouth, with jaw and chin"""
    eyes: float = 0.0
    """Lids and gaze"""
    brows: float = 0.0
    rest: float = 0.0
    """Of the face"""

    @classmethod
    def of(cls, region: str, strength: float) -> Strengths:
        """Of a list of names, such as `lips,eyes=0.5`; `strength` is that of those without their
        own. A later name changes what an earlier one said of more. Raises `UsageError`."""
        found: dict[str, float] = {}
        named: set[str] = set()
        for each in region.split(","):
            name, given, number = each.strip().partition("=")
            if name not in _REGIONS:
                known = ", ".join(_REGIONS)
                raise UsageError(f"`region` {region}: {name!r} is none of {known}")
            if name in named:
                raise UsageError(f"`region` {region}: {name} is named twice")
            named.add(name)
            try:
                own = float(number) if given else strength
            except ValueError as error:
                raise UsageError(f"`region` {region}: {number!r} is not a strength") from error
            if given and not 0 <= own <= LARGEST:
                raise UsageError(f"`region` {region}: {number} is not between 0 and {LARGEST:g}")
            found |= dict.fromkeys(_REGIONS[name], own)
        return cls(**found)

    @property
    def of_face(self) -> dict[str, float]:
        """All but the pose, by part."""
        return {field.name: getattr(self, field.name) for field in fields(self)[1:]}


def mixed(faces: Mapping[float, Floats], strengths: Strengths, mean: Floats) -> Floats:
    """Faces (T, 478, 3) of which each part is taken from those of its own strength.

    `mean` (478, 3) is the face that tells where the parts are.
    """
    if len(faces) == 1:
        return next(iter(faces.values()))
    shares = part_shares(mean.tobytes())
    return sum(
        (shares[part][:, None] * faces[value] for part, value in strengths.of_face.items()),
        start=np.zeros_like(next(iter(faces.values()))),
    )


@lru_cache(maxsize=2)
def part_shares(mean: bytes) -> dict[str, Floats]:
    """Each part's weight (478,) of all points, 1 in sum; of a mean face (478, 3) as bytes.

    Where parts meet, the first one has what it wants.
    """
    points = np.frombuffer(mean, np.float32).reshape(topology.POINTS, 3)
    unit = np.linalg.norm(points[topology.EYE_CORNERS[0][0]] - points[topology.EYE_CORNERS[1][0]])
    lines = {
        "lips": topology.ring("lips_outer"),
        "eyes": np.concatenate([topology.ring(f"{side}_eye") for side in ("left", "right")]),
        "brows": np.concatenate(
            [line for side in ("left", "right") for line in topology.brow(f"{side}_brow")]
        ),
    }
    shares = {}
    for part, line in lines.items():
        near, far = _REACH[part]
        apart = np.linalg.norm(points[:, None] - points[line], axis=-1).min(1) / unit
        shares[part] = 1 - smoothstep((apart - near) / (far - near))
    corners = points[list(topology.MOUTH_CORNERS), 1].mean()
    begin, whole = _JAW
    below = (points[:, 1] - corners) / unit
    shares["lips"] = np.maximum(shares["lips"], smoothstep((below - begin) / (whole - begin)))
    for iris in topology.IRISES:
        shares["eyes"][list(iris)] = 1
    left = np.ones(len(points), np.float32)
    for part in lines:
        shares[part] = (shares[part] * left).astype(np.float32)
        left = left - shares[part]
    return shares | {"rest": left}
