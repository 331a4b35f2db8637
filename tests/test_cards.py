"""The bundled models: they load by name, draw, are small enough, and their cards say what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from hfgan import HFGan, bundled_models

ROOT = Path(__file__).parents[1]
NAMES = ("hfaces-64", "flowers-64")


@pytest.mark.parametrize("name", NAMES)
def test_bundled_model_draws_varied_pictures(name: str) -> None:
    images = HFGan.from_pretrained(name).sample(16, seed=0, truncation_psi=1.0).images
    pixels = np.stack([np.asarray(image, float) for image in images])
    assert pixels.shape[1:] == (64, 64, 3)
    assert pixels.std(axis=0).mean() > 20  # levels: different seeds are different pictures


@pytest.mark.parametrize("name", NAMES)
def test_bundled_files_are_small_and_half_precision(name: str) -> None:
    folder = bundled_models()[name]
    assert all(path.stat().st_size <= 16 * 2**20 for path in folder.rglob("*") if path.is_file())
    weights = list(folder.rglob("*.safetensors"))
    assert len(weights) >= 2  # generator and discriminator, so that training can go on
    for path in weights:
        with safe_open(path, framework="pt") as file:
            kinds = {str(file.get_slice(key).get_dtype()) for key in file.keys()}  # noqa: SIM118
        assert kinds <= {"F16", "I64", "U8"}  # counts and previews of modes are whole numbers
        assert "F16" in kinds


@pytest.mark.parametrize("name", NAMES)
def test_card_is_what_publishing_the_model_again_writes(name: str, tmp_path: Path) -> None:
    """The tables of parts, quality and training are not typed: template and metrics give the same text and weights."""
    folder = bundled_models()[name]
    card, metrics = ROOT / "training" / "cards" / f"{name}.md", folder / "metrics.json"
    command = [
        sys.executable,
        str(ROOT / "training" / "train.py"),
        "publish",
        "--model",
        name,
        "--out",
        str(tmp_path / name),
    ]
    done = subprocess.run([*command, "--card", str(card), "--metrics", str(metrics)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / name / "README.md").read_text() == (folder / "README.md").read_text()
    for path in folder.rglob("*.safetensors"):
        assert path.read_bytes() == (tmp_path / name / path.relative_to(folder)).read_bytes()
    rows = json.loads(metrics.read_text())["rows"]
    assert all(row["protocol"]["feature_weights"] and row["protocol"]["num_real"] for row in rows)
