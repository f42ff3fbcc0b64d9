"""ERM on batches with equal groups: how much of Group DRO is its sampling? An oracle."""

from collections.abc import Mapping
from typing import Any

from aimfair.methods import Bench, Fitted, Method
from aimfair.methods._group_dro import balanced_order
from aimfair.methods._oracle import DEFAULTS, WEIGHT_DECAYS, train_oracle


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """Each step draws every group equally often, with replacement (RWG of the source); else as ERM.

    lr, weight_decay  as for :mod:`aimfair.methods.group_dro`
    """
    fitted = train_oracle(bench, hyper, balanced_order(bench.train.groups), "balanced sampling")
    if min(bench.train.counts()) == 0:
        fitted.scores["note"] = f"balanced over the groups that occur: counts {bench.train.counts()}"
    return fitted


METHOD = Method(
    name="balanced-sampling",
    title="Balanced sampling (oracle)",
    source="Idrissi et al., CLeaR 2022 (RWG)",
    start="scratch",
    fit=fit,
    needs=frozenset({"train protected", "validation protected"}),
    defaults=DEFAULTS,
    search={"weight_decay": WEIGHT_DECAYS},
)
