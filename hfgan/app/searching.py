"""Searches that go on for seconds: a page sees how far its own one is, and ends it; nobody else can."""

from __future__ import annotations

import queue
import secrets
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import gradio as gr
from gradio.components import Component

from hfgan.app.card import QUICK
from hfgan.app.gpu import on_gpu
from hfgan.refinement import Step

MAX_SECONDS = 50  # of a search, during which nobody else draws with its model
EVERY = 5  # steps to a preview, at least
PRIVATE = {"api_visibility": "private"}

Shown, Found = TypeVar("Shown"), TypeVar("Found")


class Search:
    """Is told of each step of a search; ends it when it is to end, or its time is over."""

    def __init__(self, count: int, wanted: Callable[[], bool] = lambda: True) -> None:
        self.count, self.wanted, self.taken, self.end = count, wanted, 0, float("inf")
        self.steps: queue.Queue[Step] = queue.Queue(1)  # to be shown: the next only when the one before is

    def __call__(self, step: Step) -> bool:
        """Whether to go on."""
        if not self.taken:
            self.end = time.monotonic() + MAX_SECONDS
        self.taken = step.index
        if step.index % EVERY == 0:
            with suppress(queue.Full):
                self.steps.put_nowait(step)
        return self.wanted() and time.monotonic() < self.end


class Searches:
    """Those of all pages; each has a token that nobody can guess and that lives in the state of its page."""

    def __init__(self) -> None:
        self._wanted = TemporaryDirectory(prefix="hfgan-")  # a file for each that is to go on: for every process

    def begin(self) -> str:
        """The token of a new one."""
        token = secrets.token_urlsafe(16)
        self._file(token).touch()
        return token

    def stop(self, token: str | None) -> None:
        """End the search of that token, if there still is one."""
        if token:
            self._file(token).unlink(missing_ok=True)

    def follow(
        self, token: str | None, count: int, work: Callable[[Search], Found], show: Callable[[Step], Shown]
    ) -> Generator[Shown, None, Found]:
        """What `show` makes of the steps of a search on the way; returns what `work` does.

        Args:
            token: Of `begin`.
            count: Steps of the search.
            work: What searches, in a thread of its own, as long as the `Search` that it is given wants it.
            show: Makes of a step what the page is sent.
        """
        search = Search(count, self._file(str(token)).exists)
        with ThreadPoolExecutor(1) as pool:
            try:
                job = pool.submit(work, search)
                while not job.done():
                    with suppress(queue.Empty):
                        yield show(search.steps.get(timeout=0.1))
                return job.result()
            finally:  # also where nobody waits for it any more
                self.stop(token)

    def _file(self, token: str) -> Path:
        """Is there as long as the search of a token is to go on."""
        return Path(self._wanted.name) / Path(token).name


def press(
    searches: Searches, start: gr.Button, stop: gr.Button, verb: Callable, inputs: list[Component],
    outputs: list[Component], *, seconds: int, busy: Component, line: dict[str, Any],
) -> None:  # fmt: skip
    """The events of two buttons that start a search and stop it, of which a page has one at a time.

    Args:
        verb: Takes a token before `inputs`, and yields `outputs`.
        seconds: Of a GPU.
        busy: Where it is seen that it goes on.
        line: In which searches wait for one another: concurrency_id and concurrency_limit.
    """
    token, aiming = gr.State(), PRIVATE | {"concurrency_limit": None, "show_progress": "hidden"}

    def begin() -> tuple[Any, ...]:
        return searches.begin(), gr.Button(interactive=False), gr.Button(interactive=True)

    def end() -> tuple[gr.Button, gr.Button]:
        return gr.Button(interactive=True), gr.Button(interactive=False)

    begun = start.click(begin, None, [token, start, stop], **aiming)
    found = begun.success(on_gpu(verb, seconds), [token, *inputs], outputs, show_progress="minimal",
                          show_progress_on=busy, **PRIVATE, **line)  # fmt: skip
    found.then(end, None, [start, stop], **QUICK)
    stop.click(searches.stop, token, None, **QUICK)
