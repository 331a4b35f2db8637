"""Traits: what can be measured of a picture without a label, and so give a direction for nothing.

Each is one number for a picture: how large the subject is, where it is, how light it and its background are, what
colour its upper third has (of a face: the hair). None is a judgement, and none needs a network but the one that finds
alpha; those of the whole picture do not need that either.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

TINY = 1e-6  # keeps a mean over nothing at 0
THIRDS = ("top", "middle", "bottom")  # of the subject, from above
COLORS = ("light", "red", "green", "blue", "saturation")
LUMA = (0.299, 0.587, 0.114)

WHOLE = ("sharpness", "symmetry", "balance", *COLORS)  # of the picture, with or without alpha
PLACE = ("area", "center_x", "center_y", "height", "width", "border")
SUBJECT = (*PLACE, *(f"{where}_{color}" for where in ("foreground", "background", *THIRDS) for color in COLORS))
NAMES = (*WHOLE, *SUBJECT)


def traits(image: Tensor, alpha: Tensor | None = None) -> dict[str, Tensor]:
    """Scores (n,), fp32, of images (n, 3, r, r) in [-1, 1] by name: WHOLE, and with alpha (n, 1, r, r) SUBJECT too.

    light: luma, [-1, 1]. red, green, blue: how much of it there is beyond grey. saturation: the largest channel less
    the smallest, [0, 2]. sharpness: deviation of the Laplacian. symmetry: 1 for a picture that equals its mirror
    image, [0, 1]. balance: how much lighter the right half is. area: share of the picture that is subject. center_x,
    center_y: its middle, 1 on the right and below. height, width: its extent, in sides. border: share of the frame
    that it covers. A mean over nothing is 0.

    Raises:
        ValueError: of another shape.
    """
    if image.ndim != 4 or image.shape[1] != 3 or (alpha is not None and alpha.shape != image[:, :1].shape):
        given = f"images {list(image.shape)}" + ("" if alpha is None else f" and alpha {list(alpha.shape)}")
        raise ValueError(f"traits are those of images (n, 3, h, w) and alpha (n, 1, h, w), got {given}: convert them")
    image = image.float()
    found = _whole(image)
    if alpha is None:
        return found
    alpha = alpha.float()
    return found | _place(alpha) | _parts(image, alpha)


def _whole(image: Tensor) -> dict[str, Tensor]:
    """Those of the picture (n, 3, h, w)."""
    light, half = _luma(image), image.shape[3] // 2
    laplacian = F.conv2d(light, light.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None])  # (n, 1, h-2, w-2)
    everywhere = torch.ones_like(light)
    return {
        "sharpness": laplacian.std((1, 2, 3)),
        "symmetry": 1 - (image - image.flip(3)).abs().mean((1, 2, 3)) / 2,
        "balance": light[..., -half:].mean((1, 2, 3)) - light[..., :half].mean((1, 2, 3)),
    } | _colors(image, everywhere)


def _place(alpha: Tensor) -> dict[str, Tensor]:
    """How large the subject is, and where."""
    area = alpha.mean((1, 2, 3))
    rim = torch.cat([alpha[..., 0, :], alpha[..., -1, :], alpha[..., 1:-1, 0], alpha[..., 1:-1, -1]], dim=2)
    return {
        "area": area,
        "center_x": _middle(alpha.mean((1, 2))),
        "center_y": _middle(alpha.mean((1, 3))),
        "height": alpha.amax(3).mean((1, 2)),
        "width": alpha.amax(2).mean((1, 2)),
        "border": rim.mean((1, 2)),
    }


def _middle(share: Tensor) -> Tensor:
    """Where the weight of rows or columns (n, r) is on average: -1 in the first, 1 in the last."""
    places = torch.linspace(-1, 1, share.shape[1], device=share.device)
    return (share * places).sum(1) / share.sum(1).clamp(min=TINY)


def _parts(image: Tensor, alpha: Tensor) -> dict[str, Tensor]:
    """Colours of the subject, of what is around it, and of its thirds."""
    weights = {"foreground": alpha, "background": 1 - alpha} | dict(zip(THIRDS, _thirds(alpha), strict=True))
    return {
        f"{where}_{color}": value
        for where, weight in weights.items()
        for color, value in _colors(image, weight).items()
    }


def _thirds(alpha: Tensor) -> list[Tensor]:
    """The subject's alpha (n, 1, h, w) in thirds of equal height, from its uppermost to its lowest row."""
    there = (alpha.amax(3, keepdim=True) > 0.5).float()  # (n, 1, h, 1)
    rows = torch.arange(alpha.shape[2], device=alpha.device).view(1, 1, -1, 1).float()
    first = torch.where(there > 0, rows, float("inf")).amin(2, keepdim=True)
    last = torch.where(there > 0, rows, -float("inf")).amax(2, keepdim=True)
    share = (rows - first) / (last - first + 1)  # in [0, 1) within the subject
    return [alpha * ((share >= k / 3) & (share < (k + 1) / 3)) for k in range(3)]


def _colors(image: Tensor, weight: Tensor) -> dict[str, Tensor]:
    """COLORS of images (n, 3, h, w), averaged with a weight (n, 1, h, w)."""
    light = _luma(image)
    spread = image.amax(1, keepdim=True) - image.amin(1, keepdim=True)
    maps = torch.cat([light, image - light, spread], 1)  # (n, 5, h, w)
    means = (maps * weight).sum((2, 3)) / weight.sum((2, 3)).clamp(min=TINY)
    return dict(zip(COLORS, means.unbind(1), strict=True))


def _luma(image: Tensor) -> Tensor:
    """(n, 3, h, w) to (n, 1, h, w)."""
    return (image * image.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
