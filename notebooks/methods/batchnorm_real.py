"""Fine-tune on synthetic images, then take the batch-norm statistics from real ones again, without labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from aimfair import methods
from aimfair.environment import AimfairError
from aimfair.faces import FaceSet
from aimfair.methods import Bench, Fitted
from aimfair.methods.aim_fair import AIM_FAIR
from aimfair.models import as_input
from aimfair.training import History, batches

MASKS = {"none": "", "all": "full-finetuning", "aim-fair": "aim-fair", "random": "random-mask"}
"""Methods that fine-tune before the statistics are estimated: nothing, all tensors, AIM-Fair's mask, a random one of its
size."""


def reestimate(
    model: nn.Module, faces: FaceSet, batch_size: int, seed: int, device: str
) -> None:
    """Replace all running means and variances of ``model`` by those of the images of ``faces``, in place.

    They become the mean over shuffled batches of each batch's mean and unbiased variance, from one pass through whole
    images, as they are looked at in testing; the last incomplete batch is dropped. Weights, labels and the model's mode
    are left alone. Raises AimfairError for a model without batch norm and for no images.
    """
    if not any(
        isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()
    ):
        raise AimfairError(
            "this backbone has no batch norm, so there are no statistics to estimate again"
        )
    if len(faces) == 0:
        raise AimfairError("no images to estimate batch-norm statistics from")
    order = torch.randperm(len(faces), generator=torch.Generator().manual_seed(seed))
    images = faces.images
    update_bn(
        (as_input(images[index].to(device)) for index in batches(order, batch_size)),
        model.to(device),
    )


def reestimate_on_real(bench: Bench, model: nn.Module) -> None:
    """:func:`reestimate` on the bench's real training images, which are biased: no label says how, and none is read."""
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
