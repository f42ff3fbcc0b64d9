"""Keep the biased model's features and relearn its last layer on the balanced synthetic images."""

from collections.abc import Mapping
from typing import Any

from aimfair.methods import LEARNING_RATES, Bench, Fitted, Method
from aimfair.methods._finetune import finetune


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """Only ``fc`` learns. With ``batchnorm`` "eval" (default) the features do not change at all; "train" lets the
    running statistics drift to the synthetic images, as the official loop would."""
    return finetune(bench, hyper, trainable={"fc.weight", "fc.bias"}, what="linear probing")


METHOD = Method(
    name="linear-probing",
    title="Linear probing",
    source="Table 3, row 'Linear Prob'",
    start="biased model",
    fit=fit,
    needs=frozenset({"synthetic"}),
    defaults={"lr": 0.01, "batchnorm": "eval"},
    search={"lr": LEARNING_RATES},
)
