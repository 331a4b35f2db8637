"""Pictures in and out: what goes in comes out, and every odd file is converted as it should be."""

from __future__ import annotations

import io
import logging
import os
import stat

import numpy as np
import pytest
import torch
from PIL import Image

from hfgan import images


def encoded(pil: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    pil.save(buffer, form, **options)
    return buffer.getvalue()


def with_orientation(pil: Image.Image, value: int, form: str = "PNG") -> bytes:
    exif = Image.Exif()
    exif[images.ORIENTATION] = value
    return encoded(pil, form, exif=exif)


# ---------------------------------------------------------------- PIL <-> tensor


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_all_levels_survive_the_round_trip(mode):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    channels = len(mode)
    array = levels if channels == 1 else np.stack([np.roll(levels, k, 0) for k in range(channels)], -1)
    pil = Image.fromarray(array)
    tensor = images.to_tensor(pil)
    assert tensor.shape == (1, channels, 16, 16)
    assert (tensor.min(), tensor.max()) == (-1, 1)
    (back,) = images.to_pil(tensor)
    assert back.mode == mode
    assert back.tobytes() == pil.tobytes()


def test_a_batch_becomes_as_many_pictures_in_order():
    tensor = torch.stack([torch.full((3, 4, 6), value) for value in (-1.0, 0.0, 1.0)])
    pils = images.to_pil(tensor)
    assert [pil.size for pil in pils] == [(6, 4)] * 3
    assert [pil.getpixel((0, 0))[0] for pil in pils] == [0, 128, 255]


def test_values_out_of_range_are_clamped_not_wrapped():
    (pil,) = images.to_pil(torch.tensor([-1.7, 1.7]).reshape(1, 1, 1, 2))
    assert [pil.getpixel((x, 0)) for x in (0, 1)] == [0, 255]


def test_bad_tensors_and_modes_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        images.to_pil(torch.full((1, 3, 2, 2), float("nan")))
    with pytest.raises(ValueError, match=r"expected \(n, c, h, w\)"):
        images.to_pil(torch.zeros(3, 2, 2))
    with pytest.raises(ValueError, match=r"c 1, 3 or 4"):
        images.to_pil(torch.zeros(1, 2, 2, 2))
    with pytest.raises(ValueError, match="mode P"):
        images.to_tensor(Image.new("P", (2, 2)))


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_every_exif_orientation_is_applied(form):
    upright = Image.new("RGB", (32, 16), "black")
    upright.paste("white", (0, 0, 16, 8))  # the bright corner is top left
    stored_as = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    for value, turns in stored_as.items():
        stored = upright
        for turn in turns:
            stored = stored.transpose(turn)
        image, notes = images.read_image(with_orientation(stored, value, form))
        assert image.size == (32, 16)
        assert np.abs(np.asarray(image).astype(int) - np.asarray(upright)).mean() < 3, value
        assert notes == ([] if value == 1 or form == "TIFF" else ["exif rotated"])


def test_broken_exif_does_not_cost_the_picture(photo):
    image, notes = images.read_image(encoded(photo(48, 32), "JPEG", exif=b"Exif\0\0no tiff header"))
    assert (image.size, notes) == ((48, 32), [])
    exif = Image.Exif()
    exif[images.ORIENTATION], exif[0x010E] = 6, "a caption"
    mistyped = exif.tobytes().replace(b"\x01\x0e", b"\x01\x00")  # a width that is a text
    image, notes = images.read_image(encoded(photo(48, 32), "JPEG", exif=mistyped))
    assert (image.size, notes) == ((48, 32), ["broken exif ignored (error)"])


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(form):
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    image, notes = images.read_image(encoded(Image.fromarray(values), form))
    assert image.mode == "L"
    assert list(image.get_flattened_data()) == [0, 1, 128, 255]
    assert notes == ["16-bit scaled to 8"]


def test_16_bit_colour_is_scaled_and_said(deep_colour):
    image, notes = images.read_image(deep_colour)
    assert image.getpixel((0, 0)) == (255, 128, 1)
    assert notes == ["16-bit scaled to 8"]


def test_32_bit_and_float_pictures_have_no_known_range():
    with pytest.raises(ValueError, match=r"70000: expected 0\.\.65535"):
        images.read_image(encoded(Image.fromarray(np.array([[0, 70000]], dtype=np.int32)), "TIFF"))
    with pytest.raises(ValueError, match="mode F has no known range"):
        images.read_image(encoded(Image.fromarray(np.zeros((2, 2), dtype=np.float32)), "TIFF"))


def test_cmyk_palette_bilevel_and_alpha_modes(photo):
    image, notes = images.read_image(encoded(photo(mode="CMYK"), "JPEG", quality=95))
    assert notes == ["cmyk converted"]
    assert np.abs(np.asarray(image).astype(int) - np.asarray(photo())).mean() < 4
    assert images.read_image(encoded(photo(mode="P"), "PNG"))[1] == ["p converted"]
    bilevel, notes = images.read_image(encoded(photo(mode="1"), "PNG"))
    assert (bilevel.mode, notes) == ("L", ["1 converted"])
    assert set(bilevel.get_flattened_data()) == {0, 255}
    grey, notes = images.read_image(encoded(Image.new("LA", (2, 2), (90, 30)), "PNG"))
    assert (grey.getpixel((0, 0)), notes) == ((90, 90, 90, 30), ["la with alpha converted"])


def test_transparent_palette_and_colour_key_keep_their_transparency():
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    image, notes = images.read_image(encoded(palette, "PNG", transparency=1))
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(10, 20, 30, 255), (40, 50, 60, 0)]
    assert notes == ["p with alpha converted"]
    image, notes = images.read_image(encoded(Image.new("RGB", (1, 1), (9, 8, 7)), "PNG", transparency=(9, 8, 7)))
    assert (image.getpixel((0, 0))[3], notes) == (0, ["transparent colour converted"])


