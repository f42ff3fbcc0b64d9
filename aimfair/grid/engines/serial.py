"""One cell after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile

from aimfair.grid.engines import Machine, Outcome, elsewhere, perform
from aimfair.grid.experiments import Cell


def run(cells: Sequence[Cell], machine: Machine) -> Iterator[Outcome]:
    """See :mod:`aimfair.grid.engines`. What another process is at, a shard of the same grid perhaps, is left for later as
    long as there is something else to do: in the same study, whose faces are in memory, or else in another."""
    left = list(cells)
    while left:
        of_one_study = takewhile(lambda cell: (cell.profile, cell.changes) == (left[0].profile, left[0].changes), left)
        free = (n for among in (of_one_study, left) for n, cell in enumerate(among) if not elsewhere(cell, machine))
        yield perform(left.pop(next(free, 0)), machine)
