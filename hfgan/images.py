"""Pictures in and out: PIL <-> tensor, honest reading of odd files, one resize, recipes in PNG, animations.

Inside the library an image is a float tensor (n, c, h, w) in [-1, 1]; PIL lives at the facade only.
Resizing is Lanczos, antialiased, on the encoded (sRGB) values, the same for training and for metrics: two
filters on the two sides of a Fréchet distance measure the filters (Parmar et al. 2022, "clean-fid").
"""

from __future__ import annotations

import io
import json
import logging
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, PngImagePlugin

from hfgan.storage import write_atomic

logger = logging.getLogger(__name__)

# Pillow's own point of refusal (half a GiB as RGB): a larger picture is taken for a decompression bomb
MAX_PIXELS = 178_956_970
BACKGROUND = (255, 255, 255)  # what transparent pixels are laid on when a model has no alpha channel
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
ORIENTATION = 0x0112  # the EXIF tag

GIF_MAX_FPS = 50  # viewers slow a shorter frame down to a tenth of a second
MAX_RECIPE = 2**20  # characters: more is data, and some readers of PNG stop here
MAX_COUNTED = 1000  # frames of a TIFF
MAX_READ = 100  # characters of a value that people read

Source = str | os.PathLike | BinaryIO | bytes


# ---------------------------------------------------------------- reading


def load_image(source: Source | Image.Image) -> Image.Image:
    """The picture of a path, an open binary file, bytes or Pillow, upright, as L, RGB or RGBA; see `read_image`.

    A warning is logged where a picture has several frames and only the first is used.

    Raises:
        ValueError: the bytes are no readable picture.
        OSError: the file cannot be read.
    """
    image, notes = read_image(source)
    for note in notes:
        if note.startswith("first of"):
            logger.warning("only the %s is used", note)
    return image


def read_image(source: Source | Image.Image) -> tuple[Image.Image, list[str]]:
    """The upright picture as L, RGB or RGBA, and what had to be converted ("exif rotated", "cmyk converted").

    EXIF orientation is applied; 16-bit values are scaled to 8 bits, never clipped; grey with alpha becomes
    RGBA; palettes are expanded; of an animation the first frame is used. Colour profiles are not applied.

    Raises:
        ValueError: empty, damaged, not a picture, over MAX_PIXELS, or of a mode without a known range.
        OSError: the file cannot be read.
    """
    stored, notes = (source, []) if isinstance(source, Image.Image) else _load(_read_bytes(source))
    return _plain_mode(_upright(stored, notes), notes), notes


def _read_bytes(source: Source) -> bytes:
    if isinstance(source, bytes):
        return source
    if isinstance(source, str | os.PathLike):
        return Path(source).read_bytes()
    if not hasattr(source, "read"):
        hint = ": PIL.Image.fromarray makes a picture of an array" if isinstance(source, np.ndarray) else ""
        raise TypeError(f"{type(source).__name__} given, expected a path, bytes, an open file or a PIL picture{hint}")
    return source.read()


def check_pixels(source: Source, most: int) -> None:
    """Refuse a picture of more pixels by the head of its file: to decode it takes the memory of all that it claims.

    Raises:
        ValueError: too many, or as `read_image`.
        OSError: the file cannot be read.
    """
    with _decoding(data := _read_bytes(source)):
        width, height = _open(data).size
    if width * height > most:
        size = f"{width * height / 1e6:.0f} megapixels"
        raise ValueError(f"it has {size}, at most {most / 1e6:g} are taken here: make it smaller first")


def _load(data: bytes) -> tuple[Image.Image, list[str]]:
    """The decoded picture as stored, and what decoding left out: later frames, the lower half of 16 bits."""
    with _decoding(data):
        pil = _open(data)
        frames, tiles = _count_frames(pil), str(pil.tile)
        pil.load()
        if pil.mode in ("P", "PA") and pil.palette is None:
            raise ValueError("it has no palette")
    notes = [f"first of {frames} frames"] if frames > 1 else []
    return pil, [*notes, "16-bit scaled to 8"] if ";16" in tiles or pil.mode.startswith("I") else notes


