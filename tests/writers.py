"""Writers of published checkpoints, from the documented layouts alone: what NVIDIA's and rosinality's programs save.

Each makes random tensors under NVIDIA's names, lays them out as its program does, writes the file and returns the
tensors, so that a reader has something to be compared with. `alter` damages what is laid out, before it is written.
"""

from __future__ import annotations

import argparse
import io
import math
import pickle
import re
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import Tensor

Tensors = dict[str, Tensor]
Alter = Callable[[dict[str, Any]], object]
SOURCE = "raise RuntimeError('a reader of data runs no source')\n"


@dataclass(frozen=True)
class Net:
    """Sizes of a generator and of its discriminator, and what published networks vary beside them."""

    resolution: int = 16
    img_channels: int = 3
    z_dim: int = 16
    w_dim: int = 16
    c_dim: int = 0
    layers: int = 2
    channel_base: int = 256
    channel_max: int = 16
    clamp: float | None = None
    fp16: int = 0
    group: int | None = 4
    features: int = 1
    architecture: str = "skip"
    d_architecture: str = "resnet"
    rate: float = 0.01  # of learning in the mapping: its tensors are that much larger
    d_layers: int = 8  # from a label to what the discriminator looks for
    d_rate: float = 0.01
    filter: tuple[int, ...] = (1, 3, 3, 1)
    activation: str = "lrelu"
    mapping_activation: str = "lrelu"
    noisy: bool = True

    @property
    def sizes(self) -> list[int]:
        return [2**k for k in range(2, int(math.log2(self.resolution)) + 1)]

    def width(self, size: int) -> int:
        return min(self.channel_base // size, self.channel_max)


class Written(NamedTuple):
    """A file, and what it holds in NVIDIA's names: the averaged generator and the discriminator."""

    path: Path
    g: Tensors
    d: Tensors


# ---------------------------------------------------------------- random tensors under NVIDIA's names


def generator_tensors(net: Net, seed: int = 0) -> Tensors:
    """Every tensor of a generator, drawn so that pictures are about as bright as those of a trained one."""
    source = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float = 1.0, mean: float = 0.0) -> Tensor:
        return torch.randn(shape, generator=source) * scale + mean

    t = _mapping_tensors(draw, net.z_dim, net.c_dim, net.w_dim, net.layers, net.rate)
    t["mapping.w_avg"] = draw(net.w_dim, scale=0.3)
    t["synthesis.b4.const"] = draw(net.width(4), 4, 4)
    below = None
    for size in net.sizes:
        width, block = net.width(size), f"synthesis.b{size}"
        for conv, inputs in (("conv0", below), ("conv1", width)):
            if inputs is None:
                continue
            name = f"{block}.{conv}"
            t[f"{name}.affine.weight"] = draw(inputs, net.w_dim)
            t[f"{name}.affine.bias"] = draw(inputs, scale=0.2, mean=1)
            t[f"{name}.weight"] = draw(width, inputs, 3, 3)
            t[f"{name}.bias"] = draw(width, scale=0.3)
            if net.noisy:
                t[f"{name}.noise_strength"] = draw(scale=0.2)
                t[f"{name}.noise_const"] = draw(size, size)
        if net.architecture == "skip" or size == net.resolution:
            t[f"{block}.torgb.affine.weight"] = draw(width, net.w_dim)
            t[f"{block}.torgb.affine.bias"] = draw(width, scale=0.2, mean=1)
            t[f"{block}.torgb.weight"] = draw(net.img_channels, width, 1, 1, scale=0.12)
            t[f"{block}.torgb.bias"] = draw(net.img_channels, scale=0.1)
        if net.architecture == "resnet" and below:
            t[f"{block}.skip.weight"] = draw(width, below, 1, 1)
        below = width
    return t


