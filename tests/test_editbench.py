"""The bench of edits: labels read right, a judge that learns them, and scores that say what was planted."""

from __future__ import annotations

import csv
import io
import json
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw

from hfgan import HFGan, StyleGAN2Discriminator, StyleGAN2Generator
from hfgan.finding import fit_scores, pca
from hfgan.images import pil_to_pixels, to_image
from hfgan.models.directions import DirectionSet, WStats
from hfgan.models.perceptual import MobileNetV2
from hfgan.sampling import broadcast
from hfgan.traits import traits

sys.path.insert(0, str(Path(__file__).parent / "bench"))
import editjudge
import editscores

COLUMNS = ("file", "style", "smile", "glasses", "sunglasses", "beard", "hat", "long_hair", "skin_t", "hair_fun",
           "hair_hex", "cloth_hex", "yaw_flip", "angle", "scale", "outlier")  # fmt: skip


def face(k: int) -> tuple[Image.Image, dict[str, object]]:
    """A picture of which every fourth has glasses, a dark bar, and whose skin has many shades; and its labels."""
    glasses, shade = k % 4 == 0, (37 * k % 50) / 50
    picture = Image.new("RGB", (32, 32), (60, 130, 200))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((4, 4, 28, 28), fill=(int(255 - 150 * shade),) * 3)
    if glasses:
        draw.rectangle((6, 12, 26, 17), fill="black")
    labels = dict.fromkeys(COLUMNS, "0") | {"file": f"{k:03}.png", "style": "ab"[k % 2], "outlier": ""}
    labels |= {"smile": k % 2, "glasses": int(glasses), "skin_t": shade, "hair_hex": "ff0000"}
    labels["cloth_hex"] = "0000ff" if k % 2 else ""
    return picture, labels


def write_faces(folder: Path, name: str, start: int, count: int) -> tuple[Path, Path]:
    """A zip of faces and its truth; the last one is an outlier."""
    photos, truth, text = folder / f"{name}.zip", folder / f"{name}-truth.zip", io.StringIO()
    table = csv.DictWriter(text, COLUMNS)
    table.writeheader()
    with zipfile.ZipFile(photos, "w") as archive:
        for k in range(start, start + count):
            picture, labels = face(k)
            table.writerow(labels | ({"outlier": "emoji"} if k == start + count - 1 else {}))
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            archive.writestr(labels["file"], buffer.getvalue())
    with zipfile.ZipFile(truth, "w") as archive:
        archive.writestr("metadata.csv", text.getvalue())
    return photos, truth


