"""What the stages share: flags from a dataclass, the run folder, exact resume, moving averages, the log."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import os
import shutil
import signal
import tempfile
import time
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from filelock import FileLock, Timeout
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from hfgan.images import grid, to_pil, write_file
from hfgan.metrics import resize

if TYPE_CHECKING:
    from hfgan.pipeline import HFGan


# what randomness is for: each purpose has a stream of its own (see `random_source`)
PURPOSES = {
    name: i for i, name in enumerate(("latents", "noise", "real", "fake", "path", "real_for_penalty", "mirror"))
}


SHEET_SIDE = 256  # px of a picture on a sheet, at most
# what a run writes before it begins its work
SETTINGS = {"config.json", "photos.json", "photos-report.json"}


class UserError(Exception):
    """Something the user can put right: shown as one sentence, without a traceback."""


@contextlib.contextmanager
def library_errors() -> Iterator[None]:
    """The library's own errors are sentences for the user: show them as such while a run is set up."""
    try:
        yield
    except (FileNotFoundError, ModuleNotFoundError, ValueError, RuntimeError) as error:
        raise UserError(str(error)) from error


# --- flags -------------------------------------------------------------------------------------------------


def flag(default: Any, text: str) -> Any:
    """A field of a stage's `Config` with its default and its line of help."""
    return dataclasses.field(default=default, metadata={"help": text})


def parse_flags(cls: type, argv: list[str], *, prog: str, presets: dict[str, dict[str, Any]]) -> Any:
    """Fill the dataclass `cls` from `argv`: --name value, --flag / --no-flag; --preset sets defaults first."""
    parser = argparse.ArgumentParser(prog=prog, description=(cls.__doc__ or "").strip())
    if presets:
        parser.add_argument("--preset", choices=sorted(presets), help="a row of defaults; other flags win over it")
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        _add_flag(parser, field, hints[field.name])
    if presets:
        first = argparse.ArgumentParser(add_help=False)  # what it sets need not be given
        first.add_argument("--preset")
        preset = presets.get(first.parse_known_args(argv)[0].preset, {})
        parser.set_defaults(**preset)
        for action in parser._actions:
            action.required = action.required and action.dest not in preset
    values = vars(parser.parse_args(argv))
    values.pop("preset", None)
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def _add_flag(parser: argparse.ArgumentParser, field: dataclasses.Field, hint: Any) -> None:
    name = "--" + field.name.replace("_", "-")
    required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    options: dict[str, Any] = {"help": field.metadata.get("help", ""), "required": required}
    if not required:
        factory = field.default_factory
        options["default"] = field.default if factory is dataclasses.MISSING else factory()
        if options["default"] not in (None, "", ()):
            options["help"] += f" (default: {options['default']})"
    if isinstance(hint, types.UnionType):
        hint = next(a for a in typing.get_args(hint) if a is not type(None))
    if hint is bool:
        parser.add_argument(name, action=argparse.BooleanOptionalAction, **options)
    elif typing.get_origin(hint) is typing.Literal:
        parser.add_argument(name, choices=typing.get_args(hint), **options)
    elif typing.get_origin(hint) is tuple:
        parser.add_argument(name, type=typing.get_args(hint)[0], nargs="+", **options)
    else:
        parser.add_argument(name, type=hint, **options)


# --- the run folder --------------------------------------------------------------------------------------


