"""For users with a classifier of their own: the fairness report of a table of decisions."""

import warnings

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import (
    MetricFrame,
    equalized_odds_difference,
    false_positive_rate,
    true_positive_rate,
)

from aimfair import metrics
from aimfair.environment import AimfairError
from aimfair.practice.evaluation import evaluate, read_table
from aimfair.practice.fairness import measure, own_thresholds


def decisions(n=900, classes=2, groups=2, seed=0):
    """A table of decisions that err more for later groups; scores of two classes."""
    rng = np.random.default_rng(seed)
    y, g = rng.integers(0, classes, n), rng.integers(0, groups, n)
    p = np.where(rng.random(n) < 0.15 + 0.1 * g, rng.integers(0, classes, n), y)
    score = np.clip(0.5 + 0.4 * (p - 0.5) + 0.1 * rng.standard_normal(n), 0, 1)
    sex = np.array(["f", "m"])[rng.integers(0, 2, n)]
    return pd.DataFrame({"y": y, "p": p, "score": score, "race": np.array(list("abcdefg"))[g], "sex": sex})


def of(table, classes):
    return measure(table["y"].astype(str), table["p"].astype(str), table["race"], [*map(str, range(classes))])


def test_two_classes_and_two_groups_are_the_books_own_numbers():
    table = decisions()
    ours, book = of(table, 2), metrics.fairness_report(table["y"], table["p"], (table["race"] == "b").astype(int))
    values = ours.summary.set_index("measure")["per cent"]
    for name, theirs in {"accuracy": "acc", "WST": "wst", "EO max": "eo_max", "EO mean": "eo_mean"}.items():
        assert values[name] == pytest.approx(getattr(book, theirs))
    assert ours.cells.sort_values(["target", "group"])["accuracy"].tolist() == pytest.approx(book.cells.tolist())
    assert ours.cells["images"].sum() == len(table) and (ours.cells["low"] < ours.cells["accuracy"]).all()
    assert (ours.summary["low"] <= ours.summary["per cent"]).all()


@pytest.mark.parametrize(("classes", "groups"), [(2, 2), (2, 5), (4, 3)])
def test_any_number_of_classes_and_groups_agrees_with_fairlearn(classes, groups):
    table = decisions(classes=classes, groups=groups)
    ours = of(table, classes)
    worst, mean, s = [], [], {"sensitive_features": table["race"]}
    for number, row in zip(range(classes)[-len(ours.by_class) :], ours.by_class.to_dict("records"), strict=True):
        y, p = (table["y"] == number).astype(int), (table["p"] == number).astype(int)
        frame = MetricFrame(metrics={"TPR": true_positive_rate, "FPR": false_positive_rate}, y_true=y, y_pred=p, **s)
        for rate in ("TPR", "FPR"):
            assert row[f"{rate} gap"] == pytest.approx(100 * frame.difference()[rate])
            assert row[f"lowest {rate}"] == frame.by_group[rate].idxmin()
        for agg, ours_, all_ in (("worst_case", "EO max", worst), ("mean", "EO mean", mean)):
            all_.append(100 * equalized_odds_difference(y, p, agg=agg, **s))
            assert row[ours_] == pytest.approx(all_[-1])
    values = ours.summary.set_index("measure")["per cent"]
    assert values["EO max"] == pytest.approx(max(worst)) and values["EO mean"] == pytest.approx(np.mean(mean))
    right = MetricFrame(metrics=lambda y, p: (y == p).mean(), y_true=table["y"], y_pred=table["p"], **s)
    assert values["worst group"] == pytest.approx(100 * right.group_min())


