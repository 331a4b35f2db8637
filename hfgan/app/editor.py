"""What tab Edit does: a picture is taken, moved along directions within a region, mixed, filmed, undone and saved."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL.Image import Image
from torch import Tensor

from hfgan import editrecipes, images
from hfgan.app.cutter import pick_seed
from hfgan.app.inverter import Kept, enlarge, write_preview
from hfgan.app.studio import (
    FPS,
    Drawn,
    Pictures,
    Studio,
    draw_again,
    new_folder,
    own_file,
    refusing,
    write_pictures,
)
from hfgan.app.work import (
    REACH,
    REGIONS,
    Step,
    Work,
    at_hand,
    draw_small,
    draw_strip,
    known,
    pick,
    regions,
    signed,
    slots,
)
from hfgan.captions import caption, file_name, plain, spans
from hfgan.drawing import SampleOutput
from hfgan.editing import EditOutput
from hfgan.editrecipes import EDIT
from hfgan.models.directions import Direction
from hfgan.pipeline import HFGan
from hfgan.recipes import Recipe, check_keys
from hfgan.sampling import parse_layers

ENDS = {"picture": ".png", "pasted": "-pasted.png", "recipe": ".json"}  # of files' names
PAUSE = 1.0  # seconds without a move after which moving the same slider is a step of its own
FEWEST, USUAL, MOST = 7, 19, 31  # pictures of a way
WHOLE = "This way begins with the picture moved everywhere, because a way to another one keeps no region"
UNTAKEN = "Nothing is edited yet: move a slider to begin with picture A, or begin with another one above"


class Editor:
    """The verbs of tab Edit, on the models and with the locks of a studio; each makes of a `Work` the next one."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    # ---------------------------------------------------------------- take

    def take(self, work: Work | None, model: str, recipe: Recipe | None) -> Work:
        """Begin with the picture of a recipe."""
        with self._studio.drawing(model) as gan:
            return _begin(gan, at_hand(work, model), draw_again(gan, recipe, "the picture"))

    def take_seed(self, work: Work | None, model: str, seed: int | None) -> Work:
        """Begin with the picture of a seed; a random one where there is none."""
        with self._studio.drawing(model) as gan:
            return _begin(gan, at_hand(work, model), _of_seed(gan, seed))

    def take_inverted(self, work: Work | None, model: str, kept: Kept | None) -> Work:
        """Begin with a photo as it was inverted."""
        with self._studio.drawing(model) as gan:
            if kept is None:
                raise ValueError("nothing is inverted yet: press Invert first")
            step = Step(kept.found, f"photo {plain(str(kept.found.name))}", photo=kept)
            return _draw(gan, at_hand(work, model), step)

    # ---------------------------------------------------------------- change

    def turn(self, work: Work | None, model: str, a: Recipe | None, *strengths: float) -> Work:
        """Move the picture, A where none is taken, along the directions of the sliders, in their order."""
        with self._studio.drawing(model) as gan:
            work = _ready(gan, work, model, a)
            step = work.now
            given = zip(slots(self._known(work), step), strengths, strict=False)
            changed = [(one, strength) for one, strength in given if strength != step.strength(one.name)]
            if not changed:
                return work
            for one, strength in changed:
                step = step.moved(one, strength)
            name, strength = changed[-1][0].name, changed[-1][1]
            on = work.moved[0] == name and time.monotonic() - work.moved[1] < PAUSE
            drawn = _draw(gan, work, replace(step, said=f"{name} {signed(strength)}"), instead=on)
        return replace(drawn, moved=(name, time.monotonic()))

    def limit(self, work: Work | None, model: str, a: Recipe | None, region: str) -> Work:
        """Move only what is within one of REGIONS."""
        with self._studio.drawing(model) as gan:
            work = _ready(gan, work, model, a)
            if region not in regions(self._studio, work):
                raise ValueError(f"there is no region {region!r} of this picture: choose another one")
            return _draw(gan, work, replace(work.now, region=region, said=REGIONS[region].lower()))

    def mix(
        self, work: Work | None, model: str, a: Recipe | None, b: Recipe | None, other: str, seed: int | None,
        layers: str,
    ) -> Work:  # fmt: skip
        """Take the styles of some layers from picture B or from a seed; what moves the picture goes on doing so."""
        with self._studio.drawing(model) as gan:
            work = _ready(gan, work, model, a)
            chosen = parse_layers(layers, gan.generator.num_ws)
            given, called = _other(gan, other, seed, b)
            mixed, said = gan.mix(work.now.source, given, chosen), f"layers {spans(chosen)} of {called}"
            step = replace(work.now, source=mixed, title=f"{work.now.title} · {said}", said=said)
            return _draw(gan, work, step)

    def reset(self, work: Work | None, model: str) -> Work:
        """Move the picture no more."""
        with self._studio.drawing(model) as gan:
            work = _taken(work)
            return _draw(gan, work, replace(work.now, edits=(), region="whole", said="reset"))

    def go(self, work: Work | None, model: str, to: int) -> Work:
        """See the step of an index."""
        with self._studio.drawing(model) as gan:
            work = _taken(work)
            if not 0 <= to < len(work.steps):
                raise ValueError("there is no such step: press one of those that are shown")
            return _see(gan, replace(work, at=to, moved=("", 0.0)))

    def undo(self, work: Work | None, model: str) -> Work:
        """See the step before."""
        return self.go(work, model, work.at - 1 if work else 0)

    def redo(self, work: Work | None, model: str) -> Work:
        """See the step after."""
        return self.go(work, model, work.at + 1 if work else 0)

    # ---------------------------------------------------------------- strip and video

    def film(
        self, work: Work | None, model: str, a: Recipe | None, b: Recipe | None, way: str, name: str | None,
        seed: int | None, count: int, form: str,
    ) -> tuple[Work, Pictures, str, str]:  # fmt: skip
        """The way along a direction, or from the picture to another, as a strip and an endless video; and a line."""
        with self._studio.drawing(model) as gan:
            work, said = _ready(gan, work, model, a), ""
            if way == "direction":
                along = next((one for one in self._known(work) if one.name == name), None)
                if along is None:
                    raise ValueError("no direction is chosen: choose one, or find one first")
                frames, reach = _strip(gan, work.now, along, count), REACH
            else:
                frames, reach = gan.morph(work.out, _other(gan, way, seed, b)[0], count).images, None
                said = WHOLE if _limited(work.out) else ""
        folder = new_folder()
        strip, video = folder / f"{_stem(work.now)}-strip.png", folder / f"{_stem(work.now)}-way.{form}"
        images.save_png(images.grid(pick(frames), len(pick(frames))), strip)
        images.save_animation([*frames, *frames[-2:0:-1]], video, FPS)
        work = replace(work, film=(str(strip), str(video)), along=name)
        return work, draw_strip(frames, reach), str(video), said

    # ---------------------------------------------------------------- save

    @refusing()
    def keep(self, work: Work | None) -> Drawn:
        """What is seen as a picture that is at hand for other tabs."""
        return _at_hand(_taken(work).out)

    def keep_inverted(self, model: str, kept: Kept | None) -> Drawn:
        """A photo as it was inverted, at hand for other tabs."""
        with self._studio.drawing(model) as gan:
            if kept is None:
                raise ValueError("nothing is inverted yet: press Invert first")
            return _at_hand(gan.edit(kept.found, ()))

    @refusing()
    def export(self, kind: str, work: Work | None) -> str:
        """A file of what is seen, at full size: picture, pasted, strip, video or recipe."""
        work = _taken(work)
        if kind in ("strip", "video"):
            if work.film is None:
                raise ValueError("there is no strip and no video yet: press Draw strip and video first")
            return str(own_file(work.film[kind == "video"]))
        path = new_folder() / f"{_stem(work.now)}{ENDS[kind]}"
        out, (told,) = work.out, work.out.recipes
        if kind == "recipe":
            path.write_text(json.dumps(told, indent=1))
        elif kind == "picture":
            images.save_png(out.images[0], path, told)
        elif work.now.photo is None:
            raise ValueError("this picture is of no photo: invert one in tab Invert, and press Edit this")
        else:
            images.save_png(replace(out, inversion=work.now.photo.full()).pasted()[0], path)  # no recipe draws that
        return str(path)

    # ---------------------------------------------------------------- for programs

    def edit(
        self, model: str, edits: Any, recipe: Recipe | None = None, latent: str | None = None, region: str = "whole",
        layers: str = "", to: bool = False,
    ) -> tuple[str, dict[str, Any]]:  # fmt: skip
        """Move a picture along directions, such as {"smile": 2}, in standard deviations of all the model's pictures.

        Args:
            model: Name of the loaded model that drew the picture.
            edits: Names of its directions, and how far along each, -3 to 3 as a rule; or a list of what
                `find_direction` returned, each with a "strength".
            recipe: Of the picture, as `sample` returned it.
            latent: In place of it, what `invert` returned of a photo.
            region: What is changed: whole, or alpha, the subject alone.
            layers: Only these layers of the network, such as 0-3; nothing for those of each direction.
            to: Whether strengths are where to get to, counted from the boundary between with and without.

        Returns:
            The picture as a PNG that carries its recipe, and that recipe.
        """
        with self._studio.drawing(model) as gan:
            if not isinstance(to, bool):
                raise ValueError(f"to is {to!r}: expected true or false")
            if (recipe is None) == (latent is None):
                raise ValueError("give a recipe or a latent, one of the two")
            source = draw_again(gan, recipe, "the picture") if latent is None else _read_latent(gan, latent)
            if region == "alpha" and gan.alpha is None:
                raise ValueError(f"{gan.name} has no alpha network to tell the subject: leave region at whole")
            where = None if region == "whole" else region
            out = gan.edit(source, _read_edits(gan, edits), layers=layers or None, region=where, to=to)
        path = new_folder() / "edited.png"
        with refusing():  # a recipe that is too long
            images.save_png(out.images[0], path, out.recipes[0])
        return str(path), out.recipes[0]

    def _known(self, work: Work) -> list[Direction]:
        """Directions that a page has at hand."""
        return known(work.own, self._studio.directions(work.model))


