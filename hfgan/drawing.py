"""Drawing from seeds: sample, mix, interpolate, replay; the half of the facade `HFGan` that needs no photo.

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

from hfgan import images, modes, recipes, sampling
from hfgan.captions import file_name
from hfgan.memory import net_at_once
from hfgan.models.perceptual import load_perceptual
from hfgan.modes import Mode
from hfgan.parts import PartsPipeline
from hfgan.recipes import LATENT, Recipe
from hfgan.sampling import Psi


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

    @property
    def modes(self) -> list[int | None]:
        """The mode of each sample; None where it was truncated toward the mean of all."""
        return [recipe["mode"] for recipe in self.recipes]

    def save(self, folder: str | Path, *, overwrite: bool = False) -> list[Path]:
        """Write every picture as a PNG that carries its recipe, seed0042.png and so on; returns the paths.

        Raises:
            FileExistsError: a file is there already and `overwrite` is false; nothing is written then.
        """
        paths = [Path(folder) / file_name(recipe) for recipe in self.recipes]
        taken = [] if overwrite else [path for path in paths if path.exists()]
        if taken:
            raise FileExistsError(f"{taken[0]} exists already: choose another folder or pass overwrite=True")
        Path(folder).mkdir(parents=True, exist_ok=True)
        for picture, path, recipe in zip(self.images, paths, self.recipes, strict=True):
            images.save_png(picture, path, recipe, overwrite=overwrite)
        return paths

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int | slice) -> SampleOutput:
        rows = range(len(self))[index]
        chosen = list(rows) if isinstance(rows, range) else [rows]
        lists = ([of[i] for i in chosen] for of in (self.images, self.seeds, self.recipes))
        pictures, seeds, told = lists
        return SampleOutput(pictures, self.w[chosen], self.w_plus[chosen], seeds, told)


class Drawing(PartsPipeline):
    """A model that draws; `HFGan` adds what one does with photos."""

    _seen: modes.PerceptualModes | None = None  # what the perceptual assignment knows of the modes

    @torch.no_grad()
    def sample(
        self, num_images: int | None = None, *, seed: int | None = None, seeds: Iterable[int] | None = None,
        truncation_psi: Psi = 0.7, truncation_cutoff: int | None = None, truncation: str | None = None,
        mode: Mode = None, assignment: str | None = None, label: int | None = None, noise_mode: str = "const",
        batch_size: int = 16,
    ) -> SampleOutput:  # fmt: skip
        """Draw pictures. The same seed gives the same picture, whatever is drawn beside it.

        In float32 a batch equals its singles to one level of 255; bfloat16 rounds differently by batch size.

        Args:
            num_images: How many; 1 when nothing else says so.
            seed: Of the first; the others follow it. Random, and recorded, when there is neither.
            seeds: One per picture, in place of `seed`.
            truncation_psi: 1 for all the model's variety, toward 0 for its average; a pair (coarse, fine) for the
                first half of the layers and the second.
            truncation_cutoff: Truncate the first layers only, this many; None for all. Of a pair, where fine begins.
            truncation: "global" toward the mean of all, "multimodal" toward the center of a mode, "none". None is
                "multimodal" where a mode is given, else "global".
            mode: "nearest" to where the seed falls (None), or the one that it is drawn from: an index, "random", or
                a weight for each mode.
            assignment: How the nearest is found, "l2" in w or "perceptual" in pictures; None is the modes' own way, or
                that no nearest is sought.
            label: Class 0..c_dim - 1 of a model with classes, None for one without.
            noise_mode: "const", "random" (from the seed) or "none".
            batch_size: How many are computed at once, at most: large pictures are fewer on a CPU, 2 of 1024 px.
        """
        chosen, given = sampling.choose_seeds(num_images, seed, seeds), sampling.parse_psi(truncation_psi)
        psi = 1.0 if truncation == "none" else given
        draws, found = self._choose(modes.parse_truncation(truncation, mode), mode, chosen, assignment, label)
        rows = zip(chosen, draws, found, strict=True)
        latents = [dict(zip(LATENT, (s, d, psi, truncation_cutoff, label, m), strict=True)) for s, d, m in rows]
        w, w_plus = self._latents(latents)  # (n, w_dim), (n, num_ws, w_dim)
        pictures = self._draw(w_plus, noise_mode, self._noise(latents), batch_size)
        return SampleOutput(pictures, w, w_plus, chosen, [self._recipe(latent, noise_mode) for latent in latents])

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
        pictures = self._draw(w_plus, told[0]["noise_mode"], self._noise(told), batch_size)
        return SampleOutput(pictures, a.w[rows], w_plus, [a.seeds[i] for i in rows], told)

    @torch.no_grad()
    def interpolate(
        self, a: SampleOutput, b: SampleOutput, steps: int, kind: str = "w", *, batch_size: int = 16
    ) -> list[Image]:
        """`steps` pictures from a to b, one sample each, both ends included, with constant noise.

        Args:
            a, b: The ends, as `sample`, `mix` or `replay` returned them.
            steps: Number of pictures, 2 or more.
            kind: "w" is straight in w_plus; between the two z, "z" is straight and "slerp" a great circle.
            batch_size: How many are computed at once, at most.
        """
        self._check_own(a, b)
        if len(a) != 1 or len(b) != 1:
            raise ValueError(f"a has {len(a)} samples and b has {len(b)}: choose one of each, such as out[0]")
        if kind not in ("w", "z", "slerp"):
            raise ValueError(f"kind is {kind!r}: expected 'w', 'z' or 'slerp'")
        if kind == "w":
            return self.render(sampling.interpolate(a.w_plus[0], b.w_plus[0], steps), batch_size=batch_size)
        first, last = a.recipes[0], b.recipes[0]
        if _way(first) != _way(last) or first["mix"]:
            raise ValueError(
                f"kind={kind!r} needs unmixed samples of equal truncation and label, both with a mode or neither: "
                "use kind='w'"
            )
        draws = [first["draw"], last["draw"]]
        ends = sampling.latents_from_seeds([*a.seeds, *b.seeds], self.generator.config.z_dim, draws)  # (2, z_dim)
        z = sampling.interpolate(ends[0], ends[1], steps, "lerp" if kind == "z" else "slerp")  # (steps, z_dim)
        w, center = self._map(z, first["label"]), self._center([*a.modes, *b.modes])
        center = center if first["mode"] is None else modes.centers_between(w, center, self.modes)
        return self.render(self._truncate(w, center, first), batch_size=batch_size)

    @torch.no_grad()
    def replay(self, recipe: str | Path | Image | Recipe) -> SampleOutput:
        """Draw the picture of a recipe again: one of `SampleOutput.recipes`, or the PNG that carries it.

        Under another dtype or device than the recipe's it agrees up to rounding.
        """
        found = recipes.check(recipe if isinstance(recipe, dict) else images.read_recipe(recipe))
        recipes.check_model(found, name=self.name, **self._weights())
        w, w_plus = self._of_recipe(found)
        pictures = self._draw(w_plus, found["noise_mode"], self._noise([found]), 1)
        told = self._recipe(found, found["noise_mode"]) | {key: found[key] for key in ("modes", "mix")}
        return SampleOutput(pictures, w, w_plus, [found["seed"]], [told])

    @torch.no_grad()
    def render(self, w_plus: Tensor, *, batch_size: int = 16) -> list[Image]:
        """Pictures of w_plus (n, num_ws, w_dim), with constant noise."""
        return self._draw(self._check_latent(w_plus).to(self.device, torch.float32), "const", None, batch_size)

    @torch.no_grad()
    def nearest_modes(self, w: Tensor, *, assignment: str | None = None) -> Tensor:
        """Index (n,) int64 of the mode nearest to each of w (n, w_dim), such as `SampleOutput.w`."""
        modes.check_assignment(assignment, "multimodal", "nearest")
        return self._nearest(assignment)(w)

    # ---------------------------------------------------------------- what the verbs share

    def _map(self, z: Tensor, label: int | None) -> Tensor:
        """z (n, z_dim) to w (n, w_dim)."""
        return self.generator.mapping(z.to(self.device), self._one_hot(label, len(z)))

    def _truncate(self, w: Tensor, center: Tensor, how: Recipe) -> Tensor:
        """w (n, w_dim) to w_plus (n, num_ws, w_dim), moved toward center (w_dim,) or (n, w_dim) as a recipe says."""
        w_plus = sampling.broadcast(w, self.generator.num_ws)
        return sampling.truncate(w_plus, center, how["truncation_psi"], how["truncation_cutoff"])

    def _center(self, found: Sequence[int | None]) -> Tensor:
        """Centers (n, w_dim) of n modes, or `w_avg` (w_dim,) where there are none."""
        if found[0] is None:
            return self.generator.mapping.w_avg
        centers = self.part("modes").centers
        return centers[[modes.check_mode(mode, len(centers)) for mode in found]]

    def _latents(self, latents: Sequence[Recipe]) -> tuple[Tensor, Tensor]:
        """w (n, w_dim) and w_plus (n, num_ws, w_dim) of n recipes or steps of a mix, before mixing.

        They differ in seed, draw and mode only.
        """
        seeds, draws, found = ([latent[key] for latent in latents] for key in ("seed", "draw", "mode"))
        w = self._map(sampling.latents_from_seeds(seeds, self.generator.config.z_dim, draws), latents[0]["label"])
        return w, self._truncate(w, self._center(found), latents[0])

    def _of_recipe(self, recipe: Recipe) -> tuple[Tensor, Tensor]:
        """w (1, w_dim) and w_plus (1, num_ws, w_dim), mixed, of a recipe that was checked."""
        w, w_plus = self._latents([recipe])
        for step in recipe["mix"]:
            layers = sampling.parse_layers(step["layers"], self.generator.num_ws)
            w_plus = sampling.mix(w_plus, self._latents([step])[1], layers)
        return w, w_plus

    def _check_latent(self, w_plus: Tensor) -> Tensor:
        """w_plus (n, num_ws, w_dim) of this model, or a ValueError."""
        expected = [self.generator.num_ws, self.generator.config.w_dim]
        if w_plus.ndim != 3 or list(w_plus.shape[1:]) != expected:
            raise ValueError(f"w_plus has shape {list(w_plus.shape)}: expected (n, {expected[0]}, {expected[1]})")
        return w_plus

    def _choose(
        self, truncation: str, mode: Mode, seeds: list[int], assignment: str | None, label: int | None
    ) -> tuple[list[int], list[int | None]]:
        """Which z of each seed, and which mode: see `modes.choose_modes`."""
        modes.check_assignment(assignment, truncation, mode)
        if truncation != "multimodal" and mode is None:
            return [0] * len(seeds), [None] * len(seeds)
        bank, z_dim, nearest = self.part("modes"), self.generator.config.z_dim, self._nearest(assignment)
        return modes.choose_modes(bank, mode, seeds, z_dim, lambda z: self._map(z, label), nearest)

    def _nearest(self, assignment: str | None) -> modes.Nearest:
        """What finds the nearest modes (n,) of w (n, w_dim), in the way of `assignment` or in the modes' own."""
        bank = self.part("modes")
        how = bank.config.assignment if assignment is None else assignment
        return self._look_nearest if how == "perceptual" else lambda w: modes.nearest_mode(w, bank)

    def _look_nearest(self, w: Tensor) -> Tensor:
        """The modes (n,) whose pictures look most like those of w (n, w_dim)."""
        seen, bank = self._seen, self.modes
        if seen is None or (seen.fingerprint, seen.points.device) != (bank.fingerprint(), bank.device):
            self._seen = seen = modes.PerceptualModes(bank, load_perceptual().to(bank.device))
        parts = sampling.broadcast(w, self.generator.num_ws).split(net_at_once(self.generator, modes.BATCH))
        return torch.cat([seen.nearest(self.generator.synthesis(w_plus, "const")) for w_plus in parts])

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

    def _noise(self, latents: Sequence[Recipe]) -> list[torch.Generator]:
        """Generators of the random noise of these recipes: those that drew z, after it."""
        generators = sampling.generators_from_seeds([latent["seed"] for latent in latents])
        draws = [latent["draw"] for latent in latents]
        sampling.draw_latents(generators, self.generator.config.z_dim, draws)
        return generators

    def _draw(
        self, w_plus: Tensor, noise_mode: str, generators: list[torch.Generator] | None, batch_size: int,
        silenced: int | None = None,
    ) -> list[Image]:  # fmt: skip
        """Pictures of w_plus (n, num_ws, w_dim), batch by batch; several show a progress bar."""
        size = net_at_once(self.generator, sampling.check_count(batch_size, "batch_size"))
        starts = range(0, len(w_plus), size)
        pictures: list[Image] = []
        for start in self.progress_bar(starts) if len(starts) > 1 else starts:
            rows = slice(start, start + size)
            with torch.inference_mode():  # for the picture only: the latents stay usable in autograd
                noise = generators and generators[rows]
                image = self.generator.synthesis(w_plus[rows], noise_mode, noise, silenced=silenced)
                pictures += images.to_pil(image)  # image (n, c, r, r) in [-1, 1]
        return pictures

    def _recipe(self, latent: Recipe, noise_mode: str) -> Recipe:
        """The recipe of one picture; `latent` holds LATENT."""
        cutoff, psi = latent["truncation_cutoff"], sampling.parse_psi(latent["truncation_psi"])
        plain = latent | {"truncation_psi": psi, "truncation_cutoff": None if cutoff is None else int(cutoff)}
        return recipes.make(plain, noise_mode, model=self.name, dtype=self._dtype_name(), **self._weights())

    def _dtype_name(self) -> str:
        """What it draws in, such as "bfloat16"."""
        return str(self.dtype).removeprefix("torch.")

    def _weights(self) -> dict[str, str | None]:
        """Fingerprints of what draws."""
        return {"fingerprint": self.generator.fingerprint(), "modes": self.modes and self.modes.fingerprint()}

    def _check_own(self, *outputs: SampleOutput) -> None:
        """Refuse what is no output, is empty, or comes from another model or other modes."""
        weights = self._weights()
        for output in outputs:
            if not isinstance(output, SampleOutput) or not len(output):
                raise TypeError(f"{type(output).__name__} given: expected what sample, mix or replay returned")
            for recipe in output.recipes:
                recipes.check_model(recipe, name=self.name, **weights)


def _way(recipe: Recipe) -> list[object]:
    """What both ends of a way through z must share."""
    return [*(recipe[key] for key in ("truncation_psi", "truncation_cutoff", "label", "mix")), recipe["mode"] is None]
