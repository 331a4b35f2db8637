"""Over a thousand malformed requests: the app lives on, and says in a sentence what is wrong."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import fuzz
import gradio as gr
import httpx
import pictures
import pytest
from test_api import NAME, load

from hfgan import HFGan, images
from hfgan.app import cutter, door, studio

FAMILIES = {"arguments": 290, "recipes": 180, "paths": 140, "files": 260, "private": 200, "http": 140, "served": 80,
            "foreign": 50}  # fmt: skip
STREAMS = re.compile("queue/data|reload|progress|call/")
MAX_GROWTH = 500  # MB


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HFGan]:
    return load(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def target(address: str) -> fuzz.Target:
    return asyncio.run(fuzz.aim(address, NAME))


@pytest.fixture(scope="module")
def cases(target: fuzz.Target) -> list[fuzz.Case]:
    return list(fuzz.cases(target))


def memory() -> float:
    """Resident memory of this process, where the app runs [MB]."""
    return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0]) / 1024


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_malformed_is_refused_in_a_sentence(target: fuzz.Target, cases: list[fuzz.Case], family: str) -> None:
    chosen, before = [case for case in cases if case.family == family], memory()
    assert len(chosen) >= FAMILIES[family]
    answers = asyncio.run(fuzz.run(target, chosen))
    assert len(answers) == len(chosen)
    wrong = {case.name: found for case, answer in answers if (found := fuzz.faults(case, answer))}
    assert wrong == {}
    assert memory() - before < MAX_GROWTH


def test_requests_are_the_same_each_time(target: fuzz.Target, cases: list[fuzz.Case]) -> None:
    assert [repr(case) for case in fuzz.cases(target)] == list(map(repr, cases))
    assert len({(case.family, case.name) for case in cases}) == len(cases) >= 1000


# ---------------------------------------------------------------- the judge


@pytest.mark.parametrize(
    ("status", "text", "said", "found"),
    [
        (200, '{"error": "a seed is missing"}', "a seed is missing", []),
        (200, '{"error": null}', None, ["the refusal is no sentence"]),
        (200, "Traceback (most recent", "it has failed", ["tells 'Traceback'"]),
        (200, "KeyError: 'x' was raised", "KeyError: 'x' was raised", ["tells 'KeyError'"]),
        (200, "look into /usr/lib/x", "look into /usr/lib/x", ["tells '/usr/lib'"]),
        (200, "see torch.nn for it", "see torch.nn for it", ["tells 'torch.n'"]),
        (200, "x " * 300, "x " * 300, ["the refusal is no sentence"]),
        (0, "no answer", "no answer", ["no answer"]),
    ],
)
def test_the_judge_sees_what_is_wrong(status: int, text: str, said: str | None, found: list[str]) -> None:
    case = fuzz.Case("arguments", "x", 1, ("mine",))
    assert fuzz.faults(case, fuzz.Answer(status, text, 0.1, False, said)) == found


def test_what_a_request_says_itself_is_no_leak() -> None:
    case, answer = (
        fuzz.Case("served", "x", path="file=/usr/lib/x"),
        fuzz.Answer(403, "File not allowed: /usr/lib/x.", 0.1),
    )
    assert fuzz.faults(case, answer) == []
    assert fuzz.faults(fuzz.Case("served", "x", path="file=x"), answer) == ["tells '/usr/lib'"]


# ---------------------------------------------------------------- files of another user


def test_a_photo_of_another_user_is_nowhere_told_and_not_to_be_guessed(address: str, target: fuzz.Target) -> None:
    photo = pictures.png(pictures.photo(seed=77))
    with httpx.Client(base_url=f"{address}gradio_api/", timeout=60) as first:
        path = first.post("upload", files={"files": ("mine-alone.png", photo)}).json()[0]
    folder = Path(path).parent
    guesses = [folder, folder / "me.jpg", folder.parent, folder.parent / ("0" * 64) / "mine-alone.png", f"{folder}/*",
               folder.parent / "mine-alone.png", Path("mine-alone.png")]  # fmt: skip
    with httpx.Client(base_url=f"{address}gradio_api/", timeout=60) as other:
        paths = [case.path for case in fuzz.cases(target) if case.family == "foreign" and case.method == "GET"]
        seen = [other.get(path).text for path in paths if not STREAMS.search(path)]
        replies = [other.get(f"file={guess}") for guess in guesses]
    assert len(seen) > 15
    assert not any("mine-alone" in text.replace("/mine-alone.png.", "") for text in seen)
    assert {reply.status_code for reply in replies} == {403}
    assert not any(folder.name in reply.text.replace(str(folder), "") for reply in replies)


def test_a_verb_gives_nothing_of_a_path_that_is_guessed(target: fuzz.Target) -> None:
    path = Path(target.good["cutout"][1]["path"])
    guesses = [path.parent, path.parents[1], path.with_name("x.png"), path.parents[1] / ("0" * 64) / path.name]
    wanted = [
        fuzz.Case("paths", f"{verb} {k}", target.number(verb), (NAME, {"path": str(guess)} | fuzz.FILE, *rest))
        for verb, rest in (("replay", ()), ("cutout", ()), ("invert", ("everything", None, None, 1, 0)))
        for k, guess in enumerate(guesses)
    ]
    for _, answer in asyncio.run(fuzz.run(target, wanted)):
        assert answer.said == studio.GONE, "the same, whether there is such a folder or not"
        assert str(path.parents[1]) not in answer.text


# ---------------------------------------------------------------- what was mended


def test_a_bomb_is_refused_by_its_head() -> None:
    with pytest.raises(ValueError, match="it has 169 megapixels, at most 25 are taken here"):
        images.check_pixels(pictures.bomb(13000), 25_000_000)
    images.check_pixels(pictures.png(pictures.photo()), 40 * 48)
    with pytest.raises(ValueError, match="not a picture"):
        images.check_pixels(b"x", 1)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no palette", "no palette"),
        ("recipe of 10 MB", "over 1,048,576 characters"),
        ("recipe that is deep", "damaged"),
    ],
)
def test_odd_pictures_are_value_errors(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        images.read_recipe(pictures.broken()[name])


def test_frames_of_a_tiff_are_counted_only_so_far() -> None:
    began = time.monotonic()
    for frames, counted in ((1, []), (3, ["first of 3 frames"]), (50_000, [f"first of {images.MAX_COUNTED} frames"])):
        assert images.read_image(pictures.tiff(frames))[1] == counted
    assert time.monotonic() - began < 3, "all of them take 13 s"


def test_a_batch_has_so_many_photos_at_most(target: fuzz.Target) -> None:
    number, photo = target.number("cutout_batch"), target.good["cutout"][1]
    data = (NAME, [photo] * (cutter.MAX_FILES + 1), ["rgba"], 0, 0, False, False)
    ((_, answer),) = asyncio.run(fuzz.run(target, [fuzz.Case("files", "many", number, data)]))
    assert answer.said == "these are 101 photos: at most 100 are cut out at a time"


def test_files_are_not_fetched_and_depth_is_bounded() -> None:
    door.check([{"path": "/x/http://"}, "http://x", {"source": {"source": [1]}}])
    for path in ("http://127.0.0.1/", "https://x/y.png", " http://x"):
        with pytest.raises(gr.Error, match="as uploads only"):
            door.check([None, [{"image": {"path": path}}]])
    deep: list = []
    for _ in range(door.MAX_DEPTH + 1):
        deep = [deep]
    with pytest.raises(gr.Error, match="within one another"):
        door.check(deep)
