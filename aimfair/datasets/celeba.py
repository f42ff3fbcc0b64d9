"""CelebA (Liu, Luo, Wang and Tang, ICCV 2015): 40 binary attributes of 202,599 aligned faces.

Read from a copy in the official layout or that of its common mirrors, complete or a subset of the images.
The attributes are annotators' impressions and noisy; ``Male`` is a perceived, binary label.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from aimfair.datasets import Catalogue, _images
from aimfair.environment import AimfairError

SPLITS = ("train", "validation", "test")
LAST_TRAIN, LAST_VALIDATION = 162_770, 182_637
"""Last ids of the official training and validation split."""


def catalogue(root: Path, on_error: str = "raise") -> Catalogue:
    """Faces under ``root`` that have both attributes and an image, in id order.

    Images: a folder ``img_align_celeba/`` (nested or not) or ``img_align_celeba.zip``. Lists: ``list_attr_celeba`` and
    ``list_eval_partition``, each ``.txt`` (official) or ``.csv`` (mirrors); without a partition list the split follows
    from the official ids. All may lie in ``root``, ``root/celeba`` or the official ``Img``, ``Anno`` and ``Eval``.

    Columns: the attributes as int64 of {0, 1}, ``split`` ("train", "validation", "test"), and ``identity`` where
    ``identity_CelebA.txt`` exists. Listed faces without an image, and images that are not listed, go to ``skipped``. For
    ``on_error`` see :func:`aimfair.datasets._images.build`. Raises AimfairError when images or lists are missing, do not
    match, or have a malformed entry, which it names.
    """
    listed = _must_find(root, "list_attr_celeba.txt", "list_attr_celeba.csv")
    table = _read_attributes(listed).sort_index()
    partition = _find(root, "list_eval_partition.txt", "list_eval_partition.csv")
    codes = _official_split(table.index) if partition is None else _read_column(partition, table.index)
    if not set(codes) <= {0, 1, 2}:
        raise AimfairError(f"{partition}: a partition is 0, 1 or 2, found {max(codes)}; fetch the list again")
    table["split"] = np.array(SPLITS)[codes]
    identity = _find(root, "identity_CelebA.txt")
    if identity is not None:
        table["identity"] = _read_column(identity, table.index)
    images = _images.Container(_must_find(root, "img_align_celeba", "img_align_celeba.zip"))
    files = [(member.rpartition("/")[2], _images.Location(images, member)) for member in images.members]
    return _images.build("CelebA", *_images.match(table, files, listed), on_error)


def _find(root: Path, *names: str) -> Path | None:
    bases = [root / base / part for base in ("", "celeba") for part in ("", "Img", "Anno", "Eval")]
    return _images.first(*(base / name for base in bases for name in names))


def _must_find(root: Path, *names: str) -> Path:
    if (found := _find(root, *names)) is None:
        raise _images.absent(root, " or ".join(names), "CelebA")
    return found


def _read_attributes(path: Path) -> pd.DataFrame:
    """A number of faces (``.txt`` only), a header, then in every line a name and -1 or 1 for each attribute."""
    if path.suffix == ".csv":
        table = _images.read_list(path)
    else:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            promised, header = file.readline().strip(), file.readline().split()
        if not promised.isdecimal():
            raise AimfairError(f"{path} line 1: not the number of faces; fetch the list again")
        table = _images.read_list(path, skiprows=2, names=["image_id", *header])
        if len(table) != int(promised):
            raise AimfairError(f"{path} is incomplete: {len(table)} of {promised} faces; fetch it again")
    table = table.set_index(table.columns[0]).apply(pd.to_numeric, errors="coerce")
    wrong = ~table.isin((-1, 1)).all(axis=1)  # of too few values, the last are not a number
    if wrong.any() or table.empty:
        name = table.index[wrong][0] if wrong.any() else "no face"
        raise AimfairError(f"{path}: {name} has not -1 or 1 for each attribute; fetch the list again")
    return (table > 0).astype(np.int64).rename_axis(None)


def _read_column(path: Path, names: pd.Index) -> np.ndarray:
    """(N,) int64: what a list of ``name number`` says of each name."""
    header = 0 if path.suffix == ".csv" else None
    table = _images.read_list(path, names=["name", "number"], header=header).set_index("name")
    numbers = pd.to_numeric(table["number"], errors="coerce")
    if numbers.index.has_duplicates:
        raise AimfairError(f"{path}: {numbers.index[numbers.index.duplicated()][0]} is listed twice")
    numbers = numbers.reindex(names)
    wrong = names[numbers.isna() | (numbers % 1 != 0)]
    if len(wrong):
        raise AimfairError(f"{path}: {wrong[0]} has no whole number, {len(wrong)} such faces in all; fetch it again")
    return numbers.to_numpy(np.int64)


def _official_split(names: pd.Index) -> np.ndarray:
    ids = names.str.extract(r"^(\d+)\.", expand=False)
    if ids.isna().any():
        raise AimfairError(
            f"no list_eval_partition, and {names[ids.isna()][0]} is no official name that tells the split"
        )
    return np.searchsorted([LAST_TRAIN, LAST_VALIDATION], ids.astype(int), side="left")
