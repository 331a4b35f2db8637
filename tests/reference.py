"""StyleGAN2 (arXiv 1912.04958) in float64, as plain functions of tensors under NVIDIA's names: the slow, obvious way.

Per-sample weights and grouped convolutions, zeros put between pixels, filters applied one after another. Nothing here
comes from the library, so that what both compute alike is right twice.
"""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor
from torch.nn import functional as F

Tensors = dict[str, Tensor]


def generate(
    tensors: Tensors, z: Tensor, labels: Tensor | None = None, *, psi: float = 1.0, clamp: float | None = None
) -> Tensor:
    """z (n, z_dim), one-hot labels (n, c_dim) to images (n, c, r, r) with the stored noise."""
    t = {name: tensor.double() for name, tensor in tensors.items()}
    w = mapping(t, z.double(), labels)  # (n, w_dim)
    w = t["mapping.w_avg"] + psi * (w - t["mapping.w_avg"])  # (n, w_dim)
    x = t["synthesis.b4.const"].expand(len(w), -1, -1, -1)  # (n, c4, 4, 4)
    image = None
    for size in sizes(t, "synthesis."):
        block = f"synthesis.b{size}"
        if size > 4:
            x = styled(t, f"{block}.conv0", x, w, clamp, up=True)  # (n, o, size, size)
        x = styled(t, f"{block}.conv1", x, w, clamp)  # (n, o, size, size)
        rgb = to_rgb(t, f"{block}.torgb", x, w, clamp)  # (n, c, size, size)
        image = rgb if image is None else fir(spread(image), (2, 1, 2, 1), gain=4) + rgb
    return image


def judge(
    tensors: Tensors, images: Tensor, labels: Tensor | None = None, *, clamp: float | None = None,
    group: int | None = 4, channels: int = 1, rate: float = 0.01,
) -> Tensor:  # fmt: skip
    """Images (n, c, r, r) and one-hot labels (n, c_dim) to logits (n, 1)."""
    t = {name: tensor.double() for name, tensor in tensors.items()}
    from_large = sizes(t, "")[::-1]
    x = activate(conv(t, f"b{from_large[0]}.fromrgb", images.double()), clamp)  # (n, c_r, r, r)
    for size in from_large[:-1]:
        straight = conv(t, f"b{size}.skip", fir(x, (1, 1, 1, 1))[:, :, ::2, ::2])  # (n, o, size/2, size/2)
        x = activate(conv(t, f"b{size}.conv0", x), clamp)  # (n, i, size, size)
        bent = conv(t, f"b{size}.conv1", fir(x, (2, 2, 2, 2)), stride=2)  # (n, o, size/2, size/2)
        x = straight * math.sqrt(0.5) + activate(bent, clamp, gain=math.sqrt(0.5))  # (n, o, size/2, size/2)
    x = activate(conv(t, "b4.conv", with_spread(x, group, channels)), clamp)  # (n, c4, 4, 4)
    x = activate(linear(t, "b4.fc", x.flatten(1)))  # (n, c4)
    x = linear(t, "b4.out", x)  # (n, 1), with labels (n, m)
    if labels is None:
        return x
    wanted = mapping(t, None, labels, rate)  # (n, m)
    return (x * wanted).sum(1, keepdim=True) / math.sqrt(wanted.shape[1])  # (n, 1)


