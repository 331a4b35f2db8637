"""A run's log as a picture: losses, distances and augmentation over images seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PANELS = (("fd_mnv2",), ("loss_g", "loss_d"), ("logit_real", "r1"), ("augment_p", "spread"))


def plot_log(entries: list[dict[str, Any]], path: Path) -> None:
    """Write the panels that the log has numbers for to `path` (PNG)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [keys for keys in PANELS if any(key in entry for key in keys for entry in entries)]
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4 * len(panels), 3), squeeze=False)
    for axis, keys in zip(axes[0], panels, strict=True):
        for key in keys:
            points = [(entry["images_seen"], entry[key]) for entry in entries if key in entry]
            if points:
                axis.plot(*zip(*points, strict=True), label=key, marker=".")
        axis.set_xlabel("images seen")
        axis.set_yscale("log" if keys == ("fd_mnv2",) else "linear")
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
