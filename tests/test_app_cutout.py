"""The app's cut-outs: the public endpoints, and that what follows a cut-out runs no network and keeps every pixel."""

from __future__ import annotations

import io
import re
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from toy import save_toy

from hfgan import HFGan, app, images
from hfgan.app import cutout, cutter, gpu
from hfgan.app.studio import Studio
from hfgan.segmentation import KINDS

SOFT = (0, 0, False, False)  # as the network left it
NOTHING = ("transparent", "#000000", None, None)  # behind it
MODES = {"rgba": "RGBA", "mask": "L", "alpha16": "I;16", "trimap": "L", "overlay": "RGB", "composite": "RGB"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HFGan]:
    """A model that cuts out, one that does so to its own pictures, one to photos, and one that does not."""
    folder = tmp_path_factory.mktemp("models")
    toy, plain = save_toy(folder / "both", alpha=True), save_toy(folder / "plain", seed=1)
    gan, other = (HFGan.from_pretrained(path, dtype="float32") for path in (toy, plain))
    return {"both": gan, "plain": other, "own": HFGan(generator=gan.generator, alpha=gan.alpha),
            "photos": HFGan(generator=gan.generator, matting=gan.matting)}  # fmt: skip


@pytest.fixture(scope="module")
def gan(models) -> HFGan:
    return models["both"]


@pytest.fixture(scope="module")
def verbs(models, cache) -> cutter.Cutter:
    return cutter.Cutter(Studio(models))


@pytest.fixture
def upload(cache: Path, tmp_path: Path, photo) -> Callable[..., str]:
    """upload("me.jpg", width, height, ...) -> a photo in Gradio's folder, as Gradio has put it there."""

    def put(name: str = "me.png", *size: int, **options: object) -> str:
        folder = cache / tmp_path.name / str(len(list(cache.rglob("*"))))
        folder.mkdir(parents=True)
        photo(*size).save(folder / name, **options)
        return str(folder / name)

    return put


def pixels(source: str | Path | bytes | Image.Image) -> np.ndarray:
    source = io.BytesIO(source) if isinstance(source, bytes) else source
    return np.asarray(source if isinstance(source, Image.Image) else Image.open(source)).astype(int)


def as_python(gan: HFGan, source: object, folder: Path, kind: str = "rgba", **finish: object) -> bytes:
    """What the facade writes."""
    gan.cutout(source).finish(**finish).save(folder / "facade.png", kind, overwrite=True)
    return (folder / "facade.png").read_bytes()


def refused(user: Client, *arguments: object, name: str) -> str:
    """The sentence with which a request is refused: no path, no insides."""
    with pytest.raises(AppError) as error:
        user.predict(*arguments, api_name=name)
    assert not re.search(r"/\w+/|Traceback|\.py", str(error.value))
    return str(error.value)


# ---------------------------------------------------------------- public endpoints


@pytest.mark.parametrize(
    ("name", "mode", "turn"), [("flower.png", "RGB", 1), ("grey and clear.png", "LA", 1), ("phone.jpg", "RGB", 6)]
)
def test_a_photo_becomes_the_bytes_that_python_writes(user, gan, photo, tmp_path, name, mode, turn) -> None:
    path, exif = tmp_path / name, Image.Exif()
    exif[images.ORIENTATION] = turn
    photo(40, 56).convert(mode).save(path, exif=exif)
    rgba, alpha = (Path(file) for file in user.predict("both", handle_file(path), api_name="/cutout"))
    assert rgba.read_bytes() == as_python(gan, path, tmp_path)
    assert alpha.read_bytes() == as_python(gan, path, tmp_path, "alpha16")
    assert Image.open(rgba).size == ((56, 40) if turn == 6 else (40, 56))
    stem = name.rpartition(".")[0]
    assert [file.name for file in (rgba, alpha)] == [f"{stem}-cutout.png", f"{stem}-alpha16.png"]


def test_a_sample_is_drawn_again_and_cut_out(user: Client, gan: HFGan, tmp_path: Path) -> None:
    out = gan.sample(seed=42)
    rgba, alpha = (Path(file) for file in user.predict("both", out.recipes[0], api_name="/cutout_sample"))
    assert rgba.read_bytes() == as_python(gan, out, tmp_path)
    assert alpha.read_bytes() == as_python(gan, out, tmp_path, "alpha16")
    assert images.read_recipe(rgba) == out.recipes[0]
    assert [file.name for file in (rgba, alpha)] == ["seed0042-cutout.png", "seed0042-alpha16.png"]


