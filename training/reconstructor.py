"""Stage `reconstructor`: train a reconstruction encoder on a finished generator, which stays as it is.

`generator --reconstructor` trains the two together; for filtering any encoder that fits the generator is enough.
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
from photos import Photos
from reconstruction import Distance, check_collapse, health, latent_loss, reconstruct, reconstruction_loss
from run import flag
from torch import Tensor
from torch.optim import Adam
from tqdm import tqdm

from hfgan import HFGan
from hfgan.images import to_image
from hfgan.memory import draw_in_parts
from hfgan.models.reconstructor import ReconstructionEncoder
from hfgan.sampling import broadcast

SHEET = 32  # photos on the sample sheet and behind the signs of life


@dataclass(frozen=True)
class Config:
    """Train an encoder, image to w, beside the generator of a model, or go on with the one that it has."""

    model: str = field(metadata={"help": "bundled name, folder or Hub id"})
    data: str = field(metadata={"help": "folder, .zip or Hub data set id, the photos of the generator"})
    out: str = field(metadata={"help": "run folder; the same command resumes"})
    images: int = flag(200_000, "stop after so many photos")
    minutes: float | None = flag(None, "stop (resumably) after so many minutes")
    batch: int = flag(16, "photos per iteration, all processes together")
    lr: float = flag(0.001, "learning rate, falling to a tenth along a cosine")
    ema_images: int = flag(5000, "half-life of the averaged encoder [images]")
    perceptual: str | None = flag(None, "perceptual weights; default: what ships with us")
    precision: Literal["auto", "float32", "bfloat16"] = flag("auto", "of convolutions")
    seed: int = flag(0, "of everything")
    save_every: int = flag(10_000, "images between checkpoints")
    sample_every: int = flag(10_000, "images between sample sheets")
    tracker: str | None = flag(None, "any Accelerate tracker, e.g. tensorboard")


MAY_CHANGE = {"minutes", "save_every", "sample_every", "tracker"}


class Networks:
    """A frozen model, the encoder that learns, its moving average and its optimizer."""

    def __init__(self, config: Config, device: torch.device) -> None:
        self.gan = HFGan.from_pretrained(config.model, dtype=config.precision, device=device)
        self.generator = self.gan.generator.requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            found = self.gan.reconstructor or ReconstructionEncoder.beside(self.generator, self.gan.discriminator)
        self.reconstructor = found.to(device).train().requires_grad_(True)
        self.average = copy.deepcopy(self.reconstructor).eval().requires_grad_(False)
        self.optimizer = Adam(self.reconstructor.parameters(), lr=config.lr, betas=(0.0, 0.99), eps=1e-8, fused=True)

    def tensors(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, by name."""
        found = {f"reconstructor.{k}": v for k, v in self.reconstructor.state_dict().items()}
        found |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        return found | run.optimizer_tensors(self.optimizer, "adam")

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Inverse of `tensors`."""
        self.reconstructor.load_state_dict(run.part(tensors, "reconstructor"))
        self.average.load_state_dict(run.part(tensors, "average"))
        run.load_optimizer(self.optimizer, tensors, "adam")

    def publish(self, path: Path) -> None:
        """Write the model with the averaged encoder."""
        self.gan.register_modules(reconstructor=self.average)
        self.gan.name = None  # the card is written for what it is now
        run.publish(self.gan, path)


def main(config: Config) -> None:
    """Train, or go on training, until `config.images`."""
    accelerator = Accelerator(log_with=config.tracker, project_dir=config.out)
    run.check_counts(config, accelerator.num_processes)
    folder = run.RunFolder(config.out, config, MAY_CHANGE, main_process=accelerator.is_main_process)
    progress, saved = loop.Progress(), folder.load_checkpoint()
    with run.library_errors():
        nets = Networks(config, accelerator.device)
        shape = nets.generator.config
        photos = Photos(accelerator, folder, config.data, shape.resolution, img_channels=shape.img_channels,
                        batch=config.batch, seed=config.seed)  # fmt: skip
        distance = Distance(config.perceptual, accelerator.device)
        if saved:
            nets.load(saved[0])
            progress = loop.Progress(**saved[1])
    if accelerator.is_main_process:
        photos.write_report()
        folder.forget_after(progress.images_seen)
        print(photos.summary())
    step = Step(config, accelerator, nets, distance, progress)
    report = Reporter(folder, photos, nets, distance) if accelerator.is_main_process else None
    loop.train(config, accelerator, folder, photos, nets, progress, step, report)


class Step:
    """One iteration on one batch of photos and half as many drawn images."""

    def __init__(
        self, config: Config, accelerator: Accelerator, nets: Networks, distance: Distance, progress: loop.Progress
    ) -> None:
        self.config, self.accelerator, self.nets = config, accelerator, nets
        self.distance, self.progress = distance, progress

    def __call__(self, image: Tensor, labels: Tensor | None) -> dict[str, float]:
        nets, seen = self.nets, self.progress.images_seen
        loss, numbers = reconstruction_loss(
            nets.reconstructor, self.distance, reconstruct(nets.generator, nets.reconstructor, image)
        )
        drawn, w = self.draw(max(len(image) // 2, 1))
        latent = latent_loss(nets.reconstructor, drawn, w)
        (loss + latent).backward()
        for group in nets.optimizer.param_groups:
            group["lr"] = self.config.lr * run.cosine(seen / self.config.images)
        run.average_gradients(self.accelerator, nets.optimizer)
        nets.optimizer.step()
        nets.optimizer.zero_grad(set_to_none=True)
        half_life = min(self.config.ema_images, max(0.05 * (seen + self.config.batch), 1e-8))
        run.update_average(nets.average, nets.reconstructor, 0.5 ** (self.config.batch / half_life))
        return numbers | {"rec_latent": latent.item()}

    @torch.no_grad()
    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Images (n, c, r, r) and their w (n, w_dim), which depend on the position and the process alone."""
        generator, where = self.nets.generator, (self.progress.images_seen, self.accelerator.process_index)
        source = run.random_source(self.config.seed, run.PURPOSES["latents"], *where)
        z = torch.randn(count, generator.config.z_dim, generator=source).to(generator.device)
        w = generator.mapping(z, generator.mapping.labels_in_turn(torch.arange(count)))  # (n, w_dim)
        return draw_in_parts(generator, broadcast(w, generator.num_ws), "random", source), w


class Reporter:
    """Sheets of photos above their reconstructions, and signs of life, of the averaged encoder."""

    def __init__(self, folder: run.RunFolder, photos: Photos, nets: Networks, distance: Distance) -> None:
        self.folder, self.nets, self.distance = folder, nets, distance
        self.image = to_image(photos.some(SHEET)).to(nets.generator.device)

    def __call__(self, progress: loop.Progress, numbers: dict[str, float]) -> dict[str, Any]:
        """Write a sheet and a line of the log; stop the run when the encoder has collapsed."""
        self.folder.save_sheet(progress.images_seen, self.sheet())
        signs = health(self.nets.generator, self.nets.average, self.distance, self.image)
        entry = {"images_seen": progress.images_seen, "seconds": round(progress.seconds, 1), **numbers, **signs}
        self.folder.log(entry)
        tqdm.write(run.told(entry))
        check_collapse(progress.images_seen, signs)
        return entry

    @torch.no_grad()
    def sheet(self) -> Any:
        """Rows of photos, each above the row of its reconstructions."""
        again = reconstruct(self.nets.generator, self.nets.average, self.image).again
        rows = zip(self.image.split(8), again.split(8), strict=True)
        return run.sheet(torch.cat([part for pair in rows for part in pair]), 8)
