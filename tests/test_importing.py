"""Directions from files: every form that is passed around comes out in one unit, and no file runs code."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from hfgan import Direction, DirectionSet, HFGan, StyleGAN2Generator, WStats
from hfgan.finding import pca
from hfgan.importing import read_directions, write_directions

VECTOR = torch.randn(16, generator=torch.Generator().manual_seed(5))
LAYERS = torch.randn(6, 16, generator=torch.Generator().manual_seed(6))


def make_generator(seed: int = 0) -> StyleGAN2Generator:
    torch.manual_seed(seed)
    sizes = {"z_dim": 16, "w_dim": 16, "mapping_layers": 1, "channel_base": 256, "channel_max": 16}
    return StyleGAN2Generator(resolution=16, **sizes)


@pytest.fixture(scope="module")
def generator() -> StyleGAN2Generator:
    return make_generator()


@pytest.fixture(scope="module")
def stats(generator: StyleGAN2Generator) -> WStats:
    return WStats.of(generator)


def npy(path: Path, array: Tensor) -> Path:
    np.save(path / "age.npy", array.numpy())
    return path / "age.npy"


def pt(path: Path, content: Any) -> Path:
    torch.save(content, path / "age.pt")
    return path / "age.pt"


# ---------------------------------------------------------------- other people's


UNIT = VECTOR / VECTOR.norm()
SHARED: dict[str, Callable[[Path], Path]] = {
    "boundary of InterFaceGAN": lambda p: npy(p, UNIT[None].double()),
    "one axis": lambda p: npy(p, VECTOR),
    "any length": lambda p: npy(p, VECTOR * 300),
    "a row for each of 18 layers": lambda p: npy(p, UNIT.expand(18, 16)),
    "with an axis before": lambda p: npy(p, UNIT.expand(1, 18, 16)),
    "tensor of encoder4editing": lambda p: pt(p, UNIT[None]),
    "its pose, of norm 4.2": lambda p: pt(p, UNIT.repeat(18, 1)[None]),
    "half precision": lambda p: pt(p, VECTOR.half()),
}


@pytest.mark.parametrize("form", SHARED)
def test_one_unit_whatever_the_norm(generator: StyleGAN2Generator, stats: WStats, tmp_path: Path, form: str) -> None:
    (one,) = read_directions(SHARED[form](tmp_path), generator)
    sigma = (UNIT.double() @ stats.cov @ UNIT.double()).sqrt()
    assert one.shared
    assert torch.allclose(one.step[0], UNIT * sigma, atol=2e-3 if form == "half precision" else 1e-5)
    assert (one.step[0] @ one.normal).item() == pytest.approx(1, abs=1e-5)
    assert one.coordinate(stats.mean[None].float()).item() == pytest.approx(0, abs=1e-4)
    assert (one.name, one.kind, one.fingerprint) == ("age", "imported", generator.fingerprint())
    assert one.source["method"] == "imported"
    assert one.source["file"].startswith("age.")


@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_a_row_for_each_layer_keeps_their_proportions(
    generator: StyleGAN2Generator, stats: WStats, tmp_path: Path, scale: float
) -> None:
    (one,) = read_directions(npy(tmp_path, LAYERS[None] * scale), generator, name="pose")
    assert one.name == "pose"
    assert one.normal is None
    assert torch.allclose(one.step / one.step.norm(), LAYERS / LAYERS.norm(), atol=1e-5)
    unit = (LAYERS / LAYERS.square().sum(1).mean().sqrt()).double()
    sigma = torch.einsum("ld,de,le->l", unit, stats.cov, unit).mean().sqrt()
    assert torch.allclose(one.step, (unit * sigma).float(), atol=1e-5)


def test_what_rows_are_can_be_said(generator: StyleGAN2Generator, tmp_path: Path) -> None:
    equal = npy(tmp_path, UNIT.repeat(6, 1))
    assert read_directions(equal, generator)[0].shared
    (apart,) = read_directions(equal, generator, rows="per-layer")
    assert apart.step.shape == (6, 16)
    assert torch.allclose(apart.step[0], read_directions(equal, generator, rows="shared")[0].step[0], atol=1e-5)
    with pytest.raises(ValueError, match="has 6 rows that differ: rows='shared' is for one that is repeated"):
        read_directions(npy(tmp_path, LAYERS), generator, rows="shared")
    with pytest.raises(ValueError, match="has 1 rows, one for each layer: this model has 6 layers"):
        read_directions(npy(tmp_path, UNIT), generator, rows="per-layer")


def test_a_deviation_can_be_given(generator: StyleGAN2Generator, tmp_path: Path) -> None:
    (one,) = read_directions(npy(tmp_path, VECTOR), generator, sigma=2.5)
    assert torch.allclose(one.step[0], UNIT * 2.5, atol=1e-5)
    (apart,) = read_directions(npy(tmp_path, LAYERS), generator, sigma=2.5)
    assert apart.step.square().sum(1).mean().sqrt().item() == pytest.approx(2.5)


def ganspace(path: Path, **changes: Any) -> Path:
    basis = torch.linalg.qr(LAYERS.T)[0].T[:3, None].numpy()  # (3, 1, 16), as lat_comp
    arrays = {"lat_comp": basis, "lat_stdev": np.array([3.0, 2.0, 0.5]), "lat_mean": VECTOR[None].numpy(),
              "act_comp": np.zeros((3, 1, 16)), "var_ratio": np.ones(3)}  # fmt: skip
    np.savez(path / "w.npz", **{name: array for name, array in (arrays | changes).items() if array is not None})
    return path / "w.npz"


def test_components_of_ganspace_come_with_their_deviations(generator: StyleGAN2Generator, tmp_path: Path) -> None:
    found = read_directions(ganspace(tmp_path), generator)
    assert [one.name for one in found] == ["w-0", "w-1", "w-2"]
    assert [one.step.norm().item() for one in found] == pytest.approx([3.0, 2.0, 0.5])
    for one in found:
        assert one.coordinate(VECTOR[None]).item() == pytest.approx(0, abs=1e-4)
        assert one.coordinate(VECTOR[None] + 2 * one.step).item() == pytest.approx(2, abs=1e-4)
    assert [one.step.norm().item() for one in read_directions(ganspace(tmp_path), generator, sigma=1)] == (
        pytest.approx([1.0] * 3)
    )


def test_eigenvectors_are_columns(generator: StyleGAN2Generator, stats: WStats, tmp_path: Path) -> None:
    eigvec = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(1)))[0]
    found = read_directions(pt(tmp_path, {"ckpt": "faces.pt", "eigvec": eigvec}), generator, name="sefa")
    assert [one.name for one in found] == [f"sefa-{k}" for k in range(16)]
    for one, vector in zip(found, eigvec.T, strict=True):
        assert torch.cosine_similarity(one.step[0], vector, dim=0).item() == pytest.approx(1, abs=1e-5)
        assert (one.normal.double() @ stats.cov @ one.normal.double()).item() == pytest.approx(1, abs=1e-4)


def test_a_component_that_ganspace_exported_keeps_layers_and_deviation(
    generator: StyleGAN2Generator, tmp_path: Path
) -> None:
    told = {"name": "smile", "sigma_range": 2.0, "component_index": 3, "lat_comp": UNIT[None].numpy(),
            "lat_stdev": np.float32(2.5), "edit_start": 1, "edit_end": 3, "decomposition": {"n": 3}}  # fmt: skip
    (tmp_path / "smile.pkl").write_bytes(pickle.dumps(told))
    (one,) = read_directions(tmp_path / "smile.pkl", generator)
    assert (one.name, one.layers) == ("smile", (1, 2))
    assert torch.allclose(one.step[0], UNIT * 2.5, atol=1e-5)


# ---------------------------------------------------------------- files that are none


class Trap:
    """A pickle that leaves a file behind where it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def pickled(path: Path, name: str) -> Path:
    (path / name).write_bytes(pickle.dumps({"name": "smile", "lat_comp": Trap(path / "sprung")}))
    return path / name


