"""Edits at toy size: what a strength means, that regions hold, that edits add up, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from toy import make_directions

from hfgan import (
    AlphaNetwork,
    Direction,
    DirectionSet,
    Edit,
    EditOutput,
    HFGan,
    InterestEncoder,
    Inversion,
    StyleGAN2Generator,
    WStats,
    editing,
)
from hfgan.altering import FEATHER
from hfgan.finding import pca
from hfgan.images import read_recipe, to_pil, to_tensor
from hfgan.segmentation import composite
from hfgan.tuning import WeightDelta, tunable

SIZES = {"z_dim": 16, "w_dim": 16, "mapping_layers": 1, "channel_base": 256, "channel_max": 16}
SIDE = 32
BOX = (0.25, 0.25, 0.75, 0.75)


def make(seed: int = 0, **parts: Any) -> HFGan:
    """A toy whose noise and w_avg show, with directions; `parts` beside the generator replace its own."""
    torch.manual_seed(seed)
    generator = StyleGAN2Generator(resolution=SIDE, **SIZES).eval()
    with torch.no_grad():
        generator.mapping.w_avg.normal_(std=0.2)
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.2)
    alpha, encoder = AlphaNetwork.beside(generator, hidden_dim=4).eval(), InterestEncoder.beside(generator).eval()
    alpha.out.weight.data.mul_(100)  # an alpha that knows no doubt
    torch.nn.init.normal_(encoder.out.weight, std=0.02)  # steps that lead somewhere
    found = DirectionSet.of(make_directions(generator), generator)
    return HFGan(**{"generator": generator, "alpha": alpha, "encoder": encoder, "directions": found} | parts)


@pytest.fixture(scope="module")
def gan() -> HFGan:
    return make()


@pytest.fixture(scope="module")
def stranger() -> HFGan:
    """Another model."""
    return make(1)


@pytest.fixture
def inv(gan: HFGan, photo) -> Inversion:
    """A photo that is not square, of which a box mattered, left of the middle."""
    return gan.invert(photo(90, 60, seed=3), (15, 0, 45, 60))


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).astype(int)


def same(a: EditOutput, b: EditOutput) -> bool:
    """Whether two outputs are one, to the last bit."""
    return a.images == b.images and torch.equal(a.w_plus, b.w_plus)


def near(a: EditOutput, b: EditOutput) -> bool:
    """Whether two outputs are one but for the order of sums."""
    levels = [np.abs(pixels(one) - pixels(other)).max() for one, other in zip(a.images, b.images, strict=True)]
    return max(levels) <= 1 and torch.allclose(a.w_plus, b.w_plus, atol=1e-5)


def shift(gan: HFGan, name: str, layers: Any = None) -> Tensor:
    return gan.directions[name].shift(gan.generator.num_ws, layers)


# ---------------------------------------------------------------- what a strength means


def test_nothing_changes_at_strength_0(gan: HFGan, inv: Inversion) -> None:
    out = gan.sample(seed=1)
    for given in ({"smile": 0}, {"smile": 0.0, "odd": 0}, {}, [], [Edit(gan.directions["zoom"], 0)]):
        for region in (None, "alpha", BOX):
            edited = gan.edit(out, given, region=region)
            assert edited.images == edited.before == out.images, (given, region)
            assert torch.equal(edited.w_plus, out.w_plus)
            assert edited.changes() == [(0, 0)]
    assert gan.edit(inv, {"smile": 0}).images == [inv.image]
    assert gan.edit(out.w_plus, {}).images == gan.render(out.w_plus)


@pytest.mark.parametrize("psi", [0, 0.5, 1, [0.3, 0.9]])
def test_truncation_comes_first_so_a_strength_is_the_same_at_every_psi(gan: HFGan, psi: Any) -> None:
    out = gan.sample(seed=1, truncation_psi=psi)
    edited = gan.edit(out, {"smile": 2, "odd": -1})
    assert torch.allclose(edited.w_plus - out.w_plus, 2 * shift(gan, "smile") - shift(gan, "odd"), atol=1e-5)
    assert edited.before == out.images
    assert edited.images != out.images
    smile = gan.directions["smile"]
    rise = smile.coordinate(edited.w_plus) - smile.coordinate(out.w_plus)
    assert rise.item() == pytest.approx(2 - (shift(gan, "odd").mean(0) @ smile.normal).item(), abs=1e-4)


def test_a_value_is_reached_whatever_the_pictures_own(gan: HFGan) -> None:
    out, smile, zoom = gan.sample(3, seed=1), gan.directions["smile"], gan.directions["zoom"]
    edited = gan.edit(out, {"smile": 1.5}, to=True)
    assert smile.coordinate(edited.w_plus).tolist() == pytest.approx([1.5] * 3, abs=1e-4)
    assert smile.coordinate(out.w_plus).std() > 0.1
    both = gan.edit(out, [Edit(smile, -1, to=True), Edit(zoom, 2)])
    assert torch.allclose(
        both.w_plus, gan.edit(out, {"smile": -1}, to=True).w_plus + 2 * shift(gan, "zoom"), atol=1e-5
    )
    fine = gan.edit(out, {"smile": 1.5}, to=True, layers="2-3")
    assert smile.on((2, 3)).coordinate(fine.w_plus).tolist() == pytest.approx([1.5] * 3, abs=1e-4)
    assert torch.allclose(fine.w_plus[:, :2], out.w_plus[:, :2], atol=1e-6)
    again = gan.edit(edited, {"smile": 1.5}, to=True)
    assert torch.allclose(again.w_plus, edited.w_plus, atol=1e-5)


@pytest.mark.parametrize(("layers", "moved"), [("0-3", range(4)), ("5", [5]), ((1, 2), [1, 2]), (None, [0, 2])])
def test_only_the_layers_that_are_named_move(gan: HFGan, layers: Any, moved: Any) -> None:
    out, name = gan.sample(seed=1), "odd" if layers is None else "smile"
    change = gan.edit(out, {name: 3}, layers=layers).w_plus - out.w_plus
    assert (change[0].abs().sum(1) > 0).nonzero().flatten().tolist() == list(moved)
    assert torch.allclose(change, 3 * shift(gan, name, moved), atol=1e-5)


def test_directions_need_not_be_the_models(gan: HFGan) -> None:
    out, plain = gan.sample(seed=1), HFGan(generator=gan.generator)
    own = Direction("own", torch.randn(16), layers=(1,))
    assert same(gan.edit(out, {own: 2}), plain.edit(plain.sample(seed=1), {own: 2}))
    assert same(gan.edit(out, {"smile": 2}), gan.edit(out, {gan.directions["smile"]: 2.0}))
    assert same(gan.edit(out, {gan.directions["smile"] * 2: 1}), gan.edit(out, {"smile": 2}))
    assert same(gan.edit(out, Edit(own, 1)), gan.edit(out, {own: 1}))


# ---------------------------------------------------------------- edits add up


def test_several_edits_add_up_at_once_and_one_after_the_other(gan: HFGan) -> None:
    out = gan.sample(2, seed=1)
    once = gan.edit(out, {"smile": 2, "zoom": -1})
    twice = gan.edit(gan.edit(out, {"smile": 2}), {"zoom": -1})
    assert same(once, twice)
    assert twice.recipes == once.recipes
    assert twice.before == gan.edit(out, {"smile": 2}).images
    assert near(once, gan.edit(out, {"zoom": -1, "smile": 2}))
    back = gan.edit(once, {"smile": -2, "zoom": 1})
    assert torch.allclose(back.w_plus, out.w_plus, atol=1e-5)
    one = once[1]
    assert (len(one), one.images, one.recipes) == (1, [once.images[1]], [once.recipes[1]])
    assert same(gan.edit(one, {"smile": 1}), gan.edit(gan.edit(out[1], {"smile": 2, "zoom": -1}), {"smile": 1}))


def test_edits_within_regions_keep_what_earlier_ones_did_elsewhere(gan: HFGan) -> None:
    out = gan.sample(seed=1)
    left = gan.edit(out, {"smile": 3}, region=(0, 0, 0.5, 1))
    both = gan.edit(left, {"zoom": 3}, region=(0.5, 0, 1, 1))
    inside = both.region[0, 0].numpy() > 0
    assert both.before == left.images
    assert (pixels(both.images[0])[~inside] == pixels(left.images[0])[~inside]).all()
    assert (pixels(both.images[0])[inside] != pixels(left.images[0])[inside]).any()
    whole = gan.edit(left, {"zoom": 3})
    assert whole.region is None
    plain, right = gan.edit(out, {"zoom": 3}), slice(gan.generator.config.resolution // 2, None)
    assert np.abs(pixels(whole.images[0])[:, right] - pixels(plain.images[0])[:, right]).max() <= 1
    assert whole.images != plain.images
    for output in (left, both, whole):
        assert gan.replay(output.recipes[0]).images == output.images
    third = gan.edit(both, {"smile": 1}, region="alpha")
    assert gan.replay(third.recipes[0]).images == third.images
    assert gan.edit(both, {}).images == both.images


# ---------------------------------------------------------------- regions


@pytest.mark.parametrize("region", ["alpha", BOX, (4, 0, 20, 32), "array", "tensor", "file"])
def test_outside_a_region_no_pixel_changes(gan: HFGan, tmp_path: Path, region: Any) -> None:
    disc = np.hypot(*(np.mgrid[:SIDE, :SIDE] - 15.5)) < 9
    Image.fromarray(disc).convert("L").resize((64, 64)).save(tmp_path / "disc.png")
    given = {"array": disc, "tensor": torch.from_numpy(disc).float(), "file": tmp_path / "disc.png"}
    given |= {"alpha": "alpha", "path": str(tmp_path / "disc.png")}
    out = gan.sample(4, seed=0)
    alone = [gan.sample(seed=seed).images[0] for seed in range(4)]  # a batch rounds otherwise
    edited = gan.edit(out, {"smile": 2.5}, region=given[region] if isinstance(region, str) else region)
    assert edited.region.shape == (4, 1, SIDE, SIDE)
    assert all(np.abs(pixels(one) - pixels(other)).max() <= 1 for one, other in zip(edited.before, alone, strict=True))
    for row, (inside, outside) in enumerate(edited.changes()):
        within = edited.region[row, 0].numpy() > 0
        assert 0 < within.mean() < 1
        assert (pixels(edited.images[row])[~within] == pixels(edited.before[row])[~within]).all()
        assert inside > 0.02
        assert outside <= 0.02 * inside
    assert torch.allclose(edited.w_plus, gan.edit(out, {"smile": 2.5}).w_plus)
    steps = edited.region * editing.LEVELS
    assert torch.equal(steps, steps.round())


def test_in_the_middle_of_a_region_the_edit_is_there_in_full(gan: HFGan) -> None:
    out = gan.sample(seed=1)
    everywhere = np.ones((SIDE, SIDE), bool)
    assert gan.edit(out, {"smile": 2}, region=everywhere).region is None
    most = gan.edit(out, {"smile": 2}, region=(0, 0, 31, 32), feather=0)
    free = gan.edit(out, {"smile": 2})
    left, change = (np.abs(pixels(a) - pixels(most.images[0]))[:, :16].mean() for a in (*free.images, *most.before))
    assert left < 0.02 * change
    hard, soft = (gan.edit(out, {"smile": 2}, region=BOX, feather=feather).region for feather in (0, 0.2))
    assert set(hard.unique().tolist()) == {0, 1}
    assert hard.sum() == 16 * 16
    assert ((soft > 0) & (soft < 1)).any()
    assert (soft <= hard).all(), "it fades on the inner side"
    assert soft[0, 0, 16, 16] == 1


def test_alpha_covers_the_subject_before_and_after(gan: HFGan) -> None:
    out = gan.sample(4, seed=0)
    edited = gan.edit(out, {"smile": 2.5}, region="alpha", feather=0)
    for latents in (out.w_plus, edited.w_plus):
        with torch.no_grad():
            subject = gan.alpha(gan.generator, latents)[1].sigmoid() >= 0.5
        assert (edited.region[subject] == 1).all()
    assert edited.region.mean() < 1
    wide = gan.edit(out, {"smile": 2.5}, region="alpha", feather=0.1)
    with torch.no_grad():
        assert (wide.region[gan.alpha(gan.generator, wide.w_plus)[1].sigmoid() >= 0.5] > 0).all()


def test_where_there_is_no_subject_alpha_says_so() -> None:
    blind, plain = make(), make(alpha=None)
    blind.alpha.out.bias.data.fill_(-1000.0)
    with pytest.raises(ValueError, match="the model sees no subject in this picture: leave region out, or mark one"):
        blind.edit(blind.sample(seed=1), {"smile": 1}, region="alpha")
    with pytest.raises(RuntimeError, match="this model has no alpha: load one that has, or train it"):
        plain.edit(plain.sample(seed=1), {"smile": 1}, region="alpha")


def test_there_is_no_seam() -> None:
    """Across the border of a region colours change little more than the pictures do there on their own.

    Where pixels alone are blended, without their features, they change more.
    """
    faces = HFGan.from_pretrained("hfaces-64", dtype="float32")
    wide, *_ = pca(WStats.of(faces.generator, 2000), 1, faces.generator.fingerprint())
    out, own, blended = faces.sample(24, seed=0), [], {}
    free = faces.edit(out, {wide: 2})
    for feather in (0, FEATHER / 2, FEATHER):
        edited = faces.edit(out, {wide: 2}, region=BOX, feather=feather)
        border = edited.region[0, 0] > 0
        own = [np.mean([across(one, border) for one in pictures]) for pictures in (out.images, free.images)]
        pictures = zip(edited.before, free.images, edited.region.split(1), strict=True)
        pasted = [to_pil(composite(to_tensor(new), to_tensor(old), region))[0] for old, new, region in pictures]
        blended[feather] = [np.mean([across(one, border) for one in both]) for both in (edited.images, pasted)]
        assert blended[feather][0] < 0.97 * blended[feather][1]
    assert blended[FEATHER / 2][0] < 1.15 * max(own) < blended[FEATHER / 2][1]
    assert blended[FEATHER][0] <= max(own)


def across(picture: Image.Image, inside: Tensor) -> float:
    """Mean difference of neighbours on both sides of a region's border (h, w), in [0, 2]."""
    light = to_tensor(picture)[0].mean(0)
    steps = [light.diff(dim=axis).abs()[inside.diff(dim=axis)] for axis in (0, 1)]
    return torch.cat(steps).mean().item()


