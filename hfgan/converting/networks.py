"""From the tensors of a published StyleGAN2, by the names of NVIDIA's PyTorch code, to our classes, and back.

All other layouts are brought to these names first. No number is changed on the way: what differs is how they are
called. The shape of a network is read off its tensors, so that a file cannot make one that it does not hold.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from hfgan.models.base import HFGanModel, misfits
from hfgan.models.discriminator import StyleGAN2Discriminator
from hfgan.models.ops import FIR
from hfgan.models.stylegan2 import StyleGAN2Generator, channels_at

Model = TypeVar("Model", bound=HFGanModel)
Tensors = Mapping[str, Tensor]
IN_HALVES = "It was trained with its {} largest resolutions in half precision; weights are fp32."
MEAN_SAMPLES = 10_000
CHUNK = 4096  # of them at once
LABEL_LAYERS = 8  # of the discriminator's mapping


class Unsupported(ValueError):
    """A network that our classes cannot express."""


# ---------------------------------------------------------------- names


def our_generator_name(name: str) -> str:
    """synthesis.b8.conv0.weight -> synthesis.blocks.1.conv0.weight, mapping.fc0.bias -> mapping.layers.0.bias."""
    if name == "synthesis.b4.const":
        return "synthesis.const"
    name = re.sub(r"^mapping\.fc(\d+)\.", r"mapping.layers.\1.", name)
    return re.sub(r"^synthesis\.b(\d+)\.", lambda m: f"synthesis.blocks.{_log2(m[1]) - 2}.", name)


def their_generator_name(name: str) -> str:
    """The inverse of `our_generator_name`."""
    if name == "synthesis.const":
        return "synthesis.b4.const"
    name = re.sub(r"^mapping\.layers\.(\d+)\.", r"mapping.fc\1.", name)
    return re.sub(r"^synthesis\.blocks\.(\d+)\.", lambda m: f"synthesis.b{2 ** (int(m[1]) + 2)}.", name)


def our_discriminator_name(name: str, resolution: int) -> str:
    """b64.conv0.weight -> blocks.0.conv0.weight at 64 px, b64.fromrgb.weight -> fromrgb.weight, b4.out.bias -> ..."""
    name = re.sub(rf"^b{resolution}\.fromrgb\.", "fromrgb.", name)
    name = re.sub(r"^b4\.(conv|fc|out)\.", r"\1.", name)
    name = re.sub(r"^mapping\.fc(\d+)\.", r"label_mapping.layers.\1.", name)
    name = re.sub(r"^mapping\.", "label_mapping.", name)
    return re.sub(r"^b(\d+)\.", lambda m: f"blocks.{_log2(str(resolution)) - _log2(m[1])}.", name)


def their_discriminator_name(name: str, resolution: int) -> str:
    """The inverse of `our_discriminator_name`."""
    name = re.sub(r"^fromrgb\.", f"b{resolution}.fromrgb.", name)
    name = re.sub(r"^(conv|fc|out)\.", r"b4.\1.", name)
    name = re.sub(r"^label_mapping\.layers\.(\d+)\.", r"mapping.fc\1.", name)
    name = re.sub(r"^label_mapping\.", "mapping.", name)
    return re.sub(r"^blocks\.(\d+)\.", lambda m: f"b{resolution >> int(m[1])}.", name)


def _log2(number: str) -> int:
    value = int(number[:6])
    if value < 4 or value & (value - 1):
        raise Unsupported(f"has a block of {value} px, which is no power of two")
    return value.bit_length() - 1


# ---------------------------------------------------------------- networks


def generator_of(tensors: Tensors, *, conv_clamp: float | None, notes: list[str]) -> StyleGAN2Generator:
    """A generator from its tensors by NVIDIA's names; what was filled in is told in `notes`.

    Raises:
        Unsupported: another network than ours. ValueError: tensors missing, left over or of another shape, by name.
    """
    tensors = _without_filters(tensors)
    if any(name.endswith(".skip.weight") for name in tensors) or "synthesis.b4.torgb.weight" not in tensors:
        raise Unsupported("is a generator of architecture 'resnet' or 'orig': only 'skip', the usual one, is known")
    resolution = _resolution(tensors, "synthesis.")
    widths = {size: _shape(tensors, f"synthesis.b{size}.conv1.weight", 4)[0] for size in _sizes(resolution)}
    base, most = fit_channels(widths)
    c_dim = _shape(tensors, "mapping.embed.weight", 2)[1] if "mapping.embed.weight" in tensors else 0
    w_dim = _shape(tensors, "synthesis.b4.conv1.affine.weight", 2)[1]
    config = {
        "resolution": resolution, "img_channels": _shape(tensors, "synthesis.b4.torgb.weight", 4)[0],
        "z_dim": _shape(tensors, "mapping.fc0.weight", 2)[1] - (w_dim if c_dim else 0), "w_dim": w_dim, "c_dim": c_dim,
        "mapping_layers": sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", name)) for name in tensors),
        "channel_base": base, "channel_max": most, "conv_clamp": conv_clamp,
    }  # fmt: skip
    ours = {our_generator_name(name): tensor for name, tensor in tensors.items()}
    if not any(".noise_" in name for name in ours):
        notes.append("It draws without noise, which is kept as noise of strength 0.")
        with torch.device("meta"):
            own = StyleGAN2Generator(**config).state_dict()
        ours |= {name: torch.zeros(own[name].shape) for name in own if ".noise_" in name}
    unknown_mean = "mapping.w_avg" not in ours
    if unknown_mean:
        ours["mapping.w_avg"] = torch.zeros(w_dim)
    model = fill(StyleGAN2Generator, config, ours)
    if unknown_mean:
        estimate_mean(model, notes)
    return model


def estimate_mean(generator: HFGanModel, notes: list[str]) -> None:
    """Set `w_avg`, which the file lacks, to the mean w of MEAN_SAMPLES seeded z."""
    generator.mapping.w_avg.copy_(sampled_w(generator, MEAN_SAMPLES).mean(0))
    notes.append(f"The file has no mean of w: w_avg is the mean of {MEAN_SAMPLES:,} samples with seed 0.")


@torch.no_grad()
def sampled_w(generator: HFGanModel, count: int) -> Tensor:
    """w (count, w_dim) of z with seed 0, of every class in turn."""
    source, mapping = torch.Generator().manual_seed(0), generator.mapping
    z = torch.randn(count, generator.config.z_dim, generator=source)
    return torch.cat([mapping(z[rows], mapping.labels_in_turn(rows)) for rows in torch.arange(count).split(CHUNK)])


def discriminator_of(
    tensors: Tensors, *, conv_clamp: float | None, mbstd_group: int | None, mbstd_channels: int
) -> StyleGAN2Discriminator:
    """A discriminator from its tensors by NVIDIA's names; errors as of `generator_of`."""
    tensors = _without_filters(tensors)
    resolution = _resolution(tensors, "")
    if f"b{resolution}.skip.weight" not in tensors or "b4.fromrgb.weight" in tensors:
        raise Unsupported("is a discriminator of architecture 'skip' or 'orig', only 'resnet' is known")
    widths = {size: _shape(tensors, f"b{size}.conv0.weight", 4)[0] for size in _sizes(resolution)[1:]}
    widths[4] = _shape(tensors, "b4.conv.weight", 4)[0]
    base, most = fit_channels(widths)
    labelled = "mapping.embed.weight" in tensors
    layers = sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", name)) for name in tensors)
    if labelled and layers != LABEL_LAYERS:
        raise Unsupported(f"maps its labels in {layers} layers, only {LABEL_LAYERS} are known")
    config = {
        "resolution": resolution, "img_channels": _shape(tensors, f"b{resolution}.fromrgb.weight", 4)[1],
        "c_dim": _shape(tensors, "mapping.embed.weight", 2)[1] if labelled else 0, "channel_base": base,
        "channel_max": most, "mbstd_group": mbstd_group, "mbstd_channels": mbstd_channels, "conv_clamp": conv_clamp,
    }  # fmt: skip
    ours = {our_discriminator_name(name, resolution): tensor for name, tensor in tensors.items()}
    if labelled:
        ours.setdefault("label_mapping.w_avg", torch.zeros(widths[4]))  # which a label has no use for
    return fill(StyleGAN2Discriminator, config, ours)


