"""How well interest encoders invert: fidelity, what they make of hidden parts, drift, editing; all on frozen pairs.

    python tests/bench/inversion.py measure --models runs/arm-*/model --occluded hfaces128-occluded-test.zip \\
        --photos clothing128-test.zip flowers128-test.zip --perceptual lpips_alex_fp16.safetensors \\
        --out runs/inversion.json
    python tests/bench/inversion.py table --out runs/inversion.json

`measure` goes on where it was stopped: what is in --out already is not measured again. A run `arm-NAME-SEED` is the
arm NAME; its seeds are pooled. Images are in [-1, 1]: squared errors are 4 times those of [0, 1].

An encoder that sees the interest is told the visible subject ("told"), nothing ("withheld"), that region painted badly
("dilated", ...), or what is found without a person ("auto"); one that does not has "withheld" only. Values of a row:

    clean, picture  squared error of what is drawn of the view "clean": on the subject, on the whole picture
    bg              of the view "bg", on the subject
    visible, hidden, all  of the view "occ", on these parts of the subject
    perceptual, perceptual_clean  of "occ" on the visible part, of "clean" on the subject
    drift_V         |S^-1 (E(V) - E(clean))| in units of the mean over pairs i != j of |S^-1 (E(clean_i) - E(clean_j))|
    moved_V         squared difference of what is drawn of V and of clean, on the subject
    edit            squared error of G(E(occ) + s d) against G(w + s d) on the subject, mean over STRENGTHS and d
    logit, distance  of "occ": the discriminator's logit, root mean square of S^-1 (E - w_avg)
    iou, fallback   of "auto" on "occ": against what a person sees, and how often nothing was found
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from inversionpairs import BATCH, COUNT, SLOPPY, Pairs, drawn_pairs, occluded_pairs, read_photos, save_sheet, sloppy
from inversiontable import find, open_results, plain, tables
from PIL.Image import Image
from torch import Tensor
from torch.nn import functional as F

from hfgan import HFGan, inversion
from hfgan.images import on_white, to_pil, to_tensor
from hfgan.models.banks import whitening_scale
from hfgan.models.perceptual import Perceptual, file_sha256, load_perceptual
from hfgan.models.stylegan2 import StyleGAN2Generator
from hfgan.refinement import refine
from hfgan.sampling import broadcast
from hfgan.storage import write_atomic

FORMAT = 1  # of --out
STATISTICS = 4096  # samples behind directions
DIRECTIONS, STRENGTHS = 5, (1, 2, 3)  # principal ones, in deviations along them
PULLS = (0.0, 0.1, 0.3, 3.0, 10.0)  # of refinement, beside the usual one
LEAST_SIDE = 64  # px that the perceptual network sees
REPEATS = 5  # of a timing
NOISED = 8  # identities whose outside is replaced by noise

Inverter = Callable[[Tensor, Tensor | None], Tensor]
Values = dict[str, Tensor]


# ---------------------------------------------------------------- what is measured


def inverters(gan: HFGan, steps: int = 3) -> dict[str, Inverter]:
    """Ways to invert, by name: image (n, 3, r, r) in [-1, 1], interest (n, 1, r, r) or None to w_plus.

    `--inverters` chooses among them.
    """

    net = load_perceptual()

    def encode(image: Tensor, interest: Tensor | None) -> Tensor:
        *_, (w_plus, _) = gan.encoder.steps(gan.generator, image, interest, steps)
        return w_plus

    def refined(pull: float) -> Inverter:
        return lambda image, interest: (
            refine(
                gan.generator, encode(image, interest), image, interest, w_std=gan.encoder.w_std, net=net, pull=pull
            ).w_plus
        )

    return {"encoder": encode, "refine50": refined(1.0), **{f"refine50-pull{p:g}": refined(p) for p in PULLS}}


def auto_interest(gan: HFGan, image: Image) -> Tensor | None:
    """The interest (1, 1, h, w) that is found in a photo without a person, at its size; None where none is found."""
    found, _ = inversion.auto_interest(gan.generator, gan.encoder, gan.part("matting"), gan.alpha, to_tensor(image), 3)
    return found


def interest_names(gan: HFGan, auto: bool) -> list[str]:
    """What an encoder can be told; nothing but "withheld" where it cannot see the interest."""
    seen = ["told", *SLOPPY, *(["auto"] if auto else [])]
    return ["withheld", *(seen if gan.encoder.config.conditioned else [])]


def tell(gan: HFGan, pairs: Pairs, name: str) -> dict[str, Tensor | None]:
    """The regions (n, 1, r, r) in [0, 1] that are told of views, None for nothing; bad paintings of "occ" only."""
    if name in SLOPPY:
        return {"occ": sloppy(pairs.visible, name)}
    if name == "auto":
        return {view: find_interests(gan, image) for view, image in pairs.views.items()}
    return {view: pairs.told(view) if name == "told" else None for view in pairs.views}


def find_interests(gan: HFGan, image: Tensor) -> Tensor:
    """`auto_interest` (n, 1, r, r) of images (n, 3, r, r); all of the picture where none is found."""
    regions = [auto_interest(gan, picture) for picture in to_pil(image)]
    return torch.cat([torch.ones_like(image[:1, :1]) if region is None else region for region in regions])


# ---------------------------------------------------------------- numbers


def masked_l2(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """sum m (a - b)^2 / (3 sum m) of images (n, 3, r, r) in a region (n, 1, r, r): (n,), nan where it is empty."""
    return ((a - b).square() * mask).sum((1, 2, 3)) / (3 * mask.sum((1, 2, 3)))


def code_distance(a: Tensor, b: Tensor, w_std: Tensor) -> Tensor:
    """|S^-1 (a - b)| of w_plus (n, num_ws, w_dim): (n,)."""
    return ((a - b) / w_std).flatten(1).norm(dim=1)


def code_spread(codes: Tensor, w_std: Tensor) -> Tensor:
    """Mean of `code_distance` over all pairs of different rows of codes (n, num_ws, w_dim)."""
    return F.pdist((codes / w_std).flatten(1)).mean()


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union (n,) of regions (n, 1, r, r), 0 or 1."""
    return (a * b).sum((1, 2, 3)) / torch.maximum(a, b).sum((1, 2, 3))


