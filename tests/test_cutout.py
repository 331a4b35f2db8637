"""`hfgan cutout`: one picture, one PNG, whichever way it came; and what each verb and flag does or refuses."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import files, rows, said, write
from fastapi.testclient import TestClient
from PIL import Image
from toy import save_toy

from hfgan import HFGan, cli, parts, segmentation
from hfgan.cutting import FLAGS, KINDS, Options, cut, draw, encode, folder, server
from hfgan.images import save_png

ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy(tmp_path_factory.mktemp("models") / "toy-16", alpha=True)


@pytest.fixture(scope="module")
def gan(toy: Path) -> HFGan:
    return HFGan.from_pretrained(toy)


@pytest.fixture
def run(toy: Path, gan: HFGan, tmp_path: Path, monkeypatch):
    """Run `hfgan cutout VERB` inside tmp_path with the toy, loaded once; returns the exit status."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(HFGan, "from_pretrained", lambda *given, **how: gan)

    def go(verb: str, *arguments: object) -> int:
        return cli.main(["cutout", verb, "--model", str(toy), "--device", "cpu", *map(str, arguments)])

    return go


@pytest.fixture
def stdin(monkeypatch):
    """stdin(data): what standard input gives."""

    def feed(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return feed


@pytest.fixture
def client(gan: HFGan) -> TestClient:
    return TestClient(server.server(gan, Options()))


def pixels(data: bytes | Path) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data) if isinstance(data, bytes) else data)).astype(int)


# ---------------------------------------------------------------- the same bytes


def test_one_picture_gives_the_same_bytes_whichever_way_it_comes(
    toy, gan, run, client, stdin, tmp_path, photo
) -> None:
    path = write(tmp_path / "in" / "me.jpg", photo(70, 50, seed=3))
    data = path.read_bytes()
    gan.cutout(path).save(tmp_path / "python.png")
    expected = (tmp_path / "python.png").read_bytes()
    assert encode(gan, path, Options()) == encode(gan, data, Options()) == expected
    call = [sys.executable, "-c", "import sys; from hfgan.cli import main; sys.exit(main())", "cutout", "i"]
    piped = subprocess.run([*call, "-m", str(toy), "--device", "cpu"], input=data, capture_output=True, check=False)
    assert (piped.stdout, piped.stderr.decode(), piped.returncode) == (expected, "", 0)
    assert run("i", path, "file.png") == run("p", "in", "out") == 0
    assert (tmp_path / "file.png").read_bytes() == (tmp_path / "out" / "me.png").read_bytes() == expected
    for answer in (client.post("/api/remove", files={"file": data}), client.post("/api/remove", content=data)):
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        assert answer.content == expected


@pytest.mark.parametrize(
    "flags",
    [
        ("-om",),
        ("--kind", "trimap"),
        ("-a", "-af", "150", "-ab", "100", "-ae", "1", "--invert"),
        ("-bgc", "9", "8", "7", "6"),
    ],
)
def test_flags_give_the_same_bytes_in_every_verb(
    gan, run, client, tmp_path, photo, stdin, flags, capsysbinary
) -> None:
    path = write(tmp_path / "in" / "me.png", photo(70, 50, seed=3))
    assert run("i", *flags, path, "-") == 0
    expected = capsysbinary.readouterr().out
    assert expected != encode(gan, path, Options()), "the flags do nothing"
    assert run("p", "in", "out", *flags) == 0
    stdin(photo(70, 50, seed=3).tobytes())
    assert run("b", "70", "50", *flags, "-o", "frame%d.png") == 0
    options = cli._parse_own("cutout", ["i", *flags])
    given = {flag.name: getattr(options, flag.name) for flag in FLAGS}
    changed = {name: value for name, value in given.items() if value != getattr(Options(), name)}
    texts = {name: ",".join(map(str, value)) if name == "bgcolor" else str(value) for name, value in changed.items()}
    answer = client.post("/api/remove", params=texts, files={"file": path.read_bytes()})
    assert (tmp_path / "out" / "me.png").read_bytes() == expected
    assert (tmp_path / "frame0.png").read_bytes() == expected
    assert answer.content == expected


