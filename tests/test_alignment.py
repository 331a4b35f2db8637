"""Alignment: the square is the one asked for, the crop is of that square, and a paste touches nothing else."""

from __future__ import annotations

import math
import re
import time

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from hfgan.alignment import Alignment, find_alignment
from hfgan.images import resize_square, with_channels

# an upright face in 200 x 160: e = (20, 0), m = (0, 30), half a side max(2 * 20, 1.8 * 30) = 54, centre (50, 50 + 3)
FACE = [(40, 50), (60, 50), (50, 64), (42, 80), (58, 80)]
FACE_QUAD = ((-4, -1), (-4, 107), (104, 107), (104, -1))


def turned(points, degrees: float, about=(100, 80), shift=(0, 0)) -> np.ndarray:
    """Points (n, 2) turned clockwise, as seen with y downwards."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return (np.array(points, float) - about) @ np.array([[c, s], [-s, c]]) + about + shift


def tilted(size=(120, 90), side=50.0, degrees=25.0) -> Alignment:
    """A turned square in the middle of a photo."""
    (x, y), half = np.array(size) / 2, side / 2
    corners = [(x - half, y - half), (x - half, y + half), (x + half, y + half), (x + half, y - half)]
    return Alignment(tuple(map(tuple, turned(corners, degrees, (x, y)).tolist())), size, "points")


def same(a: Image.Image, b: Image.Image) -> bool:
    return a.mode == b.mode and np.array_equal(np.asarray(a), np.asarray(b))


def psnr(a, b) -> float:
    return 10 * math.log10(255**2 / max(1e-9, np.square(np.asarray(a, float) - np.asarray(b, float)).mean()))


def shares(alignment: Alignment) -> np.ndarray:
    """(h, w, 2): where the centres of a photo's pixels lie in the square, (0, 0) top left, (1, 1) bottom right."""
    corners = np.array(alignment.quad)
    across, down = corners[3] - corners[0], corners[1] - corners[0]
    y, x = np.mgrid[: alignment.size[1], : alignment.size[0]] + 0.5
    offset = np.stack([x, y], -1) - corners[0]
    return np.stack([offset @ across, offset @ down], -1) / (across @ across)


def noise(width: int, height: int, channels: int = 3) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


# ---------------------------------------------------------------- which square


def test_hand_computed_squares():
    assert find_alignment((7, 4)) == Alignment(((1, 0), (1, 4), (5, 4), (5, 0)), (7, 4), "center")
    assert find_alignment((5, 5), "none").quad == ((0, 0), (0, 5), (5, 5), (5, 0))
    box = find_alignment((100, 80), (10, 20, 30, 60))  # 20 x 40 about (20, 40)
    assert box == Alignment(((0, 20), (0, 60), (40, 60), (40, 20)), (100, 80), "box")
    assert find_alignment((100, 80), [60, 30, 110, 31]).quad[0] == (60, 5.5)  # extended and sticking out
    assert find_alignment((100, 80), (60, 30, 110, 31)).quad[2] == (110, 55.5)


@pytest.mark.parametrize("size", [(10, 10), (640, 427), (33, 71)])
def test_a_box_in_shares_is_the_box_in_pixels(size):
    for box in ((0.1, 0.2, 0.7, 0.9), (0, 0, 1, 1), (0.3, 0.3, 0.6, 0.6)):
        pixels = [share * edge for share, edge in zip(box, (*size, *size), strict=True)]
        np.testing.assert_allclose(find_alignment(size, box).quad, find_alignment(size, pixels).quad, atol=1e-5)
    assert find_alignment((100, 100), (0.29, 0.29, 0.57, 0.57)).quad == ((29, 29), (29, 57), (57, 57), (57, 29))


def test_the_square_of_a_face():
    upright = find_alignment((200, 160), FACE)
    np.testing.assert_allclose(upright.quad, FACE_QUAD, atol=1e-9)
    assert upright.is_upright
    assert upright.side == pytest.approx(108)
    without_nose = FACE[:2] + FACE[3:]
    assert find_alignment((200, 160), torch.tensor(without_nose)).quad == upright.quad
    wide = find_alignment((200, 160), [(40, 50), (80, 50), (50, 60), (70, 60)])  # 2 * 40 beats 1.8 * 10
    np.testing.assert_allclose(wide.quad, ((-20, -29), (-20, 131), (140, 131), (140, -29)), atol=1e-9)


