"""StyleGAN2 generator (Karras et al. 2020, arXiv 1912.04958): z -> w -> image.

Numerically the network that published weights expect: eight-layer mapping at a hundredth of the learning rate,
modulated convolutions with demodulation, one noise image per layer, skip connections between RGB outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from hfgan.models.base import HFGanModel
from hfgan.models.layers import SQRT2, EqualizedLinear, ModulatedConv2d, ToRGB, lrelu, normalize_second_moment
from hfgan.models.ops import upsample

NOISE_MODES = ("const", "random", "none")

Noise = list[torch.Generator] | torch.Generator | None
Tap = Callable[[int, Tensor], None]  # sees layer and activation (n, c, r, r), as it is produced


def channels_at(resolution: int, channel_base: int, channel_max: int) -> int:
    """Feature channels at a resolution: channel_base / resolution, at most channel_max."""
    return min(channel_base // resolution, channel_max)


def check_resolution(resolution: int) -> None:
    """Raise ValueError unless `resolution` [pixels] is a power of two in 16..1024."""
    if resolution not in (16, 32, 64, 128, 256, 512, 1024):
        raise ValueError(f"resolution is {resolution}: give a power of two from 16 to 1024")


class MappingNetwork(nn.Module):
    """z (and class label c) to w: normalised input, fully connected layers with lrelu (arXiv 1812.04948 §2)."""

    def __init__(self, *, z_dim: int, w_dim: int, c_dim: int, num_layers: int, lr_multiplier: float = 0.01) -> None:
        super().__init__()
        if num_layers < 1 or z_dim + c_dim < 1:
            raise ValueError(
                f"mapping needs an input and a layer: got z_dim {z_dim}, c_dim {c_dim}, {num_layers} layers"
            )
        self.z_dim, self.c_dim = z_dim, c_dim
        self.embed = EqualizedLinear(c_dim, w_dim) if c_dim else None
        features = z_dim + (w_dim if c_dim else 0)
        self.layers = nn.ModuleList(
            EqualizedLinear(features if k == 0 else w_dim, w_dim, lr_multiplier=lr_multiplier)
            for k in range(num_layers)
        )
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor | None, c: Tensor | None = None) -> Tensor:  # (n, z_dim), (n, c_dim)
        inputs = []
        if self.z_dim:
            inputs.append(normalize_second_moment(z.float()))  # (n, z_dim)
        if self.c_dim:
            if c is None:
                raise ValueError(
                    f"this model has {self.c_dim} classes: give one-hot labels c of shape (n, {self.c_dim})"
                )
            inputs.append(normalize_second_moment(self.embed(c.float())))  # (n, w_dim)
        x = torch.cat(inputs, dim=1)
        for layer in self.layers:
            x = lrelu(layer(x, gain=SQRT2))  # (n, w_dim)
        return x

    def labels_in_turn(self, indices: Tensor) -> Tensor | None:
        """One-hot labels (n, c_dim) of class i modulo c_dim for indices i (n,); None for a model without classes."""
        if not self.c_dim:
            return None
        return torch.eye(self.c_dim, device=self.w_avg.device)[indices % self.c_dim]

    @torch.no_grad()
    def track_w_avg(self, w_mean: Tensor, beta: float = 0.998) -> None:
        """Move the running mean `w_avg` toward the mean (w_dim,) of a training batch of w."""
        self.w_avg.lerp_(w_mean, 1 - beta)


class SynthesisBlock(nn.Module):
    """One resolution: upsampling convolution, convolution, and an RGB image added to the one from below."""

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, resolution: int, img_channels: int) -> None:
        super().__init__()
        self.conv0 = ModulatedConv2d(in_channels, out_channels, w_dim, resolution, up=True) if in_channels else None
        self.conv1 = ModulatedConv2d(out_channels, out_channels, w_dim, resolution)
        self.torgb = ToRGB(out_channels, img_channels, w_dim)

    def convs(self) -> list[ModulatedConv2d]:
        return [self.conv1] if self.conv0 is None else [self.conv0, self.conv1]


class Synthesis(nn.Module):
    """Base of the networks from w_plus to an image: what callers need of any of them.

    Attributes:
        num_ws: Number of w vectors that it takes, and `ws_per_size` how many of them each resolution does.
        compute_dtype: Of the convolutions.
    """

    num_ws: int
    ws_per_size: int
    compute_dtype = torch.float32
    _frozen: tuple | None = None  # what `compile` saw of the weights

    def noise_images(self, n: int, mode: str, generator: Noise = None) -> list[Tensor | None]:
        """A noise image of mean 0 and deviation 1 for each convolution, for `draw`.

        They are (1, 1, r, r) when constant, (n, 1, r, r) when random, None when off; arguments as of `forward`.
        """
        raise TypeError(f"{type(self).__name__} does not say what its noise is")

    def draw(
        self, w_plus: Tensor, noise: list[Tensor | None], tap: Tap | None = None, silenced: int | None = None,
        alter: Callable[[int, Tensor], Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        """w_plus (n, num_ws, w_dim) and a noise image (1 or n, 1, r, r) or None for each convolution to images.

        `alter` gives what goes on in place of each activation (n, c, r, r), before it is tapped.
        """
        raise TypeError(f"{type(self).__name__} does not say how it draws")

    def affines(self) -> dict[int, Tensor]:
        """Weight (channels, w_dim), fp64 on the CPU, with which each layer of w_plus makes styles of convolutions."""
        raise TypeError(f"{type(self).__name__} does not say how it makes styles")

    def forward(
        self,
        w_plus: Tensor,
        noise_mode: str = "const",
        generator: Noise = None,
        *,
        tap: Tap | None = None,
        silenced: int | None = None,
    ) -> Tensor:
        """Draw images.

        Args:
            w_plus: (n, num_ws, w_dim), one w per layer.
            noise_mode: "const" (the stored noise images), "random" (new ones) or "none".
            generator: Source of random noise; a list gives one per sample.
            tap: Called with every activation; for the alpha network.
            silenced: Multiply the output of this layer by 0, -1 being the constant: what is left has no object, a
                background in the same colours (arXiv 2103.14968 §3; the paper silences -1 or 0).

        Returns:
            (n, img_channels, r, r) fp32, about [-1, 1] and not clamped.
        """
        noise = self.noise_images(len(w_plus), noise_mode, generator)
        if self._frozen is None or torch.is_grad_enabled() or tap or silenced is not None:
            return self.draw(w_plus, noise, tap, silenced)
        if self._frozen != self._written():
            raise RuntimeError("the weights are not those that were compiled: call compile() again")
        from torch._inductor import config

        with config.patch(freezing=True):
            return self._compiled_draw(self, w_plus, noise)

    def compile(self) -> None:
        """Compile for sampling; the next image at each batch size takes a while, those after it less time.

        Without gradients only: the weights are frozen into the compiled code. After changing them call it again.
        """
        torch.compiler.reset()
        self._compiled_draw, self._frozen = torch.compile(type(self).draw), self._written()

    def _written(self) -> tuple[tuple[int, int], ...]:
        """Changes with every write to the parameters."""
        return tuple((p.data_ptr(), 0 if p.is_inference() else p._version) for p in self.parameters())


class SynthesisNetwork(Synthesis):
    """w_plus to image: a learned 4x4 constant through blocks of doubling resolution."""

    ws_per_size = 2

    def __init__(
        self, *, resolution: int, img_channels: int, w_dim: int, channel_base: int, channel_max: int,
        conv_clamp: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        sizes = [2**k for k in range(2, int(math.log2(resolution)) + 1)]
        widths = [channels_at(size, channel_base, channel_max) for size in sizes]
        self.const = nn.Parameter(torch.randn(widths[0], 4, 4))
        self.blocks = nn.ModuleList(
            SynthesisBlock(below, width, w_dim, size, img_channels)
            for below, width, size in zip([0, *widths], widths, sizes, strict=False)
        )
        self.num_ws = self.ws_per_size * len(sizes)
        self.conv_clamp = conv_clamp

    def noise_images(self, n: int, mode: str, generator: Noise = None) -> list[Tensor | None]:
        return [draw_noise(conv, n, mode, generator) for conv in self.convs()]

    def affines(self) -> dict[int, Tensor]:
        affines = [conv.affine for conv in self.convs()]
        return {layer: a.weight.detach().cpu().double() * a.weight_gain for layer, a in enumerate(affines)}

    def convs(self) -> list[ModulatedConv2d]:
        """All convolutions, layer by layer."""
        return [conv for block in self.blocks for conv in block.convs()]

    def draw(
        self, w_plus: Tensor, noise: list[Tensor | None], tap: Tap | None = None, silenced: int | None = None,
        alter: Callable[[int, Tensor], Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        clamp = self.conv_clamp
        x = self.const.to(self.compute_dtype).expand(len(w_plus), -1, -1, -1)  # (n, c4, 4, 4)
        x = x.contiguous(memory_format=torch.channels_last) * (silenced != -1)
        image, layer = None, 0
        for block in self.blocks:
            for conv in block.convs():
                x = conv(x, w_plus[:, layer], noise[layer], clamp)  # (n, c, r, r)
                if layer == silenced:
                    x = torch.zeros_like(x)
                if alter:
                    x = alter(layer, x)
                if tap:
                    tap(layer, x)
                layer += 1
            rgb = block.torgb(x, w_plus[:, layer], clamp)  # (n, img_channels, r, r)
            image = rgb if image is None else upsample(image) + rgb
        return image


def draw_noise(conv: ModulatedConv2d, n: int, mode: str, generator: Noise) -> Tensor | None:
    """Noise image of a layer: (1, 1, r, r) when constant, (n, 1, r, r) when random, None when off."""
    if mode == "const":
        return conv.noise_const[None, None]
    if mode == "none":
        return None
    if mode != "random":
        raise ValueError(f"noise_mode is {mode!r}: give one of {', '.join(NOISE_MODES)}")
    size, device = conv.noise_const.shape, conv.noise_const.device
    if isinstance(generator, list):
        return torch.stack([_randn((1, *size), g, device) for g in generator])
    return _randn((n, 1, *size), generator, device)


def _randn(shape: tuple[int, ...], generator: torch.Generator | None, device: torch.device) -> Tensor:
    # drawn where the generator lives, so that a CPU seed means the same picture on every device
    return torch.randn(shape, generator=generator, device=generator.device if generator else device).to(device)


class Generator(HFGanModel):
    """Base of the generators: a `mapping` from z to w, and a `synthesis` from w_plus to an image."""

    mapping: nn.Module
    synthesis: Synthesis

    @property
    def num_ws(self) -> int:
        """Number of w vectors that the synthesis takes."""
        return self.synthesis.num_ws

    def compile(self) -> None:
        """Compile the synthesis for sampling: see `Synthesis.compile`."""
        self.synthesis.compile()

    def forward(
        self, z: Tensor, c: Tensor | None = None, truncation_psi: float = 1.0, truncation_cutoff: int | None = None,
        noise_mode: str = "const", generator: Noise = None,
    ) -> Tensor:  # fmt: skip
        """z (n, z_dim), one-hot c (n, c_dim) to images (n, img_channels, r, r), about [-1, 1]."""
        w = self.mapping(z, c)  # (n, w_dim)
        w_plus = w.unsqueeze(1).repeat(1, self.num_ws, 1)  # (n, num_ws, w_dim)
        if truncation_psi != 1.0:
            w_avg = self.mapping.w_avg  # (w_dim,)
            w_plus[:, :truncation_cutoff] = w_avg.lerp(w_plus[:, :truncation_cutoff], truncation_psi)
        return self.synthesis(w_plus, noise_mode, generator)


class StyleGAN2Generator(Generator):
    """The whole generator: `mapping`, `synthesis` and their configuration.

    Args:
        resolution: Image size [pixels], a power of two in 16..1024.
        img_channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        z_dim, w_dim: Sizes of the latent spaces Z and W.
        c_dim: Number of classes; 0 for an unconditional model.
        mapping_layers: Fully connected layers from z to w.
        channel_base, channel_max: Channels at a resolution are channel_base / resolution, at most channel_max.
        conv_clamp: Limit of activations in published half-precision models, None for none.
    """

    @register_to_config
    def __init__(
        self, *, resolution: int = 64, img_channels: int = 3, z_dim: int = 512, w_dim: int = 512, c_dim: int = 0,
        mapping_layers: int = 8, channel_base: int = 32768, channel_max: int = 512, conv_clamp: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        check_resolution(resolution)
        if img_channels not in (1, 3, 4):
            raise ValueError(f"img_channels is {img_channels}: give 1 (grey), 3 (RGB) or 4 (RGBA)")
        self.mapping = MappingNetwork(z_dim=z_dim, w_dim=w_dim, c_dim=c_dim, num_layers=mapping_layers)
        self.synthesis = SynthesisNetwork(
            resolution=resolution, img_channels=img_channels, w_dim=w_dim, channel_base=channel_base,
            channel_max=channel_max, conv_clamp=conv_clamp,
        )  # fmt: skip
