"""The command line: what it writes, what it refuses and how, and that help comes at once."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy import save_toy

from hfgan import HFGan, cli, images, parts
from hfgan.captions import caption, file_name, spans

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy(tmp_path_factory.mktemp("models") / "toy-16")


@pytest.fixture
def sample(toy: Path, tmp_path: Path):
    """Run `hfgan sample` with the toy in fp32 into tmp_path/out; returns the exit status."""

    def run(*arguments: object) -> int:
        fixed = ["sample", "--model", toy, "--dtype", "float32", "--out", tmp_path / "out"]
        return cli.main([str(argument) for argument in (*fixed, *arguments)])

    return run


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr."""
    said = capsys.readouterr().err.rstrip("\n")
    assert said
    assert "\n" not in said
    assert "Traceback" not in said
    return said


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


# ---------------------------------------------------------------- sample


def test_sample_writes_a_picture_and_its_recipe_per_seed(sample, toy: Path, tmp_path: Path, capsys) -> None:
    grid = tmp_path / "sheets" / "grid.png"
    assert sample("--seeds", "0-2,42", "--psi", "0.5", "--grid", grid) == 0
    names = ["seed0000.png", "seed0001.png", "seed0002.png", "seed0042.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    printed = capsys.readouterr().out.splitlines()
    assert printed == [str(tmp_path / "out" / name) for name in names] + [str(grid)]
    recipe = images.read_recipe(tmp_path / "out" / "seed0042.png")
    assert (recipe["seed"], recipe["truncation_psi"], recipe["model"]) == (42, 0.5, "toy-16")
    expected = HFGan.from_pretrained(toy, dtype="float32").sample(seeds=[42], truncation_psi=0.5).images[0]
    assert abs(pixels(tmp_path / "out" / "seed0042.png") - np.asarray(expected).astype(int)).max() <= 1
    assert Image.open(grid).size == (32, 32)


def test_sample_passes_every_flag_on(tmp_path: Path) -> None:
    toy = save_toy(tmp_path / "classes", c_dim=3)
    flags = [
        "--seeds",
        "4",
        "--psi",
        "1.2",
        "--cutoff",
        "2",
        "--label",
        "1",
        "--noise",
        "random",
        "--dtype",
        "bfloat16",
    ]
    assert cli.main(["sample", "--model", str(toy), "--out", str(tmp_path), *flags]) == 0
    recipe = images.read_recipe(tmp_path / "seed0004.png")
    wanted = {"seed": 4, "truncation_psi": 1.2, "truncation_cutoff": 2, "label": 1, "noise_mode": "random"}
    assert wanted.items() <= recipe.items()
    assert recipe["dtype"] == "bfloat16"


def test_sample_from_modes(sample, tmp_path: Path, capsys) -> None:
    modal = save_toy(tmp_path / "modal", num_modes=3)
    model = ("--model", modal)
    assert sample(*model, "--seeds", "4,5", "--mode", "2", "--psi", "0.4,0.9") == 0
    recipe = images.read_recipe(tmp_path / "out" / "seed0005-mode2.png")
    assert (recipe["mode"], recipe["truncation_psi"]) == (2, [0.4, 0.9])
    assert sample(*model, "--seeds", "4,5", "--mode", "2") == 1
    assert "seed0004-mode2.png and 1 more exist already" in error_of(capsys)
    flags = ("--seeds", "6", "--truncation", "multimodal", "--assignment", "perceptual")
    assert sample(*model, *flags) == 0
    (path,) = (tmp_path / "out").glob("seed0006-mode?.png")
    before = path.read_bytes()
    capsys.readouterr()
    assert sample(*model, *flags, "--psi", "0") == 1
    assert f"{path.name} exists already" in error_of(capsys)
    assert path.read_bytes() == before
    assert sample(*model, "--replay", path, "--out", tmp_path / "again") == 0
    assert (pixels(tmp_path / "again" / path.name) == pixels(path)).all()
    assert sample(*model, "--seeds", "6", "--truncation", "none", "--mode", "random", "--out", tmp_path / "free") == 0
    assert sample(*model, "--walk", "1,2", "--mode", "nearest", "--steps", "2", "--animation", tmp_path / "w.gif") == 0


@pytest.mark.parametrize("how", [("--mode", "random"), ("--mode", "nearest"), ("--truncation", "multimodal")])
def test_names_that_only_drawing_tells_are_free_before_anything_is_written(sample, tmp_path, capsys, how) -> None:
    flags = ("--model", save_toy(tmp_path / "modal", num_modes=3), *how, "--seeds")
    last = 2 * cli.BATCH
    assert sample(*flags, f"{last}") == 0
    (path,) = (tmp_path / "out").iterdir()
    before = path.read_bytes()
    other = path.with_name("seed0000-mode9.png")  # no such mode, so nothing of that name will come
    other.touch()
    capsys.readouterr()
    assert sample(*flags, f"0-{last}") == 1
    assert error_of(capsys).endswith(f"{path.name} exists already: choose another place or pass --overwrite")
    assert sorted((tmp_path / "out").iterdir()) == [other, path]
    assert sample(*flags, f"{last}", "--psi", "0", "--overwrite") == 0
    assert path.read_bytes() != before
    assert sample(*flags, "0,1") == 0


def test_mix_and_replay(sample, tmp_path: Path) -> None:
    assert sample("--seeds", "1", "--mix", "2:0-3", "--mix", "3:5") == 0
    assert sample("--seeds", "1", "--mix", "2:0-3") == 0
    mixed = tmp_path / "out" / "seed0001-mixed2.png"
    assert (tmp_path / "out" / "seed0001-mix0002_0-3.png").exists()
    assert sample("--replay", mixed, "--out", tmp_path / "again") == 0
    again = tmp_path / "again" / mixed.name
    assert (pixels(again) == pixels(mixed)).all()
    assert images.read_recipe(again) == images.read_recipe(mixed)


def test_nothing_is_overwritten_unless_asked(sample, tmp_path: Path, capsys) -> None:
    assert sample("--seeds", "5,6") == 0
    first = (tmp_path / "out" / "seed0005.png").read_bytes()
    (tmp_path / "out" / "seed0006.png").unlink()
    assert sample("--seeds", "5,6", "--psi", "1") == 1
    assert "seed0005.png exists already" in error_of(capsys)
    assert not (tmp_path / "out" / "seed0006.png").exists(), "it refuses before it draws"
    assert (tmp_path / "out" / "seed0005.png").read_bytes() == first
    assert sample("--seeds", "5,6", "--psi", "1", "--overwrite") == 0
    assert (tmp_path / "out" / "seed0005.png").read_bytes() != first


def test_walk_is_an_animation_back_to_its_start(sample, tmp_path: Path) -> None:
    path = tmp_path / "new" / "walk.gif"
    assert sample("--walk", "1,2,9", "--steps", "4", "--animation", path) == 0
    assert Image.open(path).n_frames == 12
    assert not (tmp_path / "out").exists()


def test_more_seeds_than_a_batch(sample, tmp_path: Path) -> None:
    assert sample("--seeds", f"0-{cli.BATCH}") == 0
    assert len(list((tmp_path / "out").iterdir())) == cli.BATCH + 1


def test_sample_finds_the_bundled_model_and_replays_with_it(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(parts, "BUNDLED", (tmp_path / "cards",))
    out = str(tmp_path / "out")
    assert cli.main(["sample", "--out", out]) == 1
    assert "train.py generator" in error_of(capsys)
    assert cli.main(["app"]) == 1
    assert "train.py generator" in error_of(capsys)
    save_toy(tmp_path / "cards" / "abc-16", seed=1)
    save_toy(tmp_path / "cards" / cli.FIRST)
    assert cli.main(["sample", "--out", out, "--seeds", "3"]) == 0
    picture = Path(out) / "seed0003.png"
    assert images.read_recipe(picture)["model"] == cli.FIRST
    assert cli.main(["sample", "--replay", str(picture), "--out", out, "--overwrite"]) == 0
    save_toy(tmp_path / "cards" / cli.FIRST, seed=2)
    assert cli.main(["sample", "--replay", str(picture), "--out", out, "--overwrite"]) == 1
    assert "load the model that drew it" in error_of(capsys)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seeds", "3-1"],
        ["--seeds", "1,,2"],
        ["--seeds", "-1"],
        ["--seeds", "0-4294967295"],
        ["--psi", "much"],
        ["--psi", "0.1,0.2,0.3"],
        ["--mode", "-1"],
        ["--mode", "some"],
        ["--truncation", "local"],
        ["--noise", "loud"],
        ["--mix", "4-7"],
        ["--seeds", "1", "--walk", "1,2"],
        ["--walk", "1,2", "--animation", "a.mp4"],
        ["--grid", "grid.jpg"],
        ["--nothing"],
    ],
)
def test_wrong_usage_is_one_line_and_status_2(sample, arguments: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        sample(*arguments)
    assert stopped.value.code == 2
    assert "--help" in error_of(capsys)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--psi", "nan"], "truncation_psi is nan"),
        (["--seeds", "4294967296"], "seed is 4294967296"),
        (["--mix", "1:0-99"], "within 0-5"),
        (["--mix", "1:a"], "layers is 'a'"),
        (["--label", "1"], "no classes"),
        (["--cutoff", "7"], "truncation_cutoff is 7"),
        (["--mode", "1"], "train.py modes"),
        (["--truncation", "none", "--psi", "nan"], "truncation_psi is nan"),
        (["--assignment", "l2"], "no nearest mode is sought"),
        (["--walk", "1,2"], "--walk and --animation go together"),
        (["--animation", "a.gif"], "--walk and --animation go together"),
        (["--walk", "1,2", "--animation", "a.gif", "--mix", "1:2"], "--walk goes without --mix"),
        (["--replay", "missing.png"], "missing.png"),
        (["--model", "missing/model"], "missing/model"),
        (["--device", "teapot"], "teapot"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_status_1(
    sample, arguments, said, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sample(*arguments) == 1
    assert said in error_of(capsys)


def test_replay_refuses_what_carries_no_recipe_and_unknown_models(
    sample, toy: Path, tmp_path: Path, photo, capsys
) -> None:
    photo().save(tmp_path / "photo.png")
    assert sample("--replay", tmp_path / "photo.png") == 1
    assert "no recipe" in error_of(capsys)
    assert sample("--seeds", "1") == 0
    capsys.readouterr()
    assert cli.main(["sample", "--replay", str(tmp_path / "out" / "seed0001.png")]) == 1
    assert "--model" in error_of(capsys), "a name in a file is not reason enough to download a model"


# ---------------------------------------------------------------- info, evaluate, help


def test_info_of_a_model(toy: Path, capsys) -> None:
    assert cli.main(["info", str(toy)]) == 0
    said = capsys.readouterr().out
    fingerprint = HFGan.from_pretrained(toy).generator.fingerprint()
    for wanted in ("toy-16: 16 x 16", "StyleGAN2Generator", "M parameters", "MB", fingerprint, "not stated"):
        assert wanted in said
    (toy / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Toy\n")
    assert cli.main(["info", str(toy)]) == 0
    assert "apache-2.0" in capsys.readouterr().out


def test_info_counts_the_modes(tmp_path: Path, capsys) -> None:
    toy = save_toy(tmp_path / "modal", num_modes=3)
    assert cli.main(["info", str(toy)]) == 0
    counts = HFGan.from_pretrained(toy).modes.counts
    said = capsys.readouterr().out
    assert f"3 modes found in w, with {counts.max()} to {counts.min()} of 200 samples" in said
    assert "ModeBank" in said


def test_info_of_a_picture_escapes_what_a_stranger_wrote(tmp_path: Path, photo, capsys) -> None:
    path = tmp_path / "picture.png"
    images.save_png(photo(), path, {"model": "evil\x1b[31m\nname", "seed": 7})
    assert cli.main(["info", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["model", '"evil\\u001b[31m\\nname"']
    assert lines[1].split() == ["seed", "7"]


def test_evaluate_runs_the_stage_or_says_where_it_is(tmp_path: Path, monkeypatch, capsys) -> None:
    ran = []
    monkeypatch.setattr(cli.subprocess, "call", lambda command: ran.append(command) or 3)
    assert cli.main(["evaluate", "--model", "x"]) == 3
    assert ran == [[sys.executable, str(ROOT / "training" / "train.py"), "evaluate", "--model", "x"]]
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "hfgan" / "cli.py"))
    assert cli.main(["evaluate"]) == 1
    assert "in a checkout" in error_of(capsys)


def test_help_comes_at_once_and_loads_nothing_heavy() -> None:
    code = "import sys; from hfgan.cli import main\ntry: main(['sample', '--help'])\nexcept SystemExit: pass\n"
    code += "print([name for name in ('torch', 'numpy', 'PIL', 'diffusers', 'gradio') if name in sys.modules])"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert printed.splitlines()[-1] == "[]"
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert spent < 0.5, f"{spent:.2f} s of processor time"


def test_the_app_is_served_with_its_flags_or_variables(tmp_path: Path, monkeypatch, capsys) -> None:
    seen = {}
    monkeypatch.setattr("hfgan.app.serve", lambda names, **how: seen.update(how, names=names))
    monkeypatch.setenv("HFGAN_PHOTOS", "space-photos.zip")
    flags = ["--model", "one", "two", "--host", "::", "--port", "7999", "--share=false", "--photos-licence", "CC0"]
    assert cli.main(["app", *flags, "--counters", str(tmp_path / "counts.json")]) == 0
    assert seen == {"names": ["one", "two"], "host": "::", "port": 7999, "share": False, "photos": "space-photos.zip",
                    "licence": "CC0", "counters": tmp_path / "counts.json"}  # fmt: skip
    assert cli.main(["app", "--model", "one", "--share"]) == 0
    assert seen["share"] is True
    monkeypatch.undo()
    with pytest.raises(SystemExit):
        cli.main(["app", "--share", "maybe"])
    assert "'maybe' is neither true nor false" in capsys.readouterr().err
    for given, said in ((["--photos", str(tmp_path / "none")], "none"),
                        (["--counters", str(tmp_path / "no" / "c.json")], "create it first")):  # fmt: skip
        assert cli.main(["app", "--model", "one", *given]) == 1
        assert said in error_of(capsys)


def test_app_py_is_the_app_command() -> None:
    printed = subprocess.check_output([sys.executable, "app.py", "--help"], cwd=ROOT, text=True)
    assert "--port" in printed
    assert "--share" in printed


# ---------------------------------------------------------------- captions


def test_captions_and_names() -> None:
    plain = {
        "seed": 7,
        "truncation_psi": 0.7,
        "truncation_cutoff": None,
        "label": None,
        "mode": None,
        "noise_mode": "const",
        "mix": [],
    }
    assert (file_name(plain), caption(plain)) == ("seed0007.png", "seed 7 · psi 0.7")
    modal = plain | {"mode": 12, "truncation_psi": [0.4, 0.9]}
    assert (file_name(modal), caption(modal)) == ("seed0007-mode12.png", "seed 7 · mode 12 · psi 0.4/0.9")
    step = {"layers": [4, 5, 7], "seed": 123456}
    full = plain | {"truncation_cutoff": 3, "label": 0, "noise_mode": "none", "mix": [step]}
    assert file_name(full) == "seed0007-mix123456_4-5,7.png"
    assert caption(full) == "seed 7 · psi 0.7 · on 3 layers · class 0 · noise none · layers 4-5,7 of seed 123456"
    assert file_name(modal | {"mix": [step]}) == "seed0007-mode12-mix123456_4-5,7.png"
    assert file_name(plain | {"mix": [step] * 5}) == "seed0007-mixed5.png"
    assert spans([3, 0, 1, 9]) == "0-1,3,9"
