"""Freeze one block of the biased model and fine-tune the rest on the balanced synthetic images."""

from collections.abc import Mapping
from typing import Any

from aimfair.methods import CHECKPOINT_RULE, LEARNING_RATES, Bench, Fitted, Method
from aimfair.methods._partial import blocks, finetune_blocks


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """One block stays, the others learn.

    lr, batchnorm   see :func:`aimfair.methods._finetune.schedule`
    block           stem, layer1 to layer4, fc, or "best": chosen by a profile of ``profile_epochs`` epochs, see
                    :func:`aimfair.methods._partial.finetune_blocks`. To compare blocks, give each in turn.
    profile_epochs  2: the profile costs as much as one more fine-tuning
    Raises AimfairError for a ViT: the blocks are those of a ResNet.
    """
    parts = blocks(name for name, _ in bench.biased_model().named_parameters())
    everything = set().union(*parts.values())
    return finetune_blocks(bench, hyper, lambda block: everything - parts[block], "freezing")


METHOD = Method(
    name="freeze-one-block",
    title="One block frozen",
    source="Table 4, 'freezing one block'",
    start="biased model",
    fit=fit,
    needs=frozenset({"synthetic"}),
    defaults={"lr": 0.01, "batchnorm": "train", "block": "best", "profile_epochs": 2},
    search={"lr": LEARNING_RATES},
    options=CHECKPOINT_RULE,
)
