"""Main effects and shares of variance: exact on an additive table, refused where the table is not crossed."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from aimfair import methods
from aimfair.environment import AimfairError
from beyond import factorial

EFFECT = {"mask": {"all": 0.0, "selected": 1.0}, "rule": {"best": 0.0, "last": -2.0}}


def table(seeds=range(5), noise=0.0):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {"mask": m, "rule": r, "seed": s}
            | {k: 70 + s + a + b + noise * rng.normal() for k in ("acc", "wst", "eo_max")}
            for m, a in EFFECT["mask"].items()
            for r, b in EFFECT["rule"].items()
            for s in seeds
        ]
    )


def test_effects_of_an_additive_table_are_its_summands():
    found = factorial.effects(table(noise=0.01), {"mask": "all", "rule": "best"}).set_index(["factor", "metric"])
    assert found.loc[("mask", "acc"), "difference"] == pytest.approx(1, abs=0.02)
    assert found.loc[("rule", "wst"), "difference"] == pytest.approx(-2, abs=0.02)
    words = found["verdict"]
    assert words["mask", "acc"] == words["rule", "eo_max"] == "holds" and words["rule", "acc"] == "contradicted"
    assert set(found["level"]) == {"selected", "last"} and set(found["seeds"]) == {5}


def test_only_seeds_with_every_combination_count():
    rows = table()
    gap = (rows["mask"] == "selected") & (rows["rule"] == "last") & (rows["seed"] > 2)
    holed = rows[~gap]
    assert set(factorial.complete(holed, ["mask", "rule"])["seed"]) == {0, 1, 2}
    with pytest.raises(AimfairError, match="every combination"):
        factorial.effects(holed, {"mask": "all", "rule": "best"})
    with pytest.raises(AimfairError, match="no level 'none'"):
        factorial.effects(rows, {"mask": "none", "rule": "best"})
    never = rows[~((rows["mask"] == "selected") & (rows["rule"] == "last"))]
    assert factorial.complete(never, ["mask", "rule"]).empty
    assert factorial.complete(rows.iloc[:0], ["mask", "rule"]).empty


def test_the_runs_of_the_factorial_are_found_by_their_levels(recorded):
    assert factorial.runs_of(recorded).empty
    for lr in methods.LEARNING_RATES:
        for name, batchnorm in (("full-finetuning", "train"), ("full-finetuning", "eval"), ("random-mask", "eval")):
            recorded.add(name, 100, 60, batchnorm=batchnorm, lr=lr)
        recorded.add("batchnorm-real", 100, 60, mask="all", lr=lr)  # whose own setting is called as a factor is
        recorded.add("random-mask", 100, 60, draw=1, lr=lr)  # only the first mask of a seed takes part
    found = factorial.runs_of(recorded)
    levels = set(found[list(factorial.FACTORS)].itertuples(index=False, name=None))
    assert levels == {
        ("All tensors", "follow", "best"),
        ("All tensors", "kept", "best"),
        ("All tensors", "real", "best"),
        ("Random mask", "kept", "best"),
    }


def test_with_every_rate_those_that_broke_a_training_are_left_out_for_all(recorded):
    assert factorial.runs_of(recorded, every_rate=True).empty
    for lr in methods.LEARNING_RATES:
        for batchnorm in ("train", "eval"):
            for seed in (100, 200):  # the profile searches on one seed
                diverged = {"diverged": "it is not finite"} if (batchnorm, lr) == ("eval", 0.1) else {}
                recorded.add("full-finetuning", seed, 60, scores=diverged, batchnorm=batchnorm, lr=lr)
    found = factorial.runs_of(recorded, every_rate=True)
    assert set(found["lr"]) == set(methods.LEARNING_RATES) - {0.1} and set(found["seed"]) == {100}
    assert len(found) == 2 * 4 == len(factorial.complete(found, [*factorial.FACTORS, "lr"]))


def grid(value, **levels):
    rows = [dict(zip(levels, point, strict=True)) for point in product(*levels.values())]
    return pd.DataFrame([row | {"x": value(**row)} for row in rows])


@pytest.mark.parametrize(
    ("value", "shares"),
    [
        (lambda k, lr: 3.0 * k + 4.0 * lr, {"k": 36, "lr": 64, "together": 0}),
        (lambda k, lr: float(k * lr), {"k": 0, "lr": 0, "together": 100}),
        (lambda k, lr: 7.0, {"k": 0, "lr": 0, "together": 0}),
    ],
)
def test_shares_of_variance_by_hand(value, shares):
    frame = grid(value, k=(-1, 1), lr=(-1, 1))
    assert factorial.variance_shares(frame, "x", ["k", "lr"]) == pytest.approx(shares)


def test_shares_sum_to_a_hundred_and_a_grid_with_a_hole_or_a_repetition_is_refused():
    rng = np.random.default_rng(0)
    frame = grid(lambda **_: rng.normal(), k=(40, 50, 55), lr=(0.1, 1.0), seed=("a", "b", "c", "d"))
    shares = factorial.variance_shares(frame.sample(frac=1, random_state=1), "x", ["k", "lr", "seed"])
    assert sum(shares.values()) == pytest.approx(100) and min(shares.values()) > 0
    for wrong in (frame[1:], pd.concat([frame[1:], frame[-1:]]), frame[:0]):
        with pytest.raises(AimfairError, match="one row for each combination of k, lr"):
            factorial.variance_shares(wrong, "x", ["k", "lr", "seed"])
