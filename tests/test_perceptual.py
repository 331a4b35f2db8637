"""Perceptual networks: the distance against its formula, foreign weights, and the network that ships with us."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from hfgan.metrics import rank_correlation
from hfgan.models.perceptual import BUNDLED, MobileNetV2, Perceptual, PerceptualNet, load_perceptual

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("HFGAN_PERCEPTUAL", ROOT.parent / "shared" / "data" / "perceptual"))
LPIPS_FILE, MOBILENET_FILE = "lpips_alex_fp16.safetensors", "mobilenet_v2_imagenet_fp16.safetensors"
NETS = ("bundled", "lpips", "mobilenet")


def lpips_tensors() -> dict[str, torch.Tensor]:
    """Random weights with LPIPS-Alex's names and shapes."""
    source, out, c_in = torch.Generator().manual_seed(0), {}, 3
    for i, (at, width, kernel) in enumerate(((0, 64, 11), (3, 192, 5), (6, 384, 3), (8, 256, 3), (10, 256, 3))):
        scale = (2 / (c_in * kernel**2)) ** 0.5
        out[f"features.{at}.weight"] = torch.randn(width, c_in, kernel, kernel, generator=source) * scale
        out[f"features.{at}.bias"] = torch.randn(width, generator=source) * 0.1
        out[f"lin{i}.weight"] = torch.rand(1, width, 1, 1, generator=source)
        c_in = width
    return out


