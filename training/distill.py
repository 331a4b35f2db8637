"""Stage `distill`: raw photos in, a cleaner and more diverse model out (Self-Distilled StyleGAN, arXiv 2202.12211).

Runs the stages one after the other, each in a folder of `out/`: generator on all photos, reconstructor, filter, the
generator again on the kept photos, modes; then writes report.md. Every stage resumes, so the same command goes on
where it was cut.
"""

from __future__ import annotations

import importlib
import json
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path

import run
from distillreport import write_report
from run import flag

from hfgan.storage import write_json

TRAIN = Path(__file__).with_name("train.py")


@dataclass(frozen=True)
class Config:
    """Train on raw photos, filter them by the model's own judgement, train again on what is kept, find the modes."""

    data: str = field(metadata={"help": "the raw photos: folder, .zip or Hub data set id"})
    out: str = field(metadata={"help": "folder to write; the same command resumes"})
    images: int = flag(1_000_000, "training images of the first generator")
    kept_images: int = flag(1_000_000, "training images of the second generator, on the kept photos")
    joint: bool = flag(False, "train the reconstructor along with the first generator instead of after it")
    scratch: bool = flag(False, "start the second generator from nothing instead of from the first")
    generator_flags: str = flag("", 'further flags of both generator stages, as in --generator-flags="--mirror"')
    reconstructor_flags: str = flag("", "further flags of the reconstructor stage")
    filter_flags: str = flag("", "further flags of the filter stage")
    modes_flags: str = flag("", "further flags of the modes stage")
    test: str | None = flag(None, "held-out photos: both generators are measured against them")
    evaluate_flags: str = flag("", "further flags of that measurement")
    processes: int = flag(1, "processes of the stages that can share their work")


@dataclass(frozen=True)
class Stage:
    """One command: the stage's name, its folder below `out/`, its flags."""

    name: str
    folder: str
    flags: list[str]
    shared: bool = True  # whether several processes share its work
    trained: bool = False  # whether it may stop before its end without an error


def main(config: Config) -> None:
    """Run every stage that has not ended yet, then write the report."""
    stages, signals = plan(config), Signals()
    for stage in stages:
        check_flags(stage, config.processes)
    # the stages remember their own settings: flags of those to come may be put right
    folder = run.RunFolder(config.out, config, {f.name for f in fields(config)}, main_process=True)
    done_path = folder.path / "distill.json"
    done = json.loads(done_path.read_text())["done"] if done_path.exists() else {}
    for stage in stages:
        told = [os.path.relpath(t, config.out) if Path(t).is_relative_to(config.out) else t for t in stage.flags]
        if stage.folder not in done:
            run_stage(config, stage, signals)
            done[stage.folder] = told
            write_json(done_path, {"done": done})
        elif done[stage.folder] != told:
            was, now = shlex.join(done[stage.folder]), shlex.join(told)
            raise run.UserError(
                f"{folder.path / stage.folder} is done with other flags (they were {was}, now {now}): repeat them, or "
                "give a new --out"
            )
    write_report(folder.path)
    print(f"distilled: {folder.path / '5-modes' / 'model'}, and what was done: {folder.path / 'report.md'}")


def plan(config: Config) -> list[Stage]:
    """The stages in their order; of two equal flags the last counts, which is ours."""
    out, data = Path(config.out), ["--data", config.data]
    raw, kept, manifest = out / "1-raw", out / "4-kept", out / "3-filter" / "manifest.jsonl"
    common = [*shlex.split(config.generator_flags), *data]
    first = [*common, "--images", str(config.images)]
    second = [*common, "--images", str(config.kept_images), "--kept", str(manifest)]
    second += [] if config.scratch else ["--init", str(raw / "model")]
    encoded = raw if config.joint else out / "2-reconstructor"
    joint = ["--reconstructor"] if config.joint else []
    stages = [Stage("generator", raw.name, [*first, *joint], trained=True)]
    if not config.joint:
        flags = [*shlex.split(config.reconstructor_flags), *data, "--model", str(raw / "model")]
        stages.append(Stage("reconstructor", encoded.name, flags, trained=True))
    flags = [*shlex.split(config.filter_flags), *data, "--model", str(encoded / "model")]
    stages.append(Stage("filter", manifest.parent.name, flags))
    stages.append(Stage("generator", kept.name, second, trained=True))
    flags = [*shlex.split(config.modes_flags), "--model", str(kept / "model")]
    stages.append(Stage("modes", "5-modes", flags, shared=False))
    if config.test:
        flags = [*shlex.split(config.evaluate_flags), "--data", config.test]
        flags += ["--model", str(raw / "model"), str(kept / "model")]
        stages.append(Stage("evaluate", "metrics.json", flags, shared=False))
    return stages


def check_flags(stage: Stage, processes: int) -> None:
    """Parse a stage's flags before any stage runs: a typing error must not show after hours."""
    module = importlib.import_module(stage.name)
    prog, presets = f"distill, stage {stage.name}", getattr(module, "PRESETS", {})
    config = run.parse_flags(module.Config, [*stage.flags, "--out", stage.folder], prog=prog, presets=presets)
    if stage.name == "generator":
        module.check(config, processes)
    elif stage.name == "reconstructor":
        run.check_counts(config, processes)
    else:
        module.check(config)


class Signals:
    """A signal to stop is passed on to the stage that runs, or to the next one."""

    def __init__(self) -> None:
        self.child: subprocess.Popen | None = None
        self.stopping = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.stop)

    def stop(self, *_: object) -> None:
        self.stopping = True
        if self.child:
            self.child.terminate()


def run_stage(config: Config, stage: Stage, signals: Signals) -> None:
    """Run one stage as its own command, to its end."""
    processes = config.processes if stage.shared else 1
    launch = ["-m", "accelerate.commands.launch", "--num_processes", str(processes)] if processes > 1 else []
    out = Path(config.out) / stage.folder
    print(f"== {stage.name}: {out}", flush=True)
    signals.child = subprocess.Popen(
        [sys.executable, *launch, str(TRAIN), stage.name, *stage.flags, "--out", str(out)]
    )
    if signals.stopping:  # since before there was a stage to pass it on to
        signals.child.terminate()
    status = signals.child.wait()
    signals.child = None
    if signals.stopping or (status == 0 and stage.trained and not run.is_finished(out)):
        raise run.UserError(f"stopped in stage {stage.name}; the same command goes on from there")
    if status:
        raise run.UserError(f"stage {stage.name} ended with status {status}, see above; the same command tries again")
