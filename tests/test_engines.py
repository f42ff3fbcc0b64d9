"""Engines: whoever computes the cells, the runs are the same; a worker that dies is replaced."""

import multiprocessing
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_grid import ROWS, draw_pool, machine, some_cells

from aimfair.environment import AimfairError
from aimfair.progress import in_words
from aimfair.study import grid, runs
from aimfair.study.grid.engines import (
    BIASED_MODEL,
    POOL,
    Outcome,
    claim,
    cores,
    gpus,
    perform,
    processes,
    serial,
    study_of,
)
from aimfair.study.grid.engines import dask as dask_engine
from aimfair.study.grid.experiments import CHOSEN, Cell, Row
from aimfair.study.pool import pool_lock


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return draw_pool(tmp_path_factory.mktemp("pool"))


def planned(pool, here):
    return grid.plan(grid.identified(some_cells(pool, ROWS, (100, 200)), here), here)


@pytest.fixture(scope="module")
def reference(pool, tmp_path_factory):
    """The runs of the serial engine, by id; with as many threads as each of two workers has."""
    here = machine(tmp_path_factory.mktemp("serial"))
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, cores() // 2))
    outcomes = list(serial.run(planned(pool, here), here))
    torch.set_num_threads(before)
    assert len(outcomes) == 10 and not any(outcome.error for outcome in outcomes)
    return finished(here)


def finished(here):
    return {run.id: run for run in runs.all_runs(Path(here.runs_root))}


def assert_same(found, reference):
    """The same ids; the same predictions, but for the last digits."""
    assert found.keys() == reference.keys()
    for identity, run in found.items():
        one, other = run.predictions, reference[identity].predictions
        assert one.drop(columns="logit").equals(other.drop(columns="logit"))
        np.testing.assert_allclose(one["logit"], other["logit"], rtol=1e-3, atol=1e-4)


# ------------------------------------------------------------------------------------------------------------ serial


HOLD = (
    "import sys; from filelock import FileLock\nwith FileLock(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
)


TAKE = "import sys; from filelock import FileLock, Timeout\ntry: FileLock(sys.argv[1]).acquire(blocking=False)\nexcept Timeout: sys.exit(7)"


def held(cell, here):
    """Another process is at this run."""
    (identity,) = grid.identified([cell], here)
    return held_file(Path(here.runs_root) / f".{identity}.lock")


@contextmanager
def held_file(path):
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        yield
        other.stdin.close()


def test_what_another_process_is_at_is_left_for_later(pool, tmp_path):
    here = machine(tmp_path)
    first, second, third = some_cells(pool, ROWS[:3])
    outcomes = serial.run([first, second, third], here)
    with held(first, here):
        assert next(outcomes).cell == second
    assert [outcome.cell for outcome in outcomes] == [first, third] and len(finished(here)) == 4


def test_what_waits_for_a_search_is_left_for_later_and_nothing_is_left_out(pool, tmp_path):
    here = machine(tmp_path)
    asks = Cell("", "", "", "smoke", some_cells(pool)[0].changes, "linear-probing", (("lr", CHOSEN),), 200)
    baseline, drawn, *_ = some_cells(pool)
    with held(drawn, here):
        outcomes = serial.run([drawn, asks, baseline], here)
        assert next(outcomes).cell == baseline  # though ``asks`` stands before it
        assert claim(drawn, here) is None and claim(asks, here) is None
    (identity,) = grid.identified([drawn], here)
    take = [sys.executable, "-c", TAKE, str(Path(here.runs_root) / f".{identity}.lock")]
    with claim(drawn, here):
        assert claim(asks, here) is None and subprocess.run(take).returncode == 7
    assert subprocess.run(take).returncode == 0
    assert [outcome.cell.method for outcome in outcomes] == ["synthetic-only", "linear-probing"]
    assert claim(asks, here) is not None


def test_what_is_shared_and_made_by_another_process_is_left_for_later_for_another_study_if_need_be(pool, tmp_path):
    here = machine(tmp_path)
    baseline, other = some_cells(pool, ROWS[:1], settings={"as it is": {}, "other": {"pretrain_lr": 0.02}})
    drawing, training = (replace(baseline, method=method) for method in (POOL, BIASED_MODEL))
    lock = pool_lock(study_of(baseline, here).profile).lock_file
    outcomes = serial.run([drawing, training, other], here)
    with held_file(lock), held(baseline, here):
        assert claim(drawing, here) is None and claim(training, here) is None
        assert next(outcomes).cell == other
    assert [(outcome.cell, outcome.error) for outcome in outcomes] == [(drawing, ""), (training, "")]
    Path(lock).unlink()


# --------------------------------------------------------------------------------------------------------- processes


def test_processes_make_the_same_runs_though_they_are_killed(pool, reference, tmp_path):
    here = machine(tmp_path, workers=2)
    outcomes = processes.run(planned(pool, here), here)
    first = next(outcomes)
    victims = multiprocessing.active_children()
    assert len(victims) == 2
    for process in victims:  # one of them is in the middle of a cell
        os.kill(process.pid, signal.SIGKILL)
    rest = list(outcomes)
    assert [outcome.error for outcome in (first, *rest)] == [""] * 10
    assert_same(finished(here), reference)
    assert not multiprocessing.active_children()
    assert {run.scores["device"] for run in finished(here).values() if "device" in run.scores} == {
        f"CPU, {in_words(max(1, cores() // 2), 'thread')}"
    }


