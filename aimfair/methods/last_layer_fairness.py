"""A new last layer, fitted on group-balanced faces with a fairness penalty (an oracle); and the penalties.

A penalty takes logits (B,), target (B,) and protected (B,) labels of {0, 1} and gives a differentiable scalar. A gap to an
empty cell is 0.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from aimfair.environment import AimfairError, Diverged
from aimfair.methods import Bench, Fitted, Method
from aimfair.methods.dfr import Labelled, balanced_part, described, with_rule


def rate_gaps(score: Tensor, target: Tensor, protected: Tensor, joint: bool = False) -> tuple[Tensor, Tensor]:
    """Signed gaps (protected 1 minus 0) of the soft false positive and false negative rates; ``score`` are probabilities.

    A rate is the mean of score (or 1 - score) over a cell of target and protected value; with ``joint`` the sum over
    that cell divided by all faces of the protected value, as the code of Mao et al. has it: half as much where the two
    targets are equally frequent, and otherwise another quantity.
    """

    def gap(values: Tensor, of: Tensor) -> Tensor:
        cells = [of & (protected == s) for s in (0, 1)]
        wholes = [protected == s for s in (0, 1)] if joint else cells
        at_0, at_1 = (
            torch.where(cell, values, 0).sum() / whole.sum().clamp_min(1)
            for cell, whole in zip(cells, wholes, strict=True)
        )
        return (at_1 - at_0) * min(cell.any() for cell in cells)

    return gap(score, target == 0), gap(1 - score, target == 1)


def equalised_odds(logits: Tensor, target: Tensor, protected: Tensor, joint: bool = False) -> Tensor:
    """Sum of the absolute gaps of the two soft error rates: equalised odds on probabilities."""
    false_positive, false_negative = rate_gaps(torch.sigmoid(logits), target, protected, joint)
    return false_positive.abs() + false_negative.abs()


def error_gap(logits: Tensor, target: Tensor, protected: Tensor) -> Tensor:
    """Accuracy equality: absolute gap of the mean cross-entropy between the protected values."""
    means = _means(_losses(logits, target), [protected == s for s in (0, 1)])
    return (means[-1] - means[0]).abs()


def disparate_impact(logits: Tensor, target: Tensor, protected: Tensor) -> Tensor:
    """Minus the smaller ratio of the mean probabilities of the protected values: -1 where they are equal."""
    means = _means(torch.sigmoid(logits), [protected == s for s in (0, 1)])
    return -torch.minimum(means[0] / means[-1], means[-1] / means[0])


def worst_group_loss(logits: Tensor, target: Tensor, protected: Tensor) -> Tensor:
    """Max-min fairness: the largest mean cross-entropy of a group of target and protected value."""
    groups = [(target == t) & (protected == s) for t in (0, 1) for s in (0, 1)]
    return torch.stack(_means(_losses(logits, target), groups)).max()


def _losses(logits: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")


def _means(values: Tensor, members: list[Tensor]) -> list[Tensor]:
    """Mean over each set of members that is not empty."""
    return [values[member].mean() for member in members if member.any()]


PENALTIES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "eo": equalised_odds,
    "eo-joint": partial(equalised_odds, joint=True),
    "ae": error_gap,
    "di": disparate_impact,
}


def objective(logits: Tensor, target: Tensor, protected: Tensor, penalty: str, alpha: float) -> Tensor:
    """Class-weighted cross-entropy plus ``alpha`` times the penalty; "mmf": the worst group's loss alone.

    A class weighs the count of the larger class over its own, and the mean is weighted, as torch's ``nll_loss`` does.
    """
    if penalty == "mmf":
        return worst_group_loss(logits, target, protected)
    counts = torch.bincount(target, minlength=2).clamp_min(1)
    weight = (counts.max() / counts).to(logits.dtype)[target]
    losses = F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), weight, reduction="sum")
    return losses / weight.sum() + alpha * PENALTIES[penalty](logits, target, protected)


def fit_layer(labelled: Labelled, hyper: Mapping[str, Any]) -> tuple[Tensor, float]:
    """Full-batch SGD from a layer of zeros; the last epoch is kept. Weights (d + 1,), the intercept last; final loss."""
    x, y, s = labelled
    features = torch.from_numpy(np.concatenate([x, np.ones((len(x), 1))], 1))
    target, protected = torch.from_numpy(y), torch.from_numpy(s)
    layer = torch.zeros(features.shape[1], dtype=features.dtype, requires_grad=True)
    optimiser = torch.optim.SGD([layer], hyper["lr"], momentum=0.9, weight_decay=hyper["weight_decay"])
    for _ in range(hyper["epochs"]):
        value = objective(features @ layer, target, protected, hyper["penalty"], hyper["alpha"])
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    if not torch.isfinite(value):
        raise Diverged(f"the last layer's loss is not finite (rate {hyper['lr']}, alpha {hyper['alpha']})")
    return layer.detach(), value.item()


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """Its own validation accuracy is that of faces it was fitted on, for data "both" and "validation".

    data     "both": equal groups of training and validation faces together (M2, proposed); "validation": all of them
             (M1); "train": all training faces. With alpha 0 these are the source's B3, B2 and B1.
    penalty  "eo": gaps of soft error rates within each target; "eo-joint": as the released code divides them; "ae": gap
             of the cross-entropy between protected values; "di": ratio of mean probabilities; "mmf": the worst group's
             cross-entropy in place of the whole loss, alpha is not read
    alpha    weight of the penalty; the source takes 2 to 5
    lr, weight_decay, epochs  of the layer's SGD with momentum .9: .01, .0005 and 1000 as released. A step sees all faces at
             once, so an epoch is one step. The layer starts from zeros, nothing is drawn for it, and ends with the last
             epoch
    It has one logit where the source has two, so its step is half as long at the same rate.
    """
    sets = {"both": (bench.train, bench.validation), "validation": (bench.validation,), "train": (bench.train,)}
    for name, allowed in (("penalty", (*PENALTIES, "mmf")), ("data", tuple(sets))):
        if hyper[name] not in allowed:
            raise AimfairError(f"{name} must be one of {', '.join(allowed)}, got {hyper[name]!r}")
    model = bench.biased_model()
    parts = [described(model, faces, bench.device) for faces in sets[hyper["data"]]]
    x, y, s = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    labelled = balanced_part((x, y, s), bench.seed) if hyper["data"] == "both" else (x, y, s)
    layer, loss = fit_layer(labelled, hyper)
    fitted = with_rule(bench, model, layer[:-1].numpy(), layer[-1].item(), loss)
    features, target, protected = map(torch.from_numpy, labelled)
    soft = equalised_odds(features @ layer[:-1] + layer[-1], target, protected)
    fitted.scores = {"faces": len(labelled[1]), "soft_equalised_odds": round(soft.item(), 5)}
    return fitted


METHOD = Method(
    name="last-layer-fairness",
    title="Last-layer fairness (oracle)",
    source="Mao et al., arXiv 2304.03935 (M2)",
    start="biased model",
    fit=fit,
    needs=frozenset({"train protected", "validation protected"}),
    defaults={"alpha": 2.0, "penalty": "eo", "data": "both", "lr": 0.01, "weight_decay": 0.0005, "epochs": 1000},
    search={"alpha": (0.5, 1.0, 2.0, 4.0, 8.0)},
)
