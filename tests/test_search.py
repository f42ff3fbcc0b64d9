"""The value that counts is the best of the first three seeds that have all values; later seeds are run with it alone."""

import shutil
from dataclasses import replace

import pandas as pd
import pytest
from small_grid import ROWS, draw_pool, machine, some_cells

from aimfair import cli, methods, study
from aimfair.environment import AimfairError, Diverged
from aimfair.study import grid, profiles, search, tables
from aimfair.study.grid.experiments import CHOSEN, Experiment, Row
from aimfair.study.grid.tasks import perform

RATES = methods.LEARNING_RATES
SEEDS = (100, 200, 300, 400, 500)


def scores(**selection):
    """A frame from seed -> selection of each rate; None stands for no run."""
    return pd.DataFrame(
        [
            {"method": "m", "seed": int(seed[1:]), "lr": lr, "selection": value}
            for seed, values in selection.items()
            for lr, value in zip(RATES, values, strict=False)
            if value is not None
        ]
    )


def test_the_mean_of_three_seeds_decides_for_all():
    frame = scores(s100=(9, 1, 1), s200=(1, 6, 1), s300=(1, 6, 1), s400=(99, 0, 99), s500=(99, 0, 99))
    chosen = tables.choose(frame)  # means of the first three: 11, 13, 3 thirds
    assert set(chosen["lr"]) == {RATES[1]} and chosen["seed"].tolist() == list(SEEDS)


def test_seeds_without_all_values_have_no_part_in_the_choice_but_are_shown_if_they_have_the_chosen_one():
    frame = scores(s100=(9, None, 9), s200=(1, 6), s300=(1, 5, 2), s400=(3, 4, 5), s500=(None, 9))
    chosen = tables.choose(frame)  # 300 and 400 have all: means 2, 4.5, 3.5
    assert set(chosen["lr"]) == {RATES[1]} and chosen["seed"].tolist() == [200, 300, 400, 500]


def test_the_smaller_value_wins_a_tie_in_whichever_order_the_seeds_have_their_accuracies():
    tied = scores(s100=(0.1, 0.7), s200=(0.2, 0.2), s300=(0.7, 0.1))
    assert set(tables.choose(tied)["lr"]) == {RATES[0]}
    assert set(tables.choose(tied.iloc[::-1])["lr"]) == {RATES[0]}


def test_no_choice_among_fewer_values_than_there_are():
    frame = scores(s100=(1, 2), s200=(1, 2))
    assert set(tables.choose(frame)["lr"]) == {RATES[1]}
    assert tables.choose(frame.assign(searched=3)).empty
    assert tables.choose(scores(s100=(1, None), s200=(None, 2))).empty
    assert list(tables.choose(frame.iloc[:0]).columns) == list(frame.columns)


def test_groups_are_chosen_apart_and_what_nothing_tells_apart_is_refused():
    draws = pd.concat([scores(s100=(5, 1)).assign(draw=0), scores(s100=(1, 4)).assign(draw=1)], ignore_index=True)
    assert list(tables.choose(draws, by=["draw"])["lr"]) == [RATES[0], RATES[1]]
    with pytest.raises(AimfairError, match="several runs have the same seed and lr"):
        tables.choose(draws)


def test_who_has_nothing_to_search_is_chosen_as_it_is():
    erm = pd.DataFrame({"method": "erm", "seed": [100, 200], "lr": float("nan"), "selection": 1.0})
    both = pd.concat([erm, scores(s100=(1, 2), s200=(2, 2))], ignore_index=True)
    assert tables.choose(both)["method"].value_counts().to_dict() == {"erm": 2, "m": 2}


def test_paths_have_the_same_seeds_at_every_point():
    frame = scores(s100=(1, 2), s200=(1, 2), s400=(None, 3))
    assert tables.complete(frame)["seed"].tolist() == [100, 100, 200, 200]
    assert tables.complete(frame.iloc[:0]).empty


def test_values_are_complete_hyper_parameters():
    found = search.values("aim-fair", k=40)
    assert [hyper["lr"] for hyper in found] == list(RATES) and {hyper["k"] for hyper in found} == {40}
    assert search.values("aim-fair", k=40, lr=0.5) == [methods.get("aim-fair").hyper(k=40, lr=0.5)]
    assert search.values("erm") == [{}]
    with pytest.raises(AimfairError, match="no hyper-parameter"):
        search.values("erm", lr=0.1)


def test_a_search_is_as_wide_as_the_profile_has_seeds():
    assert search.seeds(profiles.load("demo")) == (100, 200, 300)
    assert search.seeds(profiles.load("smoke")) == (100,)


