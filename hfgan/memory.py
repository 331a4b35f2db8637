"""Memory of the process: how many pictures are computed at once, and what becomes of freed blocks.

A picture of 1024 px takes half a gigabyte to draw and three times as much to learn from, so that a batch of a usual
size is computed in parts on a CPU. An accelerator gets all at once: what it holds is its owner's to divide.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hfgan.models.alpha import AlphaModel
from hfgan.models.base import HFGanModel
from hfgan.models.stylegan2 import Generator, Noise, channels_at

VALUES = 2**26  # of the largest activation at once: 2 pictures of 1024 px and 32 channels, 8 of 256 px and 128
# parameters of glibc's mallopt(3)
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4

Found = Tensor | tuple[Tensor, ...]
Draw = Callable[[Tensor, list[Tensor | None]], Found]  # w_plus and noise images of some rows to what is drawn of them


def at_once(most: int, resolution: int, channels: int, device: torch.device) -> int:
    """How many pictures, 1 to `most`, a network computes at once that has `channels` at full size [pixels]."""
    if device.type != "cpu":
        return most
    return max(1, min(most, VALUES // (channels * resolution**2)))


def net_at_once(net: HFGanModel, most: int) -> int:
    """The same of a generator, or of a discriminator or encoder of its shape."""
    config = net.config
    channels = channels_at(config.resolution, config.channel_base, config.channel_max)
    return at_once(most, config.resolution, channels, net.device)


def in_parts(function: Callable[..., Found], size: int, *inputs: Any) -> Found:
    """function(*inputs), each row of which is of the same row alone, computed `size` rows at a time.

    Of a part that gradients are wanted of, only the inputs are kept: it is computed again in the backward pass.

    Args:
        inputs: The first is a tensor of n rows; other tensors of n rows are split too, all else goes to each part.
    """
    count = len(inputs[0])
    if count <= size:
        return function(*inputs)
    splits = [x.split(size) if isinstance(x, Tensor) and len(x) == count else None for x in inputs]
    parts = []
    for k in range(len(splits[0])):
        rows = [x if split is None else split[k] for x, split in zip(inputs, splits, strict=True)]
        if torch.is_grad_enabled():
            parts.append(checkpoint(function, *rows, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(function(*rows))
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    return tuple(torch.cat(columns) for columns in zip(*parts, strict=True))


def draw_in_parts(
    generator: Generator, w_plus: Tensor, noise_mode: str = "const", noise: Noise = None, draw: Draw | None = None
) -> Found:
    """What the synthesis draws of w_plus (n, num_ws, w_dim), in parts; random noise is that of all at once.

    Args:
        noise_mode, noise: As `noise_mode` and `generator` of the synthesis.
        draw: In place of `generator.synthesis.draw`, to look at activations or to silence some.
    """
    synthesis = generator.synthesis
    images = synthesis.noise_images(len(w_plus), noise_mode, noise)

    def drawn(rows: Tensor, *images: Tensor | None) -> Found:
        return (draw or synthesis.draw)(rows, list(images))

    return in_parts(drawn, net_at_once(generator, len(w_plus)), w_plus, *images)


def draw_with_alpha(
    generator: Generator, net: AlphaModel, w_plus: Tensor, noise_mode: str = "const", noise: Noise = None
) -> tuple[Tensor, Tensor]:
    """Images (n, c, r, r) and the logit (n, 1, r, r) of alpha, as of `net` itself, in parts."""

    def draw(rows: Tensor, images: list[Tensor | None]) -> tuple[Tensor, Tensor]:
        stream = net.stream()
        return generator.synthesis.draw(rows, images, stream), stream.logit

    return draw_in_parts(generator, w_plus, noise_mode, noise, draw)


def keep_freed_memory() -> bool:
    """Let the C library reuse large blocks rather than return them to the system: for scripts, at their start.

    A network frees and allocates the same activations at every step; by default each of them is mapped and
    cleared page by page again. The process keeps the most memory it ever used. False where there is no glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1)) and bool(mallopt(M_MMAP_MAX, 0))
