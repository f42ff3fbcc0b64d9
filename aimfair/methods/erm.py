"""Empirical risk minimisation on the biased real images: the model that everything else starts from or is held against."""

from collections.abc import Mapping
from typing import Any

from aimfair.methods import Bench, Fitted, Method
from aimfair.methods._scratch import from_scratch


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """Mean cross-entropy on the real training set, no label but the target."""
    return from_scratch(bench, "ERM")


METHOD = Method(
    name="erm",
    title="Baseline (ERM)",
    source="Vapnik, Statistical Learning Theory, 1998; Table 3, first row",
    start="scratch",
    fit=fit,
)
