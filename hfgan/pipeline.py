"""HFGan: the facade. What one does with a model, in PIL, strings and seeds; each verb delegates.

The order of operations is fixed: map, truncate, mix, synthesise. Every sample has a CPU generator of its own,
so the same seed is the same picture whatever is drawn beside it and on whichever device.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL.Image import Image
from torch import Tensor
from torch.nn import functional as F

from hfgan import images, recipes, sampling
from hfgan.parts import PartsPipeline
from hfgan.recipes import LATENT, Recipe


@dataclass
class SampleOutput:
    """Pictures and how they came about; `out[0]` and `out[2:5]` are outputs of one and of three.

    Attributes:
        images: n pictures.
        w: (n, w_dim), what the mapping gave, before truncation.
        w_plus: (n, num_ws, w_dim), what was drawn: truncated and mixed.
        seeds: n seeds.
        recipes: n JSON-able dicts, each enough for `HFGan.replay`.
    """

    images: list[Image]
    w: Tensor
    w_plus: Tensor
    seeds: list[int]
    recipes: list[Recipe]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int | slice) -> SampleOutput:
        rows = range(len(self))[index]
        chosen = list(rows) if isinstance(rows, range) else [rows]
        lists = ([of[i] for i in chosen] for of in (self.images, self.seeds, self.recipes))
        pictures, seeds, told = lists
        return SampleOutput(pictures, self.w[chosen], self.w_plus[chosen], seeds, told)


class HFGan(PartsPipeline):
    """A generator and the parts that go with it.

    Args:
        generator: Draws the pictures.
        discriminator: Its opponent, for going on with training; None for none.
        encoder: Image to the w that draws it best; None for none.
    """

    @torch.no_grad()
    def sample(
        self,
        num_images: int | None = None,
        *,
        seed: int | None = None,
        seeds: Iterable[int] | None = None,
        truncation_psi: float = 0.7,
        truncation_cutoff: int | None = None,
        label: int | None = None,
        noise_mode: str = "const",
        batch_size: int = 16,
    ) -> SampleOutput:
        """Draw pictures. The same seed gives the same picture, whatever is drawn beside it.

        In float32 a batch equals its singles to one level of 255; bfloat16 rounds differently by batch size.

        Args:
            num_images: How many; 1 when nothing else says so.
            seed: Of the first; the others follow it. Random, and recorded, when there is neither.
            seeds: One per picture, in place of `seed`.
            truncation_psi: 1 for all the model's variety, toward 0 for its average.
            truncation_cutoff: Truncate the first layers only, this many; None for all.
            label: Class 0..c_dim - 1 of a model with classes, None for one without.
            noise_mode: "const", "random" (from the seed) or "none".
            batch_size: How many are computed at once.
        """
        chosen = sampling.choose_seeds(num_images, seed, seeds)
        generators = sampling.generators_from_seeds(chosen)
        z = sampling.draw_latents(generators, self.generator.config.z_dim)  # (n, z_dim)
        how = (truncation_psi, truncation_cutoff, label)
        w, w_plus = self._map(z, *how)  # (n, w_dim), (n, num_ws, w_dim)
        pictures = self._draw(w_plus, noise_mode, generators, batch_size)
        return SampleOutput(pictures, w, w_plus, chosen, [self._recipe((one, *how), noise_mode) for one in chosen])

    __call__ = sample

    @torch.no_grad()
    def mix(
        self, a: SampleOutput, b: SampleOutput, layers: str | Sequence[int], *, batch_size: int = 16
    ) -> SampleOutput:
        """`a` with the styles of `b` in some layers, such as "0-3,5": low ones shape, high ones colour.

        Either may hold one sample, which then goes with every one of the other.
        """
        self._check_own(a, b)
        chosen = sampling.parse_layers(layers, self.generator.num_ws)
        w_plus = sampling.mix(a.w_plus.to(self.device), b.w_plus.to(self.device), chosen)  # (n, num_ws, w_dim)
        rows = [i % len(a) for i in range(len(w_plus))]
        told = [recipes.mixed(a.recipes[i], b.recipes[n % len(b)], chosen) for n, i in enumerate(rows)]
        seeds = [a.seeds[i] for i in rows]
        pictures = self._draw(w_plus, told[0]["noise_mode"], self._noise(seeds), batch_size)
        return SampleOutput(pictures, a.w[rows], w_plus, seeds, told)

    @torch.no_grad()
    def interpolate(
        self, a: SampleOutput, b: SampleOutput, steps: int, kind: str = "w", *, batch_size: int = 16
    ) -> list[Image]:
        """`steps` pictures from a to b, one sample each, both ends included, with constant noise.

        Args:
            a, b: The ends, as `sample`, `mix` or `replay` returned them.
            steps: Number of pictures, 2 or more.
            kind: "w" is straight in w_plus; between the two z, "z" is straight and "slerp" a great circle.
            batch_size: How many are computed at once.
        """
        self._check_own(a, b)
        if len(a) != 1 or len(b) != 1:
            raise ValueError(f"a has {len(a)} samples and b has {len(b)}: choose one of each, such as out[0]")
        if kind not in ("w", "z", "slerp"):
            raise ValueError(f"kind is {kind!r}: expected 'w', 'z' or 'slerp'")
        if kind == "w":
            return self.render(sampling.interpolate(a.w_plus[0], b.w_plus[0], steps), batch_size=batch_size)
        how, other = ([one.recipes[0][key] for key in (*LATENT[1:], "mix")] for one in (a, b))
        if how != other or how[-1]:
            raise ValueError(f"kind={kind!r} needs unmixed samples of equal truncation and label: use kind='w'")
        ends = sampling.latents_from_seeds([*a.seeds, *b.seeds], self.generator.config.z_dim)  # (2, z_dim)
        z = sampling.interpolate(ends[0], ends[1], steps, "lerp" if kind == "z" else "slerp")  # (steps, z_dim)
        _, w_plus = self._map(z, *how[:-1])
        return self.render(w_plus, batch_size=batch_size)

    @torch.no_grad()
    def replay(self, recipe: str | Path | Image | Recipe) -> SampleOutput:
        """Draw the picture of a recipe again: one of `SampleOutput.recipes`, or the PNG that carries it.

        Under another dtype or device than the recipe's it agrees up to rounding.
        """
        found = recipes.check(recipe if isinstance(recipe, dict) else images.read_recipe(recipe))
        recipes.check_model(found, self.generator.fingerprint(), self.name)
        w, w_plus = self._latent(found)
        for step in found["mix"]:
            layers = sampling.parse_layers(step["layers"], self.generator.num_ws)
            w_plus = sampling.mix(w_plus, self._latent(step)[1], layers)
        pictures = self._draw(w_plus, found["noise_mode"], self._noise([found["seed"]]), 1)
        told = self._recipe(tuple(found[key] for key in LATENT), found["noise_mode"]) | {"mix": found["mix"]}
        return SampleOutput(pictures, w, w_plus, [found["seed"]], [told])

    @torch.no_grad()
    def render(self, w_plus: Tensor, *, batch_size: int = 16) -> list[Image]:
        """Pictures of w_plus (n, num_ws, w_dim), with constant noise."""
        expected = [self.generator.num_ws, self.generator.config.w_dim]
        if w_plus.ndim != 3 or list(w_plus.shape[1:]) != expected:
            raise ValueError(f"w_plus has shape {list(w_plus.shape)}: expected (n, {expected[0]}, {expected[1]})")
        return self._draw(w_plus.to(self.device, torch.float32), "const", None, batch_size)

    # ---------------------------------------------------------------- what the verbs share

    def _map(self, z: Tensor, psi: float, cutoff: int | None, label: int | None) -> tuple[Tensor, Tensor]:
        """z (n, z_dim) to w (n, w_dim) and truncated w_plus (n, num_ws, w_dim)."""
        mapping = self.generator.mapping
        w = mapping(z.to(self.device), self._one_hot(label, len(z)))
        return w, sampling.truncate(sampling.broadcast(w, self.generator.num_ws), mapping.w_avg, psi, cutoff)

    def _latent(self, recipe: Recipe) -> tuple[Tensor, Tensor]:
        """w (1, w_dim) and w_plus (1, num_ws, w_dim) of a recipe, or of a step of its mix, before mixing."""
        seed, *how = (recipe[key] for key in LATENT)
        return self._map(sampling.latents_from_seeds([seed], self.generator.config.z_dim), *how)

    def _one_hot(self, label: int | None, n: int) -> Tensor | None:
        """Labels (n, c_dim), or None for a model without classes."""
        classes = self.generator.config.c_dim
        if not classes and label is not None:
            raise ValueError(f"label is {label!r} but this model has no classes: leave label out")
        if not classes:
            return None
        if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < classes:
            raise ValueError(f"label is {label!r}: this model has classes 0 to {classes - 1}, give one of them")
        return F.one_hot(torch.full((n,), label, device=self.device), classes).float()

    def _noise(self, seeds: Sequence[int]) -> list[torch.Generator]:
        """Generators of these seeds' random noise: those that drew z, after it."""
        generators = sampling.generators_from_seeds(seeds)
        sampling.draw_latents(generators, self.generator.config.z_dim)
        return generators

    def _draw(
        self, w_plus: Tensor, noise_mode: str, generators: list[torch.Generator] | None, batch_size: int
    ) -> list[Image]:
        """Pictures of w_plus (n, num_ws, w_dim), batch by batch; several show a progress bar."""
        size = sampling.check_count(batch_size, "batch_size")
        starts = range(0, len(w_plus), size)
        pictures: list[Image] = []
        for start in self.progress_bar(starts) if len(starts) > 1 else starts:
            rows = slice(start, start + size)
            with torch.inference_mode():  # for the picture only: the latents stay usable in autograd
                image = self.generator.synthesis(w_plus[rows], noise_mode, generators and generators[rows])
                pictures += images.to_pil(image)  # image (n, c, r, r) in [-1, 1]
        return pictures

    def _recipe(self, latent: tuple[int, float, int | None, int | None], noise_mode: str) -> Recipe:
        """The recipe of one picture; `latent` holds the values of LATENT."""
        seed, psi, cutoff, label = latent
        plain = (seed, float(psi), None if cutoff is None else int(cutoff), label)
        dtype, fingerprint = str(self.dtype).removeprefix("torch."), self.generator.fingerprint()
        return recipes.make(plain, noise_mode, model=self.name, fingerprint=fingerprint, dtype=dtype)

    def _check_own(self, *outputs: SampleOutput) -> None:
        """Refuse what is no output, is empty, or comes from another model."""
        for output in outputs:
            if not isinstance(output, SampleOutput) or not len(output):
                raise TypeError(f"{type(output).__name__} given: expected what sample, mix or replay returned")
            for recipe in output.recipes:
                recipes.check_model(recipe, self.generator.fingerprint(), self.name)
