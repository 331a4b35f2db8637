"""Stage `generator`: train StyleGAN2 on photos (arXiv 1912.04958), adaptively augmented (arXiv 2006.06676).

One iteration draws one batch of images, which teaches the generator first and then, as constants, the
discriminator; R1 and path length come every few iterations as steps of their own.
Networks are replicated; gradients are averaged over processes by hand, since lazy penalties touch only some of
the parameters. All randomness depends on (seed, purpose, images_seen, process) alone.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Literal

import run
import torch
from accelerate import Accelerator
from networks import Networks, build_networks, load_start
from torch import Tensor
from tqdm import tqdm

from hfgan import losses
from hfgan.augment import adapt_probability, augment, diff_augment
from hfgan.data import InfiniteSampler, PhotoDataset, open_photos
from hfgan.images import grid, to_pil
from hfgan.sampling import latents_from_seeds

ADA_EVERY = 4  # iterations between two looks at the augmentation's controller
PURPOSES = {name: i for i, name in enumerate(("latents", "noise", "real", "fake", "path", "real_for_penalty"))}


def flag(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Config:
    """Train a StyleGAN2 generator on a folder, zip or Hub data set of photos."""

    data: str = field(metadata={"help": "folder, .zip or Hub data set id"})
    out: str = field(metadata={"help": "run folder; the same command resumes"})
    resolution: int = flag(64, "image size [pixels]")
    images: int = flag(1_000_000, "stop after so many training images")
    minutes: float | None = flag(None, "stop (resumably) after so many minutes of training")
    batch: int = flag(32, "images per iteration, all processes together")
    microbatch: int | None = flag(None, "images per forward pass and process; default all of them")
    img_channels: int = flag(3, "1 grey, 3 RGB, 4 RGBA")
    labels: bool = flag(False, "train by class; the first folder level is the class")
    channel_base: int = flag(2048, "channels at resolution r are channel_base / r ...")
    channel_max: int = flag(128, "... at most channel_max")
    z_dim: int = flag(256, "size of z")
    w_dim: int = flag(256, "size of w")
    mapping_layers: int = flag(2, "fully connected layers from z to w")
    mirror: bool = flag(False, "show every second photo mirrored")
    lr: float = flag(0.0025, "learning rate of both networks")
    loss: Literal["logistic", "rpgan_r1r2"] = flag("logistic", "adversarial loss")
    r1_gamma: float | None = flag(None, "weight of R1; default 0.0002 * resolution^2 / batch * 4")
    r1_every: int = flag(16, "iterations between R1 steps")
    pl_weight: float = flag(2.0, "weight of the path length penalty")
    pl_every: int = flag(0, "iterations between path length steps; 0: never")
    style_mixing: float = flag(0.0, "probability that a batch mixes two latents per image")
    ema_images: int = flag(20_000, "half-life of the averaged generator [images]")
    ema_rampup: float = flag(0.05, "the half-life is at most this share of the images seen")
    augment: Literal["ada", "diff", "none"] = flag("ada", "augmentation in front of the discriminator")
    ada_target: float = flag(0.6, "wanted mean of sign D(real)")
    ada_images: int = flag(100_000, "images in which the augmentation may go from 0 to 1")
    ada_cap: float = flag(0.8, "highest probability of augmentation")
    projected: str | None = flag(None, "MobileNetV2 weights: adds a discriminator on its frozen features")
    projected_size: int = flag(64, "size at which that discriminator sees images [pixels]")
    projected_weight: float = flag(1.0, "weight of that discriminator in the generator's loss")
    grow_from: str | None = flag(None, "model folder of half the resolution to start from")
    init: str | None = flag(None, "model (bundled name, folder, Hub id) of the same shape to start from")
    precision: Literal["auto", "float32", "bfloat16"] = flag("auto", "what convolutions compute in")
    seed: int = flag(0, "of everything")
    save_every: int = flag(20_000, "images between checkpoints")
    sample_every: int = flag(20_000, "images between sample sheets and measurements")
    features: str | None = flag(None, "MobileNetV2 weights: measures FD-MNv2 with every sample sheet")
    feature_images: int = flag(2000, "images on each side of that measurement")
    tracker: str | None = flag(None, "any Accelerate tracker, e.g. tensorboard")
    dry_run: bool = flag(False, "print the resolved settings and sizes, then stop")


# measured where a number stands; the others follow the published settings scaled to size
PRESETS: dict[str, dict[str, Any]] = {
    "toy": {"resolution": 16, "channel_base": 256, "channel_max": 16, "z_dim": 16, "w_dim": 16, "batch": 8},
    "small64": {"resolution": 64, "channel_base": 2048, "channel_max": 128, "batch": 32},
    "wide64": {"resolution": 64, "channel_base": 4096, "channel_max": 256, "batch": 32},
    "gpu64": {"resolution": 64, "channel_base": 8192, "channel_max": 256, "z_dim": 512, "w_dim": 512, "batch": 64,
              "style_mixing": 0.5, "pl_every": 8},
    "gpu256": {"resolution": 256, "channel_base": 16384, "channel_max": 512, "z_dim": 512, "w_dim": 512,
               "mapping_layers": 8, "batch": 64, "style_mixing": 0.9, "pl_every": 4, "images": 5_000_000},
}  # fmt: skip

MAY_CHANGE = {"images", "minutes", "save_every", "sample_every", "features", "feature_images", "tracker", "dry_run"}


def main(config: Config) -> None:
    """Train, or go on training, until `config.images`."""
    config = resolve(config)
    accelerator = Accelerator(log_with=config.tracker, project_dir=config.out)
    check(config, accelerator.num_processes)
    nets = build_networks(config, num_classes=0) if config.dry_run else None
    if config.dry_run:
        print(json.dumps(dataclasses.asdict(config) | nets.sizes(), indent=2))
        return
    folder = run.RunFolder(config.out, config, MAY_CHANGE)
    with accelerator.main_process_first():
        photos = open_photos(
            config.data, config.resolution, img_channels=config.img_channels, class_labels=config.labels,
            index=folder.path / "photos.json",
        )  # fmt: skip
    nets = build_networks(config, num_classes=len(photos.classes or ()))
    progress = Progress()
    saved = folder.load_checkpoint()
    if saved:
        nets.load(saved[0])
        progress = Progress(**saved[1])
    elif config.init or config.grow_from:
        load_start(nets, config)
    nets.to(accelerator.device)
    if accelerator.is_main_process:
        photos.write_report(folder.path / "photos-report.json")
        folder.forget_after(progress.images_seen)
        run.need_space(folder.path, 4 * nets.checkpoint_bytes())
        print(photos.summary())
    if config.tracker:
        accelerator.init_trackers("hfgan", config=dataclasses.asdict(config))
    train(config, accelerator, folder, photos, nets, progress)
    accelerator.end_training()


def resolve(config: Config) -> Config:
    """Fill in what depends on other settings."""
    gamma = config.r1_gamma
    if gamma is None:  # the published heuristic is too weak at small sizes: four times it
        gamma = round(4 * 0.0002 * config.resolution**2 / config.batch, 4)
    return dataclasses.replace(config, r1_gamma=gamma)


def check(config: Config, processes: int) -> None:
    """Say at once what would fail later."""
    share = config.batch // processes
    if config.batch % processes:
        raise run.UserError(f"--batch {config.batch} cannot be shared by {processes} processes: give a multiple of {processes}")
    if config.microbatch and share % config.microbatch:
        raise run.UserError(f"--microbatch {config.microbatch} does not divide the {share} images of each process")
    if config.init and config.grow_from:
        raise run.UserError("--init and --grow-from both name a start: give one of them")


@dataclass
class Progress:
    """Numbers that a resumed run needs beside the tensors."""

    images_seen: int = 0
    seconds: float = 0.0
    augment_p: float = 0.0
    pl_mean: float = 0.0
    sign_sum: float = 0.0  # of D(real) since the controller last looked
    sign_count: int = 0


def train(
    config: Config, accelerator: Accelerator, folder: run.RunFolder, photos: PhotoDataset, nets: Networks,
    progress: Progress,
) -> None:  # fmt: skip
    """The loop: one batch of images per iteration until `config.images`, the time limit or a signal."""
    rank, world = accelerator.process_index, accelerator.num_processes
    sampler = InfiniteSampler(len(photos), config.seed, rank, world)
    watch = run.Stopwatch(config.minutes, progress.seconds)
    bar = tqdm(
        total=config.images, initial=progress.images_seen, unit="img", smoothing=0.02,
        disable=not (accelerator.is_main_process and sys.stderr.isatty()),
    )  # fmt: skip
    step = Step(config, accelerator, nets, progress)
    stopped = False
    while progress.images_seen < config.images and not stopped:
        if progress.images_seen == 0 and accelerator.is_main_process:
            report(config, folder, photos, nets, progress, {})
        real, labels = real_batch(config, photos, sampler, progress.images_seen, accelerator.device)
        numbers = step(real, labels)
        before, progress.images_seen = progress.images_seen, progress.images_seen + config.batch
        bar.update(config.batch)
        check_finite(numbers, folder, progress)
        stopped = should_stop(accelerator, watch)
        done = progress.images_seen >= config.images
        progress.seconds = watch.seconds()
        if accelerator.is_main_process:
            if done or crosses(config.sample_every, before, progress.images_seen):
                report(config, folder, photos, nets, progress, numbers)
                accelerator.log({k: v for k, v in folder.read_log()[-1].items() if k != "images_seen"}, progress.images_seen)
            if done or stopped or crosses(config.save_every, before, progress.images_seen):
                folder.save_checkpoint(progress.images_seen, nets.tensors(), dataclasses.asdict(progress))
                nets.publish(folder.path / "model")
        accelerator.wait_for_everyone()
    bar.close()
    if stopped and accelerator.is_main_process:
        print(f"stopped at {progress.images_seen:,} images; the same command goes on from there")


def crosses(every: int, before: int, after: int) -> bool:
    """True when a multiple of `every` lies in (before, after]."""
    return before // every != after // every


def should_stop(accelerator: Accelerator, watch: run.Stopwatch) -> bool:
    """The same answer on every process."""
    if accelerator.num_processes == 1:
        return watch.should_stop()
    votes = torch.tensor(float(watch.should_stop()), device=accelerator.device)
    return bool(accelerator.reduce(votes, "sum") > 0)


def real_batch(
    config: Config, photos: PhotoDataset, sampler: InfiniteSampler, images_seen: int, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """This process's photos (n, c, r, r) in [-1, 1] and one-hot labels (n, classes) or None."""
    indices = sampler.indices(images_seen, config.batch)
    image = photos.batch(indices).to(device).float() / 127.5 - 1
    if config.mirror:
        source = run.random_source(config.seed, PURPOSES["real"], images_seen, sampler.rank)
        mirrored = torch.rand(len(image), 1, 1, 1, generator=source).to(device) < 0.5
        image = torch.where(mirrored, image.flip(3), image)
    if photos.labels is None:
        return image, None
    return image, torch.nn.functional.one_hot(photos.labels[indices], len(photos.classes)).float().to(device)


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
            loss = self.generator_loss(fake, image, c, sources)
            (loss / parts).backward()
            fakes.append(fake.detach())
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

    def show(self, image: Tensor, source: torch.Generator) -> Tensor:
        """What the discriminators see of an image: augmented."""
        if self.config.augment == "diff":
            return diff_augment(image, source)
        return augment(image, self.progress.augment_p, source)

    def generator_loss(
        self, fake: Tensor, real: Tensor, c: Tensor | None, sources: dict[str, torch.Generator]
    ) -> Tensor:
        shown = self.show(fake, sources["fake"])
        logits = self.nets.discriminator(shown, c)
        if self.config.loss == "logistic":
            loss = losses.logistic_g(logits)
        else:
            loss = losses.relativistic_g(self.nets.discriminator(self.show(real, sources["real"]), c), logits)
        if self.nets.projected is not None:
            loss = loss - self.config.projected_weight * self.nets.projected(shown).mean()
        return loss

    def discriminator_loss(
        self, real: Tensor, fake: Tensor, c: Tensor | None, sources: dict[str, torch.Generator]
    ) -> tuple[Tensor, Tensor]:
        shown_real, shown_fake = self.show(real, sources["real"]), self.show(fake, sources["fake"])
        real_logits, fake_logits = self.nets.discriminator(shown_real, c), self.nets.discriminator(shown_fake, c)
        adversarial = losses.logistic_d if self.config.loss == "logistic" else losses.relativistic_d
        loss = adversarial(real_logits, fake_logits)
        if self.nets.projected is not None:
            loss = loss + losses.hinge_d(self.nets.projected(shown_real), self.nets.projected(shown_fake))
        return loss, real_logits.detach()

    def gradient_penalty_step(
        self, reals: list[tuple[Tensor, Tensor | None]], fakes: list[Tensor], sources: dict[str, torch.Generator]
    ) -> float:
        """R1, and R2 with the relativistic loss, as a step of its own scaled by the iterations it stands for."""
        config = self.config
        for (image, c), fake in zip(reals, fakes, strict=True):
            def discriminate(x: Tensor, c: Tensor | None = c) -> Tensor:
                return self.nets.discriminator(x, c)

            shown = self.show(image, sources["real_for_penalty"])
            penalty, _ = losses.gradient_penalty(discriminate, shown)
            if config.loss == "rpgan_r1r2":
                penalty = penalty + losses.gradient_penalty(discriminate, self.show(fake, sources["fake"]))[0]
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


