"""Who judges edits: a small network on frozen MobileNetV2 maps, taught attributes of labelled photos.

For evaluation only: it reads `*-truth.zip`, and nothing that ships or is trained sees it or what it says. What a label
does not tell, such as whether a cap is a hat in another style, it does not know either; `teach` prints how well it
agrees with labels of photos that it was not taught with.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from hfgan.data import open_photos
from hfgan.metrics import as_images, resize, roc_auc
from hfgan.models.perceptual import MobileNetV2

SEEN = 128  # px at which pictures are shown to MobileNetV2
BINARY = ("smile", "glasses", "sunglasses", "beard", "hat", "long_hair", "hair_fun", "yaw_flip")
NUMBERS = ("skin_t", "angle", "scale")
COLORS = {"hair_hex": "hair", "cloth_hex": "cloth"}
LUMA = (0.299, 0.587, 0.114)
BATCH = 64

Row = dict[str, str]


# ---------------------------------------------------------------- labels


def read_rows(path: Path) -> dict[str, Row]:
    """File name to its row of metadata.csv in a truth zip, without outliers: they have no attributes."""
    with zipfile.ZipFile(path) as archive:
        rows = csv.DictReader(io.TextIOWrapper(archive.open("metadata.csv"), "utf-8"))
        return {row["file"]: row for row in rows if not row["outlier"]}


def attributes(rows: Iterable[Row]) -> dict[str, Tensor]:
    """Labels (n,), fp32, by name: bool ones as 0 and 1, others as they are; NaN where a row tells nothing."""
    rows = list(rows)
    found = {name: [_number(row[name]) for row in rows] for name in (*BINARY, *NUMBERS)}
    found["eyewear"] = [max(pair) for pair in zip(found["glasses"], found["sunglasses"], strict=True)]
    for style in sorted({row["style"] for row in rows}):
        found[f"style {style}"] = [float(row["style"] == style) for row in rows]
    for column, name in COLORS.items():
        rgb = [[int(row[column][k : k + 2], 16) / 255 for k in (0, 2, 4)] if row[column] else [float("nan")] * 3
               for row in rows]  # fmt: skip
        found[f"{name}_light"] = [sum(share * value for share, value in zip(LUMA, one, strict=True)) for one in rgb]
        found[f"{name}_warm"] = [one[0] - one[2] for one in rgb]
    return {name: torch.tensor(values, dtype=torch.float32) for name, values in found.items()}


def _number(text: str) -> float:
    return float(text) if text else float("nan")


def is_binary(name: str) -> bool:
    """Whether an attribute is there or is not."""
    return name in (*BINARY, "eyewear") or name.startswith("style ")


# ---------------------------------------------------------------- the network


class Judge(nn.Module):
    """Pictures to attributes: logits of those that are there or not, others in deviations from their mean.

    Args:
        names: k attributes.
    """

    def __init__(self, names: Iterable[str], features: str | Path) -> None:
        super().__init__()
        self.names = list(names)
        self.coarse = nn.Conv2d(24, 32, 3, stride=2, padding=1)  # 32 px to 16
        self.middle = nn.Conv2d(64, 64, 3, stride=2, padding=1)  # 16 px to 8
        self.fine = nn.Conv2d(160, 64, 3, padding=1)
        self.out = nn.Linear(64 * 8 * 8, len(self.names))
        self.trunk = [MobileNetV2.from_file(features)]  # in a list: it is frozen and not stored

    @torch.no_grad()
    def maps(self, images: Tensor) -> list[Tensor]:
        """What MobileNetV2 sees of images (n, c, r, r): (n, 24, 32, 32), (n, 32, 16, 16), (n, 96, 8, 8)."""
        return self.trunk[0].features(resize(as_images(images), SEEN))[:3]

    def head(self, maps: list[Tensor]) -> Tensor:
        """Maps to attributes (n, k)."""
        x = F.relu(self.coarse(maps[0]))
        x = F.relu(self.middle(torch.cat([x, maps[1]], 1)))
        x = F.relu(self.fine(torch.cat([x, maps[2]], 1)))
        return self.out(F.dropout(x.flatten(1), 0.3, self.training))

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:  # (n, c, r, r) -> (n, k)
        return torch.cat([self.head(self.maps(some)) for some in images.split(BATCH)])

    def save(self, path: Path) -> None:
        """Write what was learned as .safetensors."""
        save_file(self.state_dict(), path, {"names": json.dumps(self.names)})

    @classmethod
    def load(cls, path: Path, features: str | Path) -> Self:
        """Read what `save` wrote."""
        with safe_open(path, framework="pt") as file:
            found = cls(json.loads(file.metadata()["names"]), features)
            found.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        return found.eval()


# ---------------------------------------------------------------- taught


class Lesson:
    """Labelled photos as MobileNetV2 sees them."""

    def __init__(self, photos: Path, truth: Path, side: int, judge: Judge | None, features: str | Path) -> None:
        rows = read_rows(truth)
        found = open_photos(photos, side, img_channels=3, kept=rows)
        self.labels = attributes(rows[name] for name in found.ids)
        self.judge = judge or Judge(self.labels, features)
        seen = [[x.half() for x in self.judge.maps(found.batch(some.tolist()))]
                for some in torch.arange(len(found)).split(BATCH)]  # fmt: skip
        self.maps = [torch.cat(level) for level in zip(*seen, strict=True)]

    def batches(self, order: Tensor) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Rows and their maps."""
        for rows in order.split(BATCH):
            yield rows, [x[rows].float() for x in self.maps]

    def say(self) -> Tensor:
        """What the judge makes of all of them: (n, k)."""
        self.judge.eval()
        with torch.no_grad():
            return torch.cat([self.judge.head(maps) for _, maps in self.batches(torch.arange(len(self.maps[0])))])


