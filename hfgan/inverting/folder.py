"""Every photo that was given, one after the other: what is written of each, and a manifest that tells of it."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from hfgan.batches import Batch, check_free
from hfgan.images import grid, load_image, read_image, save_png, with_channels, write_file
from hfgan.inversion import Inversion
from hfgan.inverting.cli import progress, say, warn
from hfgan.manifests import read_manifest
from hfgan.refinement import Step
from hfgan.sources import find_source

if TYPE_CHECKING:
    from hfgan import HFGan

COLUMNS = (
    "input", "output", "size", "interest_source", "distance_inside", "distance_outside", "mode", "seconds", "model",
    "encoder", "status", "error",
)  # fmt: skip


class Job(NamedTuple):
    """One photo.

    Attributes:
        photo: Its file.
        name: Its path below the folder that was given, or its file name.
        files: What is written of it: ".png", ".safetensors", ".pasted.png", ".sheet.png".
        region: The file with its interest; None where all photos have one.
    """

    photo: Path
    name: str
    files: dict[str, Path]
    region: Path | None


def invert_photos(options: argparse.Namespace, load: Callable[[], HFGan]) -> None:
    """Write what `hfgan invert` writes for each photo of `options.input` into `options.output`, by the same path.

    A photo that cannot be read or inverted is told and the others go on. Nothing is written before it is known that no
    two photos would have one output, that each has its region, and that nothing is there, unless `options.resume` or
    `options.overwrite` is set.

    Args:
        options: What `hfgan invert` was given.
        load: Gives the model.

    Raises:
        OSError: an input or a region is missing, or outputs exist.
        ValueError: outputs would collide, or some photos failed.
    """
    batch = _Batch(options)
    batch.list()
    batch.check()
    batch.gan = load()
    with batch.manifest():
        batch.take()
    if batch.failed:
        total = len(batch.jobs) + len(batch.faults)
        raise ValueError(f"{batch.failed} of {total} photos failed, as said above")


def sheet(inversion: Inversion) -> Image.Image:
    """The square that was seen, what matters of it, what was drawn after each step, and the result, in a row: RGB."""
    region = inversion.region()
    side = region.width
    square = inversion.alignment.crop(with_channels(inversion.photo, 3), side)
    drawn = [with_channels(picture, 3) for picture in (*inversion.steps, inversion.image)]
    enlarged = [picture.resize((side, side), Image.Resampling.NEAREST) for picture in drawn]
    return grid([square, region, *enlarged], columns=2 + len(drawn))


class _Batch(Batch):
    """One run: which files belong to which photo, what became of each."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options.output, warn)
        self.options = options
        self.suffixes = [".png", ".safetensors"]
        self.suffixes += [".pasted.png"] * options.paste + [".sheet.png"] * options.sheet
        self.jobs: list[Job] = []
        self.gan: Any = None
        self.interest: Any = None
        self.lines: Any = None  # the open manifest
        self.kept: set[str] = set()  # inputs of whom the manifest tells already
        self.failed = 0

    # ---------------------------------------------------------------- before anything is written

    def list(self) -> None:
        """Find the photos and their regions; a file that is given twice counts once."""
        photos = self.find(self.options.input, [self.options.interest_dir])
        regions = _find_regions(self.options.interest_dir, photos)
        for (photo, name), region in zip(photos, regions, strict=True):
            self.jobs.append(Job(photo, name, self.files(photo, name, self.suffixes), region))

    def check(self) -> None:
        """Refuse what could not end well."""
        self.interest = self.options.interest
        if isinstance(self.interest, Path):
            if not self.interest.is_file():
                raise FileNotFoundError(f"no file {self.interest} for --interest")
            self.interest = _read_region(self.interest)
        given = [job.photo for job in self.jobs] + [job.region for job in self.jobs if job.region]
        given += [self.options.interest] if isinstance(self.options.interest, Path) else []
        outputs = [path for job in self.jobs for path in job.files.values()]
        self.check_outputs(outputs, given)
        outputs += filter(None, [self.options.manifest])
        check_free(outputs, self.options.resume or self.options.overwrite, ", or pass --resume or --overwrite")

    # ---------------------------------------------------------------- the manifest

    @contextmanager
    def manifest(self) -> Iterator[None]:
        """Open the manifest for new lines; with --resume after those of photos that are done."""
        path = self.options.manifest
        if path is None:
            yield
            return
        old = read_manifest(path) if self.options.resume and path.exists() else []
        to_do = {job.photo.as_posix() for job in self.jobs if not _is_done(job)}
        done = [row for row in old if row["status"] != "error" and row["input"] not in to_do]
        self.kept = {row["input"] for row in done}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, "".join(json.dumps(row) + "\n" for row in done).encode(), overwrite=True)
        with open(path, "a", encoding="utf-8") as self.lines:
            yield

    def tell(self, photo: Path, status: str, **said: Any) -> None:
        """A line of the manifest."""
        if self.lines:
            row = dict.fromkeys(COLUMNS) | {"input": photo.as_posix(), "model": self.gan.name, "status": status}
            row |= {"encoder": self.gan.part("encoder").fingerprint(), **said}
            self.lines.write(json.dumps(row) + "\n")
            self.lines.flush()

    def fail(self, photo: Path, sentence: str) -> None:
        """Count and tell a photo that could not be inverted."""
        self.failed += 1
        sentence = " ".join(sentence.split())
        warn(f"{photo}: {sentence}")
        self.tell(photo, "error", error=sentence)

    # ---------------------------------------------------------------- photos

    def take(self) -> None:
        """Invert one after the other; what cannot even be opened fails."""
        for photo, reason in self.faults:
            self.fail(photo, reason)
        for number, job in enumerate(self.jobs, 1):
            self.one(job, f"{number} of {len(self.jobs)}, {job.photo}")

    def one(self, job: Job, title: str) -> None:
        """Invert one photo, or say why not."""
        output = job.files[".png"].relative_to(self.target).as_posix()
        if self.options.resume and _is_done(job):
            warn(f"{job.files['.png']} is there already: skipped")
            if job.photo.as_posix() not in self.kept:
                self.tell(job.photo, "skipped", output=output)
            return
        start = time.monotonic()
        try:
            picture, notes = read_image(job.photo)
            found = self.invert(job, picture, title)
            self.write(job, found)
        except (OSError, RuntimeError, ValueError) as error:
            self.fail(job.photo, str(error) or type(error).__name__)
            return
        seconds = round(time.monotonic() - start, 3)
        for note in notes:
            if note.startswith("first of"):
                warn(f"{job.photo}: only the {note} is used")
        far = (found.distance_inside, found.distance_outside)
        inside, outside = (None if distance is None else round(distance, 6) for distance in far)
        self.tell(job.photo, "ok", output=output, size=list(found.photo.size), interest_source=found.interest_source,
                  distance_inside=inside, distance_outside=outside, mode=found.mode, seconds=seconds)  # fmt: skip
        warn(f"{title}: distance inside {inside}, interest {found.interest_source}, {seconds:.1f} s")
        say(str(job.files[".png"]))

    def invert(self, job: Job, picture: Image.Image, title: str) -> Inversion:
        """What `HFGan.invert` finds, its progress shown."""
        interest = _read_region(job.region) if job.region else self.interest
        how = {name: getattr(self.options, name) for name in ("align", "steps", "refine", "noise_steps")}

        def show(step: Step) -> bool:
            progress(f"{title}: step {step.index} of {step.count}")
            return True

        progress(title)
        return self.gan.invert(picture, None if interest == "everything" else interest, keep_going=show, **how)

    def write(self, job: Job, found: Inversion) -> None:
        """All files of a photo; with --resume those that are not there."""
        make = {".png": lambda: found.image, ".pasted.png": found.unalign, ".sheet.png": lambda: sheet(found)}
        job.files[".png"].parent.mkdir(parents=True, exist_ok=True)
        for suffix, path in job.files.items():
            if self.options.resume and path.exists():
                continue
            if suffix == ".safetensors":
                found.save(path, overwrite=self.options.overwrite)
            else:
                save_png(make[suffix](), path, overwrite=self.options.overwrite)