# ---------------------------------------------------------------- photos


def test_a_photo_is_moved_by_the_same_shift_as_a_sample(gan: HFGan, inv: Inversion) -> None:
    edited = gan.edit(inv, {"smile": 2})
    assert torch.allclose(edited.w_plus - inv.w_plus, 2 * shift(gan, "smile"), atol=1e-5)
    assert (edited.before, edited.inversion) == ([inv.image], inv)
    reached = gan.edit(inv, {"smile": 2}, to=True)
    assert gan.directions["smile"].coordinate(reached.w_plus).item() == pytest.approx(2, abs=1e-4)
    assert near(gan.edit(inv.w_plus, {"smile": 2}), edited)
    assert same(gan.replay(edited.recipes[0]), edited)


def test_a_region_is_in_the_frame_of_the_whole_photo(gan: HFGan, inv: Inversion) -> None:
    """The photo is 90 x 60: the square from x = 15 on is seen, 1.875 px to a pixel."""
    left = gan.edit(inv, {"smile": 2}, region=(15, 0, 45, 60), feather=0)
    assert left.region[0, 0].mean(0).tolist() == [1] * 16 + [0] * 16
    top = np.zeros((60, 90), bool)
    top[:30] = True
    assert gan.edit(inv, {"smile": 2}, region=top, feather=0).region[0, 0].mean(1).tolist() == [1] * 16 + [0] * 16
    assert torch.equal(gan.edit(inv, {"smile": 2}, region="interest", feather=0).region, inv.interest)
    within = left.region[0, 0].numpy() > 0
    assert (pixels(left.images[0])[~within] == pixels(inv.image)[~within]).all()
    for given in ((0, 0, 10, 60), np.arange(90)[None].repeat(60, 0) < 12):
        with pytest.raises(ValueError, match="the region covers none of the 32x32 pixels that are drawn"):
            gan.edit(inv, {"smile": 2}, region=given)
    with pytest.raises(ValueError, match="the interest has 32x32 pixels and the photo 90x60"):
        gan.edit(inv, {"smile": 2}, region=np.ones((32, 32)))
    again = gan.edit(left, {"zoom": 1}, region="interest", feather=0)
    assert torch.equal(again.region, inv.interest)