def discriminator_tensors(net: Net, seed: int = 0) -> Tensors:
    """Every tensor of a discriminator."""
    source = torch.Generator().manual_seed(seed + 1000)

    def draw(*shape: int, scale: float = 1.0, mean: float = 0.0) -> Tensor:
        return torch.randn(shape, generator=source) * scale + mean

    t = {}
    for size in net.sizes[:0:-1]:
        wide, below = net.width(size), net.width(size // 2)
        if size == net.resolution or net.d_architecture == "skip":
            t[f"b{size}.fromrgb.weight"] = draw(wide, net.img_channels, 1, 1)
            t[f"b{size}.fromrgb.bias"] = draw(wide, scale=0.3)
        for conv, outputs in (("conv0", wide), ("conv1", below)):
            t[f"b{size}.{conv}.weight"] = draw(outputs, wide, 3, 3)
            t[f"b{size}.{conv}.bias"] = draw(outputs, scale=0.3)
        if net.d_architecture == "resnet":
            t[f"b{size}.skip.weight"] = draw(below, wide, 1, 1)
    last = net.width(4)
    if net.c_dim:
        t |= _mapping_tensors(draw, 0, net.c_dim, last, net.d_layers, net.d_rate)
    if net.d_architecture == "skip":
        t["b4.fromrgb.weight"] = draw(last, net.img_channels, 1, 1)
        t["b4.fromrgb.bias"] = draw(last, scale=0.3)
    t["b4.conv.weight"] = draw(last, last + net.features, 3, 3)
    t["b4.conv.bias"] = draw(last, scale=0.3)
    t["b4.fc.weight"] = draw(last, last * 16)
    t["b4.fc.bias"] = draw(last, scale=0.3)
    t["b4.out.weight"] = draw(last if net.c_dim else 1, last)
    t["b4.out.bias"] = draw(last if net.c_dim else 1, scale=0.3)
    return t


def _mapping_tensors(
    draw: Callable[..., Tensor], z_dim: int, c_dim: int, width: int, layers: int, rate: float
) -> Tensors:
    t = {}
    if c_dim:
        t["mapping.embed.weight"] = draw(width, c_dim)
        t["mapping.embed.bias"] = draw(width, scale=0.3)
    for k in range(layers):
        inputs = width if k else z_dim + (width if c_dim else 0)
        t[f"mapping.fc{k}.weight"] = draw(width, inputs, scale=1 / rate)
        t[f"mapping.fc{k}.bias"] = draw(width, scale=0.2 / rate)
    return t


# ---------------------------------------------------------------- NVIDIA: stylegan2-ada-pytorch and stylegan3


class Persistent:
    """An object of a class under `persistence.persistent_class`: pickled as a call with its source and its state."""

    def __init__(self, class_name: str, state: dict[str, Any]) -> None:
        self.class_name, self.state = class_name, state

    def __reduce__(self) -> tuple[Any, ...]:
        meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": self.class_name,
                "state": self.state}  # fmt: skip
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,)


class EasyDict(dict):
    """dnnlib.util.EasyDict: pickled as an object of that class with items."""


EasyDict.__module__ = "dnnlib.util"


