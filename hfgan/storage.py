"""Files on disk and on the Hub: found, read strictly, written whole or not at all. Knows no model class.

Only JSON, safetensors and plain .npy arrays are read; a pickle is neither asked for nor opened.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


# ---------------------------------------------------------------- names and folders


def weights_name(variant: str | None = None) -> str:
    """File name of a model's weights: `diffusion_pytorch_model[.variant].safetensors`."""
    if variant is not None and not re.fullmatch(r"\w+", variant):
        raise ValueError(f"variant is {variant!r}: expected a word such as 'fp16', or None")
    return f"diffusion_pytorch_model.{variant}.safetensors" if variant else "diffusion_pytorch_model.safetensors"


def fetch_folder(
    name_or_path: str | Path,
    files: list[str],
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """`name_or_path` itself when it is a folder, else a cached snapshot of `files` of that Hub repository.

    Raises:
        FileNotFoundError: no such folder, repository or revision, or not in the cache while offline.
    """
    path, name = Path(name_or_path).expanduser(), str(name_or_path)
    if path.is_dir():
        return path
    if path.exists() or not re.fullmatch(r"\w[\w.-]*/[\w.-]+", name):
        fault = "is a file" if path.exists() else "does not exist"
        raise FileNotFoundError(f"{name} {fault}: expected a folder, or a Hub id such as 'me/my-gan'")
    options = {"revision": revision, "local_files_only": local_files_only, "token": token}
    try:
        return Path(snapshot_download(name, allow_patterns=files, **options))
    except GatedRepoError:
        raise  # says itself where to ask for access
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"{name} on the Hub has no revision {revision!r}: check its name") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise FileNotFoundError(
            f"{name} is neither a folder here nor a Hub repository that you may read: check the spelling, or "
            "log in with `hf auth login` if it is private"
        ) from error
    except LocalEntryNotFoundError as error:
        which = f"{name} at revision {revision!r}" if revision else name
        raise FileNotFoundError(
            f"{which} is no folder here and not in the Hub cache: load it once while online"
        ) from error


def find_weights(folder: Path, variant: str | None = None) -> Path:
    """The safetensors file of a model's folder; FileNotFoundError says what is there in its stead."""
    path = folder / weights_name(variant)
    if path.is_file():
        return path
    there = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    if others := [name for name in there if name.endswith(".safetensors")]:
        raise FileNotFoundError(f"{path} does not exist, but {', '.join(others)} does: set variant= to match")
    if pickles := [name for name in there if name.endswith(PICKLES)]:
        raise FileNotFoundError(
            f"{folder} holds its weights only as a pickle ({', '.join(pickles)}), which can run code and is "
            "never opened here: convert it with `hfgan convert`"
        )
    raise FileNotFoundError(
        f"{path} does not exist: the download or copy is incomplete, or the original has "
        f"{f'no variant {variant!r}' if variant else 'only pickled weights (`hfgan convert`) or variants'}"
    )


# ---------------------------------------------------------------- reading


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; FileNotFoundError or ValueError says what is wrong with the file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: {path.parent} is no saved model, or is incomplete")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}): download or save it again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, expected an object: download or save it again")
    return found


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file; ValueError tells a truncated, empty or foreign file and its size."""
    if fault := _fault(path):
        raise ValueError(
            f"{path} {fault}. Download it again (`hf download --force-download`, or `git lfs pull` in a clone)"
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} ({path.stat().st_size} bytes) is damaged ({error}): download it again") from error


def read_tagged(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors of a safetensors file, and the texts that it was saved with; errors as of `read_tensors`."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: expected a .safetensors file")
    tensors = read_tensors(path)
    with safe_open(path, framework="pt") as file:
        return tensors, file.metadata() or {}


def read_npy(path: Path) -> torch.Tensor:
    """The array in a .npy file of floating point numbers."""
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, MemoryError, OSError) as error:
        raise ValueError(f"{path} is no array that numpy reads without pickle ({error}): save it as .npy") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"{path} holds a {kind}: expected one array of floating point numbers")
    return torch.from_numpy(array.astype(np.float32))


def _fault(path: Path) -> str | None:
    """What is wrong with a safetensors file (u64 header length, JSON header, data), or None."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(64)
        header_size = int.from_bytes(start[:8], "little")
        if size < 8 or start[8:9] != b"{":
            return _no_weights(start, size)
        if size < 8 + header_size:
            return f"is truncated: {size} bytes, its header alone needs {8 + header_size}"
        file.seek(8)
        header = file.read(header_size)
    try:
        entries = json.loads(header)
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
        expected = 8 + header_size + max(ends, default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return f"has a damaged header ({size} bytes)"
    if size == expected:
        return None
    return f"is {'truncated' if size < expected else 'too long'}: {size} bytes, expected {expected}"


def _no_weights(start: bytes, size: int) -> str:
    """What is wrong with a file that does not begin as safetensors do."""
    if size == 0:
        return "is empty (0 bytes)"
    what = foreign(start)
    return f"is {what} ({size} bytes), not the weights" if what else f"is not a safetensors file ({size} bytes)"


def foreign(start: bytes) -> str | None:
    """What a file that should hold weights is instead, from its first bytes; None where they do not tell."""
    if start.startswith(b"version https://git-lfs"):
        return "a Git-LFS pointer"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page"
    return None


# ---------------------------------------------------------------- writing


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` as indented JSON."""
    write_atomic(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def write_atomic(path: Path, data: bytes) -> None:
    """Write beside the place, then rename: a crash leaves the old file. The file mode follows the umask."""
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    token: str | bool | None = None,
) -> str:
    """Upload a folder in one commit, creating repository and branch where needed; returns the commit's URL.

    A model card that the repository already has is left alone.
    """
    api = HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    if revision is not None:
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    has_card = api.file_exists(repo_id, "README.md", revision=revision)
    commit = api.upload_folder(
        repo_id=repo_id,
        folder_path=folder,
        revision=revision,
        commit_message=commit_message or "Upload with hfgan",
        ignore_patterns=["README.md"] if has_card else None,
    )
    return str(commit.commit_url)
