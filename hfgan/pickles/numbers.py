"""From what a pickle says to what it holds: plain containers and tensors, once all numbers have been read."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hfgan.pickles.names import Array, DType, Name, Record, Storage, UnsafePickle, View

MAX_DEPTH = 64  # containers within containers; a module within modules takes four
MAX_VALUES = 5_000_000
MAX_DIMS = 16  # of a tensor
_UNDERWAY = object()


def plain(value: Any) -> Any:
    """The same with tensors in place of views and arrays, dicts in place of tables.

    Raises:
        UnsafePickle: it contains itself, or tensors that reach out of their storage; too deep, too many values.
    """
    return _Plain().of(value, 0)


class _Plain:
    """What was made of each value, so that what is shared stays shared."""

    def __init__(self) -> None:
        self.done: dict[int, Any] = {}
        self.count = 0

    def of(self, value: Any, depth: int) -> Any:
        """One value, `depth` containers down."""
        if value is None or isinstance(value, bool | int | float | str | bytes | bytearray | set):
            return value
        self.count += 1
        if depth > MAX_DEPTH or self.count > MAX_VALUES:
            raise UnsafePickle(f"nests its values {MAX_DEPTH} deep or holds more than {MAX_VALUES:,}")
        found = self.done.get(id(value))
        if found is _UNDERWAY:
            raise UnsafePickle("holds a value that contains itself")
        if found is None:
            self.done[id(value)] = _UNDERWAY
            found = self.done[id(value)] = self.made(value, depth + 1)
        return found

    def made(self, value: Any, depth: int) -> Any:
        """What is made of a value that is not plain already."""
        if isinstance(value, dict):
            return {key: self.of(item, depth) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)([self.of(item, depth) for item in value])
        if isinstance(value, Record):
            return Record(value.name, self.of(value.state, depth))
        if isinstance(value, View):
            return tensor_of(value)
        if isinstance(value, Array):
            return tensor_of_array(value)
        if isinstance(value, Storage):
            return tensor_of(View(value, 0, (value.count,), (1,)))
        if isinstance(value, Name):
            return value.text
        if isinstance(value, DType):
            return value.code
        raise UnsafePickle(f"holds a {type(value).__name__}")


def tensor_of(view: View) -> Tensor:
    """The tensor of a view, in the memory of its storage, within which it must lie, with no more numbers than that."""
    size, stride, storage = view.size, view.stride, view.storage
    if not len(size) == len(stride) <= MAX_DIMS or min((*size, *stride, view.offset), default=0) < 0:
        raise UnsafePickle(f"holds a tensor of size {list(size)[:8]} and stride {list(stride)[:8]}")
    count = 1
    for side in size:
        count *= side
    last = view.offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
    if count and (last >= storage.count or count > storage.count):
        raise UnsafePickle(
            f"holds a tensor {list(size)[:8]} that reaches out of its storage of {storage.count} numbers"
        )
    if storage.numbers is None:
        raise ValueError("it holds a tensor without its numbers")
    if not count:
        return torch.empty(0, dtype=storage.dtype).reshape(size)
    return storage.numbers.as_strided(size, stride, view.offset)


def tensor_of_array(array: Array) -> Tensor:
    """The tensor of a numpy array."""
    if array.dtype is None:
        raise UnsafePickle("holds a numpy array without its numbers")
    dtype, count = array.dtype.numpy, 1
    shape = array.shape
    known = isinstance(shape, tuple) and len(shape) <= MAX_DIMS
    if not known or not all(type(side) is int and 0 <= side < 2**40 for side in shape):
        raise UnsafePickle("holds a numpy array of no shape")
    for side in shape:
        count *= side
    if count * dtype.itemsize != len(array.data):
        raise UnsafePickle(f"holds a numpy array {list(shape)[:8]} of {len(array.data)} bytes")
    numbers = np.frombuffer(array.data, dtype).reshape(shape, order="F" if array.fortran else "C")
    native = numbers.astype(dtype.newbyteorder("="), order="C")
    if native.dtype.kind == "u" and native.dtype.itemsize > 1:
        native = native.astype(np.int64)  # torch has no use for wider unsigned numbers
    return torch.from_numpy(native)
