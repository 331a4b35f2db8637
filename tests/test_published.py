"""Published encoders at full size: each layout written by hand, and its numbers in float64 from the formulas alone."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from hfgan import HFGan, InterestEncoder, PublishedEncoder, StyleGAN2Generator
from hfgan.converting.encoders import decoder_state, is_encoder, read_encoder
from hfgan.models.banks import whitening_scale
from hfgan.models.directions import WStats
from hfgan.models.published import FrozenNorm
from hfgan.pickles import Record

BLOCKS = {"ir": (3, 4, 14, 3), "resnet": (3, 4, 6, 3)}
WIDTHS = (64, 128, 256, 512)
# encoder_type: backbone, pyramid, offsets from the first
LAYOUTS = {
    "GradualStyleEncoder": ("ir", True, False), "Encoder4Editing": ("ir", True, True),
    "BackboneEncoder": ("ir", False, False), "ProgressiveBackboneEncoder": ("ir", False, True),
    "ResNetBackboneEncoder": ("resnet", False, False), "ResNetProgressiveBackboneEncoder": ("resnet", False, True),
    "ResNetGradualStyleEncoder": ("resnet", True, False),
}  # fmt: skip
SEEN = {"GradualStyleEncoder": 3, "Encoder4Editing": 3}  # channels; the others, of ReStyle, see 6


def make_generator(resolution: int = 32, seed: int = 0, **other: int) -> StyleGAN2Generator:
    torch.manual_seed(seed)
    sizes = {"z_dim": 16, "w_dim": 512, "mapping_layers": 1, "channel_base": 256, "channel_max": 8} | other
    generator = StyleGAN2Generator(resolution=resolution, **sizes).eval().requires_grad_(False)
    generator.mapping.w_avg.normal_(std=0.3)
    return generator


# ---------------------------------------------------------------- files, written by hand


def blocks(backbone: str) -> list[tuple[int, int, int]]:
    """(channels in, channels out, stride) of each block of the body."""
    below, found = 64, []
    for depth, width in zip(BLOCKS[backbone], WIDTHS, strict=True):
        stride = 1 if backbone == "resnet" and width == 64 else 2
        found += [(below, width, stride)] + [(width, width, 1)] * (depth - 1)
        below = width
    return found


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    named = {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}
    return named | {f"{name}.num_batches_tracked": ()}


def halvings(layer: int, pyramid: bool) -> int:
    return 4 if not pyramid or layer < 3 else 5 if layer < 7 else 6


def shapes(backbone: str, pyramid: bool, channels: int, layers: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a published file, of the encoder."""
    if backbone == "ir":
        found = {
            "input_layer.0.weight": (64, channels, 3, 3),
            **norm("input_layer.1", 64),
            "input_layer.2.weight": (64,),
        }
    else:
        found = {"conv1.weight": (64, channels, 7, 7), **norm("bn1", 64), "relu.weight": (64,)}
    for k, (below, width, _) in enumerate(blocks(backbone)):
        at = f"body.{k}"
        if backbone == "ir":
            if below != width:
                found |= {
                    f"{at}.shortcut_layer.0.weight": (width, below, 1, 1),
                    **norm(f"{at}.shortcut_layer.1", width),
                }
            found |= norm(f"{at}.res_layer.0", below) | norm(f"{at}.res_layer.4", width)
            found |= {
                f"{at}.res_layer.1.weight": (width, below, 3, 3), f"{at}.res_layer.2.weight": (width,),
                f"{at}.res_layer.3.weight": (width, width, 3, 3),
                f"{at}.res_layer.5.fc1.weight": (width // 16, width, 1, 1),
                f"{at}.res_layer.5.fc2.weight": (width, width // 16, 1, 1),
            }  # fmt: skip
        else:
            found |= {f"{at}.conv1.weight": (width, below, 3, 3), f"{at}.conv2.weight": (width, width, 3, 3)}
            found |= norm(f"{at}.bn1", width) | norm(f"{at}.bn2", width)
            if below != width:
                found |= {f"{at}.downsample.0.weight": (width, below, 1, 1), **norm(f"{at}.downsample.1", width)}
    for layer in range(layers):
        for k in range(halvings(layer, pyramid)):
            found |= {
                f"styles.{layer}.convs.{2 * k}.weight": (512, 512, 3, 3),
                f"styles.{layer}.convs.{2 * k}.bias": (512,),
            }
        found |= {f"styles.{layer}.linear.weight": (512, 512), f"styles.{layer}.linear.bias": (512,)}
    if pyramid:
        found |= {"latlayer1.weight": (512, 256, 1, 1), "latlayer1.bias": (512,)}
        found |= {"latlayer2.weight": (512, 128, 1, 1), "latlayer2.bias": (512,)}
    return found


@functools.cache
def pool() -> Tensor:
    """Random numbers, of which every tensor has a stretch of its own: files of full size that cost nothing."""
    return torch.randn(2**22, generator=torch.Generator().manual_seed(3))


def numbers(name: str, shape: tuple[int, ...], index: int) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.tensor(1234)
    count = math.prod(shape)
    x = pool()[7919 * index % (2**20) :][:count].view(shape)
    if name.endswith("running_var"):
        return 0.5 + x.abs()
    if name.endswith("running_mean") or (name.endswith("bias") and len(shape) == 1):
        return 0.2 * x
    if len(shape) == 1:  # of a normalisation, or the slope of PReLU
        last = name.endswith(("res_layer.4.weight", "bn2.weight"))  # small, or rounding grows from block to block
        return 0.25 + 0.1 * x if "relu" in name or "layer.2" in name else (0.2 if last else 1) * (1 + 0.2 * x)
    return x if "linear" in name else x * (2 / math.prod(shape[1:])) ** 0.5


@functools.cache
def tensors_of(backbone: str, pyramid: bool, channels: int, layers: int) -> dict[str, Tensor]:
    named = shapes(backbone, pyramid, channels, layers)
    return {name: numbers(name, shape, k) for k, (name, shape) in enumerate(named.items())}


def make_file(kind: str, *, layers: int = 8, channels: int | None = None, **options: object) -> dict:
    """What `read_pickle` gives for a checkpoint of that class."""
    backbone, pyramid, _ = LAYOUTS[kind]
    tensors = tensors_of(backbone, pyramid, channels or SEEN.get(kind, 6), layers)
    state = {f"encoder.{name}": tensor for name, tensor in tensors.items()}
    mean = torch.randn(512, generator=torch.Generator().manual_seed(9)) / 3
    return {
        "state_dict": state | {"decoder.input.input": torch.ones(1, 8, 4, 4)}, "latent_avg": mean.repeat(layers, 1),
        "opts": {"encoder_type": kind, "start_from_latent_avg": True, "dataset_type": "ffhq_encode"} | options,
    }  # fmt: skip


# ---------------------------------------------------------------- the formulas, in float64


def reference(tensors: dict[str, Tensor], backbone: str, pyramid: bool, layers: int, x: Tensor) -> Tensor:
    """Codes (n, layers, 512), none of them an offset."""

    def get(name: str) -> Tensor:
        return tensors[name].double()

    def normed(name: str, y: Tensor) -> Tensor:
        scale = get(f"{name}.weight") / (get(f"{name}.running_var") + 1e-5).sqrt()
        return (y - get(f"{name}.running_mean").view(-1, 1, 1)) * scale.view(-1, 1, 1) + get(f"{name}.bias").view(
            -1, 1, 1
        )

    def prelu(name: str, y: Tensor) -> Tensor:
        return torch.where(y > 0, y, y * get(f"{name}.weight").view(-1, 1, 1))

    def conv(name: str, y: Tensor, stride: int = 1) -> Tensor:
        weight = get(f"{name}.weight")
        return F.conv2d(y, weight, stride=stride, padding=weight.shape[-1] // 2)

    def ir(at: str, y: Tensor, stride: int) -> Tensor:
        z = prelu(f"{at}.res_layer.2", conv(f"{at}.res_layer.1", normed(f"{at}.res_layer.0", y)))
        z = normed(f"{at}.res_layer.4", conv(f"{at}.res_layer.3", z, stride))
        gate = conv(f"{at}.res_layer.5.fc2", conv(f"{at}.res_layer.5.fc1", z.mean((2, 3), keepdim=True)).relu())
        short = y[:, :, ::stride, ::stride]
        if f"{at}.shortcut_layer.0.weight" in tensors:
            short = normed(f"{at}.shortcut_layer.1", conv(f"{at}.shortcut_layer.0", y, stride))
        return z / (1 + (-gate).exp()) + short

    def basic(at: str, y: Tensor, stride: int) -> Tensor:
        z = normed(f"{at}.bn1", conv(f"{at}.conv1", y, stride)).relu()
        z = normed(f"{at}.bn2", conv(f"{at}.conv2", z))
        if f"{at}.downsample.0.weight" in tensors:
            y = normed(f"{at}.downsample.1", conv(f"{at}.downsample.0", y, stride))
        return (z + y).relu()

    def enlarged(y: Tensor, like: Tensor) -> Tensor:  # corner on corner: one matrix for rows, one for columns
        for dim in (2, 3):
            at = torch.linspace(0, y.shape[dim] - 1, like.shape[dim], dtype=torch.float64)
            low = at.floor().clamp(max=y.shape[dim] - 2).long()
            share = (at - low).view((-1, 1) if dim == 2 else (-1,))
            y = y.index_select(dim, low) * (1 - share) + y.index_select(dim, low + 1) * share
        return y

    def code(layer: int, y: Tensor) -> Tensor:
        at = f"styles.{layer}"
        for k in range(halvings(layer, pyramid)):
            y = conv(f"{at}.convs.{2 * k}", y, 2) + get(f"{at}.convs.{2 * k}.bias").view(-1, 1, 1)
            y = torch.where(y > 0, y, 0.01 * y)
        return y[:, :, 0, 0] @ get(f"{at}.linear.weight").t() / 512**0.5 + get(f"{at}.linear.bias")

    if backbone == "ir":
        x = prelu("input_layer.2", normed("input_layer.1", conv("input_layer.0", x.double())))
    else:
        x = prelu("relu", normed("bn1", conv("conv1", x.double(), 2)))
    maps = []
    for k, (_, _, stride) in enumerate(blocks(backbone)):
        x = (ir if backbone == "ir" else basic)(f"body.{k}", x, stride)
        maps.append(x)
    seen = [x] * layers
    if pyramid:
        second, third = (20, 6) if backbone == "ir" else (12, 6)
        wide = [
            conv(f"latlayer{n}", maps[k]) + get(f"latlayer{n}.bias").view(-1, 1, 1)
            for n, k in ((1, second), (2, third))
        ]
        middle = enlarged(x, wide[0]) + wide[0]
        fine = enlarged(middle, wide[1]) + wide[1]
        seen = [x] * 3 + [middle] * 4 + [fine] * (layers - 7)
    return torch.stack([code(layer, y) for layer, y in enumerate(seen)], dim=1)


@functools.cache
def expected(backbone: str, pyramid: bool, channels: int) -> tuple[Tensor, Tensor]:
    """A picture, not square, and its codes."""
    x = torch.rand(1, channels, 96, 128, generator=torch.Generator().manual_seed(channels)) * 2 - 1
    return x, reference(tensors_of(backbone, pyramid, channels, 8), backbone, pyramid, 8, x)


# ---------------------------------------------------------------- what they compute


@pytest.fixture(scope="module")
def generator() -> StyleGAN2Generator:
    return make_generator()


@pytest.fixture(scope="module")
def small() -> StyleGAN2Generator:
    """One with six layers, for what no layer changes."""
    return make_generator(16)


@pytest.fixture(scope="module")
def restyle(small: StyleGAN2Generator) -> PublishedEncoder:
    return read_encoder(make_file("ResNetBackboneEncoder", layers=6), small, [])


@pytest.fixture(scope="module")
def single(small: StyleGAN2Generator) -> PublishedEncoder:
    return read_encoder(make_file("ResNetBackboneEncoder", layers=6, channels=3), small, [])


@pytest.mark.parametrize("kind", LAYOUTS)
@torch.no_grad()
def test_codes_are_those_of_the_published_network(kind: str, generator: StyleGAN2Generator) -> None:
    (backbone, pyramid, progressive), channels, notes = LAYOUTS[kind], SEEN.get(kind, 6), []
    encoder = read_encoder(make_file(kind), generator, notes)
    x, codes = expected(backbone, pyramid, channels)
    if progressive:
        codes = torch.cat([codes[:, :1], codes[:, 1:] + codes[:, :1]], dim=1)
    found = encoder(x)
    assert found.shape == (1, 8, 512)
    assert (found - codes).abs().max() < 1e-5 * (codes.max() - codes.min())
    assert codes.std(dim=1).min() > 1e-3, "layers that differ"
    assert not notes
    assert encoder.config.iterative == (channels == 6)
    assert encoder.default_steps == (5 if channels == 6 else 1)
    assert encoder.config.generator_fingerprint == generator.fingerprint()
    if kind == "ResNetBackboneEncoder":
        assert torch.equal(encoder.train()(x), found), "statistics stay those of the training"


@torch.no_grad()
def test_one_step_is_the_mean_and_a_code(single: PublishedEncoder, small: StyleGAN2Generator) -> None:
    image = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(1)) * 2 - 1
    ((w_plus, drawn),) = single.steps(small, image)
    torch.testing.assert_close(w_plus, make_file("ResNetBackboneEncoder", layers=6)["latent_avg"] + single(image))
    assert torch.equal(drawn, small.synthesis(w_plus))
    with pytest.raises(ValueError, match="3 steps are asked for, but this encoder has a single one"):
        next(single.steps(small, image, None, 3))


@torch.no_grad()
def test_restyle_sees_its_own_drawing(restyle: PublishedEncoder, small: StyleGAN2Generator) -> None:
    image = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(1)) * 2 - 1
    w_plus = make_file("ResNetBackboneEncoder", layers=6)["latent_avg"].repeat(2, 1, 1)
    steps = list(restyle.steps(small, image, None, 2))
    assert len(steps) == 2
    for found, drawn in steps:
        seen = F.adaptive_avg_pool2d(small.synthesis(w_plus), 256)
        w_plus = w_plus + restyle(torch.cat([image, seen], dim=1))
        torch.testing.assert_close(found, w_plus, rtol=1e-4, atol=1e-4)
        assert torch.equal(drawn, small.synthesis(found))
    assert (steps[1][0] - steps[0][0]).std() > 1e-3


@torch.no_grad()
def test_drawings_are_averaged_and_cars_are_seen_without_their_margins() -> None:
    with torch.device("meta"):
        encoder = PublishedEncoder(num_ws=2, backbone="resnet34", pyramid=False, rows=192)
    drawn = torch.rand(1, 3, 512, 512)
    means = drawn.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))[:, :, 32:224]
    torch.testing.assert_close(encoder.reduce(drawn), means)
    seen, inside = encoder.look(drawn)
    torch.testing.assert_close(seen, means)
    assert inside.shape == (1, 1, 192, 256)
    notes = []
    small = make_generator(16)
    found = read_encoder(make_file("ResNetBackboneEncoder", layers=6, dataset_type="cars_encode"), small, notes)
    assert found.config.rows == 192
    assert "192" in notes[0]
    assert len(list(found.steps(small, drawn, None, 1))) == 1


