"""One iteration of an encoder, for each arm: what is drawn at every step is compared with what is wanted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import loop
import run
import torch
from accelerate import Accelerator
from obstacles import Scene, stage
from torch import Tensor, nn
from torch.nn import functional as F

from hfgan.images import on_white
from hfgan.losses import logistic_d, logistic_g
from hfgan.memory import draw_in_parts, in_parts, net_at_once
from hfgan.metrics import resize
from hfgan.models.encoder import shrink
from hfgan.models.perceptual import Perceptual
from hfgan.refinement import PERCEPTUAL_WEIGHT
from hfgan.sampling import broadcast
from hfgan.segmentation import composite, gaussian

if TYPE_CHECKING:
    from encoder import Config, Networks

PERCEPTUAL_SIZE = 64  # px: smaller images are enlarged to it
DELTA_WEIGHT, ADVERSARIAL_WEIGHT = 2e-4, 0.1  # e4e, appendix
R1_GAMMA, R1_EVERY = 10.0, 16
DISENTANGLE_WEIGHT = 0.05  # IntereStyle's code
FILTER_FROM = 1 / 64  # deviation of IntereStyle's first blur [sides]; it falls to 0 at the last step
WARM_UP = 0.2  # share of a run in which the drift's weight grows
LOST = 10.0  # deviations of w_plus from the mean, root mean square, that no picture of the generator is from


@dataclass(frozen=True)
class Arm:
    """A recipe.

    Attributes:
        conditioned: The encoder sees the interest; both views of a picture are to have one w_plus, and hidden parts
            are wanted too.
        masked: The loss is inside the visible subject alone; else everywhere.
        filtered: IntereStyle's filter: what lies outside is blurred, less from step to step.
        disentangled: IntereStyle's pair of a picture and its subject on black, whose step must not change the subject.
        single: e4e: layers part from one w one by one, and a discriminator keeps them near the mapping's.
    """

    conditioned: bool = False
    masked: bool = False
    filtered: bool = False
    disentangled: bool = False
    single: bool = False


ARMS = {
    "interest": Arm(conditioned=True),
    "restyle": Arm(),
    "e4e": Arm(single=True),
    "masked": Arm(masked=True),
    "masked-filter": Arm(masked=True, filtered=True),
    "masked-disentangle": Arm(masked=True, disentangled=True),
    "interestyle": Arm(masked=True, filtered=True, disentangled=True),
}


class LatentDiscriminator(nn.Sequential):
    """Whether a whitened w (n, w_dim) is the mapping's: logits (n, 1); four layers, as in e4e."""

    def __init__(self, w_dim: int) -> None:
        hidden = [layer for _ in range(3) for layer in (nn.Linear(w_dim, w_dim), nn.LeakyReLU(0.2))]
        super().__init__(*hidden, nn.Linear(w_dim, 1))


