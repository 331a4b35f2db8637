"""What tab Cut out does. A network finds the alpha of a picture once; the rest works on what was kept of that.

The page shows small previews, so that a slider answers at once also for a large photo; files have the full size.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import torch
from PIL.Image import Image, Resampling, fromarray
from torch.nn import functional as F

from hfgan import images, segmentation
from hfgan.app.studio import MAX_PIXELS, Studio, draw_again, new_folder, own_file, refusing
from hfgan.pipeline import HFGan
from hfgan.recipes import Recipe
from hfgan.sampling import choose_seeds
from hfgan.segmentation import Cutout

MAX_FILES, MAX_BATCH_PIXELS = 100, 100_000_000  # photos of a batch, and pixels of all of them
PREVIEW = 512  # px of the longer side
BAR = gr.Progress()
MAX_FEATHER = 20  # px
EXPORTS = segmentation.KINDS | {"rgba": "-cutout", "composite": "-background"}  # and what ends their files' names
BACKGROUNDS = ("transparent", "color", "picture", "blur", "generated")
MISSING = {"picture": "no picture for the background: upload one",
           "generated": "no background is drawn yet: give it a seed"}  # fmt: skip

Shown = tuple[str, str, tuple[str, str]]  # files of the cut-out, of its alpha, and of what is before and after


@dataclass(frozen=True, eq=False)
class Kept:
    """A cut-out as the network left it, between two requests of one page: a small copy, and files.

    Attributes:
        small: At most PREVIEW pixels wide and high.
        before: File of its picture.
        picture, alpha: Files of the picture and of the alpha [fp32] at full size.
        scale: Pixels of the small copy to a pixel at full size.
    """

    small: Cutout
    before: str
    picture: str
    alpha: str
    scale: float

    @classmethod
    def of(cls, cut: Cutout, picture: Path | None) -> Kept:
        """Keep a cut-out; its picture is in that file, or is written into one."""
        folder = new_folder()
        if picture is None:
            picture = folder / f"{cut.name}.png"
            images.save_png(cut.image, picture)
        np.save(folder / "alpha.npy", cut.alpha.numpy())
        small = _shrink(cut)
        before = _write_preview(small.image, folder / "before.webp")
        return cls(small, before, str(picture), str(folder / "alpha.npy"), small.image.width / cut.image.width)

    def full(self) -> Cutout:
        """The cut-out at full size; ValueError where its files were deleted by now."""
        try:
            picture = images.with_channels(images.load_image(self.picture), 3)
            return replace(self.small, image=picture, alpha=torch.from_numpy(np.load(self.alpha)))
        except FileNotFoundError:
            raise ValueError("this cut-out is not here any more: cut it out again") from None


class Cutter:
    """The verbs of tab Cut out, on the models and with the locks of a studio."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    # ---------------------------------------------------------------- what the network does: once a picture

    def cutout(self, model: str, photo: str | None) -> tuple[str, str]:
        """Cut the subject out of a photo, such as those that the model was trained on.

        Args:
            model: Name of a loaded model, one with a matting network.
            photo: The photo as a file of at most 25 megapixels.

        Returns:
            The subject as an RGBA PNG of the photo's size, and its soft alpha as a 16-bit grey PNG.
        """
        return _files(self._cut_photo(model, photo))

    def cutout_sample(self, model: str, recipe: Recipe) -> tuple[str, str]:
        """Draw a synthetic picture again and cut its subject out.

        Args:
            model: Name of the loaded model that drew it, one with an alpha network.
            recipe: Of the picture.

        Returns:
            The subject as an RGBA PNG with the recipe inside, and its soft alpha as a 16-bit grey PNG.
        """
        return _files(self._cut_sample(model, recipe))

    def cutout_batch(
        self,
        model: str,
        photos: Sequence[str] | None,
        kinds: Sequence[str] = ("rgba",),
        threshold: float = 0,
        feather: float = 0,
        largest: bool = False,
        invert: bool = False,
        progress: gr.Progress = BAR,
    ) -> str:
        """Cut the subjects out of several photos.

        Args:
            model: Name of a loaded model, one with a matting network.
            photos: Up to 100 files of at most 25 megapixels, 100 megapixels together.
            kinds: What to make of each: rgba, mask, alpha16 (alpha in 16 bits), trimap, overlay.
            threshold: Alpha from here on is 1, below it 0; 0 keeps it soft.
            feather: Softens the edge by so many pixels, 0 to 20.
            largest: Keep the largest part only.
            invert: Keep the background and drop the subject.
            progress: Where it is told how far this is.

        Returns:
            A ZIP of PNG files, with one folder for each kind where there are several.
        """
        with refusing():
            if not photos or not kinds:
                raise ValueError(f"no {'kinds' if photos else 'photos'}: choose one or more")
            if len(photos) > MAX_FILES:
                raise ValueError(f"these are {len(photos)} photos: at most {MAX_FILES} are cut out at a time")
            cuts, left, start = [], MAX_BATCH_PIXELS, time.monotonic()
            for done, photo in enumerate(photos):
                each = (time.monotonic() - start) / max(done, 1)
                said = f"about {each * (len(photos) - done):.0f} s left" if done else "the first"
                progress((done, len(photos)), desc=said, unit="photos")
                cuts.append(_finish(self._cut_photo(model, photo, left), threshold, feather, largest, invert))
                left -= cuts[-1].image.width * cuts[-1].image.height
            path = new_folder() / "cutouts.zip"
            path.write_bytes(segmentation.zip_bytes(cuts, kinds))
        return str(path)

    def keep_photo(self, model: str, photo: str | None) -> tuple[Kept, list[str]]:
        """Cut the subject out of a photo; what to keep of it, and the files of that."""
        kept = Kept.of(self._cut_photo(model, photo), Path(str(photo)))
        return kept, [kept.before, kept.alpha]

    def keep_sample(self, model: str, recipe: Recipe) -> tuple[Kept, list[str]]:
        """Cut the subject out of a synthetic picture; what to keep of it, and the files of that."""
        kept = Kept.of(self._cut_sample(model, recipe), None)
        return kept, [kept.before, kept.alpha, kept.picture]

    def background(self, wanted: tuple[str, int]) -> Image:
        """What a model draws around the subject of a seed."""
        if not wanted:
            raise gr.Error(MISSING["generated"], print_exception=False)
        model, seed = wanted
        with self._studio.drawing(model) as gan:
            _check_part(gan, "alpha")
            return gan.background(gan.sample(seed=seed, label=0 if gan.generator.config.c_dim else None))[0]

    def _cut_photo(self, model: str, photo: str | None, left: int = MAX_PIXELS) -> Cutout:
        """The cut-out of a photo of so many pixels at most, named as its file."""
        with refusing():
            if photo is None:
                raise ValueError("no photo: drop one first")
            picture = open_photo(photo)
            if picture.width * picture.height > left:
                raise ValueError(f"the photos have over {MAX_BATCH_PIXELS / 1e6:g} megapixels together: give fewer")
        with self._studio.drawing(model) as gan:
            _check_part(gan, "matting")
            return replace(gan.cutout(picture), name=Path(photo).stem)

    def _cut_sample(self, model: str, recipe: Recipe) -> Cutout:
        """The cut-out of a synthetic picture."""
        with self._studio.drawing(model) as gan:
            _check_part(gan, "alpha")
            return gan.cutout(draw_again(gan, recipe, "A"))

    # ---------------------------------------------------------------- what needs no network: any number of times

    @refusing()
    def show(self, kept: Kept | None, *how: Any) -> Shown | dict:
        """Previews of a cut-out; `how` is the four arguments of `_finish` and the four of `_behind`."""
        if kept is None:
            return gr.skip()
        folder, cut = new_folder(), _finish(kept.small, *how[:4], scale=kept.scale)
        behind = _behind(*how[4:])
        shown = cut.rgba() if behind is None else cut.on(behind)
        after, alpha = _write_preview(shown, folder / "cutout.webp"), _write_preview(cut.mask(), folder / "alpha.webp")
        slid = _write_preview(_on_board(shown), folder / "after.webp") if behind is None else after
        return after, alpha, (kept.before, slid)

    def turn(self, kept: Kept | None, *how: Any) -> Shown | dict:
        """Previews on another background; nothing new yet where the generator is about to draw it."""
        return gr.skip() if how[4] == "generated" and how[-1] is None else self.show(kept, *how)

    @refusing()
    def export(self, kind: str, kept: Kept | None, *how: Any) -> str:
        """A file of one of EXPORTS at full size; `how` as in `show`."""
        cut = _finish(_found(kept).full(), *how[:4])
        path = new_folder() / f"{cut.name}{EXPORTS[kind]}.png"
        if kind != "composite":
            cut.save(path, kind)
            return str(path)
        behind = _behind(*how[4:])
        if behind is None:
            raise ValueError(MISSING.get(how[4], "no new background: choose one first"))
        images.save_png(cut.on(behind), path, cut.recipe)
        return str(path)

    @refusing()
    def interest(self, kept: Kept | None, *how: Any) -> tuple[str, str]:
        """The alpha of a cut-out as a file, for whoever inverts its picture, and a line that says so."""
        cut = _finish(_found(kept).full(), *how[:4])
        path, size = new_folder() / f"{cut.name}-interest.png", f"{cut.image.width} × {cut.image.height}"
        cut.save(path, "alpha16")
        return str(path), f"Kept on this page: {size} px, {100 * cut.alpha.mean().item():.0f} % of the picture"


