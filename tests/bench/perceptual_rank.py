"""Which distance needs no download and orders pairs of images as LPIPS-Alex does?

Spearman's rank correlation with LPIPS-Alex on held-out photos, per kind of pair and over all, of (A) the features of
a discriminator of ours, with equal layer weights and with the best ones in hindsight, an upper bound; (B) the
distilled network that ships with us; and for scale MobileNetV2's features and plain pixels. Speed beside it.

    python tests/bench/perceptual_rank.py --perceptual FOLDER --test ZIP... [--model NAME|FOLDER...] [--out JSON]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from hfgan import HFGan, StyleGAN2Discriminator
from hfgan.metrics import rank_correlation
from hfgan.models.perceptual import Perceptual, load_perceptual

sys.path.insert(0, str(Path(__file__).parents[2] / "training"))
from perceptual import KINDS, Photos
from run import random_source


class DiscriminatorDistance(Perceptual):
    """Candidate A: unit-normalised activations of every block of a discriminator."""

    def __init__(self, discriminator: StyleGAN2Discriminator) -> None:
        self.discriminator = discriminator.requires_grad_(False)

    def features(self, images: Tensor) -> list[Tensor]:
        """Maps of images (n,3,h,w), resized to the discriminator's resolution."""
        size = self.discriminator.config.resolution
        small = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        return self.discriminator.features(small)


class Pixels(Perceptual):
    """Mean squared difference of pixels."""

    def features(self, images: Tensor) -> list[Tensor]:
        """The images themselves."""
        return [images]

    def weighted_units(self, features: list[Tensor]) -> list[Tensor]:
        """Not normalised."""
        return features


def layer_terms(net: Perceptual, a: Tensor, b: Tensor) -> Tensor:
    """What each layer adds to the distance: (n, layers)."""
    maps = net.distance_maps(net.features(a), net.features(b))
    return torch.stack([m.mean((1, 2, 3)) for m in maps], dim=1)


def best_weights(terms: Tensor, wanted: Tensor) -> Tensor:
    """Non-negative layer weights with the least error of log distance, by gradient descent: (layers,)."""
    raw = (wanted.mean() / terms.mean(0) / terms.shape[1]).log().requires_grad_()
    optimizer = torch.optim.Adam([raw], lr=0.05)
    for _ in range(500):
        loss = ((terms @ raw.exp() + 1e-6).log() - (wanted + 1e-6).log()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return raw.detach().exp()


def correlations(found: Tensor, wanted: Tensor) -> dict[str, float]:
    """Spearman per kind, for rows in the order of KINDS, and over all of them."""
    parts = zip(KINDS, found.chunk(len(KINDS)), wanted.chunk(len(KINDS)), strict=True)
    out = {kind: rank_correlation(x, y) for kind, x, y in parts}
    return {k: round(v, 3) for k, v in (out | {"all": rank_correlation(found, wanted)}).items()}


def speed(nets: dict[str, Perceptual], size: int, rounds: int = 5) -> dict[str, float]:
    """Pairs per second with the gradient to one image, batch 32, median of alternating rounds."""
    a, b = torch.rand(2, 32, 3, size, size) * 2 - 1
    times: dict[str, list[float]] = {name: [] for name in nets}
    for _ in range(rounds):
        for name, net in nets.items():
            begin = time.perf_counter()
            net.distance(a.requires_grad_(), b).sum().backward()
            times[name].append(time.perf_counter() - begin)
    return {name: round(32 / sorted(t)[rounds // 2], 1) for name, t in times.items()}


@torch.no_grad()
def measure(nets: dict[str, Perceptual], teacher: Perceptual, photos: Photos, size: int, per_kind: int) -> dict:
    """Correlations of every candidate at one size."""
    drawn = [photos.pairs(kind, per_kind, size, random_source(1, i)) for i, kind in enumerate(KINDS)]
    wanted = torch.cat([teacher.distance(a, b) for a, b in drawn])
    out = {}
    for name, net in nets.items():
        terms = torch.cat([layer_terms(net, a, b) for a, b in drawn])
        out[name] = correlations(terms.sum(1), wanted)
        if isinstance(net, DiscriminatorDistance):
            with torch.enable_grad():
                weights = best_weights(terms, wanted)
            out[f"{name}, best layer weights"] = correlations(terms @ weights, wanted)
    return out


def main() -> None:
    """Parse the flags, measure at 64 and 128 px, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--perceptual", type=Path, required=True, help="folder with LPIPS-Alex and MobileNetV2")
    parser.add_argument("--test", nargs="+", required=True, help="held-out photos, one source per set")
    parser.add_argument("--model", nargs="*", default=[], help="models with a discriminator")
    parser.add_argument("--per-kind", type=int, default=400)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    teacher = load_perceptual(options.perceptual / "lpips_alex_fp16.safetensors")
    mobilenet = load_perceptual(options.perceptual / "mobilenet_v2_imagenet_fp16.safetensors")
    nets: dict[str, Perceptual] = {"B: distilled": load_perceptual()}
    for name in options.model:
        discriminator = HFGan.from_pretrained(name).discriminator
        nets[f"A: discriminator of {Path(name).parent.name or name}"] = DiscriminatorDistance(discriminator)
    nets |= {"MobileNetV2": mobilenet, "pixels": Pixels()}
    photos = Photos(options.test, 1000)
    result = {"per_kind": options.per_kind, "sets": [Path(s).name for s in options.test]}
    for size in (64, 128):
        result[f"{size} px"] = measure(nets, teacher, photos, size, options.per_kind)
    result["pairs per second, 64 px"] = speed({"LPIPS-Alex": teacher} | nets, 64)
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
