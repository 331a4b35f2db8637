"""Alpha network of Labels4Free (Abdal et al. 2021, arXiv 2103.14968): what the generator sees while it draws, to alpha.

Each activation is projected the moment it is produced, so that only a few channels of it are ever kept. Up to
`trunk_resolution` projections are merged from coarse to fine; above it every resolution adds to the logit what a
linear look at its activations says. The last level of the paper, a sum before a 1x1 convolution, is linear too.
"""

from __future__ import annotations

import math
from typing import Self

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from hfgan.models.base import HFGanModel
from hfgan.models.layers import LRELU_SLOPE
from hfgan.models.stylegan2 import Noise, StyleGAN2Generator, channels_at, check_resolution


class AlphaNetwork(HFGanModel):
    """Alpha of what a generator draws, from its activations.

    Args:
        resolution, channel_base, channel_max: Those of the generator.
        first_resolution: The coarsest activations that are looked at [pixels].
        trunk_resolution: The finest that are merged; finer ones add to the logit.
        proj_dim: Channels that are kept of an activation.
        kernel_size: Of the merges, 1 or 3.
        background_layer: The layer to silence for a background without the subject, -1 being the constant.
        generator_fingerprint: Of the generator that this was trained beside; it means nothing beside another.
    """

    @register_to_config
    def __init__(
        self, *, resolution: int = 64, channel_base: int = 32768, channel_max: int = 512, first_resolution: int = 4,
        trunk_resolution: int = 64, proj_dim: int = 8, kernel_size: int = 3, background_layer: int = 0,
        generator_fingerprint: str = "",
    ) -> None:  # fmt: skip
        super().__init__()
        for size in (resolution, trunk_resolution):
            check_resolution(size)
        if not 4 <= first_resolution <= trunk_resolution <= resolution or kernel_size not in (1, 3) or proj_dim < 1:
            raise ValueError(
                f"first_resolution {first_resolution}, trunk_resolution {trunk_resolution}, resolution {resolution}, "
                f"kernel_size {kernel_size}, proj_dim {proj_dim}: expected 4 <= first <= trunk <= resolution, "
                "a kernel of 1 or 3 and a positive proj_dim"
            )
        sizes = [layer_resolution(layer) for layer in range(2 * int(math.log2(resolution)) - 3)]
        self.taps = nn.ModuleDict(
            {
                str(layer): nn.Conv2d(
                    channels_at(size, channel_base, channel_max), proj_dim if size <= trunk_resolution else 1, 1
                )
                for layer, size in enumerate(sizes)
                if size >= first_resolution
            }
        )
        hidden = 2 * proj_dim
        coarse = {size: proj_dim * sizes.count(size) for size in sizes if first_resolution <= size <= trunk_resolution}
        self.merges = nn.ModuleDict()
        below = coarse.pop(first_resolution)
        for size, width in coarse.items():
            self.merges[str(size)] = nn.Conv2d(width + below, hidden, kernel_size, padding=kernel_size // 2)
            below = hidden
        self.out = nn.Conv2d(below, 1, 1)

    @classmethod
    def beside(cls, generator: StyleGAN2Generator, **shape: int) -> Self:
        """An untrained network for a generator; `shape` are arguments that are not the generator's."""
        same = {name: generator.config[name] for name in ("resolution", "channel_base", "channel_max")}
        shape = {"trunk_resolution": min(64, same["resolution"])} | shape
        return cls(**same, **shape, generator_fingerprint=generator.fingerprint()).to(generator.device)

    def check_generator(self, generator: StyleGAN2Generator) -> None:
        """Raise ValueError unless this was trained beside these weights."""
        known, given = self.config.generator_fingerprint, generator.fingerprint()
        if known != given:
            raise ValueError(
                f"this alpha network belongs to a generator with weights {known}, not {given}: load the model that "
                "it came with, or train one with `accelerate launch training/train.py alpha`"
            )

    def forward(
        self, generator: StyleGAN2Generator, w_plus: Tensor, noise_mode: str = "const", noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """Draw images and their alpha in one pass.

        Args:
            w_plus: (n, num_ws, w_dim).
            noise_mode, noise: As `noise_mode` and `generator` of the synthesis.

        Returns:
            Images (n, img_channels, r, r), about [-1, 1], and the logit (n, 1, r, r) of alpha, both fp32.
        """
        stream = AlphaStream(self)
        image = generator.synthesis(w_plus, noise_mode, noise, tap=stream)
        return image, stream.logit


class AlphaStream:
    """The state of an alpha network while the generator draws: called with every activation in turn.

    Attributes:
        logit: (n, 1, r, r) fp32 once all have been seen.
    """

    def __init__(self, net: AlphaNetwork) -> None:
        self.net, self.parts = net, []
        self.hidden: Tensor | None = None
        self.logit: Tensor | None = None

    def __call__(self, layer: int, x: Tensor) -> None:  # (n, c, r, r)
        net, size = self.net, x.shape[2]
        if str(layer) not in net.taps:
            return
        seen = project(net.taps[str(layer)], x)  # (n, proj_dim or 1, r, r)
        if size > net.config.trunk_resolution:
            self.logit = seen + (self.logit if self.logit.shape == seen.shape else enlarge(self.logit))
            return
        self.parts.append(seen)
        if layer % 2:  # the second activation of this resolution is still to come
            return
        if self.hidden is None:
            self.hidden = torch.cat(self.parts, dim=1)  # (n, proj_dim or 2 proj_dim, r, r)
        else:
            merged = net.merges[str(size)](torch.cat([*self.parts, enlarge(self.hidden)], dim=1))
            self.hidden = F.leaky_relu(merged, LRELU_SLOPE)  # (n, 2 proj_dim, r, r)
        self.parts = []
        if size == net.config.trunk_resolution:
            self.logit = net.out(self.hidden)  # (n, 1, r, r)


def layer_resolution(layer: int) -> int:
    """Size [pixels] of the activations of a convolution: 4, 8, 8, 16, 16, ..."""
    return 4 * 2 ** ((layer + 1) // 2)


def project(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1x1 convolution computed in the dtype of x (n, i, r, r), to (n, o, r, r) in fp32."""
    return F.conv2d(x, conv.weight.to(x.dtype), conv.bias.to(x.dtype)).float()


def enlarge(x: Tensor) -> Tensor:
    """(n, c, h, w) to (n, c, 2h, 2w), bilinear between pixel centres: nothing is displaced."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
