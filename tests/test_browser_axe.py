"""What axe-core finds on every tab, empty and filled, in light and dark, on a desk and on a phone: nothing of ours.

The sizes of what a finger presses, and that the page is no wider than the phone, are measured on the way.
"""

from __future__ import annotations

import test_browser
import test_browser_flow
from axe_playwright_python.base import AXE_SCRIPT
from test_browser import PHONE, open_tab, overflow, wait_for
from test_browser_flow import TABS, answer, loaded, open_all

browser, visit = test_browser.browser, test_browser.visit
models, serve = test_browser_flow.models, test_browser_flow.serve

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
DESK = {"width": 1280, "height": 900}
ALL = "desk light, desk dark, phone light, phone dark"
# rule and selector: what Gradio itself writes, and no setting or style of ours can change; each must occur
UPSTREAM = {
    ("image-redundant-alt", ".thumbnail-item img"): "a gallery gives the caption below a picture as its alt, too",
    ("image-redundant-alt", "footer img"): "the icons of the footer are named like the words beside them",
    ("nested-interactive", "#photos .icon-button"): "what adds files to files is a button around a button",
}
SMALLEST = 24  # CSS pixels, WCAG 2.2 2.5.8

SCAN = """async ([within, tags, known]) => {
  const {violations} = await axe.run(within, {runOnly: {type: "tag", values: tags}, resultTypes: ["violations"]});
  return violations.flatMap(({id, nodes}) => nodes.map(({target, html, any, all, none}) => {
    const one = document.querySelector(target[0]);
    const at = known.findIndex(([rule, selector]) => rule === id && one?.matches(selector));
    return [at, `${id} ${target} ${html.slice(0, 200)} ${[...any, ...all, ...none].map((why) => why.message)}`];
  }));
}"""
SMALL = """(least) => [...document.querySelectorAll("button, input, textarea, [role=tab], [role=button], footer a")]
  .filter((one) => one.checkVisibility({visibilityProperty: true}) && !one.closest("[aria-hidden=true]"))
  .map((one) => [one, (one.closest("label, .wrap-inner, .toast-header") ?? one).getBoundingClientRect()])
  .filter(([, {width, height}]) => width > 0 && (width < least || height < least))
  .map(([one, {width, height}]) => `${one.closest("[id]").id} ${one.outerHTML.slice(0, 120)} ${width} x ${height}`)"""
RESTS = """() => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(() => go(
  !document.getAnimations().some((one) => isFinite(one.effect.getComputedTiming().endTime))))))"""
STILL = "*, *::before, *::after { transition: none !important; animation-duration: 0s !important; }"


class Scan:
    """What was found on a page, all of it, and which exceptions are there."""

    def __init__(self, page) -> None:
        self.page, self.found, self.used = page, [], set()
        page.evaluate(AXE_SCRIPT)
        page.add_style_tag(content=STILL)

    def __call__(self, where: str, looks: str = "desk light, phone dark", within: str = "#tabs") -> None:
        """Look at a part of the page as it is, in these looks."""
        for look in looks.split(", "):
            resize(self.page, PHONE if "phone" in look else DESK)
            self.page.evaluate("(dark) => document.body.classList.toggle('dark', dark)", "dark" in look)
            self.page.wait_for_function(RESTS)
            said = self.page.evaluate(SCAN, [within, RULES, list(UPSTREAM)])
            self.used |= {list(UPSTREAM)[at] for at, _ in said if at >= 0}
            said = [text for at, text in said if at < 0]
            if "phone" in look:
                said += self.page.evaluate(SMALL, SMALLEST)
                said += [f"{wide} pixels too wide"] if (wide := overflow(self.page)) else []
            self.found += [f"{where}, {look}: {text}" for text in said]
        resize(self.page, DESK)


def resize(page, size: dict[str, int]) -> None:
    """Make the window that large; tabs that have no room go into a menu."""
    page.set_viewport_size(size)
    page.locator(".overflow-menu button[aria-label='More tabs']").wait_for(
        state="visible" if size == PHONE else "hidden"
    )
    page.get_by_role("tab", name="Sample").wait_for()


