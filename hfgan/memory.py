"""Memory of the process: freed blocks stay, since mapping them anew costs a tenth and more of a training step."""

from __future__ import annotations

import ctypes

# parameters of glibc's mallopt(3)
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Let the C library reuse large blocks rather than return them to the system: for scripts, at their start.

    A network frees and allocates the same activations at every step; by default each of them is mapped and
    cleared page by page again. The process keeps the most memory it ever used. False where there is no glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1)) and bool(mallopt(M_MMAP_MAX, 0))
