"""What methods share that must guess who the minorities are: an early model, its errors, Group DRO over the guess."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from aimfair.environment import AimfairError
from aimfair.faces import FaceSet, group_index
from aimfair.methods import Bench, Fitted
from aimfair.methods._group_dro import GroupDRO, balanced_order
from aimfair.methods._scratch import from_scratch
from aimfair.models import evaluate


def early_logits(bench: Bench, epochs: int, what: str) -> Tensor:
    """Logits (N,) of the training faces, whole images, under the model that ERM has after its first ``epochs``.

    Early, because a model that fits its training set makes no errors there, and the first thing that it learns is the
    shortcut. Raises AimfairError for less than one epoch.
    """
    if epochs < 1:
        raise AimfairError(f"{what} needs a first model of at least 1 epoch, got {epochs}")
    schedule = replace(bench.pretraining, epochs=epochs, select="last")
    early = from_scratch(bench, what, schedule=schedule, part="early")
    return evaluate(early.model, bench.train, bench.device)


def wrong(logits: Tensor, target: Tensor) -> Tensor:
    """(N,) bool: the prediction ``logits >= 0`` is not the target."""
    return (logits >= 0) != (target == 1)


def check_eta(eta: float) -> None:
    """Raises AimfairError for a step size that Group DRO would refuse, before the first training is spent on it."""
    if eta < 0:
        raise AimfairError(f"eta must be >= 0, got {eta}")


def group_dro(bench: Bench, environment: Tensor, validation: FaceSet, eta: float, select: str, what: str) -> Fitted:
    """Group DRO from scratch over the groups (target, environment), drawn alike; the epoch by ``select``.

    environment  (N,) of {0, 1}, one per training face. Where one of the two is empty, what is left are the two
                 classes, and ``scores["note"]`` says so.
    The scores hold the sizes of the groups, their weights at the end and the environment of each face, packed.
    """
    groups = group_index(bench.train.target, environment.long())
    loss = GroupDRO(groups, eta, n_groups=4)
    schedule = replace(bench.pretraining, select=select)
    fitted = from_scratch(
        bench, what, validation=validation, schedule=schedule, loss=loss, order=balanced_order(groups)
    )
    fitted.scores = {
        "groups": torch.bincount(groups, minlength=4).tolist(),
        "group_weights": [round(weight, 4) for weight in loss.q.tolist()],
        "environment": packed(environment),
    }
    if environment.min() == environment.max():
        fitted.scores["note"] = f"environment {1 - int(environment[0])} is empty: Group DRO over the two classes"
    return fitted


def packed(members: Tensor) -> str:
    """A (N,) mask as hexadecimal digits, eight members in two, so that a run can keep it."""
    return np.packbits(members.cpu().numpy().astype(bool)).tobytes().hex()


def unpacked(digits: str, n: int) -> Tensor:
    """The (n,) bool mask that :func:`packed` wrote; whoever may read protected labels can hold it against them."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8), count=n)
    return torch.from_numpy(bits.astype(bool))
