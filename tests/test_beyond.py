"""Experiments beyond the paper: how many runs, which of them are the paper's own, and that identities stayed."""

from dataclasses import fields

import pandas as pd
import pytest
from small_grid import changes, draw_pool, machine

from aimfair import cli, methods, study
from aimfair.environment import AimfairError, home
from aimfair.paper import tables
from aimfair.study import grid, profiles, runs
from aimfair.study.grid.experiments import Row
from aimfair.study.grid.experiments import cells as cells_of
from beyond import experiments, recommend

RATES = len(methods.LEARNING_RATES)

PER_SEED = {
    "selection": 2 + (2 + 5) * RATES,
    "longer": 3 + 7 * RATES,
    "blocks": 1 + (1 + 2 * 6) * RATES,
    "factorial": 2 + 2 * (1 + 3 * 3 * RATES),
    "interpolation": 1 + 6 * RATES,
    "batchnorm": 2 + 4 * RATES,
    "granularity": (2 + 2 * (2 + 5)) * RATES,
    "scores": 7 * RATES,
    "rates": 7 * 2,
    "prompts": 4 * RATES,
    "faithful": 5 + 2 + 2 * RATES,
    "combination": 3 + 3 * RATES,
    "taught": 12 + 5 * RATES,
}
"""Runs of one seed, counted by hand: rows that search x five values + rows that learn nothing."""


def cells(name, seeds=(100,), profile="demo"):
    return cells_of(experiments.all_of(profiles.load(profile))[name], profile, {}, list(seeds))


@pytest.mark.parametrize("name", PER_SEED)
def test_an_experiment_has_rows_times_searched_values_times_seeds(name):
    assert len(cells(name)) == PER_SEED[name] and len(cells(name, (100, 200, 300))) == 3 * PER_SEED[name]
    rows = [row.title for row in experiments.all_of(profiles.load("demo"))[name].rows]
    assert len(set(rows)) == len(rows)


def test_each_experiment_has_its_name_and_an_unknown_one_is_answered_with_all():
    known = tables.beyond(profiles.load("demo"))
    assert list(known) == [experiment.name for experiment in known.values()] and {*PER_SEED, "extensions"} <= {*known}
    with pytest.raises(AimfairError, match="'mask'.*: selection, longer, blocks, factorial"):
        tables.select(known, ["mask"])


def test_what_goes_beyond_the_paper_is_in_the_extensions_and_not_in_its_tables():
    marked = {name for name, method in methods.registry().items() if method.beyond}
    assert {"weight-interpolation", "batchnorm-real", "channel-mask", "scalar-mask", "aim-fair-noise"} <= marked
    assert marked <= {cell.method for cell in cells("extensions")}
    assert not marked & {row.method for row in tables.all_of(profiles.load("demo"))["Table 1"].rows}
    elsewhere = {cell.method for name in PER_SEED for cell in cells(name)}
    assert marked <= elsewhere  # each is examined, not only listed


def test_random_rows_become_one_and_others_stay():
    experiment = experiments.all_of(profiles.load("demo"))["selection"]
    rows = [("AIM-Fair", 100, 80.0), ("Random mask 1", 100, 60.0), ("Random mask 2", 100, 70.0)]
    frame = pd.DataFrame(rows, columns=["method", "seed", "wst"]).assign(setting="s", run=None)
    found = experiments.averaged(frame, experiment).set_index("method")["wst"]
    assert found.to_dict() == {"AIM-Fair": 80, "Random mask": 65}
    assert experiments.averaged(frame.iloc[:0], experiment).empty


def test_the_factorial_is_complete_and_its_first_cell_is_the_papers_run(tmp_path):
    factorial = experiments.all_of(profiles.load("demo"))["factorial"]
    levels = [row.title.split("; ") for row in factorial.rows]
    full = {(m, s, k) for m, s, *k in levels for k in k or ("best",) if m != "No weights"}
    assert len(full) == 18 and {m for m, _, _ in full} == {"All tensors", "AIM-Fair", "Random mask"}
    here = machine(tmp_path)
    ids = {
        title: set(grid.identified((c for c in cells("factorial") if c.row == title), here))
        for title in (
            "AIM-Fair; statistics follow; best",
            "AIM-Fair; statistics follow; last",
            "AIM-Fair; statistics kept; best",
        )
    }
    table_9 = tables.all_of(profiles.load("demo"))["Table 9"]
    paper = set(grid.identified(cells_of(table_9, "demo", {}, [100]), here))
    (same, last, kept) = ids.values()
    assert same <= paper and len(last) == len(kept) == RATES and not (same & last or same & kept or last & kept)


