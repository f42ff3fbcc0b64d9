"""Differentiable measures of unfairness on a batch, which some oracles add to their loss.

All take logits (B,), target (B,) and protected (B,) labels of {0, 1} and give a scalar. A gap to an empty cell is 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def rate_gaps(score: Tensor, target: Tensor, protected: Tensor, joint: bool = False) -> tuple[Tensor, Tensor]:
    """Signed gaps (protected 1 minus 0) of the soft false positive and false negative rates; ``score`` are probabilities.

    A rate is the mean of score (or 1 - score) over a cell of target and protected value; with ``joint`` the sum over
    that cell divided by all faces of the protected value, as the code of Mao et al. has it: half as much where the two
    targets are equally frequent, and otherwise another quantity.
    """

    def gap(values: Tensor, of: Tensor) -> Tensor:
        rates, counts = [], []
        for s in (0, 1):
            cell = of & (protected == s)
            whole = protected == s if joint else cell
            rates.append(torch.where(cell, values, 0).sum() / whole.sum().clamp_min(1))
            counts.append(cell.sum())
        return (rates[1] - rates[0]) * (min(counts) > 0)

    return gap(score, target == 0), gap(1 - score, target == 1)


def equalised_odds(logits: Tensor, target: Tensor, protected: Tensor, joint: bool = False) -> Tensor:
    """Sum of the absolute gaps of the two soft error rates: equalised odds on probabilities."""
    false_positive, false_negative = rate_gaps(torch.sigmoid(logits), target, protected, joint)
    return false_positive.abs() + false_negative.abs()


def error_gap(logits: Tensor, target: Tensor, protected: Tensor) -> Tensor:
    """Accuracy equality: absolute gap of the mean cross-entropy between the protected values."""
    means = _means(_losses(logits, target), [protected == s for s in (0, 1)])
    return (means[-1] - means[0]).abs()


def disparate_impact(logits: Tensor, target: Tensor, protected: Tensor) -> Tensor:
    """Minus the smaller ratio of the mean probabilities of the protected values: -1 where they are equal."""
    means = _means(torch.sigmoid(logits), [protected == s for s in (0, 1)])
    return -torch.minimum(means[0] / means[-1], means[-1] / means[0])


def worst_group_loss(logits: Tensor, target: Tensor, protected: Tensor) -> Tensor:
    """Max-min fairness: the largest mean cross-entropy of a group of target and protected value."""
    groups = [(target == t) & (protected == s) for t in (0, 1) for s in (0, 1)]
    return torch.stack(_means(_losses(logits, target), groups)).max()


def _losses(logits: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")


def _means(values: Tensor, members: list[Tensor]) -> list[Tensor]:
    """Mean over each set of members that is not empty."""
    return [values[member].mean() for member in members if member.any()]


Penalty = Callable[[Tensor, Tensor, Tensor], Tensor]

PENALTIES: dict[str, Penalty] = {
    "eo": equalised_odds,
    "eo-joint": lambda logits, target, protected: equalised_odds(logits, target, protected, joint=True),
    "ae": error_gap,
    "di": disparate_impact,
}
