"""How well filters find the outliers that are known: area under the ROC curve of manifests' scores, kind by kind.

With --seeds the manifests are of one method, and their mean and standard deviation follow.

python tests/bench/outliers.py runs/filter-*/manifest.jsonl --truth hfaces128-train-truth.zip --column outlier
python tests/bench/outliers.py manifest.jsonl --truth clothing128-train-truth.zip --column label \\
  --outliers "Not sure" Other Skip
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import zipfile
from pathlib import Path

import torch

from hfgan.filtering import read_manifest
from hfgan.metrics import roc_auc

Row = dict[str, float]


def read_truth(path: Path, column: str) -> dict[str, str]:
    """File name to the value of a column of the metadata.csv in a truth zip."""
    with zipfile.ZipFile(path) as archive:
        rows = csv.DictReader(io.TextIOWrapper(archive.open("metadata.csv"), "utf-8"))
        return {row["file"]: row[column] for row in rows}


def areas(scores: torch.Tensor, kinds: list[str], outliers: set[str]) -> Row:
    """Area for all outliers against the inliers, then for each kind alone against the inliers."""
    is_out = torch.tensor([kind in outliers for kind in kinds])
    found = {"all": roc_auc(scores, is_out)}
    for kind in sorted(outliers & set(kinds)):
        chosen = torch.tensor([other == kind or other not in outliers for other in kinds])
        found[kind] = roc_auc(scores[chosen], is_out[chosen])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifests", nargs="+", type=Path)
    parser.add_argument("--truth", type=Path, required=True, help="zip with metadata.csv; for evaluation only")
    parser.add_argument("--column", default="outlier")
    parser.add_argument("--outliers", nargs="*", help="values that are outliers (all that are not empty)")
    parser.add_argument("--seeds", action="store_true", help="add the mean and the deviation over the manifests")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    truth = read_truth(args.truth, args.column)
    rows: dict[str, Row] = {}
    for path in args.manifests:
        lines = list(read_manifest(path))
        kinds = [truth[line["id"]] for line in lines]
        outliers = set(args.outliers) if args.outliers else set(kinds) - {""}
        scores = torch.tensor([line["score"] for line in lines], dtype=torch.float64)
        kept = torch.tensor([line["kept"] for line in lines])
        is_out = torch.tensor([kind in outliers for kind in kinds])
        among = {"among kept": is_out[kept].double().mean().item()}
        rows[str(path.parent)] = areas(scores, kinds, outliers) | among
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    if args.seeds:
        values = torch.tensor([[row[column] for column in columns] for row in rows.values()], dtype=torch.float64)
        rows["mean"] = dict(zip(columns, values.mean(0).tolist(), strict=True))
        rows["deviation"] = dict(zip(columns, values.std(0).tolist(), strict=True))
    print(" " * 28 + "".join(f"{c[:14]:>15}" for c in columns))
    for name, row in rows.items():
        print(f"{name:<28}" + "".join(f"{row.get(c, float('nan')):>15.3f}" for c in columns))
    if args.json:
        args.json.write_text(json.dumps({"truth": args.truth.name, "column": args.column, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
