"""The bench of inversion: its numbers by hand, its pairs, and that it goes on where it was stopped."""

from __future__ import annotations

import csv
import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from toy import save_toy

from hfgan import HFGan, InterestEncoder
from hfgan.models.perceptual import load_perceptual
from hfgan.sampling import broadcast

sys.path.append(str(Path(__file__).parent / "bench"))

import inversion
import inversionpairs
import inversiontable

SIDE, COUNT = 16, 12  # px, and identities: every band and every shape


def save_model(folder: Path, *, conditioned: bool = True, seed: int = 0, generator_seed: int = 1) -> Path:
    """A toy model with an encoder that answers at random, in the folder of a run."""
    save_toy(folder, seed=generator_seed, alpha=True)
    gan = HFGan.from_pretrained(folder, dtype="float32")
    with torch.no_grad():  # half of what is drawn is subject
        w_plus = broadcast(inversion.sample_w(gan.generator)[:64], gan.generator.num_ws)
        gan.alpha.out.bias -= gan.alpha(gan.generator, w_plus)[1].median()
    torch.manual_seed(seed)
    encoder = InterestEncoder.beside(gan.generator, conditioned=conditioned)
    for parameter in encoder.parameters():
        if not parameter.any():  # an untrained one takes no steps
            torch.nn.init.normal_(parameter, std=0.1)
    gan.register_modules(encoder=encoder)
    gan.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One unconditioned arm with two seeds, and a conditioned one."""
    root = tmp_path_factory.mktemp("runs")
    made = {name: save_model(root / f"arm-{name}" / "model", conditioned=name == "ours-0", seed=seed)
            for seed, name in enumerate(("restyle-0", "restyle-1", "ours-0"))}  # fmt: skip
    return {name: str(folder) for name, folder in made.items()}


@pytest.fixture(scope="module")
def gan(folders: dict[str, str]) -> HFGan:
    return inversion.load_model(folders["ours-0"])


@pytest.fixture(scope="module")
def pairs(gan: HFGan) -> inversionpairs.Pairs:
    return inversionpairs.drawn_pairs(gan, torch.rand(3, 3, SIDE, SIDE) * 2 - 1, COUNT)


# ---------------------------------------------------------------- numbers


def test_masked_l2_by_hand() -> None:
    a, b, mask = torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2, 2), torch.zeros(2, 1, 2, 2)
    a[0, :, 0, 0] = torch.tensor([1.0, 2.0, 0.0])
    a[0, :, 1, 1] = 9.0  # outside
    mask[0, 0, 0] = 1  # two pixels, one of them without an error
    found = inversion.masked_l2(a, b, mask)
    assert found[0].item() == pytest.approx((1 + 4) / (3 * 2))
    assert found[1].isnan(), "an empty region has no error"


def test_distances_of_codes_by_hand() -> None:
    codes = torch.zeros(3, 2, 2)
    codes[1, 0, 0], codes[2, 1, 1] = 6.0, 4.0
    w_std = torch.tensor([2.0, 1.0])
    assert inversion.code_distance(codes, codes[:1], w_std).tolist() == [0, 3, 4]
    assert inversion.code_spread(codes, w_std).item() == pytest.approx((3 + 4 + 5) / 3)


def test_overlap_by_hand() -> None:
    a, b = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    a[..., 0, :], b[..., :, 0] = 1, 1
    assert inversion.overlap(a, b).item() == pytest.approx(1 / 3)


def test_directions_are_the_principal_ones(gan: HFGan) -> None:
    found, w = inversion.principal_directions(gan.generator), inversion.sample_w(gan.generator)
    lengths = found.norm(dim=1)
    assert torch.allclose(found @ found.T, torch.diag(lengths.square()), atol=1e-4)
    along = (w @ (found / lengths[:, None]).T).std(dim=0)  # (DIRECTIONS,)
    assert torch.allclose(along, lengths, rtol=1e-3)
    assert (lengths.diff() <= 0).all()
    assert (found.gather(1, found.abs().argmax(1, keepdim=True)) > 0).all()


def test_perfect_inverter_has_no_error_and_no_drift(gan: HFGan, pairs: inversionpairs.Pairs) -> None:
    bench = inversion.Bench(gan.generator, {"drawn": pairs}, load_perceptual())
    true = broadcast(pairs.w, gan.generator.num_ws)
    told = inversion.tell(gan, pairs, "told")
    with torch.no_grad():
        found = bench.values(gan, lambda image, interest: true, pairs, told)
    for name in inversiontable.MAIN.keys() | inversiontable.FURTHER.keys():
        assert found[name].shape == (COUNT,)
        assert torch.allclose(found[name], torch.zeros(COUNT), atol=1e-5), name


def test_only_what_is_not_drawn_right_counts(gan: HFGan, pairs: inversionpairs.Pairs) -> None:
    bench = inversion.Bench(gan.generator, {"drawn": pairs}, None)
    right = broadcast(pairs.w, gan.generator.num_ws)

    def invert(image: Tensor, interest: Tensor | None) -> Tensor:
        return right if torch.equal(image, pairs.views["clean"]) else right.roll(1, 0)  # another one

    with torch.no_grad():
        found = bench.values(gan, invert, pairs, inversion.tell(gan, pairs, "withheld"))
    assert found["clean"].max() < 1e-9
    for name in ("visible", "all", "bg", "moved_bg", "moved_occ", "edit"):
        assert found[name].min() > 1e-6, name
    area, hidden = pairs.subject.sum((1, 2, 3)), pairs.hidden.sum((1, 2, 3))
    parts = found["visible"] * (area - hidden) + found["hidden"] * hidden
    assert torch.allclose(parts / area, found["all"], rtol=1e-4)
    # neighbours of one ring are as far apart as any two, on average
    assert 0.5 < found["drift_occ"].mean() < 1.5


def test_invariance_tells_who_looks_outside(folders: dict[str, str], pairs: inversionpairs.Pairs) -> None:
    for name, looks in (("ours-0", False), ("restyle-0", True)):
        gan = inversion.load_model(folders[name])
        with torch.no_grad():
            moved = inversion.invariance(inversion.inverters(gan)["encoder"], pairs)
        assert (moved > 0) == looks


# ---------------------------------------------------------------- pairs


def test_pairs_are_the_same_for_the_same_seed(gan: HFGan) -> None:
    photos = torch.linspace(-1, 1, SIDE).expand(2, 3, SIDE, SIDE)
    torch.manual_seed(1)
    first = inversionpairs.drawn_pairs(gan, photos, 6)
    torch.manual_seed(2)
    again = inversionpairs.drawn_pairs(gan, photos, 6)
    assert first.sha256() == again.sha256()
    assert first.sha256() != first.first(5).sha256()
    again.views["occ"][0, 0, 0, 0] += 0.5
    assert first.sha256() != again.sha256()


def test_views_differ_where_the_masks_say(pairs: inversionpairs.Pairs) -> None:
    clean, swapped, spoilt = (pairs.views[name] for name in ("clean", "bg", "occ"))
    outside = (pairs.obstacle == 0).expand_as(clean)
    assert torch.equal(spoilt[outside], swapped[outside])
    assert (spoilt != swapped).any(1).flatten(1).any(1).all()
    assert torch.equal(pairs.visible + pairs.hidden, pairs.subject)
    assert not (pairs.visible * pairs.obstacle).any()
    assert (clean - pairs.wanted).abs().max() <= 1 / 255 + 1e-6
    assert (clean - swapped).abs().amax((1, 2, 3)).min() > 0.02
    for mask in (pairs.subject, pairs.obstacle):
        assert set(mask.unique().tolist()) == {0, 1}


def test_bands_are_kept(pairs: inversionpairs.Pairs) -> None:
    for k, share in enumerate(pairs.covered()):
        low, high = inversionpairs.BANDS[k % 3]
        assert low <= share <= high


@pytest.mark.parametrize("shape", inversionpairs.SHAPES)
@pytest.mark.parametrize("band", inversionpairs.BANDS)
def test_obstacles_of_every_shape_cover_what_they_should(shape: str, band: tuple[float, float]) -> None:
    subject, other = torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32)
    subject[..., 8:30, 6:26], other[..., 4:20, 10:16] = 1, 1
    for seed in range(5):
        found = inversionpairs.obstacle(shape, subject, other, band, torch.Generator().manual_seed(seed))
        assert band[0] <= ((found * subject).sum().double() / subject.sum()).item() <= band[1]


def test_cut_out_is_the_outline_where_it_is_wanted() -> None:
    other = torch.zeros(1, 1, 32, 32)
    other[..., 4:20, 10:16] = 1  # 16 x 6
    size = torch.tensor([(96 / torch.pi) ** 0.5 / 32]).view(-1, 1, 1, 1)  # as large as it is
    found = inversionpairs.cut_out(torch.tensor([19.5, 22.5]), other, size)
    wanted = torch.zeros(1, 1, 32, 32)
    wanted[..., 12:28, 20:26] = 1
    assert torch.equal(found, wanted)


def test_sloppy_regions_by_hand() -> None:
    told = torch.zeros(2, 1, 40, 40)  # 5 % are 2 pixels, 3 % are 1
    told[:, :, 10:20, 12:30], told[:, :, 14, 20] = 1, 0

    def box(rows: slice, columns: slice) -> Tensor:
        wanted = torch.zeros(40, 40)
        wanted[rows, columns] = 1
        return wanted

    for how, wanted in (("dilated", box(slice(8, 22), slice(10, 32))), ("boxed", box(slice(10, 20), slice(12, 30)))):
        assert torch.equal(inversionpairs.sloppy(told, how)[0, 0], wanted), how
    eroded = box(slice(12, 18), slice(14, 28)) * (1 - box(slice(12, 17), slice(18, 23)))
    assert torch.equal(inversionpairs.sloppy(told, "eroded")[0, 0], eroded)
    shifted = inversionpairs.sloppy(told, "shifted")
    assert torch.equal(shifted[0], told[0].roll((-1, -1), (1, 2)))
    assert torch.equal(shifted[1], told[1].roll((-1, 0), (1, 2)))
    thin = torch.zeros(1, 1, 40, 40)
    thin[..., 5, :] = 1
    assert torch.equal(inversionpairs.sloppy(thin, "eroded"), thin), "what would vanish stays"


def write_occluded(path: Path) -> Path:
    """A file as hfaces128-occluded-test.zip is: two photos, a subject on the left, an obstacle on half of it."""
    masks = np.zeros((2, 2, 128, 128), np.uint8)
    masks[0, :, :, :64], masks[1, :, 1:64] = 1, 1  # subject, obstacle: of its uppermost 63 rows
    bits = dict(zip(("foreground", "occluder"), np.packbits(masks.reshape(2, 2, -1), axis=2), strict=True))
    stored, table = io.BytesIO(), io.StringIO()
    np.savez(stored, ids=np.array([0, 2]), **bits)
    rows = csv.writer(table)
    rows.writerows([("id", "style"), (0, "a"), (2, "b")])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.csv", table.getvalue())
        archive.writestr("masks128.npz", stored.getvalue())
        for folder, colour in (("clean", "red"), ("occluded", "blue")):
            for k in (0, 2):
                picture = io.BytesIO()
                Image.new("RGB", (128, 128), colour).save(picture, "WEBP", lossless=True)
                archive.writestr(f"{folder}/{k:03d}.webp", picture.getvalue())
    return path


def test_occluded_photos(tmp_path: Path) -> None:
    found = inversionpairs.occluded_pairs(write_occluded(tmp_path / "occluded.zip"), SIDE)
    assert found.ids == ["0", "2"]
    assert found.subject.shape == (2, 1, SIDE, SIDE)
    assert torch.equal(found.subject, found.subject.new_zeros(2, 1, SIDE, SIDE).index_fill(3, torch.arange(8), 1))
    assert torch.equal(found.hidden[0, 0, :8, :8], torch.ones(8, 8)), "a pixel that is touched is hidden"
    assert not found.hidden[0, 0, 8:].any()
    assert found.views["clean"][0, :, 3, 3].tolist() == pytest.approx([1, -1, -1], abs=0.03)
    assert found.views["occ"][0, :, 3, 3].tolist() == pytest.approx([-1, -1, 1], abs=0.03)


# ---------------------------------------------------------------- what is told


def test_who_cannot_see_the_interest_is_told_nothing(folders: dict[str, str], gan: HFGan) -> None:
    assert inversion.interest_names(inversion.load_model(folders["restyle-0"]), auto=True) == ["withheld"]
    assert inversion.interest_names(gan, auto=False) == ["withheld", "told", *inversionpairs.SLOPPY]


# ---------------------------------------------------------------- the file and the tables


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["inversion.py", *arguments])
    inversion.main()


def test_measure_goes_on_and_tables_are_made(
    tmp_path: Path, folders: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    out, sheet = tmp_path / "new" / "inversion.json", tmp_path / "sheet.png"
    how = ("--out", str(out), "--count", "6", "--occluded", str(write_occluded(tmp_path / "occluded.zip")))
    run(monkeypatch, "measure", *how, "--limit", "4", "--models", folders["restyle-0"], "--sheet", str(sheet))
    found = json.loads(out.read_text())
    assert {(row["arm"], row["seed"], row["set"], row["interest"]) for row in found["rows"]} == {
        ("restyle", 0, name, "withheld") for name in ("drawn", "photos")
    }
    assert all(len(digest) == 64 for digest in found["protocol"]["pairs"].values())
    assert len(found["covered"]["drawn"]) == 6
    assert [len(row["ids"]) for row in found["rows"]] == [4, 2]
    assert sheet.is_file()

    run(monkeypatch, "measure", *how, "--models", *folders.values())
    found = json.loads(out.read_text())
    assert len(found["rows"]) == 2 * (1 + 1 + 2 + len(inversionpairs.SLOPPY))
    assert {len(row["ids"]) for row in found["rows"] if row["set"] == "drawn"} == {6}
    ours = inversiontable.find(found["rows"], {"arm": "ours", "set": "photos", "interest": "told"})
    assert set(ours["values"]) == {
        "clean",
        "picture",
        "visible",
        "hidden",
        "all",
        "drift_occ",
        "moved_occ",
        "distance",
    }

    def refuse(*_: object) -> None:
        raise AssertionError("measured again")

    with monkeypatch.context() as patch:
        patch.setattr(inversion.Bench, "values", refuse)
        run(patch, "measure", *how, "--models", *folders.values())
    capsys.readouterr()
    run(monkeypatch, "table", "--out", str(out))
    said = capsys.readouterr().out
    assert "| ours | told | 1 | 6 |" in said
    assert "| restyle | withheld | 2 | 6 |" in said
    assert "drift bg" not in said.split("## T1")[1].split("##")[0], "photos have no other background"
    with pytest.raises(ValueError, match="measured with another pairs"):
        run(monkeypatch, "measure", "--out", str(out), "--count", "5", "--models", folders["restyle-0"])


def test_auto_is_a_row_of_its_own(tmp_path: Path, folders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    how = ("measure", "--out", str(tmp_path / "o.json"), "--count", "4", "--auto", "--models", folders["ours-0"])
    half = torch.zeros(1, 1, SIDE, SIDE)
    half[..., : SIDE // 2] = 1
    answers = iter([half, None] * 6)  # of 3 views of 4 identities
    monkeypatch.setattr(inversion, "auto_interest", lambda gan, picture: next(answers))
    run(monkeypatch, *how)
    row = inversiontable.find(json.loads((tmp_path / "o.json").read_text())["rows"], {"interest": "auto"})
    assert row["values"]["fallback"] == [0, 1, 0, 1]
    assert all(0 < x < 1 for x in row["values"]["iou"])


def test_what_was_trained_anew_is_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = tmp_path / "arm-a-0" / "model", tmp_path / "o.json"
    how = ("measure", "--out", str(out), "--count", "4", "--models", str(folder))
    seen = []
    for seed in (0, 1):
        save_model(folder, conditioned=False, seed=seed)
        run(monkeypatch, *how)
        found = json.loads(out.read_text())
        assert len(found["rows"]) == len(found["models"]) == 1
        seen.append(found["rows"][0])
    assert seen[0]["encoder"] != seen[1]["encoder"]
    assert seen[0]["values"]["all"] != seen[1]["values"]["all"]


def test_other_generators_are_refused(tmp_path: Path, gan: HFGan) -> None:
    other = save_model(tmp_path / "arm-b-0" / "model", generator_seed=3)
    with pytest.raises(ValueError, match="another generator than the first"):
        inversion.load_model(str(other), like=gan)


def test_names_of_runs() -> None:
    assert inversion.arm_and_seed("runs/arm-restyle-0/model") == ("restyle", 0)
    assert inversion.arm_and_seed("runs/no-drift-12") == ("no-drift", 12)
    with pytest.raises(ValueError, match="NAME-SEED"):
        inversion.arm_and_seed("runs/arm-restyle/model")


def rows_of(values: dict[int, list[float | None]], arm: str = "a") -> list[dict]:
    return [{"arm": arm, "seed": seed, "ids": [str(k) for k in range(len(column))], "values": {"all": column}}
            for seed, column in values.items()]  # fmt: skip


def test_ratios_are_paired_and_pooled() -> None:
    base = [float(k + 1) for k in range(20)]
    reference = rows_of({0: base, 1: base})
    halved = rows_of({0: [0.4 * x for x in base], 1: [0.6 * x for x in base]})
    assert inversiontable.cell(halved, "all", reference) == "5.2500 (x 0.50 [0.50, 0.50] ± 0.14)"
    assert inversiontable.cell(halved, "edit", reference) == "–"
    middle, low, high = inversiontable.interval(torch.tensor(base, dtype=torch.float64))
    spread = 1.96 * np.std(base) / 20**0.5
    assert middle == pytest.approx(10.5)
    assert [low, high] == pytest.approx([10.5 - spread, 10.5 + spread], abs=0.3)


def test_identities_without_a_value_are_left_out() -> None:
    found = inversiontable.cell(
        rows_of({0: [1.0, None, 3.0], 1: [1.0, 2.0, 3.0]}), "all", rows_of({0: [None, 1, 1.5]})
    )
    assert found.startswith("2.0000 (x 2.00 [2.00, 2.00]")
