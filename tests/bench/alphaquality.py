"""How good alpha is, against truth that training never saw: of drawn pictures by a judge, of photos by exact masks.

The judge is a matting network that was taught with the truth of the training photos; it is the supervised upper bound
for photos, and it stands in for the truth of drawn pictures, which have none. Run it first:

    python tests/bench/alphaquality.py judge --photos T.zip --truth T-truth.zip --out runs/judge
    python tests/bench/alphaquality.py drawn --judge runs/judge --models runs/alpha-*/model
    python tests/bench/alphaquality.py photos --judge runs/judge --models runs/matting-*/model --photos V.zip \\
        --truth V-truth.zip
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from hfgan import HFGan, MattingNetwork, metrics, segmentation
from hfgan.images import to_image, to_pil, to_tensor

sys.path.insert(0, str(Path(__file__).parents[2] / "training"))

SIZE = 64  # px of what the judge sees
BATCH = 32
JUDGE_STEPS = 1500


# ---------------------------------------------------------------- truth


def read_truth(photos: str, truth: str, limit: int | None = None) -> tuple[list[Image.Image], Tensor, list[str]]:
    """Photos, their masks (n, 1, 128, 128) and their kinds of outlier, "" for none."""
    with zipfile.ZipFile(truth) as archive:
        rows = list(csv.DictReader(io.TextIOWrapper(archive.open("metadata.csv"))))[:limit]
        bits = np.load(io.BytesIO(archive.read("masks128.npz")))["bits"][: len(rows)]
    masks = torch.from_numpy(np.unpackbits(bits, axis=1).reshape(-1, 1, 128, 128)).float()
    with zipfile.ZipFile(photos) as archive:
        names = {Path(name).name: name for name in archive.namelist()}
        pictures = [Image.open(io.BytesIO(archive.read(names[row["file"]]))).convert("RGB") for row in rows]
    return pictures, masks, [row["outlier"] for row in rows]


def small(pictures: list[Image.Image]) -> Tensor:
    """Pictures as the judge sees them, uint8 (n, 3, SIZE, SIZE)."""
    shrunk = [np.array(picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS)) for picture in pictures]
    return torch.from_numpy(np.stack(shrunk)).permute(0, 3, 1, 2)


def judge(options: argparse.Namespace) -> None:
    """Teach a matting network with the truth."""
    from pairs import recolour, spoil

    pictures, masks, _ = read_truth(options.photos, options.truth)
    images, alpha = small(pictures), F.avg_pool2d(masks, masks.shape[-1] // SIZE)
    torch.manual_seed(options.seed)
    source = torch.Generator().manual_seed(options.seed)
    net = MattingNetwork(resolution=SIZE)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.002, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.002, total_steps=JUDGE_STEPS)
    for step in range(JUDGE_STEPS):
        rows = torch.randint(len(images), (BATCH,), generator=source)
        image, wanted = to_image(images[rows]), alpha[rows]
        if step % 2:
            image, wanted = image.flip(3), wanted.flip(3)
        loss = F.binary_cross_entropy_with_logits(net(spoil(recolour(image, source), source)), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    net.save_pretrained(options.out)


# ---------------------------------------------------------------- numbers


def scores(found: Tensor, true: Tensor) -> dict[str, float]:
    """All numbers of alpha (n, 1, h, w) against the truth (n, 1, h, w)."""
    a, b = found > 0.5, true > 0.5
    iou = metrics.mean_iou(a, b)
    areas = torch.stack([found.mean((1, 2, 3)), true.mean((1, 2, 3))])
    correlation = torch.corrcoef(areas)[0, 1].nan_to_num().item()
    half = 1.96 * iou.std().item() / len(iou) ** 0.5
    return {
        "miou": iou.mean().item(), "ci95": half, "worst_tenth": iou.quantile(0.1).item(),
        "boundary": metrics.boundary_iou(a, b).mean().item(),
        "band_mae": metrics.band_error(found, true).mean().item(),
        "mae": (found - true).abs().mean().item(), "area_r": correlation,
        "collapsed": float(not 0.02 < areas[0].mean().item() < 0.98),
    }  # fmt: skip


def refined(alpha: Tensor, image: Tensor) -> Tensor:
    """Alpha (n, 1, h, w) made to follow the edges of images (n, 3, h, w)."""
    return torch.cat([segmentation.refine(a, i) for a, i in zip(alpha.split(1), image.split(1), strict=True)])


def grabcut(image: Tensor) -> Tensor:
    """OpenCV's GrabCut from a rectangle 8 % inside the border, of images (n, 3, h, w)."""
    import cv2

    found = []
    for picture in to_pil(image):
        pixels, mask = np.array(picture)[..., ::-1].copy(), np.zeros(picture.size[::-1], np.uint8)
        edge = round(0.08 * picture.width)
        inside = (edge, edge, picture.width - 2 * edge, picture.height - 2 * edge)
        cv2.grabCut(pixels, mask, inside, np.zeros((1, 65)), np.zeros((1, 65)), 5, cv2.GC_INIT_WITH_RECT)
        found.append(torch.from_numpy((mask % 2).astype(np.float32))[None])
    return torch.stack(found)