def test_pasted_leaves_the_photo_outside_untouched(gan: HFGan, inv: Inversion, photo) -> None:
    whole = pixels(photo(90, 60, seed=3))
    (box,) = gan.edit(inv, {"smile": 2}, region=(30, 15, 60, 45), feather=0.1).pasted()
    (interest,) = gan.edit(inv, {"smile": 2}).pasted()
    for pasted, (x0, y0, x1, y1) in ((box, (30, 15, 60, 45)), (interest, (15, 0, 45, 60))):
        assert (pasted.mode, pasted.size) == ("RGB", (90, 60))
        outside = np.ones((60, 90), bool)
        outside[y0:y1, x0:x1] = False
        assert (pixels(pasted)[outside] == whole[outside]).all()
        assert (pixels(pasted)[~outside] != whole[~outside]).any()
    odd = np.zeros((60, 90), bool)
    odd[7:40, 31:58] = True
    for align in ("center", (20, 5, 71, 56), [(40, 20), (52, 26), (42, 40), (50, 43)]):  # the last is turned
        edited = gan.edit(gan.invert(photo(90, 60, seed=3), align=align), {"smile": 2}, region=odd, feather=0)
        (pasted,) = edited.pasted()
        assert (pixels(pasted)[~odd] == whole[~odd]).all()
        assert (pixels(pasted)[odd] != whole[odd]).any()
    with pytest.raises(ValueError, match="these pictures were drawn from seeds: there is no photo to paste them into"):
        gan.edit(gan.sample(seed=1), {"smile": 1}).pasted()


