"""What the page does, one method per verb: the public API. Files and JSON in and out, no state but the models.

A picture travels as a PNG that carries its recipe, and beside it as that recipe, from which it is drawn again.
"""

from __future__ import annotations

import html
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder
from PIL.Image import Resampling

from hfgan import editrecipes, images
from hfgan.app.gpu import using
from hfgan.app.waiting import waited_for
from hfgan.captions import caption, file_name
from hfgan.editing import EditOutput
from hfgan.models.banks import ModeBank
from hfgan.models.directions import Direction
from hfgan.modes import check_mode
from hfgan.pipeline import HFGan, SampleOutput
from hfgan.recipes import Recipe, check

MAX_MIX = 32  # layers taken over in one recipe, one after the other
MAX_PIXELS = 25_000_000  # of a picture that is uploaded
MAX_MESSAGE = 400  # characters of an error: recipes come from strangers
FPS = 16  # frames per second of an animation
KEPT, TIDY = 3600, 600  # seconds for which a picture stays here, and from one look for old ones to the next
OWN = "hfgan-"  # begins the names of folders of our own in Gradio's cache
GONE = "this picture is not here any more: draw or upload it again"
LEFT = "nobody waits for this any more: it was not done"
TRUNCATIONS = ("global", "multimodal", "random", "mode")  # toward the mean, the nearest mode, any mode, a certain one
MAX_SHOWN = 256  # modes
CRISP = 192  # px up to which a preview is enlarged, pixel by pixel
SWEEP = (0.0, 0.25, 0.5, 0.75, 1.0)

Drawn = tuple[str, Recipe, str]  # file, recipe, caption
Pictures = list[tuple[str, str]]  # files and captions
Both = tuple[Pictures, list[Recipe], Pictures, list[Recipe]]  # under global and under multi-modal truncation


