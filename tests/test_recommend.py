"""The best combination is the one that validation names, ties are told, and shorter searches do not count."""

import numpy as np
import pandas as pd
import pytest

from aimfair import cli, methods
from aimfair.environment import AimfairError
from aimfair.study import recipes, search
from aimfair.study.grid.experiments import trained
from beyond import recommend


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
    assert found.title in "bc" and len(found.tied) == 1 and {found.title, *found.tied} == {"b", "c"}
    assert found.table.loc["a", "behind"] == pytest.approx(-4, abs=0.1) and not found.table.loc["a", "tied"]
    assert recommend.choose(frame({"a": 80.0, "b": 84.0})).tied == []


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


def test_a_combination_has_the_rate_that_validation_chose(recorded):
    for seed in (100, 200):
        for i, lr in enumerate(methods.LEARNING_RATES):
            recorded.add("aim-fair", seed, right=60 + 5 * (i == 2), test_right=70 + i, lr=lr)
    recorded.add("aim-fair", 100, right=99, lr=0.5)  # not among the values that are searched: no candidate
    found = recommend.combinations(recorded)
    assert list(found["seed"]) == [100, 200] and set(found["lr"]) == {0.01} and set(found["acc"]) == {72}
    assert set(found["searched"]) == {5} and set(found["method"]) == {"AIM-Fair"}


def test_a_search_that_lacks_a_rate_takes_no_part(recorded):
    for lr in methods.LEARNING_RATES[:4]:
        recorded.add("aim-fair", 100, 60, lr=lr)
    assert recommend.combinations(recorded).empty


def test_repetitions_are_averaged_after_each_has_its_own_rate(recorded):
    for draw, base, best in ((0, 70, 0.1), (1, 80, 0.01)):
        for lr in methods.LEARNING_RATES:
            recorded.add("random-mask", 100, 60 + (lr == best), test_right=base + (lr == best), draw=draw, lr=lr)
    found = recommend.combinations(recorded)
    assert len(found) == 1 and found["acc"].item() == 76 and found["method"].item() == "Random mask, same size"


def test_combinations_are_those_without_protected_labels(recorded):
    for lr in methods.LEARNING_RATES:
        recorded.add("aim-fair", 100, 60, lr=lr)
        recorded.add("aim-fair", 100, 65, lr=lr, k=40)
    recorded.add("erm", 100, 55)
    recorded.add("subsampling", 100, 90)
    found = recommend.combinations(recorded)
    assert "subsampling" not in set(found["name"]) and methods.get("subsampling").is_oracle
    assert set(found["method"]) == {"Baseline (ERM)", "AIM-Fair", "AIM-Fair, k=40"}
    assert recommend.choose(found).title == "AIM-Fair, k=40"


def test_of_equal_combinations_the_usual_one_is_named(recorded):
    for lr in methods.LEARNING_RATES:
        recorded.add("aim-fair", 100, 60, lr=lr, batchnorm="eval")
        recorded.add("aim-fair", 100, 60, lr=lr)
    found = recommend.choose(recommend.combinations(recorded))
    assert found.title == "AIM-Fair" and found.tied == ["AIM-Fair, batchnorm=eval"]


def test_longer_training_competes_and_what_is_tuned_of_it(recorded):
    thrice = recorded.varied(**trained(recorded.profile, 3))
    recorded.add("erm", 100, 55)
    recorded.add("erm", 100, 70, lab=thrice)
    for i, lr in enumerate(methods.LEARNING_RATES):
        recorded.add("aim-fair", 100, 60, lr=lr)
        recorded.add("aim-fair", 100, 80 + i, lab=thrice, lr=lr)
    found = recommend.combinations(recorded)
    best = "AIM-Fair, longer ERM"
    assert set(found["method"]) == {"Baseline (ERM)", "AIM-Fair", "ERM, three times the epochs", best}
    assert recommend.choose(found).title == best and found.set_index("method").loc[best, "searched"] == 5
    assert set(found.loc[found["method"] == best, "name"]) == {"aim-fair"}


def test_each_combination_comes_with_the_command_that_trains_it(recorded, monkeypatch):
    thrice = recorded.varied(**trained(recorded.profile, 3))
    recorded.add("erm", 100, 55)
    for lr in methods.LEARNING_RATES:
        recorded.add("aim-fair", 100, 60, lr=lr)
        recorded.add("aim-fair", 100, 80, lr=lr, batchnorm="eval")
        recorded.add("aim-fair", 100, 85, lab=thrice, lr=lr, batchnorm="eval")
    frame = recommend.combinations(recorded).set_index("method")
    asked = []
    monkeypatch.setattr(search, "wanted", lambda study, name, seed, **given: asked.append((study, name, given)) or [])
    wanted = {
        "Baseline (ERM)": (recorded, "erm", {}),
        "AIM-Fair": (recorded, "aim-fair", {}),
        "AIM-Fair, batchnorm=eval": (recorded, "aim-fair", {"batchnorm": "eval"}),
        "AIM-Fair, statistics kept, longer ERM": (thrice, "aim-fair", {"batchnorm": "eval"}),
    }
    assert set(wanted) == set(frame.index)
    for title, (lab, name, given) in wanted.items():
        words = frame.loc[title, "command"].split()
        assert (recipes.OWN.name in words) == (title == recipes.OWN.title)
        assert words[:3] == ["python", "-m", "aimfair"] and cli.main(words[3:]) == 0
        study, *rest = asked[-1]
        assert study.profile == lab.profile and rest == [name, given]


def test_a_study_without_runs_has_no_combination(recorded):
    assert recommend.combinations(recorded).empty


def test_a_judge_agrees_with_what_it_ranks_alike_seed_by_seed():
    rows = frame({"a": 80.0, "b": 82.0, "c": 84.0, "d": 86.0})
    alike = rows.assign(wst=3 * rows["validation_accuracy"] - 7, eo_max=-rows["validation_accuracy"])
    assert recommend.agreement(alike, "wst").tolist() == pytest.approx([1.0] * 6)
    assert recommend.agreement(alike, "eo_max").tolist() == pytest.approx([-1.0] * 6)
    assert recommend.agreement(alike, "wst", {0, 2}).index.tolist() == [0, 2]
    short = alike[(alike["method"] != "d") | (alike["seed"] < 3)].assign(
        wst=lambda f: f["wst"].where(f["method"] != "d", 0)
    )
    assert recommend.agreement(short, "wst").tolist() == pytest.approx([1.0] * 6)  # d takes no part
    assert recommend.agreement(short, "wst", {0, 1, 2}).max() < 1
    assert recommend.agreement(alike.assign(wst=5.0), "wst").empty
    assert recommend.agreement(frame({"a": 80.0, "b": 82.0}).assign(wst=1.0), "wst").empty
