"""A new last layer, fitted on group-balanced faces with a fairness penalty (an oracle); and the penalty.

It takes logits (B,), target (B,) and protected (B,) labels of {0, 1} and gives a differentiable scalar. A gap to an empty
cell is 0.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from aimfair.environment import Diverged
from aimfair.methods import Bench, Fitted, Method
from aimfair.methods.dfr import Labelled, balanced_part, described, with_rule


def rate_gaps(score: Tensor, target: Tensor, protected: Tensor) -> tuple[Tensor, Tensor]:
    """Signed gaps (protected 1 minus 0) of the soft false positive and false negative rates; ``score`` are probabilities.

    A rate is the mean of score (or 1 - score) over a cell of target and protected value. The code of Mao et al. divides the
    sum over that cell by all faces of the protected value instead.
    """

    def gap(values: Tensor, of: Tensor) -> Tensor:
        cells = [of & (protected == s) for s in (0, 1)]
        at_0, at_1 = (torch.where(cell, values, 0).sum() / cell.sum().clamp_min(1) for cell in cells)
        return (at_1 - at_0) * min(cell.any() for cell in cells)

    return gap(score, target == 0), gap(1 - score, target == 1)


def equalised_odds(logits: Tensor, target: Tensor, protected: Tensor) -> Tensor:
    """Sum of the absolute gaps of the two soft error rates: equalised odds on probabilities."""
    false_positive, false_negative = rate_gaps(torch.sigmoid(logits), target, protected)
    return false_positive.abs() + false_negative.abs()


def objective(logits: Tensor, target: Tensor, protected: Tensor, alpha: float) -> Tensor:
    """Class-weighted cross-entropy plus ``alpha`` times :func:`equalised_odds`.

    A class weighs the count of the larger class over its own, and the mean is weighted, as torch's ``nll_loss`` does.
    """
    counts = torch.bincount(target, minlength=2).clamp_min(1)
    weight = (counts.max() / counts).to(logits.dtype)[target]
    losses = F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), weight, reduction="sum")
    return losses / weight.sum() + alpha * equalised_odds(logits, target, protected)


def fit_layer(labelled: Labelled, hyper: Mapping[str, Any]) -> tuple[Tensor, float]:
    """Full-batch SGD from a layer of zeros; the last epoch is kept. Weights (d + 1,), the intercept last; final loss."""
    x, y, s = labelled
    features = torch.from_numpy(np.concatenate([x, np.ones((len(x), 1))], 1))
    target, protected = torch.from_numpy(y), torch.from_numpy(s)
    layer = torch.zeros(features.shape[1], dtype=features.dtype, requires_grad=True)
    optimiser = torch.optim.SGD([layer], hyper["lr"], momentum=0.9, weight_decay=hyper["weight_decay"])
    for _ in range(hyper["epochs"]):
        value = objective(features @ layer, target, protected, hyper["alpha"])
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    if not torch.isfinite(value):
        raise Diverged(f"the last layer's loss is not finite (rate {hyper['lr']}, alpha {hyper['alpha']})")
    return layer.detach(), value.item()


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """The source's proposed form M2, on equal groups of training and validation faces together. Its own validation accuracy
    is in part that of faces it was fitted on.

    alpha    weight of the penalty; the source takes 2 to 5
    lr, weight_decay, epochs  of the layer's SGD with momentum .9: .01, .0005 and 1000 as released. A step sees all faces at
             once, so an epoch is one step. The layer starts from zeros, nothing is drawn for it, and ends with the last
             epoch
    It has one logit where the source has two, so its step is half as long at the same rate.
    """
    model = bench.biased_model()
    parts = [described(model, faces, bench.device) for faces in (bench.train, bench.validation)]
    x, y, s = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    labelled = balanced_part((x, y, s), bench.seed)
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
    defaults={"alpha": 2.0, "lr": 0.01, "weight_decay": 0.0005, "epochs": 1000},
    fixed={"penalty": "eo", "data": "both"},
    search={"alpha": (0.5, 1.0, 2.0, 4.0, 8.0)},
)
