"""CelebA (Liu, Luo, Wang and Tang, ICCV 2015): 40 binary attributes of 202,599 aligned faces.

Read from a copy in the official layout or that of its common mirrors, complete or a subset of the images.
The attributes are annotators' impressions and noisy; ``Male`` is a perceived, binary label.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from aimfair.datasets import Catalogue, _images
from aimfair.environment import AimfairError

SPLITS = ("train", "validation", "test")
LAST_TRAIN, LAST_VALIDATION = 162_770, 182_637
"""Last ids of the official training and validation split."""

VALUES = {"-1": 0, "1": 1}


def catalogue(
    root: str | Path | None = None,
    *,
    on_error: str = "raise",
    memory_limit: int = _images.MEMORY_LIMIT,
    cache: str | Path | None = None,
) -> Catalogue:
    """Faces under ``root`` that have both attributes and an image, in id order.

    Images: a folder ``img_align_celeba/`` (nested or not) or ``img_align_celeba.zip``; lists as in
    :func:`attributes`. Both may lie in ``root``, ``root/celeba`` or the official ``Img``, ``Anno`` and
    ``Eval``. Listed faces without an image, and images that are not listed, go to ``skipped``. For the
    options see :func:`aimfair.datasets._images.build`. Raises AimfairError when images or lists are
    missing, malformed or do not match.
    """
    table = attributes(root)
    base = _images.data_root(root, "CelebA")
    container = _find(base, ["img_align_celeba", "img_align_celeba.zip"])
    if container is None:
        raise AimfairError(
            f"no img_align_celeba/ or img_align_celeba.zip in {base}: data/README.md says how to get CelebA"
        )
    files = {member.rpartition("/")[2]: member for member in _images.listing(container)}
    present = table.index.isin(files.keys())
    if not present.any():
        raise AimfairError(
            f"the attribute list in {base} does not match the images: none of its {len(table)} names is in {container}"
        )
    skipped = [f"{name}: in the attribute list, no image in {container.name}" for name in table.index[~present]]
    listed = set(table.index)
    skipped += [f"{name}: in {container.name}, not in the attribute list" for name in files if name not in listed]
    table = table[present]
    locations = [_images.Location(container, files[name]) for name in table.index]
    folder = None if cache is None else Path(cache)
    return _images.build("CelebA", list(table.index), locations, table, skipped, on_error, memory_limit, folder)


def attributes(root: str | Path | None = None) -> pd.DataFrame:
    """All listed faces in id order, whether or not their images are there.

    Index: file names. Columns: the attributes as int64 of {0, 1}, ``split`` ("train", "validation", "test"),
    and ``identity`` where ``identity_CelebA.txt`` exists. Read from ``list_attr_celeba`` and
    ``list_eval_partition``, each ``.txt`` (official) or ``.csv`` (mirrors); without a partition list the
    split follows from the official ids. Raises AimfairError naming file and line of a malformed entry.
    """
    base = _images.data_root(root, "CelebA")
    listed = _find(base, ["list_attr_celeba.txt", "list_attr_celeba.csv"])
    if listed is None:
        raise AimfairError(f"no list_attr_celeba.txt or .csv in {base}: data/README.md says how to get CelebA")
    table = _attribute_list(listed).sort_index()
    if table.index.has_duplicates:
        raise AimfairError(f"{listed}: {table.index[table.index.duplicated()][0]} is listed twice")
    partition = _find(base, ["list_eval_partition.txt", "list_eval_partition.csv"])
    codes = _official_split(table.index) if partition is None else _column(partition, table.index)
    if codes.min() < 0 or codes.max() > 2:
        raise AimfairError(
            f"{partition}: a partition is 0, 1 or 2, found {codes.min()} to {codes.max()}; fetch the list again"
        )
    table["split"] = np.array(SPLITS)[codes]
    identity = _find(base, ["identity_CelebA.txt"])
    if identity is not None:
        table["identity"] = _column(identity, table.index)
    return table


def _find(root: Path, names: Iterable[str]) -> Path | None:
    bases = [root / base / part for base in ("", "celeba") for part in ("", "Img", "Anno", "Eval")]
    return _images.first(base / name for base in bases for name in names)


def _fields(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of every line that is not blank."""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield number, line.replace(" ", "").split(",") if path.suffix == ".csv" else line.split()


def _attribute_list(path: Path) -> pd.DataFrame:
    """A number of faces (official format only), a header, then a name and a -1 or 1 per attribute in every line."""
    lines = _fields(path)
    promised: list[str] | None = None
    if path.suffix != ".csv":
        _, promised = next(lines, (1, []))
        if len(promised) != 1 or not promised[0].isdecimal():
            raise AimfairError(f"{path} line 1: not the number of faces; fetch the list again")
    _, columns = next(lines, (1, []))
    columns = columns if promised else columns[1:]  # the header of a CSV begins with image_id
    names: list[str] = []
    values: list[int] = []
    for number, (name, *row) in lines:
        if len(row) != len(columns):
            raise AimfairError(f"{path} line {number}: {len(row)} values for {len(columns)} attributes; fetch it again")
        try:
            values.extend(map(VALUES.__getitem__, row))
        except KeyError as wrong:
            raise AimfairError(f"{path} line {number}: an attribute is -1 or 1, not {wrong}; fetch it again") from None
        names.append(name)
    if not names or (promised and int(promised[0]) != len(names)):
        of = f" of {promised[0]}" if promised else ""
        raise AimfairError(f"{path} is incomplete: {len(names)}{of} faces; fetch it again")
    return pd.DataFrame(np.array(values, np.int64).reshape(len(names), -1), index=pd.Index(names), columns=columns)


def _column(path: Path, names: pd.Index) -> np.ndarray:
    """(N,) int64: what a list of ``name number`` says of each name."""
    entries: dict[str, int] = {}
    for number, fields in islice(_fields(path), int(path.suffix == ".csv"), None):
        try:
            name, value = fields
            entries[name] = int(value)
        except ValueError:
            raise AimfairError(f"{path} line {number}: not a file name and a number; fetch the list again") from None
    missing = [name for name in names if name not in entries]
    if missing:
        raise AimfairError(f"{path} does not match the attribute list: {missing[0]} has no line, {len(missing)} in all")
    return np.array([entries[name] for name in names], np.int64)


def _official_split(names: pd.Index) -> np.ndarray:
    try:
        ids = np.array([int(Path(name).stem) for name in names])
    except ValueError as error:
        raise AimfairError(
            f"no list_eval_partition, and the split cannot be told from the file names ({error})"
        ) from None
    return np.searchsorted([LAST_TRAIN, LAST_VALIDATION], ids, side="left")