# ---------------------------------------------------------------- what flags do


@pytest.fixture
def made(run, tmp_path: Path, photo):
    """made(flags): the picture that `hfgan cutout i` writes of a photo, as numbers."""
    write(tmp_path / "me.png", photo(64, 48, seed=5))

    def make(*flags: object) -> np.ndarray:
        assert run("i", "me.png", *flags, "made.png", "--overwrite") == 0
        return pixels(tmp_path / "made.png")

    return make


def test_kinds(made, gan, tmp_path: Path) -> None:
    rgba = made()
    assert rgba.shape == (48, 64, 4)
    mask = made("-om")
    assert (mask == rgba[..., 3]).all()
    assert len(np.unique(mask)) > 20, "the toy's alpha is soft"
    assert (made("--kind", "mask") == mask).all()
    assert tuple(segmentation.KINDS) == KINDS
    for kind in KINDS:
        save_png(gan.cutout(tmp_path / "me.png").render(kind), tmp_path / "expected.png", overwrite=True)
        assert (made("--kind", kind) == pixels(tmp_path / "expected.png")).all()
    assert np.abs(made("--kind", "alpha16") / 257 - mask).max() <= 1


def test_alpha_is_finished_as_the_flags_say(made) -> None:
    mask = made("-om")
    hard = made("-om", "--threshold", "0.4")
    assert (hard == np.where(mask >= 0.4 * 255, 255, 0)).mean() > 0.99
    assert set(np.unique(hard)) == {0, 255}
    assert (made("-om", "--invert") == 255 - mask).all()
    soft = made("-om", "--threshold", "0.4", "--feather", "2")
    assert len(np.unique(soft)) > 20
    assert np.abs(soft - hard)[hard == 255].max() > 50
    largest = made("-om", "--largest")
    assert (largest <= mask).all()
    assert (largest < mask).any()
    clean = made("-om", "-ppm")
    assert set(np.unique(clean)) == {0, 255}
    assert (clean != np.where(mask >= 128, 255, 0)).any()
    assert (made("-om", "--no-refine") != mask).any()


def test_alpha_matting_holds_what_was_sure_before_refinement(made) -> None:
    refined, before = made("-om"), made("-om", "--no-refine")
    held = made("-om", "-a", "-af", "150", "-ab", "120", "-ae", "0")
    assert (held[before >= 151] == 255).all()
    assert (held[before <= 119] == 0).all()
    unsure = (before > 120) & (before < 149)
    assert unsure.any()
    assert (held[unsure] == refined[unsure]).all()
    assert (held != refined).any()
    less = made("-om", "-a", "-af", "150", "-ab", "120", "-ae", "9")
    assert (less != refined).sum() < (held != refined).sum(), "eroded regions hold less"
    more = made("-om", "-a", "-af", "200", "-ab", "120", "-ae", "0")
    assert (more == 255).sum() < (held == 255).sum()
    assert (made("-om", "-a", "-af", "150", "-ab", "60", "-ae", "0") == 0).sum() < (held == 0).sum()


def test_colours_behind_the_subject(made, gan, tmp_path: Path, photo) -> None:
    rgba, cutout = made(), gan.cutout(tmp_path / "me.png")
    for flags in (("-bgc", "255", "0", "0"), ("-bgc", "255", "0", "0", "255"), ("--background", "red")):
        made_of = made(*flags)
        assert made_of.shape == (48, 64, 3)
        assert (made_of == np.asarray(cutout.on((255, 0, 0)))).all()
    glass = made("-bgc", "0", "0", "255", "128")
    share = rgba[..., 3] / 255
    assert np.abs(glass[..., 3] - 255 * (share + (1 - share) * 128 / 255)).max() <= 1.5
    clear = rgba[..., 3] == 0
    assert clear.any()
    assert (glass[clear] == (0, 0, 255, 128)).all()
    assert (made("--background", "blur") == np.asarray(cutout.on("blur"))).all()
    beach = photo(30, 90, seed=9)
    beach.save(tmp_path / "beach.png")
    assert (made("--background", "beach.png") == np.asarray(cutout.on(beach))).all()
    assert (made("--background", "beach.png", "--no-decontaminate") != made("--background", "beach.png")).any()
    assert (made("--no-decontaminate")[..., 3] == rgba[..., 3]).all()
    assert (made("--no-decontaminate")[..., :3] != rgba[..., :3]).any()


