"""The facade at toy size: seeds, truncation, labels, mixing, interpolation, recipes and their refusals."""

from __future__ import annotations

import copy
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import hfgan
from hfgan import HFGan, SampleOutput, StyleGAN2Generator, sampling
from hfgan.images import save_png, to_pil

TINY = {"resolution": 16, "z_dim": 32, "w_dim": 32, "mapping_layers": 2, "channel_base": 256, "channel_max": 32}


def make(seed: int = 0, **arguments: Any) -> HFGan:
    """A toy whose w_avg and noise are far enough from zero to show."""
    torch.manual_seed(seed)
    generator = StyleGAN2Generator(**{**TINY, **arguments}).eval()
    with torch.no_grad():
        generator.mapping.w_avg.normal_()
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.5)
    return HFGan(generator=generator)


@pytest.fixture(scope="module")
def gan() -> HFGan:
    return make()


def levels(a: Image.Image, b: Image.Image) -> int:
    """The largest difference of two pictures [levels of 255]."""
    return int(np.abs(np.asarray(a, dtype=int) - np.asarray(b, dtype=int)).max())


# ---------------------------------------------------------------- sample


def test_sample_draws_what_the_generator_draws(gan: HFGan) -> None:
    out = gan.sample(3, seed=5, truncation_psi=0.6, truncation_cutoff=4)
    z = sampling.latents_from_seeds([5, 6, 7], 32)
    with torch.no_grad():
        image = gan.generator(z, truncation_psi=0.6, truncation_cutoff=4)
        torch.testing.assert_close(out.w, gan.generator.mapping(z))
    assert out.seeds == [5, 6, 7]
    assert (out.w.shape, out.w_plus.shape) == ((3, 32), (3, 6, 32))
    assert all(levels(a, b) <= 1 for a, b in zip(out.images, to_pil(image), strict=True))
    assert torch.equal(out.w_plus[:, 4:], out.w.unsqueeze(1).expand(-1, 2, -1))


@pytest.mark.parametrize("noise_mode", ["const", "random", "none"])
def test_same_seed_same_picture_whatever_is_drawn_beside_it(gan: HFGan, noise_mode: str) -> None:
    seeds = [3, 11, 4, 900, 0]
    singles = [gan.sample(seed=seed, noise_mode=noise_mode) for seed in seeds]
    for batch_size in (2, 16):
        batch = gan.sample(seeds=seeds, noise_mode=noise_mode, batch_size=batch_size)
        for row, single in enumerate(singles):
            assert levels(batch.images[row], single.images[0]) <= 1
            torch.testing.assert_close(batch.w_plus[row], single.w_plus[0])
            assert batch.recipes[row] == single.recipes[0]
    assert all(levels(a.images[0], b.images[0]) > 20 for a, b in itertools.pairwise(singles))


def test_noise_modes_differ_and_random_noise_comes_from_the_seed(gan: HFGan) -> None:
    const, random, none = (gan.sample(seed=1, noise_mode=mode).images[0] for mode in ("const", "random", "none"))
    assert min(levels(const, random), levels(const, none), levels(random, none)) > 5
    torch.manual_seed(123)
    assert gan.sample(seed=1, noise_mode="random").images[0] == random
    with torch.no_grad():  # noise must go on after z, not repeat it
        (generator,) = sampling.generators_from_seeds([1])
        z = torch.randn(1, 32, generator=generator)
        image = gan.generator(z, truncation_psi=0.7, noise_mode="random", generator=[generator])
    assert levels(to_pil(image)[0], random) <= 1


def test_random_seeds_are_recorded_and_give_the_picture_again(gan: HFGan) -> None:
    first, second = gan.sample(2), gan.sample(2)
    assert first.seeds != second.seeds
    assert gan.sample(seeds=first.seeds).images == first.images
    assert len(gan.sample()) == len(gan()) == 1


def test_psi_zero_is_the_average_and_one_is_untouched(gan: HFGan) -> None:
    average = gan.sample(3, seed=1, truncation_psi=0)
    assert average.images[0] == average.images[1] == average.images[2]
    assert torch.equal(average.w_plus[2, 5], gan.generator.mapping.w_avg)
    free = gan.sample(seed=1, truncation_psi=1)
    assert torch.equal(free.w_plus[0, 3], free.w[0])


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_pictures_have_the_models_channels(channels: int, mode: str) -> None:
    (picture,) = make(img_channels=channels).sample(seed=0).images
    assert (picture.mode, picture.size) == (mode, (16, 16))


