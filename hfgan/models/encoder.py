"""Interest encoder: a photo and its interest region to the w_plus that draws the region faithfully.

Residual and iterative as ReStyle (Alaluf et al. 2021, arXiv 2104.02699): each step sees the photo beside what has been
drawn so far and moves w_plus. Unlike there the person says what matters: what lies outside the interest is replaced by
a smooth continuation of what is inside before anything looks, so that it cannot bend the latent, and one head serves
all layers, which differ in a gain and an offset, in place of a tower of convolutions for each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Self

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from hfgan.images import on_white
from hfgan.models.banks import ModeBank, whitening_scale
from hfgan.models.base import BesideGenerator
from hfgan.models.matting import through, unet
from hfgan.models.stylegan2 import StyleGAN2Generator, check_resolution

STATISTICS = 4096  # samples behind `w_std`
MAX_SIZE = 256  # px at which pictures of a larger generator are seen
LAST = 4  # px of the map that the head looks at
# channels at half of 256 px, a quarter, ..., 4 px; smaller pictures skip the first
WIDTHS = (16, 32, 64, 96, 128, 128)
SLOPE = 0.2  # of leaky ReLU
INLIER_WIDTHS = (16, 32, 64)  # of the network that looks for obstacles, from half of the size on


class InterestEncoder(BesideGenerator):
    """Photo (and interest region) to w_plus of one generator.

    Buffers: `starts` (k, w_dim), where a first guess may lie, centers of modes or `w_avg`; `start_views`
    (k, 3, s, s) in [-1, 1], what is drawn of them; `w_std` (w_dim,), the unit of steps.

    Args:
        resolution: Side of the pictures that are seen [pixels], a power of two; others are resized.
        w_dim, num_ws: Those of the generator.
        widths: Channels at half the resolution, a quarter, ..., 4 px; the last ones of WIDTHS for None.
        depth: Residual blocks at each of them.
        hidden_dim: Features that all layers share.
        num_starts, start_size: k and s.
        conditioned: Whether the interest is seen at all; False for encoders in the manner of the papers.
        generator_fingerprint: Of the generator that this was trained beside; it means nothing beside another.
    """

    called = "encoder"
    default_steps = 3  # that are taken when nobody says how many

    @register_to_config
    def __init__(
        self, *, resolution: int = 64, w_dim: int = 512, num_ws: int = 10, widths: Sequence[int] | None = None,
        depth: int = 1, hidden_dim: int = 512, num_starts: int = 1, start_size: int = 16, conditioned: bool = True,
        generator_fingerprint: str = "",
    ) -> None:  # fmt: skip
        super().__init__()
        check_resolution(resolution)
        if resolution > MAX_SIZE:
            raise ValueError(
                f"resolution is {resolution}: pictures are seen at {MAX_SIZE} px or less, larger ones shrunk"
            )
        halvings = int(math.log2(resolution / LAST))
        widths = WIDTHS[-halvings:] if widths is None else widths
        if len(widths) != halvings or any(width < 8 or width % 8 for width in widths):
            raise ValueError(f"widths are {list(widths)}: expected {halvings} multiples of 8 for {resolution} px")
        self.stem = nn.Conv2d(7, widths[0], 3, stride=2, padding=1)
        self.stages = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(below if k == 0 else width, width) for k in range(depth)))
            for below, width in pairwise([widths[0], *widths])
        )
        self.norm = nn.GroupNorm(8, widths[-1])
        self.shared = nn.Linear(widths[-1] * LAST**2, hidden_dim)
        self.from_w = nn.Linear(w_dim, hidden_dim)
        self.style_gain = nn.Parameter(torch.ones(num_ws, hidden_dim))
        self.style_offset = nn.Parameter(torch.randn(num_ws, hidden_dim) / 2)
        self.out = nn.Linear(hidden_dim, w_dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.register_buffer("starts", torch.zeros(num_starts, w_dim))
        self.register_buffer("start_views", torch.zeros(num_starts, 3, start_size, start_size))
        self.register_buffer("w_std", torch.ones(w_dim))
        self.inliers = InlierNetwork() if conditioned else None

    @classmethod
    @torch.no_grad()
    def beside(cls, generator: StyleGAN2Generator, modes: ModeBank | None = None, **shape: object) -> Self:
        """An untrained encoder for a generator, which answers the nearest center of its modes, or `w_avg`.

        Args:
            shape: Arguments that are not the generator's, such as `widths`.
        """
        config, mapping = generator.config, generator.mapping
        starts = mapping.w_avg[None] if modes is None else modes.centers  # (k, w_dim)
        shape = {"resolution": min(config.resolution, MAX_SIZE)} | shape
        encoder = cls(w_dim=config.w_dim, num_ws=generator.num_ws, num_starts=len(starts), **shape,
                      generator_fingerprint=generator.fingerprint()).to(generator.device)  # fmt: skip
        source = torch.Generator().manual_seed(0)
        z = torch.randn(STATISTICS, config.z_dim, generator=source).to(generator.device)
        w = mapping(z, mapping.labels_in_turn(torch.arange(STATISTICS)))  # (STATISTICS, w_dim)
        encoder.w_std.copy_(whitening_scale(w.std(dim=0)))
        encoder.starts.copy_(starts)
        drawn = [generator.synthesis(for_all_layers(rows, generator.num_ws)) for rows in starts.split(16)]
        encoder.start_views.copy_(shrink(on_white(torch.cat(drawn)).clamp(-1, 1), encoder.config.start_size))
        return encoder

    def steps(
        self, generator: StyleGAN2Generator, image: Tensor, interest: Tensor | None = None, count: int = 3
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The w_plus (n, num_ws, w_dim) after each step, and what is drawn of it (n, c, r, r); `count` of them."""
        seen, inside = self.look(image, interest)
        w_plus = self.start(seen, inside)
        drawn = generator.synthesis(w_plus)
        for _ in range(count):
            w_plus = self(seen, inside, w_plus, drawn)
            drawn = generator.synthesis(w_plus)
            yield w_plus, drawn

    def look(self, image: Tensor, interest: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What is seen of images (n, c, h, w) in [-1, 1] and of their interest (n, 1, h, w), of any one size.

        Returns:
            (n, 3, r, r), continued outside the interest, and the interest (n, 1, r, r), 0 or 1; all 1 for None.
        """
        side, image = self.config.resolution, on_white(image)
        if interest is None or not self.config.conditioned:
            seen = shrink(image, side)
            return seen, torch.ones_like(seen[:, :1])
        inside = (interest >= 0.5).float()
        seen = shrink(continue_outside(image, inside), side)  # first, so that nothing of the outside is mixed in
        return seen, (shrink(inside, side) >= 0.5).float()

    def start(self, seen: Tensor, inside: Tensor) -> Tensor:
        """The w_plus (n, num_ws, w_dim) to start from: of `starts` the one whose picture is nearest inside.

        Args:
            seen, inside: As `look` returns them.
        """
        side = self.config.start_size
        weight, pixels = shrink(inside, side).flatten(1), shrink(seen, side).flatten(2)  # (n, p), (n, 3, p)
        views = self.start_views.flatten(2)  # (k, 3, p)
        # sum_p m (x - v)^2 without what is the same for every start
        across = torch.einsum("np,ncp,kcp->nk", weight, pixels, views)
        nearest = (weight @ views.square().sum(1).t() - 2 * across).argmin(dim=1)  # (n,)
        return for_all_layers(self.starts[nearest], self.config.num_ws)

    def forward(self, seen: Tensor, inside: Tensor, w_plus: Tensor, drawn: Tensor) -> Tensor:
        """One step: w_plus (n, num_ws, w_dim), fp32, nearer to what `drawn` (n, c, r', r') lacks of the photo.

        Args:
            seen, inside: As `look` returns them.
            w_plus, drawn: Of the step before, or of the start.
        """
        x = torch.cat([seen, shrink(on_white(drawn), self.config.resolution), inside], dim=1)  # (n, 7, r, r)
        x = self.stem(x.contiguous(memory_format=torch.channels_last))  # (n, widths[0], r/2, r/2)
        for k, stage in enumerate(self.stages):
            x = stage(F.avg_pool2d(x, 2) if k else x)  # (n, widths[k], r / 2^(k+1), r / 2^(k+1))
        x = self.shared(F.leaky_relu(self.norm(x), SLOPE).flatten(1)).unsqueeze(1)  # (n, 1, hidden_dim)
        where = self.from_w((w_plus - self.starts.mean(0)) / self.w_std)  # (n, num_ws, hidden_dim)
        styles = F.leaky_relu(x * self.style_gain + self.style_offset + where, SLOPE)  # (n, num_ws, hidden_dim)
        return w_plus + self.w_std * self.out(styles)  # (n, num_ws, w_dim)


class InlierNetwork(nn.Module):
    """Whether the photo shows what it was to show, or something that stands before it: a small U-Net at half size."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = unet(7, INLIER_WIDTHS)
        self.out = nn.Conv2d(INLIER_WIDTHS[0], 1, 1)

    def forward(self, seen: Tensor, told: Tensor, drawn: Tensor) -> Tensor:
        """The logit (n, 1, r, r) that a pixel is no obstacle.

        Args:
            seen: (n, 3, r, r) in [-1, 1], the photo.
            told: (n, 1, r, r), 0 or 1, where the subject is, together with what stands before it.
            drawn: (n, c, r', r'), what was drawn of it.
        """
        side = seen.shape[-1] // 2
        x = torch.cat([shrink(part, side) for part in (seen, on_white(drawn), told)], dim=1)  # (n, 7, r/2, r/2)
        return F.interpolate(self.out(through(self.down, self.up, x)), scale_factor=2.0, mode="bilinear")


class ResidualBlock(nn.Module):
    """x + conv(conv(x)), each after GroupNorm and leaky ReLU: (n, i, h, w) to (n, o, h, w)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm0, self.norm1 = nn.GroupNorm(8, in_channels), nn.GroupNorm(8, out_channels)
        self.conv0 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv1 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv0(F.leaky_relu(self.norm0(x), SLOPE))  # (n, o, h, w)
        return self.skip(x) + self.conv1(F.leaky_relu(self.norm1(y), SLOPE))  # (n, o, h, w)


def for_all_layers(w: Tensor, num_ws: int) -> Tensor:
    """w (n, w_dim) as w_plus (n, num_ws, w_dim)."""
    return w.unsqueeze(1).repeat(1, num_ws, 1)


def shrink(x: Tensor, side: int) -> Tensor:
    """x (n, c, h, w) as (n, c, side, side): averaged where it shrinks, bilinear where it grows."""
    if x.shape[-2:] == (side, side):
        return x
    if x.shape[-1] == x.shape[-2] and x.shape[-1] % side == 0:
        return F.avg_pool2d(x, x.shape[-1] // side)
    return F.interpolate(x, (side, side), mode="bilinear", align_corners=False, antialias=True)


def continue_outside(image: Tensor, inside: Tensor) -> Tensor:
    """Images (n, c, h, w) as they are where `inside` (n, 1, h, w) is 1, and a smooth continuation where it is 0.

    Means of what is inside over ever larger squares (normalised convolution, Knutsson & Westin 1993), each used where
    no smaller one has anything: what is outside has no influence whatever it holds. All zeros where nothing is inside.
    """
    sums, weights = [torch.where(inside > 0, image, 0) * inside], [inside]  # 0 * infinity would be NaN
    while max(sums[-1].shape[-2:]) > 1:
        sums.append(F.avg_pool2d(sums[-1], 2, ceil_mode=True))
        weights.append(F.avg_pool2d(weights[-1], 2, ceil_mode=True))
    found = torch.zeros_like(sums[-1])
    for total, weight in zip(reversed(sums), reversed(weights), strict=True):
        mean = total / weight.clamp(min=1e-12)
        wider = F.interpolate(found, total.shape[-2:], mode="bilinear", align_corners=False)
        found = torch.lerp(wider, mean, (weight > 0).to(mean))
    return torch.where(inside > 0, image, found)
