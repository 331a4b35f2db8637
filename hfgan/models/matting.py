"""Matting network: an RGB picture to the alpha of its foreground, learned from what a generator drew with its alpha.

A small U-Net (Ronneberger et al. 2015, arXiv 1505.04597); it knows neither latents nor the generator, so that a photo
has an alpha without being inverted (Abdal et al. 2021, arXiv 2103.14968: generated pairs train a segmenter).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from diffusers.configuration_utils import register_to_config
from PIL.Image import Image, Resampling
from torch import Tensor, nn
from torch.nn import functional as F

from hfgan.images import to_tensor
from hfgan.models.base import HFGanModel

MAX_ASPECT = 8  # a longer strip would not fit beside what the network has seen


class Stage(nn.Sequential):
    """Two 3x3 convolutions at one resolution: (n, i, h, w) to (n, o, h, w)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        layers = []
        for below in (in_channels, out_channels):
            layers += [nn.Conv2d(below, out_channels, 3, padding=1, bias=False), nn.GroupNorm(8, out_channels),
                       nn.LeakyReLU(0.1)]  # fmt: skip
        super().__init__(*layers)


def unet(in_channels: int, widths: Sequence[int]) -> tuple[nn.ModuleList, nn.ModuleList]:
    """The stages of a U-Net, down to the coarsest, and up again."""
    down = nn.ModuleList(Stage(below, width) for below, width in zip([in_channels, *widths], widths, strict=False))
    return down, nn.ModuleList(Stage(width + below, width) for below, width in pairwise(reversed(widths)))


def through(down: nn.ModuleList, up: nn.ModuleList, x: Tensor) -> Tensor:
    """x (n, i, h, w) through the stages of a U-Net: (n, widths[0], h, w)."""
    kept = []
    for stage in down:
        x = stage(F.avg_pool2d(x, 2) if kept else x)  # (n, widths[k], h / 2^k, w / 2^k)
        kept.append(x)
    for stage, skip in zip(up, reversed(kept[:-1]), strict=True):
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        x = stage(torch.cat([skip, x], dim=1))  # (n, widths[k], h / 2^k, w / 2^k)
    return x


class MattingNetwork(HFGanModel):
    """RGB to the logit of alpha; fully convolutional.

    Args:
        resolution: Shorter side [pixels] of the pictures that it was trained on.
        widths: Channels at full size, half, a quarter, ...; multiples of 8.
    """

    @register_to_config
    def __init__(self, *, resolution: int = 64, widths: Sequence[int] = (24, 48, 96, 128)) -> None:
        super().__init__()
        if len(widths) < 2 or any(width < 8 or width % 8 for width in widths):
            raise ValueError(f"widths are {list(widths)}: expected two or more multiples of 8")
        self.encoder, self.decoder = unet(3, widths)
        self.out = nn.Conv2d(widths[0], 1, 1)

    @property
    def multiple(self) -> int:
        """What both sides of a picture must be divisible by."""
        return 2 ** len(self.decoder)

    def forward(self, image: Tensor) -> Tensor:
        """The logit (n, 1, h, w) of alpha, fp32, of images (n, 3, h, w) in [-1, 1]."""
        return self.out(through(self.encoder, self.decoder, image))

    @torch.no_grad()
    def see(self, photo: Image) -> Tensor:
        """Alpha (1, 1, a, b) of an RGB photo of any size, its shorter side seen at `resolution` pixels."""
        shorter, longer = sorted(photo.size)
        if longer > MAX_ASPECT * shorter:
            raise ValueError(
                f"the photo has {photo.width}x{photo.height} pixels: expected at most {MAX_ASPECT}:1, crop it first"
            )
        scale, step = self.config.resolution / shorter, self.multiple
        width, height = (max(round(side * scale / step), 1) * step for side in photo.size)
        seen = to_tensor(photo.resize((width, height), Resampling.LANCZOS))  # (1, 3, a, b)
        return self(seen.to(self.device)).sigmoid().cpu()
