"""Photos and folders of them that a command turns into files of another folder: found, named and checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from hfgan.sources import find_source

NO_NAME, FOLDER = "not a picture's name", "a folder named like a picture"  # reasons of `sources` that lose no photo


class Batch:
    """The photos of one run.

    Attributes:
        target: The folder that is written into.
        warn: Tells a line of what is left out.
        faults: Files that cannot even be opened, and why.
        folders: Those among what was given.
    """

    def __init__(self, target: Path, warn: Callable[[str], None]) -> None:
        self.target, self.warn = target, warn
        self.faults: list[tuple[Path, str]] = []
        self.folders: list[Path] = []
        self._owners: dict[str, Path] = {}  # output, where case does not count -> photo

    def find(self, given: Iterable[Path], besides: Sequence[Path | None] = ()) -> list[tuple[Path, str]]:
        """Files and those below folders, each with its path below the folder, or its name; each counts once.

        Args:
            besides: Folders whose files are no photos, beside `target`.

        Raises:
            FileNotFoundError: something is missing. ValueError: there is no photo at all.
        """
        photos: dict[str, tuple[Path, str]] = {}
        given = list(given)
        for one in given:
            if not one.exists():
                raise FileNotFoundError(f"no photo and no folder {one}")
            for name in self._names(one, [self.target, *besides]) if one.is_dir() else [""]:
                photo = one / name
                photos.setdefault(os.path.abspath(photo), (photo, name or one.name))
        if not photos and not self.faults:
            raise ValueError(f"there are no photos in {', '.join(map(str, given))}")
        return list(photos.values())

    def _names(self, folder: Path, besides: Sequence[Path | None]) -> list[str]:
        """The photos below a folder, and what else is taken, without those below the folders `besides`."""
        self.folders.append(folder)
        found, here = find_source(folder), folder.resolve()
        without = [other.resolve() for other in besides if other]
        inside = tuple(f"{other.relative_to(here).as_posix()}/" for other in without if here in other.parents)
        rejected = [fault for fault in found.rejected if not fault.id.startswith(inside)]
        others = [fault.id for fault in rejected if fault.reason.startswith(NO_NAME)]
        taken = [name for name in others if self.takes(folder / name)]
        left_out = [name for name in others if name not in taken]
        if left_out:
            self.warn(f"left out {len(left_out)} in {folder} that by name are no pictures, such as {left_out[0]}")
        lost = [fault for fault in rejected if not fault.reason.startswith((NO_NAME, FOLDER))]
        self.faults += [(folder / fault.id, fault.reason) for fault in lost]
        return sorted([entry.name for entry in found.entries if not entry.name.startswith(inside)] + taken)

    def takes(self, path: Path) -> bool:
        """Whether a file below a folder that by name is no picture counts too."""
        return False

    def files(self, photo: Path, name: str | Path, suffixes: Iterable[str]) -> dict[str, Path]:
        """What is written of a photo, by what ends each name; ValueError where another photo becomes the same."""
        stem = self.target / Path(name).with_suffix("")
        files = {suffix: stem.with_name(f"{stem.name}{suffix}") for suffix in suffixes}
        for path in files.values():
            owner = self._owners.setdefault(str(path).casefold(), photo)
            if owner != photo:
                raise ValueError(f"{owner} and {photo} would both become {path}: rename one of them")
        return files

    def check_outputs(self, outputs: Sequence[Path], read: Iterable[Path]) -> None:
        """Refuse outputs among the photos, or in place of what is read, with a ValueError or NotADirectoryError."""
        target = self.target.resolve()
        if target.exists() and not target.is_dir():
            raise NotADirectoryError(f"{self.target} is a file: what is drawn needs a folder")
        for folder in self.folders:
            source = folder.resolve()
            if source == target:
                raise ValueError(f"{folder} and {self.target} are one folder: what is drawn needs another")
            written = [path for path in outputs if source in path.resolve().parents and source not in target.parents]
            if written:
                raise ValueError(f"{written[0]} would be written among the photos: choose another OUT_DIR")
        known = {path.resolve() for path in read}
        if lost := [path for path in outputs if path.resolve() in known]:
            raise ValueError(f"{lost[0]} is one of the pictures that are read: choose another OUT_DIR")


def check_free(outputs: Iterable[Path], overwrite: bool, ways: str = " or pass --overwrite") -> None:
    """FileExistsError where an output is there already and may not be; `ways` names what else there is to do."""
    taken = [] if overwrite else [path for path in outputs if path.exists()]
    if taken:
        more = f" and {len(taken) - 1} more exist" if len(taken) > 1 else " exists"
        raise FileExistsError(f"{taken[0]}{more} already: choose another place{ways}")
