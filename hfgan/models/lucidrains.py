"""The generator of lucidrains' stylegan2-pytorch, a network akin to StyleGAN2, for published weights: z -> w -> image.

It differs from `stylegan2.py` in almost every layer: z of length 1, styles 1 + A w with one w for both convolutions of
a block, no equalised learning rate and no gains, activations enlarged bilinearly, and one noise image for the whole
network, uniform in [0, 1), of which each block takes its upper left corner. It draws colours in [0, 1].

Layers of activations are numbered as in StyleGAN2, 4, 8, 8, 16, 16 px and so on: the first activation of 4 px, which
StyleGAN2 has as its constant, is -1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from hfgan.models.layers import PreparedKernel, lrelu
from hfgan.models.ops import conv2d
from hfgan.models.stylegan2 import NOISE_MODES, Generator, Noise, Synthesis, Tap, channels_at, check_resolution

NOISE_MEAN, NOISE_STD = 0.5, 1 / math.sqrt(12)  # of the uniform noise that it was trained with
HEADS, HEAD_DIM = 8, 64  # of attention


# ---------------------------------------------------------------- z to w


class LucidrainsMapping(nn.Module):
    """z to w: z of length 1, fully connected layers with lrelu, each output times `gain`."""

    def __init__(self, *, z_dim: int, w_dim: int, num_layers: int, gain: float) -> None:
        super().__init__()
        if num_layers < 1 or not gain > 0:
            raise ValueError(f"mapping has {num_layers} layers with a gain of {gain}: expected both above 0")
        self.layers = nn.ModuleList(nn.Linear(w_dim if k else z_dim, w_dim) for k in range(num_layers))
        self.gain = gain  # of weight and bias alike, which lrelu lets pass
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor, c: None = None) -> Tensor:  # (n, z_dim)
        x = F.normalize(z.float())  # (n, z_dim)
        for layer in self.layers:
            x = lrelu(layer(x)) * self.gain  # (n, w_dim)
        return x

    def labels_in_turn(self, indices: Tensor) -> None:
        """None: these models have no classes."""


# ---------------------------------------------------------------- w to image


class NoisyConv2d(PreparedKernel):
    """3x3 convolution with scales 1 + A w of its input, demodulated, then noise with a strength for each channel."""

    def __init__(self, in_channels: int, out_channels: int, w_dim: int) -> None:
        super().__init__()
        self.affine = nn.Linear(w_dim, in_channels)
        self.weight = nn.Parameter(nn.init.kaiming_normal_(torch.empty(out_channels, in_channels, 3, 3)))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros(out_channels))

    def prepare(self, dtype: torch.dtype, gain: float = 1.0) -> tuple[Tensor, Tensor]:
        weight = self.weight * gain
        energy = weight.square().sum(dim=(2, 3)).t()  # (i, o), what demodulation needs of the weight
        return weight.to(dtype=dtype, memory_format=torch.channels_last), energy

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        # x (n, i, h, w), w (n, w_dim), noise (1 or n, 1, h, w) or None
        kernel, energy = self.prepared(x.dtype)
        style = 1 + self.affine(w)  # (n, i)
        demod = torch.rsqrt(style.square() @ energy + 1e-8)  # (n, o)
        x = conv2d(x * style.to(x.dtype)[:, :, None, None], kernel, padding=1)  # (n, o, h, w)
        return lrelu(torch.addcmul(self.offset(noise, x.dtype), x, demod.to(x.dtype)[:, :, None, None]))

    def offset(self, noise: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Bias and noise: (1, o, 1, 1) with its mean alone, or (1 or n, o, h, w) in channels_last."""
        bias = (self.bias + self.noise_strength * NOISE_MEAN).to(dtype)
        if noise is None:
            return bias.view(1, -1, 1, 1)
        strength = (self.noise_strength * NOISE_STD).to(dtype)
        return (noise.to(dtype).permute(0, 2, 3, 1) * strength + bias).permute(0, 3, 1, 2)


class Colors(nn.Module):
    """1x1 convolution to image channels with scales 1 + A w of its input, without a bias, in fp32 out."""

    def __init__(self, in_channels: int, img_channels: int, w_dim: int) -> None:
        super().__init__()
        self.affine = nn.Linear(w_dim, in_channels)
        self.weight = nn.Parameter(nn.init.kaiming_normal_(torch.empty(img_channels, in_channels, 1, 1)))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:  # (n, i, h, w), (n, w_dim)
        style = 1 + self.affine(w)  # (n, i)
        kernel = style.unsqueeze(2) * self.weight.flatten(1).t()  # (n, i, c)
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # (n, h*w, i), a view when x is channels_last
        image = torch.bmm(pixels, kernel.to(x.dtype)).float()  # (n, h*w, c)
        return image.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)  # (n, c, h, w)


