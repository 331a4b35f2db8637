"""Files that were made to do harm when a checkpoint is opened: code to run, and more memory or time than there is.

A case makes the bytes of a file. Those that are `live` do what they were made for when `pickle` or `torch` opens them:
each makes an empty file, the canary.
"""

from __future__ import annotations

import gzip
import io
import json
import marshal
import os
import pickle
import resource
import struct
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from hfgan.pickles import BLOB, MAGIC, UnsafePickle, read_pickle

PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
MODULE = "hostile_canary"  # on the path of a test: importing it makes the canary
EXTENSIONS = {5: ("posix", "system"), 300: ("builtins", "eval"), 70_000: ("os", "system")}  # in copyreg during a test
PRIME = 2**61 - 1  # ints that differ by it have one hash


@dataclass(frozen=True)
class Case:
    """A hostile file.

    Attributes:
        make: Its bytes, for the path of the canary.
        says: What the sentence about it must have in it.
        unsafe: Whether it must be told apart from damage, as `UnsafePickle`.
        live: What runs it when it is not read as data: "pickle", "torch" or None.
    """

    name: str
    make: Callable[[Path], bytes]
    says: str = ""
    unsafe: bool = True
    live: str | None = None

    def __repr__(self) -> str:
        return self.name


# ---------------------------------------------------------------- pieces of pickles


def bits(value: Any, protocol: int = 3) -> bytes:
    """The instructions that push a value."""
    dumped = pickle.dumps(value, protocol)
    return dumped[2:-1] if protocol >= 2 else dumped[:-1]


