"""Pictures to PNGs of their cut-outs: `encode`, which a file, a folder, a request and the app all go through.

Importing this loads neither torch nor Pillow, so that the help of `hfgan cutout` comes at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from PIL.Image import Image

    from hfgan import Cutout, HFGan

KINDS = ("rgba", "mask", "alpha16", "trimap", "overlay")  # of hfgan.segmentation, which takes long to import
YES, NO = ("", "1", "true", "yes", "on"), ("0", "false", "no", "off")


# ---------------------------------------------------------------- what is wanted


@dataclass(frozen=True)
class Options:
    """What is made of a picture; the names are those of the flags. Alpha is refined, cleaned, and finished, in order.

    Attributes:
        only_mask: As kind "mask".
        alpha_matting: Hold the alpha at 1 and 0 well inside what the network is sure of.
        alpha_matting_foreground_threshold, alpha_matting_background_threshold: What counts as sure, in 0..255.
        alpha_matting_erode_size: Side [pixels] of the square that sure regions are eroded with.
        post_process_mask: Hard alpha with smooth edges and without specks.
        bgcolor: (r, g, b) or (r, g, b, a) in 0..255 behind the subject; a below 255 gives RGBA, else RGB.
        kind: One of KINDS.
        threshold, feather, largest, invert: As in `Cutout.finish`.
        background: A colour, "blur" or a picture behind the subject, as in `Cutout.on`; a string is never a path.
        refine: Let the alpha follow the edges of the picture.
        decontaminate: Free half-transparent pixels of the colours of the old background.

    Raises:
        ValueError: a value out of its range, or two that exclude each other.
    """

    only_mask: bool = False
    alpha_matting: bool = False
    alpha_matting_foreground_threshold: int = 240
    alpha_matting_background_threshold: int = 10
    alpha_matting_erode_size: int = 10
    post_process_mask: bool = False
    bgcolor: tuple[int, ...] | None = None
    kind: str = "rgba"
    threshold: float | None = None
    feather: float = 0.0
    largest: bool = False
    invert: bool = False
    background: str | tuple[int, ...] | Image | None = None
    refine: bool = True
    decontaminate: bool = True

    def __post_init__(self) -> None:
        if self.only_mask and self.kind not in ("rgba", "mask"):
            raise ValueError(f"only_mask asks for the kind 'mask', and kind is {self.kind!r}: give one of them")
        if self.bgcolor is not None and self.background is not None:
            raise ValueError("bgcolor and background are both given: give one of them")
        if (self.only_mask or self.kind != "rgba") and (self.bgcolor, self.background) != (None, None):
            raise ValueError("bgcolor and background go with the kind 'rgba' only: leave one or the other out")
        if self.bgcolor is not None and not (
            len(self.bgcolor) in (3, 4) and all(type(value) is int and 0 <= value <= 255 for value in self.bgcolor)
        ):
            raise ValueError(f"bgcolor is {self.bgcolor}: expected R G B or R G B A, each from 0 to 255")
        if not self.alpha_matting:
            for field in fields(self):
                if field.name.startswith("alpha_matting_") and getattr(self, field.name) != field.default:
                    raise ValueError(f"{field.name} does nothing without alpha_matting (-a): give both or none")
        _rehearse(self)


def _rehearse(options: Options) -> None:
    """Go once through all that options lead to, on a few pixels: what is out of range says so before any work."""
    import torch
    from PIL import Image

    from hfgan.segmentation import Cutout

    alpha = torch.linspace(0, 1, 8).repeat(8, 1)
    draw(finish(_hold(Cutout(Image.new("RGB", (8, 8)), alpha), alpha, options), options), options)


class Flag(NamedTuple):
    """A field of `Options` on the command line and in a request; `read` is None for a switch."""

    name: str
    short: str | None
    read: Callable[[str], Any] | None
    metavar: str | None
    text: str


def color(text: str) -> tuple[int, ...]:
    """The numbers in "255,136,0"; ValueError where there are none."""
    return tuple(int(part) for part in text.split(","))


FLAGS = (
    Flag("only_mask", "-om", None, None, "the mask alone: kind mask"),
    Flag("alpha_matting", "-a", None, None, "keep the alpha at 1 and 0 well inside what is surely one or the other"),
    Flag("alpha_matting_foreground_threshold", "-af", int, "0-255", "alpha matting: foreground from here on (240)"),
    Flag("alpha_matting_background_threshold", "-ab", int, "0-255", "alpha matting: background up to here (10)"),
    Flag("alpha_matting_erode_size", "-ae", int, "PX", "alpha matting: how far inside, as the side of a square (10)"),
    Flag("post_process_mask", "-ppm", None, None, "a hard alpha with smooth edges and without specks"),
    Flag("bgcolor", "-bgc", color, "R G B [A]", "put the subject on a colour; with A below 255 it stays RGBA"),
    Flag("kind", None, str, "|".join(KINDS), "what is written (rgba)"),
    Flag("threshold", None, float, "0-1", "alpha is 1 from here on, else 0 (soft)"),
    Flag("feather", None, float, "PX", "soften the edge: deviation of a Gaussian, up to 100 (0)"),
    Flag("largest", None, None, None, "keep the largest part of the subject alone"),
    Flag("invert", None, None, None, "swap subject and background"),
    Flag("background", None, str, "blur|COLOUR|FILE", "put the subject on its own background, a colour, a file"),
    Flag("refine", None, None, None, "let the alpha follow the edges of the picture (yes)"),
    Flag("decontaminate", "-dc", None, None, "free soft edges of the old background's colours (yes)"),
)


def read_options(given: Mapping[str, str | bytes], defaults: Options) -> Options:
    """Options from texts by name, as in a request; long and short names, `no_...` for what is on by default.

    Args:
        given: "0-255" numbers, "255,136,0" colours, "true"/"false" switches; `background` may be a picture's bytes.

    Raises:
        ValueError: an unknown name, or a value that cannot be read or is out of range.
    """
    from hfgan.images import load_image

    known = {name: flag for flag in FLAGS for name in (flag.name, (flag.short or "")[1:]) if name}
    found: dict[str, Any] = {}
    for name, text in given.items():
        flag, off = known.get(name), name.startswith("no_")
        flag = known.get(name[3:]) if flag is None and off else flag
        if flag is None or (off and flag.read):
            raise ValueError(f"there is no parameter {name!r}: there are file, {', '.join(f.name for f in FLAGS)}")
        if flag.name in found:
            raise ValueError(f"{flag.name} is given twice: give it once")
        if isinstance(text, bytes) and flag.name != "background":
            raise ValueError(f"{name} is a file: expected text")
        value = load_image(text) if isinstance(text, bytes) else _read(flag, name, text.strip())
        found[flag.name] = not value if off else value
    return replace(defaults, **found)


def _read(flag: Flag, name: str, text: str) -> Any:
    """The value that a text stands for."""
    if flag.read is None:
        if text.lower() not in (*YES, *NO):
            raise ValueError(f"{name} is {text!r}: expected true or false")
        return text.lower() in YES
    try:
        return flag.read(text)
    except ValueError as error:
        wanted = "numbers such as 255,136,0" if flag.read is color else "a number"
        raise ValueError(f"{name} is {text!r}: expected {wanted}") from error


# ---------------------------------------------------------------- one picture


def encode(gan: HFGan, photo: Any, options: Options) -> bytes:
    """The PNG of a picture's cut-out: the same bytes for the same picture, whichever way it came.

    Args:
        photo: PIL, path, bytes or open file; turned upright, and composited on white where it is transparent. Or one
            sample of `gan`, whose recipe goes into the PNG.

    Raises:
        ValueError: no readable picture. OSError: the file cannot be read. RuntimeError: the model lacks the part.
    """
    return export(cut(gan, photo, options), options)


def cut(gan: HFGan, photo: Any, options: Options) -> Cutout:
    """The cut-out with its final alpha: see `encode`."""
    return finish(find(gan, photo, options), options)


def find(gan: HFGan, photo: Any, options: Options) -> Cutout:
    """The cut-out with the alpha that the network finds, refined and held where that is wanted: see `encode`."""
    from hfgan import SampleOutput
    from hfgan.images import load_image

    source = photo if isinstance(photo, SampleOutput) else load_image(photo)
    found = gan.cutout(source, refine=options.refine)
    if options.alpha_matting:
        before = gan.cutout(source, refine=False) if options.refine else found
        found = _hold(found, before.alpha, options)
    return found


def _hold(found: Cutout, before: Any, options: Options) -> Cutout:
    """The cut-out held at 1 and 0 where its alpha (h, w) before refinement was sure."""
    from hfgan.segmentation import hold_known

    held = hold_known(found.alpha[None, None], before[None, None],
                      foreground=options.alpha_matting_foreground_threshold,
                      background=options.alpha_matting_background_threshold,
                      erode=options.alpha_matting_erode_size)  # fmt: skip
    return replace(found, alpha=held[0, 0])


def finish(found: Cutout, options: Options) -> Cutout:
    """The cut-out with its alpha cleaned, hardened, softened and inverted as options say."""
    from hfgan.segmentation import clean

    if options.post_process_mask:
        found = replace(found, alpha=clean(found.alpha[None, None])[0, 0])
    return found.finish(
        threshold=options.threshold, feather=options.feather, largest=options.largest, invert=options.invert
    )


def draw(found: Cutout, options: Options) -> Image:
    """The picture that is written of a finished cut-out: RGBA, RGB on a background, L or I;16 by its kind."""
    from PIL import Image

    clean_colors, behind = options.decontaminate, options.background
    if options.bgcolor is not None:
        if (*options.bgcolor, 255)[3] < 255:
            layer = Image.new("RGBA", found.image.size, options.bgcolor)
            return Image.alpha_composite(layer, found.rgba(decontaminate=clean_colors))
        behind = options.bgcolor[:3]
    if behind is not None:
        return found.on(behind, decontaminate=clean_colors)
    kind = "mask" if options.only_mask else options.kind
    return found.rgba(decontaminate=clean_colors) if kind == "rgba" else found.render(kind)


def export(found: Cutout, options: Options) -> bytes:
    """The PNG of a finished cut-out, as `Cutout.save` writes it."""
    from hfgan.images import save_png

    with TemporaryDirectory() as folder:
        file = Path(folder, "cutout.png")
        save_png(draw(found, options), file, found.recipe)
        return file.read_bytes()
