"""Modes: clusters of w with a center each, and what multi-modal truncation needs of them.

w' = c + psi (w - c), with c the center of the mode nearest to w, keeps a sample typical of its own kind, where
truncation toward the one mean makes all alike (Mokady et al. 2022, Self-Distilled StyleGAN, arXiv 2202.12211).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hfgan import sampling
from hfgan.images import on_white, to_image, to_pixels
from hfgan.memory import net_at_once
from hfgan.metrics import resize
from hfgan.models.banks import ASSIGNMENTS, MAX_MODES, SPACES, ModeBank, whitening_scale
from hfgan.models.perceptual import Perceptual
from hfgan.models.stylegan2 import StyleGAN2Generator
from hfgan.pickles import Record, read_pickle
from hfgan.storage import read_npy, read_tensors

TRUNCATIONS = ("global", "multimodal", "none")
NEIGHBOURS = 32  # samples whose mean is a center
REPAIRS = 20  # rounds
LEAST_TEMPERATURE = 1e-4  # of centers that come twice; half precision can hold it
ROWS = 4096  # compared with all centers at once
CHUNK = 64  # z mapped at once in search of a mode
BATCH = 32  # images at once, at most
MAX_PREVIEW = 128  # px
SEEN_SIZE = 64  # px at which images are compared
MODE_STREAM = 0x9E3779B9  # keeps the choice of a mode apart from the seed's own z

Mode = int | str | Sequence[float] | None
ToW = Callable[[Tensor], Tensor]  # z (n, z_dim) -> w (n, w_dim)
Nearest = Callable[[Tensor], Tensor]  # w (n, w_dim) -> modes (n,) int64


# ---------------------------------------------------------------- find the modes


def fit_modes(w: Tensor, num_modes: int, *, space: str = "w", features: Tensor | None = None, seed: int = 0) -> Tensor:
    """Centers (k, w_dim) of k clusters of samples w (n, w_dim), none of them empty, the same for the same seed.

    k-means; then each centroid, which may lie off the manifold, gives way to the mean of the 32 members nearest to it.

    Args:
        w: n samples; 60,000 are usual.
        num_modes: k, 1 to 10,000 and at most n.
        space: Where to look for clusters: "w"; "whitened", w with deviation 1 in every dimension; "features".
        features: (n, d), embeddings of the images of w, for the space "features".
        seed: Of the first centroids.

    Raises:
        ValueError: an unknown space, or more modes than there are different samples.
    """
    most = min(len(w), MAX_MODES)
    if sampling.check_count(num_modes, "num_modes") > most:
        raise ValueError(f"num_modes is {num_modes}: expected at most {most:,} for {len(w):,} samples")
    if space not in SPACES or (features is None) == (space == "features"):
        raise ValueError(f"space is {space!r}: expected one of {', '.join(SPACES)}, and features with the last only")
    scale = whitening_scale(w.std(0, correction=0)) if space == "whitened" else 1.0
    points = w / scale if features is None else features
    labels, distances = _cluster(points, num_modes, seed)
    return _fill_empty(w, _mean_of_nearest(w, labels, distances, num_modes), scale)


def _cluster(points: Tensor, num_modes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Cluster (n,) int64 of each of the points (n, d), and its squared distance (n,) from the centroid."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    # mini-batches are ten times as fast, but leave clusters of one or no sample
    means = KMeans(num_modes, n_init=1, random_state=seed)
    with threadpool_limits(1):  # one order of summing, whatever the number of cores
        means.fit(points.numpy())
    labels, centroids = torch.from_numpy(means.labels_).long(), torch.from_numpy(means.cluster_centers_)
    return labels, (points - centroids[labels]).square().sum(1)


def _mean_of_nearest(w: Tensor, labels: Tensor, distances: Tensor, num_modes: int) -> Tensor:
    """Mean (k, w_dim) of each cluster's NEIGHBOURS members of least distance; zero for an empty one."""
    order = distances.argsort(stable=True)
    order = order[labels[order].argsort(stable=True)]  # cluster by cluster, nearest members first
    counts = labels.bincount(minlength=num_modes)
    rank = torch.arange(len(w)) - (counts.cumsum(0) - counts)[labels[order]]
    near = order[rank < NEIGHBOURS]
    sums = torch.zeros(num_modes, w.shape[1], dtype=torch.float64).index_add_(0, labels[near], w[near].double())
    return (sums / counts.clamp(1, NEIGHBOURS).unsqueeze(1)).float()


