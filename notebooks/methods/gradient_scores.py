"""AIM-Fair by other scores: differences relative to the length of the gradients, or to what chance alone makes of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from aimfair import masks
from aimfair.environment import AimfairError
from aimfair.faces import FaceSet
from aimfair.gradients import Gradients, gap, mean_gradients
from aimfair.methods import CHECKPOINT_RULE, Bench, Fitted
from aimfair.methods.aim_fair import AIM_FAIR
from aimfair.methods.finetuning import finetune, three_gradients
from aimfair.repairing import Gaps, choose_mask
from aimfair.training import batches

Moments = tuple[Gradients, Gradients]
"""Mean gradient of each tensor, and element by element the variance of that mean; float64."""


def moments(
    model: nn.Module, faces: FaceSet, *, batch_size: int = 128, seed: int = 0, **options: Any
) -> Moments:
    """Mean over batches of the batches' gradients, and the variance of this mean.

    The faces are cut into shuffled full batches, of which each is a draw from the same distribution: the variance is
    that between B batches, divided by B. ``options`` are those of :func:`aimfair.gradients.mean_gradients`; in mode
    "train" every batch has crops and flips of its own. Raises AimfairError where there are fewer than two batches.
    """
    drawn = torch.randperm(len(faces), generator=torch.Generator().manual_seed(seed))
    parts = list(batches(drawn, batch_size))
    if len(parts) < 2:
        raise AimfairError(
            f"{len(faces)} faces are less than two batches of {batch_size}: no variance can be estimated"
        )
    total: Gradients = {}
    squares: Gradients = {}
    for number, part in enumerate(parts):
        of_batch = {"batch_size": batch_size, "seed": seed * 1_000_003 + number, **options}
        for name, gradient in mean_gradients(model, faces.subset(part), **of_batch).items():
            total[name] = total.get(name, 0) + gradient.double()
            squares[name] = squares.get(name, 0) + gradient.double() ** 2
    n = len(parts)
    mean = {name: value / n for name, value in total.items()}
    variance = {
        name: (squares[name] / n - mean[name] ** 2).clamp_min(0) / (n - 1) for name in mean
    }
    return mean, variance


def signal_to_noise(first: Moments, second: Moments) -> dict[str, float]:
    """Per tensor, the length of the difference of two mean gradients over its standard error.

    ``|m1 - m2| / sqrt(sum(v1 + v2))``, Euclidean over the tensor's elements. The square is 1 on average where both sets
    of faces are drawn from one distribution: about 1 means that no difference was found. The unit of the gradients, and
    so the size of a tensor, cancels. Two sets with faces in common differ less by chance than is assumed here. A tensor
    without any gradient counts 0. Raises AimfairError for different tensors.
    """
    (m1, v1), (m2, v2) = first, second
    if m1.keys() != m2.keys():
        raise AimfairError("the two gradients do not name the same tensors")
    noise = {name: (v1[name] + v2[name]).sum().item() ** 0.5 for name in m1}
    return {
        name: (m1[name] - m2[name]).norm().item() / (noise[name] or sys.float_info.min)
        for name in m1
    }


def finetune_by(bench: Bench, hyper: Mapping[str, Any], gaps: Gaps, what: str) -> Fitted:
    """AIM-Fair's selection by other gaps, and the fine-tuning of what it selects."""
    mask = choose_mask(*gaps, hyper["k"])
    fitted = finetune(bench, hyper, mask, f"AIM-Fair, {what}, k={hyper['k']}")
    fitted.scores |= {"mask": sorted(mask), "rank_correlation": masks.rank_correlation(*gaps)}
    return fitted


def fit_relative(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """As :mod:`aimfair.methods.aim_fair`, with differences relative to the size of the gradients (score "relative"), so that
    short tensors do not lead both rankings. The gaps are measured here and now: three passes.

    ``k`` and ``gradients`` mean the same there.
    """
    on_real, on_biased, on_balanced = three_gradients(bench, hyper["gradients"])
    gaps = gap(on_real, on_biased, "relative"), gap(on_biased, on_balanced, "relative")
    return finetune_by(bench, hyper, gaps, "relative")


def fit_noise(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """As :mod:`aimfair.methods.aim_fair`, with both gaps divided by their standard errors; three passes of its own.

    :func:`fit_relative` divides by the length of the gradients, which takes away the scale as well; a tensor whose
    gradients change from batch to batch still leads there. ``k`` and ``gradients`` mean the same. The two gaps per tensor
    are kept in ``scores["noise_gaps"]``: about 1 is what chance would show.
    """
    on_real, on_biased, on_balanced = three_gradients(bench, hyper["gradients"], moments)
    gaps = signal_to_noise(on_real, on_biased), signal_to_noise(on_biased, on_balanced)
    fitted = finetune_by(bench, hyper, gaps, "noise-scaled")
    fitted.scores["noise_gaps"] = [
        {name: round(value, 3) for name, value in of.items()} for of in gaps
    ]
    return fitted


RELATIVE = replace(
    AIM_FAIR,
    name="aim-fair-relative",
    title="AIM-Fair (relative)",
    source="an ablation of this book",
    fit=fit_relative,
    defaults={name: value for name, value in AIM_FAIR.defaults.items() if name != "score"},
    options=CHECKPOINT_RULE,
    beyond=True,
)
NOISE = replace(
    RELATIVE,
    name="aim-fair-noise",
    title="AIM-Fair (noise-scaled)",
    source="an extension of this book",
    fit=fit_noise,
)
METHODS = (RELATIVE, NOISE)
