"""Keep the biased model's features and relearn its last layer on the balanced synthetic images."""

from collections.abc import Mapping
from typing import Any

from aimfair.methods import CHECKPOINT_RULE, LEARNING_RATES, Bench, Fitted, Method
from aimfair.methods._finetune import finetune
from aimfair.models import head


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """Only the last layer learns. With ``batchnorm`` "eval" (default) the features do not change at all; "train" lets the
    running statistics drift to the synthetic images, as the official loop would. ``lr`` is that of
    :func:`aimfair.methods._finetune.schedule`."""
    model = bench.biased_model()
    last = {f"{head(model)}.weight", f"{head(model)}.bias"}
    return finetune(bench, hyper, trainable=last, what="linear probing", model=model)


METHOD = Method(
    name="linear-probing",
    title="Linear probing",
    source="Table 3, row 'Linear Prob'",
    start="biased model",
    fit=fit,
    needs=frozenset({"synthetic"}),
    defaults={"lr": 0.01, "batchnorm": "eval"},
    search={"lr": LEARNING_RATES},
    options=CHECKPOINT_RULE,
)