def test_labels_choose_the_class_and_are_required_where_there_are_classes(gan: HFGan) -> None:
    classes = make(c_dim=3)
    one, two = (classes.sample(2, seed=0, label=label) for label in (1, 2))
    assert levels(one.images[0], two.images[0]) > 5
    assert one.recipes[0]["label"] == 1
    assert classes.replay(one.recipes[1]).images[0] == classes.sample(seed=1, label=1).images[0]
    for label in (None, -1, 3, 1.0, True, "1"):
        with pytest.raises(ValueError, match=r"label is .*: this model has classes 0 to 2, give one of them"):
            classes.sample(label=label)
    with pytest.raises(ValueError, match="label is 0 but this model has no classes"):
        gan.sample(label=0)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"num_images": 0}, "num_images is 0"),
        ({"num_images": -3}, "num_images is -3"),
        ({"seed": -1}, "seed is -1"),
        ({"seeds": ["a"]}, "seed is 'a'"),
        ({"truncation_psi": math.nan}, "truncation_psi is nan"),
        ({"truncation_cutoff": 7}, "truncation_cutoff is 7: expected a number of layers from 0 to 6"),
        ({"noise_mode": "loud"}, "noise_mode is 'loud'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": None}, "batch_size is None"),
    ],
)
def test_wrong_arguments_are_refused(gan: HFGan, given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        gan.sample(**given)


def test_bf16_draws_nearly_the_same(gan: HFGan) -> None:
    half = copy.deepcopy(gan.generator).to(torch.bfloat16)
    fast = HFGan(generator=half).sample(4, seed=0)
    exact = gan.sample(4, seed=0)
    assert fast.recipes[0]["dtype"] == "bfloat16"
    assert exact.recipes[0]["dtype"] == "float32"
    difference = [np.asarray(a, int) - np.asarray(b, int) for a, b in zip(fast.images, exact.images, strict=True)]
    assert np.abs(difference).mean() < 4
    assert np.abs(difference).max() > 0


def test_latents_are_free_for_autograd(gan: HFGan) -> None:
    out = gan.sample(2, seed=0)
    weight = torch.ones(32, requires_grad=True)
    (out.w * weight).sum().backward()
    assert torch.equal(weight.grad, out.w.sum(dim=0))
    w_plus = out.w_plus.clone().requires_grad_()
    gan.generator.synthesis(w_plus).mean().backward()
    assert w_plus.grad.abs().max() > 0
    gan.generator.zero_grad()


def test_training_goes_on_after_sampling() -> None:
    toy = make()
    before = toy.sample(seed=0).images[0]
    loss = toy.generator(torch.randn(2, 32)).square().mean()
    loss.backward()
    with torch.no_grad():
        for parameter in toy.generator.parameters():
            parameter.sub_(parameter.grad, alpha=0.1)
    assert toy.sample(seed=0).images[0] != before


def test_only_several_batches_show_a_bar(gan: HFGan, capfd: pytest.CaptureFixture[str]) -> None:
    gan.sample(4)
    assert capfd.readouterr() == ("", "")
    gan.sample(4, batch_size=2)
    assert "2/2" in capfd.readouterr().err


def test_output_is_cut_by_index_and_slice(gan: HFGan) -> None:
    out = gan.sample(4, seed=0)
    last, middle = out[-1], out[1:3]
    assert (len(out), len(last), len(middle)) == (4, 1, 2)
    assert last.seeds == [3]
    assert last.images == [out.images[3]]
    assert torch.equal(middle.w_plus, out.w_plus[1:3])
    assert middle.recipes == out.recipes[1:3]
    assert [one.seeds for one in out] == [[0], [1], [2], [3]]
    with pytest.raises(IndexError):
        out[4]


# ---------------------------------------------------------------- mix, interpolate, render


def test_mix_is_b_in_its_layers_and_a_elsewhere(gan: HFGan) -> None:
    a, b = gan.sample(seed=1), gan.sample(seed=2, truncation_psi=1)
    mixed = gan.mix(a, b, "0-2")
    assert torch.equal(mixed.w_plus[:, :3], b.w_plus[:, :3])
    assert torch.equal(mixed.w_plus[:, 3:], a.w_plus[:, 3:])
    assert levels(mixed.images[0], a.images[0]) > 5
    assert gan.mix(a, b, "0-5").images == b.images
    assert gan.mix(a, a, "3").images == a.images
    row = gan.mix(gan.sample(3, seed=0), b, [4, 5])
    assert row.seeds == [0, 1, 2]
    column = gan.mix(a, gan.sample(3, seed=0), [4, 5])
    assert column.seeds == [1, 1, 1]
    assert column.w.shape == (3, 32)
    with pytest.raises(ValueError, match="layers is '6'"):
        gan.mix(a, b, "6")
    with pytest.raises(ValueError, match="do not mix"):
        gan.mix(gan.sample(2), gan.sample(3), "0")
    with pytest.raises(ValueError, match="a str cannot be edited: give what sample, invert or edit returned"):
        gan.mix(a, "me.jpg", "0")


def test_interpolation_starts_at_a_and_ends_at_b(gan: HFGan) -> None:
    a, b = gan.sample(seed=1), gan.sample(seed=2)
    ways = {kind: gan.interpolate(a, b, 5, kind) for kind in ("w", "z", "slerp")}
    for frames in ways.values():
        assert len(frames) == 5
        assert levels(frames[0], a.images[0]) <= 1
        assert levels(frames[-1], b.images[0]) <= 1
    middle = [frames[1] for frames in ways.values()]
    assert levels(middle[0], middle[1]) > 0
    assert levels(middle[1], middle[2]) > 0
    (expected,) = gan.render(0.75 * a.w_plus + 0.25 * b.w_plus)
    assert levels(ways["w"][1], expected) <= 1


def test_interpolation_refuses_what_has_no_way(gan: HFGan) -> None:
    a, b = gan.sample(seed=1), gan.sample(seed=2, truncation_psi=1)
    with pytest.raises(ValueError, match="a has 2 samples and b has 1: choose one of each"):
        gan.interpolate(gan.sample(2), b, 3)
    with pytest.raises(ValueError, match="kind is 'cubic': expected 'w', 'z' or 'slerp'"):
        gan.interpolate(a, b, 3, "cubic")
    with pytest.raises(ValueError, match="steps is 1"):
        gan.interpolate(a, b, 1)
    with pytest.raises(ValueError, match="kind='slerp' needs unmixed samples of equal truncation"):
        gan.interpolate(a, b, 3, "slerp")
    mixed = gan.mix(a, gan.sample(seed=3), "0")
    with pytest.raises(ValueError, match="kind='z' needs unmixed samples"):
        gan.interpolate(mixed, mixed, 3, "z")
    assert len(gan.interpolate(mixed, b, 3)) == 3


def test_render_draws_w_plus_and_refuses_other_shapes(gan: HFGan) -> None:
    out = gan.sample(3, seed=0)
    assert gan.render(out.w_plus) == out.images
    assert gan.render(out.w_plus.double()) == out.images
    for wrong in (out.w, out.w_plus[:, :5], out.w_plus[0]):
        with pytest.raises(ValueError, match=r"w_plus has shape .*: expected \(n, 6, 32\)"):
            gan.render(wrong)
    with pytest.raises(ValueError, match="NaN"):
        gan.render(out.w_plus * math.nan)


# ---------------------------------------------------------------- recipes


@pytest.mark.parametrize("noise_mode", ["const", "random"])
def test_png_is_replayed(gan: HFGan, tmp_path: Path, noise_mode: str) -> None:
    out = gan.sample(3, truncation_psi=0.5, truncation_cutoff=3, noise_mode=noise_mode)
    path = out.save(tmp_path / "drawn")[1]
    with pytest.raises(FileExistsError, match="overwrite=True"):
        out.save(tmp_path / "drawn")
    with Image.open(path) as opened:
        pictures = [gan.replay(source) for source in (path, str(path), opened)]
    for again in pictures:
        assert levels(again.images[0], out.images[1]) <= 1
        assert again.recipes == [out.recipes[1]]
        assert again.seeds == [out.seeds[1]]
        torch.testing.assert_close(again.w_plus, out.w_plus[1:2])


def test_recipe_holds_all_that_matters_and_is_json(gan: HFGan) -> None:
    recipe = gan.sample(seed=4, truncation_psi=np.float32(0.5), truncation_cutoff=np.int64(3)).recipes[0]
    assert json.loads(json.dumps(recipe)) == recipe
    assert recipe == {
        "format": 2,
        "hfgan": hfgan.__version__,
        "model": None,
        "fingerprint": gan.generator.fingerprint(),
        "modes": None,
        "dtype": "float32",
        "seed": 4,
        "draw": 0,
        "truncation_psi": 0.5,
        "truncation_cutoff": 3,
        "label": None,
        "mode": None,
        "noise_mode": "const",
        "mix": [],
    }


def test_mixes_of_mixes_are_replayed(gan: HFGan) -> None:
    a, b, c, d = (gan.sample(seed=seed, truncation_psi=0.5 + seed / 10) for seed in range(4))
    left = gan.mix(gan.mix(a, b, "0-3"), c, "2")
    right = gan.mix(gan.mix(d, a, "1-4"), b, "4-5")
    both = gan.mix(left, right, "3-4")
    expected = torch.cat([b.w_plus[:, :2], c.w_plus[:, 2:3], a.w_plus[:, 3:4], b.w_plus[:, 4:5], a.w_plus[:, 5:]], 1)
    assert torch.equal(both.w_plus, expected)
    recipe = json.loads(json.dumps(both.recipes[0]))
    again = gan.replay(recipe)
    torch.testing.assert_close(again.w_plus, expected)
    assert levels(again.images[0], both.images[0]) <= 1
    assert again.recipes == [recipe]
    assert [step["layers"] for step in recipe["mix"]] == [[0, 1, 2, 3], [2], [3, 4], [3, 4], [4]]


def test_another_models_recipe_and_latents_are_refused(gan: HFGan) -> None:
    other = make(1)
    other.name = "other"
    out = other.sample(seed=0)
    says = rf"drawn by other \({other.generator.fingerprint()}\), but the loaded model is an unnamed model \("
    with pytest.raises(ValueError, match=says):
        gan.replay(out.recipes[0])
    with pytest.raises(ValueError, match="load the model that drew it"):
        gan.mix(gan.sample(), out, "0")
    with pytest.raises(ValueError, match="load the model that drew it"):
        gan.interpolate(out, gan.sample(), 3)


STEP = {"layers": [0], "seed": 1, "draw": 0, "truncation_psi": 0.5, "truncation_cutoff": None, "label": None,
        "mode": None}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": 1}, "format 1: this version of hfgan follows format 2 only"),
        ({"format": None}, "format None"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": None}, "seed is None"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
        ({"truncation_psi": "0.5"}, "truncation_psi is '0.5'"),
        ({"truncation_cutoff": 99}, "truncation_cutoff is 99"),
        ({"label": 1}, "this model has no classes"),
        ({"noise_mode": ["const"]}, "noise_mode is "),
        ({"mix": None}, "the recipe's mix is a NoneType: expected a list"),
        ({"draw": -1}, "draw is -1: expected a whole number of 0 or more"),
        ({"draw": True}, "draw is True"),
        ({"draw": 10**9}, "draw is 1000000000: expected a whole number from 0 to 8191"),
        ({"truncation_psi": [0.5]}, r"truncation_psi is \[0.5\]: .* or a pair of them \(coarse, fine\)"),
        ({"mode": 0}, "says that modes are used, or which ones, but not both"),
        ({"modes": "0123456789ab"}, "says that modes are used, or which ones, but not both"),
        ({"mode": 0, "modes": "0123456789ab"}, "with the modes 0123456789ab .* the loaded model has no modes"),
        ({"mix": [3]}, "the recipe's mix lacks draw, label, layers, mode, seed"),
        ({"mix": [{**STEP, "layers": "9"}]}, "layers is '9'"),
        ({"mix": [{**STEP, "layers": None}]}, "layers is None"),
        ({"mix": [{**STEP, "seed": 1.5}]}, r"seed is 1\.5"),
        ({"mix": [{**STEP, "w": 1}]}, "the recipe's mix has unknown w"),
        ({"edits": {}}, "the recipe has unknown edits: it is damaged, or of another version of hfgan"),
    ],
)
def test_damaged_recipes_are_refused(gan: HFGan, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        gan.replay(gan.sample(seed=0).recipes[0] | changes)


def test_what_is_no_recipe_is_refused(gan: HFGan, tmp_path: Path) -> None:
    recipe = gan.sample(seed=0).recipes[0]
    with pytest.raises(ValueError, match="no recipe of hfgan here"):
        gan.replay({"prompt": "a face"})
    with pytest.raises(ValueError, match="the recipe lacks mix, seed"):
        gan.replay({key: value for key, value in recipe.items() if key not in ("seed", "mix")})
    save_png(gan.sample(seed=0).images[0], tmp_path / "plain.png")
    with pytest.raises(ValueError, match="recipe"):
        gan.replay(tmp_path / "plain.png")
    with pytest.raises(FileNotFoundError):
        gan.replay(tmp_path / "missing.png")


def test_sample_output_is_public() -> None:
    assert isinstance(make().sample(), SampleOutput)
