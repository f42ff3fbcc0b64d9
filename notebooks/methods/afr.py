"""AFR, automatic feature re-weighting: relearn the last layer on faces held out, more by those that ERM gets wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from aimfair.environment import AimfairError
from aimfair.methods import Bench, Fitted, Method
from aimfair.methods.dfr import with_rule
from aimfair.methods.erm import from_scratch
from aimfair.models import evaluate, head


def error_weights(logits: Tensor, target: Tensor, gamma: float) -> Tensor:
    """Weights (N,) with the sum 1: ``exp(-gamma p)``, p the probability of the right class, over the size of the class."""
    right = torch.sigmoid(torch.where(target == 1, logits, -logits))
    weights = torch.exp(-gamma * right) / torch.bincount(target, minlength=2)[target]
    return weights / weights.sum()


def reweighted(
    x: np.ndarray, target: np.ndarray, weights: np.ndarray, start: np.ndarray, strength: float
) -> Any:
    """The linear rule (d + 1,), intercept last, with the smallest weighted cross-entropy on features x (N, d), plus
    ``strength`` times its squared distance from ``start`` (d + 1,); and the value that was reached."""
    from scipy.optimize import minimize
    from scipy.special import expit

    wide = np.column_stack([x, np.ones(len(x))])

    def objective(rule: np.ndarray) -> tuple[float, np.ndarray]:
        logits, away = wide @ rule, rule - start
        value = weights @ (np.logaddexp(0, logits) - target * logits) + strength * away @ away
        return value, wide.T @ (weights * (expit(logits) - target)) + 2 * strength * away

    found = minimize(
        objective,
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 1000, "gtol": 1e-9, "ftol": 0},
    )
    return found.x, float(found.fun)


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """ERM on four fifths of the training faces, then its last layer again on the fifth that it has not seen.

    gamma     how much more a face counts whose class the first model thinks unlikely; 0 is the balance of classes alone
    strength  of the pull towards the first model's last layer
    No group label is read: the original chooses both, and when to stop, by the worst group of a validation set; here
    accuracy chooses gamma. The objective is convex, so its minimum is computed in place of some hundred gradient steps.
    Raises AimfairError for negative values.
    """
    if hyper["gamma"] < 0 or hyper["strength"] < 0:
        raise AimfairError(
            f"AFR needs gamma and strength >= 0, got {hyper['gamma']} and {hyper['strength']}"
        )
    order = torch.randperm(
        len(bench.train), generator=torch.Generator().manual_seed(bench.seed + 4)
    )
    held_out, seen = (
        bench.train.subset(part) for part in order.tensor_split([len(order) // 5])
    )
    model = from_scratch(replace(bench, train=seen), "AFR, four fifths").model
    layer = cast(nn.Linear, model.get_submodule(head(model)))
    start = torch.cat([layer.weight[0], layer.bias]).detach().double().cpu().numpy()
    x = evaluate(model, held_out, bench.device, output="features").double().numpy()
    logits = torch.from_numpy(x @ start[:-1] + start[-1])
    weights = error_weights(logits, held_out.target, hyper["gamma"]).numpy()
    rule, reached = reweighted(x, held_out.target.numpy(), weights, start, hyper["strength"])
    return with_rule(bench, model, rule[:-1], rule[-1], reached)


METHOD = Method(
    name="afr",
    title="AFR",
    source="Qiu et al., ICML 2023, arXiv 2306.11074; not in the paper's tables",
    start="scratch",
    fit=fit,
    defaults={"gamma": 1.0, "strength": 0.1},
    search={"gamma": (0.25, 0.5, 1.0, 2.0, 4.0)},
    beyond=True,
)
