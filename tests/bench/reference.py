"""StyleGAN2 as it was published, from a state dict: truth of the tests, opponent of the benchmarks.

Written from the equations of arXiv 1912.04958 with nothing merged or reordered: a batch's kernels are modulated
one sample each and run as one grouped convolution; a FIR is zero insertion, padding, filter and decimation;
bias, activation, gain and clamp are passes of their own. Computes in the dtype of the state it is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Tree = dict[str, Any]  # a state dict with its dotted names taken apart


def flat_state(
    model: nn.Module, dtype: torch.dtype = torch.float64, *, requires_grad: bool = False
) -> dict[str, Tensor]:
    """A copy of a model's tensors in `dtype`; with `requires_grad`, its parameters are leaves."""
    trained = {name for name, _ in model.named_parameters()}
    return {
        name: value.detach().clone().to(dtype).requires_grad_(requires_grad and name in trained)
        for name, value in model.state_dict().items()
    }


def nest(state: dict[str, Tensor]) -> Tree:
    """{"a.b": t} to {"a": {"b": t}}, the form that the networks below take."""
    tree: Tree = {}
    for name, value in state.items():
        *folders, leaf = name.split(".")
        branch = tree
        for folder in folders:
            branch = branch.setdefault(folder, {})
        branch[leaf] = value
    return tree


# --- operators -------------------------------------------------------------------------------------------


def upfirdn(x: Tensor, *, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0), gain: float = 1.0) -> Tensor:
    """Insert up - 1 zeros after each pixel, pad, filter with [1, 3, 3, 1] on both axes, keep every down-th."""
    n, c, h, w = x.shape
    if up > 1:
        spread = x.new_zeros(n, c, h, up, w, up)
        spread[:, :, :, 0, :, 0] = x
        x = spread.view(n, c, h * up, w * up)
    x = F.pad(x, [*pad, *pad])
    taps = x.new_tensor([1.0, 3.0, 3.0, 1.0])
    kernel = torch.outer(taps, taps) * (gain / 64)
    x = F.conv2d(x, kernel.expand(c, 1, 4, 4), groups=c)
    return x[:, :, ::down, ::down]


def bias_act(x: Tensor, bias: Tensor, *, gain: float = math.sqrt(2), clamp: float | None = None) -> Tensor:
    """Add a bias per channel, leaky ReLU, gain, clamp at `clamp`."""
    x = F.leaky_relu(x + bias.view(1, -1, *[1] * (x.ndim - 2)), 0.2) * gain
    return x if clamp is None else x.clamp(-clamp, clamp)


def linear(x: Tensor, tree: Tree) -> Tensor:
    """Fully connected layer with equalised learning rate."""
    return x @ (tree["weight"] / math.sqrt(x.shape[1])).t() + tree["bias"]


def modulated_conv(
    x: Tensor, weight: Tensor, style: Tensor, *, demodulate: bool = True, up: bool = False, grouped: bool = True
) -> Tensor:
    """Equations 1 and 3, then the convolution: one group per sample, or one kernel between two scalings."""
    n, i, h, w = x.shape
    o = len(weight)
    kernels = weight.unsqueeze(0) * style.view(n, 1, i, 1, 1)  # (n, o, i, k, k)
    if demodulate:
        demod = (kernels.square().sum(dim=(2, 3, 4)) + 1e-8).rsqrt()  # (n, o)
    if not grouped:
        y = _convolve(x * style.view(n, i, 1, 1), weight.unsqueeze(0), up)
        return y * demod.view(n, o, 1, 1) if demodulate else y
    if demodulate:
        kernels = kernels * demod.view(n, o, 1, 1, 1)
    y = _convolve(x.reshape(1, n * i, h, w), kernels, up)
    return y.view(n, o, *y.shape[2:])


