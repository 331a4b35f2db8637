"""Stage `directions`: find what moves the attributes that a recipe names, and save the model with its directions.

A recipe is JSON, a name and how to find it for each direction, in the order that they are shown in:

    {"glasses": {"plus": [3, 14, ...], "minus": [0, 1, ...], "psi": 0.7},  seeds that show it, seeds that do not
     "zoom": {"trait": "area"},                                            a score of hfgan/traits.py, or "realness",
                                                                           the discriminator's: no labels
     "light": {"trait": "background_light", "without": ["zoom"]},          and leaves the others alone
     "to a cap": {"modes": [3, 7]},                                        between modes; {"mode": 7}: from the mean
     "hair": {"channels": [5, 9, 21, 30], "keep": 10},                     the styles that a few seeds have in common
     "turn": {"sefa": 0, "layers": "0-3"}, "age": {"pca": 4, "flip": true}} the fifth largest, the other way

"layers" are those that are moved (all), "flip" turns a direction round, and "kind": "normal" moves what is found from
seeds or a trait along the normal itself, as InterFaceGAN does, in place of Cov(w) normal.

Writes `out/model`, the same model with its directions; `out/directions.png`, a strip of each; and
`out/directions.json`. What is written depends on the model, the recipe and the flags alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import run
import torch
from modes import draw_w, is_done, publish
from PIL import Image, ImageDraw
from run import flag
from torch import Tensor

from hfgan import HFGan, finding, sampling
from hfgan.images import grid, on_white, save_png, to_pil
from hfgan.memory import draw_in_parts, net_at_once
from hfgan.metrics import resize
from hfgan.models.alpha import AlphaModel
from hfgan.models.directions import Direction, DirectionSet, WStats, check_name
from hfgan.models.stylegan2 import StyleGAN2Generator
from hfgan.parts import PARTS
from hfgan.storage import write_json
from hfgan.traits import NAMES, WHOLE, traits

BATCH = 32  # pictures at once, at most
LEAST = 4  # seeds of each kind
PSI = 0.7  # of seeds whose entry does not say it
LEAST_PSI = 0.7  # of samples that traits are measured on: between this and 1
REALNESS = "realness"  # a trait that the discriminator judges
SCORED, TRUNCATED = 10, 11  # what samples are for
REACH, STEPS, SHOWN = 3, 7, (0, 1)  # of a strip: deviations to each side, pictures, seeds
TILE, STRIP = 64, 14  # px: least side of a picture, and height of the line above a strip

# how a direction is found, and what an entry may say of it beside COMMON
METHODS = {"plus": {"minus", "psi", "kind"}, "trait": {"kind"}, "modes": set(), "mode": set(),
           "channels": {"psi", "keep"}, "sefa": set(), "pca": set()}  # fmt: skip
COMMON = {"layers", "without", "flip"}
KINDS = {"natural": "covariance", "normal": "euclidean"}  # and the metric in which others are left alone


@dataclass(frozen=True)
class Config:
    """Find the directions of a model."""

    model: str = field(metadata={"help": "bundled name, folder or Hub id"})
    recipe: str = field(metadata={"help": ".json with a name and how to find it for each direction"})
    out: str = field(metadata={"help": "folder to write; the model with its directions goes to its model/"})
    samples: int = flag(4000, "pictures that traits are measured on")
    seed: int = flag(0, "decides which pictures those are")


def main(config: Config) -> None:
    """Find and write; nothing is done again where it is all there."""
    if config.samples < 100:
        raise run.UserError(f"--samples is {config.samples}: give 100 or more, of which traits have a tenth each side")
    if (Path(config.out) / "model").resolve() == Path(config.model).resolve():
        raise run.UserError(f"--out {config.out} would overwrite the model that is read: give another folder")
    recipe = read_recipe(Path(config.recipe))
    folder = run.RunFolder(config.out, config, set(), main_process=True).path
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with run.library_errors():
        gan = HFGan.from_pretrained(config.model, device=device)
        marks = fingerprints(gan) | {"recipe": recipe, "names": list(recipe)}  # in their order
        if is_done(folder / "directions.json", marks):
            print(f"{folder} is complete")
            return
        finder = Finder(gan, recipe, config.samples, config.seed)
        found = DirectionSet.of(finder.find_all(), gan.generator)
        (folder / "directions.json").unlink(missing_ok=True)  # what it tells of is written over from here on
        gan.register_modules(directions=found)
    publish(gan, folder / "model")
    save_png(sheet(gan), folder / "directions.png", overwrite=True)
    print(table(found))
    told = {"directions": found.table(), "correlations": correlations(found, finder.stats)}
    write_json(folder / "directions.json", told | marks | {"settings": asdict(config)})


def fingerprints(gan: HFGan) -> dict[str, str | None]:
    """What is worked on: each part but earlier directions."""
    return {name: gan.parts[name].fingerprint() if name in gan.parts else None for name in PARTS
            if name != "directions"}  # fmt: skip


# --- the recipe --------------------------------------------------------------------------------------------


def read_recipe(path: Path) -> dict[str, dict[str, Any]]:
    """The entries of a recipe by name, right as far as can be told without the model; UserError for anything else."""
    try:
        recipe = json.loads(path.read_text("utf-8"), object_pairs_hook=_each_once)
    except (OSError, ValueError) as error:
        raise run.UserError(f"{path} is no recipe that can be read: {error}") from error
    if not isinstance(recipe, dict) or not recipe:
        raise run.UserError(f"{path} holds no recipe: expected {{name: how to find it, ...}} with at least one name")
    for name, entry in recipe.items():
        try:
            check_entry(check_name(name), entry, recipe)
        except ValueError as error:
            raise run.UserError(f"{path}, {name!r}: {error}") from error
    return recipe


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of a name that comes twice JSON would keep the last without a word."""
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{', '.join(map(repr, twice))} comes twice: give each its own name")
    return dict(pairs)


