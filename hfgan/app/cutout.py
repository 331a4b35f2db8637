"""Tab Cut out: the subject of picture A or of photos, finished, on another background, and saved in many forms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr
from gradio.events import Dependency

from hfgan.app.card import CUT_OUT, QUICK, Card
from hfgan.app.cutter import BACKGROUNDS, EXPORTS, MAX_FEATHER, Cutter, pick_seed
from hfgan.app.gpu import on_gpu
from hfgan.app.sample import DICE, DRAWING
from hfgan.app.studio import Studio
from hfgan.app.upload import take, upload
from hfgan.sampling import MAX_SEED
from hfgan.segmentation import KINDS

SOURCES = {"sample": ("Picture A", "alpha"), "photo": ("A photo", "matting"), "photos": ("Several photos", "matting")}
SAID = dict(zip(EXPORTS, ("Cut-out", "Mask", "16-bit alpha", "Trimap", "Overlay", "New background"), strict=True))
BEHIND = dict(zip(BACKGROUNDS, ("Transparent", "Colour", "Picture", "Blur", "Generated"), strict=True))
FILES_SECONDS = 60  # of a GPU, as files at full size are written on the way
HERE = {"api_visibility": "private"}
SAVING = HERE | {"concurrency_id": "saving", "concurrency_limit": 1}  # waits for other files, but for no network
PACKING = {"concurrency_id": "packing", "concurrency_limit": 1}  # takes long, and waits only for the model's lock
AIMING = HERE | {"concurrency_limit": None, "show_progress": "hidden"}  # a state changes only by a queued event
LIVE = QUICK | {"trigger_mode": "always_last"}  # as a slider moves: one request at a time, and the last one
SAVE = """(file) => {
  const link = document.createElement("a");
  [link.href, link.download] = [file.url, file.orig_name];
  link.click();
  return [];
}"""

Components = list[gr.components.Component]
Offer = list[tuple[str, str]]  # names and values


@dataclass(frozen=True)
class Cutting:
    """The components of this tab that others need.

    Attributes:
        source, parts: What is cut out, and the parts of the tab that are seen for it, as `update` has them.
        photo: Where a photo is dropped.
        interest: The alpha that was chosen as region of interest, unseen.
    """

    source: gr.Radio
    parts: list[gr.Column]
    photo: gr.Image
    interest: gr.Image


def tab(studio: Studio, model: gr.Dropdown, a: Card) -> Cutting:
    """Lay out the tab; its events `cutout`, `cutout_sample` and `cutout_batch` are public."""
    cutter, kept = Cutter(studio), gr.State()
    offered = sources(studio, str(model.value))
    source = gr.Radio(offered, value=offered[0][1] if offered else None, label="Cut out", elem_id="source")
    seen = arrange(source.value)
    with gr.Column(visible=seen[0]) as of_sample:
        cut_sample = gr.Button("Cut out A", variant="primary", elem_id="cut-sample")
    with gr.Column(visible=seen[1]) as of_photo:
        photo = upload("Photo", "photo")
        take(a, photo)
        cut_photo = gr.Button("Cut out", variant="primary", elem_id="cut-photo")
    with gr.Column(visible=seen[2]) as of_photos:
        photos = gr.File(label="Photos", file_count="multiple", file_types=["image"], height=180, elem_id="photos")
    with gr.Column(visible=seen[3]) as of_one:
        shown = _pictures()
    finish = _finish()
    with gr.Column(visible=seen[4]) as of_several:
        _batch(cutter, model, photos, finish)
    with gr.Column(visible=seen[5]) as further:
        behind, redrawn = _background(cutter, studio, model)
        how = [kept, *finish, *behind]
        _downloads(cutter, how, shown[0])
        interest = _interest(cutter, how)
    parts = [of_sample, of_photo, of_photos, of_one, of_several, further]
    source.input(update, source, parts, **QUICK)
    model.change(lambda name: offer(studio, name), model, [source, *parts], **QUICK)
    of_a = [cut_sample.click, a.buttons[CUT_OUT].click]
    drawn = [_cut(of_a, cutter.keep_sample, [model, a.recipe], kept, shown[0]),
             _cut([cut_photo.click], cutter.keep_photo, [model, photo], kept, shown[0]), redrawn]  # fmt: skip
    for event in drawn:
        event.success(cutter.show, how, shown, **QUICK)
    kind, color, picture, _ = behind
    gr.on([*(part.input for part in finish), color.input, picture.change], cutter.show, how, shown, **LIVE)
    kind.input(cutter.turn, how, shown, **LIVE)
    _api(cutter, model, a, photo)
    return Cutting(source, parts, photo, interest)


def join(cutting: Cutting, studio: Studio, model: gr.Dropdown, a: Card, tabs: gr.Tabs) -> None:
    """Have picture A come here, where a model can cut it out; the id of this tab is "cutout"."""
    button, opened = a.buttons[CUT_OUT], [tabs, cutting.source, *cutting.parts]
    button.visible = studio.has(str(model.value), "alpha")
    button.click(lambda: [gr.Tabs(selected="cutout"), "sample", *update("sample")], None, opened, **QUICK)
    model.change(lambda name: gr.Button(visible=studio.has(name, "alpha")), model, button, **QUICK)


# ---------------------------------------------------------------- what is offered


def able(studio: Studio, model: str) -> bool:
    """Whether a model can cut out anything."""
    return bool(sources(studio, model))


def sources(studio: Studio, model: str) -> Offer:
    """What a model can cut out; nothing where it has neither alpha nor matting."""
    return [(name, value) for value, (name, part) in SOURCES.items() if studio.has(model, part)]


def backgrounds(studio: Studio, model: str) -> Offer:
    """What a model can put behind a subject."""
    kinds = BACKGROUNDS if studio.has(model, "alpha") else BACKGROUNDS[:-1]
    return [(BEHIND[kind], kind) for kind in kinds]


def arrange(source: str | None) -> list[bool]:
    """Which parts of the tab are seen, in the order in which `tab` has them."""
    several = source == "photos"
    return [source == "sample", source == "photo", several, not several, several, not several]


def update(source: str | None) -> list[gr.Column]:
    """The parts as updates."""
    return [gr.Column(visible=seen) for seen in arrange(source)]


def offer(studio: Studio, model: str) -> list[Any]:
    """Updates of the source and of the parts for another model."""
    offered = sources(studio, model)
    value = offered[0][1] if offered else None
    return [gr.Radio(offered, value=value), *update(value)]


def open_for(background: str) -> tuple[Any, ...]:
    """Updates of the colour, the picture and the seed: seen is what this kind of background needs."""
    on = [background == kind for kind in ("color", "picture", "generated")]
    return gr.ColorPicker(visible=on[0]), gr.Column(visible=on[1]), gr.Row(visible=on[2])


# ---------------------------------------------------------------- the parts of the tab


def _pictures() -> Components:
    """What `Cutter.show` returns: the cut-out, its alpha, and both sides of a slider."""
    with gr.Row():
        pictures = [
            gr.Image(label=label, type="filepath", interactive=False, buttons=[], alt_text=label, min_width=150,
                     elem_id=elem_id, elem_classes=["picture", "whole", *classes])
            for label, elem_id, *classes in (("Cut-out", "cut", "checker"), ("Alpha", "cut-alpha"))
        ]  # fmt: skip
    with gr.Accordion("Before and after", open=False):
        slider = gr.ImageSlider(show_label=False, type="filepath", interactive=False, buttons=[],
                                max_height=640, elem_id="cut-slider")  # fmt: skip
    return [*pictures, slider]


def _finish() -> Components:
    """What changes alpha, in the order of `Cutter.cutout_batch`'s arguments."""
    with gr.Row():
        threshold = gr.Slider(0, 0.99, 0, step=0.01, label="Threshold", info="0 keeps the edge soft",
                              min_width=220, elem_id="threshold")  # fmt: skip
        feather = gr.Slider(0, MAX_FEATHER, 0, step=0.5, label="Feather", info="Softens the edge, in pixels",
                            min_width=220, elem_id="feather")  # fmt: skip
    with gr.Row():
        largest = gr.Checkbox(False, label="Largest part only", min_width=150, elem_id="largest")
        invert = gr.Checkbox(False, label="Invert", min_width=150, elem_id="invert")
    return [threshold, feather, largest, invert]