def test_what_was_pasted_stays_when_another_region_is_edited(gan: HFGan, inv: Inversion) -> None:
    whole = pixels(inv.photo)
    left = gan.edit(inv, {"smile": 3}, region=(16, 0, 44, 60))
    both = gan.edit(left, {"zoom": 3}, region=(46, 0, 74, 60))
    again = gan.edit(left, {})
    for edited in (both, again):
        (pasted,) = edited.pasted()
        assert (pixels(pasted)[:, 20:40] == pixels(left.pasted()[0])[:, 20:40]).all()
    assert (pixels(both.pasted()[0])[:, 50:70] != whole[:, 50:70]).any()
    assert (pixels(again.pasted()[0])[:, 46:] == whole[:, 46:]).all()
    assert gan.edit(both, {"smile": 1}).touched is None


def test_an_edited_picture_is_cut_out(gan: HFGan, inv: Inversion) -> None:
    edited = gan.edit(gan.sample(2, seed=1), {"smile": 2}, region="alpha")
    cuts = gan.cutouts(edited)
    assert [cut.image for cut in cuts] == edited.images
    assert gan.segment(gan.edit(inv, {"zoom": 0.0}), refine=False).allclose(gan.segment(inv, refine=False), atol=1e-5)


def test_no_more_edits_lie_over_one_another_than_a_recipe_holds(gan: HFGan, monkeypatch) -> None:
    monkeypatch.setattr("hfgan.editrecipes.MAX_DEPTH", 2)
    out = gan.sample(seed=1)
    for strength in (1, 2):
        out = gan.edit(out, {"smile": strength}, region="alpha")
    assert gan.replay(out.recipes[0]).images == out.images
    with pytest.raises(ValueError, match="2 edits within regions one over the other, the most a recipe holds"):
        gan.edit(out, {"smile": 1}, region="alpha")


