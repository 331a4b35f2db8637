"""Modes: found, measured and imported against their definitions; drawn from and truncated toward by the facade."""

from __future__ import annotations

import importlib
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from stages import TRAIN, do
from toy import save_toy

from hfgan import HFGan, ModeBank, StyleGAN2Generator, modes, sampling
from hfgan.images import on_white, read_recipe, save_png, to_image, to_pixels
from hfgan.models.perceptual import load_perceptual
from hfgan.models.reconstructor import ReconstructionEncoder

WEIGHTS = "diffusion_pytorch_model.safetensors"
TINY = {"resolution": 32, "z_dim": 16, "w_dim": 16, "mapping_layers": 2, "channel_base": 256, "channel_max": 16}
NUM_MODES = 5


def make_generator(**arguments: Any) -> StyleGAN2Generator:
    """A toy whose w vary and whose noise shows."""
    torch.manual_seed(0)
    generator = StyleGAN2Generator(**{**TINY, **arguments}).eval()
    with torch.no_grad():
        generator.mapping.w_avg.normal_()
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.3)
    return generator


def samples(generator: StyleGAN2Generator, n: int = 2000) -> torch.Tensor:
    with torch.no_grad():
        return generator.mapping(torch.randn(n, generator.config.z_dim, generator=torch.Generator().manual_seed(99)))


@pytest.fixture(scope="module")
def gan() -> HFGan:
    generator = make_generator()
    w = samples(generator)
    return HFGan(generator=generator, modes=modes.make_bank(generator, w, modes.fit_modes(w, NUM_MODES)))