def test_what_is_empty_and_what_is_open(visit) -> None:
    page = visit()
    scan = Scan(page)
    scan("at first", ALL, "html")
    for name in TABS:
        open_tab(page, name)
        open_all(page)
        scan(f"{name}, empty")
    page.locator("#model input").click()
    page.wait_for_function(
        "[...document.querySelectorAll('.options')].some((one) => getComputedStyle(one).opacity === '1')"
    )
    scan("the list of models", "desk light, desk dark", "html")
    page.get_by_role("option", name="plain").click()
    wait_for(page, "line", "plain")
    for name in ("Invert", "Edit", "Made by this model?", "About"):
        open_tab(page, name)
        scan(f"{name}, of a model that cannot")
    assert scan.found == []


def test_what_is_filled(visit) -> None:
    page = visit()
    scan = Scan(page)
    scan("Sample", ALL, "html")
    for name, fill in FILLED.items():
        open_tab(page, name)
        open_all(page)
        fill(page, scan)
        scan(f"{name}, filled")
    open_tab(page, "Real or generated?")
    page.locator("#guess-practice input").check()
    page.locator("#guess-start").click()
    answer(page, 4)
    scan("a game")
    answer(page, 10)
    wait_for(page, "guess-result", "of 10 right")
    scan("a result", ALL)
    assert scan.found == []
    assert scan.used == set(UPSTREAM), "an exception that no longer occurs"


def _invert(page, scan: Scan) -> None:
    page.locator("#invert-draw").click()
    page.locator(".toast-body[style*='opacity: 1;']", has_text="no photo").wait_for()
    page.wait_for_function("getComputedStyle(document.querySelector('.toast-body')).opacity === '1'")  # it fades in
    scan("a message", within="html")
    page.locator(".toast-close").click()
    page.locator("#invert-photo-take").click()
    loaded(page, "invert-photo")
    page.get_by_label("What I paint", exact=True).check()
    page.wait_for_selector("#paint canvas")
    scan("where one paints")
    page.get_by_label("A box", exact=True).check()
    page.locator("#invert-draw").click()
    wait_for(page, "inverted-line", "What mattered: the box")


def _edit(page, scan: Scan) -> None:
    page.get_by_label("number input for smile", exact=True).fill("1")
    wait_for(page, "edit-line", r"smile \+1σ")
    for button, shown in (("find-more", "find-grid"), ("browse-show", "browse-strip"), ("film-draw", "film-video")):
        page.locator(f"#{button}").click()
        loaded(page, shown)


def _cut(page, scan: Scan) -> None:
    page.locator("#cut-sample").click()
    loaded(page, "cut")
    for name in ("Colour", "Picture", "Generated"):
        page.locator("#background").get_by_label(name, exact=True).check()
    page.locator("#background-dice").wait_for()
    for name in ("A photo", "Several photos"):
        page.locator("#source").get_by_label(name, exact=True).check()
        scan(f"Cut out, {name}")
    page.locator("#photos input[type=file]").set_input_files({"name": "me.png", "mimeType": "", "buffer": b"PNG"})
    page.locator("#photos [aria-label='me.png']").wait_for()
    scan("Cut out, with a photo of several")
    page.locator("#source").get_by_label("Picture A", exact=True).check()


def _mix(page, scan: Scan) -> None:
    page.locator("#mix-draw").click()
    wait_for(page, "mixed-caption", "of seed 7")


def _animate(page, scan: Scan) -> None:
    page.locator("#animate-draw").click()
    loaded(page, "animation")


def _modes(page, scan: Scan) -> None:
    for name in ("sweep", "compare"):
        page.locator(f"#{name}-draw").click()
        loaded(page, f"{name}-multimodal")


def _attribute(page, scan: Scan) -> None:
    page.locator("#attribute-photo-take").click()
    loaded(page, "attribute-photo")
    page.locator("#attribute-check").click()
    page.wait_for_selector("#attribute-chart svg")


FILLED = {"Invert": _invert, "Edit": _edit, "Cut out": _cut, "Mix": _mix, "Animate": _animate, "Modes": _modes,
          "Made by this model?": _attribute}  # fmt: skip
