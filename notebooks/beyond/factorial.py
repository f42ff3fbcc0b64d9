"""Which choice matters: effects of several factors over runs in which they were crossed.

AIM-Fair is a mask, a policy for batch-norm statistics and a rule for the checkpoint. Crossing them says how much of its
effect each of them has, with the others averaged out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from aimfair.environment import AimfairError
from aimfair.study import Study, claims, search, tables
from beyond import experiments

FACTORS = ("mask", "statistics", "checkpoint")
"""What fine-tuning chooses: which tensors learn, which batch-norm statistics the classifier ends with, which epoch."""


def runs_of(study: Study, every_rate: bool = False) -> pd.DataFrame:
    """The chosen runs of :func:`beyond.experiments.crossed` that there are, with a column for each of :data:`FACTORS`. Of
    random masks one per seed takes part. An empty frame where there are none.

    every_rate  of the seeds of the search all learning rates, and no other seeds: the rate is a factor more, ``lr``. Rates
                with which some of the trainings diverged are left out for all of them
    """
    found = tables.rows(study, experiments.all_of(study.profile)["factorial"])
    if every_rate:
        lost = found.loc[["diverged" in scores for scores in found["scores"]], "lr"]
        found = found[
            found["seed"].isin(search.seeds(study.profile)) & ~found["lr"].isin(list(lost))
        ]
    else:
        found = tables.chosen(found)
    levels = {row.title: levels for levels, row in experiments.crossed().items()}
    found = found[found["method"].isin(list(levels))].reset_index(drop=True)
    found[list(FACTORS)] = [levels[title] for title in found["method"]] or None
    return found


def complete(frame: pd.DataFrame, factors: Sequence[str]) -> pd.DataFrame:
    """The largest part of ``frame`` that is crossed: seeds that have a run for every combination of the levels found.

    frame  a row per run with the columns ``factors`` and seed; empty where no seed has them all
    """
    if frame.empty:
        return frame
    there = frame.drop_duplicates([*factors, "seed"]).groupby("seed").size()
    return frame[frame["seed"].isin(there[there == _cells(frame, factors)].index)].reset_index(
        drop=True
    )


def effects(frame: pd.DataFrame, reference: Mapping[str, str]) -> pd.DataFrame:
    """Main effect of every level of every factor against the factor's ``reference`` level, over seeds.

    frame      a crossed frame (see :func:`complete`), one row per combination and seed
    reference  factor -> the level that its other levels are compared with
    A level's value for a seed is the mean over all combinations of the other factors. A row per factor, level and
    metric, with the columns of :func:`aimfair.study.claims.compare_all`. Raises AimfairError where the frame is not crossed
    or lacks a reference level.
    """
    factors, metrics = list(reference), list(claims.METRICS)
    if (
        frame.empty
        or len(complete(frame, factors)) != len(frame)
        or frame.duplicated([*factors, "seed"]).any()
    ):
        raise AimfairError(
            "a factorial needs one run for every combination of its levels and every seed"
        )
    parts = []
    for factor, base in reference.items():
        if base not in set(frame[factor]):
            raise AimfairError(
                f"{factor} has no level {base!r}; it has: {', '.join(map(str, frame[factor].unique()))}"
            )
        means = frame.groupby([factor, "seed"], sort=False)[metrics].mean().reset_index()
        compared = claims.compare_all(means, base, by=factor).rename(columns={factor: "level"})
        parts.append(compared.assign(factor=factor))
    return pd.concat(parts, ignore_index=True)[["factor", *parts[0].columns.drop("factor")]]


def variance_shares(
    frame: pd.DataFrame, value: str, factors: Sequence[str]
) -> dict[str, float]:
    """Per cent of the sum of squares of ``value`` that each factor's main effect explains, and "together" for the rest.

    frame  one row for each combination of the factors' levels: in such a grid main effects do not overlap, and what is
           left are interactions and noise
    For factors a, b, ... with grand mean m the share of a is the sum over rows of (mean of the row's level of a - m)^2
    over that of (value - m)^2. All shares are 0 where nothing varies. Raises AimfairError for a grid with holes or
    repetitions.
    """
    cells = _cells(frame, factors)
    if frame.empty or len(frame) != cells or frame.duplicated(list(factors)).any():
        raise AimfairError(
            f"one row for each combination of {', '.join(factors)} is needed: {cells}, not {len(frame)}"
        )
    x = frame[value].astype(float)
    whole = float(((x - x.mean()) ** 2).sum())
    parts = {
        f: float(((x.groupby(frame[f]).transform("mean") - x.mean()) ** 2).sum())
        for f in factors
    }
    shares = {name: 100 * part / whole if whole > 0 else 0.0 for name, part in parts.items()}
    return shares | {"together": 100 - sum(shares.values()) if whole > 0 else 0.0}


def _cells(frame: pd.DataFrame, factors: Sequence[str]) -> int:
    return int(frame[list(factors)].nunique().prod())
