"""How sure a number is: intervals over seeds and images, paired tests, corrections for many tests.

Methods that share a seed share the biased model, the synthetic faces and the order of the data, so they
are compared by their differences, seed by seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, stdtrit

from aimfair.environment import AimfairError
from aimfair.metrics import FairnessReport

Interval = tuple[float, float]
FEW = 5
"""Fewer values than this are too few for a bootstrap."""
EXACT_UP_TO = 16
"""Largest number of seeds for which all 2^n sign assignments are enumerated (65,536 of them)."""


def interval(values: ArrayLike, level: float = 0.95, seed: int = 0, draws: int = 10_000) -> Interval:
    """Bootstrap interval of the mean over seeds, widened for few seeds; (NaN, NaN) for a single one.

    A plain percentile interval is too narrow for ten values. Its tail is moved outward until, on normal
    data, its width is that of Student's interval (the expanded percentile interval of Hesterberg,
    The American Statistician 69(4), 2015). It cannot leave the range of the values: on normal data a nominal
    95 % interval holds the mean in 94 % of cases for 10 seeds, 92 % for 5 and would for 3 in 75 % only. Fewer than
    five values therefore get Student's interval itself.
    """
    x = _finite(values)
    if len(x) == 1:
        return float("nan"), float("nan")
    if len(x) < FEW:
        half = -stdtrit(len(x) - 1, (1 - level) / 2) * x.std(ddof=1) / np.sqrt(len(x))
        return float(x.mean() - half), float(x.mean() + half)
    means = x[np.random.default_rng(seed).integers(0, len(x), (draws, len(x)))].mean(1)
    tail = ndtr(np.sqrt(len(x) / (len(x) - 1)) * stdtrit(len(x) - 1, (1 - level) / 2))
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)


@dataclass(frozen=True)
class Difference:
    """Paired difference a - b over n seeds: mean, interval, exact two-sided sign-flip p-value."""

    mean: float
    low: float
    high: float
    p: float
    n: int


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95, seed: int = 0) -> Difference:
    """Compare two methods seed by seed; ``a[i]`` and ``b[i]`` must come from the same seed."""
    first, second = _finite(a), _finite(b)
    if len(first) != len(second):
        raise AimfairError(f"paired values must come from the same seeds: got {len(first)} and {len(second)}")
    d = first - second
    low, high = interval(d, level, seed)
    return Difference(float(d.mean()), low, high, sign_flip(d, seed), len(d))


def sign_flip(differences: ArrayLike, seed: int = 0, draws: int = 100_000) -> float:
    """Two-sided p-value of "the differences are as likely to have the other sign".

    Exact up to 16 seeds: the share of all 2^n sign assignments whose mean is at least as far from zero, so
    that n seeds can never give less than 2 / 2^n. Beyond, seeded random assignments, the observed one included.
    """
    d = _finite(differences)
    n = len(d)
    if n <= EXACT_UP_TO:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        signs = np.random.default_rng(seed).choice((-1, 1), (draws, n))
        signs[0] = 1
    # Sums that are equal on paper differ in the last bit; they must count as equally far.
    tolerance = 1e-9 * np.abs(d).sum()
    return float(np.mean(np.abs(signs @ d) >= abs(d.sum()) - tolerance))


def holm(p_values: ArrayLike) -> np.ndarray:
    """Holm's step-down adjustment of m p-values (Holm, 1979), in the order given, each at most 1."""
    p = _finite(p_values)
    if p.min() < 0 or p.max() > 1:
        raise AimfairError(f"p-values lie between 0 and 1: got {p.min()} to {p.max()}")
    order = np.argsort(p, kind="stable")
    steps = np.minimum(1, p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(steps)
    return adjusted


def hierarchical_bootstrap(correct: ArrayLike, groups: ArrayLike, draws: int = 1000, seed: int = 0) -> np.ndarray:
    """Cells under resampled seeds and, within each cell, resampled test images.

    correct  (..., S, N) bool: was image i classified correctly by the model of seed s; leading axes are
             methods, which see the same resampled seeds and images, so that their differences stay paired
    groups   (N,) group of each image, 0 to 3
    returns  (draws, ..., S, 4) accuracies in per cent, ready for the functions of :mod:`aimfair.metrics`
             (with S = 1 only the images vary); NaN for a group without images
    """
    hits, group = np.asarray(correct, dtype=bool), np.asarray(groups)
    if hits.ndim < 2 or hits.shape[-1] != len(group):
        raise AimfairError(f"correct has shape {hits.shape}, wanted (..., seeds, {len(group)} images)")
    rng = np.random.default_rng(seed)
    rows = hits.reshape(-1, len(group))
    cells = np.full((draws, len(rows), 4), np.nan)
    for g in range(4):
        member = group == g
        if not member.any():
            continue
        # Images that all models treat alike are interchangeable: drawing how often each pattern occurs is
        # the same experiment as drawing images, and there are far fewer patterns.
        patterns, times = np.unique(rows[:, member], axis=1, return_counts=True)
        drawn = rng.multinomial(member.sum(), times / member.sum(), size=draws)
        cells[:, :, g] = 100.0 * (drawn @ patterns.T.astype(np.int64)) / member.sum()
    cells = cells.reshape(draws, *hits.shape[:-1], 4)
    chosen = rng.integers(0, hits.shape[-2], (draws, hits.shape[-2]))
    index = chosen.reshape(draws, *(1,) * (hits.ndim - 2), -1, 1)
    return np.take_along_axis(cells, index, axis=-2)


def percentile(draws: ArrayLike, level: float = 0.95) -> Interval:
    """Central interval of bootstrap draws. For WST and EO, a minimum and a maximum, read it beside the cells'."""
    low, high = np.quantile(np.asarray(draws, dtype=np.float64), ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def binomial_error(cells: ArrayLike, counts: ArrayLike) -> np.ndarray:
    """Standard error of group accuracies from the size of the test set alone; both in per cent points."""
    share = np.asarray(cells, dtype=np.float64) / 100
    return 100 * np.sqrt(share * (1 - share) / np.asarray(counts, dtype=np.float64))


def wilson(shares: ArrayLike, counts: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends of Wilson's 95 % interval of shares of ``counts`` things (Wilson, 1927); all in per cent.

    Unlike share plus or minus two standard errors it stays between 0 and 100 and does not shrink to nothing at the ends.
    """
    share, n, z = np.asarray(shares, dtype=np.float64) / 100, np.maximum(counts, 1), 1.959964
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return 100 * (middle - half), 100 * (middle + half)


def corrected_std(report: FairnessReport) -> float:
    """Spread of the true group accuracies: the sampling variance that inflates STD is subtracted, floor 0.

    After Lum, Zhang and Bower (FAccT 2022), for the population form of the deviation.
    """
    share = report.cells / 100
    sampling = share * (1 - share) / (report.counts - 1)
    variance = share.var() - (1 - 1 / len(share)) * sampling.mean()
    return float(100 * np.sqrt(np.maximum(variance, 0)))


def _finite(values: ArrayLike | Sequence[float]) -> np.ndarray:
    x = np.asarray(values, dtype=np.float64).reshape(-1)
    if len(x) == 0 or not np.isfinite(x).all():
        raise AimfairError(f"statistics need at least one value and only finite ones: got {x.tolist()[:10]}")
    return x
