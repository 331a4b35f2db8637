"""Pickles of the TensorFlow code of StyleGAN2 and of stylegan2-ada: a tuple (G, D, Gs) of networks with variables.

Dense weights are (in, out) there and kernels (h, w, in, out), the upsampling kernel turned by 180 degrees; a bias of
modulation lacks the 1 that is added to it. All names are brought to those of NVIDIA's PyTorch code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hfgan.converting.networks import IN_HALVES, Unsupported, discriminator_of, generator_of
from hfgan.models.discriminator import StyleGAN2Discriminator
from hfgan.models.stylegan2 import StyleGAN2Generator
from hfgan.pickles import Record
from hfgan.pickles.names import NETWORK

FORMAT = "TensorFlow StyleGAN2"
LEAST_VERSION = 4
D_LR_MULTIPLIER = 0.1  # of the mapping of labels, unless it is given

# what a variable's name begins with there, and what it begins with here
GENERATOR = {
    r"mapping/Dense(\d+)/": r"mapping.fc\1.", r"mapping/LabelEmbed/": "mapping.embed.",
    r"dlatent_avg$": "mapping.w_avg",
    r"synthesis/4x4/Const/const$": "synthesis.b4.const", r"synthesis/4x4/Conv/": "synthesis.b4.conv1.",
    r"synthesis/(\d+)x\1/Conv0_up/": r"synthesis.b\1.conv0.", r"synthesis/(\d+)x\1/Conv1/": r"synthesis.b\1.conv1.",
    r"synthesis/(\d+)x\1/ToRGB/": r"synthesis.b\1.torgb.",
}  # fmt: skip
DISCRIMINATOR = {
    r"Mapping(\d+)/": r"mapping.fc\1.", r"LabelEmbed/": "mapping.embed.", r"(\d+)x\1/FromRGB/": r"b\1.fromrgb.",
    r"(\d+)x\1/Conv0/": r"b\1.conv0.", r"(\d+)x\1/Conv1_down/": r"b\1.conv1.", r"(\d+)x\1/Skip/": r"b\1.skip.",
    r"4x4/Conv/": "b4.conv.", r"4x4/Dense0/": "b4.fc.", r"Output/": "b4.out.",
}  # fmt: skip
LAYERS = {"nonlinearity": "lrelu", "act": "lrelu", "resample_kernel": [1, 3, 3, 1], "fmap_decay": 1.0}
USUAL = LAYERS | {
    "architecture": "skip", "mapping_nonlinearity": "lrelu", "mapping_lrmul": 0.01, "use_noise": True,
    "normalize_latents": True,
}  # fmt: skip
HEEDED = {
    "num_channels", "resolution", "label_size", "latent_size", "dlatent_size", "mapping_layers", "mapping_fmaps",
    "fmap_base", "fmap_min", "fmap_max", "conv_clamp", "num_fp16_res", "randomize_noise", "fused_modconv", "dtype",
    "truncation_psi", "truncation_cutoff", "dlatent_avg_beta", "style_mixing_prob", "return_dlatents", "is_training",
    "is_validation", "is_template_graph", "structure", "lod_initial", "impl", "func_name", "synthesis_func",
    "mapping_func",
}  # fmt: skip  # by tensors' shapes, or of no account for what is drawn
IGNORED = re.compile(r"(.*/)?(lod|pl_mean|pl_mean_var|pl_weight)")


def is_tensorflow(found: Any) -> bool:
    """Whether a file holds networks of TensorFlow's."""
    items = found if isinstance(found, tuple | list) else []
    return bool(items) and all(isinstance(item, Record) and item.name == NETWORK for item in items)


def read_tensorflow(
    found: tuple[Record, ...], notes: list[str]
) -> tuple[StyleGAN2Generator, StyleGAN2Discriminator | None, str]:
    """The averaged generator Gs, the discriminator if it can be read, and the name of the format.

    Raises:
        Unsupported: another network, such as StyleGAN1. ValueError: tensors that do not fit, by name.
    """
    if len(found) != 3:
        raise ValueError(f"holds {len(found)} networks, expected the three of StyleGAN2: G, D, Gs")
    _, below, averaged = found
    variables = _variables(averaged)
    if any("StyleMod" in name for name in variables) or averaged.state.get("build_func_name") == "G_style":
        raise Unsupported("is a StyleGAN1, whose generator is another network: only StyleGAN2 can be converted")
    settings = _settings(averaged)
    if any(name.endswith("LabelConcat/weight") for name in variables):
        raise Unsupported(
            "embeds its labels as the first StyleGAN2 did, before normalising: only stylegan2-ada's way is known"
        )
    tensors = _renamed(variables, GENERATOR)
    _check_settings(settings, USUAL)
    if unknown := sorted(map(str, settings.keys() - USUAL.keys() - HEEDED)):
        notes.append(f"Settings that are not known here were not heeded: {', '.join(unknown)}.")
    generator = generator_of(tensors, conv_clamp=_number(settings.get("conv_clamp")), notes=notes)
    if halves := settings.get("num_fp16_res"):
        notes.append(IN_HALVES.format(halves))
    return generator, _discriminator(below, notes), FORMAT


