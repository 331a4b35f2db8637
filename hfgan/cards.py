"""The model card that is written where nobody wrote one, and what it keeps of the card of the model it came from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hfgan import __version__
from hfgan.models.base import HFGanModel

MINIMAL_CARD = """---
{licence}library_name: hfgan
pipeline_tag: unconditional-image-generation
tags: [hfgan, stylegan2, gan]
---
# {title}

A {resolution} x {resolution} StyleGAN2 with weights {fingerprint}, saved by hfgan {version}.
Every picture that it draws is synthetic.

```python
from hfgan import HFGan

images = HFGan.from_pretrained("ID OR FOLDER").sample(4, seed=0).images
```

Parts: {parts}.

{known}
{origin}"""
UNKNOWN = """This card was written by the program, which knows neither the photos that the model was trained on, nor
their licence, nor how good the pictures are. Whoever publishes the model should say so here."""
KNOWN = """This card was written by the program, which knows neither the photos that the model was trained on nor how
good the pictures are: whoever publishes the model should say so here. The licence is that of what it was made of."""
ORIGIN = "## Origin"


@dataclass(frozen=True)
class Heritage:
    """What a card hands on to the card of a model that was made of its model.

    Attributes:
        licence: Lines of the front matter.
        origin: The section about whose weights they are; "" for none.
    """

    licence: str = ""
    origin: str = ""


def heritage(path: Path) -> Heritage:
    """That of a card, if there is one."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    front = re.match(r"---\n(.*?\n)---\n", text, re.DOTALL)
    lines = re.findall(r"^license(?:_name|_link)?:.*\n", front[1] if front else "", re.MULTILINE)
    section = re.search(rf"^{ORIGIN}\n.*?(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    return Heritage("".join(lines), f"\n{section[0]}" if section else "")


def minimal_card(parts: Mapping[str, HFGanModel], name: str | None, inherited: Heritage) -> str:
    """The card of a model with these parts."""
    generator = parts["generator"]
    return MINIMAL_CARD.format(
        title=name or "A StyleGAN2", resolution=generator.config.resolution, version=__version__,
        fingerprint=generator.fingerprint(), licence=inherited.licence, origin=inherited.origin,
        parts=", ".join(f"{name} ({type(part).__name__})" for name, part in parts.items()),
        known=KNOWN if inherited.licence else UNKNOWN,
    )  # fmt: skip
