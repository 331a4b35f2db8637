"""The command `hfgan`: sample, invert, edit, cutout, convert, export, info, app, ... Slow imports come late."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hfgan import __version__, flags
from hfgan.batches import check_free

if TYPE_CHECKING:
    from hfgan.pipeline import HFGan, SampleOutput

BATCH = 16
# commands with flags of their own: where they are, and the part that the model needs which is meant when none is named
OWN = {
    "convert": ("converting.cli", "generator"), "cutout": ("cutting.cli", "matting"),
    "edit": ("edits.cli", "directions"), "export": ("converting.exportcli", "matting"),
    "invert": ("inverting.cli", "encoder"),
}  # fmt: skip
FIRST = "hfaces-64"  # the bundled model that is meant when none is named
NO_MODEL = (
    "no model comes with this copy of hfgan: train one with `accelerate launch training/train.py generator "
    "--data PHOTOS --out runs/mine` and name its folder with --model"
)
NO_CHECKOUT = (
    "evaluation is a stage of training, which comes with the repository and not with the installed package: "
    "in a checkout run `python training/train.py evaluate --help`"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status: 0, or 1 and a sentence on stderr. Wrong usage exits with 2."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["evaluate"]:  # its flags belong to the stage
        return _evaluate(given[1:])
    options = _parse_own(given[0], given[1:]) if given and given[0] in OWN else _parser().parse_args(given)
    try:
        options.run(options)
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        return _fail(options.command, str(error) or type(error).__name__)
    except KeyboardInterrupt:
        return 130
    return 0


def _fail(command: str, sentence: str) -> int:
    print(f"hfgan {command}: {flags.cut(' '.join(sentence.split()), 1000)}", file=sys.stderr)
    return 1


# ---------------------------------------------------------------- flags


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see `{self.prog} --help`\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="hfgan", description="Draw pictures with a StyleGAN2.")
    parser.add_argument("--version", action="version", version=f"hfgan {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_add_sample, _add_own, _add_dataset, _add_info, _add_app):
        add(commands)
    commands.add_parser("evaluate", add_help=False, help="measure a model, in a checkout of the repository")
    return parser


def _command(commands: Any, name: str, run: Callable, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:])
    parser.set_defaults(run=run)
    return parser


def _add_sample(commands: Any) -> None:
    parser = _command(commands, "sample", _sample, "draw pictures into a folder, or an animation")
    _add_model(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--seeds", type=flags.seeds, default="0-7", metavar="0-15,42", help="one picture each (%(default)s)"
    )
    what.add_argument("--replay", type=Path, metavar="PNG", help="draw the picture of this file again")
    what.add_argument(
        "--walk", type=flags.seeds, metavar="3,1,4", help="go from one to the next and back to the first"
    )
    parser.add_argument("--psi", type=flags.psi, default=0.7, metavar="0.7|0.4,0.9",
                        help="truncation: 1 all variety, 0 average; or coarse,fine layers (%(default)s)")  # fmt: skip
    parser.add_argument("--cutoff", type=int, metavar="LAYERS", help="truncate only so many of the first layers")
    parser.add_argument("--truncation", choices=("global", "multimodal", "none"),
                        help="toward the mean of all, a mode or nothing (global without --mode)")  # fmt: skip
    parser.add_argument(
        "--mode", type=flags.mode, metavar="12|nearest|random", help="which mode of a model with modes"
    )
    parser.add_argument(
        "--assignment", choices=("l2", "perceptual"), help="how the nearest mode is found (the model's way)"
    )
    parser.add_argument("--label", type=int, help="class of a model with classes")
    parser.add_argument("--noise", choices=("const", "random", "none"), default="const", help="(%(default)s)")
    parser.add_argument("--mix", type=flags.mix, action="append", default=[], metavar="SEED:LAYERS",
                        help="take these layers from another seed, such as 7:4-7; may be repeated")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("outputs"), metavar="DIR", help="(%(default)s)")
    parser.add_argument("--grid", type=flags.file(".png"), metavar="PNG", help="also write all pictures as one")
    parser.add_argument("--columns", type=int, help="of --grid (as square as can be)")
    parser.add_argument(
        "--animation", type=flags.file(".gif", ".webp", ".png"), metavar="FILE", help=".gif, .webp or .png of --walk"
    )
    parser.add_argument(
        "--steps", type=int, default=24, help="pictures from one seed of --walk to the next (%(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")


def _add_own(commands: Any) -> None:
    commands.add_parser("convert", add_help=False, help="make a model of a published checkpoint, without running it")
    commands.add_parser("invert", add_help=False, help="find the latents that draw photos, faithful to what matters")
    commands.add_parser("edit", add_help=False, help="move pictures along directions, draw recipes again")
    commands.add_parser("cutout", add_help=False, help="cut the subjects out of photos: files, folders, HTTP, frames")
    commands.add_parser("export", add_help=False, help="write a part of a model for other programs")


def _add_dataset(commands: Any) -> None:
    parser = _command(commands, "dataset", _dataset, "write pictures and their alpha as a data set for segmentation")
    _add_model(parser)
    flags.add_dataset(parser)


def _add_info(commands: Any) -> None:
    parser = _command(commands, "info", _info, "say what a model is made of, or how a picture was made")
    parser.add_argument("what", nargs="?", metavar="MODEL|PNG", help="bundled name, folder, Hub id, or a picture")


def _add_app(commands: Any) -> None:
    parser = _command(commands, "app", _app, "open the app in a browser on this machine")
    parser.add_argument("--model", nargs="+", metavar="MODEL", help="bundled names, folders or Hub ids (all bundled)")
    parser.add_argument("--host", help="address to listen on (127.0.0.1, or GRADIO_SERVER_NAME)")
    parser.add_argument("--port", type=flags.port, help="(the first free one from 7860 on, or GRADIO_SERVER_PORT)")
    parser.add_argument("--share", type=flags.switch, nargs="?", const=True, default=False, metavar="true|false",
                        help="open a public tunnel (false)")  # fmt: skip
    parser.add_argument("--photos", metavar="SOURCE", default=os.environ.get("HFGAN_PHOTOS"),
                        help="real ones for a game of guessing: folder, .zip or Hub id (HFGAN_PHOTOS)")  # fmt: skip
    parser.add_argument("--photos-licence", metavar="TEXT", default=os.environ.get("HFGAN_PHOTOS_LICENCE"),
                        help="shown with them (HFGAN_PHOTOS_LICENCE, or what their README.md says)")  # fmt: skip
    parser.add_argument("--counters", type=Path, metavar="JSON", default=os.environ.get("HFGAN_COUNTERS"),
                        help="keeps the game's anonymous counts (HFGAN_COUNTERS, or until the app ends)")  # fmt: skip


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="bundled name, folder or Hub id (the bundled model)")
    parser.add_argument("--device", help="cpu, cuda, ... (a GPU where there is one)")
    parser.add_argument(
        "--dtype", default="auto", choices=("auto", "float32", "float16", "bfloat16"), help="(%(default)s)"
    )


# ---------------------------------------------------------------- models


def _load(name: str | None, options: argparse.Namespace) -> HFGan:
    """The named model, or the bundled one."""
    import torch

    from hfgan.pipeline import HFGan

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device is {device}, but this torch sees no GPU: leave --device out, or give cpu")
    return HFGan.from_pretrained(name or _bundled()[0], device=device, dtype=options.dtype)


def _bundled(part: str = "generator") -> list[str]:
    """Names of the models that come with the package, the one that is meant first: one with this part."""
    from hfgan.parts import INDEX, bundled_models, read_index

    found = bundled_models()
    names = sorted(found, key=lambda name: (part not in read_index(found[name] / INDEX), name != FIRST, name))
    if not names:
        raise FileNotFoundError(NO_MODEL)
    return names


def _drawn_by(recipe: dict[str, Any], path: Path | str) -> str:
    """The bundled model that drew the picture of a recipe; no other, so that no file makes it download one."""
    from hfgan.parts import bundled_models

    if recipe["model"] not in list(bundled_models()):
        raise ValueError(f"{path} was drawn by {json.dumps(recipe['model'])}: say with --model where that is")
    return recipe["model"]


# ---------------------------------------------------------------- sample


def _sample(options: argparse.Namespace) -> None:
    if (options.walk is None) != (options.animation is None):
        raise ValueError("--walk and --animation go together: the seeds and the file")
    if options.replay:
        _replay(options)
    elif options.walk:
        _walk(options)
    else:
        _pictures(options)


def _pictures(options: argparse.Namespace) -> None:
    """A PNG for each seed, and all of them as one where that is wanted."""
    from hfgan import images
    from hfgan.captions import file_name
    from hfgan.sampling import parse_layers

    gan, seeds = _load(options.model, options), list(dict.fromkeys(options.seeds))
    steps = [{"seed": seed, "layers": parse_layers(layers, gan.generator.num_ws)} for seed, layers in options.mix]
    if not options.overwrite:
        check_free([options.grid] if options.grid else [], False)
        for recipes in _to_come(gan, seeds, options):
            check_free([options.out / file_name(recipe | {"mix": steps}) for recipe in recipes], False)
    drawn = []
    for out in _batches(gan, seeds, options):
        print(*out.save(options.out, overwrite=options.overwrite), sep="\n")
        drawn += out.images if options.grid else []
    if options.grid:
        _save(images.grid(drawn, options.columns), options.grid, None, options)


def _to_come(gan: HFGan, seeds: list[int], options: argparse.Namespace) -> Iterator[list[dict[str, Any]]]:
    """Seeds and modes, some at a time; where a mode is known only once drawn, of seeds with files of any mode."""
    if not isinstance(options.mode, str) and (options.mode is not None or options.truncation != "multimodal"):
        yield [{"seed": seed, "mode": options.mode} for seed in seeds]
        return
    there = {path.name.partition("-mode")[0] for path in options.out.glob("seed*-mode*.png")}
    near = [seed for seed in seeds if f"seed{seed:04d}" in there]
    for start in range(0, len(near), BATCH):
        yield gan.sample(seeds=near[start : start + BATCH], batch_size=BATCH, **_how(options)).recipes


def _batches(gan: HFGan, seeds: list[int], options: argparse.Namespace) -> Iterator[SampleOutput]:
    """What the seeds give, mixed, some at a time."""
    how = _how(options) | {"noise_mode": options.noise}
    others = [(gan.sample(seed=seed, **how), layers) for seed, layers in options.mix]
    for start in range(0, len(seeds), BATCH):
        out = gan.sample(seeds=seeds[start : start + BATCH], batch_size=BATCH, **how)
        for other, layers in others:
            out = gan.mix(out, other, layers)
        yield out


def _how(options: argparse.Namespace) -> dict[str, Any]:
    """What `HFGan.sample` is asked for beside seeds and noise."""
    return {"truncation_psi": options.psi, "truncation_cutoff": options.cutoff, "truncation": options.truncation,
            "mode": options.mode, "assignment": options.assignment, "label": options.label}  # fmt: skip


def _replay(options: argparse.Namespace) -> None:
    """The picture of a PNG once more, from the recipe inside it."""
    from hfgan import images
    from hfgan.captions import file_name
    from hfgan.recipes import check

    recipe = images.read_recipe(options.replay)
    if recipe.get("kind") == "edit":
        raise ValueError(f"{options.replay} was edited: `hfgan edit --recipe {options.replay} OUT_DIR` draws it again")
    check(recipe)
    out = _load(options.model or _drawn_by(recipe, options.replay), options).replay(recipe)
    path = options.out / file_name(out.recipes[0])
    check_free([path], options.overwrite)
    _save(out.images[0], path, out.recipes[0], options)


def _walk(options: argparse.Namespace) -> None:
    """An animation from seed to seed and back to the first."""
    from hfgan import images, sampling

    check_free([options.animation], options.overwrite)
    if options.mix or options.grid or options.noise != "const":
        raise ValueError("--walk goes without --mix, --grid and --noise: an animation has constant noise")
    gan = _load(options.model, options)
    keyframes = gan.sample(seeds=options.walk, **_how(options)).w_plus  # (k, num_ws, w_dim)
    frames = gan.render(sampling.walk(keyframes, options.steps, loop=True))
    options.animation.parent.mkdir(parents=True, exist_ok=True)
    images.save_animation(frames, options.animation, overwrite=options.overwrite)
    print(options.animation)


def _save(image: Any, path: Path, recipe: dict | None, options: argparse.Namespace) -> None:
    from hfgan.images import save_png

    path.parent.mkdir(parents=True, exist_ok=True)
    save_png(image, path, recipe, overwrite=options.overwrite)
    print(path)


# ---------------------------------------------------------------- convert, cutout, edit, export, invert


def _parse_own(command: str, arguments: list[str]) -> argparse.Namespace:
    """Read the flags of one of OWN."""
    module, part = OWN[command]
    own = importlib.import_module(f"hfgan.{module}")
    options = own.parse(arguments, _Parser(prog=f"hfgan {command}"))
    options.command = command

    def run(given: argparse.Namespace) -> None:
        own.run(given, lambda *told: _load(given.model or (_drawn_by(*told) if told else _bundled(part)[0]), given))

    options.run = run
    return options


# ---------------------------------------------------------------- dataset


def _dataset(options: argparse.Namespace) -> None:
    from hfgan.pairs import export_pairs
    from hfgan.pipeline import HFGan

    name = options.model or _bundled("alpha")[0]
    gan, card = _load(name, options), HFGan.download(name) / "README.md"
    settings = {key: getattr(options, key) for key in flags.DATASET}
    tally = export_pairs(gan, options.out, options.num, card=card, **settings)
    print(f"{options.out}: {tally.kept:,} pairs; {tally.coverage:,} samples were left out for their coverage and "
          f"{tally.confidence:,} for their confidence")  # fmt: skip


# ---------------------------------------------------------------- info, app, evaluate


def _info(options: argparse.Namespace) -> None:
    if options.what and Path(options.what).is_file():
        _info_picture(Path(options.what))
    else:
        _info_model(options.what or _bundled()[0])


def _info_picture(path: Path) -> None:
    """A PNG's recipe, escaped: a stranger may have written it."""
    from hfgan import images

    for key, value in images.read_recipe(path).items():
        print(f"{json.dumps(key)[1:-1]:18} {flags.cut(json.dumps(value), 400)}")


