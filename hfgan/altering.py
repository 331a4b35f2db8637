"""Edits of what was drawn or inverted: the part of the facade `HFGan` between drawing and photos.

Each picture is drawn by itself, together with what it was before, so that a recipe gives it again bit for bit. Noise
and weights that were fitted to a photo draw what is made of it; in another picture's place they are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from hfgan import editing, editrecipes, images, inversion, recipes, sampling
from hfgan.drawing import Drawing, SampleOutput
from hfgan.editing import Edit, EditOutput, Edits
from hfgan.inversion import Interest, Inversion
from hfgan.models.directions import Direction
from hfgan.models.stylegan2 import Synthesis
from hfgan.recipes import Recipe

Source = SampleOutput | Inversion | EditOutput | Tensor  # a Tensor is w_plus (n, num_ws, w_dim)
Region = Interest | str
FEATHER = 0.08  # sides


@dataclass(frozen=True, eq=False)
class _Start:
    """One picture to edit, and how it is drawn.

    Attributes:
        latents: w_plus (1, num_ws, w_dim) of the picture, after those of pictures that it covers within regions.
        told: What says in a recipe where its edits began; None where weights or noise were fitted to a photo, which no
            recipe carries.
        synthesis, noise: As for `editing.draw_chain`.
        regions: Of all latents but the first.
        everywhere: Whether some edit before was not limited to a region.
        earlier: Edits that led to the picture, and `whole` the recipe of it.
        inversion: The photo that it is of.
    """

    latents: list[Tensor]
    told: Recipe | None
    synthesis: Synthesis
    noise: list[Tensor | None]
    regions: list[Tensor] = field(default_factory=list)
    everywhere: bool = False
    earlier: list[Edit] = field(default_factory=list)
    whole: Recipe | None = None
    inversion: Inversion | None = None


class Altering(Drawing):
    """A model whose pictures can be edited."""

    @torch.no_grad()
    def edit(
        self, source: Source, edits: Edits, *, layers: str | Sequence[int] | None = None, region: Region = None,
        to: bool = False, feather: float = FEATHER,
    ) -> EditOutput:  # fmt: skip
        """Move pictures along directions: `gan.edit(out, {"smile": 2.0, "zoom": -1}, region="alpha")`.

        Args:
            source: What `sample`, `mix`, `invert` or `edit` returned (edits add up, each within its own region), or
                w_plus (n, num_ws, w_dim).
            edits: Strengths by the name of a direction of this model, or by `Direction`, in deviations of the
                attribute; or a list of `Edit`. None of them leaves a picture as it is.
            layers: Those that are moved, such as "0-3"; None for each direction's own.
            region: Where pictures may change: None for everywhere, "alpha" for the subject before and after,
                "interest" for what mattered in a photo; or a region, a box or a file as for `invert`, in the frame of
                the picture, of a photo in that of the whole photo.
            to: Strengths are values to be reached, 0 being the boundary, rather than how far to go from here.
            feather: Over how many sides a region fades out, on the inner side of its edges; less shows a seam.
        """
        found = editing.parse_edits(edits, self.directions, self.generator, layers=layers, to=to)
        return self._edited([(start, found) for start in self._starts(source)], region, feather)

    @torch.no_grad()
    def strip(
        self, source: Source, direction: str | Direction, steps: int = 7, reach: float = 3.0, *,
        layers: str | Sequence[int] | None = None, region: Region = None, to: bool | None = None,
        feather: float = FEATHER,
    ) -> EditOutput:  # fmt: skip
        """One picture at `steps` strengths from -reach to +reach along a direction.

        With `to` they are values of the attribute, whatever the picture's own (None: where the direction measures it),
        else ways from the picture as it is.
        """
        (start,) = self._starts(self._one(source, "source"))
        one = editing.look_up(direction, self.directions, self.generator)
        reached = one.normal is not None if to is None else to
        chosen = None if layers is None else tuple(sampling.parse_layers(layers, self.generator.num_ws))
        last = sampling.check_count(steps, "steps", least=2) - 1
        moves = [Edit(one, reach * (2 * k / last - 1), reached, chosen) for k in range(last + 1)]
        return self._edited([(start, [move]) for move in moves], region, feather)

    @torch.no_grad()
    def mix(self, a: Source, b: Source, layers: str | Sequence[int], *, batch_size: int = 16) -> Any:
        """`a` with the styles of `b` in some layers, such as "0-3,5": low ones shape, high ones colour.

        Either may hold one picture, which then goes with every one of the other. Of two samples it gives a
        `SampleOutput`; where a photo or an edited picture is among them (style transfer) an `EditOutput`. Regions of
        earlier edits are left behind.
        """
        if isinstance(a, SampleOutput) and isinstance(b, SampleOutput):
            return super().mix(a, b, layers, batch_size=batch_size)
        chosen = sampling.parse_layers(layers, self.generator.num_ws)
        (own, other), fitted = self._latents_of(a, b)
        return self._from_latents(sampling.mix(own, other, chosen), a, fitted)

    @torch.no_grad()
    def interpolate(
        self, a: Source, b: Source, steps: int, kind: str = "w", *, batch_size: int = 16
    ) -> list[Image]:  # fmt: skip
        """`steps` pictures from a to b, one sample each, both ends included, with constant noise.

        Args:
            a, b: The ends: what `sample`, `mix`, `invert` or `edit` returned.
            steps: Number of pictures, 2 or more.
            kind: "w" is straight in w_plus; between the two z, which samples alone have, "z" is straight and "slerp" a
                great circle.
            batch_size: How many are computed at once.
        """
        if isinstance(a, SampleOutput) and isinstance(b, SampleOutput):
            return super().interpolate(a, b, steps, kind, batch_size=batch_size)
        if kind != "w":
            raise ValueError(f"kind is {kind!r}: photos and edited pictures have no z between them, use kind='w'")
        return self.morph(a, b, steps).images

    @torch.no_grad()
    def morph(self, a: Source, b: Source, steps: int = 16) -> EditOutput:
        """`steps` pictures on the straight way from one latent to another, both ends included."""
        (first, last), fitted = self._latents_of(self._one(a, "a"), self._one(b, "b"))
        return self._from_latents(sampling.interpolate(first[0], last[0], steps), a, fitted)

    @torch.no_grad()
    def transfer(self, a: Source, b: Source, c: Source, amount: float = 1.0) -> EditOutput:
        """What b has and c has not, such as an expression, given to a: w_a + amount (w_b - w_c).

        Expression transfer of Image2StyleGAN (Abdal et al. 2019, arXiv 1904.03189 §5.3).
        """
        if isinstance(amount, bool) or not isinstance(amount, Real) or not abs(amount) <= editing.MOST:
            raise ValueError(f"amount is {amount!r}: expected a number, such as 1.0")
        given = (self._one(source, name) for source, name in ((a, "a"), (b, "b"), (c, "c")))
        (own, having, lacking), fitted = self._latents_of(*given)
        return self._from_latents(own + amount * (having - lacking), a, fitted)

    @torch.no_grad()
    def loop(self, sources: Sequence[Source] | Source, steps_between: int = 12) -> list[Image]:
        """Frames of a seamless loop through all these latents and back to the first."""
        given = list(sources) if isinstance(sources, list | tuple) else [sources]
        if not given:
            raise ValueError("no sources given: expected two pictures or more")
        latents, fitted = self._latents_of(*given)
        frames = sampling.walk(torch.cat(latents), steps_between, loop=True)
        return self._from_latents(frames, given[0], fitted).images if fitted else self.render(frames)

    @torch.no_grad()
    def replay(self, recipe: str | Path | Image | Recipe) -> SampleOutput | EditOutput:
        """Draw the picture of a recipe again: an entry of `recipes`, or the PNG that carries it.

        Under another dtype or device than the recipe's it agrees up to rounding.
        """
        found = recipe if isinstance(recipe, dict) else images.read_recipe(recipe)
        if not editrecipes.is_edit(found):
            return super().replay(found)
        editrecipes.check(found)
        recipes.check_model(found | {"modes": None}, name=self.name, **self._weights())
        edits, region = self._read_edit(found)
        return self._edited([(self._told(found["source"]), edits)], region, None)

    # ---------------------------------------------------------------- what the verbs share

    def _edited(self, tasks: list[tuple[_Start, list[Edit]]], region: Region, feather: float | None) -> EditOutput:
        """Draw each start before and after its edits; without feather, `region` is what a recipe held."""
        if not tasks:
            raise ValueError("there is no picture in what was given: expected one or more")
        if feather is not None and (not isinstance(feather, Real) or not 0 <= feather <= 0.5):
            raise ValueError(f"feather is {feather!r}: expected a share of the side, 0 to 0.5")
        shown = self.progress_bar(tasks) if len(tasks) > 1 else tasks
        rows = [self._edited_one(*task, region, feather) for task in shown]
        before, after, w_plus, regions, touched, told = zip(*rows, strict=True)
        within, ever = (None if found[0] is None else torch.cat(found).cpu() for found in (regions, touched))
        inv = tasks[0][0].inversion
        return EditOutput(list(after), list(before), torch.cat(w_plus).cpu(), within, list(told), inv, ever)

    def _edited_one(
        self, start: _Start, edits: list[Edit], region: Region, feather: float | None
    ) -> tuple[Image, Image, Tensor, Tensor | None, Tensor | None, Recipe | None]:
        """The picture before and after, w_plus (1, num_ws, w_dim), two regions of `EditOutput`, and the recipe."""
        after = editing.moved(start.latents[-1], edits)
        within = region if feather is None else self._region(region, start, after, feather)
        within = None if within is None else within.to(self.device)
        ever = start.regions
        if edits and within is not None:  # in one go, so that they are equal outside to the last bit
            ever = [*start.regions, within]
            before, picture = self._pictures(start, [*start.latents, after], ever)[-2:]
        else:
            before = self._pictures(start, start.latents, start.regions)[-1]
            moved = [editing.moved(latent, edits) for latent in start.latents]
            picture = self._pictures(start, moved, start.regions)[-1] if edits else before
        limited = ever and not start.everywhere and (within is not None or not edits)
        touched = torch.cat(ever).amax(0, keepdim=True) if limited else None
        nested = within is not None and start.earlier  # which were not limited to this region
        source, moves = (start.whole, edits) if nested else (start.told, [*start.earlier, *edits])
        said = {"model": self.name, "fingerprint": self.generator.fingerprint(), "dtype": self._dtype_name()}
        return before, picture, after, within, touched, source and editrecipes.make(source, moves, within, **said)

    def _pictures(self, start: _Start, latents: list[Tensor], regions: list[Tensor]) -> list[Image]:
        """The pictures of latents (1, num_ws, w_dim), each in its region over the one before."""
        return images.to_pil(editing.draw_chain(start.synthesis, torch.cat(latents), start.noise, regions)[0])

    def _edited_alphas(self, out: EditOutput) -> list[Tensor]:
        """The alpha (1, 1, r, r) of each edited picture, read off the generator while it is drawn again."""
        found = []
        for start in self._starts(out):
            rows = torch.cat(start.latents)
            _, alpha = editing.draw_chain(start.synthesis, rows, start.noise, start.regions, self.part("alpha"))
            found.append(alpha[-1:].cpu())
        return found

    def _region(self, region: Region, start: _Start, after: Tensor, feather: float) -> Tensor | None:
        """The region (1, 1, r, r) that a user means."""
        if region is None:
            return None
        if isinstance(region, str) and region == "alpha":
            rows, regions = torch.cat([*start.latents, after]), [*start.regions, None]
            _, alpha = editing.draw_chain(start.synthesis, rows, start.noise, regions, self.part("alpha"))
            return editing.around_subject(alpha[-2:], feather)
        side = self.generator.config.resolution
        return editing.read_region(region, start.inversion, side, feather)

    def _starts(self, source: Source) -> Iterator[_Start]:
        """Each latent of a source."""
        if isinstance(source, SampleOutput):
            self._check_own(source)
            yield from (self._sampled(recipe) for recipe in source.recipes)
        elif isinstance(source, EditOutput):
            yield from (self._edited_before(source[row]) for row in range(len(source)))
        elif isinstance(source, Inversion):
            yield self._inverted(source)
        else:
            if not isinstance(source, Tensor):
                raise ValueError(
                    f"a {type(source).__name__} cannot be edited: give what sample, invert or edit returned, or "
                    "w_plus; a photo is inverted first"
                )
            yield from (self._given(w_plus[None]) for w_plus in self._check_latent(source))

    def _sampled(self, recipe: Recipe) -> _Start:
        """Where a sample's recipe begins."""
        checked = recipes.check(recipe)
        recipes.check_model(checked, name=self.name, **self._weights())
        w_plus = self._of_recipe(checked)[1]
        noise = self.generator.synthesis.noise_images(1, checked["noise_mode"], self._noise([checked]))
        return _Start([w_plus], checked, self.generator.synthesis, noise)

    def _given(self, w_plus: Tensor) -> _Start:
        """Where w_plus (1, num_ws, w_dim) itself begins."""
        latent = w_plus.detach().to(self.device, torch.float32)
        told = editrecipes.of_latent(latent[0])
        synthesis = self.generator.synthesis
        return _Start([latent], told, synthesis, synthesis.noise_images(1, "const"))

    def _inverted(self, inv: Inversion, w_plus: Tensor | None = None) -> _Start:
        """Where a photo begins, or another w_plus in its place, drawn with the noise and weights fitted to it."""
        inversion.check_generator(inv.fingerprint, self.generator.fingerprint(), "the inversion")
        start = replace(self._given(inv.w_plus if w_plus is None else w_plus), inversion=inv)
        if inv.tuned is not None:
            start = replace(start, synthesis=inv.tuned.applied(self.generator).synthesis, told=None)
        if inv.noise is not None:
            start = replace(start, noise=[image.to(self.device) for image in inv.noise], told=None)
        return start

    def _edited_before(self, out: EditOutput) -> _Start:
        """Where an edited picture goes on."""
        (recipe,) = out.recipes
        if recipe is None:
            if out.region is not None:
                raise ValueError(
                    "this was edited within a region, with noise or weights that were fitted to its photo: give all "
                    "edits at once, to what invert returned"
                )
            return self._inverted(out.inversion, out.w_plus)
        recipes.check_model(recipe | {"modes": None}, name=self.name, **self._weights())
        return replace(self._told(recipe), inversion=out.inversion)

    def _told(self, source: Recipe) -> _Start:
        """Where the source of a recipe begins: a sample, a latent, or a picture that was edited."""
        if not editrecipes.is_edit(source):
            w_plus = editrecipes.latent(source, self.generator.num_ws, self.generator.config.w_dim)
            return self._sampled(source) if w_plus is None else self._given(w_plus)
        below, (edits, region) = self._told(source["source"]), self._read_edit(source)
        if not edits:
            return below
        moved = [editing.moved(latent, edits) for latent in below.latents]
        if region is None:  # all of the picture moves, what was drawn within regions too
            return replace(below, latents=moved, everywhere=True, earlier=[*below.earlier, *edits], whole=source)
        latents, regions = [*below.latents, moved[-1]], [*below.regions, region.to(self.device)]
        return replace(below, latents=latents, regions=regions, told=source, earlier=[], whole=None)

    def _read_edit(self, recipe: Recipe) -> tuple[list[Edit], Tensor | None]:
        """The edits of a recipe, and the region (1, 1, r, r)."""
        config = self.generator.config
        return editrecipes.edits(recipe, config.w_dim), editrecipes.region(recipe, config.resolution)

    def _from_latents(self, w_plus: Tensor, like: Source, fitted: Inversion | None) -> EditOutput:
        """What is drawn of w_plus (n, num_ws, w_dim), with what was `fitted` or the model's own noise and weights."""
        inv = like if isinstance(like, Inversion) else getattr(like, "inversion", None)
        rows = w_plus.split(1)
        starts = [self._inverted(fitted, row) if fitted else replace(self._given(row), inversion=inv) for row in rows]
        return self._edited([(start, []) for start in starts], None, FEATHER)

    def _latents_of(self, *sources: Source) -> tuple[list[Tensor], Inversion | None]:
        """The w_plus (n, num_ws, w_dim) of each source, and the photo to which noise or weights were fitted, if any.

        What was fitted to the photo of the first source draws them all; that of another photo is refused.
        """
        starts = [list(self._starts(source)) for source in sources]
        if not all(starts):
            raise ValueError("there is no picture in what was given: expected one or more")
        first = starts[0][0]
        fitted = first.inversion if first.told is None else None
        if any(start.told is None and start.inversion is not fitted for rows in starts for start in rows):
            raise ValueError(
                "noise or weights were fitted to a photo, which do not draw other pictures: give that photo first, or "
                "invert it without noise_steps and tune_steps"
            )
        return [torch.cat([start.latents[-1] for start in rows]) for rows in starts], fitted

    def _one(self, source: Source, name: str) -> Source:
        """A source that holds one picture, or a ValueError."""
        count = len(source) if isinstance(source, SampleOutput | EditOutput | Tensor) else 1
        if count != 1:
            raise ValueError(f"{name} has {count} pictures: choose one, such as out[0]")
        return source
