"""A study: a profile's faces, its runs on disk, the search and the grid that compute them, the tables that show them."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name in ("Study", "open_study", "from_notebook", "PROTOCOL", "POLICY", "is_wanted"):
        from aimfair.study import study

        return getattr(study, name)
    raise AttributeError(name)
