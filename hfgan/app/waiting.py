"""Whether anybody still waits for what is being done."""

from __future__ import annotations

from collections.abc import Callable

from gradio.context import LocalContext


def waited_for() -> Callable[[], bool]:
    """Whether somebody still waits for the event that this is a part of, to be asked from any thread.

    Gradio cannot end a thread: who cancels, or leaves the page, is only told no more of what it does.
    """
    page, event_id = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
    if page is None or event_id is None:  # of no queue
        return lambda: True

    def asked() -> bool:
        event = page._queue.event_ids_to_events.get(event_id)
        return event is not None and event.alive

    return asked
