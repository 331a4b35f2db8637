"""Where a photo is dropped, or picture A is taken for one."""

from __future__ import annotations

from typing import Any

import gradio as gr

from hfgan.app.card import COPY, Card


def upload(label: str, elem_id: str) -> gr.Image:
    """An image that one drops, pastes or chooses, see `as_file`."""
    return as_file(label=label, sources=["upload", "clipboard"], height=240, elem_id=elem_id, elem_classes="upload")


def as_file(**options: Any) -> gr.Image:
    """An image whose file goes on as it is: Gradio does not open it, and so what is wrong with it can be said.

    It must not be updated, which makes another image of it: a column around it can be.
    """
    picture = gr.Image(type="filepath", **options)
    picture.preprocess = lambda payload: payload and payload.path
    return picture


def take(a: Card, photo: gr.Image) -> None:
    """A button that takes picture A as the photo, for who has none at hand."""
    button = gr.Button("Try picture A", size="sm", elem_id=f"{photo.elem_id}-take")
    button.click(None, a.picture, photo, js=COPY, api_visibility="private")
