"""How directions are found: planted attributes, channels and layers come back, and the defects of others do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hfgan import Direction, StyleGAN2Generator, WStats, finding
from hfgan.modes import make_bank

DIM = 512
# a power law with the deviations 2.86, 2.60, ... 0.40 (the 80th) and 9.9 in all that W of faces at 1024 px has
VARIANCES = 8.2 * (1 + torch.arange(DIM, dtype=torch.float64) / 8) ** -1.65
SPECTRUM = WStats(torch.linspace(-0.2, 0.2, DIM, dtype=torch.float64), torch.diag(VARIANCES), 10_000)


def source(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def planted(seed: int, count: int = 3) -> Tensor:
    """Normals (count, DIM) of attributes without correlation, of deviation 1, 85 % in the 80 widest dimensions."""
    draft = torch.randn(count, DIM, generator=source(seed), dtype=torch.float64) * VARIANCES.sqrt()
    normals: list[Tensor] = []
    for n in draft:
        for other in normals:
            n = n - (n * VARIANCES) @ other * other
        normals.append(n / (n * VARIANCES * n).sum().sqrt())
    return torch.stack(normals)


def drawn(count: int, seed: int) -> Tensor:
    return SPECTRUM.mean + torch.randn(count, DIM, generator=source(seed), dtype=torch.float64) * VARIANCES.sqrt()


def clicks(normal: Tensor, each: int, seed: int, noise: float = 0.3) -> tuple[Tensor, Tensor]:
    """`each` samples with and without an attribute; the person is unsure by `noise` and skips what is not clear."""
    w = drawn(40 * each, seed)
    score = (w - SPECTRUM.mean) @ normal + noise * torch.randn(len(w), generator=source(seed + 1), dtype=torch.float64)
    chosen = torch.cat([(score > 0.7).nonzero()[:each, 0], (score < -0.7).nonzero()[:each, 0]])
    return w[chosen], torch.arange(2 * each) < each


def make_generator(seed: int = 0, **changes: Any) -> StyleGAN2Generator:
    torch.manual_seed(seed)
    sizes = {"z_dim": 16, "w_dim": 16, "mapping_layers": 1, "channel_base": 512, "channel_max": 32}
    return StyleGAN2Generator(**{"resolution": 32} | sizes | changes)


def affines(generator: StyleGAN2Generator) -> list[torch.nn.Module]:
    return [conv.affine for block in generator.synthesis.blocks for conv in block.convs()]


# ---------------------------------------------------------------- clicks


@pytest.mark.parametrize("model", ["svm", "logistic"])
def test_forty_clicks_find_a_planted_attribute(model: str) -> None:
    """The study of small samples: effect per deviation of W that is moved, and leak on two others at +2."""
    effects: dict[str, list[float]] = {"natural": [], "normal": []}
    leaks: list[float] = []
    for seed in range(16):
        normals = planted(seed)
        w, labels = clicks(normals[0], 20, 100 + seed)
        for kind, found in effects.items():
            one = finding.fit_labels("x", w, labels, SPECTRUM, kind=kind, model=model)
            step = one.step[0].double()
            found.append(((normals[0] @ step) / SPECTRUM.distance(step[None])).item())
            if kind == "natural":
                leaks.append((2 * (normals[1:] @ step) / (normals[0] @ step)).abs().mean().item())
    assert np.median(effects["natural"]) >= 0.85
    assert np.median(leaks) <= 0.25
    assert np.median(effects["normal"]) <= 0.35  # InterFaceGAN's own, out of W through narrow dimensions


@pytest.mark.parametrize("kind", ["natural", "normal"])
def test_strength_one_is_one_deviation_and_zero_the_boundary(kind: str) -> None:
    normal = planted(0)[0]
    w, labels = clicks(normal, 200, 5)
    one = finding.fit_labels("x", w, labels, SPECTRUM, kind=kind)
    assert (one.step[0] @ one.normal).item() == pytest.approx(1, abs=1e-5)
    assert one.coordinate(drawn(20_000, 7).float()).std().item() == pytest.approx(1, abs=0.02)
    assert SPECTRUM.distance(one.step).item() == pytest.approx(1, abs=1e-3) or kind == "normal"


def test_the_boundary_is_kept_where_an_attribute_is_rare() -> None:
    normal = planted(1)[0]
    w = drawn(8000, 3)
    score = (w - SPECTRUM.mean) @ normal
    near = ((score - 1.5).abs() < 1.2) & ((score - 1.5).abs() > 0.2)
    one = finding.fit_labels("rare", w[near], score[near] > 1.5, SPECTRUM)
    # the mean lies 1.5 deviations on the side without; a direction without its intercept would say 0
    assert one.coordinate(SPECTRUM.mean[None].float()).item() == pytest.approx(-1.5, abs=0.3)
    share = (one.coordinate(drawn(20_000, 9).float()) > 0).double().mean().item()
    assert share == pytest.approx(0.067, abs=0.03)


def test_quality_is_told_apart_from_luck() -> None:
    normal = planted(2)[0]
    good = finding.fit_labels("x", *clicks(normal, 20, 0), SPECTRUM).source
    assert (good["method"], good["n_pos"], good["n_neg"]) == ("svm", 20, 20)
    assert good["accuracy"] >= 0.85
    assert good["split_half"] >= 0.5
    assert good["quality"] in ("strong", "usable")
    lucky = [
        finding.fit_labels("x", drawn(40, seed), torch.arange(40) < 20, SPECTRUM).source["quality"]
        for seed in range(10)
    ]
    assert lucky == ["weak"] * 10
    assert finding.quality(0.9, 0.95) == "strong"
    assert finding.quality(0.9, 0.7) == finding.quality(0.5, 0.95) == "usable"
    assert finding.quality(0.2, 1.0) == finding.quality(1.0, 0.5) == "weak"


def test_few_and_lopsided_labels_are_fitted_and_fewer_refused() -> None:
    normal = planted(3)[0]
    w, labels = clicks(normal, 60, 0)
    few = torch.cat([torch.arange(4), torch.arange(60, 120)])
    one = finding.fit_labels("x", w[few].float(), labels[few].numpy(), SPECTRUM)
    assert one.source["n_pos"] == 4
    assert (normal @ one.step[0].double()).item() > 0.4
    with pytest.raises(ValueError, match="there are 3 samples with 'x' and 60 without: label 4 or more of each"):
        finding.fit_labels("x", w[few[1:]], labels[few[1:]], SPECTRUM)
    again = torch.cat([few[1:], few[1:4], few[1:4]])
    with pytest.raises(ValueError, match="there are 3 samples with 'x' and 60 without"):
        finding.fit_labels("x", w[again], labels[again], SPECTRUM)


def test_the_same_labels_give_the_same_direction() -> None:
    w, labels = clicks(planted(0)[0], 25, 0)
    one, two = (finding.fit_labels("x", w, labels, SPECTRUM, fingerprint="f") for _ in range(2))
    assert torch.equal(one.step, two.step)
    assert one.source == two.source
    assert one.fingerprint == "f"


def test_a_model_twice_as_wide_finds_the_same() -> None:
    w, labels = clicks(planted(0)[0], 100, 0, noise=1.0)
    wide = WStats(SPECTRUM.mean * 1000, SPECTRUM.cov * 1000**2, SPECTRUM.n)
    one, two = finding.fit_labels("x", w, labels, SPECTRUM), finding.fit_labels("x", w * 1000, labels, wide)
    assert torch.allclose(one.step * 1000, two.step, rtol=1e-3, atol=1e-3)
    assert one.offset == pytest.approx(two.offset, abs=1e-3)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "w_plus": ({"w": torch.ones(10, 3, DIM)}, r"shapes \[10, 3, 512\] and \[10\]: expected \(n, 512\) and \(n,\)"),
    "other w": ({"w": torch.ones(10, 8)}, r"expected \(n, 512\)"),
    "other labels": ({"labels": [True] * 9}, r"and \[9\]: expected"),
    "kind": ({"kind": "pca"}, "kind is 'pca'"),
    "model": ({"model": "forest"}, "model 'forest': expected"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_labels_that_do_not_fit_are_one_sentence(fault: str) -> None:
    given, says = WRONG[fault]
    right = {"w": drawn(10, 0), "labels": torch.arange(10) < 5}
    with pytest.raises(ValueError, match=says):
        finding.fit_labels("x", stats=SPECTRUM, **right | given)


# ---------------------------------------------------------------- scores


@pytest.mark.parametrize("share", [None, 0.05])
def test_scores_find_a_planted_attribute(share: float | None) -> None:
    normal = planted(4)[0]
    w = drawn(3000, 0)
    score = ((w - SPECTRUM.mean) @ normal + 0.3 * torch.randn(3000, generator=source(1))) * 50 + 7
    one = finding.fit_scores("x", w, score, SPECTRUM, share=share)
    assert (normal @ one.step[0].double()).item() >= 0.9
    assert one.source["n_pos"] == one.source["n_neg"] == (300 if share is None else 150)
    assert one.source["share"] == (0.1 if share is None else 0.05)
    assert one.source["correlation"] > 0.5
    assert one.source["quality"] == "strong"
    down = finding.fit_scores("x", w, -score, SPECTRUM, share=share)
    assert down.cosine(one, SPECTRUM) == pytest.approx(-1, abs=0.01)


def test_many_samples_take_a_smaller_share() -> None:
    stats = WStats(torch.zeros(2).double(), torch.eye(2).double(), 10)
    w = torch.randn(10_000, 2, generator=source(0))
    assert finding.fit_scores("x", w, w[:, 0], stats).source["n_pos"] == 200


def test_scores_that_tell_nothing_are_refused() -> None:
    w = drawn(100, 0)
    with pytest.raises(ValueError, match="100 scores of 'x' do not tell 10 lowest from 10 highest"):
        finding.fit_scores("x", w, torch.ones(100), SPECTRUM)
    with pytest.raises(ValueError, match="expected 100 finite numbers"):
        finding.fit_scores("x", w, torch.full((100,), torch.nan), SPECTRUM)
    with pytest.raises(ValueError, match=r"share is 0.6: expected"):
        finding.fit_scores("x", w, w[:, 0], SPECTRUM, share=0.6)
    with pytest.raises(ValueError, match="7 scores of 'x' do not tell 4 lowest"):
        finding.fit_scores("x", w[:7], w[:7, 0], SPECTRUM)


# ---------------------------------------------------------------- conditions


def direction(name: str, n: Tensor) -> Direction:
    n = n.double() / (n.double() @ SPECTRUM.cov @ n.double()).sqrt()
    return Direction(name, SPECTRUM.cov @ n, n)


@pytest.mark.parametrize("metric", ["covariance", "euclidean"])
@pytest.mark.parametrize("count", [1, 2, 8])
def test_conditions_are_left_alone(count: int, metric: str) -> None:
    normals = torch.randn(count + 1, DIM, generator=source(count), dtype=torch.float64)
    own, *others = (direction(f"d{k}", n) for k, n in enumerate(normals))
    found = finding.conditional(own, others, SPECTRUM, metric)
    leaks = [(one.normal.double() @ found.step[0].double()).abs().item() for one in others]
    assert max(leaks) <= 1e-6
    assert (own.normal @ found.step[0]).item() == pytest.approx(1, abs=1e-5)
    assert found.kind == "conditional"
    assert found.source["without"] == [one.name for one in others]
    assert torch.equal(found.normal, own.normal)


def test_the_closed_form_is_met_and_no_step_is_shorter() -> None:
    own, *others = (direction(str(k), n) for k, n in enumerate(planted(5, 3) + 0.5 * planted(6, 1)))
    a = torch.stack([one.normal.double() for one in (own, *others)], dim=1)
    wanted = (SPECTRUM.cov @ a @ torch.linalg.inv(a.T @ SPECTRUM.cov @ a))[:, 0]
    found = finding.conditional(own, others, SPECTRUM)
    assert torch.allclose(found.step[0].double(), wanted, atol=1e-5)
    flat = finding.conditional(own, others, SPECTRUM, "euclidean")
    assert SPECTRUM.distance(found.step) < SPECTRUM.distance(flat.step)
    assert found.step.norm() > flat.step.norm()


@pytest.mark.parametrize("apart", [1e-3, 1e-6, 1e-9, 0.0])
def test_nearly_parallel_conditions_are_one(apart: float) -> None:
    own, b, c = planted(7)
    others = [direction("b", b), direction("b2", b + apart * c), direction("b3", b - apart * c)]
    found = finding.conditional(direction("a", own), others, SPECTRUM)
    assert max((one.normal.double() @ found.step[0].double()).abs().item() for one in others) <= 1e-6
    assert SPECTRUM.distance(found.step).item() == pytest.approx(1, abs=0.1)


def test_what_is_the_same_cannot_be_left_alone() -> None:
    a, b, c = planted(8)
    alone = direction("a", a)
    assert finding.conditional(alone, [], SPECTRUM) is alone
    with pytest.raises(ValueError, match=r"'a' is hardly more than twin: 0.0\d\d of it is left"):
        finding.conditional(direction("a", a), [direction("twin", a + 0.03 * b)], SPECTRUM)
    close = finding.conditional(direction("a", a), [direction("cousin", a + 0.3 * b)], SPECTRUM)
    assert close.source["kept"] == pytest.approx(0.3 / 1.09**0.5, abs=1e-3)
    assert "only 0.29 of this is left without cousin" in close.source["warning"]
    assert "warning" not in finding.conditional(direction("a", a), [direction("c", a + c)], SPECTRUM).source
    with pytest.raises(ValueError, match="nothing measures raw: conditions need"):
        finding.conditional(direction("a", a), [Direction("raw", torch.ones(DIM))], SPECTRUM)
    with pytest.raises(ValueError, match="metric is 'taxi': expected covariance or euclidean"):
        finding.conditional(direction("a", a), [direction("b", b)], SPECTRUM, "taxi")


@pytest.mark.parametrize("kind", ["natural", "normal"])
def test_labels_are_fitted_without_others(kind: str) -> None:
    a, b, _ = planted(9)
    other = direction("b", b)
    w, labels = clicks(a + 0.7 * b, 50, 0)
    plain, free = (finding.fit_labels("x", w, labels, SPECTRUM, kind=kind, others=others) for others in ([], [other]))
    assert (other.normal @ plain.step[0]).abs().item() > 0.1
    assert (other.normal @ free.step[0]).abs().item() <= 1e-5
    assert free.source["metric"] == ("covariance" if kind == "natural" else "euclidean")
    assert free.source["accuracy"] == plain.source["accuracy"]


# ---------------------------------------------------------------- the weights


def test_sefa_finds_a_planted_direction_and_moves_the_layers_it_was_found_in() -> None:
    generator = make_generator()
    stats, vector = WStats.of(generator), torch.randn(16, generator=source(3))
    vector /= vector.norm()
    layer = affines(generator)[3]
    layer.weight.data = layer.weight.data * 0.1 + torch.randn(len(layer.weight), 1, generator=source(4)) * vector * 4
    for layers in ("3", [3]):
        found = finding.sefa(generator, layers, 4, stats)
        assert torch.cosine_similarity(found[0].step[0], vector, dim=0).abs() >= 0.99
        assert [one.layers for one in found] == [(3,)] * 4
        assert found[0].shift(8)[[0, 1, 2, 4, 5, 6, 7]].abs().max() == 0  # e4e's helper edits the layer before
    elsewhere = finding.sefa(generator, "2", 1, stats)[0]
    assert torch.cosine_similarity(elsewhere.step[0], vector, dim=0).abs() < 0.9


def test_sefa_is_orthonormal_sorted_and_signed() -> None:
    generator = make_generator()
    stats = WStats.of(generator)
    found = finding.sefa(generator, None, 16, stats)
    v = torch.stack([one.step[0] / one.step[0].norm() for one in found])
    assert (v @ v.T - torch.eye(16)).abs().max() <= 1e-5
    shares = [one.source["share"] for one in found]
    assert shares == sorted(shares, reverse=True)  # numpy's eig leaves them in any order
    assert sum(shares) == pytest.approx(1)
    assert all(one.step[0][one.step[0].abs().argmax()] > 0 for one in found)
    assert [one.name for one in found[:2]] == ["sefa-0", "sefa-1"]
    for one in found:
        assert (one.normal @ one.step[0]).item() == pytest.approx(1, abs=1e-5)
        assert (one.normal.double() @ stats.cov @ one.normal.double()).item() == pytest.approx(1, abs=1e-5)
        assert one.coordinate(stats.mean[None].float()).item() == pytest.approx(0, abs=1e-5)
        assert (one.kind, one.fingerprint) == ("sefa", generator.fingerprint())


def test_no_layer_outweighs_the_others_in_sefa() -> None:
    generator = make_generator()
    before = finding.sefa(generator, count=3)
    affines(generator)[2].weight.data *= 1000
    after = finding.sefa(generator, count=3)
    for one, two in zip(before, after, strict=True):
        assert one.cosine(two) == pytest.approx(1, abs=1e-4)


def test_colours_do_not_leak_into_sefa() -> None:
    generator = make_generator()
    before = finding.sefa(generator, count=3)
    for k, block in enumerate(generator.synthesis.blocks):
        torch.nn.init.normal_(block.torgb.affine.weight, std=100 + k)
    for one, two in zip(before, finding.sefa(generator, count=3), strict=True):
        assert torch.equal(one.step, two.step)
    with pytest.raises(ValueError, match="layer 7 only makes colours, choose from 0-6"):
        finding.sefa(generator, "0-7")


@pytest.mark.parametrize("resolution", [16, 64, 1024])
def test_sefa_knows_the_layers_of_every_resolution(resolution: int) -> None:
    generator = make_generator(resolution=resolution, channel_base=4096, channel_max=4)
    (one,) = finding.sefa(generator, None, 1)
    assert one.layers == tuple(range(generator.num_ws - 1))
    with pytest.raises(ValueError, match=f"within 0-{generator.num_ws - 1}"):
        finding.sefa(generator, [generator.num_ws], 1)
    with pytest.raises(ValueError, match="count is 17: expected at most 16"):
        finding.sefa(generator, count=17)


def test_components_of_w_are_sorted_and_of_one_deviation() -> None:
    found = finding.pca(SPECTRUM, 20, "f")
    assert found[0].step[0].abs().argmax() == 0
    assert [one.step.norm().item() for one in found] == pytest.approx(VARIANCES.sqrt()[:20].tolist())
    assert SPECTRUM.distance(found[7].step).item() == pytest.approx(1, abs=1e-5)
    assert found[7].coordinate(SPECTRUM.mean[None].float()).item() == pytest.approx(0, abs=1e-5)
    assert (found[7].name, found[7].kind, found[7].fingerprint) == ("pca-7", "pca", "f")
    with pytest.raises(ValueError, match="count is 513: expected at most 512"):
        finding.pca(SPECTRUM, 513)


# ---------------------------------------------------------------- style channels


def styles(generator: StyleGAN2Generator, w_plus: Tensor) -> list[Tensor]:
    return [affine(w_plus[:, layer]).detach() for layer, affine in enumerate(affines(generator))]


def test_channels_in_which_a_few_pictures_agree_are_found_and_moved() -> None:
    generator = make_generator(w_dim=64, z_dim=64)
    stats = WStats.of(generator)
    with torch.no_grad():
        w = generator.mapping(torch.randn(4000, 64, generator=source(0)))
    w_plus = w[:, None].repeat(1, 8, 1)
    all_styles = styles(generator, w_plus)
    mean, std = all_styles[2].mean(0), all_styles[2].std(0)
    high = ((all_styles[2][:, 5] - mean[5]) / std[5]).topk(30).indices
    one = finding.channels("x", generator, w[high], stats, keep=1)
    assert one.layers == (2,)
    assert one.kind == "channels"
    assert one.normal is None
    assert torch.allclose(one.step, finding.channels("x", generator, w_plus[high], stats, keep=1).step, atol=1e-5)
    ends = styles(generator, torch.stack([w_plus[0], w_plus[0] + one.shift(8)]))
    moved = [style[1:] - style[:1] for style in ends]
    assert (moved[2][0, 5] / std[5]).item() == pytest.approx(1, abs=0.05)
    others = moved[2][0] / std
    others[5] = 0
    assert others.abs().max() < 0.5
    assert all(change.abs().max() == 0 for layer, change in enumerate(moved) if layer != 2)
    assert one.source["spill"] < 0.2
    assert (one.source["n_pos"], one.source["channels"]) == (30, 1)


def test_wrong_pictures_for_channels_are_one_sentence() -> None:
    generator = make_generator()
    stats = WStats.of(generator, 100)
    for shape in ((3, 16), (5, 8), (5, 7, 16), (16,)):
        with pytest.raises(ValueError, match=r"expected \(n, 16\) or \(n, 8, 16\), n of 4 or more"):
            finding.channels("x", generator, torch.ones(shape), stats)
    total = sum(len(affine.bias) for affine in affines(generator))
    with pytest.raises(ValueError, match=f"keep is 999: this model has {total} style channels"):
        finding.channels("x", generator, torch.randn(5, 16), stats, keep=999)


# ---------------------------------------------------------------- modes


def test_the_way_between_modes_is_measured_in_deviations() -> None:
    generator = make_generator()
    with torch.no_grad():
        w = generator.mapping(torch.randn(300, 16, generator=source(0)))
    bank, stats = make_bank(generator, w, w[:3]), WStats.of(generator)
    a, b = bank.centers[0], bank.centers[2]
    one = finding.between_modes("x", bank, 0, 2, stats, "f")
    distance = one.source["distance"]
    assert torch.allclose(a + distance * one.step[0], b, atol=1e-3)
    assert one.coordinate(torch.stack([a, (a + b) / 2, b])).tolist() == pytest.approx(
        [-distance / 2, 0, distance / 2], abs=1e-3
    )
    assert (one.step[0] @ one.normal).item() == pytest.approx(1, abs=1e-4)
    assert stats.distance(one.step).item() == pytest.approx(1, abs=1e-4)
    assert (one.source["modes"], one.kind, one.fingerprint) == ([0, 2], "modes", "f")
    toward = finding.toward_mode("y", bank, 2, stats)
    reached = stats.mean.float() + toward.source["distance"] * toward.step[0]
    assert torch.allclose(reached, b, atol=1e-3)
    with pytest.raises(ValueError, match="'x' starts where it ends"):
        finding.between_modes("x", bank, 1, 1, stats)
    with pytest.raises(ValueError, match="modes 0 to 2"):
        finding.toward_mode("x", bank, 3, stats)


def test_a_sample_given_twice_counts_once() -> None:
    w = torch.randn(2, 16, generator=torch.Generator().manual_seed(0)).repeat_interleave(6, dim=0)
    stats = WStats.from_samples(torch.randn(500, 16, generator=torch.Generator().manual_seed(1)))
    with pytest.raises(ValueError, match="there are 1 samples with 'mine' and 1 without: label 4 or more of each"):
        finding.fit_labels("mine", w, [True] * 6 + [False] * 6, stats)


def test_a_score_that_orders_its_ends_alone_is_weak() -> None:
    source = torch.Generator().manual_seed(0)
    w, scores = torch.randn(2000, 16, generator=source), torch.rand(2000, generator=source)
    order, stats = w[:, 0].argsort(), WStats.from_samples(w)
    scores[order[:160]], scores[order[-160:]] = -10.0, 10.0
    ends = finding.fit_scores("ends", w, scores, stats, share=0.08).source
    assert ends["accuracy"] > 0.9
    assert ends["split_half"] > 0.75
    assert (ends["correlation"] < 0.1, ends["quality"]) == (True, "weak")
    assert finding.fit_scores("all", w, w[:, 0], stats, share=0.08).source["quality"] == "strong"
    scores = w[:, 0] / 2 + torch.randn(2000, generator=source)  # which orders what is in between a little
    scores[order[:160]], scores[order[-160:]] = -10.0, 10.0
    some = finding.fit_scores("some", w, scores, stats, share=0.08).source
    assert (0.3 < some["correlation"] < 0.5, some["split_half"] > 0.75, some["quality"]) == (True, True, "usable")
