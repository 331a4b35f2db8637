"""Directions: what moves one attribute of a picture, what measures it, and how far one deviation is.

A direction is measured by its normal n and moved along its step s, both in units of the attribute's deviation over W:
w . n - offset has deviation 1 and is 0 at the boundary, and s . n = 1, so that strength 1 raises it by exactly 1. A
vector without a unit, or of which nobody knows which norm it has, is no direction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor
from torch.nn import functional as F

from hfgan.models.banks import LEAST_SCALE
from hfgan.models.base import BesideGenerator
from hfgan.models.stylegan2 import StyleGAN2Generator

KINDS = ("normal", "natural", "conditional", "pca", "sefa", "modes", "channels", "imported")
MAX_DIRECTIONS = 1000
MAX_NAME = 64  # characters
FLIP = 2**32 - 1  # turns a seed's bits over: networks are initialised from small seeds
PARALLEL = 1e-6  # of |s| |n|: a sum of directions whose s . n is less has nothing that measures it
ENTRY = {"name", "kind", "offset", "layers", "shared", "measured", "source"}  # keys of an entry in config.json


# ---------------------------------------------------------------- W


@dataclass(frozen=True, eq=False)
class WStats:
    """Mean (w_dim,) and covariance (w_dim, w_dim) of w, fp64 on the CPU, and the number of samples behind them."""

    mean: Tensor
    cov: Tensor
    n: int

    @classmethod
    @torch.no_grad()
    def of(cls, generator: StyleGAN2Generator, samples: int = 10_000, seed: int = 0) -> Self:
        """Those of a generator, classes in turn; the same for the same seed."""
        mapping, source = generator.mapping, torch.Generator().manual_seed(seed ^ FLIP)
        z = torch.randn(samples, generator.config.z_dim, generator=source).to(generator.device)
        return cls.from_samples(mapping(z, mapping.labels_in_turn(torch.arange(samples))))

    @classmethod
    def from_samples(cls, w: Tensor) -> Self:
        """Those of samples w (n, w_dim), two or more."""
        if w.ndim != 2 or len(w) < 2:
            raise ValueError(f"w has shape {list(w.shape)}: expected (n, w_dim) with n of 2 or more")
        w = w.detach().cpu().double()
        return cls(w.mean(0), torch.cov(w.T).reshape(w.shape[1], w.shape[1]), len(w))

    @cached_property
    def eigen(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (w_dim,) of the covariance, descending, and eigenvectors (w_dim, w_dim), one a column."""
        values, vectors = torch.linalg.eigh(self.cov)
        return values.flip(0).clamp(min=0), vectors.flip(1)

    def solve(self, delta: Tensor) -> Tensor:
        """Cov^-1 delta for rows delta (n, w_dim), fp64; deviations of less than 1e-3 of the largest count as that."""
        values, vectors = self.eigen
        least = (LEAST_SCALE**2 * values[0]).clamp(min=1e-24)
        return (delta.cpu().double() @ vectors / values.clamp(min=least)) @ vectors.T

    def distance(self, delta: Tensor) -> Tensor:
        """Mahalanobis length (n,) of moves delta (n, w_dim) of w: how many deviations of W they are."""
        delta = delta.cpu().double()
        return (self.solve(delta) * delta).sum(1).clamp(min=0).sqrt().float()


# ---------------------------------------------------------------- one direction


