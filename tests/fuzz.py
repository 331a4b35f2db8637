"""Malformed requests of the app, the same ones each time: arguments, recipes, paths, files and raw HTTP; and a judge.

`cases` makes them, `run` sends them, `faults` says what is wrong with an answer: that it tells of the insides, is no
sentence, takes long, or is the status of a broken server.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pictures
from load import FILE

from hfgan.app.door import BROKEN

ROOT = Path(__file__).parents[1]
SLOW = 10  # seconds
MAX_MESSAGE = 500  # characters
SHORT = {
    "",
    "Not Found",
    "Forbidden",
    "Method Not Allowed",
    "Invalid JSON body.",
    "Invalid content type.",
}  # of HTTP, no sentences
PLACES = (str(ROOT), sys.prefix, str(Path.home()), tempfile.gettempdir(), "site-packages", "/usr/lib", "dist-packages")
INSIDES = re.compile(
    r"""Traceback|File\ "|\b\w+(?:Error|Exception|Warning)\b|<class|object\ at\ 0x
                      |\b(?:torch|numpy|PIL|pydantic|starlette|fastapi|hfgan|safetensors|orjson)\.\w""",
    re.VERBOSE,
)
UPSTREAM = {  # what Gradio itself answers with a status of 5xx, and why that may stay
    r"^(run|api)/": "a refusal of a call past the queue has status 500 there, with its sentence",
    r"^queue/join": "503 is the queue being full",
}
HELD = ("Traceback", "root:x:0", "PATH=/", "import sys", "def main")  # of files of the server
DEEP = 60
WEIRD: tuple[Any, ...] = (
    None, True, -1, 0.5, 10**30, -(10**30), 1e308, float("nan"), float("inf"), "", "x", "x" * 100_000, "<img src=x>",
    "\0", "../../etc/passwd", [], {}, [None] * 40, ["hfaces-64"], {"a": {"b": 1}}, {"__type__": "update"},
    {"path": "/etc/passwd"}, json.loads("[" * DEEP + "]" * DEEP), json.loads('{"source":' * 400 + "1" + "}" * 400),
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A request: of the verb or the event of a number with data, or, where `path` is given, raw.

    Attributes:
        family, name: What it is one of, and which.
        verb, data: Number of an event and its arguments; a `bytes` among them is uploaded first.
        path, method, how: Of a raw request.
    """

    family: str
    name: str
    verb: int = -1
    data: tuple[Any, ...] = ()
    path: str = ""
    method: str = "GET"
    how: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What came back: status, all of the text, and of an answered event whether it was done or else what was said."""

    status: int
    text: str
    seconds: float
    done: bool = True
    said: Any = ""


@dataclass(frozen=True)
class Target:
    """A running app: its events, and of every public verb arguments that are right."""

    address: str
    events: list[dict[str, Any]]
    good: dict[str, list[Any]]

    def number(self, verb: str) -> int:
        """The number of a public verb."""
        return next(one["id"] for one in self.events if one["api_name"] == verb)


async def aim(address: str, model: str) -> Target:
    """Look at a running app and ask it for recipes and files of one's own."""
    async with httpx.AsyncClient(base_url=f"{address}gradio_api/", timeout=60) as http:
        events = (await http.get("../config")).json()["dependencies"]
        target = Target(address, events, {})
        drawn = ["sample", [model, 2, 0, 0.7, 0, "const", 0, "global", 0]]
        (_, (a, b)) = await _ask(http, target, *drawn)
        photo = await _upload(http, "photo.png", pictures.png(pictures.photo()))
        _, _, latent, _ = await _ask(http, target, "invert", [model, photo, "everything", None, None, 1, 0])
        _, edited = await _ask(http, target, "edit", [model, {"smile": 1}, a, None, "alpha", "", False])
    latent = {"path": latent["path"]} | FILE
    target.good.update({
        "sample": drawn[1], "compare": drawn[1][:7], "modes": [model], "list_modes": [model], "list_models": [],
        "list_directions": [model], "mix": [model, a, b, "0-1"], "interpolate": [model, a, b, 2, "webp"],
        "sweep": [model, a], "replay": [model, photo], "cutout": [model, photo], "cutout_sample": [model, a],
        "cutout_batch": [model, [photo], ["rgba"], 0, 0, False, False],
        "invert": [model, photo, "box", None, [0, 0, 1, 1], 1, 0], "attribute": [model, photo],
        "edit": [model, {"smile": 1}, edited, None, "whole", "", False],
        "find_direction": [model, "mine", [0, 2, 4, 6], [1, 3, 5, 7], 0.8],
    })  # fmt: skip
    target.good["latent"] = [model, {"smile": 1}, None, latent, "whole", "", False]
    return target


