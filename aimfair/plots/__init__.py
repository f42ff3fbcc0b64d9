"""Every figure of the book: one file each, holding one function of the same name that returns a Figure.

A new figure is a new file here and nothing else. Use them as ``from aimfair import plots; plots.counts(...)``.
A module whose name starts with an underscore is no figure.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aimfair.plots._style import group_names, jpeg, png

FIGURES: tuple[str, ...] = tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))

for _name in FIGURES:
    globals()[_name] = getattr(importlib.import_module(f"{__name__}.{_name}"), _name)

if TYPE_CHECKING:

    def __getattr__(name: str) -> Callable[..., Any]: ...


__all__ = ["FIGURES", "group_names", "jpeg", "png", *FIGURES]
