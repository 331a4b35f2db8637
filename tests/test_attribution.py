"""Attribution at toy size: the search, what distances tell, strict files, words that claim no more, and the stage."""

from __future__ import annotations

import itertools
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from toy import save_toy

from hfgan import HFGan
from hfgan.attribution import (
    FILE,
    LIMITS,
    STEPS,
    Attribution,
    Calibration,
    Protocol,
    attribute,
    redraw,
    see,
    sentence,
    supported,
    weigh,
)
from hfgan.inversion import encode
from hfgan.models.perceptual import PerceptualNet, load_perceptual
from hfgan.refinement import Target
from hfgan.sampling import broadcast

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
import attribution as stage
import run

NET = load_perceptual()


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory) -> HFGan:
    folder = tmp_path_factory.mktemp("models") / "toy"
    return HFGan.from_pretrained(save_toy(folder, encoder=True, directions=True), dtype="float32")


def calibration(protocol: Protocol | None = None, own: tuple[float, float] = (0.01, 0.02),
                photos: tuple[float, float] = (0.2, 0.4), count: int = 150) -> Calibration:  # fmt: skip
    """Of distances spread evenly between two bounds."""
    halves = {psi: np.linspace(*own, 100).tolist() for psi in ("1", "0.7")}
    protocol = protocol or Protocol("a" * 12, None, "b" * 12)
    return Calibration(protocol, halves, np.linspace(*photos, count).tolist(), "photos.zip", {"torch": "2"}, [])


def found(distance: float, known: Calibration) -> Attribution:
    ratio, interval = weigh(distance, known)
    return Attribution(distance, 50.0, 0.0, ratio, interval, Image.new("RGB", (4, 4)), Image.new("RGB", (4, 4)))


# ---------------------------------------------------------------- the search


def test_own_samples_are_redrawn_closer_than_other_pictures(gan: HFGan, photo) -> None:
    own = torch.cat([see(one, gan.generator) for one in gan.sample(4, seed=50, truncation_psi=0.5).images])
    other = torch.cat([see(photo(40, 30, seed), gan.generator) for seed in range(4)])
    assert own.shape == other.shape == (4, 3, 16, 16)
    ours, theirs = (redraw(gan.generator, gan.encoder, image, net=NET) for image in (own, other))
    assert ours.errors.shape == (STEPS + 1, 4)
    assert ours.errors[-1].max() < 0.5 * theirs.errors[-1].min()
    assert ours.noise is None
    assert (ours.w_plus == ours.w_plus[:, :1]).all(), "one w for all layers"
    again = redraw(gan.generator, gan.encoder, own, net=NET)
    assert torch.equal(again.errors, ours.errors)
    alone = redraw(gan.generator, gan.encoder, own[2:3], net=NET).errors[-1]
    torch.testing.assert_close(alone[0], ours.errors[-1, 2], rtol=0.35, atol=1e-4)


def test_where_it_starts(gan: HFGan) -> None:
    image = see(gan.sample(1, seed=3).images[0], gan.generator)
    target = Target.of(image, None, 16, NET)
    *_, (w_plus, _) = encode(gan.generator, gan.encoder, image, None, gan.encoder.default_steps)
    with torch.no_grad():
        mean = gan.generator.synthesis(broadcast(w_plus.mean(1), gan.generator.num_ws))
    first = redraw(gan.generator, gan.encoder, image, net=NET, keep_going=lambda _: False).errors[0]
    torch.testing.assert_close(first, target.loss(mean))
    plain = redraw(gan.generator, None, image, net=NET, keep_going=lambda _: False).errors[0]
    assert not torch.allclose(plain, first)


def test_what_is_found_of_a_picture(gan: HFGan, tmp_path: Path) -> None:
    known, steps = calibration(Protocol.of(gan.generator, gan.encoder, NET)), []
    out = gan.sample(1, seed=9)
    (path,) = out.save(tmp_path)
    asked = (gan.generator, gan.encoder, path, known)
    seen = attribute(*asked, net=NET, keep_going=lambda step: steps.append(step.index) or True)
    assert steps == [*range(1, STEPS + 1)]
    assert np.array_equal(np.asarray(seen.seen), np.asarray(out.images[0]))
    difference = np.asarray(seen.drawn).astype(float) - np.asarray(out.images[0])
    assert abs(difference).mean() < 20
    assert 0 <= seen.percentile_photos <= seen.percentile_samples <= 100
    assert (seen.likelihood_ratio, seen.interval) == weigh(seen.distance, known)
    assert attribute(*asked, net=NET, keep_going=lambda step: step.index < STEPS - 1) is None, "it was cut short"


# ---------------------------------------------------------------- what distances tell