@torch.no_grad()
def test_what_lies_outside_of_the_interest_is_not_seen(single: PublishedEncoder, small: StyleGAN2Generator) -> None:
    image, other = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    inside = torch.zeros(1, 1, 64, 64)
    inside[..., 10:50, 20:40] = 1
    seen, told = single.look(image, inside)
    assert torch.equal(single.look(torch.where(inside > 0, image, other), inside)[0], seen)
    assert not torch.equal(single.look(image)[0], seen)
    assert told.shape == (1, 1, 256, 256)
    assert told.mean().item() == pytest.approx(inside.mean().item(), abs=1e-3)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    hidden = photo.copy()
    hidden.paste("red", (20, 0, 40, 40))
    gan = HFGan(generator=small, encoder=single)
    first, second = (gan.invert(picture, (0, 0, 20, 40)) for picture in (photo, hidden))
    assert torch.equal(first.w_plus, second.w_plus)
    assert not torch.equal(first.w_plus, gan.invert(photo).w_plus)


def test_steps_are_the_encoders_own_unless_told(
    single: PublishedEncoder, restyle: PublishedEncoder, small: StyleGAN2Generator
) -> None:
    photo = Image.new("RGB", (30, 30), "olive")
    gan = HFGan(generator=small, encoder=single)
    found = gan.invert(photo)
    assert (len(found.steps), found.w_plus.shape, found.fingerprint) == (1, (1, 6, 512), small.fingerprint())
    with pytest.raises(ValueError, match="leave steps out"):
        gan.invert(photo, steps=2)
    gan = HFGan(generator=small, encoder=restyle)
    assert [len(gan.invert(photo, steps=steps).steps) for steps in (None, 1)] == [5, 1]
    gan = HFGan(generator=small, encoder=InterestEncoder.beside(small))
    assert len(gan.invert(photo).steps) == 3
    refined = HFGan(generator=small, encoder=single).invert(photo, refine=2)
    assert not torch.equal(refined.w_plus, found.w_plus)