def test_an_empty_and_a_small_cell_are_named_and_warn_of_nothing():
    table = decisions(groups=3)
    table = table[~((table["race"] == "c") & (table["y"] == 1))]
    table = table.drop(table.index[(table["race"] == "b") & (table["y"] == 0)][5:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = of(table, 2)
        notes = found.cells.set_index(["group", "target"])["note"]
        assert np.isfinite(found.summary["per cent"]).all()
    assert notes["c", "1"] == "no images" and notes["b", "0"] == "too few to say" and notes["a", "1"] == ""


def test_own_thresholds_make_error_rates_alike_and_cost_at_most_a_point():
    rng = np.random.default_rng(1)
    y, g = rng.integers(0, 2, 4000).astype(bool), rng.integers(0, 2, 4000)
    score = y + 0.6 * rng.standard_normal(4000) + 0.4 * g  # the same scores, shifted for one group

    def outcome(cuts):
        return metrics.fairness_report(y, score >= cuts, g)

    cuts = own_thresholds(y, score, g, 0.7)
    common, own = outcome(0.7), outcome(cuts[g].to_numpy())
    assert own.eo_max < 3 < 10 < common.eo_max and own.acc >= common.acc - 1
    assert cuts[1] - cuts[0] == pytest.approx(0.4, abs=0.1)


def test_a_report_is_printed_and_written_for_each_attribute_and_all_crossed(tmp_path):
    path = tmp_path / "mine.csv"
    decisions(groups=3).assign(y=lambda t: t["y"].astype(float)).to_csv(path, index=False)
    said = evaluate(path, "y", "p", ["sex", "race"])
    assert all(f"By {name}" in said for name in ("sex", "race", "sex x race")) and "m, c" in said
    page = (tmp_path / "mine_fairness.html").read_text()
    assert "EO max" in page and "sex x race" in page and "<script" not in page
    said = evaluate(path, "y", "score", ["race"], threshold=0.5, oracle=True, out=tmp_path / "other.html")
    assert "A threshold for each race" in said and (tmp_path / "other.html").exists()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_tables_of_any_separator_and_encoding(tmp_path, encoding, separator):
    path = tmp_path / "mine.csv"
    pd.DataFrame({"y": ["ja", "nein"], "größe": ["é, ü", "x"]}).to_csv(
        path, sep=separator, encoding=encoding, index=False
    )
    assert read_table(path, ["y", "größe"])["größe"].tolist() == ["é, ü", "x"]


GOOD = "y,p,s,g\n1,1,.9,a\n0,1,.8,b\n1,0,.1,b\n0,0,.2,a\n"


@pytest.mark.parametrize(
    ("text", "how", "says"),
    [
        (None, {}, "cannot be read"),
        ("", {}, "has no rows"),
        (GOOD.replace("g\n", "group\n", 1), {}, "no column g; it has: y, p, s, group"),
        (GOOD.replace("1,1,.9,a", "1,1,.9"), {}, "line 2: 3 fields, and 4 columns"),
        (GOOD.replace("0,1,.8,b", "0,,.8,b"), {}, "line 3: p is empty"),
        ("y,p,g\n1,1,a\n1,0,b\n", {}, "every y is 1"),
        (GOOD.replace("0,1,.8,b", "0,yes,.8,b"), {}, "p holds '1', which|p holds 'yes', which y never is"),
        (GOOD, {"predicted": "s"}, "scores need --threshold"),
        (GOOD.replace(".8", "nan"), {"predicted": "s", "threshold": 0.5}, "line 3: s is 'nan', no score"),
        (GOOD + "2,0,.3,a\n", {"predicted": "s", "threshold": 0.5}, "a threshold tells two classes apart"),
        (GOOD, {"oracle": True}, "need scores"),
        (GOOD.replace("0,0,.2,a", "1,0,.2,a"), {"predicted": "s", "threshold": 0.5, "oracle": True}, "one target only"),
    ],
)
def test_a_bad_table_is_told_in_one_line(tmp_path, text, how, says):
    path = tmp_path / "mine.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(AimfairError, match=says) as error:
        evaluate(path, **{"target": "y", "predicted": "p", "groups": ["g"]} | how)
    assert "\n" not in str(error.value)
