"""What a filter did, as pictures: the histogram of scores, and mosaics around the threshold."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor

from hfgan.data import PhotoDataset
from hfgan.images import grid, to_image, to_pil

MOSAIC = 64  # photos


def draw_report(out: Path, scores: Tensor, kept: Tensor, photos: PhotoDataset, *, title: str) -> None:
    """Write scores.png, worst-kept.png, best-dropped.png and worst-dropped.png; a mosaic of nothing is removed.

    Args:
        scores: (n,), lower is better, in the order of the photos.
        kept: (n,) bool.
    """
    if importlib.util.find_spec("matplotlib"):  # of the extra `eval`
        plot_scores(scores, kept, out / "scores.png", title)
    order = scores.argsort(stable=True)
    inside, outside = order[kept[order]], order[~kept[order]]
    mosaics = {"worst-kept": inside.flip(0), "best-dropped": outside, "worst-dropped": outside.flip(0)}
    for name, places in mosaics.items():
        path = out / f"{name}.png"
        path.unlink(missing_ok=True)
        if len(places):
            grid(to_pil(to_image(photos.batch(places[:MOSAIC].tolist()))), 8).save(path)


def plot_scores(scores: Tensor, kept: Tensor, path: Path, title: str) -> None:
    """Histogram of the scores of kept and dropped photos (PNG)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6, 3))
    edges = torch.linspace(scores.min().item(), scores.quantile(0.999).item() + 1e-9, 80)
    for name, part in (("kept", scores[kept]), ("dropped", scores[~kept])):
        axis.hist(
            part.clamp(max=edges[-1].item()).numpy(), bins=edges.numpy(), label=f"{name} {len(part):,}", alpha=0.7
        )
    axis.set(xlabel="score (lower is kept)", ylabel="photos", title=title)
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
