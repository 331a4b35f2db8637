"""The matting network and the front desk's cut-outs at toy size."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toy import save_toy

from hfgan import HFGan, MattingNetwork
from hfgan.images import read_recipe


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory) -> HFGan:
    return HFGan.from_pretrained(save_toy(tmp_path_factory.mktemp("toy"), alpha=True), dtype="float32")


def test_gradients_reach_all_of_it() -> None:
    net = MattingNetwork(resolution=16, widths=(8, 16, 24))
    net(torch.randn(2, 3, 32, 16)).square().mean().backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize(("size", "seen"), [((40, 40), (16, 16)), ((80, 40), (32, 16)), ((30, 100), (16, 54))])
def test_it_sees_a_photo_at_the_size_that_it_knows(size: tuple[int, int], seen: tuple[int, int]) -> None:
    net = MattingNetwork(resolution=16, widths=(8, 16))
    alpha = net.see(Image.new("RGB", size, "red"))
    assert alpha.shape == (1, 1, *seen[::-1])
    assert 0 <= alpha.min() <= alpha.max() <= 1


def test_a_strip_is_refused() -> None:
    with pytest.raises(ValueError, match="400x20 pixels: expected at most 8:1, crop it first"):
        MattingNetwork(resolution=16, widths=(8, 16)).see(Image.new("RGB", (400, 20)))


@pytest.mark.parametrize("widths", [(8,), (8, 12), (0, 8)])
def test_widths_that_cannot_be_are_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected two or more multiples of 8"):
        MattingNetwork(widths=widths)


def test_a_photo_s_alpha_has_the_photo_s_size(gan: HFGan, photo: Callable[..., Image.Image], tmp_path: Path) -> None:
    picture = photo(70, 45)
    picture.save(tmp_path / "me.png")
    cut = gan.cutout(tmp_path / "me.png")
    assert cut.alpha.shape == (45, 70)
    assert cut.name == "me"
    assert cut.recipe is None
    assert gan.segment(picture).shape == (1, 1, 45, 70)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    for same in (picture, str(tmp_path / "me.png"), buffer.getvalue(), io.BytesIO(buffer.getvalue())):
        assert torch.equal(gan.cutout(same).alpha, cut.alpha)
    assert cut.rgba().size == picture.size


def test_an_upright_rgb_photo_is_what_is_cut(gan: HFGan, photo: Callable[..., Image.Image]) -> None:
    turned = photo(60, 30)
    exif = turned.getexif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    turned.save(buffer, "JPEG", exif=exif)
    assert gan.cutout(buffer.getvalue()).image.size == (30, 60)
    assert gan.cutout(photo(20, 20, mode="L")).image.mode == "RGB"


def test_samples_are_cut_by_the_alpha_of_the_generator(gan: HFGan, tmp_path: Path) -> None:
    out = gan.sample(3, seed=5, noise_mode="random")
    cuts = gan.cutouts(out, refine=False)
    noise = gan._noise(out.recipes)
    expected = gan.alpha(gan.generator, out.w_plus, "random", noise)[1].sigmoid()
    torch.testing.assert_close(gan.segment(out, refine=False), expected, rtol=0, atol=1e-5)
    assert [cut.name for cut in cuts] == ["seed0005", "seed0006", "seed0007"]
    assert cuts[1].image == out.images[1]
    cuts[1].save(tmp_path / "cut.png")
    assert read_recipe(tmp_path / "cut.png") == out.recipes[1]
    again = gan.replay(tmp_path / "cut.png")
    torch.testing.assert_close(gan.cutout(again, refine=False).alpha, cuts[1].alpha, rtol=0, atol=1e-4)


def test_singles_equal_the_batch(gan: HFGan) -> None:
    out = gan.sample(5, seed=0)
    together, alone = gan.segment(out), torch.cat([gan.segment(out[i]) for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-3)
    by_twos = torch.stack([cut.alpha[None] for cut in gan.cutouts(out, batch_size=2)])
    torch.testing.assert_close(together, by_twos, rtol=0, atol=1e-3)


def test_backgrounds(gan: HFGan) -> None:
    out, other = gan.sample(2, seed=0), gan.sample(1, seed=9)
    (drawn,) = gan.background(other)
    assert drawn.size == (16, 16)
    assert drawn != other.images[0]
    swapped = gan.composite(out, other)
    assert len(swapped) == 2
    alpha = gan.segment(out)[0, 0] < 0.01
    behind = np.abs(np.asarray(swapped[0], int) - np.asarray(drawn, int)).max(-1)
    assert not alpha.any() or behind[alpha.numpy()].max() <= 4
    assert gan.composite(out.images[0], "#ff0000")[0].size == (16, 16)


def test_one_means_one(gan: HFGan) -> None:
    with pytest.raises(ValueError, match="2 pictures given, expected one"):
        gan.cutout(gan.sample(2, seed=0))


def test_what_is_no_picture_is_said(gan: HFGan, photo: Callable[..., Image.Image]) -> None:
    for wrong, said in ((None, "NoneType given, expected a path"), (np.zeros((8, 8)), "PIL.Image.fromarray")):
        with pytest.raises(TypeError, match=said):
            gan.cutout(wrong)
    for several in ([photo(), photo(30, 20)], []):
        with pytest.raises(ValueError, match=f"{len(several)} pictures of no one size given: call cutouts"):
            gan.segment(several)
    assert gan.segment([photo(seed=1), photo(seed=2)]).shape == (2, 1, 48, 48)


def test_what_is_missing_is_said(tmp_path: Path, photo: Callable[..., Image.Image]) -> None:
    bare = HFGan.from_pretrained(save_toy(tmp_path))
    with pytest.raises(RuntimeError, match=r"has no alpha: .*training/train.py alpha"):
        bare.cutouts(bare.sample(1, seed=0))
    with pytest.raises(RuntimeError, match=r"has no matting: .*training/train.py matting"):
        bare.cutout(photo())


def test_samples_of_another_model_are_refused(gan: HFGan, tmp_path: Path) -> None:
    other = HFGan.from_pretrained(save_toy(tmp_path, seed=1, alpha=True))
    with pytest.raises(ValueError, match="load the model that drew it"):
        gan.cutouts(other.sample(1, seed=0))
