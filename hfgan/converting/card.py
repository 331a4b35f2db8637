"""The card of a converted model: whose weights it holds, under which licence, and what was done to them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from hfgan import __version__
from hfgan.converting.checkpoints import Converted

UNKNOWN = "unknown"
# licences by the names that the Hub knows; others are recorded as "other" with their own name
HUB = {
    "apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0",
    "cc-by-nd-4.0", "cc-by-3.0", "cc-by-sa-3.0", "cc-by-2.0", "bsd-2-clause", "bsd-3-clause", "gpl-2.0", "gpl-3.0",
    "agpl-3.0", "lgpl-3.0", "openrail", "creativeml-openrail-m", "unlicense", UNKNOWN,
}  # fmt: skip

CARD = """---
{licence}
library_name: hfgan
pipeline_tag: unconditional-image-generation
tags: [hfgan, stylegan2, gan, converted]
---
# {title}

A {resolution} x {resolution} StyleGAN2 with weights {fingerprint}, converted to hfgan from a published checkpoint.
Every picture that it draws is synthetic.

```python
from hfgan import HFGan

images = HFGan.from_pretrained("ID OR FOLDER").sample(4, seed=0).images
```

| part | class | numbers |
|---|---|---|
{parts}

How good the pictures are was not measured here, and the program does not know the photos that the model was trained
on. Whoever publishes it again should say so here, and keep what follows.

## Origin

| | |
|---|---|
| source | {source} |
| licence | {licence_text} |
| file | {file}, {size:,} bytes |
| sha256 | {sha256} |
| format | {format} |
| converted by | hfgan {version}, which changed no number of the weights and ran no code of the file |

{notes}
"""


@dataclass(frozen=True)
class Rights:
    """What its publisher says of a checkpoint.

    Attributes:
        licence: Its name, such as "cc-by-4.0", or "unknown".
        source: Where it was published: an address or a name; None where nobody says.
    """

    licence: str
    source: str | None


def render(converted: Converted, rights: Rights) -> str:
    """The card as text with front matter."""
    gan, origin = converted.gan, converted.origin
    sizes = [(name, part, sum(t.numel() for t in part.state_dict().values())) for name, part in gan.parts.items()]
    return CARD.format(
        licence=front_matter(rights.licence), title=gan.name, resolution=gan.generator.config.resolution,
        fingerprint=gan.generator.fingerprint(), version=__version__, licence_text=_cell(rights.licence),
        parts="\n".join(f"| {name} | {type(part).__name__} | {count:,} |" for name, part, count in sizes),
        source=_cell(rights.source or "not stated"), file=_cell(origin.file), size=origin.size, sha256=origin.sha256,
        format=origin.format, notes="\n".join(f"- {_cell(note)}" for note in origin.notes) or "- Nothing is missing.",
    )  # fmt: skip


def front_matter(licence: str) -> str:
    """The lines of a card's front matter that the Hub reads the licence from."""
    if licence.lower() in HUB:
        return f"license: {licence.lower()}"
    return f"license: other\nlicense_name: {json.dumps(licence)}"


def _cell(text: str) -> str:
    """Text of strangers as one cell of a table: one line, without what marks up."""
    return re.sub(r"[|<>\[\]`*]", " ", " ".join(text.split()))