@dataclass(frozen=True)
class Deadly(Cell):
    """A cell that kills whoever receives it."""

    def __reduce__(self):
        return _die, ()


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_cell_that_costs_too_many_processes_has_failed_and_the_others_are_computed(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "LIVES", 1)
    here = machine(tmp_path, workers=1)
    (good,) = some_cells(pool, ROWS[:1])
    deadly = Deadly(**good.__dict__)
    lost, done = processes.run([deadly, good], here)
    assert lost.cell is deadly and lost.error.startswith("the process that computed it ended by signal 9 (1 times): is")
    assert done.cell == good and not done.error and len(finished(here)) == 1


def test_processes_that_are_left_early_end(pool, tmp_path):
    here = machine(tmp_path, workers=1)
    outcomes = processes.run(planned(pool, here), here)
    assert not next(outcomes).error
    outcomes.close()  # what Ctrl-C does to it
    assert not multiprocessing.active_children()


def test_each_gpu_gets_a_process(monkeypatch, pool):
    given = []

    def hired(here, threads):
        given.append((here.device, threads))
        raise InterruptedError

    monkeypatch.setattr(processes, "_hired", hired)
    for device, expected in (("auto", "cuda:0"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        assert gpus(device) == (2 if device in ("auto", "cuda") else 0)
        with pytest.raises(InterruptedError):
            next(processes.run(some_cells(pool), machine("/nowhere", device=device, workers=2)))
        assert given.pop() == (expected, max(1, cores() // 2))


def test_an_outcome_is_one_line_whatever_went_wrong(pool, tmp_path):
    (cell,) = some_cells(pool / "not there", [Row("none", "synthetic-only")])
    outcome = perform(cell, machine(tmp_path))
    assert "not there" in outcome.error and "\n" not in outcome.error


# -------------------------------------------------------------------------------------------------------------- Dask

try:
    import distributed
except ImportError:
    distributed = None
needs_dask = pytest.mark.skipif(distributed is None, reason="Dask is not installed: pip install 'aimfair[dask]'")


@needs_dask
def test_dask_makes_the_same_runs_though_a_worker_is_killed(pool, reference, tmp_path):
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, memory_limit=0, dashboard_address=None) as cluster,
        distributed.Client(cluster) as watcher,
    ):
        here = machine(tmp_path, dask=cluster.scheduler_address)
        outcomes = dask_engine.run(planned(pool, here), here)
        first = next(outcomes)
        busy = [worker for worker in cluster.workers.values() if watcher.processing()[worker.worker_address]]
        before = busy[0].pid
        os.kill(before, signal.SIGKILL)
        rest = list(outcomes)
        assert [outcome.error for outcome in (first, *rest)] == [""] * 10
        with pytest.raises(ProcessLookupError):
            os.kill(before, 0)
    assert_same(finished(here), reference)


@needs_dask
def test_a_cell_that_dask_gives_up_has_failed_and_the_others_are_computed(pool, tmp_path, monkeypatch):
    def computed(cell, here, sharing):
        if cell.method == "erm":
            raise ConnectionError("its workers\nare gone")
        return Outcome(cell, 0.0)

    monkeypatch.setattr(dask_engine, "on_worker", computed)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        here = machine(tmp_path, dask=cluster.scheduler_address)
        outcomes = list(dask_engine.run(some_cells(pool, ROWS[:2]), here))
    assert {o.cell.method: o.error for o in outcomes} == {
        "erm": "ConnectionError: its workers are gone",
        "synthetic-only": "",
    }


@needs_dask
def test_workers_that_would_take_several_cells_at_once_are_refused(pool, tmp_path):
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        pytest.raises(AimfairError, match="1 Dask workers would take several cells .* dask worker --nthreads 1"),
    ):
        list(dask_engine.run(some_cells(pool), machine(tmp_path, dask=cluster.scheduler_address)))


@needs_dask
@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("tcp://127.0.0.1:9", "no Dask scheduler answers at 'tcp://127.0.0.1:9'"),
        ("nonsense", "no Dask scheduler answers at 'nonsense'"),
        ("local:none", "--dask local:none: say how many workers, such as local:4"),
        ("slurm", "Slurm jobs cannot be described .* jobqueue: slurm: in ~/.config/dask/jobqueue.yaml"),
    ],
)
def test_a_cluster_that_cannot_be_had_is_named(pool, tmp_path, monkeypatch, where, says):
    monkeypatch.setattr(dask_engine, "PATIENCE", "1s")
    with pytest.raises(AimfairError, match=says):
        list(dask_engine.run(some_cells(pool), machine(tmp_path, dask=where)))


def test_without_dask_the_engine_says_what_to_install(pool, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(AimfairError, match=r"the Dask engine needs Dask: pip install 'aimfair\[dask\]'"):
        list(dask_engine.run(some_cells(pool), machine(tmp_path, dask="local:1")))


SBATCH = """#!/bin/sh
cp "$1" "{folder}/job.sh"  # the original is deleted as soon as it is submitted
setsid sh "{folder}/job.sh" > "{folder}/job.log" 2>&1 &
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/sh
kill -- "-$1"
"""


@needs_dask
def test_slurm_jobs_are_workers(pool, tmp_path, monkeypatch):
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed: pip install 'aimfair[dask]'")
    import dask

    for name, script in (("sbatch", SBATCH), ("scancel", SCANCEL)):  # a Slurm that starts jobs on this machine
        (tmp_path / name).write_text(script.format(folder=tmp_path))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    here = machine(tmp_path / "runs", dask="slurm", workers=1)
    with dask.config.set(
        {"jobqueue.slurm.cores": 3, "jobqueue.slurm.memory": "8GB", "jobqueue.slurm.walltime": "0:05:00"}
    ):
        outcomes = list(dask_engine.run(some_cells(pool, ROWS[:1]), here))
    assert [outcome.error for outcome in outcomes] == [""] and len(finished(here)) == 1
