"""Tab Invert in a real browser: see `test_browser`."""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import pytest
import test_browser
from PIL import Image
from test_browser import PHONE, download, fill_in, open_tab, overflow, wait_for
from toy import save_toy

from hfgan import HFGan
from hfgan.app import searching

browser, serve, visit = test_browser.browser, test_browser.serve, test_browser.visit
DONE = r"distance inside 0\.\d+"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HFGan]:
    """A model that inverts and cuts out, and one that does neither."""
    folder = tmp_path_factory.mktemp("models")
    paths = [save_toy(folder / "toy-invert", alpha=True, encoder=True, num_modes=3)]
    paths.append(save_toy(folder / "toy-plain", seed=1))
    return {path.name: HFGan.from_pretrained(path, dtype="float32") for path in paths}


@pytest.fixture
def slowly(monkeypatch) -> None:
    """Steps of refinement that one can get in between."""
    told = searching.Search.__call__
    monkeypatch.setattr(searching.Search, "__call__", lambda *a: time.sleep(0.03) or told(*a))


def give(page, path: Path) -> None:
    """Open the tab and drop a photo."""
    open_tab(page, "Invert")
    page.locator("#invert-photo input[type=file]").set_input_files(path)
    page.wait_for_selector("#invert-photo img")


def paint(page, x0: float, x1: float, y: float) -> None:
    """A stroke over the photo, from one place to another in shares of the canvas."""
    page.wait_for_selector("#paint .layer-wrap, #paint canvas")
    canvas = page.locator("#paint canvas").first
    canvas.scroll_into_view_if_needed()
    page.wait_for_timeout(700)  # it fades in
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + x0 * box["width"], box["y"] + y * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + x1 * box["width"], box["y"] + y * box["height"], steps=6)
    page.mouse.up()


def loaded(page, elem_id: str) -> int:
    """How wide the picture in an element is, once it is there."""
    seen = "(id) => document.querySelector(`#${id} img`)?.naturalWidth"
    return page.wait_for_function(seen, arg=elem_id).json_value()


def test_paint_over_an_obstacle_invert_compare_save_and_cut_out(visit, models, photo, tmp_path: Path) -> None:
    page, gan, path = visit("toy-invert"), models["toy-invert"], tmp_path / "me.jpg"
    photo(60, 60).save(path)
    give(page, path)
    page.locator("#invert-draw").click()
    wait_for(page, "inverted-line", "What mattered: the whole photo · " + DONE)
    page.get_by_label("All but what I paint").check()
    page.locator("#invert-draw").click()
    page.locator(".toast-body", has_text="nothing is painted yet").wait_for()
    page.locator(".toast-close").click()
    paint(page, 0.42, 0.58, 0.7)
    page.locator("#invert-draw").click()
    line = wait_for(page, "inverted-line", "all but what was painted · " + DONE)
    assert re.search(r"outside 0\.\d+ · nearest mode [012] · ", line)
    assert [loaded(page, elem_id) for elem_id in ("inverted", "inverted-region", "inverted-pasted")] == [256, 256, 60]
    assert page.locator("#inverted img").count() == 2
    assert page.locator("#inverted-steps button.thumbnail-item").count() == 3

    page.get_by_label("Everything").check()  # the editor goes, which is slow without a graphics card
    files = [download(page, f"#inverted-{kind}-save", tmp_path / "saved") for kind in ("picture", "pasted", "latent")]
    assert [file.name for file in files] == ["me-inverted.png", "me-pasted.png", "me.safetensors"]
    picture, pasted, latent = files
    drawn = gan.render(gan.read_latents(latent))[0]
    assert (np.asarray(drawn) == np.asarray(Image.open(picture))).all()
    changed = (np.asarray(Image.open(pasted)).astype(int) != np.asarray(Image.open(path))).any(axis=2)
    assert changed.mean() > 0.3
    assert not changed[42, 20:40].any(), "what was painted is the photo's own"

    page.locator("#invert-edit").click()
    wait_for(page, "edit-line", "^photo me$")
    open_tab(page, "Invert")
    pace = page.context.new_cdp_session(page)
    pace.send("Emulation.setCPUThrottlingRate", {"rate": 8})  # the tab is laid out slowly, and the choice is not lost
    page.locator("#invert-cut").click()
    page.wait_for_selector("#photo img")
    assert page.get_by_label("A photo").is_checked()
    pace.send("Emulation.setCPUThrottlingRate", {"rate": 1})
    page.locator("#cut-photo").click()
    page.wait_for_function("document.querySelector('#cut-alpha img')?.naturalWidth === 60")
    page.locator("#interest-use").click()
    wait_for(page, "interest-caption", "Kept on this page: 60 × 60 px")
    open_tab(page, "Invert")
    page.get_by_label("From Cut out").and_(page.locator(":checked")).wait_for()
    page.locator("#invert-draw").click()
    wait_for(page, "inverted-line", "what was cut out · " + DONE)


