"""The house rules, checked on the source: size, arrows between files, what a function may not do."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = sorted((ROOT / "hfgan").rglob("*.py"))
SCRIPTS = sorted((ROOT / "training").glob("*.py"))
SOURCES = [*LIBRARY, *SCRIPTS, ROOT / "app.py"]
MAX_LINES, MAX_FUNCTION = 400, 80

# the rooms from the inside out: a file imports only from rooms before its own (or, for verbs, from the named ones)
ROOMS = {
    "storage": 0,
    "pickles": 0,
    "images": 1,
    "models": 1,
    "sources": 2,
    "parts": 3,
    "drawing": 4,
    "altering": 4,
    "pipeline": 4,
    "converting": 5,
    "cli": 5,
    "app": 5,
}
VERBS = 2


def imports(path: Path) -> list[str]:
    """Names of modules that a file imports, anywhere in it."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
    return found


def functions(path: Path) -> list[ast.FunctionDef]:
    return [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=label)
def test_files_and_functions_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES
    long = [f.name for f in functions(path) if f.end_lineno - f.lineno + 1 > MAX_FUNCTION]
    assert not long


@pytest.mark.parametrize("path", LIBRARY, ids=label)
def test_arrows_point_one_way(path: Path) -> None:
    room = path.relative_to(ROOT / "hfgan").parts[0].removesuffix(".py")
    outside = {"gradio", "training", "accelerate", "torchvision"} - ({"gradio"} if room == "app" else set())
    for name in imports(path):
        assert name.split(".")[0] not in outside, f"{label(path)} imports {name}"
        if name.startswith("hfgan.") and room != "__init__":
            other = name.split(".")[1]
            higher = ROOMS.get(other, VERBS) > ROOMS.get(room, VERBS)
            assert not higher, f"{label(path)} imports {name}, which stands above it"


@pytest.mark.parametrize("path", LIBRARY, ids=label)
def test_library_never_does_these(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            told = path.stem.endswith("cli") and node.func.id == "print"
            assert node.func.id not in ("print", "exec", "eval") or told, f"{label(path)}:{node.lineno} {node.func.id}"
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) != "torch.load", f"{label(path)}:{node.lineno} torch.load"
        assert not isinstance(node, ast.Global), f"{label(path)}:{node.lineno} global"
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), (
            f"{label(path)}:{node.lineno} bare except"
        )
    assert not {"pickle", "dill", "cloudpickle"} & set(imports(path))
    assert "type=bool" not in path.read_text()
    assert not re.search(r"sys\.path|# TODO", path.read_text())


@pytest.mark.parametrize("path", LIBRARY, ids=label)
def test_public_functions_are_typed_and_explained(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), f"{label(path)} does not say what it is"
    for function in functions(path):
        if function.name.startswith("_") or function.name in ("forward", "backward"):
            continue
        arguments = [a for a in function.args.args + function.args.kwonlyargs if a.arg not in ("self", "cls", "ctx")]
        untyped = [a.arg for a in arguments if a.annotation is None]
        where = f"{label(path)}:{function.lineno} {function.name}"
        assert not untyped, f"{where}: no type for {untyped}"
        assert function.returns is not None, f"{where}: no return type"


def test_public_classes_and_module_functions_have_docstrings() -> None:
    for path in LIBRARY:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{label(path)}:{node.lineno} {node.name} has no docstring"


def test_import_is_lazy() -> None:
    code = "import hfgan, sys; print([m for m in ('torch', 'diffusers', 'gradio', 'numpy') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_public_names_exist() -> None:
    import hfgan

    assert all(getattr(hfgan, name) is not None for name in hfgan.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = hfgan.Nothing


def test_no_machine_paths_in_the_tree() -> None:
    files = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).split()
    for name in files:
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".json", ".txt") and path.exists():
            found = re.search(r"(?<![\w.])/(?:work|farm|root|home/[a-z]+)/", path.read_text())
            assert not found, f"{name} holds {found.group()}"


def test_style() -> None:
    for check in (["check"], ["format", "--check"]):
        done = subprocess.run([sys.executable, "-m", "ruff", *check, "."], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
