"""A small untrained model in a folder, for the tests of the command line and of the app."""

from __future__ import annotations

from pathlib import Path

import torch

from hfgan import (
    AlphaNetwork,
    Direction,
    DirectionSet,
    HFGan,
    InterestEncoder,
    MattingNetwork,
    StyleGAN2Generator,
    WStats,
)
from hfgan.modes import make_bank


def save_toy(
    folder: Path, *, seed: int = 0, resolution: int = 16, c_dim: int = 0, num_modes: int = 0, alpha: bool = False,
    encoder: bool = False, directions: bool = False,
) -> Path:  # fmt: skip
    """Save a random model whose pictures differ from seed to seed, also with alpha and matting, with an encoder, with
    directions; returns its folder.
    """
    torch.manual_seed(seed)
    sizes = {"z_dim": 16, "w_dim": 16, "mapping_layers": 1, "channel_base": 256, "channel_max": 16}
    generator = StyleGAN2Generator(resolution=resolution, c_dim=c_dim, **sizes)
    bank = None
    if num_modes:
        with torch.no_grad():
            w = generator.mapping(torch.randn(200, 16))
        bank = make_bank(generator, w, w[:num_modes])
    parts = {}
    if alpha:
        matting = MattingNetwork(resolution=resolution, widths=(8, 16))
        for net in (matting, parts.setdefault("alpha", AlphaNetwork.beside(generator, hidden_dim=4))):
            net.out.weight.data.mul_(20)  # an alpha that uses its range
        parts["matting"] = matting
    if encoder:
        parts["encoder"] = InterestEncoder.beside(generator, bank)
        torch.nn.init.normal_(parts["encoder"].out.weight, std=0.02)  # steps that lead somewhere
    if directions:
        parts["directions"] = DirectionSet.of(make_directions(generator), generator)
    HFGan(generator=generator, modes=bank, **parts).save_pretrained(folder)
    return folder


def make_directions(generator: StyleGAN2Generator) -> list[Direction]:
    """Two that are measured, smile and zoom, and one of single layers that nothing measures, odd."""
    stats, source = WStats.of(generator, samples=500), torch.Generator().manual_seed(7)
    normals = torch.randn(2, 16, generator=source).double()
    spread = (normals @ stats.cov * normals).sum(1, keepdim=True).sqrt()
    fingerprint = generator.fingerprint()
    rows = zip(("smile", "zoom"), normals @ stats.cov / spread, normals / spread, strict=True)
    measured = [Direction(name, step, normal, 0.25, fingerprint=fingerprint) for name, step, normal in rows]
    steps = torch.randn(generator.num_ws, 16, generator=source)
    return [*measured, Direction("odd", steps, layers=(0, 2), kind="imported", fingerprint=fingerprint)]
