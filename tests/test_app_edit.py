"""The app's edits: the public endpoints, steps back and forth, directions from clicks, and what is saved."""

from __future__ import annotations

import dataclasses
import html
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import httpx
import numpy as np
import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image, ImageSequence
from toy import save_toy

from hfgan import DirectionSet, HFGan, WStats, app, images
from hfgan.app import edit, editor, finder, gpu, inverter, work
from hfgan.app.studio import Studio, draw_again
from hfgan.captions import caption
from hfgan.editing import Edit
from hfgan.finding import fit_labels, pca

QUALITIES = {"age": "weak", "smile": "strong", "glasses": "usable", "Beard": "strong", "zoom": None}
REST = (0.0,) * work.SLIDERS


def with_directions(gan: HFGan) -> HFGan:
    """The same with its principal components as directions of known quality, "smile" on the first layers alone."""
    components = pca(WStats.of(gan.generator, 500), len(QUALITIES), gan.generator.fingerprint())
    named = [replace(one.named(name), source={"quality": quality} if quality else {})
             for one, (name, quality) in zip(components, QUALITIES.items(), strict=True)]  # fmt: skip
    named[1] = named[1].on(range(4))
    gan.register_modules(directions=DirectionSet.of(named, gan.generator))
    return gan


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HFGan]:
    """A model that can do all, and one that has nothing but a generator."""
    folder = tmp_path_factory.mktemp("models")
    paths = [save_toy(folder / "all", alpha=True, encoder=True), save_toy(folder / "plain", seed=1)]
    found = {path.name: HFGan.from_pretrained(path, dtype="float32") for path in paths}
    with_directions(found["all"])
    return found


@pytest.fixture(scope="module")
def gan(models) -> HFGan:
    return models["all"]


@pytest.fixture(scope="module")
def studio(models, cache) -> Studio:
    return Studio(models)


@pytest.fixture(scope="module")
def verbs(studio) -> editor.Editor:
    return editor.Editor(studio)


@pytest.fixture(scope="module")
def finds(studio) -> finder.Finder:
    return finder.Finder(studio)


@pytest.fixture
def kept(studio, cache: Path, tmp_path: Path, photo) -> Callable[..., inverter.Kept]:
    """kept(*box) -> a photo as tab Invert keeps it, of which that box mattered."""

    def invert(*box: float) -> inverter.Kept:
        path = cache / tmp_path.name / "me.png"
        path.parent.mkdir(exist_ok=True)
        photo(60, 48).save(path)
        word = "box" if box else "everything"
        return inverter.Inverter(studio).find("all", str(path), word, None, *(box or (0, 0, 1, 1)), None)[0]

    return invert


def pixels(source: str | Path | Image.Image) -> np.ndarray:
    return np.asarray(source if isinstance(source, Image.Image) else Image.open(source)).astype(int)


def recipe(gan: HFGan, seed: int = 3) -> dict:
    return gan.sample(seed=seed).recipes[0]


def slid(at: work.Work, studio: Studio, **strengths: float) -> list[float]:
    """Values of all sliders, of which these are moved."""
    seen = work.slots(work.known(at.own, studio.directions(at.model)), at.now)
    values = [strengths.get(one.name, at.now.strength(one.name) if at.now else 0.0) for one in seen]
    return [*values, *REST[len(values) :]]


def refused(user: Client, *arguments: object, api_name: str = "/edit") -> str:
    """The sentence with which a request is refused: no path, no insides."""
    with pytest.raises(AppError) as error:
        user.predict(*arguments, api_name=api_name)
    said = html.unescape(str(error.value))
    assert not re.search(r"/\w+/|Traceback|\.py", said.replace("training/train.py", ""))
    return said


# ---------------------------------------------------------------- the public endpoints


def test_an_edit_is_what_python_draws_and_carries_its_recipe(user: Client, gan: HFGan) -> None:
    told = recipe(gan)
    for edits, how in (({"smile": 2}, {}), ({"smile": -1.5, "age": 1}, {"layers": "2-4"}),
                       ({"age": 2}, {"region": "alpha"}), ({"age": 1}, {"to": True})):  # fmt: skip
        file, said = user.predict("all", edits, told, **how, api_name="/edit")
        wanted = gan.edit(gan.replay(told), edits, **how)
        assert (pixels(file) == pixels(wanted.images[0])).all()
        assert images.read_recipe(file) == said == wanted.recipes[0]
        assert (pixels(gan.replay(file).images[0]) == pixels(file)).all()


