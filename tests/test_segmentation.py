"""Cut-outs: alpha follows edges, colours are freed of the old background, and files hold what they say."""

from __future__ import annotations

import io
import math
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from hfgan import images
from hfgan import segmentation as seg
from hfgan.segmentation import KINDS, Cutout

RED, BLUE = (220, 20, 20), (20, 40, 220)


def disc(height: int, width: int, radius: float, soft: float = 1.0, x: float = 0.5, y: float = 0.5) -> torch.Tensor:
    """Alpha (1, 1, h, w) of a disc whose edge is a ramp of `soft` pixels; radius in pixels, centre in shares."""
    rows, columns = torch.arange(height) + 0.5 - y * height, torch.arange(width) + 0.5 - x * width
    distance = torch.hypot(rows[:, None], columns[None])
    return ((radius - distance) / soft + 0.5).clamp(0, 1)[None, None]


def plain(colour: tuple[int, int, int]) -> torch.Tensor:
    return images.to_image(torch.tensor(colour).reshape(1, 3, 1, 1))


def over(alpha: torch.Tensor, foreground: torch.Tensor | None = None, background: torch.Tensor | None = None):
    """The image of a foreground, red unless given, on a background, blue unless given."""
    foreground = plain(RED) if foreground is None else foreground
    return seg.composite(foreground, plain(BLUE) if background is None else background, alpha)


def cutout(alpha: torch.Tensor, image: torch.Tensor | None = None, **named) -> Cutout:
    return Cutout(images.to_pil(over(alpha) if image is None else image)[0], alpha[0, 0], **named)


@pytest.fixture
def soft_disc() -> Cutout:
    return cutout(disc(40, 60, 12, soft=6), recipe={"seed": 3}, name="seed0003")


# ---------------------------------------------------------------- what a cut-out is


@pytest.mark.parametrize(
    ("mode", "alpha", "message"),
    [
        ("L", torch.zeros(4, 6), "mode is L: expected RGB"),
        ("RGB", torch.zeros(6, 4), r"\[6, 4\], cpu: expected float32 \[4, 6\], cpu"),
        ("RGB", torch.zeros(1, 1, 4, 6), r"\[1, 1, 4, 6\]"),
        ("RGB", torch.zeros(4, 6, dtype=torch.float64), "torch.float64"),
        ("RGB", torch.full((4, 6), 1.5), "from 1.5 to 1.5: expected 0 to 1"),
        ("RGB", torch.full((4, 6), -0.5), "from -0.5"),
        ("RGB", torch.full((4, 6), math.nan), "from nan"),
    ],
)
def test_what_is_no_cutout_is_refused(mode, alpha, message):
    with pytest.raises(ValueError, match=message):
        Cutout(Image.new(mode, (6, 4)), alpha)


# ---------------------------------------------------------------- composing and colours


def test_compositing_is_the_formula_and_exact_at_the_ends():
    generator = torch.Generator().manual_seed(0)
    front, behind = torch.rand(2, 2, 3, 5, 7, generator=generator) * 2 - 1
    alpha = torch.rand(2, 1, 5, 7, generator=generator)
    torch.testing.assert_close(seg.composite(front, behind, alpha), alpha * front + (1 - alpha) * behind)
    assert torch.equal(seg.composite(front, behind, torch.ones(2, 1, 5, 7)), front)
    assert torch.equal(seg.composite(front, behind, torch.zeros(2, 1, 5, 7)), behind)


def test_on_its_own_background_a_cutout_is_the_picture(photo):
    alpha = disc(40, 56, 13, soft=1.0)
    background = images.to_tensor(photo(56, 40, seed=2))
    picture = cutout(alpha, over(alpha, images.to_tensor(photo(56, 40, seed=1)), background))
    back = np.asarray(Image.alpha_composite(images.to_pil(background)[0].convert("RGBA"), picture.rgba()))[..., :3]
    hard = ((alpha == 0) | (alpha == 1))[0, 0].numpy()
    error = np.abs(back.astype(int) - np.asarray(picture.image))
    assert error[hard].max() <= 1
    assert error[~hard].mean() < 12


