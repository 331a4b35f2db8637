"""What is on the page, and where: tabs, and beside them the pictures at hand, A and B, which every tab can take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import gradio as gr

from hfgan.app import about, animate, attribute, cutout, edit, game, invert, look, mix, modes, replay, sample
from hfgan.app.card import AS_A, AS_B, CUT_OUT, EDIT, QUICK, Card, card
from hfgan.app.counters import Counters
from hfgan.app.studio import Studio
from hfgan.guessing import Photos


@dataclass(frozen=True)
class Opening:
    """What begins when the page is opened: the sampler, and the two pictures at hand."""

    sampler: sample.Sampler
    a: Card
    b: Card


def lay_out(studio: Studio, model: gr.Dropdown, photos: Photos | None, counters: Counters | None) -> Opening:
    """Lay out the tabs and what is beside them; `model` is the one that a user has chosen."""
    with gr.Row(elem_id="bench"):
        main = gr.Column(scale=5, min_width=320)
        side = gr.Column(scale=1, min_width=230, elem_id="side")  # on a phone below
    with side:
        a = card("Picture A", "Press one of the pictures of tab *Sample*", elem_id="a", ways=(EDIT, CUT_OUT, AS_B))
        b = card("Picture B", "Press *Use as B* below a picture", elem_id="b", ways=(AS_A,))
    with main, gr.Tabs(elem_id="tabs") as tabs:
        sampler = _tabs(studio, model, tabs, a, b)
        with gr.Tab("Real or generated?", elem_id="guessing"):
            game.tab(studio, model, photos, counters)
        with gr.Tab("Made by this model?", elem_id="attributing"):
            attribute.tab(studio, model, a)
        with gr.Tab("About", elem_id="about"):
            about.tab(studio, model)
    a.send(AS_B, b)
    b.send(AS_A, a)
    gr.on(None, None, None, None, js=look.SCRIPT, **QUICK)  # as the page is opened
    return Opening(sampler, a, b)


def _tabs(studio: Studio, model: gr.Dropdown, tabs: gr.Tabs, a: Card, b: Card) -> sample.Sampler:
    """The tabs of what a model does, each of which can send its picture to others."""
    name = str(model.value)
    with gr.Tab("Sample", id="sample", elem_id="sampling"):
        sampler = sample.tab(studio, model, a)
        replay.part(studio, model, a)
    with gr.Tab("Invert", elem_id="inverting"):
        inverting = invert.tab(studio, model, a)
    with gr.Tab("Edit", id="edit", elem_id="editing"):
        edits = edit.tab(studio, model, a, b)
    with gr.Tab("Cut out", id="cutout", elem_id="cutout", visible=cutout.able(studio, name)) as able:
        cutting = cutout.tab(studio, model, a)
    with gr.Tab("Mix", elem_id="mix"):
        mixed = mix.tab(studio, model, a, b)
    with gr.Tab("Animate", elem_id="animate"):
        animate.tab(studio, model, a, b)
    with gr.Tab("Modes", elem_id="compared", visible=studio.num_modes(name) > 0) as compared:
        modes.tab(studio, model, a, sampler)
    invert.join(inverting, cutting, a, tabs)
    edit.join(edits, inverting, a, tabs)
    cutout.join(cutting, studio, model, a, tabs)
    for tab, there in ((able, partial(cutout.able, studio)), (compared, lambda name: studio.num_modes(name) > 0)):
        told = model.change(partial(_seen, there), model, tab, **QUICK)
        told.then(None, None, None, js=look.HOME, **QUICK)
    mixed.send(AS_A, a)
    mixed.send(AS_B, b)
    return sampler


def _seen(there: Callable[[str], bool], model: str) -> gr.Tab:
    """An update of a tab that is there for some models only."""
    return gr.Tab(visible=there(model) or "hidden")  # with False, Gradio 6.31 goes on to show what was there at first
