"""Cut-outs: edges refined on the picture, colours freed of the old background, new backgrounds, every kind of export.

Inside functions alpha is a float tensor (n, 1, h, w) in [0, 1], 1 for the foreground, and an image is (n, 3, h, w) in
[-1, 1]. A picture is alpha * foreground + (1 - alpha) * background, on the encoded (sRGB) values, as other programs
compose. Nothing here runs a network, and the same input gives the same bytes.
"""

from __future__ import annotations

import io
import math
import os
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageColor, ImageOps
from torch import Tensor
from torch.nn import functional as F

from hfgan.images import save_png, to_image, to_pil, to_tensor, with_channels, write_file

# what a cut-out is exported as, and what is added to the name of the file where several kinds share a folder
KINDS = {"rgba": "", "mask": "-mask", "alpha16": "-alpha16", "trimap": "-trimap", "overlay": "-overlay"}

WORKING_SIZE = 512  # px of the shorter side at which means over windows are taken
FOREGROUND, BACKGROUND = 240, 10  # of 255: alpha that is one or the other beyond doubt; rembg's numbers
VISIBLE = 1 / 255  # the least alpha that 8 bits show
FUSION_RADII = (0.09, 0.006)  # the paper's 90 and 6 px, as shares of the shorter side of pictures of about 1000 px
NO_WEIGHT = 1e-5  # keeps a weighted mean finite; where nothing has weight it is the plain mean
BLEED = 8  # px
BAND, ATTACHED, LINE, DEFOCUS = 0.01, 0.01, 0.002, 0.03  # shares of the shorter side
MAX_FEATHER = 100  # px
OVERLAY_COLOR = (255, 45, 120)

Color = str | Sequence[int]


# ---------------------------------------------------------------- a picture and its alpha


