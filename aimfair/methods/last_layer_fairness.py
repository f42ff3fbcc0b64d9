"""A new last layer, fitted on group-balanced faces with a fairness penalty. An oracle."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from aimfair import sampling
from aimfair.environment import AimfairError, Diverged
from aimfair.methods import Bench, Fitted, Method
from aimfair.methods._dfr import part, smallest_group
from aimfair.methods._head import Labelled, described, with_rule
from aimfair.methods._penalties import PENALTIES, worst_group_loss


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
    if hyper["penalty"] not in (*PENALTIES, "mmf"):
        raise AimfairError(f"penalty must be one of {', '.join(PENALTIES)} or mmf, got {hyper['penalty']!r}")
    sets = {"both": (bench.train, bench.validation), "validation": (bench.validation,), "train": (bench.train,)}
    if hyper["data"] not in sets:
        raise AimfairError(f"data must be one of {', '.join(sets)}, got {hyper['data']!r}")
    model = bench.biased_model()
    described_sets = [described(model, faces, bench.device) for faces in sets[hyper["data"]]]
    x, y, s = (np.concatenate(columns) for columns in zip(*described_sets, strict=True))
    labelled: Labelled = (x, y, s)
    if hyper["data"] == "both":
        if smallest_group(labelled) == 0:
            raise AimfairError("balancing the groups needs a face of every group: one has none")
        labelled = part(labelled, sampling.balanced(y, s, smallest_group(labelled), bench.seed))
    layer, loss = fit_layer(labelled, hyper)
    fitted = with_rule(bench, model, layer[:-1].numpy(), layer[-1].item(), loss)
    logits = torch.from_numpy(labelled[0]) @ layer[:-1] + layer[-1]
    soft = PENALTIES["eo"](logits, *map(torch.from_numpy, labelled[1:]))
    fitted.scores |= {"faces": len(labelled[1]), "soft_equalised_odds": round(soft.item(), 5)}
    return fitted


METHOD = Method(
    name="last-layer-fairness",
    title="Last-layer fairness (oracle)",
    source="Mao et al., arXiv 2304.03935 (M2)",
    start="biased model",
    fit=fit,
    needs=frozenset({"train protected", "validation protected"}),
    defaults={
        "alpha": 2.0,
        "penalty": "eo",
        "data": "both",
        "lr": 0.01,
        "weight_decay": 0.0005,
        "epochs": 1000,
    },
    search={"alpha": (0.5, 1.0, 2.0, 4.0, 8.0)},
)
