"""Cut-outs: edges refined on the picture, colours freed of the old background, new backgrounds, every kind of export.

Inside functions alpha is a float tensor (n, 1, h, w) in [0, 1], 1 for the foreground, and an image is (n, 3, h, w) in
[-1, 1]. A picture is alpha * foreground + (1 - alpha) * background on the encoded (sRGB) values, as other programs
compose. No network is run here, and the same input gives the same bytes.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import torch
from PIL import Image, ImageColor, ImageOps
from torch import Tensor
from torch.nn import functional as F

from hfgan.images import save_png, to_image, to_pil, to_tensor, with_channels, write_file

# what a cut-out is exported as, and what its file's name gets where several kinds share a folder
KINDS = {"rgba": "", "mask": "-mask", "alpha16": "-alpha16", "trimap": "-trimap", "overlay": "-overlay"}
Color = str | Sequence[int]
WORKING_SIZE = 512  # px of the shorter side at which means over windows are taken
FUSION_RADII = (0.09, 0.006)  # the paper's 90 and 6 px, as shares of the shorter side of a picture of 1000 px
NO_WEIGHT = 1e-5  # keeps a weighted mean finite: where nothing has weight it is the plain mean


@dataclass(frozen=True, eq=False)
class Cutout:
    """A picture, RGB, and the alpha of its foreground, (h, w) fp32 on the CPU, in [0, 1].

    A generated picture has its recipe, a photo None; files are called `name`, to which a suffix is added.
    """

    image: Image.Image
    alpha: Tensor
    recipe: dict | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        size, alpha = [self.image.height, self.image.width], self.alpha
        if self.image.mode != "RGB":
            raise ValueError(f"the picture's mode is {self.image.mode}: expected RGB (with_channels converts)")
        if [*alpha.shape] != size or alpha.dtype != torch.float32 or alpha.device.type != "cpu":
            raise ValueError(f"alpha is {alpha.dtype} {[*alpha.shape]}, {alpha.device}: expected float32 {size}, cpu")
        if not (alpha.min() >= 0 and alpha.max() <= 1):  # NaN too
            raise ValueError(f"alpha goes from {alpha.min():g} to {alpha.max():g}: expected 0 to 1")

    @classmethod
    def from_alpha(cls, picture: Image.Image, alpha: Tensor, refined: bool, **said: Any) -> Self:
        """The cut-out of a picture by an alpha (1, 1, a, b) of any size, `refined` to follow the edges of the picture.

        Args:
            said: What else goes into the cut-out.
        """
        rgb = with_channels(picture, 3)
        size = [min(sides) for sides in zip(alpha.shape[-2:], rgb.size[::-1], strict=True)]
        alpha = _resize(alpha, size)  # no larger than the picture
        found = refine(alpha, to_tensor(rgb)) if refined else _resize(alpha, rgb.size[::-1])
        return cls(rgb, found.clamp(0, 1)[0, 0], **said)

    def finish(
        self, *, threshold: float | None = None, feather: float = 0.0, largest: bool = False, invert: bool = False
    ) -> Cutout:
        """The cut-out with its alpha hardened, reduced to its `largest_component`, softened, inverted, in this order.

        Alpha is 1 from `threshold` in (0, 1) on, else 0; `feather` in 0..100 is the deviation [pixels] of a Gaussian.
        """
        if threshold is not None and not 0 < threshold < 1:
            raise ValueError(f"threshold is {threshold}: expected a number between 0 and 1, or None for soft edges")
        if not 0 <= feather <= 100:
            raise ValueError(f"feather is {feather}: expected 0 to 100 pixels")
        alpha = self.alpha[None, None]
        alpha = alpha if threshold is None else (alpha >= threshold).float()
        alpha = largest_component(alpha) if largest else alpha
        alpha = gaussian(alpha, feather).clamp(0, 1) if feather else alpha
        return replace(self, alpha=(1 - alpha if invert else alpha)[0, 0])

    def rgba(self, *, decontaminate: bool = True) -> Image.Image:
        """RGBA with straight alpha; half-transparent pixels have the colour of the foreground alone, or their own.

        Transparent pixels within 8 px of visible ones have it too: a program that scales without regard to alpha would
        draw a fringe from black ones. The others are black, which costs no bytes and tells nothing of what was there.
        """
        image, alpha = to_tensor(self.image), self.alpha[None, None]
        colors = foreground_colors(image, alpha) if decontaminate else image
        near = box_mean((alpha >= 0.5 / 255).float(), 8) > 0  # visible in 8 bits, or next to that
        return to_pil(torch.cat([torch.where(near, colors, -1), alpha * 2 - 1], 1))[0]

    def mask(self) -> Image.Image:
        """Alpha in 8 bits, mode L."""
        return to_pil(self.alpha[None, None] * 2 - 1)[0]

    def alpha16(self) -> Image.Image:
        """Alpha in 16 bits, mode I;16."""
        return Image.fromarray((self.alpha * 65535).round().to(torch.uint16).numpy())

    def trimap(self, band: float | None = None) -> Image.Image:
        """Mode L: 255 foreground, 0 background, 128 unknown: soft alpha and what is within `band` of it or an edge.

        `band` is in pixels along rows and columns, rounded; by default 1 % of the shorter side, at least 1.
        """
        band = max(1, min(self.image.size) / 100) if band is None else band
        if not 0 <= band <= max(self.image.size):
            raise ValueError(f"band is {band}: expected pixels, from 0 to the longer side, {max(self.image.size)}")
        alpha = self.alpha[None, None]
        return to_pil(hold_known(torch.full_like(alpha, 0.5), alpha, erode=2 * round(band)) * 2 - 1)[0]

    def overlay(self, color: Color = (255, 45, 120)) -> Image.Image:
        """RGB to judge an alpha by: the background grey, dark and tinted, and a line where alpha crosses one half."""
        image, alpha, tint = to_tensor(self.image), self.alpha[None, None], color_image(color)
        behind = torch.lerp((image.mean(1, keepdim=True) - 1) / 2, tint, 0.2)  # at half its brightness
        edge = gaussian((alpha >= 0.5).float(), max(0.7, min(self.image.size) / 500))
        return to_pil(torch.lerp(composite(image, behind, alpha), tint, 4 * edge * (1 - edge)))[0]

    def on(self, background: Color | Image.Image, *, decontaminate: bool = True) -> Image.Image:
        """RGB of the foreground on a background: a colour, a picture, or "blur", its own out of focus.

        A colour is "#ff8800", a name or (r, g, b); a picture is scaled to cover this one, its middle is shown.
        """
        image, alpha = to_tensor(self.image), self.alpha[None, None]
        colors = foreground_colors(image, alpha) if decontaminate else image
        if isinstance(background, Image.Image):
            behind = to_tensor(ImageOps.fit(with_channels(background, 3), self.image.size, Image.Resampling.LANCZOS))
        elif background == "blur":
            # without alpha * foreground a picture is background times 1 - alpha: no foreground is smeared into it
            layer = gaussian(torch.cat([image - alpha * colors, 1 - alpha], 1), 0.03 * min(self.image.size))
            behind = layer[:, :3] / layer[:, 3:].clamp(min=NO_WEIGHT)
        else:
            behind = color_image(background)
        return to_pil(composite(colors, behind, alpha))[0]

    def render(self, kind: str) -> Image.Image:
        """The picture that one of KINDS names."""
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}: expected {', '.join(map(repr, KINDS))}")
        return getattr(self, kind)()

    def save(self, path: str | Path, kind: str = "rgba", *, overwrite: bool = False) -> None:
        """Write one of KINDS by `save_png`, with the recipe; "rgba" also as lossless .webp, which has no recipe."""
        pil = self.render(kind)
        if kind != "rgba" or Path(path).suffix.lower() != ".webp":
            return save_png(pil, path, self.recipe, overwrite=overwrite)
        buffer = io.BytesIO()
        pil.save(buffer, "WEBP", lossless=True, exact=True)  # exact: transparent pixels keep their colour
        return write_file(path, buffer.getvalue(), overwrite=overwrite)


def zip_bytes(cutouts: Sequence[Cutout], kinds: Sequence[str] = ("rgba",)) -> bytes:
    """A ZIP of PNGs named as the cut-outs, no two alike, in a folder per kind if there are several; without dates."""
    if not cutouts or not kinds:
        raise ValueError(f"{len(cutouts)} cut-outs as {len(kinds)} kinds: expected at least one of each to pack")
    buffer, taken = io.BytesIO(), set()
    with zipfile.ZipFile(buffer, "w") as archive, TemporaryDirectory() as folder:
        file = Path(folder, "cutout.png")
        for cutout in cutouts:
            name = re.sub(r'[\x00-\x1f\\/:*?"<>|]', "_", cutout.name or "").strip(". ") or "cutout"
            while name.casefold() in taken:
                name += f"-{len(taken) + 1}"
            taken.add(name.casefold())
            for kind in dict.fromkeys(kinds):
                cutout.save(file, kind, overwrite=True)
                entry = zipfile.ZipInfo(f"{kind}/{name}.png" if len(set(kinds)) > 1 else f"{name}.png")  # 1980-01-01
                entry.create_system, entry.external_attr = 3, 0o644 << 16  # whatever the system
                archive.writestr(entry, file.read_bytes())
    return buffer.getvalue()


def color_image(color: Color) -> Tensor:
    """The image (1, 3, 1, 1) of a colour: what Pillow knows by name or number, or (r, g, b) in 0..255."""
    try:
        rgb = bytes([*(ImageColor.getrgb(color) if isinstance(color, str) else color)])  # all in 0..255
        return to_image(torch.tensor(list(rgb)).reshape(1, 3, 1, 1))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f'the colour is {color!r}: expected "#rrggbb", a name or (r, g, b) in 0..255'
            "; a picture is given opened, as PIL has it"
        ) from error


def composite(foreground: Tensor, background: Tensor, alpha: Tensor) -> Tensor:
    """alpha * foreground + (1 - alpha) * background, of shapes that broadcast; exact where alpha is 0 or 1."""
    return torch.lerp(background, foreground, alpha)


def foreground_colors(image: Tensor, alpha: Tensor) -> Tensor:
    """Colours of the foreground (n, 3, h, w), where it is half-transparent too, of an image and an alpha as large.

    Blur fusion (Forte 2021, "Approximate Fast Foreground Colour Estimation", arXiv 2006.14970): F and B are means in
    a window, weighted by alpha and 1 - alpha; then F += alpha (image - alpha F - (1 - alpha) B). Twice, the second
    time in a small window. Where alpha is 1 the image is unchanged.
    """
    _check_shapes(image, alpha, "as large", image.shape[-2:] == alpha.shape[-2:])
    foreground = background = image
    for radius in FUSION_RADII:
        foreground = _weighted_mean(foreground, alpha, radius)
        background = _weighted_mean(background, 1 - alpha, radius)
        error = image - composite(foreground, background, alpha)
        foreground = (foreground + alpha * error).clamp(-1, 1)
    return foreground


def _weighted_mean(x: Tensor, weight: Tensor, radius: float) -> Tensor:
    """Means of x (n, c, h, w), weighted (n, 1, h, w), in windows whose radius is a share of the shorter side."""
    weight = weight + NO_WEIGHT
    small = _shrink(torch.cat([x * weight, weight], 1))  # weighted before it shrinks, so that nothing bleeds
    sums = box_mean(small, max(1, round(radius * min(small.shape[-2:]))))
    return _resize(sums[:, :-1] / sums[:, -1:], x.shape[-2:])


def refine(alpha: Tensor, image: Tensor, *, radius: float = 0.02, epsilon: float = 1e-4) -> Tensor:
    """Alpha (n, 1, h, w) in [0, 1] at the size of the image (n, 3, h, w), with its edges where the image has them.

    Guided filter with a colour guide (He, Sun & Tang 2013, "Guided Image Filtering"): in each window alpha is a linear
    function of the colour. Found on a smaller copy, applied at full size (He & Sun 2015, arXiv 1505.00996). Alpha is
    (n, 1, a, b), at most as large as the image; `radius` of the windows is a share of the shorter side, up to 0.25;
    a window with less variance of colours, in [0, 1], than `epsilon` counts as flat.
    """
    fits = alpha.ndim == image.ndim == 4 and alpha.shape[2] <= image.shape[2] and alpha.shape[3] <= image.shape[3]
    _check_shapes(image, alpha, "at most as large", fits)
    if not 0 < radius <= 0.25 or not 0 < epsilon <= 1:
        raise ValueError(f"{radius=}, {epsilon=}: expected a radius above 0 up to 0.25, an epsilon above 0 up to 1")
    guide = _shrink(image)
    size = guide.shape[-2:]
    # a window must see across a pixel of alpha, or the steps of a small alpha are taken for edges
    steps = [math.ceil(large / small) for large, small in zip(size, alpha.shape[-2:], strict=True)]
    lines = _color_lines(_resize(alpha, size), guide, max(round(radius * min(size)), *steps), epsilon)
    lines = _resize(lines, image.shape[-2:])  # (n, 4, h, w)
    return lines[:, :3].mul_(image).sum(1, keepdim=True).add_(lines[:, 3:]).clamp_(0, 1)


def _color_lines(alpha: Tensor, image: Tensor, pixels: int, epsilon: float) -> Tensor:
    """Coefficients (n, 4, h, w), fp32, that make alpha of r, g, b in [-1, 1] and 1: means over a pixel's windows.

    a = (cov(guide) + epsilon)^-1 cov(guide, alpha), b = mean(alpha) - a . mean(guide); fp64, for variances are small.
    """
    guide, alpha = (image.double() + 1) / 2, alpha.double()
    mean, mean_alpha = box_mean(guide, pixels), box_mean(alpha, pixels)
    pairs = box_mean((guide[:, :, None] * guide[:, None]).flatten(1, 2), pixels).unflatten(1, (3, 3))
    covariance = (pairs - mean[:, :, None] * mean[:, None]).movedim((1, 2), (-2, -1))  # (n, h, w, 3, 3)
    shared = (box_mean(guide * alpha, pixels) - mean * mean_alpha).movedim(1, -1)  # (n, h, w, 3)
    a = torch.linalg.solve(covariance + epsilon * torch.eye(3).to(covariance), shared).movedim(-1, 1)
    b = mean_alpha - (a * mean).sum(1, keepdim=True)
    # of a . (rgb + 1) / 2 + b, so that the large image need not be rescaled
    return box_mean(torch.cat([a / 2, b + a.sum(1, keepdim=True) / 2], 1), pixels).float()


def hold_known(
    refined: Tensor, alpha: Tensor, *, foreground: int = 240, background: int = 10, erode: int = 10
) -> Tensor:
    """The refined alpha (n, 1, h, w), but 1 and 0 well inside what had been foreground and background beyond doubt.

    Beyond doubt is where the unrefined alpha (n, 1, a, b), of 255, is >= `foreground` or <= `background`, eroded by a
    square with a side of `erode` pixels, as in rembg. The frame is no edge: a foreground that it cuts is known there.
    """
    if not 0 <= background < foreground <= 255 or erode < 0:
        raise ValueError(f"expected 255 >= {foreground=} > {background=} >= 0 and {erode=} >= 0: give other numbers")
    alpha = _resize(alpha, refined.shape[-2:])
    sure = torch.cat([alpha >= foreground / 255, alpha <= background / 255], 1)
    inside, outside = (box_mean((~sure).float(), erode // 2) == 0).split(1, dim=1)  # nothing else in the window
    return refined.masked_fill(inside, 1).masked_fill(outside, 0)


def clean(alpha: Tensor) -> Tensor:
    """Hard alpha (n, 1, h, w) as by rembg's `-ppm`: opening with a disk of 3 px, Gaussian of 2 px, threshold 0.5."""
    for sign in (-1, 1):  # erosion is dilation of the negative
        alpha = sign * alpha
        across, down = F.max_pool2d(alpha, (1, 3), 1, (0, 1)), F.max_pool2d(alpha, (3, 1), 1, (1, 0))
        alpha = sign * torch.maximum(across, down)
    return (gaussian(alpha, 2) >= 0.5).float()


