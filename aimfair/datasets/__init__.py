"""Sources of faces. One module each; a new data set is one new file here and nothing else.

A module of this package offers ``catalogue(root: Path, **options) -> Catalogue``: names and attributes of
all faces it knows, before a single image is decoded. Choosing a subset then costs nothing, and only
the chosen images are read.
"""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from aimfair.environment import AimfairError
from aimfair.faces import FaceSet


@dataclass(frozen=True)
class Catalogue:
    """What a data set knows of its N faces without decoding them.

    attributes  one row per face; binary attributes as int64 columns of {0, 1} (``Smiling``, ``Male``, ...),
                and where the data set has them ``split`` ("train", "validation", "test"), ``identity``,
                ``age``, ``race``
    names       (N,) str, in the data set's own order (CelebA: id order)
    read        (indices, size) -> (n, 3, size, size) uint8, RGB
    skipped     names of the files that were left out, each with its reason
    """

    name: str
    names: np.ndarray
    attributes: pd.DataFrame
    read: Callable[[np.ndarray, int], Tensor]
    skipped: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def labels(self, attribute: str) -> np.ndarray:
        """(N,) int64 of {0, 1}. Raises AimfairError for an attribute that the data set does not have."""
        if attribute not in self.attributes:
            known = ", ".join(c for c in self.attributes if self.attributes[c].isin((0, 1)).all())
            raise AimfairError(f"{self.name} has no attribute {attribute!r}; it has: {known}")
        values = self.attributes[attribute]
        if not values.isin((0, 1)).all():
            raise AimfairError(
                f"{self.name}: {attribute} is no binary attribute, it holds values like {values.iloc[0]!r}"
            )
        return values.to_numpy(np.int64)

    def positions(self, names: Sequence[str] | np.ndarray) -> np.ndarray:
        """Indices (int64) of the faces called ``names``. Raises AimfairError for names that are not in the catalogue."""
        rows = pd.Index(self.names).get_indexer(names)
        if (rows < 0).any():
            raise AimfairError(
                f"{self.name} lacks {(rows < 0).sum()} of the {len(rows)} faces wanted, the first is "
                f"{names[(rows < 0).argmax()]}: the split belongs to another copy of the data"
            )
        return rows.astype(np.int64)

    def faces(self, indices: Sequence[int] | np.ndarray, target: str, protected: str, size: int) -> FaceSet:
        """Decode the faces at ``indices`` at ``size`` x ``size`` pixels, labelled for one task."""
        index = np.asarray(indices, dtype=np.int64)
        return FaceSet(
            self.read(index, size),
            torch.from_numpy(self.labels(target)[index]),
            torch.from_numpy(self.labels(protected)[index]),
            self.names[index],
        )


def available() -> list[str]:
    """Names of all data sets, one per module of this package."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def load(name: str, root: str | Path | None = None, **options: Any) -> Catalogue:
    """Catalogue of the data set ``name`` (see :func:`available`) found under ``root``, a path that must exist.

    FaceWorld is drawn and needs none. What is left out is told in a warning, and listed in ``skipped``. Raises AimfairError for an unknown data set and a path that is not there.
    """
    if name not in available():
        raise AimfairError(f"no data set {name!r}; there are: {', '.join(available())}")
    if name != "faceworld":
        if root is None:
            raise AimfairError(f"{name} is read from a local copy: give its path (data/README.md says how to get one)")
        root = Path(root).expanduser()
        if not root.exists():
            raise AimfairError(f"{name}: {root} does not exist; give the folder that holds the data set")
    found: Catalogue = importlib.import_module(f"{__name__}.{name}").catalogue(root, **options)
    if found.skipped:
        reasons = Counter(line.partition(": ")[2] for line in found.skipped).most_common(3)
        told = "; ".join(f"{reason} ({number:,})" for reason, number in reasons)
        first = found.skipped[0].partition(": ")[0]
        warnings.warn(f"{found.name}: {len(found.skipped):,} left out: {told}; the first is {first}", stacklevel=2)
    return found
