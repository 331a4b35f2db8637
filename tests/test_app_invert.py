"""The app's inversions: the public endpoint, what counts as what matters, and that a search is its page's alone."""

from __future__ import annotations

import html
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image, ImageDraw
from toy import save_toy

from hfgan import HFGan, app, images
from hfgan.app import gpu, invert, inverter, searching
from hfgan.app.studio import Studio

BOX = (0.2, 0.1, 0.8, 0.9)
NUMBERS = {"interest", "distance_inside", "distance_outside", "mode", "seconds", "encoder_steps", "refined", "weights"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HFGan]:
    """A model that can do all, one that cannot find what matters and has no modes, and one without an encoder."""
    folder = tmp_path_factory.mktemp("models")
    paths = [save_toy(folder / "all", alpha=True, encoder=True, num_modes=3)]
    paths += [save_toy(folder / "blind", seed=1, encoder=True), save_toy(folder / "plain", seed=2, alpha=True)]
    return {path.name: HFGan.from_pretrained(path, dtype="float32") for path in paths}


@pytest.fixture(scope="module")
def gan(models) -> HFGan:
    return models["all"]


@pytest.fixture(scope="module")
def verbs(models, cache) -> inverter.Inverter:
    return inverter.Inverter(Studio(models))


@pytest.fixture
def upload(cache: Path, tmp_path: Path) -> Callable[..., str]:
    """upload(picture, name) -> a file in Gradio's folder, as Gradio has put it there."""

    def put(picture: Image.Image, name: str = "me.png", **options: object) -> str:
        folder = cache / tmp_path.name / str(len(list(cache.rglob("*"))))
        folder.mkdir(parents=True)
        picture.save(folder / name, **options)
        return str(folder / name)

    return put


@pytest.fixture
def slowly(monkeypatch) -> None:
    """Steps of refinement that one can get in between."""
    told = searching.Search.__call__
    monkeypatch.setattr(searching.Search, "__call__", lambda *a: time.sleep(0.01) or told(*a))


def pixels(source: str | Path | Image.Image) -> np.ndarray:
    return np.asarray(source if isinstance(source, Image.Image) else Image.open(source)).astype(int)


