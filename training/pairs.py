"""What a matting network is shown: subjects that the generator drew, on many backgrounds, spoilt as photos are."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from hfgan.data import MEMORY_LIMIT
from hfgan.images import on_white, pil_to_pixels, resize_square, to_image
from hfgan.memory import draw_in_parts, draw_with_alpha
from hfgan.models.alpha import AlphaModel
from hfgan.models.stylegan2 import StyleGAN2Generator
from hfgan.sampling import broadcast
from hfgan.segmentation import composite, foreground_colors

LEAST, MOST = 0.03, 0.97  # area of a subject that can be learned from
OWN = 0.3  # share of subjects that keep their own background
DRAWN = 0.3  # share that get the generator's background of another sample; the others a made-up one
MATCHED = 0.15  # share of made-up backgrounds in the colours of the subject, which are hard
MIXING = 0.35  # deviation of what a channel takes from another
OCTAVES = (2, 4, 8, 16)  # cells of the noise that backgrounds are made of


class Samples(NamedTuple):
    """Images (n, 3, r, r) in [-1, 1], their alpha (n, 1, r, r), and images of backgrounds alone, or None."""

    image: Tensor
    alpha: Tensor
    background: Tensor | None


class Pairs(NamedTuple):
    """Images (n, 3, r, r) in [-1, 1], their alpha (n, 1, r, r), and how much each counts (n,)."""

    image: Tensor
    alpha: Tensor
    weight: Tensor


class Exported:
    """The pairs that `hfgan dataset` wrote into a folder.

    Raises:
        FileNotFoundError: the folder has no metadata.jsonl. ValueError: it has no pairs.
    """

    def __init__(self, folder: str, resolution: int, device: torch.device) -> None:
        if not (Path(folder) / "metadata.jsonl").is_file():
            raise FileNotFoundError(f"{folder} has no metadata.jsonl: give a folder that `hfgan dataset` wrote")
        self.lines = [json.loads(line) for line in (Path(folder) / "metadata.jsonl").read_text().splitlines()]
        if not self.lines:
            raise ValueError(f"{folder} has no pairs: export some with `hfgan dataset`")
        self.folder, self.resolution, self.device = Path(folder), resolution, device
        held = 4 * 4 * resolution**2 * len(self.lines)  # bytes
        self.pairs = [self.read(line) for line in self.lines] if held <= MEMORY_LIMIT else None

    def read(self, line: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """One pair: image (1, 3, r, r) in [-1, 1] and alpha (1, 1, r, r)."""
        with Image.open(self.folder / line["file_name"]) as image:
            pixels = pil_to_pixels(resize_square(image.convert("RGB"), self.resolution))
        with Image.open(self.folder / line["alpha_file_name"]) as alpha:
            found = torch.from_numpy(np.asarray(alpha, np.float32) / 65535)[None, None]
        small = F.interpolate(found, size=(self.resolution, self.resolution), mode="bilinear", antialias=True)
        return to_image(pixels[None]).to(self.device), small.to(self.device)

    def draw(self, count: int, source: torch.Generator) -> Samples:
        """Some of the pairs, at random."""
        rows = torch.randint(len(self.lines), (count,), generator=source).tolist()
        chosen = [self.pairs[row] if self.pairs else self.read(self.lines[row]) for row in rows]
        image, alpha = (torch.cat(column) for column in zip(*chosen, strict=True))
        return Samples(image, alpha, None)


class Drawn:
    """New samples of a generator with psi between `least_psi` and 1; each depends on its source alone."""

    def __init__(self, generator: StyleGAN2Generator, net: AlphaModel, least_psi: float) -> None:
        self.generator, self.net, self.least_psi = generator, net, least_psi

    @torch.no_grad()
    def draw(self, count: int, source: torch.Generator) -> Samples:
        """Samples, their alpha, and the backgrounds of others; `source` lives on the CPU."""
        generator, mapping = self.generator, self.generator.mapping
        z = torch.randn(count, generator.config.z_dim, generator=source).to(generator.device)
        w = mapping(z, mapping.labels_in_turn(torch.arange(count)))
        psi = uniform(count, self.least_psi, 1, source).to(w.device).flatten(1)
        w_plus = broadcast(mapping.w_avg.lerp(w, psi), generator.num_ws)
        image, logit = draw_with_alpha(generator, self.net, w_plus, "random", source)
        silenced = self.net.config.background_layer
        without = partial(generator.synthesis.draw, silenced=silenced)
        behind = draw_in_parts(generator, w_plus.roll(1, dims=0), draw=without)
        return Samples(on_white(image).clamp(-1, 1), logit.sigmoid(), on_white(behind).clamp(-1, 1))


@torch.no_grad()
def show(samples: Samples, source: torch.Generator) -> Pairs:
    """Samples as the network sees them: on other backgrounds, moved, recoloured and spoilt."""
    image, alpha, drawn = samples
    count, device = len(image), image.device
    area, doubt = alpha.mean((1, 2, 3)), torch.minimum(alpha, 1 - alpha).mean((1, 2, 3))
    weight = ((area > LEAST) & (area < MOST)).float() * (1 - 4 * doubt).clamp(min=0)

    subject = foreground_colors(image, alpha)
    choice = torch.rand(count, 1, 1, 1, generator=source).to(device)
    background = made_up(subject, alpha, source)
    if drawn is not None:
        background = torch.where(choice < OWN + DRAWN, drawn, background)
    subject, moved = move(subject, alpha, source)
    elsewhere = composite(recolour(subject, source), recolour(background, source), moved)
    kept = choice < OWN
    image, alpha = torch.where(kept, image, elsewhere), torch.where(kept, alpha, moved)
    flip = torch.rand(count, 1, 1, 1, generator=source).to(device) < 0.5
    image, alpha = (torch.where(flip, x.flip(3), x) for x in (image, alpha))
    return Pairs(spoil(recolour(image, source), source), alpha, weight)


def uniform(count: int, low: float, high: float, source: torch.Generator, channels: int = 1) -> Tensor:
    """Random numbers (count, channels, 1, 1) in [low, high]."""
    return torch.empty(count, channels, 1, 1).uniform_(low, high, generator=source)


def made_up(subject: Tensor, alpha: Tensor, source: torch.Generator) -> Tensor:
    """Backgrounds (n, 3, r, r) that no photo has: two colours, mixed by waves or noise; some are the subject's."""
    n, _, size, _ = subject.shape
    device = subject.device
    colours = uniform(2 * n, -1, 1, source, 3).to(device).view(2, n, 3, 1, 1)
    own = (subject * alpha).sum((2, 3), keepdim=True) / alpha.sum((2, 3), keepdim=True).clamp(min=1)
    matched = torch.rand(n, 1, 1, 1, generator=source).to(device) < MATCHED
    colours[0] = torch.where(matched, own, colours[0])
    wave, rough = waves(n, size, source), noise(n, size, source)
    striped = torch.rand(n, 1, 1, 1, generator=source) < 0.4
    blend = torch.where(striped, wave, rough).to(device) * uniform(n, 0, 1, source).to(device)
    return torch.lerp(colours[0], colours[1], blend)


