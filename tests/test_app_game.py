"""The app's game: what a page is sent before the end, what the end tells, and the counters."""

from __future__ import annotations

import html
import json
import re
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import httpx
import numpy as np
import pytest
from PIL import Image
from toy import save_toy

from hfgan import HFGan, app, guessing
from hfgan.app import counters, game
from hfgan.app.counters import Counters
from hfgan.app.studio import Studio
from hfgan.guessing import Tally

KEY = f"10/{guessing.PROTOCOL}/abc123"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HFGan]:
    """A plain model, one with classes, and one that is larger than any photo."""
    folder = tmp_path_factory.mktemp("models")
    paths = [save_toy(folder / "toy"), save_toy(folder / "classes", c_dim=2), save_toy(folder / "big", resolution=64)]
    return {path.name: HFGan.from_pretrained(path, dtype="float32") for path in paths}


@pytest.fixture(scope="module")
def studio(models, cache) -> Studio:
    return Studio(models)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> guessing.Photos:
    """25 of them, of 32 px."""
    folder = tmp_path_factory.mktemp("photos")
    for k in range(25):
        noise = np.random.default_rng(k).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"secret{k}.jpg")
    return guessing.open_real(folder, "CC0 <b>1.0</b>")


@pytest.fixture
def master(studio, photos) -> game.Quizmaster:
    return game.Quizmaster(studio, photos, Counters())


@pytest.fixture(scope="module")
def address(studio, photos) -> Iterator[str]:
    """A page with the tab alone, running."""
    page = page_of(studio, photos)
    yield app.launch(page, prevent_thread_lock=True, quiet=True)
    page.close(verbose=False)


def page_of(studio: Studio, photos: guessing.Photos | None, **options: object) -> gr.Blocks:
    with gr.Blocks(analytics_enabled=False) as page:
        game.tab(studio, gr.Dropdown(["toy", "classes", "big"], elem_id="model"), photos, **options)
    return page.queue(default_concurrency_limit=1)


class Player:
    """Somebody who plays by plain HTTP and sees all that is sent."""

    def __init__(self, address: str, session: str) -> None:
        config = httpx.get(f"{address}config").json()
        ids = {part["id"]: part["props"].get("elem_id") for part in config["components"]}
        self.events = {ids.get(target): one["id"] for one in config["dependencies"] for target, _ in one["targets"]}
        self.address, self.session = address, session

    def press(self, button: str, *data: object) -> httpx.Response:
        body = {"data": data, "fn_index": self.events[f"guess-{button}"], "session_hash": self.session}
        return httpx.post(f"{self.address}gradio_api/run/predict", json=body, timeout=60)

    def file(self, reply: httpx.Response) -> httpx.Response:
        """The picture that was sent."""
        (path,) = re.findall(r'"path": ?"([^"]+)"', reply.text)
        return httpx.get(f"{self.address}gradio_api/file={path}")


@pytest.fixture
def player(address: str, request) -> Player:
    return Player(address, request.node.name)


def to_end(begun: guessing.Game, answers: list[bool] | None = None) -> guessing.Game:
    """The game with these answers, or with right ones."""
    for k, was in enumerate(begun.generated):
        begun = game.Quizmaster.answer(begun, k, answers[k] if answers else was)
    return begun


# ---------------------------------------------------------------- what a page is sent


def test_nothing_that_is_sent_before_the_end_tells_the_answer(player: Player, monkeypatch) -> None:
    sent, drawn = [], guessing.draw_lots
    for seed in (0, 1):
        monkeypatch.setattr(guessing, "draw_lots", lambda length, num, _, seed=seed: drawn(length, num, seed))
        replies = [player.press("start", "toy", 10, False)]
        replies += [player.press("generated", None, number) for number in range(10)]
        files = [player.file(reply) for reply in replies[:-1]]
        assert all(reply.status_code == 200 for reply in (*replies, *files))
        assert len({len(file.content) for file in files}) == 1
        heads = [{key: file.headers[key] for key in file.headers if key != "date"} for file in files]
        names = [re.sub(r"[0-9a-f]{32}", "NAME", str(head)) for head in heads]
        assert len(set(names)) == 1, "type, length, time and tag of each are the same"
        texts = [re.sub(r'[0-9a-f]{32}|duration": ?[\d.e-]+', "", reply.text) for reply in replies]
        assert not any(re.search(r"secret|seed|a photo", text) for text in texts[:-1])
        assert texts[-1].count("· a photo") == drawn(10, 25, seed).generated.count(False), "all mistakes, at the end"
        sent.append(texts[:-1])
    assert drawn(10, 25, 0).generated != drawn(10, 25, 1).generated
    assert sent[0] == sent[1], "two games with different answers look the same to a page"


