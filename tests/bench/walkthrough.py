"""Drive the app as a user does, and keep what is seen: the pictures and the film of docs/walkthrough.md.

python tests/bench/walkthrough.py [--out docs/walkthrough]

The same seeds, models and versions give the same pictures, but for the seconds that an inversion says it took and some
pixels that a browser rounds to a neighbouring colour. There is no face in them that the model did not draw: the game,
which shows real ones, is left out.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw
from playwright.sync_api import Locator, Page

from app import ROOT, browsing, drawn_photo, go_to, serving, until_shown

sys.path.insert(0, str(ROOT / "tests"))

from test_browser import PHONE, fill_in, open_tab, overflow, wait_for

from hfgan.app.inverter import PAINTED_SIDE

MODEL = "hfaces-64"
FIRST, CHOSEN, HIDDEN = 16, 21, 17  # seeds: the first of eight, of picture A, of the photo with something before it
MODE = 5
MOVED, FAR = "hair light", -2.0  # a direction of the model, and how far along it
BEHIND = 15  # seed of the background
BAR = (0.06, 0.62, 0.58, 0.74)  # what stands before the face, in shares of the photo
PAGE = {"width": 1280, "height": 960}
FRAME = (800, 600)  # px to which the film is reduced
MAX_PICTURE, MAX_FILM, MAX_SECONDS = 150_000, 1_500_000, 12
WHITE = 245  # of 255: lighter colours of the film are white, as the page is
STILL = 40  # looks, until which what is seen must have come to rest


def settle(page: Page) -> bytes:
    """A screenshot of the window as soon as nothing in it moves any more."""
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement?.blur()")
    page.wait_for_function("document.getAnimations().every((one) => one.playState !== 'running' || one.pending)")
    before = b""
    for _ in range(STILL):
        seen = page.screenshot(caret="hide")
        if seen == before:
            return seen
        before = seen
        page.wait_for_timeout(100)
    raise RuntimeError("the page does not come to rest")


# ---------------------------------------------------------------- pictures and a film


class Book:
    """Numbered screenshots in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0

    def keep(self, page: Page, name: str) -> None:
        """Write what is seen, in 256 colours."""
        self.count += 1
        path = self.folder / f"{self.count}-{name}.png"
        seen = Image.open(io.BytesIO(settle(page))).convert("RGB")
        seen.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(path, optimize=True)
        told(path, MAX_PICTURE)


class Film:
    """Screenshots, each seen for a while, with a pointer where something is pressed."""

    def __init__(self, page: Page) -> None:
        self.page, self.frames, self.times = page, [], []

    def keep(self, seconds: float, at: tuple[float, float] | None = None) -> None:
        """Add what is seen for so many seconds."""
        frame = Image.open(io.BytesIO(settle(self.page))).convert("RGB").resize(FRAME, Image.Resampling.LANCZOS)
        if at:
            draw_pointer(frame, *(place * FRAME[0] / PAGE["width"] for place in at))
        self.frames.append(frame)
        self.times.append(round(1000 * seconds))

    def press(self, target: Locator) -> None:
        """Show where one presses, and press."""
        self.keep(0.5, middle(target))
        target.click()

    def save(self, path: Path) -> None:
        """Write a GIF without end; all frames have the colours of the most colourful ones."""
        if sum(self.times) > 1000 * MAX_SECONDS:
            raise RuntimeError(f"the film takes {sum(self.times) / 1000} s")
        sheet = Image.new("RGB", (FRAME[0], FRAME[1] * len(self.frames)))
        for k, frame in enumerate(self.frames):
            sheet.paste(frame, (0, k * FRAME[1]))
        palette = sheet.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        parts = palette.getpalette()
        colors = (parts[k : k + 3] for k in range(0, len(parts), 3))
        palette.putpalette([part for one in colors for part in ((255, 255, 255) if min(one) >= WHITE else one)])
        first, *others = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in self.frames)
        first.save(path, save_all=True, append_images=others, duration=self.times, loop=0, optimize=False)
        told(path, MAX_FILM)


def told(path: Path, limit: int) -> None:
    """Say what was written; RuntimeError where it is too large."""
    size = path.stat().st_size
    print(f"{path.name}: {size / 1000:.0f} kB")
    if size > limit:
        raise RuntimeError(f"{path.name} has {size} bytes, at most {limit} are wanted")


