"""Published checkpoints become ordinary models: the pictures and logits that float64 arithmetic makes of the file.

Files come from `writers`, truth from `reference`; neither has a line in common with the library.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
import writers
from safetensors.torch import load_file
from torch import Tensor
from writers import Net, Written

from hfgan.converting import convert
from hfgan.converting.exporting import export_weights

TOLERANCE = 1e-4
TOY = Net()
PUBLIC = Net(
    z_dim=512, w_dim=512, channel_base=16384, channel_max=512
)  # as wide as rosinality's are, as small as may be


def latents(net: Net, n: int) -> Tensor:
    return torch.randn(n, net.z_dim, generator=torch.Generator().manual_seed(7))


def labels(net: Net, n: int) -> Tensor | None:
    return torch.eye(net.c_dim)[torch.arange(n) % net.c_dim] if net.c_dim else None


def furthest(got: Tensor, wanted: Tensor) -> float:
    return (got.double() - wanted).abs().max().item()


@torch.no_grad()
def check_pictures(
    gan: Any, written: Written, net: Net, n: int = 2, clamp: float | None = None, psis: tuple[float, ...] = (0.6, 1)
) -> Tensor:
    """Pictures of every truncation equal the reference; returns the last of them."""
    generator = gan.generator.to(torch.float32).eval()
    z, c = latents(net, n), labels(net, n)
    pictures = [reference.generate(written.g, z, c, psi=psi, clamp=clamp) for psi in psis]
    assert all(furthest(picture, pictures[-1]) > 0.02 for picture in pictures[:-1])
    for psi, wanted in zip(psis, pictures, strict=True):
        assert 0.05 < wanted.std() < 1.5  # the range of pictures, in which the tolerance means something
        assert furthest(generator(z, c, truncation_psi=psi), wanted) < TOLERANCE
    return pictures[-1]


@torch.no_grad()
def check_logits(gan: Any, written: Written, net: Net, n: int = 8, clamp: float | None = None) -> None:
    """Logits of unlike images, each group of which deviates otherwise, equal the reference."""
    shape = (n, net.img_channels, net.resolution, net.resolution)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(8)) * torch.linspace(0.1, 2, n).view(
        n, 1, 1, 1
    )
    how = {"clamp": clamp, "group": net.group, "channels": net.features, "rate": net.d_rate}
    wanted = reference.judge(written.d, images, labels(net, n), **how)
    assert n == 1 or wanted.std() > 0.01
    assert furthest(gan.discriminator.to(torch.float32).eval()(images, labels(net, n)), wanted) < TOLERANCE


# ---------------------------------------------------------------- NVIDIA


NVIDIA = {
    "16 pixels, whole batch as one group": Net(group=None),
    "16 pixels, two deviations in groups of eight": Net(group=8, features=2),
    "grey": Net(img_channels=1),
    "RGBA": Net(img_channels=4),
    "64 pixels": Net(64, channel_base=512, channel_max=32, layers=3),
    "64 pixels, classes": Net(64, c_dim=3, channel_base=512, channel_max=32),
    "256 pixels": Net(256, c_dim=2, channel_base=2048),
    "z unlike w": Net(z_dim=24, w_dim=12, c_dim=2),
    "eight layers, by default": Net(layers=8),
}


@pytest.mark.parametrize("net", NVIDIA.values(), ids=list(NVIDIA))
@pytest.mark.parametrize("repo", ["ada", "sg3"])
def test_nvidia(tmp_path: Path, net: Net, repo: str) -> None:
    written = writers.nvidia(tmp_path / "a.pkl", net, repo=repo)
    gan = convert(written.path).gan
    check_pictures(gan, written, net)
    check_logits(gan, written, net, n=8 if net.resolution < 256 else 2)


def test_nvidia_of_1024_pixels(tmp_path: Path) -> None:
    net = Net(1024, channel_base=2048, layers=8)
    written = writers.nvidia(tmp_path / "a.pkl", net)
    gan = convert(written.path).gan
    check_pictures(gan, written, net, n=1, psis=(0.8,))
    check_logits(gan, written, net, n=1)


@pytest.mark.parametrize("protocol", [2, 3, 5])
@pytest.mark.parametrize("repo", ["ada", "sg3"])
def test_every_protocol(tmp_path: Path, repo: str, protocol: int) -> None:
    net = replace(TOY, c_dim=2)
    written = writers.nvidia(tmp_path / "a.pkl", net, repo=repo, protocol=protocol)
    gan = convert(written.path).gan
    check_pictures(gan, written, net)
    check_logits(gan, written, net)


@pytest.mark.parametrize("repo", ["ada", "sg3"])
def test_clamped_activations(tmp_path: Path, repo: str) -> None:
    net = Net(64, c_dim=2, channel_base=512, channel_max=32, clamp=0.7, fp16=2)
    written = writers.nvidia(tmp_path / "a.pkl", net, repo=repo)
    converted = convert(written.path)
    pictures = check_pictures(converted.gan, written, net, clamp=0.7)
    check_logits(converted.gan, written, net, clamp=0.7)
    assert furthest(pictures, reference.generate(written.g, latents(net, 2), labels(net, 2))) > 0.1
    assert any("half precision" in note and "2" in note for note in converted.origin.notes)


@pytest.mark.parametrize(("repo", "net", "clamp"), [
    ("ada", TOY, None),  # what its defaults are
    ("sg3", replace(TOY, clamp=256, fp16=4), 256),
])  # fmt: skip
def test_what_is_not_written_is_the_repositorys_default(
    tmp_path: Path, repo: str, net: Net, clamp: float | None
) -> None:
    converted = convert(writers.nvidia(tmp_path / "a.pkl", net, repo=repo).path)
    gan = converted.gan
    assert gan.generator.config.conv_clamp == gan.discriminator.config.conv_clamp == clamp
    assert any("half precision" in note for note in converted.origin.notes) == (repo == "sg3")


def test_the_averaged_generator_is_taken(tmp_path: Path) -> None:
    written = writers.nvidia(tmp_path / "a.pkl", TOY)
    of_another_seed = writers.generator_tensors(TOY, 1)  # what the file has as G
    assert torch.equal(convert(written.path).gan.generator.mapping.w_avg, written.g["mapping.w_avg"])
    assert not torch.equal(of_another_seed["mapping.w_avg"], written.g["mapping.w_avg"])


def test_a_network_without_noise_draws_the_same(tmp_path: Path) -> None:
    net = replace(TOY, noisy=False)
    written = writers.nvidia(tmp_path / "a.pkl", net)
    silent = {f"synthesis.b{size}.{conv}.noise_{what}": torch.zeros(()) for size in net.sizes
              for conv in ("conv0", "conv1") for what in ("const", "strength")}  # fmt: skip
    check_pictures(convert(written.path).gan, Written(written.path, written.g | silent, written.d), net)


# ---------------------------------------------------------------- TensorFlow


@pytest.mark.parametrize("net", [
    TOY,
    Net(64, c_dim=3, channel_base=512, channel_max=32),
    Net(64, channel_base=1024, channel_max=32, group=None),
    Net(256, channel_base=2048, layers=8),
], ids=["16 pixels", "64 pixels, classes", "64 pixels, twice the width", "256 pixels"])  # fmt: skip
def test_tensorflow(tmp_path: Path, net: Net) -> None:
    written = writers.tensorflow(tmp_path / "a.pkl", net)
    gan = convert(written.path).gan
    check_pictures(gan, written, net)
    check_logits(gan, written, net, n=8 if net.resolution < 256 else 2)


@pytest.mark.parametrize("protocol", [2, 3, 5])
def test_tensorflow_in_every_protocol(tmp_path: Path, protocol: int) -> None:
    written = writers.tensorflow(tmp_path / "a.pkl", TOY, protocol=protocol)
    check_pictures(convert(written.path).gan, written, TOY)


def test_tensorflow_clamps_where_its_arguments_say(tmp_path: Path) -> None:
    written = writers.tensorflow(tmp_path / "a.pkl", TOY, static={"conv_clamp": 0.5, "num_fp16_res": 2})
    converted = convert(written.path)
    check_pictures(converted.gan, written, TOY, clamp=0.5)
    check_logits(converted.gan, written, TOY)  # whose arguments do not
    assert any("half precision" in note for note in converted.origin.notes)


@pytest.mark.parametrize(("layers", "rate"), [(0, 0.1), (8, 0.1), (2, 0.01)])
def test_a_tensorflow_discriminator_is_right_or_left_out(tmp_path: Path, layers: int, rate: float) -> None:
    net = replace(TOY, c_dim=2, d_layers=layers, d_rate=rate)  # none at a rate of 0.1 is its default
    written = writers.tensorflow(tmp_path / "a.pkl", net)
    converted = convert(written.path)
    check_pictures(converted.gan, written, net)
    if converted.gan.discriminator is None:
        assert any("discriminator was left out" in note for note in converted.origin.notes)
    else:
        check_logits(converted.gan, written, net)


# ---------------------------------------------------------------- rosinality


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_rosinality(tmp_path: Path, zipped: bool) -> None:
    written = writers.rosinality(tmp_path / "a.pt", PUBLIC, zipped=zipped)
    gan = convert(written.path).gan
    check_pictures(gan, written, PUBLIC)
    check_logits(gan, written, PUBLIC, n=2)


@pytest.mark.parametrize(("resolution", "multiplier"), [(64, 1), (64, 2), (256, 1)])
def test_rosinality_multipliers(tmp_path: Path, resolution: int, multiplier: int) -> None:
    net = replace(PUBLIC, resolution=resolution, channel_base=16384 * multiplier)
    judged = (resolution, multiplier) == (64, 1)
    written = writers.rosinality(tmp_path / "a.pt", net, discriminator=judged)
    gan = convert(written.path).gan
    check_pictures(gan, written, net, n=1, psis=(0.8,))
    if judged:
        check_logits(gan, written, net, n=1)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_rosinality_from_training(tmp_path: Path, zipped: bool) -> None:
    written = writers.rosinality(tmp_path / "a.pt", PUBLIC, training=True, zipped=zipped)
    converted, again = convert(written.path), convert(written.path)
    w_avg = converted.gan.generator.mapping.w_avg
    assert torch.equal(w_avg, again.gan.generator.mapping.w_avg)
    assert any("mean" in note and "seed" in note for note in converted.origin.notes)
    double = {name: tensor.double() for name, tensor in written.g.items()}
    source = torch.Generator().manual_seed(9)
    mean = reference.mapping(double, torch.randn(20_000, 512, dtype=torch.float64, generator=source)).mean(0)
    assert furthest(w_avg, mean) < 0.08 < mean.std()
    kept = Written(written.path, written.g | {"mapping.w_avg": w_avg}, written.d)
    check_pictures(converted.gan, kept, PUBLIC, psis=(1,))  # of g_ema, not of g
    check_logits(converted.gan, written, PUBLIC, n=1)


def test_noise_that_is_nowhere_is_drawn_and_told(tmp_path: Path) -> None:
    written = writers.rosinality(
        tmp_path / "a.pt", PUBLIC, discriminator=False,
        alter=lambda found: [found.pop(name) for name in list(found) if name.startswith("noises.")],
    )  # fmt: skip
    converted, again = convert(written.path), convert(written.path)
    assert any("noise" in note and "seed" in note for note in converted.origin.notes)
    drawn = {f"synthesis.b{4 << k}.{conv}.noise_const": buffer for k in range(3)
             for conv, buffer in noises(converted.gan, k).items()}  # fmt: skip
    assert all(0.5 < noise.std() < 1.5 for noise in drawn.values())
    assert all(torch.equal(a, noises(again.gan, k)[conv]) for k in range(3)
               for conv, a in noises(converted.gan, k).items())  # fmt: skip
    check_pictures(converted.gan, Written(written.path, written.g | drawn, written.d), PUBLIC)


def noises(gan: Any, block: int) -> dict[str, Tensor]:
    found = gan.generator.synthesis.blocks[block].named_buffers()
    return {name.removesuffix(".noise_const"): buffer for name, buffer in found if name.endswith("noise_const")}


@pytest.mark.parametrize(("write", "name"), [(writers.nvidia, "mapping.w_avg"), (writers.tensorflow, "dlatent_avg")])
def test_a_mean_that_is_missing_is_estimated_and_told(tmp_path: Path, write: Any, name: str) -> None:
    written = write(tmp_path / "a.pkl", TOY, alter=drop(name))
    converted = convert(written.path)
    assert any("mean" in note and "seed" in note for note in converted.origin.notes)
    double = {name: tensor.double() for name, tensor in written.g.items()}
    source = torch.Generator().manual_seed(9)
    mean = reference.mapping(double, torch.randn(50_000, 16, dtype=torch.float64, generator=source)).mean(0)
    assert furthest(converted.gan.generator.mapping.w_avg, mean) < 0.05 < mean.std()


def test_a_generator_alone(tmp_path: Path) -> None:
    written = writers.rosinality(tmp_path / "a.pt", PUBLIC, discriminator=False)
    converted = convert(written.path)
    assert converted.gan.discriminator is None
    assert any("no discriminator" in note for note in converted.origin.notes)


# ---------------------------------------------------------------- damage: the tensor is named


def drop(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda found: found.pop(name)


def add(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda found: found.update({name: torch.ones(3)})


def shorten(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda found: found.update({name: found[name][:-1].clone()})


@pytest.mark.parametrize("change", [drop, add, shorten], ids=["missing", "extra", "misshapen"])
@pytest.mark.parametrize("layer", ["conv1", "torgb.affine"])
def test_a_damaged_generator(tmp_path: Path, change: Any, layer: str) -> None:
    leaf = "bias" if change is not add else "novelty"
    altered = change(f"synthesis.b8.{layer}.{leaf}")
    path = writers.nvidia(tmp_path / "a.pkl", TOY, alter=altered).path
    with pytest.raises(ValueError, match=rf"(b8|blocks\.1)\.{re.escape(layer)}\.{leaf}\b"):
        convert(path)


@pytest.mark.parametrize("change", [drop, add, shorten], ids=["missing", "extra", "misshapen"])
def test_a_damaged_discriminator(tmp_path: Path, change: Any) -> None:
    leaf = "bias" if change is not add else "novelty"
    path = writers.nvidia(tmp_path / "a.pkl", TOY, alter_d=change(f"b8.conv1.{leaf}")).path
    with pytest.raises(ValueError, match=rf"(b8|blocks\.1)\.conv1\.{leaf}\b"):
        convert(path)


@pytest.mark.parametrize(("altered", "named"), [
    (drop("synthesis/8x8/Conv0_up/weight"), r"8x8/Conv0_up/weight|(b8|blocks\.1)\.conv0\.weight"),
    (lambda found: found.update({"synthesis/8x8/Conv7/bias": np.ones(3, np.float32)}), "8x8/Conv7/bias"),
    (lambda found: found.update({"synthesis/8x8/Conv1/bias": np.ones(3, np.float32)}),
     r"8x8/Conv1/bias|(b8|blocks\.1)\.conv1\.bias"),
    (lambda found: found.update({"synthesis/8x8/Conv1/weight": np.ones(3, np.float32)}),
     r"8x8/Conv1/weight|(b8|blocks\.1)\.conv1\.weight"),
    (lambda found: found.update({"mapping/LabelConcat/weight": np.ones((2, 16), np.float32)}), "labels"),
], ids=["no weight", "extra", "short bias", "flat weight", "labels of 2019"])  # fmt: skip
def test_a_damaged_tensorflow_file(tmp_path: Path, altered: Any, named: str) -> None:
    path = writers.tensorflow(tmp_path / "a.pkl", TOY, alter=altered).path
    with pytest.raises(ValueError, match=named):
        convert(path)


@pytest.mark.parametrize(("altered", "named"), [
    (drop("convs.1.conv.weight"), r"convs\.1\.conv\.weight|(b8|blocks\.1)\.conv1\.weight"),
    (drop("noises.noise_2"), r"noise_2|(b8|blocks\.1)\.conv1\.noise_const"),
    (shorten("convs.1.activate.bias"), r"convs\.1\.activate\.bias|(b8|blocks\.1)\.conv1\.bias"),
    (add("convs.1.activate.novelty"), r"activate\.novelty"),
    (add("novelty"), "novelty"),
    (lambda found: found.update({"convs.0.conv.blur.kernel": torch.ones(4, 4) / 4}), r"convs\.0\.conv\.blur\.kernel"),
], ids=["missing", "no noise of one layer", "short", "extra", "extra at the top", "another filter"])  # fmt: skip
def test_a_damaged_rosinality_file(tmp_path: Path, altered: Any, named: str) -> None:
    path = writers.rosinality(tmp_path / "a.pt", PUBLIC, discriminator=False, alter=altered).path
    with pytest.raises(ValueError, match=named):
        convert(path)


# ---------------------------------------------------------------- what is not StyleGAN2 as we know it


@pytest.mark.parametrize(("changes", "said"), [
    ({"architecture": "resnet"}, "'resnet'"),
    ({"architecture": "orig"}, "'orig'"),
    ({"filter": (1, 2, 1)}, "filter"),
    ({"filter": (1, 4, 4, 1)}, "filter"),
    ({"activation": "linear"}, "'linear'"),
    ({"mapping_activation": "relu"}, "'relu'"),
    ({"rate": 0.1}, r"0\.1"),
    ({"img_channels": 2}, "img_channels is 2"),
    ({"resolution": 8}, "resolution is 8"),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("repo", ["ada", "sg3"])
def test_other_generators_are_refused(tmp_path: Path, changes: dict[str, Any], said: str, repo: str) -> None:
    path = writers.nvidia(tmp_path / "a.pkl", replace(TOY, **changes), repo=repo).path
    with pytest.raises(ValueError, match=said):
        convert(path)


@pytest.mark.parametrize("changes", [
    {"d_architecture": "orig"}, {"d_architecture": "skip"}, {"c_dim": 2, "d_layers": 2}, {"c_dim": 2, "d_rate": 0.1},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("repo", ["ada", "sg3"])
def test_other_discriminators_are_left_out(tmp_path: Path, changes: dict[str, Any], repo: str) -> None:
    net = replace(TOY, **changes)
    written = writers.nvidia(tmp_path / "a.pkl", net, repo=repo)
    converted = convert(written.path)
    assert converted.gan.discriminator is None
    assert any("discriminator was left out" in note for note in converted.origin.notes)
    check_pictures(converted.gan, written, net)


@pytest.mark.parametrize("static", [
    {"architecture": "resnet"}, {"resample_kernel": [1, 2, 1]}, {"nonlinearity": "relu"}, {"mapping_lrmul": 0.1},
    {"mapping_nonlinearity": "relu"}, {"normalize_latents": False},
], ids=str)  # fmt: skip
def test_other_tensorflow_generators_are_refused(tmp_path: Path, static: dict[str, Any]) -> None:
    path = writers.tensorflow(tmp_path / "a.pkl", TOY, static=static).path
    with pytest.raises(ValueError, match=next(iter(static))):
        convert(path)


@pytest.mark.parametrize("static", [
    {"architecture": "skip"}, {"resample_kernel": [1, 2, 1]}, {"nonlinearity": "relu"},
], ids=str)  # fmt: skip
def test_other_tensorflow_discriminators_are_left_out(tmp_path: Path, static: dict[str, Any]) -> None:
    converted = convert(writers.tensorflow(tmp_path / "a.pkl", TOY, d_static=static).path)
    assert converted.gan.discriminator is None
    assert any("discriminator was left out" in note for note in converted.origin.notes)


@pytest.mark.parametrize(("write", "said"), [
    (writers.stylegan3, "StyleGAN3"),
    (writers.stylegan_xl, "StyleGAN-XL"),
    (lambda path: writers.stylegan_xl(path, dill=False), "StyleGAN-XL"),
    (writers.stylegan1, "StyleGAN1"),
], ids=["StyleGAN3", "StyleGAN-XL", "StyleGAN-XL without dill", "StyleGAN1"])  # fmt: skip
def test_other_networks_are_named(tmp_path: Path, write: Callable[[Path], Path], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        convert(write(tmp_path / "a.pkl"))


# ---------------------------------------------------------------- and back


def exported(path: Path) -> dict[str, dict[str, Tensor]]:
    """Tensors by network and name, of either kind of file."""
    if path.suffix == ".pt":
        content = torch.load(path, weights_only=True)
        return {name: part for name, part in content.items() if name in ("G_ema", "D", "g_ema", "d")}
    nets: dict[str, dict[str, Tensor]] = {}
    for name, tensor in load_file(path).items():
        net, _, rest = name.partition(".")
        nets.setdefault(net, {})[rest] = tensor
    return nets


def check_same(gan: Any, other: Any) -> None:
    for part in ("generator", "discriminator"):
        ours, theirs = getattr(gan, part), getattr(other, part)
        assert dict(ours.config) == dict(theirs.config)
        assert ours.state_dict().keys() == theirs.state_dict().keys()
        for name, tensor in ours.state_dict().items():
            assert torch.equal(tensor, theirs.state_dict()[name]), name


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
@pytest.mark.parametrize("net", [TOY, Net(64, c_dim=3, channel_base=512, clamp=0.7, group=8)], ids=["toy", "classes"])
def test_to_nvidias_names_and_back(tmp_path: Path, net: Net, ending: str) -> None:
    written = writers.nvidia(tmp_path / "a.pkl", net)
    gan = convert(written.path).gan
    path = tmp_path / f"b{ending}"
    export_weights(gan, path, layout="nvidia")
    found = exported(path)
    for part, truth in (("G_ema", written.g), ("D", written.d)):
        assert {name for name in found[part] if not name.endswith("resample_filter")} == truth.keys()
        assert all(torch.equal(found[part][name], tensor) for name, tensor in truth.items())
    check_pictures(gan, Written(path, found["G_ema"], found["D"]), net, clamp=net.clamp)
    check_logits(gan, Written(path, found["G_ema"], found["D"]), net, clamp=net.clamp)
    check_same(gan, convert(path).gan)


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_to_rosinalitys_names_and_back(tmp_path: Path, ending: str) -> None:
    written = writers.rosinality(tmp_path / "a.pt", PUBLIC)
    gan = convert(written.path).gan
    path = tmp_path / f"b{ending}"
    export_weights(gan, path, layout="rosinality")
    given, found = exported(written.path), exported(path)
    for part in ("g_ema", "d"):
        assert found[part].keys() == given[part].keys()
        assert all(torch.equal(found[part][name], tensor) for name, tensor in given[part].items())
    check_same(gan, convert(path).gan)


def test_from_one_layout_to_the_other(tmp_path: Path) -> None:
    net = replace(PUBLIC, layers=3)
    written = writers.nvidia(tmp_path / "a.pkl", net)
    gan = convert(written.path).gan
    export_weights(gan, tmp_path / "b.pt", layout="rosinality")
    wanted = exported(writers.rosinality(tmp_path / "c.pt", net).path)
    found = exported(tmp_path / "b.pt")
    for part in ("g_ema", "d"):
        assert found[part].keys() == wanted[part].keys()
        assert all(torch.equal(found[part][name], tensor) for name, tensor in wanted[part].items())


@pytest.mark.parametrize(("net", "said"), [
    (replace(TOY, c_dim=2), "classes"), (replace(TOY, img_channels=4), "RGB"), (TOY, "channels"),
    (replace(PUBLIC, clamp=0.5), "clamp"),
], ids=["classes", "RGBA", "narrow", "clamped"])  # fmt: skip
def test_what_rosinality_cannot_express_is_refused(tmp_path: Path, net: Net, said: str) -> None:
    gan = convert(writers.nvidia(tmp_path / "a.pkl", net).path).gan
    with pytest.raises(ValueError, match=said):
        export_weights(gan, tmp_path / "b.pt", layout="rosinality")
    assert not (tmp_path / "b.pt").exists()


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    gan = convert(writers.nvidia(tmp_path / "a.pkl", TOY).path).gan
    (tmp_path / "b.pt").write_text("mine")
    with pytest.raises(FileExistsError):
        export_weights(gan, tmp_path / "b.pt", layout="nvidia")
    assert (tmp_path / "b.pt").read_text() == "mine"
    export_weights(gan, tmp_path / "b.pt", layout="nvidia", overwrite=True)
    assert exported(tmp_path / "b.pt").keys() == {"G_ema", "D"}
