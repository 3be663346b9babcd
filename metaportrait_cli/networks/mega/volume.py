"""G_3D: the volume, brought to its canonical place, made canonical (figure 9 c)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from metaportrait_cli.networks.mega.blocks import Residual, StandardConv, resized_3d
from metaportrait_cli.networks.mega.config import MegaConfig


class VolumeNetwork(nn.Module):
    """A U-Net (B, C, D, H, W) -> the same; its depth grows first while the other sides shrink."""

    def __init__(self, config: MegaConfig) -> None:
        super().__init__()
        outer, middle, inner = config.volume  # 192, 384, 512

        def block(before: int, after: int) -> Residual:
            return Residual(before, after, groups=config.groups, dimensions=3)

        self.down1, self.down2 = block(config.channels, outer), block(outer, middle)
        self.inner1, self.inner2 = block(middle, inner), block(inner, inner)
        self.up2, self.skip2 = block(inner, middle), block(middle, middle)
        self.up1, self.skip1 = block(middle, outer), block(outer, outer)
        self.out = block(outer, config.channels)
        self.norm = nn.GroupNorm(config.groups, config.channels)
        self.last = StandardConv(config.channels, config.channels, kernel=3, dimensions=3)

    def forward(self, volume: Tensor) -> Tensor:
        depth, height, width = volume.shape[2:]
        whole = (depth, height, width)  # (16, 64, 64)
        half = (2 * depth, height // 2, width // 2)  # (32, 32, 32): Downsample(2, 1/2, 1/2)
        quarter = (depth, height // 4, width // 4)  # (16, 16, 16)
        fine = self.down1(volume)
        coarse = self.down2(resized_3d(fine, half))
        x = self.inner2(self.inner1(resized_3d(coarse, quarter)))
        x = resized_3d(self.up2(x), half) + self.skip2(coarse)
        x = resized_3d(self.up1(x), whole) + self.skip1(fine)
        return self.last(F.relu(self.norm(self.out(x))))
