"""Stage `attribution`: how closely a model redraws its own samples and held-out photos, for "made by this model?".

Writes attribution.json, which belongs into the model's folder, with a table of how well altered pictures are told.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import run
import torch
from PIL.Image import Image, Resampling
from PIL.Image import open as open_image
from run import flag
from torch import Tensor

from hfgan import HFGan, __version__
from hfgan.attribution import (
    ENOUGH,
    LEAST,
    PSIS,
    Calibration,
    Protocol,
    redraw,
    see,
    weigh,
)
from hfgan.data import open_photos
from hfgan.drawing import SampleOutput
from hfgan.images import to_image, to_pil
from hfgan.metrics import roc_auc
from hfgan.models.perceptual import load_perceptual

DIGITS = 5  # of a distance that is written
STRENGTH = 2.0  # of edits, in deviations
CROPPED = 0.05  # of the side
QUALITY = 75  # of JPEG
Rows = Iterator[tuple[str, list[Image]]]


@dataclass(frozen=True)
class Config:
    """Calibrate whether a model made a picture, and measure how well that is told."""

    model: str = field(metadata={"help": "bundled name, folder or Hub id"})
    data: str = field(metadata={"help": "photos that it was not trained on: folder, .zip or Hub id"})
    others: tuple[str, ...] = flag((), "models whose samples are to be told from its own")
    num: int = flag(100, "samples at each of two psi")
    photos: int = flag(150, "photos of the calibration; the others test it")
    tests: int = flag(40, "pictures of each row of the table")
    seed: int = flag(1_000_000, "of the first sample, and of the order of photos")
    batch: int = flag(20, "pictures that are redrawn at once")
    out: str = flag("attribution.json", "file to write")


def main(config: Config) -> None:
    """Measure, write `config.out`, and print the table."""
    for name, least in (("num", LEAST), ("photos", LEAST), ("tests", 2), ("seed", 0), ("batch", 1)):
        if getattr(config, name) < least:
            raise run.UserError(f"--{name} is {getattr(config, name)}: give {least} or more")
    Path(config.out).parent.mkdir(parents=True, exist_ok=True)
    with run.library_errors():
        found = calibrate(config)
    found.save(config.out)
    print(table(found))


def calibrate(config: Config) -> Calibration:
    """The calibration of a model, and its table."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    gan, *others = (load(name, device) for name in (config.model, *config.others))
    photos, more = split_photos(config, gan)
    ruler = Ruler(gan, config.batch)
    samples = {psi: sorted(ruler(sample(gan, config.seed + k * config.num, config.num, float(psi)).images))
               for k, psi in enumerate(PSIS)}  # fmt: skip
    versions = {"hfgan": __version__, "torch": torch.__version__, "diffusers": diffusers.__version__}
    protocol = Protocol.of(gan.generator, gan.encoder, ruler.net)
    name = Path(config.data).name
    found = Calibration(protocol, samples, sorted(ruler(photos)), name, versions, [])
    unseen = ruler(more)  # photos that the calibration has not
    for what, pictures in rows(config, gan, others, more):
        row = judge(what, unseen if pictures is more else ruler(pictures), unseen, found)
        found.robustness.append(row)
        print(line(row), flush=True)
    return found


def load(name: str, device: str) -> HFGan:
    """A model in float32 that shows no bars."""
    gan = HFGan.from_pretrained(name, dtype="float32", device=device)
    gan.set_progress_bar_config(disable=True)
    return gan


def split_photos(config: Config, gan: HFGan) -> tuple[list[Image], list[Image]]:
    """Photos of the calibration, and others that test it."""
    shape = gan.generator.config
    data = open_photos(config.data, shape.resolution, img_channels=shape.img_channels)
    if len(data) < config.photos + config.tests:
        raise run.UserError(
            f"{config.data} has {len(data)} photos: --photos {config.photos} and --tests {config.tests} take more"
        )
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(config.seed)).tolist()
    pictures = to_pil(to_image(data.batch(order[: config.photos + config.tests])))
    return pictures[: config.photos], pictures[config.photos :]


class Ruler:
    """Measures the distances at which a model redraws pictures."""

    def __init__(self, gan: HFGan, batch: int) -> None:
        self.gan, self.batch, self.net = gan, batch, load_perceptual().to(gan.device)

    def __call__(self, pictures: Sequence[Image]) -> list[float]:
        """A distance for each picture."""
        images = torch.cat([see(picture, self.gan.generator) for picture in pictures])  # (n, c, r, r)
        return [float(f"{one:.{DIGITS}g}") for part in images.split(self.batch) for one in self.measure(part)]

    def measure(self, images: Tensor) -> list[float]:
        """A distance for each of the images (n, c, r, r)."""
        return redraw(self.gan.generator, self.gan.encoder, images, net=self.net).errors[-1].tolist()


