"""Recipes: what is needed to draw a picture again, as a JSON-able dict that a PNG can carry.

A recipe names the model by the fingerprint of its weights and refuses another. `mix` lists the styles taken
from other seeds, in the order in which they were put in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hfgan import __version__

FORMAT = 1
LATENT = (
    "seed",
    "truncation_psi",
    "truncation_cutoff",
    "label",
)  # all that determines a w_plus before mixing
KEYS = ("format", "hfgan", "model", "fingerprint", "dtype", *LATENT, "noise_mode", "mix")

Recipe = dict[str, Any]


def make(
    latent: tuple[int, float, int | None, int | None],
    noise_mode: str,
    *,
    model: str | None,
    fingerprint: str,
    dtype: str,
) -> Recipe:
    """The recipe of one picture; `latent` holds the values of LATENT."""
    said = (FORMAT, __version__, model, fingerprint, dtype)
    return dict(zip(KEYS, (*said, *latent, noise_mode, []), strict=True))


def mixed(a: Recipe, b: Recipe, layers: list[int]) -> Recipe:
    """The recipe of `a` with `layers` of `b`; what had been mixed into b comes along where it shows."""
    steps = [{"layers": layers} | {key: b[key] for key in LATENT}]
    for step in b["mix"]:
        if shown := [layer for layer in layers if layer in step["layers"]]:
            steps.append(step | {"layers": shown})
    return a | {"mix": [*a["mix"], *steps]}


def check(recipe: Any) -> Recipe:
    """The recipe, or a ValueError that says why it is none that this version can follow."""
    if not isinstance(recipe, dict) or "fingerprint" not in recipe:
        raise ValueError("no recipe of hfgan here: give a PNG that hfgan saved, or an entry of `recipes`")
    if recipe.get("format") != FORMAT:
        raise ValueError(f"the recipe has format {recipe.get('format')!r} and not {FORMAT}: upgrade hfgan")
    _check_keys("recipe", recipe, KEYS)
    if not isinstance(recipe["mix"], list):
        raise ValueError(f"the recipe's mix is a {type(recipe['mix']).__name__}: expected a list")
    for step in recipe["mix"]:
        _check_keys("recipe's mix", step, ("layers", *LATENT))
    return recipe


def check_model(recipe: Recipe, fingerprint: str, name: str | None) -> None:
    """ValueError unless the model of this fingerprint and name drew the recipe's picture."""
    if recipe["fingerprint"] != fingerprint:
        raise ValueError(
            f"this was drawn by {_called(recipe['model'], recipe['fingerprint'])}, but the loaded model is "
            f"{_called(name, fingerprint)}: load the model that drew it"
        )


def _called(name: str | None, fingerprint: str) -> str:
    return f"{name or 'an unnamed model'} ({fingerprint})"


def _check_keys(what: str, found: Any, expected: Sequence[str]) -> None:
    keys = set(found) if isinstance(found, dict) else set()
    faults = {"lacks": set(expected) - keys, "has unknown": keys - set(expected)}
    said = [f"{fault} {', '.join(sorted(names))}" for fault, names in faults.items() if names]
    if said:
        raise ValueError(f"the {what} {' and '.join(said)}: it is damaged, or of another version of hfgan")
