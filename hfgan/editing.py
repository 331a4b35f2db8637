"""Editing: moves of w_plus along directions, and pictures that change inside a region alone.

The order is fixed: map, truncate, mix, edit, synthesise, blend by region. Truncation never follows an edit, so that a
strength means the same at every psi. Strengths count deviations of the attribute over W (`models.directions`).
"""

from __future__ import annotations

import numbers
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from hfgan.alignment import fade
from hfgan.images import save_png, to_tensor
from hfgan.inversion import Inversion, read_interest
from hfgan.models.alpha import AlphaModel
from hfgan.models.directions import Direction, DirectionSet
from hfgan.models.encoder import shrink
from hfgan.models.stylegan2 import StyleGAN2Generator, Synthesis
from hfgan.sampling import parse_layers
from hfgan.segmentation import box_mean, composite

MOST = 1000.0  # deviations: far beyond what any generator draws
NONE, WHOLE = 0.1, 0.5  # alpha of what is no subject, and of what is one
LEVELS = 255  # of a region's weights, so that a recipe holds them exactly


# ---------------------------------------------------------------- moves


@dataclass(frozen=True, eq=False)
class Edit:
    """One move.

    Attributes:
        direction: What is changed.
        strength: By how many deviations, or with `to` which value is reached, 0 being the boundary.
        to: Whether `strength` is where to end rather than how far to go.
        layers: Those that move, and with `to` are measured; None for the direction's own.
    """

    direction: Direction
    strength: float
    to: bool = False
    layers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        given = self.strength
        if isinstance(given, bool) or not isinstance(given, numbers.Real) or not abs(given) <= MOST:  # NaN fails it
            raise ValueError(f"the strength of {self.direction.name!r} is {given!r}: expected a number, such as 2.0")
        if self.to and self.direction.normal is None:
            raise ValueError(f"nothing measures {self.direction.name!r}: it can be added, but no value of it reached")
        object.__setattr__(self, "strength", float(given))

    def moved(self, w_plus: Tensor) -> Tensor:
        """w_plus (n, num_ws, w_dim) after this move."""
        shift = self.direction.shift(w_plus.shape[1], self.layers).to(w_plus)  # (num_ws, w_dim)
        if not self.to:
            return w_plus + self.strength * shift
        measured = self.direction if self.layers is None else self.direction.on(self.layers)
        left = self.strength - measured.coordinate(w_plus)  # (n,)
        return w_plus + left.view(-1, 1, 1) * shift


Edits = Mapping[str | Direction, float] | Sequence[Edit]


def parse_edits(
    edits: Edits, known: DirectionSet | None, generator: StyleGAN2Generator, *,
    layers: str | Sequence[int] | None = None, to: bool = False,
) -> list[Edit]:  # fmt: skip
    """Edits in their order, of strengths by name or direction, to which `layers` and `to` apply, or of Edits."""
    chosen = None if layers is None else tuple(parse_layers(layers, generator.num_ws))
    if isinstance(edits, Mapping):
        found = [Edit(look_up(one, known, generator), strength, to, chosen) for one, strength in edits.items()]
    else:
        found = list(edits) if isinstance(edits, Sequence) and not isinstance(edits, str) else [edits]
        if not all(isinstance(one, Edit) for one in found):
            raise ValueError(f"edits is {edits!r:.80}: expected strengths by name, such as {{'smile': 2.0}}, or Edits")
        if chosen is not None or to:
            raise ValueError("layers and to belong to strengths by name: here each Edit has its own")
        for edit in found:
            look_up(edit.direction, known, generator)
            edit.direction.shift(generator.num_ws, edit.layers)  # says which layers there are
    return found