def mapping(t: Tensors, z: Tensor | None, labels: Tensor | None = None, rate: float = 0.01) -> Tensor:
    """z (n, z_dim) and labels (n, c_dim), either may be None, to w (n, w_dim)."""
    parts = [] if z is None else [normalize(z)]
    if labels is not None:
        parts.append(normalize(linear(t, "mapping.embed", labels.double())))
    x = torch.cat(parts, 1)
    for k in range(sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", name)) for name in t)):
        x = activate(linear(t, f"mapping.fc{k}", x, rate))  # (n, w_dim)
    return x


def styled(t: Tensors, name: str, x: Tensor, w: Tensor, clamp: float | None, up: bool = False) -> Tensor:
    """Modulated and demodulated 3x3 convolution of x (n, i, h, h), noise, bias and activation; `up` doubles h."""
    style = linear(t, f"{name}.affine", w)  # (n, i)
    kernel = t[f"{name}.weight"] * style[:, None, :, None, None]  # (n, o, i, 3, 3)
    kernel = kernel / (kernel.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    n, o, i = kernel.shape[:3]
    side = x.shape[-1]
    together = x.reshape(1, n * i, side, side)
    if up:
        y = F.conv_transpose2d(together, kernel.transpose(1, 2).reshape(n * i, o, 3, 3), stride=2, groups=n)
        y = fir(y.reshape(n, o, 2 * side + 1, 2 * side + 1), (1, 1, 1, 1), gain=4)  # (n, o, 2h, 2h)
    else:
        y = F.conv2d(together, kernel.reshape(n * o, i, 3, 3), padding=1, groups=n).reshape(n, o, side, side)
    y = y + t[f"{name}.noise_const"] * t[f"{name}.noise_strength"]
    return activate(y + t[f"{name}.bias"][:, None, None], clamp)


def to_rgb(t: Tensors, name: str, x: Tensor, w: Tensor, clamp: float | None) -> Tensor:
    """Modulated 1x1 convolution of x (n, i, h, h) to colours (n, c, h, h)."""
    style = linear(t, f"{name}.affine", w) / math.sqrt(x.shape[1])  # (n, i)
    kernel = t[f"{name}.weight"][:, :, 0, 0] * style[:, None]  # (n, c, i)
    image = torch.einsum("nci,nihw->nchw", kernel, x) + t[f"{name}.bias"][:, None, None]
    return image if clamp is None else image.clamp(-clamp, clamp)


def linear(t: Tensors, name: str, x: Tensor, rate: float = 1.0) -> Tensor:
    """Fully connected layer with equalised learning rate: x (n, i) to (n, o)."""
    weight = t[f"{name}.weight"]
    return x @ weight.T * (rate / math.sqrt(weight.shape[1])) + t[f"{name}.bias"] * rate


def conv(t: Tensors, name: str, x: Tensor, stride: int = 1) -> Tensor:
    """Convolution with equalised learning rate; one of stride 2 finds x already padded."""
    weight = t[f"{name}.weight"]
    side = weight.shape[-1]
    padding = side // 2 if stride == 1 else 0
    gain = 1 / math.sqrt(weight.shape[1] * side**2)
    return F.conv2d(x, weight * gain, t.get(f"{name}.bias"), stride=stride, padding=padding)


def activate(x: Tensor, clamp: float | None = None, gain: float = 1.0) -> Tensor:
    """Leaky ReLU of slope 0.2, times sqrt(2) times gain, limited to clamp times gain."""
    x = torch.where(x < 0, 0.2 * x, x) * (math.sqrt(2) * gain)
    return x if clamp is None else x.clamp(-clamp * gain, clamp * gain)


def normalize(x: Tensor) -> Tensor:
    """Each row (n, d) divided by its root mean square."""
    return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()


def fir(x: Tensor, padding: tuple[int, int, int, int], gain: float = 1.0) -> Tensor:
    """x (n, c, h, w), padded with zeros, through the filter [1, 3, 3, 1] / 8 in both directions."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 8
    kernel = (gain * torch.outer(taps, taps)).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(F.pad(x, padding), kernel, groups=x.shape[1])


def spread(x: Tensor) -> Tensor:
    """x (n, c, h, w) with a zero after every pixel and a row of zeros after every row: (n, c, 2h, 2w)."""
    n, c, h, w = x.shape
    y = torch.zeros(n, c, 2 * h, 2 * w, dtype=x.dtype)
    y[:, :, ::2, ::2] = x
    return y


def with_spread(x: Tensor, group: int | None, channels: int) -> Tensor:
    """x (n, c, h, w) beside the deviation within every group: sample s is of group s modulo (n / size)."""
    n, c, h, w = x.shape
    groups = n // (n if group is None else min(group, n))
    added = torch.empty(n, channels, h, w, dtype=x.dtype)
    for k in range(groups):
        for f, part in enumerate(x[k::groups].split(c // channels, 1)):
            added[k::groups, f] = (part.var(0, unbiased=False) + 1e-8).sqrt().mean()
    return torch.cat([x, added], 1)


def sizes(t: Tensors, prefix: str) -> list[int]:
    """Resolutions of the blocks, smallest first."""
    return sorted({int(found[1]) for name in t if (found := re.match(rf"{re.escape(prefix)}b(\d+)\.", name))})