def learn(lesson: Lesson, epochs: int, seed: int = 0) -> None:
    """Teach the judge: cross-entropy for what is there or not, squares for deviations; unknown labels do not count."""
    judge, rng = lesson.judge, torch.Generator().manual_seed(seed)
    binary = torch.tensor([is_binary(name) for name in judge.names])
    wanted = torch.stack([lesson.labels[name] if is_binary(name) else standardise(lesson.labels[name])
                          for name in judge.names], 1)  # fmt: skip
    known, wanted = ~wanted.isnan(), wanted.nan_to_num()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=1e-3, weight_decay=0.02)
    steps = epochs * -(-len(wanted) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(epochs):
        judge.train()
        for rows, maps in lesson.batches(torch.randperm(len(wanted), generator=rng)):
            said, target = judge.head(maps), wanted[rows]
            loss = F.binary_cross_entropy_with_logits(said, target, reduction="none").where(
                binary, (said - target).square()
            )
            optimizer.zero_grad()
            (loss * known[rows]).sum().div(len(rows)).backward()
            optimizer.step()
            schedule.step()


def standardise(values: Tensor) -> Tensor:
    """Values (n,) in deviations from their mean; NaN stays and does not count."""
    known = values[~values.isnan()]
    return (values - known.mean()) / known.std()


def agreement(lesson: Lesson) -> dict[str, float]:
    """By attribute that varies: area under the ROC curve of what is there or not, correlation of others."""
    said, found = lesson.say(), {}
    for name, values in zip(lesson.judge.names, said.T, strict=True):
        known = ~lesson.labels[name].isnan()
        told, label = values[known], lesson.labels[name][known]
        if len(label.unique()) > 1:
            correlation = torch.corrcoef(torch.stack([told, label]))[0, 1].item()
            found[name] = roc_auc(told, label > 0.5) if is_binary(name) else correlation
    return found


def teach(photos: tuple[Path, Path], test: tuple[Path, Path], features: Path, side: int, epochs: int) -> tuple[
    Judge, dict[str, float]
]:  # fmt: skip
    """A judge taught with (photos, truth) at `side` [px], and how it agrees with the labels of a held-out pair."""
    lesson = Lesson(*photos, side, None, features)
    learn(lesson, epochs)
    return lesson.judge, agreement(Lesson(*test, side, lesson.judge, features))