def _info_model(name: str) -> None:
    """Parts, sizes, weights and licence of a model."""
    from hfgan.pipeline import HFGan

    folder = HFGan.download(name)
    gan = HFGan.from_pretrained(name)
    config = gan.generator.config
    print(f"{gan.name}: {config.resolution} x {config.resolution}, {config.img_channels} channels, "
          f"{gan.generator.num_ws} layers, {config.c_dim or 'no'} classes")  # fmt: skip
    for part, model in gan.parts.items():
        count = sum(parameter.numel() for parameter in model.parameters())
        size = sum(file.stat().st_size for file in (folder / part).glob("*.safetensors"))
        print(f"{part:14} {type(model).__name__:24} {count / 1e6:6.2f} M parameters {size / 1e6:7.2f} MB")
        if part == "modes":
            counts, space = model.counts, model.config.space
            print(f"{'':14} {len(counts)} modes found in {space}, with {counts.max()} to {counts.min()} of "
                  f"{counts.sum()} samples")  # fmt: skip
    print(f"{'weights':14} {gan.generator.fingerprint()}")
    print(f"{'licence':14} {_licence(folder)}")


def _licence(folder: Path) -> str:
    """What the front matter of the model card says."""
    from huggingface_hub import ModelCard

    card = folder / "README.md"
    return str((ModelCard.load(card).data.license if card.is_file() else None) or "not stated in its card")


def _app(options: argparse.Namespace) -> None:
    from hfgan import app

    app.serve(
        options.model or _bundled(),
        host=options.host,
        port=options.port,
        share=options.share,
        photos=options.photos,
        licence=options.photos_licence,
        counters=options.counters,
    )


def _evaluate(arguments: list[str]) -> int:
    stage = Path(__file__).parents[1] / "training" / "evaluate.py"
    if not stage.is_file():
        return _fail("evaluate", NO_CHECKOUT)
    return subprocess.call([sys.executable, str(stage.with_name("train.py")), "evaluate", *arguments])
