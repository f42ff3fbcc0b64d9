"""Writers: who writes the prompts of a bank. One file each; a new writer is a new file.

A writer's file has a function ``connect(setup)`` that returns a :class:`Writer`, ready to be asked. What it answers is
free text: reading it, checking it and asking again is done for all of them by :mod:`aimfair.prompts.writing`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

from aimfair.environment import AimfairError


@dataclass(frozen=True)
class Setup:
    """Which model is asked, and where.

    task         "<dataset>/<Target>_<Protected>"
    model        hub name or folder of a model, or its name at an endpoint; empty where the writer has one of its own
    revision     of a model of the hub: a branch, tag or commit
    url          address of an endpoint, up to and including "/v1" with most servers
    device       "auto", "cpu", "cuda", "cuda:1": where a local model computes
    temperature  None: what the model or the endpoint takes by itself
    timeout      seconds until an endpoint that does not answer is given up
    """

    task: str
    model: str = ""
    revision: str = ""
    url: str = ""
    device: str = "auto"
    temperature: float | None = None
    timeout: float = 300.0


@dataclass(frozen=True)
class Request:
    """What is asked: ``number`` prompts for ``group`` ("1_0"), in words ``text``; ``seed`` for a model that draws lots."""

    group: str
    number: int
    text: str
    seed: int


@dataclass(frozen=True)
class Writer:
    """Someone who answers: ``ask`` takes a request and returns what was said; the rest is for the bank's record.

    ``ask`` raises NoReply where asking again may help, AimfairError where it does not.
    """

    ask: Callable[[Request], str]
    model: str
    url: str = ""


class NoReply(AimfairError):
    """Nothing that can be read came back, which may be different the next time."""


def available() -> list[str]:
    """Names of all writers."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get(name: str) -> Callable[[Setup], Writer]:
    """How to connect to the writer called ``name``. Raises AimfairError for one that no file of this folder is."""
    if name not in available():
        raise AimfairError(f"no writer {name!r}; there are: {', '.join(available())}")
    return importlib.import_module(f"{__name__}.{name}").connect


def whole_lines(text: str) -> str:
    """A reply that was cut off, without its last line."""
    return text.rpartition("\n")[0]
