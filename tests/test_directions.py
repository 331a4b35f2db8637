"""Directions: one unit and one meaning whatever their form, bound to a generator, and strict on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hfgan import Direction, DirectionSet, HFGan, StyleGAN2Generator, WStats

SIZES = {"z_dim": 16, "w_dim": 16, "mapping_layers": 1, "channel_base": 256, "channel_max": 16}


def make_generator(seed: int = 0, **changes: Any) -> StyleGAN2Generator:
    torch.manual_seed(seed)
    return StyleGAN2Generator(**{"resolution": 16} | SIZES | changes)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def natural(name: str, n: Tensor, stats: WStats, **more: Any) -> Direction:
    """Normal n / s and step Cov n / s, where s is the deviation of w . n."""
    n = n.double()
    spread = (n @ stats.cov @ n).sqrt()
    return Direction(name, stats.cov @ n / spread, n / spread, **more)


@pytest.fixture(scope="module")
def generator() -> StyleGAN2Generator:
    return make_generator()


@pytest.fixture(scope="module")
def stats(generator: StyleGAN2Generator) -> WStats:
    return WStats.of(generator)


# ---------------------------------------------------------------- W


def test_statistics_of_w_are_those_of_its_samples(generator: StyleGAN2Generator, stats: WStats) -> None:
    w = generator.mapping(randn(50_000, 16, seed=9)).detach().double()
    assert torch.allclose(stats.mean, w.mean(0), atol=0.05)
    assert torch.allclose(stats.cov, torch.cov(w.T), atol=0.12)
    assert (stats.n, stats.cov.dtype) == (10_000, torch.float64)
    again, other = WStats.of(generator), WStats.of(generator, seed=1)
    assert torch.equal(again.cov, stats.cov)
    assert not torch.equal(other.cov, stats.cov)
    values, vectors = stats.eigen
    assert (values.diff() <= 0).all()
    assert torch.allclose(vectors * values @ vectors.T, stats.cov, atol=1e-12)


def test_mahalanobis_lengths_are_deviations(stats: WStats) -> None:
    values, vectors = stats.eigen
    assert stats.distance((vectors * values.sqrt()).T * 3).tolist() == pytest.approx([3.0] * 16)
    assert torch.allclose(stats.solve(stats.cov[:2]), torch.eye(16, dtype=torch.float64)[:2], atol=1e-9)
    flat = WStats(stats.mean, torch.diag(torch.tensor([4.0, 0.0], dtype=torch.float64)), 2)
    # a dimension that does not vary counts as one of a thousandth of the largest deviation
    assert flat.distance(torch.tensor([[2.0, 0.0], [0.0, 2e-3]])).tolist() == pytest.approx([1.0, 1.0])


def test_classes_come_in_turn() -> None:
    labelled = make_generator(c_dim=3)
    with torch.no_grad():
        labels = torch.eye(3)[torch.arange(900) % 3]
        z = torch.randn(900, 16, generator=torch.Generator().manual_seed(2**32 - 1))
        w = labelled.mapping(z, labels)
    assert torch.allclose(WStats.of(labelled, 900).mean, w.double().mean(0))
    with pytest.raises(ValueError, match=r"w has shape \[1, 16\]: expected \(n, w_dim\)"):
        WStats.from_samples(randn(1, 16))


# ---------------------------------------------------------------- one direction


@pytest.mark.parametrize("layers", [None, (0,), (1, 3)])
def test_strength_one_raises_the_coordinate_by_one_deviation(stats: WStats, layers: tuple[int, ...] | None) -> None:
    smile = natural("smile", randn(16), stats, offset=0.3, layers=layers)
    w_plus = randn(50, 6, 16, seed=1)
    for strength in (-2.0, 0.5, 3.0):
        moved = smile.coordinate(w_plus + strength * smile.shift(6)) - smile.coordinate(w_plus)
        assert torch.allclose(moved, torch.full((50,), strength), atol=1e-5)
    w = torch.linalg.cholesky(stats.cov) @ randn(16, 20_000, seed=2).double()
    assert smile.coordinate((w.T + stats.mean).float()).std().item() == pytest.approx(1, abs=0.02)


def test_a_point_is_measured_from_the_boundary_on_the_layers_that_move() -> None:
    one = Direction("x", torch.eye(2)[0], torch.eye(2)[0], offset=2.0, layers=(1,))
    w_plus = torch.tensor([[[5.0, 0.0], [3.0, 0.0]]])
    assert one.coordinate(w_plus).tolist() == [1.0]
    assert one.on(None).coordinate(w_plus).tolist() == [2.0]
    assert one.coordinate(w_plus[:, 0]).tolist() == [3.0]
    assert one.coordinate(w_plus.bfloat16()).dtype == torch.float32
    with pytest.raises(ValueError, match="nothing measures 'x'"):
        Direction("x", torch.ones(2)).coordinate(w_plus)


@pytest.mark.parametrize("resolution", [16, 64, 1024])
def test_a_shift_fits_any_number_of_layers(resolution: int) -> None:
    num_ws = 2 * (resolution.bit_length() - 1) - 2
    one = Direction("x", torch.ones(3), layers=(1, 2))
    assert one.shift(num_ws).sum(1).tolist() == [0, 3, 3] + [0] * (num_ws - 3)
    assert one.shift(num_ws, [num_ws - 1]).sum(1).tolist() == [0] * (num_ws - 1) + [3]
    assert one.on(None).shift(num_ws).shape == (num_ws, 3)
    with pytest.raises(ValueError, match=f"moves layer 99: this model has layers 0 to {num_ws - 1}"):
        one.on([99]).shift(num_ws)
    with pytest.raises(ValueError, match=f"steps for 5 layers: this model has {num_ws}"):
        Direction("x", torch.ones(5, 3)).shift(num_ws)


def test_algebra_keeps_the_unit(stats: WStats) -> None:
    a, b = natural("a", randn(16), stats, offset=0.2), natural("b", randn(16, seed=1), stats, offset=-0.1)
    w = randn(7, 16, seed=2)
    for one in (-a, a * 2, -2.5 * b, a + b, -(a + b), a * 0.5 + b):
        rise = one.coordinate(w + one.step) - one.coordinate(w)
        assert torch.allclose(rise, torch.ones(7), atol=1e-5)
    assert torch.allclose((-a).coordinate(w), -a.coordinate(w))
    assert torch.allclose((a * 2).coordinate(w), a.coordinate(w) / 2)
    assert torch.allclose((a + b).step, a.step + b.step)
    back = -a
    assert (back.name, (-back).name, (a + b).name, (a * 2).name) == ("-a", "a", "a + b", "a")
    assert (a + b).source == {"sum": ["a", "b"]}
    cancelled = a + a.named("c") * -1
    assert not cancelled.step.any()
    assert cancelled.normal is None
    with pytest.raises(ValueError, match="'a' times 0 moves nothing"):
        _ = a * 0
    with pytest.raises(TypeError):
        _ = a + 1


def test_directions_on_different_layers_add_up_layer_by_layer(stats: WStats) -> None:
    a, b = natural("a", randn(16), stats, layers=(0, 1)), natural("b", randn(16, seed=1), stats, layers=(4,))
    with pytest.raises(ValueError, match=r"'a' and 'b' move different layers: call per_layer\(num_ws\)"):
        _ = a + b
    for total in (a.per_layer(6) + b, a + b.per_layer(6)):
        assert torch.allclose(total.shift(6), a.shift(6) + b.shift(6))
        assert total.normal is None
    both = a + natural("c", randn(16, seed=2), stats, layers=(0, 1))
    assert both.layers == (0, 1)
    w_plus = randn(3, 6, 16, seed=3)
    assert torch.allclose(both.coordinate(w_plus + both.shift(6)) - both.coordinate(w_plus), torch.ones(3), atol=1e-5)
    with pytest.raises(ValueError, match="belong to different generators"):
        _ = Direction("a", torch.ones(4), fingerprint="1") + Direction("b", torch.ones(4), fingerprint="2")


def test_cosines_of_steps_and_of_coordinates(stats: WStats) -> None:
    values, vectors = stats.eigen
    a, b = natural("a", vectors[:, 0], stats), natural("b", vectors[:, 1], stats)
    assert a.cosine(b) == pytest.approx(0, abs=1e-6)
    assert a.cosine(b, stats) == pytest.approx(0, abs=1e-6)
    c = natural("c", vectors[:, 0] / values[0].sqrt() + vectors[:, 1] / values[1].sqrt(), stats)
    assert a.cosine(c, stats) == pytest.approx(0.5**0.5)
    assert a.cosine(-a) == pytest.approx(-1)
    assert a.cosine(a.per_layer(6)) == pytest.approx(1)
    with pytest.raises(ValueError, match="nothing measures 'd': leave stats out"):
        a.cosine(Direction("d", torch.ones(16)), stats)


def test_a_direction_is_a_key_and_its_source_a_copy() -> None:
    source = {"n_pos": 3, "modes": (1, 2)}
    one = Direction("x", torch.ones(2, dtype=torch.float64), source=source)
    assert {one: 2.0}[one] == 2.0
    assert one.step.shape == (1, 2)
    assert one.step.dtype == torch.float32
    source["n_pos"] = 4
    assert one.source == {"n_pos": 3, "modes": [1, 2]}
    assert Direction("x", torch.ones(2), layers=(3, 1, 3)).layers == (1, 3)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no name": ({"name": ""}, "has 0 characters: give 1 to 64"),
    "long name": ({"name": "x" * 65}, "has 65 characters"),
    "equals sign": ({"name": "a=b"}, "is no name of a direction"),
    "line break": ({"name": "a\nb"}, "is no name of a direction"),
    "number as name": ({"name": 5}, "is no name of a direction"),
    "three axes": ({"step": torch.ones(1, 2, 4)}, r"has shape \[1, 2, 4\]: expected \(1 or num_ws, w_dim\)"),
    "infinite step": ({"step": torch.full((4,), torch.inf)}, "step of 'x' holds NaN or infinity"),
    "other normal": ({"normal": torch.ones(5)}, r"normal of 'x' has shape \[5\]: expected \[4\]"),
    "NaN offset": ({"offset": float("nan")}, "offset is nan: expected a finite number"),
    "unknown kind": ({"kind": "magic"}, "kind of 'x' is 'magic': expected one of normal, natural"),
    "no layers": ({"layers": ()}, "expected one or more whole numbers"),
    "negative layer": ({"layers": (-1,)}, "expected one or more whole numbers"),
    "layers as text": ({"layers": "0-3"}, "expected one or more whole numbers"),
    "layer too many": ({"step": torch.ones(3, 4), "layers": (3,)}, "there are layers 0 to 2"),
    "source no JSON": ({"source": {"w": torch.ones(1)}}, "source of 'x' is not JSON"),
    "NaN in source": ({"source": {"accuracy": float("nan")}}, "source of 'x' is not JSON"),
    "list as source": ({"source": [1]}, "source of 'x' is a list: expected a dict"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_what_is_no_direction_is_one_sentence(fault: str) -> None:
    given, says = WRONG[fault]
    with pytest.raises(ValueError, match=says) as caught:
        Direction(**{"name": "x", "step": torch.ones(4)} | given)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- the directions of a model


@pytest.fixture(scope="module")
def found(generator: StyleGAN2Generator, stats: WStats) -> list[Direction]:
    quality = {"n_pos": 20, "n_neg": 22, "accuracy": 0.9, "split_half": 0.8, "quality": "strong"}
    return [
        natural("smile", randn(16), stats, offset=0.25, layers=(0, 2), source=quality),
        Direction("per layer", randn(6, 16, seed=1), kind="imported"),
        natural("age", randn(16, seed=2), stats, fingerprint=generator.fingerprint()),
    ]


def test_a_model_comes_back_with_its_directions(
    generator: StyleGAN2Generator, found: list[Direction], tmp_path: Path
) -> None:
    gan = HFGan(generator=generator, directions=DirectionSet.of(found, generator))
    gan.save_pretrained(tmp_path)
    again = HFGan.from_pretrained(tmp_path).directions
    assert again.names == ["smile", "per layer", "age"]
    assert len(again) == 3
    assert "age" in again
    assert "gender" not in again
    for one, two in zip(found, again, strict=True):
        assert torch.equal(one.step, two.step)
        assert (one.name, one.offset, one.layers, one.kind, one.source) == (
            two.name, two.offset, two.layers, two.kind, two.source
        )  # fmt: skip
        assert (one.normal is None) == (two.normal is None)
        assert one.normal is None or torch.equal(one.normal, two.normal)
        assert two.fingerprint == generator.fingerprint()
    assert again["smile"].name == again[0].name == again[-3].name == "smile"
    assert json.loads((tmp_path / "model_index.json").read_text())["directions"] == ["hfgan", "DirectionSet"]


def test_half_precision_on_disk_keeps_the_unit(
    generator: StyleGAN2Generator, found: list[Direction], tmp_path: Path
) -> None:
    DirectionSet.of(found, generator).save_pretrained(tmp_path, dtype=torch.float16)
    smile = DirectionSet.from_pretrained(tmp_path)["smile"]
    assert (smile.step[0] @ smile.normal).item() == pytest.approx(1, abs=2e-3)


def test_the_table_says_what_there_is(generator: StyleGAN2Generator, found: list[Direction]) -> None:
    rows = DirectionSet.of(found, generator).table()
    assert rows[0] == {"name": "smile", "kind": "natural", "layers": (0, 2), "quality": "strong",
                       "accuracy": 0.9, "split_half": 0.8, "samples": 42}  # fmt: skip
    assert rows[1]["quality"] is rows[1]["samples"] is rows[1]["layers"] is None


def test_a_direction_is_shown_without_its_numbers(found: list[Direction]) -> None:
    assert repr(found[0]) == "Direction('smile', natural, quality strong, layers [0, 2])"
    assert "quality None, layers all)" in repr(found[1])


def test_unknown_names_are_answered_with_the_known_ones(generator: StyleGAN2Generator, found: list[Direction]) -> None:
    directions = DirectionSet.of(found, generator)
    with pytest.raises(ValueError, match="there is no direction 'gender': this model has smile, per layer, age"):
        directions["gender"]
    with pytest.raises(IndexError, match="there is no direction 3: this model has 3"):
        directions[3]


def test_another_generator_refuses_them(generator: StyleGAN2Generator, found: list[Direction]) -> None:
    other, mine = make_generator(1), DirectionSet.of(found, generator)
    says = f"part directions belongs to a generator with weights {generator.fingerprint()}, not {other.fingerprint()}"
    with pytest.raises(ValueError, match=says):
        HFGan(generator=other, directions=mine)
    with pytest.raises(ValueError, match=f"'age' belongs to a generator with weights {generator.fingerprint()}, not"):
        DirectionSet.of(found[2:], other)
    with pytest.raises(ValueError, match="moves w of 8 numbers: this model has w_dim 16"):
        DirectionSet.of([Direction("x", torch.ones(8))], generator)
    with pytest.raises(ValueError, match="steps for 18 layers: this model has 6"):
        DirectionSet.of([Direction("x", torch.ones(18, 16))], generator)
    with pytest.raises(ValueError, match="several directions called smile"):
        DirectionSet.of([found[0], found[0]], generator)
    with pytest.raises(ValueError, match="num_directions is 0"):
        DirectionSet.of([], generator)
    with pytest.raises(RuntimeError, match=r"this model has no directions: .* training/train.py directions"):
        HFGan(generator=generator).part("directions")


def edit_tensors(path: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def edit_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


WEIGHTS = "diffusion_pytorch_model.safetensors"
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda p: edit_tensors(p / WEIGHTS, lambda t: t.pop("normals")), "missing: normals"),
    "extra": (lambda p: edit_tensors(p / WEIGHTS, lambda t: t.update(z=torch.ones(1))), "unexpected: z"),
    "misshapen": (
        lambda p: edit_tensors(p / WEIGHTS, lambda t: t.update(steps=torch.ones(3, 5, 16))),
        r"misshapen: steps \[3, 5, 16\] instead of \[3, 6, 16\]",
    ),
    "entry lost": (lambda p: edit_config(p, lambda c: c["entries"].pop()), "is 3 and there are 2 entries"),
    "key lost": (lambda p: edit_config(p, lambda c: c["entries"][0].pop("kind")), "does not have just the keys"),
    "text for a flag": (lambda p: edit_config(p, lambda c: c["entries"][0].update(shared="no")), "true or false"),
    "name twice": (lambda p: edit_config(p, lambda c: c["entries"][0].update(name="age")), "called age"),
    "layer too many": (lambda p: edit_config(p, lambda c: c["entries"][0].update(layers=[6])), "layers 0 to 5"),
    "no list": (lambda p: edit_config(p, lambda c: c.update(entries=7)), "describes no DirectionSet"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_damaged_directions_do_not_load(
    generator: StyleGAN2Generator, found: list[Direction], tmp_path: Path, fault: str
) -> None:
    damage, says = BROKEN[fault]
    DirectionSet.of(found, generator).save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=says):
        DirectionSet.from_pretrained(tmp_path)


def test_a_pickle_of_directions_is_not_opened(
    generator: StyleGAN2Generator, found: list[Direction], tmp_path: Path
) -> None:
    DirectionSet.of(found, generator).save_pretrained(tmp_path)
    (tmp_path / WEIGHTS).rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"only as a pickle \(pytorch_model.bin\)"):
        DirectionSet.from_pretrained(tmp_path)