def without_labels(image: Tensor, true: Tensor) -> dict[str, Tensor]:
    """Baselines that learn nothing: everything, the mean shape of the other pictures (which uses truth), GrabCut."""
    mean = (true.sum(0, keepdim=True) - true) / (len(true) - 1)
    return {"all foreground": torch.ones_like(true), "mean shape": mean, "GrabCut": grabcut(image)}


# ---------------------------------------------------------------- drawn pictures


@torch.no_grad()
def drawn(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Alpha networks on samples, by the judge."""
    from bootstrap import Votes, observe

    net, table = MattingNetwork.from_pretrained(options.judge), {}
    for index, folder in enumerate(options.models):
        gan = HFGan.from_pretrained(folder, dtype="float32")
        generator = gan.generator
        out = gan.sample(options.samples, seed=options.seed, truncation_psi=options.psi)
        image = torch.cat([generator.synthesis(w) for w in out.w_plus.split(BATCH)]).clamp(-1, 1)
        true = torch.cat([net(rows) for rows in image.split(BATCH)]).sigmoid()
        if index == 0:
            table |= {name: scores(found, true) for name, found in without_labels(image, true).items()}
            for seed in range(3) if options.votes else ():
                w = generator.mapping(torch.randn(512, generator.config.z_dim,
                                                  generator=torch.Generator().manual_seed(seed)))  # fmt: skip
                votes = Votes.fit(generator, w, seed)
                rows = [votes(observe(generator, w[:, 0])) for w in out.w_plus.split(BATCH)]
                found = F.interpolate(torch.cat(rows), size=image.shape[2:], mode="bilinear")
                table[f"votes, seed {seed}"] = scores(found, true)
        alpha = torch.cat([gan.alpha(generator, w)[1] for w in out.w_plus.split(BATCH)]).sigmoid()
        table[folder] = scores(alpha, true)
        table[f"{folder} + refined"] = scores(refined(alpha, image), true)
    return table


# ---------------------------------------------------------------- photos


@torch.no_grad()
def photos(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Matting networks on photos, by exact masks, at the photos' own size."""
    pictures, true, kinds = read_truth(options.photos, options.truth)
    chosen = [k for k, kind in enumerate(kinds) if options.all or kind in ("", "occluder")]
    pictures, true = [pictures[k] for k in chosen], true[chosen]
    image = torch.cat([to_tensor(picture) for picture in pictures])
    table = {name: scores(found, true) for name, found in without_labels(image, true).items()}
    nets = {folder: HFGan.from_pretrained(folder, dtype="float32").part("matting") for folder in options.models}
    nets["supervised"] = MattingNetwork.from_pretrained(options.judge)
    for name, net in nets.items():
        alpha = F.interpolate(torch.cat([net.see(picture) for picture in pictures]), size=true.shape[2:],
                              mode="bilinear", align_corners=False)  # fmt: skip
        table[name] = scores(alpha, true)
        table[f"{name} + refined"] = scores(refined(alpha, image), true)
    return table


def main() -> None:
    """Parse, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("judge", "drawn", "photos"))
    parser.add_argument("--judge", help="folder of the judge")
    parser.add_argument("--models", nargs="*", default=[], help="model folders")
    parser.add_argument("--photos", help=".zip")
    parser.add_argument("--truth", help=".zip of its masks, for measuring only")
    parser.add_argument("--all", action="store_true", help="outliers, too")
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--psi", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--votes", action="store_true", help="also the votes without a network")
    parser.add_argument("--out", help="of the judge, or .json of the table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "judge":
        judge(options)
        return
    table = drawn(options) if options.what == "drawn" else photos(options)
    for name, row in table.items():
        print(f"{name:<44}", "  ".join(f"{key} {value:.3f}" for key, value in row.items()))
    if options.out:
        Path(options.out).write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
