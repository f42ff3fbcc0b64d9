"""The control of any mask: as many tensors as AIM-Fair selects, drawn at random."""

from collections.abc import Mapping
from typing import Any

from aimfair import masks
from aimfair.methods import CHECKPOINT_RULE, LEARNING_RATES, Bench, Fitted, Method
from aimfair.methods._finetune import finetune


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """Fine-tune a random set of the size of AIM-Fair's mask at the same ``k`` and seed; ``draw`` numbers the masks, ``lr``
    and ``batchnorm`` are those of :func:`aimfair.methods._finetune.schedule`."""
    domain_gap, bias_gap = bench.gaps("absolute", "train")
    size = len(masks.select(domain_gap, bias_gap, masks.scaled(hyper["k"], len(domain_gap))))
    mask = masks.random_mask(list(domain_gap), size, seed=1000 * bench.seed + hyper["draw"])
    fitted = finetune(bench, hyper, trainable=mask, what=f"random mask {hyper['draw']}")
    fitted.scores["mask"] = sorted(mask)
    return fitted


METHOD = Method(
    name="random-mask",
    title="Random mask, same size",
    source="control; Table 4 compares random selections of other sizes",
    start="biased model",
    fit=fit,
    needs=frozenset({"synthetic"}),
    defaults={"lr": 0.01, "batchnorm": "train", "k": 55, "draw": 0},
    search={"lr": LEARNING_RATES},
    options=CHECKPOINT_RULE,
)
