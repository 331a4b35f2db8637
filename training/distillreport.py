"""report.md of a distillation: what was kept, how the two generators compare, which modes there are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from publish import markdown_table


def write_report(out: Path) -> None:
    """Write `out/report.md` from what the stages left in their folders."""
    sections = [
        "# Distillation",
        _filter(out / "3-filter"),
        _generators(out),
        _modes(out / "5-modes"),
    ]
    (out / "report.md").write_text("\n\n".join(sections) + "\n")


def _filter(folder: Path) -> str:
    summary = json.loads((folder / "filter.json").read_text())
    settings = summary["settings"]
    told = (
        f"{summary['kept']:,} of {summary['photos']:,} photos kept by {settings['method']}, policy "
        f"{settings['policy']}: scores up to {summary['highest_kept']:.4g}."
    )
    rows = [
        f"| {m['mode']} | {m['share_before']:.1%} | {m['share_after']:.1%} | {m['kept']:.1%} |"
        for m in summary.get("modes", [])
    ]
    table = ["| mode of E(x) | share before | share after | kept |", "|---|---|---|---|", *rows] if rows else []
    names = (("scores", "Scores"), ("worst-kept", "Worst kept"), ("best-dropped", "Best dropped"),
             ("worst-dropped", "Worst dropped"))  # fmt: skip
    pictures = [
        _picture(folder / f"{name}.png", folder.parent, text)
        for name, text in names
        if (folder / f"{name}.png").exists()
    ]
    return "\n\n".join(["## Photos", told, *pictures, "\n".join(table)]).rstrip()


def _generators(out: Path) -> str:
    parts = ["## Generators"]
    for name, text in (("1-raw", "Trained on all photos"), ("4-kept", "Trained on the kept photos")):
        sheet = max((out / name / "samples").glob("*.png"))
        parts.append(_picture(sheet, out, f"{text}, after {int(sheet.stem):,} images, psi 1"))
    if (out / "metrics.json").exists():
        parts.append(markdown_table(json.loads((out / "metrics.json").read_text())))
    return "\n\n".join(parts)


def _modes(folder: Path) -> str:
    found: dict[str, Any] = json.loads((folder / "modes.json").read_text())
    numbers = "\n".join(f"- {key}: {value}" for key, value in found.items() if isinstance(value, int | float | str))
    return "\n\n".join(
        ["## Modes", _picture(folder / "modes.png", folder.parent, "Centers of the modes, largest first"), numbers]
    )


def _picture(path: Path, out: Path, text: str) -> str:
    return f"{text}:\n\n![{text}]({path.relative_to(out)})"
