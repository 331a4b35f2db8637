"""The photos of a generator run: opened once or streamed, as batches in [-1, 1] that depend on the position alone."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator

import run
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional as F

from hfgan.data import InfiniteSampler, StreamingPhotos, open_photos
from hfgan.images import to_image, write_file


class Photos:
    """This process's share of the training photos.

    Args:
        folder: The run's; it keeps the list of photos, which a resumed run must find again.
        source: Folder, .zip or Hub data set id.
        img_channels: 1 grey, 3 RGB, 4 RGBA.
        batch: Images per iteration, all processes together.
        class_labels: Whether the first folder level is the class.
        streaming: Read the photos in passing instead of holding them.
        mirror: Show every second photo mirrored.
        kept: Names to use; None for all.
    """

    def __init__(
        self, accelerator: Accelerator, folder: run.RunFolder, source: str, resolution: int, *, img_channels: int,
        batch: int, seed: int, class_labels: bool = False, streaming: bool = False, mirror: bool = False,
        kept: Collection[str] | None = None,
    ) -> None:  # fmt: skip
        self.source, self.batch, self.seed, self.mirrored = source, batch, seed, mirror
        self.device, self.folder = accelerator.device, folder
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        how = {"img_channels": img_channels}
        if streaming:
            self.opened, self.stream = None, StreamingPhotos(source, resolution, seed=seed, **how)
            return
        with accelerator.main_process_first():
            index = folder.path / "photos.json"
            self.opened = open_photos(source, resolution, class_labels=class_labels, index=index, kept=kept, **how)

    @property
    def num_classes(self) -> int:
        """Classes that the data has; 0 without labels."""
        return len(self.opened.classes or ()) if self.opened else 0

    def write_report(self) -> None:
        """List in photos-report.json what is not used, and why; a streamed set's list grows as it is read."""
        path = self.folder.path / "photos-report.json"
        if self.opened:
            self.opened.write_report(path)
        else:
            rejected = [item._asdict() for item in self.stream.rejected]
            write_file(path, json.dumps({"rejected": rejected}, indent=1).encode(), overwrite=True)

    def summary(self) -> str:
        """What is used and what is rejected, in a few lines."""
        return self.opened.summary() if self.opened else f"streaming {self.source}"

    def some(self, count: int) -> Tensor:
        """At most `count` photos in random order, the same ones always: uint8 (n, c, r, r)."""
        if self.opened is None:
            return next(self.stream.batches(count))
        order = torch.randperm(len(self.opened), generator=torch.Generator().manual_seed(0))[:count]
        return self.opened.batch(order)

    def batches(self, images_seen: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Images (n, c, r, r) in [-1, 1] and one-hot labels (n, classes) or None, from `images_seen` on, endlessly."""
        batch = self.batch
        streamed = None if self.opened else self.stream.batches(batch, images_seen, self.rank, self.world)
        sampler = InfiniteSampler(len(self.opened), self.seed, self.rank, self.world) if self.opened else None
        while True:
            if streamed:
                pixels, labels = next(streamed), None
            else:
                indices = sampler.indices(images_seen, batch)
                pixels, labels = self.opened.batch(indices), self.opened.labels
                labels = None if labels is None else F.one_hot(labels[indices], self.num_classes).float()
            image = self.mirror(to_image(pixels.to(self.device)), images_seen)
            yield image, None if labels is None else labels.to(self.device)
            images_seen += batch

    def mirror(self, image: Tensor, images_seen: int) -> Tensor:
        """Every second photo mirrored, with --mirror."""
        if not self.mirrored:
            return image
        source = run.random_source(self.seed, run.PURPOSES["mirror"], images_seen, self.rank)
        mirrored = torch.rand(len(image), 1, 1, 1, generator=source).to(image.device) < 0.5
        return torch.where(mirrored, image.flip(3), image)


class NoPhotos:
    """In place of `Photos` where there are none: batches of nothing."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def batches(self, images_seen: int) -> Iterator[tuple[Tensor, None]]:
        """Empty images (batch, 0), endlessly."""
        while True:
            yield torch.empty(self.batch, 0), None

    def write_report(self) -> None:
        """There is nothing to report."""
