"""Update one block of the biased model, and its last layer, on the balanced synthetic images."""

from collections.abc import Mapping
from typing import Any

from aimfair.methods import CHECKPOINT_RULE, LEARNING_RATES, Bench, Fitted, Method
from aimfair.methods._partial import blocks, finetune_blocks


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """One block learns, the others stay.

    lr, batchnorm   see :func:`aimfair.methods._finetune.schedule`
    block           stem, layer1 to layer4, fc, or "best": chosen by a profile of ``profile_epochs`` epochs, see
                    :func:`aimfair.methods._partial.finetune_blocks`. To compare blocks, give each in turn.
    head            the last layer learns too, as in SubTuning; the paper does not say whether it did
    profile_epochs  2: the profile costs as much as one more fine-tuning
    Raises AimfairError for a ViT: the blocks are those of a ResNet.
    """
    parts = blocks(name for name, _ in bench.biased_model().named_parameters())
    head = parts["fc"] if hyper["head"] else set()
    return finetune_blocks(bench, hyper, lambda block: parts[block] | head, "updating")


METHOD = Method(
    name="update-one-block",
    title="One block updated",
    source="Table 4, 'updating one block'; Kaplun et al., arXiv 2302.06354; Lee et al., ICLR 2023",
    start="biased model",
    fit=fit,
    needs=frozenset({"synthetic"}),
    defaults={"lr": 0.01, "batchnorm": "train", "block": "best", "head": True, "profile_epochs": 2},
    search={"lr": LEARNING_RATES},
    options=CHECKPOINT_RULE,
)
