"""Weight interpolation: a model between the biased one and the fully fine-tuned one, weight by weight."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from aimfair.environment import AimfairError
from aimfair.methods import Bench, Fitted
from aimfair.methods.batchnorm_real import reestimate_on_real
from aimfair.methods.finetuning import FULL

STATISTICS = ("interpolated", "re-estimated")


def between(first: nn.Module, second: nn.Module, a: float) -> nn.Module:
    """A new model with ``(1 - a) first + a second`` in every weight and running statistic; 0 and 1 give the ends exactly.

    Counters of batches, which are no quantity to be mixed, are those of ``second``.
    """
    model, start, end = copy.deepcopy(second), first.state_dict(), second.state_dict()
    model.load_state_dict(
        {
            name: torch.lerp(start[name].to(value.device), value, a)
            if value.is_floating_point()
            else value
            for name, value in end.items()
        }
    )
    return model


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """Full fine-tuning, then a step of ``a`` of the way from the biased model to it (WiSE-FT of the source).

    a           0 the biased model, 1 the fully fine-tuned one: both ends are methods of their own, and not searched
    lr          of the full fine-tuning, fixed at the default of all methods. Rate and ``a`` turn the same knob, how far
                the model moves away from the biased one; five values of ``a`` are then as large a budget as the five
                rates of any other method
    statistics  "interpolated": running means and variances of batch norm are mixed like weights, which are not those
                of the mixed network; "re-estimated": on the real training images, no label read
    The epoch is chosen, and ``batchnorm`` is meant, as in full fine-tuning.
    """
    a, statistics = hyper["a"], hyper["statistics"]
    if not 0 <= a <= 1 or statistics not in STATISTICS:
        raise AimfairError(
            f"a must be 0 to 1 and statistics {' or '.join(STATISTICS)}, got {a!r} and {statistics!r}"
        )
    tuned = FULL.fit(bench, hyper)
    model = between(bench.biased_model(), tuned.model, a)
    if statistics == "re-estimated":
        reestimate_on_real(bench, model)
    return Fitted(model, tuned.history)


METHOD = replace(
    FULL,
    name="weight-interpolation",
    title="Weight interpolation",
    source="Wortsman et al., CVPR 2022, arXiv 2109.01903 (WiSE-FT); not in the paper's tables",
    fit=fit,
    defaults={**FULL.defaults, "a": 0.5, "statistics": "interpolated"},
    search={"a": (0.1, 0.3, 0.5, 0.7, 0.9)},
    beyond=True,
)
