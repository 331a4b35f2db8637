"""Stage `filter`: score every photo, decide by a policy which to keep, and write it all down (arXiv 2202.12211 §3.2).

`out/` gets manifest.jsonl (id, score, w, mode, kept, source), filter.json (settings, counts, shares per mode),
scores.png and mosaics of the worst kept and the best dropped photos. Photos are scored in chunks at fixed places,
so the result depends neither on the number of processes nor on how often the stage was killed and started again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

import run
import torch
from accelerate import Accelerator
from filterplots import draw_report
from reconstruction import Distance, reconstruct
from run import flag
from torch import Tensor
from tqdm import tqdm

from hfgan import HFGan
from hfgan.data import PhotoDataset, open_photos
from hfgan.filtering import (
    Line,
    gaussian_score,
    keep_below,
    keep_count,
    keep_per_mode,
    keep_quantile,
    knee,
    neighbour_score,
    write_manifest,
)
from hfgan.images import to_image, write_file
from hfgan.memory import in_parts, net_at_once
from hfgan.metrics import extract_features, mean_and_covariance
from hfgan.models.perceptual import load_perceptual
from hfgan.modes import fit_modes, nearest_l2, nearest_mode
from hfgan.storage import write_json

CHUNK = 64  # photos scored together
ANCHORS = 20_000  # photos at most behind the methods that compare with other photos
FEATURE_SIZE = 128  # px at which photos are embedded


@dataclass(frozen=True)
class Config:
    """Score photos by how well a model draws them again, and keep the best."""

    model: str = field(metadata={"help": "model with a reconstructor: bundled name, folder or Hub id"})
    data: str = field(metadata={"help": "the photos: folder, .zip or Hub data set id"})
    out: str = field(metadata={"help": "folder to write; the same command resumes"})
    method: Literal["reconstruction", "knn", "instance-selection", "discriminator", "random"] = flag(
        "reconstruction", "what a score is; lower is kept"
    )
    policy: Literal["quantile", "count", "max-score", "per-mode-quantile", "knee"] = flag(
        "quantile", "which scores are kept"
    )
    keep: float = flag(0.9, "share to keep, of policy quantile and per-mode-quantile")
    count: int | None = flag(None, "number to keep, of policy count")
    max_score: float | None = flag(None, "highest score to keep, of policy max-score")
    num_modes: int = flag(16, "clusters of E(x), where the model has no modes of its own")
    perceptual: str | None = flag(None, "perceptual weights of the reconstruction score; default: what ships with us")
    features: str | None = flag(None, "weights that knn and instance-selection embed with; default as above")
    seed: int = flag(0, "of the clusters, the random method and the choice of anchors")


MAY_CHANGE = {"policy", "keep", "count", "max_score", "num_modes"}  # scores stay valid


def main(config: Config) -> None:
    """Score what has no score yet, then decide and report."""
    accelerator = Accelerator()
    check(config)
    folder = run.RunFolder(config.out, config, MAY_CHANGE, main_process=accelerator.is_main_process)
    with run.library_errors():
        gan = HFGan.from_pretrained(config.model, device=accelerator.device)
        shape = gan.generator.config
        with accelerator.main_process_first():
            photos = open_photos(config.data, shape.resolution, img_channels=shape.img_channels,
                                 index=folder.path / "photos.json")  # fmt: skip
    if accelerator.is_main_process:
        print(photos.summary())
        photos.write_report(folder.path / "photos-report.json")
    with run.library_errors():
        check_decision(config, gan, len(photos))
        check_model(config, gan, folder.path / "scored-by.json", accelerator.is_main_process)
    score(config, accelerator, folder.path, gan, photos)
    if accelerator.is_main_process:
        with run.library_errors():
            decide(config, folder.path, gan, photos)
    accelerator.wait_for_everyone()


def check(config: Config) -> None:
    """Say at once what would fail after all photos are scored."""
    needed = {"count": config.count, "max-score": config.max_score}
    if config.policy in needed and needed[config.policy] is None:
        raise run.UserError(f"--policy {config.policy} needs --{config.policy} with a number")
    if not 0 < config.keep <= 1:
        raise run.UserError(f"--keep is {config.keep}: give the share to keep, above 0 and up to 1")
    if config.num_modes < 1:
        raise run.UserError(f"--num-modes is {config.num_modes}: give 1 or more")


def check_decision(config: Config, gan: HFGan, photos: int) -> None:
    """The same, for what depends on the model and the number of photos."""
    if config.policy == "count" and not 1 <= config.count <= photos:
        raise ValueError(f"--count is {config.count}: there are {photos} photos, give 1 to {photos}")
    if config.policy == "per-mode-quantile" and gan.reconstructor is None:
        raise ValueError("--policy per-mode-quantile needs a model with a reconstructor, whose w have modes")
    if config.method == "discriminator" and gan.generator.config.c_dim:
        raise ValueError("--method discriminator needs a model without classes: choose another method")


def check_model(config: Config, gan: HFGan, path: Path, main_process: bool) -> None:
    """Scores of two models cannot be compared: the model behind a path must be the one of the first start."""
    names = {"discriminator": ["discriminator"], "random": [], "reconstruction": ["generator", "reconstructor"]}
    used = {"reconstructor", *names.get(config.method, [])}  # an encoder always gives w
    marks = {name: gan.part(name).fingerprint() for name in sorted(used) if name in gan.parts}
    if path.exists() and (known := json.loads(path.read_text())) != marks:
        told = ", ".join(f"{k} was {known.get(k)}, now {marks.get(k)}" for k in sorted(known.keys() | marks.keys()))
        raise ValueError(f"{config.model} has changed since {path.parent} was begun ({told}): give a new --out")
    if main_process:
        write_json(path, marks)


# ---------------------------------------------------------------- scores


def score(config: Config, accelerator: Accelerator, out: Path, gan: HFGan, photos: PhotoDataset) -> None:
    """Append the scores of this process's chunks that no earlier start has scored to a file of its own."""
    done = {line["index"] for line in read_scores(out)}
    accelerator.wait_for_everyone()  # before anyone writes
    chunks = [list(range(a, min(a + CHUNK, len(photos)))) for a in range(0, len(photos), CHUNK)]
    mine = [c for c in chunks[accelerator.process_index :: accelerator.num_processes] if not done.issuperset(c)]
    if mine:
        with run.library_errors():
            scorer = scorer_of(config, gan, photos)
        encoder = (
            None if config.method != "reconstruction" and gan.reconstructor is None else gan.part("reconstructor")
        )
        with open_whole(out / f"scores-{accelerator.process_index}.jsonl") as file, torch.no_grad():
            for chunk in tqdm(mine, unit=f" x {CHUNK} photos", disable=not accelerator.is_main_process or None):
                image = to_image(photos.batch(chunk)).to(accelerator.device)  # (n, c, r, r)
                w = None
                if encoder is not None:
                    w = in_parts(encoder, net_at_once(encoder, len(image)), image)  # (n, w_dim)
                for row, value in enumerate(scorer(image, chunk).tolist()):
                    rounded = None if w is None else [round(x, 4) for x in w[row].tolist()]
                    file.write(json.dumps({"index": chunk[row], "score": value, "w": rounded}) + "\n")
                file.flush()
    accelerator.wait_for_everyone()


