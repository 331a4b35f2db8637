"""The app: `build(models)` is the page, `launch` runs it, `serve` loads models first. Only here is Gradio imported.

Models are shared by all users, read only, one lock each; what a user made is kept in that user's page alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # both are read once, at the first import
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr

from hfgan.app import animate, cutout, edit, invert, look, mix, modes, replay, sample
from hfgan.app.card import QUICK, Card, card
from hfgan.app.studio import Studio
from hfgan.pipeline import HFGan

MAX_UPLOAD = "20mb"  # the photo of a phone has up to twelve
MAX_WAITING = 64  # events in the queue before a user is asked to come back
KEPT = 3600  # seconds for which a picture stays on the server


def build(models: Mapping[str, HFGan]) -> gr.Blocks:
    """The page over loaded models, by the name under which a user chooses one; `launch` runs it."""
    studio = Studio(models)
    with gr.Blocks(title=look.TITLE, analytics_enabled=False, delete_cache=(KEPT, KEPT)) as page:
        gr.Markdown(look.INTRODUCTION, elem_id="introduction")
        with gr.Row(elem_id="loaded"):
            model = gr.Dropdown(list(models), label="Model", visible=len(models) > 1, filterable=False, scale=0,
                                min_width=260, elem_id="model")  # fmt: skip
            line = gr.Markdown(studio.line(next(iter(models))), elem_id="line")
        drawn = sample.section(studio, model)
        pair = _bench(studio, model, drawn)
        model.change(studio.line, model, line, api_visibility="private")
        first, others = (sample.begin(studio, drawn, *pair, event) for event in (page.load, drawn.changed.then))
        first.then(studio.modes, model, drawn.modes, api_name="modes", show_progress="hidden")
        others.then(studio.modes, model, drawn.modes, **QUICK)
    return page.queue(max_size=MAX_WAITING, default_concurrency_limit=1)


def _bench(studio: Studio, model: gr.Dropdown, drawn: sample.Sampler) -> tuple[Card, Card]:
    """Cards A and B, and the tabs of what can be done with them."""
    with gr.Row():
        a, b = (card(name, f"Press *Use as {name}*", elem_id=name.lower(), scale=2, targets="") for name in "AB")
        with gr.Column(scale=5, min_width=320), gr.Tabs() as tabs:
            with gr.Tab("Mix", elem_id="mix"):
                mixed = mix.tab(studio, model, a, b)
            with gr.Tab("Animate", elem_id="animate"):
                animate.tab(studio, model, a, b)
            with gr.Tab("Replay", elem_id="replay"):
                again = replay.tab(studio, model)
            with gr.Tab("Modes", elem_id="compared", visible=studio.num_modes(str(model.value)) > 0) as compared:
                modes.tab(studio, model, a, drawn)
            able = gr.Tab("Cut-out", id="cutout", elem_id="cutout", visible=cutout.able(studio, str(model.value)))
            with able:
                cutting = cutout.tab(studio, model, a)
            with gr.Tab("Invert", elem_id="inverting"):
                inverting = invert.tab(studio, model)
            with gr.Tab("Edit", id="edit", elem_id="editing"):
                edits = edit.tab(studio, model, drawn.selected, a, b)
    invert.join(inverting, cutting, a, tabs)
    edit.join(edits, inverting, tabs)
    model.change(lambda name: gr.Tab(visible=cutout.able(studio, name)), model, able, **QUICK)
    model.change(lambda name: gr.Tab(visible=studio.num_modes(name) > 0), model, compared, **QUICK)
    for one in (drawn.selected, mixed, again):
        one.offer(a, b)
    return a, b


def launch(page: gr.Blocks, **options: Any) -> str:
    """Run the page with the settings that it is made for; returns its address.

    Args:
        page: What `build` returned.
        options: Further arguments of `gradio.Blocks.launch`, such as server_name, server_port and share.
    """
    _, address, _ = page.launch(
        theme=look.theme(),
        css=look.CSS,
        footer_links=["api", "settings"],
        show_error=False,  # the text of an unforeseen exception is nobody's business
        run_history=False,
        ssr_mode=False,
        max_file_size=MAX_UPLOAD,
        **options,
    )
    return address


def serve(names: Sequence[str], *, host: str | None = None, port: int | None = None, share: bool = False) -> None:
    """Load models by bundled name, folder or Hub id, and run the page until it is interrupted.

    Args:
        names: The first is the one that a user sees first.
        host: Address to listen on; None is GRADIO_SERVER_NAME or 127.0.0.1.
        port: None is GRADIO_SERVER_PORT, or the first free one from 7860 on.
        share: Whether to open a public tunnel.
    """
    import torch  # after the page's modules: on ZeroGPU `spaces` comes first

    device = "cuda" if torch.cuda.is_available() else "cpu"
    page = build(by_name([HFGan.from_pretrained(name, device=device) for name in names]))
    launch(page, server_name=host, server_port=port, share=share)


def by_name(models: Sequence[HFGan]) -> dict[str, HFGan]:
    """Models by their names; a second one of a name gets a number, as two runs' folders may be called alike."""
    named: dict[str, HFGan] = {}
    for model in models:
        count = sum(other.name == model.name for other in named.values())
        named[f"{model.name} ({count + 1})" if count else str(model.name)] = model
    return named