def check_entry(name: str, entry: Any, recipe: dict[str, Any]) -> None:
    """Raise ValueError unless an entry says in one way how to find its direction, with nothing else beside it."""
    methods = [key for key in METHODS if isinstance(entry, dict) and key in entry]
    if len(methods) != 1:
        given = f"there are {' and '.join(methods)}" if methods else "there is none of them"
        raise ValueError(f"expected one way to find it, of {', '.join(METHODS)}: {given}")
    method = methods[0]
    if unknown := sorted(entry.keys() - COMMON - METHODS[method] - {method}):
        known = ", ".join(sorted(COMMON | METHODS[method]))
        raise ValueError(f"unknown key {unknown[0]!r}: beside {method!r} there may be {known}")
    if method in ("plus", "channels"):
        _check_seeds(method, entry)
    elif method == "trait" and entry["trait"] not in (*NAMES, REALNESS):
        raise ValueError(f"unknown trait {entry['trait']!r}: expected one of {', '.join((*NAMES, REALNESS))}")
    elif method == "modes" and not (isinstance(entry["modes"], list) and len(entry["modes"]) == 2):
        raise ValueError(f"modes is {entry['modes']!r}: expected two modes, from and to")
    elif method != "trait":
        for number in entry["modes"] if method == "modes" else [entry[method]]:
            sampling.check_count(number, method, least=0)
    if entry.get("kind", "natural") not in list(KINDS):
        raise ValueError(f"kind is {entry['kind']!r}: expected {' or '.join(map(repr, KINDS))}")
    if not isinstance(entry.get("flip", False), bool):
        raise ValueError(f"flip is {entry['flip']!r}: expected true or false")
    if not isinstance(entry.get("layers", ""), str):
        raise ValueError(f"layers is {entry['layers']!r}: expected a string such as '0-3,5'")
    others = entry.get("without", [])
    if not isinstance(others, list) or any(not isinstance(x, str) or x not in recipe or x == name for x in others):
        raise ValueError(f"without is {others!r}: expected names of other directions of this recipe")


def _check_seeds(method: str, entry: dict[str, Any]) -> None:
    """Raise ValueError unless there are enough seeds of each kind, no seed of both, and a psi that drew them."""
    sides = ("plus", "minus") if method == "plus" else ("channels",)
    for side in sides:
        seeds = entry.get(side)
        if not isinstance(seeds, list) or len({sampling.check_seed(seed) for seed in seeds}) < LEAST:
            count = len(set(seeds)) if isinstance(seeds, list) else "no"
            raise ValueError(f"there are {count} seeds as {side!r}: expected {LEAST} or more different ones")
    if both := set(entry[sides[0]]).intersection(entry.get("minus", [])):
        raise ValueError(f"seed {min(both)} is both in 'plus' and in 'minus': leave it out of one")
    if isinstance(sampling.parse_psi(entry.get("psi", PSI)), list) or entry.get("psi") == 0:
        raise ValueError(f"psi is {entry['psi']!r}: expected the one number that the seeds were drawn with")
    sampling.check_count(entry.get("keep", 1), "keep")


