"""Frozen pairs for `inversion.py`: the same subject alone, before another background, and behind an obstacle.

"drawn" are samples of the generator, so that the truth is known everywhere: of the hidden part, of the latent, and of
what an edit of it looks like. "photos" are held-out photos with exact masks. Everything hangs on SEED, the weights and
the files alone; `Pairs.sha256` tells whether two runs saw the same. Nothing here is shown in training, where obstacles
are made by other code.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from hfgan import HFGan
from hfgan.images import grid, on_white, pil_to_pixels, resize_square, to_image, to_pil, to_pixels
from hfgan.models.alpha import AlphaNetwork
from hfgan.models.stylegan2 import StyleGAN2Generator
from hfgan.sampling import broadcast
from hfgan.segmentation import composite, foreground_colors

sys.path.insert(0, str(Path(__file__).parents[2] / "training"))
from pairs import made_up

SEED, COUNT, BATCH = 20_220_720, 256, 32
CANDIDATES, LEAST, MOST = 4, 0.1, 0.8  # samples for one identity; the first with a subject of such an area is taken
LEAST_PSI = 0.8
BANDS = ((0.05, 0.15), (0.15, 0.35), (0.35, 0.60))  # of the subject's area, that an obstacle covers
SHAPES = ("ellipse", "box", "bar", "cut-out")
SIZES = 64  # of each shape that are tried, for one that covers what is wanted
ATTEMPTS = 20  # places of an obstacle, before it becomes an ellipse about the subject's middle
SLOPPY = ("dilated", "eroded", "boxed", "shifted")
SLOP, SHIFT = 0.05, 0.03  # of the side


@dataclass(frozen=True)
class Pairs:
    """n identities, each seen in several views.

    Attributes:
        name: "drawn" or "photos".
        ids: n names.
        wanted: (n, 3, r, r) in [-1, 1], the truth in every view, on the subject.
        views: "clean", "bg" (of "drawn" only) and "occ", (n, 3, r, r), of 8 bits as photos are.
        subject: (n, 1, r, r), 0 or 1, also where it is hidden in "occ".
        obstacle: (n, 1, r, r), 0 or 1, of "occ".
        w: (n, w_dim) that drew `wanted`; None for photos.
    """

    name: str
    ids: list[str]
    wanted: Tensor
    views: dict[str, Tensor]
    subject: Tensor
    obstacle: Tensor
    w: Tensor | None = None

    @property
    def visible(self) -> Tensor:
        """(n, 1, r, r), what "occ" shows of the subject."""
        return self.subject * (1 - self.obstacle)

    @property
    def hidden(self) -> Tensor:
        """(n, 1, r, r), what "occ" hides of the subject."""
        return self.subject * self.obstacle

    def told(self, view: str) -> Tensor:
        """The interest (n, 1, r, r) that somebody who sees perfectly paints on a view."""
        return self.visible if view == "occ" else self.subject

    def covered(self) -> list[float]:
        """The share of each subject that is hidden."""
        return (self.hidden.sum((1, 2, 3)).double() / self.subject.sum((1, 2, 3))).tolist()

    def first(self, count: int | None) -> Pairs:
        """The first so many; all for None."""
        views = {name: view[:count] for name, view in self.views.items()}
        w = None if self.w is None else self.w[:count]
        parts = (x[:count] for x in (self.subject, self.obstacle))
        return Pairs(self.name, self.ids[:count], self.wanted[:count], views, *parts, w)

    def sha256(self) -> str:
        """64 hex digits of all that is seen and told, rounded to 8 bits."""
        digest = hashlib.sha256("\n".join([self.name, *self.ids]).encode())
        for image in (self.wanted, *self.views.values()):
            digest.update(to_pixels(image).contiguous().numpy().tobytes())
        for mask in (self.subject, self.obstacle):
            digest.update(mask.to(torch.uint8).contiguous().numpy().tobytes())
        return digest.hexdigest()


# ---------------------------------------------------------------- drawn


@torch.no_grad()
def drawn_pairs(gan: HFGan, photos: Tensor | None = None, count: int = COUNT) -> Pairs:
    """Samples of a model with a part `alpha`; every choice is made in turn, so that all kinds are equally many.

    Args:
        photos: (m, 3, r, r) in [-1, 1], some of the backgrounds and of what obstacles are filled with.
    """
    sources = [torch.Generator().manual_seed(SEED + k) for k in range(count)]
    w = choose_latents(gan.generator, gan.part("alpha"), sources)
    wanted, alpha, behind = draw(gan.generator, gan.part("alpha"), w)
    subject, front = (alpha > 0.5).float(), foreground_colors(wanted, alpha)
    backdrops = ("drawn", "made up", "photo")[: 2 if photos is None else 3]
    swapped, obstacles, spoilt = [], [], []
    for k, source in enumerate(sources):
        one = slice(k, k + 1)
        turn, band = divmod(k, len(BANDS))
        turn, kind = divmod(turn, len(backdrops))
        turn, shape = divmod(turn, len(SHAPES))
        back = behind[one] if backdrops[kind] == "drawn" else texture(wanted[one], alpha[one],
                                                                     photos if backdrops[kind] == "photo" else None,
                                                                     source)  # fmt: skip
        swapped.append(eight_bits(composite(front[one], back, alpha[one])))
        other = (k + 2) % count
        obstacles.append(obstacle(SHAPES[shape], subject[one], subject[other : other + 1], BANDS[band], source))
        fill = texture(wanted[one], alpha[one], photos if turn % 2 else None, source)
        spoilt.append(torch.where(obstacles[-1] > 0, eight_bits(fill), swapped[-1]))
    views = {"clean": eight_bits(wanted), "bg": torch.cat(swapped), "occ": torch.cat(spoilt)}
    ids = [f"{SEED + k}" for k in range(count)]
    return Pairs("drawn", ids, wanted, views, subject, torch.cat(obstacles), w)


def choose_latents(generator: StyleGAN2Generator, net: AlphaNetwork, sources: Sequence[torch.Generator]) -> Tensor:
    """w (n, w_dim), truncated a little, of the first sample of each source whose subject is of a usable size.

    Raises:
        ValueError: a source has none.
    """
    mapping, count = generator.mapping, len(sources)
    z = torch.cat([torch.randn(CANDIDATES, generator.config.z_dim, generator=source) for source in sources])
    psi = torch.cat([torch.empty(CANDIDATES, 1).uniform_(LEAST_PSI, 1, generator=source) for source in sources])
    w = mapping.w_avg.lerp(mapping(z, mapping.labels_in_turn(torch.arange(len(z)))), psi)  # (n CANDIDATES, w_dim)
    logits = [net(generator, broadcast(rows, generator.num_ws))[1] for rows in w.split(BATCH)]
    area = torch.cat([(logit > 0).float().mean((1, 2, 3)) for logit in logits]).view(count, CANDIDATES)
    usable = (area > LEAST) & (area < MOST)
    if not usable.any(1).all():
        raise ValueError(f"alpha finds no subject of usable size in samples {(~usable.any(1)).nonzero().tolist()}")
    return w.view(count, CANDIDATES, -1)[torch.arange(count), usable.int().argmax(1)]


def draw(generator: StyleGAN2Generator, net: AlphaNetwork, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures (n, 3, r, r) of w (n, w_dim), their alpha (n, 1, r, r), and the backgrounds (n, 3, r, r) of others."""
    found = []
    for rows, others in zip(w.split(BATCH), w.roll(1, 0).split(BATCH), strict=True):
        image, logit = net(generator, broadcast(rows, generator.num_ws))
        behind = generator.synthesis(broadcast(others, generator.num_ws), silenced=net.config.background_layer)
        found.append((on_white(image).clamp(-1, 1), logit.sigmoid(), on_white(behind).clamp(-1, 1)))
    return tuple(torch.cat(part) for part in zip(*found, strict=True))


