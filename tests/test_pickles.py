"""Pickles are read as data: nothing that a hostile file names is run, and what is well-formed reads right."""

from __future__ import annotations

import argparse
import contextlib
import copyreg
import json
import math
import pickle
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
import torch
from hostile import Case
from torch import Tensor

from hfgan.pickles import Record, UnsafePickle, read_pickle

CASES = hostile.corpus()
OPENED = ("open", "file.pt", "r")
HARMLESS = ("mmap.__new__", "builtins.id")


class Watch:
    """What the interpreter reports of a block; its hooks cannot be taken out again, so this one is there once."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []
        sys.addaudithook(self.note)

    def note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on and event not in HARMLESS and (event, *map(str, arguments[:2])) != OPENED:
            self.seen.append(f"{event} {arguments!r:.200}")

    def __enter__(self) -> list[str]:
        self.seen, self.on = [], True
        return self.seen

    def __exit__(self, *error: object) -> None:
        self.on = False


WATCH = Watch()


@pytest.fixture(scope="module", autouse=True)
def extensions() -> Iterator[None]:
    """Codes that stand for functions, as a program may have them registered."""
    for code, (module, name) in hostile.EXTENSIONS.items():
        copyreg.add_extension(module, name, code)
    yield
    for code, (module, name) in hostile.EXTENSIONS.items():
        copyreg.remove_extension(module, name, code)


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What Python loads when it first reads text or an archive, which is not the doing of a file."""
    path = tmp_path_factory.mktemp("warm") / "a.pt"
    for data in (hostile.GOOD, pickle.dumps({"ü": b"a", "a": 1.5, "b": "c"}, 0)):
        path.write_bytes(data)
        read_pickle(path)


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that must not come to be; a module that makes it when it is imported is there."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "canary"
    (tmp_path / f"{hostile.MODULE}.py").write_text(f"open({str(path)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield path
    sys.modules.pop(hostile.MODULE, None)


def test_the_corpus_is_large_and_its_names_are_told_apart() -> None:
    assert len({case.name for case in CASES}) == len(CASES) > 500
    assert sum(case.live is not None for case in CASES) > 30


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_nothing_of_a_hostile_file_is_run(case: Case, canary: Path) -> None:
    path = Path("file.pt")
    path.write_bytes(case.make(canary))
    began = time.monotonic()
    with pytest.raises(ValueError) as caught, WATCH as seen:  # noqa: PT011 - what it says is looked at below
        read_pickle(path)
    assert time.monotonic() - began < 10
    assert seen == []
    assert not canary.exists()
    assert hostile.MODULE not in sys.modules
    said = str(caught.value)
    assert said.startswith("file.pt ")
    assert case.says in said
    assert isinstance(caught.value, UnsafePickle) or not case.unsafe
    assert len(said) < 400
    assert said.isprintable(), "a sentence is shown in a terminal"


@pytest.mark.parametrize("case", [case for case in CASES if case.live], ids=repr)
def test_the_same_file_does_harm_when_it_is_loaded(case: Case, canary: Path) -> None:
    """Else the test above would show nothing."""
    data = case.make(canary)
    Path("file.pt").write_bytes(data)
    with WATCH as seen, contextlib.suppress(Exception):  # it has done its harm by then
        pickle.loads(data) if case.live == "pickle" else torch.load("file.pt", weights_only=False)
    assert canary.exists()
    assert seen


# ---------------------------------------------------------------- memory and time


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What is said of each heavy file, by a process of its own with 2 GiB and 10 seconds."""
    path = tmp_path_factory.mktemp("heavy") / "file.pt"
    code = (
        "import json, pathlib, sys, hostile\n"
        "path, told = pathlib.Path(sys.argv[1]), {}\n"
        "for name, make in hostile.HEAVY.items():\n"
        "    path.write_bytes(make())\n"
        "    told[name] = hostile.tried(path)\n"
        "print(json.dumps(told))\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    return json.loads(subprocess.check_output(command, cwd=Path(hostile.__file__).parent, text=True))


@pytest.mark.parametrize("name", hostile.HEAVY)
def test_no_file_takes_more_memory_or_time_than_there_is(name: str, heavy: dict[str, dict[str, Any]]) -> None:
    told = heavy[name]
    assert "killed" not in told, "more than 10 s, or a crash"
    assert told["peak"] < 2**30
    if name not in hostile.MAY_BE_READ:
        assert told.get("error") in ("ValueError", "UnsafePickle"), told
        assert len(told["says"].split(" ", 1)[1]) < 400
        assert "MemoryError" not in told["says"], "refused by a rule, not by luck"


# ---------------------------------------------------------------- files that are not there


def test_a_folder_and_a_missing_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is a folder"):
        read_pickle(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_pickle(tmp_path / "none.pt")


# ---------------------------------------------------------------- what is well-formed


def same(found: Any, wanted: Any) -> bool:
    """Whether what was read is what was written, with tensors for arrays and records for objects."""
    if isinstance(wanted, Tensor | np.ndarray):
        given = wanted.detach() if isinstance(wanted, Tensor) else wanted.astype(wanted.dtype.newbyteorder("="))
        if type(found) is not Tensor or tuple(found.shape) != given.shape:
            return False
        right = kind(found) == kind(given) if isinstance(given, np.ndarray) else found.dtype == given.dtype
        return right and found.tolist() == given.tolist()
    if isinstance(wanted, argparse.Namespace):
        return isinstance(found, Record) and found.name == "argparse.Namespace" and same(found.state, vars(wanted))
    if isinstance(wanted, dict):
        return type(found) is dict and list(found) == list(wanted) and all(same(found[k], wanted[k]) for k in wanted)
    if isinstance(wanted, list | tuple):
        base = list if isinstance(wanted, list) else tuple
        return type(found) is base and len(found) == len(wanted) and all(map(same, found, wanted))
    if isinstance(wanted, np.generic):
        return type(found) in (int, float, bool) and found == wanted.item()
    if isinstance(wanted, float) and math.isnan(wanted):
        return math.isnan(found)
    if isinstance(wanted, bytearray):
        return bytes(found) == wanted
    return type(found) is type(wanted) and found == wanted


def kind(numbers: Tensor | np.ndarray) -> tuple[str, int]:
    """numpy's letter and size; unsigned numbers of more than a byte may be read as int64, which is then theirs."""
    dtype = (numbers.numpy() if isinstance(numbers, Tensor) else numbers).dtype
    return ("i", 8) if dtype.kind == "u" and dtype.itemsize > 1 else (dtype.kind, dtype.itemsize)


def tensors() -> dict[str, Any]:
    """What torch.save writes of models."""
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    kinds = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
             torch.uint8, torch.bool]  # fmt: skip
    ordered = OrderedDict([("b", base[1:3, 2:4]), ("a", base.t())])
    ordered._metadata = OrderedDict([("", {"version": 1})])  # as state_dict has it
    return {
        "g_ema": ordered, "base": base, "every": base[::2, ::3], "scalar": torch.tensor(2.5), "none": None,
        "empty": torch.empty(0, 3), "kinds": [torch.tensor([0, 1, 3]).to(kind) for kind in kinds],
        "parameter": torch.nn.Parameter(torch.randn(2, 3)), "size": torch.Size([1, 2]), "set": {1, "a"},
        "args": argparse.Namespace(size=64, name="ü", nested={"a": (1, [2.5, None, True])}), "large": 2**70,
        "inf": -math.inf, "nan": math.nan, "bytes": b"\0\xff", "no-bytes": b"", "buffer": bytearray(b"ab"),
        "frozen": frozenset({1}), 5: "a number", 1.5: "a fraction", None: "nothing", "yes": True,
        "shared": (ordered, ordered),
    }  # fmt: skip


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "row"])
def test_files_of_torch_save_read_as_torch_reads_them(archive: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(tensors(), path, _use_new_zipfile_serialization=archive)
    found, wanted = read_pickle(path), torch.load(path, weights_only=False)
    wanted["frozen"] = set(wanted["frozen"])
    assert list(found) == list(wanted)
    wrong = [key for key in wanted if not same(found[key], wanted[key])]
    assert not wrong
    assert found["g_ema"]["a"].untyped_storage().data_ptr() == found["base"].untyped_storage().data_ptr()
    assert (found["base"].stride(), found["g_ema"]["a"].stride()) == ((6, 1), (1, 6))


@pytest.mark.parametrize("value", [torch.arange(3.0), [1, 2], OrderedDict(a=1), None, "text", 7, hostile.MAGIC + 1])
@pytest.mark.parametrize("archive", [True, False], ids=["archive", "row"])
def test_files_of_torch_save_hold_anything(value: Any, archive: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(value, path, _use_new_zipfile_serialization=archive)
    assert same(read_pickle(path), value)


ARRAYS = {
    **{code: np.arange(6).reshape(2, 3).astype(code) for code in
       ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", ">f2", ">f4", ">f8", ">i2", ">i4",
        ">i8", ">u2", ">u4", ">u8")},
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "parts": np.arange(24.0).reshape(4, 6)[::2, 1::2],
    "turned": np.arange(6, dtype=">i4").reshape(2, 3).T, "scalar": np.array(1.5), "empty": np.zeros((0, 3), "f4"),
    "negative": np.arange(-3, 3)[::-1],
}  # fmt: skip
SCALARS = [np.float64(2**0.5), np.float32(0.1), np.float16(0.5), np.int64(-3), np.uint8(200), np.bool_(True)]


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_read_as_they_were_written(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps((ARRAYS, SCALARS), protocol))
    arrays, scalars = read_pickle(path)
    assert [key for key in ARRAYS if not same(arrays[key], ARRAYS[key])] == []
    assert same(scalars, SCALARS)


@pytest.mark.parametrize("protocol", [2, 3])
def test_arrays_of_numpy_1_are_known(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    written = pickle.dumps((ARRAYS, SCALARS), protocol).replace(b"cnumpy._core.", b"cnumpy.core.")
    assert b"cnumpy.core.multiarray\n_reconstruct" in written
    path.write_bytes(written)
    assert same(list(read_pickle(path)[0].values()), list(ARRAYS.values()))


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_read_as_pickle_reads_them(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    value = {"a": [1, -1, 2**31, -(2**63), 2**100, 1e-300, True, False, None], "ü\n'\"": ("", (), [], {}, b"\xff"),
             "none": b"", "many": list(range(3000)), "binary": bytearray(b"ab"),
             "deep": [[[[("x",)]]]], "set": {1, "a"}, "ordered": OrderedDict(b=1),
             "words": {"a": "b" * 300, b"k": "\ud800 \u2028 𝄞"}}  # fmt: skip
    path.write_bytes(pickle.dumps(value, protocol))
    assert same(read_pickle(path), pickle.loads(path.read_bytes()))


def test_a_module_of_nvidia_is_its_name_and_state(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(hostile.nvidia(hostile.blob(hostile.of_floats())))
    module = read_pickle(path)["G_ema"]
    assert (module.name, list(module.state)) == ("Generator", ["_parameters"])
    assert same(module.state["_parameters"]["weight"], torch.zeros(1))
