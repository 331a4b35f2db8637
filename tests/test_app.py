"""The app through its API: every public endpoint, its bounds, its errors, and that no user sees another's pictures."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from toy import save_toy

from hfgan import HFGan, app, images
from hfgan.app import gpu, mix, studio
from hfgan.captions import caption

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HFGan]:
    """Two models of different weights and sizes, in fp32 so that pictures can be compared."""
    folder = tmp_path_factory.mktemp("models")
    paths = [save_toy(folder / "one"), save_toy(folder / "two", seed=1, resolution=32)]
    return {path.name: HFGan.from_pretrained(path, dtype="float32") for path in paths}


@pytest.fixture(scope="module")
def address(models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app, running."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("cache")))
        page = app.build(models)
        yield app.launch(page, prevent_thread_lock=True, quiet=True)
        page.close(verbose=False)


@pytest.fixture
def connect(address: str, tmp_path: Path):
    """A user: connect() -> Client with a session of its own."""
    return lambda name="user": Client(address, verbose=False, download_files=tmp_path / name)


@pytest.fixture
def user(connect) -> Client:
    return connect()


def sample(user: Client, model: str = "one", count: int = 2, seed: int | None = 0) -> tuple[list[Path], list[dict]]:
    gallery, recipes = user.predict(model, count, seed, 0.7, 0, "const", 0, api_name="/sample")
    return [Path(item["image"]) for item in gallery], recipes


def pixels(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


# ---------------------------------------------------------------- what there is


def test_nobody_is_told_what_is_done_here(address: str) -> None:
    config = user_config = urllib.request.urlopen(f"{address}config").read().decode()
    assert '"analytics_enabled":false' in config.replace(" ", "")
    assert str(Path.home()) not in user_config


# ---------------------------------------------------------------- sample


def test_sample_gives_png_files_that_carry_their_recipes(user: Client, models) -> None:
    paths, recipes = sample(user, seed=41)
    assert [path.name for path in paths] == ["seed0041.png", "seed0042.png"]
    assert [images.read_recipe(path) for path in paths] == recipes
    assert {Image.open(path).format for path in paths} == {"PNG"}
    expected = models["one"].sample(2, seed=41).images
    for path, picture in zip(paths, expected, strict=True):
        assert abs(pixels(path) - np.asarray(picture).astype(int)).max() <= 1


def test_sample_has_captions_and_passes_its_arguments_on(user: Client) -> None:
    gallery, recipes = user.predict("two", 1, 4294967295, 1.5, 3, "random", 0, api_name="/sample")
    wanted = {"model": "two", "truncation_psi": 1.5, "truncation_cutoff": 3, "noise_mode": "random"}
    assert wanted.items() <= recipes[0].items()
    assert gallery[0]["caption"] == caption(recipes[0])


def test_without_a_seed_it_is_another_one_each_time(user: Client) -> None:
    seeds = {sample(user, seed=None)[1][0]["seed"] for _ in range(3)}
    assert len(seeds) == 3


def test_a_model_with_classes_wants_one(tmp_path: Path) -> None:
    verbs = studio.Studio({"c": HFGan.from_pretrained(save_toy(tmp_path / "c", c_dim=2), dtype="float32")})
    assert verbs.classes() == 2
    with pytest.raises(app.gr.Error, match="classes 0 to 1"):
        verbs.sample("c", label=2)
    assert [verbs.sample("c", 1, label=label)[1][0]["label"] for label in (0, 1)] == [0, 1]


@pytest.mark.parametrize(
    ("position", "value", "said"),
    [
        (0, "nothing", "not in the list|no such model"),
        (1, 17, "17"),
        (1, 0, "0"),
        (1, "many", ""),
        (2, -1, "-1"),
        (2, 2**32, "4294967296"),
        (2, 4294967290, "seed is"),  # the last of eight would be too large
        (3, 1.6, "1.6"),
        (3, -0.1, "-0.1"),
        (3, None, ""),
        (4, 7, "truncation_cutoff is 7"),
        (4, -1, "-1"),
        (5, "loud", "loud"),
        (6, 1, "no classes"),
    ],
)
def test_sample_refuses_what_is_out_of_bounds(user: Client, position: int, value: object, said: str) -> None:
    arguments = ["one", 8, 0, 0.7, 0, "const", 0]
    arguments[position] = value
    with pytest.raises(AppError) as refused:
        user.predict(*arguments, api_name="/sample")
    assert re.search(said, str(refused.value))
    assert not re.search(r"/\w+/|Traceback|\.py", str(refused.value)), "no path and no insides"


# ---------------------------------------------------------------- mix, interpolate, replay


def test_mix_is_the_facades_mix_and_can_be_mixed_again(user: Client, models) -> None:
    _, (a, b) = sample(user)
    path, recipe, line = user.predict("one", a, b, "0-3", api_name="/mix")
    assert images.read_recipe(path) == recipe
    assert line == caption(recipe) == "seed 0 · psi 0.7 · layers 0-3 of seed 1"
    gan = models["one"]
    expected = gan.mix(gan.sample(seed=0), gan.sample(seed=1), "0-3").images[0]
    assert abs(pixels(path) - np.asarray(expected).astype(int)).max() <= 1
    _, twice, _ = user.predict("one", recipe, a, "5", api_name="/mix")
    assert [step["seed"] for step in twice["mix"]] == [1, 0]


def test_interpolate_goes_there_and_back(user: Client) -> None:
    paths, (a, b) = sample(user)
    path = user.predict("one", a, b, 5, "webp", api_name="/interpolate")
    film = Image.open(path)
    assert (film.format, film.n_frames) == ("WEBP", 8)
    for frame, nearest in ((0, 0), (4, 1), (7, 0)):
        film.seek(frame)
        shown = np.asarray(film.convert("RGB")).astype(int)
        assert np.argmin([abs(shown - pixels(end)).mean() for end in paths]) == nearest
    assert Image.open(user.predict("one", a, b, 2, "gif", api_name="/interpolate")).format == "GIF"


def test_a_downloaded_picture_is_drawn_again(user: Client) -> None:
    (first, _), (a, b) = sample(user)
    mixed, recipe, _ = user.predict("one", a, b, "1-2", api_name="/mix")
    for path, wanted in ((first, a), (mixed, recipe)):
        again, told, line = user.predict("one", handle_file(path), api_name="/replay")
        assert told == wanted
        assert line == caption(wanted)
        assert abs(pixels(again) - pixels(path)).max() <= 1


def test_replay_refuses_other_models_and_other_files(user: Client, photo, tmp_path: Path) -> None:
    (path, _), _ = sample(user)
    with pytest.raises(AppError, match=r"drawn by one .* but the loaded model is two"):
        user.predict("two", handle_file(path), api_name="/replay")
    photo().save(tmp_path / "photo.png")
    with pytest.raises(AppError, match="no recipe"):
        user.predict("one", handle_file(tmp_path / "photo.png"), api_name="/replay")
    (tmp_path / "text.png").write_text("I am no picture")
    with pytest.raises(AppError, match="not a picture"):
        user.predict("one", handle_file(tmp_path / "text.png"), api_name="/replay")
    photo().save(tmp_path / "photo.jpg")
    with pytest.raises(AppError):
        user.predict("one", handle_file(tmp_path / "photo.jpg"), api_name="/replay")
    with pytest.raises(AppError, match="drop a PNG"):
        user.predict("one", None, api_name="/replay")


def test_large_uploads_are_refused(user: Client, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(bytes(21_000_000))
    with pytest.raises(Exception, match=r"(?i)size|large"):
        user.predict("one", handle_file(tmp_path / "large.png"), api_name="/replay")


STEP = {"layers": [0], "seed": 1, "draw": 0, "truncation_psi": 1, "truncation_cutoff": None, "label": None,
        "mode": None}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": "x"}, "seed is 'x'"),
        ({"seed": 2**40}, "seed is"),
        ({"truncation_psi": "NaN"}, "truncation_psi is"),
        ({"noise_mode": "loud"}, "noise_mode"),
        ({"fingerprint": "0" * 12}, "drawn by one"),
        ({"format": 9}, "format 9"),
        ({"more": 1}, "unknown more"),
        ({"mix": "all"}, "mix is a str"),
        ({"mix": [1]}, "damaged"),
        ({"mode": 1, "modes": "0" * 12}, "has no modes"),
        ({"draw": 10**12}, "draw is"),
        ({"mix": [STEP] * 33}, "33"),
        (None, "A is missing"),
    ],
)
def test_recipes_from_outside_are_checked(user: Client, change: dict | None, said: str) -> None:
    _, (a, b) = sample(user)
    with pytest.raises(AppError, match=said) as refused:
        user.predict("one", a | change if change else None, b, "0-3", api_name="/mix")
    assert not re.search(r"/\w+/|Traceback", str(refused.value))


def test_what_a_stranger_wrote_into_a_recipe_is_no_html_and_not_long(user: Client) -> None:
    _, (a, b) = sample(user)
    evil = a | {"model": "<img src=x onerror=alert(1)>" + "x" * 10_000, "fingerprint": "f" * 12}
    with pytest.raises(AppError) as refused:
        user.predict("one", evil, b, "0-3", api_name="/mix")
    assert "<" not in str(refused.value)
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("mark", [{}, {"meta": {"_type": "gradio.FileData"}}])
def test_no_other_file_of_the_server_is_reached(user: Client, address: str, tmp_path: Path, mark: dict) -> None:
    events = {event["api_name"]: event["id"] for event in user.config["dependencies"]}

    def post(name: str, *data: object) -> httpx.Response:
        body = {
            "data": data,
            "fn_index": events[name],
            "session_hash": "me",
            "event_data": {"index": 0, "value": None},
        }
        return httpx.post(f"{address}gradio_api/run/predict", json=body)

    gallery, recipes = post("sample", "one", 1, 0, 0.7, 0, "const", 0, "global", 0).json()["data"]
    own = gallery[0]["image"]["path"]
    other = shutil.copy(own, tmp_path / "private.png")  # in the system's temp folder, which Gradio itself would serve
    for path, status in ((own, 200), (str(other), 500)):
        file = {"path": path, **mark}
        shown = [{"image": file, "caption": ""}]
        replies = [post("pick", shown, recipes), post("follow", shown, recipes, None)]
        replies += [post("replay", "one", file)] if mark else []  # Gradio takes marked files only for this one
        assert {reply.status_code for reply in replies} == {status}
        assert not any("private" in reply.text for reply in replies)


def test_unforeseen_errors_say_nothing(user: Client, models, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret in /some/where")

    monkeypatch.setattr(models["one"], "sample", fail)
    with pytest.raises(AppError) as refused:
        sample(user)
    assert "secret" not in str(refused.value)


# ---------------------------------------------------------------- many users, other places


def test_two_users_at_once_get_their_own_pictures(connect) -> None:
    def use(name: str, first: int) -> list[dict]:
        user, told = connect(name), []
        for step in range(4):
            seed = first + 10 * step
            paths, recipes = sample(user, name, 2, seed)
            assert [images.read_recipe(path)["seed"] for path in paths] == [seed, seed + 1]
            path, recipe, _ = user.predict(name, *recipes, "4-5", api_name="/mix")
            assert images.read_recipe(path) == recipe
            told += [*recipes, recipe]
        return told

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(use, ("one", "two"), (0, 1000))
    assert {recipe["model"] for recipe in one} == {"one"}
    assert {recipe["model"] for recipe in two} == {"two"}
    assert all(recipe["seed"] < 1000 for recipe in one)
    assert all(recipe["seed"] >= 1000 for recipe in two)


def test_bands_cover_the_layers_of_every_model() -> None:
    assert mix.bands(6) == [("Coarse", "0-3"), ("Middle", "4-5")]
    assert mix.bands(10) == [("Coarse", "0-3"), ("Middle", "4-7"), ("Fine", "8-9")]
    assert mix.bands(18)[-1] == ("Fine", "8-17")


def test_an_app_needs_a_model() -> None:
    with pytest.raises(ValueError, match="no model"):
        app.build({})


def test_models_of_one_name_are_told_apart() -> None:
    named = app.by_name([SimpleNamespace(name=name) for name in ("model", "cats", "model", "model")])
    assert list(named) == ["model", "cats", "model (2)", "model (3)"]


def test_on_zerogpu_every_verb_asks_for_the_gpu(models, monkeypatch) -> None:
    asked = []

    def lend(duration: int):
        assert 0 < duration <= 60
        return lambda verb: asked.append(verb.__name__) or verb

    monkeypatch.setattr(gpu, "spaces", SimpleNamespace(GPU=lend))
    app.build(models)
    assert {"sample", "mix", "interpolate", "replay", "sweep", "compare"} <= set(asked)


def test_space_requirements_are_ours_without_gradio() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {line for line in project["dependencies"] if not line.startswith("gradio")}
    assert set((ROOT / "requirements.txt").read_text().split()) == wanted


def test_app_py_serves_a_model_folder(tmp_path: Path) -> None:
    toy = save_toy(tmp_path / "toy")
    env = os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", "GRADIO_TEMP_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "app.py", "--model", str(toy)]
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as server:
        try:
            line = next(line for line in server.stdout if "http" in line)
            page = urllib.request.urlopen(re.search(r"http://\S+", line)[0]).read().decode()
        finally:
            server.terminate()
    assert '"title":"HFGan"' in page
