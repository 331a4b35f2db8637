"""Checkpoints of lucidrains' stylegan2-pytorch (`model_N.pt`) to the generator that is written for them.

Their moving averages, SE and GE, are taken. Nothing beside the tensors is needed: all that the networks were made with
shows in shapes and names, but for the gain of the mapping.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hfgan.converting.networks import Unsupported, estimate_mean, fill, fit_channels
from hfgan.models.lucidrains import LucidrainsGenerator, uniform

NETWORKS, MAPPING, SYNTHESIS = "GAN", "SE.", "GE."
MOST_BLOCKS = 9  # 1024 px
BLUR = [1.0, 2.0, 1.0]
# what stands in each block and in its attention, under our name and under theirs
BLOCK = {
    "conv0.affine.weight": "to_style1.weight", "conv0.affine.bias": "to_style1.bias", "conv0.weight": "conv1.weight",
    "conv0.noise_strength": "to_noise1.weight", "conv0.bias": "to_noise1.bias",
    "conv1.affine.weight": "to_style2.weight", "conv1.affine.bias": "to_style2.bias", "conv1.weight": "conv2.weight",
    "conv1.noise_strength": "to_noise2.weight", "conv1.bias": "to_noise2.bias",
    "torgb.affine.weight": "to_rgb.to_style.weight", "torgb.affine.bias": "to_rgb.to_style.bias",
    "torgb.weight": "to_rgb.conv.weight",
}  # fmt: skip
ATTENTION = {
    "norm0.weight": "0.fn.norm.g", "norm0.bias": "0.fn.norm.b", "query.weight": "0.fn.fn.to_q.weight",
    "around.weight": "0.fn.fn.to_kv.net.0.weight", "key_value.weight": "0.fn.fn.to_kv.net.1.weight",
    "out.weight": "0.fn.fn.to_out.weight", "out.bias": "0.fn.fn.to_out.bias",
    "norm1.weight": "1.fn.norm.g", "norm1.bias": "1.fn.norm.b", "wide.weight": "1.fn.fn.0.weight",
    "wide.bias": "1.fn.fn.0.bias", "narrow.weight": "1.fn.fn.2.weight", "narrow.bias": "1.fn.fn.2.bias",
}  # fmt: skip


def is_lucidrains(found: Any) -> bool:
    """Whether what `read_pickle` found is such a checkpoint."""
    state = found.get(NETWORKS) if isinstance(found, Mapping) else None
    return isinstance(state, Mapping) and any(str(name).startswith((MAPPING, SYNTHESIS)) for name in state)


def read_lucidrains(found: Mapping[str, Any], notes: list[str]) -> LucidrainsGenerator:
    """The averaged generator in what `read_pickle` found.

    Args:
        notes: Takes sentences about what was filled in or left out.

    Raises:
        Unsupported: a network of an early version. ValueError: tensors missing, left over or misshapen, by name.
    """
    tensors = _averages(found[NETWORKS])
    blocks = _count_blocks(tensors)
    _check_version(tensors, found.get("version"))
    sizes = [4 << k for k in range(blocks)]
    widths = {size: len(_tensor(tensors, f"GE.blocks.{k}.conv2.weight", 4)) for k, size in enumerate(sizes)}
    base, most = fit_channels(widths)
    w_dim, z_dim = _tensor(tensors, "SE.net.0.weight", 2).shape
    layers = sum(bool(re.fullmatch(r"SE\.net\.\d+\.weight", name)) for name in tensors)
    attention = sorted({int(m[1]) for name in tensors if (m := re.match(r"GE\.attns\.(\d{1,2})\.", name))})
    config = {
        "resolution": sizes[-1], "img_channels": len(_tensor(tensors, "GE.blocks.0.to_rgb.conv.weight", 4)),
        "z_dim": z_dim, "w_dim": w_dim, "mapping_layers": layers, "channel_base": base,
        "channel_max": most, "start_from_w": "GE.to_initial_block.weight" in tensors,
        "blurred": "GE.blocks.0.to_rgb.upsample.1.f" in tensors, "attention": attention,
    }  # fmt: skip
    names = our_names(config)  # an unknown one stays, so that it is reported
    ours = {names.get(name, name): _reshaped(name, tensor) for name, tensor in _without_filters(tensors).items()}
    source = torch.Generator().manual_seed(0)
    ours["synthesis.noise_const"] = uniform((sizes[-1], sizes[-1]), source, torch.device("cpu"))
    ours["mapping.w_avg"] = torch.zeros(w_dim)
    model = fill(LucidrainsGenerator, config, ours)
    estimate_mean(model, notes)
    notes += [
        "The file has no constant noise: one image of it was drawn with seed 0.",
        f"The gain of the mapping is not in the file: {model.config.mapping_gain}, the usual lr_mlp, was taken.",
        "The discriminator, a network that hfgan does not have, was left out.",
    ]
    return model


def our_names(config: Mapping[str, Any]) -> dict[str, str]:
    """Names there of all that a generator with this configuration has, without filters, to ours."""
    start = "to_initial_block.weight" if config["start_from_w"] else "initial_block"
    names = {f"GE.{start}": "synthesis.const"}
    for kind in ("weight", "bias"):
        names[f"GE.initial_conv.{kind}"] = f"synthesis.stem.{kind}"
        for k in range(config["mapping_layers"]):  # an activation without tensors stands after each of them
            names[f"SE.net.{2 * k}.{kind}"] = f"mapping.layers.{k}.{kind}"
    for k in range(config["resolution"].bit_length() - 2):
        names |= {f"GE.blocks.{k}.{theirs}": f"synthesis.blocks.{k}.{ours}" for ours, theirs in BLOCK.items()}
    for k in config["attention"]:
        inside = f"synthesis.blocks.{k}.attention"
        names |= {f"GE.attns.{k}.{theirs}": f"{inside}.{ours}" for ours, theirs in ATTENTION.items()}
    return names


def _reshaped(name: str, tensor: Tensor) -> Tensor:
    """Their tensor in our shape, with the same numbers."""
    if name == "GE.initial_block" and tensor.shape[:1] == (1,):
        return tensor[0]
    if re.search(r"to_noise[12]\.weight$", name) and tensor.shape[1:] == (1,):
        return tensor[:, 0]
    return tensor.flatten() if re.search(r"fn\.norm\.[gb]$", name) and tensor.shape[2:] == (1, 1) else tensor


# ---------------------------------------------------------------- what is there


def _averages(state: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The tensors of the averaged mapping and synthesis by their names."""
    named = {str(name): tensor for name, tensor in state.items() if str(name).startswith((MAPPING, SYNTHESIS))}
    if strange := [name for name, tensor in named.items() if not isinstance(tensor, Tensor)]:
        raise ValueError(f"holds {', '.join(strange)}, which are no tensors: expected those of a network")
    return named


