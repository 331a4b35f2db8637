"""Directions from files: other people's, of which only the numbers are read, and our own.

What others publish is a vector of whatever length: a boundary of InterFaceGAN has norm 1, the same row for all of 18
layers norm 4.2, and GANSpace has deviations beside its components. Here strength 1 is one deviation of W along it,
whatever its norm was.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from hfgan.models.directions import Direction, DirectionSet, WStats
from hfgan.models.stylegan2 import StyleGAN2Generator
from hfgan.pickles import read_pickle
from hfgan.storage import PICKLES, read_npy, read_tagged, write_atomic

ROWS = (None, "shared", "per-layer")
FORMAT = "hfgan-directions"  # in the texts of a .safetensors file that holds them alone
PICKLE = b"\x80"  # how pickles begin
GANSPACE = ("lat_comp", "lat_stdev", "lat_mean")


def read_directions(
    path: str | Path, generator: StyleGAN2Generator, *, rows: str | None = None, name: str | None = None,
    sigma: float | None = None,
) -> list[Direction]:  # fmt: skip
    """The directions in a file, for a generator; no code in it is run.

    - `.npy`: (w_dim,), (1, w_dim), (num_ws, w_dim) or (1, num_ws, w_dim), as of InterFaceGAN.
    - `.npz` of GANSpace with lat_comp, lat_stdev and lat_mean: "NAME-0", "NAME-1", ...
    - `.pt`, `.pkl`: a tensor of the shapes above, as of encoder4editing; {"eigvec": (w_dim, k)}, one a column; a
      component that GANSpace exported.
    - `.safetensors` of `write_directions`, or a folder with the part `directions` of a model.

    Args:
        rows: What an array of several rows is: "shared", one row repeated; "per-layer", one for each layer; None for
            the first where the rows are equal.
        name: By default that of the file.
        sigma: How far strength 1 goes; None for the deviation of this generator's w (GANSpace's own in a .npz).

    Raises:
        FileNotFoundError, ValueError: what is wrong with which file, or directions of another generator.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: expected directions as .npy, .npz, .pt, .pkl or .safetensors")
    if rows not in ROWS or not (sigma is None or 0 < sigma < 1e6):
        raise ValueError(f"rows is {rows!r} and sigma {sigma!r}: expected shared or per-layer, and a positive number")
    if path.is_dir() or path.suffix == ".safetensors":
        if rows is not None or sigma is not None:
            raise ValueError(f"{path} says itself what its rows are and how far strength 1 goes: leave both out")
        return _named(_read_ours(path, generator), name)
    sigmas = mean = limits = None
    if path.suffix == ".npz":
        vectors, sigmas, mean = _read_ganspace(path)
    elif path.suffix == ".npy":
        vectors = [_read_array(path)]
    elif path.suffix in PICKLES:
        vectors, sigmas, limits = _read_pickled(path)
    else:
        raise ValueError(f"{path} is no .npy, .npz, .pt, .pkl or .safetensors: save the vector with numpy.save")
    stats, fingerprint = WStats.of(generator), generator.fingerprint()
    mean = stats.mean if mean is None else mean
    directions = []
    for k, vector in enumerate(vectors):
        layers = _as_rows(vector, path, generator, rows)
        own = sigma if sigma is not None or sigmas is None else sigmas[k].item()
        source = {"method": "imported", "file": path.name, "norm": round(layers.norm().item(), 6)}
        one = _in_deviations(layers, stats, mean, own)
        directions.append(replace(one, fingerprint=fingerprint, source=source, layers=limits))
    return _named(directions, path.stem if name is None else name)


def write_directions(path: str | Path, directions: DirectionSet) -> None:
    """Write directions as one .safetensors file, which `read_directions` reads."""
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path.name} does not end in .safetensors: give it that ending")
    tensors = {key: value.detach().cpu().contiguous() for key, value in directions.state_dict().items()}
    keys = ("num_directions", "w_dim", "num_ws", "entries", "generator_fingerprint")
    config = json.dumps({key: directions.config[key] for key in keys})
    write_atomic(path, save(tensors, {"format": FORMAT, "config": config}))


def _named(directions: list[Direction], name: str | None) -> list[Direction]:
    """The same under a name, numbered where there are several; as they were for None."""
    if name is None:
        return directions
    many = len(directions) > 1
    return [one.named(f"{name}-{k}" if many else name) for k, one in enumerate(directions)]


# ---------------------------------------------------------------- files


