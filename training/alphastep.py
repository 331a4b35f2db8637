"""One iteration of training an alpha network, and the score that needs no label."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import loop
import run
import torch
from accelerate import Accelerator
from bootstrap import Features
from torch import Tensor
from torch.nn import functional as F

from hfgan import losses
from hfgan.augment import shift_each
from hfgan.images import on_white
from hfgan.memory import draw_in_parts, draw_with_alpha, in_parts, net_at_once
from hfgan.metrics import boundary_iou, mean_iou
from hfgan.models.alpha import AlphaNetwork
from hfgan.models.discriminator import StyleGAN2Discriminator
from hfgan.models.stylegan2 import StyleGAN2Generator
from hfgan.sampling import broadcast, mix
from hfgan.segmentation import composite, refine

if TYPE_CHECKING:
    from alpha import Config, Networks

CONFIDENT = 0.75  # votes from which a pixel is learned from
LEAST, MOST = 0.02, 0.98  # area of the subject, beyond which alpha has collapsed
TRUSTED_AFTER = 2000  # samples
AREA_BETA = 0.98  # of the running mean of the area, per iteration


@dataclass
class Progress(loop.Progress):
    """What a resumed run needs beside the tensors."""

    area: float = 0.5  # running mean
    score: float = 0.0  # the latest
    best_score: float = -1.0


class Step:
    """One iteration: of the bootstrap at first, of the refinement after it."""

    def __init__(self, config: Config, accelerator: Accelerator, nets: Networks, progress: Progress) -> None:
        self.config, self.accelerator, self.nets, self.progress = config, accelerator, nets, progress

    def __call__(self, real: Tensor, labels: Tensor | None) -> dict[str, float]:
        config, seen = self.config, self.progress.images_seen
        numbers = self.bootstrap(len(real)) if self.learning else self.refine(real)
        half_life = min(config.ema_images, max(0.05 * (seen + config.batch), 1e-8))
        run.update_average(self.nets.average, self.nets.alpha, 0.5 ** (config.batch / half_life))
        check_collapse(self.progress.area, seen)
        now = seen + config.batch
        if loop.crosses(config.sample_every, seen, now) or now >= config.images:
            self.keep_best()
        return numbers

    def keep_best(self) -> None:
        """Keep the average where it scores best so far; each process does, so that all hold the same."""
        nets, progress = self.nets, self.progress
        progress.score = score(nets.generator, nets.average, nets.shown)
        if progress.score >= progress.best_score:
            progress.best_score = progress.score
            nets.best.load_state_dict(nets.average.state_dict())

    def source(self, purpose: str) -> torch.Generator:
        """Randomness of this iteration and process for one purpose."""
        return run.random_source(self.config.seed, run.PURPOSES[purpose], self.progress.images_seen,
                                 self.accelerator.process_index)  # fmt: skip

    # ---------------------------------------------------------------- bootstrap

    def bootstrap(self, count: int) -> dict[str, float]:
        """Learn from the pixels that nearly all clusterings agree on."""
        image, logit, votes = self.draw(count)
        learned = vote_loss(logit, votes)
        loss = learned + self.shape_loss(image, logit.sigmoid())
        self.track_area(logit.sigmoid())
        self.update("alpha", loss, self.config.lr)
        return {"loss_votes": learned.item()}

    def draw(self, count: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Images (n, c, r, r), logits (n, 1, r, r) with gradients, and votes (n, 1, s, s) where they are wanted."""
        generator, source = self.nets.generator, self.source("latents")
        w = self.nets.draw_w(count, source)
        psi = torch.empty(count, 1).uniform_(self.config.truncation_psi, 1.0, generator=source).to(w.device)
        self.w_plus = broadcast(generator.mapping.w_avg.lerp(w, psi), generator.num_ws)
        wanted = self.nets.votes is not None and (self.learning or self.config.anchor_weight > 0)
        if not wanted:
            return *draw_with_alpha(generator, self.nets.alpha, self.w_plus, "random", self.source("noise")), None
        return draw_in_parts(generator, self.w_plus, "random", self.source("noise"), self.draw_with_votes)

    def draw_with_votes(self, w_plus: Tensor, noise: list[Tensor | None]) -> tuple[Tensor, Tensor, Tensor]:
        """Images, logits and votes as `draw` gives them."""
        stream, features = self.nets.alpha.stream(), Features()

        def tap(layer: int, x: Tensor) -> None:
            stream(layer, x)
            features(layer, x)

        image = self.nets.generator.synthesis.draw(w_plus, noise, tap)
        return image, stream.logit, self.nets.votes(features)

    @property
    def learning(self) -> bool:
        """Whether the bootstrap goes on."""
        return self.progress.images_seen < self.config.bootstrap_images

    # ---------------------------------------------------------------- refinement

    def refine(self, real: Tensor) -> dict[str, float]:
        """The discriminator's step, then alpha's, on one batch of composites."""
        config, nets = self.config, self.nets
        iteration = self.progress.images_seen // config.batch
        image, logit, votes = self.draw(len(real))
        alpha = logit.sigmoid()
        background = draw_in_parts(
            nets.generator, self.w_plus.roll(1, dims=0) if config.other_background else self.w_plus, "random",
            self.source("fake"), partial(nets.generator.synthesis.draw, silenced=nets.background_layer),
        )  # fmt: skip
        composites = self.compose(image, alpha, background)

        nets.discriminator.requires_grad_(True)
        numbers = self.discriminator_step(real, composites.detach(), iteration)
        nets.discriminator.requires_grad_(False)

        numbers |= self.alpha_losses(image, composites, alpha, logit, votes)
        return numbers

    def compose(self, image: Tensor, alpha: Tensor, background: Tensor) -> Tensor:
        """Subjects, moved at random, over backgrounds: (n, c, r, r)."""
        if not self.config.shift:
            return composite(image, background, alpha)
        layers = shift_each(torch.cat([image, alpha], dim=1), self.config.shift, self.source("path"))
        return composite(layers[:, :-1], background, layers[:, -1:])

    def discriminator_step(self, real: Tensor, fake: Tensor, iteration: int) -> dict[str, float]:
        """One step of the discriminator, and now and then one of its penalty."""
        config = self.config
        loss = losses.logistic_d(self.judge(real), self.judge(fake))
        self.update("discriminator", loss)
        numbers = {"loss_d": loss.item()}
        if iteration % config.r1_every == 0:
            numbers["r1"] = self.penalise(real, config.r1_gamma / 2 * config.r1_every)
        return numbers

    def judge(self, image: Tensor) -> Tensor:
        """The discriminator's logits (n, 1) of images (n, c, r, r)."""
        net, groups = self.nets.discriminator, grouped(self.nets.discriminator, len(image)).to(image.device)
        if len(groups) == 1:
            return net(image)
        order = groups.flatten()
        return in_parts(net, groups.shape[1], image[order])[order.argsort()]

    def penalise(self, real: Tensor, weight: float) -> float:
        """One step of the discriminator's penalty R1 on images (n, c, r, r), times `weight`; the penalty."""
        net = self.nets.discriminator
        groups, total = grouped(net, len(real)).to(real.device), 0.0
        for group in groups:
            penalty, _ = losses.gradient_penalty(net, real[group])
            (penalty * (weight / len(groups))).backward()
            total += penalty.item() / len(groups)
        self.step("discriminator")
        return total

    def alpha_losses(
        self, image: Tensor, composites: Tensor, alpha: Tensor, logit: Tensor, votes: Tensor | None
    ) -> dict[str, float]:
        """One step of the alpha network on what it is judged by."""
        config = self.config
        adversarial = losses.logistic_g(self.judge(composites))
        area = self.track_area(alpha)
        loss = config.adversarial_weight * adversarial + self.shape_loss(image, alpha)
        loss = loss + config.foreground_weight * F.relu(config.foreground_min - area).mean()
        loss = loss + config.background_weight * F.relu(config.background_min - (1 - area)).mean()
        if votes is not None:
            loss = loss + config.anchor_weight * vote_loss(logit, votes)
        self.update("alpha", loss, config.lr / 10 if config.bootstrap_images else config.lr)
        return {"loss_alpha": adversarial.item()}

    # ---------------------------------------------------------------- what both share

    def shape_loss(self, image: Tensor, alpha: Tensor) -> Tensor:
        """Alpha is to be 0 or 1, and to have its edges where the picture (n, c, r, r) has some."""
        binary = self.config.binary_weight * losses.binarisation(alpha)
        if not self.config.edge_weight:
            return binary
        size = net_at_once(self.nets.generator, len(alpha))
        energy = in_parts(lambda a, x: losses.matting_energy(a, on_white(x)).expand(len(a)), size, alpha, image)
        return binary + self.config.edge_weight * energy.mean()

    def track_area(self, alpha: Tensor) -> Tensor:
        """The area that the priors look at: of each image (n,), or the running mean () of all."""
        mean = alpha.mean()
        known = self.progress.area
        everywhere = self.accelerator.reduce(mean.detach(), "mean")  # all processes stop together
        self.progress.area = AREA_BETA * known + (1 - AREA_BETA) * everywhere.item()
        return alpha.mean(dim=(1, 2, 3)) if self.config.area == "image" else mean + (known - mean).detach()

    def update(self, name: str, loss: Tensor, lr: float | None = None) -> None:
        """One optimizer step down a loss."""
        for group in self.nets.optimizers[name].param_groups:
            group["lr"] = group["lr"] if lr is None else lr
        loss.backward()
        self.step(name)

    def step(self, name: str) -> None:
        """Average gradients over processes and take one optimizer step."""
        optimizer = self.nets.optimizers[name]
        run.average_gradients(self.accelerator, optimizer)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def grouped(net: StyleGAN2Discriminator, count: int) -> Tensor:
    """Which of `count` images are judged together (groups, images): all, or where those are too many at once, the ones
    that the minibatch deviation compares."""
    if count <= net_at_once(net, count):
        return torch.arange(count)[None]
    most = min(net.config.mbstd_group or count, count)
    size = next(size for size in range(most, 0, -1) if count % size == 0)
    return torch.arange(count).view(size, -1).t()


