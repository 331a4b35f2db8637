"""The stage `directions`: recipes read strictly, every way of finding, and the model that is written."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from stages import do
from toy import save_toy

from hfgan import HFGan, StyleGAN2Generator, finding, sampling
from hfgan.models.directions import WStats
from hfgan.models.discriminator import StyleGAN2Discriminator
from hfgan.traits import traits

TRAINING = Path(__file__).parents[1] / "training"
sys.path.insert(0, str(TRAINING))
import directions  # noqa: E402
import run  # noqa: E402

SEEDS = {"plus": [1, 2, 3, 4, 5], "minus": [6, 7, 8, 9]}
EVERY = {
    "clicked": SEEDS | {"psi": 0.5},
    "zoom": {"trait": "area"},
    "light": {"trait": "light", "flip": True, "layers": "2-4"},
    "alone": {"trait": "light", "without": ["zoom", "clicked"]},
    "plain": {"trait": "symmetry", "kind": "normal"},
    "between": {"modes": [2, 0]},
    "toward": {"mode": 1},
    "styles": {"channels": [1, 2, 3, 4], "keep": 3},
    "factor": {"sefa": 1, "layers": "0-2"},
    "wide": {"pca": 2, "flip": True},
}


def run_stage(model: Path, recipe: Any, out: Path, *flags: object, fails: bool = False) -> str:
    """Run the stage on a recipe, written as JSON beside `out` unless it is text; returns what it says."""
    path = out.with_suffix(".json")
    path.write_text(recipe if isinstance(recipe, str) else json.dumps(recipe))
    told = do("directions", "--model", str(model), "--recipe", str(path), "--out", str(out), *map(str, flags),
              fails=fails)  # fmt: skip
    assert "Traceback" not in told
    return told


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy(tmp_path_factory.mktemp("models") / "toy-16", num_modes=3, alpha=True)


@pytest.fixture(scope="module")
def found(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stage wrote for EVERY."""
    out = tmp_path_factory.mktemp("runs") / "every"
    run_stage(toy, EVERY, out, "--samples", 300)
    return out


# ---------------------------------------------------------------- found


def test_the_model_has_the_directions_of_the_recipe_in_its_order(toy: Path, found: Path) -> None:
    before, gan = HFGan.from_pretrained(toy), HFGan.from_pretrained(found / "model")
    assert gan.directions.names == list(EVERY)
    assert gan.parts.keys() == before.parts.keys() | {"directions"}
    assert all(gan.part(name).fingerprint() == part.fingerprint() for name, part in before.parts.items())
    assert all(one.fingerprint == gan.generator.fingerprint() for one in gan.directions)
    assert [one.source["recipe"] for one in gan.directions] == list(EVERY.values())
    kinds = ["natural", "natural", "natural", "conditional", "normal", "modes", "modes", "channels", "sefa", "pca"]
    assert [one.kind for one in gan.directions] == kinds
    assert gan.directions["light"].layers == (2, 3, 4)
    assert gan.directions["factor"].layers == (0, 1, 2)


