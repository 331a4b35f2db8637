"""Held-out photos without the outliers that are known, as a zip to evaluate against.

python tests/bench/clean.py hfaces128-test.zip --truth hfaces128-test-truth.zip --out hfaces128-test-clean.zip
"""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path

from outliers import read_truth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="zip of photos")
    parser.add_argument("--truth", type=Path, required=True, help="zip with metadata.csv; for evaluation only")
    parser.add_argument("--column", default="outlier", help="of the metadata: photos that have anything there go")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    outlier = read_truth(args.truth, args.column)
    with zipfile.ZipFile(args.photos) as whole, zipfile.ZipFile(args.out, "x") as clean:
        kept = [name for name in whole.namelist() if name in outlier and not outlier[name]]
        for name in kept:
            clean.writestr(whole.getinfo(name), whole.read(name))
    print(f"{len(kept)} of {len(outlier)} photos in {args.out}")


if __name__ == "__main__":
    main()
