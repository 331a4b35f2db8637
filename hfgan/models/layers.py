"""Layers of StyleGAN2 (Karras et al. 2020, arXiv 1912.04958): equalised learning rate, modulation, noise.

Weights live in fp32; a layer computes in the dtype of the activation it is given.
The activation is everywhere lrelu(x) * sqrt(2): since lrelu is positively homogeneous, the gain is folded
into whatever is added and multiplied just before it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hfgan.models.ops import blur, conv2d, downsample

SQRT2 = math.sqrt(2.0)
LRELU_SLOPE = 0.2


def lrelu(x: Tensor, clamp: float | None = None) -> Tensor:
    """Leaky ReLU of slope 0.2, optionally limited to [-clamp, clamp]; any shape, in place."""
    x = F.leaky_relu_(x, LRELU_SLOPE)
    return x if clamp is None else x.clamp(-clamp, clamp)


def normalize_second_moment(x: Tensor) -> Tensor:
    """Divide each row of `x` (n, d) by its root mean square (PixelNorm of the mapping network)."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


class EqualizedLinear(nn.Module):
    """Fully connected layer whose weight is drawn from N(0, 1) and scaled at run time (arXiv 1710.10196 §4.1)."""

    def __init__(self, in_features: int, out_features: int, *, bias: float = 0.0, lr_multiplier: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), bias / lr_multiplier))
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:  # (n, i)
        bias = self.bias * (self.bias_gain * gain)
        return torch.addmm(bias, x, self.weight.t(), alpha=self.weight_gain * gain)  # (n, o)


class PreparedKernel(nn.Module):
    """A module with a `weight` whose inference form is computed once and kept until the weight changes."""

    weight: nn.Parameter

    def prepare(self, dtype: torch.dtype, gain: float = 1.0) -> tuple[Tensor, ...]:
        """What the forward pass needs of the weight times `gain`, in `dtype`."""
        raise TypeError(f"{type(self).__name__} does not say how its weight is prepared")

    def prepared(self, dtype: torch.dtype, gain: float = 1.0) -> tuple[Tensor, ...]:
        """`prepare(dtype, gain)`: anew while gradients are recorded or code is compiled, else remembered."""
        weight = self.weight
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or weight.is_inference():
            return self.prepare(dtype, gain)
        key = (dtype, gain, weight.device, weight.data_ptr(), weight._version)
        found, _, values = getattr(self, "_prepared", (None, None, None))
        if found != key:
            values = self.prepare(dtype, gain)
            self._prepared = key, weight.detach(), values  # the alias keeps another tensor from taking its place
        return values


