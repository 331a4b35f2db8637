"""HFGanModel: diffusers' ModelMixin + ConfigMixin made strict and safe. Every class with weights is one.

On disk a model is `config.json`, its constructor arguments, beside `diffusion_pytorch_model.safetensors`.
Tensors may be stored in fp16; in memory parameters are fp32, and `dtype` is what the convolutions compute in.
"""

from __future__ import annotations

import hashlib
import inspect
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Self

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin
from safetensors.torch import save

from hfgan.storage import (
    fetch_folder,
    find_weights,
    push_folder,
    read_json,
    read_tensors,
    weights_name,
    write_atomic,
    write_json,
)

FORMAT = 1  # of config.json: goes up when a default or a tensor's name changes its meaning
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def auto_dtype(device: str | torch.device = "cpu") -> torch.dtype:
    """bfloat16 where the hardware multiplies in it (AVX512-BF16, AMX, CUDA from Ampere on), else float32."""
    kind = torch.device(device).type
    if kind == "cuda":
        fast = torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        fast = kind == "cpu" and _cpu_has_bf16()
    return torch.bfloat16 if fast else torch.float32


def _cpu_has_bf16() -> bool:
    """Whether this CPU has bf16 products in hardware; False when torch cannot tell."""
    if hasattr(torch.cpu, "get_capabilities"):
        found = torch.cpu.get_capabilities()
        return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # older torch has no public name for it
    return bool(probe and probe())


def parse_dtype(dtype: str | torch.dtype, device: str | torch.device = "cpu") -> torch.dtype:
    """The dtype to compute in, from "auto", a name ("float32", "float16", "bfloat16") or a torch dtype."""
    if isinstance(dtype, str) and dtype == "auto":
        return auto_dtype(device)
    found = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if found not in DTYPES.values():
        raise ValueError(f"dtype is {dtype!r}: expected 'auto', {', '.join(map(repr, DTYPES))} or its torch dtype")
    return found


class HFGanModel(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Base of every class with weights.

    A subclass decorates a keyword-only `__init__` with `register_to_config`: its arguments are config.json.
    A submodule that runs in low precision has an attribute `compute_dtype` and reads it in `forward`.
    """

    config_name = "config.json"
    compute_dtype: torch.dtype = torch.float32

    @property
    def dtype(self) -> torch.dtype:
        """What the convolutions compute in; parameters are fp32 whatever this says."""
        return self.compute_dtype

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments that this was made with."""
        return {name: self.config[name] for name in _argument_names(type(self))}

    def set_compute_dtype(self, dtype: str | torch.dtype) -> Self:
        """Compute in float32, float16 or bfloat16 from now on; parameters stay as they are."""
        dtype = parse_dtype(dtype, self.device)
        for module in self.modules():
            if hasattr(module, "compute_dtype"):
                module.compute_dtype = dtype
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """`nn.Module.to`, except that a dtype sets `compute_dtype` and leaves the parameters in fp32."""
        args = tuple(part for arg in args for part in _device_and_dtype(arg))
        dtypes = [arg for arg in args if isinstance(arg, torch.dtype)]
        dtype = kwargs.pop("dtype", dtypes[0] if dtypes else None)
        rest = [arg for arg in args if not isinstance(arg, torch.dtype)]
        if rest or kwargs:
            super().to(*rest, **kwargs)
        return self if dtype is None else self.set_compute_dtype(dtype)

    def half(self) -> Self:
        """Compute in float16."""
        return self.set_compute_dtype(torch.float16)

    def bfloat16(self) -> Self:
        """Compute in bfloat16."""
        return self.set_compute_dtype(torch.bfloat16)

    def float(self) -> Self:
        """Compute in float32."""
        return self.set_compute_dtype(torch.float32)

    def fingerprint(self) -> str:
        """12 hex digits of the weights: sha256 over (name, shape, value rounded to fp16) of every tensor.

        The fp32 and the fp16 copy of a model agree. Remembered until a tensor is written to.
        """
        tensors = sorted(self.state_dict().items())
        written = tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for _, t in tensors)
        if self.__dict__.get("_written") != written:
            self._written, self._fingerprint = written, _digest(tensors)
        return self._fingerprint

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        subfolder: str = "",
        variant: str | None = None,
        dtype: str | torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        revision: str | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> Self:
        """Load a folder or a Hub repository, in eval mode. What does not fit exactly is an error.

        Args:
            name_or_path: Folder or Hub id; the model lies in its `subfolder`.
            variant: Which weights file, for instance "fp16"; parameters become fp32 whatever it holds.
            dtype: What to compute in, or "auto" for the fastest of bfloat16 and float32 on `device`.
            revision, local_files_only, token: As in `huggingface_hub.snapshot_download`.

        Raises:
            FileNotFoundError: no such folder, repository, revision or file, or only a pickle.
            ValueError: another class, a config or tensor that does not fit, a damaged file.
        """
        files = [str(PurePosixPath(subfolder, name)) for name in (cls.config_name, weights_name(variant))]
        hub = {"revision": revision, "local_files_only": local_files_only, "token": token}
        folder = fetch_folder(name_or_path, files, **hub) / subfolder
        arguments = cls._read_arguments(folder / cls.config_name)
        weights = find_weights(folder, variant)
        tensors = read_tensors(weights)
        with torch.random.fork_rng(devices=[]):  # a load leaves the caller's random state alone
            try:
                model = cls(**arguments)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{folder / cls.config_name} describes no {cls.__name__}: {error}") from error
        model._fill(tensors, weights)
        return model.eval().to(device).set_compute_dtype(dtype)

    @classmethod
    def _read_arguments(cls, path: Path) -> dict[str, Any]:
        """Constructor arguments in a config.json; the class must be ours and every key known."""
        config = read_json(path)
        named, written = config.pop("_class_name", None), config.pop("_format", FORMAT)
        config.pop("_diffusers_version", None)
        if named != cls.__name__:
            raise ValueError(f"{path} describes a {named}, not a {cls.__name__}: load it as what it is")
        if not isinstance(written, int) or written > FORMAT:
            raise ValueError(f"{path} has format {written!r} and this hfgan reads up to {FORMAT}: upgrade hfgan")
        if unknown := sorted(config.keys() - _argument_names(cls)):
            raise ValueError(f"{path} has keys unknown to {cls.__name__}: {', '.join(unknown)}. Upgrade hfgan")
        return config

    def _fill(self, tensors: dict[str, torch.Tensor], path: Path) -> None:
        """Copy tensors into the model; one error lists all that does not fit."""
        if said := misfits(self.state_dict(), tensors):
            raise ValueError(f"{path} does not fit its config.json. Tensors {said}. Save the model again")
        self.load_state_dict(tensors)

    def save_pretrained(
        self, directory: str | Path, *, dtype: torch.dtype = torch.float32, variant: str | None = None
    ) -> None:
        """Write config.json and the weights, stored as `dtype` (torch.float32 or torch.float16)."""
        folder, stored = Path(directory), self._stored(dtype)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / weights_name(variant), save(stored))
        head = {"_class_name": type(self).__name__, "_format": FORMAT}
        write_json(folder / self.config_name, head | self.arguments)

    def _stored(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """The state dict as it goes to disk; a value that `dtype` cannot hold is an error, no infinity."""
        if dtype not in (torch.float32, torch.float16):
            raise ValueError(f"dtype is {dtype}: weights are stored as torch.float32 or torch.float16")
        stored = {}
        for name, tensor in self.state_dict().items():
            value = tensor.detach().cpu().contiguous()
            stored[name] = value.to(dtype) if value.is_floating_point() else value
            if not torch.equal(stored[name].isfinite(), value.isfinite()):
                raise ValueError(f"{name} holds values beyond {dtype}: store the model as torch.float32")
        return stored

    def push_to_hub(
        self,
        repo_id: str,
        *,
        dtype: torch.dtype = torch.float32,
        private: bool | None = None,
        revision: str | None = None,
        commit_message: str | None = None,
        token: str | bool | None = None,
    ) -> str:
        """Save this model alone and upload it; returns the commit's URL."""
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, dtype=dtype)
            said = {"revision": revision, "commit_message": commit_message}
            return push_folder(folder, repo_id, private=private, token=token, **said)