# ---------------------------------------------------------------- files


def _is_done(job: Job) -> bool:
    """Whether all that is written of a photo is there."""
    return all(path.exists() for path in job.files.values())


def _find_regions(folder: Path | None, photos: list[tuple[Path, str]]) -> list[Path | None]:
    """The file below a folder with the path of each photo, whatever its suffix; None for no folder."""
    if folder is None:
        return [None] * len(photos)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder of regions")
    there: dict[str, list[Path]] = {}
    for entry in find_source(folder).entries:
        there.setdefault(str(Path(entry.name).with_suffix("")), []).append(folder / entry.name)
    found = [there.get(str(Path(name).with_suffix("")), []) for _, name in photos]
    lacking = [photo for (photo, _), files in zip(photos, found, strict=True) if not files]
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise FileNotFoundError(
            f"{folder} has no region for {lacking[0]}{more}: each photo needs a picture of the same name there"
        )
    for (photo, _), files in zip(photos, found, strict=True):
        if len(files) > 1:
            raise ValueError(f"{files[0]} and {files[1]} are both a region for {photo}: remove one of them")
        if files[0].resolve() == photo.resolve():
            raise ValueError(f"{photo} would be its own region: the regions need another folder than the photos")
    return [files[0] for files in found]


def _read_region(path: Path) -> Image.Image:
    """The picture of a file; what is wrong with it begins with its name."""
    try:
        return load_image(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
