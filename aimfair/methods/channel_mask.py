"""AIM-Fair with a finer mask: it ranks output channels in place of whole tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from scipy.stats import spearmanr

from aimfair import masks
from aimfair.environment import AimfairError
from aimfair.methods import CHECKPOINT_RULE, Bench, Fitted, Method, aim_fair
from aimfair.methods._gradients import three_gradients
from aimfair.methods._partial import finetune_elements
from aimfair.unit_masks import spread, unit_gaps, unit_sizes, within, worse_rank


def selective(bench: Bench, hyper: Mapping[str, Any], unit: str) -> Fitted:
    """Rank units by both gaps, keep the intersection of both tops, fine-tune those weights and no other.

    k          of AIM-Fair's tensors, counted on ResNet-18's 62, which the mask is as large as; see ``size``
    size       "weights": both tops are as long as it takes for their intersection to have as many weights as AIM-Fair's
               mask of this seed, so that the two differ in granularity alone; "share": k/62 of all units each
    ranking    "gaps", or as a control "random": as many weights, the ``draw``-th order of the units by lot
    lr, batchnorm  see :func:`aimfair.methods._finetune.schedule`
    gradients  as in :mod:`aimfair.methods.aim_fair`; three passes of their own, since the bench knows only tensors
    The gap of a unit is the mean absolute difference of its weights' mean gradients, as Eq. 4 has it for tensors.
    Raises AimfairError for an unknown word, and for an empty mask.
    """
    for name, known in (("size", ("weights", "share")), ("ranking", ("gaps", "random"))):
        if hyper[name] not in known:
            raise AimfairError(f"{name} must be {' or '.join(known)}, got {hyper[name]!r}")
    on_real, on_biased, on_balanced = three_gradients(bench, hyper["gradients"])
    domain_gap, bias_gap = unit_gaps(on_real, on_biased, unit), unit_gaps(on_biased, on_balanced, unit)
    rank, sizes = worse_rank(domain_gap, bias_gap), unit_sizes(on_real, unit)
    if hyper["size"] == "share":
        chosen = rank < round(len(rank) * hyper["k"] / 62)
    else:
        tensors = masks.select(*bench.gaps("absolute", hyper["gradients"]), masks.scaled(hyper["k"], len(on_real)))
        chosen = within(torch.argsort(rank, stable=True), sizes, sum(on_real[name].numel() for name in tensors))
    if hyper["ranking"] == "random":
        lot = torch.Generator().manual_seed(1000 * bench.seed + hyper["draw"])
        chosen = within(torch.randperm(len(sizes), generator=lot), sizes, int(sizes[chosen].sum()))
    elements = spread(chosen, on_real, unit)
    fitted = finetune_elements(bench, hyper, elements, what=f"{unit} mask")
    fitted.scores |= {
        "scalar_share": int(sizes[chosen].sum()) / int(sizes.sum()),
        "tensor_shares": {name: round(mask.double().mean().item(), 4) for name, mask in elements.items()},
        "rank_correlation": float(spearmanr(domain_gap, bias_gap).statistic),
    }
    return fitted


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """See :func:`selective`; a channel is what :data:`aimfair.unit_masks.UNITS` says."""
    return selective(bench, hyper, "channel")


METHOD = Method(
    name="channel-mask",
    title="AIM-Fair, channels",
    source="an extension of this book",
    start="biased model",
    fit=fit,
    needs=frozenset({"synthetic"}),
    defaults={
        **{name: value for name, value in aim_fair.METHOD.defaults.items() if name != "score"},
        "size": "weights",
        "ranking": "gaps",
        "draw": 0,
    },
    search=aim_fair.METHOD.search,
    options=CHECKPOINT_RULE,
    beyond=True,
)
