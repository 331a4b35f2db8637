"""Pictures in and out: PIL <-> tensor, honest reading of odd files, one resize, recipes in PNG, animations.

Inside the library an image is a float tensor (n, c, h, w) in [-1, 1]; PIL lives at the facade only.
Resizing is Lanczos, antialiased, on the encoded (sRGB) values, the same for training and for metrics: two
filters on the two sides of a Fréchet distance measure the filters (Parmar et al. 2022, "clean-fid").
"""

from __future__ import annotations

import io
import logging
import os
import uuid
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps

logger = logging.getLogger(__name__)

# Pillow's own point of refusal (half a GiB as RGB): a larger picture is taken for a decompression bomb
MAX_PIXELS = 178_956_970
BACKGROUND = (255, 255, 255)  # what transparent pixels are laid on when a model has no alpha channel
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
ORIENTATION = 0x0112  # the EXIF tag

Source = str | os.PathLike | BinaryIO | bytes


# ---------------------------------------------------------------- reading


def load_image(source: Source) -> Image.Image:
    """The picture of a path, an open binary file or bytes, upright, as L, RGB or RGBA; see `read_image`.

    That only the first frame of an animation is used is logged as a warning.

    Raises:
        ValueError: the bytes are no readable picture.
        OSError: the file cannot be read.
    """
    image, notes = read_image(source)
    for note in notes:
        if note.startswith("first of"):
            logger.warning("%s of an animated picture is used", note)
    return image


def read_image(source: Source) -> tuple[Image.Image, list[str]]:
    """The upright picture as L, RGB or RGBA, and what had to be converted ("exif rotated", "cmyk converted").

    EXIF orientation is applied; 16-bit values are scaled to 8 bits, never clipped; grey with alpha becomes
    RGBA; palettes are expanded; of an animation the first frame is used. Embedded colour profiles are not applied.

    Raises:
        ValueError: empty, damaged, not a picture, over MAX_PIXELS, or of a mode without a known range.
        OSError: the file cannot be read.
    """
    data = _read_bytes(source)
    if not data:
        raise ValueError("empty file: 0 bytes")
    try:
        opened = _open(data)
        frames = getattr(opened, "n_frames", 1)
        notes = [f"first of {frames} frames"] if frames > 1 else []
        deep = any(";16" in str(tile) for tile in opened.tile)
        opened.load()
    except Image.UnidentifiedImageError as error:
        raise ValueError("not a picture: no known format") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"too many pixels: over the limit of {MAX_PIXELS:,}") from error
    except Exception as error:  # a damaged file can make a decoder raise anything
        raise ValueError(f"damaged: {str(error) or type(error).__name__}") from error
    upright = _upright(opened, notes)
    return _plain_mode(upright, notes, deep), notes


def _read_bytes(source: Source) -> bytes:
    if isinstance(source, bytes):
        return source
    return Path(source).read_bytes() if isinstance(source, str | os.PathLike) else source.read()


def _open(data: bytes) -> Image.Image:
    """Open by content, not by name; MAX_PIXELS holds even where Pillow's own limit was lifted."""
    Image.init()
    opened = Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN])
    if opened.width * opened.height > MAX_PIXELS:
        raise Image.DecompressionBombError
    return opened


def _upright(pil: Image.Image, notes: list[str]) -> Image.Image:
    """Apply the EXIF orientation; an unreadable EXIF block is noted and ignored."""
    try:
        turned = pil.getexif().get(ORIENTATION, 1) != 1
        upright = ImageOps.exif_transpose(pil) if turned else pil
    except Exception as error:  # EXIF is an arbitrary TIFF directory
        notes.append(f"unreadable exif ignored ({type(error).__name__})")
        return pil
    return _noted(notes, "exif rotated", upright) if turned else upright


def _plain_mode(pil: Image.Image, notes: list[str], deep: bool) -> Image.Image:
    """To L, RGB or RGBA, whichever holds what the picture shows."""
    if pil.mode.startswith("I"):
        return _noted(notes, "16-bit scaled to 8", _scale_16_bit(pil))
    if deep:
        notes.append("16-bit scaled to 8")
    if pil.mode in ("F", "LAB"):
        raise ValueError(f"mode {pil.mode} has no known range: save the picture as 8- or 16-bit RGB")
    if pil.mode in ("LA", "PA", "La", "RGBa") or (pil.mode in ("1", "P") and pil.has_transparency_data):
        return _noted(notes, f"{pil.mode.lower()} with alpha converted", pil.convert("RGBA"))
    if pil.mode in ("L", "RGB") and pil.has_transparency_data:
        return _noted(notes, "transparent colour converted", pil.convert("RGBA"))
    if pil.mode in MODES.values():
        return pil
    return _noted(notes, f"{pil.mode.lower()} converted", pil.convert("L" if pil.mode == "1" else "RGB"))


