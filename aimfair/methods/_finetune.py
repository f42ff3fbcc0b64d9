"""What all fine-tuning methods share: from the biased model, on the balanced synthetic images."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from aimfair.methods import Bench, Fitted
from aimfair.training import Schedule, fit


def schedule(bench: Bench, hyper: Mapping[str, Any]) -> Schedule:
    """The bench's fine-tuning with ``hyper``'s lr, batch-norm policy and, where it names one, checkpoint rule.

    lr         constant. The paper searches .4, .5 and .6; its released code has .05 as the default and .06 in the script
               that runs it. Here .01 is the default and .001 to .1 is searched, with the rates of the code between
    batchnorm  "train" is the official form: the running statistics of every layer follow the synthetic images, those of
               frozen layers too; "eval" keeps the biased model's
    select     which epoch is kept, see :class:`aimfair.training.Schedule`
    """
    select = hyper.get("select", bench.finetuning.select)
    return replace(bench.finetuning, lr=hyper["lr"], batchnorm=hyper["batchnorm"], select=select)


def finetune(
    bench: Bench, hyper: Mapping[str, Any], trainable: set[str] | None, what: str, model: nn.Module | None = None
) -> Fitted:
    """Fine-tune the ``trainable`` tensors (None: all) of the biased model, or of ``model`` which was made of it, by
    :func:`schedule`.

    All methods of one seed see the same images in the same order with the same crops, so their differences are paired.
    """
    model = bench.biased_model() if model is None else model
    history = fit(
        model,
        bench.balanced,
        bench.validation,
        schedule(bench, hyper),
        bench.seed + 1,  # not the order and the crops of the pre-training
        bench.device,
        trainable=trainable,
        what=what,
        resume=bench.resume,
    )
    return Fitted(model, history)
