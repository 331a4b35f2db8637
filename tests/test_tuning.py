"""Tuning at toy size: nearer to the photo, the same elsewhere, a small file for one generator only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hfgan import StyleGAN2Generator, tuning
from hfgan.models.perceptual import load_perceptual
from hfgan.refinement import Step, Target
from hfgan.sampling import broadcast
from hfgan.tuning import WeightDelta, copy_of, tune

NET = load_perceptual()


@pytest.fixture
def generator() -> StyleGAN2Generator:
    return make(0)


def make(seed: int) -> StyleGAN2Generator:
    torch.manual_seed(seed)
    sizes = {"z_dim": 16, "w_dim": 16, "mapping_layers": 1, "channel_base": 512, "channel_max": 16}
    return StyleGAN2Generator(resolution=32, **sizes).eval()


def latents(generator: StyleGAN2Generator, count: int, seed: int = 1) -> Tensor:
    z = torch.randn(count, 16, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return broadcast(generator.mapping(z), generator.num_ws)


def photo() -> Tensor:
    """What the generator draws of a latent, its colours moved: near enough for weights to reach."""
    with torch.no_grad():
        return (make(0).synthesis(latents(make(0), 1)) * 0.6 + 0.3).clamp(-1, 1)


def region() -> Tensor:
    interest = torch.zeros(1, 1, 32, 32)
    interest[:, :, 6:26, 8:28] = 1
    return interest


def run(generator: StyleGAN2Generator, **how: object) -> WeightDelta:
    return tune(generator, latents(generator, 1), photo(), region(), **{"net": NET, "steps": 10} | how)


def test_it_comes_nearer_and_leaves_other_latents_alone(
    generator: StyleGAN2Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other images change by some percent of what lies between two of them, and by more when nothing holds them."""
    w_plus, others = latents(generator, 1), latents(generator, 16, seed=7)
    target = Target.of(photo(), region(), 32, NET)

    def fit() -> tuple[Tensor, Tensor]:
        tuned = run(generator, steps=40).applied(generator)
        return target.loss(tuned.synthesis(w_plus)), (tuned.synthesis(others) - elsewhere).square().mean()

    with torch.no_grad():
        before, elsewhere = target.loss(generator.synthesis(w_plus)), generator.synthesis(others)
        error, change = fit()
        monkeypatch.setattr(tuning, "LOCAL_WEIGHT", 0.0)
        _, free_change = fit()
        between = (elsewhere - elsewhere.roll(1, 0)).square().mean()
    assert error < 0.8 * before
    assert change < 0.05 * between
    assert change < 0.7 * free_change


def test_the_generator_itself_stays(generator: StyleGAN2Generator) -> None:
    """No tensor of it changes, nor what is drawn while or after its copy is made; the copy remembers no old kernel."""
    w_plus, fingerprint = latents(generator, 1), generator.fingerprint()
    with torch.no_grad():
        before = generator.synthesis(w_plus)
        seen = []
        delta = run(generator, keep_going=lambda _: seen.append(generator.synthesis(w_plus)) or True)
        tuned = delta.applied(generator)
        assert all(torch.equal(image, before) for image in seen)
        assert torch.equal(generator.synthesis(w_plus), before)
        drawn = tuned.synthesis(w_plus)
        assert not torch.equal(drawn, before)
    assert generator.fingerprint() == fingerprint != tuned.fingerprint()
    torch.testing.assert_close(tuned.synthesis(w_plus).detach(), drawn)  # with gradients no kernel is remembered
    own, other = generator.state_dict(), tuned.state_dict()
    differing = {name for name in own if not torch.equal(own[name], other[name])}
    assert differing == {f"synthesis.blocks.{i}.conv{k}.weight" for i in (2, 3) for k in (0, 1)}
    shared = {t.data_ptr() for t in own.values()} & {t.data_ptr() for t in other.values()}
    assert not shared


