"""Manifests: what the commands on many pictures tell of each, a line of JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_manifest(path: Path) -> list[dict[str, Any]]:
    """The lines of a manifest."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number} of {path} is no JSON: mend it or name another --manifest") from error
        if not isinstance(row, dict) or not {"input", "output", "status"} <= row.keys():
            raise ValueError(f"line {number} of {path} is none of a manifest: name another --manifest")
        rows.append(row)
    return rows
