"""Tab Real or generated?: a game of one picture at a time, and what its answers tell.

What is what stays on the server until the last answer: a page is sent the picture at hand and its number alone. The
events are private, as each needs what the server keeps of a page.
"""

from __future__ import annotations

import html
import io
import logging
import os
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from hfgan import guessing
from hfgan.app.card import QUICK
from hfgan.app.counters import Counters, Counts
from hfgan.app.gpu import on_gpu
from hfgan.app.sample import DRAWING
from hfgan.app.studio import Pictures, Studio, new_folder, own_file, refusing
from hfgan.captions import plain
from hfgan.guessing import LENGTHS, PSI, PUBLISHED, PUBLISHED_OF, PUBLISHED_PEOPLE, Game, Photos, Tally
from hfgan.pipeline import HFGan

logger = logging.getLogger(__name__)

NO_PHOTOS = """This game shows real photos among generated ones, and none were given. Start the app with
`hfgan app --photos FOLDER --photos-licence "CC0 1.0"`, or on a Space set the variables `HFGAN_PHOTOS` and
`HFGAN_PHOTOS_LICENCE`: a folder, a .zip or a Hub data set id with 10 or more photos of what the model draws."""
ABOUT = """One picture at a time: by the toss of a coin each is a photo, or one that **{model}** drew of a random seed
at psi {psi:g}, none left out. All went through the same crop, size and file format."""
LICENCE = "Photos: {count:,} from `{name}` · licence: {licence}"
KEYS_TOLD = "Buttons, or the arrow keys: ← generated, → real"
OFFER = """*Add my result* counts one more game with this score, and what was called what in sum; nothing about you, no
time and no single answer is kept. Results of others are shown once there are {least}."""
FEWEST = 20  # results of others from which on they are shown
LEANS = 0.2  # |c| from which on a bias is named
WIDTH, HEIGHT, TOP = 360, 180, 60  # of the chart, and where its bars may begin
KEYS = """async () => {
  const at = (id) => document.getElementById(id);
  for (let k = 0; k < 100 && !at("guess-answers")?.offsetParent; k++) await new Promise((go) => setTimeout(go, 50));
  const box = at("guess-answers");
  if (!box) return [];
  if (!box.dataset.keys) {
    box.dataset.keys = "on";
    box.tabIndex = -1;
    box.addEventListener("keydown", (event) => {
      const button = at({ArrowLeft: "guess-generated", ArrowRight: "guess-real"}[event.key]);
      if (!button || event.repeat) return;
      event.preventDefault();
      button.click();
    });
  }
  box.focus({preventScroll: true});
  return [];
}"""  # neither button is focused, as that one would be answered more often


class Quizmaster:
    """The verbs of the game, on the models and with the locks of a studio."""

    def __init__(self, studio: Studio, photos: Photos | None, counters: Counters) -> None:
        self._studio, self._photos, self._counters = studio, photos, counters

    def begin(self, model: str, length: int, practice: bool, seed: int | None = None) -> Game:
        """A game with all its pictures, so that none takes longer than another; of a seed, the same one again."""
        with self._studio.drawing(model) as gan:
            if self._photos is None:
                raise ValueError("there are no photos here: the app was started without any")
            lots, config = guessing.draw_lots(length, len(self._photos), seed), gan.generator.config
            drawn, told = _draw(gan, lots.seeds), {"model": model, "fingerprint": gan.generator.fingerprint()}
        size = (config.resolution, config.img_channels)
        with refusing():  # and the model is others' meanwhile
            real = guessing.prepare_real(self._photos, lots.order, length - len(lots.seeds), *size)
        drawn = [guessing.prepare(one, *size) for one in drawn]
        mixed, seeds = {True: iter(drawn), False: iter(real)}, iter(lots.seeds)
        files = _write([next(mixed[one]) for one in lots.generated])
        return Game(**told, generated=lots.generated, files=files, practice=bool(practice), since=time.monotonic(),
                    seeds=tuple(next(seeds) if one else None for one in lots.generated))  # fmt: skip

    @staticmethod
    def answer(game: Game | None, number: int, said: bool) -> Game:
        """With the answer to the picture of that number; to any other, such as by a second press, it is ignored."""
        with refusing():
            if game is None:
                raise ValueError("no game has begun on this page: press Start")
            return game.answer(said, time.monotonic()) if number == game.number else game

    def count(self, game: Game | None) -> Game:
        """Add the result of a game to the counters, once."""
        with refusing():
            if game is None or not game.over or game.practice:
                raise ValueError("there is no result to add: finish a game that is no practice")
            if game.counted:
                raise ValueError("this result was added already")
            try:
                self._counters.add(game.key, game.tally())
            except (OSError, ValueError):  # a full disk, or a file that somebody has changed: no fault of the user's
                logger.exception("a result was not counted")
                raise ValueError("the counters cannot be reached now: your result was not added") from None
        return replace(game, counted=True)

    def others(self, game: Game) -> Counts | None:
        """Results of the same kind of game, where there are enough of them."""
        try:
            counts = self._counters.read(game.key)
        except (OSError, ValueError):
            logger.exception("the counters were not read")
            return None
        return counts if counts and counts.games >= FEWEST else None


