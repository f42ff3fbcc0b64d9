"""EIIL: split the training set where a biased model breaks invariance most, then train robustly over the split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from aimfair.environment import AimfairError
from aimfair.methods import Bench, Fitted, Method
from aimfair.methods._inferred import check_eta, early_logits, group_dro


def scale_gradients(logits: Tensor, target: Tensor) -> Tensor:
    """Gradient (N,) of each face's loss with respect to a scale on its logit, at scale 1: ``(sigmoid(z) - y) z``.

    Negative where the model is right (more confidence would pay), positive where it is wrong.
    """
    return (torch.sigmoid(logits) - target) * logits


def violation(q: Tensor, d: Tensor) -> Tensor:
    """The invariance penalty that the split maximises: half the squared gradients of both environments, summed.

    q (N,) in [0, 1] is the share of each sample in environment 1. Both sums are divided by N, as in the released code,
    not by the size of the environment.
    """
    return 0.5 * ((q * d).mean() ** 2 + ((1 - q) * d).mean() ** 2)


def sign_split(d: Tensor) -> Tensor:
    """The exact maximum of :func:`violation`, (N,) bool: it is convex in q, and largest with all d > 0 on one side."""
    return d > 0


def adam_split(d: Tensor, steps: int, lr: float, seed: int) -> Tensor:
    """The released form: ascent on :func:`violation` by Adam from random soft assignments, then cut at one half.

    The penalty is multiplied by N^2, or the gradients of confident samples drown in Adam's epsilon. The environments
    come out in either order; here environment 1 is the one with the larger gradients, as in :func:`sign_split`. A step
    moves an assignment by about ``lr``: too few of them leave samples with small gradients where they were drawn.
    """
    d = d.double()
    u = torch.randn(len(d), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()
    optimiser = torch.optim.Adam([u], lr)
    for _ in range(steps):
        optimiser.zero_grad()
        (-(len(d) ** 2) * violation(torch.sigmoid(u), d)).backward()
        optimiser.step()
    split = u.detach() > 0
    return split if (split * d).sum() >= (~split * d).sum() else ~split


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """ERM for a few epochs, environments from its logits, Group DRO from scratch over (target, environment).

    reference_epochs   of ERM. A model that fits its training set is wrong nowhere and leaves an environment empty;
                       then the groups are the two classes, and ``scores["note"]`` says so.
    split              "sign": the closed form (default); "adam": the released optimisation, ``steps`` of size ``lr``
    eta                step size of the group weights
    Environment 1 is in effect the reference's error set, as in JTT. The paper's own second stage for colour-MNIST is
    IRMv1; for images it used Group DRO, as here. Published numbers for images come from a tuning and a stopping time by
    validation groups; here, as for all, the overall validation accuracy decides.
    """
    if hyper["split"] not in ("sign", "adam"):
        raise AimfairError(f"EIIL's split must be sign or adam, got {hyper['split']!r}")
    check_eta(hyper["eta"])
    logits = early_logits(bench, hyper["reference_epochs"], "EIIL, reference")
    d = scale_gradients(logits, bench.train.target)
    environment = sign_split(d) if hyper["split"] == "sign" else adam_split(d, hyper["steps"], hyper["lr"], bench.seed)
    fitted = group_dro(bench, environment, bench.validation, hyper["eta"], bench.pretraining.select, "EIIL")
    fitted.scores["violation"] = violation(environment.float(), d).item()
    return fitted


METHOD = Method(
    name="eiil",
    title="EIIL",
    source="Creager, Jacobsen, Zemel, ICML 2021, arXiv 2010.07249; Table 1",
    start="scratch",
    fit=fit,
    defaults={"reference_epochs": 3, "eta": 0.01, "split": "sign", "steps": 10_000, "lr": 0.001},
    search={"reference_epochs": (1, 2, 3, 5, 8)},
)
