"""Perceptual distance and pooled embeddings: one interface, weights from several sources.

The distance is LPIPS (Zhang et al. 2018, equation 1), maskable in every layer:
d(a, b) = sum_l  sum_p m_l(p) |g_l * (u_l(a, p) - u_l(b, p))|^2 / sum_p m_l(p),
u_l: features of layer l with length 1 over channels; g_l: a gain per channel, the root of LPIPS's w_l; m_l:
the interest, area-pooled to the layer (blacking the images out instead would put features on its border).
"""

from __future__ import annotations

import hashlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Self, TypeVar

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from hfgan.models.base import HFGanModel
from hfgan.storage import read_tensors

BUNDLED = Path(__file__).parent.parent / "assets" / "perceptual"
# ImageNet's mean and deviation moved from [0, 1] to [-1, 1]: 2 * mean - 1 and 2 * std.
IMAGENET_SHIFT = (-0.030, -0.088, -0.188)
IMAGENET_SCALE = (0.458, 0.448, 0.450)

Net = TypeVar("Net", bound=nn.Module)


def load_perceptual(source: str | Path | None = None) -> PerceptualNet | MobileNetV2:
    """A frozen perceptual network in eval mode.

    Args:
        source: None for what ships with hfgan; "lpips" for the weights of that installed package; a
            .safetensors file with LPIPS-Alex or MobileNetV2; a folder or Hub id of a saved `PerceptualNet`.

    Raises:
        FileNotFoundError, ValueError: no such source, or tensors that are missing or too many, by name.
        ModuleNotFoundError: "lpips" without the package.
    """
    if source == "lpips":
        net = PerceptualNet.from_package()
    elif source is not None and str(source).endswith(".safetensors"):
        net = _from_file(Path(source))
    else:
        net = PerceptualNet.from_pretrained(BUNDLED if source is None else source)
    return net.requires_grad_(False).eval()


class Perceptual(ABC):
    """What every perceptual network offers; subclasses give `features` and, if learned, `channel_gains`."""

    @abstractmethod
    def features(self, images: Tensor) -> list[Tensor]:
        """Maps of images (n,3,h,w) in [-1,1]: list of (n,c,h,w), finest first; differentiable."""

    def channel_gains(self) -> Sequence[Tensor] | None:
        """g_l of the module's equation: one tensor (c,) per map of `features`, or None for all ones."""
        return None

    def distance(self, a: Tensor, b: Tensor, interest: Tensor | None = None) -> Tensor:
        """Distance (n,) >= 0, fp32, of images a and b (n,3,h,w) in [-1,1] within interest (n,1,h,w) in [0,1].

        Features on the border of the interest see across it by their receptive field; what lies farther out
        does not count. A sample whose interest is zero everywhere has distance zero.
        """
        if a.shape != b.shape:
            given = f"{tuple(a.shape)} and {tuple(b.shape)}"
            raise ValueError(f"distance compares images of one shape, got {given}: resize one of them")
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
        """Pooled embedding (n,d), fp32: |embed(a) - embed(b)|^2 <= distance(a, b), by Jensen's inequality."""
        return torch.cat([f.mean((2, 3)) for f in self.weighted_units(self.features(images))], dim=1)

    def weighted_units(self, features: list[Tensor]) -> list[Tensor]:
        """g_l * u_l of the module's equation: list of (n,c,h,w), fp32."""
        units = [unit_length(f.float()) for f in features]
        gains = self.channel_gains()
        if gains is None:
            return units
        return [u * g.view(1, -1, 1, 1) for u, g in zip(units, gains, strict=True)]