def _batch(cutter: Cutter, model: gr.Dropdown, photos: gr.File, finish: Components) -> None:
    """Several photos to a ZIP."""
    kinds = gr.CheckboxGroup([(SAID[kind], kind) for kind in KINDS], value=["rgba"], label="Files of each photo",
                             elem_id="kinds")  # fmt: skip
    with gr.Row():
        cut = gr.Button("Cut out all", variant="primary", elem_id="cut-photos")
        stop = gr.Button("Stop", variant="stop", elem_id="cut-stop")
    packed = gr.File(label="ZIP", interactive=False, height=110, elem_id="zip")
    cutting = cut.click(on_gpu(cutter.cutout_batch, FILES_SECONDS), [model, photos, kinds, *finish], packed,
                        api_name="cutout_batch", **PACKING)  # fmt: skip
    stop.click(None, None, None, cancels=cutting, **HERE)


def _background(cutter: Cutter, studio: Studio, model: gr.Dropdown) -> tuple[Components, Dependency]:
    """What may be behind, the last arguments of `Cutter.show`, and the event that the generator drew one."""
    offered = backgrounds(studio, str(model.value))
    kind = gr.Radio(offered, value="transparent", label="Background", elem_id="background")
    color = gr.ColorPicker("#2a9d8f", label="Colour", visible=False, elem_id="background-color")
    with gr.Column(visible=False) as framed:
        picture = upload("Picture behind", "background-picture")
    with gr.Row(visible=False) as generated:
        seed = gr.Number(0, label="Seed", info="What is drawn around its subject. Empty is a random one", precision=0,
                         minimum=0, maximum=MAX_SEED, min_width=150, elem_id="background-seed")  # fmt: skip
        with gr.Column(min_width=150):
            draw = gr.Button("Draw", elem_id="background-draw")
            dice = gr.Button("Random", elem_id="background-dice")
    wanted, drawn = gr.State(), gr.State()  # model and seed, and the picture of those

    def aim(kind: str, model: str, seed: int | None) -> tuple[Any, Any]:
        if kind != "generated":
            return gr.skip(), gr.skip()
        seed = pick_seed(seed)
        return seed, (model, seed)

    def begin(model: str) -> tuple[Any, ...]:
        return gr.Radio(backgrounds(studio, model), value="transparent"), *open_for("transparent")

    inputs, opened, aimed = [kind, model, seed], [color, framed, generated], [seed, wanted]
    kind.input(open_for, kind, opened, **QUICK)
    gr.on([kind.input, draw.click, seed.submit], aim, inputs, aimed, **AIMING)
    dice.click(None, None, seed, js=DICE, **HERE).then(aim, inputs, aimed, **AIMING)
    model.change(begin, model, [kind, *opened], **QUICK)
    redrawn = wanted.change(on_gpu(cutter.background), wanted, drawn, **HERE, **DRAWING)
    return [kind, color, picture, drawn], redrawn


