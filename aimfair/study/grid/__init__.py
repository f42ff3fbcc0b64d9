"""The grid: all cells of some tables, which of them are there, and having the others computed by an engine.

A run that several tables show is one run. Finished runs are found by their configuration, so that a grid that was stopped
goes on where it was, whichever engine, machine or table they were computed for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import groupby, product
from typing import Any

import pandas as pd

from aimfair import methods
from aimfair.environment import AimfairError
from aimfair.progress import progress, quiet
from aimfair.study import runs, search, tables
from aimfair.study.grid import costs
from aimfair.study.grid.engines import BIASED_MODEL, POOL, Engine, Machine, Outcome, study_of
from aimfair.study.grid.experiments import CHOSEN, GAPS, Cell, Experiment
from aimfair.study.measurements import MEASUREMENTS
from aimfair.study.pool import pool_folder

_COLUMNS = pd.MultiIndex.from_tuples(
    [("n", "seeds"), ("wst of means", "mean"), *product(tables.METRICS, ("mean", "low", "high"))]
)


def identified(cells: Iterable[Cell], machine: Machine) -> dict[str, Cell]:
    """Cells by the id of their run, in their order. Of cells with the same run the first is kept.

    A cell whose search is not finished has the id of its question until there is an answer.
    """
    found: dict[str, Cell] = {}
    for cell in cells:
        known = answered(cell, machine)
        found.setdefault(runs.run_id(_config(known, machine)), known)
    return found


def answered(cell: Cell, machine: Machine) -> Cell:
    """The cell, with what its search chose in place of :data:`aimfair.study.grid.experiments.CHOSEN`; as it is, while runs of the
    search are missing."""
    if not _asks(cell):
        return cell
    tries = _search(cell, machine)
    key = (machine, *(runs.run_id(_config(each, machine)) for each in tries))
    if key not in _answers:
        opened = study_of(cell, machine)
        found = [opened.find(_config(each, machine)) for each in tries]
        if None in found:
            return cell
        among = [dict(each.hyper) for each in tries if each.seed == tries[0].seed]
        best = search.winner([run for run in found if run], among)
        _answers[key] = tuple(sorted(best.items()))
    return replace(cell, hyper=_answers[key])


_answers: dict[tuple[Any, ...], tuple[tuple[str, Any], ...]] = {}  # by the ids of the runs, which decide it


def _asks(cell: Cell) -> bool:
    return any(value == CHOSEN for _, value in cell.hyper)


def _search(cell: Cell, machine: Machine) -> list[Cell]:
    """The cells among which a cell's hyper-parameters are chosen."""
    among = search.values(cell.method, **{name: value for name, value in cell.hyper if value != CHOSEN})
    return [
        replace(cell, seed=seed, hyper=tuple(sorted(hyper.items())))
        for seed in search.seeds(study_of(cell, machine).profile)
        for hyper in among
    ]


def missing(cells: Mapping[str, Cell], machine: Machine) -> dict[str, Cell]:
    """The cells whose run is neither on this machine nor, if published runs may be used, among those."""
    return {identity: cell for identity, cell in cells.items() if not _is_there(cell, machine)}


