"""Tuning: a little of the generator's weights fitted to one photo, as a small file beside it.

Pivotal tuning (Roich et al. 2022, arXiv 2106.05744) changes every weight. Here a 3x3 kernel of the finer blocks, seen
as a matrix W (out, in 9), becomes W * (1 + A B), entry by entry, with A and B of low rank; relative changes are
HyperStyle's (Alaluf et al. 2022, arXiv 2111.15666). What is drawn of other latents is held fast.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from torch.func import functional_call

from hfgan.images import write_file
from hfgan.models.perceptual import Perceptual
from hfgan.models.stylegan2 import StyleGAN2Generator, Synthesis
from hfgan.refinement import KeepGoing, Step, Target, check_w_plus, falling, in_float32, stored_noise
from hfgan.sampling import broadcast, check_count
from hfgan.storage import read_tensors

KEY, FORMAT = "hfgan_weight_delta", 1  # of the file's metadata
MAX_RANK = 8
COARSEST = 16  # px: coarser blocks hold pose and outline, which w_plus has found
RATE = 0.005  # of Adam, at first; it falls to 0 by a cosine
LOCAL_EVERY, LOCAL_WEIGHT = 4, 1.0  # steps; as if every step had this weight

Factors = dict[str, tuple[Tensor, Tensor]]  # by the weight's name, A (out, rank) and B (rank, in 9)


@dataclass(frozen=True, eq=False)
class WeightDelta:
    """What `tune` has learned, for the one generator that it was learned beside.

    Attributes:
        fingerprint, config: Of the generator.
        factors: A (out, rank) and B (rank, in 9), fp32, of every weight that changes.
    """

    fingerprint: str
    config: dict[str, Any]
    factors: Factors

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write one safetensors file."""
        named = [(f"{name}.{part}", pair[i]) for name, pair in self.factors.items() for i, part in enumerate("ab")]
        tensors = {name: tensor.cpu().contiguous() for name, tensor in named}
        told = {"format": FORMAT, "fingerprint": self.fingerprint, "config": self.config}
        write_file(path, save(tensors, {KEY: json.dumps(told)}), overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote; FileNotFoundError or ValueError says what is wrong with the file."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist: expected a file that WeightDelta.save wrote")
        tensors, told = read_tensors(path), _read_told(path)
        names = sorted({name.rpartition(".")[0] for name in tensors})
        if set(tensors) != {f"{name}.{part}" for name in names for part in "ab"}:
            raise ValueError(f"{path} lacks a half of a pair A, B: save it again")
        factors = {name: (tensors[f"{name}.a"], tensors[f"{name}.b"]) for name in names}
        return cls(told["fingerprint"], told["config"], factors)

    def check_generator(self, generator: StyleGAN2Generator) -> None:
        """Raise ValueError unless this was learned beside these weights."""
        if self.fingerprint != generator.fingerprint():
            raise ValueError(
                f"this change of weights belongs to a generator of {self.config['resolution']} px with weights "
                f"{self.fingerprint}, not {generator.fingerprint()}: load the model that it was made with"
            )

    @torch.no_grad()
    def applied(self, generator: StyleGAN2Generator) -> StyleGAN2Generator:
        """A copy of the generator with the changed weights, and so with a fingerprint of its own."""
        self.check_generator(generator)
        own = tunable(generator)
        shapes = {name: (len(a), *b.shape[1:]) for name, (a, b) in self.factors.items() if a.shape[1:] == b.shape[:1]}
        if shapes != {name: weight.flatten(1).shape for name, weight in own.items()}:
            raise ValueError("this change of weights does not have its generator's layers: it is damaged, tune again")
        return copy_of(generator, changed(own, self.factors))


def _read_told(path: Path) -> dict[str, Any]:
    """What the file says of itself, or a ValueError if that is nothing that this version can follow."""
    with safe_open(path, "pt") as file:
        said = (file.metadata() or {}).get(KEY, "{}")
    told = json.loads(said)
    if told.keys() != {"format", "fingerprint", "config"}:
        raise ValueError(f"{path} holds no change of weights: expected a file that WeightDelta.save wrote")
    if told["format"] != FORMAT:
        raise ValueError(f"{path} has format {told['format']} and this hfgan reads {FORMAT}: upgrade hfgan")
    return told


