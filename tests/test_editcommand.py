"""`hfgan edit`: seeds, photos and recipes; what it writes, what it refuses before any work, what it goes on after."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import files, said, write
from PIL import Image
from safetensors.torch import save_file
from toy import save_toy

from hfgan import HFGan, cli, parts
from hfgan.images import grid, read_recipe

BOX = (0.25, 0.25, 0.75, 0.75)
HFGAN = [sys.executable, "-c", "import sys; from hfgan.cli import main; sys.exit(main())"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "toy-16"
    return save_toy(folder, alpha=True, encoder=True, directions=True)


@pytest.fixture(scope="module")
def gan(toy: Path) -> HFGan:
    found = HFGan.from_pretrained(toy)
    found.set_progress_bar_config(disable=True)
    return found


@pytest.fixture
def run(toy: Path, gan: HFGan, tmp_path: Path, monkeypatch) -> Callable[..., int]:
    """Run `hfgan edit` inside tmp_path with the toy, loaded once; returns the exit status."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(HFGan, "from_pretrained", lambda *given, **how: gan)

    def go(*arguments: object) -> int:
        return cli.main(["edit", "--model", str(toy), "--device", "cpu", *map(str, arguments)])

    return go


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


# ---------------------------------------------------------------- what is written


def test_seeds_are_moved_and_recipes_draw_them_again_in_another_process(
    run, toy: Path, gan: HFGan, tmp_path: Path, capsys
) -> None:
    assert run("--seeds", "3,5-6", "--set", "smile=2", "--set", "zoom = -1.5", "out", "--json") == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["out/seed0003-edited.png", "out/seed0003-edited.json"]
    assert len(files(tmp_path / "out")) == 6
    for seed in (3, 5, 6):
        found = gan.edit(gan.sample(seed=seed), {"smile": 2, "zoom": -1.5})
        path = tmp_path / "out" / f"seed{seed:04d}-edited.png"
        assert (pixels(path) == np.asarray(found.images[0])).all()
        assert read_recipe(path) == json.loads(path.with_suffix(".json").read_text()) == found.recipes[0]
    bare = tmp_path / "bare" / "toy-16"
    HFGan(generator=gan.generator).save_pretrained(bare)  # which has no directions
    one = os.environ | {"OMP_NUM_THREADS": "1"}
    call = [*HFGAN, "edit", "--recipe", "out/seed0005-edited.json", "-m", str(bare), "again", "--device", "cpu"]
    done = subprocess.run(call, cwd=tmp_path, env=one, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "again/seed0005-edited.png\n", "")
    again = tmp_path / "again" / "seed0005-edited.png"
    assert (pixels(again) == pixels(tmp_path / "out" / "seed0005-edited.png")).all()
    assert read_recipe(again)["edits"] == read_recipe(tmp_path / "out" / "seed0005-edited.png")["edits"]


