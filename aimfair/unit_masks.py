"""Masks finer than tensors: output channels or single weights, chosen by the same two gaps as AIM-Fair's tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from aimfair.environment import AimfairError

UNITS = ("channel", "scalar")
"""A channel is a slice along the first dimension of a tensor: the weights of one output channel of a convolution or a
linear layer, one entry of a bias or of a batch norm's scale or shift. A scalar is a single weight."""


def unit_sizes(tensors: Mapping[str, Tensor], unit: str) -> Tensor:
    """Weights in each unit of ``tensors``, tensor after tensor: (units,) int64. Raises AimfairError for an unknown unit."""
    if unit not in UNITS:
        raise AimfairError(f"unit must be one of {', '.join(UNITS)}, got {unit!r}")
    counts = [(t.shape[0], t[0].numel()) if unit == "channel" else (t.numel(), 1) for t in tensors.values()]
    return torch.cat([torch.full((units,), weights) for units, weights in counts])


def unit_gaps(first: Mapping[str, Tensor], second: Mapping[str, Tensor], unit: str) -> Tensor:
    """Mean of |first - second| over the weights of each unit: (units,), in the order of :func:`unit_sizes`."""
    difference = torch.cat([(first[name] - second[name]).abs().double().flatten() for name in first])
    sizes = unit_sizes(first, unit)
    owner = torch.arange(len(sizes)).repeat_interleave(sizes)
    return torch.zeros(len(sizes), dtype=torch.float64).index_add_(0, owner, difference) / sizes


def worse_rank(domain_gap: Tensor, bias_gap: Tensor) -> Tensor:
    """The worse of a unit's two ranks, from 0: by the smallest domain gap and by the largest bias gap; (units,) int64.

    Units below k are the intersection of both top-k. Equal gaps are ranked by place. Raises AimfairError for a gap that
    is not finite.
    """
    if not (torch.isfinite(domain_gap).all() and torch.isfinite(bias_gap).all()):
        raise AimfairError("a gradient gap is not finite: the biased model or its gradients diverged")
    places = torch.arange(len(domain_gap))
    ranks = []
    for score in (domain_gap, -bias_gap):
        rank = torch.empty_like(places)
        rank[torch.argsort(score, stable=True)] = places
        ranks.append(rank)
    return torch.maximum(*ranks)


def within(order: Tensor, sizes: Tensor, budget: int) -> Tensor:
    """The first units of ``order`` that together have at most ``budget`` weights, as a mask: (units,) bool.

    Single weights meet the budget exactly, channels miss it by less than the next channel.
    """
    chosen = torch.zeros(len(sizes), dtype=torch.bool)
    chosen[order[sizes[order].cumsum(0) <= budget]] = True
    return chosen


def spread(chosen: Tensor, tensors: Mapping[str, Tensor], unit: str) -> dict[str, Tensor]:
    """The chosen units as a mask of bool per tensor, of its shape. Raises AimfairError where none is chosen."""
    if not chosen.any():
        raise AimfairError("the mask is empty: no weight is left to fine-tune; choose a larger k")
    weights = chosen.repeat_interleave(unit_sizes(tensors, unit))
    parts = weights.split([tensor.numel() for tensor in tensors.values()])
    return {name: part.reshape(tensor.shape) for (name, tensor), part in zip(tensors.items(), parts, strict=True)}
