"""The generator against the published formulation in float64, its noise, its caches, its initial statistics."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from bench import reference
from torch import Tensor

from hfgan.models.layers import ModulatedConv2d
from hfgan.models.stylegan2 import StyleGAN2Generator, channels_at, draw_noise

TOY: dict[str, Any] = {
    "resolution": 16, "z_dim": 12, "w_dim": 16, "mapping_layers": 2, "channel_base": 256, "channel_max": 24,
}  # fmt: skip


def toy(**changes: Any) -> StyleGAN2Generator:
    """A small generator in which no tensor has a value that hides a fault."""
    torch.manual_seed(0)
    model = StyleGAN2Generator(**(TOY | changes)).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith(("bias", "noise_strength")):
                value.add_(torch.randn_like(value) * 0.3)
        model.mapping.w_avg.normal_()
    return model


def latents(n: int, model: StyleGAN2Generator, seed: int = 1) -> Tensor:
    return torch.randn(n, model.config.z_dim, generator=torch.Generator().manual_seed(seed))


def error(image: Tensor, truth: Tensor) -> float:
    """Root mean square difference over the standard deviation of the truth."""
    return ((image.double() - truth).square().mean().sqrt() / truth.std()).item()


def truth_of(model: StyleGAN2Generator, z: Tensor, c: Tensor | None = None, **how: Any) -> Tensor:
    tree = reference.nest(reference.flat_state(model))
    return reference.generator(tree, z.double(), None if c is None else c.double(), **how)


# --- equality with the published formulation -------------------------------------------------------------


@pytest.mark.parametrize("changes", [
    {},
    {"img_channels": 1},
    {"img_channels": 4},
    {"resolution": 64, "channel_base": 1024, "channel_max": 32},
    {"resolution": 256, "channel_base": 1024, "channel_max": 16},
    {"mapping_layers": 8, "channel_max": 8},
], ids=str)  # fmt: skip
@torch.no_grad()
def test_equals_the_reference(changes: dict[str, Any]) -> None:
    model = toy(**changes)
    z = latents(2, model)
    image = model(z)
    assert image.shape == (2, model.config.img_channels, model.config.resolution, model.config.resolution)
    assert image.dtype == torch.float32
    assert error(image, truth_of(model, z)) < 1e-5


@torch.no_grad()
def test_classes() -> None:
    model = toy(c_dim=3)
    z, c = latents(3, model), torch.eye(3)
    image = model(z, c)
    assert error(image, truth_of(model, z, c)) < 1e-5
    assert error(image, model(z, c.roll(1, 0)).double()) > 1e-2
    with pytest.raises(ValueError, match="3 classes"):
        model(z)


@pytest.mark.parametrize("clamp", [0.5, 256.0])
@torch.no_grad()
def test_clamp(clamp: float) -> None:
    model = toy(conv_clamp=clamp)
    z = latents(2, model)
    image = model(z)
    assert error(image, truth_of(model, z, clamp=clamp)) < 1e-5
    assert (error(image, truth_of(model, z)) > 1e-2) == (clamp == 0.5)


@pytest.mark.parametrize("cutoff", [None, 0, 1, 4, 6])
@pytest.mark.parametrize("psi", [0.5, 0.0, -1.0])
@torch.no_grad()
def test_truncation(psi: float, cutoff: int | None) -> None:
    model = toy()
    z = latents(2, model)
    image = model(z, truncation_psi=psi, truncation_cutoff=cutoff)
    assert error(image, truth_of(model, z, psi=psi, cutoff=cutoff)) < 1e-5


@torch.no_grad()
def test_low_precision_is_near() -> None:
    model = toy(resolution=64, channel_base=1024, channel_max=32)
    z = latents(2, model)
    truth = truth_of(model, z)
    for dtype in (torch.bfloat16, torch.float16):
        image = model.set_compute_dtype(dtype)(z)
        assert image.dtype == torch.float32
        assert 1e-6 < error(image, truth) < 1.5e-2


@torch.no_grad()
def test_w_of_every_layer_counts() -> None:
    model = toy()
    w_plus = torch.randn(1, model.num_ws, 16)
    image = model.synthesis(w_plus)
    for layer in range(model.num_ws):
        changed = w_plus.clone()
        changed[:, layer] += 1
        assert not torch.allclose(model.synthesis(changed), image)


# --- noise -----------------------------------------------------------------------------------------------


@torch.no_grad()
def test_noise_modes() -> None:
    model = toy()
    z = latents(2, model)
    assert error(model(z, noise_mode="none"), truth_of(model, z, noise="none")) < 1e-5
    g = torch.Generator().manual_seed(5)
    convs = [conv for block in model.synthesis.blocks for conv in block.convs()]
    noise = [draw_noise(conv, 2, "random", g).double() for conv in convs]
    image = model(z, noise_mode="random", generator=torch.Generator().manual_seed(5))
    assert error(image, truth_of(model, z, noise=noise.__getitem__)) < 1e-5
    with pytest.raises(ValueError, match="noise_mode is 'loud'"):
        model(z, noise_mode="loud")


@torch.no_grad()
def test_one_noise_source_per_sample_makes_a_batch_equal_its_singles() -> None:
    model = toy()
    z = latents(3, model)

    def sources(seeds: range) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    batch = model(z, noise_mode="random", generator=sources(range(3)))
    singles = [model(z[k : k + 1], noise_mode="random", generator=sources(range(k, k + 1))) for k in range(3)]
    torch.testing.assert_close(batch, torch.cat(singles), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(batch[0], model(z[:1], noise_mode="random", generator=sources(range(7, 8)))[0])


# --- statistics of a new network -------------------------------------------------------------------------


@torch.no_grad()
def test_a_new_network_keeps_its_activations_in_range() -> None:
    torch.manual_seed(0)
    model = StyleGAN2Generator(resolution=32, channel_base=1024, channel_max=64, z_dim=128, w_dim=128)
    w = model.mapping(torch.randn(64, 128))
    assert 0.5 < w.std() < 2
    seen: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, ModulatedConv2d):
            module.register_forward_hook(lambda module, inputs, output: seen.append(output.std()))
    model(torch.randn(8, 128))
    assert len(seen) == 7
    assert all(0.3 < std < 3 for std in seen)
    noise = [module.noise_strength for module in model.modules() if isinstance(module, ModulatedConv2d)]
    assert not any(noise)


def test_channels_and_sizes() -> None:
    assert [channels_at(r, 16384, 512) for r in (4, 32, 64, 256)] == [512, 512, 256, 64]
    assert toy().num_ws == 6
    for wrong in ({"resolution": 48}, {"resolution": 8}, {"img_channels": 2}, {"mapping_layers": 0}):
        with pytest.raises(ValueError, match=r"\d"):
            toy(**wrong)


def test_w_avg_follows_the_batches() -> None:
    model = toy()
    model.mapping.w_avg.zero_()
    model.mapping.track_w_avg(torch.ones(16), beta=0.75)
    torch.testing.assert_close(model.mapping.w_avg, torch.full((16,), 0.25))


# --- what is remembered between calls --------------------------------------------------------------------


def changed_in_place(model: StyleGAN2Generator) -> StyleGAN2Generator:
    with torch.no_grad():
        for value in model.parameters():
            value.mul_(1.1)
    return model


def changed_by_loading(model: StyleGAN2Generator) -> StyleGAN2Generator:
    model.load_state_dict({name: value * 1.1 for name, value in model.state_dict().items()})
    return model


def changed_by_an_optimizer(model: StyleGAN2Generator) -> StyleGAN2Generator:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    model(latents(2, model)).square().mean().backward()
    optimizer.step()
    return model


def changed_by_averaging(model: StyleGAN2Generator) -> StyleGAN2Generator:
    other = [torch.randn_like(value) for value in model.parameters()]
    with torch.no_grad():
        torch._foreach_lerp_(list(model.parameters()), other, 0.2)
    return model


def changed_as_a_copy(model: StyleGAN2Generator) -> StyleGAN2Generator:
    return changed_in_place(copy.deepcopy(model))


def changed_by_new_parameters(model: StyleGAN2Generator) -> StyleGAN2Generator:
    """Twice, so that the second tensor may lie where the first one lay."""
    for _ in range(2):
        for module in model.modules():
            if isinstance(module, ModulatedConv2d):
                module.weight = torch.nn.Parameter(torch.randn_like(module.weight))
    return model


def changed_dtype(model: StyleGAN2Generator) -> StyleGAN2Generator:
    return model.set_compute_dtype(torch.bfloat16)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("change", [
    changed_in_place, changed_by_loading, changed_by_an_optimizer, changed_by_averaging, changed_as_a_copy,
    changed_by_new_parameters, changed_dtype,
])  # fmt: skip
def test_a_change_of_weights_is_seen(change: Any, mode: Any) -> None:
    model = toy()
    z = latents(2, model)
    with mode():
        before = model(z)  # fills the caches
    model = change(model)
    with mode():
        remembered = model(z)
    fresh = StyleGAN2Generator(**TOY).eval().set_compute_dtype(model.dtype)
    fresh.load_state_dict(model.state_dict())
    with mode():
        assert torch.equal(remembered, fresh(z))
    assert not torch.equal(remembered, before)


def test_gradients_follow_a_call_without_them() -> None:
    model = toy()
    z = latents(2, model)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            image = model(z)
        model.zero_grad()
        model(z).square().sum().backward()
        assert all(value.grad is not None and value.grad.any() for value in model.parameters())
        with mode():
            assert torch.equal(model(z), image)


def test_a_model_made_in_inference_mode_draws() -> None:
    with torch.inference_mode():
        model = StyleGAN2Generator(**TOY)
        image = model(latents(1, model))
        assert torch.equal(image, model(latents(1, model)))


@torch.no_grad()
def test_caches_are_neither_saved_nor_published() -> None:
    model = toy()
    names = set(model.state_dict())
    model(latents(1, model))
    assert set(model.state_dict()) == names
    assert len(list(model.parameters())) == len(list(toy().parameters()))


# --- compiled ---------------------------------------------------------------------------------------------


def test_a_compiled_generator_draws_the_same() -> None:
    """The one test that waits for the C++ compiler: equal, and never with weights of the past."""
    model = toy(channel_max=8)
    z = latents(2, model)
    model.compile()
    with torch.no_grad():
        assert error(model(z), truth_of(model, z)) < 1e-5
    with pytest.raises(RuntimeError, match=r"call compile\(\) again"), torch.no_grad():
        changed_in_place(model)(z)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile without the C++ compiler."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))


@pytest.mark.usefixtures("traced")
def test_compiling_leaves_gradients_noise_and_copies_alone() -> None:
    model, plain = toy(), toy()
    z = latents(2, model)
    model.compile()
    model(z).square().sum().backward()
    assert all(value.grad is not None and value.grad.any() for value in model.parameters())
    with torch.inference_mode():
        images = [
            one(z, noise_mode="random", generator=[torch.Generator().manual_seed(k) for k in range(2)])
            for one in (model, plain)
        ]
        torch.testing.assert_close(*images, rtol=1e-4, atol=1e-4)
    with pytest.raises(RuntimeError, match=r"call compile\(\) again"), torch.no_grad():
        copy.deepcopy(model)(z)
    assert set(model.state_dict()) == set(plain.state_dict())