def test_a_second_press_and_a_stranger_change_nothing(player: Player, address: str) -> None:
    player.press("start", "toy", 10, False)
    assert "**2 of 10**" in player.press("real", None, 0).text
    assert "**2 of 10**" in player.press("generated", None, 0).text, "the picture of that answer has one"
    stranger = Player(address, "stranger")
    assert "no game has begun" in stranger.press("real", None, 1).text
    assert "**3 of 10**" in player.press("real", None, 1).text


def test_an_end_cannot_be_had_before_the_end(player: Player) -> None:
    player.press("start", "toy", 10, False)
    assert "there is no result to add" in player.press("add", None).text
    for number in (10, 99, -1, None, "x", {}):
        assert "**2 of 10**" not in player.press("real", None, number).text
    assert "**2 of 10**" in player.press("real", None, 0).text


def test_wrong_requests_are_answered_in_a_sentence(player: Player, master) -> None:
    for data, said in ((("none", 10, False), ""), (("toy", 40, False), ""), (("toy", 11, False), ""),
                       (("big", 10, False), "can be used, the others are damaged or smaller than 64 px"),
                       (("toy", None, False), "a game of None pictures"), (("toy", "x", None), "")):  # fmt: skip
        reply = player.press("start", *data)
        assert reply.status_code == 500
        assert said in html.unescape(reply.json()["error"])
        assert not re.search(r"Traceback|\.py|/\w+/", reply.text)
    with pytest.raises(gr.Error, match="needs 40 photos, there are 25"):
        master.begin("toy", 40, False)


# ---------------------------------------------------------------- a game


def test_a_game_shows_what_its_lots_say(master, models, photos) -> None:
    begun, lots = master.begin("toy", 20, False, seed=3), guessing.draw_lots(20, 25, 3)
    assert begun.generated == lots.generated
    assert tuple(seed for seed in begun.seeds if seed is not None) == lots.seeds
    drawn = iter(models["toy"].sample(seeds=lots.seeds, truncation_psi=guessing.PSI).images)
    order = iter(lots.order)
    for was, path in zip(begun.generated, begun.files, strict=True):
        if was:
            assert (np.asarray(Image.open(path)) == np.asarray(next(drawn))).all()
        else:
            assert Path(path).read_bytes() == guessing.prepare(photos.read(next(order)), 16, 3)
    assert len({Path(path).stat().st_mtime for path in begun.files}) == 1
    assert all(re.fullmatch(r"[0-9a-f]{32}\.png", Path(path).name) for path in begun.files)
    again = master.begin("toy", 20, False, seed=3)
    assert [Path(path).read_bytes() for path in again.files] == [Path(path).read_bytes() for path in begun.files]
    assert set(again.files).isdisjoint(begun.files)


def test_a_model_with_classes_and_a_game_without_generated_pictures(master, monkeypatch) -> None:
    assert len(master.begin("classes", 10, False).files) == 10
    monkeypatch.setattr(guessing, "draw_lots", lambda *_: guessing.Lots((False,) * 10, (), tuple(range(25))))
    done = to_end(master.begin("toy", 10, False))
    assert "called generated: none was shown, the hit rate" in shown(master, done)["result"]


def test_a_picture_that_is_gone_is_said(master) -> None:
    begun = master.begin("toy", 10, False)
    Path(begun.files[1]).unlink()
    with pytest.raises(gr.Error, match="not here any more"):
        game._answer(master, True, begun, 0)
    begun = replace(begun, said=tuple(not was for was in begun.generated), seconds=(1.0,) * 10)
    assert len(shown(master, begun)["mistakes"]) == 9


def shown(master, at: guessing.Game) -> dict[str, object]:
    """The updates by name."""
    return dict(zip(game._Shown.__dataclass_fields__, game._show(master, at), strict=True))


