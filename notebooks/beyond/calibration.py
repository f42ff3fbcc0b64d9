"""Fairness of the score before it becomes a decision: calibration and ranking for each protected value.

The condition is the protected value alone. Within a group the target is constant, and neither
calibration nor a ranking of positives above negatives means anything there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from aimfair import methods
from aimfair.environment import AimfairError
from aimfair.study.runs import Run


def group_scores(target: Any, logits: Any, protected: Any, bins: int = 15) -> pd.DataFrame:
    """Calibration and ranking of (N,) logits, a row for protected value 0 and one for 1, fractions of 1.

    ece    expected calibration error; it grows as a group shrinks, so compare groups of equal size
    brier  mean squared distance between probability and target
    auroc  chance that a positive face scores above a negative one; NaN where all targets are equal
    """
    y, z, s = (np.asarray(v, dtype=np.float64).reshape(-1) for v in (target, logits, protected))
    if not len(y) == len(z) == len(s):
        raise AimfairError(
            f"every face needs target, logit and protected label: got {len(y)}, {len(z)}, {len(s)}"
        )
    p, rows = expit(z), []
    for member in (s == 0, s == 1):
        both = len(np.unique(y[member])) == 2
        rows.append(
            {
                "ece": ece(y[member], p[member], bins),
                "brier": np.mean((p[member] - y[member]) ** 2) if member.any() else np.nan,
                "auroc": roc_auc_score(y[member], z[member]) if both else np.nan,
            }
        )
    return pd.DataFrame(rows)


def ece(target: np.ndarray, probability: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error: the mean |mean p - mean y| over bins of equally many sorted scores.

    Equal scores may fall into two bins, so ties are broken by position. NaN without faces.
    """
    if len(target) == 0:
        return float("nan")
    parts = np.array_split(np.argsort(probability, kind="stable"), bins)
    gaps = [abs(probability[i].mean() - target[i].mean()) * len(i) for i in parts if len(i)]
    return float(sum(gaps) / len(target))


def equal_sizes(protected: Any, seed: int = 0) -> np.ndarray:
    """Ascending indices of as many faces of either protected value as the rarer one has, drawn at random.

    Noise alone makes the calibration error of a small group larger; on these faces both have the same noise.
    """
    s, rng = np.asarray(protected).reshape(-1), np.random.default_rng(seed)
    members = [np.flatnonzero(s == value) for value in (0, 1)]
    n = min(map(len, members))
    return np.sort(np.concatenate([rng.permutation(member)[:n] for member in members]))


def frame(runs: Iterable[Run]) -> pd.DataFrame:
    """A row per run: method (its title), seed, and the test faces' scores in per cent on groups of equal size.

    Each score has three columns: "ece 0" and "ece 1" for the two protected values and "ece gap".
    """
    rows = []
    for run in runs:
        faces = run.predictions[run.predictions["split"] == "test"].assign(logit=run.logits())
        faces = faces.iloc[equal_sizes(faces["protected"])]
        scores = 100 * group_scores(faces["target"], faces["logit"], faces["protected"])
        row: dict[str, Any] = {
            "method": methods.get(run.config["method"]).title,
            "seed": run.seed,
        }
        for name, (first, second) in scores.items():
            row |= {f"{name} 0": first, f"{name} 1": second, f"{name} gap": abs(first - second)}
        rows.append(row)
    return pd.DataFrame(rows)
