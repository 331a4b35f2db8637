"""Training objectives of StyleGAN2 and R3GAN as pure functions of logits, images and latents."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def logistic_d(real: Tensor, fake: Tensor) -> Tensor:
    """Discriminator's non-saturating logistic loss of logits (n, 1): scalar (Goodfellow et al. 2014)."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def logistic_g(fake: Tensor) -> Tensor:
    """Generator's non-saturating logistic loss of logits (n, 1): scalar."""
    return F.softplus(-fake).mean()


def relativistic_d(real: Tensor, fake: Tensor) -> Tensor:
    """Relativistic pairing loss of logits (n, 1): scalar (R3GAN, arXiv 2501.05441 equation 2)."""
    return F.softplus(fake - real).mean()


def relativistic_g(real: Tensor, fake: Tensor) -> Tensor:
    """Generator's side of the relativistic pairing loss: scalar."""
    return F.softplus(real - fake).mean()


def hinge_d(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of logits (n, m) of a frozen-feature discriminator: scalar (Projected GANs, arXiv 2111.01007)."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def binarisation(alpha: Tensor) -> Tensor:
    """Mean of min(alpha, 1 - alpha) over alpha (n, 1, h, w): scalar, 0 where all is 0 or 1 (arXiv 1905.12663 §3)."""
    return torch.minimum(alpha, 1 - alpha).mean()


def matting_energy(alpha: Tensor, image: Tensor, reach: int = 1, epsilon: float = 1e-4) -> Tensor:
    """How far alpha is from a linear function of colour in every small window: scalar >= 0 (Levin et al. 2008, eq. 6).

    The least squares fit in a window leaves var(alpha) - c^T (C + epsilon)^-1 c, where C is the covariance of the
    colours and c that of colour and alpha; an edge of alpha is free where the picture has one, and nowhere else.

    Args:
        alpha: (n, 1, h, w).
        image: (n, 3, h, w) in [-1, 1]; taken as constant.
        reach: Windows have 2 reach + 1 pixels a side.
        epsilon: Of colours in [0, 1], squared.
    """

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2 * reach + 1, stride=1, padding=reach, count_include_pad=False)

    colour = (image.detach().float() + 1) / 2
    n, c, h, w = colour.shape
    centre, middle = mean(colour), mean(alpha)  # (n, c, h, w), (n, 1, h, w)
    products = (colour.unsqueeze(2) * colour.unsqueeze(1)).flatten(1, 2)
    spread = mean(products).view(n, c, c, h, w) - centre.unsqueeze(2) * centre.unsqueeze(1)
    spread = spread.permute(0, 3, 4, 1, 2) + epsilon * torch.eye(c, device=colour.device)  # (n, h, w, c, c)
    shared = (mean(colour * alpha) - centre * middle).permute(0, 2, 3, 1).unsqueeze(-1)  # (n, h, w, c, 1)
    explained = (shared * (torch.linalg.inv(spread) @ shared)).sum((-2, -1))  # (n, h, w)
    return (mean(alpha.square()) - middle.square())[:, 0].sub(explained).clamp(min=0).mean()


def gradient_penalty(discriminate: Callable[[Tensor], Tensor], image: Tensor) -> tuple[Tensor, Tensor]:
    """Squared gradient norm of the discriminator, R1 on real and R2 on drawn images (arXiv 1801.04406 §4.1).

    Args:
        discriminate: Images (n, c, r, r) to logits (n, 1).
        image: (n, c, r, r) in [-1, 1]; taken as constant.

    Returns:
        E |grad D(x)|^2 (a scalar to be multiplied by gamma / 2) and the detached logits (n, 1).
    """
    image = image.detach().requires_grad_()
    logits = discriminate(image)
    (grad,) = torch.autograd.grad(logits.sum(), image, create_graph=True)  # (n, c, r, r)
    return grad.square().sum(dim=(1, 2, 3)).mean(), logits.detach()


def path_lengths(synthesise: Callable[[Tensor], Tensor], w_plus: Tensor, generator: torch.Generator) -> Tensor:
    """|J_w^T y| per sample for a random image y, scaled by 1/sqrt(pixels) (arXiv 1912.04958 equation 4).

    Args:
        synthesise: w_plus (n, num_ws, w_dim) to images (n, c, r, r).
        w_plus: Must require gradients.
        generator: Source of y.

    Returns:
        (n,): root of the squared gradient summed over w_dim, averaged over layers.
    """
    image = synthesise(w_plus)
    y = torch.randn(image.shape, generator=generator, device=generator.device).to(image) / math.sqrt(
        image[0, 0].numel()
    )
    (grad,) = torch.autograd.grad((image * y).sum(), w_plus, create_graph=True)  # (n, num_ws, w_dim)
    return grad.square().sum(dim=2).mean(dim=1).sqrt()


def path_length_penalty(lengths: Tensor, mean: Tensor) -> Tensor:
    """Squared deviation of path lengths (n,) from their running mean (scalar): scalar."""
    return (lengths - mean).square().mean()
