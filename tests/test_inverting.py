"""`hfgan invert`: what it writes of each photo, what it refuses before any work, and what it goes on after."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import files, rows, said, write
from PIL import Image
from toy import save_toy

from hfgan import HFGan, cli, parts
from hfgan.images import grid, with_channels
from hfgan.inverting import folder as inverting
from hfgan.inverting.cli import progress


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy(tmp_path_factory.mktemp("models") / "toy-16", num_modes=3, encoder=True)


@pytest.fixture(scope="module")
def gan(toy: Path) -> HFGan:
    return HFGan.from_pretrained(toy)


@pytest.fixture
def run(toy: Path, gan: HFGan, tmp_path: Path, monkeypatch):
    """Run `hfgan invert` inside tmp_path with the toy, loaded once; returns the exit status."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(HFGan, "from_pretrained", lambda *given, **how: gan)

    def go(*arguments: object) -> int:
        return cli.main(["invert", "--model", str(toy), "--device", "cpu", *map(str, arguments)])

    return go


def region(width: int = 48, height: int = 48) -> Image.Image:
    pil = Image.new("L", (width, height))
    pil.paste(255, (width // 4, height // 4, width - width // 4, height - height // 4))
    return pil


def fill(root: Path, photo) -> None:
    """A folder with two good photos, one of them in a folder, a broken one and a text."""
    write(root / "in" / "a.jpg", photo(seed=1))
    write(root / "in" / "deep er" / "b.webp", photo(50, 60, seed=2))
    (root / "in" / "broken.png").write_bytes(b"no picture")
    (root / "in" / "notes.txt").write_text("notes")


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


# ---------------------------------------------------------------- what is written


def test_as_users_run_it(toy: Path, gan: HFGan, tmp_path: Path, photo) -> None:
    path = write(tmp_path / "me.jpg", photo(70, 50, seed=3))
    call = [sys.executable, "-c", "import sys; from hfgan.cli import main; sys.exit(main())", "invert"]
    flags = ["-m", str(toy), "--device", "cpu", "--interest", "10,5,60,45", "--manifest", "new/all.jsonl"]
    one = os.environ | {"OMP_NUM_THREADS": "1"}  # as here: sums round differently on several threads
    done = subprocess.run(
        [*call, path, "out", *flags], cwd=tmp_path, env=one, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "out/me.png\n"), done.stderr
    found = gan.invert(path, (10, 5, 60, 45))
    line = f"hfgan invert: 1 of 1, {path}: distance inside {found.distance_inside:.6f}"
    assert done.stderr.startswith(line.rstrip("0"))
    assert len(done.stderr.splitlines()) == 1
    assert files(tmp_path / "out") == ["me.png", "me.safetensors"]
    assert (pixels(tmp_path / "out" / "me.png") == np.asarray(found.image)).all()
    latents = gan.read_latents(tmp_path / "out" / "me.safetensors")
    assert latents.equal(found.w_plus)
    assert (np.asarray(gan.render(latents)[0]) == pixels(tmp_path / "out" / "me.png")).all()
    (row,) = rows(tmp_path / "new" / "all.jsonl").values()
    seconds = row.pop("seconds")
    assert 0 < seconds < 60
    assert row == {
        "input": path.as_posix(), "output": "me.png", "size": [70, 50], "interest_source": "box",
        "distance_inside": pytest.approx(found.distance_inside, abs=1e-6),
        "distance_outside": pytest.approx(found.distance_outside, abs=1e-6), "mode": found.mode,
        "model": "toy-16", "encoder": gan.encoder.fingerprint(), "status": "ok", "error": None,
    }  # fmt: skip
    assert list(json.loads((tmp_path / "new" / "all.jsonl").read_text())) == list(inverting.COLUMNS)


def test_every_flag_does_what_python_does(run, gan, tmp_path, photo) -> None:
    path = write(tmp_path / "me.png", photo(70, 50, seed=3))
    write(tmp_path / "region.png", region(70, 50))
    flags = ("--align", "10,0,50,40", "--steps", "2", "--refine", "2", "--noise-steps", "1", "--paste", "--sheet")
    assert run("--interest", "region.png", path, *flags, "out") == 0
    found = gan.invert(path, region(70, 50), align=(10, 0, 50, 40), steps=2, refine=2, noise_steps=1)
    assert files(tmp_path / "out") == ["me.pasted.png", "me.png", "me.safetensors", "me.sheet.png"]
    assert (pixels(tmp_path / "out" / "me.png") == np.asarray(found.image)).all()
    assert (pixels(tmp_path / "out" / "me.pasted.png") == np.asarray(found.unalign())).all()
    assert gan.read_latents(tmp_path / "out" / "me.safetensors").equal(found.w_plus)
    sheet = Image.open(tmp_path / "out" / "me.sheet.png")
    assert (sheet.mode, sheet.size) == ("RGB", (5 * 256, 256))
    cells = [sheet.crop((256 * k, 0, 256 * k + 256, 256)) for k in range(5)]
    assert cells[0].tobytes() == found.alignment.crop(photo(70, 50, seed=3), 256).tobytes()
    assert cells[1].tobytes() == found.region().tobytes()
    drawn = [cell.resize((16, 16), Image.Resampling.BOX).tobytes() for cell in cells[2:]]
    assert drawn == [picture.tobytes() for picture in (*found.steps, found.image)]


@pytest.mark.parametrize("channels", [1, 4])
def test_a_sheet_of_what_grey_and_transparent_models_draw(gan: HFGan, photo, channels: int) -> None:
    found = gan.invert(photo(60, 48), (10, 0, 50, 40), steps=1)
    found.image, *found.steps = (with_channels(pil, channels) for pil in (found.image, *found.steps))
    made = inverting.sheet(found)
    assert (made.mode, made.size) == ("RGB", (4 * 256, 256))
    drawn = with_channels(found.image, 3).resize((256, 256), Image.Resampling.NEAREST)
    assert made.crop((768, 0, 1024, 256)).tobytes() == grid([drawn]).tobytes()


def test_files_and_folders_keep_their_names(run, tmp_path: Path, photo, capsys) -> None:
    fill(tmp_path, photo)
    write(tmp_path / "elsewhere" / "me.too.png", photo(seed=3))
    assert run("in", "elsewhere/me.too.png", "in/a.jpg", "out", "--manifest", "all.jsonl") == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines() == ["out/a.png", "out/deep er/b.png", "out/me.too.png"]
    names = ["a.png", "a.safetensors", "deep er/b.png", "deep er/b.safetensors", "me.too.png", "me.too.safetensors"]
    assert files(tmp_path / "out") == names
    told = rows(tmp_path / "all.jsonl")
    assert {name: row["status"] for name, row in told.items()} == {
        "in/a.jpg": "ok", "in/broken.png": "error", "in/deep er/b.webp": "ok", "elsewhere/me.too.png": "ok"
    }  # fmt: skip
    assert told["in/broken.png"]["error"] == "not a picture: no known format"
    assert told["in/broken.png"]["output"] is None
    faults = printed.err.splitlines()
    assert faults[0] == "hfgan invert: left out 1 in in that by name are no pictures, such as notes.txt"
    assert faults[1].startswith("hfgan invert: 1 of 4, in/a.jpg: distance inside 0.")
    assert faults[2] == "hfgan invert: in/broken.png: not a picture: no known format"
    assert faults[-1] == "hfgan invert: 1 of 4 photos failed, as said above"
    assert len(faults) == 6


def test_what_fails_in_one_photo_leaves_the_others(run, tmp_path: Path, photo, capsys) -> None:
    write(tmp_path / "in" / "a.png", photo(48, 48))
    write(tmp_path / "in" / "b.png", photo(48, 30))
    (tmp_path / "in" / "c.png").symlink_to(tmp_path / "nowhere.png")
    write(tmp_path / "in" / "d.gif", photo(), save_all=True, append_images=[photo(seed=1)])
    write(tmp_path / "region.png", region())
    assert run("in", "out", "--interest", "region.png") == 1
    faults = said(capsys, 6)
    assert "in/c.png: broken link or unreadable" in faults
    assert "in/b.png: the interest has 48x48 pixels and the photo 48x30" in faults
    assert "in/d.gif: only the first of 2 frames is used" in faults
    assert "2 of 4 photos failed" in faults
    assert files(tmp_path / "out") == ["a.png", "a.safetensors", "d.png", "d.safetensors"]


def test_a_region_for_each_photo(run, gan, tmp_path: Path, photo, capsys) -> None:
    write(tmp_path / "in" / "a.jpg", photo(60, 40, seed=1), quality=90)
    write(tmp_path / "in" / "deep" / "b.png", photo(40, 50, seed=2))
    write(tmp_path / "in" / "regions" / "a.png", region(60, 40))
    cutout = photo(40, 50, seed=2).convert("RGBA")
    cutout.putalpha(region(40, 50))
    write(tmp_path / "in" / "regions" / "deep" / "b.webp", cutout, lossless=True)
    write(tmp_path / "in" / "regions" / "unused.png", region())
    assert run("in", "first", "--interest-dir", "in/regions") == 0
    assert files(tmp_path / "first") == ["a.png", "a.safetensors", "deep/b.png", "deep/b.safetensors"]
    for name, photo_name, size in (("a", "a.jpg", (60, 40)), ("deep/b", "deep/b.png", (40, 50))):
        found = gan.invert(tmp_path / "in" / photo_name, region(*size))
        assert gan.read_latents(tmp_path / "first" / f"{name}.safetensors").equal(found.w_plus)
    (tmp_path / "in" / "regions" / "a.png").write_bytes(b"no picture")
    capsys.readouterr()
    assert run("in", "out", "--interest-dir", "in/regions") == 1
    assert "in/a.jpg: in/regions/a.png: not a picture" in said(capsys, 3)
    assert files(tmp_path / "out") == ["deep/b.png", "deep/b.safetensors"]


def test_a_region_that_is_missing_is_an_error_before_any_work(run, tmp_path: Path, photo, capsys, monkeypatch) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        write(tmp_path / "in" / name, photo())
    write(tmp_path / "regions" / "b.png", region())
    monkeypatch.setattr(HFGan, "invert", None)
    assert run("in", "out", "--interest-dir", "regions") == 1
    assert "regions has no region for in/a.jpg and 1 more: each photo needs a picture" in said(capsys)
    assert run("in/c.jpg", "out", "--interest-dir", "regions") == 1
    assert "regions has no region for in/c.jpg: each photo" in said(capsys)
    write(tmp_path / "regions" / "b.webp", region())
    assert run("in/b.jpg", "out", "--interest-dir", "regions") == 1
    assert "regions/b.png and regions/b.webp are both a region for in/b.jpg" in said(capsys)
    assert run("in", "out", "--interest-dir", "in") == 1
    assert "in/a.jpg would be its own region" in said(capsys)
    assert run("in", "out", "--interest-dir", "nowhere") == 1
    assert "nowhere is no folder of regions" in said(capsys)
    assert not (tmp_path / "out").exists()


def test_auto_says_what_it_found(tmp_path: Path, photo, capsys) -> None:
    whole = save_toy(tmp_path / "whole-16", alpha=True, encoder=True)
    write(tmp_path / "black.png", Image.new("RGB", (40, 30)))
    call = ["invert", "-m", str(whole), str(tmp_path / "black.png"), str(tmp_path / "out"), "--interest", "auto"]
    assert cli.main([*call, "--manifest", str(tmp_path / "all.jsonl"), "--dtype", "float32"]) == 0
    (row,) = rows(tmp_path / "all.jsonl").values()
    source = HFGan.from_pretrained(whole, dtype="float32").invert(tmp_path / "black.png", "auto").interest_source
    assert row["interest_source"] == source
    assert f"interest {source}," in said(capsys)


# ---------------------------------------------------------------- what is there already


def test_outputs_are_refused_resumed_or_replaced(run, tmp_path: Path, photo, capsys) -> None:
    write(tmp_path / "in" / "a.jpg", photo(seed=1))
    write(tmp_path / "in" / "b.jpg", photo(seed=2))
    manifest = ("--manifest", "all.jsonl")
    assert run("in", "out", *manifest) == 0
    whole, lines = (tmp_path / "out" / "a.png").read_bytes(), (tmp_path / "all.jsonl").read_text()
    (tmp_path / "out" / "a.png").write_bytes(b"mine")
    (tmp_path / "out" / "b.png").unlink()
    latents = (tmp_path / "out" / "b.safetensors").read_bytes()
    capsys.readouterr()
    assert run("in", "out") == 1
    assert "out/a.png and 2 more exist already: choose another place, or pass --resume or" in said(capsys)
    assert run("in", "elsewhere", *manifest) == 1
    assert "all.jsonl exists already" in said(capsys)
    assert not (tmp_path / "elsewhere").exists()
    assert not (tmp_path / "out" / "b.png").exists(), "it refuses before it writes"
    write(tmp_path / "in" / "c.jpg", photo(seed=4))
    assert run("in", "out", "--resume", *manifest) == 0
    assert "out/a.png is there already: skipped" in said(capsys, 3)
    assert (tmp_path / "out" / "a.png").read_bytes() == b"mine"
    assert (tmp_path / "out" / "b.safetensors").read_bytes() == latents
    assert files(tmp_path / "out") == [f"{name}.{suffix}" for name in "abc" for suffix in ("png", "safetensors")]
    assert (tmp_path / "all.jsonl").read_text().startswith(lines.splitlines()[0])
    assert [row["status"] for row in rows(tmp_path / "all.jsonl").values()] == ["ok", "ok", "ok"]
    assert run("in", "out", "--resume", "--manifest", "other.jsonl") == 0
    assert [row["status"] for row in rows(tmp_path / "other.jsonl").values()] == ["skipped"] * 3
    assert run("in", "out", "--overwrite", *manifest) == 0
    assert (tmp_path / "out" / "a.png").read_bytes() == whole
    assert [row["status"] for row in rows(tmp_path / "all.jsonl").values()] == ["ok", "ok", "ok"]


def test_resume_writes_only_what_is_missing_and_tries_again_what_failed(run, tmp_path: Path, photo, capsys) -> None:
    fill(tmp_path, photo)
    assert run("in", "out", "--manifest", "all.jsonl") == 1
    before = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in files(tmp_path / "out")}
    write(tmp_path / "in" / "broken.png", photo(seed=7))
    assert run("in", "out", "--manifest", "all.jsonl", "--resume", "--paste") == 0
    assert {row["status"] for row in rows(tmp_path / "all.jsonl").values()} == {"ok"}
    assert before == {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in before}
    assert len(files(tmp_path / "out")) == 9
    (tmp_path / "all.jsonl").write_text("{}\n")
    capsys.readouterr()
    assert run("in", "out", "--manifest", "all.jsonl", "--resume") == 1
    assert "line 1 of all.jsonl is none of a manifest" in said(capsys, 2)
    assert (tmp_path / "all.jsonl").read_text() == "{}\n"
    (tmp_path / "all.jsonl").write_text("no JSON\n")
    assert run("in", "out", "--manifest", "all.jsonl", "--resume") == 1
    assert "line 1 of all.jsonl is no JSON" in said(capsys, 2)


# ---------------------------------------------------------------- what is refused


def test_what_could_not_end_well_is_one_sentence_and_nothing_is_written(run, tmp_path: Path, photo, capsys) -> None:
    for name in ("a.jpg", "b.jpg", "b.PNG", "c.jpg", "c.pasted.jpg"):
        write(tmp_path / "in" / name, photo())
    (tmp_path / "empty").mkdir()
    write(tmp_path / "deep" / "in" / "a.jpg", photo())
    write(tmp_path / "a.png", photo())
    write(tmp_path / "r" / "a.png", region())
    (tmp_path / "broken.png").write_bytes(b"no picture")
    before = files(tmp_path)
    for given, sentence in (
        (("in/b.jpg", "in/b.PNG", "out"), "in/b.jpg and in/b.PNG would both become out/b.png: rename one of them"),
        (("in/a.jpg", "a.png", "out"), "in/a.jpg and a.png would both become out/a.png"),
        (("in/c.jpg", "in/c.pasted.jpg", "out", "--paste"), "would both become out/c.pasted.png"),
        (("empty", "out"), "there are no photos in empty"),
        (("missing", "out"), "no photo and no folder missing"),
        (("in/a.jpg", "missing.jpg", "out"), "no photo and no folder missing.jpg"),
        (("deep", "deep/../deep"), "one folder"),
        (("deep/in", "a.png"), "a.png is a file"),
        (("a.png", ".", "--overwrite"), "a.png is one of the pictures that are read: choose another OUT_DIR"),
        (("a.png", "r", "--overwrite", "--interest-dir", "r"), "r/a.png is one of the pictures that are read"),
        (("in/a.jpg", "r", "--overwrite", "--interest", "r/a.png"), "r/a.png is one of the pictures that are read"),
        (("in/a.jpg", "out", "--interest", "beach.png"), "no file beach.png for --interest"),
        (("in/a.jpg", "out", "--interest", "broken.png"), "broken.png: not a picture"),
        (("in/a.jpg", "out", "--interest", "auto"), "this model has no matting"),
        (("a.png", "."), "a.png is one of the pictures that are read"),
    ):
        assert run(*given) == 1, given
        assert sentence in said(capsys), given
        assert files(tmp_path) == before, given


def test_photos_and_what_is_drawn_of_them_do_not_mix(run, tmp_path: Path, photo, capsys) -> None:
    write(tmp_path / "in" / "in" / "a.jpg", photo())
    assert run("in", ".") == 1
    assert "in/a.png would be written among the photos: choose another OUT_DIR" in said(capsys)
    for _ in range(2):
        assert run("in", "in/out", "--overwrite") == 0
    assert files(tmp_path / "in") == ["in/a.jpg", "out/in/a.png", "out/in/a.safetensors"]
    assert run("in/in/a.jpg", "in/in") == 0, "beside a file that was named"
    assert files(tmp_path / "in" / "in") == ["a.jpg", "a.png", "a.safetensors"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a.jpg"],
        ["a.jpg", "out", "--steps", "0"],
        ["a.jpg", "out", "--steps", "1.5"],
        ["a.jpg", "out", "--refine=-1"],
        ["a.jpg", "out", "--interest", "1,2,3"],
        ["a.jpg", "out", "--interest", "1,2,3,nan"],
        ["a.jpg", "out", "--interest", "30,2,10,20"],
        ["a.jpg", "out", "--align", "face"],
        ["a.jpg", "out", "--align", "1,2"],
        ["a.jpg", "out", "--align", "0,9,9,0"],
        ["a.jpg", "out", "--resume", "--overwrite"],
        ["a.jpg", "out", "--interest", "auto", "--interest-dir", "d"],
        ["a.jpg", "out", "--manifest", "m.csv"],
        ["a.jpg", "out", "--nothing"],
    ],
)
def test_wrong_usage_is_one_line_and_status_2(capsys, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["invert", *arguments])
    assert stopped.value.code == 2
    assert "see `hfgan invert --help`" in said(capsys)