def look_up(one: str | Direction, known: DirectionSet | None, generator: StyleGAN2Generator) -> Direction:
    """A direction by its name, or itself; ValueError for a name unknown or a direction of another generator."""
    if isinstance(one, Direction):
        DirectionSet.of([one], generator)  # says why it is none of this generator
        return one
    if not isinstance(one, str):
        raise ValueError(f"{one!r:.80} is no direction: give the name of one, or a Direction")
    if known is None:
        raise ValueError(
            f"this model has no directions, so none called {one!r}: find some with `accelerate launch "
            "training/train.py directions`, or give a Direction"
        )
    return known[one]


def moved(w_plus: Tensor, edits: Sequence[Edit]) -> Tensor:
    """w_plus (n, num_ws, w_dim) after all edits, one after the other."""
    for edit in edits:
        w_plus = edit.moved(w_plus)
    return w_plus


# ---------------------------------------------------------------- regions


def draw_chain(
    synthesis: Synthesis, w_plus: Tensor, noise: list[Tensor | None], regions: Sequence[Tensor | None],
    net: AlphaModel | None = None,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Pictures of w_plus (n, num_ws, w_dim), drawn side by side, each in its region over the one before it.

    Inside a region features are its own and outside those of the one before at every resolution, so that what is drawn
    inside knows what it borders on; then pixels are, so that outside nothing changes at all.

    Args:
        noise: As for `Synthesis.draw`.
        regions: Of all but the first, (1, 1, r, r) in [0, 1], 1 for what may change; None for all.
        net: Reads the alpha off every picture.

    Returns:
        Pictures (n, c, r, r), and the alpha of each (n, 1, r, r), or None without `net`.
    """
    stream, limited = None if net is None else net.stream(), any(region is not None for region in regions)

    def over(x: Tensor) -> Tensor:  # (n, c, s, s)
        rows = list(x.split(1))
        for k, region in enumerate(regions, 1):
            if region is not None:
                rows[k] = composite(rows[k], rows[k - 1], shrink(region, x.shape[-1]).to(x.dtype))
        return torch.cat(rows)

    drawn = synthesis.draw(w_plus, noise, stream, alter=(lambda _, x: over(x)) if limited else None)
    return over(drawn) if limited else drawn, None if stream is None else stream.logit.sigmoid()


def around_subject(alpha: Tensor, feather: float) -> Tensor:
    """The region (1, 1, r, r) in which a subject is in either of two pictures, by their alpha (2, 1, r, r).

    1 where alpha is WHOLE, 0 where it is NONE, and wider than that by a quarter of the feather only: what is drawn
    around the subject would show there as a rim.
    """
    inside = ((alpha.amax(0, keepdim=True) - NONE) / (WHOLE - NONE)).clamp(0, 1)
    if inside.max() < 1:
        raise ValueError("the model sees no subject in this picture: leave region out, or mark one")
    return _steps(torch.maximum(inside, box_mean(inside, round(feather / 4 * inside.shape[-1]))))


def softened(region: Tensor, feather: float) -> Tensor:
    """A region (1, 1, r, r) that fades out on the inner side of its edges, in steps of 1/255."""
    soft = _steps(fade((region >= 0.5).float(), feather))
    if not soft.any():
        raise ValueError(f"the region is nowhere wider than the feather of {feather:g} sides: mark more, or give less")
    return soft


def _steps(region: Tensor) -> Tensor:
    """A region in steps of 1/255."""
    return (region * LEVELS).round() / LEVELS


def read_region(region: Any, inv: Inversion | None, side: int, feather: float) -> Tensor | None:
    """A user's region, in the frame of the picture or of the whole photo: (1, 1, side, side), None for everything."""
    if isinstance(region, str) and region == "interest":
        if inv is None:
            raise ValueError("region is 'interest', which inverted photos have: give 'alpha', a region or a box")
        return softened(inv.interest, feather)
    if isinstance(region, str) and not os.path.exists(region):
        raise ValueError(f"region is {region!r:.80}: expected 'alpha', 'interest', a region, a box or a file")
    found, _ = read_interest(region, Image.new("L", (side, side)) if inv is None else inv.photo)
    if found is None:
        return None
    marked = found.point(lambda value: 255 * (value >= 128))
    if inv is None:
        inside = to_tensor(marked.resize((side, side), Image.Resampling.BOX)) / 2 + 0.5
    else:  # of the photo no pixel beyond the region may change, so that those half inside are left out
        inside = (to_tensor(inv.alignment.crop_region(marked, side)) == 1).float()
    if not (inside >= 0.5).any():
        raise ValueError(f"the region covers none of the {side}x{side} pixels that are drawn: mark a larger one")
    return softened(inside, feather)


# ---------------------------------------------------------------- what comes out


@dataclass
class EditOutput:
    """Edited pictures and how they came about; `out[0]` is an output of one.

    Attributes:
        images, before: n pictures, and what they were.
        w_plus: (n, num_ws, w_dim), what was drawn, where a region let it show.
        region: (n, 1, r, r) in [0, 1], where pictures could change; None for everywhere.
        recipes: n JSON-able dicts for `HFGan.replay`; None where weights or noise were fitted to the photo.
        inversion: The photo that was edited, if one was.
        touched: (n, 1, r, r), where this edit or one before it could change them; None for everywhere.
    """

    images: list[Image.Image]
    before: list[Image.Image]
    w_plus: Tensor
    region: Tensor | None
    recipes: list[dict[str, Any] | None]
    inversion: Inversion | None = None
    touched: Tensor | None = None

    def __repr__(self) -> str:
        return f"EditOutput({len(self)} pictures, {'everywhere' if self.region is None else 'within a region'})"

    def changes(self) -> list[tuple[float, float]]:
        """How much each picture changed inside its region and outside: mean differences of colours in [0, 1]."""
        found = []
        for row, (old, new) in enumerate(zip(self.before, self.images, strict=True)):
            change = (to_tensor(old) - to_tensor(new)).abs().mean(1)[0] / 2  # (r, r)
            inside = torch.ones_like(change) if self.region is None else (self.region[row, 0] > 0).float()
            parts = (inside, 1 - inside)
            found.append(tuple((change * part).sum().item() / max(part.sum().item(), 1) for part in parts))
        return found

    def pasted(self, *, feather: float = 0.02) -> list[Image.Image]:
        """The whole photo with each edited picture in place of what was edited, or of the interest; RGB."""
        inv = self.inversion
        if inv is None:
            raise ValueError("these pictures were drawn from seeds: there is no photo to paste them into")
        if self.touched is None:
            return [inv.alignment.unalign(inv.photo, picture, inv.interest, feather) for picture in self.images]
        rows = zip(self.images, self.touched.split(1), strict=True)
        return [inv.alignment.unalign(inv.photo, picture, region, 0) for picture, region in rows]

    def save(self, folder: str | Path, name: str = "edit", *, overwrite: bool = False) -> list[Path]:
        """Write NAME-00.png and so on, which carry their recipes; returns the paths.

        Raises:
            FileExistsError: a file is there already and `overwrite` is false; nothing is written then.
        """
        paths = [Path(folder) / f"{name}-{row:02d}.png" for row in range(len(self))]
        if taken := [path for path in paths if path.exists() and not overwrite]:
            raise FileExistsError(f"{taken[0]} exists already: choose another folder or pass overwrite=True")
        Path(folder).mkdir(parents=True, exist_ok=True)
        for picture, path, recipe in zip(self.images, paths, self.recipes, strict=True):
            save_png(picture, path, recipe, overwrite=overwrite)
        return paths

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int | slice) -> EditOutput:
        rows = range(len(self))[index]
        chosen = list(rows) if isinstance(rows, range) else [rows]
        region, touched = (None if found is None else found[chosen] for found in (self.region, self.touched))
        pictures, before, told = ([of[i] for i in chosen] for of in (self.images, self.before, self.recipes))
        return EditOutput(pictures, before, self.w_plus[chosen], region, told, self.inversion, touched)
