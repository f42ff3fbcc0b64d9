"""Which cells of a table have their run, and what the table shows of it. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from itertools import groupby, product
from pathlib import Path
from typing import Any

import pandas as pd

from aimfair import methods
from aimfair.environment import AimfairError
from aimfair.study import runs, search, study, tables
from aimfair.study.grid.experiments import CHOSEN, Cell, Experiment, is_measurement

_COLUMNS = pd.MultiIndex.from_tuples(
    [("n", "seeds"), ("wst of means", "mean"), *product(tables.METRICS, ("mean", "low", "high"))]
)


@dataclass(frozen=True)
class Machine:
    """Where and how cells are looked up and computed: the common parameters of a study, and who computes.

    runs_root  absolute, because other processes and machines write there too; they need a file system in common
    workers    processes on this machine, or jobs of a cluster
    dask       "tcp://..." of a scheduler, or "slurm"; empty: this machine alone
    """

    device: str = "auto"
    data_root: str = ""
    runs_root: str = field(default_factory=lambda: str(runs.default_root()))
    reuse: bool = True
    workers: int = 1
    dask: str = ""

    def open(self, cell: Cell) -> study.Study:
        """The study that a cell belongs to, without any face in memory."""
        common = {name: getattr(self, name) for name in ("device", "data_root", "runs_root", "reuse")}
        return study.open_study(cell.profile, changes=dict(cell.changes), **common)


@lru_cache(maxsize=64)
def _asked(cell: Cell, machine: Machine) -> study.Study:
    return machine.open(cell)


def study_of(cell: Cell, machine: Machine) -> study.Study:
    """The study that a cell belongs to, to ask what there is: it never has a face in memory."""
    return _asked(Cell("", "", "", cell.profile, cell.changes, "", (), 0), machine)


def identified(cells: Iterable[Cell], machine: Machine) -> dict[str, Cell]:
    """Cells by the id of their run, in their order. Of cells with the same run the first is kept.

    A cell whose search is not finished has the id of its question until there is an answer.
    """
    found: dict[str, Cell] = {}
    for cell in cells:
        known = resolved(cell, machine)
        found.setdefault(identity(known, machine), known)
    return found


def identity(cell: Cell, machine: Machine) -> str:
    """The id of a cell's run."""
    return runs.run_id(config_of(cell, machine))


def config_of(cell: Cell, machine: Machine) -> dict[str, Any]:
    """The configuration of a cell's run."""
    hyper = dict(cell.hyper)
    of_any = _settings(cell.profile, cell.changes, cell.method, hyper.pop(search.TRAINING, ""), machine)
    return of_any | {"hyper": hyper, "seed": cell.seed}


@lru_cache(maxsize=1024)  # hundreds of cells share the settings of a study's method
def _settings(
    profile: str, changes: tuple[tuple[str, Any], ...], method: str, training: str, machine: Machine
) -> dict[str, Any]:
    opened = study_of(Cell("", "", "", profile, changes, method, (), 0), machine)
    # while it is a question it has an identity of its own: that of no schedule
    known = opened.trained(training) if training and not training.startswith(CHOSEN) else opened
    return known.config(method, {}, 0) | ({"schedule": training} if training.startswith(CHOSEN) else {})


def is_there(cell: Cell, machine: Machine) -> bool:
    """Whether a cell's run is on this machine or, if published runs may be used, among those."""
    opened, config = study_of(cell, machine), config_of(cell, machine)
    if (opened.runs_root / runs.run_id(config)).is_dir():
        return True
    return opened.reuse and runs.is_published(opened.published_root, opened.profile.profile, config)


def missing(cells: Mapping[str, Cell], machine: Machine) -> dict[str, Cell]:
    """The cells whose run is not there, see :func:`is_there`."""
    return {number: cell for number, cell in cells.items() if not is_there(cell, machine)}


def publish(cells: Iterable[Cell], machine: Machine) -> list[Path]:
    """Pack the runs of ``cells`` that are on this machine alone into ``data/published``; returns the files written."""
    found: dict[tuple[Path, str], list[runs.Run]] = {}
    for number, cell in identified(cells, machine).items():
        opened = study_of(cell, machine)
        place = (opened.published_root, opened.profile.profile)
        if (opened.runs_root / number).is_dir() and not runs.is_published(*place, config_of(cell, machine)):
            found.setdefault(place, []).append(runs.load(opened.runs_root / number))
    return [path for place, mine in found.items() for path in runs.publish(mine, *place)]


def is_question(cell: Cell) -> bool:
    """Whether the cell waits for what a search chooses."""
    return bool(_questions(cell))


def _questions(cell: Cell) -> set[str]:
    return {name for name, value in cell.hyper if str(value).startswith(CHOSEN)}


def search_cells(cell: Cell, machine: Machine) -> list[Cell]:
    """The cells among which a question's hyper-parameters are chosen."""
    fixed = {name: value for name, value in cell.hyper if name not in _questions(cell)}
    among = search.values(cell.method, dict(cell.among), **fixed)
    return [
        replace(cell, seed=seed, hyper=tuple(sorted(hyper.items())))
        for seed in search.seeds(study_of(cell, machine).profile, cell.first)
        for hyper in among
    ]


def resolved(cell: Cell, machine: Machine) -> Cell:
    """The cell with what its search chose in place of :data:`aimfair.study.grid.experiments.CHOSEN`; as it is, while runs
    of the search are missing."""
    if not is_question(cell):
        return cell
    try:
        return replace(cell, hyper=_answer(replace(cell, table="", setting="", row="", seed=0), machine))
    except LookupError:
        return cell


