"""Tab Mix: picture A with the styles of picture B in some layers."""

from __future__ import annotations

import gradio as gr

from hfgan.app.card import COPY, Card, card
from hfgan.app.gpu import on_gpu
from hfgan.app.sample import DRAWING
from hfgan.app.studio import Studio

BANDS = (("Coarse", 0), ("Middle", 2), ("Fine", 4))  # and their first resolutions (arXiv 1812.04948 §3.1)


def tab(studio: Studio, model: gr.Dropdown, a: Card, b: Card) -> Card:
    """Lay out the tab and return the card of its result; its event `mix` is public."""
    choices = bands(*studio.layers(str(model.value)))
    with gr.Row():
        with gr.Column(scale=3, min_width=200):
            band = gr.Radio(choices, value=choices[1][1], label="Take from B", elem_id="band")
            layers = gr.Textbox(choices[1][1], label="Layers", info="The first set the shape, the last the colours",
                                max_lines=1, max_length=100, elem_id="layers")  # fmt: skip
            draw = gr.Button("Mix", variant="primary", elem_id="mix-draw")
        mixed = card("Mixed", "A with these layers of B: press *Mix*", elem_id="mixed", scale=2)
    band.input(None, band, layers, js=COPY, api_visibility="private")
    layers.input(None, layers, band, js=COPY, api_visibility="private")
    model.change(lambda name: offer(*studio.layers(name)), model, [band, layers], api_visibility="private")
    gr.on([draw.click, layers.submit], on_gpu(studio.mix), [model, a.recipe, b.recipe, layers], mixed.values,
          api_name="mix", show_progress_on=mixed.picture, **DRAWING)  # fmt: skip
    return mixed


def bands(num_ws: int, each: int = 2) -> list[tuple[str, str]]:
    """Names and layers of the bands that a model of so many layers has, `each` of every resolution."""
    firsts = [each * first for _, first in BANDS if each * first < num_ws]
    lasts = [first - 1 for first in firsts[1:]] + [num_ws - 1]
    return [(name, f"{first}-{last}") for (name, _), first, last in zip(BANDS, firsts, lasts, strict=False)]


def offer(num_ws: int, each: int) -> tuple[gr.Radio, str]:
    """Updates of the radio and of the layers for a model with these layers, see `bands`."""
    choices = bands(num_ws, each)
    return gr.Radio(choices, value=choices[1][1]), choices[1][1]
