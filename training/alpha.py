"""Stage `alpha`: learn which part of a picture is its subject, from a finished generator and without a label.

Two phases. The bootstrap follows the votes of clusters of the generator's activations (`bootstrap.py`). The refinement
is Labels4Free (Abdal et al. 2021, arXiv 2103.14968): subject and background are composited, and a discriminator that
sees photos says whether the picture holds together. As published, on one latent and in place, a composite is perfect
where alpha is 1 everywhere; here the subject is moved onto the background of another sample, so that it is not.
`--preset labels4free` is the paper's recipe.
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
from alphastep import Progress, Step
from bootstrap import BATCH, Votes, choose_background
from networks import lazy_adam
from photos import Photos
from run import flag
from torch import Tensor
from tqdm import tqdm

from hfgan import HFGan
from hfgan.images import on_white
from hfgan.memory import draw_with_alpha
from hfgan.models.alpha import AlphaNetwork
from hfgan.models.discriminator import StyleGAN2Discriminator
from hfgan.sampling import broadcast

SHAPE = ("per_resolution", "hidden_dim", "kernel_size", "first_resolution", "trunk_resolution")
SAMPLES = 512  # behind the votes
SHEET = 32  # samples on the sheet and behind the score


@dataclass(frozen=True)
class Config:
    """Train an alpha network beside the generator of a model."""

    model: str = field(metadata={"help": "bundled name, folder or Hub id"})
    data: str = field(metadata={"help": "folder, .zip or Hub data set id, the photos of the generator"})
    out: str = field(metadata={"help": "run folder; the same command resumes"})
    images: int = flag(16_000, "stop after so many samples; beyond the bootstrap's alpha is refined")
    bootstrap_images: int = flag(16_000, "samples of the bootstrap; 0 for none")
    minutes: float | None = flag(None, "stop (resumably) after so many minutes")
    batch: int = flag(16, "samples per iteration, all processes together")
    lr: float = flag(0.002, "learning rate of alpha, and a tenth of it in the refinement")
    per_resolution: int = flag(1, "activations that are looked at of each resolution, 2 for both or 1")
    hidden_dim: int = flag(12, "channels kept of an activation")
    kernel_size: int = flag(3, "of merges, 1 or 3")
    first_resolution: int = flag(16, "coarsest activations that are looked at [pixels]")
    trunk_resolution: int = flag(64, "finest activations that are merged [pixels]")
    background_layer: int | None = flag(None, "layer to silence, -1 the constant; default: what the votes prefer")
    truncation_psi: float = flag(0.7, "samples are drawn with psi between this and 1")
    other_background: bool = flag(True, "composite on the background of another sample")
    shift: float = flag(0.125, "largest move of the subject [sides], sideways and down")
    adversarial_weight: float = flag(0.1, "of the discriminator's verdict")
    anchor_weight: float = flag(1.0, "of the votes during the refinement")
    binary_weight: float = flag(0.1, "of mean(min(alpha, 1 - alpha))")
    edge_weight: float = flag(10.0, "of edges of alpha where the picture has none")
    foreground_weight: float = flag(1.0, "of the subject's least area")
    background_weight: float = flag(1.0, "of the background's least area")
    foreground_min: float = flag(0.05, "least area of the subject [share]")
    background_min: float = flag(0.05, "least area of the background [share]")
    area: Literal["mean", "image"] = flag("mean", "least areas hold for the running mean, or for each image")
    disc_lr: float = flag(0.002, "learning rate of the discriminator")
    r1_gamma: float = flag(10.0, "weight of the penalty R1")
    r1_every: int = flag(16, "iterations between penalties")
    ema_images: int = flag(2000, "half-life of the averaged network [samples]")
    precision: Literal["auto", "float32", "bfloat16"] = flag("auto", "of convolutions")
    seed: int = flag(0, "of everything")
    save_every: int = flag(8000, "samples between checkpoints")
    sample_every: int = flag(4000, "samples between sheets and scores")
    tracker: str | None = flag(None, "any Accelerate tracker, e.g. tensorboard")


# what the paper does on faces, on its architecture; its known defects stay off: weights that are no average, a stray
# term in R1, upsampling that displaces
PRESETS = {
    "labels4free": {
        "images": 9600, "bootstrap_images": 0, "batch": 8, "lr": 0.0002 * 4 / 5, "per_resolution": 2, "hidden_dim": 6,
        "kernel_size": 1, "first_resolution": 4, "trunk_resolution": 32, "background_layer": 0, "truncation_psi": 1.0,
        "other_background": False, "shift": 0.0, "adversarial_weight": 1.0, "anchor_weight": 0.0,
        "binary_weight": 1.2, "edge_weight": 0.0, "foreground_weight": 1.2, "foreground_min": 0.25,
        "background_weight": 0.0, "background_min": 0.4, "area": "image", "disc_lr": 0.0002, "ema_images": 2230,
    }
}  # fmt: skip
MAY_CHANGE = {"minutes", "save_every", "sample_every", "tracker"}


class Networks:
    """A frozen generator, the votes, the alpha network that learns, its average, the best of it, its opponent."""

    def __init__(self, config: Config, device: torch.device) -> None:
        self.gan = HFGan.from_pretrained(config.model, dtype=config.precision, device=device)
        self.generator = self.gan.generator.requires_grad_(False)
        largest = self.generator.config.resolution
        shape = {name: min(getattr(config, name), largest) for name in SHAPE}
        self.votes, self.background_layer = self.learn_votes(config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.alpha = AlphaNetwork.beside(self.generator, **shape, background_layer=self.background_layer)
            same = ("resolution", "img_channels", "channel_base", "channel_max", "c_dim")
            self.discriminator = StyleGAN2Discriminator(**{k: self.generator.config[k] for k in same}).to(device)
        self.discriminator.set_compute_dtype(self.generator.dtype)
        self.average = copy.deepcopy(self.alpha).eval().requires_grad_(False)
        self.best = copy.deepcopy(self.average)
        w = self.draw_w(SHEET, run.random_source(config.seed, run.PURPOSES["noise"]))
        w_avg = self.generator.mapping.w_avg
        self.shown = broadcast(w_avg.lerp(w, config.truncation_psi), self.generator.num_ws)  # behind sheet and score
        self.optimizers = {
            "alpha": torch.optim.Adam(self.alpha.parameters(), lr=config.lr, betas=(0.0, 0.99), eps=1e-8),
            "discriminator": lazy_adam(list(self.discriminator.parameters()), config.disc_lr, config.r1_every),
        }

    def learn_votes(self, config: Config) -> tuple[Votes | None, int]:
        """The votes, where they are wanted, and the layer to silence."""
        if not config.bootstrap_images and config.background_layer is not None:
            return None, config.background_layer
        w = self.draw_w(SAMPLES, run.random_source(config.seed, run.PURPOSES["latents"]))
        votes = Votes.fit(self.generator, w, config.seed)
        if config.background_layer is not None:
            return votes, config.background_layer
        layer, left = choose_background(votes, self.generator, w[: 2 * BATCH])
        print(f"background: layer {layer} is silenced, {left:.0%} of what is left looks like a subject")
        return votes, layer

    @torch.no_grad()
    def draw_w(self, count: int, source: torch.Generator) -> Tensor:
        """w (count, w_dim) of new latents; a model with classes draws them in turn."""
        mapping = self.generator.mapping
        z = torch.randn(count, self.generator.config.z_dim, generator=source).to(self.generator.device)
        return mapping(z, mapping.labels_in_turn(torch.arange(count)))

    def tensors(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, by name."""
        found: dict[str, Tensor] = {}
        for name in ("alpha", "average", "best", "discriminator"):
            found |= {f"{name}.{k}": v for k, v in getattr(self, name).state_dict().items()}
        for name, optimizer in self.optimizers.items():
            found |= run.optimizer_tensors(optimizer, f"adam_{name}")
        return found

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Inverse of `tensors`."""
        for name in ("alpha", "average", "best", "discriminator"):
            getattr(self, name).load_state_dict(run.part(tensors, name))
        for name, optimizer in self.optimizers.items():
            run.load_optimizer(optimizer, tensors, f"adam_{name}")

    def publish(self, path: Path) -> None:
        """Write the model with the alpha network of the best score."""
        self.gan.register_modules(alpha=self.best)
        self.gan.name = None  # the card is written for what it is now
        run.publish(self.gan, path)


def main(config: Config) -> None:
    """Train, or go on training, until `config.images`."""
    accelerator = Accelerator(log_with=config.tracker, project_dir=config.out)
    run.check_counts(config, accelerator.num_processes)
    folder = run.RunFolder(config.out, config, MAY_CHANGE, main_process=accelerator.is_main_process)
    progress, saved = Progress(), folder.load_checkpoint()
    with run.library_errors():
        nets = Networks(config, accelerator.device)
        shape = nets.generator.config
        photos = Photos(accelerator, folder, config.data, shape.resolution, img_channels=shape.img_channels,
                        batch=config.batch, seed=config.seed)  # fmt: skip
        if saved:
            nets.load(saved[0])
            progress = Progress(**saved[1])
    if accelerator.is_main_process:
        photos.write_report()
        folder.forget_after(progress.images_seen)
        print(photos.summary())
    step = Step(config, accelerator, nets, progress)
    report = Reporter(folder, nets) if accelerator.is_main_process else None
    loop.train(config, accelerator, folder, photos, nets, progress, step, report)


class Reporter:
    """Sheets of samples and their alpha, and the score."""

    def __init__(self, folder: run.RunFolder, nets: Networks) -> None:
        self.folder, self.nets = folder, nets

    @torch.no_grad()
    def __call__(self, progress: Progress, numbers: dict[str, float]) -> dict[str, Any]:
        """Write a sheet and a line of the log."""
        nets = self.nets
        image, logit = draw_with_alpha(nets.generator, nets.average, nets.shown)
        alpha = logit.sigmoid()
        signs = {"area": alpha.mean().item(), "score": progress.score}
        self.folder.save_sheet(progress.images_seen, self.sheet(image, alpha))
        entry = {"images_seen": progress.images_seen, "seconds": round(progress.seconds, 1), **numbers, **signs}
        self.folder.log(entry)
        tqdm.write(run.told(entry))
        return entry

    def sheet(self, image: Tensor, alpha: Tensor) -> Any:
        """Rows of samples, each above the row of their alpha."""
        shown = on_white(image)
        rows = zip(shown.split(8), (2 * alpha - 1).expand_as(shown).split(8), strict=True)
        return run.sheet(torch.cat([part for pair in rows for part in pair]), 8)
