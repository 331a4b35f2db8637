"""Recipes: what is needed to draw a picture again, as a JSON-able dict that a PNG can carry.

A recipe names the model by the fingerprint of its weights and refuses another; where a mode is used, its modes
too. `mix` lists the styles taken from other seeds, in the order in which they were put in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hfgan import __version__

FORMAT = 2
# all that determines a w_plus before mixing: z is number `draw` of those that the seed gives, `mode` the index of
# the mode that it is truncated toward, None for w_avg
LATENT = ("seed", "draw", "truncation_psi", "truncation_cutoff", "label", "mode")
KEYS = ("format", "hfgan", "model", "fingerprint", "modes", "dtype", *LATENT, "noise_mode", "mix")

Recipe = dict[str, Any]


def make(
    latent: Recipe, noise_mode: str, *, model: str | None, fingerprint: str, modes: str | None, dtype: str
) -> Recipe:
    """The recipe of one picture; `latent` holds LATENT, `modes` is the fingerprint of the modes, if there are any."""
    used = None if latent["mode"] is None else modes
    said = (FORMAT, __version__, model, fingerprint, used, dtype)
    return dict(zip(KEYS, (*said, *(latent[key] for key in LATENT), noise_mode, []), strict=True))


def mixed(a: Recipe, b: Recipe, layers: list[int]) -> Recipe:
    """The recipe of `a` with `layers` of `b`; what had been mixed into b comes along where it shows."""
    steps = [{"layers": layers} | {key: b[key] for key in LATENT}]
    for step in b["mix"]:
        if shown := [layer for layer in layers if layer in step["layers"]]:
            steps.append(step | {"layers": shown})
    both = a | {"mix": [*a["mix"], *steps]}
    return both | {"modes": (a["modes"] or b["modes"]) if _uses_modes(both) else None}


def check(recipe: Any) -> Recipe:
    """The recipe, or a ValueError that says why it is none that this version can follow."""
    if not isinstance(recipe, dict) or "fingerprint" not in recipe:
        raise ValueError("no recipe of hfgan here: give a PNG that hfgan saved, or an entry of `recipes`")
    if recipe.get("format") != FORMAT:
        raise ValueError(
            f"the recipe has format {recipe.get('format')!r}: this version of hfgan follows format {FORMAT} only"
        )
    check_keys("recipe", recipe, KEYS)
    if not isinstance(recipe["mix"], list):
        raise ValueError(f"the recipe's mix is a {type(recipe['mix']).__name__}: expected a list")
    for step in recipe["mix"]:
        check_keys("recipe's mix", step, ("layers", *LATENT))
    if _uses_modes(recipe) != (recipe["modes"] is not None):
        raise ValueError("the recipe says that modes are used, or which ones, but not both: it is damaged")
    return recipe


def check_model(recipe: Recipe, *, fingerprint: str, modes: str | None, name: str | None) -> None:
    """ValueError unless the model of this fingerprint and name drew the recipe's picture, with the same modes."""
    if recipe["fingerprint"] != fingerprint:
        raise ValueError(
            f"this was drawn by {_called(recipe['model'], recipe['fingerprint'])}, but the loaded model is "
            f"{_called(name, fingerprint)}: load the model that drew it"
        )
    if recipe["modes"] not in (None, modes):
        loaded = f"has the modes {modes}" if modes else "has no modes"
        raise ValueError(
            f"this was drawn with the modes {recipe['modes']} of {_called(recipe['model'], recipe['fingerprint'])}, "
            f"but the loaded model {loaded}: load it with the modes that drew it"
        )


def _called(name: str | None, fingerprint: str) -> str:
    return f"{name or 'an unnamed model'} ({fingerprint})"


def _uses_modes(recipe: Recipe) -> bool:
    return any(latent["mode"] is not None for latent in (recipe, *recipe["mix"]))


def check_keys(what: str, found: Any, expected: Sequence[str]) -> None:
    """ValueError unless what was found is a dict with just the expected keys."""
    keys = set(found) if isinstance(found, dict) else set()
    faults = {"lacks": set(expected) - keys, "has unknown": keys - set(expected)}
    said = [f"{fault} {', '.join(sorted(names))}" for fault, names in faults.items() if names]
    if said:
        raise ValueError(f"the {what} {' and '.join(said)}: it is damaged, or of another version of hfgan")
