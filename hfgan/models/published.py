"""The encoders that were published for StyleGAN2, number for number: pSp, e4e and both kinds of ReStyle.

A photo goes through a network that was first trained on faces (IR-SE50) or on everything (ResNet34), and a tower of
convolutions reads a code for each layer of the generator off the last map of 16 x 16, or with a pyramid off finer ones
for finer layers (pSp, Richardson et al. 2021, arXiv 2008.00951). Codes are w_plus less the mean; in e4e (Tov et al.
2021, arXiv 2102.02766) the first one is a w, the others are offsets from it; in ReStyle (Alaluf et al. 2021, arXiv
2104.02699) the drawing so far is seen beside the photo, and codes are a step from there. `InterestEncoder` is what
this package trains itself: nothing here is trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, pairwise

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from hfgan.images import on_white
from hfgan.models.base import BesideGenerator
from hfgan.models.encoder import continue_outside, shrink
from hfgan.models.layers import EqualizedLinear
from hfgan.models.stylegan2 import StyleGAN2Generator

SIDE = 256  # px at which pictures are seen
DEPTHS = {"ir_se50": (3, 4, 14, 3), "resnet34": (3, 4, 6, 3)}  # blocks at 64, 128, 256 and 512 channels
WIDTHS = (64, 128, 256, 512)
W_DIM = WIDTHS[-1]
MIDDLE, FINE = 3, 7  # the first layers that are read off the map of 32 x 32, and of 64 x 64, of a pyramid
HALVINGS = 4  # from a map of 16 x 16 to one number
REDUCTION = 16  # of channels, in squeeze and excitation
STEPS = 5  # of ReStyle


class PublishedEncoder(BesideGenerator):
    """Photo to w_plus of one generator, which draws RGB and has a w of 512 numbers.

    Buffers: `latent_avg` (num_ws, 512), what codes are added to, 0 for nothing; `w_std` (512,), the unit of steps of
    refinement.

    Args:
        backbone: "ir_se50" or "resnet34".
        num_ws: Of the generator.
        pyramid: Whether finer layers are read off finer maps (pSp, e4e), not all off the last one (ReStyle).
        progressive: Whether codes after the first are offsets from it (e4e, ReStyle-e4e).
        iterative: Whether the drawing so far is seen beside the photo (ReStyle).
        rows: How many of the 256 are seen, those in the middle [pixels]; 192 for cars.
        generator_fingerprint: Of the generator that this was trained beside; it means nothing beside another.
    """

    called = "encoder"
    inliers = None  # none of them tells what stands before the subject

    @register_to_config
    def __init__(
        self, *, backbone: str = "ir_se50", num_ws: int = 18, pyramid: bool = True, progressive: bool = False,
        iterative: bool = False, rows: int = SIDE, generator_fingerprint: str = "",
    ) -> None:  # fmt: skip
        super().__init__()
        if backbone not in DEPTHS:
            raise ValueError(f"backbone is {backbone!r}: expected {' or '.join(map(repr, DEPTHS))}")
        if rows % 2 or not 16 <= rows <= SIDE:
            raise ValueError(f"rows is {rows}: expected an even number from 16 to {SIDE}")
        kernel, stride = (3, 1) if backbone == "ir_se50" else (7, 2)
        self.input_layer = nn.Sequential(
            convolution(6 if iterative else 3, WIDTHS[0], kernel, stride), FrozenNorm(WIDTHS[0]), nn.PReLU(WIDTHS[0])
        )
        block = Bottleneck if backbone == "ir_se50" else BasicBlock
        layers, below = [], WIDTHS[0]
        for depth, width in zip(DEPTHS[backbone], WIDTHS, strict=True):
            # ResNet34 has halved the picture already
            layers.append(block(below, width, 1 if width == WIDTHS[0] and stride == 2 else 2))
            layers += [block(width, width, 1) for _ in range(depth - 1)]
            below = width
        self.body = nn.Sequential(*layers)
        self.finer = [pyramid * ((layer >= MIDDLE) + (layer >= FINE)) for layer in range(num_ws)]
        self.styles = nn.ModuleList(StyleTower(HALVINGS + finer) for finer in self.finer)
        if pyramid:
            self.latlayer1 = nn.Conv2d(WIDTHS[2], W_DIM, 1)
            self.latlayer2 = nn.Conv2d(WIDTHS[1], W_DIM, 1)
        self.register_buffer("latent_avg", torch.zeros(num_ws, W_DIM))
        self.register_buffer("w_std", torch.ones(W_DIM))

    @property
    def default_steps(self) -> int:
        """Steps that are taken when nobody says how many."""
        return STEPS if self.config.iterative else 1

    def steps(
        self, generator: StyleGAN2Generator, image: Tensor, interest: Tensor | None = None, count: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The w_plus (n, num_ws, w_dim) after each step, and what is drawn of it (n, 3, r, r); `count` of them."""
        iterative = self.config.iterative
        if count > 1 and not iterative:
            raise ValueError(f"{count} steps are asked for, but this encoder has a single one: leave steps out")
        seen, _ = self.look(image, interest)
        w_plus = self.latent_avg[None]  # (1, num_ws, w_dim)
        drawn = generator.synthesis(w_plus) if iterative else None
        for _ in range(count):
            x = torch.cat([seen, self.reduce(drawn).expand_as(seen)], dim=1) if iterative else seen
            w_plus = w_plus + self(x)  # (n, num_ws, w_dim)
            drawn = generator.synthesis(w_plus)
            yield w_plus, drawn

    def look(self, image: Tensor, interest: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What is seen of images (n, c, h, w) in [-1, 1] and of their interest (n, 1, h, w), of any one size.

        Returns:
            (n, 3, rows, 256), continued outside the interest, and the interest (n, 1, rows, 256), 0 or 1; all 1 for
            None.
        """
        image = on_white(image)
        if interest is None:
            seen = self.crop(shrink(image, SIDE))
            return seen, torch.ones_like(seen[:, :1])
        inside = (interest >= 0.5).float()
        seen = shrink(continue_outside(image, inside), SIDE)  # first, so that nothing of the outside is mixed in
        return self.crop(seen), (self.crop(shrink(inside, SIDE)) >= 0.5).float()

    def reduce(self, drawn: Tensor) -> Tensor:
        """What is seen (n, 3, rows, 256) of drawings (n, 3, r, r), reduced as when these networks were trained."""
        return self.crop(F.adaptive_avg_pool2d(drawn, SIDE))

    def crop(self, x: Tensor) -> Tensor:
        """The rows in the middle (n, c, rows, 256) of pictures (n, c, 256, 256)."""
        return x.narrow(2, (SIDE - self.config.rows) // 2, self.config.rows)

    def forward(self, x: Tensor) -> Tensor:
        """Codes (n, num_ws, 512), w_plus less what it starts from, fp32.

        Args:
            x: (n, 3, h, w) in [-1, 1], photos; with `iterative` (n, 6, h, w), photos and what is drawn of them.
        """
        x = self.input_layer(x.contiguous(memory_format=torch.channels_last))  # (n, 64, h, w); ResNet34: h/2, w/2
        maps = []
        for first, last in pairwise(accumulate(DEPTHS[self.config.backbone], initial=0)):
            x = self.body[first:last](x)  # (n, 64..512, h/2..h/16, w/2..w/16)
            maps.append(x)
        seen = [x]  # (n, 512, h/16, w/16), then finer ones
        if self.config.pyramid:
            seen.append(add_finer(seen[0], self.latlayer1(maps[2])))  # (n, 512, h/8, w/8)
            seen.append(add_finer(seen[1], self.latlayer2(maps[1])))  # (n, 512, h/4, w/4)
        codes = [style(seen[finer]) for style, finer in zip(self.styles, self.finer, strict=True)]
        if self.config.progressive:
            codes = [codes[0], *(codes[0] + offset for offset in codes[1:])]
        return torch.stack(codes, dim=1)  # (n, num_ws, 512)


# ---------------------------------------------------------------- layers, whose names are those of published tensors


class StyleTower(nn.Module):
    """A map (n, 512, h, w) to a code (n, 512), through as many halvings as lead to one pixel."""

    def __init__(self, halvings: int) -> None:
        super().__init__()
        pairs = [(nn.Conv2d(W_DIM, W_DIM, 3, stride=2, padding=1), nn.LeakyReLU(0.01)) for _ in range(halvings)]
        self.convs = nn.Sequential(*(layer for pair in pairs for layer in pair))
        self.linear = EqualizedLinear(W_DIM, W_DIM)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.convs(x).flatten(1))  # (n, 512)


class Bottleneck(nn.Module):
    """Block of IR-SE50 (Deng et al. 2019, arXiv 1801.07698): (n, i, h, w) to (n, o, h / stride, w / stride)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer = nn.MaxPool2d(1, stride)  # every second pixel, or all
        if in_channels != out_channels:
            self.shortcut_layer = nn.Sequential(
                convolution(in_channels, out_channels, 1, stride), FrozenNorm(out_channels)
            )
        self.res_layer = nn.Sequential(
            FrozenNorm(in_channels), convolution(in_channels, out_channels, 3), nn.PReLU(out_channels),
            convolution(out_channels, out_channels, 3, stride), FrozenNorm(out_channels), Excitation(out_channels),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut_layer(x) + self.res_layer(x)  # (n, o, h / stride, w / stride)


class Excitation(nn.Module):
    """Squeeze and excitation (Hu et al. 2018, arXiv 1709.01507): channels (n, c, h, w) times what their means say."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = convolution(channels, channels // REDUCTION, 1)
        self.fc2 = convolution(channels // REDUCTION, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)  # (n, c, 1, 1)
        return x * self.fc2(F.relu(self.fc1(mean))).sigmoid()  # (n, c, h, w)


class BasicBlock(nn.Module):
    """Block of ResNet34 (He et al. 2016, arXiv 1512.03385): (n, i, h, w) to (n, o, h / stride, w / stride)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = convolution(in_channels, out_channels, 3, stride), FrozenNorm(out_channels)
        self.conv2, self.bn2 = convolution(out_channels, out_channels, 3), FrozenNorm(out_channels)
        self.downsample = nn.Identity()
        if in_channels != out_channels:
            self.downsample = nn.Sequential(
                convolution(in_channels, out_channels, 1, stride), FrozenNorm(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))  # (n, o, h / stride, w / stride)
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))  # (n, o, h / stride, w / stride)


class FrozenNorm(nn.Module):
    """Batch normalisation (n, c, h, w) with the statistics of a training that is over, whatever mode this is in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name, value in {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}.items():
            self.register_buffer(name, torch.full((channels,), value))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=1e-5)


def convolution(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution (n, i, h, w) to (n, o, h / stride, w / stride) without bias."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)


def add_finer(coarse: Tensor, fine: Tensor) -> Tensor:
    """(n, c, h, w), the coarse map enlarged from corner to corner plus the fine one of that size."""
    return F.interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=True) + fine
