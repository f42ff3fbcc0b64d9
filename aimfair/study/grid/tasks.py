"""Computing what is missing of a grid: a graph of tasks, of which each needs others, done here or by Dask's workers.

A task finds what is already there and takes the lock of what it computes, so a grid that was killed goes on where it
was, and two grids at once compute nothing twice.
"""

from __future__ import annotations

import math
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock, Timeout

from aimfair import methods
from aimfair.cluster import connect, local_cluster
from aimfair.environment import AimfairError, cores
from aimfair.progress import progress, quiet
from aimfair.study import pool
from aimfair.study.grid.experiments import GAPS, Cell, is_measurement
from aimfair.study.grid.lookup import (
    Machine,
    described,
    identity,
    is_question,
    is_there,
    resolved,
    search_cells,
    study_of,
    together,
)
from aimfair.study.study import Study

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True)
class Task:
    """Something to compute.

    kind   "run": the run of ``cell``; "pool": the synthetic faces of its study; "biased model": the weights of its seed
    needs  keys of the tasks that come first
    """

    kind: str
    cell: Cell
    needs: tuple[str, ...] = ()

    def __str__(self) -> str:
        cell = self.cell
        where = f"{cell.table}, {cell.setting}"
        if self.kind == "pool":
            return f"{where}: synthetic pool for {cell.row}"
        return described(cell) if self.kind == "run" else f"{where}: {self.kind}, seed {cell.seed}"


@dataclass(frozen=True)
class Outcome:
    """A task that was tried: its seconds, one line that says why it failed (empty where it did not), and what the method
    noted of its run."""

    task: Task
    seconds: float
    error: str = ""
    note: str = ""


def graph(cells: Mapping[str, Cell], machine: Machine) -> dict[str, Task]:
    """What is to be computed for ``cells`` to have their runs, by key (of a run its id); what a task needs stands before it.

    A method that ranks tensors (it has a ``k``) is taken to need the gradient gaps. One that needs them and is not known
    for it measures them itself, while others wait.
    """
    tasks: dict[str, Task] = {}
    to_draw = cache(missing_images)  # a look at every image of a pool: once for all cells of a study

    def run(cell: Cell) -> list[str]:
        key = identity(cell, machine)
        if key not in tasks and is_there(cell, machine):
            return []
        if key not in tasks:
            tasks[key] = Task("run", cell, tuple(dict.fromkeys(needs(cell))))
        return [key]

    def needs(cell: Cell) -> list[str]:
        first = [key for each in search_cells(cell, machine) for key in run(each)] if is_question(cell) else []
        measured = is_measurement(cell.method)
        if measured or "synthetic" in methods.get(cell.method).needs:
            first += draw(cell)
        if measured or methods.get(cell.method).start != "scratch":
            first += train(cell)
        if "k" in dict(cell.hyper):
            first += run(replace(cell, method=GAPS, hyper=()))
        return first

    def draw(cell: Cell) -> list[str]:
        profile = study_of(cell, machine).profile
        key, size = f"{pool.pool_folder(profile)}, {profile.task}", to_draw(profile)
        if key in tasks and to_draw(study_of(tasks[key].cell, machine).profile) >= size:
            return [key]
        if size:
            tasks[key] = Task("pool", cell)
        return [key] if size else []

    def train(cell: Cell) -> list[str]:
        erm = replace(cell, row=methods.get("erm").title, method="erm", hyper=(), among=())
        wanted = run(erm) if identity(erm, machine) in cells else []
        if wanted or (is_there(erm, machine) and study_of(erm, machine).biased_weights(erm.seed)):
            return wanted
        key = f"biased model {identity(erm, machine)}"
        tasks.setdefault(key, Task("biased model", cell))
        return [key]

    for group in together(cells.values(), lambda cell: (cell.profile, cell.changes)):
        for cell in group:
            run(cell)
    return tasks


def missing_images(profile: Any) -> int:
    """How many images of a profile's pool are not drawn yet; 0 where they were made elsewhere.

    Raises AimfairError where images lie in their place that were made with other settings.
    """
    if pool.is_made_elsewhere(profile):
        return 0
    return len(pool.missing_images(profile, pool.pool_jobs(profile), pool.pool_folder(profile)))


def compute(
    tasks: Mapping[str, Task], machine: Machine, minutes: float = 0.0, after: Callable[[], object] | None = None
) -> list[Outcome]:
    """Do ``tasks``, with a bar, or where output is stored with a line for each; returns the outcomes of those that failed.

    One worker is this process. Several are new processes, one per GPU if there are any, or the workers of the scheduler
    or the Slurm jobs that ``machine.dask`` names. A task whose worker dies is done again by another one; it has failed
    where that one dies, too.

    minutes  after so many of them nothing more is started; 0: all is done
    after    called after each task
    """
    until = perf_counter() + 60 * minutes if minutes else math.inf
    alone = machine.workers == 1 and not machine.dask
    outcomes = _in_turn(tasks, machine) if alone else _by_workers(tasks, machine)
    failed = []
    for number, outcome in enumerate(progress(outcomes, "grid", total=len(tasks), unit="run"), 1):
        if quiet():
            how = f"failed: {outcome.error}" if outcome.error else f"{outcome.seconds:.1f} s"
            how += f" ({outcome.note})" if outcome.note else ""
            print(f"{number:{len(str(len(tasks)))}}/{len(tasks)}  {outcome.task}: {how}", flush=True)
        if outcome.error:
            failed.append(outcome)
        if after is not None:
            after()
        if perf_counter() > until:
            break
    outcomes.close()
    return failed


