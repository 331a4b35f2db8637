"""What the alpha branch costs while the generator draws: time in alternating rounds, and memory at the peak.

python tests/bench/alphacost.py --resolution 64            # the bundled models' shape
python tests/bench/alphacost.py --resolution 1024 --channel-base 32768 --channel-max 512
"""

from __future__ import annotations

import argparse
import threading
import time

import psutil
import rounds
import torch

from hfgan import AlphaNetwork, StyleGAN2Generator


def peak(run: object) -> float:
    """Largest resident memory [MB] during a call, above that before it."""
    process, found, done = psutil.Process(), [], threading.Event()

    def watch() -> None:
        while not done.is_set():
            found.append(process.memory_info().rss)
            time.sleep(0.001)

    before, watcher = process.memory_info().rss, threading.Thread(target=watch)
    watcher.start()
    run()
    done.set()
    watcher.join()
    return (max(found) - before) / 1e6


def main() -> None:
    """Measure one shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--channel-base", type=int, default=2048)
    parser.add_argument("--channel-max", type=int, default=128)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--inner", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    sizes = {name: getattr(options, name) for name in ("resolution", "channel_base", "channel_max")}
    generator = StyleGAN2Generator(**sizes, mapping_layers=2).eval().set_compute_dtype(options.dtype)
    default = AlphaNetwork.beside(generator)
    paper = AlphaNetwork.beside(
        generator, per_resolution=2, hidden_dim=6, kernel_size=1, first_resolution=max(4, options.resolution // 32),
        trunk_resolution=options.resolution // 2,
    )  # fmt: skip
    w_plus = torch.randn(options.batch, generator.num_ws, 512)
    with torch.inference_mode():
        runs = {
            "generator": lambda: generator.synthesis(w_plus),
            "with alpha": lambda: default(generator, w_plus),
            "with the paper's alpha": lambda: paper(generator, w_plus),
        }
        for run in runs.values():
            run()
        memory = {name: min(peak(run) for _ in range(5)) for name, run in runs.items()}
        times = rounds.alternate(runs, options.rounds, options.inner, options.seconds)
    notes = {name: f"peak {megabytes:.0f} MB" for name, megabytes in memory.items()}
    title = f"alpha at {options.resolution} px, {options.dtype}, batch {options.batch}"
    rounds.report(title, times, images=options.batch, reference="generator", notes=notes, path=None)


if __name__ == "__main__":
    main()
