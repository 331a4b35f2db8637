"""Stage `evaluate`: how good and how varied a model's images are, beside what photos and noise score.

Every row of metrics.json carries the protocol that it depends on. With MobileNetV2 features the Frechet distance is
FD-MNv2; the name FID is only used for Inception features, computed by torch-fidelity where it is installed.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import run
import torch
from run import flag
from torch import Tensor

from hfgan import HFGan, StyleGAN2Generator
from hfgan.data import PhotoDataset, open_photos
from hfgan.memory import at_once, draw_in_parts, in_parts, net_at_once
from hfgan.metrics import (
    Protocol,
    as_images,
    compare_features,
    extract_features,
    mean_pair_distance,
    path_length,
    resize,
)
from hfgan.models.perceptual import MobileNetV2, file_sha256, load_perceptual
from hfgan.sampling import broadcast, latents_from_seeds
from hfgan.storage import write_json

LPIPS_SIZE = 64  # px: smaller images are enlarged to it
BATCH = 50  # images per forward pass, at most
DIVERSE = 1000  # images whose diversity is measured
Row = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Measure models against photos that they were not trained on."""

    model: tuple[str, ...] = field(metadata={"help": "bundled names, folders or Hub ids"})
    data: str = field(metadata={"help": "held-out photos: folder, .zip or Hub id"})
    features: str | None = flag(None, "MobileNetV2 weights; default: what ships with us")
    lpips: str | None = flag(None, "weights for diversity and PPL; default as above")
    floor: str | None = flag(None, "other photos, scored like a model; default: one half of --data")
    num: int = flag(5000, "images per model and psi")
    psi: tuple[float, ...] = flag((1.0, 0.7), "truncations")
    seed: int = flag(0, "of the first image; the others follow")
    feature_size: int = flag(128, "size at which features are taken [pixels]")
    ppl_paths: int = flag(500, "paths of the perceptual path length; 0: leave it out")
    fid: bool = flag(False, "also the real FID, by the package torch-fidelity")
    out: str = flag("metrics.json", "file to write")


def main(config: Config) -> None:
    """Score photos, noise and every model; write `config.out` and print a table."""
    if config.fid and importlib.util.find_spec("torch_fidelity") is None:
        raise run.UserError("--fid needs the package torch-fidelity: pip install torch-fidelity")
    check(config)
    with run.library_errors():
        evaluate(config)


def check(config: Config) -> None:
    """Say at once what would fail later, or measure nonsense."""
    least = {"num": 2, "seed": 0, "feature_size": 1, "ppl_paths": 0}
    for name, bound in least.items():
        if getattr(config, name) < bound:
            given = f"--{name.replace('_', '-')} is {getattr(config, name)}"
            raise run.UserError(f"{given}: give {bound} or more")
    if not all(math.isfinite(psi) for psi in config.psi):
        raise run.UserError(f"--psi is {config.psi}: give finite numbers")
    Path(config.out).parent.mkdir(parents=True, exist_ok=True)


