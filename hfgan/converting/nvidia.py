"""Files of NVIDIA's PyTorch code: stylegan2-ada-pytorch, and the StyleGAN2 of the repository stylegan3.

A file is a dict with the modules G, D and G_ema. A module says itself how it was made (`_init_kwargs`) and what it is
(its attributes), which count where both are there: what is not written in the former differs between the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hfgan.converting.networks import IN_HALVES, Unsupported, discriminator_of, generator_of
from hfgan.models.discriminator import StyleGAN2Discriminator
from hfgan.models.stylegan2 import StyleGAN2Generator
from hfgan.pickles import Record

ADA, SG3 = "stylegan2-ada-pytorch", "stylegan3 repository, StyleGAN2"
CLAMP_DEFAULT = {ADA: None, SG3: 256.0}
FP16_DEFAULT = {ADA: 0, SG3: 4}
LR_MULTIPLIER = 0.01


def is_nvidia(found: Any) -> bool:
    """Whether a file holds modules of NVIDIA's."""
    return isinstance(found, dict) and any(isinstance(found.get(key), Record) for key in ("G_ema", "G"))


def read_nvidia(
    found: Mapping[str, Any], notes: list[str]
) -> tuple[StyleGAN2Generator, StyleGAN2Discriminator | None, str]:
    """The averaged generator G_ema, the discriminator if it can be read, and the name of the format.

    Raises:
        Unsupported: another network, such as StyleGAN3. ValueError: tensors that do not fit, by name.
    """
    record = found.get("G_ema")
    if not isinstance(record, Record):
        record = found["G"]
        notes.append("The file has no averaged generator G_ema: G, the one in training, was taken.")
    _check_kind(record)
    written = ADA if "synthesis_kwargs" in _kwargs(record) or not _flat(record) else SG3
    tensors = state_dict(record)
    synthesis = _child(record, "synthesis")
    _check_settings(record, synthesis, written)
    generator = generator_of(tensors, conv_clamp=_clamp(_path(synthesis, "b4", "conv1"), record, written), notes=notes)
    halves = _fp16(record, synthesis, written)
    if halves:
        notes.append(IN_HALVES.format(halves))
    return generator, _discriminator(found.get("D"), written, notes), written


def _discriminator(record: Any, written: str, notes: list[str]) -> StyleGAN2Discriminator | None:
    """The discriminator; what cannot be expressed is left out with a note."""
    if not isinstance(record, Record):
        notes.append("The file has no discriminator.")
        return None
    last = _path(record, "b4", "mbstd")
    asked = _kwargs(record, "epilogue_kwargs")
    group = _own(last, "group_size", asked.get("mbstd_group_size", 4))
    features = _own(last, "num_channels", asked.get("mbstd_num_channels", 1))
    try:
        _check_mapping(record)
        kind = _own(_path(record, f"b{_largest(record)}", "conv0"), "activation", asked.get("activation", "lrelu"))
        if kind != "lrelu":
            raise Unsupported(f"has the activation {kind!r:.30}, only 'lrelu' is known")
        return discriminator_of(
            state_dict(record), conv_clamp=_clamp(_path(record, "b4", "conv"), record, written),
            mbstd_group=group, mbstd_channels=features,
        )  # fmt: skip
    except Unsupported as error:
        notes.append(f"The discriminator was left out: it {error}.")
        return None


# ---------------------------------------------------------------- modules


def state_dict(record: Record) -> dict[str, Tensor]:
    """The tensors of a module and of those inside, by the names that `state_dict` of torch gives."""
    tensors = {}
    unsaved = record.state.get("_non_persistent_buffers_set") or ()
    for group in ("_parameters", "_buffers"):
        for name, tensor in _dict(record, group).items():
            if isinstance(tensor, Tensor) and name not in unsaved:
                tensors[str(name)] = tensor
    for name, module in _dict(record, "_modules").items():
        if isinstance(module, Record):
            tensors |= {f"{name}.{inner}": tensor for inner, tensor in state_dict(module).items()}
    return tensors


def _dict(record: Record, key: str) -> dict[Any, Any]:
    found = record.state.get(key)
    return found if isinstance(found, dict) else {}


def _child(record: Record, name: str) -> Record:
    found = _dict(record, "_modules").get(name)
    return found if isinstance(found, Record) else Record("")


