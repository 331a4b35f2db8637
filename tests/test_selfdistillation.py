"""The stages of self-distillation, run as users run them: encoder, filter, training on the kept photos, all in one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from stages import command, do, kill_when
from toy import save_toy

from hfgan import HFGan
from hfgan.filtering import kept_ids, read_manifest, write_manifest


def write_blobs(folder: Path, count: int) -> None:
    """Soft coloured blobs of 16 x 16 pixels as PNG files."""
    folder.mkdir(exist_ok=True)
    source, (y, x) = np.random.RandomState(0), np.mgrid[0:16, 0:16] / 15
    for i in range(count):
        blob = np.exp(-((x - 0.5) ** 2 + (y - source.uniform(0.4, 0.6)) ** 2) * 20)[..., None]
        pixels = blob * source.uniform(120, 250, 3) + (1 - blob) * source.uniform(0, 60, 3)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"blob{i:03d}.png")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hundred soft blobs, and five sheets of noise that no generator can learn."""
    folder = tmp_path_factory.mktemp("photos")
    write_blobs(folder, 200)
    source = np.random.RandomState(1)
    for i in range(5):
        Image.fromarray(source.randint(0, 255, (16, 16, 3), dtype=np.uint8)).save(folder / f"noise{i}.png")
    return folder


