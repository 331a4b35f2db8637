"""Pairs as a data set: the same bytes however it was made, readable by `datasets` and COCO, nothing overwritten."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from test_cli import error_of
from toy import save_toy

from hfgan import HFGan, cli, images, pairs, parts
from hfgan.coco import bounding_box, encode_mask
from hfgan.pairs import Tally, export_pairs, measure
from hfgan.sampling import MAX_SEED

HOW = {"seed": 3, "coverage": (0.3, 0.75), "min_confidence": 0.6, "category": "face", "batch_size": 8}
NUM = 20

KILLED = """
import os, signal, sys, torch
torch.set_num_threads(1)
from hfgan import HFGan, pairs
calls, save = [], pairs.save_png
def save_and_die(pil, path, *rest, **options):
    calls.append(path)
    if len(calls) == 32:  # of 60: the mask of the eleventh pair
        path.with_name(f".{path.name}.0123abcd.tmp").write_bytes(b"torn")
        os.kill(os.getpid(), signal.SIGKILL)
    save(pil, path, *rest, **options)
pairs.save_png = save_and_die
gan = HFGan.from_pretrained(sys.argv[1], dtype="float32")
pairs.export_pairs(gan, sys.argv[2], 20, **eval(sys.argv[3]))
"""


def load(folder: Path) -> HFGan:
    """A model that says nothing of its progress."""
    gan = HFGan.from_pretrained(folder, dtype="float32")
    gan.set_progress_bar_config(disable=True)
    return gan


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy(tmp_path_factory.mktemp("models") / "toy-16", alpha=True)


@pytest.fixture(scope="module")
def gan(toy: Path) -> HFGan:
    return load(toy)


@pytest.fixture(scope="module")
def whole(gan: HFGan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export that was never interrupted."""
    folder = tmp_path_factory.mktemp("exports") / "whole"
    export_pairs(gan, folder, NUM, **HOW)
    return folder


