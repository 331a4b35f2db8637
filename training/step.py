"""One iteration of generator training: what is computed from one batch of photos, in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import run
import torch
from accelerate import Accelerator
from networks import Networks
from torch import Tensor

from hfgan import losses
from hfgan.augment import adapt_probability, augment, diff_augment

if TYPE_CHECKING:
    from generator import Config

ADA_EVERY = 4  # iterations between two looks at the augmentation's controller
PURPOSES = {
    name: i for i, name in enumerate(("latents", "noise", "real", "fake", "path", "real_for_penalty", "mirror"))
}


@dataclass
class Progress:
    """Numbers that a resumed run needs beside the tensors."""

    images_seen: int = 0
    seconds: float = 0.0
    augment_p: float = 0.0
    pl_mean: float = 0.0
    sign_sum: float = 0.0  # of D(real) since the controller last looked
    sign_count: int = 0


class Shown(NamedTuple):
    """An image as the discriminators see it: augmented (n, c, r, r), and its projected features."""

    image: Tensor
    features: list[Tensor]

    def detached(self) -> Shown:
        """The same as constants, for the discriminators' own step."""
        return Shown(self.image.detach(), [x.detach() for x in self.features])


class Step:
    """One iteration on one batch: generator, discriminators, penalties, averages, augmentation control."""

    def __init__(self, config: Config, accelerator: Accelerator, nets: Networks, progress: Progress) -> None:
        self.config, self.accelerator, self.nets, self.progress = config, accelerator, nets, progress
        self.device, self.rank = accelerator.device, accelerator.process_index

    def source(self, purpose: str) -> torch.Generator:
        """Randomness of this iteration for one purpose."""
        return run.random_source(self.config.seed, PURPOSES[purpose], self.progress.images_seen, self.rank)

    def __call__(self, real: Tensor, labels: Tensor | None) -> dict[str, float]:
        config, nets = self.config, self.nets
        iteration = self.progress.images_seen // config.batch
        parts = len(real) // (config.microbatch or len(real))
        reals = list(zip(real.chunk(parts), [None] * parts if labels is None else labels.chunk(parts), strict=True))
        sources = {purpose: self.source(purpose) for purpose in PURPOSES}
        numbers = {}

        fakes = []
        nets.train_only("generator")
        for image, c in reals:
            fake, w = self.draw(image, c, sources)
            shown, loss = self.generator_loss(fake, image, c, sources)
            (loss / parts).backward()
            fakes.append(shown.detached())
            nets.generator.mapping.track_w_avg(self.mean(w.detach().mean(dim=0)))
        numbers["loss_g"] = loss.item()
        self.update("generator")

        if config.pl_every and iteration % config.pl_every == 0:
            numbers["path_length"] = self.path_length_step(reals[0][1], len(real) // parts, sources)

        nets.train_only("discriminator")
        for (image, c), fake in zip(reals, fakes, strict=True):
            loss, real_logits = self.discriminator_loss(image, fake, c, sources)
            (loss / parts).backward()
            self.progress.sign_sum += real_logits.sign().mean().item() / parts
        self.progress.sign_count += 1
        numbers["loss_d"], numbers["logit_real"] = loss.item(), real_logits.mean().item()
        self.update("discriminator")

        if iteration % config.r1_every == 0:
            numbers["r1"] = self.gradient_penalty_step(reals, fakes, sources)
        self.update_average()
        self.control_augmentation(iteration)
        return numbers

    def draw(self, image: Tensor, c: Tensor | None, sources: dict[str, torch.Generator]) -> tuple[Tensor, Tensor]:
        """Images like `image` from new latents, styles of two latents mixed at times, and their w (n, w_dim)."""
        generator, g = self.nets.generator, sources["latents"]
        z = torch.randn(2, len(image), self.config.z_dim, generator=g).to(self.device)
        w = generator.mapping(z[0], c)  # (n, w_dim)
        w_plus = w.unsqueeze(1).repeat(1, generator.num_ws, 1)  # (n, num_ws, w_dim)
        if torch.rand([], generator=g) < self.config.style_mixing:
            cutoff = int(torch.randint(1, generator.num_ws, [], generator=g))
            w_plus[:, cutoff:] = generator.mapping(z[1], c).unsqueeze(1)
        return generator.synthesis(w_plus, "random", sources["noise"]), w

    def show(self, image: Tensor, source: torch.Generator) -> Shown:
        """What the discriminators see of an image: augmented, and projected where a frozen network looks on."""
        if self.config.augment == "diff":
            image = diff_augment(image, source)
        else:
            image = augment(image, self.progress.augment_p, source)
        return Shown(image, [] if self.nets.projected is None else self.nets.projected.project(image))

    def generator_loss(
        self, fake: Tensor, real: Tensor, c: Tensor | None, sources: dict[str, torch.Generator]
    ) -> tuple[Shown, Tensor]:
        """What the discriminators saw, and the generator's loss."""
        shown = self.show(fake, sources["fake"])
        logits = self.nets.discriminator(shown.image, c)
        if self.config.loss == "logistic":
            loss = losses.logistic_g(logits)
        else:
            real_logits = self.nets.discriminator(self.show(real, sources["real"]).image, c)
            loss = losses.relativistic_g(real_logits, logits)
        if self.nets.projected is not None:
            loss = loss - self.config.projected_weight * self.nets.projected.logits(shown.features).mean()
        return shown, loss

    def discriminator_loss(
        self, real: Tensor, fake: Shown, c: Tensor | None, sources: dict[str, torch.Generator]
    ) -> tuple[Tensor, Tensor]:
        """The loss of both discriminators, and the logits (n, 1) of real images."""
        with torch.no_grad():
            shown = self.show(real, sources["real"])
        real_logits = self.nets.discriminator(shown.image, c)
        fake_logits = self.nets.discriminator(fake.image, c)
        adversarial = losses.logistic_d if self.config.loss == "logistic" else losses.relativistic_d
        loss = adversarial(real_logits, fake_logits)
        if projected := self.nets.projected:
            loss = loss + losses.hinge_d(projected.logits(shown.features), projected.logits(fake.features))
        return loss, real_logits.detach()

    def gradient_penalty_step(
        self,
        reals: list[tuple[Tensor, Tensor | None]],
        fakes: list[Shown],
        sources: dict[str, torch.Generator],
    ) -> float:
        """R1, and R2 with the relativistic loss, as a step of its own scaled by the iterations it stands for."""
        config = self.config
        for (image, c), fake in zip(reals, fakes, strict=True):

            def discriminate(x: Tensor, c: Tensor | None = c) -> Tensor:
                return self.nets.discriminator(x, c)

            shown = augment(image, self.progress.augment_p, sources["real_for_penalty"])
            penalty, _ = losses.gradient_penalty(discriminate, shown)
            if config.loss == "rpgan_r1r2":
                penalty = penalty + losses.gradient_penalty(discriminate, fake.image)[0]
            (penalty * (config.r1_gamma / 2 * config.r1_every / len(reals))).backward()
        self.update("discriminator")
        return penalty.item()

    def path_length_step(self, c: Tensor | None, n: int, sources: dict[str, torch.Generator]) -> float:
        """Path length regularisation on half a batch (arXiv 1912.04958 §3.2), as a step of its own."""
        config, generator, g = self.config, self.nets.generator, sources["path"]
        n = max(n // 2, 1)
        z = torch.randn(n, config.z_dim, generator=g).to(self.device)
        w_plus = generator.mapping(z, None if c is None else c[:n]).unsqueeze(1).repeat(1, generator.num_ws, 1)
        lengths = losses.path_lengths(lambda w: generator.synthesis(w, "random", g), w_plus, g)
        mean = self.mean(lengths.detach().mean()).item()
        self.progress.pl_mean += 0.01 * (mean - self.progress.pl_mean)
        penalty = losses.path_length_penalty(lengths, lengths.new_tensor(self.progress.pl_mean))
        (penalty * (config.pl_weight * config.pl_every)).backward()
        self.update("generator")
        return mean

    def mean(self, value: Tensor) -> Tensor:
        """Average over processes."""
        return self.accelerator.reduce(value, "mean") if self.accelerator.num_processes > 1 else value

    def update(self, name: Literal["generator", "discriminator"]) -> None:
        """Average gradients over processes and take one optimizer step."""
        optimizer = self.nets.optimizers[name]
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if self.accelerator.num_processes > 1:
            flat = self.mean(torch.cat([grad.flatten() for grad in grads]))
            for grad, mean in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
                grad.copy_(mean.view_as(grad))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def update_average(self) -> None:
        """EMA with a half-life in images (arXiv 1710.10196), ramped up at the start (arXiv 2006.06676)."""
        seen = self.progress.images_seen + self.config.batch
        half_life = min(self.config.ema_images, max(self.config.ema_rampup * seen, 1e-8))
        run.update_average(self.nets.average, self.nets.generator, 0.5 ** (self.config.batch / half_life))

    def control_augmentation(self, iteration: int) -> None:
        if self.config.augment != "ada" or (iteration + 1) % ADA_EVERY:
            return
        sign = self.mean(torch.tensor(self.progress.sign_sum / self.progress.sign_count, device=self.device)).item()
        self.progress.augment_p = adapt_probability(
            self.progress.augment_p, sign, ADA_EVERY * self.config.batch, target=self.config.ada_target,
            images_to_one=self.config.ada_images, cap=self.config.ada_cap,
        )  # fmt: skip
        self.progress.sign_sum, self.progress.sign_count = 0.0, 0
