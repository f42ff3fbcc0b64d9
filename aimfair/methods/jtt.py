"""JTT: train briefly, see who is misclassified, train again from the start with those repeated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from aimfair.environment import AimfairError
from aimfair.methods import Bench, Fitted, Method
from aimfair.methods._inferred import early_logits, packed, wrong
from aimfair.methods._scratch import from_scratch
from aimfair.training import Order


def multiplicities(errors: Tensor, upweight: int, added: bool = False) -> Tensor:
    """(N,) how often each sample occurs: once, and in the error set ``upweight`` times, or one more where ``added``.

    The paper gives errors the weight lambda, so that lambda = 1 is ERM; the released code adds lambda copies of them to
    the training set. Raises AimfairError unless ``upweight`` is a whole number >= 1.
    """
    if upweight != int(upweight) or upweight < 1:
        raise AimfairError(f"JTT's upweight must be a whole number >= 1, got {upweight}")
    return torch.where(errors, int(upweight) + int(added), 1)


def repeated_order(times: Tensor, whole: bool = False) -> Order:
    """Shuffle the samples, each repeated ``times`` (N,), without replacement, and keep the first N, or all if ``whole``.

    Where nothing is repeated both are the training loop's own permutation, bit for bit.
    """
    repeated = torch.arange(len(times)).repeat_interleave(times)
    length = len(repeated) if whole else len(times)

    def draw(generator: torch.Generator) -> Tensor:
        return repeated[torch.randperm(len(repeated), generator=generator)][:length]

    return draw


def remark(logits: Tensor, target: Tensor) -> str | None:
    """What to say of a first model (logits (N,) on the training set) that tells nothing about minorities."""
    if not wrong(logits, target).any():
        return "the first model makes no errors on the training set: this is ERM; use fewer first_epochs"
    if (logits >= 0).all() or (logits < 0).all():
        return "the first model predicts one class: the error set is the other; use more first_epochs"
    return None


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """ERM for a few epochs, its errors on the training set, then ERM from the fresh model with the errors repeated.

    first_epochs  T: of the first model; its errors are counted on whole images in evaluation mode
    upweight      lambda: an error occurs lambda times (default) or, with ``added``, lambda + 1 times (released code)
    whole_epochs  False: as many steps as ERM; True: every repetition in every epoch (released), at up to lambda times
                  the cost
    Without errors the second training is ERM, bit for bit, and ``scores["note"]`` says so. The paper chooses T, lambda
    and the epoch by the validation set's worst group; here, as for all, by its overall accuracy.
    """
    multiplicities(torch.zeros(1, dtype=torch.bool), hyper["upweight"])  # refused before a training is spent on it
    logits = early_logits(bench, hyper["first_epochs"], "JTT, first training")
    errors = wrong(logits, bench.train.target)
    times = multiplicities(errors, hyper["upweight"], hyper["added"])
    fitted = from_scratch(bench, f"JTT x{hyper['upweight']}", order=repeated_order(times, hyper["whole_epochs"]))
    by_class = [int(errors[bench.train.target == c].sum()) for c in (0, 1)]
    fitted.scores = {"errors": int(errors.sum()), "errors_by_class": by_class, "error_set": packed(errors)}
    if note := remark(logits, bench.train.target):
        fitted.scores["note"] = note
    return fitted


METHOD = Method(
    name="jtt",
    title="JTT",
    source="Liu et al., ICML 2021, arXiv 2107.09044; Table 1",
    start="scratch",
    fit=fit,
    defaults={"upweight": 10, "first_epochs": 3, "added": False, "whole_epochs": False},
    search={"upweight": (2, 5, 10, 20, 50)},
)
