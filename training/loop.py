"""The loop that training stages share: batches of photos, the clock, reports, checkpoints, when to stop."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import run
import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm


@dataclass
class Progress:
    """Numbers that a resumed run needs beside the tensors; a stage may add its own."""

    images_seen: int = 0
    seconds: float = 0.0


class Settings(Protocol):
    """The flags that the loop reads."""

    images: int
    minutes: float | None
    batch: int
    save_every: int
    sample_every: int
    tracker: str | None


class Seen(Protocol):
    """The photos of a stage."""

    def batches(self, images_seen: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Images (n, c, r, r) in [-1, 1] and one-hot labels (n, classes) or None, from `images_seen` on, endlessly."""

    def write_report(self) -> None:
        """Tell which photos are not used, and why."""


class Trained(Protocol):
    """The networks of a stage."""

    def tensors(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, by name."""

    def publish(self, path: Path) -> None:
        """Write what was trained as a model folder."""


Numbers = dict[str, float]


def train(
    config: Settings, accelerator: Accelerator, folder: run.RunFolder, photos: Seen, nets: Trained,
    progress: Progress, step: Callable[[Tensor, Tensor | None], Numbers],
    report: Callable[[Progress, Numbers], dict[str, Any]] | None,
) -> None:  # fmt: skip
    """One batch of images per iteration until `config.images`, the time limit or a signal.

    Args:
        nets: What is saved and published.
        step: One iteration on images (n, c, r, r) in [-1, 1] and one-hot labels (n, classes) or None.
        report: Looks at the networks and logs what it sees; None on all processes but the main one.
    """
    start_tracker(config, accelerator)
    watch = run.Stopwatch(config.minutes, progress.seconds)
    bar = tqdm(
        total=config.images, initial=progress.images_seen, unit="img", smoothing=0.02,
        disable=not (accelerator.is_main_process and sys.stderr.isatty()),
    )  # fmt: skip
    if report and progress.images_seen == 0:
        report(progress, {})
    elif accelerator.is_main_process:  # a kill may have come between the last checkpoint and its model
        nets.publish(folder.path / "model")
    batches = photos.batches(progress.images_seen)
    stopped, numbers = False, {}  # the latest of each, since penalties come at times
    while progress.images_seen < config.images and not stopped:
        numbers |= step(*next(batches))
        before, progress.images_seen = progress.images_seen, progress.images_seen + config.batch
        bar.update(config.batch)
        check_finite(numbers, folder, progress)
        stopped, done = should_stop(accelerator, watch), progress.images_seen >= config.images
        progress.seconds = watch.seconds()
        if report and (done or crosses(config.sample_every, before, progress.images_seen)):
            accelerator.log(report(progress, numbers), progress.images_seen)
        if done or stopped or crosses(config.save_every, before, progress.images_seen):
            save(accelerator, folder, photos, nets, progress)
    bar.close()
    if stopped and accelerator.is_main_process:
        how = "the same command" if watch.signalled else "a higher --minutes"
        print(f"stopped at {progress.images_seen:,} images; {how} goes on from there")
    accelerator.end_training()


def start_tracker(config: Settings, accelerator: Accelerator) -> None:
    """Start the experiment tracker, if any; Accelerate itself only warns where it is not installed."""
    if config.tracker:
        accelerator.init_trackers("hfgan", config=dataclasses.asdict(config))
        if accelerator.is_main_process and not accelerator.trackers:
            raise run.UserError(f"--tracker {config.tracker} is not installed: install it, or leave --tracker out")


def save(accelerator: Accelerator, folder: run.RunFolder, photos: Seen, nets: Trained, progress: Progress) -> None:
    """Compare the processes, then write the list of photos, a checkpoint and the model."""
    tensors = nets.tensors()
    check_replicas(accelerator, tensors)
    if accelerator.is_main_process:
        photos.write_report()
        if accelerator.num_processes > 1:
            tqdm.write(f"{accelerator.num_processes} processes, replicas equal at {progress.images_seen:,} images")
        folder.save_checkpoint(progress.images_seen, tensors, dataclasses.asdict(progress))
        nets.publish(folder.path / "model")
    accelerator.wait_for_everyone()


def check_replicas(accelerator: Accelerator, tensors: dict[str, Tensor]) -> None:
    """Raise RuntimeError unless every process holds the same tensors, bit for bit."""
    if accelerator.num_processes == 1:
        return
    sums = torch.stack([value.double().sum() for value in tensors.values()])
    everyone = accelerator.gather(sums[None])  # (processes, tensors)
    wrong = [name for name, same in zip(tensors, (everyone == everyone[0]).all(dim=0), strict=True) if not same]
    if wrong:
        raise RuntimeError(f"the processes have drifted apart in {', '.join(wrong[:3])} ...: please report this")


def crosses(every: int, before: int, after: int) -> bool:
    """True when a multiple of `every` lies in (before, after]."""
    return before // every != after // every


def should_stop(accelerator: Accelerator, watch: run.Stopwatch) -> bool:
    """The same answer on every process."""
    if accelerator.num_processes == 1:
        return watch.should_stop()
    votes = torch.tensor(float(watch.should_stop()), device=accelerator.device)
    return bool(accelerator.reduce(votes, "sum") > 0)


def check_finite(numbers: Numbers, folder: run.RunFolder, progress: Progress) -> None:
    """Stop at the first loss that is no number; the last checkpoint is from before."""
    bad = [name for name, value in numbers.items() if not torch.tensor(value).isfinite()]
    if bad:
        raise run.UserError(
            f"diverged: {', '.join(bad)} is not finite at {progress.images_seen:,} images; the last checkpoint in "
            f"{folder.path} is from before: resume in a new --out with a lower --lr or a higher --r1-gamma"
        )
