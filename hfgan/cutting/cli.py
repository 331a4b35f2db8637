"""The verbs of `hfgan cutout`, named as in rembg: i a file, p a folder, s an HTTP server, b raw frames."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfgan import flags
from hfgan.cutting import FLAGS, Options, encode

if TYPE_CHECKING:
    from hfgan import HFGan

Load = Callable[[], "HFGan"]
COLOR_FLAGS = ("-bgc", "--bgcolor")


# ---------------------------------------------------------------- flags


def parse(arguments: Sequence[str], parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The verb, its files and its flags, in any order, as `run` takes them; wrong usage ends in SystemExit.

    Args:
        arguments: What follows `hfgan cutout`.
        parser: Without flags of its own.
    """
    parser.description = "Cut the subjects out of photos, with the flags of rembg."
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for add in (_add_file, _add_folder, _add_server, _add_frames):
        add(verbs)
    if not arguments or arguments[0] not in verbs.choices:
        return parser.parse_args(arguments)  # help, or what is wrong
    verb = verbs.choices[arguments[0]]
    return verb.parse_intermixed_args(_join_colors(arguments[1:]))  # else OUTPUT may not follow a flag


def _verb(verbs: Any, name: str, run: Callable, text: str, more: str = "") -> argparse.ArgumentParser:
    about = f"{text[0].upper()}{text[1:]}. {more}".strip()
    parser = verbs.add_parser(name, help=text, description=about)
    parser.set_defaults(verb=run)
    parser.add_argument("-m", "--model", help="bundled name, folder or Hub id (the bundled model with matting)")
    parser.add_argument("--device", help="cpu, cuda, ... (a GPU where there is one)")
    parser.add_argument(
        "--dtype", default="auto", choices=("auto", "float32", "float16", "bfloat16"), help="(%(default)s)"
    )
    for flag in FLAGS:
        names = [*filter(None, (flag.short, f"--{flag.name.replace('_', '-')}"))]
        default = Options.__dataclass_fields__[flag.name].default
        if flag.read:
            choices = flag.metavar.split("|") if flag.name == "kind" else None
            parser.add_argument(
                *names, type=flag.read, default=default, metavar=flag.metavar, choices=choices, help=flag.text
            )
        else:
            action = argparse.BooleanOptionalAction if default else "store_true"
            parser.add_argument(*names, action=action, help=flag.text)
            parser.set_defaults(**{flag.name: default})
    return parser


def _add_file(verbs: Any) -> None:
    parser = _verb(verbs, "i", _file, "cut out the picture of a file or of standard input",
                   "Transparent pictures are laid on white first.")  # fmt: skip
    parser.add_argument("input", nargs="?", metavar="INPUT", help="a picture; - or nothing is standard input")
    parser.add_argument("output", nargs="?", metavar="OUTPUT",
                        help="a .png; - or nothing is standard output, or <name>.out.png on a terminal")  # fmt: skip
    _add_overwrite(parser)


def _add_folder(verbs: Any) -> None:
    parser = _verb(verbs, "p", _folder, "cut out the pictures of a folder and of those in it",
                   "Sub-folders and names are kept, and every name ends in .png.")  # fmt: skip
    parser.add_argument("input", type=Path, metavar="IN_DIR")
    parser.add_argument("output", type=Path, metavar="OUT_DIR")
    parser.add_argument("-w", "--watch", action="store_true", help="go on with what is put there, until Ctrl-C")
    parser.add_argument(
        "--manifest", type=flags.file(".jsonl"), metavar="FILE.jsonl", help="write a line of JSON for every picture"
    )
    there = parser.add_mutually_exclusive_group()
    there.add_argument("--resume", action="store_true", help="skip pictures whose output exists")
    _add_overwrite(there)


def _add_server(verbs: Any) -> None:
    parser = _verb(verbs, "s", _server, "cut out what is sent over HTTP",
                   "The flags are the defaults of a request. `/` says how to use it.")  # fmt: skip
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("-p", "--port", type=flags.port, default=7000, help="(%(default)s)")


def _add_frames(verbs: Any) -> None:
    parser = _verb(verbs, "b", _frames, "cut out raw RGB frames of standard input, such as ffmpeg writes",
                   "WIDTH and HEIGHT come before -bgc R G B. Raw frames leave in the pixels of their kind: -pix_fmt "
                   "rgba, or gray with -om, gray16le with --kind alpha16, rgb24 on an opaque background.")  # fmt: skip
    parser.add_argument("width", type=int, metavar="WIDTH")
    parser.add_argument("height", type=int, metavar="HEIGHT")
    parser.add_argument("-o", "--output", metavar="NAME", help="write PNGs from 0 on, such as out-%%05d.png")
    parser.add_argument("--smooth", type=float, default=0.0, metavar="0-1",
                        help="share of the frames before in each alpha, below 1 (0)")  # fmt: skip
    _add_overwrite(parser)