async def _ask(http: httpx.AsyncClient, target: Target, verb: str, data: list[Any]) -> Any:
    answer = await _event(http, target.number(verb), data, "aims")
    assert answer.done, answer.text
    return json.loads(answer.text)["data"]


# ---------------------------------------------------------------- what is asked


def cases(target: Target, seed: int = 0) -> Iterator[Case]:
    """All requests; the same ones for a seed."""
    dice = random.Random(seed)
    yield from _arguments(target, dice)
    yield from _recipes(target, dice)
    yield from _paths(target)
    yield from _files(target)
    yield from _private(target, dice)
    yield from _http(target)


def _arguments(target: Target, dice: random.Random) -> Iterator[Case]:
    """Of each public verb each argument as something else; too few and too many."""
    for verb, good in target.good.items():
        if verb == "latent":
            continue
        number = target.number(verb)
        for place in range(len(good)):
            for k in dice.sample(range(len(WEIRD)), 4):
                data = (*good[:place], WEIRD[k], *good[place + 1 :])
                yield Case("arguments", f"{verb}[{place}] is WEIRD[{k}]", number, data)
        for count in sorted({0, len(good) - 1, len(good) + 3} - {len(good), -1}):
            yield Case("arguments", f"{verb} of {count}", number, (*good, 1, 2, 3)[:count])


def _recipes(target: Target, dice: random.Random) -> Iterator[Case]:
    """Recipes that lack a key, have another one or another kind of value; of samples and of edits."""
    sample, edited = target.good["mix"][1], target.good["edit"][2]
    step = {"layers": [0], "seed": 1, "draw": 0, "truncation_psi": 1, "truncation_cutoff": None, "label": None,
            "mode": None}  # fmt: skip
    evil = [10**40, -1, "x", [], {}, None, True, "<script>alert(1)</script>", float("nan"), "A" * 50_000]
    for recipe, verb, place in ((sample, "mix", 1), (sample, "cutout_sample", 1), (edited, "edit", 2)):
        wrong = {f"lacks {key}": {k: v for k, v in recipe.items() if k != key} for key in recipe}
        for key in recipe:
            for value in dice.sample(evil, 3):
                wrong[f"{key} is {str(value)[:20]}"] = recipe | {key: value}
        wrong |= {"more": recipe | {"more": 1}, "list": [recipe], "text": json.dumps(recipe)}
        if recipe is sample:
            wrong |= {f"mix of {n}": recipe | {"mix": [step] * n} for n in (1, 33, 5000)}
            wrong |= {f"step {k}": recipe | {"mix": [step | {k: dice.choice(evil)}]} for k in step}
            wrong["layers"] = recipe | {"mix": [step | {"layers": list(range(100_000))}]}
        else:
            (edit,) = edited["edits"]
            wrong |= {f"edit {k}": recipe | {"edits": [edit | {k: dice.choice(evil)}]} for k in edit}
            wrong |= {"edits": recipe | {"edits": [edit] * 5000}, "bomb": recipe | {"region": _bomb()}}
            for deep in (40, 99, 140):
                nested = recipe
                for _ in range(deep):
                    nested = edited | {"source": nested}
                wrong[f"{deep} deep"] = nested
        for name, one in wrong.items():
            data = (*target.good[verb][:place], one, *target.good[verb][place + 1 :])
            yield Case("recipes", f"{verb}: {name}", target.number(verb), data)


