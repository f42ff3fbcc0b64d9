"""Tables: one row per run, selection without group labels, paired differences."""

from types import SimpleNamespace

import IPython
import numpy as np
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter

from aimfair.environment import AimfairError
from aimfair.study import runs, tables


def run(method, seed, wrong, **hyper):
    """A run on 40 test and 40 validation faces that errs on the first ``wrong`` of each group's ten."""
    rows = [
        {"split": s, "name": f"{s}{g}{i}", "target": g // 2, "protected": g % 2, "right": i >= wrong[g]}
        for s in ("test", "validation")
        for g in range(4)
        for i in range(10)
    ]
    frame = pd.DataFrame(rows)
    frame["logit"] = np.where((frame.target == 1) == frame.right, 1.0, -1.0)
    config = {"protocol": 1, "study": {}, "method": method, "hyper": hyper, "seed": seed}
    return runs.Run(config, {}, frame.drop(columns="right"))


def test_a_row_per_run_with_its_report_and_hyper_parameters():
    frame = tables.frame([run("erm", 100, (4, 0, 0, 2)), run("aim-fair", 100, (1, 1, 1, 1), lr=0.01, k=55)])
    assert frame["method"].tolist() == ["Baseline (ERM)", "AIM-Fair"]
    assert frame["wst"].tolist() == [60, 90] and frame["acc"].tolist() == [85, 90]
    assert frame["eo_max"].tolist() == [40, 0] and frame["k"].tolist()[1] == 55


def test_the_choice_is_by_validation_accuracy_and_the_smaller_rate_on_a_tie():
    frame = tables.frame(
        [
            run("aim-fair", 100, (3, 3, 3, 3), lr=0.001),
            run("aim-fair", 100, (1, 1, 1, 1), lr=0.1),
            run("aim-fair", 100, (0, 2, 2, 0), lr=0.01),
        ]
    )
    assert tables.choose(frame)["lr"].tolist() == [0.01]


def test_an_oracle_is_chosen_by_its_worst_group():
    accurate, fair = (0, 0, 0, 5), (2, 2, 2, 2)
    for method, wanted in (("balanced-sampling", 0.01), ("erm", 0.001)):
        frame = tables.frame([run(method, 100, accurate, lr=0.001), run(method, 100, fair, lr=0.01)])
        assert tables.choose(frame)["lr"].tolist() == [wanted]


def test_summary_and_differences_by_hand():
    erm = [run("erm", s, (4, 0, 0, w)) for s, w in ((100, 5), (200, 6), (300, 4), (400, 5))]
    aim = [run("aim-fair", s, (1, 1, 1, w)) for s, w in ((100, 2), (200, 2), (300, 2), (400, 2))]
    frame = tables.frame(erm + aim)
    table = tables.summary(frame, reference="AIM-Fair", metric=("acc", "wst"))
    expected = np.mean([50, 40, 60, 50]) - 80
    assert table.loc["Baseline (ERM)", ("wst", "difference")] == pytest.approx(expected)
    assert table.loc["Baseline (ERM)", ("wst", "p")] == pytest.approx(2 / 16)
    assert table.loc["Baseline (ERM)", ("wst of means", "mean")] == pytest.approx(50)
    assert np.isnan(table.loc["AIM-Fair", ("wst", "difference")])
    shown = tables.show(table, ("acc", "wst"))
    assert shown.loc["AIM-Fair", "WST"].startswith("80.0 [80.0,\u00a080.0]")
    assert tables.show(table, ("wst",), differences=True).loc["Baseline (ERM)", "WST"].startswith("-30.0 [")


def test_p_values_are_adjusted_for_all_rows_of_the_table():
    wrong = {"aim-fair": (0, 0), "erm": (1, 2), "full-finetuning": (3, 5)}
    runs_of_four_seeds = [run(m, s, (w[0], 0, 0, w[1])) for m, w in wrong.items() for s in (100, 200, 300, 400)]
    table = tables.summary(tables.frame(runs_of_four_seeds), reference="AIM-Fair", metric=("wst",))
    assert table["wst", "p"].dropna().tolist() == [2 * 2 / 16] * 2  # of each alone 2 / 16


def test_a_name_with_a_vertical_bar_stays_one_cell_of_a_markdown_table():
    assert tables.text(pd.DataFrame({"gap": ["|TPR|"]})).splitlines()[-1] == r"| \|TPR\| |"


def test_unpaired_or_repeated_seeds_are_refused():
    frame = tables.frame([run("erm", 100, (1, 1, 1, 1)), run("aim-fair", 200, (1, 1, 1, 1))])
    with pytest.raises(AimfairError, match="same seeds"):
        tables.summary(frame, reference="AIM-Fair", metric=("acc",))
    with pytest.raises(AimfairError, match="one run per method and seed"):
        tables.summary(pd.concat([frame, frame]))


def test_complete_keeps_the_seeds_that_have_all_values_of_their_group_draws_and_missing_values_among_them():
    rows = [{"method": "a", "seed": seed, "lr": lr} for seed in (1, 2) for lr in (0.1, 0.2) for _ in range(2)]
    rows += [{"method": "a", "seed": 3, "lr": 0.1}] * 2  # twice one value are not two values
    rows += [{"method": "nothing to search", "seed": seed, "lr": None} for seed in (1, 2, 3)]
    kept = tables.complete(pd.DataFrame(rows))
    assert kept.groupby(["method", "seed"]).size().to_dict() == {
        ("a", 1): 4,
        ("a", 2): 4,
        **{("nothing to search", seed): 1 for seed in (1, 2, 3)},
    }
    assert tables.complete(pd.DataFrame()).empty


def test_in_a_notebook_a_table_has_no_style_sheet_of_its_own(monkeypatch):
    shell = SimpleNamespace(display_formatter=DisplayFormatter())
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    shown = pd.DataFrame({"method": ["a < b"], "wst": [71.25]})
    before = shell.display_formatter.format(shown)[0]["text/html"]
    tables.without_style()
    after = shell.display_formatter.format(shown)[0]["text/html"]
    assert "<style" in before and "<style" not in after and len(before) - len(after) > 200
    assert after.count("<table") == 1 and "a &lt; b" in after and "71.25" in after
    with pd.option_context("display.notebook_repr_html", False):
        assert "text/html" not in shell.display_formatter.format(shown)[0]
