"""Inversion: a photo, and what of it matters, to the w_plus that draws it.

The order is fixed: align, hide what lies outside the interest, encode, refine, tune. The interest is what a person
marks, or what `auto_interest` finds; nothing outside of a marked region has any influence on the latent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from hfgan.alignment import Align, Alignment, find_alignment
from hfgan.images import Source, load_image, on_white, to_image, to_pil, to_tensor, with_channels, write_file
from hfgan.models.alpha import AlphaModel
from hfgan.models.encoder import InterestEncoder, continue_outside, shrink
from hfgan.models.matting import MattingNetwork
from hfgan.models.published import PublishedEncoder
from hfgan.models.stylegan2 import StyleGAN2Generator
from hfgan.storage import read_tagged

Encoder = InterestEncoder | PublishedEncoder
Interest = Image.Image | np.ndarray | Tensor | Source | Sequence[float] | None
LEAST, MOST = 0.02, 0.98  # area of a subject that is believed
CLEAR = 0.5  # probability from which on a pixel counts as no obstacle
KEPT, AGREED = 0.3, 0.5  # of the subject's area; of intersection over union: less is no success
ROUNDS = 2
FILLED = 512  # px of the shorter side at which a photo is continued outside of its interest
AUTO = "auto"


# ---------------------------------------------------------------- what is given


@dataclass(frozen=True)
class Framed:
    """A photo as a model sees it.

    Attributes:
        photo: The whole photo, L, RGB or RGBA.
        alignment: Which square of it is seen.
        square: (1, c, r, r) in [-1, 1], that square.
        image: The same, but continued outside the interest, if one is marked.
        interest: (1, 1, r, r) in [0, 1], 1 for what matters; None for all of it.
        source: Where the interest comes from: "all", "marked", "box", "transparency", later "auto" and what befell it.
    """

    photo: Image.Image
    alignment: Alignment
    square: Tensor
    image: Tensor
    interest: Tensor | None
    source: str


def frame(photo: Image.Image | Source, interest: Interest, align: Align, generator: StyleGAN2Generator) -> Framed:
    """Align a photo and read its interest, in the frame of the whole photo.

    Args:
        interest: A region (bool, or numbers of which the upper half counts) as large as the photo, or of its shape, as
            PIL, array, tensor or file; a box (x0, y0, x1, y1) in pixels or shares of the photo; None for all, or for
            what is not transparent.

    Raises:
        ValueError: no readable photo, no region, or one that is empty where the model looks.
    """
    pil = load_image(photo)
    alignment, side = find_alignment(pil.size, align), generator.config.resolution
    region, source = read_interest(interest, pil)
    plain = with_channels(pil, generator.config.img_channels)
    square = to_tensor(alignment.crop(plain, side))
    if region is None:
        return Framed(pil, alignment, square, square, None, source)
    inside = region.point(lambda value: 255 * (value >= 128))
    seen = to_image(torch.from_numpy(np.array(alignment.crop_region(inside, side)))[None, None]) / 2 + 0.5
    if not (seen >= 0.5).any():
        raise ValueError(
            f"the interest covers no pixel of the {side}x{side} that the model sees: mark a larger region, inside the "
            "square of the photo that is used"
        )
    hidden = hide_outside(plain, inside)  # first, so that resizing mixes nothing in
    return Framed(pil, alignment, square, to_tensor(alignment.crop(hidden, side)), seen, source)


def hide_outside(photo: Image.Image, inside: Image.Image) -> Image.Image:
    """A photo with a smooth continuation in place of what is outside a region (mode L, 0 or 255)."""
    step = max(1, min(photo.size) // FILLED)
    weight = torch.from_numpy(np.array(inside) > 0).float()[None, None]  # (1, 1, h, w)
    total, weight = (F.avg_pool2d(x, step, ceil_mode=True) for x in (to_tensor(photo) * weight, weight))
    small = continue_outside(total / weight.clamp(min=1e-12), (weight > 0).float())
    behind = to_pil(small)[0].resize(photo.size, Image.Resampling.BILINEAR)
    return Image.composite(photo, behind, inside)


def read_interest(interest: Interest, photo: Image.Image) -> tuple[Image.Image | None, str]:
    """The region as mode L in the size of the photo, 255 inside, and where it comes from; None for everything."""
    if interest is None:
        alpha = photo.getchannel("A") if photo.mode == "RGBA" else None
        if alpha is None or alpha.getextrema()[0] >= 128 or alpha.getextrema()[1] < 128:
            return None, "all"
        return alpha, "transparency"
    if isinstance(interest, tuple | list):
        return _box(interest, photo.size), "box"
    region = _as_region(interest)
    if region.size != photo.size:
        scale = region.width / photo.width, region.height / photo.height
        if max(region.size) < 2 or abs(scale[0] - scale[1]) > 1.5 / min(photo.size):
            raise ValueError(
                f"the interest has {region.width}x{region.height} pixels and the photo {photo.width}x{photo.height}: "
                "give a region of the photo's size, or of its proportions"
            )
        region = region.resize(photo.size, Image.Resampling.BOX if scale[0] > 1 else Image.Resampling.BILINEAR)
    low, high = region.getextrema()
    if high < 128:
        raise ValueError(
            f"the interest is empty, its lightest pixel is {high} of 255: mark what matters, or leave it out for "
            "the whole photo"
        )
    return (None, "all") if low >= 128 else (region, "marked")


def _box(box: Sequence[float], size: tuple[int, int]) -> Image.Image:
    """A box (x0, y0, x1, y1) in pixels, or shares of the photo if no number is above 1, as mode L."""
    try:
        numbers = np.array(box, np.float64)
    except (TypeError, ValueError):
        numbers = np.full(4, math.nan)
    if numbers.shape != (4,) or not np.isfinite(numbers).all():
        raise ValueError(f"the interest is {box!r:.80}: expected a box of four numbers x0, y0, x1, y1")
    if numbers.min() >= 0 and numbers.max() <= 1:
        numbers = (numbers * [*size, *size]).round(6)
    x0, y0, x1, y1 = numbers.round().clip(0, [*size, *size]).astype(int).tolist()
    if x0 >= x1 or y0 >= y1:
        raise ValueError(
            f"the box {list(box)} has no pixel of a {size[0]}x{size[1]} photo: expected x0 < x1, y0 < y1 within it"
        )
    region = Image.new("L", size)
    region.paste(255, (x0, y0, x1, y1))
    return region


def _as_tensor(numbers: np.ndarray) -> Tensor:
    """A copy, whose strides and whose memory torch may have."""
    if numbers.dtype.kind not in "biuf":
        raise ValueError(f"the interest is an array of {numbers.dtype}: expected bool, uint8 or numbers in [0, 1]")
    return torch.from_numpy(np.array(numbers))


def _as_region(interest: Interest) -> Image.Image:
    """A region of any kind as mode L."""
    if isinstance(interest, np.ndarray | Tensor):
        found = interest.detach().cpu() if isinstance(interest, Tensor) else _as_tensor(interest)
        while found.ndim > 2 and found.shape[0] == 1:
            found = found[0]
        if found.ndim != 2 or not found.numel():
            raise ValueError(f"the interest has shape {[*found.shape]}: expected (h, w), (1, h, w) or (1, 1, h, w)")
        scaled = found.float() if found.dtype == torch.uint8 else found.float() * 255
        if not (scaled.min() >= 0 and scaled.max() <= 255):  # NaN too
            raise ValueError("the interest goes beyond [0, 1] (or 0..255 in uint8): give numbers in that range")
        return Image.fromarray(scaled.round().to(torch.uint8).numpy())
    pil = interest if isinstance(interest, Image.Image) and interest.mode in ("1", "L") else load_image(interest)
    if pil.mode == "RGBA" and pil.getchannel("A").getextrema()[0] < 255:
        return pil.getchannel("A")  # a cut-out says where it is
    return pil.convert("L")


# ---------------------------------------------------------------- what is found


@dataclass
class Inversion:
    """A photo and the latent that draws it.

    Attributes:
        image: What the model draws, RGB (L, RGBA), r x r.
        w_plus: (1, num_ws, w_dim), fp32 on the CPU.
        steps: What was drawn after each step of the encoder.
        interest: (1, 1, r, r), 0 or 1, in the square that was seen; all 1 where nothing was marked.
        interest_source: "all", "marked", "box", "transparency", "auto", or "all: " and why `auto` found nothing.
        distance_inside, distance_outside: Root mean square difference of photo and drawing in and out of the interest,
            of colours in [0, 1]; None where there is no such place.
        mode: The nearest mode; None for a model without modes.
        photo, alignment: The whole photo, and which square of it was seen.
        fingerprint: Of the generator.
        noise: Noise images that were fitted; None for the stored ones.
        tuned: `tuning.WeightDelta`, a change of the weights that was fitted; None for none.
        method: How w_plus was found.
        name: What files are called.
    """

    image: Image.Image
    w_plus: Tensor
    steps: list[Image.Image]
    interest: Tensor
    interest_source: str
    distance_inside: float | None
    distance_outside: float | None
    mode: int | None
    photo: Image.Image
    alignment: Alignment
    fingerprint: str
    noise: list[Tensor] | None = None
    tuned: object | None = None
    method: str = "encoder"
    name: str | None = None

    def __repr__(self) -> str:
        inside = "-" if self.distance_inside is None else f"{self.distance_inside:.3f}"
        return f"Inversion({self.method}, interest {self.interest_source}, distance inside {inside}, mode {self.mode})"

    def unalign(self, *, feather: float = 0.02) -> Image.Image:
        """The whole photo with what was drawn pasted in place of the interest, its edges softened, RGB."""
        return self.alignment.unalign(self.photo, self.image, self.interest, feather)

    def region(self) -> Image.Image:
        """The square that was seen, what is outside the interest grey and dark: RGB, 256 px or more."""
        side = max(256, self.image.width)
        seen = to_tensor(self.alignment.crop(with_channels(self.photo, 3), side))
        shown = F.interpolate(self.interest, size=(side, side), mode="nearest")
        dim = (seen.mean(1, keepdim=True) - 1) / 2
        return to_pil(torch.where(shown > 0.5, seen, dim.expand_as(seen)))[0]

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write w_plus (and noise, if it was fitted) as .safetensors, with what it belongs to as metadata."""
        tensors = {"w_plus": self.w_plus}
        tensors |= {f"noise.{k}": image for k, image in enumerate(self.noise or ())}
        said = {"format": "1", "generator": self.fingerprint, "method": self.method, "interest": self.interest_source}
        if Path(path).suffix.lower() != ".safetensors":
            raise ValueError(f"{path} does not end in .safetensors, which is what is written")
        write_file(
            path, save({name: value.contiguous() for name, value in tensors.items()}, said), overwrite=overwrite
        )