@dataclass(frozen=True, eq=False)
class Cutout:
    """A picture and the alpha of its foreground.

    Attributes:
        image: RGB.
        alpha: (h, w) fp32 on the CPU, in [0, 1].
        recipe: Of a generated picture; None for a photo.
        name: Of its files, without a suffix.
    """

    image: Image.Image
    alpha: Tensor
    recipe: dict[str, Any] | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if self.image.mode != "RGB":
            raise ValueError(f"the picture's mode is {self.image.mode}: expected RGB (with_channels converts)")
        alpha, size = self.alpha, (self.image.height, self.image.width)
        if tuple(alpha.shape) != size or alpha.dtype != torch.float32 or alpha.device.type != "cpu":
            given = f"{alpha.dtype} {tuple(alpha.shape)} on {alpha.device}"
            raise ValueError(f"alpha is {given}: expected torch.float32 {size}, the picture's (h, w), on cpu")
        if not (alpha.min() >= 0 and alpha.max() <= 1):  # false for NaN too
            raise ValueError(f"alpha goes from {alpha.min():g} to {alpha.max():g}: expected 0 to 1")

    def finish(
        self, *, threshold: float | None = None, feather: float = 0.0, largest: bool = False, invert: bool = False
    ) -> Cutout:
        """The cut-out with its alpha hardened, freed of lesser parts, softened and inverted, in this order.

        Args:
            threshold: Alpha from here on is 1, below it 0; between 0 and 1.
            feather: Standard deviation [pixels] of a Gaussian blur, 0 to 100.
            largest: Keep `largest_component` alone.
            invert: Swap foreground and background.

        Raises:
            ValueError: a number out of its range.
        """
        if threshold is not None and not 0 < threshold < 1:
            raise ValueError(f"threshold is {threshold}: expected a number between 0 and 1, or None to keep soft edges")
        if not 0 <= feather <= MAX_FEATHER:
            raise ValueError(f"feather is {feather}: expected 0 to {MAX_FEATHER} pixels")
        alpha = self.alpha[None, None]
        if threshold is not None:
            alpha = (alpha >= threshold).float()
        if largest:
            alpha = largest_component(alpha)
        if feather:
            alpha = gaussian(alpha, feather).clamp(0, 1)
        return replace(self, alpha=(1 - alpha if invert else alpha)[0, 0])

    def rgba(self, *, decontaminate: bool = True) -> Image.Image:
        """RGBA with straight alpha; half-transparent pixels have the colour of the foreground alone, or their own.

        Transparent pixels next to visible ones have it too: a program that shrinks the picture without weighting by
        alpha would draw a dark fringe from black ones. Those farther off are black: that compresses to nothing, and
        no trace of the old background is given away.
        """
        image, alpha = self._tensors()
        colors = foreground_colors(image, alpha) if decontaminate else image
        mask = self.mask()
        near = grow(torch.from_numpy(np.array(mask))[None, None] > 0, BLEED)
        (pil,) = to_pil(torch.where(near, colors, -1))
        pil.putalpha(mask)
        return pil

    def mask(self) -> Image.Image:
        """Alpha in 8 bits, mode L."""
        return Image.fromarray((self.alpha * 255).round().to(torch.uint8).numpy())

    def alpha16(self) -> Image.Image:
        """Alpha in 16 bits, mode I;16: soft edges without steps."""
        return Image.fromarray((self.alpha * 65535).round().numpy().astype(np.uint16))

    def trimap(self, band: float | None = None) -> Image.Image:
        """Mode L: 255 foreground, 0 background, 128 unknown, which is soft alpha and all within `band` of it or an edge.

        Args:
            band: In pixels along rows and columns, rounded; by default 1 % of the shorter side, at least 1.
        """
        if band is None:
            band = max(1, BAND * min(self.image.size))
        if not 0 <= band <= max(self.image.size):
            raise ValueError(f"band is {band}: expected pixels, from 0 to the longer side {max(self.image.size)}")
        foreground, background = known(self.alpha[None, None], FOREGROUND, BACKGROUND, round(band))
        levels = torch.where(foreground, 255, torch.where(background, 0, 128))
        return Image.fromarray(levels[0, 0].to(torch.uint8).numpy())

    def overlay(self, color: Color = OVERLAY_COLOR) -> Image.Image:
        """RGB to judge an alpha by: the background grey, dark and tinted, and a line where alpha crosses one half."""
        image, alpha = self._tensors()
        tint = color_image(color)
        behind = torch.lerp((image.mean(1, keepdim=True) - 1) / 2, tint, 0.3)  # at half its brightness
        edge = gaussian((alpha >= 0.5).float(), max(0.7, LINE * min(self.image.size)))
        shown = torch.lerp(composite(image, behind, alpha), tint, 4 * edge * (1 - edge))  # 1 on the edge, 0 off it
        return to_pil(shown)[0]

    def on(self, background: Color | Image.Image, *, decontaminate: bool = True) -> Image.Image:
        """RGB of the foreground on another background.

        Args:
            background: A colour such as "#ff8800", "teal" or (255, 136, 0); a picture, scaled to cover this one and
                cropped around its centre; or "blur" for the picture's own background out of focus.
            decontaminate: Free half-transparent pixels of the colours of the old background.

        Raises:
            ValueError: no such colour.
        """
        image, alpha = self._tensors()
        colors = foreground_colors(image, alpha) if decontaminate else image
        if isinstance(background, Image.Image):
            cover = ImageOps.fit(with_channels(background, 3), self.image.size, Image.Resampling.LANCZOS)
            behind = to_tensor(cover)
        elif background == "blur":
            # the picture without alpha * foreground is its background times 1 - alpha: no foreground is smeared
            layer = torch.cat([image - alpha * colors, 1 - alpha], 1)  # (1, 4, h, w)
            layer = gaussian(layer, DEFOCUS * min(self.image.size))
            behind = layer[:, :3] / layer[:, 3:].clamp(min=NO_WEIGHT)
        else:
            behind = color_image(background)
        return to_pil(composite(colors, behind, alpha))[0]

    def render(self, kind: str) -> Image.Image:
        """The picture that one of KINDS names."""
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}: expected {', '.join(map(repr, KINDS))}")
        return getattr(self, kind)()

    def save(self, path: str | os.PathLike, kind: str = "rgba", *, overwrite: bool = False) -> None:
        """Write one of KINDS as PNG, with the recipe where there is one, or "rgba" as lossless WebP without it.

        Raises:
            ValueError: no such kind, or another suffix than .png, and .webp for "rgba".
            FileExistsError, FileNotFoundError: as `write_file`.
        """
        pil, suffix = self.render(kind), Path(path).suffix.lower()
        if suffix == ".png":
            save_png(pil, path, self.recipe, overwrite=overwrite)
        elif suffix == ".webp" and kind == "rgba":
            buffer = io.BytesIO()
            pil.save(buffer, "WEBP", lossless=True, exact=True)  # exact: else transparent pixels lose their colour
            write_file(path, buffer.getvalue(), overwrite=overwrite)
        else:
            wanted = ".png or .webp" if kind == "rgba" else ".png"
            raise ValueError(f"{path} is no name for {kind!r}: expected one that ends in {wanted}")

    def _tensors(self) -> tuple[Tensor, Tensor]:
        """Image (1, 3, h, w) and alpha (1, 1, h, w)."""
        return to_tensor(self.image), self.alpha[None, None]


