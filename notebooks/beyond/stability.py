"""How sure is a mask? Its overlap over seeds beside that of random masks, and its scores beside their noise.

Two masks that hold most of a network overlap whatever they select, and a gap between the gradients of two
finite sets is never zero. Both are compared with what chance alone gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.stats import hypergeom

from aimfair import masks
from aimfair.environment import AimfairError


def expected_jaccard(first: int, second: int, tensors: int) -> float:
    """Mean overlap of two random masks with ``first`` and ``second`` of the tensors, by the hypergeometric law.

    It is the chance overlap of AIM-Fair's masks too: if its two rankings were random, then among the
    intersections of one size every set of tensors would be as likely as any other, by symmetry.
    """
    if not (1 <= first <= tensors and 1 <= second <= tensors):
        raise AimfairError(
            f"masks of {first} and {second} of {tensors} tensors: sizes lie between 1 and all"
        )
    shared = np.arange(max(0, first + second - tensors), min(first, second) + 1)
    chances = hypergeom.pmf(shared, tensors, first, second)
    return float((chances * shared / (first + second - shared)).sum())


@dataclass(frozen=True, eq=False)
class Overlap:
    """Mean overlap (Jaccard) of all pairs of masks, what chance gives masks of these sizes, and how rare that is.

    p  share of draws of random masks whose mean overlap is at least as large, the observed one counted
    """

    observed: float
    expected: float
    p: float

    @property
    def corrected(self) -> float:
        """(observed - expected) / (1 - expected): 0 by chance, 1 for equal masks; NaN where chance gives 1."""
        return (
            (self.observed - self.expected) / (1 - self.expected)
            if self.expected < 1
            else float("nan")
        )


def overlap(
    selected: Sequence[set[str]], tensors: int, draws: int = 2000, seed: int = 0
) -> Overlap:
    """Do masks of different seeds agree more than random masks of the same sizes among ``tensors``?

    The expectation is exact; the p-value is from ``draws`` sets of random masks. Raises AimfairError for fewer
    than two masks.
    """
    if len(selected) < 2:
        raise AimfairError(f"an overlap needs two masks, got {len(selected)}")
    pairs, sizes = list(combinations(range(len(selected)), 2)), [len(mask) for mask in selected]
    observed = float(np.mean([masks.jaccard(selected[i], selected[j]) for i, j in pairs]))
    expected = float(np.mean([expected_jaccard(sizes[i], sizes[j], tensors) for i, j in pairs]))
    ranks = np.random.default_rng(seed).random((draws, len(selected), tensors)).argsort(-1)
    holds = (ranks < np.array(sizes)[:, None]).astype(np.float64)
    shared = np.einsum("dit,djt->dij", holds, holds)
    sums = np.add.outer(sizes, sizes)
    drawn = np.mean(
        [shared[:, i, j] / (sums[i, j] - shared[:, i, j]) for i, j in pairs], axis=0
    )
    return Overlap(
        observed, expected, float((1 + (drawn >= observed - 1e-9).sum()) / (1 + draws))
    )


def floor(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    """What the gap between two *whole* sets would measure from noise alone, per tensor, from the half gap of each.

    The mean over half a set has twice the variance of the mean over all of it, and both halves are noisy. With
    independent faces a half gap h stands for h^2 / 4 of squared noise, and the noise of the two sets adds up.
    """
    if first.keys() != second.keys():
        raise AimfairError("the two half gaps must name the same tensors")
    return {name: float(np.hypot(first[name], second[name]) / 2) for name in first}


def above_noise(score: Mapping[str, float], noise: Mapping[str, float]) -> dict[str, float]:
    """The part of each score that noise does not explain: sqrt(score^2 - noise^2), or 0 where it explains all."""
    return {
        name: float(np.sqrt(max(value**2 - noise[name] ** 2, 0.0)))
        for name, value in score.items()
    }
