"""Engines: who computes the cells of a grid, and where. One file each; a new engine is a new file.

An engine is a function ``run(cells, machine)`` that yields an :class:`Outcome` for each cell, in any order. It hands out
the cells in the order in which it gets them, has each of them computed by :func:`perform`, and when a process dies it
has another one do what that one was at. All engines make the same runs, because a cell says everything that decides one.
"""

from __future__ import annotations

import importlib
import pkgutil
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock
from time import perf_counter

from filelock import FileLock, Timeout

from aimfair import methods, study
from aimfair.environment import AimfairError, cores, gpus, home
from aimfair.study import Study, runs, search
from aimfair.study.grid.experiments import CHOSEN, Cell
from aimfair.study.measurements import MEASUREMENTS
from aimfair.study.pool import pool_lock, synthetic_faces, will_be_trained

__all__ = ["Engine", "Machine", "Outcome", "available", "claim", "cores", "get", "gpus", "perform", "study_of"]

POOL = "synthetic-pool"
BIASED_MODEL = "biased-model"
"""Cells that are no runs: what several runs share, computed ahead of them."""

_alone = Lock()  # torch's random state belongs to the process: two cells in two threads of it would disturb each other


@dataclass(frozen=True)
class Machine:
    """Where and how cells are computed: the common parameters of a study, and what engines need.

    runs_root  absolute, because other processes and machines write there too; they need a file system in common
    workers    processes on this machine, or jobs of a cluster
    dask       "tcp://..." of a scheduler, "local:N" or "slurm"
    """

    device: str = "auto"
    data_root: str = ""
    runs_root: str = field(default_factory=lambda: str(runs.default_root()))
    reuse: bool = True
    workers: int = 1
    dask: str = ""


@dataclass(frozen=True)
class Outcome:
    """A cell that was tried: what it took in seconds, one line that says why it failed, empty where it did not, and what the
    method noted of its run."""

    cell: Cell
    seconds: float
    error: str = ""
    note: str = ""


Engine = Callable[[Sequence[Cell], Machine], Iterator[Outcome]]


def available() -> list[str]:
    """Names of all engines."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get(name: str) -> Engine:
    """The engine called ``name``. Raises AimfairError for one that no file of this folder is."""
    if name not in available():
        raise AimfairError(f"no engine {name!r}; there are: {', '.join(available())}")
    return importlib.import_module(f"{__name__}.{name}").run


def _open(profile: str, changes: tuple, device: str, data_root: str, runs_root: str, reuse: bool) -> Study:
    common = {"device": device, "data_root": data_root, "runs_root": runs_root, "reuse": reuse}
    return study.open_study(profile, changes=dict(changes), **common)


_asked = lru_cache(maxsize=64)(_open)  # for what needs no face
_at_work = lru_cache(maxsize=1)(_open)  # the last study only: it keeps its faces in memory


def _key(cell: Cell, machine: Machine) -> tuple:
    return cell.profile, cell.changes, machine.device, machine.data_root, machine.runs_root, machine.reuse


def study_of(cell: Cell, machine: Machine) -> Study:
    """The study that a cell belongs to, to ask what there is; its faces are those of :func:`perform`."""
    return _asked(*_key(cell, machine))


def perform(cell: Cell, machine: Machine) -> Outcome:
    """Compute one cell, unless it is there. Nothing is raised but by Ctrl-C: an error is part of the outcome."""
    began, error, note = perf_counter(), "", ""
    try:
        with _alone:
            note = _compute(_at_work(*_key(cell, machine)), cell)
    except AimfairError as known:
        error = str(known)
    except Exception as unknown:  # whatever it is, the other cells are computed
        last = traceback.extract_tb(unknown.__traceback__)[-1]
        error = f"{type(unknown).__name__}: {unknown} ({Path(last.filename).name}, line {last.lineno})"
    return Outcome(cell, perf_counter() - began, " ".join(error.split()), note)


def claim(cell: Cell, machine: Machine) -> AbstractContextManager | None:
    """The lock of what the cell computes, taken now and held until it is left: its run, its pool, or its biased model. None
    where another process is at that, or where its search lacks runs."""
    opened, given = study_of(cell, machine), {name: value for name, value in cell.hyper if value != CHOSEN}
    if len(given) < len(cell.hyper):
        among, first = search.values(cell.method, **given), search.seeds(opened.profile)
        lacking = any(opened.find(opened.config(cell.method, hyper, seed)) is None for seed in first for hyper in among)
        return None if lacking else nullcontext()
    if cell.method == POOL:
        lock = pool_lock(opened.profile)
    elif cell.method == BIASED_MODEL:
        lock = opened.lock(opened.config("erm", methods.get("erm").hyper(), cell.seed))
    else:
        lock = opened.lock(opened.config(cell.method, given, cell.seed))
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        return lock.acquire(blocking=False)
    except Timeout:
        return None
    except OSError:  # a full disk, say: who computes the cell will tell
        return nullcontext()


def _compute(opened: Study, cell: Cell) -> str:
    """Returns what the method noted of the run."""
    if cell.method == POOL:
        with _generator_lock(opened):
            synthetic_faces(opened.profile, opened.device, opened.data_root)
    elif cell.method == BIASED_MODEL:
        opened.biased_model(cell.seed)
    elif cell.method in MEASUREMENTS:
        opened.measure(cell.method, cell.seed, **dict(cell.hyper))
    else:
        given = {name: value for name, value in cell.hyper if value != CHOSEN}
        return search.run(opened, cell.method, cell.seed, **given).scores.get("note", "")
    return ""


def _generator_lock(opened: Study) -> FileLock | nullcontext:
    """Pools of several prompt variants wait for one training of the generator that they share."""
    generator = home() / opened.profile.generator
    if not will_be_trained(opened.profile):
        return nullcontext()
    generator.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{generator}.lock")
