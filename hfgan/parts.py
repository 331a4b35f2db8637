"""The parts of a model in one folder or Hub repository: which there are, loaded strictly, saved, pushed.

On disk it is a diffusers folder: `model_index.json` and one subfolder per part. The index names public
classes of this package, and nothing else is looked up: it can name no code, and files may move.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from hfgan import __version__
from hfgan.attribution import FILE as ATTRIBUTION
from hfgan.attribution import Calibration
from hfgan.cards import Heritage, heritage, minimal_card
from hfgan.models.alpha import AlphaModel, AlphaNetwork
from hfgan.models.banks import ModeBank
from hfgan.models.base import HFGanModel, parse_dtype
from hfgan.models.directions import DirectionSet
from hfgan.models.discriminator import StyleGAN2Discriminator
from hfgan.models.encoder import InterestEncoder
from hfgan.models.labels4free import Labels4FreeAlpha
from hfgan.models.lucidrains import LucidrainsGenerator
from hfgan.models.matting import MattingNetwork
from hfgan.models.published import PublishedEncoder
from hfgan.models.reconstructor import ReconstructionEncoder
from hfgan.models.stylegan2 import StyleGAN2Generator
from hfgan.storage import fetch_folder, push_folder, read_json, weights_name, write_atomic, write_json

INDEX, CARD = "model_index.json", "README.md"
FORMAT = 1  # of model_index.json
BUNDLED = (
    Path(__file__).parent / "model_cards",
    Path(__file__).parents[1] / "model_cards",
)  # wheel, checkout


@dataclass(frozen=True)
class Part:
    """What a part may be, and the stage of training/train.py that makes one."""

    classes: tuple[type[HFGanModel], ...]
    stage: str


PARTS = {
    "generator": Part((StyleGAN2Generator, LucidrainsGenerator), "generator"),
    "discriminator": Part((StyleGAN2Discriminator,), "generator"),
    "reconstructor": Part((ReconstructionEncoder,), "reconstructor"),
    "encoder": Part((InterestEncoder, PublishedEncoder), "encoder"),
    "modes": Part((ModeBank,), "modes"),
    "alpha": Part((AlphaNetwork, Labels4FreeAlpha), "alpha"),
    "matting": Part((MattingNetwork,), "matting"),
    "directions": Part((DirectionSet,), "directions"),
}


def bundled_models() -> dict[str, Path]:
    """Name and folder of every model that comes with this package."""
    return {path.parent.name: path.parent for root in BUNDLED for path in sorted(root.glob(f"*/{INDEX}"))}


class PartsPipeline(DiffusionPipeline):  # type: ignore[misc]
    """A DiffusionPipeline whose parts are the PARTS; `HFGan` adds what one does with them.

    Raises:
        TypeError: a part of the wrong class, or no generator.
        ValueError: an alpha network, an encoder or directions that were made beside another generator.
    """

    config_name = INDEX
    _optional_components = [name for name in PARTS if name != "generator"]  # noqa: RUF012, as diffusers has it
    inherited = Heritage()  # of the card of the model that this was loaded from
    folder: Path | None = None  # that this was loaded from: no path may go into recipes or cards
    name: str | None = None  # what this was loaded by: bundled name, Hub id, or the folder's own name

    def __init__(
        self,
        *,
        generator: StyleGAN2Generator | LucidrainsGenerator,
        discriminator: StyleGAN2Discriminator | None = None,
        reconstructor: ReconstructionEncoder | None = None,
        encoder: InterestEncoder | PublishedEncoder | None = None,
        modes: ModeBank | None = None,
        alpha: AlphaModel | None = None,
        matting: MattingNetwork | None = None,
        directions: DirectionSet | None = None,
    ) -> None:
        super().__init__()
        given = {"generator": generator, "discriminator": discriminator, "reconstructor": reconstructor,
                 "encoder": encoder, "modes": modes, "alpha": alpha, "matting": matting,
                 "directions": directions}  # fmt: skip
        for name, part in given.items():
            if not isinstance(part, PARTS[name].classes) and (part is not None or name == "generator"):
                wanted = " or ".join(cls.__name__ for cls in PARTS[name].classes)
                raise TypeError(f"{name} is a {type(part).__name__}: expected a {wanted}")
        for net in filter(None, (alpha, encoder, directions)):
            net.check_generator(generator)
        self.register_modules(**given)

    # ---------------------------------------------------------------- what is there

    @property
    def parts(self) -> dict[str, HFGanModel]:
        """The parts that are there, by name."""
        return {name: getattr(self, name) for name in PARTS if getattr(self, name) is not None}

    def part(self, name: str) -> HFGanModel:
        """The part of that name; RuntimeError says which command trains it when it is missing."""
        if name not in PARTS:
            raise ValueError(f"there is no part {name!r}: the parts are {', '.join(PARTS)}")
        if name not in self.parts:
            raise RuntimeError(
                f"this model has no {name}: load one that has, or train it with "
                f"`accelerate launch training/train.py {PARTS[name].stage}`"
            )
        return self.parts[name]

    @property
    def device(self) -> torch.device:
        """Where the generator is."""
        return self.generator.device

    @property
    def dtype(self) -> torch.dtype:
        """What the generator computes in."""
        return self.generator.dtype

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move every part to a device, or have it compute in a dtype; parameters stay fp32."""
        for part in self.parts.values():
            part.to(*args, **kwargs)
        return self

    # ---------------------------------------------------------------- load

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        dtype: str | torch.dtype = "auto",
        device: str | torch.device | None = None,
        revision: str | None = None,
        variant: str | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> Self:
        """Load a bundled model by name, a folder, or a Hub repository.

        Args:
            name_or_path: "hfaces-64", "runs/dogs" or "me/my-gan".
            dtype: What to compute in; "auto" is the faster of bfloat16 and float32 on `device`.
            device: Where to; None is the CPU.
            variant: Which weights files, for instance "fp16".
            revision, local_files_only, token: As in `huggingface_hub.snapshot_download`.

        Raises:
            FileNotFoundError: no such model, revision or file, or only a pickle.
            ValueError: a file that is damaged or does not fit.
        """
        hub = {"revision": revision, "local_files_only": local_files_only, "token": token}
        folder = cls.download(name_or_path, variant=variant, **hub)
        device = device or "cpu"
        how = {"variant": variant, "dtype": parse_dtype(dtype, device), "device": device}
        found = read_index(folder / INDEX)
        gan = cls(**{name: part.from_pretrained(folder, subfolder=name, **how) for name, part in found.items()})
        gan.inherited, gan.folder = heritage(folder / CARD), folder
        # never a whole path: the name goes into recipes and cards
        gan.name = _folder_name(folder) if Path(name_or_path).expanduser().is_dir() else str(name_or_path)
        return gan

    @classmethod
    def download(
        cls,
        name_or_path: str | Path,
        *,
        variant: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> Path:
        """The folder of a model, fetched into the Hub cache where it is not on this disk."""
        bundled, asked = bundled_models(), str(name_or_path)
        if asked in bundled:
            return bundled[asked]
        if "/" not in asked and not Path(asked).is_dir():
            names = ", ".join(bundled) or "there are none"
            raise FileNotFoundError(
                f"{asked!r} is no bundled model ({names}) and no folder here; a Hub id has the form 'me/my-gan'"
            )
        inside = [f"{name}/{file}" for name in PARTS for file in ("config.json", weights_name(variant))]
        hub = {"revision": revision, "local_files_only": local_files_only, "token": token}
        return fetch_folder(name_or_path, [INDEX, CARD, "metrics.json", ATTRIBUTION, *inside], **hub)

    # ---------------------------------------------------------------- save

    def save_pretrained(
        self, directory: str | Path, *, dtype: torch.dtype = torch.float32, variant: str | None = None
    ) -> None:
        """Write every part, the index, and a minimal model card unless the folder has a card.

        That card keeps the licence of the model that this was loaded from, and its section about the origin; the
        calibration of attribution comes along where it is of the same generator.

        Args:
            directory: Folder, made where needed.
            dtype: How tensors are stored, torch.float32 or torch.float16.
            variant: Goes into the names of the weights files, for instance "fp16".
        """
        folder = Path(directory)
        for name, part in self.parts.items():
            part.save_pretrained(folder / name, dtype=dtype, variant=variant)
        classes = {name: ["hfgan", type(part).__name__] for name, part in self.parts.items()}
        head = {"_class_name": "HFGan", "_format": FORMAT, "_hfgan_version": __version__}
        write_json(folder / INDEX, head | classes)
        if not (folder / CARD).exists():
            write_atomic(folder / CARD, minimal_card(self.parts, self.name, self.inherited).encode())
        own = self.folder and self.folder / ATTRIBUTION
        if own and own.is_file() and not (folder / ATTRIBUTION).exists():
            calibration = Calibration.read(own)
            if calibration.protocol.generator == self.generator.fingerprint():  # it tells nothing of another one
                calibration.save(folder / ATTRIBUTION)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        dtype: torch.dtype = torch.float32,
        private: bool | None = None,
        revision: str | None = None,
        commit_message: str | None = None,
        token: str | bool | None = None,
    ) -> str:
        """Upload everything in one commit, creating the repository where needed; returns the commit's URL.

        A model card that the repository already has is left alone.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, dtype=dtype)
            said = {"revision": revision, "commit_message": commit_message}
            return push_folder(folder, repo_id, private=private, token=token, **said)


def _folder_name(folder: Path) -> str:
    """What to call a model in a folder: that folder's name, with the run's where every run has a `model`."""
    path = folder.resolve()
    return f"{path.parent.name}/model" if path.name == "model" else path.name


def read_index(path: Path) -> dict[str, type[HFGanModel]]:
    """Part names and classes in a model_index.json; ValueError for anything that PARTS does not list."""
    index = read_json(path)
    if index.get("_class_name") != "HFGan":
        raise ValueError(f"{path} describes a {index.get('_class_name')}, not an HFGan: load it with its own library")
    if index.get("_format", FORMAT) != FORMAT:
        raise ValueError(f"{path} has format {index['_format']!r} and not {FORMAT}: upgrade hfgan")
    entries = {name: entry for name, entry in index.items() if name[:1] != "_" and entry != [None, None]}
    if "generator" not in entries:
        raise ValueError(f"{path} lists no generator: save the model again")
    return {name: _class_of(name, entry, path) for name, entry in entries.items()}


def _class_of(name: str, entry: Any, path: Path) -> type[HFGanModel]:
    """The class that an entry such as ["hfgan", "StyleGAN2Generator"] of the index names."""
    if name not in PARTS:
        raise ValueError(f"{path} has an unknown part {name!r}, expected {', '.join(PARTS)}: upgrade hfgan")
    for cls in PARTS[name].classes:
        if entry == ["hfgan", cls.__name__]:
            return cls
    wanted = " or ".join(f'["hfgan", "{cls.__name__}"]' for cls in PARTS[name].classes)
    raise ValueError(f"{path} has {name}: {entry!r}, expected {wanted}: upgrade hfgan or save the model again")
