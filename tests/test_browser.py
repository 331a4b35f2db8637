"""The app in a real browser, as a user meets it: Debian's chromium, driven by playwright, no network.

Skipped only where there is no chromium; in CI that is a failure.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from toy import save_toy

from hfgan import HFGan, app, images

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
PATIENCE = 90_000  # milliseconds, for a busy machine
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator:
    if CHROMIUM is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HFGan]:
    """Toy models of ten layers, of six, and of six with modes."""
    folder = tmp_path_factory.mktemp("models")
    paths = [save_toy(folder / "toy-64", resolution=64), save_toy(folder / "toy-16", seed=1)]
    paths.append(save_toy(folder / "toy-kinds", num_modes=40))
    return {path.name: HFGan.from_pretrained(path, dtype="float32") for path in paths}


@pytest.fixture(scope="module")
def serve(browser, models, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """serve("toy-64", ...) -> the address of an app over these models."""
    pages = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("cache")))

        @functools.cache
        def start(*names: str) -> str:
            pages.append(app.build({name: models[name] for name in names}))
            return app.launch(pages[-1], prevent_thread_lock=True, quiet=True)

        yield start
        for page in pages:
            page.close(verbose=False)


@pytest.fixture
def visit(browser, serve) -> Iterator:
    """visit(*names, **context) -> a page that shows its first pictures; then: own host only, no console errors."""
    contexts, allowed, hosts, complaints = [], set(), set(), []

    def watch(page) -> None:
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)

    def go(*names: str, **settings):
        address = serve(*(names or ("toy-64",)))
        allowed.add(urlsplit(address).netloc)
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | settings))
        contexts[-1].set_default_timeout(PATIENCE)
        page = contexts[-1].new_page()
        watch(page)
        page.goto(address)
        page.wait_for_selector("#gallery img")
        page.wait_for_selector("#b img")
        return page

    yield go
    for context in contexts:
        context.close()
    assert hosts - {""} == allowed  # data: and blob: have no host
    assert complaints == []


def wait_for(page, elem_id: str, pattern: str) -> str:
    """The text of an element once it matches."""
    page.wait_for_function(
        "([id, pattern]) => new RegExp(pattern).test(document.getElementById(id)?.innerText)", arg=[elem_id, pattern]
    )
    return page.locator(f"#{elem_id}").inner_text()


def fill_in(page, elem_id: str, number: str) -> None:
    """Type a number and see it stay: a tab that is still being made puts the old one back."""
    box = page.locator(f"#{elem_id} input[type=number]")
    for _ in range(20):
        box.fill(number)
        box.press("Enter")
        page.wait_for_timeout(250)
        if box.input_value() == number:
            return
    raise AssertionError(f"{elem_id} does not take {number}")


def download(page, selector: str, folder: Path) -> Path:
    """What a press on the button saves, under its suggested name."""
    with page.expect_download() as saved:
        page.locator(selector).click()
    path = folder / saved.value.suggested_filename
    saved.value.save_as(path)
    return path


def open_tab(page, name: str) -> None:
    """Open a tab, which on a phone may be in a menu."""
    tab, more = page.get_by_role("tab", name=name), page.locator(".overflow-menu")
    if not tab.is_visible():
        more.get_by_label("More tabs").click()
        tab = more.get_by_role("button", name=name)
    tab.click()


def overflow(page) -> int:
    """Pixels by which the page is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def test_first_pictures_come_without_a_click(visit) -> None:
    page = visit()
    assert page.locator("#gallery button.thumbnail-item").count() == 8
    assert page.title() == "HFGan"
    assert re.search(r"Loaded: toy-64 · 64 × 64 RGB · weights [0-9a-f]{12}", page.locator("#line").inner_text())
    assert "synthetic" in page.locator("#introduction").inner_text()
    for card, seed in (("a", 0), ("b", 7)):
        assert wait_for(page, f"{card}-caption", f"seed {seed} ")
        page.wait_for_function("(id) => document.querySelector(`#${id} img`).naturalWidth === 64", arg=card)


