"""The heart of MAPLE on fixed features: probabilities of keeping each sample, learned through the last step of ERM.

Zhou et al., ICML 2022, arXiv 2301.09819, as the released script for colour MNIST has it; there the inner problem is a
small network on all pixels, here a logistic regression, for which all derivatives have a closed form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from aimfair.environment import AimfairError, Diverged

OUTER = ("worst-group", "balanced")
"""The outer risk: the loss of the group that has the largest one, or the mean of the groups' losses."""

MOMENTUM, CLIP, COLDEST, EDGE = 0.9, 3.0, 0.03, 1e-6
"""Of the released script: momentum of the inner descent, largest norm of the outer gradient, the last temperature's
inverse; and how far the probabilities keep from 0 and 1 where their logarithm is taken."""


@dataclass
class Choice:
    """Which of the N samples to keep, (N,) bool; their probabilities (N,); the outer risk of every round; a note."""

    selected: Tensor
    probabilities: Tensor
    risks: list[float] = field(default_factory=list)
    note: str = ""


def choose(
    x: Tensor,
    y: Tensor,
    outside: tuple[Tensor, Tensor, Tensor],
    budget: float,
    outer: str = "worst-group",
    rounds: int = 30,
    inner_steps: int = 100,
    outer_lr: float = 1.5,
    start: float = 0.0,
    seed: int = 0,
) -> Choice:
    """Learn which samples of x (N, d) with labels y (N,) of {0, 1} to keep, about ``budget`` of them at most.

    outside  features (M, d), labels (M,) and groups (M,) of the samples on which the outer risk is measured
    start    a larger budget at the beginning, see :func:`budget_of`
    Raises AimfairError for an unknown risk, when the inner descent diverges or when something is not finite.
    """
    if outer not in OUTER:
        raise AimfairError(f"outer must be one of {', '.join(OUTER)}, got {outer!r}")
    if not x.isfinite().all():
        raise AimfairError("MAPLE: the features are not finite: has the training of the ERM model diverged?")
    x, y = x.double(), y.double()
    validation = (outside[0].double(), outside[1].double(), outside[2])
    generator = torch.Generator().manual_seed(seed)
    rate = 1 / curvature(x)
    start = max(start, budget)
    s = torch.full((len(x),), start / len(x), dtype=torch.float64)
    optimiser = torch.optim.Adam([s], outer_lr)
    choice = Choice(torch.ones(len(x), dtype=torch.bool), s)
    for t in range(rounds):
        mask, slope = draw(s, temperature(t / rounds), generator)
        if not mask.any():
            choice.note = f"no sample was left in round {t + 1}: the probabilities stay as they were then"
            break
        theta, before = descend(x[mask], y[mask], rate, inner_steps)
        risk, direction = outer_risk(theta, *validation, outer)
        choice.risks.append(risk)
        gradient = slope * hypergradient(x, y, mask.double(), before, direction, rate)
        if not gradient.isfinite().all():
            raise Diverged(f"MAPLE: the gradient of the outer risk is not finite in round {t + 1}")
        s.grad = gradient * min(1.0, CLIP / (gradient.norm().item() + EDGE))
        optimiser.step()
        s.copy_(project(s, budget_of(budget, start, t / rounds)))
    choice.selected, choice.probabilities = draw(s, temperature(1.0), generator)[0], s
    return choice


def project(s: Tensor, budget: float) -> Tensor:
    """The point of {0 <= s <= 1, sum(s) <= budget} nearest to s: clip(s - v, 0, 1) with the smallest v >= 0 that does."""
    if s.clamp(0, 1).sum() <= budget:
        return s.clamp(0, 1)
    low, high = 0.0, s.max().item()
    for _ in range(60):
        v = (low + high) / 2
        low, high = (v, high) if (s - v).clamp(0, 1).sum() > budget else (low, v)
    return (s - high).clamp(0, 1)


def budget_of(budget: float, start: float, progress: float) -> float:
    """The budget at ``progress`` (0 to 1): ``start``, which falls by a cubic to ``budget`` between 16 and 60 per cent."""
    left = 1 - min(1.0, max(0.0, (progress - 0.16) / (0.60 - 0.16)))
    return budget + (start - budget) * left**3


def temperature(progress: float) -> float:
    """What the logits of the masks are multiplied with: 1 at the beginning, 33 at the end."""
    return 1 / ((1 - COLDEST) * (1 - progress) + COLDEST)


def draw(s: Tensor, temperature: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(mask, slope): each sample is kept with probability s, (N,) bool; and d mask / d s, (N,), taken from a sigmoid.

    The sigmoid of ``temperature * (logit(s) + logistic noise)`` is rounded forwards and differentiated backwards
    (straight-through).
    """
    inside = s.clamp(EDGE, 1 - EDGE)
    noise = torch.rand(s.shape, generator=generator, dtype=s.dtype).clamp(EDGE, 1 - EDGE).logit()
    soft = torch.sigmoid(temperature * (inside.logit() + noise))
    return soft >= 0.5, temperature * soft * (1 - soft) / (inside * (1 - inside))


def curvature(x: Tensor) -> float:
    """The largest curvature that the mean cross-entropy of a logistic regression on x (N, d) can have."""
    return torch.linalg.eigvalsh(x.T @ x / len(x))[-1].item() / 4


def descend(x: Tensor, y: Tensor, rate: float, steps: int) -> tuple[Tensor, Tensor]:
    """Logistic regression by full-batch descent with momentum from 0: its weights (d,), and those before the last step.

    Raises AimfairError where it ends above the loss that it began with.
    """
    theta = before = velocity = torch.zeros(x.shape[1], dtype=x.dtype)
    for _ in range(steps):
        velocity = MOMENTUM * velocity + x.T @ (torch.sigmoid(x @ theta) - y) / len(x)
        before, theta = theta, theta - rate * velocity
    loss = F.binary_cross_entropy_with_logits(x @ theta, y).item()
    if not loss <= math.log(2) + EDGE:
        raise AimfairError(
            f"MAPLE: the inner regression diverges at rate {rate:.3g} (loss {loss:.3g}): are its features standardised?"
        )
    return theta, before


def outer_risk(theta: Tensor, x: Tensor, y: Tensor, groups: Tensor, outer: str) -> tuple[float, Tensor]:
    """The risk of the weights theta (d,), see :data:`OUTER`, and its gradient (d,); groups without a sample are left out."""
    theta = theta.clone().requires_grad_()
    losses = F.binary_cross_entropy_with_logits(x @ theta, y, reduction="none")
    means = torch.stack([losses[groups == g].mean() for g in groups.unique()])
    risk = means.max() if outer == "worst-group" else means.mean()
    return risk.item(), torch.autograd.grad(risk, theta)[0]


def hypergradient(x: Tensor, y: Tensor, mask: Tensor, before: Tensor, direction: Tensor, rate: float) -> Tensor:
    """d R / d mask (N,) through the last inner step alone, where the gradient of R at its end is ``direction`` (d,).

    The step descends on sum_i mask_i l_i / sum_i mask_i, so a sample's part is ``-rate / sum(mask)`` times the amount by
    which its own gradient along ``direction`` exceeds the weighted mean of all.
    """
    along = (torch.sigmoid(x @ before) - y) * (x @ direction)
    return -rate / mask.sum() * (along - (mask * along).sum() / mask.sum())