class BesideGenerator(HFGanModel):
    """Base of the parts that were made for one generator: their config has `generator_fingerprint`."""

    called: str  # what a user knows it as, which is also the stage of training that makes one

    def check_generator(self, generator: HFGanModel) -> None:
        """Raise ValueError unless this was made beside these weights."""
        known, given = self.config.generator_fingerprint, generator.fingerprint()
        if known != given:
            raise ValueError(
                f"this model's part {self.called} belongs to a generator with weights {known}, not {given}: load the "
                f"model that it came with, or make one with `accelerate launch training/train.py {self.called}`"
            )


def misfits(own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> str:
    """In what tensors differ from those that a model has: "missing: a, b; misshapen: c ..."; "" if they fit."""
    both = sorted(own.keys() & given.keys())
    floats = {name: own[name].is_floating_point() and given[name].is_floating_point() for name in both}
    faults = {
        "missing": sorted(own.keys() - given.keys()),
        "unexpected": sorted(given.keys() - own.keys()),
        "misshapen": [
            f"{name} {list(given[name].shape)} instead of {list(own[name].shape)}"
            for name in both
            if given[name].shape != own[name].shape
        ],
        "of the wrong type": [
            f"{name} {given[name].dtype} instead of {own[name].dtype}"
            for name in both
            if given[name].dtype != own[name].dtype and not floats[name]
        ],
    }
    return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in faults.items() if names)


def _argument_names(cls: type[HFGanModel]) -> dict[str, inspect.Parameter]:
    """Constructor arguments of a model class in their order, without self."""
    return {name: p for name, p in inspect.signature(cls.__init__).parameters.items() if name != "self"}


def _device_and_dtype(arg: Any) -> tuple[Any, ...]:
    """`to(tensor)` means its device and dtype."""
    return (arg.device, arg.dtype) if isinstance(arg, torch.Tensor) else (arg,)


def _digest(tensors: list[tuple[str, torch.Tensor]]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors:
        value = tensor.half() if tensor.is_floating_point() else tensor
        digest.update(f"{name}{list(value.shape)}".encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