def _bomb() -> str:
    """A region of 20000 x 20000 as a recipe would hold it."""
    import base64

    return base64.b64encode(pictures.bomb(20000)).decode()


def _paths(target: Target) -> Iterator[Case]:
    """Files of the server, and of other servers, where a file that was uploaded is expected."""
    own = target.good["cutout"][1]["path"]
    cache = str(Path(own).parents[1])
    paths = ["/etc/passwd", "../../../../etc/passwd", f"{cache}/../../../etc/passwd", "file:///etc/passwd", cache, "/",
             str(ROOT / "app.py"), "http://127.0.0.1:1/x.png", " http://127.0.0.1:1/x.png", "http://169.254.169.254/x",
             "https://example.invalid/x.png", "ftp://127.0.0.1/x", "\\\\host\\x", "x" * 5000, "", "\0", f"{own}\0.png",
             f"{cache}/*", "/proc/self/environ", "data:image/png;base64,AAAA"]  # fmt: skip
    wrong = {repr(path[:60]): {"path": path, "url": path, "orig_name": "../../x"} | FILE for path in paths}
    wrong |= {"bare": {"path": own}, "odd mark": {"path": own, "meta": 5}, "no path": FILE,
              "stream": {"path": own, "is_stream": True} | FILE, "a list": {"path": [own]} | FILE}  # fmt: skip
    for verb, place in (("replay", 1), ("cutout", 1), ("invert", 1), ("cutout_batch", 1), ("latent", 3), ("mix", 1)):
        good, number = target.good[verb], target.number("edit" if verb == "latent" else verb)
        for name, file in wrong.items():
            one = [file] if verb == "cutout_batch" else file
            yield Case("paths", f"{verb}: {name}", number, (*good[:place], one, *good[place + 1 :]))


def _files(target: Target) -> Iterator[Case]:
    """Files that are no pictures, or such that take much; and latents whose heads lie."""
    for name, content in pictures.broken().items():
        for verb in ("replay", "cutout", "invert"):
            good = target.good[verb]
            yield Case("files", f"{verb}: {name}", target.number(verb), (good[0], content, *good[2:]))
    for name, content in pictures.lying_latents().items():
        good = target.good["latent"]
        yield Case("files", f"latent: {name}", target.number("edit"), (*good[:3], content, *good[4:]))


def _private(target: Target, dice: random.Random) -> Iterator[Case]:
    """Every event that only the page is meant to make, with nonsense in place of its values and states."""
    for event in target.events:
        if event["api_visibility"] == "public" or not event["backend_fn"]:
            continue
        number, count = event["id"], len(event["inputs"])
        for k in range(2):
            data = tuple(dice.choice(WEIRD) for _ in range(count))
            yield Case("private", f"{event['api_name']} ({number}) {k}", number, data)
        if count:
            yield Case("private", f"{event['api_name']} ({number}) empty", number, ())


