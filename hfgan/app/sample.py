"""Tab Sample: controls, the gallery of what was drawn, and the modes; the picture that is chosen becomes A."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.events import Dependency

from hfgan.app import toward
from hfgan.app.card import QUICK, Card
from hfgan.app.gpu import on_gpu
from hfgan.app.studio import Drawn, Studio, own_file
from hfgan.captions import caption
from hfgan.models.stylegan2 import NOISE_MODES
from hfgan.recipes import Recipe
from hfgan.sampling import MAX_SEED

DRAWING = {"concurrency_id": "drawing", "concurrency_limit": 1}  # one picture at a time, whoever asks
DICE = f"() => Math.floor(Math.random() * {MAX_SEED + 1})"
MAX_IMAGES, MAX_PSI = 16, 1.5

Gallery = list[tuple[str, str | None]]  # files and captions


@dataclass(frozen=True)
class Sampler:
    """The components of this tab that others need; `how` are those inputs that say nothing of modes.

    `changed` is the event that another model was chosen and toward what to truncate is back at its start.
    """

    how: list[gr.components.Component]
    inputs: list[gr.components.Component]
    outputs: list[gr.components.Component]
    modes: gr.Gallery
    changed: Dependency


def tab(studio: Studio, model: gr.Dropdown, a: Card) -> Sampler:
    """Lay out the tab; its event `sample` is public. The picture that is chosen goes to A."""
    count = studio.num_modes(str(model.value))
    with gr.Row(elem_id="sample"):
        with gr.Column(scale=2, min_width=260, elem_id="controls"):
            draw, dice, how = _controls(studio)
        with gr.Column(scale=5, min_width=320):
            outputs = pictures("Pictures", "Recipes", elem_id="gallery", columns=4)
            choice = toward.choice(count)
        chooser = toward.Chooser(*choice, toward.gallery(count))
    inputs, changed = [model, *how, *chooser.inputs], chooser.changed(studio, model)
    sampler = Sampler([model, *how], inputs, outputs, chooser.gallery, changed)
    _, seed, psi, *_ = how
    chosen = chooser.chosen()  # first, so that it is pointed at before anything is drawn
    drawn = gr.on([draw.click, seed.submit, psi.release, chooser.truncation.input], on_gpu(studio.sample),
                  inputs, outputs, api_name="sample", **DRAWING)  # fmt: skip
    rolled = dice.click(None, None, seed, js=DICE, api_visibility="private")
    others = [event.then(on_gpu(studio.sample), inputs, outputs, api_visibility="private", **DRAWING)
              for event in (rolled, chosen)]  # fmt: skip
    for event in (drawn, *others):
        event.success(follow, [*outputs, a.recipe], [outputs[0], *a.values], **QUICK)
    outputs[0].select(pick, outputs, a.values, **QUICK)
    return sampler


def pictures(label: str, recipes: str, *, elem_id: str, columns: int, **options: Any) -> list[gr.components.Component]:
    """A gallery and, unseen, the recipes of what it shows."""
    gallery = gr.Gallery(
        label=label,
        format="png",
        columns=columns,
        height="auto",
        object_fit="cover",
        allow_preview=False,
        buttons=["download_all"],
        interactive=False,
        elem_id=elem_id,
        **options,
    )
    return [gallery, gr.JSON(label=recipes, visible=False)]


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


def begin(studio: Studio, sampler: Sampler, a: Card, b: Card, event: Callable) -> Dependency:
    """On `event`, such as the load of the page, draw the first pictures and put two into A and B.

    Returns the event that they are there.
    """
    outputs = [*sampler.outputs, *a.values, *b.values]

    def first_pictures(*values: Any) -> Sequence[Any]:
        gallery, recipes = studio.sample(*values)
        return gr.Gallery(gallery, selected_index=0), recipes, *_at(gallery, recipes, 0), *_at(gallery, recipes, -1)

    return event(on_gpu(first_pictures), sampler.inputs, outputs, api_visibility="private",
                 show_progress_on=sampler.outputs[0], **DRAWING)  # fmt: skip


def follow(gallery: Gallery, recipes: list[Recipe], chosen: Recipe) -> tuple[Any, ...]:
    """Of what was drawn, choose the picture with the seed of the one that was chosen, or the first; point at it."""
    seeds = [recipe["seed"] for recipe in recipes]
    index = seeds.index(chosen["seed"]) if chosen and chosen.get("seed") in seeds else 0
    return gr.Gallery(selected_index=index), *_at(gallery, recipes, index)


def pick(gallery: Gallery, recipes: list[Recipe], event: gr.SelectData) -> Drawn:
    """The picture that was clicked on."""
    return _at(gallery, recipes, event.index)


def _at(gallery: Gallery, recipes: list[Recipe], index: int) -> Drawn:
    """File, recipe and caption of one picture; a client says where the file is."""
    path, _ = gallery[index]
    own_file(path)
    return path, recipes[index], caption(recipes[index])
