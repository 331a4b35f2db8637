"""Metrics against values known from formulas, and the stage that reports them."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from hfgan import HFGan, StyleGAN2Generator, metrics
from hfgan.sampling import slerp

ROOT = Path(__file__).parents[1]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def covariance(d: int, seed: int) -> torch.Tensor:
    root = torch.randn(d, d, generator=seeded(seed), dtype=torch.float64)
    return root @ root.T / d


# ---------------------------------------------------------------- Frechet distance


def test_frechet_of_commuting_gaussians_is_the_closed_form() -> None:
    a, b = torch.tensor([1.0, 4.0, 0.0, 9.0]).double(), torch.tensor([4.0, 1.0, 2.0, 0.0]).double()
    rotation = torch.linalg.qr(covariance(4, 1)).Q
    shift = torch.tensor([1.0, 0.0, -2.0, 2.0])
    found = metrics.frechet_distance(
        torch.zeros(4), rotation @ a.diag() @ rotation.T, shift, rotation @ b.diag() @ rotation.T
    )
    assert found == pytest.approx(9 + (a.sqrt() - b.sqrt()).square().sum().item(), rel=1e-7)


def test_frechet_of_any_gaussians_agrees_with_the_eigenvalues_of_the_product() -> None:
    a, b = covariance(6, 2), covariance(6, 3)
    cross = torch.linalg.eigvals(a @ b).real.sqrt().sum()
    expected = (a.trace() + b.trace() - 2 * cross).item()
    mean = torch.zeros(6)
    assert metrics.frechet_distance(mean, a, mean, b) == pytest.approx(expected, rel=1e-9)
    assert metrics.frechet_distance(mean, b, mean, a) == pytest.approx(expected, rel=1e-9)
    assert metrics.frechet_distance(mean, a, mean, a) == pytest.approx(0, abs=1e-12)


def test_frechet_stays_exact_with_fewer_images_than_dimensions() -> None:
    x, y = (torch.randn(9, 40, generator=seeded(s)) + s for s in (4, 5))
    # tr (C_a C_b)^(1/2) is the nuclear norm of A^T B where C = A A^T
    a, b = (((f - f.mean(0)) / math.sqrt(8)).double() for f in (x, y))
    cross = torch.linalg.svdvals(a @ b.T).sum()
    expected = (x.mean(0) - y.mean(0)).double().square().sum() + a.square().sum() + b.square().sum() - 2 * cross
    assert metrics.frechet_of_features(x, y) == pytest.approx(expected.item(), rel=1e-6)
    assert metrics.frechet_of_features(x, x) == pytest.approx(0, abs=1e-6)


def test_frechet_follows_a_scaled_copy() -> None:
    x = torch.randn(500, 8, generator=seeded(6))
    mean, cov = metrics.mean_and_covariance(x)
    expected = mean.square().sum() + cov.trace()  # (2 - 1)^2 of each
    assert metrics.frechet_of_features(x, 2 * x) == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("bad", [torch.zeros(1, 4), torch.zeros(4), torch.full((5, 4), float("nan"))])
def test_features_that_cannot_be_measured_are_refused(bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="features"):
        metrics.frechet_of_features(bad, torch.randn(5, 4))


# ---------------------------------------------------------------- kernel distance


def test_mmd_is_the_sum_over_pairs() -> None:
    x, y = torch.randn(4, 3, generator=seeded(1)), torch.randn(5, 3, generator=seeded(2))

    def kernel(a: torch.Tensor, b: torch.Tensor) -> float:
        return (a.dot(b).item() / 3 + 1) ** 3

    xx = [kernel(x[i], x[j]) for i in range(4) for j in range(4) if i != j]
    yy = [kernel(y[i], y[j]) for i in range(5) for j in range(5) if i != j]
    xy = [kernel(a, b) for a in x for b in y]
    expected = sum(xx) / 12 + sum(yy) / 20 - 2 * sum(xy) / 20
    assert metrics.unbiased_mmd(x, y).item() == pytest.approx(expected, rel=1e-5)


def test_mmd_of_equal_laws_is_zero_on_average_and_so_small_sets_measure_as_large_ones() -> None:
    draws = torch.randn(1000, 2, 6, 4, generator=seeded(3), dtype=torch.float64)
    equal = torch.stack([metrics.unbiased_mmd(x, y) for x, y in draws])
    assert abs(equal.mean()) < 3.5 * equal.std() / math.sqrt(len(equal))
    shifted = torch.stack([metrics.unbiased_mmd(x, y + 1) for x, y in draws])
    x, y = torch.randn(2, 4000, 4, generator=seeded(4), dtype=torch.float64)
    assert shifted.mean().item() == pytest.approx(metrics.unbiased_mmd(x, y + 1).item(), rel=0.15)


def test_kernel_distance_averages_blocks_and_repeats_with_its_generator() -> None:
    x, y = torch.randn(60, 5, generator=seeded(5)), torch.randn(50, 5, generator=seeded(6)) + 0.5
    whole = metrics.unbiased_mmd(x[:50].double(), y.double()).item()
    mean, deviation = metrics.kernel_distance(x[:50], y, block_size=50, blocks=3, generator=seeded())
    assert (mean, deviation) == (pytest.approx(whole), pytest.approx(0, abs=1e-9))
    first = metrics.kernel_distance(x, y, block_size=20, blocks=30, generator=seeded())
    assert first == metrics.kernel_distance(x, y, block_size=20, blocks=30, generator=seeded())
    assert first[1] > 0


# ---------------------------------------------------------------- fidelity and variety


def line(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None]


def test_precision_recall_density_coverage_on_a_line() -> None:
    real, fake = line(0, 1, 2, 3), line(0.5, 1.5, 10, 11)
    (real_radii,), (fake_radii,) = metrics.neighbour_radii(real, 1), metrics.neighbour_radii(fake, 1)
    assert real_radii.tolist() == fake_radii.tolist() == [1, 1, 1, 1]
    between = metrics.distances(real, fake)
    # the ball of real 3 holds no fake, and no fake's ball holds real 3
    assert metrics.precision_recall(between, real_radii, fake_radii) == (0.5, 0.75)
    assert metrics.density_coverage(between, real_radii, 1) == (1.0, 0.75)


def test_radii_are_distances_to_the_kth_other_row() -> None:
    first, third = metrics.neighbour_radii(line(0, 1, 3, 7), 1, 3)
    assert first.tolist() == [1, 1, 2, 4]
    assert third.tolist() == [7, 6, 4, 7]


def test_distances_are_exact_for_close_rows_far_from_the_origin() -> None:
    x = torch.full((30, 64), 100.0)
    y = x.clone()
    y[:, 0] += 0.01
    assert metrics.distances(x, y) == pytest.approx(torch.full((30, 30), 0.01).numpy(), rel=2e-3)


def test_precision_falls_with_noise_and_recall_with_collapse() -> None:
    real = torch.randn(300, 4, generator=seeded(1))
    good = torch.randn(300, 4, generator=seeded(2))
    collapsed = good[:10].repeat(30, 1) + 0.01 * torch.randn(300, 4, generator=seeded(3))
    one, two, far = (metrics.compare_features(real, f, generator=seeded()) for f in (good, collapsed, good * 4))
    assert min(one["precision"], one["recall"], one["coverage"]) > 0.8
    assert two["recall"] < 0.1 < 0.8 < two["precision"]
    assert two["coverage"] < 0.3
    assert far["precision"] < 0.4 < 0.6 < far["recall"]
    assert far["density"] < one["density"] == pytest.approx(1, abs=0.15)
    assert max(one["fd"], one["kid"]) < min(two["fd"], far["fd"], far["kid"])


# ---------------------------------------------------------------- images to features


def test_both_sides_become_the_same_pixels() -> None:
    pixels = torch.randint(256, (3, 3, 24, 24), generator=seeded(), dtype=torch.uint8)
    floats = pixels / 127.5 - 1 + 0.3 / 127.5  # within half a level
    assert torch.equal(metrics.as_images(pixels), metrics.as_images(floats))
    assert torch.equal(metrics.as_images(torch.full((1, 1, 2, 2), 1.7)), torch.ones(1, 3, 2, 2))
    with pytest.raises(ValueError, match=r"n,c,h,w.*\(1, 2, 2, 2\)"):
        metrics.as_images(torch.zeros(1, 2, 2, 2))


def test_features_are_taken_at_one_size_and_in_order() -> None:
    seen = []

    def embed(images: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(images.shape))
        return images.mean((2, 3))

    batches = [torch.full((2, 3, 16, 16), level, dtype=torch.uint8) for level in (0, 255)]
    found = metrics.extract_features(iter(batches), embed, size=32)
    assert torch.equal(found, torch.tensor([-1.0, -1, 1, 1])[:, None].expand(4, 3))
    assert seen == [(2, 3, 32, 32)] * 2
    with pytest.raises(ValueError, match="no images"):
        metrics.extract_features([], embed)


# ---------------------------------------------------------------- spread, smoothness, ranks


def squared(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a - b).square().sum((1, 2, 3))


def test_diversity_compares_different_images_only() -> None:
    two = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 2, 2)
    assert metrics.mean_pair_distance(two, squared, pairs=100, generator=seeded()) == 12
    with pytest.raises(ValueError, match="at least 2"):
        metrics.mean_pair_distance(two[:1], squared, pairs=1, generator=seeded())


def test_path_length_of_straight_paths_is_their_squared_length() -> None:
    start, end = torch.randn(2, 40, 5, generator=seeded(), dtype=torch.float64)
    end = start + 3 * torch.nn.functional.normalize(end, dim=1)  # every path has length 3
    found = metrics.path_length(
        lambda w: w[:, :, None, None], start, end, torch.lerp, squared, batch_size=16, generator=seeded()
    )
    assert found == pytest.approx(9, rel=1e-4)


def test_path_length_of_great_circles_is_their_squared_angle() -> None:
    start, end = torch.eye(3, dtype=torch.float64)[:2].unsqueeze(1).expand(2, 20, 3)
    found = metrics.path_length(lambda z: z[:, :, None, None], start, end, slerp, squared, generator=seeded())
    assert found == pytest.approx((math.pi / 2) ** 2, rel=1e-4)


def test_rank_correlation() -> None:
    x = torch.tensor([0.1, 5.0, 2.0, -3.0])
    assert metrics.rank_correlation(x, x.exp()) == pytest.approx(1)
    assert metrics.rank_correlation(x, -x) == pytest.approx(-1)
    tied = metrics.rank_correlation(torch.tensor([1.0, 2, 2, 3]), torch.tensor([1.0, 2, 3, 4]))
    assert tied == pytest.approx(0.9486833)  # Pearson's of (0, 1.5, 1.5, 3) and (0, 1, 2, 3)


# ---------------------------------------------------------------- the stage


@pytest.fixture(scope="module")
def stage() -> Iterator[Callable[..., int]]:
    """stage(*flags): run `train.py evaluate` in this process; returns its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "training")
        train = importlib.import_module("train")
        yield lambda *flags: train.main(["evaluate", *flags])


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory, stage: Callable[..., int]) -> dict:
    """metrics.json of a random model of 32 px against 24 photos."""
    root = tmp_path_factory.mktemp("evaluate")
    source = seeded(1)
    (root / "photos").mkdir()
    for i in range(24):
        coarse = torch.randint(256, (3, 3, 3), generator=source, dtype=torch.uint8).numpy()
        Image.fromarray(coarse).resize((40, 40), Image.Resampling.BICUBIC).save(root / "photos" / f"{i:02}.png")
    toy = StyleGAN2Generator(resolution=32, z_dim=8, w_dim=8, mapping_layers=2, channel_base=256, channel_max=16)
    HFGan(generator=toy).save_pretrained(root / "toy")
    flags = ["--model", str(root / "toy"), "--data", str(root / "photos"), "--num", "30", "--psi", "1.0", "0.5"]
    flags += ["--feature-size", "64", "--ppl-paths", "6", "--out", str(root / "metrics.json")]
    assert stage(*flags) == 0
    return json.loads((root / "metrics.json").read_text())