def _count_frames(pil: Image.Image) -> int:
    """How many frames a picture has, of a TIFF up to MAX_COUNTED: Pillow takes quadratic time to find its last one."""
    if pil.format != "TIFF":
        return getattr(pil, "n_frames", 1)
    count = 1
    with suppress(EOFError):
        while count < MAX_COUNTED:
            pil.seek(count)
            count += 1
    pil.seek(0)
    return count


@contextmanager
def _decoding(data: bytes) -> Iterator[None]:
    """Turn whatever a decoder raises into a ValueError."""
    if not data:
        raise ValueError("empty file: 0 bytes")
    try:
        yield
    except Image.UnidentifiedImageError as error:
        raise ValueError("not a picture: no known format") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"too many pixels: over the limit of {MAX_PIXELS:,}") from error
    except Exception as error:  # a damaged file can make a decoder raise anything
        raise ValueError(f"damaged: {str(error) or type(error).__name__}") from error


def _open(data: bytes) -> Image.Image:
    """Open by content, not by name; MAX_PIXELS holds even where Pillow's own limit was lifted."""
    Image.init()
    opened = Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN])
    if opened.width * opened.height > MAX_PIXELS:
        raise Image.DecompressionBombError
    return opened


def _upright(pil: Image.Image, notes: list[str]) -> Image.Image:
    """Apply the EXIF orientation (the TIFF decoder has done so); a broken EXIF block is noted and ignored."""
    try:
        turned = pil.getexif().get(ORIENTATION) in range(2, 9)
        upright = ImageOps.exif_transpose(pil) if turned else pil
    except Exception as error:  # EXIF is an arbitrary TIFF directory
        notes.append(f"broken exif ignored ({type(error).__name__})")
        return pil
    return _noted(notes, "exif rotated", upright) if turned else upright


def _plain_mode(pil: Image.Image, notes: list[str]) -> Image.Image:
    """To L, RGB or RGBA, whichever holds what the picture shows."""
    if pil.mode.startswith("I"):
        return _scale_16_bit(pil)
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
    values = np.asarray(pil)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"values {values.min()} to {values.max()}: expected 0..65535 in a 16-bit picture")
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))


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
    square = pil.crop((left, top, left + side, top + side))
    return square.resize((resolution, resolution), Image.Resampling.LANCZOS, reducing_gap=None)


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


def on_white(images: torch.Tensor) -> torch.Tensor:
    """Images (n, 1, 3 or 4, h, w) in [-1, 1] as RGB (n, 3, h, w), transparent ones on white."""
    if images.shape[1] != 4:
        return images.expand(-1, 3, -1, -1)
    return torch.lerp(torch.ones_like(images[:, :3]), images[:, :3], (images[:, 3:] + 1) / 2)


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
    write_atomic(path, data)