class Step:
    """One iteration on a batch of photos, some of which give way to what the generator draws."""

    def __init__(
        self, config: Config, accelerator: Accelerator, nets: Networks, net: Perceptual, progress: loop.Progress
    ) -> None:
        self.config, self.accelerator, self.nets = config, accelerator, nets
        self.net, self.progress, self.arm = net, progress, ARMS[config.arm]

    def __call__(self, photo: Tensor, labels: Tensor | None) -> dict[str, float]:
        config, nets, seen = self.config, self.nets, self.progress.images_seen
        source = run.random_source(config.seed, run.PURPOSES["latents"], seen, self.accelerator.process_index)
        count = len(photo) if photo.ndim < 4 else round(config.drawn * len(photo))
        drawn, w = self.draw(count, source)
        image = torch.cat([drawn, photo[count:]]) if photo.ndim == 4 else drawn
        scene = stage(image, nets.gan.matting, source)
        numbers = self.learn(scene, w)
        if self.arm.single:
            numbers |= self.oppose()
        for optimizer in nets.optimizers.values():
            run.average_gradients(self.accelerator, optimizer)
        for group in nets.optimizers["encoder"].param_groups:
            group["lr"] = config.lr * run.cosine(seen / config.images)
        nn.utils.clip_grad_norm_(nets.encoder.parameters(), 1.0)
        for optimizer in nets.optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        half_life = min(config.ema_images, max(0.05 * (seen + config.batch), 1e-8))
        run.update_average(nets.average, nets.encoder, 0.5 ** (config.batch / half_life))
        return numbers

    @torch.no_grad()
    def draw(self, count: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images (count, c, r, r) and their w (count, w_dim)."""
        generator, mapping = self.nets.generator, self.nets.generator.mapping
        z = torch.randn(count, generator.config.z_dim, generator=source).to(generator.device)
        w = mapping(z, mapping.labels_in_turn(torch.arange(count)))
        return draw_in_parts(generator, broadcast(w, generator.num_ws)), w

    def learn(self, scene: Scene, w: Tensor) -> dict[str, float]:
        """Gradients of the encoder: each step is taken from where the last one ended, without looking back."""
        encoder, generator, steps = self.nets.encoder, self.nets.generator, self.config.steps
        wanted, region = self.wanted(scene)
        with torch.no_grad():
            size = net_at_once(generator, len(wanted))
            target = list(in_parts(lambda x: tuple(self.net.features(self.enlarge(x))), size, wanted))
            seen, inside = encoder.look(scene.image, scene.told)
            w_plus = encoder.start(seen, inside)
            drawn = draw_in_parts(generator, w_plus)
        for k in range(steps):
            shown = self.blurred(seen, scene.subject, k) if self.arm.filtered else seen
            w_plus = encoder(shown, inside, w_plus, drawn)  # (2n, num_ws, w_dim)
            if self.arm.single:
                w_plus = self.joined(w_plus)
            drawn, error, perceptual, outside = self.compare(w_plus, wanted, target, region)
            loss, numbers = self.latent_terms(w_plus, w)
            if self.arm.conditioned:
                loss = loss + self.config.outside_weight * outside
            loss = loss + error + PERCEPTUAL_WEIGHT * perceptual
            (loss * 2.0 ** (k + 1 - steps)).backward()
            w_plus, drawn = w_plus.detach(), drawn.detach()
        self.check_latents(w_plus)
        if self.arm.disentangled:
            self.disentangle(scene, w_plus, target, region)
        if encoder.inliers is not None:
            numbers["loss_inlier"] = self.look_for_obstacles(scene, drawn)
        return {"loss_pixel": error.item(), "loss_perceptual": perceptual.item(), **numbers}

    def check_latents(self, w_plus: Tensor) -> None:
        """UserError once w_plus (2n, num_ws, w_dim) is far from all that the mapping gives: it never comes back."""
        far = ((w_plus - self.center) / self.nets.encoder.w_std).square().mean().sqrt().item()
        if far > LOST:
            raise run.UserError(
                f"diverged: latents are {far:.0f} deviations off the mean at {self.progress.images_seen:,} pictures; "
                f"the last checkpoint in {self.config.out} is from before: start in a new --out with a lower --lr"
            )

    def look_for_obstacles(self, scene: Scene, drawn: Tensor) -> float:
        """Gradients of the network that tells obstacles, where there may be some: in the region that is told."""
        side = self.nets.encoder.config.resolution
        seen, told, hidden = (shrink(x, side) for x in (scene.image, scene.told, scene.hidden))
        logit = self.nets.encoder.inliers(seen, told, drawn)
        loss = F.binary_cross_entropy_with_logits(logit, 1 - hidden, weight=told, reduction="sum") / told.sum()
        loss.backward()
        return loss.item()

    def wanted(self, scene: Scene) -> tuple[Tensor, Tensor]:
        """What is to be drawn (2n, 3, r, r), and where it counts (2n, 1, r, r)."""
        if self.arm.conditioned:
            return scene.wanted, scene.meant
        return scene.image, scene.subject if self.arm.masked else torch.ones_like(scene.subject)

    def compare(
        self, w_plus: Tensor, wanted: Tensor, target: list[Tensor], region: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What is drawn of w_plus (n, num_ws, w_dim), and its errors.

        Returns:
            Images (n, c, r, r); squared and perceptual error in a region, whatever its area, means over the pictures
            that have one; squared error outside of it.
        """
        size = net_at_once(self.nets.generator, len(w_plus))
        drawn, *errors = in_parts(self.errors, size, w_plus, wanted, region, *target)
        has = (region.amax((1, 2, 3)) > 0).float()
        error, perceptual = ((x * has).sum() / has.sum().clamp(min=1) for x in errors[:2])
        return drawn, error, perceptual, errors[2].mean()

    def errors(self, w_plus: Tensor, wanted: Tensor, region: Tensor, *target: Tensor) -> tuple[Tensor, ...]:
        """What is drawn (n, c, r, r), and the errors (n,) of each picture for `compare`."""
        drawn = self.nets.generator.synthesis(w_plus)
        squared, area = (on_white(drawn) - wanted).square().mean(1, keepdim=True), region.sum((1, 2, 3)).clamp(min=1)
        perceptual = self.net.compare(self.net.features(self.enlarge(on_white(drawn))), list(target), region)
        return drawn, (squared * region).sum((1, 2, 3)) / area, perceptual, (squared * (1 - region)).mean((1, 2, 3))

    def latent_terms(self, w_plus: Tensor, w: Tensor) -> tuple[Tensor, dict[str, float]]:
        """What is asked of w_plus (2n, num_ws, w_dim) itself; of the first pictures of both views, w is known."""
        config, scale = self.config, self.nets.encoder.w_std
        if self.arm.conditioned:
            first, second = w_plus.chunk(2)
            # the view without an obstacle knows better: only the other one is moved
            drift = ((second - first.detach()) / scale).square().mean()
            known = torch.cat([first[: len(w)], second[: len(w)]]) - w.repeat(2, 1).unsqueeze(1)
            latent = (known / scale).square().mean() if len(w) else drift.new_zeros(())
            warm = min(1.0, self.progress.images_seen / (WARM_UP * config.images))
            loss = warm * config.drift_weight * drift + config.latent_weight * latent
            return loss, {"drift_loss": drift.item(), "latent_loss": latent.item()}
        if self.arm.single:
            delta = (w_plus[:, 1:] - w_plus[:, :1]).norm(dim=2).sum(1).mean()
            fake = self.nets.opponent((w_plus - self.center) / scale)
            loss = DELTA_WEIGHT * delta + ADVERSARIAL_WEIGHT * logistic_g(fake)
            self.fake = w_plus.detach()
            return loss, {"delta": delta.item()}
        return w_plus.new_zeros(()), {}

    # ---------------------------------------------------------------- what the papers add

    def blurred(self, seen: Tensor, subject: Tensor, step: int) -> Tensor:
        """What is seen at a step, blurred outside of the subject; sharp at the last step."""
        last = max(self.config.steps - 1, 1)
        sigma = FILTER_FROM * (1 - step / last) ** 2 * seen.shape[-1]  # 16, 4, 0 or 16, 9, 4, 1, 0 of 1024 px
        return composite(seen, gaussian(seen, sigma), shrink(subject, seen.shape[-1])) if sigma else seen

    def disentangle(self, scene: Scene, w_plus: Tensor, target: list[Tensor], region: Tensor) -> None:
        """Gradients of a step from a picture and its subject on black: it must leave the subject as it is."""
        encoder, on_black = self.nets.encoder, composite(scene.image, -torch.ones_like(scene.image), scene.subject)
        seen, inside = encoder.look(scene.image)
        moved = encoder(seen, inside, w_plus, on_black)
        _, error, perceptual, _ = self.compare(moved, scene.image, target, region)
        (DISENTANGLE_WEIGHT * (error + PERCEPTUAL_WEIGHT * perceptual)).backward()

    @property
    def center(self) -> Tensor:
        """(w_dim,), the mean of w."""
        return self.nets.generator.mapping.w_avg

    def joined(self, w_plus: Tensor) -> Tensor:
        """w_plus whose layers are free one after the other over the first half of a run, and else as the first."""
        layers = w_plus.shape[1]
        free = 1 + math.floor(2 * (layers - 1) * self.progress.images_seen / self.config.images)
        bound = torch.arange(layers, device=w_plus.device).view(1, -1, 1) >= free
        return torch.where(bound, w_plus[:, :1], w_plus)

    def oppose(self) -> dict[str, float]:
        """Gradients of the opponent of e4e on the encoder's last w_plus and on as many w of the mapping."""
        opponent, scale = self.nets.opponent, self.nets.encoder.w_std
        opponent.zero_grad(set_to_none=True)  # what the encoder's loss left there
        fake = ((self.fake - self.center) / scale).flatten(0, 1)
        z = run.random_source(self.config.seed, run.PURPOSES["fake"], self.progress.images_seen)
        real = (self.draw_w(len(fake), z) - self.center) / scale
        loss = logistic_d(opponent(real), opponent(fake))
        if (self.progress.images_seen // self.config.batch) % R1_EVERY == 0:
            real = real.requires_grad_()
            (slope,) = torch.autograd.grad(opponent(real).sum(), real, create_graph=True)  # (n, w_dim)
            loss = loss + R1_GAMMA / 2 * R1_EVERY * slope.square().sum(1).mean()
        loss.backward()
        return {"loss_opponent": loss.item()}

    @torch.no_grad()
    def draw_w(self, count: int, source: torch.Generator) -> Tensor:
        """w (count, w_dim) of the mapping."""
        mapping = self.nets.generator.mapping
        z = torch.randn(count, self.nets.generator.config.z_dim, generator=source).to(self.center.device)
        return mapping(z, mapping.labels_in_turn(torch.arange(count)))

    def enlarge(self, image: Tensor) -> Tensor:
        """Images as the perceptual network sees them."""
        return resize(image, max(image.shape[-1], PERCEPTUAL_SIZE))
