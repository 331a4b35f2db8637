"""Checkpoints of rosinality's stylegan2-pytorch, and of what grew from it, to the names of NVIDIA's code and back.

The numbers are the same in both, some with a dimension more. Filters are stored there with every layer and are checked
here, then dropped. What has no name there is the clamp of activations, labels and pictures that are not RGB.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from hfgan.converting.networks import Unsupported, check_filter, discriminator_of, generator_of
from hfgan.models.discriminator import StyleGAN2Discriminator
from hfgan.models.ops import FIR
from hfgan.models.stylegan2 import StyleGAN2Generator

FORMAT = "rosinality stylegan2-pytorch"
GROUP, FEATURES = 4, 1  # of the minibatch standard deviation, fixed there
GENERATORS = ("g_ema", "g")  # the averaged one first


def is_rosinality(found: Any) -> bool:
    """Whether a file holds a generator of that layout."""
    return isinstance(found, dict) and any(_is_state(found.get(key)) for key in GENERATORS)


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and "input.input" in value


def read_rosinality(
    found: Mapping[str, Any], notes: list[str]
) -> tuple[StyleGAN2Generator, StyleGAN2Discriminator | None, str]:
    """The averaged generator, the discriminator if there is one, and the name of the format.

    Raises:
        Unsupported: another network. ValueError: tensors that do not fit, by name.
    """
    key = next(key for key in GENERATORS if _is_state(found.get(key)))
    if key == "g":
        notes.append("The file has no averaged generator g_ema: g, the one in training, was taken.")
    generator = read_generator(found[key], found.get("latent_avg"), notes)
    if not isinstance(found.get("d"), dict):
        notes.append("The file has no discriminator.")
        return generator, None, FORMAT
    tensors = discriminator_from(_tensors(found["d"]), generator.config.resolution)
    settings = {"conv_clamp": None, "mbstd_group": GROUP, "mbstd_channels": FEATURES}
    return generator, discriminator_of(tensors, **settings), FORMAT


def read_generator(state: Mapping[str, Any], latent_avg: Any, notes: list[str]) -> StyleGAN2Generator:
    """A generator from its state dict and the mean of w (w_dim,), (1, w_dim) or (num_ws, w_dim), if it is known."""
    tensors = generator_from(_tensors(state))
    if isinstance(latent_avg, Tensor):
        rows = latent_avg.reshape(-1, latent_avg.shape[-1]) if latent_avg.ndim else latent_avg.reshape(1, 1)
        if not torch.equal(rows, rows[:1].expand_as(rows)):
            raise Unsupported(f"has a latent_avg {list(latent_avg.shape)} whose rows differ, expected one mean of w")
        tensors["mapping.w_avg"] = rows[0]
    if not any(name.endswith("noise_const") for name in tensors):
        notes.append("The file has no noise images: those for constant noise were drawn with seed 0.")
        source = torch.Generator().manual_seed(0)
        for name in [name for name in tensors if name.endswith("noise_strength")]:
            size = int(name.split(".")[1][1:])
            tensors[name.replace("noise_strength", "noise_const")] = torch.randn(size, size, generator=source)
    return generator_of(tensors, conv_clamp=None, notes=notes)


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors without filters, all of which must be the usual one; what is no tensor is an error."""
    kept = {}
    for name, tensor in state.items():
        name = name.removeprefix("module.")
        if not isinstance(tensor, Tensor):
            raise ValueError(f"holds {name}, which is no tensor")
        if name.endswith(".kernel"):
            check_filter(name, tensor / tensor.sum())
        else:
            kept[name] = tensor
    return kept


# ---------------------------------------------------------------- the generator


PARTS = {
    "conv.weight": "weight", "conv.modulation.weight": "affine.weight", "conv.modulation.bias": "affine.bias",
    "noise.weight": "noise_strength", "activate.bias": "bias", "bias": "bias", "": "noise_const",
}  # fmt: skip


def _conv(layer: int) -> str:
    """Layer 0 is b4.conv1, layer 1 is b8.conv0, layer 2 is b8.conv1, ..."""
    return f"synthesis.b{2 ** ((layer + 1) // 2 + 2)}.conv{1 - layer % 2}"


# patterns of names there, with the number of a layer in them, and where that layer is here
LAYERS: dict[str, Callable[..., str]] = {
    r"style\.(\d+)\.(.+)": lambda k: f"mapping.fc{k - 1}",
    r"noises\.noise_(\d+)()": lambda k: _conv(k),
    r"conv1\.(.+)": lambda: _conv(0),
    r"convs\.(\d+)\.(.+)": lambda k: _conv(k + 1),
    r"to_rgb1\.(.+)": lambda: "synthesis.b4.torgb",
    r"to_rgbs\.(\d+)\.(.+)": lambda k: f"synthesis.b{2 ** (k + 3)}.torgb",
}


