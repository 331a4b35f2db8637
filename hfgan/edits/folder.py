"""Every picture that `hfgan edit` was given, one after the other: drawn, inverted or replayed, moved, written."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image
from safetensors import safe_open

from hfgan import editing, editrecipes, recipes
from hfgan.batches import Batch, check_free
from hfgan.editing import EditOutput
from hfgan.images import grid, load_image, read_recipe, save_animation, save_png, write_file
from hfgan.inverting.cli import progress, say, warn
from hfgan.recipes import Recipe
from hfgan.storage import read_tagged

if TYPE_CHECKING:
    from hfgan import HFGan

SET, PASTE, STRIP, WAY, AGAIN = "-edited.png", "-pasted.png", "-strip.png", "-way", ".png"  # what ends names
LATENTS, DRAWN = ".safetensors", (".png", ".pasted.png", ".sheet.png")  # what `hfgan invert` writes of a photo
OF_PHOTOS = {"paste": False, "refine": 0, "interest": "everything", "align": "center"}  # flags and defaults
BETWEEN, FPS = 6, 24  # frames of a video from one picture of the strip to the next, and a second


class Job(NamedTuple):
    """One picture to edit.

    Attributes:
        source: A seed, a recipe, or the file of a photo or of latents.
        title: What it is called where it is told of.
        files: What is written of it, by what ends the name.
    """

    source: int | Recipe | Path
    title: str
    files: dict[str, Path]


def edit_pictures(options: argparse.Namespace, load: Callable[..., HFGan]) -> None:
    """Write what `hfgan edit` writes for each seed or file into `options.output`.

    A picture that cannot be read, inverted or edited is told and the others go on. Nothing is written before it is
    known that no two pictures would have one output, and that nothing is there, unless `options.overwrite` is set.

    Args:
        options: What `hfgan edit` was given.
        load: Gives the model that is named, else that of a recipe and its file, else a bundled one.

    Raises:
        OSError: an input or a region is missing, or outputs exist.
        ValueError: outputs would collide, or some pictures failed.
    """
    batch = _Batch(options)
    batch.list()
    batch.check()
    if batch.jobs:
        batch.gan = load(*batch.first_recipe())
        batch.gan.set_progress_bar_config(disable=True)  # it tells itself how far it is
        batch.check_model()
    batch.take()
    if batch.failed:
        total = len(batch.jobs) + len(batch.faults)
        raise ValueError(f"{batch.failed} of {total} pictures failed, as said above")


class _Batch(Batch):
    """One run: which files belong to which picture, and how many failed."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options.output, lambda line: warn(line, "edit"))
        self.options = options
        self.jobs: list[Job] = []
        self.read: list[Path] = []
        self.gan: Any = None
        self.failed = 0

    # ---------------------------------------------------------------- before anything is written

    def list(self) -> None:
        """Find what is given."""
        for seed in dict.fromkeys(self.options.seeds or ()):
            name = f"seed{seed:04d}"
            self.jobs.append(Job(seed, f"seed {seed}", self.files(Path(name), name, self._ends(seed))))
        if self.options.recipe:
            self.open_recipe(self.options.recipe)
        for path, name in self.find(self.options.input) if self.options.input else ():
            self.read.append(path)
            try:
                source = _checked(read_recipe(path)) if _carries_recipe(path) else path
            except ValueError as error:
                self.faults.append((path, str(error)))
                continue
            self.jobs.append(Job(source, str(path), self.files(path, name, self._ends(source))))
            idle = [flag for flag, usual in OF_PHOTOS.items() if getattr(self.options, flag) != usual]
            if idle and not _is_photo(source):
                self.warn(f"{path} is no photo: --{', --'.join(idle)} left out")

    def takes(self, path: Path) -> bool:
        """Latents count below a folder too."""
        return path.suffix.lower() == LATENTS and _holds_latents(path)

    def _names(self, folder: Path, besides: Sequence[Path | None]) -> list[str]:
        """Those of the folder, without what `hfgan invert` drew of latents beside them."""
        found = super()._names(folder, besides)
        stems = [str(Path(name).with_suffix("")) for name in found if name.lower().endswith(LATENTS)]
        drawn = {f"{stem}{end}" for stem in stems for end in DRAWN} & set(found)
        if drawn:
            self.warn(f"left out {len(drawn)} in {folder} drawn of latents beside them, such as {min(drawn)}")
        return [name for name in found if name not in drawn]

    def open_recipe(self, path: Path) -> None:
        """The recipe of a file is the one picture of this run, and drawn in its dtype if no other is asked for."""
        if not path.is_file():
            raise FileNotFoundError(f"no file {path} for --recipe")
        self.read.append(path)
        try:
            recipe = _checked(json.loads(path.read_bytes()) if path.suffix.lower() == ".json" else read_recipe(path))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: {error}") from error
        if self.options.dtype == "auto":
            self.options.dtype = recipe["dtype"]
        self.jobs.append(Job(recipe, str(path), self.files(path, path.name, self._ends(recipe))))

    def _ends(self, source: int | Recipe | Path) -> list[str]:
        """What ends the names of files that are written of a picture."""
        options = self.options
        main = SET if options.set else "" if options.strip else AGAIN
        found = {main: main, main.replace(".png", ".json"): options.json, PASTE: options.paste and _is_photo(source),
                 STRIP: options.strip, f"{WAY}{options.video}": options.video}  # fmt: skip
        return [end for end, wanted in found.items() if wanted]

    def first_recipe(self) -> list[Any]:
        """The first recipe that was given, and where it is from; nothing where there is none."""
        return next(([job.source, job.title] for job in self.jobs if isinstance(job.source, dict)), [])

    def check(self) -> None:
        """Refuse what could not end well."""
        for flag in ("interest", "region"):
            path = getattr(self.options, flag)
            if isinstance(path, Path):
                if not path.is_file():
                    raise FileNotFoundError(f"no file {path} for --{flag}")
                self.read.append(path)
                setattr(self.options, flag, _read(path))
        outputs = [path for job in self.jobs for path in job.files.values()]
        self.check_outputs(outputs, self.read)
        check_free(outputs, self.options.overwrite)

    # ---------------------------------------------------------------- pictures

    def take(self) -> None:
        """Edit one after the other; what cannot even be opened fails."""
        for path, reason in self.faults:
            self.fail(path, reason)
        for number, job in enumerate(self.jobs, 1):
            progress(f"{number} of {len(self.jobs)}, {job.title}")
            try:
                self.one(job)
            except (OSError, RuntimeError, ValueError) as error:
                self.fail(job.title, str(error) or type(error).__name__)
        progress("")

    def check_model(self) -> None:
        """Refuse what the model lacks; each says how to get it."""
        photos = any(isinstance(job.source, Path) and job.source.suffix.lower() != LATENTS for job in self.jobs)
        wanted = {"encoder": photos, "matting": photos and self.options.interest == "auto",
                  "alpha": self.options.region == "alpha"}  # fmt: skip
        for part in (name for name, is_wanted in wanted.items() if is_wanted):
            self.gan.part(part)
        known, generator, options = self.gan.directions, self.gan.generator, self.options
        editing.parse_edits(dict(options.set), known, generator, layers=options.layers, to=options.to)
        if options.strip:
            editing.look_up(options.strip, known, generator)

    def fail(self, title: object, sentence: str) -> None:
        """Count and tell a picture that could not be edited; one that was alone ends the run."""
        if len(self.jobs) + len(self.faults) == 1:
            raise ValueError(f"{title}: {sentence}")
        self.failed += 1
        self.warn(f"{title}: {sentence}")

    def one(self, job: Job) -> None:
        """Edit one picture and write its files."""
        options, out, way = self.options, self.open(job.source), None
        where = {"layers": options.layers, "region": options.region}
        where |= {} if options.feather is None else {"feather": options.feather}
        if options.set:
            out = self.gan.edit(out, dict(options.set), to=options.to, **where)
        if options.strip:
            fine = BETWEEN if options.video else 1
            way = self.gan.strip(out, options.strip, fine * (options.steps - 1) + 1, options.reach, **where)
        for end, path in job.files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            self.write(end, path, out, way)
            say(str(path))

    def open(self, source: int | Recipe | Path) -> Any:
        """What `HFGan.edit` takes: a sample, a picture that was replayed, or an inverted photo."""
        options = self.options
        if isinstance(source, int):
            return self.gan.sample(seed=source, truncation_psi=options.psi, label=options.label)
        if isinstance(source, dict):
            return self.gan.replay(source)
        if source.suffix.lower() == LATENTS:
            return self.open_latents(source)
        interest = None if options.interest == "everything" else options.interest
        return self.gan.invert(source, interest, align=options.align, refine=options.refine)

    def open_latents(self, path: Path) -> Any:
        """The one w_plus (1, num_ws, w_dim) that `hfgan invert` wrote."""
        found = self.gan.read_latents(path)
        if len(found) != 1:
            raise ValueError(f"it holds {len(found)} latents: expected one, as `hfgan invert` writes it")
        if any(name.startswith("noise") for name in read_tagged(path)[0]):
            self.warn(f"{path}: the noise that was fitted to its photo is left out, it would stay behind")
        return found

    def write(self, end: str, path: Path, out: Any, way: EditOutput | None) -> None:
        """One file of a picture, by what ends its name."""
        there = {"overwrite": self.options.overwrite}
        if end in (SET, AGAIN):
            save_png(out.images[0], path, out.recipes[0], **there)
        elif end.endswith(".json"):
            write_file(path, json.dumps(out.recipes[0], indent=1).encode(), **there)
        elif end == PASTE:
            save_png(out.pasted()[0], path, **there)
        elif end == STRIP:
            row = way.images[:: BETWEEN if self.options.video else 1]
            save_png(grid(row, len(row)), path, **there)
        else:
            save_animation([*way.images, *way.images[-2:0:-1]], path, FPS, **there)


# ---------------------------------------------------------------- files


def _checked(recipe: Any) -> Recipe:
    return editrecipes.check(recipe) if editrecipes.is_edit(recipe) else recipes.check(recipe)


def _is_photo(source: int | Recipe | Path) -> bool:
    """Whether a source is inverted first, rather than a seed, a recipe or latents."""
    return isinstance(source, Path) and source.suffix.lower() != LATENTS


def _carries_recipe(path: Path) -> bool:
    """Whether a file is a picture that was saved with its recipe."""
    try:
        with Image.open(path) as pil:
            return "hfgan" in pil.info
    except Exception:  # a damaged file can make a decoder raise anything; it is told of when it is read
        return False


def _holds_latents(path: Path) -> bool:
    """Whether a .safetensors file is of `hfgan invert`, rather than the weights of a model."""
    try:
        with safe_open(path, framework="pt") as file:
            return "w_plus" in file.keys()  # noqa: SIM118  # it is no dict
    except Exception:  # a damaged file may be one; it is told of when it is read
        return True


def _read(path: Path) -> Image.Image:
    """The picture of a file; what is wrong with it begins with its name."""
    try:
        return load_image(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
