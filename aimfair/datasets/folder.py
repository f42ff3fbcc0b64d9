"""Any folder of faces sorted by group, such as the synthetic images: ``{target}_{protected}/*.png`` and a manifest."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

from aimfair.datasets import Catalogue, _images
from aimfair.environment import AimfairError
from aimfair.faces import GROUPS

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def catalogue(
    root: str | Path | None = None, target: str = "target", protected: str = "protected", on_error: str = "raise"
) -> Catalogue:
    """PNG, JPEG and WebP files in ``root/0_0``, ``0_1``, ``1_0``, ``1_1``, or in those of ``root/{target}_{protected}``.

    The folder of a face is its label: the columns named ``target`` and ``protected``. A ``manifest.csv`` beside
    the group folders or in ``root`` (path relative to the manifest, target, protected, more) adds its other
    columns; then images without a row and rows without an image are left out and listed in ``skipped``.
    Without group folders the manifest alone says where each image is and what it shows.
    For ``on_error`` see :func:`aimfair.datasets._images.build`. Raises AimfairError when there are no
    group folders, or when a row contradicts the folder that its image is in.
    """
    root = _images.data_root(root, "image folder")
    base = _base(root, target, protected)
    names, skipped = _listing(base) if base else ([], [])
    manifest = _images.first([(base or root) / "manifest.csv", root / "manifest.csv"])
    if manifest is None:
        table = pd.DataFrame({target: [int(n[0]) for n in names], protected: [int(n[2]) for n in names]}, index=names)
        locations = [_images.Location(base or root, name) for name in names]
    else:
        rows = _read_manifest(manifest, base or root, target, protected)
        if base is None:
            names = [name for name in rows.index if (root / name).is_file()]
        files = {name: _images.Location(base or root, name) for name in names}
        table, locations, unmatched = _images.match(rows.sort_index() if base else rows, files, manifest)
        skipped = skipped + unmatched
        said = table[target].astype(str) + "_" + table[protected].astype(str)
        for name in table.index[said != table.index.str[:3]] if base else ():
            raise AimfairError(
                f"{manifest} says that {name} is of group {said[name]}: correct the row or move the image"
            )
    return _images.build(f"folder {base or root}", table, locations, skipped, on_error)


def fingerprint(root: Path, target: str, protected: str) -> str:
    """Eight hex digits that change with the images that :func:`catalogue` would list: their names, labels and sizes in
    bytes. Empty where there is nothing that it could list."""
    try:
        known, base = catalogue(root, target=target, protected=protected), _base(root, target, protected) or root
    except AimfairError:
        return ""
    digest = hashlib.blake2b(digest_size=4)
    for name, *labels in zip(known.names, known.labels(target), known.labels(protected), strict=True):
        digest.update(f"{name} {labels} {(base / name).stat().st_size}\n".encode())
    return digest.hexdigest()


def _base(root: Path, target: str, protected: str) -> Path | None:
    """The folder that holds the group folders; None where there are none and a manifest stands in for them."""
    for base in (root, root / f"{target}_{protected}"):
        if any((base / f"{t}_{p}").is_dir() for t, p in GROUPS):
            return base
    if (root / "manifest.csv").is_file() and not any(root.glob("*/[01]_[01]")):  # not those of another task
        return None
    inside = ", ".join(sorted(path.name for path in root.iterdir())[:6]) if root.is_dir() else "a file"
    raise AimfairError(
        f"no group folders 0_0, 0_1, 1_0, 1_1 in {root} or its {target}_{protected} (found: {inside or 'nothing'}): "
        "name the attributes as the folder does (-p target=... -p protected=...), or write a manifest.csv (path, target, "
        "protected)"
    )


def _listing(base: Path) -> tuple[list[str], list[str]]:
    """Names of the images in the group folders; and the other files there."""
    folders = [f"{t}_{p}" for t, p in GROUPS if (base / f"{t}_{p}").is_dir()]
    files = [f"{folder}/{file}" for folder in folders for file in _images.listing(base / folder)]
    images = [file for file in files if file.lower().endswith(SUFFIXES)]
    return images, [f"{file}: not a png, jpg or webp file" for file in files if not file.lower().endswith(SUFFIXES)]


def _read_manifest(path: Path, base: Path, target: str, protected: str) -> pd.DataFrame:
    """Labels and further columns by path relative to ``base``, checked."""
    table = _images.read_list(path, dtype={"path": str, "target": str, "protected": str})
    missing = [column for column in ("path", "target", "protected") if column not in table]
    if missing:
        raise AimfairError(f"{path} line 1: no column {', '.join(missing)}")
    wrong = table["path"].isna() | ~table[["target", "protected"]].isin(("0", "1")).all(axis=1)
    if wrong.any():
        raise AimfairError(f"{path} line {wrong.idxmax() + 2}: not a path and two labels of 0 or 1")
    if path.parent != base:  # a manifest one level up, which may list other tasks too
        table = table[table["path"].str.startswith(f"{base.name}/")]
    names = table["path"].str.removeprefix(f"{base.name}/")
    labels = table[["target", "protected"]].astype("int64").set_axis([target, protected], axis=1)
    others = table.columns.difference(["path", "target", "protected", target, protected], sort=False)
    return labels.join(table[others]).set_index(names)
