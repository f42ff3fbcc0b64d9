"""What there is to compute on, and how a new process is told its part of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from aimfair.errors import AimfairError
from aimfair.progress import in_words


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus(device: str) -> int:
    """How many GPUs ``device`` leaves to choose from: all for "auto" and "cuda", none for the processor or a named one."""
    return torch.cuda.device_count() if device in ("auto", "cuda") and torch.cuda.is_available() else 0


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Variables that a process started inside finds: libraries read them when they are loaded."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def choose(device: str) -> str:
    """ "auto" -> "cuda" where there is a GPU, else "cpu". Raises AimfairError for a device that is not there."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise AimfairError(f"device {device!r} is not available here: use cpu or auto") from error
    return device


def name(device: str) -> str:
    """What the numbers were computed on, for the record."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {in_words(torch.get_num_threads(), 'thread')}"
