"""The app's attribution: the public endpoint, what is shown, and that a search is its page's alone."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from toy import save_toy

from hfgan import HFGan, app
from hfgan.app import attribute, gpu, searching
from hfgan.app.card import card
from hfgan.app.studio import Studio
from hfgan.attribution import FILE, LIMITS, STEPS, Calibration, Protocol, sentence
from hfgan.attribution import attribute as python_attribute
from hfgan.models.perceptual import load_perceptual


def calibrate(folder: Path, protocol: Protocol) -> None:
    """Pretend that all samples are redrawn well, and no photo."""
    own = {psi: np.linspace(0.01, 0.2, 100).tolist() for psi in ("1", "0.7")}
    Calibration(protocol, own, np.linspace(0.6, 0.9, 120).tolist(), "photos.zip", {}, []).save(folder / FILE)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HFGan]:
    """One with a calibration, one with that of another model, one with a damaged one, one without."""
    folder = tmp_path_factory.mktemp("secret")
    paths = [save_toy(folder / name, seed=seed, encoder=True) for seed, name in
             enumerate(("toy_a", "other", "damaged", "plain"))]  # fmt: skip
    found = {path.name: HFGan.from_pretrained(path, dtype="float32") for path in paths}
    protocol = Protocol.of(found["toy_a"].generator, found["toy_a"].encoder, load_perceptual())
    for path in paths[:2]:
        calibrate(path, protocol)
    (paths[2] / FILE).write_text("{}")
    return found


@pytest.fixture(scope="module")
def studio(models, cache) -> Studio:
    return Studio(models)


@pytest.fixture(scope="module")
def verbs(studio) -> attribute.Attributor:
    return attribute.Attributor(studio)


def page_of(studio: Studio) -> gr.Blocks:
    with gr.Blocks(analytics_enabled=False) as page:
        a = card("Picture A", "", elem_id="a", ways=())
        attribute.tab(studio, gr.Dropdown(["toy_a", "other", "damaged", "plain"], elem_id="model"), a)
    return page.queue(default_concurrency_limit=1)


@pytest.fixture(scope="module")
def address(studio) -> Iterator[str]:
    """A page with the tab alone, running."""
    page = page_of(studio)
    yield app.launch(page, prevent_thread_lock=True, quiet=True)
    page.close(verbose=False)


@pytest.fixture
def sample(models, tmp_path: Path) -> Path:
    return models["toy_a"].sample(1, seed=4, truncation_psi=0.5).save(tmp_path)[0]


@pytest.fixture
def upload(cache: Path, tmp_path: Path) -> Callable[[Path], str]:
    """A file in Gradio's folder, as Gradio has put it there."""

    def put(path: Path) -> str:
        folder = cache / tmp_path.name
        folder.mkdir(exist_ok=True)
        (folder / path.name).write_bytes(path.read_bytes())
        return str(folder / path.name)

    return put


@pytest.fixture
def slowly(monkeypatch) -> None:
    """Steps that one can get in between."""
    told = searching.Search.__call__
    monkeypatch.setattr(searching.Search, "__call__", lambda *a: time.sleep(0.01) or told(*a))


def refused(user: Client, *arguments: object) -> str:
    """The sentence with which a request is refused: no path, no insides."""
    with pytest.raises(AppError) as error:
        user.predict(*arguments, api_name="/attribute")
    said = html.unescape(str(error.value))
    assert not re.search(r"/\w+/|Traceback|\.py|secret", said.replace("training/train.py", ""))
    return said


def test_programs_get_what_python_finds(user: Client, models, sample: Path) -> None:
    said, seen, redrawn, numbers = user.predict("toy_a", handle_file(sample), api_name="/attribute")
    gan = models["toy_a"]
    known = Calibration.read(gan.folder / FILE)
    found = python_attribute(gan.generator, gan.encoder, sample, known, net=load_perceptual())
    assert said == sentence(found, "toy a")
    assert numbers == {"distance": pytest.approx(found.distance), "likelihood_ratio": found.likelihood_ratio,
                       "percentile_samples": found.percentile_samples, "percentile_photos": 0.0,
                       "interval": [*found.interval], "limits": LIMITS}  # fmt: skip
    for file, wanted in ((seen, found.seen), (redrawn, found.drawn)):
        assert np.array_equal(np.asarray(Image.open(file)), np.asarray(wanted))
    assert np.array_equal(np.asarray(Image.open(seen)), np.asarray(Image.open(sample)))


