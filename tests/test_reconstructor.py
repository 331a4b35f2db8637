"""The reconstruction encoder at toy size: where it starts, what it takes over, that it learns to invert."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hfgan import HFGan, ReconstructionEncoder, StyleGAN2Discriminator, StyleGAN2Generator
from hfgan.sampling import broadcast

SIZES = {"resolution": 16, "channel_base": 256, "channel_max": 16}


@pytest.fixture
def generator() -> StyleGAN2Generator:
    torch.manual_seed(0)
    generator = StyleGAN2Generator(**SIZES, z_dim=16, w_dim=16, mapping_layers=1)
    generator.mapping.w_avg.copy_(torch.randn(16))
    return generator


def test_an_untrained_encoder_answers_the_mean(generator: StyleGAN2Generator) -> None:
    encoder = ReconstructionEncoder.beside(generator, None)
    w = encoder(torch.randn(3, 3, 16, 16))
    assert w.shape == (3, 16)
    assert w.dtype == torch.float32
    assert torch.equal(w, generator.mapping.w_avg.expand(3, -1))


def test_the_trunk_of_a_fitting_discriminator_is_taken_over(generator: StyleGAN2Generator) -> None:
    discriminator = StyleGAN2Discriminator(**SIZES)
    encoder = ReconstructionEncoder.beside(generator, discriminator)
    for name, value in discriminator.state_dict().items():
        if name.startswith(("fromrgb", "blocks")):
            assert torch.equal(encoder.state_dict()[name], value), name
    other = ReconstructionEncoder.beside(generator, StyleGAN2Discriminator(**SIZES | {"channel_max": 8}))
    assert not torch.equal(other.fromrgb.weight, discriminator.fromrgb.weight)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_image_channels(channels: int) -> None:
    encoder = ReconstructionEncoder(**SIZES, img_channels=channels, w_dim=8).bfloat16()
    assert encoder(torch.randn(2, channels, 16, 16)).shape == (2, 8)


def test_it_learns_to_invert_drawn_images(generator: StyleGAN2Generator) -> None:
    """Enough steps on E(G(w)) = w halve the error: gradients reach all of it."""
    encoder = ReconstructionEncoder.beside(generator, None)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=0.003)
    with torch.no_grad():
        w = generator.mapping(torch.randn(64, 16))
        image = generator.synthesis(broadcast(w, generator.num_ws))
    before = (encoder(image) - w).square().mean().item()
    for _ in range(60):
        (encoder(image) - w).square().mean().backward()
        optimizer.step()
        untouched = [name for name, p in encoder.named_parameters() if p.grad is None]
        optimizer.zero_grad()
    assert not untouched
    assert (encoder(image) - w).square().mean().item() < before / 2


def test_a_model_keeps_its_encoder(generator: StyleGAN2Generator, tmp_path: Path) -> None:
    encoder = ReconstructionEncoder.beside(generator, None)
    torch.nn.init.normal_(encoder.out.weight)
    HFGan(generator=generator, reconstructor=encoder).save_pretrained(tmp_path)
    again = HFGan.from_pretrained(tmp_path, dtype="float32")
    image = torch.randn(2, 3, 16, 16)
    assert torch.equal(again.reconstructor(image), encoder(image))
    HFGan(generator=generator).save_pretrained(tmp_path / "without")
    with pytest.raises(RuntimeError, match=r"no reconstructor: .* training/train.py reconstructor`"):
        HFGan.from_pretrained(tmp_path / "without").part("reconstructor")