def zip_bytes(cutouts: Sequence[Cutout], kinds: Sequence[str] = ("rgba",)) -> bytes:
    """A ZIP of PNGs, in one folder per kind where there are several; not compressed again, and without dates."""
    if not cutouts or not kinds:
        raise ValueError(f"{len(cutouts)} cut-outs as {len(kinds)} kinds: expected at least one of each to pack")
    buffer, kinds = io.BytesIO(), tuple(dict.fromkeys(kinds))
    with zipfile.ZipFile(buffer, "w") as archive, TemporaryDirectory() as folder:
        file = Path(folder, "cutout.png")
        for kind in kinds:
            for cutout, name in zip(cutouts, _file_names(cutouts), strict=True):
                cutout.save(file, kind, overwrite=True)
                entry = zipfile.ZipInfo(f"{kind}/{name}.png" if len(kinds) > 1 else f"{name}.png")  # of 1980-01-01
                entry.create_system, entry.external_attr = 3, 0o644 << 16  # the same on every system
                archive.writestr(entry, file.read_bytes())
    return buffer.getvalue()


def _file_names(cutouts: Sequence[Cutout]) -> list[str]:
    """Names that every system can unpack, no two alike even where case does not count."""
    names: dict[str, str] = {}
    for cutout in cutouts:
        stem = re.sub(r'[\x00-\x1f\\/:*?"<>|]', "_", cutout.name or "").strip(". ") or "cutout"
        name, count = stem, 1
        while name.casefold() in names:
            count += 1
            name = f"{stem}-{count}"
        names[name.casefold()] = name
    return list(names.values())


# ---------------------------------------------------------------- colours


def color_image(color: Color) -> Tensor:
    """The image (1, 3, 1, 1) of a colour: any that Pillow knows by name or number, or (r, g, b) in 0..255."""
    try:
        rgb = ImageColor.getrgb(color) if isinstance(color, str) else tuple(color)
    except (TypeError, ValueError):
        rgb = ()
    if len(rgb) != 3 or not all(isinstance(value, int) and 0 <= value <= 255 for value in rgb):
        raise ValueError(f'the colour is {color!r}: expected "#rrggbb", a name such as "teal", or (r, g, b) in 0..255')
    return to_image(torch.tensor(rgb).reshape(1, 3, 1, 1))


def composite(foreground: Tensor, background: Tensor, alpha: Tensor) -> Tensor:
    """alpha * foreground + (1 - alpha) * background, each of a shape that broadcasts; exact where alpha is 0 or 1."""
    return torch.lerp(background, foreground, alpha)