def _fill_empty(w: Tensor, centers: Tensor, scale: Tensor | float) -> Tensor:
    """Move every center (k, w_dim) that no w is nearest to onto the w that is farthest from its own center."""
    for _ in range(REPAIRS):
        nearest = nearest_l2(w, centers, scale)
        empty = nearest.bincount(minlength=len(centers)) == 0
        if not empty.any():
            return centers
        far = ((w - centers[nearest]) / scale).square().sum(1).topk(int(empty.sum()))
        if far.values[0] == 0:
            break
        centers = centers.clone()
        centers[empty] = w[far.indices]
    raise ValueError(f"the {len(w):,} samples are too alike for {len(centers):,} modes: ask for fewer")


def make_bank(
    generator: StyleGAN2Generator, w: Tensor, centers: Tensor, *, space: str = "w", assignment: str = "l2"
) -> ModeBank:
    """The modes of these centers (k, w_dim), in order of how many of the samples w (n, w_dim) are nearest to them.

    The temperature is the median of what the second nearest center is farther than the nearest, squared.
    """
    if centers.ndim != 2 or centers.shape[1] != generator.config.w_dim:
        given, wanted = list(centers.shape), f"(k, {generator.config.w_dim})"
        raise ValueError(f"centers of shape {given} do not fit this model: expected {wanted}, found in its own w")
    resolution, channels = generator.config.resolution, generator.config.img_channels
    bank = ModeBank(
        num_modes=len(centers), w_dim=centers.shape[1], img_channels=channels,
        preview_size=min(resolution, MAX_PREVIEW), space=space, assignment=assignment,
    )  # fmt: skip
    bank.w_std.copy_(w.std(0, correction=0))
    counts = nearest_l2(w, centers, bank.scale).bincount(minlength=len(centers))
    order = counts.argsort(descending=True, stable=True)
    bank.centers.copy_(centers[order])
    bank.counts.copy_(counts[order])
    if len(centers) > 1:
        nearest = [rows.topk(2, largest=False).values for rows in squared_distances(w, centers, bank.scale)]
        bank.temperature.copy_(torch.cat(nearest).diff(dim=1).median().clamp(min=LEAST_TEMPERATURE))
    bank.previews.copy_(torch.cat([to_pixels(image) for image in _previews(generator, bank)]))
    return bank.eval().requires_grad_(False)


@torch.no_grad()
def _previews(generator: StyleGAN2Generator, bank: ModeBank) -> Iterator[Tensor]:
    """Images (n, c, s, s) of the centers, batch by batch."""
    for centers in bank.centers.to(generator.device).split(net_at_once(generator, BATCH)):
        image = generator.synthesis(sampling.broadcast(centers, generator.num_ws), "const")
        yield resize(image, bank.config.preview_size)


# ---------------------------------------------------------------- the nearest mode


def squared_distances(w: Tensor, centers: Tensor, scale: Tensor | float = 1.0) -> Iterator[Tensor]:
    """Squared distances (m, k) of rows w (n, d) from centers (k, d), m rows at a time, divided by scale (d,)."""
    middle = centers.mean(0)  # without it rounding grows with the distance from the origin
    c = (centers - middle) / scale  # (k, d)
    for rows in w.split(ROWS):
        x = (rows - middle) / scale  # (m, d)
        yield (x.square().sum(1, keepdim=True) + c.square().sum(1) - 2 * x @ c.T).clamp(min=0)