def check_finite(numbers: dict[str, float], folder: run.RunFolder, progress: Progress) -> None:
    """Stop at the first loss that is no number; the last checkpoint is from before."""
    bad = [name for name, value in numbers.items() if not torch.tensor(value).isfinite()]
    if bad:
        raise run.UserError(
            f"diverged: {', '.join(bad)} is not finite at {progress.images_seen:,} images; the last checkpoint in "
            f"{folder.path} is from before: resume in a new --out with a lower --lr or a higher --r1-gamma"
        )


@torch.no_grad()
def report(
    config: Config, folder: run.RunFolder, photos: PhotoDataset, nets: Networks, progress: Progress,
    numbers: dict[str, float],
) -> None:  # fmt: skip
    """A sample sheet, a line in the log, the Frechet distance, and a look for collapse."""
    sheet = draw_average(config, nets, range(32))
    path = folder.path / "samples" / f"{progress.images_seen:09d}.png"
    path.parent.mkdir(exist_ok=True)
    grid(to_pil(sheet), 8).save(path)
    entry: dict[str, Any] = {"images_seen": progress.images_seen, "seconds": round(progress.seconds, 1)}
    entry |= {"time": time.time(), "augment_p": progress.augment_p, **numbers, "spread": spread(sheet)}
    if config.features:
        entry["fd_mnv2"] = measure(config, nets, photos)
    folder.log(entry)
    told = {k: f"{v:.3g}" for k, v in entry.items() if k not in ("time", "images_seen")}
    tqdm.write(f"{progress.images_seen:>10,} images  " + "  ".join(f"{k} {v}" for k, v in told.items()))
    photo_spread = spread(photos.batch(range(min(32, len(photos)))).float() / 127.5 - 1)
    if progress.images_seen > 20_000 and entry["spread"] < 0.1 * photo_spread:
        raise run.UserError(
            f"collapsed: 32 drawn images differ by {entry['spread']:.4f}, photos by {photo_spread:.4f} (root mean square); "
            f"start again in a new --out with a higher --r1-gamma or a lower --lr"
        )


