"""FairFace (Karkkainen and Joo, WACV 2021): age range, gender and seven races, labelled in CSV files."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pandas as pd

from aimfair.datasets import Catalogue, _images
from aimfair.environment import AimfairError

PARTS = {"train": "train", "val": "validation"}


def catalogue(root: Path, on_error: str = "raise") -> Catalogue:
    """Faces under ``root``, in the order of ``fairface_label_train.csv`` and then ``fairface_label_val.csv``.

    Either list may be missing. Images are found in folders ``train/`` and ``val/``, in ``fairface_train.zip``
    and ``fairface_val.zip``, or in the official ``fairface-img-margin*-trainval.zip``. Attributes: Female,
    Male, White (binary), age (a range such as "20-29"), race, gender (as in the list), split. For
    ``on_error`` see :func:`aimfair.datasets._images.build`. Raises AimfairError for a list that is missing,
    malformed or does not match the images.
    """
    lists = {part: root / f"fairface_label_{part}.csv" for part in PARTS}
    matched = [
        _images.match(_read_labels(path).assign(split=PARTS[part]), _files(root, part), path)
        for part, path in lists.items()
        if path.exists()
    ]
    if not matched:
        raise _images.absent(root, "fairface_label_train.csv", "FairFace")
    tables, locations, skipped = zip(*matched, strict=True)
    return _images.build("FairFace", pd.concat(tables), [*chain(*locations)], [*chain(*skipped)], on_error)


def _read_labels(path: Path) -> pd.DataFrame:
    """The label list, checked: file -> attributes."""
    table = _images.read_list(path, dtype=str)
    missing = [column for column in ("file", "age", "gender", "race") if column not in table]
    if missing:
        raise AimfairError(f"{path} line 1: no column {', '.join(missing)}; fetch the list again")
    wrong = table[["file", "age", "race"]].isna().any(axis=1) | ~table["gender"].isin(["Male", "Female"])
    if wrong.any():
        raise AimfairError(
            f"{path} line {wrong.idxmax() + 2}: not file, age, Male or Female, race; fetch the list again"
        )
    labels = {
        "Female": table["gender"] == "Female",
        "Male": table["gender"] == "Male",
        "White": table["race"] == "White",
    }
    names = _images.as_posix(table["file"])
    return pd.DataFrame(labels).astype("int64").join(table[["age", "race", "gender"]]).set_index(names)


def _files(root: Path, part: str) -> list[tuple[str, _images.Location]]:
    """Names such as ``train/1.jpg``, and where each is."""
    bundles = sorted(root.glob("fairface-img-margin*-trainval.zip"))
    found = _images.first(root / part, root / f"fairface_{part}.zip", *bundles, root / f"{part}.zip")
    if found is None:
        raise _images.absent(root, f"{part}/ or fairface_{part}.zip", "FairFace")
    images = _images.Container(found)  # a zip may hold the other part too
    members = [member for member in images.members if found.is_dir() or f"/{part}/" in f"/{member}"]
    return [(f"{part}/{member.rpartition('/')[2]}", _images.Location(images, member)) for member in members]
