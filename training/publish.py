"""Stage `publish`: a trained model becomes the folder that a Hub repository or `model_cards/` holds.

Weights in fp16, sample sheets and a card whose numbers come from `metrics.json` alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import run
import torch
from attribution import table as attribution_table
from directions import sheet as strips
from evaluate import COLUMNS
from modes import sheet
from PIL import Image
from run import flag

from hfgan import HFGan
from hfgan.attribution import FILE, Calibration, Protocol
from hfgan.images import grid, save_png, write_file
from hfgan.models.perceptual import load_perceptual

MAX_BYTES = 16 * 2**20  # of one file
SHEETS = (1.0, 0.7)  # truncation psi of the sample sheets


@dataclass(frozen=True)
class Config:
    """Write the published form of a model: weights, pictures, numbers, card."""

    model: str = field(metadata={"help": "model folder of a run"})
    out: str = field(metadata={"help": "folder to write, e.g. model_cards/NAME"})
    card: str = field(metadata={"help": "text of the card, with {table}, {parts}, {training} and so on in it"})
    metrics: tuple[str, ...] = field(metadata={"help": "metrics.json of the evaluate stage, one per held-out set"})
    attribution: str | None = flag(None, "attribution.json of that stage; default: what the model has")
    runs: tuple[str, ...] = flag((), "run folders that made the model, first to last")
    earlier: str | None = flag(None, "metrics.json of the model that the first of them started from")


def main(config: Config) -> None:
    """Write `config.out`."""
    with run.library_errors():
        write_published(config, Path(config.out))


def write_published(config: Config, out: Path) -> None:
    """Weights, pictures, metrics, card."""
    HFGan.from_pretrained(config.model, dtype="float32").save_pretrained(out, dtype=torch.float16)
    large = [p.name for p in out.rglob("*") if p.is_file() and p.stat().st_size > MAX_BYTES]
    if large:
        raise run.UserError(f"{', '.join(large)} in {out} is larger than 16 MB: publish a narrower model")
    gan = HFGan.from_pretrained(str(out), dtype="float32")  # what is shown is what is stored
    for psi in SHEETS:
        images = gan.sample(16, seed=0, truncation_psi=psi).images
        save_png(grid(images, 8), out / f"samples-psi-{psi:g}.png", overwrite=True)
    if gan.modes is not None:
        save_png(sheet(gan.modes), out / "modes.png", overwrite=True)
    if gan.alpha is not None:
        save_png(cutouts(gan), out / "cutouts.png", overwrite=True)
    if gan.directions is not None:
        save_png(strips(gan), out / "directions.png", overwrite=True)
    if gan.encoder is not None:
        save_png(inversions(gan), out / "inversions.png", overwrite=True)
    metrics = {"training": []} | join_metrics([json.loads(Path(path).read_text()) for path in config.metrics])
    if config.runs:
        from curves import plot_log  # needs matplotlib, which publishing again does not

        logs = [[json.loads(line) for line in (Path(f) / "log.jsonl").read_text().splitlines()] for f in config.runs]
        plot_log(logs[-1], out / "curve.png")
        before = json.loads(Path(config.earlier).read_text())["training"] if config.earlier else []
        metrics["training"] = before + [training_row(*pair) for pair in zip(config.runs, logs, strict=True)]
    write_file(out / "metrics.json", json.dumps(metrics, indent=1).encode(), overwrite=True)
    card = render_card(Path(config.card).read_text(), metrics, gan, calibration(config, out, gan))
    write_file(out / "README.md", card.encode(), overwrite=True)


def cutouts(gan: HFGan) -> Image.Image:
    """Eight samples; below them their alpha, what is cut out, and it on the background of yet another sample."""
    out = gan.sample(8, seed=0, truncation_psi=0.7)
    cuts, elsewhere = gan.cutouts(out), gan.composite(out, gan.sample(1, seed=8, truncation_psi=0.7))
    rows = [out.images, [cut.mask() for cut in cuts], [cut.on("white") for cut in cuts], elsewhere]
    return grid([picture.convert("RGB") for row in rows for picture in row], 8)


def inversions(gan: HFGan) -> Image.Image:
    """Eight samples behind an obstacle, a strip of another sample; the part that is told; what is found of it."""
    out, others = (gan.sample(8, seed=seed, truncation_psi=0.7).images for seed in (0, 8))
    region = Image.new("L", out[0].size, 255)
    side = region.width
    strip = (0, side // 2, side, side * 11 // 16)
    region.paste(0, strip)
    hidden = [Image.composite(picture, other, region) for picture, other in zip(out, others, strict=True)]
    found = [[gan.invert(picture, region, refine=steps).image for picture in hidden] for steps in (0, 50)]
    whole = [gan.invert(picture).image for picture in hidden]
    return grid([picture.convert("RGB") for row in (out, hidden, whole, *found) for picture in row], 8)


def join_metrics(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows of several held-out sets as one list, each set's photos and noise first."""
    kinds = sorted({each["feature_distance"] for each in found})
    if len(kinds) > 1:
        raise run.UserError(f"--metrics are of different features, {', '.join(kinds)}: evaluate with one --features")
    return found[0] | {"rows": [row for each in found for row in each["rows"]]}