def mobilenet_tensors() -> dict[str, torch.Tensor]:
    """Random weights with torchvision's names, statistics included."""
    torch.manual_seed(0)
    net = MobileNetV2()
    source = torch.Generator().manual_seed(1)
    for name, value in net.state_dict().items():
        if name.endswith(("running_mean", "running_var", "bias")):
            value.copy_(torch.rand(value.shape, generator=source) + (0.5 if "var" in name else -0.5))
    out = {"features." + k.removeprefix("blocks."): v for k, v in net.state_dict().items()}
    return out | {"classifier.1.weight": torch.zeros(10, 1280), "classifier.1.bias": torch.zeros(10)}


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The published weights where they are at hand, else random ones of the same shapes."""
    folder, found = tmp_path_factory.mktemp("perceptual"), {}
    for net, name, make in (("lpips", LPIPS_FILE, lpips_tensors), ("mobilenet", MOBILENET_FILE, mobilenet_tensors)):
        found[net] = SHARED / name
        if not found[net].is_file():
            found[net] = folder / name
            save_file({k: v.contiguous() for k, v in make().items()}, found[net])
    return found


@pytest.fixture(scope="session", params=NETS)
def net(request: pytest.FixtureRequest, files: dict[str, Path]) -> Perceptual:
    return load_perceptual(files.get(request.param))


def pictures(n: int, size: int = 64, seed: int = 0) -> torch.Tensor:
    """Smooth random images (n,3,size,size) in [-1,1] with some detail."""
    source = torch.Generator().manual_seed(seed)
    coarse = F.interpolate(torch.randn(n, 3, 6, 6, generator=source), size=(size, size), mode="bicubic")
    return (coarse * 0.6 + torch.randn(n, 3, size, size, generator=source) * 0.05).clamp(-1, 1)


# ---------------------------------------------------------------- the distance


def test_equal_images_are_at_zero_and_order_does_not_matter(net: Perceptual) -> None:
    a, b = pictures(3), pictures(3, seed=1)
    assert net.distance(a, a).tolist() == [0, 0, 0]
    there = net.distance(a, b)
    assert there.shape == (3,)
    assert (there > 1e-5).all()
    assert torch.equal(there, net.distance(b, a))
    alone = torch.cat([net.distance(a[i : i + 1], b[i : i + 1]) for i in range(3)])
    assert torch.allclose(there, alone, rtol=1e-5)


def test_distance_grows_with_the_distortion(net: Perceptual) -> None:
    a = pictures(4)
    noise = torch.randn(a.shape, generator=torch.Generator().manual_seed(2))
    steps = [net.distance(a, a + level * noise) for level in (0.02, 0.1, 0.3)]
    assert (steps[0] < steps[1]).all()
    assert (steps[1] < steps[2]).all()


def test_lpips_is_its_formula(files: dict[str, Path]) -> None:
    tensors = {k: v.double() for k, v in load_file(files["lpips"]).items()}
    a, b = pictures(2), pictures(2, seed=1)

    def layers(x: torch.Tensor) -> list[torch.Tensor]:
        shift = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
        scale = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
        x, out = ((x - shift) / scale).double(), []
        for at, stride, padding, pool in ((0, 4, 2, 0), (3, 1, 2, 1), (6, 1, 1, 1), (8, 1, 1, 0), (10, 1, 1, 0)):
            x = F.max_pool2d(x, kernel_size=3, stride=2) if pool else x
            x = F.conv2d(x, tensors[f"features.{at}.weight"], tensors[f"features.{at}.bias"], stride, padding).relu()
            out.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return out

    terms = [
        F.conv2d((x - y) ** 2, tensors[f"lin{i}.weight"]).mean((1, 2, 3))
        for i, (x, y) in enumerate(zip(layers(a), layers(b), strict=True))
    ]
    assert load_perceptual(files["lpips"]).distance(a, b).numpy() == pytest.approx(sum(terms).numpy(), rel=1e-4)


def test_interest_weighs_positions_only(net: Perceptual) -> None:
    a, b = pictures(2), pictures(2, seed=1)
    whole = net.distance(a, b)
    assert torch.allclose(net.distance(a, b, torch.full((2, 1, 64, 64), 0.3)), whole, rtol=1e-5)
    left = torch.zeros(2, 1, 64, 64)
    left[..., :32] = 1
    # both halves together are the whole, for each layer splits its positions between them
    maps = net.distance_maps(net.features(a), net.features(b))
    for distance_map in maps:
        one = Maps([distance_map])
        weights = F.interpolate(left, size=distance_map.shape[-2:], mode="area").sum((1, 2, 3))
        total = distance_map[0, 0].numel()
        halves = [one.compare(a, b, left) * weights, one.compare(a, b, 1 - left) * (total - weights)]
        assert torch.allclose(sum(halves) / total, distance_map.mean((1, 2, 3)), rtol=1e-5)


class Maps(Perceptual):
    """A network whose distance maps are given."""

    def __init__(self, maps: list[torch.Tensor]) -> None:
        self.maps = maps

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [images]

    def distance_maps(self, fa: torch.Tensor, fb: torch.Tensor) -> list[torch.Tensor]:
        return self.maps


@pytest.mark.parametrize("name", ["bundled", "lpips"])
def test_what_lies_beyond_the_receptive_field_of_the_interest_does_not_count(
    name: str, files: dict[str, Path]
) -> None:
    net = load_perceptual(files.get(name))
    a = pictures(1, size=384)
    b, interest = a.clone(), torch.zeros(1, 1, 384, 384)
    interest[..., :48] = 1
    b[..., 288:] = -b[..., 288:]
    assert net.distance(a, b).item() > 0.01
    # the last layer's receptive field is 163 px wide and starts every 16 px
    assert net.distance(a, b, interest).item() == 0
    assert net.distance(a, b, 1 - interest).item() > net.distance(a, b).item()
    # the first layer's is 11 px wide: there a change right behind the margin is already unseen
    near = a.clone()
    near[..., 48 + 11 :] = -near[..., 48 + 11 :]
    first = net.distance_maps(net.features(a), net.features(near))[0]
    assert first[..., : 48 // 4].abs().max() == 0 < first[..., 48 // 4 + 4 :].min()


def test_a_sample_without_interest_is_at_zero_and_leaves_the_others_alone(net: Perceptual) -> None:
    a, b = pictures(2).requires_grad_(), pictures(2, seed=1)
    interest = torch.ones(2, 1, 32, 32)
    interest[0] = 0
    found = net.distance(a, b, interest)
    assert found[0] == 0
    assert torch.allclose(found[1], net.distance(a, b)[1], rtol=1e-5)
    (gradient,) = torch.autograd.grad(found.sum(), a)
    assert gradient.isfinite().all()
    assert gradient[0].abs().max() == 0 < gradient[1].abs().max()


def test_gradients_reach_the_images_also_where_they_are_equal(net: Perceptual) -> None:
    a, b = pictures(1).requires_grad_(), pictures(1, seed=1)
    (gradient,) = torch.autograd.grad(net.distance(a, b).sum(), a)
    nearer = a.detach() - 1e-3 * gradient / gradient.abs().max()
    assert net.distance(nearer, b) < net.distance(a, b)
    (gradient,) = torch.autograd.grad(net.distance(a, a.detach()).sum(), a)
    assert gradient.abs().max() == 0
    (gradient,) = torch.autograd.grad(net.distance(a * 0, b).sum(), a)  # black: flat features
    assert gradient.isfinite().all()
    assert not any(p.requires_grad for p in net.parameters())


def test_embedding_is_a_lower_bound_of_the_distance(files: dict[str, Path]) -> None:
    net = load_perceptual(files["lpips"])
    a, b = pictures(4), pictures(4, seed=1)
    gap = (net.embed(a) - net.embed(b)).square().sum(1)
    assert net.embed(a).shape == (4, 64 + 192 + 384 + 256 + 256)
    assert (gap > 0).all()
    assert (gap <= net.distance(a, b) * 1.0001).all()


def test_a_target_seen_once_gives_the_same_distance(net: Perceptual) -> None:
    a, b = pictures(2), pictures(2, seed=1)
    assert torch.equal(net.compare(net.features(a), net.features(b)), net.distance(a, b))


@pytest.mark.parametrize(
    ("a", "b", "interest", "told"),
    [
        ((1, 3, 64, 64), (1, 3, 64, 32), None, r"one shape, got \(1, 3, 64, 64\) and \(1, 3, 64, 32\)"),
        ((1, 1, 64, 64), (1, 1, 64, 64), None, r"float images \(n,3,h,w\) in \[-1,1\], got torch.float32 \(1, 1"),
        ((2, 3, 64, 64), (2, 3, 64, 64), (1, 1, 64, 64), r"interest must be \(2,1,h,w\) for 2 images"),
        ((1, 3, 64, 64), (1, 3, 64, 64), (1, 64, 64), r"interest must be \(1,1,h,w\)"),
    ],
)
def test_shapes_that_do_not_fit_are_told(
    net: Perceptual, a: tuple[int, ...], b: tuple[int, ...], interest: tuple[int, ...] | None, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        net.distance(torch.zeros(a), torch.zeros(b), None if interest is None else torch.ones(interest))


def test_integer_and_tiny_images_are_refused(net: Perceptual) -> None:
    with pytest.raises(ValueError, match=r"got torch.uint8 \(1, 3, 64, 64\): convert them"):
        net.embed(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    if isinstance(net, PerceptualNet):
        assert net.distance(pictures(1, 31), pictures(1, 31, 1)) > 0
        with pytest.raises(ValueError, match="30x30 px are too small for this network: enlarge them to 31 px"):
            net.features(pictures(1, 30))


def test_bfloat16_is_close(net: Perceptual, files: dict[str, Path]) -> None:
    a = pictures(4)
    other = load_perceptual(files["mobilenet"] if isinstance(net, MobileNetV2) else BUNDLED)
    if isinstance(net, PerceptualNet):
        net = load_perceptual()
    other = other.to(torch.bfloat16)
    for mine, theirs in zip(net.features(a), other.features(a), strict=True):
        assert theirs.dtype == torch.bfloat16
        error = (mine - theirs.float()).square().mean().sqrt() / mine.std()
        assert error < 0.05
    assert other.embed(a).dtype == torch.float32


# ---------------------------------------------------------------- MobileNetV2


def test_mobilenet_is_its_architecture_with_torchvisions_names(files: dict[str, Path]) -> None:
    tensors = {k: v.float() for k, v in load_file(files["mobilenet"]).items()}

    def norm(x: torch.Tensor, at: str) -> torch.Tensor:
        mean, var = tensors[f"{at}.running_mean"], tensors[f"{at}.running_var"]
        return F.batch_norm(x, mean, var, tensors[f"{at}.weight"], tensors[f"{at}.bias"])

    def conv(x: torch.Tensor, at: str, stride: int = 1) -> torch.Tensor:
        weight = tensors[f"{at}.weight"]
        groups = x.shape[1] // weight.shape[1]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)

    images = pictures(2)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = ((images + 1) / 2 - mean) / std
    x, taps = F.relu6(norm(conv(x, "features.0.0", 2), "features.0.1")), []
    strides = {2: 2, 4: 2, 7: 2, 14: 2}
    for i in range(1, 18):
        at, y, hidden = f"features.{i}.conv", x, 1 if i == 1 else 2
        for j in range(hidden):  # expansion, but for the first block, then depthwise
            stride = strides.get(i, 1) if j == hidden - 1 else 1
            y = F.relu6(norm(conv(y, f"{at}.{j}.0", stride), f"{at}.{j}.1"))
        y = norm(conv(y, f"{at}.{hidden}"), f"{at}.{hidden + 1}")
        x = x + y if x.shape == y.shape else y
        taps += [x] if i in (3, 6, 13, 17) else []
    pooled = F.relu6(norm(conv(x, "features.18.0"), "features.18.1")).mean((2, 3))
    net = MobileNetV2.from_file(files["mobilenet"])
    assert [tuple(f.shape[1:]) for f in net.features(images)] == [(24, 16, 16), (32, 8, 8), (96, 4, 4), (320, 2, 2)]
    for mine, theirs in zip(net.features(images), taps, strict=True):
        assert (mine - theirs).abs().max() < 2e-3 * theirs.abs().max()
    assert net.embed(images).shape == (2, 1280)
    assert (net.embed(images) - pooled).abs().max() < 2e-3 * pooled.abs().max()


def test_mobilenet_stays_frozen_inside_a_model_in_training(files: dict[str, Path]) -> None:
    net = MobileNetV2.from_file(files["mobilenet"])
    before = net.embed(pictures(2))
    torch.nn.Sequential(net).train()
    assert not net.training
    assert torch.equal(net.embed(pictures(2)), before)
    assert all(not p.requires_grad for p in net.parameters())


# ---------------------------------------------------------------- sources of weights


def test_files_are_told_apart_by_their_tensors(files: dict[str, Path], tmp_path: Path) -> None:
    assert isinstance(load_perceptual(files["lpips"]), PerceptualNet)
    assert isinstance(load_perceptual(str(files["mobilenet"])), MobileNetV2)
    load_perceptual(files["lpips"]).save_pretrained(tmp_path / "lpips", dtype=torch.float16)
    again = load_perceptual(tmp_path / "lpips")
    a, b = pictures(2), pictures(2, seed=1)
    assert torch.allclose(again.distance(a, b), load_perceptual(files["lpips"]).distance(a, b), rtol=2e-3)
    assert not again.training


@pytest.mark.parametrize("kind", ["lpips", "mobilenet"])
def test_tensors_that_are_missing_extra_or_misshapen_are_named(
    kind: str, files: dict[str, Path], tmp_path: Path
) -> None:
    whole = load_file(files[kind])
    broken = dict(whole)
    victim = {"lpips": "features.3.bias", "mobilenet": "features.3.conv.0.1.bias"}[kind]
    del broken[victim]
    broken["features.99.weight"] = torch.zeros(1)
    broken["features.0.bias" if kind == "lpips" else "features.0.1.bias"] = torch.zeros(7)
    save_file(broken, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="these weights are no") as told:
        load_perceptual(tmp_path / "x.safetensors")
    missing = {"lpips": "missing: convs.1.bias", "mobilenet": "missing: blocks.3.conv.0.1.bias"}[kind]
    extra = {"lpips": "extra: features.99.weight", "mobilenet": "extra: blocks.99.weight"}[kind]
    misshapen = {"lpips": "misshapen: convs.0.bias", "mobilenet": "misshapen: blocks.0.1.bias"}[kind]
    assert all(part in str(told.value) for part in (missing, extra, misshapen))


def test_files_that_are_absent_or_damaged_are_told(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.safetensors does not exist"):
        load_perceptual(tmp_path / "absent.safetensors")
    short = tmp_path / "short.safetensors"
    short.write_bytes(files["lpips"].read_bytes()[:5000])
    with pytest.raises(ValueError, match="truncated"):
        load_perceptual(short)
    with pytest.raises(FileNotFoundError):
        load_perceptual(tmp_path / "no-folder")


def test_the_package_lpips_gives_its_weights_where_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, Path]
) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(ModuleNotFoundError, match="pip install lpips"):
        load_perceptual("lpips")
    monkeypatch.delitem(sys.modules, "lpips")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "lpips.py").write_text(FAKE_LPIPS.format(path=str(files["lpips"])))
    a, b = pictures(2), pictures(2, seed=1)
    expected = load_perceptual(files["lpips"]).distance(a, b)
    assert torch.equal(load_perceptual("lpips").distance(a, b), expected)
    monkeypatch.delitem(sys.modules, "lpips")


# names of the state of lpips.LPIPS 0.1.4: slices of AlexNet, linear layers twice, the input's range
FAKE_LPIPS = """
import torch
from safetensors.torch import load_file

