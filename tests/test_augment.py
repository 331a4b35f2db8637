"""Augmentation: what it does to known pictures, what it leaves alone, its randomness, its gradients, its control."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hfgan.augment import adapt_probability, augment, diff_augment, shift_each


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int = 4, channels: int = 3, size: int = 16) -> Tensor:
    """Smooth random pictures, so that a warp is no noise: (n, channels, size, size) in [-1, 1]."""
    coarse = torch.rand(n, channels, 4, 4, generator=source(9)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")


def test_nothing_happens_at_zero() -> None:
    image = pictures()
    assert torch.equal(augment(image, 0.0, source()), image)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("change", [lambda x, g: augment(x, 0.9, g), diff_augment])
def test_shape_dtype_range_and_repeatability(change, dtype: torch.dtype, channels: int) -> None:
    image = pictures(channels=channels).to(dtype)
    shown = change(image, source(1))
    assert shown.shape == image.shape
    assert shown.dtype == dtype
    assert shown.isfinite().all()
    assert shown.abs().max() < 10
    assert torch.equal(shown, change(image, source(1)))
    assert not torch.equal(shown, change(image, source(2)))


@pytest.mark.parametrize("change", [lambda x, g: augment(x, 1.0, g), diff_augment])
def test_global_randomness_is_not_used(change) -> None:
    before = torch.get_rng_state()
    change(pictures(), source())
    assert torch.equal(before, torch.get_rng_state())


def test_samples_are_treated_alone() -> None:
    """With equal pictures in a batch, each is shown in its own way."""
    image = pictures(1).repeat(8, 1, 1, 1)
    shown = augment(image, 1.0, source())
    assert all(not torch.equal(shown[0], other) for other in shown[1:])


def test_probability_is_the_share_of_changed_samples() -> None:
    image = pictures(400, size=32)
    for p in (0.02, 0.2):
        changed = (augment(image, p, source(3)) - image).abs().amax(dim=(1, 2, 3)).gt(1e-4)
        # nine transformations, one of them (the flip) at half the probability
        assert abs(changed.float().mean() - (1 - (1 - p) ** 8 * (1 - p / 2))) < 0.06


def test_gradients_reach_every_sample() -> None:
    image = pictures(6).requires_grad_()
    for change in (lambda x: augment(x, 0.8, source(4)), lambda x: diff_augment(x, source(4))):
        (grad,) = torch.autograd.grad(change(image).square().sum(), image, create_graph=True)
        assert grad.isfinite().all()
        assert grad.abs().amax(dim=(1, 2, 3)).gt(0).all()


def test_diff_augment_cuts_a_square_of_half_the_side() -> None:
    shown = diff_augment(torch.full((64, 3, 32, 32), 5.0), source())
    cut = (shown == 0).all(dim=1).flatten(1).sum(dim=1)
    assert cut.max() >= 16 * 16
    assert cut.min() >= 8 * 8  # a square centred in a corner is cut to a quarter


# --- the controller --------------------------------------------------------------------------------------


def test_layers_move_together_sideways_and_down() -> None:
    layers = torch.zeros(64, 2, 16, 16)
    layers[:, :, 8, 8] = 1
    moved = shift_each(layers, 0.25, torch.Generator().manual_seed(0))
    assert torch.equal(moved[:, 0], moved[:, 1])
    assert moved.sum() == layers.sum()
    where = moved[:, 0].nonzero()[:, 1:] - 8
    assert where[:, 0].min() == 0
    assert where[:, 0].max() == 4
    assert where[:, 1].min() == -4
    assert where[:, 1].max() == 4
    assert torch.equal(shift_each(layers, 0.0, torch.Generator()), layers)


def control(p: float, sign_mean: float, images: int = 1000, cap: float = 0.8) -> float:
    return adapt_probability(p, sign_mean, images, target=0.6, images_to_one=100_000, cap=cap)


def test_controller_moves_toward_the_target() -> None:
    assert control(0.2, 0.9) == pytest.approx(0.21)
    assert control(0.2, 0.1) == pytest.approx(0.19)


def test_controller_stays_between_zero_and_the_cap() -> None:
    assert control(0.0, -1.0) == 0.0
    assert control(0.8, 1.0) == 0.8
    assert control(0.005, 0.0) == 0.0
    p = 0.0
    for _ in range(200):
        p = control(p, 1.0, cap=0.5)
    assert p == 0.5
    assert not math.isnan(p)
