"""Any folder of faces sorted by group, such as the synthetic images: ``{target}_{protected}/*.png`` and a manifest."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pandas as pd

from aimfair.datasets import Catalogue, _images
from aimfair.environment import AimfairError
from aimfair.faces import GROUPS

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
FOLDERS = tuple(f"{target}_{protected}" for target, protected in GROUPS)


def catalogue(root: Path, target: str = "target", protected: str = "protected", on_error: str = "raise") -> Catalogue:
    """PNG, JPEG and WebP files in ``root/0_0``, ``0_1``, ``1_0``, ``1_1``, or in those of ``root/{target}_{protected}``.

    The folder of a face is its label: the columns named ``target`` and ``protected``. A ``manifest.csv`` beside
    the group folders or in ``root`` (path relative to the manifest, target, protected, more) adds its other
    columns; then images without a row and rows without an image are left out and listed in ``skipped``.
    Without group folders the manifest alone says where each image is and what it shows.
    For ``on_error`` see :func:`aimfair.datasets._images.build`. Raises AimfairError when there are no
    group folders, or when a row contradicts the folder that its image is in.
    """
    base, grouped = _base(root, target, protected)
    images, skipped = _images.Container(base), []
    names = [name for name in images.members if name.lower().endswith(SUFFIXES)]
    if grouped:
        groups = tuple(f"{folder}/" for folder in FOLDERS)
        others = [name for name in images.members if name.startswith(groups) and not name.lower().endswith(SUFFIXES)]
        skipped = [f"{name}: not a png, jpg or webp file" for name in others]
        skipped += [f"{name}: in no group folder" for name in names if not name.startswith(groups)]
        names = [name for name in names if name.startswith(groups)]
    manifest = _images.first(base / "manifest.csv", root / "manifest.csv")
    if manifest is None:
        table = pd.DataFrame({target: [int(n[0]) for n in names], protected: [int(n[2]) for n in names]}, index=names)
        locations = [_images.Location(images, name) for name in names]
        return _images.build(f"folder {base}", table, locations, skipped, on_error)
    rows = _read_manifest(manifest, base, target, protected)
    if grouped:
        rows = rows.sort_index()
    else:  # which may list images of any kind
        names = sorted({*names} | ({*rows.index} & {*images.members}))
    files = [(name, _images.Location(images, name)) for name in names]
    table, locations, unmatched = _images.match(rows, files, manifest)
    said = table[target].astype(str) + "_" + table[protected].astype(str)
    for name in table.index[said != table.index.str[:3]] if grouped else ():
        raise AimfairError(f"{manifest} says that {name} is of group {said[name]}: correct the row or move the image")
    return _images.build(f"folder {base}", table, locations, skipped + unmatched, on_error)


def fingerprint(root: Path, target: str, protected: str) -> str:
    """Eight hex digits that change with the images that :func:`catalogue` would list: their names, labels, splits, sizes
    and last KiB, which of a compressed image depends on all before it. Empty where there is nothing that it could list."""
    try:
        known, (base, _) = catalogue(root, target, protected), _base(root, target, protected)
    except AimfairError:
        return ""
    digest = hashlib.blake2b(digest_size=4)
    columns = [column for column in (target, protected, "split") if column in known.attributes]
    for name, labels in zip(known.names, known.attributes[columns].to_numpy().tolist(), strict=True):
        with (base / name).open("rb") as file:
            file.seek(max(0, (size := file.seek(0, os.SEEK_END)) - 1024))
            digest.update(f"{name} {labels} {size}\n".encode() + file.read())
    return digest.hexdigest()


def _base(root: Path, target: str, protected: str) -> tuple[Path, bool]:
    """The folder that holds the images, and whether group folders sort them; where not, a manifest stands in for these."""
    for base in (root, root / f"{target}_{protected}"):
        if any((base / folder).is_dir() for folder in FOLDERS):
            return base, True
    if (root / "manifest.csv").is_file() and not any(root.glob("*/[01]_[01]")):  # not those of another task
        return root, False
    inside = ", ".join(sorted(path.name for path in root.iterdir())[:6]) if root.is_dir() else "a file"
    raise AimfairError(
        f"no group folders 0_0, 0_1, 1_0, 1_1 in {root} or its {target}_{protected} (found: {inside or 'nothing'}): "
        "name the attributes as the folder does (-p target=... -p protected=...), or write a manifest.csv (path, target, "
        "protected)"
    )


def _read_manifest(path: Path, base: Path, target: str, protected: str) -> pd.DataFrame:
    """Labels and further columns by path relative to ``base``, checked."""
    table = _images.read_list(path, dtype={"path": str, "target": str, "protected": str})
    missing = [column for column in ("path", "target", "protected") if column not in table]
    if missing:
        raise AimfairError(f"{path} line 1: no column {', '.join(missing)}")
    wrong = table["path"].isna() | ~table[["target", "protected"]].isin(("0", "1")).all(axis=1)
    if wrong.any():
        raise AimfairError(f"{path} line {wrong.idxmax() + 2}: not a path and two labels of 0 or 1")
    table["path"] = _images.as_posix(table["path"])
    if path.parent != base:  # a manifest one level up, which may list other tasks too
        table = table[table["path"].str.startswith(f"{base.name}/")]
    names = table["path"].str.removeprefix(f"{base.name}/")
    labels = table[["target", "protected"]].astype("int64").set_axis([target, protected], axis=1)
    others = table.columns.difference(["path", "target", "protected", target, protected], sort=False)
    return labels.join(table[others]).set_index(names)
