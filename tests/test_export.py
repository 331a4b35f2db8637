"""The matting network as ONNX: the same alpha at any size, a file that says what it is, one sentence for a failure."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from test_cli import error_of
from toy import save_toy

from hfgan import HFGan, MattingNetwork, cli
from hfgan.export import export_matting


@pytest.fixture(scope="module")
def net() -> MattingNetwork:
    torch.manual_seed(0)
    net = MattingNetwork(resolution=24, widths=(8, 16, 24)).eval()
    net.out.weight.data.mul_(20)  # an alpha that uses its range
    return net


@pytest.fixture(scope="module")
def file(net: MattingNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "matting.onnx"
    export_matting(net, path, name="me/my-gan")
    return path


def run(path: Path, image: torch.Tensor) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (alpha,) = session.run(["alpha"], {"image": image.numpy()})
    return alpha


@pytest.mark.parametrize("shape", [(1, 3, 24, 32), (3, 3, 60, 4), (2, 3, 40, 40)])
def test_onnx_and_torch_agree_at_any_size(net: MattingNetwork, file: Path, shape: tuple[int, ...]) -> None:
    image = torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        expected = net(image).sigmoid().numpy()
    found = run(file, image)
    assert found.shape == expected.shape == (shape[0], 1, *shape[2:])
    assert abs(found - expected).max() < 1e-4
    assert np.ptp(expected) > 0.3


def test_the_file_tells_what_it_is(net: MattingNetwork, file: Path) -> None:
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    said = {entry.key: entry.value for entry in model.metadata_props}
    wanted = {"model": "me/my-gan", "fingerprint": net.fingerprint(), "resolution": "24", "multiple": "4"}
    assert said == wanted
    ((name, shape),) = ((one.name, one.type.tensor_type.shape.dim) for one in model.graph.input)
    assert (name, shape[1].dim_value) == ("image", 3)
    assert all(shape[axis].dim_param for axis in (0, 2, 3))
    assert [one.name for one in model.graph.output] == ["alpha"]
    assert "multiples of 4" in model.doc_string
    assert b".py" not in file.read_bytes(), "no paths of the machine that wrote it"


def test_bytes_depend_on_the_network_alone(net: MattingNetwork, file: Path, tmp_path: Path, capfd) -> None:
    export_matting(net, tmp_path / "again.onnx", name="me/my-gan")
    assert (tmp_path / "again.onnx").read_bytes() == file.read_bytes()
    said = capfd.readouterr()
    assert said.out + said.err == ""
    assert net.out.weight.requires_grad


def test_what_cannot_be_written_is_said(net: MattingNetwork, file: Path, tmp_path: Path, monkeypatch) -> None:
    before = file.read_bytes()
    with pytest.raises(FileExistsError, match="exists already"):
        export_matting(net, file)
    with pytest.raises(ValueError, match=r"does not end in \.onnx"):
        export_matting(net, tmp_path / "matting.pt")
    with pytest.raises(FileNotFoundError, match="no folder"):
        export_matting(net, tmp_path / "new" / "matting.onnx")
    assert file.read_bytes() == before
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "onnxscript" else find(name))
    with pytest.raises(ModuleNotFoundError, match="needs onnxscript: pip install onnx onnxscript"):
        export_matting(net, tmp_path / "matting.onnx")
    assert not any(tmp_path.iterdir())


def test_command(tmp_path: Path, monkeypatch, capsys) -> None:
    toy = save_toy(tmp_path / "toy-16", alpha=True)
    out = tmp_path / "new" / "toy.onnx"
    command = ["export", "matting", "--model", str(toy), "--out", str(out)]
    assert cli.main(command) == 0
    assert capsys.readouterr().out == f"{out}\n"
    net = HFGan.from_pretrained(toy).matting
    said = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    assert (said["model"], said["fingerprint"]) == ("toy-16", net.fingerprint())
    assert cli.main(command) == 1
    assert "pass --overwrite" in error_of(capsys)
    plain = [
        "export",
        "matting",
        "--model",
        str(save_toy(tmp_path / "plain")),
        "--out",
        str(tmp_path / "b" / "c.onnx"),
    ]
    assert cli.main(plain) == 1
    assert "this model has no matting" in error_of(capsys)
    assert not (tmp_path / "b").exists()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    assert cli.main([*command, "--overwrite"]) == 1
    assert "pip install onnx onnxscript" in error_of(capsys)
    with pytest.raises(SystemExit):
        cli.main(["export", "matting", "--out", "matting.pt"])
    assert "does not end in .onnx" in error_of(capsys)
