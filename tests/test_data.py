"""Raw photos: every broken or odd file has its reason, every order its proof."""

from __future__ import annotations

import io
import json
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hfgan import data, images, sources
from hfgan.data import InfiniteSampler, StreamingPhotos, open_photos


@pytest.fixture
def folder(tmp_path, photo):
    """Two class folders with three photos each, in a folder of their own."""
    root = tmp_path / "photos"
    for index, name in enumerate(["a/1.png", "a/2.png", "a/sub/3.png", "b/1.png", "b/2.jpg", "b/3.webp"]):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        photo(40, 40, seed=index).save(root / name)
    return root


def zipped(root: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in root.rglob("*"):
            archive.write(file, file.relative_to(root).as_posix())
    return path


def encoded(pil: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    pil.save(buffer, form, **options)
    return buffer.getvalue()


# ---------------------------------------------------------------- broken and odd files


def fill_with_trouble(root: Path, photo, bomb: bytes) -> tuple[dict[str, str], dict[str, list[str]]]:
    """One file for each kind of trouble; returns reason by rejected name, and notes by converted name."""
    good, sixteen_bit = photo(40, 40), np.linspace(0, 65535, 1600).astype(np.uint16).reshape(40, 40)
    exif = Image.Exif()
    exif[images.ORIENTATION] = 6
    frames = [photo(40, 40, seed) for seed in range(12)]
    rejected = {
        "truncated.jpg": (encoded(photo(200, 200), "JPEG")[:-300], "damaged: image file is truncated"),
        "truncated.png": (encoded(good, "PNG")[:-600], "damaged: "),
        "empty.png": (b"", "empty file: 0 bytes"),
        "text.png": (b"I am no picture", "not a picture: no known format"),
        "page.html": (b"<html>", "not a picture's name: .html"),
        "vector.jpg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture: no known format"),
        "1x1.png": (encoded(photo(1, 1), "PNG"), "too small: 1x1"),
        "strip.png": (encoded(Image.new("RGB", (20000, 20)), "PNG"), "extreme aspect ratio: 20000x20"),
        "bomb.png": (
            bomb,
            "too many pixels: over the limit",
        ),
        "float.tif": (encoded(Image.new("F", (40, 40)), "TIFF"), "mode F has no known range"),
        "new\nline.png": (b"I am no picture", "not a picture: no known format"),
    }
    converted = {
        "animated.gif": (
            encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
            ["first of 12 frames", "p converted"],
        ),
        "cmyk.jpg": (encoded(photo(40, 40, 0, "CMYK"), "JPEG"), ["cmyk converted"]),
        "deep.png": (encoded(Image.fromarray(sixteen_bit), "PNG"), ["16-bit scaled to 8"]),
        "palette.png": (encoded(photo(40, 40, 0, "P"), "PNG"), ["p converted"]),
        "rotated.jpg": (encoded(good, "JPEG", exif=exif), ["exif rotated"]),
        "alpha.png": (encoded(photo(40, 40, 0, "RGBA"), "PNG"), ["alpha composited on white"]),
        "bilevel.png": (encoded(photo(40, 40, 0, "1"), "PNG"), ["1 converted"]),
        "little.png": (encoded(photo(20, 24), "PNG"), ["upscaled from 20x24"]),
        "snö 雪.gif": (encoded(photo(40, 40, 0, "P"), "PNG"), ["p converted"]),
    }
    plain = {"good.png": encoded(good, "PNG"), "copy.png": encoded(good, "PNG"), "no suffix": encoded(good, "PNG")}
    root.mkdir()
    for name, content in plain.items():
        (root / name).write_bytes(content)
    for name, (content, _) in {**rejected, **converted}.items():
        (root / name).write_bytes(content)
    reasons = {name: reason for name, (_, reason) in rejected.items()}
    return reasons, {name: notes for name, (_, notes) in converted.items()}


def add_what_only_a_file_system_holds(root: Path) -> dict[str, str]:
    (root / "folder.png").mkdir()
    (root / "loop").symlink_to(root)
    (root / "self.png").symlink_to(root / "self.png")
    (root / "dangling.png").symlink_to(root / "nowhere.png")
    os.mkfifo(root / "pipe.png")
    return {
        "folder.png": "a folder named like a picture",
        "loop": "symlink loop",
        "self.png": "symlink loop",
        "dangling.png": "broken link or unreadable: No such file",
        "pipe.png": "not a regular file",
    }


def test_each_kind_of_trouble_is_reported_and_the_rest_is_used(tmp_path, photo, bomb, monkeypatch):
    root = tmp_path / "photos"
    reasons, notes = fill_with_trouble(root, photo, bomb)
    reasons.update(add_what_only_a_file_system_holds(root))
    (root / "secret.png").write_bytes(encoded(photo(), "PNG"))
    reasons["secret.png"] = "unreadable: Permission denied"
    deny_reading(monkeypatch, "secret.png")  # the tests may run as root, who may read anything

    photos = open_photos(root, 32)
    found = {item.id: item.reason for item in photos.rejected}
    assert found.keys() == reasons.keys()
    assert len(photos.rejected) == len(reasons) == 17
    for name, reason in reasons.items():
        assert found[name].startswith(reason), name
    assert photos.adjusted == notes
    assert photos.ids == sorted([*notes, "good.png", "copy.png", "no suffix"])
    assert photos.batch(range(len(photos))).shape == (12, 3, 32, 32)
    check_report(photos, tmp_path / "report.json", reasons)


def deny_reading(monkeypatch, name: str) -> None:
    read_bytes = Path.read_bytes

    def read_unless_secret(path: Path) -> bytes:
        if path.name == name:
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", read_unless_secret)


def check_report(photos: data.PhotoDataset, path: Path, reasons: dict[str, str]) -> None:
    photos.write_report(path)
    text = path.read_text("ascii")
    assert r"new\nline.png" in text
    assert r"sn\u00f6 \u96ea.gif" in text
    report = json.loads(text)
    assert report["counts"] == {"usable": 12, "converted": 9, "rejected": 17}
    assert {item["id"] for item in report["rejected"]} == set(reasons)
    assert report["reasons"]["not a picture"] == 3
    assert {"id": "rotated.jpg", "notes": ["exif rotated"]} in report["converted"]
    summary = photos.summary()
    assert summary.startswith("12 photos usable (9 converted), 17 rejected")
    assert r"'new\nline.png': not a picture" in summary


def test_trouble_in_a_zip_is_the_same_and_so_are_the_pixels(tmp_path, photo, bomb):
    root = tmp_path / "photos"
    fill_with_trouble(root, photo, bomb)
    from_folder = open_photos(root, 32)
    from_zip = open_photos(zipped(root, tmp_path / "photos.zip"), 32)
    assert from_zip.ids == from_folder.ids
    assert sorted(from_zip.rejected) == sorted(from_folder.rejected)
    assert from_zip.adjusted == from_folder.adjusted
    everything = range(len(from_zip))
    assert torch.equal(from_zip.batch(everything), from_folder.batch(everything))


def test_a_damaged_an_encrypted_and_a_doubled_entry_of_a_zip(tmp_path, folder, photo):
    path = zipped(folder, tmp_path / "photos.zip")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("a/1.png", encoded(photo(seed=9), "PNG"))
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        damaged = archive.getinfo("b/1.png").header_offset + 200
        listed = content.index(b"a/2.png", archive.start_dir) - 46 + 8  # flags in the central directory
    content[damaged] ^= 0xFF
    content[listed] |= 1
    path.write_bytes(content)
    photos = open_photos(path, 32)
    assert {item.id: item.reason.partition(":")[0] for item in photos.rejected} == {
        "a/1.png": "same name again in the zip",
        "a/2.png": "unreadable",
        "b/1.png": "unreadable",
    }
    assert photos.ids == ["a/1.png", "a/sub/3.png", "b/2.jpg", "b/3.webp"]
    latest = images.pil_to_pixels(images.resize_square(photo(seed=9), 32))
    assert torch.equal(photos.batch([0])[0], latest)


def test_a_folder_that_cannot_be_listed_is_reported(folder, monkeypatch):
    listdir = os.listdir

    def listdir_unless_b(path):
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(os, "listdir", listdir_unless_b)
    photos = open_photos(folder, 32)
    assert photos.rejected == [("b", "unreadable folder: Permission denied")]
    assert len(photos) == 3


def test_two_folders_that_link_to_each_other_end(folder):
    (folder / "a" / "to_b").symlink_to(folder / "b")
    (folder / "b" / "to_a").symlink_to(folder / "a")
    photos = open_photos(folder, 32)
    assert {item.id: item.reason for item in photos.rejected} == {
        "a/to_b/to_a": "symlink loop",
        "b/to_a/to_b": "symlink loop",
    }
    assert len(photos) == 12


def test_a_file_too_large_to_be_a_photo_is_not_read(folder, monkeypatch):
    monkeypatch.setattr(data, "MAX_BYTES", 100)
    with pytest.raises(ValueError, match="file too large"):
        open_photos(folder, 32)


def test_no_usable_photo_names_the_first_reasons(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        open_photos(tmp_path, 32)
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"1 files rejected, first 'a\.png' \(empty file: 0 bytes\)"):
        open_photos(tmp_path, 32)


def test_a_source_that_is_not_there_or_no_source(tmp_path):
    with pytest.raises(FileNotFoundError, match="give a folder"):
        open_photos(tmp_path / "none", 32)
    with pytest.raises(FileNotFoundError, match="give a folder"):
        open_photos("photos/cats.zip", 32)
    (tmp_path / "a.zip").write_bytes(b"no zip")
    with pytest.raises(ValueError, match="neither a folder nor a zip"):
        open_photos(tmp_path / "a.zip", 32)
    with pytest.raises(ValueError, match="img_channels 2"):
        open_photos(tmp_path, 32, img_channels=2)


# ---------------------------------------------------------------- what comes out


@pytest.mark.parametrize(("img_channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_pixels_are_those_of_the_one_resize(folder, img_channels, mode):
    photos = open_photos(folder, 16, img_channels=img_channels)
    batch = photos.batch([3, 0])
    assert (batch.shape, batch.dtype) == ((2, img_channels, 16, 16), torch.uint8)
    for pixels, name in zip(batch, ["b/1.png", "a/1.png"], strict=True):
        with Image.open(folder / name) as pil:
            expected = images.resize_square(pil.convert(mode), 16)
        assert torch.equal(pixels, images.pil_to_pixels(expected))


def test_min_size_decides_what_is_upscaled(folder):
    assert len(open_photos(folder, 64).adjusted) == 6
    assert open_photos(folder, 40).adjusted == {}
    with pytest.raises(ValueError, match="too small: 40x40, the shorter side must have 64"):
        open_photos(folder, 128)
    assert len(open_photos(folder, 128, min_size=40)) == 6


def test_labels_are_the_first_folder_level(folder, photo):
    photo().save(folder / "stray.png")
    photos = open_photos(folder, 16, class_labels=True)
    assert photos.classes == ["a", "b"]
    assert photos.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert photos.labels.dtype == torch.int64
    assert photos.rejected == [("stray.png", "outside any class folder")]
    assert open_photos(folder, 16).labels is None
    with pytest.raises(ValueError, match="class folders"):
        open_photos(folder / "b", 16, class_labels=True)


def test_kept_selects_by_name_and_leaves_the_classes_alone(folder):
    photos = open_photos(folder, 16, kept=["b/3.webp", "b/1.png"], class_labels=True)
    assert photos.ids == ["b/1.png", "b/3.webp"]
    assert photos.labels.tolist() == [1, 1]
    with pytest.raises(ValueError, match=r"1 names in kept are not in the data, first \['c'\]"):
        open_photos(folder, 16, kept=["b/1.png", "c"])


def test_beyond_the_memory_limit_batches_are_decoded_anew_and_equal(folder, monkeypatch):
    held = open_photos(folder, 16)
    monkeypatch.setattr(data, "MEMORY_LIMIT", 0)
    decoded = open_photos(folder, 16)
    assert torch.equal(held.batch([5, 0, 5]), decoded.batch([5, 0, 5]))
    (folder / "a/1.png").write_bytes((folder / "a/2.png").read_bytes())
    assert decoded.batch([1]).shape == (1, 3, 16, 16)
    with pytest.raises(RuntimeError, match=r"'a/1\.png' was usable .* its content has changed"):
        decoded.batch([0])
    (folder / "a/1.png").unlink()
    with pytest.raises(RuntimeError, match="unreadable: No such file"):
        decoded.batch([0])


# ---------------------------------------------------------------- the index


def test_a_second_run_reads_the_index_and_decodes_nothing(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "MEMORY_LIMIT", 0)
    (folder / "bad.png").write_bytes(b"")
    first = open_photos(folder, 16, index=tmp_path / "index.json")
    monkeypatch.setattr(data, "decode", lambda *_: pytest.fail("decoded again"))
    second = open_photos(folder, 16, index=tmp_path / "index.json")
    assert second.ids == first.ids
    assert second.rejected == first.rejected == [("bad.png", "empty file: 0 bytes")]
    assert str(tmp_path) not in (tmp_path / "index.json").read_text()


def test_a_copy_with_other_times_is_the_same_data(folder, tmp_path):
    open_photos(folder, 16, index=tmp_path / "index.json")
    os.utime(folder / "a/1.png", (1, 1))
    assert len(open_photos(folder, 16, index=tmp_path / "index.json")) == 6


@pytest.mark.parametrize("limit", [0, 2**30])
def test_changed_data_is_told_not_taken(folder, tmp_path, photo, monkeypatch, limit):
    monkeypatch.setattr(data, "MEMORY_LIMIT", limit)
    index = tmp_path / "index.json"
    open_photos(folder, 16, index=index)
    photo(seed=7).save(folder / "new\n.png")
    (folder / "b/1.png").rename(tmp_path / "gone.png")
    changed = r"1 added \['new\\n\.png'\], 1 removed \['b/1\.png'\]\. .*delete the index"
    with pytest.raises(RuntimeError, match=changed):
        open_photos(folder, 16, index=index)
    (folder / "new\n.png").unlink()
    photo(40, 40, seed=8).save(folder / "b/1.png")
    with pytest.raises(RuntimeError, match=r"'b/1\.png' is not what it was .* its content has changed"):
        open_photos(folder, 16, index=index)
    (tmp_path / "gone.png").rename(folder / "b/1.png")
    assert len(open_photos(folder, 16, index=index)) == 6


def test_an_index_of_other_settings_or_of_nothing_is_refused(folder, tmp_path):
    index = tmp_path / "index.json"
    open_photos(folder, 16, index=index)
    with pytest.raises(RuntimeError, match=r"'resolution': 16.*'resolution': 32.*delete it"):
        open_photos(folder, 32, index=index)
    index.write_text("{}")
    with pytest.raises(RuntimeError, match="no index of photos"):
        open_photos(folder, 16, index=index)


# ---------------------------------------------------------------- order


def test_every_epoch_shows_every_photo_once_in_an_order_of_its_own():
    sampler = InfiniteSampler(10, seed=3)
    seen = [index for start in range(0, 40, 4) for index in sampler.indices(start, 4)]  # batches straddle epochs
    epochs = [seen[start : start + 10] for start in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert InfiniteSampler(10, seed=4).indices(0, 10) != epochs[0]


def test_a_batch_is_a_function_of_its_position():
    late = InfiniteSampler(7, seed=0).indices(1000, 6)
    sampler = InfiniteSampler(7, seed=0)
    walked = [sampler.indices(position, 1)[0] for position in range(1006)]
    assert walked[1000:] == late
    assert sampler.indices(1000, 6) == late


@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
def test_the_shares_of_all_processes_are_the_batch_of_one(world_size):
    whole = InfiniteSampler(10, seed=1).indices(42, 12)
    shares = [InfiniteSampler(10, 1, rank, world_size).indices(42, 12) for rank in range(world_size)]
    assert [index for share in shares for index in share] == whole


def test_a_sampler_refuses_what_it_cannot_share():
    with pytest.raises(ValueError, match="at least one photo"):
        InfiniteSampler(0, seed=0)
    with pytest.raises(ValueError, match="rank 2 of 2"):
        InfiniteSampler(4, 0, rank=2, world_size=2)
    with pytest.raises(ValueError, match="batch of 5"):
        InfiniteSampler(4, 0, rank=0, world_size=2).indices(0, 5)


# ---------------------------------------------------------------- streaming


def take(stream, count: int, **where) -> torch.Tensor:
    batches = stream.batches(**where)
    return torch.cat([next(batches) for _ in range(count)])


def test_a_stream_shows_what_the_sampler_says(folder):
    photos, order = open_photos(folder, 16), InfiniteSampler(6, seed=5).indices(0, 12)
    assert torch.equal(take(StreamingPhotos(folder, 16, seed=5), 3, batch=4), photos.batch(order))


def test_a_stream_resumes_and_is_shared_even_where_photos_are_broken(folder):
    for name in ("a/0.png", "b/0.png", "b/9.png"):
        (folder / name).write_bytes(b"")
    whole = StreamingPhotos(folder, 16, seed=1)
    batches = take(whole, 10, batch=4)
    assert batches.shape == (40, 3, 16, 16)
    assert {item.id for item in whole.rejected} == {"a/0.png", "b/0.png", "b/9.png"}
    assert len(whole.rejected) == 3
    assert torch.equal(take(StreamingPhotos(folder, 16, seed=1), 3, batch=4, images_seen=28), batches[28:])
    shares = [take(StreamingPhotos(folder, 16, seed=1), 10, batch=4, rank=r, world_size=2) for r in (0, 1)]
    together = torch.stack([share.unflatten(0, (10, 2)) for share in shares], 1).flatten(0, 2)
    assert torch.equal(together, batches)


def test_a_stream_of_nothing_usable_gives_up(folder):
    for file in folder.rglob("*.*"):
        file.write_bytes(b"")
    with pytest.raises(ValueError, match=r"1000 unusable photos in a row: 6 files rejected"):
        next(StreamingPhotos(folder, 16).batches(4))
    with pytest.raises(ValueError, match="batch of 3"):
        next(StreamingPhotos(folder, 16).batches(3, world_size=2))


# ---------------------------------------------------------------- the Hub


@pytest.fixture
def hub(folder, monkeypatch):
    """`datasets.load_dataset("me/photos")` gives the class folders, as the Hub would."""
    datasets = pytest.importorskip("datasets")
    (folder / "b/4.png").write_bytes(b"broken")
    load = datasets.load_dataset

    def load_local(name, split, streaming=False):
        assert (name, split) == ("me/photos", "train")
        options = {"cache_dir": str(folder.parent / "cache"), "drop_labels": False}
        return load("imagefolder", data_dir=str(folder), split=split, streaming=streaming, **options)

    monkeypatch.setattr(datasets, "load_dataset", load_local)
    return folder


def test_a_hub_data_set_gives_photos_labels_and_rejects(hub):
    photos, expected = open_photos("me/photos", 16, class_labels=True), open_photos(hub, 16)
    assert photos.ids == ["0", "1", "2", "3", "4", "5"]
    assert photos.rejected == [("6", "not a picture: no known format")]
    assert torch.equal(photos.batch(range(6)), expected.batch(range(6)))
    assert [photos.classes[label] for label in photos.labels] == ["a", "a", "sub", "b", "b", "b"]


def test_a_hub_data_set_streams_shuffled_and_resumes(hub):
    stream = StreamingPhotos("me/photos", 16)
    batches = take(stream, 7, batch=4)
    assert [item.reason for item in stream.rejected] == ["not a picture: no known format"]
    assert torch.equal(take(StreamingPhotos("me/photos", 16), 2, batch=4, images_seen=20), batches[20:])
    known = {pixels.numpy().tobytes() for pixels in open_photos(hub, 16).batch(range(6))}
    assert {pixels.numpy().tobytes() for pixels in batches} == known
    assert not torch.equal(batches[:7], batches[7:14])


def test_a_hub_data_set_without_images_or_without_the_package_is_told(monkeypatch):
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"text": ["a"], "number": [1]})
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: table)
    with pytest.raises(ValueError, match="no image column; its columns: text, number"):
        sources.find_source("me/photos")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r'pip install "hfgan\[train\]"'):
        sources.find_source("me/photos")