def test_the_result_says_what_the_answers_tell(master) -> None:
    begun = master.begin("toy", 20, False, seed=3)
    told = shown(master, to_end(begun, [True] * 20))
    kinds, right = begun.generated, sum(begun.generated)
    assert [caption for _, caption in told["mistakes"]] == [f"{k + 1} · a photo" for k in range(20) if not kinds[k]]
    result, tally = told["result"], Tally(right, 0, 20 - right, 0)
    assert f"## {right} of 20 right" in result
    assert "Not to be told from guessing" in result
    assert f"called generated: {20 - right} of {20 - right} (100 %), the false alarms" in result
    assert f"d′ {guessing.d_prime(tally):.2f}".replace("-", "−") in result
    assert f"c −{-guessing.criterion(tally):.2f}: leaning to “generated”" in result
    assert "22.45 of 40, which would be 11.2 of 20" in result
    assert "for fun" not in result
    best = shown(master, to_end(begun))
    assert "**Better than guessing**: who guesses gets 20 or more with p = 9.5e-07; it takes 15" in best["result"]
    assert "no mistakes" in best["result"]
    assert best["mistakes"] == []
    wrong = shown(master, to_end(begun, [not was for was in kinds]))["mistakes"]
    assert [caption for _, caption in wrong if "seed" in caption] == [
        f"{k + 1} · generated, seed {seed}" for k, seed in enumerate(begun.seeds) if seed is not None
    ]


def test_practice_tells_after_each_answer_and_counts_nothing(master) -> None:
    at = master.begin("toy", 10, True)
    assert shown(master, at)["told"] == ""
    for k, was in enumerate(at.generated):
        at = master.answer(at, k, True)
        told = shown(master, at)["result" if at.over else "told"]
        assert told.startswith("**Right**: it was generated, seed" if was else "**Wrong**: it was a photo")
    assert "Practice: being told on the way helps" in told
    assert not shown(master, at)["add"].interactive
    with pytest.raises(gr.Error, match="no practice"):
        master.count(at)


def test_the_chart_is_of_guessing_and_of_others() -> None:
    alone = game.chart(Tally(10, 2, 4, 4), None)
    assert alone.count("<rect") == 21
    assert "you: 14" in alone
    others = counters.Counts((0,) * 14 + (3,) + (0,) * 6, Tally(1, 1, 1, 1))
    assert game.chart(Tally(10, 2, 4, 4), others).count("<rect") == 42
    y = [float(y) for y in re.findall(r'<rect x="[\d.]+" y="([\d.]+)"', alone)]
    assert y.index(min(y)) == 10
    assert min(y) == game.TOP
    assert y == pytest.approx(y[::-1])


# ---------------------------------------------------------------- the tab


def test_without_photos_the_tab_says_how_to_give_some(studio) -> None:
    page = page_of(studio, None)
    (told,) = [part for part in page.blocks.values() if isinstance(part, gr.Markdown)]
    assert "hfgan app --photos FOLDER" in told.value
    assert "HFGAN_PHOTOS" in told.value
    assert page.fns == {}


def test_the_tab_offers_games_that_the_photos_suffice_for(studio, photos) -> None:
    page = page_of(studio, photos)
    parts = {part.elem_id: part for part in page.blocks.values()}
    assert [length for _, length in parts["guess-length"].choices] == [10, 20]
    assert f"Photos: 25 from `{photos.name}` · licence: CC0" in parts["guess-licence"].value
    assert "CC0 &lt;b&gt;1.0" in parts["guess-licence"].value
    assert "psi 0.7, none left out" in parts["guess-about"].value
    assert {fn.api_visibility for fn in page.fns.values()} == {"private"}


def test_what_draws_asks_for_a_gpu(studio, photos, monkeypatch) -> None:
    asked = []
    lend = SimpleNamespace(GPU=lambda duration: lambda verb: asked.append(verb) or verb)
    monkeypatch.setattr("hfgan.app.gpu.spaces", lend)
    page_of(studio, photos)
    assert len(asked) == 1


# ---------------------------------------------------------------- counters


@pytest.fixture(params=["memory", "file"])
def store(request, tmp_path: Path) -> Callable[[], Counters]:
    """store() -> the counters, opened again where they are in a file."""
    if request.param == "file":
        return lambda: Counters(tmp_path / "counters.json")
    one = Counters()
    return lambda: one


