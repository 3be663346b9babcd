"""G_base: a source's appearance under a driver's motion (equations 1 to 3)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from metaportrait_cli.networks.mega.config import MegaConfig
from metaportrait_cli.networks.mega.decoder import Decoder
from metaportrait_cli.networks.mega.encoders import (
    ExpressionEncoder,
    GlobalEncoder,
    MotionCode,
    VolumeEncoder,
    aligned,
)
from metaportrait_cli.networks.mega.volume import VolumeNetwork
from metaportrait_cli.networks.mega.warping import (
    WarpingGenerator,
    from_canonical,
    to_canonical,
)
from metaportrait_cli.networks.network import Network


@dataclass(frozen=True)
class Appearance:
    """All that a source decides: made once."""

    canonical: Tensor
    """G_3D's volume (B, C, D, H, W), looking ahead, without expression"""
    e: Tensor
    """(B, K, 4, 4)"""


class BaseModel(Network):
    """All networks of the base model.

    Pictures are (B, 3, S, S), RGB in [0, 1] times the person's matte: only the person is learnt.
    `head` (B, 4, 4) takes canonical coordinates to the picture's, see `warping`.
    """

    config_type = MegaConfig

    def __init__(self, config: MegaConfig) -> None:
        super().__init__(config)
        self.volume_encoder = VolumeEncoder(config)
        self.global_encoder = GlobalEncoder(config)
        self.expression_encoder = ExpressionEncoder(config)
        self.code = MotionCode(config)
        self.warp_source = WarpingGenerator(config)  # W_s->
        self.warp_driver = WarpingGenerator(config)  # W_->d
        self.volume = VolumeNetwork(config)  # G_3D
        self.decoder = Decoder(config)  # G_2D

    def expression(self, picture: Tensor, head: Tensor) -> Tensor:
        """z (B, N) of pictures (B, 3, S, S), differentiable in them."""
        return self.expression_encoder(aligned(picture, head, size=self.config.look))

    def appearance(self, source: Tensor, head: Tensor, z: Tensor) -> Appearance:
        """Of a source with its pose and expression: G_3D(w_em(w_rt(v_s)))."""
        v, e = self.volume_encoder(source), self.global_encoder(source)
        w_em = self.warp_source(self.code(z, e))
        return Appearance(canonical=self.volume(to_canonical(v, head, w_em)), e=e)

    def drive(self, seen: Appearance, head: Tensor, z: Tensor) -> Tensor:
        """Colours and matte (B, 4, S, S) of the source in a driver's pose and expression."""
        w_em = self.warp_driver(self.code(z, seen.e))
        return self.decoder(from_canonical(seen.canonical, head, w_em))

    def forward(
        self, source: Tensor, source_head: Tensor, driver_head: Tensor, driver_look: Tensor
    ) -> Tensor:
        """The driver's picture painted from a source; `driver_look` (B, 3, L, L) is aligned."""
        seen = self.appearance(source, source_head, self.expression(source, source_head))
        return self.drive(seen, driver_head, self.expression_encoder(driver_look))