def perceptual_distance(net: Perceptual, a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """Distance (n,) of images (n, 3, r, r) in a region (n, 1, r, r), small ones enlarged."""
    if a.shape[-1] < LEAST_SIDE:
        a, b = (F.interpolate(x, (LEAST_SIDE, LEAST_SIDE), mode="bilinear") for x in (a, b))
    rows = zip(*(x.split(BATCH) for x in (a, b, mask)), strict=True)
    return torch.cat([net.distance(*row) for row in rows])


def render(generator: StyleGAN2Generator, w_plus: Tensor) -> Tensor:
    """What is drawn (n, 3, r, r) in [-1, 1] of w_plus (n, num_ws, w_dim), with constant noise."""
    return torch.cat([on_white(generator.synthesis(rows)).clamp(-1, 1) for rows in w_plus.split(BATCH)])


def invert_all(invert: Inverter, image: Tensor, interest: Tensor | None) -> Tensor:
    """w_plus (n, num_ws, w_dim) of images (n, 3, r, r), some at a time."""
    told = [None] * len(image) if interest is None else interest.split(BATCH)
    return torch.cat([invert(*row) for row in zip(image.split(BATCH), told, strict=False)])


class Edits:
    """Edits of which the truth is known: the steps in w, and what the true latents look like after each."""

    def __init__(self, generator: StyleGAN2Generator, w: Tensor) -> None:  # (n, w_dim)
        self.generator = generator
        self.steps = [s * d for d in principal_directions(generator) for s in STRENGTHS]
        w_plus = broadcast(w, generator.num_ws)
        self.truth = [render(generator, w_plus + step) for step in self.steps]

    def error(self, w_plus: Tensor, mask: Tensor) -> Tensor:
        """Mean squared error (n,) in a region, over all edits of w_plus, of the first n of w."""
        pairs = zip(self.steps, self.truth, strict=True)
        return sum(masked_l2(render(self.generator, w_plus + step), true[: len(w_plus)], mask)
                   for step, true in pairs) / len(self.steps)  # fmt: skip


def principal_directions(generator: StyleGAN2Generator) -> Tensor:
    """(DIRECTIONS, w_dim), along which w varies most, each as long as the deviation; the largest entry is positive."""
    w = sample_w(generator)
    values, vectors = torch.linalg.svd(w - w.mean(0), full_matrices=False)[1:]
    found = vectors[:DIRECTIONS] * values[:DIRECTIONS, None] / (len(w) - 1) ** 0.5
    return found * found.gather(1, found.abs().argmax(1, keepdim=True)).sign()


def sample_w(generator: StyleGAN2Generator) -> Tensor:
    """w (STATISTICS, w_dim), always the same."""
    z = torch.randn(STATISTICS, generator.config.z_dim, generator=torch.Generator().manual_seed(0))
    return generator.mapping(z, generator.mapping.labels_in_turn(torch.arange(STATISTICS)))


class Bench:
    """What all models of one generator are measured with.

    Args:
        sets: The pairs, by name.
        net: Of the perceptual distances; None leaves them out.
    """

    def __init__(self, generator: StyleGAN2Generator, sets: dict[str, Pairs], net: Perceptual | None) -> None:
        self.generator, self.sets, self.net = generator, sets, net
        self.w_std = whitening_scale(sample_w(generator).std(dim=0))

    @cached_property
    def edits(self) -> Edits:
        """Drawn when they are first needed."""
        return Edits(self.generator, self.sets["drawn"].w)

    def values(self, gan: HFGan, invert: Inverter, pairs: Pairs, told: dict[str, Tensor | None]) -> Values:
        """One row: every number (n,) of a way to invert, for what it is told of some views."""
        codes = {view: invert_all(invert, pairs.views[view], region) for view, region in told.items()}
        drawn = {view: render(gan.generator, code) for view, code in codes.items()}
        error = partial(masked_l2, b=pairs.wanted)
        found = {
            "visible": error(drawn["occ"], mask=pairs.visible), "hidden": error(drawn["occ"], mask=pairs.hidden),
            "all": error(drawn["occ"], mask=pairs.subject),
        }  # fmt: skip
        found["distance"] = ((codes["occ"] - gan.generator.mapping.w_avg) / self.w_std).square().mean((1, 2)).sqrt()
        if gan.discriminator is not None:
            found["logit"] = logits(gan, drawn["occ"])
        if self.net is not None:
            found["perceptual"] = perceptual_distance(self.net, drawn["occ"], pairs.wanted, pairs.visible)
        if "clean" not in codes:  # a region that was painted badly
            return found
        if self.net is not None:
            found["perceptual_clean"] = perceptual_distance(self.net, drawn["clean"], pairs.wanted, pairs.subject)
        found["clean"] = error(drawn["clean"], mask=pairs.subject)
        found["picture"] = error(drawn["clean"], mask=torch.ones_like(pairs.subject))
        spread = code_spread(codes["clean"], self.w_std)
        for view in codes.keys() - {"clean"}:
            found[f"drift_{view}"] = code_distance(codes[view], codes["clean"], self.w_std) / spread
            found[f"moved_{view}"] = masked_l2(drawn[view], drawn["clean"], pairs.subject)
        if pairs.w is not None:
            found["bg"] = error(drawn["bg"], mask=pairs.subject)
            found["edit"] = self.edits.error(codes["occ"], pairs.subject)
        return found


def logits(gan: HFGan, image: Tensor) -> Tensor:
    """The discriminator's logits (n,) of images (n, 3, r, r)."""
    if gan.generator.config.img_channels != 3:
        return torch.full((len(image),), math.nan)
    classes = gan.generator.mapping.labels_in_turn(torch.zeros(len(image), dtype=torch.int64))
    labels = [None] * len(image) if classes is None else classes.split(BATCH)
    rows = zip(image.split(BATCH), labels, strict=False)
    return torch.cat([gan.discriminator(*row)[:, 0] for row in rows])


def invariance(invert: Inverter, pairs: Pairs) -> float:
    """max |E(x') - E(x)| where x' has noise outside the visible subject, which is told exactly."""
    few = pairs.first(NOISED)
    image, told = few.views["occ"], few.visible
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    other = torch.where(told > 0, image, noise)
    return (invert_all(invert, other, told) - invert_all(invert, image, told)).abs().max().item()


def seconds(gan: HFGan, invert: Inverter, pairs: Pairs) -> float:
    """The least time that it took to invert one picture and draw the result: what else runs here only adds to it."""
    image, told, taken = pairs.views["occ"][:1], pairs.visible[:1], []
    for _ in range(REPEATS + 1):  # the first warms up
        start = time.perf_counter()
        render(gan.generator, invert(image, told))
        taken.append(time.perf_counter() - start)
    return min(taken[1:])


def about(gan: HFGan, pairs: Pairs) -> dict[str, Any]:
    """What there is to say of a model, whatever is told to it and however it inverts."""
    parameters = sum(parameter.numel() for parameter in gan.encoder.parameters())
    stored = sum(tensor.numel() for tensor in gan.encoder.state_dict().values())
    found = {"conditioned": gan.encoder.config.conditioned, "parameters": parameters, "fp16_mb": stored * 2 / 1e6}
    if gan.discriminator is None:
        return found
    true = logits(gan, pairs.wanted)
    return found | {"true_logit": true.mean().item(), "true_logit_sd": true.std().item()}


# ---------------------------------------------------------------- the file


def arm_and_seed(folder: str | Path) -> tuple[str, int]:
    """("restyle", 0) for runs/arm-restyle-0/model, or for runs/restyle-0."""
    path = Path(folder).resolve()
    name = path.parent.name if path.name == "model" else path.name
    found = re.fullmatch(r"(?:arm-)?(.+)-(\d+)", name)
    if not found:
        raise ValueError(f"{folder}: a run must be called NAME-SEED or arm-NAME-SEED")
    return found[1], int(found[2])


def load_model(folder: str, like: HFGan | None = None) -> HFGan:
    """A model that has all that is needed, and draws as another does."""
    gan = HFGan.from_pretrained(folder, dtype="float32")
    for name in ("generator", "encoder", "alpha", "matting"):
        gan.part(name)
    for name in ("generator", "alpha") if like else ():
        if gan.part(name).fingerprint() != like.part(name).fingerprint():
            raise ValueError(f"{folder} has another {name} than the first model: their numbers cannot be compared")
    return gan


def make_sets(gan: HFGan, options: argparse.Namespace) -> dict[str, Pairs]:
    """All pairs, whatever the limit, so that each set has one hash."""
    side = gan.generator.config.resolution
    sets = {"drawn": drawn_pairs(gan, read_photos(options.photos, side), options.count)}
    if options.occluded:
        sets["photos"] = occluded_pairs(options.occluded, side)
    if options.sheet:
        save_sheet(list(sets.values()), options.sheet)
    return sets


def measure_model(gan: HFGan, key: dict[str, Any], bench: Bench, results: dict[str, Any],
                  options: argparse.Namespace) -> None:  # fmt: skip
    """Add what is missing of one model and one way to invert; the file is written after each row.

    Args:
        key: Of every row of it: folder, arm, seed, fingerprint of the encoder, inverter.
    """
    known = inverters(gan, options.steps)
    if key["inverter"] not in known:
        raise ValueError(f"there is no inverter {key['inverter']!r}: there are {', '.join(known)}")
    invert = known[key["inverter"]]
    if not find(results["models"], key):
        drawn = bench.sets["drawn"]
        measured = {"invariance": invariance(invert, drawn), "seconds": seconds(gan, invert, drawn)}
        results["models"].append(key | about(gan, drawn) | measured)
    for name, pairs in bench.sets.items():
        for interest in interest_names(gan, options.auto):
            row = key | {"set": name, "interest": interest}
            before = find(results["rows"], row)
            if before and len(before["ids"]) >= len(pairs.ids):
                continue
            told = tell(gan, pairs, interest)
            values = bench.values(gan, invert, pairs, told)
            if interest == "auto":
                region = (told["occ"] >= 0.5).float()
                values |= {"iou": overlap(region, pairs.visible), "fallback": region.amin((1, 2, 3))}
            if before:  # of fewer identities
                results["rows"].remove(before)
            results["rows"].append(row | {"ids": pairs.ids, "values": plain(values)})
            write_atomic(Path(options.out), json.dumps(results).encode())


@torch.no_grad()
def measure(options: argparse.Namespace) -> None:
    """Measure every model that is not in the file."""
    first = load_model(options.models[0])
    sets = make_sets(first, options)
    protocol = {
        "format": FORMAT, "steps": options.steps, "generator": first.generator.fingerprint(),
        "alpha": first.alpha.fingerprint(), "pairs": {name: pairs.sha256() for name, pairs in sets.items()},
        "perceptual": options.perceptual and file_sha256(options.perceptual),
    }  # fmt: skip
    Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    results = open_results(Path(options.out), protocol)
    results["covered"] = {name: dict(zip(pairs.ids, pairs.covered(), strict=True)) for name, pairs in sets.items()}
    sets = {name: pairs.first(options.limit) for name, pairs in sets.items()}
    bench = Bench(first.generator, sets, load_perceptual(options.perceptual) if options.perceptual else None)
    for folder in options.models:
        start, gan = time.perf_counter(), load_model(folder, like=first)
        arm, seed = arm_and_seed(folder)
        key = {"folder": str(folder), "arm": arm, "seed": seed, "encoder": gan.encoder.fingerprint()}
        for kind in ("models", "rows"):  # what an encoder that is no longer there did
            results[kind] = [x for x in results[kind] if x["folder"] != key["folder"] or key.items() <= x.items()]
        for inverter in options.inverters:
            measure_model(gan, key | {"inverter": inverter}, bench, results, options)
        print(f"{folder}: {time.perf_counter() - start:.0f} s", flush=True)


def main() -> None:
    """Parse and do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "table"))
    parser.add_argument("--out", required=True, help=".json of all rows")
    parser.add_argument("--models", nargs="+", help="folders; all of one generator and one alpha")
    parser.add_argument("--photos", nargs="*", default=[], help=".zip with photos for backgrounds, not of training")
    parser.add_argument("--occluded", help=".zip of photos with and without an obstacle, and masks")
    parser.add_argument("--perceptual", help=".safetensors of LPIPS-Alex; without it, no perceptual distances")
    parser.add_argument("--steps", type=int, default=3, help="of the encoder")
    parser.add_argument("--inverters", nargs="+", default=["encoder"], help="ways to invert")
    parser.add_argument("--auto", action="store_true", help="also the interest that is found without a person")
    parser.add_argument("--limit", type=int, help="only the first identities of each set, the same as always")
    parser.add_argument("--count", type=int, default=COUNT, help="identities that are drawn; other pairs than usual")
    parser.add_argument("--sheet", help=".png of the pairs")
    parser.add_argument("--reference", default="restyle", help="arm that the others are compared with in the table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "table":
        print(tables(json.loads(Path(options.out).read_text()), options.reference))
    elif options.models:
        measure(options)
    else:
        parser.error("measure needs --models")


if __name__ == "__main__":
    main()