def test_a_photo_is_edited_by_its_latent(user: Client, gan: HFGan, photo, tmp_path: Path) -> None:
    photo().save(tmp_path / "me.png")
    *_, latent, _ = user.predict("all", handle_file(tmp_path / "me.png"), api_name="/invert")
    file, said = user.predict("all", {"smile": 2}, None, handle_file(latent), api_name="/edit")
    assert (pixels(file) == pixels(gan.edit(gan.read_latents(latent), {"smile": 2}).images[0])).all()
    further, _ = user.predict("all", {"age": 1}, said, api_name="/edit")
    assert (pixels(further) == pixels(gan.edit(gan.replay(file), {"age": 1}).images[0])).all()


def test_a_direction_that_was_found_is_an_edit(user: Client, gan: HFGan) -> None:
    out = gan.sample(seeds=range(200), truncation_psi=0.8)
    order = gan.directions["age"].coordinate(out.w_plus[:, 0]).argsort().tolist()
    direction, said = user.predict("all", "old", order[-20:], order[:20], api_name="/find_direction")
    assert said["quality"] == "strong"
    assert (said["n_pos"], said["n_neg"]) == (20, 20)
    file, told = user.predict("all", [direction | {"strength": 2}], recipe(gan), api_name="/edit")
    (used,) = told["edits"]
    assert (used["name"], used["strength"]) == ("old", 2)
    before, after = (gan.directions["age"].coordinate(w) for w in
                     (gan.replay(recipe(gan)).w_plus, gan.replay(file).w_plus))  # fmt: skip
    assert after - before > 1.5


def test_what_cannot_be_edited_is_said(user: Client, gan: HFGan, models, tmp_path: Path) -> None:
    told = recipe(gan)
    (tmp_path / "a.safetensors").write_text("I am none")
    assert "no direction 'simle': this model has age, smile" in refused(user, "all", {"simle": 1}, told)
    assert "has no directions, so none called 'smile'" in refused(user, "plain", {"smile": 1}, recipe(models["plain"]))
    for strength in ("much", None, 1e9, [1]):
        assert "expected a number" in refused(user, "all", {"smile": strength}, told)
    assert "give a recipe or a latent" in refused(user, "all", {"smile": 1})
    assert "expected" in refused(user, "all", "smile", told)
    assert "lacks" in refused(user, "all", [{"name": "smile"}], told)
    assert "within 0-5" in refused(user, "all", {"smile": 1}, told, None, "whole", "0-9")
    assert "but the loaded model is plain" in refused(user, "plain", [], told)
    assert "a.safetensors" in refused(user, "all", {"smile": 1}, None, handle_file(tmp_path / "a.safetensors"))
    assert "interest" in refused(user, "all", {"smile": 1}, told, None, "interest")
    find = {"api_name": "/find_direction"}
    assert "label 4 or more of each" in refused(user, "all", "old", [1, 2, 3], [4, 5, 6], **find)
    assert "seed 2 is in plus and in minus" in refused(user, "all", "old", [1, 2, 3, 4], [2, 5, 6, 7], **find)
    assert "plus has seed 1 more than once" in refused(user, "all", "old", [1, 1, 1, 1], [2, 2, 2, 2], **find)
    assert "minus has seed 7 more than once" in refused(user, "all", "old", [1, 2, 3, 4], [7, 5, 6, 7], **find)
    assert "plus is no list" in refused(user, "all", "old", 3, [4], **find)
    assert "minus is no list" in refused(user, "all", "old", [3], [], **find)
    assert "has a direction 'age' already" in refused(user, "all", "age", [1, 2, 3, 4], [5, 6, 7, 8], **find)
    assert "name" in refused(user, "all", " ", [1, 2, 3, 4], [5, 6, 7, 8], **find)
    for seed in ("a", [1], None, -1):
        assert "whole number" in refused(user, "all", "old", [1, seed, 3, 4], [5, 6, 7, 8], **find)


@pytest.mark.parametrize("mark", [{}, {"meta": {"_type": "gradio.FileData"}}])
def test_no_other_file_of_the_server_is_read(user: Client, address: str, gan, kept, tmp_path: Path, mark) -> None:
    event = next(event["id"] for event in user.config["dependencies"] if event["api_name"] == "edit")
    kept().found.save(tmp_path / "private.safetensors")
    other = {"path": str(tmp_path / "private.safetensors"), **mark}
    data = ["all", {"smile": 1}, None, other, "whole", "", False]
    body = {"data": data, "fn_index": event, "session_hash": "me"}
    reply = httpx.post(f"{address}gradio_api/run/predict", json=body)
    assert reply.status_code == 500
    assert "private" not in reply.text


