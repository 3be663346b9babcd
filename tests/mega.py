"""The smallest MegaPortraits that has all of its parts."""

from __future__ import annotations

from metaportrait_cli.networks.mega.config import MegaConfig

TINY = MegaConfig(
    size=32,
    encoder=(8, 8, 16),
    channels=8,
    depth=4,
    blocks_3d=1,
    global_layers=(1, 1),
    global_width=8,
    motion_layers=(1, 1),
    motion_width=8,
    look=32,
    code=16,
    expression=12,
    warp=(16, 8),
    volume=(8, 8, 8),
    decoder=(16, 8, 8),
    blocks_2d=1,
    groups=4,
)
