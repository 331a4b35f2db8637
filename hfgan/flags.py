"""What flags of the command line read, and the flags of `hfgan dataset` and `hfgan export`. Loads nothing heavy."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

Box = tuple[float, ...]
MAX_SEEDS = 100_000  # in one command
# what `hfgan dataset` hands on to `export_pairs`
DATASET = ("seed", "truncation_psi", "truncation", "label", "coverage", "min_confidence", "category", "batch_size")


# ---------------------------------------------------------------- what they read


def seeds(text: str) -> list[int]:
    """Seeds in "0-15,42", both ends included, in their order."""
    ends = [part.split("-") for part in text.split(",")]
    if not all(len(pair) <= 2 and all(end.strip().isdecimal() for end in pair) for pair in ends):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of seeds such as 0-15,42")
    spans = [range(int(pair[0]), int(pair[-1]) + 1) for pair in ends]
    if not all(spans) or sum(map(len, spans)) > MAX_SEEDS:
        raise argparse.ArgumentTypeError(f"{text!r} has a range that descends, or more than {MAX_SEEDS} seeds")
    return [seed for span in spans for seed in span]


def psi(text: str) -> float | list[float]:
    """A number, or two such as 0.4,0.9."""
    try:
        first, *others = map(float, text.split(","))
    except ValueError:
        first, others = 0.0, [0.0, 0.0]
    if len(others) > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor two such as 0.4,0.9")
    return [first, *others] if others else first


def mode(text: str) -> int | str:
    """The index of a mode, or how to choose it."""
    if not text.isdecimal() and text not in ("nearest", "random"):
        raise argparse.ArgumentTypeError(f"{text!r} is no mode such as 12, nearest or random")
    return int(text) if text.isdecimal() else text


def mix(text: str) -> tuple[int, str]:
    """Seed and layers in "7:4-7"."""
    seed, colon, layers = text.partition(":")
    if not colon or not seed.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no seed and layers such as 7:4-7")
    return int(seed), layers


def switch(text: str) -> bool:
    """true or false."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def port(text: str) -> int:
    """The number of a port."""
    if not (text.isdecimal() and 0 < int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is no port: give a number from 1 to 65535")
    return int(text)


def file(*suffixes: str) -> Callable[[str], Path]:
    """A path with one of these endings."""

    def parse(text: str) -> Path:
        if not text.lower().endswith(suffixes):
            raise argparse.ArgumentTypeError(f"{text!r} does not end in {' or '.join(suffixes)}")
        return Path(text)

    return parse


def span(text: str) -> tuple[float, float]:
    """Two numbers in "0.05:0.95"."""
    least, _, most = text.partition(":")
    try:
        return float(least), float(most)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no least and most such as 0.05:0.95") from error


def box(text: str) -> Box | None:
    """Four numbers, or None for what looks like no numbers at all."""
    try:
        numbers = tuple(map(float, text.split(",")))
    except ValueError:
        return None
    if len(numbers) == 1:
        return None
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        raise argparse.ArgumentTypeError(f"{text!r} is no box of four numbers x0,y0,x1,y1")
    if numbers[0] >= numbers[2] or numbers[1] >= numbers[3]:
        raise argparse.ArgumentTypeError(f"the box {text} is empty or reversed: expected x0 < x1 and y0 < y1")
    return numbers


def area(*names: str) -> Callable[[str], str | Box | Path]:
    """One of these names, a box, or a file."""
    return lambda text: text if text in names else box(text) or Path(text)


def align(text: str) -> str | Box:
    """The name of a way to choose the square of a photo, or a box."""
    found = text if text in ("center", "none") else box(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is neither center, none nor a box x0,y0,x1,y1")
    return found


def count(least: int) -> Callable[[str], int]:
    """A whole number from `least` on."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no number from {least} on")
        return int(text)

    return parse


# ---------------------------------------------------------------- commands


def add_dataset(parser: argparse.ArgumentParser) -> None:
    """The flags of `hfgan dataset` beside those of the model."""
    parser.add_argument("--num", type=int, default=1000, help="pairs in the folder at the end (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first; the others follow it (%(default)s)")
    parser.add_argument("--psi", dest="truncation_psi", type=psi, default=0.7, metavar="0.7|0.4,0.9",
                        help="truncation: 1 all variety, 0 average; or coarse,fine layers (%(default)s)")  # fmt: skip
    parser.add_argument("--truncation", choices=("global", "multimodal", "none"),
                        help="toward the mean of all (the default), the nearest mode or nothing")  # fmt: skip
    parser.add_argument("--label", type=int, help="class of a model with classes")
    parser.add_argument("--coverage", type=span, default="0.05:0.95", metavar="LEAST:MOST",
                        help="shares of the picture; samples with other masks are left out (%(default)s)")  # fmt: skip
    parser.add_argument("--min-confidence", type=float, default=0.0, metavar="0..1",
                        help="samples of whose mask alpha is less sure are left out (%(default)s)")  # fmt: skip
    parser.add_argument("--category", default="subject", help="what the subject is called in COCO (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, help="pictures drawn at once (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("pairs"), metavar="DIR",
                        help="new, or begun by the same command, which then goes on (%(default)s)")  # fmt: skip


def cut(text: str, most: int) -> str:
    """The text, or its beginning: what strangers wrote into a file may be of any length."""
    return text if len(text) <= most else f"{text[:most]} ... of {len(text):,} characters"


def printable(line: str, stream: Any) -> str:
    """The line as the stream can show it: file names may hold anything."""
    encoding = stream.encoding or "utf-8"
    return line.encode(encoding, "backslashreplace").decode(encoding)
