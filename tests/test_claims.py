"""Claims: the interval decides, and a claim can fail."""

import numpy as np

from aimfair.study import claims

A = np.array([80.0, 81.0, 79.5, 80.5, 80.2])


def test_the_three_verdicts():
    assert claims.higher("a beats b", A + 5, A).verdict == "holds"
    assert claims.higher("a beats b", A - 5, A).verdict == "contradicted"
    noise = np.array([3.0, -3.0, 2.0, -2.5, 0.5])
    assert claims.higher("a beats b", A + noise, A).verdict == "undecided"
    assert claims.lower("a is below b", A - 5, A).holds and not claims.lower("", A + 5, A).holds


def test_a_margin_asks_for_more_than_a_sign():
    assert claims.higher("by more than 4", A + 5, A, margin=4).holds
    assert claims.higher("by more than 6", A + 5, A, margin=6).verdict == "contradicted"


def test_bounds_and_facts():
    assert claims.above("mean above 70", A, 70).holds
    assert claims.above("mean above 90", A, 90).verdict == "contradicted"
    assert claims.claim("all rows match", [True, True], "2 of 2").holds
    failed = claims.claim("all rows match", [True, False], "1 of 2")
    assert failed.verdict == "contradicted" and str(failed) == "Does not hold here: all rows match (1 of 2)"


def test_an_interval_ends_where_values_must():
    correlations = [0.97, 0.98, 0.999]
    assert "1.02]" in str(claims.above("rank correlation above .8", correlations, 0.8))
    assert "1.00]" in str(claims.above("rank correlation above .8", correlations, 0.8, most=1))


def test_the_words_show_verdict_effect_interval_and_number_of_seeds():
    said = str(claims.higher("a beats b", A + 5, A))
    assert said == "Holds here: a beats b (+5.00 points [+5.00, +5.00], sign-flip p 0.062, 5 seeds)"


def test_what_was_not_run_is_undecided_on_either_side():
    for test in (claims.higher, claims.lower):
        for sides in ((A, []), ([], A), ([], [])):
            assert str(test("a differs from b", *sides)) == "Cannot be decided here: a differs from b (not run here)"
    assert claims.above("mean above 70", [], 70).verdict == "undecided"
