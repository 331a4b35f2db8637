"""Stage `matting`: a network that finds the alpha of photos, taught by what the generator draws with its alpha.

Labels4Free names this use of generated pairs (Abdal et al. 2021, arXiv 2103.14968) without a published recipe. The
pairs are made on the fly (`pairs.py`). With --data the network also learns from photos themselves: what it says of a
photo with confidence it must say again when the photo is recoloured and spoilt (Sohn et al. 2020, arXiv 2001.07685).
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
from pairs import Drawn, Exported, recolour, show, spoil
from photos import NoPhotos, Photos
from run import flag
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from hfgan import HFGan
from hfgan.images import on_white, to_image
from hfgan.losses import binarisation
from hfgan.memory import at_once, in_parts
from hfgan.models.matting import MattingNetwork

SHEET = 32  # pictures on the sheet
CONFIDENT = 0.9  # of what a photo is taught with


@dataclass(frozen=True)
class Config:
    """Train a matting network, photo to alpha, on what a model with an alpha network draws."""

    model: str = field(metadata={"help": "bundled name, folder or Hub id; it has alpha, or --pairs is given"})
    out: str = field(metadata={"help": "run folder; the same command resumes"})
    data: str | None = flag(None, "folder, .zip or Hub data set id: photos to learn from, too")
    pairs: str | None = flag(None, "folder of `hfgan dataset`: learn from its pairs in place of new ones")
    images: int = flag(24_000, "stop after so many pairs")
    minutes: float | None = flag(None, "stop (resumably) after so many minutes")
    batch: int = flag(16, "pairs per iteration, all processes together")
    lr: float = flag(0.002, "learning rate, falling to a tenth along a cosine")
    widths: tuple[int, ...] = flag((24, 48, 96, 128), "channels at full size, half, a quarter, ...")
    least_psi: float = flag(0.7, "pairs are drawn with psi between this and 1")
    photo_weight: float = flag(1.0, "of what is learned from photos")
    photos_from: int = flag(6000, "pairs after which photos are learned from")
    ema_images: int = flag(4000, "half-life of the averaged network [pairs]")
    precision: Literal["auto", "float32", "bfloat16"] = flag("auto", "of the generator's convolutions")
    seed: int = flag(0, "of everything")
    save_every: int = flag(4000, "pairs between checkpoints")
    sample_every: int = flag(4000, "pairs between sheets")
    tracker: str | None = flag(None, "any Accelerate tracker, e.g. tensorboard")


MAY_CHANGE = {"minutes", "save_every", "sample_every", "tracker"}


class Networks:
    """A frozen model, the matting network that learns, its moving average and its optimizer."""

    def __init__(self, config: Config, device: torch.device) -> None:
        self.gan = HFGan.from_pretrained(config.model, dtype=config.precision, device=device)
        self.generator = self.gan.generator.requires_grad_(False)
        resolution = self.generator.config.resolution
        if config.pairs:
            self.pairs = Exported(config.pairs, resolution, device)
        else:
            self.pairs = Drawn(self.generator, self.gan.part("alpha").requires_grad_(False), config.least_psi)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            net = MattingNetwork(resolution=resolution, widths=list(config.widths))
        self.matting = net.to(device)
        self.average = copy.deepcopy(self.matting).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self.matting.parameters(), lr=config.lr, weight_decay=1e-4)

    def look(self, net: MattingNetwork, image: Tensor) -> Tensor:
        """The logit (n, 1, r, r) of images (n, 3, r, r) by one of both networks, in parts."""
        return in_parts(net, at_once(len(image), image.shape[-1], net.config.widths[0], image.device), image)

    def tensors(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, by name."""
        found = {f"matting.{k}": v for k, v in self.matting.state_dict().items()}
        found |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        return found | run.optimizer_tensors(self.optimizer, "adam")

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Inverse of `tensors`."""
        self.matting.load_state_dict(run.part(tensors, "matting"))
        self.average.load_state_dict(run.part(tensors, "average"))
        run.load_optimizer(self.optimizer, tensors, "adam")

    def publish(self, path: Path) -> None:
        """Write the model with the averaged matting network."""
        self.gan.register_modules(matting=self.average)
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
        photos = NoPhotos(config.batch // accelerator.num_processes)
        if config.data:
            photos = Photos(accelerator, folder, config.data, nets.generator.config.resolution, img_channels=3,
                            batch=config.batch, seed=config.seed)  # fmt: skip
        if saved:
            nets.load(saved[0])
            progress = loop.Progress(**saved[1])
    if accelerator.is_main_process:
        photos.write_report()
        folder.forget_after(progress.images_seen)
        if config.data:
            print(photos.summary())
    step = Step(config, accelerator, nets, progress)
    report = Reporter(config, folder, nets, photos) if accelerator.is_main_process else None
    loop.train(config, accelerator, folder, photos, nets, progress, step, report)


class Step:
    """One iteration on one batch of pairs, and one of photos where there are some."""

    def __init__(self, config: Config, accelerator: Accelerator, nets: Networks, progress: loop.Progress) -> None:
        self.config, self.accelerator, self.nets, self.progress = config, accelerator, nets, progress

    def __call__(self, photo: Tensor, labels: Tensor | None) -> dict[str, float]:
        config, nets, seen = self.config, self.nets, self.progress.images_seen
        source = run.random_source(config.seed, run.PURPOSES["latents"], seen, self.accelerator.process_index)
        pairs = show(nets.pairs.draw(len(photo), source), source)
        found = F.binary_cross_entropy_with_logits(nets.look(nets.matting, pairs.image), pairs.alpha, reduction="none")
        loss = (found.mean((1, 2, 3)) * pairs.weight).sum() / pairs.weight.sum().clamp(min=1)
        numbers = {"loss_pairs": loss.item(), "weight": pairs.weight.mean().item()}
        if photo.ndim == 4 and seen >= config.photos_from:
            again = self.consistency(photo, source)
            loss, numbers["loss_photos"] = loss + config.photo_weight * again, again.item()
        loss.backward()
        for group in nets.optimizer.param_groups:
            group["lr"] = config.lr * run.cosine(seen / config.images)
        run.average_gradients(self.accelerator, nets.optimizer)
        nets.optimizer.step()
        nets.optimizer.zero_grad(set_to_none=True)
        half_life = min(config.ema_images, max(0.05 * (seen + config.batch), 1e-8))
        run.update_average(nets.average, nets.matting, 0.5 ** (config.batch / half_life))
        return numbers

    def consistency(self, photo: Tensor, source: torch.Generator) -> Tensor:
        """Cross-entropy of what is said of spoilt photos (n, 3, r, r) and what the average is sure of in them."""
        with torch.no_grad():
            said = self.nets.look(self.nets.average, photo).sigmoid()
        sure = ((said > CONFIDENT) | (said < 1 - CONFIDENT)).float()
        logit = self.nets.look(self.nets.matting, spoil(recolour(photo, source), source))
        found = F.binary_cross_entropy_with_logits(logit, said, reduction="none")
        return (found * sure).sum() / sure.sum().clamp(min=1)


class Reporter:
    """Sheets of pictures and their alpha: of pairs, or of photos where there are some."""

    def __init__(self, config: Config, folder: run.RunFolder, nets: Networks, photos: Photos | NoPhotos) -> None:
        self.folder, self.nets = folder, nets
        source = run.random_source(config.seed, run.PURPOSES["noise"])
        drawn = show(nets.pairs.draw(SHEET, source), source).image
        self.image = to_image(photos.some(SHEET)).to(nets.generator.device) if config.data else drawn

    @torch.no_grad()
    def __call__(self, progress: loop.Progress, numbers: dict[str, float]) -> dict[str, Any]:
        """Write a sheet and a line of the log."""
        alpha = self.nets.look(self.nets.average, self.image).sigmoid()
        signs = {"area": alpha.mean().item(), "doubt": binarisation(alpha).item()}
        rows = zip(on_white(self.image).split(8), (2 * alpha - 1).expand(-1, 3, -1, -1).split(8), strict=True)
        sheet = run.sheet(torch.cat([part for pair in rows for part in pair]), 8)
        self.folder.save_sheet(progress.images_seen, sheet)
        entry = {"images_seen": progress.images_seen, "seconds": round(progress.seconds, 1), **numbers, **signs}
        self.folder.log(entry)
        tqdm.write(run.told(entry))
        return entry