def test_photos_are_inverted_moved_and_pasted_back(run, gan: HFGan, tmp_path: Path, photo, capsys) -> None:
    write(tmp_path / "in" / "a.png", photo(70, 50, seed=1))
    write(tmp_path / "in" / "deep er" / "b.webp", photo(50, 60, seed=2))
    (tmp_path / "in" / "broken.png").write_bytes(b"no picture")
    (tmp_path / "in" / "notes.txt").write_text("notes")
    (tmp_path / "in" / "c.png").symlink_to(tmp_path / "nowhere.png")
    how = ("--region", "0.3,0.2,0.8,0.7", "--feather", "0", "--refine", "1", "--paste")
    assert run("in", "--set", "smile=2", *how, "out") == 1
    names = ["a-edited.png", "a-pasted.png", "deep er/b-edited.png", "deep er/b-pasted.png"]
    assert files(tmp_path / "out") == names
    printed = capsys.readouterr()
    assert sorted(printed.out.splitlines()) == [f"out/{name}" for name in names]
    faults = printed.err.splitlines()
    assert faults[0] == "hfgan edit: left out 1 in in that by name are no pictures, such as notes.txt"
    assert faults[1].startswith("hfgan edit: in/c.png: broken link or unreadable")
    assert faults[2] == "hfgan edit: in/broken.png: not a picture: no known format"
    assert faults[3:] == ["hfgan edit: 2 of 4 pictures failed, as said above"]
    inv = gan.invert(tmp_path / "in" / "a.png", refine=1)
    found = gan.edit(inv, {"smile": 2}, region=(0.3, 0.2, 0.8, 0.7), feather=0)
    assert (pixels(tmp_path / "out" / "a-edited.png") == np.asarray(found.images[0])).all()
    change = (pixels(tmp_path / "out" / "a-pasted.png") != np.asarray(photo(70, 50, seed=1))).any(2)
    assert change[10:35, 21:56].any()
    change[10:35, 21:56] = False
    assert not change.any(), "the photo outside is as it was"
    again = gan.replay(tmp_path / "out" / "a-edited.png")
    assert again.images[0].tobytes() == found.images[0].tobytes()


def test_what_matters_in_a_photo_may_be_the_region(run, gan: HFGan, tmp_path: Path, photo) -> None:
    path = write(tmp_path / "me.png", photo(48, 48, seed=3))
    region = Image.new("L", (48, 48))
    region.paste(255, (12, 12, 36, 36))
    write(tmp_path / "region.png", region)
    given = ("me.png", "--set", "zoom=3", "--region", "interest")
    assert run(*given, "--interest", "region.png", "--align", "none", "out") == 0
    found = gan.edit(gan.invert(path, region, align="none"), {"zoom": 3}, region="interest")
    assert (pixels(tmp_path / "out" / "me-edited.png") == np.asarray(found.images[0])).all()
    assert run("me.png", "--set", "zoom=3", "--region", "region.png", "other") == 0
    found = gan.edit(gan.invert(path), {"zoom": 3}, region=region)
    assert (pixels(tmp_path / "other" / "me-edited.png") == np.asarray(found.images[0])).all()


def test_layers_values_and_the_subject(run, gan: HFGan, tmp_path: Path) -> None:
    flags = ("--layers", "0-2", "--to", "--region", "alpha", "--psi", "0.5")
    assert run("--seeds", "2", "--set", "smile=1.5", *flags, "out") == 0
    sample = gan.sample(seed=2, truncation_psi=0.5)
    found = gan.edit(sample, {"smile": 1.5}, layers="0-2", to=True, region="alpha")
    assert (pixels(tmp_path / "out" / "seed0002-edited.png") == np.asarray(found.images[0])).all()


def test_strips_and_videos(run, gan: HFGan, tmp_path: Path) -> None:
    assert run("--seeds", "1", "--strip", "smile", "--steps", "5", "--reach", "2", "--video", ".gif", "outputs") == 0
    assert files(tmp_path / "outputs") == ["seed0001-strip.png", "seed0001-way.gif"]
    way = gan.strip(gan.sample(seed=1), "smile", 5, 2.0)
    strip = Image.open(tmp_path / "outputs" / "seed0001-strip.png")
    assert strip.tobytes() == grid(way.images, 5).tobytes()
    assert strip.size == (80, 16)
    video = Image.open(tmp_path / "outputs" / "seed0001-way.gif")
    assert (video.n_frames, video.info["loop"]) == (48, 0), "there and back, each end once"
    assert run("--seeds", "1", "--set", "zoom=2", "--strip", "odd", "--steps", "3", "b", "--video", ".webp") == 0
    assert files(tmp_path / "b") == ["seed0001-edited.png", "seed0001-strip.png", "seed0001-way.webp"]
    way = gan.strip(gan.edit(gan.sample(seed=1), {"zoom": 2}), "odd", 3)
    assert Image.open(tmp_path / "b" / "seed0001-strip.png").tobytes() == grid(way.images, 3).tobytes()


