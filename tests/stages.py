"""Stages of training, run as users run them: from the command line, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import psutil

TRAIN = Path(__file__).parents[1] / "training" / "train.py"
PATIENCE = 300  # seconds, for a busy machine
WARM = multiprocessing.get_context("forkserver")  # has imported once what takes most of a stage's start
WARM.set_forkserver_preload(["accelerate", "hfgan.pipeline"])


def command(stage: str, *flags: str, processes: int = 1) -> list[str]:
    """The command line of a stage."""
    start = [sys.executable]
    if processes > 1:  # standalone: the launcher listens before it says where, as any port told to it may be in use
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    return [*start, str(TRAIN), stage, *flags]


def do(stage: str, *flags: str, processes: int = 1, fails: bool = False) -> str:
    """Run a stage to its end; returns all that it says."""
    with tempfile.NamedTemporaryFile("w+") as said:
        if processes == 1:
            child = WARM.Process(target=_main, args=([stage, *flags], said.name))
            child.start()
            child.join(PATIENCE)
            child.kill()
            assert child.exitcode is not None, f"no end after {PATIENCE} s:\n{_all_of(said)}"
            status = child.exitcode
        else:
            line = command(stage, *flags, processes=processes)
            status = subprocess.run(line, stdout=said, stderr=subprocess.STDOUT, timeout=PATIENCE).returncode
        told = _all_of(said)
    assert (status != 0) == fails, told
    return told


def kill_when(reached: Callable[[], bool], line: list[str], moment: float = 0) -> None:
    """Start a command, wait until something is reached and a moment longer, and kill it and its children."""
    with tempfile.TemporaryFile("w+") as said:
        child = psutil.Popen(line, stdout=said, stderr=subprocess.STDOUT)
        while child.poll() is None and not reached():
            time.sleep(0.01)
        time.sleep(moment)
        assert child.poll() is None, f"it ended with {child.poll()} before it could be killed:\n{_all_of(said)}"
        for process in [*child.children(recursive=True), child]:
            process.kill()
        child.wait()


def _main(arguments: list[str], said: str) -> None:
    """What `python training/train.py` does with its arguments, with stdout and stderr in a file."""
    with open(said, "a") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    sys.path.insert(0, str(TRAIN.parent))
    import train

    sys.exit(train.main(arguments))


def _all_of(file: IO[str]) -> str:
    file.seek(0)
    return file.read()
