"""Users of a running app, many at once: each asks for what is its own and looks whether that is what it got.

They speak the app's protocol over HTTP: a POST that joins the queue, a stream of server-sent events that waits, a GET
for each file. Half of them, or as many as one says, leave midway: they close the stream, or cancel.
"""

from __future__ import annotations

import asyncio
import io
import json
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
from PIL import Image

from hfgan import images

INSIDES = re.compile(
    r"Traceback|File \"|site-packages|\b\w+(?:Error|Exception)\b|<class|\b(?:torch|numpy|PIL)\.|/\w+/\w"
)
MAX_MESSAGE = 500  # characters
PATIENCE = 120  # seconds for an answer: the queue may be long
DRAIN = 30  # seconds after which nothing may be going on any more
FILE = {"meta": {"_type": "gradio.FileData"}}


def readable(said: Any) -> bool:
    """Whether a refusal is a message that one can read: some words, no insides, no path, not long."""
    return isinstance(said, str) and " " in said and len(said) < MAX_MESSAGE and not INSIDES.search(said)


@dataclass
class Report:
    """What all users together have seen."""

    requests: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    cancelled: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        """As JSON."""
        times = np.array(self.seconds or [0.0])
        return {
            "requests": self.requests,
            "answers": dict(self.answers),
            "refusals": dict(self.refusals),
            "cancelled": dict(self.cancelled),
            "wrong": self.wrong[:20],
            "statuses": dict(self.statuses),
            "median_s": round(float(np.median(times)), 3),
            "p95_s": round(float(np.percentile(times, 95)), 3),
        }


class Refused(Exception):
    """The app has said no; the first argument is what it said."""


class Left(Exception):
    """This user has left or cancelled before the answer."""


