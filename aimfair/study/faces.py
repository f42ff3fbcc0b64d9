"""Which faces a study has: the splits of its real ones, and the synthetic sets that a seed draws."""

from __future__ import annotations

import numpy as np

from aimfair import sampling
from aimfair.datasets import Catalogue
from aimfair.environment import AimfairError
from aimfair.faces import FaceSet
from aimfair.study.profiles import Profile


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
    parts["train"] = candidates[
        sampling.biased_quota(target[candidates], protected[candidates], p.train_images, p.minority)
    ]
    parts["validation"] = np.flatnonzero(where == "validation")[: p.validation_images or None]
    parts["test"] = np.flatnonzero(where == "test")
    return parts


def synthetic_sets(pool: FaceSet, p: Profile, real: int, seed: int) -> tuple[FaceSet, FaceSet]:
    """The balanced and the biased set that a seed draws from a pool, for ``real`` training faces.

    The balanced one has a quarter of their number per group, times the profile's ``synthetic_ratio``; the biased one has
    their number, with the group shares that the profile assumes. A pool that is too small gives smaller sets with the
    same shares.
    """
    target, protected = pool.target.numpy(), pool.protected.numpy()  # type: ignore[union-attr]
    smallest, shares = min(pool.counts()), np.array(p.shares())
    each = min(int(p.synthetic_ratio * real) // 4, smallest)
    balanced = sampling.per_group(target, protected, [each] * 4, seed)
    size = min(real, int(smallest / shares.max()))
    biased = sampling.per_group(target, protected, np.round(size * shares).astype(int).tolist(), seed + 1)
    return pool.subset(balanced), pool.subset(biased)
