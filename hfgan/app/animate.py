"""Tab Animate: the way from picture A to picture B and back."""

from __future__ import annotations

import gradio as gr

from hfgan.app.card import Card, add_download
from hfgan.app.gpu import on_gpu
from hfgan.app.sample import DRAWING
from hfgan.app.studio import Studio


def tab(studio: Studio, model: gr.Dropdown, a: Card, b: Card) -> None:
    """Lay out the tab; its event `interpolate` is public."""
    with gr.Row():
        with gr.Column(scale=3, min_width=200):
            steps = gr.Slider(2, 60, 24, step=1, precision=0, label="Pictures from A to B", elem_id="steps")
            form = gr.Radio([("WebP", "webp"), ("GIF", "gif")], value="webp", label="File",
                            info="A GIF has 256 colours")  # fmt: skip
            draw = gr.Button("Animate", variant="primary", elem_id="animate-draw")
        with gr.Column(scale=2, min_width=150):
            picture = gr.Image(label="Animation", type="filepath", interactive=False, buttons=[],
                               alt_text="Animation", elem_id="animation", elem_classes="picture")  # fmt: skip
            gr.Markdown("From A to B and back: press *Animate*", elem_classes="caption")
            add_download(picture, "Download")
    draw.click(on_gpu(studio.interpolate), [model, a.recipe, b.recipe, steps, form], picture,
               api_name="interpolate", **DRAWING)  # fmt: skip
