"""Tables: one row per run, selection without group labels, paired differences, words for what is missing."""

from types import SimpleNamespace

import IPython
import numpy as np
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter
from small_grid import changes, draw_pool

from aimfair import methods, study
from aimfair.environment import AimfairError
from aimfair.paper import tables as paper_tables
from aimfair.study import runs, tables
from aimfair.study.grid.experiments import Experiment, Row

RATE = {"lr": 0.03}
SMALL = Experiment(
    "Table 6",
    "A small one",
    {"as it is": {}},
    [
        Row("Baseline", "erm"),
        Row("All", "full-finetuning", RATE),
        Row("Wrong", "aim-fair", RATE, {"assumed_minority": 0.25}),
    ],
)


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


@pytest.mark.parametrize(
    ("method", "wrong", "wanted"),
    [  # wrong faces of each group at each rate: of equals the smaller rate is taken
        ("aim-fair", {0.001: (3, 3, 3, 3), 0.1: (1, 1, 1, 1), 0.01: (0, 2, 2, 0)}, 0.01),
        ("erm", {0.001: (0, 0, 0, 5), 0.01: (2, 2, 2, 2)}, 0.001),
        ("balanced-sampling", {0.001: (0, 0, 0, 5), 0.01: (2, 2, 2, 2)}, 0.01),  # an oracle: by its worst group
    ],
)
def test_the_choice_is_by_validation_accuracy_or_an_oracles_worst_group(method, wrong, wanted):
    frame = tables.frame([run(method, 100, errors, lr=lr) for lr, errors in wrong.items()])
    assert tables.choose(frame)["lr"].tolist() == [wanted]


def test_summary_and_differences_by_hand():
    wrong = {"aim-fair": (1, 2), "erm": (4, 5), "full-finetuning": (3, 5)}  # in the first and the last group
    frame = tables.frame([run(m, s, (a, 0, 0, b)) for m, (a, b) in wrong.items() for s in (100, 200, 300, 400)])
    table = tables.summary(frame, reference="AIM-Fair", metric=("acc", "wst"))
    erm = table.loc["Baseline (ERM)"]
    assert erm["wst", "difference"] == pytest.approx(50 - 80) and erm["wst of means", "mean"] == pytest.approx(50)
    assert table["wst", "p"].dropna().tolist() == [2 * 2 / 16] * 2  # Holm: of each alone 2 / 16
    assert np.isnan(table.loc["AIM-Fair", ("wst", "difference")])
    assert tables.show(table, ("acc", "wst")).loc["AIM-Fair", "WST"].startswith("80.0 [80.0,\u00a080.0]")
    assert tables.show(table, ("wst",), differences=True).loc["Baseline (ERM)", "WST"].startswith("-30.0 [")


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
    kept = tables.complete(pd.DataFrame(rows)).groupby(["method", "seed"]).size().to_dict()
    assert kept == {("a", 1): 4, ("a", 2): 4} | {("nothing to search", seed): 1 for seed in (1, 2, 3)}
    assert tables.complete(pd.DataFrame()).empty


