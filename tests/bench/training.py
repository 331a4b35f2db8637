"""How fast a training step is, and that its gradients are right, against the published formulation in fp32.

python tests/bench/training.py --resolution 64 --channel-base 8192 --channel-max 128 --batch 8
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import reference
import rounds
import torch
from torch import Tensor
from torch.optim import Adam

from hfgan import losses
from hfgan.memory import keep_freed_memory
from hfgan.models.base import auto_dtype
from hfgan.models.discriminator import StyleGAN2Discriminator
from hfgan.models.stylegan2 import StyleGAN2Generator


@dataclass
class Side:
    """Both networks in one formulation: as functions, with their parameters by name."""

    generate: Callable[..., Tensor]  # z, noise mode to images
    discriminate: Callable[[Tensor], Tensor]
    parameters: dict[str, dict[str, Tensor]]  # of "generator" and "discriminator"

    def __post_init__(self) -> None:
        self.optimizers = {
            name: Adam(found.values(), lr=1e-4, betas=(0.0, 0.99)) for name, found in self.parameters.items()
        }

    def learn(self, name: str) -> None:
        """Let gradients reach one network."""
        for other, found in self.parameters.items():
            for value in found.values():
                value.requires_grad_(other == name)

    def generator_loss(self, z: Tensor, noise: str) -> tuple[Tensor, Tensor]:
        fake = self.generate(z, noise)
        return losses.logistic_g(self.discriminate(fake)), fake.detach()

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return losses.logistic_d(self.discriminate(real), self.discriminate(fake))

    def update(self, name: str, loss: Tensor) -> None:
        loss.backward()
        self.optimizers[name].step()
        self.optimizers[name].zero_grad()

    def step(self, real: Tensor, z: Tensor) -> None:
        """The generator's, then the discriminator's step, each on images of its own."""
        self.learn("generator")
        self.update("generator", self.generator_loss(z, "random")[0])
        self.learn("discriminator")
        with torch.no_grad():
            fake = self.generate(z, "random")
        self.update("discriminator", self.discriminator_loss(real, fake))

    def penalty(self, real: Tensor) -> None:
        """The R1 step."""
        self.learn("discriminator")
        self.update("discriminator", losses.gradient_penalty(self.discriminate, real)[0])

    def gradients(self, real: Tensor, z: Tensor) -> dict[str, Tensor]:
        """Of every tensor: from the generator's loss, the discriminator's loss and R1."""
        found = {}
        self.learn("generator")
        loss, fake = self.generator_loss(z, "const")
        found |= self.gradients_of("generator", loss, "G")
        self.learn("discriminator")
        found |= self.gradients_of("discriminator", self.discriminator_loss(real, fake), "D")
        return found | self.gradients_of("discriminator", losses.gradient_penalty(self.discriminate, real)[0], "R1")

    def gradients_of(self, name: str, loss: Tensor, label: str) -> dict[str, Tensor]:
        grads = torch.autograd.grad(loss, list(self.parameters[name].values()), allow_unused=True)
        pairs = zip(self.parameters[name], grads, strict=True)
        return {f"{label} {key}": grad for key, grad in pairs if grad is not None}


def plain(generator: StyleGAN2Generator, discriminator: StyleGAN2Discriminator, *, grouped: bool) -> Side:
    states = [reference.flat_state(model, torch.float32, requires_grad=True) for model in (generator, discriminator)]
    g_tree, d_tree = map(reference.nest, states)
    parameters = [{name: value for name, value in state.items() if value.requires_grad} for state in states]
    return Side(
        lambda z, noise: reference.generator(g_tree, z, noise=noise, grouped=grouped),
        lambda image: reference.discriminator(d_tree, image),
        dict(zip(("generator", "discriminator"), parameters, strict=True)),
    )


def ours(sizes: dict[str, int], states: list[dict[str, Tensor]], dtype: torch.dtype) -> Side:
    g = StyleGAN2Generator(**sizes).set_compute_dtype(dtype)
    d = StyleGAN2Discriminator(**sizes).set_compute_dtype(dtype)
    for model, state in zip((g, d), states, strict=True):
        model.load_state_dict(state)
    parameters = {"generator": dict(g.named_parameters()), "discriminator": dict(d.named_parameters())}
    return Side(lambda z, noise: g(z, noise_mode=noise), d, parameters)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--channel-base", type=int, default=8192)
    parser.add_argument("--channel-max", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=60, help="no new round after so many seconds, per step kind")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="append the figures to this file")
    parser.add_argument("--keep-freed-memory", action="store_true", help="as our scripts do: no page faults")
    args = parser.parse_args()
    if args.keep_freed_memory:
        keep_freed_memory()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    sizes = {name: getattr(args, name) for name in ("resolution", "channel_base", "channel_max")}
    first = [StyleGAN2Generator(**sizes), StyleGAN2Discriminator(**sizes)]
    states = [model.state_dict() for model in first]
    sides = {"reference": plain(*first, grouped=True), "reference, scaled activations": plain(*first, grouped=False)}
    sides |= {f"eager {str(dtype)[6:]}": ours(sizes, states, dtype) for dtype in {torch.float32: 0, auto_dtype(): 0}}
    real = torch.rand(args.batch, 3, args.resolution, args.resolution) * 2 - 1
    z = torch.randn(args.batch, 512)
    truth = sides["reference"].gradients(real, z)
    notes = {name: told(side.gradients(real, z), truth) for name, side in sides.items()}
    size = f"{args.resolution} px, channel_base {args.channel_base}, max {args.channel_max}, batch {args.batch}"
    for title, kind in (("D+G step", Side.step), ("R1 step", Side.penalty)):
        arguments = (real, z) if kind is Side.step else (real,)
        candidates = {name: lambda side=side: kind(side, *arguments) for name, side in sides.items()}  # noqa: B023
        times = rounds.alternate(candidates, args.rounds, 1, args.seconds)
        rounds.report(f"{title} {size}", times, images=args.batch, reference="reference", notes={}, path=args.json)
    print("\nrelative error of each tensor's gradient: median, 90 % and worst")
    for name, note in notes.items():
        print(f"  {name:32s} {note}")


def told(found: dict[str, Tensor], truth: dict[str, Tensor]) -> str:
    """Errors by loss; a tensor's error counts against its own gradient, or the network's where that is larger."""
    parts = []
    for label in ("G", "D", "R1"):
        names = [name for name in truth if name.split()[0] == label]
        floor = torch.cat([truth[name].flatten() for name in names]).square().mean().sqrt()
        errors = sorted(
            ((found[n] - truth[n]).square().mean().sqrt() / truth[n].square().mean().sqrt().maximum(floor)).item()
            for n in names
        )
        ninth = errors[int(0.9 * (len(errors) - 1))]
        parts.append(f"{label} {statistics.median(errors):.0e} {ninth:.0e} {errors[-1]:.0e}")
    return ", ".join(parts)


if __name__ == "__main__":
    main()
