"""The repository copied to a Space starts there, on the CPU and on ZeroGPU; Docker's image is of the same files.

`tests/bench/space.py` builds a real environment of requirements.txt and uses the app in it, which takes minutes.
"""

from __future__ import annotations

import ast
import os
import pickle
import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from functools import wraps
from importlib.metadata import packages_distributions, requires, version
from inspect import isgeneratorfunction
from pathlib import Path
from threading import Lock
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gradio_client import Client
from huggingface_hub import SpaceHardware
from packaging.requirements import Requirement
from PIL import Image
from space import COPIED, ROOT, copy_to, files, front_matter, packages, serving
from toy import save_toy

import hfgan
from hfgan import HFGan, app, images
from hfgan.app import gpu
from hfgan.app.studio import Studio

COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
OPTIONAL = {"datasets", "fsspec", "lpips", "spaces"}  # the app runs without: imported where they are used, or tried
NO_GPU = {"modes", "list_models", "list_modes", "list_directions"}  # public, and nothing is drawn


def named(lines: list[str]) -> dict[str, Requirement]:
    """Requirements by the name of what is required."""
    found = [Requirement(line) for line in lines]
    return {re.sub(r"[-_.]+", "-", one.name).lower(): one for one in found}


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


REQUIRED = named((ROOT / "requirements.txt").read_text().split())

SPACES = """import sys
from pathlib import Path
Path(__file__).with_name("before.txt").write_text(" ".join({"torch", "gradio"} & sys.modules.keys()))
def GPU(duration):
    return lambda verb: verb
"""

# ---------------------------------------------------------------- settings


def test_front_matter_is_what_a_space_takes_and_what_is_tested() -> None:
    told = front_matter()
    assert (told["sdk"], told["license"]) == ("gradio", project()["license"].lower())
    assert told["sdk_version"] == version("gradio"), "the tests run with another Gradio than the Space"
    assert told["sdk_version"] in named(project()["dependencies"])["gradio"].specifier
    assert told["python_version"] == "3.12"
    assert (ROOT / told["app_file"]).is_file()
    assert told["app_file"] in COPIED
    assert {told["colorFrom"], told["colorTo"]} <= COLOURS
    assert 0 < len(told["short_description"]) <= 60
    assert len(told["emoji"]) == 1
    assert re.fullmatch(r"\d+m", told["startup_duration_timeout"])
    assert not {"models", "datasets", "preload_from_hub"} & told.keys(), "there is nothing on the Hub yet"
    assert told.get("suggested_hardware", "cpu-basic") in {one.value for one in SpaceHardware}


def test_requirements_are_those_of_the_package_without_gradio() -> None:
    wanted = named(project()["dependencies"])
    assert "gradio" not in REQUIRED, "the builder of a Space installs the version of the front matter"
    assert {name: one.specifier for name, one in REQUIRED.items()} == {
        name: one.specifier for name, one in wanted.items() if name != "gradio"
    }
    assert not any(one.url or one.extras for one in REQUIRED.values())


def test_the_builder_installs_what_is_asked_for_in_one_command() -> None:
    assert packages()[0] == f"gradio[oauth,mcp]=={version('gradio')}"
    for line in requires("gradio"):  # what both name agrees, as that one command fails where it does not
        other = Requirement(line)
        if not other.marker and other.name.lower() in REQUIRED:
            found = version(other.name)
            assert found in other.specifier
            assert found in REQUIRED[other.name.lower()].specifier


# ---------------------------------------------------------------- imports


def module(name: str) -> Path | None:
    """The file of a module of ours."""
    parts = name.split(".")
    if len(parts) == 2 and parts[1] in hfgan._HOME:
        parts[1:] = hfgan._HOME[parts[1]].split(".")
    base = ROOT.joinpath(*parts)
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def imports(path: Path) -> list[tuple[str, bool]]:
    """Names that a file imports, and whether it does so as it is loaded itself, without trying."""
    tree = ast.parse(path.read_text())
    later = {
        inner for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.Try)) for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{one.name}" for one in node.names)]
        found += [(name, node not in later) for name in names]
    return found


def reached() -> dict[str, set[tuple[str, bool]]]:
    """What others wrote and the app may import, from app.py through our modules: by whom, and whether at once."""
    seen: set[Path] = set()
    found: dict[str, set[tuple[str, bool]]] = {}
    todo = [ROOT / "app.py", *sorted((ROOT / "hfgan" / "app").glob("*.py"))]
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        for name, at_once in imports(path):
            top = name.split(".")[0]
            if top == "hfgan":
                todo += [own] if (own := module(name)) else []
            elif top not in sys.stdlib_module_names:
                found.setdefault(top, set()).add((str(path.relative_to(ROOT)), at_once))
    return found


