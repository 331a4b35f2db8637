"""The flags of `hfgan export`, and what it does."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hfgan.batches import check_free

if TYPE_CHECKING:
    from hfgan import HFGan

ABOUT = (
    "Write a part of a model for other programs: matting as ONNX; generator, and the discriminator with it, as "
    "tensors by the names of NVIDIA's or rosinality's code."
)
# endings of what a part is written as, the one that is meant first
ENDINGS = {"matting": (".onnx",), "generator": (".pt", ".safetensors")}


def parse(arguments: Sequence[str], parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Part and flags, as `run` takes them; wrong usage ends in SystemExit.

    Args:
        arguments: What follows `hfgan export`.
        parser: Without flags of its own.
    """
    parser.description = ABOUT
    parser.set_defaults(device="cpu", dtype="float32")
    parser.add_argument("part", choices=tuple(ENDINGS), help="which part of the model")
    parser.add_argument("--layout", choices=("nvidia", "rosinality"), help="whose names, for a generator")
    parser.add_argument("--model", help="bundled name, folder or Hub id (the bundled model)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help=".onnx; .pt or .safetensors (matting.onnx, generator.pt)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    options = parser.parse_args(arguments)
    endings = ENDINGS[options.part]
    options.out = options.out or Path(f"{options.part}{endings[0]}")
    if options.out.suffix.lower() not in endings:
        parser.error(f"--out {options.out} does not end in {' or '.join(endings)}, as a {options.part} does")
    if (options.layout is None) == (options.part == "generator"):
        parser.error("a generator needs --layout nvidia or rosinality, and nothing else has one")
    return options


def run(options: argparse.Namespace, load: Callable[[], HFGan]) -> None:
    """Write the file."""
    check_free([options.out], options.overwrite)
    gan = load()
    part = gan.part(options.part)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if options.part == "matting":
        from hfgan.export import export_matting

        export_matting(part, options.out, name=gan.name, overwrite=options.overwrite)
    else:
        from hfgan.converting.exporting import export_weights

        for note in export_weights(gan, options.out, layout=options.layout, overwrite=options.overwrite):
            print(note)
    print(options.out)
