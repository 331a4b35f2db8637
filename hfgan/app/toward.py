"""Toward what section Sample truncates: the mean of all, or the modes of a model that has some, in a gallery."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr
from gradio.events import Dependency

from hfgan.app.card import QUICK
from hfgan.app.studio import MAX_SHOWN, TRUNCATIONS, Studio
from hfgan.models.banks import MAX_MODES


@dataclass(frozen=True)
class Chooser:
    """The components of the choice."""

    truncation: gr.Radio
    mode: gr.Number
    gallery: gr.Gallery

    @property
    def inputs(self) -> list[gr.components.Component]:
        """The last arguments of `Studio.sample`."""
        return [self.truncation, self.mode]

    def chosen(self) -> Dependency:
        """The event that a mode was clicked on and is the one to sample from."""
        self.truncation.input(point, self.inputs, self.gallery, **QUICK)
        return self.gallery.select(choose, None, self.inputs, **QUICK)

    def changed(self, studio: Studio, model: gr.Dropdown) -> Dependency:
        """The event that another model was chosen and the choice is back at its start."""
        return model.change(lambda name: offer(studio.num_modes(name)), model, [*self.inputs, self.gallery], **QUICK)


def choice(count: int) -> tuple[gr.Radio, gr.Number]:
    """Toward what, in a model of so many modes, unseen where there are none; and toward which mode, unseen."""
    truncation = gr.Radio(choices(0), value="global", label="Truncation", info=said(count), visible=count > 0,
                          elem_id="truncation")  # fmt: skip
    return truncation, gr.Number(0, label="Mode", precision=0, minimum=0, maximum=MAX_MODES - 1, visible=False)


def gallery(count: int) -> gr.Gallery:
    """Where `Studio.modes` goes, in a model of so many modes, unseen where there are none."""
    return gr.Gallery(
        label="Modes",
        format="png",
        height="auto",
        object_fit="cover",
        allow_preview=False,
        buttons=[],
        interactive=False,
        visible=count > 0,
        elem_id="modes",
        elem_classes="below",
    )


def choices(mode: int) -> list[tuple[str, str]]:
    """Names and values of the ways to truncate, the last toward this mode."""
    names = ("Global", "Multi-modal (nearest mode)", "Around all modes", f"Mode {mode}")
    return list(zip(names, TRUNCATIONS, strict=True))


def said(count: int) -> str:
    """What the choice is about, in a model of so many modes."""
    shown = "modes below" if count <= MAX_SHOWN else f"modes, of which the {MAX_SHOWN} largest are below"
    return f"What a lower psi leads to: the mean of all pictures, or one of the {count:,} {shown}"


def offer(count: int) -> tuple[gr.Radio, int, gr.Gallery]:
    """Updates for a model of so many modes."""
    radio = gr.Radio(choices(0), value="global", info=said(count), visible=count > 0)
    return radio, 0, gr.Gallery([], selected_index=None, visible=count > 0)


def choose(event: gr.SelectData) -> tuple[gr.Radio, int]:
    """The mode that was clicked on."""
    return gr.Radio(choices(event.index), value="mode"), event.index


def point(truncation: str, mode: int) -> gr.Gallery:
    """Point at the mode where one is chosen."""
    return gr.Gallery(selected_index=mode if truncation == "mode" else None)
