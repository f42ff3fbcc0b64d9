"""What the methods share that keep the biased model's features and replace its last layer by a linear rule."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn
from torch.nn import functional as F

from aimfair.faces import FaceSet
from aimfair.methods import Bench, Fitted
from aimfair.models import evaluate, head
from aimfair.training import History

Labelled = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Features (N, d) float64, target (N,) and protected (N,) int64."""

Rule = tuple[np.ndarray, float]
"""Weights (d,) and intercept of a linear rule: the logit of features x is ``x @ weights + intercept``."""


def last_layer(model: nn.Module) -> nn.Linear:
    """The linear layer that turns features into the logit."""
    return cast(nn.Linear, model.get_submodule(head(model)))


def described(model: nn.Module, faces: FaceSet, device: str) -> Labelled:
    """Features of whole images, evaluation mode, with their labels. Raises AimfairError for a withheld label."""
    groups = faces.groups
    x = evaluate(model.to(device), faces, device, output="features").double().numpy()
    return x, (groups // 2).numpy(), (groups % 2).numpy()


def with_rule(bench: Bench, model: nn.Module, weights: ArrayLike, intercept: float, loss: float) -> Fitted:
    """``model`` with the rule as its last layer; ``loss`` is what was reached in fitting it."""
    layer = last_layer(model)
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(np.asarray(weights))[None])
        layer.bias.fill_(float(intercept))
    right = (evaluate(model, bench.validation, bench.device) >= 0) == (bench.validation.target == 1)
    return Fitted(model, History([loss], [100.0 * right.double().mean().item()], chosen=0))


def mean_loss(labelled: Labelled, rule: Rule) -> float:
    """Mean binary cross-entropy of a rule."""
    x, y, _ = labelled
    logits = torch.from_numpy(x @ rule[0] + rule[1])
    return F.binary_cross_entropy_with_logits(logits, torch.from_numpy(y).double()).item()
