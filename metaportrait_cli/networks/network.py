"""What all networks have in common: they are built from one frozen dataclass."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn


class Network(nn.Module):
    """A network that its config describes completely, so that a file can say how to build it."""

    config_type: ClassVar[type[Any]]
    """A frozen dataclass of numbers, strings, booleans and tuples of them"""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
