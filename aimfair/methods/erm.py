"""Empirical risk minimisation on the biased real images: the model that everything else starts from or is held against.

Methods that train from scratch are ERM but for what they change of it: they call :func:`from_scratch`. Published results of
JTT, EIIL, LfF, CVaR DRO and DiGA come from settings and epochs that were chosen by the worst group of the validation set;
here its overall accuracy chooses them, as for every method that is no oracle.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from aimfair import training
from aimfair.methods import Bench, Fitted, Method
from aimfair.training import Order


def from_scratch(bench: Bench, what: str, model: nn.Module | None = None, part: str = "", **how: Any) -> Fitted:
    """Train the bench's fresh model, or ``model``, on its training faces with its pre-training schedule.

    part  name of this training where a method has several; each of them has its own checkpoint
    how   ``loss``, ``order`` and ``blend`` of :func:`aimfair.training.fit`
    """
    model = bench.fresh_model() if model is None else model
    resume = bench.resume_of(part) if part else bench.resume
    faces = bench.train, bench.validation
    history = training.fit(model, *faces, bench.pretraining, bench.seed, bench.device, what=what, resume=resume, **how)
    return Fitted(model, history)


def shuffled(kept: Tensor, length: int) -> Order:
    """Shuffled passes over the indices ``kept``, one after the other, of which an epoch sees the first ``length``."""

    def draw(generator: torch.Generator) -> Tensor:
        passes = -(-length // len(kept))
        return torch.cat([kept[torch.randperm(len(kept), generator=generator)] for _ in range(passes)])[:length]

    return draw


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """Minimise the mean cross-entropy on the real training set; no label but the target is read."""
    return from_scratch(bench, "ERM")


METHOD = Method(
    name="erm",
    title="Baseline (ERM)",
    source="Vapnik, Statistical Learning Theory, 1998; Table 3, first row",
    start="scratch",
    fit=fit,
)
