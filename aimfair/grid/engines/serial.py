"""One cell after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aimfair.grid.engines import Machine, Outcome, perform
from aimfair.grid.experiments import Cell


def run(cells: Sequence[Cell], machine: Machine) -> Iterator[Outcome]:
    """See :mod:`aimfair.grid.engines`."""
    for cell in cells:
        yield perform(cell, machine)
