"""Checkpoints of pSp, e4e and ReStyle: an encoder, `encoder.*`, beside the generator it was trained with, `decoder.*`.

Which class an encoder was is said by the options of its training that lie beside it. Where they are missing, its
tensors tell, but for one thing: whether codes are offsets from the first. That is tried out on drawings of known w.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hfgan.converting.networks import Unsupported, fill
from hfgan.models.banks import whitening_scale
from hfgan.models.directions import WStats
from hfgan.models.encoder import for_all_layers
from hfgan.models.published import SIDE, W_DIM, PublishedEncoder
from hfgan.models.stylegan2 import StyleGAN2Generator
from hfgan.pickles import Record

KINDS = {  # encoder_type there: backbone, pyramid, progressive
    "GradualStyleEncoder": ("ir_se50", True, False),
    "Encoder4Editing": ("ir_se50", True, True),
    "BackboneEncoder": ("ir_se50", False, False),
    "ProgressiveBackboneEncoder": ("ir_se50", False, True),
    "ResNetGradualStyleEncoder": ("resnet34", True, False),
    "ResNetBackboneEncoder": ("resnet34", False, False),
    "ResNetProgressiveBackboneEncoder": ("resnet34", False, True),
}
WHOLE = {"residue": "HFGI", "grid_align": "HFGI", "hypernet": "HyperStyle"}  # what lies beside an encoder, of whom
STEM = {"conv1.": "input_layer.0.", "bn1.": "input_layer.1.", "relu.": "input_layer.2."}  # of ResNet34
CARS, CAR_ROWS = "cars_encode", 192
PROBES = 4  # drawings of known w


def is_encoder(found: Any) -> bool:
    """Whether a file holds an encoder of these layouts."""
    return isinstance(found, Mapping) and any(str(name).startswith("encoder.") for name in _state(found))


def decoder_state(found: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict of the generator in such a file, by the names of rosinality's code; empty where it has none."""
    return _part(found, "decoder.")


def read_encoder(found: Mapping[str, Any], generator: StyleGAN2Generator, notes: list[str]) -> PublishedEncoder:
    """The encoder in what `read_pickle` found, for the generator that it was trained beside.

    Args:
        notes: Takes sentences about what the file does not tell.

    Raises:
        Unsupported: another network. ValueError: no encoder, one for a generator of another shape, or tensors missing,
            left over or misshapen, by name.
    """
    options, tensors = _options(found), _tensors(found)
    kind = options.get("encoder_type")
    _check_supported(found, options, tensors)
    _check_generator(tensors, generator)
    iterative = _channels(tensors) == 6
    tensors["latent_avg"] = _mean(found, options, iterative, generator, notes)
    tensors["w_std"] = whitening_scale(WStats.of(generator).cov.diagonal().sqrt().float())
    backbone = "resnet34" if "conv1.weight" in tensors else "ir_se50"
    pyramid, progressive = any(name.startswith("latlayer") for name in tensors), False
    if kind in KINDS:
        backbone, pyramid, progressive = KINDS[kind]
    if backbone == "resnet34":
        tensors = {re.sub(r"^(conv1|bn1|relu)\.", lambda m: STEM[m[0]], name): t for name, t in tensors.items()}
    rows = CAR_ROWS if options.get("dataset_type") == CARS else SIDE
    if rows != SIDE:
        notes.append(f"The encoder is one for cars: of {SIDE} rows the {rows} in the middle are seen.")
    config = {"backbone": backbone, "num_ws": generator.num_ws, "pyramid": pyramid, "progressive": progressive,
              "iterative": iterative, "rows": rows, "generator_fingerprint": generator.fingerprint()}  # fmt: skip
    encoder = fill(PublishedEncoder, config, tensors)
    if kind in KINDS:
        return encoder
    if tells_offsets(encoder, generator):
        encoder = fill(PublishedEncoder, config | {"progressive": True}, tensors)
    how = "offsets from the first" if encoder.config.progressive else "on their own"
    notes.append(f"The file does not tell the encoder's class: its codes were found to be {how}, on drawings.")
    return encoder


@torch.no_grad()
def tells_offsets(encoder: PublishedEncoder, generator: StyleGAN2Generator) -> bool:
    """Whether an encoder that is not `progressive` tells the w of drawings better when it is read as if it were."""
    z = torch.randn(PROBES, generator.config.z_dim, generator=torch.Generator().manual_seed(0))
    mapping = generator.mapping
    w_plus = for_all_layers(mapping(z, mapping.labels_in_turn(torch.arange(PROBES))), generator.num_ws)
    ((plain, _),) = encoder.steps(generator, generator.synthesis(w_plus), count=1)
    first = plain[:, :1] - encoder.latent_avg[:1]  # (n, 1, 512), the first code
    offsets = plain[:, 1:] + first
    return bool((offsets - w_plus[:, 1:]).square().mean() < (plain - w_plus)[:, 1:].square().mean())