def spread(image: Tensor) -> float:
    """Root mean square deviation of images (n, c, r, r) from their mean."""
    return image.var(dim=0).mean().sqrt().item()


def draw_average(config: Config, nets: Networks, seeds: range) -> Tensor:
    """Images (n, c, r, r) of the averaged generator; with classes, seed k draws class k modulo their number."""
    z = latents_from_seeds(list(seeds), config.z_dim).to(nets.device)
    classes = nets.average.mapping.c_dim
    c = torch.eye(classes, device=nets.device)[torch.tensor(list(seeds)) % classes] if classes else None
    return nets.average(z, c)


def measure(config: Config, nets: Networks, photos: PhotoDataset) -> float:
    """FD-MNv2 of the averaged generator against the first `feature_images` photos in random order."""
    from hfgan.metrics import extract_features, frechet_of_features
    from hfgan.models.perceptual import MobileNetV2

    net = MobileNetV2.from_file(config.features).to(nets.device)
    count = min(config.feature_images, len(photos))
    order = torch.randperm(len(photos), generator=torch.Generator().manual_seed(0))[:count]
    real = extract_features((photos.batch(i) for i in order.split(50)), net.embed)
    fake = extract_features(
        (draw_average(config, nets, range(1000 + i, 1000 + min(i + 50, count))) for i in range(0, count, 50)), net.embed
    )
    return frechet_of_features(real, fake)

