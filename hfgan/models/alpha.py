"""Alpha network of Labels4Free (Abdal et al. 2021, arXiv 2103.14968): what the generator sees as it draws, to alpha.

Each activation is projected the moment it is produced, so that only a few channels of it are ever kept. From coarse
to fine, with A f the projection of an activation and K a convolution,

    h_r = lrelu(A_1 f_(r,1) + A_2 f_(r,2) + up(K h_(r/2)))    up to `trunk_resolution`,
    l_r = a_1 f_(r,1) + a_2 f_(r,2) + up(l_(r/2))             above it,

and alpha is the sigmoid of the last l; the first activations f_(r,1) may be left out. Merges of the paper are 1x1
convolutions of concatenated projections, which is this with a 1x1 K: a product of matrices is a matrix, and a 1x1
convolution and `up` commute.
"""

from __future__ import annotations

import math
from typing import Self

from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from hfgan.models.base import BesideGenerator
from hfgan.models.layers import lrelu
from hfgan.models.stylegan2 import Noise, StyleGAN2Generator, channels_at, check_resolution

# activations in between are merged: coarser ones hardly know where they are, finer ones know colours
COARSE = {"first_resolution": 16, "trunk_resolution": 64}  # px


class AlphaModel(BesideGenerator):
    """Base of the networks that read alpha off a generator while it draws."""

    called = "alpha"

    def stream(self) -> AlphaStream:
        """What is to see every activation of one pass of the generator, as its `tap`; then it holds the logit."""
        raise TypeError(f"{type(self).__name__} does not say what it makes of activations")

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
        stream = self.stream()
        image = generator.synthesis(w_plus, noise_mode, noise, tap=stream)
        return image, stream.logit


class AlphaNetwork(AlphaModel):
    """Alpha of what a generator draws, from its activations.

    Args:
        resolution, channel_base, channel_max: Those of the generator.
        first_resolution: The coarsest activations that are looked at [pixels].
        trunk_resolution: The finest that are merged; finer ones add to the logit.
        per_resolution: Activations of each resolution that are looked at: 2, both, or 1, the last.
        hidden_dim: Channels of h.
        kernel_size: Of K, 1 or 3.
        background_layer: The layer to silence for a background without the subject, -1 being the constant.
        generator_fingerprint: Of the generator that this was trained beside; it means nothing beside another.
    """

    @register_to_config
    def __init__(
        self, *, resolution: int = 64, channel_base: int = 32768, channel_max: int = 512, first_resolution: int = 16,
        trunk_resolution: int = 64, per_resolution: int = 1, hidden_dim: int = 12, kernel_size: int = 3,
        background_layer: int = 0, generator_fingerprint: str = "",
    ) -> None:  # fmt: skip
        super().__init__()
        for size in (resolution, trunk_resolution):
            check_resolution(size)
        if not 4 <= first_resolution <= trunk_resolution <= resolution or hidden_dim < 1:
            raise ValueError(
                f"first_resolution {first_resolution}, trunk_resolution {trunk_resolution}, resolution {resolution}, "
                f"hidden_dim {hidden_dim}: expected 4 <= first <= trunk <= resolution and a positive hidden_dim"
            )
        if kernel_size not in (1, 3) or per_resolution not in (1, 2):
            raise ValueError(
                f"kernel_size is {kernel_size} and per_resolution {per_resolution}: expected 1 or 3, and 1 or 2"
            )
        check_silenced(background_layer, resolution)
        self.resolution, self.trunk_resolution = resolution, trunk_resolution
        self.taps = nn.ModuleDict()  # A and a, by layer
        for layer in range(2 * int(math.log2(resolution)) - 3):
            size = layer_resolution(layer)
            if size >= first_resolution and (layer % 2 == 0 or per_resolution == 2):
                channels = channels_at(size, channel_base, channel_max)
                self.taps[str(layer)] = nn.Conv2d(channels, hidden_dim if size <= trunk_resolution else 1, 1)
        sizes = [2**k for k in range(int(math.log2(first_resolution)), int(math.log2(trunk_resolution)))]
        self.lifts = nn.ModuleDict(  # K, by the resolution of what it is applied to
            {
                str(size): nn.Conv2d(hidden_dim, hidden_dim, kernel_size, padding=kernel_size // 2, bias=False)
                for size in sizes
            }
        )
        self.out = nn.Conv2d(hidden_dim, 1, 1)

    @classmethod
    def beside(cls, generator: StyleGAN2Generator, **shape: int) -> Self:
        """An untrained network for a generator; `shape` are arguments that are not the generator's."""
        same = {name: generator.config[name] for name in ("resolution", "channel_base", "channel_max")}
        shape = {name: min(size, same["resolution"]) for name, size in COARSE.items()} | shape
        return cls(**same, **shape, generator_fingerprint=generator.fingerprint()).to(generator.device)

    def stream(self) -> AlphaStream:
        return AlphaStream(self)


class AlphaStream:
    """The state of an alpha network while the generator draws: called with every activation in turn.

    Attributes:
        state: (n, hidden_dim, r, r), h, or above the trunk (n, 1, r, r), l; None before the first. While the second
            activation of a resolution is still to come, the sum without it.
    """

    def __init__(self, net: AlphaModel) -> None:
        self.net = net
        self.state: Tensor | None = None

    def __call__(self, layer: int, x: Tensor) -> None:  # (n, c, r, r)
        net, size = self.net, x.shape[2]
        if str(layer) not in net.taps:
            return
        seen = project(net.taps[str(layer)], x)  # (n, hidden_dim or 1, r, r)
        self.state = seen if self.state is None else seen.add_(self.state)
        if layer % 2:  # the second activation of this resolution is still to come
            return
        trunk = net.trunk_resolution
        if size <= trunk:
            self.state = lrelu(self.state)  # (n, hidden_dim, r, r)
        if size == trunk:
            self.state = project(net.out, self.state)  # (n, 1, r, r)
        if size < net.resolution:
            lifted = net.lifts[str(size)](self.state) if size < trunk else self.state
            self.state = enlarge(lifted)  # (n, hidden_dim or 1, 2r, 2r)

    @property
    def logit(self) -> Tensor:
        """(n, 1, r, r) fp32, once all have been seen."""
        return self.state


def check_silenced(layer: int, resolution: int) -> None:
    """Raise ValueError unless a generator of `resolution` [pixels] has this layer to silence."""
    last = 2 * int(math.log2(resolution)) - 4
    if not -1 <= layer <= last:
        raise ValueError(f"background_layer is {layer}: expected -1, the constant, to {last}")


def layer_resolution(layer: int) -> int:
    """Size [pixels] of the activations of a convolution: 4, 8, 8, 16, 16, ..."""
    return 4 * 2 ** ((layer + 1) // 2)


def project(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1x1 convolution of x (n, i, h, w), computed in its dtype, to (n, o, h, w) in fp32."""
    pixels = x.permute(0, 2, 3, 1)  # (n, h, w, i), a view when x is channels_last
    seen = F.linear(pixels, conv.weight.flatten(1).to(x.dtype), conv.bias.to(x.dtype))  # (n, h, w, o)
    return seen.permute(0, 3, 1, 2).float()


def enlarge(x: Tensor) -> Tensor:
    """(n, c, h, w) to (n, c, 2h, 2w), bilinear between pixel centres: nothing is displaced."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
