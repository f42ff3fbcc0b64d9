"""Fine-tune on synthetic images, then take the batch-norm statistics from real ones again, without labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from aimfair import methods
from aimfair.environment import AimfairError
from aimfair.methods import Bench, Fitted
from aimfair.methods.aim_fair import AIM_FAIR
from aimfair.repairing import reestimate
from aimfair.training import History

MASKS = {"none": "", "all": "full-finetuning", "aim-fair": "aim-fair", "random": "random-mask"}
"""Methods that fine-tune before the statistics are estimated: nothing, all tensors, AIM-Fair's mask, a random one of its
size."""


def reestimate_on_real(bench: Bench, model: nn.Module) -> None:
    """:func:`aimfair.repairing.reestimate` on the bench's real training images, which are biased: no label says how, and none is read."""
    reestimate(
        model,
        bench.train.without_protected(),
        bench.finetuning.batch_size,
        bench.seed,
        bench.device,
    )


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """The method that ``mask`` names in :data:`MASKS`, and then one pass through the real training images.

    mask      "none" is a control: it shows what the estimation does by itself, since ERM's own statistics are running
              averages over crops of the same images. Its learning rate decides nothing
    k, score, gradients  of AIM-Fair's mask; ``draw`` of the random one
    lr        of the fine-tuning, see :func:`aimfair.methods.finetuning.schedule`
    batchnorm  during the fine-tuning: with "train" the network learns with batch statistics of synthetic images
    The epoch is chosen before the statistics are estimated again, and the learning rate after.
    """
    if hyper["mask"] not in MASKS:
        raise AimfairError(f"mask must be one of {', '.join(MASKS)}, got {hyper['mask']!r}")
    method = MASKS[hyper["mask"]]
    fitted = (
        methods.get(method).fit(bench, hyper)
        if method
        else Fitted(bench.biased_model(), History())
    )
    reestimate_on_real(bench, fitted.model)
    return fitted


METHOD = replace(
    AIM_FAIR,
    name="batchnorm-real",
    title="Batch norm of real images",
    source="Li et al., arXiv 1603.04779 (AdaBN); Schneider et al., NeurIPS 2020; not in the paper's tables",
    fit=fit,
    defaults={**AIM_FAIR.defaults, "mask": "all", "draw": 0},
    beyond=True,
)
