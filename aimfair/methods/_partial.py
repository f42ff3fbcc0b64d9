"""What the methods share that fine-tune a part of the network: blocks, shares, and masks of single weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from aimfair.environment import AimfairError
from aimfair.methods import Bench, Fitted
from aimfair.methods._finetune import finetune, schedule
from aimfair.training import fit

BLOCKS = ("stem", "layer1", "layer2", "layer3", "layer4", "fc")
"""Blocks of a ResNet in the order of the forward pass; the stem is the first convolution with its batch norm."""

STEM = ("conv1", "bn1")


def blocks(names: Iterable[str]) -> dict[str, set[str]]:
    """The tensors of each block: every tensor is in exactly one.

    Raises AimfairError for a tensor of no block: the model is not a ResNet with torchvision's names.
    """
    parts: dict[str, set[str]] = {block: set() for block in BLOCKS}
    for name in names:
        top = name.split(".")[0]
        block = "stem" if top in STEM else top
        if block not in parts:
            raise AimfairError(f"tensor {name} is in none of the blocks {', '.join(BLOCKS)}: blocks need a ResNet")
        parts[block].add(name)
    return parts


def scalar_share(model: nn.Module, mask: set[str]) -> float:
    """Share of the model's single weights that lie in the tensors of ``mask``: a quarter of ResNet-18's tensors
    (layer4) holds three quarters of its weights."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    return sum(sizes[name] for name in mask) / sum(sizes.values())


def finetune_blocks(bench: Bench, hyper: Mapping[str, Any], tensors: Callable[[str], set[str]], what: str) -> Fitted:
    """Fine-tune ``tensors(block)`` of ``hyper["block"]``, which "best" chooses by validation accuracy.

    "best" draws the fine-tuning profile of Kaplun et al. (arXiv 2302.06354): every block in turn, for
    ``profile_epochs`` epochs with the same rate, images and order; then the winner from the start and in full. No group
    label is read. So one configuration, a learning rate, stands for all blocks, and five of them are as large a budget
    as any other method's. With as many epochs in the profile as in the training the winner is the best of six full
    trainings, as in Table 4, at six times the cost.
    """
    block, profile = hyper["block"], {}
    if block == "best":
        epochs = min(hyper["profile_epochs"], bench.finetuning.epochs)
        for candidate in BLOCKS:
            short = replace(bench.finetuning, epochs=epochs)
            part = replace(bench, finetuning=short, resume=bench.resume_of(candidate))
            tried = finetune(part, hyper, trainable=tensors(candidate), what=f"{what} {candidate}, profile")
            profile[candidate] = max(tried.history.validation_accuracy)
        block = max(profile, key=profile.__getitem__)
    elif block not in BLOCKS:
        raise AimfairError(f"block must be best or one of {', '.join(BLOCKS)}, got {block!r}")
    mask = tensors(block)
    fitted = finetune(bench, hyper, trainable=mask, what=f"{what} {block}")
    fitted.scores |= {"block": block, "mask": sorted(mask), "scalar_share": scalar_share(fitted.model, mask)}
    if profile:
        fitted.scores["profile"] = profile
    return fitted


@contextmanager
def only_elements(model: nn.Module, masks: Mapping[str, Tensor], weight_decay: float) -> Iterator[None]:
    """Let SGD move only the weights where ``masks`` (name -> bool, shape of the tensor) are true.

    Inside the block the optimiser must have no weight decay of its own: it is added to the gradient here, where the
    mask is true. Elsewhere gradient and momentum are exactly 0, so that those weights stay bit-identical.
    """

    def keep(parameter: nn.Parameter, mask: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda gradient: torch.where(mask, gradient + weight_decay * parameter.detach(), 0.0)

    named = dict(model.named_parameters())
    handles = [named[name].register_hook(keep(named[name], mask)) for name, mask in masks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def finetune_elements(bench: Bench, hyper: Mapping[str, Any], masks: Mapping[str, Tensor], what: str) -> Fitted:
    """As :func:`aimfair.methods._finetune.finetune`, for masks of single weights in place of whole tensors."""
    model = bench.biased_model().to(bench.device)
    masks = {name: mask.to(bench.device) for name, mask in masks.items()}
    with only_elements(model, masks, bench.finetuning.weight_decay):
        history = fit(
            model,
            bench.balanced,
            bench.validation,
            replace(schedule(bench, hyper), weight_decay=0.0),
            bench.seed + 1,
            bench.device,
            trainable=set(masks),
            what=what,
            resume=bench.resume,
        )
    return Fitted(model, history)
