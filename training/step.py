"""One iteration of generator training: what is computed from one batch of photos, in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import loop
import run
import torch
from accelerate import Accelerator
from networks import Networks
from reconstruction import Distance, Reconstructions, latent_loss, reconstruction_loss
from torch import Tensor

from hfgan import losses
from hfgan.augment import adapt_probability, augment, diff_augment
from hfgan.memory import net_at_once
from hfgan.models.discriminator import StyleGAN2Discriminator
from hfgan.sampling import broadcast

if TYPE_CHECKING:
    from generator import Config

ADA_EVERY = 4  # iterations between two looks at the augmentation's controller


@dataclass
class Progress(loop.Progress):
    """What a resumed generator run needs beside the tensors."""

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


class Drawn(NamedTuple):
    """Images (n, c, r, r), the w (m, w_dim) that the mapping gave for the first m, and the others: photos again."""

    image: Tensor
    w: Tensor
    again: Reconstructions | None


class Step:
    """One iteration on one batch: generator, discriminators, penalties, averages, augmentation control."""

    def __init__(self, config: Config, accelerator: Accelerator, nets: Networks, progress: Progress) -> None:
        self.config, self.accelerator, self.nets, self.progress = config, accelerator, nets, progress
        self.device, self.rank = accelerator.device, accelerator.process_index
        self.distance = Distance(config.perceptual, self.device) if config.reconstructor else None
        share = config.batch // accelerator.num_processes
        self.microbatch = config.microbatch or microbatch(nets.discriminator, share)
        if accelerator.is_main_process and config.microbatch is None and self.microbatch < share:
            print(f"--microbatch {self.microbatch}: a CPU is given no more images of {config.resolution} px at once")

    def source(self, purpose: str) -> torch.Generator:
        """Randomness of this iteration for one purpose."""
        return run.random_source(self.config.seed, run.PURPOSES[purpose], self.progress.images_seen, self.rank)

    def __call__(self, real: Tensor, labels: Tensor | None) -> dict[str, float]:
        config, nets = self.config, self.nets
        iteration = self.progress.images_seen // config.batch
        parts = len(real) // self.microbatch
        reals = list(zip(real.chunk(parts), [None] * parts if labels is None else labels.chunk(parts), strict=True))
        sources = {purpose: self.source(purpose) for purpose in run.PURPOSES}
        numbers = {}

        fakes = []
        nets.train_only("generator", "reconstructor")
        for image, c in reals:
            drawn = self.draw(image, c, sources)
            shown, loss = self.generator_loss(drawn.image, image, c, sources)
            numbers["loss_g"] = loss.item()
            if drawn.again is not None:
                rec_loss, found = self.reconstruction_loss(drawn)
                loss, numbers = loss + rec_loss, numbers | found
            (loss / parts).backward()
            fakes.append(shown.detached())
            nets.generator.mapping.track_w_avg(self.mean(drawn.w.detach().mean(dim=0)))
        self.update("generator")
        if nets.reconstructor is not None:
            self.update("reconstructor")

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

    def draw(self, image: Tensor, c: Tensor | None, sources: dict[str, torch.Generator]) -> Drawn:
        """As many images as `image` has, from new latents, styles of two latents mixed at times; with an encoder the
        second half is drawn from what it sees in the second half of `image`."""
        nets, g = self.nets, sources["latents"]
        generator = nets.generator
        z = torch.randn(2, len(image), self.config.z_dim, generator=g).to(self.device)
        w = generator.mapping(z[0], c)  # (n, w_dim)
        w_plus = broadcast(w, generator.num_ws)  # (n, num_ws, w_dim)
        if torch.rand([], generator=g) < self.config.style_mixing:
            cutoff = int(torch.randint(1, generator.num_ws, [], generator=g))
            w_plus[:, cutoff:] = generator.mapping(z[1], c).unsqueeze(1)
        if nets.reconstructor is None:
            return Drawn(generator.synthesis(w_plus, "random", sources["noise"]), w, None)
        half = len(image) // 2
        photos, w = image[half:], w[:half]
        encoded = nets.reconstructor(photos)  # (n - n/2, w_dim)
        w_plus = torch.cat([w_plus[:half], broadcast(encoded, generator.num_ws)])
        fake = generator.synthesis(w_plus, "random", sources["noise"])
        return Drawn(fake, w, Reconstructions(photos, encoded, fake[half:]))

    def reconstruction_loss(self, drawn: Drawn) -> tuple[Tensor, dict[str, float]]:
        """What encoder and generator learn together from photos, and the encoder alone from drawn images."""
        encoder = self.nets.reconstructor
        loss, numbers = reconstruction_loss(encoder, self.distance, drawn.again)
        # mixed images have no single w; a batch of them teaches the encoder their coarse one
        latent = latent_loss(encoder, drawn.image[: len(drawn.w)], drawn.w)
        return self.config.reconstruction_weight * (loss + latent), numbers | {"rec_latent": latent.item()}

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
        w_plus = broadcast(generator.mapping(z, None if c is None else c[:n]), generator.num_ws)
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

    def update(self, name: str) -> None:
        """Average gradients over processes and take one optimizer step."""
        optimizer = self.nets.optimizers[name]
        run.average_gradients(self.accelerator, optimizer)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def update_average(self) -> None:
        """EMA with a half-life in images (arXiv 1710.10196), ramped up at the start (arXiv 2006.06676)."""
        seen = self.progress.images_seen + self.config.batch
        half_life = min(self.config.ema_images, max(self.config.ema_rampup * seen, 1e-8))
        beta = 0.5 ** (self.config.batch / half_life)
        run.update_average(self.nets.average, self.nets.generator, beta)
        if self.nets.reconstructor is not None:
            run.update_average(self.nets.reconstructor_average, self.nets.reconstructor, beta)

    def control_augmentation(self, iteration: int) -> None:
        if self.config.augment != "ada" or (iteration + 1) % ADA_EVERY:
            return
        sign = self.mean(torch.tensor(self.progress.sign_sum / self.progress.sign_count, device=self.device)).item()
        self.progress.augment_p = adapt_probability(
            self.progress.augment_p, sign, ADA_EVERY * self.config.batch, target=self.config.ada_target,
            images_to_one=self.config.ada_images, cap=self.config.ada_cap,
        )  # fmt: skip
        self.progress.sign_sum, self.progress.sign_count = 0.0, 0


def microbatch(net: StyleGAN2Discriminator, share: int) -> int:
    """How many of a process's share of a batch are computed at once; whole groups of the minibatch deviation."""
    most = max(net_at_once(net, share), net.config.mbstd_group)
    return next(size for size in range(min(most, share), 0, -1) if share % size == 0)
