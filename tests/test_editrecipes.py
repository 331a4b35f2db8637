"""Recipes of edits: the same picture in another process and without directions; damaged ones say what is wrong."""

from __future__ import annotations

import base64
import copy
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from toy import save_toy

from hfgan import Edit, EditOutput, HFGan, editrecipes
from hfgan.images import read_recipe, save_png

AGAIN = """
import json, sys
from hfgan import HFGan
gan = HFGan.from_pretrained(sys.argv[1], dtype="float32")
for path in sys.argv[2:]:
    recipe = json.loads(open(path).read()) if path.endswith(".json") else path
    gan.replay(recipe).images[0].save(path + ".again.png")
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "toy-16"
    return save_toy(folder, num_modes=3, alpha=True, encoder=True, directions=True)


@pytest.fixture(scope="module")
def gan(toy: Path) -> HFGan:
    return HFGan.from_pretrained(toy, dtype="float32")


@pytest.fixture(scope="module")
def bare(gan: HFGan) -> HFGan:
    """The same model, which has lost its directions and its alpha."""
    return HFGan(generator=gan.generator, modes=gan.modes)


@pytest.fixture
def outputs(gan: HFGan, photo) -> dict[str, EditOutput]:
    """Edits of every kind."""
    out, smile = gan.sample(seed=5), gan.directions["smile"]
    modal = gan.mix(gan.sample(seed=1, mode=2), gan.sample(seed=2, truncation_psi=[0.3, 1]), "1,3")
    inv = gan.invert(photo(70, 50), (10, 5, 60, 45))
    region = gan.edit(out, {"smile": 3}, region=(0.1, 0.2, 0.8, 0.9))
    return {
        "of a sample": gan.edit(out, {"smile": 2, "odd": -0.1}),
        "to a value on some layers": gan.edit(modal, [Edit(smile, 1.5, True, (0, 4)), Edit(smile.on((1,)), 1)]),
        "with random noise": gan.edit(gan.sample(seed=3, noise_mode="random"), {"zoom": 2}),
        "without noise": gan.edit(gan.sample(seed=3, noise_mode="none"), {"zoom": 2}, region="alpha"),
        "of a photo": gan.edit(inv, {"zoom": 1}, region="interest"),
        "of w_plus": gan.edit(torch.randn(1, gan.generator.num_ws, 16), {"smile": 1}),
        "in a region": region,
        "in two regions": gan.edit(region, {"zoom": -2}, region=(0.5, 0, 1, 1)),
        "everywhere after a region": gan.edit(region, {"zoom": -2}),
        "none": gan.edit(out, {}),
        "a morph": gan.morph(out, inv, 3)[1],
        "a transfer": gan.transfer(inv, gan.edit(out, {"odd": 1}), out),
    }  # fmt: skip


# ---------------------------------------------------------------- the same again


def test_a_recipe_draws_the_picture_again_from_json_and_without_directions(gan, bare, outputs) -> None:
    for name, out in outputs.items():
        (recipe,) = out.recipes
        assert json.loads(json.dumps(recipe, allow_nan=False)) == recipe, name
        for model in (gan, bare):
            again = model.replay(json.loads(json.dumps(recipe)))
            assert isinstance(again, EditOutput)
            assert again.images == out.images, name
            assert torch.equal(again.w_plus, out.w_plus), name
            told = recipe | {"model": model.name}
            assert editrecipes.check(again.recipes[0] | {"model": model.name}) == told, name
        assert editrecipes.is_edit(recipe)
        assert not editrecipes.is_edit(editrecipes.origin(recipe))


def test_in_another_process_it_is_the_same_to_the_last_bit(toy: Path, outputs, tmp_path: Path) -> None:
    paths = []
    for number, out in enumerate(outputs.values()):
        paths += [tmp_path / f"{number}.png", tmp_path / f"{number}.json"]
        save_png(out.images[0], paths[-2], out.recipes[0])
        paths[-1].write_text(json.dumps(out.recipes[0]))
    subprocess.run([sys.executable, "-c", AGAIN, toy, *paths], check=True)
    expected = [out.images[0] for out in outputs.values() for _ in range(2)]
    for path, picture in zip(paths, expected, strict=True):
        assert Image.open(f"{path}.again.png").tobytes() == picture.tobytes(), path


def test_a_png_carries_its_recipe(gan: HFGan, outputs, tmp_path: Path) -> None:
    out = outputs["in a region"]
    (path,) = out.save(tmp_path)
    assert read_recipe(path) == out.recipes[0]
    for given in (path, str(path), Image.open(path)):
        assert gan.replay(given).images == out.images
    line = Image.open(path).text["parameters"]
    assert line.startswith("format: 1, kind: edit, hfgan: ")
    assert len(line) < 200, "what people read is short"
    copy_of = Image.open(path).convert("RGB")
    copy_of.info.clear()
    with pytest.raises(ValueError, match="this picture has no recipe"):
        gan.replay(copy_of)


def test_an_edit_goes_on_from_its_recipe(gan: HFGan, bare: HFGan, outputs) -> None:
    for name, out in outputs.items():
        smile = gan.directions["smile"]
        assert bare.edit(bare.replay(out.recipes[0]), {smile: 1}).images == gan.edit(out, {"smile": 1}).images, name


def test_another_model_is_refused(outputs, tmp_path: Path) -> None:
    other = HFGan.from_pretrained(save_toy(tmp_path / "other-16", seed=1, directions=True), dtype="float32")
    for out in outputs.values():
        with pytest.raises(ValueError, match=r"this was drawn by toy-16 \(\w+\), but the loaded model is other-16"):
            other.replay(out.recipes[0])
    deep = HFGan.from_pretrained(save_toy(tmp_path / "deep-32", resolution=32), dtype="float32")
    forged = outputs["of w_plus"].recipes[0] | {"fingerprint": deep.generator.fingerprint()}
    with pytest.raises(ValueError, match=r"the recipe's w_plus has shape \[6, 16\]: this model's is \[8, 16\]"):
        deep.replay(forged)


# ---------------------------------------------------------------- what is damaged


def pack(*shape: int, value: float = 0.5) -> str:
    return base64.b64encode(np.full(shape, value, "<f4").tobytes()).decode()


def png(size: tuple[int, int] = (16, 16), mode: str = "L", kind: str = "PNG") -> str:
    Image.new(mode, size).save(buffer := io.BytesIO(), kind)
    return base64.b64encode(buffer.getvalue()).decode()


NAN = float("nan")
WRONG = (
    None, True, False, 0, -1, 7, 1.5, 1e300, 2**80, NAN, -float("inf"), "", "x", "ä", "\x00", "=" * 9, "A" * 2_000_000,
    [], [None], [[]], ["0"], [-1], [1.0], [99], [True], [2**70], {}, {"x": 1}, {"kind": "edit"},
    pack(1, 16, value=NAN), pack(2, 16), pack(15), pack(0), pack(1, 16)[:-1], pack(1, 16) + "AAAA",
    png((15, 16)), png(mode="RGB"), png(kind="GIF"), png()[:80], png()[:-40], png((4097, 4097)),
)  # fmt: skip
TOLD_ONLY = {"hfgan", "model", "dtype"}  # nothing is drawn from them


def places(recipe: Any, path: tuple = ()) -> Iterator[tuple]:
    """The way to every value of a recipe."""
    below = recipe.items() if isinstance(recipe, dict) else enumerate(recipe) if isinstance(recipe, list) else ()
    for key, value in below:
        yield (*path, key)
        yield from places(value, (*path, key))


def changed(recipe: dict[str, Any], path: tuple, change: Callable[[Any, Any], None]) -> dict[str, Any]:
    """A copy whose value at the end of a path is changed."""
    whole = copy.deepcopy(recipe)
    inside = whole
    for key in path[:-1]:
        inside = inside[key]
    change(inside, path[-1])
    return whole


@pytest.mark.parametrize("name", ["of a sample", "to a value on some layers", "of a photo", "in two regions"])
def test_every_field_that_is_damaged_is_refused_in_a_sentence(gan: HFGan, outputs, name: str) -> None:
    (recipe,) = outputs[name].recipes
    survived = set()
    for path in places(recipe):
        if isinstance(path[-1], str):
            for change in (lambda of, key: of.pop(key), lambda of, key: of.update({f"{key}s": of.pop(key)})):
                refused(gan, changed(recipe, path, change), path)
        for wrong in WRONG:
            one = changed(recipe, path, lambda of, key, wrong=wrong: of.__setitem__(key, wrong))
            if one != recipe and not refused(gan, one, path, wrong):
                survived.add(path[-1])
    # beside these, which have more than one value that can be followed
    assert survived <= TOLD_ONLY | {
        "strength", "to", "layers", "own_layers", "offset", "normal", "name", "region", "edits", "seed", "draw",
        "truncation_psi", "truncation_cutoff", "mode", "mix", 0, 1,
    }  # fmt: skip


def refused(gan: HFGan, recipe: Any, path: tuple, wrong: Any = None) -> bool:
    """Whether a recipe is refused, in one sentence; else it draws a picture."""
    try:
        assert len(gan.replay(recipe)) == 1
    except ValueError as error:
        sentence = str(error)
        assert sentence, (path, wrong)
        assert len(sentence) < 300 + len(repr(wrong)), (path, wrong, sentence)
        assert "\n" not in sentence, (path, wrong, sentence)
        return True
    except Exception as error:
        raise AssertionError(f"{path} as {str(wrong)[:80]!r}: {type(error).__name__}: {error}") from error
    return False


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 2}, "the recipe of an edit has format 2: this version of hfgan follows format 1 only"),
        ({"format": None}, "format None"),
        ({"kind": "else"}, "the recipe has format 1: this version of hfgan follows format 2 only"),
        ({"source": None}, "source or edits are not what they should be: it is damaged"),
        ({"source": {}}, "no recipe of hfgan here"),
        ({"edits": {}}, "source or edits are not what they should be"),
        ({"edits": [1]}, "the recipe's edit lacks"),
        ({"region": "x"}, "the recipe's region cannot be read: it is damaged"),
        ({"region": png((15, 16))}, "the recipe's region is not 16x16 in grey"),
        ({"region": png()}, None),
        ({"more": 1}, "has unknown more"),
    ],
)
def test_what_is_wrong_is_said(gan: HFGan, outputs, change: dict[str, Any], says: str | None) -> None:
    recipe = outputs["of a sample"].recipes[0] | change
    if says is None:
        (again,) = gan.replay(recipe).images
        assert again == gan.replay(recipe).before[0], "a region of nothing"
        return
    with pytest.raises(ValueError, match=says):
        gan.replay(recipe)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"step": pack(2, 16)}, "'smile' has steps for 2 layers: this model has 6"),
        ({"step": pack(15)}, r"the recipe holds no \[-1, 16\] numbers where it should"),
        ({"step": pack(0)}, "step of 'smile' has shape"),
        ({"step": pack(1, 16, value=float("inf"))}, "the recipe holds NaN or infinity"),
        ({"normal": pack(8)}, r"the recipe holds no \[16\] numbers"),
        ({"strength": "1"}, "the strength of 'smile' is '1'"),
        ({"strength": 1e9}, "the strength of 'smile' is 1000000000.0"),
        ({"to": 1}, "layers or a `to` that are not what they should be"),
        ({"to": True, "normal": None}, "nothing measures 'smile'"),
        ({"layers": [6]}, "layers is .*: there are layers 0 to 5"),
        ({"layers": []}, "layers is"),
        ({"own_layers": [6]}, "'smile' moves layer 6: this model has layers 0 to 5"),
        ({"own_layers": "0"}, "layers or a `to`"),
        ({"name": ""}, "the name of a direction has 0 characters"),
        ({"name": "a\nb"}, "is no name of a direction"),
        ({"offset": None}, "offset is None"),
    ],
)
def test_what_is_wrong_with_an_edit_is_said(gan: HFGan, outputs, change: dict[str, Any], says: str) -> None:
    recipe = copy.deepcopy(outputs["of a sample"].recipes[0])
    recipe["edits"][0] |= change
    with pytest.raises(ValueError, match=says):
        gan.replay(recipe)


def test_recipes_in_recipes_have_an_end(gan: HFGan, outputs) -> None:
    (recipe,) = outputs["in a region"].recipes
    for _ in range(editrecipes.MAX_DEPTH + 1):
        recipe = recipe | {"source": recipe}
    with pytest.raises(ValueError, match="source or edits are not what they should be"):
        gan.replay(recipe)


def test_a_picture_of_a_billion_pixels_is_no_region(gan: HFGan, outputs, bomb: bytes, recwarn) -> None:
    recipe = outputs["in a region"].recipes[0] | {"region": base64.b64encode(bomb).decode()}
    with pytest.raises(ValueError, match="the recipe's region"):
        gan.replay(recipe)
    assert not recwarn