def test_sample_choose_mix_download_and_replay(visit, tmp_path: Path) -> None:
    page = visit()
    page.locator("#seed input").fill("100")
    fill_in(page, "count", "4")
    page.locator("#draw").click()
    wait_for(page, "a-caption", "seed 100 ")
    assert page.locator("#gallery button.thumbnail-item").count() == 4

    page.locator("#gallery button.thumbnail-item").nth(3).click()
    wait_for(page, "a-caption", "seed 103 ")
    page.locator("#a-as-b").click()
    wait_for(page, "b-caption", "seed 103 ")
    page.locator("#gallery button.thumbnail-item").nth(2).click()
    wait_for(page, "a-caption", "seed 102 ")
    chosen = download(page, "#a-download", tmp_path)
    assert chosen.name == "seed0102.png"
    assert images.read_recipe(chosen)["seed"] == 102

    open_tab(page, "Mix")
    page.get_by_label("Coarse").check()
    page.locator("#mix-draw").click()
    wait_for(page, "mixed-caption", "seed 102 · psi 0.7 · layers 0-3 of seed 103")
    mixed = download(page, "#mixed-download", tmp_path)
    assert mixed.name == "seed0102-mix0103_0-3.png"
    assert images.read_recipe(mixed)["mix"][0]["layers"] == [0, 1, 2, 3]

    open_tab(page, "Sample")
    page.get_by_role("button", name="Draw a PNG again").click()
    page.locator("#file input[type=file]").set_input_files(mixed)
    wait_for(page, "a-caption", "layers 0-3 of seed 103")
    again = download(page, "#a-download", tmp_path / "again")
    assert abs(pixels(again) - pixels(mixed)).max() <= 1
    assert images.read_recipe(again) == images.read_recipe(mixed)
    page.locator("#b-as-a").click()
    wait_for(page, "a-caption", "^seed 103 · psi 0.7$")
    open_tab(page, "Mix")
    page.locator("#mixed-as-b").click()
    wait_for(page, "b-caption", "layers 0-3 of seed 103")

    page.get_by_role("tab", name="Animate").click()
    fill_in(page, "steps", "4")
    page.get_by_label("GIF").check()
    page.locator("#animate-draw").click()
    page.wait_for_selector("#animation img")
    film = Image.open(download(page, "#animation-download", tmp_path))
    assert (film.format, film.n_frames) == ("GIF", 6)


def test_all_pictures_at_once_keep_names_and_recipes(visit, tmp_path: Path) -> None:
    page = visit()
    with zipfile.ZipFile(download(page, "#gallery [aria-label='Download All']", tmp_path)) as packed:
        assert len(packed.namelist()) == 8
        for number, name in enumerate(sorted(packed.namelist())):
            assert Path(name).name == f"seed{number:04d}.png"
            assert images.read_recipe(packed.read(name))["seed"] == number


def test_opening_more_changes_nothing_by_itself(visit, tmp_path: Path) -> None:
    page = visit()
    page.get_by_role("button", name="More").click()
    page.locator("#seed input").fill("30")
    page.locator("#draw").click()
    wait_for(page, "a-caption", "^seed 30 · psi 0.7$")
    page.get_by_label("none").check()
    page.get_by_label("first layers").fill("4")
    page.locator("#seed input").fill("")
    page.locator("#draw").click()
    wait_for(page, "a-caption", r"^seed \d+ · psi 0.7 · on 4 layers · noise none$")


def test_random_draws_others_and_psi_keeps_the_chosen_one(visit) -> None:
    page = visit()
    page.locator("#dice").click()
    wait_for(page, "a-caption", r"seed [1-9]\d* ")
    seed = page.locator("#seed input").input_value()
    assert seed != "0"
    page.locator("#gallery button.thumbnail-item").nth(1).click()
    second = f"seed {int(seed) + 1} "
    wait_for(page, "a-caption", second)
    fill_in(page, "psi", "1")
    page.locator("#draw").click()
    wait_for(page, "a-caption", f"{second}· psi 1$")


def test_mistakes_are_said_and_nothing_breaks(visit, tmp_path: Path, photo) -> None:
    page = visit()
    dialogs = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message) or dialog.dismiss())
    open_tab(page, "Mix")
    page.locator("#layers input, #layers textarea").first.fill("0-99")
    page.locator("#mix-draw").click()
    page.locator(".toast-body", has_text="within 0-9").wait_for()
    page.locator(".toast-close").click()

    recipe = images.read_recipe(download(page, "#a-download", tmp_path))
    evil = recipe | {"fingerprint": "0" * 12, "model": "<img src=x onerror=alert(1)>"}
    images.save_png(photo(), tmp_path / "evil.png", evil)
    open_tab(page, "Sample")
    page.get_by_role("button", name="Draw a PNG again").click()
    page.locator("#file input[type=file]").set_input_files(tmp_path / "evil.png")
    page.locator(".toast-body", has_text="but the loaded model is toy-64").wait_for()
    assert page.locator(".toast-body img").count() == 0
    assert dialogs == []

    page.get_by_role("tab", name="Mix").click()
    page.get_by_label("Fine").check()
    page.locator("#mix-draw").click()
    wait_for(page, "mixed-caption", "layers 8-9 of seed 7")