class EqualizedConv2d(PreparedKernel):
    """Convolution with equalised learning rate; `down=True` low-passes and halves the size (discriminator)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, bias: bool = True, down: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.weight_gain = 1 / math.sqrt(in_channels * kernel_size**2)
        self.down = down

    def prepare(self, dtype: torch.dtype, gain: float = 1.0) -> tuple[Tensor]:
        return (_conv_kernel(self.weight * (self.weight_gain * gain), dtype),)

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:  # (n, i, h, w)
        (kernel,) = self.prepared(x.dtype, gain)
        bias = None if self.bias is None else (self.bias * gain).to(x.dtype)
        size = kernel.shape[-1]
        if not self.down:
            return conv2d(x, kernel, bias, padding=size // 2)  # (n, o, h, w)
        if size == 1:
            return conv2d(downsample(x), kernel, bias)  # (n, o, h/2, w/2)
        return conv2d(blur(x, padding=2), kernel, bias, stride=2)  # (n, o, h/2, w/2)


class ModulatedConv2d(PreparedKernel):
    """3x3 convolution with per-sample input scales s and demodulation d (arXiv 1912.04958, equations 1 and 3).

    Scaling the activations instead of the weights, y = d * conv(s * x, W), lets a batch share one kernel.
    """

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, resolution: int, *, up: bool = False) -> None:
        super().__init__()
        self.affine = EqualizedLinear(w_dim, in_channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.up = up

    def prepare(self, dtype: torch.dtype, gain: float = 1.0) -> tuple[Tensor, Tensor]:
        weight = self.weight * gain
        energy = weight.square().sum(dim=(2, 3)).t()  # (i, o), what demodulation needs of the weight
        return _conv_kernel(weight.transpose(0, 1) if self.up else weight, dtype), energy

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None, clamp: float | None) -> Tensor:
        # x (n, i, h, w), w (n, w_dim), noise (1 or n, 1, h', w') or None
        kernel, energy = self.prepared(x.dtype)
        style = self.affine(w)  # (n, i)
        demod = torch.rsqrt(style.square() @ energy + 1e-8) * SQRT2  # (n, o)
        x = x * _per_channel(style, x.dtype)  # (n, i, h, w)
        if self.up:
            x = blur(conv2d(x, kernel, stride=2, transposed=True), padding=1, gain=4.0)  # (n, o, 2h, 2w)
        else:
            x = conv2d(x, kernel, padding=1)  # (n, o, h, w)
        x = torch.addcmul(self.offset(noise, x.dtype), x, _per_channel(demod, x.dtype))
        return lrelu(x, clamp)

    def offset(self, noise: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Bias and noise, times sqrt(2): (1, o, 1, 1), or with noise (1 or n, o, h, w) in channels_last."""
        bias = (self.bias * SQRT2).to(dtype)
        if noise is None:
            return bias.view(1, -1, 1, 1)
        noise = (noise * (self.noise_strength * SQRT2)).to(dtype)  # (1 or n, 1, h, w)
        return (noise.permute(0, 2, 3, 1) + bias).permute(0, 3, 1, 2)


class ToRGB(nn.Module):
    """1x1 modulated convolution to image channels, without demodulation, as one product per sample, in fp32 out."""

    def __init__(self, in_channels: int, img_channels: int, w_dim: int) -> None:
        super().__init__()
        self.affine = EqualizedLinear(w_dim, in_channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(img_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(img_channels))
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(self, x: Tensor, w: Tensor, clamp: float | None) -> Tensor:  # (n, i, h, w), (n, w_dim)
        height, width = x.shape[2:]
        style = self.affine(w, gain=self.weight_gain)  # (n, i)
        kernel = style.unsqueeze(2) * self.weight.flatten(1).t()  # (n, i, c)
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # (n, h*w, i), a view when x is channels_last
        image = torch.bmm(pixels, kernel.to(x.dtype)).float() + self.bias  # (n, h*w, c)
        image = image if clamp is None else image.clamp(-clamp, clamp)
        return image.unflatten(1, (height, width)).permute(0, 3, 1, 2)  # (n, c, h, w)


def minibatch_stddev(x: Tensor, group: int | None, channels: int) -> Tensor:
    """Append the average standard deviation within groups of samples as extra channels (arXiv 1710.10196 §3).

    Args:
        x: (n, c, h, w).
        group: Samples per group; the largest divisor of n not above it is used. None: the whole batch.
        channels: Number of appended channels; c must be divisible by it.

    Returns:
        (n, c + channels, h, w).
    """
    n, c, h, w = x.shape
    size = next(g for g in range(min(group or n, n), 0, -1) if n % g == 0)
    y = x.reshape(size, -1, channels, c // channels, h, w)  # (g, n/g, f, c/f, h, w)
    spread = (y - y.mean(dim=0)).square().mean(dim=0)  # (n/g, f, c/f, h, w); `var` is not vectorised over dim 0
    y = (spread + 1e-8).sqrt().mean(dim=(2, 3, 4))  # (n/g, f)
    return torch.cat([x, y.repeat(size, 1)[:, :, None, None].expand(-1, -1, h, w)], dim=1)


def _conv_kernel(weight: Tensor, dtype: torch.dtype) -> Tensor:
    return weight.to(dtype=dtype, memory_format=torch.channels_last)


def _per_channel(values: Tensor, dtype: torch.dtype) -> Tensor:
    return values.to(dtype)[:, :, None, None]  # (n, c, 1, 1)
