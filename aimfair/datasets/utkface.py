"""UTKFace (Zhang, Song and Qi, CVPR 2017): age, gender and race of 23,708 aligned faces, in their file names."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import pandas as pd

from aimfair.datasets import Catalogue, _images
from aimfair.environment import AimfairError

RACES = ("White", "Black", "Asian", "Indian", "Others")
NAME = re.compile(r"^(\d{1,3})_([01])_([0-4])_(\d+)")


def catalogue(
    root: str | Path | None = None,
    *,
    on_error: str = "raise",
    memory_limit: int = _images.MEMORY_LIMIT,
    cache: str | Path | None = None,
) -> Catalogue:
    """Faces under ``root``: a folder ``UTKFace/``, ``UTKFace.tar.gz`` or ``UTKFace.zip``, in the order of their names.

    Attributes: Female, Male, White (binary), age (years), race (one of RACES). A name without age, gender
    or race has no labels; such files are left out and listed in ``skipped`` (reading them by position, as
    the common loader does, shifts all later labels), and so is a name that was there before: some copies have a part
    of the faces twice. For ``on_error`` and ``memory_limit`` see
    :func:`aimfair.datasets._images.build`; ``cache`` is where the tar archive becomes a zip.
    Raises AimfairError when nothing usable is found.
    """
    root = _images.data_root(root, "UTKFace")
    folder = None if cache is None else Path(cache)
    container = _container(root, folder)
    names: list[str] = []
    locations, rows, skipped = [], [], []
    for member in sorted(_images.listing(container), key=lambda m: PurePosixPath(m).name):
        name = PurePosixPath(member).name
        match = NAME.match(name)
        if match is None:
            skipped.append(f"{name}: the name does not begin with age_gender_race_date")
            continue
        age, gender, race = (int(part) for part in match.groups()[:3])
        if names and names[-1] == name:  # they come sorted
            skipped.append(f"{name}: there twice")
            continue
        names.append(name)
        locations.append(_images.Location(container, member))
        rows.append((gender, 1 - gender, int(race == 0), age, RACES[race]))
    attributes = pd.DataFrame(rows, columns=["Female", "Male", "White", "age", "race"])
    return _images.build("UTKFace", names, locations, attributes, skipped, on_error, memory_limit, folder)


def _container(root: Path, cache: Path | None) -> Path:
    archives = ("UTKFace.zip", "UTKFace.tar.gz", "UTKFace.tar")
    found = root if root.is_file() else _images.first(root / name for name in ("UTKFace", *archives))
    if found is None and any(root.glob("*.chip.jpg")):
        found = root
    if found is None:
        raise AimfairError(f"no UTKFace/, {', '.join(archives)} in {root}: data/README.md says how to get UTKFace")
    return found if found.is_dir() or found.suffix == ".zip" else _images.tar_as_zip(found, cache)
