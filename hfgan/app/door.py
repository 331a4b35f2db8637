"""The door of the app: what no verb understands is refused in a sentence, and nobody takes all the room.

Gradio answers much of what is malformed with an empty error or with the status of a broken server, keeps a session for
every call of a program, and fetches files from wherever a client says; none of that comes through here.
"""

from __future__ import annotations

import html
import logging
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from copy import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from gradio.route_utils import FnIndexInferError
from gradio.state_holder import SessionState, StateHolder
from gradio.utils import get_upload_folder
from gradio_client.utils import is_http_url_like

from hfgan.app.studio import GONE, MAX_MESSAGE

logger = logging.getLogger(__name__)

MAX_OWN = 8  # requests of one session that wait
MAX_DIRECT = 16  # calls that go past the queue, at a time
MAX_DEPTH = 150  # of lists and dicts within one another: a recipe has up to 105
MAX_SESSIONS = 400  # remembered, about 0.03 MB each; beyond that the one goes that was unused for longest
UNDERSTOOD_BY = "?view=api lists what each verb takes"
MISUNDERSTOOD = f"this request was not understood: {UNDERSTOOD_BY}"
BROKEN = "something went wrong here, not through you: try again, or try something else"
ELSEWHERE = "files are taken as uploads only: nothing is fetched from other servers here"
DEEP = f"what was given has over {MAX_DEPTH} lists within one another: {UNDERSTOOD_BY}"
FULL = "too many requests wait here already: try again in a minute"
OWN = f"{MAX_OWN} of your requests wait here already: try again when one of them is done"


class Page(gr.Blocks):
    """Blocks whose every refusal is a message to who asked."""

    _direct = 0  # calls that go past the queue now

    async def process_api(self, block_fn: Any, *given: Any, session_hash: str | None = None,
                          event_id: str | None = None, **how: Any) -> dict[str, Any]:  # fmt: skip
        """As of Gradio; of a call without a session nothing is kept."""
        past = event_id is None and block_fn.queue
        if past and self._direct >= MAX_DIRECT:
            raise gr.Error(FULL, print_exception=False)
        self._direct += past
        try:
            return await super().process_api(block_fn, *given, session_hash=session_hash, event_id=event_id, **how)
        except gr.Error:
            raise
        except Exception as error:  # the text of an unforeseen exception is nobody's business
            logger.exception("a verb failed")
            raise gr.Error(BROKEN, print_exception=False) from error
        finally:
            self._direct -= past
            if event_id is not None and session_hash == event_id:
                self.state_holder.session_data.pop(session_hash, None)
                self.state_holder.time_last_used.pop(session_hash, None)

    @property
    def state_holder(self) -> StateHolder:
        """The sessions, which Gradio hands over when it starts."""
        return self._sessions

    @state_holder.setter
    def state_holder(self, holder: StateHolder) -> None:
        holder.__class__ = Sessions
        self._sessions = holder

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *given: Any) -> list[Any]:
        """As of Gradio; the verb gets only what its components understand."""
        check(inputs)
        try:
            return await super().preprocess_data(block_fn, inputs, *given)
        except gr.Error as error:  # of a component, which repeats what it was given
            said = html.escape(str(error.message)[:MAX_MESSAGE], quote=False)
            raise gr.Error(said, print_exception=False) from None
        except Exception as error:
            place = re.search(r"component at index (\d+)", str(error))
            label = place and getattr(block_fn.inputs[int(place[1])], "label", None)
            said = f"this is no value for {label}: {UNDERSTOOD_BY}" if label else MISUNDERSTOOD
            raise gr.Error(said, print_exception=False) from None

    def queue(self, *given: Any, **how: Any) -> Page:
        """As of Gradio; MAX_OWN of a session can wait, and who cannot is told so in a sentence."""
        super().queue(*given, **how)
        queue, push = self._queue, self._queue.push

        async def fair(body: Any, request: Any, username: Any) -> tuple[bool, Any, str]:
            waiting = (event for line in queue.event_queue_per_concurrency_id.values() for event in line.queue)
            if body.session_hash and sum(event.session_hash == body.session_hash for event in waiting) >= MAX_OWN:
                return False, OWN, "queue_full"
            done, said, state = await push(body, request, username)
            return done, FULL if state == "queue_full" else said, state

        queue.push = fair
        queue.ANALYTICS_MAX_EVENTS = 0  # of who asked for what, gone through after each event and shown to nobody
        for block in self.blocks.values():
            block.temp_files = Files(block.temp_files)
        self.upload_file_set = Files()
        self.temp_file_sets = [self.upload_file_set, *(block.temp_files for block in self.blocks.values())]
        return self


