"""What a chapter shows of a table: its finished runs, complete seeds only, verdicts, and the words for what is missing."""

import numpy as np
import pandas as pd
import pytest
from small_grid import changes, draw_pool

from aimfair import methods, study
from aimfair.analysis import table_runs
from aimfair.environment import AimfairError
from aimfair.paper import tables as paper_tables
from aimfair.study import runs, tables
from aimfair.study.claims import higher, lower
from aimfair.study.grid.experiments import Experiment, Row

RATE = {"lr": 0.03}
TABLE = Experiment(
    "Table 6",
    "A small one",
    {"as it is": {}},
    [
        Row("Baseline", "erm"),
        Row("All", "full-finetuning", RATE),
        Row("Wrong", "aim-fair", RATE, {"assumed_minority": 0.25}),
    ],
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A study in which one seed of the table was computed."""
    here = tmp_path_factory.mktemp("evidence")
    given = changes(draw_pool(here / "pool"))
    opened = study.open_study("smoke", changes=given, device="cpu", runs_root=str(here / "runs"))
    opened.published_root = here / "published"
    table_runs.compute(opened, TABLE, 100)
    return opened


def test_a_computed_table_has_a_row_for_each_run_and_computing_it_again_trains_nothing(lab, monkeypatch):
    monkeypatch.setattr(study.Study, "_train", lambda *_: pytest.fail("trained again"))
    table_runs.compute(lab, TABLE, 100)
    rows = table_runs.rows(lab, TABLE)
    assert list(rows["method"]) == ["Baseline", "All", "Wrong"] and set(rows["seed"]) == {100}
    assert list(rows["lr"]) == [0.0, 0.03, 0.03] and set(rows["setting"]) == {"as it is"}
    wrong = lab.varied(assumed_minority=0.25).run("aim-fair", 100, lr=0.03)
    assert rows.loc[2, "wst"] == wrong.report().wst and rows.loc[2, "scores"]["mask"] == wrong.scores["mask"]
    assert table_runs.missing(lab, TABLE, table_runs.chosen(rows)) == {}
    assert table_runs.told(lab, TABLE, rows).data == "*All runs of Table 6 are there, 1 seed for each row.*"


def test_rows_of_other_settings_and_hyper_parameters_are_not_shown(lab):
    other = Experiment(
        "Table 6", "", {"larger": {"train_images": 120}, "as it is": {}}, [Row("k", "aim-fair", {"k": 40})]
    )
    rows = table_runs.rows(lab, other)
    assert rows.empty and set(table_runs.COLUMNS) == set(rows)
    best = table_runs.chosen(rows)
    assert table_runs.missing(lab, other, best) == {"k (larger)": 1, "k (as it is)": 1}
    said = table_runs.told(lab, other, best).data
    assert "not run yet: k (larger); k (as it is). To compute" in said
    assert "`python -m aimfair grid run --table 6 --profile smoke" in said
    assert "no runs with this profile" in table_runs.told(lab, Experiment("Table 11", "", {}, []), best).data


def test_what_methods_noted_of_their_runs_is_told_once_for_each_note(lab):
    rows = table_runs.rows(lab, TABLE)
    assert tables.notes(rows) == [] and tables.notes(rows.iloc[:0]) == []
    noted = pd.concat(
        [rows.assign(note=["", "the pool was small", "no"]), rows.assign(note=["", "the pool was small", ""])]
    )
    assert tables.notes(noted) == ["All, 2 runs: the pool was small.", "Wrong, 1 run: no."]
    assert table_runs.told(lab, TABLE, noted).data.endswith(
        "row.*\n\nAll, 2 runs: the pool was small.\n\nWrong, 1 run: no."
    )


def test_missing_seeds_are_counted_and_told_with_the_command():
    opened = study.open_study("utkface")
    three, both = opened.profile.seeds, Experiment("Table 6", "", {"as it is": {}}, [Row("A", "erm"), Row("B", "jtt")])
    there = pd.DataFrame({"setting": "as it is", "method": ["A"] * three + ["B"], "seed": [*range(three), 0]})
    assert table_runs.missing(opened, both, there) == {"B": three - 1}
    said = table_runs.told(opened, both, there).data
    assert f"that are not run yet: B ({three - 1})." in said
    assert "grid run --table 6 --methods jtt --profile utkface --data path/to/images`" in said
    nothing = table_runs.told(opened, both, there.iloc[:0]).data
    assert "Of Table 6 not run yet: A; B." in nothing and "grid run --table 6 --profile utkface" in nothing


def test_a_row_that_stands_in_one_setting_is_missed_in_no_other(lab):
    rows = [Row("Baseline", "erm"), Row("Rare", "jtt", settings=("small",))]
    both = Experiment("Table 6", "", {"small": {"train_images": 120}, "as it is": {}}, rows)
    assert set(table_runs.missing(lab, both, table_runs.chosen(table_runs.rows(lab, both)))) == {
        "Baseline (small)",
        "Rare (small)",
    }


def test_published_runs_come_first_and_those_of_this_machine_fill_up(lab, monkeypatch):
    erm = lab.run("erm", 100)
    mine = lab.run("full-finetuning", 100, **RATE)
    monkeypatch.setattr(lab, "all_published", lambda method: [erm])
    monkeypatch.setattr(lab, "all_fresh", lambda method: [lab.find(erm.config), mine])
    assert table_runs.there(lab, "erm") == [erm, mine] and table_runs.there(lab, "erm")[0] is erm


def test_gaps_of_this_study_come_first_then_those_of_other_profiles(lab):
    lab.measure("gradient-gaps", 100)
    found = table_runs.gaps_by_study(lab)
    labels = list(found)
    assert labels[0] == "Smiling / Male, drawn" and [run.seed for run in found[labels[0]]] == [100]
    assert {"Smiling / Male, CelebA", "Female / White, UTKFace"} <= set(labels[1:])
    assert {run.config["method"] for runs in found.values() for run in runs} == {"gradient-gaps"}


def test_a_clone_shows_published_runs(lab, tmp_path):
    only = Experiment("Table 6", "", {"as it is": {}}, [Row("Baseline", "erm")])
    reader = study.open_study(
        "smoke", changes=changes(lab.runs_root.parent / "pool"), device="cpu", runs_root=str(tmp_path)
    )
    reader.varied = lambda **more: reader  # a checkout of its own
    reader.published_root = lab.published_root
    assert table_runs.rows(reader, only).empty
    runs.publish([lab.run("erm", 100)], lab.published_root, "smoke")
    assert list(table_runs.rows(reader, only)["seed"]) == [100]


def test_a_row_may_fix_another_batch_norm_policy_or_checkpoint_than_the_usual(lab):
    unusual = [
        Row("Moving statistics", "linear-probing", {"batchnorm": "train", **RATE}),
        Row("Last epoch", "full-finetuning", {"select": "last", **RATE}),
    ]
    table = Experiment("Table 6", "", {"as it is": {}}, unusual)
    assert table_runs.rows(lab, table).empty
    table_runs.compute(lab, table, 100)
    assert list(table_runs.rows(lab, table)["method"]) == ["Moving statistics", "Last epoch"]
    usual = Experiment("Table 6", "", {"as it is": {}}, [Row("All", "full-finetuning", RATE)])
    assert len(table_runs.rows(lab, usual)) == 1


def test_a_seed_that_lacks_a_searched_value_is_not_chosen_from(lab):
    search = Experiment("Table 6", "", {"as it is": {}}, [Row("Searched", "full-finetuning")])
    rows = table_runs.rows(lab, search)
    assert len(rows) == 1 and rows.loc[0, "searched"] == len(methods.LEARNING_RATES)
    assert table_runs.chosen(rows).empty
    assert table_runs.missing(lab, search, table_runs.chosen(rows)) == {"Searched": 1}
    whole = pd.concat(
        [rows.assign(place=i, lr=rate, selection=80 - rate) for i, rate in enumerate(methods.LEARNING_RATES)]
    )
    assert list(table_runs.chosen(whole)["lr"]) == [0.001]


def test_the_command_says_what_differs_from_the_profile(lab):
    assert table_runs.command(study.open_study("demo"), TABLE) == "python -m aimfair grid run --table 6 --profile demo"
    varied = study.open_study("demo", changes={"train_images": 2000})
    beyond_it = paper_tables.beyond(varied.profile)["scores"]
    assert "grid run --beyond scores --profile demo" in table_runs.command(varied, beyond_it)
    assert table_runs.command(varied, paper_tables.all_of(varied.profile)["Figure 5"]).endswith(
        "--figure 5 --profile demo -p train_images=2000"
    )
    task = paper_tables.all_of(varied.profile)["Table 11"].settings["Male / Young"]
    of = {base: study.open_study(base) for base in ("demo", "smoke")}
    said = {
        base: table_runs.options(opened.varied(**task | {"profile": f"{base}-male-young"}).profile, opened.profile)
        for base, opened in of.items()
    }
    assert said["demo"] == "--profile demo-male-young"  # there is a file of that name
    assert said["smoke"] == "--profile smoke -p target=Male -p protected=Young"
    photographs = study.open_study("utkface").profile
    assert table_runs.options(photographs, photographs) == "--profile utkface --data path/to/images"


def table(**values):
    return pd.DataFrame(
        [{"method": m, "seed": s, "wst": v} for m, several in values.items() for s, v in several.items()],
        columns=["method", "seed", "wst"],
    )


def test_only_common_seeds_are_compared_and_what_was_not_run_is_undecided():
    rows = table(a={1: 80.0, 2: 81.0, 3: 82.5, 4: 10.0}, b={3: 72.0, 2: 71.0, 1: 70.5})
    assert sorted(table_runs.common(rows)["seed"]) == [1, 1, 2, 2, 3, 3]
    said = table_runs.compare(higher, "a above b", rows, "a", "b", "wst")
    assert said.holds and "+10.00 points" in said.evidence and "3 seeds" in said.evidence
    assert table_runs.compare(lower, "a below b", rows, "a", "b", "wst").verdict == "contradicted"
    for missing in (
        table_runs.compare(higher, "?", rows, "a", "c", "wst"),
        table_runs.compare(higher, "?", table(), "a", "b", "wst"),
    ):
        assert missing.verdict == "undecided" and missing.evidence == "not run here"
    with pytest.raises(AimfairError, match="several rows of one seed"):
        table_runs.compare(higher, "?", pd.concat([rows, rows]), "a", "b", "wst")


def test_changes_stand_beside_those_of_the_paper():
    printed = pd.DataFrame({"wst": [70.0, 80.0, 85.0]}, ["b", "a", "c"])
    beside = table_runs.beside(printed, table(a={1: 60.0, 2: 62.0}, b={1: 50.0}), "b", ["wst"])
    assert beside.loc["a"].tolist() == [80, 61, 10, 11] and list(beside.columns.get_level_values(1)) == ["WST"] * 4
    assert np.isnan(beside.loc["c", "here"]).all() and beside.loc["c", ("paper, change", "WST")] == 15


def test_at_equal_rates_only_seeds_that_tried_all_rates_count():
    tried = [("A", 1, 0.1, 80), ("A", 1, 0.2, 70), ("B", 1, 0.1, 60), ("B", 1, 0.2, 50)]
    tried += [("A", 2, 0.1, 90), ("B", 2, 0.2, 0), ("C", 1, 0.0, 99)]  # seed 2 is incomplete; C searches no rate
    rows = pd.DataFrame(tried, columns=["method", "seed", "lr", "acc"])
    grid, means = table_runs.at_equal_rates(rows, ["acc"])
    assert set(grid["seed"]) == {1} and len(grid) == 4
    assert means.loc[("ACC", 0.1)].to_dict() == {"A": 80, "B": 60}
    assert means.loc[("ACC", 0.2)].to_dict() == {"A": 70, "B": 50}
    nothing, empty = table_runs.at_equal_rates(rows[rows["seed"] == 2], ["acc"])
    assert nothing.empty and empty.empty
