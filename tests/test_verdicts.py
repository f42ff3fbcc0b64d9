"""The rule of wins and losses: the interval decides, the better side depends on the metric, seeds are paired."""

import numpy as np
import pandas as pd
import pytest

from aimfair.analysis import verdicts
from aimfair.environment import AimfairError
from aimfair.stats import holm, paired_difference


def frame(shift, seeds=range(8)):
    """Methods whose three metrics differ from the reference's by ``shift`` and little noise."""
    rng = np.random.default_rng(0)
    rows = [{"method": "base", "seed": s, "acc": 80 + s, "wst": 60 - s, "eo_max": 20.0 + s} for s in seeds]
    for name, by in shift.items():
        for s in seeds:
            noise = rng.normal(0, 0.2, 3)
            rows.append(
                {"method": name, "seed": s}
                | dict(zip(("acc", "wst", "eo_max"), (80 + s, 60 - s, 20 + s) + np.array(by) + noise, strict=True))
            )
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("a", "b", "lower", "word"),
    [
        ([3, 4, 5, 4, 3], [1, 2, 3, 1, 2], False, "wins"),
        ([3, 4, 5, 4, 3], [1, 2, 3, 1, 2], True, "loses"),
        ([1, 2, 3, 1, 2], [3, 4, 5, 4, 3], False, "loses"),
        ([1, 9, 1, 9, 1], [5, 5, 5, 5, 5], False, "undecided"),
        ([9.0], [1.0], False, "undecided"),
    ],
)
def test_the_interval_decides(a, b, lower, word):
    assert verdicts.verdict(a, b, lower) == word


def test_every_method_is_compared_on_the_better_side_of_each_metric():
    compared = verdicts.compare(frame({"good": (2, 3, -4), "bad": (-2, 0, 4)}), "base")
    word = compared.set_index(["method", "metric"])["verdict"]
    assert [word["good", m] for m in verdicts.METRICS] == ["wins"] * 3
    assert word["bad", "acc"] == "loses" and word["bad", "eo_max"] == "loses" and word["bad", "wst"] == "undecided"
    row = compared.set_index(["method", "metric"]).loc[("good", "wst")]
    rows = frame({"good": (2, 3, -4), "bad": (-2, 0, 4)}).pivot(index="seed", columns="method", values="wst")
    assert row["difference"] == pytest.approx(paired_difference(rows["good"], rows["base"]).mean)
    both = compared[compared["metric"] == "acc"]
    assert list(both["p Holm"]) == pytest.approx(list(holm(both["p"])))


def test_pairs_use_the_seeds_that_both_have():
    rows = frame({"few": (1, 1, 1)})
    rows = rows[(rows["method"] == "base") | (rows["seed"] < 3)]
    assert set(verdicts.compare(rows, "base")["seeds"]) == {3}
    apart = rows.assign(seed=rows["seed"] + 100 * (rows["method"] == "few"))
    with pytest.raises(AimfairError, match="share no seed"):
        verdicts.compare(apart, "base")
    with pytest.raises(AimfairError, match="one run per"):
        verdicts.compare(pd.concat([rows, rows]), "base")
    with pytest.raises(AimfairError, match="nobody"):
        verdicts.compare(rows, "nobody")


def test_the_table_says_verdict_difference_and_interval():
    shown = verdicts.show(verdicts.compare(frame({"good": (2, 3, -4)}), "base"))
    assert list(shown.columns) == ["ACC", "WST", "EO (max)", "seeds"] and list(shown.index) == ["good"]
    assert shown.loc["good", "ACC"].startswith("wins +2.") and shown.loc["good", "EO (max)"].startswith("wins -")
    single = verdicts.show(verdicts.compare(frame({"good": (2, 3, -4)}, seeds=[1]), "base"))
    assert single.loc["good", "ACC"].startswith("undecided +") and "[" not in single.loc["good", "ACC"]


@pytest.mark.parametrize(
    ("shift", "use"), [((2, 3, -4), True), ((0, 3, 0), True), ((0, 0, 0), False), ((-2, 3, -4), False)]
)
def test_a_method_is_recommended_if_it_wins_somewhere_and_loses_nowhere(shift, use):
    assert verdicts.recommended(verdicts.compare(frame({"new": shift}), "base")) is use
