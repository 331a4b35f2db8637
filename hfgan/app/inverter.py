"""What tab Invert does: a photo, and what of it matters, to the latent that draws it; seen, refined, and saved.

A refinement shows itself while it goes on, and ends early when its own page asks for that; the best so far is kept.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from PIL.Image import Image, Resampling
from PIL.ImageOps import invert

from hfgan import images
from hfgan.alignment import find_alignment
from hfgan.app.cutter import open_photo
from hfgan.app.searching import Search, Searches
from hfgan.app.studio import Studio, new_folder, refusing
from hfgan.app.waiting import waited_for
from hfgan.inversion import AUTO, Interest, Inversion
from hfgan.pipeline import HFGan
from hfgan.refinement import Step

WORDS = ("everything", "auto", "region", "obstacle", "box")  # what matters, as programs say it
PAINTED = ("region", "obstacle")  # those that are
MAX_STEPS = 10  # of the encoder
LEAST, USUAL, MOST = 10, 50, 200  # steps of refinement
SMALL = 1024  # px of the longer side of the photo's copy that the page shows
CRISP = 256  # px up to which what is drawn is enlarged, pixel by pixel
PAINTED_SIDE = 512  # px of the longer side of what is painted on
OPAQUE = 77  # of 255: half of what the brush lays on
EXPORTS = {"picture": "-inverted.png", "pasted": "-pasted.png", "latent": ".safetensors"}  # ends of files' names
MARKED = {"region": "what was painted", "obstacle": "all but what was painted", "cutout": "what was cut out"}
WHERE = {"all": "the whole photo", "box": "the box", "transparency": "what is not transparent",
         AUTO: "the subject that was found, without what stands before it"}  # fmt: skip
NO_ENCODER = "it has no encoder, which `accelerate launch training/train.py encoder` trains"

Sides = tuple[str, str]  # files of what is before and after
Shown = tuple[Sides, str, str, list[tuple[str, str]], str]


@dataclass(frozen=True)
class Asked:
    """What is to be inverted.

    Attributes:
        file, photo: The photo.
        word: One of WORDS, or "cutout" for the region that tab Cut out has sent.
        interest: What `HFGan.invert` takes for that.
    """

    file: str
    photo: Image
    word: str
    interest: Interest


@dataclass(frozen=True, eq=False)
class Kept:
    """An inversion between two requests of one page.

    Attributes:
        found: With a small copy of the photo, and its alignment on that.
        photo: File of the whole one.
        word: Of `Asked`.
        seconds: That it took.
        taken, count: Steps of refinement, of how many.
    """

    found: Inversion
    photo: str
    word: str
    seconds: float
    taken: int
    count: int

    def full(self) -> Inversion:
        """With the whole photo; ValueError where that was deleted by now."""
        try:
            photo = images.load_image(self.photo)
        except FileNotFoundError:
            raise ValueError("this photo is not here any more: upload it again") from None
        return replace(self.found, photo=photo, alignment=find_alignment(photo.size, "center"))

    def numbers(self) -> dict[str, Any]:
        """What programs get to know of it."""
        found = self.found
        return {"interest": found.interest_source, "distance_inside": found.distance_inside,
                "distance_outside": found.distance_outside, "mode": found.mode, "seconds": round(self.seconds, 3),
                "encoder_steps": len(found.steps), "refined": self.taken, "weights": found.fingerprint}  # fmt: skip


class Inverter:
    """The verbs of tab Invert, on the models and with the locks of a studio."""

    def __init__(self, studio: Studio) -> None:
        self._studio, self.searches = studio, Searches()

    # ---------------------------------------------------------------- invert

    def invert(
        self,
        model: str,
        photo: str | None,
        interest: str = "everything",
        region: str | None = None,
        box: Sequence[float] | None = None,
        steps: int = 0,
        refine: int = 0,
    ) -> tuple[str, str, str, dict[str, Any]]:
        """Find the latent with which a model draws a photo, faithful within what matters of it.

        What does not matter, such as a hand before a face, has no influence on the latent.

        Args:
            model: Name of a loaded model, one with an encoder.
            photo: The photo as a file of at most 25 megapixels; its middle square is seen.
            interest: What matters: everything, auto (the subject that is found), region (the lighter half of the
                region's file), obstacle (the darker half of it), or box.
            region: A picture as large as the photo, or of its proportions; for region and obstacle.
            box: Four numbers x0, y0, x1, y1 in pixels or in shares of the photo; for box.
            steps: Of the encoder, 1 to 10; 0 are as many as it is made for.
            refine: Further steps of descent toward the photo, 0 to 200; 50 are a good number. They end after 50
                seconds with the best so far.

        Returns:
            What the model draws as a PNG, the photo with that pasted over what matters as a PNG, the latent as
            .safetensors, and numbers: where the interest came from, the distance of photo and drawing inside and
            outside of it (of colours in 0 to 1), the nearest mode, seconds, and steps.
        """
        with refusing():
            picture = _photo(photo)
            marked = _region(region) if interest in PAINTED else None
            asked = Asked(str(photo), picture, interest, interest_of(interest, marked, box))
        kept = self._find(model, asked, steps, Search(refine, waited_for()))
        with refusing():
            folder, whole = new_folder(), kept.full()
            return *(_write(kind, whole, folder) for kind in EXPORTS), kept.numbers()

    def find(self, model: str, *asked: Any) -> tuple[Kept, *Shown]:
        """Invert a photo; what to keep of it, and what to show of it."""
        kept = self._find(model, _understand(*asked), 0, Search(0))
        return kept, *show(kept)

    def _find(self, model: str, asked: Asked, steps: int, search: Search) -> Kept:
        """The inversion of a photo, refined as long as a search wants it."""
        with self._studio.drawing(model) as gan:
            _check_parts(gan, asked.interest)
            start = time.monotonic()
            found = gan.invert(
                asked.photo, asked.interest, steps=steps or None, refine=search.count, keep_going=search
            )
            seconds = time.monotonic() - start
        small = _shrink(asked.photo)
        found = replace(found, photo=small, alignment=find_alignment(small.size, "center"), name=Path(asked.file).stem)
        return Kept(found, asked.file, asked.word, seconds, search.taken, search.count)

    # ---------------------------------------------------------------- refine

    def refine(self, token: str | None, model: str, count: int, *asked: Any) -> Iterator[tuple[Any, ...]]:
        """Invert a photo and go on with descent; as `find`, after previews of what is drawn on the way."""
        try:
            wanted = _understand(*asked)
            before = write_preview(_before(_shrink(wanted.photo)), new_folder() / "before.webp")
        except Exception:
            self.searches.stop(token)
            raise
        kept = yield from self.searches.follow(
            token, count, partial(self._find, model, wanted, 0), partial(_progress, before)
        )
        yield kept, *show(kept)

    # ---------------------------------------------------------------- what needs no network

    @refusing()
    def export(self, kind: str, kept: Kept | None) -> str:
        """A file of one of EXPORTS at full size."""
        kept = _found(kept)
        return _write(kind, kept.full() if kind == "pasted" else kept.found, new_folder())

    @refusing()
    def paper(self, photo: str | None) -> dict[str, Any] | None:
        """The photo, upright and of a size that one can paint on, for the editor."""
        if photo is None:
            return None
        picture = images.with_channels(_photo(photo), 3)
        scale = PAINTED_SIDE / max(picture.size)
        size = tuple(max(1, round(side * scale)) for side in picture.size)
        file = write_preview(picture.resize(size, Resampling.LANCZOS, reducing_gap=2), new_folder() / "photo.webp")
        return {"background": file, "layers": [], "composite": None}


# ---------------------------------------------------------------- what is asked


def interest_of(word: str, region: Image | None, box: Any) -> Interest:
    """What `HFGan.invert` takes for a word, and for the region in mode L or the box that goes with it."""
    if word not in WORDS:
        raise ValueError(f"interest is {word!r}: expected {', '.join(WORDS[:-1])} or {WORDS[-1]}")
    if word == "everything":
        return None
    if word == "auto":
        return AUTO
    if word == "box":
        if not isinstance(box, list | tuple) or len(box) != 4:
            raise ValueError("no box: give four numbers x0, y0, x1, y1")
        return tuple(box)
    if region is None:
        raise ValueError("no region: give a picture of it")
    return region if word == "region" else invert(region)


@refusing()
def _understand(
    photo: str | None, word: str, painted: str | None, x0: float, y0: float, x1: float, y1: float, sent: str | None
) -> Asked:
    """What a page asks for: its photo and what of it matters, what is painted, a box, and what Cut out has sent."""
    picture, region, kind = _photo(photo), None, word
    if word in PAINTED:
        region = _strokes(painted)
    if word == "cutout":
        if sent is None:
            raise ValueError("nothing came from tab Cut out yet: press Use as interest region there")
        region, kind = _region(sent), "region"
    return Asked(str(photo), picture, word, interest_of(kind, region, [x0, y0, x1, y1]))


def _photo(photo: str | None) -> Image:
    """A photo that was uploaded."""
    if photo is None:
        raise ValueError("no photo: drop one first")
    return open_photo(photo)


def _region(file: str | None) -> Image:
    """A region as mode L: its alpha, or else how light it is."""
    if file is None:
        raise ValueError("no region: give a picture of it")
    picture = open_photo(file)
    return picture.getchannel("A") if picture.mode == "RGBA" else picture.convert("L")


def _strokes(file: str | None) -> Image:
    """What was painted, 255 in mode L, from the layer of an editor."""
    layer = None if file is None else open_photo(file)
    strokes = layer and layer.mode == "RGBA" and layer.getchannel("A").point(lambda alpha: 255 * (alpha >= OPAQUE))
    if not strokes or not strokes.getbbox():
        raise ValueError("nothing is painted yet: paint on the photo first")
    return strokes


def _check_parts(gan: HFGan, interest: Interest) -> None:
    """Refuse a model that lacks what it takes."""
    if "encoder" not in gan.parts:
        raise ValueError(f"{gan.name} cannot invert photos: {NO_ENCODER}")
    if isinstance(interest, str) and "matting" not in gan.parts:
        raise ValueError(f"{gan.name} cannot find what matters, it has no matting network: mark it yourself")


def _found(kept: Kept | None) -> Kept:
    """What was kept, or a ValueError."""
    if kept is None:
        raise ValueError("nothing is inverted yet: press Invert first")
    return kept


# ---------------------------------------------------------------- what is shown


def show(kept: Kept) -> Shown:
    """Both sides of a slider, the region, the photo with the drawing in it, the steps, and a line."""
    found, folder = kept.found, new_folder()
    last = [("refined", found.image)] if kept.taken else []
    steps = [*((f"step {k}", step) for k, step in enumerate(found.steps, 1)), *last]
    strip = [(write_preview(enlarge(step), folder / f"{name.replace(' ', '')}.webp"), name) for name, step in steps]
    before = write_preview(_before(found.photo), folder / "before.webp")
    after = write_preview(enlarge(found.image), folder / "after.webp")
    region = write_preview(found.region(), folder / "region.webp")
    pasted = write_preview(found.unalign(), folder / "pasted.webp")
    return (before, after), region, pasted, strip, tell(kept)


def tell(kept: Kept) -> str:
    """How an inversion went, in a line of Markdown."""
    found = kept.found
    sides = (("inside", found.distance_inside), ("outside", found.distance_outside))
    distances = ", ".join(f"{side} {value:.3f}" for side, value in sides if value is not None)
    parts = [f"**What mattered:** {where(found.interest_source, kept.word)}", f"distance {distances}"]
    parts += [] if found.mode is None else [f"nearest mode {found.mode}"]
    parts += [f"{kept.taken} of {kept.count} steps"] if kept.count else []
    return " · ".join([*parts, f"{kept.seconds:.2f} s"])


def where(source: str, word: str) -> str:
    """`Inversion.interest_source` in plain words, for what was asked for."""
    kind, _, why = source.partition(": ")
    if not why:
        return MARKED[word] if kind == "marked" else WHERE[kind]
    return f"the whole photo, as {why}" if kind == "all" else f"the subject that was found ({why})"


def enlarge(picture: Image) -> Image:
    """What is drawn, RGB, CRISP pixels or more, in whole steps so that a small one stays crisp."""
    side = picture.width * max(1, CRISP // picture.width)
    return images.with_channels(picture, 3).resize((side, side), Resampling.NEAREST)


def write_preview(picture: Image, path: Path) -> str:
    """Write a WebP that is small, and exact where the picture is."""
    picture.save(path, "WEBP", lossless=max(picture.size) <= CRISP, quality=90, method=0)
    return str(path)


def _progress(before: str, step: Step) -> tuple[Any, ...]:
    """What `refine` shows on the way."""
    drawn = enlarge(images.to_pil(step.drawn)[0])
    line = f"Step {step.index} of {step.count} · error {step.error.item():.3f} · *Stop* keeps the best so far"
    sides = before, write_preview(drawn, new_folder() / "after.webp")
    return gr.skip(), sides, gr.skip(), gr.skip(), gr.skip(), line


def _before(photo: Image) -> Image:
    """The square of a photo that a model sees."""
    side = max(CRISP, min(photo.size))
    return find_alignment(photo.size, "center").crop(images.with_channels(photo, 3), side)


def _shrink(photo: Image) -> Image:
    """A copy of at most SMALL pixels."""
    small = photo.copy()
    small.thumbnail((SMALL, SMALL), Resampling.LANCZOS)
    return small


def _write(kind: str, found: Inversion, folder: Path) -> str:
    """Write one of EXPORTS."""
    path = folder / f"{found.name}{EXPORTS[kind]}"
    if kind == "latent":
        found.save(path)
    else:
        images.save_png(found.image if kind == "picture" else found.unalign(), path)
    return str(path)
