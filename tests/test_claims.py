"""Claims: the interval decides, the better side depends on the metric, seeds are paired, and a claim can fail."""

import numpy as np
import pandas as pd
import pytest

from aimfair.environment import AimfairError
from aimfair.stats import holm, paired_difference
from aimfair.study import claims
from aimfair.study.claims import higher, lower

A = np.array([80.0, 81.0, 79.5, 80.5, 80.2])


@pytest.mark.parametrize(
    ("claim", "verdict"),
    [
        (higher("", A + 5, A), "holds"),
        (higher("", A - 5, A), "contradicted"),
        (higher("", A + np.array([3.0, -3.0, 2.0, -2.5, 0.5]), A), "undecided"),
        (higher("", [9.0], [1.0]), "undecided"),  # one seed has no interval
        (higher("", A + 5, A, margin=4), "holds"),
        (higher("", A + 5, A, margin=6), "contradicted"),
        (lower("", A - 5, A), "holds"),
        (lower("", A + 5, A), "contradicted"),
        (claims.above("", A, 70), "holds"),
        (claims.above("", A, 90), "contradicted"),
        (claims.claim("", [True, True]), "holds"),
        (claims.claim("", [True, False]), "contradicted"),
    ],
)
def test_the_interval_decides(claim, verdict):
    assert claim.verdict == verdict and claim.holds == (verdict == "holds")


def test_an_interval_ends_where_values_must():
    correlations = [0.97, 0.98, 0.999]
    assert "1.02]" in str(claims.above("rank correlation above .8", correlations, 0.8))
    assert "1.00]" in str(claims.above("rank correlation above .8", correlations, 0.8, most=1))


def test_the_words_show_verdict_effect_interval_and_number_of_seeds():
    said = str(higher("a beats b", A + 5, A))
    assert said == "Holds here: a beats b (+5.00 points [+5.00, +5.00], sign-flip p 0.062, 5 seeds)"
    failed = claims.claim("all rows match", [True, False], "1 of 2")
    assert str(failed) == "Does not hold here: all rows match (1 of 2)"


def shown(thing):
    """The HTML of a claim, or of several, and its words; everything in it is closed."""
    from bs4 import BeautifulSoup

    return BeautifulSoup(thing._repr_html_(), "html.parser")


@pytest.mark.parametrize(
    ("claim", "icon"), [(higher("", A + 5, A), "✓"), (higher("", A - 5, A), "✗"), (higher("", [9.0], [1.0]), "?")]
)
def test_a_notebook_shows_a_box_with_icon_words_and_folded_evidence(claim, icon):
    (box,) = shown(claim).select("details.claim")
    assert box.summary.get_text().startswith(f"{icon} {claim.words}") and claim.evidence in box.get_text()
    assert claim.evidence not in box.summary.get_text() and "background:rgba" in box["style"]


def test_text_of_a_claim_cannot_break_its_box_and_code_is_code():
    box = shown(claims.claim("`select` of a < b & c</div>", True))
    assert box.code.get_text() == "select" and "a < b & c</div>" in box.get_text() and box.details is None


def test_of_several_claims_the_undecided_ones_are_counted_and_folded():
    several = claims.Claims([higher("sure", A + 5, A), *(higher(f"open {i}", [9.0], [1.0]) for i in range(3))])
    summaries = [summary.get_text() for summary in shown(several).select("summary")]
    assert summaries[0].endswith("sure") and summaries[1].endswith("3 of 4 claims") and len(summaries) == 2
    assert [item.get_text()[:6] for item in shown(several).select("li")] == ["open 0", "open 1", "open 2"]
    assert str(several).splitlines() == [str(claim) for claim in several]
    assert len(shown(claims.Claims(several[:2])).select("summary")) == 2, "a single one is shown like the others"


def test_what_was_not_run_is_undecided_on_either_side():
    for test in (claims.higher, claims.lower):
        for sides in ((A, []), ([], A), ([], [])):
            assert str(test("a differs from b", *sides)) == "Cannot be decided here: a differs from b (not run here)"
    assert claims.above("mean above 70", [], 70).verdict == "undecided"


