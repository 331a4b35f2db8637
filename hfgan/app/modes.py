"""Tab Modes: what truncation toward modes does, along psi for one picture and side by side for many."""

from __future__ import annotations

import gradio as gr

from hfgan.app.card import QUICK, Card
from hfgan.app.gpu import on_gpu
from hfgan.app.sample import DRAWING, Sampler, pick, pictures
from hfgan.app.studio import SWEEP, Studio

# done in the browser, as on a phone picture A is far below
SHOW = """() => {
  document.getElementById("a").scrollIntoView({block: "nearest", behavior: "smooth"});
  return [];
}"""
ABOUT = """A lower psi makes pictures more typical: of all that the model draws, or of one of its modes, the kinds that
it draws most. Press a picture below to make it A."""
COLUMNS = 4  # of the two galleries side by side


def tab(studio: Studio, model: gr.Dropdown, a: Card, sampler: Sampler) -> None:
    """Lay out the tab; its events `sweep` and `compare` are public. A picture that is clicked on becomes A."""
    gr.Markdown(ABOUT, elem_id="modes-about", elem_classes="caption")
    sweep = gr.Button("Sweep psi of A", variant="primary", elem_id="sweep-draw")
    swept = _both("sweep", len(SWEEP))
    compare = gr.Button("Side by side: the seeds of tab Sample", variant="primary", elem_id="compare-draw")
    with gr.Row():
        compared = _both("compare", COLUMNS)
    sweep.click(on_gpu(studio.sweep), [model, a.recipe], swept, api_name="sweep", **DRAWING)
    compare.click(on_gpu(studio.compare), sampler.how, compared, api_name="compare", **DRAWING)
    for strip in (swept[:2], swept[2:], compared[:2], compared[2:]):
        chosen = strip[0].select(pick, strip, a.values, **QUICK)
        chosen.success(lambda: gr.Gallery(selected_index=None), None, sampler.outputs[0], js=SHOW, **QUICK)


def _both(elem_id: str, columns: int) -> list[gr.components.Component]:
    """Galleries and recipes under global and under multi-modal truncation."""
    how = {"columns": columns, "elem_classes": "below", "min_width": 240}
    first = pictures("Global: toward the mean of all", "Recipes, global", elem_id=f"{elem_id}-global", **how)
    second = pictures("Multi-modal: toward its mode", "Recipes, multi-modal", elem_id=f"{elem_id}-multimodal", **how)
    return [*first, *second]
