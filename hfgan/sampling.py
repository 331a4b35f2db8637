"""Latents: seeds -> z -> w -> w_plus; truncation, style mixing, interpolation. Pure functions of tensors.

The order of operations is fixed: map, truncate, mix, edit, synthesise.
"""

from __future__ import annotations

import itertools
import operator
import re
import secrets
from collections.abc import Iterable, Sequence
from numbers import Real

import torch
from torch import Tensor

MAX_SEED = 2**32 - 1  # torch's CPU generator reads the lower 32 bits, so a larger seed would repeat a picture
KINDS = ("lerp", "slerp")
MAX_DRAWS = 8192  # of z from one seed, in search of one that falls into a mode
Psi = float | Sequence[float]  # truncation of all layers, or of the coarse and of the fine ones


# ---------------------------------------------------------------- seeds


def choose_seeds(
    num_images: int | None = None, seed: int | None = None, seeds: Iterable[int] | None = None
) -> list[int]:
    """One seed per image: `seeds` as given, or seed, seed + 1, ..., or random ones when neither is given."""
    if seed is not None and seeds is not None:
        raise ValueError("both seed and seeds were given: give seed (the first of num_images) or seeds (all of them)")
    if seeds is not None:
        chosen = [check_seed(one) for one in ([seeds] if isinstance(seeds, int | str) else seeds)]
        if not chosen:
            raise ValueError("seeds is empty: give at least one")
        if num_images not in (None, len(chosen)):
            raise ValueError(f"num_images is {num_images} but there are {len(chosen)} seeds: leave num_images out")
        return chosen
    count = check_count(1 if num_images is None else num_images, "num_images")
    if seed is None:
        return [secrets.randbelow(MAX_SEED + 1) for _ in range(count)]
    first = check_seed(seed)
    check_seed(first + count - 1)
    return list(range(first, first + count))


def check_seed(seed: int) -> int:
    """The seed as an int in 0..MAX_SEED, or an error."""
    value = _integer(seed)
    if value is None or not 0 <= value <= MAX_SEED:
        raise ValueError(f"seed is {seed!r}: expected a whole number from 0 to {MAX_SEED}")
    return value


def check_count(count: int, name: str, least: int = 1) -> int:
    """The count as an int of `least` or more, or an error that calls it `name`."""
    value = _integer(count)
    if value is None or value < least:
        raise ValueError(f"{name} is {count!r}: expected a whole number of {least} or more")
    return value