def object_array(path: Path) -> Path:
    np.save(path / "age.npy", np.array([Trap(path / "sprung")]), allow_pickle=True)
    return path / "age.npy"


TRAPS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "export of GANSpace": (lambda p: pickled(p, "smile.pkl"), "smile.pkl names 'posix.mkdir': it is not read further"),
    "pickle as .pt": (lambda p: pickled(p, "smile.pt"), "smile.pt names 'posix.mkdir': it is not read further"),
    "object in .pt": (
        lambda p: pt(p, {"eigvec": Trap(p / "sprung")}),
        "age.pt names 'posix.mkdir': it is not read further",
    ),
    "pickle as .npy": (lambda p: pickled(p, "smile.npy"), "smile.npy holds pickled objects, which are never opened"),
    "objects in .npy": (object_array, "age.npy holds pickled objects, which are never opened"),
    "objects in .npz": (
        lambda p: ganspace(p, lat_comp=np.array([Trap(p / "sprung")])),
        "w.npz holds pickled objects, which are never opened",
    ),
    "pickle as .npz": (lambda p: pickled(p, "smile.npz"), "smile.npz holds pickled objects, which are never opened"),
    "pickle as .safetensors": (lambda p: pickled(p, "smile.safetensors"), "is not a safetensors file"),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_pickled_directions_are_refused_and_run_nothing(
    generator: StyleGAN2Generator, tmp_path: Path, trap: str
) -> None:
    write, says = TRAPS[trap]
    path = write(tmp_path)
    with pytest.raises(ValueError, match=says):
        read_directions(path, generator)
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(FileNotFoundError):
        pickle.loads(pickle.dumps(Trap(tmp_path / "no" / "such")))  # the trap itself works