def test_several_photos_become_a_zip(user: Client, gan: HFGan, photo, tmp_path: Path) -> None:
    for seed, name in enumerate(("one.png", "two.jpg")):
        photo(40, 32, seed=seed).save(tmp_path / name)
    files = [handle_file(tmp_path / name) for name in ("one.png", "two.jpg", "one.png")]
    with zipfile.ZipFile(user.predict("both", files, api_name="/cutout_batch")) as packed:
        assert len(packed.namelist()) == 3
        assert packed.read("one.png") == as_python(gan, tmp_path / "one.png", tmp_path)
        assert packed.read("two.png") == as_python(gan, tmp_path / "two.jpg", tmp_path)
    how = {"threshold": 0.4, "feather": 1.5, "largest": True, "invert": True}
    kinds = ["mask", "trimap"]
    with zipfile.ZipFile(user.predict("both", files[:2], kinds, *how.values(), api_name="/cutout_batch")) as packed:
        assert sorted(packed.namelist()) == ["mask/one.png", "mask/two.png", "trimap/one.png", "trimap/two.png"]
        for kind in kinds:
            wanted = as_python(gan, tmp_path / "two.jpg", tmp_path, kind, **how)
            assert packed.read(f"{kind}/two.png") == wanted


def test_a_batch_tells_how_far_it_is_and_ends_when_nobody_waits(
    user: Client, gan: HFGan, photo, tmp_path: Path, monkeypatch
) -> None:
    photo(40, 32).save(tmp_path / "one.png")
    files, seen, told, go, run = [handle_file(tmp_path / "one.png")] * 20, [], [], Event(), gan.matting.forward

    def slowly(*given: Any) -> Any:
        seen.append(1)
        if len(seen) == 3:
            go.wait(60)
        return run(*given)

    monkeypatch.setattr(gan.matting, "forward", slowly)
    job = user.submit("both", files, api_name="/cutout_batch")
    while not told or told[-1].index < 2:
        told += job.status().progress_data or []
        time.sleep(0.02)
    assert (told[-1].index, told[-1].length, told[-1].unit) == (2, 20, "photos")
    assert re.fullmatch(r"about \d+ s left", told[-1].desc)
    job.cancel()
    go.set()
    user.predict("both", files[:1], api_name="/cutout_batch")
    assert len(seen) < 8, "the others were not cut out"


def test_what_cannot_be_cut_out_is_said(user: Client, photo, tmp_path: Path, monkeypatch) -> None:
    photo().save(tmp_path / "photo.png")
    photo(90, 10).save(tmp_path / "strip.png")
    (tmp_path / "text.png").write_text("I am no picture")
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0damaged")
    file = {path.name: handle_file(path) for path in tmp_path.glob("*.*g")}
    (recipe,) = user.predict("both", 1, 0, 0.7, 0, "const", 0, api_name="/sample")[1]
    assert "text.png: not a picture" in refused(user, "both", file["text.png"], name="/cutout")
    assert "cut.jpg: " in refused(user, "both", file["cut.jpg"], name="/cutout")
    assert "crop it first" in refused(user, "both", file["strip.png"], name="/cutout")
    assert "no photo: drop one first" in refused(user, "both", None, name="/cutout")
    assert "no photos: choose one or more" in refused(user, "both", [], name="/cutout_batch")
    assert "no kinds" in refused(user, "both", [file["photo.png"]], [], name="/cutout_batch")
    assert "icon" in refused(user, "both", [file["photo.png"]], ["icon"], name="/cutout_batch")
    assert "21" in refused(user, "both", [file["photo.png"]], ["rgba"], 0, 21, name="/cutout_batch")
    assert "text.png: not" in refused(user, "both", [file["photo.png"], file["text.png"]], name="/cutout_batch")
    for model in ("plain", "own"):
        assert "a model with a matting network" in refused(user, model, file["photo.png"], name="/cutout")
    for model in ("plain", "photos"):
        assert "cannot cut out its pictures" in refused(user, model, recipe, name="/cutout_sample")
    assert "seed is 'x'" in refused(user, "both", recipe | {"seed": "x"}, name="/cutout_sample")
    assert "A is missing" in refused(user, "both", None, name="/cutout_sample")
    monkeypatch.setattr(cutter, "MAX_BATCH_PIXELS", 3000)
    assert "megapixels together" in refused(user, "both", [file["photo.png"]] * 2, name="/cutout_batch")
    monkeypatch.setattr(cutter, "MAX_PIXELS", 1000)
    assert "make it smaller" in refused(user, "both", file["photo.png"], name="/cutout")


