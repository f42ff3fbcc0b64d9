"""What the paper's tables consist of: numbers of runs, rows, settings, and which of them are one run."""

from dataclasses import replace
from math import prod

import pytest
from small_grid import machine

from aimfair import methods, paper, prompts, study
from aimfair.environment import AimfairError, home
from aimfair.paper import tables as paper_tables
from aimfair.study import grid, profiles
from aimfair.study.grid import experiments
from aimfair.study.grid.experiments import Row

RATES = len(methods.LEARNING_RATES)

PER_SEED = {
    "Table 3": 2 * (4 + 3 * RATES),
    "Table 4": 2 * (4 + 4) * RATES,
    "Table 5": 2 * 4,
    "Table 6": 5 * RATES,
    "Table 7": 4 * RATES,
    "Table 8": 2 * (3 + 4 * RATES),
    "Table 9": 1 + 2 * RATES,
    "Table 10": 1 + 4 * RATES,
    "Table 11": 1 + 2 * RATES,
    "Figure 1": 4 + 2 * RATES,
    "Figure 2": 1 + 7 * RATES,
    "Figure 5": 5 * RATES,
    "Figure 6": 2 + RATES + 4,
    "Figure 8": 2,
}
"""Runs of the demo study for one seed, counted by hand: settings x (rows without a search + rows with one x rates)."""


def chosen(name, profile="demo", **changes):
    return paper_tables.all_of(profiles.load(profile, **changes))[name]


def cells(name, seeds=(100,), profile="demo", **changes):
    return experiments.cells(chosen(name, profile, **changes), profile, changes, list(seeds))


@pytest.mark.parametrize("name", PER_SEED)
@pytest.mark.parametrize("seeds", [(100,), (100, 200, 300)])
def test_a_table_has_settings_times_rows_times_searched_values_times_seeds(name, seeds, monkeypatch):
    monkeypatch.setattr(prompts, "path_of", lambda task: home())  # as if there were a bank for every task
    found = cells(name, seeds)
    assert len(found) == PER_SEED[name] * len(seeds)
    assert len(set(found)) == len(found)


def test_the_own_task_of_table_1_has_every_registered_method_with_its_whole_search(monkeypatch):
    each = sum(prod(len(values) for values in m.search.values()) for m in methods.registry().values() if not m.beyond)

    def found():
        return [cell for cell in cells("Table 1") if cell.setting == "Smiling / Male"]

    assert len(found()) == each
    extra = replace(methods.get("erm"), name="mine", title="My own", search={"k": (1, 2)}, defaults={"k": 1})
    known = methods.registry() | {"mine": extra}
    monkeypatch.setattr(methods, "registry", lambda: known)
    assert len(found()) == each + 2 and {c.row for c in found() if c.method == "mine"} == {"My own"}


