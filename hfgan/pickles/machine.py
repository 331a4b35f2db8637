"""A pickle's own stack machine, which makes data and nothing else.

A pickle is a program: it names functions and has them called. This machine knows the same instructions (as
`pickletools` of the standard library describes them), but a name stays a word: it is looked up in a table of builders
of ours, which stands in `names`, and what is not there ends the reading. Nothing is ever imported or looked up
elsewhere, so nothing that a file says can be run.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from typing import IO, Any

from hfgan.pickles.names import Builder, Built, Name, UnsafePickle, hashable

MAX_STEPS = 2_000_000  # instructions; a model with its optimisers has some 100,000
SIZED = (str, bytes, bytearray, list, tuple, set, dict)

Storage = Callable[[Any], Any]  # what a persistent id stands for


class _Mark:
    """Where a group of values begins on the stack."""


MARK = _Mark()


def run(stream: IO[bytes], names: Mapping[str, Builder | None], storage: Storage | None, budget: int) -> Any:
    """The value of the pickle that begins here in a stream, which is left at its end.

    Args:
        names: "module.name" to the builder of ours that is called in its place.
        storage: What a persistent id stands for; None where there are none.
        budget: Bytes and items that builders may be given in all; a file gives each that it holds once.

    Raises:
        UnsafePickle: the pickle names, or does, what plain data does not need. ValueError: it is damaged.
    """
    machine = _Machine(names, storage, budget)
    for count, (code, argument, _) in enumerate(pickletools.genops(stream)):
        if code.name == "STOP":
            return machine.pop()
        if count > MAX_STEPS:
            raise UnsafePickle(f"has more than {MAX_STEPS:,} instructions")
        step = STEPS.get(code.name)
        if step is not None:
            step(machine, argument)
        elif code.name in CONSTANTS:
            machine.stack.append(CONSTANTS[code.name])
        elif code.name in VALUES:
            machine.stack.append(argument)
        else:
            raise UnsafePickle(f"uses the instruction {code.name}, which plain data does not need")
    raise ValueError("it ends before its end")  # genops says so itself


class _Machine:
    """The stack, the memo, and what the instructions do with them."""

    def __init__(self, names: Mapping[str, Builder | None], storage: Storage | None, budget: int) -> None:
        self.names, self.storage, self.budget = names, storage, budget
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        """The last value; a mark is none."""
        value = self.stack.pop()
        if value is MARK:
            raise ValueError("a group is not closed")
        return value

    def group(self) -> list[Any]:
        """The values after the last mark, which are taken off with it."""
        start = len(self.stack) - 1
        while self.stack[start] is not MARK:
            start -= 1
            if start < 0:
                raise ValueError("a group has no beginning")
        values = self.stack[start + 1 :]
        del self.stack[start:]
        return values

    def top(self, kind: type) -> Any:
        """The last value, which stays, and must be of this kind."""
        value = self.stack[-1]
        if not isinstance(value, kind):
            raise UnsafePickle(f"treats a {_kind(value)} as a {kind.__name__}")
        return value

    def remember(self, key: int | None = None) -> None:
        """Keep the last value under a number."""
        if self.stack[-1] is MARK:
            raise ValueError("a mark is no value")
        if key is not None and key >= 2**32:
            raise ValueError("it keeps a value under too large a number")
        self.memo[len(self.memo) if key is None else key] = self.stack[-1]

    def recall(self, key: int) -> None:
        """Push what was kept under a number."""
        if key not in self.memo:
            raise ValueError("it takes a value that it never kept")
        self.stack.append(self.memo[key])

    def name(self, text: str) -> None:
        """Push what stands for a name; what is not in the table ends the reading."""
        if text not in self.names:
            raise UnsafePickle(f"names {text!r:.100}")
        self.stack.append(Name(text, self.names[text]))

    def named_on_stack(self) -> None:
        """STACK_GLOBAL: module and name are the last two values."""
        name, module = self.pop(), self.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise UnsafePickle("names something by what is no text")
        self.name(f"{module}.{name}" if "." not in name else f"{module}.({name})")

    def call(self, called: Any, arguments: Any) -> None:
        """Push what our builder makes of the arguments."""
        if not isinstance(called, Name) or called.builder is None:
            raise UnsafePickle(f"calls a {_kind(called)}")
        if not isinstance(arguments, tuple):
            raise UnsafePickle(f"calls {called.text} with a {_kind(arguments)}")
        self.spend(arguments)
        try:
            self.stack.append(called.builder(*arguments))
        except TypeError as error:
            raise UnsafePickle(f"calls {called.text} with other arguments than are written for it") from error

    def build(self) -> None:
        """BUILD: give the last but one value the state on top."""
        state, value = self.pop(), self.stack[-1]
        if not isinstance(value, Built):
            raise UnsafePickle(f"changes the insides of a {_kind(value)}")
        self.spend(state if isinstance(state, tuple) else (state,))
        value.set_state(state)

    def spend(self, given: tuple[Any, ...]) -> None:
        """Count what a builder is given: it may copy it, and must not be made to do so again and again."""
        self.budget -= len(given)
        if self.budget >= 0:
            self.budget -= sum(len(value) for value in given if isinstance(value, SIZED))
        if self.budget < 0:
            raise UnsafePickle("uses its values again and again")

    def persistent(self, told: Any) -> None:
        """Push what a persistent id stands for."""
        if self.storage is None:
            raise UnsafePickle("holds a persistent id, which only files of torch.save have")
        self.stack.append(self.storage(told))

    def append(self, values: list[Any]) -> None:
        self.top(list).extend(values)

    def set_items(self, flat: list[Any]) -> None:
        self.top(dict).update(_pairs(flat))

    def add(self, values: list[Any]) -> None:
        self.top(set).update(hashable(value) for value in values)


def _pairs(flat: list[Any]) -> dict[Any, Any]:
    """Keys and values in turn, as a dict."""
    if len(flat) % 2:
        raise ValueError("a key has no value")
    return dict(zip(map(hashable, flat[::2]), flat[1::2], strict=True))


def _kind(value: Any) -> str:
    """What a value is, for a sentence."""
    return f"name ({value.text})" if isinstance(value, Name) else type(value).__name__.lstrip("_")


def _reduce(m: _Machine) -> None:
    arguments, called = m.pop(), m.pop()
    m.call(called, arguments)


def _new_with_keywords(m: _Machine) -> None:
    keywords, arguments, called = m.pop(), m.pop(), m.pop()
    if keywords != {}:
        raise UnsafePickle("makes an object with keywords")
    m.call(called, arguments)


def _object(m: _Machine) -> None:
    called, *arguments = m.group()
    m.call(called, tuple(arguments))


def _instance(m: _Machine, told: str) -> None:
    arguments = tuple(m.group())
    m.name(told.replace(" ", ".", 1))
    m.call(m.pop(), arguments)


def _tuple_of(m: _Machine, count: int) -> None:
    m.stack.append(tuple([m.pop() for _ in range(count)][::-1]))


def _item(m: _Machine) -> None:
    value, key = m.pop(), m.pop()
    m.set_items([key, value])


CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (), "MARK": MARK}
VALUES = {
    "INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
STEPS: dict[str, Callable[[_Machine, Any], object]] = {
    "PROTO": lambda m, _: None,
    "FRAME": lambda m, _: None,
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "EMPTY_SET": lambda m, _: m.stack.append(set()),
    "LIST": lambda m, _: m.stack.append(m.group()),
    "DICT": lambda m, _: m.stack.append(_pairs(m.group())),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.group())),
    "FROZENSET": lambda m, _: m.stack.append({hashable(value) for value in m.group()}),
    "TUPLE1": lambda m, _: _tuple_of(m, 1),
    "TUPLE2": lambda m, _: _tuple_of(m, 2),
    "TUPLE3": lambda m, _: _tuple_of(m, 3),
    "APPEND": lambda m, _: m.append([m.pop()]),
    "APPENDS": lambda m, _: m.append(m.group()),
    "SETITEM": lambda m, _: _item(m),
    "SETITEMS": lambda m, _: m.set_items(m.group()),
    "ADDITEMS": lambda m, _: m.add(m.group()),
    "POP": lambda m, _: m.stack.pop(),
    "POP_MARK": lambda m, _: m.group(),
    "DUP": lambda m, _: m.stack.append(m.top(object)),
    "PUT": lambda m, key: m.remember(key),
    "BINPUT": lambda m, key: m.remember(key),
    "LONG_BINPUT": lambda m, key: m.remember(key),
    "MEMOIZE": lambda m, _: m.remember(),
    "GET": lambda m, key: m.recall(key),
    "BINGET": lambda m, key: m.recall(key),
    "LONG_BINGET": lambda m, key: m.recall(key),
    "GLOBAL": lambda m, told: m.name(told.replace(" ", ".", 1)),
    "STACK_GLOBAL": lambda m, _: m.named_on_stack(),
    "REDUCE": lambda m, _: _reduce(m),
    "NEWOBJ": lambda m, _: _reduce(m),
    "NEWOBJ_EX": lambda m, _: _new_with_keywords(m),
    "OBJ": lambda m, _: _object(m),
    "INST": _instance,
    "BUILD": lambda m, _: m.build(),
    "PERSID": lambda m, told: m.persistent(told),
    "BINPERSID": lambda m, _: m.persistent(m.pop()),
}
