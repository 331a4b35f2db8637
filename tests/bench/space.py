"""Build a Space as its builder does and use the app there: a clean environment, one pip command, only what is copied.

    python tests/bench/space.py                      # installs 5 GB where torch comes with CUDA, in some minutes
    python tests/bench/space.py --torch 2.13.0+cpu   # with this torch
    python tests/bench/space.py --keep ENVIRONMENT   # go on with one that was built, or build it there

Prints seconds, MB and versions, then fails where the app does not draw or does not offer its verbs as MCP tools.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import space

CHECK = """
import asyncio, sys
from gradio_client import Client
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from PIL import Image

address = sys.argv[1]
client = Client(address, verbose=False)
names = [one["name"] for one in client.predict(api_name="/list_models")]
for name in names:
    pictures, recipes = client.predict(name, 2, 3, 0.7, 0, "const", 0, "global", 0, api_name="/sample")
    assert [recipe["seed"] for recipe in recipes] == [3, 4]
    assert Image.open(pictures[0]["image"]).format == "PNG"
    first = client.predict(name, api_name="/list_directions")[0]["name"]
    drawn = client.predict(name, {first: 1}, recipes[0], None, "whole", "", False, api_name="/edit")
    assert Image.open(drawn[0]).format == "PNG"


async def tools():
    async with streamablehttp_client(address + "gradio_api/mcp/") as (read, write, _):
        async with ClientSession(read, write) as session:
            await session.initialize()
            return [tool.name for tool in (await session.list_tools()).tools]


print("models:", *names)
print("MCP tools:", *asyncio.run(tools()))
"""


def build(folder: Path, torch: str | None) -> None:
    """The environment of a Space in that folder, of requirements.txt alone."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    wanted = ["-r", str(space.ROOT / "requirements.txt"), *space.packages(), *([f"torch=={torch}"] if torch else [])]
    subprocess.run([folder / "bin/pip", "install", "--quiet", *wanted], check=True)


def main() -> None:
    """Build, copy, start, draw, and tell how long each took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", help="version of torch in place of the newest")
    parser.add_argument("--keep", type=Path, help="folder of the environment (a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        environment, began = options.keep or Path(temporary) / "environment", time.monotonic()
        if not (environment / "bin/pip").exists():
            build(environment, options.torch)
        print(f"installed in {time.monotonic() - began:.0f} s")
        python = str(environment / "bin/python")
        assert subprocess.run([python, "-c", "import hfgan"], cwd=temporary, capture_output=True).returncode, (
            "not clean"
        )
        (copied := Path(temporary) / "copy").mkdir()
        space.copy_to(copied)
        began = time.monotonic()
        with space.serving(copied, python, HF_HUB_OFFLINE="1") as address:
            print(f"started in {time.monotonic() - began:.1f} s")
            subprocess.run([python, "-c", CHECK, address], cwd=temporary, check=True)


if __name__ == "__main__":
    main()
