"""Tab Made by this model?: whether a model redraws a picture as closely as its own samples, by what was calibrated.

A search shows itself while it goes on, and ends early when its own page asks for that; then nothing is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import gradio as gr
import numpy as np
from gradio.components import Component

from hfgan import images
from hfgan.app.card import QUICK, Card
from hfgan.app.cutter import open_photo
from hfgan.app.gpu import on_gpu
from hfgan.app.inverter import enlarge, write_preview
from hfgan.app.searching import Search, Searches, press
from hfgan.app.studio import Studio, new_folder, refusing
from hfgan.app.upload import take, upload
from hfgan.app.waiting import waited_for
from hfgan.attribution import CALIBRATE, FILE, LIMITS, STEPS, Attribution, Calibration, attribute, sentence
from hfgan.captions import plain
from hfgan.models.perceptual import load_perceptual
from hfgan.refinement import Step

SECONDS = 60  # of a GPU
SEARCHING = {"concurrency_id": "attributing", "concurrency_limit": 1}  # takes long, and waits for the model's lock
ABOUT = "Checks a picture against **{model}**, by redrawing it. Its middle square is seen."
UNABLE = f"**{{model}}** cannot check pictures: it has no calibration, {CALIBRATE}."
STOPPED = "Stopped, or it took too long: nothing can be said of a search that was cut short."
NOTHING = "Nothing is checked yet: drop a picture, or try picture A, and press *Check*"
WIDTH, ROW, LEFT = 360, 30, 78  # of the chart, of its two rows, and where they begin [px]

Shown = tuple[Any, Any, str, str]  # files of the picture as the model sees it, and redrawn; a sentence; a chart


class Attributor:
    """The verbs of the tab, on the models and with the locks of a studio."""

    def __init__(self, studio: Studio) -> None:
        self._studio, self.searches = studio, Searches()

    def attribute(self, model: str, photo: str | None) -> tuple[str, str, str, dict[str, Any]]:
        """Check whether a model may have made a picture, by how closely it redraws it with one latent.

        The answer compares with samples of that model and with photos that it has never seen. JPEG, resizing, crops,
        edits and fine-tuned models can break it; it proves nothing about a person or about where a picture comes from.

        Args:
            model: Name of a loaded model, one with a calibration.
            photo: The picture as a file of at most 25 megapixels; its middle square is seen.

        Returns:
            A sentence, the picture as the model sees it and as it redraws it as PNGs, and numbers: the distance of
            the two, how many in a hundred samples and photos are redrawn at least as closely, the likelihood ratio of
            the model over a photo, its 95 % interval, and limits in words.
        """
        found = self._find(model, photo, Search(STEPS, waited_for()))[0]
        if found is None:
            raise gr.Error(STOPPED, print_exception=False)
        folder = new_folder()
        files = [str(folder / f"{name}.png") for name in ("seen", "redrawn")]
        for picture, file in zip((found.seen, found.drawn), files, strict=True):
            images.save_png(picture, file)
        numbers = {name: getattr(found, name) for name in ("distance", "percentile_samples", "percentile_photos",
                                                          "likelihood_ratio", "interval")}  # fmt: skip
        return sentence(found, plain(model)), *files, numbers | {"limits": LIMITS}

    def check(self, token: str | None, model: str, photo: str | None) -> Iterator[Shown]:
        """Check a picture, after previews of what is drawn on the way."""
        found, calibration = yield from self.searches.follow(
            token, STEPS, partial(self._find, model, photo), _progress
        )
        yield (gr.skip(), gr.skip(), STOPPED, "") if found is None else _show(found, calibration, model)

    def _find(
        self, model: str, photo: str | None, keep_going: Callable[[Step], bool]
    ) -> tuple[Attribution | None, Calibration]:  # fmt: skip
        """What a picture is found to be, by the calibration of a model."""
        with refusing():
            if photo is None:
                raise ValueError("no picture: drop one first")
            picture = open_photo(photo)
        with self._studio.drawing(model) as gan:
            calibration = read(self._studio, model)
            net = load_perceptual().to(gan.device)
            found = attribute(gan.generator, gan.encoder, picture, calibration, net=net, keep_going=keep_going)
        return found, calibration


# ---------------------------------------------------------------- calibrations


def able(studio: Studio, model: str) -> bool:
    """Whether a model has a calibration in its folder."""
    folder = studio.folder(model)
    return folder is not None and (folder / FILE).is_file()


def read(studio: Studio, model: str) -> Calibration:
    """The calibration of a model; ValueError without a path where there is none, or a damaged one."""
    if not able(studio, model):
        raise ValueError(f"{model} cannot check pictures: it has no calibration, {CALIBRATE}")
    try:
        return Calibration.read(studio.folder(model) / FILE)
    except ValueError as error:
        raise ValueError(f"the calibration of {model} cannot be read: {CALIBRATE}") from error


# ---------------------------------------------------------------- the tab


def tab(studio: Studio, model: gr.Dropdown, a: Card) -> None:
    """Lay out the tab; its event `attribute` is public."""
    attributor, name = Attributor(studio), str(model.value)
    about = gr.Markdown(_about(studio, name), elem_id="attribute-about", elem_classes="caption")
    photo = upload("Picture", "attribute-photo")
    take(a, photo)
    with gr.Row():
        check = gr.Button("Check", variant="primary", interactive=able(studio, name), elem_id="attribute-check")
        stop = gr.Button("Stop", variant="stop", interactive=False, elem_id="attribute-stop")
    shown = _results()
    gr.Markdown(f"**What it cannot tell.** {LIMITS}", elem_id="attribute-limits", elem_classes="caption")
    press(attributor.searches, check, stop, attributor.check, [model, photo], shown, seconds=SECONDS, busy=shown[2],
          line=SEARCHING)  # fmt: skip
    model.change(lambda name: _offer(studio, name), model, [about, check, *shown], **QUICK)
    _api(attributor, model, photo)


def _results() -> list[Component]:
    """What `Attributor.check` yields."""
    with gr.Row():
        seen, drawn = (
            gr.Image(label=label, type="filepath", interactive=False, buttons=[], alt_text=label, min_width=150,
                     elem_id=elem_id, elem_classes="picture")
            for label, elem_id in (("As seen", "attribute-seen"), ("Redrawn", "attribute-drawn"))
        )  # fmt: skip
    line = gr.Markdown(NOTHING, elem_id="attribute-line")
    return [seen, drawn, line, gr.HTML(elem_id="attribute-chart")]


def _api(attributor: Attributor, model: gr.Dropdown, photo: gr.Image) -> None:
    """What programs call; no button does."""
    files = [gr.File(label=label, visible=False) for label in ("Seen", "Redrawn")]
    outputs = [gr.Textbox(label="Sentence", visible=False), *files, gr.JSON(label="Numbers", visible=False)]
    gr.on([], on_gpu(attributor.attribute, SECONDS), [model, photo], outputs, api_name="attribute", **SEARCHING)


def _about(studio: Studio, model: str) -> str:
    """What a model can do here, or how it would."""
    return (ABOUT if able(studio, model) else UNABLE).format(model=plain(model))


def _offer(studio: Studio, model: str) -> list[Any]:
    """Updates for another model: the notice, Check, and nothing of what was found with the one before."""
    return [_about(studio, model), gr.Button(interactive=able(studio, model)), None, None, NOTHING, ""]


# ---------------------------------------------------------------- what is shown


def _progress(step: Step) -> Shown:
    """What is shown on the way."""
    drawn = write_preview(enlarge(images.to_pil(step.drawn)[0]), new_folder() / "drawn.webp")
    return gr.skip(), drawn, f"Step {step.index} of {step.count}", ""


def _show(found: Attribution, calibration: Calibration, model: str) -> Shown:
    """What is shown at the end."""
    folder = new_folder()
    seen, drawn = (write_preview(enlarge(picture), folder / f"{name}.webp")
                   for name, picture in (("seen", found.seen), ("drawn", found.drawn)))  # fmt: skip
    return seen, drawn, f"**{sentence(found, plain(model))}**", chart(found, calibration)


def chart(found: Attribution, calibration: Calibration) -> str:
    """An SVG of the distances of samples and photos, a stroke each, and of this picture, a line through both."""
    own, photos = calibration.own, np.array(calibration.photos)
    every = np.log(np.maximum([*own, *photos, found.distance], 1e-9))
    low, high = every.min(), max(every.max(), every.min() + 1)
    at = LEFT + (every - low) / (high - low) * (WIDTH - LEFT - 6)
    rows = (("samples", at[: len(own)]), ("photos", at[len(own) : -1]))
    drawn = "".join(_strokes(name, 20 + k * ROW, where) for k, (name, where) in enumerate(rows))
    side = "end" if at[-1] > WIDTH / 2 else "start"
    drawn += (f'<line x1="{at[-1]:.1f}" x2="{at[-1]:.1f}" y1="14" y2="{20 + 2 * ROW}" stroke="currentColor" '
              f'stroke-width="3"/><text x="{at[-1]:.1f}" y="11" text-anchor="{side}">this picture</text>')  # fmt: skip
    told = "How far from each picture its redrawing is; left is close"
    return (f'<figure style="margin: 0; max-width: {WIDTH}px"><svg viewBox="0 0 {WIDTH} {24 + 2 * ROW}" role="img" '
            f'aria-label="{told}" font-size="13" fill="currentColor">{drawn}</svg>'
            f"<figcaption>{told}</figcaption></figure>")  # fmt: skip


def _strokes(name: str, top: float, where: Sequence[float]) -> str:
    """A row of the chart: its name, and a thin stroke for each."""
    lines = "".join(f"M{x:.1f} {top + 4}v{ROW - 8}" for x in where)
    return (f'<text x="0" y="{top + ROW / 2 + 5}">{name}</text>'
            f'<path d="{lines}" stroke="currentColor" stroke-width="1" opacity="0.4"/>')  # fmt: skip
