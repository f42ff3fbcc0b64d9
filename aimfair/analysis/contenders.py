"""Which runs there are to judge a method by, and those of the value that validation chose."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from math import prod
from typing import TYPE_CHECKING, Any

import pandas as pd

from aimfair import methods, tables
from aimfair.runs import Run

if TYPE_CHECKING:
    from aimfair.study import Study

REPEATS = ("draw",)
"""Hyper-parameters that number repetitions of the same thing; results are averaged over them, never chosen among."""

Rows = Mapping[str, tuple[str, Mapping[str, Any]]]
"""Title of a row -> name of a method and the hyper-parameters that are fixed."""


def known(name: str, fixed: Mapping[str, Any]) -> bool:
    """Whether a method of this name is registered and has these hyper-parameters."""
    method = methods.registry().get(name)
    return method is not None and not set(fixed) - set(method.usual)


def there(study: Study, name: str, **fixed: Any) -> list[Run]:
    """The runs of a method with these hyper-parameters, and its usual values of all others that it does not search.

    The published ones, or where there are none this machine's; [] for a method that is not registered, has no such
    hyper-parameter, or no run. Repetitions (:data:`REPEATS`) are all of them, unless one is named.
    """
    if not known(name, fixed):
        return []
    method = methods.get(name)
    free = [n for n in (*method.search, *REPEATS) if n not in fixed]
    wanted = {k: v for k, v in (method.usual | fixed).items() if k not in free}
    for found in (study.all_published(name), study.all_fresh(name)):
        fitting = [run for run in found if wanted.items() <= {**method.usual, **run.config["hyper"]}.items()]
        if fitting:
            return fitting
    return []


def best(several: Iterable[Run], fixed: Iterable[str] = ()) -> list[Run]:
    """Of one method's runs those with the value that counts, as in every table (:func:`aimfair.tables.choose`), by seed and
    repetition; each repetition has its own.

    fixed  hyper-parameters that the method would search and that were fixed
    """
    ordered = sorted(several, key=_repetition)
    if not ordered:
        return []
    searched = _searched(ordered[0].config["method"], fixed)
    values = [tuple(run.config["hyper"][name] for name in searched) for run in ordered]
    places = {value: place for place, value in enumerate(sorted(set(values)))}
    frame = pd.DataFrame({"seed": [run.seed for run in ordered], "method": "", "place": [places[v] for v in values]})
    size = prod(len(several) for several in searched.values())
    frame = frame.assign(selection=[tables.selection(run) for run in ordered], searched=size)
    frame["repetition"] = [_repetition(run)[1:] for run in ordered]
    return [ordered[number] for number in tables.choose(frame, among="place", by=["repetition"]).index]


def chosen(several: Iterable[Run], title: str = "", fixed: Iterable[str] = ()) -> pd.DataFrame:
    """A row per seed: the fairness of the runs that :func:`best` names, averaged over repetitions.

    Columns are those of :func:`aimfair.tables.frame` that are numbers, method (``title``, else the method's own), and how
    many values were ``searched``. An empty frame where no search is complete.
    """
    won = best(several, fixed := tuple(fixed))
    if not won:
        return pd.DataFrame(columns=["method", "seed"])
    method = methods.get(won[0].config["method"])
    size = prod(len(values) for values in _searched(method.name, fixed).values())
    rows = tables.frame(won).groupby("seed").mean(numeric_only=True).reset_index()
    return rows.assign(method=title or method.title, searched=size)


def collect(study: Study, rows: Rows) -> pd.DataFrame:
    """:func:`chosen` for each of the rows that has runs, one below the other; an empty frame where none has."""
    return _together(chosen(there(study, name, **fixed), title, fixed) for title, (name, fixed) in rows.items())


def combinations(study: Study) -> pd.DataFrame:
    """:func:`chosen` for every combination of what is *not* searched, of every method that reads no protected label.

    One title per combination, such as "AIM-Fair, k=50", those with the usual values first; ``name`` is the method's. What
    the study has no run of is not there.
    """
    parts = []
    for name, method in methods.registry().items():
        if method.is_oracle:
            continue

        def choices(run: Run, method: methods.Method = method) -> str:
            hyper = run.config["hyper"].items()
            said = {k: v for k, v in hyper if k not in (*method.search, *REPEATS) and v != method.usual.get(k)}
            return json.dumps(said, sort_keys=True)

        several_of = study.all_published(name) or study.all_fresh(name)
        found = sorted(several_of, key=lambda run, said=choices: (said(run) != "{}", said(run)))  # type: ignore[misc]
        for said, several in groupby(found, key=choices):
            words = [f"{k}={v}" for k, v in json.loads(said).items()]
            parts.append(chosen(list(several), ", ".join([method.title, *words])).assign(name=name))
    return _together(parts)


def _together(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=["method", "seed"])


def _searched(method: str, fixed: Iterable[str]) -> dict[str, Sequence[Any]]:
    return {name: values for name, values in methods.get(method).search.items() if name not in set(fixed)}


def _repetition(run: Run) -> tuple[int, ...]:
    return (run.seed, *(run.config["hyper"].get(name, 0) for name in REPEATS))
