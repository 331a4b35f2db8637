"""What a generator run shows of itself: sample sheets, the log, the Frechet distance, curves, signs of collapse."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import reconstruction
import run
import torch
from curves import plot_log
from networks import Networks
from photos import Photos
from reconstruction import Distance, health
from step import Progress
from torch import Tensor
from tqdm import tqdm

from hfgan.images import to_image
from hfgan.memory import draw_in_parts
from hfgan.metrics import extract_features, frechet_of_features
from hfgan.models.perceptual import MobileNetV2
from hfgan.sampling import broadcast, latents_from_seeds

if TYPE_CHECKING:
    from generator import Config

SHEET = range(32)  # seeds of the sample sheet
CHUNK = 50  # images per forward pass when measuring
COLLAPSED = 0.1  # drawn images that differ by less than this share of what photos do


class Reporter:
    """Looks at the averaged generator every so often and writes down what it sees."""

    def __init__(self, config: Config, folder: run.RunFolder, photos: Photos, nets: Networks) -> None:
        self.config, self.folder, self.nets = config, folder, nets
        self.photos = photos.some(len(SHEET))
        self.photo_spread = spread(to_image(self.photos))
        self.embed, self.real_features = None, None
        self.distance = Distance(config.perceptual, nets.device) if config.reconstructor else None
        if config.features:
            self.embed = MobileNetV2.from_file(config.features).to(nets.device).embed
            self.real_features = extract_features(photos.some(config.feature_images).split(CHUNK), self.embed)

    @torch.no_grad()
    def __call__(self, progress: Progress, numbers: dict[str, float]) -> dict[str, Any]:
        """Write a sample sheet, a line of the log and the curves; stop the run when it has collapsed."""
        sheet = self.draw(SHEET)
        self.folder.save_sheet(progress.images_seen, run.sheet(sheet, 8))
        entry: dict[str, Any] = {"images_seen": progress.images_seen, "seconds": round(progress.seconds, 1)}
        entry |= {"augment_p": progress.augment_p, **numbers, "spread": spread(sheet)}
        if self.nets.reconstructor is not None:
            photos = to_image(self.photos).to(self.nets.device)
            entry |= health(self.nets.average, self.nets.reconstructor_average, self.distance, photos)
        if self.embed is not None:
            entry["fd_mnv2"] = self.frechet_distance()
        self.folder.log(entry)
        if importlib.util.find_spec("matplotlib"):  # of the extra `eval`
            plot_log(self.folder.read_log(), self.folder.path / "curves.png")
        tqdm.write(run.told(entry))
        self.check_collapse(progress, entry["spread"])
        if self.nets.reconstructor is not None:
            reconstruction.check_collapse(progress.images_seen, entry)
        return entry

    def draw(self, seeds: range) -> Tensor:
        """Images (n, c, r, r) of the averaged generator; with classes, seed k draws class k modulo their number."""
        nets = self.nets
        z = latents_from_seeds(list(seeds), self.config.z_dim).to(nets.device)
        w = nets.average.mapping(z, nets.average.mapping.labels_in_turn(torch.tensor(list(seeds))))
        return draw_in_parts(nets.average, broadcast(w, nets.average.num_ws))

    def frechet_distance(self) -> float:
        """FD-MNv2 at psi 1 against as many photos, seeds from 1000 on."""
        count = len(self.real_features)
        batches = (self.draw(range(1000 + i, 1000 + min(i + CHUNK, count))) for i in range(0, count, CHUNK))
        return frechet_of_features(self.real_features, extract_features(batches, self.embed))

    def check_collapse(self, progress: Progress, drawn: float) -> None:
        """Stop with a sentence when different seeds draw the same image."""
        if progress.images_seen > 20_000 and drawn < COLLAPSED * self.photo_spread:
            raise run.UserError(
                f"collapsed: {len(SHEET)} drawn images differ by {drawn:.4f}, photos by {self.photo_spread:.4f} (root "
                "mean square); start again in a new --out with a higher --r1-gamma or a lower --lr"
            )


def spread(image: Tensor) -> float:
    """Root mean square deviation of images (n, c, r, r) from their mean."""
    return image.var(dim=0).mean().sqrt().item()
