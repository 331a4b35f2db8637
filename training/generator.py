"""Stage `generator`: train StyleGAN2 on photos (arXiv 1912.04958), adaptively augmented (arXiv 2006.06676).

One iteration draws one batch of images, which teaches the generator first and then, as constants, the
discriminator; R1 and path length come every few iterations as steps of their own.
Networks are replicated; gradients are averaged over processes by hand, since lazy penalties touch only some of
the parameters. All randomness depends on (seed, purpose, images_seen, process) alone.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import loop
import run
from accelerate import Accelerator
from networks import build_networks, load_start
from photos import Photos
from report import Reporter
from run import flag
from step import Progress, Step

from hfgan.filtering import kept_ids


@dataclass(frozen=True)
class Config:
    """Train a StyleGAN2 generator on a folder, zip or Hub data set of photos."""

    data: str = field(metadata={"help": "folder, .zip or Hub data set id"})
    out: str = field(metadata={"help": "run folder; the same command resumes"})
    kept: str | None = flag(None, "manifest of the filter stage: train on the photos that it kept")
    streaming: bool = flag(False, "read the photos in passing instead of holding them; no labels")
    resolution: int = flag(64, "image size [pixels]")
    images: int = flag(1_000_000, "stop after so many training images")
    minutes: float | None = flag(None, "stop (resumably) after so many minutes of training")
    batch: int = flag(32, "images per iteration, all processes together")
    microbatch: int | None = flag(
        None, "images per forward pass and process; default all, or what a CPU has memory for"
    )
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
    projected_size: int = flag(128, "size at which that discriminator sees images [pixels]")
    projected_weight: float = flag(4.0, "weight of that discriminator in the generator's loss")
    reconstructor: bool = flag(False, "train a reconstruction encoder along; half of the images are then of photos")
    reconstruction_weight: float = flag(1.0, "weight of the reconstruction loss")
    perceptual: str | None = flag(None, "perceptual weights of that loss; default: what ships with us")
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

MAY_CHANGE = {
    "images",
    "minutes",
    "save_every",
    "sample_every",
    "features",
    "feature_images",
    "tracker",
    "dry_run",
}


def main(config: Config) -> None:
    """Train, or go on training, until `config.images`."""
    accelerator = Accelerator(log_with=config.tracker, project_dir=config.out)
    check(config, accelerator.num_processes)
    config = resolve(config)
    if config.dry_run:
        with run.library_errors():
            sizes = build_networks(config, 0, accelerator.device).sizes()
        print(json.dumps(dataclasses.asdict(config) | sizes, indent=2))
        return
    folder = run.RunFolder(config.out, config, MAY_CHANGE, main_process=accelerator.is_main_process)
    progress, saved = Progress(), folder.load_checkpoint()
    with run.library_errors():
        photos = Photos(
            accelerator, folder, config.data, config.resolution, img_channels=config.img_channels, batch=config.batch,
            seed=config.seed, class_labels=config.labels, streaming=config.streaming, mirror=config.mirror,
            kept=kept_ids(Path(config.kept)) if config.kept else None,
        )  # fmt: skip
        nets = build_networks(config, photos.num_classes, accelerator.device)
        if saved:
            nets.load(saved[0])
            progress = Progress(**saved[1])
        elif config.init or config.grow_from:
            load_start(nets, config)
    nets.to(accelerator.device)
    if accelerator.is_main_process:
        photos.write_report()
        folder.forget_after(progress.images_seen)
        run.need_space(folder.path, 4 * nets.checkpoint_bytes())
        print(photos.summary())
    with run.library_errors():
        step = Step(config, accelerator, nets, progress)
        report = Reporter(config, folder, photos, nets) if accelerator.is_main_process else None
    loop.train(config, accelerator, folder, photos, nets, progress, step, report)


def resolve(config: Config) -> Config:
    """Fill in what depends on other settings."""
    gamma = config.r1_gamma
    if gamma is None:  # the published heuristic is too weak at small sizes: four times it
        gamma = round(4 * 0.0002 * config.resolution**2 / config.batch, 4)
    return dataclasses.replace(config, r1_gamma=gamma)


def check(config: Config, processes: int) -> None:
    """Say at once what would fail later."""
    run.check_counts(config, processes)
    share = config.batch // processes
    if config.microbatch and share % config.microbatch:
        raise run.UserError(f"--microbatch {config.microbatch} does not divide the {share} images of each process")
    if config.streaming and config.labels:
        raise run.UserError("--streaming reads no labels: leave --labels out, or train without --streaming")
    if config.streaming and config.kept:
        raise run.UserError("--kept chooses among photos that are listed first: leave --streaming out")
    if config.reconstructor and (config.microbatch or share) < 2:
        raise run.UserError(
            "--reconstructor shares each batch between drawn and encoded images: give each process 2 or more"
        )
    if config.init and config.grow_from:
        raise run.UserError("--init and --grow-from both name a start: give one of them")
