"""Crossed groups: exact cells, a null that keeps sizes and is calibrated, small cells shown and not counted."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import hypergeom

from aimfair import datasets
from aimfair.analysis import intersections
from aimfair.analysis.intersections import intersections as cross
from aimfair.environment import AimfairError
from aimfair.study.runs import Run


def population(n=1600, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.random((3, n)) < 0.5).astype(int)


def test_cells_are_counted_by_hand():
    y, s, z = population()
    right = np.random.default_rng(1).random(1600) < 0.8
    table = cross(y, right, s, z, draws=10).table
    for row in table.itertuples():
        inside = (y == row.target) & (s == row.protected) & (z == row.second)
        assert row.faces == inside.sum() and row.accuracy == pytest.approx(100 * right[inside].mean())
        assert row.low < row.accuracy < row.high
    assert table["faces"].sum() == 1600


def test_a_hidden_gap_is_found_although_the_four_groups_are_even():
    y, s, z = population()
    right = np.where((y == 1) & (s == 0), np.where(z == 1, 0.5, 1.0), 0.8)
    found = cross(y, np.random.default_rng(2).random((5, 1600)) < right, s, z, draws=500)
    assert found.gap == pytest.approx(50, abs=6) and found.p_gap == pytest.approx(1 / 501)
    worst = found.table.loc[found.table["accuracy"].idxmin()]
    assert tuple(worst[["target", "protected", "second"]]) == (1, 0, 1)
    assert found.worst == worst["accuracy"] and found.p_worst == pytest.approx(1 / 501)


def test_p_values_are_uniform_where_the_second_attribute_means_nothing():
    p = []
    for seed in range(60):
        y, s, z = population(400, seed)
        right = np.random.default_rng(1000 + seed).random((3, 400)) < 0.8
        p.append(cross(y, right, s, z, draws=99, seed=seed).p_gap)
    assert 0.35 < np.mean(p) < 0.65 and np.mean(np.array(p) <= 0.1) < 0.25


def test_a_shuffle_is_drawn_as_balls_are_from_an_urn():
    values = np.repeat([0.0, 1.0], [30, 20])
    drawn = intersections._sums_of_random(values, 10, 20_000, np.random.default_rng(0))
    expected = hypergeom(50, 20, 10)
    for k in range(2, 7):
        assert np.mean(drawn == k) == pytest.approx(expected.pmf(k), abs=0.012)


def test_small_cells_are_shown_with_their_count_and_take_no_part():
    y, s, z = population()
    tiny = (y == 0) & (s == 0) & (z == 1)
    keep = ~tiny | (np.cumsum(tiny) <= 5)
    right = np.where(tiny, 0.0, 1.0)
    found = cross(y[keep], right[keep], s[keep], z[keep], draws=50)
    row = found.table.set_index(["target", "protected", "second"]).loc[(0, 0, 1)]
    assert row["faces"] == 5 and row["accuracy"] == 0 and not row["counted"]
    assert found.gap == 0 and found.worst == 100 and found.p_gap == 1
    empty = cross(y[~tiny], right[~tiny], s[~tiny], z[~tiny], draws=5).table
    assert np.isnan(empty["accuracy"]).sum() == 1 and empty["faces"].min() == 0
    with pytest.raises(AimfairError, match="no group has 30 faces"):
        cross(y[:60], right[:60], s[:60], z[:60])


def test_labels_that_do_not_fit_are_refused():
    y, s, z = population(200)
    with pytest.raises(AimfairError, match="three labels and a result"):
        cross(y, np.ones(199), s, z)
    with pytest.raises(AimfairError, match="0 and 1 only"):
        cross(y, np.ones(200), s, z + 1)


@pytest.fixture(scope="module")
def world():
    return datasets.load("faceworld", train=0, validation=0, test=600, corpus=0)


def runs_on(world, method="erm"):
    y, s = world.labels("Smiling"), world.labels("Male")
    rng = np.random.default_rng(0)
    faces = pd.DataFrame({"split": "test", "name": world.names, "target": y, "protected": s})
    return [
        Run({"method": method, "seed": seed, "hyper": {}}, {}, faces.assign(logit=4 * y - 2 + rng.normal(0, 2, 600)))
        for seed in (1, 2)
    ]


def test_the_catalogue_knows_the_second_attribute_by_name(world):
    shuffled = np.random.default_rng(0).permutation(600)
    young = intersections.second_attribute(world, world.names[shuffled], "Young")
    assert (young == world.labels("Young")[shuffled]).all()
    turned = intersections.second_attribute(world, world.names, "yaw")
    assert turned.mean() == pytest.approx(0.5, abs=0.01)
    with pytest.raises(AimfairError, match="holds text"):
        intersections.second_attribute(world, world.names, "split")
    with pytest.raises(AimfairError, match="no attribute 'Old'"):
        intersections.second_attribute(world, world.names, "Old")


def test_runs_are_crossed_seed_by_seed_on_the_same_faces(world):
    runs = runs_on(world)
    found = intersections.of_runs(runs, world, "Young", draws=50)
    correct = np.stack([(r.predictions["logit"] >= 0) == (r.predictions["target"] == 1) for r in runs])
    same = cross(world.labels("Smiling"), correct, world.labels("Male"), world.labels("Young"), draws=50)
    assert found.gap == same.gap and set(found.as_dict()) >= {"gap", "gap p", "worst by chance"}
    other = Run(runs[1].config, {}, runs[1].predictions.iloc[::-1])
    with pytest.raises(AimfairError, match="same test faces"):
        intersections.of_runs([runs[0], other], world, "Young")
    with pytest.raises(AimfairError, match="no run"):
        intersections.of_runs([], world, "Young")
