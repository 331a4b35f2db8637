"""The generator stage, run as users run it: in its own process, from the command line."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file
from stages import command, do, kill_when

from hfgan import HFGan

KILLS = int(os.environ.get("HFGAN_KILLS", "2"))
LAZY = ["--pl-every", "4", "--r1-every", "2", "--style-mixing", "0.5", "--ada-images", "200"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty coloured squares, two classes."""
    folder, source = tmp_path_factory.mktemp("photos"), np.random.RandomState(0)
    for i in range(40):
        pixels = np.full((20, 20, 3), source.randint(0, 255, 3), np.uint8)
        pixels[source.randint(2, 9) : 14, source.randint(2, 9) : 15] = source.randint(0, 255, 3)
        target = folder / ("warm" if i % 2 else "cold") / f"{i}.png"
        target.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(target)
    return folder


def toy(photos: Path, out: Path, *flags: str) -> list[str]:
    """The stage and flags of a run on photos."""
    return ["generator", "--preset", "toy", "--data", str(photos), "--out", str(out), *flags]


def weights(out: Path) -> dict:
    return load_file(sorted(out.glob("checkpoint-*"))[-1] / "state.safetensors")


def assert_same_weights(a: Path, b: Path) -> None:
    left, right = weights(a), weights(b)
    assert left.keys() == right.keys()
    different = [name for name in left if not left[name].equal(right[name])]
    assert not different


def test_run_leaves_a_model_a_log_and_sheets(photos: Path, tmp_path: Path) -> None:
    (photos / "warm" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    try:
        told = do(*toy(photos, tmp_path / "run", "--images", "64", "--sample-every", "32", *LAZY))
    finally:
        (photos / "warm" / "torn.png").unlink()
    assert "40 photos usable" in told
    assert "torn.png" in told
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [entry["images_seen"] for entry in log] == [0, 32, 64]
    assert {"loss_g", "loss_d", "r1"} <= log[1].keys()
    assert len(list((tmp_path / "run" / "samples").glob("*.png"))) == 3
    model = HFGan.from_pretrained(str(tmp_path / "run" / "model"))
    assert model.sample(2, seed=0).images[0].size == (16, 16)
    assert model.discriminator is not None
    state = weights(tmp_path / "run")
    assert not state["average.synthesis.const"].equal(state["generator.synthesis.const"])  # it is an average
    assert model.generator.state_dict()["synthesis.const"].equal(state["average.synthesis.const"])


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_run_ends_with_the_same_weights(photos: Path, tmp_path: Path, processes: int) -> None:
    """SIGKILL at random moments, rerun the same command: equal to an uninterrupted run bit for bit."""
    every, chance = 240, random.Random(processes)
    sampled = ("--images", str(every * (KILLS + 1)), "--sample-every", str(every))
    flags = (*sampled, "--save-every", "16", "--precision", "bfloat16", *LAZY)
    do(*toy(photos, tmp_path / "whole", *flags), processes=processes)
    line = command(*toy(photos, tmp_path / "killed", *flags), processes=processes)
    for _ in range(KILLS):
        kill_when(has_saved(tmp_path / "killed"), line, chance.uniform(0, 0.4))
    do(*toy(photos, tmp_path / "killed", *flags), processes=processes)
    assert_same_weights(tmp_path / "whole", tmp_path / "killed")
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "killed")]
    seen = [[json.loads(line)["images_seen"] for line in log] for log in logs]
    assert seen[0] == seen[1] == list(range(0, every * (KILLS + 1) + 1, every))


def has_saved(out: Path) -> Callable[[], bool]:
    """Says whether a run has saved something new since this was asked for."""
    newest = max(out.glob("checkpoint-*[0-9]"), default=None)
    return lambda: max(out.glob("checkpoint-*[0-9]"), default=None) != newest


def test_one_run_per_folder(photos: Path, tmp_path: Path) -> None:
    endless = command(*toy(photos, tmp_path / "run", "--images", "1000000"))
    child = subprocess.Popen(endless, stdout=subprocess.PIPE, text=True)
    for line in child.stdout:
        if line.strip().startswith("0 images"):
            break
    told = do(*toy(photos, tmp_path / "run", "--images", "1000000"), fails=True)
    child.kill()
    child.wait()
    assert "another process is training" in told


def test_two_processes_stay_equal_and_are_two(photos: Path, tmp_path: Path) -> None:
    """50 steps with R1-only and path-length-only steps; the run itself compares replicas at each checkpoint."""
    told = do(*toy(photos, tmp_path / "run", "--images", "400", "--save-every", "80", *LAZY), processes=2)
    assert "2 processes" in told
    assert "replicas equal at 400 images" in told


