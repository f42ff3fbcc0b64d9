"""Fine-tune every tensor of the biased model on the balanced synthetic images."""

from collections.abc import Mapping
from typing import Any

from aimfair.methods import CHECKPOINT_RULE, LEARNING_RATES, Bench, Fitted, Method
from aimfair.methods._finetune import finetune


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """All tensors learn; equal, bit for bit, to AIM-Fair with k = number of tensors.

    lr, batchnorm  see :func:`aimfair.methods._finetune.schedule`
    """
    return finetune(bench, hyper, trainable=None, what="full fine-tuning")


METHOD = Method(
    name="full-finetuning",
    title="Full fine-tuning",
    source="Table 3, row 'Fully Fine-Tuning'",
    start="biased model",
    fit=fit,
    needs=frozenset({"synthetic"}),
    defaults={"lr": 0.01, "batchnorm": "train"},
    search={"lr": LEARNING_RATES},
    options=CHECKPOINT_RULE,
)