@pytest.fixture
def made(whole: Path, tmp_path: Path) -> Path:
    """A copy of `whole` to spoil."""
    for name, data in contents(whole).items():
        path = tmp_path / "made" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "made"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(folder: Path, name: str = "metadata.jsonl") -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def drawn_seeds(gan: HFGan, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds that are drawn from now on."""
    seen, sample = [], gan.sample

    def watch(*args: object, **options: object) -> object:
        seen.extend(options["seeds"])
        return sample(*args, **options)

    monkeypatch.setattr(gan, "sample", watch, raising=False)
    return seen


# ---------------------------------------------------------------- what is written


def test_every_file_says_what_it_should(gan: HFGan, whole: Path) -> None:
    kept, left = rows(whole), rows(whole, "left_out.jsonl")
    assert [row["seed"] for row in kept] == sorted(row["seed"] for row in kept)
    assert sorted(row["seed"] for row in kept + left) == list(range(3, kept[-1]["seed"] + 1)), "no seed is skipped"
    assert {row["reason"] for row in left} == {"coverage", "confidence"}
    names = {row[key] for row in kept for key in pairs.FOLDERS}
    assert names == {name for name in contents(whole) if name.endswith(".png")}
    assert len(names) == 3 * NUM == 3 * len(kept)
    for row in kept:
        assert row["file_name"] == f"images/seed{row['seed']:04d}.png"
        image, hard, soft = (Image.open(whole / row[key]) for key in pairs.FOLDERS)
        assert (image.mode, hard.mode, soft.mode) == ("RGB", "L", "I;16")
        mask, coverage, confidence = measure(np.asarray(soft))
        assert set(np.unique(hard)) <= {0, 255}
        assert ((np.asarray(hard) == 255) == (np.asarray(soft) >= 32768)).all()
        assert ((np.asarray(hard) == 255) == mask).all()
        assert (row["coverage"], row["confidence"]) == (coverage, confidence)
        assert 0.3 <= coverage <= 0.75
        assert confidence >= 0.6
        assert (row["truncation_psi"], row["mode"]) == (0.7, None)
        assert row["generator_fingerprint"] == gan.generator.fingerprint()
        assert row["alpha_fingerprint"] == gan.alpha.fingerprint()
    for row in left:
        outside = not 0.3 <= row["coverage"] <= 0.75
        assert row["reason"] == ("coverage" if outside else "confidence")
        assert outside or row["confidence"] < 0.6
    cut = gan.cutout(gan.replay(whole / kept[0]["file_name"]))
    assert abs(np.asarray(cut.image).astype(int) - np.asarray(Image.open(whole / kept[0]["file_name"]))).max() <= 1
    soft = np.asarray(Image.open(whole / kept[0]["alpha_file_name"])).astype(int)
    assert abs(np.asarray(cut.alpha16()).astype(int) - soft).max() < 655  # one level of colour moves a refined edge


def test_measure() -> None:
    alpha = np.zeros((4, 4), np.uint16)
    assert measure(alpha)[1:] == (0, 0)
    alpha[:2] = 65535
    mask, coverage, confidence = measure(alpha)
    assert mask.dtype == bool
    assert (mask.sum(), coverage, confidence) == (8, 0.5, 1)
    alpha[2] = 32767  # beside the mask
    assert measure(alpha)[1:] == (0.5, round(16 / (16 + 4 * 32767 / 65535), 6))
    alpha[:] = 32768
    assert measure(alpha)[1:] == (1, round(2 * 32768 / (32768 + 65535), 6))


def test_the_card_says_where_it_comes_from(gan: HFGan, whole: Path) -> None:
    text, left = (whole / "README.md").read_text(), rows(whole, "left_out.jsonl")
    assert text.startswith("---\nlicense: unknown\ntask_categories:\n- image-segmentation\n")
    for wanted in (
        "synthetic",
        "machine-made",
        "toy-16",
        gan.generator.fingerprint(),
        gan.alpha.fingerprint(),
        "hfgan dataset --model toy-16 --num 20 --seed 3",
        "no card of the model states a licence",
        f"20 pairs from the seeds 3 to {rows(whole)[-1]['seed']}",
        f"{len(left)} of {len(left) + 20}",
    ):
        assert wanted in text
    assert str(whole) not in text


# ---------------------------------------------------------------- the same bytes, however it was made


def test_two_runs_are_equal(gan: HFGan, whole: Path, tmp_path: Path) -> None:
    reasons = [row["reason"] for row in rows(whole, "left_out.jsonl")]
    tally = export_pairs(gan, tmp_path / "deep" / "again", NUM, **HOW)
    assert tally == Tally(NUM, reasons.count("coverage"), reasons.count("confidence"))
    assert contents(tmp_path / "deep" / "again") == contents(whole)


def test_a_finished_export_is_left_alone(gan: HFGan, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, before = drawn_seeds(gan, monkeypatch), {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    assert export_pairs(gan, made, NUM, **HOW).kept == NUM
    assert not seen
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before


def cut_lines(made: Path, name: str, count: int) -> None:
    lines = (made / name).read_bytes().splitlines(keepends=True)
    (made / name).write_bytes(b"".join(lines[:-count]) + lines[-count][:30])  # the last one is torn


SPOIL: dict[str, Callable[[Path], object]] = {
    "lines": lambda made: cut_lines(made, "metadata.jsonl", 4),
    "left out": lambda made: cut_lines(made, "left_out.jsonl", 1),
    "both lists": lambda made: [(made / name).unlink() for name in ("metadata.jsonl", "left_out.jsonl")],
    "mask": lambda made: (made / rows(made)[7]["mask_file_name"]).unlink(),
    "folder": lambda made: [path.unlink() for path in (made / "alpha").iterdir()] and (made / "alpha").rmdir(),
    "descriptions": lambda made: [(made / name).unlink() for name in ("coco.json", "README.md")],
    "damaged line": lambda made: (made / "metadata.jsonl").write_text(
        (made / "metadata.jsonl").read_text().replace('"seed": ', '"seed": "x', 1)
    ),
}


@pytest.mark.parametrize("how", SPOIL)
def test_what_is_missing_is_made_again(gan: HFGan, made: Path, whole: Path, how: str) -> None:
    SPOIL[how](made)
    assert contents(made) != contents(whole)
    export_pairs(gan, made, NUM, **HOW)
    assert contents(made) == contents(whole)


def test_only_the_batch_of_what_is_missing_is_drawn(gan: HFGan, made: Path, whole: Path, monkeypatch) -> None:
    seen = drawn_seeds(gan, monkeypatch)
    row = rows(made)[7]
    (made / row["mask_file_name"]).unlink()
    export_pairs(gan, made, NUM, **HOW)
    first = row["seed"] - (row["seed"] - 3) % 8
    assert seen == list(range(first, first + 8))
    assert contents(made) == contents(whole)


def test_a_killed_export_goes_on(gan: HFGan, toy: Path, whole: Path, tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "killed"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(toy), str(folder), repr(HOW)], capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(rows(folder)) == 10
    assert not (folder / "coco.json").exists()
    seen = drawn_seeds(gan, monkeypatch)
    export_pairs(gan, folder, NUM, **HOW)
    assert contents(folder) == contents(whole)
    assert min(seen) > rows(folder)[9]["seed"] - 8, "what was finished is not drawn again"


def test_it_grows_and_never_shrinks(gan: HFGan, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "grown"
    for num in (1, 7, NUM):
        export_pairs(gan, folder, num, **HOW)
        assert len(rows(folder)) == len(json.loads((folder / "coco.json").read_text())["images"]) == num
        assert f"--num {num} " in (folder / "README.md").read_text()
    assert contents(folder) == contents(whole)
    with pytest.raises(ValueError, match="holds 20 pairs and num is 19"):
        export_pairs(gan, folder, NUM - 1, **HOW)
    assert contents(folder) == contents(whole)


def test_an_edited_card_stays(gan: HFGan, made: Path, caplog) -> None:
    (made / "README.md").write_text("mine\n")
    export_pairs(gan, made, NUM + 1, **HOW)
    assert (made / "README.md").read_text() == "mine\n"
    assert "README.md stays as it is" in caplog.text
    assert len(rows(made)) == NUM + 1


# ---------------------------------------------------------------- who reads it


@pytest.mark.parametrize("how", ["imagefolder", "folder"])
def test_datasets_reads_it(whole: Path, tmp_path: Path, how: str) -> None:
    datasets.disable_progress_bars()
    source = {"path": "imagefolder", "data_dir": str(whole)} if how == "imagefolder" else {"path": str(whole)}
    found = datasets.load_dataset(**source, split="train", cache_dir=str(tmp_path))
    assert len(found) == NUM, "masks and alpha are no examples of their own"
    assert {"image", "mask", "alpha", "seed", "coverage", "confidence", "mode"} <= set(found.column_names)
    for example, row in zip(found, rows(whole), strict=True):
        assert example["seed"] == row["seed"]
        for column, key in zip(("image", "mask", "alpha"), pairs.FOLDERS, strict=True):
            stored = Image.open(whole / row[key])
            assert example[column].mode == stored.mode
            assert (np.asarray(example[column]) == np.asarray(stored)).all()


def test_coco_reads_it(whole: Path, capsys) -> None:
    coco = COCO(str(whole / "coco.json"))
    kept = rows(whole)
    assert [one["file_name"] for one in coco.loadImgs(coco.getImgIds())] == [row["file_name"] for row in kept]
    assert [one["name"] for one in coco.loadCats(coco.getCatIds())] == ["face"]
    for number, row in enumerate(kept, start=1):
        (found,) = coco.loadAnns(coco.getAnnIds(imgIds=[number]))
        mask = np.asarray(Image.open(whole / row["mask_file_name"])) == 255
        assert (coco.annToMask(found).astype(bool) == mask).all()
        assert found["area"] == mask.sum() == coco_mask.area(found["segmentation"])
        assert found["bbox"] == coco_mask.toBbox(found["segmentation"]).tolist()
        assert found["iscrowd"] == 0


def test_run_lengths_are_those_of_pycocotools() -> None:
    source = np.random.default_rng(0)
    for density in (0, 0.01, 0.3, 0.9, 1) * 20:
        height, width = source.integers(1, 9, 2)
        scale = source.integers(1, 60)  # runs of more than 31, and differences of either sign
        mask = np.kron(source.random((height, width)) < density, np.ones((scale, scale), bool)).astype(bool)
        theirs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert encode_mask(mask) == {"size": list(mask.shape), "counts": theirs["counts"].decode()}
        if mask.any():
            assert bounding_box(mask) == coco_mask.toBbox(theirs).tolist()
    with pytest.raises(ValueError, match=r"expected bool \(h, w\)"):
        encode_mask(np.zeros((2, 2), np.uint8))


def test_an_empty_mask_is_a_picture_without_annotation(tmp_path: Path) -> None:
    folder = save_toy(tmp_path / "empty-16", alpha=True)
    gan = load(folder)
    gan.alpha.out.weight.data.zero_()
    for layer in [gan.alpha.out, *gan.alpha.taps.values()]:
        layer.bias.data.fill_(-9)
    export_pairs(gan, tmp_path / "out", 2, coverage=(0, 1))
    found = json.loads((tmp_path / "out" / "coco.json").read_text())
    assert (len(found["images"]), found["annotations"]) == (2, [])
    assert {(row["coverage"], row["confidence"]) for row in rows(tmp_path / "out")} == {(0, 0)}


# ---------------------------------------------------------------- modes, classes, licences


def test_modes_and_classes_are_told(tmp_path: Path) -> None:
    modal = load(save_toy(tmp_path / "modal", alpha=True, num_modes=3))
    export_pairs(modal, tmp_path / "a", 4, truncation="multimodal", truncation_psi=(0.4, 0.9), coverage=(0, 1))
    for row in rows(tmp_path / "a"):
        assert row["mode"] in range(3)
        assert row["truncation_psi"] == [0.4, 0.9]
        assert row["file_name"] == f"images/seed{row['seed']:04d}-mode{row['mode']}.png"
        assert images.read_recipe(tmp_path / "a" / row["file_name"])["mode"] == row["mode"]
    assert "--psi 0.4,0.9 --truncation multimodal" in (tmp_path / "a" / "README.md").read_text()
    classes = load(save_toy(tmp_path / "classes", alpha=True, c_dim=3))
    with pytest.raises(ValueError, match="classes 0 to 2"):
        export_pairs(classes, tmp_path / "b", 4)
    assert not (tmp_path / "b").exists()
    export_pairs(classes, tmp_path / "b", 4, label=2, coverage=(0, 1))
    assert [row["label"] for row in rows(tmp_path / "b")] == [2] * 4


@pytest.mark.parametrize(
    ("front", "line", "said"),
    [
        ("license: cc-by-4.0", "license: cc-by-4.0", "states: cc-by-4.0."),
        ("license: other\nlicense_name: mine\nlicense_link: LICENSE", "license_name: mine", "states: mine (LICENSE)."),
        ("tags: [gan]", "license: unknown", "Unknown: no card"),
    ],
)
def test_the_licence_is_that_of_the_models_card(gan, tmp_path: Path, front: str, line: str, said: str) -> None:
    (tmp_path / "card.md").write_text(f"---\n{front}\n---\n# Toy\n")
    export_pairs(gan, tmp_path / "out", 1, coverage=(0, 1), card=tmp_path / "card.md")
    text = (tmp_path / "out" / "README.md").read_text()
    assert line in text.split("---")[1].splitlines()
    assert said in text


def test_a_bundled_model_has_its_own_card(gan: HFGan, tmp_path: Path, monkeypatch) -> None:
    bundled = save_toy(tmp_path / "cards" / "toy-16", alpha=True)
    monkeypatch.setattr(parts, "BUNDLED", (tmp_path / "cards",))
    for weights, said in ((gan.generator.fingerprint(), "states: mit."), ("other", "Unknown: no card")):
        (bundled / "README.md").write_text(f"---\nlicense: mit\n---\n# Toy\n\nWeights {weights}\n")
        export_pairs(gan, tmp_path / weights, 1, coverage=(0, 1))
        assert said in (tmp_path / weights / "README.md").read_text()


# ---------------------------------------------------------------- what is refused


def test_another_call_in_the_same_folder_is_refused(gan: HFGan, made: Path, whole: Path, tmp_path: Path) -> None:
    for other, said in (
        ({"seed": 4}, "was begun with seed 3 and not 4"),
        ({"coverage": (0.1, 0.9)}, r"coverage \[0.3, 0.75\] and not \[0.1, 0.9\]"),
        ({"truncation_psi": 1, "category": "cat"}, "truncation_psi 0.7 and not 1.0, category 'face' and not 'cat'"),
    ):
        with pytest.raises(ValueError, match=said):
            export_pairs(gan, made, NUM + 1, **HOW | other)
    stranger = load(save_toy(tmp_path / "toy-16", alpha=True, seed=1))
    with pytest.raises(ValueError, match=f"other weights .generator {gan.generator.fingerprint()}"):
        export_pairs(stranger, made, NUM + 1, **HOW)
    assert contents(made) == contents(whole)


def test_a_folder_with_something_else_is_refused(gan: HFGan, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for place in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(FileExistsError, match="choose another folder"):
            export_pairs(gan, place, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num": 0}, "num is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"truncation_psi": float("nan")}, "truncation_psi is nan"),
        ({"truncation": "local"}, "local"),
        ({"truncation": "multimodal"}, "train.py modes"),
        ({"label": 1}, "no classes"),
        ({"coverage": (0.9, 0.1)}, "least and most"),
        ({"coverage": 0.5}, "least and most"),
        ({"coverage": (0, 2)}, "coverage is 2"),
        ({"min_confidence": float("nan")}, "min_confidence is nan"),
        ({"category": " "}, "category is ' '"),
        ({"category": "a\nb"}, "category is"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_bad_arguments_write_nothing(gan: HFGan, tmp_path: Path, change: dict, said: str) -> None:
    with pytest.raises((ValueError, RuntimeError), match=said):
        export_pairs(gan, tmp_path / "out", **{"num": 1} | change)
    assert not (tmp_path / "out").exists()


def test_a_card_that_cannot_be_read_is_one_line(gan: HFGan, tmp_path: Path) -> None:
    (tmp_path / "card.md").write_text("---\nlicense: [\n---\n")
    with pytest.raises(ValueError, match=r"front matter of .*card.md") as raised:
        export_pairs(gan, tmp_path / "out", 1, card=tmp_path / "card.md")
    assert "\n" not in str(raised.value)


def test_a_damaged_mask_is_named(gan: HFGan, made: Path) -> None:
    path = made / rows(made)[2]["mask_file_name"]
    path.write_bytes(path.read_bytes()[:40])
    (made / "coco.json").unlink()
    with pytest.raises(ValueError, match=f"{path.name} is .*delete it"):
        export_pairs(gan, made, NUM, **HOW)


def test_it_gives_up_where_too_few_pass(gan: HFGan, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(pairs, "PATIENCE", 48)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="only 0 of 48 samples pass: 0 fail by coverage and 48 by confidence"):
            export_pairs(gan, tmp_path / "out", 5, coverage=(0, 1), min_confidence=1)
    assert len(rows(tmp_path / "out", "left_out.jsonl")) == 48


def test_seeds_end(gan: HFGan, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"seed is {MAX_SEED + 1}"):
        export_pairs(gan, tmp_path, 9, seed=MAX_SEED - 2, coverage=(0, 1))
    assert [row["seed"] for row in rows(tmp_path)] == [MAX_SEED - 2, MAX_SEED - 1, MAX_SEED]


# ---------------------------------------------------------------- the command line


def test_the_command_in_the_card_makes_the_same_files(toy: Path, whole: Path, tmp_path: Path, capsys) -> None:
    (command,) = [line for line in (whole / "README.md").read_text().splitlines() if line.startswith("hfgan dataset")]
    words = command.replace(" toy-16 ", f" {toy} ").replace(" DIR", f" {tmp_path / 'out'}").split()
    assert cli.main(words[1:]) == 0
    assert f"{tmp_path / 'out'}: 20 pairs; " in capsys.readouterr().out
    assert contents(tmp_path / "out") == contents(whole)


def test_the_command_takes_the_licence_along_and_fails_in_one_line(toy: Path, tmp_path: Path, capsys) -> None:
    licensed = save_toy(tmp_path / "licensed", alpha=True)
    (licensed / "README.md").write_text("---\nlicense: cc0-1.0\n---\n")
    fixed = ["dataset", "--dtype", "float32", "--num", "2", "--coverage", "0:1", "--out", str(tmp_path / "out")]
    assert cli.main([*fixed, "--model", str(licensed)]) == 0
    assert "license: cc0-1.0" in (tmp_path / "out" / "README.md").read_text()
    capsys.readouterr()
    for arguments, said in (
        (["--model", str(licensed), "--seed", "5"], "was begun with seed 0 and not 5"),
        (["--model", str(save_toy(tmp_path / "plain"))], "this model has no alpha"),
    ):
        assert cli.main([*fixed, *arguments]) == 1
        assert said in error_of(capsys)
    with pytest.raises(SystemExit):
        cli.main([*fixed, "--coverage", "0.5"])
    assert "no least and most such as 0.05:0.95" in error_of(capsys)