def draw_pointer(frame: Image.Image, x: float, y: float) -> None:
    """An arrow whose tip is there."""
    arrow = ((0, 0), (0, 17), (4, 13), (7, 20), (10, 19), (7, 12), (13, 12))
    ImageDraw.Draw(frame).polygon([(x + dx, y + dy) for dx, dy in arrow], "black", "white")


def middle(target: Locator) -> tuple[float, float]:
    """Where the middle of an element is in the window."""
    target.scroll_into_view_if_needed()
    box = target.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


# ---------------------------------------------------------------- what one does


def sample(page: Page, seed: int) -> None:
    """Draw eight pictures from a seed on."""
    open_tab(page, "Sample")
    page.locator("#seed input").fill(str(seed))
    page.locator("#draw").click()
    wait_for(page, "a-caption", f"seed {seed} ")
    until_shown(page, "#gallery img")


def choose(page: Page, seed: int) -> None:
    """Make one of the eight picture A."""
    page.locator("#gallery button.thumbnail-item").nth(seed - FIRST).click()
    wait_for(page, "a-caption", f"seed {seed} ")


def slide(page: Page, strength: float) -> None:
    """Move the slider of the walk, and wait for its picture."""
    page.get_by_label(f"number input for {MOVED}", exact=True).fill(f"{strength:g}")
    wait_for(page, "edit-line", rf"{MOVED} [+−]{abs(strength):g}σ$")
    until_shown(page, "#edit-after img")


def changed(page: Page, elem_id: str, before: str | None) -> str:
    """The address of a picture once it is another one."""
    page.wait_for_function("([id, src]) => (document.querySelector(`#${id} img`)?.src ?? src) !== src",
                           arg=[elem_id, before])  # fmt: skip
    until_shown(page, f"#{elem_id} img")
    return page.locator(f"#{elem_id} img").get_attribute("src")


def put_behind(page: Page, elem_id: str = "cut") -> None:
    """Cut out what is at hand and put a background behind it that is drawn."""
    first = changed(page, elem_id, "")
    page.locator("#background").get_by_label("Generated", exact=True).check()
    second = changed(page, elem_id, first)
    fill_in(page, "background-seed", str(BEHIND))
    changed(page, elem_id, second)


def mark(page: Page) -> None:
    """Paint over what stands before the face, in a stroke; a stroke that begins beside the photo is none."""
    page.wait_for_selector("#paint canvas")
    canvas = page.locator("#paint canvas").first
    scroll_to(page, "#tabs")
    settle(page)
    box, zoom = canvas.bounding_box(), re.search(r"(\d+)%", page.locator("#paint").inner_text())[1]
    side = PAINTED_SIDE * int(zoom) / 100  # of the photo, in the middle of the canvas
    x, y = box["x"] + (box["width"] - side) / 2, box["y"] + (box["height"] - side) / 2
    left, top, right, bottom = BAR
    reach, across = (bottom - top) / 2, y + (top + bottom) / 2 * side
    page.mouse.move(x + (left + reach / 2) * side, across)
    page.mouse.down()
    page.mouse.move(x + (right - reach) * side, across, steps=12)
    page.mouse.up()


def stand_before(path: Path) -> Path:
    """Draw a bar over a photo: a microphone, say."""
    photo = Image.open(path)
    left, top, right, bottom = (share * photo.width for share in BAR)
    draw, half = ImageDraw.Draw(photo), (bottom - top) / 2
    draw.rounded_rectangle((left, top + half / 2, right - half, bottom - half / 2), half / 3, "#3c4048")
    draw.ellipse((right - 2 * half, top, right, bottom), "#70757f")
    photo.save(path, quality=92)
    return path


# ---------------------------------------------------------------- the walk


def walk(page: Page, book: Book, folder: Path) -> None:
    """The flow in pictures."""
    settle(page)
    book.keep(page, "sample")
    page.locator("#modes button.thumbnail-item").nth(MODE).click()
    wait_for(page, "a-caption", f"mode {MODE} ")
    until_shown(page, "#gallery img")
    book.keep(page, "modes")
    page.get_by_label("Global", exact=True).check()
    wait_for(page, "a-caption", "^seed 0 · psi")
    sample(page, FIRST)
    choose(page, CHOSEN)
    page.locator("#a-edit").click()
    wait_for(page, "edit-line", f"^seed {CHOSEN} ")
    slide(page, FAR)
    scroll_to(page, "#tabs")
    book.keep(page, "edit")
    page.locator("#edit-as-a").click()
    wait_for(page, "a-caption", MOVED)
    page.locator("#a-cut-out").click()
    put_behind(page)
    scroll_to(page, "#cut")
    book.keep(page, "cut-out")
    sample(page, FIRST)
    choose(page, HIDDEN)
    photo = stand_before(drawn_photo(page, folder / "photo.jpg"))
    invert(page, photo, book)
    open_tab(page, "Sample")
    choose(page, CHOSEN)
    attribute(page)
    scroll_to(page, "#attribute-check")
    book.keep(page, "made-by-this-model")


