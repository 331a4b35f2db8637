"""Banks: what belongs to a generator and is found rather than trained, as buffers."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from hfgan.models.base import HFGanModel

MAX_MODES = 10_000
SPACES = ("w", "whitened", "features")
ASSIGNMENTS = ("l2", "perceptual")
LEAST_SCALE = 1e-3  # of the largest deviation: below it a dimension is rounding


class ModeBank(HFGanModel):
    """Modes of a generator: clusters of its w, largest first (Mokady et al. 2022, arXiv 2202.12211).

    Buffers: `centers` (k, w_dim); `counts` (k,) int64, samples nearest to each; `previews` (k, c, s, s) uint8,
    pictures of the centers; `w_std` (w_dim,), deviation of w; `temperature` () of `modes.soft_centers`.

    Args:
        num_modes: k, 1 to 10,000.
        w_dim: Size of w.
        img_channels: 1, 3 or 4.
        preview_size: s [pixels].
        space: Where the clusters were found: "w"; "whitened", w with deviation 1 in every dimension; "features"
            of a perceptual network.
        assignment: How the nearest mode is found unless asked otherwise: "l2" in w, or "perceptual".
    """

    @register_to_config
    def __init__(
        self, *, num_modes: int, w_dim: int = 512, img_channels: int = 3, preview_size: int = 64, space: str = "w",
        assignment: str = "l2",
    ) -> None:  # fmt: skip
        super().__init__()
        if not 1 <= num_modes <= MAX_MODES:
            raise ValueError(f"num_modes is {num_modes}: give a number from 1 to {MAX_MODES:,}")
        if space not in SPACES or assignment not in ASSIGNMENTS:
            wanted = f"expected one of {', '.join(SPACES)} and one of {', '.join(ASSIGNMENTS)}"
            raise ValueError(f"space is {space!r} and assignment {assignment!r}: {wanted}")
        self.register_buffer("centers", torch.zeros(num_modes, w_dim))
        self.register_buffer("counts", torch.zeros(num_modes, dtype=torch.int64))
        shape = (num_modes, img_channels, preview_size, preview_size)
        self.register_buffer("previews", torch.zeros(shape, dtype=torch.uint8))
        self.register_buffer("w_std", torch.ones(w_dim))
        self.register_buffer("temperature", torch.ones(()))

    @property
    def scale(self) -> Tensor:
        """(w_dim,), the unit of distances in w: its deviation where the space is whitened, else 1."""
        return whitening_scale(self.w_std) if self.config.space == "whitened" else torch.ones_like(self.w_std)


def whitening_scale(w_std: Tensor) -> Tensor:
    """Deviations (w_dim,) to divide w by; those of dimensions that hardly vary are raised above rounding."""
    return w_std.clamp(min=max(LEAST_SCALE * w_std.max().item(), 1e-12))
