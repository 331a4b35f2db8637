"""How good and how varied generated images are: pure functions of features, images and latents.

Features are (n,d) tensors from one network, both sides resized alike; `Protocol` says how and is stored with
every number. With MobileNetV2 features the Frechet distance is called FD-MNv2, never FID.
"""

import dataclasses
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

Embed = Callable[[Tensor], Tensor]  # images (n,3,h,w) in [-1,1] -> (n,d)
Distance = Callable[[Tensor, Tensor], Tensor]  # two (n,3,h,w) in [-1,1] -> (n,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """What a number depends on beside the model; two numbers compare only if their protocols are equal."""

    feature_net: str
    feature_sha256: str
    feature_size: int
    resize: str
    resolution: int
    num_real: int
    num_fake: int
    seed: int
    truncation_psi: float | None
    real: str
    crop: str


def as_images(batch: Tensor) -> Tensor:
    """uint8 (n,c,h,w) or float in [-1,1], c = 1 or 3 -> float (n,3,h,w) on the 256 levels a PNG has.

    Floats are clamped and rounded like a saved picture, so that real and generated sides are treated alike.
    """
    if batch.ndim != 4 or batch.shape[1] not in (1, 3):
        raise ValueError(f"Metrics see images (n,3,h,w) or grey (n,1,h,w), got {tuple(batch.shape)}.")
    levels = (
        batch.float() if batch.dtype == torch.uint8 else ((batch.float() + 1) * 127.5).clamp(0, 255).round()
    )
    return (levels / 127.5 - 1).expand(-1, 3, -1, -1)


def resize(images: Tensor, size: int) -> Tensor:
    """Images (n,3,h,w) -> (n,3,size,size), antialiased bicubic (`Protocol.resize`), clamped to [-1,1]."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, size=(size, size), mode="bicubic", antialias=True).clamp(-1, 1)


@torch.no_grad()
def extract_features(batches: Iterable[Tensor], embed: Embed, size: int = 128) -> Tensor:
    """Features (n,d), fp32 on the CPU, of batches of images, uint8 or in [-1,1], shown at size px."""
    found = [embed(resize(as_images(batch), size)).float().cpu() for batch in batches]
    if not found:
        raise ValueError("No images to extract features from: the data or the number of samples is empty.")
    return torch.cat(found)


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


def check_features(features: Tensor, at_least: int) -> None:
    """Raise ValueError unless features is (n,d), finite, with n >= at_least."""
    if features.ndim != 2 or len(features) < at_least:
        raise ValueError(
            f"Expected features (n,d) of at least {at_least} images, got {tuple(features.shape)}."
        )
    if not features.isfinite().all():
        raise ValueError("Features hold NaN or infinity: the images or the feature network are broken.")
