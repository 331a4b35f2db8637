"""What directions do, measured by a judge that was taught labels: for evaluation only.

`teach` teaches the judge, and prints how far it agrees with labels of held-out photos. `score` moves samples along
each direction of a model in several ways, and prints what changes of the attribute that it is named after, of all
others, and of how real and how much the same the pictures are. `clicks` finds directions from as few labels as
somebody clicks, and from many, and asks whether what `quality` says of one foretells what it does. All changes are in
deviations of the attribute over samples, which are drawn with psi between 0.7 and 1.

    python tests/bench/editscores.py teach --photos hfaces128-train.zip --truth hfaces128-train-truth.zip \\
        --test hfaces128-test.zip --test-truth hfaces128-test-truth.zip --features mobilenet_v2.safetensors \\
        --judge judge.safetensors
    python tests/bench/editscores.py score --model runs/directions/model --judge judge.safetensors \\
        --features mobilenet_v2.safetensors --own glasses=eyewear
    python tests/bench/editscores.py clicks --model hfaces-64 --judge judge.safetensors \\
        --features mobilenet_v2.safetensors
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import torch
from editjudge import Judge, is_binary, teach
from torch import Tensor

from hfgan import HFGan
from hfgan.finding import conditional, fit_labels
from hfgan.metrics import rank_correlation
from hfgan.models.directions import Direction, WStats
from hfgan.models.perceptual import load_perceptual
from hfgan.sampling import broadcast
from hfgan.traits import traits

sys.path.insert(0, str(Path(__file__).parents[2] / "training"))
import run
from directions import LEAST_PSI, draw
from modes import draw_w

SCORE, TRUNCATE, POOL, CHOOSE = 20, 21, 22, 23  # what randomness is for
WAYS = ("raw", "natural", "conditional", "stored")
MOST = 6.0  # strength that is tried, for a change of one deviation
CLEAR = {"binary": 2.0, "number": 0.7}  # logit, or deviations, from which on somebody would be sure
LABELLED = ("smile", "eyewear", "long_hair", "beard", "hat", "skin_t", "hair_light")
# attributes that are one to the eye: a change of one by a direction of another is no leak
SAME = ({"glasses", "sunglasses", "eyewear"}, {"hair_light", "hair_warm", "top_light", "top_red", "top_saturation"},
        {"skin_t", "middle_light"}, {"cloth_light", "cloth_warm", "bottom_light", "bottom_red", "bottom_blue"},
        {"scale", "area", "height", "width"})  # fmt: skip

Row = dict[str, float | str | dict[str, float] | None]


# ---------------------------------------------------------------- seen


@dataclass(frozen=True)
class Seen:
    """Pictures (n, 3, r, r) and what is made of them: attributes (n, k), logits (n,) of being real."""

    images: Tensor
    attributes: Tensor
    logits: Tensor


class Eye:
    """Draws w_plus of a model and says what is seen: attributes by the judge, and traits."""

    def __init__(self, gan: HFGan, judge: Judge | None, measured: Sequence[str]) -> None:
        self.gan, self.judge, self.traits, self.net = gan, judge, list(measured), load_perceptual()
        self.names = [*(judge.names if judge else []), *self.traits]
        self.stats = WStats.of(gan.generator)

    @torch.no_grad()
    def see(self, w_plus: Tensor) -> Seen:
        """What is seen of w_plus (n, num_ws, w_dim)."""
        found = []
        for image, alpha in draw(self.gan.generator, self.gan.alpha, w_plus):
            measured = traits(image, alpha)
            told = [self.judge(image)] if self.judge else []
            told += [measured[name][:, None] for name in self.traits]
            found.append((image, torch.cat(told, 1), self.gan.part("discriminator")(image).flatten()))
        return Seen(*(torch.cat(part) for part in zip(*found, strict=True)))

    def samples(self, num: int, purpose: int) -> Tensor:
        """w (n, w_dim), truncated a little."""
        psi = torch.empty(num, 1).uniform_(LEAST_PSI, 1, generator=run.random_source(purpose, TRUNCATE))
        return self.gan.generator.mapping.w_avg.lerp(draw_w(self.gan.generator, num, purpose), psi)

    @torch.no_grad()
    def drift(self, a: Tensor, b: Tensor) -> float:
        """Mean perceptual distance of two rows of pictures."""
        pairs = zip(a.split(64), b.split(64), strict=True)
        return torch.cat([self.net.distance(*pair) for pair in pairs]).mean().item()


class Trial:
    """The same samples moved along one direction after another."""

    def __init__(self, eye: Eye, num: int) -> None:
        self.eye, self.w_plus = eye, broadcast(eye.samples(num, SCORE), eye.gan.generator.num_ws)
        self.before = eye.see(self.w_plus)
        self.spread = self.before.attributes.std(0)

    def moved(self, direction: Direction, strength: float) -> tuple[Tensor, tuple[Seen, Seen]]:
        """Half the difference (k,) that moves by `strength` up and down make, in deviations, and what both draw."""
        shift = strength * direction.shift(self.w_plus.shape[1])
        up, down = (self.eye.see(self.w_plus + sign * shift) for sign in (1, -1))
        return (up.attributes - down.attributes).mean(0) / 2 / self.spread, (up, down)

    def length(self, direction: Direction) -> float:
        """Deviations of W that strength 1 is; of one that moves some layers, as if it moved all."""
        return self.eye.stats.distance(direction.step.mean(0, keepdim=True)).item()


def others_of(own: str, names: Sequence[str]) -> list[int]:
    """Places of the attributes that an edit of `own` should leave alone."""
    same = {own}.union(*(group for group in SAME if own in group))
    return [k for k, name in enumerate(names) if name not in same]


# ---------------------------------------------------------------- score


def own_attribute(one: Direction, names: Sequence[str], told: dict[str, str]) -> str | None:
    """What a direction is about: as told, its trait, or the attribute of that name."""
    name = told.get(one.name) or one.source.get("recipe", {}).get("trait") or one.name.replace(" ", "_")
    return name if name in names else None


def ways(one: Direction, others: Sequence[Direction], stats: WStats) -> Iterator[tuple[str, Direction]]:
    """The direction as it is stored, and on all layers along its normal, naturally, and leaving the others alone."""
    yield "stored", one
    normal = one.normal.double()
    plain = replace(one, layers=None)
    yield "raw", replace(plain, step=normal / normal.square().sum())
    yield "natural", replace(plain, step=stats.cov @ normal / (normal @ stats.cov @ normal))
    try:
        yield "conditional", conditional(plain, others, stats)
    except ValueError as error:  # nothing is left of it
        sys.stderr.write(f"{error}\n")


def score_one(trial: Trial, one: Direction, own: str) -> Row:
    """A way of moving one attribute: its change and others' at strength 1, the price of one deviation of change."""
    sign = -1 if one.source.get("recipe", {}).get("flip") else 1  # the name is that of less of it
    names = trial.eye.names
    place, others = names.index(own), others_of(own, names)
    change, _ = trial.moved(one, 1.0)
    gain = change[place].item()
    strength = min(1 / max(abs(gain), 1e-3), MOST)
    far, (up, down) = trial.moved(one, strength)
    before, reached = trial.before, far[place].abs().clamp(min=1e-3)
    leak = far[others].abs() / reached
    worst = leak.argmax()
    logit = (torch.cat([up.logits, down.logits]).mean() - before.logits.mean()).item()
    return {
        "own": sign * gain, "reached": sign * far[place].item(), "leak": leak.mean().item(),
        "worst": names[others[worst]], "worst_leak": leak[worst].item(),
        "strength": strength, "length": strength * trial.length(one), "logit": logit,
        "drift": mean(trial.eye.drift(before.images, seen.images) for seen in (up, down)),
        "changes": dict(zip(names, change.tolist(), strict=True)),
    }  # fmt: skip


