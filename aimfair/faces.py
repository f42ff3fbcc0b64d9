"""Labelled faces: the only data type that travels between the modules of aimfair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from aimfair.environment import AimfairError

GROUPS: tuple[tuple[int, int], ...] = ((0, 0), (0, 1), (1, 0), (1, 1))
"""(target, protected) of group 0, 1, 2, 3: the order of the cells in every table of the paper."""


def group_index(target: Tensor, protected: Tensor) -> Tensor:
    """Group of each face, ``2 * target + protected``; shapes (N,), values 0 to 3."""
    return 2 * target + protected


@dataclass(frozen=True)
class FaceSet:
    """N faces with a binary target label and, where it may be known, a binary protected label.

    images     (N, 3, H, W) uint8, RGB, in memory or a memory map
    target     (N,) int64 of {0, 1}: what the classifier predicts
    protected  (N,) int64 of {0, 1}, or None where the label is withheld
    names      (N,) str: a stable name of each face (file name, id)
    """

    images: Tensor
    target: Tensor
    protected: Tensor | None
    names: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.images)
        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or self.images.shape[1] != 3:
            raise AimfairError(
                f"a FaceSet wants uint8 images of shape (N, 3, H, W), got {self.images.dtype} {tuple(self.images.shape)}"
            )
        for label in ("target", "protected"):
            values = getattr(self, label)
            if values is None and label == "protected":
                continue
            if len(values) != n:
                raise AimfairError(f"{n} images but {len(values)} {label} labels: they must be read together")
            if n and (int(values.min()) < 0 or int(values.max()) > 1):
                raise AimfairError(f"{label} labels must be 0 or 1, got {sorted(set(values.tolist()))[:5]}")
        if len(self.names) != n:
            raise AimfairError(f"{n} images but {len(self.names)} names")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def groups(self) -> Tensor:
        """(N,) group of each face, 0 to 3. Raises AimfairError where the protected label is withheld."""
        if self.protected is None:
            raise AimfairError(
                "the protected label of these faces is withheld: this method did not declare that it needs it"
            )
        return group_index(self.target, self.protected)

    def counts(self) -> tuple[int, int, int, int]:
        """Number of faces in groups (0,0), (0,1), (1,0), (1,1)."""
        return tuple(torch.bincount(self.groups, minlength=4).tolist())  # type: ignore[return-value]

    def subset(self, indices: Sequence[int] | np.ndarray | Tensor) -> FaceSet:
        """The faces at ``indices``, in that order."""
        index = torch.as_tensor(np.asarray(indices), dtype=torch.int64)
        protected = None if self.protected is None else self.protected[index]
        return FaceSet(self.images[index], self.target[index], protected, self.names[index.numpy()])

    def without_protected(self) -> FaceSet:
        """The same faces with the protected label withheld."""
        return replace(self, protected=None)

    def __add__(self, other: FaceSet) -> FaceSet:
        """Both sets, this one first; the protected label survives only if both have it."""
        known = self.protected is not None and other.protected is not None
        return FaceSet(
            torch.cat([self.images, other.images]),
            torch.cat([self.target, other.target]),
            torch.cat([self.protected, other.protected]) if known else None,  # type: ignore[list-item]
            np.concatenate([self.names, other.names]),
        )
