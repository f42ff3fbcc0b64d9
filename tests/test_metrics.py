"""The fairness report: published cells, extreme predictors, symmetries, fairlearn, empty groups, calibration."""

import numpy as np
import pytest
import torch
from fairlearn.metrics import (
    MetricFrame,
    demographic_parity_difference,
    equal_opportunity_difference,
    equalized_odds_difference,
    false_positive_rate,
    true_positive_rate,
)

from aimfair import metrics
from aimfair.environment import AimfairError
from aimfair.metrics import fairness_report, published_report

CELEBA = (5354, 4621, 6893, 3094)
SUMMARIES = ("acc", "wst", "eo_max", "eo_mean", "std")


@pytest.fixture
def faces() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Target, prediction, protected of 3,000 faces with unequal groups and unequal accuracies."""
    rng = np.random.default_rng(7)
    group = rng.choice(4, 3000, p=(0.4, 0.1, 0.2, 0.3))
    target, protected = group // 2, group % 2
    right = rng.random(3000) < np.array((0.9, 0.7, 0.8, 0.6))[group]
    return target, np.where(right, target, 1 - target), protected


def test_the_paper_s_own_rows() -> None:
    report = published_report((83.57, 98.50, 95.36, 71.52), CELEBA)
    assert report.acc == pytest.approx(89.23, abs=0.005) and report.wst == 71.52
    assert report.std == pytest.approx(10.65, abs=0.005)
    assert np.std(report.cells, ddof=1) == pytest.approx(12.29, abs=0.006)
    assert (report.tpr_gap, report.fpr_gap) == pytest.approx((23.84, 14.93))
    assert (report.eo_max, report.eo_mean) == pytest.approx((23.84, 19.385))
    assert report.demographic_parity == pytest.approx(31.3, abs=0.05)
    # The mean form is what the table of vision transformers prints.
    assert published_report((82.59, 98.31, 95.76, 71.12), CELEBA).eo_mean == pytest.approx(20.18)


def test_counts_by_hand() -> None:
    #           (0,0)  (0,1)      (1,0)         (1,1)
    target = [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1]
    protected = [0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1]
    predicted = [0, 1, 0, 0, 0, 1, 1, 1, 0, 1, 0, 0]
    report = fairness_report(target, predicted, protected)
    assert report.cells == pytest.approx((50, 100, 75, 100 / 3))
    assert report.counts.tolist() == [2, 3, 4, 3]
    assert report.acc == pytest.approx(100 * 8 / 12)
    assert report.balanced == pytest.approx((50 + 100 + 75 + 100 / 3) / 4)
    row = report.as_dict()
    assert row["acc_t0_p1"] == 100 and row["n_t1_p0"] == 4 and row["eo_max"] == pytest.approx(50)


@pytest.mark.parametrize("kind", [list, np.asarray, torch.as_tensor, lambda v: np.asarray(v, dtype=bool)])
def test_lists_arrays_tensors_and_booleans_agree(faces, kind) -> None:
    assert fairness_report(*map(kind, map(np.ndarray.tolist, faces))).as_dict() == fairness_report(*faces).as_dict()


def test_extreme_predictors(faces) -> None:
    """A perfect one has the gap of the base rates as demographic parity; a constant one looks fair by equalised odds."""
    target, _, protected = faces
    report = fairness_report(target, target, protected)
    assert [getattr(report, s) for s in SUMMARIES] == [100, 100, 0, 0, 0]
    gap = abs(target[protected == 1].mean() - target[protected == 0].mean())
    assert report.demographic_parity == pytest.approx(100 * gap) and gap > 0.1
    report = fairness_report(target, np.ones_like(target), protected)
    assert (report.eo_max, report.eo_mean, report.demographic_parity, report.wst, report.std) == (0, 0, 0, 0, 50)


def test_swapped_labels(faces) -> None:
    """Those of the protected attribute change nothing; those of the target swap the gaps."""
    target, predicted, protected = faces
    a, b = fairness_report(*faces), fairness_report(target, predicted, 1 - protected)
    assert [getattr(a, s) for s in SUMMARIES] == pytest.approx([getattr(b, s) for s in SUMMARIES])
    b = fairness_report(1 - target, 1 - predicted, protected)
    assert (a.tpr_gap, a.fpr_gap) == pytest.approx((b.fpr_gap, b.tpr_gap)) and a.tpr_gap != pytest.approx(a.fpr_gap)
    assert (a.eo_max, a.eo_mean) == pytest.approx((b.eo_max, b.eo_mean))


def test_the_functions_take_many_models_at_once() -> None:
    cells = np.random.default_rng(0).uniform(0, 100, (20, 10, 4))
    assert (metrics.eo_mean(cells) <= metrics.eo_max(cells) + 1e-12).all()
    report = published_report(cells[3, 7])
    for name in ("tpr_gap", "fpr_gap", "eo_max", "eo_mean", "wst", "std", "balanced"):
        values = getattr(metrics, name)(cells)
        assert values.shape == (20, 10) and values[3, 7] == getattr(report, name)


@pytest.mark.parametrize("seed", range(3))
def test_fairlearn_agrees(seed) -> None:
    target, predicted, protected = labels = np.random.default_rng(seed).integers(0, 2, (3, 200))
    report = fairness_report(*labels)
    for agg, ours in (("worst_case", report.eo_max), ("mean", report.eo_mean)):
        theirs = equalized_odds_difference(target, predicted, sensitive_features=protected, agg=agg)
        assert ours == pytest.approx(100 * theirs)
    for theirs, ours in (
        (equal_opportunity_difference, report.tpr_gap),
        (demographic_parity_difference, report.demographic_parity),
    ):
        assert ours == pytest.approx(100 * theirs(target, predicted, sensitive_features=protected))
    rates = MetricFrame(
        metrics={"tpr": true_positive_rate, "fpr": false_positive_rate},
        y_true=target,
        y_pred=predicted,
        sensitive_features=protected,
    )
    gaps = 100 * rates.difference()
    assert (report.tpr_gap, report.fpr_gap) == pytest.approx((gaps["tpr"], gaps["fpr"]))


def test_an_empty_group_is_nan_with_a_warning_and_never_zero() -> None:
    with pytest.warns(UserWarning, match=r"group \(target=1, protected=1\)") as caught:
        report = fairness_report([0, 0, 1, 1], [0, 1, 1, 1], [0, 1, 0, 0])
    assert len(caught) == 1 and caught[0].filename == __file__
    assert np.isnan(report.cells).tolist() == [False, False, False, True]
    assert all(np.isnan([report.wst, report.std, report.balanced, report.tpr_gap, report.eo_max, report.eo_mean]))
    assert report.acc == 75 and report.fpr_gap == 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 1], [0.3, -1.2], [0, 1]), "predicted must hold 0 and 1 only, found 0.3.*logit >= 0"),
        (([0, 1], [0, 1], [-1, 1]), "protected must hold 0 and 1 only, found -1"),
        (([0, 1, 1], [0, 1], [0, 1]), "got 3, 2, 2"),
        (([], [], []), "got 0, 0, 0"),
    ],
)
def test_what_is_not_a_label_is_refused(arguments, message) -> None:
    with pytest.raises(AimfairError, match=message):
        fairness_report(*arguments)


@pytest.mark.parametrize("cells", [(0.8, 0.9, 0.7), (83.57, 98.5, 95.36, 171.52), (-1, 50, 50, 50)])
def test_what_is_not_a_group_accuracy_is_refused(cells) -> None:
    with pytest.raises(AimfairError):
        published_report(cells)


def test_published_cells_without_counts_weigh_the_same() -> None:
    report = published_report((79.58, 96.16, 95.75, 83.96))
    assert report.acc == pytest.approx(88.8625) and report.acc == report.balanced