def _draw(gan: HFGan, seeds: tuple[int, ...]) -> list[bytes]:
    """Pictures of seeds as PNG files; of the first class of a model with classes."""
    if not seeds:
        return []
    label, drawn = 0 if gan.generator.config.c_dim else None, []
    for picture in gan.sample(seeds=seeds, truncation_psi=PSI, label=label).images:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", compress_level=0)
        drawn.append(buffer.getvalue())
    return drawn


def _write(pictures: Iterable[bytes]) -> tuple[str, ...]:
    """Files with names and times that tell nothing."""
    folder, now = new_folder(), int(time.time())
    paths = []
    for data in pictures:
        paths.append(folder / f"{uuid.uuid4().hex}.png")
        paths[-1].write_bytes(data)
        os.utime(paths[-1], (now, now))  # it is in the header of the answer to a browser
    return tuple(map(str, paths))


# ---------------------------------------------------------------- the tab


@dataclass(frozen=True)
class _Shown:
    """What `_Table.show` updates, in this order."""

    game: gr.State
    setup: gr.Column
    play: gr.Column
    progress: gr.Markdown
    picture: gr.Image
    number: gr.Number
    told: gr.Markdown
    done: gr.Column
    result: gr.Markdown
    chart: gr.HTML
    mistakes: gr.Gallery
    add: gr.Button

    @property
    def all(self) -> list[Component]:
        """As outputs of an event."""
        return list(vars(self).values())


def tab(studio: Studio, model: gr.Dropdown, photos: Photos | None, counters: Counters | None = None) -> None:
    """Lay out the tab: the game, or how to give photos where there are none.

    Args:
        studio: With the models.
        model: The one that draws the generated pictures of the next game.
        photos: What `guessing.open_real` returned.
        counters: Where results are added by those who want to; None for in memory.
    """
    if photos is None:
        gr.Markdown(NO_PHOTOS, elem_id="guess-about")
        return
    master, game = Quizmaster(studio, photos, counters or Counters()), gr.State()
    about = gr.Markdown(_about(str(model.value)), elem_id="guess-about", elem_classes="caption")
    licence = LICENCE.format(name=photos.name.replace("`", ""), count=len(photos), licence=html.escape(photos.licence))
    gr.Markdown(licence, elem_id="guess-licence", elem_classes="caption")
    setup, *asked, start = _setup(photos)
    play, told, answers, stop = _play()
    done, results, again = _done()
    shown = _Shown(game, setup, play, *told, done, *results)
    begin = partial(_begin, master)
    begun = start.click(on_gpu(begin), [model, *asked], shown.all, api_visibility="private",
                        show_progress_on=start, **DRAWING)  # fmt: skip
    begun.success(None, None, None, js=KEYS, **QUICK)
    for button, said in zip(answers, (True, False), strict=True):
        button.click(partial(_answer, master, said), [game, shown.number], shown.all, **QUICK)
    shown.add.click(partial(_count, master), game, shown.all, **QUICK)
    gr.on([stop.click, again.click], lambda: _show(master, None), None, shown.all, **QUICK)
    model.change(_about, model, about, **QUICK)


def _begin(master: Quizmaster, model: str, length: int, practice: bool) -> list[Any]:
    return _show(master, master.begin(model, length, practice))


def _answer(master: Quizmaster, said: bool, game: Game | None, number: int) -> list[Any]:
    return _show(master, master.answer(game, number, said))


def _count(master: Quizmaster, game: Game | None) -> list[Any]:
    return _show(master, master.count(game))


def _about(model: str) -> str:
    return ABOUT.format(model=plain(model), psi=PSI)


