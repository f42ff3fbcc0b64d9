"""Where to cut the score: accuracy and fairness as functions of the threshold on the logit.

A classifier is trained for the cut at 0. Another cut costs no training, so what a fair method
gains must be compared with what moving the threshold alone would gain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from aimfair import methods, metrics
from aimfair.environment import AimfairError
from aimfair.metrics import FairnessReport
from aimfair.study.runs import Run

Cuts = tuple[float, float]
"""The threshold for faces of protected value 0 and the one for faces of value 1."""


@dataclass(frozen=True, eq=False)
class Scored:
    """The faces of one split: target and protected (N,) of {0, 1}, and the logit (N,)."""

    target: np.ndarray
    protected: np.ndarray
    logit: np.ndarray

    def cells(self, thresholds: ArrayLike) -> np.ndarray:
        """(T, 4) accuracy of each group in per cent; a face whose logit reaches the threshold is called 1."""
        cuts = np.asarray(thresholds, dtype=np.float64).reshape(-1)
        cells = np.full((len(cuts), 4), np.nan)
        for g in range(4):
            logits = np.sort(self.logit[2 * self.target + self.protected == g])
            if len(logits):
                below = np.searchsorted(logits, cuts, side="left") / len(logits)
                cells[:, g] = 100 * (below if g < 2 else 1 - below)
        return cells

    def accuracy(self, thresholds: np.ndarray) -> np.ndarray:
        """(T,) accuracy over all faces in per cent; this reads no protected label."""
        positive, negative = (np.sort(self.logit[self.target == y]) for y in (1, 0))
        right = np.searchsorted(negative, thresholds, side="left") + len(positive)
        return (
            100 * (right - np.searchsorted(positive, thresholds, side="left")) / len(self.logit)
        )

    def report(self, cuts: Cuts) -> FairnessReport:
        """The fairness report where each protected value has its own threshold."""
        first, second = self.cells(cuts)
        counts = np.bincount(2 * self.target + self.protected, minlength=4)
        return FairnessReport(np.where([True, False, True, False], first, second), counts)


def scored(run: Run, split: str) -> Scored:
    """The faces of a run's "test" or "validation" split. Raises AimfairError where there are none."""
    rows = run.predictions[run.predictions["split"] == split]
    if rows.empty:
        raise AimfairError(f"run {run.id} has no predictions of {split} faces")
    target, protected = (rows[name].to_numpy(np.int64) for name in ("target", "protected"))
    return Scored(target, protected, run.logits(split).astype(np.float64))


def candidates(logits: ArrayLike) -> np.ndarray:
    """Every threshold that decides differently, ascending: below, between and above the logits; and 0."""
    different = np.unique(np.asarray(logits, dtype=np.float64))
    middle = (different[1:] + different[:-1]) / 2
    return np.unique(np.concatenate([[different[0] - 1], middle, [different[-1] + 1], [0.0]]))


def best(values: np.ndarray, thresholds: np.ndarray) -> float:
    """The threshold with the largest value; of equal ones the nearest to 0, which changes least."""
    top = thresholds[values >= values.max() - 1e-9]
    return float(top[np.abs(top).argmin()])


def by_accuracy(faces: Scored) -> Cuts:
    """One cut for all, the most accurate one. No protected label is read."""
    cuts = candidates(faces.logit)
    return (best(faces.accuracy(cuts), cuts),) * 2


def by_worst_group(faces: Scored) -> Cuts:
    """One cut for all, the best for the worst group. Protected labels are read only to choose it."""
    cuts = candidates(faces.logit)
    return (best(metrics.wst(faces.cells(cuts)), cuts),) * 2


def per_group(faces: Scored) -> Cuts:
    """A cut for each protected value, the best for its worse half. Even its use needs protected labels."""
    cuts = candidates(faces.logit)
    cells = faces.cells(cuts)
    return best(cells[:, [0, 2]].min(1), cuts), best(cells[:, [1, 3]].min(1), cuts)


RULES: dict[str, Callable[[Scored], Cuts]] = {
    "0, as trained": lambda faces: (0.0, 0.0),
    "one, by accuracy": by_accuracy,
    "one, by worst group (oracle)": by_worst_group,
    "one per group (oracle)": per_group,
}
"""How a threshold is chosen on validation faces. Oracles read protected labels."""


def moved(runs: Iterable[Run], chosen_on: str = "validation") -> pd.DataFrame:
    """What each of :data:`RULES` makes of the test faces, a row per run and rule.

    chosen_on  "validation", or "test" for the best that such a rule could reach
    Columns: method (its title), seed, rule, "cut 0" and "cut 1" (for protected value 0 and 1), and
    those of the fairness report.
    """
    rows = []
    for run in runs:
        test, chooser = scored(run, "test"), scored(run, chosen_on)
        identity = {"method": methods.get(run.config["method"]).title, "seed": run.seed}
        for rule, choose in RULES.items():
            cuts = choose(chooser)
            where = {"rule": rule, "cut 0": cuts[0], "cut 1": cuts[1]}
            rows.append(identity | where | test.report(cuts).as_dict())
    return pd.DataFrame(rows)


def curves(runs: Iterable[Run], thresholds: ArrayLike) -> pd.DataFrame:
    """A row per run and threshold, of test faces: method, seed, threshold, acc, wst, eo_max in per cent."""
    cuts, parts = np.asarray(thresholds, dtype=np.float64).reshape(-1), []
    for run in runs:
        faces = scored(run, "test")
        cells = faces.cells(cuts)
        columns = {
            "acc": faces.accuracy(cuts),
            "wst": metrics.wst(cells),
            "eo_max": metrics.eo_max(cells),
        }
        identity = {"method": methods.get(run.config["method"]).title, "seed": run.seed}
        parts.append(pd.DataFrame(identity | {"threshold": cuts} | columns))
    if not parts:
        raise AimfairError("no run whose thresholds could be moved")
    return pd.concat(parts, ignore_index=True)
