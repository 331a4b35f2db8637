"""The app: `build(models)` is the page, `launch` runs it, `serve` loads models first. Only here is Gradio imported.

Models are shared by all users, read only, one lock each; what a user made is kept in that user's page alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # both are read once, at the first import
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr

from hfgan import guessing
from hfgan.app import door, gpu, listing, look, sample
from hfgan.app.card import QUICK
from hfgan.app.counters import Counters
from hfgan.app.page import lay_out
from hfgan.app.studio import KEPT, TIDY, Studio
from hfgan.pipeline import HFGan

MAX_UPLOAD = "20mb"  # the photo of a phone has up to twelve
MAX_WAITING = 64  # events in the queue before a user is asked to come back


def build(
    models: Mapping[str, HFGan], photos: guessing.Photos | None = None, counters: Counters | None = None
) -> gr.Blocks:  # fmt: skip
    """The page over loaded models; `launch` runs it.

    Args:
        models: By the name under which a user chooses one.
        photos: Real ones, for the game Real or generated?; None for none, and the tab says how to give some.
        counters: Where results of that game are added by those who want to; None for in memory.
    """
    studio = Studio(models)
    with door.Page(title=look.TITLE, analytics_enabled=False, delete_cache=(TIDY, KEPT)) as page:
        gr.Markdown(look.INTRODUCTION, elem_id="introduction")
        with gr.Row(elem_id="loaded"):
            model = gr.Dropdown(list(models), label="Model", visible=len(models) > 1, filterable=False, scale=0,
                                min_width=260, elem_id="model")  # fmt: skip
            line = gr.Markdown(studio.line(next(iter(models))), elem_id="line")
        laid = lay_out(studio, model, photos, counters)
        model.change(studio.line, model, line, api_visibility="private")
        drawn, both = laid.sampler, (laid.a, laid.b)
        first, others = (sample.begin(studio, drawn, *both, event) for event in (page.load, drawn.changed.then))
        first.then(studio.modes, model, drawn.modes, api_name="modes", show_progress="hidden")
        others.then(studio.modes, model, drawn.modes, **QUICK)
        listing.offer(models)
    return page.queue(max_size=MAX_WAITING, default_concurrency_limit=1)


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
        state_session_capacity=door.MAX_SESSIONS,
        enable_monitoring=False,
        app_kwargs={"exception_handlers": door.HANDLERS},
        mcp_server=find_spec("mcp") is not None,  # what a Space has
        **options,
    )
    return address


def serve(
    names: Sequence[str],
    *,
    host: str | None = None,
    port: int | None = None,
    share: bool = False,
    photos: str | None = None,
    licence: str | None = None,
    counters: str | Path | None = None,
) -> None:
    """Load models by bundled name, folder or Hub id, and run the page until it is interrupted.

    Args:
        names: The first is the one that a user sees first.
        host: Address to listen on; None is GRADIO_SERVER_NAME or 127.0.0.1.
        port: None is GRADIO_SERVER_PORT, or the first free one from 7860 on.
        share: Whether to open a public tunnel.
        photos: Real ones for the game Real or generated?: folder, .zip or Hub id; None for no game.
        licence: Of these photos, in a line; None for what their README.md says.
        counters: File that keeps the game's anonymous counts; None for until the app ends.
    """
    real = guessing.open_real(photos, licence) if photos else None  # first, as it takes no time to refuse
    kept = Counters(Path(counters) if counters else None)
    page = build(by_name([HFGan.from_pretrained(name, device=gpu.home()) for name in names]), real, kept)
    launch(page, server_name=host, server_port=port, share=share)


def by_name(models: Sequence[HFGan]) -> dict[str, HFGan]:
    """Models by their names; a second one of a name gets a number, as two runs' folders may be called alike."""
    named: dict[str, HFGan] = {}
    for model in models:
        count = sum(other.name == model.name for other in named.values())
        named[f"{model.name} ({count + 1})" if count else str(model.name)] = model
    return named