def raw(path: Path, name: str, content: bytes = b"") -> Path:
    (path / name).write_bytes(content)
    return path / name


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-40])
    return path


WRONG: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda p: p / "no.npy", "no.npy does not exist: expected directions as .npy"),
    "other w_dim": (
        lambda p: npy(p, torch.ones(1, 512)),
        r"shape \[1, 512\]: expected \(16,\), \(1, 16\) or \(6, 16\)",
    ),
    "other number of layers": (
        lambda p: npy(p, torch.randn(18, 16)),
        "has 18 rows, one for each layer: this model has 6",
    ),
    "several": (lambda p: npy(p, torch.randn(2, 6, 16)), r"shape \[2, 6, 16\]: expected"),
    "no rows": (lambda p: npy(p, torch.ones(0, 16)), r"shape \[0, 16\]: expected"),
    "zeros": (lambda p: npy(p, torch.zeros(16)), "only zeros: this is no direction"),
    "NaN": (lambda p: npy(p, torch.full((16,), torch.nan)), "holds NaN"),
    "integers": (lambda p: npy(p, torch.ones(16, dtype=torch.int64)), "holds a int64"),
    "integers in .pt": (lambda p: pt(p, torch.ones(16, dtype=torch.int64)), "a torch.int64 tensor: expected"),
    "dict in .pt": (lambda p: pt(p, {"w": torch.ones(16)}), "holds a dict: expected a floating point tensor"),
    "empty .npy": (lambda p: raw(p, "a.npy"), "a.npy is damaged or no .npy of numpy"),
    "empty .npz": (lambda p: raw(p, "a.npz"), "a.npz is damaged or no .npz of numpy"),
    "text as .npy": (lambda p: raw(p, "a.npy", b"0.1 0.2"), "a.npy is damaged or no .npy of numpy: save plain"),
    "text as .npz": (lambda p: raw(p, "a.npz", b"0.1 0.2"), "a.npz is damaged or no .npz of numpy: save plain"),
    "cut .npy": (lambda p: cut(npy(p, torch.ones(16))), "age.npy is damaged"),
    "cut .npz": (lambda p: cut(ganspace(p)), "w.npz is damaged"),
    "sparse .pt": (lambda p: pt(p, torch.ones(1, 16).to_sparse()), "names 'torch._utils._rebuild_sparse_tensor'"),
    "rows in .pt": (lambda p: pt(p, {"eigvec": torch.ones(16, 2).to_sparse_csr()}), "_rebuild_sparse_tensor"),
    "meta .pt": (lambda p: pt(p, torch.ones(1, 16, device="meta")), "_rebuild_meta_tensor_no_storage"),
    "empty .pt": (lambda p: raw(p, "a.pt"), "a.pt has 0 bytes: expected"),
    "empty .safetensors": (lambda p: raw(p, "a.safetensors"), "is empty"),
    "components of Z": (lambda p: ganspace(p, lat_stdev=None, lat_mean=None), "has no lat_stdev, lat_mean"),
    "too few deviations": (
        lambda p: ganspace(p, lat_stdev=np.ones(2)),
        r"lat_stdev \[2\], lat_mean \[1, 16\]: expected",
    ),
    "no deviation": (lambda p: ganspace(p, lat_stdev=np.zeros(3)), "deviations that are not positive"),
    "empty folder": (lambda p: p, "config.json does not exist"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_what_does_not_fit_is_one_sentence(generator: StyleGAN2Generator, tmp_path: Path, fault: str) -> None:
    write, says = WRONG[fault]
    with pytest.raises((ValueError, FileNotFoundError), match=says) as caught:
        read_directions(write(tmp_path), generator)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "allow_pickle" not in str(caught.value)


@pytest.mark.parametrize("given", [{"rows": "both"}, {"sigma": 0.0}, {"sigma": float("nan")}])
def test_wrong_options_are_refused(generator: StyleGAN2Generator, tmp_path: Path, given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected shared or per-layer, and a positive number"):
        read_directions(npy(tmp_path, VECTOR), generator, **given)


# ---------------------------------------------------------------- ours


@pytest.fixture(scope="module")
def ours(generator: StyleGAN2Generator, stats: WStats) -> DirectionSet:
    first = pca(stats, 2, generator.fingerprint())
    return DirectionSet.of([*first, Direction("apart", LAYERS, layers=(1, 2))], generator)


@pytest.mark.parametrize("form", ["file", "part", "model"])
def test_ours_come_back_as_they_were(
    generator: StyleGAN2Generator, ours: DirectionSet, tmp_path: Path, form: str
) -> None:
    path = tmp_path / "mine.safetensors" if form == "file" else tmp_path
    if form == "file":
        write_directions(path, ours)
    elif form == "part":
        ours.save_pretrained(path)
    else:
        HFGan(generator=generator, directions=ours).save_pretrained(path)
    again = read_directions(path, generator)
    for one, two in zip(ours, again, strict=True):
        assert torch.equal(one.step, two.step)
        assert (one.name, one.layers, one.offset, one.source) == (two.name, two.layers, two.offset, two.source)
    assert [one.name for one in read_directions(path, generator, name="x")] == ["x-0", "x-1", "x-2"]
    with pytest.raises(ValueError, match="belongs to a generator with weights"):
        read_directions(path, make_generator(1))
    with pytest.raises(ValueError, match="how far strength 1 goes: leave both out"):
        read_directions(path, generator, sigma=2.0)


def test_a_file_of_ours_is_read_strictly(generator: StyleGAN2Generator, ours: DirectionSet, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    with pytest.raises(ValueError, match=r"mine.pt does not end in .safetensors"):
        write_directions(tmp_path / "mine.pt", ours)
    tensors = {name: value.clone() for name, value in ours.state_dict().items()}
    keys = ("num_directions", "w_dim", "num_ws", "entries", "generator_fingerprint")
    config = {key: ours.config[key] for key in keys}
    for change, texts, says in (
        ({}, {}, "holds no directions"),
        ({}, {"format": "hfgan-directions"}, "does not describe its directions"),
        ({}, {"format": "hfgan-directions", "config": json.dumps(config | {"num_ws": "many"})}, "does not describe"),
        ({"z": VECTOR}, {"format": "hfgan-directions", "config": json.dumps(config)}, "unexpected: z"),
        ({"steps": VECTOR}, {"format": "hfgan-directions", "config": json.dumps(config)}, r"misshapen: steps \[16\]"),
    ):
        save_file(tensors | change, path, texts)
        with pytest.raises(ValueError, match=says):
            read_directions(path, generator)