def texture(image: Tensor, alpha: Tensor, photos: Tensor | None, source: torch.Generator) -> Tensor:
    """(1, 3, r, r): one of the photos, or where there are none, waves or noise that may have the subject's colours."""
    if photos is None:
        return made_up(image, alpha, source)
    chosen = torch.randint(len(photos), (1,), generator=source)
    return photos[chosen]


def eight_bits(image: Tensor) -> Tensor:
    """Images in [-1, 1] as a file would hold them."""
    return to_image(to_pixels(image))


# ---------------------------------------------------------------- obstacles


def obstacle(
    shape: str, subject: Tensor, other: Tensor, band: tuple[float, float], source: torch.Generator
) -> Tensor:  # fmt: skip
    """An obstacle (1, 1, r, r), 0 or 1, that hides a share of the subject (1, 1, r, r) within the band.

    Args:
        shape: One of SHAPES.
        other: (1, 1, r, r), another subject, the outline of "cut-out".
    """
    low, high = band
    places = subject[0, 0].nonzero()  # (p, 2), y and x
    for attempt in range(ATTEMPTS + 1):
        wanted = low + (high - low) * torch.rand((), generator=source)
        chosen = torch.randint(len(places), (1,), generator=source)
        if attempt == ATTEMPTS:
            shape, center = "ellipse", places.float().mean(0)
        else:
            center = places[chosen[0]].float()
        grown = by_size(shape, center, other, source)  # (SIZES, 1, r, r)
        share = (grown * subject).sum((1, 2, 3)).double() / subject.sum()
        best = (share - wanted).abs().argmin()
        if low <= share[best].item() <= high:
            return grown[best : best + 1]
    raise ValueError(f"no obstacle covers {low:.0%} to {high:.0%} of a subject of {len(places)} pixels")