def shard(cells: Mapping[str, Cell], number: int, of: int) -> dict[str, Cell]:
    """Part ``number`` (from 1) of ``of`` parts, the same on every machine and whatever is already there.

    The cells of one study and seed stay together, because they share a biased model and its gradients; only where there
    are more parts than studies and seeds are they cut. Raises AimfairError for a part that there is not.
    """
    if not 1 <= number <= of:
        raise AimfairError(f"--shard {number}/{of}: parts count from 1 to the number of parts, such as 1/8 ... 8/8")
    groups = _together(cells, lambda cell: (cell.profile, cell.changes, cell.seed))
    if of <= len(groups):
        mine = {cell for group in groups[number - 1 :: of] for cell in group}
    else:
        ordered = [cell for group in groups for cell in group]
        mine = set(ordered[(number - 1) * len(ordered) // of : number * len(ordered) // of])
    return {identity: cell for identity, cell in cells.items() if cell in mine}


def plan(cells: Mapping[str, Cell], machine: Machine) -> list[Cell]:
    """The missing ``cells`` in the order in which to compute them, and before them what they share.

    First the synthetic pools that are not drawn yet. Then study by study the biased models, what needs none, the
    gradient gaps, the methods that start from the biased model, what waits for a search, and last the maps of features:
    so that several workers seldom wait for one.
    """
    ordered: list[Cell] = []
    pools: dict[Any, tuple[int, Cell]] = {}
    for these in _together(cells, lambda cell: (cell.profile, cell.changes)):
        opened = study_of(these[0], machine)
        lacking = costs.images_missing(opened.profile)
        folder = (pool_folder(opened.profile), opened.profile.task)
        if any(map(_draws, these)) and lacking > pools.get(folder, (0,))[0]:
            pools[folder] = (lacking, replace(these[0], method=POOL, hyper=()))
        ordered += sorted([*these, *_shared(these, machine)], key=_rank)
    return [cell for _, cell in pools.values()] + ordered


def _shared(cells: Sequence[Cell], machine: Machine) -> list[Cell]:
    """Searches, biased models and gradient gaps that ``cells`` of one study need and that are not there.

    A method that ranks tensors (it has a ``k``) is taken to need the gaps. One that needs them and is not known for it
    measures them itself, while others wait: nothing is computed twice.
    """
    known = set(cells)
    tries = {each: None for cell in cells if _asks(cell) for each in _search(cell, machine)}
    added = [each for each in tries if each not in known and not _is_there(each, machine)]
    cells = [*cells, *added]
    asked_for = {(cell.method, cell.seed) for cell in cells}
    starting = {cell.seed: cell for cell in cells if _rank(cell) >= 2}
    ranking = {cell.seed: cell for cell in cells if "k" in dict(cell.hyper)}
    for seed, cell in starting.items():
        erm = replace(cell, method="erm", hyper=())
        there = _is_there(erm, machine) and study_of(erm, machine).biased_weights(seed) is not None
        if not there and ("erm", seed) not in asked_for:
            added.append(replace(erm, method=BIASED_MODEL))
    for seed, cell in ranking.items():
        gaps = replace(cell, method=GAPS, hyper=())
        if not _is_there(gaps, machine) and (GAPS, seed) not in asked_for:
            added.append(gaps)
    return added


def _draws(cell: Cell) -> bool:
    return cell.method in MEASUREMENTS or "synthetic" in methods.get(cell.method).needs


def _rank(cell: Cell) -> int:
    if cell.method in ("erm", BIASED_MODEL):
        return 0
    if cell.method in MEASUREMENTS:
        return 2 if cell.method == GAPS else 5
    if _asks(cell):
        return 4
    return 1 if methods.get(cell.method).start == "scratch" else 3


def compute(cells: Sequence[Cell], machine: Machine, engine: Engine) -> list[Outcome]:
    """Have ``cells`` computed, with a bar, or where output is stored with a line for each; returns those that failed."""
    failed = []
    outcomes = progress(engine(cells, machine), "grid", total=len(cells), unit="run")
    for number, outcome in enumerate(outcomes, 1):
        if quiet():
            how = f"failed: {outcome.error}" if outcome.error else f"{outcome.seconds:.1f} s"
            how += f" ({outcome.note})" if outcome.note else ""
            print(f"{number:{len(str(len(cells)))}}/{len(cells)}  {described(outcome.cell)}: {how}", flush=True)
        if outcome.error:
            failed.append(outcome)
    return failed


def described(cell: Cell) -> str:
    """A cell in words: where it stands, its seed, and what its hyper-parameters say beyond the defaults."""
    where = f"{cell.table}, {cell.setting}"
    if cell.method == POOL:
        return f"{where}: synthetic pool for {cell.row}"
    if cell.method in (BIASED_MODEL, *MEASUREMENTS):
        of = "".join(f", {value}" for _, value in cell.hyper)
        return f"{where}: {cell.method.replace('-', ' ')}, seed {cell.seed}{of}"
    method = methods.get(cell.method)
    said = [f"{k}={v}" for k, v in cell.hyper if k in method.search or v != method.defaults.get(k)]
    return f"{where}: " + ", ".join([cell.row, f"seed {cell.seed}", *said])


def summary(
    experiment: Experiment, cells: Sequence[Cell], machine: Machine, reference: str | None = None
) -> tuple[pd.DataFrame, list[Cell]]:
    """The summary of a table (:func:`aimfair.study.tables.summary`) from its finished runs, and the cells that have none.

    cells      all of ``experiment``. Of what a row searches the value counts that :func:`aimfair.study.tables.choose` finds; a
               row without runs of it is empty
    reference  title of the row to which the others are compared, pairwise over the seeds
    Two more columns say what the method of a row is told and how many configurations it chooses among. The index has a
    level for the settings if there are several. Raises AimfairError for a figure without accuracies, and for a reference
    that is no row or has no run.
    """
    cells = [cell for cell in cells if cell.method not in MEASUREMENTS]
    if not cells:
        raise AimfairError(
            f"{experiment.name} is no table of accuracies for this profile: there is nothing to summarise"
        )
    titles = list(dict.fromkeys(row.title for row in experiment.rows if row.method not in MEASUREMENTS))
    if reference not in (None, *titles):
        raise AimfairError(f"{experiment.name} has no row {reference!r}; it has: {', '.join(titles)}")
    found, lacking = chosen(cells, machine)
    if reference is not None and reference not in set(found["method"]):
        raise AimfairError(
            f"{experiment.name}: {reference} has no run yet to compare with: aimfair grid run computes it"
        )
    parts = {}
    for setting in dict.fromkeys(cell.setting for cell in cells):
        rows = found[found["setting"] == setting]
        compared = reference if reference in set(rows["method"]) else None
        there = tables.summary(rows, compared) if len(rows) else pd.DataFrame(columns=_COLUMNS, dtype=float)
        shown = [row for row in experiment.within(setting) if row.method not in MEASUREMENTS]
        parts[setting] = there.reindex([row.title for row in shown])
        parts[setting]["told", ""] = [methods.get(row.method).extra_data for row in shown]
        parts[setting]["configurations", ""] = [len(row.configurations()) for row in shown]
    if len(parts) == 1:
        return next(iter(parts.values())).rename_axis("method"), lacking
    return pd.concat(parts, names=["setting", "method"]), lacking


def chosen(
    cells: Sequence[Cell], machine: Machine, known: dict[str, pd.DataFrame] | None = None
) -> tuple[pd.DataFrame, list[Cell]]:
    """What a table shows: the run that counts of each setting, row and seed, and the cells that have no run.

    Columns are ``setting``, those of :func:`aimfair.study.tables.frame` with the row's title as ``method``, and how many values
    were ``searched``, of which :func:`aimfair.study.tables.choose` has chosen one.

    known  rows of the runs that were looked up before, by id, and is added to: tables have many runs in common
    """
    known = {} if known is None else known
    parts, lacking = [], []
    for (setting, title), candidates in groupby(cells, key=lambda cell: (cell.setting, cell.row)):
        places: dict[tuple[tuple[str, Any], ...], int] = {}  # of the searched values, in their order
        found = []
        for cell in candidates:
            asked = answered(cell, machine)
            place = places.setdefault(asked.hyper, len(places))
            config = _config(asked, machine)
            identity = runs.run_id(config)
            if identity not in known and (run := study_of(asked, machine).find(config)):
                known[identity] = tables.frame([run])
            if identity in known:
                found.append(known[identity].assign(place=place))
            else:
                lacking.append(cell)
        if found:
            searched = sum(all(value != CHOSEN for _, value in hyper) for hyper in places)
            parts.append(pd.concat(found).assign(setting=setting, method=title, searched=searched))
    if not parts:
        return pd.DataFrame(columns=["setting", "method", "seed"]), lacking
    return tables.choose(pd.concat(parts, ignore_index=True), among="place", by=["setting", "method"]), lacking


def _together(cells: Mapping[str, Cell], key: Callable[[Cell], Any]) -> list[list[Cell]]:
    """Cells with the same key, in the order in which the keys appear."""
    groups: dict[Any, list[Cell]] = {}
    for cell in cells.values():
        groups.setdefault(key(cell), []).append(cell)
    return list(groups.values())


def _config(cell: Cell, machine: Machine) -> dict[str, Any]:
    run = {"hyper": dict(cell.hyper), "seed": cell.seed}
    return {**_settings(cell.profile, cell.changes, cell.method, machine), **run}


@lru_cache(maxsize=1024)  # settings of a study's method are the same for hundreds of cells
def _settings(profile: str, changes: tuple[tuple[str, Any], ...], method: str, machine: Machine) -> dict[str, Any]:
    cell = Cell("", "", "", profile, changes, method, (), 0)
    return study_of(cell, machine).config(method, {}, 0)


def _is_there(cell: Cell, machine: Machine) -> bool:
    opened, config = study_of(cell, machine), _config(cell, machine)
    mine = (opened.runs_root / runs.run_id(config)).is_dir()
    return mine or (opened.reuse and runs.is_published(opened.published_root, opened.profile.profile, config))