# ---------------------------------------------------------------- the table


def rows(config: Config, gan: HFGan, others: Sequence[HFGan], photos: list[Image]) -> Rows:
    """What each row is called, and its pictures; samples are of seeds that the calibration has not."""
    first, count = config.seed + len(PSIS) * config.num, config.tests
    for psi in (*PSIS, "0.5"):
        yield f"samples, psi {psi}", sample(gan, first, count, float(psi)).images
    plain = sample(gan, first, count, 1.0).images
    altered = {f"JPEG quality {QUALITY}": jpeg, "half the size and back": halved, f"{CROPPED:.0%} cropped": cropped}
    for name, alter in altered.items():
        yield name, [alter(picture) for picture in plain]
    yield "styles mixed", mixed(gan, first, count)
    if gan.directions is not None:
        yield f"edited by {STRENGTH:+g} sigma", edited(gan, first, count)
    yield "fresh noise", sample(gan, first, count, noise_mode="random").images
    for other in others:
        yield f"samples of {other.name}", sample(other, first, count, 1.0).images
    yield "photos", photos
    for name in list(altered)[:2]:
        yield f"photos, {name}", [altered[name](picture) for picture in photos]


def sample(gan: HFGan, first: int, count: int, psi: float = 1.0, noise_mode: str = "const") -> SampleOutput:
    """Samples of the seeds from `first` on, of the first class of a model with classes."""
    label = 0 if gan.generator.config.c_dim else None
    return gan.sample(count, seed=first, truncation_psi=psi, label=label, noise_mode=noise_mode)


def mixed(gan: HFGan, first: int, count: int) -> list[Image]:
    """Samples with the later half of their layers from other samples."""
    one, other = (sample(gan, seed, count) for seed in (first, first + count))
    last = gan.generator.num_ws - 1
    return gan.mix(one, other, f"{(last + 1) // 2}-{last}").images


def edited(gan: HFGan, first: int, count: int) -> list[Image]:
    """Samples, each moved along a direction of the model, one after the other."""
    out, directions = sample(gan, first, count), [*gan.directions]
    chosen = (directions[k % len(directions)] for k in range(count))
    return [gan.edit(out[k], {one: STRENGTH}).images[0] for k, one in enumerate(chosen)]


def jpeg(picture: Image) -> Image:
    """Saved as a JPEG, and read again."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=QUALITY)
    return open_image(buffer)


def halved(picture: Image) -> Image:
    """At half the size, and at its own again."""
    small = picture.resize((picture.width // 2, picture.height // 2), Resampling.LANCZOS)
    return small.resize(picture.size, Resampling.LANCZOS)


def cropped(picture: Image) -> Image:
    """Without a margin, half of CROPPED on each side, at its own size again."""
    edge = CROPPED / 2 * picture.width
    box = (edge, edge, picture.width - edge, picture.height - edge)
    return picture.resize(picture.size, Resampling.LANCZOS, box=box)


def judge(what: str, distances: list[float], photos: list[float], found: Calibration) -> dict[str, Any]:
    """A row: how well distances are told from those of untouched photos, and how many are said to be the model's."""
    scores = torch.tensor([*distances, *photos], dtype=torch.float64)
    auc = roc_auc(-scores, torch.arange(len(scores)) < len(distances))
    told = [weigh(distance, found)[1][0] >= ENOUGH for distance in distances]
    median = float(f"{torch.tensor(distances).median().item():.{DIGITS}g}")
    return {"what": what, "num": len(told), "auc": round(auc, 4), "told": sum(told), "median": median}


def line(row: dict[str, Any]) -> str:
    """A row as text."""
    return f"{row['what']:<32}{row['auc']:>8.3f}{row['told']:>6} of {row['num']}{row['median']:>10.4f}"


def table(found: Calibration) -> str:
    """The calibration as a table of Markdown, for a card."""
    head = "| pictures | AUC against photos | said to be this model's | median distance |"
    lines = [head, "|---|---|---|---|"]
    for row in found.robustness:
        auc = "" if row["what"] == "photos" else f"{row['auc']:.3f}"
        lines.append(f"| {row['what']} | {auc} | {row['told']} of {row['num']} | {row['median']:.3g} |")
    return "\n".join(lines)