def test_the_unit_of_refinement_is_the_deviation_of_w(single: PublishedEncoder, small: StyleGAN2Generator) -> None:
    torch.testing.assert_close(single.w_std, whitening_scale(WStats.of(small).cov.diagonal().sqrt().float()))


def test_normalisation_of_channels_that_hardly_vary() -> None:
    known, norm = torch.nn.BatchNorm2d(3).eval(), FrozenNorm(3)
    known.running_var.copy_(torch.tensor([1e-7, 1e-5, 1e-3]))
    norm.running_var.copy_(known.running_var)
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(norm(x), known(x))


# ---------------------------------------------------------------- saved and loaded


def test_saved_in_half_precision_it_is_the_same(tmp_path: Path, small: StyleGAN2Generator) -> None:
    file = make_file("ResNetProgressiveBackboneEncoder", layers=6)
    file["state_dict"] = {name: t.half().to(t.dtype) for name, t in file["state_dict"].items()}
    encoder = read_encoder(file, small, [])
    HFGan(generator=small, encoder=encoder).save_pretrained(tmp_path, dtype=torch.float16)
    again = HFGan.from_pretrained(tmp_path, dtype="float32").encoder
    assert isinstance(again, PublishedEncoder)
    assert dict(again.config) == dict(encoder.config)
    assert again.fingerprint() == encoder.fingerprint()
    own, read = encoder.state_dict(), again.state_dict()
    assert own.keys() == read.keys()
    assert all(torch.equal(own[name].half().float(), read[name]) for name in own)
    with pytest.raises(ValueError, match="belongs to a generator with weights"):
        HFGan(generator=make_generator(16, seed=5), encoder=again)


