"""How good and how varied generated images are: pure functions of features, images and latents.

Features are (n,d) tensors from one network, both sides resized alike; `Protocol` says how and is stored with
every number. With MobileNetV2 features the Frechet distance is called FD-MNv2, never FID.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from hfgan.images import on_white

Embed = Callable[[Tensor], Tensor]  # images (n,3,h,w) in [-1,1] -> (n,d)
Distance = Callable[[Tensor, Tensor], Tensor]  # two (n,3,h,w) in [-1,1] -> (n,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """What a number depends on beside the model; two numbers compare only if their protocols are equal."""

    feature_net: str  # class of the network
    feature_weights: str  # sha256 of its file, or fingerprint
    feature_size: int  # px at which it sees images
    resize: str  # filter to that size, both sides
    resolution: int  # px of the images
    crop: str  # how photos became squares
    real: str  # name of the photos
    num_real: int
    num_fake: int
    seed: int  # of the first image and of the subsets
    truncation_psi: float | None  # None where no model drew


# ---------------------------------------------------------------- images to features


def as_images(batch: Tensor) -> Tensor:
    """uint8 (n,c,h,w) or float in [-1,1], c = 1, 3 or 4 -> float (n,3,h,w) on the 256 levels a PNG has, on white.

    Floats are clamped and rounded like a saved picture, so that real and generated sides are treated alike.
    """
    if batch.ndim != 4 or batch.shape[1] not in (1, 3, 4):
        raise ValueError(f"metrics see images (n,c,h,w) with c = 1, 3 or 4, got {tuple(batch.shape)}: convert them")
    levels = batch.float() if batch.dtype == torch.uint8 else ((batch.float() + 1) * 127.5).clamp(0, 255).round()
    return on_white(levels / 127.5 - 1)


def resize(images: Tensor, size: int) -> Tensor:
    """Images (n,3,h,w) -> (n,3,size,size), antialiased bicubic, clamped to [-1,1]."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, size=(size, size), mode="bicubic", antialias=True).clamp(-1, 1)


@torch.no_grad()
def extract_features(batches: Iterable[Tensor], embed: Embed, size: int = 128) -> Tensor:
    """Features (n,d), fp32 on the CPU, of batches of images, uint8 or in [-1,1], shown at size px."""
    found = [embed(resize(as_images(batch), size)).float().cpu() for batch in batches]
    if not found:
        raise ValueError("no images to extract features from: give at least one batch")
    return torch.cat(found)


def check_features(features: Tensor, at_least: int) -> None:
    """Raise ValueError unless features is (n,d), finite, with n >= at_least."""
    if features.ndim != 2 or len(features) < at_least:
        raise ValueError(f"expected features (n,d) of at least {at_least} images, got {tuple(features.shape)}")
    if not features.isfinite().all():
        raise ValueError("features hold NaN or infinity: look at the images and the feature network")


# ---------------------------------------------------------------- Frechet distance


