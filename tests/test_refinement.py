"""Refinement at toy size: never worse, nothing of the outside, each sample by itself, an end when asked for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hfgan import StyleGAN2Generator
from hfgan.models.perceptual import load_perceptual
from hfgan.refinement import Refined, Step, Target, autocorrelation, in_float32, refine
from hfgan.sampling import broadcast

NET = load_perceptual()
SIZES = {"resolution": 16, "z_dim": 16, "w_dim": 16, "mapping_layers": 1, "channel_base": 256, "channel_max": 16}


@pytest.fixture
def generator() -> StyleGAN2Generator:
    torch.manual_seed(0)
    generator = StyleGAN2Generator(**SIZES).eval()
    with torch.no_grad():
        for block in generator.synthesis.blocks:
            for conv in block.convs():
                conv.noise_strength.fill_(0.2)
            block.torgb.weight.mul_(0.5)
    return generator


def latents(generator: StyleGAN2Generator, count: int, seed: int = 1) -> Tensor:
    z = torch.randn(count, 16, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return broadcast(generator.mapping(z), generator.num_ws)


def photos(count: int, channels: int = 3) -> Tensor:
    coarse = torch.rand(count, channels, 4, 4, generator=torch.Generator().manual_seed(2)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, (16, 16), mode="bilinear")


def regions(count: int) -> Tensor:
    """A frame for each photo, each a little farther to the right."""
    interest = torch.zeros(count, 1, 16, 16)
    for i in range(count):
        interest[i, :, 3:13, 2 + i : 11 + i] = 1
    return interest


def run(generator: StyleGAN2Generator, rows: slice = slice(3), image: Tensor | None = None, **how: object) -> Refined:
    image = photos(3) if image is None else image
    given = {"w_std": torch.full((16,), 0.7), "net": NET, "steps": 12} | how
    return refine(generator, latents(generator, 3)[rows], image[rows], regions(3)[rows], **given)


def loss_of(generator: StyleGAN2Generator, found: Refined, rows: slice = slice(3)) -> Tensor:
    with torch.no_grad():
        target = Target.of(photos(3)[rows], regions(3)[rows], 16, NET)
        return target.loss(generator.synthesis(found.w_plus))


# ---------------------------------------------------------------- the loss


def test_the_loss_is_the_written_one(generator: StyleGAN2Generator) -> None:
    """Squared error over the interest whatever its area, and 0.8 of a distance that only the inside takes part in."""
    drawn, interest = generator.synthesis(latents(generator, 3)).detach(), regions(3)
    target = Target.of(photos(3), interest, 16, NET)
    error = ((drawn - photos(3)).square() * interest).sum((1, 2, 3)) / (3 * interest.sum((1, 2, 3)))
    torch.testing.assert_close(target.pixel_error(drawn), error)

    def enlarged(image: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(image, (64, 64), mode="bicubic", antialias=True).clamp(-1, 1)

    pasted = torch.where(interest > 0, drawn, target.image)
    expected = error + 0.8 * NET.distance(enlarged(pasted), enlarged(target.image), interest)
    torch.testing.assert_close(target.loss(drawn), expected)
    assert torch.equal(target.image * interest, photos(3) * interest)


def test_nothing_outside_has_a_gradient() -> None:
    drawn = photos(3).flip(3).requires_grad_()
    (slope,) = torch.autograd.grad(Target.of(photos(3), regions(3), 16, NET).loss(drawn).sum(), drawn)
    assert not (slope * (1 - regions(3))).any()
    assert (slope * regions(3)).any()


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_images(channels: int) -> None:
    """They are compared on white, as RGB; a picture has no distance from itself."""
    image = photos(2, channels)
    assert Target.of(image, regions(2), 16, NET).loss(image).tolist() == [0, 0]
    assert Target.of(image, None, 16, NET).inside.all()


def test_large_photos_are_seen_at_the_size_of_the_model() -> None:
    image, interest = photos(2).repeat_interleave(4, 2).repeat_interleave(4, 3), regions(2)
    large = Target.of(image, interest.repeat_interleave(4, 2).repeat_interleave(4, 3), 16, NET)
    torch.testing.assert_close(large.image * interest, photos(2) * interest)
    assert torch.equal(large.inside, interest)
    huge = torch.rand(1, 3, 512, 512)
    assert Target.of(huge, None, 512, NET).features[0].shape == NET.features(torch.zeros(1, 3, 256, 256))[0].shape


def test_an_empty_interest_is_refused() -> None:
    interest = regions(3)
    interest[1] = 0
    with pytest.raises(ValueError, match=r"interest of photo 1 is empty at 16 px: mark what matters"):
        Target.of(photos(3), interest, 16, NET)


# ---------------------------------------------------------------- w_plus


def test_it_comes_nearer_and_says_how_near(generator: StyleGAN2Generator) -> None:
    found = run(generator, steps=30)
    assert (found.errors[-1] < 0.8 * found.errors[0]).all()
    assert found.noise is None
    torch.testing.assert_close(loss_of(generator, found), found.errors[-1])


@pytest.mark.parametrize("lr", [0.1, 50.0])
def test_it_is_never_worse_than_the_start(generator: StyleGAN2Generator, lr: float) -> None:
    found = run(generator, lr=lr)
    assert (found.errors[-1] <= found.errors[0]).all()
    torch.testing.assert_close(loss_of(generator, found), found.errors[-1])


def test_the_pull_holds(generator: StyleGAN2Generator) -> None:
    start = latents(generator, 3)
    ways = [(run(generator, pull=pull).w_plus - start).norm().item() for pull in (0.0, 1.0, 10.0)]
    assert ways == sorted(ways, reverse=True)
    assert torch.equal(run(generator, pull=1e9).w_plus, start)


def test_what_is_outside_has_no_influence(generator: StyleGAN2Generator) -> None:
    """To the last bit, whatever it is."""
    other = torch.where(regions(3) > 0, photos(3), torch.randn(3, 3, 16, 16).sign())
    assert torch.equal(run(generator).w_plus, run(generator, image=other).w_plus)
    inside = torch.where(regions(3) > 0, photos(3) * 0.5, photos(3))
    assert not torch.equal(run(generator).w_plus, run(generator, image=inside).w_plus)


def test_samples_do_not_influence_one_another(generator: StyleGAN2Generator) -> None:
    together = run(generator, noise_steps=3)
    for i in range(3):
        alone = run(generator, slice(i, i + 1), noise_steps=3)
        torch.testing.assert_close(alone.w_plus[0], together.w_plus[i], rtol=0, atol=5e-3)
        torch.testing.assert_close(alone.errors[:, 0], together.errors[:, i], rtol=2e-3, atol=1e-4)
        assert all(a.shape == (1, 1, *b.shape[2:]) for a, b in zip(alone.noise, together.noise, strict=True))


def test_no_steps_and_the_same_again(generator: StyleGAN2Generator) -> None:
    with torch.no_grad():  # as a caller may have it
        none, one, two = run(generator, steps=0), run(generator), run(generator)
    assert torch.equal(none.w_plus, latents(generator, 3))
    assert none.errors.shape == (1, 3)
    assert torch.equal(one.w_plus, two.w_plus)
    assert not one.w_plus.requires_grad
    assert all(p.grad is None for p in generator.parameters())


def test_gradients_are_those_of_float32(generator: StyleGAN2Generator) -> None:
    """A model that draws in bf16 finds the same latents, and goes on to draw in bf16."""
    expected = run(generator).w_plus
    assert torch.equal(run(generator.bfloat16()).w_plus, expected)
    assert generator.synthesis.compute_dtype == torch.bfloat16
    assert in_float32(generator).const is generator.synthesis.const


def test_shapes_that_do_not_fit(generator: StyleGAN2Generator) -> None:
    with pytest.raises(ValueError, match=r"w_plus has shape \[2, 6, 16\]: expected \[3, 6, 16\]"):
        refine(generator, latents(generator, 2), photos(3), w_std=torch.ones(16), net=NET)
    with pytest.raises(ValueError, match="steps is -1"):
        run(generator, steps=-1)


# ---------------------------------------------------------------- the callback


def test_the_callback_sees_every_step(generator: StyleGAN2Generator) -> None:
    seen: list[Step] = []
    found = run(generator, steps=4, noise_steps=3, keep_going=lambda step: seen.append(step) or True)
    assert [(step.index, step.count) for step in seen] == [(k, 7) for k in range(1, 8)]
    target = Target.of(photos(3), regions(3), 16, NET)
    for step in seen[:4]:
        torch.testing.assert_close(generator.synthesis(step.w_plus).detach(), step.drawn)
    for step in seen:
        assert not step.w_plus.requires_grad
        torch.testing.assert_close(target.loss(step.drawn), step.error)
    assert found.errors.shape == (8, 3)
    assert torch.equal(found.errors[1:5].min(0).values, found.errors[4])


def test_cancelling_returns_the_best_so_far(generator: StyleGAN2Generator) -> None:
    whole = run(generator, noise_steps=5)
    found = run(generator, noise_steps=5, keep_going=lambda step: step.index < 5)
    assert found.noise is None
    assert torch.equal(found.errors, whole.errors[:6])
    torch.testing.assert_close(loss_of(generator, found), found.errors[-1])
    later = run(generator, noise_steps=5, keep_going=lambda step: step.index < 14)
    assert len(later.errors) == 15
    assert torch.equal(later.w_plus, whole.w_plus)


# ---------------------------------------------------------------- noise


def test_noise_comes_nearer_still_and_leaves_w_plus(generator: StyleGAN2Generator) -> None:
    without, found = run(generator), run(generator, noise_steps=20)
    assert torch.equal(found.w_plus, without.w_plus)
    target = Target.of(photos(3), regions(3), 16, NET)
    with torch.no_grad():
        before = generator.synthesis(found.w_plus)
        after = generator.synthesis.draw(found.w_plus, found.noise)
    assert (target.pixel_error(after) < 0.9 * target.pixel_error(before)).all()
    torch.testing.assert_close(target.loss(after), found.errors[-1])
    assert (found.errors[-1] <= without.errors[-1]).all()
    last, stored = found.noise[-1], generator.synthesis.blocks[-1].conv1.noise_const.expand(3, 1, -1, -1)
    assert torch.equal(last * (1 - regions(3)), stored * (1 - regions(3)))
    assert not torch.equal(last, stored)


def test_autocorrelation_tells_pictures_from_noise() -> None:
    white = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    flat = torch.ones(2, 1, 64, 64)
    smooth = torch.nn.functional.avg_pool2d(white, 3, 1, 1) * 3
    assert (autocorrelation([white]) < 0.1).all()
    assert (autocorrelation([smooth]) > 0.5).all()
    # of ones every correlation is 1; halved, the values double, and the products are 4 times as large
    assert autocorrelation([flat]).tolist() == [2 * (1 + 4**2 + 16**2 + 64**2)] * 2
    assert torch.equal(autocorrelation([white, flat])[:1], autocorrelation([white[:1], flat[:1]]))
