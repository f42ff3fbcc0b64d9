"""Groups taught by synthetic faces: what the prompts say of drawn faces teaches who is who among the real ones.

Every synthetic face knows its protected value, because its prompt asked for it. A classifier of the protected attribute
learns from such faces alone and guesses the group of every real training face; the classifier of the target then trains
on the real faces with the guessed groups balanced. It is told what AIM-Fair is told: prompts and the assumed shares.

Guesses come from elsewhere in earlier work: from a model's errors (:mod:`aimfair.methods.inferred`,
:mod:`aimfair.methods.xrm`), from a few labelled faces (SSA, Nam et al., ICLR 2022, arXiv 2204.02070), from a second set
with other group shares (GIC, Han and Zou, ICML 2024, arXiv 2404.13815), from captions or CLIP (PG-DRO, Ghosal and Li, AAAI
2023, arXiv 2303.05809, with soft groups; B2T, Kim et al., CVPR 2024, arXiv 2301.11104). Zhao et al. (arXiv 2406.02889) have
both pseudo-labels and drawn images, but the labels do not come from the images. We found no one who learns them there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aimfair import sampling
from aimfair.environment import AimfairError
from aimfair.faces import FaceSet, group_index
from aimfair.methods import CHECKPOINT_RULE, LEARNING_RATES, Bench, Fitted, Method
from aimfair.methods.batchnorm_real import reestimate_on_real
from aimfair.methods.erm import from_scratch, shuffled
from aimfair.methods.finetuning import finetune
from aimfair.methods.inferred import packed, train_on_environments
from aimfair.models import evaluate

OPTIONS: dict[str, Any] = {
    "cut": "share",
    "reestimate": True,
    "soft": False,
    "balance": "sampling",
    "faces": 0,
}
"""Hyper-parameters of :func:`fit` and their usual values."""


def lessons(pool: FaceSet, each: int, seed: int) -> tuple[FaceSet, FaceSet]:
    """``each`` synthetic faces of every group to learn from (0: all), and a tenth of the pool that is held out.

    Both have the protected attribute as their target. The same faces are held out whatever ``each`` is, and fewer faces
    lie within more. Raises AimfairError where the pool has too few.
    """
    labels, smallest = (pool.groups // 2, pool.groups % 2), min(pool.counts())
    most = smallest - max(1, smallest // 10)
    if not 0 <= each <= most or most < 1:
        raise AimfairError(
            f"{each} synthetic faces of each group to learn from: the pool has {most} beside those held out"
        )
    held_out = np.setdiff1d(
        sampling.balanced(*labels, smallest, seed), sampling.balanced(*labels, most, seed)
    )
    taught = replace(pool, target=pool.groups % 2, protected=None)
    return taught.subset(sampling.balanced(*labels, each or most, seed)), taught.subset(
        held_out
    )


def learn_groups(
    bench: Bench, taught: FaceSet, held_out: FaceSet, reestimate: bool
) -> tuple[nn.Module, Tensor]:
    """A classifier of the protected attribute, and its logits on the faces held out, before statistics change.

    The bench's fresh model trains by its pre-training schedule, but for as many epochs, of as many faces as there are
    real ones, as a fine-tuning has; the last third at a smaller rate. With ``reestimate`` its batch-norm statistics are
    those of the real training faces, whose labels are not read; a network without batch norm has none.
    """
    epochs = bench.finetuning.epochs
    schedule = replace(
        bench.pretraining, epochs=epochs, milestones=(max(1, 2 * epochs // 3),), select="last"
    )
    order = shuffled(torch.arange(len(taught)), len(bench.train))
    lesson = replace(bench, train=taught, validation=held_out, pretraining=schedule)
    teacher = from_scratch(
        lesson, "groups of synthetic faces", part="teacher", order=order
    ).model
    answers = evaluate(teacher, held_out, bench.device)
    if reestimate and any(
        isinstance(m, nn.modules.batchnorm._BatchNorm) for m in teacher.modules()
    ):
        reestimate_on_real(bench, teacher)
    return teacher, answers


def cut_at(logits: Tensor, share: float) -> float:
    """The value between two logits above which ``share`` of them lie, rounded to whole faces; infinite for none or all."""
    edge = torch.tensor([torch.inf])
    ordered = torch.cat([edge, logits.sort(descending=True).values, -edge])
    above = round(share * len(logits))
    return ((ordered[above] + ordered[above + 1]) / 2).item()


def corrected_share(guessed: float, right: float, wrong: float) -> float:
    """Share of protected 1 where a share ``guessed`` is taken for it by a classifier that takes ``right`` of those who
    are and ``wrong`` of those who are not (Forman, DMKD 2008; Lipton et al., ICML 2018). A coin leaves it as guessed."""
    return (
        guessed if right == wrong else min(1.0, max(0.0, (guessed - wrong) / (right - wrong)))
    )


def guess(
    bench: Bench, cut: str, faces: int, reestimate: bool
) -> tuple[Tensor, dict[str, Any]]:
    """Probability (N,) of protected 1 for each real training face, .5 at the cut, and what is worth keeping of it.

    The arguments are hyper-parameters of :func:`fit`. No protected label of a real face is read.
    """
    if cut not in ("share", "half", "confusion"):
        raise AimfairError(f"cut must be share, half or confusion, got {cut!r}")
    pool = bench.balanced if bench.pool is None else bench.pool
    taught, held_out = lessons(pool, faces, bench.seed + 3)
    teacher, answers = learn_groups(bench, taught, held_out, reestimate)
    logits, target = evaluate(teacher, bench.train, bench.device).clone(), bench.train.target
    yes, known = answers >= 0, held_out.target == 1
    for c in (0, 1):
        of_class = target == c
        if cut == "share":
            ones = bench.shares[2 * c + 1] / (bench.shares[2 * c] + bench.shares[2 * c + 1])
        elif cut == "confusion":
            rates = (yes[known].float().mean().item(), yes[~known].float().mean().item())
            ones = corrected_share((logits[of_class] >= 0).float().mean().item(), *rates)
        if cut != "half":
            logits[of_class] -= cut_at(logits[of_class], ones)
    groups = torch.bincount(group_index(target, (logits >= 0).long()), minlength=4)
    scores = {
        "synthetic_faces": len(taught),
        "synthetic_accuracy": round(100 * (yes == known).float().mean().item(), 2),
        "shares": [round(share, 4) for share in (groups / len(target)).tolist()],
        "guesses": packed(logits >= 0),
    }
    return logits.sigmoid(), scores


def equal_groups(probability: Tensor, target: Tensor, soft: bool) -> Tensor:
    """Weights (N,) by which faces are drawn so that all (target, guess) groups are equally frequent.

    soft  a face belongs to both groups of its target, by its ``probability`` (N,) of protected 1
    """
    ones = probability.double() if soft else (probability >= 0.5).double()
    member = (
        F.one_hot(target, 2).double()[:, :, None] * torch.stack([1 - ones, ones], 1)[:, None]
    )  # (N, 2, 2)
    return (member / member.sum(0).clamp_min(1e-12)).sum((1, 2))


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """Teach a classifier of the protected attribute on synthetic faces, guess real groups, train on real faces by them.

    cut         where a guess begins. "share": in each class of the target as many real faces as the study assumes, those
                of whom the teacher is surest; "half": at a probability of .5; "confusion": as many as the teacher says
                at .5, corrected by how often it errs on synthetic faces held out, so that no share is assumed; where
                it reads all of those rightly, that is "half"
    reestimate  batch-norm statistics of the teacher from the real training faces, without labels
    soft        draw by the probabilities of both groups in place of the likelier one; for "sampling" alone
    balance     "sampling" draws (target, guess) groups alike, with replacement, an epoch as long as ERM's; "group-dro"
                minimises the loss of the worst of them as well
    faces       how many synthetic faces of each group the teacher learns from; 0: all but a tenth
    Whose guess was right is not known here; ``scores["guesses"]`` has them packed, for who may read the labels.
    """
    cut, reestimate, soft, balance, faces = ({**OPTIONS, **hyper}[name] for name in OPTIONS)
    if balance not in ("sampling", "group-dro") or (soft and balance != "sampling"):
        raise AimfairError(
            f"balance must be sampling, or group-dro without soft, got {balance!r}, soft {soft!r}"
        )
    probability, scores = guess(bench, cut, faces, reestimate)
    if balance == "group-dro":
        fitted = train_on_environments(
            bench, probability >= 0.5, 0.01, "synthetic groups, Group DRO"
        )
    else:
        weights = equal_groups(probability, bench.train.target, soft)
        fitted = from_scratch(
            bench,
            "synthetic groups",
            order=lambda generator: torch.multinomial(
                weights, len(weights), replacement=True, generator=generator
            ),
        )
    fitted.scores |= scores
    return fitted


def fit_tuned(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """As :func:`fit`, and then all tensors are fine-tuned on the balanced synthetic faces from there.

    lr, batchnorm  of the fine-tuning, see :func:`aimfair.methods.finetuning.schedule`; "eval" keeps the statistics
    """
    first = fit(replace(bench, resume=bench.resume_of("first")), hyper)
    fitted = finetune(bench, hyper, None, "synthetic groups, fine-tuning", first.model)
    fitted.scores |= first.scores
    return fitted


SYNTHETIC_GROUPS = Method(
    name="synthetic-groups",
    title="Groups taught by synthetic faces",
    source="this book's own",
    start="scratch",
    fit=fit,
    needs=frozenset({"synthetic"}),
    options=OPTIONS,
    beyond=True,
)
TUNED = replace(
    SYNTHETIC_GROUPS,
    name="synthetic-groups-tuned",
    title="Groups taught by synthetic faces, then tuned",
    fit=fit_tuned,
    defaults={"lr": 0.01, "batchnorm": "eval"},
    search={"lr": LEARNING_RATES},
    options={**OPTIONS, **CHECKPOINT_RULE},
)
METHODS = (SYNTHETIC_GROUPS, TUNED)