class Sessions(StateHolder):
    """Sessions by their name, of which the states are kept."""

    def __getitem__(self, name: str) -> SessionState:
        if name not in self.session_data:
            self.session_data[name] = Session(self.blocks)
        return super().__getitem__(name)

    def update(self, name: str) -> None:
        """As of Gradio; with a session that goes, what was to be told to it goes, too."""
        oldest = next(iter(self.session_data), None)
        super().update(name)
        if oldest not in self.session_data:
            for waiting in (
                self.blocks._queue.pending_messages_per_session,
                self.blocks._queue.pending_event_ids_session,
            ):
                waiting.pop(oldest, None)


class Session(SessionState):
    """A session without a copy of what its page shows: 0.6 MB, which only links to it would need."""

    def __init__(self, blocks: gr.Blocks) -> None:
        none = SimpleNamespace(blocks={})
        super().__init__(SimpleNamespace(default_config=none, blocks={}))
        self.blocks_config, self.config_values = copy(blocks.default_config), Forgotten()


class Forgotten(dict):
    """Keeps nothing that is put into it."""

    def __setitem__(self, key: int, value: dict[str, Any]) -> None:
        """Do nothing."""

    def __missing__(self, key: int) -> dict[str, Any]:
        return {}


class Files(set):
    """Names of files that may grow more while Gradio walks through them in another thread, to delete the old ones.

    Else that ends its walks for ever.
    """

    def __iter__(self) -> Iterator[str]:
        return set.__iter__(self.copy())


def check(inputs: Any) -> None:
    """Refuse what lies too deep to be walked through, and files that are on other servers, or no files."""
    level, depth = [inputs], 0
    while level:
        if depth > MAX_DEPTH:
            raise gr.Error(DEEP, print_exception=False)
        for one in level:
            path = one.get("path") if isinstance(one, dict) else None
            if isinstance(path, str) and is_http_url_like(path.strip()):
                raise gr.Error(ELSEWHERE, print_exception=False)
            if isinstance(path, str) and _is_gone(path):
                raise gr.Error(GONE, print_exception=False)
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level, depth = [one for values in inner for one in values], depth + 1


def _is_gone(path: str) -> bool:
    """Whether it is no file where uploads are: if it is a folder, Gradio fails to delete that, and then any file."""
    with suppress(OSError, ValueError):
        file = Path(path).resolve()
        return file.is_relative_to(Path(get_upload_folder()).resolve()) and not file.is_file()
    return False


async def _refuse(_: Request, error: Exception) -> JSONResponse:
    """What a route of Gradio does not expect in a request, such as a verb that there is not."""
    logger.warning("a request was not understood", exc_info=error)
    return JSONResponse({"detail": MISUNDERSTOOD}, 400)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    """What is not of the form of a request; it is not repeated, as it may be long."""
    first = error.errors()[0]
    said = html.escape(f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:MAX_MESSAGE], quote=False)
    return JSONResponse({"detail": said}, 422)


Handler = Callable[[Request, Exception], Awaitable[JSONResponse]]
EXPECTED = (
    ArithmeticError,
    AttributeError,
    FnIndexInferError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
HANDLERS: dict[type[Exception], Handler] = {RequestValidationError: _invalid, Exception: _refuse} | dict.fromkeys(
    EXPECTED, _refuse
)
