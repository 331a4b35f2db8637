"""Perceptual distance and pooled embeddings: one interface, several sources of weights.

The distance is LPIPS (Zhang et al. 2018, eq. 1), maskable in every layer:
d(a, b) = sum_l  sum_p m_l(p) |sqrt(v_l) * (u_l(a, p) - u_l(b, p))|^2 / sum_p m_l(p),
u_l: features of layer l with unit length over channels, v_l >= 0: channel weights, m_l: interest, area-pooled
to the layer (blacking the images out instead would put features on the border of the interest).
"""

import hashlib
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

# ImageNet's mean and deviation moved from [0, 1] to [-1, 1]: 2 * mean - 1 and 2 * std.
IMAGENET_SHIFT = (-0.030, -0.088, -0.188)
IMAGENET_SCALE = (0.458, 0.448, 0.450)


class Perceptual:
    """What every perceptual network offers; a subclass gives `features` and, if learned, `layer_weights`."""

    def features(self, images: Tensor) -> list[Tensor]:
        """Feature maps of images (n,3,h,w) in [-1,1]: list of (n,c,h,w), finest first; differentiable."""
        raise NotImplementedError

    def layer_weights(self) -> list[Tensor] | None:
        """One non-negative weight per channel (c,) for each layer of `features`; None: all ones."""
        return None

    def distance(self, a: Tensor, b: Tensor, interest: Tensor | None = None) -> Tensor:
        """Distance (n,) >= 0, fp32, of images a and b (n,3,h,w) in [-1,1] within interest (n,1,h,w) in [0,1].

        A sample whose interest is zero everywhere has distance zero. Features on the border of the interest
        see across it by their receptive field; what lies farther out does not count.
        """
        if a.shape != b.shape:
            raise ValueError(
                f"distance compares images of one shape, got {tuple(a.shape)} and {tuple(b.shape)}."
            )
        return self.compare(self.features(a), self.features(b), interest)

    def compare(self, fa: list[Tensor], fb: list[Tensor], interest: Tensor | None = None) -> Tensor:
        """`distance` (n,) from two outputs of `features`, so that a fixed target passes the network once."""
        maps = self.distance_maps(fa, fb)
        if interest is None:
            return sum(m.mean((1, 2, 3)) for m in maps)
        check_interest(interest, len(maps[0]))
        return sum(interest_mean(m, interest) for m in maps)

    def distance_maps(self, fa: list[Tensor], fb: list[Tensor]) -> list[Tensor]:
        """Where two outputs of `features` differ: per layer a map (n,1,h,w) >= 0, fp32."""
        pairs = zip(self.weighted_units(fa), self.weighted_units(fb), strict=True)
        return [(x - y).square().sum(1, keepdim=True) for x, y in pairs]

    def embed(self, images: Tensor) -> Tensor:
        """Pooled embedding (n,d), fp32; by Jensen |embed(a) - embed(b)|^2 <= distance(a, b)."""
        return torch.cat([f.mean((2, 3)) for f in self.weighted_units(self.features(images))], dim=1)

    def weighted_units(self, features: list[Tensor]) -> list[Tensor]:
        """sqrt(v_l) * u_l of the module's equation: list of (n,c,h,w), fp32."""
        units = [unit_length(f.float()) for f in features]
        weights = self.layer_weights()
        if weights is None:
            return units
        return [u * v.sqrt().view(1, -1, 1, 1) for u, v in zip(units, weights, strict=True)]


class MobileNetV2(Perceptual, nn.Module):
    """MobileNetV2 (Sandler et al. 2018, table 2) without its classifier; frozen, for features and FD-MNv2.

    `embed` is the pooled (n,1280) vector before the classifier. Read from a file with torchvision's names.
    """

    # expansion, channels, repeats, stride of the first
    STAGES = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    TAPS = (3, 6, 13, 17)  # the last block at stride 4, 8, 16, 32

    def __init__(self) -> None:
        super().__init__()
        blocks, c_in = [conv_bn_relu6(3, 32, 3, stride=2)], 32
        for expansion, c_out, repeats, stride in self.STAGES:
            for i in range(repeats):
                blocks.append(InvertedResidual(c_in, c_out, stride if i == 0 else 1, expansion))
                c_in = c_out
        blocks.append(conv_bn_relu6(c_in, 1280, 1))
        self.blocks = nn.Sequential(*blocks)
        add_imagenet_range(self)
        self.requires_grad_(False).eval()
        self.sha256: str | None = None

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Read torchvision-named weights (.safetensors); ValueError names every missing or extra tensor."""
        tensors, sha256 = read_tensors(path)
        trunk = {k: v for k, v in tensors.items() if not k.startswith("classifier.")}  # no classes needed
        net = load_strictly(cls(), rename(trunk, {"features.": "blocks."}), path)
        fold_batch_norm(net)
        net.sha256 = sha256
        return net

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode, also inside a model being trained: it is frozen."""
        return super().train(False)

    def features(self, images: Tensor) -> list[Tensor]:
        """Maps of 24, 32, 96, 320 channels at strides 4, 8, 16, 32 of images (n,3,h,w) in [-1,1]."""
        x, maps = imagenet_range(self, images), []
        for i, block in enumerate(self.blocks[: self.TAPS[-1] + 1]):
            x = block(x)
            if i in self.TAPS:
                maps.append(x)
        return maps

    def embed(self, images: Tensor) -> Tensor:
        """Pooled last activation (n,1280), fp32, of images (n,3,h,w) in [-1,1]."""
        return self.blocks(imagenet_range(self, images)).float().mean((2, 3))


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1, skip where shapes allow (Sandler et al. 2018, fig. 3)."""

    def __init__(self, c_in: int, c_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = c_in * expansion
        expand = [conv_bn_relu6(c_in, hidden, 1)] if expansion > 1 else []
        depthwise = conv_bn_relu6(hidden, hidden, 3, stride, groups=hidden)
        project = [nn.Conv2d(hidden, c_out, 1, bias=False), nn.BatchNorm2d(c_out)]
        self.conv = nn.Sequential(*expand, depthwise, *project)
        self.skip = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.skip else self.conv(x)  # (n,c_in,h,w) -> (n,c_out,h/stride,w/stride)


def conv_bn_relu6(c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU6: the brick of MobileNetV2."""
    conv = nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.ReLU6())