def blobs(sizes: list[int], dim: int = 8, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Clusters of deviation 1 about centers of deviation 20: points (n, dim), shuffled, and centers (k, dim)."""
    rng = torch.Generator().manual_seed(seed)
    centers = 20 * torch.randn(len(sizes), dim, generator=rng)
    which = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    points = centers[which] + torch.randn(len(which), dim, generator=rng)
    return points[torch.randperm(len(points), generator=rng)], centers


def levels(a: Image.Image, b: Image.Image) -> int:
    """The largest difference of two pictures [levels of 255]."""
    return int(np.abs(np.asarray(a, dtype=int) - np.asarray(b, dtype=int)).max())


# ---------------------------------------------------------------- found


def test_clusters_are_found_and_the_same_again() -> None:
    w, truth = blobs([400, 90, 200])
    found = modes.fit_modes(w, 3, seed=1)
    distances = torch.cdist(found, truth)
    assert sorted(distances.argmin(1).tolist()) == [0, 1, 2]
    assert distances.min(1).values.max() < 1
    assert torch.equal(found, modes.fit_modes(w, 3, seed=1))


def test_a_center_is_the_mean_of_the_32_members_nearest_to_the_centroid() -> None:
    w = torch.randn(500, 6, generator=torch.Generator().manual_seed(0)).exp()  # skewed: mean and densest part differ
    nearest = (w - w.mean(0)).square().sum(1).topk(32, largest=False).indices
    torch.testing.assert_close(modes.fit_modes(w, 1)[0], w[nearest].mean(0))
    torch.testing.assert_close(modes.fit_modes(w[:20], 1)[0], w[:20].mean(0))


def test_whitening_finds_what_a_wide_dimension_hides() -> None:
    rng = torch.Generator().manual_seed(0)
    sign = torch.randint(2, (600,), generator=rng) * 2.0 - 1
    w = torch.stack([sign + 0.1 * torch.randn(600, generator=rng), 50 * torch.randn(600, generator=rng)], dim=1)

    def separation(space: str) -> float:
        return modes.fit_modes(w, 2, space=space)[:, 0].diff().abs().item()

    assert separation("whitened") > 1.8
    assert separation("w") < 0.5


def test_clusters_of_features_have_their_center_in_w() -> None:
    features, truth = blobs([300, 200, 100], seed=2)
    w = torch.randn(600, 4, generator=torch.Generator().manual_seed(3))
    members = torch.cdist(features, truth).argmin(1)
    found = modes.fit_modes(w, 3, space="features", features=features)
    centroids = torch.stack([features[members == i].mean(0) for i in range(3)])
    near = [torch.cdist(features[members == i], centroids[i : i + 1])[:, 0].topk(32, largest=False) for i in range(3)]
    expected = torch.stack([w[members == i][near[i].indices].mean(0) for i in range(3)])
    order = torch.cdist(expected, found).argmin(1)
    assert order.unique().numel() == 3
    torch.testing.assert_close(found[order], expected)


def test_no_mode_is_empty() -> None:
    w = torch.tensor([[0.0], [1.0], [5.0]]).repeat(40, 1)
    assert sorted(modes.fit_modes(w, 3).flatten().tolist()) == [0, 1, 5]
    with pytest.raises(ValueError, match="the 120 samples are too alike for 4 modes: ask for fewer"):
        modes.fit_modes(w, 4)
    lost = torch.tensor([[0.4], [300.0], [-300.0]])
    moved = modes._fill_empty(w, lost, 1.0)
    assert (modes.nearest_l2(w, moved).bincount(minlength=3) > 0).all()
    assert moved[0] == lost[0]
    assert torch.equal(moved, modes._fill_empty(w, lost, 1.0))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"num_modes": 0}, "num_modes is 0: expected a whole number of 1 or more"),
        ({"num_modes": 2.0}, r"num_modes is 2\.0"),
        ({"num_modes": 101}, "num_modes is 101: expected at most 100 for 100 samples"),
        ({"num_modes": 2, "space": "z"}, "space is 'z': expected one of w, whitened, features"),
        ({"num_modes": 2, "space": "features"}, "space is 'features'.* and features with the last only"),
        ({"num_modes": 2, "features": torch.zeros(100, 2)}, "space is 'w'"),
    ],
)
def test_wrong_fits_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        modes.fit_modes(torch.randn(100, 4), **given)
    with pytest.raises(ValueError, match="at most 10,000"):
        modes.fit_modes(torch.zeros(20_000, 1), 10_001)


def test_every_number_of_modes_up_to_that_of_samples() -> None:
    w = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    for k in (1, 39, 40):
        centers = modes.fit_modes(w, k)
        assert modes.nearest_l2(w, centers).unique().numel() == k


@pytest.mark.parametrize("space", ["w", "whitened"])
def test_a_bank_is_sorted_counted_drawn_and_measured(space: str) -> None:
    generator = make_generator()
    w = samples(generator) * torch.linspace(0.1, 3, 16)
    centers = modes.fit_modes(w, 7, space=space)
    bank = modes.make_bank(generator, w, centers, space=space, assignment="perceptual")
    scale = w.std(0, correction=0) if space == "whitened" else torch.ones(16)
    distances = torch.cdist(w / scale, bank.centers / scale).square()
    assert torch.equal(bank.counts, distances.argmin(1).bincount(minlength=7))
    assert (bank.counts.diff() <= 0).all()
    assert sorted(bank.centers.tolist()) == sorted(centers.tolist())
    assert torch.equal(modes.nearest_mode(w, bank), distances.argmin(1))
    nearest = distances.topk(2, largest=False).values
    torch.testing.assert_close(bank.temperature, (nearest[:, 1] - nearest[:, 0]).median(), rtol=1e-3, atol=0)
    with torch.no_grad():
        drawn = to_pixels(generator.synthesis(sampling.broadcast(bank.centers, generator.num_ws)))
    assert (drawn.int() - bank.previews.int()).abs().max() <= 1
    assert (bank.config.space, bank.config.assignment) == (space, "perceptual")
    with pytest.raises(ValueError, match=r"centers of shape \[7, 8\] do not fit this model: expected \(k, 16\)"):
        modes.make_bank(generator, w, centers[:, :8])


def test_centers_that_come_twice_do_no_harm() -> None:
    generator = make_generator()
    w = samples(generator)
    toy = HFGan(generator=generator, modes=modes.make_bank(generator, w, w[:1].repeat(3, 1)))
    assert toy.modes.counts.tolist() == [2000, 0, 0]
    a, b = toy.sample(seed=0, mode="random"), toy.sample(seed=1, mode="nearest")
    assert levels(toy.interpolate(a, b, 3, "z")[2], b.images[0]) <= 1


# ---------------------------------------------------------------- nearest


def test_nearest_in_l2_is_exact_far_from_the_origin_and_beyond_a_block_of_rows(monkeypatch) -> None:
    monkeypatch.setattr(modes, "ROWS", 30)
    rng = torch.Generator().manual_seed(0)
    w, centers = (torch.randn(n, 6, generator=rng, dtype=torch.float64) for n in (100, 9))
    scale = torch.tensor([1, 2, 4, 8, 1, 1.0])
    expected = (w[:, None] / scale - centers[None] / scale).square().sum(2).argmin(1)
    assert torch.equal(modes.nearest_l2((w + 1e3).float(), (centers + 1e3).float(), scale), expected)
    assert not torch.equal(modes.nearest_l2(w, centers), expected)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_perceptual_points_are_as_far_apart_as_lpips_says(channels: int) -> None:
    net, rng = load_perceptual(), torch.Generator().manual_seed(0)
    a, b = (torch.rand(3, channels, 64, 64, generator=rng) * 2 - 1 for _ in range(2))
    b[1] = a[1] + 0.05
    points = modes.perceptual_points(torch.cat([a, b]), net)
    found = (points[:3] - points[3:]).square().sum(1)
    torch.testing.assert_close(found, net.distance(on_white(a), on_white(b)), rtol=1e-4, atol=1e-6)


def test_transparent_pixels_are_white() -> None:
    image = torch.tensor([0.5, -1, 0]).view(1, 3, 1, 1)
    assert on_white(torch.cat([image, -torch.ones(1, 1, 1, 1)], 1)).flatten().tolist() == [1, 1, 1]
    assert torch.equal(on_white(torch.cat([image, torch.ones(1, 1, 1, 1)], 1)), image)


def test_the_perceptually_nearest_mode_is_that_of_the_least_distance(gan: HFGan) -> None:
    net = load_perceptual()
    seen = modes.PerceptualModes(gan.modes, net)
    previews = to_image(gan.modes.previews)
    assert seen.nearest(previews).tolist() == list(range(NUM_MODES))
    with torch.no_grad():
        images = gan.generator.synthesis(gan.sample(12, seed=3, truncation="none").w_plus)
    large = [modes.resize(x, modes.SEEN_SIZE) for x in (images, previews)]
    table = torch.stack([net.distance(large[0], one.expand_as(large[0])) for one in large[1].split(1)], dim=1)
    assert torch.equal(seen.nearest(images), table.argmin(1))
    assert seen.nearest(images).unique().numel() > 1


def test_soft_centers_follow_their_formula_and_become_hard() -> None:
    w, centers = (torch.randn(n, 4, generator=torch.Generator().manual_seed(n)) for n in (50, 6))
    weights = (-torch.cdist(w, centers).square() / 1.7).softmax(1)
    torch.testing.assert_close(modes.soft_centers(w, centers, 1.7), weights @ centers)
    torch.testing.assert_close(modes.soft_centers(w, centers, 1e-4), centers[modes.nearest_l2(w, centers)])
    torch.testing.assert_close(
        modes.soft_centers(w, centers, 1e6), centers.mean(0).expand(50, 4), rtol=1e-3, atol=1e-4
    )


# ---------------------------------------------------------------- stored


def test_a_bank_is_saved_exactly_and_stays_what_half_precision_made_of_it(gan: HFGan, tmp_path: Path) -> None:
    bank = gan.modes
    bank.save_pretrained(tmp_path / "full")
    whole = ModeBank.from_pretrained(tmp_path / "full")
    assert all(torch.equal(a, b) for a, b in zip(bank.buffers(), whole.buffers(), strict=True))
    bank.save_pretrained(tmp_path / "half", dtype=torch.float16)
    half = ModeBank.from_pretrained(tmp_path / "half")
    assert not torch.equal(half.centers, bank.centers)
    assert half.fingerprint() == whole.fingerprint() == bank.fingerprint()
    half.save_pretrained(tmp_path / "again", dtype=torch.float16)
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (tmp_path / "half" / WEIGHTS).read_bytes()
    kinds = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in half.state_dict().items()}
    assert kinds == {
        "centers": (torch.float32, (5, 16)),
        "counts": (torch.int64, (5,)),
        "previews": (torch.uint8, (5, 3, 32, 32)),
        "w_std": (torch.float32, (16,)),
        "temperature": (torch.float32, ()),
    }


def test_a_bank_of_other_types_or_values_is_refused(gan: HFGan, tmp_path: Path) -> None:
    gan.modes.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    save_file(tensors | {"counts": tensors["counts"].float()}, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match=r"of the wrong type: counts torch\.float32 instead of torch\.int64"):
        ModeBank.from_pretrained(tmp_path)
    for wrong in ({"num_modes": 0}, {"num_modes": 10_001}):
        with pytest.raises(ValueError, match="give a number from 1 to 10,000"):
            ModeBank(**wrong)
    for wrong in ({"space": "z"}, {"assignment": "cosine"}):
        with pytest.raises(ValueError, match="expected one of w, whitened, features and one of l2, perceptual"):
            ModeBank(num_modes=2, **wrong)


def test_a_model_goes_to_disk_with_its_modes(gan: HFGan, tmp_path: Path) -> None:
    gan.save_pretrained(tmp_path / "toy")
    back = HFGan.from_pretrained(tmp_path / "toy", dtype="float32")
    assert list(back.parts) == ["generator", "modes"]
    for how in ({"mode": 3}, {"truncation": "multimodal"}):
        assert back.sample(3, seed=0, **how).images == gan.sample(3, seed=0, **how).images
    gan.save_pretrained(tmp_path / "half", dtype=torch.float16)
    half = HFGan.from_pretrained(tmp_path / "half", dtype="float32")
    recipe = gan.sample(seed=8, mode="random").recipes[0]
    assert levels(half.replay(recipe).images[0], gan.replay(recipe).images[0]) <= 3


# ---------------------------------------------------------------- sampled


def test_samples_move_toward_the_center_of_the_nearest_mode(gan: HFGan) -> None:
    out = gan.sample(20, seed=0, truncation="multimodal", truncation_psi=0.3, truncation_cutoff=5)
    found = torch.cdist(out.w, gan.modes.centers).argmin(1)
    assert out.modes == found.tolist()
    assert len(set(out.modes)) > 2
    center = gan.modes.centers[found]
    torch.testing.assert_close(out.w_plus[:, 4], center + 0.3 * (out.w - center))
    assert torch.equal(out.w_plus[:, 5], out.w)
    plain = gan.sample(20, seed=0)
    torch.testing.assert_close(out.w, plain.w)
    assert plain.modes == [None] * 20
    assert out[3:5].modes == out.modes[3:5]
    assert gan.sample(2, seed=0, mode="nearest").images == gan.sample(2, seed=0, truncation="multimodal").images


def test_psi_may_differ_between_coarse_and_fine_layers(gan: HFGan) -> None:
    out = gan.sample(2, seed=0, mode="nearest", truncation_psi=(0.2, 0.9))
    center = gan.modes.centers[out.modes]
    torch.testing.assert_close(out.w_plus[:, 3], center + 0.2 * (out.w - center))
    torch.testing.assert_close(out.w_plus[:, 4], center + 0.9 * (out.w - center))
    assert out.recipes[0]["truncation_psi"] == [0.2, 0.9]
    again = gan.replay(json.loads(json.dumps(out.recipes[1])))
    torch.testing.assert_close(again.w_plus, out.w_plus[1:])
    assert again.recipes == out.recipes[1:]


@pytest.mark.parametrize("mode", [0, 3, np.int64(4)])
def test_a_sample_of_a_mode_is_the_first_of_its_seed_that_falls_into_it(gan: HFGan, mode: int) -> None:
    out = gan.sample(6, seed=10, mode=mode, truncation_psi=0.6)
    assert out.modes == [mode] * 6
    for row, recipe in enumerate(out.recipes):
        (generator,) = sampling.generators_from_seeds([recipe["seed"]])
        z = torch.stack([torch.randn(16, generator=generator) for _ in range(recipe["draw"] + 1)])
        with torch.no_grad():
            w = gan.generator.mapping(z)
        torch.testing.assert_close(out.w[row], w[-1])
        assert (modes.nearest_mode(w, gan.modes) == mode).nonzero().flatten().tolist() == [recipe["draw"]]
    assert max(recipe["draw"] for recipe in out.recipes) > 0


def test_random_noise_goes_on_after_the_draw(gan: HFGan) -> None:
    out = gan.sample(4, seed=0, mode=4, noise_mode="random")
    row = next(i for i, recipe in enumerate(out.recipes) if recipe["draw"] > 0)
    (generator,) = sampling.generators_from_seeds([out.seeds[row]])
    for _ in range(out.recipes[row]["draw"] + 1):
        torch.randn(16, generator=generator)
    with torch.no_grad():
        image = gan.generator.synthesis(out.w_plus[row : row + 1], "random", [generator])
    expected = Image.fromarray(to_pixels(image)[0].permute(1, 2, 0).numpy())
    assert levels(expected, out.images[row]) <= 1
    assert levels(gan.sample(4, seed=0, mode=4).images[row], out.images[row]) > 5


HOW = [
    {"mode": "nearest"},
    {"mode": "nearest", "assignment": "perceptual"},
    {"mode": 2, "noise_mode": "random"},
    {"mode": "random", "noise_mode": "random"},
    {"mode": [0, 1, 0, 2, 0]},
    {"truncation": "none", "mode": 1},
]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_seed_same_mode_and_draw_whatever_is_drawn_beside_it(gan: HFGan, how: dict, dtype: torch.dtype) -> None:
    gan.to(dtype)
    try:
        seeds = [5, 0, 77, 2**32 - 1, 12, 13, 14]
        batch = gan.sample(seeds=seeds, **how)
        for row, seed in enumerate(seeds):
            single = gan.sample(seed=seed, batch_size=1, **how)
            assert single.recipes[0] == batch.recipes[row]
            assert levels(single.images[0], batch.images[row]) <= (1 if dtype == torch.float32 else 32)
    finally:
        gan.to(torch.float32)


@pytest.mark.parametrize("assignment", ["l2", "perceptual"])
def test_nearest_modes_of_samples_are_those_that_sample_finds(gan: HFGan, assignment: str) -> None:
    out = gan.sample(6, seed=3, mode="nearest", assignment=assignment)
    assert gan.nearest_modes(out.w, assignment=assignment).tolist() == out.modes
    with pytest.raises(ValueError, match="assignment is 'cosine'"):
        gan.nearest_modes(out.w, assignment="cosine")


def test_pictures_for_the_perceptual_assignment_are_drawn_some_at_a_time(gan: HFGan, monkeypatch) -> None:
    w = samples(gan.generator, 10)
    whole, drawn = gan.nearest_modes(w, assignment="perceptual"), []
    monkeypatch.setattr(modes, "BATCH", 4)
    hook = gan.generator.synthesis.register_forward_pre_hook(lambda _, given: drawn.append(len(given[0])))
    assert torch.equal(gan.nearest_modes(w, assignment="perceptual"), whole)
    hook.remove()
    assert drawn == [4, 4, 2]


def test_random_modes_are_even_and_weights_are_kept(gan: HFGan) -> None:
    counts = np.bincount(gan.sample(400, seed=0, mode="random", batch_size=100).modes, minlength=NUM_MODES)
    assert counts.min() > 50
    weighted = gan.sample(300, seed=0, mode=np.array([3, 0, 1, 0, 0.0]), batch_size=100).modes
    assert set(weighted) == {0, 2}
    assert 190 < weighted.count(0) < 260


def test_random_never_asks_for_a_mode_without_samples(gan: HFGan) -> None:
    bank = ModeBank.from_config(gan.modes.config)
    bank.load_state_dict(gan.modes.state_dict())
    bank.centers[4], bank.counts[4] = 1e3, 0
    toy = HFGan(generator=gan.generator, modes=bank)
    assert 4 not in toy.sample(60, seed=0, mode="random").modes
    says = r"none of 8192 draws of seed 3 fell into mode 4, which held 0 of \d+ samples: choose another mode"
    with pytest.raises(ValueError, match=says):
        toy.sample(seed=3, mode=4)


def test_truncation_none_and_global(gan: HFGan) -> None:
    free = gan.sample(2, seed=0, truncation="none", truncation_psi=0.2)
    assert torch.equal(free.w_plus, sampling.broadcast(free.w, gan.generator.num_ws))
    assert (free.recipes[0]["truncation_psi"], free.recipes[0]["mode"], free.recipes[0]["modes"]) == (1.0, None, None)
    assert gan.sample(2, seed=0, truncation="global").images == gan.sample(2, seed=0).images
    within = gan.sample(2, seed=0, truncation="none", mode=1)
    assert within.modes == [1, 1]
    assert torch.equal(within.w_plus[:, 0], within.w)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"truncation": "local"}, "truncation is 'local': expected 'global', 'multimodal', 'none' or None"),
        ({"truncation": "global", "mode": 2}, "truncation is 'global' and mode is 2: leave one of them out"),
        ({"mode": 5}, "mode is 5: this model has modes 0 to 4"),
        ({"mode": -1}, "mode is -1: expected a whole number of 0 or more"),
        ({"mode": True}, "mode is True"),
        ({"mode": 1.0}, r"mode is 1\.0"),
        ({"mode": "3"}, "mode is '3': expected an index, 'nearest', 'random', or 5 weights"),
        ({"mode": [1, 1]}, "mode is no list of 5 weights of 0 or more, not all 0"),
        ({"mode": [0] * 5}, "mode is no list of 5 weights"),
        ({"mode": [1, 1, 1, 1, -1]}, "mode is no list of 5 weights"),
        ({"mode": [1, 1, 1, 1, float("nan")]}, "mode is no list of 5 weights"),
        ({"mode": [1e308] * 5}, "mode is no list of 5 weights"),
        ({"mode": ["a"] * 5}, "mode is no list of 5 weights"),
        ({"mode": {}}, "mode is no list of 5 weights"),
        ({"mode": 1, "assignment": "cosine"}, "assignment is 'cosine': expected 'l2' or 'perceptual', or None"),
        ({"assignment": "cosine"}, "assignment is 'cosine': expected 'l2' or 'perceptual', or None"),
        ({"mode": 1, "assignment": "l2"}, "assignment is 'l2', but no nearest mode is sought: leave it out"),
        ({"mode": [1] * 5, "assignment": "l2"}, "but no nearest mode is sought"),
        ({"mode": "random", "assignment": "perceptual"}, "but no nearest mode is sought: leave it out"),
        ({"truncation": "global", "assignment": "l2"}, "but no nearest mode is sought"),
        ({"truncation": "none", "assignment": "l2"}, "but no nearest mode is sought"),
        ({"mode": "3", "assignment": "l2"}, "mode is '3': expected an index"),
        ({"mode": 1, "truncation_psi": (0.5, 0.5, 0.5)}, "or a pair of them"),
        ({"truncation": "none", "truncation_psi": "much"}, "truncation_psi is 'much'"),
        ({"mode": 1, "truncation_psi": (0.5, float("nan"))}, "truncation_psi is"),
    ],
)
def test_wrong_modes_are_refused(gan: HFGan, given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        gan.sample(seed=0, **given)


def test_without_modes_the_stage_is_named() -> None:
    plain = HFGan(generator=make_generator())
    for how in ({"mode": 1}, {"truncation": "multimodal"}):
        with pytest.raises(RuntimeError, match=r"no modes: .* `accelerate launch training/train.py modes`"):
            plain.sample(**how)


def test_classes_keep_their_label_in_a_mode() -> None:
    generator = make_generator(c_dim=2)
    z = torch.randn(600, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        w = generator.mapping(z, torch.eye(2)[torch.arange(600) % 2])
    toy = HFGan(generator=generator, modes=modes.make_bank(generator, w, modes.fit_modes(w, 3)))
    out = toy.sample(3, seed=0, mode="random", label=1)
    assert [recipe["label"] for recipe in out.recipes] == [1, 1, 1]
    assert modes.nearest_mode(out.w, toy.modes).tolist() == out.modes
    torch.testing.assert_close(toy.replay(out.recipes[2]).w_plus, out.w_plus[2:])


# ---------------------------------------------------------------- recipes


def test_a_picture_of_a_mode_is_replayed_without_assignment(gan: HFGan, tmp_path: Path, monkeypatch) -> None:
    out = gan.sample(3, seed=20, mode="random", truncation_psi=0.4, noise_mode="random")
    save_png(out.images[2], tmp_path / "a.png", out.recipes[2])
    recipe = read_recipe(tmp_path / "a.png")
    assert recipe["modes"] == gan.modes.fingerprint()
    monkeypatch.delattr(modes, "nearest_l2")
    again = gan.replay(tmp_path / "a.png")
    assert levels(again.images[0], out.images[2]) <= 1
    assert again.recipes == [out.recipes[2]] == [recipe]
    assert again.modes == [out.modes[2]]


def test_mixes_carry_the_modes_that_they_use(gan: HFGan) -> None:
    plain, modal = gan.sample(2, seed=0), gan.sample(seed=7, mode=3)
    mixed = gan.mix(plain, modal, "0-3")
    assert [recipe["modes"] for recipe in mixed.recipes] == [gan.modes.fingerprint()] * 2
    assert mixed.modes == [None, None]
    again = gan.replay(json.loads(json.dumps(mixed.recipes[1])))
    torch.testing.assert_close(again.w_plus, mixed.w_plus[1:])
    assert again.recipes == mixed.recipes[1:]
    hidden = gan.mix(plain, gan.mix(plain[0], modal, "0-1"), "4")
    assert hidden.recipes[0]["modes"] is None


def test_other_modes_are_refused(gan: HFGan) -> None:
    out = gan.sample(seed=0, mode=1)
    centers = gan.modes.centers + 0.1
    other = HFGan(generator=gan.generator, modes=modes.make_bank(gan.generator, samples(gan.generator), centers))
    says = f"drawn with the modes {gan.modes.fingerprint()} .* loaded model has the modes {other.modes.fingerprint()}"
    for refused in (lambda: other.replay(out.recipes[0]), lambda: other.mix(out, out, "0")):
        with pytest.raises(ValueError, match=says):
            refused()
    with pytest.raises(ValueError, match="loaded model has no modes: load it with the modes that drew it"):
        HFGan(generator=gan.generator).replay(out.recipes[0])
    assert other.replay(gan.sample(seed=0).recipes[0]).images
    recipe = out.recipes[0]
    for wrong, told in (({"mode": 5}, "mode is 5"), ({"mode": "1"}, "mode is '1'"), ({"mode": True}, "mode is True")):
        with pytest.raises(ValueError, match=told):
            gan.replay(recipe | wrong)


# ---------------------------------------------------------------- interpolated


def steps(frames: list[Image.Image]) -> list[float]:
    """Mean difference of neighbours [levels of 255]."""
    return [np.abs(np.asarray(a, float) - np.asarray(b, float)).mean() for a, b in itertools.pairwise(frames)]


@pytest.mark.parametrize("kind", ["z", "slerp"])
@pytest.mark.parametrize("assignment", ["l2", "perceptual"])
def test_a_way_between_modes_ends_exactly_and_does_not_jump(gan: HFGan, kind: str, assignment: str) -> None:
    out = gan.sample(30, seed=0, truncation="multimodal", truncation_psi=0.3, assignment=assignment)
    pair = next((i, j) for i in range(30) for j in range(30) if out.modes[i] != out.modes[j])
    a, b = out[pair[0]], out[pair[1]]
    frames = gan.interpolate(a, b, 60, kind)
    assert levels(frames[0], a.images[0]) <= 1
    assert levels(frames[-1], b.images[0]) <= 1
    ends = sampling.latents_from_seeds([*a.seeds, *b.seeds], 16)
    z = sampling.interpolate(ends[0], ends[1], 60, "lerp" if kind == "z" else kind)
    with torch.no_grad():
        w = gan.generator.mapping(z)
    hard = gan.modes.centers[modes.nearest_mode(w, gan.modes)]
    jumps = gan.render(sampling.truncate(sampling.broadcast(w, gan.generator.num_ws), hard, 0.3))
    assert max(steps(jumps)) > 5 * max(steps(frames))
    finer = gan.interpolate(a, b, 240, kind)  # a jump would stay as large as it is
    assert max(steps(finer)) < 0.5 * max(steps(frames))


def test_a_way_between_samples_drawn_from_modes(gan: HFGan) -> None:
    a, b = gan.sample(seed=1, mode=4), gan.sample(seed=2, mode=0)
    assert a.recipes[0]["draw"] + b.recipes[0]["draw"] > 0
    frames = gan.interpolate(a, b, 5, "slerp")
    assert levels(frames[0], a.images[0]) <= 1
    assert levels(frames[-1], b.images[0]) <= 1
    says = "kind='z' needs unmixed samples of equal truncation and label, both with a mode or neither"
    for other in (gan.sample(seed=2), gan.sample(seed=2, mode=0, truncation_psi=0.5)):
        with pytest.raises(ValueError, match=says):
            gan.interpolate(a, other, 5, "z")
        assert len(gan.interpolate(a, other, 5)) == 5


# ---------------------------------------------------------------- imported


CENTERS = torch.randn(4, 16, generator=torch.Generator().manual_seed(5))


def save_array(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return path


def folder_of(path: Path, shape: tuple[int, ...]) -> Path:
    """One center per file, repeated along the layers, written last first."""
    for i in reversed(range(4)):
        save_array(path / f"center_{i:02}.npy", np.broadcast_to(CENTERS[i].numpy(), shape))
    return path


def save_buffer(path: Path, name: str) -> Path:
    save_file({name: CENTERS.clone(), "synthesis.const": torch.zeros(2)}, path)
    return path


FORMS: dict[str, tuple[Callable[[Path], Path], int]] = {
    "array": (lambda p: save_array(p / "a.npy", CENTERS.numpy()), 4),
    "array of doubles": (lambda p: save_array(p / "a.npy", CENTERS.double().numpy()), 4),
    "one center, 4 axes": (lambda p: save_array(p / "a.npy", CENTERS[:1].expand(1, 1, 10, 16).numpy()), 1),
    "one center, 3 axes": (lambda p: save_array(p / "a.npy", CENTERS[:1].expand(1, 10, 16).numpy()), 1),
    "folder, 4 axes": (lambda p: folder_of(p / "f", (1, 1, 10, 16)), 4),
    "folder, 3 axes": (lambda p: folder_of(p / "f", (1, 10, 16)), 4),
    "buffer": (lambda p: save_buffer(p / "g.safetensors", "w_centers"), 4),
    "nested buffer": (lambda p: save_buffer(p / "g.safetensors", "style_net.w_centers"), 4),
}


@pytest.mark.parametrize("form", FORMS)
def test_centers_are_read_in_every_form(tmp_path: Path, form: str) -> None:
    write, count = FORMS[form]
    found = modes.read_centers(write(tmp_path))
    assert found.dtype == torch.float32
    assert torch.equal(found, CENTERS[:count])


def unequal_rows(path: Path) -> Path:
    rows = CENTERS[:1].repeat(10, 1).numpy()
    rows[7, 2] += 1e-3
    return save_array(path / "a.npy", rows[None, None])


def two_widths(path: Path) -> Path:
    save_array(path / "a.npy", np.zeros((1, 16), np.float32))
    return save_array(path / "b.npy", np.zeros((1, 8), np.float32)).parent


def write_bytes(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def truncated(path: Path) -> Path:
    return write_bytes(path / "b.npy", save_array(path / "a.npy", CENTERS.numpy()).read_bytes()[:-9])


def zipped(path: Path) -> Path:
    np.savez(path / "a.npz", CENTERS.numpy())
    return (path / "a.npz").rename(path / "a.npy")


BROKEN: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda p: p / "no.npy", "no.npy does not exist: expected centers as .npy"),
    "empty folder": (lambda p: p, "holds no .npy file"),
    "unequal rows": (unequal_rows, r"shape \[1, 1, 10, 16\]: expected .* L equal rows"),
    "several of many layers": (lambda p: save_array(p / "a.npy", np.zeros((3, 10, 16))), r"shape \[3, 10, 16\]"),
    "one axis": (lambda p: save_array(p / "a.npy", np.zeros(16)), r"shape \[16\]"),
    "no rows": (lambda p: save_array(p / "a.npy", np.zeros((0, 16))), r"shape \[0, 16\]"),
    "no layers": (lambda p: save_array(p / "a.npy", np.zeros((1, 0, 16))), r"shape \[1, 0, 16\]"),
    "infinity": (lambda p: save_array(p / "a.npy", np.full((2, 16), np.inf)), "holds NaN or infinity"),
    "integers": (lambda p: save_array(p / "a.npy", np.zeros((2, 16), int)), "holds a int64: expected one array"),
    "objects": (lambda p: save_array(p / "a.npy", np.array([{}, {}])), "reads without pickle"),
    "several arrays": (zipped, "holds a NpzFile: expected one array"),
    "truncated": (truncated, "b.npy is no array that numpy reads"),
    "no array": (lambda p: write_bytes(p / "a.npy", b"hello"), "a.npy is no array that numpy reads"),
    "empty file": (lambda p: write_bytes(p / "a.npy", b""), "a.npy is no array that numpy reads"),
    "two widths": (two_widths, r"centers of different w_dim \[8, 16\]"),
    "no buffer": (lambda p: save_buffer(p / "g.safetensors", "w_avg"), "has 0 tensors called w_centers"),
    "no safetensors": (lambda p: write_bytes(p / "g.safetensors", b"hello"), "is not a safetensors file"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_centers_are_one_sentence(tmp_path: Path, fault: str) -> None:
    write, says = BROKEN[fault]
    with pytest.raises((ValueError, FileNotFoundError), match=says) as caught:
        modes.read_centers(write(tmp_path))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- the stage


def run_stage(*flags: object, fails: bool = False) -> str:
    """Run the stage; returns what it says."""
    told = do("modes", *map(str, flags), fails=fails)
    assert "Traceback" not in told
    return told


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy(tmp_path_factory.mktemp("models") / "toy-16")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_stage_writes_the_model_with_its_modes_and_the_same_bytes_again(toy: Path, tmp_path: Path) -> None:
    flags = ("--model", toy, "--num-modes", 6, "--samples", 500, "--assignment", "perceptual")
    told = run_stage(*flags, "--out", tmp_path / "a")
    assert "agreement" in told
    found, before = HFGan.from_pretrained(tmp_path / "a" / "model"), HFGan.from_pretrained(toy)
    assert found.generator.fingerprint() == before.generator.fingerprint()
    assert len(found.modes.counts) == 6
    assert found.modes.config.assignment == "perceptual"
    assert found.sample(2, seed=0, truncation="multimodal").modes
    report = json.loads((tmp_path / "a" / "modes.json").read_text())
    assert report["counts"] == found.modes.counts.tolist()
    assert sum(report["counts"]) == 500
    shares = np.array(report["counts"]) / 500
    assert report["entropy_bits"] == pytest.approx(-(shares * np.log2(shares)).sum(), abs=1e-4)
    assert 0 <= report["agreement"] <= 1
    assert report["compared"] == 2000
    assert 0 < report["l2_ms_per_sample"] < report["perceptual_ms_per_sample"]
    assert Image.open(tmp_path / "a" / "modes.png").size == (3 * 64, 2 * 78)
    first = contents(tmp_path / "a")
    assert "is complete" in run_stage(*flags, "--out", tmp_path / "a")
    assert contents(tmp_path / "a") == first
    run_stage(*flags, "--out", tmp_path / "b")
    second = contents(tmp_path / "b")
    written = {name for name in first if name.startswith("model/")} | {"modes.png"}
    assert {name: first[name] for name in written} == {name: second[name] for name in written}
    assert "--num-modes was 6, now 7" in run_stage(*flags, "--num-modes", 7, "--out", tmp_path / "a", fails=True)


@pytest.mark.parametrize("space", ["whitened", "features"])
def test_stage_looks_in_other_spaces_and_draws_classes_in_turn(tmp_path: Path, space: str) -> None:
    toy = save_toy(tmp_path / "classes", c_dim=3)
    flags = ("--num-modes", 4, "--samples", 200, "--space", space)
    run_stage("--model", toy, "--out", tmp_path / "out", *flags)
    found = HFGan.from_pretrained(tmp_path / "out" / "model")
    assert found.modes.config.space == space
    assert found.modes.counts.min() > 0
    assert found.sample(mode=0, label=2).modes == [0]


def test_stage_imports_centers(toy: Path, tmp_path: Path) -> None:
    path = folder_of(tmp_path / "centers", (1, 1, 6, 16))
    run_stage("--model", toy, "--out", tmp_path / "out", "--samples", 200, "--import-centers", path)
    bank = HFGan.from_pretrained(tmp_path / "out" / "model").modes
    assert sorted(bank.centers.tolist()) == sorted(CENTERS.tolist())
    assert bank.counts.sum() == 200
    wrong = save_array(tmp_path / "wrong.npy", np.zeros((3, 8), np.float32))
    moved = save_array(path / "center_03.npy", np.full((1, 6, 16), 0.5, np.float32))
    again = ("--model", toy, "--out", tmp_path / "out", "--samples", 200, "--import-centers", path)
    run_stage(*again)
    assert np.load(moved)[0, 0].tolist() in HFGan.from_pretrained(tmp_path / "out" / "model").modes.centers.tolist()
    assert "is complete" in run_stage(*again)
    assert "--num-modes is about clusters to be found" in run_stage(*again, "--num-modes", 4, fails=True)
    flags = ("--model", toy, "--samples", 200, "--out", tmp_path / "wrong")
    assert "do not fit this model" in run_stage(*flags, "--import-centers", wrong, fails=True)


def test_stage_takes_over_every_new_part_and_leaves_none_of_an_earlier_model(tmp_path: Path) -> None:
    source, out = save_toy(tmp_path / "toy"), tmp_path / "out" / "model"
    flags = ("--model", source, "--out", out.parent, "--num-modes", 1, "--samples", 50)

    def with_encoder(seed: int) -> str:
        generator = HFGan.from_pretrained(source).generator
        torch.manual_seed(seed)
        gan = HFGan(generator=generator, reconstructor=ReconstructionEncoder.beside(generator, None))
        gan.save_pretrained(source)
        return gan.reconstructor.fingerprint()

    for seed in (1, 2):
        fingerprint = with_encoder(seed)
        assert "entropy_bits: 0\n" in run_stage(*flags)
        assert HFGan.from_pretrained(out).reconstructor.fingerprint() == fingerprint
    shutil.rmtree(source)
    save_toy(source, seed=3)
    run_stage(*flags)
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "generator", "model_index.json", "modes"]
    assert HFGan.from_pretrained(source).generator.fingerprint() in (out / "README.md").read_text()


def test_stage_refuses_what_cannot_be_done(toy: Path, tmp_path: Path) -> None:
    inside = save_toy(tmp_path / "run" / "model")
    before = contents(tmp_path / "run")
    assert "would overwrite the model" in run_stage("--model", inside, "--out", tmp_path / "run", fails=True)
    assert contents(tmp_path / "run") == before
    for wrong in (("--samples", -5), ("--samples", 0), ("--num-modes", 0)):
        told = run_stage("--model", toy, "--out", tmp_path / "out", *wrong, fails=True)
        assert told == f"{wrong[0]} is {wrong[1]}: give 1 or more\n"
    flags = ("--model", toy, "--out", tmp_path / "out", "--samples", 50)
    assert "expected at most 50 for 50 samples" in run_stage(*flags, fails=True)
    assert "no-such-model" in run_stage("--model", "no-such-model", "--out", tmp_path / "x", fails=True)


def test_fewer_large_pictures_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TRAIN.parent)
    stage = importlib.import_module("modes")
    sizes = {"channel_base": 256, "channel_max": 8, "z_dim": 16, "w_dim": 16, "mapping_layers": 1}
    monkeypatch.setattr(stage, "COMPARED_PIXELS", 150 * 16**2)
    generator = StyleGAN2Generator(resolution=16, **sizes).requires_grad_(False)
    w = generator.mapping(torch.randn(50, 16))
    bank = modes.make_bank(generator, w, w[:3])
    assert stage.compare(generator, bank, 0)["compared"] == 150
    monkeypatch.setattr(stage, "COMPARED_PIXELS", 1)
    assert stage.compare(generator, bank, 0)["compared"] == 100
