"""Tab Cut out in a real browser: see `test_browser`."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import test_browser
from PIL import Image
from test_browser import PHONE, download, fill_in, open_tab, overflow, wait_for
from toy import save_toy

from hfgan import HFGan, images

browser, serve, visit = test_browser.browser, test_browser.serve, test_browser.visit


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HFGan]:
    """A model that cuts out, one with modes that does so, too, and one that does not."""
    folder = tmp_path_factory.mktemp("models")
    paths = [save_toy(folder / "toy-cut", alpha=True), save_toy(folder / "toy-plain", seed=1)]
    paths.append(save_toy(folder / "toy-all", alpha=True, num_modes=3))
    return {path.name: HFGan.from_pretrained(path, dtype="float32") for path in paths}


def seen(page, elem_id: str) -> str:
    """The address of the picture in an element, once it is loaded."""
    page.wait_for_function("(id) => document.querySelector(`#${id} img`)?.naturalWidth > 0", arg=elem_id)
    return page.locator(f"#{elem_id} img").first.get_attribute("src")


def changed(page, elem_id: str, before: str) -> str:
    """The address of the picture once it is another one."""
    page.wait_for_function("([id, src]) => document.querySelector(`#${id} img`)?.src !== src", arg=[elem_id, before])
    return seen(page, elem_id)


def test_cut_out_a_photo_change_what_is_behind_and_save_all(visit, models, photo, tmp_path: Path) -> None:
    page, gan, path = visit("toy-cut"), models["toy-cut"], tmp_path / "me.jpg"
    photo(60, 44).save(path)
    calls, run = [], gan.matting.forward
    gan.matting.forward = lambda *a: calls.append(1) or run(*a)
    open_tab(page, "Cut out")
    page.get_by_label("A photo").check()
    page.locator("#photo input[type=file]").set_input_files(path)
    page.wait_for_selector("#photo img")
    page.locator("#cut-photo").click()
    first = seen(page, "cut")
    page.wait_for_function("document.querySelector('#cut-alpha img').naturalWidth === 60")

    gan.cutout(path).save(tmp_path / "python.png")
    calls.clear()
    saved = download(page, "#export-rgba", tmp_path)
    assert saved.name == "me-cutout.png"
    assert saved.read_bytes() == (tmp_path / "python.png").read_bytes()

    fill_in(page, "threshold", "0.5")
    second = changed(page, "cut", first)
    page.get_by_label("Invert").check()
    third = changed(page, "cut", second)
    page.get_by_label("Colour", exact=True).check()
    page.wait_for_selector("#background-color")
    changed(page, "cut", third)
    forms = {"mask": "L", "alpha16": "I;16", "trimap": "L", "overlay": "RGB", "composite": "RGB"}
    files = {kind: download(page, f"#export-{kind}", tmp_path) for kind in forms}
    assert {kind: Image.open(file).mode for kind, file in files.items()} == forms
    assert {Image.open(file).size for file in files.values()} == {(60, 44)}
    assert [file.name for file in files.values()][-2:] == ["me-overlay.png", "me-background.png"]
    wanted = gan.cutout(path).finish(threshold=0.5, invert=True)
    assert (np.asarray(Image.open(files["composite"])) == np.asarray(wanted.on("#2a9d8f"))).all()
    assert len(calls) == 1, "only this test asked for it"

    page.locator("#interest-use").click()
    wait_for(page, "interest-caption", r"Kept on this page: 60 × 44 px, \d+ %")


def test_cut_out_a_sample_on_a_background_that_is_drawn(visit, tmp_path: Path) -> None:
    page = visit("toy-cut")
    open_tab(page, "Cut out")
    page.locator("#export-mask").click()
    page.locator(".toast-body", has_text="press Cut out first").wait_for()
    open_tab(page, "Sample")
    page.locator("#gallery button.thumbnail-item").nth(3).click()
    wait_for(page, "a-caption", "^seed 3 ")
    page.locator("#a-cut-out").click()
    first = seen(page, "cut")
    page.get_by_label("Generated").check()
    second = changed(page, "cut", first)
    page.locator("#background-dice").click()
    changed(page, "cut", second)
    assert page.locator("#background-seed input").input_value() != "0"
    drawn = download(page, "#export-composite", tmp_path)
    assert drawn.name == "seed0003-background.png"
    assert images.read_recipe(drawn)["seed"] == 3
    page.get_by_role("button", name="Before and after").click()
    seen(page, "cut-slider")
    assert page.locator("#cut-slider img").count() == 2


def test_on_a_phone_several_photos_become_a_zip(visit, photo, tmp_path: Path) -> None:
    page = visit("toy-all", viewport=PHONE, has_touch=True, is_mobile=True)
    for seed in range(2):
        photo(40, 30, seed).save(tmp_path / f"{seed}.png")
    open_tab(page, "Cut out")
    page.get_by_label("Several photos").tap()
    page.locator("#photos input[type=file]").set_input_files([tmp_path / "0.png", tmp_path / "1.png"])
    page.locator("#photos [aria-label='1.png']").wait_for()
    page.get_by_label("Mask").tap()
    page.locator("#cut-photos").tap()
    page.locator("#zip a").wait_for()
    assert overflow(page) == 0
    with zipfile.ZipFile(download(page, "#zip a", tmp_path)) as packed:
        assert sorted(packed.namelist()) == ["mask/0.png", "mask/1.png", "rgba/0.png", "rgba/1.png"]


def test_the_tab_comes_and_goes_with_the_model(visit) -> None:
    page = visit("toy-plain", "toy-cut")
    assert not page.get_by_role("tab", name="Cut out").is_visible()
    for name, there in (("toy-cut", True), ("toy-plain", False), ("toy-cut", True)):
        page.locator("#model input").click()
        page.get_by_role("option", name=name).click()
        wait_for(page, "line", name)
        page.get_by_role("tab", name="Cut out").wait_for(state="visible" if there else "hidden")
    open_tab(page, "Cut out")
    page.wait_for_function("document.querySelector('#a-caption').innerText.startsWith('seed 0')")
    page.locator("#cut-sample").click()
    seen(page, "cut")
