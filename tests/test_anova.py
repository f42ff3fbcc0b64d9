"""Shares of variance of a full grid: by hand, and refused where the grid has holes."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from aimfair.analysis.anova import variance_shares
from aimfair.environment import AimfairError


def grid(value, **levels):
    rows = [dict(zip(levels, point, strict=True)) for point in product(*levels.values())]
    return pd.DataFrame([row | {"x": value(**row)} for row in rows])


def test_additive_effects_are_told_apart_exactly():
    frame = grid(lambda k, lr: 3.0 * k + 4.0 * lr, k=(-1, 1), lr=(-1, 1))
    assert variance_shares(frame, "x", ["k", "lr"]) == pytest.approx({"k": 36, "lr": 64, "together": 0})


def test_what_only_both_explain_is_neithers():
    frame = grid(lambda k, lr: float(k * lr), k=(-1, 1), lr=(-1, 1))
    assert variance_shares(frame, "x", ["k", "lr"]) == pytest.approx({"k": 0, "lr": 0, "together": 100})


def test_shares_sum_to_a_hundred_whatever_the_values_and_levels():
    rng = np.random.default_rng(0)
    frame = grid(lambda **_: rng.normal(), k=(40, 50, 55), lr=(0.1, 1.0), seed=("a", "b", "c", "d"))
    shares = variance_shares(frame.sample(frac=1, random_state=1), "x", ["k", "lr", "seed"])
    assert sum(shares.values()) == pytest.approx(100) and min(shares.values()) > 0
    assert variance_shares(frame.assign(x=7.0), "x", ["k", "lr", "seed"]) == dict.fromkeys(
        ["k", "lr", "seed", "together"], 0
    )


def test_a_grid_with_a_hole_or_a_repetition_is_refused():
    frame = grid(lambda k, lr: float(k + lr), k=(1, 2), lr=(3, 4, 5))
    for wrong in (frame[1:], pd.concat([frame[1:], frame[-1:]]), frame[:0]):
        with pytest.raises(AimfairError, match="one row for each combination of k, lr"):
            variance_shares(wrong, "x", ["k", "lr"])
