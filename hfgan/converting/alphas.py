"""Files of Labels4Free: an alpha network beside the generator that it was trained beside, which stayed as it was.

The network is written in two ways, as layers with a number each, which is how the published ones are, or as lists of
layers; numbers and order are the same. Names begin with "module." where several GPUs trained it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hfgan.models.base import HFGanModel, misfits
from hfgan.models.labels4free import COARSEST, Labels4FreeAlpha
from hfgan.models.stylegan2 import StyleGAN2Generator

AVERAGE, LIVE, GENERATOR = "bg_extractor_ema", "bg_extractor", "g"
ASKED = "give the one that was trained beside it"
ALIKE = 1e-3  # of what was stored in half precision


def is_labels4free(found: Any) -> bool:
    """Whether a file holds an alpha network of Labels4Free."""
    return isinstance(found, Mapping) and any(isinstance(found.get(key), Mapping) for key in (AVERAGE, LIVE))


def read_alpha(found: Any, generator: HFGanModel, notes: list[str]) -> Labels4FreeAlpha:
    """The alpha network in what `read_pickle` found, for the generator that it was trained beside.

    Args:
        notes: Takes sentences about what the file does not tell.

    Raises:
        ValueError: no such network, one of another generator, or tensors missing, left over or misshapen, by name.
    """
    if not is_labels4free(found):
        raise ValueError(f"holds no alpha network of Labels4Free: expected its tensors as {AVERAGE} or {LIVE}")
    if not isinstance(generator, StyleGAN2Generator):
        raise ValueError(f"holds an alpha network for a StyleGAN2, and this generator is a {type(generator).__name__}")
    tensors = _network(found, notes)
    _check_same(found.get(GENERATOR), generator, notes)
    listed = any(name.startswith("conv_fns") for name in tensors)
    resolution = generator.config.resolution
    first = resolution >> (_count(tensors, listed) - 1)
    if first < COARSEST:
        raise ValueError(
            f"holds an alpha network that looks at more resolutions than a generator of {resolution} px has from "
            f"{COARSEST} px on: it belongs to a larger one"
        )
    with torch.random.fork_rng(devices=[]):
        net = Labels4FreeAlpha.beside(generator, first_resolution=first)
    names = _names(resolution, first, listed)
    own = net.state_dict()
    wanted = {theirs: own[ours] for theirs, ours in names.items()}
    _check_widths(tensors, wanted, resolution)
    if said := misfits(wanted, tensors):
        raise ValueError(f"does not hold what an alpha network of Labels4Free has. Tensors {said}")
    if broken := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise ValueError(f"holds NaN or infinity in {', '.join(broken)}: download it again")
    net.load_state_dict({ours: tensors[theirs] for theirs, ours in names.items()})
    return net.eval()


def _network(found: Mapping[str, Any], notes: list[str]) -> dict[str, Tensor]:
    """The tensors of the network by their names."""
    key = AVERAGE if isinstance(found.get(AVERAGE), Mapping) else LIVE
    network = found[key]
    if strange := [str(name) for name, tensor in network.items() if not isinstance(tensor, Tensor)]:
        raise ValueError(f"holds {', '.join(strange)} in {key}, which are no tensors: expected those of a network")
    if key == AVERAGE:
        notes.append(f"What the file calls {AVERAGE} is the network in training: its average was never saved.")
    return {str(name).removeprefix("module."): tensor for name, tensor in network.items()}


def _check_same(theirs: Any, generator: StyleGAN2Generator, notes: list[str]) -> None:
    """ValueError where the file holds another generator; its constant tells them apart, which no layout changes."""
    const = theirs.get("input.input") if isinstance(theirs, Mapping) else None
    if not isinstance(const, Tensor):
        notes.append("The file with the alpha network holds no generator: nothing tells whether they belong together.")
        return
    layers = sum(bool(re.fullmatch(r"convs\.\d+\.conv\.weight", str(name))) for name in theirs)
    resolution, given = 4 << (layers // 2), generator.config.resolution
    if resolution != given:
        raise ValueError(f"holds an alpha network for {resolution} px, and this generator draws {given} px: {ASKED}")
    own = generator.synthesis.const.detach().cpu()[None]
    if const.shape != own.shape or not torch.allclose(const.float(), own, rtol=ALIKE, atol=ALIKE):
        raise ValueError(f"holds an alpha network that was trained beside another generator of this size: {ASKED}")


def _count(tensors: Mapping[str, Tensor], listed: bool) -> int:
    """How many resolutions the network looks at; at least 1."""
    pattern = r"conv_fns[01]\.(\d{1,3})\.weight" if listed else r"conv(\d{1,3})\.weight"
    numbers = [int(m[1]) for name in tensors if (m := re.fullmatch(pattern, name))]
    last = max(numbers, default=0)
    return last + 1 if listed else max((last + 1) // 2, 1)


def _names(resolution: int, first: int, listed: bool) -> dict[str, str]:
    """Our names of tensors by those in the file; the layers of both go from coarse to fine."""
    layer, count = 2 * int(math.log2(first)) - 5, int(math.log2(resolution // first)) + 1
    taps = {f"conv_fns{k % 2}.{k // 2}" if listed else f"conv{k + 1}": f"taps.{layer + k}" for k in range(2 * count)}
    merges = {
        f"conv_merge_fns.{k}" if listed else f"conv_next{k + 1 if k else ''}": f"merges.{first << (k + 1)}"
        for k in range(count - 2)
    }
    layers = taps | merges | {"conv_n": "out"}
    return {f"{theirs}.{kind}": f"{ours}.{kind}" for theirs, ours in layers.items() for kind in ("weight", "bias")}


def _check_widths(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], resolution: int) -> None:
    """ValueError where the activations that are looked at have other channels than the generator's."""
    taps = [name for name in wanted if re.fullmatch(r"conv(_fns[01]\.)?\d+\.weight", name)]
    if any(name not in tensors or tensors[name].ndim != 4 for name in taps):
        return
    theirs, own = ([named[name].shape[1] for name in taps[::2]] for named in (tensors, wanted))
    if theirs != own:
        raise ValueError(
            f"holds an alpha network for activations of {', '.join(map(str, theirs))} channels, where this generator "
            f"of {resolution} px has {', '.join(map(str, own))}: it belongs to one of another resolution or width"
        )
