"""Augmentation in front of the discriminator: adaptive (ADA, arXiv 2006.06676) and DiffAugment (arXiv 2006.10738).

Upright-safe: no quarter turns, no hue rotation, no colour inversion, because those leak into the images first.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_ROTATION = math.radians(10)


def augment(image: Tensor, p: float, generator: torch.Generator) -> Tensor:
    """Apply each transformation to each sample with probability `p`.

    Args:
        image: (n, c, r, r) in [-1, 1]; differentiable.
        p: Probability in [0, 1]; 0 returns the input.
        generator: Source of all randomness, on the CPU.

    Returns:
        (n, c, r, r).
    """
    if p == 0:
        return image
    return _colour(_affine(image, p, generator), p, generator)


def diff_augment(image: Tensor, generator: torch.Generator) -> Tensor:
    """DiffAugment's three transformations, always on: colour, shift up to 1/8, cutout of half the side."""
    n = len(image)
    image = image + _uniform(n, generator, -0.5, 0.5).to(image)
    grey = image.mean(dim=1, keepdim=True)
    image = grey + (image - grey) * _uniform(n, generator, 0.0, 2.0).to(image)
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    image = mean + (image - mean) * _uniform(n, generator, 0.5, 1.5).to(image)
    shift = torch.cat([_uniform(n, generator, -0.25, 0.25), _uniform(n, generator, -0.25, 0.25)], dim=1).flatten(1)
    matrix = torch.eye(2, 3).repeat(n, 1, 1)
    matrix[:, :, 2] = shift  # 1/8 of the side is 0.25 of [-1, 1]
    image = _warp(image, matrix, padding_mode="zeros")
    return image * _cutout(image, generator)


def shift_each(layers: Tensor, most: float, generator: torch.Generator) -> Tensor:
    """Move each of layers (n, c, r, r) by whole pixels, at most `most` sides to either side or down; zeros come in."""
    n, _, height, width = layers.shape
    reach = int(most * width)
    across = torch.randint(-reach, reach + 1, (n,), generator=generator).tolist()
    down = torch.randint(0, reach + 1, (n,), generator=generator).tolist()
    padded = F.pad(layers, (reach, reach, reach, 0))
    return torch.stack([
        sample[:, reach - y : reach - y + height, reach - x : reach - x + width]
        for sample, x, y in zip(padded, across, down, strict=True)
    ])  # fmt: skip


def adapt_probability(
    p: float, sign_mean: float, images: int, *, target: float, images_to_one: int, cap: float
) -> float:
    """ADA's controller: move p so that E[sign D(real)] approaches `target` (arXiv 2006.06676 §3.1).

    Args:
        p: Current probability.
        sign_mean: E[sign(D(real))] in [-1, 1] since the last call.
        images: Images seen since the last call.
        target: Wanted `sign_mean`, 0.6 in the paper.
        images_to_one: Images in which p may go from 0 to 1.
        cap: Upper limit; without one p leaks the augmentation into the images.
    """
    step = math.copysign(images / images_to_one, sign_mean - target)
    return min(max(p + step, 0.0), cap)


def _affine(image: Tensor, p: float, g: torch.Generator) -> Tensor:
    """Flip, scale, stretch, rotate and shift, each with probability p, as one warp with reflected borders."""
    n, size = len(image), image.shape[-1]
    flip = 1 - 2 * (torch.rand(n, generator=g) < 0.5 * p).float()
    scale = torch.exp2(_normal(n, g, 0.2) * _gate(n, p, g))
    stretch = torch.exp2(_normal(n, g, 0.2) * _gate(n, p, g))
    angle = (torch.rand(n, generator=g) * 2 - 1) * MAX_ROTATION * _gate(n, p, g)
    pixels = torch.round((torch.rand(2, n, generator=g) * 2 - 1) * 0.125 * size) * _gate(n, p, g)
    fraction = torch.randn(2, n, generator=g) * 0.125 * _gate(n, p, g)
    shift = pixels * 2 / size + fraction  # in units of half the side
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = [
        cos * flip / (scale * stretch),
        -sin / scale,
        shift[0],
        sin / scale,
        cos * stretch / scale,
        shift[1],
    ]
    return _warp(image, torch.stack(rows, dim=1).view(n, 2, 3), padding_mode="reflection")


def _colour(image: Tensor, p: float, g: torch.Generator) -> Tensor:
    """Brightness, contrast and saturation, each with probability p."""
    n = len(image)
    brightness = (_normal(n, g, 0.2) * _gate(n, p, g)).view(n, 1, 1, 1).to(image)
    contrast = torch.exp2(_normal(n, g, 0.5) * _gate(n, p, g)).view(n, 1, 1, 1).to(image)
    saturation = torch.exp2(_normal(n, g, 0.5) * _gate(n, p, g)).view(n, 1, 1, 1).to(image)
    image = (image + brightness) * contrast
    grey = image.mean(dim=1, keepdim=True)
    return grey + (image - grey) * saturation


def _warp(image: Tensor, matrix: Tensor, padding_mode: str) -> Tensor:
    # in fp32: the sampling grid needs more than 8 bits
    grid = F.affine_grid(matrix.to(image.device), list(image.shape), align_corners=False)
    return F.grid_sample(image.float(), grid, padding_mode=padding_mode, align_corners=False).to(image.dtype)


def _cutout(image: Tensor, g: torch.Generator) -> Tensor:
    """1 outside and 0 inside a square of half the side at a random place: (n, 1, r, r)."""
    n, size = len(image), image.shape[-1]
    center = torch.randint(0, size, (2, n, 1), generator=g)
    ruler = torch.arange(size).expand(n, size)
    inside = (ruler - center).abs() < size // 4  # (2, n, r)
    return 1 - (inside[0][:, None, :, None] & inside[1][:, None, None, :]).to(image)


def _gate(n: int, p: float, g: torch.Generator) -> Tensor:
    return (torch.rand(n, generator=g) < p).float()


def _normal(n: int, g: torch.Generator, sigma: float) -> Tensor:
    return torch.randn(n, generator=g) * sigma


def _uniform(n: int, g: torch.Generator, low: float, high: float) -> Tensor:
    return torch.rand(n, 1, 1, 1, generator=g) * (high - low) + low