def test_a_photo_comes_out_upright_and_a_transparent_one_on_white(run, gan, tmp_path: Path, photo, capsys) -> None:
    upright = photo(64, 40, seed=2)
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # a quarter turn clockwise shows it upright
    write(tmp_path / "turned.png", upright.transpose(Image.Transpose.ROTATE_90), exif=exif)
    assert run("i", "turned.png", "out.png") == 0
    assert (tmp_path / "out.png").read_bytes() == encode(gan, upright, Options())
    clear = upright.copy()
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    write(tmp_path / "clear.png", clear)
    white = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    assert run("i", "clear.png", "white.png") == 0
    assert (tmp_path / "white.png").read_bytes() == encode(gan, white, Options())
    with pytest.raises(SystemExit):
        run("i", "--help")
    assert "on white" in capsys.readouterr().out


@pytest.mark.parametrize("size", [(5, 4), (16, 17), (1, 1)])
def test_a_photo_may_be_smaller_than_what_the_network_was_trained_on(run, tmp_path: Path, photo, size) -> None:
    write(tmp_path / "small.png", photo(*size))
    for flags in ((), ("-a",), ("--no-refine", "-om")):
        assert run("i", "small.png", *flags, "out.png", "--overwrite") == 0
        assert Image.open(tmp_path / "out.png").size == size


def test_samples_are_encoded_with_their_recipe(gan: HFGan, tmp_path: Path) -> None:
    out = gan.sample(seed=4)
    gan.cutout(out).save(tmp_path / "sample.png")
    assert encode(gan, out, Options()) == (tmp_path / "sample.png").read_bytes()


# ---------------------------------------------------------------- i


def test_where_the_picture_of_i_goes(run, tmp_path: Path, photo, stdin, capsysbinary, monkeypatch) -> None:
    path = write(tmp_path / "in" / "me.too.jpg", photo())
    assert run("i", path) == 0
    data = capsysbinary.readouterr().out
    assert run("i", path, "named.png", "-om", "--overwrite") == 0
    assert capsysbinary.readouterr().out == b"named.png\n"
    stdin(path.read_bytes())
    assert run("i", "-", "-") == 0
    assert capsysbinary.readouterr().out == data
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert run("i", path) == 0
    beside = tmp_path / "in" / "me.too.out.png"
    assert capsysbinary.readouterr().out.decode() == f"{beside}\n"
    assert beside.read_bytes() == data
    assert run("i", path) == 1
    assert b"exists already" in capsysbinary.readouterr().err
    stdin(path.read_bytes())
    for given in (["-"], [], [path, "-"]):
        assert run("i", *given) == 1
        printed = capsysbinary.readouterr()
        assert b"terminal" in printed.err
        assert printed.out == b""


