"""The interest encoder at toy size: where it starts, that nothing outside the interest bends it, that it can learn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hfgan import HFGan, InterestEncoder, ModeBank, StyleGAN2Generator
from hfgan.models.encoder import continue_outside, shrink
from hfgan.modes import make_bank


def make_generator(resolution: int = 16, img_channels: int = 3, seed: int = 0) -> StyleGAN2Generator:
    torch.manual_seed(seed)
    base = max(256, 4 * resolution)
    sizes = {"z_dim": 16, "w_dim": 16, "mapping_layers": 1, "channel_base": base, "channel_max": 8}
    return StyleGAN2Generator(resolution=resolution, img_channels=img_channels, **sizes).eval()


def make_bank_of(generator: StyleGAN2Generator, count: int = 3) -> ModeBank:
    with torch.no_grad():
        w = generator.mapping(torch.randn(100, 16, generator=torch.Generator().manual_seed(5)))
    return make_bank(generator, w, w[:count])


def make_encoder(generator: StyleGAN2Generator, modes: ModeBank | None = None, **shape: object) -> InterestEncoder:
    """One whose steps move, as if it were trained."""
    torch.manual_seed(1)
    encoder = InterestEncoder.beside(generator, modes, **shape).eval()
    torch.nn.init.normal_(encoder.out.weight, std=0.02)
    return encoder


def rand(*shape: int, seed: int = 2) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def disc(side: int = 16, n: int = 1, radius: float = 0.3) -> Tensor:
    """(n, 1, side, side), 1 about the middle."""
    at = (torch.arange(side) + 0.5) / side - 0.45
    return (at[:, None].square() + at.square() < radius**2).float().expand(n, 1, -1, -1)


@torch.no_grad()
def latents(encoder: InterestEncoder, generator, image: Tensor, interest: Tensor | None = None, count=3) -> Tensor:
    return [w_plus for w_plus, _ in encoder.steps(generator, image, interest, count)][-1]


# ---------------------------------------------------------------- start and steps


@torch.no_grad()
def test_untrained_it_answers_the_nearest_start() -> None:
    generator = make_generator()
    bank = make_bank_of(generator)
    encoder = InterestEncoder.beside(generator, bank)
    expected = bank.centers.unsqueeze(1).repeat(1, generator.num_ws, 1)  # (k, num_ws, w_dim)
    drawn = generator.synthesis(expected)
    assert torch.equal(latents(encoder, generator, drawn), expected)
    assert torch.equal(encoder.starts, bank.centers)
    plain = InterestEncoder.beside(generator)
    assert torch.equal(latents(plain, generator, drawn), generator.mapping.w_avg.expand(3, generator.num_ws, -1))


@torch.no_grad()
def test_the_nearest_start_is_sought_inside_the_interest() -> None:
    generator = make_generator()
    bank = make_bank_of(generator)
    encoder = InterestEncoder.beside(generator, bank)
    views = generator.synthesis(bank.centers.unsqueeze(1).repeat(1, generator.num_ws, 1)).clamp(-1, 1)
    inside = disc()
    for k in range(3):
        for other in set(range(3)) - {k}:
            mixed = torch.where(inside > 0, views[k : k + 1], views[other : other + 1])
            assert torch.equal(latents(encoder, generator, mixed, inside)[0, 0], bank.centers[k])
            assert torch.equal(latents(encoder, generator, mixed, 1 - inside)[0, 0], bank.centers[other])


@torch.no_grad()
def test_one_step_is_the_first_of_three() -> None:
    generator = make_generator()
    encoder, image, inside = make_encoder(generator), rand(2, 3, 16, 16), disc(n=2)
    ((w_one, drawn_one),) = encoder.steps(generator, image, inside, 1)
    three = list(encoder.steps(generator, image, inside, 3))
    assert len(three) == 3
    assert torch.equal(w_one, three[0][0])
    assert torch.equal(drawn_one, three[0][1])
    assert not torch.equal(three[0][0], three[1][0])
    for w_plus, drawn in three:
        assert (w_plus.shape, w_plus.dtype) == ((2, generator.num_ws, 16), torch.float32)
        assert torch.equal(drawn, generator.synthesis(w_plus))
    first = list(encoder.steps(generator, image[:1], inside[:1], 3))[-1][0]
    torch.testing.assert_close(first, three[-1][0][:1], rtol=0, atol=1e-5)
    assert list(encoder.steps(generator, image, inside, 0)) == []


@torch.no_grad()
@pytest.mark.parametrize("resolution", [16, 32, 64])
@pytest.mark.parametrize("img_channels", [1, 3, 4])
def test_every_size_and_every_kind_of_picture(resolution: int, img_channels: int) -> None:
    generator = make_generator(resolution, img_channels)
    encoder = make_encoder(generator)
    assert encoder.config.resolution == resolution
    image, inside = rand(2, img_channels, resolution, resolution), disc(resolution, 2)
    ((w_plus, drawn),) = encoder.steps(generator, image, inside, 1)
    assert w_plus.shape == (2, generator.num_ws, 16)
    assert drawn.shape == image.shape
    assert not torch.equal(w_plus, encoder.start(*encoder.look(image, inside)))
    assert not torch.equal(w_plus, latents(encoder, generator, image, count=1))


@torch.no_grad()
@pytest.mark.parametrize(("width", "height"), [(17, 17), (50, 37), (5, 9), (1, 1), (90, 33)])
def test_photos_of_any_shape_are_seen_at_its_own_size(width: int, height: int) -> None:
    generator = make_generator()
    encoder = make_encoder(generator)
    image, inside = rand(1, 3, height, width), torch.ones(1, 1, height, width)
    inside[..., width // 2 :] = 0 if width > 1 else 1
    seen, region = encoder.look(image, inside)
    assert (seen.shape, region.shape) == ((1, 3, 16, 16), (1, 1, 16, 16))
    assert set(region.unique().tolist()) <= {0, 1}
    other = torch.where(inside > 0, image, -image)
    assert torch.equal(latents(encoder, generator, image, inside), latents(encoder, generator, other, inside))


@torch.no_grad()
def test_what_a_large_generator_draws_is_seen_at_256_px() -> None:
    generator = make_generator(512)
    encoder = make_encoder(generator)
    assert encoder.config.resolution == 256
    image, inside = F.interpolate(rand(1, 3, 8, 8), (512, 512)), disc(512)
    seen, region = encoder.look(image, inside)
    assert (seen.shape, region.shape) == ((1, 3, 256, 256), (1, 1, 256, 256))
    ((w_plus, drawn),) = encoder.steps(generator, image, inside, 1)
    assert (w_plus.shape, drawn.shape) == ((1, generator.num_ws, 16), (1, 3, 512, 512))
    assert torch.equal(w_plus, latents(encoder, generator, torch.where(inside > 0, image, 1), inside, 1))
    with pytest.raises(ValueError, match="256 px or less"):
        InterestEncoder(resolution=512)


# ---------------------------------------------------------------- the interest


@torch.no_grad()
@pytest.mark.parametrize("outside", [0.0, -1.0, 1e6, -1e30, float("inf"), float("-inf"), float("nan"), "noise"])
@pytest.mark.parametrize("img_channels", [3, 4])
def test_nothing_outside_the_interest_has_any_influence(outside: float | str, img_channels: int) -> None:
    generator = make_generator(32, img_channels)
    encoder = make_encoder(generator, make_bank_of(generator))
    for size in (32, 47):
        image, inside = rand(1, img_channels, size, size), disc(size)
        put = rand(1, img_channels, size, size, seed=9) if outside == "noise" else torch.tensor(outside)
        other = torch.where(inside > 0, image, put)
        expected = latents(encoder, generator, image, inside)
        assert expected.isfinite().all()
        assert torch.equal(latents(encoder, generator, other, inside), expected)
        moved = torch.where(inside > 0, -image, image)
        assert not torch.equal(latents(encoder, generator, moved, inside), expected)


@torch.no_grad()
def test_a_full_interest_is_none_and_an_empty_one_sees_nothing() -> None:
    generator = make_generator()
    encoder, a, b = make_encoder(generator), rand(1, 3, 16, 16), rand(1, 3, 16, 16, seed=3)
    full, empty = torch.ones(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    assert torch.equal(latents(encoder, generator, a, full), latents(encoder, generator, a))
    assert torch.equal(latents(encoder, generator, a, full * 0.5), latents(encoder, generator, a))
    nothing = latents(encoder, generator, a, empty)
    assert nothing.isfinite().all()
    assert torch.equal(nothing, latents(encoder, generator, b, empty + 0.49))


@torch.no_grad()
def test_unconditioned_it_ignores_the_interest() -> None:
    generator = make_generator()
    encoder, image, inside = make_encoder(generator, conditioned=False), rand(1, 3, 16, 16), disc()
    assert torch.equal(latents(encoder, generator, image, inside), latents(encoder, generator, image))
    other = torch.where(inside > 0, image, -image)
    assert not torch.equal(latents(encoder, generator, image, inside), latents(encoder, generator, other, inside))


# ---------------------------------------------------------------- a model among models


def test_a_foreign_generator_is_refused() -> None:
    generator, other = make_generator(), make_generator(seed=4)
    encoder = make_encoder(generator)
    assert HFGan(generator=generator, encoder=encoder).part("encoder") is encoder
    with pytest.raises(ValueError, match=f"belongs to a generator with weights {generator.fingerprint()}, not"):
        HFGan(generator=other, encoder=encoder)
    with pytest.raises(RuntimeError, match=r"no encoder: .*train\.py encoder"):
        HFGan(generator=other).part("encoder")


@torch.no_grad()
@pytest.mark.parametrize("shape", [{}, {"widths": (8, 16), "depth": 2, "hidden_dim": 32, "conditioned": False}])
def test_saved_and_loaded_it_is_the_same_to_the_bit(tmp_path: Path, shape: dict) -> None:
    generator = make_generator()
    encoder = make_encoder(generator, make_bank_of(generator), **shape)
    HFGan(generator=generator, encoder=encoder).save_pretrained(tmp_path)
    again = HFGan.from_pretrained(tmp_path, dtype="float32")
    assert isinstance(again.encoder, InterestEncoder)
    assert again.encoder.fingerprint() == encoder.fingerprint()
    own, read = encoder.state_dict(), again.encoder.state_dict()
    assert own.keys() == read.keys()
    assert all(torch.equal(own[name], read[name]) for name in own)
    image, inside = rand(2, 3, 16, 16), disc(n=2)
    expected = latents(encoder, generator, image, inside)
    assert torch.equal(latents(again.encoder, again.generator, image, inside), expected)


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [({"resolution": 48}, "power of two"), ({"widths": (16,)}, "expected 4 multiples of 8"),
     ({"widths": (16, 16, 12, 16)}, "expected 4 multiples of 8")],
)  # fmt: skip
def test_shapes_that_cannot_be(shape: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        InterestEncoder(**shape)


def test_gradients_reach_every_parameter() -> None:
    generator = make_generator(32).requires_grad_(False)
    encoder = make_encoder(generator, make_bank_of(generator))
    image, inside = rand(2, 3, 32, 32), disc(32, 2)
    for w_plus, drawn in encoder.steps(generator, image, inside, 2):
        loss = drawn.square().mean() + w_plus.square().mean()
    loss = loss + encoder.inliers(*encoder.look(image, inside), drawn).square().mean()
    loss.backward()
    without = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not without
    assert all(p.grad.isfinite().all() for p in encoder.parameters())


def test_it_learns() -> None:
    """A few steps of descent on pictures of known latents come nearer to them than the start was."""
    generator = make_generator().requires_grad_(False)
    torch.manual_seed(1)
    encoder = InterestEncoder.beside(generator)
    with torch.no_grad():
        w = generator.mapping(torch.randn(8, 16))
        image = generator.synthesis(w.unsqueeze(1).repeat(1, generator.num_ws, 1)).clamp(-1, 1)
    adam, losses = torch.optim.Adam(encoder.parameters(), lr=3e-3), []
    for _ in range(50):
        ((w_plus, _),) = encoder.steps(generator, image, None, 1)
        loss = ((w_plus - w.unsqueeze(1)) / encoder.w_std).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


# ---------------------------------------------------------------- what is outside


SHAPES = [(16, 16), (17, 16), (33, 50), (1, 9), (7, 1), (64, 3)]


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_what_is_inside_stays_and_what_was_outside_is_forgotten(height: int, width: int) -> None:
    image = rand(2, 3, height, width)
    inside = (torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(4)) < 0.3).float()
    inside[..., 0, 0] = 1
    found = continue_outside(image, inside)
    where = inside.expand_as(image) > 0
    assert torch.equal(found[where], image[where])
    for put in (torch.zeros(()), rand(2, 3, height, width, seed=8), torch.tensor(float("nan"))):
        assert torch.equal(continue_outside(torch.where(inside > 0, image, put), inside), found)
    for one, region, result in zip(image, inside, found, strict=True):  # never beyond what is seen inside
        marked = one[:, region[0] > 0]
        assert (result.amax((1, 2)) <= marked.amax(1) + 1e-5).all()
        assert (result.amin((1, 2)) >= marked.amin(1) - 1e-5).all()


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_where_nothing_is_inside_all_is_zero(height: int, width: int) -> None:
    image = rand(2, 3, height, width)
    inside = torch.zeros(2, 1, height, width)
    inside[1, 0, -1, -1] = 1
    found = continue_outside(image, inside)
    assert (found[0] == 0).all()
    torch.testing.assert_close(found[1], image[1, :, -1:, -1:].expand(-1, height, width), rtol=0, atol=1e-5)


def test_the_continuation_is_smooth() -> None:
    size = 96
    ramp = torch.linspace(-1, 1, size).expand(1, 3, size, size)
    inside = disc(size)
    found = continue_outside(ramp, inside)
    outside = inside == 0
    slopes = [(found.diff(dim=dim).abs(), outside.narrow(dim, 1, size - 1) & outside.narrow(dim, 0, size - 1))
              for dim in (2, 3)]  # fmt: skip
    steepest = max(slope[where.expand_as(slope)].max().item() for slope, where in slopes)
    assert steepest < 0.15, "no step of what lies outside is a tenth of the range"
    far = found[..., size // 2, [0, -1]].mean(1)[0]
    assert far[0] < -0.1
    assert far[1] > 0.1, "it goes on with the colours of the side that it lies on"


def test_shrink_is_a_mean() -> None:
    x = rand(2, 3, 32, 32)
    assert shrink(x, 32) is x
    torch.testing.assert_close(shrink(x, 16), x.unfold(2, 2, 2).unfold(3, 2, 2).mean((-2, -1)))
    for shape in ((33, 33), (20, 50), (3, 3), (8, 8)):
        torch.testing.assert_close(shrink(torch.full((1, 1, *shape), 0.3), 16), torch.full((1, 1, 16, 16), 0.3))