class PerceptualNet(Perceptual, HFGanModel):
    """The network behind LPIPS-Alex: AlexNet's five convolutions (Krizhevsky 2014) with a gain per channel.

    The default widths are LPIPS-Alex itself; the network that ships with hfgan is a narrower one,
    distilled from it by the training stage `perceptual`. At 64 px its maps have 15, 7, 3, 3 and 3 px.

    Args:
        widths: channels of the five layers.
    """

    MIN_SIZE = 31  # px: below it the second pooling has nothing left

    @register_to_config
    def __init__(self, *, widths: Sequence[int] = (64, 192, 384, 256, 256)) -> None:
        super().__init__()
        if len(widths) != 5:
            raise ValueError(f"widths must give the channels of five layers, got {widths}")
        #            kernel, stride, padding
        geometry = ((11, 4, 2), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1))
        ins = (3, *widths[:-1])
        self.convs = nn.ModuleList(nn.Conv2d(i, o, *g) for i, o, g in zip(ins, widths, geometry, strict=True))
        self.gains = nn.ParameterList(torch.full((width,), 0.5) for width in widths)
        add_imagenet_range(self)
        self.compute_dtype = torch.float32

    @classmethod
    def from_lpips(cls, tensors: dict[str, Tensor]) -> Self:
        """LPIPS-Alex v0.1 from torchvision's `features.{0,3,6,8,10}.*` and `lin{0..4}.weight` (1,c,1,1)."""
        names = {f"features.{at}.": f"convs.{i}." for i, at in enumerate((0, 3, 6, 8, 10))}
        names |= {f"lin{i}.weight": f"gains.{i}" for i in range(5)}
        own = rename(tensors, names)
        for key in own.keys() & set(names.values()):
            own[key] = own[key].flatten().float().clamp(min=0).sqrt()
        return load_strictly(cls(), own)

    @classmethod
    def from_package(cls) -> Self:
        """LPIPS-Alex with the linear weights of the installed package `lpips` and torchvision's AlexNet."""
        if importlib.util.find_spec("lpips") is None:
            raise ModuleNotFoundError("the package lpips is not installed: pip install lpips torchvision")
        import lpips

        state = lpips.LPIPS(net="alex", verbose=False).state_dict()
        found = {k.replace(".model.1", ""): v for k, v in state.items() if k.startswith("lin") and "lins" not in k}
        found |= {"features." + k.split(".", 2)[2]: v for k, v in state.items() if k.startswith("net.slice")}
        return cls.from_lpips(found)

    def channel_gains(self) -> Sequence[Tensor]:
        """g_l: five tensors (c,)."""
        return list(self.gains)

    def features(self, images: Tensor) -> list[Tensor]:
        """Maps at strides 4, 8, 16, 16, 16 of images (n,3,h,w) in [-1,1], computed in `compute_dtype`."""
        check_images(images, self.MIN_SIZE)
        x, maps = imagenet_range(self, images).to(self.compute_dtype), []  # (n,3,h,w)
        for i, conv in enumerate(self.convs):
            x = F.max_pool2d(x, 3, 2) if i in (1, 2) else x  # (n,c,h/2,w/2) twice
            x = F.conv2d(x, conv.weight.to(x.dtype), conv.bias.to(x.dtype), conv.stride, conv.padding).relu()
            maps.append(x)
        return maps