def open_whole(path: Path) -> TextIO:
    """A file to append lines to, without the end of a line that a kill cut short."""
    if path.exists():
        whole = path.read_bytes().rpartition(b"\n")
        write_file(path, whole[0] + whole[1], overwrite=True)
    return path.open("a")


def read_scores(out: Path) -> Iterator[dict[str, Any]]:
    """The lines of all score files but those that a kill cut short, in any order; some may come twice."""
    for path in sorted(out.glob("scores-*.jsonl")):
        with path.open() as file:
            yield from (json.loads(text) for text in file if text.endswith("}\n"))


Scorer = Callable[[Tensor, list[int]], Tensor]  # images (n, c, r, r) in [-1, 1] and their places -> scores (n,)


def scorer_of(config: Config, gan: HFGan, photos: PhotoDataset) -> Scorer:
    """The method as a function of a chunk of photos."""
    if config.method == "reconstruction":
        encoder, distance = gan.part("reconstructor"), Distance(config.perceptual, gan.device)
        return lambda image, chunk: distance(image, reconstruct(gan.generator, encoder, image).again).cpu()
    if config.method == "discriminator":
        judge = gan.part("discriminator")  # one by one: its minibatch deviation compares the images of a batch
        return lambda image, chunk: torch.cat([-judge(one) for one in image.split(1)]).flatten().cpu()
    if config.method == "random":
        order = torch.rand(len(photos), generator=run.random_source(config.seed))
        return lambda image, chunk: order[chunk]
    return feature_scorer(config, photos, gan.device)


