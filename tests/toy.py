"""A small untrained model in a folder, for the tests of the command line and of the app."""

from __future__ import annotations

from pathlib import Path

import torch

from hfgan import HFGan, StyleGAN2Generator


def save_toy(folder: Path, *, seed: int = 0, resolution: int = 16, c_dim: int = 0) -> Path:
    """Save a random model whose pictures differ from seed to seed; returns its folder."""
    torch.manual_seed(seed)
    sizes = {"z_dim": 16, "w_dim": 16, "mapping_layers": 1, "channel_base": 256, "channel_max": 16}
    generator = StyleGAN2Generator(resolution=resolution, c_dim=c_dim, **sizes)
    HFGan(generator=generator).save_pretrained(folder)
    return folder
