"""Real or generated? The protocol of the game, its items, and what an answer sheet tells.

One picture at a time, of which each is generated with probability 1/2, so that counting helps nobody. Photos and
generated pictures go through one function, `prepare`, so that no file tells which it is. Signal detection after
Macmillan and Creelman (2005): a generated picture is the signal, "generated" is the yes.
"""

from __future__ import annotations

import io
import math
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist, median

from hfgan.data import MAX_BYTES, decode
from hfgan.datacard import license_line, read_license
from hfgan.images import read_image, to_image, to_pil
from hfgan.sampling import MAX_SEED
from hfgan.sources import Source, find_source

LENGTHS = (10, 20, 40)  # pictures of a game
PSI = 0.7  # of what is generated
PROTOCOL = 1  # goes up when a result no longer compares with earlier ones
PUBLISHED, PUBLISHED_OF, PUBLISHED_PEOPLE = 22.45, 40, 49  # mean score of a survey among the listeners of a lecture
TRIED = 1000  # photos that one game looks at, at most: those that cannot be used are passed over


# ---------------------------------------------------------------- what an answer sheet tells


@dataclass(frozen=True)
class Tally:
    """How often each kind of picture was called what.

    Attributes:
        hits, misses: Generated pictures that were called generated, and real.
        false_alarms, rejections: Photos that were called generated, and real.
    """

    hits: int
    misses: int
    false_alarms: int
    rejections: int

    @property
    def generated(self) -> int:
        """Generated pictures in all."""
        return self.hits + self.misses

    @property
    def real(self) -> int:
        """Photos in all."""
        return self.false_alarms + self.rejections

    @property
    def total(self) -> int:
        """Pictures in all."""
        return self.generated + self.real

    @property
    def right(self) -> int:
        """Right answers, the score."""
        return self.hits + self.rejections


def score(generated: Sequence[bool], said: Sequence[bool]) -> Tally:
    """Tally of answers: which pictures were generated, and which were said to be.

    Raises:
        ValueError: not one answer for each picture.
    """
    if len(generated) != len(said):
        raise ValueError(f"{len(said)} answers to {len(generated)} pictures: expected one for each")
    pairs = [(bool(was), bool(called)) for was, called in zip(generated, said, strict=True)]
    return Tally(*(pairs.count(one) for one in ((True, True), (True, False), (False, True), (False, False))))


def binomial_p(right: int, total: int) -> float:
    """P(X >= right) of X ~ Binomial(total, 1/2), exact: how often somebody who guesses does as well or better.

    Raises:
        ValueError: not 0 <= right <= total.
    """
    if not 0 <= right <= total:
        raise ValueError(f"{right} right of {total}: expected 0 to {total}")
    return sum(math.comb(total, k) for k in range(right, total + 1)) / 2**total  # of integers: rounded once


def needed(total: int, level: float = 0.05) -> int:
    """The least score of `total` that somebody who guesses gets with a probability of `level` at most."""
    return next(right for right in range(total + 2) if right > total or binomial_p(right, total) <= level)


def d_prime(tally: Tally) -> float:
    """How well the two kinds are told apart: z(hit rate) - z(false alarm rate); 0 is not at all."""
    hit, false_alarm = _z(tally.hits, tally.generated), _z(tally.false_alarms, tally.real)
    return hit - false_alarm


def criterion(tally: Tally) -> float:
    """Bias c = -(z(hit rate) + z(false alarm rate)) / 2: above 0 leans to "real", below 0 to "generated"."""
    return -(_z(tally.hits, tally.generated) + _z(tally.false_alarms, tally.real)) / 2


def _z(count: int, total: int) -> float:
    """z of a rate with the log-linear correction of Hautus (1995), finite also for none and all."""
    return NormalDist().inv_cdf((count + 0.5) / (total + 1))


# ---------------------------------------------------------------- photos


class Photos:
    """Pictures of a folder, zip or Hub data set, of which none is held: each is read when a game shows it.

    Attributes:
        name: Of the folder, zip or data set, without what leads there.
        licence: In a line.
    """

    def __init__(self, source: Source, name: str, licence: str) -> None:
        self._source, self.name, self.licence = source, name, licence

    def __len__(self) -> int:
        return len(self._source.entries)

    def read(self, index: int) -> bytes:
        """The encoded bytes of a picture.

        Raises:
            ValueError: the file is too large. OSError: it cannot be read.
        """
        entry = self._source.entries[index]
        if entry.size > MAX_BYTES:
            raise ValueError(f"file too large: {entry.size:,} bytes, the limit is {MAX_BYTES:,}")
        return self._source.read(entry.name)


def open_real(source: str | os.PathLike, licence: str | None = None) -> Photos:
    """Photos to play with.

    Args:
        source: Folder (searched recursively), .zip, or Hub id "owner/name".
        licence: A line that is shown beside the game; None for what the front matter of the folder's README.md says.

    Raises:
        FileNotFoundError: nothing there. ValueError: fewer pictures than the shortest game may need.
    """
    photos = Photos(find_source(source), Path(source).resolve().name if Path(source).exists() else str(source),
                    licence or license_line(read_license(Path(source) / "README.md")))  # fmt: skip
    if len(photos) < LENGTHS[0]:
        count = len(photos) or "no"
        raise ValueError(f"{source} holds {count} pictures, a game takes {LENGTHS[0]} or more: give other photos")
    if not any(_is_picture(photos, index) for index in range(len(photos))):
        raise ValueError(f"none of the {len(photos)} files in {source} can be read as a picture: give other photos")
    return photos


