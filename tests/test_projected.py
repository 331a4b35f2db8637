"""The discriminator on frozen features: what it sees, what learns in it, and that a run with it resumes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from stages import do
from test_perceptual import mobilenet_tensors
from test_selfdistillation import write_blobs

from hfgan.losses import hinge_d
from hfgan.models.perceptual import MobileNetV2
from hfgan.models.projected import ProjectedDiscriminator, SpectralConv2d


@pytest.fixture(scope="module")
def backbone() -> MobileNetV2:
    torch.manual_seed(0)
    return MobileNetV2.from_torchvision(mobilenet_tensors())


@pytest.mark.parametrize(("size", "logits"), [(64, 3 * 16 + 4), (128, 4 * 16), (256, 4 * 16)])
def test_every_scale_is_judged_on_a_coarse_grid(backbone: MobileNetV2, size: int, logits: int) -> None:
    net = ProjectedDiscriminator(backbone, size=size)
    assert net(torch.rand(4, 3, 32, 32) * 2 - 1).shape == (4, logits)


def test_gradients_reach_image_and_heads_and_nothing_frozen(backbone: MobileNetV2) -> None:
    net = ProjectedDiscriminator(backbone, size=64)
    image = (torch.rand(4, 3, 64, 64) * 2 - 1).requires_grad_()
    net(image).mean().backward()
    assert image.grad.abs().sum() > 0
    assert all(p.grad is not None for p in net.heads.parameters())
    assert all(p.grad is None for p in backbone.parameters())
    assert not any(name.startswith("backbone") for name in net.trainable_state())


def test_a_logit_of_the_finest_scale_sees_far(backbone: MobileNetV2) -> None:
    """Halving maps: one logit of the finest scale answers to more than half of the image's width."""
    net = ProjectedDiscriminator(backbone, size=128)
    maps = [torch.randn(1, 64, 32, 32, requires_grad=True)]
    net.heads = net.heads[:1]
    net.logits(maps)[0, 5].backward()
    seen = maps[0].grad.abs().sum(dim=(0, 1)) > 0  # the deviation channel is constant for one sample
    assert seen.any(dim=0).sum() > 16


def test_spectral_norm_is_one(backbone: MobileNetV2) -> None:
    conv = SpectralConv2d(8, 8)
    identity = torch.eye(8 * 9).unflatten(1, (8, 3, 3))  # every patch once
    with torch.no_grad():
        conv.bias.zero_()
        seen = conv(identity)[:, :, 1, 1]  # (patches, 8): the kernel as a matrix
    assert torch.linalg.matrix_norm(seen, ord=2).item() == pytest.approx(1, abs=1e-3)


def test_heads_learn_to_tell_two_kinds_of_maps(backbone: MobileNetV2) -> None:
    torch.manual_seed(0)
    net = ProjectedDiscriminator(backbone, size=64)
    optimizer = torch.optim.Adam(net.heads.parameters(), lr=0.01)
    fake = [torch.randn(8, 64, s, s) for s in (16, 8, 4, 2)]
    real = [x + torch.linspace(-1, 1, 64).view(-1, 1, 1) for x in fake]  # another mean in every channel
    for _ in range(30):
        hinge_d(net.logits(real), net.logits(fake)).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert net.logits(real).mean() > net.logits(fake).mean() + 1


def test_a_run_with_projected_features_resumes_bit_for_bit(tmp_path: Path) -> None:
    save_file(mobilenet_tensors(), tmp_path / "mobilenet.safetensors")
    write_blobs(tmp_path / "photos", 24)
    flags = ["--preset", "toy", "--data", str(tmp_path / "photos"), "--projected-size", "32", "--images", "48",
             "--projected", str(tmp_path / "mobilenet.safetensors"), "--save-every", "16"]  # fmt: skip
    do("generator", *flags, "--out", str(tmp_path / "whole"))
    do("generator", *flags, "--out", str(tmp_path / "cut"), "--minutes", "0.00001")
    assert json.loads(max((tmp_path / "cut").glob("checkpoint-*/state.json")).read_text())["images_seen"] < 48
    do("generator", *flags, "--out", str(tmp_path / "cut"))
    states = [load_file(max((tmp_path / n).glob("checkpoint-*")) / "state.safetensors") for n in ("whole", "cut")]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert any(key.startswith("projected.heads") for key in states[0])