def test_runs_published_before_the_checkpoint_rule_could_be_chosen_are_found_under_their_ids():
    folder, found = home() / "data" / "published", 0
    known = {field.name for field in fields(profiles.Profile)} - {"generator"}  # its identity is there, not its name
    for name in ("full-finetuning", "aim-fair", "aim-fair-cosine", "linear-probing", "random-mask"):
        for run in runs.published_runs(folder, "demo", name):
            hyper, method = run.config["hyper"], methods.get(name)
            if "select" in hyper:  # published since
                continue
            assert method.hyper(**hyper, select="validation-accuracy") == hyper and method.hyper(**hyper) == hyper
            if not found % 20:
                said = run.config["study"].items()  # a table's variation of the study has others than the usual ones
                varied = {key: value for key, value in said if key in known}
                again = study.open_study("demo", changes=varied).config(name, method.hyper(**hyper), run.seed)
                assert runs.run_id(again) == run.id
            found += 1
    assert found > 100
    row = Row("the rule as it was", "full-finetuning", {"select": "validation-accuracy"})
    assert row.configurations() == Row("no word of it", "full-finetuning").configurations()


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return draw_pool(tmp_path_factory.mktemp("pool"))


def test_readers_of_runs_get_the_usual_policy_unless_they_ask_for_another(pool, tmp_path):
    short = changes(pool) | {"pretrain_epochs": 1, "finetune_epochs": 2}
    lab = study.open_study("smoke", changes=short, device="cpu", runs_root=str(tmp_path / "runs"))
    usual = lab.run("full-finetuning", 100, lr=0.03)
    last = lab.run("full-finetuning", 100, lr=0.03, select="last")
    kept = lab.run("full-finetuning", 100, lr=0.03, batchnorm="eval")
    assert lab.run("full-finetuning", 100, lr=0.03, select="validation-accuracy").id == usual.id
    assert [run.id for run in lab.results("full-finetuning")] == [usual.id]
    assert [run.id for run in lab.fresh("full-finetuning", 100, select="last")] == [last.id]
    assert [run.id for run in lab.results("full-finetuning", batchnorm="eval", lr=0.03)] == [kept.id]
    assert last.scores["chosen_epoch"] == 1
    with pytest.raises(AimfairError, match="no run of full-finetuning"):
        lab.results("full-finetuning", lr=0.1)
    both, one = (lab.run("aim-fair", 100, lr=0.03, rankings=rankings) for rankings in ("both", "bias"))
    assert [run.id for run in lab.results("aim-fair")] == [both.id]
    assert [run.id for run in lab.results("aim-fair", rankings="bias")] == [one.id]
    lab.published_root = tmp_path / "published"
    lab.publish()
    assert [run.id for run in lab.published("full-finetuning")] == [usual.id]
    assert [run.id for run in lab.published("full-finetuning", select="last")] == [last.id]
    assert len(list(runs.published_runs(lab.published_root, "smoke", "full-finetuning"))) == 3


def test_the_grid_lists_computes_and_summarises_an_experiment_by_name(pool, tmp_path, capsys):
    given = [f"{name}={value}" for name, value in changes(pool).items()]
    common = ["--profile", "smoke", "--device", "cpu", "--runs", str(tmp_path), "--seeds", "100"]
    common += [part for pair in given for part in ("-p", pair)]
    assert cli.main(["grid", "status", *common, "--beyond", "batchnorm", "--long"]) == 0
    listed = capsys.readouterr().out
    assert f" {PER_SEED['batchnorm']} " in listed and "Table" not in listed and "mask=none" in listed
    assert cli.main(["grid", "run", *common, "--beyond", "batchnorm", "--methods", "erm"]) == 0
    assert "1 runs, 0 are there, 1 to compute" in capsys.readouterr().out
    assert cli.main(["grid", "table", *common, "--beyond", "batchnorm", "--methods", "erm"]) == 0
    table = capsys.readouterr()
    assert (
        "| Baseline (ERM) | nothing | 1 | 1 |" in table.out
        and "statistics real | synthetic faces | 5 | 0 | missing" in table.out
    )
    assert cli.main(["grid", "status", *common, "--beyond"]) == 0
    everything = capsys.readouterr().out
    assert all(f"\n{name} " in everything for name in [*PER_SEED, "extensions"]) and "Table" not in everything
    assert cli.main(["grid", "status", *common, "--beyond", "scores", "--table", "9"]) == 0
    both = capsys.readouterr().out
    assert "\nTable 9 " in both and "\nscores " in both


def test_the_main_study_alone_has_studies_of_photographs_beside_it_with_its_runs_and_device(tmp_path):
    lab = study.open_study("demo", device="cpu", runs_root=str(tmp_path))
    found = experiments.with_photographs(lab)
    assert [each.profile.profile for each in found] == ["demo", *experiments.PHOTOGRAPHS] and found[0] is lab
    assert all(each.runs_root == tmp_path and str(each.device) == "cpu" for each in found)
    assert [each.profile.profile for each in experiments.with_photographs(lab, "utkface")] == ["demo", "utkface"]
    for each in found[1:]:  # with the changes that their runs of a longer trained baseline were made with
        combined = recommend.combinations(each)
        longer = combined[combined["method"].str.contains("longer ERM")]
        assert len(longer) and longer.groupby("method")["seed"].nunique().min() >= 3, each.profile.profile
    smoke = study.open_study("smoke", device="cpu")
    assert experiments.with_photographs(smoke) == [smoke]
