"""The public API of the app is what api.json says, every verb is explained, and every example of docs/api.md runs.

After a change that is meant: `python tests/test_api.py` writes api.json anew; look at what differs.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from test_app_attribute import calibrate
from toy import save_toy

from hfgan import HFGan, app, images
from hfgan.attribution import Protocol
from hfgan.models.perceptual import load_perceptual

ROOT = Path(__file__).parents[1]
SNAPSHOT, DOCS = Path(__file__).with_name("api.json"), ROOT / "docs" / "api.md"
HOST, NAME = "http://127.0.0.1:7860", "hfaces-64"  # of the examples
PARTS = {"num_modes": 3, "alpha": True, "encoder": True, "directions": True}


def load(folder: Path) -> dict[str, HFGan]:
    """A toy with every part, under the name that the examples use, and one that only draws."""
    whole = HFGan.from_pretrained(save_toy(folder / NAME, **PARTS), dtype="float32")
    calibrate(folder / NAME, Protocol.of(whole.generator, whole.encoder, load_perceptual()))
    return {NAME: whole, "plain": HFGan.from_pretrained(save_toy(folder / "plain", seed=1), dtype="float32")}


def read_api(address: str) -> dict[str, Any]:
    """The public endpoints of a running app: parameters with types and defaults, and what is returned."""
    info = json.load(urllib.request.urlopen(f"{address}gradio_api/info"))
    assert not info["unnamed_endpoints"]
    return {name: {"parameters": [_parameter(one) for one in told["parameters"]],
                   "returns": [{"label": one["label"], "type": one["python_type"]["type"]} for one in told["returns"]]}
            for name, told in sorted(info["named_endpoints"].items())}  # fmt: skip


def _parameter(told: dict[str, Any]) -> dict[str, Any]:
    default = {"default": told["parameter_default"]} if told["parameter_has_default"] else {}
    bounds = {"bounds": told["type"]["description"]} if told["type"].get("description") else {}
    return {"name": told["parameter_name"], "type": told["python_type"]["type"]} | bounds | default


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HFGan]:
    return load(tmp_path_factory.mktemp("models"))


# ---------------------------------------------------------------- what is public


def test_the_public_api_is_the_one_of_the_snapshot(address: str) -> None:
    found, wanted = read_api(address), json.loads(SNAPSHOT.read_text())
    assert found.keys() == wanted.keys(), "meant? then run: python tests/test_api.py"
    for name in wanted:
        assert found[name] == wanted[name], f"{name} has changed; if it is meant, run: python tests/test_api.py"


def test_every_public_verb_tells_what_it_takes_and_returns(models) -> None:
    public = [fn for fn in app.build(models).fns.values() if fn.api_visibility == "public"]
    assert {f"/{fn.api_name}" for fn in public} == json.loads(SNAPSHOT.read_text()).keys()
    for fn in public:
        told, taken = inspect.getdoc(fn.fn) or "", list(inspect.signature(fn.fn).parameters)
        assert "\nReturns:\n" in told, fn.api_name
        assert re.findall(r"^    (\w+): ", told.partition("Args:\n")[2], re.MULTILINE) == taken, fn.api_name
        assert not re.search("private|token|session", " ".join(taken)), fn.api_name


def test_plumbing_has_no_name_in_the_public_api(models) -> None:
    for fn in app.build(models).fns.values():
        stateful = [type(one).__name__ for one in (*fn.inputs, *fn.outputs) if type(one).__name__ == "State"]
        assert fn.api_visibility == "private" or (fn.api_visibility == "public" and not stateful), fn.api_name


@pytest.mark.parametrize("found", [True, False])
def test_verbs_are_tools_of_mcp_where_it_is_installed(monkeypatch: pytest.MonkeyPatch, models, found: bool) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(app, "find_spec", lambda name: object() if found and name == "mcp" else None)
    monkeypatch.setattr(app.gr.Blocks, "launch", lambda _, **options: seen.update(options) or (None, "", None))
    app.launch(app.build(models))
    assert seen["mcp_server"] is found
    assert seen["show_error"] is False


# ---------------------------------------------------------------- lists


def test_lists_say_what_there_is(user: Client, models) -> None:
    first, second = user.predict(api_name="/list_models")
    generator = models[NAME].generator
    assert (first["name"], first["fingerprint"]) == (NAME, generator.fingerprint())
    assert (first["resolution"], first["layers"], first["modes"], first["directions"]) == (16, generator.num_ws, 3, 3)
    assert (second["name"], second["parts"], second["modes"], second["directions"]) == ("plain", ["generator"], 0, 0)
    modes = user.predict(NAME, api_name="/list_modes")
    assert [one["mode"] for one in modes] == [0, 1, 2]
    assert sum(one["share"] for one in modes) == pytest.approx(1)
    assert user.predict(NAME, api_name="/list_directions")[2] == {
        "name": "odd", "kind": "imported", "quality": None, "layers": [0, 2],
    }  # fmt: skip
    assert [user.predict("plain", api_name=f"/list_{what}") for what in ("modes", "directions")] == [[], []]


@pytest.mark.parametrize("verb", ["/list_modes", "/list_directions"])
@pytest.mark.parametrize("name", ["nothing", "", "../plain", None])
def test_lists_of_no_such_model_are_refused(user: Client, verb: str, name: str | None) -> None:
    with pytest.raises(AppError, match="no such model here: choose one of hfaces-64, plain"):
        user.predict(name, api_name=verb)


def test_lists_hold_no_path(user: Client, models) -> None:
    told = json.dumps([user.predict(api_name="/list_models"), user.predict(NAME, api_name="/list_modes"),
                       user.predict(NAME, api_name="/list_directions")])  # fmt: skip
    assert not re.search(r"[/\\]\w", told)


# ---------------------------------------------------------------- the examples


def examples(language: str, address: str) -> str:
    """All blocks of docs/api.md in that language, as one program that uses this app."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    return "".join(block for block in blocks if "pip install" not in block).replace(HOST, address.rstrip("/"))