def _downloads(cutter: Cutter, how: Components, busy: gr.Image) -> None:
    """A button for each form; the file is made when it is asked for, and then saved by the browser."""
    gr.Markdown("Download at full size", elem_classes="caption")
    file = gr.File(visible=False)
    with gr.Row(elem_id="exports"):
        for kind, name in SAID.items():
            button = gr.Button(name, size="sm", min_width=100, elem_id=f"export-{kind}")
            made = button.click(partial(cutter.export, kind), how, file, show_progress_on=busy, **SAVING)
            made.success(None, file, None, js=SAVE, **HERE)


def _interest(cutter: Cutter, how: Components) -> gr.Image:
    """The button that keeps alpha as the region of interest; returns, unseen, where it is kept."""
    button = gr.Button("Use as interest region", size="sm", elem_id="interest-use")
    told = gr.Markdown("Keeps this alpha as the part of the picture that matters most", elem_id="interest-caption",
                       elem_classes="caption")  # fmt: skip
    interest = gr.Image(label="interest", type="filepath", image_mode=None, format="png", visible=False,
                        elem_id="interest")  # fmt: skip
    button.click(cutter.interest, how, [interest, told], show_progress_on=told, **SAVING)
    return interest


# ---------------------------------------------------------------- events


def _cut(events: list[Any], verb: Callable, inputs: Components, kept: gr.State, busy: gr.Image) -> Dependency:
    """The event that a network cut something out and `kept` is new."""
    files = gr.File(file_count="multiple", visible=False)  # has Gradio delete them after a while
    return gr.on(events, on_gpu(verb), inputs, [kept, files], show_progress_on=busy, **HERE, **DRAWING)


def _api(cutter: Cutter, model: gr.Dropdown, a: Card, photo: gr.Image) -> None:
    """What programs call, which want files at full size and no previews; no button does."""
    files = [gr.File(label=label, visible=False) for label in ("RGBA", "Alpha")]
    for verb, of in ((cutter.cutout, photo), (cutter.cutout_sample, a.recipe)):
        gr.on([], on_gpu(verb, FILES_SECONDS), [model, of], files, api_name=verb.__name__, **PACKING)