def test_sigterm_saves_and_the_run_goes_on(photos: Path, tmp_path: Path) -> None:
    flags = ("--images", "4000", "--save-every", "100000", "--sample-every", "100000")
    child = subprocess.Popen(command(*toy(photos, tmp_path / "run", *flags)), stdout=subprocess.PIPE, text=True)
    for line in child.stdout:
        if line.strip().startswith("0 images"):
            break
    time.sleep(1)
    child.send_signal(signal.SIGTERM)
    assert "the same command goes on" in child.stdout.read()
    assert child.wait(60) == 0
    (checkpoint,) = (tmp_path / "run").glob("checkpoint-*")
    assert 0 < json.loads((checkpoint / "state.json").read_text())["images_seen"] < 4000


def test_settings_of_a_run_cannot_change_under_it(photos: Path, tmp_path: Path) -> None:
    do(*toy(photos, tmp_path / "run", "--images", "8"))
    do(*toy(photos, tmp_path / "other", "--images", "8", "--init", "nobody-has-this-model"), fails=True)
    do(*toy(photos, tmp_path / "other", "--images", "8"))  # nothing was trained, so it may be put right
    told = do(*toy(photos, tmp_path / "run", "--images", "16", "--lr", "0.1"), fails=True)
    assert "--lr was 0.0025, now 0.1" in told
    assert "Traceback" not in told
    shutil.rmtree(tmp_path / "run" / "model")  # as if killed between the last checkpoint and its model
    do(*toy(photos, tmp_path / "run", "--images", "8"))
    assert HFGan.from_pretrained(tmp_path / "run" / "model").generator is not None


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--batch", "6", "--microbatch", "4"], "does not divide"),
        (["--lr", "1e30", "--images", "80"], "diverged"),
        (["--out", "/proc/none"], "cannot write to the run folder"),
        (["--mirror", "False"], "unrecognized arguments"),
        (["--init", "nobody-has-this-model"], "nobody-has-this-model"),
    ],
)
def test_errors_are_one_sentence(photos: Path, tmp_path: Path, flags: list[str], sentence: str) -> None:
    told = do(*toy(photos, tmp_path / "run", *flags), fails=True)
    assert sentence in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("flags", "sentence"), [(["--data", "nosuch"], "nosuch"), (["--num", "1"], "--num is 1: give 2 or more")]
)
def test_evaluate_errors_are_one_sentence(photos: Path, tmp_path: Path, flags: list[str], sentence: str) -> None:
    out = str(tmp_path / "m.json")
    told = do("evaluate", "--model", "hfaces-64", "--data", str(photos), *flags, "--out", out, fails=True)
    assert sentence in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    "stage", ["generator", "reconstructor", "encoder", "filter", "modes", "distill", "evaluate", "publish"]
)
def test_every_stage_explains_its_flags(stage: str) -> None:
    assert "--out OUT" in do(stage, "--help")


def test_dry_run_prints_settings_and_writes_nothing(photos: Path, tmp_path: Path) -> None:
    told = do(*toy(photos, tmp_path / "run", "--dry-run", "--preset", "gpu64"))
    settings = json.loads(told[told.index("{") :])
    assert settings["channel_base"] == 8192
    assert settings["r1_gamma"] > 0
    assert settings["parameters_generator"] > 5e6
    assert not (tmp_path / "run").exists()


def test_options_train(photos: Path, tmp_path: Path) -> None:
    """Relativistic loss with R1 and R2, DiffAugment, micro-batches, classes, mirrored photos: all at once."""
    flags = [
        "--loss",
        "rpgan_r1r2",
        "--augment",
        "diff",
        "--microbatch",
        "4",
        "--labels",
        "--mirror",
        "--images",
        "48",
    ]
    do(*toy(photos, tmp_path / "run", *flags, *LAZY))
    model = HFGan.from_pretrained(str(tmp_path / "run" / "model"))
    assert model.generator.config.c_dim == 2
    assert model.sample(1, seed=0, label=1).images


def test_grow_and_init(photos: Path, tmp_path: Path) -> None:
    """A grown model starts as the upsampled small one; a warm start goes on from published weights."""
    do(*toy(photos, tmp_path / "small", "--images", "32"))
    small = str(tmp_path / "small" / "model")
    do(*toy(photos, tmp_path / "large", "--images", "8", "--resolution", "32", "--grow-from", small, "--lr", "1e-12"))
    large = HFGan.from_pretrained(str(tmp_path / "large" / "model"), dtype="float32")
    before = HFGan.from_pretrained(small, dtype="float32").sample(1, seed=3, noise_mode="none").images[0]
    after = large.sample(1, seed=3, noise_mode="none").images[0].resize((16, 16), Image.Resampling.BOX)
    difference = np.abs(np.asarray(before, float) - np.asarray(after, float)).mean()
    assert difference < 12, "the grown model does not look like the one it came from"
    do(*toy(photos, tmp_path / "warm", "--images", "8", "--init", small, "--lr", "1e-12"))
    warm, cold = weights(tmp_path / "warm"), HFGan.from_pretrained(small).generator.state_dict()
    assert warm["average.synthesis.const"].allclose(cold["synthesis.const"], atol=1e-6)