@pytest.mark.parametrize(
    ("shape", "sentence"), [({"backbone": "vgg"}, "'ir_se50' or 'resnet34'"), ({"rows": 300}, "300")]
)
def test_shapes_that_cannot_be(shape: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence), torch.device("meta"):
        PublishedEncoder(**shape)


# ---------------------------------------------------------------- what files say


def test_what_a_file_holds() -> None:
    file = make_file("Encoder4Editing")
    assert is_encoder(file)
    assert is_encoder(file["state_dict"])
    assert list(decoder_state(file)) == ["input.input"]
    assert not any(map(is_encoder, ({"g_ema": {}}, {"state_dict": 3}, [1], None)))


def test_means_of_all_shapes(small: StyleGAN2Generator) -> None:
    file = make_file("ResNetBackboneEncoder", layers=6)
    mean = file["latent_avg"]
    for given in (mean, mean[:1], mean[0], mean[0].double()):
        assert torch.equal(read_encoder(file | {"latent_avg": given}, small, []).latent_avg, mean)
    notes, without = [], {key: value for key, value in file.items() if key != "latent_avg"}
    assert torch.equal(read_encoder(without, small, notes).latent_avg, small.mapping.w_avg.expand(6, -1))
    assert "no latent_avg" in notes[0]


@pytest.mark.parametrize("channels", [3, 6])
def test_without_start_from_latent_avg_only_restyle_starts_there(channels: int, small: StyleGAN2Generator) -> None:
    file = make_file("ResNetBackboneEncoder", layers=6, channels=channels, start_from_latent_avg=False)
    assert (read_encoder(file, small, []).latent_avg.abs().max() > 0) == (channels == 6)