class Network:
    """dnnlib.tflib.network.Network: pickled as an object of that class with a dict as its state."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def __getstate__(self) -> dict[str, Any]:
        return self.state


Network.__module__ = "dnnlib.tflib.network"


def _reconstruct_persistent_obj(meta: dict[str, Any]) -> None:
    raise RuntimeError(f"a reader of data calls nothing: {meta['class_name']}")


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"


def _create_type(*parts: Any) -> None:
    raise RuntimeError(f"a reader of data makes no classes: {parts}")


_create_type.__module__ = "dill._dill"


class _Created:
    """What dill pickles of a class that stands in the program itself."""

    def __reduce__(self) -> tuple[Any, ...]:
        return sys.modules["dill._dill"]._create_type, ("SuperresGenerator", (), {"__doc__": None})


@contextmanager
def _importable() -> Iterator[None]:
    """The modules that pickles name, for as long as one is written: `pickle` looks every name up."""
    wanted = {"torch_utils.persistence": _reconstruct_persistent_obj, "dnnlib.util": EasyDict,
              "dnnlib.tflib.network": Network, "dill._dill": _create_type}  # fmt: skip
    made: dict[str, types.ModuleType] = {}
    for name, thing in wanted.items():
        for end in range(1, name.count(".") + 2):
            made.setdefault(parent := ".".join(name.split(".")[:end]), types.ModuleType(parent))
        setattr(made[name], thing.__name__, thing)
    kept = {name: sys.modules.get(name) for name in made}
    sys.modules.update(made)
    try:
        yield
    finally:
        for name, module in kept.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def write_pickle(path: Path, content: Any, protocol: int = 4) -> Path:
    """`pickle.dump` as NVIDIA's programs call it; protocols 2 and 3 name numpy as it was called before version 2."""
    stream = io.BytesIO()
    with _importable():
        pickle.dump(content, stream, protocol=protocol)
    data = stream.getvalue()
    path.write_bytes(data.replace(b"cnumpy._core.", b"cnumpy.core.") if protocol < 4 else data)
    return path


def nvidia(
    path: Path, net: Net, *, repo: str = "ada", seed: int = 0, protocol: int = 4, alter: Alter | None = None,
    alter_d: Alter | None = None,
) -> Written:  # fmt: skip
    """A file of train.py of stylegan2-ada-pytorch ("ada") or of stylegan3 with --cfg=stylegan2 ("sg3").

    `alter` and `alter_d` get the tensors of G_ema and of D by name.
    """
    g, d = generator_tensors(net, seed), discriminator_tensors(net, seed)
    laid = {"G": generator_tensors(net, seed + 1), "G_ema": dict(g), "D": dict(d)}
    if alter:
        alter(laid["G_ema"])
    if alter_d:
        alter_d(laid["D"])
    told = _generator_kwargs(net, repo)
    networks = {name: _module(laid[name], net, "Generator", told) for name in ("G", "G_ema")}
    networks["D"] = _module(laid["D"], net, "Discriminator", _discriminator_kwargs(net, repo))
    dataset = EasyDict(class_name="training.dataset.ImageFolderDataset", path="photos.zip", use_labels=bool(net.c_dim),
                       max_size=100, xflip=True, resolution=net.resolution)  # fmt: skip
    if repo == "ada":
        augment = _object("AugmentPipe", {"Hz_geom": torch.ones(12), "p": torch.tensor(0.25)}, (), {"xflip": 1})
        content = {"training_set_kwargs": dataset, "G": networks["G"], "D": networks["D"],
                   "G_ema": networks["G_ema"], "augment_pipe": augment}  # fmt: skip
    else:
        content = {"G": networks["G"], "D": networks["D"], "G_ema": networks["G_ema"], "augment_pipe": None,
                   "training_set_kwargs": dict(dataset)}  # fmt: skip
    return Written(write_pickle(path, content, protocol), g, d)


def _unlike(defaults: dict[str, Any], **given: Any) -> dict[str, Any]:
    """What differs from the defaults: the rest is left to them, as train.py does."""
    return {name: value for name, value in given.items() if value != defaults.get(name, ...)}


MAPPING = {"num_layers": 8, "lr_multiplier": 0.01, "activation": "lrelu"}


def _defaults(repo: str) -> dict[str, Any]:
    half = {"num_fp16_res": 0, "conv_clamp": None} if repo == "ada" else {"num_fp16_res": 4, "conv_clamp": 256}
    return half | {"channel_base": 32768, "channel_max": 512, "resample_filter": [1, 3, 3, 1], "activation": "lrelu",
                   "use_noise": True}  # fmt: skip


