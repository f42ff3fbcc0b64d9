"""Which tensors to fine-tune: top-k of two rankings, intersected (Eq. 5-7)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from torch import nn

from aimfair.environment import AimfairError


def select(domain_gap: Mapping[str, float], bias_gap: Mapping[str, float], k: int, rankings: str = "both") -> set[str]:
    """The tensors that hardly feel the domain gap and strongly feel the bias.

    domain_gap  distance of the gradients on biased real and biased synthetic faces: the k smallest are kept
    bias_gap    distance of the gradients on biased and balanced synthetic faces: the k largest are kept
    k           1 to the number of tensors; with all of them the selection is everything: full fine-tuning
    rankings    "both", or one alone: "bias" needs no assumed bias ratio: a mean gradient is linear in the group
                shares, so the ratio scales all its scores alike; "domain"

    Equal scores are ordered by name, so that the result never depends on the order of the mappings. Between
    ``max(0, 2k - n)`` and ``k`` of n tensors are selected; the set may be empty. Only ranks matter: scaling
    all gradients by a constant changes nothing. Raises AimfairError for mappings that differ, a score that is
    not finite, k out of range or unknown rankings.
    """
    if domain_gap.keys() != bias_gap.keys():
        raise AimfairError("the two scores must name the same tensors")
    if not 1 <= k <= len(domain_gap):
        raise AimfairError(f"k must be between 1 and the {len(domain_gap)} tensors of the model, got {k}")
    if not np.isfinite([*domain_gap.values(), *bias_gap.values()]).all():
        raise AimfairError("a gradient score is not finite: the biased model or its gradients diverged")
    least_domain = sorted(domain_gap, key=lambda name: (domain_gap[name], name))[:k]
    most_bias = sorted(bias_gap, key=lambda name: (-bias_gap[name], name))[:k]
    kept = {"both": {*least_domain} & {*most_bias}, "domain": {*least_domain}, "bias": {*most_bias}}
    if rankings not in kept:
        raise AimfairError(f"rankings must be one of {', '.join(kept)}, got {rankings!r}")
    return kept[rankings]


def scaled(k: int, tensors: int) -> int:
    """``k``, counted on ResNet-18's 62 tensors, as the same share of a network's ``tensors``.

    55 stays 55 there and becomes 135 of a ViT-S/32's 152: the paper gives no k for its ViT.
    """
    return round(k * tensors / 62)


def random_mask(names: Collection[str], size: int, seed: int) -> set[str]:
    """``size`` of the tensors, uniformly at random, from a generator of its own: the control for any mask."""
    if not 1 <= size <= len(names):
        raise AimfairError(f"a random mask needs between 1 and {len(names)} tensors, got {size}")
    return set(np.random.default_rng([seed, 8128]).choice(sorted(names), size, replace=False).tolist())


def scalar_share(model: nn.Module, mask: set[str]) -> float:
    """Share of the model's single weights that lie in the tensors of ``mask``: a quarter of ResNet-18's tensors
    (layer4) holds three quarters of its weights."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    return sum(sizes[name] for name in mask) / sum(sizes.values())


def jaccard(first: set[str], second: set[str]) -> float:
    """Overlap of two masks: size of the intersection over size of the union, 1 for two empty masks."""
    union = first | second
    return len(first & second) / len(union) if union else 1.0


def rank_correlation(domain_gap: Mapping[str, float], bias_gap: Mapping[str, float]) -> float:
    """Spearman correlation of the two scores over the tensors, -1 to 1.

    Near 1 the two rankings compete: what hardly feels the domain gap hardly feels the bias either, and the
    selection drops the tensors with the largest and the smallest gradients.
    """
    from scipy.stats import spearmanr

    names = sorted(domain_gap)
    return float(spearmanr([domain_gap[n] for n in names], [bias_gap[n] for n in names]).statistic)
