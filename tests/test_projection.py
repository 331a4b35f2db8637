"""The searches from the mean at toy size: they find what was drawn, and answer as refinement does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hfgan import StyleGAN2Generator
from hfgan.models.perceptual import load_perceptual
from hfgan.projection import image2stylegan, project, w_statistics, whiten
from hfgan.refinement import Refined, Target
from hfgan.sampling import broadcast

NET = load_perceptual()
SEARCHES = [project, image2stylegan]


@pytest.fixture
def generator() -> StyleGAN2Generator:
    torch.manual_seed(0)
    sizes = {"z_dim": 16, "w_dim": 16, "mapping_layers": 1, "channel_base": 256, "channel_max": 16}
    return StyleGAN2Generator(resolution=16, **sizes).eval()


def drawn(generator: StyleGAN2Generator, count: int = 2) -> Tensor:
    z = torch.randn(count, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return generator.synthesis(broadcast(generator.mapping(z), generator.num_ws)).clamp(-1, 1)


def error(generator: StyleGAN2Generator, image: Tensor, found: Refined) -> Tensor:
    noise = found.noise or [c.noise_const[None, None] for b in generator.synthesis.blocks for c in b.convs()]
    with torch.no_grad():
        return Target.of(image, None, 16, NET).loss(generator.synthesis.draw(found.w_plus, noise))


@pytest.mark.parametrize("search", SEARCHES)
def test_a_drawn_image_is_found_better_than_the_mean(generator: StyleGAN2Generator, search: Callable) -> None:
    image, steps = drawn(generator), 60
    mean = w_statistics(generator)[0].expand(2, generator.num_ws, -1)
    start = error(generator, image, Refined(mean, None, torch.zeros(0)))
    found = search(generator, image, net=NET, steps=steps)
    assert found.errors.shape == (steps + 1, 2)
    assert (found.errors[-1] < 0.7 * start).all()
    torch.testing.assert_close(error(generator, image, found), found.errors[-1])


@pytest.mark.parametrize("search", SEARCHES)
def test_as_refinement(generator: StyleGAN2Generator, search: Callable) -> None:
    """Outside has no influence, the same again, samples by themselves, and an end when asked for."""
    image, interest = drawn(generator), torch.zeros(2, 1, 16, 16)
    interest[:, :, 4:12, 3:11] = 1
    found = search(generator, image, interest, net=NET, steps=8)
    other = torch.where(interest > 0, image, -image)
    assert torch.equal(search(generator, other, interest, net=NET, steps=8).w_plus, found.w_plus)
    alone = search(generator, image[1:], interest[1:], net=NET, steps=8)
    torch.testing.assert_close(alone.w_plus[0], found.w_plus[1], rtol=0, atol=5e-3)
    seen = []
    search(generator, image, net=NET, steps=8, keep_going=lambda step: seen.append(step.index) or step.index < 3)
    assert seen == [1, 2, 3]
    with pytest.raises(ValueError, match="interest of photo 0 is empty"):
        search(generator, image, interest * 0, net=NET, steps=1)


def test_what_is_free_in_each(generator: StyleGAN2Generator) -> None:
    """One w and noise here, every layer's own w there; jitter is of the seed."""
    image, stored = drawn(generator, 1), generator.synthesis.blocks[-1].conv1.noise_const.clone()
    one, layers = project(generator, image, net=NET, steps=10), image2stylegan(generator, image, net=NET, steps=10)
    assert (one.w_plus == one.w_plus[:, :1]).all()
    assert (layers.w_plus != layers.w_plus[:, :1]).any()
    assert layers.noise is None
    for noise in one.noise:
        assert noise.mean().abs() < 1e-5
        assert (noise.square().mean() - 1).abs() < 1e-4
    assert torch.equal(generator.synthesis.blocks[-1].conv1.noise_const, stored)
    assert not torch.equal(project(generator, image, net=NET, steps=10, seed=1).w_plus, one.w_plus)


def test_statistics_and_white_noise() -> None:
    torch.manual_seed(0)
    generator = StyleGAN2Generator(resolution=16, z_dim=8, w_dim=4, mapping_layers=1, c_dim=3, channel_base=64)
    mean, spread = w_statistics(generator)
    z = torch.randn(20_000, 8)
    with torch.no_grad():
        w = generator.mapping(z, torch.eye(3).repeat(6667, 1)[:20_000])
    torch.testing.assert_close(mean, w.mean(0), rtol=0, atol=0.02)
    assert abs(spread - w.var(0).sum().sqrt().item()) < 0.02
    noise = torch.randn(2, 1, 8, 8) * 3 + 1
    whiten(noise)
    torch.testing.assert_close(noise.mean((2, 3)), torch.zeros(2, 1), rtol=0, atol=1e-6)
    torch.testing.assert_close(noise.var((2, 3), correction=0), torch.ones(2, 1))
