"""What pickles of models name, and what stands for it here: builders of plain data.

Tensors and arrays are first a description, `View` and `Array`, since their numbers may stand behind the pickle; what
is made of them, and the check that they lie inside of their storage, is in `numbers`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

DTYPES = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip
KINDS = {f"{kind}{size}" for kind, sizes in {"f": "248", "i": "1248", "u": "1248", "b": "1"}.items() for size in sizes}


class UnsafePickle(ValueError):
    """A pickle names, or does, what plain data does not need."""


Builder = Callable[..., Any]


@dataclass(frozen=True)
class Name:
    """A function or class that a pickle names, and the builder that stands for it here, if it may be called."""

    text: str
    builder: Builder | None


class Built:
    """A value that takes a state after it was made."""

    def set_state(self, state: Any) -> None:
        """Take the state."""
        raise UnsafePickle(f"gives a state to a {type(self).__name__}")


@dataclass
class Record(Built):
    """What a pickle says of an object: the name of its class and its attributes. Nothing of the class is here.

    Attributes:
        name: Such as "argparse.Namespace", or of a module of NVIDIA the class alone, such as "Generator".
        state: Attributes by name.
    """

    name: str
    state: dict[str, Any] = field(default_factory=dict)

    def set_state(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise UnsafePickle(f"gives {self.name!r:.80} a state that is no dict of names")
        self.state.update(state)


class Table(dict, Built):  # type: ignore[type-arg]
    """A dict of a class of its own, such as OrderedDict; attributes beside its items are dropped."""

    def set_state(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise UnsafePickle("gives a dict a state that is none")


@dataclass
class Storage:
    """Numbers in a row, which is all that torch stores; they may come later."""

    dtype: torch.dtype
    count: int
    numbers: torch.Tensor | None = None

    def fill(self, data: bytes) -> None:
        """Take the numbers (count,) from their bytes, which are copied."""
        if len(data) != self.count * self.dtype.itemsize:
            raise ValueError("a storage has another size than it says, or is truncated")
        self.numbers = (
            torch.frombuffer(bytearray(data), dtype=self.dtype) if data else torch.empty(0, dtype=self.dtype)
        )


@dataclass(frozen=True)
class View:
    """A tensor: where it lies in a storage."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass
class DType(Built):
    """A numpy dtype of plain numbers."""

    code: str
    order: str = "<"

    def set_state(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) >= 5 and state[1] in ("<", ">", "|", "=")):
            raise UnsafePickle("describes a numpy dtype that is none")
        if state[2:5] != (None, None, None):
            raise UnsafePickle("holds a numpy array of records, expected plain numbers")
        self.order = state[1]

    @property
    def numpy(self) -> np.dtype[Any]:
        """The same for numpy."""
        return np.dtype(self.code).newbyteorder(self.order if self.order in "<>" else "<")


@dataclass
class Array(Built):
    """A numpy array: described first, then given its numbers."""

    dtype: DType | None = None
    shape: tuple[int, ...] = ()
    data: bytes = b""
    fortran: bool = False

    def set_state(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) == 5):
            raise UnsafePickle("describes a numpy array that is none")
        _, self.shape, self.dtype, fortran, data = state
        if not isinstance(self.dtype, DType) or not isinstance(data, str | bytes | bytearray):
            raise UnsafePickle("holds a numpy array of objects, expected plain numbers")
        self.data, self.fortran = _as_bytes(data), bool(fortran)


# ---------------------------------------------------------------- builders


def _table() -> Table:
    return Table()


def hashable(key: Any) -> Any:
    """A key of a dict or value of a set: what hashes in no time, never recurses, and collides with nothing."""
    if not isinstance(key, str | int | float | bytes | type(None)) or (isinstance(key, int) and abs(key) >= 2**60):
        raise UnsafePickle(f"has a {type(key).__name__} as a key or in a set, expected a text or a number below 2^60")
    return key


def _bytes(text: Any = b"", encoding: Any = "latin1") -> bytes:
    """`bytes` and `bytearray`."""
    return text if isinstance(text, bytes) else _encode(text, encoding)


def _set(*items: Any) -> set[Any]:
    given = items[0] if items else []
    if len(items) > 1 or not isinstance(given, list | tuple | set):
        raise UnsafePickle("makes a set of what is no list")
    return set(map(hashable, given))


def _size(values: Any = ()) -> tuple[int, ...]:
    return _integers(values, "torch.Size")


def _integers(values: Any, what: str) -> tuple[int, ...]:
    if not isinstance(values, list | tuple) or not all(type(v) is int and abs(v) < 2**62 for v in values):
        raise UnsafePickle(f"gives {what} other values than integers")
    return tuple(values)


def _as_bytes(text: str | bytes | bytearray) -> bytes:
    """Bytes that protocol 2 or Python 2 wrote as text."""
    return text.encode("latin1") if isinstance(text, str) else bytes(text)


