"""Fine-tune one block of a ResNet, or all but one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from aimfair import masks
from aimfair.environment import AimfairError
from aimfair.methods import Bench, Fitted
from aimfair.methods.finetuning import FULL, finetune

BLOCKS = ("stem", "layer1", "layer2", "layer3", "layer4", "fc")
"""Blocks of a ResNet in the order of the forward pass; the stem is the first convolution with its batch norm."""

Learns = Callable[[dict[str, set[str]], str], set[str]]
"""(tensors of each block, a block) -> the tensors that learn."""


def split_blocks(names: Iterable[str]) -> dict[str, set[str]]:
    """The tensors of each block: every tensor is in exactly one.

    Raises AimfairError for a tensor of no block: the model is not a ResNet with torchvision's names.
    """
    parts: dict[str, set[str]] = {block: set() for block in BLOCKS}
    for name in names:
        top = name.split(".")[0]
        block = "stem" if top in ("conv1", "bn1") else top
        if block not in parts:
            raise AimfairError(f"tensor {name} is in none of the blocks {', '.join(BLOCKS)}: blocks need a ResNet")
        parts[block].add(name)
    return parts


def finetune_block(bench: Bench, hyper: Mapping[str, Any], what: str, learns: Learns) -> Fitted:
    """Fine-tune what ``learns`` names of ``hyper["block"]``, which "best" chooses by validation accuracy.

    "best" draws the fine-tuning profile of Kaplun et al. (arXiv 2302.06354): every block in turn, for
    ``profile_epochs`` epochs with the same rate, images and order; then the winner from the start and in full. No group
    label is read. So one configuration, a learning rate, stands for all blocks, and five of them are as large a budget
    as any other method's. With as many epochs in the profile as in the training the winner is the best of six full
    trainings, as in Table 4, at six times the cost.
    """
    parts = split_blocks(name for name, _ in bench.biased_model().named_parameters())
    block, profile = hyper["block"], {}
    if block == "best":
        short = replace(bench.finetuning, epochs=min(hyper["profile_epochs"], bench.finetuning.epochs))
        for candidate in BLOCKS:
            part = replace(bench, finetuning=short, resume=bench.resume_of(candidate))
            tried = finetune(part, hyper, learns(parts, candidate), f"{what} {candidate}, profile")
            profile[candidate] = max(tried.history.validation_accuracy)
        block = max(profile, key=profile.__getitem__)
    elif block not in BLOCKS:
        raise AimfairError(f"block must be best or one of {', '.join(BLOCKS)}, got {block!r}")
    mask = learns(parts, block)
    fitted = finetune(bench, hyper, mask, f"{what} {block}")
    fitted.scores |= {"block": block, "mask": sorted(mask), "scalar_share": masks.scalar_share(fitted.model, mask)}
    if profile:
        fitted.scores["profile"] = profile
    return fitted


def fit_frozen(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """One block stays, the others learn.

    lr, batchnorm   see :func:`aimfair.methods.finetuning.schedule`
    block           stem, layer1 to layer4, fc, or "best": chosen by a profile of ``profile_epochs`` epochs, see
                    :func:`finetune_block`. To compare blocks, give each in turn.
    profile_epochs  2: the profile costs as much as one more fine-tuning
    Raises AimfairError for a ViT: the blocks are those of a ResNet.
    """
    return finetune_block(bench, hyper, "freezing", lambda parts, block: set().union(*parts.values()) - parts[block])


def fit_updated(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """One block learns, the others stay.

    head  the last layer learns too, as in SubTuning; the paper does not say whether it did
    The other hyper-parameters and errors are those of :func:`fit_frozen`.
    """
    beside = {"fc"} if hyper["head"] else set()
    return finetune_block(
        bench, hyper, "updating", lambda parts, block: set().union(*(parts[b] for b in {block, *beside}))
    )


FROZEN = replace(
    FULL,
    name="freeze-one-block",
    title="One block frozen",
    source="Table 4, 'freezing one block'",
    fit=fit_frozen,
    defaults={"lr": 0.01, "batchnorm": "train", "block": "best", "profile_epochs": 2},
)
UPDATED = replace(
    FROZEN,
    name="update-one-block",
    title="One block updated",
    source="Table 4, 'updating one block'; Kaplun et al., arXiv 2302.06354; Lee et al., ICLR 2023",
    fit=fit_updated,
    defaults={"lr": 0.01, "batchnorm": "train", "block": "best", "head": True, "profile_epochs": 2},
)
METHODS = (FROZEN, UPDATED)
