"""A picture on the page with its caption and recipe, and what one can do with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr

COPY = "(...values) => values"  # done in the browser: nothing goes to the server
QUICK = {"api_visibility": "private", "queue": False, "show_progress": "hidden"}  # what waits for no picture
AS_A, AS_B, EDIT, CUT_OUT = "Use as A", "Use as B", "Edit", "Cut out"  # where a picture can be sent


@dataclass(frozen=True)
class Card:
    """The components of one picture; `buttons` send it elsewhere, by their names."""

    picture: gr.Image
    recipe: gr.JSON
    caption: gr.Markdown
    buttons: dict[str, gr.Button]

    @property
    def values(self) -> list[gr.components.Component]:
        """What holds the picture: file, recipe, caption."""
        return [self.picture, self.recipe, self.caption]

    def send(self, way: str, target: Card) -> None:
        """Have the button of that name put this picture into another card."""
        self.buttons[way].click(None, self.values, target.values, js=COPY, api_visibility="private")


def card(
    label: str, hint: str, *, elem_id: str, scale: int | None = None, min_width: int = 150,
    ways: Sequence[str] = (AS_A, AS_B),
) -> Card:  # fmt: skip
    """Make the components; `hint` says how a picture comes here while there is none."""
    with gr.Column(scale=scale or 1, min_width=min_width):
        picture = gr.Image(
            label=label,
            format="png",
            type="filepath",
            interactive=False,
            buttons=[],
            alt_text=label,
            elem_id=elem_id,
            elem_classes="picture",
        )
        caption = gr.Markdown(hint, label=f"Caption of {label}", elem_id=f"{elem_id}-caption", elem_classes="caption")
        with gr.Row():
            buttons = {way: gr.Button(way, size="sm", min_width=70, elem_id=f"{elem_id}-{_key(way)}") for way in ways}
        add_download(picture, "Download PNG")
        with gr.Accordion("Recipe", open=False, elem_classes="recipe"):
            recipe = gr.JSON(label=f"Recipe of {label}", show_label=False, elem_id=f"{elem_id}-recipe")
    return Card(picture, recipe, caption, buttons)


def add_download(picture: gr.Image, label: str) -> None:
    """A button that saves the file of a picture under its own name."""
    button = gr.DownloadButton(label, size="sm", elem_id=f"{picture.elem_id}-download")
    picture.change(None, picture, button, js=COPY, api_visibility="private")


def _key(way: str) -> str:
    """Of "Use as A": as-a."""
    return way.lower().removeprefix("use ").replace(" ", "-")