def test_i_writes_over_nothing_unless_asked(run, tmp_path: Path, photo, capsys) -> None:
    write(tmp_path / "me.jpg", photo())
    (tmp_path / "there.png").write_bytes(b"mine")
    assert run("i", "me.jpg", "there.png") == 1
    assert "there.png exists already: choose another name or pass --overwrite" in said(capsys)
    assert (tmp_path / "there.png").read_bytes() == b"mine"
    assert run("i", "me.jpg", "there.png", "--overwrite") == 0
    assert (tmp_path / "there.png").read_bytes() != b"mine"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["missing.jpg", "a.png"], "no file missing.jpg"),
        (["me.jpg", "a.jpg"], "a.jpg does not end in .png"),
        (["me.jpg", "no/a.png"], "no folder no"),
        (["broken.jpg", "a.png"], "broken.jpg: not a picture"),
        (["strip.png", "a.png"], "strip.png: the photo has 400x4"),
        (["-", "a.png"], "standard input: empty file"),
        ([".", "a.png"], "hfgan cutout p . OUT_DIR"),
        (["me.jpg", "a.png", "--threshold", "1"], "threshold"),
        (["me.jpg", "a.png", "--threshold", "nan"], "threshold"),
        (["me.jpg", "a.png", "--feather", "-1"], "feather"),
        (["me.jpg", "a.png", "-bgc", "256", "0", "0"], "bgcolor is (256, 0, 0)"),
        (["me.jpg", "a.png", "-bgc", "1", "0"], "bgcolor is (1, 0)"),
        (["me.jpg", "a.png", "-bgc", "1", "0", "0", "--background", "red"], "give one of them"),
        (["me.jpg", "a.png", "-om", "-bgc", "1", "0", "0"], "go with the kind 'rgba'"),
        (["me.jpg", "a.png", "-om", "--kind", "trimap"], "give one of them"),
        (["me.jpg", "a.png", "--background", "reddish"], "'reddish'"),
        (["me.jpg", "a.png", "--background", "beach.jpg"], "no file beach.jpg"),
        (["me.jpg", "a.png", "--background", "broken.jpg"], "broken.jpg: not a picture"),
        (["me.jpg", "a.png", "-af", "200"], "does nothing without alpha_matting (-a)"),
        (["me.jpg", "a.png", "-a", "-af", "5"], "foreground"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_status_1(
    run, tmp_path, photo, stdin, capsys, arguments, sentence
) -> None:
    write(tmp_path / "me.jpg", photo())
    write(tmp_path / "strip.png", photo(400, 4))
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    stdin(b"")
    assert run("i", *arguments) == 1
    assert sentence in said(capsys)
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["x"],
        ["i", "a", "b", "c"],
        ["i", "--kind", "cutout"],
        ["i", "-bgc", "red"],
        ["i", "-af", "much"],
        ["p", "in"],
        ["p", "in", "out", "--resume", "--overwrite"],
        ["p", "in", "out", "--manifest", "m.csv"],
        ["s", "--port", "99999"],
        ["b", "64"],
        ["b", "64", "high"],
    ],
)
def test_wrong_usage_is_one_line_and_status_2(capsys, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["cutout", *arguments])
    assert stopped.value.code == 2
    assert "--help" in said(capsys)


def test_the_bundled_model_with_matting_is_meant(tmp_path: Path, toy: Path, photo, monkeypatch, capsys) -> None:
    monkeypatch.setattr(parts, "BUNDLED", (tmp_path / "cards",))
    write(tmp_path / "me.jpg", photo())
    call = ["cutout", "i", str(tmp_path / "me.jpg"), str(tmp_path / "out.png"), "--device", "cpu"]
    save_toy(tmp_path / "cards" / cli.FIRST)
    assert cli.main(call) == 1
    assert "this model has no matting" in said(capsys)
    (tmp_path / "cards" / "zebras-16").symlink_to(toy)
    assert cli.main(call) == 0
    assert (tmp_path / "out.png").exists()


# ---------------------------------------------------------------- p


def fill(root: Path, photo) -> None:
    """A folder with two good pictures, one of them in a folder, a broken one and a text."""
    write(root / "in" / "a.jpg", photo(seed=1))
    write(root / "in" / "deep er" / "b.webp", photo(50, 60, seed=2))
    (root / "in" / "broken.png").write_bytes(b"no picture")
    (root / "in" / "notes.txt").write_text("notes")