def test_what_was_edited_is_edited_further(run, gan: HFGan, tmp_path: Path) -> None:
    gan.edit(gan.sample(seed=4), {"smile": 2}, region=BOX).save(tmp_path / "in", "one")
    gan.sample(seed=5).save(tmp_path / "in")
    assert run("in", "--set", "zoom=2", "out", "--strip", "smile", "--steps", "3") == 0
    assert len(files(tmp_path / "out")) == 4
    first = gan.edit(gan.replay(tmp_path / "in" / "one-00.png"), {"zoom": 2})
    assert (pixels(tmp_path / "out" / "one-00-edited.png") == np.asarray(first.images[0])).all()
    second = gan.edit(gan.sample(seed=5), {"zoom": 2})
    assert (pixels(tmp_path / "out" / "seed0005-edited.png") == np.asarray(second.images[0])).all()


def test_directions_are_listed(run, toy: Path, capsys) -> None:
    assert run("--list") == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "kind", "layers", "quality", "accuracy", "samples"]
    assert [row.split()[:3] for row in rows] == [["smile", "natural", "-"], ["zoom", "natural", "-"],
                                                 ["odd", "imported", "0,2"]]  # fmt: skip


def test_latents_that_were_written_are_edited(run, gan: HFGan, tmp_path: Path, photo, capsys) -> None:
    found = gan.invert(photo(50, 40, seed=2))
    found.save(tmp_path / "me.safetensors")
    assert run("me.safetensors", "--set", "smile=2", "--region", "0.25,0.25,0.75,0.75", "out", "--paste") == 0
    assert files(tmp_path / "out") == ["me-edited.png"], "there is no photo to paste into"
    edited = gan.edit(found.w_plus, {"smile": 2}, region=BOX)
    assert (pixels(tmp_path / "out" / "me-edited.png") == np.asarray(edited.images[0])).all()
    replace(found, noise=[torch.zeros(1, 1, 4, 4)]).save(tmp_path / "grain.safetensors")
    replace(found, w_plus=found.w_plus.expand(2, -1, -1)).save(tmp_path / "two.safetensors")
    capsys.readouterr()
    assert run("grain.safetensors", "two.safetensors", "--set", "smile=2", "out") == 1
    text = said(capsys, 3)
    assert "grain.safetensors: the noise that was fitted to its photo is left out" in text
    assert "two.safetensors: it holds 2 latents: expected one" in text
    assert files(tmp_path / "out") == ["grain-edited.png", "me-edited.png"]


def test_what_was_inverted_is_edited_as_a_folder(run, gan: HFGan, tmp_path: Path, photo, capsys) -> None:
    write(tmp_path / "in" / "a.png", photo(40, 40, seed=1))
    write(tmp_path / "in" / "deep" / "b.png", photo(40, 40, seed=2))
    assert cli.main(["invert", "-m", "toy", "in", "found", "--paste", "--sheet", "--device", "cpu"]) == 0
    write(tmp_path / "found" / "other.png", photo(40, 40, seed=3))
    save_file({"weight": torch.ones(1)}, tmp_path / "found" / "weights.safetensors")
    (tmp_path / "found" / "cut.safetensors").write_bytes(b"cut")
    capsys.readouterr()
    assert run("found", "--set", "smile=2", "out") == 1
    assert files(tmp_path / "out") == ["a-edited.png", "deep/b-edited.png", "other-edited.png"]
    told = said(capsys, 4).splitlines()
    assert told[0].endswith("left out 1 in found that by name are no pictures, such as weights.safetensors")
    assert told[1].endswith("left out 6 in found drawn of latents beside them, such as a.pasted.png")
    assert "found/cut.safetensors: " in told[2]
    edited = gan.edit(gan.read_latents(tmp_path / "found" / "a.safetensors"), {"smile": 2})
    assert (pixels(tmp_path / "out" / "a-edited.png") == np.asarray(edited.images[0])).all()


