"""What every test stands on: no network, no telemetry, one thread, and small random photos."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported: it reads this once
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["OMP_NUM_THREADS"] = "1"  # before torch is: of this process, and of those that a test starts
os.environ["ACCELERATE_USE_CPU"] = "true"

import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from gradio_client import Client


@pytest.fixture
def photo() -> Callable[..., Image.Image]:
    """photo(width, height, seed, mode): a smooth random picture that no two seeds share."""

    def make(width: int = 48, height: int = 48, seed: int = 0, mode: str = "RGB") -> Image.Image:
        coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)

    return make


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG from its raw rows, for what Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


@pytest.fixture(scope="session")
def bomb() -> bytes:
    """A valid PNG of 20000 x 20000 black pixels in a few kilobytes."""
    return png(20000, 20000, 1, 0, bytes(2501 * 20000))


@pytest.fixture
def deep_colour() -> bytes:
    """A PNG of one pixel in 16-bit RGB: 65535, 32768, 256."""
    return png(1, 1, 16, 2, b"\0" + struct.pack(">HHH", 65535, 32768, 256))


# ---------------------------------------------------------------- the app, of a file's own fixture `models`


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Gradio's folder."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def address(models, cache) -> Iterator[str]:
    """The app, running."""
    from hfgan import app

    page = app.build(models)
    yield app.launch(page, prevent_thread_lock=True, quiet=True)
    page.close(verbose=False)


@pytest.fixture
def user(address: str, tmp_path: Path) -> Client:
    """Somebody who uses it through the API."""
    from gradio_client import Client

    return Client(address, verbose=False, download_files=tmp_path / "user")