@pytest.mark.parametrize("mark", [{}, {"meta": {"_type": "gradio.FileData"}}])
def test_no_other_file_of_the_server_is_cut_out(user: Client, address: str, upload, tmp_path: Path, mark) -> None:
    events = {event["api_name"]: event["id"] for event in user.config["dependencies"]}
    other = shutil.copy(upload(), tmp_path / "private.png")
    file = {"path": str(other), **mark}
    for name, data in (("cutout", ["both", file]), ("cutout_batch", ["both", [file], ["rgba"], *SOFT])):
        body = {"data": data, "fn_index": events[name], "session_hash": "me"}
        reply = httpx.post(f"{address}gradio_api/run/predict", json=body)
        assert reply.status_code == 500
        assert "private" not in reply.text


# ---------------------------------------------------------------- what the page does with what was kept


def test_after_the_cut_no_network_runs_again(verbs, gan: HFGan, upload, monkeypatch) -> None:
    calls = []
    for part in (gan.matting, gan.alpha, gan.generator.synthesis, gan.generator.mapping):
        monkeypatch.setattr(part, "forward", lambda *a, _run=part.forward, **k: calls.append(1) or _run(*a, **k))
    kept, _ = verbs.keep_photo("both", upload("me.png", 60, 44))
    assert len(calls) == 1
    seen = set()
    for how in (SOFT, (0.5, 0, False, False), (0, 3, False, False), (0.5, 0, True, False), (0, 0, False, True)):
        alpha = verbs.show(kept, *how, *NOTHING)[1]
        seen.add(Path(alpha).read_bytes())
        for kind in KINDS:
            verbs.export(kind, kept, *how, *NOTHING)
    assert len(seen) >= 4
    verbs.interest(kept, *SOFT, *NOTHING)
    assert len(calls) == 1


def test_a_small_picture_is_shown_exactly(verbs, gan: HFGan, upload) -> None:
    path = upload("me.png", 60, 44)
    kept, files = verbs.keep_photo("both", path)
    wanted = gan.cutout(path).finish(threshold=0.3, feather=2, invert=True)
    after, alpha, (before, slid) = verbs.show(kept, 0.3, 2, False, True, *NOTHING)
    seen, mask = pixels(wanted.rgba()), pixels(wanted.mask())
    assert (pixels(after)[mask > 0] == seen[mask > 0]).all()
    assert (pixels(alpha)[..., 0] == mask).all()
    assert (pixels(before) == pixels(path)).all()
    assert set(pixels(slid)[mask == 0].flatten()) <= {0x99, 0xDD}
    assert all(Path(file).exists() for file in files)


def test_a_large_photo_is_shown_small_and_saved_large(verbs, gan: HFGan, upload, tmp_path: Path) -> None:
    path = upload("me.jpg", 700, 300)
    kept, _ = verbs.keep_photo("both", path)
    assert [Image.open(file).size for file in verbs.show(kept, *SOFT, *NOTHING)[:2]] == [(512, 219)] * 2
    assert Path(verbs.export("rgba", kept, *SOFT, *NOTHING)).read_bytes() == as_python(gan, path, tmp_path)
    full, small = verbs.export("mask", kept, 0, 12, *SOFT[2:], *NOTHING), verbs.show(kept, 0, 12, *SOFT[2:], *NOTHING)
    shrunk = pixels(Image.open(full).resize((512, 219)))
    assert abs(shrunk - pixels(small[1])[..., 0]).mean() < 3, "feather is in pixels of the photo"


def test_every_file_has_its_name_mode_and_size(verbs, gan: HFGan, upload, tmp_path: Path) -> None:
    path, recipe = upload("me at home.webp", 60, 44), gan.sample(seed=7).recipes[0]
    for kept, stem, size in ((verbs.keep_photo("both", path)[0], "me at home", (60, 44)),
                             (verbs.keep_sample("both", recipe)[0], "seed0007", (16, 16))):  # fmt: skip
        for kind, mode in MODES.items():
            file = Path(verbs.export(kind, kept, *SOFT, "color", "#102030", None, None))
            opened = Image.open(file)
            assert (opened.format, opened.mode, opened.size) == ("PNG", mode, size)
            assert file.name == f"{stem}{cutter.EXPORTS[kind]}.png"
            assert ("hfgan" in opened.info) == (stem == "seed0007")


