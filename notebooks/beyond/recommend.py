"""The best combination that reads no protected label, named by validation accuracy, with everything that ties with it."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd

from aimfair import methods
from aimfair.environment import AimfairError
from aimfair.stats import paired_difference
from aimfair.study import Study, recipes, search, tables
from aimfair.study.runs import Run
from beyond import experiments

REPEATS = ("draw",)
"""Hyper-parameters that number repetitions of the same thing; results are averaged over them, never chosen among."""


def combinations(study: Study) -> pd.DataFrame:
    """Every combination of what is *not* searched, of every method that reads no protected label: a row per seed.

    The searched value is the one of :func:`aimfair.study.search.choose`; each repetition (:data:`REPEATS`) has its own, and
    then they are averaged. A biased model that was trained longer, and what is tuned of it, competes as well. Columns are
    those of :func:`aimfair.study.tables.frame` that are numbers, ``method``, a title per combination such as "AIM-Fair, k=50",
    those with the usual values first, ``name``, the method's, the ``command`` that trains it (of repetitions the first), and
    how many values were ``searched``. What the study has no run of is not there.
    """
    known = [method for method in methods.registry().values() if not method.is_oracle]
    parts = [*(_combinations(study, method) for method in known), _trained_longer(study)]
    filled = [part for part in parts if len(part)]
    return (
        pd.concat(filled, ignore_index=True)
        if filled
        else pd.DataFrame(columns=["method", "seed"])
    )


def _combinations(study: Study, method: methods.Method) -> pd.DataFrame:
    tried = [
        tuple(hyper[name] for name in method.search) for hyper in search.values(method.name)
    ]
    kept, places = [], []
    for run in tables.find_runs(study, method.name):
        values = tuple(run.config["hyper"][name] for name in method.search)
        if values in tried:
            kept.append(run)
            places.append(tried.index(values))
    if not kept:
        return pd.DataFrame()
    unusual = [_unusual(method, run) for run in kept]
    repetition = [tuple(run.config["hyper"].get(name, 0) for name in REPEATS) for run in kept]
    frame = tables.frame(kept).assign(
        unusual=unusual, repetition=repetition, place=places, searched=len(tried)
    )
    best = tables.choose(frame, among="place", by=["unusual", "repetition"])
    best = best.sort_values(
        "unusual", key=lambda column: column.where(column != "{}", ""), kind="stable"
    )
    means = best.groupby(["unusual", "seed"], sort=False).mean(numeric_only=True).reset_index()
    for text in means["unusual"].unique():
        hyper, rows = json.loads(text), means["unusual"] == text
        means.loc[rows, "method"] = ", ".join(
            [method.title, *(f"{k}={v}" for k, v in hyper.items())]
        )
        means.loc[rows, "command"] = tables.command_for(study, method.name, hyper, {})
    return means.assign(name=method.name).drop(columns=["unusual", "place"])


def _trained_longer(study: Study) -> pd.DataFrame:
    """The rows of the experiment "longer" whose biased model is not the study's own."""
    experiment = experiments.all_of(study.profile)["longer"]
    rows = {row.title: row for row in experiment.rows if row.changes}
    best = tables.chosen(tables.rows(study, experiment))
    best = best[best["method"].isin(list(rows))]
    if best.empty:
        return pd.DataFrame()
    means = best.groupby(["method", "seed"], sort=False).mean(numeric_only=True).reset_index()
    typed = {
        t: tables.command_for(study, row.method, row.fixed, row.changes)
        for t, row in rows.items()
    }
    typed |= {
        recipe.title: tables.command_for(study, recipe.name, {}, {})
        for recipe in recipes.ALL.values()
    }
    names = {title: row.method for title, row in rows.items()}
    return means.drop(columns="place").assign(
        name=means["method"].map(names), command=means["method"].map(typed)
    )


def _unusual(method: methods.Method, run: Run) -> str:
    """What a run sets otherwise than usual, beside what is searched and the number of the repetition."""
    hyper = run.config["hyper"].items()
    left_out = (*method.search, *REPEATS)
    return json.dumps(
        {k: v for k, v in hyper if k not in left_out and v != method.usual.get(k)},
        sort_keys=True,
    )


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


def choose(frame: pd.DataFrame, seeds: set[int] | None = None) -> Choice:
    """Name the best of :func:`combinations` by validation accuracy.

    seeds  on which all are compared; None: those of the combination that has most
    The best of many looks better than it is, and its lead over each other one is not corrected for that: ties are called
    too seldom rather than too often, so read "not tied" with care. With one seed everything ties. Raises AimfairError
    for an empty frame, and where no combination has all seeds.
    """
    if frame.empty:
        raise AimfairError("no combination to choose among: compute some runs first")
    wide = frame.pivot(index="seed", columns="method", values="validation_accuracy")
    if seeds is None:
        seeds = set(wide[wide.notna().sum().idxmax()].dropna().index)
    wide = wide[wide.index.isin(seeds)]
    judged = [
        title for title in frame["method"].unique() if wide[title].notna().sum() == len(seeds)
    ]
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
    table = pd.DataFrame(rows, columns=columns).sort_values(
        "validation", ascending=False, kind="stable"
    )
    unjudged = [name for name in frame["method"].unique() if name not in judged]
    return Choice(
        title, list(table.loc[table["tied"], "method"]), unjudged, table.set_index("method")
    )


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
        if len(rows) > 2
        and min(rows["validation_accuracy"].nunique(), rows[metric].nunique()) > 1
    }
    return pd.Series(found, dtype=float, name=metric)
