"""Which square of a photo a model sees, and the way back: the square is cropped, a picture of it is pasted in place.

Points are (x, y) in pixels of the photo, y downwards; pixel (0, 0) reaches from (0, 0) to (1, 1). A face is framed as
in the FFHQ data set, by its eyes and the corners of its mouth (Karras et al. 2019, "A style-based generator ...").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageChops, ImageFilter
from PIL.Image import Resampling
from torch import Tensor
from torch.nn import functional as F

from hfgan.images import MODES, pil_to_pixels, with_channels
from hfgan.segmentation import box_mean

Align = str | Sequence[float] | Sequence[Sequence[float]]
Quad = tuple[tuple[float, float], ...]
OVERSAMPLING = 2  # samples per pixel, along a side, wherever a crop is turned or continued
TOLERANCE = 0.01  # px by which the ends of a level side may differ: no one sees it, and nothing need be turned
BLUR, BLUR_WITHIN = 0.02, 0.1  # shares of the side: deviation of the blur beyond the border, and where it is in full


@dataclass(frozen=True)
class Alignment:
    """The square of a photo that a model sees.

    Attributes:
        quad: Corners (x, y) [pixels] of the square: top left, bottom left, bottom right, top right, as the model sees
            them. They may lie outside the photo.
        size: (width, height) [pixels] of the photo.
        how: What was asked: "center", "none", "box" or "points".
    """

    quad: Quad
    size: tuple[int, int]
    how: str = "center"

    def __post_init__(self) -> None:
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"a photo of size {self.size}: expected (width, height), each 1 or more pixels")
        corners = np.array(self.quad, np.float64)
        fits = corners.shape == (4, 2) and np.isfinite(corners).all() and self.side > 0
        if fits:  # the middle and one side give the square
            square = _quad(corners.mean(0), (corners[3] - corners[0]) / 2)
            fits = np.abs(corners - square).max() <= 1e-3 * self.side
        if not fits:
            order = "top left, bottom left, bottom right, top right"
            raise ValueError(f"quad is {self.quad}: expected the corners (x, y) of a square, {order}")

    @property
    def side(self) -> float:
        """The side of the square [pixels of the photo]."""
        return math.dist(self.quad[0], self.quad[3])

    @property
    def is_upright(self) -> bool:
        """Whether the square is not turned: its sides are parallel to the photo's, its top is on top."""
        (left, top), (lower_left, _), _, (right, upper_right) = self.quad
        return left < right and abs(top - upper_right) < TOLERANCE and abs(left - lower_left) < TOLERANCE

    def crop(self, photo: Image.Image, side: int) -> Image.Image:
        """The square as (side, side) by Lanczos, antialiased, in the mode of the photo: L, RGB or RGBA.

        An upright square of whole pixels within the photo comes out as by `resize_square`, bit for bit. Beyond the
        border the photo is reflected, and blurred the more the further out.
        """
        self._check(photo, tuple(MODES.values()))
        return self._view(photo, side, Resampling.LANCZOS, Resampling.BICUBIC, continued=True)

    def crop_region(self, region: Image.Image, side: int) -> Image.Image:
        """The square of a region of the photo, mode L, as (side, side): means over areas, 0 beyond the border."""
        self._check(region, ("L",))
        return self._view(region, side, Resampling.BOX, Resampling.BILINEAR, continued=False)

    def unalign(
        self,
        photo: Image.Image,
        picture: Image.Image,
        region: Image.Image | Tensor | None = None,
        feather: float = 0.02,
    ) -> Image.Image:
        """The photo, RGB at its full size, with a picture of the square, of any resolution, pasted where it belongs.

        Outside the square and where the region is 0 every pixel stays as it was. The paste fades out on the inner side
        of these edges, over `feather`, but not at the border of the photo, where there is no seam.

        Args:
            region: What is pasted, in the frame of the picture: mode L, or (1, 1, s, s) in [0, 1]; None is all of it.
                Parts of it that are thinner than `feather` are lost.
            feather: Share of the square's side, 0 to 0.5.
        """
        self._check(photo, tuple(MODES.values()))
        if picture.width != picture.height:
            raise ValueError(f"a picture of {picture.width}x{picture.height}: expected a square, as crop makes it")
        if not 0 <= feather <= 0.5:
            raise ValueError(f"feather is {feather}: expected a share of the square's side, 0 to 0.5")
        corners, pasted = np.array(self.quad), with_channels(photo, 3).copy()
        low = np.maximum(np.floor(corners.min(0)), 0).astype(int)
        high = np.minimum(np.ceil(corners.max(0)), self.size).astype(int)
        marked = torch.ones(1, 1, 1, 1) if region is None else fade(_region_tensor(region), feather)
        marked = Image.fromarray((marked[0, 0] * 255).round().to(torch.uint8).numpy())
        # no more pixels than the square has in the photo, so that no pixel is skipped, nor than show anything
        fine = max(1, min(round(self.side), max(OVERSAMPLING * picture.width, marked.width)))
        if marked.width > fine:
            marked = marked.resize((fine, fine), Resampling.BOX)
        weight = ImageChops.multiply(marked.resize((fine, fine), Resampling.BILINEAR), self._edges(fine, feather))
        layer = with_channels(picture, 3).resize((fine, fine), Resampling.LANCZOS)

        def place(pil: Image.Image, resample: Resampling) -> Image.Image:
            inverse = np.linalg.inv(_axes(corners) / pil.width)
            affine = _affine(inverse, inverse @ (low - corners[0]))
            return pil.transform(tuple((high - low).tolist()), Image.Transform.AFFINE, affine, resample)

        if (low < high).all():
            unmarked = place(marked, Resampling.NEAREST).point(lambda value: 255 * (value == 0))
            weight = place(weight, Resampling.BILINEAR)
            weight.paste(0, mask=unmarked)  # between pixels weights reach half a pixel too far
            pasted.paste(place(layer, Resampling.BICUBIC), tuple(low.tolist()), weight)
        return pasted

    def _check(self, pil: Image.Image, modes: tuple[str, ...]) -> None:
        if pil.size != tuple(self.size):
            sizes = f"{pil.width}x{pil.height}, but the alignment is of a photo of {self.size[0]}x{self.size[1]}"
            raise ValueError(f"a picture of {sizes}: find_alignment finds one for this size")
        if pil.mode not in modes:
            raise ValueError(f"mode {pil.mode}: expected {' or '.join(modes)} (load_image or .convert converts)")

    def _view(
        self, pil: Image.Image, side: int, reduce: Resampling, sample: Resampling, continued: bool
    ) -> Image.Image:
        """The square as (side, side) by the filter `reduce`; if turned, of samples by `sample` on a finer grid."""
        if side < 1:
            raise ValueError(f"side is {side}: expected 1 or more pixels")
        corners, length, fine = np.array(self.quad, np.float64), self.side, OVERSAMPLING * side
        plain = self.is_upright and corners.min() >= 0 and (corners.max(0) <= pil.size).all()
        if pil.mode == "RGBA" and not plain:  # premultiplied, and that once: each time costs colours up to a level
            return self._view(pil.convert("RGBa"), side, reduce, sample, continued).convert("RGBA")
        if length > fine and not plain:  # else samples lie too far apart, and what continues the photo may be huge
            small = [max(1, round(edge * fine / length)) for edge in pil.size]
            corners, length = corners * (np.array(small) / pil.size), fine
            pil = pil.resize(small, reduce)
        low, high = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int)
        box = (*low.tolist(), *high.tolist())
        canvas, corners = _continue(pil, box, length) if continued else pil.crop(box), corners - low
        if self.is_upright:
            return canvas.resize((side, side), reduce, box=(*corners[0].tolist(), *corners[2].tolist()))
        affine = _affine(_axes(corners) / fine, corners[0])
        return canvas.transform((fine, fine), Image.Transform.AFFINE, affine, sample).resize((side, side), reduce)

    def _edges(self, side: int, feather: float) -> Image.Image:
        """(side, side), mode L: 255 in the square, less within `feather` of an edge that the photo goes on beyond."""
        (width, height), corners = self.size, np.array(self.quad)
        frame = np.array([(0, 0), (width, 0), (0, height), (width, height)]) - corners[0]
        frame = frame @ np.linalg.inv(_axes(corners)).T  # the photo's corners in shares of the square
        at, slack = (np.arange(side) + 0.5) / side, TOLERANCE / self.side
        across, down = (
            np.minimum(np.where(first < -slack, at, 1), np.where(last > 1 + slack, 1 - at, 1))
            for first, last in zip(frame.min(0), frame.max(0), strict=True)
        )
        ramps = [(np.minimum(ramp / max(feather, 1e-9), 1) * 255).astype(np.uint8) for ramp in (down, across)]
        return Image.fromarray(np.minimum.outer(*ramps))