def score(options: argparse.Namespace) -> dict[str, object]:
    """A row for each way of each direction that has an attribute."""
    gan = HFGan.from_pretrained(options.model, dtype=options.dtype)
    directions = [one for one in gan.part("directions") if one.normal is not None]
    judge = Judge.load(options.judge, options.features) if options.judge else None
    measured = {one.source.get("recipe", {}).get("trait") for one in directions} - {None}
    eye = Eye(gan, judge, sorted(measured))
    told = dict(pair.split("=", 1) for pair in options.own)
    owned = {one.name: own for one in directions if (own := own_attribute(one, eye.names, told))}
    trial, rows = Trial(eye, options.samples), []
    for one in directions:
        if one.name not in owned:
            continue
        others = [other for other in directions if other.name in owned and other is not one]
        for way, moved in ways(one, others, eye.stats):
            rows.append({"direction": one.name, "way": way, "attribute": owned[one.name],
                         "quality": one.source.get("quality")} | score_one(trial, moved, owned[one.name]))  # fmt: skip
            print(markdown(rows[-1:]) if len(rows) == 1 else markdown(rows[-1:]).splitlines()[-1], flush=True)
    print("\n" + summary(rows))
    return {"model": str(options.model), "samples": options.samples, "attributes": eye.names, "rows": rows}


