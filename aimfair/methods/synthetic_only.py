"""Train on the balanced synthetic images alone: how good are they as training data?"""

from collections.abc import Mapping
from typing import Any

from aimfair.methods import Bench, Fitted, Method
from aimfair.methods._scratch import from_scratch


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """As ERM, with the balanced synthetic set in place of the real one; the epoch is still chosen on real images."""
    return from_scratch(bench, "synthetic only", train=bench.balanced)


METHOD = Method(
    name="synthetic-only",
    title="Trained on synthetic only",
    source="Table 3, second row; last row of Table 5",
    start="scratch",
    fit=fit,
    needs=frozenset({"synthetic"}),
)
