"""What is computed in parts equals what is computed at once: pictures, gradients, and whole stages of training."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_selfdistillation import write_blobs
from torch import nn
from toy import save_toy

from hfgan import AlphaNetwork, HFGan, StyleGAN2Generator, memory
from hfgan.models.discriminator import StyleGAN2Discriminator
from hfgan.models.reconstructor import ReconstructionEncoder

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

import alphastep
import step
import train

ONE = 16 * 16**2  # values of a toy picture's largest activation


@pytest.fixture
def gan(tmp_path: Path) -> HFGan:
    return HFGan.from_pretrained(save_toy(tmp_path, alpha=True), dtype="float32")


def test_a_cpu_is_given_few_large_pictures_at_once() -> None:
    cpu = torch.device("cpu")
    assert [memory.at_once(16, size, 32768 // size, cpu) for size in (128, 256, 512, 1024)] == [16, 8, 4, 2]
    assert memory.at_once(50, 64, 512, cpu) == 32
    assert memory.at_once(16, 1024, 512, cpu) == 1
    assert memory.at_once(16, 1024, 32, torch.device("cuda")) == 16


def test_parts_equal_the_whole_and_so_do_their_gradients() -> None:
    torch.manual_seed(0)
    layer, x, scale = nn.Linear(3, 2), torch.randn(7, 3, requires_grad=True), torch.randn(1, 2)
    seen = []

    def function(x: torch.Tensor, y: torch.Tensor, scale: torch.Tensor, text: str) -> tuple[torch.Tensor, ...]:
        seen.append((len(x), len(scale), text))
        return layer(x).tanh() * scale, y + 1

    def all_of(size: int) -> list[torch.Tensor]:
        first, second = memory.in_parts(function, size, x, torch.arange(7), scale, "told")
        slopes = torch.autograd.grad(first.square().sum(), [x, *layer.parameters()])
        return [first, second, *slopes]

    whole, parts = all_of(7), all_of(3)
    assert seen[:4] == [(7, 1, "told"), (3, 1, "told"), (3, 1, "told"), (1, 1, "told")]
    assert len(seen) == 7  # each part again in the backward pass
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(whole, parts, strict=True))
    with torch.no_grad():
        assert torch.equal(memory.in_parts(lambda x: x * 2, 2, x), x * 2)


@pytest.mark.parametrize("noise_mode", ["const", "random", "none"])
def test_pictures_and_alpha_are_drawn_with_the_noise_of_all(
    noise_mode: str, gan: HFGan, monkeypatch: pytest.MonkeyPatch
) -> None:
    w_plus, net = torch.randn(5, gan.generator.num_ws, 16), gan.alpha.requires_grad_(True)
    for conv in gan.generator.synthesis.convs():
        nn.init.constant_(conv.noise_strength, 0.5)
    found = {}
    for values in (memory.VALUES, 2 * ONE):
        monkeypatch.setattr(memory, "VALUES", values)
        source = torch.Generator().manual_seed(0)
        image, logit = memory.draw_with_alpha(gan.generator, net, w_plus, noise_mode, source)
        (slope,) = torch.autograd.grad(logit.sum(), net.out.weight)
        found[values] = [image, logit, slope / len(w_plus)]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*found.values(), strict=True))
    again = gan.generator.synthesis(w_plus, noise_mode, torch.Generator().manual_seed(0))
    assert torch.allclose(found[2 * ONE][0], again, atol=1e-5)


def test_a_large_batch_of_samples_is_drawn_in_parts(gan: HFGan, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, sizes = gan.sample(5, seed=3, noise_mode="random"), []
    monkeypatch.setattr(memory, "VALUES", 2 * ONE)
    draw = gan.generator.synthesis.draw
    monkeypatch.setattr(gan.generator.synthesis, "draw", lambda w, *rest: sizes.append(len(w)) or draw(w, *rest))
    parts = gan.sample(5, seed=3, noise_mode="random")
    assert sizes == [2, 2, 1]
    for one, other in zip(whole.images, parts.images, strict=True):
        assert max(abs(a - b) for a, b in zip(one.tobytes(), other.tobytes(), strict=True)) <= 1


@pytest.mark.parametrize(("count", "group"), [(8, 4), (6, 3), (5, 1)])
def test_the_discriminator_compares_the_same_images_in_parts(
    count: int, group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    net, image = StyleGAN2Discriminator(resolution=16, channel_base=256, channel_max=16), torch.randn(count, 3, 16, 16)

    class Nets:
        discriminator = net

    one = alphastep.Step.__new__(alphastep.Step)
    one.nets, one.step = Nets(), lambda _: None
    whole, penalty = one.judge(image), one.penalise(image, 2.0)
    slopes = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    monkeypatch.setattr(memory, "VALUES", 2 * ONE)
    assert alphastep.grouped(net, count).shape == (count // group, group)
    assert torch.allclose(one.judge(image), whole, atol=1e-5)
    assert one.penalise(image, 2.0) == pytest.approx(penalty, rel=1e-4)
    assert len(slopes) > 10
    assert all(torch.allclose(net.get_parameter(name).grad, slope, atol=1e-4) for name, slope in slopes.items())


def test_microbatches_hold_whole_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    net = StyleGAN2Discriminator(resolution=16, channel_base=256, channel_max=16)
    assert step.microbatch(net, 32) == 32
    monkeypatch.setattr(memory, "VALUES", 2 * ONE)
    assert [step.microbatch(net, share) for share in (32, 6, 2, 1)] == [4, 3, 2, 1]


@pytest.mark.parametrize(
    ("stage", "flags"),
    [
        ("alpha", ["--bootstrap-images", "8", "--images", "16", "--batch", "8", "--r1-every", "1"]),
        ("matting", ["--images", "16", "--batch", "8", "--photos-from", "8"]),
        ("encoder", ["--images", "16", "--batch", "8"]),
        ("reconstructor", ["--images", "16", "--batch", "8"]),
    ],
)
def test_a_stage_in_parts_learns_the_same(
    stage: str, flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_blobs(tmp_path / "photos", 12)
    torch.manual_seed(1)
    size = {"resolution": 16, "channel_base": 256, "channel_max": 16, "z_dim": 16, "w_dim": 16, "mapping_layers": 1}
    generator = StyleGAN2Generator(**size)
    parts = {"alpha": AlphaNetwork.beside(generator, hidden_dim=4)}
    parts["reconstructor"] = ReconstructionEncoder.beside(generator, None)
    nn.init.normal_(parts["reconstructor"].out.weight, std=0.1)
    parts["alpha"].out.weight.data.mul_(20)  # an alpha that uses its range
    HFGan(generator=generator, **parts).save_pretrained(tmp_path / "model")
    given = ["--model", str(tmp_path / "model"), "--data", str(tmp_path / "photos"), "--precision", "float32", *flags]
    found, again = [], []
    checkpoint = memory.checkpoint
    monkeypatch.setattr(memory, "checkpoint", lambda *rows, **how: again.append(0) or checkpoint(*rows, **how))
    for name, values in (("whole", memory.VALUES), ("parts", 3 * ONE)):
        monkeypatch.setattr(memory, "VALUES", values)
        assert not again
        assert train.main([stage, *given, "--out", str(tmp_path / name)]) == 0
        found.append(load_file(tmp_path / name / "checkpoint-000000000016" / "state.safetensors"))
    assert again
    whole, parts = found
    for key in [key for key in whole if not key.startswith("adam")]:
        assert (whole[key] - parts[key]).abs().float().mean() < 2e-5, key  # Adam moves all by hundred times as much
