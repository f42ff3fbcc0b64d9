"""What the oracles share that train from scratch: they know every group and are chosen by the worst one."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aimfair.methods import Bench, Fitted
from aimfair.methods._scratch import from_scratch
from aimfair.training import Loss, Order, binary_cross_entropy

WEIGHT_DECAYS = (0.0001, 0.0003, 0.001, 0.003, 0.01)
"""What the oracles search: without strong regularisation a network fits the few minority faces by heart and its training
losses, which the oracles read, vanish (Sagawa et al., section 3.2)."""

DEFAULTS = {"lr": None, "weight_decay": 0.001}


def train_oracle(
    bench: Bench, hyper: Mapping[str, Any], order: Order | None, what: str, loss: Loss = binary_cross_entropy
) -> Fitted:
    """Train from scratch on the real faces; the epoch with the best worst group on the validation set is kept.

    hyper["lr"] None: the rate of the profile's ERM; hyper["weight_decay"] takes the place of ERM's. Epochs, batches and
    crops are ERM's too.
    """
    schedule = replace(
        bench.pretraining,
        lr=hyper["lr"] or bench.pretraining.lr,
        weight_decay=hyper["weight_decay"],
        select="validation-worst-group",
    )
    return from_scratch(bench, what, schedule=schedule, loss=loss, order=order)