@pytest.mark.parametrize("progressive", [False, True])
def test_without_options_drawings_tell_the_class(progressive: bool) -> None:
    small, notes = make_generator(16), []
    small.mapping.layers[0].weight.zero_()  # every z has the same w
    small.mapping.layers[0].bias.copy_(torch.linspace(-2, 2, 512) / small.mapping.layers[0].bias_gain)
    file = make_file("ResNetBackboneEncoder", layers=6, channels=3)
    code = small.mapping(torch.zeros(1, 16))[0] - file["latent_avg"][0]
    for name in file["state_dict"]:
        if "linear" in name:
            zero = "weight" in name or (progressive and "styles.0." not in name)
            file["state_dict"][name] = torch.zeros(512, 512) if "weight" in name else code * (not zero)
    del file["opts"]
    encoder = read_encoder(file, small, notes)
    config = encoder.config
    assert (config.backbone, config.pyramid, config.progressive) == ("resnet34", False, progressive)
    assert "does not tell" in notes[0]
    assert ("offsets" in notes[0]) == progressive


def test_options_may_be_an_object(small: StyleGAN2Generator) -> None:
    file, notes = make_file("ResNetProgressiveBackboneEncoder", layers=6), []
    file["opts"] = Record("argparse.Namespace", file["opts"])
    assert read_encoder(file, small, notes).config.progressive
    assert not notes


