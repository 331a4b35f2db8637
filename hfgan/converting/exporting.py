"""Back to the layouts of others: a generator (and discriminator) as NVIDIA's or rosinality's code names its tensors.

In a checkout of stylegan2-ada-pytorch, or with `training.networks_stylegan2` in one of stylegan3:

    from training.networks import Generator
    found = torch.load("mine.pt")
    G = Generator(**found["config"]["G"])
    G.load_state_dict(found["G_ema"])

In a checkout of rosinality's stylegan2-pytorch: `python generate.py --ckpt mine.pt --size 64 --channel_multiplier 2`.
The .safetensors form holds the same tensors with their dict's key before their name, "G_ema.mapping.fc0.weight".
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from hfgan.converting import rosinality
from hfgan.converting.networks import (
    Unsupported,
    discriminator_of,
    generator_of,
    their_discriminator_name,
    their_generator_name,
)
from hfgan.images import write_file
from hfgan.models.discriminator import StyleGAN2Discriminator
from hfgan.models.ops import FIR
from hfgan.models.stylegan2 import StyleGAN2Generator, channels_at
from hfgan.pipeline import HFGan
from hfgan.storage import read_tagged

LAYOUTS = ("nvidia", "rosinality")
ENDINGS = (".pt", ".safetensors")
FORMAT = "NVIDIA's names, by hfgan export"
MULTIPLE = 16384  # channel_base of rosinality's channel_multiplier 1
WIDEST = 512
HARMLESS = 256.0  # the clamp of published models, which is there for half precision


def export_weights(gan: HFGan, path: str | Path, *, layout: str, overwrite: bool = False) -> list[str]:
    """Write generator, and discriminator if there is one, as the dict of tensors that other code loads.

    Args:
        path: .pt (plain tensors in dicts) or .safetensors.
        layout: "nvidia" or "rosinality".

    Returns:
        Sentences about what the layout cannot express, though the pictures do not need it.

    Raises:
        ValueError: another ending or layout, or a model that the layout cannot express. FileExistsError.
    """
    path = Path(path)
    if layout not in LAYOUTS or path.suffix not in ENDINGS:
        raise ValueError(
            f"layout is {layout!r} and the file {path.name}: expected {' or '.join(LAYOUTS)}, .pt or .safetensors"
        )
    generator, discriminator = gan.generator, gan.discriminator
    if not isinstance(generator, StyleGAN2Generator):
        raise ValueError(f"the generator is a {type(generator).__name__}, which {layout}'s code does not have")
    with torch.no_grad():
        found, notes = (_nvidia if layout == "nvidia" else _rosinality)(generator, discriminator)
    if path.suffix == ".pt":
        stream = io.BytesIO()
        torch.save(found, stream)
        write_file(path, stream.getvalue(), overwrite=overwrite)
        return notes
    texts = {"format": f"hfgan-{layout}", "config": json.dumps(found.get("config", {}))}
    flat = {
        f"{key}.{name}" if name else key: tensor
        for key, group in found.items() if key != "config"
        for name, tensor in (group.items() if isinstance(group, dict) else [("", group)])
    }  # fmt: skip
    write_file(path, save(flat, texts), overwrite=overwrite)
    return notes


def _nvidia(
    generator: StyleGAN2Generator, discriminator: StyleGAN2Discriminator | None
) -> tuple[dict[str, Any], list[str]]:
    """{"G_ema": tensors, "D": tensors, "config": {"G": arguments, "D": arguments}}."""
    c = generator.config
    tensors = {their_generator_name(name): t.cpu().contiguous() for name, t in generator.state_dict().items()}
    layers = [name.rpartition(".")[0] for name in tensors if name.endswith("noise_strength")]
    blocks = sorted({layer.rpartition(".")[0] for layer in layers})
    found: dict[str, Any] = {"G_ema": tensors | _filters([*layers, *blocks])}
    config = {"G": {
        "z_dim": c.z_dim, "c_dim": c.c_dim, "w_dim": c.w_dim, "img_resolution": c.resolution,
        "img_channels": c.img_channels, "mapping_kwargs": {"num_layers": c.mapping_layers},
        "synthesis_kwargs": {"channel_base": c.channel_base, "channel_max": c.channel_max, "num_fp16_res": 0,
                             "conv_clamp": c.conv_clamp},
    }}  # fmt: skip
    if discriminator is not None:
        c = discriminator.config
        state = {name: t for name, t in discriminator.state_dict().items() if name != "label_mapping.w_avg"}
        below = {their_discriminator_name(name, c.resolution): t.cpu().contiguous() for name, t in state.items()}
        convs = [name.removesuffix(".weight") for name, t in below.items() if t.ndim == 4]
        blocks = sorted({conv.rpartition(".")[0] for conv in convs} - {"b4"})
        found["D"] = below | _filters([*convs, *blocks])
        config["D"] = {
            "c_dim": c.c_dim, "img_resolution": c.resolution, "img_channels": c.img_channels,
            "channel_base": c.channel_base, "channel_max": c.channel_max, "num_fp16_res": 0,
            "conv_clamp": c.conv_clamp,
            "epilogue_kwargs": {"mbstd_group_size": c.mbstd_group, "mbstd_num_channels": c.mbstd_channels},
        }  # fmt: skip
    return found | {"config": config}, []


def _filters(layers: list[str]) -> dict[str, Tensor]:
    return {f"{layer}.resample_filter": torch.tensor(FIR) for layer in layers}


def _rosinality(
    generator: StyleGAN2Generator, discriminator: StyleGAN2Discriminator | None
) -> tuple[dict[str, Any], list[str]]:
    """{"g_ema": tensors, "latent_avg": (w_dim,), "d": tensors}."""
    c, notes = generator.config, []
    if c.c_dim or c.img_channels != 3 or c.z_dim != c.w_dim:
        raise ValueError(
            f"the model has {c.c_dim} classes, {c.img_channels} channels, z of {c.z_dim} and w of {c.w_dim}: "
            "rosinality's code has no classes, RGB pictures, and z as large as w"
        )
    if not any(_like(generator, multiplier) for multiplier in (1, 2, 4)):
        raise ValueError(
            f"the model has channels {c.channel_base} / resolution up to {c.channel_max}: rosinality's code has "
            f"multiples of {MULTIPLE} up to {WIDEST}"
        )
    if c.conv_clamp is not None and c.conv_clamp < HARMLESS:
        raise ValueError(f"the model limits its activations to {c.conv_clamp:g}: rosinality's code has no clamp")
    if c.conv_clamp is not None:
        notes.append(f"Activations are limited to {c.conv_clamp:g} here and not there: hardly any is larger.")
    tensors = {their_generator_name(name): t.cpu().contiguous() for name, t in generator.state_dict().items()}
    found: dict[str, Any] = {"latent_avg": tensors.pop("mapping.w_avg")}
    found["g_ema"] = {name: t.contiguous() for name, t in rosinality.generator_to(tensors).items()}
    d = discriminator
    if d is not None and (d.config.mbstd_group, d.config.mbstd_channels) != (rosinality.GROUP, rosinality.FEATURES):
        notes.append("The discriminator was left out: its minibatch deviation is of other groups than rosinality's.")
    elif d is not None:
        resolution = d.config.resolution
        state = {
            their_discriminator_name(name, resolution): t.cpu().contiguous() for name, t in d.state_dict().items()
        }
        found["d"] = rosinality.discriminator_to(state, resolution)
    return found, notes


def _like(generator: StyleGAN2Generator, multiplier: int) -> bool:
    """Whether all layers have the channels of that channel_multiplier."""
    convs = [block.conv1 for block in generator.synthesis.blocks]
    wanted = [channels_at(len(conv.noise_const), MULTIPLE * multiplier, WIDEST) for conv in convs]
    return [len(conv.weight) for conv in convs] == wanted


# ---------------------------------------------------------------- read them again


def read(path: Path) -> dict[str, Any]:
    """A .safetensors file of `export_weights` as the dict that its .pt form holds; ValueError for another."""
    tensors, texts = read_tagged(path)
    if texts.get("format") not in [f"hfgan-{layout}" for layout in LAYOUTS]:
        raise ValueError("is a safetensors file of another program: expected one of `hfgan export generator`")
    found: dict[str, Any] = {}
    for name, tensor in tensors.items():
        key, _, inner = name.partition(".")
        if inner:
            found.setdefault(key, {})[inner] = tensor
        else:
            found[key] = tensor
    try:
        return found | {"config": json.loads(texts["config"])}
    except (KeyError, ValueError) as error:
        raise ValueError("does not describe its networks: export it again") from error


def is_nvidia_tensors(found: Any) -> bool:
    """Whether a dict holds a generator's tensors by NVIDIA's names, as `export_weights` writes them."""
    return isinstance(found, dict) and isinstance(found.get("G_ema"), dict) and "config" in found


def read_nvidia_tensors(
    found: Mapping[str, Any], notes: list[str]
) -> tuple[StyleGAN2Generator, StyleGAN2Discriminator | None, str]:
    """Generator, discriminator and the name of the format."""
    try:
        asked = found["config"]["G"]["synthesis_kwargs"]
        generator = generator_of(found["G_ema"], conv_clamp=asked["conv_clamp"], notes=notes)
        if "D" not in found:
            return generator, None, FORMAT
        asked = found["config"]["D"]
        told = asked["epilogue_kwargs"]
        settings = {"mbstd_group": told["mbstd_group_size"], "mbstd_channels": told["mbstd_num_channels"]}
        return generator, discriminator_of(found["D"], conv_clamp=asked["conv_clamp"], **settings), FORMAT
    except (KeyError, TypeError, AttributeError) as error:
        raise Unsupported(f"does not describe its networks as `hfgan export` does ({error!r:.80})") from error
