"""Training on real and synthetic faces together, in the ways of the paper's Table 3, and on synthetic ones alone."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aimfair import repairing, sampling
from aimfair.environment import AimfairError
from aimfair.faces import FaceSet
from aimfair.methods import LEARNING_RATES, Bench, Fitted, Method
from aimfair.methods.erm import from_scratch, shuffled
from aimfair.methods.finetuning import schedule
from aimfair.training import Order

PAIRINGS = ("any", "same label")


def fit_synthetic(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """As ERM, with the balanced synthetic set in place of the real one; the epoch is still chosen on real images."""
    return from_scratch(replace(bench, train=bench.balanced), "synthetic only")


def fit_supplemented(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """As ERM, on the real and the balanced synthetic set shuffled together: the bias is milder then, not gone.

    equal_steps  false: an epoch is all of both sets, as in the paper; true: it is a random part as large as the real set,
                 so that training is no longer than ERM's
    """
    both = bench.train + bench.balanced
    order = shuffled(torch.arange(len(both)), len(bench.train) if hyper["equal_steps"] else len(both))
    return from_scratch(replace(bench, train=both), "supplementation", order=order)


def missing(shares: Sequence[float], faces: int) -> list[int]:
    """How many faces each group of a set of ``faces`` with these group shares lacks to be as large as the largest.

    20,000 at .05, .45, .45, .05 lack 8,000 of the first and of the last.
    """
    counts = [round(share * faces) for share in shares]
    return [max(counts) - count for count in counts]


def repaired(train: FaceSet, shares: Sequence[float], pool: FaceSet, seed: int) -> tuple[FaceSet, list[int], list[int]]:
    """``train`` with what its groups lack, as far as ``pool`` has it; the numbers added, and those wanted."""
    wanted = missing(shares, len(train))
    added = [min(pair) for pair in zip(wanted, pool.counts(), strict=True)]
    if not sum(added):
        return train, added, wanted
    drawn = sampling.per_group(pool.groups // 2, pool.groups % 2, added, seed)
    return train + pool.subset(drawn), added, wanted


def fit_repaired(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """As ERM, with synthetic images added to the small groups until all are equal. No label of a real face is read: how
    many there are of each group is taken from the shares that the study assumes, as AIM-Fair takes its bias ratio.

    A pool that is too small gives what it has, and a note. Equal counts do not unbias: the synthetic images show only
    those groups where target and protected attribute agree, so a network that tells synthetic from real still predicts
    the target from the protected attribute.
    """
    pool = bench.balanced if bench.pool is None else bench.pool
    faces, added, wanted = repaired(bench.train, bench.shares, pool, bench.seed + 2)
    scores: dict[str, Any] = {"added": added}
    if added != wanted:
        scores["note"] = f"the groups stay unequal: {wanted} synthetic faces are wanted, the pool has {pool.counts()}"
    return replace(from_scratch(replace(bench, train=faces), "repairing"), scores=scores)


def paired(real: Tensor, synthetic: Tensor, size: int, pairing: str) -> Order:
    """The order of an epoch whose batches are ``size`` real faces, then the ``size`` synthetic ones they are mixed with.

    real, synthetic  the targets of the two sets, which are trained on in this order
    Of each set a batch has the class 0 in its first half and the class 1 in its second, drawn with repetition; with the
    pairing "any" the synthetic ones are shuffled. Raises AimfairError where a class is empty.
    """
    steps = max(1, len(real) // size)
    classes = [torch.nonzero(target == label).flatten() for target in (real, synthetic) for label in (0, 1)]
    if not all(map(len, classes)):
        raise AimfairError("mixing needs real and synthetic faces of both classes")

    def order(generator: torch.Generator) -> Tensor:
        a, b, c, d = (m[torch.randint(len(m), (steps, size // 2), generator=generator)] for m in classes)
        second = torch.cat([c, d], 1)
        if pairing == "any":
            second = second.gather(1, torch.rand(steps, size, generator=generator).argsort(1))
        return torch.cat([a, b, len(real) + second], 1).flatten()

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


def fit_mixed(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """Fine-tune all tensors of the biased model on mix-up: every image of a step blends a real and a synthetic face, with
    one share of the real for the step. Batches are class-balanced.

    lr, batchnorm  see :func:`aimfair.methods.finetuning.schedule`
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
    history = repairing.finetune(
        model,
        bench.train + bench.balanced,
        bench.validation,
        replace(schedule(bench, hyper), batch_size=2 * size),
        bench.seed,
        bench.device,
        order=paired(bench.train.target, bench.balanced.target, size, hyper["pairing"]),
        blend=lambda inputs, target, generator: mixed(inputs, target, beta(hyper["a"], generator)),
        what=f"mixing {hyper['lr']:g}",
        resume=bench.resume,
    )
    return Fitted(model, history)


SYNTHETIC_ONLY = Method(
    name="synthetic-only",
    title="Trained on synthetic only",
    source="Table 3, second row; last row of Table 5",
    start="scratch",
    fit=fit_synthetic,
    needs=frozenset({"synthetic"}),
)
SUPPLEMENTATION = replace(
    SYNTHETIC_ONLY,
    name="supplementation",
    title="Data supplementation",
    source="Table 3, row 'Data Supplementation'; Shin et al., arXiv 2306.07200",
    fit=fit_supplemented,
    defaults={"equal_steps": False},
)
REPAIRING = replace(
    SYNTHETIC_ONLY,
    name="repairing",
    title="Data repairing",
    source="Table 3, row 'Data Repairing'; D'Incà et al., WACV 2024; Ye-Bin et al., arXiv 2308.00994",
    fit=fit_repaired,
)
MIXING = replace(
    SYNTHETIC_ONLY,
    name="ltgc-mixing",
    title="LTGC-style mixing",
    source="Tables 8 and 9, rows 'LTGC'; Zhao et al., CVPR 2024, arXiv 2403.05854",
    start="biased model",
    fit=fit_mixed,
    defaults={"lr": 0.01, "batchnorm": "train", "a": 1.0, "pairing": "any"},
    search={"lr": LEARNING_RATES},
)
METHODS = (SYNTHETIC_ONLY, SUPPLEMENTATION, REPAIRING, MIXING)
