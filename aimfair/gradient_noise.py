"""How far two mean gradients lie apart, measured by what chance alone would make of it."""

from __future__ import annotations

import sys

import torch

from aimfair.environment import AimfairError
from aimfair.faces import FaceSet
from aimfair.gradients import Gradients, mean_gradients
from aimfair.training import batches

Moments = tuple[Gradients, Gradients]
"""Mean gradient of each tensor, and element by element the variance of that mean; float64."""


def moments(
    model: torch.nn.Module, faces: FaceSet, *, batch_size: int = 128, seed: int = 0, **options: object
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
        found = mean_gradients(
            model,
            faces.subset(part),
            batch_size=batch_size,
            seed=seed * 1_000_003 + number,
            **options,  # type: ignore[arg-type]
        )
        for name, gradient in found.items():
            total[name] = total.get(name, 0) + gradient.double()
            squares[name] = squares.get(name, 0) + gradient.double() ** 2
    n = len(parts)
    mean = {name: value / n for name, value in total.items()}
    variance = {name: (squares[name] / n - mean[name] ** 2).clamp_min(0) / (n - 1) for name in mean}
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
    return {name: _ratio((m1[name] - m2[name]).norm().item(), (v1[name] + v2[name]).sum().item()) for name in m1}


def _ratio(length: float, variance: float) -> float:
    return length / (variance**0.5 or sys.float_info.min)