class Studio:
    """Models by name, which no verb changes, and a lock for each."""

    def __init__(self, models: Mapping[str, HFGan]) -> None:
        if not models:
            raise ValueError("no model: give one or more, by name")
        self._models = {name: (gan, Lock()) for name, gan in models.items()}
        self._previews: dict[str, Pictures] = {}  # of modes, for everyone
        for gan in models.values():
            gan.set_progress_bar_config(disable=True)

    def sample(
        self,
        model: str,
        num_images: int = 8,
        seed: int | None = 0,
        truncation_psi: float = 0.7,
        truncation_cutoff: int = 0,
        noise_mode: str = "const",
        label: int = 0,
        truncation: str = "global",
        mode: int = 0,
    ) -> tuple[Pictures, list[Recipe]]:
        """Draw new synthetic pictures with a generative model. The same seed gives the same picture.

        Args:
            model: Name of a loaded model.
            num_images: How many pictures, 1 to 16.
            seed: Of the first picture, 0 to 4294967295; the others follow it. Nothing for a random one.
            truncation_psi: 1 for all the model's variety, toward 0 for its average; 0.7 is a good start.
            truncation_cutoff: Truncate the first layers only, this many; 0 for all.
            noise_mode: Fine detail: const, random (from the seed) or none.
            label: Class of a model with classes; 0 for a model without.
            truncation: Toward what: global (the mean of all), or of a model with modes: multimodal (the mode nearest
                to each seed), random (a mode drawn for each seed) or mode (the one of the next argument).
            mode: Number of the mode for truncation mode; 0 is the largest.

        Returns:
            The pictures as PNG files with captions, and their recipes.
        """
        with self.drawing(model) as gan:
            how = _how(gan, truncation_psi, truncation_cutoff, noise_mode, label) | _toward(gan, truncation, mode)
            out = gan.sample(num_images, seed=seed, **how)
        return _shown(write_pictures(out))

    def mix(self, model: str, a: Recipe, b: Recipe, layers: str = "4-7") -> Drawn:
        """Draw picture A with the styles of picture B in some layers of the network.

        Args:
            model: Name of the loaded model that drew both.
            a: Recipe of A.
            b: Recipe of B.
            layers: Such as 0-3,5. Low layers set pose and shape, high ones colour.

        Returns:
            The picture as a PNG file, its recipe, and a line that describes it.
        """
        with self.drawing(model) as gan:
            out = gan.mix(draw_again(gan, a, "A"), draw_again(gan, b, "B"), layers)
        return write_pictures(out)[0]

    def interpolate(self, model: str, a: Recipe, b: Recipe, steps: int = 24, file_format: str = "webp") -> str:
        """Draw the way from picture A to picture B and back as an animation without end.

        Args:
            model: Name of the loaded model that drew both.
            a: Recipe of A.
            b: Recipe of B.
            steps: Pictures from A to B, both included, 2 to 60.
            file_format: webp or gif.

        Returns:
            The animation as a file.
        """
        with self.drawing(model) as gan:
            frames = gan.interpolate(draw_again(gan, a, "A"), draw_again(gan, b, "B"), steps)
        first, last = (f"seed{recipe['seed']:04d}" if "seed" in recipe else "edited" for recipe in (a, b))
        path = new_folder() / f"{first}-{last}.{file_format}"
        images.save_animation([*frames, *frames[-2:0:-1]], path, FPS)
        return str(path)

    def replay(self, model: str, picture: bytes | None) -> Drawn:
        """Draw a picture again from the recipe inside its PNG.

        Args:
            model: Name of the loaded model that drew it; a picture of another model is refused.
            picture: The PNG as it was downloaded.

        Returns:
            The picture as a PNG file, its recipe, and a line that describes it.
        """
        with self.drawing(model) as gan:
            if not picture:
                raise ValueError("no picture: drop a PNG that HFGan made")
            images.check_pixels(picture, MAX_PIXELS)
            out = draw_again(gan, images.read_recipe(picture), "the picture")
        return write_pictures(out)[0]

    def sweep(self, model: str, recipe: Recipe) -> Both:
        """Draw one sample at psi 0, 0.25, 0.5, 0.75 and 1: toward the mean of all, and toward its own mode.

        Args:
            model: Name of the loaded model that drew it, one with modes.
            recipe: Of a picture that was not mixed.

        Returns:
            PNG files with captions and their recipes under global truncation, and the same under multi-modal.
        """
        with self.drawing(model) as gan:
            bank, out = _modes(gan), draw_again(gan, recipe, "A", edited=False)
            (told,) = out.recipes
            if told["mix"]:
                raise ValueError("A was mixed: choose a picture that was not, which has one mode")
            own = gan.nearest_modes(out.w).item() if told["mode"] is None else told["mode"]
            ways = [{"mode": None, "modes": None}, {"mode": own, "modes": bank.fingerprint()}]
            rows = [[drawn for psi in SWEEP for drawn in _at_psi(gan, told | way, psi)] for way in ways]
        return _both(rows, lambda line: line.partition(" · ")[2])  # all have the seed of A

    def compare(
        self,
        model: str,
        num_images: int = 8,
        seed: int | None = 0,
        truncation_psi: float = 0.7,
        truncation_cutoff: int = 0,
        noise_mode: str = "const",
        label: int = 0,
    ) -> Both:
        """Draw the same seeds twice: truncated toward the mean of all, and each toward the mode nearest to it.

        Args:
            model: Name of a loaded model, one with modes.
            num_images: How many seeds, 1 to 16.
            seed: The first, 0 to 4294967295; the others follow it. Nothing for random ones.
            truncation_psi: 1 for no truncation, toward 0 for the mean and for the modes themselves.
            truncation_cutoff: Truncate the first layers only, this many; 0 for all.
            noise_mode: Fine detail: const, random (from the seed) or none.
            label: Class of a model with classes; 0 for a model without.

        Returns:
            PNG files with captions and their recipes under global truncation, and the same under multi-modal.
        """
        with self.drawing(model) as gan:
            nearest = _toward(gan, "multimodal", 0)
            how = _how(gan, truncation_psi, truncation_cutoff, noise_mode, label)
            first = gan.sample(num_images, seed=seed, **how)
            second = gan.sample(seeds=first.seeds, **how, **nearest)
        rows = [write_pictures(first), write_pictures(second)]
        return _both(rows, lambda line: line.partition(" · psi")[0])  # all have this psi

    def modes(self, model: str) -> Pictures:
        """The modes of a model, the kinds of picture that it draws most: what the center of each looks like.

        Args:
            model: Name of a loaded model.

        Returns:
            PNG files with captions that say the share of each, largest first, 256 at most; none for a model without.
        """
        with self.drawing(model) as gan:
            if gan.modes is None:
                return []
            shown = self._previews.get(model)
            if shown is None or not _lasts(shown):
                shown = self._previews[model] = _previews(gan.modes)
            return shown

    def num_modes(self, model: str) -> int:
        """Number of modes that a model has; 0 when it has none."""
        bank = self._of(model)[0].modes
        return 0 if bank is None else len(bank.counts)

    def directions(self, model: str) -> list[Direction]:
        """The directions that a model has; none for one without."""
        return list(self._of(model)[0].directions or ())

    def has(self, model: str, part: str) -> bool:
        """Whether a model has that part."""
        return part in self._of(model)[0].parts

    def folder(self, model: str) -> Path | None:
        """Where a model was loaded from; None for one that was not. No user may see it."""
        return self._of(model)[0].folder

    def line(self, model: str) -> str:
        """Which weights are loaded, in one line of Markdown."""
        gan, _ = self._of(model)
        size, kind = gan.generator.config.resolution, {1: "grey", 3: "RGB", 4: "RGBA"}
        channels, dtype = kind[gan.generator.config.img_channels], str(gan.dtype).removeprefix("torch.")
        return f"Loaded: **{model}** · {size} × {size} {channels} · weights `{gan.generator.fingerprint()}` · {dtype}"

    def layers(self, model: str) -> tuple[int, int]:
        """Number of layers that styles can be taken over in, and how many of them each resolution has."""
        generator = self._of(model)[0].generator
        return generator.num_ws, generator.synthesis.ws_per_size

    def classes(self) -> int:
        """The largest number of classes that a model has; 0 when none has any."""
        return max(gan.generator.config.c_dim for gan, _ in self._models.values())

    def _of(self, model: str) -> tuple[HFGan, Lock]:
        """The model of that name with its lock, or a message to who asked."""
        if not isinstance(model, str) or model not in self._models:
            raise gr.Error("no such model here: choose one of " + ", ".join(self._models), print_exception=False)
        return self._models[model]

    @contextmanager
    def drawing(self, model: str) -> Iterator[HFGan]:
        """The model for oneself; what is wrong with a user's request becomes a message to that user."""
        (gan, lock), wanted = self._of(model), waited_for()
        with refusing(), using(gan, lock) as ready:
            if not wanted():  # others have waited long enough
                raise gr.Error(LEFT, print_exception=False)
            yield ready