# ---------------------------------------------------------------- begin


def test_a_picture_is_taken_from_anywhere(verbs, gan: HFGan, kept, studio) -> None:
    first = verbs.take(None, "all", recipe(gan, 5))
    assert (pixels(first.out.images[0]) == pixels(gan.sample(seed=5).images[0])).all()
    assert editor.tell(first) == "seed 5 · psi 0.7"
    second = verbs.take_seed(first, "all", 8)
    assert editor.tell(second) == "seed 8 · psi 0.7"
    assert verbs.take_seed(None, "all", None).now.title.startswith("seed ")
    photo = kept()
    third = verbs.take_inverted(second, "all", photo)
    assert torch.equal(third.out.w_plus, photo.found.w_plus)
    assert editor.tell(third) == "photo me"
    assert [step.said for step in third.steps] == ["start"] * 3
    assert Image.open(third.files[2]).size == (60, 48)
    edited = verbs.turn(first, "all", None, *slid(first, studio, smile=2))
    again = verbs.take(None, "all", edited.out.recipes[0])
    assert (pixels(again.out.images[0]) == pixels(edited.out.images[0])).all()
    assert editor.tell(again) == "seed 5 · psi 0.7 · smile +2"


def test_what_is_edited_or_inverted_is_at_hand_elsewhere(verbs, gan: HFGan, studio, kept) -> None:
    worked = verbs.turn(verbs.take_seed(None, "all", 3), "all", None, 1.5)
    for out, given in (
        (worked.out, verbs.keep(worked)),
        (gan.edit(kept().found, ()), verbs.keep_inverted("all", kept())),
    ):
        file, recipe, _ = given
        assert (np.asarray(Image.open(file)) == np.asarray(out.images[0])).all()
        assert images.read_recipe(file) == recipe == out.recipes[0]
        mixed, told, _ = studio.mix("all", recipe, gan.sample(1, seed=9).recipes[0], "0-3")
        assert images.read_recipe(mixed) == told
        assert gan.cutout(draw_again(gan, recipe, "A")).image.size == out.images[0].size
    for verb, given in ((verbs.keep, (None,)), (verbs.keep_inverted, ("all", None))):
        with pytest.raises(gr.Error, match=r"nothing is (edited|inverted) yet"):
            verb(*given)
    fitted = replace(worked, out=replace(worked.out, recipes=[None]))
    with pytest.raises(gr.Error, match="no recipe, as noise or weights were fitted"):
        verbs.keep(fitted)


def test_a_slider_begins_with_picture_a(verbs, gan: HFGan, studio) -> None:
    at = verbs.turn(None, "all", recipe(gan), *slid(work.Work("all"), studio, smile=2))
    assert (pixels(at.out.images[0]) == pixels(gan.edit(gan.sample(seed=3), {"smile": 2}).images[0])).all()
    assert [step.said for step in at.steps] == ["start", "smile +2σ"]
    with pytest.raises(app.gr.Error, match="choose a picture"):
        verbs.turn(None, "all", None, 1.0)


# ---------------------------------------------------------------- move, go back


def test_moves_add_up_in_any_order_and_can_be_undone(verbs, gan: HFGan, studio, monkeypatch) -> None:
    monkeypatch.setattr(editor, "PAUSE", 0)
    start = verbs.take(None, "all", recipe(gan))
    one = verbs.turn(start, "all", None, *slid(start, studio, smile=1))
    two = verbs.turn(one, "all", None, *slid(one, studio, age=-1.5))
    three = verbs.turn(two, "all", None, *slid(two, studio, smile=2))
    wanted = gan.edit(gan.sample(seed=3), {"age": -1.5, "smile": 2})
    assert (pixels(three.out.images[0]) == pixels(wanted.images[0])).all()
    assert [step.said for step in three.steps] == ["start", "smile +1σ", "age −1.5σ", "smile +2σ"]
    assert editor.tell(three) == "seed 3 · psi 0.7 · **age** −1.5σ · **smile** +2σ"
    assert len({step.small for step in three.steps}) == 4

    back = verbs.undo(three, "all")
    assert (pixels(back.out.images[0]) == pixels(two.out.images[0])).all()
    assert slid(back, studio) == slid(two, studio)
    assert (pixels(verbs.redo(back, "all").out.images[0]) == pixels(three.out.images[0])).all()
    first = verbs.go(three, "all", 0)
    assert (pixels(first.out.images[0]) == pixels(gan.sample(seed=3).images[0])).all()
    other = verbs.turn(first, "all", None, *slid(first, studio, glasses=1))
    assert [step.said for step in other.steps] == ["start", "glasses +1σ"]
    reset = verbs.reset(three, "all")
    assert (pixels(reset.out.images[0]) == pixels(first.out.images[0])).all()
    assert len(reset.steps) == 5
    for to in (-1, 5):
        with pytest.raises(app.gr.Error, match="no such step"):
            verbs.go(reset, "all", to)


