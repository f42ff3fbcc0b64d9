"""Which choice matters: main effects of several factors over runs in which they were crossed.

AIM-Fair is a mask, a policy for batch-norm statistics and a rule for the checkpoint. Crossing them says how much of its
effect each of them has, with the others averaged out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from aimfair.analysis import verdicts
from aimfair.analysis.contenders import collect
from aimfair.analysis.verdicts import METRICS
from aimfair.errors import AimfairError

if TYPE_CHECKING:
    from aimfair.study import Study

FACTORS = ("mask", "statistics", "checkpoint")
"""What fine-tuning chooses: which tensors learn, which batch-norm statistics the classifier ends with, which epoch."""

MASKS = {
    "all tensors": ("full-finetuning", "all"),
    "AIM-Fair": ("aim-fair", "aim-fair"),
    "random": ("random-mask", "random"),
}
STATISTICS = {"follow": "train", "kept": "eval", "real": ""}
CHECKPOINTS = {"best": {}, "last": {"select": "last"}}
"""Levels of the factors, the paper's choice first where it has one: AIM-Fair, following, best.

Statistics "follow" the synthetic faces, are "kept" from the biased model, or are estimated again on the "real" training
faces afterwards, without labels. The epoch is the "best" one on validation faces or the "last" one.
"""


def settings() -> dict[tuple[str, str, str], tuple[str, dict[str, Any]]]:
    """Levels of :data:`FACTORS` -> the method, and what is fixed of its hyper-parameters; one random mask per seed."""
    found = {}
    for mask, (method, word) in MASKS.items():
        for statistics, policy in STATISTICS.items():
            for checkpoint, rule in CHECKPOINTS.items():
                fixed = {"draw": 0} if mask == "random" else {}
                row: tuple[str, dict[str, Any]] = (method, {"batchnorm": policy, **fixed, **rule})
                if statistics == "real":
                    row = ("batchnorm-real", {"mask": word, **fixed, **rule})
                found[mask, statistics, checkpoint] = row
    return found


def runs_of(study: Study) -> pd.DataFrame:
    """The runs of the fine-tuning factorial that there are: a row per combination of :data:`FACTORS` and seed, at the
    learning rate that validation chose. An empty frame where there are none."""
    parts = []
    for levels, row in settings().items():
        found = collect(study, {"": row})
        parts += [found.assign(**dict(zip(FACTORS, levels, strict=True)))] if len(found) else []
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*FACTORS, "seed"])


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