def _http(target: Target) -> Iterator[Case]:
    """What is no request at all, or one for something that is not there, or not one's own."""
    number, good = target.number("sample"), target.good["sample"]
    join = {"fn_index": number, "data": good, "session_hash": "raw"}
    odd: dict[str, Any] = {
        "no data": {"fn_index": number, "session_hash": "raw"}, "no session": {"fn_index": number, "data": good},
        "unknown event": join | {"fn_index": 10**6}, "negative event": join | {"fn_index": -1},
        "huge event": join | {"fn_index": 10**30}, "event is text": join | {"fn_index": "sample"},
        "data is text": join | {"data": "x"}, "data is a dict": join | {"data": {"a": 1}}, "data is none": join |
        {"data": None}, "session is a list": join | {"session_hash": ["raw"]}, "long session": join |
        {"session_hash": "s" * 100_000}, "batched": join | {"batched": True}, "event data": join | {"event_data": "x"},
        "trigger": join | {"trigger_id": 10**9}, "own event id": join | {"event_id": "mine"}, "a list": [join],
        "nothing": None, "text": "x", "number": 1,
    }  # fmt: skip
    for name, body in odd.items():
        for path in ("queue/join", "run/predict", "call/sample", "call/v2/sample"):
            yield Case("http", f"{path}: {name}", path=path, method="POST", how={"content": json.dumps(body)} | JSON)
    raw = {"no JSON": b"{", "not UTF-8": b"\xff\xfe{}", "deep": b'{"data":' + b"[" * 10**6 + b"]" * 10**6 + b"}",
           "empty": b"", "numbers": b'{"data":[1e999,' + b"9" * 5000 + b"]}", "null bytes": b"\0" * 1000}  # fmt: skip
    for name, content in raw.items():
        for path in ("queue/join", "call/sample", "call/v2/sample", "cancel", "reset", "component_server", "upload"):
            yield Case("http", f"{path}: {name}", path=path, method="POST", how={"content": content} | JSON)
    for kind in (
        "text/plain",
        "application/xml",
        "multipart/form-data",
        "multipart/form-data; boundary=x",
        "",
        "x" * 9000,
    ):
        for path in ("queue/join", "upload", "component_server"):
            how = {"content": b"--x\r\n\r\n", "headers": {"Content-Type": kind}}
            yield Case("http", f"{path} as {kind[:40]!r}", path=path, method="POST", how=how)
    yield from _files_asked(target)
    yield from _foreign(target)
    for name in ("../../evil.png", "a" * 5000, "", ".", "..", "x/../y", "a\\b", "\u202egnp.png", "%2e%2e%2fx", "con",
                 "a\nb.png", "<b>.png", ".htaccess"):  # fmt: skip
        yield Case("http", f"upload named {name[:20]!r}", path="upload", method="POST",
                   how={"files": {"files": (name, b"x")}})  # fmt: skip
    yield Case(
        "http", "upload too large", path="upload", method="POST", how={"files": {"files": ("x", bytes(21_000_000))}}
    )
    yield Case("http", "upload of no file", path="upload", method="POST", how={"files": {"other": ("x", b"x")}})
    yield Case("http", "upload of text", path="upload", method="POST", how={"data": {"files": "x"}})


JSON = {"headers": {"Content-Type": "application/json"}}


