"""Pairs of picture and alpha, drawn by a generator, as a data set to train segmentation on (Labels4Free, Abdal et al.
2021, arXiv 2103.14968): ImageFolder of Hugging Face and COCO in one folder.

Seeds are drawn in batches whose place is fixed, since rounding depends on what is drawn together: so a folder that was
made in one go and one whose making was interrupted hold the same bytes. What has been done is what the two lists say,
metadata.jsonl and left_out.jsonl; a line is written once its files are there.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from itertools import count, takewhile
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from hfgan import __version__, sampling
from hfgan.coco import coco_content
from hfgan.datacard import data_card, license_line, read_license
from hfgan.images import load_image, save_png
from hfgan.segmentation import Cutout
from hfgan.storage import read_json, write_atomic, write_json

if TYPE_CHECKING:
    from hfgan import HFGan

logger = logging.getLogger(__name__)

FORMAT = 1  # of export.json
SETTINGS, KEPT, LEFT, COCO, CARD = "export.json", "metadata.jsonl", "left_out.jsonl", "coco.json", "README.md"
FOLDERS = {"file_name": "images", "mask_file_name": "masks", "alpha_file_name": "alpha"}  # by key in metadata.jsonl
WEIGHTS = ("generator_fingerprint", "alpha_fingerprint", "modes_fingerprint")
NUMBERS = ("seed", "coverage", "confidence")  # in the rows of both lists
HALF, FULL = 32768, 65535  # alpha in 16 bits: foreground from here on, and all of it
PATIENCE, LEAST_YIELD = 512, 0.02  # after so many samples an export that keeps a smaller share gives up

Row = dict[str, Any]


class Tally(NamedTuple):
    """How many pairs there are, and how many samples were left out for their coverage and for their confidence."""

    kept: int
    coverage: int
    confidence: int


def export_pairs(
    gan: HFGan, folder: str | Path, num: int, *, seed: int = 0, truncation_psi: sampling.Psi = 0.7,
    truncation: str | None = None, coverage: tuple[float, float] = (0.05, 0.95), min_confidence: float = 0.0,
    category: str = "subject", batch_size: int = 16, label: int | None = None, card: str | Path | None = None,
) -> Tally:  # fmt: skip
    """Write `num` pictures, their masks and alpha, in the order of their seeds, and what describes them.

    The same call gives the same bytes. Called again it goes on where it was stopped, and with a larger `num` it adds.
    A sample that does not pass is left out, and the next seed takes its place.

    Args:
        gan: A model with the part `alpha`.
        folder: New or empty, or begun by the same call.
        num: Pairs in the folder at the end.
        seed: The first; the others follow it.
        truncation_psi, truncation, label: As in `HFGan.sample`.
        coverage: Least and most share of the picture that is mask, in [0, 1].
        min_confidence: In [0, 1], see `measure`.
        category: What the subject is called in COCO.
        batch_size: How many are drawn at once.
        card: README.md of the model, whose licence is stated; None for that of the bundled model if it is one.

    Raises:
        ValueError: an argument out of range; a folder of another model or of other settings, or with more pairs.
        FileExistsError: a folder with other content.
        RuntimeError: a model without alpha, or far too few samples that pass.
    """
    num, folder = sampling.check_count(num, "num"), Path(folder)
    settings = _model(gan, truncation) | {
        "seed": sampling.check_seed(seed), "truncation_psi": sampling.parse_psi(truncation_psi),
        "truncation": truncation, "label": label, "coverage": _check_coverage(coverage),
        "min_confidence": _check_share(min_confidence, "min_confidence"), "category": _check_category(category),
        "batch_size": sampling.check_count(batch_size, "batch_size"),
    }  # fmt: skip
    licence = read_license(_own_card(gan) if card is None else card)
    if not _is_begun(folder, settings):
        _draw(gan, [settings["seed"]], settings)  # what this model cannot do is said before there is a folder
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / SETTINGS, settings)
    return _Export(gan, folder, settings, licence).run(num)


def measure(alpha: np.ndarray) -> tuple[np.ndarray, float, float]:
    """The mask (h, w) bool of an alpha (h, w) in 0..65535, its coverage and its confidence, both in [0, 1].

    Confidence is the Dice coefficient of the mask with alpha taken for the probability of foreground: 2 sum(a m) /
    (sum(a) + sum(m)), 0 for an empty mask (Soft Dice Confidence, Borges et al. 2024, arXiv 2402.10665). Unlike the
    mean doubt of a pixel it does not fall as the subject and its outline grow. Whole numbers are summed: it is exact.
    """
    soft = alpha.astype(np.int64)
    mask = soft >= HALF
    both = int(soft.sum()) + FULL * int(mask.sum())
    confidence = 2 * int(soft[mask].sum()) / both if both else 0.0
    return mask, round(float(mask.mean()), 6), round(confidence, 6)


class _Export:
    """A folder of pairs that was begun with these settings."""

    def __init__(self, gan: HFGan, folder: Path, settings: dict[str, Any], licence: dict[str, Any]) -> None:
        self.gan, self.folder, self.settings, self.licence = gan, folder, settings, licence
        for name in FOLDERS.values():
            (folder / name).mkdir(exist_ok=True)
        for torn in folder.rglob(".*.tmp"):  # what a killed `write_atomic` leaves
            torn.unlink()
        self.known = self._read()
        first = settings["seed"]
        done = [self.known[one] for one in takewhile(self.known.__contains__, count(first))]
        self.next_seed = first + len(done)
        self.kept = [row for row in done if "reason" not in row]
        self.left = [row for row in done if "reason" in row]
        self.batch: dict[int, Cutout] = {}

    def run(self, num: int) -> Tally:
        """Draw until there are `num` pairs, and describe them."""
        there = sum("reason" not in row for row in self.known.values())
        if there > num:
            raise ValueError(f"{self.folder} holds {there} pairs and num is {num}: ask for {there} or more")
        if len(self.kept) < num:
            for name in [COCO] if self._has_other_card() else [COCO, CARD]:  # they describe fewer pairs
                (self.folder / name).unlink(missing_ok=True)
            for name, rows in ((KEPT, self.kept), (LEFT, self.left)):  # without what follows the first gap
                write_atomic(self.folder / name, _lines(rows))
            self._go_on(num)
        self._describe()
        return self._tally()

    def _go_on(self, num: int) -> None:
        bar = self.gan.progress_bar(total=num)
        bar.update(len(self.kept))
        with open(self.folder / KEPT, "ab") as kept, open(self.folder / LEFT, "ab") as left, bar:
            while len(self.kept) < num:
                self._check_yield()
                row = self.known.get(self.next_seed) or self._write_pair(self.next_seed)
                file, rows = (left, self.left) if "reason" in row else (kept, self.kept)
                file.write(_lines([row]))
                file.flush()
                rows.append(row)
                bar.update(rows is self.kept)
                self.next_seed += 1

    def _write_pair(self, seed: int) -> Row:
        """The row of a sample, whose files are written if it passes."""
        cut, settings = self._cut(seed), self.settings
        alpha = cut.alpha16()
        mask, coverage, confidence = measure(np.asarray(alpha))
        numbers = dict(zip(NUMBERS, (seed, coverage, confidence), strict=True))
        least, most = settings["coverage"]
        if not least <= coverage <= most:
            return numbers | {"reason": "coverage"}
        if confidence < settings["min_confidence"]:
            return numbers | {"reason": "confidence"}
        names = {key: f"{place}/{cut.name}.png" for key, place in FOLDERS.items()}
        pils = (cut.image, Image.fromarray(mask.astype(np.uint8) * 255), alpha)
        for name, pil, recipe in zip(names.values(), pils, (cut.recipe, None, None), strict=True):
            save_png(pil, self.folder / name, recipe, overwrite=True)  # of an interrupted export, the same
        said = {key: cut.recipe[key] for key in ("truncation_psi", "mode")}
        said |= {} if settings["label"] is None else {"label": settings["label"]}
        return names | {"seed": seed} | said | numbers | {key: settings[key] for key in WEIGHTS[:2]}

    def _cut(self, seed: int) -> Cutout:
        if seed not in self.batch:
            size = self.settings["batch_size"]
            start = sampling.check_seed(seed) - (seed - self.settings["seed"]) % size
            seeds = range(start, min(start + size, sampling.MAX_SEED + 1))
            self.batch = dict(zip(seeds, _draw(self.gan, seeds, self.settings), strict=True))
        return self.batch[seed]

    def _check_yield(self) -> None:
        kept, coverage, confidence = tally = self._tally()
        if sum(tally) >= PATIENCE and kept < LEAST_YIELD * sum(tally):
            raise RuntimeError(
                f"only {kept} of {sum(tally)} samples pass: {coverage} fail by coverage and {confidence} by "
                "confidence; begin another folder with wider coverage or lower min_confidence, or train a better alpha"
            )

    def _tally(self) -> Tally:
        confidence = sum(row["reason"] == "confidence" for row in self.left)
        return Tally(len(self.kept), len(self.left) - confidence, confidence)

    def _read(self) -> dict[int, Row]:
        """Rows of both lists by seed, of samples whose files are there; a torn or damaged line is none."""
        rows = [*_rows(self.folder / KEPT, (*FOLDERS, *NUMBERS)), *_rows(self.folder / LEFT, ("reason", *NUMBERS))]
        there = {f"{place}/{path.name}" for place in FOLDERS.values() for path in (self.folder / place).iterdir()}
        return {row["seed"]: row for row in rows if "reason" in row or all(row[key] in there for key in FOLDERS)}

    def _describe(self) -> None:
        """Write coco.json and the card where they are missing."""
        if not (self.folder / COCO).exists():
            model = f"{self.settings['model']} ({self.settings['generator_fingerprint']})"
            content = coco_content(
                self._masks(), category=self.settings["category"], license_name=license_line(self.licence),
                description=f"Synthetic pictures with machine-made masks, drawn by {model}",
            )  # fmt: skip
            write_atomic(self.folder / COCO, json.dumps(content).encode())
        if self._has_other_card():
            logger.warning("%s stays as it is: delete it, and the same command writes it anew", self.folder / CARD)
        elif not (self.folder / CARD).exists():
            write_atomic(self.folder / CARD, self._card())

    def _masks(self) -> Iterator[tuple[str, np.ndarray]]:
        for row in self.kept:
            path = self.folder / row["mask_file_name"]
            try:
                yield row["file_name"], np.asarray(load_image(path)) > 127
            except ValueError as error:
                raise ValueError(f"{path} is {error}: delete it, and the same command draws it again") from error

    def _card(self) -> bytes:
        side = self.gan.generator.config.resolution
        return data_card(self.settings, self.kept, self.left, self.licence, side, __version__).encode()

    def _has_other_card(self) -> bool:
        """Whether there is a card, and it is not the one that hfgan writes about these pairs."""
        path = self.folder / CARD
        return path.exists() and not (self.kept and path.read_bytes() == self._card())


def _draw(gan: HFGan, seeds: Iterable[int], settings: dict[str, Any]) -> list[Cutout]:
    """Cut-outs of samples that are drawn together."""
    how = {key: settings[key] for key in ("truncation_psi", "truncation", "label", "batch_size")}
    return gan.cutouts(gan.sample(seeds=seeds, **how), batch_size=settings["batch_size"])


def _model(gan: HFGan, truncation: str | None) -> dict[str, Any]:
    """The model, as export.json has it; its modes count where they are used."""
    names = ("generator", "alpha", "modes") if truncation == "multimodal" else ("generator", "alpha")
    weights = {f"{name}_fingerprint": gan.part(name).fingerprint() for name in names}
    said = {"format": FORMAT, "model": gan.name, "dtype": str(gan.dtype).removeprefix("torch.")}
    return said | dict.fromkeys(WEIGHTS) | weights


def _own_card(gan: HFGan) -> Path | None:
    """The card of the bundled model of that name, if it speaks of the same weights."""
    from hfgan import bundled_models

    path = bundled_models().get(gan.name, Path()) / CARD
    return path if path.is_file() and gan.generator.fingerprint() in path.read_text(encoding="utf-8") else None


def _is_begun(folder: Path, settings: dict[str, Any]) -> bool:
    """Whether these settings were begun in the folder; an error where something else was."""
    if not (folder / SETTINGS).is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise FileExistsError(f"{folder} is no export of pairs and not empty: choose another folder")
        return False
    found = read_json(folder / SETTINGS)
    if any(found.get(key) != settings[key] for key in WEIGHTS):
        drew, draws = (", ".join(f"{key.split('_')[0]} {of.get(key)}" for key in WEIGHTS) for of in (found, settings))
        raise ValueError(f"{folder} was begun with other weights ({drew}; these are {draws}): choose another folder")
    if other := [key for key in settings if found.get(key) != settings[key]]:
        said = ", ".join(f"{key} {found.get(key)!r} and not {settings[key]!r}" for key in other)
        raise ValueError(f"{folder} was begun with {said}: give the same, or choose another folder")
    return True


def _rows(path: Path, keys: Iterable[str]) -> Iterator[Row]:
    """Rows of a list that have these keys."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("seed"), int) and all(key in row for key in keys):
            yield row


def _lines(rows: Iterable[Row]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _check_share(value: Any, name: str) -> float:
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError(f"{name} is {value!r}: expected a number from 0 to 1")
    return float(value)


def _check_coverage(coverage: Any) -> list[float]:
    pair = list(coverage) if isinstance(coverage, list | tuple) else []
    if len(pair) == 2 and _check_share(pair[0], "coverage") <= _check_share(pair[1], "coverage"):
        return [float(value) for value in pair]
    raise ValueError(f"coverage is {coverage!r}: expected least and most, such as (0.05, 0.95)")


def _check_category(category: Any) -> str:
    if not isinstance(category, str) or not category.strip() or not category.isprintable():
        raise ValueError(f"category is {category!r}: expected a word such as 'face'")
    return category
