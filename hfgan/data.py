"""Raw photos to uint8 tensors: every rejected file is named, and the order is a function of the position.

Nothing is dropped silently: a file that is not used has its reason in `PhotoDataset.rejected`, one that was
converted has its notes in `PhotoDataset.adjusted`. `InfiniteSampler` has no state: what is seen at
`images_seen` depends on the seed alone, so a resumed run sees what an uninterrupted one would have.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import torch

from hfgan.images import MODES, pil_to_pixels, read_image, resize_square, with_channels, write_file
from hfgan.sources import Entry, HubStream, Rejected, Source, find_source

MEMORY_LIMIT = 4 * 2**30  # bytes of decoded pixels held in memory; beyond it each batch is decoded anew
MAX_BYTES = 2**29  # of one encoded file: no photo is larger, and it is read at once
MAX_ASPECT = 8  # a longer strip is no photo, and its centre square is not its subject
INDEX_FORMAT = 1
PATIENCE = 1000  # unusable photos in a row after which a stream gives up


class Verdict(NamedTuple):
    """What the scan found out about one entry; `reason` is None where the picture is usable."""

    name: str
    size: int
    stamp: int | None
    crc: int  # of the encoded bytes; 0 where they could not be read
    reason: str | None
    notes: list[str]


# ---------------------------------------------------------------- one picture


def decode(data: bytes, resolution: int, img_channels: int, min_size: int) -> tuple[torch.Tensor, list[str]]:
    """Encoded picture to uint8 (c, r, r), and notes on what was converted.

    Raises:
        ValueError: damaged, not a picture, a strip, or its shorter side is under `min_size` pixels.
    """
    pil, notes = read_image(data)
    (shorter, longer), size = sorted(pil.size), f"{pil.width}x{pil.height}"
    if longer > MAX_ASPECT * shorter:
        raise ValueError(f"extreme aspect ratio: {size} is over {MAX_ASPECT}:1")
    if shorter < min_size:
        raise ValueError(f"too small: {size}, the shorter side must have {min_size} pixels or more")
    if shorter < resolution:
        notes.append(f"upscaled from {size}")
    if pil.mode == "RGBA" and img_channels != 4:
        notes.append("alpha composited on white")
    return pil_to_pixels(resize_square(with_channels(pil, img_channels), resolution)), notes


class _Reader:
    """Entries of one source to pixels of one shape, or to the reason why not."""

    def __init__(self, source: Source, resolution: int, img_channels: int, min_size: int | None) -> None:
        if resolution < 1 or img_channels not in MODES:
            given = f"resolution {resolution} and img_channels {img_channels}"
            raise ValueError(f"{given}: expected a positive side and 1 (grey), 3 (RGB) or 4 (RGBA) channels")
        self.source = source
        self.resolution, self.img_channels = resolution, img_channels
        self.min_size = max(resolution // 2, 1) if min_size is None else min_size

    def examine(self, entry: Entry) -> tuple[Verdict, torch.Tensor | None]:
        """Read and decode one entry: never raises for what a file can hold or a disk can refuse."""
        crc, notes, pixels = 0, [], None
        try:
            data = self._read(entry)
            crc = zlib.crc32(data)
            pixels, notes = decode(data, self.resolution, self.img_channels, self.min_size)
            reason = None
        except OSError as error:
            reason = f"unreadable: {error.strerror or error}"
        except ValueError as error:
            reason = str(error)
        return Verdict(*entry, crc, reason, notes), pixels

    def _read(self, entry: Entry) -> bytes:
        if entry.size > MAX_BYTES:
            raise ValueError(f"file too large: {entry.size:,} bytes, the limit is {MAX_BYTES:,}")
        return self.source.read(entry.name)


# ---------------------------------------------------------------- the data set


class PhotoDataset:
    """Usable photos in a fixed order, as uint8 (n, c, r, r): all in memory, or decoded batch by batch.

    Attributes:
        ids: relative names, in order; classes: class names or None; labels: int64 (n,) or None.
        rejected: the files that are not used; adjusted: name -> notes of those that were converted.
    """

    def __init__(
        self,
        reader: _Reader,
        verdicts: Sequence[Verdict],
        pixels: torch.Tensor | None,
        classes: list[str] | None,
        rejected: list[Rejected],
        workers: int,
    ) -> None:
        usable = [verdict for verdict in verdicts if verdict.reason is None]
        self._reader, self._pixels, self._workers = reader, pixels, workers
        self._usable, self.classes = usable, classes
        self.ids = [verdict.name for verdict in usable]
        self.adjusted = {verdict.name: verdict.notes for verdict in usable if verdict.notes}
        self.rejected = rejected
        self.labels = None
        if classes is not None:
            self.labels = torch.tensor([classes.index(reader.source.label(name)) for name in self.ids])

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, indices: Sequence[int]) -> torch.Tensor:
        """uint8 (n, c, r, r) of the photos at `indices`.

        Raises:
            RuntimeError: a photo that was usable when the data set was opened is no longer.
        """
        if self._pixels is not None:
            return self._pixels[torch.as_tensor(indices)]
        with ThreadPoolExecutor(self._workers) as pool:
            return torch.stack(list(pool.map(self._decode_again, indices)))

    def _decode_again(self, index: int) -> torch.Tensor:
        known = self._usable[index]
        found, pixels = self._reader.examine(Entry(*known[:3]))
        if pixels is None or found.crc != known.crc:
            why = found.reason or "its content has changed"
            raise RuntimeError(f"{known.name!r} was usable when the data was opened, now: {why}")
        return pixels

    def summary(self, limit: int = 20) -> str:
        """For a log: counts of what is used, converted and rejected, then up to `limit` rejected files."""
        kinds = Counter(item.reason.partition(":")[0] for item in self.rejected)
        usable = f"{len(self):,} photos usable ({len(self.adjusted):,} converted)"
        lines = [f"{usable}, {len(self.rejected):,} rejected"]
        lines += [f"  {count:,} x {kind}" for kind, count in kinds.most_common()]
        return "\n".join(lines + [f"  {item.id!r}: {item.reason}" for item in self.rejected[:limit]])

    def write_report(self, path: str | os.PathLike) -> None:
        """JSON with counts, every rejected file with its reason, every converted one with its notes."""
        counts = {"usable": len(self), "converted": len(self.adjusted), "rejected": len(self.rejected)}
        report = {
            "counts": counts,
            "reasons": dict(Counter(item.reason.partition(":")[0] for item in self.rejected)),
            "rejected": [item._asdict() for item in self.rejected],
            "converted": [{"id": name, "notes": notes} for name, notes in self.adjusted.items()],
        }
        write_file(path, json.dumps(report, indent=1).encode("ascii"), overwrite=True)


def open_photos(
    source: str | os.PathLike,
    resolution: int,
    *,
    img_channels: int = 3,
    class_labels: bool = False,
    min_size: int | None = None,
    kept: Collection[str] | None = None,
    index: str | os.PathLike | None = None,
    workers: int = 2,
) -> PhotoDataset:
    """Every usable photo of a folder, zip or Hub data set, centre-cropped to a square and resized.

    Args:
        source: folder (searched recursively), .zip, or Hub id "owner/name".
        class_labels: the class is the first folder level, or the class label column of a Hub data set.
        min_size: photos whose shorter side has fewer pixels are rejected; default half the resolution.
        kept: names to use, the others are left out.
        index: JSON file that keeps the scan: written when absent; when present the list must be the same.

    Raises:
        FileNotFoundError: no such source. ValueError: no usable photo, or a name in `kept` that is not there.
        RuntimeError: the files are not those of the index.
    """
    reader = _Reader(find_source(source), resolution, img_channels, min_size)
    entries, rejected, classes = _select(reader.source, kept, class_labels)
    resumed = index is not None and Path(index).exists()
    known = _load_index(Path(index), reader, entries) if resumed else [None] * len(entries)
    verdicts, pixels = _scan(reader, entries, known, workers)
    rejected += [Rejected(verdict.name, verdict.reason) for verdict in verdicts if verdict.reason]
    if all(verdict.reason for verdict in verdicts):
        raise ValueError(f"no usable photo in {source}: {_first(rejected)}")
    if index is not None and not resumed:
        _save_index(Path(index), reader, verdicts)
    return PhotoDataset(reader, verdicts, pixels, classes, rejected, workers)


def _first(rejected: list[Rejected]) -> str:
    named = "; ".join(f"{item.id!r} ({item.reason})" for item in rejected[:5])
    return f"{len(rejected)} files rejected, first {named}" if rejected else "there is no file"


def _select(
    source: Source, kept: Collection[str] | None, class_labels: bool
) -> tuple[list[Entry], list[Rejected], list[str] | None]:
    """The entries to examine, those ruled out before, and the class names (of all entries, kept or not)."""
    entries, rejected, classes = source.entries, list(source.rejected), None
    if class_labels:
        labels = {entry.name: source.label(entry.name) for entry in entries}
        rejected += [Rejected(name, "outside any class folder") for name in labels if labels[name] is None]
        entries = [entry for entry in entries if labels[entry.name] is not None]
        classes = sorted({labels[entry.name] for entry in entries})
        if not classes:
            raise ValueError("class_labels needs photos in class folders, or a class label column on the Hub")
    if kept is None:
        return entries, rejected, classes
    kept = set(kept)
    if missing := sorted(kept - {entry.name for entry in entries}):
        raise ValueError(f"{len(missing)} names in kept are not in the data, first {missing[:5]!r}")
    return [entry for entry in entries if entry.name in kept], rejected, classes


def _scan(
    reader: _Reader, entries: list[Entry], known: list[Verdict | None], workers: int
) -> tuple[list[Verdict], torch.Tensor | None]:
    """A verdict for each entry, and uint8 (n, c, r, r) of the usable ones if that fits into MEMORY_LIMIT."""
    shape = (len(entries), reader.img_channels, reader.resolution, reader.resolution)
    pixels = torch.empty(shape, dtype=torch.uint8) if math.prod(shape) <= MEMORY_LIMIT else None
    check = partial(_check, reader, in_memory=pixels is not None)
    verdicts, usable = [], 0
    with ThreadPoolExecutor(workers) as pool:
        for verdict, photo in pool.map(check, entries, known):
            verdicts.append(verdict)
            if photo is not None and pixels is not None:
                pixels[usable] = photo
                usable += 1
    return verdicts, None if pixels is None else pixels[:usable]


def _check(
    reader: _Reader, entry: Entry, known: Verdict | None, in_memory: bool
) -> tuple[Verdict, torch.Tensor | None]:
    """Examine, unless the index vouches for an unchanged file and its pixels are not wanted now."""
    unchanged = known is not None and entry.stamp is not None and entry[1:] == known[1:3]
    if unchanged and (known.reason or not in_memory):
        return known, None
    found, photo = reader.examine(entry)
    if known is not None and (found.crc, found.reason is None) != (known.crc, known.reason is None):
        now = found.reason or "its content has changed"
        raise RuntimeError(f"{entry.name!r} is not what it was when the index was written: {now}. {GO_ON}")
    return found, photo


# ---------------------------------------------------------------- the index of a scan

GO_ON = "A resumed run must see the same photos: put them back, or delete the index to go on with these"


def _settings(reader: _Reader) -> dict[str, int]:
    return {"format": INDEX_FORMAT, "resolution": reader.resolution, "min_size": reader.min_size}


def _save_index(path: Path, reader: _Reader, verdicts: list[Verdict]) -> None:
    """Several processes that start a run at once may each write it: the content is the same."""
    content = json.dumps({**_settings(reader), "files": verdicts}).encode("ascii")
    write_file(path, content, overwrite=True)


def _load_index(path: Path, reader: _Reader, entries: list[Entry]) -> list[Verdict]:
    """The verdicts of an earlier scan, one for each entry; a different list of names is refused, and told."""
    try:
        index = json.loads(path.read_bytes())
        verdicts = [Verdict(*row) for row in index.pop("files")]
    except (ValueError, TypeError, KeyError) as error:
        raise RuntimeError(f"{path} is no index of photos ({error}): delete it to scan again") from error
    if index != _settings(reader):
        asked = _settings(reader)
        raise RuntimeError(f"{path} was written for {index}, asked for {asked}: delete it to scan again")
    before, now = {verdict.name for verdict in verdicts}, {entry.name for entry in entries}
    if before != now:
        gone, new = sorted(before - now), sorted(now - before)
        change = f"{len(new)} added {new[:5]!r}, {len(gone)} removed {gone[:5]!r}"
        raise RuntimeError(f"the photos have changed since {path} was written: {change}. {GO_ON}")
    return verdicts


# ---------------------------------------------------------------- order


@lru_cache(maxsize=2)  # a batch may straddle two epochs
def _permutation(length: int, seed: int, epoch: int) -> torch.Tensor:
    digest = hashlib.sha256(f"{seed}/{epoch}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.randperm(length, generator=generator)


class InfiniteSampler:
    """Endless shuffled epochs, as a pure function of the position: nothing to save, nothing to restore.

    The global batch at `images_seen` is the positions [images_seen, images_seen + batch); each rank takes its
    contiguous share, so the same photos are seen whatever the number of processes.
    """

    def __init__(self, length: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        if length < 1:
            raise ValueError(f"length is {length}: expected at least one photo")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} of {world_size}: expected 0 <= rank < world_size")
        self.length, self.seed, self.rank, self.world_size = length, seed, rank, world_size

    def indices(self, images_seen: int, batch: int) -> list[int]:
        """This rank's indices, batch / world_size of them, of the global batch at `images_seen`."""
        if batch < 1 or batch % self.world_size:
            raise ValueError(f"a batch of {batch} cannot be shared by {self.world_size} processes equally")
        share = batch // self.world_size
        first = images_seen + self.rank * share
        return [self._at(position) for position in range(first, first + share)]

    def _at(self, position: int) -> int:
        epoch, offset = divmod(position, self.length)
        return int(_permutation(self.length, self.seed, epoch)[offset])


