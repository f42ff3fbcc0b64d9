"""Real or drawn: whether a classifier tells the two apart, and to which side it leans on each.

Where rare groups were filled with synthetic faces, the protected attribute and the style together tell the target. Two
measures say whether a classifier learnt that rule: a probe on its features, for whether it *can* tell the styles apart,
and its lean on either, for whether it *does* treat them differently.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from aimfair import models, sampling
from aimfair.analysis import inspection
from aimfair.environment import AimfairError
from aimfair.faces import FaceSet

PER_GROUP = 200
"""Faces of each group and style that the probe is given, at most."""


def lean(model: nn.Module, faces: FaceSet, device: str = "cpu") -> float:
    """By how many points ``model`` calls faces of protected value 1 positive more often than those of 0, at equal target.

    The mean over both target values, in -100 ... 100; 0 for a model that treats both alike, and -100 for one that answers
    "not s". Raises AimfairError where a group has no face.
    """
    if not min(faces.counts()):
        raise AimfairError(f"a lean needs faces of all four groups, got {faces.counts()}")
    called, group = models.evaluate(model, faces, device).numpy() >= 0, faces.groups
    rate = [100 * called[group == g].mean() for g in range(4)]
    return float((rate[1] - rate[0] + rate[3] - rate[2]) / 2)


def treatment(
    model: nn.Module, validation: FaceSet, test: FaceSet, drawn: FaceSet, device: str = "cpu", seed: int = 0
) -> dict[str, Any]:
    """What ``model`` makes of the two styles.

    probe              per cent of held-out faces whose style a linear probe tells (:func:`aimfair.analysis.inspection.probe`),
                       of ``validation`` and ``drawn`` faces in equal groups, so that the groups give nothing away
    real, synthetic    its :func:`lean` on the ``test`` faces and on the ``drawn`` ones
    probed             faces of each group and style that the probe was given
    """
    n = min(*validation.counts(), *drawn.counts(), PER_GROUP)
    real, synthetic = (_even(faces, n, seed) for faces in (validation, drawn))
    return {
        "probe": inspection.probe(model, real, synthetic, device, seed),
        "real": lean(model, test, device),
        "synthetic": lean(model, drawn, device),
        "probed": n,
    }


def _even(faces: FaceSet, n: int, seed: int) -> FaceSet:
    target, protected = faces.target.numpy(), faces.protected.numpy()  # type: ignore[union-attr]
    return faces.subset(sampling.balanced(target, protected, n, seed))


def unseen(pool: FaceSet, seen: FaceSet) -> FaceSet:
    """The synthetic faces that are not in ``seen``; all of them, if that leaves a group without a face."""
    rest = pool.subset(np.flatnonzero(~np.isin(pool.names, seen.names)))
    return rest if min(rest.counts()) else pool