@cache  # an error is not kept: whoever asks again looks again
def _answer(question: Cell, machine: Machine) -> tuple[tuple[str, Any], ...]:
    opened, tries = study_of(question, machine), search_cells(question, machine)
    found = [opened.find(config_of(each, machine)) for each in tries]
    if None in found:
        raise LookupError
    among = [each.hyper for each in tries if each.seed == tries[0].seed]
    ranked = search.ranking([(n % len(among), run) for n, run in enumerate(found) if run], question.first)
    asked = next(str(value) for name, value in question.hyper if name in _questions(question))
    return among[ranked[int(asked.removeprefix(CHOSEN) or 1) - 1]]


def together(cells: Iterable[Cell], key: Callable[[Cell], Any]) -> list[list[Cell]]:
    """Cells with the same key, in the order in which the keys appear."""
    groups: dict[Any, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(key(cell), []).append(cell)
    return list(groups.values())


def described(cell: Cell) -> str:
    """A cell in words: where it stands, its seed, and what its hyper-parameters say beyond the defaults."""
    if is_measurement(cell.method):
        what, said = cell.method.replace("-", " "), [str(value) for _, value in cell.hyper]
    else:
        what, method = cell.row, methods.get(cell.method)
        said = [
            f"{k}={v}" for k, v in cell.hyper if k in (dict(cell.among) or method.search) or v != method.usual.get(k)
        ]
    return f"{cell.table}, {cell.setting}: " + ", ".join([what, f"seed {cell.seed}", *said])


def summary(
    experiment: Experiment, cells: Sequence[Cell], machine: Machine, reference: str | None = None
) -> tuple[pd.DataFrame, list[Cell]]:
    """The summary of a table (:func:`aimfair.study.tables.summary`) from its finished runs, and the cells that have none.

    cells      all of ``experiment``. Of what a row searches the value counts that :func:`aimfair.study.search.choose`
               finds; a row without runs of it is empty
    reference  title of the row to which the others are compared, pairwise over the seeds
    Two more columns say what the method of a row is told and how many configurations it chooses among. The index has a
    level for the settings if there are several. Raises AimfairError for a figure without accuracies, and for a reference
    that is no row or has no run.
    """
    cells = [cell for cell in cells if not is_measurement(cell.method)]
    if not cells:
        raise AimfairError(
            f"{experiment.name} is no table of accuracies for this profile: there is nothing to summarise"
        )
    titles = list(dict.fromkeys(row.title for row in experiment.rows if not is_measurement(row.method)))
    if reference not in (None, *titles):
        raise AimfairError(f"{experiment.name} has no row {reference!r}; it has: {', '.join(titles)}")
    found, absent = chosen(cells, machine)
    if reference is not None and reference not in set(found["method"]):
        raise AimfairError(
            f"{experiment.name}: {reference} has no run yet to compare with: aimfair grid run computes it"
        )
    parts = {}
    for setting in dict.fromkeys(cell.setting for cell in cells):
        rows = found[found["setting"] == setting]
        compared = reference if reference in set(rows["method"]) else None
        part = tables.summary(rows, compared) if len(rows) else pd.DataFrame(columns=_COLUMNS, dtype=float)
        shown = [row for row in experiment.within(setting) if not is_measurement(row.method)]
        parts[setting] = part.reindex([row.title for row in shown])
        parts[setting]["told", ""] = [methods.get(row.method).extra_data for row in shown]
        parts[setting]["configurations", ""] = [len(row.configurations()) for row in shown]
    if len(parts) == 1:
        return next(iter(parts.values())).rename_axis("method"), absent
    return pd.concat(parts, names=["setting", "method"]), absent


def chosen(
    cells: Sequence[Cell], machine: Machine, known: dict[str, pd.DataFrame] | None = None
) -> tuple[pd.DataFrame, list[Cell]]:
    """What a table shows: the run that counts of each setting, row and seed, and the cells that have no run.

    Columns are ``setting``, those of :func:`aimfair.study.tables.frame` with the row's title as ``method``, and how many
    values were ``searched``, of which :func:`aimfair.study.search.choose` has chosen one.

    known  rows of the runs that were looked up before, by id, and is added to: tables have many runs in common
    """
    known = {} if known is None else known
    parts, absent = [], []
    for (setting, title), group in groupby(cells, key=lambda cell: (cell.setting, cell.row)):
        candidates = list(group)
        places: dict[tuple[tuple[str, Any], ...], int] = {}  # of the searched values, in their order
        found = []
        for cell in candidates:
            asked = resolved(cell, machine)
            place = places.setdefault(asked.hyper, len(places))
            number = identity(asked, machine)
            if number not in known and (run := study_of(asked, machine).find(config_of(asked, machine))):
                known[number] = tables.frame([run])
            if number in known:
                found.append(known[number].assign(place=place))
            else:
                absent.append(cell)
        if found:
            searched = sum(not any(str(value).startswith(CHOSEN) for _, value in hyper) for hyper in places)
            told = {"searched": searched, "first": candidates[0].first, "shortlist": candidates[0].shortlist}
            parts.append(pd.concat(found).assign(setting=setting, method=title, **told))
    if not parts:
        return pd.DataFrame(columns=["setting", "method", "seed"]), absent
    return tables.choose(pd.concat(parts, ignore_index=True), among="place", by=["setting", "method"]), absent