class User:
    """Somebody with a session, seeds and photos of its own."""

    def __init__(self, number: int, http: httpx.AsyncClient, app: App, report: Report, cancelling: bool) -> None:
        self.number, self.http, self.app, self.report, self.cancelling = number, http, app, report, cancelling
        self.session, self.dice, self.count = f"user{number:04d}", random.Random(number), 0
        self.model = self.dice.choice(app.models)
        self.recipe: dict[str, Any] | None = None

    async def use(self, until: float) -> None:
        """Ask for one thing after the other until that time."""
        while time.monotonic() < until:
            verb = self.dice.choice(self.app.verbs(self.model) if self.recipe else ["sample"])
            self.count += 1
            try:
                await getattr(self, verb)()
            except Refused as refused:
                said = refused.args[0]
                self.report.refusals[str(said)] += 1
                self._check(readable(said), f"{verb}: unreadable refusal {said!r:.300}")
                await asyncio.sleep(self.dice.uniform(0.2, 1))
            except Left:
                await asyncio.sleep(self.dice.uniform(0, 0.2))

    # ---------------------------------------------------------------- verbs

    async def sample(self) -> None:
        """One or two pictures of seeds of one's own."""
        first, count = self._seed(), self.dice.randint(1, 2)
        data = [self.model["name"], count, first, 0.7, 0, "const", 0, "global", 0]
        gallery, recipes = await self.call("sample", data)
        wanted = [(self.model["fingerprint"], seed) for seed in range(first, first + count)]
        told = [(recipe["fingerprint"], recipe["seed"]) for recipe in recipes]
        self._check(told == wanted, f"sample: {wanted} were drawn as {told}")
        png = await self.fetch(gallery[-1]["image"])
        self._check(images.read_recipe(png) == recipes[-1], "sample: the PNG has another recipe")
        self.recipe = recipes[0]

    async def cutout_sample(self) -> None:
        """A cut-out of the picture at hand."""
        rgba, _ = await self.call("cutout_sample", [self.model["name"], self.recipe])
        told = images.read_recipe(await self.fetch(rgba))
        self._check(told == self.recipe, f"cutout_sample: seed {told['seed']} for {self.recipe['seed']}")

    async def edit(self) -> None:
        """An edit of the picture at hand, as far as nobody else goes."""
        strength = round(1 + self.number / 1000, 3)
        data = [self.model["name"], {self.model["direction"]: strength}, self.recipe, None, "whole", "", False]
        file, told = await self.call("edit", data)
        found = (told["source"], [edit["strength"] for edit in told["edits"]])
        self._check(found == (self.recipe, [strength]), "edit: this is another one's")
        self._check(images.read_recipe(await self.fetch(file)) == told, "edit: the PNG has another recipe")

    async def invert(self) -> None:
        """The latent of a photo that nobody else has, recognised by its size, its name and its margin."""
        width, name = 2 * (34 + self.number % 60), f"{self.session}-{self.count}"
        pixels = np.random.default_rng([self.number, self.count]).integers(0, 256, (48, width, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        photo = await self.upload(f"{name}.png", buffer.getvalue())
        data = [self.model["name"], photo, "everything", None, None, 1, 0]
        drawn, pasted, latent, numbers = await self.call("invert", data)
        names = [file["path"].rpartition("/")[2] for file in (drawn, pasted, latent)]
        ends = ("-inverted.png", "-pasted.png", ".safetensors")
        self._check(names == [f"{name}{end}" for end in ends], f"invert: {names} for {name}")
        self._check(numbers["weights"] == self.model["fingerprint"], "invert: another model's")
        whole = np.asarray(Image.open(io.BytesIO(await self.fetch(pasted))).convert("RGB"))
        same = whole.shape == pixels.shape and (whole[:, :8] == pixels[:, :8]).all()
        self._check(same, f"invert: the photo of {name} came back as another one")

    async def modes(self) -> None:
        """All modes of the model."""
        (gallery,) = await self.call("modes", [self.model["name"]])
        self._check(len(gallery) == self.model["modes"], f"modes: {len(gallery)} of {self.model['modes']}")

    async def list_models(self) -> None:
        """What there is."""
        (rows,) = await self.call("list_models", [])
        self._check([row["name"] for row in rows] == [one["name"] for one in self.app.models], "list_models")

    # ---------------------------------------------------------------- the protocol

    async def call(self, verb: str, data: list[Any]) -> list[Any]:
        """What a verb answers; Refused and Left are raised in place of that."""
        self.report.requests += 1
        began = time.monotonic()
        body = {"fn_index": self.app.events[verb], "data": data, "session_hash": self.session}
        joined = await self._send("POST", "queue/join", json=body)
        if joined.status_code != 200:
            raise Refused(joined.json().get("detail"))
        event = joined.json()["event_id"]
        leaving = self.dice.choice(["close", "cancel"]) if self.cancelling and self.dice.random() < 0.5 else None
        wait = self.dice.choice([0, 0.05, 0.3, 1]) if leaving else PATIENCE
        try:
            answer = await asyncio.wait_for(self._wait(event), wait)
        except TimeoutError:
            if leaving == "cancel":
                await self._send("POST", "cancel", json=body | {"event_id": event})
            self._check(leaving is not None, f"{verb}: no answer in {PATIENCE} s")
            if leaving == "close":  # as a page that is opened again has another session
                self.session, self.recipe = f"user{self.number:04d}-{self.count}", None
            self.report.cancelled[str(leaving)] += 1
            raise Left from None
        if not answer["success"]:
            raise Refused(answer["output"].get("error"))
        self.report.seconds.append(time.monotonic() - began)
        self.report.answers[verb] += 1
        return answer["output"]["data"]

    async def _wait(self, event: str) -> dict[str, Any]:
        """The last message of an event in this session's stream."""
        asked = {"session_hash": self.session}
        async with self.http.stream("GET", "queue/data", params=asked, timeout=PATIENCE) as stream:
            self._count(stream)
            async for line in stream.aiter_lines():
                message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if message.get("msg") == "process_completed" and message.get("event_id") == event:
                    return message
        raise Refused(f"the stream ended without an answer: {message!r:.200}")

    async def upload(self, name: str, content: bytes) -> dict[str, Any]:
        """A file as the argument of a verb."""
        reply = await self._send("POST", "upload", files={"files": (name, content)})
        return {"path": reply.json()[0], "orig_name": name} | FILE

    async def fetch(self, file: dict[str, Any]) -> bytes:
        """The bytes of a file that was answered."""
        reply = await self._send("GET", file["url"])
        self._check(reply.status_code == 200, f"fetch: {reply.status_code}")
        return reply.content

    async def _send(self, method: str, path: str, **how: Any) -> httpx.Response:
        reply = await self.http.request(method, path, timeout=PATIENCE, **how)
        self._count(reply)
        return reply

    def _count(self, reply: httpx.Response) -> None:
        full = reply.status_code == 503  # what HTTP has for: come back later
        self.report.statuses["503" if full else f"{reply.status_code // 100}xx"] += 1

    def _check(self, right: bool, said: str) -> None:
        if not right:
            self.report.wrong.append(f"user {self.number}, request {self.count}: {said}")

    def _seed(self) -> int:
        """A seed that nobody else has."""
        return self.number * 1_000_000 + self.count * 10


@dataclass(frozen=True)
class App:
    """What there is to ask for.

    Attributes:
        events: Numbers of the public verbs.
        models: As `list_models` tells, with the name of a direction each, or None.
    """

    events: dict[str, int]
    models: list[dict[str, Any]]

    def verbs(self, model: dict[str, Any]) -> list[str]:
        """What users do with a model, the usual more often."""
        able = {"cutout_sample": "alpha" in model["parts"], "invert": "encoder" in model["parts"],
                "edit": model["direction"] is not None}  # fmt: skip
        return ["sample", "sample", "list_models", "modes", *(verb for verb, on in able.items() if on)]


async def look(http: httpx.AsyncClient) -> App:
    """Ask a running app what it has."""
    config = (await http.get("../config")).json()
    events = {one["api_name"]: one["id"] for one in config["dependencies"] if one["api_visibility"] == "public"}
    first = User(0, http, App(events, [{}]), Report(), False)
    (models,) = await first.call("list_models", [])
    for model in models:
        (directions,) = await first.call("list_directions", [model["name"]])
        model["direction"] = directions[0]["name"] if directions else None
    return App(events, models)


async def use(address: str, users: int, seconds: float, cancelling: float) -> dict[str, Any]:
    """Have so many users at an app for so long, a share of which cancels; what they have seen, and how it ended."""
    report, limits = Report(), httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=f"{address}gradio_api/", limits=limits) as http:
        app, until = await look(http), time.monotonic() + seconds
        crowd = [User(k, http, app, report, k <= cancelling * users) for k in range(1, users + 1)]
        await asyncio.gather(*(user.use(until) for user in crowd))
        drained = await drain(http)
        began, last = time.monotonic(), Report()
        await User(users + 1, http, app, last, False).sample()
    return report.told() | {"drained_s": drained, "last_wrong": last.wrong,
                            "last_s": round(time.monotonic() - began, 3)}  # fmt: skip


async def drain(http: httpx.AsyncClient) -> float | None:
    """Seconds until nobody waits in the queue any more; None where somebody does after DRAIN."""
    began = time.monotonic()
    while time.monotonic() < began + DRAIN:
        if (await http.get("queue/status")).json()["queue_size"] == 0:
            return round(time.monotonic() - began, 3)
        await asyncio.sleep(0.1)
    return None
