"""The card of a data set of pairs: what it is, who made the masks, which model, which command, which licence."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.repocard import metadata_load

SIZES = (
    (1000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
)  # as the Hub has them
FLAGS = {"seed": "--seed", "truncation_psi": "--psi", "truncation": "--truncation", "coverage": "--coverage",
         "min_confidence": "--min-confidence", "category": "--category", "label": "--label",
         "batch_size": "--batch-size", "dtype": "--dtype"}  # fmt: skip

TEXT = """
# {count} pictures of the category {category} with alpha, drawn by {model}

Every picture here is synthetic: the StyleGAN2 {model} with weights `{generator_fingerprint}` drew it.
The masks are machine-made and no person has checked them: an alpha network with weights `{alpha_fingerprint}` read
them off that generator while it drew. It learned without labels (Labels4Free, Abdal et al. 2021, arXiv 2103.14968), so
a mask can be wrong, and wrong in the same way in many pictures.

Made with hfgan {version}; the same command gives the same files, and one that was killed goes on. `--model` takes a
bundled name, a Hub id, or the folder in which that model lies:

```bash
{command}
```

## What is in it

| file | what it holds |
|---|---|
| `images/` | pictures, RGB, {side} x {side}; each carries its recipe: `hfgan sample --replay` draws it again |
| `masks/` | 255 where alpha is one half or more, else 0 |
| `alpha/` | soft alpha in 16 bits, 65535 for the foreground |
| `metadata.jsonl` | a line per pair: its files, `seed`, `truncation_psi`, `mode`, `coverage`, `confidence`, weights |
| `coco.json` | the masks as COCO annotations (compressed RLE); names of files are relative to this folder |
| `left_out.jsonl` | the samples that were left out, and why |
| `export.json` | the settings by which the export goes on |

```python
from datasets import load_dataset

pairs = load_dataset("imagefolder", data_dir="THIS FOLDER", split="train")  # image, mask, alpha and the numbers
```

## Size

{count} {pairs} from the seeds {first} to {last}. {left_out} of {seen} samples were left out: {outside} because the
mask covers less than {least:g} or more than {most:g} of the picture, {unsure} because `confidence` is below {bound:g}.

| | least | mean | most |
|---|---|---|---|
| coverage | {coverage} |
| confidence | {confidence} |

`coverage` is the share of the picture that is mask. `confidence` is the Dice coefficient that the mask would have were
alpha the probability of foreground (Soft Dice Confidence, Borges et al. 2024, arXiv 2402.10665): 1 for an alpha of 0
and 1 alone. It is the alpha network's own opinion, and no measure of truth.

## Licence

{licence}
"""
KNOWN = "The card of the model states: {}. What follows from that for pictures that it drew is for you to find out."
UNKNOWN = "Unknown: no card of the model states a licence. Ask who trained it, and on what, before you publish these."


def read_license(card: str | Path | None) -> dict[str, Any]:
    """`license`, `license_name` and `license_link` in the front matter of a model card, as far as they are there.

    Raises:
        ValueError: front matter that is no YAML.
    """
    if card is None or not Path(card).is_file():
        return {}
    try:
        found = metadata_load(card) or {}
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(
            f"the front matter of {card} cannot be read ({' '.join(str(error).split())}): correct it"
        ) from error
    return {key: found[key] for key in ("license", "license_name", "license_link") if found.get(key)}


def license_line(licence: dict[str, Any]) -> str:
    """The licence that `read_license` found, in one line; "unknown" where it found none."""
    names = licence.get("license_name") or licence.get("license") or "unknown"
    link = f" ({licence['license_link']})" if "license_link" in licence else ""
    return (", ".join(map(str, names)) if isinstance(names, list) else str(names)) + link


def command_line(settings: dict[str, Any], num: int) -> str:
    """The `hfgan dataset` that makes the same pairs; DIR stands for the folder."""
    words = ["hfgan", "dataset", "--model", settings["model"] or "MODEL", "--num", str(num)]
    for name, flag in FLAGS.items():
        value = settings[name]
        if value is not None:
            between = ":" if name == "coverage" else ","
            words += [flag, between.join(map(str, value)) if isinstance(value, list) else str(value)]
    return f"{shlex.join(words)} --out DIR"


def data_card(
    settings: dict[str, Any], kept: Sequence[dict[str, Any]], left_out: Sequence[dict[str, Any]],
    licence: dict[str, Any], side: int, version: str,
) -> str:  # fmt: skip
    """The README.md of a data set.

    Args:
        settings: The content of its export.json.
        kept, left_out: The rows of metadata.jsonl and left_out.jsonl.
        licence: What `read_license` found.
        side: Of a picture, in pixels.
        version: Of hfgan.
    """
    category, model = (json.dumps(settings[key] or "unnamed", ensure_ascii=False) for key in ("category", "model"))
    front = (licence or {"license": "unknown"}) | {
        "task_categories": ["image-segmentation"],
        "tags": ["hfgan", "synthetic", "image-matting"],
        "pretty_name": f"{settings['category']}: pictures with alpha",
        "size_categories": [next((name for most, name in SIZES if len(kept) < most), "n>1M")],
    }
    reasons = [row["reason"] for row in left_out]
    text = TEXT.format(
        **{key: settings[key] for key in ("generator_fingerprint", "alpha_fingerprint")},
        count=f"{len(kept):,}", pairs="pair" if len(kept) == 1 else "pairs", category=category, model=model,
        side=side, version=version, command=command_line(settings, len(kept)),
        first=settings["seed"], last=kept[-1]["seed"], left_out=f"{len(left_out):,}",
        seen=f"{len(kept) + len(left_out):,}", outside=f"{reasons.count('coverage'):,}",
        unsure=f"{reasons.count('confidence'):,}", least=settings["coverage"][0], most=settings["coverage"][1],
        bound=settings["min_confidence"], coverage=_spread(kept, "coverage"), confidence=_spread(kept, "confidence"),
        licence=KNOWN.format(license_line(licence)) if licence else UNKNOWN,
    )  # fmt: skip
    said = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=10**6)
    return f"---\n{said}---\n{text.lstrip()}"


def _spread(rows: Sequence[dict[str, Any]], key: str) -> str:
    """Cells of a table: least, mean and most."""
    values = [row[key] for row in rows]
    return " | ".join(f"{value:.3f}" for value in (min(values), sum(values) / len(values), max(values)))