def fold_batch_norm(module: nn.Module) -> None:
    """Fold each batch norm after a convolution of a Sequential into it, in place: same outputs."""
    for sequence in [m for m in module.modules() if isinstance(m, nn.Sequential)]:
        for i in range(len(sequence) - 1):
            if isinstance(sequence[i], nn.Conv2d) and isinstance(sequence[i + 1], nn.BatchNorm2d):
                sequence[i] = fuse_conv_bn_eval(sequence[i], sequence[i + 1])
                sequence[i + 1] = nn.Identity()


def add_imagenet_range(module: nn.Module) -> None:
    """Register the shift and scale that `imagenet_range` applies as buffers outside the state dict."""
    for name, value in (("shift", IMAGENET_SHIFT), ("scale", IMAGENET_SCALE)):
        module.register_buffer(name, torch.tensor(value).view(1, 3, 1, 1), persistent=False)


def imagenet_range(module: nn.Module, images: Tensor) -> Tensor:
    """Images (n,3,h,w) in [-1,1] -> normalised as ImageNet networks expect, in the dtype of the weights."""
    check_images(images)
    dtype = next(module.parameters()).dtype
    return ((images.float() - module.shift.float()) / module.scale.float()).to(dtype)


def unit_length(features: Tensor) -> Tensor:
    """(n,c,h,w) -> the same with length 1 over channels; the epsilon keeps the gradient at zero finite."""
    return features * (features.square().sum(1, keepdim=True) + 1e-10).rsqrt()


def interest_mean(distance_map: Tensor, interest: Tensor) -> Tensor:
    """Mean (n,) of a map (n,1,h,w) over interest (n,1,H,W), area-pooled to the map; 0 if it is empty."""
    weight = F.interpolate(interest.to(distance_map), size=distance_map.shape[-2:], mode="area")
    total = weight.sum((1, 2, 3))
    return (distance_map * weight).sum((1, 2, 3)) / total.clamp(min=torch.finfo(total.dtype).tiny)


def check_images(images: Tensor) -> None:
    """Raise ValueError unless images is a float tensor (n,3,h,w)."""
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        given = f"{images.dtype} {tuple(images.shape)}"
        raise ValueError(
            f"Perceptual networks see float images (n,3,h,w) in [-1,1], got {given}; convert them first."
        )


def check_interest(interest: Tensor, num: int) -> None:
    """Raise ValueError unless interest is (n,1,h,w) for n images."""
    if interest.ndim != 4 or interest.shape[0] != num or interest.shape[1] != 1:
        raise ValueError(f"interest must be ({num},1,h,w) for {num} images, got {tuple(interest.shape)}.")


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], str]:
    """All tensors of a .safetensors file, and the sha256 (hex) of the file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"No perceptual weights at {path.name!r}: give the path of a safetensors file."
        )
    data = path.read_bytes()
    try:
        return parse_safetensors(data), hashlib.sha256(data).hexdigest()
    except SafetensorError as error:
        raise ValueError(
            f"{path.name!r} is no readable safetensors file: {error}. Fetch it again."
        ) from error


def rename(tensors: dict[str, Tensor], prefixes: dict[str, str]) -> dict[str, Tensor]:
    """Replace each key's leading prefix by its new name."""
    out = {}
    for key, value in tensors.items():
        old = next((p for p in prefixes if key.startswith(p)), "")
        out[prefixes.get(old, "") + key.removeprefix(old)] = value
    return out


def load_strictly(module: nn.Module, tensors: dict[str, Tensor], path: str | Path) -> nn.Module:
    """Load tensors (upcast to the module's dtype); ValueError names what is missing, extra or misshapen."""
    own = module.state_dict()
    faults = {
        "missing": sorted(own.keys() - tensors.keys()),
        "extra": sorted(tensors.keys() - own.keys()),
        "misshapen": sorted(k for k in own.keys() & tensors.keys() if own[k].shape != tensors[k].shape),
    }
    if any(faults.values()):
        told = "; ".join(f"{kind}: {', '.join(keys)}" for kind, keys in faults.items() if keys)
        raise ValueError(f"{Path(path).name!r} does not hold a {type(module).__name__}: {told}.")
    module.load_state_dict(tensors)
    return module
