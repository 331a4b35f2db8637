"""A PNG that came from here is drawn again from the recipe inside it, and becomes picture A."""

from __future__ import annotations

import gradio as gr

from hfgan.app.card import Card
from hfgan.app.gpu import on_gpu
from hfgan.app.sample import DRAWING
from hfgan.app.studio import Studio


def part(studio: Studio, model: gr.Dropdown, a: Card) -> None:
    """Lay out where such a PNG is dropped; its event `replay` is public."""
    with gr.Accordion("Draw a PNG again", open=False, elem_id="replay"):
        gr.Markdown("Every picture that was drawn here carries its recipe in its PNG.", elem_classes="caption")
        file = gr.File(label="PNG", type="binary", file_types=[".png"], height=140, elem_id="file")
    file.upload(on_gpu(studio.replay), [model, file], a.values, api_name="replay", show_progress_on=a.picture,
                **DRAWING)  # fmt: skip
