"""How fast images are drawn, against the published formulation in fp32 with equal weights.

python tests/bench/sampling.py --resolution 64 --batch 8 --compile
"""

from __future__ import annotations

import argparse
from pathlib import Path

import reference
import rounds
import torch
from torch import Tensor

from hfgan.memory import keep_freed_memory
from hfgan.models.base import auto_dtype
from hfgan.models.stylegan2 import StyleGAN2Generator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--channel-base", type=int, default=16384)
    parser.add_argument("--channel-max", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="also compiled, in fp32 and in the automatic dtype")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--inner", type=int, default=2, help="timed calls per round")
    parser.add_argument("--seconds", type=float, default=60, help="no new round after so many seconds")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="append the figures to this file")
    parser.add_argument("--keep-freed-memory", action="store_true", help="as our scripts do: no page faults")
    args = parser.parse_args()
    if args.keep_freed_memory:
        keep_freed_memory()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    sizes = {name: getattr(args, name) for name in ("resolution", "channel_base", "channel_max")}
    first = StyleGAN2Generator(**sizes)
    tree = reference.nest(reference.flat_state(first, torch.float32))
    z = torch.randn(args.batch, first.config.z_dim)
    candidates = {
        "reference": lambda: reference.generator(tree, z),
        "reference, scaled activations": lambda: reference.generator(tree, z, grouped=False),
    }
    auto = auto_dtype()
    for compiled in (False, True) if args.compile else (False,):
        for dtype in {torch.float32: 0, auto: 0}:
            model = StyleGAN2Generator(**sizes).eval().set_compute_dtype(dtype)
            model.load_state_dict(first.state_dict())
            if compiled:
                model.compile()
            name = f"{'compiled' if compiled else 'eager'} {str(dtype).removeprefix('torch.')}"
            candidates[name] = lambda model=model: model(z)
    with torch.inference_mode():
        truth = candidates["reference"]()
        notes = {name: f"rms/std {error(run(), truth):.1e}" for name, run in candidates.items()}
        times = rounds.alternate(candidates, args.rounds, args.inner, args.seconds)
    title = f"sampling {args.resolution} px, channel_base {args.channel_base}, batch {args.batch}"
    rounds.report(title, times, images=args.batch, reference="reference", notes=notes, path=args.json)


def error(image: Tensor, truth: Tensor) -> float:
    """Root mean square difference over the standard deviation of the truth."""
    return ((image - truth).square().mean().sqrt() / truth.std()).item()


if __name__ == "__main__":
    main()
