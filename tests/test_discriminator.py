"""The discriminator against the published formulation in float64, its groups, its features."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bench import reference
from torch import Tensor

from hfgan.models.discriminator import StyleGAN2Discriminator
from hfgan.models.layers import minibatch_stddev

TOY: dict[str, Any] = {"resolution": 16, "img_channels": 3, "c_dim": 0, "channel_base": 256, "channel_max": 24}


def toy(**changes: Any) -> StyleGAN2Discriminator:
    """A small discriminator in which no bias is zero."""
    torch.manual_seed(0)
    model = StyleGAN2Discriminator(**(TOY | changes)).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("bias"):
                value.add_(torch.randn_like(value) * 0.3)
    return model


def pictures(n: int, model: StyleGAN2Discriminator, seed: int = 1) -> Tensor:
    shape = (n, model.config.img_channels, model.config.resolution, model.config.resolution)
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def truth_of(model: StyleGAN2Discriminator, image: Tensor, c: Tensor | None = None, **how: Any) -> Tensor:
    tree = reference.nest(reference.flat_state(model))
    return reference.discriminator(tree, image.double(), None if c is None else c.double(), **how)


def error(logits: Tensor, truth: Tensor) -> float:
    return ((logits.double() - truth).square().mean().sqrt() / truth.square().mean().sqrt()).item()


@pytest.mark.parametrize("changes", [
    {},
    {"img_channels": 1},
    {"img_channels": 4},
    {"resolution": 64, "channel_base": 1024, "channel_max": 32},
    {"resolution": 256, "channel_base": 1024, "channel_max": 16},
], ids=str)  # fmt: skip
@torch.no_grad()
def test_equals_the_reference(changes: dict[str, Any]) -> None:
    model = toy(**changes)
    image = pictures(4, model)
    logits = model(image)
    assert logits.shape == (4, 1)
    assert logits.dtype == torch.float32
    assert error(logits, truth_of(model, image)) < 1e-5


@torch.no_grad()
def test_classes() -> None:
    model = toy(c_dim=4)
    image, c = pictures(4, model), torch.eye(4)
    logits = model(image, c)
    assert logits.shape == (4, 1)
    assert error(logits, truth_of(model, image, c)) < 1e-5
    assert error(model(image, c.roll(1, 0)), logits.double()) > 1e-2
    with pytest.raises(ValueError, match="4 classes"):
        model(image)


@pytest.mark.parametrize("clamp", [0.5, 256.0])
@torch.no_grad()
def test_clamp(clamp: float) -> None:
    model = toy(conv_clamp=clamp)
    image = pictures(4, model)
    logits = model(image)
    assert error(logits, truth_of(model, image, clamp=clamp)) < 1e-5
    assert (error(logits, truth_of(model, image)) > 1e-3) == (clamp == 0.5)


# batch, configured group, samples that end up in a group: the largest divisor of the batch not above the group
@pytest.mark.parametrize(("batch", "group", "size"), [
    (8, 4, 4), (6, 4, 3), (5, 4, 1), (2, 4, 2), (1, 4, 1), (6, None, 6), (9, 6, 3),
])  # fmt: skip
@torch.no_grad()
def test_groups(batch: int, group: int | None, size: int) -> None:
    model = toy(mbstd_group=group)
    image = pictures(batch, model)
    assert error(model(image), truth_of(model, image, group=size)) < 1e-5


@torch.no_grad()
def test_deviation_of_several_channels() -> None:
    model = toy(mbstd_channels=2)
    image = pictures(4, model)
    assert error(model(image), truth_of(model, image, channels=2)) < 1e-5
    x = torch.randn(4, 6, 2, 2)
    torch.testing.assert_close(minibatch_stddev(x, 2, 3), reference.minibatch_stddev(x, 2, 3))


@torch.no_grad()
def test_features_are_the_maps_of_each_resolution() -> None:
    model = toy()
    image = pictures(2, model)
    maps = model.features(image)
    assert [tuple(x.shape) for x in maps] == [(2, 16, 16, 16), (2, 24, 8, 8), (2, 24, 4, 4)]
    alone = model.features(image[:1])
    for both, single in zip(maps, alone, strict=True):
        torch.testing.assert_close(both[:1], single, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_low_precision_is_near() -> None:
    model = toy(resolution=64, channel_base=1024, channel_max=32)
    image = pictures(8, model)
    truth = truth_of(model, image)
    for dtype in (torch.bfloat16, torch.float16):
        logits = model.set_compute_dtype(dtype)(image)
        assert logits.dtype == torch.float32
        assert 1e-6 < error(logits, truth) < 2e-2


@torch.no_grad()
def test_a_new_network_keeps_its_activations_in_range() -> None:
    torch.manual_seed(0)
    model = StyleGAN2Discriminator(resolution=32, channel_base=1024, channel_max=64)
    for x in model.features(torch.randn(8, 3, 32, 32)):
        assert 0.3 < x.std() < 3
    assert model(torch.randn(8, 3, 32, 32)).abs().max() < 10
