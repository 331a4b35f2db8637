"""Tab Real or generated? in a real browser, on a page of its own: see `test_browser`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import gradio as gr
import numpy as np
import pytest
import test_browser
from PIL import Image
from test_browser import PATIENCE, PHONE, overflow, wait_for
from toy import save_toy

from hfgan import HFGan, app, guessing
from hfgan.app import game
from hfgan.app.studio import Studio

browser = test_browser.browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page of a toy model and 20 photos."""
    folder = tmp_path_factory.mktemp("photos")
    for k in range(20):
        noise = np.random.default_rng(k).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((32, 32)).save(folder / f"{k}.png")
    toy = HFGan.from_pretrained(save_toy(tmp_path_factory.mktemp("models") / "toy"), dtype="float32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("cache")))
        with gr.Blocks(analytics_enabled=False) as page:
            model = gr.Dropdown(["toy"], label="Model")
            with gr.Tabs(), gr.Tab("Real or generated?"):
                game.tab(Studio({"toy": toy}), model, guessing.open_real(folder, "CC0 1.0"))
        yield app.launch(page.queue(), prevent_thread_lock=True, quiet=True)
        page.close(verbose=False)


@pytest.fixture
def visit(browser, address: str) -> Iterator[Callable]:
    """visit(**context) -> the page; then: own host only, no console errors."""
    contexts, hosts, complaints = [], set(), []

    def go(**settings):
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | settings))
        contexts[-1].set_default_timeout(PATIENCE)
        page = contexts[-1].new_page()
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.goto(address)
        page.wait_for_selector("#guess-start")
        return page

    yield go
    for context in contexts:
        context.close()
    assert hosts - {""} == {urlsplit(address).netloc}
    assert complaints == []


def at(page, number: int, total: int = 10) -> None:
    """Wait for a picture of the game."""
    wait_for(page, "guess-progress", f"^{number} of {total}$")
    page.wait_for_function("document.querySelector('#guess-picture img')?.naturalWidth === 16")


def test_a_game_by_keyboard_is_counted_and_played_again(visit) -> None:
    page = visit()
    wait_for(page, "guess-licence", r"^Photos: 20 from photos\d+ · licence: CC0 1\.0$")
    assert page.locator("#guess-length input").count() == 2, "20 photos are too few for 40"
    page.locator("#guess-start").focus()
    page.keyboard.press("Enter")
    seen = set()
    at(page, 1)
    page.wait_for_function("document.activeElement.id === 'guess-answers'")
    assert not page.locator("#guess-setup").is_visible()
    for k in range(9):
        at(page, k + 1)
        seen.add(page.locator("#guess-picture img").get_attribute("src"))
        page.keyboard.press(("ArrowLeft", "ArrowRight")[k % 2])
    at(page, 10)
    assert len(seen) == 9
    assert page.locator("#guess-told").inner_text().strip() == ""
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")  # the second button
    said = wait_for(page, "guess-result", r"\d+ of 10 right")
    wrong = 10 - int(re.search(r"(\d+) of 10 right", said)[1])
    page.wait_for_function(
        "(n) => document.querySelectorAll('#guess-mistakes button.thumbnail-item').length === n", arg=wrong
    )
    assert not page.locator("#guess-play").is_visible()
    assert page.locator("#guess-chart svg rect").count() == 11
    page.locator("#guess-add").click()
    page.wait_for_function("document.querySelector('#guess-add').disabled")
    page.locator("#guess-again").click()
    page.locator("#guess-start").click()
    at(page, 1)
    page.locator("#guess-stop").click()
    page.locator("#guess-setup").wait_for()
    assert not page.locator("#guess-play").is_visible()


def test_practice_on_a_phone_in_the_dark_says_what_each_was(visit) -> None:
    page, other = visit(viewport=PHONE, has_touch=True, is_mobile=True, color_scheme="dark"), visit()
    assert overflow(page) == 0
    page.locator("#guess-practice input").check()
    page.locator("#guess-start").tap()
    at(page, 1)
    assert overflow(page) == 0
    buttons = [page.locator(f"#guess-{name}").bounding_box() for name in ("generated", "real")]
    assert buttons[0]["y"] == buttons[1]["y"]
    assert max(box["y"] + box["height"] for box in buttons) < PHONE["height"], "all in sight at once"
    for k in range(9):
        page.locator("#guess-generated").tap()
        at(page, k + 2)
        told = wait_for(page, "guess-told", "^(Right|Wrong): it was ")
        assert re.search(r"Right: it was generated, seed \d+|Wrong: it was a photo", told)
    assert not other.locator("#guess-play").is_visible(), "a game is one's own"
    page.locator("#guess-real").tap()
    wait_for(page, "guess-result", "Practice: being told on the way helps")
    assert page.locator("#guess-add").is_disabled()
    assert overflow(page) == 0
