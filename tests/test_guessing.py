"""The game's statistics against known values, its lots, its photos, and that no file tells what it is."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from hfgan import guessing
from hfgan.data import open_photos
from hfgan.guessing import LENGTHS, Game, Tally, draw_lots, open_real, prepare, prepare_real
from hfgan.images import save_png


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def chunks(data: bytes) -> list[tuple[bytes, int]]:
    """Kind and length of each chunk of a PNG."""
    found, at = [], 8
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        found.append((data[at + 4 : at + 8], size))
        at += 12 + size
    return found


@pytest.fixture
def folder(tmp_path: Path, photo) -> Callable[..., Path]:
    """folder(count, side) -> one of JPEGs."""

    def make(count: int = 12, side: int = 40) -> Path:
        where = tmp_path / "photos"
        (where / "more").mkdir(parents=True)
        for k in range(count):
            photo(side + k, side, seed=k).save(where / ("more" if k % 2 else ".") / f"{k:02d}.jpg")
        return where

    return make


# ---------------------------------------------------------------- statistics


def test_answers_are_tallied() -> None:
    tally = guessing.score([True, True, True, False, False], [True, True, False, True, False])
    assert tally == Tally(2, 1, 1, 1)
    assert (tally.generated, tally.real, tally.total, tally.right) == (3, 2, 5, 3)
    with pytest.raises(ValueError, match="1 answers to 2 pictures"):
        guessing.score([True, False], [True])


@pytest.mark.parametrize(
    ("right", "total", "p"),
    [(26, 40, 0.0403452), (36, 40, 9.2851e-8), (25, 40, 0.0769301), (9, 10, 11 / 1024), (0, 10, 1), (10, 10, 2**-10)],
)
def test_p_of_guessing_is_exact(right: int, total: int, p: float) -> None:
    assert guessing.binomial_p(right, total) == pytest.approx(p, rel=1e-5)


def test_p_of_impossible_scores_is_refused() -> None:
    for right in (-1, 11):
        with pytest.raises(ValueError, match="expected 0 to 10"):
            guessing.binomial_p(right, 10)


def test_how_many_it_takes() -> None:
    assert [guessing.needed(total) for total in LENGTHS] == [9, 15, 26]
    assert guessing.needed(4) == 5, "four of four is no evidence yet"


@pytest.mark.parametrize(
    ("tally", "d", "c"),
    [
        (Tally(15, 5, 5, 15), 1.27497, 0.0),  # 2 z(15.5/21)
        (Tally(18, 2, 12, 8), 0.93872, -0.71040),  # z(18.5/21) = 1.17976, z(12.5/21) = 0.24104
        (Tally(20, 0, 0, 20), 3.96150, 0.0),  # finite: 2 z(20.5/21)
        (Tally(2, 18, 2, 18), 0.0, 1.17976),  # says "real" to all kinds
        (Tally(0, 0, 5, 5), 0.0, 0.0),  # a game without a generated picture
    ],
)
def test_d_prime_and_criterion_by_hand(tally: Tally, d: float, c: float) -> None:
    assert guessing.d_prime(tally) == pytest.approx(d, abs=1e-5)
    assert guessing.criterion(tally) == pytest.approx(c, abs=1e-5)


def test_the_published_score_for_other_lengths() -> None:
    assert [guessing.to_length(total) for total in (10, 20, 40)] == pytest.approx([5.6125, 11.225, 22.45])


# ---------------------------------------------------------------- lots


def test_a_game_is_drawn_again_by_its_seed_and_else_another() -> None:
    assert draw_lots(40, 50, 7) == draw_lots(40, 50, 7) != draw_lots(40, 50, 8)
    assert draw_lots(40, 50) != draw_lots(40, 50)


def test_each_picture_is_a_toss_of_a_coin_and_nothing_comes_twice() -> None:
    games = [draw_lots(40, 50, seed) for seed in range(500)]
    counts = np.array([sum(game.generated) for game in games])
    assert abs(counts.mean() - 20) < 0.6  # four standard errors
    assert abs(counts.std() - 10**0.5) < 0.5, "not a fixed number of each"
    assert abs(np.mean([game.generated for game in games], axis=0) - 0.5).max() < 0.1, "wherever it stands"
    for game in games:
        assert len(set(game.seeds)) == len(game.seeds) == sum(game.generated)
        assert sorted(game.order) == list(range(50))


def test_only_games_that_there_are_can_be_drawn() -> None:
    with pytest.raises(ValueError, match="a game of 11 pictures: choose 10, 20 or 40"):
        draw_lots(11, 50)
    with pytest.raises(ValueError, match="needs 20 photos, there are 19"):
        draw_lots(20, 19)


# ---------------------------------------------------------------- photos


def test_a_folder_and_a_zip_of_it_are_the_same(folder, tmp_path: Path) -> None:
    where, packed = folder(), tmp_path / "packed.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(where.rglob("*.jpg")):
            archive.write(path, path.relative_to(where))
    one, other = open_real(where), open_real(packed, "CC0 1.0")
    assert [one.read(k) for k in range(12)] == [other.read(k) for k in range(12)]
    assert (one.name, one.licence) == ("photos", "unknown")
    assert (other.name, other.licence) == ("packed.zip", "CC0 1.0")


def test_opening_reads_one_picture_and_a_game_those_that_it_shows(folder, monkeypatch) -> None:
    read, reading = [], guessing.Photos.read
    monkeypatch.setattr(guessing.Photos, "read", lambda self, index: read.append(index) or reading(self, index))
    photos = open_real(folder())
    assert read == [0]
    assert len(prepare_real(photos, [5, 3, 8, 1], 3, 16, 3)) == 3
    assert read == [0, 5, 3, 8]


def test_the_licence_of_the_folder_is_shown(folder) -> None:
    where = folder()
    (where / "README.md").write_text("---\nlicense: cc-by-4.0\nlicense_link: https://example.org\n---\n")
    assert open_real(where).licence == "cc-by-4.0 (https://example.org)"
    assert open_real(where, "mine").licence == "mine"


def test_what_holds_no_photos_is_refused_in_a_sentence(tmp_path: Path, folder) -> None:
    with pytest.raises(ValueError, match="holds no pictures, a game takes 10 or more"):
        open_real(tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing at"):
        open_real(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="holds 3 pictures, a game takes 10"):
        open_real(folder(3))
    broken = tmp_path / "broken"
    broken.mkdir()
    for k in range(10):
        (broken / f"{k}.png").write_text("no picture")
    with pytest.raises(ValueError, match="none of the 10 files"):
        open_real(broken)


def test_unusable_photos_are_passed_over_and_too_few_are_said(folder, photo) -> None:
    where = folder()
    (where / "00.jpg").write_text("no picture")
    photo(8, 8).save(where / "02.jpg")
    photos = open_real(where)
    ready = prepare_real(photos, range(12), 10, 16, 3)
    assert ready == [prepare(photos.read(k), 16, 3) for k in range(2, 12)]
    with pytest.raises(ValueError, match=r"only 10 of the photos can be used.*smaller than 16 px"):
        prepare_real(photos, range(12), 11, 16, 3)
    with pytest.raises(ValueError, match="only 0 of the photos"):
        prepare_real(photos, range(12), 1, 64, 3)


# ---------------------------------------------------------------- one way for both


def test_no_file_tells_what_it_is(photo, tmp_path: Path) -> None:
    """200 of each kind: a photo of any format with all metadata, and a picture with its recipe."""
    told, exif = PngImagePlugin.PngInfo(), Image.Exif()
    told.add_text("Author", "somebody")
    exif[0x010F] = "a camera"
    made = []
    for k in range(200):
        size = (16 + k % 50, 16 + k % 37)
        kind = ("JPEG", "PNG", "WEBP")[k % 3]
        options = {"PNG": {"pnginfo": told, "dpi": (300, 300)}}.get(kind, {"exif": exif, "icc_profile": b"profile"})
        made.append(prepare(encoded(photo(*size, seed=k), kind, **options), 16, 3))
        save_png(photo(16, 16, seed=1000 + k), tmp_path / "own.png", {"seed": k}, overwrite=True)
        made.append(prepare((tmp_path / "own.png").read_bytes(), 16, 3))
        made.append(prepare(encoded(Image.new("RGB", (16, 16), (k, k, k))), 16, 3))  # flat: most files would be small
    assert len({len(one) for one in made}) == 1
    assert len({one[: one.index(b"IDAT")] for one in made}) == 1, "one header"
    assert {tuple(chunks(one)) for one in made} == {tuple(chunks(made[0]))}
    assert [kind for kind, _ in chunks(made[0])] == [b"IHDR", b"IDAT", b"IEND"]
    assert all(Image.open(io.BytesIO(one)).info == {} for one in made)


def test_photos_are_seen_as_in_training_and_own_pictures_as_drawn(folder, photo) -> None:
    where = folder()
    dataset, photos = open_photos(where, 16), open_real(where)
    for k in range(12):
        shown = np.asarray(Image.open(io.BytesIO(prepare(photos.read(k), 16, 3))))
        assert (shown == dataset.batch([k])[0].permute(1, 2, 0).numpy()).all()
    drawn = photo(16, 16)
    assert (np.asarray(Image.open(io.BytesIO(prepare(encoded(drawn), 16, 3)))) == np.asarray(drawn)).all()


def test_photos_are_as_grey_or_opaque_as_what_is_drawn(photo) -> None:
    assert Image.open(io.BytesIO(prepare(encoded(photo()), 16, 1))).mode == "L"
    clear = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    shown = Image.open(io.BytesIO(prepare(encoded(clear), 16, 4)))
    assert (shown.mode, shown.getpixel((3, 3))) == ("RGB", (255, 255, 255))


def test_nothing_is_enlarged_and_no_strip_is_shown(photo) -> None:
    for picture, said in ((photo(15, 40), "too small"), (photo(160, 16), "extreme aspect")):
        with pytest.raises(ValueError, match=said):
            prepare(encoded(picture), 16, 3)


# ---------------------------------------------------------------- a game


def test_a_game_goes_on_answer_by_answer_and_tells_nothing_before_its_end() -> None:
    game = Game("m", "f" * 12, (True, False, True), (4, None, 5), ("a", "b", "c"), False, 100.0)
    assert game.key == "3/1/ffffffffffff"
    for said, now in ((True, 101.0), (True, 109.0)):
        with pytest.raises(ValueError, match="of 3: finish it first"):
            game.tally()
        game = game.answer(said, now)
    assert (game.number, game.over) == (2, False)
    game = game.answer(False, 111.0)
    assert game.over
    assert game.seconds == (1.0, 8.0, 2.0)
    assert game.median_seconds() == 2.0
    assert game.tally() == Tally(1, 1, 1, 0)
    assert game.mistakes() == [1, 2]
    with pytest.raises(ValueError, match="this game is over"):
        game.answer(True, 112.0)
    assert replace(game, fingerprint="0").key != game.key, "results of other weights are counted apart"
