"""ERM on batches with equal groups: how much of Group DRO is its sampling? An oracle."""

from collections.abc import Mapping
from typing import Any

from aimfair.methods import Bench, Fitted, Method
from aimfair.methods._group_dro import balanced_order
from aimfair.methods._oracle import DEFAULTS, WEIGHT_DECAYS, train_oracle


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """Each step draws every group equally often, with replacement (RWG of the source); else as ERM.

    lr            None: the rate of the profile's ERM
    weight_decay  .001 unless searched, as for :mod:`aimfair.methods.group_dro`, which says what is official there
                  (rate and decay 1e-4 each, or 1e-5 and .1, with 50 epochs): the two differ in their loss alone
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