def largest_component(alpha: Tensor) -> Tensor:
    """Alpha (1, 1, h, w) without all but its largest part: 8-connected where above 0.5, and what is joined to that.

    A softer pixel goes with the part that it sees more of around. Where nothing is above 0.5, alpha stays as it is.
    """
    core = (alpha > 0.5)[0, 0]
    if not core.any():
        return alpha
    kept = _heaviest_region(core, core)
    attached = _heaviest_region(alpha[0, 0] > 1 / 255, kept)  # all that 8 bits show
    parts = torch.stack([kept, core & ~kept])
    around = gaussian(parts[None].float(), max(1, min(core.shape) / 100))[0]
    return alpha * (kept | (attached & ~parts[1] & (around[0] >= around[1])))


def _heaviest_region(on: Tensor, weight: Tensor) -> Tensor:
    """The 8-connected region of `on` (h, w) bool with most pixels of `weight`, part of `on`; the first of equals.

    What is joined are runs of pixels in a row, far fewer than pixels. Each takes the least number among those that it
    touches, then the number of that one, so that rounds grow with the logarithm of a chain.
    """
    stride = on.shape[1] + 1  # an empty column keeps a run from going on in the next row
    step = F.pad(on, (0, 1)).flatten().int().diff(prepend=torch.zeros(1, dtype=torch.int32))
    starts, ends = (step == 1).nonzero()[:, 0], (step == -1).nonzero()[:, 0]  # (k,)
    first = torch.searchsorted(ends, starts + stride)  # of the runs in the next row that a run touches
    count = torch.searchsorted(starts, ends + stride, right=True) - first
    upper = torch.arange(len(starts)).repeat_interleave(count)
    lower = torch.arange(len(upper)) - (count.cumsum(0) - count)[upper] + first[upper]
    root, before = torch.arange(len(starts)), torch.arange(0)
    while not torch.equal(root, before):
        before, ends_of = root, torch.cat([root[upper], root[lower]])  # an edge joins what its two runs belong to
        root = root.scatter_reduce(0, ends_of, torch.minimum(root[upper], root[lower]).repeat(2), "amin")
        root = root[root]
    region = root[(step == 1).cumsum(0).reshape(-1, stride)[:, :-1] - 1]  # (h, w), of no meaning where not `on`
    return on & (region == region[weight].bincount().numpy().argmax())


