"""Progress with the time left, on a terminal and in a notebook; silent wherever output is stored."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm.auto import tqdm

Item = TypeVar("Item")


def quiet() -> bool:
    """True where a progress bar would end up in a file: switched off by ``AIMFAIR_PROGRESS=off``, or no terminal."""
    setting = os.environ.get("AIMFAIR_PROGRESS", "auto")
    if setting in ("on", "off"):
        return setting == "off"
    return "ipykernel" not in sys.modules and not sys.stderr.isatty()


def progress(
    items: Iterable[Item], what: str, total: int | None = None, unit: str = "it", done: int = 0
) -> Iterator[Item]:
    """Iterate over ``items`` with a bar that shows ``what``, the rate and the time left.

    done  how many of ``total`` were finished before (a resumed job), so that the bar starts there.
    """
    bar = tqdm(items, desc=what, total=total, unit=unit, initial=done, disable=quiet(), leave=False, dynamic_ncols=True)
    yield from bar
