"""`hfgan convert` and `hfgan export`, end to end: an ordinary model folder, or one sentence and nothing written."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stages
import torch
from commands import files, said
from toy import save_toy

from hfgan import HFGan, cli
from hfgan.cards import heritage
from hfgan.converting.exporting import export_weights

LICENCE = ["--license", "cc-by-4.0"]


class Trap:
    """A pickle that leaves a file behind where it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy(tmp_path_factory.mktemp("model") / "toy", num_modes=4)


@pytest.fixture(scope="module")
def gan(model: Path) -> HFGan:
    return HFGan.from_pretrained(model, dtype="float32")


@pytest.fixture(scope="module")
def checkpoint(gan: HFGan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published") / "cats.pt"
    export_weights(gan, path, layout="nvidia")
    return path


def test_a_checkpoint_becomes_an_ordinary_model(
    gan: HFGan, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cats"
    assert cli.main(["convert", str(checkpoint), str(out), *LICENCE, "--source", "https://example.org/cats"]) == 0
    assert capsys.readouterr().out.startswith(f"{out}: 16 x 16, generator; weights {gan.generator.fingerprint()}")
    assert files(out) == [
        "README.md",
        "generator/config.json",
        "generator/diffusion_pytorch_model.safetensors",
        "model_index.json",
    ]
    found = HFGan.from_pretrained(out, dtype="float32")
    pictures, expected = (np.stack(one.sample(2, seed=3).images) for one in (found, gan))
    assert (pictures == expected).all()
    card = (out / "README.md").read_text()
    for told in ("license: cc-by-4.0", "# cats", "| source | https://example.org/cats |", "| file | cats.pt, "):
        assert told in card
    assert cli.main(["info", str(out)]) == 0
    assert "cc-by-4.0" in capsys.readouterr().out


def test_licence_and_origin_go_wherever_the_weights_go(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "cats"
    assert cli.main(["convert", str(checkpoint), str(out), "--license", "Cats Research Licence"]) == 0
    front = 'license: other\nlicense_name: "Cats Research Licence"\n'
    origin = heritage(out / "README.md").origin
    assert "| licence | Cats Research Licence |" in origin
    assert "| file | cats.pt, " in origin
    HFGan.from_pretrained(out).save_pretrained(tmp_path / "again")
    flags = ["--samples", "300", "--num-modes", "3"]
    stages.do("modes", "--model", str(out), "--out", str(tmp_path / "modes"), *flags)
    for copy in (tmp_path / "again", tmp_path / "modes" / "model"):
        text = (copy / "README.md").read_text()
        assert front in text
        assert text.endswith(origin)
        assert heritage(copy / "README.md") == heritage(out / "README.md")


def test_parts_come_from_files_of_their_own(gan: HFGan, checkpoint: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "centers.npy", gan.modes.centers.numpy())
    np.save(tmp_path / "age.npy", np.ones((1, 16), np.float32))
    torch.save({"state": {"G.w_centers": gan.modes.centers}}, tmp_path / "centers.ckpt")
    for centers in ("centers.npy", "centers.ckpt"):
        out = tmp_path / f"with {centers}"
        given = ["--centers", str(tmp_path / centers), "--directions", str(tmp_path / "age.npy")]
        assert cli.main(["convert", str(checkpoint), str(out), *LICENCE, *given, "--fp16"]) == 0
        found = HFGan.from_pretrained(out)
        assert sorted(found.modes.centers.tolist()) == sorted(gan.modes.centers.half().float().tolist())
        assert found.modes.counts.sum() == 60_000
        assert list(found.directions.names) == ["age"]
        assert "counted anew, over 60,000 with seed 0" in (out / "README.md").read_text()


def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], file: Path, *flags: str) -> str:
    """What `hfgan convert` says, having written nothing."""
    out = tmp_path / "out"
    assert cli.main(["convert", str(file), str(out), *flags]) == 1
    assert not out.exists()
    return said(capsys)


def test_what_cannot_be_is_one_sentence(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = refused(tmp_path, capsys, checkpoint)
    assert "under which licence cats.pt was published: say it with --license" in told
    assert "no.pkl does not exist" in refused(tmp_path, capsys, tmp_path / "no.pkl", *LICENCE)
    trap = tmp_path / "trap.pkl"
    trap.write_bytes(pickle.dumps({"G_ema": Trap(tmp_path / "sprung")}))
    told = refused(tmp_path, capsys, trap, *LICENCE)
    assert "trap.pkl names 'posix.mkdir': it is not read further, and nothing of it was run" in told
    assert not (tmp_path / "sprung").exists()
    other = tmp_path / "other.pt"
    torch.save({"model": {}, "epoch": 3}, other)
    assert "other.pt holds 'model', 'epoch': expected a checkpoint of StyleGAN2" in refused(
        tmp_path, capsys, other, *LICENCE
    )
    for flag, says in (("--encoder", "holds no encoder"), ("--alpha", "holds no alpha network of Labels4Free")):
        assert f"cats.pt {says}" in refused(tmp_path, capsys, checkpoint, *LICENCE, flag, str(checkpoint))
    damaged = torch.load(checkpoint, weights_only=True)
    del damaged["G_ema"]["synthesis.b8.conv0.bias"]
    damaged["G_ema"]["synthesis.b8.conv1.bias"] = torch.zeros(3)
    torch.save(damaged, other)
    told = refused(tmp_path, capsys, other, *LICENCE)
    assert "missing: synthesis.blocks.1.conv0.bias; misshapen: synthesis.blocks.1.conv1.bias [3] instead of" in told

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    assert cli.main(["convert", str(checkpoint), str(tmp_path / "full"), *LICENCE]) == 1
    assert "full exists already: name a new folder" in said(capsys)
    assert files(tmp_path / "full") == ["mine.txt"]


def test_the_licence_is_asked_for(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: "mit" if "licence" in question else "")
    assert cli.main(["convert", str(checkpoint), str(tmp_path / "cats")]) == 0
    assert "license: mit\n" in (tmp_path / "cats" / "README.md").read_text()


def test_generators_are_exported(model: Path, gan: HFGan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("mine.pt", "mine.safetensors"):
        out = tmp_path / name
        line = ["export", "generator", "--layout", "nvidia", "--model", str(model), "--out", str(out)]
        assert cli.main(line) == 0
        assert capsys.readouterr().out.strip() == str(out)
        assert cli.main(line) == 1
        assert "exists" in said(capsys)
        assert cli.main(["convert", str(out), str(tmp_path / f"{name} again"), *LICENCE]) == 0
        again = HFGan.from_pretrained(tmp_path / f"{name} again").generator
        for key, tensor in gan.generator.state_dict().items():
            assert torch.equal(again.state_dict()[key], tensor), key
        capsys.readouterr()
    rosinality = [
        "export",
        "generator",
        "--layout",
        "rosinality",
        "--model",
        str(model),
        "--out",
        str(tmp_path / "r.pt"),
    ]
    assert cli.main(rosinality) == 1
    assert "rosinality's code has multiples of 16384 up to 512" in said(capsys)
    for flags in (["--out", "x.onnx", "--layout", "nvidia"], []):
        with pytest.raises(SystemExit):
            cli.main(["export", "generator", *flags])
        assert said(capsys).startswith("hfgan export: ")
