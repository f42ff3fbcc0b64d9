"""Focal loss: faces that are already classified well count less."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from aimfair.methods import Bench, Fitted, Method
from aimfair.methods.erm import from_scratch


def focal_loss(gamma: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Mean of (1 - p)^gamma * cross-entropy, p being the probability given to the true label; gamma 0 is plain."""

    def loss(logits: Tensor, target: Tensor, index: Tensor) -> Tensor:
        cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return ((1 - (-cross_entropy).exp()) ** gamma * cross_entropy).mean()

    return loss


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """As ERM, with another loss: the rare groups are where the loss is large."""
    return from_scratch(bench, "focal loss", loss=focal_loss(hyper["gamma"]))


METHOD = Method(
    name="focal",
    title="Focal loss",
    source="Lin et al., ICCV 2017",
    start="scratch",
    fit=fit,
    defaults={"gamma": 2.0},
    search={"gamma": (0.5, 1.0, 2.0, 3.0, 5.0)},
)
