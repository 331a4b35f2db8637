"""The stages alpha and matting, run as users run them: no mask is near, and a blob is found to be the subject."""

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

from hfgan import HFGan, StyleGAN2Generator
from hfgan.pairs import export_pairs

TRAINING = Path(__file__).parents[1] / "training"
sys.path.insert(0, str(TRAINING))

import alphastep  # noqa: E402
import bootstrap  # noqa: E402
import pairs  # noqa: E402
import run  # noqa: E402


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos alone: there is no mask or label in the folder, nor beside it."""
    folder = tmp_path_factory.mktemp("photos")
    write_blobs(folder, 150)
    return folder


@pytest.fixture(scope="module")
def model(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("generator")
    do("generator", "--preset", "toy", "--data", str(photos), "--out", str(out), "--images", "3000", "--sample-every",
       "3000", "--save-every", "3000", "--lr", "0.005")  # fmt: skip
    return out / "model"


FLAGS = [
    "--images",
    "960",
    "--bootstrap-images",
    "640",
    "--sample-every",
    "320",
    "--save-every",
    "320",
    "--lr",
    "0.02",
]


@pytest.fixture(scope="module")
def trained(model: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alpha")
    do("alpha", "--model", str(model), "--data", str(photos), "--out", str(out), *FLAGS)
    return out / "model"


def state(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(max(folder.glob("checkpoint-*")) / "state.safetensors")


def test_the_subject_is_found_without_a_label(model: Path, trained: Path) -> None:
    before, gan = HFGan.from_pretrained(model, dtype="float32"), HFGan.from_pretrained(trained, dtype="float32")
    assert before.generator.fingerprint() == gan.generator.fingerprint()
    out = gan.sample(32, seed=0)
    alpha = gan.segment(out, refine=False)
    light = torch.stack([torch.tensor(list(image.convert("L").getdata())).view(16, 16) for image in out.images])
    rows = torch.stack([alpha.flatten(), light.flatten().float()])
    assert torch.corrcoef(rows)[0, 1] > 0.4  # blobs are lighter than what is behind them
    assert alpha[..., 6:10, 6:10].mean() > alpha[..., :2, :].mean() + 0.2
    log = [json.loads(line) for line in (trained.parent / "log.jsonl").read_text().splitlines()]
    assert log[2]["loss_votes"] < 0.5
    assert "loss_d" in log[3]
    assert (trained.parent / "samples" / "000000960.png").exists()


def test_a_killed_run_goes_on_as_if_it_had_not_been(model: Path, photos: Path, trained: Path, tmp_path: Path) -> None:
    flags = ["--model", str(model), "--data", str(photos), "--out", str(tmp_path), *FLAGS]
    do("alpha", *flags, "--minutes", "0.00001")
    do("alpha", *flags)
    whole, cut = state(trained.parent), state(tmp_path)
    assert all(torch.equal(whole[key], cut[key]) for key in whole)
    best = [HFGan.from_pretrained(folder).alpha.fingerprint() for folder in (trained, tmp_path / "model")]
    assert best[0] == best[1]


def test_two_processes_hold_the_same(model: Path, photos: Path, tmp_path: Path) -> None:
    flags = ["--images", "96", "--bootstrap-images", "64", "--sample-every", "32", "--save-every", "96"]
    told = do("alpha", "--model", str(model), "--data", str(photos), "--out", str(tmp_path), *flags, processes=2)
    assert "replicas equal at 96 images" in told


def test_the_paper_s_recipe_runs(model: Path, photos: Path, tmp_path: Path) -> None:
    flags = ["--preset", "labels4free", "--images", "160", "--trunk-resolution", "16", "--sample-every", "160"]
    do("alpha", "--model", str(model), "--data", str(photos), "--out", str(tmp_path), *flags)
    config = HFGan.from_pretrained(tmp_path / "model").alpha.config
    assert (config.hidden_dim, config.kernel_size, config.per_resolution) == (6, 1, 2)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {"loss_d", "loss_alpha", "r1"} <= log[-1].keys()
    assert "loss_votes" not in log[-1]


@pytest.mark.parametrize("area", [0.01, 0.99])
def test_a_collapse_is_said(area: float) -> None:
    with pytest.raises(run.UserError, match=rf"collapsed after 5,000 samples: the subject covers {area:.1%}"):
        alphastep.check_collapse(area, 5000)
    alphastep.check_collapse(area, 500)
    alphastep.check_collapse(0.4, 5000)


def test_matting_learns_from_what_is_drawn_and_from_photos(trained: Path, photos: Path, tmp_path: Path) -> None:
    flags = ["--model", str(trained), "--images", "480", "--widths", "8", "16", "--sample-every", "240",
             "--photos-from", "240", "--data", str(photos), "--least-psi", "0.5"]  # fmt: skip
    do("matting", *flags, "--out", str(tmp_path / "whole"))
    gan = HFGan.from_pretrained(tmp_path / "whole" / "model", dtype="float32")
    alpha = torch.cat([gan.segment(path, refine=False) for path in sorted(photos.iterdir())[:20]])
    assert alpha[..., 6:10, 6:10].mean() > alpha[..., :2, :].mean() + 0.2
    log = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["loss_pairs"] < log[1]["loss_pairs"]
    assert "loss_photos" in log[-1]
    do("matting", *flags, "--out", str(tmp_path / "cut"), "--minutes", "0.00001")
    do("matting", *flags, "--out", str(tmp_path / "cut"))
    whole, cut = state(tmp_path / "whole"), state(tmp_path / "cut")
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_matting_learns_from_an_exported_data_set(trained: Path, model: Path, tmp_path: Path) -> None:
    export_pairs(HFGan.from_pretrained(trained, dtype="float32"), tmp_path / "pairs", 24, coverage=(0.0, 1.0))
    flags = ["--images", "320", "--widths", "8", "16", "--sample-every", "160"]
    do("matting", "--model", str(model), "--pairs", str(tmp_path / "pairs"), "--out", str(tmp_path / "out"), *flags)
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["loss_pairs"] < log[1]["loss_pairs"]
    assert "matting" in HFGan.from_pretrained(tmp_path / "out" / "model").parts


def test_matting_needs_alpha(model: Path, tmp_path: Path) -> None:
    told = do("matting", "--model", str(model), "--out", str(tmp_path / "out"), fails=True)
    assert "this model has no alpha" in told
    assert "Traceback" not in told


def test_no_training_code_knows_of_truth() -> None:
    for path in TRAINING.glob("*.py"):
        assert not re.search(r"truth\.zip|masks128|\bnpz\b", path.read_text()), path.name


# ---------------------------------------------------------------- the parts


def test_clusters_of_the_border_are_background_and_the_ground_does_not_count() -> None:
    clusters = torch.zeros(4, 32, 32, dtype=torch.long)
    clusters[:, 8:, 8:24] = 1  # stands on the lower border
    clusters[:, :3, 10:20] = 2  # at the upper border
    clusters[:, 30:, 4:28] = 3  # along the lower border only
    clusters[:, 20, :2] = 4  # what lines the subject
    clusters[:, 20, 8:16] = 4
    said = bootstrap.foreground(clusters, 6)
    assert said[0] < 0.2
    assert said[1:4].tolist() == [1, 0, 1]
    assert 0.4 < said[4] < 0.8
    assert said[5] == 0  # an empty one


def test_votes_are_the_same_again(trained: Path) -> None:
    generator = HFGan.from_pretrained(trained, dtype="float32").generator.requires_grad_(False)
    w = generator.mapping(torch.randn(64, generator.config.z_dim, generator=torch.Generator().manual_seed(0)))
    one, two = (bootstrap.Votes.fit(generator, w, 0) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.buffers(), two.buffers(), strict=True))
    votes = one(bootstrap.observe(generator, w[:4]))
    assert votes.shape == (4, 1, 32, 32)
    assert 0 <= votes.min() < votes.max() <= 1


def test_a_collapsed_network_scores_nothing(trained: Path) -> None:
    gan = HFGan.from_pretrained(trained, dtype="float32")
    w_plus = gan.sample(8, seed=0).w_plus
    good = alphastep.score(gan.generator, gan.alpha, w_plus)
    assert 0 < good <= 1
    with torch.no_grad():
        gan.alpha.out.bias += 100
    assert alphastep.score(gan.generator, gan.alpha, w_plus) == 0


def test_pixels_near_a_doubt_do_not_count() -> None:
    votes = torch.zeros(1, 1, 8, 8)
    votes[..., :3] = 1
    votes[..., 3:5] = 0.5
    logit = torch.where(votes > 0.75, 9.0, -9.0)
    assert alphastep.vote_loss(logit, votes) < 0.001
    logit[..., 2:6] = -logit[..., 2:6]  # the doubtful columns and their neighbours
    assert alphastep.vote_loss(logit, votes) < 0.001
    logit[..., 0] = -9
    assert alphastep.vote_loss(logit, votes) > 1


def test_pairs_depend_on_their_source_alone(trained: Path) -> None:
    gan = HFGan.from_pretrained(trained, dtype="float32")
    drawn = pairs.Drawn(gan.generator, gan.alpha, 0.5)
    one, two, other = (
        pairs.show(drawn.draw(8, source), source) for source in map(torch.Generator().manual_seed, (1, 1, 2))
    )
    assert torch.equal(one.image, two.image)
    assert not torch.equal(one.image, other.image)
    assert one.image.shape == (8, 3, 16, 16)
    assert one.alpha.shape == (8, 1, 16, 16)
    assert -1 <= one.image.min() <= one.image.max() <= 1
    assert 0 <= one.weight.min() <= one.weight.max() <= 1


def test_moving_takes_alpha_along() -> None:
    subject = torch.zeros(16, 3, 32, 32)
    subject[:, :, 10:, 10:22] = 1
    alpha = subject[:, :1].clone()
    moved, where = pairs.move(subject, alpha, torch.Generator().manual_seed(0))
    torch.testing.assert_close(moved[:, :1][where > 0.99], torch.ones(int((where > 0.99).sum())), rtol=0, atol=0.05)
    centers = (where * torch.arange(32.0)).sum((1, 2, 3)) / where.sum((1, 2, 3))
    assert centers.std() > 1  # pixels aside
    assert (where[:, :, -1].amax((1, 2)) > 0.9).all()  # what stands on the ground goes on doing so


def test_moments_of_batches_are_those_of_all() -> None:
    rows = torch.randn(200, 5, generator=torch.Generator().manual_seed(0)) * 0.1 + 3
    mean, covariance = bootstrap.moments(iter(rows.split(64)))
    assert torch.allclose(mean, rows.mean(0))
    assert torch.allclose(covariance, torch.cov(rows.T), atol=1e-6)


def test_what_votes_do_not_look_at_is_not_drawn() -> None:
    generator = StyleGAN2Generator(
        resolution=256, channel_base=2048, channel_max=16, z_dim=16, w_dim=16, mapping_layers=1
    )
    w, sizes = torch.randn(2, 16), []
    generator.synthesis.blocks[-1].torgb.register_forward_hook(lambda *_: sizes.append(256))
    whole = bootstrap.Features()
    generator.synthesis(bootstrap.broadcast(w, generator.num_ws), "const", tap=whole)
    assert sizes == [256]
    assert torch.equal(bootstrap.observe(generator, w).pixels(), whole.pixels())
    assert sizes == [256]


def test_many_exported_pairs_are_read_when_they_are_drawn(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_pairs(HFGan.from_pretrained(trained, dtype="float32"), tmp_path, 6, coverage=(0.0, 1.0))
    held = pairs.Exported(str(tmp_path), 16, torch.device("cpu"))
    monkeypatch.setattr(pairs, "MEMORY_LIMIT", 16 * 16**2 * 6 - 1)
    read = pairs.Exported(str(tmp_path), 16, torch.device("cpu"))
    assert held.pairs is not None
    assert read.pairs is None
    one, other = (some.draw(8, torch.Generator().manual_seed(1)) for some in (held, read))
    assert one.image.shape == (8, 3, 16, 16)
    assert one.alpha.amax() > 0.5
    assert torch.equal(one.image, other.image)
    assert torch.equal(one.alpha, other.alpha)