def test_a_slider_that_is_dragged_is_one_step(verbs, gan: HFGan, studio, monkeypatch) -> None:
    monkeypatch.setattr(editor, "PAUSE", 60)
    at = verbs.take(None, "all", recipe(gan))
    for strength in (0.1, 0.2, 0.9):
        at = verbs.turn(at, "all", None, *slid(at, studio, smile=strength))
    assert [step.said for step in at.steps] == ["start", "smile +0.9σ"]
    at = verbs.turn(at, "all", None, *slid(at, studio, age=1))
    at = verbs.turn(at, "all", None, *slid(at, studio, smile=1))
    assert len(at.steps) == 4
    assert verbs.turn(at, "all", None, *slid(at, studio)) is at, "nothing was moved"
    back = verbs.undo(at, "all")
    assert len(verbs.turn(back, "all", None, *slid(back, studio, smile=2)).steps) == 4, "it is another move"


def test_what_a_page_keeps_holds_no_network(verbs, gan: HFGan, studio, kept) -> None:
    """Networks belong to the server: one in the state of each page would be a copy for each user."""
    sampled = verbs.turn(None, "all", recipe(gan), *slid(work.Work("all"), studio, smile=2))
    photo = kept(0.2, 0, 0.8, 1)
    for held in (sampled, photo):
        found, left = [], [held]
        while left:
            one = left.pop()
            found.append(one)
            left += one.values() if isinstance(one, dict) else one if isinstance(one, list | tuple) else []
            left += vars(one).values() if dataclasses.is_dataclass(one) and not isinstance(one, type) else []
        assert any(isinstance(one, torch.Tensor) for one in found)
        assert not [one for one in found if isinstance(one, torch.nn.Module | HFGan)]


def test_steps_do_not_pile_up(verbs, gan: HFGan, studio, monkeypatch) -> None:
    monkeypatch.setattr(work, "MAX_STEPS", 3)
    at = verbs.take(None, "all", recipe(gan))
    for name in ("smile", "age", "glasses", "zoom"):
        at = verbs.turn(at, "all", None, *slid(at, studio, **{name: 1}))
    assert [step.said for step in at.steps] == ["age +1σ", "glasses +1σ", "zoom +1σ"]
    assert (at.at, editor.tell(at).count("+1σ")) == (2, 4)


def test_only_the_subject_changes(verbs, gan: HFGan, studio) -> None:
    at = verbs.turn(None, "all", recipe(gan), *slid(work.Work("all"), studio, age=2))
    whole = pixels(at.out.images[0])
    at = verbs.limit(at, "all", None, "alpha")
    wanted = gan.edit(gan.sample(seed=3), {"age": 2}, region="alpha")
    assert (pixels(at.out.images[0]) == pixels(wanted.images[0])).all()
    outside = (wanted.region[0, 0] == 0).numpy()
    assert (pixels(at.out.images[0]) == pixels(gan.sample(seed=3).images[0]))[outside].all()
    assert (whole != pixels(gan.sample(seed=3).images[0]))[outside].any()
    assert at.now.said == "subject"
    assert editor.tell(at).endswith("within: subject")
    with pytest.raises(app.gr.Error, match="no region 'interest'"):
        verbs.limit(at, "all", None, "interest")


def test_only_what_mattered_of_a_photo_changes(verbs, gan: HFGan, studio, kept) -> None:
    photo = kept(0.3, 0.2, 0.8, 0.9)
    at = verbs.take_inverted(None, "all", photo)
    assert work.regions(studio, at) == ["whole", "alpha", "interest"]
    at = verbs.limit(at, "all", None, "interest")
    at = verbs.turn(at, "all", None, *slid(at, studio, smile=2))
    wanted = gan.edit(photo.full(), {"smile": 2}, region="interest")
    assert (pixels(at.out.images[0]) == pixels(wanted.images[0])).all()
    file = verbs.export("pasted", at)
    assert Path(file).name == "me-edited-pasted.png"
    assert (pixels(file) == pixels(wanted.pasted()[0])).all()
    with pytest.raises(ValueError, match="no recipe"):
        images.read_recipe(file)
    assert Image.open(file).size == (60, 48)
    assert work.regions(studio, verbs.take_inverted(None, "all", kept())) == ["whole", "alpha"]


