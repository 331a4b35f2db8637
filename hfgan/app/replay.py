"""Tab Replay: a PNG that came from here is drawn again from the recipe inside it."""

from __future__ import annotations

import gradio as gr

from hfgan.app.card import Card, card
from hfgan.app.gpu import on_gpu
from hfgan.app.sample import DRAWING
from hfgan.app.studio import Studio


def tab(studio: Studio, model: gr.Dropdown) -> Card:
    """Lay out the tab and return the card of its result; its event `replay` is public."""
    with gr.Row():
        with gr.Column(scale=3, min_width=200):
            file = gr.File(label="PNG", type="binary", file_types=[".png"], height=180, elem_id="file")
            gr.Markdown("Every picture that was drawn here carries its recipe in its PNG.", elem_classes="caption")
        again = card("Again", "The same picture once more", elem_id="again", scale=2)
    file.upload(on_gpu(studio.replay), [model, file], again.values, api_name="replay",
                show_progress_on=again.picture, **DRAWING)  # fmt: skip
    return again