def test_fitted_noise_and_weights_draw_the_edit_and_leave_no_recipe(gan: HFGan, photo) -> None:
    grained = gan.invert(photo(60, 60, seed=3), noise_steps=3)
    edited = gan.edit(grained, {"smile": 2})
    assert edited.before == [grained.image]
    assert edited.images != gan.edit(grained.w_plus, {"smile": 2}).images
    assert edited.recipes == [None]
    twice = gan.edit(edited, {"zoom": 1})
    assert near(twice, gan.edit(grained, {"smile": 2, "zoom": 1}))
    assert twice.before == edited.images
    inside = gan.edit(grained, {"smile": 2}, region=BOX)
    assert inside.recipes == [None]
    with pytest.raises(ValueError, match=r"edited within a region, with noise or weights .* give all edits at once"):
        gan.edit(inside, {"zoom": 1})
    generator = gan.generator
    factors = {name: (torch.randn(len(weight), 1) / 4, torch.randn(1, *weight.flatten(1).shape[1:]) / 4)
               for name, weight in tunable(generator).items()}  # fmt: skip
    tuned = replace(grained, noise=None, tuned=WeightDelta(generator.fingerprint(), dict(generator.config), factors))
    for strength in (0, 2):
        moved = gan.edit(tuned, {"smile": strength})
        assert moved.images != gan.edit(tuned.w_plus, {"smile": strength}).images
        assert moved.recipes == [None]
    assert len(gan.strip(grained, "smile", 3)) == 3


