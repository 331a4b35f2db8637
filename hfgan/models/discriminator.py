"""StyleGAN2 discriminator (Karras et al. 2020, arXiv 1912.04958 §4.1): residual blocks, minibatch deviation."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from hfgan.models.base import HFGanModel
from hfgan.models.layers import SQRT2, EqualizedConv2d, EqualizedLinear, lrelu, minibatch_stddev
from hfgan.models.stylegan2 import MappingNetwork, channels_at, check_resolution

SQRT_HALF = math.sqrt(0.5)


class DiscriminatorBlock(nn.Module):
    """Two convolutions beside a skip, both scaled by sqrt(1/2) and added; halves the size."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv0 = EqualizedConv2d(in_channels, in_channels, 3)
        self.conv1 = EqualizedConv2d(in_channels, out_channels, 3, down=True)
        self.skip = EqualizedConv2d(in_channels, out_channels, 1, bias=False, down=True)

    def forward(self, x: Tensor, clamp: float | None) -> Tensor:  # (n, i, h, w)
        y = lrelu(self.conv0(x, gain=SQRT2), clamp)  # (n, i, h, w)
        y = lrelu(self.conv1(y), None if clamp is None else clamp * SQRT_HALF)  # (n, o, h/2, w/2)
        return y + self.skip(x, gain=SQRT_HALF)  # (n, o, h/2, w/2)


class StyleGAN2Discriminator(HFGanModel):
    """Image to logit: positive for real.

    Args:
        resolution: Image size [pixels], a power of two in 16..1024.
        img_channels: 1, 3 or 4.
        c_dim: Number of classes; 0 for none. With classes the logit is a projection onto the label's embedding.
        channel_base, channel_max: Channels at a resolution are channel_base / resolution, at most channel_max.
        mbstd_group, mbstd_channels: Group size and appended channels of the minibatch standard deviation.
        conv_clamp: Limit of activations in published half-precision models, None for none.
    """

    @register_to_config
    def __init__(
        self, *, resolution: int = 64, img_channels: int = 3, c_dim: int = 0, channel_base: int = 32768,
        channel_max: int = 512, mbstd_group: int | None = 4, mbstd_channels: int = 1, conv_clamp: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        check_resolution(resolution)
        sizes = [2**k for k in range(int(math.log2(resolution)), 1, -1)]
        widths = [channels_at(size, channel_base, channel_max) for size in sizes]
        self.fromrgb = EqualizedConv2d(img_channels, widths[0], 1)
        self.blocks = nn.ModuleList(DiscriminatorBlock(above, below) for above, below in pairwise(widths))
        self.conv = EqualizedConv2d(widths[-1] + mbstd_channels, widths[-1], 3)
        self.fc = EqualizedLinear(widths[-1] * 16, widths[-1])
        self.out = EqualizedLinear(widths[-1], widths[-1] if c_dim else 1)
        self.label_mapping = MappingNetwork(z_dim=0, w_dim=widths[-1], c_dim=c_dim, num_layers=8) if c_dim else None
        self.compute_dtype = torch.float32

    def features(self, image: Tensor) -> list[Tensor]:
        """Activations of every resolution: image (n, c, r, r) in [-1, 1] to [(n, c_r, r, r), ..., (n, c_4, 4, 4)]."""
        clamp = self.config.conv_clamp
        x = image.to(dtype=self.compute_dtype, memory_format=torch.channels_last)  # (n, c, r, r)
        x = lrelu(self.fromrgb(x, gain=SQRT2), clamp)  # (n, c_r, r, r)
        taps = [x]
        for block in self.blocks:
            x = block(x, clamp)  # (n, c, h/2, w/2)
            taps.append(x)
        return taps

    def forward(self, image: Tensor, c: Tensor | None = None) -> Tensor:
        """Logits (n, 1) of images (n, img_channels, r, r) in [-1, 1], one-hot labels c (n, c_dim)."""
        x = self.features(image)[-1].float()  # (n, c4, 4, 4), from here on in fp32
        x = minibatch_stddev(x, self.config.mbstd_group, self.config.mbstd_channels)  # (n, c4 + f, 4, 4)
        x = lrelu(self.conv(x, gain=SQRT2), self.config.conv_clamp)  # (n, c4, 4, 4)
        x = lrelu(self.fc(x.flatten(1), gain=SQRT2))  # (n, c4)
        x = self.out(x)  # (n, 1), or (n, c4) with classes
        if self.label_mapping is None:
            return x
        label = self.label_mapping(None, c)  # (n, c4)
        return (x * label).sum(dim=1, keepdim=True) / math.sqrt(label.shape[1])  # (n, 1)