def test_a_recipe_is_followed_in_its_own_dtype(run, gan: HFGan, toy: Path, tmp_path: Path, monkeypatch) -> None:
    sheet = gan.edit(gan.sample(seed=4), {"smile": 2}).recipes[0] | {"dtype": "float16"}
    (tmp_path / "one.json").write_text(json.dumps(sheet))
    asked = []
    monkeypatch.setattr(HFGan, "from_pretrained", lambda *given, **how: asked.append(how["dtype"]) or gan)
    assert run("--recipe", "one.json", "a") == run("--recipe", "one.json", "b", "--dtype", "bfloat16") == 0
    assert asked == ["float16", "bfloat16"]
    gan.sample(seed=4).save(tmp_path)
    assert run("--recipe", "seed0004.png", "c", "--json") == 0
    assert files(tmp_path / "c") == ["seed0004.json", "seed0004.png"], "of a sample too"
    assert run("--recipe", "one.json", "d", "--set", "zoom=1", "--json") == 0
    assert files(tmp_path / "d") == ["one-edited.json", "one-edited.png"]


def test_what_is_told_of_a_picture_and_of_a_fault_is_short(run, gan: HFGan, tmp_path: Path, capsys) -> None:
    gan.edit(gan.sample(seed=4), {"smile": 2}, region=BOX).save(tmp_path, "one")
    assert cli.main(["info", str(tmp_path / "one-00.png")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) < 500
    assert any(line.startswith("edits ") and '"smile"' in line for line in lines)
    (tmp_path / "one.json").write_text(json.dumps({"kind": "edit", "format": "x" * 10**6}))
    assert run("--recipe", "one.json", "out") == 1
    assert len(said(capsys)) < 1200


# ---------------------------------------------------------------- what is refused


def test_nothing_is_overwritten(run, tmp_path: Path, capsys) -> None:
    given = ("--seeds", "1-3", "--set", "smile=1", "out")
    assert run(*given) == 0
    mine = tmp_path / "out" / "seed0002-edited.png"
    mine.write_bytes(b"mine")
    (tmp_path / "out" / "seed0001-edited.png").unlink()
    capsys.readouterr()
    assert run(*given) == 1
    assert "out/seed0002-edited.png and 1 more exist already: choose another place or pass --overwrite" in said(capsys)
    assert not (tmp_path / "out" / "seed0001-edited.png").exists(), "it refuses before it draws"
    assert mine.read_bytes() == b"mine"
    assert run(*given, "--overwrite") == 0
    assert Image.open(mine).size == (16, 16)


def test_what_could_not_end_well_is_one_sentence_and_nothing_is_written(
    run, gan: HFGan, tmp_path: Path, photo, capsys
) -> None:
    for name in ("a.png", "A.webp", "deep/b.png"):
        write(tmp_path / "in" / name, photo(20, 20))
    replace(gan.invert(photo()), fingerprint="012345678901").save(tmp_path / "other.safetensors")
    gan.sample(seed=1).save(tmp_path / "drawn")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "half.json").write_text('{"kind": "edit"')
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "edit.json").write_text('{"kind": "edit", "format": 1}')
    (tmp_path / "future.json").write_text('{"kind": "edit", "format": 2}')
    (tmp_path / "empty").mkdir()
    before = files(tmp_path)
    one = ("--set", "smile=1")
    for given, sentence in (
        (("missing.png", *one, "out"), "no photo and no folder missing.png"),
        (("empty", *one, "out"), "there are no photos in empty"),
        (("in", *one, "out"), "would both become out/a-edited.png: rename one of them"),
        (("in/a.png", *one, "in/a.png"), "in/a.png is a file"),
        (("in/deep", *one, "in/deep/../deep"), "in/deep and in/deep/../deep are one folder"),
        (("in/a.png", "--set", "nose=1", "out"), "there is no direction 'nose': this model has smile, zoom, odd"),
        (("--seeds", "1", "--strip", "nose", "out"), "there is no direction 'nose'"),
        (("in/a.png", *one, "--region", "beach.png", "out"), "no file beach.png for --region"),
        (("in/a.png", *one, "--interest", "list.json", "out"), "list.json: not a picture"),
        (("--seeds", "1", *one, "--region", "interest", "out"), "seed 1: region is 'interest', which inverted photos"),
        (("--seeds", "1", "--set", "odd=1", "--to", "out"), "hfgan edit: nothing measures 'odd'"),
        (
            ("--seeds", "1", *one, "--layers", "99", "out"),
            "hfgan edit: layers is '99': expected ascending ranges",
        ),
        (("--seeds", "1", "--set", "smile=nan", "out"), "hfgan edit: the strength of 'smile' is nan"),
        (("--seeds", "1", *one, "--feather", "2", "--region", "alpha", "out"), "seed 1: feather is 2.0"),
        (("--recipe", "none.json", "out"), "no file none.json for --recipe"),
        (("--recipe", "in/a.png", "out"), "in/a.png: this picture has no recipe"),
        (("--recipe", "list.json", "out"), "list.json: no recipe of hfgan here"),
        (("--recipe", "half.json", "out"), "half.json: "),
        (("--recipe", "deep.json", "out"), "deep.json: "),
        (("--recipe", "edit.json", "out"), "edit.json: the recipe lacks dtype, edits, fingerprint"),
        (("--recipe", "future.json", "out"), "future.json: the recipe of an edit has format 2: this version of hfgan"),
        (("--recipe", "drawn/seed0001.png", "drawn", "--overwrite"), "is one of the pictures that are read"),
        (("other.safetensors", *one, "out"), "other.safetensors belongs to a generator with weights 012345678901"),
    ):
        assert run(*given) == 1, given
        assert sentence in said(capsys), given
        assert files(tmp_path) == before, given


