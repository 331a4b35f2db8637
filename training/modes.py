"""Stage `modes`: cluster what a generator draws, and save the model with its modes (arXiv 2202.12211).

Writes `out/model`, the same model with its modes; `out/modes.png`, their centers, largest first; and
`out/modes.json`. What is written depends on the model and the flags alone, but for the milliseconds.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import run
import torch
from PIL import Image, ImageDraw
from run import flag
from torch import Tensor

from hfgan import HFGan, ModeBank, StyleGAN2Generator
from hfgan.images import grid, on_white, save_png, to_image, to_pil
from hfgan.memory import net_at_once
from hfgan.metrics import extract_features
from hfgan.models.perceptual import load_perceptual
from hfgan.modes import PerceptualModes, fit_modes, make_bank, nearest_mode, read_centers
from hfgan.parts import PARTS
from hfgan.sampling import broadcast
from hfgan.storage import write_json

BATCH = 50  # images drawn at once, at most
ROWS = 4096  # z mapped at once
COMPARED, FEWEST = 2000, 100  # samples on which the two assignments are compared; of large pictures, fewer
COMPARED_PIXELS = COMPARED * 128**2  # in all of them, at most
SHEET = 256  # centers shown at most
TILE, STRIP = 64, 14  # px: least side of a center on the sheet, and height of the line below it
FIT, COMPARE = range(2)  # what samples are for


@dataclass(frozen=True)
class Config:
    """Find the modes of a model."""

    model: str = field(metadata={"help": "bundled name, folder or Hub id"})
    out: str = field(metadata={"help": "folder to write; the model with its modes goes to its model/"})
    num_modes: int = flag(64, "clusters")
    samples: int = flag(60_000, "w that are drawn and clustered")
    space: Literal["w", "whitened", "features"] = flag("w", "where clusters are sought; whitened: w in deviations")
    features: str | None = flag(None, "network of the space features, as in evaluate; default: what ships with us")
    assignment: Literal["l2", "perceptual"] = flag("l2", "how the model finds the nearest mode")
    import_centers: str | None = flag(None, ".npy, folder of .npy or .safetensors with centers in place of new ones")
    seed: int = flag(0, "decides which w are drawn and how clusters begin")


def main(config: Config) -> None:
    """Fit, or import, and write; nothing is done again where it is all there."""
    check(config)
    if (Path(config.out) / "model").resolve() == Path(config.model).resolve():
        raise run.UserError(f"--out {config.out} would overwrite the model that is read: give another folder")
    folder = run.RunFolder(config.out, config, set(), main_process=True).path
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with run.library_errors():
        gan = HFGan.from_pretrained(config.model, device=device)
        imported = read_centers(config.import_centers) if config.import_centers else None
        marks = fingerprints(gan, imported)
        if is_done(folder / "modes.json", marks):
            print(f"{folder} is complete")
            return
        w = draw_w(gan.generator, config.samples, config.seed, FIT)
        centers = find_centers(config, gan.generator, w) if imported is None else imported
        bank = make_bank(gan.generator, w, centers, space=config.space, assignment=config.assignment)
    (folder / "modes.json").unlink(missing_ok=True)  # what it tells of is written over from here on
    gan.register_modules(modes=bank)
    publish(gan, folder / "model")
    save_png(sheet(bank), folder / "modes.png", overwrite=True)
    found = describe(bank) | compare(gan.generator, bank, config.seed)
    print("\n".join(f"{name}: {value:g}" for name, value in found.items()))
    told = {"modes": bank.fingerprint(), "counts": bank.counts.tolist(), "settings": asdict(config)}
    write_json(folder / "modes.json", found | marks | told)


def check(config: Config) -> None:
    """Say at once which flag is wrong or would be ignored."""
    for name in ("samples", "num_modes"):
        if (count := getattr(config, name)) < 1:
            raise run.UserError(f"--{name.replace('_', '-')} is {count}: give 1 or more")
    if config.import_centers and config.num_modes != Config.num_modes:
        raise run.UserError("--num-modes is about clusters to be found: leave it out with --import-centers")
    if config.import_centers and config.space == "features":
        raise run.UserError("--space features is about clusters to be found: leave it out with --import-centers")


def fingerprints(gan: HFGan, imported: Tensor | None) -> dict[str, str | None]:
    """What is worked on, apart from the settings: each part but earlier modes, and imported centers (k, w_dim)."""
    parts = {name: gan.parts[name].fingerprint() if name in gan.parts else None for name in PARTS if name != "modes"}
    return parts | {"imported": None if imported is None else hashlib.sha256(imported.numpy().tobytes()).hexdigest()}


def is_done(path: Path, marks: dict[str, str | None]) -> bool:
    """Whether what has these fingerprints has been worked on to the end; the settings are the folder's."""
    return path.exists() and marks.items() <= json.loads(path.read_text()).items()