def test_what_cannot_be_checked_is_said(user: Client, sample: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "text.png").write_text("I am no picture")
    picture = handle_file(sample)
    assert "no picture: drop one first" in refused(user, "toy_a", None)
    assert "text.png: not a picture" in refused(user, "toy_a", handle_file(tmp_path / "text.png"))
    assert "belongs to another generator" in refused(user, "other", picture)
    assert "the calibration of damaged cannot be read" in refused(user, "damaged", picture)
    assert "plain cannot check pictures: it has no calibration, `accelerate" in refused(user, "plain", picture)
    monkeypatch.setattr(searching, "MAX_SECONDS", 0)
    assert "took too long" in refused(user, "toy_a", picture)


def test_no_other_file_of_the_server_is_read(user: Client, address: str, sample: Path) -> None:
    events = {event["api_name"]: event["id"] for event in user.config["dependencies"]}
    for name in ("attribute", "check"):
        body = {"data": ["toy_a", {"path": str(sample)}], "fn_index": events[name], "session_hash": "me"}
        reply = httpx.post(f"{address}gradio_api/run/predict", json=body)
        assert reply.status_code == 500
        assert "secret" not in reply.text


def test_a_search_shows_itself_and_ends_with_a_sentence(verbs, upload, sample: Path, slowly) -> None:
    *previews, (seen, drawn, line, chart) = verbs.check(verbs.searches.begin(), "toy_a", upload(sample))
    assert len(previews) >= 3
    for skipped, preview, told, nothing in previews:
        assert skipped == gr.skip()
        assert Image.open(preview).size == (256, 256)
        assert re.fullmatch(rf"Step \d+ of {STEPS}", told)
        assert nothing == ""
    said, *_ = verbs.attribute("toy_a", upload(sample))
    assert line == f"**{said}**"
    assert Image.open(seen).size == Image.open(drawn).size == (256, 256)
    assert chart.count("<path") == 2
    assert chart.count("M") == 200 + 120
    assert "this picture" in chart
    assert "nan" not in chart
    assert list(Path(verbs.searches._wanted.name).iterdir()) == []


def test_stop_ends_ones_own_search_and_nothing_is_said(verbs, upload, sample: Path, slowly) -> None:
    tokens = [verbs.searches.begin(), verbs.searches.begin()]
    first = verbs.check(tokens[0], "toy_a", upload(sample))
    next(first)
    for other in (tokens[1], "guess", "../" + tokens[1], "", None):
        verbs.searches.stop(other)
    *_, (_, _, line, _) = first
    assert "percentile" in line
    token = verbs.searches.begin()
    second = verbs.check(token, "toy_a", upload(sample))
    next(second)
    verbs.searches.stop(token)
    *_, (_, _, line, chart) = second
    assert (line, chart) == (attribute.STOPPED, "")
    third = verbs.check(verbs.searches.begin(), "toy_a", upload(sample))
    next(third)
    third.close()
    with verbs._studio.drawing("toy_a"):
        assert list(Path(verbs.searches._wanted.name).iterdir()) == [], "nobody waited for it any more"
    with pytest.raises(gr.Error, match="no calibration"):
        list(verbs.check(verbs.searches.begin(), "plain", upload(sample)))


def test_what_is_offered(studio, monkeypatch) -> None:
    assert [attribute.able(studio, name) for name in ("toy_a", "other", "plain")] == [True, True, False]
    notice, check, *rest = attribute._offer(studio, "plain")
    assert "**plain** cannot check pictures: it has no calibration" in notice
    assert not check.interactive
    assert rest == [None, None, attribute.NOTHING, ""]
    asked = []
    lend = SimpleNamespace(GPU=lambda duration: lambda verb: asked.append(verb.__name__) or verb)
    monkeypatch.setattr(gpu, "spaces", lend)
    page_of(studio)
    assert sorted(asked) == ["attribute", "check"]