class MobileNetV2(Perceptual, nn.Module):
    """MobileNetV2 (Sandler et al. 2018, table 2) without its classifier: frozen, for features and FD-MNv2.

    `.to(torch.bfloat16)` and `.to(memory_format=torch.channels_last)` make it compute so.
    """

    #          expansion, channels, repeats, stride of the first
    STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
              (6, 320, 1, 1))  # fmt: skip
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

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Read a .safetensors file with torchvision's names; ValueError names missing or extra tensors."""
        return cls.from_torchvision(read_weights(path))

    @classmethod
    def from_torchvision(cls, tensors: dict[str, Tensor]) -> Self:
        """Load torchvision-named tensors strictly, and fold the batch norms into the convolutions."""
        trunk = {k: v for k, v in tensors.items() if not k.startswith("classifier.")}  # no classes wanted
        return fold_batch_norm(load_strictly(cls(), rename(trunk, {"features.": "blocks."})))

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode, also inside a model being trained: it is frozen."""
        return super().train(False)

    def features(self, images: Tensor) -> list[Tensor]:
        """Maps of 24, 32, 96, 320 channels at strides 4, 8, 16, 32 of images (n,3,h,w) in [-1,1]."""
        x, maps = self._input(images), []
        for i, block in enumerate(self.blocks[: self.TAPS[-1] + 1]):
            x = block(x)
            if i in self.TAPS:
                maps.append(x)
        return maps

    def embed(self, images: Tensor) -> Tensor:
        """What the classifier would see: the pooled last activation (n,1280), fp32."""
        return self.blocks(self._input(images)).float().mean((2, 3))

    def _input(self, images: Tensor) -> Tensor:
        check_images(images, min_size=1)
        return imagenet_range(self, images).to(self.blocks[0][0].weight.dtype)


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1; skip where shapes allow (Sandler et al. 2018, figure 3)."""

    def __init__(self, c_in: int, c_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = c_in * expansion
        expand = [conv_bn_relu6(c_in, hidden, 1)] if expansion > 1 else []
        depthwise = conv_bn_relu6(hidden, hidden, 3, stride, groups=hidden)
        project = [nn.Conv2d(hidden, c_out, 1, bias=False), nn.BatchNorm2d(c_out)]
        self.conv = nn.Sequential(*expand, depthwise, *project)
        self.skip = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:  # (n,c_in,h,w) -> (n,c_out,h/stride,w/stride)
        return x + self.conv(x) if self.skip else self.conv(x)


def conv_bn_relu6(c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU6: the brick of MobileNetV2."""
    conv = nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.ReLU6())


def fold_batch_norm(network: MobileNetV2) -> MobileNetV2:
    """Fold each batch norm after a convolution of a Sequential into it, in place: same outputs."""
    for sequence in [m for m in network.modules() if isinstance(m, nn.Sequential)]:
        for i in range(len(sequence) - 1):
            if isinstance(sequence[i], nn.Conv2d) and isinstance(sequence[i + 1], nn.BatchNorm2d):
                sequence[i] = fuse_conv_bn_eval(sequence[i], sequence[i + 1])
                sequence[i + 1] = nn.Identity()
    return network.requires_grad_(False)


# ---------------------------------------------------------------- parts of the distance


def unit_length(features: Tensor) -> Tensor:
    """(n,c,h,w) -> the same with length 1 over channels; the epsilon keeps the gradient at zero finite."""
    return features * (features.square().sum(1, keepdim=True) + 1e-10).rsqrt()


def interest_mean(distance_map: Tensor, interest: Tensor) -> Tensor:
    """Mean (n,) of a map (n,1,h,w) over interest (n,1,H,W), area-pooled to the map; 0 where it is empty."""
    weight = F.interpolate(interest.to(distance_map), size=distance_map.shape[-2:], mode="area")
    total = weight.sum((1, 2, 3))
    return (distance_map * weight).sum((1, 2, 3)) / total.clamp(min=torch.finfo(total.dtype).tiny)


def add_imagenet_range(module: nn.Module) -> None:
    """Register the shift and scale of `imagenet_range`, outside the state dict."""
    for name, value in (("shift", IMAGENET_SHIFT), ("scale", IMAGENET_SCALE)):
        module.register_buffer(name, torch.tensor(value).view(1, 3, 1, 1), persistent=False)


def imagenet_range(module: nn.Module, images: Tensor) -> Tensor:
    """Images (n,3,h,w) in [-1,1], moved to the module's device -> normalised for ImageNet, fp32, channels last."""
    x = (images.to(module.shift.device, torch.float32) - module.shift.float()) / module.scale.float()
    return x.contiguous(memory_format=torch.channels_last)


def check_images(images: Tensor, min_size: int) -> None:
    """Raise ValueError unless images is a float tensor (n,3,h,w) of at least min_size pixels a side."""
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        given = f"{images.dtype} {tuple(images.shape)}"
        raise ValueError(f"perceptual networks see float images (n,3,h,w) in [-1,1], got {given}: convert them")
    if min(images.shape[-2:]) < min_size:
        given = f"{images.shape[-1]}x{images.shape[-2]}"
        raise ValueError(f"images of {given} px are too small for this network: enlarge them to {min_size} px")


def check_interest(interest: Tensor, num: int) -> None:
    """Raise ValueError unless interest is (n,1,h,w) for n images."""
    if interest.ndim != 4 or interest.shape[:2] != (num, 1):
        raise ValueError(f"interest must be ({num},1,h,w) for {num} images, got {tuple(interest.shape)}")


# ---------------------------------------------------------------- other people's files


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors file; FileNotFoundError or ValueError says what is wrong with it."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist: expected a .safetensors file with perceptual weights")
    return read_tensors(Path(path))


def file_sha256(path: str | Path) -> str:
    """sha256 of a file, 64 hex digits: names the weights behind a number."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def rename(tensors: dict[str, Tensor], prefixes: dict[str, str]) -> dict[str, Tensor]:
    """Replace the leading prefix of each key; keys without one of the prefixes stay as they are."""
    found = {key: next((p for p in prefixes if key.startswith(p)), "") for key in tensors}
    return {prefixes.get(p, "") + key.removeprefix(p): tensors[key] for key, p in found.items()}


def load_strictly(network: Net, tensors: dict[str, Tensor]) -> Net:
    """Fill the network, upcast to its dtype; ValueError names what is missing, extra or misshapen."""
    own = network.state_dict()
    faults = {
        "missing": sorted(own.keys() - tensors.keys()),
        "extra": sorted(tensors.keys() - own.keys()),
        "misshapen": sorted(k for k in own.keys() & tensors.keys() if own[k].shape != tensors[k].shape),
    }
    if any(faults.values()):
        told = "; ".join(f"{kind}: {', '.join(keys)}" for kind, keys in faults.items() if keys)
        raise ValueError(f"these weights are no {type(network).__name__} ({told}): check the file")
    network.load_state_dict(tensors)
    return network


def _from_file(path: Path) -> PerceptualNet | MobileNetV2:
    """LPIPS-Alex or MobileNetV2, whichever the tensor names say."""
    tensors = read_weights(path)
    if "lin0.weight" in tensors:
        return PerceptualNet.from_lpips(tensors)
    return MobileNetV2.from_torchvision(tensors)
