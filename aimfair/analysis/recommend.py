"""The best combination that reads no protected label, named by validation accuracy, with everything that ties with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from aimfair.environment import AimfairError
from aimfair.stats import paired_difference


@dataclass(frozen=True, eq=False)
class Choice:
    """What validation names.

    title    the combination with the highest mean validation accuracy
    tied     titles that cannot be told from it, best first: the interval of the paired difference reaches 0
    unjudged titles without all the seeds, which take no part
    table    a row per combination: validation accuracy, how far behind the best, the interval of that, searched, tied
    """

    title: str
    tied: list[str]
    unjudged: list[str]
    table: pd.DataFrame

    @property
    def clear(self) -> bool:
        """Whether nothing ties with it."""
        return not self.tied


def choose(frame: pd.DataFrame, seeds: set[int] | None = None) -> Choice:
    """Name the best of the combinations in ``frame`` (:func:`aimfair.analysis.contenders.combinations`) by validation accuracy.

    seeds  on which all are compared; None: those of the combination that has most
    The best of many looks better than it is, and its lead over each other one is not corrected for that: ties are called
    too seldom rather than too often, so read "not tied" with care. With one seed everything ties. Raises AimfairError
    for an empty frame.
    """
    if frame.empty:
        raise AimfairError("no combination to choose among: compute some runs first")
    wide = frame.pivot(index="seed", columns="method", values="validation_accuracy")
    if seeds is None:
        seeds = set(wide[wide.notna().sum().idxmax()].dropna().index)
    wide = wide[wide.index.isin(seeds)]
    judged = [title for title in frame["method"].unique() if wide[title].notna().sum() == len(seeds)]
    if not judged or not seeds:
        raise AimfairError(f"no combination has all of the seeds {sorted(seeds)}")
    mean = wide[judged].mean()
    title = str(mean.idxmax())  # the first of equals, in the order of the registry
    rows = []
    for other in judged:
        d = paired_difference(wide[other], wide[title])
        tied = other != title and not (np.isfinite(d.high) and d.high < 0)
        searched = int(frame.loc[frame["method"] == other, "searched"].max())
        rows.append((other, float(mean[other]), d.mean, d.low, d.high, searched, tied))
    columns = ["method", "validation", "behind", "low", "high", "searched", "tied"]
    table = pd.DataFrame(rows, columns=columns).sort_values("validation", ascending=False, kind="stable")
    unjudged = [name for name in frame["method"].unique() if name not in judged]
    return Choice(title, list(table.loc[table["tied"], "method"]), unjudged, table.set_index("method"))


def agreement(frame: pd.DataFrame, metric: str, seeds: set[int] | None = None) -> pd.Series:
    """How alike validation accuracy and ``metric`` rank the combinations: Spearman's correlation, of each seed.

    seeds  those that count; combinations without all of them take no part. None: all in ``frame``
    A seed for which one of the two is the same for all combinations, or with fewer than three of them, has none and is
    left out. Higher is meant to be better: of EO, where less is better, agreement is negative.
    """
    seeds = set(frame["seed"]) if seeds is None else seeds
    part = frame[frame["seed"].isin(seeds)]
    whole = part.groupby("method")["seed"].transform("nunique") == len(seeds)
    found = {
        seed: rows["validation_accuracy"].corr(rows[metric], method="spearman")
        for seed, rows in part[whole].groupby("seed")
        if len(rows) > 2 and min(rows["validation_accuracy"].nunique(), rows[metric].nunique()) > 1
    }
    return pd.Series(found, dtype=float, name=metric)
