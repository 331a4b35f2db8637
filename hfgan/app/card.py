"""A picture on the page with its caption and recipe, and what one can do with it."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

COPY = "(...values) => values"  # done in the browser: nothing goes to the server
QUICK = {"api_visibility": "private", "queue": False, "show_progress": "hidden"}  # what waits for no picture


@dataclass(frozen=True)
class Card:
    """The components of one picture; `buttons` put it into A and into B."""

    picture: gr.Image
    recipe: gr.JSON
    caption: gr.Markdown
    buttons: tuple[gr.Button, ...]

    @property
    def values(self) -> list[gr.components.Component]:
        """What holds the picture: file, recipe, caption."""
        return [self.picture, self.recipe, self.caption]

    def offer(self, *targets: Card) -> None:
        """Have the buttons put this picture into these cards, A and B."""
        for button, target in zip(self.buttons, targets, strict=True):
            button.click(None, self.values, target.values, js=COPY, api_visibility="private")


def card(label: str, hint: str, *, elem_id: str, scale: int, min_width: int = 150, targets: str = "AB") -> Card:
    """Make the components; `hint` says how a picture comes here while there is none.

    A card with `targets` has a button for each and a download; one without is a target itself.
    """
    with gr.Column(scale=scale, min_width=min_width):
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
        with gr.Column(visible=bool(targets)):
            with gr.Row():
                buttons = [gr.Button(f"Use as {name}", size="sm", min_width=70, elem_id=f"{elem_id}-as-{name.lower()}")
                           for name in targets]  # fmt: skip
            add_download(picture, "Download PNG")
            with gr.Accordion("Recipe", open=False, elem_classes="recipe"):
                recipe = gr.JSON(label=f"Recipe of {label}", show_label=False, elem_id=f"{elem_id}-recipe")
    return Card(picture, recipe, caption, tuple(buttons))


def add_download(picture: gr.Image, label: str) -> None:
    """A button that saves the file of a picture under its own name."""
    button = gr.DownloadButton(label, size="sm", elem_id=f"{picture.elem_id}-download")
    picture.change(None, picture, button, js=COPY, api_visibility="private")
