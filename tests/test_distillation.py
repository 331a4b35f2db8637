"""The stage `perceptual`: the pairs it draws, where a student starts, exact resume, what it publishes."""

from __future__ import annotations

import importlib
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from hfgan.models.perceptual import MobileNetV2, PerceptualNet, load_perceptual

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def modules() -> Iterator[Callable[[str], ModuleType]]:
    """modules(name): a script of training/, which its siblings import by its bare name."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "training")
        yield importlib.import_module
    for number, handler in handlers.items():  # a run stops at signals
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two folders of eight pictures: dark ones and light ones."""
    root, source = tmp_path_factory.mktemp("sets"), torch.Generator().manual_seed(0)
    for name, low in (("dark", 0), ("light", 156)):
        (root / name).mkdir()
        for i in range(8):
            coarse = torch.randint(low, low + 100, (6, 6, 3), generator=source, dtype=torch.uint8).numpy()
            big = Image.fromarray(coarse).resize((128, 128), Image.Resampling.BILINEAR)
            big.save(root / name / f"{i}.png")
    return [str(root / "dark"), str(root / "light")]


@pytest.fixture(scope="module")
def distil(
    tmp_path_factory: pytest.TempPathFactory, modules: Callable[[str], ModuleType], sets: list[str]
) -> Callable[..., Path]:
    """distil(out, *flags): run the stage on the two sets with a random teacher."""
    root = tmp_path_factory.mktemp("distil")
    torch.manual_seed(0)
    PerceptualNet(widths=(16, 16, 16, 16, 16)).save_pretrained(root / "teacher")

    def run(out: str, *flags: str) -> Path:
        command = ["perceptual", "--teacher", str(root / "teacher"), "--data", *sets, "--test", *sets]
        command += ["--out", str(root / out), "--pairs", "48", "--batch-size", "8", "--per-kind", "8"]
        assert modules("train").main([*command, "--widths", "8", "8", "8", "8", "8", *flags]) == 0
        return root / out

    return run


def test_a_run_goes_on_exactly_and_publishes(distil: Callable[..., Path]) -> None:
    whole = distil("whole")
    stopped = distil("stopped", "--checkpoint-every", "16")
    shutil.rmtree(stopped / "checkpoint-000000000048")  # as if killed after the one before
    distil("stopped", "--checkpoint-every", "16")
    name = "model/diffusion_pytorch_model.safetensors"
    assert (whole / name).read_bytes() == (stopped / name).read_bytes()
    assert [json.loads(line)["images_seen"] for line in (stopped / "log.jsonl").open()] == [16, 32, 48]
    measured = json.loads((whole / "model" / "metrics.json").read_text())
    assert set(measured["spearman"]["64 px"]) > {"within", "across", "blur", "occlusion", "all"}
    assert load_perceptual(whole / "model").config.widths == [8, 8, 8, 8, 8]


def test_a_teacher_that_is_no_lpips_is_refused(
    distil: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = {"features." + k.removeprefix("blocks."): v for k, v in MobileNetV2().state_dict().items()}
    save_file(weights, tmp_path / "m.safetensors")
    with pytest.raises(AssertionError):
        distil("refused", "--teacher", str(tmp_path / "m.safetensors"))
    assert "is a MobileNetV2: give weights of LPIPS-Alex" in capsys.readouterr().err


def test_pairs_differ_as_their_kind_says(modules: Callable[[str], ModuleType], sets: list[str]) -> None:
    stage, source = modules("perceptual"), modules("run").random_source
    photos = stage.Photos(sets, limit=8)
    for i, kind in enumerate(stage.KINDS):
        a, b = photos.pairs(kind, 12, 64, source(i))
        assert a.shape == b.shape == (12, 3, 64, 64)
        assert max(a.abs().max(), b.abs().max()) <= 1
        assert (a - b).abs().mean() > 0.005, kind
        again = photos.pairs(kind, 12, 64, source(i))
        assert torch.equal(b, again[1]), kind
        same_set = (a.mean((1, 2, 3)) > 0) == (b.mean((1, 2, 3)) > 0)
        if kind == "across":
            assert not same_set.any()
        elif kind in ("blur", "shift", "warp", "jpeg", "pixelate"):  # the rest may change the brightness
            assert same_set.all(), kind


def test_distortions_grow_with_their_strength(modules: Callable[[str], ModuleType], sets: list[str]) -> None:
    stage, source = modules("perceptual"), modules("run").random_source
    photos = stage.Photos(sets, limit=8)
    a, others = (photos.draw(torch.tensor([0, 1] * 8), 64, source(n)) for n in (1, 2))
    for name, distortion in stage.DISTORTIONS.items():
        weak, strong = (
            (distortion(a, others, torch.full((16, 1, 1, 1), s), source(3)) - a).square().mean() for s in (0.1, 0.9)
        )
        assert 0 < weak < strong, name


def test_a_student_of_full_width_starts_as_the_teacher(modules: Callable[[str], ModuleType]) -> None:
    stage = modules("perceptual")
    teacher = PerceptualNet(widths=(12, 10, 8, 8, 8))
    a, b = torch.rand(2, 4, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    same = stage.narrowed(teacher, (12, 10, 8, 8, 8), a, b)
    assert stage.distillation_loss(same, teacher, a, b).item() == pytest.approx(0, abs=1e-6)
    narrow = stage.narrowed(teacher, (6, 6, 6, 6, 6), a, b)
    before = stage.distillation_loss(narrow, teacher, a, b)
    optimizer = torch.optim.Adam(narrow.parameters(), 1e-3)
    for _ in range(30):
        optimizer.zero_grad()
        stage.distillation_loss(narrow, teacher, a, b).backward()
        optimizer.step()
    assert stage.distillation_loss(narrow, teacher, a, b) < 0.7 * before
