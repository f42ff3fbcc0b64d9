"""The best combination is the one that validation names, ties are told, and shorter searches do not count."""

import numpy as np
import pandas as pd
import pytest

from aimfair import cli, methods
from aimfair.environment import AimfairError
from aimfair.study import recipes, search
from aimfair.study.grid.experiments import trained
from beyond import recommend


def frame(means, seeds=range(6)):
    rng = np.random.default_rng(0)
    luck = rng.normal(0, 2, 100)
    rows = [(m, s, v + luck[s] + 0.05 * rng.normal(), 5) for m, v in means.items() for s in seeds]
    return pd.DataFrame(rows, columns=["method", "seed", "validation_accuracy", "searched"])


def test_the_most_accurate_on_validation_is_named_and_what_ties_with_it():
    found = recommend.choose(frame({"a": 80.0, "b": 84.0, "c": 83.99}))
    assert len(found.tied) == 1 and {found.title, *found.tied} == {"b", "c"}
    assert found.table.loc["a", "behind"] == pytest.approx(-4, abs=0.1) and not found.table.loc["a", "tied"]
    assert recommend.choose(frame({"a": 80.0, "b": 84.0})).tied == []
    single = recommend.choose(frame({"a": 80.0, "b": 84.0, "c": 70.0}, seeds=[1]))
    assert single.title == "b" and single.tied == ["a", "c"]


def test_combinations_without_all_seeds_take_no_part():
    rows = frame({"a": 80.0, "b": 84.0})
    rows = rows[(rows["method"] == "a") | (rows["seed"] < 3)]
    found = recommend.choose(rows)
    assert found.title == "a" and found.unjudged == ["b"]
    assert recommend.choose(rows, seeds={0, 1, 2}).title == "b"
    for wrong, seeds, message in ((rows, {99}, "has all of the seeds"), (pd.DataFrame(), None, "no combination")):
        with pytest.raises(AimfairError, match=message):
            recommend.choose(wrong, seeds)


def test_a_combination_has_the_rate_that_validation_chose_and_all_of_its_values(recorded):
    assert recommend.combinations(recorded).empty
    for seed in (100, 200):
        for i, lr in enumerate(methods.LEARNING_RATES):
            recorded.add("aim-fair", seed, right=60 + 5 * (i == 2), test_right=70 + i, lr=lr)
    recorded.add("aim-fair", 100, right=99, lr=0.5)  # not among the values that are searched: no candidate
    for lr in methods.LEARNING_RATES[:4]:
        recorded.add("full-finetuning", 100, 90, lr=lr)  # one value is missing
    found = recommend.combinations(recorded)
    assert list(found["seed"]) == [100, 200] and set(found["lr"]) == {0.01} and set(found["acc"]) == {72}
    assert set(found["searched"]) == {5} and set(found["method"]) == {"AIM-Fair"}


def test_repetitions_are_averaged_after_each_has_its_own_rate(recorded):
    for draw, base, best in ((0, 70, 0.1), (1, 80, 0.01)):
        for lr in methods.LEARNING_RATES:
            recorded.add("random-mask", 100, 60 + (lr == best), test_right=base + (lr == best), draw=draw, lr=lr)
    found = recommend.combinations(recorded)
    assert len(found) == 1 and found["acc"].item() == 76 and found["method"].item() == "Random mask, same size"


def test_combinations_read_no_protected_label_and_of_equal_ones_the_usual_one_is_named(recorded):
    recorded.add("erm", 100, 55)
    recorded.add("subsampling", 100, 90)  # an oracle
    for lr in methods.LEARNING_RATES:
        recorded.add("aim-fair", 100, 60, lr=lr, batchnorm="eval")
        recorded.add("aim-fair", 100, 60, lr=lr)
    found = recommend.combinations(recorded)
    assert set(found["name"]) == {"erm", "aim-fair"}
    choice = recommend.choose(found[found["name"] == "aim-fair"])
    assert choice.title == "AIM-Fair" and choice.tied == ["AIM-Fair, batchnorm=eval"]


def test_longer_training_competes_and_each_combination_comes_with_the_command_that_trains_it(recorded, monkeypatch):
    thrice = recorded.varied(**trained(recorded.profile, 3))
    recorded.add("erm", 100, 55)
    recorded.add("erm", 100, 70, lab=thrice)
    for i, lr in enumerate(methods.LEARNING_RATES):
        recorded.add("aim-fair", 100, 60, lr=lr)
        recorded.add("aim-fair", 100, 80, lr=lr, k=40)
        recorded.add("aim-fair", 100, 85 + i, lab=thrice, lr=lr, batchnorm="eval")
    found = recommend.combinations(recorded)
    assert recommend.choose(found).title == recipes.OWN.title
    asked = []
    monkeypatch.setattr(search, "wanted", lambda study, name, seed, **given: asked.append((study, name, given)) or [])
    wanted = {
        "Baseline (ERM)": (recorded, "erm", {}),
        "AIM-Fair": (recorded, "aim-fair", {}),
        "AIM-Fair, k=40": (recorded, "aim-fair", {"k": 40}),
        "ERM, three times the epochs": (thrice, "erm", {}),
        recipes.OWN.title: (thrice, "aim-fair", {"batchnorm": "eval"}),
    }
    rows = found.set_index("method")
    assert set(wanted) == set(rows.index) and rows.loc[recipes.OWN.title, "searched"] == 5
    for title, (lab, name, given) in wanted.items():
        words = rows.loc[title, "command"].split()
        assert (recipes.OWN.name in words) == (title == recipes.OWN.title)
        assert words[:3] == ["python", "-m", "aimfair"] and cli.main(words[3:]) == 0
        study, *rest = asked[-1]
        assert study.profile == lab.profile and rest == [name, given] and rows.loc[title, "name"] == name


def test_a_judge_agrees_with_what_it_ranks_alike_seed_by_seed():
    rows = frame({"a": 80.0, "b": 82.0, "c": 84.0, "d": 86.0})
    alike = rows.assign(wst=3 * rows["validation_accuracy"] - 7, eo_max=-rows["validation_accuracy"])
    assert recommend.agreement(alike, "wst").tolist() == pytest.approx([1.0] * 6)
    assert recommend.agreement(alike, "eo_max").tolist() == pytest.approx([-1.0] * 6)
    assert recommend.agreement(alike, "wst", {0, 2}).index.tolist() == [0, 2]
    short = alike[(alike["method"] != "d") | (alike["seed"] < 3)]
    short = short.assign(wst=short["wst"].where(short["method"] != "d", 0))
    assert recommend.agreement(short, "wst").tolist() == pytest.approx([1.0] * 6)  # d takes no part
    assert recommend.agreement(short, "wst", {0, 1, 2}).max() < 1
    assert recommend.agreement(alike.assign(wst=5.0), "wst").empty
    assert recommend.agreement(frame({"a": 80.0, "b": 82.0}).assign(wst=1.0), "wst").empty