class StreamingPhotos:
    """Batches of a source too large to scan or to hold, read in passing, resumed by position.

    A photo that cannot be used is named in `rejected` and the next usable one takes its place: a position
    stays a position, and a resumed run sees the same batches. Folders and zips are shuffled exactly, a Hub
    data set through a buffer; to resume in the middle of one, its rows up to there are read again.
    """

    def __init__(
        self,
        source: str | os.PathLike,
        resolution: int,
        *,
        img_channels: int = 3,
        min_size: int | None = None,
        seed: int = 0,
    ) -> None:
        self.source, self.seed = find_source(source, streaming=True), seed
        self._reader = _Reader(self.source, resolution, img_channels, min_size)
        self.rejected = list(self.source.rejected)

    def batches(self, batch: int, images_seen: int = 0, rank: int = 0, world_size: int = 1) -> Iterator[torch.Tensor]:
        """Endless uint8 (batch / world_size, c, r, r): this rank's share of each batch from `images_seen` on.

        Raises:
            ValueError: PATIENCE photos in a row are unusable, or the batch cannot be shared equally.
        """
        if batch < 1 or batch % world_size:
            raise ValueError(f"a batch of {batch} cannot be shared by {world_size} processes equally")
        share, rows, owed, spoiled = batch // world_size, [], 0, 0
        for position, entry in enumerate(self._entries(images_seen)):
            mine = position % batch // share == rank
            if not mine and not owed:
                continue
            verdict, photo = self._reader.examine(entry)
            owed, spoiled = owed + mine, spoiled + 1
            if photo is None:
                self._reject(Rejected(verdict.name, verdict.reason), spoiled)
                continue
            rows, owed, spoiled = rows + [photo] * owed, 0, 0
            while len(rows) >= share:
                yield torch.stack(rows[:share])
                rows = rows[share:]

    def _entries(self, start: int) -> Iterator[Entry]:
        """The entry at each position from `start` on, without end."""
        if isinstance(self.source, HubStream):
            return self.source.stream(self.seed, start)
        sampler = InfiniteSampler(len(self.source.entries), self.seed)
        return (self.source.entries[sampler.indices(position, 1)[0]] for position in itertools.count(start))

    def _reject(self, item: Rejected, spoiled: int) -> None:
        if item not in self.rejected:
            self.rejected.append(item)
        if spoiled >= PATIENCE:
            raise ValueError(f"{spoiled} unusable photos in a row: {_first(self.rejected)}")
