"""What tab Edit has at hand for one page: a picture, how it is moved, the steps up to here, directions of one's own.

A `Work` lives in the state of a page and is never changed: each verb of `Editor` and `Finder` makes another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from PIL.Image import Image, Resampling

from hfgan import images
from hfgan.app.inverter import Kept, enlarge, write_preview
from hfgan.app.studio import Pictures, Studio, new_folder
from hfgan.captions import spans
from hfgan.drawing import SampleOutput
from hfgan.editing import Edit, EditOutput
from hfgan.inversion import Inversion
from hfgan.models.directions import Direction

SLIDERS = 28  # at most: a model's directions, of which bundled models have up to 15, and one's own
REACH = 3.0  # deviations to which a slider goes, and a strip
MAX_STEPS = 24  # that can be gone back
MAX_OWN = 12  # directions of one's own
SMALL = 96  # px of a small picture, where the model draws as many
SEEN = 7  # pictures of a strip
QUALITIES = ("strong", "usable", "weak")
REGIONS = {"whole": "Whole picture", "alpha": "Subject", "interest": "What mattered of the photo"}

Source = SampleOutput | Inversion | EditOutput


@dataclass(frozen=True, eq=False)
class Step:
    """A picture and how it is moved.

    Attributes:
        source: The picture before any direction moves it.
        title: What that is, in a few words.
        edits: What moves it, each direction once.
        region: One of REGIONS.
        said: What this step did.
        small: File of a small picture of it.
        photo: The inversion that the source is or was mixed from, whose photo it is pasted into; None where none was.
    """

    source: Source
    title: str
    edits: tuple[Edit, ...] = ()
    region: str = "whole"
    said: str = "start"
    small: str = ""
    photo: Kept | None = None

    @property
    def where(self) -> str | None:
        """The region as `HFGan.edit` has it."""
        return None if self.region == "whole" else self.region

    def strength(self, name: str) -> float:
        """How far the direction of that name moves it."""
        return next((edit.strength for edit in self.edits if edit.direction.name == name), 0.0)

    def moved(self, direction: Direction, strength: float) -> Step:
        """The same moved so far along a direction, in place of how far it was."""
        others = tuple(edit for edit in self.edits if edit.direction.name != direction.name)
        return replace(self, edits=(*others, Edit(direction, strength)) if strength else others)

    def along(self, direction: Direction) -> Step:
        """The same along a direction in place of one of its name; this very step where none has it."""
        if not self.strength(direction.name):
            return self
        return replace(self, edits=tuple(replace(edit, direction=direction) if edit.direction.name == direction.name
                                         else edit for edit in self.edits))  # fmt: skip


@dataclass(frozen=True, eq=False)
class Work:
    """All that one page has at hand.

    Attributes:
        model: Name of the loaded model that it belongs to.
        own: Directions that were found on this page, the latest first.
        steps, at: The steps, and which one is seen.
        out: What that one draws; None where there is no step.
        files: Of what was, of what is, and of the photo with that in it (or None), to be shown.
        film: Files of the last strip and of the last video; None where there are none.
        along: Name of the direction that they went, or of the one that was found last; None for neither.
        moved: Which slider was moved last, and when [s].
    """

    model: str
    own: tuple[Direction, ...] = ()
    steps: tuple[Step, ...] = ()
    at: int = -1
    out: EditOutput | None = None
    files: tuple[str, str, str | None] | None = None
    film: tuple[str, str] | None = None
    along: str | None = None
    moved: tuple[str, float] = ("", 0.0)

    @property
    def now(self) -> Step | None:
        """The step that is seen."""
        return self.steps[self.at] if self.steps else None

    def then(self, step: Step, *, instead: bool = False) -> Work:
        """After a further step, or with that in place of the one that is seen; what was undone is forgotten."""
        steps = (*self.steps[: self.at + (not instead)], step)[-MAX_STEPS:]
        return replace(self, steps=steps, at=len(steps) - 1)

    def with_own(self, direction: Direction) -> Work:
        """With a direction of one's own, in steps too in place of one of the same name.

        Where there are MAX_OWN already, the oldest that moves no step goes; a ValueError if there is none.
        """
        others = [one for one in self.own if one.name != direction.name]
        moving = {edit.direction.name for step in self.steps for edit in step.edits}
        while len(others) >= MAX_OWN:
            resting = [one for one in others if one.name not in moving]
            if not resting:
                raise ValueError(f"your {MAX_OWN} directions all move a step: give the name of one, to replace it")
            others.remove(resting[-1])
        steps = tuple(step.along(direction) for step in self.steps)
        return replace(self, own=(direction, *others), steps=steps, along=direction.name)


def at_hand(work: Work | None, model: str) -> Work:
    """What is at hand for that model: nothing yet where it is another one's."""
    return work if work and work.model == model else Work(model)


