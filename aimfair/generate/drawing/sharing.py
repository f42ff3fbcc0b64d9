"""One list of images, several processes: one per GPU, or as many as are asked for.

The processes are started here, so that no launcher is needed; accelerate splits the list between them. Each image has
a seed of its own, so that it is the same whoever draws it. One that dies costs the batch that it was at, which the next
round draws.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import torch

from aimfair.environment import AimfairError, child_environment, cores, gpus
from aimfair.generate import diffusion
from aimfair.generate.diffusion import Job
from aimfair.progress import progress

LIVES = 2
"""Rounds: what a process left undone when it died is drawn once more."""

Load = Callable[[str], Any]
"""(device) -> pipeline; it goes to other processes, so it is a function of a module or a ``functools.partial`` of one."""


def generate(
    load: Load,
    todo: Sequence[Job],
    folder: str | Path,
    *,
    device: str = "cpu",
    processes: int | None = None,
    **settings: Any,
) -> Path:
    """:func:`aimfair.generate.diffusion.generate` with ``settings``, by ``processes`` at once; None is one per GPU.

    A process that is killed is replaced once what the others had to do is done; the second time its part is left.
    Raises AimfairError as that function does, and where processes died and images are still missing.
    """
    folder = Path(folder)
    rest = diffusion.missing(todo, folder)
    number = min(how_many(device, processes), max(1, len(rest)))
    if number == 1 or not rest:
        return diffusion.generate(load(device), todo, folder, **settings)
    black: list[str] = []
    died: list[int] = []
    with diffusion.writing(folder, todo):
        for _ in range(LIVES):
            again = [job for job in diffusion.missing(todo, folder) if job.path not in black]
            if not again:
                break
            died = []
            drawn = _round(load, again, folder, _devices(device, number), settings, died)
            for path in progress(drawn, "generating", len(todo), "image", len(todo) - len(again)):
                black += [path] if path else []
    left = [job for job in diffusion.missing(todo, folder) if job.path not in black]
    if left:
        how = ", ".join(f"signal {-status}" if status < 0 else f"status {status}" for status in died)
        raise AimfairError(
            f"{len(died)} of {number} processes died ({how}) and {len(left)} of {len(rest)} images are missing: the others "
            "are kept; is the memory enough for so many processes? Start again to go on"
        )
    diffusion.tell_black(black, len(rest))
    return folder / "manifest.csv"


def how_many(device: str, processes: int | None) -> int:
    """How many processes draw: as asked, else one per GPU that ``device`` leaves to choose from; one inside a worker.

    Raises AimfairError for less than one.
    """
    if processes is not None and processes < 1:
        raise AimfairError(f"--processes {processes}: at least one is needed")
    if multiprocessing.current_process().daemon:  # a worker of an engine may start none
        return 1
    return processes or max(1, gpus(device))


def _devices(device: str, number: int) -> list[str]:
    known = gpus(device)
    return [f"cuda:{n % known}" if known else device for n in range(number)]


@dataclass
class Painter:
    """A process that draws, and our end of the pipe on which it tells what it has done."""

    process: SpawnProcess
    connection: Connection
    joined: bool = False


def _round(
    load: Load, todo: Sequence[Job], folder: Path, devices: Sequence[str], settings: Mapping[str, Any], died: list[int]
) -> Iterator[str]:
    """Draw ``todo`` with one process per device; yields as :func:`aimfair.generate.diffusion.draw`. ``died`` gets exit statuses."""
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as meeting:
        place = Path(meeting) / "processes"
        at_work = [
            _started(rank, len(devices), place, load, todo, folder, device, settings)
            for rank, device in enumerate(devices)
        ]
        try:
            while at_work:
                ready = wait([painter.connection for painter in at_work])
                for painter in [p for p in at_work if p.connection in ready]:
                    try:
                        what, value = painter.connection.recv()
                    except (EOFError, OSError):
                        what, value = "died", None
                    if what == "joined":
                        painter.joined = True
                    elif what == "drawn":
                        yield from value
                    else:
                        at_work.remove(painter)
                        painter.connection.close()
                        painter.process.join()
                        failures += [value] if what == "failed" else []
                        died += [painter.process.exitcode or 0] if what == "died" else []
                        if not painter.joined:  # the others would wait for it
                            for other in at_work:
                                other.process.terminate()
        finally:
            for painter in at_work:  # we are leaving early
                painter.process.terminate()
                painter.process.join()
    if failures:
        raise AimfairError(failures[0])


def _started(rank: int, number: int, *rest: Any) -> Painter:
    """A new process. Spawned, not forked: a forked one cannot use the GPU."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(theirs, rank, number, *rest), daemon=True)
    threads = str(max(1, cores() // number))
    loopback = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    with child_environment(
        AIMFAIR_PROGRESS="off",
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads),
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number)},
        **loopback,
    ):
        process.start()
    theirs.close()  # the child's copy is the only one, so that its death ends the pipe
    return Painter(process, ours)


def _work(
    connection: Connection,
    rank: int,
    number: int,
    place: Path,
    load: Load,
    todo: Sequence[Job],
    folder: Path,
    device: str,
    settings: Mapping[str, Any],
) -> None:
    """What a process does: meet the others for the split, then draw its part alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair
    parent = multiprocessing.parent_process()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

    def wanted() -> bool:
        return parent is not None and parent.is_alive()

    try:
        mine = share(todo, rank, number, place)
        connection.send(("joined", None))
        drawn = diffusion.draw(load(device), mine, folder, **settings, allowed=wanted)
        for path in drawn:
            connection.send(("drawn", [path]))
        connection.send(("done", None))
    except BrokenPipeError:  # the parent is gone
        return
    except AimfairError as error:
        connection.send(("failed", str(error)))
    except OSError as error:
        connection.send(("failed", diffusion.no_room(folder, error)))
    except Exception as error:
        connection.send(("failed", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"))


def share(todo: Sequence[Job], rank: int, number: int, place: Path) -> list[Job]:
    """The part of this process, as accelerate splits the list.

    The processes meet over a file, on the processor even where they draw on GPUs: they need nothing of each other but
    their numbers, and part at once, so that the death of one does not stop the rest.
    """
    from accelerate import PartialState

    state = PartialState(cpu=True, backend="gloo", init_method=place.as_uri(), rank=rank, world_size=number)
    with state.split_between_processes(list(todo)) as mine:
        part = list(mine)
    state.wait_for_everyone()
    state.destroy_process_group()
    return part
