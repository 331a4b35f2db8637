"""Editing: moves of w_plus along directions, and pictures that change inside a region alone.

The order is fixed: map, truncate, mix, edit, synthesise, blend by region. Truncation never follows an edit, so that a
strength means the same at every psi. Strengths count deviations of the attribute over W (`models.directions`).
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from hfgan.alignment import fade
from hfgan.images import save_png, to_pil, to_tensor
from hfgan.inversion import Inversion, read_interest
from hfgan.models.alpha import AlphaNetwork, AlphaStream
from hfgan.models.directions import Direction, DirectionSet
from hfgan.models.encoder import shrink
from hfgan.models.stylegan2 import SynthesisNetwork
from hfgan.sampling import parse_layers
from hfgan.segmentation import composite

MOST = 1000.0  # deviations: far beyond what any generator draws
GROWN = 1 / 32  # sides: how far beyond its subject a region reaches that is found from alpha
LEVELS = 255  # of a region's weights, so that a recipe holds them exactly


# ---------------------------------------------------------------- moves


@dataclass(frozen=True, eq=False)
class Edit:
    """One move.

    Attributes:
        direction: What is changed.
        strength: By how many deviations, or with `to` which value is reached, 0 being the boundary.
        to: Whether `strength` is where to end rather than how far to go.
        layers: Those that move; None for the direction's own.
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
        left = self.strength - self.direction.coordinate(w_plus)  # (n,)
        return w_plus + left.view(-1, 1, 1) * shift


Edits = Mapping[str | Direction, float] | Sequence[Edit]


def parse_edits(
    edits: Edits, known: DirectionSet | None, num_ws: int, *, layers: str | Sequence[int] | None = None,
    to: bool = False,
) -> list[Edit]:  # fmt: skip
    """Edits in their order, of strengths by name or direction, to which `layers` and `to` apply, or of Edits."""
    chosen = None if layers is None else tuple(parse_layers(layers, num_ws))
    if isinstance(edits, Mapping):
        found = [Edit(look_up(one, known), strength, to, chosen) for one, strength in edits.items()]
    else:
        found = list(edits) if isinstance(edits, Sequence) and not isinstance(edits, str) else [edits]
        if not all(isinstance(one, Edit) for one in found):
            raise ValueError(f"edits is {edits!r:.80}: expected strengths by name, such as {{'smile': 2.0}}, or Edits")
        if chosen is not None or to:
            raise ValueError("layers and to belong to strengths by name: here each Edit has its own")
    return found


def look_up(one: str | Direction, known: DirectionSet | None) -> Direction:
    """A direction by its name, or itself; ValueError for a name that the model does not have."""
    if isinstance(one, Direction):
        return one
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


def draw_both(
    synthesis: SynthesisNetwork, before: Tensor, after: Tensor, noise: list[Tensor | None],
    region: Tensor | None = None, net: AlphaNetwork | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
    """Pictures of w_plus before and after an edit (1, num_ws, w_dim), drawn side by side.

    Inside a region features are the edited ones and outside the others at every resolution, so that what is drawn
    inside knows what it borders on; then pixels are, so that outside nothing changes at all.

    Args:
        noise: As for `SynthesisNetwork.draw`.
        region: (1, 1, r, r) in [0, 1], 1 for what may change; None for all.
        net: Reads the alpha off both pictures.

    Returns:
        Both pictures (1, c, r, r), and the alpha of both (2, 1, r, r), or None without `net`.
    """
    stream = None if net is None else AlphaStream(net)

    def alter(_: int, x: Tensor) -> Tensor:  # (2, c, s, s)
        old, new = x.chunk(2)
        return torch.cat([old, composite(new, old, shrink(region, x.shape[-1]).to(x.dtype))])

    pair = torch.cat([before, after])
    drawn = synthesis.draw(pair, noise, stream, alter=None if region is None else alter)
    old, new = drawn.chunk(2)
    new = new if region is None else composite(new, old, region)
    return old, new, None if stream is None else stream.logit.sigmoid()


def around_subject(alpha: Tensor, feather: float) -> Tensor:
    """The region (1, 1, r, r) in which a subject is in either of two pictures, by their alpha (2, 1, r, r)."""
    reach = max(1, round(GROWN * alpha.shape[-1])) + round(feather / 2 * alpha.shape[-1])
    inside = (alpha.amax(0, keepdim=True) >= 0.5).float()
    if not inside.any():
        raise ValueError("the model sees no subject in this picture: leave region out, or mark one")
    return softened(F.max_pool2d(inside, 2 * reach + 1, 1, reach), feather)


def softened(region: Tensor, feather: float) -> Tensor:
    """A region (1, 1, r, r) that fades out on the inner side of its edges, in steps of 1/255."""
    return (fade((region >= 0.5).float(), feather) * LEVELS).round() / LEVELS


def read_region(region: Any, picture: Image.Image, inv: Inversion | None, side: int, feather: float) -> Tensor | None:
    """A user's region, in the frame of the picture or of the whole photo: (1, 1, side, side), None for everything."""
    if isinstance(region, str) and region == "interest":
        if inv is None:
            raise ValueError("region is 'interest', which inverted photos have: give 'alpha', a region or a box")
        return softened(inv.interest, feather)
    if isinstance(region, str) and not Path(region).exists():
        raise ValueError(f"region is {region!r}: expected 'alpha', 'interest', a region, a box or a file")
    found, _ = read_interest(region, picture if inv is None else inv.photo)
    if found is None:
        return None
    seen = found.resize((side, side), Image.Resampling.BOX) if inv is None else inv.alignment.crop_region(found, side)
    inside = to_tensor(seen) / 2 + 0.5
    if not (inside >= 0.5).any():
        raise ValueError(f"the region covers no pixel of the {side}x{side} that are drawn: mark a larger one")
    return softened(inside, feather)


# ---------------------------------------------------------------- what comes out


@dataclass
class EditOutput:
    """Edited pictures and how they came about; `out[0]` is an output of one.

    Attributes:
        images, before: n pictures, and what they were.
        w_plus: (n, num_ws, w_dim), what was drawn, wherever a region let it show.
        region: (n, 1, r, r) in [0, 1], where pictures could change; None for everywhere.
        recipes: n JSON-able dicts for `HFGan.replay`; None where weights or noise were fitted to the photo.
        inversion: The photo that was edited, if one was.
    """

    images: list[Image.Image]
    before: list[Image.Image]
    w_plus: Tensor
    region: Tensor | None
    recipes: list[dict[str, Any] | None]
    inversion: Inversion | None = None

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
        """The whole photo with each edited picture in place of its region, or of the interest; RGB."""
        inv = self.inversion
        if inv is None:
            raise ValueError("these pictures were drawn from seeds: there is no photo to paste them into")
        if self.region is None:
            return [inv.alignment.unalign(inv.photo, picture, inv.interest, feather) for picture in self.images]
        rows = zip(self.images, self.region.split(1), strict=True)
        return [inv.alignment.unalign(inv.photo, picture, region, 0) for picture, region in rows]

    def save(self, folder: str | Path, name: str = "edit", *, overwrite: bool = False) -> list[Path]:
        """Write NAME-00.png and so on, which carry their recipes; returns the paths. Nothing is half written."""
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
        region = None if self.region is None else self.region[chosen]
        pictures, before, told = ([of[i] for i in chosen] for of in (self.images, self.before, self.recipes))
        return EditOutput(pictures, before, self.w_plus[chosen], region, told, self.inversion)


def to_picture(image: Tensor) -> Image.Image:
    """(1, c, r, r) as PIL."""
    return to_pil(image)[0]
