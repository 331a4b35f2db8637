"""HFGanModel: diffusers' ModelMixin + ConfigMixin, made strict and safe. Every class with weights is one.

On disk a model is `config.json` (its constructor arguments) beside `diffusion_pytorch_model.safetensors`.
Tensors may be stored in fp16; in memory parameters are fp32, and `dtype` is what the convolutions compute in.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any, Self

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError
from safetensors.torch import load_file, save

CONFIG_NAME = "config.json"
FORMAT = 1  # raised when a default or a tensor name changes its meaning
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def weights_name(variant: str | None = None) -> str:
    """File name of the weights, for instance `diffusion_pytorch_model.fp16.safetensors`."""
    return (
        f"diffusion_pytorch_model.{variant}.safetensors" if variant else "diffusion_pytorch_model.safetensors"
    )


def auto_dtype(device: str | torch.device = "cpu") -> torch.dtype:
    """bfloat16 where the hardware multiplies in it (AVX512-BF16, AMX, CUDA), float32 elsewhere."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if kind == "cpu" and _cpu_has_bf16() else torch.float32


def _cpu_has_bf16() -> bool:
    """True when this CPU has bf16 dot products in hardware; False when torch cannot tell."""
    if hasattr(torch.cpu, "get_capabilities"):
        found = torch.cpu.get_capabilities()
        return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # torch 2.8 to 2.10 have no public probe
    return bool(probe and probe())


def parse_dtype(dtype: str | torch.dtype, device: str | torch.device = "cpu") -> torch.dtype:
    """ "auto", "float32", "float16", "bfloat16" or the torch dtype of that name -> a dtype to compute in."""
    if dtype == "auto":
        return auto_dtype(device)
    found = DTYPES.get(dtype, dtype) if isinstance(dtype, str) else dtype
    if found not in DTYPES.values():
        raise ValueError(f"dtype is {dtype!r}: expected 'auto' or one of {', '.join(DTYPES)}")
    return found