class Attention(nn.Module):
    """Linear attention (Shen et al. 2018, arXiv 1812.01243), then two 1x1 convolutions, each added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = HEADS * HEAD_DIM
        self.norm0, self.norm1 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.query = nn.Conv2d(channels, inner, 1, bias=False)
        self.around = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.key_value = nn.Conv2d(channels, 2 * inner, 1, bias=False)
        self.out = nn.Conv2d(inner, channels, 1)
        self.wide, self.narrow = nn.Conv2d(channels, 2 * channels, 1), nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:  # (n, c, h, w)
        dtype, x = x.dtype, x.float()
        x = x + self.attend(over_channels(self.norm0, x))  # (n, c, h, w)
        x = x + self.narrow(lrelu(self.wide(over_channels(self.norm1, x))))  # (n, c, h, w)
        return x.to(dtype)

    def attend(self, x: Tensor) -> Tensor:
        """What each position of x (n, c, h, w) takes from all of them, of the same shape."""
        found = (self.query(x), *self.key_value(self.around(x)).chunk(2, dim=1))  # (n, heads * d, h, w) each
        q, k, v = (part.unflatten(1, (HEADS, HEAD_DIM)).flatten(3) for part in found)  # (n, heads, d, h*w)
        context = torch.einsum("nadp,naep->nade", k.softmax(dim=3), v)  # (n, heads, d, d)
        seen = torch.einsum("nadp,nade->naep", q.softmax(dim=2) / math.sqrt(HEAD_DIM), context)  # (n, heads, d, h*w)
        return self.out(F.gelu(seen.flatten(1, 2).unflatten(2, x.shape[2:])))  # (n, c, h, w)


class LucidrainsBlock(nn.Module):
    """One resolution: two convolutions and colours, all with the styles of one w; attention may come before."""

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, img_channels: int, attention: bool) -> None:
        super().__init__()
        self.attention = Attention(in_channels) if attention else None
        self.conv0 = NoisyConv2d(in_channels, out_channels, w_dim)
        self.conv1 = NoisyConv2d(out_channels, out_channels, w_dim)
        self.torgb = Colors(out_channels, img_channels, w_dim)


class LucidrainsSynthesis(Synthesis):
    """w_plus to image: a 4x4 start through a convolution and blocks of doubling resolution."""

    ws_per_size = 1

    def __init__(
        self, *, resolution: int, img_channels: int, w_dim: int, channel_base: int, channel_max: int,
        start_from_w: bool, blurred: bool, attention: Sequence[int],
    ) -> None:  # fmt: skip
        super().__init__()
        self.sizes = [2**k for k in range(2, int(math.log2(resolution)) + 1)]
        self.num_ws = len(self.sizes)
        if not set(attention) <= set(range(self.num_ws)):
            raise ValueError(f"attention is {list(attention)}: expected blocks from 0 to {self.num_ws - 1}")
        widths = [channels_at(size, channel_base, channel_max) for size in self.sizes]
        shape = (w_dim, widths[0], 4, 4) if start_from_w else (widths[0], 4, 4)
        self.const = nn.Parameter(torch.randn(shape))
        self.stem = nn.Conv2d(widths[0], widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(
            LucidrainsBlock(below, width, w_dim, img_channels, k in attention)
            for k, (below, width) in enumerate(zip([widths[0], *widths], widths, strict=False))
        )
        self.blurred = blurred
        self.register_buffer("noise_const", uniform((resolution, resolution), None, torch.device("cpu")))

    def noise_images(self, n: int, mode: str, generator: Noise = None) -> list[Tensor | None]:
        if mode not in NOISE_MODES:
            raise ValueError(f"noise_mode is {mode!r}: give one of {', '.join(NOISE_MODES)}")
        if mode == "none":
            return [None] * (2 * self.num_ws)
        shape, device = self.noise_const.shape, self.noise_const.device
        if mode == "const":
            field = self.noise_const[None, None]  # (1, 1, r, r)
        elif isinstance(generator, list):
            field = torch.stack([uniform((1, *shape), one, device) for one in generator])  # (n, 1, r, r)
        else:
            field = uniform((n, 1, *shape), generator, device)  # (n, 1, r, r)
        return [field[:, :, :size, :size] for size in self.sizes for _ in range(2)]

    def affines(self) -> dict[int, Tensor]:
        pairs = ([block.conv0.affine.weight, block.conv1.affine.weight] for block in self.blocks)
        return {layer: torch.cat(pair).detach().cpu().double() for layer, pair in enumerate(pairs)}

    def draw(
        self, w_plus: Tensor, noise: list[Tensor | None], tap: Tap | None = None, silenced: int | None = None,
        alter: Callable[[int, Tensor], Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        x = self.start(w_plus)  # (n, c4, 4, 4)
        image, layer = None, -1
        for block, w in zip(self.blocks, w_plus.unbind(1), strict=True):
            if block.attention is not None:
                x = block.attention(x)
            if image is not None:
                x = enlarge(x)  # (n, c, r, r)
            for conv in (block.conv0, block.conv1):
                x = conv(x, w, noise[layer + 1])  # (n, c', r, r)
                if layer == silenced:
                    x = torch.zeros_like(x)
                if layer >= 0:
                    x = alter(layer, x) if alter else x
                    if tap:
                        tap(layer, x)
                layer += 1
            rgb = block.torgb(x, w)  # (n, img_channels, r, r), in [0, 1] once all are added
            image = rgb if image is None else self.enlarged(image) + rgb
        return 2 * image - 1

    def start(self, w_plus: Tensor) -> Tensor:
        """What the first block draws on, (n, c4, 4, 4): the same for all, or a map of the mean w."""
        if self.const.ndim == 3:
            x = self.stem(self.const[None]).expand(len(w_plus), -1, -1, -1)
        else:
            x = self.stem(torch.einsum("nd,dchw->nchw", w_plus.mean(1), self.const))
        return x.to(self.compute_dtype).contiguous(memory_format=torch.channels_last)

    def enlarged(self, image: Tensor) -> Tensor:
        """The colours so far (n, c, r, r) at twice the size; `blurred` by [1, 2, 1] / 4, two means of neighbours."""
        image = enlarge(image)  # (n, c, 2r, 2r)
        if not self.blurred:
            return image
        padded = F.pad(image, (1, 1, 1, 1), mode="reflect")
        return F.avg_pool2d(F.avg_pool2d(padded, 2, stride=1), 2, stride=1)


def over_channels(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """`norm` over the channels of each position of x (n, c, h, w)."""
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def enlarge(x: Tensor) -> Tensor:
    """(n, c, h, w) to (n, c, 2h, 2w), bilinear."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def uniform(shape: tuple[int, ...], generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Uniform noise of mean 0 and deviation 1; drawn where the generator lives, so that a seed means one picture."""
    drawn = torch.rand(shape, generator=generator, device=generator.device if generator else device)
    return ((drawn - NOISE_MEAN) / NOISE_STD).to(device)


