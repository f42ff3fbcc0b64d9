"""What all fine-tuning methods share: from the biased model, on the balanced synthetic images."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from aimfair.methods import Bench, Fitted
from aimfair.training import fit


def finetune(
    bench: Bench, hyper: Mapping[str, Any], trainable: set[str] | None, what: str, model: nn.Module | None = None
) -> Fitted:
    """Fine-tune the ``trainable`` tensors (None: all) of the biased model, or of ``model`` which was made of it, with
    ``hyper``'s lr and batch-norm policy.

    All methods of one seed see the same images in the same order with the same crops, so their differences are paired.
    """
    model = bench.biased_model() if model is None else model
    schedule = replace(bench.finetuning, lr=hyper["lr"], batchnorm=hyper["batchnorm"])
    history = fit(
        model,
        bench.balanced,
        bench.validation,
        schedule,
        bench.seed + 1,  # not the order and the crops of the pre-training
        bench.device,
        trainable=trainable,
        what=what,
        resume=bench.resume,
    )
    return Fitted(model, history)
