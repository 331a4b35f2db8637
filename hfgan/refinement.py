"""Refinement: from an encoder's w_plus down the gradient, toward what the photo shows inside its interest.

    L(w) = l(x, G(w)) + pull |(w - w_enc) / w_std|^2,    l(x, y) = |x - y|^2 + 0.8 d(x, y),

where the first norm is a mean over the interest and d a perceptual distance. Outside the interest both pictures are
the same smooth continuation of what the photo shows inside: what else the photo holds there has no influence, to the
last bit. Without the pull, parts that are hidden drift away, and edits no longer do what they are called.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Self

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F

from hfgan.images import on_white
from hfgan.metrics import resize
from hfgan.models.encoder import continue_outside, shrink
from hfgan.models.perceptual import Perceptual, check_interest
from hfgan.models.stylegan2 import StyleGAN2Generator, Synthesis
from hfgan.sampling import check_count

PERCEPTUAL_WEIGHT = 0.8  # as pSp and all that follow it
SEEN_SIZES = (64, 256)  # px: the perceptual network sees smaller images enlarged and larger ones reduced
BETAS = (0.5, 0.8)  # of Adam: with a short memory 50 steps come a fifth farther than with the usual one
NOISE_RATE = 0.1  # of Adam, at first
SINGLE = 128  # px up to which the search for one picture takes one core
NOISE_WEIGHT = 0.1  # of the autocorrelation: pixels halve their error, and the noise keeps its deviation

KeepGoing = Callable[["Step"], bool]


# ---------------------------------------------------------------- what is wanted


@dataclass(frozen=True)
class Target:
    """What is to be drawn: photos within their interest, continued smoothly outside.

    Attributes:
        image: (n, 3, r, r) in [-1, 1], transparent photos on white.
        inside: (n, 1, r, r), 0 or 1.
        net: What sees how alike two images are.
        features: What it sees of `image`.
    """

    image: Tensor
    inside: Tensor
    net: Perceptual
    features: list[Tensor]

    @classmethod
    @torch.no_grad()
    def of(cls, image: Tensor, interest: Tensor | None, resolution: int, net: Perceptual) -> Self:
        """The target for images of `resolution` [pixels].

        Args:
            image: (n, c, h, w) in [-1, 1].
            interest: (n, 1, h, w) in [0, 1], of which one half and more counts; None for everything.

        Raises:
            ValueError: a photo has no interest region, or one that is lost at this resolution.
        """
        rgb = on_white(image)
        if interest is None:
            seen = shrink(rgb, resolution)
            inside = torch.ones_like(seen[:, :1])
        else:
            check_interest(interest, len(image))
            hard = (interest >= 0.5).to(rgb)
            seen = shrink(continue_outside(rgb, hard), resolution)  # first, so that nothing of the outside is mixed in
            inside = (shrink(hard, resolution) >= 0.5).to(rgb)
        if empty := [i for i, one in enumerate(inside) if not one.any()]:
            raise ValueError(
                f"the interest of photo {empty[0]} is empty at {resolution} px: mark what matters, or leave it out"
            )
        return cls(seen, inside, net, net.features(_to_seen_size(seen)))

    def pixel_error(self, drawn: Tensor) -> Tensor:
        """Mean squared difference (n,) of drawn images (n, c, r, r) inside: sum m (a - b)^2 / (3 sum m)."""
        error = (on_white(drawn) - self.image).square().mean(1, keepdim=True) * self.inside  # (n, 1, r, r)
        return error.sum((1, 2, 3)) / self.inside.sum((1, 2, 3))

    def loss(self, drawn: Tensor) -> Tensor:
        """l (n,) of the module's equation for drawn images (n, c, r, r), fp32."""
        pasted = torch.where(self.inside > 0, on_white(drawn), self.image)
        found = self.net.features(_to_seen_size(pasted))
        return self.pixel_error(drawn) + PERCEPTUAL_WEIGHT * self.net.compare(found, self.features, self.inside)


def _to_seen_size(image: Tensor) -> Tensor:
    """Images (n, 3, r, r) at a size that the perceptual network was made for."""
    least, most = SEEN_SIZES
    return resize(image, min(max(image.shape[-1], least), most))


# ---------------------------------------------------------------- descent


@dataclass(frozen=True)
class Step:
    """Where a search is. `keep_going` is called with one after each step, and ends the search by answering False.

    Attributes:
        index, count: Steps taken, of how many.
        w_plus: (n, num_ws, w_dim).
        drawn: (n, c, r, r), what is drawn of it.
        error: (n,), `Target.loss` of that.
    """

    index: int
    count: int
    w_plus: Tensor
    drawn: Tensor
    error: Tensor


