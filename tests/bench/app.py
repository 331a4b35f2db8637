"""How fast the app is, as a user meets it: from click to picture in a real browser, from start to the first pictures.

python tests/bench/app.py [--model hfaces-64 flowers-64 --runs 9 --json app.json]

Starts `python app.py` on a free port and drives it in chromium. A time runs from the event in the page until every
picture that it brings is another one and decoded; the median of the runs after one to warm up is held against a goal.
The photo is a picture that the model drew, enlarged. Other work on the same cores counts: the load is told, too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from test_browser import CHROMIUM, FLAGS, PATIENCE, open_tab, wait_for  # noqa: E402

GOALS = {"sample 8": 1.0, "invert": 1.5, "edit": 0.5, "cut out A": 1.0, "cut out a photo": 1.0, "ready": 15.0}  # [s]
MAX_MB = 2000
PHOTO_SIDE = 1024  # px
WIDE = {"width": 1280, "height": 900}
CHANGED = """async ([selector, kind, value, watched]) => {
  const shown = () => [...document.querySelectorAll(watched)];
  const old = new Set(shown().map((img) => img.src)), element = document.querySelector(selector);
  if (value !== null) element.value = value;
  const start = performance.now();
  element.dispatchEvent(new MouseEvent(kind, { bubbles: true, cancelable: true }));
  const there = (img) => !old.has(img.src) && img.complete && img.naturalWidth > 0;
  while (!shown().length || !shown().every(there)) {
    if (performance.now() - start > 60000) throw new Error(`${selector} brings nothing`);
    await new Promise(requestAnimationFrame);
  }
  return (performance.now() - start) / 1000;
}"""  # seconds from an event until all that is watched is another picture

Times = dict[str, list[float]]


# ---------------------------------------------------------------- the app and the browser


@contextmanager
def serving(models: list[str], folder: Path) -> Iterator[tuple[str, subprocess.Popen]]:
    """`python app.py` with its files in that folder; gives its address once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = os.environ | {"GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": str(folder), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "app.py", *(["--model", *models] if models else [])]
    address, log = f"http://127.0.0.1:{port}/", folder.with_suffix(".log")
    with log.open("w") as said, subprocess.Popen(command, cwd=ROOT, env=env, stdout=said, stderr=said) as server:
        try:
            while not _answers(address):
                if server.poll() is not None:
                    raise RuntimeError(f"the app did not start: {log.read_text()[-2000:]}")
                time.sleep(0.05)
            yield address, server
        finally:
            server.terminate()


def _answers(address: str) -> bool:
    try:
        return urllib.request.urlopen(f"{address}config", timeout=5).status == 200
    except OSError:
        return False