@pytest.mark.parametrize("degrees", [30, -30, 90, 180])
def test_a_turned_face_has_the_turned_square(degrees):
    alignment = find_alignment((200, 160), turned(FACE, degrees))
    np.testing.assert_allclose(alignment.quad, turned(FACE_QUAD, degrees), atol=1e-9)
    assert not alignment.is_upright


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("none", "120x90 photo is not square: crop it first"),
        ("face", "'face': expected \"center\""),
        (None, "None: expected"),
        ((1, 2, 3), r"\(1, 2, 3\): expected"),
        ([(1, 2), (3,)], "expected"),
        (np.zeros((2, 2)), "expected"),
        ("x" * 1000, "x{79}: expected"),
        ({"x": 1}, "expected"),
        ((10, 10, 10, 50), "empty"),
        ((50, 10, 20, 40), "reversed"),
        ((5, 5, 5.5, 5.5), "below a pixel"),
        ((0.5, 0.5, 0.5, 0.5), "empty"),
        ((10, 10, math.nan, 50), "finite"),
        ((0, 0, math.inf, 5), "finite"),
        ((120, 0, 150, 30), "outside a photo of 120x90"),
        ((-30, -30, -5, 50), "outside"),
        ((-1e6, 0, 120, 90), "outside"),
        ([(40, 50)] * 5, "coincide"),
        ([(40, 50), (40, 50), (42, 80), (58, 80)], "coincide"),
        ([(40, 50), (60, 50), (45, 50), (55, 50)], "coincide"),
        ([(60, 50), (40, 50), (58, 80), (42, 80)], "left eye, right eye"),
        ([(40, 50), (60, 50), (50, math.nan), (42, 80), (58, 80)], "finite"),
        ([(40, 50), (60, 50), (42, 800), (58, 800)], "outside"),
        ([(140, 50), (160, 50), (142, 80), (158, 80)], "outside"),
    ],
)
def test_what_is_no_alignment_is_refused_in_one_sentence(how, message):
    with pytest.raises(ValueError, match=message) as raised:
        find_alignment((120, 90), how)
    assert "\n" not in str(raised.value)
    assert not re.search(r"\.\s|\.$", str(raised.value))


@pytest.mark.parametrize(
    "quad",
    [
        ((0, 0), (0, 5), (5, 5)),
        ((0, 0), (0, 5), (6, 5), (6, 0)),  # no square
        ((5, 0), (5, 5), (0, 5), (0, 0)),  # mirrored
        ((1, 1),) * 4,
        ((0, 0), (0, math.nan), (5, 5), (5, 0)),
    ],
)
def test_a_quad_is_a_square(quad):
    with pytest.raises(ValueError, match="expected the corners"):
        Alignment(quad, (10, 10))
    with pytest.raises(ValueError, match="1 or more pixels"):
        find_alignment((0, 5))


# ---------------------------------------------------------------- the crop


