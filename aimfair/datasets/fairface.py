"""FairFace (Karkkainen and Joo, WACV 2021): age range, gender and seven races, labelled in CSV files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from aimfair.datasets import Catalogue, _images
from aimfair.environment import AimfairError

PARTS = {"train": "train", "val": "validation"}


def catalogue(
    root: str | Path | None = None,
    *,
    on_error: str = "raise",
    memory_limit: int = _images.MEMORY_LIMIT,
    cache: str | Path | None = None,
) -> Catalogue:
    """Faces under ``root``, in the order of ``fairface_label_train.csv`` and then ``fairface_label_val.csv``.

    Either list may be missing. Images are found in folders ``train/`` and ``val/``, in ``fairface_train.zip``
    and ``fairface_val.zip``, or in the official ``fairface-img-margin*-trainval.zip``. Attributes: Female,
    Male, White (binary), age (a range such as "20-29"), race, gender (as in the list), split. For the
    options see :func:`aimfair.datasets._images.build`. Raises AimfairError for a list that is missing,
    malformed or does not match the images.
    """
    root = _images.data_root(root, "FairFace")
    locations: list[_images.Location] = []
    skipped: list[str] = []
    tables = []
    for part, split in PARTS.items():
        labels = root / f"fairface_label_{part}.csv"
        if not labels.exists():
            continue
        table = _table(labels)
        files = _files(root, part)
        known = table["file"].isin(files.keys())
        if not known.any():
            raise AimfairError(f"{labels} does not match the images: none of its {len(table)} files is under {root}")
        skipped += [f"{name}: listed in {labels.name}, no image" for name in table["file"][~known]]
        listed = set(table["file"])
        skipped += [f"{name}: no line in {labels.name}" for name in files if name not in listed]
        table = table[known].assign(split=split)
        locations += [files[name] for name in table["file"]]
        tables.append(table)
    if not tables:
        raise AimfairError(f"no fairface_label_train.csv in {root}: data/README.md says how to get FairFace")
    faces = pd.concat(tables, ignore_index=True)
    attributes = pd.DataFrame(
        {
            "Female": (faces["gender"] == "Female").astype("int64"),
            "Male": (faces["gender"] == "Male").astype("int64"),
            "White": (faces["race"] == "White").astype("int64"),
            **{column: faces[column] for column in ("age", "race", "gender", "split")},
        }
    )
    folder = None if cache is None else Path(cache)
    return _images.build(
        "FairFace", list(faces["file"]), locations, attributes, skipped, on_error, memory_limit, folder
    )


def _table(path: Path) -> pd.DataFrame:
    """The label list, checked line by line."""
    try:
        table = pd.read_csv(path, dtype=str)
    except (ValueError, pd.errors.ParserError) as error:
        raise AimfairError(
            f"{path} cannot be read as a list of labels ({str(error).strip()}): fetch it again"
        ) from error
    missing = [column for column in ("file", "age", "gender", "race") if column not in table]
    if missing:
        raise AimfairError(f"{path} line 1: no column {', '.join(missing)}; fetch the list again")
    wrong = table[["file", "age", "race"]].isna().any(axis=1) | ~table["gender"].isin(["Male", "Female"])
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        raise AimfairError(f"{path} line {row + 2}: not file, age, Male or Female, race; fetch the list again")
    if table["file"].duplicated().any():
        raise AimfairError(f"{path}: {table['file'][table['file'].duplicated()].iloc[0]} is listed twice")
    return table


def _files(root: Path, part: str) -> dict[str, _images.Location]:
    """``train/1.jpg`` -> where it is."""
    bundles = (*sorted(root.glob("fairface-img-margin*-trainval.zip")), root / f"{part}.zip")
    container = _images.first([root / part, root / f"fairface_{part}.zip", *bundles])
    if container is None:
        raise AimfairError(f"no {part}/ or fairface_{part}.zip in {root}: data/README.md says how to get FairFace")
    if container.is_dir():
        return {f"{part}/{member}": _images.Location(container, member) for member in _images.listing(container)}
    members = (member for member in _images.listing(container) if f"/{part}/" in f"/{member}")
    return {f"{part}/{member.rpartition('/')[2]}": _images.Location(container, member) for member in members}
