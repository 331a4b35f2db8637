"""Projection: latents of photos found from the mean alone. Slow; for comparison, and for models without an encoder.

Two published searches with the loss, the answer and the callback of `refinement`, so that they compare with it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hfgan.models.perceptual import Perceptual
from hfgan.models.stylegan2 import StyleGAN2Generator
from hfgan.refinement import (
    KeepGoing,
    Refined,
    Reporter,
    Target,
    Trial,
    autocorrelation,
    descend,
    falling,
    in_float32,
    stored_noise,
)
from hfgan.sampling import broadcast, check_count, check_seed, generators_from_seeds

STATISTICS = 10_000  # samples behind the mean of w
# StyleGAN2, appendix D
PROJECTOR_RATE = 0.1
RAMP_UP, RAMP_DOWN = 0.05, 0.25  # shares of the steps
JITTER, JITTERED = 0.05, 0.75  # of the deviation of w at first; share of the steps after which there is none
NOISE_WEIGHT = 1e5
# Image2StyleGAN, section 5
W_PLUS_RATE = 0.01


def project(
    generator: StyleGAN2Generator, image: Tensor, interest: Tensor | None = None, *, net: Perceptual,
    steps: int = 1000, seed: int = 0, keep_going: KeepGoing | None = None,
) -> Refined:  # fmt: skip
    """The projector of StyleGAN2 (Karras et al. 2020, arXiv 1912.04958 appendix D): one w for all layers, and noise.

    The w starts at the mean and is jittered, less and less; noise images are kept white.

    Args:
        image: Photos (n, c, h, w) in [-1, 1].
        interest: (n, 1, h, w) in [0, 1], of which one half and more counts; None for everything.
        net: Perceptual network on the generator's device.
        steps: Of Adam.
        seed: Of the jitter, which is the same for all samples.
        keep_going: Is told of every step; what is best so far is returned when it answers False.
    """
    check_count(steps, "steps", least=0)
    (source,) = generators_from_seeds([check_seed(seed)])
    target, synthesis = Target.of(image, interest, generator.config.resolution, net), in_float32(generator)
    mean, spread = w_statistics(generator)
    moved = torch.zeros(len(image), len(mean), device=mean.device, requires_grad=True)  # (n, w_dim)
    noise = [stored.repeat(len(image), 1, 1, 1).requires_grad_() for stored in stored_noise(synthesis)]

    def attempt(time: float) -> Trial:
        for one in noise:
            whiten(one)
        jitter = torch.randn(len(mean), generator=source).to(mean) * spread * JITTER * max(0, 1 - time / JITTERED) ** 2
        w_plus = broadcast(mean + moved + jitter, generator.num_ws)  # (n, num_ws, w_dim)
        drawn = synthesis.draw(w_plus, noise)
        error = target.loss(drawn)
        loss = error + NOISE_WEIGHT * autocorrelation(noise)
        return Trial(w_plus, [one.clone() for one in noise], drawn, error, loss, score=error)

    def rate(time: float) -> float:
        down = 1 - falling(min(1, (1 - time) / RAMP_DOWN))
        return PROJECTOR_RATE * down * min(1, time / RAMP_UP)

    return descend(torch.optim.Adam([moved, *noise]), attempt, rate, steps, Reporter(keep_going, steps))


def image2stylegan(
    generator: StyleGAN2Generator, image: Tensor, interest: Tensor | None = None, *, net: Perceptual,
    steps: int = 1000, keep_going: KeepGoing | None = None,
) -> Refined:  # fmt: skip
    """Image2StyleGAN (Abdal et al. 2019, arXiv 1904.03189): a w for each layer, all from the mean.

    Args:
        image, interest, net, steps, keep_going: As for `project`.
    """
    check_count(steps, "steps", least=0)
    target, synthesis = Target.of(image, interest, generator.config.resolution, net), in_float32(generator)
    mean, _ = w_statistics(generator)
    w_plus = broadcast(mean.expand(len(image), -1), generator.num_ws).requires_grad_()  # (n, num_ws, w_dim)

    def attempt(_: float) -> Trial:
        drawn = synthesis.draw(w_plus, stored_noise(synthesis))
        error = target.loss(drawn)
        return Trial(w_plus.clone(), None, drawn, error, loss=error, score=error)

    adam = torch.optim.Adam([w_plus])
    return descend(adam, attempt, lambda _: W_PLUS_RATE, steps, Reporter(keep_going, steps))


@torch.no_grad()
def w_statistics(generator: StyleGAN2Generator) -> tuple[Tensor, float]:
    """Mean (w_dim,) of w, and the root of the mean squared distance from it."""
    source = torch.Generator().manual_seed(0)
    z = torch.randn(STATISTICS, generator.config.z_dim, generator=source).to(generator.device)
    w = generator.mapping(z, generator.mapping.labels_in_turn(torch.arange(STATISTICS)))  # (STATISTICS, w_dim)
    mean = w.mean(0)
    return mean, math.sqrt((w - mean).square().sum(1).mean().item())


@torch.no_grad()
def whiten(noise: Tensor) -> None:
    """Give each noise image (n, 1, r, r) mean 0 and deviation 1, in place."""
    noise -= noise.mean((2, 3), keepdim=True)
    noise *= noise.square().mean((2, 3), keepdim=True).rsqrt()
