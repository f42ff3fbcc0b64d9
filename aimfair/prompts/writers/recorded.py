"""The bank that is recorded already: no model is asked. ``model`` may name the file of another one."""

from __future__ import annotations

from pathlib import Path

from aimfair import prompts
from aimfair.prompts.writers import Request, Setup, Writer


def connect(setup: Setup) -> Writer:
    """See :mod:`aimfair.prompts.writers`. Raises AimfairError where the bank is not there or lacks something."""
    record = prompts.read_file(Path(setup.model)) if setup.model else prompts.read(setup.task)

    def ask(request: Request) -> str:
        return "\n".join(f"{i}. {p['text']}" for i, p in enumerate(record["groups"][request.group]["prompts"], 1))

    return Writer(ask, setup.model or setup.task)