def test_a_folder_goes_on_after_a_broken_picture_and_tells_of_each(run, gan, tmp_path, photo, capsys) -> None:
    fill(tmp_path, photo)
    assert run("p", "in", "out", "--manifest", "new/all.jsonl") == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines() == ["out/a.png", "out/deep er/b.png"]
    faults = printed.err.splitlines()
    assert "left out 1" in faults[0]
    assert "notes.txt" in faults[0]
    assert faults[1:] == [
        "hfgan cutout: in/broken.png: not a picture: no known format",
        "hfgan cutout: 1 of 3 pictures failed, as said above",
    ]
    assert files(tmp_path / "out") == ["a.png", "deep er/b.png"]
    told = rows(tmp_path / "new" / "all.jsonl")
    mean = cut(gan, tmp_path / "in" / "deep er" / "b.webp", Options()).alpha.mean().item()
    assert told["deep er/b.webp"] == {
        "input": "deep er/b.webp", "output": "deep er/b.png", "width": 50, "height": 60,
        "coverage": pytest.approx(mean, abs=1e-5), "model": gan.name, "matting": gan.matting.fingerprint(),
        "status": "ok", "error": None,
    }  # fmt: skip
    assert (told["broken.png"]["status"], told["broken.png"]["output"]) == ("error", None)
    assert told["broken.png"]["error"] == "not a picture: no known format"
    assert list(told) == ["a.jpg", "broken.png", "deep er/b.webp"]


def test_outputs_are_refused_resumed_or_replaced(run, tmp_path: Path, photo, capsys) -> None:
    fill(tmp_path, photo)
    (tmp_path / "in" / "broken.png").unlink()
    (tmp_path / "in" / "notes.txt").unlink()
    manifest = ("--manifest", "all.jsonl")
    assert run("p", "in", "out", *manifest) == 0
    whole, lines = (tmp_path / "out" / "a.png").read_bytes(), (tmp_path / "all.jsonl").read_text()
    (tmp_path / "out" / "a.png").write_bytes(b"mine")
    write(tmp_path / "in" / "c.png", photo(seed=4))
    capsys.readouterr()
    assert run("p", "in", "out") == 1
    assert "out/a.png and 1 more exist already" in said(capsys)
    assert run("p", "in", "elsewhere", *manifest) == 1
    assert "all.jsonl exists already" in said(capsys)
    assert files(tmp_path / "out") == ["a.png", "deep er/b.png"], "it refuses before it writes"
    assert run("p", "in", "out", "--resume", *manifest) == 0
    assert said(capsys, 2).count("is there already: skipped") == 2
    assert (tmp_path / "out" / "a.png").read_bytes() == b"mine"
    assert (tmp_path / "out" / "c.png").exists()
    assert (tmp_path / "all.jsonl").read_text().startswith(lines)
    assert [row["status"] for row in rows(tmp_path / "all.jsonl").values()] == ["ok", "ok", "ok"]
    assert run("p", "in", "out", "--resume", "--manifest", "other.jsonl") == 0
    assert [row["status"] for row in rows(tmp_path / "other.jsonl").values()] == ["skipped"] * 3
    assert run("p", "in", "out", "--overwrite", *manifest) == 0
    assert (tmp_path / "out" / "a.png").read_bytes() == whole
    assert [row["status"] for row in rows(tmp_path / "all.jsonl").values()] == ["ok", "ok", "ok"]


def test_resume_tries_again_what_failed(run, tmp_path: Path, photo, capsys) -> None:
    fill(tmp_path, photo)
    assert run("p", "in", "out", "--manifest", "all.jsonl") == 1
    write(tmp_path / "in" / "broken.png", photo(seed=7))
    assert run("p", "in", "out", "--manifest", "all.jsonl", "--resume") == 0
    assert {row["status"] for row in rows(tmp_path / "all.jsonl").values()} == {"ok"}
    (tmp_path / "all.jsonl").write_text("{}\n")
    capsys.readouterr()
    assert run("p", "in", "out", "--manifest", "all.jsonl", "--resume") == 1
    assert "line 1 of all.jsonl" in said(capsys)
    assert (tmp_path / "all.jsonl").read_text() == "{}\n"