@pytest.mark.parametrize("size", [(40, 40), (41, 28), (29, 63), (300, 20), (1, 1), (1, 5)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_center_is_resize_square_bit_for_bit(size, mode):
    picture = noise(*size, 4).convert(mode)
    for side in (1, 16, 33, 64):
        assert same(find_alignment(size).crop(picture, side), resize_square(picture, side))


def test_a_box_inside_is_the_plain_crop(photo):
    picture = photo(90, 70)
    alignment = find_alignment(picture.size, (11, 9, 50, 48))
    plain = picture.crop((11, 9, 50, 48))
    assert same(alignment.crop(picture, 39), plain)
    assert same(alignment.crop(picture, 16), plain.resize((16, 16), Image.Resampling.LANCZOS))


def test_beyond_the_border_the_photo_goes_on(photo):
    picture = photo(60, 40)
    crop = np.asarray(find_alignment(picture.size, (-20, -10, 40, 50)).crop(picture, 60), float)
    pixels = np.asarray(picture, float)
    assert np.array_equal(crop[10:50, 20:], pixels[:, :40])  # inside nothing is changed
    mirrored = pixels[:, :20][:, ::-1]
    assert np.abs(crop[10:50, 17:20] - mirrored[:, 17:]).max() < 16  # at the border it is the reflection
    assert np.abs(np.diff(crop[:, 19:21], axis=1)).max() < 16  # without a step
    rough = noise(60, 40)
    far = np.asarray(find_alignment(rough.size, (-60, -30, 40, 70)).crop(rough, 100), float)
    assert far[30:70, :40].std() < 0.25 * far[30:70, 60:].std()  # further out it is blurred


def test_hidden_colours_stay_hidden_beyond_the_border():
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[..., :3], pixels[:, :20] = (255, 0, 0), (0, 0, 255, 255)  # transparent red beside blue
    picture = Image.fromarray(pixels)
    crop = np.asarray(find_alignment((40, 40), (-10, -20, 50, 60)).crop(picture, 80))
    visible = crop[crop[..., 3] > 200]
    assert visible[:, 0].max() < 30
    assert visible[:, 2].min() > 225


def test_the_points_of_a_turned_face_come_out_where_they_belong():
    size, side = (240, 220), 96
    points = turned(FACE, 30, about=(50, 53), shift=(70, 50)) * 1.0
    y, x = np.mgrid[: size[1], : size[0]] + 0.5
    blobs = [np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 3.0**2)) for px, py in (points[0], points[1], points[4])]
    picture = Image.fromarray((np.stack(blobs, -1) * 255).round().astype(np.uint8))
    crop = np.asarray(find_alignment(size, points).crop(picture, side), float)
    y, x = np.mgrid[:side, :side] + 0.5
    for channel, (px, py) in enumerate((FACE[0], FACE[1], FACE[4])):
        weight = crop[..., channel]
        found = np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
        np.testing.assert_allclose(found, ((px + 4) / 108 * side, (py + 1) / 108 * side), atol=0.05)


@pytest.mark.parametrize("side", [16, 50, 120])
def test_a_turned_crop_is_sharp_and_does_not_alias(side):
    alignment, (width, height) = tilted((240, 200), 100), (240, 200)

    def wave(x, y, period):
        return 127.5 + 60 * np.sin(2 * np.pi * (0.8 * x + 0.6 * y) / period) * np.ones((1, 1))

    y, x = np.mgrid[:height, :width] + 0.5
    at = (np.arange(side) + 0.5) / side
    (left, top), down, _, across = np.array(alignment.quad)
    across, down = across - (left, top), down - (left, top)
    seen_x, seen_y = (o + at * a + at[:, None] * d for o, a, d in zip((left, top), across, down, strict=True))
    period = max(8, 400 / side)  # four pixels of the crop or more
    slow = Image.fromarray(wave(x, y, period).round().astype(np.uint8))
    assert psnr(alignment.crop(slow, side), wave(seen_x, seen_y, period)) > 32
    if side == 16:  # a period of half a pixel of the crop can only be grey
        fast = Image.fromarray(wave(x, y, 3).round().astype(np.uint8))
        assert np.abs(np.asarray(alignment.crop(fast, side), float) - 127.5).max() < 4


def test_a_quarter_turn_turns():
    picture = noise(40, 30)
    middle = ((25, 5), (5, 5), (5, 25), (25, 25))  # its top is what is on the right
    crop = Alignment(middle, (40, 30)).crop(picture, 20)
    want = picture.crop((5, 5, 25, 25)).transpose(Image.Transpose.ROTATE_90)
    assert np.corrcoef(np.ravel(crop), np.ravel(want))[0, 1] > 0.9


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (900, 7)])
def test_odd_photos(size, mode):
    picture = Image.new(mode, size, {"L": 90, "RGB": (90, 60, 30), "RGBA": (90, 60, 30, 200)}[mode])
    turned_square = tilted(size, side=2.5 * max(size))
    for alignment in (find_alignment(size), find_alignment(size, (0, 0, 1, 1)), turned_square):
        crop = alignment.crop(picture, 24)
        assert (crop.size, crop.mode) == ((24, 24), mode)
        assert np.abs(np.asarray(crop, int) - np.asarray(picture, int)[:1, :1]).max() <= 1
        assert alignment.unalign(picture, crop).size == size


