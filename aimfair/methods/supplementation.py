"""Add the balanced synthetic images to the biased real ones and train on both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from aimfair.methods import Bench, Fitted, Method
from aimfair.methods._scratch import from_scratch
from aimfair.training import Order


def shuffled(faces: int, at_most: int) -> Order:
    """A random pass through ``faces``, of which an epoch sees ``at_most``."""
    return lambda generator: torch.randperm(faces, generator=generator)[:at_most]


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """As ERM, on the real and the synthetic set shuffled together. At the paper's sizes the groups then count 6, 14, 14
    and 6 thousand: the bias is milder, not gone.

    equal_steps  false: epochs as ERM's, so twice its steps where the sets are of one size (the paper says nothing
                 else); true: an epoch is a random part as large as the real set, so that training is no longer than
                 ERM's
    """
    both = bench.train + bench.balanced
    order = shuffled(len(both), len(bench.train) if hyper["equal_steps"] else len(both))
    return from_scratch(bench, "supplementation", train=both, order=order)


METHOD = Method(
    name="supplementation",
    title="Data supplementation",
    source="Table 3, row 'Data Supplementation'; Shin et al., arXiv 2306.07200",
    start="scratch",
    fit=fit,
    needs=frozenset({"synthetic"}),
    defaults={"equal_steps": False},
)