class RunFolder:
    """`out/`: config.json, log.jsonl, checkpoint-*/, samples/, model/. One run owns it."""

    def __init__(self, out: str | Path, config: Any, may_change: set[str], main_process: bool) -> None:
        self.path = Path(out)
        _create_writable(self.path)
        self._lock = _only_run(self.path) if main_process else None
        wanted = json.loads(json.dumps(dataclasses.asdict(config)))
        known = self.path / "config.json"
        if any(path.name not in SETTINGS and not path.name.startswith(".") for path in self.path.iterdir()):
            if known.exists():
                _check_same(json.loads(known.read_text()), wanted, may_change, known)
        elif main_process:  # nothing was done yet: settings may be put right
            (self.path / "photos.json").unlink(missing_ok=True)
        write_file(known, json.dumps(wanted, indent=2).encode(), overwrite=True)

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted(p for p in self.path.glob("checkpoint-*") if p.suffix != ".tmp")

    def save_checkpoint(
        self, images_seen: int, tensors: dict[str, Tensor], scalars: dict[str, Any], keep: int = 2
    ) -> None:
        """Write a checkpoint beside the last ones, then remove all but `keep`; a kill leaves the old ones whole."""
        final = self.path / f"checkpoint-{images_seen:012d}"
        temporary = final.with_suffix(".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            save_file(
                {k: v.detach().cpu().contiguous() for k, v in tensors.items()},
                temporary / "state.safetensors",
            )
            (temporary / "state.json").write_text(json.dumps(scalars))
            _flush_to_disk(temporary)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise UserError(
                f"cannot write a checkpoint to {self.path}: {error}; the last one is kept, free space and rerun"
            ) from error
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        for old in self.checkpoints()[:-keep]:
            shutil.rmtree(old)

    def load_checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and scalars of the newest checkpoint, or None for a new run."""
        if not self.checkpoints():
            return None
        newest = self.checkpoints()[-1]
        with safe_open(newest / "state.safetensors", framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads((newest / "state.json").read_text())

    def save_sheet(self, images_seen: int, sheet: Image.Image) -> None:
        """Write a sample sheet to samples/."""
        path = self.path / "samples" / f"{images_seen:09d}.png"
        path.parent.mkdir(exist_ok=True)
        sheet.save(path)

    def log(self, entry: dict[str, Any]) -> None:
        """Append one line to log.jsonl."""
        with (self.path / "log.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """All complete lines of log.jsonl."""
        path = self.path / "log.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def forget_after(self, images_seen: int) -> None:
        """Drop log lines written after the checkpoint that the run goes on from."""
        lines = [json.dumps(e) + "\n" for e in self.read_log() if e["images_seen"] <= images_seen]
        write_file(self.path / "log.jsonl", "".join(lines).encode(), overwrite=True)


def sheet(image: Tensor, columns: int) -> Image.Image:
    """Images (n, c, r, r) in [-1, 1] row by row, large ones shrunk: a sheet has dozens of them."""
    return grid(to_pil(resize(image, min(image.shape[-1], SHEET_SIDE))), columns)


def is_finished(folder: Path) -> bool:
    """Whether the training run in a folder has come to its end, by its newest checkpoint, and was not cut short."""
    config = json.loads((folder / "config.json").read_text())
    newest = max(p for p in folder.glob("checkpoint-*") if p.suffix != ".tmp")
    state = json.loads((newest / "state.json").read_text())
    out_of_time = config["minutes"] is not None and state["seconds"] >= 60 * config["minutes"]
    return out_of_time or state["images_seen"] >= config["images"]


def told(entry: dict[str, Any]) -> str:
    """A log entry as one line to read."""
    numbers = "  ".join(f"{k} {v:.4g}" for k, v in entry.items() if k != "images_seen")
    return f"{entry['images_seen']:>10,} images  {numbers}"


def publish(gan: HFGan, path: Path) -> None:
    """Write a model folder; a reader, or a kill, finds the old or the new file of each name, never half of one."""
    with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
        gan.save_pretrained(temporary)
        for file in [p for p in Path(temporary).rglob("*") if p.is_file()]:
            destination = path / file.relative_to(temporary)
            destination.parent.mkdir(parents=True, exist_ok=True)
            file.replace(destination)


def check_counts(config: Any, processes: int) -> None:
    """Say at once which count is no count, and that a batch cannot be shared."""
    names = ("batch", "images", "microbatch", "r1_every", "ema_images", "ada_images", "feature_images", "save_every",
             "sample_every")  # fmt: skip
    counts = [name for name in names if getattr(config, name, None) is not None]
    if small := [n for n in counts if getattr(config, n) < 1]:
        raise UserError(f"--{small[0].replace('_', '-')} is {getattr(config, small[0])}: give 1 or more")
    if config.batch % processes:
        raise UserError(
            f"--batch {config.batch} cannot be shared by {processes} processes: give a multiple of {processes}"
        )


def need_space(path: Path, size: int) -> None:
    """Raise UserError unless `size` [bytes] are free where `path` is."""
    free = shutil.disk_usage(path).free
    if free < size:
        raise UserError(
            f"{path} has {free / 1e6:.0f} MB free, the run's checkpoints need {size / 1e6:.0f} MB: "
            "free some or give another --out"
        )


def _create_writable(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".writable-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise UserError(f"cannot write to the run folder {path}: {error}; give another --out") from error


def _only_run(path: Path) -> FileLock:
    """Hold the folder as long as this process lives: two runs in one folder would overwrite each other."""
    lock = FileLock(path / ".lock")
    try:
        lock.acquire(timeout=10)  # a killed run may take a moment to go
    except Timeout as error:
        raise UserError(
            f"another process is training in {path}: wait for it, stop it, or give another --out"
        ) from error
    return lock


def _check_same(known: dict[str, Any], wanted: dict[str, Any], may_change: set[str], path: Path) -> None:
    may_change = may_change | {"out"}  # a run folder may be moved, alone or along with those beside it
    before, now = Path(known["out"]).parent, Path(wanted["out"]).parent
    changed = [
        k for k in wanted
        if k in known and k not in may_change and known[k] != wanted[k]
        and not _same_place(known[k], before, wanted[k], now)
    ]  # fmt: skip
    if changed:
        told = ", ".join(f"--{k.replace('_', '-')} was {known[k]!r}, now {wanted[k]!r}" for k in changed)
        raise UserError(f"{path.parent} holds a run with other settings ({told}): repeat them, or give a new --out")


def _same_place(one: Any, before: Path, other: Any, now: Path) -> bool:
    """Whether two values are paths to one place, seen from the folder that held the run and from the one that does."""
    if not (isinstance(one, str) and isinstance(other, str)):
        return False
    return os.path.relpath(one, before) == os.path.relpath(other, now)


def _flush_to_disk(folder: Path) -> None:
    for path in [*folder.iterdir(), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


# --- state ----------------------------------------------------------------------------------------------


def optimizer_tensors(optimizer: Optimizer, prefix: str) -> dict[str, Tensor]:
    """Adam's moments and steps under the names `prefix.<parameter index>.<moment>`."""
    state = optimizer.state_dict()["state"]
    return {f"{prefix}.{i}.{k}": torch.as_tensor(v) for i, moments in state.items() for k, v in moments.items()}