def pick_seed(seed: int | None) -> int:
    """That seed, or a random one where there is none."""
    return choose_seeds(1, seed, None)[0]


def _check_part(gan: HFGan, part: str) -> None:
    """Refuse a model that lacks what it takes."""
    if part not in gan.parts:
        what, net = ("photos", "a matting") if part == "matting" else ("its pictures", "an alpha")
        raise ValueError(f"{gan.name} cannot cut out {what}: choose a model with {net} network")


def open_photo(file: str) -> Image:
    """A picture that was uploaded; ValueError says what is wrong with which."""
    path = own_file(file)
    try:
        images.check_pixels(path, MAX_PIXELS)
        return images.load_image(path)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def _found(kept: Kept | None) -> Kept:
    """What was kept, or a ValueError."""
    if kept is None:
        raise ValueError("nothing is cut out yet: press Cut out first")
    return kept


def _finish(cut: Cutout, threshold: float, feather: float, largest: bool, invert: bool, scale: float = 1) -> Cutout:
    """`Cutout.finish` with the values of the page, where a threshold of 0 is none, on a copy of another scale."""
    return cut.finish(threshold=threshold or None, feather=feather * scale, largest=largest, invert=invert)


def _behind(kind: str, color: str | None, picture: str | None, drawn: Image | None) -> Any:
    """What `Cutout.on` takes for one of BACKGROUNDS; None where it is transparent, or not there yet."""
    if kind == "picture":
        return open_photo(picture) if picture else None
    return {"color": str(color), "blur": "blur", "generated": drawn}.get(kind)