def publish(gan: HFGan, path: Path) -> None:
    """Write the model, then remove the parts that only an earlier one had."""
    run.publish(gan, path)
    for name in PARTS.keys() - gan.parts.keys():
        shutil.rmtree(path / name, ignore_errors=True)


# --- samples -----------------------------------------------------------------------------------------------


@torch.no_grad()
def draw_w(generator: StyleGAN2Generator, num: int, *key: int) -> Tensor:
    """w (num, w_dim) on the CPU, decided by `key`; a model with classes draws them in turn."""
    # not the z of seeds: weights that were initialised from one of them answer to it
    source, classes = run.random_source(*key), generator.config.c_dim
    found = []
    for rows in torch.arange(num).split(ROWS):
        z = torch.randn(len(rows), generator.config.z_dim, generator=source).to(generator.device)
        c = torch.eye(classes, device=generator.device)[rows % classes] if classes else None
        found.append(generator.mapping(z, c).cpu())
    return torch.cat(found)


@torch.no_grad()
def draw_images(generator: StyleGAN2Generator, w: Tensor) -> Iterator[Tensor]:
    """Images (n, c, r, r) of w (n, w_dim), batch by batch."""
    for rows in w.split(net_at_once(generator, BATCH)):
        yield generator.synthesis(broadcast(rows.to(generator.device), generator.num_ws), "const")


def find_centers(config: Config, generator: StyleGAN2Generator, w: Tensor) -> Tensor:
    """Centers (k, w_dim) of clusters of the samples w (n, w_dim)."""
    features = None
    if config.space == "features":
        features = embed(generator, w, config.features)
    return fit_modes(w, config.num_modes, space=config.space, features=features, seed=config.seed)


def embed(generator: StyleGAN2Generator, w: Tensor, source: str | None) -> Tensor:
    """Pooled embeddings (n, d) of the images of w (n, w_dim), by a perceptual network."""
    net = load_perceptual(source).to(generator.device)
    return extract_features((on_white(images) for images in draw_images(generator, w)), net.embed)


# --- what was found ----------------------------------------------------------------------------------------


def describe(bank: ModeBank) -> dict[str, float]:
    """How many modes there are and how evenly samples fall to them."""
    shares = bank.counts / bank.counts.sum()
    return {
        "num_modes": len(shares), "samples": bank.counts.sum().item(), "entropy_bits": entropy(shares),
        "largest_share": shares.max().item(), "smallest_share": shares.min().item(),
        "temperature": bank.temperature.item(),
    }  # fmt: skip


def entropy(shares: Tensor) -> float:
    """Entropy of shares (k,) [bits]."""
    bits = torch.special.xlogy(shares, shares).sum().item() / math.log(2)
    return 0 - bits  # and not -bits, which is -0 for a single share


@torch.no_grad()
def compare(generator: StyleGAN2Generator, bank: ModeBank, seed: int) -> dict[str, float]:
    """Agreement of perceptual and L2 assignment on new samples, how many these are, and the cost of each per sample,
    drawing included."""
    count = min(COMPARED, max(COMPARED_PIXELS // generator.config.resolution**2, FEWEST))
    w, bank = draw_w(generator, count, seed, COMPARE), bank.to(generator.device)
    seen = PerceptualModes(bank, load_perceptual().to(generator.device))
    begin = time.perf_counter()
    l2 = nearest_mode(w.to(generator.device), bank).cpu()
    middle = time.perf_counter()
    perceptual = torch.cat([seen.nearest(images).cpu() for images in draw_images(generator, w)])
    end = time.perf_counter()
    return {
        "compared": count,
        "agreement": (l2 == perceptual).double().mean().item(),
        "l2_ms_per_sample": 1000 * (middle - begin) / count,
        "perceptual_ms_per_sample": 1000 * (end - middle) / count,
    }


def sheet(bank: ModeBank) -> Image.Image:
    """The centers of the largest modes, each with its index and count below."""
    pictures = to_pil(to_image(bank.previews[:SHEET].cpu()))
    return grid([tile(*each) for each in zip(pictures, range(SHEET), bank.counts.tolist(), strict=False)])


def tile(picture: Image.Image, mode: int, count: int) -> Image.Image:
    """A picture above a line that says which mode it is and how many samples it has."""
    side = max(picture.width, TILE)
    below = Image.new("RGB", (side, side + STRIP), "white")
    below.paste(picture.convert("RGB").resize((side, side), Image.Resampling.NEAREST))
    ImageDraw.Draw(below).text((2, side + 1), f"{mode}: {count}", "black")
    return below