@pytest.fixture(autouse=True, scope="module")
def features() -> Iterator[None]:
    """MobileNetV2 as it begins, in place of weights that are not part of the project."""

    def untrained(path: object) -> MobileNetV2:
        torch.manual_seed(0)
        return MobileNetV2()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(editjudge.MobileNetV2, "from_file", staticmethod(untrained))
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy with directions that were found by traits, one turned round, and one that is named after nothing."""
    torch.manual_seed(0)
    sizes = {"resolution": 32, "channel_base": 256, "channel_max": 16}
    generator = StyleGAN2Generator(z_dim=16, w_dim=16, mapping_layers=1, **sizes)
    stats, found = WStats.of(generator), []
    with torch.no_grad():
        w = generator.mapping(torch.randn(600, 16))
        seen = traits(generator.synthesis(broadcast(w, generator.num_ws)).clamp(-1, 1))
    for name, trait in {"light": "light", "blurred": "sharpness"}.items():
        one = fit_scores(name, w, seen[trait], stats)
        found.append(replace(one, source=one.source | {"recipe": {"trait": trait, "flip": name == "blurred"}}))
    found = DirectionSet.of([found[0], (-found[1]).named("blurred"), pca(stats, 1)[0]], generator)
    folder = tmp_path_factory.mktemp("model")
    HFGan(generator=generator, discriminator=StyleGAN2Discriminator(**sizes), directions=found).save_pretrained(folder)
    return folder


def run(verb: str, out: Path, **flags: object) -> dict[str, Any]:
    """Run the bench as from the command line; returns what it wrote."""
    told = [str(part) for name, value in flags.items() for part in (f"--{name.replace('_', '-')}", value)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["editscores.py", verb, "--json", str(out), *told])
        editscores.main()
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    """A judge of faces, and how it agrees with labels of others."""
    folder = tmp_path_factory.mktemp("judge")
    photos, held_out = write_faces(folder, "train", 0, 241), write_faces(folder, "test", 300, 61)
    judge = folder / "judge.safetensors"
    found = run("teach", folder / "taught.json", photos=photos[0], truth=photos[1], test=held_out[0],
                test_truth=held_out[1], features="x", judge=judge, side=32, epochs=30)  # fmt: skip
    return judge, found["agreement"]


# ---------------------------------------------------------------- labels and judge


def test_labels_are_read_and_outliers_left_out(tmp_path: Path) -> None:
    rows = editjudge.read_rows(write_faces(tmp_path, "faces", 0, 9)[1])
    assert len(rows) == 8
    found = editjudge.attributes(rows.values())
    assert found["glasses"].tolist() == found["eyewear"].tolist() == [1, 0, 0, 0, 1, 0, 0, 0]
    assert found["style a"].tolist() == [1, 0] * 4
    assert found["hair_light"].tolist() == pytest.approx([0.299] * 8)
    assert found["cloth_warm"].isnan().tolist() == [True, False] * 4
    assert found["cloth_warm"][1] == -1
    assert [editjudge.is_binary(name) for name in ("hat", "eyewear", "style a", "skin_t")] == [True, True, True, False]


def test_a_judge_learns_what_can_be_seen(taught: tuple[Path, dict[str, float]]) -> None:
    path, agreement = taught
    assert agreement["glasses"] > 0.95
    assert agreement["skin_t"] > 0.8
    assert "hat" not in agreement
    judge = editjudge.Judge.load(path, "x")
    faces = torch.stack([to_image(pil_to_pixels(face(4 * k)[0])) for k in range(20)])
    bare = torch.stack([to_image(pil_to_pixels(face(4 * k + 1)[0])) for k in range(20)])
    place = judge.names.index("glasses")
    assert judge(faces)[:, place].mean() > judge(bare)[:, place].mean() + 1


# ---------------------------------------------------------------- scores


def test_scores_say_what_a_direction_changes(model: Path, tmp_path: Path) -> None:
    found = run("score", tmp_path / "x.json", model=model, samples=64, dtype="float32")
    assert found["attributes"] == ["light", "sharpness"]
    rows = {(row["direction"], row["way"]): row for row in found["rows"]}
    assert {name for name, _ in rows} == {"light", "blurred"}
    assert {way for _, way in rows} >= {"stored", "raw", "natural"}
    for name in ("light", "blurred"):
        stored, natural = rows[name, "stored"], rows[name, "natural"]
        assert stored["own"] > 0.2
        assert stored["own"] == pytest.approx(natural["own"], rel=0.05)  # that is how it was stored
        assert natural["length"] / natural["strength"] == pytest.approx(1, rel=0.02)
        assert rows[name, "raw"]["length"] / rows[name, "raw"]["strength"] > 1.05
        assert 0.5 < stored["reached"] < 1.5
        assert stored["drift"] > 0
    sign = {"light": 1, "blurred": -1}
    for (name, _), row in rows.items():
        own = {"light": "light", "blurred": "sharpness"}[name]
        assert row["changes"][own] == pytest.approx(sign[name] * row["own"])
        assert row["worst"] != own


def test_clicks_are_simulated(
    model: Path, taught: tuple[Path, dict[str, float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(editscores, "LABELLED", ("skin_t", "smile"))
    monkeypatch.setattr(editscores, "CLEAR", {"binary": 0.0, "number": 0.5})
    found = run("clicks", tmp_path / "x.json", model=model, judge=taught[0], features="x", samples=16, pool=300,
                few=8, many=40, seeds=2, dtype="float32")  # fmt: skip
    rows = [row for row in found["rows"] if row["attribute"] == "skin_t"]
    assert [(row["labels"], row["seed"]) for row in rows if row["way"] == "natural"] == [(8, 0), (8, 1), (40, 0)]
    assert all(row["n_pos"] == row["n_neg"] == row["labels"] for row in rows)
    assert all(row["length"] == pytest.approx(1, rel=0.02) for row in rows if row["way"] == "natural")
    assert -1 <= found["rank_correlation"]["split_half"] <= 1


def test_clear_cases_are_at_both_ends() -> None:
    values = torch.linspace(-3, 3, 61)
    plus, minus = editscores.clear_cases(values, "smile")
    assert values[plus].min() > 2
    assert values[minus].max() < -2
    plus, minus = editscores.clear_cases(10 + 100 * values, "skin_t")
    assert len(plus) == len(minus) == int((values > 0.7 * values.std()).sum())


def test_what_is_one_to_the_eye_is_no_leak() -> None:
    names = ["glasses", "eyewear", "smile", "area", "scale"]
    assert editscores.others_of("eyewear", names) == [2, 3, 4]
    assert editscores.others_of("area", names) == [0, 1, 2]
    assert editscores.others_of("smile", names) == [0, 1, 3, 4]


def test_foretelling_ranks_few_labels_moved_naturally() -> None:
    rows = [{"labels": 20, "way": "natural", "split_half": x, "effect": x**3} for x in (0.1, 0.5, 0.3)]
    noise = [{"labels": 20, "way": "raw", "split_half": 9, "effect": -9}, {"labels": 1000, "way": "natural",
             "split_half": 9, "effect": -9}]  # fmt: skip
    assert editscores.foretelling([*rows, *noise], 20, "split_half") == pytest.approx(1)
