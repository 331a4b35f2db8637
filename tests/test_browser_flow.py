"""Every button of the page, pressed on the way that somebody would go, and the main way without a mouse.

Presses are noted in the browser, by `NOTE`; the last test compares them with all buttons that were seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import test_browser
from PIL import Image
from test_api import load
from test_browser import download, fill_in, open_tab, thumbnails, wait_for

from hfgan import HFGan, app, guessing

browser, visit = test_browser.browser, test_browser.visit
pressed, seen = set(), set()  # by all tests of this file
# A button is known by its elem_id, and those that Gradio itself makes by what they do, wherever they are.
NOTE = """
window.nameOf = (one) => {
  if (one.role === "tab") return `tab ${one.innerText.trim()}`;
  if (one.classList.contains("label-wrap")) return `section ${one.querySelector("span").innerText.trim()}`;
  if (one.classList.contains("thumbnail-item")) return `picture of ${one.closest(".block").id}`;
  if (one.closest("#paint, .recipe .json-holder")) return null;  // tools inside an editor of Gradio's
  const said = (one.ariaLabel || one.innerText.trim()).replace("Copied", "Copy").replace("common.upload", "Upload");
  return /^component-|^$/.test(one.id) ? `Gradio's ${said || one.className}` : one.id;
};
const OTHERS = "[disabled], [aria-hidden=true] *, .picture .image-container *, :has(button)";  // and what holds one
window.allButtons = () => [...document.querySelectorAll("button")]
  .filter((one) => one.checkVisibility() && !one.matches(OTHERS)).map(nameOf).filter(Boolean);