def test_styles_are_mixed_under_what_moves_the_picture(verbs, gan: HFGan, studio, kept) -> None:
    at = verbs.turn(None, "all", recipe(gan), *slid(work.Work("all"), studio, age=2))
    mixed = gan.mix(gan.sample(seed=3), gan.sample(seed=9), "3-5")
    for other, seed in (("seed", 9), ("b", None)):
        found = verbs.mix(at, "all", None, recipe(gan, 9), other, seed, "3-5")
        assert (pixels(found.out.images[0]) == pixels(gan.edit(mixed, {"age": 2}).images[0])).all()
    assert editor.tell(found) == "seed 3 · psi 0.7 · layers 3-5 of B · **age** +2σ"
    photo = kept()
    found = verbs.mix(verbs.take_inverted(None, "all", photo), "all", None, None, "seed", 9, "4-5")
    wanted = gan.mix(photo.found, gan.sample(seed=9), "4-5")
    assert (pixels(found.out.images[0]) == pixels(wanted.images[0])).all()
    assert Image.open(verbs.export("pasted", found)).size == (60, 48)
    for layers in ("0-9", "all", ""):
        with pytest.raises(app.gr.Error, match="layers is"):
            verbs.mix(at, "all", None, None, "seed", 9, layers)


# ---------------------------------------------------------------- directions


def test_sliders_are_for_the_best_and_for_what_moves(gan: HFGan) -> None:
    models = list(gan.directions)
    assert [one.name for one in work.known((), models)] == ["Beard", "smile", "glasses", "age", "zoom"]
    room = work.SLIDERS
    assert room >= 15 + work.MAX_OWN, "all of hfaces-64, and all of one's own"
    many = [models[0].named(f"d{k:02d}") for k in range(room + 8)]
    step = work.Step(gan.sample(seed=0), "", (Edit(many[room + 5], 1.0),))
    assert [one.name for one in work.slots(many, None)] == [f"d{k:02d}" for k in range(room)]
    assert [one.name for one in work.slots(many, step)] == [*(f"d{k:02d}" for k in range(room - 1)), f"d{room + 5}"]
    assert work.describe(gan.directions["smile"]) == "strong · layers 0-3"
    assert work.describe(gan.directions["zoom"]) == "all layers"


def test_clicks_become_a_direction_with_a_slider(verbs, finds, gan: HFGan, studio) -> None:
    grid = finds.more(None, "all")
    assert [told for _, told in grid.shown()] == [f"seed {seed}" for seed in range(24)]
    assert finds.mark(finds.mark(grid, 1), 1).shown()[1][1] == "− seed 1"
    assert finds.mark(finds.mark(finds.mark(grid, 1), 1), 1).marks == grid.marks
    grid = finds.more(grid, "all")
    assert len(grid.seeds) == len(set(grid.files)) == 48
    order = gan.directions["age"].coordinate(grid.w).argsort().tolist()
    for index in order[-10:]:
        grid = finds.mark(grid, index)
    assert grid.said() == "**10 +** and **0 −**: mark 8 or more of each"
    with pytest.raises(app.gr.Error, match="10 samples with 'old' and 0 without"):
        finds.fit(None, "all", grid, "old")
    for index in order[:10] * 2:
        grid = finds.mark(grid, index)
    assert "press *Fit*" in grid.said()
    for name, why in (("age", "already"), ("", "name"), (None, "name"), ("a=b", "name")):
        with pytest.raises(app.gr.Error, match=why):
            finds.fit(None, "all", grid, name)
    at = verbs.take(None, "all", recipe(gan))
    at, said = finds.fit(at, "all", grid, " old ")
    assert re.match(r"\*\*old\*\* is \*\*(weak|usable|strong)\*\*: it tells \d+ %", said)
    assert [one.name for one in at.own] == ["old"]
    assert work.slots(work.known(at.own, studio.directions("all")), at.now)[0].name == "old"
    moved = verbs.turn(at, "all", None, *slid(at, studio, old=2))
    measured = gan.directions["age"].coordinate(torch.cat([at.out.w_plus, moved.out.w_plus])).tolist()
    assert measured[1] - measured[0] > 1
    assert (pixels(gan.replay(verbs.export("picture", moved)).images[0]) == pixels(moved.out.images[0])).all()
    again, _ = finds.fit(moved, "all", grid, "old")
    assert [one.name for one in again.own] == ["old"]