def training_row(folder: str, log: list[dict[str, Any]]) -> dict[str, Any]:
    """What a run did: its newest checkpoint's count and time, and its last Frechet distance."""
    newest = max(Path(folder).glob("checkpoint-*[0-9]"))
    state = json.loads((newest / "state.json").read_text())
    distances = [entry["fd_mnv2"] for entry in log if "fd_mnv2" in entry]
    minutes = round(state["seconds"] / 60, 1)
    last = distances[-1] if distances else None
    return {"run": Path(folder).name, "images_seen": state["images_seen"], "minutes": minutes, "fd_mnv2": last}


def calibration(config: Config, out: Path, gan: HFGan) -> Calibration | None:
    """The calibration that is published, which must be this very model's; None where there is none."""
    own = HFGan.download(config.model) / FILE
    if config.attribution is None and not own.is_file():
        return None
    found = Calibration.read(config.attribution or own)
    found.check(Protocol.of(gan.generator, gan.encoder, load_perceptual()))
    found.save(out / FILE)
    return found


def render_card(template: str, metrics: dict[str, Any], gan: HFGan, told: Calibration | None = None) -> str:
    """Fill the card's places with what was measured and what is stored."""
    sizes = [(name, sum(t.numel() for t in part.state_dict().values())) for name, part in gan.parts.items()]
    parts = "\n".join(f"| {name} | {type(gan.part(name)).__name__} | {count:,} |" for name, count in sizes)
    filled = {
        "table": markdown_table(metrics),
        "parts": parts,
        "training": training_table(metrics["training"]),
        "attribution": "" if told is None else attribution_table(told),
        "fingerprint": gan.generator.fingerprint(),
    }
    for name, text in filled.items():
        template = template.replace("{" + name + "}", text)
    return template


def training_table(runs: list[dict[str, Any]]) -> str:
    """The runs behind a model as a table."""
    lines = ["| run | images | minutes | FD-MNv2 in training |", "|---|---|---|---|"]
    for row in runs:
        distance = "" if row["fd_mnv2"] is None else f"{row['fd_mnv2']:.0f}"
        lines.append(f"| {row['run']} | {row['images_seen']:,} | {row['minutes']:g} | {distance} |")
    return "\n".join(lines)


def markdown_table(metrics: dict[str, Any]) -> str:
    """The rows of metrics.json with three digits, a table for each held-out set."""
    sets: dict[str, list[dict[str, Any]]] = {}
    for row in metrics["rows"]:
        sets.setdefault(row["protocol"]["real"], []).append(row)
    heads = {name: max(row["protocol"]["num_real"] for row in rows) for name, rows in sets.items()}
    return "\n\n".join(
        f"Against the {heads[name]:,} photos of {name}:\n\n{rows_table(rows, metrics['feature_distance'])}"
        for name, rows in sets.items()
    )


def rows_table(rows: list[dict[str, Any]], distance: str) -> str:
    """Rows measured against one set."""
    columns = [c for c in COLUMNS if any(c in row for row in rows)]
    heads = [distance if c == "fd" else c for c in columns]
    lines = ["| what | psi | " + " | ".join(heads) + " |", "|---" * (len(columns) + 2) + "|"]
    for row in rows:
        numbers = [f"{row[c]:.3g}" if c in row else "" for c in columns]
        psi = "" if row["truncation_psi"] is None else f"{row['truncation_psi']:g}"
        lines.append(f"| {row['what']} | {psi} | " + " | ".join(numbers) + " |")
    return "\n".join(lines)