def test_the_bundled_model_with_an_encoder_is_meant(tmp_path: Path, toy: Path, photo, monkeypatch, capsys) -> None:
    monkeypatch.setattr(parts, "BUNDLED", (tmp_path / "cards",))
    write(tmp_path / "me.jpg", photo())
    call = ["invert", str(tmp_path / "me.jpg"), str(tmp_path / "out"), "--device", "cpu"]
    assert cli.main(call) == 1
    assert "no model comes with this copy of hfgan" in said(capsys)
    plain = save_toy(tmp_path / "cards" / cli.FIRST)
    assert cli.main(call) == 1
    sentence = said(capsys)
    assert sentence.startswith("hfgan invert: none of the models that come with hfgan has an encoder: name one")
    assert "train.py encoder" in sentence
    assert cli.main([*call, "-m", str(plain)]) == 1
    assert "this model has no encoder: load one that has, or train it" in said(capsys)
    assert not (tmp_path / "out").exists()
    (tmp_path / "cards" / "zebras-16").symlink_to(toy)
    assert cli.main(call) == 0
    assert files(tmp_path / "out") == ["me.png", "me.safetensors"]


# ---------------------------------------------------------------- what is told


def test_progress_is_for_a_terminal_and_on_stderr_alone(run, tmp_path: Path, photo, capsys, monkeypatch) -> None:
    write(tmp_path / "me.jpg", photo())
    progress("nobody watches")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    assert run("me.jpg", "out", "--refine", "3") == 0
    printed = capsys.readouterr()
    assert printed.out == "out/me.png\n"
    shown = printed.err.split("\r\x1b[K")
    assert [line for line in shown if "step" in line] == [f"1 of 1, me.jpg: step {k} of 3" for k in (1, 2, 3)]
    assert "\n" not in "".join(shown[:-2])
    progress("x" * 100)
    assert capsys.readouterr().err == "\r\x1b[K" + "x" * 59


def test_help_loads_nothing_heavy() -> None:
    code = "import sys; from hfgan.cli import main\ntry: main(['invert', '--help'])\nexcept SystemExit: pass\n"
    code += "print([name for name in ('torch', 'numpy', 'PIL', 'safetensors', 'diffusers') if name in sys.modules])"
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert printed.splitlines()[-1] == "[]"
    for wanted in ("INPUT [INPUT ...] OUT_DIR", "--interest-dir DIR", "--noise-steps N", "--paste", "--resume"):
        assert wanted in printed
