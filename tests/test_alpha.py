"""The alpha network at toy size: what it keeps of the generator's activations, whose it is, that it can learn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from hfgan import AlphaNetwork, HFGan, StyleGAN2Generator
from hfgan.models.alpha import AlphaStream, layer_resolution
from hfgan.sampling import broadcast

SHAPES = {
    "paper": {"per_resolution": 2, "hidden_dim": 6, "kernel_size": 1, "first_resolution": 4, "trunk_resolution": 16},
    "default": {},
    "late": {"first_resolution": 8, "trunk_resolution": 16},
}


def make_generator(resolution: int = 32) -> StyleGAN2Generator:
    torch.manual_seed(0)
    sizes = {"z_dim": 16, "w_dim": 16, "mapping_layers": 1, "channel_base": 512, "channel_max": 16}
    generator = StyleGAN2Generator(resolution=resolution, **sizes)
    for name, parameter in generator.synthesis.named_parameters():
        if name.endswith("bias") and "affine" not in name:  # zero at the start
            torch.nn.init.normal_(parameter)
    return generator


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("resolution", [16, 32, 64, 128])
def test_every_size_has_an_alpha_of_the_image_s_size(shape: dict, resolution: int) -> None:
    generator = make_generator(resolution)
    net = AlphaNetwork.beside(generator, **shape)
    w_plus = torch.randn(2, generator.num_ws, 16)
    image, logit = net(generator, w_plus)
    assert logit.shape == (2, 1, resolution, resolution)
    assert logit.dtype == torch.float32
    assert torch.equal(image, generator.synthesis(w_plus))
    single = net(generator, w_plus[1:])[1]
    torch.testing.assert_close(logit[1:], single, rtol=0, atol=1e-4)


def test_it_is_the_sum_that_the_paper_writes() -> None:
    """The stream's result against all activations kept and merged as section 3 has it."""
    generator = make_generator(32)
    net = AlphaNetwork.beside(generator, **SHAPES["paper"])
    seen: dict[int, torch.Tensor] = {}
    w_plus = torch.randn(2, generator.num_ws, 16)
    generator.synthesis(w_plus, tap=seen.__setitem__)

    def up(x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear")

    def e(size: int) -> torch.Tensor:
        return sum(net.taps[str(k)](seen[k]) for k in seen if layer_resolution(k) == size)

    h = F.leaky_relu(e(4), 0.2)
    for size in (8, 16):
        h = F.leaky_relu(e(size) + up(net.lifts[str(size // 2)](h)), 0.2)
    expected = e(32) + up(net.out(h))
    torch.testing.assert_close(net(generator, w_plus)[1], expected, rtol=1e-4, atol=1e-5)


def test_enlarging_displaces_nothing() -> None:
    """The published upsampling moves what lies at the border by pixels; a centroid stays where it is here."""
    from hfgan.models.alpha import enlarge

    x = torch.zeros(1, 1, 8, 8)
    x[..., 1, 6] = 1
    y, ruler = enlarge(x), (torch.arange(16) + 0.5) / 2 - 0.5  # centres of the new pixels in old ones
    assert (y.sum((0, 1, 3)) @ ruler / y.sum()).item() == pytest.approx(1)
    assert (y.sum((0, 1, 2)) @ ruler / y.sum()).item() == pytest.approx(6)


def test_gradients_reach_all_of_it_and_nothing_of_the_generator() -> None:
    generator = make_generator().requires_grad_(False)
    net = AlphaNetwork.beside(generator)
    net(generator, torch.randn(2, generator.num_ws, 16))[1].square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    assert all(p.grad is None for p in generator.parameters())


def test_it_can_learn_what_the_picture_shows() -> None:
    """Which half of the range a pixel of the image lies in is told by its activations."""
    generator = make_generator().requires_grad_(False)
    net, w_plus = AlphaNetwork.beside(generator), broadcast(torch.randn(16, 16), 8)
    image = generator.synthesis(w_plus).mean(1, keepdim=True)
    wanted = (image > image.median()).float()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    losses = []
    for _ in range(80):
        loss = F.binary_cross_entropy_with_logits(net(generator, w_plus)[1], wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_only_projections_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """No activation outlives the call in which it was seen."""
    generator = make_generator()
    net, alive = AlphaNetwork.beside(generator), []
    stream = AlphaStream(net)

    def tap(layer: int, x: torch.Tensor) -> None:
        stream(layer, x)
        alive.append(0 if stream.state is None else stream.state.numel() / x.numel())

    with torch.no_grad():
        generator.synthesis(torch.randn(1, generator.num_ws, 16), tap=tap)
    assert max(alive) < 4  # at most 12 of 16 channels, and after enlarging four times as many pixels
    assert set(vars(stream)) == {"net", "state"}


def test_bfloat16_says_the_same_and_ends_in_fp32() -> None:
    generator = make_generator()
    net, w_plus = AlphaNetwork.beside(generator), torch.randn(4, generator.num_ws, 16)
    exact = net(generator, w_plus)[1]
    generator.bfloat16()
    found = net(generator, w_plus)[1]
    assert found.dtype == torch.float32
    assert (found - exact).abs().mean() < 0.05 * exact.std()


@pytest.mark.parametrize("layer", [-1, 0, 1, 2])
def test_a_background_forgets_what_came_before_the_silence(layer: int) -> None:
    """Styles of earlier layers do not matter any more; those of later ones do."""
    generator = make_generator()
    w_plus = torch.randn(1, generator.num_ws, 16)
    others = w_plus.clone()
    others[:, : layer + 1] += 1
    assert layer < 0 or not torch.equal(generator.synthesis(w_plus), generator.synthesis(others))
    # earlier tRGB layers still add their colours, so the comparison is of activations
    seen: list[dict] = [{}, {}]
    for w, kept in zip((w_plus, others), seen, strict=True):
        generator.synthesis(w, silenced=layer, tap=kept.__setitem__)
    last = max(seen[0])
    assert torch.equal(seen[0][last], seen[1][last])
    changed = w_plus.clone()
    changed[:, -2] += 1
    assert not torch.equal(generator.synthesis(w_plus, silenced=layer), generator.synthesis(changed, silenced=layer))


def test_it_refuses_another_generator(tmp_path: Path) -> None:
    generator = make_generator()
    net = AlphaNetwork.beside(generator)
    HFGan(generator=generator, alpha=net).save_pretrained(tmp_path / "a")
    torch.manual_seed(9)
    other = StyleGAN2Generator(resolution=32, z_dim=16, w_dim=16, mapping_layers=1, channel_base=512, channel_max=16)
    with pytest.raises(ValueError, match=r"belongs to a generator with weights .* load the model that it came with"):
        HFGan(generator=other, alpha=net)
    other.save_pretrained(tmp_path / "a" / "generator")
    with pytest.raises(ValueError, match="belongs to a generator"):
        HFGan.from_pretrained(tmp_path / "a")


def test_a_half_precision_copy_of_the_generator_is_the_same_generator(tmp_path: Path) -> None:
    generator = make_generator()
    HFGan(generator=generator, alpha=AlphaNetwork.beside(generator)).save_pretrained(tmp_path, dtype=torch.float16)
    again = HFGan.from_pretrained(tmp_path)
    assert again.alpha.config.generator_fingerprint == generator.fingerprint()


@pytest.mark.parametrize(
    "wrong",
    [
        {"resolution": 48},
        {"trunk_resolution": 64},
        {"first_resolution": 64},
        {"kernel_size": 5},
        {"hidden_dim": 0},
        {"per_resolution": 3},
        {"background_layer": 99},
    ],
)
def test_shapes_that_cannot_be_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"expected|give"):
        AlphaNetwork(**{"resolution": 32, "trunk_resolution": 32} | wrong)


@pytest.mark.parametrize(
    ("resolution", "base"),
    [(64, 2048), *((size, base) for size in (64, 128, 256, 512, 1024) for base in (32768, 4096))],
)
def test_it_costs_at_most_a_twentieth_of_the_generator(resolution: int, base: int) -> None:
    """Multiply-adds counted on shapes alone."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        generator = StyleGAN2Generator(resolution=resolution, channel_base=base, channel_max=base // 16, w_dim=64)
        net = AlphaNetwork(resolution=resolution, channel_base=base, channel_max=base // 16)
        w_plus, costs = torch.zeros(1, generator.num_ws, 64), []
        for tap in (None, AlphaStream(net)):
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                generator.synthesis.draw(w_plus, [None] * (generator.num_ws - 1), tap)
            costs.append(counter.get_total_flops())
    assert costs[1] - costs[0] <= 0.05 * costs[0], (costs[1] - costs[0]) / costs[0]