def _noted(notes: list[str], note: str, pil: Image.Image) -> Image.Image:
    notes.append(note)
    return pil


def _scale_16_bit(pil: Image.Image) -> Image.Image:
    """I or I;16 in 0..65535 to L in 0..255, rounded (Pillow's own convert would clip at 255)."""
    values = np.asarray(pil).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"values {values.min()} to {values.max()}: expected 0..65535 in a 16-bit picture")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


# ---------------------------------------------------------------- shape and channels


def with_channels(pil: Image.Image, img_channels: int) -> Image.Image:
    """The picture as L, RGB or RGBA for 1, 3 or 4 channels; alpha is composited on white unless kept."""
    if img_channels not in MODES:
        raise ValueError(f"img_channels is {img_channels}: expected 1 (grey), 3 (RGB) or 4 (RGBA)")
    if img_channels != 4 and pil.has_transparency_data:
        layer = pil.convert("RGBA")
        pil = Image.alpha_composite(Image.new("RGBA", pil.size, (*BACKGROUND, 255)), layer)
    return pil if pil.mode == MODES[img_channels] else pil.convert(MODES[img_channels])


def resize_square(pil: Image.Image, resolution: int, crop: str = "center") -> Image.Image:
    """(resolution, resolution) by Lanczos with the kernel widened to the scale, so that nothing aliases.

    The one resize of the library, for training and for metrics. Alpha is premultiplied while filtering.

    Args:
        crop: "center" takes the largest centred square; "none" refuses a picture that is not square.
    """
    if pil.mode not in MODES.values():
        raise ValueError(f"mode {pil.mode}: expected L, RGB or RGBA (load_image converts)")
    if crop not in ("center", "none"):
        raise ValueError(f'crop is {crop!r}: expected "center" or "none"')
    if crop == "none" and pil.width != pil.height:
        raise ValueError(f'a {pil.width}x{pil.height} picture is not square: crop it, or use crop="center"')
    side = min(pil.size)
    left, top = (pil.width - side) // 2, (pil.height - side) // 2
    box = (left, top, left + side, top + side)
    if side == resolution:
        return pil.crop(box)
    return pil.resize((resolution, resolution), Image.Resampling.LANCZOS, box=box, reducing_gap=None)


# ---------------------------------------------------------------- PIL <-> tensor


def to_image(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 (n, c, h, w) in 0..255 to a float image (n, c, h, w) in [-1, 1]."""
    return pixels.to(torch.float32) / 127.5 - 1


def to_pixels(image: torch.Tensor) -> torch.Tensor:
    """A float image (n, c, h, w), nominally in [-1, 1] and clamped to it, to uint8 in 0..255, rounded.

    Raises:
        ValueError: the image holds a NaN, which no pixel can show.
    """
    if image.isnan().any():
        raise ValueError("the image holds NaN: the model's weights or its input are broken")
    return (image.float().clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)


def pil_to_pixels(pil: Image.Image) -> torch.Tensor:
    """L, RGB or RGBA picture to uint8 (c, h, w)."""
    if pil.mode not in MODES.values():
        raise ValueError(f"mode {pil.mode}: expected L, RGB or RGBA (load_image converts)")
    pixels = torch.from_numpy(np.array(pil))  # (h, w) or (h, w, c)
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


def to_tensor(pil: Image.Image) -> torch.Tensor:
    """L, RGB or RGBA picture to a float image (1, c, h, w) in [-1, 1]."""
    return to_image(pil_to_pixels(pil)[None])


def to_pil(image: torch.Tensor) -> list[Image.Image]:
    """A float image (n, c, h, w), clamped to [-1, 1], c 1, 3 or 4, to n pictures."""
    if image.ndim != 4 or image.shape[1] not in MODES:
        raise ValueError(f"an image of shape {tuple(image.shape)}: expected (n, c, h, w) with c 1, 3 or 4")
    rows = to_pixels(image.detach()).cpu().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(row[..., 0] if row.shape[-1] == 1 else row) for row in rows]


# ---------------------------------------------------------------- writing


def write_file(path: str | os.PathLike, data: bytes, *, overwrite: bool = False) -> None:
    """Write all of `data` or nothing, with the file mode the user's umask gives.

    Raises:
        FileExistsError: there is such a file and `overwrite` is False.
        FileNotFoundError: there is no such folder.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists already: choose another name or pass overwrite=True")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} to write {path.name} into: create it first")
    partial = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
