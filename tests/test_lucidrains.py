"""Generators of lucidrains' stylegan2-pytorch: read from checkpoints, equal to the formulas, good for all verbs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from hfgan import AlphaNetwork, DirectionSet, HFGan, InterestEncoder, LucidrainsGenerator, finding
from hfgan.app.mix import bands
from hfgan.converting.lucidrains import is_lucidrains, read_lucidrains
from hfgan.models.directions import WStats
from hfgan.modes import fit_modes, make_bank
from hfgan.pickles import read_pickle
from hfgan.sampling import broadcast

LATENT, DEPTH = 12, 3
Checkpoint = dict[str, object]


# ---------------------------------------------------------------- a writer of such checkpoints


def write_network(
    size: int, *, capacity: int = 2, most: int = 512, channels: int = 3, attention: tuple[int, ...] = (),
    from_w: bool = False, blurred: bool = True, seed: int = 0,
) -> dict[str, Tensor]:  # fmt: skip
    """The tensors of a mapping "S." and a generator "G.", as random as those of a trained one."""
    source, tensors = torch.Generator().manual_seed(seed), {}

    def put(name: str, *shape: int, scale: float = 1.0, mean: float = 0.0) -> None:
        tensors[name] = torch.randn(shape, generator=source) * scale + mean

    def linear(name: str, inputs: int, outputs: int, scale: float) -> None:
        put(f"{name}.weight", outputs, inputs, scale=scale)
        put(f"{name}.bias", outputs, scale=0.2)

    for k in range(DEPTH):
        put(f"S.net.{2 * k}.weight", LATENT, LATENT, scale=4.0)
        put(f"S.net.{2 * k}.bias", LATENT, scale=2.0)
    count = int(math.log2(size)) - 1
    widths = [min(capacity * 2 ** (count - k), most) for k in range(count)]
    if from_w:
        put("G.to_initial_block.weight", LATENT, widths[0], 4, 4)
    else:
        put("G.initial_block", 1, widths[0], 4, 4)
    put("G.initial_conv.weight", widths[0], widths[0], 3, 3, scale=(9 * widths[0]) ** -0.5)
    put("G.initial_conv.bias", widths[0], scale=0.2)
    for k, (below, width) in enumerate(zip([widths[0], *widths], widths, strict=False)):
        block = f"G.blocks.{k}"
        for turn, inputs in ((1, below), (2, width)):
            linear(f"{block}.to_style{turn}", LATENT, inputs, 0.5)
            linear(f"{block}.to_noise{turn}", 1, width, 0.3)
            put(f"{block}.conv{turn}.weight", width, inputs, 3, 3, scale=(2 / 9 / inputs) ** 0.5)
        linear(f"{block}.to_rgb.to_style", LATENT, width, 0.3)
        put(f"{block}.to_rgb.conv.weight", channels, width, 1, 1, scale=0.1 * width**-0.5, mean=0.05 / width)
        if blurred and k < count - 1:
            tensors[f"{block}.to_rgb.upsample.1.f"] = torch.tensor([1.0, 2.0, 1.0])
        if k in attention:
            write_attention(put, linear, f"G.attns.{k}", below)
    return tensors


def write_attention(put, linear, name: str, width: int) -> None:
    for half in (0, 1):
        put(f"{name}.{half}.fn.norm.g", 1, width, 1, 1, mean=1.0, scale=0.2)
        put(f"{name}.{half}.fn.norm.b", 1, width, 1, 1, scale=0.2)
    inside = f"{name}.0.fn.fn"
    put(f"{inside}.to_q.weight", 512, width, 1, 1)
    put(f"{inside}.to_kv.net.0.weight", width, 1, 3, 3, scale=0.3)
    put(f"{inside}.to_kv.net.1.weight", 1024, width, 1, 1, scale=0.3)
    put(f"{inside}.to_out.weight", width, 512, 1, 1, scale=0.2)
    put(f"{inside}.to_out.bias", width, scale=0.2)
    for place, inputs, outputs in ((0, width, 2 * width), (2, 2 * width, width)):
        put(f"{name}.1.fn.fn.{place}.weight", outputs, inputs, 1, 1, scale=0.3)
        put(f"{name}.1.fn.fn.{place}.bias", outputs, scale=0.2)


def checkpoint(size: int = 32, **how: object) -> Checkpoint:
    """What a `model_N.pt` holds: networks in training, others as their averages, and a discriminator."""
    live, average = write_network(size, **how, seed=1), write_network(size, **how)
    state = live | {name.replace(".", "E.", 1): tensor for name, tensor in average.items()}
    state |= {f"{part}.blocks.0.conv_res.bias": torch.zeros(4) for part in ("D", "D_aug.D", "D_cl.net")}
    return {"GAN": state, "version": "1.8.9"}


def read(found: Checkpoint) -> LucidrainsGenerator:
    return read_lucidrains(found, []).requires_grad_(False)


# ---------------------------------------------------------------- the network again, in float64, sample by sample


def reference(found: Checkpoint, z: Tensor, field: Tensor) -> tuple[Tensor, Tensor]:
    """w (d,) and the image (c, r, r) in [0, 1] of one z (d,) with a noise image (r, r) in [0, 1)."""
    t = {name: tensor.double() for name, tensor in found["GAN"].items()}
    w = z.double() / z.double().square().sum().sqrt()
    for k in range(DEPTH):
        w = F.leaky_relu(0.1 * (t[f"SE.net.{2 * k}.weight"] @ w + t[f"SE.net.{2 * k}.bias"]), 0.2)
    if "GE.to_initial_block.weight" in t:
        x = torch.tensordot(w, t["GE.to_initial_block.weight"], 1)
    else:
        x = t["GE.initial_block"][0]
    x = F.conv2d(x[None], t["GE.initial_conv.weight"], t["GE.initial_conv.bias"], padding=1)[0]
    image = 0
    for k in range(field.shape[0].bit_length() - 2):
        name = f"GE.blocks.{k}"
        x = attend(t, f"GE.attns.{k}", x) if f"GE.attns.{k}.0.fn.norm.g" in t else x
        x = x if k == 0 else twice(x)
        for turn in (1, 2):
            kernel = scaled(t, f"{name}.conv{turn}", f"{name}.to_style{turn}", w)
            kernel = kernel / (kernel.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
            part = field.double()[: x.shape[1], : x.shape[2]]
            strength, bias = (t[f"{name}.to_noise{turn}.{kind}"].view(-1, 1, 1) for kind in ("weight", "bias"))
            x = F.leaky_relu(F.conv2d(x[None], kernel, padding=1)[0] + strength * part + bias, 0.2)
        image = image + F.conv2d(x[None], scaled(t, f"{name}.to_rgb.conv", f"{name}.to_rgb.to_style", w))[0]
        if x.shape[1] < len(field):
            image = twice(image)
            if f"{name}.to_rgb.upsample.1.f" in t:
                image = blur(image)
    return w, image


def scaled(t: dict[str, Tensor], conv: str, style: str, w: Tensor) -> Tensor:
    """A kernel (o, i, k, k) with its inputs times 1 + style."""
    return t[f"{conv}.weight"] * (1 + t[f"{style}.weight"] @ w + t[f"{style}.bias"])[None, :, None, None]


def twice(x: Tensor) -> Tensor:
    """(c, h, h) to (c, 2h, 2h): each new pixel lies a quarter from the old one, three parts of which it takes."""
    for dim in (1, 2):
        last = x.shape[dim] - 1
        before = torch.cat([x.narrow(dim, 0, 1), x.narrow(dim, 0, last)], dim)
        after = torch.cat([x.narrow(dim, 1, last), x.narrow(dim, last, 1)], dim)
        x = torch.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], dim + 1).flatten(dim, dim + 1)
    return x


def blur(x: Tensor) -> Tensor:
    """[1, 2, 1] / 4 along both sides of (c, h, h), reflected at the border without repeating it."""
    for dim in (1, 2):
        last = x.shape[dim] - 1
        before = torch.cat([x.narrow(dim, 1, 1), x.narrow(dim, 0, last)], dim)
        after = torch.cat([x.narrow(dim, 1, last), x.narrow(dim, last - 1, 1)], dim)
        x = (before + 2 * x + after) / 4
    return x


def attend(t: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """Linear attention of eight heads, then two 1x1 convolutions, each on normalised channels and added."""

    def normal(half: int, x: Tensor) -> Tensor:
        spread = (x.var(0, correction=0) + 1e-5).sqrt()
        return (x - x.mean(0)) / spread * t[f"{name}.{half}.fn.norm.g"][0] + t[f"{name}.{half}.fn.norm.b"][0]

    inside, y, heads = f"{name}.0.fn.fn", normal(0, x), []
    q = torch.einsum("oi,ihw->ohw", t[f"{inside}.to_q.weight"][:, :, 0, 0], y).flatten(1)
    around = F.conv2d(y[None], t[f"{inside}.to_kv.net.0.weight"], padding=1, groups=len(y))[0]
    kv = torch.einsum("oi,ihw->ohw", t[f"{inside}.to_kv.net.1.weight"][:, :, 0, 0], around).flatten(1)
    for head in range(8):
        rows = slice(64 * head, 64 * head + 64)
        keys, values = kv[:512][rows].softmax(1), kv[512:][rows]
        heads.append((keys @ values.T).T @ (q[rows].softmax(0) / 8))
    gelu = F.gelu(torch.cat(heads)).unflatten(1, x.shape[1:])
    out = torch.einsum("oi,ihw->ohw", t[f"{inside}.to_out.weight"][:, :, 0, 0], gelu)
    x = x + out + t[f"{inside}.to_out.bias"][:, None, None]
    wide = F.conv2d(normal(1, x)[None], t[f"{name}.1.fn.fn.0.weight"], t[f"{name}.1.fn.fn.0.bias"])
    return x + F.conv2d(F.leaky_relu(wide, 0.2), t[f"{name}.1.fn.fn.2.weight"], t[f"{name}.1.fn.fn.2.bias"])[0]


# ---------------------------------------------------------------- the same pictures

NETWORKS = {
    "64 px": {"size": 64},
    "128 px, RGBA": {"size": 128, "channels": 4, "capacity": 1},
    "256 px": {"size": 256, "capacity": 1, "most": 24},
    "attention, a start of w": {"size": 32, "attention": (1, 3), "from_w": True},
    "before 1.1": {"size": 16, "blurred": False},
}


@pytest.mark.parametrize("how", NETWORKS.values(), ids=NETWORKS)
def test_pictures_are_those_of_the_checkpoint(how: dict[str, object]) -> None:
    found = checkpoint(**how)
    generator, notes = read(found), []
    z = torch.randn(2, LATENT, generator=torch.Generator().manual_seed(3))
    field = generator.synthesis.noise_const * 12**-0.5 + 0.5
    assert field.min() >= 0
    assert field.max() < 1
    assert abs(field.std() - 12**-0.5) < 0.03
    image = generator(z)
    assert image.shape == (2, how.get("channels", 3), how["size"], how["size"])
    for row in range(2):
        w, expected = reference(found, z[row], field)
        assert (generator.mapping(z)[row] - w).abs().max() < 1e-5
        assert (image[row] - (2 * expected - 1)).abs().max() < 1e-4
        assert expected.std() > 0.02
        assert (image[0] - image[1]).abs().max() > 0.1
    read_lucidrains(found, notes)
    assert [word for word in ("w_avg", "noise", "lr_mlp", "discriminator") if word in " ".join(notes)] == [
        "w_avg", "noise", "lr_mlp", "discriminator",
    ]  # fmt: skip


def test_the_mean_of_w_is_that_of_many_z() -> None:
    generator = read(checkpoint())
    w = generator.mapping(torch.randn(20_000, LATENT, generator=torch.Generator().manual_seed(8)))
    assert (generator.mapping.w_avg - w.mean(0)).norm() < 0.05 * w.std(0).norm()
    z = torch.randn(4, LATENT)
    assert torch.allclose(generator.mapping(z), generator.mapping(7 * z), atol=1e-6)


def test_noise_is_one_image_of_the_network() -> None:
    generator = read(checkpoint())
    synthesis = generator.synthesis
    sources = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    drawn = synthesis.noise_images(2, "random", sources)
    assert [image.shape[2] for image in drawn] == [4, 4, 8, 8, 16, 16, 32, 32]
    for image in drawn:
        assert torch.equal(image, drawn[-1][:, :, : image.shape[2], : image.shape[3]])
    assert drawn[-1].abs().max() <= 3**0.5
    assert abs(drawn[-1].std() - 1) < 0.05
    alone = synthesis.noise_images(1, "random", [torch.Generator().manual_seed(6)])
    assert torch.equal(alone[-1], drawn[-1][1:])
    w_plus = broadcast(generator.mapping(torch.randn(1, LATENT)), generator.num_ws)
    none, zero = synthesis(w_plus, "none"), synthesis.draw(w_plus, [torch.zeros_like(image) for image in alone])
    assert torch.allclose(none, zero, atol=1e-6)
    assert (synthesis(w_plus) - none).abs().max() > 1e-3
    with pytest.raises(ValueError, match="noise_mode is 'loud'"):
        synthesis(w_plus, "loud")


def test_half_precision_and_compute_dtype() -> None:
    generator = read(checkpoint(attention=(2,)))
    z = torch.randn(2, LATENT)
    exact = generator(z)
    assert (generator.bfloat16()(z) - exact).abs().max() < 0.1
    assert generator.synthesis.compute_dtype == torch.bfloat16


# ---------------------------------------------------------------- what is refused

STYLE, FILTER = "GE.blocks.1.to_style2.bias", "GE.blocks.0.to_rgb.upsample.1.f"
OURS = r"synthesis\.blocks\.1\.conv1\.affine\.bias"
DAMAGES = {
    "missing": ({STYLE: None}, f"missing: {OURS}"),
    "unknown": ({"GE.blocks.1.extra": torch.zeros(1)}, r"unexpected: GE\.blocks\.1\.extra"),
    "misshapen": ({STYLE: torch.zeros(3)}, f"misshapen: {OURS}"),
    "no tensor": ({STYLE: 7}, rf"holds {STYLE}, which are no tensors"),
    "early version": ({"GE.initial_conv.weight": None}, r"GE\.initial_conv and is by version 1\.8\.9"),
    "early attention": ({"GE.attns.1.0.fn.g": torch.zeros(1)}, r"attention \(GE\.attns\.1\.0\.fn\.g\)"),
    "attention nowhere": ({"GE.attns.30.x": torch.zeros(1)}, r"attention is \[30\]"),
    "gap": ({"GE.blocks.9999999999.x": torch.zeros(1)}, r"blocks \[0, 1, 2, 3, 999999\]"),
    "no mapping": ({"SE.net.0.weight": None}, r"lacks the tensor SE\.net\.0\.weight"),
    "flat kernel": ({"GE.blocks.0.conv2.weight": torch.zeros(32)}, r"conv2\.weight of shape \[32\], expected 4"),
    "another blur": ({FILTER: torch.ones(3)}, rf"another filter \({FILTER}\)"),
}


@pytest.mark.parametrize(("damage", "said"), DAMAGES.values(), ids=DAMAGES)
def test_what_does_not_fit_is_named(damage: dict[str, object], said: str) -> None:
    found = checkpoint()
    found["GAN"] = {name: value for name, value in (found["GAN"] | damage).items() if value is not None}
    assert is_lucidrains(found)
    with pytest.raises(ValueError, match=said):
        read_lucidrains(found, [])


def test_other_things_are_no_such_checkpoint() -> None:
    for other in (None, {}, {"GAN": None}, {"g_ema": {}}, {"GAN": {"G.blocks": 1}}, [1], {"GAN": [1]}):
        assert not is_lucidrains(other)


# ---------------------------------------------------------------- what one does with it


@pytest.fixture(scope="module")
def gan() -> HFGan:
    """A converted model with modes, directions, and an alpha network and an encoder that nobody trained."""
    generator = read(checkpoint())
    w = generator.mapping(torch.randn(400, LATENT, generator=torch.Generator().manual_seed(1)))
    bank = make_bank(generator, w, fit_modes(w, 3))
    stats = WStats.of(generator)
    found = [*finding.pca(stats, 1, generator.fingerprint()), *finding.sefa(generator, [2, 3], 1, stats)]
    torch.manual_seed(0)
    parts = {"alpha": AlphaNetwork.beside(generator), "encoder": InterestEncoder.beside(generator, bank)}
    return HFGan(generator=generator, modes=bank, directions=DirectionSet.of(found, generator), **parts)


def photo(gan: HFGan) -> Image.Image:
    return gan.sample(seed=9).images[0]


def test_samples_follow_seeds_psi_and_modes(gan: HFGan) -> None:
    out = gan.sample(seeds=[3, 4], truncation_psi=0.8, noise_mode="random")
    again = gan.sample(seeds=[4], truncation_psi=0.8, noise_mode="random")
    assert out.images[1].tobytes() == again.images[0].tobytes() != out.images[0].tobytes()
    assert gan.replay(out.recipes[0]).images[0].tobytes() == out.images[0].tobytes()
    assert out.w_plus.shape == (2, 4, LATENT)
    pair = gan.sample(seed=3, truncation_psi=(0.0, 1.0)).w_plus[0]
    assert torch.allclose(pair[1], gan.generator.mapping.w_avg)
    assert not torch.allclose(pair[2], pair[1])
    moded = gan.sample(seed=3, mode=1, truncation_psi=0.0)
    assert torch.allclose(moded.w_plus[0], gan.modes.centers[1].expand(4, -1))
    assert moded.modes == [1]


def test_mixing_and_ways_between_samples(gan: HFGan) -> None:
    assert bands(gan.generator.num_ws, gan.generator.synthesis.ws_per_size) == [("Coarse", "0-1"), ("Middle", "2-3")]
    a, b = gan.sample(seed=1), gan.sample(seed=2)
    mixed = gan.mix(a, b, "2-3")
    assert torch.equal(mixed.w_plus[0, :2], a.w_plus[0, :2])
    assert torch.equal(mixed.w_plus[0, 2:], b.w_plus[0, 2:])
    assert mixed.images[0].tobytes() not in (a.images[0].tobytes(), b.images[0].tobytes())
    for kind in ("w", "z", "slerp"):
        way = gan.interpolate(a, b, 3, kind)
        assert way[0].tobytes() == a.images[0].tobytes() != way[1].tobytes()
    assert len(gan.loop([a, b], 2)) == 4


def test_edits_move_along_directions_and_stay_within_regions(gan: HFGan) -> None:
    out = gan.sample(seed=5, noise_mode="random")
    for name in gan.directions.names:
        whole = gan.edit(out, {name: 2.0})
        assert whole.changes()[0][0] > 0.002
        assert gan.replay(whole.recipes[0]).images[0].tobytes() == whole.images[0].tobytes()
    assert gan.directions["sefa-0"].layers == (2, 3)
    part = gan.edit(out, {"pca-0": 2.0}, region=(8, 8, 28, 28))
    inside, outside = part.changes()[0]
    assert inside > 0.002
    assert outside == 0
    assert part.before[0].tobytes() == out.images[0].tobytes()


def test_style_channels_are_known_by_layer(gan: HFGan) -> None:
    affines = gan.generator.synthesis.affines()
    assert [tuple(weight.shape) for weight in affines.values()] == [(64, 12), (48, 12), (24, 12), (12, 12)]
    one = finding.channels("some", gan.generator, gan.sample(6, seed=0).w, WStats.of(gan.generator), keep=5)
    assert one.layers
    assert max(one.layers) < 4


def test_photos_are_found_by_projection_refinement_and_tuning(gan: HFGan) -> None:
    for how in ({"method": "projector", "steps": 12}, {"method": "encoder", "refine": 6, "noise_steps": 4}):
        first = gan.invert(photo(gan), method=how["method"], steps=1)
        found = gan.invert(photo(gan), **how)
        assert found.distance_inside < first.distance_inside
        assert [image.shape[2] for image in found.noise] == [4, 4, 8, 8, 16, 16, 32, 32]
    edited = gan.edit(found, {"pca-0": 1.0})
    assert edited.before[0].tobytes() == found.image.tobytes() != edited.images[0].tobytes()
    tuned = gan.invert(photo(gan), method="encoder", steps=1, tune_steps=6)
    plain = gan.invert(photo(gan), method="encoder", steps=1)
    assert tuned.distance_inside < plain.distance_inside
    assert type(tuned.tuned.applied(gan.generator)) is LucidrainsGenerator


def test_alpha_is_read_off_it_and_layers_are_silenced(gan: HFGan) -> None:
    out = gan.sample(2, seed=0)
    assert gan.segment(out).shape == (2, 1, 32, 32)
    w_plus, seen = out.w_plus, {}
    gan.generator.synthesis(w_plus, tap=lambda layer, x: seen.update({layer: x.shape[2]}))
    assert seen == {0: 4, 1: 8, 2: 8, 3: 16, 4: 16, 5: 32, 6: 32}
    silent = [gan.generator.synthesis(w_plus, silenced=layer) for layer in (-1, 0, 6)]
    for image, other in zip(silent, [*silent[1:], gan.generator.synthesis(w_plus)], strict=True):
        assert (image - other).abs().max() > 1e-3


def test_gradients_reach_w_and_weights() -> None:
    generator = read(checkpoint(attention=(1,), from_w=True)).requires_grad_(True)
    w_plus = torch.randn(2, 4, LATENT, requires_grad=True)
    generator.synthesis(w_plus).square().mean().backward()
    idle = [name for name, p in generator.synthesis.named_parameters() if p.grad is None or not p.grad.any()]
    assert w_plus.grad.any(dim=2).all()
    assert not idle


def test_it_is_saved_loaded_and_checked_like_any_model(gan: HFGan, tmp_path: Path) -> None:
    gan.save_pretrained(tmp_path / "copy")
    back = HFGan.from_pretrained(tmp_path / "copy", dtype="float32")
    assert type(back.generator) is LucidrainsGenerator
    assert back.generator.config.c_dim == 0
    assert back.generator.fingerprint() == gan.generator.fingerprint()
    assert back.sample(seed=1).images[0].tobytes() == gan.sample(seed=1).images[0].tobytes()
    for wrong in ({"img_channels": 1}, {"resolution": 48}, {"mapping_layers": 0}, {"attention": [9]}):
        with pytest.raises(ValueError, match=r"expected|give"):
            LucidrainsGenerator(**{"resolution": 16, "channel_base": 64} | wrong)


def test_a_file_of_torch_is_read(tmp_path: Path) -> None:
    torch.save(checkpoint(16), tmp_path / "model_7.pt")
    found = read_pickle(tmp_path / "model_7.pt")
    assert is_lucidrains(found)
    assert read(found).fingerprint() == read(checkpoint(16)).fingerprint()