def box_mean(x: Tensor, pixels: int) -> Tensor:
    """Mean of x (n, c, h, w) in windows that reach `pixels` to each side; beyond the frame nothing is counted."""
    rows = F.avg_pool2d(x, (1, 2 * pixels + 1), 1, (0, pixels), count_include_pad=False)
    return F.avg_pool2d(rows, (2 * pixels + 1, 1), 1, (pixels, 0), count_include_pad=False)


def gaussian(x: Tensor, sigma: float) -> Tensor:
    """x (n, c, h, w) blurred with deviation sigma [pixels], the frame continued; if wide, on a smaller copy."""
    shrink = max(1, sigma // 4)
    small = _resize(x, [math.ceil(side / shrink) for side in x.shape[-2:]])
    reach = math.ceil(3 * sigma / shrink)
    weights = (torch.arange(-reach, reach + 1).to(x) * shrink / sigma).square().div(-2).softmax(0)
    flat = F.pad(small.flatten(0, 1)[:, None], (reach,) * 4, "replicate")  # (n c, 1, h + 2 reach, w + 2 reach)
    flat = F.conv2d(F.conv2d(flat, weights.reshape(1, 1, 1, -1)), weights.reshape(1, 1, -1, 1))
    return _resize(flat.reshape(small.shape), x.shape[-2:])


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """(n, c, *size), bilinear between pixel centres, antialiased where it shrinks."""
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False, antialias=True)


def _shrink(x: Tensor) -> Tensor:
    """x (n, c, h, w) with a shorter side of at most WORKING_SIZE."""
    share = min(1, WORKING_SIZE / min(x.shape[-2:]))
    return _resize(x, [round(side * share) for side in x.shape[-2:]])


def _check_shapes(image: Tensor, alpha: Tensor, size: str, fits: bool) -> None:
    if not fits or image.ndim != 4 or image.shape[1] != 3 or alpha.shape[:2] != (len(image), 1):
        raise ValueError(f"image {[*image.shape]}, alpha {[*alpha.shape]}: expected [n, 3, h, w], [n, 1, h, w] {size}")
