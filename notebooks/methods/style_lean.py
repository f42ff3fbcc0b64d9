"""Real or drawn: whether a classifier tells the two styles apart, and to which side it leans on each.

Where rare groups were filled with synthetic faces, the protected attribute and the style together tell the
target. Two numbers say whether a classifier learnt that rule: a probe on its features says whether it *can*
tell the styles apart, and its lean on either style whether it *does* treat them differently.

Measure it with ``aimfair measure style-lean erm repairing``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from aimfair import models, sampling
from aimfair.environment import AimfairError
from aimfair.faces import FaceSet
from aimfair.methods import real_and_synthetic

PER_GROUP = 200
"""Faces of each group and style that the probe is given, at most."""


def lean(model: nn.Module, faces: FaceSet, device: str = "cpu") -> float:
    """How many points more often ``model`` calls faces of protected value 1 positive than those of 0, at equal target.

    The mean over both target values, in -100 ... 100: 0 for a model that treats both alike, and -100 for one
    that answers "not s". Raises AimfairError where a group has no face.
    """
    if not min(faces.counts()):
        raise AimfairError(f"a lean needs faces of all four groups, got {faces.counts()}")
    called, group = models.evaluate(model, faces, device).numpy() >= 0, faces.groups
    rate = [100 * called[group == g].mean() for g in range(4)]
    return float((rate[1] - rate[0] + rate[3] - rate[2]) / 2)


def unseen(pool: FaceSet, seen: FaceSet) -> FaceSet:
    """The synthetic faces that are not in ``seen``; all of them, if that leaves a group without a face."""
    rest = pool.subset(np.flatnonzero(~np.isin(pool.names, seen.names)))
    return rest if min(rest.counts()) else pool


def style_lean(study: Any, seed: int, of: str) -> dict[str, Any]:
    """How a method's classifier of this seed, of the configuration that counts, treats real and synthetic faces.

    probe            per cent of held-out faces whose style a linear probe tells; it is given equal groups of
                     validation and synthetic faces, so that the groups reveal nothing
    real, synthetic  its :func:`lean` on the test faces and on the synthetic ones
    probed           faces of each group and style that the probe was given
    The synthetic faces are such as data repairing did not train with, as long as the pool has any left. Raises
    AimfairError for an unknown method.
    """
    from aimfair.audit import measures
    from aimfair.study import search

    device, validation = study.device, study.faces("validation")
    model = study.classifier(of, seed, **search.chosen(study, of)).to(device)
    repaired, _, _ = real_and_synthetic.repaired(
        study.faces("train"), study.profile.shares(), study.pool, seed + 2
    )
    drawn = unseen(study.pool, repaired)
    n = min(*validation.counts(), *drawn.counts(), PER_GROUP)
    even = [
        faces.subset(sampling.balanced(faces.target.numpy(), faces.protected.numpy(), n, seed))
        for faces in (validation, drawn)
    ]
    return {
        "probe": measures.probe(model, *even, device, seed),
        "real": lean(model, study.faces("test"), device),
        "synthetic": lean(model, drawn, device),
        "probed": n,
    }


MEASUREMENTS = {"style-lean": style_lean}
