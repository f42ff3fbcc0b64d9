"""Fine-tune what a lot selects: as many tensors as AIM-Fair, or a share of the tensors or of the single weights."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from aimfair import masks
from aimfair.environment import AimfairError
from aimfair.methods import Bench, Fitted
from aimfair.methods.finetuning import FULL, finetune
from aimfair.repairing import choose_mask


def fit_same_size(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """The control of any mask: a random set of the size of AIM-Fair's mask at the same ``k`` and seed. ``draw`` numbers
    the masks, ``lr`` and ``batchnorm`` are those of :func:`aimfair.methods.finetuning.schedule`."""
    gaps = bench.gaps("absolute", "train")
    size = len(choose_mask(*gaps, hyper["k"]))
    mask = masks.random_mask(list(gaps[0]), size, seed=1000 * bench.seed + hyper["draw"])
    fitted = finetune(bench, hyper, mask, f"random mask {hyper['draw']}")
    fitted.scores["mask"] = sorted(mask)
    return fitted


def random_elements(model: nn.Module, ratio: float, seed: int) -> dict[str, Tensor]:
    """A mask of bool per tensor: ``ratio`` of all single weights, rounded, drawn without regard to tensors."""
    sizes = {name: parameter.shape for name, parameter in model.named_parameters()}
    total = sum(shape.numel() for shape in sizes.values())
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros(total, dtype=torch.bool)
    chosen[torch.randperm(total, generator=generator)[: round(total * ratio)]] = True
    parts = chosen.split([shape.numel() for shape in sizes.values()])
    return {name: part.reshape(shape) for (name, shape), part in zip(sizes.items(), parts, strict=True)}


def fit_share(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """One mask per seed, from a generator of its own; ``draw`` numbers further ones.

    lr, batchnorm  see :func:`aimfair.methods.finetuning.schedule`
    ratio          share that learns, 0 to 1 (the paper: .40, .55, .70, .85): 25, 34, 43 or 53 of ResNet-18's 62 tensors
    unit           "tensor" or "element"; the paper does not say what it drew
    With ratio 1 this is full fine-tuning; with 0 nothing learns, though running statistics may drift.
    """
    ratio, unit = hyper["ratio"], hyper["unit"]
    if not 0 <= ratio <= 1 or unit not in ("tensor", "element"):
        raise AimfairError(f"ratio must be 0 to 1 and unit tensor or element, got {ratio!r} and {unit!r}")
    model, seed, what = bench.biased_model(), 1000 * bench.seed + hyper["draw"], f"random {ratio:.0%}"
    names = [name for name, _ in model.named_parameters()]
    size = round(len(names) * ratio)
    if unit == "element" or size == 0:
        elements = random_elements(model, ratio if unit == "element" else 0.0, seed)
        fitted = finetune(bench, hyper, elements, what)
        moving = sum(int(chosen.sum()) for chosen in elements.values())
        fitted.scores["scalar_share"] = moving / sum(chosen.numel() for chosen in elements.values())
        return fitted
    mask = masks.random_mask(names, size, seed)
    fitted = finetune(bench, hyper, mask, what)
    fitted.scores |= {"mask": sorted(mask), "scalar_share": masks.scalar_share(model, mask)}
    return fitted


SAME_SIZE = replace(
    FULL,
    name="random-mask",
    title="Random mask, same size",
    source="control; Table 4 compares random selections of other sizes",
    fit=fit_same_size,
    defaults={"lr": 0.01, "batchnorm": "train", "k": 55, "draw": 0},
)
SHARE = replace(
    SAME_SIZE,
    name="random-ratio",
    title="Random selection",
    source="Table 4, 'random'",
    fit=fit_share,
    defaults={"lr": 0.01, "batchnorm": "train", "ratio": 0.7, "unit": "tensor", "draw": 0},
)
METHODS = (SAME_SIZE, SHARE)
