"""Tab Edit in a real browser: see `test_browser`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import test_browser
from PIL import Image
from test_app_edit import with_directions
from test_browser import PHONE, download, fill_in, open_tab, overflow, thumbnails, wait_for
from toy import save_toy

from hfgan import HFGan, images
from hfgan.app import finder

browser, serve, visit = test_browser.browser, test_browser.serve, test_browser.visit
SECTIONS = ("Find a direction", "Browse what", "Mix with", "Strip and video", "Slide after")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HFGan]:
    """A model that can do all, and one that has nothing but a generator."""
    folder = tmp_path_factory.mktemp("models")
    paths = [save_toy(folder / "toy-edit", alpha=True, encoder=True), save_toy(folder / "toy-plain", seed=1)]
    found = {path.name: HFGan.from_pretrained(path, dtype="float32") for path in paths}
    with_directions(found["toy-edit"])
    return found


def unfold(page, name: str) -> None:
    """Open a section of the tab."""
    page.locator("#editing").get_by_role("button", name=re.compile(f"^{name}")).click()
    page.wait_for_timeout(700)  # what is in there is laid out, and then has its first values


def move(page, name: str, strength: float) -> None:
    """Type the value of a slider."""
    page.get_by_label(f"number input for {name}", exact=True).fill(str(strength))


def mark(page, gan: HFGan, count: int) -> None:
    """Mark those with the most of the direction "age" +, and those with the least −."""
    page.locator("#find-more").click()
    page.wait_for_function("document.querySelectorAll('#find-grid img').length === 24")
    w = gan.sample(seeds=range(24), truncation_psi=finder.PSI).w_plus[:, 0]
    order = gan.directions["age"].coordinate(w).argsort().tolist()
    for seed in order[-count:]:
        thumbnails(page, "find-grid").nth(seed).click()
        page.wait_for_selector(f"#find-grid img[alt='+ seed {seed}']")
    for seed in order[:count]:
        for sign in "+−":
            thumbnails(page, "find-grid").nth(seed).click()
            page.wait_for_selector(f"#find-grid img[alt='{sign} seed {seed}']")


def shown(page, elem_id: str) -> str:
    """Address of the picture in an element, once it is there."""
    return page.wait_for_function("(id) => document.querySelector(`#${id} img`)?.src", arg=elem_id).json_value()


def test_a_direction_from_clicks_moves_the_subject_of_a_photo(visit, models, photo, tmp_path: Path) -> None:
    page, gan = visit("toy-edit"), models["toy-edit"]
    photo(60, 48).save(tmp_path / "me.png")
    open_tab(page, "Invert")
    page.locator("#invert-photo input[type=file]").set_input_files(tmp_path / "me.png")
    page.wait_for_selector("#invert-photo img")
    page.locator("#invert-draw").click()
    wait_for(page, "inverted-line", "What mattered")
    page.locator("#invert-edit").click()
    wait_for(page, "edit-line", "^photo me$")
    assert page.get_by_role("tab", name="Edit").get_attribute("aria-selected") == "true"

    unfold(page, "Find a direction")
    mark(page, gan, 8)
    assert "8 + and 8 −: name it" in page.locator("#find-line").inner_text()
    page.locator("#find-name input, #find-name textarea").first.fill("old")
    page.locator("#find-fit").click()
    wait_for(page, "find-line", r"^old is (weak|usable|strong): it tells \d+ %")
    before = shown(page, "edit-after")
    move(page, "old", 2)
    wait_for(page, "edit-line", r"^photo me · old \+2σ$")
    page.wait_for_function("(src) => document.querySelector('#edit-after img').src !== src", arg=before)
    page.get_by_label("Subject", exact=True).check()
    wait_for(page, "edit-line", r"^photo me · old \+2σ · within: subject$")
    assert thumbnails(page, "edit-steps").all_inner_texts() == ["start", "old +2σ", "subject"]

    unfold(page, "Strip and video")
    page.locator("#film-along input").click()
    page.get_by_role("option", name="old", exact=True).click()
    fill_in(page, "film-count", "13")
    page.locator("#film-draw").click()
    page.wait_for_selector("#film-video img")
    assert page.locator("#film-line").inner_text().strip() == ""
    assert thumbnails(page, "film-strip").all_inner_texts() == ["−3σ", "−2σ", "−1σ", "0σ", "+1σ", "+2σ", "+3σ"]
    files = {kind: download(page, f"#edit-{kind}-save", tmp_path / "saved")
             for kind in ("picture", "pasted", "strip", "video", "recipe")}  # fmt: skip
    ends = [".png", "-pasted.png", "-strip.png", "-way.webp", ".json"]
    assert [file.name for file in files.values()] == [f"me-edited{end}" for end in ends]
    assert Image.open(files["video"]).n_frames == 24
    assert Image.open(files["strip"]).size == (7 * 16, 16)
    drawn = gan.replay(files["picture"])
    assert (np.asarray(drawn.images[0]) == np.asarray(Image.open(files["picture"]))).all()
    assert json.loads(files["recipe"].read_text()) == images.read_recipe(files["picture"])
    changed = (np.asarray(Image.open(files["pasted"])) != np.asarray(Image.open(tmp_path / "me.png"))).any(axis=2)
    assert changed.any()
    assert not changed[:, :6].any(), "beside the square the photo is as it was"

    page.locator("#edit-undo").click()
    wait_for(page, "edit-line", r"^photo me · old \+2σ$")
    assert page.get_by_label("Whole picture", exact=True).is_checked()
    page.locator("#edit-undo").click()
    wait_for(page, "edit-line", "^photo me$")
    assert page.get_by_label("number input for old", exact=True).input_value() == "0"
    page.wait_for_function("document.querySelector('#edit-undo').disabled")
    page.locator("#edit-redo").click()
    wait_for(page, "edit-line", r"old \+2σ$")
    thumbnails(page, "edit-steps").nth(2).click()
    wait_for(page, "edit-line", "within: subject$")
    page.locator("#edit-reset").click()
    wait_for(page, "edit-line", "^photo me$")


def test_a_slider_begins_with_picture_a_and_hears_keys_and_mouse(visit) -> None:
    page = visit("toy-edit")
    open_tab(page, "Edit")
    assert "move a slider to begin with picture A" in page.locator("#edit-line").inner_text()
    assert page.locator("#edit-about").inner_text().startswith("A slider moves one thing")
    labels = page.locator("#edit-sliders input[type=range]").evaluate_all("all => all.map((one) => one.ariaLabel)")
    assert labels == [f"range slider for {name}" for name in ("Beard", "smile", "glasses", "age", "zoom")]
    slider = page.get_by_label("range slider for smile")
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    wait_for(page, "edit-line", r"^seed 0 · psi 0.7 · smile \+0.3σ$")
    box = slider.bounding_box()
    page.mouse.move(box["x"] + 0.55 * box["width"], box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + box["height"] / 2, steps=20)
    page.mouse.up()
    value = float(slider.input_value())
    assert 1.5 < value < 2.1
    wait_for(page, "edit-line", rf"^seed 0 · psi 0.7 · smile \+{value:g}σ$")
    page.locator("#edit-seed input").fill("7")
    page.locator("#edit-take-seed").focus()
    page.keyboard.press("Enter")
    wait_for(page, "edit-line", "^seed 7 · psi 0.7$")
    open_tab(page, "Sample")
    page.locator("#gallery button.thumbnail-item").nth(2).click()
    wait_for(page, "a-caption", "^seed 2 ")
    page.locator("#a-edit").click()
    wait_for(page, "edit-line", "^seed 2 · psi 0.7$")
    unfold(page, "Find a direction")
    page.locator("#find-more").click()
    page.wait_for_selector("#find-grid img")
    thumbnails(page, "find-grid").nth(3).focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#find-grid img[alt='+ seed 3']")
    page.keyboard.press("Enter")
    page.wait_for_selector("#find-grid img[alt='− seed 3']")
    page.locator("#find-name input, #find-name textarea").first.fill("old")
    page.locator("#find-fit").click()
    page.locator(".toast-body", has_text="0 samples with 'old' and 1 without: label 4 or more of each").wait_for()


def test_mix_browse_and_morph(visit, tmp_path: Path) -> None:
    page = visit("toy-edit")
    open_tab(page, "Edit")
    page.locator("#edit-take-a").click()
    wait_for(page, "edit-line", "^seed 0 · psi 0.7$")
    unfold(page, "Mix with")
    page.locator("#edit-mix-seed input").fill("5")
    page.locator("#edit-band").get_by_label("Coarse").check()
    page.wait_for_function("document.querySelector('#edit-layers :is(input, textarea)').value === '0-3'")
    page.locator("#edit-mix").click()
    wait_for(page, "edit-line", "^seed 0 · psi 0.7 · layers 0-3 of seed 5$")
    unfold(page, "Browse what")
    page.locator("#browse-show").click()
    wait_for(page, "browse-line", "^sefa-0 · layers 0-4$")
    assert thumbnails(page, "browse-strip").count() == 7
    page.locator("#browse-name input, #browse-name textarea").first.fill("turns")
    page.locator("#browse-keep").click()
    wait_for(page, "browse-line", "^turns has its slider above")
    move(page, "turns", -1)
    wait_for(page, "edit-line", "layers 0-3 of seed 5 · turns −1σ$")
    unfold(page, "Strip and video")
    page.get_by_label("To a seed").check()
    page.locator("#film-seed input").fill("9")
    page.locator("#film-form").get_by_label("GIF").check()
    page.locator("#film-draw").click()
    page.wait_for_selector("#film-video img")
    film = Image.open(download(page, "#edit-video-save", tmp_path))
    assert (film.format, film.n_frames) == ("GIF", 36)
    assert thumbnails(page, "film-strip").last.inner_text() == "100 %"


def test_without_directions_the_tab_says_how_to_get_some(visit) -> None:
    page, other = visit("toy-plain", "toy-edit"), visit("toy-plain", "toy-edit")
    open_tab(page, "Edit")
    wait_for(page, "edit-about", "^toy-plain has no directions yet. Find a direction by clicks makes one")
    assert page.locator("#edit-sliders input:visible").count() == 0
    unfold(page, "Browse what")
    page.locator("#browse-show").click()
    wait_for(page, "browse-line", "^sefa-0")
    page.locator("#browse-keep").click()
    page.get_by_label("range slider for sefa-0").wait_for()
    open_tab(other, "Edit")
    assert other.get_by_label("range slider for sefa-0").count() == 0, "a direction is its page's own"
    before = shown(page, "a")
    page.locator("#model input").click()
    page.get_by_role("option", name="toy-edit").click()
    wait_for(page, "edit-about", "^A slider moves")
    page.wait_for_function("(src) => document.querySelector('#a img').src !== src", arg=before)
    page.get_by_label("range slider for smile").wait_for()
    assert page.get_by_label("range slider for sefa-0").count() == 0
    move(page, "smile", 1)
    wait_for(page, "edit-line", r"^seed 0 · psi 0.7 · smile \+1σ$")


def test_on_a_phone_nothing_scrolls_sideways(visit, models) -> None:
    page = visit("toy-edit", viewport=PHONE, has_touch=True, is_mobile=True)
    open_tab(page, "Edit")
    assert overflow(page) == 0
    page.locator("#edit-take-a").tap()
    wait_for(page, "edit-line", "^seed 0 ")
    for name in SECTIONS:
        unfold(page, name)
    mark(page, models["toy-edit"], 4)
    page.locator("#find-name input, #find-name textarea").first.fill("old")
    page.locator("#find-fit").tap()
    page.get_by_label("range slider for old").wait_for()
    page.locator("#browse-show").tap()
    wait_for(page, "browse-line", "^sefa-0")
    page.locator("#film-draw").tap()
    page.wait_for_selector("#film-video img")
    assert overflow(page) == 0
    page.get_by_label("range slider for zoom").scroll_into_view_if_needed()
    move(page, "zoom", 2)
    wait_for(page, "edit-line", r"zoom \+2σ$")
    page.get_by_label("Subject", exact=True).scroll_into_view_if_needed()
    pictures = page.locator("#edit-pictures").bounding_box()
    assert pictures["y"] >= 0, "one sees what the sliders do"