def test_a_ratio_is_bounded_by_how_many_there_are() -> None:
    known = calibration()
    for distance in (0.0, 0.001, 0.015, 0.02):
        ratio, (low, high) = weigh(distance, known)
        assert ratio == pytest.approx(150, rel=0.02)
        assert 30 < low < 60, "none of 150 photos: about the rule of three"
        assert high == pytest.approx(150)
    for distance in (0.2, 0.3, 5.0, 1e9):
        ratio, (low, high) = weigh(distance, known)
        assert ratio == pytest.approx(1 / 200, rel=0.02)
        assert low == pytest.approx(1 / 200)
        assert 1 / 70 < high < 1 / 30
    ratio, (low, high) = weigh(0.1, known)
    assert 0.5 < ratio < 2, "between both nothing is known"
    assert low < ratio < high


def test_what_does_not_separate_says_nothing() -> None:
    known = calibration(own=(0.1, 0.3), photos=(0.1, 0.3))
    for distance in (0.05, 0.15, 0.2, 0.25, 0.5):
        ratio, (low, high) = weigh(distance, known)
        assert 0.5 < ratio < 2
        assert low < 1.1, "the first step of a falling curve is never below 1"
        assert high > 0.9
        assert not supported(found(distance, known))


def test_a_ratio_falls_with_the_distance_and_is_the_odds_within_a_step() -> None:
    known = calibration(own=(0.01, 0.3), photos=(0.1, 0.5), count=200)
    ratios = [weigh(distance, known)[0] for distance in np.linspace(0, 0.6, 40)]
    assert all(a >= b for a, b in itertools.pairwise(ratios))
    share = (0.2 / 0.29) / (0.2 / 0.4)  # densities of both where they overlap
    assert weigh(0.2, known)[0] == pytest.approx(share, rel=0.15)
    assert weigh(0.2, known) == weigh(0.2, known)


# ---------------------------------------------------------------- files


def test_a_calibration_comes_back_from_its_file(tmp_path: Path) -> None:
    known = calibration(Protocol("a" * 12, "c" * 12, "b" * 12))
    known.save(tmp_path / FILE)
    assert Calibration.read(tmp_path / FILE) == known
    with pytest.raises(FileNotFoundError, match=r"has no calibration, .*train.py attribution"):
        Calibration.read(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("photos",), [0.1] * 99, "the photos are 99: expected 100 or more"),
        (("photos",), [0.2, 0.1] * 60, "the photos are not sorted"),
        (("photos",), [0.1] * 100 + ["x"], "the photos are not sorted distances"),
        (("samples", "1"), [float("nan")] * 100, "samples of psi 1 are not sorted"),
        (("samples", "1"), None, "samples of psi 1 are not sorted"),
        (("samples", "0.5"), [0.1] * 100, "expected 1, 0.7"),
        (("samples",), [], "samples is"),
        (("protocol", "steps"), 60.5, "steps is 60.5"),
        (("protocol", "lr"), 1, "expected exactly generator, encoder, network, steps, rate"),
        (("protocol",), None, "expected exactly generator"),
        (("extra",), 1, "expected exactly protocol, samples, photos"),
        (("_format",), 2, "another format than 1"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, place: tuple[str, ...], value: Any, said: str) -> None:
    path = tmp_path / FILE
    calibration().save(path)
    content = json.loads(path.read_text())
    inside = content
    for name in place[:-1]:
        inside = inside[name]
    inside[place[-1]] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=re.escape(said)):
        Calibration.read(path)


def test_another_model_or_protocol_is_refused(gan: HFGan, photo) -> None:
    own = Protocol.of(gan.generator, gan.encoder, NET)
    calibration(own).check(own)
    for name, value in (
        ("generator", "0" * 12),
        ("encoder", None),
        ("network", "0" * 12),
        ("steps", 61),
        ("rate", 1.0),
    ):
        known = calibration(replace(own, **{name: value}))
        with pytest.raises(ValueError, match=f"belongs to another {name}, .*train.py attribution"):
            attribute(gan.generator, gan.encoder, photo(), known, net=NET)
    with pytest.raises(ValueError, match="another encoder"):
        attribute(gan.generator, None, photo(), calibration(own), net=NET)
    other = PerceptualNet(widths=(8, 8, 8, 8, 8)).eval()
    with pytest.raises(ValueError, match="another network"):
        attribute(gan.generator, gan.encoder, photo(), calibration(own), net=other)


# ---------------------------------------------------------------- words


def test_words_claim_no_more_than_was_found() -> None:
    known = calibration()
    near, between, far = (sentence(found(distance, known), "toy") for distance in (0.015, 0.1, 0.3))
    assert near.startswith("toy redraws this picture as closely as it redraws its own samples (percentile 50")
    assert "0 of photos; likelihood ratio 150, 95 % interval 4" in near
    assert between.startswith("There is too little evidence to say whether toy made this picture (")
    assert far.startswith("There is no evidence that toy made this picture")
    for said in (near, between, far, LIMITS):
        assert not re.search(r"\b(real|fake|fraud|certain\w*|prov(?:en|ed)|authentic|genuine)\b", said, re.IGNORECASE)
    for broken in (
        "JPEG",
        "resizing",
        "cropping",
        "editing",
        "style mixing",
        "checkpoints",
        "about a person",
        "proves",
    ):
        assert broken in LIMITS


