"""Deep feature re-weighting: sparse logistic regressions on group-balanced subsets of features, averaged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from aimfair import sampling
from aimfair.environment import AimfairError
from aimfair.methods._head import Labelled, Rule

STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Inverse strengths C of the L1 penalty, tried by the method itself: five, as every method has configurations to try."""


def part(labelled: Labelled, index: np.ndarray) -> Labelled:
    """The samples at ``index``."""
    x, y, s = labelled
    return x[index], y[index], s[index]


def smallest_group(labelled: Labelled) -> int:
    """Number of samples of the smallest of the four groups."""
    _, y, s = labelled
    return int(np.bincount(2 * y + s, minlength=4).min())


def halves(labelled: Labelled, seed: int) -> tuple[Labelled, Labelled]:
    """Two random halves of every group. Raises AimfairError where a group has a single sample or none."""
    _, y, s = labelled
    if smallest_group(labelled) < 2:
        raise AimfairError("DFR halves its faces to choose C: it needs at least two of every group")
    first = sampling.per_group(y, s, (np.bincount(2 * y + s, minlength=4) // 2).tolist(), seed)
    return part(labelled, first), part(labelled, np.setdiff1d(np.arange(len(y)), first))


def logistic(labelled: Labelled, c: float, class_weight: float = 1.0) -> Rule:
    """One L1 logistic regression on standardised features, written as a rule for the features as they are.

    Features are standardised by the very samples that are fitted, in tuning and at the end alike: the released code
    takes others at the end, so that its C does not mean the same.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    x, y, _ = labelled
    scaler = StandardScaler().fit(x)
    regression = LogisticRegression(
        C=c, l1_ratio=1, solver="liblinear", class_weight={0: 1.0, 1: class_weight}, max_iter=1000, random_state=0
    ).fit(scaler.transform(x), y)
    weights = regression.coef_[0] / scaler.scale_
    return weights, float(regression.intercept_[0] - weights @ scaler.mean_)


def averaged(labelled: Labelled, c: float, repeats: int, seed: int, class_weight: float = 1.0) -> Rule:
    """The mean rule of ``repeats`` random subsets with equal groups; repeat r draws its subset from (seed, r)."""
    _, y, s = labelled
    size = smallest_group(labelled)
    if size == 0:
        raise AimfairError("DFR needs faces of every group to balance them: one has none")
    subsets = (sampling.balanced(y, s, size, seed * 1000 + repeat) for repeat in range(repeats))
    rules = [logistic(part(labelled, subset), c, class_weight) for subset in subsets]
    return np.mean([weights for weights, _ in rules], 0), float(np.mean([intercept for _, intercept in rules]))


def worst_group(labelled: Labelled, rule: Rule) -> float:
    """Accuracy of the worst group that occurs, per cent."""
    x, y, s = labelled
    right = (x @ rule[0] + rule[1] >= 0) == (y == 1)
    return 100 * min(right[2 * y + s == g].mean() for g in np.unique(2 * y + s))


def accuracy(x: np.ndarray, y: np.ndarray, rule: Rule) -> float:
    """Overall accuracy, per cent; reads no group."""
    return 100 * float(((x @ rule[0] + rule[1] >= 0) == (y == 1)).mean())


def tuned(
    fitted: Callable[[float], Rule], score: Callable[[Rule], float], given: Any
) -> tuple[float, dict[str, float]]:
    """C and the score of each that was tried: the best, the smaller one on a tie; ``given``, if not None, is taken."""
    if given is not None:
        return float(given), {}
    scores = {c: round(score(fitted(c)), 3) for c in STRENGTHS}
    return max(scores, key=scores.__getitem__), {f"{c:g}": value for c, value in scores.items()}