@pytest.mark.parametrize(("name", "settings"), [("Table 1", 2), ("Table 2", 3)])
def test_other_tasks_and_sizes_have_the_methods_of_the_paper_at_their_defaults(name, settings):
    thinned = [cell for cell in cells(name) if cell.setting != "Smiling / Male"]
    assert len({cell.setting for cell in thinned}) == settings
    assert len(thinned) == settings * len(paper_tables.PRINTED)
    assert {cell.method for cell in thinned} == set(paper_tables.PRINTED)
    assert all(dict(cell.hyper) == methods.get(cell.method).hyper() for cell in thinned)
    theirs = set(paper.results().query("table in (1, 2)")["method"])
    assert len(theirs) == len(paper_tables.PRINTED) - 1  # and full fine-tuning
    # LfF's default is its source's; of all others nobody was favoured by where it stands in its own search
    searched = [m for m in map(methods.get, paper_tables.PRINTED) if m.search and m.name != "lff"]
    assert all(m.defaults[k] == values[len(values) // 2] for m in searched for k, values in m.search.items())


def test_a_setting_that_was_thinned_is_whole_as_a_study_of_its_own(tmp_path):
    here = machine(tmp_path)
    thinned = grid.identified((c for c in cells("Table 1") if c.setting == "Smiling / Young"), here)
    whole = grid.identified(cells("Table 1", profile="demo-smiling-young"), here)
    assert set(thinned) < set(whole)
    half = grid.identified((c for c in cells("Table 2") if c.setting.startswith("50")), here)
    assert set(half) < set(grid.identified(cells("Table 1", train_images=2000), here))


def test_photographs_have_ten_seeds_of_table_3_and_those_of_their_profile_elsewhere():
    known = {name: profiles.load(name) for name in ("demo", "utkface")}
    seeds = {
        (name, table): paper_tables.all_of(p)[table].seeds(p)
        for name, p in known.items()
        for table in ("Table 3", "Table 4")
    }
    assert {key: len(found) for key, found in seeds.items()} == {
        ("demo", "Table 3"): 10,
        ("demo", "Table 4"): 10,
        ("utkface", "Table 3"): 10,
        ("utkface", "Table 4"): 3,
    }
    assert seeds["utkface", "Table 3"] == profiles.SEEDS


def test_every_table_of_the_paper_is_here():
    known = paper_tables.all_of(profiles.load("demo"))
    names = [experiment.name for experiment in paper_tables.select(known)]
    assert names[:11] == [f"Table {n}" for n in sorted(paper.results()["table"].unique())]
    assert names[11:] == [f"Figure {n}" for n in (1, 2, 5, 6, 8)]
    with pytest.raises(AimfairError, match="'Table 12'.*: Table 1, .*Figure 8"):
        paper_tables.select(known, ["Table 12"])


def test_what_a_row_fixes_is_not_searched_and_the_rest_takes_its_default():
    rows = Row("k", "aim-fair", {"k": 40}).configurations()
    assert [row["lr"] for row in rows] == list(methods.LEARNING_RATES)
    assert all(row == methods.get("aim-fair").hyper(k=40, lr=row["lr"]) for row in rows)
    assert Row("one", "aim-fair", {"k": 40, "lr": 0.1}).configurations() == [
        methods.get("aim-fair").hyper(k=40, lr=0.1)
    ]
    with pytest.raises(AimfairError, match="erm has no hyper-parameter 'lr'"):
        Row("wrong", "erm", {"lr": 0.1}).configurations()


def test_settings_change_what_they_say_and_nothing_else():
    sizes = {dict(cell.changes)["train_images"] for cell in cells("Table 2")}
    assert sizes == {2000, 1000, 400}
    assert {cell.changes for cell in cells("Table 2", minority=0.5) if cell.setting.startswith("50")} == {
        (("minority", 0.5), ("train_images", 2000))
    }
    own, other = chosen("Table 3").settings.values()
    assert own == {} and {other["target"], other["protected"]} == {"Smiling", "Young"}
    assert [row.changes for row in chosen("Table 7").rows] == [
        {"synthetic_ratio": 0.5},
        {},
        {"synthetic_ratio": 1.5},
        {"synthetic_ratio": 2.0},
    ]
    more = chosen("Table 7", images_per_group=1000).rows  # a pool that is too small for more than the real number
    assert [row.changes.get("images_per_group") for row in more] == [None, None, 1500, 2000]
    assert [row.changes.get("assumed_minority") for row in chosen("Table 6").rows] == [None, 4 / 6, 3 / 7, 0.25, None]
    assert [row.changes.get("assumed_minority") for row in chosen("Table 6", minority=0.25).rows[3:]] == [None, 1 / 9]
    assert [row.changes["prompts"] for row in chosen("Table 5").rows] == [
        "plain",
        "contextual-25",
        "no-pose",
        "contextual",
    ]
    assert {dict(cell.changes)["backbone"] for cell in cells("Table 8")} == {"vit-slim"}
    assert {dict(cell.changes)["batch_size"] for cell in cells("Table 8")} == {32}  # it needs steps more than faces
    assert {dict(cell.changes)["pretrain_epochs"] for cell in cells("Table 8")} == {
        3 * profiles.load("demo").pretrain_epochs
    }
    assert {dict(c.changes)["backbone"] for c in cells("Table 8", image_size=224)} == {"vit-s-32"}
    assert cells("Table 8", image_size=48) == []


def test_a_task_without_prompts_has_no_runs(monkeypatch, tmp_path):
    monkeypatch.setattr(prompts, "path_of", lambda task: tmp_path / "none")
    assert list(chosen("Table 3").settings) == ["Smiling / Male"] and cells("Table 11") == []
    assert len(chosen("Table 3", generator="folder:images").settings) == 2


def test_photographs_are_a_profile_of_their_own_task():
    for name in ("Table 1", "Table 3", "Figure 8"):
        assert chosen(name, "utkface").settings == {"Female / White": {}}
        assert chosen(name, "celeba-young-male").settings == {"Young / Male": {}}
    assert cells("Table 11", profile="celeba-smiling-male") == []


def test_another_task_is_the_same_study_as_a_profile_that_says_so(tmp_path):
    cell = next(cell for cell in cells("Table 3") if cell.setting == "Smiling / Young" and cell.method == "erm")
    by_change = study.open_study(cell.profile, changes=dict(cell.changes), device="cpu", runs_root=str(tmp_path))
    by_hand = study.open_study("demo", changes={"protected": "Young"}, device="cpu", runs_root=str(tmp_path))
    assert by_change.config("erm", {}, 100) == by_hand.config("erm", {}, 100)
    assert by_change.profile.profile == "demo-smiling-young"  # what it predicts cannot be published among demo's


@pytest.mark.parametrize(
    ("one", "row", "other", "twin"),
    [
        ("Table 3", "Trained on synthetic only", "Table 5", "50 contextual prompts with head poses"),
        ("Table 3", "AIM-Fair", "Figure 5", "AIM-Fair, k = 55"),
        ("Table 6", "AIM-Fair, 1:9", "Table 7", "AIM-Fair, as many"),
        ("Table 9", "Baseline (ERM)", "Table 10", "Baseline (ERM)"),
    ],
)
def test_what_two_tables_share_is_one_run(one, row, other, twin, tmp_path):
    first, second = (
        set(grid.identified((cell for cell in cells(name) if cell.row == title), machine(tmp_path)))
        for name, title in ((one, row), (other, twin))
    )
    assert first & second and (first >= second or second >= first)


def test_all_tables_together_have_fewer_runs_than_one_after_the_other(tmp_path):
    p = profiles.load("demo")
    every = [cell for e in paper_tables.all_of(p).values() for cell in experiments.cells(e, "demo", {}, [100])]
    assert len(grid.identified(every, machine(tmp_path))) < len(every)
