"""Published checkpoints to models of ours: which format a file has, and all parts that can be made of it.

Files are read as data (`hfgan.pickles`); nothing in them is run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hfgan.converting import exporting, nvidia, rosinality, tensorflow
from hfgan.converting.alphas import is_labels4free, read_alpha
from hfgan.converting.encoders import decoder_state, is_encoder, read_encoder
from hfgan.converting.lucidrains import is_lucidrains, read_lucidrains
from hfgan.converting.networks import sampled_w
from hfgan.importing import read_directions
from hfgan.models.base import HFGanModel
from hfgan.models.directions import DirectionSet
from hfgan.models.stylegan2 import StyleGAN2Generator
from hfgan.modes import ModeBank, make_bank, read_centers
from hfgan.pickles import UnsafePickle, read_pickle
from hfgan.pipeline import HFGan

LABELS4FREE = "Labels4Free, with a generator of rosinality's layout"
ENCODER = "pSp, e4e or ReStyle, with a generator of rosinality's layout"
LUCIDRAINS = "lucidrains stylegan2-pytorch"
SAMPLES = 60_000  # w behind the counts of imported centers
OTHERS = {"dill": "as StyleGAN-XL's files do, whose generator is another network"}
KNOWN = (
    "StyleGAN2 of NVIDIA (PyTorch .pkl or TensorFlow .pkl), rosinality, pSp, e4e, ReStyle, Labels4Free, lucidrains or "
    "`hfgan export`"
)


@dataclass(frozen=True)
class Origin:
    """Where a model comes from.

    Attributes:
        file, size, sha256: Name, bytes and checksum of the checkpoint.
        format: Which program's it is.
        notes: Sentences: what was estimated, left out or added.
    """

    file: str
    size: int
    sha256: str
    format: str
    notes: list[str]


@dataclass(frozen=True)
class Converted:
    """A model of ours, and where it comes from."""

    gan: HFGan
    origin: Origin


def convert(
    file: str | Path, *, centers: str | Path | None = None, directions: Sequence[str | Path] = (),
    encoder: str | Path | None = None, alpha: str | Path | None = None,
) -> Converted:  # fmt: skip
    """Make a model of a published checkpoint, in fp32; no number of it is changed, and no code in it is run.

    Args:
        file: .pkl or .pt with a generator, or what `hfgan export generator` wrote.
        centers: Cluster centers for it, see `modes.read_centers`.
        directions: Files with directions for it, see `importing.read_directions`.
        encoder: A checkpoint of pSp, e4e or ReStyle for it.
        alpha: A checkpoint of Labels4Free for it.

    Raises:
        FileNotFoundError: no such file. UnsafePickle: a file that names what is no data.
        ValueError: an unknown or damaged file, or one that does not fit; the sentence says what.
    """
    file, notes = Path(file), []
    with _about(file):
        found = _read(file)
        parts, written = _parts(found, notes)
    generator = parts["generator"]
    if encoder is not None:
        with _about(encoder):
            parts["encoder"] = _encoder_for(generator, _read(encoder), notes)
    if alpha is not None:
        with _about(alpha):
            parts["alpha"] = read_alpha(_read(alpha), generator, notes)
    if centers is not None:
        parts["modes"] = _modes_for(generator, centers, notes)
    if directions:
        known = [one for path in directions for one in read_directions(path, generator)]
        parts["directions"] = DirectionSet.of(known, generator)
    gan = HFGan(**parts)
    gan.name = file.stem
    return Converted(gan, Origin(file.name, file.stat().st_size, checksum(file), written, notes))


def checksum(file: Path) -> str:
    """The sha256 of a file."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _about(file: str | Path) -> Iterator[None]:
    """Errors inside begin with the name of a file."""
    try:
        yield
    except UnsafePickle as error:
        for word, said in OTHERS.items():
            if f"names '{word}" in str(error):
                raise UnsafePickle(f"{error}. It is written with {word}, {said}") from error
        raise
    except (LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{file} is damaged ({error!r:.200}): download it again") from error
    except ValueError as error:
        if str(file) in str(error):
            raise
        said = " ".join(str(error).split())
        raise ValueError(f"{file} {said}{'' if said.endswith('.') else '.'} Nothing was written") from error


def _read(file: str | Path) -> Any:
    """What a checkpoint holds."""
    return exporting.read(Path(file)) if Path(file).suffix == ".safetensors" else read_pickle(file)


def _parts(found: Any, notes: list[str]) -> tuple[dict[str, HFGanModel], str]:
    """The parts of a model that a checkpoint holds, and the name of its format."""
    if is_encoder(found):
        generator = rosinality.read_generator(decoder_state(found), found.get("latent_avg"), notes)
        return {"generator": generator, "encoder": read_encoder(found, generator, notes)}, ENCODER
    if is_lucidrains(found):
        return {"generator": read_lucidrains(found, notes)}, LUCIDRAINS
    for known, read in READERS:
        if known(found):
            generator, discriminator, written = read(found, notes)
            parts = {"generator": generator, "discriminator": discriminator}
            if is_labels4free(found):
                parts["alpha"], written = read_alpha(found, generator, notes), LABELS4FREE
            return {name: part for name, part in parts.items() if part is not None}, written
    held = ", ".join(f"{key!r:.40}" for key in list(found)[:8]) if isinstance(found, dict) else type(found).__name__
    raise ValueError(f"holds {held or 'nothing'}: expected a checkpoint of {KNOWN}")


Known, Read = Callable[[Any], bool], Callable[..., tuple[Any, Any, str]]
READERS: list[tuple[Known, Read]] = [
    (nvidia.is_nvidia, nvidia.read_nvidia),
    (tensorflow.is_tensorflow, tensorflow.read_tensorflow),
    (exporting.is_nvidia_tensors, exporting.read_nvidia_tensors),
    (rosinality.is_rosinality, rosinality.read_rosinality),
]


# ---------------------------------------------------------------- parts from files of their own


def _encoder_for(generator: HFGanModel, found: Any, notes: list[str]) -> HFGanModel:
    """An encoder; it must have been trained beside this generator, which its file holds too."""
    if not is_encoder(found):
        raise ValueError("holds no encoder: expected a checkpoint of pSp, e4e or ReStyle with encoder.* tensors")
    beside = rosinality.read_generator(decoder_state(found), found.get("latent_avg"), [])
    if not isinstance(generator, StyleGAN2Generator) or not _same_weights(generator, beside):
        raise ValueError("was trained beside a generator with other weights: give the checkpoint of that generator")
    return read_encoder(found, generator, notes)


def _same_weights(a: StyleGAN2Generator, b: StyleGAN2Generator) -> bool:
    """Whether two generators have the same parameters, up to rounding to fp16."""
    ours, theirs = dict(a.named_parameters()), dict(b.named_parameters())
    return ours.keys() == theirs.keys() and all(
        tensor.shape == theirs[name].shape and torch.allclose(tensor, theirs[name], rtol=2e-3, atol=1e-5)
        for name, tensor in ours.items()
    )


def _modes_for(generator: HFGanModel, centers: str | Path, notes: list[str]) -> ModeBank:
    """Modes of imported centers; how many samples each has is counted anew."""
    notes.append(f"How many samples each mode has was counted anew, over {SAMPLES:,} with seed 0.")
    return make_bank(generator, sampled_w(generator, SAMPLES), read_centers(centers))
