"""What a study is made of: the real faces of a profile, their splits, and the synthetic faces beside them."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from aimfair import datasets, environment, sampling
from aimfair.audit import selection
from aimfair.datasets import Catalogue
from aimfair.environment import AimfairError, resolve
from aimfair.faces import FaceSet
from aimfair.study.audit import judge_of
from aimfair.study.pool import edited_faces, synthetic_faces
from aimfair.study.profiles import Profile

REAL = ("dataset", "target", "protected", "image_size", "train_images", "minority", "validation_images", "split")
"""Fields of a profile that decide its real faces."""


def splits(catalogue: Catalogue, p: Profile) -> dict[str, np.ndarray]:
    """Indices of a profile's "train" (biased), "validation" and "test" faces; of its external "corpus" too, where the
    training faces are shared out by identity.

    Raises AimfairError for a group with too few faces, or for ``split: identities`` where no identities are known.
    """
    target, protected = catalogue.labels(p.target), catalogue.labels(p.protected)
    if p.split == "balanced-test":
        return sampling.draw_splits(target, protected, p.train_images, p.minority)
    where = catalogue.attributes["split"].to_numpy()
    candidates = np.flatnonzero(where == "train")
    parts: dict[str, np.ndarray] = {}
    if p.split == "identities":
        if "identity" not in catalogue.attributes:
            raise AimfairError(
                f"split: identities needs the identities of {p.dataset}: put identity_CelebA.txt beside the list"
            )
        mine, external = sampling.by_identity(catalogue.attributes["identity"].to_numpy()[candidates])
        candidates, parts["corpus"] = candidates[mine], candidates[external]
    quota = sampling.biased_quota(target[candidates], protected[candidates], p.train_images, p.minority)
    parts["train"] = candidates[quota]
    validation = np.flatnonzero(where == "validation")
    parts["validation"] = validation[: p.validation_images or None]
    parts["test"] = np.flatnonzero(where == "test")
    return parts


class Material:
    """The faces that a profile means on this machine. Nothing is read or generated before it is asked for."""

    def __init__(self, profile: Profile, device: str = "auto", data_root: str = "") -> None:
        """See :func:`aimfair.study.open_study`."""
        self.profile = profile
        self.device = environment.choose_device(device)
        self.data_root = data_root

    @cached_property
    def catalogue(self) -> Catalogue:
        """Names and attributes of the profile's data set."""
        return datasets.load(self.profile.dataset, str(resolve(self.data_root)) if self.data_root else None)

    @cached_property
    def split(self) -> dict[str, np.ndarray]:
        """Indices of the biased training set, the validation set and the test set, and of the external corpus."""
        return splits(self.catalogue, self.profile)

    def faces(self, split: str) -> FaceSet:
        """The faces of "train", "validation" or "test", decoded once and kept."""
        if split not in self._faces:
            p = self.profile
            self._faces[split] = self.catalogue.faces(self.split[split], p.target, p.protected, p.image_size)
        return self._faces[split]

    @cached_property
    def _faces(self) -> dict[str, FaceSet]:
        return {}

    @cached_property
    def pool(self) -> FaceSet:
        """The synthetic faces from which every seed draws: found on disk, or generated now (resumable)."""
        return synthetic_faces(self.profile, self.device, self.data_root)

    def selected(self, seed: int) -> FaceSet:
        """What of the pool a seed draws its sets from: all of it, or the faces that the profile's rule selects."""
        p = self.profile
        if p.selection == "none":
            return self.pool
        if seed not in self._selected:
            places = selection.select(p.selection, self._candidates, self.pool.groups, p.budget(), seed)
            self._selected[seed] = self.pool.subset(places)
        return self._selected[seed]

    @cached_property
    def _selected(self) -> dict[int, FaceSet]:
        return {}

    @cached_property
    def _candidates(self) -> selection.Candidates:
        p = self.profile
        judge = judge_of(p, self.device, self.data_root)
        names = {"target": p.target, "protected": p.protected}
        return selection.candidates(self.pool, judge, names, self.faces("train").images)

    def synthetic_sets(self, seed: int) -> tuple[FaceSet, FaceSet]:
        """The balanced set (a quarter of the real size per group, times the profile's ``synthetic_ratio``) and the biased
        set (of the real size, with the group shares that the profile assumes) of a seed.

        A pool that is too small for these sizes gives smaller sets with the same shares.
        """
        pool, n = self.selected(seed), len(self.split["train"])
        target, protected = pool.target.numpy(), pool.protected.numpy()  # type: ignore[union-attr]
        smallest, shares = min(pool.counts()), np.array(self.profile.shares())
        each = min(int(self.profile.synthetic_ratio * n) // 4, smallest)
        balanced = sampling.per_group(target, protected, [each] * 4, seed)
        size = min(n, int(smallest / shares.max()))
        biased = sampling.per_group(target, protected, np.round(size * shares).astype(int).tolist(), seed + 1)
        return pool.subset(balanced), pool.subset(biased)

    def edited(self, draw: int, weakest: float, strongest: float) -> FaceSet:
        """The training faces redrawn by the generator, see :func:`aimfair.study.pool.edited_faces`: found on disk, or made now.

        They are the same for every seed, as the training faces are.
        """
        key = (draw, weakest, strongest)
        if key not in self._edited:
            self._edited[key] = edited_faces(
                self.profile,
                self.faces("train").without_protected(),
                self.device,
                self.data_root,
                draw=draw,
                weakest=weakest,
                strongest=strongest,
            )
        return self._edited[key]

    @cached_property
    def _edited(self) -> dict[tuple[int, float, float], FaceSet]:
        return {}
