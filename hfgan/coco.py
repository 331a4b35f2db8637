"""COCO annotations of masks: run lengths as COCO compresses them, box and area. Needs no COCO software.

Format: cocodataset.org, "Data format" and "Mask API". A mask is read column by column, and its runs begin with one of
zeros, which may be empty. From the fourth on, a run is stored as its difference from the run two before. A number is
cut into groups of 5 bits, lowest first; a sixth bit says that more follow, the highest of the last group is the sign,
and each group plus 48 is a character.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

GROUP, SIGN, MORE = 5, 0x10, 0x20  # bits of a character: five of the number, its sign in the last, whether more follow
FIRST = 48  # "0", the character of zero


def run_lengths(mask: np.ndarray) -> list[int]:
    """Lengths of the runs of a mask (h, w) bool, column by column, the first one of zeros."""
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(edges, prepend=0, append=flat.size).tolist()
    return [0, *runs] if flat[0] else runs


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """A mask (h, w) bool as COCO's compressed RLE: {"size": [h, w], "counts": string}.

    Raises:
        ValueError: an empty array, or another shape or type.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_ or not mask.size:
        raise ValueError(f"a mask of {mask.dtype} {mask.shape}: expected bool (h, w) with a pixel or more")
    runs = run_lengths(mask)
    deltas = [run - runs[i - 2] if i > 2 else run for i, run in enumerate(runs)]
    return {"size": list(mask.shape), "counts": "".join(map(_characters, deltas))}


def _characters(value: int) -> str:
    """A whole number in groups of 5 bits, lowest first."""
    said, more = "", True
    while more:
        group = value & (MORE - 1)
        value >>= GROUP  # arithmetic: what is left of a negative number ends as -1
        more = value != (-1 if group & SIGN else 0)
        said += chr((group | (MORE if more else 0)) + FIRST)
    return said


def bounding_box(mask: np.ndarray) -> list[int]:
    """[left, top, width, height] in pixels of a mask (h, w) bool with a pixel or more."""
    (columns,), (rows,) = mask.any(0).nonzero(), mask.any(1).nonzero()
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]


def coco_content(
    masks: Iterable[tuple[str, np.ndarray]], *, category: str, description: str, license_name: str
) -> dict[str, Any]:
    """What a coco.json holds: a picture and an annotation per mask, numbered from 1; an empty mask has no annotation.

    Args:
        masks: Names of picture files and their masks (h, w) bool.
    """
    pictures: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (name, mask) in enumerate(masks, start=1):
        height, width = mask.shape
        pictures.append({"id": number, "file_name": name, "width": width, "height": height, "license": 1})
        if mask.any():
            found = {"segmentation": encode_mask(mask), "area": int(mask.sum()), "bbox": bounding_box(mask)}
            annotations.append({"id": number, "image_id": number, "category_id": 1} | found | {"iscrowd": 0})
    return {
        "info": {"description": description, "version": "1.0"},
        "licenses": [{"id": 1, "name": license_name, "url": ""}],
        "categories": [{"id": 1, "name": category, "supercategory": ""}],
        "images": pictures,
        "annotations": annotations,
    }