LAYER = "encoder.styles.1.linear.bias"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda f: f | {"state_dict": {"decoder.input.input": torch.ones(1)}}, r"no encoder \(encoder\.\*\)"),
        (lambda f: f["state_dict"].update({"residue.conv.weight": torch.ones(1)}), r"HFGI \(residue\.\*\)"),
        (lambda f: f["state_dict"].update({"hypernet.conv.weight": torch.ones(1)}), "HyperStyle"),
        (lambda f: f["opts"].update(encoder_type="SingleStyleCodeEncoder"), "class SingleStyleCodeEncoder: known are"),
        (lambda f: f["opts"].update(encoder_type=["x"]), "of class"),
        (lambda f: f["opts"].update(label_nc=19), "labels"),
        (lambda f: f["state_dict"].update({"encoder.conv1.weight": torch.ones(64, 4, 7, 7)}), "4 channels"),
        (lambda f: f["state_dict"].pop("encoder.conv1.weight"), "lacks a first convolution"),
        (lambda f: f["state_dict"].update({LAYER: 3}), "styles.1.linear.bias, which is no tensor"),
        (lambda f: f["state_dict"].pop(LAYER), r"missing: styles\.1\.linear\.bias"),
        (lambda f: f["state_dict"].update({"encoder.odd": torch.ones(1)}), "unexpected: odd"),
        (lambda f: f["state_dict"].update({LAYER: torch.ones(3)}), r"misshapen: styles\.1\.linear\.bias \[3\]"),
        (lambda f: f["opts"].update(encoder_type="BackboneEncoder"), r"missing: .*body\.0\.res_layer"),
        (lambda f: f.update(latent_avg=torch.ones(3, 512)), r"latent_avg of shape \[3, 512\]"),
        (lambda f: [f["state_dict"].pop(name) for name in list(f["state_dict"]) if "styles" in name],
         "BackboneEncoderUsingLastLayerIntoW or SingleStyleCodeEncoder"),
    ],
)  # fmt: skip
def test_other_files_are_refused(change, sentence: str, small: StyleGAN2Generator) -> None:
    file = make_file("ResNetBackboneEncoder", layers=6)
    changed = change(file)
    with pytest.raises(ValueError, match=sentence):
        read_encoder(changed if isinstance(changed, dict) and "state_dict" in changed else file, small, [])


@pytest.mark.parametrize(
    ("resolution", "other", "sentence"),
    [(32, {}, "for 6 layers .* generator has 8 and 512"), (16, {"w_dim": 64}, "6 and 64"),
     (16, {"img_channels": 1}, "draws 1 channels: give one that draws RGB")],
)  # fmt: skip
def test_other_generators_are_refused(resolution: int, other: dict, sentence: str) -> None:
    torch.manual_seed(0)
    sizes = {"z_dim": 16, "w_dim": 512, "mapping_layers": 1, "channel_base": 256, "channel_max": 8} | other
    with pytest.raises(ValueError, match=sentence):
        read_encoder(
            make_file("ResNetBackboneEncoder", layers=6), StyleGAN2Generator(resolution=resolution, **sizes), []
        )