def test_recipes_of_other_models_are_refused(run, toy: Path, gan: HFGan, tmp_path: Path, monkeypatch, capsys) -> None:
    gan.edit(gan.sample(seed=4), {"smile": 2}).save(tmp_path / "in", "one")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parts, "BUNDLED", (tmp_path / "cards",))
    again, further = ["edit", "--recipe", "in/one-00.png", "out"], ["edit", "in", "out", "--set", "zoom=1"]
    for call in (again, further):
        assert cli.main(call) == 1
        assert 'in/one-00.png was drawn by "toy-16": say with --model where that is' in said(capsys)
    other = save_toy(tmp_path / "cards" / "toy-16", seed=1, directions=True)
    for call in (again, further, [*again, "-m", str(other)]):
        assert cli.main(call) == 1
        text = said(capsys)
        assert "in/one-00.png: this was drawn by toy-16 (" in text
        assert "load the model that drew it" in text
    assert not (tmp_path / "out").exists()
    other.rename(tmp_path / "cards" / "other-16")
    (tmp_path / "cards" / "toy-16").symlink_to(toy)
    assert cli.main(again) == 0
    assert (pixels(tmp_path / "out" / "one-00.png") == pixels(tmp_path / "in" / "one-00.png")).all()
    assert cli.main(further) == 0
    assert files(tmp_path / "out") == ["one-00-edited.png", "one-00.png"]
    capsys.readouterr()
    assert cli.main(["sample", "--replay", "in/one-00.png"]) == 1
    assert "in/one-00.png was edited: `hfgan edit --recipe in/one-00.png OUT_DIR` draws it again" in said(capsys)