def feature_scorer(config: Config, photos: PhotoDataset, device: torch.device) -> Scorer:
    """How far a photo's embedding is from those of the anchors: a random choice of photos, or all of them."""
    net = load_perceptual(config.features).to(device)
    chosen = torch.randperm(len(photos), generator=run.random_source(config.seed))[:ANCHORS].sort().values
    batches = (photos.batch(part.tolist()) for part in chosen.split(CHUNK))
    anchors = extract_features(batches, net.embed, FEATURE_SIZE)  # (m, d)

    def embed(image: Tensor) -> Tensor:
        return extract_features([image], net.embed, FEATURE_SIZE)

    if config.method == "instance-selection":
        gaussian = mean_and_covariance(anchors)
        return lambda image, chunk: gaussian_score(embed(image), *gaussian)
    places = set(chosen.tolist())
    return lambda image, chunk: neighbour_score(embed(image), anchors, torch.tensor([p in places for p in chunk]))


# ---------------------------------------------------------------- decision


def decide(config: Config, out: Path, gan: HFGan, photos: PhotoDataset) -> None:
    """Write the manifest, the summary and the pictures."""
    scores = torch.full((len(photos),), torch.nan, dtype=torch.float64)
    w = torch.empty(len(photos), gan.generator.config.w_dim) if gan.reconstructor is not None else None
    for line in read_scores(out):
        scores[line["index"]] = line["score"]
        if w is not None:
            w[line["index"]] = torch.tensor(line["w"])
    if scores.isnan().any():
        raise ValueError(f"{int(scores.isnan().sum())} photos have no score in {out}: give the same command again")
    modes = None if w is None else modes_of(config, gan, w)
    kept = choose(config, scores, modes)
    source = Path(config.data).name
    manifest: Iterator[Line] = (
        {"id": name, "score": scores[i].item(), "w": None if w is None else [round(x, 4) for x in w[i].tolist()],
         "mode": None if modes is None else modes[i].item(), "kept": kept[i].item(), "source": source}
        for i, name in enumerate(photos.ids)
    )  # fmt: skip
    write_manifest(out / "manifest.jsonl", manifest)
    summary = summarise(config, scores, modes, kept)
    write_json(out / "filter.json", summary)
    draw_report(out, scores, kept, photos, title=f"{source}, {config.method}, {config.policy}")
    print(f"kept {summary['kept']:,} of {len(scores):,} photos ({summary['kept'] / len(scores):.1%}), "
          f"scores up to {summary['highest_kept']:.4g}: {out / 'manifest.jsonl'}")  # fmt: skip


def modes_of(config: Config, gan: HFGan, w: Tensor) -> Tensor:
    """The mode (n,) of every photo's w (n, w_dim): the model's own, else a cluster of them."""
    if gan.modes is not None:
        return nearest_mode(w.to(gan.device), gan.modes).cpu()
    different = len(w.unique(dim=0))  # a photo may come twice
    return nearest_l2(w, fit_modes(w, min(config.num_modes, different), seed=config.seed))


def choose(config: Config, scores: Tensor, modes: Tensor | None) -> Tensor:
    """The policy: bool (n,)."""
    if config.policy == "quantile":
        return keep_quantile(scores, config.keep)
    if config.policy == "count":
        return keep_count(scores, config.count)
    if config.policy == "max-score":
        return keep_below(scores, config.max_score)
    if config.policy == "knee":
        return keep_below(scores, knee(scores))
    return keep_per_mode(scores, modes, config.keep)


def summarise(config: Config, scores: Tensor, modes: Tensor | None, kept: Tensor) -> dict[str, Any]:
    """Settings, counts, quantiles, and how the modes fared."""
    marks = torch.tensor([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0], dtype=torch.float64)
    quantiles = zip(marks.tolist(), scores.quantile(marks).tolist(), strict=True)
    found = {
        "settings": dataclasses.asdict(config) | {"data": Path(config.data).name},
        "photos": len(scores), "kept": int(kept.sum()), "highest_kept": scores[kept].max().item(),
        "quantiles": {f"{mark:g}": value for mark, value in quantiles},
    }  # fmt: skip
    if modes is not None:
        found["modes"] = [
            {"mode": int(m), "share_before": (modes == m).double().mean().item(),
             "share_after": (modes[kept] == m).double().mean().item(),
             "kept": kept[modes == m].double().mean().item()}
            for m in modes.unique()
        ]  # fmt: skip
    return found