def test_what_is_found_again_moves_the_picture_anew(verbs, finds, gan: HFGan, studio) -> None:
    first, second = pca(WStats.of(gan.generator, 500), 2, gan.generator.fingerprint())
    at, _ = finds.keep(verbs.take(None, "all", recipe(gan)), "all", first, "turns")
    at = verbs.turn(at, "all", None, *slid(at, studio, turns=2))
    at = verbs.turn(at, "all", None, *slid(at, studio, age=1))
    again, _ = finds.keep(at, "all", second, "turns")
    wanted = gan.edit(gan.sample(seed=3), [Edit(second.named("turns"), 2.0), Edit(gan.directions["age"], 1.0)])
    assert (pixels(again.out.images[0]) == pixels(wanted.images[0])).all()
    assert (pixels(again.out.images[0]) != pixels(at.out.images[0])).any()
    assert again.files != at.files
    assert [a.small == b.small for a, b in zip(at.steps, again.steps, strict=True)] == [True, False, False]
    assert slid(again, studio) == slid(at, studio)
    back = verbs.undo(again, "all")
    wanted = gan.edit(gan.sample(seed=3), [Edit(second.named("turns"), 2.0)])
    assert (pixels(back.out.images[0]) == pixels(wanted.images[0])).all(), "steps before it, too"


def test_a_direction_that_moves_a_picture_is_not_dropped(verbs, finds, gan: HFGan, studio, monkeypatch) -> None:
    monkeypatch.setattr(work, "MAX_OWN", 2)
    (found,) = pca(WStats.of(gan.generator, 500), 1, gan.generator.fingerprint())
    at, _ = finds.keep(verbs.take(None, "all", recipe(gan)), "all", found, "one")
    at = verbs.turn(at, "all", None, *slid(at, studio, one=1))
    for name in ("two", "three"):
        at, _ = finds.keep(at, "all", found, name)
    assert [one.name for one in at.own] == ["three", "one"], "the older one moves the picture"
    at = verbs.turn(at, "all", None, *slid(at, studio, three=1))
    with pytest.raises(app.gr.Error, match="your 2 directions all move a step: give the name of one"):
        finds.keep(verbs.undo(at, "all"), "all", found, "four")
    assert [one.name for one in finds.keep(at, "all", found, "one")[0].own] == ["one", "three"]


def test_there_are_so_many_pictures_to_mark(finds, monkeypatch) -> None:
    monkeypatch.setattr(finder, "MOST", 24)
    grid = finds.more(None, "all")
    with pytest.raises(app.gr.Error, match="24 pictures already"):
        finds.more(grid, "all")
    for nothing in (None, grid):
        with pytest.raises(app.gr.Error, match="no picture is marked yet"):
            finds.fit(None, "all", nothing, "old")


def test_unnamed_directions_are_seen_and_named(verbs, finds, gan: HFGan, studio) -> None:
    told = recipe(gan)
    for kind, number, layers in (("pca", 2, ""), ("sefa", 0, "4-5"), ("sefa", 3, "")):
        found, strip = finds.browse(None, "all", told, kind, number, layers)
        assert (found.name, found.kind) == (f"{kind}-{number}", kind)
        assert [told for _, told in strip] == ["−3σ", "−2σ", "−1σ", "0σ", "+1σ", "+2σ", "+3σ"]
        wanted = gan.strip(gan.sample(seed=3), found, to=False)
        assert (pixels(strip[3][0])[::16, ::16] == pixels(gan.replay(told).images[0])).all(), "the picture at hand"
        assert (pixels(strip[6][0])[::16, ::16] == pixels(wanted.images[6])).all()
    assert found.layers == (0, 1, 2, 3, 4)
    assert finds.browse(None, "all", told, "sefa", 0, "4-5")[0].layers == (4,)
    with pytest.raises(app.gr.Error, match="this model has numbers 0 to 15"):
        finds.browse(None, "all", told, "pca", 16, "")
    at, said = finds.keep(None, "all", found, "turns")
    assert said == "**turns** has its slider above"
    assert slid(at, studio, turns=1)[0] == 1
    assert finds.keep(None, "all", found, "")[0].own[0].name == "sefa-3"
    with pytest.raises(app.gr.Error, match="press Show first"):
        finds.keep(None, "all", None, "turns")