def evaluate(config: Config) -> None:
    """Measure, print and write."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    models = [(label(name), HFGan.from_pretrained(name, device=device).generator) for name in config.model]
    shapes = {(g.config.resolution, g.config.img_channels) for _, g in models}
    if len(shapes) > 1:
        raise run.UserError(
            f"the models differ in resolution or channels ({sorted(shapes)}): evaluate them one by one"
        )
    judge = Judge(config, *shapes.pop(), device)
    rows = [judge.floor(), judge.noise()]
    for name, generator in models:
        rows += [judge.model(name, generator, psi) for psi in config.psi]
    print(f"fd: {judge.distance_name}")
    print(table(rows))
    write_json(Path(config.out), {"feature_distance": judge.distance_name, "rows": rows})


def label(model: str) -> str:
    """The end of a path, enough to tell runs apart: `runs/a/model` is a/model."""
    return "/".join(Path(model).parts[-2:])


class Judge:
    """Features of the held-out photos, and everything measured against them."""

    def __init__(self, config: Config, resolution: int, img_channels: int, device: str) -> None:
        self.config, self.resolution, self.img_channels, self.device = config, resolution, img_channels, device
        self.net = load_perceptual(config.features).to(device)
        self.lpips = load_perceptual(config.lpips).to(device)
        self.photos = self.open(config.data)
        self.real = self.features(batches(self.photos))
        kind = type(self.net).__name__
        self.distance_name = "FD-MNv2" if isinstance(self.net, MobileNetV2) else f"FD-{kind}"
        self.weights = file_sha256(config.features) if kind == "MobileNetV2" else self.net.fingerprint()

    def open(self, source: str) -> PhotoDataset:
        """Photos as the model was shown them in training: centre square, same resolution."""
        return open_photos(source, self.resolution, img_channels=self.img_channels)

    def features(self, images: Iterator[Tensor]) -> Tensor:
        """(n,d) of batches of images (n,c,r,r)."""
        return extract_features(images, self.net.embed, self.config.feature_size)

    def floor(self) -> Row:
        """Photos against photos: what no model can be expected to beat."""
        if self.config.floor:
            photos = self.open(self.config.floor)
            chosen = torch.randperm(len(photos), generator=self.rng())[: self.config.num]
            return self.row(f"photos ({label(self.config.floor)})", self.features(batches(photos, chosen)), self.real)
        order = torch.randperm(len(self.real), generator=self.rng())
        one, other = self.real[order].chunk(2)
        return self.row("photos (halves)", one, other)

    def noise(self) -> Row:
        """Independent uniform pixels: what any model must beat."""
        rng, shape = self.rng(), (self.img_channels, self.resolution, self.resolution)
        sizes = [len(part) for part in torch.arange(self.config.num).split(BATCH)]
        images = (torch.randint(256, (n, *shape), generator=rng, dtype=torch.uint8) for n in sizes)
        return self.row("noise", self.features(images), self.real)

    def model(self, name: str, generator: StyleGAN2Generator, psi: float) -> Row:
        """All metrics of a generator at one truncation."""
        config = self.config
        some: list[Tensor] = []
        images = keep(as_uint8(draw(generator, config.num, config.seed, psi)), some, DIVERSE)
        row = self.row(name, self.features(images), self.real, psi)
        if self.img_channels == 3:
            shown = torch.cat(some)[:DIVERSE]
            some.clear()  # a thousand large images are gigabytes
            row["lpips_diversity"] = mean_pair_distance(shown, self.levels, pairs=2000, generator=self.rng())
            if config.ppl_paths and psi == 1 and generator.mapping.c_dim == 0:
                row["ppl_w"] = self.path_length(generator)
        if config.fid:
            row["fid"] = inception_fid(Drawn(generator, config.num, config.seed, psi), self.photos)
        return row

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Perceptual distance (n,) of images (n,3,r,r) at their own size, at least LPIPS_SIZE; on the CPU."""
        size = max(self.resolution, LPIPS_SIZE)

        def between(a: Tensor, b: Tensor) -> Tensor:
            return self.lpips.distance(resize(a, size), resize(b, size)).cpu()

        return in_parts(between, at_once(len(a), size, 3, a.device), a, b)

    def levels(self, a: Tensor, b: Tensor) -> Tensor:
        """The same of uint8."""
        return self.distance(as_images(a), as_images(b))

    def path_length(self, generator: StyleGAN2Generator) -> float:
        """PPL in W, in fp32."""
        rng, dtype = self.rng(), generator.dtype
        z = torch.randn(2, self.config.ppl_paths, generator.config.z_dim, generator=rng).to(self.device)
        generator.set_compute_dtype(torch.float32)
        with torch.no_grad():
            start, end = generator.mapping(z[0]), generator.mapping(z[1])
        render = w_to_image(generator)
        found = path_length(render, start, end, torch.lerp, self.distance, generator=rng)
        generator.set_compute_dtype(dtype)
        return found

    def row(self, what: str, fake: Tensor, real: Tensor, psi: float | None = None) -> Row:
        """The metrics of features (n,d) against (m,d), with their protocol."""
        protocol = Protocol(
            feature_net=type(self.net).__name__, feature_weights=self.weights, feature_size=self.config.feature_size,
            resize="bicubic, antialiased", resolution=self.resolution, crop="centre square",
            real=Path(self.config.data).name, num_real=len(real), num_fake=len(fake), seed=self.config.seed,
            truncation_psi=psi,
        )  # fmt: skip
        found = compare_features(real, fake, generator=self.rng())
        return {"what": what, "truncation_psi": psi, **found, "protocol": dataclasses.asdict(protocol)}

    def rng(self) -> torch.Generator:
        """A fresh generator, so that no number depends on what was measured before it."""
        return torch.Generator().manual_seed(self.config.seed)


