"""The best combination is the one that validation names, ties are told, and shorter searches do not count."""

import numpy as np
import pandas as pd
import pytest

from aimfair import methods
from aimfair.analysis import contenders, recommend
from aimfair.errors import AimfairError


def frame(means, seeds=range(6), spread=0.05):
    rng = np.random.default_rng(0)
    luck = rng.normal(0, 2, 100)
    rows = [
        {"method": m, "seed": s, "validation_accuracy": v + luck[s] + spread * rng.normal(), "searched": 5}
        for m, v in means.items()
        for s in seeds
    ]
    return pd.DataFrame(rows)


def test_the_most_accurate_on_validation_is_named_and_what_ties_with_it():
    found = recommend.choose(frame({"a": 80.0, "b": 84.0, "c": 83.99}))
    assert found.title in "bc" and len(found.tied) == 1 and {found.title, *found.tied} == {"b", "c"} and not found.clear
    assert found.table.loc["a", "behind"] == pytest.approx(-4, abs=0.1) and not found.table.loc["a", "tied"]
    assert recommend.choose(frame({"a": 80.0, "b": 84.0})).clear


def test_combinations_without_all_seeds_take_no_part():
    rows = frame({"a": 80.0, "b": 84.0})
    rows = rows[(rows["method"] == "a") | (rows["seed"] < 3)]
    found = recommend.choose(rows)
    assert found.title == "a" and found.unjudged == ["b"]
    assert recommend.choose(rows, seeds={0, 1, 2}).title == "b"
    with pytest.raises(AimfairError, match="has all of the seeds"):
        recommend.choose(rows, seeds={99})
    with pytest.raises(AimfairError, match="no combination"):
        recommend.choose(pd.DataFrame())


def test_with_one_seed_everything_ties():
    found = recommend.choose(frame({"a": 80.0, "b": 84.0, "c": 70.0}, seeds=[1]))
    assert found.title == "b" and found.tied == ["a", "c"]


def test_a_tie_goes_to_the_smaller_rate(recorded):
    for lr in (0.1, 0.03, 0.01, 0.003, 0.001):
        recorded.add("aim-fair", 100, 60, lr=lr)
    assert contenders.best(contenders.there(recorded, "aim-fair"))[0].config["hyper"]["lr"] == 0.001


def test_each_seed_has_the_rate_that_validation_chose(recorded):
    for seed in (100, 200):
        for i, lr in enumerate(methods.LEARNING_RATES):
            recorded.add("aim-fair", seed, right=60 + 5 * (i == 2), test_right=70 + i, lr=lr)
    chosen = contenders.chosen(contenders.there(recorded, "aim-fair"))
    assert list(chosen["seed"]) == [100, 200] and set(chosen["lr"]) == {0.01} and set(chosen["acc"]) == {72}
    assert set(chosen["searched"]) == {5} and set(chosen["method"]) == {"AIM-Fair"}


def test_a_seed_that_lacks_a_rate_is_left_out(recorded):
    for lr in methods.LEARNING_RATES[:4]:
        recorded.add("aim-fair", 100, 60, lr=lr)
    assert contenders.chosen(contenders.there(recorded, "aim-fair")).empty
    assert contenders.chosen([]).empty


def test_repetitions_are_averaged_after_each_has_its_own_rate(recorded):
    for draw, base in ((0, 70), (1, 80)):
        for lr in methods.LEARNING_RATES:
            recorded.add("random-mask", 100, 60 + (lr == 0.1), test_right=base + (lr == 0.1), draw=draw, lr=lr)
    chosen = contenders.chosen(contenders.there(recorded, "random-mask"), "by lot")
    assert len(chosen) == 1 and chosen["acc"].item() == 76 and chosen["method"].item() == "by lot"


def test_runs_are_those_with_the_usual_values_unless_said_otherwise(recorded):
    recorded.add("aim-fair", 100, 60, lr=0.01)
    recorded.add("aim-fair", 100, 60, lr=0.01, k=40)
    recorded.add("aim-fair", 100, 60, lr=0.01, batchnorm="eval")
    assert len(contenders.there(recorded, "aim-fair")) == 1
    assert [r.config["hyper"]["k"] for r in contenders.there(recorded, "aim-fair", k=40)] == [40]
    assert contenders.there(recorded, "aim-fair", k=50) == []
    assert contenders.there(recorded, "aim-fair", nonsense=1) == [] == contenders.there(recorded, "no-such-method")


def test_combinations_are_those_without_protected_labels(recorded):
    for lr in methods.LEARNING_RATES:
        recorded.add("aim-fair", 100, 60, lr=lr)
        recorded.add("aim-fair", 100, 65, lr=lr, k=40)
    recorded.add("erm", 100, 55)
    recorded.add("subsampling", 100, 90)
    found = contenders.combinations(recorded)
    assert "subsampling" not in set(found["name"]) and methods.get("subsampling").is_oracle
    assert set(found["method"]) == {"Baseline (ERM)", "AIM-Fair", "AIM-Fair, k=40"}
    assert recommend.choose(found).title == "AIM-Fair, k=40"


def test_rows_are_collected_as_far_as_they_have_runs(recorded):
    for lr in methods.LEARNING_RATES:
        recorded.add("aim-fair", 100, 60, lr=lr)
    rows = {
        "as it is": ("aim-fair", {}),
        "frozen": ("aim-fair", {"batchnorm": "eval"}),
        "plain": ("erm", {}),
        "never heard of": ("no-such-method", {}),
    }
    assert set(contenders.collect(recorded, rows)["method"]) == {"as it is"}
    assert contenders.collect(recorded, {"frozen": rows["frozen"]}).empty
    recorded.add("aim-fair", 100, 60, batchnorm="eval", lr=0.03)
    fixed = {"frozen": ("aim-fair", {"batchnorm": "eval", "lr": 0.03})}
    assert contenders.collect(recorded, rows | fixed).groupby("method")["searched"].max().to_dict() == {
        "as it is": 5,
        "frozen": 1,
    }


def test_one_repetition_can_be_asked_for(recorded):
    for draw in (0, 1):
        for lr in methods.LEARNING_RATES:
            recorded.add("random-mask", 100, 60, test_right=70 + draw, draw=draw, lr=lr)
    only = contenders.best(contenders.there(recorded, "random-mask", draw=1))
    assert [run.config["hyper"]["draw"] for run in only] == [1] and only[0].config["hyper"]["lr"] == 0.001
    assert len(contenders.best(contenders.there(recorded, "random-mask"))) == 2


def test_of_equal_combinations_the_usual_one_is_named(recorded):
    for lr in methods.LEARNING_RATES:
        recorded.add("aim-fair", 100, 60, lr=lr, batchnorm="eval")
        recorded.add("aim-fair", 100, 60, lr=lr)
    found = recommend.choose(contenders.combinations(recorded))
    assert found.title == "AIM-Fair" and found.tied == ["AIM-Fair, batchnorm=eval"]


def test_a_study_without_runs_has_no_combination(recorded):
    assert contenders.combinations(recorded).empty
