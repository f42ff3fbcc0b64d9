"""Fairness of the score before it becomes a decision: calibration and ranking, per protected value.

Conditioning is on the protected value only. Within a cell (target, protected) the target is constant,
and neither calibration nor a ranking of positives above negatives means anything there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from aimfair import methods
from aimfair.environment import AimfairError
from aimfair.study.runs import Run


@dataclass(frozen=True, eq=False)
class GroupScores:
    """Three views of p(target = 1) in the faces of protected value 0 and of value 1, each (2,), fractions of 1.

    ece    expected calibration error, equal-mass bins; grows as a group shrinks, so compare equal sizes
    brier  mean squared distance between probability and target
    auroc  chance that a positive face scores above a negative one; NaN where a group has only one target
    """

    ece: np.ndarray
    brier: np.ndarray
    auroc: np.ndarray
    counts: np.ndarray


def group_scores(target: Any, logits: Any, protected: Any, bins: int = 15) -> GroupScores:
    """Calibration and ranking of (N,) logits for each protected value; target and protected hold {0, 1}."""
    y, z, s = (np.asarray(v, dtype=np.float64).reshape(-1) for v in (target, logits, protected))
    if not len(y) == len(z) == len(s):
        raise AimfairError(
            f"every face needs a target, a logit and a protected label: got {len(y)}, {len(z)}, {len(s)}"
        )
    p = 1 / (1 + np.exp(-np.clip(z, -500, 500)))
    members = [s == value for value in (0, 1)]
    return GroupScores(
        ece=np.array([ece(y[m], p[m], bins) for m in members]),
        brier=np.array([np.mean((p[m] - y[m]) ** 2) if m.any() else np.nan for m in members]),
        auroc=np.array([auroc(y[m], z[m]) for m in members]),
        counts=np.array([int(m.sum()) for m in members]),
    )


def equal_sizes(protected: Any, seed: int = 0) -> np.ndarray:
    """Indices, ascending, of as many faces of either protected value as the rarer one has, drawn at random.

    The calibration error of a small group is larger by noise alone; on these faces both have the same noise.
    """
    s = np.asarray(protected).reshape(-1)
    members = [np.flatnonzero(s == value) for value in (0, 1)]
    n, rng = min(map(len, members)), np.random.default_rng(seed)
    return np.sort(np.concatenate([rng.permutation(member)[:n] for member in members]))


def frame(runs: Iterable[Run], split: str = "test", bins: int = 15) -> pd.DataFrame:
    """A row per run: method (its title), seed, and ece, brier and auroc of ``split`` in per cent, each for protected value
    0 and 1 and as the distance of the two ("ece 0", "ece 1", "ece gap"), on groups of equal size (:func:`equal_sizes`)."""
    rows = []
    for run in runs:
        faces = run.predictions[run.predictions["split"] == split]
        faces = faces.iloc[equal_sizes(faces["protected"])]
        scores = group_scores(faces["target"], faces["logit"], faces["protected"], bins)
        row: dict[str, Any] = {"method": methods.get(run.config["method"]).title, "seed": run.seed}
        for name in ("ece", "brier", "auroc"):
            first, second = 100 * getattr(scores, name)
            row |= {f"{name} 0": first, f"{name} 1": second, f"{name} gap": abs(first - second)}
        rows.append(row)
    return pd.DataFrame(rows)


def ece(target: np.ndarray, probability: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error: mean |mean p - mean y| over bins that hold equally many of the sorted scores.

    Equal scores may straddle two bins, so ties are broken by position. NaN without faces.
    """
    if len(target) == 0:
        return float("nan")
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    gaps = [abs(probability[part].mean() - target[part].mean()) * len(part) for part in parts]
    return float(sum(gaps) / len(target))


def auroc(target: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve by the rank sum, ties counted half. NaN when all targets are equal."""
    positive = target == 1
    n1, n0 = int(positive.sum()), int((~positive).sum())
    if n1 == 0 or n0 == 0:
        return float("nan")
    _, inverse, repeats = np.unique(score, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(repeats) - (repeats - 1) / 2
    return float((mean_rank[inverse][positive].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))