def test_two_inputs_of_one_output_are_an_error_before_anything_is_written(run, tmp_path, photo, capsys) -> None:
    for name in ("a.jpg", "b.jpg", "b.PNG"):
        write(tmp_path / "in" / name, photo())
    assert run("p", "in", "out") == 1
    sentence = said(capsys)
    assert "b.PNG and b.jpg would both become b.png" in sentence
    assert not (tmp_path / "out").exists()


def test_folders_that_cannot_work_are_refused(run, tmp_path: Path, photo, capsys) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "in" / "in" / "a.jpg", photo())
    for given, sentence in (
        (("empty", "out"), "no pictures in empty"),
        (("missing", "out"), "missing is no folder"),
        (("in", "in/../in"), "one folder"),
        (("in", "in/in/a.jpg"), "is a file"),
        (("in/in", "."), None),
        (("in", "."), "among the pictures"),
    ):
        assert run("p", *given) == (1 if sentence else 0)
        assert sentence is None or sentence in said(capsys)
        capsys.readouterr()


def test_a_folder_of_outputs_inside_is_not_taken_for_pictures(run, tmp_path: Path, photo, capsys) -> None:
    write(tmp_path / "in" / "a.jpg", photo())
    for _ in range(2):
        assert run("p", "in", "in/out", "--overwrite") == 0
    assert files(tmp_path / "in") == ["a.jpg", "out/a.png"]


def test_frames_that_are_left_out_are_told(run, tmp_path: Path, photo, capsys) -> None:
    write(tmp_path / "in" / "a.gif", photo(), save_all=True, append_images=[photo(seed=1)])
    assert run("p", "in", "out") == 0
    assert "in/a.gif: only the first of 2 frames is used" in said(capsys)


def test_watch_takes_what_comes_until_ctrl_c(run, tmp_path: Path, photo, monkeypatch, capsys) -> None:
    monkeypatch.setattr(folder, "POLL", 0.05)
    write(tmp_path / "in" / "a.png", photo(seed=1))

    told: list[str] = []
    monkeypatch.setattr(folder, "say", told.append)

    def wait_for(name: str) -> None:
        end = time.monotonic() + 20
        while name not in told and time.monotonic() < end:
            time.sleep(0.02)

    def user() -> None:
        wait_for("out/a.png")
        (tmp_path / "in" / "bad.png").write_bytes(b"bad")
        write(tmp_path / "in" / "new" / "b.png", photo(seed=2))
        wait_for("out/new/b.png")
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # workers of pytest-xdist ignore it
    thread = threading.Thread(target=user)
    try:
        thread.start()
        assert run("p", "-w", "in", "out", "--manifest", "all.jsonl") == 130
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)
    assert told == ["out/a.png", "out/new/b.png"]
    assert "in/bad.png: not a picture" in said(capsys, 2)
    assert {name: row["status"] for name, row in rows(tmp_path / "all.jsonl").items()} == {
        "a.png": "ok", "bad.png": "error", "new/b.png": "ok"
    }  # fmt: skip


