"""The alpha network that Labels4Free published (Abdal et al. 2021, arXiv 2103.14968 §3), number for number.

Both activations of each resolution r are projected, e_r = [P_1 f_(r,1), P_2 f_(r,2)], and merged from coarse to fine:

    h = up(e_r)                     at the first resolution,
    h = up(lrelu(M_r [e_r, h]))     at those in between,
    alpha = sigmoid(N (e_r + h))    at the last,

all matrices with a bias, and `up` bicubic with corner on corner, which moves what lies at the border by pixels; the
weights were trained with it. `AlphaNetwork` is what this package trains itself.
"""

from __future__ import annotations

import math
from typing import Self

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from hfgan.models.alpha import AlphaModel, AlphaStream, check_silenced, layer_resolution, project
from hfgan.models.layers import lrelu
from hfgan.models.stylegan2 import StyleGAN2Generator, channels_at, check_resolution

PROJECTED = 3  # channels of each activation
HIDDEN = 2 * PROJECTED  # of e and h
COARSEST = 8  # px, where a generator has two activations for the first time


class Labels4FreeAlpha(AlphaModel):
    """Alpha of what a generator draws, by a network of Labels4Free.

    Args:
        resolution, channel_base, channel_max: Those of the generator.
        first_resolution: The coarsest activations that are looked at [pixels].
        background_layer: The layer to silence for a background without the subject, -1 being the constant.
        generator_fingerprint: Of the generator that this was trained beside; it means nothing beside another.
    """

    @register_to_config
    def __init__(
        self, *, resolution: int = 256, channel_base: int = 32768, channel_max: int = 512, first_resolution: int = 8,
        background_layer: int = 0, generator_fingerprint: str = "",
    ) -> None:  # fmt: skip
        super().__init__()
        check_resolution(resolution)
        sizes = [2**k for k in range(int(math.log2(COARSEST)), int(math.log2(resolution)) + 1)]
        if first_resolution not in sizes:
            raise ValueError(
                f"first_resolution is {first_resolution}: expected a power of two from {COARSEST} to {resolution}"
            )
        check_silenced(background_layer, resolution)
        self.resolution, self.first_resolution = resolution, first_resolution
        self.taps = nn.ModuleDict()  # P, by layer
        for layer in range(2 * int(math.log2(resolution)) - 3):
            size = layer_resolution(layer)
            if size >= first_resolution:
                self.taps[str(layer)] = nn.Conv2d(channels_at(size, channel_base, channel_max), PROJECTED, 1)
        between = [size for size in sizes if first_resolution < size < resolution]
        self.merges = nn.ModuleDict({str(size): nn.Conv2d(2 * HIDDEN, HIDDEN, 1) for size in between})  # M
        self.out = nn.Conv2d(HIDDEN, 1, 1)  # N

    @classmethod
    def beside(cls, generator: StyleGAN2Generator, **shape: int) -> Self:
        """An untrained network for a generator, as published for its resolution; `shape` are other arguments."""
        same = {name: generator.config[name] for name in ("resolution", "channel_base", "channel_max")}
        size = same["resolution"]
        published = {"first_resolution": max(COARSEST, size // 32), "background_layer": -1 if size == 512 else 0}
        fingerprint = generator.fingerprint()
        return cls(**same, **published | shape, generator_fingerprint=fingerprint).to(generator.device)

    def stream(self) -> Labels4FreeStream:
        return Labels4FreeStream(self)


class Labels4FreeStream(AlphaStream):
    """The state of the network while the generator draws: called with every activation in turn.

    Attributes:
        state: (n, 6, r, r), h at the size of the next activations; after the last (n, 1, r, r), the logit.
        first: (n, 3, r, r), the projection of a first activation until the second is there.
    """

    first: Tensor | None = None

    def __call__(self, layer: int, x: Tensor) -> None:  # (n, c, r, r)
        net, size = self.net, x.shape[2]
        if str(layer) not in net.taps:
            return
        seen = project(net.taps[str(layer)], x)  # (n, 3, r, r)
        if layer % 2:  # the second activation of this resolution is still to come
            self.first = seen
            return
        seen = torch.cat([self.first, seen], dim=1)  # (n, 6, r, r), e
        self.first = None
        if size == net.resolution:
            self.state = project(net.out, seen if self.state is None else seen.add_(self.state))  # (n, 1, r, r)
            return
        if self.state is not None:
            merged = torch.cat([seen, self.state], dim=1)  # (n, 12, r, r)
            seen = lrelu(project(net.merges[str(size)], merged))  # (n, 6, r, r)
        self.state = enlarge_corners(seen)  # (n, 6, 2r, 2r)


def enlarge_corners(x: Tensor) -> Tensor:
    """(n, c, h, w) to (n, c, 2h, 2w), bicubic from corner to corner: what is off the centre moves outward."""
    return F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=True)
