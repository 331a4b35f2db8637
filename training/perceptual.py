"""Stage `perceptual`: distil the small perceptual network that ships with hfgan from LPIPS-Alex.

The student repeats the teacher's distance maps, layer by layer and pixel by pixel, on pairs of photos and of photos
with their distorted copies; features themselves are free. Each step depends on (seed, step) alone, so a run that
was stopped goes on exactly.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from run import RunFolder, Stopwatch, UserError, flag, load_optimizer, optimizer_tensors, part, random_source
from torch import Generator, Tensor
from torch.optim import Adam

from hfgan.data import open_photos
from hfgan.metrics import rank_correlation
from hfgan.models.perceptual import Perceptual, PerceptualNet, load_perceptual
from hfgan.storage import write_json


@dataclass(frozen=True)
class Config:
    """Distil a small perceptual network from LPIPS-Alex."""

    teacher: str = field(metadata={"help": "weights of LPIPS-Alex: .safetensors file, or lpips for that package"})
    data: tuple[str, ...] = field(metadata={"help": "training photos: folders, zips or Hub ids, one per set"})
    test: tuple[str, ...] = field(metadata={"help": "held-out photos of the same sets, for the rank correlations"})
    out: str = field(metadata={"help": "run folder; the network is written to its model/"})
    widths: tuple[int, ...] = flag((64, 128, 128, 128, 128), "channels per layer")
    photos: int = flag(4000, "photos used of each set at most")
    pairs: int = flag(120_000, "pairs to train on")
    batch_size: int = flag(32, "pairs per step")
    learning_rate: float = flag(5e-4, "Adam's at the start; falls to 0 by a cosine")
    per_kind: int = flag(400, "held-out pairs of each kind that are measured")
    seed: int = flag(0, "decides initial weights and all pairs")
    threads: int = flag(1, "CPU threads")
    checkpoint_every: int = flag(20_000, "pairs between checkpoints")


MAY_CHANGE = {"threads", "checkpoint_every"}


def main(config: Config) -> None:
    """Distil, or go on distilling, until `config.pairs`; then measure and publish."""
    torch.set_num_threads(config.threads)
    teacher = load_perceptual(config.teacher)
    if not isinstance(teacher, PerceptualNet):
        raise UserError(f"--teacher {config.teacher} is a {type(teacher).__name__}: give weights of LPIPS-Alex")
    folder = RunFolder(config.out, config, MAY_CHANGE, main_process=True)
    photos = Photos(config.data, config.photos)
    student = narrowed(teacher, config.widths, *training_pairs(photos, 256, random_source(config.seed, 0)))
    optimizer = Adam(student.parameters(), betas=(0.9, 0.99))
    if saved := folder.load_checkpoint():
        student.load_state_dict(part(saved[0], "student"))
        load_optimizer(optimizer, saved[0], "adam")
    seen, seconds = (saved[1]["images_seen"], saved[1]["seconds"]) if saved else (0, 0.0)
    folder.forget_after(seen)
    if not train(config, folder, photos, student, teacher, optimizer, seen, Stopwatch(None, seconds)):
        print("stopped; the same command goes on from here")
        return
    publish(config, folder, student, teacher)


# ---------------------------------------------------------------- pairs

SIZES = (64, 64, 64, 64, 64, 128)  # px at which pairs are compared, drawn evenly
OPEN_SIZE = 128  # px at which photos are opened

# images (n,3,r,r) in [-1,1], other images alike, strengths (n,1,1,1) in [0,1] -> distorted images
Distortion = Callable[[Tensor, Tensor, Tensor, Generator], Tensor]


def blur(images: Tensor, others: Tensor, strength: Tensor, rng: Generator) -> Tensor:
    """Gaussian, sigma up to 1/20 of the side."""
    n, c, r, _ = images.shape
    sigma = (0.3 + strength * r / 20).flatten(1)  # (n,1)
    reach = r // 8
    taps = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernel = torch.softmax(-((taps / sigma) ** 2) / 2, dim=1).repeat_interleave(c, 0)  # (n*c, taps)
    x = F.pad(images, (reach,) * 4, mode="reflect").reshape(1, n * c, r + 2 * reach, r + 2 * reach)
    x = F.conv2d(F.conv2d(x, kernel[:, None, :, None], groups=n * c), kernel[:, None, None, :], groups=n * c)
    return x.reshape(n, c, r, r)


def noise(images: Tensor, others: Tensor, strength: Tensor, rng: Generator) -> Tensor:
    """White Gaussian noise, deviation up to 0.5 of the range [-1, 1]."""
    return images + torch.randn(images.shape, generator=rng) * (0.01 + strength.square() * 0.5)


def shift(images: Tensor, others: Tensor, strength: Tensor, rng: Generator) -> Tensor:
    """Translation by up to 1/8 of the side, borders reflected."""
    angle = torch.rand(len(images), generator=rng) * 2 * math.pi
    move = torch.stack([angle.cos(), angle.sin()], 1) * strength.flatten(1) * 0.25  # in grid units of half a side
    affine = torch.cat([torch.eye(2).expand(len(images), 2, 2), move[:, :, None]], 2)
    return resample_grid(images, F.affine_grid(affine, list(images.shape), align_corners=False))


def warp(images: Tensor, others: Tensor, strength: Tensor, rng: Generator) -> Tensor:
    """Smooth random displacement by up to about 1/10 of the side."""
    field_ = F.interpolate(torch.randn(len(images), 2, 5, 5, generator=rng), size=images.shape[-2:], mode="bicubic")
    plain = F.affine_grid(torch.eye(2, 3).expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return resample_grid(images, plain + (field_ * strength * 0.1).permute(0, 2, 3, 1))


def resample_grid(images: Tensor, grid: Tensor) -> Tensor:
    """Images (n,3,r,r) looked up at grid (n,r,r,2), bilinear, borders reflected."""
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def colour(images: Tensor, others: Tensor, strength: Tensor, rng: Generator) -> Tensor:
    """Brightness, contrast, saturation and white balance, each by up to about half."""
    bright, contrast, saturation = (torch.randn(3, len(images), 1, 1, 1, generator=rng) * strength).unbind(0)
    balance = torch.randn(len(images), 3, 1, 1, generator=rng) * strength * 0.3
    grey = images.mean(1, keepdim=True)
    x = grey + (images - grey) * (1 + saturation * 0.6)
    return x * (1 + contrast * 0.4) + bright * 0.4 + balance


def jpeg(images: Tensor, others: Tensor, strength: Tensor, rng: Generator) -> Tensor:
    """JPEG of quality 90 down to 2."""
    return torch.stack([_jpeg(x, 90 - round(float(s) * 88)) for x, s in zip(images, strength, strict=True)])


def _jpeg(image: Tensor, quality: int) -> Tensor:
    pixels = ((image.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).contiguous()
    data = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(data, "JPEG", quality=quality)
    decoded = torch.frombuffer(bytearray(Image.open(data).tobytes()), dtype=torch.uint8)
    return decoded.reshape(pixels.shape).permute(2, 0, 1) / 127.5 - 1


def occlusion(images: Tensor, others: Tensor, strength: Tensor, rng: Generator) -> Tensor:
    """A rectangle of another photo or of one colour over up to 2/3 of either side."""
    n, _, r, _ = images.shape
    side = (0.05 + 0.6 * strength.view(n, 1) * (0.5 + torch.rand(n, 2, generator=rng) / 2)) * r
    start = torch.rand(n, 2, generator=rng) * (r - side)
    at = torch.arange(r)
    inside = (at >= start[:, :, None]) & (at < (start + side)[:, :, None])  # (n,2,r)
    alpha = (inside[:, 0, :, None] & inside[:, 1, None, :])[:, None]
    flat = torch.rand(n, 3, 1, 1, generator=rng) * 2 - 1
    cover = torch.where(torch.rand(n, 1, 1, 1, generator=rng) < 0.5, flat, others)
    return torch.where(alpha, cover, images)


def pixelate(images: Tensor, others: Tensor, strength: Tensor, rng: Generator) -> Tensor:
    """Shrunk by 1.5 to 8 and enlarged again, by one factor for the batch."""
    size = max(round(images.shape[-1] / (1.5 + 6.5 * float(strength.mean()))), 4)
    small = F.interpolate(images, size=(size, size), mode="area")
    return F.interpolate(small, size=images.shape[-2:], mode="bilinear", align_corners=False)


def blend(images: Tensor, others: Tensor, strength: Tensor, rng: Generator) -> Tensor:
    """Cross-fade to another photo."""
    return torch.lerp(images, others, 0.02 + 0.98 * strength)


def replace(images: Tensor, others: Tensor, strength: Tensor, rng: Generator) -> Tensor:
    """The other photo itself: within a set or across sets, as `others` was drawn."""
    return others


DISTORTIONS: dict[str, Distortion] = {
    f.__name__: f for f in (blur, noise, shift, warp, colour, jpeg, occlusion, pixelate, blend)
}
KINDS = ("within", "across", *DISTORTIONS)
GROUP = 4  # training pairs of one kind and strength of what is one for a group


class Photos:
    """Sets of photos in memory, uint8 (n,3,128,128) each, and pairs drawn from them."""

    def __init__(self, sources: Sequence[str], limit: int) -> None:
        self.sets = [self._open(source, limit) for source in sources]

    @staticmethod
    def _open(source: str, limit: int) -> Tensor:
        photos = open_photos(source, OPEN_SIZE)
        chosen = torch.randperm(len(photos), generator=random_source(len(photos)))[:limit]
        return photos.batch(chosen.tolist())

    def draw(self, which: Tensor, size: int, rng: Generator) -> Tensor:
        """One random photo of each set in `which` (n,), as float (n,3,size,size) in [-1,1]."""
        at = torch.rand(len(which), generator=rng)
        found = [self.sets[s][int(u * len(self.sets[s]))] for s, u in zip(which.tolist(), at.tolist(), strict=True)]
        images = torch.stack(found) / 127.5 - 1
        images = torch.where(torch.rand(len(which), 1, 1, 1, generator=rng) < 0.5, images, images.flip(3))
        return F.interpolate(images, size=(size, size), mode="area") if size != OPEN_SIZE else images

    def pairs(self, kind: str, n: int, size: int, rng: Generator) -> tuple[Tensor, Tensor]:
        """n pairs of images (n,3,size,size) in [-1,1] that differ as `kind` of KINDS says."""
        which = torch.randint(len(self.sets), (n,), generator=rng)
        step = torch.randint(1, max(len(self.sets), 2), (n,), generator=rng) * (kind == "across")
        images = self.draw(which, size, rng)
        others = self.draw((which + step) % len(self.sets), size, rng)
        strength = torch.rand(n, 1, 1, 1, generator=rng)
        changed = DISTORTIONS.get(kind, replace)(images, others, strength, rng)
        return images, changed.clamp(-1, 1)


def training_pairs(photos: Photos, n: int, rng: Generator) -> tuple[Tensor, Tensor]:
    """n pairs (n,3,r,r) of one size r of SIZES, in groups of one kind; a third are photo against photo."""
    size = SIZES[int(torch.randint(len(SIZES), (), generator=rng))]
    groups = [_group(photos, min(GROUP, n - at), size, rng) for at in range(0, n, GROUP)]
    a, b = zip(*groups, strict=True)
    return torch.cat(a), torch.cat(b)


def _group(photos: Photos, n: int, size: int, rng: Generator) -> tuple[Tensor, Tensor]:
    """Pairs of one kind; at times a second distortion on the copy, at times on both sides."""
    kinds = [*DISTORTIONS, "within", "within", "across", "across"]
    pick, again, both = torch.rand(3, generator=rng).tolist()
    a, b = photos.pairs(kinds[int(pick * len(kinds))], n, size, rng)
    if again < 0.35:
        b = _distort(b, a, rng)
    if both < 0.15:
        a, b = _distort(a, b, rng), _distort(b, a, rng)
    return a, b


def _distort(images: Tensor, others: Tensor, rng: Generator) -> Tensor:
    name = list(DISTORTIONS)[int(torch.randint(len(DISTORTIONS), (), generator=rng))]
    strength = torch.rand(len(images), 1, 1, 1, generator=rng)
    return DISTORTIONS[name](images, others, strength, rng).clamp(-1, 1)


# ---------------------------------------------------------------- distillation


def distillation_loss(student: Perceptual, teacher: Perceptual, a: Tensor, b: Tensor) -> Tensor:
    """How far the student's distance is from the teacher's on pairs (n,3,r,r): maps per layer, and their sum.

    Maps are compared by root, for they are squared distances; sums by log, for all that counts is their order.
    """
    with torch.no_grad():
        wanted = teacher.distance_maps(teacher.features(a), teacher.features(b))
    found = student.distance_maps(student.features(a), student.features(b))
    maps = sum((_root(f) - _root(w)).abs().mean() for f, w in zip(found, wanted, strict=True))
    return maps + 0.3 * (_log_total(found) - _log_total(wanted)).abs().mean()


def _root(distance_map: Tensor) -> Tensor:
    return (distance_map + 1e-5).sqrt()


def _log_total(maps: list[Tensor]) -> Tensor:
    return (sum(m.mean((1, 2, 3)) for m in maps) + 1e-3).log()  # (n,)


def learning_rate(config: Config, pairs_seen: int) -> float:
    """Linear warm-up over the first 2 %, then a cosine to zero."""
    at = pairs_seen / config.pairs
    return config.learning_rate * min(at / 0.02 + 0.01, 1) * (0.5 + 0.5 * math.cos(math.pi * at))


@torch.no_grad()
def narrowed(teacher: PerceptualNet, widths: Sequence[int], a: Tensor, b: Tensor) -> PerceptualNet:
    """The teacher with only the channels that tell most of the distance of pairs (n,3,r,r): where a student starts.

    What a layer loses of its input is made up on average by a gain on the weights.
    """
    student, kept = PerceptualNet(widths=list(widths)), torch.arange(3)
    units = zip(*(teacher.weighted_units(teacher.features(x)) for x in (a, b)), strict=True)
    for i, (x, y) in enumerate(units):
        own, theirs = student.convs[i], teacher.convs[i]
        chosen = (x - y).square().mean((0, 2, 3)).topk(widths[i]).indices.sort().values
        own.weight.copy_(theirs.weight[chosen][:, kept] * math.sqrt(theirs.in_channels / len(kept)))
        own.bias.copy_(theirs.bias[chosen])
        student.gains[i].copy_(teacher.gains[i][chosen])
        kept = chosen
    return student


def train(
    config: Config, folder: RunFolder, photos: Photos, student: PerceptualNet, teacher: PerceptualNet,
    optimizer: Adam, seen: int, watch: Stopwatch,
) -> bool:  # fmt: skip
    """Steps from `seen` pairs on, with a checkpoint every so often; False when it was asked to stop early."""
    losses: list[float] = []
    while seen < config.pairs and not watch.should_stop():
        optimizer.param_groups[0]["lr"] = learning_rate(config, seen)
        a, b = training_pairs(photos, config.batch_size, random_source(config.seed, 1, seen))
        loss = distillation_loss(student, teacher, a, b)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        before, seen = seen, seen + config.batch_size
        if before // config.checkpoint_every != seen // config.checkpoint_every:
            save(folder, student, optimizer, seen, watch)
            folder.log({"images_seen": seen, "seconds": watch.seconds(), "loss": sum(losses) / len(losses)})
            losses.clear()
    save(folder, student, optimizer, seen, watch)
    return seen >= config.pairs


def save(folder: RunFolder, student: PerceptualNet, optimizer: Adam, seen: int, watch: Stopwatch) -> None:
    """A checkpoint; what the run folder counts as images are pairs here."""
    tensors = {f"student.{k}": v for k, v in student.state_dict().items()} | optimizer_tensors(optimizer, "adam")
    folder.save_checkpoint(seen, tensors, {"images_seen": seen, "seconds": watch.seconds()})


def publish(config: Config, folder: RunFolder, student: PerceptualNet, teacher: PerceptualNet) -> None:
    """Write model/ (fp16) and model/metrics.json: correlations of the stored network on held-out pairs."""
    model = folder.path / "model"
    student.save_pretrained(model, dtype=torch.float16)
    stored, held_out = load_perceptual(model), Photos(config.test, config.photos)
    found = {f"{size} px": rank_correlations(stored, teacher, held_out, size, config.per_kind) for size in (64, 128)}
    training = {k: v for k, v in asdict(config).items() if k not in ("teacher", "data", "test", "out", "per_kind")}
    hours = folder.load_checkpoint()[1]["seconds"] / 3600
    about = {"what": "Spearman correlation with LPIPS-Alex on held-out pairs", "spearman": found}
    about |= {"sets": [Path(s).name for s in config.test], "training": training, "hours": round(hours, 2)}
    write_json(model / "metrics.json", about)
    for size, row in found.items():
        print(size, "  ".join(f"{kind} {value:.3f}" for kind, value in row.items()))


# ---------------------------------------------------------------- rank correlation


@torch.no_grad()
def rank_correlations(
    net: Perceptual, teacher: Perceptual, photos: Photos, size: int, per_kind: int, seed: int = 1
) -> dict[str, float]:
    """Spearman correlation of two distances on pairs of photos, for each kind, and over all pairs ("all")."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for i, kind in enumerate(KINDS):
        a, b = photos.pairs(kind, per_kind, size, random_source(seed, i))
        found[kind] = net.distance(a, b), teacher.distance(a, b)
    found["all"] = tuple(torch.cat(side) for side in zip(*found.values(), strict=True))
    return {kind: round(rank_correlation(ours, theirs), 4) for kind, (ours, theirs) in found.items()}
