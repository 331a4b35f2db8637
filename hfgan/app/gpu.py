"""ZeroGPU, where a GPU is lent for the time of one call; anywhere else nothing of it is there."""

from __future__ import annotations

from collections.abc import Callable

try:
    import spaces
except ImportError:
    spaces = None

SECONDS = 20  # at most; the shorter, the sooner it is one's turn


def on_gpu(verb: Callable) -> Callable:
    """`verb`, run with a GPU on ZeroGPU."""
    return spaces.GPU(duration=SECONDS)(verb) if spaces else verb