@dataclass(frozen=True)
class Refined:
    """The best that a search has found, for each sample by itself.

    Attributes:
        w_plus: (n, num_ws, w_dim).
        noise: A noise image (n, 1, r, r) per convolution, for `Synthesis.draw`; None for the stored ones.
        errors: (s + 1, n), `Target.loss` of the best so far at the start and after each of the s steps taken.
    """

    w_plus: Tensor
    noise: list[Tensor] | None
    errors: Tensor


@dataclass(frozen=True)
class Trial:
    """One point of a search: latents, what is drawn of them, and how good it is.

    Attributes:
        w_plus, noise, drawn: As in `Refined` and `Step`.
        error: (n,), `Target.loss`.
        loss: (n,), whose gradient is followed.
        score: (n,), by which the best is kept, the least.
    """

    w_plus: Tensor
    noise: list[Tensor] | None
    drawn: Tensor
    error: Tensor
    loss: Tensor
    score: Tensor


class Reporter:
    """Tells `keep_going` of the steps of one or more searches, and remembers whether it has had enough."""

    def __init__(self, keep_going: KeepGoing | None, count: int) -> None:
        self.keep_going, self.count, self.taken, self.stopped = keep_going, count, 0, False

    def __call__(self, trial: Trial) -> None:
        """One more step has been taken."""
        self.taken += 1
        if self.keep_going:
            shown = (part.detach() for part in (trial.w_plus, trial.drawn, trial.error))
            self.stopped = not self.keep_going(Step(self.taken, self.count, *shown))


@torch.enable_grad()
def descend(
    optimizer: torch.optim.Adam, attempt: Callable[[float], Trial], rate: Callable[[float], float], steps: int,
    report: Reporter,
) -> Refined:  # fmt: skip
    """Follow the gradient; samples do not influence one another, if they do not in `attempt`.

    Args:
        optimizer: Of the leaves that are free, which are changed in place.
        attempt: What they give, at a time from 0, the start, to 1, the end.
        rate: Learning rate at a time.
    """
    group, leaves = optimizer.param_groups[0], optimizer.param_groups[0]["params"]
    best, errors = None, []
    for k in range(steps + 1):
        time = k / max(steps, 1)
        trial = attempt(time)
        best = trial if best is None else _better(trial, best)
        errors.append(best.error.detach())
        if k:
            report(trial)
        if k == steps or report.stopped:
            break
        for leaf, gradient in zip(leaves, torch.autograd.grad(trial.loss.sum(), leaves), strict=True):
            leaf.grad = gradient
        group["lr"] = rate(time)
        optimizer.step()
    noise = None if best.noise is None else [image.detach() for image in best.noise]
    return Refined(best.w_plus.detach(), noise, torch.stack(errors))


def one_core(image: Tensor) -> AbstractContextManager:
    """Search for small pictures on one core of the CPU: a second brings little, and waits wherever others work."""
    small = image.device.type == "cpu" and image.numel() <= 3 * SINGLE**2
    return threadpool_limits(1) if small else nullcontext()


@torch.no_grad()
def _better(a: Trial, b: Trial) -> Trial:
    """Of each sample the trial with the lower score; b if they are equal."""
    wins = a.score < b.score  # (n,)

    def choose(x: Tensor, y: Tensor) -> Tensor:
        return torch.where(wins.view(-1, *[1] * (x.ndim - 1)), x, y)

    noise = None if a.noise is None else [choose(*pair) for pair in zip(a.noise, b.noise, strict=True)]
    fields = ("w_plus", "drawn", "error", "loss", "score")
    return Trial(noise=noise, **{name: choose(getattr(a, name), getattr(b, name)) for name in fields})


def falling(time: float) -> float:
    """Cosine from 1 at time 0 to 0 at time 1."""
    return (1 + math.cos(math.pi * time)) / 2


# ---------------------------------------------------------------- refinement


