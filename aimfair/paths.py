"""Where the book's folders are, whatever the working directory."""

from __future__ import annotations

import os
from pathlib import Path

from aimfair.errors import AimfairError


def home() -> Path:
    """The checkout: the folder that ``AIMFAIR_HOME`` names, else the one that holds this package.

    Raises AimfairError where neither has the book's ``notebooks`` folder.
    """
    folder = Path(os.environ.get("AIMFAIR_HOME") or Path(__file__).resolve().parent.parent)
    if not (folder / "notebooks" / "profiles").is_dir():
        raise AimfairError(f"{folder} is no checkout of aimfair: set AIMFAIR_HOME to the folder that holds notebooks/")
    return folder


def resolve(path: str | Path) -> Path:
    """``path`` as it is if absolute or found from the working directory, else below the checkout."""
    given = Path(path).expanduser()
    if given.is_absolute() or given.exists():
        return given
    return home() / given
