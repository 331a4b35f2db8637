"""Tab Edit: a picture moved along directions, within a region; mixed, undone, filmed and saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from hfgan.app import find, mix
from hfgan.app.card import AS_A, AS_B, COPY, EDIT, QUICK, Card
from hfgan.app.cutout import FILES_SECONDS, HERE, SAVE, SAVING, Components, Offer
from hfgan.app.editor import FEWEST, MOST, USUAL, Editor, tell
from hfgan.app.finder import PSI, Finder
from hfgan.app.gpu import SECONDS, on_gpu
from hfgan.app.invert import Inverting
from hfgan.app.sample import DRAWING, MAX_PSI
from hfgan.app.studio import Studio
from hfgan.app.work import REACH, REGIONS, SEEN, SLIDERS, Work, describe, known, regions, slots
from hfgan.models.directions import Direction
from hfgan.sampling import MAX_SEED

ABOUT = """A slider moves one thing that this model varies, in σ: standard deviations among all its pictures. 0 leaves
the picture as it is, ±1 is an everyday difference, ±3 a rare one."""
NONE_YET = """**{model}** has no directions yet. *Find a direction by clicks* makes one from pictures that you mark,
*Browse what the model varies* shows those that nobody has named; each gets a slider here."""
SAID = {"picture": "Picture", "pasted": "In the photo", "strip": "Strip", "video": "Video", "recipe": "Recipe"}
OTHERS = [("A seed", "seed"), ("Picture B", "b")]
WAYS = [("Along a direction", "direction"), ("To a seed", "seed"), ("To picture B", "b")]
TOP = """async () => {
  const seen = () => document.getElementById("editing")?.offsetParent;
  for (let k = 0; k < 100 && !seen(); k++) await new Promise((resolve) => setTimeout(resolve, 50));
  document.getElementById("editing")?.scrollIntoView();
  return [];
}"""  # once the tab is laid out; the button that opened it may have been far below
DRAWN = HERE | DRAWING
LIVE = {"trigger_mode": "always_last", "show_progress": "hidden"}  # one request at a time, and the last one


@dataclass(frozen=True)
class Edits:
    """Makes events of verbs that return a `Work`, and shows that.

    Attributes:
        studio: With the models.
        have: What verbs are given first: what is at hand, and the model.
        shown: What `show` updates.
    """

    studio: Studio
    have: Components
    shown: Components

    def on(self, events: Any, verb: Callable, inputs: Components = (), further: Components = (),
           quiet: bool = False, **how: Any) -> Dependency:  # fmt: skip
        """Have events do a verb, which also returns values for `further`; `quiet` is as in `show`."""

        @wraps(verb)
        def do(*given: Any) -> list[Any]:
            made = verb(*given)
            work, *rest = made if further else (made,)
            return [*show(self.studio, work, quiet), *rest]

        seconds = FILES_SECONDS if further else SECONDS
        return gr.on(events, on_gpu(do, seconds), [*self.have, *inputs], [*self.shown, *further],
                     api_name=f"edit_{verb.__name__}",  # no public verb's name, which would become mix_1
                     **{"show_progress_on": self.shown[2]} | DRAWN | how)  # fmt: skip


def tab(studio: Studio, model: gr.Dropdown, a: Card, b: Card) -> Edits:
    """Lay out the tab; its events `edit` and `find_direction` are public."""
    editor, finder, work, none = Editor(studio), Finder(studio), gr.State(), Work(str(model.value))
    notice = gr.Markdown(about(studio, none.model), elem_id="edit-about", elem_classes="caption")
    takes, seed = _sources()
    with gr.Column():  # beside which the pictures stay in sight on a phone
        pictures = _pictures(none)
        with gr.Row(elem_id="edit-sliders"):
            sliders = [_slider(k, one) for k, one in enumerate(_offered(studio, none))]
        hidden = gr.Markdown(**_hidden(studio, none), elem_id="edit-hidden", elem_classes="caption")
        region = gr.Radio(_regions(studio, none), value="whole", label="Where",
                          info="The rest of the picture stays as it is", elem_id="edit-region")  # fmt: skip
        reset, *steps = _steps()
        keeps = _keeps()
    pasted = gr.Image(label="In the photo", type="filepath", interactive=False, buttons=[], alt_text="In the photo",
                      visible=False, elem_id="edit-pasted", elem_classes=["picture", "whole"])  # fmt: skip
    with gr.Accordion("Slide after over before", open=False):
        slider = gr.ImageSlider(show_label=False, type="filepath", interactive=False, buttons=[], max_height=420,
                                elem_id="edit-slider")  # fmt: skip
    with gr.Accordion("Find a direction by clicks", open=False, elem_id="find"):
        fit, marked, fitted = find.by_clicks(finder, model)
    with gr.Accordion("Browse what the model varies", open=False, elem_id="browse"):
        keep, browsed, kept = find.by_number(finder, studio, work, model, a)
    with gr.Accordion("Mix with another picture", open=False, elem_id="edit-mixing"):
        mixed, mixing = _mixing(studio, model)
    with gr.Accordion("Strip and video", open=False, elem_id="film"):
        draw, ways, film = _film(studio, none)
    _downloads(editor, work, pictures[1])
    edits = Edits(studio, [work, model], [work, *pictures, pasted, slider, *steps, *sliders, hidden, region, ways[1]])
    for button, verb, given in zip(takes, (editor.take, editor.take_seed), (a.recipe, seed), strict=True):
        edits.on(button.click, verb, [given])
    for button, target in zip(keeps, (a, b), strict=True):
        button.click(editor.keep, work, target.values, show_progress_on=target.picture, **SAVING)
    moves = [move for slider in sliders for move in (slider.input, slider.release)]
    edits.on(moves, editor.turn, [a.recipe, *sliders], quiet=True, **LIVE)
    edits.on(region.input, editor.limit, [a.recipe, region])
    edits.on(mixed.click, editor.mix, [a.recipe, b.recipe, *mixing])
    edits.on(draw.click, editor.film, [a.recipe, b.recipe, *ways], film, show_progress_on=film[1])
    edits.on(fit.click, finder.fit, marked, [fitted], show_progress_on=fitted)
    edits.on(keep.click, finder.keep, browsed, [kept], show_progress_on=kept)
    _back(edits, editor, reset, *steps)
    model.change(partial(_begin, studio), model, [notice, *edits.shown, *film], **QUICK)
    _api(editor, finder, model)
    return edits


def join(edits: Edits, inverting: Inverting, a: Card, tabs: gr.Tabs) -> None:
    """Have tab Invert send what it inverted here, and picture A come; the id of this tab is "edit"."""
    editor = Editor(edits.studio)
    ways = ((inverting.edit, editor.take_inverted, inverting.kept), (a.buttons[EDIT], editor.take, a.recipe))
    for button, take, given in ways:
        taken = edits.on(button.click, take, [given], show_progress_on=button)
        taken.success(lambda: gr.Tabs(selected="edit"), None, tabs, **QUICK).then(None, None, None, js=TOP, **HERE)
    inverting.keep.click(on_gpu(editor.keep_inverted), [edits.have[1], inverting.kept], a.values,
                         show_progress_on=a.picture, **DRAWN)  # fmt: skip


# ---------------------------------------------------------------- what is offered, and shown


def about(studio: Studio, model: str) -> str:
    """What can be done here with a model."""
    return ABOUT if studio.directions(model) else NONE_YET.format(model=model)


def show(studio: Studio, work: Work, quiet: bool = False) -> list[Any]:
    """What is at hand, and updates of all that shows it; `quiet` leaves alone what a user is just moving."""
    before, after, pasted = work.files or (None, None, None)
    pictures = before, after, tell(work), gr.Image(pasted, visible=pasted is not None)
    steps = [(step.small, step.said) for step in work.steps]
    gallery = gr.Gallery(steps, selected_index=work.at if steps else None, visible=bool(steps))
    undo, redo = gr.Button(interactive=work.at > 0), gr.Button(interactive=work.at + 1 < len(work.steps))
    shown = [work, *pictures, (before, after) if before else None, gallery, undo, redo]
    if quiet:
        return [*shown, *[gr.skip()] * (SLIDERS + 3)]
    sliders = [gr.Slider(**_looks(one), value=work.now.strength(one.name) if one and work.now else 0)
               for one in _offered(studio, work)]  # fmt: skip
    region = gr.Radio(_regions(studio, work), value=work.now.region if work.now else "whole")
    return [*shown, *sliders, gr.Markdown(**_hidden(studio, work)), region, gr.Dropdown(*_names(studio, work))]


def _regions(studio: Studio, work: Work) -> Offer:
    """Where the picture at hand can be moved."""
    return [(REGIONS[region], region) for region in regions(studio, work)]


def _offered(studio: Studio, work: Work) -> list[Direction | None]:
    """The direction of each slider, or None."""
    found = slots(known(work.own, studio.directions(work.model)), work.now)
    return [*found, *[None] * (SLIDERS - len(found))]


def _hidden(studio: Studio, work: Work) -> dict[str, Any]:
    """The line that says how many directions have no slider, which is not seen where all have."""
    count = max(0, len(known(work.own, studio.directions(work.model))) - SLIDERS)
    return {"value": f"{count} more have no slider: *Strip and video* below can go along them", "visible": count > 0}


def _looks(direction: Direction | None) -> dict[str, Any]:
    """How the slider of a direction looks, which is not seen where there is none."""
    if direction is None:
        return {"label": "None", "visible": False}
    return {"label": direction.name, "info": describe(direction), "visible": True}


def _names(studio: Studio, work: Work) -> tuple[list[str], str | None]:
    """All directions at hand, and which one a strip goes along."""
    names = [one.name for one in known(work.own, studio.directions(work.model))]
    return names, work.along if work.along in names else next(iter(names), None)


def _begin(studio: Studio, model: str) -> list[Any]:
    """All as it is at first, with another model."""
    return [about(studio, model), *show(studio, Work(model)), [], None, ""]


# ---------------------------------------------------------------- the parts of the tab


def _sources() -> tuple[list[gr.Button], gr.Number]:
    """The buttons that take picture A and a seed; and that seed."""
    with gr.Row(elem_id="edit-sources"):
        buttons = [gr.Button("Edit A", size="sm", min_width=120, elem_id="edit-take-a")]
        seed = gr.Number(0, show_label=False, container=False, precision=0, minimum=0, maximum=MAX_SEED, min_width=100,
                         label="Seed", elem_id="edit-seed")  # fmt: skip
        buttons.append(gr.Button("Edit this seed", size="sm", min_width=120, elem_id="edit-take-seed"))
    return buttons, seed


def _pictures(none: Work) -> Components:
    """What is before and after, and a line."""
    with gr.Row(elem_id="edit-pictures"):
        pictures = [
            gr.Image(label=label, type="filepath", interactive=False, buttons=[], alt_text=label, min_width=140,
                     elem_id=f"edit-{label.lower()}", elem_classes="picture")
            for label in ("Before", "After")
        ]  # fmt: skip
    line = gr.Markdown(tell(none), elem_id="edit-line", elem_classes="caption")
    return [*pictures, line]


def _steps() -> Components:
    """Reset, the steps up to here, undo and redo."""
    with gr.Row():
        undo, redo = (gr.Button(name, size="sm", min_width=80, interactive=False, elem_id=f"edit-{name.lower()}")
                      for name in ("Undo", "Redo"))  # fmt: skip
        reset = gr.Button("Reset", size="sm", min_width=80, elem_id="edit-reset")
    steps = gr.Gallery(label="Steps: press one to go back to it", height="auto", allow_preview=False, buttons=[],
                       interactive=False, visible=False, elem_id="edit-steps", elem_classes="below")  # fmt: skip
    return [reset, steps, undo, redo]


def _keeps() -> list[gr.Button]:
    """The buttons that make the edited picture A, and B."""
    with gr.Row():
        return [gr.Button(way, size="sm", min_width=80, elem_id=f"edit-as-{way[-1].lower()}") for way in (AS_A, AS_B)]


def _slider(number: int, direction: Direction | None) -> gr.Slider:
    """How far a direction moves the picture."""
    return gr.Slider(-REACH, REACH, 0, step=0.1, min_width=220, elem_id=f"edit-{number}", **_looks(direction))


def _mixing(studio: Studio, model: gr.Dropdown) -> tuple[gr.Button, Components]:
    """What is mixed in: the last arguments of `Editor.mix`, and its button."""
    choices = mix.bands(*studio.layers(str(model.value)))
    with gr.Row():
        other = gr.Radio(OTHERS, value="seed", label="Take from", min_width=220, elem_id="edit-other")
        seed = gr.Number(1, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, min_width=120,
                         elem_id="edit-mix-seed")  # fmt: skip
    with gr.Row():
        band = gr.Radio(choices, value=choices[1][1], label="These layers", min_width=220, elem_id="edit-band")
        layers = gr.Textbox(choices[1][1], label="Layers", info="The first set the shape, the last the colours",
                            max_lines=1, max_length=100, min_width=120, elem_id="edit-layers")  # fmt: skip
    draw = gr.Button("Mix", elem_id="edit-mix")
    band.input(None, band, layers, js=COPY, **HERE)
    layers.input(None, layers, band, js=COPY, **HERE)
    model.change(lambda name: mix.offer(*studio.layers(name)), model, [band, layers], **QUICK)
    return draw, [other, seed, layers]


def _film(studio: Studio, none: Work) -> tuple[gr.Button, Components, Components]:
    """The button that draws a strip and a video, the last arguments of `Editor.film`, and what shows its results."""
    choices, first = _names(studio, none)
    way = gr.Radio(WAYS, value="direction", label="Way", elem_id="film-way")
    with gr.Row():
        along = gr.Dropdown(choices, value=first, label="Direction", info="Up to 3σ less and more", filterable=False,
                            min_width=180, elem_id="film-along")  # fmt: skip
        seed = gr.Number(1, label="Seed", info="At the other end", precision=0, minimum=0, maximum=MAX_SEED,
                         visible=False, min_width=120, elem_id="film-seed")  # fmt: skip
        count = gr.Slider(FEWEST, MOST, USUAL, step=SEEN - 1, precision=0, label="Pictures on the way", min_width=220,
                          elem_id="film-count")  # fmt: skip
        form = gr.Radio([("WebP", "webp"), ("GIF", "gif")], value="webp", label="File", min_width=120,
                        elem_id="film-form")  # fmt: skip
    draw = gr.Button("Draw strip and video", elem_id="film-draw")
    strip = gr.Gallery(label="Strip", columns=SEEN, height="auto", allow_preview=False, buttons=[], interactive=False,
                       elem_id="film-strip", elem_classes=["below", "way"])  # fmt: skip
    video = gr.Image(label="Video", type="filepath", interactive=False, buttons=[], alt_text="Video",
                     elem_id="film-video", elem_classes="picture")  # fmt: skip
    line = gr.Markdown(elem_id="film-line", elem_classes="caption")
    way.input(lambda way: (gr.Dropdown(visible=way == "direction"), gr.Number(visible=way == "seed")), way,
              [along, seed], **QUICK)  # fmt: skip
    return draw, [way, along, seed, count, form], [strip, video, line]


def _downloads(editor: Editor, work: gr.State, busy: Component) -> None:
    """A button for each form; the file is made when it is asked for, and then saved by the browser."""
    gr.Markdown("Download at full size", elem_classes="caption")
    file = gr.File(visible=False)
    with gr.Row(elem_id="edit-exports"):
        for kind, name in SAID.items():
            button = gr.Button(name, size="sm", min_width=90, elem_id=f"edit-{kind}-save")
            made = button.click(partial(editor.export, kind), work, file, show_progress_on=busy, **SAVING)
            made.success(None, file, None, js=SAVE, **HERE)


# ---------------------------------------------------------------- events


def _back(edits: Edits, editor: Editor, reset: gr.Button, steps: gr.Gallery, undo: gr.Button, redo: gr.Button) -> None:
    """The events that go back and forth between steps."""

    def choose(work: Work, model: str, event: gr.SelectData) -> Work:
        return editor.go(work, model, event.index)

    edits.on(reset.click, editor.reset)
    edits.on(undo.click, editor.undo)
    edits.on(redo.click, editor.redo)
    edits.on(steps.select, choose)


def _api(editor: Editor, finder: Finder, model: gr.Dropdown) -> None:
    """What programs call, which want files at full size and no previews; no button does."""
    inputs = [
        gr.JSON(label="Edits", visible=False),
        gr.JSON(label="Recipe", visible=False),
        gr.File(label="Latent", visible=False),
        gr.Radio(("whole", "alpha"), value="whole", label="Region", visible=False),
        gr.Textbox("", label="Layers", max_length=100, visible=False),
        gr.Checkbox(False, label="To", visible=False),
    ]
    outputs = [gr.File(label="Edited", visible=False), gr.JSON(label="Recipe of Edited", visible=False)]
    gr.on([], on_gpu(editor.edit, FILES_SECONDS), [model, *inputs], outputs, api_name="edit", **DRAWING)
    inputs = [
        gr.Textbox("", label="Name", max_length=64, visible=False),
        gr.JSON(label="Plus", visible=False),
        gr.JSON(label="Minus", visible=False),
        gr.Slider(0, MAX_PSI, PSI, step=0.05, label="Psi", visible=False),
    ]
    outputs = [gr.JSON(label="Direction", visible=False), gr.JSON(label="Numbers", visible=False)]
    gr.on([], on_gpu(finder.find_direction, FILES_SECONDS), [model, *inputs], outputs, api_name="find_direction",
          **DRAWING)  # fmt: skip