def find_alignment(size: tuple[int, int], how: Align = "center") -> Alignment:
    """Which square of a photo of `size` (width, height) [pixels] a model sees.

    Args:
        how: "center", the largest square in the middle; "none", all of a photo that is square; a box (x0, y0, x1, y1)
            in pixels, or in shares of the photo if no number is above 1, whose shorter side is extended at both ends;
            or the points (x, y) of a face, as seen in the picture: left eye, right eye, nose, left and right corner of
            the mouth, with or without the nose.

    Raises:
        ValueError: it is none of these, is empty or degenerate, or lies outside the photo.
    """
    width, height = size
    if isinstance(how, str):
        if how not in ("center", "none"):
            raise ValueError(f'align is {how!r:.80}: expected "center", "none", a box or the points of a face')
        if how == "none" and width != height:
            raise ValueError(f'a {width}x{height} photo is not square: crop it first, or ask for "center" or a box')
        side = min(size)
        middle = np.array([(width - side) // 2, (height - side) // 2]) + side / 2
        return Alignment(_quad(middle, np.array([side / 2, 0])), (width, height), how)
    given = _numbers(how)
    if given.shape == (4,) and given.min() >= 0 and given.max() <= 1:
        given = (given * [*size, *size]).round(6)  # 0.29 * 100 is a little less than 29
    points = given.reshape(-1, 2)
    extent = points[1] - points[0]
    if given.shape == (4,) and (extent.min() <= 0 or extent.max() < 1):
        raise ValueError(f"box {given.tolist()} is empty, reversed or below a pixel: expected x0 < x1 and y0 < y1")
    low, high, reach = points.min(0), points.max(0), max(size)
    if (high <= 0).any() or (low >= size).any() or low.min() < -reach or (high > np.add(size, reach)).any():
        raise ValueError(f"{given.tolist()} is outside a photo of {width}x{height}: expected pixels (x, y) of it")
    if given.shape == (4,):
        return Alignment(_quad(points.mean(0), np.array([extent.max() / 2, 0])), (width, height), "box")
    return Alignment(_face_quad(points), (width, height), "points")


def _numbers(how: Align) -> np.ndarray:
    """A box (4,) or points (4 or 5, 2), fp64 and finite."""
    try:
        given = np.array(how, np.float64)
    except (TypeError, ValueError):
        given = np.empty(0)
    if given.shape not in ((4,), (4, 2), (5, 2)):
        kinds = '"center", "none", a box (x0, y0, x1, y1), or 4 or 5 points (x, y) of a face'
        raise ValueError(f"align is {' '.join(repr(how).split()):.80}: expected {kinds}")
    if not np.isfinite(given).all():
        raise ValueError(f"align is {given.tolist()}: expected finite numbers, pixels of the photo")
    return given


def _face_quad(points: np.ndarray) -> Quad:
    """The square of FFHQ about the points (4 or 5, 2) of a face: eyes, the nose if any, corners of the mouth."""
    eyes, mouth = points[:2].mean(0), points[-2:].mean(0)
    between, below = points[1] - points[0], mouth - eyes
    half = max(2.0 * np.hypot(*between), 1.8 * np.hypot(*below))
    # the mouth is clockwise of the line of the eyes, unless points coincide or left and right are exchanged
    if between @ _turn(below) >= 0 or half < 0.5:
        order = "left eye, right eye, (nose,) left and right corner of the mouth, as seen in the picture"
        raise ValueError(f"the points {points.tolist()} coincide or are no face: expected {order}")
    across = between - _turn(below)  # both say where the right is
    return _quad(eyes + 0.1 * below, across * (half / np.hypot(*across)))


def _turn(vector: np.ndarray) -> np.ndarray:
    """(x, y) by a quarter: what went right goes down, what went down goes left."""
    return np.array([-vector[1], vector[0]])


def _quad(center: np.ndarray, across: np.ndarray) -> Quad:
    """Corners of the square with a centre (x, y) and half a side `across` (x, y), from the left to the right."""
    down = _turn(across)
    corners = center - across - down, center - across + down, center + across + down, center + across - down
    return tuple((float(x), float(y)) for x, y in corners)


def _axes(corners: np.ndarray) -> np.ndarray:
    """(2, 2) whose columns are the upper and the left side of corners (4, 2), from the top left."""
    return np.stack([corners[3] - corners[0], corners[1] - corners[0]], 1)


def _affine(matrix: np.ndarray, offset: np.ndarray) -> tuple[float, ...]:
    """What makes Pillow look up each point (x, y) at matrix @ (x, y) + offset; it asks for the centres of pixels."""
    return tuple(np.column_stack([matrix, offset]).ravel().tolist())


def _continue(photo: Image.Image, box: tuple[int, int, int, int], side: float) -> Image.Image:
    """The box (x0, y0, x1, y1) of a photo, reflected at its border and blurred beyond it, in shares of `side` [px]."""
    index = np.arange(box[0], box[2]), np.arange(box[1], box[3])
    aside, above = (np.maximum(np.maximum(-i, i - n + 1), 0) for i, n in zip(index, photo.size, strict=True))
    if not aside.any() and not above.any():
        return photo.crop(box)
    columns, rows = (np.minimum(i % (2 * n), (-1 - i) % (2 * n)) for i, n in zip(index, photo.size, strict=True))
    pixels = np.asarray(photo)[rows].take(columns, 1)
    canvas = Image.frombytes(photo.mode, (len(columns), len(rows)), pixels.tobytes())  # fromarray knows no RGBa
    blurred = canvas.filter(ImageFilter.GaussianBlur(BLUR * side))
    share = np.minimum(np.maximum.outer(above, aside) * (255 / BLUR_WITHIN / side), 255)  # (h, w), 0 in the photo
    return Image.composite(blurred, canvas, Image.fromarray(share.astype(np.uint8)))


def _region_tensor(region: Image.Image | Tensor) -> Tensor:
    """A region as float (1, 1, s, s) in [0, 1], on the CPU."""
    if isinstance(region, Image.Image):
        if region.mode != "L":
            raise ValueError(f"a region in mode {region.mode}: expected L, 255 for what is pasted")
        region = pil_to_pixels(region)[None] / 255
    if region.ndim != 4 or region.shape[:2] != (1, 1) or region.shape[2] != region.shape[3]:
        raise ValueError(f"a region of shape {[*region.shape]}: expected [1, 1, s, s], in the frame of the picture")
    if not (region.min() >= 0 and region.max() <= 1):  # NaN too
        raise ValueError(f"the region goes from {region.min():g} to {region.max():g}: expected 0 to 1")
    return region.detach().float().cpu()


def fade(region: Tensor, feather: float) -> Tensor:
    """A region (1, 1, s, s) that fades towards its edges over `feather` of s, and is nowhere above what it was."""
    reach = round(feather / 2 * region.shape[-1])
    for kernel, pad in (((1, 2 * reach + 1), (0, reach)), ((2 * reach + 1, 1), (reach, 0))):
        region = -F.max_pool2d(-region, kernel, 1, pad)  # the least nearby; the frame is no edge here
    return box_mean(region, reach)
