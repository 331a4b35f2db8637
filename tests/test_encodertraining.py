"""The stage encoder, run as users run it: every arm, exact resume, no label anywhere; and what an encoder is shown."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from stages import do
from test_selfdistillation import write_blobs
from toy import save_toy

from hfgan import HFGan

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

import encoderstep
import obstacles

SHORT = ("--images", "32", "--sample-every", "32", "--save-every", "16")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos alone: there is no mask or label in the folder, nor beside it."""
    folder = tmp_path_factory.mktemp("photos")
    write_blobs(folder, 60)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy(tmp_path_factory.mktemp("toy"), num_modes=3, alpha=True)


def log_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_it_learns_from_drawn_pictures_alone(model: Path, tmp_path: Path) -> None:
    do("encoder", "--model", str(model), "--out", str(tmp_path), "--images", "960", "--sample-every", "480", "--lr",
       "0.003", "--save-every", "960")  # fmt: skip
    log, gan = log_of(tmp_path), HFGan.from_pretrained(tmp_path / "model", dtype="float32")
    assert log[-1]["error"] < 0.8 * log[0]["error"]
    assert {"drift_loss", "latent_loss", "loss_inlier", "error_hidden", "drift"} <= log[-1].keys()
    assert gan.encoder.starts.shape == (3, 16)
    assert gan.modes is not None
    assert (tmp_path / "samples" / "000000960.png").exists()


@pytest.mark.parametrize("arm", ["interest", "e4e"])
def test_a_killed_run_goes_on_as_if_it_had_not_been(arm: str, model: Path, photos: Path, tmp_path: Path) -> None:
    flags = ["--model", str(model), "--data", str(photos), "--arm", arm, *SHORT]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    do("encoder", *flags, "--out", str(whole))
    do("encoder", *flags, "--out", str(cut), "--minutes", "0.00001")
    do("encoder", *flags, "--out", str(cut))
    one, other = (load_file(max(out.glob("checkpoint-*")) / "state.safetensors") for out in (whole, cut))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert any(name.startswith("opponent.") for name in one) == (arm == "e4e")


@pytest.mark.parametrize("arm", ["restyle", "interestyle"])
def test_the_papers_encoders_do_not_see_the_interest(arm: str, model: Path, photos: Path, tmp_path: Path) -> None:
    do("encoder", "--model", str(model), "--data", str(photos), "--arm", arm, "--out", str(tmp_path), *SHORT)
    encoder = HFGan.from_pretrained(tmp_path / "model").encoder
    assert not encoder.config.conditioned
    assert encoder.inliers is None
    assert "loss_inlier" not in log_of(tmp_path)[-1]


def test_two_processes_hold_the_same(model: Path, photos: Path, tmp_path: Path) -> None:
    flags = ["--model", str(model), "--data", str(photos), "--out", str(tmp_path), *SHORT]
    assert "replicas equal at 32 images" in do("encoder", *flags, processes=2)


def test_an_encoder_is_trained_on(model: Path, photos: Path, tmp_path: Path) -> None:
    flags = ["--data", str(photos), *SHORT]
    do("encoder", "--model", str(model), "--out", str(tmp_path / "a"), *flags)
    do("encoder", "--model", str(tmp_path / "a" / "model"), "--out", str(tmp_path / "b"), *flags)
    start, before = log_of(tmp_path / "b")[0], log_of(tmp_path / "a")[-1]
    assert start["error"] == pytest.approx(before["error"], rel=1e-4)
    do("encoder", "--model", str(tmp_path / "a" / "model"), "--out", str(tmp_path / "c"), *flags, "--fresh")
    assert log_of(tmp_path / "c")[0] == log_of(tmp_path / "a")[0] | {"seconds": log_of(tmp_path / "c")[0]["seconds"]}


def test_of_the_photos_those_that_were_kept_are_learned_from(model: Path, photos: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in photos.iterdir())
    lines = [{"id": name, "score": 0.0, "w": None, "mode": None, "kept": k < 9, "source": photos.name}
             for k, name in enumerate(names)]  # fmt: skip
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    kept = ("--kept", str(tmp_path / "manifest.jsonl"))
    told = do("encoder", "--model", str(model), "--data", str(photos), *kept, "--out", str(tmp_path / "run"), *SHORT)
    assert re.search(r"\b9 photos", told), told


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--batch", "2"], "each needs 4 or more"),
        (["--steps", "0"], "--steps is 0"),
        (["--drawn", "2"], "--drawn 2"),
        (["--kept", "manifest.jsonl"], "--kept chooses among photos: give --data too"),
    ],
)
def test_what_cannot_be_is_said(flags: list[str], sentence: str, model: Path, tmp_path: Path) -> None:
    told = do("encoder", "--model", str(model), "--out", str(tmp_path), *flags, fails=True)
    assert sentence in told
    assert "Traceback" not in told


