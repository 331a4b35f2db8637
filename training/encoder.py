"""Stage `encoder`: learn to invert photos within an interest region, beside a finished generator.

The default, --arm interest, is shown each picture twice, as it is and again on another background behind an obstacle
(`obstacles.py`), is told roughly where to look, and must draw what it was told to look at, hidden parts too. The other
arms are the published recipes on the same network, pictures and budget: ReStyle (arXiv 2104.02699), e4e (arXiv
2102.02766), and IntereStyle (Moon & Park 2022) whole and by its ingredients. Regions come from `matting`, boxes and
blobs: no labels.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import loop
import run
import torch
from accelerate import Accelerator
from encoderstep import ARMS, LatentDiscriminator, Step
from obstacles import stage
from photos import NoPhotos, Photos
from run import flag
from torch import Tensor
from tqdm import tqdm

from hfgan import HFGan
from hfgan.filtering import kept_ids
from hfgan.images import on_white, to_image
from hfgan.memory import in_parts, net_at_once
from hfgan.models.encoder import InterestEncoder
from hfgan.models.perceptual import load_perceptual

SHEET = 16  # pictures on the sheet and behind the numbers of the log


@dataclass(frozen=True)
class Config:
    """Train an encoder, photo and interest region to w_plus, beside the generator of a model."""

    model: str = field(metadata={"help": "bundled name, folder or Hub id; with modes and matting at best"})
    out: str = field(metadata={"help": "run folder; the same command resumes"})
    data: str | None = flag(None, "folder, .zip or Hub data set id: photos; without, all is drawn by the generator")
    kept: str | None = flag(None, "manifest of the filter stage: photos that it kept")
    fresh: bool = flag(False, "begin anew, also where the model has such an encoder to go on with")
    arm: Literal[tuple(ARMS)] = flag("interest", "recipe")
    images: int = flag(60_000, "stop after so many pictures, each of which is shown twice")
    minutes: float | None = flag(None, "stop (resumably) after so many minutes")
    batch: int = flag(8, "pictures per iteration, all processes together")
    drawn: float = flag(0.25, "share of pictures that the generator draws, whose latent is known")
    steps: int = flag(3, "steps of the encoder")
    lr: float = flag(0.001, "learning rate, falling to a tenth along a cosine")
    widths: tuple[int, ...] = flag((), "channels of the encoder at half the size, a quarter, ..., 4 px")
    depth: int = flag(1, "residual blocks at each of them")
    drift_weight: float = flag(0.5, "interest: of how far both views of a picture lie apart in w_plus")
    latent_weight: float = flag(0.05, "interest: of the distance to the known latent of drawn pictures")
    outside_weight: float = flag(0.03, "interest: of the squared error outside of the region")
    ema_images: int = flag(2000, "half-life of the averaged encoder [pictures]")
    perceptual: str | None = flag(None, "perceptual weights; default: what ships with us")
    precision: Literal["auto", "float32", "bfloat16"] = flag("auto", "of the generator's convolutions")
    seed: int = flag(0, "of everything")
    save_every: int = flag(4000, "pictures between checkpoints")
    sample_every: int = flag(4000, "pictures between sheets")
    tracker: str | None = flag(None, "any Accelerate tracker, e.g. tensorboard")


MAY_CHANGE = {"minutes", "save_every", "sample_every", "tracker"}


class Networks:
    """A frozen model, the encoder that learns, its moving average, the opponent of e4e, and their optimizers."""

    def __init__(self, config: Config, device: torch.device) -> None:
        self.gan = HFGan.from_pretrained(config.model, dtype=config.precision, device=device)
        self.generator = self.gan.generator.requires_grad_(False)
        arm, known = ARMS[config.arm], None if config.fresh else self.gan.encoder
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            shape = {"widths": list(config.widths) or None, "depth": config.depth, "conditioned": arm.conditioned}
            made = InterestEncoder.beside(self.generator, self.gan.modes, **shape)
            self.opponent = LatentDiscriminator(self.generator.config.w_dim).to(device) if arm.single else None
        fits = isinstance(known, InterestEncoder) and all(known.config[name] == value for name, value in shape.items())
        self.encoder = (known if fits else made).to(device).train().requires_grad_(True)
        self.average = copy.deepcopy(self.encoder).eval().requires_grad_(False)
        self.optimizers = {"encoder": torch.optim.AdamW(self.encoder.parameters(), lr=config.lr, weight_decay=1e-4)}
        if self.opponent is not None:
            self.optimizers["opponent"] = torch.optim.Adam(self.opponent.parameters(), lr=config.lr / 5)

    def modules(self) -> dict[str, torch.nn.Module]:
        """What a resumed run needs, by name."""
        found = {"encoder": self.encoder, "average": self.average, "opponent": self.opponent}
        return {name: module for name, module in found.items() if module is not None}

    def tensors(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, by name."""
        found = {f"{name}.{k}": v for name, module in self.modules().items() for k, v in module.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            found |= run.optimizer_tensors(optimizer, f"adam-{name}")
        return found

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Inverse of `tensors`."""
        for name, module in self.modules().items():
            module.load_state_dict(run.part(tensors, name))
        for name, optimizer in self.optimizers.items():
            run.load_optimizer(optimizer, tensors, f"adam-{name}")

    def publish(self, path: Path) -> None:
        """Write the model with the averaged encoder."""
        self.gan.register_modules(encoder=self.average)
        self.gan.name = None  # the card is written for what it is now
        run.publish(self.gan, path)


def check(config: Config, processes: int) -> None:
    """UserError for a count that is none, and for shares that are no shares."""
    run.check_counts(config, processes)
    if config.kept and not config.data:
        raise run.UserError("--kept chooses among photos: give --data too")
    if config.steps < 1 or not 0 <= config.drawn <= 1:
        raise run.UserError(f"--steps is {config.steps} and --drawn {config.drawn}: give 1 or more, and 0 to 1")
    if config.batch // processes < 4:
        raise run.UserError(
            f"--batch {config.batch} on {processes} processes: each needs 4 or more, for backgrounds are of others"
        )


def main(config: Config) -> None:
    """Train, or go on training, until `config.images`."""
    accelerator = Accelerator(log_with=config.tracker, project_dir=config.out)
    check(config, accelerator.num_processes)
    folder = run.RunFolder(config.out, config, MAY_CHANGE, main_process=accelerator.is_main_process)
    progress, saved = loop.Progress(), folder.load_checkpoint()
    with run.library_errors():
        nets, photos = Networks(config, accelerator.device), NoPhotos(config.batch // accelerator.num_processes)
        if config.data:
            shape = nets.generator.config
            photos = Photos(
                accelerator, folder, config.data, shape.resolution, img_channels=shape.img_channels,
                batch=config.batch, seed=config.seed, kept=kept_ids(Path(config.kept)) if config.kept else None,
            )  # fmt: skip
        net = load_perceptual(config.perceptual).to(accelerator.device)
        if saved:
            nets.load(saved[0])
            progress = loop.Progress(**saved[1])
    if accelerator.is_main_process:
        photos.write_report()
        folder.forget_after(progress.images_seen)
        if config.data:
            print(photos.summary())
    step = Step(config, accelerator, nets, net, progress)
    report = Reporter(config, folder, photos, nets, step) if accelerator.is_main_process else None
    loop.train(config, accelerator, folder, photos, nets, progress, step, report)


class Reporter:
    """Sheets of pictures, what the averaged encoder draws of them, the same behind obstacles; and its errors."""

    def __init__(
        self, config: Config, folder: run.RunFolder, photos: Photos | NoPhotos, nets: Networks, step: Step
    ) -> None:
        self.config, self.folder, self.nets = config, folder, nets
        source = run.random_source(config.seed, run.PURPOSES["noise"])
        image = to_image(photos.some(SHEET)).to(nets.generator.device) if config.data else step.draw(SHEET, source)[0]
        self.scene = stage(image, nets.gan.matting, source)

    @torch.no_grad()
    def __call__(self, progress: loop.Progress, numbers: dict[str, float]) -> dict[str, Any]:
        """Write a sheet and a line of the log."""
        scene, generator = self.scene, self.nets.generator
        size = net_at_once(generator, len(scene.image))
        w_plus, drawn = in_parts(self.encode, size, scene.image, scene.told)
        drawn = on_white(drawn).clamp(-1, 1)
        error = (drawn - scene.wanted).square().mean(1, keepdim=True)
        clean, spoilt = ((error * scene.meant).sum((1, 2, 3)) / scene.meant.sum((1, 2, 3))).chunk(2)
        first, second = (w_plus / self.nets.average.w_std).chunk(2)
        apart = (first - second).square().mean().sqrt() / (first - first.roll(1, 0)).square().mean().sqrt()
        signs = {"error": clean.mean().item(), "error_hidden": spoilt.mean().item(), "drift": apart.item()}
        dimmed = scene.image * (0.3 + 0.7 * scene.told)
        rows = [rows for x in (scene.image, dimmed, drawn) for rows in x.chunk(2)]
        sheet = torch.cat([rows[k] for k in (0, 2, 4, 1, 3, 5)])
        self.folder.save_sheet(progress.images_seen, run.sheet(sheet, SHEET))
        entry = {"images_seen": progress.images_seen, "seconds": round(progress.seconds, 1), **numbers, **signs}
        self.folder.log(entry)
        tqdm.write(run.told(entry))
        return entry

    def encode(self, image: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        """The w_plus (n, num_ws, w_dim) of images and what is drawn of it (n, c, r, r), after the last step."""
        *_, found = self.nets.average.steps(self.nets.generator, image, told, self.config.steps)
        return found
