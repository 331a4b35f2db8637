"""ZeroGPU, where a GPU is lent for the time of one call; anywhere else nothing of it is there."""

from __future__ import annotations

from collections.abc import Callable

try:
    import spaces
except ImportError:
    spaces = None

SECONDS = 20  # the shorter, the sooner it is one's turn


def on_gpu(verb: Callable, seconds: int = SECONDS) -> Callable:
    """`verb`, run with a GPU on ZeroGPU for so many seconds at most."""
    return spaces.GPU(duration=seconds)(verb) if spaces else verb