def _is_picture(photos: Photos, index: int) -> bool:
    try:
        read_image(photos.read(index))
    except (OSError, ValueError):
        return False
    return True


def prepare(picture: bytes, resolution: int, img_channels: int) -> bytes:
    """The PNG that a game shows of an encoded picture, photo or generated: the one way for both.

    Centre square, resized as for training, on white, grey where the model is; no metadata, and pixels that are stored
    without compression: all files of one size have the same number of bytes. What a photo was before still shows in
    its pixels where it was hardly reduced: noise, or the blocks of a JPEG.

    Raises:
        ValueError: no picture, a strip, or one that would have to be enlarged.
    """
    pixels, _ = decode(picture, resolution, 1 if img_channels == 1 else 3, resolution)  # (c, r, r)
    buffer = io.BytesIO()
    to_pil(to_image(pixels[None]))[0].save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def prepare_real(photos: Photos, order: Sequence[int], count: int, resolution: int, img_channels: int) -> list[bytes]:
    """Photos as a game shows them: the first `count` of `order` that can be used.

    Raises:
        ValueError: fewer can be used.
    """
    ready: list[bytes] = []
    for index in order:
        if len(ready) == count:
            break
        try:
            ready.append(prepare(photos.read(index), resolution, img_channels))
        except (OSError, ValueError):
            continue
    if len(ready) < count:
        raise ValueError(f"only {len(ready)} of the photos can be used, the others are damaged or smaller than "
                         f"{resolution} px: choose fewer pictures or another model")  # fmt: skip
    return ready


# ---------------------------------------------------------------- a game


@dataclass(frozen=True)
class Lots:
    """What was drawn for a game before any picture is.

    Attributes:
        generated: For each picture, whether it is.
        seeds: One for each of those; all are shown.
        order: In which photos are looked at.
    """

    generated: tuple[bool, ...]
    seeds: tuple[int, ...]
    order: tuple[int, ...]


def draw_lots(length: int, num_photos: int, seed: int | None = None) -> Lots:
    """Draw a game: each picture is generated with probability 1/2, no seed and no photo comes twice.

    Args:
        length: One of LENGTHS.
        num_photos: To choose from, `length` or more.
        seed: The same one draws the same game; None for one that nobody knows.

    Raises:
        ValueError: another length, or too few photos.
    """
    if length not in LENGTHS:
        raise ValueError(f"a game of {length} pictures: choose {', '.join(map(str, LENGTHS[:-1]))} or {LENGTHS[-1]}")
    if num_photos < length:
        raise ValueError(f"a game of {length} pictures needs {length} photos, there are {num_photos}: choose fewer")
    source = random.Random(seed)
    generated = tuple(source.random() < 0.5 for _ in range(length))
    seeds = tuple(source.sample(range(MAX_SEED + 1), sum(generated)))
    return Lots(generated, seeds, tuple(source.sample(range(num_photos), min(num_photos, TRIED))))


@dataclass(frozen=True)
class Game:
    """A game at one moment; it never leaves the server.

    Attributes:
        model, fingerprint: Name and weights of what drew.
        generated, seeds: Of each picture, whether it is, and its seed; None of a photo.
        files: Of each picture.
        practice: Whether one is told after each answer; the result is then no measure.
        since: When the picture at hand was shown, in seconds of a monotonic clock.
        said: Answers so far, True for generated.
        seconds: That each took.
        counted: Whether the result was added to the counters.
    """

    model: str
    fingerprint: str
    generated: tuple[bool, ...]
    seeds: tuple[int | None, ...]
    files: tuple[str, ...]
    practice: bool
    since: float
    said: tuple[bool, ...] = ()
    seconds: tuple[float, ...] = ()
    counted: bool = False

    def __len__(self) -> int:
        return len(self.generated)

    @property
    def number(self) -> int:
        """Of the picture at hand, from 0; the length when the game is over."""
        return len(self.said)

    @property
    def over(self) -> bool:
        """Whether every picture has its answer."""
        return self.number == len(self)

    @property
    def key(self) -> str:
        """Under which results that compare are counted together."""
        return f"{len(self)}/{PROTOCOL}/{self.fingerprint}"

    def answer(self, said: bool, now: float) -> Game:
        """With the answer to the picture at hand, True for generated, at a time of the same clock."""
        if self.over:
            raise ValueError("this game is over: start another")
        return replace(self, said=(*self.said, said), seconds=(*self.seconds, now - self.since), since=now)

    def tally(self) -> Tally:
        """Of all answers of a game that is over.

        Raises:
            ValueError: it is not over: before that, it tells nothing.
        """
        if not self.over:
            raise ValueError(f"this game is at picture {self.number + 1} of {len(self)}: finish it first")
        return score(self.generated, self.said)

    def median_seconds(self) -> float:
        """That an answer took."""
        return median(self.seconds)

    def mistakes(self) -> list[int]:
        """Which answers were wrong, from 0."""
        return [k for k, pair in enumerate(zip(self.generated, self.said, strict=True)) if pair[0] != pair[1]]


def to_length(length: int) -> float:
    """The published score, as many of `length` pictures as it was of its own."""
    return PUBLISHED * length / PUBLISHED_OF
