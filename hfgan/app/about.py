"""Tab About: what the loaded model is, what happens to what one uploads, and what all this stands on."""

from __future__ import annotations

import html
import re

import gradio as gr

from hfgan import __version__
from hfgan.app.card import QUICK
from hfgan.app.studio import Studio
from hfgan.captions import plain

HOURS = 2  # until a file is deleted, at the latest
MAX_CARD = 100_000  # characters that are shown of a card
ABOUT = f"""
## Your photos
What you upload goes to this server and nowhere else. It serves what you ask for, trains nothing, is seen by nobody
else, and is deleted within {HOURS} hours, or when the app is used next after that, as is all that was drawn for you.
Nothing about you is kept. Take photos of yourself, or of people who agree.

## What comes out
Every picture that is drawn here is synthetic, and its PNG says so and carries the recipe to draw it again.
A photo that was inverted, cut out or edited shows who was on it: treat it like the photo.

## For programs
In Python, in a checkout of the repository: `pip install -e .`, then `HFGan.from_pretrained(name).sample(4).images`.
Over HTTP, every verb of this page: press *Use via API* at the very bottom. Where the server has it, the same verbs are
tools of MCP.

## What this stands on
StyleGAN2 ([1912.04958](https://arxiv.org/abs/1912.04958)) draws, Self-Distilled StyleGAN
([2202.12211](https://arxiv.org/abs/2202.12211)) filters raw photos and finds the modes, IntereStyle
([2209.10811](https://arxiv.org/abs/2209.10811)) inverts what matters of a photo, Labels4Free
([2103.14968](https://arxiv.org/abs/2103.14968)) cuts out, InterFaceGAN ([2005.09635](https://arxiv.org/abs/2005.09635))
and SeFa ([2007.06600](https://arxiv.org/abs/2007.06600)) edit. All code is our own, Apache 2.0: HFGan {__version__}.
"""
CAN = {"modes": "has modes", "encoder": "inverts photos", "directions": "edits by name",
       "alpha": "cuts out what it draws", "matting": "cuts out photos"}  # fmt: skip
NO_CARD = "This model came without a card: nothing is known of what it was trained on, nor of its licence."


def tab(studio: Studio, model: gr.Dropdown) -> None:
    """Lay out the tab."""
    name = str(model.value)
    told = gr.Markdown(tell(studio, name), elem_id="about-model")
    gr.Markdown(ABOUT, elem_id="about-all")
    with gr.Accordion("The model's card", open=False, elem_id="about-card"):
        card = gr.Markdown(read(studio, name), elem_id="about-card-text")
    model.change(lambda name: (tell(studio, name), read(studio, name)), model, [told, card], **QUICK)


def tell(studio: Studio, model: str) -> str:
    """What a model is, in a few lines of Markdown: licence, what it can do, and how its card begins."""
    can = ", ".join(said for part, said in CAN.items() if studio.has(model, part)) or "draws"
    text = _card(studio, model)
    licence = re.search(r"^license: *(.+)$", _front(text), re.MULTILINE)
    said = re.search(r"\A(?:\s*#.*\n)?\s*((?:[^\n#!|`<].*\n?)+)", text[len(_front(text)) :])
    first = html.escape(said[1].strip(), quote=False) if said else NO_CARD
    known = f" Licence: {plain(licence[1])}." if licence else ""
    return f"## {plain(model)}\n{first}\n\nIt {can}.{known}"


def read(studio: Studio, model: str) -> str:
    """The card of a model, without its front matter and without pictures, which no page can reach."""
    text = _card(studio, model)
    return re.sub(r"!\[[^\]]*\]\([^)]*\)\n?", "", text[len(_front(text)) :]) or NO_CARD


def _card(studio: Studio, model: str) -> str:
    folder = studio.folder(model)
    path = folder and folder / "README.md"
    return path.read_text(encoding="utf-8", errors="replace")[:MAX_CARD] if path and path.is_file() else ""


def _front(text: str) -> str:
    """The front matter of a card, "" for none."""
    found = re.match(r"---\n.*?\n---\n", text, re.DOTALL)
    return found[0] if found else ""
