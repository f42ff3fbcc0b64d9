"""AIM-Fair with finer masks: it ranks output channels or single weights, by the same two gaps, in place of whole tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor

from aimfair.environment import AimfairError
from aimfair.methods import CHECKPOINT_RULE, Bench, Fitted
from aimfair.methods.aim_fair import AIM_FAIR
from aimfair.methods.finetuning import finetune, three_gradients
from aimfair.repairing import choose_mask

UNITS = ("channel", "scalar")
"""A channel is a slice along the first dimension of a tensor: the weights of one output channel of a convolution or a
linear layer, one entry of a bias or of a batch norm's scale or shift. A scalar is a single weight."""


def unit_sizes(tensors: Mapping[str, Tensor], unit: str) -> Tensor:
    """Weights in each unit of ``tensors``, tensor after tensor: (units,) int64. Raises AimfairError for an unknown unit."""
    if unit not in UNITS:
        raise AimfairError(f"unit must be one of {', '.join(UNITS)}, got {unit!r}")
    counts = [
        (t.shape[0], t[0].numel()) if unit == "channel" else (t.numel(), 1)
        for t in tensors.values()
    ]
    return torch.cat([torch.full((units,), weights) for units, weights in counts])


def unit_gaps(first: Mapping[str, Tensor], second: Mapping[str, Tensor], unit: str) -> Tensor:
    """Mean of |first - second| over the weights of each unit: (units,), in the order of :func:`unit_sizes`."""
    difference = torch.cat(
        [(first[name] - second[name]).abs().double().flatten() for name in first]
    )
    sizes = unit_sizes(first, unit)
    owner = torch.arange(len(sizes)).repeat_interleave(sizes)
    return torch.zeros(len(sizes), dtype=torch.float64).index_add_(0, owner, difference) / sizes


def worse_rank(domain_gap: Tensor, bias_gap: Tensor) -> Tensor:
    """The worse of a unit's two ranks, from 0: by the smallest domain gap and by the largest bias gap; (units,) int64.

    Units below k are the intersection of both top-k. Equal gaps are ranked by place. Raises AimfairError for a gap that
    is not finite.
    """
    if not (torch.isfinite(domain_gap).all() and torch.isfinite(bias_gap).all()):
        raise AimfairError(
            "a gradient gap is not finite: the biased model or its gradients diverged"
        )
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
        raise AimfairError(
            "the mask is empty: no weight is left to fine-tune; choose a larger k"
        )
    weights = chosen.repeat_interleave(unit_sizes(tensors, unit))
    parts = weights.split([tensor.numel() for tensor in tensors.values()])
    return {
        name: part.reshape(tensor.shape)
        for (name, tensor), part in zip(tensors.items(), parts, strict=True)
    }


def fit(bench: Bench, hyper: Mapping[str, Any], unit: str) -> Fitted:
    """Rank units by both gaps, keep the intersection of both tops, fine-tune those weights and no other.

    k          of AIM-Fair's tensors, counted on ResNet-18's 62, which the mask is as large as; see ``size``
    size       "weights": both tops are as long as it takes for their intersection to have as many weights as AIM-Fair's
               mask of this seed, so that the two differ in granularity alone; "share": k/62 of all units each
    ranking    "gaps", or as a control "random": as many weights, the ``draw``-th order of the units by lot
    lr, batchnorm  see :func:`aimfair.methods.finetuning.schedule`
    gradients  as in :mod:`aimfair.methods.aim_fair`; three passes of their own, since the bench knows only tensors
    The gap of a unit is the mean absolute difference of its weights' mean gradients, as Eq. 4 has it for tensors.
    Raises AimfairError for an unknown word, and for an empty mask.
    """
    for name, known in (("size", ("weights", "share")), ("ranking", ("gaps", "random"))):
        if hyper[name] not in known:
            raise AimfairError(f"{name} must be {' or '.join(known)}, got {hyper[name]!r}")
    on_real, on_biased, on_balanced = three_gradients(bench, hyper["gradients"])
    domain_gap, bias_gap = (
        unit_gaps(on_real, on_biased, unit),
        unit_gaps(on_biased, on_balanced, unit),
    )
    rank, sizes = worse_rank(domain_gap, bias_gap), unit_sizes(on_real, unit)
    if hyper["size"] == "share":
        chosen = rank < round(len(rank) * hyper["k"] / 62)
    else:
        tensors = choose_mask(*bench.gaps("absolute", hyper["gradients"]), hyper["k"])
        chosen = within(
            torch.argsort(rank, stable=True),
            sizes,
            sum(on_real[name].numel() for name in tensors),
        )
    if hyper["ranking"] == "random":
        lot = torch.Generator().manual_seed(1000 * bench.seed + hyper["draw"])
        chosen = within(
            torch.randperm(len(sizes), generator=lot), sizes, int(sizes[chosen].sum())
        )
    elements = spread(chosen, on_real, unit)
    fitted = finetune(bench, hyper, elements, f"{unit} mask")
    fitted.scores |= {
        "scalar_share": int(sizes[chosen].sum()) / int(sizes.sum()),
        "tensor_shares": {
            name: round(mask.double().mean().item(), 4) for name, mask in elements.items()
        },
        "rank_correlation": float(spearmanr(domain_gap, bias_gap).statistic),
    }
    return fitted


CHANNELS = replace(
    AIM_FAIR,
    name="channel-mask",
    title="AIM-Fair, channels",
    source="an extension of this book",
    fit=partial(fit, unit="channel"),
    defaults={
        **{name: value for name, value in AIM_FAIR.defaults.items() if name != "score"},
        "size": "weights",
        "ranking": "gaps",
        "draw": 0,
    },
    options=CHECKPOINT_RULE,
    beyond=True,
)
SCALARS = replace(
    CHANNELS,
    name="scalar-mask",
    title="AIM-Fair, single weights",
    fit=partial(fit, unit="scalar"),
)
METHODS = (CHANNELS, SCALARS)
