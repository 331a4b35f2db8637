"""Where models are kept and run: on a GPU of one's own, on the CPU, or on ZeroGPU, which lends one for each call.

On ZeroGPU the page's own process has no GPU, and a call with one runs in a process that was forked from it. So models
stay on the CPU, where the page can read them, and move in that process; what a verb returns moves back, as a tensor of
a GPU cannot leave its process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from functools import cache, wraps
from inspect import isgeneratorfunction
from threading import Lock
from typing import TYPE_CHECKING, Any

try:
    import spaces  # before torch, parts of which it replaces
except ImportError:
    spaces = None

if TYPE_CHECKING:
    from hfgan.pipeline import HFGan

SECONDS = 20  # the shorter, the sooner it is one's turn
GPU = "cuda"
PAGE = os.getpid()  # the process of the page, which imports this


def zero_gpu() -> bool:
    """Whether this is ZeroGPU, where `spaces` is installed and this variable is set, as on no other hardware."""
    return spaces is not None and os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def home() -> str:
    """Where models are kept: on a GPU where there is one all the time, otherwise on the CPU."""
    import torch

    return GPU if torch.cuda.is_available() and not zero_gpu() else "cpu"  # ZeroGPU pretends to have one


@contextmanager
def using(gan: HFGan, lock: Lock) -> Iterator[HFGan]:
    """The model for oneself, where it is to run: where it is kept, or on the GPU that is lent to this process."""
    if zero_gpu() and os.getpid() != PAGE:  # nobody else is here, and who had the lock at the fork is not
        yield gan.to(GPU)
    else:
        with lock:
            yield gan


def on_gpu(verb: Callable, seconds: int = SECONDS) -> Callable:
    """`verb`, run with a GPU on ZeroGPU for so many seconds at most; on other hardware `spaces.GPU` does nothing."""
    return spaces.GPU(duration=seconds)(_sent(verb)) if spaces else verb


@cache  # a verb that several events have is one for `spaces`, too, which has a process for each
def _sent(verb: Callable) -> Callable:
    """`verb` with results on the CPU."""
    if isgeneratorfunction(verb):

        @wraps(verb)
        def run(*given: Any) -> Iterator[Any]:
            yield from map(brought, verb(*given))
    else:

        @wraps(verb)
        def run(*given: Any) -> Any:
            return brought(verb(*given))

    return run


def brought(value: Any) -> Any:
    """The same with every tensor within dicts, lists, tuples and dataclasses on the CPU."""
    from torch import Tensor

    if isinstance(value, Tensor):
        return value.cpu()
    if type(value) is dict:
        return {key: brought(one) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(brought(one) for one in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{one.name: brought(getattr(value, one.name)) for one in fields(value) if one.init})
    return value
