"""What `personalize` is asked for, and what it tells."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import metaportrait_cli
from metaportrait_cli.errors import UsageError, check_kinds
from metaportrait_cli.face.track import LARGEST_FACE, FaceChoice


@dataclass(frozen=True)
class PersonalizeOptions:
    """Settings; see the command's help for what users are told."""

    seconds: float = 30.0
    """Time the adaptation may take; all else is prepared before"""
    seed: int = 0
    face: FaceChoice = LARGEST_FACE

    def __post_init__(self) -> None:
        check_kinds(self)
        if not 0 <= self.seconds <= 86_400:
            raise UsageError(f"`seconds` {self.seconds} is not between 0 and 86400")


@dataclass
class PersonalizeReport:
    """What was done, and what it brought."""

    inputs: list[str]
    output: str
    settings: dict[str, Any]
    looks: int = 0
    """Usable pictures of the person"""
    views: int = 1
    """Pictures in the portrait, the canvas among them"""
    lends: str = "face"
    held_out: int = 0
    """Frames that the qualities below are of"""
    quality: dict[str, dict[str, float]] = field(default_factory=dict)
    """By what was used: `before` is the canvas alone, `after` is what the portrait does"""
    adaptation: dict[str, Any] = field(default_factory=dict)
    sheet: str = ""
    bytes: int = 0
    notes: list[str] = field(default_factory=list)
    stage_seconds: dict[str, float] = field(default_factory=dict)
    version: str = metaportrait_cli.__version__

    def as_json(self) -> dict[str, Any]:
        """A dictionary that `json.dumps` takes."""
        return {"command": "personalize", **asdict(self)}

    def change(self, metric: str) -> float:
        """Relative change of a metric from before to after; negative is better."""
        before = self.quality["before"][metric]
        return self.quality["after"][metric] / before - 1 if before else 0.0