def tune(
    generator: StyleGAN2Generator, w_plus: Tensor, image: Tensor, interest: Tensor | None = None, *, net: Perceptual,
    steps: int = 60, rank: int = 4, keep_going: KeepGoing | None = None,
) -> WeightDelta:  # fmt: skip
    """Change some weights a little so that w_plus is drawn nearer to the photos inside their interest.

    The generator itself stays as it is, and the mean loss over the photos never becomes larger.

    Args:
        w_plus: (n, num_ws, w_dim), already refined: it stays.
        image, interest: As for `Target.of`.
        net: Perceptual network on the generator's device.
        steps: Of Adam.
        rank: Of the changes, up to MAX_RANK.
        keep_going: Is told of every step; what is best so far is returned when it answers False.
    """
    check_count(steps, "steps", least=0)
    if check_count(rank, "rank") > MAX_RANK:
        raise ValueError(f"rank is {rank}: expected at most {MAX_RANK}, beyond which the file is no small one")
    target = Target.of(image, interest, generator.config.resolution, net)
    given = check_w_plus(generator, w_plus, len(image))
    twin = copy_of(generator, {})  # functional_call puts other weights in place for as long as it runs
    factors = _descend(twin, given, target, _first_factors(tunable(twin), rank), steps, keep_going)
    return WeightDelta(generator.fingerprint(), generator.arguments, factors)


@torch.enable_grad()
def _descend(
    twin: StyleGAN2Generator, w_plus: Tensor, target: Target, factors: Factors, steps: int,
    keep_going: KeepGoing | None,
) -> Factors:  # fmt: skip
    """The best factors found, by the mean loss of the photos, in at most `steps` steps of Adam from `factors`."""
    synthesis, own, source = in_float32(twin), tunable(twin), torch.Generator().manual_seed(0)
    leaves = [leaf.requires_grad_() for pair in factors.values() for leaf in pair]
    adam, best, least = torch.optim.Adam(leaves), factors, math.inf
    for k in range(steps + 1):
        weights = changed(own, factors)
        drawn = _draw(synthesis, weights, w_plus)
        error = target.loss(drawn)  # (n,)
        if error.mean() < least:
            least = error.mean().item()
            best = {name: (a.detach().clone(), b.detach().clone()) for name, (a, b) in factors.items()}
        step = Step(k, steps, w_plus, drawn.detach(), error.detach())
        if (k and keep_going and not keep_going(step)) or k == steps:
            break
        loss = error.mean()
        if k % LOCAL_EVERY == 0:
            other = random_w_plus(twin, k, source)
            with torch.no_grad():
                before = Target.of(synthesis.draw(other, stored_noise(synthesis)), None, drawn.shape[-1], target.net)
            loss = loss + LOCAL_EVERY * LOCAL_WEIGHT * before.loss(_draw(synthesis, weights, other)).mean()
        adam.param_groups[0]["lr"] = RATE * falling(k / steps)
        for leaf, gradient in zip(leaves, torch.autograd.grad(loss, leaves), strict=True):
            leaf.grad = gradient
        adam.step()
    return best


def _draw(synthesis: Synthesis, weights: dict[str, Tensor], w_plus: Tensor) -> Tensor:
    """Images (n, c, r, r) under other weights, named as in the generator."""
    inner = {name.removeprefix("synthesis."): weight for name, weight in weights.items()}
    return functional_call(synthesis, inner, (w_plus,))


def _first_factors(weights: dict[str, Tensor], rank: int) -> Factors:
    """A of zeros and B of standard normal numbers for weights (out, in, 3, 3): no change yet, but a gradient."""
    source, factors = torch.Generator().manual_seed(0), {}
    for name, weight in weights.items():
        rows, columns = weight.flatten(1).shape
        b = torch.randn(rank, columns, generator=source).to(weight)
        factors[name] = (weight.new_zeros(rows, rank), b)
    return factors


@torch.no_grad()
def random_w_plus(generator: StyleGAN2Generator, index: int, source: torch.Generator) -> Tensor:
    """w_plus (1, num_ws, w_dim) of a random z, of the classes in turn where there are any."""
    z = torch.randn(1, generator.config.z_dim, generator=source).to(generator.device)
    w = generator.mapping(z, generator.mapping.labels_in_turn(torch.tensor([index])))  # (1, w_dim)
    return broadcast(w, generator.num_ws)


def tunable(generator: StyleGAN2Generator) -> dict[str, Tensor]:
    """The 3x3 kernels (out, in, 3, 3) of blocks from COARSEST on, by their names."""
    return {
        f"synthesis.blocks.{i}.{name}.weight": getattr(block, name).weight.detach()
        for i, block in enumerate(generator.synthesis.blocks)
        for name in ("conv0", "conv1")
        if 4 << i >= COARSEST
    }


def changed(weights: dict[str, Tensor], factors: Factors) -> dict[str, Tensor]:
    """W * (1 + A B) of weights W (out, in, 3, 3)."""
    products = {name: (a @ b).view_as(weights[name]) for name, (a, b) in factors.items()}
    return {name: weights[name] * (1 + product) for name, product in products.items()}


def copy_of(generator: StyleGAN2Generator, weights: dict[str, Tensor]) -> StyleGAN2Generator:
    """The generator with some weights replaced; shares no memory, nothing that is remembered or compiled."""
    with torch.device("meta"):
        twin = type(generator)(**generator.arguments)
    tensors = {name: tensor.detach().clone() for name, tensor in generator.state_dict().items()}
    twin.load_state_dict(tensors | weights, assign=True)
    return twin.eval().set_compute_dtype(generator.dtype)