def waves(n: int, size: int, source: torch.Generator) -> Tensor:
    """Gradients and stripes (n, 1, size, size) in [0, 1], of any direction and sharpness."""
    angle, cycles = uniform(n, 0, math.pi, source), uniform(n, 0.2, 5, source)
    phase, sharp = uniform(n, 0, 2 * math.pi, source), uniform(n, 0.5, 8, source)
    across, down = torch.linspace(0, 1, size).view(1, 1, 1, -1), torch.linspace(0, 1, size).view(1, 1, -1, 1)
    turns = cycles * (across * angle.cos() + down * angle.sin())
    return ((2 * math.pi * turns + phase).sin() * sharp).sigmoid()


def noise(n: int, size: int, source: torch.Generator) -> Tensor:
    """Smooth noise of several octaves (n, 1, size, size), about [0, 1]."""
    octaves = [torch.randn(n, 1, cells, cells, generator=source) for cells in OCTAVES]
    weights = uniform(n, 0, 1, source, len(OCTAVES))
    total = sum(
        weights[:, k : k + 1] * F.interpolate(octave, size=(size, size), mode="bicubic")
        for k, octave in enumerate(octaves)
    )
    return (total * uniform(n, 0.5, 3, source)).sigmoid()


def move(subject: Tensor, alpha: Tensor, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """Subjects and alpha scaled about the middle of the lower border, which they may stand on, and moved aside."""
    n = len(subject)
    scale, aside = uniform(n, 0.75, 1.3, source), uniform(n, -0.2, 0.2, source)
    down = uniform(n, 0, 0.2, source)
    matrix = torch.zeros(n, 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1 / scale.flatten()
    matrix[:, 0, 2] = -aside.flatten()
    matrix[:, 1, 2] = 1 - 1 / scale.flatten() - down.flatten()
    where = F.affine_grid(matrix.to(subject.device), list(subject.shape), align_corners=False)
    moved = F.grid_sample(alpha, where, padding_mode="zeros", align_corners=False)
    return F.grid_sample(subject, where, padding_mode="border", align_corners=False), moved


def recolour(image: Tensor, source: torch.Generator) -> Tensor:
    """Other colours for each of images (n, 3, r, r): channels mixed in half of them, saturation, contrast, a tint that
    changes across the picture, and brightness."""
    n, size, device = len(image), image.shape[-1], image.device
    mixed = torch.randn(n, 3, 3, generator=source) * (torch.rand(n, 1, 1, generator=source) < 0.5) * MIXING
    image = torch.einsum("nij,njhw->nihw", torch.eye(3, device=device) + mixed.to(device), image)
    grey = image.mean(1, keepdim=True)
    image = grey + (image - grey) * uniform(n, 0.4, 1.6, source).to(device)
    middle = image.mean((1, 2, 3), keepdim=True)
    image = middle + (image - middle) * uniform(n, 0.7, 1.3, source).to(device)
    tint = uniform(n, -0.3, 0.3, source, 3) * noise(n, size, source) + uniform(n, -0.3, 0.3, source)
    return (image + tint.to(device)).clamp(-1, 1)


def spoil(image: Tensor, source: torch.Generator) -> Tensor:
    """Images (n, 3, r, r) as a small camera or an old file has them: less sharp, with noise."""
    n, size, device = len(image), image.shape[-1], image.device
    smaller = max(int(size * float(uniform(1, 0.4, 1, source))), 8)
    soft = F.interpolate(image, size=(smaller, smaller), mode="bilinear", antialias=True)
    soft = F.interpolate(soft, size=(size, size), mode="bicubic")
    image = torch.lerp(image, soft, uniform(n, 0, 1, source).round().to(device))
    grain = torch.randn(image.shape, generator=source).to(device)
    return (image + grain * uniform(n, 0, 0.15, source).to(device)).clamp(-1, 1)
