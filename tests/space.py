"""What a Space is made of: the files that it copies, its front matter, its packages; and the app running on those."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
COPIED = ("app.py", "hfgan", "model_cards", "README.md", "requirements.txt")
BESIDE = ("uvicorn>=0.14.0", "websockets>=10.4", "spaces")  # what the builder of a Space installs in the same command


def front_matter() -> dict[str, Any]:
    """The settings at the head of README.md."""
    _, head, _ = (ROOT / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(head)


def packages() -> list[str]:
    """What the builder gives to its one pip command, beside requirements.txt."""
    return [f"gradio[oauth,mcp]=={front_matter()['sdk_version']}", *BESIDE]


def files(*folders: str) -> list[str]:
    """Files of the repository in these folders or all, as git has them or would have: none that it ignores."""
    told = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard", *folders], cwd=ROOT, text=True)
    return sorted(name for name in set(told.splitlines()) if (ROOT / name).is_file())


def copy_to(folder: Path) -> Path:
    """Copy what a Space is made of, and nothing else."""
    for name in files(*COPIED):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    return folder


@contextmanager
def serving(folder: Path, python: str = sys.executable, wait: float = 180, **variables: str) -> Iterator[str]:
    """`python app.py` in that folder, which sees no other hfgan; gives its address once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "GRADIO_SERVER_NAME")}
    env |= {"GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": str(folder / "temporary"), **variables}
    address, said = f"http://127.0.0.1:{port}/", (folder / "said.txt").open("w+")
    with said, subprocess.Popen([python, "app.py"], cwd=folder, env=env, stdout=said, stderr=said) as server:
        try:
            began = time.monotonic()
            while not _answers(address):
                if server.poll() is not None or time.monotonic() - began > wait:
                    said.seek(0)
                    raise RuntimeError(f"the app did not start: {said.read()[-2000:]}")
                time.sleep(0.2)
            yield address
        finally:
            server.terminate()


def _answers(address: str) -> bool:
    try:
        return bool(re.search(b"HFGan", urllib.request.urlopen(address, timeout=5).read()))
    except OSError:
        return False