@pytest.fixture
def searched(recorded):
    """Runs of a search in which .01 is best on three seeds together, and .1 on each that follows."""
    recorded.profile = profiles.load("smoke", seeds=5)
    for seed in SEEDS:
        for lr in RATES:
            right = {0.01: 70, 0.1: 60 if seed < 400 else 90}.get(lr, 50)
            recorded.add("full-finetuning", seed, right, test_right=60 + (lr == 0.01), lr=lr)
    return recorded


def test_later_seeds_are_run_with_what_counts(searched):
    assert [hyper["lr"] for hyper in search.wanted(searched, "full-finetuning", 300)] == list(RATES)
    assert [hyper["lr"] for hyper in search.wanted(searched, "full-finetuning", 400)] == [0.01]
    assert search.run(searched, "full-finetuning", 500).config["hyper"]["lr"] == 0.01
    assert search.wanted(searched, "full-finetuning", 400, lr=0.3)[0]["lr"] == 0.3


def test_the_command_runs_every_value_first_and_then_the_best(searched, capsys, monkeypatch):
    monkeypatch.setattr(cli, "open_study", lambda options: searched)
    assert cli.main(["run", "full-finetuning", "--search", "--seeds", "300", "400"]) == 0
    said = [line.split()[1] + " " + line.split("lr=")[1] for line in capsys.readouterr().out.splitlines()[1:]]
    assert said == [*(f"300 {lr}" for lr in RATES), "400 0.01"]


# ------------------------------------------------------------------------------------------------------- in a grid


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return draw_pool(tmp_path_factory.mktemp("pool"))


def asking(pool, seeds):
    """The cells of a row that searches; the first seed is the one of the search."""
    return some_cells(pool, [Row("All", "full-finetuning")], seeds)


def test_a_cell_after_the_search_is_a_question_until_the_search_is_done(pool, tmp_path):
    here = machine(tmp_path)
    cells = asking(pool, (100, 200))
    assert [dict(cell.hyper)["lr"] for cell in cells] == [*RATES, CHOSEN]
    known = grid.identified(cells, here)
    assert len(known) == 6 and list(grid.missing(known, here)) == list(known)
    todo = grid.graph(known, here)
    runs_of = [dict(task.cell.hyper)["lr"] for task in todo.values() if task.kind == "run"]
    assert runs_of == [*RATES, CHOSEN] and len(todo) == len(runs_of) + 2  # and two biased models
    assert "All, seed 200, lr=chosen" in str([*todo.values()][-1])
    assert grid.compute(todo, here) == []
    again = grid.identified(cells, here)
    assert grid.missing(again, here) == {} and set(list(known)[:5]) <= set(again) and list(known)[5] not in again
    answer = dict(list(again.values())[5].hyper)["lr"]
    opened = study.open_study("smoke", changes=dict(cells[0].changes), device="cpu", runs_root=str(tmp_path))
    tried = {lr: opened.run("full-finetuning", 100, lr=lr).accuracy("validation") for lr in RATES}
    assert answer == max(RATES, key=tried.get)
    assert len(list(tmp_path.glob("[!.]*/config.json"))) == 2 + 6  # two biased models, nothing else
    table = Experiment("Table 0", "", {"as it is": {}}, [Row("All", "full-finetuning")])
    summary, lacking = grid.summary(table, cells, here)
    assert lacking == [] and summary.loc["All", ("n", "seeds")] == 2
    runs_of_it = [opened.run("full-finetuning", seed, lr=answer).report().acc for seed in (100, 200)]
    assert summary.loc["All", ("acc", "mean")] == pytest.approx(sum(runs_of_it) / 2)


def test_who_asks_for_a_later_seed_alone_has_the_search_run_first(pool, tmp_path):
    here = machine(tmp_path)
    known = grid.identified(asking(pool, (200,)), here)
    assert len(known) == 1
    todo = grid.graph(grid.missing(known, here), here)
    runs_of = [(task.cell.seed, dict(task.cell.hyper)["lr"]) for task in todo.values() if task.kind == "run"]
    assert runs_of == [*((100, lr) for lr in RATES), (200, CHOSEN)]
    assert {task.cell.seed for task in todo.values() if task.kind == "biased model"} == {100, 200}


def test_a_question_that_is_computed_before_its_search_computes_that(pool, tmp_path):
    """As it happens where another shard has the search."""
    here = machine(tmp_path)
    (cell,) = asking(pool, (200,))
    assert perform(grid.Task("run", cell), here).error == ""
    known = grid.identified(asking(pool, (100, 200)), here)
    assert grid.missing(known, here) == {} and len(known) == 6