def test_alpha_is_laid_on_white_or_kept():
    half = Image.new("RGBA", (1, 1), (255, 0, 0, 128))
    assert images.with_channels(half, 3).getpixel((0, 0)) == (255, 127, 127)
    assert images.with_channels(half, 4).getpixel((0, 0)) == (255, 0, 0, 128)
    assert images.with_channels(half, 1).mode == "L"
    assert images.with_channels(Image.new("L", (1, 1), 7), 4).getpixel((0, 0)) == (7, 7, 7, 255)
    with pytest.raises(ValueError, match="img_channels is 2"):
        images.with_channels(half, 2)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_used_and_it_is_said(form, caplog):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], duration=100)
    with caplog.at_level(logging.WARNING, "hfgan.images"):
        image = images.load_image(data)
    assert image.getpixel((4, 4))[:2] == pytest.approx((255, 0), abs=3)
    assert "first of 3 frames" in caplog.text


def test_a_path_a_file_and_bytes_give_the_same(tmp_path, photo):
    path = tmp_path / "é\n.png"
    photo().save(path)
    with path.open("rb") as file:
        assert images.load_image(file).tobytes() == photo().tobytes()
    assert images.load_image(path).tobytes() == images.load_image(path.read_bytes()).tobytes()
    with pytest.raises(FileNotFoundError):
        images.load_image(tmp_path / "none.png")


def test_what_is_no_picture_is_refused_by_name(photo):
    with pytest.raises(ValueError, match="empty file"):
        images.load_image(b"")
    with pytest.raises(ValueError, match="not a picture"):
        images.load_image(b"just text")
    with pytest.raises(ValueError, match="damaged"):
        images.load_image(encoded(photo(), "JPEG")[:-200])


def test_a_bomb_is_refused_before_it_is_decoded_even_if_pillows_limit_is_lifted(bomb, monkeypatch):
    with pytest.raises(ValueError, match="over the limit of 178,956,970"):
        images.load_image(bomb)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ValueError, match="over the limit of 178,956,970"):
        images.load_image(bomb)


# ---------------------------------------------------------------- resizing


def test_the_crop_is_the_centred_square_at_full_precision(photo):
    wide = photo(90, 40)
    square = wide.crop((25, 0, 65, 40))
    assert images.resize_square(wide, 40).tobytes() == square.tobytes()
    assert images.resize_square(wide, 16).tobytes() == images.resize_square(square, 16, "none").tobytes()


def test_resizing_does_not_alias_and_keeps_the_mean():
    stripes = Image.fromarray(np.tile(np.array([0, 255], dtype=np.uint8), (256, 128)))
    small = np.asarray(images.resize_square(stripes, 32))[:, 2:-2]
    assert np.abs(small.astype(int) - 127.5).max() < 2


def test_the_colour_of_transparent_pixels_does_not_bleed():
    pil = Image.new("RGBA", (32, 32), (0, 255, 0, 0))
    pil.paste((255, 0, 0, 255), (0, 0, 16, 32))
    small = np.asarray(images.resize_square(pil, 8))
    assert small[small[..., 3] > 0][:, 1].max() == 0


def test_resize_refuses_what_it_would_have_to_guess(photo):
    with pytest.raises(ValueError, match="90x40 picture is not square"):
        images.resize_square(photo(90, 40), 16, "none")
    with pytest.raises(ValueError, match="crop is 'top'"):
        images.resize_square(photo(), 16, "top")
    with pytest.raises(ValueError, match="mode P"):
        images.resize_square(photo(mode="P"), 16)


# ---------------------------------------------------------------- writing


def test_a_recipe_survives_in_the_png(tmp_path, photo):
    recipe = {
        "model": "face",
        "seed": 3,
        "truncation_psi": 0.7,
        "note": "ünï\ncode",
        "layers": [0, 1],
        "none": None,
    }
    path = tmp_path / "a.png"
    images.save_png(photo(), path, recipe)
    assert images.read_recipe(path) == recipe
    assert images.read_recipe(path.read_bytes()) == recipe
    with Image.open(path) as pil:
        assert images.read_recipe(pil) == recipe
        assert pil.info["parameters"] == "model: face, seed: 3, truncation_psi: 0.7, note: ünï code"
        assert pil.tobytes() == photo().tobytes()


