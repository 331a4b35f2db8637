"""Stage `distill`: raw photos in, a cleaner and more diverse model out (Self-Distilled StyleGAN, arXiv 2202.12211).

Runs the stages one after the other, each in a folder of `out/`: generator on all photos, encoder, filter, generator
on the kept photos, modes; then writes report.md. Every stage resumes, so the same command goes on where it was cut.
"""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, field
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
    joint: bool = flag(False, "train the encoder along with the first generator instead of after it")
    scratch: bool = flag(False, "start the second generator from nothing instead of from the first")
    generator_flags: str = flag("", "further flags of both generator stages, in quotes")
    encoder_flags: str = flag("", "further flags of the encoder stage")
    filter_flags: str = flag("", 'further flags of the filter stage, such as "--policy knee"')
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


def main(config: Config) -> None:
    """Run every stage that has not ended yet, then write the report."""
    folder = run.RunFolder(config.out, config, {"processes"}, main_process=True)
    done_path = folder.path / "distill.json"
    done = json.loads(done_path.read_text())["done"] if done_path.exists() else []
    for stage in plan(config):
        if stage.folder not in done:
            run_stage(config, stage)
            done.append(stage.folder)
            write_json(done_path, {"done": done})
    write_report(folder.path)
    print(f"distilled: {folder.path / '5-modes' / 'model'}, and what was done: {folder.path / 'report.md'}")


def plan(config: Config) -> list[Stage]:
    """The stages in their order."""
    out = Path(config.out)
    raw, kept, manifest = out / "1-raw", out / "4-kept", out / "3-filter" / "manifest.jsonl"
    common = [*shlex.split(config.generator_flags), "--data", config.data]  # the last of two equal flags counts
    first = [*common, "--images", str(config.images)]
    second = [*common, "--images", str(config.kept_images), "--kept", str(manifest)]
    second += [] if config.scratch else ["--init", str(raw / "model")]
    encoded = raw if config.joint else out / "2-encoder"
    stages = [Stage("generator", raw.name, [*first, *(["--encoder"] if config.joint else [])])]
    if not config.joint:
        beside = ["--model", str(raw / "model"), "--data", config.data]
        stages.append(Stage("encoder", encoded.name, [*beside, *shlex.split(config.encoder_flags)]))
    stages += [
        Stage("filter", manifest.parent.name,
              ["--model", str(encoded / "model"), "--data", config.data, *shlex.split(config.filter_flags)]),
        Stage("generator", kept.name, second),
        Stage("modes", "5-modes", ["--model", str(kept / "model"), *shlex.split(config.modes_flags)], shared=False),
    ]  # fmt: skip
    if config.test:
        models = ["--model", str(raw / "model"), str(kept / "model"), "--data", config.test]
        stages.append(Stage("evaluate", "metrics.json", [*models, *shlex.split(config.evaluate_flags)], shared=False))
    return stages


def run_stage(config: Config, stage: Stage) -> None:
    """Run one stage as its own command; a signal to stop is passed on and waited for."""
    processes = config.processes if stage.shared else 1
    launch = ["-m", "accelerate.commands.launch", "--num_processes", str(processes)] if processes > 1 else []
    out = Path(config.out) / stage.folder
    print(f"== {stage.name}: {out}", flush=True)
    child = subprocess.Popen([sys.executable, *launch, str(TRAIN), stage.name, "--out", str(out), *stage.flags])
    stopping = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: (stopping.append(True), child.terminate()))
    status = child.wait()
    if stopping:
        raise run.UserError(f"stopped in stage {stage.name}; the same command goes on from there")
    if status:
        raise run.UserError(f"stage {stage.name} ended with status {status}, see above; the same command tries again")
