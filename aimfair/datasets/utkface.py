"""UTKFace (Zhang, Song and Qi, CVPR 2017): age, gender and race of 23,708 aligned faces, in their file names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from aimfair.datasets import Catalogue, _images
from aimfair.environment import AimfairError

RACES = ("White", "Black", "Asian", "Indian", "Others")
NAME = r"^(?P<age>\d{1,3})_(?P<gender>[01])_(?P<race>[0-4])_\d+"
ARCHIVES = ("UTKFace.zip", "UTKFace.tar.gz", "UTKFace.tar")


def catalogue(root: str | Path | None = None, on_error: str = "raise") -> Catalogue:
    """Faces under ``root``: a folder ``UTKFace/``, ``UTKFace.tar.gz`` or ``UTKFace.zip``, in the order of their names.

    Attributes: Female, Male, White (binary), age (years), race (one of RACES). A name without age, gender
    or race has no labels; such files are left out and listed in ``skipped`` (reading them by position, as
    the common loader does, shifts all later labels), and so is a name that was there before: some copies have a part
    of the faces twice. For ``on_error`` see :func:`aimfair.datasets._images.build`; a tar archive becomes
    a zip in ``data/cache``. Raises AimfairError when nothing usable is found.
    """
    container = _container(_images.data_root(root, "UTKFace"))
    members = pd.Series(_images.listing(container), dtype=object)
    names = members.map(lambda member: member.rpartition("/")[2]).astype(str)
    parts = names.str.extract(NAME)
    malformed, twice = parts["age"].isna(), names.duplicated()
    skipped = sorted(f"{name}: the name does not begin with age_gender_race_date" for name in names[malformed])
    skipped += sorted(f"{name}: there twice" for name in names[twice & ~malformed])
    parts = parts[~malformed & ~twice].astype("int64").set_index(names[~malformed & ~twice]).sort_index()
    places = dict(zip(names[::-1], members[::-1], strict=True))  # of two of a name the first
    table = pd.DataFrame(
        {
            "Female": parts["gender"],
            "Male": 1 - parts["gender"],
            "White": (parts["race"] == 0).astype("int64"),
            "age": parts["age"],
            "race": np.array(RACES)[parts["race"]],
        }
    )
    locations = [_images.Location(container, places[name]) for name in table.index]
    return _images.build("UTKFace", table, locations, skipped, on_error)


def _container(root: Path) -> Path:
    found = root if root.is_file() else _images.first(root / name for name in ("UTKFace", *ARCHIVES))
    if found is None and any(root.glob("*.chip.jpg")):
        found = root
    if found is None:
        raise AimfairError(f"no UTKFace/, {', '.join(ARCHIVES)} in {root}: data/README.md says how to get UTKFace")
    return found if found.is_dir() or found.suffix == ".zip" else _images.tar_as_zip(found)