def table(**values):
    return pd.DataFrame(
        [{"method": m, "seed": s, "wst": v} for m, several in values.items() for s, v in several.items()],
        columns=["method", "seed", "wst"],
    )


def test_two_methods_are_compared_on_the_seeds_that_both_have():
    rows = table(a={1: 80.0, 2: 81.0, 3: 82.5, 4: 10.0}, b={3: 72.0, 2: 71.0, 1: 70.5})
    (said,) = claims.ask(rows, (higher, "a above b", "a", "b", "wst"))
    assert said.holds and "+10.00 points" in said.evidence and "3 seeds" in said.evidence
    assert claims.compare(lower, "a below b", rows, "a", "b", "wst").verdict == "contradicted"
    for nothing in (
        claims.compare(higher, "?", rows, "a", "c", "wst"),
        claims.compare(higher, "?", table(), "a", "b", "wst"),
    ):
        assert nothing.verdict == "undecided" and nothing.evidence == claims.NOT_RUN
    with pytest.raises(AimfairError, match="several rows of one seed"):
        claims.compare(higher, "?", pd.concat([rows, rows]), "a", "b", "wst")


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


def test_every_method_is_compared_on_the_better_side_of_each_metric():
    compared = claims.compare_all(frame({"good": (2, 3, -4), "bad": (-2, 0, 4)}), "base")
    word = compared.set_index(["method", "metric"])["verdict"]
    assert [word["good", m] for m in claims.METRICS] == ["holds"] * 3
    assert word["bad", "acc"] == word["bad", "eo_max"] == "contradicted" and word["bad", "wst"] == "undecided"
    row = compared.set_index(["method", "metric"]).loc[("good", "wst")]
    rows = frame({"good": (2, 3, -4), "bad": (-2, 0, 4)}).pivot(index="seed", columns="method", values="wst")
    assert row["difference"] == pytest.approx(paired_difference(rows["good"], rows["base"]).mean)
    both = compared[compared["metric"] == "acc"]
    assert list(both["p Holm"]) == pytest.approx(list(holm(both["p"])))


def test_pairs_use_the_seeds_that_both_have():
    rows = frame({"few": (1, 1, 1)})
    rows = rows[(rows["method"] == "base") | (rows["seed"] < 3)]
    assert set(claims.compare_all(rows, "base")["seeds"]) == {3}
    apart = rows.assign(seed=rows["seed"] + 100 * (rows["method"] == "few"))
    with pytest.raises(AimfairError, match="share no seed"):
        claims.compare_all(apart, "base")
    with pytest.raises(AimfairError, match="one run per"):
        claims.compare_all(pd.concat([rows, rows]), "base")
    with pytest.raises(AimfairError, match="nobody"):
        claims.compare_all(rows, "nobody")


def test_the_table_says_verdict_difference_and_interval():
    shown = claims.show(claims.compare_all(frame({"good": (2, 3, -4)}), "base"))
    assert list(shown.columns) == ["ACC", "WST", "EO (max)", "seeds"] and list(shown.index) == ["good"]
    assert shown.loc["good", "ACC"].startswith("wins +2.") and shown.loc["good", "EO (max)"].startswith("wins -")
    single = claims.show(claims.compare_all(frame({"good": (2, 3, -4)}, seeds=[1]), "base"))
    assert single.loc["good", "ACC"].startswith("undecided +") and "[" not in single.loc["good", "ACC"]


@pytest.mark.parametrize(
    ("shift", "use"), [((2, 3, -4), True), ((0, 3, 0), True), ((0, 0, 0), False), ((-2, 3, -4), False)]
)
def test_a_method_is_recommended_if_it_wins_somewhere_and_loses_nowhere(shift, use):
    assert claims.recommended(claims.compare_all(frame({"new": shift}), "base")) is use