def _setup(photos: Photos) -> list[Component]:
    """The column before a game: how many pictures, practice, Start."""
    names = {10: "10, for fun", 20: "20", 40: "40, as in the survey"}
    offered = [(names[length], length) for length in LENGTHS if length <= len(photos)]
    with gr.Column(elem_id="guess-setup") as column:
        length = gr.Radio(offered, value=offered[0][1], label="Pictures", elem_id="guess-length")
        practice = gr.Checkbox(label="Practice", info="Say after each answer whether it was right",
                               elem_id="guess-practice")  # fmt: skip
        start = gr.Button("Start", variant="primary", elem_id="guess-start")
    return [column, length, practice, start]


def _play() -> tuple[gr.Column, list[Component], tuple[gr.Button, gr.Button], gr.Button]:
    """The column of a game: the picture at hand, the two answers, Stop."""
    with gr.Column(visible=False, elem_id="guess-play") as column:
        progress = gr.Markdown(elem_id="guess-progress", elem_classes="caption")
        picture = gr.Image(label="Real or generated?", type="filepath", interactive=False, buttons=[], width=360,
                           alt_text="Real or generated?", elem_id="guess-picture", elem_classes="picture")  # fmt: skip
        number = gr.Number(visible=False, precision=0)
        with gr.Row(elem_id="guess-answers"):
            generated = gr.Button("Generated", min_width=120, elem_id="guess-generated")
            real = gr.Button("Real photo", min_width=120, elem_id="guess-real")
        gr.Markdown(KEYS_TOLD, elem_classes="caption")
        told = gr.Markdown(elem_id="guess-told")
        stop = gr.Button("Stop this game", size="sm", elem_id="guess-stop")
    return column, [progress, picture, number, told], (generated, real), stop


def _done() -> tuple[gr.Column, list[Component], gr.Button]:
    """The column after a game: the result, mistakes, the counters, Play again."""
    with gr.Column(visible=False, elem_id="guess-done") as column:
        result = gr.Markdown(elem_id="guess-result")
        chart = gr.HTML(elem_id="guess-chart")
        mistakes = gr.Gallery(label="Mistakes", columns=4, height="auto", allow_preview=False, buttons=[],
                              interactive=False, elem_id="guess-mistakes", elem_classes="below")  # fmt: skip
        gr.Markdown(OFFER.format(least=FEWEST), elem_classes="caption")
        with gr.Row():
            add = gr.Button("Add my result", min_width=120, elem_id="guess-add")
            again = gr.Button("Play again", variant="primary", min_width=120, elem_id="guess-again")
    return column, [result, chart, mistakes, add], again


# ---------------------------------------------------------------- what is shown


def _show(master: Quizmaster, game: Game | None) -> list[Any]:
    """Updates of `_Shown.all`: before a game, during one, after one."""
    playing, over = game is not None and not game.over, game is not None and game.over
    columns = {"setup": gr.Column(visible=game is None), "play": gr.Column(visible=playing),
               "done": gr.Column(visible=over)}  # fmt: skip
    updates = {"game": game, "picture": None, "told": ""} | columns
    if playing:
        updates |= {"progress": f"**{game.number + 1} of {len(game)}**", "number": game.number,
                    "picture": str(own_file(game.files[game.number])), "told": _last(game)}  # fmt: skip
    if over:
        tally, others = game.tally(), None if game.practice else master.others(game)
        updates |= {"result": _last(game) + report(game, tally, others), "chart": chart(tally, others)}
        updates |= {"mistakes": _mistakes(game), "add": gr.Button(interactive=not (game.practice or game.counted))}
    return [updates.get(name, gr.skip()) for name in _Shown.__dataclass_fields__]


def _last(game: Game) -> str:
    """In practice, what the picture before was."""
    if not game.practice or not game.said:
        return ""
    was, said, seed = game.generated[game.number - 1], game.said[-1], game.seeds[game.number - 1]
    return f"**{'Right' if was == said else 'Wrong'}**: it was {_kind(seed)}.\n\n"


def _kind(seed: int | None) -> str:
    return "a photo" if seed is None else f"generated, seed {seed}"


def _mistakes(game: Game) -> Pictures:
    """Files and captions; files that were deleted in the meantime are left out."""
    return [(game.files[k], f"{k + 1} · {_kind(game.seeds[k])}") for k in game.mistakes()
            if Path(game.files[k]).is_file()]  # fmt: skip


