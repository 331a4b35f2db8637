"""How the app bears many users: starts `python app.py`, has users at it for a while, half of whom leave midway.

python tests/bench/load.py [--users 50 --seconds 300 --cancel 0.5 --model hfaces-64 flowers-64]

Prints JSON: requests, answers, refusals by message, who left, what was wrong, HTTP statuses, times, the memory of the
server each 5 seconds and its slope after WARM seconds, files left. The exit status is 1 where a limit is passed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import load

from app import serving

WARM = 60  # seconds in which memory may grow as it likes
EVERY = 5  # seconds from one look at memory to the next
MAX_SLOPE = 10  # MB a minute


def memory(process: int) -> float:
    """Resident memory [MB]."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@contextmanager
def watching(process: int) -> Iterator[list[tuple[float, float]]]:
    """Seconds and resident memory [MB], again and again."""
    seen, over, began = [], threading.Event(), time.monotonic()

    def watch() -> None:
        while not over.is_set():
            seen.append((round(time.monotonic() - began, 1), round(memory(process), 1)))
            over.wait(EVERY)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def slope(seen: list[tuple[float, float]], warm: float = WARM) -> float | None:
    """MB a minute by least squares after that time; None where there is too little."""
    late = np.array([one for one in seen if one[0] >= warm])
    return round(60 * float(np.polyfit(*late.T, 1)[0]), 2) if len(late) > 2 else None


def measure(users: int, seconds: float, cancelling: float, models: list[str]) -> dict[str, Any]:
    """Everything that is printed."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "cache"
        with serving(models, folder) as (address, server), watching(server.pid) as seen:
            told = asyncio.run(load.use(address, users, seconds, cancelling))
            files = [path for path in folder.rglob("*") if path.is_file()]
            told |= {"rss_mb": seen, "slope_mb_per_min": slope(seen), "alive": server.poll() is None}
            told |= {"files": len(files), "files_mb": round(sum(path.stat().st_size for path in files) / 1e6, 1)}
        told["failed_verbs"] = folder.with_suffix(".log").read_text().count("Traceback")
    return told


def faults(told: dict[str, Any]) -> list[str]:
    """What is not as it must be."""
    rising = (told["slope_mb_per_min"] or 0) > MAX_SLOPE
    found = {"wrong answers": told["wrong"] or told["last_wrong"], "5xx": told["statuses"].get("5xx"),
             "4xx": told["statuses"].get("4xx"), "the queue is stuck": told["drained_s"] is None, "slope": rising,
             "dead": not told["alive"], "failed verbs": told["failed_verbs"],
             "unreadable": [said for said in told["refusals"] if not load.readable(said)]}  # fmt: skip
    return [name for name, wrong in found.items() if wrong]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--cancel", type=float, default=0.5, help="share of users who leave midway")
    parser.add_argument("--model", nargs="*", default=["hfaces-64", "flowers-64"])
    given = parser.parse_args()
    told = measure(given.users, given.seconds, given.cancel, given.model)
    told["faults"] = faults(told)
    json.dump(told, sys.stdout, indent=1)
    return bool(told["faults"])


if __name__ == "__main__":
    sys.exit(main())
