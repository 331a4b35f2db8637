"""What a reconstruction encoder E learns from, and the signs that it has collapsed (arXiv 2202.12211 §3.1).

L = |x - x'|_1 + d(x, x') + 0.1 |E(x') - E(x)|_1 on photos x with x' = G(E(x)), + |E(G(w)) - w|^2 on drawn images,
where d is a perceptual distance. The weights follow the open reconstructions of StylEx (Lang et al. 2021), which
is by the same authors; their own were never published.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import run
import torch
from torch import Tensor

from hfgan.images import on_white
from hfgan.memory import at_once, draw_in_parts, in_parts, net_at_once
from hfgan.metrics import resize
from hfgan.models.perceptual import load_perceptual
from hfgan.models.reconstructor import ReconstructionEncoder
from hfgan.models.stylegan2 import StyleGAN2Generator
from hfgan.sampling import broadcast

PERCEPTUAL_SIZE = 64  # px: smaller images are enlarged to it
CYCLE_WEIGHT = 0.1
COLLAPSED = 0.2  # variance of E(x) over photos as a share of that of f(z)
COLLAPSED_MARGIN = 0.25  # of the distance to one's own reconstruction
TRUSTED_AFTER = 20_000  # images; an encoder starts at one w for all


class Distance:
    """Perceptual distance of images of any size and number of channels, differentiable."""

    def __init__(self, source: str | None, device: torch.device) -> None:
        self.net = load_perceptual(source).to(device)

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance (n,) of images (n, c, r, r) in [-1, 1]."""
        size = at_once(len(a), a.shape[-1], a.shape[1], a.device)
        return in_parts(lambda a, b: self.net.distance(self.rgb(a), self.rgb(b)), size, a, b)

    def rgb(self, image: Tensor) -> Tensor:
        """Images as the perceptual network sees them: (n, 3, r', r')."""
        return resize(on_white(image), max(image.shape[-1], PERCEPTUAL_SIZE))


@dataclass(frozen=True)
class Reconstructions:
    """Photos (n, c, r, r), their w (n, w_dim), and what the generator draws of it (n, c, r, r)."""

    image: Tensor
    w: Tensor
    again: Tensor


def reconstruct(generator: StyleGAN2Generator, encoder: ReconstructionEncoder, image: Tensor) -> Reconstructions:
    """x, E(x), G(E(x)) with constant noise."""
    w = in_parts(encoder, net_at_once(encoder, len(image)), image)
    return Reconstructions(image, w, draw_in_parts(generator, broadcast(w, generator.num_ws)))


def reconstruction_loss(
    encoder: ReconstructionEncoder, distance: Distance, found: Reconstructions
) -> tuple[Tensor, dict[str, float]]:
    """The part of the loss on photos, and its numbers for the log."""
    pixel = (found.image - found.again).abs().mean()
    perceptual = distance(found.image, found.again).mean()
    seen = in_parts(encoder, net_at_once(encoder, len(found.again)), found.again)
    cycle = (seen - found.w.detach()).abs().mean()
    numbers = {"rec_pixel": pixel.item(), "rec_perceptual": perceptual.item()}
    return pixel + perceptual + CYCLE_WEIGHT * cycle, numbers


def latent_loss(encoder: ReconstructionEncoder, drawn: Tensor, w: Tensor) -> Tensor:
    """|E(G(w)) - w|^2, mean over dimensions, for drawn images (n, c, r, r) and w (n, w_dim), both constants."""
    seen = in_parts(encoder, net_at_once(encoder, len(drawn)), drawn.detach())
    return (seen - w.detach()).square().mean()


@torch.no_grad()
def health(
    generator: StyleGAN2Generator, encoder: ReconstructionEncoder, distance: Distance, image: Tensor
) -> dict[str, Any]:
    """Signs of life on photos (n, c, r, r): `rec_spread`, var E(x) / var f(z); `rec_margin`, how much farther a
    photo is from another photo's reconstruction than from its own; and the mean distance, `rec_distance`."""
    found = reconstruct(generator, encoder, image)
    z = torch.randn(1000, generator.config.z_dim, generator=run.random_source(0)).to(image.device)
    w = generator.mapping(z, generator.mapping.labels_in_turn(torch.arange(1000)))  # (1000, w_dim)
    spread = found.w.var(dim=0).mean() / w.var(dim=0).mean()
    own, other = distance(image, found.again).mean(), distance(image, found.again.roll(1, dims=0)).mean()
    return {"rec_spread": spread.item(), "rec_margin": (other - own).item(), "rec_distance": own.item()}


def check_collapse(images_seen: int, signs: dict[str, Any]) -> None:
    """Stop with a sentence when all photos get nearly one w, and so are hardly told apart by their reconstructions."""
    alike = signs["rec_margin"] < COLLAPSED_MARGIN * signs["rec_distance"]
    if images_seen > TRUSTED_AFTER and alike and signs["rec_spread"] < COLLAPSED:
        raise run.UserError(
            f"the encoder has collapsed: its w vary by {signs['rec_spread']:.3f} of what the mapping gives (expected "
            f"{COLLAPSED} or more), and a photo is only {signs['rec_margin']:.4f} nearer to its own reconstruction "
            "than to another's; train the generator longer first, or start again in a new --out with a lower --lr"
        )
