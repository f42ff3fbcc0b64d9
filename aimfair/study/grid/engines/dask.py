"""Dask: workers on one machine or many, such as the jobs of a Slurm cluster. An extra: ``pip install 'aimfair[dask]'``.

Dask's scheduler hands out the cells and gives those of a worker that died to another. Workers need this library and the
folders of data and runs on a file system that they share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from aimfair.environment import AimfairError
from aimfair.study.grid.engines import Machine, Outcome, cores, perform
from aimfair.study.grid.experiments import Cell

if TYPE_CHECKING:
    from distributed import Client

INSTALL = "pip install 'aimfair[dask]'"
PATIENCE = "20s"


def run(cells: Sequence[Cell], machine: Machine) -> Iterator[Outcome]:
    """See :mod:`aimfair.study.grid.engines`."""
    with _client(machine.dask, machine.workers) as client:
        from distributed import as_completed

        sharing = _workers_per_host(client)
        futures = {
            client.submit(on_worker, cell, machine, sharing, pure=False, priority=-place): cell
            for place, cell in enumerate(cells)
        }
        for future in as_completed(list(futures)):
            cell = futures.pop(future)
            try:
                yield future.result()
            except (
                Exception
            ) as error:  # not the cell's own, which its outcome holds: its workers died, or the scheduler
                yield Outcome(cell, 0.0, f"{type(error).__name__}: {' '.join(str(error).split())}")


def on_worker(cell: Cell, machine: Machine, sharing: int) -> Outcome:
    """:func:`aimfair.study.grid.engines.perform` with this worker's part of the cores: Dask itself would leave it one."""
    torch.set_num_threads(max(1, cores() // sharing))
    return perform(cell, machine)


@contextmanager
def _client(where: str, workers: int) -> Iterator[Client]:
    """A client of the scheduler at an address, of one on this machine ("local:N"), or of Slurm jobs ("slurm").

    Raises AimfairError where Dask is not installed, nobody answers, or workers would take several cells at once.
    """
    try:
        import distributed
    except ImportError as error:
        raise AimfairError(f"the Dask engine needs Dask: {INSTALL}") from error
    kind, _, number = where.partition(":")
    if kind == "local":
        if not number.isdigit() or int(number) < 1:
            raise AimfairError(f"--dask {where}: say how many workers, such as local:4")
        with (
            distributed.LocalCluster(
                n_workers=int(number), threads_per_worker=1, memory_limit=0, dashboard_address=None
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client
    elif kind == "slurm":
        with _slurm(workers) as cluster, distributed.Client(cluster) as client:
            yield client
    else:
        try:
            client = distributed.Client(where, timeout=PATIENCE)
        except (OSError, ValueError) as error:
            raise AimfairError(
                f"no Dask scheduler answers at {where!r}: give tcp://HOST:PORT, local:N or slurm"
            ) from error
        with client:
            many = [w["name"] for w in client.scheduler_info()["workers"].values() if w["nthreads"] > 1]
            if many:
                raise AimfairError(
                    f"{len(many)} Dask workers would take several cells at once: start them with dask worker --nthreads 1"
                )
            yield client


def _slurm(jobs: int):  # type: ignore[no-untyped-def]
    """As many Slurm jobs as workers are asked for; partition, memory, time and GPUs are told by dask-jobqueue's own file.

    A job takes one cell at a time, on all the cores that the file asks for.
    """
    try:
        import dask
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise AimfairError(f"--dask slurm needs dask-jobqueue: {INSTALL}") from error
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


def _workers_per_host(client: Client) -> int:
    hosts = Counter(worker["host"] for worker in client.scheduler_info()["workers"].values())
    return max(hosts.values(), default=1)
