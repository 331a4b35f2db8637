"""The networks of a generator run with their optimizers: built, saved, restored, started from others, published."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import run
import torch
from torch import Tensor, nn
from torch.optim import Adam

from hfgan.cards import Heritage, heritage
from hfgan.models.base import auto_dtype
from hfgan.models.discriminator import StyleGAN2Discriminator
from hfgan.models.perceptual import MobileNetV2
from hfgan.models.projected import ProjectedDiscriminator
from hfgan.models.reconstructor import ReconstructionEncoder
from hfgan.models.stylegan2 import StyleGAN2Generator
from hfgan.parts import CARD
from hfgan.pipeline import HFGan

if TYPE_CHECKING:
    from generator import Config


ENCODER_LR = 0.25  # of the generator's learning rate: a faster encoder makes all its images one


@dataclass
class Networks:
    """generator and its moving average, discriminator, projected one and encoder where wanted, their optimizers."""

    generator: StyleGAN2Generator
    average: StyleGAN2Generator
    discriminator: StyleGAN2Discriminator
    projected: ProjectedDiscriminator | None
    reconstructor: ReconstructionEncoder | None
    reconstructor_average: ReconstructionEncoder | None
    optimizers: dict[str, Adam]
    inherited: Heritage  # of the model that training started from

    @property
    def device(self) -> torch.device:
        return self.generator.mapping.w_avg.device

    def modules(self) -> dict[str, nn.Module]:
        names = ("generator", "average", "discriminator", "projected", "reconstructor", "reconstructor_average")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def sizes(self) -> dict[str, int]:
        """Trainable parameters of each network."""
        return {
            f"parameters_{name}": sum(p.numel() for p in module.parameters() if p.requires_grad)
            for name, module in self.modules().items()
            if not name.endswith("average")
        }

    def checkpoint_bytes(self) -> int:
        """Size of a checkpoint [bytes]: weights, average and two moments in fp32."""
        return 16 * sum(self.sizes().values())

    def to(self, device: torch.device) -> None:
        for module in self.modules().values():
            module.to(device)
        for optimizer in self.optimizers.values():  # moments follow their parameters
            optimizer.load_state_dict(optimizer.state_dict())

    def train_only(self, *names: str) -> None:
        """Let gradients reach the parameters of these optimizers only."""
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.requires_grad_(name in names)

    def tensors(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, by name."""
        found: dict[str, Tensor] = {}
        for name, module in self.modules().items():
            state = module.trainable_state() if name == "projected" else module.state_dict()
            found |= {f"{name}.{k}": v for k, v in state.items()}
        for name, optimizer in self.optimizers.items():
            found |= run.optimizer_tensors(optimizer, f"adam_{name}")
        return found

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Inverse of `tensors`."""
        for name, module in self.modules().items():
            state = run.part(tensors, name)
            if name == "projected":
                state |= {k: v for k, v in module.state_dict().items() if k.startswith("backbone.")}
            module.load_state_dict(state)
        for name, optimizer in self.optimizers.items():
            run.load_optimizer(optimizer, tensors, f"adam_{name}")

    def publish(self, path: Path) -> None:
        """Write the averaged generator and encoder and the discriminator as a model folder."""
        parts = {"discriminator": self.discriminator, "reconstructor": self.reconstructor_average}
        gan = HFGan(generator=self.average, **parts)
        gan.inherited = self.inherited
        run.publish(gan, path)


def build_networks(config: Config, num_classes: int, device: torch.device) -> Networks:
    """Networks on the CPU for use on `device`, with random weights that depend on the seed alone."""
    sizes = {
        "resolution": config.resolution, "img_channels": config.img_channels, "c_dim": num_classes,
        "channel_base": config.channel_base, "channel_max": config.channel_max,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        generator = StyleGAN2Generator(
            **sizes, z_dim=config.z_dim, w_dim=config.w_dim, mapping_layers=config.mapping_layers
        )
        discriminator = StyleGAN2Discriminator(**sizes)
        projected = None
        if config.projected:
            projected = ProjectedDiscriminator(MobileNetV2.from_file(config.projected), size=config.projected_size)
        encoder = ReconstructionEncoder.beside(generator, None) if config.reconstructor else None
    average, encoder_average = (copy.deepcopy(m).eval().requires_grad_(False) if m else None
                                for m in (generator, encoder))  # fmt: skip
    dtype = auto_dtype(device) if config.precision == "auto" else getattr(torch, config.precision)
    for network in filter(None, (generator, average, discriminator, encoder, encoder_average)):
        network.set_compute_dtype(dtype)
    learners = [discriminator] if projected is None else [discriminator, projected.heads]
    if projected is not None:
        projected.compute_dtype = dtype
    optimizers = {
        "generator": lazy_adam(list(generator.parameters()), config.lr, config.pl_every),
        "discriminator": lazy_adam([p for m in learners for p in m.parameters()], config.lr, config.r1_every),
    }
    if encoder is not None:
        optimizers["reconstructor"] = lazy_adam(list(encoder.parameters()), config.lr * ENCODER_LR, 0)
    start = config.init or config.grow_from
    inherited = heritage(HFGan.download(start) / CARD) if start else Heritage()
    return Networks(generator, average, discriminator, projected, encoder, encoder_average, optimizers, inherited)


def lazy_adam(parameters: list[nn.Parameter], lr: float, every: int) -> Adam:
    """Adam(0, 0.99) corrected for an extra penalty step every `every` iterations (arXiv 1912.04958 appendix B)."""
    c = every / (every + 1) if every else 1.0
    return Adam(parameters, lr=lr * c, betas=(0.0, 0.99**c), eps=1e-8, fused=True)


def load_start(nets: Networks, config: Config) -> None:
    """Start from a published model of the same shape, or of half the resolution."""
    source = HFGan.from_pretrained(config.init or config.grow_from, dtype="float32")
    if source.discriminator is None:
        raise run.UserError(f"{config.init or config.grow_from} has no discriminator: it cannot be trained further")
    if (clamp := source.generator.config.conv_clamp) is not None:
        print(f"the start model limits its activations to {clamp:g}: training goes on without a limit")
    if config.init:
        _copy_all(nets.generator, source.generator.state_dict())
        _copy_all(nets.discriminator, source.discriminator.state_dict())
        if nets.reconstructor is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.seed)
                encoder = source.reconstructor or ReconstructionEncoder.beside(source.generator, source.discriminator)
            _copy_all(nets.reconstructor, encoder.state_dict())
            nets.reconstructor_average.load_state_dict(encoder.state_dict())
    else:
        grow_generator(nets.generator, source.generator)
        grow_discriminator(nets.discriminator, source.discriminator)
    nets.average.load_state_dict(nets.generator.state_dict())


@torch.no_grad()
def grow_generator(large: StyleGAN2Generator, small: StyleGAN2Generator) -> None:
    """Copy a generator of half the resolution; the new block adds nothing yet: images start as its upsampled ones."""
    if 2 * small.config.resolution != large.config.resolution:
        raise run.UserError(
            f"--grow-from has {small.config.resolution} pixels: expected {large.config.resolution // 2}"
        )
    _copy_all(large, small.state_dict())
    large.synthesis.blocks[-1].torgb.weight.zero_()


@torch.no_grad()
def grow_discriminator(large: StyleGAN2Discriminator, small: StyleGAN2Discriminator) -> None:
    """Copy a discriminator of half the resolution behind a new first block."""
    shifted = {}
    for name, value in small.state_dict().items():
        if name.startswith("blocks."):
            _, index, rest = name.split(".", 2)
            name = f"blocks.{int(index) + 1}.{rest}"
        if not name.startswith("fromrgb."):
            shifted[name] = value
    _copy_all(large, shifted)


def _copy_all(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    state = module.state_dict()
    wrong = [k for k, v in tensors.items() if k not in state or state[k].shape != v.shape]
    if wrong:
        raise run.UserError(
            f"the start model has other sizes ({', '.join(wrong[:3])} ...): give the --preset that it was trained "
            "with, or the same --resolution, --channel-base, --channel-max, --z-dim, --w-dim and --mapping-layers"
        )
    module.load_state_dict(state | tensors)
