"""`HFGan.invert` at toy size: odd photos and odd regions, and that nothing outside a region has any influence."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from toy import save_toy

from hfgan import HFGan, InterestEncoder
from hfgan.images import resize_square, to_tensor, with_channels
from hfgan.inversion import Inversion, distances, encode, frame, read_latents
from hfgan.refinement import Step

SIDE = 16
ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory) -> HFGan:
    folder = save_toy(tmp_path_factory.mktemp("models") / "toy-16", num_modes=3, encoder=True)
    return HFGan.from_pretrained(folder, dtype="float32")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> HFGan:
    """A model with every part that `auto` asks for."""
    folder = save_toy(tmp_path_factory.mktemp("models") / "whole-16", seed=1, alpha=True, encoder=True)
    return HFGan.from_pretrained(folder, dtype="float32")


def noise(width: int = 48, height: int = 36, channels: int = 3, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


def blob(width: int = 48, height: int = 36) -> np.ndarray:
    """bool (h, w): a disc left of the middle."""
    y, x = np.mgrid[:height, :width] + 0.5
    return np.hypot(x - 0.45 * width, y - 0.5 * height) < 0.3 * min(width, height)


def banner() -> Image.Image:
    pil = Image.new("RGB", (300, 60), "white")
    ImageDraw.Draw(pil).text((20, 20), "GRAND OPENING, ALL WELCOME", "red")
    return pil


def rgba(photo: Image.Image, alpha: np.ndarray) -> Image.Image:
    clear = photo.convert("RGBA")
    clear.putalpha(Image.fromarray(alpha.astype(np.uint8)))
    return clear


def same(a: Inversion, b: Inversion) -> bool:
    """Whether two inversions are one, to the last bit."""
    return torch.equal(a.w_plus, b.w_plus) and a.image.tobytes() == b.image.tobytes()


def check(found: Inversion, gan: HFGan) -> None:
    """What holds of every inversion."""
    assert found.w_plus.shape == (1, gan.generator.num_ws, 16)
    assert found.w_plus.isfinite().all()
    assert (found.w_plus.device.type, found.w_plus.dtype) == ("cpu", torch.float32)
    assert (found.image.mode, found.image.size) == ("RGB", (SIDE, SIDE))
    assert found.interest.shape == (1, 1, SIDE, SIDE)
    assert set(found.interest.unique().tolist()) <= {0, 1}
    assert 0 <= found.distance_inside <= 1
    assert (found.distance_outside is None) == bool((found.interest == 1).all())
    assert found.fingerprint == gan.generator.fingerprint()
    assert found.unalign().size == found.photo.size
    assert found.region().size == (256, 256)
    assert gan.render(found.w_plus)[0].tobytes() == found.image.tobytes()


# ---------------------------------------------------------------- odd photos


PHOTOS: dict[str, Callable[[], Image.Image]] = {
    "noise": noise,
    "all black": lambda: Image.new("RGB", (48, 36)),
    "all white": lambda: Image.new("RGB", (36, 48), "white"),
    "text banner": banner,
    "panorama 8:1": lambda: noise(320, 40),
    "panorama 40:1": lambda: noise(1600, 40),
    "tower 1:40": lambda: noise(20, 800),
    "grey": lambda: noise(channels=1),
    "grey with alpha": lambda: Image.merge("LA", (noise(channels=1), Image.new("L", (48, 36), 200))),
    "palette": lambda: noise().quantize(16),
    "bilevel": lambda: noise(channels=1).convert("1"),
    "cmyk": lambda: noise().convert("CMYK"),
    "16-bit": lambda: Image.fromarray(np.arange(48 * 36, dtype=np.uint16).reshape(36, 48) * 37),
    "rgba": lambda: rgba(noise(), np.full((36, 48), 255)),
    "one pixel": lambda: Image.new("RGB", (1, 1), "red"),
    "one row": lambda: noise(9, 1),
    "as seen": lambda: noise(SIDE, SIDE),
}


@pytest.mark.parametrize("name", PHOTOS)
def test_photos_of_every_kind_are_inverted(gan: HFGan, name: str) -> None:
    photo = PHOTOS[name]()
    found = gan.invert(photo)
    check(found, gan)
    assert (found.interest_source, found.method, found.mode in range(3)) == ("all", "encoder", True)
    assert len(found.steps) == 3
    assert found.steps[-1].tobytes() == found.image.tobytes()
    region = Image.new("L", photo.size, 255)
    assert same(gan.invert(photo, region), found), "a full region is none"


def test_every_way_that_a_photo_comes_is_one(gan: HFGan, tmp_path: Path) -> None:
    path = tmp_path / "me.too.png"
    noise().save(path)
    expected = gan.invert(noise())
    for photo in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes())):
        assert same(gan.invert(photo), expected)
    assert gan.invert(path).name == "me.too"
    assert expected.name is None


def test_a_picture_of_16_bits_is_scaled_not_clipped(gan: HFGan) -> None:
    deep = np.random.default_rng(0).integers(0, 256, (36, 48)).astype(np.uint16)
    assert same(gan.invert(Image.fromarray(deep * 257)), gan.invert(Image.fromarray(deep.astype(np.uint8))))


def test_what_is_transparent_does_not_matter(gan: HFGan) -> None:
    inside = blob()
    clear = rgba(noise(), 255 * inside)
    found = gan.invert(clear)
    check(found, gan)
    assert found.interest_source == "transparency"
    assert 0 < found.interest.mean() < 1
    other = rgba(Image.fromarray(np.where(inside[..., None], noise(), noise(seed=1))), 255 * inside)
    assert same(gan.invert(other), found), "colours that no one sees"
    marked = gan.invert(noise(), inside)
    assert same(marked, found)
    assert marked.interest_source == "marked"
    assert gan.invert(clear, np.ones((36, 48))).interest_source == "all", "what is asked for comes first"


def test_a_photo_that_is_all_transparent_is_white(gan: HFGan) -> None:
    found = gan.invert(rgba(noise(), np.zeros((36, 48))))
    check(found, gan)
    assert found.interest_source == "all"
    assert same(found, gan.invert(Image.new("RGB", (48, 36), "white")))


def test_a_large_turned_photo_and_a_region_drawn_on_it_upright(gan: HFGan) -> None:
    upright = noise(12, 16).resize((3000, 4000), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # a quarter turn clockwise shows it upright
    upright.transpose(Image.Transpose.ROTATE_90).save(file := io.BytesIO(), "JPEG", exif=exif, quality=95)
    region = Image.new("L", (3000, 4000))
    region.paste(255, (900, 1200, 2100, 2900))
    found = gan.invert(file.getvalue(), region)
    check(found, gan)
    assert found.photo.size == (3000, 4000)
    ys, xs = found.interest[0, 0].nonzero(as_tuple=True)  # of the square from y = 500 on, 187.5 px to a pixel
    assert (xs.min(), xs.max(), ys.min(), ys.max()) == (5, 10, 4, 12)
    small = gan.invert(upright.resize((300, 400), Image.Resampling.BOX), region.resize((300, 400)))
    torch.testing.assert_close(found.w_plus, small.w_plus, rtol=0, atol=0.02)
    with pytest.raises(ValueError, match="the interest has 400x300 pixels and the photo 3000x4000"):
        gan.invert(file.getvalue(), region.resize((400, 300)))


# ---------------------------------------------------------------- odd regions


def regions() -> dict[str, object]:
    """One region as everything that a region may be."""
    inside = blob()
    picture = Image.fromarray(np.uint8(255) * inside)
    return {
        "bool": inside,
        "backwards": inside[::-1, ::-1].copy()[::-1, ::-1],
        "uint8": np.uint8(255) * inside,
        "int": inside.astype(int),
        "float": inside.astype(float),
        "soft": np.where(inside, 0.5, 0.49),
        "read only": np.asarray(picture),
        "(1, h, w)": inside[None],
        "tensor": torch.from_numpy(inside)[None, None].float(),
        "bfloat16": torch.from_numpy(inside).bfloat16(),
        "L": picture,
        "1": picture.convert("1"),
        "P": picture.convert("P"),
        "RGB": picture.convert("RGB"),
        "cut-out": rgba(noise(seed=3), 255 * inside),
        "twice as large": picture.resize((96, 72), Image.Resampling.NEAREST),
        "16-bit": Image.fromarray(inside.astype(np.uint16) * np.uint16(65535)),
    }


@pytest.mark.parametrize("name", regions())
def test_a_region_may_be_given_as_anything(gan: HFGan, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = gan.invert(noise(), regions()[name])
    check(found, gan)
    assert same(found, gan.invert(noise(), blob()))
    assert found.interest_source == "marked"
    assert not same(found, gan.invert(noise()))


def test_a_region_may_be_a_file(gan: HFGan, tmp_path: Path) -> None:
    for name in ("region.png", "cut-out.png"):
        path = tmp_path / name
        (regions()["L"] if name == "region.png" else regions()["cut-out"]).save(path)
        for given in (path, str(path), path.read_bytes()):
            assert same(gan.invert(noise(), given), gan.invert(noise(), blob()))


def test_a_region_may_have_another_size_of_the_same_proportions(gan: HFGan) -> None:
    expected = gan.invert(noise(), blob()).interest
    for width, height in ((24, 18), (12, 9), (480, 360), (97, 73)):
        found = gan.invert(noise(), blob(width, height))
        check(found, gan)
        assert (found.interest - expected).abs().mean() < 0.06


def test_boxes(gan: HFGan) -> None:
    box = np.zeros((36, 48), bool)
    box[9:27, 12:36] = True
    expected = gan.invert(noise(), box)
    for given in ((12, 9, 36, 27), [12.2, 8.8, 36.0, 27.4], (0.25, 0.25, 0.75, 0.75)):
        found = gan.invert(noise(), given)
        assert same(found, expected)
        assert found.interest_source == "box"
    for given in ((0, 0, 48, 36), (-5, -5, 500, 500), (0, 0, 1, 1), (0.0, 0.0, 1.0, 1.0)):
        assert same(gan.invert(noise(), given), gan.invert(noise()))
    beyond = gan.invert(noise(), (30, 9, 400, 27))
    assert same(beyond, gan.invert(noise(), (30, 9, 48, 27)))


def test_one_pixel(gan: HFGan) -> None:
    one = np.zeros((SIDE, SIDE), bool)
    one[7, 9] = True
    found = gan.invert(noise(SIDE, SIDE), one)
    check(found, gan)
    assert found.interest.sum() == 1
    assert same(found, gan.invert(Image.new("RGB", (SIDE, SIDE), noise(SIDE, SIDE).getpixel((9, 7))), one))
    assert gan.invert(noise(8, 8), one[:8, 2:10]).interest.sum() == 4  # 2 x 2 of the 16 x 16 that are seen


LOST = "the interest covers no pixel of the 16x16 that the model sees: mark a larger region"
EMPTY = "the interest is empty, its lightest pixel is {} of 255: mark what matters"
ALIGN = 'expected "center", "none", a box or the points of a face'


@pytest.mark.parametrize(
    ("interest", "sentence"),
    [
        (np.zeros((36, 48)), EMPTY.format(0)),
        (np.full((36, 48), 0.49), EMPTY.format(125)),
        (np.ones((36, 48), np.uint8), EMPTY.format(1)),
        (Image.new("L", (48, 36)), EMPTY.format(0)),
        (rgba(noise(), np.zeros((36, 48))), EMPTY.format(0)),
        (np.eye(1, 48 * 36, 24 * 48, dtype=bool).reshape(36, 48), LOST),
        ((0, 0, 3, 36), LOST),
        (np.ones((36, 36)), "the interest has 36x36 pixels and the photo 48x36: give a region of the photo's size"),
        (np.ones((48, 36)), "the interest has 36x48 pixels and the photo 48x36"),
        (np.ones((1, 1)), "the interest has 1x1 pixels and the photo 48x36"),
        (np.full((36, 48), np.nan), "the interest goes beyond [0, 1] (or 0..255 in uint8)"),
        (np.full((36, 48), np.inf), "the interest goes beyond [0, 1]"),
        (np.full((36, 48), -1), "the interest goes beyond [0, 1]"),
        (np.full((36, 48), 255), "the interest goes beyond [0, 1]"),
        (torch.ones(2, 1, 36, 48), "the interest has shape [2, 1, 36, 48]: expected (h, w)"),
        (np.ones((36, 48, 3)), "the interest has shape [36, 48, 3]: expected (h, w)"),
        (np.ones((0, 48)), "the interest has shape [0, 48]: expected (h, w)"),
        (np.ones(48), "the interest has shape [48]: expected (h, w)"),
        (np.array([["a", "b"]]), "the interest is an array of <U1: expected bool, uint8 or numbers in [0, 1]"),
        (np.array([[None, 1]]), "the interest is an array of object"),
        ([1, 2, 3], "the interest is [1, 2, 3]: expected a box of four numbers"),
        ([[0, 1], [1, 1]], "the interest is [[0, 1], [1, 1]]: expected a box of four numbers"),
        ((1, 2, "c", 4), "expected a box of four numbers"),
        ((0, 0, float("nan"), 1), "expected a box of four numbers"),
        ((30, 2, 10, 20), "the box [30, 2, 10, 20] has no pixel of a 48x36 photo: expected x0 < x1, y0 < y1"),
        ((10, 20, 30, 2), "the box [10, 20, 30, 2] has no pixel"),
        ((50, 2, 60, 20), "the box [50, 2, 60, 20] has no pixel"),
        ((0.5, 0.5, 0.501, 0.501), "the box [0.5, 0.5, 0.501, 0.501] has no pixel"),
        (b"no picture", "not a picture: no known format"),
        (Image.new("F", (48, 36)), "mode F has no known range"),
    ],
)
def test_regions_that_are_none_are_one_sentence(gan: HFGan, interest: object, sentence: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError) as stopped:  # noqa: PT011, compared below
            gan.invert(noise(), interest)
    said = str(stopped.value)
    assert sentence in said
    assert "\n" not in said
    assert len(said) < 300


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"align": "face"}, f"align is 'face': {ALIGN}"),
        ({"align": "none"}, "a 48x36 photo is not square"),
        ({"align": (50, 0, 60, 9)}, "is outside a photo of 48x36"),
        ({"align": (0, 0, 8, 8), "interest": (20, 20, 30, 30)}, LOST),
        ({"steps": 0}, "steps is 0: expected a whole number of 1 or more"),
        ({"steps": 1.5}, "steps is 1.5"),
        ({"refine": -1}, "refine is -1: expected a whole number of 0 or more"),
        ({"noise_steps": -1}, "noise_steps is -1"),
        ({"photo": b""}, "empty file: 0 bytes"),
        ({"photo": b"no picture"}, "not a picture: no known format"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(gan: HFGan, how: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(").replace("[", r"\[")):
        gan.invert(**{"photo": noise()} | how)


# ---------------------------------------------------------------- auto


def test_auto_names_the_part_that_is_missing(gan: HFGan, whole: HFGan) -> None:
    with pytest.raises(RuntimeError, match=r"this model has no matting: load one that has, or train it .* matting"):
        gan.invert(noise(), "auto")
    without = HFGan(generator=whole.generator, matting=whole.matting)
    for interest in (None, "auto"):
        with pytest.raises(RuntimeError, match=r"this model has no encoder: .*train\.py encoder"):
            without.invert(noise(), interest)


def test_auto_finds_a_region_or_says_why_not(whole: HFGan, photo, monkeypatch) -> None:
    found = whole.invert(photo(48, 36, seed=5), "auto")
    assert found.interest_source.startswith("auto"), found.interest_source
    assert 0 < found.interest.mean() < 1
    with torch.no_grad():
        subject = whole.matting(to_tensor(resize_square(photo(48, 36, seed=5), SIDE))) >= 0
    assert (found.interest <= subject).all(), "a part of the subject"
    bias = whole.matting.out.bias
    for value, share in ((-1000, 0), (1000, 100)):
        monkeypatch.setattr(bias, "data", torch.full_like(bias, value))
        black = whole.invert(Image.new("RGB", (48, 36)), "auto")
        assert black.interest_source == f"all: the subject that was found covers {share} % of the picture"
        assert same(black, whole.invert(Image.new("RGB", (48, 36))))
        assert (black.interest == 1).all()


def test_auto_with_an_encoder_that_knows_of_no_obstacles_is_the_subject(whole: HFGan, photo) -> None:
    encoder = InterestEncoder.beside(whole.generator, conditioned=False)
    found = HFGan(generator=whole.generator, encoder=encoder, matting=whole.matting).invert(
        photo(48, 36, seed=5), "auto"
    )
    assert found.interest_source.startswith("auto: the subject alone, this encoder has not learned")
    assert 0 < found.interest.mean() < 1


def test_auto_on_an_all_black_photo_falls_back(whole: HFGan) -> None:
    found = whole.invert(Image.new("RGB", (48, 36)), "auto")
    check(found, whole)
    assert found.interest_source.startswith(("all: the subject", "auto: the subject alone", "auto: not sure"))


# ---------------------------------------------------------------- nothing outside has any influence


@pytest.mark.parametrize("resolution", [16, 64])
@pytest.mark.parametrize("align", ["center", (-40, 20, 300, 360), [(200, 150), (260, 170), (215, 230), (255, 240)]])
def test_what_lies_outside_moves_nothing_through_crop_and_resize(tmp_path, resolution: int, align) -> None:
    toy = HFGan.from_pretrained(save_toy(tmp_path, resolution=resolution, encoder=True), dtype="float32")
    photo, inside = noise(500, 375), blob(500, 375)
    expected = toy.invert(photo, inside, align=align)
    for other in (noise(500, 375, seed=7), Image.new("RGB", (500, 375), "red"), Image.new("RGB", (500, 375))):
        put = Image.fromarray(np.where(inside[..., None], photo, other))
        found = toy.invert(put, inside, align=align)
        assert (found.w_plus - expected.w_plus).abs().max().item() == 0
        assert same(found, expected)
        assert found.distance_inside == expected.distance_inside
    changed = Image.fromarray(np.where(inside[..., None], noise(500, 375, seed=7), photo))
    assert not same(toy.invert(changed, inside, align=align), expected)


def test_what_lies_outside_moves_nothing_in_refinement_and_noise(gan: HFGan) -> None:
    photo, inside = noise(90, 70), blob(90, 70)
    expected, found = (
        gan.invert(Image.fromarray(np.where(inside[..., None], photo, other)), inside, refine=2, noise_steps=2)
        for other in (photo, noise(90, 70, seed=7))
    )
    assert same(found, expected)
    assert all(torch.equal(a, b) for a, b in zip(found.noise, expected.noise, strict=True))


def test_it_is_deterministic(gan: HFGan) -> None:
    torch.manual_seed(1)
    first = gan.invert(noise(), blob(), refine=2)
    torch.manual_seed(2)
    again = gan.invert(noise(), blob(), refine=2)
    assert same(first, again)
    assert repr(first) == repr(again)


# ---------------------------------------------------------------- what is found


def test_distances_are_those_of_colours_in_0_to_1(gan: HFGan) -> None:
    found = gan.invert(noise(), blob())
    photo, drawn = (to_tensor(with_channels(pil, 3)) for pil in (resize_square(noise(), SIDE), found.image))
    assert found.distance_inside == pytest.approx(((photo - drawn) / 2)[found.interest.expand(-1, 3, -1, -1) > 0]
                                                  .square().mean().sqrt().item(), abs=0.1)  # fmt: skip
    one = torch.zeros(1, 1, 4, 4)
    one[..., :2] = 1
    apart = distances(torch.ones(1, 3, 4, 4), torch.where(one > 0, 0.0, -1.5).expand(1, 3, -1, -1), one)
    assert apart == (0.5, 1.0)
    assert distances(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4)) == (0, None)


def test_frame_is_what_the_model_sees(gan: HFGan) -> None:
    seen = frame(noise(64, 48), None, "center", gan.generator)
    assert torch.equal(seen.image, to_tensor(resize_square(noise(64, 48), SIDE)))
    assert seen.interest is None
    with_region = frame(noise(64, 48), (8, 0, 32, 48), "center", gan.generator)
    assert torch.equal(with_region.interest, (torch.arange(SIDE) < 8).float().expand(1, 1, SIDE, -1))
    torch.testing.assert_close(with_region.image[..., :6], seen.image[..., :6], rtol=0, atol=0.01)


def test_steps_are_those_of_the_encoder(gan: HFGan) -> None:
    one, three = gan.invert(noise(), steps=1), gan.invert(noise(), steps=3)
    assert (len(one.steps), len(three.steps)) == (1, 3)
    assert one.image.tobytes() == three.steps[0].tobytes()
    image = to_tensor(resize_square(noise(), SIDE))
    for w_plus, _ in encode(gan.generator, gan.encoder, image, None, 2):
        assert torch.is_grad_enabled(), "what a step leaves open is the caller's"
        assert not w_plus.requires_grad


def test_refinement_comes_nearer_inside(gan: HFGan, photo) -> None:
    plain = gan.invert(photo(48, 36, seed=4), blob())
    refined = gan.invert(photo(48, 36, seed=4), blob(), refine=12)
    assert refined.distance_inside < 0.9 * plain.distance_inside
    assert [step.tobytes() for step in refined.steps] == [step.tobytes() for step in plain.steps]
    assert refined.noise is None
    check(refined, gan)


def test_a_search_tells_of_its_steps_and_ends_when_asked(gan: HFGan) -> None:
    told: list[Step] = []

    def listen(step: Step) -> bool:
        told.append(step)
        return step.index < 3

    found = gan.invert(noise(), blob(), refine=20, noise_steps=5, keep_going=listen)
    assert [(step.index, step.count) for step in told] == [(1, 25), (2, 25), (3, 25)]
    check(found, gan)
    assert found.noise is None
    assert not same(found, gan.invert(noise(), blob()))
    everything: list[Step] = []
    noisy = gan.invert(noise(), refine=1, noise_steps=2, keep_going=lambda step: everything.append(step) or True)
    assert [step.index for step in everything] == [1, 2, 3]
    assert len(noisy.noise) == len(gan.generator.synthesis.blocks) * 2 - 1


def test_saved_latents_come_back_to_the_bit_and_belong_to_one_model(gan: HFGan, whole: HFGan, tmp_path: Path) -> None:
    found = gan.invert(noise(), blob(), refine=1)
    path = tmp_path / "me.safetensors"
    found.save(path)
    assert torch.equal(gan.read_latents(path), found.w_plus)
    assert gan.render(gan.read_latents(path))[0].tobytes() == found.image.tobytes()
    with pytest.raises(FileExistsError, match="exists already"):
        found.save(path)
    replace(found, w_plus=found.w_plus + 1).save(path, overwrite=True)
    assert torch.equal(gan.read_latents(path), found.w_plus + 1)
    with pytest.raises(ValueError, match=f"belongs to a generator with weights {found.fingerprint}, not"):
        whole.read_latents(path)
    with pytest.raises(ValueError, match=r"does not end in \.safetensors"):
        found.save(tmp_path / "me.pt")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        gan.read_latents(tmp_path / "other.safetensors")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="truncated"):
        gan.read_latents(path)
    gan.modes.save_pretrained(tmp_path)
    (weights,) = tmp_path.glob("diffusion*.safetensors")
    with pytest.raises(ValueError, match=r"holds no w_plus of hfgan: give a file that .* wrote"):
        read_latents(weights, found.fingerprint)


@pytest.mark.parametrize("align", ["center", (10, 4, 30, 24)])
def test_the_paste_leaves_what_is_outside_as_it_was(gan: HFGan, align) -> None:
    photo = noise(96, 64)
    found = gan.invert(photo, blob(96, 64), align=align)
    before, after = np.asarray(photo), np.asarray(found.unalign())
    (left, top), _, (right, bottom), _ = found.alignment.quad
    square = np.zeros((64, 96), bool)
    square[int(top) : int(bottom), int(left) : int(right)] = True
    each = int(right - left) / SIDE
    rows, columns = np.mgrid[:64, :96] + 0.5
    at = np.clip(((rows - top) / each).astype(int), 0, 15), np.clip(((columns - left) / each).astype(int), 0, 15)
    inside = square & (found.interest[0, 0].numpy()[at] > 0)
    changed = (before != after).any(-1)
    assert not (changed & ~inside).any()
    assert changed[inside].mean() > 0.3


def test_projections_need_no_encoder_and_weights_may_be_tuned(tmp_path: Path) -> None:
    toy = HFGan.from_pretrained(save_toy(tmp_path), dtype="float32")
    target = toy.sample(1, seed=3, truncation_psi=1.0).images[0]
    with pytest.raises(RuntimeError, match="no encoder"):
        toy.invert(target)
    start = toy.invert(target, method="projector", steps=1)
    near = toy.invert(target, method="projector", steps=60)
    free = toy.invert(target, method="image2stylegan", steps=60, refine=5)
    assert near.distance_inside < start.distance_inside
    assert (near.method, free.method, near.mode) == ("projector", "image2stylegan", None)
    tuned = toy.invert(target, method="projector", steps=1, tune_steps=20)
    assert tuned.tuned is not None
    assert tuned.distance_inside < start.distance_inside
    again = tuned.tuned.applied(toy.generator)
    assert again.fingerprint() != toy.generator.fingerprint()
    with pytest.raises(ValueError, match=r"method is 'magic': expected 'encoder', 'projector', 'image2stylegan'"):
        toy.invert(target, method="magic")


def test_what_was_drawn_of_a_photo_is_cut_out(tmp_path: Path) -> None:
    toy = HFGan.from_pretrained(save_toy(tmp_path / "a", alpha=True, encoder=True), dtype="float32")
    inv = toy.invert(noise(40, 40))
    cut = toy.cutout(inv)
    assert cut.image.size == inv.image.size
    assert torch.equal(toy.segment(inv, refine=False)[0, 0], toy.cutout(inv, refine=False).alpha)
    assert toy.composite(inv, "red")[0].size == inv.image.size
    other = HFGan.from_pretrained(save_toy(tmp_path / "b", seed=1, alpha=True), dtype="float32")
    with pytest.raises(ValueError, match="belongs to a generator with weights"):
        other.cutout(inv)