def test_in_a_notebook_a_table_has_no_style_sheet_of_its_own(monkeypatch):
    shell = SimpleNamespace(display_formatter=DisplayFormatter())
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    shown = pd.DataFrame({"method": ["a < b"], "wst": [71.25]})
    before = shell.display_formatter.format(shown)[0]["text/html"]
    study.study.without_style()
    after = shell.display_formatter.format(shown)[0]["text/html"]
    assert "<style" in before and "<style" not in after and len(before) - len(after) > 200
    assert after.count("<table") == 1 and "a &lt; b" in after and "71.25" in after
    with pd.option_context("display.notebook_repr_html", False):
        assert "text/html" not in shell.display_formatter.format(shown)[0]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A study in which one seed of the table was computed."""
    here = tmp_path_factory.mktemp("evidence")
    given = changes(draw_pool(here / "pool"))
    opened = study.open_study("smoke", changes=given, device="cpu", runs_root=str(here / "runs"))
    opened.published_root = here / "published"
    SMALL.compute(opened, 100)
    return opened


def test_a_computed_table_has_a_row_for_each_run_and_computing_it_again_trains_nothing(lab, monkeypatch):
    monkeypatch.setattr(study.Study, "_train", lambda *_: pytest.fail("trained again"))
    SMALL.compute(lab, 100)
    rows = tables.rows(lab, SMALL)
    assert list(rows["method"]) == ["Baseline", "All", "Wrong"] and set(rows["seed"]) == {100}
    assert list(rows["lr"]) == [0.0, 0.03, 0.03] and set(rows["setting"]) == {"as it is"}
    wrong = lab.varied(assumed_minority=0.25).run("aim-fair", 100, lr=0.03)
    assert rows.loc[2, "wst"] == wrong.report().wst and rows.loc[2, "scores"]["mask"] == wrong.scores["mask"]
    assert tables.missing(lab, SMALL, tables.chosen(rows)) == {}
    assert tables.note(lab, SMALL, rows).data == "*All runs of Table 6 are there, 1 seed for each row.*"


def test_rows_of_other_settings_and_hyper_parameters_are_not_shown(lab):
    rows = [Row("k", "aim-fair", {"k": 40}), Row("Rare", "jtt", settings=("larger",))]
    other = Experiment("Table 6", "", {"larger": {"train_images": 120}, "as it is": {}}, rows)
    found = tables.rows(lab, other)
    assert found.empty and set(tables.METRICS) < set(found)
    best = tables.chosen(found)
    assert tables.missing(lab, other, best) == {"k (larger)": 1, "Rare (larger)": 1, "k (as it is)": 1}
    assert "not run yet: k (larger); Rare (larger); k (as it is)." in tables.note(lab, other, best).data
    assert "no runs with this profile" in tables.note(lab, Experiment("Table 11", "", {}, []), best).data


def test_missing_seeds_are_counted_and_told_with_the_command_and_what_methods_noted():
    opened = study.open_study("utkface")
    three, both = opened.profile.seeds, Experiment("Table 6", "", {"as it is": {}}, [Row("A", "erm"), Row("B", "jtt")])
    there = pd.DataFrame({"setting": "as it is", "method": ["A"] * three + ["B"], "seed": [*range(three), 0]})
    assert tables.missing(opened, both, there) == {"B": three - 1}
    text = tables.note(opened, both, there.assign(note=["", "few", "few", "no"])).data
    assert f"that are not run yet: B ({three - 1})." in text and text.endswith("`\n\nA, 2 runs: few.\n\nB, 1 run: no.")
    assert "grid run --table 6 --methods jtt --profile utkface --data path/to/images`" in text
    nothing = tables.note(opened, both, there.iloc[:0]).data
    assert "Of Table 6 not run yet: A; B." in nothing and "grid run --table 6 --profile utkface" in nothing


def test_published_runs_come_first_and_those_of_this_machine_fill_up(lab, monkeypatch):
    erm = lab.run("erm", 100)
    mine = lab.run("full-finetuning", 100, **RATE)
    monkeypatch.setattr(lab, "all_published", lambda method: [erm])
    monkeypatch.setattr(lab, "all_fresh", lambda method: [lab.find(erm.config), mine])
    assert tables.find_runs(lab, "erm") == [erm, mine] and tables.find_runs(lab, "erm")[0] is erm


def test_a_row_may_fix_another_batch_norm_policy_or_checkpoint_than_the_usual(lab):
    fixed = {
        "Moving statistics": ("linear-probing", {"batchnorm": "train"}),
        "Last": ("full-finetuning", {"select": "last"}),
    }
    table = Experiment("Table 6", "", {"": {}}, [Row(t, name, {**of, **RATE}) for t, (name, of) in fixed.items()])
    assert tables.rows(lab, table).empty
    table.compute(lab, 100)
    assert list(tables.rows(lab, table)["method"]) == list(fixed)
    usual = Experiment("Table 6", "", {"": {}}, [Row("All", "full-finetuning", RATE)])
    assert len(tables.rows(lab, usual)) == 1


def test_a_seed_that_lacks_a_searched_value_is_not_chosen_from(lab):
    search = Experiment("Table 6", "", {"as it is": {}}, [Row("Searched", "full-finetuning")])
    rows = tables.rows(lab, search)
    assert len(rows) == 1 and rows.loc[0, "searched"] == len(methods.LEARNING_RATES)
    assert tables.chosen(rows).empty
    assert tables.missing(lab, search, tables.chosen(rows)) == {"Searched": 1}
    whole = pd.concat(
        [rows.assign(place=i, lr=rate, selection=80 - rate) for i, rate in enumerate(methods.LEARNING_RATES)]
    )
    assert list(tables.chosen(whole)["lr"]) == [0.001]


def test_the_command_says_what_differs_from_the_profile():
    varied = study.open_study("demo", changes={"train_images": 2000})
    known = paper_tables.all_of(varied.profile) | paper_tables.beyond(varied.profile)
    assert tables.command(study.open_study("demo"), SMALL) == "python -m aimfair grid run --table 6 --profile demo"
    for name, which in (("scores", "--beyond scores"), ("Figure 5", "--figure 5")):
        text = f"python -m aimfair grid run {which} --profile demo -p train_images=2000"
        assert tables.command(varied, known[name]) == text
    other = {"target": "Male", "protected": "Young"}
    wanted = {"demo": "demo-male-young", "smoke": "smoke -p target=Male -p protected=Young"}  # the first has a file
    for base, text in wanted.items():
        opened = study.open_study(base)
        task = opened.varied(**other, profile=f"{base}-male-young").profile
        assert tables.options(task, opened.profile) == f"--profile {text}"
    photographs = study.open_study("utkface").profile
    assert tables.options(photographs, photographs) == "--profile utkface --data path/to/images"


def test_only_common_seeds_are_kept():
    rows = pd.DataFrame({"method": list("aaaabbb"), "seed": [1, 2, 3, 4, 3, 2, 1]})
    assert sorted(tables.common(rows)["seed"]) == [1, 1, 2, 2, 3, 3] and tables.common(rows.iloc[:0]).empty


def test_changes_stand_beside_those_of_the_paper():
    printed = pd.DataFrame({"wst": [70.0, 80.0, 85.0]}, ["b", "a", "c"])
    measured = pd.DataFrame({"method": ["a", "a", "b"], "seed": [1, 2, 1], "wst": [60.0, 62.0, 50.0]})
    beside = tables.beside(printed, measured, "b", ["wst"])
    assert beside.loc["a"].tolist() == [80, 61, 10, 11] and list(beside.columns.get_level_values(1)) == ["WST"] * 4
    assert np.isnan(beside.loc["c", "here"]).all() and beside.loc["c", ("paper, change", "WST")] == 15


def test_at_equal_rates_only_seeds_that_tried_all_rates_count():
    tried = [("A", 1, 0.1, 80), ("A", 1, 0.2, 70), ("B", 1, 0.1, 60), ("B", 1, 0.2, 50)]
    tried += [("A", 2, 0.1, 90), ("B", 2, 0.2, 0), ("C", 1, 0.0, 99)]  # seed 2 is incomplete; C searches no rate
    rows = pd.DataFrame(tried, columns=["method", "seed", "lr", "acc"])
    grid, means = tables.at_equal_rates(rows, ["acc"])
    assert set(grid["seed"]) == {1} and len(grid) == 4
    assert means.loc[("ACC", 0.1)].to_dict() == {"A": 80, "B": 60}
    assert means.loc[("ACC", 0.2)].to_dict() == {"A": 70, "B": 50}
    nothing, empty = tables.at_equal_rates(rows[rows["seed"] == 2], ["acc"])
    assert nothing.empty and empty.empty