def test_counts_are_sums_by_kind_of_game(store) -> None:
    assert store().read(KEY) is None
    store().add(KEY, Tally(3, 2, 1, 4))
    store().add(KEY, Tally(5, 0, 0, 5))
    store().add("20/1/abc123", Tally(5, 5, 5, 5))
    counts = store().read(KEY)
    assert counts.scores == (0,) * 7 + (1, 0, 0, 1)
    assert (counts.tally, counts.games, counts.mean) == (Tally(8, 2, 1, 9), 2, 8.5)
    assert store().read("20/1/abc123").games == 1


def test_eight_writers_at_once_lose_nothing(store) -> None:
    def work(_: int) -> None:
        own = store()
        for _ in range(5):
            own.add(KEY, Tally(3, 2, 1, 4))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert store().read(KEY).scores[7] == 40
    assert store().read(KEY).tally == Tally(120, 80, 40, 160)


def test_the_file_holds_whole_numbers_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "counters.json"
    for _ in range(3):
        Counters(path).add(KEY, Tally(3, 2, 1, 4))
    assert json.loads(path.read_text()) == {
        "format": 1, "games": {KEY: {"scores": [0] * 7 + [3, 0, 0, 0], "confusion": [9, 6, 3, 12]}}
    }  # fmt: skip
    assert sorted(one.name for one in tmp_path.iterdir()) in (
        ["counters.json"],
        [".counters.json.lock", "counters.json"],
    )


@pytest.mark.parametrize(
    "content",
    [
        "no JSON",
        "[]",
        '{"format": 2, "games": {}}',
        '{"format": 1, "games": {"somebody": {"scores": [1], "confusion": [0, 0, 0, 0]}}}',
        '{"format": 1, "games": {"1/1/a": {"scores": [1], "confusion": [0, 0, 0, 0]}}}',
        '{"format": 1, "games": {"1/1/a": {"scores": [1, true], "confusion": [0, 0, 0, 0]}}}',
        '{"format": 1, "games": {"1/1/a": {"scores": [1, 0], "confusion": [0, 0, 0, 2]}}}',
        '{"format": 1, "games": {"1/1/a": {"scores": [-1, 1], "confusion": [0, 0, 0, 0]}}}',
        '{"format": 1, "games": {"1/1/a": {"scores": [0, 0], "confusion": [0, 0, 0, 0], "who": "me"}}}',
    ],
)
def test_another_file_is_neither_read_nor_overwritten(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"other\.json"):
        Counters(path)
    assert path.read_text() == content
    with pytest.raises(FileNotFoundError, match="no folder"):
        Counters(tmp_path / "nowhere" / "counters.json")


def test_only_who_wants_is_counted_and_once(master) -> None:
    done = to_end(master.begin("toy", 10, False))
    assert master._counters.read(done.key) is None
    assert shown(master, done)["add"].interactive
    counted = master.count(done)
    assert master._counters.read(done.key).scores == (*(0,) * 10, 1)
    assert not shown(master, counted)["add"].interactive
    with pytest.raises(gr.Error, match="added already"):
        master.count(counted)
    with pytest.raises(gr.Error, match="no result to add"):
        master.count(None)


def test_others_are_shown_from_twenty_results_on(master) -> None:
    done = to_end(master.begin("toy", 10, False))
    for _ in range(19):
        master._counters.add(done.key, Tally(2, 3, 3, 2))
    assert "games here" not in shown(master, done)["result"]
    assert shown(master, done)["chart"].count("<rect") == 11
    told = shown(master, master.count(done))
    assert "20 games here: 4.3 on average" in told["result"]
    assert told["chart"].count("<rect") == 22


def test_counters_that_cannot_be_reached_stop_no_game(studio, photos, tmp_path: Path) -> None:
    path = tmp_path / "counters.json"
    master = game.Quizmaster(studio, photos, Counters(path))
    done = to_end(master.begin("toy", 10, False))
    path.write_text("damaged")
    assert "10 of 10 right" in shown(master, done)["result"]
    with pytest.raises(gr.Error, match="the counters cannot be reached now") as refused:
        master.count(done)
    assert str(tmp_path) not in str(refused.value)
    assert stat.S_ISREG(path.stat().st_mode)
    assert path.read_text() == "damaged"