def generator_from(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a generator by NVIDIA's names."""
    renamed = {}
    for name, tensor in tensors.items():
        theirs = _generator_name(name)
        renamed[theirs] = _generator_shape(theirs, tensor)
    return renamed


def _generator_name(name: str) -> str:
    """Of one tensor; an unknown one keeps its name, so that it is reported."""
    if name == "input.input":
        return "synthesis.b4.const"
    for pattern, layer in LAYERS.items():
        if match := re.fullmatch(pattern, name):
            *number, rest = match.groups()
            return f"{layer(*map(int, number))}.{PARTS.get(rest, rest)}"
    return name


def _generator_shape(name: str, tensor: Tensor) -> Tensor:
    """Without the dimensions that are 1 there and not here; as it is where it has not the expected ones."""
    if name.endswith(("const", "noise_const")):
        return tensor[0] if tensor.ndim == 4 and name.endswith("b4.const") else tensor.reshape(tensor.shape[-2:])
    if name.endswith("noise_strength"):
        return tensor.reshape(()) if tensor.numel() == 1 else tensor
    if re.search(r"(conv\d|torgb)\.weight$", name):
        return tensor[0] if tensor.ndim == 5 else tensor
    return tensor.flatten() if name.endswith("torgb.bias") else tensor


def generator_to(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A generator's tensors by NVIDIA's names as the state dict of that code: its own names, shapes and filters."""
    last = max(int(name.split(".")[1][1:]) for name in tensors if name.startswith("synthesis.b"))
    names = _all_names(last)
    state = {theirs: _their_shape(theirs, tensors[_generator_name(theirs)]) for theirs in names}
    filters = 4 * torch.tensor(FIR)
    count = len([name for name in names if name.startswith("noises.")])
    state |= {f"convs.{k}.conv.blur.kernel": filters.clone() for k in range(0, count - 1, 2)}
    state |= {f"to_rgbs.{k}.upsample.kernel": filters.clone() for k in range((count - 1) // 2)}
    layers = sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", name)) for name in tensors)
    return state | {
        f"style.{k + 1}.{kind}": tensors[f"mapping.fc{k}.{kind}"] for k in range(layers) for kind in ("weight", "bias")
    }


def _all_names(resolution: int) -> list[str]:
    """Names there of all that the synthesis has, without filters."""
    layers = 2 * (resolution.bit_length() - 1) - 3
    conv = [key for key in PARTS if key not in ("bias", "")]
    rgb = [key for key in PARTS if key not in ("noise.weight", "activate.bias", "")]
    blocks = ["conv1", *(f"convs.{k}" for k in range(layers - 1))]
    colours = ["to_rgb1", *(f"to_rgbs.{k}" for k in range((layers - 1) // 2))]
    return [
        "input.input", *(f"{block}.{key}" for block in blocks for key in conv),
        *(f"{block}.{key}" for block in colours for key in rgb), *(f"noises.noise_{k}" for k in range(layers)),
    ]  # fmt: skip


def _their_shape(name: str, tensor: Tensor) -> Tensor:
    if name == "input.input" or name.endswith(".conv.weight"):
        return tensor[None]
    if name.startswith("noises."):
        return tensor[None, None]
    if name.endswith("noise.weight"):
        return tensor.reshape(1)
    return (
        tensor.reshape(1, -1, 1, 1) if re.fullmatch(r"to_rgb.*\.bias", name) and "modulation" not in name else tensor
    )


# ---------------------------------------------------------------- the discriminator


BLOCK = {"conv1.0.weight": "conv0.weight", "conv1.1.bias": "conv0.bias", "conv2.1.weight": "conv1.weight",
         "conv2.2.bias": "conv1.bias", "skip.1.weight": "skip.weight"}  # fmt: skip
ENDS = {
    "final_conv.0.weight": "b4.conv.weight", "final_conv.1.bias": "b4.conv.bias",
    "final_linear.0.weight": "b4.fc.weight", "final_linear.0.bias": "b4.fc.bias",
    "final_linear.1.weight": "b4.out.weight", "final_linear.1.bias": "b4.out.bias",
}  # fmt: skip


def discriminator_names(resolution: int) -> dict[str, str]:
    """Names there of all that a discriminator has, without filters, to NVIDIA's."""
    names = {"convs.0.0.weight": f"b{resolution}.fromrgb.weight", "convs.0.1.bias": f"b{resolution}.fromrgb.bias"}
    for n in range(1, resolution.bit_length() - 2):
        names |= {f"convs.{n}.{theirs}": f"b{resolution >> (n - 1)}.{ours}" for theirs, ours in BLOCK.items()}
    return names | ENDS


def discriminator_from(tensors: Mapping[str, Tensor], resolution: int) -> dict[str, Tensor]:
    """The tensors of a discriminator by NVIDIA's names; an unknown one keeps its name, so that it is reported."""
    names = discriminator_names(resolution)
    return {names.get(name, name): tensor for name, tensor in tensors.items()}


def discriminator_to(tensors: Mapping[str, Tensor], resolution: int) -> dict[str, Tensor]:
    """A discriminator's tensors by NVIDIA's names as the state dict of that code, filters included."""
    state = {theirs: tensors[ours] for theirs, ours in discriminator_names(resolution).items()}
    for n in range(1, resolution.bit_length() - 2):
        state |= {f"convs.{n}.{part}.0.kernel": torch.tensor(FIR) for part in ("conv2", "skip")}
    return state