def text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def named(name: str) -> bytes:
    """GLOBAL of "module.name"."""
    module, _, last = name.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def stacked(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def group(*parts: bytes) -> bytes:
    """A tuple."""
    return b"(" + b"".join(parts) + b"t"


def called(function: bytes, *arguments: bytes) -> bytes:
    return function + group(*arguments) + b"R"


def table(**parts: bytes) -> bytes:
    """A dict."""
    return b"}(" + b"".join(text(key) + value for key, value in parts.items()) + b"u"


def bare(body: bytes, protocol: int = 2) -> bytes:
    return (b"" if protocol < 2 else b"\x80" + bytes([protocol])) + body + b"."


# ---------------------------------------------------------------- containers


def zipped(body: bytes, storages: dict[str, bytes] | None = None, **more: bytes) -> bytes:
    """An archive of torch.save."""
    entries = {"data.pkl": bare(body), "byteorder": b"little", "version": b"3\n"}
    return archive({**entries, **{f"data/{key}": data for key, data in (storages or {}).items()}, **more})


def archive(entries: dict[str, bytes], root: str = "archive/", method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as file:
        for name, data in entries.items():
            file.writestr(root + name, data)
    return stream.getvalue()


def legacy(body: bytes, storages: dict[str, tuple[int, bytes]] | None = None, keys: bytes | None = None) -> bytes:
    """An old file of torch.save."""
    known = storages or {}
    head = [pickle.dumps(MAGIC, 2), pickle.dumps(1001, 2), pickle.dumps({"little_endian": True}, 2), bare(body)]
    listed = pickle.dumps(list(known), 2) if keys is None else keys
    return b"".join(head) + listed + b"".join(struct.pack("<q", count) + data for count, data in known.values())


def nvidia(body: bytes) -> bytes:
    """A pickle as NVIDIA's, with a parameter made of `body`."""
    tensor = called(named("torch._utils._rebuild_tensor_v2"), body, bits(0), bits((1,)), bits((1,)), b"\x89", b"N")
    return bare(table(G_ema=module(table(_parameters=table(weight=tensor)))), 3)


def module(state: bytes, name: str = "Generator", code: str = "") -> bytes:
    """A module of NVIDIA's."""
    told = table(type=text("class"), class_name=text(name), state=state, module_src=text(code), version=bits(6))
    return called(named(PERSISTENT), told)


def blob(data: bytes) -> bytes:
    """A storage as NVIDIA's files hold it."""
    return called(named(BLOB), b"B" + struct.pack("<I", len(data)) + data)


def held(
    kind: bytes = named("torch.FloatStorage"), key: bytes = text("0"), count: bytes = bits(1), tag: str = "storage"
) -> bytes:
    """A persistent id."""
    return group(text(tag), kind, key, text("cpu"), count) + b"Q"


def tensor(size: Any = (1,), stride: Any = (1,), offset: Any = 0, storage: bytes | None = None) -> bytes:
    parts = (held() if storage is None else storage, bits(offset), bits(size), bits(stride), b"\x89")
    return called(named("torch._utils._rebuild_tensor_v2"), *parts, called(named("collections.OrderedDict")))


CONTAINERS: dict[str, Callable[[bytes], bytes]] = {
    "protocol-0": lambda body: bare(body, 0), "protocol-3": lambda body: bare(body, 3),
    "protocol-5": lambda body: bare(body, 5), "zip": zipped, "legacy": legacy,
    "in-a-tensor": nvidia, "blob-legacy": lambda body: nvidia(blob(legacy(body))),
    "blob-zip": lambda body: nvidia(blob(zipped(body))), "blob-alone": lambda body: nvidia(blob(bare(body))),
    "module-state": lambda body: bare(module(table(_init_kwargs=body)), 4),
    "namespace": lambda body: bare(called(named("argparse.Namespace")) + table(seed=body) + b"b"),
    "tuple-of-torch": lambda body: zipped(tensor() + body + b"\x86", {"0": bytes(4)}),
}  # fmt: skip
REFUSED_BEFORE = {"blob-zip", "blob-alone"}  # these are refused for what they are, not for what they name
DAMAGED = {"blob-zip"}  # and this is taken for a damaged one


# ---------------------------------------------------------------- names


def payloads(canary: Path) -> dict[str, bytes]:
    """What is named, and the arguments with which it makes the canary; those without do it in other ways, or not."""
    shell, code = bits(f"touch '{canary}'"), bits(f"open({str(canary)!r}, 'w').close()")
    compiled = compile(f"open({str(canary)!r}, 'w').close()", "hostile", "exec")
    argv, path, write = bits(["touch", str(canary)]), bits(str(canary)), bits("w")
    inner = bits(bare(called(named("posix.system"), shell)))
    return {
        "os.system": group(shell), "posix.system": group(shell), "os.popen": group(shell),
        "subprocess.Popen": group(argv), "subprocess.check_output": group(argv), "subprocess.call": group(argv),
        "builtins.eval": group(code), "builtins.exec": group(code), "__builtin__.eval": group(code),
        "builtins.__import__": group(bits(MODULE)), "importlib.import_module": group(bits(MODULE)),
        "builtins.open": group(path, write), "io.open": group(path, write), "codecs.open": group(path, write),
        "timeit.timeit": group(bits("pass"), code), "runpy._run_code": group(code, bits({})),
        "pickle.loads": group(inner), "_pickle.loads": group(inner), "torch.load": group(path),
        "marshal.loads": group(bits(marshal.dumps(compiled))), "numpy.load": group(path, b"N", b"\x88"),
        "builtins.getattr": group(named("os.path"), bits("os")), "nt.system": group(shell),
        "builtins.compile": group(code, bits("x"), bits("exec")),
        "functools.partial": group(named("posix.system"), shell), "types.CodeType": group(),
        "operator.attrgetter": group(bits("__globals__")), "operator.methodcaller": group(bits("system"), shell),
        "types.FunctionType": group(), "builtins.globals": group(), "builtins.map": group(),
        "ctypes.CDLL": group(b"N"), "webbrowser.open": group(bits("http://127.0.0.1:9")), "code.interact": group(),
        "torch.hub.load": group(path, write), "torch.jit.load": group(path), "pdb.run": group(code),
        "torch.serialization._get_layout": group(bits("torch.strided")), "torch.serialization.load": group(path),
        "torch._utils._rebuild_device_tensor_from_numpy": group(), "torch._utils._rebuild_wrapper_subclass": group(),
        "torch._tensor._rebuild_from_type_v2": group(named("posix.system"), b"N", group(shell), b"N"),
        "torch.storage.UntypedStorage.from_file": group(path, b"\x88", bits(1)),
        "torch.nn.modules.linear.Linear": group(bits(1), bits(1)), "torch.FloatTensor": group(bits(2**40)),
        "copyreg._reconstructor": group(named("builtins.list"), named("builtins.object"), b"N"),
        "copyreg.__newobj__": group(named("subprocess.Popen"), argv), "copy_reg._reconstructor": group(),
        "dill._dill._create_function": group(), "dill._dill._create_type": group(), "cloudpickle.cloudpickle": group(),
        "cloudpickle.cloudpickle._make_function": group(), "joblib.numpy_pickle.NumpyArrayWrapper": group(),
        "pip.main": group(bits(["install", "x"])), "logging.config.dictConfig": group(bits({})),
        "shutil.rmtree": group(path), "socket.create_connection": group(bits(("127.0.0.1", 9))),
        "numpy.core.multiarray.fromfile": group(path), "torch_utils.persistence.import_hook": group(code),
    }  # fmt: skip


LIVE = (
    "os.system", "posix.system", "builtins.eval", "builtins.exec", "__builtin__.eval", "builtins.__import__",
    "importlib.import_module", "builtins.open", "io.open", "codecs.open", "timeit.timeit", "runpy._run_code",
    "pickle.loads", "_pickle.loads", "subprocess.check_output", "subprocess.call",
)  # fmt: skip
NEAR = (
    ("collections", "ordereddict"), ("Collections", "OrderedDict"), ("collections", "OrderedDict "),
    (" collections", "OrderedDict"), ("collections", "OrderedDict\n"), ("collections", "OrderedDict\0"),
    ("collections", "ОrderedDict"), ("ｃollections", "OrderedDict"), ("collections", "OrderedDict\u200b"),
    ("", "OrderedDict"), ("", ""), ("collections", ""), ("torch", "storage._load_from_bytes"),
    ("collections", "OrderedDict.__init__.__globals__"), ("collections.OrderedDict", "__init__"), ("torch", "_utils"),
    ("torch._utils", "_rebuild_tensor_v2.__globals__"), ("builtins", "set.__class__"), ("torch", "float32.__reduce__"),
    ("argparse", "Namespace.__init__.__globals__"), ("argparse", "_sys.modules"), ("numpy", "dtype.type"),
    ("torch.storage", "_LOAD_FROM_BYTES"), ("torch.storage", "io.open"), ("collections", "abc.sys.modules"),
)  # fmt: skip


def by_name() -> Iterator[Case]:
    """Every forbidden name, in one container after the other; the first twelve in all."""
    ways = list(CONTAINERS)
    for index, name in enumerate(payloads(Path("x"))):
        for way in ways if index < 12 else (ways[index % len(ways)], ways[(index + 5) % len(ways)]):

            def make(canary: Path, name: str = name, way: str = way) -> bytes:
                return CONTAINERS[way](named(name) + payloads(canary)[name] + b"R")

            runs = {"protocol-0": "pickle", "protocol-3": "pickle", "zip": "torch"}.get(way)
            says = "" if way in REFUSED_BEFORE else name
            old = name.startswith("__builtin__") and way == "protocol-3"  # which Python 3 does not rename
            yield Case(f"{name}-{way}", make, says, way not in DAMAGED, runs if name in LIVE and not old else None)
    for module_name, name in NEAR:
        body = stacked(module_name, name) + b")R"
        said = repr(name)[1:-1][:20]
        yield Case(f"near-{module_name!a}.{name!a}", lambda canary, body=body: bare(body, 4), said)
        yield Case(f"near-zip-{module_name!a}.{name!a}", lambda canary, body=body: zipped(body), said)


# ---------------------------------------------------------------- instructions


def shell(canary: Path) -> bytes:
    return bits(f"touch '{canary}'")


def evaluated(canary: Path) -> bytes:
    """An expression for `eval`."""
    return bits(f"open({str(canary)!r}, 'w').close()")


def object_array(canary: Path) -> bytes:
    """A .npy file that holds a pickle."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    return stream.getvalue() + bare(called(named("posix.system"), shell(canary)))


def numpy_state(shape: bytes, data: bytes = bytes(4)) -> bytes:
    """BUILD's of an array of floats."""
    return group(bits(1), shape, FLOATS, b"\x89", bits(data))


def of_numpy(kind: bytes, *arguments: bytes, state: bytes = b"") -> bytes:
    """A numpy array of a class; `state` is BUILD's."""
    made = called(named("numpy.core.multiarray._reconstruct"), kind, *arguments)
    return made + (state + b"b" if state else b"")


ORDERED, NAMESPACE = named("collections.OrderedDict"), named("argparse.Namespace")
SET, REBUILD = named("builtins.set"), named("torch._utils._rebuild_tensor_v2")
DTYPE, NDARRAY = named("numpy.dtype"), named("numpy.ndarray")
FLOATS = called(DTYPE, bits("f4"), b"\x89", b"\x88")
RECORDS = FLOATS + bits((3, "|", None, ("a",), {"a": ("f4", 0)}, 4, 1, 0)) + b"b"

# body of a bare pickle -> what it must be told for
BODIES: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "getattr-of-allowed": (lambda c: called(named("builtins.getattr"), ORDERED, bits("__init__")), "builtins.getattr"),
    "reduce-in-arguments": (lambda c: called(ORDERED, called(named("posix.system"), shell(c))), "posix.system"),
    "reduce-of-reduce": (lambda c: called(called(named("operator.itemgetter"), bits(0)), ORDERED), "itemgetter"),
    "inst": (lambda c: b"(" + shell(c) + b"iposix\nsystem\n", "posix.system"),
    "obj": (lambda c: b"(" + named("posix.system") + shell(c) + b"o", "posix.system"),
    "obj-of-text": (lambda c: b"(" + text("posix.system") + shell(c) + b"o", "calls a str"),
    "newobj": (lambda c: named("subprocess.Popen") + group(bits(["touch", str(c)])) + b"\x81", "subprocess.Popen"),
    "newobj-ex": (lambda c: named("subprocess.Popen") + group(shell(c)) + bits({"shell": True}) + b"\x92", "Popen"),
    "newobj-ex-keywords": (lambda c: NAMESPACE + b")" + bits({"__class__": 1}) + b"\x92", "keywords"),
    "newobj-ex-list": (lambda c: ORDERED + b")" + bits([("a", 1)]) + b"\x92", ""),
    "reduce-list": (lambda c: ORDERED + b"]R", "calls collections.OrderedDict with a list"),
    "reduce-text": (lambda c: text("posix.system") + group(shell(c)) + b"R", "calls a str"),
    "reduce-record": (lambda c: called(called(NAMESPACE)), "calls a Record"),
    "reduce-storage": (lambda c: called(named("torch.FloatStorage"), bits(2**40)), "torch.FloatStorage"),
    "reduce-ndarray": (lambda c: called(NDARRAY, bits((2**40,))), "numpy.ndarray"),
    "reduce-arguments": (lambda c: called(NAMESPACE, *[b"N"] * 3), "arguments"),
    "build-function": (lambda c: ORDERED + table(__code__=b"N") + b"b", "insides of a name"),
    "build-type": (lambda c: named("builtins.set") + table(__reduce__=b"N") + b"b", "insides of a name"),
    "build-list": (lambda c: b"]" + table(__class__=b"N") + b"b", "insides of a list"),
    "build-slots": (lambda c: called(NAMESPACE) + group(b"N", table(__class__=ORDERED)) + b"b", "state"),
    "build-number": (lambda c: called(NAMESPACE) + b"}" + bits(1) + bits(2) + b"sb", "state"),
    "build-table": (lambda c: called(ORDERED) + group(b"N", table(x=b"N")) + b"b", "state"),
    "build-setstate": (
        lambda c: called(NAMESPACE) + table(__setstate__=named("posix.system")) + b"b" + shell(c) + b"b",
        "posix.system",
    ),
    "build-tensor": (lambda c: tensor(storage=blob(of_floats())) + table(__class__=b"N") + b"b", "insides of a View"),
    "ext1": (lambda c: called(b"\x82\x05", shell(c)), "EXT1"),
    "ext2": (lambda c: called(b"\x83" + struct.pack("<H", 300), evaluated(c)), "EXT2"),
    "ext4": (lambda c: called(b"\x84" + struct.pack("<i", 70_000), shell(c)), "EXT4"),
    "next-buffer": (lambda c: b"\x97", "NEXT_BUFFER"),
    "stack-global-bytes": (lambda c: bits(b"posix") + bits(b"system") + b"\x93", "no text"),
    "stack-global-numbers": (lambda c: bits(1) + bits(2) + b"\x93", "no text"),
    "stack-global-records": (lambda c: called(NAMESPACE) * 2 + b"\x93", "no text"),
    "persid": (lambda c: b"Pposix.system\n", "persistent id"),
    "binpersid": (lambda c: held(), "persistent id"),
    "binpersid-name": (lambda c: named("posix.system") + b"Q", "posix.system"),
    "module-source": (lambda c: module(table(a=b"N"), code=f"open({str(c)!r}, 'w')") + b"]b", "state"),
    "module-list": (lambda c: called(named(PERSISTENT), b"]"), "module"),
    "module-name": (lambda c: module(table(a=b"N"), "\x1b[2J\n" + "x" * 10_000 + "\ud800") + b"]b", "state"),
    "key-tuple": (lambda c: b"}" + bits((1, 2)) + b"Ns", "tuple as a key"),
    "key-name": (lambda c: b"}" + ORDERED + b"Ns", "as a key"),
    "append-to-record": (lambda c: called(NAMESPACE) + b"Na", "treats a Record as a list"),
    "append-to-name": (lambda c: named("builtins.set") + b"(Ne", "as a list"),
    "items-of-list": (lambda c: b"](NNu", "treats a list as a dict"),
    "set-of-tuples": (lambda c: called(named("builtins.set"), bits([(1, 2)])), "set"),
    "numpy-other-class": (lambda c: of_numpy(named("builtins.set"), bits((0,)), bits(b"b")), "another class"),
    "numpy-posix": (lambda c: of_numpy(named("posix.system"), shell(c)), "posix.system"),
    "numpy-objects": (lambda c: called(DTYPE, bits("O8"), b"\x89", b"\x88"), "'O8'"),
    "numpy-void": (lambda c: called(DTYPE, bits("V16"), b"\x89", b"\x88"), "'V16'"),
    "numpy-fields": (lambda c: called(DTYPE, bits("f4,O")), "'f4,O'"),
    "numpy-structured": (lambda c: RECORDS, "records"),
    "numpy-object-list": (
        lambda c: of_numpy(NDARRAY, state=group(bits(1), bits((1,)), FLOATS, b"\x89", bits([1]))), "objects"
    ),
    "numpy-of-text": (lambda c: of_numpy(NDARRAY, state=group(*map(bits, (1, (1,), "O", False, b"")))), "objects"),
    "numpy-scalar-objects": (lambda c: called(named("numpy.core.multiarray.scalar"), bits("O"), bits(b"x")), "number"),
    "numpy-no-state": (lambda c: of_numpy(NDARRAY), "without"),
    "numpy-shape": (
        lambda c: of_numpy(NDARRAY, state=numpy_state(bits((2**39, 2**39)))),
        "bytes",
    ),
    "numpy-negative": (
        lambda c: of_numpy(NDARRAY, state=numpy_state(bits((-1, -1)))), "shape"
    ),
    "itself-list": (lambda c: b"]q\0h\0a", ""),
    "itself-dict": (lambda c: b"}q\0X\1\0\0\0ah\0s", ""),
    "itself-record": (lambda c: called(NAMESPACE) + b"q\0" + table(me=b"h\0") + b"b", ""),
}  # fmt: skip
SHOWN_LIVE = ("inst", "obj", "reduce-in-arguments", "ext1", "ext2", "ext4")


def of_floats(count: int = 1) -> bytes:
    """A storage of floats alone, as inside of NVIDIA's files."""
    return legacy(held(count=bits(count)), {"0": (count, bytes(4 * count))})


def by_instruction() -> Iterator[Case]:
    for name, (make, says) in BODIES.items():
        live = "pickle" if name in SHOWN_LIVE else None
        yield Case(name, lambda canary, make=make: bare(make(canary), 4), says, True, live)
    state = bare(called(NAMESPACE) + table(__class__=ORDERED, __reduce_ex__=ORDERED) + b"b" + b"Q")
    yield Case("binpersid-record", lambda canary: state, "persistent id")


# ---------------------------------------------------------------- storages


def by_storage() -> Iterator[Case]:
    """Persistent ids and views that are none, in the archive and in the row of pickles."""
    one = {"0": (1, bytes(4))}
    ids = {
        "type-name": held(kind=text("torch.FloatStorage")), "type-ndarray": held(kind=NDARRAY),
        "type-dict": held(kind=ORDERED), "negative": held(count=bits(-1)), "huge": held(count=bits(2**62)),
        "bool": held(count=b"\x88"), "float": held(count=bits(1.0)), "parent": held(key=text("../../../etc/passwd")),
        "absolute": held(key=text("/etc/passwd")), "no-key": held(key=text("")), "number-key": held(key=bits(0)),
        "list-key": held(key=b"]"), "module": held(tag="module"), "short": group(text("storage")) + b"Q",
        "text": text("storage") + b"Q", "none": b"NQ", "line": b"Pstorage\n",
        "view": group(text("storage"), named("torch.FloatStorage"), text("0"), text("cpu"), bits(1), bits(("1", 0, 1)))
        + b"Q", "as-two": group(held(), held(kind=named("torch.LongStorage"))),
        "other-count": group(held(), held(count=bits(2))),
    }  # fmt: skip
    for name, body in ids.items():
        yield Case(f"id-{name}-zip", lambda canary, body=body: zipped(body, {"0": bytes(4)}), "storage")
        yield Case(f"id-{name}-legacy", lambda canary, body=body: legacy(body, one), "storage")
        if not name.startswith("type"):  # inside of blobs no more than the types of storages may be named
            yield Case(f"id-{name}-blob", lambda c, body=body: nvidia(blob(legacy(body, one))), "storage")
    views = {
        "beyond": tensor((2,)), "offset": tensor(offset=1), "offset-negative": tensor(offset=-1),
        "stride": tensor((1, 2), (1, 2**61)), "stride-negative": tensor((2,), (-1,)), "size-negative": tensor((-1,)),
        "two-negative": tensor((-1, -1), (1, 1)), "expanded": tensor((2**40,), (0,)),
        "more-strides": tensor((1,), (1, 1)), "long-sentence": tensor((2**61,) * 9, (2**61,) * 9, -1),
        "overflow": tensor((2**32, 2**32), (0, 0)), "size-text": tensor("1"), "size-float": tensor((1.0,)),
        "size-huge": tensor((2**63,), (0,)), "size-bool": tensor((True,)), "size-none": tensor(None),
        "of-text": tensor(storage=text("x")), "of-tensor": tensor(storage=tensor()),
        "parameter": called(named("torch._utils._rebuild_parameter"), held(), b"\x88", b"N"),
    }  # fmt: skip
    for name, body in views.items():
        yield Case(f"view-{name}-zip", lambda canary, body=body: zipped(body, {"0": bytes(4)}))
        yield Case(f"view-{name}-legacy", lambda canary, body=body: legacy(body, one))


# ---------------------------------------------------------------- other and damaged files


def forged(data: bytes, signature: bytes, place: int, value: bytes, at: int = -1) -> bytes:
    """The same with some bytes changed behind a signature."""
    begin = (data.rfind(signature) if at < 0 else data.find(signature)) + place
    return data[:begin] + value + data[begin + len(value) :]


def doubled() -> bytes:
    """An archive with two entries of one name."""
    one = zipped(tensor(), {"0": bytes(4), "1": bytes(4)})
    return one.replace(b"archive/data/1", b"archive/data/0")


def linked() -> bytes:
    """An archive whose last entry is what a link would hold."""
    return zipped(tensor(), {"0": b"/etc/passwd"})


def packed(method: int, size: int = 1000) -> bytes:
    stored = {"data.pkl": bare(tensor((size,), storage=held(count=bits(size)))), "data/0": bytes(4 * size)}
    return archive(stored, method=method)


def in_tar(data: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as file:
        info = tarfile.TarInfo("pickle")
        info.size = len(data)
        file.addfile(info, io.BytesIO(data))
    return stream.getvalue()


CENTRAL, LOCAL = b"PK\x01\x02", b"PK\x03\x04"
GOOD = zipped(tensor(), {"0": bytes(4)})
FILES: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "empty": (lambda c: b"", "0 bytes"), "one-byte": (lambda c: b"\x80", ""), "zeros": (lambda c: bytes(1000), ""),
    "noise": (lambda c: np.random.default_rng(0).bytes(5000), ""), "text": (lambda c: b"Not found\n" * 9, ""),
    "web-page": (lambda c: b"<!DOCTYPE html><html>", "web page"),
    "lfs": (lambda c: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git-LFS"),
    "json": (lambda c: b'{"a": 1}', ""), "onnx": (lambda c: b"\x08\x07\x12\x07pytorch\x1a\x052.1.0", ""),
    "gzip": (lambda c: gzip.compress(bare(called(named("posix.system"), shell(c)))), "unpack"),
    "tar": (lambda c: in_tar(bare(called(named("posix.system"), shell(c)))), "unpack"),
    "safetensors": (lambda c: safetensors.torch.save({"a": torch.zeros(2)}), "safetensors"),
    "npy": (object_array, ""), "python": (lambda c: f"open({str(c)!r}, 'w')\n".encode(), ""),
    "trailing": (lambda c: bare(b"N") + bare(called(named("posix.system"), shell(c))), "follows"),
    "trailing-legacy": (lambda c: legacy(tensor(), {"0": (1, bytes(4))}) + b"x", "follows"),
    "no-stop": (lambda c: b"\x80\x02N", ""), "stop-alone": (lambda c: b".", ""), "mark": (lambda c: b"(.", ""),
    "no-group": (lambda c: b"Nt.", ""), "no-memo": (lambda c: b"h\7.", ""), "odd-items": (lambda c: b"}(Nu.", ""),
    "memo-mark": (lambda c: b"(q\0.", ""), "bad-utf8": (lambda c: b"X\1\0\0\0\xff.", ""),
    "legacy-version": (lambda c: legacy(tensor()).replace(bits(1001, 2), bits(1002, 2)), "version"),
    "legacy-big-endian": (lambda c: legacy(tensor()).replace(b"\x88", b"\x89", 1), "byte order"),
    "legacy-no-keys": (lambda c: legacy(tensor(), {}), "storages"),
    "legacy-short": (lambda c: legacy(tensor(), {"0": (1, bytes(3))}), "size"),
    "legacy-count": (lambda c: legacy(tensor(), {"0": (2, bytes(8))}), "size"),
    "legacy-negative": (lambda c: legacy(tensor(), {"0": (-1, bytes(4))}), "size"),
    "zip-no-pickle": (lambda c: archive({"a": b"b"}), "not of torch.save"),
    "zip-two-pickles": (lambda c: archive({"a/data.pkl": b"N.", "b/data.pkl": b"N."}, ""), "not of torch.save"),
    "zip-of-zip": (lambda c: archive({"model.pt": GOOD}), "not of torch.save"),
    "zip-torchscript": (lambda c: zipped(b"N", **{"code/__torch__.py": b"", "constants.pkl": b"(t."}), "TorchScript"),
    "zip-constants": (lambda c: zipped(b"N", **{"constants.pkl": bare(named("posix.system"))}), "TorchScript"),
    "zip-big-endian": (lambda c: zipped(b"N", byteorder=b"big"), "byte order"),
    "zip-missing": (lambda c: zipped(tensor()), "missing"),
    "zip-symlink": (lambda c: forged(linked(), CENTRAL, 38, struct.pack("<I", 0o120777 << 16)), "size"),
    "zip-short": (lambda c: zipped(tensor(), {"0": b"abc"}), ""),
    "zip-deflated": (lambda c: packed(zipfile.ZIP_DEFLATED), "compressed"),
    "zip-bomb": (lambda c: packed(zipfile.ZIP_DEFLATED, 10**6), "compressed"),
    "zip-lzma": (lambda c: packed(zipfile.ZIP_LZMA), "compressed"),
    "zip-encrypted": (lambda c: forged(GOOD, CENTRAL, 8, b"\1"), "encrypted"),
    "zip-claims": (lambda c: forged(GOOD, CENTRAL, 20, struct.pack("<II", 2**31, 2**31)), "larger"),
    "zip-overlap": (lambda c: forged(GOOD, CENTRAL, 42, struct.pack("<I", 0)), ""),
    "zip-nowhere": (lambda c: forged(GOOD, CENTRAL, 42, struct.pack("<I", 2**31)), ""),
    "zip-duplicate": (lambda c: doubled(), "one name"), "zip-cut": (lambda c: GOOD[:-30], ""),
    "zip-head-alone": (lambda c: LOCAL, ""), "zip-no-directory": (lambda c: LOCAL + bytes(500), ""),
}  # fmt: skip
TOLD_UNSAFE = ("zip-torchscript", "zip-constants")


def by_file() -> Iterator[Case]:
    for name, (make, says) in FILES.items():
        yield Case(name, make, says, name in TOLD_UNSAFE)
    whole = {"zip": GOOD, "legacy": legacy(tensor(), {"0": (1, bytes(4))}), "nvidia": nvidia(blob(of_floats()))}
    for name, data in whole.items():
        for tenth in range(1, 10):
            cut = data[: len(data) * tenth // 10]
            yield Case(f"cut-{name}-{tenth}", lambda canary, cut=cut: cut, unsafe=False)
        yield Case(f"cut-{name}-last", lambda canary, data=data: data[:-1], unsafe=False)


# ---------------------------------------------------------------- more memory or time than there is


def laughs(kind: bytes = b"]", wide: int = 10, deep: int = 40) -> bytes:
    """A list of the same list ten times, of the same list ten times, ...: small, and 10^40 when it is walked."""
    body = kind
    for level in range(deep):
        put = b"r" + struct.pack("<I", level)
        body += put + b"0" + b"](" + (b"j" + struct.pack("<I", level)) * wide + b"e"
    return body


def laughing_modules(wide: int = 12, deep: int = 12) -> bytes:
    """A generator as NVIDIA's, whose block b4 holds one module twelve times, which holds ..."""
    state = table(_modules=b"}")
    for level in range(deep):
        again = {f"m{k}": b"j" + struct.pack("<I", level) for k in range(wide)}
        state = module(state) + b"r" + struct.pack("<I", level) + b"0" + table(_modules=table(**again))
    synthesis = module(table(_modules=table(b4=module(state))), "SynthesisNetwork")
    return table(G_ema=module(table(_modules=table(synthesis=synthesis))))


def shared(value: bytes, use: bytes, times: int) -> bytes:
    """A list of what `use` makes of one value, which is the memo's first, again and again."""
    return value + b"q\0" + b"0" + b"](" + use * times + b"e"


def colliding(count: int) -> bytes:
    """Ints of one hash."""
    return b"".join(bits(k * PRIME, 2) for k in range(1, count))


def dims(count: int, side: int = 2**60) -> bytes:
    """A size of many dimensions."""
    return b"(" + bits(side, 2) + b"r\0\0\0\0" + b"j\0\0\0\0" * (count - 1) + b"t"


SPLIT = called(REBUILD, held(), bits(0), dims(300_000), dims(300_000), b"\x89", b"N")


def big_module() -> bytes:
    """One module's state of 100,000 attributes, made into 30,000 modules."""
    names = b"".join(text(f"a{k}") + b"N" for k in range(100_000))
    told = table(type=text("class"), class_name=text("A"), state=b"}(" + names + b"u")
    return shared(told + b"\x85", named(PERSISTENT) + b"h\0R", 30_000)


HEAVY: dict[str, Callable[[], bytes]] = {
    "memo-2^31": lambda: bare(b"Nr" + struct.pack("<I", 2**31)),
    "memo-collisions": lambda: bare(b"N" + b"".join(b"p%d\n" % (k * PRIME) for k in range(1, 150_000)), 0),
    "bytes-2^60": lambda: bare(b"\x8e" + struct.pack("<Q", 2**60) + b"x", 4),
    "text-2^60": lambda: bare(b"\x8d" + struct.pack("<Q", 2**60) + b"x", 4),
    "bytearray-2^60": lambda: bare(b"\x96" + struct.pack("<Q", 2**60) + b"x", 5),
    "frame-2^60": lambda: bare(b"\x95" + struct.pack("<Q", 2**60), 4),
    "long4-2^31": lambda: bare(b"\x8b" + struct.pack("<i", 2**31 - 1)),
    "long4-negative": lambda: bare(b"\x8b" + struct.pack("<i", -1)),
    "decimal-digits": lambda: bare(b"L" + b"9" * 5_000_000 + b"L\n", 0),
    "decimal-memo": lambda: bare(b"Np" + b"9" * 5_000_000 + b"\n", 0),
    "deep-lists": lambda: bare(b"]" * 500_000 + b"a" * 499_999),
    "deep-tuples": lambda: bare(b")" + b"\x85" * 150_000),
    "deep-dicts": lambda: bare(b"}" + b"K\0}" * 150_000 + b"s" * 150_000),
    "deep-key": lambda: bare(b"}" + b")" + b"\x85" * 150_000 + b"Ns"),
    "deep-set": lambda: bare(called(named("builtins.set"), b"](" + b")" + b"\x85" * 150_000 + b"e")),
    "deep-arguments": lambda: bare(called(ORDERED, b")" + b"\x85" * 150_000)),
    "deep-keywords": lambda: bare(NAMESPACE + b")" + b"]" * 150_000 + b"a" * 149_999 + b"\x92"),
    "deep-state": lambda: bare(called(NAMESPACE) + b")" + b"\x85" * 150_000 + b"b"),
    "deep-id": lambda: zipped(b")" + b"\x85" * 150_000 + b"Q"),
    "laughing-lists": lambda: bare(laughs()), "laughing-tuples": lambda: bare(laughs(b")", 10, 80)),
    "laughing-dtype": lambda: bare(called(DTYPE, laughs())),
    "laughing-keys": lambda: legacy(b"N", keys=bare(b"](" + laughs() + b"e")),
    "laughing-id": lambda: zipped(laughs() + b"Q"), "laughing-size": lambda: zipped(
        called(named("torch._utils._rebuild_tensor_v2"), held(), bits(0), laughs(), laughs(), b"\x89", b"N")
    ),
    "laughing-device": lambda: bare(called(named("torch.device"), laughs()) + laughs() + b"\x86"),
    "laughing-class": lambda: bare(of_numpy(laughs())),
    "laughing-state": lambda: bare(called(NAMESPACE) + laughs() + b"b"),
    "laughing-name": lambda: bare(laughs() * 2 + b"\x93"), "laughing-call": lambda: bare(laughs() + b")R"),
    "laughing-modules": lambda: bare(laughing_modules()),
    "laughing-in-time": lambda: bare(laughs(deep=15)),
    "colliding-dict": lambda: bare(b"}(" + b"N".join(bits(k * PRIME, 2) for k in range(1, 100_000)) + b"Nu"),
    "colliding-set": lambda: bare(b"\x8f(" + colliding(100_000) + b"\x90", 4),
    "colliding-list": lambda: bare(called(SET, b"](" + colliding(100_000) + b"e")),
    "colliding-frozen": lambda: bare(b"(" + colliding(100_000) + b"\x91", 4),
    "deep-by-parts": lambda: bare(b"](]" + b"".join(b"q\0]h\0a" for _ in range(1500)) + b"e"),
    "dimensions": lambda: zipped(SPLIT, {"0": bytes(4)}),
    "dimensions-numpy": lambda: bare(of_numpy(NDARRAY, state=numpy_state(dims(300_000, 2**39), b"abcd"))),
    "modules-again": lambda: bare(big_module()),
    "sets-again": lambda: bare(shared(bits(list(range(100_000)), 2) + b"\x85", SET + b"h\0R", 30_000)),
    "arrays-again": lambda: bare(
        shared(numpy_state(bits((250_000,)), bytes(1_000_000)), of_numpy(NDARRAY) + b"h\0b", 10_000)
    ),
    "blobs-again": lambda: bare(shared(bits(of_floats(250_000)) + b"\x85", named(BLOB) + b"h\0R", 10_000)),
    "texts-again": lambda: bare(shared(bits("a" * 1_000_000) + b"\x85", named("_codecs.encode") + b"h\0R", 10_000)),
    "arguments-again": lambda: bare(shared(b"(" + bits("f4") + b"N" * 900_000 + b"t", DTYPE + b"h\0R0", 30_000)),
    "states-again": lambda: bare(
        b"(K\3X\1\0\0\0<" + b"N" * 900_000 + b"tq\1" + b"0" + FLOATS.replace(b"q\0", b"") + b"h\1b" * 30_000
    ),
    "views-again": lambda: zipped(
        shared(group(held(), bits(0), bits((1,)), bits((1,))), REBUILD + b"q\1" + b"0", 1)[:-1]
        + b"h\1h\0R" * 100_000 + b"e", {"0": bytes(4)},
    ),
    "no-end-of-empty-sets": lambda: bare(b"\x8f" * 3_000_000, 4),
    "no-end-of-nothing": lambda: legacy(b"N0" * 3_000_000 + b"N"),
    "steps-of-keys": lambda: legacy(b"N", keys=bare(b"](" + b"N0" * 900_000 + b"K\1e")),
    "huge-storage": lambda: zipped(tensor((2**39,), storage=held(count=bits(2**39)))),
    "huge-storage-legacy": lambda: legacy(
        tensor((2**39,), storage=held(count=bits(2**39))), {"0": (2**39, bytes(4))}
    ),
    "huge-empty": lambda: zipped(
        tensor((0, 2**61, 2**61), (2**61, 2**61, 1), storage=held(count=bits(0))), {"0": b""}
    ),
}  # fmt: skip

MAY_BE_READ = {"memo-2^31", "views-again", "huge-empty"}  # nothing is wrong with them but their numbers


def corpus() -> list[Case]:
    """All but the heavy ones."""
    return [*by_name(), *by_instruction(), *by_storage(), *by_file()]


def tried(file: Path, seconds: int = 10, beyond: int = 2 * 2**30) -> dict[str, Any]:
    """What a process of its own says of a file, which may use so many seconds of a core and bytes beyond its own.

    Returns:
        "error" and "says", or "value" if it was read; "seconds" and "peak" (bytes); "killed" by which signal.
    """
    begin, end = os.pipe()
    child = os.fork()
    if child == 0:
        started, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + beyond,) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        try:
            told = {"value": type(read_pickle(file)).__name__}
        except BaseException as error:
            told = {"error": type(error).__name__, "says": str(error), "unsafe": isinstance(error, UnsafePickle)}
        told["seconds"] = round(time.process_time() - started, 2)
        told["peak"] = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        os.write(end, json.dumps(told).encode())
        os._exit(0)
    os.close(end)
    _, status = os.waitpid(child, 0)
    with open(begin, "rb") as pipe:
        written = pipe.read()
    return json.loads(written) if written else {"killed": os.WTERMSIG(status)}