def test_every_number_comes_with_its_protocol(evaluation: dict) -> None:
    assert [(row["what"].split("/")[-1], row["truncation_psi"]) for row in evaluation["rows"]] == [
        ("photos (halves)", None),
        ("noise", None),
        ("toy", 1.0),
        ("toy", 0.5),
    ]
    for row in evaluation["rows"]:
        assert all(math.isfinite(row[name]) for name in ("fd", "kid", "precision", "recall", "density", "coverage"))
        protocol = metrics.Protocol(**row["protocol"])
        assert protocol.feature_size == 64
        assert protocol.num_fake == (12 if "halves" in row["what"] else 30)
        assert protocol.truncation_psi == row["truncation_psi"]
    assert "FID" not in json.dumps(evaluation)
    assert evaluation["feature_distance"] == "FD-PerceptualNet"


def test_the_scale_of_the_numbers_is_photos_then_noise(evaluation: dict) -> None:
    photos, noise, model, truncated = evaluation["rows"]
    assert photos["fd"] < noise["fd"]
    assert noise["precision"] == noise["coverage"] == 0
    assert model["ppl_w"] > 0
    assert "ppl_w" not in truncated  # a path at psi 1 alone
    assert truncated["lpips_diversity"] < model["lpips_diversity"]


def test_what_cannot_work_is_one_sentence(stage: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert stage("--model", "toy", "--data", "photos", "--fid") == 1
    assert capsys.readouterr().err == "--fid needs the package torch-fidelity: pip install torch-fidelity\n"


def test_real_fid_comes_from_torch_fidelity(
    stage: Callable[..., int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, photo: Callable[..., Image.Image]
) -> None:
    (tmp_path / "torch_fidelity.py").write_text(FAKE_FIDELITY)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "photos").mkdir()
    for i in range(12):
        photo(32, 32, seed=i).save(tmp_path / "photos" / f"{i}.png")
    toy = StyleGAN2Generator(resolution=32, z_dim=8, w_dim=8, mapping_layers=1, channel_base=256, channel_max=8)
    HFGan(generator=toy).save_pretrained(tmp_path / "toy")
    flags = ["--model", str(tmp_path / "toy"), "--data", str(tmp_path / "photos"), "--num", "8", "--psi", "1.0"]
    flags += ["--feature-size", "32", "--ppl-paths", "0", "--fid", "--out", str(tmp_path / "metrics.json")]
    assert stage(*flags) == 0
    rows = json.loads((tmp_path / "metrics.json").read_text())["rows"]
    assert [row.get("fid") for row in rows] == [None, None, 8012.0]


def test_diversity_is_of_the_first_images_alone(stage: Callable[..., int]) -> None:
    evaluate = importlib.import_module("evaluate")
    batches, kept = [torch.full((3, 1), k) for k in range(4)], []
    assert torch.equal(torch.cat(list(evaluate.keep(iter(batches), kept, 4))), torch.cat(batches))
    assert torch.equal(torch.cat(kept), torch.cat(batches[:2]))


# calculate_metrics of torch-fidelity 0.4: takes two data sets of uint8 images (3,h,w)
FAKE_FIDELITY = """
import torch

def calculate_metrics(input1, input2, fid, cuda, verbose):
    for images in (input1, input2):
        assert isinstance(images, torch.utils.data.Dataset)
        assert images[0].dtype == torch.uint8 and images[0].shape == (3, 32, 32)
        assert images[1].float().std() > 1 and not torch.equal(images[0], images[1])
    return {"frechet_inception_distance": 1000.0 * len(input1) + len(input2)}
"""


# --- alpha ---------------------------------------------------------------------------------------------------


def squares(*boxes: tuple[int, int, int, int]) -> torch.Tensor:
    """Masks (n, 1, 32, 32) of boxes (top, left, bottom, right)."""
    masks = torch.zeros(len(boxes), 1, 32, 32, dtype=torch.bool)
    for mask, (top, left, bottom, right) in zip(masks, boxes, strict=True):
        mask[0, top:bottom, left:right] = True
    return masks


def test_mean_iou_is_that_of_both_classes() -> None:
    a, b = squares((0, 0, 16, 32), (0, 0, 0, 0)), squares((0, 0, 8, 32), (0, 0, 0, 0))
    found = metrics.mean_iou(a, b)
    assert found[0].item() == pytest.approx((256 / 512 + 512 / 768) / 2)
    assert found[1].item() == 1  # both empty
    assert torch.equal(metrics.mean_iou(a, b), metrics.mean_iou(~a, ~b))


def test_rims_are_found_by_a_square() -> None:
    mask = torch.rand(2, 1, 40, 40, generator=seeded(3)) < 0.5
    whole = [torch.nn.functional.max_pool2d(x.float(), 7, 1, 3) > 0 for x in (mask, ~mask)]
    assert torch.equal(metrics.near_edge(mask, 3), whole[0] & whole[1])


def test_boundary_iou_sees_what_iou_hardly_does() -> None:
    a, b = squares((4, 4, 28, 28)), squares((5, 5, 28, 28))
    assert metrics.boundary_iou(a, a).item() == 1
    assert metrics.boundary_iou(a, b) < metrics.mean_iou(a, b) - 0.1
    rim = metrics.near_edge(a, 1) & a
    assert rim.sum() == 4 * 23  # one pixel wide
    whole = squares((0, 0, 32, 32))
    assert not metrics.near_edge(whole, 3).any()  # the border of the picture is no edge


def test_band_error_counts_near_true_edges_only() -> None:
    true = squares((8, 8, 24, 24)).float()
    far = true.clone()
    far[..., 15:17, 15:17] = 0  # a hole deep inside
    near = true.clone()
    near[..., 8, 8:24] = 0.5
    assert metrics.band_error(far, true).item() == 0
    band = metrics.near_edge(true > 0.5, 1).sum().item()
    assert metrics.band_error(near, true).item() == pytest.approx(8 / band)
    assert metrics.band_error(torch.ones(1, 1, 8, 8), torch.ones(1, 1, 8, 8)).item() == 0