def _convolve(x: Tensor, kernels: Tensor, up: bool) -> Tensor:
    g, o, i, k, _ = kernels.shape
    if not up:
        return F.conv2d(x, kernels.reshape(g * o, i, k, k), padding=k // 2, groups=g)
    y = F.conv_transpose2d(x, kernels.transpose(1, 2).reshape(g * i, o, k, k), stride=2, groups=g)
    return upfirdn(y, pad=(1, 1), gain=4.0)


# --- generator -------------------------------------------------------------------------------------------


def mapping(tree: Tree, z: Tensor | None, c: Tensor | None = None) -> Tensor:
    """z (n, z_dim) and one-hot c (n, c_dim), either may be missing, to w (n, w_dim)."""
    inputs = [] if z is None else [z]
    if c is not None:
        inputs.append(linear(c, tree["embed"]))
    x = torch.cat([y / (y.square().mean(dim=1, keepdim=True) + 1e-8).sqrt() for y in inputs], dim=1)
    for layer in tree["layers"].values():
        x = bias_act(x @ layer["weight"].t() * (0.01 / math.sqrt(x.shape[1])), layer["bias"] * 0.01)
    return x


def synthesis(
    tree: Tree, w_plus: Tensor, noise: Callable[[int], Tensor | None] | str = "const", *,
    clamp: float | None = None, grouped: bool = True,
) -> Tensor:  # fmt: skip
    """w_plus (n, num_ws, w_dim) to images; noise as in ours, or from layer number to (n, 1, r, r)."""
    x = tree["const"].unsqueeze(0).repeat(len(w_plus), 1, 1, 1)
    image, layer = None, 0
    for block in tree["blocks"].values():
        for name in [name for name in ("conv0", "conv1") if name in block]:
            conv = block[name]
            style = linear(w_plus[:, layer], conv["affine"])
            x = modulated_conv(x, conv["weight"], style, up=name == "conv0", grouped=grouped)
            drawn = noise(layer) if callable(noise) else _noise(conv["noise_const"], len(x), noise)
            if drawn is not None:
                x = x + drawn * conv["noise_strength"]
            x = bias_act(x, conv["bias"], clamp=clamp)
            layer += 1
        torgb = block["torgb"]
        style = linear(w_plus[:, layer], torgb["affine"]) / math.sqrt(x.shape[1])
        rgb = modulated_conv(x, torgb["weight"], style, demodulate=False, grouped=grouped)
        rgb = rgb + torgb["bias"].view(1, -1, 1, 1)
        rgb = rgb if clamp is None else rgb.clamp(-clamp, clamp)
        image = rgb if image is None else upfirdn(image, up=2, pad=(2, 1), gain=4.0) + rgb
    return image


def _noise(const: Tensor, n: int, mode: str) -> Tensor | None:
    if mode == "random":
        return torch.randn(n, 1, *const.shape, dtype=const.dtype)
    return {"const": const, "none": None}[mode]


def generator(
    tree: Tree, z: Tensor, c: Tensor | None = None, noise: Callable[[int], Tensor | None] | str = "const", *,
    psi: float = 1.0, cutoff: int | None = None, clamp: float | None = None, grouped: bool = True,
) -> Tensor:  # fmt: skip
    """z (n, z_dim) to images (n, c, r, r)."""
    w, w_avg = mapping(tree["mapping"], z, c), tree["mapping"]["w_avg"]
    num_ws = 2 * len(tree["synthesis"]["blocks"])
    truncated = w_avg + psi * (w - w_avg)
    count = num_ws if cutoff is None else cutoff
    w_plus = torch.stack([truncated] * count + [w] * (num_ws - count), dim=1)
    return synthesis(tree["synthesis"], w_plus, noise, clamp=clamp, grouped=grouped)


# --- discriminator ---------------------------------------------------------------------------------------


def conv(x: Tensor, tree: Tree, *, down: bool = False) -> Tensor:
    """Convolution with equalised learning rate and without bias; `down` low-passes and halves the size."""
    weight = tree["weight"]
    k = weight.shape[-1]
    weight = weight / math.sqrt(weight[0].numel())
    if down and k == 1:
        return F.conv2d(upfirdn(x, down=2, pad=(1, 1)), weight)
    if down:
        return F.conv2d(upfirdn(x, pad=(2, 2)), weight, stride=2)
    return F.conv2d(x, weight, padding=k // 2)


def minibatch_stddev(x: Tensor, group: int, channels: int) -> Tensor:
    """Append the mean deviation within groups of `group` samples, taken n / group apart."""
    n, c, h, w = x.shape
    groups = x.reshape(group, n // group, channels, c // channels, h, w)
    spread = (groups - groups.mean(dim=0)).square().mean(dim=0)  # (n/g, f, c/f, h, w)
    spread = (spread + 1e-8).sqrt().mean(dim=(2, 3, 4))  # (n/g, f)
    rows = torch.stack([spread[k % (n // group)] for k in range(n)])  # (n, f)
    return torch.cat([x, rows[:, :, None, None].expand(n, channels, h, w)], dim=1)


def discriminator(
    tree: Tree, image: Tensor, c: Tensor | None = None, *, group: int = 4, channels: int = 1,
    clamp: float | None = None,
) -> Tensor:  # fmt: skip
    """Images (n, c, r, r) and one-hot c (n, c_dim) to logits (n, 1)."""
    half = math.sqrt(0.5)
    x = bias_act(conv(image, tree["fromrgb"]), tree["fromrgb"]["bias"], clamp=clamp)
    for block in tree["blocks"].values():
        y = bias_act(conv(x, block["conv0"]), block["conv0"]["bias"], clamp=clamp)
        y = conv(y, block["conv1"], down=True)
        y = bias_act(y, block["conv1"]["bias"], gain=1.0, clamp=None if clamp is None else clamp * half)
        x = conv(x, block["skip"], down=True) * half + y
    x = minibatch_stddev(x, group, channels)
    x = bias_act(conv(x, tree["conv"]), tree["conv"]["bias"], clamp=clamp)
    x = F.leaky_relu(linear(x.flatten(1), tree["fc"]), 0.2) * math.sqrt(2)
    x = linear(x, tree["out"])
    if c is None:
        return x
    label = mapping(tree["label_mapping"], None, c)
    return (x * label).sum(dim=1, keepdim=True) / math.sqrt(label.shape[1])
