"""Photos, inverted with and without a painted obstacle, as one picture to look at.

    python tests/bench/inversionsheet.py --model hfaces-64 --photos hfaces128-test.zip --out sheet.png

Rows: photos; what the encoder draws of the subject that is found; after 50 steps of refinement; the photos behind an
obstacle; what the encoder draws of all but that; after 50 steps.
"""

from __future__ import annotations

import argparse
import colorsys
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from hfgan import HFGan
from hfgan.data import open_photos
from hfgan.images import grid, to_image, to_pil


def obstruct(photo: Image.Image, source: torch.Generator) -> tuple[Image.Image, Image.Image]:
    """A photo behind an ellipse of one colour, and the region, mode L, that it leaves."""
    side = photo.width
    x, y, wide, high, hue = torch.rand(5, generator=source).tolist()
    x, y, wide, high = (
        side * (0.3 + 0.4 * x),
        side * (0.3 + 0.4 * y),
        side * (0.1 + 0.1 * wide),
        side * (0.1 + 0.1 * high),
    )
    box, region = (x - wide, y - high, x + wide, y + high), Image.new("L", photo.size, 255)
    color = tuple(round(255 * value) for value in colorsys.hsv_to_rgb(hue, 0.9, 0.9))
    photo = photo.copy()
    ImageDraw.Draw(photo).ellipse(box, fill=color)
    ImageDraw.Draw(region).ellipse(box, fill=0)
    return photo, region


def main() -> None:
    """Choose photos, invert each four times, write the sheet, tell the mean distances."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--photos", required=True, help=".zip or folder, held-out")
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True, help=".png")
    options = parser.parse_args()
    gan, source = HFGan.from_pretrained(options.model), torch.Generator().manual_seed(options.seed)
    side = gan.generator.config.resolution
    opened = open_photos(options.photos, side, img_channels=3)
    chosen = torch.randperm(len(opened), generator=source)[: options.count]
    photos = to_pil(to_image(opened.batch(chosen)))
    hidden = [obstruct(photo, source) for photo in photos]
    found = {
        "subject": [gan.invert(photo, "auto") for photo in photos],
        "subject, refined": [gan.invert(photo, "auto", refine=50) for photo in photos],
        "behind": [gan.invert(photo, region) for photo, region in hidden],
        "behind, refined": [gan.invert(photo, region, refine=50) for photo, region in hidden],
    }
    rows = [photos, found["subject"], found["subject, refined"], [photo for photo, _ in hidden], found["behind"],
            found["behind, refined"]]  # fmt: skip
    cells = [getattr(cell, "image", cell).convert("RGB") for row in rows for cell in row]
    sheet = grid(cells, len(photos))
    sheet.resize((sheet.width * 96 // side, sheet.height * 96 // side), Image.Resampling.LANCZOS).save(
        Path(options.out)
    )
    for name, inversions in found.items():
        print(f"{name:<18} distance inside {sum(one.distance_inside for one in inversions) / len(inversions):.3f}")


if __name__ == "__main__":
    main()
