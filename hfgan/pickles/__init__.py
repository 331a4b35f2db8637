"""Pickles of models, read as data: the only place where one is opened, and nothing in it is run.

Three containers are known: a pickle alone (NVIDIA and TensorFlow), the archive that `torch.save` writes, and the row
of pickles that it wrote before version 1.6, which is also how NVIDIA's files hold every tensor.
"""

from __future__ import annotations

import io
import mmap
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from hfgan.pickles.machine import run
from hfgan.pickles.names import (
    ARRAYS,
    DTYPES,
    OBJECTS,
    PLAIN,
    STORAGES,
    TENSORS,
    Builder,
    Name,
    Record,
    Storage,
    UnsafePickle,
)
from hfgan.pickles.numbers import plain
from hfgan.storage import foreign

__all__ = ["Record", "UnsafePickle", "read_pickle"]

MAX_BYTES = 16 * 2**30
FREE = 2**20  # bytes and items that are given to builders beside those that fill the file
ZIP = b"PK\x03\x04"
MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of an old file of torch.save
OF_TORCH = {**PLAIN, **TENSORS, **ARRAYS, **STORAGES}
BLOB = "torch.storage._load_from_bytes"
DAMAGED = (
    ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, EOFError, MemoryError, RecursionError,
    UnicodeError, struct.error, zipfile.BadZipFile, RuntimeError,
)  # fmt: skip


