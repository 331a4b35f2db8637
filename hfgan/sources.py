"""Where raw photos come from: a folder, a zip or a Hub data set, as a fixed list of names and their bytes."""

from __future__ import annotations

import errno
import itertools
import os
import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

SUFFIXES = {
    ".jfif",
    ".jp2",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".avif",
    ".bmp",
    ".gif",
    ".pbm",
    ".pgm",
    ".png",
    ".ppm",
    ".tga",
    ".tif",
    ".tiff",
    ".webp",
}


class Rejected(NamedTuple):
    """A file that is not used, and why: "<kind>" or "<kind>: <detail>"."""

    id: str
    reason: str


class Entry(NamedTuple):
    """A file that may be a picture. `stamp` differs when the content does: time of change in ns, or a CRC."""

    name: str
    size: int  # bytes
    stamp: int | None  # None where the source has none


class Source(Protocol):
    """A list of entries in a fixed order, the names that are no pictures, and the bytes of each entry."""

    entries: list[Entry]
    rejected: list[Rejected]

    def read(self, name: str) -> bytes: ...

    def label(self, name: str) -> str | None: ...


def _first_level(name: str) -> str | None:
    return name.split("/", 1)[0] if "/" in name else None


def _wrong_name(name: str) -> str | None:
    """Why the name alone rules a file out; a name without any suffix is tried."""
    suffix = os.path.splitext(name)[1].lower()
    return f"not a picture's name: {suffix}" if suffix and suffix not in SUFFIXES else None


class _Folder:
    """Every file below a folder, sorted by name; links are followed, a link to a folder above is refused."""

    def __init__(self, root: Path) -> None:
        self.root, self.entries, self.rejected = root, [], []
        self._walk("", ())
        self.entries.sort()
        self.rejected.sort()

    def _walk(self, folder: str, above: tuple[tuple[int, int], ...]) -> None:
        try:
            here = os.stat(self.root / folder)
            names = os.listdir(self.root / folder)
        except OSError as error:
            self.rejected.append(Rejected(folder, f"unreadable folder: {error.strerror}"))
            return
        if (here.st_dev, here.st_ino) in above:
            self.rejected.append(Rejected(folder, "symlink loop"))
            return
        for name in names:
            self._visit(f"{folder}/{name}" if folder else name, (*above, (here.st_dev, here.st_ino)))

    def _visit(self, name: str, above: tuple[tuple[int, int], ...]) -> None:
        try:
            status = os.stat(self.root / name)
        except OSError as error:
            kind = "symlink loop" if error.errno == errno.ELOOP else "broken link or unreadable"
            self.rejected.append(Rejected(name, f"{kind}: {error.strerror}"))
            return
        if stat.S_ISDIR(status.st_mode):
            if os.path.splitext(name)[1].lower() in SUFFIXES:
                self.rejected.append(Rejected(name, "a folder named like a picture: its pictures are tried"))
            self._walk(name, above)
        elif not stat.S_ISREG(status.st_mode):
            self.rejected.append(Rejected(name, "not a regular file"))
        elif reason := _wrong_name(name):
            self.rejected.append(Rejected(name, reason))
        else:
            self.entries.append(Entry(name, status.st_size, status.st_mtime_ns))

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def label(self, name: str) -> str | None:
        return _first_level(name)


