"""What multi-modal truncation keeps that global truncation loses, and whether modes mean something.

Fidelity and variety over psi, toward the mean of all and toward modes found by L2 and perceptually, against held-out
photos with known classes: precision, recall, density, coverage; the share of classes that are still drawn and the
entropy of classes, an image being of the class of most of its 5 nearest photos. Then the normalised mutual
information of mode and class for as many modes fitted in w, in whitened w and in features.

    python tests/bench/multimodal.py --model runs/x/modes/model --features mobilenet_v2.safetensors \\
        --data hfaces128-test.zip --truth hfaces128-test-truth.zip --column style --outliers outlier
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor
from torch.nn import functional as F

from hfgan import HFGan, ModeBank, StyleGAN2Generator
from hfgan.data import open_photos
from hfgan.metrics import compare_features, distances, extract_features
from hfgan.models.banks import SPACES
from hfgan.models.perceptual import Perceptual, load_perceptual
from hfgan.modes import PerceptualModes, fit_modes, make_bank, nearest_mode

sys.path.insert(0, str(Path(__file__).parents[2] / "training"))
from evaluate import batches
from modes import draw_images, draw_w, embed, entropy
from outliers import read_truth

NEIGHBOURS = 5  # photos that vote on a class
PRESENT = 0.1  # of a class's share among photos, at which it still counts as drawn
JUDGE, FIT = 2, 3  # what samples are for
METRICS = ("precision", "recall", "density", "coverage", "classes_present", "class_entropy")

Row = dict[str, float | str]


class Judge:
    """The photos' features and classes."""

    def __init__(self, generator: StyleGAN2Generator, options: argparse.Namespace) -> None:
        self.net = load_perceptual(options.features)
        named = read_truth(options.truth, options.column)
        if options.outliers:
            outliers = read_truth(options.truth, options.outliers)
            named = {name: label for name, label in named.items() if not outliers[name]}
        config = generator.config
        photos = open_photos(options.data, config.resolution, img_channels=config.img_channels, kept=named)
        self.classes = sorted(set(named.values()))
        self.labels = torch.tensor([self.classes.index(named[name]) for name in photos.ids])
        self.real = extract_features(batches(photos), self.net.embed)

    def classify(self, fake: Tensor) -> Tensor:
        """Classes (n,) of drawn features (n, d): most of the nearest photos, and of equals the nearest one's."""
        nearest = self.labels[distances(fake, self.real).topk(NEIGHBOURS, largest=False).indices]  # (n, 5)
        votes = F.one_hot(nearest, len(self.classes)).double()
        return (votes.sum(1) + votes[:, 0] / 2).argmax(1)

    def score(self, fake: Tensor) -> dict[str, float]:
        """METRICS of drawn features (n, d)."""
        found = compare_features(self.real, fake, generator=torch.Generator().manual_seed(0))
        drawn, photographed = self.shares(self.classify(fake)), self.shares(self.labels)
        present = (drawn >= PRESENT * photographed).double().mean().item()
        return found | {"classes_present": present, "class_entropy": entropy(drawn)}

    def shares(self, labels: Tensor) -> Tensor:
        """Share (classes,) of each class in labels (n,)."""
        return labels.bincount(minlength=len(self.classes)).double() / len(labels)


def truncation_rows(gan: HFGan, judge: Judge, seen: PerceptualModes, w: Tensor, psis: list[float]) -> list[Row]:
    """METRICS of the images of the same w (n, w_dim) for every psi and center."""
    centers, bank = gan.modes.centers, gan.modes
    looks = torch.cat([seen.nearest(images) for images in draw_images(gan.generator, w)])
    toward = {"global": gan.generator.mapping.w_avg.expand_as(w), "modes, l2": centers[nearest_mode(w, bank)],
              "modes, looks": centers[looks]}  # fmt: skip
    rows: list[Row] = []
    for psi in psis:
        for name, center in toward.items():
            if psi == 1 and name != "global":  # all the same there
                rows.append(rows[-1] | {"truncation": name})
                continue
            fake = extract_features(draw_images(gan.generator, torch.lerp(center, w, psi)), judge.net.embed)
            rows.append({"truncation": name, "psi": psi, **judge.score(fake)})
    return rows


