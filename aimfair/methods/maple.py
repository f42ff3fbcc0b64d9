"""MAPLE: choose the training samples on which plain ERM becomes fair, by gradients through its last step. An oracle.

Zhou et al., ICML 2022, arXiv 2301.09819, as the released script for colour MNIST has it. There the inner problem is a
small network on all pixels; here it is a logistic regression on fixed features, for which all derivatives have a closed
form.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from aimfair.environment import AimfairError, Diverged
from aimfair.methods import Bench, Fitted, Method
from aimfair.methods.erm import from_scratch, shuffled
from aimfair.methods.inferred import wrong
from aimfair.models import evaluate

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
    rounds: int = 30,
    inner_steps: int = 100,
    outer_lr: float = 1.5,
    seed: int = 0,
) -> Choice:
    """Learn which samples of x (N, d) with labels y (N,) of {0, 1} to keep, about ``budget`` of them at most.

    outside  features (M, d), labels (M,) and groups (M,) of the samples on which the outer risk is measured
    The other settings are explained in :func:`fit`. Raises AimfairError where the inner descent diverges or a number is not
    finite.
    """
    if not x.isfinite().all():
        raise AimfairError("MAPLE: the features are not finite: has the training of the ERM model diverged?")
    x, y = x.double(), y.double()
    validation = (outside[0].double(), outside[1].double(), outside[2])
    generator = torch.Generator().manual_seed(seed)
    rate = 1 / curvature(x)
    s = torch.full((len(x),), budget / len(x), dtype=torch.float64)
    optimiser = torch.optim.Adam([s], outer_lr)
    choice = Choice(torch.ones(len(x), dtype=torch.bool), s)
    for t in range(rounds):
        mask, slope = draw(s, temperature(t / rounds), generator)
        if not mask.any():
            choice.note = f"no sample was left in round {t + 1}: the probabilities stay as they were then"
            break
        theta, before = descend(x[mask], y[mask], rate, inner_steps)
        risk, direction = outer_risk(theta, *validation)
        choice.risks.append(risk)
        gradient = slope * hypergradient(x, y, mask.double(), before, direction, rate)
        if not gradient.isfinite().all():
            raise Diverged(f"MAPLE: the gradient of the outer risk is not finite in round {t + 1}")
        s.grad = gradient * min(1.0, CLIP / (gradient.norm().item() + EDGE))
        optimiser.step()
        s.copy_(project(s, budget))
    choice.selected = draw(s, temperature(1.0), generator)[0]
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


def outer_risk(theta: Tensor, x: Tensor, y: Tensor, groups: Tensor) -> tuple[float, Tensor]:
    """The mean loss of the worst group that occurs, under the weights theta (d,), and its gradient (d,)."""
    theta = theta.clone().requires_grad_()
    losses = F.binary_cross_entropy_with_logits(x @ theta, y, reduction="none")
    risk = torch.stack([losses[groups == g].mean() for g in groups.unique()]).max()
    return risk.item(), torch.autograd.grad(risk, theta)[0]


def hypergradient(x: Tensor, y: Tensor, mask: Tensor, before: Tensor, direction: Tensor, rate: float) -> Tensor:
    """d R / d mask (N,) through the last inner step alone, where the gradient of R at its end is ``direction`` (d,).

    The step descends on sum_i mask_i l_i / sum_i mask_i, so a sample's part is ``-rate / sum(mask)`` times the amount by
    which its own gradient along ``direction`` exceeds the weighted mean of all.
    """
    along = (torch.sigmoid(x @ before) - y) * (x @ direction)
    return -rate / mask.sum() * (along - (mask * along).sum() / mask.sum())


def halves(groups: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of two halves of the faces with these groups (N,), every other face of each group in the first."""
    first = torch.zeros(len(groups), dtype=torch.bool)
    for group in groups.unique():
        first[torch.nonzero(groups == group).flatten()[::2]] = True
    return torch.nonzero(first).flatten(), torch.nonzero(~first).flatten()


def select(bench: Bench, outer: Tensor, hyper: Mapping[str, Any]) -> tuple[Tensor, dict[str, Any]]:
    """Which training faces to keep (N,) bool, and what is worth knowing about them without a group label.

    outer  indices of the validation faces on which the outer risk is measured
    """
    model = bench.biased_model().to(bench.device)
    held, n = bench.validation.subset(outer), len(bench.train)
    inside, outside = (evaluate(model, faces, bench.device, output="features") for faces in (bench.train, held))
    mean, spread = inside.mean(0), inside.std(0).clamp(min=1e-6)
    x, z = (F.pad((features - mean) / spread, (0, 1), value=1.0) for features in (inside, outside))
    settings = {name: hyper[name] for name in ("rounds", "inner_steps", "outer_lr")}
    outside_of = (z, held.target, held.groups)
    found = choose(x, bench.train.target, outside_of, hyper["share"] * n, seed=bench.seed, **settings)
    errors = wrong(evaluate(model, bench.train, bench.device), bench.train.target).double()
    scores: dict[str, Any] = {
        "outer_risk": [round(risk, 4) for risk in found.risks],
        "erm_errors": round(errors.mean().item(), 4),
        "erm_errors_selected": round(errors[found.selected].mean().nan_to_num().item(), 4),
    }
    return found.selected, scores | ({"note": found.note} if found.note else {})


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """Learn on frozen features which samples to keep, then train the whole network by ERM on those.

    share        of the training samples that may be kept (the released script: .3); 1 keeps all, which is ERM
    rounds       outer steps (released: 30), each after an inner regression of ``inner_steps`` (released: 100)
    outer_lr     Adam's rate on the probabilities (released: 1.5, which the projection after each step tames); before it
                 the gradient is cut to a norm of 3, as released

    The outer risk is the loss of the worst group of one half of the validation set, whose group labels are read; the other
    half chooses the epoch, by its worst group. The budget is constant; the released script can anneal it. The features are the standardised penultimate ones of the ERM model; no code for faces was released. In the released
    script the outer risk is taken on the training set with its environment labels, and the best test accuracy along the
    way is reported; here no training face needs a group label, and the last round's probabilities decide. The paper's
    penalties of IRMv1 and V-REx are not here. An epoch of the final training has as many steps as one of ERM. A selection
    without both classes is replaced by all samples, with a note.
    """
    share = hyper["share"]
    if not 0 < share <= 1:
        raise AimfairError(f"maple: share lies above 0 and up to 1, got {share}")
    outer, inner = halves(bench.validation.groups)
    everything = torch.ones(len(bench.train), dtype=torch.bool)
    selected, scores = select(bench, outer, hyper) if share < 1 else (everything, {})
    if len(bench.train.target[selected].unique()) < 2:
        selected = everything
        scores["note"] = "the selection did not hold both classes: trained on all samples"
    schedule = replace(bench.pretraining, select="validation-worst-group")
    halved = replace(bench, validation=bench.validation.subset(inner), pretraining=schedule)
    fitted = from_scratch(halved, "MAPLE", order=shuffled(torch.nonzero(selected).flatten(), len(bench.train)))
    return replace(fitted, scores={"selected": int(selected.sum()), **scores})


METHOD = Method(
    name="maple",
    title="MAPLE (oracle)",
    source="Zhou et al., ICML 2022, arXiv 2301.09819; surrogate on frozen features",
    start="scratch",
    fit=fit,
    needs=frozenset({"validation protected"}),
    defaults={"share": 0.3, "rounds": 30, "inner_steps": 100, "outer_lr": 1.5},
    fixed={"outer": "worst-group", "anneal_from": 0.0},
    search={"share": (0.1, 0.2, 0.3, 0.5, 0.7)},
)
