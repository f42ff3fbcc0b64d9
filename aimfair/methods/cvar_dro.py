"""CVaR DRO: descend on the mean of the worst share of the losses, whoever has them."""

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


def cvar(losses: Tensor, alpha: float) -> Tensor:
    """Conditional value at risk of a batch of losses (m,): the mean of the worst share ``alpha`` of them.

    No gradient passes through the weights: they maximise, so their own change does not count (envelope theorem).
    """
    return (worst_share(losses.detach(), alpha) * losses).sum()


def cvar_loss(alpha: float) -> Loss:
    """The training loss. Raises AimfairError unless 0 < alpha <= 1."""
    if not 0 < alpha <= 1:
        raise AimfairError(f"CVaR DRO needs 0 < alpha <= 1, got {alpha}")
    return lambda logits, target, index: cvar(
        F.binary_cross_entropy_with_logits(logits, target, reduction="none"), alpha
    )


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """As ERM with the CVaR of each mini-batch in place of its mean.

    alpha  share of the batch that counts; 1 is ERM. Where about half of a batch or less counts, the descent from random
           weights stays at a constant answer: one class is wrong everywhere, and its faces are all that counts. So it is
           .7 by default and searched from .5; SubpopBench's default, with ImageNet weights, is .1
    The released code cuts at ``int(alpha * m)`` without a tolerance for rounding; its smooth, dual and chi-square variants
    are not here.
    """
    return from_scratch(bench, f"CVaR DRO alpha={hyper['alpha']}", loss=cvar_loss(hyper["alpha"]))


METHOD = Method(
    name="cvar-dro",
    title="CVaR DRO",
    source="Levy et al., NeurIPS 2020, arXiv 2010.05893; Table 1",
    start="scratch",
    fit=fit,
    defaults={"alpha": 0.7},
    fixed={"reg": 0.0},
    search={"alpha": (0.5, 0.6, 0.7, 0.8, 0.9)},
)
