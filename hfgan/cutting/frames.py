"""`hfgan cutout b`: raw RGB frames in, raw frames or numbered PNGs out, one at a time."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image

from hfgan.cutting import Options, draw, export, find, finish
from hfgan.cutting.cli import check_free, check_pipe, say, write_out
from hfgan.images import MAX_PIXELS, write_file

if TYPE_CHECKING:
    from hfgan import HFGan

NUMBERED = re.compile(r"([^%]*)%(?:0(\d+))?[du]([^%]*\.png)", re.IGNORECASE)


def cut_frames(options: argparse.Namespace, how: Options, load: Callable[[], HFGan]) -> None:
    """Cut out frames of standard input, 3 * width * height bytes each, RGB from the upper left on.

    Args:
        options: What `hfgan cutout b` was given. With `smooth` s, each alpha is (1 - s) of its frame and s of the
            alpha before it, before it is cleaned and finished.
        how: What is made of each frame.
        load: Gives the model.

    Raises:
        ValueError: a size or share out of range, a bad name, or standard input has no frame or ends inside one.
        FileExistsError: such a PNG is there.
    """
    width, height, smooth = options.width, options.height, options.smooth
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} is no size of frames: expected 1 to {MAX_PIXELS:,} pixels in all")
    if not 0 <= smooth < 1:
        raise ValueError(f"smooth is {smooth}: expected 0 for off, or a share below 1")
    check_pipe(sys.stdin, "no frames: send them to standard input, as `ffmpeg ... -f rawvideo -pix_fmt rgb24 -` does")
    if options.output is None:
        check_pipe(sys.stdout, "raw frames are no text for a terminal: send them on with | or >, or name PNGs with -o")
        name = None
    else:
        name = _numbered(options.output, options.overwrite)
    gan, size, number, before = load(), 3 * width * height, 0, None
    while data := sys.stdin.buffer.read(size):
        if len(data) < size:
            raise ValueError(
                f"standard input ends {len(data)} bytes into frame {number}, of {size}: "
                f"are the frames {width} x {height}, with -pix_fmt rgb24?"
            )
        found = find(gan, Image.frombytes("RGB", (width, height), data), how)
        if smooth and before is not None:
            found = replace(found, alpha=torch.lerp(found.alpha, before, smooth).clamp_(0, 1))
        before, done = found.alpha, finish(found, how)
        if name is None:
            write_out(draw(done, how).tobytes())
        else:
            write_file(name(number), export(done, how), overwrite=options.overwrite)
            say(str(name(number)))
        number += 1
    if not number:
        raise ValueError("standard input is empty: no frame was sent")


def _numbered(pattern: str, overwrite: bool) -> Callable[[int], Path]:
    """The PNG of each number by a pattern such as "frames/out-%05d.png", whose folder is made."""
    parts = NUMBERED.fullmatch(pattern)
    if not parts or "/" in parts[3]:
        raise ValueError(f"{pattern} is no name with a number such as out-%05d.png")
    start, digits, end = parts.groups()
    folder, stem = Path(f"{start}0").parent, Path(f"{start}0").name[:-1]
    folder.mkdir(parents=True, exist_ok=True)
    same = re.compile(f"{re.escape(stem)}\\d+{re.escape(end)}")
    for path in sorted(path for path in folder.iterdir() if same.fullmatch(path.name)):
        check_free(path, overwrite)
    return lambda number: Path(f"{start}{number:0{digits or 1}d}{end}")
