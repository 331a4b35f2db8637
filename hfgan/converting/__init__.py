"""Published checkpoints to models of ours, and models of ours to the layouts of others."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """`convert` and what it returns, loaded when it is asked for."""
    if name not in ("Converted", "Origin", "convert"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hfgan.converting import checkpoints

    return getattr(checkpoints, name)