def nearest_l2(w: Tensor, centers: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """Index (n,) int64 of the nearest of centers (k, d) to each row of w (n, d), distances in units of scale (d,)."""
    return torch.cat([rows.argmin(1) for rows in squared_distances(w, centers, scale)])


def nearest_mode(w: Tensor, bank: ModeBank) -> Tensor:
    """Index (n,) int64 of the mode nearest to each row of w (n, w_dim), in the unit of the space it was found in."""
    return nearest_l2(w, bank.centers, bank.scale)


def perceptual_points(images: Tensor, net: Perceptual) -> Tensor:
    """Points (n, d) of images (n, c, h, w) in [-1, 1], at 64 px: |p(a) - p(b)|^2 = net.distance(a, b).

    The distance is a sum over layers of means over positions, so each layer is divided by the root of its positions.
    """
    units = net.weighted_units(net.features(resize(on_white(images), SEEN_SIZE)))
    return torch.cat([u.flatten(1) / math.sqrt(u.shape[-2] * u.shape[-1]) for u in units], dim=1)


class PerceptualModes:
    """Finds the mode whose picture looks most like an image; the modes' own points are computed once."""

    @torch.no_grad()
    def __init__(self, bank: ModeBank, net: Perceptual) -> None:
        self.net, self.size, self.fingerprint = net, bank.config.preview_size, bank.fingerprint()
        previews = to_image(bank.previews).split(BATCH)
        self.points = torch.cat([perceptual_points(images, net) for images in previews])  # (k, d)

    @torch.no_grad()
    def nearest(self, images: Tensor) -> Tensor:
        """Index (n,) int64 of the nearest mode of images (n, c, r, r) in [-1, 1], in one matrix product."""
        return nearest_l2(perceptual_points(resize(images, self.size), self.net), self.points)


# ---------------------------------------------------------------- the way between modes


def soft_centers(w: Tensor, centers: Tensor, temperature: Tensor | float, scale: Tensor | float = 1.0) -> Tensor:
    """Centers (n, w_dim) that follow w without jumps: sum_i c_i softmax_i(-|w - c_i|^2 / temperature)."""
    return torch.cat([(-d / temperature).softmax(1) @ centers for d in squared_distances(w, centers, scale)])


def centers_between(w: Tensor, ends: Tensor, bank: ModeBank) -> Tensor:
    """Centers (n, w_dim) along a way w (n, w_dim) from one mode to another: `ends` (2, w_dim) exactly at its ends.

    Soft centers, moved by what they lack at the ends, in proportion.
    """
    soft = soft_centers(w, bank.centers, bank.temperature, bank.scale)
    lacking = ends - soft[[0, -1]]  # (2, w_dim)
    return soft + torch.lerp(lacking[:1], lacking[1:], torch.linspace(0, 1, len(w)).to(w).unsqueeze(1))


# ---------------------------------------------------------------- choose a mode for each sample


def parse_truncation(truncation: str | None, mode: Mode) -> str:
    """One of TRUNCATIONS; None is "multimodal" where a mode is given and "global" where none is."""
    if truncation is None:
        return "global" if mode is None else "multimodal"
    if truncation not in TRUNCATIONS:
        raise ValueError(f"truncation is {truncation!r}: expected {', '.join(map(repr, TRUNCATIONS))} or None")
    if truncation == "global" and mode is not None:
        raise ValueError(f"truncation is 'global' and mode is {mode!r}: leave one of them out")
    return truncation


def check_assignment(assignment: str | None, truncation: str, mode: Mode) -> None:
    """ValueError for what is none of ASSIGNMENTS, and for one of them where no nearest mode is sought."""
    if assignment is None:
        return
    if assignment not in ASSIGNMENTS:
        raise ValueError(f"assignment is {assignment!r}: expected {' or '.join(map(repr, ASSIGNMENTS))}, or None")
    sought = truncation == "multimodal" if mode is None else isinstance(mode, str) and mode != "random"
    if not sought:
        raise ValueError(f"assignment is {assignment!r}, but no nearest mode is sought: leave it out")


def choose_modes(
    bank: ModeBank, mode: Mode, seeds: Sequence[int], z_dim: int, to_w: ToW, nearest: Nearest
) -> tuple[list[int], list[int]]:
    """Which of the z that a seed gives is its sample, and the sample's mode: draws and modes, n each.

    Samples are mapped apart, or in chunks of one seed: a choice must not hang on how a batch is rounded.

    Args:
        mode: None or "nearest" for the first z and whichever mode is `nearest`; else the first z whose w is in the
            wanted mode: an index, "random" for any mode alike, or k weights.
    """
    if mode is None or (isinstance(mode, str) and mode == "nearest"):
        found = [nearest(to_w(sampling.latents_from_seeds([seed], z_dim))).item() for seed in seeds]
        return [0] * len(seeds), found
    wanted = _wanted_modes(bank, mode, seeds)
    return [_first_draw(bank, *pair, z_dim, to_w) for pair in zip(seeds, wanted, strict=True)], wanted


def check_mode(mode: int, num_modes: int) -> int:
    """The index of a mode as an int in 0..num_modes - 1, or an error."""
    if sampling.check_count(mode, "mode", least=0) >= num_modes:
        raise ValueError(f"mode is {mode}: this model has modes 0 to {num_modes - 1}")
    return int(mode)


def _wanted_modes(bank: ModeBank, mode: Mode, seeds: Sequence[int]) -> list[int]:
    """The mode that each sample is to be drawn from."""
    if isinstance(mode, str) and mode != "random":
        raise ValueError(f"mode is {mode!r}: expected an index, 'nearest', 'random', or {len(bank.counts)} weights")
    if not isinstance(mode, str) and not hasattr(mode, "__len__"):
        return [check_mode(mode, len(bank.counts))] * len(seeds)
    weights = (bank.counts > 0).cpu().double() if isinstance(mode, str) else _weights(mode, len(bank.counts))
    edges = weights.cumsum(0)
    edges /= edges[-1].clone()  # (k,), up to 1 exactly, which u is below
    streams = sampling.generators_from_seeds([seed ^ MODE_STREAM for seed in seeds])
    u = torch.cat([torch.rand(1, generator=stream, dtype=torch.float64) for stream in streams])
    return torch.searchsorted(edges, u, right=True).tolist()


def _weights(given: Sequence[float], num_modes: int) -> Tensor:
    """Weights (k,) fp64 of the modes, or an error."""
    try:
        weights = torch.as_tensor(given, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        weights = torch.empty(0)
    if weights.shape != (num_modes,) or weights.isnan().any() or weights.min() < 0 or not 0 < weights.sum() < math.inf:
        raise ValueError(f"mode is no list of {num_modes} weights of 0 or more, not all 0: give one for each mode")
    return weights


def _first_draw(bank: ModeBank, seed: int, mode: int, z_dim: int, to_w: ToW) -> int:
    """Index of the first z of a seed whose w is nearest to the center of `mode`."""
    (generator,) = sampling.generators_from_seeds([seed])
    for start in range(0, sampling.MAX_DRAWS, CHUNK):
        w = to_w(sampling.draw_latents([generator] * CHUNK, z_dim))  # (CHUNK, w_dim)
        if len(hits := (nearest_mode(w, bank) == mode).nonzero()):
            return start + hits[0].item()
    raise ValueError(
        f"none of {sampling.MAX_DRAWS} draws of seed {seed} fell into mode {mode}, which held {bank.counts[mode]} of "
        f"{bank.counts.sum()} samples: choose another mode"
    )


# ---------------------------------------------------------------- other people's centers


def read_centers(path: str | Path) -> Tensor:
    """Centers (k, w_dim), fp32, from any form in which they are passed around.

    A .npy file (k, w_dim); one center as .npy of (1, L, w_dim) or (1, 1, L, w_dim), L equal rows; a folder of .npy
    files, taken in the order of their names; a generator with a buffer `w_centers` as .safetensors, or as a
    checkpoint, in which nothing is run.

    Raises:
        FileNotFoundError, ValueError: what is wrong with which file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist: expected centers as .npy, a folder of them, .safetensors or a checkpoint"
        )
    if path.is_dir():
        files = sorted(path.glob("*.npy"))
        if not files:
            raise ValueError(f"{path} holds no .npy file: expected one for each center, or for several")
        found = {file: _as_centers(read_npy(file), file) for file in files}
        if len(sizes := {centers.shape[1] for centers in found.values()}) > 1:
            raise ValueError(f"{path} holds centers of different w_dim {sorted(sizes)}: keep those of one model")
        return torch.cat(list(found.values()))
    if path.suffix == ".npy":
        return _as_centers(read_npy(path), path)
    found = read_tensors(path) if path.suffix == ".safetensors" else read_pickle(path)
    named = list(_named_centers(found))
    if len(named) != 1:
        raise ValueError(f"{path} has {len(named)} tensors called w_centers: expected a generator that has one")
    return _as_centers(named[0], path)


def _named_centers(found: Any) -> Iterator[Tensor]:
    """Every tensor in dicts within dicts, and in objects, that is called w_centers, alone or after a dot."""
    found = found.state if isinstance(found, Record) else found
    for name, value in found.items() if isinstance(found, dict) else ():
        if isinstance(value, Tensor) and str(name).rpartition(".")[2] == "w_centers":
            yield value
        yield from _named_centers(value)


def _as_centers(array: Tensor, path: Path) -> Tensor:
    """(k, w_dim) of an array in one of the shapes of `read_centers`."""
    layers = array[0] if array.ndim == 4 and len(array) == 1 else array  # (1, L, w_dim)
    if layers.ndim == 3 and len(layers) == 1 and layers.numel() and (layers == layers[:, :1]).all():
        layers = layers[:, 0]  # (1, w_dim)
    if layers.ndim != 2 or not layers.numel():
        wanted = "(k, w_dim), or (1, L, w_dim) and (1, 1, L, w_dim) with L equal rows"
        raise ValueError(f"{path} holds an array of shape {list(array.shape)}: expected {wanted}")
    if not layers.isfinite().all():
        raise ValueError(f"{path} holds NaN or infinity: these are no centers")
    return layers.float()
