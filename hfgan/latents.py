"""From a photo as the model sees it to its latent: an encoder or a projection, then refinement, noise, weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hfgan.inversion import Encoder, encode
from hfgan.models.perceptual import Perceptual
from hfgan.models.stylegan2 import StyleGAN2Generator
from hfgan.projection import image2stylegan, project, w_statistics
from hfgan.refinement import KeepGoing, refine
from hfgan.sampling import check_count
from hfgan.tuning import WeightDelta, tune

PROJECTIONS = {"projector": project, "image2stylegan": image2stylegan}
METHODS = ("encoder", *PROJECTIONS)
STEPS = 1000  # of a projection


@dataclass(frozen=True)
class Search:
    """How a latent is looked for; what the fields mean is told at `HFGan.invert`.

    Raises:
        ValueError: a number that is none, or a method that is not one of METHODS.
    """

    method: str = "encoder"
    steps: int | None = None
    refine: int = 0
    noise_steps: int = 0
    tune_steps: int = 0
    keep_going: KeepGoing | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method is {self.method!r}: expected {', '.join(map(repr, METHODS))}")
        if self.steps is not None:
            check_count(self.steps, "steps")
        for name in ("refine", "noise_steps", "tune_steps"):
            check_count(getattr(self, name), name, least=0)


@dataclass(frozen=True)
class Found:
    """What was found, and what it draws.

    Attributes:
        w_plus: (1, num_ws, w_dim).
        drawn: (1, c, r, r).
        taken: The drawing after each step of the encoder, or the last one of a projection.
        noise: A fitted noise image per convolution, or None for the stored ones.
        tuned: A fitted change of the weights, or None.
    """

    w_plus: Tensor
    drawn: Tensor
    taken: list[Tensor]
    noise: list[Tensor] | None = None
    tuned: WeightDelta | None = None


@torch.no_grad()
def look_for(
    generator: StyleGAN2Generator, encoder: Encoder | None, perceptual: Callable[[], Perceptual],
    image: Tensor, interest: Tensor | None, how: Search,
) -> Found:  # fmt: skip
    """The latent of an image (1, c, r, r) in [-1, 1] within its interest (1, 1, r, r), or everywhere.

    Args:
        encoder: Needed by the method "encoder" alone.
        perceptual: Gives what sees how alike two images are, when it is needed.
    """
    image = image.to(generator.device)
    interest = None if interest is None else interest.to(generator.device)
    noise, stopped = None, []

    def keep_going(step: object) -> bool:  # what comes after is left out as well
        stopped[:] = [] if how.keep_going is None or how.keep_going(step) else [True]
        return not stopped

    if how.method == "encoder":
        found = list(encode(generator, encoder, image, interest, how.steps or encoder.default_steps))
        w_plus, taken, w_std = found[-1][0], [drawn for _, drawn in found], encoder.w_std
    else:
        projected = PROJECTIONS[how.method](
            generator, image, interest, net=perceptual(), steps=how.steps or STEPS, keep_going=keep_going
        )
        w_plus, noise = projected.w_plus, projected.noise
        mean, spread = w_statistics(generator)
        taken, w_std = [draw(generator, w_plus, noise)], torch.full_like(mean, spread / len(mean) ** 0.5)
    if (how.refine or how.noise_steps) and not stopped:
        after = refine(generator, w_plus, image, interest, w_std=w_std, net=perceptual(), steps=how.refine,
                       noise_steps=how.noise_steps, keep_going=keep_going)  # fmt: skip
        w_plus, noise = after.w_plus, after.noise
    tuned = None
    if how.tune_steps and not stopped:
        tuned = tune(generator, w_plus, image, interest, net=perceptual(), steps=how.tune_steps,
                     keep_going=keep_going)  # fmt: skip
    changed = generator if tuned is None else tuned.applied(generator)
    return Found(w_plus, draw(changed, w_plus, noise), taken, noise, tuned)


def draw(generator: StyleGAN2Generator, w_plus: Tensor, noise: list[Tensor] | None) -> Tensor:
    """Images (n, c, r, r) of w_plus (n, num_ws, w_dim), with noise images per convolution in place of the stored."""
    return generator.synthesis(w_plus) if noise is None else generator.synthesis.draw(w_plus, noise)
