"""Accuracy and fairness of a binary classifier, computed from its four group accuracies.

Disaggregate first, summarise afterwards: every number is a function of the cells A[y, s], the accuracy
among faces with target y and protected value s, in the order (0,0) (0,1) (1,0) (1,1). The functions
below take cells of shape (..., 4), so that one line serves a single model, ten seeds and a thousand
bootstrap draws.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from aimfair.environment import AimfairError
from aimfair.faces import GROUPS

CELLS = tuple(f"acc_t{t}_p{p}" for t, p in GROUPS)
COUNTS = tuple(f"n_t{t}_p{p}" for t, p in GROUPS)
"""Columns of the four accuracies (as in the table of the paper's results) and of the four group sizes."""


def tpr_gap(cells: np.ndarray) -> np.ndarray:
    """|TPR_1 - TPR_0|: gap of the true positive rates, cells (..., 4) -> (...). Also called equal opportunity."""
    return np.abs(cells[..., 3] - cells[..., 2])


def fpr_gap(cells: np.ndarray) -> np.ndarray:
    """|FPR_1 - FPR_0|, which is the gap between the two accuracies at target 0; cells (..., 4) -> (...)."""
    return np.abs(cells[..., 1] - cells[..., 0])


def eo_max(cells: np.ndarray) -> np.ndarray:
    """Equalised odds, the larger of the two gaps: what Tables 3-7 and 9-11 of the paper print."""
    return np.maximum(tpr_gap(cells), fpr_gap(cells))


def eo_mean(cells: np.ndarray) -> np.ndarray:
    """Equalised odds, the mean of the two gaps: Equation 9 of the paper, and what its Table 8 prints."""
    return (tpr_gap(cells) + fpr_gap(cells)) / 2


def wst(cells: np.ndarray) -> np.ndarray:
    """Worst-group accuracy (Equation 10): the smallest cell."""
    return cells.min(-1)


def std(cells: np.ndarray) -> np.ndarray:
    """Group standard deviation (Equation 11), population form (ddof 0) as in the paper's tables."""
    return cells.std(-1)


def balanced(cells: np.ndarray) -> np.ndarray:
    """Mean of the four cells: the accuracy on a test set with equal groups."""
    return cells.mean(-1)


def _of_report(summary: Callable[[np.ndarray], np.ndarray]) -> property:
    """A function of the cells as a number that a report has."""
    return property(lambda report: float(summary(report.cells)), doc=summary.__doc__)


@dataclass(frozen=True, eq=False)
class FairnessReport:
    """What one model does to four groups of faces; everything in per cent.

    cells   (4,) accuracy in groups (0,0) (0,1) (1,0) (1,1); NaN for a group without faces
    counts  (4,) number of faces in each group
    """

    cells: np.ndarray
    counts: np.ndarray

    tpr_gap, fpr_gap = _of_report(tpr_gap), _of_report(fpr_gap)
    eo_max, eo_mean = _of_report(eo_max), _of_report(eo_mean)
    wst, std, balanced = _of_report(wst), _of_report(std), _of_report(balanced)

    @property
    def acc(self) -> float:
        """Overall accuracy: the cells weighted by how many faces each holds; empty groups weigh nothing."""
        held = self.counts > 0
        return float(np.average(self.cells[held], weights=self.counts[held]))

    @property
    def demographic_parity(self) -> float:
        """|P(predicted 1 | s=1) - P(predicted 1 | s=0)|: reported, but no target where base rates differ."""
        positive = self.counts * np.array([100 - self.cells[0], 100 - self.cells[1], self.cells[2], self.cells[3]])
        rate_0, rate_1 = positive.reshape(2, 2).sum(0) / self.counts.reshape(2, 2).sum(0)
        return float(abs(rate_1 - rate_0))

    def as_dict(self) -> dict[str, float]:
        """One flat row for a table: the summaries, the cells as ``acc_t0_p0`` ..., the counts as ``n_t0_p0`` ..."""
        names = ("acc", "wst", "eo_max", "eo_mean", "std", "balanced", "demographic_parity", "tpr_gap", "fpr_gap")
        row = {name: float(getattr(self, name)) for name in names}
        return row | dict(zip(CELLS + COUNTS, map(float, (*self.cells, *self.counts)), strict=True))


def fairness_report(target: Any, predicted: Any, protected: Any) -> FairnessReport:
    """Group the decisions of one model; lists, arrays or tensors of {0, 1}, each of shape (N,).

    Warns about a group without faces: its cell is NaN, and so is every summary that would need it.
    Raises AimfairError for unequal lengths, no faces at all, or values other than 0 and 1 (logits, say).
    """
    y, decision, s = (
        _binary(what, v) for what, v in (("target", target), ("predicted", predicted), ("protected", protected))
    )
    if not len(y) == len(decision) == len(s) or len(y) == 0:
        raise AimfairError(
            f"every face needs a target, a prediction and a protected label: got {len(y)}, {len(decision)}, {len(s)}"
        )
    group = 2 * y + s
    counts = np.bincount(group, minlength=4)
    correct = np.bincount(group[decision == y], minlength=4)
    if empty := [f"(target={t}, protected={p})" for (t, p), n in zip(GROUPS, counts, strict=True) if n == 0]:
        warnings.warn(f"no face in group {', '.join(empty)}: its accuracy is NaN, not 0", stacklevel=2)
    cells = np.divide(100.0 * correct, counts, out=np.full(4, np.nan), where=counts > 0)
    return FairnessReport(cells, counts)


def published_report(cells: ArrayLike, counts: ArrayLike | None = None) -> FairnessReport:
    """The report of a model known only by its four group accuracies, in per cent, as a paper prints them.

    counts  (4,) faces per group of the test set; None: equal groups, so that ACC is the mean of the cells
    """
    known = np.asarray(cells, dtype=np.float64)
    faces = np.ones(4, dtype=np.int64) if counts is None else np.asarray(counts)
    if known.shape != (4,) or faces.shape != (4,):
        raise AimfairError(f"four cells and four counts, please: got shapes {known.shape} and {faces.shape}")
    if np.nanmax(known, initial=0) > 100 or np.nanmin(known, initial=0) < 0:
        raise AimfairError(f"group accuracies are per cent, 0 to 100: got {known.tolist()}")
    return FairnessReport(known, faces)


def _binary(what: str, values: Any) -> np.ndarray:
    array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values).reshape(-1)
    if not np.isin(array, (0, 1)).all():
        odd = array[~np.isin(array, (0, 1))][0]
        hint = " (a logit becomes a prediction by `logit >= 0`)" if what == "predicted" else ""
        raise AimfairError(f"{what} must hold 0 and 1 only, found {odd}{hint}")
    return array.astype(np.int64)