def save_png(
    pil: Image.Image,
    path: str | os.PathLike,
    recipe: dict[str, Any] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write a PNG; its recipe goes into the text chunks "parameters" (one line to read) and "hfgan" (JSON).

    Raises:
        ValueError: not a .png name, or a recipe that cannot be read back from JSON as it is.
        FileExistsError, FileNotFoundError: as `write_file`.
    """
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"{path} does not end in .png, the one format that keeps pixels and recipe")
    chunks = PngImagePlugin.PngInfo()
    if recipe is not None:
        chunks.add_itxt("parameters", _human_line(recipe))
        chunks.add_itxt("hfgan", _recipe_json(recipe))
    buffer = io.BytesIO()
    pil.save(buffer, "PNG", pnginfo=chunks)
    write_file(path, buffer.getvalue(), overwrite=overwrite)


def _human_line(recipe: dict[str, Any]) -> str:
    """The scalars of a recipe: "seed: 3, truncation_psi: 0.7"; of texts those that are short enough to be read."""
    scalars = {key: value for key, value in recipe.items() if isinstance(value, str | int | float)}
    scalars = {key: value for key, value in scalars.items() if len(str(value)) <= MAX_READ}
    return " ".join(", ".join(f"{key}: {value}" for key, value in scalars.items()).split())


def _recipe_json(recipe: dict[str, Any]) -> str:
    try:
        text = json.dumps(recipe, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the recipe is no JSON: {error}; give finite numbers, strings and lists") from error
    if json.loads(text) != recipe:
        raise ValueError("the recipe changes in JSON: give lists instead of tuples and strings as keys")
    if len(text) > MAX_RECIPE:
        raise ValueError(f"the recipe has {len(text):,} characters, at most {MAX_RECIPE:,} are allowed")
    return text


def read_recipe(source: Source | Image.Image) -> dict[str, Any]:
    """The recipe that `save_png` wrote, from a path, an open file, bytes or an opened picture.

    Raises:
        ValueError: not a picture, or one without a recipe of ours.
    """
    pil = source if isinstance(source, Image.Image) else _load(_read_bytes(source))[0]
    if "hfgan" not in pil.info:
        raise ValueError("this picture has no recipe: give the PNG as it was saved, not a converted copy")
    if len(pil.info["hfgan"]) > MAX_RECIPE:
        raise ValueError(f"the recipe in this picture has over {MAX_RECIPE:,} characters: it is none of hfgan")
    try:
        recipe = json.loads(pil.info["hfgan"])
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the recipe in this picture is damaged: {error}") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"the recipe in this picture is a {type(recipe).__name__}: expected names and values")
    return recipe


def grid(pils: Sequence[Image.Image], columns: int | None = None) -> Image.Image:
    """Pictures of one size and mode, row by row; as square as can be by default, free cells white."""
    if not pils:
        raise ValueError("no pictures to lay out: expected at least one")
    kinds = {(pil.mode, pil.size) for pil in pils}
    if len(kinds) > 1:
        raise ValueError(f"pictures of different mode or size in one grid: {sorted(kinds)}")
    columns = math.ceil(math.sqrt(len(pils))) if columns is None else columns
    if columns < 1:
        raise ValueError(f"columns is {columns}: expected 1 or more")
    width, height = pils[0].size
    size = (min(columns, len(pils)) * width, math.ceil(len(pils) / columns) * height)
    sheet = Image.new(pils[0].mode, size, "white")
    for index, pil in enumerate(pils):
        sheet.paste(pil, (index % columns * width, index // columns * height))
    return sheet


def save_animation(
    frames: Sequence[Image.Image], path: str | os.PathLike, fps: float = 24, *, overwrite: bool = False
) -> None:
    """Write an endless .gif, .webp or .png (APNG, lossless) animation; total time is exact to one GIF tick.

    Raises:
        ValueError: no frames, frames of different sizes, another suffix, or a rate the format cannot show.
        FileExistsError, FileNotFoundError: as `write_file`.
    """
    form = {".gif": "GIF", ".webp": "WEBP", ".png": "PNG"}.get(Path(path).suffix.lower())
    if form is None:
        raise ValueError(f"{path}: an animation is a .gif, .webp or .png")
    if not frames or len({frame.size for frame in frames}) > 1:
        raise ValueError("expected one or more frames, all of one size")
    fastest = GIF_MAX_FPS if form == "GIF" else 1000
    if not 0 < fps <= fastest:
        raise ValueError(f"fps is {fps}: expected more than 0 and at most {fastest} in a {form}")
    options = {"quality": 90} if form == "WEBP" else {}
    duration = _durations(len(frames), fps, tick=10 if form == "GIF" else 1)
    buffer = io.BytesIO()
    frames[0].save(buffer, form, save_all=True, append_images=list(frames[1:]), duration=duration, loop=0, **options)
    write_file(path, buffer.getvalue(), overwrite=overwrite)


def _durations(count: int, fps: float, tick: int) -> list[int]:
    """Milliseconds of each frame, multiples of `tick` whose sum does not drift from count / fps."""
    ends = [round((index + 1) * 1000 / fps / tick) * tick for index in range(count)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]