def tell(work: Work) -> str:
    """What is seen, in a line of Markdown."""
    step = work.now
    if step is None:
        return UNTAKEN
    parts = [step.title, *(f"**{plain(edit.direction.name)}** {signed(edit.strength)}" for edit in step.edits)]
    parts += [f"within: {REGIONS[step.region].lower()}"] if step.region != "whole" else []
    return " · ".join(parts)


# ---------------------------------------------------------------- what is drawn


def _begin(gan: HFGan, work: Work, out: SampleOutput | EditOutput) -> Work:
    """With one picture as a further step."""
    return _draw(gan, work, Step(out, caption(out.recipes[0])))


def _ready(gan: HFGan, work: Work | None, model: str, a: Recipe | None) -> Work:
    """With picture A where none is taken."""
    work = at_hand(work, model)
    return work if work.steps else _begin(gan, work, draw_again(gan, a, "A"))


def _at_hand(out: EditOutput) -> Drawn:
    """The file, recipe and caption of an edited picture, which go to A or B."""
    if out.recipes[0] is None:
        raise ValueError("this picture has no recipe, as noise or weights were fitted to the photo: save it instead")
    return write_pictures(out)[0]


def _taken(work: Work | None) -> Work:
    """With a picture, or a ValueError."""
    if work is None or not work.steps:
        raise ValueError("nothing is edited yet: move a slider, or choose a picture to edit")
    return work


