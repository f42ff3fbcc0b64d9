"""Labelled faces, the data type that travels between the modules of aimfair; and batches that a user brings along."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

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


class Batches:
    """(images, targets) batches of a user's own, checked as they are read.

    data     a ``Dataset`` of (image, target), cut into batches here; or an iterable of batches that can be walked through
             again, such as a DataLoader or a list. Images are floats as the model expects them, targets 0 to
             ``classes`` - 1 (None: not checked)
    what     name of the set, for errors
    shuffle  in another order at each pass, and without the last incomplete batch: for training
    """

    def __init__(
        self,
        data: Dataset | Iterable[Any],
        what: str,
        classes: int | None,
        batch_size: int = 128,
        shuffle: bool = False,
    ):
        if isinstance(data, Dataset):
            short = len(data) > batch_size  # type: ignore[arg-type]
            data = DataLoader(data, batch_size, shuffle=shuffle, drop_last=shuffle and short)
        if iter(data) is data:
            raise AimfairError(f"{what}: an iterator is used up after one pass; give a list, a DataLoader or a Dataset")
        self.data, self.what, self.classes = data, what, classes

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (B, ...) float and targets (B,) int64. Raises AimfairError for anything else, and at the end of a pass
        for no images at all or targets that are all the same."""
        seen: set[int] = set()
        for batch in self.data:
            if not (isinstance(batch, (tuple, list)) and len(batch) == 2 and torch.is_tensor(batch[0])):
                raise AimfairError(f"{self.what}: a batch must be a pair (images, targets), got {type(batch).__name__}")
            images, target = batch[0], torch.as_tensor(batch[1])
            if len(images) != target.numel():
                raise AimfairError(f"{self.what}: {len(images)} images with targets of shape {tuple(target.shape)}")
            if not images.is_floating_point() or images.abs().max() > 50:
                raise AimfairError(
                    f"{self.what}: images of {images.dtype} up to {images.max().item():g} are not normalised: bring them "
                    "to what the model was trained with"
                )
            seen |= {*target.unique().tolist()}
            if self.classes and not seen <= {*range(self.classes)}:
                raise AimfairError(f"{self.what}: targets must be 0 to {self.classes - 1}, found {sorted(seen)[:5]}")
            yield images, target.reshape(-1).long()
        if len(seen) < 2:
            raise AimfairError(f"{self.what}: " + (f"every target is {seen.pop()}" if seen else "there are no images"))

    def draw(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass whose chance (order, crops, the model's dropout) comes from ``seed``, as far as it is torch's."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield from self