def test_a_copy_draws_the_same_also_where_the_first_was_compiled_or_in_bfloat16(generator: StyleGAN2Generator) -> None:
    w_plus = latents(generator, 1)
    with torch.inference_mode():
        before = generator.bfloat16().synthesis(w_plus)  # fills what is remembered of the kernels
        generator.synthesis.compile()
    twin = copy_of(generator, {})
    with torch.no_grad():
        assert torch.equal(twin.synthesis(w_plus), before.clone())
    assert twin.fingerprint() == generator.fingerprint()


def test_no_steps_cancelling_and_the_same_again(generator: StyleGAN2Generator) -> None:
    w_plus = latents(generator, 1)
    with torch.no_grad():
        none = run(generator, steps=0).applied(generator)
        assert torch.equal(none.synthesis(w_plus), generator.synthesis(w_plus))
    seen: list[Step] = []
    ended = run(generator, keep_going=lambda step: seen.append(step) or step.index < 4)
    assert [(step.index, step.count) for step in seen] == [(k, 10) for k in range(1, 5)]
    with torch.no_grad():
        error = Target.of(photo(), region(), 32, NET).loss(ended.applied(generator).synthesis(w_plus))
    torch.testing.assert_close(error, min(step.error for step in seen))
    told: list[int] = []
    run(generator, steps=3, keep_going=lambda step: told.append(step.index) or True)
    assert told == [1, 2, 3]
    once, twice = run(generator), run(generator)
    for name, pair in once.factors.items():
        assert all(torch.equal(a, b) for a, b in zip(pair, twice.factors[name], strict=True))
    with pytest.raises(ValueError, match="rank is 9: expected at most 8"):
        run(generator, rank=9)


def test_the_file(generator: StyleGAN2Generator, tmp_path: Path) -> None:
    """Bit for bit, of one generator, small, and the same bytes again."""
    delta, path = run(generator, steps=3, rank=2), tmp_path / "delta.safetensors"
    delta.save(path)
    again = WeightDelta.load(path)
    first, second = delta.applied(generator).state_dict(), again.applied(generator).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert again.config == delta.config
    with pytest.raises(FileExistsError):
        delta.save(path)
    again.save(tmp_path / "again.safetensors")
    assert path.read_bytes() == (tmp_path / "again.safetensors").read_bytes()
    assert sum(a.numel() + b.numel() for a, b in delta.factors.values()) == 4 * 2 * (16 + 16 * 9)
    with pytest.raises(ValueError, match=r"a generator of 32 px with weights \w+, not \w+: load the model"):
        again.applied(make(1))


def test_files_that_are_none(generator: StyleGAN2Generator, tmp_path: Path) -> None:
    delta, path = run(generator, steps=0), tmp_path / "delta.safetensors"
    with pytest.raises(FileNotFoundError, match="does not exist: expected a file that"):
        WeightDelta.load(path)
    delta.save(path)
    tensors, told = load_file(path), {"fingerprint": delta.fingerprint, "config": delta.config}
    save_file(tensors, path)
    with pytest.raises(ValueError, match="holds no change of weights"):
        WeightDelta.load(path)
    save_file(tensors, path, {"hfgan_weight_delta": json.dumps(told | {"format": 2})})
    with pytest.raises(ValueError, match="has format 2 and this hfgan reads 1: upgrade hfgan"):
        WeightDelta.load(path)
    half = dict(list(tensors.items())[1:])
    save_file(half, path, {"hfgan_weight_delta": json.dumps(told | {"format": 1})})
    with pytest.raises(ValueError, match="lacks a half of a pair"):
        WeightDelta.load(path)
    cut = {name: tensor[:1] for name, tensor in tensors.items()}
    save_file(cut, path, {"hfgan_weight_delta": json.dumps(told | {"format": 1})})
    with pytest.raises(ValueError, match="does not have its generator's layers: it is damaged"):
        WeightDelta.load(path).applied(generator)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        WeightDelta.load(path)
