"""Worker processes of Dask: a few on this machine, or those of a scheduler that runs elsewhere."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aimfair.environment import AimfairError, child_environment, cores, gpus

if TYPE_CHECKING:
    from distributed import Client

PATIENCE = "20s"
"""How long :func:`connect` waits for an answer."""

SETTINGS: dict[str, Any] = {
    "distributed.scheduler.allowed-failures": 1,  # a task that has cost two workers their life fails
    "distributed.scheduler.worker-saturation": 1.0,  # no task waits at a worker: its death would count for that one too
    "distributed.deploy.lost-worker-timeout": "120s",  # a busy machine may need more than 15 s to start a worker again
    "distributed.nanny.pre-spawn-environ": {},  # what workers find in their environment is decided below
}


@contextmanager
def local_cluster(workers: int, device: str = "cpu") -> Iterator[Client]:
    """A client of ``workers`` new processes on this machine, each of which computes one task at a time.

    They are spawned, listen on the loopback interface only, share the processor's cores and show no progress bars. If
    ``device`` leaves several GPUs to choose from ("auto", "cuda"), each worker sees one of them, as "cuda". A worker
    that dies is replaced, and its task is computed again; a task that kills two workers raises
    ``distributed.KilledWorker``. Leaving the context ends the workers.
    """
    import dask
    import torch
    from distributed import Client, Nanny, Scheduler, SpecCluster

    threads = str(max(1, min(torch.get_num_threads(), cores() // workers)))
    environment = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
    environment |= {"AIMFAIR_PROGRESS": "off", "PYTHONHASHSEED": "6640"}  # the second is what Dask would set for good
    loopback = {"host": "127.0.0.1", "protocol": "tcp://"}
    # No limit: Dask would stop a worker for the memory that it takes.
    options = {**loopback, "nthreads": 1, "memory_limit": 0, "silence_logs": logging.CRITICAL}
    specification = {
        n: {"cls": Nanny, "options": options | {"env": environment | _one_gpu(n, gpus(device))}} for n in range(workers)
    }
    scheduler = {"cls": Scheduler, "options": {**loopback, "port": 0, "dashboard": False}}
    with (
        child_environment(**environment),  # torch reads its threads when it is loaded, which may be before `env` is set
        dask.config.set(SETTINGS),
        SpecCluster(workers=specification, scheduler=scheduler, silence_logs=logging.CRITICAL) as cluster,
        Client(cluster) as client,
    ):
        yield client


def connect(address: str) -> Client:
    """A client, which is a context manager, of the scheduler at ``address``, such as ``tcp://HOST:8786``.

    Raises AimfairError if no scheduler answers, and for workers that would compute several tasks at once: they would
    share one GPU and one random state.
    """
    from distributed import Client

    try:
        client = Client(address, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        raise AimfairError(f"no Dask scheduler answers at {address!r}: give tcp://HOST:PORT") from error
    many = [worker for worker in client.scheduler_info()["workers"].values() if worker["nthreads"] > 1]
    if many:
        client.close()
        raise AimfairError(
            f"{len(many)} Dask workers would compute several tasks at once: start them with dask worker --nthreads 1"
        )
    return client


def _one_gpu(worker: int, number: int) -> dict[str, str]:
    if not number:
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(number)))
    return {"CUDA_VISIBLE_DEVICES": visible.split(",")[worker % number]}
