"""Batch-norm statistics estimated anew, from images without labels."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from aimfair.environment import AimfairError
from aimfair.faces import FaceSet
from aimfair.methods import Bench
from aimfair.models import as_input
from aimfair.training import batches


def reestimate(model: nn.Module, faces: FaceSet, batch_size: int, seed: int, device: str) -> None:
    """Replace all running means and variances of ``model`` by those of the images of ``faces``, in place.

    They become the mean over shuffled batches of each batch's mean and unbiased variance, from one pass through whole
    images, as they are looked at in testing; the last incomplete batch is dropped. Weights, labels and the model's mode
    are left alone. Raises AimfairError for a model without batch norm and for no images.
    """
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        raise AimfairError("this backbone has no batch norm, so there are no statistics to estimate again")
    if len(faces) == 0:
        raise AimfairError("no images to estimate batch-norm statistics from")
    order = torch.randperm(len(faces), generator=torch.Generator().manual_seed(seed))
    images = faces.images
    update_bn((as_input(images[index].to(device)) for index in batches(order, batch_size)), model.to(device))


def reestimate_on_real(bench: Bench, model: nn.Module) -> None:
    """:func:`reestimate` on the bench's real training images, which are biased: no label says how, and none is read."""
    reestimate(model, bench.train.without_protected(), bench.finetuning.batch_size, bench.seed, bench.device)
