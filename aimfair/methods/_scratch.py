"""What the methods share that train from scratch: ERM's training, but for what they change of it."""

from typing import Any

from torch import nn

from aimfair.faces import FaceSet
from aimfair.methods import Bench, Fitted
from aimfair.training import Schedule, fit


def from_scratch(
    bench: Bench,
    what: str,
    *,
    model: nn.Module | None = None,
    train: FaceSet | None = None,
    validation: FaceSet | None = None,
    schedule: Schedule | None = None,
    part: str = "",
    **how: Any,
) -> Fitted:
    """Train the bench's fresh model (or ``model``) by its pre-training; what is not given is as in ERM.

    train, validation, schedule  in place of the bench's
    part                         name of this training where a method has several, each with a checkpoint of its own
    how                          ``loss``, ``order``, ``blend`` of :func:`aimfair.training.fit`
    """
    model = bench.fresh_model() if model is None else model
    history = fit(
        model,
        bench.train if train is None else train,
        bench.validation if validation is None else validation,
        bench.pretraining if schedule is None else schedule,
        bench.seed,
        bench.device,
        what=what,
        resume=bench.resume_of(part) if part else bench.resume,
        **how,
    )
    return Fitted(model, history)
