"""Timing in alternating rounds: each candidate runs once per round, so a busy machine slows all of them alike."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F

CONTROL = "control: 512 channels at 32 px, fp32"
CONTROL_GFLOP = 2 * 9 * 512**2 * 32**2 / 1e9


def control() -> Callable[[], torch.Tensor]:
    """A convolution of this machine's best kind, by which figures of two machines can be compared."""
    x, kernel = torch.randn(1, 512, 32, 32), torch.randn(512, 512, 3, 3)
    x, kernel = (tensor.to(memory_format=torch.channels_last) for tensor in (x, kernel))
    return torch.no_grad()(lambda: F.conv2d(x, kernel, padding=1))


def alternate(
    candidates: dict[str, Callable[[], object]], rounds: int, inner: int, seconds: float
) -> dict[str, list[float]]:
    """Seconds per call of every candidate in every round; a call before each measurement warms the caches.

    Stops after `rounds` rounds, or after the round in which `seconds` are over.
    """
    candidates = {CONTROL: control(), **candidates}
    times: dict[str, list[float]] = {name: [] for name in candidates}
    start = time.perf_counter()
    for _ in range(rounds):
        for name, run in candidates.items():
            run()
            before = time.perf_counter()
            for _ in range(inner):
                run()
            times[name].append((time.perf_counter() - before) / inner)
        if time.perf_counter() - start > seconds:
            break
    return times


def report(
    title: str, times: dict[str, list[float]], *, images: int, reference: str, notes: dict[str, str], path: Path | None
) -> None:
    """Print a table: median time, images/s, and the median over rounds of the ratio to the reference."""
    print(f"\n{title}, {len(times[reference])} rounds, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"control convolution {CONTROL_GFLOP / statistics.median(times[CONTROL]):.0f} GFLOP/s")
    rows = []
    for name in (name for name in times if name != CONTROL):
        ratio = statistics.median(a / b for a, b in zip(times[reference], times[name], strict=True))
        median = statistics.median(times[name])
        rows.append({"name": name, "ms": 1e3 * median, "images_per_s": images / median, "ratio": ratio})
        print(
            f"  {name:32s} {1e3 * median:9.1f} ms {images / median:8.2f} images/s {ratio:6.2f}x  {notes.get(name, '')}"
        )
    if path:
        entry = {"title": title, "control_gflops": CONTROL_GFLOP / statistics.median(times[CONTROL]), "rows": rows}
        with path.open("a") as file:
            file.write(json.dumps(entry | {"times": times, "notes": notes}) + "\n")
