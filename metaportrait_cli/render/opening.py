"""What a renderer is opened with, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from metaportrait_cli.progress import Progress, silent
from metaportrait_cli.render.protocol import Adaptable, Enhancer, Renderer, Styled

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Opening:
    """A file of weights, and where and how its networks are to compute."""

    path: Path
    device: str
    precision: str
    """A name of torch's"""
    exact: bool = False
    """Not even where that shows nothing may it be less"""
    deltas: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """What a person's portrait adds to parameters, by their names in the file"""
    on_notice: Callable[[str], None] = lambda _text: None
    """Hears what the user should know of these weights"""
    on_progress: Progress = silent
    """Hears of what takes long before the first frame"""

    @property
    def dtype(self) -> torch.dtype:
        """The precision as torch has it."""
        import torch  # noqa: PLC0415  takes seconds

        return getattr(torch, self.precision)


@dataclass(frozen=True)
class Rendering:
    """A renderer ready for use, what follows it, and the sha256 of each file it was read from."""

    renderer: Renderer
    enhancer: Enhancer | None = None
    adaptable: Adaptable | None = None
    """The renderer again, where its networks can be adapted to a person"""
    styled: Styled | None = None
    """The renderer again, where a person's style can be learnt"""
    weights: Mapping[str, str] = field(default_factory=dict)
    reads_driver: bool = False
    """Whether it wants to see the driver's pictures, see `protocol.DriverLooks`"""
    knows_its_people: bool = False
    """Whether it shows those alone whom it was taught"""

    @property
    def is_quick(self) -> bool:
        """Whether pictures are made about as fast as they are shown."""
        return self.renderer.keeps_detail and self.enhancer is None
