"""Traits against pictures of which they are known: where the subject is, how large, and what colour its parts are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hfgan import traits as module
from hfgan.traits import NAMES, WHOLE, traits

SIDE = 30
RED, GREEN, BLUE, GREY = (1, -1, -1), (-1, 1, -1), (-1, -1, 1), (0.2, 0.2, 0.2)


def paint(*color: float) -> Tensor:
    """A picture (1, 3, SIDE, SIDE) of one colour."""
    return torch.tensor(color).float().view(1, 3, 1, 1).repeat(1, 1, SIDE, SIDE)


def box(top: int, bottom: int, left: int, right: int) -> Tensor:
    """Alpha (1, 1, SIDE, SIDE), 1 in some rows and columns."""
    alpha = torch.zeros(1, 1, SIDE, SIDE)
    alpha[..., top:bottom, left:right] = 1
    return alpha


def noise(n: int = 4) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.rand(n, 3, SIDE, SIDE, generator=rng) * 2 - 1, torch.rand(n, 1, SIDE, SIDE, generator=rng)


def test_every_trait_is_there_once_finite_and_one_number_each() -> None:
    image, alpha = noise()
    found = traits(image, alpha)
    assert tuple(found) == NAMES
    assert all(value.shape == (4,) and value.isfinite().all() for value in found.values())
    whole = traits(image)
    assert tuple(whole) == WHOLE
    assert all(torch.equal(whole[name], found[name]) for name in WHOLE)


def test_a_batch_equals_its_singles() -> None:
    image, alpha = noise()
    together = traits(image, alpha)
    for k in range(4):
        alone = traits(image[k : k + 1], alpha[k : k + 1])
        for name in NAMES:
            torch.testing.assert_close(alone[name], together[name][k : k + 1])


def test_where_the_subject_is_and_how_large() -> None:
    found = traits(paint(*GREY), box(3, 12, 10, 30))
    expected = {"area": 9 * 20 / 900, "height": 9 / 30, "width": 20 / 30, "border": 9 / (4 * 29),
                "center_x": 2 * 19.5 / 29 - 1, "center_y": 2 * 7 / 29 - 1}  # fmt: skip
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, abs=1e-5), name


def test_colours_are_of_the_part_that_is_named() -> None:
    alpha = box(3, 27, 5, 25)  # thirds of 8 rows
    image = paint(*GREY)
    for color, (top, bottom) in {RED: (3, 11), GREEN: (11, 19), BLUE: (19, 27)}.items():
        image = torch.where(box(top, bottom, 5, 25) > 0, paint(*color), image)
    found = traits(image, alpha)
    for part, color in {"top": RED, "middle": GREEN, "bottom": BLUE, "background": GREY}.items():
        light = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
        assert found[f"{part}_light"].item() == pytest.approx(light, abs=1e-5)
        for name, value in zip(("red", "green", "blue"), color, strict=True):
            assert found[f"{part}_{name}"].item() == pytest.approx(value - light, abs=1e-5)
        assert found[f"{part}_saturation"].item() == pytest.approx(max(color) - min(color), abs=1e-5)
    inside = [found[f"{part}_light"] for part in ("top", "middle", "bottom")]
    torch.testing.assert_close(found["foreground_light"], sum(inside) / 3)


def test_colours_are_weighted_by_alpha() -> None:
    image = torch.cat([paint(*RED)[..., :15], paint(*BLUE)[..., 15:]], 3)
    alpha = torch.cat([torch.full((1, 1, SIDE, 15), 0.75), torch.full((1, 1, SIDE, 15), 0.25)], 3)
    red, blue = (traits(paint(*color))["light"] for color in (RED, BLUE))
    found = traits(image, alpha)
    torch.testing.assert_close(found["foreground_light"], 0.75 * red + 0.25 * blue)
    torch.testing.assert_close(found["background_light"], 0.25 * red + 0.75 * blue)


def test_the_whole_picture() -> None:
    image, _ = noise(1)
    mirrored = (image + image.flip(3)) / 2
    assert traits(mirrored)["symmetry"].item() == pytest.approx(1)
    assert traits(image)["symmetry"] < 0.8
    half = torch.cat([paint(-1, -1, -1)[..., :15], paint(1, 1, 1)[..., 15:]], 3)
    assert traits(half)["balance"].item() == pytest.approx(2)
    assert traits(half.flip(3))["balance"].item() == pytest.approx(-2)
    assert traits(half)["symmetry"].item() == pytest.approx(0)
    assert traits(paint(*RED))["sharpness"].item() == pytest.approx(0, abs=1e-6)
    smooth = torch.nn.functional.avg_pool2d(image, 3, 1, 1)
    assert traits(smooth)["sharpness"] < traits(image)["sharpness"]


def test_means_over_nothing_are_zero() -> None:
    nothing, all_of_it = box(0, 0, 0, 0), torch.ones(1, 1, SIDE, SIDE)
    empty = traits(paint(*RED), nothing)
    assert all(value.isfinite().all() for value in empty.values())
    zero = [name for name in NAMES if name.startswith(("foreground", "top", "middle", "bottom", *module.PLACE))]
    assert all(empty[name].item() == 0 for name in zero)
    assert traits(paint(*RED), all_of_it)["background_red"].item() == 0


def test_half_precision_is_measured_in_full() -> None:
    image, alpha = noise()
    found = traits(image.bfloat16(), alpha.bfloat16())
    assert all(value.dtype == torch.float32 for value in found.values())


@pytest.mark.parametrize(
    ("image", "alpha"),
    [
        (torch.zeros(1, 4, 8, 8), None),
        (torch.zeros(3, 8, 8), None),
        (torch.zeros(2, 3, 8, 8), torch.zeros(1, 1, 8, 8)),
        (torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 4)),
        (torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)),
    ],
)
def test_other_shapes_are_refused(image: Tensor, alpha: Tensor | None) -> None:
    with pytest.raises(ValueError, match=r"of images \(n, 3, h, w\) and alpha \(n, 1, h, w\), got images"):
        traits(image, alpha)