def foreground_colors(image: Tensor, alpha: Tensor) -> Tensor:
    """Colours of the foreground (n, 3, h, w), where it is half-transparent too, of an image and its alpha.

    Blur fusion (Forte 2021, "Approximate Fast Foreground Colour Estimation", arXiv 2006.14970): F and B are means in
    a window, weighted by alpha and 1 - alpha; then F += alpha (image - alpha F - (1 - alpha) B). Twice, the second
    time in a small window. Where alpha is 1 the image is unchanged.
    """
    _check_shapes(image, alpha)
    if image.shape[-2:] != alpha.shape[-2:]:
        raise ValueError(f"alpha of {_size(alpha)} for an image of {_size(image)}: refine makes it as large")
    foreground = background = image
    for radius in FUSION_RADII:
        foreground = _weighted_mean(foreground, alpha, radius)
        background = _weighted_mean(background, 1 - alpha, radius)
        foreground = foreground + alpha * (image - composite(foreground, background, alpha))
        foreground = foreground.clamp(-1, 1)
    return foreground


def _weighted_mean(x: Tensor, weight: Tensor, radius: float) -> Tensor:
    """Means of x (n, c, h, w) with weight (n, 1, h, w) in windows of this radius, a share of the shorter side.

    Taken on a smaller copy where the picture is large; x is weighted before it shrinks, so that nothing bleeds.
    """
    weight = weight + NO_WEIGHT
    size = _working_size(x)
    sums = box_mean(_resize(torch.cat([x * weight, weight], 1), size), max(1, round(radius * min(size))))
    return _resize(sums[:, :-1] / sums[:, -1:], x.shape[-2:])


# ---------------------------------------------------------------- edges


def refine(alpha: Tensor, image: Tensor, *, radius: float = 0.02, epsilon: float = 1e-4) -> Tensor:
    """Alpha (n, 1, h, w) in [0, 1] at the size of the image, with edges where the image has them.

    Guided filter with a colour guide (He, Sun & Tang 2013, "Guided Image Filtering", eq. 19-21): in each window alpha
    is a linear function of the colour. Its coefficients are found on a smaller copy and applied at full size (He &
    Sun 2015, "Fast Guided Filter", arXiv 1505.00996).

    Args:
        alpha: (n, 1, a, b), at most as large as the image.
        image: (n, 3, h, w) in [-1, 1].
        radius: Of the windows, as a share of the shorter side, above 0 and up to 0.25; at least 1 pixel.
        epsilon: Variance of colours in [0, 1] below which a window counts as flat; above 0.

    Raises:
        ValueError: what is wrong with which argument.
    """
    _check_shapes(image, alpha)
    if any(small > large for small, large in zip(alpha.shape[-2:], image.shape[-2:], strict=True)):
        raise ValueError(f"alpha of {_size(alpha)} for an image of {_size(image)}: expected at most its size")
    if not 0 < radius <= 0.25 or not epsilon > 0:
        raise ValueError(f"radius {radius}, epsilon {epsilon}: expected a radius in (0, 0.25] and a positive epsilon")
    size = _working_size(image)
    # a window must see across a pixel of alpha, or the steps of a small alpha are taken for edges
    steps = [math.ceil(large / small) for large, small in zip(size, alpha.shape[-2:], strict=True)]
    pixels = max(round(radius * min(size)), *steps)
    coefficients = _colour_lines(_resize(alpha, size), _resize(image, size), pixels, epsilon)
    lines = _resize(coefficients, image.shape[-2:])  # (n, 4, h, w)
    return lines[:, :3].mul_(image).sum(1, keepdim=True).add_(lines[:, 3:]).clamp_(0, 1)


def _colour_lines(alpha: Tensor, image: Tensor, pixels: int, epsilon: float) -> Tensor:
    """Coefficients (n, 4, h, w), fp32, that make alpha of r, g, b in [-1, 1] and 1: means over a pixel's windows.

    a = (cov(guide) + epsilon)^-1 cov(guide, alpha), b = mean(alpha) - a . mean(guide); fp64, for variances are small.
    """
    guide, alpha = (image.double() + 1) / 2, alpha.double()
    mean, mean_alpha = box_mean(guide, pixels), box_mean(alpha, pixels)
    pairs = box_mean((guide[:, :, None] * guide[:, None]).flatten(1, 2), pixels).unflatten(1, (3, 3))
    covariance = (pairs - mean[:, :, None] * mean[:, None]).movedim((1, 2), (-2, -1))  # (n, h, w, 3, 3)
    shared = (box_mean(guide * alpha, pixels) - mean * mean_alpha).movedim(1, -1)  # (n, h, w, 3)
    flat = epsilon * torch.eye(3).to(covariance)
    a = torch.linalg.solve(covariance + flat, shared).movedim(-1, 1)  # (n, 3, h, w)
    b = mean_alpha - (a * mean).sum(1, keepdim=True)
    # a . (rgb + 1) / 2 + b, so that the large image need not be rescaled
    return box_mean(torch.cat([a / 2, b + a.sum(1, keepdim=True) / 2], 1), pixels).float()