def test_on_a_phone_pictures_come_first_and_nothing_scrolls_sideways(visit) -> None:
    page = visit(viewport=PHONE, has_touch=True, is_mobile=True)
    assert overflow(page) == 0
    top = {name: page.locator(f"#{name}").bounding_box()["y"] for name in ("gallery", "controls", "a")}
    assert sorted(top, key=top.get) == ["gallery", "controls", "a"]
    for name in ("Animate", "About", "Mix"):
        open_tab(page, name)
        assert overflow(page) == 0
    page.locator("#mix-draw").tap()
    wait_for(page, "mixed-caption", "layers 4-7 of seed 7")
    assert overflow(page) == 0


def test_dark_is_dark(visit) -> None:
    page = visit(color_scheme="dark")
    light = "(style) => style.match(/[0-9.]+/g).slice(0, 3).reduce((sum, value) => sum + Number(value), 0) / 3"
    of = f"([selector, key]) => ({light})(getComputedStyle(document.querySelector(selector))[key])"
    assert page.evaluate(of, ["body", "backgroundColor"]) < 40
    assert page.evaluate(of, ["#introduction h1", "color"]) > 200
    assert page.evaluate(of, ["#draw", "backgroundColor"]) > 200, "the next step stands out"
    assert page.evaluate(of, ["#draw", "color"]) < 60


def test_another_model_brings_its_own_pictures_and_layers(visit) -> None:
    page = visit("toy-64", "toy-16")
    page.locator("#model input").click()
    page.get_by_role("option", name="toy-16").click()
    assert "16 × 16" in wait_for(page, "line", "toy-16")
    page.wait_for_function("document.querySelector('#a img').naturalWidth === 16")
    open_tab(page, "Mix")
    page.wait_for_function("document.querySelectorAll('#band input').length === 2")
    page.locator("#mix-draw").click()
    wait_for(page, "mixed-caption", "layers 4-5 of seed 7")
    assert visit("toy-64", "toy-16").locator("#model input").input_value() == "toy-64", "a choice is one's own"


def test_two_visitors_do_not_see_each_other(visit) -> None:
    first, second = visit(), visit()
    first.locator("#seed input").fill("500")
    first.locator("#draw").click()
    wait_for(first, "a-caption", "seed 500 ")
    assert second.locator("#seed input").input_value() == "0"
    second.locator("#gallery button.thumbnail-item").nth(4).click()
    assert wait_for(second, "a-caption", "seed 4 ")
    assert "seed 500 " in first.locator("#a-caption").inner_text()


def thumbnails(page, elem_id: str):
    return page.locator(f"#{elem_id} button.thumbnail-item")


def test_pick_a_mode_sample_from_it_and_go_back_by_mouse_and_by_keyboard(visit) -> None:
    page = visit("toy-kinds")
    wait_for(page, "a-caption", "^seed 0 · psi 0.7$")
    assert re.fullmatch(r"mode 3 · \d+\.\d %", thumbnails(page, "modes").nth(3).inner_text())
    thumbnails(page, "modes").nth(3).click()
    wait_for(page, "a-caption", "^seed 0 · mode 3 · psi 0.7$")
    assert page.get_by_label("Mode 3", exact=True).is_checked()
    page.locator("#seed input").fill("40")
    page.locator("#draw").click()
    wait_for(page, "a-caption", "^seed 40 · mode 3 · psi 0.7$")
    assert page.locator("#modes .selected").inner_text().startswith("mode 3 ")
    page.get_by_label("Around all modes").check()
    page.wait_for_function("new Set([...document.querySelectorAll('#gallery img')].map("
                           "(img) => img.alt.match(/mode [0-9]+/)?.[0])).size > 3")  # fmt: skip
    page.wait_for_selector("#modes .selected", state="detached")
    page.get_by_label("Mode 3", exact=True).check()
    wait_for(page, "a-caption", "^seed 40 · mode 3 ")
    page.wait_for_selector("#modes .selected")
    page.get_by_label("Global", exact=True).check()
    wait_for(page, "a-caption", "^seed 40 · psi 0.7$")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    wait_for(page, "a-caption", r"^seed 40 · mode \d+ · psi 0.7$")
    thumbnails(page, "modes").nth(4).focus()
    page.keyboard.press("Enter")
    wait_for(page, "a-caption", "^seed 40 · mode 4 ")


