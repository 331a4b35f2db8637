"""Foreground by vote, without a label: clusters of the generator's activations that shun the border of the picture.

Pixels of one thing have like activations (Collins et al. 2020, "Editing in Style"; Feng et al. 2023, "Network-free,
unsupervised semantic segmentation with synthetic images"). Clusters are found over many samples at once, so that an
index means the same in all of them. What is seldom at the upper border and often in the middle is foreground; several
clusterings vote.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.nn import functional as F

from hfgan.models.stylegan2 import StyleGAN2Generator
from hfgan.sampling import broadcast

SIZE = 32  # px of the grid that is clustered
COARSEST, FINEST = 16, 64  # px: activations in between are looked at
DIMENSIONS = 64  # principal components that are kept
CLUSTERINGS = (8, 12, 16, 20, 24)  # clusters in each
PIXELS = 50_000  # that the clusters are sought on
BATCH = 32
TOLERANCE = 0.02  # of foreground that a background is left with


class SeenEnough(Exception):
    """Ends a pass of the generator of which no more is looked at."""


class Features:
    """A tap that keeps the activations of a pass as one descriptor per pixel; `hurried` ends it after the last."""

    def __init__(self, *, hurried: bool = False) -> None:
        self.seen: list[Tensor] = []
        self.hurried = hurried

    def __call__(self, layer: int, x: Tensor) -> None:  # (n, c, r, r)
        if self.hurried and x.shape[2] > FINEST:
            raise SeenEnough
        if not COARSEST <= x.shape[2] <= FINEST:
            return
        unit = F.normalize(x.detach().float(), dim=1)
        self.seen.append(F.interpolate(unit, size=(SIZE, SIZE), mode="bilinear", antialias=x.shape[2] > SIZE))

    def pixels(self) -> Tensor:
        """(n * SIZE * SIZE, d), sample by sample and row by row."""
        return torch.cat(self.seen, dim=1).permute(0, 2, 3, 1).flatten(0, 2)


class Votes(nn.Module):
    """What was learned of a generator's activations, and how it votes; all of it in buffers.

    Args:
        dimensions: Of a pixel's descriptor.
    """

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        kept = min(DIMENSIONS, dimensions)
        self.register_buffer("mean", torch.zeros(dimensions))
        self.register_buffer("basis", torch.zeros(dimensions, kept))
        self.register_buffer("centers", torch.zeros(sum(CLUSTERINGS), kept))
        self.register_buffer("foreground", torch.zeros(sum(CLUSTERINGS)))

    def forward(self, features: Features) -> Tensor:
        """How much (n, 1, SIZE, SIZE) clusterings say foreground, in the mean."""
        places = self.place(features.pixels())  # (p, kept)
        found = [said[nearest(places, centers)] for centers, said in self.clusterings()]
        return torch.stack(found).mean(dim=0).view(-1, 1, SIZE, SIZE)

    def place(self, pixels: Tensor) -> Tensor:
        """Descriptors (p, d) as directions (p, kept)."""
        return F.normalize((pixels - self.mean) @ self.basis, dim=1)

    def clusterings(self) -> list[tuple[Tensor, Tensor]]:
        """Centers (k, kept) and verdicts (k,), from 0 to 1 for foreground, of each clustering."""
        return list(zip(self.centers.split(CLUSTERINGS), self.foreground.split(CLUSTERINGS), strict=True))

    @classmethod
    @torch.no_grad()
    def fit(cls, generator: StyleGAN2Generator, w: Tensor, seed: int) -> Votes:
        """Learn from samples w (n, w_dim)."""
        # twice, since the descriptors of all of them may be gigabytes
        mean, covariance = moments(observe(generator, rows).pixels() for rows in w.split(BATCH))
        votes = cls(len(mean)).to(w.device)
        votes.mean.copy_(mean)
        _, vectors = torch.linalg.eigh(covariance)
        votes.basis.copy_(vectors[:, -votes.basis.shape[1] :])
        places = torch.cat([votes.place(observe(generator, rows).pixels()) for rows in w.split(BATCH)])
        source = torch.Generator().manual_seed(seed)
        some = places[torch.randperm(len(places), generator=source)[:PIXELS].to(places.device)].cpu().numpy()
        for turn, (centers, verdicts) in enumerate(votes.clusterings()):
            found = KMeans(len(centers), n_init=1, random_state=seed + turn).fit(some).cluster_centers_
            centers.copy_(torch.from_numpy(found))
            verdicts.copy_(foreground(nearest(places, centers).view(-1, SIZE, SIZE), len(centers)))
        return votes


def observe(generator: StyleGAN2Generator, w: Tensor, **how: int) -> Features:
    """The descriptors of samples w (n, w_dim)."""
    features = Features(hurried=True)
    with contextlib.suppress(SeenEnough):
        generator.synthesis(broadcast(w, generator.num_ws), "const", tap=features, **how)
    return features


def moments(batches: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean (d,) and covariance (d, d), fp32, of all rows of batches (n, d); summed about the first batch's mean."""
    count, middle, total, products = 0, None, 0, 0
    for rows in batches:
        middle = rows.mean(dim=0) if middle is None else middle
        count, rows = count + len(rows), rows - middle
        total, products = total + rows.double().sum(dim=0), products + (rows.T @ rows).double()
    covariance = (products - total.outer(total) / count) / (count - 1)
    return (middle + total / count).float(), covariance.float()


def nearest(places: Tensor, centers: Tensor) -> Tensor:
    """Index (p,) of the center (k, d) nearest to each of places (p, d)."""
    return torch.cat([torch.cdist(rows, centers).argmin(dim=1) for rows in places.split(PIXELS)])


def foreground(clusters: Tensor, count: int) -> Tensor:
    """How much each cluster (count,) is foreground: its share of the middle, over that plus its share of the border.

    The lower border does not count: a subject stands on the ground, or is cut off there. A cluster that lines the
    subject is about as often in the one as in the other, and so votes for neither.

    Args:
        clusters: Index of the cluster at each pixel (n, s, s).
    """
    size = clusters.shape[-1]
    edge, quarter = max(size // 16, 1), size // 4
    border, middle = torch.zeros(2, size, size, dtype=torch.bool, device=clusters.device)
    border[:edge] = border[:, :edge] = border[:, -edge:] = True
    middle[quarter:, quarter:-quarter] = True
    shares = [
        torch.bincount(clusters[:, where].flatten(), minlength=count) / clusters[:, where].numel()
        for where in (middle, border)
    ]
    return shares[0] / (shares[0] + shares[1]).clamp(min=1e-9)


@torch.no_grad()
def choose_background(votes: Votes, generator: StyleGAN2Generator, w: Tensor) -> tuple[int, float]:
    """The first layer whose silence leaves samples w (n, w_dim) with hardly more foreground than any other's, and how
    much that is [share]. Later layers than the third take the colours along."""
    found = {layer: votes(observe(generator, w, silenced=layer)).mean().item() for layer in range(-1, 3)}
    few = min(found.values()) + TOLERANCE
    return next((layer, share) for layer, share in found.items() if share <= few)
