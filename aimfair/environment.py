"""What aimfair runs in: the errors it raises on purpose, the checkout's folders, the processors of this machine."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from uuid import uuid4

from filelock import FileLock

NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
"""Errors of a place that may not be written."""


class AimfairError(Exception):
    """Something the user can mend: one line that says what, where and what to do.

    The command line prints it without a traceback and ends with exit status 2; a notebook shows it as
    the last line of the cell.
    """


class Diverged(AimfairError):
    """A training whose loss is no longer a number. Of a search it is an outcome: that value is no good."""


def home() -> Path:
    """The checkout: the folder that ``AIMFAIR_HOME`` names, else the one that holds this package.

    Raises AimfairError where neither has the book's ``notebooks`` folder.
    """
    folder = Path(os.environ.get("AIMFAIR_HOME") or Path(__file__).resolve().parent.parent)
    if not (folder / "notebooks" / "profiles").is_dir():
        raise AimfairError(f"{folder} is no checkout of aimfair: set AIMFAIR_HOME to the folder that holds notebooks/")
    return folder


def resolve(path: str | Path) -> Path:
    """``path`` as it is if absolute or found from the working directory, else below the checkout."""
    given = Path(path).expanduser()
    if given.is_absolute() or given.exists():
        return given
    return home() / given


@contextmanager
def reading(path: str | Path, then: str = "fetch it again") -> Iterator[None]:
    """Around whatever reads a file that may be damaged or foreign: in place of its error one line says what the file is.

    then  what to do about it
    Raises AimfairError for a file that :func:`recognise` knows, and for any error while it is read.
    """
    with suppress(OSError), Path(path).open("rb") as file:
        if known := recognise(file.read(500)):
            raise AimfairError(f"{path} {known}: {then}")
    try:
        yield
    except (AimfairError, MemoryError):
        raise
    except PermissionError as error:
        raise AimfairError(f"{path} may not be read by this user (permission denied)") from error
    except Exception as error:  # readers meet what they do not expect with whatever exception comes first
        reason = error.strerror if isinstance(error, OSError) else ""
        reason = "it is no text in UTF-8" if isinstance(error, UnicodeDecodeError) else reason
        reason = reason or " ".join(str(error).split())[:200] or type(error).__name__
        raise AimfairError(f"{path} cannot be read ({reason}): {then}") from error


@contextmanager
def aside(path: str | Path, then: str = "free space, or name another place") -> Iterator[Path]:
    """A hidden name beside ``path`` to write a file or a folder to: it becomes ``path`` when it is whole, and is removed
    when it is not. Its files get the modes that the umask gives, whichever library wrote them.

    then  what to do where nothing can be written
    Raises AimfairError for a full disk, a place that is read-only, a folder that may not be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        mask = os.umask(0)
        os.umask(mask)
        for each in (partial, *partial.rglob("*")):
            each.chmod((0o777 if each.is_dir() else 0o666) & ~mask)
        partial.replace(path)
    except OSError as error:
        raise AimfairError(f"cannot write {path} ({error.strerror or error}): {then}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        with suppress(OSError):
            partial.unlink()


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """One process at a time. In a place that is read-only nobody writes, so there nobody waits."""
    lock = FileLock(path, is_singleton=True)  # who holds it may ask for it again
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        if error.errno not in NOT_WRITABLE:
            raise
    try:
        yield
    finally:
        lock.release()


def recognise(start: bytes) -> str:
    """What a file is, by its first bytes, that only bears the name of another; empty where that cannot be told."""
    start = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not start:
        return "is empty"
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS and not the file itself (git lfs pull fetches that)"
    return "is a web page and no data file" if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")) else ""


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus(device: str) -> int:
    """How many GPUs ``device`` leaves to choose from: all for "auto" and "cuda", none for the processor or a named one."""
    import torch

    return torch.cuda.device_count() if device in ("auto", "cuda") and torch.cuda.is_available() else 0


@cache
def keep_memory() -> None:
    """Have freed memory kept for the next batch, where the C library is glibc: it would hand the large tensors of each
    step back to the system and fetch them again, which takes a tenth of a training's time."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-4, 0)  # M_MMAP_MAX: no allocation of its own for a large tensor
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: nothing goes back


@contextmanager
def child_environment(**values: str) -> Iterator[None]:
    """Variables that a process started inside finds: libraries read them when they are loaded."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def choose_device(device: str) -> str:
    """ "auto" -> "cuda" where there is a GPU, else "cpu". Raises AimfairError for a device that is not there."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise AimfairError(f"device {device!r} is not available here: use cpu or auto") from error
    return device


def device_name(device: str) -> str:
    """What the numbers were computed on, for the record."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' * (threads != 1)}"