@pytest.fixture(scope="module")
def encoded(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy generator and encoder trained together: a model folder."""
    out = tmp_path_factory.mktemp("run")
    do("generator", "--preset", "toy", "--data", str(photos), "--out", str(out), "--images", "2000", "--reconstructor",
       "--sample-every", "2000", "--save-every", "2000", "--lr", "0.005")  # fmt: skip
    return out / "model"


def test_joint_training_leaves_an_encoder_that_reconstructs(encoded: Path) -> None:
    log = [json.loads(line) for line in (encoded.parent / "log.jsonl").read_text().splitlines()]
    assert log[-1]["rec_distance"] < 0.8 * log[0]["rec_distance"]
    assert log[-1]["rec_spread"] > 0
    assert HFGan.from_pretrained(encoded).reconstructor is not None


def test_encoder_stage_improves_on_a_frozen_generator_and_resumes(encoded: Path, photos: Path, tmp_path: Path) -> None:
    flags = ["--model", str(encoded), "--data", str(photos), "--images", "320", "--sample-every", "160"]
    do("reconstructor", *flags, "--out", str(tmp_path / "whole"))
    log = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["rec_distance"] < log[0]["rec_distance"]
    before, after = (HFGan.from_pretrained(p, dtype="float32") for p in (encoded, tmp_path / "whole" / "model"))
    assert before.generator.fingerprint() == after.generator.fingerprint()
    assert before.reconstructor.fingerprint() != after.reconstructor.fingerprint()
    do("reconstructor", *flags, "--out", str(tmp_path / "cut"), "--minutes", "0.00001")
    do("reconstructor", *flags, "--out", str(tmp_path / "cut"))
    states = [load_file(max((tmp_path / n).glob("checkpoint-*")) / "state.safetensors") for n in ("whole", "cut")]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_filter_finds_what_cannot_be_drawn_again(encoded: Path, photos: Path, tmp_path: Path) -> None:
    flags = ["--model", str(encoded), "--data", str(photos), "--num-modes", "2"]
    told = do("filter", *flags, "--out", str(tmp_path / "one"), "--keep", "0.9")
    assert "kept 184 of 205 photos" in told
    lines = list(read_manifest(tmp_path / "one" / "manifest.jsonl"))
    assert [line["id"] for line in lines] == sorted(path.name for path in photos.iterdir())
    noise = [line["score"] for line in lines if line["id"].startswith("noise")]
    assert min(noise) > np.median([line["score"] for line in lines if line["id"].startswith("blob")])
    assert len(lines[0]["w"]) == 16
    assert {line["mode"] for line in lines} == {0, 1}
    summary = json.loads((tmp_path / "one" / "filter.json").read_text())
    assert sum(mode["share_after"] for mode in summary["modes"]) == pytest.approx(1)
    for name in ("scores", "worst-kept", "best-dropped"):
        assert (tmp_path / "one" / f"{name}.png").exists()

    do("filter", *flags, "--out", str(tmp_path / "two"), "--keep", "0.9", processes=2)
    same = [(tmp_path / name / "manifest.jsonl").read_bytes() for name in ("one", "two")]
    assert same[0] == same[1]


def test_filter_goes_on_after_a_kill_and_takes_another_policy(encoded: Path, photos: Path, tmp_path: Path) -> None:
    flags = ["--model", str(encoded), "--data", str(photos), "--out", str(tmp_path), "--num-modes", "2"]
    do("filter", *flags)
    manifest, scores = (tmp_path / "manifest.jsonl").read_bytes(), tmp_path / "scores-0.jsonl"
    lines = scores.read_text().splitlines(keepends=True)
    scores.write_text("".join(lines[:70]) + lines[70][:20])  # what a kill in the second chunk leaves
    (tmp_path / "manifest.jsonl").unlink()
    do("filter", *flags)
    assert (tmp_path / "manifest.jsonl").read_bytes() == manifest
    do("filter", *flags, "--policy", "count", "--count", "7")
    assert len(kept_ids(tmp_path / "manifest.jsonl")) == 7
    for policy in (
        ["--policy", "knee"],
        ["--policy", "per-mode-quantile"],
        ["--policy", "max-score", "--max-score", "9"],
    ):
        do("filter", *flags, *policy)
    told = do("filter", *flags, "--method", "knn", fails=True)
    assert "holds a run with other settings" in told


def test_scores_of_two_models_are_not_mixed(encoded: Path, photos: Path, tmp_path: Path) -> None:
    model = shutil.copytree(encoded, tmp_path / "model")
    flags = ["--model", str(model), "--data", str(photos), "--out", str(tmp_path / "out"), "--num-modes", "2"]
    do("filter", *flags)
    gan = HFGan.from_pretrained(model, dtype="float32")
    gan.reconstructor.out.bias.data += 1
    gan.save_pretrained(model)
    told = do("filter", *flags, fails=True)
    assert "has changed since" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("method", ["knn", "instance-selection", "discriminator", "random"])
def test_other_methods(encoded: Path, photos: Path, tmp_path: Path, method: str) -> None:
    do("filter", "--model", str(encoded), "--data", str(photos), "--out", str(tmp_path), "--method", method,
       "--policy", "count", "--count", "200")  # fmt: skip
    dropped = {line["id"] for line in read_manifest(tmp_path / "manifest.jsonl") if not line["kept"]}
    assert len(dropped) == 5
    found = sum(name.startswith("noise") for name in dropped)
    assert found == 5 if method in ("knn", "instance-selection") else found < 5


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--policy", "count"], "needs --count"),
        (["--keep", "0"], "--keep is 0.0"),
        (["--policy", "max-score", "--max-score", "-1"], "the lowest is"),
        (["--policy", "count", "--count", "1000"], "there are 205 photos"),
        (["--num-modes", "0"], "--num-modes is 0"),
    ],
)
def test_filter_errors_are_one_sentence(
    encoded: Path, photos: Path, tmp_path: Path, flags: list[str], sentence: str
) -> None:
    told = do("filter", "--model", str(encoded), "--data", str(photos), "--out", str(tmp_path), *flags, fails=True)
    assert sentence in told
    assert "Traceback" not in told


def test_a_model_without_encoder_says_how_to_get_one(photos: Path, tmp_path: Path) -> None:
    model = save_toy(tmp_path / "model")
    told = do("filter", "--model", str(model), "--data", str(photos), "--out", str(tmp_path / "out"), fails=True)
    assert "train.py reconstructor" in told
    assert "Traceback" not in told


def test_kept_photos_are_those_trained_on(photos: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in photos.iterdir())
    lines = [{"id": n, "score": 0.0, "w": None, "mode": None, "kept": n < "blob1", "source": "x"} for n in names]
    write_manifest(tmp_path / "manifest.jsonl", lines)
    flags = ["--preset", "toy", "--data", str(photos), "--images", "16", "--out", str(tmp_path / "run")]
    assert "100 photos usable" in do("generator", *flags, "--kept", str(tmp_path / "manifest.jsonl"))
    write_manifest(tmp_path / "other.jsonl", [lines[0] | {"id": "gone.png"}])
    told = do("generator", *flags[:-1], str(tmp_path / "x"), "--kept", str(tmp_path / "other.jsonl"), fails=True)
    assert "gone.png" in told
    assert "Traceback" not in told


DISTILL = ["--images", "320", "--kept-images", "160", "--generator-flags", "--preset toy --sample-every 160",
           "--reconstructor-flags", "--images 160", "--filter-flags", "--keep 0.9 --num-modes 2",
           "--modes-flags", "--samples 2000 --num-modes 4"]  # fmt: skip


def test_distill_killed_twice_ends_the_same(photos: Path, tmp_path: Path) -> None:
    """Raw folder to model, manifest and report; SIGKILL in two of its stages changes none of them."""
    test = ["--test", str(photos), "--evaluate-flags", "--num 60 --ppl-paths 0"]
    do("distill", "--data", str(photos), "--out", str(tmp_path / "whole"), *DISTILL, *test)
    cut = tmp_path / "cut"
    line = command("distill", "--data", str(photos), "--out", str(cut), *DISTILL, *test)
    for awaited in ("1-raw/samples/000000160.png", "3-filter/scores-0.jsonl"):
        kill_when((cut / awaited).exists, line)
    cut = cut.rename(tmp_path / "moved")
    do("distill", "--data", str(photos), "--out", str(cut), *DISTILL, *test)
    for name in ("3-filter/manifest.jsonl", "5-modes/modes.png"):
        assert (tmp_path / "whole" / name).read_bytes() == (cut / name).read_bytes()
    models = [HFGan.from_pretrained(folder / "5-modes" / "model") for folder in (tmp_path / "whole", cut)]
    assert models[0].generator.fingerprint() == models[1].generator.fingerprint()
    assert models[0].modes.fingerprint() == models[1].modes.fingerprint()
    report = (cut / "report.md").read_text()
    assert "184 of 205 photos kept" in report
    for picture in re.findall(r"\]\((.*?)\)", report):
        assert (cut / picture).is_file(), picture
    other = [*DISTILL, *test, "--filter-flags", "--keep 0.5"]
    told = do("distill", "--data", str(photos), "--out", str(cut), *other, fails=True)
    assert "3-filter is done with other flags" in told


def test_distill_reads_the_flags_of_all_stages_before_the_first(photos: Path, tmp_path: Path) -> None:
    flags = ["distill", "--data", str(photos), "--out", str(tmp_path / "out")]
    assert "needs --count" in do(*flags, "--filter-flags", "--policy count", fails=True)
    assert "unrecognized arguments: --mods" in do(*flags, "--modes-flags", "--mods 3", fails=True)
    assert not (tmp_path / "out" / "1-raw").exists()


def test_a_stage_that_was_stopped_is_not_done(photos: Path, tmp_path: Path) -> None:
    line = command("distill", "--data", str(photos), "--out", str(tmp_path), "--images", "100000", *DISTILL[2:])
    running = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "1-raw" / "samples").exists() and running.poll() is None:
        time.sleep(0.05)
    time.sleep(1)
    psutil.Process(running.pid).children()[0].terminate()
    told = running.communicate(timeout=60)[1]
    assert running.returncode == 1
    assert "stopped in stage generator; the same command goes on" in told
    assert not (tmp_path / "distill.json").exists()