def _read_ours(path: Path, generator: StyleGAN2Generator) -> list[Direction]:
    """The directions in a file of `write_directions`, or in a folder of the part or of the model."""
    if path.is_dir():
        inside = path / "directions"
        found = DirectionSet.from_pretrained(inside if inside.is_dir() else path)
    else:
        tensors, texts = read_tagged(path)
        if texts.get("format") != FORMAT:
            raise ValueError(f"{path} holds no directions: give one of write_directions, or the folder of a model")
        try:
            found = DirectionSet(**json.loads(texts["config"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} does not describe its directions ({error}): write it again") from error
        found._fill(tensors, path)
    found.check_generator(generator)
    return list(found)


def _read_array(path: Path) -> Tensor:
    """The array in a .npy file of floating point numbers."""
    try:
        return read_npy(path)
    except ValueError as error:
        if error.__cause__ is None:  # it was opened, and holds something else
            raise
        raise _refusal(path, error.__cause__) from error


def _refusal(path: Path, error: BaseException) -> ValueError:
    """What to say of a file that numpy does not open, without its own advice, which is to trust pickle."""
    if isinstance(error, OSError) and error.errno:
        return ValueError(f"{path} cannot be read: {error.strerror}")
    with open(path, "rb") as file:
        pickled = file.read(1) == PICKLE or "Object arrays" in str(error)
    what = "holds pickled objects, which are never opened" if pickled else f"is damaged or no {path.suffix} of numpy"
    return ValueError(f"{path} {what}: save plain numbers with numpy.save{'z' if path.suffix == '.npz' else ''}")


def _read_ganspace(path: Path) -> tuple[list[Tensor], Tensor, Tensor]:
    """Components (1, w_dim) of a .npz of GANSpace, their deviations (k,) and the mean (w_dim,)."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {key: torch.from_numpy(arrays[key].astype(np.float32)) for key in GANSPACE if key in arrays}
    except Exception as error:  # a foreign file: numpy raises anything from EOFError to BadZipFile
        raise _refusal(path, error) from error
    if missing := [key for key in GANSPACE if key not in found]:
        raise ValueError(f"{path} has no {', '.join(missing)}: expected components of W as GANSpace saves them")
    components, sigmas, mean = (found[key] for key in GANSPACE)
    if components.ndim != 3 or sigmas.shape != components.shape[:1] or mean.numel() != components.shape[2]:
        shapes = ", ".join(f"{key} {list(array.shape)}" for key, array in found.items())
        raise ValueError(f"{path} holds {shapes}: expected (k, 1, w_dim), (k,) and (1, w_dim)")
    if not mean.isfinite().all() or not ((sigmas > 0) & sigmas.isfinite()).all():
        raise ValueError(f"{path} holds deviations that are not positive, or infinity: save it again")
    return list(components), sigmas, mean.flatten()


def _read_pickled(path: Path) -> tuple[list[Tensor], Tensor | None, tuple[int, ...] | None]:
    """The vectors in a checkpoint, read as data; of one that GANSpace exported its deviation (1,) and layers, too."""
    found = read_pickle(path)
    held = found if isinstance(found, dict) else {}
    if isinstance(held.get("lat_comp"), Tensor):
        first, last, sigma = (held.get(key) for key in ("edit_start", "edit_end", "lat_stdev"))
        ranged = isinstance(first, int) and isinstance(last, int) and 0 <= first < last <= 64
        known = isinstance(sigma, int | float | Tensor) and 0 < float(torch.as_tensor(sigma).flatten()[0]) < 1e6
        layers = tuple(range(first, last)) if ranged else None
        return [held["lat_comp"]], torch.as_tensor(sigma).double().flatten()[:1] if known else None, layers
    eigvec = held.get("eigvec")
    if isinstance(eigvec, Tensor) and eigvec.ndim == 2 and eigvec.is_floating_point():
        return list(eigvec.T), None, None
    if not isinstance(found, Tensor) or not found.is_floating_point():
        kind = f"a {found.dtype} tensor" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        wanted = "a floating point tensor, or a dict with eigvec (w_dim, k) or lat_comp"
        raise ValueError(f"{path} holds {kind}: expected {wanted}")
    return [found], None, None


# ---------------------------------------------------------------- numbers


def _as_rows(array: Tensor, path: Path, generator: StyleGAN2Generator, rows: str | None) -> Tensor:
    """An array as (1, w_dim), the same for every layer, or (num_ws, w_dim)."""
    num_ws, w_dim = generator.num_ws, generator.config.w_dim
    found = array.double()
    found = found[0] if found.ndim == 3 and len(found) == 1 else found
    found = found[None] if found.ndim == 1 else found
    if found.ndim != 2 or found.shape[1] != w_dim or not len(found):
        wanted = f"({w_dim},), (1, {w_dim}) or ({num_ws}, {w_dim}) for this model"
        raise ValueError(f"{path} holds an array of shape {list(array.shape)}: expected {wanted}")
    if not found.isfinite().all() or not found.any():
        raise ValueError(f"{path} holds NaN, infinity or only zeros: this is no direction")
    equal = (found == found[:1]).all()
    if equal and rows != "per-layer":
        return found[:1]
    if rows == "shared":
        raise ValueError(f"{path} has {len(found)} rows that differ: rows='shared' is for one that is repeated")
    if len(found) != num_ws:
        raise ValueError(f"{path} has {len(found)} rows, one for each layer: this model has {num_ws} layers")
    return found


def _in_deviations(rows: Tensor, stats: WStats, mean: Tensor, sigma: float | None) -> Direction:
    """A direction without a name: rows (1 or num_ws, w_dim) to length 1 on average, times the deviation along them.

    It is measured along itself, 0 at the mean (w_dim,), where all layers share one row.
    """
    unit = rows / rows.square().sum(1).mean().sqrt()
    if sigma is None:
        sigma = torch.einsum("ld,de,le->l", unit, stats.cov, unit).mean().sqrt().item()
    normal = unit[0] / sigma if len(unit) == 1 else None
    offset = 0.0 if normal is None else (normal @ mean.double()).item()
    return Direction("imported", unit * sigma, normal, offset, None, "imported")