@dataclass(frozen=True, eq=False, repr=False)
class Direction:
    """What moves one attribute, and what measures it; equal only to itself, so that it can be the key of a dict.

    Attributes:
        name: 1 to 64 printable characters, no "=".
        step: What strength 1 adds to w_plus: (1, w_dim), the same for every layer, or (num_ws, w_dim); fp32, CPU.
        normal: (w_dim,), measures w in deviations; None where nothing measures it.
        offset: w . normal at the boundary.
        layers: Those that it moves, ascending; None for all.
        kind: One of KINDS: where the step comes from.
        fingerprint: Of the generator that it belongs to, "" for an unknown one.
        source: How it was found and how good it is, as JSON has it: method, n_pos, n_neg, accuracy, split_half,
            quality, licence ...
    """

    name: str
    step: Tensor
    normal: Tensor | None = None
    offset: float = 0.0
    layers: tuple[int, ...] | None = None
    kind: str = "natural"
    fingerprint: str = ""
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        step = _clean(self.step, "step", self.name)
        step = step[None] if step.ndim == 1 else step
        if step.ndim != 2 or not step.numel():
            raise ValueError(f"step of {self.name!r} has shape {list(step.shape)}: expected (1 or num_ws, w_dim)")
        normal = None if self.normal is None else _clean(self.normal, "normal", self.name)
        if normal is not None and normal.shape != step.shape[1:]:
            given, wanted = list(normal.shape), list(step.shape[1:])
            raise ValueError(f"normal of {self.name!r} has shape {given}: expected {wanted}, as its step")
        offset, layers = _number(self.offset, "offset"), _check_layers(self.layers, len(step))
        clean = {"name": check_name(self.name), "step": step, "normal": normal, "offset": offset, "layers": layers,
                 "source": _as_json(self.source, self.name)}  # fmt: skip
        if self.kind not in KINDS:
            raise ValueError(f"kind of {self.name!r} is {self.kind!r}: expected one of {', '.join(KINDS)}")
        for key, value in clean.items():
            object.__setattr__(self, key, value)  # frozen

    def __repr__(self) -> str:
        layers = "all" if self.layers is None else list(self.layers)
        return f"Direction({self.name!r}, {self.kind}, quality {self.source.get('quality')}, layers {layers})"

    @property
    def shared(self) -> bool:
        """Whether every layer is moved by the same step."""
        return len(self.step) == 1

    def coordinate(self, w: Tensor) -> Tensor:
        """Where w (n, w_dim), or w_plus (n, num_ws, w_dim) on average over the layers of this, lies: (n,), fp32.

        0 is the boundary and 1 one deviation. ValueError where nothing measures it.
        """
        if self.normal is None:
            raise ValueError(f"nothing measures {self.name!r}: it can be added, but no value of it can be reached")
        w = w.float()
        if w.ndim == 3:
            w = (w if self.layers is None else w[:, list(self.layers)]).mean(1)
        return w @ self.normal.to(w.device) - self.offset

    def shift(self, num_ws: int, layers: Iterable[int] | None = None) -> Tensor:
        """What strength 1 adds to the num_ws layers: (num_ws, w_dim), 0 off its own layers, or off `layers`."""
        if len(self.step) not in (1, num_ws):
            raise ValueError(f"{self.name!r} has steps for {len(self.step)} layers: this model has {num_ws}")
        chosen = self.layers if layers is None else _check_layers(layers, num_ws)
        if chosen is not None and chosen[-1] >= num_ws:
            raise ValueError(f"{self.name!r} moves layer {chosen[-1]}: this model has layers 0 to {num_ws - 1}")
        moved = torch.ones(num_ws, 1) if chosen is None else torch.zeros(num_ws, 1).index_fill_(0, _index(chosen), 1)
        return self.step * moved

    # ------------------------------------------------------------ algebra

    def on(self, layers: Iterable[int] | None) -> Direction:
        """The same on other layers; None for all."""
        return replace(self, layers=None if layers is None else tuple(layers))

    def named(self, name: str) -> Direction:
        """The same under another name."""
        return replace(self, name=name)

    def per_layer(self, num_ws: int) -> Direction:
        """The same with a step for each layer, 0 for those that it does not move."""
        return replace(self, step=self.shift(num_ws))

    def __neg__(self) -> Direction:
        return (self * -1).named(self.name[1:] if self.name[:1] == "-" and len(self.name) > 1 else f"-{self.name}")

    def __mul__(self, factor: float) -> Direction:
        """A step `factor` times as long; `coordinate` counts in this new unit."""
        factor = _number(factor, "factor")
        if factor == 0:
            raise ValueError(f"{self.name!r} times 0 moves nothing: give another factor")
        normal = None if self.normal is None else self.normal / factor
        return replace(self, step=self.step * factor, normal=normal, offset=self.offset / factor)

    __rmul__ = __mul__

    def __add__(self, other: Direction) -> Direction:
        """Both steps in one; measured by the sum of both normals where both have one and move the same layers."""
        if not isinstance(other, Direction):
            return NotImplemented
        both = {one.fingerprint for one in (self, other) if one.fingerprint}
        if len(both) > 1 or self.step.shape[1] != other.step.shape[1]:
            raise ValueError(f"{self.name!r} and {other.name!r} belong to different generators: they do not add up")
        same = self.layers == other.layers
        one, two = (self, other) if same else (self._spread(other), other._spread(self))
        step = one.step + two.step
        name, source = f"{self.name} + {other.name}"[:MAX_NAME].strip(), {"sum": [self.name, other.name]}
        layers = self.layers if same else None
        total = Direction(name, step, None, 0.0, layers, self.kind, "".join(both), source)
        if not same or self.normal is None or other.normal is None:
            return total
        normal = self.normal + other.normal
        rise = (total._moved_step() @ normal).item()
        if abs(rise) <= PARALLEL * step.norm() * normal.norm():
            return total
        return replace(total, normal=normal / rise, offset=(self.offset + other.offset) / rise)

    def _spread(self, other: Direction) -> Direction:
        """This with a step for each layer, however many the other one has."""
        num_ws = max(len(self.step), len(other.step))
        if num_ws == 1:
            raise ValueError(
                f"{self.name!r} and {other.name!r} move different layers: call per_layer(num_ws) on one of them first"
            )
        return self.per_layer(num_ws)

    def _moved_step(self) -> Tensor:
        """The mean step (w_dim,) over the layers that are moved."""
        return (self.step if self.shared or self.layers is None else self.step[list(self.layers)]).mean(0)

    def cosine(self, other: Direction, stats: WStats | None = None) -> float:
        """How alike two directions are, -1 to 1: the cosine of their steps, whatever the layers; with `stats`, the
        correlation of their coordinates over W.
        """
        if stats is None:
            a, b = (step.double().flatten() for step in torch.broadcast_tensors(self.step, other.step))
            return F.cosine_similarity(a, b, dim=0).item()
        if self.normal is None or other.normal is None:
            name = self.name if self.normal is None else other.name
            raise ValueError(f"nothing measures {name!r}: leave stats out to compare steps")
        a, b = self.normal.double(), other.normal.double()
        return (a @ stats.cov @ b / ((a @ stats.cov @ a) * (b @ stats.cov @ b)).sqrt()).item()