def _add_overwrite(parser: Any) -> None:
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")


def _join_colors(arguments: Sequence[str]) -> list[str]:
    """`-bgc 255 0 0` as `-bgc 255,0,0`: argparse cannot tell where a list ends that may be three or four long."""
    joined: list[str] = []
    rest = list(arguments)
    while rest:
        joined.append(rest.pop(0))
        numbers: list[str] = []
        while joined[-1] in COLOR_FLAGS and rest and len(numbers) < 4 and rest[0].isdecimal():
            numbers.append(rest.pop(0))
        joined += [",".join(numbers)] if numbers else []
    return joined


# ---------------------------------------------------------------- what the verbs share


def run(options: argparse.Namespace, load: Load) -> None:
    """Do what `parse` read.

    Args:
        load: Gives the model that `options` name.

    Raises:
        OSError, RuntimeError, ValueError: one sentence that says what cannot be done.
    """
    given = {field.name: getattr(options, field.name) for field in fields(Options)}
    how = Options(**given | {"background": _background(options.background)})

    def with_matting() -> HFGan:
        gan = load()
        gan.part("matting")  # says how to get one
        return gan

    options.verb(options, how, with_matting)


def say(line: str) -> None:
    """Tell on standard output what was written, or where something is."""
    print(flags.printable(line, sys.stdout), flush=True)


def warn(line: str) -> None:
    """Tell on standard error what was left out or went wrong, while the others go on."""
    print(f"hfgan cutout: {flags.printable(' '.join(line.split()), sys.stderr)}", file=sys.stderr, flush=True)


def _background(text: str | None) -> Any:
    """ "blur", a colour, or the picture of a file."""
    from hfgan import sources
    from hfgan.images import load_image

    if text is None or text == "blur":
        return text
    path = Path(text)
    if path.is_file():
        return _of(text, lambda: load_image(path))
    if os.sep in text or path.suffix.lower() in sources.SUFFIXES:
        raise FileNotFoundError(f"no file {text} for --background")
    return text


def _of(name: str, read: Callable[[], Any]) -> Any:
    """What `read` returns; what it says about a picture begins with its name."""
    try:
        return read()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse a file that is there, before any work."""
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists already: choose another name or pass --overwrite")


def check_pipe(stream: Any, sentence: str) -> None:
    """Refuse, with a sentence, a terminal where bytes are wanted."""
    if stream.isatty():
        raise ValueError(sentence)


def write_out(data: bytes) -> None:
    """All of `data` to standard output."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError as error:
        # what is still buffered would fail again, loudly, when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise BrokenPipeError("what read the output has ended before all was written") from error


# ---------------------------------------------------------------- i, p, s, b


def _file(options: argparse.Namespace, how: Options, load: Load) -> None:
    from hfgan.images import write_file

    source = options.input or "-"
    target = _target(source, options.output)
    if source == "-":
        check_pipe(sys.stdin, "no picture: name its file, or send it to standard input with < or |")
    elif Path(source).is_dir():
        raise IsADirectoryError(f"{source} is a folder: use `hfgan cutout p {source} OUT_DIR`")
    elif not Path(source).exists():
        raise FileNotFoundError(f"no file {source}")
    if target:
        check_free(target, options.overwrite)
        if not target.parent.is_dir():
            raise FileNotFoundError(f"no folder {target.parent} to write {target.name} into: create it first")
    gan = load()
    photo = sys.stdin.buffer.read() if source == "-" else Path(source)
    data = _of("standard input" if source == "-" else source, lambda: encode(gan, photo, how))
    if target is None:
        write_out(data)
    else:
        write_file(target, data, overwrite=options.overwrite)
        say(str(target))


def _target(source: str, output: str | None) -> Path | None:
    """The file to write, or None for standard output."""
    if output not in (None, "-"):
        if not output.lower().endswith(".png"):
            raise ValueError(f"{output} does not end in .png, which is what is written")
        return Path(output)
    if output is None and source != "-" and sys.stdout.isatty():
        return Path(source).with_suffix(".out.png")
    check_pipe(sys.stdout, "a PNG is no text for a terminal: name an OUTPUT, or send it on with > or |")
    return None


def _folder(options: argparse.Namespace, how: Options, load: Load) -> None:
    from hfgan.cutting.folder import cut_folder

    cut_folder(options, how, load)


def _server(options: argparse.Namespace, how: Options, load: Load) -> None:
    from hfgan.cutting.server import serve

    serve(options.host, options.port, how, load)


def _frames(options: argparse.Namespace, how: Options, load: Load) -> None:
    from hfgan.cutting.frames import cut_frames

    cut_frames(options, how, load)