def report(game: Game, tally: Tally, others: Counts | None) -> str:
    """What the answers of a game tell, as Markdown."""
    total, right = tally.total, tally.right
    chance, least, p = total / 2, guessing.needed(total), guessing.binomial_p(right, total)
    verdict = "Better than guessing" if right >= least else "Not to be told from guessing"
    bias = guessing.criterion(tally)
    lean = "no clear leaning" if abs(bias) < LEANS else f"leaning to “{'real' if bias > 0 else 'generated'}”"
    fun = " One game of 10 says little about anybody." if total == LENGTHS[0] else ""
    scaled = "" if total == PUBLISHED_OF else f", which would be {guessing.to_length(total):.1f} of {total}"
    helped = "*Practice: being told on the way helps, so this does not compare with a game.*\n"
    lines = [
        f"## {right} of {total} right",
        helped if game.practice else "",
        f"**{verdict}**: who guesses gets {right} or more with p = {p:.2g}; it takes {least} for p ≤ 0.05.{fun}\n",
        f"- generated pictures called generated: {_of(tally.hits, tally.generated)}, the hit rate",
        f"- photos called generated: {_of(tally.false_alarms, tally.real)}, the false alarms",
        f"- d′ {_signed(guessing.d_prime(tally))}: how well you tell them apart, 0 for not at all",
        f"- c {_signed(bias)}: {lean}",
        f"- median time {game.median_seconds():.1f} s for a picture",
        f"- guessing: {chance:g} on average; a published survey of {PUBLISHED_PEOPLE} people, with other pictures: "
        f"{PUBLISHED:g} of {PUBLISHED_OF}{scaled}",
        f"- {others.games:,} games here: {others.mean:.1f} on average, d′ of all answers together "
        f"{_signed(guessing.d_prime(others.tally))}" if others else "",
        f"- generated pictures: {plain(game.model)}, psi {PSI:g}; "
        f"{'your mistakes stand below' if game.mistakes() else 'no mistakes'}",
    ]  # fmt: skip
    return "\n".join(line for line in lines if line)


def _of(count: int, total: int) -> str:
    return f"{count} of {total} ({100 * count / total:.0f} %)" if total else "none was shown"


def _signed(value: float) -> str:
    """Two digits with a proper minus, and none before 0.00."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def chart(tally: Tally, others: Counts | None) -> str:
    """An SVG of how often guessing gives each score, how often others had it, and where one stands."""
    total, step = tally.total, WIDTH / (tally.total + 1)
    marks = [(tally.right, f"you: {tally.right}", "3"), (guessing.to_length(total), "survey", "1.5"),
             (total / 2, "guessing", "1.5")]  # fmt: skip
    chance = [guessing.binomial_p(k, total) - (guessing.binomial_p(k + 1, total) if k < total else 0)
              for k in range(total + 1)]  # fmt: skip
    drawn = _bars(chance, step, 0.9, "0.3")
    if others:
        drawn += _bars(others.scores, step, 0.4, "0.8")
    for row, (value, name, width) in enumerate(marks):
        x, y = (value + 0.5) * step, 14 + 18 * row
        side, gap = ("end", -5) if value > total / 2 else ("start", 5)
        drawn += f'<text x="{x + gap:.1f}" y="{y}" text-anchor="{side}">{name}</text>'
        drawn += (f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y - 10}" y2="{HEIGHT - 20}" stroke="currentColor" '
                  f'stroke-width="{width}"/>')  # fmt: skip
    for value in (0, total // 2, total):
        drawn += f'<text x="{(value + 0.5) * step:.1f}" y="{HEIGHT - 4}" text-anchor="middle">{value}</text>'
    told = "Score of this game among those of guessing" + (", narrow bars: of others here" if others else "")
    return (f'<figure style="margin: 0; max-width: {WIDTH}px"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-label="{told}" font-size="13" fill="currentColor">{drawn}</svg>'
            f"<figcaption>{told}</figcaption></figure>")  # fmt: skip


def _bars(heights: Iterable[float], step: float, share: float, opacity: str) -> str:
    """Bars of these heights, the highest to the top, each `share` of a step wide."""
    values = list(heights)
    room = (HEIGHT - 20 - TOP) / max(values)
    return "".join(
        f'<rect x="{(k + (1 - share) / 2) * step:.1f}" y="{HEIGHT - 20 - value * room:.1f}" '
        f'width="{share * step:.1f}" height="{value * room:.1f}" opacity="{opacity}"/>'
        for k, value in enumerate(values)
    )