@contextmanager
def refusing() -> Iterator[None]:
    """Turn what is wrong with a user's request, a ValueError, into a message to that user."""
    try:
        yield
    except gr.Error:  # a ValueError, too: it is a message already
        raise
    except ValueError as error:
        said = html.escape(str(error)[:MAX_MESSAGE], quote=False)
        raise gr.Error(said, print_exception=False) from None


def own_file(path: str | Path) -> Path:
    """A file that a client names, where it is in Gradio's cache.

    Gradio does not check files unless they are marked as files, and would then read any of the server's.
    """
    file = Path(path).resolve()
    if not (file.is_relative_to(Path(get_upload_folder()).resolve()) and file.is_file()):
        raise gr.Error(GONE, print_exception=False)
    return file


def new_folder() -> Path:
    """A new folder in Gradio's cache; nobody else can guess its name, and it is deleted after a while."""
    cache = Path(get_upload_folder())
    _sweep(cache, int(time.time() // 60))
    folder = cache / f"{OWN}{uuid.uuid4().hex}"
    folder.mkdir(parents=True)
    return folder


@lru_cache(1)
def _sweep(cache: Path, minute: int) -> None:
    """Delete old folders of `new_folder`, once in a minute.

    Gradio deletes files that it has shown; it does not know of those of users who had left by then.
    """
    for folder in cache.glob(f"{OWN}*"):
        with suppress(FileNotFoundError):  # another process was faster
            if folder.stat().st_mtime < 60 * minute - KEPT - 2 * TIDY:  # which Gradio has not deleted until then
                shutil.rmtree(folder, ignore_errors=True)


def draw_again(gan: HFGan, recipe: Any, name: str, *, edited: bool = True) -> SampleOutput | EditOutput:
    """The picture of a recipe that came from outside; `edited` says whether it may be that of an edit."""
    if recipe is None:
        raise ValueError(f"{name} is missing: choose a picture for it first")
    began, depth = recipe, 0
    while editrecipes.is_edit(began):
        began, depth = editrecipes.check(began)["source"], depth + 1
    if depth and not edited:
        raise ValueError(f"{name} was edited: for this, choose a picture that was not")
    count = depth if depth and "w_plus" in began else len(check(began)["mix"]) + depth
    if count > MAX_MIX:
        raise ValueError(f"{name} was mixed or edited {count} times: at most {MAX_MIX} are followed here")
    return gan.replay(recipe)


def _how(gan: HFGan, psi: float, cutoff: int, noise_mode: str, label: int) -> dict[str, Any]:
    """Arguments of `HFGan.sample` from those of the page, where 0 is none."""
    classes = gan.generator.config.c_dim
    return {"truncation_psi": psi, "truncation_cutoff": cutoff or None, "noise_mode": noise_mode,
            "label": label if label or classes else None}  # fmt: skip


def _toward(gan: HFGan, truncation: str, mode: int) -> dict[str, Any]:
    """Arguments of `HFGan.sample` for one of TRUNCATIONS."""
    if truncation == "global":
        return {"truncation": "global"}
    bank = _modes(gan)
    wanted = {"multimodal": "nearest", "random": "random"}
    chosen = check_mode(mode, len(bank.counts)) if truncation == "mode" else wanted[truncation]
    return {"truncation": "multimodal", "mode": chosen}


def _modes(gan: HFGan) -> ModeBank:
    """The modes of a model, or a ValueError."""
    if gan.modes is None:
        raise ValueError(f"{gan.name} has no modes: choose a model that has some, or global truncation")
    return gan.modes


def _previews(bank: ModeBank) -> Pictures:
    """PNG files of the largest modes, enlarged in whole steps so that a small one stays crisp, and their captions."""
    folder, total = new_folder(), max(bank.counts.sum().item(), 1)
    side = bank.config.preview_size * max(1, CRISP // bank.config.preview_size)
    shown = []
    for mode, picture in enumerate(images.to_pil(images.to_image(bank.previews[:MAX_SHOWN]))):
        path = folder / f"mode{mode}.png"
        picture.resize((side, side), Resampling.NEAREST).save(path, compress_level=1)  # every visitor's, so quickly
        shown.append((str(path), f"mode {mode} · {100 * bank.counts[mode].item() / total:.1f} %"))
    return shown


def _lasts(shown: Pictures) -> bool:
    """Whether files that were written for another visitor are all there, and stay for a while."""
    paths = [Path(path) for path, _ in shown]
    return all(path.is_file() for path in paths) and time.time() - paths[0].stat().st_mtime < KEPT / 2


def _at_psi(gan: HFGan, recipe: Recipe, psi: float) -> list[Drawn]:
    """The picture of a recipe at another psi."""
    return write_pictures(gan.replay(recipe | {"truncation_psi": psi}), f"-psi{psi:g}")


@refusing()
def write_pictures(out: SampleOutput | EditOutput, suffix: str = "") -> list[Drawn]:
    """PNG files with their recipes; `suffix` ends the names of what would be called alike."""
    folder = new_folder()
    names = [Path(file_name(recipe)) for recipe in out.recipes]
    paths = [str(folder / f"{name.stem}{suffix}.png") for name in names]
    for picture, path, recipe in zip(out.images, paths, out.recipes, strict=True):
        images.save_png(picture, path, recipe)
    return [(path, recipe, caption(recipe)) for path, recipe in zip(paths, out.recipes, strict=True)]


def _shown(drawn: list[Drawn]) -> tuple[Pictures, list[Recipe]]:
    """What a gallery shows, and the recipes of it."""
    return [(path, line) for path, _, line in drawn], [recipe for _, recipe, _ in drawn]


def _both(rows: Sequence[list[Drawn]], shorten: Callable[[str], str]) -> Both:
    """What two galleries show, with captions short enough for small pictures, and the recipes of it."""
    first, second = ([(path, recipe, shorten(line)) for path, recipe, line in row] for row in rows)
    return *_shown(first), *_shown(second)