def meaning_rows(
    generator: StyleGAN2Generator, judge: Judge, net: Perceptual, w: Tensor, fitted: Tensor, num_modes: int
) -> list[Row]:
    """Normalised mutual information of class and mode of the images of w, for modes fitted to other w."""
    fake = extract_features(draw_images(generator, w), judge.net.embed)
    classes, rows = judge.classify(fake).numpy(), []
    for space in SPACES:
        features = embed(generator, fitted, None) if space == "features" else None
        bank = make_bank(generator, fitted, fit_modes(fitted, num_modes, space=space, features=features), space=space)
        rows.append({"space": space, **meaning(generator, bank, net, w, classes)})
    return rows


def meaning(
    generator: StyleGAN2Generator, bank: ModeBank, net: Perceptual, w: Tensor, classes: object
) -> dict[str, float]:
    """Of one bank, by both assignments."""
    seen = PerceptualModes(bank, net)
    looks = torch.cat([seen.nearest(images) for images in draw_images(generator, w)])
    found = {"l2": nearest_mode(w, bank), "perceptual": looks}
    return {name: float(normalized_mutual_info_score(classes, labels.numpy())) for name, labels in found.items()}


def table(rows: list[Row], columns: tuple[str, ...]) -> str:
    """Rows as text."""
    lines = ["".join(f"{column:>16}" for column in columns)]
    for row in rows:
        cells = (f"{row[c]:.3f}" if isinstance(row[c], float) else str(row[c]) for c in columns)
        lines.append("".join(f"{cell:>16}" for cell in cells))
    return "\n".join(lines)


def plot(rows: list[Row], path: Path) -> None:
    """Recall and coverage over precision, and class entropy over psi, one line for each truncation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (recall, coverage, classes) = pyplot.subplots(1, 3, figsize=(13, 4))
    for name in dict.fromkeys(row["truncation"] for row in rows):
        own = [row for row in rows if row["truncation"] == name]
        for axes, metric in ((recall, "recall"), (coverage, "coverage")):
            axes.plot(*zip(*((r["precision"], r[metric]) for r in own), strict=True), marker="o", label=name)
            axes.set(xlabel="precision", ylabel=metric, title="psi beside each point")
            for row in own:
                axes.annotate(f"{row['psi']:g}", (row["precision"], row[metric]), fontsize=8)
        classes.plot(*zip(*((r["psi"], r["class_entropy"]) for r in own), strict=True), marker="o", label=name)
    classes.set(xlabel="psi", ylabel="entropy of classes [bits]")
    recall.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=90)


@torch.no_grad()
def main() -> None:
    """Parse the flags, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a model with modes")
    parser.add_argument("--data", type=Path, required=True, help="held-out photos")
    parser.add_argument("--truth", type=Path, required=True, help="zip with their metadata.csv; for evaluation only")
    parser.add_argument("--column", required=True, help="of the metadata: the class")
    parser.add_argument("--outliers", help="column of the metadata: photos that have anything there are left out")
    parser.add_argument("--features", required=True, help="MobileNetV2 weights: judge of likeness and class")
    parser.add_argument("--num", type=int, default=2000, help="images per cell (%(default)s)")
    parser.add_argument("--fitted", type=int, default=20_000, help="w that the spaces are clustered on (%(default)s)")
    parser.add_argument("--psi", type=float, nargs="+", default=[0.3, 0.5, 0.7, 1.0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    gan, net = HFGan.from_pretrained(options.model), load_perceptual()
    bank, judge = gan.part("modes"), Judge(gan.generator, options)
    w = draw_w(gan.generator, options.num, options.seed, JUDGE)
    rows = truncation_rows(gan, judge, PerceptualModes(bank, net), w, options.psi)
    spread = f"entropy {entropy(judge.shares(judge.labels)):.3f} bits"
    print(f"{len(judge.real)} photos of {len(judge.classes)} classes, {spread}; {options.num} images per row")
    print(table(rows, ("truncation", "psi", *METRICS)))
    fitted = draw_w(gan.generator, options.fitted, options.seed, FIT)
    spaces = meaning_rows(gan.generator, judge, net, w, fitted, len(bank.counts))
    print(f"\nnormalised mutual information of class and mode\n{table(spaces, ('space', 'l2', 'perceptual'))}")
    if options.json:
        told = {name: str(value) for name, value in vars(options).items() if name not in ("json", "plot")}
        options.json.write_text(json.dumps({"options": told, "truncation": rows, "meaning": spaces}, indent=1) + "\n")
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