# ---------------------------------------------------------------- directions


def known(own: Sequence[Direction], models: Iterable[Direction]) -> list[Direction]:
    """Directions of a page, then those of its model, the good ones first and then by name."""

    def place(one: Direction) -> tuple[int, str]:
        return (*QUALITIES, one.source.get("quality")).index(one.source.get("quality")), one.name.casefold()

    return [*own, *sorted(models, key=place)]


def slots(directions: Sequence[Direction], step: Step | None) -> list[Direction]:
    """Those that get a slider: what moves the picture, and of the others as many as there is room for."""
    moving = {edit.direction.name for edit in step.edits} if step else set()
    resting = [one.name for one in directions if one.name not in moving]
    seen = moving.union(resting[: max(0, SLIDERS - len(moving))])
    return [one for one in directions if one.name in seen][:SLIDERS]


def describe(direction: Direction) -> str:
    """What is known of a direction, in a few words: usable · layers 0-3."""
    layers = "all layers" if direction.layers is None else f"layers {spans(direction.layers)}"
    quality = direction.source.get("quality")
    return f"{quality} · {layers}" if quality in QUALITIES else layers


def signed(strength: float) -> str:
    """+2σ, 0σ, −1.5σ: a strength as one reads it."""
    return f"{strength:+.3g}σ".replace("-", "−") if strength else "0σ"


def regions(studio: Studio, work: Work) -> list[str]:
    """Those of REGIONS that there are of the picture at hand."""
    photo = work.now.photo if work.now else None
    able = {"alpha": studio.has(work.model, "alpha"),
            "interest": photo is not None and bool((photo.found.interest < 0.5).any())}  # fmt: skip
    return [region for region in REGIONS if able.get(region, True)]


# ---------------------------------------------------------------- small pictures


def draw_small(pictures: Sequence[Image]) -> tuple[str, ...]:
    """Files of small copies."""
    folder = new_folder()
    return tuple(write_preview(_small(picture), folder / f"{k}.webp") for k, picture in enumerate(pictures))


def draw_strip(frames: Sequence[Image], reach: float | None) -> Pictures:
    """Files of SEEN pictures of a way, and captions: deviations from -reach to reach, or shares of the way."""
    chosen, folder = pick(frames), new_folder()
    shares = [k / (len(chosen) - 1) for k in range(len(chosen))]
    captions = [f"{100 * at:.0f} %" if reach is None else signed(reach * (2 * at - 1)) for at in shares]
    files = [write_preview(enlarge(frame), folder / f"{k}.webp") for k, frame in enumerate(chosen)]
    return list(zip(files, captions, strict=True))


def pick(frames: Sequence[Image]) -> list[Image]:
    """SEEN of the frames at equal distances, the first and the last among them."""
    return [frames[round(k * (len(frames) - 1) / (SEEN - 1))] for k in range(SEEN)]


def _small(picture: Image) -> Image:
    """RGB of about SMALL pixels; enlarged in whole steps where the model draws fewer."""
    plain = images.with_channels(picture, 3)
    if plain.width > SMALL:
        return plain.resize((SMALL, SMALL), Resampling.LANCZOS, reducing_gap=2)
    side = plain.width * (SMALL // plain.width)
    return plain.resize((side, side), Resampling.NEAREST)