def _generator_kwargs(net: Net, repo: str) -> dict[str, Any]:
    sizes = {"c_dim": net.c_dim, "img_resolution": net.resolution, "img_channels": net.img_channels,
             "z_dim": net.z_dim, "w_dim": net.w_dim}  # fmt: skip
    told = EasyDict(_unlike(MAPPING, num_layers=net.layers, lr_multiplier=net.rate, activation=net.mapping_activation))
    synthesis = EasyDict(_unlike(
        _defaults(repo) | {"architecture": "skip"}, channel_base=net.channel_base, channel_max=net.channel_max,
        num_fp16_res=net.fp16, conv_clamp=net.clamp, architecture=net.architecture,
        resample_filter=list(net.filter), activation=net.activation, use_noise=net.noisy,
    ))  # fmt: skip
    if repo == "ada":
        return sizes | {"mapping_kwargs": told, "synthesis_kwargs": synthesis}
    return sizes | {"mapping_kwargs": told, **synthesis, "fused_modconv_default": "inference_only"}


def _discriminator_kwargs(net: Net, repo: str) -> dict[str, Any]:
    blocks = _unlike(_defaults(repo), resample_filter=list(net.filter), activation=net.activation)
    epilogue = _unlike({"mbstd_num_channels": 1}, mbstd_group_size=net.group, mbstd_num_channels=net.features)
    return {
        "c_dim": net.c_dim, "img_resolution": net.resolution, "img_channels": net.img_channels,
        "block_kwargs": EasyDict(freeze_layers=0, **blocks), "epilogue_kwargs": EasyDict(epilogue),
        "mapping_kwargs": EasyDict(_unlike(MAPPING, num_layers=net.d_layers, lr_multiplier=net.d_rate)),
        **_unlike(_defaults(repo) | {"architecture": "resnet"}, channel_base=net.channel_base,
                  channel_max=net.channel_max, num_fp16_res=net.fp16, conv_clamp=net.clamp,
                  architecture=net.d_architecture),
    }  # fmt: skip


BUFFERS = ("resample_filter", "noise_const", "w_avg")
CLASSES = {  # of what stands at a path
    r"mapping": "MappingNetwork", r"synthesis": "SynthesisNetwork", r"synthesis\.b\d+": "SynthesisBlock",
    r"synthesis\.b\d+\.conv\d": "SynthesisLayer", r".*\.torgb": "ToRGBLayer", r"b4": "DiscriminatorEpilogue",
    r"b\d+": "DiscriminatorBlock", r"(synthesis\.)?b\d+\.(skip|conv\d?|fromrgb)": "Conv2dLayer",
    r"(.*\.affine|mapping\..*|b4\.(fc|out))": "FullyConnectedLayer",
}  # fmt: skip


def _module(t: Tensors, net: Net, kind: str, told: dict[str, Any], path: str = "") -> Persistent:
    """The module at a dotted path and all below it, as torch keeps modules."""
    start = f"{path}." if path else ""
    names = [name.removeprefix(start) for name in t if name.startswith(start)]
    leaves = {name: t[start + name] for name in names if "." not in name}
    below = dict.fromkeys(name.split(".")[0] for name in names if "." in name)
    if not path:
        return _object(kind, {}, (), told, {name: _module(t, net, kind, told, name) for name in below})
    name = next((c for pattern, c in CLASSES.items() if re.fullmatch(pattern, path)), "Sequential")
    if name in ("SynthesisBlock", "SynthesisLayer", "DiscriminatorBlock", "Conv2dLayer"):
        taps = torch.tensor(net.filter, dtype=torch.float32)
        leaves["resample_filter"] = torch.outer(taps, taps) / taps.sum() ** 2
    facts: dict[str, Any] = {}
    if name == "SynthesisNetwork":
        facts |= {"w_dim": net.w_dim, "img_resolution": net.resolution, "img_channels": net.img_channels,
                  "block_resolutions": net.sizes, "num_ws": 2 * len(net.sizes)}  # fmt: skip
    elif name == "MappingNetwork":
        facts |= {"c_dim": net.c_dim, "w_dim": net.w_dim, "num_layers": net.layers, "w_avg_beta": 0.995}
    elif name == "FullyConnectedLayer":
        rate = (net.rate if kind == "Generator" else net.d_rate) if path.startswith("mapping.fc") else 1
        activation = net.mapping_activation if path.startswith("mapping.fc") else "linear"
        facts |= {"activation": activation, "weight_gain": np.float64(rate) / np.sqrt(7.0), "bias_gain": rate}
    elif name in ("SynthesisLayer", "Conv2dLayer"):
        facts |= {"activation": net.activation, "conv_clamp": net.clamp, "padding": 1, "act_gain": np.sqrt(2)}
    elif name.endswith("Block"):
        size = int(re.findall(r"\d+", path)[0])
        facts |= {"resolution": size, "architecture": net.architecture, "is_last": size == net.resolution,
                  "use_fp16": net.fp16 > 0 and size >= net.resolution >> (net.fp16 - 1)}  # fmt: skip
    modules = {child: _module(t, net, kind, told, start + child) for child in below}
    return _object(name, leaves, (), {"w_dim": net.w_dim}, modules, facts)