def verbs(text: str, language: str) -> set[str]:
    """Endpoints that the examples call."""
    return set(re.findall(r'api_name="(/\w+)"' if language == "python" else r"call (?=[a-z])(\w+) '", text))


def test_examples_in_python_run(address: str, photo, tmp_path: Path) -> None:
    photo(40, 48).save(tmp_path / "me.jpg")
    program = examples("python", address)
    assert verbs(program, "python") == json.loads(SNAPSHOT.read_text()).keys(), "each verb has an example"
    check = (
        "from PIL import Image\nprint(*[Image.open(one).format for one in (again, mixed, film, edited, rgba, alpha)])"
    )
    (tmp_path / "examples.py").write_text(f"{program}\n{check}\nprint(packed[-4:], len(sweep), len(centers))\n")
    done = subprocess.run([sys.executable, "examples.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["PNG PNG WEBP PNG PNG PNG", ".zip 4 3"]


@pytest.mark.skipif(not shutil.which("curl"), reason="the examples use curl")
def test_examples_of_the_shell_run(address: str, photo, tmp_path: Path) -> None:
    photo(40, 48).save(tmp_path / "me.jpg")
    program = examples("bash", address)
    assert {f"/{name}" for name in verbs(program, "bash")} == json.loads(SNAPSHOT.read_text()).keys()
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", program], cwd=tmp_path, env=env, capture_output=True,
                          text=True, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 10
    assert all(isinstance(answer, list) for answer in answers), "an error is a dict"
    assert answers[0][0][0]["name"] == NAME
    assert images.read_recipe(tmp_path / "seed3.png")["seed"] == 3
    assert images.read_recipe(tmp_path / "zoomed.png")["edits"][0]["strength"] == 1.5
    starts = {"alpha.png": b"\x89PNG", "mixed.png": b"\x89PNG", "film.webp": b"RIFF", "cut.zip": b"PK"}
    assert all((tmp_path / name).read_bytes().startswith(start) for name, start in starts.items())


def write() -> None:
    """Write api.json from the app as it is."""
    with tempfile.TemporaryDirectory() as folder:
        page = app.build(load(Path(folder)))
        told = read_api(app.launch(page, prevent_thread_lock=True, quiet=True))
        page.close(verbose=False)
    SNAPSHOT.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    write()
