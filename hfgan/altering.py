"""Edits of what was drawn or inverted: the part of the facade `HFGan` between drawing and photos.

Each picture is drawn by itself, together with what it was before, so that a recipe gives it again bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from hfgan.models.stylegan2 import SynthesisNetwork, draw_noise
from hfgan.recipes import Recipe

Source = SampleOutput | Inversion | EditOutput | Tensor  # a Tensor is w_plus (n, num_ws, w_dim)
Region = Interest | str
FEATHER = 0.04  # sides


@dataclass
class _Start:
    """One latent to edit: w_plus (1, num_ws, w_dim) before any edit, what says so in a recipe, and how it is drawn.

    `told` is None where weights or noise were fitted to a photo: no recipe carries those.
    """

    w_plus: Tensor
    told: Recipe | None
    earlier: list[Edit]
    synthesis: SynthesisNetwork
    noise: list[Tensor | None]
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
            source: What `sample`, `mix`, `invert` or `edit` returned (edits add up), or w_plus (n, num_ws, w_dim).
            edits: Strengths by the name of a direction of this model, or by `Direction`, in deviations of the
                attribute; or a list of `Edit`.
            layers: Those that are moved, such as "0-3"; None for each direction's own.
            region: Where pictures may change: None for everywhere, "alpha" for the subject before and after,
                "interest" for what mattered in a photo; or a region, a box or a file as for `invert`, in the frame of
                the picture, of a photo in that of the whole photo.
            to: Strengths are values to be reached, 0 being the boundary, rather than how far to go from here.
            feather: Over how many sides a region fades out, on the inner side of its edges.
        """
        found = editing.parse_edits(edits, self.directions, self.generator.num_ws, layers=layers, to=to)
        if not found:
            raise ValueError("no edits given: expected strengths by name, such as {'smile': 2.0}")
        starts = list(self._starts(source))
        return self._edited([(start, found) for start in starts], region, feather)

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
        start = self._only(source, "source")
        one = editing.look_up(direction, self.directions)
        reached = one.normal is not None if to is None else to
        chosen = None if layers is None else tuple(sampling.parse_layers(layers, self.generator.num_ws))
        last = sampling.check_count(steps, "steps", least=2) - 1
        moves = [Edit(one, reach * (2 * k / last - 1), reached, chosen) for k in range(last + 1)]
        return self._edited([(start, [move]) for move in moves], region, feather)

    @torch.no_grad()
    def mix(self, a: Source, b: Source, layers: str | Sequence[int], *, batch_size: int = 16) -> Any:
        """`a` with the styles of `b` in some layers, such as "0-3,5": low ones shape, high ones colour.

        Either may hold one picture, which then goes with every one of the other. Of two samples it gives a
        `SampleOutput`; where a photo or an edited picture is among them (style transfer) an `EditOutput`.
        """
        if isinstance(a, SampleOutput) and isinstance(b, SampleOutput):
            return super().mix(a, b, layers, batch_size=batch_size)
        chosen = sampling.parse_layers(layers, self.generator.num_ws)
        return self._from_latents(sampling.mix(self._latent(a), self._latent(b), chosen), a)

    @torch.no_grad()
    def morph(self, a: Source, b: Source, steps: int = 16) -> EditOutput:
        """`steps` pictures on the straight way from one latent to another, both ends included."""
        ends = [self._latent(self._one(source, name))[0] for source, name in ((a, "a"), (b, "b"))]
        return self._from_latents(sampling.interpolate(*ends, steps), a)

    @torch.no_grad()
    def transfer(self, a: Source, b: Source, c: Source, amount: float = 1.0) -> EditOutput:
        """What b has and c has not, such as an expression, given to a: w_a + amount (w_b - w_c).

        Expression transfer of Image2StyleGAN (Abdal et al. 2019, arXiv 1904.03189 §5.3).
        """
        own, having, lacking = (self._latent(self._one(x, name)) for x, name in ((a, "a"), (b, "b"), (c, "c")))
        return self._from_latents(own + amount * (having - lacking), a)

    @torch.no_grad()
    def loop(self, sources: Sequence[Source] | Source, steps_between: int = 12) -> list[Image]:
        """Frames of a seamless loop through all these latents and back to the first."""
        latents = [sources] if isinstance(sources, Source) else list(sources)
        keyframes = torch.cat([self._latent(source) for source in latents])
        return self.render(sampling.walk(keyframes, steps_between, loop=True))

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
        config = self.generator.config
        w_plus = editrecipes.latent(found["source"], self.generator.num_ws, config.w_dim)
        start = self._sampled(found["source"]) if w_plus is None else self._given(w_plus)
        edits, region = editrecipes.edits(found, config.w_dim), editrecipes.region(found, config.resolution)
        return self._edited([(start, edits)], region, None)

    # ---------------------------------------------------------------- what the verbs share

    def _edited(self, tasks: list[tuple[_Start, list[Edit]]], region: Region, feather: float | None) -> EditOutput:
        """Draw each start before and after its edits; without feather, `region` is what a recipe held."""
        if region is not None and feather is not None and not 0 <= feather <= 0.5:
            raise ValueError(f"feather is {feather}: expected a share of the side, 0 to 0.5")
        shown = self.progress_bar(tasks) if len(tasks) > 1 else tasks
        rows = [self._edited_one(*task, region, feather) for task in shown]
        before, after, w_plus, regions, told = zip(*rows, strict=True)
        within = None if regions[0] is None else torch.cat(regions).cpu()
        inv = tasks[0][0].inversion
        return EditOutput(list(after), list(before), torch.cat(w_plus).cpu(), within, list(told), inv)

    def _edited_one(
        self, start: _Start, edits: list[Edit], region: Region, feather: float | None
    ) -> tuple[Image, Image, Tensor, Tensor | None, Recipe | None]:
        """The picture before and after, w_plus (1, num_ws, w_dim), the region (1, 1, r, r) and the recipe."""
        before = editing.moved(start.w_plus, start.earlier)
        after = editing.moved(before, edits)
        drawing = start.synthesis, before, after, start.noise
        within = region if feather is None else self._region(region, drawing, start.inversion, feather)
        within = None if within is None else within.to(self.device)
        old, new, _ = editing.draw_both(*drawing, within)
        said = {"model": self.name, "fingerprint": self.generator.fingerprint(), "dtype": self._dtype_name()}
        told = start.told and editrecipes.make(start.told, [*start.earlier, *edits], within, **said)
        return editing.to_picture(old), editing.to_picture(new), after, within, told

    def _region(self, region: Region, drawing: tuple, inv: Inversion | None, feather: float) -> Tensor | None:
        """The region (1, 1, r, r) that a user means."""
        if region is None:
            return None
        if isinstance(region, str) and region == "alpha":
            *_, alpha = editing.draw_both(*drawing, net=self.part("alpha"))
            return editing.around_subject(alpha, feather)
        picture = editing.to_picture(editing.draw_both(*drawing)[0])
        return editing.read_region(region, picture, inv, self.generator.config.resolution, feather)

    def _starts(self, source: Source) -> Iterator[_Start]:
        """Each latent of a source."""
        if isinstance(source, SampleOutput):
            self._check_own(source)
            yield from (self._sampled(recipe) for recipe in source.recipes)
        elif isinstance(source, EditOutput):
            for row, recipe in enumerate(source.recipes):
                yield self._edited_before(recipe, source.w_plus[row : row + 1], source.inversion)
        elif isinstance(source, Inversion):
            yield self._inverted(source)
        else:
            if not isinstance(source, Tensor):
                raise ValueError(
                    f"a {type(source).__name__} cannot be edited: give what sample, invert or edit returned, or "
                    "w_plus; a photo is inverted first"
                )
            yield from (self._given(w_plus) for w_plus in self._check_latent(source).split(1))

    def _sampled(self, recipe: Recipe) -> _Start:
        """Where a sample's recipe begins."""
        checked = recipes.check(recipe)
        recipes.check_model(checked, name=self.name, **self._weights())
        w_plus = self._of_recipe(checked)[1]
        noise = self._noise_images(checked["noise_mode"], self._noise([checked]))
        return _Start(w_plus, checked, [], self.generator.synthesis, noise)

    def _given(self, w_plus: Tensor) -> _Start:
        """Where w_plus (1, num_ws, w_dim) itself begins."""
        told = editrecipes.of_latent(w_plus[0])
        return _Start(w_plus.to(self.device), told, [], self.generator.synthesis, self._noise_images("const", None))

    def _inverted(self, inv: Inversion) -> _Start:
        """Where a photo begins, drawn with the noise and the weights that were fitted to it."""
        inversion.check_generator(inv.fingerprint, self.generator.fingerprint(), "the inversion")
        start = self._given(inv.w_plus)
        start.inversion = inv
        if inv.tuned is not None:
            start.synthesis, start.told = inv.tuned.applied(self.generator).synthesis, None
        if inv.noise is not None:
            start.noise, start.told = [image.to(self.device) for image in inv.noise], None
        return start

    def _edited_before(self, recipe: Recipe | None, w_plus: Tensor, inv: Inversion | None) -> _Start:
        """Where an edited picture goes on: its edits first, in the order in which they were made."""
        if recipe is None:
            start = self._inverted(inv)
            start.w_plus = w_plus.to(self.device)
            return start
        recipes.check_model(recipe | {"modes": None}, name=self.name, **self._weights())
        config = self.generator.config
        known = editrecipes.latent(recipe["source"], self.generator.num_ws, config.w_dim)
        start = self._sampled(recipe["source"]) if known is None else self._given(known)
        start.earlier, start.inversion = editrecipes.edits(recipe, config.w_dim), inv
        return start

    def _noise_images(self, mode: str, generators: list[torch.Generator] | None) -> list[Tensor | None]:
        """A noise image for each convolution, as `SynthesisNetwork.forward` draws them."""
        convs = [conv for block in self.generator.synthesis.blocks for conv in block.convs()]
        return [draw_noise(conv, 1, mode, generators) for conv in convs]

    def _from_latents(self, w_plus: Tensor, like: Source) -> EditOutput:
        """What is drawn of w_plus (n, num_ws, w_dim), with the model's own noise and weights."""
        inv = like if isinstance(like, Inversion) else getattr(like, "inversion", None)
        starts = [self._given(row) for row in w_plus.split(1)]
        for start in starts:
            start.inversion = inv
        return self._edited([(start, []) for start in starts], None, FEATHER)

    def _latent(self, source: Source) -> Tensor:
        """The w_plus (n, num_ws, w_dim) of a source, on the model's device."""
        return torch.cat([editing.moved(start.w_plus, start.earlier) for start in self._starts(source)])

    def _one(self, source: Source, name: str) -> Source:
        """A source that holds one picture, or a ValueError."""
        count = 1 if isinstance(source, Inversion) else len(source)
        if count != 1:
            raise ValueError(f"{name} has {count} pictures: choose one, such as out[0]")
        return source

    def _only(self, source: Source, name: str) -> _Start:
        """The one latent of a source that holds one picture."""
        return next(self._starts(self._one(source, name)))