def test_what_was_fitted_to_one_photo_draws_no_other(gan: HFGan, inv: Inversion, photo) -> None:
    grained = gan.invert(photo(60, 60, seed=3), noise_steps=3)
    way = gan.morph(grained, inv, 3)
    assert way.images[0] == grained.image
    assert way.recipes == [None] * 3
    for verb in (lambda: gan.morph(inv, grained, 3), lambda: gan.mix(inv, grained, "0"),
                 lambda: gan.transfer(inv, inv, grained), lambda: gan.loop([inv, grained])):  # fmt: skip
        with pytest.raises(ValueError, match="noise or weights were fitted to a photo, which do not draw other"):
            verb()


# ---------------------------------------------------------------- ways, mixtures, transfers


def test_a_strip_goes_from_one_end_to_the_other(gan: HFGan) -> None:
    out, smile = gan.sample(seed=1), gan.directions["smile"]
    strip = gan.strip(out, "smile", 5, 2)
    assert smile.coordinate(strip.w_plus).tolist() == pytest.approx([-2, -1, 0, 1, 2], abs=1e-4)
    assert strip.before == out.images * 5
    assert len(set(map(bytes, (one.tobytes() for one in strip.images)))) == 5
    ways = gan.strip(out, "smile", 5, 2, to=False)
    assert ways.images[2] == out.images[0]
    assert torch.allclose(ways.w_plus[4] - ways.w_plus[0], 4 * shift(gan, "smile"), atol=1e-5)
    odd = gan.strip(out, "odd", 3, 1)
    assert odd.images[1] == out.images[0], "what nothing measures is counted from the picture"
    inside = gan.strip(out, smile, 3, region=BOX, layers="0-1")
    assert len(gan.strip(out, smile)) == 7
    assert all(outside == 0 for _, outside in inside.changes())
    assert [gan.replay(recipe).images[0] for recipe in inside.recipes] == inside.images
    for given in (1, 0, 2.0, True):
        with pytest.raises(ValueError, match=r"steps is .*: expected a whole number of 2 or more"):
            gan.strip(out, "smile", given)
    with pytest.raises(ValueError, match=r"source has 2 pictures: choose one, such as out\[0\]"):
        gan.strip(gan.sample(2), "smile")
    with pytest.raises(ValueError, match="the strength of 'smile' is"):
        gan.strip(out, "smile", reach=math.inf)
    with pytest.raises(ValueError, match="nothing measures 'odd'"):
        gan.strip(out, "odd", to=True)


