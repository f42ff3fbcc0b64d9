"""Which choice matters: main effects of several factors over runs in which they were crossed.

AIM-Fair is a mask, a policy for batch-norm statistics and a rule for the checkpoint. Crossing them says how much of its
effect each of them has, with the others averaged out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from aimfair.analysis import table_runs, verdicts
from aimfair.analysis.verdicts import METRICS
from aimfair.environment import AimfairError
from aimfair.study import search
from aimfair.study.grid import beyond

if TYPE_CHECKING:
    from aimfair.study import Study

FACTORS = ("mask", "statistics", "checkpoint")
"""What fine-tuning chooses: which tensors learn, which batch-norm statistics the classifier ends with, which epoch."""


def runs_of(study: Study, every_rate: bool = False) -> pd.DataFrame:
    """The chosen runs of :func:`aimfair.study.grid.beyond.crossed` that there are, with a column for each of :data:`FACTORS`. Of random
    masks one per seed takes part. An empty frame where there are none.

    every_rate  of the seeds of the search all learning rates, and no other seeds: the rate is a factor more, ``lr``. Rates
                with which some of the trainings diverged are left out for all of them
    """
    chosen = table_runs.rows(study, beyond.factorial(study.profile))
    if every_rate:
        lost = chosen.loc[["diverged" in scores for scores in chosen["scores"]], "lr"]
        chosen = chosen[chosen["seed"].isin(search.seeds(study.profile)) & ~chosen["lr"].isin(list(lost))]
    else:
        chosen = table_runs.chosen(chosen)
    levels = {row.title: levels for levels, row in beyond.crossed().items()}
    chosen = chosen[chosen["method"].isin(list(levels))].reset_index(drop=True)
    chosen = chosen.drop(columns=list(FACTORS), errors="ignore")  # hyper-parameters of the same name
    of = pd.DataFrame([levels[title] for title in chosen["method"]], columns=list(FACTORS))
    return pd.concat([chosen, of], axis=1)


def complete(frame: pd.DataFrame, factors: Sequence[str]) -> pd.DataFrame:
    """The largest part of ``frame`` that is crossed: seeds that have a run for every combination of the levels found.

    frame  a row per run with the columns ``factors`` and seed; empty where no seed has them all
    """
    if frame.empty:
        return frame
    cells = 1
    for factor in factors:
        cells *= frame[factor].nunique()
    there = frame.drop_duplicates([*factors, "seed"]).groupby("seed").size()
    return frame[frame["seed"].isin(there[there == cells].index)].reset_index(drop=True)


def effects(frame: pd.DataFrame, reference: Mapping[str, str], metrics: Sequence[str] = METRICS) -> pd.DataFrame:
    """Main effect of every level of every factor against the factor's ``reference`` level, over seeds.

    frame      a crossed frame (see :func:`complete`), one row per combination and seed
    reference  factor -> the level that its other levels are compared with
    A level's value for a seed is the mean over all combinations of the other factors. A row per factor, level and
    metric, as :func:`aimfair.analysis.verdicts.compare` tells it. Raises AimfairError where the
    frame is not crossed or lacks a reference level.
    """
    factors = list(reference)
    if frame.empty or len(complete(frame, factors)) != len(frame) or frame.duplicated([*factors, "seed"]).any():
        raise AimfairError("a factorial needs one run for every combination of its levels and every seed")
    parts = []
    for factor, base in reference.items():
        if base not in set(frame[factor]):
            raise AimfairError(f"{factor} has no level {base!r}; it has: {', '.join(map(str, frame[factor].unique()))}")
        means = frame.groupby([factor, "seed"], sort=False)[list(metrics)].mean().reset_index()
        compared = verdicts.compare(means, base, metrics, by=factor).rename(columns={factor: "level"})
        parts.append(compared.assign(factor=factor))
    return pd.concat(parts, ignore_index=True)[["factor", *parts[0].columns.drop("factor")]]
