"""Several processes on this machine: one per GPU, or as many as are asked for, which share the cores between them.

Each process is given one cell at a time over a pipe. One that dies (a kill, a full memory) is replaced, and its cell is
done by another; a cell that has cost two processes their life counts as failed.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

import torch

from aimfair.environment import child_environment
from aimfair.study.grid.engines import Machine, Outcome, cores, gpus, perform
from aimfair.study.grid.experiments import Cell

LIVES = 2
"""Processes that a cell may cost before it counts as failed."""


@dataclass
class Worker:
    """A process, our end of the pipe to it, and the cell that it is at."""

    process: SpawnProcess
    connection: Connection
    machine: Machine
    cell: Cell | None = None


def run(cells: Sequence[Cell], machine: Machine) -> Iterator[Outcome]:
    """See :mod:`aimfair.study.grid.engines`."""
    waiting, deaths = deque(cells), Counter[Cell]()
    known = gpus(machine.device)
    devices = [f"cuda:{n % known}" if known else machine.device for n in range(min(machine.workers, len(cells)))]
    threads = max(1, cores() // max(1, machine.workers))
    workers = [_hired(replace(machine, device=device), threads) for device in devices]
    try:
        while waiting or any(worker.cell for worker in workers):
            for worker in workers:
                if worker.cell is None and waiting:
                    worker.cell = waiting.popleft()
                    with suppress(OSError):  # it has died at rest: seen below
                        worker.connection.send(worker.cell)
            ready = wait([worker.connection for worker in workers if worker.cell])
            for n, worker in enumerate(workers):
                if worker.connection not in ready or worker.cell is None:
                    continue
                at = worker.cell
                try:
                    outcome = worker.connection.recv()
                except (EOFError, OSError):  # it is dead
                    worker.process.join()
                    workers[n] = _hired(worker.machine, threads)
                    deaths[at] += 1
                    if deaths[at] < LIVES:
                        waiting.appendleft(at)
                        continue
                    outcome = Outcome(at, 0.0, _obituary(worker.process.exitcode))
                worker.cell = None
                yield outcome
    finally:
        for worker in workers:
            worker.connection.close()
            if worker.cell is not None:  # we are leaving early: what it has trained lies in its checkpoint
                worker.process.terminate()
        for worker in workers:
            worker.process.join()


def _hired(machine: Machine, threads: int) -> Worker:
    """A new process. Spawned, not forked: a forked one cannot use the GPU, and inherits locks that nobody opens."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, machine, threads), daemon=True)
    with child_environment(
        AIMFAIR_PROGRESS="off",
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads)),
    ):
        process.start()
    theirs.close()  # the child's copy is the only one, so that its death ends the pipe
    return Worker(process, ours, machine)


def _work(connection: Connection, machine: Machine, threads: int) -> None:
    """What a process does until its pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair
    torch.set_num_threads(threads)
    with suppress(EOFError, OSError):
        while True:
            connection.send(perform(connection.recv(), machine))


def _obituary(status: int | None) -> str:
    how = f"by signal {-status}" if status is not None and status < 0 else f"with status {status}"
    hint = ": is the memory enough for so many workers?" if status == -signal.SIGKILL else ""
    return f"the process that computed it ended {how} ({LIVES} times){hint}"