def read_latents(path: str | Path, fingerprint: str) -> Tensor:
    """The w_plus (n, num_ws, w_dim) that `Inversion.save` wrote; refused beside another generator.

    Raises:
        ValueError: no such file of ours, or of another generator. OSError: it cannot be read.
    """
    tensors, said = read_tagged(path)
    if "w_plus" not in tensors or "generator" not in said:
        raise ValueError(f"{path} holds no w_plus of hfgan: give a file that `hfgan invert` or Inversion.save wrote")
    check_generator(said["generator"], fingerprint, str(path))
    return tensors["w_plus"]


def check_generator(known: str, given: str, what: str) -> None:
    """ValueError unless a latent of the generator `known` goes with the generator `given`, by fingerprint."""
    if known != given:
        raise ValueError(
            f"{what} belongs to a generator with weights {known}, not {given}: load the model that inverted the photo"
        )


# ---------------------------------------------------------------- encode


@torch.no_grad()  # as a decorator, so that it ends where the generator waits
def encode(
    generator: StyleGAN2Generator, encoder: Encoder, image: Tensor, interest: Tensor | None, steps: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The w_plus (1, num_ws, w_dim) and the drawing (1, c, r, r) after each step of the encoder."""
    given = None if interest is None else interest.to(generator.device)
    yield from encoder.steps(generator, image.to(generator.device), given, steps)


@torch.no_grad()
def auto_interest(
    generator: StyleGAN2Generator, encoder: Encoder, matting: MattingNetwork, alpha: AlphaModel | None,
    image: Tensor, steps: int,
) -> tuple[Tensor | None, str]:  # fmt: skip
    """The subject of an image (1, c, r, r) without what stands before it, (1, 1, r, r), 0 or 1; and "auto".

    The subject is what `matting` finds. What stands before it is found where the inverted picture and the photo differ
    as they do at obstacles, which the encoder has learned to tell. Two rounds: what is found is hidden from the second
    inversion, which then draws the subject better. Where it fails, None and "all: " with the reason, or the subject.
    """
    subject = (matting(on_white(image).to(matting.device)).sigmoid() >= 0.5).float()  # (1, 1, r, r)
    area = subject.mean().item()
    if not LEAST <= area <= MOST:
        return None, f"all: the subject that was found covers {100 * area:.0f} % of the picture"
    if encoder.inliers is None:
        return subject, f"{AUTO}: the subject alone, this encoder has not learned to tell what stands before it"
    seen, told = encoder.look(image.to(generator.device))[0], shrink(subject, encoder.config.resolution)
    interest = subject
    for _ in range(ROUNDS):
        *_, (w_plus, drawn) = encode(generator, encoder, image, interest, steps)
        clear = encoder.inliers(seen, told, drawn).sigmoid()
        interest = subject * (shrink(clear, subject.shape[-1]) >= CLEAR).float()
    if interest.mean().item() < KEPT * area:
        return subject, f"{AUTO}: the subject alone, the model draws too little of it to tell what stands before it"
    if alpha is not None and (overlap := _overlap(alpha(generator, w_plus)[1].sigmoid(), subject)) < AGREED:
        return subject, f"{AUTO}: not sure, the subject that is drawn overlaps by {100 * overlap:.0f} % only"
    return interest, AUTO


def _overlap(a: Tensor, b: Tensor) -> float:
    """Intersection over union of two alphas, hardened."""
    a, b = a >= 0.5, b >= 0.5
    return ((a & b).sum() / (a | b).sum().clamp(min=1)).item()


def distances(image: Tensor, drawn: Tensor, interest: Tensor) -> tuple[float | None, float | None]:
    """Root mean square difference of images (1, c, r, r) inside and outside of an interest, of colours in [0, 1]."""
    error = (on_white(image) - on_white(drawn.clamp(-1, 1))).square().mean(1, keepdim=True) / 4  # as pictures show it
    sides = (interest >= 0.5, interest < 0.5)
    inside, outside = (error[where].mean().sqrt().item() if where.any() else None for where in sides)
    return inside, outside