class _Zip:
    """Every file in a zip archive, sorted by name; of two with one name the later counts."""

    def __init__(self, path: Path) -> None:
        self.archive = zipfile.ZipFile(path)
        self.rejected = []
        listed = [info for info in self.archive.infolist() if not info.is_dir()]
        for name, copies in Counter(info.filename for info in listed).items():
            self.rejected += [Rejected(name, "same name again in the zip: the last is used")] * (copies - 1)
        named = {info.filename: info for info in listed}
        self.rejected += [Rejected(name, reason) for name in named if (reason := _wrong_name(name))]
        pictures = [info for info in named.values() if not _wrong_name(info.filename)]
        self.entries = sorted(Entry(info.filename, info.file_size, info.CRC) for info in pictures)

    def read(self, name: str) -> bytes:
        try:
            return self.archive.read(name)
        except (RuntimeError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise OSError(0, f"in the archive: {error}") from error  # encrypted, unknown method, damaged

    def label(self, name: str) -> str | None:
        return _first_level(name)


class _Hub:
    """The "train" split of a Hub data set: its first image column, its first class label column if any."""

    def __init__(self, name: str) -> None:
        datasets = _import_datasets(name)
        table = datasets.load_dataset(name, split="train")
        self.image, label = _columns(datasets, table.features, name)
        self.table = table.select_columns([self.image]).cast_column(self.image, datasets.Image(decode=False))
        self.labels = [table.features[label].int2str(row) for row in table[label]] if label else None
        self.rejected, width = [], len(str(len(table)))
        self.entries = [Entry(f"{row:0{width}d}", 0, None) for row in range(len(table))]

    def read(self, name: str) -> bytes:
        return _cell_bytes(self.table[int(name)][self.image])

    def label(self, name: str) -> str | None:
        return None if self.labels is None else self.labels[int(name)]


class HubStream:
    """The rows of a Hub data set's "train" split as they arrive; only the row that came last can be read."""

    def __init__(self, name: str) -> None:
        datasets = _import_datasets(name)
        table = datasets.load_dataset(name, split="train", streaming=True)
        self.image, _ = _columns(datasets, table.features or {}, name)
        self.table = table.select_columns([self.image]).cast_column(self.image, datasets.Image(decode=False))
        split = (table.info.splits or {}).get("train")
        self.rows = split.num_examples if split else None  # None where the data set does not say
        self.entries, self.rejected, self._cell = [], [], {}

    def stream(self, seed: int, start: int) -> Iterator[Entry]:
        """Rows from position `start` on, epoch after epoch, each epoch in its own order."""
        first = start // self.rows if self.rows else 0
        return itertools.islice(self._epochs(seed, first), start - first * (self.rows or 0), None)

    def _epochs(self, seed: int, first: int) -> Iterator[Entry]:
        table = self.table.shuffle(seed=seed, buffer_size=1000)
        for epoch in itertools.count(first):
            table.set_epoch(epoch)
            for row, cells in enumerate(table):
                self._cell = cells[self.image]
                yield Entry(self._cell["path"] or f"epoch {epoch} row {row}", 0, None)

    def read(self, name: str) -> bytes:
        return _cell_bytes(self._cell)

    def label(self, name: str) -> str | None:
        return None


def _import_datasets(name: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        needed = f'reading {name!r} from the Hub needs the package "datasets"'
        raise ImportError(f'{needed}: pip install "hfgan[train]"') from error
    return datasets


def _columns(datasets: Any, features: dict[str, Any], name: str) -> tuple[str, str | None]:
    """The names of the first image column and of the first class label column."""
    image = next((key for key, value in features.items() if isinstance(value, datasets.Image)), None)
    label = next((key for key, value in features.items() if isinstance(value, datasets.ClassLabel)), None)
    if image is None:
        raise ValueError(f"the data set {name!r} has no image column; its columns: {', '.join(features)}")
    return image, label


def _cell_bytes(cell: dict[str, Any]) -> bytes:
    """A cell holds the bytes, or the path or address to read them from."""
    if cell["bytes"] is not None:
        return cell["bytes"]
    import fsspec  # comes with datasets

    with fsspec.open(cell["path"], "rb") as file:
        return file.read()


def find_source(source: str | os.PathLike, *, streaming: bool = False) -> Source:
    """A folder, a .zip or the Hub id of a data set, as a list of entries that can be read.

    With `streaming` a Hub data set is not downloaded: its rows come from `HubStream.stream`.

    Raises:
        FileNotFoundError: neither is there. ValueError: a file that is no zip archive.
        ImportError: a Hub id, and the package `datasets` is not installed.
    """
    path = Path(source)
    if path.is_dir():
        return _Folder(path)
    if path.is_file():
        if not zipfile.is_zipfile(path):
            raise ValueError(f"{path} is neither a folder nor a zip archive: give the folder of the photos")
        return _Zip(path)
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(source)) or path.suffix == ".zip":
        raise FileNotFoundError(f"nothing at {path}: give a folder, a .zip or a Hub id owner/name")
    return HubStream(str(source)) if streaming else _Hub(str(source))