def load_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor], prefix: str) -> None:
    """Inverse of `optimizer_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith(prefix + "."):
            _, index, moment = name.rsplit(".", 2)
            state.setdefault(int(index), {})[moment] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors below `prefix.`, without it."""
    return {k.removeprefix(prefix + "."): v for k, v in tensors.items() if k.startswith(prefix + ".")}


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, beta: float) -> None:
    """average = beta * average + (1 - beta) * model for parameters; buffers are copied."""
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - beta)
    for ours, theirs in zip(average.buffers(), model.buffers(), strict=True):
        ours.copy_(theirs)


def average_gradients(accelerator: Accelerator, optimizer: Optimizer) -> None:
    """Replace the gradients of an optimizer's parameters by their mean over processes."""
    if accelerator.num_processes == 1:
        return
    grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    flat = accelerator.reduce(torch.cat([grad.flatten() for grad in grads]), "mean")
    for grad, mean in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(mean.view_as(grad))


def cosine(done: float) -> float:
    """Factor of the learning rate when the share `done` in [0, 1] of a run is over: 1 falling to 0.1."""
    return 0.1 + 0.45 * (1 + math.cos(math.pi * done))


def random_source(*key: int) -> torch.Generator:
    """A generator that depends on the whole numbers of `key` alone, so that a resumed step repeats itself."""
    seed = 0
    for number in key:  # splitmix64, so that neighbouring keys have unrelated streams
        seed = (seed + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        seed = ((seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        seed = ((seed ^ (seed >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        seed ^= seed >> 31
    return torch.Generator().manual_seed(seed & 0x7FFFFFFFFFFFFFFF)


class Stopwatch:
    """Asks to stop on SIGTERM or SIGINT, or after so many minutes; counts the time of earlier starts too."""

    def __init__(self, minutes: float | None, seconds_before: float) -> None:
        self.begin, self.limit, self.before, self.signalled = time.monotonic(), minutes, seconds_before, False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask_to_stop)

    def _ask_to_stop(self, *_: object) -> None:
        self.signalled = True

    def seconds(self) -> float:
        """Seconds of training, earlier starts included."""
        return self.before + time.monotonic() - self.begin

    def should_stop(self) -> bool:
        """True after a signal or when the time is over."""
        return self.signalled or (self.limit is not None and self.seconds() > 60 * self.limit)