# --- found -------------------------------------------------------------------------------------------------


class Finder:
    """Finds the directions of one model.

    Args:
        recipe: As `read_recipe` returns it.
        samples, seed: How many pictures traits are measured on, and which.
    """

    def __init__(self, gan: HFGan, recipe: dict[str, dict[str, Any]], samples: int, seed: int) -> None:
        self.gan, self.generator, self.fingerprint = gan, gan.generator, gan.generator.fingerprint()
        self.recipe, self.stats = recipe, WStats.of(gan.generator)
        if measured := {entry["trait"] for entry in recipe.values() if "trait" in entry}:
            self.w, self.scores = self.score(measured, samples, seed)

    def find_all(self) -> list[Direction]:
        """The directions of the recipe in its order."""
        plain = {name: self.find(name, entry) for name, entry in self.recipe.items()}
        return [self.finish(plain[name], entry, plain) for name, entry in self.recipe.items()]

    def find(self, name: str, entry: dict[str, Any]) -> Direction:
        """The direction of an entry, on all layers and whatever else it changes."""
        try:
            method = next(key for key in METHODS if key in entry)
            found = getattr(self, f"by_{method}")(name, entry).named(name)
        except ValueError as error:
            raise ValueError(f"{name!r} cannot be found: {error}") from error
        return (-found).named(name) if entry.get("flip") else found

    def finish(self, one: Direction, entry: dict[str, Any], plain: dict[str, Direction]) -> Direction:
        """A direction that leaves the others of its entry alone, on the entry's layers, and says how it was found."""
        if entry.get("without"):
            others = [plain[name] for name in entry["without"]]
            one = finding.conditional(one, others, self.stats, KINDS[entry.get("kind", "natural")])
        if "layers" in entry:
            try:
                one = one.on(sampling.parse_layers(entry["layers"], self.generator.num_ws))
            except ValueError as error:
                raise ValueError(f"{one.name!r} cannot be on these layers: {error}") from error
        return replace(one, source=one.source | {"recipe": entry})

    # each finds a direction by one of METHODS

    def by_plus(self, name: str, entry: dict[str, Any]) -> Direction:
        """From seeds that show it and seeds that do not."""
        seeds = [*entry["plus"], *entry["minus"]]
        labels = torch.arange(len(seeds)) < len(entry["plus"])
        return finding.fit_labels(name, self.of_seeds(seeds, entry), labels, self.stats, **self.how(entry))

    def by_trait(self, name: str, entry: dict[str, Any]) -> Direction:
        """From the pictures that have most and least of a trait."""
        return finding.fit_scores(name, self.w, self.scores[entry["trait"]], self.stats, **self.how(entry))

    def by_channels(self, name: str, entry: dict[str, Any]) -> Direction:
        """From the styles that a few seeds have in common."""
        w = self.of_seeds(entry["channels"], entry)
        return finding.channels(name, self.generator, w, self.stats, keep=entry.get("keep", 10))

    def by_modes(self, name: str, entry: dict[str, Any]) -> Direction:
        """From one mode to another."""
        return finding.between_modes(name, self.gan.part("modes"), *entry["modes"], self.stats, self.fingerprint)

    def by_mode(self, name: str, entry: dict[str, Any]) -> Direction:
        """From the mean to a mode."""
        return finding.toward_mode(name, self.gan.part("modes"), entry["mode"], self.stats, self.fingerprint)

    def by_sefa(self, _: str, entry: dict[str, Any]) -> Direction:
        """What changes the styles of some layers most."""
        return finding.sefa(self.generator, entry.get("layers"), entry["sefa"] + 1, self.stats)[-1]

    def by_pca(self, _: str, entry: dict[str, Any]) -> Direction:
        """A principal component of W."""
        return finding.pca(self.stats, entry["pca"] + 1, self.fingerprint)[-1]

    def how(self, entry: dict[str, Any]) -> dict[str, str]:
        """What a fit is told beside its samples."""
        return {"kind": entry.get("kind", "natural"), "fingerprint": self.fingerprint}

    @torch.no_grad()
    def of_seeds(self, seeds: Sequence[int], entry: dict[str, Any]) -> Tensor:
        """w (n, w_dim) of what was shown of the seeds, on the CPU."""
        mapping = self.generator.mapping
        if mapping.c_dim:
            raise ValueError("seeds do not say what a model with classes drew")
        z = sampling.latents_from_seeds(seeds, mapping.z_dim).to(self.generator.device)
        return mapping.w_avg.lerp(mapping(z), entry.get("psi", PSI)).cpu()

    @torch.no_grad()
    def score(self, wanted: set[str], samples: int, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Samples w (n, w_dim), truncated a little, and the traits (n,) of their pictures."""
        alpha = self.gan.part("alpha") if wanted - {*WHOLE, REALNESS} else None
        psi = torch.empty(samples, 1).uniform_(LEAST_PSI, 1, generator=run.random_source(seed, TRUNCATED))
        w = self.generator.mapping.w_avg.cpu().lerp(draw_w(self.generator, samples, seed, SCORED), psi)
        w_plus = sampling.broadcast(w, self.generator.num_ws)
        found = [self.traits(image, matte, wanted) for image, matte in draw(self.generator, alpha, w_plus)]
        return w, {name: torch.cat([one[name] for one in found]).cpu() for name in wanted}

    def traits(self, image: Tensor, alpha: Tensor | None, wanted: set[str]) -> dict[str, Tensor]:
        """The traits (n,) of pictures (n, 3, r, r) with their alpha, if any; how real they are only if wanted."""
        found = traits(image, alpha)
        if REALNESS in wanted:
            judge = self.gan.part("discriminator")  # one by one: it compares the pictures of a batch
            if judge.config.c_dim or judge.config.img_channels != 3:
                raise ValueError(f"{REALNESS} needs a model of RGB pictures without classes: leave it out")
            found[REALNESS] = torch.cat([judge(one).flatten() for one in image.split(1)])
        return found


@torch.no_grad()
def draw(
    generator: StyleGAN2Generator, alpha: AlphaModel | None, w_plus: Tensor
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Pictures (n, 3, r, r) of w_plus (n, num_ws, w_dim), and their alpha (n, 1, r, r) where a part tells it."""
    for rows in w_plus.to(generator.device).split(net_at_once(generator, BATCH)):
        if alpha is None:
            yield on_white(generator.synthesis(rows)).clamp(-1, 1), None
        else:
            image, logit = alpha(generator, rows)
            yield on_white(image).clamp(-1, 1), logit.sigmoid()


# --- what was found ----------------------------------------------------------------------------------------


def table(found: DirectionSet) -> str:
    """A line for each direction."""
    lines = [f"{'direction':<24}{'kind':<13}{'quality':<10}{'accuracy':>9}{'split half':>12}"]
    for row in found.table():
        numbers = ("" if row[key] is None else f"{row[key]:.3f}" for key in ("accuracy", "split_half"))
        accuracy, split_half = numbers
        lines.append(f"{row['name']:<24}{row['kind']:<13}{row['quality'] or '':<10}{accuracy:>9}{split_half:>12}")
    return "\n".join(lines)


def correlations(found: DirectionSet, stats: WStats) -> dict[str, dict[str, float]]:
    """How far each pair of attributes goes together over W, -1 to 1; without what nothing measures."""
    measured = [one for one in found if one.normal is not None]
    return {one.name: {other.name: round(one.cosine(other, stats), 3) for other in measured if other is not one}
            for one in measured}  # fmt: skip


@torch.no_grad()
def sheet(gan: HFGan) -> Image.Image:
    """A strip of each direction on two samples, from REACH deviations less of it to REACH more, its name above."""
    label = 0 if gan.generator.config.c_dim else None
    w_plus = gan.sample(seeds=SHOWN, truncation_psi=PSI, label=label).w_plus
    strengths = torch.linspace(-REACH, REACH, STEPS).view(-1, 1, 1)
    rows = []
    for one in gan.directions:
        moved = torch.cat([base + strengths * one.shift(len(base)) for base in w_plus.cpu()])
        drawn = draw_in_parts(gan.generator, moved.to(gan.device)).cpu()
        rows.append(strip(one.name, to_pil(resize(drawn, min(drawn.shape[-1], run.SHEET_SIDE)))))
    return grid(rows, 1)


def strip(name: str, pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures side by side under a line that says what they show."""
    side = max(pictures[0].width, TILE)
    row = Image.new("RGB", (side * len(pictures), side + STRIP), "white")
    for k, picture in enumerate(pictures):
        row.paste(picture.convert("RGB").resize((side, side), Image.Resampling.NEAREST), (k * side, STRIP))
    ImageDraw.Draw(row).text((2, 1), name, "black")
    return row
