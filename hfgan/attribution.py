"""Attribution: does a model redraw a picture as closely as it redraws its own samples? Evidence, and no proof.

A picture is projected into one w for all layers (Karras et al. 2020, arXiv 1912.04958 section 5): more freedom, such
as a w per layer or fitted noise, would redraw photos too. The noise is the stored one, as in samples: without any they
are told less well. Samples that were drawn with fresh noise can be missed, the more a model leaves to its noise.
How close is close is calibrated once for each model, on samples of it and on photos that it has never seen:

    likelihood ratio = p(distance | drawn by the model) / p(distance | photo),

which falls with the distance (isotonic regression), and is bounded by what so many samples and photos can tell.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from hfgan.images import Source, load_image, pil_to_pixels, resize_square, to_image, to_pil, with_channels
from hfgan.inversion import Encoder, encode
from hfgan.models.perceptual import PerceptualNet
from hfgan.models.stylegan2 import StyleGAN2Generator
from hfgan.projection import w_statistics
from hfgan.refinement import (
    BETAS,
    KeepGoing,
    Refined,
    Reporter,
    Target,
    Trial,
    descend,
    falling,
    in_float32,
    one_core,
    stored_noise,
)
from hfgan.sampling import broadcast
from hfgan.storage import read_json, write_atomic

FILE, FORMAT = "attribution.json", 1
STEPS = 60  # of Adam
RATE = 0.1  # of Adam at first, in deviations of w
PSIS = ("1", "0.7")  # truncations of the samples
LEAST = 100  # samples at each psi, and photos
DRAWS, TAIL = 500, 0.025  # of the bootstrap, and what its interval leaves out on each side
ENOUGH = 10.0  # likelihood ratio from which on evidence is spoken of: the lower end of its interval
LIMITS = """Saving as JPEG, resizing, cropping, editing, style mixing, fresh noise and fine-tuned or other checkpoints
can break this check: a picture that the model made may then look like none of its own. It says nothing about a person,
and proves nothing about where a picture comes from."""
CALIBRATE = "`accelerate launch training/train.py attribution` makes one"


# ---------------------------------------------------------------- calibration


@dataclass(frozen=True)
class Protocol:
    """All that a distance depends on beside the picture; distances of different protocols do not compare.

    Attributes:
        generator, encoder, network: Fingerprints; no encoder where the search starts at the mean of w.
        steps, rate: Of the search.
    """

    generator: str
    encoder: str | None
    network: str
    steps: int = STEPS
    rate: float = RATE

    @classmethod
    def of(cls, generator: StyleGAN2Generator, encoder: Encoder | None, net: PerceptualNet) -> Self:
        """The protocol of `redraw` with these networks."""
        return cls(generator.fingerprint(), encoder and encoder.fingerprint(), net.fingerprint())


@dataclass(frozen=True)
class Calibration:
    """Distances that a model redraws its own samples at, and photos that it has never seen.

    Attributes:
        protocol: What they were measured by.
        samples: Sorted, LEAST or more, by the truncation psi (PSIS) of the samples.
        photos: Sorted, LEAST or more.
        source: Name of the photos.
        versions: Of the libraries, for the record.
        robustness: Rows of how well altered pictures are told, for the record: see the stage that makes them.
    """

    protocol: Protocol
    samples: Mapping[str, list[float]]
    photos: list[float]
    source: str
    versions: Mapping[str, str]
    robustness: list[dict[str, Any]]

    def __post_init__(self) -> None:
        if [*self.samples] != [*PSIS]:
            raise ValueError(f"samples are of psi {', '.join(self.samples)}: expected {', '.join(PSIS)}")
        for name, given in (*self.samples.items(), ("photos", self.photos)):
            _check_distances(given, f"samples of psi {name}" if name in PSIS else name)

    @property
    def own(self) -> np.ndarray:
        """Distances of all samples, sorted."""
        return np.sort(np.concatenate([*self.samples.values()]))

    @cached_property
    def curves(self) -> tuple[np.ndarray, np.ndarray]:
        """Sorted distances (k,), and logarithms (1 + DRAWS, k) of the likelihood ratio there, each row falling.

        The first row is the estimate, the others are its Bayesian bootstrap (Rubin 1981), of a fixed seed. To either
        side one more of the other kind is added, a photo that is redrawn perfectly and a sample that is not at all:
        that none was seen among so many does not say that there are none.
        """
        own, photos = self.own, np.array(self.photos)
        distances = np.concatenate([[-np.inf], own, photos, [np.inf]])
        kind = np.concatenate([[0.0], np.ones(len(own)), np.zeros(len(photos)), [1.0]])  # 1: of the model
        order = np.lexsort((-kind, distances))
        drawn = np.random.default_rng(0).exponential(size=(DRAWS, len(order)))
        weights = np.concatenate([np.ones((1, len(order))), drawn])
        return distances[order], np.stack([_log_ratios(kind[order], one) for one in weights])

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read an attribution.json.

        Raises:
            FileNotFoundError: there is none. ValueError: it is damaged, too small, or of a later format.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path} does not exist: this model has no calibration, {CALIBRATE}")
        found = read_json(Path(path))
        if found.pop("_format", None) != FORMAT:
            raise ValueError(f"{path} has another format than {FORMAT}: upgrade hfgan, or {CALIBRATE}")
        try:
            protocol = _strictly(Protocol, found.pop("protocol", None))
            return _strictly(cls, found | {"protocol": protocol})
        except ValueError as error:
            raise ValueError(f"{path} is no calibration ({error}): {CALIBRATE}") from error

    def save(self, path: str | Path) -> None:
        """Write it as JSON, a list of numbers on a line."""
        content = {"_format": FORMAT} | asdict(self)
        rows = [f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in content.items()]
        write_atomic(Path(path), ("{\n" + ",\n".join(rows) + "\n}\n").encode())

    def check(self, protocol: Protocol) -> None:
        """ValueError unless this was measured by that very protocol."""
        for field in fields(Protocol):
            known, given = getattr(self.protocol, field.name), getattr(protocol, field.name)
            if known != given:
                raise ValueError(
                    f"this model's calibration belongs to another {field.name}, {known} and not {given}: {CALIBRATE}"
                )


def _strictly(cls: type, given: Any) -> Any:
    """A dataclass of exactly its fields, each of its kind, or a ValueError."""
    kinds = {"steps": int, "rate": float, "encoder": str | None, "protocol": Protocol, "samples": dict, "photos": list,
             "versions": dict, "robustness": list}  # fmt: skip
    names = [field.name for field in fields(cls)]
    if not isinstance(given, dict) or sorted(given) != sorted(names):
        raise ValueError(f"expected exactly {', '.join(names)}")
    for name, value in given.items():
        if not isinstance(value, kinds.get(name, str)):
            raise ValueError(f"{name} is {value!r:.40}")
    return cls(**given)


def _check_distances(given: Any, name: str) -> None:
    """ValueError unless these are LEAST or more sorted distances."""
    numbers = isinstance(given, list) and all(isinstance(one, float) and 0 <= one < math.inf for one in given)
    if not numbers or given != sorted(given):
        raise ValueError(f"the {name} are not sorted distances")
    if len(given) < LEAST:
        raise ValueError(f"the {name} are {len(given)}: expected {LEAST} or more")


# ---------------------------------------------------------------- distance


def see(photo: Image | Source, generator: StyleGAN2Generator) -> Tensor:
    """The middle square of a picture as a model sees it, (1, c, r, r) in [-1, 1], on the levels of a PNG."""
    config = generator.config
    square = resize_square(with_channels(load_image(photo), config.img_channels), config.resolution)
    return to_image(pil_to_pixels(square)[None])


def redraw(
    generator: StyleGAN2Generator, encoder: Encoder | None, image: Tensor, *, net: PerceptualNet,
    keep_going: KeepGoing | None = None,
) -> Refined:  # fmt: skip
    """Search the one w, for all layers, that draws an image; the last row of `errors` (n,) is its distance.

    Nothing in it is drawn by lot. It starts at the mean over layers of what an encoder finds, where there is one.

    Args:
        image: (n, c, r, r) in [-1, 1]. Samples do not influence one another, but rounding does, by up to a third of a
            small distance: one batch size and another, bfloat16 and float32.
        net: Perceptual network on the generator's device.
        keep_going: Is told of every step; what is best so far is returned when it answers False.
    """
    image = image.to(generator.device)
    target, synthesis = Target.of(image, None, generator.config.resolution, net), in_float32(generator)
    mean, spread = w_statistics(generator)
    start = mean.expand(len(image), -1)  # (n, w_dim)
    if encoder is not None:
        *_, (found, _) = encode(generator, encoder, image, None, encoder.default_steps)
        start = found.mean(1)
    moved = torch.zeros_like(start, requires_grad=True)  # (n, w_dim), in deviations of w

    def attempt(_: float) -> Trial:
        w_plus = broadcast(start + moved * spread / len(mean) ** 0.5, generator.num_ws)  # (n, num_ws, w_dim)
        drawn = synthesis.draw(w_plus, stored_noise(synthesis))
        error = target.loss(drawn)
        return Trial(w_plus, None, drawn, error, loss=error, score=error)

    adam = torch.optim.Adam([moved], betas=BETAS)
    return descend(adam, attempt, lambda time: RATE * falling(time), STEPS, Reporter(keep_going, STEPS))


# ---------------------------------------------------------------- evidence


@dataclass(frozen=True)
class Attribution:
    """What a distance tells.

    Attributes:
        distance: At which the picture was redrawn.
        percentile_samples, percentile_photos: How many in a hundred are redrawn at least as closely.
        likelihood_ratio: Of the model over a photo; above 1 speaks for the model.
        interval: 95 % of it, given so few samples and photos.
        seen, drawn: The picture as the model saw it, and redrawn.
    """

    distance: float
    percentile_samples: float
    percentile_photos: float
    likelihood_ratio: float
    interval: tuple[float, float]
    seen: Image
    drawn: Image


def attribute(
    generator: StyleGAN2Generator, encoder: Encoder | None, photo: Image | Source, calibration: Calibration, *,
    net: PerceptualNet, keep_going: KeepGoing | None = None,
) -> Attribution | None:  # fmt: skip
    """How closely a model redraws a picture, beside its own samples and photos; None where `keep_going` ended it.

    A search that was cut short does not compare, so that nothing is said of it.

    Raises:
        ValueError: no readable picture, or a calibration of another model or protocol.
    """
    calibration.check(Protocol.of(generator, encoder, net))
    image = see(photo, generator)
    with one_core(image):
        found = redraw(generator, encoder, image, net=net, keep_going=keep_going)
    if len(found.errors) <= STEPS:
        return None
    with torch.no_grad():
        drawn = in_float32(generator).draw(found.w_plus, stored_noise(generator.synthesis))
    distance = found.errors[-1].item()
    ratio, interval = weigh(distance, calibration)
    return Attribution(
        distance, _percentile(distance, calibration.own), _percentile(distance, np.array(calibration.photos)), ratio,
        interval, to_pil(image)[0], to_pil(drawn)[0],
    )  # fmt: skip


def _percentile(distance: float, among: np.ndarray) -> float:
    """How many in a hundred are not larger."""
    return 100 * float((among <= distance).mean())


def weigh(distance: float, calibration: Calibration) -> tuple[float, tuple[float, float]]:
    """The likelihood ratio of a distance, and 95 % of its bootstrap: from 1 / samples to the number of photos."""
    distances, curves = calibration.curves
    before = np.searchsorted(distances, distance, "right") - 1  # the last that is not larger
    after = max(before, np.searchsorted(distances, distance, "left"))  # the first that is not smaller
    bounds = -math.log(len(calibration.own)), math.log(len(calibration.photos))
    found = np.clip(curves[:, [before, after]].mean(1), *bounds)  # between two, half way
    lower, upper = np.quantile(found[1:], (TAIL, 1 - TAIL))
    return math.exp(found[0]), (math.exp(lower), math.exp(upper))


def _log_ratios(kind: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Logarithm of the likelihood ratio at each of the sorted distances, falling; both kinds weigh the same in sum."""
    from sklearn.isotonic import isotonic_regression

    sums = np.where(kind == 1, weights[kind == 1].sum(), weights[kind == 0].sum())
    share = isotonic_regression(kind, sample_weight=weights / sums, increasing=False)
    share = np.clip(share, 1e-9, 1 - 1e-9)
    return np.log(share) - np.log1p(-share)


# ---------------------------------------------------------------- words


def supported(found: Attribution) -> bool:
    """Whether there is evidence that the model drew it."""
    return found.interval[0] >= ENOUGH


def sentence(found: Attribution, model: str) -> str:
    """What was found, in words that claim no more than that; LIMITS belongs beside it."""
    low, high = found.interval
    if supported(found):
        told = f"{model} redraws this picture as closely as it redraws its own samples"
    elif high < 1:
        told = f"There is no evidence that {model} made this picture: it redraws it no closer than photos"
    else:
        told = f"There is too little evidence to say whether {model} made this picture"
    ratio, low, high = (f"{one:.0f}" if one >= 10 else f"{one:.2g}" for one in (found.likelihood_ratio, low, high))
    return (
        f"{told} (percentile {found.percentile_samples:.0f} of its samples, {found.percentile_photos:.0f} of photos; "
        f"likelihood ratio {ratio}, 95 % interval {low} to {high})."
    )