def test_all_that_the_app_imports_is_installed_there() -> None:
    installed = {*REQUIRED, "gradio", *named([line for line in requires("gradio") if "extra ==" not in line])}
    found, homes = reached(), packages_distributions()
    assert {"torch", "gradio", "diffusers", "PIL", "yaml", "sklearn"} <= found.keys(), "the walk goes far enough"
    for name, where in found.items():
        if name in OPTIONAL:
            assert not any(at_once for _, at_once in where), f"{name} is imported as the app starts: {where}"
        else:
            names = {re.sub(r"[-_.]+", "-", home).lower() for home in homes.get(name, ())}
            assert names & installed, f"{name} is imported by {sorted(where)} and is in no requirement"


# ---------------------------------------------------------------- a copy


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is copied to a Space, with one of the bundled models left out, so that one sees whose models are found."""
    folder = copy_to(tmp_path_factory.mktemp("copy"))
    assert {path.name for path in folder.iterdir()} == set(COPIED)
    shutil.rmtree(folder / "model_cards" / "flowers-64")
    (folder / "spaces.py").write_text(SPACES)  # which a Space has among its packages
    return folder


def test_the_app_starts_from_a_copy_and_draws(copy: Path, tmp_path: Path) -> None:
    with serving(copy, HF_HUB_OFFLINE="1") as address:
        client = Client(address, verbose=False, download_files=tmp_path)
        told = client.predict(api_name="/list_models")
        assert [one["name"] for one in told] == ["hfaces-64"], "this is not the app of the copy"
        pictures, recipes = client.predict("hfaces-64", 1, 3, 0.7, 0, "const", 0, "global", 0, api_name="/sample")
    with Image.open(pictures[0]["image"]) as drawn:
        assert drawn.size == (64, 64)
    assert images.read_recipe(pictures[0]["image"]) == recipes[0]
    assert recipes[0]["fingerprint"] == told[0]["fingerprint"]
    assert (copy / "before.txt").read_text() == "gradio", "spaces comes before torch"


# ---------------------------------------------------------------- Docker


def instructions() -> list[tuple[str, str]]:
    """Those of the Dockerfile, with lines joined."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE))
    return [tuple(line.split(" ", 1)) for line in text.splitlines() if line]