def fetch_folder(
    name_or_path: str | Path,
    patterns: list[str],
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """Folder that holds `name_or_path`: itself when it is a folder, else a snapshot of that Hub repository.

    Only files that match `patterns` are asked for. FileNotFoundError says what does not exist.
    """
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path
    name = str(name_or_path)
    if path.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith("."):
        what = "is a file" if path.exists() else "does not exist"
        raise FileNotFoundError(f"{name} {what}: expected a folder, or a Hub id such as 'me/my-gan'")
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=patterns,
                local_files_only=local_files_only,
                token=token,
            )
        )
    except GatedRepoError:
        raise
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"{name} on the Hub has no revision {revision!r}: check the name") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise FileNotFoundError(
            f"{name} is neither a folder here nor a repository on the Hub that you may read: check the spelling, "
            "and log in with `hf auth login` if it is private"
        ) from error
    except LocalEntryNotFoundError as error:
        at = f" at revision {revision!r}" if revision else ""
        raise FileNotFoundError(
            f"{name} is no folder here, and the Hub cache does not hold it{at}: "
            "download it once with the network on and local_files_only=False"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; FileNotFoundError or ValueError says what is wrong with the file."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: {path.parent} is not a saved model, or is incomplete"
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error}): download or save it again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, expected an object: download it again")
    return found


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` as indented JSON, whole or not at all."""
    write_atomic(path, (json.dumps(content, indent=2) + "\n").encode())


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file beside its place, then rename: a crash leaves the old file. Its mode follows the umask."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file; ValueError tells a truncated, empty or foreign file with its size."""
    if complaint := _complaint(path):
        raise ValueError(
            f"{path} {complaint}: download it again (`hf download <id> --force-download`) or copy the original"
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path} ({path.stat().st_size} bytes) is damaged ({error}): download it again"
        ) from error


def _complaint(path: Path) -> str | None:
    """What is wrong with the bytes of a safetensors file, or None: u64 header length, JSON header, data."""
    size = path.stat().st_size
    if size == 0:
        return "is empty (0 bytes)"
    with open(path, "rb") as file:
        start = file.read(64)
        if start.startswith(b"version https://git-lfs"):
            return f"is a Git-LFS pointer ({size} bytes), not the weights (`git lfs pull` fetches them)"
        if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
            return f"is a web page ({size} bytes), not the weights"
        header_bytes = int.from_bytes(start[:8], "little")
        if size < 9 or start[8:9] != b"{":
            return f"is not a safetensors file ({size} bytes)"
        if size < 8 + header_bytes:
            return f"is truncated: {size} bytes, its header alone needs {8 + header_bytes}"
        file.seek(8)
        try:
            entries = json.loads(file.read(header_bytes))
            ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, IndexError):
            return f"has a damaged header ({size} bytes)"
    expected = 8 + header_bytes + max(ends, default=0)
    if size != expected:
        return f"is {'truncated' if size < expected else 'too long'}: {size} bytes, expected {expected}"
    return None


def push_folder(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    token: str | bool | None = None,
) -> str:
    """Create the Hub repository (and branch) where needed and upload the folder; returns the commit's address."""
    api = HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    if revision:
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    commit = api.upload_folder(
        repo_id=repo_id,
        folder_path=folder,
        revision=revision,
        commit_message=commit_message or "Upload with hfgan",
    )
    return str(commit.commit_url)


class HFGanModel(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Base of every class with weights.

    A subclass decorates a keyword-only `__init__` with `register_to_config`: its arguments are `config.json`.
    Submodules that run in low precision hold an attribute `compute_dtype` and read it in `forward`.
    """

    config_name = CONFIG_NAME
    compute_dtype: torch.dtype = torch.float32

    @property
    def dtype(self) -> torch.dtype:
        """What the convolutions compute in; parameters are fp32 whatever this says."""
        return self.compute_dtype

    def set_compute_dtype(self, dtype: torch.dtype) -> Self:
        """Compute in float32, float16 or bfloat16 from now on; parameters stay as they are."""
        dtype = parse_dtype(dtype)
        for module in self.modules():
            if hasattr(module, "compute_dtype"):
                module.compute_dtype = dtype
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """`nn.Module.to`, except that a dtype sets `compute_dtype` and leaves the parameters in fp32."""
        if args and isinstance(args[0], torch.Tensor):
            args = (args[0].device, args[0].dtype, *args[1:])
        dtypes = [arg for arg in args if isinstance(arg, torch.dtype)]
        dtype = kwargs.pop("dtype", dtypes[0] if dtypes else None)
        if dtype is not None:
            self.set_compute_dtype(dtype)
        args = tuple(arg for arg in args if not isinstance(arg, torch.dtype))
        return super().to(*args, **kwargs) if args or kwargs else self

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
        """12 hex digits of the weights: sha256 over (name, shape, value in fp16), so fp32 and fp16 copies agree."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            value = tensor.detach().cpu()
            value = value.half() if value.is_floating_point() else value
            digest.update(f"{name}{list(value.shape)}".encode())
            digest.update(value.contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        subfolder: str | None = None,
        variant: str | None = None,
        dtype: str | torch.dtype = torch.float32,
        device: str | torch.device | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> Self:
        """Load from a folder or a Hub repository, in eval mode; anything that does not fit exactly is an error."""
        inside = f"{subfolder}/" if subfolder else ""
        folder = fetch_folder(
            name_or_path,
            [inside + CONFIG_NAME, inside + weights_name(variant)],
            revision=revision,
            local_files_only=local_files_only,
            token=token,
        )
        folder = folder / inside
        arguments = cls._arguments(folder / CONFIG_NAME)
        weights = _weights_file(folder, variant)
        with torch.random.fork_rng(devices=[]):  # a load must not move the caller's random state
            try:
                model = cls(**arguments)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"{folder / CONFIG_NAME} does not build a {cls.__name__}: {error}"
                ) from error
        model._fill(read_tensors(weights), weights)
        device = device or "cpu"
        return model.eval().to(device).set_compute_dtype(parse_dtype(dtype, device))

    @classmethod
    def _arguments(cls, path: Path) -> dict[str, Any]:
        """Constructor arguments from config.json; the class must match and every key must be known."""
        config = read_json(path)
        named = config.get("_class_name")
        if named != cls.__name__:
            raise ValueError(f"{path} describes a {named}, not a {cls.__name__}: load it as {named}")
        if config.get("_format", FORMAT) > FORMAT:
            raise ValueError(f"{path} has format {config['_format']}, newer than {FORMAT}: upgrade hfgan")
        known = inspect.signature(cls.__init__).parameters
        given = {k: v for k, v in config.items() if k not in ("_class_name", "_format", "_diffusers_version")}
        if unknown := sorted(set(given) - set(known)):
            raise ValueError(
                f"{path} has keys that {cls.__name__} does not take: {', '.join(unknown)}; upgrade hfgan or remove them"
            )
        return given

    def _fill(self, tensors: dict[str, torch.Tensor], path: Path) -> None:
        """Copy tensors into the model; missing, extra and misshapen names are all listed in one error."""
        own = self.state_dict()
        misshapen = [
            f"{name} {list(tensors[name].shape)}, expected {list(own[name].shape)}"
            for name in sorted(own.keys() & tensors.keys())
            if tensors[name].shape != own[name].shape
        ]
        faults = {
            "missing": sorted(own.keys() - tensors.keys()),
            "unexpected": sorted(tensors.keys() - own.keys()),
            "of the wrong shape": misshapen,
        }
        if any(faults.values()):
            said = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in faults.items() if names)
            raise ValueError(
                f"{path} does not fit {type(self).__name__} as its config.json describes it. Tensors {said}"
            )
        self.load_state_dict(tensors)

    def save_pretrained(
        self, directory: str | Path, *, dtype: torch.dtype | None = None, variant: str | None = None
    ) -> None:
        """Write config.json and the weights; `dtype` (float32, float16) is how tensors are stored."""
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / weights_name(variant), save(self._stored(dtype or torch.float32)))
        names = [name for name in inspect.signature(type(self).__init__).parameters if name != "self"]
        head = {"_class_name": type(self).__name__, "_format": FORMAT}
        write_json(folder / CONFIG_NAME, head | {name: self.config[name] for name in names})

    def _stored(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """The state dict as it goes to disk; a value that `dtype` cannot hold is an error, not an infinity."""
        if dtype not in (torch.float32, torch.float16):
            raise ValueError(f"dtype is {dtype}: weights are stored as torch.float32 or torch.float16")
        stored = {}
        for name, tensor in self.state_dict().items():
            value = tensor.detach().cpu().contiguous()
            stored[name] = value.to(dtype) if value.is_floating_point() else value
            if not torch.equal(stored[name].isfinite(), value.isfinite()):
                raise ValueError(f"{name} holds values beyond {dtype}: save it as torch.float32")
        return stored

    def push_to_hub(
        self, repo_id: str, *, dtype: torch.dtype | None = None, variant: str | None = None, **options: Any
    ) -> str:
        """Save and upload this part alone; options are those of `push_folder`. Returns the commit's address."""
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, dtype=dtype, variant=variant)
            return push_folder(Path(folder), repo_id, **options)


def _weights_file(folder: Path, variant: str | None) -> Path:
    """The safetensors file of a model folder; FileNotFoundError says what is there in its stead."""
    path = folder / weights_name(variant)
    if path.is_file():
        return path
    with contextlib.suppress(FileNotFoundError):
        there = sorted(p.name for p in folder.iterdir())
    if others := [name for name in there if name.endswith(".safetensors")]:
        raise FileNotFoundError(
            f"{path} does not exist: the folder has {', '.join(others)}; pass that variant="
        )
    if pickles := [name for name in there if name.endswith(PICKLES)]:
        raise FileNotFoundError(
            f"{folder} holds only pickled weights ({', '.join(pickles)}), which can run code and are never opened: "
            f"convert them first with `hfgan convert`"
        )
    raise FileNotFoundError(f"{path} does not exist: the download or copy of {folder} is incomplete")
