"""What tests of the commands for files and folders share: photos that are written, and what was written and said."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image


def write(path: Path, photo: Image.Image, **how: object) -> Path:
    """A photo in a file, whose folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    photo.save(path, **how)
    return path


def files(folder: Path) -> list[str]:
    """All files below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def rows(path: Path) -> dict[str, dict]:
    """A manifest, by input."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({row["input"] for row in lines}) == len(lines), "one line for each input"
    return {row["input"]: row for row in lines}


def said(capsys, lines: int = 1) -> str:
    """What stderr holds: so many lines, and no traceback."""
    text = capsys.readouterr().err
    assert len(text.splitlines()) == lines, text
    assert "Traceback" not in text
    return text