document.addEventListener("click", (event) => {
  const one = event.target.closest("button");
  if (one) { noteSeen(allButtons()); notePressed(nameOf(one)); }
}, true);
"""
UNPRESSED = {  # and why; each is there
    "Gradio's Use via API": "opens a page of Gradio's, which asks for files that are not there",
    "Gradio's Settings": "the same",
    "picture of inverted-steps": "only shows what was on the way, as do the next three",
    "picture of browse-strip": "",
    "picture of film-strip": "",
    "picture of guess-mistakes": "",
}
TABS = ("Sample", "Invert", "Edit", "Cut out", "Mix", "Animate", "Modes", "Real or generated?", "Made by this model?",
        "About")  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HFGan]:
    """A toy with every part, and one that only draws."""
    return load(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def serve(models, cache, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """serve() -> the address of the app over these models, with photos for the game."""
    folder = tmp_path_factory.mktemp("photos")
    for k in range(12):
        noise = np.random.default_rng(k).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((32, 32)).save(folder / f"{k}.png")
    page = app.build(models, guessing.open_real(folder, "CC0 1.0"))
    address = app.launch(page, prevent_thread_lock=True, quiet=True)
    yield lambda *names: address
    page.close(verbose=False)


def open_all(page) -> None:
    """Open every section that is closed."""
    for closed in page.locator(".label-wrap:not(.open):visible").all()[::-1]:  # the list shrinks from behind
        closed.click()
    page.wait_for_function("![...document.querySelectorAll('.label-wrap:not(.open)')].some((one) => one.offsetParent)")


def loaded(page, elem_id: str) -> str:
    """The address of the picture in an element, once it is there."""
    page.wait_for_function("(id) => document.querySelector(`#${id} img`)?.naturalWidth > 0", arg=elem_id)
    return page.locator(f"#{elem_id} img").first.get_attribute("src")


def answer(page, last: int) -> None:
    """Answer the pictures of a game of 10 from the one at hand to this one."""
    page.locator("#guess-play").wait_for()
    while True:
        at = int(wait_for(page, "guess-progress", r"^\d+ of 10$").split()[0])
        page.wait_for_function("document.querySelector('#guess-picture img')?.naturalWidth === 16")
        page.locator(("#guess-generated", "#guess-real")[at % 2]).click()
        if at < 10:
            wait_for(page, "guess-progress", f"^{at + 1} of 10$")
        else:
            page.locator("#guess-done").wait_for()
        if at == last:
            return


@pytest.fixture
def use(visit):
    """use(**context) -> a page of `visit` that notes what is seen and pressed on it."""

    def go(**settings):
        page = visit(permissions=["clipboard-read", "clipboard-write"], **settings)
        page.expose_function("noteSeen", lambda names: seen.update(names))
        page.expose_function("notePressed", lambda name: name and pressed.add(name))
        page.evaluate(NOTE)
        return page

    return go


def look(page) -> None:
    """Note what is there to press."""
    seen.update(page.evaluate("allButtons()"))


def switch(page, name: str) -> None:
    """Choose another model, and wait for its first pictures."""
    before = page.locator("#a img").get_attribute("src")
    page.locator("#model input").click()
    page.get_by_role("option", name=name, exact=True).click()
    wait_for(page, "line", f"Loaded: {name} ")
    page.wait_for_function("(src) => ![src, null].includes(document.querySelector('#a img')?.getAttribute('src'))",
                           arg=before)  # fmt: skip


def test_a_sample_is_edited_and_cut_out_and_saved_in_all_forms(use, tmp_path: Path) -> None:
    page = use()
    open_all(page)
    look(page)
    page.locator("#dice").click()
    wait_for(page, "a-caption", "^seed [1-9]")
    page.locator("#count").get_by_label("Reset to default value").click()
    page.locator("#seed input").fill("20")
    page.locator("#draw").click()
    wait_for(page, "a-caption", "^seed 20 ")
    thumbnails(page, "gallery").nth(2).click()
    wait_for(page, "a-caption", "^seed 22 ")
    thumbnails(page, "modes").nth(1).click()
    wait_for(page, "a-caption", "^seed 22 · mode 1 ")
    assert download(page, "#gallery [aria-label='Download All']", tmp_path).suffix == ".zip"
    page.locator("#a-recipe [aria-label=Copy]").click()
    page.locator("#file button").first.wait_for()
    again = download(page, "#a-download", tmp_path)
    with page.expect_file_chooser() as asked:
        page.locator("#file button").first.click()
    asked.value.set_files(again)
    wait_for(page, "a-caption", "^seed 22 · mode 1 ")

    page.locator("#a-edit").click()
    wait_for(page, "edit-line", "^seed 22 ")
    page.get_by_label("number input for smile", exact=True).fill("2")
    wait_for(page, "edit-line", r"smile \+2σ$")
    page.locator("#edit-as-a").click()
    wait_for(page, "a-caption", r"smile \+2$")
    page.locator("#a-cut-out").click()
    first = loaded(page, "cut")
    open_all(page)
    look(page)
    page.locator("#background").get_by_label("Generated").check()
    for button in ("background-draw", "background-dice"):
        page.locator(f"#{button}").click()
    page.wait_for_function("(src) => document.querySelector('#cut img').src !== src", arg=first)
    saved = [download(page, f"#export-{kind}", tmp_path).name for kind in
             ("rgba", "mask", "alpha16", "trimap", "overlay", "composite")]  # fmt: skip
    assert len(set(saved)) == 6
    page.locator("#interest-use").click()
    wait_for(page, "interest-caption", "Kept on this page")
    page.locator("#background").get_by_label("Picture").check()
    page.locator("#background-picture input[type=file]").set_input_files(again)
    loaded(page, "background-picture")
    page.locator("#cut-sample").click()
    switch(page, "plain")
    page.get_by_role("tab", name="Cut out").wait_for(state="hidden")
    page.wait_for_function("document.querySelector('#tabs [aria-selected=true]')?.innerText === 'Sample'")
    page.locator("#gallery").wait_for()


def test_a_photo_is_inverted_and_becomes_a_and_is_mixed_and_filmed(use, tmp_path: Path) -> None:
    page = use()
    open_tab(page, "Invert")
    look(page)
    page.locator("#invert-photo-take").click()
    loaded(page, "invert-photo")
    page.locator("#invert-draw").click()
    wait_for(page, "inverted-line", "^What mattered")
    saved = [download(page, f"#inverted-{kind}-save", tmp_path).suffix for kind in ("picture", "pasted", "latent")]
    assert saved == [".png", ".png", ".safetensors"]
    fill_in(page, "refine-steps", "200")
    page.locator("#refine").click()
    page.wait_for_function("!document.querySelector('#refine-stop').disabled")
    page.locator("#refine-stop").click()
    page.wait_for_function("document.querySelector('#refine-stop').disabled")
    look(page)
    page.locator("#invert-as-a").click()
    wait_for(page, "a-caption", "^a latent$")
    page.locator("#a-as-b").click()
    wait_for(page, "b-caption", "^a latent$")
    open_tab(page, "Sample")
    thumbnails(page, "gallery").nth(1).click()
    wait_for(page, "a-caption", "^seed 1 ")
    open_tab(page, "Mix")
    open_all(page)
    look(page)
    page.locator("#mix-draw").click()
    wait_for(page, "mixed-caption", "^a latent$")
    assert download(page, "#mixed-download", tmp_path).suffix == ".png"
    page.locator("#mixed-as-b").click()
    wait_for(page, "b-caption", "^a latent$")
    assert download(page, "#b-download", tmp_path).suffix == ".png"
    page.locator("#mixed-as-a").click()
    wait_for(page, "a-caption", "^a latent$")
    open_tab(page, "Animate")
    look(page)
    fill_in(page, "steps", "3")
    page.locator("#animate-draw").click()
    loaded(page, "animation")
    assert download(page, "#animation-download", tmp_path).suffix == ".webp"
    page.locator("#b-as-a").click()

    open_tab(page, "Invert")
    page.locator("#invert-edit").click()
    wait_for(page, "edit-line", "^photo ")
    page.get_by_label("number input for smile", exact=True).fill("1")
    wait_for(page, "edit-line", r"smile \+1σ$")
    page.locator("#edit-as-b").click()
    wait_for(page, "b-caption", r"^a latent .*smile \+1")
    page.locator("#edit-as-a").click()
    wait_for(page, "a-caption", r"^a latent .*smile \+1")
    open_tab(page, "Invert")
    page.locator("#invert-cut").click()
    loaded(page, "photo")
    look(page)
    page.locator("#photo-take").click()
    page.locator("#cut-photo").click()
    loaded(page, "cut")
    page.locator("#source").get_by_label("Several photos").check()
    page.locator("#photos input[type=file]").set_input_files(next(tmp_path.glob("*.png")))
    page.locator("#photos [aria-label$='.png']").first.wait_for()
    look(page)
    page.locator("#cut-stop").click()  # while there is nothing to stop
    page.locator("#cut-photos").click()
    page.locator("#zip a").wait_for()
    open_tab(page, "Invert")
    switch(page, "plain")
    wait_for(page, "invert-about", "^plain cannot invert")
    assert page.locator("#invert-draw").is_disabled()


def test_every_part_of_the_editor(use, tmp_path: Path) -> None:
    page = use()
    open_tab(page, "Edit")
    open_all(page)
    look(page)
    page.locator("#edit-take-a").click()
    wait_for(page, "edit-line", "^seed 0 ")
    page.locator("#edit-seed input").fill("5")
    page.locator("#edit-take-seed").click()
    wait_for(page, "edit-line", "^seed 5 ")
    page.locator("#edit-mix").click()
    wait_for(page, "edit-line", "of seed 1$")
    page.locator("#edit-undo").click()
    wait_for(page, "edit-line", "^seed 5 · psi 0.7$")
    page.locator("#edit-redo").click()
    wait_for(page, "edit-line", "of seed 1$")
    thumbnails(page, "edit-steps").first.click()
    wait_for(page, "edit-line", "^seed 0 · psi 0.7$")
    page.locator("#find-more").click()
    page.wait_for_selector("#find-grid img")
    thumbnails(page, "find-grid").first.click()
    page.wait_for_selector("#find-grid img[alt^='+']")
    page.locator("#find-fit").click()
    page.locator(".toast-close").click()
    page.locator("#browse-show").click()
    wait_for(page, "browse-line", "^sefa-0")
    page.locator("#browse-keep").click()
    page.get_by_label("range slider for sefa-0").wait_for()
    page.locator("#film-draw").click()
    loaded(page, "film-video")
    look(page)
    saved = [download(page, f"#edit-{kind}-save", tmp_path).suffix for kind in ("picture", "strip", "video", "recipe")]
    assert saved == [".png", ".png", ".webp", ".json"]
    page.locator("#edit-pasted-save").click()
    page.locator(".toast-close").click()  # of no photo
    page.locator("#edit-reset").click()
    switch(page, "plain")
    wait_for(page, "edit-about", "^plain has no directions yet")


def test_modes_a_game_a_check_and_about_for_two_models(use) -> None:
    page = use()
    for name in TABS[::-1]:
        page.get_by_role("tab", name=name).click()
        page.wait_for_function("document.querySelectorAll('[role=tabpanel]:not([style*=none])').length === 1")
        look(page)
    open_tab(page, "Modes")
    for name in ("sweep", "compare"):
        page.locator(f"#{name}-draw").click()
        loaded(page, f"{name}-multimodal")
    look(page)
    for strip in ("sweep-global", "sweep-multimodal", "compare-global", "compare-multimodal"):
        thumbnails(page, strip).nth(1).click()
        wait_for(page, "a-caption", r"^seed 0 .*psi 0\.2" if "sweep" in strip else "^seed 1 .*psi 0.7$")

    open_tab(page, "Real or generated?")
    page.locator("#guess-start").click()
    answer(page, 3)
    look(page)
    page.locator("#guess-stop").click()
    page.locator("#guess-start").click()
    answer(page, 10)
    wait_for(page, "guess-result", r"\d+ of 10 right")
    look(page)
    page.locator("#guess-add").click()
    page.wait_for_function("document.querySelector('#guess-add').disabled")
    page.locator("#guess-again").click()
    page.locator("#guess-start").wait_for()

    open_tab(page, "Made by this model?")
    page.locator("#attribute-photo-take").click()
    loaded(page, "attribute-photo")
    page.locator("#attribute-check").click()
    page.wait_for_function("!document.querySelector('#attribute-stop').disabled")
    look(page)
    page.locator("#attribute-stop").click()
    wait_for(page, "attribute-line", "^Stopped|samples")
    page.wait_for_function("!document.querySelector('#attribute-check').disabled")
    page.locator("#attribute-check").click()
    page.wait_for_selector("#attribute-chart svg")

    open_tab(page, "About")
    wait_for(page, "about-model", "hfaces-64\\s+.*\\s+It has modes, inverts photos, edits by name")
    open_all(page)
    page.locator("#about-card .copy_code_button").first.click()
    switch(page, "plain")
    wait_for(page, "about-model", "plain\\s+.*\\s+It draws")
    for name in ("Real or generated?", "Made by this model?"):
        open_tab(page, name)
    wait_for(page, "attribute-about", "^plain cannot check pictures")
    assert page.locator("#attribute-check").is_disabled()
    page.get_by_role("tab", name="Modes").wait_for(state="hidden")


def test_what_gradio_offers_where_a_photo_is_dropped(use, photo, tmp_path: Path) -> None:
    page = use()
    photo(40, 48).save(tmp_path / "me.png")
    open_tab(page, "Invert")
    box = page.locator("#invert-photo")
    look(page)
    with page.expect_file_chooser() as asked:
        box.get_by_label("Drop an image file here to upload").click()
    asked.value.set_files(tmp_path / "me.png")
    loaded(page, "invert-photo")
    look(page)
    box.get_by_label("Remove Image").click()
    box.locator("img").wait_for(state="detached")
    box.get_by_label("Upload file").click()  # which is the choice, beside the clipboard
    box.get_by_label("Paste from clipboard").click()  # in which is no picture
    page.locator("#invert-photo-take").click()
    loaded(page, "invert-photo")
    box.get_by_label("Fullscreen").click()
    box.get_by_label("Exit fullscreen mode").click()
    box.get_by_label("Fullscreen", exact=True).wait_for()
    open_tab(page, "Cut out")
    page.locator("#source").get_by_label("Several photos").check()
    page.locator("#photos input[type=file]").set_input_files(tmp_path / "me.png")
    with page.expect_file_chooser() as asked:
        page.locator("#photos").get_by_label("Upload", exact=True).click()
    look(page)
    page.locator("#photos").get_by_label("Clear").click()
    page.locator("#photos [aria-label='me.png']").wait_for(state="detached")


WHERE = """() => {
  const one = document.activeElement;
  return [one.closest("[id]:not([id^=range])")?.id, one.getAttribute("aria-label") ?? one.innerText ?? ""];
}"""
RINGED = """(color) => {
  const {outlineStyle, outlineWidth, outlineColor} = getComputedStyle(document.activeElement);
  return document.activeElement !== document.body && outlineStyle === "solid" && parseFloat(outlineWidth) >= 2
    && outlineColor === color;
}"""  # after a button has faded to it


def tab_to(page, elem_id: str, label: str = "", most: int = 60) -> list[str]:
    """Press Tab until that is reached, and say on what elements it came by; each of them shows that it has focus."""
    passed, color = [], "rgb(245, 245, 245)" if page.evaluate("document.body.matches('.dark')") else "rgb(23, 23, 23)"
    for _ in range(most):
        page.keyboard.press("Tab")
        page.wait_for_function(RINGED, arg=color)
        at, said = page.evaluate(WHERE)
        passed.append(at)
        if at == elem_id and label in said:
            return passed
    raise AssertionError(f"{elem_id} {label} is not reached: {passed}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_main_way_by_keyboard_alone(use, scheme: str) -> None:
    page = use(color_scheme=scheme)
    keys = page.keyboard
    assert tab_to(page, "model") == ["model"], "first of all"
    passed = tab_to(page, "draw")
    assert passed[1:3] == ["count", "count"], "of all tabs, the one that is open"
    tab_to(page, "gallery", "seed 0")
    tab_to(page, "gallery", "seed 2", 2)
    keys.press("Enter")
    wait_for(page, "a-caption", "^seed 2 ")
    page.wait_for_selector("#gallery [aria-label^='seed 2 '][aria-pressed=true]")
    tab_to(page, "a-edit")
    keys.press("Space")
    wait_for(page, "edit-line", "^seed 2 ")
    page.get_by_role("tab", name="Edit", selected=True).focus()
    tab_to(page, "edit-1", "range slider")
    name = page.evaluate("document.activeElement.ariaLabel").removeprefix("range slider for ")
    keys.press("ArrowRight")
    wait_for(page, "edit-line", rf"{name} \+0\.1σ$")
    tab_to(page, "edit-as-a")
    keys.press("Enter")
    wait_for(page, "a-caption", rf"{name} \+0\.1$")
    tab_to(page, "a-cut-out")
    keys.press("Enter")
    loaded(page, "cut")
    page.get_by_role("tab", name="Cut out", selected=True).focus()
    keys.press("ArrowLeft")
    keys.press("Home")
    keys.press("Enter")
    page.get_by_role("tab", name="Sample", selected=True).wait_for()


def test_every_button_was_pressed(use, request: pytest.FixtureRequest) -> None:
    tests = {name for name, one in vars(request.module).items() if name.startswith("test_") and callable(one)}
    if tests - {item.originalname for item in request.session.items if item.path == request.path}:
        pytest.skip("only some of the tests run that press buttons")
    page = use()
    for name in TABS:
        open_tab(page, name)
        open_all(page)
        look(page)
    assert len(seen) > 90
    assert sorted(seen - pressed) == sorted(UNPRESSED)
