"""Everything that could be recommended: each method in each setting that has runs, with what validation chose for it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pandas as pd

from aimfair import methods
from aimfair.analysis import table_runs
from aimfair.study import recipes, search, tables
from aimfair.study.grid import beyond
from aimfair.study.runs import Run

if TYPE_CHECKING:
    from aimfair.study import Study

REPEATS = ("draw",)
"""Hyper-parameters that number repetitions of the same thing; results are averaged over them, never chosen among."""


def combinations(study: Study) -> pd.DataFrame:
    """Every combination of what is *not* searched, of every method that reads no protected label: a row per seed.

    The searched value is the one of :func:`aimfair.study.tables.choose`; each repetition (:data:`REPEATS`) has its own, and then
    they are averaged. A biased model that was trained longer, and what is tuned of it, competes as well
    (:func:`aimfair.study.grid.beyond.longer`). Columns are those of :func:`aimfair.study.tables.frame` that are numbers, ``method``, a
    title per combination such as "AIM-Fair, k=50", those with the usual values first, ``name``, the method's, the
    ``command`` that trains it (of repetitions the first), and how many values were ``searched``. What the study has no run
    of is not there.
    """
    known = [method for method in methods.registry().values() if not method.is_oracle]
    parts = [_combinations(study, method) for method in known]
    filled = [part for part in (*parts, _trained_longer(study)) if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=["method", "seed"])


def _combinations(study: Study, method: methods.Method) -> pd.DataFrame:
    runs = table_runs.there(study, method.name)
    tried = [tuple(hyper[name] for name in method.search) for hyper in search.values(method.name)]
    places = {values: place for place, values in enumerate(tried)}
    found = [places.get(tuple(run.config["hyper"][name] for name in method.search)) for run in runs]
    kept = [run for run, place in zip(runs, found, strict=True) if place is not None]
    if not kept:
        return pd.DataFrame()
    frame = tables.frame(kept).assign(
        said=[_said(method, run) for run in kept],
        repetition=[tuple(run.config["hyper"].get(name, 0) for name in REPEATS) for run in kept],
        place=[place for place in found if place is not None],
        searched=len(places),
    )
    best = tables.choose(frame, among="place", by=["said", "repetition"])
    best = best.sort_values("said", key=lambda said: said.where(said != "{}", ""), kind="stable")
    means = best.groupby(["said", "seed"], sort=False).mean(numeric_only=True).reset_index()
    settings = {said: json.loads(said) for said in means["said"].unique()}
    titles = {said: ", ".join([method.title, *(f"{k}={v}" for k, v in of.items())]) for said, of in settings.items()}
    typed = {said: table_runs.command_for(study, method.name, of, {}) for said, of in settings.items()}
    named = means.assign(method=means["said"].map(titles), name=method.name, command=means["said"].map(typed))
    return named.drop(columns=["said", "place"])


def _trained_longer(study: Study) -> pd.DataFrame:
    """The rows of :func:`aimfair.study.grid.beyond.longer` whose biased model is not the study's own."""
    experiment = beyond.longer(study.profile)
    rows = {row.title: row for row in experiment.rows if row.changes}
    best = table_runs.chosen(table_runs.rows(study, experiment))
    best = best[best["method"].isin(list(rows))]
    if best.empty:
        return pd.DataFrame()
    means = best.groupby(["method", "seed"], sort=False).mean(numeric_only=True).reset_index()
    names = {title: row.method for title, row in rows.items()}
    typed = {title: table_runs.command_for(study, row.method, row.fixed, row.changes) for title, row in rows.items()}
    typed |= {recipe.title: table_runs.command_for(study, recipe.name, {}, {}) for recipe in recipes.ALL.values()}
    return means.drop(columns="place").assign(name=means["method"].map(names), command=means["method"].map(typed))


def _said(method: methods.Method, run: Run) -> str:
    """What a run sets otherwise than usual, beside what is searched and the number of the repetition."""
    hyper = run.config["hyper"].items()
    said = {k: v for k, v in hyper if k not in (*method.search, *REPEATS) and v != method.usual.get(k)}
    return json.dumps(said, sort_keys=True)