def by_size(shape: str, center: Tensor, other: Tensor, source: torch.Generator) -> Tensor:
    """A shape about a pixel (y, x) in all SIZES, small to large: (SIZES, 1, r, r), 0 or 1."""
    side = other.shape[-1]
    size = torch.logspace(math.log10(0.5 / side), 0, SIZES).view(-1, 1, 1, 1)  # half of it, in sides
    aspect, angle = (torch.rand(2, generator=source) * torch.tensor([1.4, math.pi])).tolist()
    if shape == "cut-out":
        return cut_out(center, other, size)
    y, x = (torch.arange(side) - at for at in center)
    y, x = y.view(1, 1, -1, 1) / side, x.view(1, 1, 1, -1) / side
    u = x * math.cos(angle) + y * math.sin(angle)
    v = y * math.cos(angle) - x * math.sin(angle)
    if shape == "bar":
        return (v.abs() < size).float().expand(-1, -1, side, side)
    stretch = 2 ** (aspect - 0.7)  # of width against height, 0.4 to 2.6
    u, v = u / stretch**0.5, v * stretch**0.5
    far = torch.maximum(u.abs(), v.abs()) if shape == "box" else (u.square() + v.square()).sqrt()
    return (far < size).float()


def cut_out(center: Tensor, other: Tensor, size: Tensor) -> Tensor:
    """The outline of another subject (1, 1, r, r) with its middle at a pixel (y, x), in all sizes (s, 1, 1, 1)."""
    side = other.shape[-1]
    places = other[0, 0].nonzero().float()
    middle = (2 * places.mean(0) + 1) / side - 1  # (y, x) in [-1, 1], as affine_grid has it
    goal = (2 * center + 1) / side - 1
    scale = size.flatten() / (len(places) / math.pi) ** 0.5 * side  # its area is that of a disk with this radius
    matrix = torch.zeros(len(scale), 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1 / scale
    matrix[:, 0, 2], matrix[:, 1, 2] = middle[1] - goal[1] / scale, middle[0] - goal[0] / scale
    where = F.affine_grid(matrix, [len(scale), 1, side, side], align_corners=False)
    moved = F.grid_sample(other.expand(len(scale), -1, -1, -1), where, padding_mode="zeros", align_corners=False)
    return (moved > 0.5).float()


# ---------------------------------------------------------------- photos


def occluded_pairs(path: str | Path, side: int) -> Pairs:
    """The photos of `hfaces128-occluded-test.zip` at another side; a pixel that the obstacle touches is hidden."""
    with zipfile.ZipFile(path) as archive:
        ids = [row["id"] for row in csv.DictReader(io.TextIOWrapper(archive.open("metadata.csv")))]
        stored = np.load(io.BytesIO(archive.read("masks128.npz")))
        if [str(k) for k in stored["ids"]] != ids:
            raise ValueError(f"{path}: masks128.npz has other ids than metadata.csv")
        bits = {name: np.unpackbits(stored[name], axis=1).reshape(-1, 1, 128, 128)
                for name in ("foreground", "occluder")}  # fmt: skip
        views = {view: torch.stack([read_photo(archive.read(f"{folder}/{int(k):03d}.webp"), side) for k in ids])
                 for view, folder in (("clean", "clean"), ("occ", "occluded"))}  # fmt: skip
    share = {name: F.interpolate(torch.from_numpy(mask).float(), (side, side), mode="area")
             for name, mask in bits.items()}  # fmt: skip
    subject, touched = (share["foreground"] > 0.5).float(), (share["occluder"] > 0).float()
    return Pairs("photos", ids, views["clean"], views, subject, touched)


def read_photo(data: bytes, side: int) -> Tensor:
    """(3, side, side) in [-1, 1], as `hfgan.images.resize_square` has it."""
    return to_image(pil_to_pixels(resize_square(Image.open(io.BytesIO(data)).convert("RGB"), side)))


def read_photos(paths: Sequence[str], side: int) -> Tensor | None:
    """All pictures (m, 3, side, side) in zips, for backgrounds; None without any."""
    found = []
    for path in paths:
        with zipfile.ZipFile(path) as archive:
            names = sorted(n for n in archive.namelist() if n.lower().endswith((".webp", ".png", ".jpg", ".jpeg")))
            found += [read_photo(archive.read(name), side) for name in names]
    return torch.stack(found) if found else None


# ---------------------------------------------------------------- how people paint, and what it looks like


def sloppy(told: Tensor, how: str) -> Tensor:
    """Regions (n, 1, r, r), 0 or 1, painted badly; how is one of SLOPPY. One that vanishes stays as it is."""
    side = told.shape[-1]
    reach, step = max(round(SLOP * side), 1), max(round(SHIFT * side), 1)
    if how == "dilated":
        return F.max_pool2d(told, 2 * reach + 1, 1, reach)
    if how == "eroded":
        smaller = 1 - F.max_pool2d(1 - told, 2 * reach + 1, 1, reach)
        return torch.where(smaller.sum((1, 2, 3), keepdim=True) > 0, smaller, told)
    if how == "boxed":
        rows, columns = told.amax(3, keepdim=True), told.amax(2, keepdim=True)
        return between(rows, 2) * between(columns, 3)
    ways = [(y, x) for y in (-step, 0, step) for x in (-step, 0, step) if (y, x) != (0, 0)]
    wide = F.pad(told, (step,) * 4)
    moved = [wide[k, :, step - y : step - y + side, step - x : step - x + side]
             for k in range(len(told)) for y, x in [ways[k % len(ways)]]]  # fmt: skip
    return torch.stack(moved)


def between(marks: Tensor, dim: int) -> Tensor:
    """1 from the first to the last mark along a dimension, else 0."""
    return marks.cummax(dim).values * marks.flip(dim).cummax(dim).values.flip(dim)


def save_sheet(sets: Sequence[Pairs], path: str | Path, columns: int = 24) -> None:
    """A picture of the first of each set: what is seen, the subject, and what is visible of it, row by row."""
    cells = []
    for pairs in (pairs.first(columns) for pairs in sets):
        masks = [(2 * mask - 1).expand(-1, 3, -1, -1) for mask in (pairs.subject, pairs.visible)]
        for row in (*pairs.views.values(), *masks):
            blank = torch.ones(columns - len(row), *row.shape[1:])
            cells += to_pil(torch.cat([row, blank]))
    grid(cells, columns).save(path)