def _draw(gan: HFGan, work: Work, step: Step, *, instead: bool = False) -> Work:
    """After a further step, or one in place of that which is seen."""
    seen = _see(gan, work.then(step, instead=instead))
    (small,) = draw_small(seen.out.images)
    steps = tuple(replace(one, small=small) if one is step else one for one in seen.steps)
    return replace(seen, steps=steps)


def _see(gan: HFGan, work: Work) -> Work:
    """With the picture of the step that is seen, and files that show it."""
    step, folder = work.now, new_folder()
    out = _out(gan, step)
    shown = {"before": enlarge(out.before[0]), "after": enlarge(out.images[0])}
    shown |= {"pasted": out.pasted()[0]} if step.photo else {}
    files = [write_preview(picture, folder / f"{name}.webp") for name, picture in shown.items()]
    return replace(work, out=out, files=(*files, None)[:3])


def with_found(gan: HFGan, work: Work, direction: Direction) -> Work:
    """With a direction of one's own; what one of the same name moved is drawn again."""
    found = work.with_own(direction)
    moved = {k: _out(gan, step) for k, step in enumerate(found.steps) if step is not work.steps[k]}
    if not moved:
        return found
    small = dict(zip(moved, draw_small([out.images[0] for out in moved.values()]), strict=True))
    steps = tuple(replace(step, small=small.get(k, step.small)) for k, step in enumerate(found.steps))
    return _see(gan, replace(found, steps=steps))


