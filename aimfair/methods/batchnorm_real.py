"""Fine-tune on synthetic images, then take the batch-norm statistics from real ones again, without labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aimfair.environment import AimfairError
from aimfair.methods import Bench, Fitted, Method, aim_fair, full_finetuning, random_mask
from aimfair.methods._batchnorm import reestimate_on_real
from aimfair.training import History

Fit = Callable[[Bench, Mapping[str, Any]], Fitted]


def nothing(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """The biased model as it is, after no epoch."""
    return Fitted(bench.biased_model(), History())


MASKS: dict[str, Fit] = {
    "none": nothing,
    "all": full_finetuning.fit,
    "aim-fair": aim_fair.fit,
    "random": random_mask.fit,
}
"""What is fine-tuned before the statistics are estimated: nothing, all tensors, AIM-Fair's mask, a random one of its size."""


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """The method that ``mask`` names in :data:`MASKS`, and then one pass through the real training images.

    mask      "none" is a control: it shows what the estimation does by itself, since ERM's own statistics are running
              averages over crops of the same images. Its learning rate decides nothing
    k, score, gradients  of AIM-Fair's mask; ``draw`` of the random one
    lr        of the fine-tuning, see :func:`aimfair.methods._finetune.schedule`
    batchnorm  during the fine-tuning: with "train" the network learns with batch statistics of synthetic images
    The epoch is chosen before the statistics are estimated again, and the learning rate after.
    """
    if hyper["mask"] not in MASKS:
        raise AimfairError(f"mask must be one of {', '.join(MASKS)}, got {hyper['mask']!r}")
    fitted = MASKS[hyper["mask"]](bench, hyper)
    reestimate_on_real(bench, fitted.model)
    return fitted


METHOD = Method(
    name="batchnorm-real",
    title="Batch norm of real images",
    source="Li et al., arXiv 1603.04779 (AdaBN); Schneider et al., NeurIPS 2020; not in the paper's tables",
    start="biased model",
    fit=fit,
    needs=frozenset({"synthetic"}),
    defaults={**aim_fair.METHOD.defaults, "mask": "all", "draw": 0},
    search=aim_fair.METHOD.search,
    options=aim_fair.METHOD.options,
    beyond=True,
)
