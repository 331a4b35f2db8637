"""The matting network as an ONNX file, for runtimes without PyTorch. Needs the packages onnx and onnxscript."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hfgan.images import write_file
from hfgan.models.matting import MattingNetwork

if TYPE_CHECKING:
    from onnx import ModelProto

PACKAGES = ("onnx", "onnxscript")
EXAMPLE = (2, 3, 4, 5)  # images and channels, and sides in multiples; no two alike, so that none is taken for another
SAID = (
    "image: RGB (n, 3, h, w) in [-1, 1], scaled by Lanczos to a shorter side of {resolution}, h and w multiples of "
    "{multiple}. "
    "alpha: (n, 1, h, w) in [0, 1], 1 for the foreground."
)


class _Alpha(nn.Module):
    """The network with its alpha as output in place of the logit."""

    def __init__(self, net: MattingNetwork) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image).sigmoid()


def export_matting(net: MattingNetwork, path: str | Path, *, name: str | None = None, overwrite: bool = False) -> None:
    """Write the network as ONNX: `image` (n, 3, h, w) in [-1, 1] to `alpha` (n, 1, h, w) in [0, 1].

    n, h and w are free, h and w as multiples of `net.multiple`. The metadata of the file are `model` (the name),
    `fingerprint`, `resolution` [pixels, best for the shorter side] and `multiple`. Bytes depend on the network alone.

    Args:
        name: What the model is called, such as `gan.name`.

    Raises:
        ValueError: a name that does not end in .onnx.
        FileExistsError, FileNotFoundError: as `write_file`.
        ModuleNotFoundError: without onnx or onnxscript.
    """
    path = Path(path)
    if path.suffix.lower() != ".onnx":
        raise ValueError(f"{path} does not end in .onnx")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists already: choose another name or pass overwrite=True")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} to write {path.name} into: create it first")
    if missing := [package for package in PACKAGES if importlib.util.find_spec(package) is None]:
        raise ModuleNotFoundError(f"ONNX export needs {' and '.join(missing)}: pip install {' '.join(PACKAGES)}")
    said = {"resolution": net.config.resolution, "multiple": net.multiple}
    model = _traced(net)
    _tidy(model)
    model.doc_string = SAID.format(**said)
    for key, value in ({"model": name or "", "fingerprint": net.fingerprint()} | said).items():
        model.metadata_props.add(key=key, value=str(value))
    write_file(path, model.SerializeToString(deterministic=True), overwrite=overwrite)


def _traced(net: MattingNetwork) -> ModelProto:
    """What PyTorch makes of the network, on the CPU in fp32."""
    n, channels, rows, columns = EXAMPLE
    dim, step = torch.export.Dim, net.multiple
    shapes = {"image": {0: dim("batch"), 2: step * dim("rows"), 3: step * dim("columns")}}
    example = torch.zeros(n, channels, rows * step, columns * step)
    with _quiet():
        program = torch.onnx.export(
            _Alpha(copy.deepcopy(net).cpu()).eval(), (example,), input_names=["image"], output_names=["alpha"],
            dynamic_shapes=shapes, dynamo=True, verbose=False, external_data=False,
        )  # fmt: skip
    return program.model_proto


def _tidy(model: Any) -> None:
    """Strip what the exporter noted for its authors: paths on this machine, numbers that change from run to run."""
    graph = model.graph
    for number, node in enumerate(graph.node):
        node.name, node.doc_string = f"{node.op_type}_{number}", ""
        del node.metadata_props[:]
    for value in (*graph.input, *graph.output, *graph.initializer):
        del value.metadata_props[:]
    for noted in (graph.value_info, graph.metadata_props, model.metadata_props):
        del noted[:]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter speaks of its own insides; what fails is raised."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