def test_a_question_with_the_answer_of_a_fixed_row_is_that_run(pool, tmp_path):
    here = machine(tmp_path)
    grid.compute(grid.graph(grid.identified(asking(pool, (100,)), here), here), here)
    (question,) = asking(pool, (200,))
    answer = dict(grid.resolved(question, here).hyper)["lr"]
    rows = [Row("All", "full-finetuning"), Row("Fixed", "full-finetuning", {"lr": answer})]
    assert len(grid.identified(some_cells(pool, rows, (200,)), here)) == 1


def test_rows_that_search_nothing_ask_nothing(pool):
    assert all(CHOSEN not in dict(cell.hyper).values() for cell in some_cells(pool, ROWS, (100, 200, 300)))


def test_an_incomplete_search_shows_nothing(pool, tmp_path):
    here = machine(tmp_path)
    cells = asking(pool, (100, 200))
    grid.compute(grid.graph(grid.identified(cells, here), here), here)
    one = next(iter(grid.identified(cells, here)))
    shutil.rmtree(tmp_path / one)
    found, lacking = grid.chosen(cells, here)
    assert found.empty and [dict(cell.hyper)["lr"] for cell in lacking] == [RATES[0]]


# ------------------------------------------------------------------------------------------------- what diverges


@pytest.fixture
def wild(pool, tmp_path, monkeypatch):
    """A study in which full fine-tuning is searched over a rate that is good and one that is not."""
    full = replace(methods.get("full-finetuning"), search={"lr": (0.01, 1e30)})
    monkeypatch.setitem(methods.registry(), full.name, full)
    changes = dict(asking(pool, (100,))[0].changes)
    opened = study.open_study("smoke", changes=changes, device="cpu", runs_root=str(tmp_path), reuse=False)
    opened.published_root = tmp_path / "published"
    return opened


def test_a_value_with_which_the_training_diverges_is_tried_and_not_chosen(wild, pool, tmp_path):
    here, cells = machine(tmp_path), asking(pool, (100, 200))
    known = grid.identified(cells, here)
    assert len(known) == 3 and grid.compute(grid.graph(known, here), here) == []
    again = grid.identified(cells, here)
    assert grid.missing(again, here) == {} and [dict(c.hyper)["lr"] for c in again.values()] == [0.01, 1e30, 0.01]
    bad = wild.attempt("full-finetuning", 100, lr=1e30)
    negatives = 100 * float((wild.faces("test").target == 0).float().mean())
    assert bad.report().wst == 0 and bad.report().acc == pytest.approx(negatives)
    assert tables.notes(tables.frame([bad])) == [
        "Full fine-tuning, 1 run: its loss was not finite, and it answers class 0 to everything."
    ]
    written = wild.publish()
    (found,) = (run for run in wild.all_published("full-finetuning") if run.id == bad.id)
    assert written and found.report().as_dict() == bad.report().as_dict()
    assert found.scores["diverged"] == bad.scores["diverged"]


def test_who_wants_that_very_run_is_told_and_it_is_not_trained_again(wild, tmp_path, monkeypatch):
    with pytest.raises(Diverged, match=r"full fine-tuning: the loss is not finite in epoch 1 .*smaller"):
        wild.run("full-finetuning", 100, lr=1e30)
    monkeypatch.setattr(wild, "_fit", None)
    with pytest.raises(Diverged, match=r"full fine-tuning: the loss is not finite in epoch 1 .*smaller"):
        wild.run("full-finetuning", 100, lr=1e30)
    assert not list(tmp_path.glob(".*.safetensors"))


def test_a_baseline_that_diverges_is_no_run(wild, tmp_path):
    varied = wild.varied(pretrain_lr=1e30)
    for wanted in (varied.run, varied.attempt):
        with pytest.raises(Diverged, match="not finite"):
            wanted("erm", 100)
    assert not list(tmp_path.glob("[!.]*/config.json"))


def test_the_command_goes_on_in_a_search_and_ends_where_one_value_was_asked_for(wild, capsys, monkeypatch):
    monkeypatch.setattr(cli, "open_study", lambda options: wild)
    assert cli.main(["run", "full-finetuning", "--search"]) == 0
    assert "lr=1e+30, note: its loss was not finite" in capsys.readouterr().out
    assert cli.main(["run", "full-finetuning", "--hyper", "lr=1e30"]) == 2
    assert "not finite in epoch 1 (learning rate 1e+30): choose a smaller one" in capsys.readouterr().err
