"""Latents: what a seed means, truncation, mixing and ways between latents, against the formulas."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

from hfgan import sampling

W_PLUS = torch.arange(2 * 6 * 3, dtype=torch.float32).view(2, 6, 3)


def test_seeds_are_given_counted_or_random() -> None:
    assert sampling.choose_seeds(seeds=[3, np.int64(1)]) == [3, 1]
    assert sampling.choose_seeds(seeds=range(2)) == [0, 1]
    assert sampling.choose_seeds(3, seed=7) == [7, 8, 9]
    assert sampling.choose_seeds(seed=7) == [7]
    drawn = sampling.choose_seeds(50)
    assert len(set(drawn)) == 50
    assert all(type(seed) is int and 0 <= seed <= sampling.MAX_SEED for seed in drawn)
    assert sampling.choose_seeds() != sampling.choose_seeds()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"seed": -1}, r"seed is -1: expected a whole number from 0 to 4294967295"),
        ({"seed": 2**32}, r"seed is 4294967296"),
        ({"seed": 2**32 - 1, "num_images": 2}, r"seed is 4294967296"),
        ({"seed": 1.0}, r"seed is 1\.0"),
        ({"seed": True}, r"seed is True"),
        ({"seed": "1"}, r"seed is '1'"),
        ({"seeds": [1, None]}, r"seed is None"),
        ({"seeds": []}, r"seeds is empty"),
        ({"seeds": "12"}, r"seed is '12'"),
        ({"seeds": [1, 2], "num_images": 3}, r"num_images is 3 but there are 2 seeds"),
        ({"seed": 1, "seeds": [1]}, r"both seed and seeds"),
        ({"num_images": 0}, r"num_images is 0: expected a whole number of 1 or more"),
        ({"num_images": 2.5}, r"num_images is 2\.5"),
        ({"num_images": False}, r"num_images is False"),
    ],
)
def test_wrong_seeds_are_refused(given: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        sampling.choose_seeds(**given)


def test_the_bound_on_seeds_is_where_the_generator_repeats_itself() -> None:
    def draw(seed: int) -> torch.Tensor:
        return torch.randn(32, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(draw(5), draw(5 + sampling.MAX_SEED + 1))
    assert not torch.equal(draw(0), draw(sampling.MAX_SEED))


def test_a_row_of_z_depends_on_its_own_seed_only() -> None:
    z = sampling.latents_from_seeds([4, 9, 4], 64)
    assert z.shape == (3, 64)
    assert torch.equal(z[0], z[2])
    assert not torch.equal(z[0], z[1])
    assert torch.equal(z[1:2], sampling.latents_from_seeds([9], 64))
    torch.manual_seed(0)
    assert torch.equal(z, sampling.latents_from_seeds([4, 9, 4], 64))
    many = sampling.latents_from_seeds(range(200), 64)
    assert abs(many.mean()) < 0.03
    assert abs(many.std() - 1) < 0.03


def test_noise_of_a_seed_goes_on_after_its_z() -> None:
    (generator,) = sampling.generators_from_seeds([8])
    z = sampling.draw_latents([generator], 32)
    assert torch.equal(z, sampling.latents_from_seeds([8], 32))
    assert not torch.equal(torch.randn(32, generator=generator), z[0])


def test_a_later_draw_of_a_seed_is_the_next_of_its_generator() -> None:
    (generator,) = sampling.generators_from_seeds([8])
    rows = [torch.randn(20, generator=generator) for _ in range(4)]  # 20: no multiple of what randn draws at once
    z = sampling.latents_from_seeds([8, 9, 8], 20, draws=[3, 0, 1])
    assert torch.equal(z[0], rows[3])
    assert torch.equal(z[1:2], sampling.latents_from_seeds([9], 20))
    assert torch.equal(z[2], rows[1])
    for wrong in (-1, 1.0, True, sampling.MAX_DRAWS):
        with pytest.raises(ValueError, match=r"draw is "):
            sampling.latents_from_seeds([8], 20, draws=[wrong])


def test_truncation_is_linear_toward_the_center_in_the_first_layers() -> None:
    center = torch.tensor([1.0, 2.0, 3.0])
    assert torch.equal(sampling.truncate(W_PLUS, center, 1.0), W_PLUS)
    assert torch.equal(sampling.truncate(W_PLUS, center, 0), center.expand(2, 6, 3))
    expected = center + 0.7 * (W_PLUS - center)
    torch.testing.assert_close(sampling.truncate(W_PLUS, center, 0.7), expected)
    cut = sampling.truncate(W_PLUS, center, np.float32(0.7), 2)
    torch.testing.assert_close(cut[:, :2], expected[:, :2])
    assert torch.equal(cut[:, 2:], W_PLUS[:, 2:])
    assert torch.equal(sampling.truncate(W_PLUS, center, 0.5, 0), W_PLUS)
    centers = torch.stack([center, -center])  # one per sample
    own = sampling.truncate(W_PLUS, centers, 0.5)
    torch.testing.assert_close(own[1:], sampling.truncate(W_PLUS[1:], -center, 0.5))
    own.zero_()
    assert W_PLUS[1, 1, 1] == 22  # the input is never written to


def test_truncation_of_coarse_and_fine_layers() -> None:
    center = torch.tensor([1.0, 2.0, 3.0])
    for psi, cutoff, split in (((0.2, 0.9), None, 3), ([0.2, 0.9], 1, 1), ((0.2, 1), 6, 6)):
        found = sampling.truncate(W_PLUS, center, psi, cutoff)
        torch.testing.assert_close(found[:, :split], center + psi[0] * (W_PLUS[:, :split] - center))
        torch.testing.assert_close(found[:, split:], center + psi[1] * (W_PLUS[:, split:] - center))
    assert torch.equal(sampling.truncate(W_PLUS, center, (1, 1)), W_PLUS)
    assert sampling.parse_psi((1, np.float32(0.5))) == [1.0, 0.5]
    assert sampling.parse_psi(np.float64(0.5)) == 0.5


@pytest.mark.parametrize(
    "psi",
    [
        math.nan,
        math.inf,
        -math.inf,
        "0.7",
        None,
        True,
        10**400,
        (),
        (0.5,),
        (1, math.nan),
        "ab",
        (0.1, 0.2, 0.3),
        (0.5, True),
    ],
)
def test_truncation_refuses_what_is_no_finite_number(psi: object) -> None:
    with pytest.raises(ValueError, match=r"truncation_psi is .*: expected a finite number"):
        sampling.truncate(W_PLUS, torch.zeros(3), psi)


@pytest.mark.parametrize("cutoff", [-1, 7, 1.5, "2", True])
def test_truncation_refuses_a_cutoff_beyond_the_layers(cutoff: object) -> None:
    with pytest.raises(ValueError, match=r"truncation_cutoff is .*: expected a number of layers from 0 to 6"):
        sampling.truncate(W_PLUS, torch.zeros(3), 0.5, cutoff)


def test_layers_are_parsed() -> None:
    assert sampling.parse_layers("0-3,5", 6) == [0, 1, 2, 3, 5]
    assert sampling.parse_layers(" 4 - 5 , 1,1-2 ", 6) == [1, 2, 4, 5]
    assert sampling.parse_layers("5", 6) == [5]
    assert sampling.parse_layers(range(2, 4), 6) == [2, 3]
    assert sampling.parse_layers([3, np.int64(0), 3], 6) == [0, 3]


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ("", "expected numbers and ranges"),
        ("1;2", "expected numbers and ranges"),
        ("-1", "expected numbers and ranges"),
        ("1-2-3", "expected numbers and ranges"),
        ("a", "expected numbers and ranges"),
        ("6", "within 0-5, as this model has"),
        ("0-99999999999999999999", "within 0-5"),
        ("3-1", "ascending ranges"),
        ([], "within 0-5"),
        ([-1], "within 0-5"),
        ([0.5], "expected whole numbers"),
        (["1"], "expected whole numbers"),
        (3, "expected whole numbers"),
        (None, "expected whole numbers"),
    ],
)
def test_wrong_layers_are_refused(layers: object, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"layers is {layers!r}: ") + ".*" + says):
        sampling.parse_layers(layers, 6)


def test_mix_takes_layers_from_b() -> None:
    a, b = W_PLUS, -W_PLUS
    mixed = sampling.mix(a, b, [0, 4])
    assert torch.equal(mixed[:, [0, 4]], b[:, [0, 4]])
    assert torch.equal(mixed[:, [1, 2, 3, 5]], a[:, [1, 2, 3, 5]])
    assert torch.equal(sampling.mix(a, b[:1], [5])[1, 5], b[0, 5])
    assert torch.equal(sampling.mix(a[:1], b, range(6)), b)
    with pytest.raises(ValueError, match=r"\[2, 6, 3\] and \[2, 5, 3\] do not mix"):
        sampling.mix(a, b[:, :5], [0])
    with pytest.raises(ValueError, match="do not mix"):
        sampling.mix(a, b.repeat(2, 1, 1)[:3], [0])
    with pytest.raises(ValueError, match="do not mix"):
        sampling.mix(a[0], b[0], [0])


def test_interpolation_hits_both_ends_in_equal_steps() -> None:
    a, b = W_PLUS[0], -W_PLUS[1]
    frames = sampling.interpolate(a, b, 5)
    assert frames.shape == (5, 6, 3)
    assert torch.equal(frames[0], a)
    assert torch.equal(frames[-1], b)
    torch.testing.assert_close(frames[1], 0.75 * a + 0.25 * b)
    for steps in (1, 0, 2.0, None):
        with pytest.raises(ValueError, match=r"steps is .*: expected a whole number of 2 or more"):
            sampling.interpolate(a, b, steps)
    with pytest.raises(ValueError, match="kind is 'cubic': expected one of 'lerp', 'slerp'"):
        sampling.interpolate(a, b, 5, "cubic")
    with pytest.raises(ValueError, match="make them equal"):
        sampling.interpolate(a, b[:5], 5)


def test_slerp_keeps_length_and_turns_evenly() -> None:
    a, b = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 3.0])
    for t in (0.0, 0.25, 0.5, 1.0):
        angle = t * math.pi / 2
        expected = 3 * torch.tensor([math.cos(angle), math.sin(angle)])
        torch.testing.assert_close(sampling.slerp(a, b, t), expected)
    far = sampling.latents_from_seeds([1, 2], 256)
    middle = sampling.interpolate(far[0], far[1], 3, "slerp")[1]
    assert abs(middle.norm() / far.norm(dim=1).mean() - 1) < 0.05
    assert sampling.interpolate(far[0], far[1], 3)[1].norm() < 0.8 * middle.norm()
    near = a + 1e-6
    torch.testing.assert_close(sampling.slerp(a, near, 0.5), (a + near) / 2)
    assert sampling.slerp(a, -a, 0.5).isfinite().all()


def test_walk_passes_every_keyframe_and_closes_its_loop() -> None:
    keys = torch.tensor([[0.0], [4.0], [8.0]])
    assert sampling.walk(keys, 2).flatten().tolist() == [0, 2, 4, 6, 8]
    assert sampling.walk(keys, 2, loop=True).flatten().tolist() == [0, 2, 4, 6, 8, 4]
    assert sampling.walk(W_PLUS, 3).shape == (4, 6, 3)
    with pytest.raises(ValueError, match="the number of keyframes is 1"):
        sampling.walk(keys[:1], 2)
    with pytest.raises(ValueError, match="steps_between is 0"):
        sampling.walk(keys, 0)


def test_a_seed_does_not_meet_the_weights_that_it_initialised() -> None:
    """A network made under manual_seed(0) starts with the numbers that seed 0 must not draw as its z."""
    torch.manual_seed(0)
    first = torch.randn(64)
    assert torch.cosine_similarity(first, sampling.latents_from_seeds([0], 64)[0], dim=0).abs() < 0.5
