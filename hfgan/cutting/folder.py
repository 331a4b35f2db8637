"""`hfgan cutout p`: every picture of a folder, once or as they come, and a manifest that tells of each."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfgan.cutting import Options, cut, export
from hfgan.cutting.cli import say, warn
from hfgan.images import read_image, write_file
from hfgan.manifests import read_manifest
from hfgan.sources import Entry, Rejected, Source, find_source

if TYPE_CHECKING:
    from hfgan import HFGan

POLL = 1.0  # seconds; a file that is as it was one poll ago is taken to be complete
NO_FAULT = ("not a picture's name", "a folder named like a picture")  # reasons of `sources` that lose no picture
COLUMNS = ("input", "output", "width", "height", "coverage", "model", "matting", "status", "error")


def cut_folder(options: argparse.Namespace, how: Options, load: Callable[[], HFGan]) -> None:
    """Write `<name>.png` into `options.output` for each picture below `options.input`, by the same path.

    A picture that cannot be read is told and the others go on. Nothing is written before it is known that no two
    pictures would have one output and that nothing is there, unless `options.resume` or `options.overwrite` is set.

    Args:
        options: What `hfgan cutout p` was given; with `watch` it never returns.
        how: What is made of each picture.
        load: Gives the model.

    Raises:
        OSError: a folder is missing, or outputs exist. ValueError: outputs would collide, or some pictures failed.
    """
    batch = _Batch(options, how)
    found = batch.list()
    batch.check(found)
    batch.gan = load()
    with batch.manifest():
        left_out = [name for name, reason in found.rejected if reason.startswith(NO_FAULT[0])]
        if left_out:
            warn(f"left out {len(left_out)} that by name are no pictures, such as {left_out[0]}")
        batch.watch() if options.watch else batch.take(found.entries, found.rejected)
    if batch.failed:
        seen = batch.done + batch.skipped + batch.failed
        raise ValueError(f"{batch.failed} of {seen} pictures failed, as said above")


class _Batch:
    """One run over a folder: which output belongs to which input, what became of each."""

    def __init__(self, options: argparse.Namespace, how: Options) -> None:
        self.options, self.how = options, how
        self.source, self.target = options.input, options.output
        self.gan: Any = None
        self.lines: Any = None  # the open manifest
        self.kept: set[str] = set()  # inputs of whom the manifest tells already
        self.owners: dict[str, str] = {}  # output, where case does not count -> input
        self.done = self.skipped = self.failed = 0

    # ---------------------------------------------------------------- before anything is written

    def list(self) -> Source:
        """What is in the folder now, without what was written by this command."""
        if not self.source.is_dir():
            raise NotADirectoryError(f"{self.source} is no folder of pictures")
        found, target = find_source(self.source), self.target.resolve()
        if self.source.resolve() in target.parents:
            inside = target.relative_to(self.source.resolve()).as_posix() + "/"
            found.entries = [entry for entry in found.entries if not entry.name.startswith(inside)]
            found.rejected = [fault for fault in found.rejected if not fault.id.startswith(inside)]
        return found

    def check(self, found: Source) -> None:
        """Refuse what could not end well."""
        source, target, manifest = self.source.resolve(), self.target.resolve(), self.options.manifest
        if source == target:
            raise ValueError(f"{self.source} and {self.target} are one folder: the cut-outs need another")
        if target.exists() and not target.is_dir():
            raise NotADirectoryError(f"{self.target} is a file: the cut-outs need a folder")
        if not found.entries and not self.options.watch:
            raise ValueError(f"there are no pictures in {self.source}")
        outputs = [self.target / self.claim(entry.name) for entry in found.entries]
        written = [path for path in outputs if source in path.resolve().parents and source not in target.parents]
        if written:
            raise ValueError(f"{written[0]} would be written among the pictures: choose another OUT_DIR")
        if self.options.resume or self.options.overwrite:
            return
        taken = [path for path in (*outputs, *filter(None, [manifest])) if path.exists()]
        if taken:
            more = f" and {len(taken) - 1} more exist" if len(taken) > 1 else " exists"
            raise FileExistsError(f"{taken[0]}{more} already: choose another place, or pass --resume or --overwrite")

    def claim(self, name: str) -> Path:
        """The output of an input, below the folder of outputs; ValueError if another input has it."""
        output = Path(name).with_suffix(".png")
        owner = self.owners.setdefault(output.as_posix().casefold(), name)
        if owner != name:
            raise ValueError(f"{owner} and {name} would both become {output}: rename one of them")
        return output

    # ---------------------------------------------------------------- the manifest

    @contextmanager
    def manifest(self) -> Iterator[None]:
        """Open the manifest for new lines; with --resume after those of pictures that are done."""
        path = self.options.manifest
        if path is None:
            yield
            return
        old = read_manifest(path) if self.options.resume and path.exists() else []
        done = [row for row in old if row["status"] != "error" and (self.target / row["output"]).exists()]
        self.kept = {row["input"] for row in done}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, "".join(json.dumps(row) + "\n" for row in done).encode(), overwrite=True)
        with open(path, "a", encoding="utf-8") as self.lines:
            yield

    def tell(self, name: str, status: str, **said: Any) -> None:
        """A line of the manifest."""
        if self.lines:
            row = dict.fromkeys(COLUMNS) | {"input": name, "model": self.gan.name, "status": status, **said}
            row["matting"] = self.gan.part("matting").fingerprint()
            self.lines.write(json.dumps(row) + "\n")
            self.lines.flush()

    def fail(self, name: str, sentence: str) -> None:
        """Count and tell a picture that could not be cut out."""
        self.failed += 1
        sentence = " ".join(sentence.split())
        warn(f"{self.source / name}: {sentence}")
        self.tell(name, "error", error=sentence)

    # ---------------------------------------------------------------- pictures

    def take(self, entries: list[Entry], rejected: list[Rejected]) -> None:
        """Cut out one after the other; what cannot even be opened fails."""
        for name, reason in rejected:
            if not reason.startswith(NO_FAULT):
                self.fail(name, reason)
        for entry in entries:
            self.one(entry.name)

    def one(self, name: str) -> None:
        """Cut out one picture, or say why not."""
        try:
            output = self.claim(name)
            path = self.target / output
            if path.exists() and not self.options.overwrite:
                if not self.options.resume:
                    raise FileExistsError(f"{path} exists already: pass --resume or --overwrite")
                self.skipped += 1
                warn(f"{path} is there already: skipped")
                if name not in self.kept:
                    self.tell(name, "skipped", output=output.as_posix())
                return
            picture, notes = read_image(self.source / name)
            found = cut(self.gan, picture, self.how)
            data = export(found, self.how)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, data, overwrite=self.options.overwrite)
        except (OSError, RuntimeError, ValueError) as error:
            self.fail(name, str(error) or type(error).__name__)
            return
        for note in notes:
            if note.startswith("first of"):
                warn(f"{self.source / name}: only the {note} is used")
        self.done += 1
        width, height = found.image.size
        covered = round(found.alpha.double().mean().item(), 6)
        self.tell(name, "ok", output=output.as_posix(), width=width, height=height, coverage=covered)
        say(str(path))

    def watch(self) -> None:
        """Cut out what is there and what comes, once its size and time are those of the poll before."""
        warn(f"watching {self.source}: Ctrl-C ends")
        before: dict[str, tuple] = {}
        over: set[tuple] = set()
        while True:
            found = self.list()
            now = {entry.name: (entry.name, entry.size, entry.stamp) for entry in found.entries}
            faults = [fault for fault in found.rejected if fault not in over]
            ready = [entry for entry in found.entries if before.get(entry.name) == now[entry.name] not in over]
            over.update(faults, (now[entry.name] for entry in ready))
            self.take(ready, faults)
            before = now
            time.sleep(POLL)
