"""Section Sample: controls, the gallery of what was drawn, and the picture that is chosen in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from hfgan.app.card import Card, card
from hfgan.app.gpu import on_gpu
from hfgan.app.studio import Drawn, Studio
from hfgan.models.stylegan2 import NOISE_MODES
from hfgan.recipes import Recipe
from hfgan.sampling import MAX_SEED

DRAWING = {"concurrency_id": "drawing", "concurrency_limit": 1}  # one picture at a time, whoever asks
DICE = f"() => Math.floor(Math.random() * {MAX_SEED + 1})"
MAX_IMAGES, MAX_PSI = 16, 1.5

Gallery = list[tuple[str, str | None]]  # files and captions


@dataclass(frozen=True)
class Sampler:
    """The components of this section that others need."""

    inputs: list[gr.components.Component]
    outputs: list[gr.components.Component]
    selected: Card


def section(studio: Studio, model: gr.Dropdown) -> Sampler:
    """Lay out the section; its event `sample` is public."""
    with gr.Row(elem_id="sample"):
        with gr.Column(scale=2, min_width=260, elem_id="controls"):
            draw, dice, inputs = _controls(studio)
        with gr.Column(scale=5, min_width=320):
            gallery = gr.Gallery(
                label="Pictures",
                format="png",
                columns=4,
                height="auto",
                object_fit="cover",
                allow_preview=False,
                buttons=["download_all"],
                interactive=False,
                elem_id="gallery",
            )
            recipes = gr.JSON(label="Recipes", visible=False)
        selected = card("Chosen", "Choose one of the pictures", elem_id="selected", scale=2, min_width=220)
    sampler = Sampler([model, *inputs], [gallery, recipes], selected)
    _, seed, psi, *_ = inputs
    drawn = gr.on([draw.click, seed.submit, psi.release], on_gpu(studio.sample), sampler.inputs, sampler.outputs,
                  api_name="sample", **DRAWING)  # fmt: skip
    rolled = dice.click(None, None, seed, js=DICE, api_visibility="private")
    rolled = rolled.then(on_gpu(studio.sample), sampler.inputs, sampler.outputs, api_visibility="private", **DRAWING)
    quick = {"api_visibility": "private", "queue": False, "show_progress": "hidden"}
    for event in (drawn, rolled):
        event.success(follow, [*sampler.outputs, selected.recipe], [gallery, *selected.values], **quick)
    gallery.select(pick, sampler.outputs, selected.values, **quick)
    return sampler


def _controls(studio: Studio) -> tuple[gr.Button, gr.Button, list[gr.components.Component]]:
    """The buttons Sample and dice, and the inputs in the order of `Studio.sample`'s arguments."""
    count = gr.Slider(1, MAX_IMAGES, 8, step=1, precision=0, label="How many", elem_id="count")
    seed = gr.Number(0, label="Seed", info="Empty is a random one", precision=0, minimum=0,
                     maximum=MAX_SEED, elem_id="seed")  # fmt: skip
    psi = gr.Slider(0, MAX_PSI, 0.7, step=0.05, label="Truncation psi", info="Lower is more typical",
                    elem_id="psi")  # fmt: skip
    with gr.Accordion("More", open=False):
        # no empty numbers in here: Gradio turns them into 0 when the accordion opens
        cutoff = gr.Number(0, label="Truncate only the first layers", info="How many; 0 for all", precision=0,
                           minimum=0, maximum=18)  # fmt: skip
        noise = gr.Radio(list(NOISE_MODES), value="const", label="Noise", info="Fine detail beside the style")
        classes = studio.classes()
        label = gr.Number(0, label="Class", info=f"0 to {classes - 1}", precision=0, minimum=0, visible=classes > 0)
    with gr.Row():
        draw = gr.Button("Sample", variant="primary", min_width=90, elem_id="draw")
        dice = gr.Button("Random", min_width=90, elem_id="dice")
    return draw, dice, [count, seed, psi, cutoff, noise, label]


def begin(studio: Studio, sampler: Sampler, a: Card, b: Card, event: Callable) -> None:
    """On `event`, such as the load of the page, draw the first pictures, choose one, and put two into A and B."""
    outputs = [*sampler.outputs, *sampler.selected.values, *a.values, *b.values]

    def first_pictures(*values: Any) -> Sequence[Any]:
        gallery, recipes = studio.sample(*values)
        chosen, last = _at(gallery, recipes, 0), _at(gallery, recipes, -1)
        return gr.Gallery(gallery, selected_index=0), recipes, *chosen, *chosen, *last

    event(on_gpu(first_pictures), sampler.inputs, outputs, api_visibility="private",
          show_progress_on=sampler.outputs[0], **DRAWING)  # fmt: skip


def follow(gallery: Gallery, recipes: list[Recipe], chosen: Recipe) -> tuple[Any, ...]:
    """Of what was drawn, choose the picture with the seed of the chosen one, or the first; point at it."""
    seeds = [recipe["seed"] for recipe in recipes]
    index = seeds.index(chosen["seed"]) if chosen and chosen["seed"] in seeds else 0
    return gr.Gallery(selected_index=index), *_at(gallery, recipes, index)


def pick(gallery: Gallery, recipes: list[Recipe], event: gr.SelectData) -> Drawn:
    """The picture that was clicked on."""
    return _at(gallery, recipes, event.index)


def _at(gallery: Gallery, recipes: list[Recipe], index: int) -> Drawn:
    """File, recipe and caption of one picture.

    A client says where the file is. Gradio does not check the files of a gallery unless they are marked as files,
    and would then serve any of the working folder: only what lies in its cache is ours.
    """
    path, line = gallery[index]
    file = Path(path).resolve()
    if not (file.is_relative_to(Path(get_upload_folder()).resolve()) and file.is_file()):
        raise gr.Error("this picture is not here any more: draw it again", print_exception=False)
    return path, recipes[index], line or ""
