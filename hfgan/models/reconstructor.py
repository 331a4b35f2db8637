"""Reconstruction encoder: an image to the one w that draws it best (Mokady et al. 2022, arXiv 2202.12211 §3.1).

A single w and not one per layer, on purpose: an encoder into w_plus reconstructs outliers too, and what cannot be
drawn again is what the self-filter looks for.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Self

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from hfgan.models.base import HFGanModel
from hfgan.models.discriminator import DiscriminatorBlock, StyleGAN2Discriminator
from hfgan.models.layers import SQRT2, EqualizedConv2d, EqualizedLinear, lrelu
from hfgan.models.stylegan2 import StyleGAN2Generator, channels_at, check_resolution


class ReconstructionEncoder(HFGanModel):
    """Image to w: the discriminator's trunk without minibatch deviation, and a linear layer that starts at zero.

    An untrained encoder answers `w_avg`, the mean image, to everything.

    Args:
        resolution: Image size [pixels], a power of two in 16..1024.
        img_channels: 1, 3 or 4.
        w_dim: Size of w.
        channel_base, channel_max: Channels at a resolution are channel_base / resolution, at most channel_max.
    """

    @register_to_config
    def __init__(
        self, *, resolution: int = 64, img_channels: int = 3, w_dim: int = 512, channel_base: int = 32768,
        channel_max: int = 512,
    ) -> None:  # fmt: skip
        super().__init__()
        check_resolution(resolution)
        sizes = [2**k for k in range(int(math.log2(resolution)), 1, -1)]
        widths = [channels_at(size, channel_base, channel_max) for size in sizes]
        self.fromrgb = EqualizedConv2d(img_channels, widths[0], 1)
        self.blocks = nn.ModuleList(DiscriminatorBlock(above, below) for above, below in pairwise(widths))
        self.conv = EqualizedConv2d(widths[-1], widths[-1], 3)
        self.fc = EqualizedLinear(widths[-1] * 16, widths[-1])
        self.out = EqualizedLinear(widths[-1], w_dim)
        nn.init.zeros_(self.out.weight)
        self.register_buffer("w_avg", torch.zeros(w_dim))
        self.compute_dtype = torch.float32

    @classmethod
    def beside(cls, generator: StyleGAN2Generator, discriminator: StyleGAN2Discriminator | None) -> Self:
        """An untrained encoder for a generator; what the discriminator knows of its images is taken over."""
        config = generator.config
        sizes = {name: config[name] for name in ("resolution", "img_channels", "channel_base", "channel_max")}
        encoder = cls(**sizes, w_dim=config.w_dim)
        encoder.w_avg.copy_(generator.mapping.w_avg)
        if discriminator is not None and all(discriminator.config[name] == value for name, value in sizes.items()):
            encoder.fromrgb.load_state_dict(discriminator.fromrgb.state_dict())
            encoder.blocks.load_state_dict(discriminator.blocks.state_dict())
        return encoder.set_compute_dtype(generator.dtype)

    def forward(self, image: Tensor) -> Tensor:
        """w (n, w_dim), fp32, of images (n, img_channels, r, r) in [-1, 1]."""
        x = image.to(dtype=self.compute_dtype, memory_format=torch.channels_last)  # (n, c, r, r)
        x = lrelu(self.fromrgb(x, gain=SQRT2))  # (n, c_r, r, r)
        for block in self.blocks:
            x = block(x, None)  # (n, c, h/2, w/2)
        x = lrelu(self.conv(x.float(), gain=SQRT2))  # (n, c4, 4, 4), from here on in fp32
        x = lrelu(self.fc(x.flatten(1), gain=SQRT2))  # (n, c4)
        return self.w_avg + self.out(x)  # (n, w_dim)
