"""Anonymous counters of the game's results: whole numbers only, no time, no person, nothing of one game apart.

For each kind of game: how many had each score, and how often each kind of picture was called what, summed over all.
They are in memory, or in a JSON file that several processes may share; deleting the file is forgetting all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from filelock import FileLock

from hfgan.guessing import Tally
from hfgan.storage import read_json, write_json

FORMAT = 1
PATIENCE = 10  # seconds to wait for another process
KEY = re.compile(r"(\d{1,3})/\d{1,6}/[0-9a-f]{1,64}")  # length, protocol, weights

Content = dict[str, dict[str, list[int]]]


@dataclass(frozen=True)
class Counts:
    """Results of one kind of game.

    Attributes:
        scores: How many games had 0, 1, ... pictures right.
        tally: Summed over all.
    """

    scores: tuple[int, ...]
    tally: Tally

    @property
    def games(self) -> int:
        """How many."""
        return sum(self.scores)

    @property
    def mean(self) -> float:
        """Mean score of one game or more."""
        return sum(right * count for right, count in enumerate(self.scores)) / self.games


class Counters:
    """Counts by the key of a game, in memory or in a file."""

    def __init__(self, path: Path | None = None) -> None:
        """Open them; a file that is not there yet is written with the first result.

        Raises:
            ValueError: a file that holds something else. FileNotFoundError: no folder to write it into.
        """
        self._path, self._memory, self._lock = path, {}, Lock()
        if path is not None and not path.parent.is_dir():
            raise FileNotFoundError(f"no folder {path.parent} to keep {path.name} in: create it first")
        self._read()

    def add(self, key: str, tally: Tally) -> Counts:
        """Count one game; returns the counts with it."""
        with self._alone():
            content = self._read()
            empty = {"scores": [0] * (tally.total + 1), "confusion": [0] * 4}
            found = content.setdefault(key, empty)
            found["scores"][tally.right] += 1
            found["confusion"] = [a + b for a, b in zip(found["confusion"], astuple(tally), strict=True)]
            if self._path is not None:
                write_json(self._path, {"format": FORMAT, "games": content})
            return _counts(found)

    def read(self, key: str) -> Counts | None:
        """The counts of one kind of game; None where there is none yet."""
        with self._lock:  # a file is replaced whole, so that no other process need be waited for
            found = self._read().get(key)
        return _counts(found) if found else None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else writes, in this process or another."""
        with self._lock:
            if self._path is None:
                yield
                return
            with FileLock(self._path.with_name(f".{self._path.name}.lock"), timeout=PATIENCE):
                yield

    def _read(self) -> Content:
        """What is there now, to be changed in place where it is in memory."""
        if self._path is None:
            return self._memory
        if not self._path.exists():
            return {}
        found = read_json(self._path)
        if found.get("format") != FORMAT or not _valid(found.get("games")):
            raise ValueError(f"{self._path} holds no counters of this program: name another file, or delete it")
        return found["games"]


def _counts(found: dict[str, list[int]]) -> Counts:
    return Counts(tuple(found["scores"]), Tally(*found["confusion"]))


def _valid(games: Any) -> bool:
    """Whether these are counts by key: a list of each score and four sums that agree."""
    return isinstance(games, dict) and all(_valid_one(key, one) for key, one in games.items())


def _valid_one(key: str, one: Any) -> bool:
    named = KEY.fullmatch(key)
    if not named or not isinstance(one, dict) or one.keys() != {"scores", "confusion"}:
        return False
    lists, sizes = (one["scores"], one["confusion"]), (int(named[1]) + 1, 4)
    whole = all(isinstance(each, list) and len(each) == size and all(type(n) is int and n >= 0 for n in each)
                for each, size in zip(lists, sizes, strict=True))  # fmt: skip
    return whole and sum(one["confusion"]) == sum(one["scores"]) * int(named[1])
