"""Mix-up of real and synthetic faces: every image of a step is a blend of one real and one synthetic face."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aimfair.environment import AimfairError
from aimfair.methods import LEARNING_RATES, Bench, Fitted, Method
from aimfair.training import Order
from aimfair.training import fit as train

PAIRINGS = ("any", "same label")


def class_balanced(target: Tensor, steps: int, size: int, generator: torch.Generator) -> Tensor:
    """(steps, size) indices of faces: every row the class 0 in its first half, the class 1 in its second, drawn with
    repetition. Raises AimfairError where a class is empty."""
    halves = []
    for label in (0, 1):
        members = torch.nonzero(target == label).squeeze(1)
        if len(members) == 0:
            raise AimfairError(f"mixing needs faces of both classes: there are none of class {label}")
        halves.append(members[torch.randint(len(members), (steps, size // 2), generator=generator)])
    return torch.cat(halves, 1)


def paired(real: Tensor, synthetic: Tensor, size: int, pairing: str) -> Order:
    """The order of an epoch whose batches are ``size`` real faces, then the ``size`` synthetic ones they are mixed with.

    real, synthetic  the targets of the two sets, which are trained on in this order
    """
    steps = max(1, len(real) // size)

    def order(generator: torch.Generator) -> Tensor:
        first, second = (class_balanced(target, steps, size, generator) for target in (real, synthetic))
        if pairing == "any":
            second = second.gather(1, torch.rand(steps, size, generator=generator).argsort(1))
        return torch.cat([first, len(real) + second], 1).flatten()

    return order


def mixed(inputs: Tensor, target: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """``share`` of the first half of a batch plus ``1 - share`` of its second half; targets likewise.

    Cross-entropy is linear in the target, so that of the blended target is the same blend of the two cross-entropies.
    """
    (real, synthetic), (y, z) = inputs.chunk(2), target.chunk(2)
    return share * real + (1 - share) * synthetic, share * y + (1 - share) * z


def beta(a: float, generator: torch.Generator) -> float:
    """One draw from Beta(a, a)."""
    seed = int(torch.randint(2**63 - 1, (1,), generator=generator))
    return float(np.random.default_rng(seed).beta(a, a))


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """Fine-tune all tensors of the biased model on blends of class-balanced batches, one share of the real per step.

    lr, batchnorm  see :func:`aimfair.methods._finetune.schedule`
    a              the share is drawn from Beta(a, a): 1 is uniform, smaller values keep near the pure images
    pairing        "any" blends labels as well; "same label" pairs faces of one class, so that labels stay 0 or 1
    The paper says only that real and synthetic images are mixed up; the released code of LTGC ends before its mixing.
    The start, the share and the pairing are choices of this book. An epoch has as many steps as one of ERM.
    """
    if not hyper["a"] > 0 or hyper["pairing"] not in PAIRINGS:
        raise AimfairError(
            f"a must be above 0 and pairing any or same label, got {hyper['a']!r} and {hyper['pairing']!r}"
        )
    size = bench.finetuning.batch_size // 2 * 2
    model = bench.biased_model()
    history = train(
        model,
        bench.train + bench.balanced,
        bench.validation,
        replace(bench.finetuning, lr=hyper["lr"], batchnorm=hyper["batchnorm"], batch_size=2 * size),
        bench.seed + 1,
        bench.device,
        order=paired(bench.train.target, bench.balanced.target, size, hyper["pairing"]),
        blend=lambda inputs, target, generator: mixed(inputs, target, beta(hyper["a"], generator)),
        what=f"mixing {hyper['lr']:g}",
        resume=bench.resume,
    )
    return Fitted(model, history)


METHOD = Method(
    name="ltgc-mixing",
    title="LTGC-style mixing",
    source="Tables 8 and 9, rows 'LTGC'; Zhao et al., CVPR 2024, arXiv 2403.05854",
    start="biased model",
    fit=fit,
    needs=frozenset({"synthetic"}),
    defaults={"lr": 0.01, "batchnorm": "train", "a": 1.0, "pairing": "any"},
    search={"lr": LEARNING_RATES},
)