# ---------------------------------------------------------------- strip, video, files


def test_strips_and_videos_go_all_the_way(verbs, gan: HFGan, studio) -> None:
    at = verbs.turn(None, "all", recipe(gan), *slid(work.Work("all"), studio, age=2))
    edited = gan.edit(gan.sample(seed=3), {"age": 2})
    w = gan.sample(seeds=range(40)).w_plus[:, 0]
    labels = gan.directions["smile"].coordinate(w) > 0
    measured = fit_labels("rosy", w, labels, WStats.of(gan.generator, 500), fingerprint=gan.generator.fingerprint())
    at = at.with_own(measured)
    further = [Edit(gan.directions["age"], 2.0), Edit(measured, 3.0)]
    assert measured.normal is not None, "of which a strip goes to values where it is not told"
    for way, wanted, last in (("direction", gan.edit(gan.sample(seed=3), further).images, "+3σ"),
                              ("seed", gan.morph(edited, gan.sample(seed=8), 9).images, "100 %"),
                              ("b", gan.morph(edited, gan.sample(seed=7), 9).images, "100 %")):  # fmt: skip
        told, strip, video, line = verbs.film(at, "all", None, recipe(gan, 7), way, "rosy", 8, 9, "gif")
        assert line == ""
        assert len(strip) == work.SEEN
        assert strip[-1][1] == last
        if way == "direction":
            assert (pixels(strip[3][0])[::16, ::16] == pixels(edited.images[0])).all(), "it is the middle one"
        assert (pixels(strip[-1][0])[::16, ::16] == pixels(wanted[-1])).all()
        assert Image.open(video).n_frames == 16, "there and back"
        sheet = pixels(verbs.export("strip", told))
        assert sheet.shape == (16, 7 * 16, 3)
        assert (sheet[:, -16:] == pixels(wanted[-1])).all()
        assert verbs.export("video", told) == video
    assert [Path(file).name for file in told.film] == ["seed0003-edited-strip.png", "seed0003-edited-way.gif"]
    _, _, video, _ = verbs.film(at, "all", None, None, "seed", None, 1, 7, "webp")
    assert len(list(ImageSequence.Iterator(Image.open(video)))) == 12
    with pytest.raises(app.gr.Error, match="no direction is chosen"):
        verbs.film(at, "all", None, None, "direction", None, 1, 7, "webp")
    with pytest.raises(app.gr.Error, match="B is missing"):
        verbs.film(at, "all", None, None, "b", None, 1, 7, "webp")


def test_a_way_to_another_picture_says_that_it_keeps_no_region(verbs, gan: HFGan, studio) -> None:
    at = verbs.turn(None, "all", recipe(gan), *slid(work.Work("all"), studio, age=2))
    at = verbs.limit(at, "all", None, "alpha")
    further = verbs.take(None, "all", at.out.recipes[0])
    further = verbs.turn(further, "all", None, *slid(further, studio, smile=1))
    for limited in (at, further):
        for way in ("seed", "b"):
            assert verbs.film(limited, "all", None, recipe(gan, 7), way, None, 8, 7, "gif")[3] == editor.WHOLE
        for name in ("smile", "age"):
            _, strip, _, line = verbs.film(limited, "all", None, None, "direction", name, 8, 7, "gif")
            assert line == ""
            assert (pixels(strip[3][0])[::16, ::16] == pixels(limited.out.images[0])).all()


