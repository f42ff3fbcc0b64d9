"""What all fine-tuning methods share: from the biased model, on the balanced synthetic images."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from aimfair.methods import Bench, Fitted
from aimfair.methods._kept import Tuned, digest, once, weights
from aimfair.training import Schedule, fit

RULES = ("validation-accuracy", "last")
"""Checkpoint rules that share a training; one that reads group labels of validation faces has its own."""


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
    What this process has just trained in the same way is not trained again (:mod:`aimfair.methods._kept`): the checkpoint
    rule decides which weights are kept and nothing about how they came about. A ``model`` that is handed in is always
    trained: what decides its answers need not be in its tensors (the scale of an adapter is not).
    """
    plan = schedule(bench, hyper)
    shared = model is None and plan.select in RULES
    model = bench.biased_model() if model is None else model

    def tune() -> Tuned:
        last: dict[str, Tensor] = {}
        history = fit(
            model,
            bench.balanced,
            bench.validation,
            replace(plan, select=RULES[0]) if shared else plan,
            bench.seed + 1,  # not the order and the crops of the pre-training
            bench.device,
            trainable=trainable,
            what=what,
            resume=bench.resume,
            at_end=lambda: last.update(weights(model)),
        )
        return Tuned(history, weights(model), last)

    if not shared:
        return Fitted(model, tune().history)
    faces = (bench.balanced, bench.validation)
    decisive = replace(plan, select=RULES[0]), bench.seed, bench.device, trainable and sorted(trainable)
    tuned = once(digest(model.state_dict(), faces, *decisive), tune)
    model.load_state_dict(tuned.best if plan.select == RULES[0] else tuned.last)
    chosen = tuned.history.chosen if plan.select == RULES[0] else plan.epochs - 1
    return Fitted(model.to(bench.device), replace(tuned.history, chosen=chosen))