def test_refine_with_previews_and_stop(visit, photo, tmp_path: Path, slowly) -> None:
    page, other = visit("toy-invert"), visit("toy-invert")
    photo(90, 60).save(tmp_path / "me.png")
    give(page, tmp_path / "me.png")
    page.get_by_label("A box").check()
    fill_in(page, "box-left", "0.3")
    fill_in(page, "refine-steps", "200")
    assert page.locator("#refine-stop").is_disabled()
    page.locator("#refine").click()
    wait_for(page, "inverted-line", r"^Step \d+ of 200 · error")
    first = page.locator("#inverted img").last.get_attribute("src")
    page.wait_for_function("(src) => [...document.querySelectorAll('#inverted img')].at(-1).src !== src", arg=first)
    assert page.locator("#refine").is_disabled()
    other.get_by_role("tab", name="Invert").click()
    other.locator("#refine-stop").evaluate("(button) => { button.disabled = false; button.click(); }")
    page.locator("#refine-stop").click()
    line = wait_for(page, "inverted-line", "the box · " + DONE)
    assert 5 <= int(re.search(r"(\d+) of 200 steps", line)[1]) < 200
    assert page.locator("#inverted-steps button.thumbnail-item").last.inner_text() == "refined"
    page.wait_for_function("document.querySelector('#refine-stop').disabled")
    assert page.locator("#refine").is_enabled()


def test_a_sample_that_was_cut_out_comes_with_its_region(visit) -> None:
    page = visit("toy-invert")
    page.get_by_role("tab", name="Cut out").click()
    wait_for(page, "a-caption", "^seed 0 ")
    page.locator("#cut-sample").click()
    loaded(page, "cut")
    page.locator("#interest-use").click()
    wait_for(page, "interest-caption", "Kept on this page: 16 × 16 px")
    open_tab(page, "Invert")
    assert loaded(page, "invert-photo") == 16
    page.locator("#invert-draw").click()
    wait_for(page, "inverted-line", "what was cut out · " + DONE)


def test_without_an_encoder_the_tab_says_how_to_get_one(visit) -> None:
    page = visit("toy-plain", "toy-invert")
    open_tab(page, "Invert")
    wait_for(page, "invert-about", "toy-plain cannot invert photos: it has no encoder, which accelerate launch")
    buttons = [page.locator("#invert-draw"), page.locator("#refine")]
    assert all(button.is_disabled() for button in buttons)
    assert not page.locator("#invert-cut").is_visible()
    page.locator("#model input").click()
    page.get_by_role("option", name="toy-invert").click()
    wait_for(page, "invert-about", "^What this model draws")
    page.get_by_label("Found for me").wait_for()
    assert all(button.is_enabled() for button in buttons)


def test_on_a_phone_one_paints_with_a_finger(visit, photo, tmp_path: Path) -> None:
    page = visit("toy-invert", viewport=PHONE, has_touch=True, is_mobile=True)
    photo(40, 70).save(tmp_path / "me.png")
    give(page, tmp_path / "me.png")
    page.get_by_label("What I paint", exact=True).check()
    paint(page, 0.45, 0.55, 0.5)
    assert overflow(page) == 0
    page.locator("#invert-draw").tap()
    wait_for(page, "inverted-line", "What mattered: what was painted · " + DONE)
    assert loaded(page, "inverted-region") == 256
    assert overflow(page) == 0
