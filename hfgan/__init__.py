"""HFGan: a StyleGAN2 toolkit behind one facade.

Public names are resolved on first use (PEP 562), so `import hfgan` loads neither torch nor diffusers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# public name -> the module that defines it
_HOME = {
    "AlphaNetwork": "models.alpha",
    "Cutout": "segmentation",
    "Direction": "models.directions",
    "DirectionSet": "models.directions",
    "Edit": "editing",
    "EditOutput": "editing",
    "HFGan": "pipeline",
    "HFGanModel": "models.base",
    "InterestEncoder": "models.encoder",
    "Inversion": "inversion",
    "Labels4FreeAlpha": "models.labels4free",
    "LucidrainsGenerator": "models.lucidrains",
    "MattingNetwork": "models.matting",
    "ModeBank": "models.banks",
    "PublishedEncoder": "models.published",
    "ReconstructionEncoder": "models.reconstructor",
    "SampleOutput": "drawing",
    "StyleGAN2Discriminator": "models.discriminator",
    "StyleGAN2Generator": "models.stylegan2",
    "WStats": "models.directions",
    "bundled_models": "parts",
    "convert": "converting.checkpoints",
}
__all__ = ["__version__", *sorted(_HOME)]

if TYPE_CHECKING:
    from hfgan.converting.checkpoints import convert as convert
    from hfgan.drawing import SampleOutput as SampleOutput
    from hfgan.editing import Edit as Edit
    from hfgan.editing import EditOutput as EditOutput
    from hfgan.inversion import Inversion as Inversion
    from hfgan.models.alpha import AlphaNetwork as AlphaNetwork
    from hfgan.models.banks import ModeBank as ModeBank
    from hfgan.models.base import HFGanModel as HFGanModel
    from hfgan.models.directions import Direction as Direction
    from hfgan.models.directions import DirectionSet as DirectionSet
    from hfgan.models.directions import WStats as WStats
    from hfgan.models.discriminator import StyleGAN2Discriminator as StyleGAN2Discriminator
    from hfgan.models.encoder import InterestEncoder as InterestEncoder
    from hfgan.models.labels4free import Labels4FreeAlpha as Labels4FreeAlpha
    from hfgan.models.lucidrains import LucidrainsGenerator as LucidrainsGenerator
    from hfgan.models.matting import MattingNetwork as MattingNetwork
    from hfgan.models.published import PublishedEncoder as PublishedEncoder
    from hfgan.models.reconstructor import ReconstructionEncoder as ReconstructionEncoder
    from hfgan.models.stylegan2 import StyleGAN2Generator as StyleGAN2Generator
    from hfgan.parts import bundled_models as bundled_models
    from hfgan.pipeline import HFGan as HFGan
    from hfgan.segmentation import Cutout as Cutout


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'hfgan' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"hfgan.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