def test_docker_copies_what_a_space_does() -> None:
    copied = {name.rstrip("/") for kind, text in instructions() if kind == "COPY" for name in text.split()[:-1]}
    assert copied == {*COPIED, "LICENSE"}
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    rules = [line for line in ignored if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied
    kept = files(*copied)
    assert not [name for name in kept if any(fnmatch(name, rule) for rule in rules[1:] if not rule.startswith("!"))]


def test_docker_runs_the_tested_gradio_as_a_user_and_checks_itself() -> None:
    told = instructions()
    kinds, env = [kind for kind, _ in told], dict(told)["ENV"]
    assert told[0] == ("FROM", "python:3.12-slim")
    assert dict(told)["ARG"] == f"GRADIO={front_matter()['sdk_version']}"
    assert {"GRADIO_SERVER_NAME=0.0.0.0", "GRADIO_SERVER_PORT=7860"} <= set(env.split())
    assert dict(told)["EXPOSE"] == "7860"
    assert kinds.index("USER") > max(i for i, kind in enumerate(kinds) if kind in ("RUN", "COPY"))
    assert dict(told)["USER"] not in ("root", "0")
    assert kinds[-1] == "ENTRYPOINT"
    installs = [i for i, (kind, text) in enumerate(told) if kind == "RUN" and "pip install" in text]
    sources = [i for i, (kind, text) in enumerate(told) if kind == "COPY" and "requirements.txt" not in text]
    assert max(installs) < min(sources), "a change of the source installs nothing anew"
    assert "whl/cpu" in told[installs[0]][1]
    assert not re.search(r"apt|gcc|build-essential", " ".join(text for kind, text in told if kind == "RUN"))


def test_docker_health_check_tells_a_running_app(copy: Path) -> None:
    (line,) = [text for kind, text in instructions() if kind == "HEALTHCHECK"]
    command = ast.literal_eval(line.partition("CMD ")[2])
    assert command[:2] == ["python", "-c"]

    def check(port: str) -> int:
        return subprocess.run(
            [sys.executable, *command[1:]], env={"GRADIO_SERVER_PORT": port}, capture_output=True
        ).returncode

    page = app.build({"toy": HFGan.from_pretrained(save_toy(copy.parent / "toy"))})
    port = re.search(r":(\d+)/", app.launch(page, prevent_thread_lock=True, quiet=True))[1]
    assert check(port) == 0
    page.close(verbose=False)
    assert check(port) == 1


# ---------------------------------------------------------------- ZeroGPU


def lend(duration: int):
    """`spaces.GPU` as it is on ZeroGPU: what is given and returned goes from process to process."""
    assert 0 < duration <= 60

    def send(value: Any) -> Any:
        return pickle.loads(pickle.dumps(value))

    def decorate(verb):
        @wraps(verb)
        def regular(*given):
            return send(verb(*send(given)))

        @wraps(verb)
        def generator(*given):
            yield from map(send, verb(*send(given)))

        wrapped = generator if isgeneratorfunction(verb) else regular
        wrapped.lent = duration
        return wrapped

    return decorate


@pytest.fixture
def zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """ZeroGPU, as it is seen from a process that a GPU is lent to; that GPU is the CPU here."""
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setattr(gpu, "spaces", SimpleNamespace(GPU=lend))
    monkeypatch.setattr(gpu, "PAGE", 0)
    monkeypatch.setattr(gpu, "GPU", "cpu")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> HFGan:
    folder = save_toy(tmp_path_factory.mktemp("whole"), num_modes=3, alpha=True, encoder=True, directions=True)
    return HFGan.from_pretrained(folder, dtype="float32")


def test_whatever_draws_has_a_gpu_lent_to_it(zero: None, whole: HFGan) -> None:
    fns = [fn for fn in app.build({"toy": whole}).fns.values() if fn.fn is not None]
    lent = {fn.api_name for fn in fns if hasattr(fn.fn, "lent")}
    assert {fn.api_name for fn in fns if fn.api_visibility == "public"} - lent == NO_GPU
    waiting = {"drawing", "refining", "packing"}  # in the queues of what draws
    assert not [fn.name for fn in fns if fn.concurrency_id in waiting and not hasattr(fn.fn, "lent")]


def test_models_move_to_the_lent_gpu_and_nowhere_else(
    zero: None, whole: HFGan, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: list[str] = []
    monkeypatch.setattr(HFGan, "to", lambda self, where: moves.append(where) or self)
    studio = Studio({"toy": whole})
    with studio.drawing("toy") as gan, studio.drawing("toy"):  # no lock: one that was taken at the fork stays so
        assert gan is whole
    assert moves == ["cpu", "cpu"]
    monkeypatch.setattr(gpu, "PAGE", os.getpid())
    assert len(studio.modes("toy")) == 3
    assert moves == ["cpu", "cpu"]


def test_verbs_on_zerogpu_work_from_process_to_process(zero: None, whole: HFGan, tmp_path: Path) -> None:
    verbs = {fn.name: fn.fn for fn in app.build({"toy": whole}).fns.values() if hasattr(fn.fn, "lent")}
    _, recipe = verbs["sample"]("toy", 2)[1]
    images.save_png(whole.replay(recipe).images[0], tmp_path / "second.png", recipe)
    _, again, line = verbs["replay"]("toy", (tmp_path / "second.png").read_bytes())
    assert again == recipe
    work, *_ = verbs["take"](None, "toy", recipe)
    work, *_ = verbs["limit"](work, "toy", recipe, "alpha")
    assert (work.now.title, work.now.region) == (line, "alpha")
    assert verbs["undo"](work, "toy")[0].now.region == "whole"


class Lent(torch.Tensor):
    """A tensor in the memory of a GPU, as far as one can tell without any."""

    def cpu(self) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)


def test_what_a_verb_returns_is_on_the_cpu(whole: HFGan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "spaces", SimpleNamespace(GPU=lambda duration: lambda verb: verb))
    out, far = whole.sample(1, seed=0), torch.ones(2).as_subclass(Lent)
    out.w = far

    def all_at_once() -> tuple[Any, ...]:
        return out, {"far": [far, (1, far)]}, None, "text"

    def step_by_step():
        yield far
        yield [far]

    sample, told, *rest = gpu.on_gpu(all_at_once)()
    steps = list(gpu.on_gpu(step_by_step)())
    for tensor in (sample.w, sample.w_plus, told["far"][0], told["far"][1][1], steps[0], steps[1][0]):
        assert type(tensor) is torch.Tensor
    assert (sample.seeds, told["far"][1][0], rest) == ([0], 1, [None, "text"])
    assert isgeneratorfunction(gpu.on_gpu(step_by_step))
    assert type(out.w) is Lent, "what the verb keeps is left alone"
    assert gpu.on_gpu(whole.sample).__name__ == "sample"


@pytest.mark.parametrize(("cuda", "lent", "home"), [(False, "", "cpu"), (True, "", "cuda"), (True, "true", "cpu")])
def test_models_are_kept_on_a_gpu_of_ones_own(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, lent: str, home: str
) -> None:
    seen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)  # which is so on ZeroGPU, too
    monkeypatch.setattr(gpu, "spaces", SimpleNamespace(GPU=lend))
    monkeypatch.setenv("SPACES_ZERO_GPU", lent)
    monkeypatch.setattr(
        HFGan, "from_pretrained", lambda name, device: seen.append(device) or SimpleNamespace(name=name)
    )
    monkeypatch.setattr(app, "build", lambda *_: None)
    monkeypatch.setattr(app, "launch", lambda page, **_: "")
    app.serve(["one", "two"])
    assert seen == [home, home]


def test_without_spaces_a_verb_is_itself(monkeypatch: pytest.MonkeyPatch, whole: HFGan) -> None:
    monkeypatch.setattr(gpu, "spaces", None)
    assert gpu.on_gpu(whole.sample) == whole.sample
    lock = Lock()
    with gpu.using(whole, lock) as gan:
        assert gan is whole
        assert lock.locked()