def _in_turn(tasks: Mapping[str, Task], machine: Machine) -> Generator[Outcome]:
    """One task after the other. What another process is computing at the time comes later, and what needs it, too."""
    waiting = dict(tasks)
    while waiting:
        ready = (
            key for key, task in waiting.items() if not waiting.keys() & set(task.needs) and _is_free(key, machine)
        )
        yield perform(waiting.pop(next(ready, next(iter(waiting)))), machine)


def _is_free(key: str, machine: Machine) -> bool:
    """Whether nobody computes the run ``key``."""
    lock = Path(machine.runs_root) / f".{key}.lock"
    try:
        with FileLock(lock, blocking=False) if lock.exists() else nullcontext():
            return True
    except Timeout:
        return False


def perform(task: Task, machine: Machine, *done: Any, sharing: int = 0) -> Outcome:
    """Do one task, unless its result is there. Nothing is raised but by Ctrl-C: an error is part of the outcome.

    done     what the tasks returned that it needs: whether they failed, it finds out itself
    sharing  how many workers share the cores that this process may use; 0: its threads are set already
    """
    began, error, note = perf_counter(), "", ""
    if sharing:  # Dask would leave it one thread
        torch.set_num_threads(max(1, cores() // sharing))
    try:
        note = _do(task, _at_work(task.cell.profile, task.cell.changes, machine), machine)
    except AimfairError as known:
        error = str(known)
    except Exception as unknown:  # whatever it is, the other tasks are done
        last = traceback.extract_tb(unknown.__traceback__)[-1]
        error = f"{type(unknown).__name__}: {unknown} ({Path(last.filename).name}, line {last.lineno})"
    return Outcome(task, perf_counter() - began, " ".join(error.split()), note)


@lru_cache(maxsize=1)  # the last study only: it keeps its faces in memory
def _at_work(profile: str, changes: tuple[tuple[str, Any], ...], machine: Machine) -> Study:
    return machine.open(Cell("", "", "", profile, changes, "", (), 0))


def _do(task: Task, opened: Study, machine: Machine) -> str:
    cell = task.cell
    if task.kind == "pool":
        pool.pool_catalogue(opened.profile, opened.device, opened.data_root)
    elif task.kind == "biased model":
        opened.biased_model(cell.seed)
    elif is_measurement(cell.method):
        opened.measure(cell.method, cell.seed, **dict(cell.hyper))
    else:
        known = resolved(cell, machine)
        if is_question(known):  # another shard has its search
            for each in search_cells(cell, machine):
                opened.attempt(each.method, each.seed, **dict(each.hyper))
            known = resolved(cell, machine)
        return opened.attempt(cell.method, cell.seed, **dict(known.hyper)).scores.get("note", "")
    return ""


def _by_workers(tasks: Mapping[str, Task], machine: Machine) -> Generator[Outcome, None, None]:
    with _workers(machine) as (client, sharing):
        from distributed import KilledWorker, as_completed

        futures: dict[str, Any] = {}
        for place, (key, task) in enumerate(tasks.items()):
            needed = [futures[name] for name in task.needs]
            futures[key] = client.submit(
                perform, task, machine, *needed, sharing=sharing, pure=False, priority=-place, key=f"task {key}"
            )
        asked = {future.key: tasks[key] for key, future in futures.items()}
        for future in as_completed(list(futures.values())):
            try:
                yield future.result()
            except KilledWorker:
                why = "two workers died of this task or of one that it needs: is the memory enough for so many workers?"
                yield Outcome(asked[future.key], 0.0, why)
            except Exception as error:  # not the task's own, which its outcome holds: the scheduler or the network
                yield Outcome(asked[future.key], 0.0, f"{type(error).__name__}: {' '.join(str(error).split())}")


@contextmanager
def _workers(machine: Machine) -> Iterator[tuple[Client, int]]:
    """A client, and how many of its workers share the cores of a machine; 0 where their threads are set already."""
    if not machine.dask:
        with ExitStack() as stack:
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the workers inherit it: Ctrl-C is for this process
            try:
                client = stack.enter_context(local_cluster(machine.workers, machine.device))
            finally:
                signal.signal(signal.SIGINT, before)
            yield client, 0
    elif machine.dask == "slurm":
        from distributed import Client

        with _slurm(machine.workers) as cluster, Client(cluster) as client:
            yield client, 1
    else:
        with connect(machine.dask) as client:
            hosts = Counter(worker["host"] for worker in client.scheduler_info()["workers"].values())
            yield client, max(hosts.values(), default=1)


def _slurm(jobs: int) -> Any:
    """Slurm jobs, each of which does one task at a time on all the cores that it gets.

    dask-jobqueue's own file says partition, memory, time and GPUs. Raises AimfairError where that is not enough.
    """
    try:
        import dask
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise AimfairError("--dask slurm needs dask-jobqueue: pip install 'aimfair[dask]'") from error
    wanted = dask.config.get("jobqueue.slurm.job-cpu") or dask.config.get("jobqueue.slurm.cores")
    try:
        cluster = SLURMCluster(cores=1, processes=1, job_cpu=wanted)
        cluster.scale(jobs=jobs)
    except (ValueError, TypeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise AimfairError(
            f"Slurm jobs cannot be described ({reason}): set cores, memory and walltime under jobqueue: slurm: in "
            "~/.config/dask/jobqueue.yaml"
        ) from error
    return cluster
