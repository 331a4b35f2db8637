"""Where tab Edit finds directions: a grid of pictures to mark by clicks, and what the model varies, by number."""

from __future__ import annotations

from typing import Any

import gradio as gr

from hfgan.app import mix
from hfgan.app.card import QUICK, Card
from hfgan.app.cutout import HERE, Components, Offer
from hfgan.app.finder import COUNT, KINDS, Finder, Grid
from hfgan.app.gpu import on_gpu
from hfgan.app.sample import DRAWING
from hfgan.app.studio import Pictures, Studio
from hfgan.app.work import SEEN, describe

HOW = """Think of something that some pictures have, such as a smile. Click once on a picture that has it (+), twice
on one that has not (−), and leave out what is unclear. The direction is what tells them apart."""
WHICH = """A model varies much that nobody has named. Number 0 is what it varies most; the strip shows what each does
to the picture above, which is in its middle. Give it a name, and it gets a slider."""
NONE_YET = "No picture is marked yet: press *Show pictures*, then some of them"
NAMES = dict(zip(KINDS, ("What changes the layers most (SeFa)", "What varies most (PCA)"), strict=True))
DRAWN = HERE | DRAWING
MARKING = HERE | {"concurrency_limit": None, "show_progress": "hidden"}


def by_clicks(finder: Finder, model: gr.Dropdown) -> tuple[gr.Button, Components, gr.Markdown]:
    """Lay out what marks pictures; returns the button Fit, the last arguments of `Finder.fit`, and its line."""
    grid = gr.State()
    gr.Markdown(HOW, elem_classes="caption")
    more = gr.Button("Show pictures", size="sm", elem_id="find-more")
    gallery = gr.Gallery(label="Pictures to mark", height="auto", object_fit="cover", allow_preview=False, buttons=[],
                         interactive=False, visible=False, elem_id="find-grid", elem_classes="below")  # fmt: skip
    line = gr.Markdown(NONE_YET, elem_id="find-line", elem_classes="caption")
    with gr.Row(elem_classes="beside"):
        name = gr.Textbox(label="Name", placeholder="smile", max_lines=1, max_length=64, min_width=160,
                          elem_id="find-name")  # fmt: skip
        fit = gr.Button("Fit", variant="primary", min_width=120, elem_id="find-fit")

    def show(grid: Grid | None) -> tuple[Any, ...]:
        label = "Show pictures" if grid is None else "More pictures"
        said = NONE_YET if grid is None else grid.said()
        return grid, gr.Gallery(grid and grid.shown(), selected_index=None, visible=grid is not None), said, label

    def draw(grid: Grid | None, model: str) -> tuple[Any, ...]:
        return show(finder.more(grid, model))

    def mark(grid: Grid, event: gr.SelectData) -> tuple[Any, ...]:
        return show(finder.mark(grid, event.index))

    shown = [grid, gallery, line, more]
    more.click(on_gpu(draw), [grid, model], shown, show_progress_on=line, **DRAWN)
    gallery.select(mark, grid, shown, **MARKING)
    model.change(lambda: show(None), None, shown, **QUICK)
    return fit, [grid, name], line


def by_number(
    finder: Finder, studio: Studio, work: gr.State, model: gr.Dropdown, a: Card
) -> tuple[gr.Button, Components, gr.Markdown]:  # fmt: skip
    """Lay out what shows unnamed directions on the picture at hand, or on A where none is.

    Returns the button Keep, the last arguments of `Finder.keep`, and its line.
    """
    direction = gr.State()
    gr.Markdown(WHICH, elem_classes="caption")
    kind = gr.Radio([(NAMES[kind], kind) for kind in KINDS], value=KINDS[0], label="Directions", elem_id="browse-kind")
    with gr.Row():
        number = gr.Slider(0, COUNT - 1, 0, step=1, precision=0, label="Number", min_width=220,
                           elem_id="browse-number")  # fmt: skip
        layers = gr.Radio(bands(studio, str(model.value)), value="", label="Layers", min_width=220,
                          elem_id="browse-layers")  # fmt: skip
    show = gr.Button("Show", elem_id="browse-show")
    strip = gr.Gallery(label="What it does", columns=SEEN, height="auto", allow_preview=False, buttons=[],
                       interactive=False, elem_id="browse-strip", elem_classes=["below", "way"])  # fmt: skip
    line = gr.Markdown("Nothing is shown yet: press *Show*", elem_id="browse-line", elem_classes="caption")
    with gr.Row(elem_classes="beside"):
        name = gr.Textbox(label="Name", placeholder="turns the head", max_lines=1, max_length=64, min_width=160,
                          elem_id="browse-name")  # fmt: skip
        keep = gr.Button("Keep", min_width=120, elem_id="browse-keep")

    def draw(*given: Any) -> tuple[Any, Pictures, str]:
        found, seen = finder.browse(*given)
        return found, seen, f"**{found.name}** · {describe(found)}"

    inputs = [work, model, a.recipe, kind, number, layers]
    gr.on([show.click, number.release], on_gpu(draw), inputs, [direction, strip, line], show_progress_on=strip,
          **DRAWN)  # fmt: skip
    model.change(lambda name: (None, [], gr.Radio(bands(studio, name), value="")), model, [direction, strip, layers],
                 **QUICK)  # fmt: skip
    return keep, [direction, name], line


def bands(studio: Studio, model: str) -> Offer:
    """All layers of a model, and its bands."""
    return [("All", ""), *mix.bands(*studio.layers(model))]