def _count_blocks(tensors: Mapping[str, Tensor]) -> int:
    """How many blocks there are, numbered from 0 without a gap."""
    found = sorted({int(m[1][:6]) for name in tensors if (m := re.match(r"GE\.blocks\.(\d+)\.", name))})
    if not found or len(found) > MOST_BLOCKS or found != list(range(len(found))):
        raise ValueError(f"has blocks {found[:20]} in GE.blocks: expected 0, 1, 2 and so on, at most {MOST_BLOCKS}")
    return len(found)


def _check_version(tensors: Mapping[str, Tensor], version: Any) -> None:
    """Unsupported for networks of versions that differ in more than shapes tell."""
    written = f"version {version!s:.20}" if version is not None else "an unknown version"
    if "GE.initial_conv.weight" not in tensors:
        raise Unsupported(
            f"has no GE.initial_conv and is by {written} of stylegan2-pytorch, expected one of 0.20 or later"
        )
    if early := sorted(name for name in tensors if re.fullmatch(r"GE\.attns\.\d+\.\d\.fn\.g", name)):
        raise Unsupported(
            f"has attention ({early[0]}) as of {written} of stylegan2-pytorch: only that of 1.8 or later is known"
        )


def _without_filters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the blur of the colours, which must be the usual one."""
    kept = {}
    for name, tensor in tensors.items():
        if not name.endswith(".to_rgb.upsample.1.f"):
            kept[name] = tensor
        elif tensor.tolist() != BLUR:
            raise Unsupported(f"blurs its colours with another filter ({name}), only [1, 2, 1] is known")
    return kept


def _tensor(tensors: Mapping[str, Tensor], name: str, dims: int) -> Tensor:
    """A tensor that must be there, with so many dimensions."""
    if name not in tensors:
        raise ValueError(f"lacks the tensor {name}, which every generator of stylegan2-pytorch has")
    if tensors[name].ndim != dims:
        raise ValueError(f"holds {name} of shape {list(tensors[name].shape)}, expected {dims} dimensions")
    return tensors[name]