class LPIPS:
    def __init__(self, net, verbose):
        assert net == "alex" and verbose is False

    def state_dict(self):
        tensors, out = load_file({path!r}), {{"scaling_layer.shift": torch.zeros(1, 3, 1, 1)}}
        for i, at in enumerate((0, 3, 6, 8, 10)):
            for kind in ("weight", "bias"):
                out[f"net.slice{{i + 1}}.{{at}}.{{kind}}"] = tensors[f"features.{{at}}.{{kind}}"]
            out[f"lin{{i}}.model.1.weight"] = out[f"lins.{{i}}.model.1.weight"] = tensors[f"lin{{i}}.weight"]
        return out
"""


# ---------------------------------------------------------------- what ships with us


def test_the_bundled_network_is_small_and_says_how_good_it_is() -> None:
    assert (BUNDLED / "diffusion_pytorch_model.safetensors").stat().st_size < 1.5e6
    measured = json.loads((BUNDLED / "metrics.json").read_text())["spearman"]
    for size in ("64 px", "128 px"):
        assert min(measured[size].values()) >= 0.9, size


def test_the_bundled_network_orders_pairs_as_lpips_does() -> None:
    if not (SHARED / LPIPS_FILE).is_file():
        pytest.skip("the published LPIPS weights are not here")
    a, b = pictures(60, seed=3), pictures(60, seed=4)
    b = torch.lerp(a, b, torch.linspace(0.05, 1, 60).view(-1, 1, 1, 1))
    ours, theirs = (net.distance(a, b) for net in (load_perceptual(), load_perceptual(SHARED / LPIPS_FILE)))
    assert rank_correlation(ours, theirs) > 0.95
    assert ours.numpy() == pytest.approx(theirs.numpy(), rel=0.5)  # and on the same scale