def test_clicked_seeds_are_the_pictures_that_were_shown(found: Path) -> None:
    gan = HFGan.from_pretrained(found / "model")
    w = gan.sample(seeds=[*SEEDS["plus"], *SEEDS["minus"]], truncation_psi=0.5).w_plus[:, 0]
    again = finding.fit_labels("clicked", w, torch.arange(9) < 5, WStats.of(gan.generator))
    one = gan.directions["clicked"]
    torch.testing.assert_close(one.step, again.step, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(one.normal, again.normal, rtol=1e-3, atol=1e-5)
    assert (one.source["n_pos"], one.source["n_neg"]) == (5, 4)


@pytest.mark.parametrize(("name", "trait", "sign"), [("zoom", "area", 1), ("light", "light", -1)])
def test_a_trait_changes_the_way_that_its_name_says(found: Path, name: str, trait: str, sign: int) -> None:
    gan = HFGan.from_pretrained(found / "model", dtype="float32")
    one = gan.directions[name].on(None)
    w_plus = gan.sample(64, seed=500, truncation_psi=0.8).w_plus
    values = []
    for strength in (-1, 0, 1):
        with torch.no_grad():
            image, logit = gan.alpha(gan.generator, w_plus + strength * one.shift(w_plus.shape[1]))
        values.append(sign * traits(image.clamp(-1, 1), logit.sigmoid())[trait].mean().item())
    assert values == sorted(values)
    assert values[0] < values[2]


def test_others_are_left_alone_and_flipped_ones_turned(found: Path) -> None:
    gan = HFGan.from_pretrained(found / "model")
    alone, light = gan.directions["alone"], gan.directions["light"]
    for other in ("zoom", "clicked"):
        assert abs(alone.step[0] @ gan.directions[other].normal) < 1e-4
    torch.testing.assert_close(alone.normal, -light.normal)
    assert alone.step[0] @ alone.normal == pytest.approx(1, abs=1e-3)
    wide, stats = gan.directions["wide"], WStats.of(gan.generator)
    torch.testing.assert_close(wide.step, -finding.pca(stats, 3)[2].step)
    torch.testing.assert_close(gan.directions["factor"].step, finding.sefa(gan.generator, "0-2", 2)[1].step)


def test_modes_lead_where_they_say(found: Path) -> None:
    gan = HFGan.from_pretrained(found / "model")
    centers, one = gan.modes.centers, gan.directions["between"]
    torch.testing.assert_close(one.step[0] * one.source["distance"], centers[0] - centers[2], rtol=1e-3, atol=1e-4)
    assert gan.directions["toward"].source["modes"] == [1]


def test_conditions_may_be_in_the_plain_metric(toy: Path, tmp_path: Path) -> None:
    recipe = {"zoom": {"trait": "area"}, "light": {"trait": "light", "kind": "normal", "without": ["zoom"]}}
    run_stage(toy, recipe, tmp_path / "out", "--samples", 200)
    one = HFGan.from_pretrained(tmp_path / "out" / "model").directions["light"]
    assert (one.kind, one.source["metric"]) == ("conditional", "euclidean")


# ---------------------------------------------------------------- written


def test_what_is_written_is_the_same_again_and_not_done_twice(toy: Path, found: Path, tmp_path: Path) -> None:
    told = run_stage(toy, EVERY, tmp_path / "again", "--samples", 300)
    assert [line.split()[0] for line in told.splitlines()[-len(EVERY) :]] == list(EVERY)
    first, second = contents(found), contents(tmp_path / "again")
    written = {name for name in first if name.startswith("model/")} | {"directions.png"}
    assert {name: first[name] for name in written} == {name: second[name] for name in written}
    report = json.loads((found / "directions.json").read_text())
    assert [row["name"] for row in report["directions"]] == list(EVERY)
    assert report["recipe"] == EVERY
    assert "styles" not in report["correlations"]
    assert report["correlations"]["alone"]["light"] == -1
    assert Image.open(found / "directions.png").size == (14 * 64, len(EVERY) * 78)
    assert "is complete" in run_stage(toy, EVERY, tmp_path / "again", "--samples", 300)
    assert "--samples was 300, now 200" in run_stage(toy, EVERY, tmp_path / "again", "--samples", 200, fails=True)


def test_another_recipe_or_model_in_the_same_place_is_done_anew(toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_stage(toy, {"zoom": {"trait": "area"}}, out, "--samples", 200)
    pair = {"wide": {"pca": 0}, "less": {"pca": 1}}
    run_stage(toy, pair, out, "--samples", 200)
    run_stage(toy, {name: pair[name] for name in ("less", "wide")}, out, "--samples", 200)
    assert HFGan.from_pretrained(out / "model").directions.names == ["less", "wide"]
    run_stage(toy, {"wide": {"pca": 0}}, out, "--samples", 200)
    assert HFGan.from_pretrained(out / "model").directions.names == ["wide"]
    again = save_toy(tmp_path / "a" / "toy", seed=1)
    run_stage(again, {"wide": {"pca": 0}}, tmp_path / "b", "--samples", 200)
    save_toy(again, seed=2)
    run_stage(again, {"wide": {"pca": 0}}, tmp_path / "b", "--samples", 200)
    fingerprint = HFGan.from_pretrained(again).generator.fingerprint()
    assert HFGan.from_pretrained(tmp_path / "b" / "model").generator.fingerprint() == fingerprint


def test_a_model_with_directions_gets_new_ones(found: Path, tmp_path: Path) -> None:
    run_stage(found / "model", {"wide": {"pca": 0}}, tmp_path / "out")
    assert HFGan.from_pretrained(tmp_path / "out" / "model").directions.names == ["wide"]


def test_without_alpha_and_modes_the_rest_works(tmp_path: Path) -> None:
    bare = save_toy(tmp_path / "bare", resolution=32)
    run_stage(bare, {"light": {"trait": "light"}, "clicked": SEEDS}, tmp_path / "out", "--samples", 200)
    assert len(HFGan.from_pretrained(tmp_path / "out" / "model").directions) == 2
    for entry, part in (({"trait": "area"}, "alpha"), ({"mode": 0}, "modes")):
        told = run_stage(bare, {"x": entry}, tmp_path / part, "--samples", 200, fails=True)
        assert f"this model has no {part}" in told


def test_the_discriminator_says_what_is_more_real(toy: Path, tmp_path: Path) -> None:
    gan = HFGan.from_pretrained(toy)
    torch.manual_seed(0)
    judge = StyleGAN2Discriminator(resolution=gan.generator.config.resolution, channel_base=256, channel_max=16)
    HFGan(**gan.parts | {"discriminator": judge}).save_pretrained(tmp_path / "judged")
    run_stage(tmp_path / "judged", {"real": {"trait": "realness"}}, tmp_path / "out", "--samples", 200)
    gan = HFGan.from_pretrained(tmp_path / "out" / "model", dtype="float32")
    w_plus, shift = gan.sample(32, seed=0).w_plus, gan.directions["real"].shift(gan.generator.num_ws)
    with torch.no_grad():
        less, more = (
            torch.cat([gan.discriminator(gan.generator.synthesis(row[None])) for row in w_plus + sign * shift]).mean()
            for sign in (-1, 1)
        )
    assert more > less
    told = run_stage(toy, {"real": {"trait": "realness"}}, tmp_path / "none", "--samples", 200, fails=True)
    assert "this model has no discriminator" in told


def test_grey_and_transparent_models_have_traits_too(tmp_path: Path) -> None:
    for channels in (1, 4):
        torch.manual_seed(0)
        generator = StyleGAN2Generator(resolution=16, img_channels=channels, z_dim=16, w_dim=16, mapping_layers=1,
                                       channel_base=256, channel_max=16)  # fmt: skip
        HFGan(generator=generator).save_pretrained(tmp_path / f"toy-{channels}")
        out = tmp_path / f"out-{channels}"
        run_stage(tmp_path / f"toy-{channels}", {"light": {"trait": "light"}}, out, "--samples", 200)
        assert HFGan.from_pretrained(out / "model").directions.names == ["light"]


# ---------------------------------------------------------------- refused

BROKEN: dict[str, tuple[Any, str]] = {
    "no json": ("{", "is no recipe that can be read"),
    "a list": ([], "holds no recipe"),
    "nothing": ({}, "holds no recipe"),
    "a name twice": ('{"a": {"pca": 0}, "b": {"pca": 1}, "a": {"pca": 2}}', "'a' comes twice: give each its own name"),
    "a bad name": ({"a=b": {"pca": 0}}, "'a=b' is no name of a direction"),
    "no entry": ({"a": 3}, "'a': expected one way to find it, of plus, trait, .*: there is none of them"),
    "no way": ({"a": {"layers": "0-3"}}, "there is none of them"),
    "two ways": ({"a": {"pca": 0, "trait": "area"}}, "there are trait and pca"),
    "an unknown key": ({"a": {"pca": 0, "layer": "0"}}, "'a': unknown key 'layer': beside 'pca' there may be flip, l"),
    "a key of another way": ({"a": {"trait": "area", "psi": 1}}, "unknown key 'psi'"),
    "a key twice": ('{"a": {"pca": 0, "pca": 1}}', "'pca' comes twice"),
    "an unknown trait": ({"a": {"trait": "smile"}}, "'a': unknown trait 'smile': expected one of sharpness"),
    "a list of traits": ({"a": {"trait": ["area"]}}, r"unknown trait \['area'\]"),
    "too few seeds": ({"a": {"plus": [1, 2, 3], "minus": [4, 5, 6, 7]}}, "'a': there are 3 seeds as 'plus'"),
    "no minus": ({"a": {"plus": [1, 2, 3, 4]}}, "there are no seeds as 'minus'"),
    "a seed twice": ({"a": {"plus": [1, 2, 3, 3], "minus": [4, 5, 6, 7]}}, "3 seeds as 'plus'"),
    "a seed on both sides": ({"a": {"plus": [1, 2, 3, 4], "minus": [4, 5, 6, 7]}}, "seed 4 is both in 'plus' and in"),
    "a seed that is none": ({"a": {"plus": [1, 2, 3, -4], "minus": [5, 6, 7, 8]}}, "'a': seed is -4: expected"),
    "few for channels": ({"a": {"channels": [1, 2, 3]}}, "3 seeds as 'channels'"),
    "no channels kept": ({"a": {"channels": [1, 2, 3, 4], "keep": 0}}, "'a': keep is 0: expected"),
    "psi of nothing": ({"a": SEEDS | {"psi": 0}}, "psi is 0: expected the one number"),
    "a pair of psi": ({"a": SEEDS | {"psi": [0.5, 1]}}, r"psi is \[0.5, 1\]"),
    "psi as text": ({"a": SEEDS | {"psi": "0.5"}}, "'a': truncation_psi is '0.5'"),
    "three modes": ({"a": {"modes": [0, 1, 2]}}, "expected two modes"),
    "a mode below 0": ({"a": {"mode": -1}}, "mode is -1: expected a whole number of 0 or more"),
    "half a mode": ({"a": {"modes": [0, 0.5]}}, "modes is 0.5: expected a whole number"),
    "half a component": ({"a": {"sefa": 1.5}}, "sefa is 1.5: expected a whole number"),
    "an unknown kind": ({"a": SEEDS | {"kind": "pca"}}, "kind is 'pca': expected 'natural' or 'normal'"),
    "a list of kinds": ({"a": SEEDS | {"kind": []}}, r"kind is \[\]"),
    "no flip": ({"a": {"pca": 0, "flip": 1}}, "flip is 1: expected true or false"),
    "layers as a list": ({"a": {"pca": 0, "layers": [0]}}, r"layers is \[0\]: expected a string"),
    "without an unknown": ({"a": {"trait": "area", "without": ["b"]}}, r"'a': without is \['b'\]: expected names"),
    "without itself": ({"a": {"trait": "area", "without": ["a"]}}, "expected names of other directions"),
    "without as text": ({"a": {"trait": "area", "without": "b"}, "b": {"pca": 0}}, "without is 'b'"),
}  # fmt: skip
UNFIT: dict[str, tuple[Any, str]] = {
    "from a mode to itself": ({"a": {"modes": [1, 1]}}, "'a' starts where it ends: give two different modes"),
    "a mode that is not there": ({"a": {"modes": [0, 3]}}, "'a' cannot be found: mode is 3"),
    "layers that are not there": ({"a": {"pca": 0, "layers": "5-6"}}, "'a' cannot be on these layers"),
    "a component too far": ({"a": {"pca": 16}}, "'a' cannot be found: count is 17: expected at most 16"),
    "nothing left": ({"a": {"pca": 1}, "b": {"pca": 1, "without": ["a"]}}, "'b' is hardly more than a"),
    "without what nothing measures": (
        {"a": {"channels": [1, 2, 3, 4], "keep": 2}, "b": {"pca": 0, "without": ["a"]}}, "nothing measures a",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_recipes_are_one_sentence(fault: str, tmp_path: Path) -> None:
    recipe, says = BROKEN[fault]
    path = tmp_path / "recipe.json"
    path.write_text(recipe if isinstance(recipe, str) else json.dumps(recipe))
    with pytest.raises(run.UserError, match=says) as caught:
        directions.read_recipe(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", UNFIT)
def test_recipes_that_do_not_fit_the_model_are_one_sentence(toy: Path, fault: str, tmp_path: Path) -> None:
    recipe, says = UNFIT[fault]
    told = run_stage(toy, recipe, tmp_path / "out", "--samples", 200, fails=True)
    assert told.count("\n") == 1
    assert re.search(says, told)
    assert not (tmp_path / "out" / "model").exists()


def test_stage_refuses_what_cannot_be_done(toy: Path, tmp_path: Path) -> None:
    recipe = {"wide": {"pca": 0}}
    assert "--samples is 99: give 100 or more" in run_stage(toy, recipe, tmp_path / "a", "--samples", 99, fails=True)
    inside = save_toy(tmp_path / "run" / "model")
    before = contents(inside)
    assert "would overwrite the model" in run_stage(inside, recipe, tmp_path / "run", fails=True)
    assert contents(inside) == before
    told = do("directions", "--model", str(toy), "--recipe", str(tmp_path / "no.json"), "--out", str(tmp_path / "x"),
              fails=True)  # fmt: skip
    assert "no.json is no recipe that can be read" in told
    assert not (tmp_path / "x").exists()
    classes = save_toy(tmp_path / "classes", c_dim=3)
    told = run_stage(classes, {"a": SEEDS}, tmp_path / "c", fails=True)
    assert "'a' cannot be found: seeds do not say what a model with classes drew" in told
    run_stage(classes, {"light": {"trait": "light"}}, tmp_path / "d", "--samples", 200)


# ---------------------------------------------------------------- the recipes that come along


@pytest.mark.parametrize("path", sorted((TRAINING / "directions").glob("*.json")), ids=lambda path: path.stem)
def test_our_recipes_are_right_for_their_models(path: Path) -> None:
    gan = HFGan.from_pretrained(path.stem)
    for entry in directions.read_recipe(path).values():
        sampling.parse_layers(entry.get("layers", "0"), gan.generator.num_ws)
        assert all(mode < len(gan.modes.counts) for mode in entry.get("modes", []))