def test_watch_waits_until_a_file_is_whole_and_claims_no_name_twice(run, tmp_path, photo, monkeypatch, capsys) -> None:
    data = write(tmp_path / "whole.png", photo(seed=3)).read_bytes()
    (tmp_path / "in").mkdir()
    there: list[list[str]] = []

    def poll(seconds: float) -> None:
        assert seconds == folder.POLL
        there.append(files(tmp_path / "out") if (tmp_path / "out").exists() else [])
        step = len(there)
        if step == 6:
            raise KeyboardInterrupt
        if step <= 3:
            (tmp_path / "in" / "slow.png").write_bytes(data[: len(data) * step // 3])
        if step == 4:
            write(tmp_path / "in" / "slow.jpg", photo())

    monkeypatch.setattr(folder.time, "sleep", poll)
    assert run("p", "in", "out", "--watch") == 130
    assert there == [[]] * 4 + [["slow.png"]] * 2
    faults = said(capsys, 2)
    assert "slow.png and slow.jpg would both become slow.png" in faults


# ---------------------------------------------------------------- s


def test_a_request_takes_parameters_from_form_and_address(gan, client, photo) -> None:
    buffer = io.BytesIO()
    photo(64, 48, seed=5).save(buffer, "PNG")
    data, post = buffer.getvalue(), client.post
    mask = encode(gan, data, Options(only_mask=True))
    assert post("/api/remove", files={"file": data}, data={"only_mask": "true"}).content == mask
    assert post("/api/remove?om=1", content=data).content == mask
    assert post("/api/remove?only_mask=false", content=data).content == encode(gan, data, Options())
    plain = encode(gan, data, Options(refine=False))
    assert plain != encode(gan, data, Options())
    assert post("/api/remove?refine=no", content=data).content == plain
    assert post("/api/remove?no_refine=yes", content=data).content == plain
    assert post("/api/remove?bgcolor=1,2,3", content=data).content == encode(gan, data, Options(bgcolor=(1, 2, 3)))
    beach = photo(30, 20, seed=8)
    beach.save(image := io.BytesIO(), "PNG")
    answer = post("/api/remove", files={"file": data, "background": image.getvalue()})
    assert answer.content == encode(gan, data, Options(background=beach))
    held = TestClient(server.server(gan, Options(only_mask=True, threshold=0.5)))
    assert held.post("/api/remove", content=data).content == encode(gan, data, Options(only_mask=True, threshold=0.5))
    page = client.get("/")
    assert "curl -F file=@photo.jpg http://testserver/api/remove" in page.text
    assert all(flag.name in page.text for flag in FLAGS)


def test_bad_requests_are_one_sentence(client, photo, bomb, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    photo().save(buffer, "PNG")
    data, secret = buffer.getvalue(), write(tmp_path / "secret.png", photo())
    for how, sentence in (
        ({"content": b""}, "no picture"),
        ({"data": {"file": "text"}, "files": {"other": b"x"}}, "no picture"),
        ({"content": b"no picture"}, "not a picture"),
        ({"content": bomb}, "too many pixels"),
        ({"content": data, "params": {"url": "http://localhost/a.png"}}, "no parameter 'url'"),
        ({"content": data, "params": {"threshold": "2"}}, "threshold"),
        ({"content": data, "params": {"threshold": "half"}}, "threshold is 'half': expected a number"),
        ({"content": data, "params": {"only_mask": "perhaps"}}, "expected true or false"),
        ({"content": data, "params": {"bgcolor": "red"}}, "bgcolor is 'red'"),
        ({"content": data, "params": {"kind": "nothing"}}, "'nothing'"),
        ({"content": data, "params": {"no_kind": "mask"}}, "no parameter 'no_kind'"),
        ({"content": data, "params": {"kind": ["mask", "rgba"]}}, "kind is given more than once"),
        ({"content": data, "params": {"om": "1", "only_mask": "1"}}, "only_mask is given twice"),
        ({"files": {"file": data, "threshold": b"0.5"}}, "threshold is a file"),
        ({"content": data, "params": {"background": str(secret)}}, "secret.png"),
    ):
        answer = client.post("/api/remove", **how)
        assert answer.status_code == 400, (sentence, answer.text)
        assert sentence in answer.json()["detail"]
    answer = client.post("/api/remove", content=bytes(server.MAX_UPLOAD + 1))
    assert (answer.status_code, answer.json()["detail"]) == (413, "more than 20 MB: send a smaller file")
    assert client.get("/api/remove", params={"url": "http://localhost/a.png"}).status_code == 405


def test_a_port_in_use_is_said(run, capsys) -> None:
    with server.socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run("s", "--port", port) == 1
    assert f"cannot listen on 127.0.0.1, port {port}: Address already in use\n" in said(capsys)


# ---------------------------------------------------------------- b


def test_frames_leave_as_they_came_one_by_one(run, gan, photo, stdin, capsysbinary) -> None:
    frames = [photo(24, 20, seed=seed) for seed in (1, 2)]
    raw = b"".join(frame.tobytes() for frame in frames)
    for flags, options in (
        ((), Options()),
        (("-om",), Options(only_mask=True)),
        (("-bgc", "1", "2", "3"), Options(bgcolor=(1, 2, 3))),
        (("-a", "-af", "150", "-ab", "99"), Options(alpha_matting=True, alpha_matting_foreground_threshold=150,
                                                    alpha_matting_background_threshold=99)),
    ):  # fmt: skip
        stdin(raw)
        assert run("b", "24", "20", *flags) == 0
        expected = b"".join(draw(cut(gan, frame, options), options).tobytes() for frame in frames)
        assert capsysbinary.readouterr().out == expected
    assert len(expected) == 2 * 24 * 20 * 4


def test_frames_as_numbered_files_with_smooth_alpha(run, gan, tmp_path: Path, photo, stdin, capsys) -> None:
    frames = [photo(24, 20, seed=seed) for seed in (1, 2, 3)]
    raw = b"".join(frame.tobytes() for frame in frames)
    stdin(raw)
    assert run("b", "24", "20", "-o", "new/out-%03d.png", "-om", "--smooth", "0.75") == 0
    assert capsys.readouterr().out.splitlines() == [f"new/out-00{number}.png" for number in range(3)]
    alpha = [cut(gan, frame, Options()).alpha for frame in frames]
    held = alpha[0]
    for number, one in enumerate(alpha):
        held = 0.75 * held + 0.25 * one
        found = torch.from_numpy(pixels(tmp_path / "new" / f"out-00{number}.png"))
        assert (found - held * 255).abs().max() <= 0.51
    stdin(raw)
    assert run("b", "24", "20", "-o", "new/out-%03d.png") == 1
    assert "new/out-000.png exists already" in said(capsys)
    stdin(raw)
    assert run("b", "24", "20", "-o", "new/out-%03d.png", "--overwrite") == 0
    assert (tmp_path / "new" / "out-002.png").read_bytes() == encode(gan, frames[2], Options())


@pytest.mark.parametrize(
    ("arguments", "data", "sentence"),
    [
        (["4", "4"], b"", "no frame was sent"),
        (["4", "4", "-o", "f%d.png"], bytes(50), "ends 2 bytes into frame 1, of 48"),
        (["0", "4"], b"", "0 x 4 is no size"),
        (["99999", "99999"], b"", "is no size"),
        (["4", "4", "--smooth", "1"], b"", "smooth is 1.0"),
        (["4", "4", "--smooth", "nan"], b"", "smooth is nan"),
        (["4", "4", "-o", "out.png"], b"", "no name with a number"),
        (["4", "4", "-o", "a%d%d.png"], b"", "no name with a number"),
        (["4", "4", "-o", "a%s.png"], b"", "no name with a number"),
        (["4", "4", "-o", "a%d.jpg"], b"", "no name with a number"),
        (["4", "4", "-o", "a%d/b.png"], b"", "no name with a number"),
    ],
)
def test_frames_that_cannot_be_are_one_sentence(run, stdin, capsys, tmp_path, arguments, data, sentence) -> None:
    stdin(data)
    assert run("b", *arguments) == 1
    assert sentence in said(capsys)
    assert files(tmp_path) == (["f0.png"] if "f%d.png" in arguments else [])


# ---------------------------------------------------------------- help


def test_help_loads_nothing_heavy() -> None:
    code = "import sys; from hfgan.cli import main\ntry: main(['cutout', 'i', '--help'])\nexcept SystemExit: pass\n"
    code += "print([name for name in ('torch', 'numpy', 'PIL', 'fastapi', 'diffusers') if name in sys.modules])"
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert printed.splitlines()[-1] == "[]"
    for wanted in ("-om", "-ppm", "-bgc R G B [A]", "-af 0-255", "--no-refine"):
        assert wanted in printed