def fill(kind: type[Model], config: dict[str, Any], tensors: Tensors) -> Model:
    """A model of a class from all its tensors, fp32; nothing is allocated before they are known to fit.

    Raises:
        ValueError: tensors missing, left over or of another shape, by name.
    """
    with torch.device("meta"):
        model = kind(**config)
    if said := misfits(model.state_dict(), tensors):
        raise ValueError(f"does not hold what a {kind.__name__} of its shape has. Tensors {said}")
    model.load_state_dict({name: t.to(_dtype(t)).clone().contiguous() for name, t in tensors.items()}, assign=True)
    return model.eval().requires_grad_(True)


def fit_channels(widths: Mapping[int, int]) -> tuple[int, int]:
    """channel_base and channel_max with which min(base // resolution, max) gives these widths by resolution."""
    most = widths[4]
    narrower = [size * width for size, width in widths.items() if width < most]
    base = max(narrower, default=most * max(widths))
    if any(channels_at(size, base, most) != width for size, width in widths.items()):
        raise Unsupported(
            f"has channels {dict(sorted(widths.items()))}, which are not base / resolution up to a limit"
        )
    return base, most


# ---------------------------------------------------------------- tensors


def _dtype(tensor: Tensor) -> torch.dtype:
    return torch.float32 if tensor.is_floating_point() else tensor.dtype


def _without_filters(tensors: Tensors) -> dict[str, Tensor]:
    """The tensors without the low-pass filters, all of which must be the usual one."""
    for name, tensor in tensors.items():
        if name.endswith("resample_filter"):
            check_filter(name, tensor)
    return {name: tensor for name, tensor in tensors.items() if not name.endswith("resample_filter")}


def check_filter(name: str, tensor: Tensor) -> None:
    """Unsupported unless this is the low-pass filter of StyleGAN2, with sum 1."""
    usual = torch.tensor(FIR, dtype=torch.float64)
    if tensor.shape != usual.shape or not torch.allclose(tensor.double(), usual, atol=1e-6):
        raise Unsupported(f"resamples with another filter ({name}): only [1, 3, 3, 1] is known")


def _sizes(resolution: int) -> list[int]:
    return [2**k for k in range(2, int(math.log2(resolution)) + 1)]


def _resolution(tensors: Tensors, prefix: str) -> int:
    """The size of the largest block."""
    found = [m[1] for name in tensors if (m := re.match(rf"{re.escape(prefix)}b(\d+)\.", name))]
    return 2 ** max((_log2(size) for size in found), default=0)


def _shape(tensors: Tensors, name: str, dims: int) -> torch.Size:
    """The shape of a tensor that must be there, with so many dimensions."""
    if name not in tensors:
        raise ValueError(f"lacks the tensor {name}, which every StyleGAN2 has")
    if tensors[name].ndim != dims:
        raise ValueError(f"holds {name} of shape {list(tensors[name].shape)}, expected {dims} dimensions")
    return tensors[name].shape
