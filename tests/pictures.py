"""Files for the tests of what is no picture, is damaged, or claims to be larger than any memory; and false latents."""

from __future__ import annotations

import io
import json
import random
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def photo(width: int = 40, height: int = 48, seed: int = 0) -> Image.Image:
    """A smooth random picture."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(picture: Image.Image, form: str, **options: Any) -> bytes:
    """The bytes of a file."""
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def png(picture: Image.Image, **options: Any) -> bytes:
    """A PNG."""
    return encoded(picture, "PNG", **options)


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(width: int, height: int, depth: int, colour: int, rows: bytes, *more: bytes) -> bytes:
    """A PNG of any size from its raw rows and further chunks."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return SIGNATURE + head + b"".join(more) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


def bomb(side: int, depth: int = 1, colour: int = 0) -> bytes:
    """A valid PNG of side x side black pixels in little room."""
    channels = {0: 1, 2: 3, 6: 4}[colour]
    packer, row = zlib.compressobj(1), bytes(1 + (side * depth * channels + 7) // 8)
    data = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0))
    return SIGNATURE + head + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def with_text(**texts: str) -> bytes:
    """A PNG with these texts."""
    info = PngImagePlugin.PngInfo()
    for key, value in texts.items():
        info.add_itxt(key, value)
    return png(photo(), pnginfo=info)


def broken() -> dict[str, bytes]:
    """Files by what is wrong with them."""
    return _no_pictures() | _damaged() | _large() | _many_frames() | _odd_modes() | _texts()


def _no_pictures() -> dict[str, bytes]:
    named = {"empty": b"", "one byte": b"\0", "text": b"I am no picture", "zeros": bytes(1000),
             "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
             "html": b"<html><script>alert(1)</script></html>", "pdf": b"%PDF-1.7\n1 0 obj\n", 
             "zip": b"PK\3\4" + bytes(60),
             "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n", "elf": b"\x7fELF" + bytes(60),
             "heic": b"\0\0\0\x18ftypheic" + bytes(50), "mp4": b"\0\0\0\x18ftypmp42" + bytes(50),
             "gif head": b"GIF89a", "psd": b"8BPS\0\1" + bytes(50), "ico": b"\0\0\1\0\1\0" + bytes(50),
             "pickle": b"\x80\x04cos\nsystem\n.",
             "json": b'{"seed": 1}'}  # fmt: skip
    return named | {f"noise {k}": random.Random(k).randbytes(500) for k in range(3)}


def _damaged() -> dict[str, bytes]:
    made = {}
    wholes = {form.lower(): encoded(photo(), form) for form in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP")}
    for form, whole in wholes.items():
        for share in (0.02, 0.3, 0.9):
            made[f"{form} cut at {share}"] = whole[: int(len(whole) * share)]
        flipped = bytearray(whole)
        for place in random.Random(form).sample(range(8, len(whole)), 10):
            flipped[place] ^= 0xFF
        made[f"{form} flipped"] = bytes(flipped)
    palette = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 3, 0, 0, 0))
    return made | {
        "no palette": SIGNATURE + palette + chunk(b"IDAT", zlib.compress(bytes(20))) + chunk(b"IEND", b""),
        "no pixels": SIGNATURE + palette + chunk(b"IEND", b""),
        "wrong checksum": wholes["png"].replace(b"IHDR", b"IHDR")[:29] + b"\0\0\0\0" + wholes["png"][33:],
        "chunk longer than the file": SIGNATURE + struct.pack(">I", 2**31 - 1) + b"IHDR" + bytes(13),
        "too many rows": raw_png(4, 4, 8, 0, bytes(10_000_000)),
    }


def _large() -> dict[str, bytes]:
    jpeg = bytearray(encoded(photo(), "JPEG"))
    head = jpeg.index(b"\xff\xc0")
    jpeg[head + 5 : head + 9] = b"\xff\xff\xff\xff"
    bitmap = bytearray(encoded(photo(), "BMP"))
    bitmap[18:26] = struct.pack("<ii", 2**31 - 1, 2**31 - 1)
    return {
        "bomb over Pillow's limit": bomb(20000),
        "bomb below Pillow's limit": bomb(13000),
        "bomb in colour": bomb(13300, 8, 2),
        "26 megapixels in 16 bits": bomb(5100, 16),
        "0 x 0": raw_png(0, 0, 8, 0, b""),
        "4294967295 wide": raw_png(2**32 - 1, 1, 8, 0, b"\0"),
        "2147483647 squared": raw_png(2**31 - 1, 2**31 - 1, 8, 0, b"\0"),
        "60000 x 1": raw_png(60000, 1, 8, 0, bytes(60001)),
        "1 x 60000": raw_png(1, 60000, 8, 0, bytes(120000)),
        "1 x 1": png(photo(1, 1)),
        "jpeg of 65535 x 65535": bytes(jpeg),
        "bmp of 2147483647 squared": bytes(bitmap),
    }


