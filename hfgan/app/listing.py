"""What there is to choose from, for programs: models, their modes, their directions. No button calls these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from hfgan.pipeline import HFGan

Rows = list[dict[str, Any]]


class Listing:
    """Lists of JSON about loaded models, without paths."""

    def __init__(self, models: Mapping[str, HFGan]) -> None:
        self._models = models

    def list_models(self) -> Rows:
        """List the loaded models, the one that is meant first.

        Returns:
            For each its name, the fingerprint of its weights, resolution [px], channels, layers (of styles, as in
            layers "0-3"), classes, the numbers of its modes and directions, and its parts.
        """
        return [_about(name, gan) for name, gan in self._models.items()]

    def list_modes(self, model: str) -> Rows:
        """List the modes of a model, the kinds of picture that it draws most.

        Args:
            model: Name of a loaded model.

        Returns:
            For each its number, as `sample` takes it, and its share of what the model draws, 0 to 1; none for a model
            without modes.
        """
        bank = self._of(model).modes
        counts = [] if bank is None else bank.counts.tolist()
        return [{"mode": mode, "share": count / max(sum(counts), 1)} for mode, count in enumerate(counts)]

    def list_directions(self, model: str) -> Rows:
        """List the directions of a model, along which `edit` moves a picture.

        Args:
            model: Name of a loaded model.

        Returns:
            For each its name, kind (where it comes from), quality (strong, usable, weak or null) and the layers that
            it moves, null for all; none for a model without directions.
        """
        return [{"name": one.name, "kind": one.kind, "quality": one.source.get("quality"),
                 "layers": None if one.layers is None else list(one.layers)}
                for one in self._of(model).directions or ()]  # fmt: skip

    def _of(self, model: str) -> HFGan:
        """The model of that name, or a message to who asked."""
        if not isinstance(model, str) or model not in self._models:
            raise gr.Error("no such model here: choose one of " + ", ".join(self._models), print_exception=False)
        return self._models[model]


def offer(models: Mapping[str, HFGan]) -> None:
    """Add the endpoints `list_models`, `list_modes` and `list_directions` to the page that is being built."""
    listing = Listing(models)
    for verb in (listing.list_models, listing.list_modes, listing.list_directions):
        gr.api(verb, api_name=verb.__name__, concurrency_limit=None)  # it waits for no picture


def _about(name: str, gan: HFGan) -> dict[str, Any]:
    config = gan.generator.config
    return {
        "name": name,
        "fingerprint": gan.generator.fingerprint(),
        "resolution": config.resolution,
        "channels": config.img_channels,
        "layers": gan.generator.num_ws,
        "classes": config.c_dim,
        "modes": 0 if gan.modes is None else len(gan.modes.counts),
        "directions": len(list(gan.directions or ())),
        "parts": sorted(gan.parts),
    }