def read_pickle(path: str | Path) -> Any:
    """What a file of `torch.save`, or of `pickle.dump` as NVIDIA's and TensorFlow's models are, holds.

    Returns:
        Dicts, lists, tuples, sets, texts, bytes, numbers and None; tensors, which numpy arrays become too; and a
        `Record` for every object of a class: its name and attributes, nothing of the class.

    Raises:
        FileNotFoundError: no such file. UnsafePickle: it names what is no data, which the sentence says.
        ValueError: another kind of file, or a damaged one.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}: expected a file")
    if not 0 < path.stat().st_size <= MAX_BYTES:
        size = path.stat().st_size
        raise ValueError(f"{path} has {size:,} bytes: expected a checkpoint of at most {MAX_BYTES // 2**30} GB")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if said := _other(content):
            raise ValueError(f"{path} {said}")
        try:
            return plain(_archive(content) if content[:4] == ZIP else _pickles(content))
        except UnsafePickle as error:
            raise UnsafePickle(f"{path} {error}: it is not read further, and nothing of it was run") from error
        except DAMAGED as error:
            said = " ".join(str(error).split())[:200] or type(error).__name__
            raise ValueError(f"{path} is damaged or no checkpoint ({said}): download it again") from error


def _other(content: mmap.mmap) -> str | None:
    """What a file is that is no pickle at all."""
    if what := foreign(content[:64]):
        return f"is {what}, not the weights: download it again"
    if content[:2] == b"\x1f\x8b" or content[257:262] == b"ustar":
        return "is a compressed or tar archive: unpack it, and give the checkpoint inside"
    if content[8:9] == b"{" and len(content) > 9 and content[7:8] == b"\0":
        return "is a safetensors file, which is no pickle"
    return None


# ---------------------------------------------------------------- one pickle, or a row of them


def _pickles(content: mmap.mmap) -> Any:
    """The value of a pickle alone, or of an old file of torch.save."""
    first = run(content, {**OF_TORCH, **OBJECTS, BLOB: _blob}, None, len(content) + FREE)
    if type(first) is int and first == MAGIC:
        return _row(content, len(content), OF_TORCH)
    if content.read(1):
        raise ValueError("something follows the end of its pickle")
    return first


def _blob(data: Any) -> Storage:
    """A storage in its own old file of torch.save, which torch itself would load with all that it names."""
    if not isinstance(data, bytes | bytearray):
        raise UnsafePickle("holds a tensor whose numbers are no bytes")
    stream = io.BytesIO(data)
    if run(stream, {}, None, 0) != MAGIC:
        raise UnsafePickle("holds a tensor in a form of its own")
    storage = _row(stream, len(data), STORAGES)
    if not isinstance(storage, Storage):
        raise UnsafePickle("holds a tensor that is none")
    return storage


def _row(stream: IO[bytes] | mmap.mmap, size: int, names: Mapping[str, Builder | None]) -> Any:
    """What follows the first pickle: version, machine, value, keys; then for each key a count and its numbers."""
    storages: dict[str, Storage] = {}
    version, machine = run(stream, {}, None, 0), run(stream, {}, None, 0)
    if version != 1001 or not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise ValueError("it was written in another version or byte order")
    value = run(stream, names, lambda told: _described(told, storages), size + FREE)
    keys = run(stream, {}, None, 0)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or sorted(storages) != sorted(keys):
        raise ValueError("its storages are not those that its tensors need")
    for key in keys:
        (count,) = struct.unpack("<q", stream.read(8))
        if count != storages[key].count:
            raise ValueError("a storage has another size than it says")
        storages[key].fill(stream.read(count * storages[key].dtype.itemsize))
    if stream.read(1):
        raise ValueError("something follows its last storage")
    return value


def _described(told: Any, storages: dict[str, Storage]) -> Storage:
    """The storage of a persistent id ("storage", kind, key, location, count), remembered by its key."""
    good = isinstance(told, tuple) and len(told) in (5, 6) and told[0] == "storage" and told[5:] in ((), (None,))
    kind, key, count = (told[1], told[2], told[4]) if good else (None, None, None)
    known = isinstance(kind, Name) and kind.text.removeprefix("torch.") in DTYPES
    if not known or not isinstance(key, str) or not key.isalnum() or type(count) is not int or not 0 <= count < 2**40:
        raise UnsafePickle("holds a persistent id that is no storage")
    dtype = DTYPES[kind.text.removeprefix("torch.")]
    storage = storages.setdefault(key, Storage(dtype, count))
    if (storage.dtype, storage.count) != (dtype, count):
        raise UnsafePickle("holds one storage as two")
    return storage


# ---------------------------------------------------------------- an archive


def _archive(content: mmap.mmap) -> Any:
    """The value in an archive of torch.save: ROOT/data.pkl, and ROOT/data/KEY for every storage."""
    entries = _entries(content)
    inside = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(inside) != 1:
        raise ValueError("it is an archive, but not of torch.save")
    root = inside[0].removesuffix("data.pkl")
    if any(name.startswith(f"{root}code/") or name == f"{root}constants.pkl" for name in entries):
        raise UnsafePickle("is TorchScript, which is code")
    if f"{root}byteorder" in entries and content[entries[f"{root}byteorder"]] != b"little":
        raise ValueError("it was written in another byte order")
    storages: dict[str, Storage] = {}
    stream = io.BytesIO(content[entries[inside[0]]])
    value = run(stream, OF_TORCH, lambda told: _described(told, storages), len(content) + FREE)
    for key, storage in storages.items():
        if f"{root}data/{key}" not in entries:
            raise ValueError(f"storage {key:.20} is missing")
        storage.fill(content[entries[f"{root}data/{key}"]])
    return value


def _entries(content: mmap.mmap) -> dict[str, slice]:
    """Where the entries of a zip archive lie; all are stored as they are, as torch does: no bomb fits in it."""
    found: dict[str, slice] = {}
    with zipfile.ZipFile(content) as archive:  # type: ignore[arg-type]
        infos = archive.infolist()
    for info in infos:
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise ValueError("an entry is compressed or encrypted, which torch.save never does")
    if sum(info.file_size for info in infos) > len(content) or len({info.filename for info in infos}) != len(infos):
        raise ValueError("its entries are larger than itself, or two have one name")
    for info in infos:
        head = content[info.header_offset : info.header_offset + 30]
        if head[:4] != ZIP or len(head) != 30 or info.file_size != info.compress_size:
            raise ValueError("its directory points to nothing, or to something of another size")
        length, extra = struct.unpack("<2H", head[26:])
        after = info.header_offset + 30 + length
        if content[info.header_offset + 30 : after] != info.orig_filename.encode():
            raise ValueError("its directory gives an entry another name than it has")
        begin = after + extra
        found[info.filename] = slice(begin, begin + info.file_size)
    return found
