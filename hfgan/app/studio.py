"""What the page does, one method per verb: the public API. Files and JSON in and out, no state but the models.

A picture travels as a PNG that carries its recipe, and beside it as that recipe, from which it is drawn again.
"""

from __future__ import annotations

import html
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from hfgan import images
from hfgan.captions import caption, file_name
from hfgan.pipeline import HFGan, SampleOutput
from hfgan.recipes import Recipe, check

MAX_MIX = 32  # layers taken over in one recipe, one after the other
MAX_MESSAGE = 400  # characters of an error: recipes come from strangers
FPS = 16  # frames per second of an animation

Drawn = tuple[str, Recipe, str]  # file, recipe, caption


class Studio:
    """Models by name, which no verb changes, and a lock for each."""

    def __init__(self, models: Mapping[str, HFGan]) -> None:
        if not models:
            raise ValueError("no model: give one or more, by name")
        self._models = {name: (gan, Lock()) for name, gan in models.items()}
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
    ) -> tuple[list[tuple[str, str]], list[Recipe]]:
        """Draw new synthetic pictures with a generative model. The same seed gives the same picture.

        Args:
            model: Name of a loaded model.
            num_images: How many pictures, 1 to 16.
            seed: Of the first picture, 0 to 4294967295; the others follow it. Nothing for a random one.
            truncation_psi: 1 for all the model's variety, toward 0 for its average; 0.7 is a good start.
            truncation_cutoff: Truncate the first layers only, this many; 0 for all.
            noise_mode: Fine detail: const, random (from the seed) or none.
            label: Class of a model with classes; 0 for a model without.

        Returns:
            The pictures as PNG files with captions, and their recipes.
        """
        with self._drawing(model) as gan:
            out = gan.sample(
                num_images,
                seed=seed,
                truncation_psi=truncation_psi,
                truncation_cutoff=truncation_cutoff or None,
                noise_mode=noise_mode,
                label=label if label or gan.generator.config.c_dim else None,
            )
        return [(file, line) for file, _, line in _write(out)], out.recipes

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
        with self._drawing(model) as gan:
            out = gan.mix(_again(gan, a, "A"), _again(gan, b, "B"), layers)
        return _write(out)[0]

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
        with self._drawing(model) as gan:
            frames = gan.interpolate(_again(gan, a, "A"), _again(gan, b, "B"), steps)
        path = _folder() / f"seed{a['seed']:04d}-seed{b['seed']:04d}.{file_format}"
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
        with self._drawing(model) as gan:
            if not picture:
                raise ValueError("no picture: drop a PNG that HFGan made")
            out = _again(gan, images.read_recipe(picture), "the picture")
        return _write(out)[0]

    def line(self, model: str) -> str:
        """Which weights are loaded, in one line of Markdown."""
        gan, _ = self._models[model]
        size, kind = gan.generator.config.resolution, {1: "grey", 3: "RGB", 4: "RGBA"}
        channels, dtype = kind[gan.generator.config.img_channels], str(gan.dtype).removeprefix("torch.")
        return f"Loaded: **{model}** · {size} × {size} {channels} · weights `{gan.generator.fingerprint()}` · {dtype}"

    def num_ws(self, model: str) -> int:
        """Number of layers that styles can be taken over in."""
        return self._models[model][0].generator.num_ws

    def classes(self) -> int:
        """The largest number of classes that a model has; 0 when none has any."""
        return max(gan.generator.config.c_dim for gan, _ in self._models.values())

    @contextmanager
    def _drawing(self, model: str) -> Iterator[HFGan]:
        """The model for oneself; what is wrong with a user's request becomes a message to that user."""
        if model not in self._models:
            raise gr.Error("no such model here: choose one of " + ", ".join(self._models), print_exception=False)
        gan, lock = self._models[model]
        try:
            with lock:
                yield gan
        except ValueError as error:
            said = html.escape(str(error)[:MAX_MESSAGE], quote=False)
            raise gr.Error(said, print_exception=False) from None


def _again(gan: HFGan, recipe: Any, name: str) -> SampleOutput:
    """The picture of a recipe that came from outside."""
    if recipe is None:
        raise ValueError(f"{name} is missing: choose a picture for it first")
    if len(check(recipe)["mix"]) > MAX_MIX:
        raise ValueError(f"{name} was mixed {len(recipe['mix'])} times: at most {MAX_MIX} are followed here")
    return gan.replay(recipe)


def _folder() -> Path:
    """A new folder in Gradio's cache, which empties it after a while; nobody else can guess its name."""
    folder = Path(get_upload_folder()) / uuid.uuid4().hex
    folder.mkdir(parents=True)
    return folder


def _write(out: SampleOutput) -> list[Drawn]:
    """PNG files with their recipes."""
    folder = _folder()
    drawn = [(str(folder / file_name(recipe)), recipe, caption(recipe)) for recipe in out.recipes]
    for picture, (path, recipe, _) in zip(out.images, drawn, strict=True):
        images.save_png(picture, path, recipe)
    return drawn