def _out(gan: HFGan, step: Step) -> EditOutput:
    """What a step draws."""
    return gan.edit(step.source, step.edits, region=step.where if step.edits else None)


def _strip(gan: HFGan, step: Step, along: Direction, count: int) -> list[Image]:
    """Pictures as the slider of a direction makes them, from REACH less than the step has of it to REACH more."""
    middle = step.strength(along.name)
    ways = (REACH * (2 * k / (count - 1) - 1) for k in range(count))
    return [_out(gan, step.moved(along, middle + way)).images[0] for way in ways]


def _limited(out: EditOutput) -> bool:
    """Whether that edit or one before it was within a region."""
    told = out.recipes[0]
    while told and editrecipes.is_edit(told):
        if told["region"] is not None:
            return True
        told = told["source"]
    return out.region is not None


def _of_seed(gan: HFGan, seed: int | None) -> SampleOutput:
    """The picture of a seed, a random one where there is none; of the first class of a model with classes."""
    return gan.sample(seed=pick_seed(seed), label=0 if gan.generator.config.c_dim else None)


def _other(
    gan: HFGan, which: str, seed: int | None, b: Recipe | None
) -> tuple[SampleOutput | EditOutput, str]:  # fmt: skip
    """Picture B, or that of a seed; and what it is called."""
    if which == "b":
        return draw_again(gan, b, "B"), "B"
    out = _of_seed(gan, seed)
    return out, f"seed {out.seeds[0]}"


def _read_latent(gan: HFGan, file: str) -> Tensor:
    """The w_plus of a file that was uploaded, which is called by its name alone if something is wrong with it."""
    path = own_file(file)
    try:
        return gan.read_latents(path)
    except ValueError as error:
        raise ValueError(str(error).replace(str(path), path.name)) from error


def _read_edits(gan: HFGan, given: Any) -> Any:
    """Edits as a program gives them, for `HFGan.edit`."""
    if not isinstance(given, list):
        return given
    for one in given:
        check_keys("edit", one, EDIT)
    return editrecipes.edits({"edits": given}, gan.generator.config.w_dim)


def _stem(step: Step) -> str:
    """What files of a step are called, without what ends their names."""
    if step.photo:
        return f"{step.photo.found.name}-edited"
    began = Path(file_name(step.source.recipes[0])).stem
    return f"{began.removesuffix('-edited')}-edited"