def test_a_morph_has_both_ends_and_a_loop_comes_back(gan: HFGan, inv: Inversion) -> None:
    out, edited = gan.sample(seed=1), gan.edit(inv, {"smile": 2})
    way = gan.morph(out, edited, 4)
    assert (way.images[0], way.images[-1], len(way)) == (out.images[0], edited.images[0], 4)
    assert torch.allclose(way.w_plus[1], torch.lerp(out.w_plus[0], edited.w_plus[0], 1 / 3), atol=1e-5)
    assert gan.interpolate(out, edited, 4) == way.images
    frames = gan.loop([out, inv, edited], 3)
    assert len(frames) == 9
    assert np.abs(pixels(frames[0]) - pixels(out.images[0])).max() <= 1
    assert np.abs(pixels(frames[3]) - pixels(inv.image)).max() <= 1
    assert np.abs(pixels(frames[8]) - pixels(gan.morph(edited, out, 4).images[2])).max() <= 1
    assert len(gan.loop(gan.sample(3, seed=0), 2)) == 6
    for given in ([], [inv], inv.photo):
        with pytest.raises(ValueError, match=r"two pictures or more|number of keyframes is 1|cannot be edited"):
            gan.loop(given)
    with pytest.raises(ValueError, match="kind is 'slerp': photos and edited pictures have no z between them"):
        gan.interpolate(out, edited, 4, "slerp")


def test_a_transfer_gives_what_one_has_and_another_has_not(gan: HFGan, inv: Inversion) -> None:
    out = gan.sample(seed=1)
    smiling = gan.edit(out, {"smile": 2})
    given = gan.transfer(inv, smiling, out)
    assert torch.allclose(given.w_plus, gan.edit(inv, {"smile": 2}).w_plus, atol=1e-5)
    assert gan.transfer(inv, smiling, out, 0).images == [inv.image]
    half = gan.transfer(inv, smiling, out, amount=0.5)
    assert torch.allclose(half.w_plus - inv.w_plus, shift(gan, "smile"), atol=1e-5)
    assert gan.replay(half.recipes[0]).images == half.images
    assert half.inversion is inv
    for amount in (math.nan, "1", True, None):
        with pytest.raises(ValueError, match=r"amount is .*: expected a number, such as 1.0"):
            gan.transfer(inv, smiling, out, amount)