def check_name(name: str) -> str:
    """The name of a direction, or an error."""
    if not isinstance(name, str) or not name.isprintable() or name != name.strip() or "=" in name:
        raise ValueError(f"{name!r:.80} is no name of a direction: give printable characters without '='")
    if not 0 < len(name) <= MAX_NAME:
        raise ValueError(f"the name of a direction has {len(name)} characters: give 1 to {MAX_NAME}")
    return name


def _clean(tensor: Tensor, what: str, name: str) -> Tensor:
    """A tensor as fp32 on the CPU; ValueError for infinity."""
    tensor = torch.as_tensor(tensor).detach().to("cpu", torch.float32).clone()
    if not tensor.isfinite().all():
        raise ValueError(f"{what} of {name!r} holds NaN or infinity: find or import it again")
    return tensor


def _number(value: float, what: str) -> float:
    """A finite float, or an error."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:  # NaN fails it too
        raise ValueError(f"{what} is {value!r}: expected a finite number")
    return float(value)


def _check_layers(layers: Iterable[int] | None, num_ws: int) -> tuple[int, ...] | None:
    """Layers in ascending order, below num_ws unless that is 1; None for all."""
    if layers is None:
        return None
    found = [] if isinstance(layers, str) else list(layers)
    if not found or any(isinstance(x, bool) or not isinstance(x, int) or x < 0 for x in found):
        raise ValueError(f"layers is {layers!r}: expected one or more whole numbers of 0 or more, or None for all")
    if num_ws > 1 and max(found) >= num_ws:
        raise ValueError(f"layers is {layers!r}: there are layers 0 to {num_ws - 1}")
    return tuple(sorted(set(found)))


def _index(layers: Sequence[int]) -> Tensor:
    return torch.tensor(layers, dtype=torch.int64)


def _as_json(source: dict[str, Any], name: str) -> dict[str, Any]:
    """A copy of `source` as JSON gives it back."""
    try:
        found = json.loads(json.dumps(source, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"source of {name!r} is not JSON ({error}): give text, numbers, lists and dicts") from error
    if not isinstance(found, dict):
        raise ValueError(f"source of {name!r} is a {type(source).__name__}: expected a dict")
    return found


# ---------------------------------------------------------------- the directions of a model


class DirectionSet(BesideGenerator):
    """The directions of one generator, in a fixed order and each under its own name.

    Buffers: `steps` (k, num_ws, w_dim), the same row num_ws times where an entry is `shared`; `normals` (k, w_dim),
    0 where an entry is not `measured`.

    Args:
        num_directions: k, 1 to 1,000.
        w_dim, num_ws: Those of the generator.
        entries: What else a direction has: name, kind, offset, layers, shared, measured, source.
        generator_fingerprint: Of the generator; they mean nothing beside another.
    """

    called = "directions"

    @register_to_config
    def __init__(
        self, *, num_directions: int, w_dim: int, num_ws: int, entries: Sequence[dict[str, Any]],
        generator_fingerprint: str = "",
    ) -> None:  # fmt: skip
        super().__init__()
        if not 1 <= num_directions <= MAX_DIRECTIONS or len(entries) != num_directions:
            raise ValueError(
                f"num_directions is {num_directions} and there are {len(entries)} entries: expected as many, from 1 "
                f"to {MAX_DIRECTIONS:,}"
            )
        for entry in entries:
            if not isinstance(entry, dict) or set(entry) != ENTRY:
                raise ValueError(f"entry {entry!r:.80} does not have just the keys {', '.join(sorted(ENTRY))}")
            if not isinstance(entry["shared"], bool) or not isinstance(entry["measured"], bool):
                raise ValueError(f"entry {entry['name']!r:.80} does not say with true or false what it has")
            # what else may be wrong is found where a Direction is made
            Direction(entry["name"], torch.zeros(num_ws, w_dim), None, entry["offset"], entry["layers"], entry["kind"],
                      generator_fingerprint, entry["source"])  # fmt: skip
        known = [entry["name"] for entry in entries]
        if twice := sorted({name for name in known if known.count(name) > 1}):
            raise ValueError(f"there are several directions called {', '.join(twice)}: give each its own name")
        self.register_buffer("steps", torch.zeros(num_directions, num_ws, w_dim))
        self.register_buffer("normals", torch.zeros(num_directions, w_dim))

    @classmethod
    def of(cls, directions: Iterable[Direction], generator: StyleGAN2Generator) -> Self:
        """These directions as a part of the model of `generator`; ValueError for one that is another generator's."""
        directions = list(directions)
        num_ws, w_dim, fingerprint = generator.num_ws, generator.config.w_dim, generator.fingerprint()
        for one in directions:
            if one.fingerprint not in ("", fingerprint):
                raise ValueError(
                    f"{one.name!r} belongs to a generator with weights {one.fingerprint}, not {fingerprint}: find it "
                    "anew for this one"
                )
            if one.step.shape[1] != w_dim:
                raise ValueError(f"{one.name!r} moves w of {one.step.shape[1]} numbers: this model has w_dim {w_dim}")
        shifts = [one.shift(num_ws) for one in directions]
        entries = [
            {"name": one.name, "kind": one.kind, "offset": one.offset, "shared": one.shared, "source": one.source,
             "layers": one.layers and list(one.layers), "measured": one.normal is not None}
            for one in directions
        ]  # fmt: skip
        found = cls(num_directions=len(directions), w_dim=w_dim, num_ws=num_ws, entries=entries,
                    generator_fingerprint=fingerprint)  # fmt: skip
        for k, (one, shift) in enumerate(zip(directions, shifts, strict=True)):
            found.steps[k] = one.step if one.shared else shift
            if one.normal is not None:
                found.normals[k] = one.normal
        return found.eval()

    @property
    def names(self) -> list[str]:
        """Names in order."""
        return [entry["name"] for entry in self.config.entries]

    def __len__(self) -> int:
        return len(self.config.entries)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[Direction]:
        return (self[k] for k in range(len(self)))

    def __getitem__(self, which: str | int) -> Direction:
        """The direction of that name or index; ValueError names those that there are."""
        if isinstance(which, str):
            if which not in self.names:
                raise ValueError(f"there is no direction {which!r}: this model has {', '.join(self.names)}")
            which = self.names.index(which)
        elif not -len(self) <= which < len(self):
            raise IndexError(f"there is no direction {which}: this model has {len(self)}")
        entry = self.config.entries[which]
        step = self.steps[which, :1] if entry["shared"] else self.steps[which]
        normal = self.normals[which] if entry["measured"] else None
        kept = {key: entry[key] for key in ("name", "offset", "layers", "kind", "source")}
        return Direction(step=step, normal=normal, fingerprint=self.config.generator_fingerprint, **kept)

    def table(self) -> list[dict[str, Any]]:
        """A row for each direction: name, kind, layers (None for all); then quality, accuracy, split_half and
        samples (how many were labelled), None where unknown.
        """
        return [self._row(one) for one in self]

    @staticmethod
    def _row(one: Direction) -> dict[str, Any]:
        row = {"name": one.name, "kind": one.kind, "layers": one.layers}
        row |= {key: one.source.get(key) for key in ("quality", "accuracy", "split_half")}
        return row | {"samples": one.source["n_pos"] + one.source["n_neg"] if "n_pos" in one.source else None}
