"""Where to cut the score: accuracy and fairness as functions of the threshold on the logit.

A classifier is trained for the cut at 0. Another cut costs no training, so what a fair method gains must be seen beside
what moving the threshold alone would gain.
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
"""Threshold for faces of protected value 0 and for those of value 1: equal where one threshold serves all."""


@dataclass(frozen=True, eq=False)
class Scored:
    """The scored faces of one split: target, protected (N,) of {0, 1} and the logit (N,)."""

    target: np.ndarray
    protected: np.ndarray
    logit: np.ndarray

    def cells(self, thresholds: ArrayLike) -> np.ndarray:
        """(T, 4) accuracy of each group, per cent, where a face is called 1 if its logit is at or above the threshold."""
        cuts = np.asarray(thresholds, dtype=np.float64).reshape(-1)
        cells = np.full((len(cuts), 4), np.nan)
        for g in range(4):
            logits = np.sort(self.logit[2 * self.target + self.protected == g])
            if len(logits):
                below = np.searchsorted(logits, cuts, side="left") / len(logits)
                cells[:, g] = 100 * (below if g < 2 else 1 - below)
        return cells

    def counts(self) -> np.ndarray:
        """(4,) faces in each group."""
        return np.bincount(2 * self.target + self.protected, minlength=4)

    def report(self, cuts: Cuts) -> FairnessReport:
        """The fairness report where each protected value has its own threshold."""
        first, second = self.cells([cuts[0]])[0], self.cells([cuts[1]])[0]
        return FairnessReport(np.array([first[0], second[1], first[2], second[3]]), self.counts())


def scored(run: Run, split: str) -> Scored:
    """The scored faces of a run's "test" or "validation" set. Raises AimfairError where there are none."""
    rows = run.predictions[run.predictions["split"] == split]
    if rows.empty:
        raise AimfairError(f"run {run.id} has no predictions of {split} faces")
    target, protected = (rows[name].to_numpy(np.int64) for name in ("target", "protected"))
    return Scored(target, protected, rows["logit"].to_numpy(np.float64))


def candidates(logits: ArrayLike) -> np.ndarray:
    """Every threshold that decides differently, ascending: below all logits, between each two, above all; and 0."""
    different = np.unique(np.asarray(logits, dtype=np.float64))
    middle = (different[1:] + different[:-1]) / 2
    return np.unique(np.concatenate([[different[0] - 1], middle, [different[-1] + 1], [0.0]]))


def accuracy(faces: Scored, thresholds: np.ndarray) -> np.ndarray:
    """(T,) overall accuracy, per cent; no protected label is read."""
    positive, negative = np.sort(faces.logit[faces.target == 1]), np.sort(faces.logit[faces.target == 0])
    right = np.searchsorted(negative, thresholds, side="left") + len(positive)
    return 100 * (right - np.searchsorted(positive, thresholds, side="left")) / len(faces.logit)


def curve(faces: Scored, thresholds: ArrayLike) -> pd.DataFrame:
    """A row per threshold: threshold, acc, wst, eo_max and the four cells, per cent."""
    cuts = np.asarray(thresholds, dtype=np.float64).reshape(-1)
    cells = faces.cells(cuts)
    columns = {
        "threshold": cuts,
        "acc": accuracy(faces, cuts),
        "wst": metrics.wst(cells),
        "eo_max": metrics.eo_max(cells),
    }
    return pd.DataFrame(columns | dict(zip(metrics.CELLS, cells.T, strict=True)))


def best(values: np.ndarray, thresholds: np.ndarray) -> float:
    """The threshold with the largest value; of equals the one nearest to 0, which changes least."""
    top = thresholds[values >= values.max() - 1e-9]
    return float(top[np.abs(top).argmin()])


def as_trained(faces: Scored) -> Cuts:
    """The cut at 0."""
    return 0.0, 0.0


def by_accuracy(faces: Scored) -> Cuts:
    """One cut, the most accurate one; no protected label is read."""
    cuts = candidates(faces.logit)
    cut = best(accuracy(faces, cuts), cuts)
    return cut, cut


def by_worst_group(faces: Scored) -> Cuts:
    """One cut, the best for the worst group: reads protected labels where it is chosen, none where it is used."""
    cuts = candidates(faces.logit)
    cut = best(metrics.wst(faces.cells(cuts)), cuts)
    return cut, cut


def per_group(faces: Scored) -> Cuts:
    """A cut for each protected value, the best for its worse half: reads protected labels even where it is used."""
    cuts = candidates(faces.logit)
    cells = faces.cells(cuts)
    return best(cells[:, [0, 2]].min(1), cuts), best(cells[:, [1, 3]].min(1), cuts)


RULES: dict[str, Callable[[Scored], Cuts]] = {
    "0, as trained": as_trained,
    "one, by accuracy": by_accuracy,
    "one, by worst group (oracle)": by_worst_group,
    "one per group (oracle)": per_group,
}
"""How a threshold is chosen on validation faces. Oracles read protected labels."""


def moved(runs: Iterable[Run], chosen_on: str = "validation") -> pd.DataFrame:
    """What each of :data:`RULES` makes of the test faces: a row per run and rule.

    chosen_on  "validation", or "test" for what could at best be reached by such a rule
    Columns: method (its title), seed, rule, "cut 0" and "cut 1" (for protected value 0 and 1), and the fairness report.
    """
    rows = []
    for run in runs:
        title, test, where = methods.get(run.config["method"]).title, scored(run, "test"), scored(run, chosen_on)
        for rule, choose in RULES.items():
            cuts = choose(where)
            row = {"method": title, "seed": run.seed, "rule": rule, "cut 0": cuts[0], "cut 1": cuts[1]}
            rows.append(row | test.report(cuts).as_dict())
    return pd.DataFrame(rows)


def curves(runs: Iterable[Run], thresholds: ArrayLike) -> pd.DataFrame:
    """:func:`curve` of the test faces of each run, with the columns method and seed."""
    parts = [
        curve(scored(run, "test"), thresholds).assign(method=methods.get(run.config["method"]).title, seed=run.seed)
        for run in runs
    ]
    if not parts:
        raise AimfairError("no run whose thresholds could be moved")
    return pd.concat(parts, ignore_index=True)