def test_what_does_not_fit_is_refused(photo):
    alignment = find_alignment((48, 40))
    for call, message in (
        (lambda: alignment.crop(photo(40, 48), 8), "40x48, but the alignment is of a photo of 48x40"),
        (lambda: alignment.crop(photo(48, 40).convert("CMYK"), 8), "mode CMYK: expected L or RGB or RGBA"),
        (lambda: alignment.crop(photo(48, 40), 0), "side is 0"),
        (lambda: alignment.crop_region(photo(48, 40), 8), "mode RGB: expected L"),
        (lambda: alignment.unalign(photo(40, 40), photo(8, 8)), "40x40"),
        (lambda: alignment.unalign(photo(48, 40), photo(8, 9)), "8x9: expected a square"),
        (lambda: alignment.unalign(photo(48, 40), photo(8, 8), feather=math.nan), "feather is nan"),
        (lambda: alignment.unalign(photo(48, 40), photo(8, 8), photo(8, 8)), "region in mode RGB"),
        (lambda: alignment.unalign(photo(48, 40), photo(8, 8), torch.zeros(1, 1, 8, 9)), r"\[1, 1, 8, 9\]"),
        (lambda: alignment.unalign(photo(48, 40), photo(8, 8), torch.zeros(8, 8)), r"\[8, 8\]"),
        (lambda: alignment.unalign(photo(48, 40), photo(8, 8), torch.full((1, 1, 8, 8), 2.0)), "from 2 to 2"),
        (lambda: alignment.unalign(photo(48, 40), photo(8, 8), torch.full((1, 1, 8, 8), math.nan)), "from nan"),
    ):
        with pytest.raises(ValueError, match=message) as raised:
            call()
        assert not re.search(r"\.\s|\.$|\n", str(raised.value))


# ---------------------------------------------------------------- the crop of a region


def test_a_region_is_cropped_by_area_and_ends_at_the_border():
    region = Image.new("L", (40, 40), 255)
    crop = np.asarray(find_alignment((40, 40), (-10, 0, 30, 40)).crop_region(region, 10))
    assert np.array_equal(np.unique(crop[:, 3:]), [255])
    assert (crop[:, :2] == 0).all()
    assert (np.abs(crop[:, 2].astype(int) - 127.5) < 1).all()  # half of that pixel is outside
    dot = Image.new("L", (40, 40))
    dot.putpixel((21, 22), 255)
    small = np.asarray(find_alignment((40, 40)).crop_region(dot, 10))
    assert small[5, 5] == 16  # 255 / 16
    assert small.sum() == 16


def test_a_turned_region_has_the_area_of_what_is_inside():
    alignment = tilted((100, 100), side=160)
    crop = np.asarray(alignment.crop_region(Image.new("L", (100, 100), 255), 64))
    assert crop.mean() / 255 == pytest.approx(100**2 / 160**2, abs=0.005)
    assert np.asarray(tilted().crop_region(Image.new("L", (120, 90), 255), 64)).min() == 255


# ---------------------------------------------------------------- the way back


def test_crop_and_back_without_feather_is_the_photo(photo):
    picture = photo(90, 70)
    alignment = find_alignment(picture.size, (10, 5, 60, 55))
    assert same(alignment.unalign(picture, alignment.crop(picture, 50), feather=0), picture)
    for side in (64, 128):
        assert psnr(alignment.unalign(picture, alignment.crop(picture, side), feather=0), picture) > 48


@pytest.mark.parametrize("alignment", [tilted(), tilted(side=130, degrees=-70), tilted(degrees=180)])
@pytest.mark.parametrize("side", [32, 128])
def test_outside_the_square_nothing_changes_and_inside_it_comes_back(alignment, side, photo):
    picture = photo(*alignment.size)
    inside = ((shares(alignment) > 1e-6) & (shares(alignment) < 1 - 1e-6)).all(-1)
    back = np.asarray(alignment.unalign(picture, alignment.crop(picture, side), feather=0))
    assert np.array_equal(back[~inside], np.asarray(picture)[~inside])
    assert psnr(back[inside], np.asarray(picture)[inside]) > 35
    negative = np.asarray(alignment.unalign(picture, ImageOps.invert(alignment.crop(picture, side)), feather=0))
    assert psnr(negative[inside], 255 - np.asarray(picture)[inside]) > 30  # all of it is pasted


