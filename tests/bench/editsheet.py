"""Held-out photos, inverted and edited, as one picture to look at; and how much changes outside of the region.

    python tests/bench/editsheet.py --model hfaces-64 --photos hfaces128-test.zip --out sheet.png \\
        --set "hair light=2" "background light=2" "long hair=2" "clothes blue=3"

Rows: photos; what is drawn of the subject that is found, after refinement; that edited; edited within the region
alone; the last one pasted back into the photo.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean

import torch
from PIL import Image

from hfgan import HFGan
from hfgan.data import open_photos
from hfgan.images import grid, save_png, to_image, to_pil

SIDE = 128  # px of a cell


def main() -> None:
    """Invert and edit each photo, write the sheet, tell the mean changes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--photos", required=True, help=".zip or folder, held-out")
    parser.add_argument("--set", nargs="+", required=True, metavar="NAME=STRENGTH", help="edits, for photos in turn")
    parser.add_argument("--region", default="alpha", help="alpha or interest")
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--refine", type=int, default=50, help="steps of refinement")
    parser.add_argument("--out", required=True, type=Path, help=".png")
    options = parser.parse_args()
    gan = HFGan.from_pretrained(options.model)
    edits = [(name, float(strength)) for name, _, strength in (one.rpartition("=") for one in options.set)]
    photos = to_pil(to_image(open_photos(options.photos, SIDE).batch(torch.arange(options.count))))
    columns, inside, outside = [], [], []
    for row, photo in enumerate(photos):
        inv = gan.invert(photo, "auto", refine=options.refine)
        edit = dict([edits[row % len(edits)]])
        whole, within = gan.edit(inv, edit), gan.edit(inv, edit, region=options.region)
        [(changed, leaked)] = within.changes()
        inside.append(changed)
        outside.append(leaked)
        columns.append([photo, inv.image, whole.images[0], within.images[0], within.pasted()[0]])
    rows = [cell.convert("RGB") for line in zip(*columns, strict=True) for cell in line]
    cells = [cell.resize((SIDE, SIDE), Image.Resampling.LANCZOS) for cell in rows]
    save_png(grid(cells, options.count), options.out, overwrite=True)
    print(f"mean change of colours in [0, 1]: {mean(inside):.4f} inside, {mean(outside):.6f} outside")


if __name__ == "__main__":
    main()
