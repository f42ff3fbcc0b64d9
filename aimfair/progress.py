"""Progress with the time left: a bar on a terminal and in a notebook, a line now and then where output goes to a log.

``AIMFAIR_PROGRESS=off`` keeps it silent, as do the workers and the notebooks whose output is stored. A notebook that
papermill runs stores its output, yet whoever started it wants to know how far it is: there ``AIMFAIR_PROGRESS`` names a
file that holds the latest line of the innermost bar.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm as plain
from tqdm.auto import tqdm

Item = TypeVar("Item")

FILE = "file:"
BAR = {"leave": False, "dynamic_ncols": True}
LINE = {"leave": False, "mininterval": 1.0, "bar_format": "{desc} {percentage:.0f} %, {remaining} left"}
WITHOUT_TOTAL = {"bar_format": "{desc} {n_fmt}, {elapsed} so far"}
"""In place of the format of a line where the total is not known."""

SPEAK_EVERY = 60.0
"""Seconds before the first line in a log, and between two of one loop."""


class Lines:
    """A file for tqdm to write to: every text, stripped of what moves the cursor, is handed to ``show``."""

    def __init__(self, show: Callable[[str], object]):
        self.show = show

    def write(self, text: str) -> None:
        with suppress(OSError):  # a full disk must not end a training for the sake of its progress
            self.show(text.strip())

    def flush(self) -> None:
        pass


def quiet() -> bool:
    """True where no bar is shown: switched off by ``AIMFAIR_PROGRESS=off``, or no terminal, so that it would end in a file."""
    setting = os.environ.get("AIMFAIR_PROGRESS", "auto")
    if setting in ("on", "off"):
        return setting == "off"
    if setting.startswith(FILE):
        return True
    return "ipykernel" not in sys.modules and not sys.stderr.isatty()


def progress(
    items: Iterable[Item], what: str, total: int | None = None, unit: str = "it", done: int = 0
) -> Iterator[Item]:
    """Iterate over ``items`` with a bar that shows ``what``, the rate and the time left; in a log a line about every minute.

    done  how many of ``total`` were finished before (a resumed job), so that the bar starts there.
    """
    setting = os.environ.get("AIMFAIR_PROGRESS", "auto")
    common: dict[str, Any] = {"desc": what, "total": total, "unit": unit, "initial": done}
    if setting.startswith(FILE):
        yield from plain(items, file=Lines(Path(setting.removeprefix(FILE)).write_text), **common, **LINE)
    elif setting == "off" or not quiet():
        yield from tqdm(items, disable=quiet(), **common, **BAR)
    else:
        pace = {"delay": SPEAK_EVERY, "mininterval": SPEAK_EVERY, "miniters": 1}
        yield from plain(
            items,
            file=Lines(lambda line: line and print(line, file=sys.stderr, flush=True)),
            **common,
            **(LINE | ({} if total else WITHOUT_TOTAL) | pace),
        )


def in_words(number: int, thing: str) -> str:
    """A number of things: "1 thread", "2 threads"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