def _files_asked(target: Target) -> Iterator[Case]:
    """Paths of the server where files are served."""
    cache = str(Path(target.good["cutout"][1]["path"]).parents[1])
    paths = ["/etc/passwd", "../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%252e%252e/etc/passwd",
             "file:///etc/passwd", "http://127.0.0.1:1/", "http://169.254.169.254/latest/meta-data", cache,
             str(ROOT / "app.py"), f"{cache}/..", f"{cache}/../../../../etc/passwd", "/proc/self/environ",
             "/dev/zero", "%00", "x" * 5000, "", "~/.bashrc",
             "\\etc\\passwd", f"{cache}/nothing.png", "//etc/passwd", "app.py", "hfgan/cli.py"]  # fmt: skip
    for k, path in enumerate(paths):
        for route in ("file=", "file/", "proxy="):
            yield Case("served", f"{route} {k}: {path[:40]}", path=f"{route}{path}")
    for route in ("../static/", "../assets/", "../svelte/", "custom_component/x/client/component/"):
        for path in ("../../../../../etc/passwd", "..%2f..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "x\0y"):
            yield Case("served", f"{route}{path}", path=f"{route}{path.replace(chr(0), '%00')}")
    own = target.good["cutout"][1]["path"]
    for span in ("bytes=0-", "bytes=5-1", "bytes=0-99999999999", "bytes=a-b", "bytes=1-2-3", "bytes=-"):
        yield Case("served", f"range {span}", path=f"file={own}", how={"headers": {"Range": span}})


def _foreign(target: Target) -> Iterator[Case]:
    """Sessions, events and components of others, or of nobody."""
    number = target.number("sample")
    for path in ("queue/data?session_hash=nobody", "queue/data", "call/sample/nothing", "call/nothing/nothing",
                 "stream/nothing", "stream/a/b/1/playlist.m3u8", "stream/a/b/x/playlist.m3u8", "stream/a/b/1/x.ts",
                 "stream/a/b/1/playlist-file", "upload_progress?upload_id=nothing", "upload_progress",
                 "../monitoring", "../monitoring/summary", "../monitoring/x", "dev/reload", "vibe-code",
                 "run-history/records", "info?serialize=x", "openapi.json", "deep_link", "app_id", "token", "user",
                 "nothing", "startup-events", "../gradio_api/deep_link", "../login_check", "queue/status",
                 "../theme.css", "../manifest.json"):  # fmt: skip
        yield Case("foreign", f"GET {path}", path=path)
    for event in (number, 10**9):
        body = {"session_hash": "x", "fn_index": event, "event_id": "<gradio-sep>"}
        yield Case("foreign", f"cancel {event}", path="cancel", method="POST", how={"json": body})
    server = {"session_hash": "x", "component_id": 1, "fn_name": "preprocess", "data": None}
    for change in ({}, {"component_id": 10**9}, {"component_id": "x"}, {"fn_name": "__init__"},
                   {"fn_name": "__class__"}, {"fn_name": "accept_blobs", "data": {"id": "x"}},
                   {"fn_name": None}):  # fmt: skip
        yield Case("foreign", f"component_server {change}", path="component_server", method="POST",
                   how={"json": server | change})  # fmt: skip
    for path in ("run/nothing", "run/_private", "api/sample", "call/nothing", "call/v2/nothing", "call/pick",
                 "stream/x", "stream/x/close", "process_recording", "vibe-edit", "undo-vibe-edit", "vibe-code",
                 "vibe-starter-queries", "../login", "queue/push", "run-history/connect"):  # fmt: skip
        yield Case("foreign", f"POST {path}", path=path, method="POST", how={"json": {"data": []}})
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        yield Case("foreign", f"{method} queue/join", path="queue/join", method=method)


# ---------------------------------------------------------------- how it is asked


async def run(target: Target, wanted: list[Case], hands: int = 3, every: int = 50) -> list[tuple[Case, Answer]]:
    """Send them, some at a time; after each `every` a good request must be answered."""
    left, done = list(reversed(wanted)), []
    async with httpx.AsyncClient(base_url=f"{target.address}gradio_api/", timeout=3 * SLOW) as http:

        async def work(hand: int) -> None:
            while left:
                case = left.pop()
                done.append((case, await send(http, case, f"fuzz{hand}")))
                if len(done) % every == 0:
                    good = await _event(http, target.number("sample"), target.good["sample"], f"good{hand}")
                    assert good.done, f"after {case}: {good}"

        await asyncio.gather(*map(work, range(hands)))
    return done


async def send(http: httpx.AsyncClient, case: Case, session: str) -> Answer:
    """The answer to one request."""
    began = time.monotonic()
    try:
        if case.path:
            return await _raw(http, case)
        data = [await _upload(http, "odd.png", one) if isinstance(one, bytes) else one for one in case.data]
        return await _event(http, case.verb, data, session)
    except httpx.TransportError as error:  # in time, or at all
        return Answer(0, "no answer", time.monotonic() - began, False, type(error).__name__)


async def _raw(http: httpx.AsyncClient, case: Case, again: bool = True) -> Answer:
    """A raw request; of a stream only the first part is read."""
    began, text = time.monotonic(), b""
    url = httpx.URL(f"{http.base_url}{case.path}")  # whole, so that httpx does not tidy it up
    try:
        reply = await http.send(http.build_request(case.method, url, **case.how), stream=True)
    except (httpx.ReadError, httpx.RemoteProtocolError):
        if not again:
            raise
        return await _raw(http, case, again=False)  # an idle connection that the server had closed
    streams = "event-stream" in reply.headers.get("content-type", "")
    with suppress(TimeoutError):
        async with asyncio.timeout(1 if streams else None):
            async for part in reply.aiter_bytes():
                text += part
                if streams or len(text) > 100_000:
                    break
    await reply.aclose()
    return Answer(reply.status_code, text.decode(errors="replace"), time.monotonic() - began)


async def _upload(http: httpx.AsyncClient, name: str, content: bytes) -> dict[str, Any]:
    reply = await http.post("upload", files={"files": (name, content)})
    assert reply.status_code == 200, reply.text
    return {"path": reply.json()[0], "orig_name": name} | FILE


async def _event(http: httpx.AsyncClient, number: int, data: list[Any], session: str) -> Answer:
    """What an event gives: through the queue, or directly where the page does so, too."""
    began, body = time.monotonic(), {"fn_index": number, "data": list(data), "session_hash": session}
    how = {"content": json.dumps(body)} | JSON
    joined = await http.post("queue/join", **how)
    if joined.status_code != 200:
        return Answer(joined.status_code, joined.text, time.monotonic() - began, False, _detail(joined.text))
    event = joined.json()["event_id"]
    async with http.stream("GET", "queue/data", params={"session_hash": session}) as stream:
        async for line in stream.aiter_lines():
            told = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
            if told.get("msg") == "process_completed" and told.get("event_id") == event:
                output, seconds = told["output"], time.monotonic() - began
                return Answer(200, json.dumps(output), seconds, told["success"], output.get("error"))
    return Answer(200, "no answer", time.monotonic() - began, False, "no answer")


# ---------------------------------------------------------------- how it is judged


def faults(case: Case, answer: Answer) -> list[str]:
    """What is wrong with an answer."""
    found = leaks(case, answer)
    if answer.seconds > SLOW:
        found.append(f"took {answer.seconds:.1f} s")
    if answer.status >= 500 and not any(re.search(known, case.path or "queue/join") for known in UPSTREAM):
        found.append(f"status {answer.status}")
    if answer.said == BROKEN and case.family != "private":  # what no page sends may fail, if it tells nothing
        found.append("the verb failed unforeseen")
    refused = not answer.done or answer.status >= 400
    said = answer.said if not case.path else _detail(answer.text)
    if refused and not _sentence(said, len(case.path)):
        found.append("the refusal is no sentence")
    return [*found, "no answer"] if answer.status == 0 else found


def _detail(text: str) -> Any:
    """What is said in the body of a refusal."""
    try:
        told = json.loads(text)
    except ValueError:
        return text
    return (told.get("detail") or told.get("error")) if isinstance(told, dict) else told


def _sentence(said: Any, repeated: int) -> bool:
    """Whether this is a short message, beside so many characters of the request."""
    return isinstance(said, str) and (said in SHORT or (" " in said.strip() and len(said) < MAX_MESSAGE + repeated))


def leaks(case: Case, answer: Answer) -> list[str]:
    """Insides of the server in an answer, other than what was in the request; of good ones also where files are."""
    if answer.done and answer.status < 400:
        return [f"holds {one!r}" for one in HELD if one in answer.text]
    sent = f"{case.path}{case.how}{case.data if len(str(case.data)) < 10_000 else ''}"
    inside = [place for place in PLACES if place in answer.text and place not in sent]
    inside += [match for match in INSIDES.findall(answer.text) if match not in sent]
    return [f"tells {one!r}" for one in inside]
