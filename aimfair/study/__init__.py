"""A study: a profile's faces, its runs on disk, the search and the grid that compute them, the tables that show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aimfair.study.study import Study, from_notebook, open_study

__all__ = ["Study", "from_notebook", "open_study"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from aimfair.study import study

        return getattr(study, name)
    raise AttributeError(name)
