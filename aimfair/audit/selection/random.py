"""By lot: what every other rule is compared with."""

import numpy as np
import torch
from torch import Tensor

from aimfair.audit.selection import Candidates


def choose(candidates: Candidates, budget: int, seed: int) -> Tensor:
    """The first ``budget`` of a shuffle by ``seed``."""
    return torch.from_numpy(np.random.default_rng(seed).permutation(len(candidates))[:budget])
