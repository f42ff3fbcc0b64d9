"""One cell after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import takewhile

from aimfair.study.grid.engines import Machine, Outcome, claim, perform
from aimfair.study.grid.experiments import Cell


def run(cells: Sequence[Cell], machine: Machine) -> Iterator[Outcome]:
    """See :mod:`aimfair.study.grid.engines`. What another process is at, a shard of the same grid perhaps, is left for later as
    long as there is something else to do: in the same study, whose faces are in memory, or else in another."""
    left = list(cells)
    while left:
        of_one_study = takewhile(lambda cell: (cell.profile, cell.changes) == (left[0].profile, left[0].changes), left)
        claims = ((n, claim(cell, machine)) for among in (of_one_study, left) for n, cell in enumerate(among))
        n, mine = next(((n, mine) for n, mine in claims if mine is not None), (0, nullcontext()))
        with mine:
            outcome = perform(left.pop(n), machine)
        yield outcome
