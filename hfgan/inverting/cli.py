"""The flags of `hfgan invert`, and what it tells while it runs. Loads nothing heavy."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hfgan import flags

if TYPE_CHECKING:
    from hfgan import HFGan

ABOUT = (
    "Find the latents that draw photos, faithful to what matters in them. For each photo NAME.png is what the model "
    "draws, and NAME.safetensors the latent. Sub-folders and names are kept."
)
NO_ENCODER = (
    "none of the models that come with hfgan has an encoder: name one that has with --model, or train it with "
    "`accelerate launch training/train.py encoder`"
)
CLEAR = "\r\x1b[K"  # a line of a terminal


# ---------------------------------------------------------------- flags


def parse(arguments: Sequence[str], parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Files and flags, in any order, as `run` takes them; wrong usage ends in SystemExit.

    Args:
        arguments: What follows `hfgan invert`.
        parser: Without flags of its own.
    """
    parser.description = ABOUT
    parser.add_argument("input", type=Path, nargs="+", metavar="INPUT", help="photos, and folders of them")
    parser.add_argument("output", type=Path, metavar="OUT_DIR", help="made where needed")
    parser.add_argument("-m", "--model", help="bundled name, folder or Hub id (the bundled model with an encoder)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--interest", type=flags.area("everything", "auto"), default="everything",
                      metavar="everything|auto|FILE|x0,y0,x1,y1",
                      help="what matters; the latent knows nothing of the rest: a region as large as each photo (its "
                      "lighter half), a box in pixels or in shares, or the subject without what stands before it "
                      "(everything, or what is not transparent)")  # fmt: skip
    what.add_argument("--interest-dir", type=Path, metavar="DIR", help="a region for each photo, by the same name")
    parser.add_argument("--align", type=flags.align, default="center", metavar="center|none|x0,y0,x1,y1",
                        help="which square is seen: the largest in the middle, all of a square photo, or a box in "
                        "pixels or in shares (%(default)s)")  # fmt: skip
    parser.add_argument("--steps", type=flags.count(1), metavar="N", help="of the encoder (as many as it is made for)")
    parser.add_argument("--refine", type=flags.count(0), default=0, metavar="N",
                        help="then steps of descent toward the photo; 50 are a good number (%(default)s)")  # fmt: skip
    parser.add_argument("--noise-steps", type=flags.count(0), default=0, metavar="N",
                        help="then steps of descent on the noise images, for grain (%(default)s)")  # fmt: skip
    parser.add_argument("--paste", action="store_true",
                        help="also NAME.pasted.png: the photo, what is drawn in place of what matters")  # fmt: skip
    parser.add_argument("--sheet", action="store_true",
                        help="also NAME.sheet.png: the square, what matters, each step and the result")  # fmt: skip
    there = parser.add_mutually_exclusive_group()
    there.add_argument("--overwrite", action="store_true", help="replace files that exist")
    there.add_argument("--resume", action="store_true", help="write only files that do not exist")
    parser.add_argument(
        "--manifest", type=flags.file(".jsonl"), metavar="FILE.jsonl", help="write a line of JSON for every photo"
    )
    parser.add_argument("--device", help="cpu, cuda, ... (a GPU where there is one)")
    parser.add_argument(
        "--dtype", default="auto", choices=("auto", "float32", "float16", "bfloat16"), help="(%(default)s)"
    )
    return parser.parse_intermixed_args(arguments)  # else OUT_DIR may not follow a flag


# ---------------------------------------------------------------- run


def run(options: argparse.Namespace, load: Callable[[], HFGan]) -> None:
    """Do what `parse` read.

    Args:
        load: Gives the model that `options` name.

    Raises:
        OSError, RuntimeError, ValueError: one sentence that says what cannot be done.
    """
    from hfgan.inverting.folder import invert_photos

    def with_encoder() -> HFGan:
        gan = load()
        if options.model is None and "encoder" not in gan.parts:
            raise RuntimeError(NO_ENCODER)
        gan.part("encoder")  # says how to get one
        if options.interest == "auto":
            gan.part("matting")
        return gan

    invert_photos(options, with_encoder)


# ---------------------------------------------------------------- what is told


def say(line: str) -> None:
    """Tell on standard output what was written."""
    progress("")
    print(flags.printable(line, sys.stdout), flush=True)


def warn(line: str, command: str = "invert") -> None:
    """Tell on standard error what was found, was left out or went wrong, while the others go on."""
    progress("")
    print(f"hfgan {command}: {flags.printable(' '.join(line.split()), sys.stderr)}", file=sys.stderr, flush=True)


def progress(line: str) -> None:
    """Show on a terminal how far it is, in place of what was shown before; elsewhere nothing."""
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - 1
        print(f"{CLEAR}{flags.printable(line, sys.stderr)[:width]}", end="", file=sys.stderr, flush=True)