def hold_known(
    refined: Tensor, alpha: Tensor, *, foreground: int = FOREGROUND, background: int = BACKGROUND, erode: int = 10
) -> Tensor:
    """The refined alpha (n, 1, h, w), but 1 and 0 well inside what had been foreground and background beyond doubt.

    Args:
        alpha: As it was before refinement, (n, 1, a, b).
        foreground, background: Values of 255 that alpha reaches, or does not exceed, beyond doubt.
        erode: Side [pixels] of the square that these regions are eroded with, as in rembg.
    """
    if not 0 <= background < foreground <= 255 or erode < 0:
        given = f"foreground {foreground}, background {background}, erode {erode}"
        raise ValueError(f"{given}: expected 0 <= background < foreground <= 255 and an erode of 0 or more")
    inside, outside = known(_resize(alpha, refined.shape[-2:]), foreground, background, erode // 2)
    return refined.masked_fill(inside, 1).masked_fill(outside, 0)


def known(alpha: Tensor, foreground: float, background: float, pixels: int) -> tuple[Tensor, Tensor]:
    """Where alpha (n, 1, h, w) times 255 is >= foreground, and <= background, and so around it: two bool (n, 1, h, w).

    The frame of the picture is no edge: a foreground that it cuts is known up to it.
    """
    sure = torch.cat([alpha >= foreground / 255, alpha <= background / 255], 1)
    return (~grow(~sure, pixels)).split(1, dim=1)


def clean(alpha: Tensor) -> Tensor:
    """Hard alpha (n, 1, h, w), 0 or 1, without specks and with smooth edges, as by `-ppm` of rembg.

    Opening with a disk of radius 1, Gaussian of deviation 2 pixels, threshold at one half.
    """
    eroded = -_dilate_by_disk(-alpha)
    return (gaussian(_dilate_by_disk(eroded), 2) >= 0.5).float()


def _dilate_by_disk(x: Tensor) -> Tensor:
    """Maximum of each pixel of x (n, c, h, w) and its four neighbours."""
    return torch.maximum(F.max_pool2d(x, (1, 3), 1, (0, 1)), F.max_pool2d(x, (3, 1), 1, (1, 0)))


# ---------------------------------------------------------------- regions


def largest_component(alpha: Tensor) -> Tensor:
    """Alpha (n, 1, h, w) without all but its largest part: 8-connected where above 0.5, and what hangs on to it.

    A softer pixel stays where it is joined to that part and sees more of it around than of the others. Exact at full
    size. Where nothing is above 0.5 there is no largest part, and alpha stays as it is.
    """
    return torch.cat([_largest_component(one) if (one > 0.5).any() else one for one in alpha.split(1)])


def _largest_component(alpha: Tensor) -> Tensor:
    core = alpha > 0.5  # (1, 1, h, w)
    kept = _heaviest_region(core[0, 0], core[0, 0])
    attached = _heaviest_region(alpha[0, 0] > VISIBLE, kept)
    both = torch.stack([kept, core[0, 0] & ~kept])[None]  # (1, 2, h, w)
    around = gaussian(both.float(), max(1, ATTACHED * min(alpha.shape[-2:])))
    return alpha * (kept | attached & ~both[0, 1] & (around[0, 0] >= around[0, 1]))


def _heaviest_region(on: Tensor, weight: Tensor) -> Tensor:
    """The 8-connected region of `on` (h, w) bool that has most pixels in `weight` (h, w) bool; the first of equals.

    The parts that are joined are runs of pixels in a row, far fewer than pixels. Each takes the least number among
    those that it touches, and the number of that number: rounds grow with the logarithm of the longest chain.
    """
    stride = on.shape[1] + 1  # an empty column keeps a run from going on in the next row
    step = F.pad(on, (0, 1)).flatten().int().diff(prepend=on.new_zeros(1, dtype=torch.int32))
    starts, ends = (step == 1).nonzero()[:, 0], (step == -1).nonzero()[:, 0]  # (k,)
    first = torch.searchsorted(ends, starts + stride)  # runs first..last - 1 of the next row touch this one
    count = torch.searchsorted(starts, ends + stride, right=True) - first
    upper = torch.arange(len(starts)).repeat_interleave(count)
    lower = torch.arange(len(upper)) - (count.cumsum(0) - count)[upper] + first[upper]
    root, new = None, torch.arange(len(starts))
    while root is None or not torch.equal(root, new):
        root = new
        least = torch.minimum(root[upper], root[lower]).repeat(2)
        new = root.scatter_reduce(0, torch.cat([root[upper], root[lower]]), least, "amin")
        new = new[new]
    total = F.pad(F.pad(weight, (0, 1)).flatten().cumsum(0), (1, 0))
    held = torch.zeros_like(root).index_add_(0, root, total[ends] - total[starts])
    chosen = root == (held == held.max()).nonzero()[0]
    step = torch.zeros_like(step).index_fill_(0, starts[chosen], 1).index_fill_(0, ends[chosen], -1)
    return step.cumsum(0).reshape(-1, stride)[:, :-1].bool()


# ---------------------------------------------------------------- windows


def box_mean(x: Tensor, pixels: int) -> Tensor:
    """Mean of x (n, c, h, w) in windows of 2 pixels + 1 squared; beyond the frame nothing is counted."""
    side = 2 * pixels + 1
    rows = F.avg_pool2d(x, (1, side), 1, (0, pixels), count_include_pad=False)
    return F.avg_pool2d(rows, (side, 1), 1, (pixels, 0), count_include_pad=False)


def grow(region: Tensor, pixels: int) -> Tensor:
    """All within `pixels`, along rows and columns, of a region (n, c, h, w) bool."""
    return box_mean(region.float(), pixels) > 0


def gaussian(x: Tensor, sigma: float) -> Tensor:
    """x (n, c, h, w) blurred with deviation sigma [pixels], the frame continued; if wide, on a smaller copy."""
    shrink = max(1, sigma // 4)
    small = _resize(x, [math.ceil(side / shrink) for side in x.shape[-2:]])
    sigma = sigma / shrink
    reach = math.ceil(3 * sigma)
    weights = (torch.arange(-reach, reach + 1).to(x) / sigma).square().div(-2).softmax(0)
    flat = F.pad(small.flatten(0, 1)[:, None], (reach,) * 4, "replicate")  # (n c, 1, h + 2 reach, w + 2 reach)
    flat = F.conv2d(F.conv2d(flat, weights.reshape(1, 1, 1, -1)), weights.reshape(1, 1, -1, 1))
    return _resize(flat.reshape(small.shape), x.shape[-2:])


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """(n, c, *size), bilinear between pixel centres, antialiased where it shrinks."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False, antialias=True)


def _working_size(x: Tensor) -> list[int]:
    """(h, w), no larger than of x, with a shorter side of at most WORKING_SIZE."""
    share = min(1, WORKING_SIZE / min(x.shape[-2:]))
    return [round(side * share) for side in x.shape[-2:]]


def _check_shapes(image: Tensor, alpha: Tensor) -> None:
    if image.ndim != 4 or image.shape[1] != 3 or alpha.ndim != 4 or alpha.shape[:2] != (len(image), 1):
        given = f"an image {tuple(image.shape)} and alpha {tuple(alpha.shape)}"
        raise ValueError(f"{given}: expected (n, 3, h, w) and (n, 1, h, w)")


def _size(x: Tensor) -> str:
    return f"{x.shape[-1]}x{x.shape[-2]}"
