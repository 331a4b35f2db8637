"""How tab Edit finds directions: from pictures that a user marks, or among those that the model itself has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hfgan import editrecipes, finding
from hfgan.app.editor import with_found
from hfgan.app.studio import Pictures, Studio, draw_again
from hfgan.app.work import REACH, SEEN, Work, at_hand, draw_small, draw_strip
from hfgan.captions import plain
from hfgan.drawing import SampleOutput
from hfgan.editing import Edit
from hfgan.models.directions import Direction, WStats, check_name
from hfgan.pipeline import HFGan
from hfgan.recipes import Recipe
from hfgan.sampling import check_seed, parse_layers

MORE, MOST = 24, 96  # pictures to mark: at a time, and in all
PSI = 0.8  # of those: varied, and few of them broken
GOOD = 8  # marks of each kind from which on a direction is likely to be of use
MAX_MARKS = 100  # of each kind that a program may give
KINDS = ("sefa", "pca")
COUNT = 20  # of each kind
SIGNS = {0: "", 1: "+ ", -1: "− "}
NEXT = {0: 1, 1: -1, -1: 0}  # what another click makes of a mark
ADVICE = {"weak": "mark more, and only clear cases", "usable": "more marks make it better", "strong": "rely on it"}


@dataclass(frozen=True, eq=False)
class Grid:
    """Pictures to mark.

    Attributes:
        model: That drew them.
        seeds, files: Of each picture.
        w: (n, w_dim), of what is seen.
        marks: 1, -1 or 0 for each.
    """

    model: str
    seeds: tuple[int, ...]
    files: tuple[str, ...]
    w: Tensor
    marks: tuple[int, ...]

    def shown(self) -> Pictures:
        """Files and captions, which begin with the mark."""
        told = zip(self.files, self.marks, self.seeds, strict=True)
        return [(file, f"{SIGNS[mark]}seed {seed}") for file, mark, seed in told]

    def said(self) -> str:
        """How many marks there are, and how many it takes."""
        plus, minus = self.marks.count(1), self.marks.count(-1)
        left = f"mark {GOOD} or more of each" if min(plus, minus) < GOOD else "name it and press *Fit*"
        return f"**{plus} +** and **{minus} −**: {left}"


class Finder:
    """The verbs that find directions, on the models and with the locks of a studio."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._stats: dict[str, WStats] = {}  # of each model, for everyone

    # ---------------------------------------------------------------- by clicks

    def more(self, grid: Grid | None, model: str) -> Grid:
        """Further pictures to mark, below those that are there."""
        with self._studio.drawing(model) as gan:
            first = len(grid.seeds) if grid else 0
            if first >= MOST:
                raise ValueError(f"there are {MOST} pictures already: mark more of those")
            seeds = range(first, first + MORE)
            out = _sample(gan, seeds, PSI)
        files, w, marks = draw_small(out.images), out.w_plus[:, 0].cpu(), (0,) * MORE
        if grid is None:
            return Grid(model, tuple(seeds), files, w, marks)
        return Grid(model, (*grid.seeds, *seeds), (*grid.files, *files), torch.cat([grid.w, w]), grid.marks + marks)

    @staticmethod
    def mark(grid: Grid, index: int) -> Grid:
        """The same with the next mark on one picture: +, − and none in turn."""
        marks = [NEXT[mark] if k == index else mark for k, mark in enumerate(grid.marks)]
        return replace(grid, marks=tuple(marks))

    def fit(self, work: Work | None, model: str, grid: Grid | None, name: str) -> tuple[Work, str]:
        """Find the direction from pictures marked − to those marked +; with it, and how good it is."""
        with self._studio.drawing(model) as gan:
            if grid is None or grid.model != model or not any(grid.marks):
                raise ValueError("no picture is marked yet: press Show pictures and click on some")
            marked = [k for k, mark in enumerate(grid.marks) if mark]
            found = self._fit(gan, model, name, grid.w[marked], [grid.marks[k] > 0 for k in marked])
            return with_found(gan, at_hand(work, model), found), _told(found)

    def find_direction(
        self, model: str, name: str, plus: Sequence[int], minus: Sequence[int], truncation_psi: float = PSI
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Find the direction of an attribute from pictures that have it and pictures that do not.

        Args:
            model: Name of a loaded model.
            name: What the attribute is called.
            plus: Seeds of four or more pictures that clearly have it; eight or more are better.
            minus: Seeds of as many that clearly do not.
            truncation_psi: With which those were drawn.

        Returns:
            The direction as an edit of strength 1 for `edit`; and its quality (weak, usable or strong), its accuracy
            on pictures left out, and how well two halves of the pictures agree (split_half, 1 for entirely).
        """
        with self._studio.drawing(model) as gan:
            plus, minus = _seeds("plus", plus), _seeds("minus", minus)
            if both := set(plus) & set(minus):
                raise ValueError(f"seed {min(both)} is in plus and in minus: give it once")
            w = _sample(gan, [*plus, *minus], truncation_psi).w_plus[:, 0].cpu()
            found = self._fit(gan, model, name, w, [True] * len(plus) + [False] * len(minus))
            told = editrecipes.make({}, [Edit(found, 1.0)], None, model=None, fingerprint="", dtype="")
        return told["edits"][0], found.source

    def _fit(self, gan: HFGan, model: str, name: str, w: Tensor, labels: list[bool]) -> Direction:
        """The direction of labelled w (n, w_dim) under a name that the model does not have."""
        name = check_name(str(name or "").strip())
        _check_free(gan, name)
        return finding.fit_labels(name, w, torch.tensor(labels), self._of(gan, model),
                                  fingerprint=gan.generator.fingerprint())  # fmt: skip

    # ---------------------------------------------------------------- by number

    def browse(
        self, work: Work | None, model: str, a: Recipe | None, kind: str, number: int, layers: str
    ) -> tuple[Direction, Pictures]:
        """A direction that nobody has named, and what it does to the picture at hand, or to A where there is none."""
        with self._studio.drawing(model) as gan:
            found = self._at(gan, model, kind, number, layers)
            source = at_hand(work, model).out or draw_again(gan, a, "A")
            out = gan.strip(source, found, SEEN, REACH, to=False)
        return found, draw_strip(out.images, REACH)

    def keep(self, work: Work | None, model: str, direction: Direction | None, name: str) -> tuple[Work, str]:
        """With the direction that was browsed under a name of one's own."""
        with self._studio.drawing(model) as gan:
            if direction is None:
                raise ValueError("nothing is shown yet: press Show first")
            named = direction.named(check_name(str(name or "").strip() or direction.name))
            _check_free(gan, named.name)
            return with_found(gan, at_hand(work, model), named), f"**{plain(named.name)}** has its slider above"

    def _at(self, gan: HFGan, model: str, kind: str, number: int, layers: str) -> Direction:
        """One of the first COUNT directions of a kind."""
        stats, last = self._of(gan, model), min(COUNT, gan.generator.config.w_dim) - 1
        if number > last:
            raise ValueError(f"number is {number}: this model has numbers 0 to {last}")
        chosen = parse_layers(layers, gan.generator.num_ws) if layers else None
        if kind == "pca":
            return finding.pca(stats, number + 1, gan.generator.fingerprint())[number].on(chosen)
        convs = [layer for layer in chosen or () if layer in gan.generator.synthesis.affines()]  # not mere colours
        return finding.sefa(gan.generator, convs or None, number + 1, stats)[number]

    def _of(self, gan: HFGan, model: str) -> WStats:
        """Those of a model that is one's own for now."""
        if model not in self._stats:
            self._stats[model] = WStats.of(gan.generator)
        return self._stats[model]


def _seeds(word: str, given: Any) -> list[int]:
    """Seeds that a program gives as the argument of that name, each once."""
    if not isinstance(given, list) or not 0 < len(given) <= MAX_MARKS:
        raise ValueError(f"{word} is no list of 1 to {MAX_MARKS} seeds: give one, such as [3, 14, 15, 92]")
    seeds = [check_seed(seed) for seed in given]
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"{word} has seed {max(seeds, key=seeds.count)} more than once: give each seed once")
    return seeds


def _sample(gan: HFGan, seeds: Sequence[int], psi: float) -> SampleOutput:
    """Pictures of seeds; of the first class of a model with classes."""
    return gan.sample(seeds=seeds, truncation_psi=psi, label=0 if gan.generator.config.c_dim else None)


def _check_free(gan: HFGan, name: str) -> None:
    """Refuse a name that a direction of the model has."""
    if gan.directions is not None and name in gan.directions:
        raise ValueError(f"this model has a direction {name!r} already: give another name")


def _told(direction: Direction) -> str:
    """How good a direction is, and what that means, in a line of Markdown."""
    said = direction.source
    return (f"**{plain(direction.name)}** is **{said['quality']}**: it tells {100 * said['accuracy']:.0f} % of marks "
            f"that it has not seen, halves of the marks agree to {100 * said['split_half']:.0f} %; "
            f"{ADVICE[said['quality']]}. Its slider is above")  # fmt: skip