def test_what_is_behind(verbs, gan: HFGan, upload) -> None:
    path, behind = upload("me.png", 60, 44), upload("sea.jpg", 90, 70)
    kept, _ = verbs.keep_photo("both", path)
    drawn = verbs.background(("both", 5))
    assert (pixels(drawn) == pixels(gan.background(gan.sample(seed=5))[0])).all()
    cut = gan.cutout(path).finish(threshold=0.5)
    for how, wanted in (
        (("color", "#ff8800", None, None), "#ff8800"),
        (("picture", "", behind, None), Image.open(behind)),
        (("blur", "", None, None), "blur"),
        (("generated", "", None, drawn), drawn),
    ):
        file = verbs.export("composite", kept, 0.5, *SOFT[1:], *how)
        assert (pixels(file) == pixels(cut.on(wanted))).all()
        after, _, (_, slid) = verbs.show(kept, 0.5, *SOFT[1:], *how)
        assert (pixels(after) == pixels(file)).all()
        assert after == slid


def test_a_model_with_classes_draws_a_background(tmp_path: Path) -> None:
    gan = HFGan.from_pretrained(save_toy(tmp_path / "c", c_dim=2, alpha=True), dtype="float32")
    assert cutter.Cutter(Studio({"c": gan})).background(("c", 1)).size == (16, 16)


def test_alpha_is_kept_as_region_of_interest(verbs, gan: HFGan, upload) -> None:
    path = upload("me.png", 60, 44)
    kept, _ = verbs.keep_photo("both", path)
    file, said = verbs.interest(kept, 0.5, *SOFT[1:], *NOTHING)
    mask = gan.cutout(path).finish(threshold=0.5).alpha
    assert (pixels(file) == 65535 * mask.numpy()).all()
    assert said == f"Kept on this page: 60 × 44 px, {100 * mask.mean().item():.0f} % of the picture"


def test_what_is_missing_is_said(verbs, upload, tmp_path: Path) -> None:
    kept, _ = verbs.keep_photo("both", upload())
    for shown in (verbs.show(None, *SOFT, *NOTHING), verbs.turn(kept, *SOFT, "generated", "", None, None)):
        assert shown == app.gr.skip(), "nothing changes"
    for verb in (lambda: verbs.export("rgba", None, *SOFT, *NOTHING), lambda: verbs.interest(None, *SOFT, *NOTHING)):
        with pytest.raises(app.gr.Error, match="nothing is cut out yet: press Cut out first"):
            verb()
    for kind, said in (("transparent", "choose one first"), ("picture", "upload one"), ("generated", "a seed")):
        assert verbs.show(kept, *SOFT, kind, "#000000", None, None)
        with pytest.raises(app.gr.Error, match=said):
            verbs.export("composite", kept, *SOFT, kind, "#000000", None, None)
    with pytest.raises(app.gr.Error, match="the colour is"):
        verbs.show(kept, *SOFT, "color", "mud", None, None)
    (tmp_path / "text.png").write_text("I am no picture")
    bad = shutil.copy(tmp_path / "text.png", Path(upload()).parent)
    with pytest.raises(app.gr.Error, match=r"text\.png: not a picture"):
        verbs.show(kept, *SOFT, "picture", "", bad, None)
    Path(kept.alpha).unlink()
    with pytest.raises(app.gr.Error, match="cut it out again"):
        verbs.export("rgba", kept, *SOFT, *NOTHING)


# ---------------------------------------------------------------- what is offered


def test_a_model_offers_what_it_can(models) -> None:
    studio = Studio(models)
    offered = {name: [value for _, value in cutout.sources(studio, name)] for name in models}
    assert offered == {"both": ["sample", "photo", "photos"], "own": ["sample"], "photos": ["photo", "photos"],
                       "plain": []}  # fmt: skip
    assert [name for name in models if cutout.able(studio, name)] == ["both", "own", "photos"]
    drawn = [name for name in models if ("Generated", "generated") in cutout.backgrounds(studio, name)]
    assert drawn == ["both", "own"]
    assert list(cutter.EXPORTS) == [*KINDS, "composite"]


def test_on_zerogpu_networks_ask_for_the_gpu_and_files_do_not(models, monkeypatch) -> None:
    asked = []
    lend = SimpleNamespace(GPU=lambda duration: lambda verb: asked.append(verb.__name__) or verb)
    monkeypatch.setattr(gpu, "spaces", lend)
    app.build(models)
    assert {"cutout", "cutout_sample", "cutout_batch", "keep_photo", "keep_sample", "background"} <= set(asked)
    assert not {"show", "export", "interest"} & set(asked)
