"""Intervals that cover, tests that are exact, corrections that add up."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import norm, permutation_test, t
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from aimfair import metrics
from aimfair.environment import AimfairError
from aimfair.metrics import fairness_report, published_report
from aimfair.stats import (
    binomial_error,
    corrected_std,
    hierarchical_bootstrap,
    holm,
    interval,
    paired_difference,
    percentile,
    sign_flip,
    wilson,
)


@pytest.mark.parametrize(("seeds", "low_share", "high_share"), [(10, 0.93, 0.97), (5, 0.89, 0.95), (3, 0.93, 0.97)])
def test_the_interval_over_seeds_covers_the_mean_as_documented(seeds, low_share, high_share) -> None:
    samples = np.random.default_rng(seeds).normal(80, 2, (1500, seeds))
    held = [low <= 80 <= high for low, high in (interval(x, seed=i, draws=1000) for i, x in enumerate(samples))]
    assert low_share <= np.mean(held) <= high_share


def test_the_interval_of_few_seeds_and_of_other_levels() -> None:
    assert interval([70.0, 80.0, 85.0]) == pytest.approx((78.333 - 4.303 * 4.410, 78.333 + 4.303 * 4.410), abs=0.01)
    assert np.isnan(interval([80.0])).all()
    assert interval([80.0, 80.0]) == (80, 80)
    x = np.random.default_rng(2).normal(size=10)
    wide, narrow = interval(x), interval(x, level=0.5)
    assert wide[0] < narrow[0] < x.mean() < narrow[1] < wide[1] and interval(x, seed=5) == interval(x, seed=5)


@pytest.mark.parametrize("seeds", [7, 10])
def test_the_interval_is_as_wide_as_student_s(seeds) -> None:
    """An ordinary percentile interval of ten values is a sixth narrower."""
    x = norm.ppf((np.arange(seeds) + 0.5) / seeds)
    low, high = interval(x, draws=40_000)
    assert high - low == pytest.approx(2 * t.ppf(0.975, seeds - 1) * x.std(ddof=1) / np.sqrt(seeds), rel=0.03)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")]])
def test_nothing_and_nan_are_refused(values) -> None:
    with pytest.raises(AimfairError, match="only finite"):
        interval(values)


def test_sign_flip_is_the_enumeration_it_claims_to_be() -> None:
    d = [0.4, -0.3, 1.2, 0.9, 0.1, -0.2]
    far = [abs(sum(s * x for s, x in zip(signs, d, strict=True))) for signs in product((1, -1), repeat=6)]
    assert sign_flip(d) == np.mean(np.array(far) >= abs(sum(d)) - 1e-9)
    exact = permutation_test((np.array(d),), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(d) == pytest.approx(exact.pvalue)
    assert sign_flip(np.arange(1.0, 11.0)) == sign_flip(-np.arange(1.0, 11.0)) == 2 / 1024
    assert sign_flip([0.1] * 5) == 2 / 32  # equal sums, unequal in their last bit
    assert sign_flip([0.0, 0.0]) == sign_flip([3.0]) == 1


def test_sampled_signs_approach_the_exact_p_value() -> None:
    d = np.random.default_rng(4).normal(0.4, 1, 17)
    halves = ((np.arange(2**17)[:, None] >> np.arange(17)) & 1) * 2 - 1
    exact = np.mean(np.abs(halves @ d) >= abs(d.sum()) - 1e-9)
    assert sign_flip(d) == pytest.approx(exact, abs=0.01) and sign_flip(d) == sign_flip(d)
    assert sign_flip(np.full(40, 1.0), draws=1000) == 1 / 1000


def test_the_paired_difference_ignores_what_both_share() -> None:
    rng = np.random.default_rng(6)
    shared = rng.normal(80, 5, 10)
    a, b = shared + 1 + rng.normal(0, 0.2, 10), shared
    difference = paired_difference(a, b)
    assert difference.mean == pytest.approx(np.mean(a) - np.mean(b))
    assert 0.7 < difference.low < difference.mean < difference.high < 1.3
    assert difference.p == 2 / 1024 and difference.n == 10
    assert paired_difference(a, b, level=0.5).high < difference.high
    low, high = interval(a)
    assert high - low > 5 * (difference.high - difference.low)
    with pytest.raises(AimfairError, match="same seeds: got 10 and 9"):
        paired_difference(a, b[:-1])


def test_holm_is_that_of_statsmodels() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    for p in ([0.03, 0.01], [0.6, 0.7], np.random.default_rng(0).random(12) ** 3):
        assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    with pytest.raises(AimfairError, match="between 0 and 1"):
        holm([0.5, 1.2])


def test_the_image_bootstrap_covers_the_cells() -> None:
    rng = np.random.default_rng(11)
    groups = np.repeat(np.arange(4), (150, 300, 300, 150))
    truth = np.array((85.0, 95.0, 90.0, 70.0))
    held = []
    for trial in range(400):
        correct = rng.random(len(groups)) < truth[groups] / 100
        draws = hierarchical_bootstrap(correct[None], groups, draws=500, seed=trial)[:, 0]
        low, high = np.quantile(draws, (0.025, 0.975), axis=0)
        held.append((low <= truth) & (truth <= high))
    assert 0.93 <= np.mean(held) <= 0.97


def test_the_bootstrap_is_centred_has_the_binomial_spread_and_keeps_the_cells_sizes() -> None:
    rng = np.random.default_rng(12)
    groups = rng.choice(4, 4000, p=(0.1, 0.4, 0.4, 0.1))
    correct = rng.random(4000) < 0.8
    report = fairness_report(groups // 2, np.where(correct, groups // 2, 1 - groups // 2), groups % 2)
    draws = hierarchical_bootstrap(correct[None], groups, draws=4000)[:, 0]
    assert draws.mean(0) == pytest.approx(report.cells, abs=0.15)
    assert draws.std(0) == pytest.approx(binomial_error(report.cells, report.counts), rel=0.06)
    assert (np.abs(draws * report.counts / 100 - np.round(draws * report.counts / 100)) < 1e-9).all()


def test_seeds_widen_the_interval_and_pairs_narrow_the_difference() -> None:
    rng = np.random.default_rng(13)
    groups = np.repeat(np.arange(4), 400)
    difficulty = rng.random(1600)
    skill = 0.8 + rng.normal(0, 0.05, (6, 1))
    a, b = difficulty < skill, difficulty < skill + 0.02
    draws = hierarchical_bootstrap(np.stack([b, a]), groups, draws=2000, seed=1)
    assert draws.shape == (2000, 2, 6, 4)
    means = draws.mean((2, 3))
    gain = means[:, 0] - means[:, 1]
    assert gain.std() < 0.4 * means[:, 0].std()
    one_seed = hierarchical_bootstrap(a[:1], groups, draws=2000, seed=1).mean((1, 2))
    assert means[:, 1].std() > 1.5 * one_seed.std()
    low, high = percentile(gain)
    assert low <= 2 <= high and low > 0
    assert metrics.wst(draws).shape == (2000, 2, 6)


def test_counting_patterns_is_the_same_experiment_as_drawing_images() -> None:
    rng = np.random.default_rng(14)
    correct = rng.random((3, 200)) < 0.7
    by_pattern = hierarchical_bootstrap(correct, np.zeros(200, dtype=int), draws=6000)
    by_image = 100 * correct[:, rng.integers(0, 200, (6000, 200))].mean(-1).T
    by_image = np.take_along_axis(by_image, rng.integers(0, 3, (6000, 3)), axis=1)
    for q in (0.05, 0.5, 0.95):
        assert np.quantile(by_pattern[..., 0].mean(1), q) == pytest.approx(np.quantile(by_image.mean(1), q), abs=0.35)
    assert np.isnan(by_pattern[..., 1:]).all()


def test_the_bootstrap_repeats_itself_and_refuses_a_wrong_shape() -> None:
    correct = np.random.default_rng(0).random((2, 40)) < 0.7
    groups = np.arange(40) % 4
    first, again = (hierarchical_bootstrap(correct, groups, 50, seed=3) for _ in range(2))
    assert (first == again).all() and (first != hierarchical_bootstrap(correct, groups, 50, seed=4)).any()
    with pytest.raises(AimfairError, match="40 images"):
        hierarchical_bootstrap(correct[0], groups)


@pytest.mark.parametrize(
    ("share", "count", "error"), [(84.2, 3094, 0.66), (71.5, 3094, 0.81), (55, 1916, 1.14), (84.3, 800, 1.29)]
)
def test_binomial_errors_of_the_paper_s_test_sets(share, count, error) -> None:
    assert binomial_error(share, count) == pytest.approx(error, abs=0.006)


def test_wilson_stays_between_0_and_100_and_wide_at_the_ends() -> None:
    """Against statsmodels; none of 12 may still be a quarter."""
    hits, counts = np.array([0, 10, 12, 188, 2000]), np.array([12, 12, 12, 200, 2000])
    low, high = wilson(100 * hits / counts, counts)
    assert np.stack([low, high]) / 100 == pytest.approx(
        np.stack(proportion_confint(hits, counts, method="wilson")), abs=1e-6
    )
    assert low[0] == pytest.approx(0, abs=1e-9) and 24 < high[0] < 25 and high[-1] - low[-1] < 0.3


def test_the_corrected_spread_of_a_fair_model_is_near_zero() -> None:
    rng = np.random.default_rng(15)
    counts = np.full(4, 200)
    fair = [published_report(100 * rng.binomial(200, 0.85, 4) / 200, counts) for _ in range(2000)]
    assert np.mean([report.std for report in fair]) > 1.8
    # Without the floor at zero the variance is unbiased; half of the draws therefore land on the floor.
    assert np.median([corrected_std(report) for report in fair]) < 0.8
    uneven = [published_report(100 * rng.binomial(200, (0.95, 0.9, 0.8, 0.7)) / 200, counts) for _ in range(2000)]
    assert np.sqrt(np.mean([corrected_std(r) ** 2 for r in uneven])) == pytest.approx(9.6, abs=0.1)


def test_the_corrected_spread_by_hand() -> None:
    """Cells .5 and .9 twice: variance .04, sampling variances .25 / 10 and .09 / 10, three quarters of whose mean is noise."""
    report = published_report((50, 90, 50, 90), (11, 11, 11, 11))
    assert corrected_std(report) == pytest.approx(100 * np.sqrt(0.04 - 0.75 * 0.017))
