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
    root: str | Path | None = None,
    *,
    target: str = "target",
    protected: str = "protected",
    on_error: str = "raise",
    memory_limit: int = _images.MEMORY_LIMIT,
    cache: str | Path | None = None,
) -> Catalogue:
    """PNG, JPEG and WebP files in ``root/0_0``, ``0_1``, ``1_0``, ``1_1``, or in those of ``root/{target}_{protected}``.

    The folder of a face is its label: the columns named ``target`` and ``protected``. A ``manifest.csv`` beside
    the group folders or in ``root`` (path relative to the manifest, target, protected, more) adds its other
    columns; then images without a row and rows without an image are left out and listed in ``skipped``.
    Without group folders the manifest alone says where each image is and what it shows.
    For the other options see :func:`aimfair.datasets._images.build`. Raises AimfairError when there are no
    group folders, or when a row contradicts the folder that its image is in.
    """
    root = _images.data_root(root, "image folder")
    cached = None if cache is None else Path(cache)
    base = _base(root, target, protected)
    if base is None:
        attributes, skipped = _listed(root, target, protected)
        places = [_images.Location(root, name) for name in attributes.index]
        names = list(attributes.index)
        return _images.build(f"folder {root}", names, places, attributes, skipped, on_error, memory_limit, cached)
    members = [f"{t}_{p}/{file}" for t, p in GROUPS for file in _listing(base / f"{t}_{p}")]
    images = [member for member in members if member.lower().endswith(SUFFIXES)]
    skipped = [f"{member}: not a png, jpg or webp file" for member in members if not member.lower().endswith(SUFFIXES)]
    labels = [(int(member[0]), int(member[2])) for member in images]
    attributes = pd.DataFrame(labels, columns=[target, protected], index=images)
    manifest = _images.first([base / "manifest.csv", root / "manifest.csv"])
    if manifest is not None:
        attributes, unmatched = _joined(attributes, manifest, base)
        skipped += unmatched
    names = list(attributes.index)
    locations = [_images.Location(base, name) for name in names]
    return _images.build(f"folder {base}", names, locations, attributes, skipped, on_error, memory_limit, cached)


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


def _listed(root: Path, target: str, protected: str) -> tuple[pd.DataFrame, list[str]]:
    """The images that the manifest names, with its labels and further columns; and the rows that have no image."""
    rows = _manifest(root / "manifest.csv", root)
    rows = rows.drop(columns=[c for c in (target, protected) if c in rows and c not in ("target", "protected")])
    there = [(root / path).is_file() for path in rows.index]
    skipped = [f"{path}: manifest.csv line {line}, no image" for path, line in rows["line"].items()]
    lost = [reason for reason, found in zip(skipped, there, strict=True) if not found]
    return rows[there].drop(columns="line").rename(columns={"target": target, "protected": protected}), lost


def _listing(folder: Path) -> list[str]:
    return _images.listing(folder) if folder.is_dir() else []


def _joined(labels: pd.DataFrame, manifest: Path, base: Path) -> tuple[pd.DataFrame, list[str]]:
    """The images that the manifest knows, with its further columns; and who was left out, and why."""
    target, protected = labels.columns
    rows = _manifest(manifest, base)
    absent, known = ~rows.index.isin(labels.index), labels.index.isin(rows.index)
    skipped = [f"{path}: {manifest.name} line {line}, no image" for path, line in rows["line"][absent].items()]
    skipped += [f"{name}: no row in {manifest.name}" for name in labels.index[~known]]
    faces = labels[known]
    rows = rows.loc[faces.index]
    clash = (faces[target] != rows["target"]) | (faces[protected] != rows["protected"])
    if clash.any():
        name = clash.index[clash.to_numpy().argmax()]
        said = f"target {rows['target'][name]}, protected {rows['protected'][name]}"
        raise AimfairError(
            f"{manifest} line {rows['line'][name]} says {said}, but the image is {base / name}: correct one of them"
        )
    extra = [column for column in rows.columns if column not in ("line", "target", "protected", target, protected)]
    return faces.join(rows[extra]), skipped


def _manifest(path: Path, base: Path) -> pd.DataFrame:
    """Rows by path relative to ``base``, checked line by line."""
    try:
        rows = pd.read_csv(path, dtype={"path": str, "target": str, "protected": str})
    except (ValueError, pd.errors.ParserError) as error:
        raise AimfairError(
            f"{path} cannot be read as a manifest ({str(error).strip()}): repair or remove it"
        ) from error
    missing = [column for column in ("path", "target", "protected") if column not in rows]
    if missing:
        raise AimfairError(f"{path} line 1: no column {', '.join(missing)}")
    rows["line"] = range(2, len(rows) + 2)
    for line, where, *labels in zip(rows["line"], rows["path"], rows["target"], rows["protected"], strict=True):
        if not isinstance(where, str) or any(label not in ("0", "1") for label in labels):
            raise AimfairError(f"{path} line {line}: not a path and two labels of 0 or 1")
    rows = rows.astype({"target": "int64", "protected": "int64"})
    if path.parent != base:  # a manifest one level up, which may list other tasks too
        rows = rows[rows["path"].str.startswith(f"{base.name}/")]
    rows.index = pd.Index(rows["path"].str.removeprefix(f"{base.name}/"), name=None)
    if rows.index.has_duplicates:
        raise AimfairError(f"{path}: {rows.index[rows.index.duplicated()][0]} is listed twice")
    return rows.drop(columns="path")
