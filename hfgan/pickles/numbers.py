"""From what a pickle says to what it holds: plain containers and tensors, once all numbers have been read."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hfgan.pickles.names import Array, DType, Name, Record, Storage, UnsafePickle, View

MAX_DEPTH = 64  # containers within containers; a module within modules takes four
MAX_VALUES = 5_000_000
MAX_DIMS = 16  # of a tensor
TOO_MUCH = f"nests its values more than {MAX_DEPTH} deep, or holds more than {MAX_VALUES:,}"


def plain(value: Any) -> Any:
    """The same with tensors in place of views and arrays, dicts in place of tables.

    Raises:
        UnsafePickle: it contains itself, or tensors that reach out of their storage; too deep, too many values.
    """
    return _Plain().of(value, 0).value


class _Made(NamedTuple):
    """What was made of a value; how many values and how many levels one finds who walks through it."""

    value: Any
    count: int
    height: int


class _Plain:
    """What was made of each value, so that what is shared stays shared."""

    def __init__(self) -> None:
        self.done: dict[int, _Made | None] = {}
        self.named: set[int] = set()  # states of records whose keys are names

    def of(self, value: Any, depth: int) -> _Made:
        """One value, `depth` containers down."""
        if value is None or isinstance(value, bool | int | float | str | bytes | bytearray):
            return _Made(value, 1, 0)
        if depth > MAX_DEPTH:
            raise UnsafePickle(TOO_MUCH)
        if id(value) not in self.done:
            self.done[id(value)] = None  # under way
            self.done[id(value)] = self.made(value, depth + 1)
        found = self.done[id(value)]
        if found is None:
            raise UnsafePickle("holds a value that contains itself")
        return found

    def made(self, value: Any, depth: int) -> _Made:
        """What is made of a value that is not plain already."""
        if isinstance(value, dict):
            inside = [self.of(item, depth) for item in value.values()]
            return self.around(dict(zip(value, (one.value for one in inside), strict=True)), inside)
        if isinstance(value, list | tuple):
            inside = [self.of(item, depth) for item in value]
            return self.around(type(value)(one.value for one in inside), inside)
        if isinstance(value, set):
            return _Made(value, 1 + len(value), 1)
        if isinstance(value, Record):
            state = self.of(value.state, depth)
            if id(value.state) not in self.named and not all(isinstance(key, str) for key in state.value):
                raise UnsafePickle(f"gives {value.name!r:.80} a state that is no dict of names")
            self.named.add(id(value.state))
            return self.around(Record(value.name, state.value), [state])
        return _Made(_leaf(value), 1, 0)

    def around(self, made: Any, inside: list[_Made]) -> _Made:
        """A container of these; values that are shared count each time."""
        count = 1 + sum(one.count for one in inside)
        height = 1 + max((one.height for one in inside), default=0)
        if count > MAX_VALUES or height > MAX_DEPTH:
            raise UnsafePickle(TOO_MUCH)
        return _Made(made, count, height)


def _leaf(value: Any) -> Any:
    """What is made of a value that contains no other."""
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
        raise UnsafePickle(f"holds a tensor of size {list(size)[:3]} and stride {list(stride)[:3]}")
    count = 1
    for side in size:
        count *= side
    last = view.offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
    if count and (last >= storage.count or count > storage.count):
        raise UnsafePickle(
            f"holds a tensor {list(size)[:3]} that reaches out of its storage of {storage.count} numbers"
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
        raise UnsafePickle(f"holds a numpy array {list(shape)[:3]} of {len(array.data)} bytes")
    numbers = np.frombuffer(array.data, dtype).reshape(shape, order="F" if array.fortran else "C")
    native = numbers.astype(dtype.newbyteorder("="), order="C")
    if native.dtype.kind == "u" and native.dtype.itemsize > 1:
        native = native.astype(np.int64)  # torch has no use for wider unsigned numbers
    return torch.from_numpy(native)