def check_collapse(area: float, images_seen: int) -> None:
    """Stop where the subject covers [share] next to nothing or nearly all of the pictures."""
    if images_seen > TRUSTED_AFTER and not LEAST < area < MOST:
        raise run.UserError(
            f"collapsed after {images_seen:,} samples: the subject covers {area:.1%} of the pictures (expected "
            f"{LEAST:.0%} to {MOST:.0%}); give --bootstrap-images, or a higher --background-weight or "
            "--foreground-weight, in a new --out"
        )


def vote_loss(logit: Tensor, votes: Tensor) -> Tensor:
    """Cross-entropy of alpha's logit (n, 1, r, r), seen at the size of votes (n, 1, s, s), where these are confident.

    A pixel whose neighbours are not does not count: edges are left to the picture.
    """
    most, least = (sign * F.max_pool2d(sign * votes, 3, stride=1, padding=1) for sign in (1, -1))
    sure = ((least >= CONFIDENT) | (most <= 1 - CONFIDENT)).float()
    alpha = F.interpolate(logit.sigmoid(), size=votes.shape[2:], mode="area").clamp(1e-4, 1 - 1e-4)
    found = F.binary_cross_entropy(alpha, votes.round(), reduction="none")
    return (found * sure).sum() / sure.sum().clamp(min=1)


@torch.no_grad()
def score(generator: StyleGAN2Generator, net: AlphaNetwork, w_plus: Tensor) -> float:
    """How good alpha seems to be without a label, 0 to 1; 0 where it has collapsed.

    Its edges should be those of the picture: boundary IoU with itself after refinement. And it should depend neither
    on the noise nor on the colours: times the IoU with itself under new noise, and with the finest half of the styles
    of another sample. Means over samples.

    Args:
        w_plus: (n, num_ws, w_dim).
    """
    image, logit = draw_with_alpha(generator, net, w_plus)
    found = logit > 0
    if not LEAST < found.float().mean() < MOST:
        return 0.0
    pairs = zip(logit.sigmoid().split(1), on_white(image).split(1), strict=True)
    edges = boundary_iou(found, torch.cat([refine(alpha, picture) for alpha, picture in pairs]) > 0.5)
    fine, source = range(generator.num_ws // 2 + 1, generator.num_ws), torch.Generator().manual_seed(0)
    others = (w_plus, mix(w_plus, w_plus.roll(1, dims=0), list(fine)))
    stable = [mean_iou(found, draw_with_alpha(generator, net, w, "random", source)[1] > 0).mean() for w in others]
    return (edges.mean() * sum(stable) / len(stable)).item()