def invert(page: Page, photo: Path, book: Book) -> None:
    """Invert a photo but for what is painted over."""
    open_tab(page, "Invert")
    page.locator("#invert-photo input[type=file]").set_input_files(photo)
    until_shown(page, "#invert-photo img")
    page.get_by_label("All but what I paint", exact=True).check()
    mark(page)
    book.keep(page, "paint")
    page.locator("#invert-draw").click()
    wait_for(page, "inverted-line", "all but what was painted")
    until_shown(page, "#inverted img, #inverted-region img, #inverted-pasted img, #inverted-steps img")
    scroll_to(page, "#invert-draw")
    book.keep(page, "invert")


def attribute(page: Page) -> None:
    """Ask whether the model made picture A."""
    open_tab(page, "Made by this model?")
    page.locator("#attribute-photo-take").click()
    until_shown(page, "#attribute-photo img")
    page.locator("#attribute-check").click()
    page.wait_for_selector("#attribute-chart svg")
    until_shown(page, "#attribute-seen img, #attribute-drawn img")


def scroll_to(page: Page, selector: str) -> None:
    """Have an element at the upper edge of the window."""
    page.locator(selector).evaluate("(one) => scrollTo(0, one.getBoundingClientRect().top + scrollY - 8)")


def film(page: Page, path: Path) -> None:
    """The flow as it moves: sample, choose, edit, cut out."""
    shown = Film(page)
    shown.keep(1)
    page.locator("#seed input").fill(str(FIRST))
    shown.press(page.locator("#draw"))
    wait_for(page, "a-caption", f"seed {FIRST} ")
    until_shown(page, "#gallery img")
    shown.keep(0.8)
    shown.press(page.locator("#gallery button.thumbnail-item").nth(CHOSEN - FIRST))
    wait_for(page, "a-caption", f"seed {CHOSEN} ")
    shown.press(page.locator("#a-edit"))
    wait_for(page, "edit-line", f"^seed {CHOSEN} ")
    scroll_to(page, "#tabs")
    shown.keep(0.6)
    slider = page.get_by_label(f"range slider for {MOVED}")
    for step in range(1, 6):
        slide(page, FAR * step / 5)
        box = slider.bounding_box()
        shown.keep(0.25, (box["x"] + box["width"] * (0.5 + FAR * step / 30), box["y"] + box["height"] / 2))
    shown.keep(0.8)
    page.locator("#edit-as-a").click()
    wait_for(page, "a-caption", MOVED)
    scroll_to(page, "#tabs")
    shown.press(page.locator("#a-cut-out"))
    first = changed(page, "cut", "")
    scroll_to(page, "#cut")
    shown.keep(0.8)
    shown.press(page.locator("#background").get_by_label("Generated", exact=True))
    second = changed(page, "cut", first)
    shown.keep(0.5)
    fill_in(page, "background-seed", str(BEHIND))
    changed(page, "cut", second)
    shown.keep(1.5)
    shown.save(path)


def main() -> None:
    """Start the app, walk, and write all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "walkthrough")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    book = Book(given.out)
    with tempfile.TemporaryDirectory() as temporary, browsing() as open_page:
        folder = Path(temporary)
        with serving([MODEL, "flowers-64"], folder / "cache") as (address, _):
            page = open_page(viewport=PAGE)
            go_to(page, address)
            walk(page, book, folder)
            phone = open_page(viewport=PHONE, has_touch=True, is_mobile=True, color_scheme="dark")
            go_to(phone, address)
            assert overflow(phone) == 0
            book.keep(phone, "phone")
            screen = open_page(viewport=PAGE)
            go_to(screen, address)
            film(screen, given.out / "walk.gif")


if __name__ == "__main__":
    main()