def _object(
    class_name: str, leaves: Tensors, args: tuple[Any, ...], kwargs: dict[str, Any],
    modules: dict[str, Persistent] | None = None, facts: dict[str, Any] | None = None,
) -> Persistent:  # fmt: skip
    def is_buffer(name: str) -> bool:
        return name in BUFFERS or class_name == "AugmentPipe"

    parameters = OrderedDict(
        (name, torch.nn.Parameter(value, requires_grad=False)) for name, value in leaves.items() if not is_buffer(name)
    )
    if class_name == "Conv2dLayer":
        parameters.setdefault("bias", None)  # what `self.bias = None` leaves where a parameter was declared
    hooks = ("_backward_hooks", "_forward_hooks", "_forward_pre_hooks", "_state_dict_hooks",
             "_load_state_dict_pre_hooks")  # fmt: skip
    return Persistent(class_name, {
        "training": False, "_parameters": parameters,
        "_buffers": OrderedDict((name, value) for name, value in leaves.items() if is_buffer(name)),
        "_non_persistent_buffers_set": set(), "_is_full_backward_hook": None, **{h: OrderedDict() for h in hooks},
        "_modules": OrderedDict(modules or {}), **(facts or {}), "_init_args": args, "_init_kwargs": kwargs,
    })  # fmt: skip


# ---------------------------------------------------------------- NVIDIA: TensorFlow