def test_what_is_saved_can_be_drawn_again(verbs, gan: HFGan, studio) -> None:
    at = verbs.turn(None, "all", recipe(gan), *slid(work.Work("all"), studio, age=2))
    at = verbs.limit(at, "all", None, "alpha")
    picture, told = verbs.export("picture", at), verbs.export("recipe", at)
    assert [Path(file).name for file in (picture, told)] == ["seed0003-edited.png", "seed0003-edited.json"]
    for source in (picture, json.loads(Path(told).read_text())):
        assert (pixels(gan.replay(source).images[0]) == pixels(picture)).all()
    again, said, line = studio.replay("all", Path(picture).read_bytes())
    assert (pixels(again) == pixels(picture)).all()
    assert said == json.loads(Path(told).read_text())
    assert line == "seed 3 · psi 0.7 · age +2"
    named = said | {"edits": [said["edits"][0] | {"name": "![a](//b.c) <i>_d_"}]}
    assert caption(named) == "seed 3 · psi 0.7 · ab.c i d  +2", "a stranger's name is no link and no picture"
    mixed, _, line = studio.mix("all", said, recipe(gan, 7), "4-5")
    assert (pixels(mixed) == pixels(gan.mix(gan.replay(picture), gan.sample(seed=7), "4-5").images[0])).all()
    assert line == "a latent"
    assert Path(studio.interpolate("all", said, recipe(gan, 7), 3)).name == "edited-seed0007.webp"
    with pytest.raises(app.gr.Error, match="A was edited"), studio.drawing("all") as own:
        draw_again(own, said, "A", edited=False)
    deep = said
    for _ in range(40):
        deep = said | {"source": deep}
    with pytest.raises(app.gr.Error, match="at most 32 are followed"):
        verbs.take(None, "all", deep)


def test_what_is_missing_is_said(verbs, gan: HFGan, kept) -> None:
    for verb in (lambda: verbs.export("picture", None), lambda: verbs.reset(None, "all"),
                 lambda: verbs.undo(None, "all"), lambda: verbs.redo(work.Work("all"), "all")):  # fmt: skip
        with pytest.raises(app.gr.Error, match="nothing is edited yet"):
            verb()
    at = verbs.take(None, "all", recipe(gan))
    for kind, why in (("strip", "no strip and no video yet"), ("video", "no strip and"), ("pasted", "of no photo")):
        with pytest.raises(app.gr.Error, match=why):
            verbs.export(kind, at)
    with pytest.raises(app.gr.Error, match="press Invert first"):
        verbs.take_inverted(None, "all", None)
    photo = kept()
    with pytest.raises(app.gr.Error, match="belongs to a generator"):
        verbs.take_inverted(None, "plain", photo)
    at = verbs.take_inverted(None, "all", photo)
    Path(photo.photo).unlink()
    with pytest.raises(app.gr.Error, match="upload it again"):
        verbs.export("pasted", at)


# ---------------------------------------------------------------- what is offered


def test_a_model_offers_what_it_can(studio, verbs, gan: HFGan) -> None:
    assert edit.about(studio, "all") == edit.ABOUT
    assert "**plain** has no directions yet" in edit.about(studio, "plain")
    updates = edit.show(studio, work.Work("plain"))
    sliders = [one for one in updates if isinstance(one, app.gr.Slider)]
    assert len(sliders) == work.SLIDERS
    assert not any(one.visible for one in sliders)
    at = verbs.turn(None, "all", recipe(gan), *slid(work.Work("all"), studio, smile=2))
    sliders = [one for one in edit.show(studio, at) if isinstance(one, app.gr.Slider)]
    assert [(one.label, one.value) for one in sliders if one.visible] == [
        ("Beard", 0), ("smile", 2), ("glasses", 0), ("age", 0), ("zoom", 0)]  # fmt: skip
    quiet = [one for one in edit.show(studio, at, quiet=True) if isinstance(one, app.gr.Slider | app.gr.Radio)]
    assert quiet == [], "what is being dragged is left alone"
    radio = next(one for one in edit.show(studio, at) if isinstance(one, app.gr.Radio))
    assert [value for _, value in radio.choices] == ["whole", "alpha"]


def test_it_says_how_many_directions_have_no_slider(studio, gan: HFGan, monkeypatch) -> None:
    for room, hidden in ((5, 0), (3, 2)):
        monkeypatch.setattr(edit, "SLIDERS", room)
        monkeypatch.setattr(work, "SLIDERS", room)
        updates = edit.show(studio, work.Work("all"))
        assert sum(isinstance(one, app.gr.Slider) for one in updates) == room
        (line,) = (one for one in updates if isinstance(one, app.gr.Markdown))
        assert line.visible == bool(hidden)
        assert line.value == f"{hidden} more have no slider: *Strip and video* below can go along them"


def test_on_zerogpu_networks_ask_for_the_gpu_and_files_do_not(models, monkeypatch) -> None:
    asked = []
    lend = SimpleNamespace(GPU=lambda duration: lambda verb: asked.append(verb.__name__) or verb)
    monkeypatch.setattr(gpu, "spaces", lend)
    app.build(models)
    assert {"edit", "find_direction", "take", "take_inverted", "turn", "limit", "film", "fit"} <= set(asked)
    assert not {"export", "mark", "show"} & set(asked)
