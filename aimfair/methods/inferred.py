"""JTT and EIIL guess who the minorities are: those whom an early model gets wrong.

JTT trains again with them repeated, EIIL by Group DRO over them and the others. :mod:`aimfair.methods.xrm` guesses in
another way and ends as EIIL does.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aimfair.environment import AimfairError
from aimfair.faces import group_index
from aimfair.methods import Bench, Fitted, Method
from aimfair.methods.erm import from_scratch, shuffled
from aimfair.methods.group_dro import GroupDRO, balanced_order
from aimfair.models import evaluate


def early_logits(bench: Bench, epochs: int, what: str) -> Tensor:
    """Logits (N,) of the training faces, whole images, under the model that ERM has after its first ``epochs``.

    A model that fits its training set makes no errors there, and the first thing that it learns is the shortcut. Raises
    AimfairError for less than one epoch.
    """
    if epochs < 1:
        raise AimfairError(f"{what} needs a first model of at least 1 epoch, got {epochs}")
    short = replace(bench, pretraining=replace(bench.pretraining, epochs=epochs, select="last"))
    return evaluate(from_scratch(short, what, part="early").model, bench.train, bench.device)


def wrong(logits: Tensor, target: Tensor) -> Tensor:
    """(N,) bool: the prediction ``logits >= 0`` is not the target."""
    return (logits >= 0) != (target == 1)


def packed(members: Tensor) -> str:
    """A (N,) mask as hexadecimal digits, two for eight members, as a run stores it."""
    return np.packbits(members.cpu().numpy().astype(bool)).tobytes().hex()


def unpacked(digits: str, n: int) -> Tensor:
    """The (n,) bool mask that :func:`packed` wrote."""
    return torch.from_numpy(np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8), count=n).astype(bool))


def multiplicities(errors: Tensor, upweight: int) -> Tensor:
    """(N,) how often each sample occurs: once, and in the error set ``upweight`` times, so that 1 is ERM.

    That is the paper's lambda; the released code adds lambda copies of the errors to the training set. Raises AimfairError
    for less than 1.
    """
    if upweight < 1:
        raise AimfairError(f"JTT's upweight must be at least 1, got {upweight}")
    return torch.where(errors, upweight, 1)


def fit_jtt(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """ERM for a few epochs, its errors on the training set, then ERM from the fresh model with the errors repeated.

    first_epochs  T: of the first model; its errors are counted on whole images in evaluation mode
    upweight      lambda: an error occurs lambda times
    An epoch has as many steps as one of ERM; the released code has every repetition in every epoch. Without errors the second training is ERM, bit for bit, and ``scores["note"]`` says so.
    """
    target = bench.train.target
    multiplicities(target == 1, hyper["upweight"])  # a wrong value is refused before a training is spent on it
    logits = early_logits(bench, hyper["first_epochs"], "JTT, first training")
    errors = wrong(logits, target)
    repeated = torch.arange(len(target)).repeat_interleave(multiplicities(errors, hyper["upweight"]))
    order = shuffled(repeated, len(target))
    by_class = [int(errors[target == c].sum()) for c in (0, 1)]
    scores: dict[str, Any] = {"errors": int(errors.sum()), "errors_by_class": by_class, "error_set": packed(errors)}
    if not errors.any():
        scores["note"] = "the first model makes no errors on the training set: this is ERM; use fewer first_epochs"
    elif len((logits >= 0).unique()) == 1:
        scores["note"] = "the first model predicts one class: the error set is the other; use more first_epochs"
    return replace(from_scratch(bench, f"JTT x{hyper['upweight']}", order=order), scores=scores)


def scale_gradients(logits: Tensor, target: Tensor) -> Tensor:
    """Gradient (N,) of each face's loss with respect to a scale on its logit, at scale 1: ``(sigmoid(z) - y) z``.

    It is negative where the model is right (more confidence would pay) and positive where it is wrong.
    """
    return (torch.sigmoid(logits) - target) * logits


def violation(q: Tensor, d: Tensor) -> Tensor:
    """The invariance penalty that the split maximises: half the squared gradients of both environments, summed.

    q (N,) in [0, 1] is the share of each sample in environment 1. Both sums are divided by N, as in the released code,
    not by the size of the environment.
    """
    return 0.5 * ((q * d).mean() ** 2 + ((1 - q) * d).mean() ** 2)


def sign_split(d: Tensor) -> Tensor:
    """The exact maximum of :func:`violation`, (N,) bool: it is convex in q, and largest with all d > 0 on one side.

    The released code climbs to it by Adam from random soft assignments.
    """
    return d > 0


def train_on_environments(bench: Bench, environment: Tensor, eta: float, what: str) -> Fitted:
    """Group DRO from scratch over the groups (target, environment), drawn alike.

    environment  (N,) of {0, 1}, one for each training face. Where one of the two is empty, the two classes are left as
                 groups, and ``scores["note"]`` says so.
    The scores hold the sizes of the groups, their weights at the end and the environment of each face, packed.
    """
    groups = group_index(bench.train.target, environment.long())
    loss = GroupDRO(groups, eta)
    fitted = from_scratch(bench, what, loss=loss, order=balanced_order(groups))
    fitted.scores = {
        "groups": torch.bincount(groups, minlength=4).tolist(),
        "group_weights": [round(weight, 4) for weight in loss.q.tolist()],
        "environment": packed(environment),
    }
    if environment.min() == environment.max():
        fitted.scores["note"] = f"environment {1 - int(environment[0])} is empty: Group DRO over the two classes"
    return fitted


def fit_eiil(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """ERM for a few epochs, environments from its logits, Group DRO from scratch over (target, environment).

    reference_epochs   of ERM. A model that fits its training set is wrong nowhere and leaves an environment empty;
                       then the groups are the two classes, and ``scores["note"]`` says so.
    eta                step size of the group weights
    Environment 1 is in effect the reference's error set, as in JTT. The paper's own second stage for colour-MNIST is
    IRMv1; for images it used Group DRO, as here.
    """
    if hyper["eta"] < 0:
        raise AimfairError(f"EIIL needs eta >= 0, got {hyper['eta']}")
    logits = early_logits(bench, hyper["reference_epochs"], "EIIL, reference")
    d = scale_gradients(logits, bench.train.target)
    environment = sign_split(d)
    fitted = train_on_environments(bench, environment, hyper["eta"], "EIIL")
    fitted.scores["violation"] = violation(environment.float(), d).item()
    return fitted


JTT = Method(
    name="jtt",
    title="JTT",
    source="Liu et al., ICML 2021, arXiv 2107.09044; Table 1",
    start="scratch",
    fit=fit_jtt,
    defaults={"upweight": 10, "first_epochs": 3},
    fixed={"added": False, "whole_epochs": False},
    search={"upweight": (2, 5, 10, 20, 50)},
)
EIIL = Method(
    name="eiil",
    title="EIIL",
    source="Creager, Jacobsen, Zemel, ICML 2021, arXiv 2010.07249; Table 1",
    start="scratch",
    fit=fit_eiil,
    defaults={"reference_epochs": 3, "eta": 0.01},
    fixed={"split": "sign", "steps": 10_000, "lr": 0.001},
    search={"reference_epochs": (1, 2, 3, 5, 8)},
)
METHODS = (JTT, EIIL)