# ---------------------------------------------------------------- what a file holds


def _state(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """All tensors of a file; some have no more than these."""
    state = found.get("state_dict", found)
    return state if isinstance(state, Mapping) else {}


def _part(found: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """What begins with a prefix, without it."""
    return {name.removeprefix(prefix): t for name, t in _state(found).items() if str(name).startswith(prefix)}


def _tensors(found: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of the encoder, without how many batches it was trained on."""
    tensors = {name: t for name, t in _part(found, "encoder.").items() if not name.endswith("num_batches_tracked")}
    if not tensors:
        raise ValueError("holds no encoder (encoder.*): expected a checkpoint of pSp, e4e or ReStyle")
    if others := [name for name, t in tensors.items() if not isinstance(t, Tensor)]:
        raise ValueError(f"holds encoder.{others[0]}, which is no tensor")
    return tensors


def _options(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options of the training; none where the file has none."""
    options = found.get("opts")
    options = options.state if isinstance(options, Record) else options
    return options if isinstance(options, Mapping) else {}


def _channels(tensors: Mapping[str, Tensor]) -> int:
    """Of what is seen."""
    first = tensors.get("input_layer.0.weight", tensors.get("conv1.weight"))
    if first is None or first.ndim != 4:
        raise ValueError("lacks a first convolution, encoder.input_layer.0.weight or encoder.conv1.weight")
    return first.shape[1]


def _styles(tensors: Mapping[str, Tensor]) -> int:
    """How many layers there are codes for."""
    return len({m[1] for name in tensors if (m := re.match(r"styles\.(\d+)\.", name))})


# ---------------------------------------------------------------- what fits


def _check_supported(found: Mapping[str, Any], options: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Raise Unsupported for networks that look alike and are others."""
    beside = {str(name).split(".")[0] for name in _state(found)}
    for name in sorted(WHOLE.keys() & beside):
        raise Unsupported(
            f"is a checkpoint of {WHOLE[name]} ({name}.*), not of an encoder alone: give the encoder's own"
        )
    kind = options.get("encoder_type")
    if kind is not None and str(kind) not in KINDS:
        raise Unsupported(f"holds an encoder of class {kind!s:.60}: known are {', '.join(KINDS)}")
    if not _styles(tensors):
        raise Unsupported(
            "holds an encoder without styles.*, such as BackboneEncoderUsingLastLayerIntoW or SingleStyleCodeEncoder: "
            f"known are {', '.join(KINDS)}"
        )
    channels = _channels(tensors)
    if options.get("label_nc") or channels not in (3, 6):
        raise Unsupported(
            f"holds an encoder of maps of labels or sketches ({channels} channels): expected one of photos"
        )


def _check_generator(tensors: Mapping[str, Tensor], generator: StyleGAN2Generator) -> None:
    """ValueError for a generator of which such an encoder can tell nothing."""
    config, styles = generator.config, _styles(tensors)
    if config.img_channels != 3:
        raise ValueError(
            f"holds an encoder of RGB, but the generator draws {config.img_channels} channels: give one that draws RGB"
        )
    if (styles, W_DIM) != (generator.num_ws, config.w_dim):
        raise ValueError(
            f"holds an encoder for {styles} layers and a w of {W_DIM} numbers, but the generator has "
            f"{generator.num_ws} and {config.w_dim}: give the one that it was trained beside"
        )


def _mean(
    found: Mapping[str, Any], options: Mapping[str, Any], iterative: bool, generator: StyleGAN2Generator,
    notes: list[str],
) -> Tensor:  # fmt: skip
    """What codes are added to (num_ws, 512): the mean of w, or 0 for a network that was trained without."""
    if not (iterative or options.get("start_from_latent_avg", True)):
        return torch.zeros(generator.num_ws, W_DIM)
    given = found.get("latent_avg")
    if not isinstance(given, Tensor):
        notes.append("The file has no latent_avg: the encoder starts from the generator's w_avg.")
        given = generator.mapping.w_avg.detach().cpu()
    if given.shape not in ((W_DIM,), (1, W_DIM), (generator.num_ws, W_DIM)):
        raise ValueError(
            f"holds a latent_avg of shape {[*given.shape]}: expected ({W_DIM},) or ({generator.num_ws}, {W_DIM})"
        )
    return given.expand(generator.num_ws, W_DIM)
