"""Moving the threshold: cells as counted face by face, rules that reach what an exhaustive search reaches, no leak of labels."""

import numpy as np
import pandas as pd
import pytest

from aimfair.analysis import calibration, thresholds
from aimfair.environment import AimfairError
from aimfair.metrics import fairness_report
from aimfair.study.runs import Run


def run_of(seed=0, n=400, shift=1.0, method="erm"):
    """Logits that are shifted up for protected value 1: one threshold cannot serve both."""
    rng = np.random.default_rng(seed)
    tables = []
    for split, size in (("test", n), ("validation", n // 2)):
        y, s = rng.integers(0, 2, (2, size))
        logit = 2 * (2 * y - 1) + shift * (2 * s - 1) + rng.normal(0, 1.5, size)
        tables.append(pd.DataFrame({"split": split, "name": range(size), "target": y, "protected": s, "logit": logit}))
    return Run({"method": method, "seed": seed, "hyper": {}}, {}, pd.concat(tables, ignore_index=True))


def test_cells_at_a_threshold_are_those_of_the_decisions():
    run = run_of()
    faces = thresholds.scored(run, "test")
    for cut in (-1.3, 0.0, 0.7):
        expected = fairness_report(faces.target, faces.logit >= cut, faces.protected)
        assert faces.cells([cut])[0] == pytest.approx(expected.cells)
        row = thresholds.curve(faces, [cut]).iloc[0]
        assert (row["acc"], row["wst"], row["eo_max"]) == pytest.approx((expected.acc, expected.wst, expected.eo_max))
    at = float(faces.logit[3])  # a face on the threshold is called 1
    assert faces.cells([at])[0] == pytest.approx(
        fairness_report(faces.target, faces.logit >= at, faces.protected).cells
    )
    cuts = thresholds.moved([run]).set_index("rule")
    assert cuts.loc["0, as trained", "wst"] == run.report().wst


def test_candidates_decide_differently_and_are_all_there_is():
    logits = np.array([0.3, -1.0, 0.3, 2.0])
    cuts = thresholds.candidates(logits)
    assert cuts.tolist() == [-2.0, -0.35, 0.0, 1.15, 3.0]
    decisions = {tuple(logits >= cut) for cut in np.linspace(-3, 4, 1001)}
    assert decisions == {tuple(logits >= cut) for cut in cuts}


def test_each_rule_is_the_best_of_its_kind_where_it_chooses():
    run = run_of(3)
    best = thresholds.moved([run], chosen_on="test").set_index("rule")
    faces = thresholds.scored(run, "test")
    every = thresholds.curve(faces, thresholds.candidates(faces.logit))
    one, fair, per = list(thresholds.RULES)[1:]
    assert best.loc[one, "acc"] == pytest.approx(every["acc"].max())
    assert best.loc[fair, "wst"] == pytest.approx(every["wst"].max())
    grid = thresholds.candidates(faces.logit)[::8]
    exhaustive = max(faces.report((a, b)).wst for a in grid for b in grid)
    assert best.loc[per, "wst"] >= exhaustive - 1e-9
    assert best.loc[per, "wst"] > best.loc[fair, "wst"] > best.loc["0, as trained", "wst"] - 1e-9
    assert (best["cut 0"] == best["cut 1"]).tolist() == [True, True, True, False]


def test_the_accuracy_rule_reads_no_protected_label():
    run = run_of(5)
    swapped = run.predictions.assign(protected=np.random.default_rng(0).integers(0, 2, len(run.predictions)))
    cuts = [thresholds.by_accuracy(thresholds.scored(Run({}, {}, p), "validation")) for p in (run.predictions, swapped)]
    assert cuts[0] == cuts[1]


def test_of_equal_thresholds_the_one_nearest_to_zero_is_taken():
    assert thresholds.best(np.array([1.0, 5.0, 5.0, 5.0, 2.0]), np.array([-3.0, -2.0, 0.5, 1.0, 2.0])) == 0.5


def test_curves_have_a_row_for_each_run_and_threshold():
    frame = thresholds.curves([run_of(1), run_of(2)], np.linspace(-1, 1, 5))
    assert len(frame) == 10 and set(frame["seed"]) == {1, 2} and set(frame["method"]) == {"Baseline (ERM)"}
    with pytest.raises(AimfairError, match="no run"):
        thresholds.curves([], [0.0])
    with pytest.raises(AimfairError, match="no predictions of home"):
        thresholds.scored(run_of(), "home")


def test_calibration_is_compared_on_groups_of_equal_size():
    protected = np.repeat([0, 1], [300, 80])
    chosen = calibration.equal_sizes(protected, seed=1)
    assert np.bincount(protected[chosen]).tolist() == [80, 80] and (np.diff(chosen) > 0).all()
    row = calibration.frame([run_of(4)]).iloc[0]
    faces = run_of(4).predictions.query("split == 'test'")
    faces = faces.iloc[calibration.equal_sizes(faces["protected"])]
    direct = calibration.group_scores(faces["target"], faces["logit"], faces["protected"])
    assert (row["ece 0"], row["auroc 1"]) == pytest.approx((100 * direct.ece[0], 100 * direct.auroc[1]))
    assert row["brier gap"] == pytest.approx(abs(row["brier 0"] - row["brier 1"]))
    assert row["ece gap"] >= 0 and row["seed"] == 4