def _path(record: Record, *names: str) -> Record:
    for name in names:
        record = _child(record, name)
    return record


def _kwargs(record: Record, group: str | None = None) -> dict[Any, Any]:
    """What a module was made with, or what it passed on to one inside of it."""
    kwargs = _dict(record, "_init_kwargs")
    found = kwargs if group is None else kwargs.get(group)
    return found if isinstance(found, dict) else {}


def _flat(record: Record) -> bool:
    """Whether settings of the synthesis stand beside those of the generator, as in the stylegan3 repository."""
    flat = {"channel_base", "channel_max", "num_fp16_res", "conv_clamp", "fused_modconv_default"}
    return bool(flat & _kwargs(record).keys())


def _largest(record: Record) -> int:
    """The size of the largest block [pixels]."""
    found = [str(name)[1:] for name in _dict(record, "_modules")]
    return max((int(size) for size in found if size.isdecimal()), default=0)


def _own(record: Record, name: str, otherwise: Any) -> Any:
    """An attribute of a module, or what it was asked to be."""
    return record.state.get(name, otherwise)


def _asked(record: Record, name: str, otherwise: Any) -> Any:
    """What a generator or discriminator was made with."""
    nested = "synthesis_kwargs" if "synthesis_kwargs" in _kwargs(record) else None
    return _kwargs(record, nested).get(name, otherwise)


def _clamp(layer: Record, record: Record, written: str) -> float | None:
    """The limit of activations, of a layer itself or else of what was asked for."""
    clamp = _own(layer, "conv_clamp", _asked(record, "conv_clamp", CLAMP_DEFAULT[written]))
    if clamp is not None and (not isinstance(clamp, int | float) or not 0 < clamp < float("inf")):
        raise Unsupported(f"limits its activations to {clamp!r:.30}, expected a positive number or None")
    return None if clamp is None else float(clamp)


def _fp16(record: Record, synthesis: Record, written: str) -> int:
    """How many resolutions compute in half precision."""
    inside = _dict(synthesis, "_modules").values()
    blocks = [block.state.get("use_fp16") for block in inside if isinstance(block, Record)]
    if any(isinstance(half, bool) for half in blocks):
        return sum(half is True for half in blocks)
    asked = _asked(record, "num_fp16_res", FP16_DEFAULT[written])
    return asked if isinstance(asked, int) else 0


def _check_kind(record: Record) -> None:
    """Unsupported for the other networks that are written in this form."""
    inside = _dict(_child(record, "synthesis"), "_modules")
    if "input" in inside or any(str(name).startswith("L0_") for name in inside):
        kind = "StyleGAN-XL" if "Superres" in record.name else "StyleGAN3"
        raise Unsupported(f"is a {kind}, whose generator is another network: only StyleGAN2 can be converted")
    if record.name != "Generator" or "b4" not in inside:
        raise Unsupported(f"holds a {record.name!r:.60}, expected the Generator of StyleGAN2")


def _check_settings(record: Record, synthesis: Record, written: str) -> None:
    """Unsupported for a StyleGAN2 with settings that our classes do not have."""
    layer = _path(synthesis, "b4", "conv1")
    activation = _own(layer, "activation", _asked(record, "activation", "lrelu"))
    if activation != "lrelu":
        raise Unsupported(f"has the activation {activation!r:.30}, only 'lrelu' is known")
    architecture = _own(_child(synthesis, "b4"), "architecture", _asked(record, "architecture", "skip"))
    if architecture != "skip":
        raise Unsupported(f"is a generator of architecture {architecture!r:.30}: only 'skip', the usual one, is known")
    _check_mapping(record)


def _check_mapping(record: Record) -> None:
    """Unsupported for a mapping of z or of labels with settings that our classes do not have."""
    asked = _kwargs(record, "mapping_kwargs")
    first = _path(record, "mapping", "fc0")
    rate = _own(first, "bias_gain", asked.get("lr_multiplier", LR_MULTIPLIER))
    kind = _own(first, "activation", asked.get("activation", "lrelu"))
    if rate != LR_MULTIPLIER or kind != "lrelu":
        raise Unsupported(f"has a mapping with lr_multiplier {rate!r:.30} and {kind!r:.30}, expected 0.01 and 'lrelu'")
