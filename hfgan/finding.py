"""How directions are found: from clicks, scores, a few pictures, the weights themselves, W, or modes.

A classifier on w gives a normal n, as InterFaceGAN has it (Shen et al. 2020, arXiv 1907.10786). A picture is moved
along Cov(w) n: of all moves that raise w . n by as much it is the shortest in deviations of W, where n itself leads
out of W through dimensions that hardly vary. SeFa is arXiv 2007.06600, style channels are arXiv 2011.12799.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hfgan.models.banks import LEAST_SCALE, ModeBank
from hfgan.models.directions import Direction, WStats
from hfgan.models.stylegan2 import StyleGAN2Generator
from hfgan.modes import check_mode
from hfgan.sampling import check_count, parse_layers

MODELS = ("svm", "logistic")
METRICS = ("covariance", "euclidean")
LEAST_LABELS = 4  # of each kind
LEFT_OUT_SINGLY = 40  # samples up to which each is left out in turn; above, FOLDS parts are
FOLDS, HALVINGS = 5, 5
MANY = 10_000  # samples from which on the share of extremes is the smaller one
SHARES = 0.1, 0.02  # of all samples, at each end
LEAST_KEPT, LITTLE_KEPT = 0.05, 0.5  # of a normal, once others are taken out of it
PARALLEL = 1e-7  # of the largest singular value: conditions that differ by less are one
TELLING = {"weak": 0.0, "usable": 0.3, "strong": 0.5}  # correlation with the score of samples in between
STRONG, USABLE = (0.75, 0.85), (0.4, 0.65)  # split_half and accuracy; a direction has sqrt(split_half) of the effect


# ---------------------------------------------------------------- from labels and scores


def fit_labels(
    name: str, w: Tensor, labels: Tensor | Sequence[bool], stats: WStats, *, kind: str = "natural",
    model: str = "svm", others: Sequence[Direction] = (), fingerprint: str = "",
) -> Direction:  # fmt: skip
    """The direction from samples without to samples with an attribute.

    `source` tells n_pos, n_neg, accuracy (mean over both kinds, on samples left out), split_half (correlation of the
    coordinates that two halves of the samples give) and the quality that follows.

    Args:
        w: (n, w_dim), at whatever truncation.
        labels: n, true where the attribute is there; 4 or more of each kind. What is unclear is best left out.
        stats: Of the generator's w.
        kind: "natural" for a step Cov(w) n, "normal" for n itself.
        model: "svm" or "logistic".
        others: What a step of this must not change; its own normal remains as it is.
        fingerprint: Of the generator.

    Raises:
        ValueError: too few labels, sizes that do not fit, `others` that measure the same.
    """
    if kind not in ("natural", "normal") or model not in MODELS:
        raise ValueError(f"kind is {kind!r} and model {model!r}: expected natural or normal, and svm or logistic")
    y = torch.as_tensor(labels).cpu().bool()
    if w.ndim != 2 or y.shape != w.shape[:1] or w.shape[1] != len(stats.mean):
        given, wanted = f"{list(w.shape)} and {list(y.shape)}", f"(n, {len(stats.mean)}) and (n,)"
        raise ValueError(f"w and labels have shapes {given}: expected {wanted}")
    counts = {"n_pos": len(w[y].unique(dim=0)), "n_neg": len(w[~y].unique(dim=0))}  # one sample twice says no more
    if min(counts.values()) < LEAST_LABELS:
        given = f"{counts['n_pos']} samples with {name!r} and {counts['n_neg']} without"
        raise ValueError(f"there are {given}: label {LEAST_LABELS} or more of each")
    unit = (stats.cov.trace() / len(stats.mean)).sqrt()  # so that C means the same in every model
    x = (w.detach().cpu().double() - stats.mean) / unit
    n, bias, scores = _classify(x, y, model, stats)
    # the boundary is where x . n + bias = 0
    direction = _along(name, n, stats, natural=kind == "natural", offset=n @ stats.mean - unit * bias)
    source = {"method": model, **counts, **scores, "quality": quality(**scores)}
    direction = replace(direction, kind=kind, fingerprint=fingerprint, source=source)
    metric = "covariance" if kind == "natural" else "euclidean"
    return conditional(direction, others, stats, metric)


def fit_scores(
    name: str, w: Tensor, scores: Tensor, stats: WStats, *, share: float | None = None, **options: Any
) -> Direction:
    """The direction along which a score of the samples w (n, w_dim) rises, from those with the least and the most.

    `source` also tells the share, and the correlation of score and coordinate among the other samples: below 0.5 the
    quality is "usable" at best, below 0.3 "weak".

    Args:
        scores: (n,), of any unit.
        share: Of the samples at each end; 0.1, or 0.02 from 10,000 samples on, for None.
        options: Those of `fit_labels`.
    """
    scores = torch.as_tensor(scores).detach().cpu().double()
    if scores.shape != w.shape[:1] or not scores.isfinite().all():
        raise ValueError(f"scores have shape {list(scores.shape)}: expected {len(w)} finite numbers, one for each w")
    share = SHARES[len(w) >= MANY] if share is None else share
    if not 0 < share <= 0.5:
        raise ValueError(f"share is {share}: expected a share of the samples above 0 and up to 0.5")
    count = max(round(share * len(w)), LEAST_LABELS)
    order = scores.argsort(stable=True)
    if 2 * count > len(w) or scores[order[count - 1]] == scores[order[-count]]:
        raise ValueError(
            f"{len(w)} scores of {name!r} do not tell {count} lowest from {count} highest: draw more samples"
        )
    ends = torch.cat([order[-count:], order[:count]])
    found = fit_labels(name, w[ends], torch.arange(2 * count) < count, stats, **options)
    rest = order[count:-count]
    both = torch.stack([found.coordinate(w[rest].cpu()).double(), scores[rest]])
    correlation = torch.corrcoef(both)[0, 1].item() if len(rest) > 2 and (both.std(1) > 0).all() else None
    word = found.source["quality"]
    while correlation is not None and correlation < TELLING[word] and word != "weak":  # it orders the ends alone
        word = "usable" if word == "strong" else "weak"
    return replace(found, source=found.source | {"share": share, "correlation": correlation, "quality": word})


def quality(split_half: float, accuracy: float) -> str:
    """ "weak", "usable" or "strong": what to think of a direction with these numbers."""
    for word, (least_half, least_accuracy) in {"strong": STRONG, "usable": USABLE}.items():
        if split_half >= least_half and accuracy >= least_accuracy:
            return word
    return "weak"


def _classify(x: Tensor, y: Tensor, model: str, stats: WStats) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Normal (d,) and bias () of a linear classifier of x (n, d), and how well it and its halves do."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import LeaveOneOut, StratifiedKFold, StratifiedShuffleSplit, cross_val_predict
    from sklearn.svm import SVC
    from threadpoolctl import threadpool_limits

    def fitted(rows: Any = slice(None)) -> Any:
        return blank().fit(points[rows], labels[rows])

    def blank() -> Any:
        weights = {"class_weight": "balanced"}
        return SVC(kernel="linear", **weights) if model == "svm" else LogisticRegression(max_iter=1000, **weights)

    points, labels = x.numpy(), y.numpy()
    least = int(min(labels.sum(), (~labels).sum()))
    folds = StratifiedKFold(min(FOLDS, least), shuffle=True, random_state=0)
    halves = StratifiedShuffleSplit(HALVINGS, test_size=0.5, random_state=0)
    with threadpool_limits(1):  # one order of summing; and so small a problem is slower on two cores
        whole = fitted()
        ways = LeaveOneOut() if len(x) <= LEFT_OUT_SINGLY else folds
        right = cross_val_predict(blank(), points, labels, cv=ways) == labels
        pairs = [[fitted(rows).coef_[0] for rows in pair] for pair in halves.split(points, labels)]
    normals = torch.from_numpy(np.array(pairs))  # (HALVINGS, 2, d)
    both = torch.einsum("kid,de,kje->kij", normals, stats.cov, normals)
    agreement = (both[:, 0, 1] / (both[:, 0, 0] * both[:, 1, 1]).sqrt()).mean().item()
    accuracy = (right[labels].mean() + right[~labels].mean()) / 2
    scores = {"split_half": round(agreement, 4), "accuracy": round(float(accuracy), 4)}
    return torch.tensor(whole.coef_[0]), torch.tensor(whole.intercept_[0]), scores


def _along(name: str, n: Tensor, stats: WStats, *, natural: bool, offset: Tensor | None = None) -> Direction:
    """What a raw normal n (w_dim,) measures, moved along Cov(w) n or n; `offset` is w . n at 0, by default the mean's.

    With s = sqrt(n' Cov n): normal n / s, step Cov n / s or s n / |n|^2.
    """
    spread = (n @ stats.cov @ n).sqrt()
    if not spread > 0:
        raise ValueError(f"{name!r} measures what does not vary: find it from other samples")
    step = stats.cov @ n / spread if natural else spread * n / n.square().sum()
    offset = (n @ stats.mean if offset is None else offset) / spread
    return Direction(name, step, n / spread, offset.item())


# ---------------------------------------------------------------- leave others alone


def conditional(
    direction: Direction, others: Sequence[Direction], stats: WStats, metric: str = "covariance"
) -> Direction:
    """The same with the shortest step that raises its coordinate by 1 and leaves those of others, if any, alone.

    v = C A (A' C A)^-1 e1 with the normals as columns of A, the direction's own first, and C = Cov(w), or 1 for the
    metric "euclidean". Computed as what is left of L' n outside the span of the others' L' b, with C = L L', so that
    the others may be nearly parallel.

    Raises:
        ValueError: one that nothing measures, or less than 0.05 of the normal is left.
    """
    if metric not in METRICS:
        raise ValueError(f"metric is {metric!r}: expected {' or '.join(METRICS)}")
    if not others:
        return direction
    if unmeasured := [one.name for one in (direction, *others) if one.normal is None]:
        raise ValueError(f"nothing measures {', '.join(unmeasured)}: conditions need directions with a normal")
    values, vectors = stats.eigen
    root = vectors * values.sqrt() if metric == "covariance" else torch.eye(len(values), dtype=torch.float64)  # L
    own = root.T @ direction.normal.double()  # (d,)
    conditions = torch.stack([root.T @ one.normal.double() for one in others], dim=1)  # (d, k)
    basis, sizes, _ = torch.linalg.svd(conditions / conditions.norm(dim=0).clamp(min=1e-30), full_matrices=False)
    basis = basis[:, sizes > PARALLEL * sizes[0]]
    rest = own - basis @ (basis.T @ own)
    rest -= basis @ (basis.T @ rest)  # once more, against rounding
    kept, names = (rest.norm() / own.norm()).item(), ", ".join(one.name for one in others)
    if kept < LEAST_KEPT:
        raise ValueError(
            f"{direction.name!r} is hardly more than {names}: {kept:.3f} of it is left without, expected {LEAST_KEPT}"
        )
    source = direction.source | {"without": [one.name for one in others], "metric": metric, "kept": round(kept, 4)}
    if kept < LITTLE_KEPT:
        source["warning"] = f"only {kept:.2f} of this is left without {names}: it may do little of what its name says"
    return replace(direction, step=root @ rest / (rest @ own), kind="conditional", source=source)


# ---------------------------------------------------------------- without labels


def pca(stats: WStats, count: int = 10, fingerprint: str = "") -> list[Direction]:
    """The first principal components of W, "pca-0" the widest; 0 is the mean."""
    values, vectors = stats.eigen
    if check_count(count, "count") > len(values):
        raise ValueError(f"count is {count}: expected at most {len(values)}, the size of w")
    found = []
    for k in range(count):
        share = (values[k] / values.sum()).item()
        one = _along(f"pca-{k}", _signed(vectors[:, k]), stats, natural=False)
        found.append(replace(one, kind="pca", fingerprint=fingerprint, source={"method": "pca", "share": share}))
    return found


def sefa(
    generator: StyleGAN2Generator, layers: str | Sequence[int] | None = None, count: int = 10,
    stats: WStats | None = None,
) -> list[Direction]:  # fmt: skip
    """Directions of w that change the styles of some layers most, "sefa-0" most of all; those layers are moved.

    Eigenvectors of W W', where a column of W is how w makes the scale of one channel, of length 1 so that no layer
    outweighs the others. Colours (ToRGB) do not count.

    Args:
        layers: Convolutions, "0-3" or a list; all of them for None. The last layer of w_plus is none.
        stats: Of the generator's w; computed for None.
    """
    affines = generator.synthesis.affines()
    chosen = list(affines) if layers is None else parse_layers(layers, generator.num_ws)
    if not affines.keys() >= set(chosen):
        raise ValueError(f"layers is {layers!r}: layer {max(chosen)} only makes colours, choose from 0-{max(affines)}")
    if check_count(count, "count") > generator.config.w_dim:
        raise ValueError(f"count is {count}: expected at most {generator.config.w_dim}, the size of w")
    rows = torch.cat([affines[layer] for layer in chosen])  # (channels, w_dim)
    rows = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)
    values, vectors = torch.linalg.eigh(rows.T @ rows)
    stats = WStats.of(generator) if stats is None else stats
    found = []
    for k in range(count):
        one = _along(f"sefa-{k}", _signed(vectors[:, -1 - k]), stats, natural=False).on(chosen)
        source = {"method": "sefa", "share": (values[-1 - k] / values.sum()).item()}
        found.append(replace(one, kind="sefa", fingerprint=generator.fingerprint(), source=source))
    return found


def channels(
    name: str, generator: StyleGAN2Generator, w_positive: Tensor, stats: WStats, *, keep: int = 10
) -> Direction:
    """A direction in W+ from a few samples that have an attribute, by the style channels in which they agree.

    z, the styles in deviations of all samples; the channels with the largest |mean z| / std z are moved by one
    deviation on average, through the pseudo-inverse of each layer's affine map, in deviations on both sides.

    Args:
        w_positive: (n, w_dim) or (n, num_ws, w_dim), 4 or more.
        keep: How many channels are moved.
    """
    num_ws, w_dim = generator.num_ws, generator.config.w_dim
    if w_positive.shape[1:] not in ((w_dim,), (num_ws, w_dim)) or len(w_positive) < LEAST_LABELS:
        given, wanted = list(w_positive.shape), f"(n, {w_dim}) or (n, {num_ws}, {w_dim}), n of {LEAST_LABELS} or more"
        raise ValueError(f"w_positive has shape {given}: expected {wanted}")
    w = w_positive.detach().cpu().double()
    values, vectors = stats.eigen
    root = vectors * values.clamp(min=LEAST_SCALE**2 * values[0].item()).sqrt()  # L, (w_dim, w_dim)
    maps, means, spreads = {}, {}, {}
    for layer, weight in generator.synthesis.affines().items():
        scale = (weight @ root).norm(dim=1).clamp(min=1e-12)  # deviation of each style over W
        z = (w if w.ndim == 2 else w[:, layer]).sub(stats.mean) @ weight.T / scale  # (n, channels)
        maps[layer], means[layer], spreads[layer] = weight @ root / scale[:, None], z.mean(0), z.std(0)
    score = torch.cat([means[layer].abs() / spreads[layer].clamp(min=1e-6) for layer in maps])
    if check_count(keep, "keep") > len(score):
        raise ValueError(f"keep is {keep}: this model has {len(score)} style channels")
    chosen = torch.zeros(len(score), dtype=torch.bool).index_fill_(0, score.topk(keep).indices, True)
    wanted = torch.where(chosen, torch.cat(list(means.values())).sign(), 0.0)
    step = torch.zeros(num_ws, w_dim, dtype=torch.float64)
    moved = []
    for (layer, styles), part in zip(maps.items(), wanted.split([len(m) for m in maps.values()]), strict=True):
        inner = torch.linalg.pinv(styles, rtol=LEAST_SCALE) @ part  # in deviations of W
        step[layer] = root @ inner
        moved.append(styles @ inner)
    moved = torch.cat(moved)
    reached = (moved * wanted)[chosen].mean().item()
    if reached < LEAST_KEPT:
        raise ValueError(f"no w moves the {keep} channels of {name!r} together: keep fewer, or find it by labels")
    layers = tuple(step.norm(dim=1).nonzero().flatten().tolist())
    source = {"method": "channels", "n_pos": len(w), "n_neg": 0, "channels": keep,
              "spill": round((moved[~chosen].square().mean().sqrt() / reached).item(), 4)}  # fmt: skip
    return Direction(name, step / reached, None, 0.0, layers, "channels", generator.fingerprint(), source)


def _signed(vector: Tensor) -> Tensor:
    """With the sign that makes the largest component positive."""
    return vector * vector[vector.abs().argmax()].sign()


# ---------------------------------------------------------------- by modes


def between_modes(name: str, bank: ModeBank, a: int, b: int, stats: WStats, fingerprint: str = "") -> Direction:
    """From mode a to mode b; 0 is halfway, and `source` tells how many deviations they are apart."""
    a, b = (check_mode(mode, len(bank.centers)) for mode in (a, b))
    found = _from_to(name, bank.centers[a], bank.centers[b], stats, fingerprint)
    return replace(found, source=found.source | {"modes": [a, b]})


def toward_mode(name: str, bank: ModeBank, mode: int, stats: WStats, fingerprint: str = "") -> Direction:
    """From the mean of W to a mode; 0 is halfway, and `source` tells how many deviations they are apart."""
    mode = check_mode(mode, len(bank.centers))
    found = _from_to(name, stats.mean, bank.centers[mode], stats, fingerprint)
    return replace(found, source=found.source | {"modes": [mode]})


def _from_to(name: str, start: Tensor, end: Tensor, stats: WStats, fingerprint: str) -> Direction:
    """The straight way, which is the natural step of the normal Cov^-1 (end - start)."""
    start, end = start.cpu().double(), end.cpu().double()
    way = end - start
    normal, distance = stats.solve(way[None])[0], stats.distance(way[None]).double()
    if not distance > 0:
        raise ValueError(f"{name!r} starts where it ends: give two different modes")
    normal = normal / distance
    offset = (normal @ (start + end) / 2).item()
    source = {"method": "modes", "distance": round(distance.item(), 4)}
    return Direction(name, way / distance, normal, offset, None, "modes", fingerprint, source)
