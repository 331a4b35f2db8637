"""What `inversion.py measure` writes, and tables of it: means over identities and ratios to an arm, 95 % intervals.

Ratios are of means, paired by identity: both arms are averaged over their seeds, then identities are drawn anew
RESAMPLES times (Efron's bootstrap, percentiles). What follows ± is the deviation of the ratio over seeds of the arm.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

RESAMPLES = 2000
MAIN = {
    "clean": "clean visible", "visible": "occ visible", "hidden": "hidden", "all": "all", "perceptual": "perceptual",
    "drift_bg": "drift bg", "drift_occ": "drift occ", "edit": "edit truth",
}  # fmt: skip
BADLY = ("visible", "hidden", "all", "perceptual")
FURTHER = {
    "picture": "clean, whole picture", "perceptual_clean": "perceptual, clean", "bg": "bg visible",
    "moved_bg": "moved bg", "moved_occ": "moved occ",
}  # fmt: skip
ABSOLUTE = {"distance": "distance to w_avg", "logit": "logit", "iou": "IoU", "fallback": "fallback"}
INTERESTS = ("told", "withheld", "auto")
TITLES = {"drawn": "T0: drawn", "photos": "T1: photos"}

Rows = list[dict[str, Any]]
Series = list[dict[str, float]]  # for each seed the value of each identity that has one


# ---------------------------------------------------------------- the file


def open_results(path: Path, protocol: dict[str, Any]) -> dict[str, Any]:
    """What was measured before, or nothing yet; ValueError where it was measured otherwise."""
    found = json.loads(path.read_text()) if path.exists() else {"protocol": protocol, "models": [], "rows": []}
    other = [key for key in protocol | found["protocol"] if protocol.get(key) != found["protocol"].get(key)]
    if other:
        raise ValueError(f"{path} was measured with another {', '.join(other)}: choose another --out")
    return found


def find(rows: list[dict[str, Any]], key: dict[str, Any]) -> dict[str, Any] | None:
    """The row with such a key, or None."""
    return next((row for row in rows if key.items() <= row.items()), None)


def plain(values: dict[str, Tensor]) -> dict[str, list[float | None]]:
    """Numbers as JSON has them, rounded; None for what is undefined."""
    return {name: [float(f"{x:.6g}") if math.isfinite(x) else None for x in column.tolist()]
            for name, column in values.items()}  # fmt: skip


# ---------------------------------------------------------------- statistics


@lru_cache
def resamples(n: int) -> Tensor:
    """Identities drawn anew, always the same: (RESAMPLES, n)."""
    return torch.randint(n, (RESAMPLES, n), generator=torch.Generator().manual_seed(0))


def interval(values: Tensor, reference: Tensor | None = None) -> tuple[float, float, float]:
    """The mean of values (n,), or its ratio to that of a reference (n,), same identities; and its 95 % interval."""
    drawn = values[resamples(len(values))].mean(1)
    middle = values.mean()
    if reference is not None:
        drawn = drawn / reference[resamples(len(values))].mean(1)
        middle = middle / reference.mean()
    low, high = drawn.quantile(torch.tensor([0.025, 0.975], dtype=drawn.dtype)).tolist()
    return middle.item(), low, high


def series(rows: Rows, metric: str) -> Series:
    """The values of a metric, seed by seed; rows without it are left out."""
    return [
        {i: x for i, x in zip(row["ids"], row["values"][metric], strict=True) if x is not None}
        for row in rows
        if metric in row["values"]
    ]


def stack(found: Series, ids: Iterable[str]) -> Tensor:
    """(seeds, n), fp64."""
    return torch.tensor([[values[i] for i in ids] for values in found], dtype=torch.float64)


def common(found: Series) -> list[str]:
    """The identities that have a value for every seed, in order."""
    return [i for i in (found[0] if found else ()) if all(i in values for values in found)]


def cell(rows: Rows, metric: str, reference: Rows | None = None) -> str:
    """A mean with its interval or, beside a reference, with the ratio to it; a dash where there is nothing."""
    own = series(rows, metric)
    against = series(reference, metric) if reference and reference is not rows else []
    ids = common(own)
    if not ids:
        return "–"
    mean, low, high = interval(stack(own, ids).mean(0))
    shared = common(own + against)
    if not against or not shared:
        return f"{mean:.4f} [{low:.4f}, {high:.4f}]"
    values, base = stack(own, shared), stack(against, shared).mean(0)
    ratio, low, high = interval(values.mean(0), base)
    ratios = values.mean(1) / base.mean()
    over_seeds = f" ± {ratios.std().item():.2f}" if len(ratios) > 1 else ""
    return f"{mean:.4f} (x {ratio:.2f} [{low:.2f}, {high:.2f}]{over_seeds})"


# ---------------------------------------------------------------- tables


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, without the columns that have only dashes."""
    kept = [k for k in range(len(head)) if k < 1 or any(row[k] != "–" for row in rows)]
    lines = [[head[k] for k in kept], ["---"] * len(kept), *([row[k] for k in kept] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def grouped(rows: Rows, reference: str) -> dict[tuple[str, str, str], Rows]:
    """Rows of all seeds by arm, inverter and interest, the arm of reference first."""
    found: dict[tuple[str, str, str], Rows] = {}
    order = (*INTERESTS, "")
    for row in sorted(
        rows, key=lambda row: (row["arm"] != reference, row["arm"], row["inverter"] != "encoder", row["inverter"],
                               order.index(row["interest"]) if row["interest"] in order else len(order), row["seed"])
    ):  # fmt: skip
        found.setdefault((row["arm"], row["inverter"], row["interest"]), []).append(row)
    return found


def label(arm: str, inverter: str) -> str:
    """What a way to invert is called."""
    return arm if inverter == "encoder" else f"{arm} + {inverter}"


def compared(groups: dict[tuple[str, str, str], Rows], columns: dict[str, str], reference: str) -> str:
    """Each arm and interest against the reference to which nothing is told; some metrics without a ratio."""
    base = groups.get((reference, "encoder", "withheld"))
    body = []
    for (arm, inverter, interest), rows in groups.items():
        if interest in INTERESTS:
            size = str(max(len(row["ids"]) for row in rows))
            cells = [cell(rows, metric, None if metric in ABSOLUTE else base) for metric in columns]
            body.append([label(arm, inverter), interest, str(len(rows)), size, *cells])
    return markdown(["arm", "interest", "seeds", "n", *columns.values()], body)


def painted_badly(groups: dict[tuple[str, str, str], Rows]) -> str:
    """Each badly painted region against the exact one."""
    body = []
    for (arm, inverter, interest), rows in groups.items():
        exact = groups.get((arm, inverter, "told"))
        if exact and interest not in ("withheld", "auto"):
            body.append([label(arm, inverter), interest, *(cell(rows, metric, exact) for metric in BADLY)])
    return markdown(["arm", "interest", *BADLY], body)


def models(results: dict[str, Any], reference: str) -> str:
    """Cost and invariance: means over seeds, and the largest change of a latent by what lies outside."""
    body = []
    for (arm, inverter, _), rows in grouped([row | {"interest": ""} for row in results["models"]], reference).items():
        taken = sum(row["seconds"] for row in rows) / len(rows)
        invariance = max(row["invariance"] for row in rows)
        true = f"{rows[0]['true_logit']:.2f} (sd {rows[0]['true_logit_sd']:.2f})" if "true_logit" in rows[0] else "–"
        body.append([label(arm, inverter), f"{taken:.3f}", f"{rows[0]['parameters']:,}", f"{rows[0]['fp16_mb']:.1f}",
                     f"{invariance:.3g}", true])  # fmt: skip
    head = ["arm", "s/image", "parameters", "fp16 MB", "change by outside", "logit of the truth"]
    return markdown(head, body)


def tables(results: dict[str, Any], reference: str = "restyle") -> str:
    """All of them, in Markdown."""
    said = f"x: ratio to `{reference}`, to which nothing is told, [95 % over identities] ± deviation over seeds."
    found = [said if any(row["arm"] == reference for row in results["rows"]) else f"No arm is called `{reference}`."]
    for name, title in TITLES.items():
        groups = grouped([row for row in results["rows"] if row["set"] == name], reference)
        if groups:
            found += [f"## {title}", compared(groups, MAIN, reference)]
            found += [f"### {title}, further", compared(groups, FURTHER | ABSOLUTE, reference)]
        if any(interest not in INTERESTS for _, _, interest in groups):
            found += [f"### {title}, painted badly: x is the ratio to the exact region", painted_badly(groups)]
    return "\n\n".join([*found, "## Models", models(results, reference)])