def tiff(frames: int) -> bytes:
    """A TIFF of so many frames of one pixel, which all have the same one."""
    tags = [(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8),
            (279, 4, 1, 1)]  # fmt: skip
    entries, made = b"".join(struct.pack("<HHII", *tag) for tag in tags), [b"II*\0" + struct.pack("<I", 16) + bytes(8)]
    for k in range(1, frames + 1):
        after = 16 + k * (len(entries) + 6) if k < frames else 0
        made.append(struct.pack("<H", len(tags)) + entries + struct.pack("<I", after))
    return b"".join(made)


def _many_frames() -> dict[str, bytes]:
    frames = [Image.new("L", (2, 2), k % 256) for k in range(3000)]
    few = frames[:300]
    return {
        "gif of 3000 frames": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "webp of 300 frames": encoded(few[0].convert("RGB"), "WEBP", save_all=True, append_images=few[1:], method=0),
        "apng of 300 frames": png(few[0], save_all=True, append_images=few[1:]),
        "tiff of 300 frames": tiff(300),
        "tiff of 200000 frames": tiff(200_000),
    }  # fmt: skip


def _odd_modes() -> dict[str, bytes]:
    values = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 65535) + random.Random(0).randbytes(60_000)
    return {
        "cmyk jpeg": encoded(photo().convert("CMYK"), "JPEG"),
        "16-bit grey": encoded(Image.fromarray((values * 16).astype(np.uint16)), "PNG"),
        "16-bit colour": raw_png(2, 2, 16, 2, bytes(26)),
        "float tiff": encoded(Image.fromarray(values), "TIFF"),
        "32-bit tiff": encoded(Image.fromarray((values - 9).astype(np.int32)), "TIFF"),
        "lab tiff": encoded(Image.new("LAB", (9, 9)), "TIFF"),
        "one bit": png(photo().convert("1")),
        "transparent": png(Image.new("RGBA", (9, 9))),
        "exif bomb": encoded(photo(), "JPEG", exif=exif),
        "jpeg 2000": encoded(photo(), "JPEG2000"),
    }


def _texts() -> dict[str, bytes]:
    packed = chunk(b"zTXt", b"hfgan\0\0" + zlib.compress(bytes(50_000_000), 1))
    profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(50_000_000), 1))
    deep = "[" * 100_000 + "]" * 100_000
    return {
        "recipe of 10 MB": with_text(hfgan=json.dumps({"format": 2, "x": "x" * 10_000_000})),
        "recipe that is deep": with_text(hfgan=deep),
        "recipe within a recipe": with_text(hfgan='{"source":' * 20_000 + "1" + "}" * 20_000),
        "recipe that is a list": with_text(hfgan="[1]"),
        "recipe that is NaN": with_text(hfgan="NaN"),
        "recipe that is empty": with_text(hfgan=""),
        "recipe of long numbers": with_text(hfgan='{"seed": ' + "9" * 5000 + "}"),
        "recipe with HTML": with_text(hfgan=json.dumps({"fingerprint": "<b>", "format": "<script>x</script>"})),
        "text that unpacks to 50 MB": raw_png(4, 4, 8, 0, bytes(20), packed),
        "profile that unpacks to 50 MB": raw_png(4, 4, 8, 0, bytes(20), profile),
        "10000 texts": raw_png(4, 4, 8, 0, bytes(20), *[chunk(b"tEXt", b"k%d\0x" % k) for k in range(10_000)]),
    }


def lying_latents() -> dict[str, bytes]:
    """.safetensors whose heads are not what follows."""

    def file(head: Any, body: bytes = bytes(64), size: int | None = None) -> bytes:
        text = head if isinstance(head, bytes) else json.dumps(head).encode()
        return struct.pack("<Q", len(text) if size is None else size) + text + body

    def one(**change: Any) -> dict[str, Any]:
        return {"w_plus": {"dtype": "F32", "shape": [1, 1, 16], "data_offsets": [0, 64]} | change}

    said = {"__metadata__": {"generator": "<b>x</b>"}}
    return {
        "empty": b"",
        "short": b"\1",
        "no head": struct.pack("<Q", 10),
        "head of 2**63": file(one(), size=2**63),
        "head of 100 MB": file(one(), size=10**8),
        "no JSON": file(b"{" * 100),
        "deep": file(b"[" * 50_000),
        "a list": file([1]),
        "null": file(None),
        "no shape": file({"w_plus": {"dtype": "F32"}}),
        "huge shape": file(one(shape=[2**40])),
        "negative": file(one(shape=[-1, -1])),
        "shape is text": file(one(shape="x")),
        "offsets beyond": file(one(data_offsets=[0, 2**40])),
        "offsets back": file(one(data_offsets=[64, 0])),
        "odd dtype": file(one(dtype="F999")),
        "of nobody": file(one()),
        "of another generator": file(one() | said),
        "metadata": file(one() | {"__metadata__": {"x": 1}}),
        "a picture": png(photo()),
    }