@pytest.mark.parametrize("alignment", [find_alignment((120, 90), (20, 10, 84, 74)), tilted()])
@pytest.mark.parametrize("picture_side", [16, 64, 200])
def test_where_the_region_is_zero_every_bit_stays(alignment, picture_side):
    picture, white = noise(*alignment.size), Image.new("RGB", (picture_side,) * 2, "white")
    disc = np.hypot(*(np.mgrid[:32, :32] - 15.5)) < 11
    at = np.clip(np.floor(shares(alignment) * 32).astype(int), 0, 31)
    inside = ((shares(alignment) > 0) & (shares(alignment) < 1)).all(-1) & disc[at[..., 1], at[..., 0]]
    deep = np.hypot(*np.moveaxis(shares(alignment) - 0.5, -1, 0)) < 11 / 32 - 0.2  # the fade is longer along diagonals
    mask = Image.fromarray(disc.astype(np.uint8) * 255)
    for region in (mask, torch.from_numpy(disc)[None, None].float()):
        for feather in (0, 0.1):
            pasted = np.asarray(alignment.unalign(picture, white, region, feather))
            assert np.array_equal(pasted[~inside], np.asarray(picture)[~inside])
            assert (pasted[deep] == 255).all()
    assert same(alignment.unalign(picture, white, Image.new("L", (32, 32))), picture)
    assert same(alignment.unalign(picture, white, torch.zeros(1, 1, 8, 8), 0), picture)


def test_a_half_region_is_half_way():
    alignment, black = find_alignment((60, 50), (5, 5, 45, 45)), Image.new("RGB", (60, 50))
    pasted = alignment.unalign(black, Image.new("RGB", (40, 40), "white"), torch.full((1, 1, 40, 40), 0.5))
    assert abs(pasted.getpixel((25, 25))[0] - 127.5) < 1
    stripes = torch.arange(160).remainder(2).float().expand(1, 1, 160, 160)  # finer than the photo's pixels
    pasted = alignment.unalign(black, Image.new("RGB", (40, 40), "white"), stripes, feather=0)
    assert np.abs(np.asarray(pasted, int)[6:44, 6:44] - 127.5).max() < 2


def test_the_paste_fades_at_seams_but_not_at_the_border_of_the_photo():
    black, white = Image.new("RGB", (100, 50)), Image.new("RGB", (64, 64), "white")
    line = np.asarray(find_alignment((100, 50)).unalign(black, white, feather=0.2))[:, :, 0].astype(int)
    assert (line[0] == line[25]).all()  # the square touches the upper and the lower border
    assert (np.diff(line[0, 24:37]) >= 0).all()
    assert (line[0, :25] == 0).all()
    assert 100 < line[0, 30] < 160  # half of the ten pixels
    assert (line[0, 36:64] == 255).all()
    box = (0, 0, 40, 40)
    corner = np.asarray(find_alignment((100, 50), box).unalign(black, white, feather=0.2))[..., 0]
    assert (corner[:30, :30] == 255).all()
    assert corner[39].max() < 40


def test_unalign_gives_rgb_at_the_size_of_the_photo(photo):
    for mode in ("L", "RGBA"):
        picture = photo(50, 40, mode=mode)
        pasted = find_alignment(picture.size).unalign(picture, picture.resize((16, 16)), Image.new("L", (4, 4)))
        assert same(pasted, with_channels(picture, 3))
    original = photo(50, 40)
    before = original.copy()
    find_alignment(original.size).unalign(original, Image.new("RGB", (8, 8)))
    assert same(original, before)


def test_twelve_megapixels_take_a_second_or_so():
    picture = Image.new("RGB", (4000, 3000), (90, 120, 150))
    face = turned(np.array(FACE) * 18.0, 20, about=(2000, 1500), shift=(1000, 300))
    start = time.perf_counter()
    for how in (face, (0, 0, 1, 1)):
        alignment = find_alignment(picture.size, how)
        crop = alignment.crop(picture, 512)
        pasted = alignment.unalign(picture, crop)
    assert time.perf_counter() - start < 10  # four calls, each below a second on one free core
    assert np.abs(np.asarray(pasted, int) - (90, 120, 150)).max() <= 1
