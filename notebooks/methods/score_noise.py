"""The noise of AIM-Fair's gradient scores: the gap between two halves of the same faces has nothing else behind it.

Measure it with ``aimfair measure score-noise``; ``notebooks/beyond/stability.py`` compares the scores with it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from aimfair import gradients
from aimfair.faces import FaceSet


def halves(faces: FaceSet, seed: int) -> tuple[FaceSet, FaceSet]:
    """Two halves without a common face, alike in groups, or in targets where the protected label is withheld."""
    kind = faces.target if faces.protected is None else faces.groups
    order = torch.randperm(len(faces), generator=torch.Generator().manual_seed(seed))
    ordered = order[kind[order].argsort(stable=True)]  # by kind, at random within
    return faces.subset(ordered[::2]), faces.subset(ordered[1::2])


def half_gap(model: nn.Module, faces: FaceSet, seed: int, **options: Any) -> dict[str, float]:
    """Gap between the mean gradients of two halves of the same faces, per tensor.

    options  of :func:`aimfair.gradients.mean_gradients`
    """
    first, second = (
        gradients.mean_gradients(model, part, seed=seed + i, **options)
        for i, part in enumerate(halves(faces, seed))
    )
    return gradients.gap(first, second)


def score_noise(study: Any, seed: int) -> dict[str, Any]:
    """Half gaps of the "real", the "biased" and the "balanced" synthetic faces, in the official form."""
    from aimfair.study.measurements import official

    model, (balanced, biased) = study.biased_model(seed), study.synthetic_sets(seed)
    real = study.faces("train").without_protected()
    sets = {"real": real, "biased": biased, "balanced": balanced}
    return {
        name: half_gap(model, faces, seed, **official(study)) for name, faces in sets.items()
    }


MEASUREMENTS = {"score-noise": score_noise}