@contextmanager
def browsing() -> Iterator[Callable[..., Page]]:
    """open_page(**context) -> an empty page of a chromium that runs already."""
    if CHROMIUM is None:
        raise SystemExit("no chromium: apt-get install chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)

        def open_page(**settings: Any) -> Page:
            context = browser.new_context(**{"viewport": WIDE} | settings)
            context.set_default_timeout(PATIENCE)
            return context.new_page()

        yield open_page
        browser.close()


def go_to(page: Page, address: str) -> None:
    """Open the app and wait for its first pictures."""
    page.goto(address)
    until_shown(page, "#gallery img")
    until_shown(page, "#b img")


def until_shown(page: Page, selector: str) -> None:
    """Wait until there are such pictures, all of them decoded."""
    seen = "(all) => all.length > 0 && all.every((img) => img.complete && img.naturalWidth > 0)"
    page.wait_for_function(f"(selector) => ({seen})([...document.querySelectorAll(selector)])", arg=selector)


def drawn_photo(page: Page, path: Path) -> Path:
    """Picture A enlarged, as a JPEG without a recipe: a photo that nobody owns."""
    data = page.request.get(page.locator("#a img").get_attribute("src")).body()
    picture = Image.open(BytesIO(data)).convert("RGB").resize((PHOTO_SIDE, PHOTO_SIDE), Image.Resampling.LANCZOS)
    picture.save(path, quality=92)
    return path


def memory(process: int) -> dict[str, int]:
    """Resident memory of a process, now and at its peak [MB]."""
    status = Path(f"/proc/{process}/status").read_text()
    now, peak = (int(status.partition(f"{name}:")[2].split()[0]) * 1024 // 10**6 for name in ("VmRSS", "VmHWM"))
    return {"now": now, "peak": peak}


# ---------------------------------------------------------------- what is timed


class User:
    """Somebody at the page who does one thing again and again; each method is one run, in seconds."""

    def __init__(self, page: Page, models: list[str], photo: Path) -> None:
        self.page, self.models, self.photo = page, models, photo

    def sample(self, run: int) -> float:
        """Sample 8 with a new seed."""
        seed = 1000 + 8 * run
        open_tab(self.page, "Sample")
        self.page.locator("#seed input").fill(str(seed))
        seconds = self.changed("#draw", "#gallery img")
        wait_for(self.page, "a-caption", f"seed {seed} ")
        return seconds

    def invert(self, run: int) -> float:
        """Invert the photo at hand."""
        open_tab(self.page, "Invert")
        if run == 0:
            self.drop("invert-photo")
        return self.changed("#invert-draw", "#inverted img" if run else "#inverted-region img")

    def edit(self, run: int) -> float:
        """Move a slider."""
        open_tab(self.page, "Edit")
        if run == 0:
            self.page.locator("#edit-take-a").click()
            until_shown(self.page, "#edit-after img")
        value = f"{(1, -1)[run % 2] * (0.5 + run / 10):.1f}"
        return self.changed("#edit-0 input[type=range]", "#edit-after img", kind="input", value=value)

    def cut_out_a(self, run: int) -> float:
        """Cut out another picture A."""
        open_tab(self.page, "Sample")
        before = self.page.locator("#a-caption").inner_text()
        self.page.locator("#gallery button.thumbnail-item").nth(1 + run % 7).click()
        self.page.wait_for_function(
            "(said) => document.getElementById('a-caption').innerText.trim() !== said.trim()", arg=before
        )
        open_tab(self.page, "Cut out")
        return self.changed("#cut-sample", "#cut img")

    def cut_out_photo(self, run: int) -> float:
        """Cut out the photo at hand."""
        open_tab(self.page, "Cut out")
        if run == 0:
            self.page.locator("#source").get_by_label("A photo", exact=True).check()
            self.drop("photo")
        return self.changed("#cut-photo", "#cut img")

    def switch(self, run: int) -> float:
        """Choose another model; from the choice to its first pictures."""
        open_tab(self.page, "Sample")
        name = self.models[(run + 1) % len(self.models)]
        modes = self.page.locator("#modes img").first.get_attribute("src")
        self.page.locator("#model input").click()
        self.page.get_by_role("option", name=name).wait_for()
        seconds = self.changed(f"[role=option][aria-label='{name}']", "#gallery img", kind="mousedown")
        self.page.keyboard.press("Escape")
        wait_for(self.page, "line", name)
        self.page.wait_for_function("(src) => document.querySelector('#modes img')?.src !== src", arg=modes)
        return seconds

    def drop(self, elem_id: str) -> None:
        """Give the photo to one of the places for one."""
        self.page.locator(f"#{elem_id} input[type=file]").set_input_files(self.photo)
        until_shown(self.page, f"#{elem_id} img")

    def changed(self, selector: str, watched: str, kind: str = "click", value: str | None = None) -> float:
        """Seconds from an event until each picture that is watched is another one."""
        return self.page.evaluate(CHANGED, [selector, kind, value, watched])


def measure(models: list[str], runs: int) -> dict[str, Any]:
    """Everything that is printed."""
    with tempfile.TemporaryDirectory() as temporary, browsing() as open_page:
        page, began = open_page(), time.monotonic()
        with serving(models, Path(temporary) / "cache") as (address, server):
            answers = time.monotonic() - began
            go_to(page, address)
            ready, started = time.monotonic() - began, memory(server.pid)
            user = User(page, models, drawn_photo(page, Path(temporary) / "drawn.jpg"))
            verbs = {"sample 8": user.sample, "invert": user.invert, "edit": user.edit, "cut out A": user.cut_out_a,
                     "cut out a photo": user.cut_out_photo}  # fmt: skip
            verbs |= {"another model": user.switch} if len(models) > 1 else {}
            times: Times = {name: [verb(run) for run in range(runs + 1)][1:] for name, verb in verbs.items()}
            return {"answers": answers, "ready": ready, "times": times, "mb_started": started,
                    "mb_after": memory(server.pid)}  # fmt: skip


# ---------------------------------------------------------------- what is told


def judge(told: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the table: what, its median, the range, the goal, and whether that is met (None without one)."""
    rows = []
    for name, seconds in ({"ready": [told["ready"]]} | told["times"]).items():
        goal, middle = GOALS.get(name), median(seconds)
        rows.append({"what": name, "median_s": middle, "least_s": min(seconds), "most_s": max(seconds), "goal_s": goal,
                     "met": None if goal is None else middle <= goal})  # fmt: skip
    return rows


def show(told: dict[str, Any]) -> str:
    """The table as Markdown."""
    lines = ["| what | median [s] | range [s] | goal [s] | |", "|---|---|---|---|---|"]
    for row in told["rows"]:
        goal = "" if row["goal_s"] is None else f"{row['goal_s']:g}"
        met = {None: "", True: "met", False: "missed"}[row["met"]]
        span = f"{row['least_s']:.2f} to {row['most_s']:.2f}"
        lines.append(f"| {row['what']} | {row['median_s']:.2f} | {span} | {goal} | {met} |")
    peak, met = told["mb_after"]["peak"], "met" if told["memory_met"] else "missed"
    lines.append(f"\nmemory {told['mb_started']['now']} MB after start, {told['mb_after']['now']} MB after all of it, "
                 f"{peak} MB at the peak; goal {MAX_MB} MB: {met}")  # fmt: skip
    lines.append(f"load before {told['load_before'][0]:.1f}, after {told['load_after'][0]:.1f}, {told['cores']} cores")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["hfaces-64", "flowers-64"])
    parser.add_argument("--runs", type=int, default=9, help="timed runs of each, after one to warm up")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    given = parser.parse_args()
    before = os.getloadavg()
    told = measure(given.model, given.runs)
    told |= {"load_before": before, "load_after": os.getloadavg(), "cores": len(os.sched_getaffinity(0)),
             "models": given.model, "python": platform.python_version(), "torch": version("torch"),
             "gradio": version("gradio"), "memory_met": told["mb_after"]["peak"] <= MAX_MB}  # fmt: skip
    told["rows"] = judge(told)
    print(show(told))
    if given.json:
        given.json.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
