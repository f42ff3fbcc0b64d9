"""Fine-tune every tensor of the biased model on the balanced synthetic images."""

from collections.abc import Mapping
from typing import Any

from aimfair.methods import CHECKPOINT_RULE, LEARNING_RATES, Bench, Fitted, Method
from aimfair.methods._finetune import finetune


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """All tensors learn; equal, bit for bit, to AIM-Fair with k = number of tensors.

    lr         .01, and a search: the paper has .4, .5 and .6, the released code .05 or .06, see
               :func:`aimfair.methods._finetune.schedule`
    batchnorm  "train": the official form, in which running statistics follow the synthetic images
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