def test_both_truncations_along_psi_and_side_by_side(visit, tmp_path: Path) -> None:
    page = visit("toy-kinds")
    page.get_by_role("tab", name="Modes").click()
    page.locator("#sweep-draw").click()
    wait_for(page, "sweep-multimodal", r"mode \d+ · psi 0.75")
    assert thumbnails(page, "sweep-global").count() == thumbnails(page, "sweep-multimodal").count() == 5
    page.locator("#compare-draw").click()
    wait_for(page, "compare-multimodal", r"seed 7 · mode \d+")
    one, other = (page.locator(f"#compare-{name}").bounding_box() for name in ("global", "multimodal"))
    assert one["y"] == other["y"]
    assert one["x"] + one["width"] <= other["x"]
    thumbnails(page, "compare-multimodal").nth(5).click()
    wait_for(page, "a-caption", r"^seed 5 · mode \d+ · psi 0.7$")
    page.wait_for_selector("#gallery .selected", state="detached")
    chosen = download(page, "#a-download", tmp_path)
    page.locator("#sweep-draw").click()
    wait_for(page, "sweep-multimodal", f"mode {images.read_recipe(chosen)['mode']} · psi 0.75")
    with zipfile.ZipFile(download(page, "#sweep-multimodal [aria-label='Download All']", tmp_path)) as packed:
        assert len(set(packed.namelist())) == 5


def test_modes_come_and_go_with_the_model(visit) -> None:
    page = visit("toy-64", "toy-kinds")
    parts = [page.locator("#truncation"), page.locator("#modes"), page.get_by_role("tab", name="Modes")]
    assert not any(part.is_visible() for part in parts)

    def switch(name: str) -> None:
        page.locator("#model input").click()
        page.get_by_role("option", name=name).click()
        wait_for(page, "line", name)

    switch("toy-kinds")
    page.wait_for_function("document.querySelectorAll('#modes img').length === 40")
    page.wait_for_function("document.querySelector('#a img').naturalWidth === 16")
    page.get_by_role("tab", name="Modes").click()
    page.locator("#sweep-draw").click()
    page.wait_for_selector("#sweep-global img")
    open_tab(page, "Sample")
    thumbnails(page, "modes").nth(2).click()
    wait_for(page, "a-caption", "^seed 0 · mode 2 ")

    switch("toy-64")
    page.wait_for_function("document.querySelector('#a img').naturalWidth === 64")
    wait_for(page, "a-caption", "^seed 0 · psi 0.7$")
    assert not any(part.is_visible() for part in parts)
    open_tab(page, "Mix")
    page.locator("#mix-draw").click()
    wait_for(page, "mixed-caption", "seed 7")

    open_tab(page, "Sample")
    switch("toy-kinds")
    wait_for(page, "a-caption", "^seed 0 · psi 0.7$")
    assert page.get_by_label("Global").is_checked()
    assert page.get_by_label("Mode 0", exact=True).count() == 1
    assert page.locator("#modes .selected").count() == 0


def test_on_a_phone_modes_are_beside_the_pictures(visit) -> None:
    page = visit("toy-kinds", viewport=PHONE, has_touch=True, is_mobile=True)
    thumbnails(page, "modes").first.wait_for()
    wanted = ["gallery", "truncation", "modes", "controls", "a"]
    top = {name: page.locator(f"#{name}").bounding_box()["y"] for name in wanted}
    assert sorted(top, key=top.get) == wanted
    assert top["controls"] < 1.2 * PHONE["height"], "forty modes do not fill the screen"
    thumbnails(page, "modes").nth(1).tap()
    wait_for(page, "a-caption", "^seed 0 · mode 1 ")
    open_tab(page, "Modes")
    page.locator("#compare-draw").tap()
    page.wait_for_selector("#compare-multimodal img")
    assert overflow(page) == 0
    thumbnails(page, "compare-multimodal").nth(2).tap()
    wait_for(page, "a-caption", "^seed 2 · mode ")
    page.wait_for_function("document.getElementById('a').getBoundingClientRect().top >= 0")
