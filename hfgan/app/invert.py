"""Tab Invert: a photo as the model draws it, faithful in what matters of it; marked, found, refined, and saved."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr
from gradio.components import Component

from hfgan.app import cutout
from hfgan.app.card import AS_A, QUICK, Card
from hfgan.app.cutout import AIMING, FILES_SECONDS, HERE, SAVE, SAVING, Components, Cutting, Offer
from hfgan.app.gpu import on_gpu
from hfgan.app.inverter import LEAST, MAX_STEPS, MOST, NO_ENCODER, PAINTED, PAINTED_SIDE, USUAL, WORDS, Inverter
from hfgan.app.sample import DRAWING
from hfgan.app.searching import press
from hfgan.app.studio import Studio
from hfgan.app.upload import as_file, take, upload

MATTERS = {"everything": "Everything", "auto": "Found for me", "region": "What I paint",
           "obstacle": "All but what I paint", "box": "A box", "cutout": "From Cut out"}  # fmt: skip
ABOUT = "What this model draws that is nearest to your photo, in what matters of it. The middle square is seen."
NONE_YET = "Nothing is inverted yet: drop a photo, or try picture A, and press *Invert*"
SAID = {"picture": "Picture", "pasted": "In the photo", "latent": "Latent"}
BOX = {"left": 0.2, "top": 0.1, "right": 0.8, "bottom": 0.9}  # in the order of `HFGan.invert`
BRUSH = ("rgb(255, 0, 80)", 0.6)  # the photo shows through
REFINING = {"concurrency_id": "refining", "concurrency_limit": 1}  # takes long, and waits for the model's lock
TAKE = r"""(region, source, photo, a, old) => {
  const name = (file) => file?.path.split(/[\\/]/).pop();
  const cut = source === "sample" ? a : photo;
  const same = name(region)?.replace(/-interest\.png$/, "") === name(cut)?.replace(/\.\w+$/, "");
  return [region, same ? cut : old, region ? "cutout" : "everything"];
}"""  # the picture that was cut out comes along, unless it was replaced since


@dataclass(frozen=True)
class Inverting:
    """The components of this tab that others need.

    Attributes:
        photo, matters, sent: Photo, what matters of it, and the region that tab Cut out has sent, unseen.
        cut: The button that sends the photo there.
        edit, keep: The buttons that send what was found to tab Edit, and make it picture A.
        kept: What was found.
    """

    photo: gr.Image
    matters: gr.Radio
    sent: gr.Image
    cut: gr.Button
    edit: gr.Button
    keep: gr.Button
    kept: gr.State


def tab(studio: Studio, model: gr.Dropdown, a: Card) -> Inverting:
    """Lay out the tab; its event `invert` is public."""
    inverter, kept, name = Inverter(studio), gr.State(), str(model.value)
    notice = gr.Markdown(about(studio, name), elem_id="invert-about", elem_classes="caption")
    photo = upload("Photo", "invert-photo")
    take(a, photo)
    matters = gr.Radio(choices(studio, name), value="everything", label="What matters",
                       info="The rest, such as a hand before a face, has no influence", elem_id="matters")  # fmt: skip
    editor, box, columns = _marking()
    sent = as_file(label="sent", image_mode=None, format="png", visible=False)
    invert, count, refine, stop = _buttons(studio.has(name, "encoder"))
    shown = _results()
    _downloads(inverter, kept, shown[0])
    cut, edit, keep = _further(studio, model)
    asked = [photo, matters, editor, *box, sent]
    _lay_under(inverter, photo, matters, editor)
    matters.change(update, matters, columns, **QUICK)
    invert.click(on_gpu(inverter.find), [model, *asked], [kept, *shown], show_progress_on=shown[0], **HERE, **DRAWING)
    press(inverter.searches, refine, stop, inverter.refine, [model, count, *asked], [kept, *shown],
          seconds=FILES_SECONDS, busy=shown[0], line=REFINING)  # fmt: skip
    model.change(lambda name: offer(studio, name), model, [notice, matters, invert, refine, cut], **QUICK)
    _api(inverter, model, photo)
    return Inverting(photo, matters, sent, cut, edit, keep, kept)


def join(inverting: Inverting, cutting: Cutting, a: Card, tabs: gr.Tabs) -> None:
    """Have tab Cut out, whose id among all tabs is "cutout", send its picture and region here, and this its photo."""
    cutting.interest.change(None, [cutting.interest, cutting.source, cutting.photo, a.picture, inverting.photo],
                            [inverting.sent, inverting.photo, inverting.matters], js=TAKE, **HERE)  # fmt: skip
    sent = inverting.cut.click(None, inverting.photo, cutting.photo, js="(photo) => photo", **HERE)
    opened = [tabs, cutting.source, *cutting.parts]
    sent.then(lambda: [gr.Tabs(selected="cutout"), "photo", *cutout.update("photo")], None, opened, **QUICK)


# ---------------------------------------------------------------- what is offered


def choices(studio: Studio, model: str) -> Offer:
    """How one can say to a model what matters."""
    able = {"auto": studio.has(model, "matting"), "cutout": cutout.able(studio, model)}
    return [(name, word) for word, name in MATTERS.items() if able.get(word, True)]


def about(studio: Studio, model: str) -> str:
    """What a model can do here, or how it would."""
    return ABOUT if studio.has(model, "encoder") else f"**{model}** cannot invert photos: {NO_ENCODER}."


def offer(studio: Studio, model: str) -> list[Any]:
    """Updates for another model: the notice, what matters, and the buttons."""
    on = studio.has(model, "encoder")
    buttons = [gr.Button(interactive=on), gr.Button(interactive=on), gr.Button(visible=studio.has(model, "matting"))]
    return [about(studio, model), gr.Radio(choices(studio, model), value="everything"), *buttons]


def update(word: str) -> list[gr.Column]:
    """What one can paint on, and the box, seen where they are of use."""
    return [gr.Column(visible=word in PAINTED), gr.Column(visible=word == "box")]


# ---------------------------------------------------------------- the parts of the tab


def _marking() -> tuple[gr.ImageEditor, Components, list[gr.Column]]:
    """What one paints on, the four numbers of a box, and the columns of both, unseen."""
    with gr.Column(visible=False) as painted:
        editor = _editor()
    with gr.Column(visible=False) as boxed, gr.Row():
        box = [gr.Slider(0, 1, BOX[side], step=0.01, label=side.capitalize(), info="Share of the photo", min_width=220,
                         elem_id=f"box-{side}") for side in BOX]  # fmt: skip
    return editor, box, [painted, boxed]


def _buttons(on: bool) -> tuple[gr.Button, gr.Slider, gr.Button, gr.Button]:
    """Invert, steps of refinement, Refine and Stop."""
    invert = gr.Button("Invert", variant="primary", interactive=on, elem_id="invert-draw")
    with gr.Row():
        count = gr.Slider(LEAST, MOST, USUAL, step=1, label="Steps of refinement", info="Nearer to the photo, slower",
                          min_width=220, elem_id="refine-steps")  # fmt: skip
        with gr.Column(min_width=120):
            refine = gr.Button("Refine", interactive=on, elem_id="refine")
            stop = gr.Button("Stop", variant="stop", interactive=False, elem_id="refine-stop")
    return invert, count, refine, stop


def _editor() -> gr.ImageEditor:
    """What one paints on: its value is the file of the layer that was painted, or None.

    It must not be updated, not even by `gr.skip`, which makes another editor of it.
    """
    editor = gr.ImageEditor(label="Paint", sources=(), transforms=(), layers=False, buttons=[],
                            height=420, canvas_size=(PAINTED_SIDE, PAINTED_SIDE), elem_id="paint",
                            brush=gr.Brush(32, [BRUSH], BRUSH, "fixed"), eraser=gr.Eraser(32))  # fmt: skip
    editor.preprocess = lambda payload: payload.layers[0].path if payload and payload.layers else None
    editor.accept_blobs = None  # no page asks for it, and it would keep in memory whatever anyone sends
    return editor


def _results() -> Components:
    """What `inverter.show` returns."""
    gr.Markdown("The photo, and slid over it what is drawn", elem_classes="caption")
    slider = gr.ImageSlider(show_label=False, type="filepath", interactive=False, buttons=[], max_height=420,
                            elem_id="inverted")  # fmt: skip
    line = gr.Markdown(NONE_YET, elem_id="inverted-line", elem_classes="caption")
    with gr.Row():
        region, pasted = (
            gr.Image(label=label, type="filepath", interactive=False, buttons=[], alt_text=label, min_width=150,
                     elem_id=elem_id, elem_classes=["picture", "whole"])
            for label, elem_id in (("Region", "inverted-region"), ("In the photo", "inverted-pasted"))
        )  # fmt: skip
    strip = gr.Gallery(label="Steps", columns=4, height="auto", allow_preview=False, buttons=[], interactive=False,
                       elem_id="inverted-steps", elem_classes="below")  # fmt: skip
    return [slider, region, pasted, strip, line]


def _downloads(inverter: Inverter, kept: gr.State, busy: Component) -> None:
    """A button for each form; the file is made when it is asked for, and then saved by the browser."""
    gr.Markdown("Download at full size", elem_classes="caption")
    file = gr.File(visible=False)
    with gr.Row():
        for kind, name in SAID.items():
            button = gr.Button(name, size="sm", min_width=90, elem_id=f"inverted-{kind}-save")
            made = button.click(partial(inverter.export, kind), kept, file, show_progress_on=busy, **SAVING)
            made.success(None, file, None, js=SAVE, **HERE)


def _further(studio: Studio, model: gr.Dropdown) -> tuple[gr.Button, gr.Button, gr.Button]:
    """The buttons that send the photo to tab Cut out, and what was found to tab Edit and to picture A."""
    with gr.Row():
        edit = gr.Button("Edit this", size="sm", min_width=100, elem_id="invert-edit")
        keep = gr.Button(AS_A, size="sm", min_width=100, elem_id="invert-as-a")
        cut = gr.Button("Cut out the photo", size="sm", min_width=100, elem_id="invert-cut",
                        visible=studio.has(str(model.value), "matting"))  # fmt: skip
    return cut, edit, keep


# ---------------------------------------------------------------- events


def _lay_under(inverter: Inverter, photo: gr.Image, matters: gr.Radio, editor: gr.ImageEditor) -> None:
    """Put the photo where one paints as soon as one is to paint, and not again: what is painted stays."""
    under = gr.State()

    def aim(photo: str | None, word: str, under: str | None) -> str | None:
        return photo if word in PAINTED else under

    gr.on([photo.change, matters.change], aim, [photo, matters, under], under, trigger_mode="always_last", **AIMING)
    under.change(inverter.paper, under, editor, show_progress="hidden", **SAVING)


def _api(inverter: Inverter, model: gr.Dropdown, photo: gr.Image) -> None:
    """What programs call, which want files at full size and no previews; no button does."""
    inputs = [
        gr.Radio(WORDS, value="everything", label="Interest", visible=False),
        gr.File(label="Region", visible=False),
        gr.JSON(label="Box", visible=False),
        gr.Slider(0, MAX_STEPS, 0, step=1, label="Steps", visible=False),
        gr.Slider(0, MOST, 0, step=1, label="Refine", visible=False),
    ]
    files = [gr.File(label=label, visible=False) for label in ("Picture", "Pasted", "Latent")]
    gr.on([], on_gpu(inverter.invert, FILES_SECONDS), [model, photo, *inputs],
          [*files, gr.JSON(label="Numbers", visible=False)], api_name="invert", **REFINING)  # fmt: skip
