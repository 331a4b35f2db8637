"""Recipes of edits: all that is needed to draw an edited picture again, as a JSON-able dict that a PNG can carry.

Where it began is a sample's own recipe, w_plus itself, or the recipe of an edited picture whose regions differ; each
edit holds its step and its normal, so that neither the photo, nor the mask, nor the model's directions are needed
again. Another model is refused.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hfgan import __version__, recipes
from hfgan.editing import LEVELS, Edit
from hfgan.models.directions import Direction
from hfgan.recipes import Recipe

KIND, FORMAT = "edit", 1
KEYS = ("format", "kind", "hfgan", "model", "fingerprint", "dtype", "source", "edits", "region")
EDIT = ("name", "strength", "to", "layers", "own_layers", "step", "normal", "offset")
MAX_SIDE = 4096  # px of a region
MAX_DEPTH = 100  # of edits within regions one after the other


def make(
    source: Recipe, edits: Sequence[Edit], region: Tensor | None, *, model: str | None, fingerprint: str, dtype: str
) -> Recipe:
    """The recipe of one picture.

    Args:
        source: A sample's recipe, what `of_latent` gives, or the recipe of an edited picture.
        region: (1, 1, r, r) in steps of 1/255, None for everywhere.
    """
    if depth(source) >= MAX_DEPTH:
        raise ValueError(f"{MAX_DEPTH} edits within regions one over the other, the most a recipe holds: undo some")
    told = [_tell(edit) for edit in edits]
    seen = None if region is None else _png(region)
    return dict(zip(KEYS, (FORMAT, KIND, __version__, model, fingerprint, dtype, source, told, seen), strict=True))


def of_latent(w_plus: Tensor) -> Recipe:
    """w_plus (num_ws, w_dim) as a source."""
    return {"w_plus": _pack(w_plus), "shape": list(w_plus.shape)}


def latent(source: Recipe, num_ws: int, w_dim: int) -> Tensor | None:
    """The w_plus (1, num_ws, w_dim) of a source that holds it; None for one that is a sample's recipe."""
    if "w_plus" not in source:
        return None
    if source.get("shape") != [num_ws, w_dim]:
        raise ValueError(f"the recipe's w_plus has shape {source.get('shape')}: this model's is [{num_ws}, {w_dim}]")
    return _unpack(source["w_plus"], (num_ws, w_dim))[None]


def check(recipe: Any) -> Recipe:
    """The recipe, or a ValueError that says why it is none that this version can follow."""
    one, depth = recipe, 0
    while is_edit(one):
        if (given := one.get("format")) != FORMAT:
            raise ValueError(
                f"the recipe of an edit has format {given!r}: this version of hfgan follows format {FORMAT} only"
            )
        recipes.check_keys("recipe", one, KEYS)
        whole = isinstance(one["source"], dict) and isinstance(one["edits"], list) and depth < MAX_DEPTH
        if not whole or one["fingerprint"] != recipe["fingerprint"]:
            raise ValueError("the recipe's source or edits are not what they should be: it is damaged")
        for edit in one["edits"]:
            recipes.check_keys("recipe's edit", edit, EDIT)
        one, depth = one["source"], depth + 1
    return recipe


def is_edit(recipe: Any) -> bool:
    """Whether this is a recipe of an edit, rather than a sample's."""
    return isinstance(recipe, dict) and recipe.get("kind") == KIND


def depth(recipe: Recipe) -> int:
    """How many recipes of edits lie within one another."""
    count = 0
    while is_edit(recipe):
        recipe, count = recipe["source"], count + 1
    return count


def origin(recipe: Recipe) -> Recipe:
    """Where all edits of a recipe that was checked began: a sample's recipe, or what `of_latent` gives."""
    while is_edit(recipe):
        recipe = recipe["source"]
    return recipe


def edits(recipe: Recipe, w_dim: int) -> list[Edit]:
    """The edits of a recipe that was checked."""
    return [_listen(edit, w_dim) for edit in recipe["edits"]]


def region(recipe: Recipe, side: int) -> Tensor | None:
    """The region (1, 1, side, side) of a recipe that was checked."""
    if recipe["region"] is None:
        return None
    try:
        pil = Image.open(io.BytesIO(base64.b64decode(recipe["region"], validate=True)), formats=["PNG"])
        fits = pil.mode == "L" and pil.size == (side, side) and side <= MAX_SIDE
        pixels = np.array(pil) if fits else None
    except (ValueError, TypeError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError("the recipe's region cannot be read: it is damaged") from error
    if pixels is None:
        raise ValueError(f"the recipe's region is not {side}x{side} in grey: it is damaged, or of another model")
    return torch.from_numpy(pixels).float()[None, None] / LEVELS


def _tell(edit: Edit) -> Recipe:
    one = edit.direction
    layers = None if edit.layers is None else list(edit.layers)
    own = None if one.layers is None else list(one.layers)
    normal = None if one.normal is None else _pack(one.normal)
    said = (one.name, edit.strength, edit.to, layers, own, _pack(one.step), normal, one.offset)
    return dict(zip(EDIT, said, strict=True))


def _listen(told: Recipe, w_dim: int) -> Edit:
    step = _unpack(told["step"], (-1, w_dim))
    normal = None if told["normal"] is None else _unpack(told["normal"], (w_dim,))
    if not isinstance(told["to"], bool) or not all(
        isinstance(told[key], list | None) for key in ("layers", "own_layers")
    ):
        raise ValueError("the recipe's edit has layers or a `to` that are not what they should be: it is damaged")
    direction = Direction(told["name"], step, normal, told["offset"], told["own_layers"], "imported")
    return Edit(direction, told["strength"], told["to"], told["layers"] and tuple(told["layers"]))


def _pack(tensor: Tensor) -> str:
    """fp32 numbers, little-endian, as base64."""
    return base64.b64encode(tensor.detach().cpu().float().contiguous().numpy().astype("<f4").tobytes()).decode()


def _unpack(text: Any, shape: tuple[int, ...]) -> Tensor:
    """Inverse of `_pack`; of a shape one side may be -1."""
    try:
        found = torch.from_numpy(np.frombuffer(base64.b64decode(text, validate=True), "<f4").reshape(shape).copy())
    except (ValueError, TypeError) as error:
        raise ValueError(f"the recipe holds no {list(shape)} numbers where it should: it is damaged") from error
    if not found.isfinite().all():
        raise ValueError("the recipe holds NaN or infinity where numbers should be: it is damaged")
    return found


def _png(region: Tensor) -> str:
    buffer = io.BytesIO()
    Image.fromarray((region[0, 0] * LEVELS).round().to(torch.uint8).cpu().numpy()).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
