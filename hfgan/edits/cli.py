"""The flags of `hfgan edit`. Loads nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hfgan import flags

if TYPE_CHECKING:
    from hfgan import HFGan

ABOUT = (
    "Move pictures along the directions of a model: those of seeds, of a recipe, or of photos, which are inverted "
    "first. For each, NAME-edited.png is what the model draws, and carries its recipe. Sub-folders and names are kept."
)
LIST = ("name", "kind", "layers", "quality", "accuracy", "samples")  # columns of --list
WITH_LIST = ("list", "model", "device", "dtype")  # flags that --list heeds
NAMELESS = {"input": "INPUT", "output": "OUT_DIR"}
NEEDS = {
    "psi": "seeds", "label": "seeds", "interest": "input", "align": "input", "refine": "input", "paste": "input",
    "to": "set", "steps": "strip", "reach": "strip", "video": "strip", "feather": "region",
}  # fmt: skip  # flags, and what else they need to mean anything


def parse(arguments: Sequence[str], parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Files and flags, in any order, as `run` takes them; wrong usage ends in SystemExit.

    Args:
        arguments: What follows `hfgan edit`.
        parser: Without flags of its own.
    """
    parser.description = ABOUT
    parser.add_argument("input", type=Path, nargs="*", metavar="INPUT",
                        help="photos, pictures that carry a recipe, latents that `hfgan invert` wrote, and folders "
                        "of them")  # fmt: skip
    parser.add_argument("output", type=Path, nargs="?" if "--list" in arguments else None, metavar="OUT_DIR",
                        help="made where needed")  # fmt: skip
    parser.add_argument("--list", action="store_true", help="show the directions of the model, and nothing else")
    _add_source(parser)
    _add_edit(parser)
    parser.add_argument("-m", "--model", help="bundled name, folder or Hub id (that of the recipe, or a bundled one)")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    parser.add_argument("--device", help="cpu, cuda, ... (a GPU where there is one)")
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "float16", "bfloat16"),
                        help="(that of --recipe, or %(default)s)")  # fmt: skip
    options = parser.parse_intermixed_args(arguments)  # else OUT_DIR may not follow a flag
    (_check_list if options.list else _check)(options, parser)
    return options


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipe", type=flags.file(".json", ".png"), metavar="JSON|PNG",
                        help="the picture of a recipe, in place of INPUT; without --set it is drawn again, to the "
                        "last bit")  # fmt: skip
    parser.add_argument("--seeds", type=flags.seeds, metavar="0-15,42", help="pictures of seeds, in place of INPUT")
    parser.add_argument("--psi", type=flags.psi, default=0.7, metavar="0.7|0.4,0.9",
                        help="truncation of seeds, before the edit (%(default)s)")  # fmt: skip
    parser.add_argument("--label", type=int, help="class of seeds, for a model with classes")
    parser.add_argument("--interest", type=flags.area("everything", "auto"), default="everything",
                        metavar="everything|auto|FILE|x0,y0,x1,y1",
                        help="what matters in photos, as for `hfgan invert` (%(default)s)")  # fmt: skip
    parser.add_argument("--align", type=flags.align, default="center", metavar="center|none|x0,y0,x1,y1",
                        help="which square of photos is seen (%(default)s)")  # fmt: skip
    parser.add_argument("--refine", type=flags.count(0), default=0, metavar="N",
                        help="steps of descent toward photos before the edit (%(default)s)")  # fmt: skip


def _add_edit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--set", type=_strength, action="append", default=[], metavar="NAME=STRENGTH",
                        help="how far along a direction, in deviations, such as smile=2; may be repeated")  # fmt: skip
    parser.add_argument("--to", action="store_true", help="STRENGTH is where to end, 0 being the boundary")
    parser.add_argument("--layers", metavar="0-3,5", help="move only these (those of each direction)")
    parser.add_argument("--region", type=flags.area("alpha", "interest"), metavar="alpha|interest|FILE|x0,y0,x1,y1",
                        help="change only this: the subject, what matters in a photo, or a region or box of the "
                        "picture, of a photo in the whole photo (everything)")  # fmt: skip
    parser.add_argument("--feather", type=float, metavar="SHARE", help="over how many sides it fades out (0.08)")
    parser.add_argument("--paste", action="store_true", help="also NAME-pasted.png: the photo with the edit in it")
    parser.add_argument("--json", action="store_true", help="also NAME-edited.json, the recipe for --recipe")
    parser.add_argument("--strip", metavar="NAME", help="also NAME-strip.png: the way along a direction, in a row")
    parser.add_argument("--steps", type=flags.count(2), default=7, help="pictures of --strip (%(default)s)")
    parser.add_argument("--reach", type=float, default=3.0, metavar="DEVIATIONS",
                        help="--strip goes from minus this to plus this, of the boundary where there is one "
                        "(%(default)s)")  # fmt: skip
    parser.add_argument("--video", choices=(".gif", ".webp", ".png"),
                        help="also NAME-way.gif: the way of --strip, there and back without end")  # fmt: skip


def _strength(text: str) -> tuple[str, float]:
    """Name and number in "smile=2"."""
    name, equals, number = text.partition("=")
    try:
        strength = float(number)
    except ValueError:
        strength = None
    if not name.strip() or not equals or strength is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no direction and strength such as smile=2")
    return name.strip(), strength


def _check_list(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End where --list is given with what it would not heed."""
    for key, value in vars(options).items():
        if key not in WITH_LIST and value not in (parser.get_default(key), []):
            parser.error(f"--list goes without {NAMELESS.get(key, f'--{key}')}")


def _check(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End where flags do not go together."""
    given = [name for name in ("input", "seeds", "recipe") if getattr(options, name)]
    if len(given) != 1:
        parser.error("give one of INPUT, --seeds and --recipe")
    again = bool(options.recipe) and not (options.set or options.strip)
    if not (options.set or options.strip or again):
        parser.error("there is nothing to change: give --set NAME=STRENGTH or --strip NAME")
    for flag, needed in NEEDS.items():
        if getattr(options, flag) != parser.get_default(flag) and not getattr(options, needed):
            parser.error(f"--{flag} goes with {'INPUT' if needed == 'input' else f'--{needed}'}")
    lacking = [flag for flag in ("layers", "region", "feather") if again and getattr(options, flag) is not None]
    lacking += [flag for flag in ("paste", "json") if getattr(options, flag) and not (options.set or again)]
    if lacking:
        parser.error(f"--{lacking[0]} goes with --set")
    names = [name for name, _ in options.set]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        parser.error(f"--set gives {', '.join(twice)} more than once")


def run(options: argparse.Namespace, load: Callable[..., HFGan]) -> None:
    """Do what `parse` read.

    Args:
        load: Gives the model that is named, else that of a recipe and its file, else a bundled one.

    Raises:
        OSError, RuntimeError, ValueError: one sentence that says what cannot be done.
    """
    if options.list:
        _list(load())
        return
    from hfgan.edits.folder import edit_pictures

    edit_pictures(options, load)


def _list(gan: HFGan) -> None:
    """The directions of a model, a line each."""
    rows = [dict.fromkeys(LIST, "") | row for row in gan.part("directions").table()]
    cells = [LIST, *(tuple(_cell(row[key]) for key in LIST) for row in rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(LIST))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _cell(value: object) -> str:
    """What a table shows of a value."""
    from hfgan.captions import spans

    if isinstance(value, tuple):
        return spans(value)
    return "-" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)
