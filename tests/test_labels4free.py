"""Alpha networks of Labels4Free: read from both layouts, equal to the formulas, and good for all that alpha is for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from toy import save_toy

from hfgan import HFGan, Labels4FreeAlpha, StyleGAN2Generator
from hfgan.converting.alphas import is_labels4free, read_alpha
from hfgan.images import to_pil
from hfgan.pairs import export_pairs

LAYOUTS = ("numbered", "listed")
MERGES = ("conv_next", "conv_next2", "conv_next3", "conv_next4")  # of the numbered layout
SIZES = {"z_dim": 16, "w_dim": 16, "mapping_layers": 1, "channel_max": 16}


def make_generator(resolution: int, seed: int = 0, **sizes: int) -> StyleGAN2Generator:
    """A toy whose noise and biases show."""
    torch.manual_seed(seed)
    generator = StyleGAN2Generator(resolution=resolution, **{"channel_base": 16 * 64} | SIZES | sizes).eval()
    for name, parameter in generator.synthesis.named_parameters():
        if name.endswith(("bias", "noise_strength")) and "affine" not in name:  # zero at the start
            torch.nn.init.normal_(parameter, std=0.3)
    return generator.requires_grad_(False)


def seen_sizes(resolution: int) -> list[int]:
    """Resolutions that a network looks at: six, or all from 8 px on where there are fewer."""
    return [size for size in (8, 16, 32, 64, 128, 256, 512, 1024) if size <= resolution][-6:]


def make_layers(generator: StyleGAN2Generator, seed: int = 1) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Weights and biases of the projections P (two of each resolution), merges M and output N, coarse to fine."""
    config, source = generator.config, torch.Generator().manual_seed(seed)

    def layer(inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
        weight = torch.randn(outputs, inputs, 1, 1, generator=source) / inputs**0.5
        return weight, torch.randn(outputs, generator=source) / 2

    sizes = seen_sizes(config.resolution)
    widths = [min(config.channel_base // size, config.channel_max) for size in sizes for _ in range(2)]
    return {"P": [layer(width, 3) for width in widths], "M": [layer(12, 6) for _ in sizes[1:-1]], "N": [layer(6, 1)]}


def published(layers: dict[str, list[tuple[Tensor, Tensor]]], layout: str, prefix: str = "") -> dict[str, Tensor]:
    """The state dict of a network in one of the two layouts."""
    if layout == "numbered":
        named = {f"conv{k}": layer for k, layer in enumerate(layers["P"], 1)}
        named |= dict(zip(MERGES, layers["M"], strict=False))
    else:
        named = {f"conv_fns0.{k}": layer for k, layer in enumerate(layers["P"][0::2])}
        named |= {f"conv_fns1.{k}": layer for k, layer in enumerate(layers["P"][1::2])}
        named |= {f"conv_merge_fns.{k}": layer for k, layer in enumerate(layers["M"])}
    named["conv_n"] = layers["N"][0]
    return {f"{prefix}{name}.{kind}": layer[row] for name, layer in named.items()
            for row, kind in enumerate(("weight", "bias"))}  # fmt: skip


def checkpoint(generator: StyleGAN2Generator, network: dict[str, Tensor]) -> dict[str, object]:
    """What a file holds, with as much of the generator as tells it from others."""
    convs = range(generator.num_ws - 2)
    beside = {"input.input": generator.synthesis.const[None].clone()}
    beside |= {f"convs.{k}.conv.weight": torch.zeros(1, 1, 1, 3, 3) for k in convs}
    return {"g": beside, "d": {}, "bg_extractor": network, "bg_extractor_ema": network, "ada_aug_p": 0.0}


def read(generator: StyleGAN2Generator, network: dict[str, Tensor]) -> Labels4FreeAlpha:
    return read_alpha(checkpoint(generator, network), generator, [])


# ---------------------------------------------------------------- the numbers


def enlargement(size: int) -> Tensor:
    """(2 size, size): bicubic interpolation (Keys 1981, a = -3/4) from corner to corner, edges repeated."""
    a, matrix = -0.75, torch.zeros(2 * size, size, dtype=torch.float64)
    for row in range(2 * size):
        place = row * (size - 1) / (2 * size - 1)
        for tap in range(int(place) - 1, int(place) + 3):
            t = abs(place - tap)
            near, far = (a + 2) * t**3 - (a + 3) * t**2 + 1, a * (t**3 - 5 * t**2 + 8 * t - 4)
            matrix[row, min(max(tap, 0), size - 1)] += near if t <= 1 else far if t < 2 else 0
    return matrix


@torch.no_grad()
def reference(generator: StyleGAN2Generator, layers: dict[str, list[tuple[Tensor, Tensor]]], w_plus: Tensor) -> Tensor:
    """Alpha (n, 1, r, r) by the formulas of the paper, in float64, from all activations kept."""
    activations: dict[int, Tensor] = {}
    generator.synthesis(w_plus, tap=activations.__setitem__)

    def apply(layer: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
        weight, bias = (part.double() for part in layer)
        return torch.einsum("oi,nihw->nohw", weight[:, :, 0, 0], x) + bias[:, None, None]

    def up(x: Tensor) -> Tensor:
        matrix = enlargement(x.shape[-1])
        return matrix @ x @ matrix.T

    h, sizes, projections = None, seen_sizes(generator.config.resolution), iter(layers["P"])
    for k, size in enumerate(sizes):
        pair = [x.double() for x in activations.values() if x.shape[-1] == size]
        e = torch.cat([apply(next(projections), x) for x in pair], dim=1)
        if size == sizes[-1]:
            return apply(layers["N"][0], e + h).sigmoid()
        if k:
            merged = apply(layers["M"][k - 1], torch.cat([e, h], dim=1))
            e = torch.where(merged < 0, 0.2 * merged, merged)
        h = up(e)
    raise AssertionError


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("resolution", [16, 64, 256])
def test_alpha_is_that_of_the_formulas(resolution: int, layout: str) -> None:
    generator = make_generator(resolution)
    layers, w_plus = make_layers(generator), torch.randn(2, generator.num_ws, 16)
    net = read(generator, published(layers, layout))
    image, logit = net(generator, w_plus)
    expected = reference(generator, layers, w_plus)
    assert expected.std() > 0.05
    assert (logit.sigmoid() - expected).abs().max() < 1e-4
    assert torch.equal(image, generator.synthesis(w_plus))
    assert logit.dtype == torch.float32


def test_both_layouts_with_and_without_a_prefix_are_one_network() -> None:
    generator = make_generator(256)
    layers = make_layers(generator)
    nets = [read(generator, published(layers, layout, prefix)) for layout in LAYOUTS for prefix in ("", "module.")]
    first, *others = (net.state_dict() for net in nets)
    assert len(first) == 2 * (12 + 4 + 1)
    assert all(torch.equal(net[name], tensor) for net in others for name, tensor in first.items())


def test_activations_have_the_scale_that_the_weights_were_trained_for() -> None:
    """lrelu(conv + noise + bias) times sqrt(2), as the published generators hand them on; in float64."""
    generator = make_generator(16)
    w_plus, seen = torch.randn(1, generator.num_ws, 16), {}
    generator.synthesis(w_plus, tap=seen.__setitem__)
    const, conv = generator.synthesis.const.double()[None], generator.synthesis.blocks[0].conv1
    style = w_plus[:, 0].double() @ conv.affine.weight.double().T / 4 + conv.affine.bias.double()  # sqrt(16) is 4
    kernel = conv.weight.double() * style[:, :, None, None]
    kernel = kernel / kernel.square().sum((1, 2, 3), keepdim=True).sqrt()
    x = F.conv2d(const, kernel, padding=1) + conv.noise_strength.double() * conv.noise_const.double()
    x = x + conv.bias.double()[:, None, None]
    expected = torch.where(x < 0, 0.2 * x, x) * 2**0.5
    assert (seen[0] - expected).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("resolution", "first", "silenced", "count"), [(256, 8, 0, 14_947), (512, 16, -1, 12_259), (1024, 32, 0, 9_379)]
)
def test_the_published_sizes(resolution: int, first: int, silenced: int, count: int) -> None:
    """Resolutions and numbers of parameters of the published networks, and the layer that each silences."""
    generator = make_generator(resolution, channel_base=8 * resolution, channel_max=16)
    shape = Labels4FreeAlpha.beside(generator).config
    assert (shape.first_resolution, shape.background_layer) == (first, silenced)
    with torch.device("meta"):
        net = Labels4FreeAlpha(resolution=resolution, first_resolution=first)
    assert sum(parameter.numel() for parameter in net.parameters()) == count


def test_only_projections_are_kept() -> None:
    generator = make_generator(64)
    net, w_plus, kept = Labels4FreeAlpha.beside(generator), torch.randn(1, generator.num_ws, 16), []
    stream = net.stream()

    def tap(layer: int, x: Tensor) -> None:
        stream(layer, x)
        tensors = [value for value in vars(stream).values() if isinstance(value, Tensor)]
        kept.append(sum(tensor.numel() for tensor in tensors) / x[0, 0].numel())

    generator.synthesis(w_plus, tap=tap)
    assert max(kept) <= 6 * 4  # h is already of the next size


def test_low_precision_says_the_same() -> None:
    generator = make_generator(64)
    net, w_plus = read(generator, published(make_layers(generator), "listed")), torch.randn(4, generator.num_ws, 16)
    exact = net(generator, w_plus)[1]
    found = net(generator.bfloat16(), w_plus)[1]
    assert found.dtype == torch.float32
    assert (found - exact).abs().mean() < 0.05 * exact.std()


# ---------------------------------------------------------------- all that alpha is for


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[HFGan, dict[str, list[tuple[Tensor, Tensor]]]]:
    """A model of 32 px with all parts, whose alpha is of Labels4Free and uses its range; and the layers of that."""
    folder = tmp_path_factory.mktemp("models") / "toy"
    save_toy(folder, resolution=32, alpha=True, encoder=True, directions=True)
    gan = HFGan.from_pretrained(folder, dtype="float32")
    layers, w_plus = make_layers(gan.generator), gan.sample(4, seed=100).w_plus
    weight, bias = layers["N"][0]
    middle = reference(gan.generator, layers, w_plus).logit().median().float()
    layers["N"] = [(10 * weight, 10 * (bias - middle))]
    parts = gan.parts | {"alpha": read(gan.generator, published(layers, "listed"))}
    HFGan(**parts).save_pretrained(folder / "again")
    return HFGan.from_pretrained(folder / "again", dtype="float32"), layers


def test_samples_are_cut_out_after_a_save_and_a_load(toy) -> None:
    gan, layers = toy
    assert isinstance(gan.alpha, Labels4FreeAlpha)
    out = gan.sample(3, seed=0)
    expected = reference(gan.generator, layers, out.w_plus)
    assert 0.1 < expected.mean() < 0.9
    found = gan.segment(out, refine=False)
    assert (found - expected).abs().max() < 1e-4
    for cut, alpha in zip(gan.cutouts(out, refine=False), expected, strict=True):
        shown = torch.from_numpy(np.asarray(cut.rgba())[..., 3] / 255.0)
        assert (shown - alpha[0]).abs().max() < 0.01


def test_a_background_is_what_is_drawn_when_its_layer_is_silenced(toy) -> None:
    gan, _ = toy
    out = gan.sample(1, seed=3)
    drawn = to_pil(gan.generator.synthesis(out.w_plus, silenced=gan.alpha.config.background_layer))[0]
    assert list(gan.background(out)[0].getdata()) == list(drawn.getdata()) != list(out.images[0].getdata())
    assert gan.composite(out, out)[0].size == (32, 32)
    alpha = gan.segment(out)[0, 0].numpy()
    moved = np.abs(np.asarray(gan.composite(out, out)[0]) - np.asarray(out.images[0], float)).max(-1)
    assert moved[alpha > 0.995].max(initial=0) <= 2 < moved[alpha < 0.1].max()


def test_an_edit_stays_within_the_subject_and_is_cut_out_itself(toy) -> None:
    gan, layers = toy
    out = gan.sample(1, seed=1)
    edited = gan.edit(out, {"smile": 1.0}, region="alpha")
    moved = gan.edit(out, {"smile": 1.0}).w_plus
    subject = torch.maximum(*(reference(gan.generator, layers, w) for w in (out.w_plus, moved)))
    around = F.max_pool2d(subject, 3, stride=1, padding=1)[0, 0].numpy()  # the region is wider by a quarter feather
    changed = np.abs(np.asarray(edited.images[0], int) - np.asarray(out.images[0], int)).max(-1)
    assert changed[around < 0.05].size > 50
    assert changed[around < 0.05].max() == 0 < changed.max()
    assert gan.segment(edited).shape == (1, 1, 32, 32)


def test_a_photo_is_inverted_with_an_automatic_interest_and_cut_out(toy, photo) -> None:
    gan, layers = toy
    inv = gan.invert(photo(40, 32, seed=2), "auto", steps=1)
    expected = reference(gan.generator, layers, inv.w_plus)
    assert inv.interest_source.startswith(("auto", "all"))
    assert (gan.segment(inv, refine=False) - expected).abs().max() < 1e-4


def test_a_data_set_is_exported(toy, tmp_path: Path) -> None:
    gan, layers = toy
    tally = export_pairs(gan, tmp_path / "pairs", 3, coverage=(0.0, 1.0), truncation_psi=1.0)
    assert tally.kept == 3
    expected = reference(gan.generator, layers, gan.sample(1, seed=0).w_plus)[0, 0]
    stored = np.asarray(Image.open(sorted((tmp_path / "pairs" / "alpha").iterdir())[0]), float) / 65535
    assert np.corrcoef(stored.ravel(), expected.numpy().ravel())[0, 1] > 0.9  # it was refined


def test_it_belongs_to_its_generator(toy) -> None:
    gan, _ = toy
    with pytest.raises(ValueError, match="part alpha belongs to a generator with weights"):
        HFGan(generator=make_generator(32), alpha=gan.alpha)


# ---------------------------------------------------------------- what a file must hold


def test_notes_say_what_the_file_does_not_tell() -> None:
    generator, notes = make_generator(32), []
    network = published(make_layers(generator), "numbered")
    read_alpha(checkpoint(generator, network), generator, notes)
    assert notes == ["What the file calls bg_extractor_ema is the network in training: its average was never saved."]
    notes.clear()
    read_alpha({"bg_extractor": network}, generator, notes)
    assert notes == ["The file with the alpha network holds no generator: nothing tells whether they belong together."]


def test_a_generator_that_was_stored_in_half_precision_is_still_the_same() -> None:
    generator = make_generator(32)
    found = checkpoint(generator, published(make_layers(generator), "numbered"))
    found["g"]["input.input"] = found["g"]["input.input"].half()
    assert isinstance(read_alpha(found, generator, []), Labels4FreeAlpha)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_reading_leaves_the_random_state_and_the_file_s_tensors_alone(layout: str) -> None:
    generator = make_generator(32)
    network = published(make_layers(generator), layout)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    net = read(generator, network)
    assert torch.equal(torch.get_rng_state(), state)
    before = network["conv_n.bias"].clone()
    net.out.bias.data.add_(1)
    assert torch.equal(network["conv_n.bias"], before)


def drop(name: str):
    return lambda network: network.pop(name)


def put(name: str, value: object):
    return lambda network: network.__setitem__(name, value)


@pytest.mark.parametrize(
    ("layout", "change", "message"),
    [
        ("numbered", drop("conv2.bias"), r"missing: conv2\.bias$"),
        ("numbered", drop("conv3.weight"), r"missing: conv3\.weight$"),
        ("numbered", drop("conv_next2.weight"), r"missing: conv_next2\.weight$"),
        ("listed", drop("conv_fns1.0.weight"), r"missing: conv_fns1\.0\.weight$"),
        ("listed", put("conv_merge_fns.2.bias", torch.zeros(6)), r"unexpected: conv_merge_fns\.2\.bias$"),
        ("numbered", put("conv_n.weight", torch.zeros(1, 6, 3, 3)), r"conv_n\.weight \[1, 6, 3, 3\] instead of"),
        ("numbered", put("conv_n.bias", torch.zeros(1, dtype=torch.long)), r"conv_n\.bias torch\.int64 instead of"),
        ("listed", put("conv_n.bias", torch.full((1,), torch.nan)), r"NaN or infinity in conv_n\.bias"),
        ("listed", put("conv_n.bias", [1.0]), r"conv_n\.bias in bg_extractor_ema, which are no tensors"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(layout: str, change, message: str) -> None:
    generator = make_generator(64)
    network = published(make_layers(generator), layout)
    change(network)
    with pytest.raises(ValueError, match=message):
        read(generator, network)


@pytest.mark.parametrize("found", [{}, [], {"bg_extractor_ema": 3}, {"g_ema": {}, "bg_extractor": None}])
def test_other_files_are_refused(found: object) -> None:
    assert not is_labels4free(found)
    with pytest.raises(ValueError, match="holds no alpha network of Labels4Free: expected its tensors as"):
        read_alpha(found, make_generator(16), [])


def test_a_network_of_another_generator_is_refused() -> None:
    generator, larger = make_generator(64), make_generator(128)
    other, wider = make_generator(64, seed=9), make_generator(64, channel_base=16 * 128, channel_max=32)
    found = checkpoint(larger, published(make_layers(larger), "numbered"))
    with pytest.raises(ValueError, match="for 128 px, and this generator draws 64 px: give the one"):
        read_alpha(found, generator, [])
    found = checkpoint(other, published(make_layers(other), "numbered"))
    with pytest.raises(ValueError, match="trained beside another generator of this size: give the one"):
        read_alpha(found, generator, [])
    network = published(make_layers(wider), "listed")
    with pytest.raises(ValueError, match=r"activations of 32, 32, 32, 32 channels, where this .* px has 16, 16"):
        read_alpha({"bg_extractor": network}, generator, [])
    network = published(make_layers(larger), "listed")
    with pytest.raises(ValueError, match="more resolutions than a generator of 64 px has from 8 px on"):
        read_alpha({"bg_extractor": network}, generator, [])
    with pytest.raises(ValueError, match="for a StyleGAN2, and this generator is a Labels4FreeAlpha"):
        read_alpha(found, Labels4FreeAlpha.beside(generator), [])


@pytest.mark.parametrize("wrong", [{"resolution": 48}, {"first_resolution": 4}, {"first_resolution": 12},
                                   {"first_resolution": 128}, {"background_layer": 9}])  # fmt: skip
def test_shapes_that_cannot_be_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"expected|give"):
        Labels4FreeAlpha(**{"resolution": 64} | wrong)