def batches(photos: PhotoDataset, chosen: Tensor | None = None) -> Iterator[Tensor]:
    """uint8 (n,c,r,r) of the chosen photos, or of all of them."""
    chosen = torch.arange(len(photos)) if chosen is None else chosen
    return (photos.batch(part.tolist()) for part in chosen.split(BATCH))


@torch.no_grad()
def draw(generator: StyleGAN2Generator, num: int, seed: int, psi: float) -> Iterator[Tensor]:
    """Images (n,c,r,r) of the seeds from `seed` on; a model with classes draws them in turn."""
    device = generator.mapping.w_avg.device
    for seeds in torch.arange(seed, seed + num).split(net_at_once(generator, BATCH)):
        z = latents_from_seeds(seeds.tolist(), generator.config.z_dim).to(device)
        yield generator(z, generator.mapping.labels_in_turn(seeds), truncation_psi=psi)


def as_uint8(images: Iterator[Tensor]) -> Iterator[Tensor]:
    """Images in [-1,1] on the 256 levels of a PNG, on the CPU."""
    return (((x.float() + 1) * 127.5).clamp(0, 255).round().byte().cpu() for x in images)


def keep(images: Iterator[Tensor], kept: list[Tensor], count: int) -> Iterator[Tensor]:
    """The same batches; those that hold the first `count` images are also put into `kept`."""
    seen = 0
    for batch in images:
        if seen < count:
            kept.append(batch)
        seen += len(batch)
        yield batch


def w_to_image(generator: StyleGAN2Generator) -> Callable[[Tensor], Tensor]:
    """w (n,w_dim) -> images (n,3,r,r) with constant noise."""
    return lambda w: draw_in_parts(generator, broadcast(w, generator.num_ws))


class Drawn(torch.utils.data.Dataset):
    """The images of the seeds from `seed` on as the data set of uint8 (3,r,r) that torch-fidelity asks for.

    They are drawn when they are asked for, one by one: thousands would fill the memory.
    """

    def __init__(self, generator: StyleGAN2Generator, num: int, seed: int, psi: float) -> None:
        self.generator, self.num, self.seed, self.psi = generator, num, seed, psi

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, index: int) -> Tensor:
        (image,) = as_uint8(draw(self.generator, 1, self.seed + index, self.psi))
        return image[0].expand(3, -1, -1)


class Shown(torch.utils.data.Dataset):
    """Photos as such a data set."""

    def __init__(self, photos: PhotoDataset) -> None:
        self.photos = photos

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> Tensor:
        return self.photos.batch([index])[0].expand(3, -1, -1)


def inception_fid(fake: Drawn, photos: PhotoDataset) -> float:
    """The real FID of drawn images against photos, by torch-fidelity and its Inception network."""
    from torch_fidelity import calculate_metrics

    sides = {"input1": fake, "input2": Shown(photos)}
    found = calculate_metrics(**sides, fid=True, cuda=torch.cuda.is_available(), verbose=False)
    return found["frechet_inception_distance"]


COLUMNS = ("fd", "kid", "precision", "recall", "density", "coverage", "lpips_diversity", "ppl_w", "fid")


def table(rows: list[Row]) -> str:
    """Rows as text, one column per metric that any row has."""
    columns = [c for c in COLUMNS if any(c in row for row in rows)]
    lines = [f"{'':<24}{'psi':>6}" + "".join(f"{c:>16}" for c in columns)]
    for row in rows:
        psi = "" if row["truncation_psi"] is None else f"{row['truncation_psi']:g}"
        cells = (f"{row[c]:.4g}" if c in row else "" for c in columns)
        lines.append(f"{row['what']:<24}{psi:>6}" + "".join(f"{cell:>16}" for cell in cells))
    return "\n".join(lines)
