"""Peak memory and time of every stage on a large model, at its default settings but for the number of steps.

python tests/bench/large.py MODEL_FOLDER
python tests/bench/large.py --resolution 1024       # a random model of config-f's size

Each line is a process of its own, whose peak is what the system says of it. Photos are what the model draws.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]  # nothing large is imported here: a child would be charged with it
TRAIN = [sys.executable, str(ROOT / "training" / "train.py")]
HFGAN = [sys.executable, "-c", "import sys; from hfgan.cli import main; sys.exit(main())"]
PHOTOS = 32
RECIPE = {
    "light": {"trait": "sharpness"}, "real": {"trait": "realness"}, "first": {"sefa": 0}, "second": {"pca": 1},
    "seeds": {"plus": [0, 1, 2, 3], "minus": [4, 5, 6, 7], "without": ["first"]},
}  # fmt: skip

MAKE = """
import sys, torch
from hfgan import HFGan, StyleGAN2Discriminator, StyleGAN2Generator
torch.manual_seed(0)
size = {"resolution": int(sys.argv[1])}
generator = StyleGAN2Generator(**size)
with torch.no_grad():
    generator.mapping.w_avg.copy_(generator.mapping(torch.randn(10_000, 512)).mean(0))
HFGan(generator=generator, discriminator=StyleGAN2Discriminator(**size)).save_pretrained(sys.argv[2])
"""
DRAW = """
import sys
from hfgan import HFGan
gan = HFGan.from_pretrained(sys.argv[1], dtype="{dtype}")
"""
CALLS = {
    "sample(16)": "gan.sample(16, seed=0)",
    "interpolate": "out = gan.sample(2, seed=0); gan.interpolate(out[0], out[1], 16)",
    "cutouts of 16": "gan.cutouts(gan.sample(16, seed=0))",
    "edit": "gan.edit(gan.sample(2, seed=0), {'first': 2.0}, region='alpha')",
    "invert, refine": "gan.invert(sys.argv[2], refine=2, noise_steps=2, tune_steps=2)",
    "invert, projector": "gan.invert(sys.argv[2], method='projector', steps=3)",
}
APP = """
import sys, time
from gradio_client import Client
from hfgan import HFGan
from hfgan.app import build
begin = time.monotonic()
page = build({"large": HFGan.from_pretrained(sys.argv[1])})
page.launch(prevent_thread_lock=True, quiet=True)
client = Client(page.local_url, verbose=False)
print(f"open after {time.monotonic() - begin:.0f} s", file=sys.stderr)
client.predict(model="large", num_images=8, api_name="/sample")
"""


def main() -> None:
    """Measure what was asked for, and print a line of a Markdown table for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", type=Path, help="folder of a model; a random one without")
    parser.add_argument("--resolution", type=int, default=1024, help="of the random model")
    parser.add_argument("--only", nargs="+", help="names of the lines to measure, with all that they build on")
    parser.add_argument("--precision", default="auto", help="auto, float32 or bfloat16")
    parser.add_argument("--work", type=Path, help="folder that is kept, and gone on with, in place of a new one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        model = options.model or make(work / "model", options.resolution)
        print("| stage | peak GB | seconds |\n|---|---|---|", flush=True)
        for name, line in plan(model, work, options.precision).items():
            if options.only is None or name in options.only:
                print(measure(name, line, work), flush=True)


def make(folder: Path, resolution: int) -> Path:
    """A random model."""
    if not folder.exists():
        subprocess.run([sys.executable, "-c", MAKE, str(resolution), str(folder)], check=True)
    return folder


def plan(model: Path, work: Path, precision: str) -> dict[str, list[str]]:
    """The command of each line, in an order in which each has what it needs."""
    photos, recipe = work / "photos", work / "recipe.json"
    recipe.write_text(json.dumps(RECIPE))
    draw = [sys.executable, "-c"]

    def call(name: str, of: Path) -> list[str]:
        return [*draw, DRAW.format(dtype=precision) + CALLS[name], str(of), str(photos / "seed0000.png")]

    def train(stage: str, of: Path, *flags: str) -> list[str]:
        return [*TRAIN, stage, "--model", str(of), "--out", str(work / stage), *flags]

    def of(stage: str) -> Path:
        return work / stage / "model"

    data, exact = ["--data", str(photos)], ["--precision", precision]
    often = ["--sample-every", "16", "--save-every", "16", *exact]
    return {
        "photos": [*HFGAN, "sample", "--model", str(model), "--seeds", f"0-{PHOTOS - 1}", "--out", str(photos)],
        "sample(16)": call("sample(16)", model),
        "interpolate": call("interpolate", model),
        "invert, projector": call("invert, projector", model),
        "modes": train("modes", model),
        "alpha": train("alpha", of("modes"), *data, *often, "--images", "32", "--bootstrap-images", "16"),
        "matting": train("matting", of("alpha"), *data, *often, "--images", "32", "--photos-from", "16"),
        "cutouts of 16": call("cutouts of 16", of("matting")),
        "encoder": train("encoder", of("matting"), *data, *often, "--images", "16"),
        "directions": train("directions", of("encoder"), "--recipe", str(recipe), "--samples", "100"),
        "edit": call("edit", of("directions")),
        "invert, refine": call("invert, refine", of("directions")),
        "reconstructor": train("reconstructor", of("directions"), *data, *often, "--images", "32"),
        "filter": [*TRAIN, "filter", "--model", str(of("reconstructor")), *data, "--out", str(work / "filter")],
        "evaluate": [*TRAIN, "evaluate", "--model", str(model), *data, "--num", "32", "--psi", "1",
                     "--ppl-paths", "16", "--out", str(work / "metrics.json")],
        "generator": [*TRAIN, "generator", *data, *exact, *shape(model), "--init", str(model), "--images", "64",
                      "--out", str(work / "generator"), "--pl-every", "2"],
        "app": [*draw, APP, str(of("directions"))],
    }  # fmt: skip


def shape(model: Path) -> list[str]:
    """The flags of the stage `generator` for a model's shape."""
    config = json.loads((model / "generator" / "config.json").read_text())
    names = ("resolution", "channel_base", "channel_max", "z_dim", "w_dim", "mapping_layers")
    return [word for name in names for word in (f"--{name.replace('_', '-')}", str(config[name]))]


def measure(name: str, line: list[str], work: Path) -> str:
    """Run a command to its end, and say how much memory it took and how long; what it says is in a file."""
    begin = time.monotonic()
    with (work / f"{name.replace(' ', '-')}.log").open("w") as said:
        child = subprocess.Popen(line, stdout=said, stderr=subprocess.STDOUT, cwd=work)
        _, status, used = os.wait4(child.pid, 0)
    failed = "" if os.waitstatus_to_exitcode(status) == 0 else f" failed: see {said.name}"
    return f"| {name}{failed} | {used.ru_maxrss / 2**20:.1f} | {time.monotonic() - begin:.0f} |"


if __name__ == "__main__":
    main()
