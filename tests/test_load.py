"""Many users at once, half of whom leave midway: nobody gets another one's, nothing hangs, refusals can be read."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import load
import pytest
from gradio.route_utils import delete_files_created_by_app
from gradio_client import Client
from test_api import NAME
from test_api import load as load_models

from hfgan import HFGan, app
from hfgan.app import door, inverter, studio

SAMPLE = (1, 3, 0.7, 0, "const", 0, "global", 0)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HFGan]:
    return load_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def page(models, cache) -> Iterator[gr.Blocks]:
    """The app, running."""
    page = app.build(models)
    app.launch(page, prevent_thread_lock=True, quiet=True)
    yield page
    page.close(verbose=False)


@pytest.fixture
def http(page) -> Iterator[httpx.Client]:
    """Somebody who speaks HTTP."""
    with httpx.Client(base_url=f"{page.local_url}gradio_api/", timeout=30) as client:
        yield client


class Asker:
    """Joins the queue, and waits for what comes of it."""

    def __init__(self, http: httpx.Client, session: str) -> None:
        config = http.get("../config").json()["dependencies"]
        self.http, self.session, self.numbers = http, session, {one["api_name"]: one["id"] for one in config}

    def join(self, verb: str, *data: Any) -> httpx.Response:
        """Ask for something."""
        body = {"fn_index": self.numbers[verb], "data": [NAME, *data], "session_hash": self.session}
        return self.http.post("queue/join", json=body)

    def cancel(self, verb: str, event: str) -> None:
        """Ask no more for it."""
        body = {"session_hash": self.session, "fn_index": self.numbers[verb], "event_id": event}
        assert self.http.post("cancel", json=body).json() == {"success": True}

    def wait(self) -> None:
        """Until all that was asked for is answered."""
        self.http.get("queue/data", params={"session_hash": self.session})


class Gate:
    """Holds all that a model draws until it is opened, and counts what came through."""

    def __init__(self, models: dict[str, HFGan], monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.at, self.seen = threading.Event(), threading.Event(), []
        for verb in ("sample", "cutout"):
            monkeypatch.setattr(models[NAME], verb, self._held(verb, getattr(models[NAME], verb)))

    def _held(self, name: str, verb: Any) -> Any:
        def held(*given: Any, **how: Any) -> Any:
            self.seen.append((name, how.get("seed")))
            self.at.set()
            assert self.open.wait(20)
            return verb(*given, **how)

        return held


@pytest.fixture
def gate(models, monkeypatch) -> Iterator[Gate]:
    gate = Gate(models, monkeypatch)
    yield gate
    gate.open.set()


def settle(page: gr.Blocks) -> None:
    """Wait until nothing is being done."""
    for _ in range(200):
        if not any(page._queue.active_jobs) and not len(page._queue):
            return
        time.sleep(0.05)
    raise AssertionError("something hangs")


# ---------------------------------------------------------------- a crowd


def test_a_crowd_is_served_each_its_own(page) -> None:
    told = asyncio.run(load.use(page.local_url, users=12, seconds=10, cancelling=0.5))
    assert told["wrong"] == []
    assert told["last_wrong"] == []
    assert set(told["statuses"]) <= {"2xx", "503"}
    assert told["drained_s"] is not None
    assert told["last_s"] < 10
    assert set(told["answers"]) == {"sample", "cutout_sample", "edit", "invert", "modes", "list_models"}
    assert set(told["cancelled"]) == {"close", "cancel"}
    assert all(load.readable(said) for said in told["refusals"])


@pytest.mark.parametrize(
    "said", [None, "", "no", "KeyError: 3", "it is in /tmp/gradio now", "x " * 300, "<class 'int'>  "]
)
def test_what_cannot_be_read_is_seen(said: str | None) -> None:
    assert not load.readable(said)
    assert load.readable(door.OWN)
    assert load.readable(door.FULL)


# ---------------------------------------------------------------- one for all


def test_one_user_cannot_fill_the_queue(http: httpx.Client, page, gate: Gate) -> None:
    greedy, modest = Asker(http, "greedy"), Asker(http, "modest")
    replies = [greedy.join("sample", *SAMPLE)]
    assert gate.at.wait(10)  # the first is being drawn, the others wait
    replies += [greedy.join("sample", *SAMPLE) for _ in range(20)]
    assert [reply.status_code for reply in replies] == [200] * (1 + door.MAX_OWN) + [503] * (20 - door.MAX_OWN)
    assert replies[-1].json()["detail"] == door.OWN
    assert modest.join("sample", *SAMPLE).status_code == 200
    gate.open.set()
    modest.wait()
    settle(page)
    assert greedy.join("sample", *SAMPLE).status_code == 200
    settle(page)


def test_a_full_queue_says_so(http: httpx.Client, page, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page._queue, "max_size", 3)
    first = Asker(http, "first")
    first.join("sample", *SAMPLE)
    assert gate.at.wait(10)
    replies = [Asker(http, f"user{k}").join("sample", *SAMPLE) for k in range(5)]
    assert [reply.status_code for reply in replies] == [200, 200, 200, 503, 503]
    assert replies[-1].json()["detail"] == door.FULL
    gate.open.set()
    settle(page)


def test_calls_past_the_queue_are_bounded(http: httpx.Client, page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "_direct", door.MAX_DIRECT)
    body = {"fn_index": Asker(http, "x").numbers["sample"], "data": [NAME, *SAMPLE]}
    refused = http.post("run/predict", json=body)
    assert refused.json()["error"] == door.FULL
    monkeypatch.setattr(page, "_direct", 0)
    assert http.post("run/predict", json=body).status_code == 200
    assert page._direct == 0


# ---------------------------------------------------------------- who leaves


def test_what_nobody_waits_for_in_the_queue_is_not_drawn(http: httpx.Client, page, gate: Gate) -> None:
    first, second, third = (Asker(http, name) for name in ("one", "two", "three"))
    first.join("sample", *SAMPLE)
    assert gate.at.wait(10)
    event = second.join("sample", 1, 22, *SAMPLE[2:]).json()["event_id"]
    third.join("sample", 1, 33, *SAMPLE[2:])
    second.cancel("sample", event)
    gate.open.set()
    third.wait()
    settle(page)
    assert gate.seen == [("sample", 3), ("sample", 33)]


@pytest.mark.parametrize("how", ["cancel", "close"])
def test_what_nobody_waits_for_at_the_lock_is_not_drawn(
    http: httpx.Client, page, models, gate: Gate, how: str
) -> None:
    recipe = HFGan.sample(models[NAME], seed=1).recipes[0]
    first, second = Asker(http, f"first {how}"), Asker(http, f"second {how}")
    first.join("sample", *SAMPLE)
    assert gate.at.wait(10)
    event = second.join("cutout_sample", recipe).json()["event_id"]  # of another line: it waits for the model's lock
    while not any(job and job[0].session_hash == second.session for job in page._queue.active_jobs):
        time.sleep(0.01)
    if how == "cancel":
        second.cancel("cutout_sample", event)
    else:
        with pytest.raises(httpx.ReadTimeout):
            http.get("queue/data", params={"session_hash": second.session}, timeout=0.2)
        while any(job and job[0].session_hash == second.session and job[0].alive for job in page._queue.active_jobs):
            time.sleep(0.01)
    gate.open.set()
    first.wait()
    settle(page)
    time.sleep(0.1)  # a thread that goes on
    assert gate.seen == [("sample", 3)]


def test_a_refinement_that_nobody_waits_for_ends(http: httpx.Client, page, photo, tmp_path: Path, monkeypatch) -> None:
    began, taken, call = threading.Event(), [], inverter.Search.__call__

    def slowly(search: inverter.Search, step: Any) -> bool:
        taken.append(step.index)
        began.set()
        time.sleep(0.02)
        return call(search, step)

    monkeypatch.setattr(inverter.Search, "__call__", slowly)
    photo().save(tmp_path / "me.png")
    path = http.post("upload", files={"files": ("me.png", (tmp_path / "me.png").read_bytes())}).json()[0]
    asker = Asker(http, "refining")
    event = asker.join("invert", {"path": path} | load.FILE, "everything", None, None, 1, 200).json()["event_id"]
    assert began.wait(10)
    asker.cancel("invert", event)
    settle(page)
    time.sleep(0.3)
    ended = len(taken)
    time.sleep(0.2)
    assert len(taken) == ended < 50


# ---------------------------------------------------------------- what stays behind


def test_a_call_without_a_session_leaves_none_behind(http: httpx.Client, page) -> None:
    before = len(page.state_holder.session_data)
    for _ in range(3):
        event = http.post("call/sample", json={"data": [NAME, *SAMPLE]}).json()["event_id"]
        assert "event: complete" in http.get(f"call/sample/{event}").text
    assert len(page.state_holder.session_data) == before
    user = Client(page.local_url, verbose=False)  # who has one keeps it
    user.predict(NAME, *SAMPLE, api_name="/sample")
    assert user.session_hash in page.state_holder.session_data
    assert page.state_holder.capacity == door.MAX_SESSIONS


def test_with_a_session_that_goes_what_was_to_be_told_to_it_goes_too(page, monkeypatch) -> None:
    monkeypatch.setattr(page.state_holder, "capacity", len(page.state_holder.session_data) + 2)
    waiting = (page._queue.pending_messages_per_session, page._queue.pending_event_ids_session)
    for name in ("first", "second", "third"):
        page.state_holder[name]
        for each in waiting:
            each[name] = set()
    for oldest in [name for name in page.state_holder.session_data if name not in ("second", "third")]:
        page.state_holder[f"after {oldest}"]
    assert "first" not in page.state_holder
    assert "third" in page.state_holder
    assert all("first" not in each and "third" in each for each in waiting)
    for each in waiting:
        for name in ("second", "third"):
            each.pop(name)


def test_nothing_of_what_a_page_shows_is_kept_or_can_be_linked_to(http: httpx.Client, page, cache: Path) -> None:
    asker = Asker(http, "shown")
    asker.join("sample", *SAMPLE)
    asker.wait()
    settle(page)
    assert page.state_holder.session_data["shown"].config_values == {}
    link = http.get("deep_link", params={"session_hash": "shown"}).json()
    assert (cache / "deep_links" / link / "state.json").read_text() == "[]"


def test_it_is_not_kept_who_asked_for_what(http: httpx.Client, page) -> None:
    asker = Asker(http, "watched")
    asker.join("sample", *SAMPLE)
    asker.wait()
    settle(page)
    assert page._queue.event_analytics == {}
    assert http.get("../monitoring/summary").status_code == 403


def test_folders_of_ones_own_are_deleted_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    folders = {name: tmp_path / name for name in ("hfgan-old", "hfgan-young", "of another program")}
    for name, folder in folders.items():
        folder.mkdir()
        (folder / "photo.png").write_bytes(b"x")
        age = time.time() - studio.KEPT - 2 * studio.TIDY + (100 if name == "hfgan-young" else -100)
        os.utime(folder, (age, age))
    studio._sweep.cache_clear()
    made = studio.new_folder()
    assert {path.name for path in tmp_path.iterdir()} == {"hfgan-young", "of another program", made.name}


def test_nobody_can_have_gradio_delete_nothing_any_more(http: httpx.Client, page, cache: Path) -> None:
    asker, folder = Asker(http, "folder"), cache / "folder"
    folder.mkdir()
    assert asker.join("cutout", {"path": str(folder)} | load.FILE).status_code == 200
    asker.wait()
    path = Path(http.post("upload", files={"files": ("me.png", b"x")}).json()[0])
    assert path.is_file()
    assert not any(str(folder) in files for files in page.temp_file_sets)
    delete_files_created_by_app(page, None)
    assert not path.exists()
    assert all(isinstance(files, door.Files) for files in page.temp_file_sets)
    growing = door.Files("a")
    for name in growing:  # as another thread would
        growing.add(name + "b")
    assert growing == {"a", "ab"}


def test_previews_of_modes_are_written_once(models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    verbs = studio.Studio(models)
    first = verbs.modes(NAME)
    assert verbs.modes(NAME) == first
    Path(first[1][0]).unlink()
    assert {Path(path).parent for path, _ in verbs.modes(NAME)} != {Path(first[0][0]).parent}
    again = verbs.modes(NAME)
    age = time.time() - studio.KEPT
    os.utime(again[0][0], (age, age))
    assert verbs.modes(NAME) != again