def refine(
    generator: StyleGAN2Generator, w_plus: Tensor, image: Tensor, interest: Tensor | None = None, *, w_std: Tensor,
    net: Perceptual, steps: int = 50, pull: float = 1.0, lr: float = 0.1, noise_steps: int = 0,
    keep_going: KeepGoing | None = None,
) -> Refined:  # fmt: skip
    """Move w_plus, and after it the noise, so that what is drawn is nearer to the photos inside their interest.

    The loss inside never becomes larger than that of the given w_plus. Noise is fitted last and to pixels alone
    (Abdal et al. 2020, Image2StyleGAN++, arXiv 1911.11544): it repeats the photo's grain, and stays behind in edits.

    Args:
        w_plus: (n, num_ws, w_dim), where to start: an encoder's answer.
        image, interest: As for `Target.of`.
        w_std: (w_dim,), the unit of steps: deviation of w, such as an encoder's.
        net: Perceptual network on the generator's device.
        steps: Of w_plus.
        pull: Of the module's equation; 0 lets w_plus go anywhere, and the larger it is the less it moves.
        lr: First learning rate of Adam, in units of w_std; it falls to 0 by a cosine.
        noise_steps: Of the noise images; 0 keeps the stored ones.
        keep_going: Is told of every step; what is best so far is returned when it answers False.
    """
    check_count(steps, "steps", least=0)
    check_count(noise_steps, "noise_steps", least=0)
    target = Target.of(image, interest, generator.config.resolution, net)
    given, synthesis = check_w_plus(generator, w_plus, len(image)), in_float32(generator)
    report = Reporter(keep_going, steps + noise_steps)
    moved = torch.zeros_like(given, requires_grad=True)  # in units of w_std

    def attempt(_: float) -> Trial:
        here = given + moved * w_std
        drawn = synthesis.draw(here, stored_noise(synthesis))
        error = target.loss(drawn)
        loss = error + pull * moved.square().mean((1, 2))
        return Trial(here, None, drawn, error, loss, score=loss)

    adam = torch.optim.Adam([moved], betas=BETAS)
    with one_core(target.image):
        found = descend(adam, attempt, lambda time: lr * falling(time), steps, report)
    if not noise_steps or report.stopped:
        return found
    after = refine_noise(synthesis, found.w_plus, target, noise_steps, report)
    return Refined(found.w_plus, after.noise, torch.cat([found.errors, after.errors[1:]]))


def refine_noise(synthesis: Synthesis, w_plus: Tensor, target: Target, steps: int, report: Reporter) -> Refined:
    """Fit the noise images to pixels inside the interest; elsewhere they stay the stored ones."""
    stored = [image.expand(len(w_plus), -1, -1, -1) for image in stored_noise(synthesis)]  # (n, 1, r, r) each
    near = [F.adaptive_max_pool2d(target.inside, image.shape[-1]) for image in stored]
    moved = [torch.zeros_like(image, requires_grad=True) for image in stored]

    def attempt(_: float) -> Trial:
        noise = [old + new * where for old, new, where in zip(stored, moved, near, strict=True)]
        drawn = synthesis.draw(w_plus, noise)
        loss = target.pixel_error(drawn) + NOISE_WEIGHT * autocorrelation(noise)
        with torch.no_grad():
            error = target.loss(drawn)
        return Trial(w_plus, noise, drawn, error, loss, score=error)

    return descend(torch.optim.Adam(moved), attempt, lambda time: NOISE_RATE * falling(time), steps, report)


def autocorrelation(noise: Sequence[Tensor]) -> Tensor:
    """How much noise images (n, 1, r, r) show of a picture: (n,), about 0 for white noise (arXiv 1912.04958 app. D).

    Squared correlation of neighbours, summed over two directions, all layers, and their pyramids down to 8 px.
    """
    total = noise[0].new_zeros(len(noise[0]))
    for image in noise:
        while True:
            for dim in (2, 3):
                total = total + (image * image.roll(1, dim)).mean((1, 2, 3)).square()
            if image.shape[-1] <= 8:
                break
            image = F.avg_pool2d(image, 2) * 2  # keeps the deviation of white noise
    return total


def check_w_plus(generator: StyleGAN2Generator, w_plus: Tensor, count: int) -> Tensor:
    """w_plus (n, num_ws, w_dim) apart from any graph, or a ValueError if it does not fit n photos."""
    expected = [count, generator.num_ws, generator.config.w_dim]
    if [*w_plus.shape] != expected:
        raise ValueError(f"w_plus has shape {[*w_plus.shape]}: expected {expected}, a row for each photo")
    return w_plus.detach().clone()


def in_float32(generator: StyleGAN2Generator) -> Synthesis:
    """The synthesis in fp32, with the same weights: in bf16 a gradient points up to 18 degrees aside."""
    synthesis = copy.copy(generator.synthesis)  # shares the layers; what draws elsewhere meanwhile is not disturbed
    synthesis.compute_dtype = torch.float32
    return synthesis


def stored_noise(synthesis: Synthesis) -> list[Tensor]:
    """The generator's own noise images, (1, 1, r, r) per convolution."""
    return [image for image in synthesis.noise_images(1, "const") if image is not None]