def _discriminator(record: Record, notes: list[str]) -> StyleGAN2Discriminator | None:
    settings = _settings(record)
    group = settings.get("mbstd_group_size")  # None, the whole batch, is what is meant where it is not said
    try:
        _check_settings(settings, LAYERS | {"architecture": "resnet"})
        if settings.get("label_size"):  # the rate is another one where it is not said
            _check_settings({"mapping_lrmul": D_LR_MULTIPLIER} | settings, {"mapping_lrmul": 0.01})
        return discriminator_of(
            _renamed(_variables(record), DISCRIMINATOR), conv_clamp=_number(settings.get("conv_clamp")),
            mbstd_group=group if isinstance(group, int) else None,
            mbstd_channels=settings.get("mbstd_num_features", 1),
        )  # fmt: skip
    except Unsupported as error:
        notes.append(f"The discriminator was left out: it {error}.")
        return None


def _noise_name(index: int) -> str:
    """Noise k belongs to resolution r, with k = 2 log2(r) - 5 for conv0 and 2 log2(r) - 4 for conv1."""
    conv1 = index % 2 == 0
    return f"synthesis.b{2 ** ((index + (4 if conv1 else 5)) // 2)}.conv{int(conv1)}.noise_const"


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _settings(record: Record) -> dict[str, Any]:
    """What a network was made with; Unsupported for versions that are too old."""
    version = record.state.get("version")
    if not isinstance(version, int) or version < LEAST_VERSION:
        raise Unsupported(
            f"is a network of version {version!r:.30}, expected {LEAST_VERSION} or later, as StyleGAN2 has"
        )
    found = record.state.get("static_kwargs")
    return dict(found) if isinstance(found, dict) else {}


def _check_settings(settings: Mapping[str, Any], usual: Mapping[str, Any]) -> None:
    """Unsupported for a StyleGAN2 with settings that our classes do not have."""
    for name, value in usual.items():
        given = settings.get(name, value)
        if (list(given) if isinstance(given, list | tuple) else given) != value:
            raise Unsupported(f"has {name} {given!r:.40}, only {value!r} is known")


def _variables(record: Record, prefix: str = "") -> dict[str, Tensor]:
    """The variables of a network and of its components, as component/name."""
    found = record.state.get("variables")
    tensors = {}
    for pair in found if isinstance(found, list | tuple) else ():
        if isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[1], Tensor):
            tensors[f"{prefix}{pair[0]}"] = pair[1]
    components = record.state.get("components")
    for name, component in (components if isinstance(components, dict) else {}).items():
        if isinstance(component, Record):
            tensors |= _variables(component, f"{prefix}{name}/")
    return tensors


def _renamed(variables: Mapping[str, Tensor], table: Mapping[str, str]) -> dict[str, Tensor]:
    """The variables by their new names and in torch's order; an unknown one keeps its name, so that it is reported."""
    tensors = {}
    for name, tensor in variables.items():
        if IGNORED.fullmatch(name):
            continue
        if noise := re.fullmatch(r"synthesis/noise(\d+)", name):
            tensors[_noise_name(int(noise[1]))] = tensor.reshape(tensor.shape[-2:])
            continue
        begin = next((pattern for pattern in table if re.match(pattern, name)), None)
        renamed = name if begin is None else re.sub(rf"^{begin}", table[begin], name).replace("mod_", "affine.")
        tensors[renamed] = _arranged(name, tensor)
    return tensors


def _arranged(name: str, tensor: Tensor) -> Tensor:
    """A variable's numbers in the order that torch has them in."""
    if name.endswith("mod_bias"):
        return tensor + 1
    if name.endswith("Const/const"):
        return tensor[0]
    if not name.endswith("weight"):
        return tensor
    kernel = tensor.flip(0, 1) if name.endswith("Conv0_up/weight") else tensor
    return kernel.permute(3, 2, 0, 1) if kernel.ndim == 4 else kernel.t() if kernel.ndim == 2 else kernel
