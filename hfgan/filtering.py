"""Self-filtering of raw photos (Mokady et al. 2022, arXiv 2202.12211 §3.2): scores -> policy -> manifest.

A generator spends its capacity on what is common, so what it cannot draw again is an outlier: the score of a
photo x is d(x, G(E(x))), lower is kept. How many to keep was never published; here it is a policy, and every
decision is a line of a manifest (JSONL) that can be read, sorted and reversed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hfgan.metrics import distances

KEYS = ("id", "score", "w", "mode", "kept", "source")
NEIGHBOURS = 7

Line = dict[str, Any]


# ---------------------------------------------------------------- scores on features


def gaussian_score(features: Tensor, mean: Tensor, covariance: Tensor, shrinkage: float = 1e-3) -> Tensor:
    """Instance selection (DeVries et al. 2020, arXiv 2007.15255 §3): squared Mahalanobis distance, (n,) fp64.

    It is minus twice the log-likelihood but for a constant. Features (n, d), mean (d,), covariance (d, d), to which
    `shrinkage` of its mean variance is added, since photos may be fewer than dimensions.
    """
    scale = covariance.diagonal().mean() * shrinkage
    factor = torch.linalg.cholesky(covariance.double() + scale * torch.eye(len(mean), dtype=torch.float64))
    shifted = features.double() - mean.double()  # (n, d)
    return torch.linalg.solve_triangular(factor, shifted.t(), upper=False).square().sum(dim=0)


def neighbour_score(features: Tensor, anchors: Tensor, own: Tensor, k: int = NEIGHBOURS) -> Tensor:
    """Mean distance (n,) of features (n, d) to their k nearest anchors (m, d).

    own: (n,) bool, rows that are anchors themselves, whose nearest anchor does not count.
    """
    nearest = distances(features, anchors).topk(min(k + 1, len(anchors)), largest=False).values  # ascending
    return torch.where(own, nearest[:, 1:].mean(dim=1), nearest[:, :k].mean(dim=1))


# ---------------------------------------------------------------- policies


def keep_quantile(scores: Tensor, share: float) -> Tensor:
    """Keep the share in (0, 1] of photos with the lowest scores (n,): bool (n,)."""
    if not 0 < share <= 1:
        raise ValueError(f"the share to keep is {share}: give a number above 0 and up to 1")
    return keep_count(scores, max(round(share * len(scores)), 1))


def keep_count(scores: Tensor, count: int) -> Tensor:
    """Keep the `count` photos with the lowest scores (n,); of equal ones the first: bool (n,)."""
    if not 1 <= count <= len(scores):
        raise ValueError(f"the number to keep is {count}: there are {len(scores)} photos, give 1 to {len(scores)}")
    kept = torch.zeros(len(scores), dtype=torch.bool)
    kept[scores.argsort(stable=True)[:count]] = True
    return kept


def keep_below(scores: Tensor, limit: float) -> Tensor:
    """Keep the photos whose score (n,) is at most `limit`: bool (n,)."""
    kept = scores <= limit
    if not kept.any():
        raise ValueError(
            f"no photo scores {limit:g} or less, the lowest is {scores.min().item():.4g}: raise the limit"
        )
    return kept


def keep_per_mode(scores: Tensor, modes: Tensor, share: float) -> Tensor:
    """Keep the lowest `share` within each mode (n,), so that rare modes are not the ones that pay: bool (n,)."""
    kept = torch.zeros(len(scores), dtype=torch.bool)
    for mode in modes.unique():
        members = (modes == mode).nonzero().flatten()
        kept[members] = keep_quantile(scores[members], share)
    return kept


def knee(scores: Tensor) -> float:
    """The score at which the sorted scores (n,) turn up: the point farthest below the chord from the median on.

    The lower half is left out, because typical photos are not a matter of debate; Satopaa et al. 2011.
    """
    upper = scores.sort().values[len(scores) // 2 :].double()
    if upper[-1] == upper[0]:
        return upper[-1].item()
    height = (upper - upper[0]) / (upper[-1] - upper[0])
    below = torch.linspace(0, 1, len(upper), dtype=torch.float64) - height
    return upper[below.argmax()].item()


# ---------------------------------------------------------------- the manifest


def write_manifest(path: Path, lines: Iterable[Line]) -> None:
    """One JSON object per photo with the keys `id, score, w, mode, kept, source`, written whole or not at all."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    temporary.replace(path)


def read_manifest(path: Path) -> Iterator[Line]:
    """The lines of a manifest, one by one.

    Raises:
        FileNotFoundError: there is none. ValueError: a line that is no JSON object with the keys of a manifest.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: write one with the stage `filter` of training/train.py")
    with path.open() as file:
        for number, text in enumerate(file, 1):
            try:
                line = json.loads(text)
            except ValueError as error:
                raise ValueError(f"{path} line {number} is not JSON ({error}): filter again") from error
            if not isinstance(line, dict) or not set(KEYS) <= line.keys():
                raise ValueError(f"{path} line {number} has not the keys {', '.join(KEYS)}: filter again")
            if not isinstance(line["id"], str):
                raise ValueError(f"{path} line {number} has the id {line['id']!r}, expected a name: filter again")
            yield line


def kept_ids(path: Path) -> list[str]:
    """Names of the photos that a manifest keeps, in its order."""
    found = [line["id"] for line in read_manifest(path) if line["kept"]]
    if not found:
        raise ValueError(f"{path} keeps no photo: filter again with another policy")
    return found