def mean_and_covariance(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and unbiased covariance (d,d) of features (n,d), fp64."""
    check_features(features, at_least=2)
    return features.double().mean(0), torch.cov(features.double().T)


def frechet_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of two Gaussians (Dowson & Landau 1982), in fp64.

    tr (C_a C_b)^(1/2) = sum of sqrt(eigenvalues of R C_b R), R = C_a^(1/2): symmetric, so neither complex
    roots nor the low rank of few samples are a concern.
    """
    root = matrix_sqrt(cov_a.double())
    cross = torch.linalg.eigvalsh(root @ cov_b.double() @ root).clamp(min=0).sqrt().sum()
    shift = (mean_a.double() - mean_b.double()).square().sum()
    distance = shift + torch.trace(cov_a.double()) + torch.trace(cov_b.double()) - 2 * cross
    return max(distance.item(), 0.0)


def matrix_sqrt(matrix: Tensor) -> Tensor:
    """Square root (d,d) of a positive semi-definite matrix; eigenvalues rounded below 0 count as 0."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def frechet_of_features(real: Tensor, fake: Tensor) -> float:
    """Frechet distance of the Gaussians fitted to features (n,d) and (m,d); biased up for small n, m."""
    return frechet_distance(*mean_and_covariance(real), *mean_and_covariance(fake))


# ---------------------------------------------------------------- kernel distance


def kernel_distance(
    real: Tensor, fake: Tensor, *, block_size: int = 1000, blocks: int = 50, generator: torch.Generator
) -> tuple[float, float]:
    """KID: unbiased squared MMD under the kernel (x.y / d + 1)^3 (Binkowski et al. 2018, section 4).

    Mean and standard deviation over `blocks` random subsets of `block_size` images of either side (fewer when a
    side has fewer). Unlike the Frechet distance its expectation does not depend on the number of images.
    """
    check_features(real, at_least=2)
    check_features(fake, at_least=2)
    size = min(block_size, len(real), len(fake))
    found = torch.stack([_block_mmd(real, fake, size, generator) for _ in range(blocks)])
    return found.mean().item(), found.std(correction=0).item()


def _block_mmd(real: Tensor, fake: Tensor, size: int, generator: torch.Generator) -> Tensor:
    x, y = (side[torch.randperm(len(side), generator=generator)[:size]] for side in (real, fake))
    return unbiased_mmd(x, y)


def unbiased_mmd(x: Tensor, y: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of x (n,d), y (m,d): U-statistic, so zero on average for equal laws."""
    xx, yy, xy = (polynomial_kernel(*pair) for pair in ((x, x), (y, y), (x, y)))
    n, m = len(x), len(y)
    within_x = (xx.sum() - xx.trace()) / (n * (n - 1))
    within_y = (yy.sum() - yy.trace()) / (m * (m - 1))
    return within_x + within_y - 2 * xy.mean()


def polynomial_kernel(x: Tensor, y: Tensor) -> Tensor:
    """(x.y / d + 1)^3 for all pairs of rows: (n,m), fp64 but for the products of rows."""
    return ((x @ y.T).double() / x.shape[1] + 1) ** 3


# ---------------------------------------------------------------- fidelity and variety


def precision_recall(between: Tensor, real_radii: Tensor, fake_radii: Tensor) -> tuple[float, float]:
    """Share of fakes in the real manifold, and of reals in the fake one (Kynkaanniemi et al. 2019, equation 2).

    A manifold is the union of balls around its samples that reach their k-th neighbours; the paper has k = 3.

    Args:
        between: `distances` (n,m) of real and fake features.
        real_radii, fake_radii: `neighbour_radii` (n,) and (m,).
    """
    in_real = (between <= real_radii[:, None]).any(0)  # (m,)
    in_fake = (between <= fake_radii[None, :]).any(1)  # (n,)
    return in_real.double().mean().item(), in_fake.double().mean().item()


def density_coverage(between: Tensor, real_radii: Tensor, k: int) -> tuple[float, float]:
    """Density and coverage (Naeem et al. 2020, equations 4 and 5): precision and recall that outliers sway less.

    Density: how many real balls hold a fake, on average, over k; may exceed 1. Coverage: share of real balls that
    hold any fake. Arguments as for `precision_recall`; `real_radii` reach the k-th neighbours, the paper has k = 5.
    """
    inside = between <= real_radii[:, None]  # (n,m)
    return inside.double().sum(0).mean().item() / k, inside.any(1).double().mean().item()


def neighbour_radii(features: Tensor, *ks: int) -> list[Tensor]:
    """For each k: distance (n,) of every row of features (n,d) to its k-th nearest other row."""
    check_features(features, at_least=max(ks) + 1)
    found = distances(features, features).fill_diagonal_(float("inf"))
    nearest = found.topk(max(ks), dim=1, largest=False).values  # (n,max(ks)), ascending
    return [nearest[:, k - 1] for k in ks]


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances (n,m), fp32, of all rows of x (n,d) and y (m,d)."""
    center = y.mean(0)  # without it rounding grows with the distance from the origin
    return torch.cat([torch.cdist(rows - center, y - center) for rows in x.split(1024)])


def compare_features(real: Tensor, fake: Tensor, *, generator: torch.Generator) -> dict[str, float]:
    """All metrics of two sets of features (n,d), (m,d): fd, kid, kid_std, precision, recall, density, coverage."""
    mean, deviation = kernel_distance(real, fake, generator=generator)
    (real3, real5), (fake3,) = neighbour_radii(real, 3, 5), neighbour_radii(fake, 3)
    between = distances(real, fake)
    precision, recall = precision_recall(between, real3, fake3)
    density, coverage = density_coverage(between, real5, 5)
    found = {"fd": frechet_of_features(real, fake), "kid": mean, "kid_std": deviation}
    return found | {"precision": precision, "recall": recall, "density": density, "coverage": coverage}


# ---------------------------------------------------------------- perceptual spread and smoothness


@torch.no_grad()
def mean_pair_distance(images: Tensor, distance: Distance, *, pairs: int, generator: torch.Generator) -> float:
    """Diversity: mean perceptual distance of `pairs` random pairs of different images (n,3,h,w) in [-1,1]."""
    if len(images) < 2:
        raise ValueError(f"diversity compares different images, got {len(images)}: give at least 2")
    first = torch.randint(len(images), (pairs,), generator=generator)
    step = torch.randint(1, len(images), (pairs,), generator=generator)
    chunks = zip(first.split(64), ((first + step) % len(images)).split(64), strict=True)
    return torch.cat([distance(images[i], images[j]) for i, j in chunks]).mean().item()


@torch.no_grad()
def path_length(
    render: Callable[[Tensor], Tensor],
    start: Tensor,
    end: Tensor,
    between: Callable[[Tensor, Tensor, Tensor], Tensor],
    distance: Distance,
    *,
    epsilon: float = 1e-4,
    batch_size: int = 16,
    generator: torch.Generator,
) -> float:
    """PPL (Karras et al. 2019, section 4.1): mean of d(image(t), image(t + epsilon)) / epsilon^2, t ~ U(0, 1).

    Args:
        render: points (n,d) -> images (n,3,r,r) in [-1,1], in fp32: epsilon is lost in less.
        start, end: ends (n,d) of n paths, in W or Z.
        between: point t (n,1) of a path: `torch.lerp` in W, a great circle in Z.

    Returns:
        The mean after the lowest and the highest hundredth are left out.
    """
    found = []
    for a, b in zip(start.split(batch_size), end.split(batch_size), strict=True):
        t = torch.rand(len(a), 1, generator=generator).to(a)
        found.append(distance(render(between(a, b, t)), render(between(a, b, t + epsilon))) / epsilon**2)
    lengths = torch.cat(found).double()
    low, high = lengths.quantile(0.01), lengths.quantile(0.99)
    return lengths[(lengths >= low) & (lengths <= high)].mean().item()


# ---------------------------------------------------------------- ranks


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's correlation of two vectors (n,): Pearson's of their ranks, equal values sharing their mean rank."""
    ranks = torch.stack([mean_ranks(a), mean_ranks(b)])
    return torch.corrcoef(ranks)[0, 1].item()


def roc_auc(scores: Tensor, positive: Tensor) -> float:
    """Area under the ROC curve: the chance that a positive (n,) scores higher than a negative, ties counting half.

    Raises:
        ValueError: all of them are positive, or none is.
    """
    count = int(positive.sum())
    if not 0 < count < len(positive):
        raise ValueError(f"{count} of {len(positive)} are positive: both kinds are needed for an area under the curve")
    ranks = mean_ranks(scores)[positive]  # from 0
    return ((ranks.sum() - count * (count - 1) / 2) / (count * (len(positive) - count))).item()


def mean_ranks(values: Tensor) -> Tensor:
    """Ranks (n,) from 0, fp64; equal values get the mean of theirs."""
    _, group, counts = values.unique(return_inverse=True, return_counts=True)
    return (counts.cumsum(0) - (counts + 1) / 2).double()[group]


# ---------------------------------------------------------------- alpha


def mean_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU (n,) of two masks (n,1,h,w) bool, mean of foreground and background; 1 for a class that neither has."""
    return (_iou(a, b) + _iou(~a, ~b)) / 2


def _iou(a: Tensor, b: Tensor) -> Tensor:
    common, either = (a & b).sum((1, 2, 3)), (a | b).sum((1, 2, 3))
    return torch.where(either > 0, common / either.clamp(min=1), 1.0)


def boundary_iou(a: Tensor, b: Tensor, share: float = 0.02) -> Tensor:
    """IoU (n,) of the inner rims of two masks (n,1,h,w) bool (Cheng et al. 2021, arXiv 2103.16562).

    A rim is what lies in a mask within `share` of the picture's diagonal from its edge; the picture's own border is
    no edge.
    """
    reach = max(round(share * math.hypot(*a.shape[-2:])), 1)
    return _iou(a & near_edge(a, reach), b & near_edge(b, reach))


def band_error(alpha: Tensor, true: Tensor, share: float = 0.02) -> Tensor:
    """Mean absolute error (n,) of alpha (n,1,h,w) in the unknown band: within `share` of the diagonal of a true edge.

    A picture without an edge has no error here.
    """
    band = near_edge(true > 0.5, max(round(share * math.hypot(*true.shape[-2:])), 1))
    return ((alpha - true).abs() * band).sum((1, 2, 3)) / band.sum((1, 2, 3)).clamp(min=1)


def near_edge(mask: Tensor, reach: int) -> Tensor:
    """Pixels (n,1,h,w) that a square of 2 reach + 1 pixels around has both in and out of a mask (n,1,h,w) bool."""
    within = [F.max_pool2d(x.float(), (1, 2 * reach + 1), 1, (0, reach)) for x in (mask, ~mask)]  # one side, the other
    down = [F.max_pool2d(x, (2 * reach + 1, 1), 1, (reach, 0)) > 0 for x in within]
    return down[0] & down[1]
