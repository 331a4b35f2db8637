"""The flags of `hfgan convert`, and what it does."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hfgan import flags

ABOUT = (
    "Make an ordinary model folder of a published checkpoint: StyleGAN2 of NVIDIA (PyTorch or TensorFlow .pkl), "
    "rosinality, lucidrains, pSp, e4e, ReStyle and Labels4Free (.pt), or what `hfgan export generator` wrote. "
    "The format is found out; files are read as data, and no code in them is run."
)
ASKED = "Under which licence was it published (such as cc-by-4.0, or unknown)? "
NO_LICENCE = (
    "whoever uses the model must know under which licence {name} was published: say it with --license, such as "
    "cc-by-4.0, or unknown"
)


def parse(arguments: Sequence[str], parser: argparse.ArgumentParser) -> argparse.Namespace:
    """File, folder and flags, as `run` takes them; wrong usage ends in SystemExit.

    Args:
        arguments: What follows `hfgan convert`.
        parser: Without flags of its own.
    """
    parser.description = ABOUT
    parser.add_argument("file", type=Path, metavar="FILE", help="the checkpoint")
    parser.add_argument("out", type=Path, metavar="OUT_DIR", help="new folder for the model")
    parser.add_argument("--license", metavar="NAME", help="under which the checkpoint was published (asked for)")
    parser.add_argument("--source", metavar="ADDRESS", help="where it was published; goes into the card")
    parser.add_argument("--centers", type=Path, metavar="FILE",
                        help="cluster centers for its modes: .npy, a folder of them, .safetensors or a "
                        "checkpoint with w_centers")  # fmt: skip
    parser.add_argument("--directions", type=Path, nargs="+", default=[], metavar="FILE",
                        help="directions for it: .npy, .npz, .pt, .pkl or .safetensors, each named by its "
                        "file")  # fmt: skip
    parser.add_argument("--encoder", type=Path, metavar="FILE", help="checkpoint of pSp, e4e or ReStyle for it")
    parser.add_argument("--alpha", type=Path, metavar="FILE", help="checkpoint of Labels4Free for it")
    parser.add_argument("--fp16", action="store_true", help="store half-precision weights, half as large")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace, _: Any = None) -> None:
    """Convert and write the folder; what is there already is left alone."""
    import torch

    from hfgan.converting.card import Rights, render
    from hfgan.converting.checkpoints import convert
    from hfgan.images import write_file

    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise FileExistsError(f"{options.out} exists already: name a new folder")
    licence = options.license or _ask(options.file)
    found = convert(
        options.file, centers=options.centers, directions=options.directions, encoder=options.encoder,
        alpha=options.alpha,
    )  # fmt: skip
    found.gan.name = options.out.resolve().name
    card = render(found, Rights(licence, options.source))
    options.out.mkdir(parents=True, exist_ok=True)
    write_file(options.out / "README.md", card.encode())
    found.gan.save_pretrained(options.out, dtype=torch.float16 if options.fp16 else torch.float32)
    config = found.gan.generator.config
    print(f"{options.out}: {config.resolution} x {config.resolution}, {', '.join(found.gan.parts)}; weights "
          f"{found.gan.generator.fingerprint()}, from {found.origin.format}")  # fmt: skip
    for note in found.origin.notes:
        print(flags.cut(note, 400))


def _ask(file: Path) -> str:
    """The licence, from whoever sits there; ValueError where nobody does."""
    answer = input(ASKED).strip() if sys.stdin is not None and sys.stdin.isatty() else ""
    if not answer:
        raise ValueError(NO_LICENCE.format(name=file.name))
    return answer
