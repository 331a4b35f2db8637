"""Discriminator on frozen features (Projected GANs, Sauer et al. 2021, arXiv 2111.01007): learns from few images."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hfgan.models.layers import lrelu, minibatch_stddev
from hfgan.models.ops import conv2d
from hfgan.models.perceptual import MobileNetV2

FEATURE_CHANNELS = (24, 32, 96, 320)  # of the backbone, shallowest first
STRIDES = (4, 8, 16, 32)  # of those maps
PROJECTED_CHANNELS = 64  # after the random projection
GROUP = 4  # samples that are compared with each other


class SpectralConv2d(nn.Module):
    """3x3 convolution whose kernel is divided by its largest singular value (Miyato et al. 2018, arXiv 1802.05957)."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:  # (n, i, h, w)
        rows = self.weight.flatten(1)  # (o, i*9)
        norm = torch.linalg.eigvalsh(rows @ rows.t())[-1].sqrt()  # exact: no state to save, no iteration to wait for
        kernel = (self.weight / norm).to(dtype=x.dtype, memory_format=torch.channels_last)
        y = conv2d(x, kernel, stride=self.stride, padding=1)
        return y + self.bias.to(x.dtype).view(-1, 1, 1)  # (n, o, h/stride, w/stride)


def build_head(size: int) -> nn.ModuleList:
    """Convolutions that halve a map of `size` to 4 pixels a side, so that a logit sees most of the image (§3.2)."""
    width, halvings = PROJECTED_CHANNELS, max(size // 4, 1).bit_length() - 1
    convs = [SpectralConv2d(width + (i == 0), width, stride=2) for i in range(halvings)]
    return nn.ModuleList([*(convs or [SpectralConv2d(width + 1, width)]), SpectralConv2d(width, 1)])


class ProjectedDiscriminator(nn.Module):
    """One small head per scale on randomly mixed features of a frozen network.

    Args:
        backbone: Frozen feature network with maps at strides 4, 8, 16, 32.
        size: Images are resized to this size [pixels] before the backbone.
    """

    def __init__(self, backbone: MobileNetV2, *, size: int) -> None:
        super().__init__()
        width = PROJECTED_CHANNELS
        self.backbone, self.size = backbone, size
        self.compute_dtype = torch.float32
        # fixed random mixing over channels and scales (§3.2): buffers, because they are part of the network
        for scale, channels in enumerate(FEATURE_CHANNELS):
            self.register_buffer(f"mix_channels{scale}", torch.randn(width, channels, 1, 1) / math.sqrt(channels))
            self.register_buffer(f"mix_scales{scale}", torch.randn(width, width, 3, 3) / math.sqrt(9 * width))
        self.heads = nn.ModuleList(build_head(size // stride) for stride in STRIDES)

    def trainable_state(self) -> dict[str, Tensor]:
        """State of everything but the backbone, which comes from its own file."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("backbone.")}

    def project(self, image: Tensor) -> list[Tensor]:
        """Images (n, 3, r, r) in [-1, 1] to mixed maps (n, width, size/4, ...), ..., (n, width, size/32, ...)."""
        image = F.interpolate(image, size=(self.size, self.size), mode="bilinear", align_corners=False)
        # the backbone stays in fp32: CPUs have no fast bf16 kernel for the gradient of strided depthwise convolutions
        maps = self.backbone.features(image.to(dtype=torch.float32, memory_format=torch.channels_last))
        maps = [x.to(self.compute_dtype) for x in maps]
        mixed, below = [], None
        for scale in range(len(maps) - 1, -1, -1):  # coarse to fine
            x = F.conv2d(maps[scale], getattr(self, f"mix_channels{scale}").to(self.compute_dtype))  # (n, width, s, s)
            if below is not None:
                x = x + F.interpolate(below, scale_factor=2.0, mode="nearest")
            below = F.conv2d(
                x, getattr(self, f"mix_scales{scale}").to(self.compute_dtype), padding=1
            )  # (n, width, s, s)
            mixed.insert(0, below)
        return mixed

    def logits(self, mixed: list[Tensor]) -> Tensor:
        """Patch logits (n, m) of the maps that `project` gives, all scales side by side."""
        found = []
        for head, x in zip(self.heads, mixed, strict=True):
            x = minibatch_stddev(x, GROUP, 1)  # (n, width + 1, s, s), so that sameness is seen here too
            for conv in head[:-1]:
                x = lrelu(conv(x))  # (n, width, s/2, s/2) and so on
            found.append(head[-1](x).float().flatten(1))  # (n, 16)
        return torch.cat(found, dim=1)

    def forward(self, image: Tensor) -> Tensor:
        """Patch logits (n, m) of images (n, 3, r, r) in [-1, 1]."""
        return self.logits(self.project(image))
