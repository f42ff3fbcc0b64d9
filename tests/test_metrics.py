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
from aimfair.metrics import across_seeds, fairness_report, published_report

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


def test_the_paper_s_own_erm_row() -> None:
    report = published_report((83.57, 98.50, 95.36, 71.52), CELEBA)
    assert report.acc == pytest.approx(89.23, abs=0.005)
    assert report.wst == 71.52
    assert report.std == pytest.approx(10.65, abs=0.005)
    assert np.std(report.cells, ddof=1) == pytest.approx(12.29, abs=0.006)
    assert report.tpr_gap == pytest.approx(23.84)
    assert report.fpr_gap == pytest.approx(14.93)
    assert report.eo_max == pytest.approx(23.84)
    assert report.eo_mean == pytest.approx(19.385)
    assert report.eo_sum == pytest.approx(38.77)
    assert report.demographic_parity == pytest.approx(31.3, abs=0.05)


def test_the_mean_form_is_what_the_vit_table_prints() -> None:
    report = published_report((82.59, 98.31, 95.76, 71.12), CELEBA)
    assert (report.tpr_gap, report.fpr_gap) == pytest.approx((24.64, 15.72))
    assert report.eo_mean == pytest.approx(20.18)


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


def test_a_perfect_predictor_has_the_base_rate_gap_as_demographic_parity(faces) -> None:
    target, _, protected = faces
    report = fairness_report(target, target, protected)
    assert [getattr(report, s) for s in SUMMARIES] == [100, 100, 0, 0, 0]
    gap = abs(target[protected == 1].mean() - target[protected == 0].mean())
    assert report.demographic_parity == pytest.approx(100 * gap) and gap > 0.1


def test_a_constant_predictor_looks_fair_by_equalised_odds(faces) -> None:
    target, _, protected = faces
    report = fairness_report(target, np.ones_like(target), protected)
    assert (report.eo_max, report.eo_mean, report.demographic_parity) == (0, 0, 0)
    assert report.wst == 0 and report.std == 50


def test_swapping_the_protected_labels_changes_nothing(faces) -> None:
    target, predicted, protected = faces
    a, b = fairness_report(*faces), fairness_report(target, predicted, 1 - protected)
    assert [getattr(a, s) for s in SUMMARIES] == pytest.approx([getattr(b, s) for s in SUMMARIES])


def test_swapping_the_classes_swaps_the_gaps(faces) -> None:
    target, predicted, protected = faces
    a, b = fairness_report(*faces), fairness_report(1 - target, 1 - predicted, protected)
    assert (a.tpr_gap, a.fpr_gap) == pytest.approx((b.fpr_gap, b.tpr_gap))
    assert a.tpr_gap != pytest.approx(a.fpr_gap)
    assert (a.eo_max, a.eo_mean) == pytest.approx((b.eo_max, b.eo_mean))


def test_mean_max_and_sum_are_ordered() -> None:
    cells = np.random.default_rng(0).uniform(0, 100, (500, 4))
    low, high, total = metrics.eo_mean(cells), metrics.eo_max(cells), metrics.eo_sum(cells)
    assert (low <= high + 1e-12).all() and (high <= total + 1e-12).all()
    assert total == pytest.approx(2 * low)


def test_fairlearn_agrees(faces) -> None:
    target, predicted, protected = faces
    report = fairness_report(*faces)
    for agg, ours in (("worst_case", report.eo_max), ("mean", report.eo_mean)):
        theirs = equalized_odds_difference(target, predicted, sensitive_features=protected, agg=agg)
        assert ours == pytest.approx(100 * theirs)
    assert report.tpr_gap == pytest.approx(
        100 * equal_opportunity_difference(target, predicted, sensitive_features=protected)
    )
    assert report.demographic_parity == pytest.approx(
        100 * demographic_parity_difference(target, predicted, sensitive_features=protected)
    )


@pytest.mark.parametrize("seed", range(5))
def test_a_metric_frame_of_fairlearn_has_the_same_gaps(seed) -> None:
    target, predicted, protected = np.random.default_rng(seed).integers(0, 2, (3, 200))
    report = fairness_report(target, predicted, protected)
    rates = MetricFrame(
        metrics={"tpr": true_positive_rate, "fpr": false_positive_rate},
        y_true=target,
        y_pred=predicted,
        sensitive_features=protected,
    )
    gaps = 100 * rates.difference()
    assert (report.tpr_gap, report.fpr_gap) == pytest.approx((gaps["tpr"], gaps["fpr"]))
    assert (report.eo_max, report.eo_mean) == pytest.approx((gaps.max(), gaps.mean()))


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


def test_mean_then_min_is_not_min_then_mean() -> None:
    summary = across_seeds([published_report((80, 90, 90, 84)), published_report((86, 90, 90, 82))])
    assert (summary.wst_of_means, summary.mean_wst, summary.seeds) == (83, 81, 2)
    # Gaps 6 and 10, 8 and 4: the larger ones average 9, though the mean cells have gaps of 7 only.
    assert summary.eo_max == 9 and metrics.eo_max(summary.cells) == 7
    assert summary.std_of_means < summary.mean_std


def test_the_order_of_averaging_is_always_on_the_same_side() -> None:
    cells = np.random.default_rng(1).uniform(50, 100, (200, 10, 4))
    for seeds in cells:
        summary = across_seeds([published_report(c) for c in seeds])
        assert summary.wst_of_means >= summary.mean_wst
        assert summary.std_of_means <= summary.mean_std + 1e-9
        assert summary.eo_max >= metrics.eo_max(summary.cells) - 1e-9


def test_a_summary_averages_what_each_seed_has() -> None:
    """Test sets of unequal groups, and gaps of opposite signs, which the mean cells do not have."""
    reports = [published_report((80, 90, 100, 70), (1, 1, 1, 7)), published_report((90, 80, 70, 100), (7, 1, 1, 1))]
    summary = across_seeds(reports)
    assert summary.cells.tolist() == [85] * 4
    assert (summary.acc, summary.balanced) == (pytest.approx((76 + 88) / 2), 85)
    assert (summary.eo_max, summary.eo_mean, summary.std_of_means) == (30, 20, 0)
    assert summary.mean_std == pytest.approx(np.std((80, 90, 100, 70)))


def test_no_seed_is_refused() -> None:
    with pytest.raises(AimfairError, match="at least one seed"):
        across_seeds([])