# ---------------------------------------------------------------- the stage


@pytest.fixture
def measured(monkeypatch) -> list[int]:
    """Distances that are quick: how far pixels are from the toy's mean colour; and how many at once were measured."""
    counts = []

    def measure(_: Any, images: torch.Tensor) -> list[float]:
        counts.append(len(images))
        return (images.mean((1, 2, 3)).abs() + images.var((1, 2, 3))).tolist()

    monkeypatch.setattr(stage.Ruler, "measure", measure)
    return counts


@pytest.fixture
def photos(tmp_path: Path, photo) -> Path:
    (tmp_path / "photos").mkdir()
    for seed in range(106):
        photo(24, 20, seed).save(tmp_path / "photos" / f"{seed}.png")
    return tmp_path / "photos"


def test_the_stage_writes_what_the_library_reads(gan: HFGan, photos: Path, tmp_path: Path, measured, capsys) -> None:
    other = save_toy(tmp_path / "other", seed=5)
    config = stage.Config(model=str(gan.folder), data=str(photos), others=(str(other),), photos=100, tests=6, batch=7,
                          out=str(tmp_path / "new" / FILE))  # fmt: skip
    stage.main(config)
    known = Calibration.read(config.out)
    known.check(Protocol.of(gan.generator, gan.encoder, NET))
    assert [len(one) for one in (*known.samples.values(), known.photos)] == [100, 100, 100]
    assert known.source == "photos"
    assert max(measured) == 7
    names = [row["what"] for row in known.robustness]
    assert names == [
        "samples, psi 1", "samples, psi 0.7", "samples, psi 0.5", "JPEG quality 75", "half the size and back",
        "5% cropped", "styles mixed", "edited by +2 sigma", "fresh noise", "samples of other", "photos",
        "photos, JPEG quality 75", "photos, half the size and back"]  # fmt: skip
    for row in known.robustness:
        assert row["num"] == 6
        assert 0 <= row["auc"] <= 1
        assert 0 <= row["told"] <= 6
    assert known.robustness[10]["auc"] == 0.5, "photos against themselves"
    text = capsys.readouterr().out
    assert "| styles mixed | " in text
    assert stage.table(known) in text
    calibrated, unseen = stage.split_photos(config, gan)
    assert not {one.tobytes() for one in calibrated} & {one.tobytes() for one in unseen}


def test_the_stage_says_what_is_wrong(gan: HFGan, photos: Path) -> None:
    config = stage.Config(model=str(gan.folder), data=str(photos))
    for change, said in (({"num": 99}, "--num is 99: give 100"), ({"batch": 0}, "--batch is 0"),
                         ({"photos": 101}, "has 106 photos: --photos 101 and --tests 40 take more")):  # fmt: skip
        with pytest.raises(run.UserError, match=said):
            stage.main(replace(config, **change))


def test_pictures_are_altered_as_they_are_called(gan: HFGan, photo) -> None:
    picture = photo(64, 64)
    for alter in (stage.jpeg, stage.halved, stage.cropped):
        changed = alter(picture)
        assert changed.size == (64, 64)
        assert 0 < np.abs(np.asarray(changed).astype(int) - np.asarray(picture)).mean() < 40
    bars = Image.fromarray(np.repeat(np.arange(40, dtype=np.uint8)[None] * 6, 40, 0)).convert("RGB")
    assert np.asarray(stage.cropped(bars))[0, 0, 0] >= 6, "a margin is gone"
    plain, mixed = gan.sample(3, seed=8, truncation_psi=1.0), stage.mixed(gan, 8, 3)
    assert all(one.tobytes() != other.tobytes() for one, other in zip(plain.images, mixed, strict=True))
    moved = stage.edited(gan, 8, 3)
    assert moved[0].tobytes() == gan.edit(plain[0], {next(iter(gan.directions)): 2.0}).images[0].tobytes()


def test_a_calibration_is_downloaded_with_its_model(monkeypatch, tmp_path: Path) -> None:
    asked = []
    monkeypatch.setattr("hfgan.parts.fetch_folder", lambda name, files, **_: asked.extend(files) or tmp_path)
    assert HFGan.download("me/my-gan") == tmp_path
    assert FILE in asked


def test_a_calibration_is_saved_with_its_own_generator_only(tmp_path: Path) -> None:
    kept = HFGan.from_pretrained(save_toy(tmp_path / "kept", encoder=True), dtype="float32")
    known = calibration(Protocol.of(kept.generator, kept.encoder, load_perceptual()))
    known.save(tmp_path / "kept" / FILE)
    kept.save_pretrained(tmp_path / "copy")
    assert Calibration.read(tmp_path / "copy" / FILE) == known
    with torch.no_grad():
        kept.generator.mapping.w_avg.add_(1)
    kept.save_pretrained(tmp_path / "trained")
    assert not (tmp_path / "trained" / FILE).exists()