def test_a_model_without_the_parts_says_how_to_get_them(tmp_path: Path, photo, capsys) -> None:
    plain = save_toy(tmp_path / "plain-16")
    write(tmp_path / "me.png", photo())
    for given, sentence in (
        (["--seeds", "1", "--set", "smile=1"], "this model has no directions, so none called 'smile'"),
        ([str(tmp_path / "me.png"), "--set", "smile=1"], "this model has no encoder"),
        (["--seeds", "1", "--set", "smile=1", "--region", "alpha"], "this model has no alpha"),
        ([str(tmp_path / "me.png"), "--set", "smile=1", "--interest", "auto"], "this model has no encoder"),
        (["--list"], "this model has no directions"),
    ):
        target = [] if given == ["--list"] else [str(tmp_path / "out")]
        assert cli.main(["edit", "-m", str(plain), *given, *target]) == 1
        assert sentence in said(capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["out"],
        ["--seeds", "1", "out"],
        ["--seeds", "1", "--set", "smile=1"],
        ["a.png", "out"],
        ["a.png", "--seeds", "1", "--set", "smile=1", "out"],
        ["a.png", "--recipe", "b.png", "--set", "smile=1", "out"],
        ["a.png", "--set", "smile", "out"],
        ["a.png", "--set", "smile=much", "out"],
        ["a.png", "--set", "=1", "out"],
        ["a.png", "--set", "smile=1", "--set", "smile=2", "out"],
        ["a.png", "--set", "smile=1", "--video", ".gif", "out"],
        ["a.png", "--set", "smile=1", "--steps", "3", "out"],
        ["a.png", "--set", "smile=1", "--reach", "2", "out"],
        ["a.png", "--set", "smile=1", "--psi", "1", "out"],
        ["a.png", "--strip", "smile", "--video", ".mov", "out"],
        ["a.png", "--strip", "smile", "--steps", "1", "out"],
        ["a.png", "--strip", "smile", "--json", "out"],
        ["a.png", "--strip", "smile", "--paste", "out"],
        ["a.png", "--strip", "smile", "--to", "out"],
        ["a.png", "--region", "1,2,3", "--set", "smile=1", "out"],
        ["a.png", "--align", "face", "--set", "smile=1", "out"],
        ["--seeds", "1", "--set", "smile=1", "--paste", "out"],
        ["--seeds", "1", "--set", "smile=1", "--interest", "auto", "out"],
        ["--recipe", "a.json", "--layers", "1", "out"],
        ["--recipe", "a.jpg", "out"],
        ["--seeds", "1", "--nothing"],
        ["--list", "out"],
        ["--list", "a.png", "out"],
        ["--list", "--seeds", "1"],
        ["--list", "--set", "smile=1"],
        ["--list", "--overwrite"],
        ["--list", "--label", "0"],
    ],
)
def test_wrong_usage_is_one_line_and_status_2(capsys, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["edit", *arguments])
    assert stopped.value.code == 2
    assert "see `hfgan edit --help`" in said(capsys)


def test_help_loads_nothing_heavy() -> None:
    code = "import sys; from hfgan.cli import main\ntry: main(['edit', '--help'])\nexcept SystemExit: pass\n"
    code += "print([name for name in ('torch', 'numpy', 'PIL', 'safetensors', 'diffusers') if name in sys.modules])"
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert printed.splitlines()[-1] == "[]"
    for wanted in ("[INPUT ...]", "--set NAME=STRENGTH", "--region alpha|interest|FILE", "--strip NAME", "OUT_DIR"):
        assert wanted in printed


def test_what_is_for_photos_alone_is_said_to_be_left_out(run, tmp_path: Path, capsys) -> None:
    assert run("--seeds", "3", "--set", "smile=1", "first") == 0
    capsys.readouterr()
    assert run("first/seed0003-edited.png", "--set", "zoom=1", "--paste", "--refine", "5", "out") == 0
    told = said(capsys)
    assert "first/seed0003-edited.png is no photo: --paste, --refine left out" in told
    with pytest.raises(SystemExit):
        run("--seeds", "3", "--set", "smile=1", "--feather", "0.2", "out")
    assert "--feather goes with --region" in said(capsys)