def _encode(text: Any = "", encoding: Any = "latin1") -> bytes:
    """`_codecs.encode`, by which protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise UnsafePickle("encodes what is no text of bytes")
    return _as_bytes(text)


def _device(kind: Any = "cpu", index: Any = None) -> str:
    """`torch.device`, as text."""
    return f"{kind:.20}" if isinstance(kind, str) else "unknown"


def _view(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> View:
    """`torch._utils._rebuild_tensor_v2`; whether it requires gradients and its hooks are dropped."""
    if not isinstance(storage, Storage):
        raise UnsafePickle("makes a tensor of what is no storage")
    (start,) = _integers((offset,), "the offset of a tensor")
    return View(storage, start, _integers(size, "the size of a tensor"), _integers(stride, "the stride of a tensor"))


def _parameter(data: Any, *rest: Any) -> View:
    """`torch._utils._rebuild_parameter`."""
    if not isinstance(data, View):
        raise UnsafePickle("makes a parameter of what is no tensor")
    return data


def _dtype(code: Any, *rest: Any) -> DType:
    if not isinstance(code, str) or code.lstrip("<>|=") not in KINDS:
        said = f"{code!r:.20}" if isinstance(code, str) else f"a {type(code).__name__}"
        raise UnsafePickle(f"holds a numpy array of {said}, expected plain numbers")
    return DType(code.lstrip("<>|="), ">" if code[0] == ">" else "<")


def _array(kind: Any, *rest: Any) -> Array:
    """`numpy...._reconstruct`, which makes an empty array that is given its state then."""
    if not isinstance(kind, Name) or kind.text != "numpy.ndarray":
        raise UnsafePickle("makes a numpy array of another class than ndarray")
    return Array()


def _array_of(data: Any, dtype: Any, shape: Any, order: Any = "C") -> Array:
    """`numpy...._frombuffer` of protocol 5."""
    array = Array()
    array.set_state((1, shape, dtype, order == "F", data))
    return array


def _scalar(dtype: Any, data: Any = b"") -> float | int | bool:
    """A numpy number as one of Python's."""
    if not isinstance(dtype, DType) or not isinstance(data, str | bytes):
        raise UnsafePickle("holds a numpy number that is none")
    raw = _as_bytes(data)
    if len(raw) != dtype.numpy.itemsize:
        raise UnsafePickle("holds a numpy number of another size than it says")
    return np.frombuffer(raw, dtype.numpy)[0].item()


def _module(meta: Any) -> Record:
    """A module of NVIDIA's: its code, which is in the file too, is not kept."""
    told = meta if isinstance(meta, dict) else {}
    name, state = told.get("class_name"), told.get("state")
    if told.get("type") != "class" or not isinstance(name, str) or not isinstance(state, dict):
        raise UnsafePickle("holds a module that is none")
    return Record(name, state)


def _builtin(name: str) -> list[str]:
    """What a built-in is called in Python 3, and in protocols for Python 2."""
    return [f"{module}.{name}" for module in ("builtins", "__builtin__")]


def _numpy(name: str) -> list[str]:
    """Where numpy had a function, before and after version 2."""
    return [f"numpy.{core}.{name}" for core in ("core", "_core")]


MODULE = "torch_utils.persistence._reconstruct_persistent_obj"
NETWORK = "dnnlib.tflib.network.Network"
NAMESPACE = "argparse.Namespace"
# without a builder: it may be an argument, but nothing comes of calling it
STORAGES: dict[str, Builder | None] = {f"torch.{name}": None for name in DTYPES}
TENSORS: dict[str, Builder | None] = {
    "torch._utils._rebuild_tensor_v2": _view, "torch._utils._rebuild_tensor": _view,
    "torch._utils._rebuild_parameter": _parameter, "torch.Size": _size, "torch.device": _device,
}  # fmt: skip
ARRAYS: dict[str, Builder | None] = {
    "numpy.ndarray": None, "numpy.dtype": _dtype, "_codecs.encode": _encode,
    **dict.fromkeys(_numpy("multiarray._reconstruct"), _array), **dict.fromkeys(_numpy("multiarray.scalar"), _scalar),
    **dict.fromkeys(_numpy("numeric._frombuffer"), _array_of),
}  # fmt: skip
PLAIN: dict[str, Builder | None] = {
    "collections.OrderedDict": _table, "dnnlib.util.EasyDict": _table, "builtins.dict": _table,
    **dict.fromkeys(_builtin("set") + _builtin("frozenset"), _set),
    **dict.fromkeys(_builtin("bytes") + _builtin("bytearray"), _bytes),
    NAMESPACE: lambda: Record(NAMESPACE),
}  # fmt: skip
OBJECTS: dict[str, Builder | None] = {MODULE: _module, NETWORK: lambda: Record(NETWORK)}
