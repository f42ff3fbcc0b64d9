"""CVaR DRO: descend on the mean of the worst share of the losses, whoever has them."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from aimfair.environment import AimfairError
from aimfair.methods import Bench, Fitted, Method
from aimfair.methods.erm import from_scratch
from aimfair.training import Loss


def worst_share(losses: Tensor, alpha: float) -> Tensor:
    """Weights (m,), at most 1 / (alpha m) each and 1 together, that make the weighted sum of ``losses`` largest.

    The floor(alpha m) worst losses get all they may, the next the remainder; alpha 1 is the mean, alpha <= 1/m the max.
    """
    m = len(losses)
    k = int(alpha * m + 1e-9)  # .29 * 100 is 28.9999...
    weights = torch.zeros_like(losses)
    order = losses.argsort(descending=True, stable=True)
    weights[order[:k]] = 1 / (alpha * m)
    if k < m:
        weights[order[k]] = 1 - k / (alpha * m)
    return weights


def smooth_share(losses: Tensor, alpha: float, reg: float) -> tuple[Tensor, Tensor]:
    """The same with a price ``reg * KL(weights || uniform)``: ``min(exp((l - eta) / reg), 1 / alpha) / m``, and eta.

    The weights' sum falls with eta, so bisection finds the eta that makes it 1: with the cap on none it is
    ``reg * log mean exp(l / reg)``, which is the upper end; with the cap on all the sum is 1 / alpha >= 1, the lower.
    """
    scaled, m = losses.double() / reg, len(losses)

    def weights(eta: Tensor) -> Tensor:
        return (scaled - eta).exp().clamp(max=1 / alpha) / m

    low = scaled.min() + math.log(alpha)
    high = scaled.logsumexp(0) - math.log(m)
    for _ in range(60):
        middle = (low + high) / 2
        too_low = weights(middle).sum() > 1
        low, high = torch.where(too_low, middle, low), torch.where(too_low, high, middle)
    return weights(high).to(losses.dtype), (reg * high).to(losses.dtype)


def cvar(losses: Tensor, alpha: float, reg: float = 0.0) -> Tensor:
    """Conditional value at risk of a batch of losses (m,), smoothed where ``reg`` > 0.

    No gradient passes through the weights: they maximise, so their own change does not count (envelope theorem).
    """
    if reg == 0:
        return (worst_share(losses.detach(), alpha) * losses).sum()
    weights, _ = smooth_share(losses.detach(), alpha, reg)
    return (weights * losses).sum() - reg * torch.special.xlogy(weights, weights * len(losses)).sum()


def cvar_loss(alpha: float, reg: float = 0.0) -> Loss:
    """The training loss. Raises AimfairError unless 0 < alpha <= 1 and reg >= 0."""
    if not 0 < alpha <= 1 or reg < 0:
        raise AimfairError(f"CVaR DRO needs 0 < alpha <= 1 and reg >= 0, got alpha {alpha} and reg {reg}")
    return lambda logits, target, index: cvar(
        F.binary_cross_entropy_with_logits(logits, target, reduction="none"), alpha, reg
    )


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """As ERM with the CVaR of each mini-batch in place of its mean.

    alpha  share of the batch that counts; 1 is ERM. Where about half of a batch or less counts, the descent from random
           weights stays at a constant answer: one class is wrong everywhere, and its faces are all that counts. So it is
           .7 by default and searched from .5; SubpopBench's default, with ImageNet weights, is .1
    reg    0 (default): CVaR itself; more: the smooth variant of the same code, which goes to ERM as reg grows
    The released code cuts at ``int(alpha * m)`` without a tolerance for rounding; its dual and chi-square variants are not
    here.
    """
    return from_scratch(bench, f"CVaR DRO alpha={hyper['alpha']}", loss=cvar_loss(hyper["alpha"], hyper["reg"]))


METHOD = Method(
    name="cvar-dro",
    title="CVaR DRO",
    source="Levy et al., NeurIPS 2020, arXiv 2010.05893; Table 1",
    start="scratch",
    fit=fit,
    defaults={"alpha": 0.7, "reg": 0.0},
    search={"alpha": (0.5, 0.6, 0.7, 0.8, 0.9)},
)