def left_half(width: int, height: int, mode: str = "L") -> Image.Image:
    region = Image.new(mode, (width, height))
    ImageDraw.Draw(region).rectangle((0, 0, width // 2 - 1, height), fill=255 if mode == "L" else (255, 0, 80, 153))
    return region


def latent(path: str | Path, gan: HFGan) -> torch.Tensor:
    return gan.read_latents(path)


def asked(photo: str | None, word: str = "everything", painted: str | None = None, sent: str | None = None) -> tuple:
    """What the page gives."""
    return photo, word, painted, *BOX, sent


def refused(user: Client, *arguments: object) -> str:
    """The sentence with which a request is refused: no path, no insides."""
    with pytest.raises(AppError) as error:
        user.predict(*arguments, api_name="/invert")
    said = html.unescape(str(error.value))
    assert not re.search(r"/\w+/|Traceback|\.py", said.replace("training/train.py", ""))
    return said


# ---------------------------------------------------------------- the public endpoint


@pytest.mark.parametrize(("name", "mode", "turn"), [("me at home.png", "RGB", 1), ("grey.png", "LA", 1),
                                                    ("phone.jpg", "RGB", 6)])  # fmt: skip
def test_a_photo_becomes_what_python_finds(user, gan, photo, tmp_path, name, mode, turn) -> None:
    path, exif = tmp_path / name, Image.Exif()
    exif[images.ORIENTATION] = turn
    photo(40, 56).convert(mode).save(path, exif=exif)
    picture, pasted, file, said = user.predict("all", handle_file(path), api_name="/invert")
    wanted = gan.invert(path)
    assert (pixels(picture) == pixels(wanted.image)).all()
    assert (pixels(pasted) == pixels(wanted.unalign())).all()
    assert Image.open(pasted).size == ((56, 40) if turn == 6 else (40, 56))
    assert torch.equal(latent(file, gan), wanted.w_plus)
    assert [Path(one).name for one in (picture, pasted, file)] == [
        f"{path.stem}-inverted.png", f"{path.stem}-pasted.png", f"{path.stem}.safetensors"]  # fmt: skip
    assert set(said) == NUMBERS
    assert said | {"seconds": 0} == {
        "interest": "all", "distance_inside": pytest.approx(wanted.distance_inside), "distance_outside": None,
        "mode": wanted.mode, "seconds": 0, "encoder_steps": 3, "refined": 0,
        "weights": gan.generator.fingerprint()}  # fmt: skip


def test_what_matters_can_be_said_in_every_way(user: Client, gan: HFGan, photo, tmp_path: Path) -> None:
    path, region, small = tmp_path / "me.png", tmp_path / "region.png", tmp_path / "small.png"
    photo(60, 44).save(path)
    left_half(60, 44).save(region)
    left_half(30, 22).save(small)
    share = np.zeros((44, 60), bool)
    share[:, :30] = True
    for how, wanted, source in (
        (("region", handle_file(region)), share, "marked"),
        (("region", handle_file(small)), left_half(30, 22), "marked"),
        (("obstacle", handle_file(region)), ~share, "marked"),
        (("box", None, [0, 0, 0.5, 1]), (0, 0, 30, 44), "box"),
        (("box", None, [0, 0, 30, 44]), (0, 0, 30, 44), "box"),
        (("auto",), "auto", None),
    ):
        *_, file, said = user.predict("all", handle_file(path), *how, api_name="/invert")
        found = gan.invert(path, wanted)
        assert torch.equal(latent(file, gan), found.w_plus)
        assert said["interest"] == (source or found.interest_source)
        assert said["distance_outside"] == (found.distance_outside and pytest.approx(found.distance_outside))


def test_refinement_comes_nearer(user: Client, gan: HFGan, photo, tmp_path: Path) -> None:
    photo().save(tmp_path / "me.png")
    how = ("all", handle_file(tmp_path / "me.png"), "box", None, [0, 0, 0.7, 1])
    plain, near = (user.predict(*how, 2, refine, api_name="/invert")[-1] for refine in (0, 20))
    assert (plain["encoder_steps"], plain["refined"], near["refined"]) == (2, 0, 20)
    assert near["distance_inside"] < plain["distance_inside"]


def test_what_cannot_be_inverted_is_said(user: Client, photo, tmp_path: Path, monkeypatch) -> None:
    photo().save(tmp_path / "photo.png")
    left_half(90, 40).save(tmp_path / "wide.png")
    Image.new("L", (48, 48)).save(tmp_path / "black.png")
    (tmp_path / "text.png").write_text("I am no picture")
    file = {path.name: handle_file(path) for path in tmp_path.glob("*.png")}
    me = file["photo.png"]
    assert "text.png: not a picture" in refused(user, "all", file["text.png"])
    assert "no photo: drop one first" in refused(user, "all", None)
    assert "has no encoder, which `accelerate" in refused(user, "plain", me)
    assert "cannot find what matters" in refused(user, "blind", me, "auto")
    assert "no region" in refused(user, "all", me, "region")
    assert "the interest is empty" in refused(user, "all", me, "region", file["black.png"])
    assert "of its proportions" in refused(user, "all", me, "obstacle", file["wide.png"])
    assert "text.png: not" in refused(user, "all", me, "region", file["text.png"])
    for box in (None, [0, 1], "all", {"x0": 1}):
        assert "no box: give four numbers" in refused(user, "all", me, "box", None, box)
    for box in ([0.9, 0, 0.1, 1], [0, 0, 0, 0]):
        assert "expected x0 < x1" in refused(user, "all", me, "box", None, box)
    assert "four numbers" in refused(user, "all", me, "box", None, ["a", None, [1], "<b>"])
    assert "cutout" in refused(user, "all", me, "cutout")
    assert "11" in refused(user, "all", me, "everything", None, None, 11)
    assert "201" in refused(user, "all", me, "everything", None, None, 3, 201)
    monkeypatch.setattr("hfgan.app.cutter.MAX_PIXELS", 1000)
    assert "make it smaller" in refused(user, "all", me)


@pytest.mark.parametrize("mark", [{}, {"meta": {"_type": "gradio.FileData"}}])
def test_no_other_file_of_the_server_is_read(user: Client, address: str, upload, photo, tmp_path, mark) -> None:
    events = {event["api_name"]: event["id"] for event in user.config["dependencies"]}
    own = {"path": upload(photo()), "meta": {"_type": "gradio.FileData"}}
    other = {"path": str(shutil.copy(own["path"], tmp_path / "private.png")), **mark}
    editor = {"background": None, "layers": [other], "composite": None}
    for name, data in (("invert", ["all", other, "everything", None, None, 3, 0]),
                       ("invert", ["all", own, "region", other, None, 3, 0]),
                       ("find", ["all", own, "region", editor, *BOX, None]),
                       ("find", ["all", own, "cutout", None, *BOX, other])):  # fmt: skip
        body = {"data": data, "fn_index": events[name], "session_hash": "me"}
        reply = httpx.post(f"{address}gradio_api/run/predict", json=body)
        assert reply.status_code == 500, name
        assert "private" not in reply.text
    component = next(part["id"] for part in user.config["components"] if part["type"] == "imageeditor")
    body = {"data": {}, "component_id": component, "fn_name": "accept_blobs", "session_hash": "me"}
    assert httpx.post(f"{address}gradio_api/component_server", json=body).status_code == 404


# ---------------------------------------------------------------- what the page does


@pytest.mark.parametrize(("size", "turn"), [((60, 44), 1), ((1500, 700), 1), ((400, 300), 6)])
def test_strokes_lie_where_they_were_painted(verbs, gan: HFGan, upload, photo, size, turn) -> None:
    exif = Image.Exif()
    exif[images.ORIENTATION] = turn
    path = upload(photo(*size), "me.jpg", exif=exif)
    paper = Image.open(verbs.paper(path)["background"])
    upright = size[::-1] if turn == 6 else size
    assert max(paper.size) == inverter.PAINTED_SIDE
    assert paper.width / paper.height == pytest.approx(upright[0] / upright[1], rel=0.01)
    painted = upload(left_half(*paper.size, "RGBA"))
    expected = np.zeros(upright[::-1], bool)
    expected[:, : upright[0] // 2] = True
    for word, wanted in (("region", expected), ("obstacle", ~expected)):
        kept, *_ = verbs.find("all", *asked(path, word, painted))
        found = gan.invert(path, wanted)
        assert torch.equal(kept.found.interest, found.interest)
        assert torch.equal(kept.found.w_plus, found.w_plus)
        assert torch.equal(latent(verbs.export("latent", kept), gan), found.w_plus)
        assert (pixels(verbs.export("pasted", kept)) == pixels(found.unalign())).all()
        assert (pixels(verbs.export("picture", kept)) == pixels(found.image)).all()


def test_what_is_shown(verbs, gan: HFGan, upload, photo) -> None:
    path = upload(photo(900, 700), "me.jpg")
    kept, (before, after), region, pasted, strip, line = verbs.find("all", *asked(path, "box"))
    assert [Image.open(file).size for file in (before, after, region)] == [(700, 700), (256, 256), (256, 256)]
    assert Image.open(pasted).size == (900, 700)
    assert (pixels(after)[::16, ::16] == pixels(kept.found.image)).all()
    assert (pixels(region) == pixels(gan.invert(path, BOX).region())).all()
    assert [name for _, name in strip] == ["step 1", "step 2", "step 3"]
    said = r"\*\*What mattered:\*\* the box · distance inside 0\.\d+, outside 0\.\d+ · nearest mode \d · \d+\.\d\d s"
    assert re.fullmatch(said, line)


def test_where_the_interest_came_from_is_said_plainly() -> None:
    found = "the subject that was found"
    assert inverter.where("all: the subject that was found covers 1 % of the picture", "auto") == (
        "the whole photo, as the subject that was found covers 1 % of the picture")  # fmt: skip
    assert inverter.where("auto: not sure", "auto") == f"{found} (not sure)"
    assert inverter.where("auto", "auto") == f"{found}, without what stands before it"
    assert inverter.where("marked", "obstacle") == "all but what was painted"
    assert inverter.where("transparency", "everything") == "what is not transparent"


def test_what_is_missing_is_said(verbs, upload, photo) -> None:
    path = upload(photo())
    clear = upload(Image.new("RGBA", (48, 48)))
    for question, said in ((asked(None), "no photo"), (asked(path, "region"), "nothing is painted yet"),
                           (asked(path, "obstacle", clear), "nothing is painted yet"),
                           (asked(path, "cutout"), "nothing came from tab Cut out")):  # fmt: skip
        with pytest.raises(app.gr.Error, match=said):
            verbs.find("all", *question)
        with pytest.raises(app.gr.Error, match=said):
            list(verbs.refine(verbs.searches.begin(), "all", 10, *question))
    with pytest.raises(app.gr.Error, match="no encoder"):
        list(verbs.refine(verbs.searches.begin(), "plain", 10, *asked(path)))
    with pytest.raises(app.gr.Error, match="press Invert first"):
        verbs.export("picture", None)
    assert verbs.paper(None) is None
    kept, *_ = verbs.find("all", *asked(path))
    Path(path).unlink()
    with pytest.raises(app.gr.Error, match="upload it again"):
        verbs.export("pasted", kept)
    assert list(Path(verbs.searches._wanted.name).iterdir()) == []


# ---------------------------------------------------------------- a search is its page's alone


def test_a_refinement_shows_itself_and_ends_with_the_best(verbs, gan: HFGan, upload, photo, slowly) -> None:
    path, token = upload(photo()), verbs.searches.begin()
    *previews, (kept, _, _, _, strip, line) = verbs.refine(token, "all", 40, *asked(path, "box"))
    assert len(previews) >= 3
    for _, (before, after), *_, told in previews:
        assert (pixels(before).shape, pixels(after).shape) == ((256, 256, 3), (256, 256, 3))
        assert re.match(r"Step \d+ of 40 · error \d", told)
    assert torch.allclose(kept.found.w_plus, gan.invert(path, BOX, refine=40).w_plus, atol=1e-4)
    assert strip[-1][1] == "refined"
    assert "40 of 40 steps" in line
    assert list(Path(verbs.searches._wanted.name).iterdir()) == []


def test_stop_ends_ones_own_search_and_no_other(verbs, upload, photo, slowly) -> None:
    path = upload(photo())
    tokens = [verbs.searches.begin(), verbs.searches.begin()]
    assert len(set(tokens)) == 2
    first = verbs.refine(tokens[0], "all", 60, *asked(path))
    next(first)
    for other in (tokens[1], "guess", "../" + tokens[1], "", None):
        verbs.searches.stop(other)
    (*_, (kept, *_)) = first
    assert kept.taken == 60
    token = verbs.searches.begin()
    second = verbs.refine(token, "all", 200, *asked(path))
    next(second)
    verbs.searches.stop(token)
    (*_, (kept, *_, line)) = second
    assert 5 <= kept.taken < 200
    assert f"{kept.taken} of 200 steps" in line
    assert kept.found.distance_inside <= verbs.find("all", *asked(path))[0].found.distance_inside


def test_a_search_that_nobody_waits_for_ends_and_frees_the_model(verbs, upload, photo, slowly) -> None:
    search = verbs.refine(verbs.searches.begin(), "all", 200, *asked(upload(photo())))
    next(search)
    start = time.monotonic()
    search.close()
    assert time.monotonic() - start < 1.5, "two seconds of steps are left"
    with verbs._studio.drawing("all"):
        assert list(Path(verbs.searches._wanted.name).iterdir()) == []


def test_a_search_takes_no_longer_than_it_may(verbs, upload, photo, monkeypatch) -> None:
    monkeypatch.setattr(searching, "MAX_SECONDS", 0)
    *_, numbers = verbs.invert("all", upload(photo()), refine=100)
    assert numbers["refined"] == 1


def test_a_page_cannot_name_the_token_that_it_stops(user: Client, address: str, verbs, monkeypatch) -> None:
    stopped = []
    monkeypatch.setattr(Path, "unlink", lambda path, **_: stopped.append(path))
    stop = next(event["id"] for event in user.config["dependencies"] if event["api_name"] == "stop")
    body = {"data": ["a token"], "fn_index": stop, "session_hash": "stranger"}
    assert httpx.post(f"{address}gradio_api/run/predict", json=body).status_code == 200
    assert stopped == [], "a token is the server's own knowledge of a session"


# ---------------------------------------------------------------- what is offered


def test_a_model_offers_what_it_can(models) -> None:
    studio = Studio(models)
    offered = {name: [word for _, word in invert.choices(studio, name)] for name in models}
    every = ["everything", "auto", "region", "obstacle", "box", "cutout"]
    assert offered == {"all": every, "blind": ["everything", "region", "obstacle", "box"], "plain": every}
    assert "**plain** cannot invert photos: it has no encoder" in invert.about(studio, "plain")
    for name in models:
        _, _, *buttons = invert.offer(studio, name)
        assert [buttons[0].interactive, buttons[1].interactive] == [name != "plain"] * 2
        assert buttons[2].visible == (name != "blind")


def test_on_zerogpu_networks_ask_for_the_gpu_and_files_do_not(models, monkeypatch) -> None:
    asked = []
    lend = SimpleNamespace(GPU=lambda duration: lambda verb: asked.append(verb.__name__) or verb)
    monkeypatch.setattr(gpu, "spaces", lend)
    app.build(models)
    assert {"invert", "find", "refine"} <= set(asked)
    assert not {"paper", "export", "stop", "begin"} & set(asked)
