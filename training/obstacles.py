"""What an interest encoder is shown: each picture as it is, and again elsewhere, behind an obstacle.

The region that matters is found by `matting`, or is a box or a blob: no label and no mask of the data is read. The
obstacle is ours, and so what it hides is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from pairs import made_up, noise, uniform
from torch import Tensor
from torch.nn import functional as F

from hfgan.images import on_white
from hfgan.memory import at_once, in_parts
from hfgan.models.matting import MattingNetwork
from hfgan.segmentation import composite

WITHHELD, BOX, BLOB = 0.25, 0.15, 0.1  # shares of pictures of which nothing, a box, a blob is told; else the subject
SLOP = 0.07  # of the side: how far a region that is told lies from what is meant, at most
FRAMED, UNTOLD = 0.2, 0.25  # shares of regions told by a frame around them, of obstacles that are not told
SWAPPED, HIDDEN = 0.5, 0.75  # shares of second views with another background, with an obstacle
LEAST = 0.02  # area of a region that can be told


@dataclass(frozen=True)
class Scene:
    """n pictures as they are, and behind them the same n again.

    Attributes:
        image: (2n, 3, r, r) in [-1, 1], what is seen.
        wanted: (2n, 3, r, r), what is to be drawn: the picture without its obstacle.
        told: (2n, 1, r, r), the interest that is given, roughly; all 1 where it is withheld.
        meant: (2n, 1, r, r), the region that matters, hidden parts too.
        subject: (2n, 1, r, r), the visible part of the subject.
        hidden: (2n, 1, r, r), 1 where an obstacle is.
    """

    image: Tensor
    wanted: Tensor
    told: Tensor
    meant: Tensor
    subject: Tensor
    hidden: Tensor


@torch.no_grad()
def stage(image: Tensor, matting: MattingNetwork | None, source: torch.Generator) -> Scene:
    """Both views of pictures (n, c, r, r); `source` lives on the CPU and is all that chance hangs on."""
    image = on_white(image).clamp(-1, 1)
    count, device = len(image), image.device
    subject = subjects(image, matting, source)
    meant, withheld = regions(subject, source)

    swapped = chance(count, SWAPPED, source).to(device) * (1 - withheld)  # what is not told is all of the picture
    behind = torch.where(chance(count, 0.5, source).to(device) > 0, image.roll(1, 0), made_up(image, subject, source))
    wanted = torch.where(swapped > 0, composite(image, behind, torch.maximum(subject, meant)), image)
    hidden = obstacles(subject, source) * chance(count, HIDDEN, source).to(device)
    front = torch.where(chance(count, 0.5, source).to(device) > 0, image.roll(2, 0), made_up(image, subject, source))
    spoilt = composite(front, wanted, hidden)

    told = torch.maximum(sloppy(meant, source), withheld.expand_as(meant))
    known = (1 - withheld) * (1 - chance(count, UNTOLD, source).to(device))
    seen = told * (1 - sloppy(hidden, source) * known)
    seen = torch.where(seen.mean((1, 2, 3), keepdim=True) < LEAST, told * (1 - hidden), seen)
    return Scene(
        torch.cat([image, spoilt]), torch.cat([image, wanted]), torch.cat([told, seen]), torch.cat([meant, meant]),
        torch.cat([subject, subject * (1 - hidden)]), torch.cat([torch.zeros_like(hidden), hidden]),
    )  # fmt: skip


def chance(count: int, share: float, source: torch.Generator) -> Tensor:
    """(count, 1, 1, 1), 1 with probability `share`, else 0."""
    return (torch.rand(count, 1, 1, 1, generator=source) < share).float()


def subjects(image: Tensor, matting: MattingNetwork | None, source: torch.Generator) -> Tensor:
    """The subjects (n, 1, r, r), 0 or 1, that matting finds at a random threshold; a blob where it finds none."""
    made = blobs(len(image), image.shape[-1], source).to(image.device)
    threshold = uniform(len(image), 0.3, 0.9, source).to(image.device)
    if matting is None:
        return made
    size = at_once(len(image), image.shape[-1], matting.config.widths[0], image.device)
    found = (in_parts(matting, size, image).sigmoid() > threshold).float()
    area = found.mean((1, 2, 3), keepdim=True)
    return torch.where((area > LEAST) & (area < 1 - LEAST), found, made)


def regions(subject: Tensor, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """What matters (n, 1, r, r), subject, box, blob or all, and 1 where that is not told (n, 1, 1, 1)."""
    count, side, device = len(subject), subject.shape[-1], subject.device
    draw = torch.rand(count, 1, 1, 1, generator=source).to(device)
    box, blob = shapes(count, side, source, 0.2, 0.45, angle=0.0).to(device), blobs(count, side, source).to(device)
    withheld = (draw < WITHHELD).float()
    meant = torch.where(draw < WITHHELD + BOX + BLOB, blob, subject)
    meant = torch.where(draw < WITHHELD + BOX, box, meant)
    return torch.where(draw < WITHHELD, torch.ones_like(meant), meant), withheld


def obstacles(subject: Tensor, source: torch.Generator) -> Tensor:
    """Something in front of each subject (n, 1, r, r): ellipses, boxes, bars, blobs, the shape of another subject."""
    count, side, device = len(subject), subject.shape[-1], subject.device
    kind = torch.randint(4, (count, 1, 1, 1), generator=source).to(device)
    compact = shapes(count, side, source, 0.08, 0.3, round_too=True).to(device)
    bar = shapes(count, side, source, 0.04, 0.12, long=True).to(device)
    blob = blobs(count, side, source, area=0.2).to(device)
    shift = [int(x) for x in torch.randint(-side // 3, side // 3 + 1, (2,), generator=source)]
    other = F.pad(subject.roll(3, 0), (side, side, side, side))
    other = other[..., side - shift[0] : 2 * side - shift[0], side - shift[1] : 2 * side - shift[1]]
    found = torch.where(kind == 0, bar, torch.where(kind == 1, blob, torch.where(kind == 2, other, compact)))
    left = (subject * (1 - found)).mean((1, 2, 3), keepdim=True)
    return torch.where(left < LEAST, compact * (1 - subject), found)  # something must remain to be seen


def shapes(
    count: int, side: int, source: torch.Generator, least: float, most: float, *, angle: float = math.pi,
    round_too: bool = False, long: bool = False,
) -> Tensor:  # fmt: skip
    """Boxes (count, 1, side, side), half as wide and high as a share from `least` to `most` of the side.

    Args:
        angle: They are turned by up to so much [radians].
        round_too: Every second is an ellipse.
        long: They run across the whole picture.
    """
    across, down = (uniform(count, 0.25, 0.75, source) for _ in range(2))
    wide, high = (uniform(count, least, most, source) for _ in range(2))
    turned = uniform(count, 0, max(angle, 1e-9), source)
    x = torch.linspace(0, 1, side).view(1, 1, 1, -1) - across
    y = torch.linspace(0, 1, side).view(1, 1, -1, 1) - down
    u = (x * turned.cos() + y * turned.sin()) / (2 if long else wide)
    v = (y * turned.cos() - x * turned.sin()) / high
    box = torch.maximum(u.abs(), v.abs())
    ellipse = chance(count, 0.5 if round_too else 0.0, source) > 0
    return (torch.where(ellipse, u.square() + v.square(), box) < 1).float()


def blobs(count: int, side: int, source: torch.Generator, area: float = 0.4) -> Tensor:
    """Irregular regions (count, 1, side, side) that cover a share `area`."""
    rough = noise(count, side, source)
    edge = torch.stack([row.quantile(1 - area) for row in rough.flatten(1)]).view(-1, 1, 1, 1)  # it has a limit
    return (rough > edge).float()


def sloppy(region: Tensor, source: torch.Generator) -> Tensor:
    """Regions (n, 1, r, r) as a hurried person marks them: too large, too small, by a frame, or as they are."""
    count, device = len(region), region.device
    most = max(int(SLOP * region.shape[-1]), 1)
    reach = int(torch.randint(1, most + 1, (1,), generator=source))
    kind = torch.randint(3, (count, 1, 1, 1), generator=source).to(device)
    larger, smaller = grow(region, reach), 1 - grow(1 - region, reach)
    kept = torch.where(smaller.mean((1, 2, 3), keepdim=True) < LEAST, region, smaller)
    found = torch.where(kind == 0, larger, torch.where(kind == 1, kept, region))
    return torch.where(chance(count, FRAMED, source).to(device) > 0, frames(region), found)


def frames(region: Tensor) -> Tensor:
    """The least upright boxes (n, 1, r, r) around regions."""
    across, down = region.amax(2, keepdim=True), region.amax(3, keepdim=True)
    wide, high = (x.cummax(d)[0] * x.flip(d).cummax(d)[0].flip(d) for x, d in ((across, 3), (down, 2)))
    return wide * high


def grow(region: Tensor, reach: int) -> Tensor:
    """Regions (n, 1, r, r) dilated by a square that reaches so many pixels to each side."""
    rows = F.max_pool2d(region, (1, 2 * reach + 1), 1, (0, reach))  # one side after the other: a wide square is slow
    return F.max_pool2d(rows, (2 * reach + 1, 1), 1, (reach, 0))
