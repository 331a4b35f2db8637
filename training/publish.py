"""Stage `publish`: a trained model becomes the folder that a Hub repository or `model_cards/` holds.

Weights in fp16, sample sheets and a card whose numbers come from `metrics.json` alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import run
from evaluate import COLUMNS

from hfgan import HFGan
from hfgan.images import grid, save_png, write_file

MAX_BYTES = 16 * 2**20  # of one file
SHEETS = (1.0, 0.7)  # truncation psi of the sample sheets


@dataclass(frozen=True)
class Config:
    """Write the published form of a model: weights, pictures, numbers, card."""

    model: str = field(metadata={"help": "model folder of a run"})
    out: str = field(metadata={"help": "folder to write, e.g. model_cards/NAME"})
    card: str = field(metadata={"help": "text of the card, with {table}, {parts} and {fingerprint} in it"})
    metrics: str = field(metadata={"help": "metrics.json of the evaluate stage"})
    curve: str | None = field(default=None, metadata={"help": "log.jsonl of the run, for the learning curve"})


def main(config: Config) -> None:
    """Write `config.out`."""
    out = Path(config.out)
    import torch

    HFGan.from_pretrained(config.model, dtype="float32").save_pretrained(out, dtype=torch.float16)
    large = [p.name for p in out.rglob("*") if p.is_file() and p.stat().st_size > MAX_BYTES]
    if large:
        raise run.UserError(f"{', '.join(large)} in {out} is larger than 16 MB: publish a narrower model")
    gan = HFGan.from_pretrained(str(out), dtype="float32")  # what is shown is what is stored
    for psi in SHEETS:
        images = gan.sample(16, seed=0, truncation_psi=psi).images
        save_png(grid(images, 8), out / f"samples-psi-{psi:g}.png", overwrite=True)
    if config.curve:
        from curves import plot_log

        plot_log([json.loads(line) for line in Path(config.curve).read_text().splitlines()], out / "curve.png")
    metrics = json.loads(Path(config.metrics).read_text())
    write_file(out / "metrics.json", json.dumps(metrics, indent=1).encode(), overwrite=True)
    card = render_card(Path(config.card).read_text(), metrics, gan)
    write_file(out / "README.md", card.encode(), overwrite=True)


def render_card(template: str, metrics: dict[str, Any], gan: HFGan) -> str:
    """Fill the card's places with what was measured and what is stored."""
    sizes = [(name, sum(p.numel() for p in part.parameters())) for name, part in gan.parts.items()]
    parts = "\n".join(f"| {name} | {type(gan.part(name)).__name__} | {count:,} |" for name, count in sizes)
    filled = {"table": markdown_table(metrics), "parts": parts, "fingerprint": gan.generator.fingerprint()}
    for name, text in filled.items():
        template = template.replace("{" + name + "}", text)
    return template


def markdown_table(metrics: dict[str, Any]) -> str:
    """The rows of metrics.json with three digits."""
    rows = metrics["rows"]
    columns = [c for c in COLUMNS if any(c in row for row in rows)]
    heads = [metrics["feature_distance"] if c == "fd" else c for c in columns]
    lines = ["| what | psi | " + " | ".join(heads) + " |", "|---" * (len(columns) + 2) + "|"]
    for row in rows:
        numbers = [f"{row[c]:.3g}" if c in row else "" for c in columns]
        psi = "" if row["truncation_psi"] is None else f"{row['truncation_psi']:g}"
        lines.append(f"| {row['what']} | {psi} | " + " | ".join(numbers) + " |")
    return "\n".join(lines)
