"""What a picture is called: its file name and a line to read, both from its recipe."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from hfgan.recipes import Recipe


def file_name(recipe: Recipe) -> str:
    """seed0042.png; seed0042-mode12.png where it has a mode; seed0042-mix0007_4-7.png; seed0042-mixed3.png.

    Of an edit: what its sample's would be, as in seed0042-edited.png; photo-edited.png where it has none.
    """
    if "edits" in recipe:
        began = "photo.png" if "w_plus" in recipe["source"] else file_name(recipe["source"])
        return began.removesuffix(".png").removesuffix("-edited") + "-edited.png"
    steps = recipe["mix"]
    mode = "" if recipe["mode"] is None else f"-mode{recipe['mode']}"
    mixed = f"-mixed{len(steps)}" if steps else ""
    if len(steps) == 1:
        mixed = f"-mix{steps[0]['seed']:04d}_{spans(steps[0]['layers'])}"
    return f"seed{recipe['seed']:04d}{mode}{mixed}.png"


def caption(recipe: Recipe) -> str:
    """seed 42 · mode 12 · psi 0.7 · layers 4-7 of seed 7; of an edit further: · smile +2"""
    if "edits" in recipe:
        source = "a latent" if "w_plus" in recipe["source"] else caption(recipe["source"])
        return " · ".join([source, *(f"{plain(edit['name'])} {edit['strength']:+g}" for edit in recipe["edits"])])
    mode, psi, cutoff, label, noise = (
        recipe[key] for key in ("mode", "truncation_psi", "truncation_cutoff", "label", "noise_mode")
    )
    said = [f"seed {recipe['seed']}"]
    said += [f"mode {mode}"] if mode is not None else []
    said += [f"psi {'/'.join(f'{one:g}' for one in psi)}" if isinstance(psi, list) else f"psi {psi:g}"]
    said += [f"on {cutoff} layers"] if cutoff is not None else []
    said += [f"class {label}"] if label is not None else []
    said += [f"noise {noise}"] if noise != "const" else []
    said += [f"layers {spans(step['layers'])} of seed {step['seed']}" for step in recipe["mix"]]
    return " · ".join(said)


def plain(name: str) -> str:
    """A name that may come from a stranger, without what Markdown or HTML would make a link or a picture of."""
    return re.sub(r"[^\w\s.,:;+&'-]", "", name).replace("_", " ")


def spans(layers: Sequence[int]) -> str:
    """[0, 1, 2, 3, 5] as "0-3,5", what `sampling.parse_layers` reads."""
    runs = itertools.groupby(enumerate(sorted(layers)), lambda pair: pair[1] - pair[0])
    ends = [[layer for _, layer in run] for _, run in runs]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in ends)