def summary(rows: Sequence[Row]) -> str:
    """A line for each direction with all its ways, and the means over directions."""
    by_name: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_name.setdefault(row["direction"], {})[row["way"]] = row
    columns = ("own", "leak", "length", "logit", "drift")
    lines = [f"| direction: {' / '.join(WAYS)} | {' | '.join(columns)} | most on, stored |", "|---" * 7 + "|"]
    for name, found in by_name.items():
        cells = [" / ".join(f"{found[way][c]:.2f}" if way in found else "–" for way in WAYS) for c in columns]
        stored = found["stored"]
        lines.append(f"| {name} | {' | '.join(cells)} | {stored['worst']} {stored['worst_leak']:.2f} |")
    means = [" / ".join(f"{mean(row[c] for row in rows if row['way'] == way):.2f}" for way in WAYS) for c in columns]
    return "\n".join([*lines, f"| mean | {' | '.join(means)} | |"])


def markdown(rows: Sequence[Row]) -> str:
    """Rows as a table; the leak is of other attributes, for a change of one deviation of its own."""
    columns = ["direction", "way", "own", "leak", "worst", "strength", "length", "logit", "drift"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in rows:
        worst = {"worst": f"{row['worst']} {row['worst_leak']:.2f}"}
        cells = [f"{x:.2f}" if isinstance(x, float) else str(x) for x in (({**row} | worst)[c] for c in columns)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


# ---------------------------------------------------------------- clicks


def clear_cases(values: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Samples of which somebody would say at once that they have the attribute, and that they have it not."""
    if is_binary(name):
        return (values > CLEAR["binary"]).nonzero()[:, 0], (values < -CLEAR["binary"]).nonzero()[:, 0]
    z = (values - values.mean()) / values.std()
    return (z > CLEAR["number"]).nonzero()[:, 0], (z < -CLEAR["number"]).nonzero()[:, 0]


def clicked(eye: Eye, w: Tensor, seen: Tensor, count: int, seed: int) -> dict[str, Direction]:
    """A direction for each of LABELLED, found from `count` clear cases of each kind, or as many as there are."""
    found = {}
    for name in LABELLED:
        cases = clear_cases(seen[:, eye.names.index(name)], name)
        order = run.random_source(CHOOSE, seed)
        plus, minus = (rows[torch.randperm(len(rows), generator=order)][:count] for rows in cases)
        labels = torch.arange(len(plus) + len(minus)) < len(plus)
        if min(len(plus), len(minus)) >= min(count, 20):
            found[name] = fit_labels(name, w[torch.cat([plus, minus])], labels, eye.stats)
    return found


def clicks(options: argparse.Namespace) -> dict[str, object]:
    """Effect and leak of directions from few labels and from many, and what foretells the effect."""
    gan, judge = HFGan.from_pretrained(options.model, dtype=options.dtype), Judge.load(options.judge, options.features)
    eye, rows = Eye(gan, judge, []), []
    w, trial = eye.samples(options.pool, POOL), Trial(eye, options.samples)
    seen = eye.see(broadcast(w, gan.generator.num_ws)).attributes
    for count, seeds in ((options.few, options.seeds), (options.many, 1)):
        for seed in range(seeds):
            found = clicked(eye, w, seen, count, seed)
            for name, one in found.items():
                others = [other for other in found.values() if other is not one]
                told = {key: one.source[key] for key in ("n_pos", "n_neg", "split_half", "accuracy", "quality")}
                about = {"attribute": name, "labels": count, "seed": seed} | told
                rows += [about | {"way": way} | click_one(trial, moved, name)
                         for way, moved in ways(one, others, eye.stats) if way != "stored"]  # fmt: skip
    foretold = {key: foretelling(rows, options.few, key) for key in ("split_half", "accuracy")}
    print(clicks_table(rows), f"\nrank correlation with the effect of {options.few} + {options.few}: {foretold}")
    return {"model": str(options.model), "pool": options.pool, "rows": rows, "rank_correlation": foretold}


def click_one(trial: Trial, one: Direction, own: str) -> Row:
    """Change of the own attribute at strength 1, that of others for each of it, and the deviations of W that it is."""
    names = trial.eye.names
    change, _ = trial.moved(one, 1.0)
    effect = change[names.index(own)].item()
    leak = change[others_of(own, names)].abs().mean().item() / max(abs(effect), 1e-3)
    return {"effect": effect, "leak": leak, "length": trial.length(one)}


def foretelling(rows: Sequence[Row], count: int, key: str) -> float:
    """Rank correlation, over attributes and seeds, of a number of a direction and the effect of its natural step."""
    chosen = [row for row in rows if row["labels"] == count and row["way"] == "natural"]
    return rank_correlation(*(torch.tensor([row[k] for row in chosen]) for k in (key, "effect")))


def clicks_table(rows: Sequence[Row]) -> str:
    """Means over seeds: effect of strength 1, the same for each deviation of W that it is, leak for each of effect."""
    lines = ["| attribute | labels | way | effect | effect / length | leak | split half |", "|---" * 7 + "|"]
    for key in dict.fromkeys((row["attribute"], row["labels"], row["way"]) for row in rows):
        own = [row for row in rows if (row["attribute"], row["labels"], row["way"]) == key]
        ratio = mean(row["effect"] / row["length"] for row in own)
        numbers = [mean(row["effect"] for row in own), ratio, *(mean(row[k] for row in own) for k in
                   ("leak", "split_half"))]  # fmt: skip
        lines.append(f"| {' | '.join(map(str, key))} | " + " | ".join(f"{x:.2f}" for x in numbers) + " |")
    return "\n".join(lines)


# ---------------------------------------------------------------- started


def learn(options: argparse.Namespace) -> dict[str, object]:
    """Teach the judge and write it."""
    taught, held_out = (options.photos, options.truth), (options.test, options.test_truth)
    judge, found = teach(taught, held_out, options.features, options.side, options.epochs)
    judge.save(options.judge)
    print("\n".join(f"| {name} | {'AUC' if is_binary(name) else 'correlation'} | {value:.3f} |"
                    for name, value in found.items()))  # fmt: skip
    return {"photos": options.photos.name, "test": options.test.name, "side": options.side, "agreement": found}


def main() -> None:
    """Parse the flags, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    for name, do in {"teach": learn, "score": score, "clicks": clicks}.items():
        verb = verbs.add_parser(name)
        verb.set_defaults(do=do)
        verb.add_argument("--judge", type=Path, required=name != "score", help="what teach wrote, or is to write")
        verb.add_argument("--features", type=Path, required=name != "score", help="MobileNetV2 weights")
        verb.add_argument("--json", type=Path, help="write the figures to this file")
        if name == "teach":
            for flag in ("--photos", "--truth", "--test", "--test-truth"):
                verb.add_argument(flag, type=Path, required=True, help="zip; truth is for evaluation only")
            verb.add_argument("--side", type=int, default=64, help="of the models' pictures [px] (%(default)s)")
            verb.add_argument("--epochs", type=int, default=6)
        else:
            verb.add_argument("--model", required=True)
            verb.add_argument("--samples", type=int, default=500, help="that are moved (%(default)s)")
            verb.add_argument("--dtype", default="auto")
    about = "what a direction is about, glasses=eyewear; default: its trait, or its name"
    verbs.choices["score"].add_argument("--own", nargs="*", default=[], help=about)
    for flag, count in {"--few": 20, "--many": 1000, "--seeds": 5, "--pool": 8000}.items():
        verbs.choices["clicks"].add_argument(flag, type=int, default=count)
    options = parser.parse_args()
    found = options.do(options)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
