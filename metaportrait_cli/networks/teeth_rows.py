"""Rows of teeth as a file of weights holds them; see `networks/teeth.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from metaportrait_cli.networks.network import Network
from metaportrait_cli.networks.teeth import RAISED_FEATURES, SKULL_POINTS, TeethConfig


class TeethRows(Network):
    """Mean rows of teeth."""

    config_type = TeethConfig
    skull: Tensor
    """(30, 3) the mean face's points that expressions hardly move, in millimetres"""
    upper: Tensor
    lower: Tensor
    raised: Tensor
    """(8,) how far the lower row stands above the lip: factors of the features, and a constant"""

    def __init__(self, config: TeethConfig) -> None:
        super().__init__(config)
        self.register_buffer("skull", torch.zeros(SKULL_POINTS, 3))
        self.register_buffer("upper", torch.zeros(config.texture))
        self.register_buffer("lower", torch.zeros(config.texture))
        self.register_buffer("raised", torch.zeros(RAISED_FEATURES + 1))