def test_latents_that_leave_the_latent_space_end_the_run(model: Path, tmp_path: Path) -> None:
    told = do("encoder", "--model", str(model), "--out", str(tmp_path), "--images", "800", "--lr", "3", fails=True)
    assert "diverged" in told
    assert "start in a new --out with a lower --lr" in told
    assert "Traceback" not in told


# ---------------------------------------------------------------- what is shown


@pytest.fixture
def scene(model: Path) -> obstacles.Scene:
    gan = HFGan.from_pretrained(model, dtype="float32")
    image = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return obstacles.stage(image, gan.matting, torch.Generator().manual_seed(1))


def test_both_views_show_the_same_inside_but_for_the_obstacle(scene: obstacles.Scene) -> None:
    first, second = scene.image.chunk(2)
    meant, _ = scene.meant.chunk(2)
    _, hidden = scene.hidden.chunk(2)
    kept = (meant * (1 - hidden)).expand_as(first) > 0
    assert torch.equal(first[kept], second[kept])
    assert not torch.equal(first, second)
    assert torch.equal(scene.wanted[:64], first)  # of the first view all is wanted as it is
    seen = (1 - hidden).expand_as(first) > 0
    assert torch.equal(scene.wanted[64:][seen], second[seen])  # of the second all but the obstacle
    assert 0.05 < hidden.mean() < 0.6
    assert not scene.hidden[:64].any()


def test_regions_are_hard_and_never_empty(scene: obstacles.Scene) -> None:
    for region in (scene.told, scene.meant, scene.subject, scene.hidden):
        assert set(region.unique().tolist()) <= {0.0, 1.0}
    assert (scene.told.mean((1, 2, 3)) > 0).all()
    assert (scene.meant.mean((1, 2, 3)) > 0).all()
    all_told = (scene.told[:64].mean((1, 2, 3)) == 1).float().mean()
    assert 0.1 < all_told < 0.5  # some are told nothing
    assert not (scene.subject * scene.hidden).any()


def test_a_scene_depends_on_its_source_alone(model: Path) -> None:
    gan = HFGan.from_pretrained(model, dtype="float32")
    image = torch.rand(8, 3, 16, 16) * 2 - 1
    one, same, other = (obstacles.stage(image, gan.matting, torch.Generator().manual_seed(k)) for k in (3, 3, 4))
    assert torch.equal(one.image, same.image)
    assert torch.equal(one.told, same.told)
    assert not torch.equal(one.told, other.told)


def test_a_frame_is_the_least_box() -> None:
    region = torch.zeros(1, 1, 6, 6)
    region[0, 0, 1, 2] = region[0, 0, 3, 4] = 1
    wanted = torch.zeros(6, 6)
    wanted[1:4, 2:5] = 1
    assert torch.equal(obstacles.frames(region)[0, 0], wanted)


def test_the_papers_filter_blurs_outside_alone_and_ends_sharp(model: Path) -> None:
    class Config:
        steps, images = 5, 100

    step = encoderstep.Step.__new__(encoderstep.Step)
    step.config = Config()
    image, subject = torch.rand(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
    subject[..., 20:40, 20:40] = 1
    blurred = [step.blurred(image, subject, k) for k in range(5)]
    inside = subject.expand_as(image) > 0
    assert all(torch.allclose(one[inside], image[inside]) for one in blurred)
    changes = [(one - image).abs().mean().item() for one in blurred]
    assert changes == sorted(changes, reverse=True)
    assert changes[0] > 0
    assert changes[-1] == 0


def test_regions_grow_by_a_square() -> None:
    region = (torch.rand(2, 1, 40, 40, generator=torch.Generator().manual_seed(0)) < 0.01).float()
    assert torch.equal(obstacles.grow(region, 3), torch.nn.functional.max_pool2d(region, 7, 1, 3))


def test_blobs_cover_their_share_of_many_large_pictures() -> None:
    found = obstacles.blobs(17, 1024, torch.Generator().manual_seed(0), area=0.3)  # quantile() takes 16 at most
    assert torch.allclose(found.mean((1, 2, 3)), torch.tensor(0.3), atol=1e-3)