def tensorflow(
    path: Path, net: Net, *, seed: int = 0, protocol: int = 4, version: int = 4, alter: Alter | None = None,
    static: dict[str, Any] | None = None, d_static: dict[str, Any] | None = None,
) -> Written:  # fmt: skip
    """A file of stylegan2 or stylegan2-ada in TensorFlow: (G, D, Gs); `alter` gets the variables of Gs by name."""
    g, d = generator_tensors(net, seed), discriminator_tensors(net, seed)
    variables = _tf_generator(g)
    if alter:
        alter(variables)
    told = {"num_channels": net.img_channels, "resolution": net.resolution, "label_size": net.c_dim,
            "fmap_base": net.channel_base // 2, "fmap_max": net.channel_max}  # fmt: skip
    of_g = told | {"latent_size": net.z_dim, "dlatent_size": net.w_dim, "mapping_layers": net.layers,
                   "mapping_fmaps": net.w_dim} | (static or {})  # fmt: skip
    of_d = told | _unlike(
        {"mbstd_group_size": None, "mbstd_num_features": 1, "mapping_layers": 0, "mapping_lrmul": 0.1},
        mbstd_group_size=net.group, mbstd_num_features=net.features,
        mapping_layers=net.d_layers if net.c_dim else 0, mapping_lrmul=net.d_rate if net.c_dim else 0.1,
    ) | (d_static or {})  # fmt: skip
    nets = (
        _network("G", _tf_generator(generator_tensors(net, seed + 1)), of_g, "G_main", version),
        _network("D", _tf_discriminator(d), of_d, "D_stylegan2", version),
        _network("Gs", variables, of_g, "G_main", version),
    )
    return Written(write_pickle(path, nets, protocol), g, d)


def _network(name: str, variables: dict[str, np.ndarray], static: dict[str, Any], func: str, version: int) -> Network:
    """Its own variables, and those of its components `mapping` and `synthesis`."""
    parts = sorted({key.split("/")[0] for key in variables} & {"mapping", "synthesis"}, reverse=True)
    own = [(key, value) for key, value in variables.items() if key.split("/")[0] not in parts]
    components = {
        part: _network(part, {key.split("/", 1)[1]: value for key, value in variables.items()
                              if key.startswith(f"{part}/")}, static, f"G_{part}", version)
        for part in parts
    }  # fmt: skip
    return Network({
        "version": version, "name": name, "static_kwargs": dict(static), "components": components,
        "build_module_src": SOURCE, "build_func_name": func, "variables": own,
    })  # fmt: skip


def _tf_generator(t: Tensors) -> dict[str, np.ndarray]:
    """Variables of Gs by path; dense kernels stand (in, out), convolutions (height, width, in, out)."""
    found: dict[str, np.ndarray] = {"dlatent_avg": t["mapping.w_avg"].numpy()}
    for name, tensor in t.items():
        value = tensor.numpy()
        if layer := re.fullmatch(r"mapping\.(embed|fc(\d+))\.(weight|bias)", name):
            there = "mapping/LabelEmbed" if layer[1] == "embed" else f"mapping/Dense{layer[2]}"
            found[f"{there}/{layer[3]}"] = value.T if layer[3] == "weight" else value
        elif name == "synthesis.b4.const":
            found["synthesis/4x4/Const/const"] = value[None]
        elif layer := re.fullmatch(r"synthesis\.b(\d+)\.(conv0|conv1|torgb)\.(.*)", name):
            size, kind, leaf = int(layer[1]), layer[2], layer[3]
            called = {"conv0": "Conv0_up", "conv1": "Conv1" if size > 4 else "Conv", "torgb": "ToRGB"}[kind]
            there = f"synthesis/{size}x{size}/{called}"
            if leaf == "noise_const":
                number = 2 * int(math.log2(size)) - (5 if kind == "conv0" else 4)
                found[f"synthesis/noise{number}"] = value[None, None]
            elif leaf == "weight":
                value = value.transpose(2, 3, 1, 0)
                found[f"{there}/weight"] = value[::-1, ::-1] if kind == "conv0" else value
            elif leaf == "affine.weight":
                found[f"{there}/mod_weight"] = value.T
            elif leaf == "affine.bias":
                found[f"{there}/mod_bias"] = value - 1
            else:
                found[f"{there}/{leaf}"] = value
    return {name: np.array(value, order="C") for name, value in found.items()}


def _tf_discriminator(t: Tensors) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    fixed = {"b4.conv": "4x4/Conv", "b4.fc": "4x4/Dense0", "b4.out": "Output", "mapping.embed": "LabelEmbed"}
    called = {"fromrgb": "FromRGB", "conv0": "Conv0", "conv1": "Conv1_down", "skip": "Skip"}
    for name, tensor in t.items():
        value, (layer, leaf) = tensor.numpy(), name.rsplit(".", 1)
        if layer in fixed:
            there = fixed[layer]
        elif layer.startswith("mapping.fc"):
            there = f"Mapping{layer.removeprefix('mapping.fc')}"
        else:
            size, kind = layer.removeprefix("b").split(".")
            there = f"{size}x{size}/{called[kind]}"
        if leaf == "weight":
            value = value.T if value.ndim == 2 else value.transpose(2, 3, 1, 0)
        found[f"{there}/{leaf}"] = np.array(value, order="C")
    return found


# ---------------------------------------------------------------- rosinality


def rosinality(
    path: Path, net: Net, *, seed: int = 0, training: bool = False, zipped: bool = True, discriminator: bool = True,
    alter: Alter | None = None,
) -> Written:  # fmt: skip
    """A file of rosinality's train.py (`training`) or convert_weight.py; `alter` gets the tensors of g_ema by name."""
    g, d = generator_tensors(net, seed), discriminator_tensors(net, seed)
    averaged = _rosinality_generator(g, net)
    if alter:
        alter(averaged)
    content: dict[str, Any] = {"g_ema": averaged}
    if training:
        args = argparse.Namespace(
            path="photos.lmdb", arch="stylegan2", iter=800000, batch=16, size=net.resolution, latent=net.w_dim,
            n_mlp=net.layers, channel_multiplier=net.channel_base // 16384, r1=10.0, augment=False, ckpt=None,
        )  # fmt: skip
        moments = {"state": {0: {"step": torch.tensor(7.0), "exp_avg": torch.zeros(3)}},
                   "param_groups": [{"lr": 0.002, "betas": (0.0, 0.99), "params": [0]}]}  # fmt: skip
        other = {name: value + 0.5 for name, value in averaged.items()}
        content = {"g": other, "d": _rosinality_discriminator(d, net), "g_ema": averaged, "g_optim": moments,
                   "d_optim": moments, "args": args, "ada_aug_p": 0.3}  # fmt: skip
    else:
        content["latent_avg"] = g["mapping.w_avg"]
        if discriminator:
            content["d"] = _rosinality_discriminator(d, net)
    where = "cuda:0" if training else "cpu"
    with mock.patch("torch.serialization.location_tag", return_value=where):
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return Written(path, g, d)


def _rosinality_generator(t: Tensors, net: Net) -> Tensors:
    found: Tensors = {}
    for name, value in t.items():
        if layer := re.fullmatch(r"mapping\.fc(\d+)\.(weight|bias)", name):
            found[f"style.{int(layer[1]) + 1}.{layer[2]}"] = value
        elif name == "synthesis.b4.const":
            found["input.input"] = value[None]
        elif layer := re.fullmatch(r"synthesis\.b(\d+)\.(conv0|conv1|torgb)\.(.*)", name):
            block, kind, leaf = int(math.log2(int(layer[1]))) - 3, layer[2], layer[3]
            number = 2 * block + (kind == "conv1")  # of the convolution, where the one at 4x4 is -1
            if kind == "torgb":
                there = f"to_rgbs.{block}" if block >= 0 else "to_rgb1"
            else:
                there = f"convs.{number}" if block >= 0 else "conv1"
            if leaf == "noise_const":
                found[f"noises.noise_{number + 1}"] = value[None, None]
            elif leaf == "noise_strength":
                found[f"{there}.noise.weight"] = value.reshape(1)
            elif leaf == "weight":
                found[f"{there}.conv.weight"] = value[None]
            elif leaf == "bias":
                found[f"{there}.bias" if kind == "torgb" else f"{there}.activate.bias"] = (
                    value.reshape(1, -1, 1, 1) if kind == "torgb" else value
                )
            else:
                found[f"{there}.conv.{leaf.replace('affine', 'modulation')}"] = value
    for block in range(len(net.sizes) - 1):
        found[f"convs.{2 * block}.conv.blur.kernel"] = _kernel(4)
        found[f"to_rgbs.{block}.upsample.kernel"] = _kernel(4)
    return found


def _rosinality_discriminator(t: Tensors, net: Net) -> Tensors:
    found: Tensors = {}
    last = {"b4.conv.weight": "final_conv.0.weight", "b4.conv.bias": "final_conv.1.bias"}
    for name, value in t.items():
        layer, leaf = name.rsplit(".", 1)
        size, kind = layer.removeprefix("b").split(".")
        block = len(net.sizes) + 2 - int(math.log2(int(size)))  # 1 for the largest size
        places = {
            "fromrgb": "convs.0.0.weight" if leaf == "weight" else "convs.0.1.bias",
            "conv0": f"convs.{block}.conv1.0.weight" if leaf == "weight" else f"convs.{block}.conv1.1.bias",
            "conv1": f"convs.{block}.conv2.1.weight" if leaf == "weight" else f"convs.{block}.conv2.2.bias",
            "skip": f"convs.{block}.skip.1.weight", "fc": f"final_linear.0.{leaf}", "out": f"final_linear.1.{leaf}",
        }  # fmt: skip
        found[last.get(name) or places[kind]] = value
    for block in range(1, len(net.sizes)):
        found[f"convs.{block}.conv2.0.kernel"] = _kernel(1)
        found[f"convs.{block}.skip.0.kernel"] = _kernel(1)
    return found


def _kernel(total: float) -> Tensor:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(taps, taps) * (total / 64)


# ---------------------------------------------------------------- what is of another kind


def stylegan3(path: Path) -> Path:
    """StyleGAN3-T of 512 pixels: no blocks, but layers named by their number, size and width."""
    size = {"z_dim": 512, "c_dim": 0, "w_dim": 512, "img_resolution": 512, "img_channels": 3}
    told = size | {"mapping_kwargs": {}, "channel_base": 32768, "magnitude_ema_beta": 0.9988}
    entry = _object("SynthesisInput", {"weight": torch.randn(36, 36), "freqs": torch.randn(36, 2),
                                       "phases": torch.randn(36), "transform": torch.eye(3)}, (), {})  # fmt: skip
    layer = _object("SynthesisLayer", {"weight": torch.randn(36, 36, 3, 3), "magnitude_ema": torch.ones([]),
                                       "up_filter": torch.ones(12)}, (), {})  # fmt: skip
    synthesis = _object("SynthesisNetwork", {}, (), {}, {"input": entry, "L0_36_512": layer, "L14_512_3": layer})
    mapping = _object("MappingNetwork", {"w_avg": torch.zeros(512)}, (), {"num_layers": 2})
    g = _object("Generator", {}, (), told, {"synthesis": synthesis, "mapping": mapping})
    d = _module(discriminator_tensors(Net()), Net(), "Discriminator", _discriminator_kwargs(Net(), "sg3"))
    return write_pickle(path, {"G": g, "D": d, "G_ema": g, "augment_pipe": None, "training_set_kwargs": {}}, 5)


def stylegan_xl(path: Path, dill: bool = True) -> Path:
    """StyleGAN-XL: a generator that grows on another; `dill` beside it writes a class that it met."""
    stem = _object("SynthesisNetwork", {}, (), {}, {"L0_36_512": _object("SynthesisLayer", {}, (), {})})
    told = {"path_stem": "stem.pkl", "head_layers": 7, "up_factor": 2}
    g = _object("SuperresGenerator", {}, (), told, {"synthesis": stem}, {"made_by": _Created()} if dill else {})
    return write_pickle(path, {"G": g, "D": g, "G_ema": g, "augment_pipe": None}, 4)


def stylegan1(path: Path) -> Path:
    """StyleGAN of 2018 in TensorFlow: state of version 3, AdaIN instead of modulated convolutions."""
    variables = {
        "lod": np.float32(0), "dlatent_avg": np.zeros(512, np.float32),
        "synthesis/4x4/Const/StyleMod/weight": np.zeros((512, 1024), np.float32),
        "synthesis/4x4/Conv/weight": np.zeros((3, 3, 8, 8), np.float32),
        "synthesis/ToRGB_lod0/weight": np.zeros((1, 1, 16, 3), np.float32),
        "mapping/Dense0/weight": np.zeros((512, 512), np.float32),
    }  # fmt: skip
    static = {"num_channels": 3, "resolution": 1024, "label_size": 0}
    return write_pickle(path, tuple(_network(n, variables, static, "G_style", 3) for n in ("G", "D", "Gs")), 3)