def test_a_photo_is_mixed_with_the_styles_of_a_sample(gan: HFGan, inv: Inversion) -> None:
    out = gan.sample(2, seed=1)
    mixed = gan.mix(inv, out, "4-7")
    assert isinstance(mixed, EditOutput)
    assert torch.equal(mixed.w_plus[:, :4], inv.w_plus[:, :4].expand(2, -1, -1))
    assert torch.allclose(mixed.w_plus[:, 4:], out.w_plus[:, 4:], atol=1e-6)
    assert gan.replay(mixed.recipes[1]).images == [mixed.images[1]]
    other = gan.mix(out[0], gan.edit(inv, {"smile": 1}), "0-3")
    assert torch.allclose(other.w_plus[:, 4:], out[0].w_plus[:, 4:], atol=1e-6)
    assert other.inversion is None
    assert (mixed.inversion, mixed[0].pasted()[0].size) == (inv, (90, 60))
    with pytest.raises(ValueError, match="layers is '9': expected ascending ranges within 0-7"):
        gan.mix(inv, out, "9")


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("edits", "says"),
    [
        ({"frown": 1}, "there is no direction 'frown': this model has smile, zoom, odd"),
        ({7: 1}, "7 is no direction: give the name of one, or a Direction"),
        ({"smile": "2"}, "the strength of 'smile' is '2': expected a number, such as 2.0"),
        ({"smile": None}, "the strength of 'smile' is None"),
        ({"smile": True}, "the strength of 'smile' is True"),
        ({"smile": math.nan}, "the strength of 'smile' is nan"),
        ({"smile": math.inf}, "the strength of 'smile' is inf"),
        ({"smile": 1001}, "the strength of 'smile' is 1001"),
        ("smile", "edits is 'smile': expected strengths by name"),
        (["smile"], "edits is \\['smile'\\]: expected strengths by name"),
        (None, "edits is None: expected strengths by name"),
        ({Direction("wide", torch.ones(8)): 1}, "'wide' moves w of 8 numbers: this model has w_dim 16"),
        ([Edit(Direction("deep", torch.ones(16)), 1, layers=(8,))], "'deep'.*8|layers.*0 to 7"),
        ([Edit(Direction("deep", torch.ones(3, 16)), 1)], "'deep' has steps for 3 layers: this model has 8"),
    ],
)
def test_edits_that_are_none(gan: HFGan, edits: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        gan.edit(gan.sample(seed=1), edits)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"layers": "8"}, "layers is '8': expected ascending ranges within 0-7"),
        ({"layers": "3-1"}, "layers is '3-1'"),
        ({"layers": ""}, "layers is ''"),
        ({"layers": []}, "layers is \\[\\]"),
        ({"layers": 3}, "layers is 3"),
        ({"feather": -0.1}, "feather is -0.1: expected a share of the side, 0 to 0.5"),
        ({"feather": math.nan}, "feather is nan"),
        ({"feather": "1"}, "feather is '1'"),
        ({"region": "interest"}, "region is 'interest', which inverted photos have"),
        ({"region": "beard"}, "region is 'beard': expected 'alpha', 'interest', a region, a box or a file"),
        ({"region": (0, 0, 0, 1)}, "the box .* has no pixel"),
        ({"region": (1, 2, 3)}, "expected a box of four numbers"),
        ({"region": np.zeros((32, 32))}, "the interest is empty"),
        ({"region": np.full((32, 32), np.nan)}, "the interest goes beyond"),
        ({"region": np.ones((32, 24))}, "the interest has 24x32 pixels and the photo 32x32"),
        ({"region": (0, 0, 3, 3), "feather": 0.5}, "the region is nowhere wider than the feather of 0.5 sides"),
    ],
)
def test_numbers_layers_and_regions_that_are_none(gan: HFGan, given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        gan.edit(gan.sample(seed=1), {"smile": 1}, **given)
    assert len(str(error.value).splitlines()) == 1


def test_what_is_no_picture_of_this_model_is_refused(gan: HFGan, stranger: HFGan, photo) -> None:
    with pytest.raises(ValueError, match="load the model that drew it"):
        gan.edit(stranger.sample(seed=1), {"smile": 1})
    foreign = stranger.edit(stranger.sample(seed=1), {"smile": 1})
    with pytest.raises(ValueError, match="load the model that drew it"):
        gan.edit(foreign, {"smile": 1})
    with pytest.raises(ValueError, match="the inversion belongs to a generator with weights"):
        gan.edit(stranger.invert(photo()), {"smile": 1})
    with pytest.raises(ValueError, match="'smile' belongs to a generator with weights"):
        gan.edit(gan.sample(seed=1), {stranger.directions["smile"]: 1})
    with pytest.raises(ValueError, match="a Image cannot be edited: give what sample, invert or edit returned"):
        gan.edit(photo(), {"smile": 1})
    with pytest.raises(ValueError, match=r"w_plus has shape \[1, 6, 16\]: expected \(n, 8, 16\)"):
        gan.edit(torch.zeros(1, 6, 16), {"smile": 1})
    with pytest.raises(ValueError, match="there is no picture in what was given"):
        gan.edit(torch.zeros(0, 8, 16), {"smile": 1})
    plain = make(directions=None)
    with pytest.raises(ValueError, match="this model has no directions, so none called 'smile'"):
        plain.edit(plain.sample(seed=1), {"smile": 1})
    with pytest.raises(ValueError, match="layers and to belong to strengths by name: here each Edit has its own"):
        gan.edit(gan.sample(seed=1), [Edit(gan.directions["smile"], 1)], to=True)
    with pytest.raises(ValueError, match="nothing measures 'odd': it can be added, but no value of it reached"):
        gan.edit(gan.sample(seed=1), {"odd": 1}, to=True)


# ---------------------------------------------------------------- files


def test_pictures_are_saved_with_their_recipes(gan: HFGan, tmp_path: Path) -> None:
    edited = gan.edit(gan.sample(2, seed=1), {"smile": 2})
    paths = edited.save(tmp_path / "new")
    assert [path.name for path in paths] == ["edit-00.png", "edit-01.png"]
    assert [read_recipe(path) for path in paths] == edited.recipes
    assert gan.replay(paths[1]).images == [edited.images[1]]
    before = paths[1].read_bytes()
    paths[0].unlink()
    with pytest.raises(FileExistsError, match=r"edit-01.png exists already: choose another folder or pass overwrite"):
        edited.save(tmp_path / "new")
    assert not paths[0].exists(), "nothing is written then"
    edited.save(tmp_path / "new", overwrite=True)
    assert paths[1].read_bytes() == before
    assert edited.save(tmp_path, "me")[0].name == "me-00.png"