def test_a_picture_without_a_recipe_is_refused(tmp_path, photo):
    images.save_png(photo(), tmp_path / "plain.png")
    with pytest.raises(ValueError, match="has no recipe"):
        images.read_recipe(tmp_path / "plain.png")
    with pytest.raises(ValueError, match="has no recipe"):
        images.read_recipe(encoded(photo(), "JPEG"))
    with pytest.raises(ValueError, match="not a picture"):
        images.read_recipe(b"text")
    for text, message in (("{", "damaged"), ("[1]", "is a list")):
        pil = photo()
        pil.info["hfgan"] = text
        with pytest.raises(ValueError, match=message):
            images.read_recipe(pil)


@pytest.mark.parametrize("value", [object(), float("nan"), (1, 2), {1: 2}, "x" * 2**20])
def test_a_recipe_that_would_not_come_back_is_refused(tmp_path, photo, value):
    with pytest.raises(ValueError, match="recipe"):
        images.save_png(photo(), tmp_path / "a.png", {"value": value})
    assert list(tmp_path.iterdir()) == []


def test_files_are_whole_ordinary_and_never_overwritten_unasked(tmp_path, photo, monkeypatch):
    path = tmp_path / "a.png"
    images.save_png(photo(seed=1), path)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    with pytest.raises(FileExistsError, match="overwrite=True"):
        images.save_png(photo(seed=2), path)
    assert images.load_image(path).tobytes() == photo(seed=1).tobytes()
    monkeypatch.setattr(os, "replace", failing_replace)
    with pytest.raises(OSError, match="disk full"):
        images.save_png(photo(seed=2), path, overwrite=True)
    monkeypatch.undo()
    assert images.load_image(path).tobytes() == photo(seed=1).tobytes()
    assert list(tmp_path.iterdir()) == [path]
    images.save_png(photo(seed=2), path, overwrite=True)
    assert images.load_image(path).tobytes() == photo(seed=2).tobytes()


def failing_replace(*_):
    raise OSError("disk full")


def test_a_wrong_name_or_folder_is_said(tmp_path, photo):
    with pytest.raises(ValueError, match=r"does not end in \.png"):
        images.save_png(photo(), tmp_path / "a.jpg")
    with pytest.raises(FileNotFoundError, match="create it first"):
        images.save_png(photo(), tmp_path / "no" / "a.png")


# ---------------------------------------------------------------- grids and animations


def test_grid_places_row_by_row_and_fills_with_white():
    cells = [Image.new("RGB", (4, 2), (value, 0, 0)) for value in range(5)]
    sheet = images.grid(cells)
    assert sheet.size == (12, 4)
    assert [sheet.getpixel((x, y)) for y in (0, 2) for x in (0, 4)] == [(v, 0, 0) for v in (0, 1, 3, 4)]
    assert sheet.getpixel((11, 3)) == (255, 255, 255)
    assert images.grid(cells, columns=1).size == (4, 10)
    assert images.grid(cells, columns=9).size == (20, 2)


def test_grid_refuses_what_does_not_fit_together():
    with pytest.raises(ValueError, match="at least one"):
        images.grid([])
    with pytest.raises(ValueError, match="different mode or size"):
        images.grid([Image.new("RGB", (4, 4)), Image.new("RGB", (4, 5))])
    with pytest.raises(ValueError, match="columns is 0"):
        images.grid([Image.new("L", (4, 4))], columns=0)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_an_animation_has_its_frames_its_time_and_no_end(tmp_path, suffix, mode, photo):
    frames = [photo(16, 16, seed, mode) for seed in range(12)]
    path = tmp_path / f"a{suffix}"
    images.save_animation(frames, path, fps=24)
    with Image.open(path) as movie:
        assert (movie.n_frames, movie.info["loop"]) == (12, 0)
        total = 0
        for index, frame in enumerate(frames):
            movie.seek(index)
            shown = np.asarray(movie.convert("RGB")).astype(int)
            assert np.abs(shown - np.asarray(frame.convert("RGB"))).mean() < 12
            total += movie.info["duration"]
    assert total == pytest.approx(12 * 1000 / 24, abs=5)


def test_an_animation_that_cannot_be_written_is_refused(tmp_path, photo):
    with pytest.raises(ValueError, match=r"a \.gif, \.webp or \.png"):
        images.save_animation([photo()], tmp_path / "a.mp4")
    with pytest.raises(ValueError, match="one or more frames"):
        images.save_animation([], tmp_path / "a.gif")
    with pytest.raises(ValueError, match="all of one size"):
        images.save_animation([photo(), photo(8, 8)], tmp_path / "a.gif")
    with pytest.raises(ValueError, match="at most 50 in a GIF"):
        images.save_animation([photo()], tmp_path / "a.gif", fps=60)
    images.save_animation([photo()], tmp_path / "a.gif")
    with pytest.raises(FileExistsError):
        images.save_animation([photo()], tmp_path / "a.gif")