def _integer(value: object) -> int | None:
    """An int or numpy integer as an int, None for everything else (True, 1.0 and "1" too)."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def latents_from_seeds(seeds: Sequence[int], z_dim: int, draws: Sequence[int] | None = None) -> Tensor:
    """z (n, z_dim) ~ N(0, I), fp32 on the CPU; a row depends on its own seed only. `draws` as in `draw_latents`."""
    return draw_latents(generators_from_seeds(seeds), z_dim, draws)


def generators_from_seeds(seeds: Sequence[int]) -> list[torch.Generator]:
    """One CPU generator per sample, so that a batch equals its singles on every device.

    The bits of a seed are turned over: networks are initialised from small seeds, and the z of such a seed itself
    would be the very numbers that the first layer began as, and an outlier.
    """
    return [torch.Generator().manual_seed(check_seed(seed) ^ MAX_SEED) for seed in seeds]


def draw_latents(generators: Sequence[torch.Generator], z_dim: int, draws: Sequence[int] | None = None) -> Tensor:
    """z (n, z_dim), a row from each generator: its first, or draws[i] (below MAX_DRAWS) after its first.

    What a generator yields next is the noise of its sample.
    """
    rows = []
    for generator, draw in zip(generators, [0] * len(generators) if draws is None else draws, strict=True):
        if check_count(draw, "draw", least=0) >= MAX_DRAWS:
            raise ValueError(f"draw is {draw}: expected a whole number from 0 to {MAX_DRAWS - 1}")
        # one by one: a larger randn is no concatenation of smaller ones
        rows.append([torch.randn(z_dim, generator=generator) for _ in range(draw + 1)][-1])
    return torch.stack(rows)


# ---------------------------------------------------------------- w_plus


def broadcast(w: Tensor, num_ws: int) -> Tensor:
    """w (n, w_dim) to w_plus (n, num_ws, w_dim), the same for every layer."""
    return w.unsqueeze(1).repeat(1, num_ws, 1)


def truncate(w_plus: Tensor, center: Tensor, psi: Psi, cutoff: int | None = None) -> Tensor:
    """Move w_plus toward a center, psi of the way remaining (arXiv 1812.04948 appendix B).

    Args:
        w_plus: (n, num_ws, w_dim).
        center: (w_dim,) or (n, w_dim): `w_avg`, or the center of each sample's mode.
        psi: 1 leaves w_plus alone, 0 gives the center, below 0 its opposite; of a pair, the first is for the
            first `cutoff` layers and the second for the others.
        cutoff: Truncate the first `cutoff` layers only; None for all. With a pair, None is half of them.

    Returns:
        A new (n, num_ws, w_dim).
    """
    found, num_ws = parse_psi(psi), w_plus.shape[1]
    coarse, fine = found if isinstance(found, list) else (found, 1.0)
    whole = num_ws // 2 if isinstance(found, list) else num_ws
    layers = whole if cutoff is None else _integer(cutoff)
    if layers is None or not 0 <= layers <= num_ws:
        raise ValueError(f"truncation_cutoff is {cutoff!r}: expected a number of layers from 0 to {num_ws}, or None")
    center = center.unsqueeze(-2).to(w_plus)  # (1 or n, 1, w_dim)
    head = torch.lerp(center, w_plus[:, :layers], coarse)  # (n, cutoff, w_dim)
    return torch.cat([head, torch.lerp(center, w_plus[:, layers:], fine)], dim=1)  # at 1, lerp is exact


def parse_psi(psi: Psi) -> float | list[float]:
    """Truncation as a float, or a pair (coarse, fine) as a list of two: as a recipe has it. Else a ValueError."""
    pair = isinstance(psi, Sequence) and not isinstance(psi, str) and len(psi) == 2
    for one in psi if pair else [psi]:
        if isinstance(one, bool) or not isinstance(one, Real) or not abs(one) < 1e6:  # NaN fails it too
            wanted = "expected a finite number, usually from 0 to 1, or a pair of them (coarse, fine)"
            raise ValueError(f"truncation_psi is {psi!r}: {wanted}")
    return [float(one) for one in psi] if pair else float(psi)


def parse_layers(layers: str | Iterable[int], num_ws: int) -> list[int]:
    """Sorted layer indices in 0..num_ws - 1 from "0-3,5" (ends included) or from integers."""
    if isinstance(layers, str):
        spans = [re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part) for part in layers.split(",")]
        if not all(spans):
            raise ValueError(f"layers is {layers!r}: expected numbers and ranges such as '0-3,5'")
        pairs = [(int(span[1]), int(span[2] or span[1])) for span in spans]
    else:
        found = [_integer(layer) for layer in layers] if isinstance(layers, Iterable) else [None]
        if None in found:
            raise ValueError(f"layers is {layers!r}: expected whole numbers, or a string such as '0-3,5'")
        pairs = [(layer, layer) for layer in found]
    if not pairs or any(not 0 <= first <= last < num_ws for first, last in pairs):
        raise ValueError(f"layers is {layers!r}: expected ascending ranges within 0-{num_ws - 1}, as this model has")
    return sorted({layer for first, last in pairs for layer in range(first, last + 1)})


def mix(a: Tensor, b: Tensor, layers: Iterable[int]) -> Tensor:
    """Style mixing: w_plus of `a` with the given layers taken from `b` (arXiv 1812.04948 §3.1).

    a, b: (n, num_ws, w_dim), where n may be 1 in either. Returns a new (n, num_ws, w_dim).
    """
    if a.ndim != 3 or a.shape[1:] != b.shape[1:] or (len(a) != len(b) and 1 not in (len(a), len(b))):
        raise ValueError(f"w_plus of shapes {list(a.shape)} and {list(b.shape)} do not mix: expected equal shapes")
    chosen = torch.zeros(a.shape[1], 1, dtype=torch.bool, device=a.device)
    chosen[list(layers)] = True
    return torch.where(chosen, b, a)  # (n, num_ws, w_dim)


# ---------------------------------------------------------------- paths


def lerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """The point t of the straight way from a to b, of equal shape."""
    return torch.lerp(a, b, t)


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """The point t of the great circle from a to b (..., d); straight where they are nearly parallel.

    Shoemake 1985: sin((1-t) o)/sin(o) a + sin(t o)/sin(o) b, with o the angle between a and b.
    """
    cosine = torch.cosine_similarity(a, b, dim=-1).clamp(-1, 1).unsqueeze(-1)  # (..., 1)
    angle = torch.acos(cosine)
    sine = torch.sin(angle)
    curved = (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / sine.clamp_min(1e-12)
    return torch.where(sine > 1e-4, curved, torch.lerp(a, b, t))


def interpolate(a: Tensor, b: Tensor, steps: int, kind: str = "lerp") -> Tensor:
    """`steps` points from a to b of equal shape, both ends included: (steps, *a.shape)."""
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}: expected one of {', '.join(map(repr, KINDS))}")
    if a.shape != b.shape:
        raise ValueError(f"cannot interpolate between shapes {list(a.shape)} and {list(b.shape)}: make them equal")
    last = check_count(steps, "steps", least=2) - 1
    way = lerp if kind == "lerp" else slerp
    return torch.stack([way(a, b, step / last) for step in range(last + 1)])


def walk(keyframes: Tensor, steps_between: int, *, loop: bool = False) -> Tensor:
    """Straight ways from one keyframe (k, ...) to the next, `steps_between` frames to each.

    Returns:
        (k * steps_between, ...) back to the first when `loop`, else ((k - 1) * steps_between + 1, ...).
    """
    check_count(len(keyframes), "the number of keyframes", least=2)
    steps = check_count(steps_between, "steps_between")
    closed = torch.cat([keyframes, keyframes[:1]]) if loop else keyframes
    ways = [interpolate(a, b, steps + 1)[:-1] for a, b in itertools.pairwise(closed)]
    return torch.cat(ways if loop else [*ways, keyframes[-1:]])