def _files(cut: Cutout) -> tuple[str, str]:
    """RGBA and 16-bit alpha of a cut-out as files."""
    folder = new_folder()
    paths = {kind: folder / f"{cut.name}{EXPORTS[kind]}.png" for kind in ("rgba", "alpha16")}
    for kind, path in paths.items():
        cut.save(path, kind)
    return str(paths["rgba"]), str(paths["alpha16"])


def _shrink(cut: Cutout) -> Cutout:
    """A copy of at most PREVIEW pixels."""
    scale = min(1, PREVIEW / max(cut.image.size))
    if scale == 1:
        return cut
    width, height = (max(1, round(side * scale)) for side in cut.image.size)
    alpha = F.interpolate(cut.alpha[None, None], (height, width), mode="bilinear", antialias=True).clamp(0, 1)
    return replace(cut, image=cut.image.resize((width, height), Resampling.LANCZOS), alpha=alpha[0, 0])


def _on_board(picture: Image) -> Image:
    """An RGBA picture on a checkerboard."""
    square = max(1, max(picture.size) // 32)
    rows, columns = np.indices(picture.size[::-1]) // square
    board = fromarray(np.where((rows + columns) % 2, 0x99, 0xDD).astype(np.uint8)).convert("RGBA")
    board.alpha_composite(picture)
    return board.convert("RGB")


def _write_preview(picture: Image, path: Path) -> str:
    """Write a WebP that is small, and exact where the picture is."""
    picture.save(path, "WEBP", lossless=max(picture.size) <= PREVIEW // 2, quality=90, method=0)
    return str(path)
