"""MAPLE: choose the training samples on which plain ERM becomes fair, by gradients through its last step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aimfair.environment import AimfairError
from aimfair.methods import Bench, Fitted, Method
from aimfair.methods._inferred import wrong
from aimfair.methods._maple import choose
from aimfair.methods._scratch import from_scratch
from aimfair.methods.subsampling import repeated_order
from aimfair.models import evaluate


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """Learn on frozen features which samples to keep, then train the whole network by ERM on those.

    share        of the training samples that may be kept (the released script: .3); 1 keeps all, which is ERM
    outer        "worst-group" or "balanced" risk on one half of the validation set, whose group labels are read; the other
                 half chooses the epoch, by its worst group
    rounds       outer steps (released: 30), each after an inner regression of ``inner_steps`` (released: 100)
    outer_lr     Adam's rate on the probabilities (released: 1.5, which the projection after each step tames); before it
                 the gradient is cut to a norm of 3, as released
    anneal_from  share from which the budget falls to ``share`` (released as an option); 0: the budget is constant

    This is a surrogate in feature space: the inner problem is a logistic regression on the standardised penultimate
    features of the ERM model, where the released script trains a small network on colour MNIST; no code for faces was
    released. There the outer risk is taken on the training set with its environment labels and the best test accuracy
    along the way is reported; here no training face needs a group label, and the last round's probabilities decide. Of
    the paper's outer risks the penalty of IRMv1 and the variance of V-REx are not here. An epoch of the final training
    has as many steps as one of ERM, so that a small selection is no short training. A selection without both classes is
    replaced by all samples, with a note.
    """
    if not 0 < hyper["share"] <= 1 or not 0 <= hyper["anneal_from"] <= 1:
        raise AimfairError(
            f"maple: share lies above 0 and up to 1, anneal_from from 0 to 1; got {hyper['share']}, {hyper['anneal_from']}"
        )
    outer, inner = halves(bench.validation.groups)
    n = len(bench.train)
    selected = torch.ones(n, dtype=torch.bool)
    scores: dict[str, Any] = {}
    if hyper["share"] < 1:
        selected, scores = select(bench, outer, hyper)
    if len(bench.train.target[selected].unique()) < 2:
        selected = torch.ones(n, dtype=torch.bool)
        scores["note"] = "the selection did not hold both classes: trained on all samples"
    schedule = replace(bench.pretraining, select="validation-worst-group")
    kept = torch.nonzero(selected).flatten()
    held = bench.validation.subset(inner)
    fitted = from_scratch(bench, "MAPLE", validation=held, schedule=schedule, order=repeated_order(kept, n))
    fitted.scores = {"selected": int(selected.sum()), **scores}
    return fitted


def select(bench: Bench, outer: Tensor, hyper: Mapping[str, Any]) -> tuple[Tensor, dict[str, Any]]:
    """Which training faces to keep (N,) bool, and what is worth knowing about them without a group label."""
    model = bench.biased_model().to(bench.device)
    held = bench.validation.subset(outer)
    inside, outside = (evaluate(model, faces, bench.device, output="features") for faces in (bench.train, held))
    mean, spread = inside.mean(0), inside.std(0).clamp(min=1e-6)
    x, z = (torch.nn.functional.pad((f - mean) / spread, (0, 1), value=1.0) for f in (inside, outside))
    found = choose(
        x,
        bench.train.target,
        (z, held.target, held.groups),
        hyper["share"] * len(x),
        hyper["outer"],
        hyper["rounds"],
        hyper["inner_steps"],
        hyper["outer_lr"],
        hyper["anneal_from"] * len(x),
        bench.seed,
    )
    errors = wrong(evaluate(model, bench.train, bench.device), bench.train.target).double()
    scores: dict[str, Any] = {
        "outer_risk": [round(risk, 4) for risk in found.risks],
        "erm_errors": round(errors.mean().item(), 4),
        "erm_errors_selected": round(errors[found.selected].mean().nan_to_num().item(), 4),
    }
    return found.selected, scores | ({"note": found.note} if found.note else {})


def halves(groups: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of two halves of the faces with these groups (N,), every other face of each group in the first."""
    first = torch.zeros(len(groups), dtype=torch.bool)
    for group in groups.unique():
        first[torch.nonzero(groups == group).flatten()[::2]] = True
    return torch.nonzero(first).flatten(), torch.nonzero(~first).flatten()


METHOD = Method(
    name="maple",
    title="MAPLE (oracle)",
    source="Zhou et al., ICML 2022, arXiv 2301.09819; surrogate on frozen features",
    start="scratch",
    fit=fit,
    needs=frozenset({"validation protected"}),
    defaults={
        "share": 0.3,
        "outer": "worst-group",
        "rounds": 30,
        "inner_steps": 100,
        "outer_lr": 1.5,
        "anneal_from": 0.0,
    },
    search={"share": (0.1, 0.2, 0.3, 0.5, 0.7)},
)