class LucidrainsGenerator(Generator):
    """The whole generator: `mapping`, `synthesis` and their configuration.

    Args:
        resolution: Image size [pixels], a power of two in 16..1024.
        img_channels: 3 (RGB) or 4 (RGBA).
        z_dim, w_dim: Sizes of the latent spaces Z and W.
        mapping_layers: Fully connected layers from z to w.
        mapping_gain: Of each of them, which the other program calls `lr_mlp`.
        channel_base, channel_max: Channels at a resolution are channel_base / resolution, at most channel_max.
        start_from_w: Whether the mean w makes the 4x4 start, which is a constant otherwise.
        blurred: Whether colours are blurred where they are enlarged, as of version 1.1 of the other program.
        attention: Blocks that attention comes before, 0 being that of 4 px.
    """

    @register_to_config
    def __init__(
        self, *, resolution: int = 64, img_channels: int = 3, z_dim: int = 512, w_dim: int = 512,
        mapping_layers: int = 8, mapping_gain: float = 0.1, channel_base: int = 2048, channel_max: int = 512,
        start_from_w: bool = False, blurred: bool = True, attention: Sequence[int] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        check_resolution(resolution)
        if img_channels not in (3, 4):
            raise ValueError(f"img_channels is {img_channels}: give 3 (RGB) or 4 (RGBA)")
        self.register_to_config(c_dim=0)  # what is asked of every generator; no argument
        self.mapping = LucidrainsMapping(z_dim=z_dim, w_dim=w_dim, num_layers=mapping_layers, gain=mapping_gain)
        self.synthesis = LucidrainsSynthesis(
            resolution=resolution, img_channels=img_channels, w_dim=w_dim, channel_base=channel_base,
            channel_max=channel_max, start_from_w=start_from_w, blurred=blurred, attention=attention,
        )  # fmt: skip