def contamination(alpha: torch.Tensor, foreground: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How far off, in levels, the foreground's share of soft pixels is on blue: as estimated, and as it is there."""
    image, band = over(alpha, foreground), ((alpha > 0.02) & (alpha < 0.98))[0, 0]
    colours = (seg.foreground_colors(image, alpha), image)
    estimated, own = ((alpha * (found - foreground))[0, :, band].abs() * 127.5 for found in colours)
    return estimated, own


@pytest.mark.parametrize(("soft", "left"), [(4, 0.2), (12, 0.5)])  # the first window is 9 px wide to each side
def test_soft_pixels_get_back_the_colour_of_the_foreground(soft, left):
    alpha = disc(96, 128, 30, soft)
    estimated, own = contamination(alpha, plain(RED))
    assert own.max() > 45  # purple
    assert estimated.mean() < left * own.mean()
    assert estimated.max() < 0.6 * own.max()


def test_colours_that_change_along_the_edge_are_followed(photo):
    estimated, own = contamination(disc(96, 128, 30, soft=4), images.to_tensor(photo(128, 96, seed=2)))
    assert estimated.mean() < 0.28 * own.mean()


def test_no_halo_on_a_new_background():
    alpha = disc(96, 96, 30, soft=6)
    truth = over(alpha, background=plain((255, 255, 255)))
    fringe = (alpha > 0.02) & (alpha < 0.98)

    def error(decontaminate: bool) -> float:
        shown = images.to_tensor(cutout(alpha).on("white", decontaminate=decontaminate))
        return ((shown - truth).abs().mean(1, keepdim=True)[fringe].mean() * 127.5).item()

    assert error(True) < 7 < 20 < error(False)


def test_a_picture_cut_by_nothing_or_everything_keeps_its_colours(photo):
    image = images.to_tensor(photo())
    for value in (0.0, 1.0):
        alpha = torch.full((1, 1, 48, 48), value)
        colours = seg.foreground_colors(image, alpha)
        assert colours.isfinite().all()
        whole = cutout(alpha, image)
        assert whole.rgba().getextrema()[3] == (255 * value, 255 * value)
        assert np.abs(np.asarray(whole.on("teal")).astype(int) - (0, 128, 128)).max() <= 1 or value
    assert (colours - image).abs().max() < 1e-4


def test_far_transparent_pixels_tell_nothing_and_near_ones_do_not_fringe(soft_disc):
    for decontaminate in (True, False):
        pixels = np.asarray(soft_disc.rgba(decontaminate=decontaminate)).astype(int)
        assert pixels[0, 0].tolist() == [0, 0, 0, 0]
    hard = disc(80, 120, 24, soft=2)
    pixels = np.asarray(cutout(hard).rgba()).astype(int)
    rim = (seg.box_mean(hard, 1)[0, 0].numpy() > 0) & (pixels[..., 3] == 0)
    assert rim.any()
    assert np.abs(pixels[rim][:, :3] - RED).mean() < 25


def test_backgrounds_are_colours_pictures_and_blur(soft_disc, photo):
    assert soft_disc.on("#ff8800").getpixel((0, 0)) == (255, 136, 0)
    assert soft_disc.on((255, 136, 0)).tobytes() == soft_disc.on("#ff8800").tobytes()
    assert soft_disc.on("teal").getpixel((0, 0)) == (0, 128, 128)
    wide = photo(200, 40)
    assert soft_disc.on(wide).getpixel((0, 0)) == wide.getpixel((70, 0))
    tall = Image.new("RGBA", (60, 400), (255, 0, 0, 0))
    assert soft_disc.on(tall).getpixel((0, 0)) == (255, 255, 255)
    assert soft_disc.on(wide).size == soft_disc.image.size


def test_blur_takes_nothing_of_the_foreground():
    alpha = disc(64, 96, 20, soft=3)
    blurred = images.to_tensor(cutout(alpha).on("blur"))
    outside = (alpha == 0)[0, 0]
    assert (blurred - plain(BLUE))[0, :, outside].abs().max() * 127.5 < 8
    smeared = seg.gaussian(over(alpha), 0.03 * 64)
    assert (smeared - plain(BLUE))[0, :, outside].abs().max() * 127.5 > 40


@pytest.mark.parametrize("colour", ["no such", "#12", "#ff880080", (1, 2), (1, 2, 300), (0.5, 0, 0), 3, None])
def test_what_is_no_colour_is_refused(soft_disc, colour):
    with pytest.raises(ValueError, match='expected "#rrggbb", a name or'):
        soft_disc.on(colour)
    with pytest.raises(ValueError, match="the colour is"):
        soft_disc.overlay(colour)


def test_overlay_keeps_the_foreground_darkens_the_rest_and_draws_the_edge():
    alpha = disc(64, 96, 20, soft=1)
    picture = cutout(alpha, over(alpha, background=plain((200, 200, 200))))
    shown = np.asarray(picture.overlay((0, 255, 0))).astype(int)
    assert shown[32, 48].tolist() == list(RED)
    assert shown[2, 2].sum() < 0.7 * 600
    assert shown[2, 2, 1] > shown[2, 2, 0]  # tinted
    line = np.abs(shown - (0, 255, 0)).sum(-1)
    assert line[32, 64:73].min() < 100  # on the edge, at column 68
    assert line[32, 78] > 150


# ---------------------------------------------------------------- refinement


def boundary_error(alpha: torch.Tensor, truth: torch.Tensor) -> float:
    near = seg.box_mean(((truth > 0) & (truth < 1)).float(), 4) > 0
    return (alpha - truth)[near].abs().mean().item()


def misplaced(alpha: torch.Tensor, truth: torch.Tensor) -> float:
    """Share of pixels on the wrong side of one half."""
    return ((alpha > 0.5) != (truth > 0.5)).float().mean().item()


def enlarged(alpha: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return torch.nn.functional.interpolate(alpha, (height, width), mode="bilinear")


@pytest.mark.parametrize(("height", "width"), [(128, 128), (96, 144), (150, 100)])
@pytest.mark.parametrize("moved", [0.0, 1.5])
def test_refinement_brings_a_coarse_or_misplaced_edge_to_the_one_in_the_picture(height, width, moved):
    generator = torch.Generator().manual_seed(1)
    texture = seg.gaussian(torch.randn(1, 3, height, width, generator=generator), 2) * 0.3
    truth = disc(height, width, 30)
    image = (over(truth) + texture).clamp(-1, 1)
    coarse = seg.gaussian(disc(height, width, 30 + moved), 2)
    small = torch.nn.functional.interpolate(coarse, (height // 2, width // 2), mode="area")
    before, refined = enlarged(small, height, width), seg.refine(small, image, radius=0.08)
    assert refined.shape == truth.shape
    assert 0 <= refined.min() <= refined.max() <= 1
    assert boundary_error(refined, truth) < 0.7 * boundary_error(before, truth)
    assert misplaced(refined, truth) < 0.3 * misplaced(before, truth)
    assert misplaced(seg.refine(small, image), truth) < 0.6 * misplaced(before, truth)


def test_windows_see_across_a_pixel_of_a_tiny_alpha_however_small_the_radius():
    truth = disc(520, 800, 150, soft=2)
    small = torch.nn.functional.interpolate(truth, (13, 20), mode="area")
    refined = seg.refine(small, over(truth), radius=0.001)
    assert refined.shape == truth.shape
    assert misplaced(refined, truth) < 0.1 * misplaced(enlarged(small, 520, 800), truth)


def test_alpha_that_is_a_line_in_the_colours_stays_as_it_is():
    alpha = disc(40, 56, 12, soft=8)
    refined = seg.refine(alpha, over(alpha), radius=0.1, epsilon=1e-9)
    torch.testing.assert_close(refined, alpha, atol=1e-3, rtol=0)


def test_without_edges_in_the_picture_alpha_is_only_averaged():
    alpha, flat = disc(40, 56, 12, soft=2), torch.zeros(1, 3, 40, 56)
    expected = seg.box_mean(seg.box_mean(alpha, 4), 4)
    torch.testing.assert_close(seg.refine(alpha, flat, radius=0.1), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(48, 48), (37, 61), (1, 50), (50, 1), (1, 1), (2, 3)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_or_nothing_stays_so_at_any_size(shape, value, photo):
    image, alpha = images.to_tensor(photo(*shape[::-1])), torch.full((1, 1, *shape), value)
    torch.testing.assert_close(seg.refine(alpha, image), alpha, atol=1e-5, rtol=0)
    torch.testing.assert_close(seg.refine(alpha[:, :, :1, :1], image), alpha, atol=1e-5, rtol=0)
    assert torch.equal(seg.clean(alpha), alpha)
    assert torch.equal(seg.largest_component(alpha), alpha)
    assert torch.equal(seg.hold_known(torch.full_like(alpha, 0.5), alpha), alpha)
    whole = cutout(alpha, image).finish(feather=3, largest=True)
    torch.testing.assert_close(whole.alpha, alpha[0, 0])
    for kind in KINDS:
        assert whole.render(kind).size == whole.image.size
    assert whole.on("blur").size == whole.image.size


def test_refinement_works_on_a_batch_as_on_each(photo):
    image = torch.cat([images.to_tensor(photo(40, 30, seed)) for seed in (1, 2)])
    alpha = torch.cat([disc(30, 40, radius) for radius in (8, 11)])
    both = seg.refine(alpha, image)
    for index in range(2):
        alone = seg.refine(alpha[index : index + 1], image[index : index + 1])
        torch.testing.assert_close(both[index : index + 1], alone, atol=1e-6, rtol=0)


def test_what_cannot_be_refined_is_refused():
    image = torch.zeros(1, 3, 8, 8)
    for alpha in (torch.zeros(1, 1, 9, 8), torch.zeros(8, 8), torch.zeros(2, 1, 8, 8), torch.zeros(1, 3, 8, 8)):
        with pytest.raises(ValueError, match="at most as large"):
            seg.refine(alpha, image)
    with pytest.raises(ValueError, match="as large"):
        seg.foreground_colors(image, torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match="expected"):
        seg.refine(torch.zeros(1, 1, 8, 8), image[:, :1])
    for wrong in ({"radius": 0}, {"radius": 0.3}, {"epsilon": 0}, {"epsilon": 2}, {"epsilon": math.nan}):
        with pytest.raises(ValueError, match="expected a radius above 0"):
            seg.refine(torch.zeros(1, 1, 8, 8), image, **wrong)


def test_known_pixels_are_held_and_those_near_an_edge_are_not():
    alpha = disc(64, 64, 20)
    held = seg.hold_known(torch.full_like(alpha, 0.5), alpha, erode=10)
    inside, outside = disc(64, 64, 20 - 10) == 1, disc(64, 64, 20 + 10) == 0
    assert (held[inside] == 1).all()
    assert (held[outside] == 0).all()
    near = (disc(64, 64, 20 + 4) > 0) & (disc(64, 64, 20 - 4) < 1)
    assert (held[near] == 0.5).all()
    faint = torch.full((1, 1, 8, 8), 0.9)
    assert (seg.hold_known(faint, faint) == 0.9).all()
    assert (seg.hold_known(faint, faint, foreground=229) == 1).all()
    for wrong in ({"foreground": 10}, {"background": 240}, {"foreground": 256}, {"background": -1}, {"erode": -1}):
        with pytest.raises(ValueError, match="give other numbers"):
            seg.hold_known(alpha, alpha, **wrong)


def test_cleaning_drops_specks_and_hardens():
    alpha = disc(48, 64, 14, soft=4)
    noisy = alpha.clone()
    noisy[0, 0, 2, 2:5] = noisy[0, 0, 40, 60] = 1
    cleaned = seg.clean(noisy)
    assert set(cleaned.unique().tolist()) == {0, 1}
    assert cleaned[0, 0, :8, :8].sum() == 0
    assert cleaned[0, 0, 40, 60] == 0
    assert (cleaned != (alpha >= 0.5)).float().mean() < 0.01
    stripes = (torch.arange(32) % 2).float().expand(1, 1, 32, 32)
    assert seg.clean(stripes).sum() == 0  # opened, not closed


# ---------------------------------------------------------------- components


def regions_one_by_one(on: np.ndarray) -> list[set[tuple[int, int]]]:
    """The 8-connected regions, pixel by pixel."""
    left, regions = set(zip(*on.nonzero(), strict=True)), []
    while left:
        region, edge = set(), [left.pop()]
        while edge:
            y, x = edge.pop()
            region.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            edge += near
        regions.append(region)
    return regions


@pytest.mark.parametrize("density", [0.2, 0.35, 0.45, 0.7])
def test_the_largest_component_is_that_of_a_search_pixel_by_pixel(density):
    for seed in range(4):
        on = np.random.default_rng(seed).random((23, 31)) < density
        largest = max(regions_one_by_one(on), key=len)
        kept = seg.largest_component(torch.from_numpy(on).float()[None, None])[0, 0] > 0
        found = set(zip(*kept.numpy().nonzero(), strict=True))
        assert len(found) == len(largest)
        assert found in regions_one_by_one(on)


def test_a_spiral_is_one_component():
    on = torch.zeros(101, 101)
    for ring in range(0, 50, 4):
        on[ring : 101 - ring, ring] = on[101 - ring - 1, ring : 101 - ring] = on[ring : 101 - ring, 100 - ring] = 1
        on[ring, ring + 2 : 101 - ring] = 1
        on[ring + 2 : ring + 5, ring + 2] = on[ring, ring] = 1
    assert len(regions_one_by_one(on.numpy())) > 1
    largest = max(regions_one_by_one(on.numpy()), key=len)
    assert seg.largest_component(on[None, None]).sum() == len(largest)


def test_soft_edges_stay_with_the_component_that_they_belong_to():
    large, small = disc(80, 160, 24, soft=6, x=0.25), disc(80, 160, 14, soft=6, x=0.75)
    speck = torch.zeros_like(large)
    speck[..., 5, 75:78] = 0.4
    all_parts = large + small + speck
    visible = large > 1 / 255
    for haze in (0.0, 0.003, 0.05):  # the last joins them
        kept = seg.largest_component(all_parts.clamp(min=haze))
        torch.testing.assert_close(kept[visible], large.clamp(min=haze)[visible])
        assert kept[small > 0].max() == 0
    assert seg.largest_component(all_parts)[~visible].max() == 0


def test_a_thin_component_is_whole_beside_a_lesser_block():
    line, block = torch.zeros(2, 1, 1, 400, 400).unbind()
    line[..., 200, 50:350] = 1
    block[..., 202:217, 100:115] = 1
    assert torch.equal(seg.largest_component(line + block), line)


def test_of_equals_the_first_is_kept_and_without_a_core_nothing_changes():
    two = torch.zeros(1, 1, 5, 9)
    two[..., 1:3, 1:3] = two[..., 1:3, 6:8] = 1
    kept = seg.largest_component(two)
    assert kept[..., :4].sum() == 4
    assert kept[..., 4:].sum() == 0
    faint = torch.full((1, 1, 4, 4), 0.5)
    assert torch.equal(seg.largest_component(faint), faint)


def test_the_end_of_a_row_does_not_touch_the_start_of_the_next():
    on = torch.zeros(1, 1, 4, 6)
    on[..., 1, 3:] = on[..., 2, :2] = 1
    assert seg.largest_component(on).sum() == 3


# ---------------------------------------------------------------- finishing touches


def test_threshold_feather_largest_and_invert(soft_disc):
    hard = soft_disc.finish(threshold=0.5).alpha
    assert torch.equal(hard, (soft_disc.alpha >= 0.5).float())
    assert soft_disc.finish(threshold=0.9).alpha.sum() < hard.sum() < soft_disc.finish(threshold=0.1).alpha.sum()
    assert torch.equal(soft_disc.finish(invert=True).alpha, 1 - soft_disc.alpha)
    assert torch.equal(soft_disc.finish().alpha, soft_disc.alpha)
    two = cutout(disc(40, 60, 8, x=0.3) + disc(40, 60, 5, x=0.8))
    assert two.finish(largest=True).alpha[:, 40:].max() == 0
    finished = two.finish(threshold=0.5, largest=True, feather=2, invert=True)
    assert finished.alpha[20, 48] > 0.99  # what was dropped is background, and so foreground in the end
    assert (finished.recipe, finished.name, finished.image) == (two.recipe, two.name, two.image)


@pytest.mark.parametrize("feather", [0.01, 0.5, 2, 7.9, 8, 30, 100])
def test_feather_keeps_the_mean_and_the_range(feather):
    hard = cutout(disc(64, 96, 16, soft=0.1))
    soft = hard.finish(feather=feather).alpha
    assert 0 <= soft.min() <= soft.max() <= 1
    if feather < 10:  # a wider blur reaches the frame
        assert soft.mean() == pytest.approx(hard.alpha.mean().item(), rel=0.01)
    assert torch.equal(soft, hard.finish(feather=feather).alpha)


@pytest.mark.parametrize("sigma", [1.0, 4.0, 11.0])
def test_a_gaussian_has_the_deviation_that_was_asked_for(sigma):
    point = torch.zeros(1, 1, 121, 201)
    point[..., 60, 100] = 1
    blurred = seg.gaussian(point, sigma)[0, 0]
    x, y = torch.arange(201) - 100.0, torch.arange(121) - 60.0
    assert blurred.sum() == pytest.approx(1, abs=0.02)
    assert (blurred.sum(0) * x.square()).sum().sqrt() == pytest.approx(sigma, rel=0.02)
    assert (blurred.sum(1) * y.square()).sum().sqrt() == pytest.approx(sigma, rel=0.02)


def test_a_foreground_that_the_frame_cuts_is_not_softened_there():
    half = torch.zeros(1, 1, 32, 32)
    half[..., :16] = 1
    soft = cutout(half).finish(feather=3).alpha
    torch.testing.assert_close(soft[0], soft[16])
    assert soft[:, 0].min() > 0.999


@pytest.mark.parametrize("threshold", [0, 1, -0.1, 1.1, math.nan])
def test_a_threshold_out_of_range_is_refused(soft_disc, threshold):
    with pytest.raises(ValueError, match="expected a number between 0 and 1"):
        soft_disc.finish(threshold=threshold)


@pytest.mark.parametrize("feather", [-1, 101, math.nan])
def test_a_feather_out_of_range_is_refused(soft_disc, feather):
    with pytest.raises(ValueError, match="expected 0 to 100 pixels"):
        soft_disc.finish(feather=feather)


# ---------------------------------------------------------------- exports


def test_trimap_has_three_levels_and_a_band_about_the_edge():
    hard = cutout(disc(200, 300, 60, soft=0.01))
    levels = np.asarray(hard.trimap())
    assert set(np.unique(levels)) == {0, 128, 255}
    row = levels[100]
    assert (row == 128).sum() == 2 * 4  # 1 % of 200 px to each side of two edges
    assert (np.asarray(hard.trimap(7))[100] == 128).sum() == 2 * 14
    assert set(np.unique(np.asarray(hard.trimap(0)))) == {0, 255}
    soft = cutout(disc(64, 64, 20, soft=9))
    unsure = ((soft.alpha > 0.05) & (soft.alpha < 0.94)).numpy()
    assert (np.asarray(soft.trimap(0))[unsure] == 128).all()
    for band in (-1, 1000, math.nan):
        with pytest.raises(ValueError, match="expected pixels, from 0 to the longer side, 300"):
            hard.trimap(band)


def test_16_bits_come_back_exactly_and_8_bits_are_rounded(tmp_path):
    values = torch.arange(65536, dtype=torch.float32).reshape(256, 256) / 65535
    ramp = Cutout(Image.new("RGB", (256, 256)), values)
    ramp.save(tmp_path / "a.png", "alpha16")
    with Image.open(tmp_path / "a.png") as pil:
        assert pil.mode == "I;16"
        assert np.array_equal(np.asarray(pil), np.arange(65536).reshape(256, 256))
    expected = np.round(np.arange(65536) / 257).reshape(256, 256)
    assert np.array_equal(np.asarray(ramp.mask()), expected)
    assert np.array_equal(np.asarray(ramp.rgba())[..., 3], expected)


@pytest.mark.parametrize(("kind", "mode"), zip(KINDS, ("RGBA", "L", "I;16", "L", "RGB"), strict=True))
def test_every_kind_is_saved_with_its_recipe(tmp_path, soft_disc, kind, mode):
    path = tmp_path / f"a{KINDS[kind]}.png"
    soft_disc.save(path, kind)
    assert images.read_recipe(path) == {"seed": 3}
    with Image.open(path) as pil:
        assert (pil.mode, pil.size) == (mode, (60, 40))
        assert pil.tobytes() == soft_disc.render(kind).tobytes()


def test_webp_keeps_every_pixel_of_an_rgba(tmp_path, soft_disc):
    soft_disc.save(tmp_path / "a.webp")
    with Image.open(tmp_path / "a.webp") as pil:
        assert pil.convert("RGBA").tobytes() == soft_disc.rgba().tobytes()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        soft_disc.save(tmp_path / "a.webp")


def test_nothing_is_overwritten_unasked_and_wrong_names_are_refused(tmp_path, soft_disc):
    path = tmp_path / "a.png"
    soft_disc.save(path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        soft_disc.save(path, "mask")
    assert path.read_bytes() == before
    soft_disc.save(path, "mask", overwrite=True)
    assert path.read_bytes() != before
    with pytest.raises(ValueError, match=r"does not end in \.png"):
        soft_disc.save(tmp_path / "b.jpg")
    with pytest.raises(ValueError, match=r"does not end in \.png"):
        soft_disc.save(tmp_path / "b.webp", "mask")
    with pytest.raises(ValueError, match="kind is 'on': expected 'rgba', 'mask'"):
        soft_disc.save(tmp_path / "b.png", "on")
    assert list(tmp_path.iterdir()) == [path]


def test_a_zip_has_a_folder_per_kind_and_the_same_bytes_twice(soft_disc):
    others = [cutout(disc(20, 20, 5), name=name) for name in ("rose", "Rose", "rose-3", "rose", None, "../a:b", "..")]
    cutouts = [soft_disc, *others]
    data = seg.zip_bytes(cutouts, ["rgba", "mask"])
    assert data == seg.zip_bytes(cutouts, ["rgba", "mask"])
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        png = archive.read("rgba/seed0003.png")
        mask = Image.open(io.BytesIO(archive.read("mask/seed0003.png")))
    assert images.read_recipe(png) == {"seed": 3}
    assert mask.tobytes() == soft_disc.mask().tobytes()
    stems = [name.removeprefix("rgba/").removesuffix(".png") for name in names if name.startswith("rgba/")]
    assert len({stem.casefold() for stem in stems}) == len(cutouts) == len(names) / 2
    assert stems[:2] == ["seed0003", "rose"]
    assert not any(set("/\\:") & set(stem) or stem.startswith(".") for stem in stems)


def test_a_zip_of_one_kind_has_no_folders_and_of_nothing_is_refused(soft_disc):
    with zipfile.ZipFile(io.BytesIO(seg.zip_bytes([soft_disc], ["mask"]))) as archive:
        assert archive.namelist() == ["seed0003.png"]
    assert seg.zip_bytes([soft_disc], ["mask", "mask"]) == seg.zip_bytes([soft_disc], ["mask"])
    with pytest.raises(ValueError, match="at least one of each"):
        seg.zip_bytes([], ["rgba"])
    with pytest.raises(ValueError, match="at least one of each"):
        seg.zip_bytes([soft_disc], [])
    with pytest.raises(ValueError, match="kind is 'jpeg'"):
        seg.zip_bytes([soft_disc], ["jpeg"])
