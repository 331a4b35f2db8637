"""The app's modes through its API: the gallery, what is sampled toward, psi sweeps, both truncations side by side."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image
from toy import save_toy

from hfgan import HFGan, app, images
from hfgan.app import studio, toward
from hfgan.captions import caption

NUM_MODES = 5
PSI = [0, 0.25, 0.5, 0.75, 1]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HFGan]:
    """A model with modes and one without, in fp32 so that pictures can be compared."""
    folder = tmp_path_factory.mktemp("models")
    paths = [save_toy(folder / "kinds", num_modes=NUM_MODES), save_toy(folder / "plain", seed=1)]
    return {path.name: HFGan.from_pretrained(path, dtype="float32") for path in paths}


@pytest.fixture(scope="module")
def gan(models) -> HFGan:
    return models["kinds"]


def sample(user: Client, truncation: str, mode: int | None = 0, model: str = "kinds", seed: int = 0) -> tuple:
    return user.predict(model, 3, seed, 0.5, 0, "const", 0, truncation, mode, api_name="/sample")


def pixels(source: str | Path | Image.Image) -> np.ndarray:
    return np.asarray(source if isinstance(source, Image.Image) else Image.open(source)).astype(int)


def look(gallery: list[dict]) -> list[np.ndarray]:
    return [pixels(item["image"]) for item in gallery]


def captions(gallery: list[dict]) -> list[str]:
    return [item["caption"] for item in gallery]


def refused(user: Client, *arguments: object, name: str) -> str:
    """The sentence with which a request is refused: no path, no insides."""
    with pytest.raises(AppError) as error:
        user.predict(*arguments, api_name=name)
    assert not re.search(r"/\w+/|Traceback|\.py", str(error.value))
    return str(error.value)


# ---------------------------------------------------------------- the gallery


def test_modes_are_shown_with_their_shares_largest_first_and_crisp(user: Client, gan: HFGan) -> None:
    shown = user.predict("kinds", api_name="/modes")
    shares = 100 * gan.modes.counts / gan.modes.counts.sum()
    assert captions(shown) == [f"mode {mode} · {share:.1f} %" for mode, share in enumerate(shares)]
    for picture, preview in zip(look(shown), gan.modes.previews, strict=True):
        assert picture.shape == (192, 192, 3)
        assert (picture[::12, ::12] == preview.permute(1, 2, 0).numpy()).all()
        assert (picture == picture[::12, ::12].repeat(12, 0).repeat(12, 1)).all(), "every pixel is a square"


def test_a_model_without_modes_shows_none(user: Client) -> None:
    assert user.predict("plain", api_name="/modes") == []
    assert "nothing" in refused(user, "nothing", name="/modes")


def test_of_very_many_modes_the_largest_are_shown(models, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(studio, "MAX_SHOWN", 2)
    verbs = studio.Studio(models)
    assert [line[:6] for _, line in verbs.modes("kinds")] == ["mode 0", "mode 1"]
    assert [verbs.num_modes(name) for name in models] == [NUM_MODES, 0]
    assert toward.said(256).endswith("one of the 256 modes below")
    assert toward.said(1000).endswith("one of the 1,000 modes, of which the 256 largest are below")


# ---------------------------------------------------------------- sample


@pytest.mark.parametrize(
    ("truncation", "how"),
    [
        ("global", {}),
        ("multimodal", {"truncation": "multimodal"}),
        ("random", {"mode": "random"}),
        ("mode", {"mode": 3}),
    ],
)
def test_sample_is_the_facades_sample_toward_what_is_wanted(user: Client, gan: HFGan, truncation: str, how) -> None:
    gallery, recipes = sample(user, truncation, 3)
    expected = gan.sample(3, seed=0, truncation_psi=0.5, **how)
    assert recipes == expected.recipes
    assert captions(gallery) == [caption(recipe) for recipe in recipes]
    for item, picture in zip(gallery, expected.images, strict=True):
        assert images.read_recipe(item["image"]) in recipes
        assert abs(pixels(item["image"]) - pixels(picture)).max() <= 1
    names = {Path(item["image"]).name for item in gallery}
    assert all("-mode" in name for name in names) == (truncation != "global")


def test_without_a_word_of_modes_truncation_is_global(user: Client) -> None:
    _, recipes = user.predict("kinds", 1, 0, 0.7, 0, "const", 0, api_name="/sample")
    assert recipes[0]["mode"] is None


def test_which_mode_matters_only_where_one_is_wanted(user: Client) -> None:
    assert sample(user, "random", 4999)[1] == sample(user, "random", 0)[1]


@pytest.mark.parametrize(
    ("truncation", "mode", "model", "said"),
    [
        ("mode", NUM_MODES, "kinds", "this model has modes 0 to 4"),
        ("mode", -1, "kinds", "-1"),
        ("mode", 10_000, "kinds", "10000"),
        ("mode", None, "kinds", "mode is None"),
        ("mode", "many", "kinds", ""),
        ("local", 0, "kinds", "local"),
        ("none", 0, "kinds", "none"),
        ("mode", 0, "plain", "plain has no modes: choose a model that has some, or global truncation"),
        ("multimodal", 0, "plain", "plain has no modes"),
        ("random", 0, "plain", "plain has no modes"),
    ],
)
def test_sample_refuses_modes_that_are_not_there(user: Client, truncation, mode, model, said: str) -> None:
    assert said in refused(user, model, 3, 0, 0.5, 0, "const", 0, truncation, mode, name="/sample")


def test_a_mode_without_samples_is_said_to_have_none(models, tmp_path: Path) -> None:
    lonely = HFGan.from_pretrained(save_toy(tmp_path / "lonely", num_modes=2), dtype="float32")
    lonely.modes.centers[1], lonely.modes.counts[1] = 1e3, 0
    with pytest.raises(app.gr.Error, match="fell into mode 1, which held 0 of"):
        studio.Studio({"lonely": lonely}).sample("lonely", 1, truncation="mode", mode=1)


# ---------------------------------------------------------------- psi sweep


def test_a_sweep_leads_from_the_mean_and_from_the_mode_to_the_same_picture(user: Client, gan: HFGan) -> None:
    _, recipes = sample(user, "global")
    first, told, second, told_modes = user.predict("kinds", recipes[1], api_name="/sweep")
    (mode,) = gan.sample(seed=1, truncation="multimodal").modes
    assert [recipe["truncation_psi"] for recipe in told] == PSI
    assert told_modes == [recipe | {"mode": mode, "modes": gan.modes.fingerprint()} for recipe in told]
    assert {recipe["mode"] for recipe in told} == {None}
    assert captions(first) == [f"psi {psi:g}" for psi in PSI]
    assert captions(second) == [f"mode {mode} · psi {psi:g}" for psi in PSI]
    mean, *_, whole = look(first)
    center, *_, as_whole = look(second)
    assert abs(whole - as_whole).max() == 0
    assert abs(mean - pixels(gan.sample(seed=9, truncation_psi=0).images[0])).max() <= 1
    assert abs(center - pixels(gan.sample(seed=9, truncation_psi=0, mode=mode).images[0])).max() <= 1
    assert abs(mean - center).max() > 5


def test_pictures_of_a_sweep_have_names_and_recipes_of_their_own(user: Client, gan: HFGan) -> None:
    _, recipes = sample(user, "global")
    first, told, second, told_modes = user.predict("kinds", recipes[0], api_name="/sweep")
    paths = [Path(item["image"]) for item in (*first, *second)]
    assert len({path.name for path in paths}) == 2 * len(PSI)
    assert paths[1].name == "seed0000-psi0.25.png"
    for path, recipe in zip(paths, [*told, *told_modes], strict=True):
        assert images.read_recipe(path) == recipe
        assert abs(pixels(path) - pixels(gan.replay(path).images[0])).max() <= 1


def test_a_sweep_of_a_picture_from_a_mode_keeps_to_it(user: Client) -> None:
    _, recipes = sample(user, "mode", 4)
    drawn = max(recipes, key=lambda recipe: recipe["draw"])
    assert drawn["draw"] > 0
    _, told, _, told_modes = user.predict("kinds", drawn, api_name="/sweep")
    assert {recipe["mode"] for recipe in told_modes} == {4}
    assert {recipe["draw"] for recipe in (*told, *told_modes)} == {drawn["draw"]}


def test_a_sweep_refuses_what_has_no_mode_of_its_own(user: Client) -> None:
    _, (a, b, _) = sample(user, "global")
    _, mixed, _ = user.predict("kinds", a, b, "0-3", api_name="/mix")
    assert "A was mixed" in refused(user, "kinds", mixed, name="/sweep")
    assert "A is missing" in refused(user, "kinds", None, name="/sweep")
    assert "seed is 'x'" in refused(user, "kinds", a | {"seed": "x"}, name="/sweep")
    assert "plain has no modes" in refused(user, "plain", a, name="/sweep")


# ---------------------------------------------------------------- side by side


def test_the_same_seeds_are_compared_under_both_truncations(user: Client) -> None:
    first, told, second, told_modes = user.predict("kinds", 3, 7, 0.5, 2, "const", 0, api_name="/compare")
    assert captions(first) == ["seed 7", "seed 8", "seed 9"]
    assert captions(second) == [f"seed {recipe['seed']} · mode {recipe['mode']}" for recipe in told_modes]
    for gallery, recipes, truncation in ((first, told, "global"), (second, told_modes, "multimodal")):
        shown, wanted = user.predict("kinds", 3, 7, 0.5, 2, "const", 0, truncation, 0, api_name="/sample")
        assert recipes == wanted == [images.read_recipe(item["image"]) for item in gallery]
        for one, other in zip(look(gallery), look(shown), strict=True):
            assert (one == other).all()
    assert all((one != other).any() for one, other in zip(look(first), look(second), strict=True))


def test_random_seeds_are_the_same_on_both_sides(user: Client) -> None:
    _, told, _, told_modes = user.predict("kinds", 2, None, 0.5, 0, "random", 0, api_name="/compare")
    assert [recipe["seed"] for recipe in told] == [recipe["seed"] for recipe in told_modes]
    assert {recipe["noise_mode"] for recipe in (*told, *told_modes)} == {"random"}


@pytest.mark.parametrize(
    ("position", "value", "said"),
    [(0, "plain", "plain has no modes"), (1, 17, "17"), (2, -1, "-1"), (3, 1.6, "1.6"), (4, 7, "cutoff is 7"),
     (5, "loud", "loud"), (6, 1, "no classes")],
)  # fmt: skip
def test_compare_refuses_what_is_out_of_bounds(user: Client, position: int, value: object, said: str) -> None:
    arguments = ["kinds", 2, 0, 0.7, 0, "const", 0]
    arguments[position] = value
    assert said in refused(user, *arguments, name="/compare")
