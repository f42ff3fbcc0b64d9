"""The grid: what is there is not computed, what is shared is computed once, what fails stops nothing, kills cost little."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import distributed
import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from small_grid import ROWS, changes, draw_pool, machine, some_cells

from aimfair import cli, study
from aimfair.cluster import local_cluster
from aimfair.environment import AimfairError, home
from aimfair.study import grid, runs, search, tables
from aimfair.study.grid import costs, tasks
from aimfair.study.grid.experiments import CHOSEN, GAPS, MAPS, Experiment, Row


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return draw_pool(tmp_path_factory.mktemp("pool"))


@pytest.fixture(scope="module")
def finished(pool, tmp_path_factory):
    """A machine on which the four rows are computed for seed 100, and what was computed in which order."""
    here = machine(tmp_path_factory.mktemp("finished"))
    todo = graph(some_cells(pool), here)
    assert grid.compute(todo, here) == []
    return here, todo


def graph(cells, here):
    return grid.graph(grid.missing(grid.identified(cells, here), here), here)


def kinds(todo):
    return [task.cell.method if task.kind == "run" else task.kind for task in todo.values()]


def predictions(here, identity):
    return runs.load(Path(here.runs_root) / identity).predictions


# ------------------------------------------------------------------------------------------- what is to be computed


def test_what_is_there_is_not_computed_again(pool, finished):
    here, todo = finished
    cells = grid.identified(some_cells(pool), here)
    assert len(cells) == 4 and grid.missing(cells, here) == {}
    assert kinds(todo) == ["erm", "synthetic-only", GAPS, "aim-fair", "full-finetuning"]
    assert {path.name for path in Path(here.runs_root).glob("[!.]*")} > set(cells)  # and the gradient gaps
    more = grid.identified(some_cells(pool, ROWS, (100, 200)), here)
    assert [cell.seed for cell in grid.missing(more, here).values()] == [200] * 4


def test_published_runs_are_there_unless_they_may_not_be_used(pool, finished, tmp_path, monkeypatch):
    here, _ = finished
    monkeypatch.setattr("aimfair.study.study.home", lambda: tmp_path)
    runs.publish(runs.all_runs(Path(here.runs_root)), tmp_path / "data" / "published", "smoke")
    elsewhere = machine(tmp_path / "runs")
    cells = grid.identified(some_cells(pool), elsewhere)
    assert grid.missing(cells, elsewhere) == {}
    assert len(grid.missing(cells, replace(elsewhere, reuse=False))) == 4
    # of the biased model there are predictions, but no weights to start from
    assert kinds(graph(some_cells(pool, [Row("new", "full-finetuning", {"lr": 0.1})]), elsewhere)) == [
        "biased model",
        "full-finetuning",
    ]


def test_a_deleted_run_is_restored_to_the_same_predictions(pool, finished, tmp_path):
    shutil.copytree(finished[0].runs_root, tmp_path / "runs")
    here = machine(tmp_path / "runs")
    for identity, cell in grid.identified(some_cells(pool), here).items():
        before = predictions(here, identity)
        shutil.rmtree(tmp_path / "runs" / identity)
        todo = graph(some_cells(pool), here)
        assert [(key, task.cell) for key, task in todo.items()] == [(identity, cell)]
        assert grid.compute(todo, here) == []
        pd.testing.assert_frame_equal(predictions(here, identity), before)


def test_what_runs_share_comes_first_even_if_nobody_asked_for_it(pool, tmp_path):
    here = machine(tmp_path)
    todo = graph(some_cells(pool, [ROWS[2], ROWS[1]], (100, 200)), here)
    assert kinds(todo) == [*["biased model", GAPS, "aim-fair"] * 2, "synthetic-only", "synthetic-only"]
    first, gaps, run, *_ = todo
    assert todo[run].needs == (first, gaps) and todo[gaps].needs == (first,) and todo[first].needs == ()
    assert kinds(graph(some_cells(pool, reversed(ROWS)), here)) == [
        *("erm", "full-finetuning", GAPS, "aim-fair", "synthetic-only")
    ]


def test_pools_that_are_not_drawn_are_drawn_once_and_as_large_as_wanted(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tiny-sd").symlink_to(home() / "data" / "tiny-sd")
    monkeypatch.setattr("aimfair.study.pool.home", lambda: tmp_path)
    here = machine(tmp_path)
    rows = [Row("few", "synthetic-only", changes={"prompts": "plain", "images_per_group": 10})]
    rows += [Row(v, "synthetic-only", changes={"prompts": v}) for v in ("plain", "no-pose")]
    cells = [replace(c, changes=tuple(x for x in c.changes if x[0] != "generator")) for c in some_cells("", rows)]
    todo = graph(cells, here)
    drawn = [task for task in todo.values() if task.kind == "pool"]
    assert [dict(task.cell.changes)["prompts"] for task in drawn] == ["plain", "no-pose"]
    assert [dict(task.cell.changes)["images_per_group"] for task in drawn] == [20, 20]
    assert all(task.needs for task in todo.values() if task.kind == "run") and len(todo) == 5
    hours, _ = costs.estimate(drawn[:1], here, {})
    assert hours == pytest.approx(80 * 0.005 * 2 / 3600)  # 80 images in the 2 steps of smoke


def test_what_a_search_chooses_comes_after_it(pool, tmp_path):
    here = machine(tmp_path)
    cells = some_cells(pool, [Row("asks", "linear-probing")], (400,))
    todo = graph(cells, here)
    *searched, last = todo.values()
    assert dict(last.cell.hyper)["lr"] == CHOSEN and {t.cell.seed for t in searched if t.kind == "run"} == {100}
    assert set(last.needs) >= {key for key, task in todo.items() if task.cell.seed == 100 and task.kind == "run"}
    assert grid.compute(todo, here) == [] and graph(cells, here) == {}


# ----------------------------------------------------------------------------------------- what happens on the way


def test_a_task_that_fails_is_told_with_its_error_and_the_others_are_done(pool, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("AIMFAIR_PROGRESS", "off")  # lines in place of a bar
    here, train = machine(tmp_path), study.Study._train

    def stumble(self, method, config):
        return [][3] if method.name == "synthetic-only" else train(self, method, config)

    monkeypatch.setattr(study.Study, "_train", stumble)
    wrong = [Row("too large", "aim-fair", {"k": 63, "lr": 0.03}), Row("diverges", "full-finetuning", {"lr": 1e30})]
    failed = grid.compute(graph(some_cells(pool, wrong + ROWS), here), here)
    said = {outcome.task.cell.row: outcome.error for outcome in failed}
    assert said["too large"].startswith("k must be between 1 and the 62 tensors of the model, got 63")
    assert said["Synthetic"].startswith("IndexError: list index out of range (test_grid.py, line ") and len(said) == 2
    cells = grid.identified(some_cells(pool, wrong + ROWS), here)
    assert {cell.row for cell in grid.missing(cells, here).values()} == {"too large", "Synthetic"}
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7 and sum("failed: " in line for line in lines) == 2
    assert sum("diverges, seed 100" in line and " s (its loss was not finite" in line for line in lines) == 1
    assert "Table 0, as it is: too large, seed 100, k=63, lr=0.03: failed: k must be" in "\n".join(lines)


def test_an_outcome_is_one_line_whatever_went_wrong(pool, tmp_path):
    (cell,) = some_cells(pool / "not there", [Row("none", "synthetic-only")])
    outcome = tasks.perform(grid.Task("run", cell), machine(tmp_path))
    assert "not there" in outcome.error and "\n" not in outcome.error


KILLED = """
import os, signal, sys
from aimfair import cli, training
progress = training.progress
def epochs(items, what, **more):
    for item in progress(items, what, **more):
        yield item
        if what.startswith("AIM-Fair"):
            os.kill(os.getpid(), signal.SIGKILL)
training.progress = epochs
sys.exit(cli.main(sys.argv[1:]))
"""


def command(pool, folder, *more):
    """Arguments of ``aimfair grid run`` for Figure 6 with one value of each search: ERM, mixed training, AIM-Fair."""
    given = [text for name, value in changes(pool).items() for text in ("-p", f"{name}={value}")]
    return [
        "grid",
        "run",
        "--figure",
        "6",
        "--profile",
        "smoke",
        "--device",
        "cpu",
        "--runs",
        str(folder),
        *given,
        "--workers",
        "1",
        *more,
    ]


def test_a_grid_killed_in_the_middle_goes_on_where_it_was(pool, tmp_path):
    one = ["--methods", "erm", "aim-fair"]
    died = subprocess.run(
        [sys.executable, "-c", KILLED, *command(pool, tmp_path / "killed", *one)], capture_output=True
    )
    assert died.returncode == -signal.SIGKILL
    done = {path.parent.name for path in (tmp_path / "killed").glob("[!.]*/config.json")}
    assert len(done) == 2  # the biased model and the gradient gaps
    shown = io.StringIO()
    with redirect_stdout(shown):
        assert cli.main(command(pool, tmp_path / "killed", *one)) == 0
        assert cli.main(command(pool, tmp_path / "undisturbed", *one)) == 0
        assert cli.main(command(pool, tmp_path / "killed", *one)) == 0
    said = shown.getvalue()
    assert said.startswith("6 runs, 1 are there, 5 to compute\nAbout 0.0 hours on one worker and 0.00 GB\n")
    assert said.endswith("6 runs, 6 are there, 0 to compute\n")
    here, other = machine(tmp_path / "killed"), machine(tmp_path / "undisturbed")
    found = {path.parent.name for path in (tmp_path / "undisturbed").glob("[!.]*/config.json")}
    assert found == {path.parent.name for path in (tmp_path / "killed").glob("[!.]*/config.json")} and len(found) == 7
    for identity in found:
        pd.testing.assert_frame_equal(predictions(here, identity), predictions(other, identity))


def test_what_another_grid_computes_comes_later(pool, tmp_path):
    here = machine(tmp_path)
    todo = graph(some_cells(pool, ROWS[:1], (100, 200)), here)
    lock, seeds = FileLock(tmp_path / f".{next(iter(todo))}.lock"), []
    lock.acquire()
    for outcome in tasks._in_turn(todo, here):
        seeds.append(outcome.task.cell.seed)
        lock.release()
    assert seeds == [200, 100] and outcome.error == ""


def test_an_interrupted_grid_of_several_processes_ends_quietly_and_goes_on(pool, tmp_path):
    three = command(pool, tmp_path, "--methods", "erm", "--seeds", "100", "200", "300", "-p", "train_images=1000")
    process = subprocess.Popen(
        [sys.executable, "-m", "aimfair", *three, "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that the signal goes to the grid and its workers, as from a keyboard
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 600
    # With two of three runs done, one process trains the third and the other waits for work.
    while len(done := list(tmp_path.glob("[!.]*/config.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)  # until the other has told that it is done
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=600)  # to the end of its pipe, which the workers hold open while they live
    assert len(done) == 2 and process.returncode == 130 and "Traceback" not in said
    assert len(list(tmp_path.glob("[!.]*/config.json"))) in (2, 3)  # a worker may just have been done
    assert cli.main(three) == 0
    assert len(list(tmp_path.glob("[!.]*/config.json"))) == 3


TWO = """
import sys, time
from pathlib import Path
from small_grid import ROWS, machine, some_cells
from aimfair.study import measurements
from aimfair import study
from aimfair.study.grid import Task
from aimfair.study.grid.tasks import perform
pool, folder, row = sys.argv[1:]
train, measure = study.Study._train, measurements.MEASUREMENTS["gradient-gaps"]
def told(what, real):
    def write(self, *arguments):
        with (Path(folder) / "log").open("a") as log:
            log.write(what(*arguments) + "\\n")
        return real(self, *arguments)
    return write
study.Study._train = told(lambda method, config: method.name, train)
measurements.MEASUREMENTS["gradient-gaps"] = told(lambda *_: "gaps", measure)
(cell,) = some_cells(pool, [ROWS[int(row)]])
(Path(folder) / f"ready{row}").touch()
while len(list(Path(folder).glob("ready*"))) < 2:
    time.sleep(0.01)
outcome = perform(Task("run", cell), machine(Path(folder) / "runs"))
sys.exit(outcome.error or 0)
"""


def test_two_processes_that_want_the_same_biased_model_train_it_once(pool, tmp_path):
    (tmp_path / "runs").mkdir()
    both = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, str(pool), str(tmp_path), row],
            cwd="tests",
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for row in "23"
    ]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    assert sorted((tmp_path / "log").read_text().split()) == ["aim-fair", "erm", "full-finetuning", "gaps"]


# ------------------------------------------------------------------------------------------------------- several workers


def test_workers_make_the_same_runs_though_one_is_killed(pool, finished, tmp_path):
    with local_cluster(2) as watcher:
        here = machine(tmp_path, dask=watcher.scheduler.address)
        outcomes = tasks._by_workers(graph(some_cells(pool), here), here)
        first = next(outcomes)
        busy = [address for address, keys in watcher.processing().items() if keys][:1]
        os.kill(watcher.run(os.getpid, workers=busy)[busy[0]], signal.SIGKILL)
        assert [outcome.error for outcome in (first, *outcomes)] == [""] * 5
    found, expected = ({run.id: run for run in runs.all_runs(Path(m.runs_root))} for m in (here, finished[0]))
    assert found.keys() == expected.keys()
    for identity, run in found.items():
        one, other = run.predictions["logit"], expected[identity].predictions["logit"]
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_a_task_that_dask_gives_up_has_failed_and_the_others_are_done(pool, tmp_path, monkeypatch):
    def computed(task, here, *done, sharing):
        if task.cell.method == "erm":
            raise ConnectionError("its workers\nare gone")
        return tasks.Outcome(task, 0.0)

    monkeypatch.setattr(tasks, "perform", computed)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        here = machine(tmp_path, dask=cluster.scheduler_address)
        failed = grid.compute(graph(some_cells(pool, ROWS[:2]), here), here)
    assert [(o.task.cell.method, o.error) for o in failed] == [("erm", "ConnectionError: its workers are gone")]


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("nonsense", "no Dask scheduler answers at 'nonsense'"),
        ("slurm", "Slurm jobs cannot be described .* jobqueue: slurm: in ~/.config/dask/jobqueue.yaml"),
    ],
)
def test_a_cluster_that_cannot_be_had_is_named(pool, tmp_path, where, says):
    here = machine(tmp_path, dask=where)
    with pytest.raises(AimfairError, match=says):
        grid.compute(graph(some_cells(pool, ROWS[:1]), here), here)


SBATCH = """#!/bin/sh
cp "$1" "{folder}/job.sh"  # the original is deleted as soon as it is submitted
setsid taskset -c {core} sh "{folder}/job.sh" > "{folder}/job.log" 2>&1 &  # threads on a busy machine wait for each other
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/sh
kill -- "-$1"
"""


def test_slurm_jobs_are_workers(pool, tmp_path, monkeypatch):
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed: pip install 'aimfair[dask]'")
    import dask

    for name, script in (("sbatch", SBATCH), ("scancel", SCANCEL)):  # a Slurm that starts jobs on this machine
        (tmp_path / name).write_text(script.format(folder=tmp_path, core=min(os.sched_getaffinity(0))))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    here = machine(tmp_path / "runs", dask="slurm", workers=1)
    said = {"jobqueue.slurm.cores": 3, "jobqueue.slurm.memory": "8GB", "jobqueue.slurm.walltime": "0:05:00"}
    with dask.config.set(said):
        assert grid.compute(graph(some_cells(pool, ROWS[:1]), here), here) == []
    assert len(list(runs.all_runs(tmp_path / "runs"))) == 1


# --------------------------------------------------------------------------------------------------------- estimates


def test_estimates_follow_from_what_runs_have_recorded(pool, finished, tmp_path):
    here, _ = finished
    known = costs.rates(here)
    (erm,) = (path for path in Path(here.runs_root).glob("*/config.json") if '"erm"' in path.read_text())
    seconds = json.loads((erm.parent / "scores.json").read_text())["seconds"]
    assert known["erm", "resnet18-slim", 16] == pytest.approx(seconds / 80)  # 80 faces, one epoch
    assert known["erm", "resnet18-slim", 64] > 0  # of the published runs
    todo = [grid.Task("run", cell) for cell in some_cells(pool)]
    slim = ("resnet18-slim", 16)
    hours, gigabytes = costs.estimate(
        todo, here, {("erm", *slim): 0.02, ("", *slim): 0.05, ("erm", "resnet18", 16): 9.0}
    )
    assert hours == pytest.approx(80 * (0.02 + 3 * 0.05) / 3600) and gigabytes == pytest.approx(4 * 150e-6)
    assert costs.estimate(todo, here, {})[0] == pytest.approx(4 * 80 * costs.SECONDS_PER_FACE / 3600)


# ------------------------------------------------------------------------------------------------------------ tables


def test_a_table_shows_the_best_of_what_is_searched_and_names_what_is_missing(pool, finished, tmp_path):
    shutil.copytree(finished[0].runs_root, tmp_path / "runs")
    here = machine(tmp_path / "runs")
    rows = [*ROWS[:2], Row("All", "full-finetuning")]
    table = Experiment("Table 0", "A small one", {"as it is": {}}, rows)
    cells = some_cells(pool, rows)
    summary, lacking = grid.summary(table, cells, here)
    assert list(summary.index) == ["Baseline", "Synthetic", "All"]
    assert [cell.row for cell in lacking] == ["All"] * 4  # of five rates, .03 is there
    without = summary.drop(columns=["told", "configurations"], level=0).loc["All"]
    assert without.isna().all() and summary.loc["Baseline", ("n", "seeds")] == 1
    opened = study.open_study("smoke", changes=changes(pool), device="cpu", runs_root=str(tmp_path / "runs"))
    assert summary.loc["Baseline", ("acc", "mean")] == opened.run("erm", 100).report().acc
    assert grid.compute(graph(some_cells(pool, rows), here), here) == []
    summary, lacking = grid.summary(table, cells, here)
    assert (
        lacking == [] and summary.loc["All", ("wst", "mean")] == search.run(opened, "full-finetuning", 100).report().wst
    )
    with pytest.raises(AimfairError, match="Table 0: All has no run yet to compare with"):
        grid.summary(table, cells, machine(tmp_path / "empty"), "All")
    with pytest.raises(AimfairError, match="has no row 'all'; it has: Baseline, Synthetic, All"):
        grid.summary(table, cells, here, "all")
    with pytest.raises(AimfairError, match="no table of accuracies"):
        grid.summary(table, some_cells(pool, [Row("gaps", GAPS)]), here)


def test_maps_are_no_rows_of_a_table(pool, finished, tmp_path):
    shutil.copytree(finished[0].runs_root, tmp_path / "runs")
    here, rows = machine(tmp_path / "runs"), [*ROWS[:1], Row("new", "repairing"), Row("Map", MAPS, {"of": "erm"})]
    todo = graph(some_cells(pool, rows), here)
    assert kinds(todo) == ["repairing", MAPS] and str([*todo.values()][-1]).endswith("feature map, seed 100, erm")
    assert grid.compute(todo, here) == []
    summary, lacking = grid.summary(Experiment("Figure 0", "", {"": {}}, rows), some_cells(pool, rows), here)
    assert list(summary.index) == ["Baseline", "new"] and lacking == []


def test_a_table_of_which_nothing_is_computed_has_all_its_rows(pool, tmp_path):
    table = Experiment("Table 0", "A small one", {"as it is": {}}, ROWS)
    summary, lacking = grid.summary(table, some_cells(pool), machine(tmp_path))
    assert len(lacking) == 4
    for suffix in tables.WRITERS:
        lines = tables.export(summary, tmp_path / f"t{suffix}").read_text()
        assert [row.title in lines for row in ROWS] == [True] * 4
    assert tables.text(summary).splitlines()[-1] == "| All | synthetic faces | 1 | 0 |" + " missing |" * 6


def by_hand():
    """A summary of two settings, as :func:`aimfair.study.grid.summary` makes it, with round numbers and a row without runs."""
    cells = dict.fromkeys(("acc_t0_p0", "acc_t0_p1", "acc_t1_p0", "acc_t1_p1"), 80.0)
    rows = [
        {"method": name, "seed": seed, **cells, **dict.fromkeys(tables.METRICS, value + seed / 100)}
        for name, value in (("A & B_1", 70.0), ("k = 50%", 71.0))
        for seed in (100, 200, 300)
    ]
    summary = tables.summary(pd.DataFrame(rows), "A & B_1")
    return pd.concat({"one": summary, "two": summary.iloc[:1].reindex(["A & B_1", "C"])}, names=["setting", "method"])


def test_a_table_is_exported_as_csv_latex_and_markdown(tmp_path):
    summary = by_hand()
    numbers = pd.read_csv(tables.export(summary, tmp_path / "t.csv"))
    assert numbers["seeds"].tolist() == [3, 3, 3, 0] and numbers["method"].tolist()[-1] == "C"
    assert numbers["ACC mean"].tolist()[:3] == [72, 73, 72] and numbers.iloc[3, 3:].isna().all()
    assert list(numbers.columns[3:6]) == ["ACC mean", "ACC low", "ACC high"] and numbers.shape == (4, 3 + 5 * 3 + 1)
    latex = tables.export(summary, tmp_path / "t.tex").read_text().splitlines()
    assert (
        latex[0] == r"\begin{tabular}{lllllllll}"
        and latex[1] == r"\toprule"
        and latex[-2:] == [r"\bottomrule", r"\end{tabular}"]
    )
    assert latex[2] == r"setting & method & seeds & ACC & WST & EO (max) & EO (mean) & STD & WST of means \\"
    assert (
        latex[4].startswith(r"one & A \& B\_1 & 3 & 72.0 [")
        and ",~" in latex[4]
        and latex[5].startswith(r"one & k = 50\% & 3")
    )
    assert latex[7] == r"two & C & 0 & missing & missing & missing & missing & missing & missing \\"
    markdown = tables.export(summary, tmp_path / "t.md").read_text().splitlines()
    assert markdown[0] == "| setting | method | seeds | ACC | WST | EO (max) | EO (mean) | STD | WST of means |"
    assert markdown[-1] == "| two | C | 0 | missing | missing | missing | missing | missing | missing |"


def test_differences_are_exported_where_there_are_any(tmp_path):
    summary = by_hand().loc["one"]
    numbers = pd.read_csv(tables.export(summary, tmp_path / "t.csv", differences=True))
    assert numbers["ACC difference"].isna().tolist() == [True, False] and numbers["ACC difference"][1] == pytest.approx(
        1
    )
    markdown = tables.text(summary, ".md", differences=True).splitlines()
    assert "| STD | ACC, difference | WST, difference |" in markdown[0] and markdown[3].count("+1.0 [+1.0,") == 5
    with pytest.raises(AimfairError, match="without a reference"):
        tables.text(summary.drop(columns=["difference"], level=1), ".tex", differences=True)
    with pytest.raises(AimfairError, match=r"cannot be written as '.xlsx': the suffix must be one of .csv, .tex, .md"):
        tables.export(summary, tmp_path / "t.xlsx")
    (tmp_path / "none").touch()
    with pytest.raises(AimfairError, match=r"cannot write .*none/t.md"):
        tables.export(summary, tmp_path / "none" / "t.md")


# -------------------------------------------------------------------------------------------------- the command line


def test_what_the_user_can_mend_is_one_line_and_status_2(capsys, tmp_path):
    for arguments, says in (
        (["status", "--table", "12"], "no experiment 'Table 12' with runs; there are: Table 1,"),
        (["status", "--methods", "aimfair"], "no method 'aimfair'"),
        (["run", "--table", "6", "--workers", "0"], "--workers 0: at least one is needed"),
        (["table"], "one table at a time"),
        (["table", "3", "--figure", "5"], "one table at a time"),
        (["table", "--figure", "8"], "Figure 8 is no table of accuracies"),
        (["table", "6", "--against", "ERM"], "Table 6 has no row 'ERM'; it has: Full fine-tuning, AIM-Fair, 4:6"),
    ):
        assert cli.main(["grid", *arguments, "--profile", "smoke", "--runs", str(tmp_path)]) == 2, arguments
        said = capsys.readouterr().err
        assert says in said and said.count("\n") == 1, said


def test_the_commands_show_tables_and_their_state_without_computing_anything(pool, finished, capsys, tmp_path):
    given = ["--profile", "smoke", "--device", "cpu", "--runs", finished[0].runs_root]
    given += [text for name, value in changes(pool).items() for text in ("-p", f"{name}={value}")]
    assert cli.main(["grid", "status", "--figure", "6", "--long", *given]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(" there " in line for line in lines[1:]) == 2 and sum(" missing " in line for line in lines[1:]) == 9
    assert cli.main(["grid", "status", "--table", "6", "9", *given]) == 0
    assert [line.split()[-4:-1] for line in capsys.readouterr().out.splitlines()[1:]] == [
        ["25", "2", "23"],
        ["11", "2", "9"],
        ["31", "3", "28"],
    ]
    assert cli.main(["grid", "run", "--table", "6", "--dry-run", "--seed", "200", *given]) == 0
    assert "5 runs, 0 are there, 5 to compute, and 31 things that they share" in capsys.readouterr().out
    assert cli.main(["grid", "table", "--figure", "6", "--out", str(tmp_path / "t.md"), *given]) == 0
    said = capsys.readouterr()
    assert said.out == f"Figure 6 is in {tmp_path / 't.md'}\n"
    assert "missing: Figure 6, Smiling / Male, AIM-Fair: 4 runs, of seeds 100\n" in said.err
    assert (tmp_path / "t.md").read_text().splitlines()[2].startswith("| Baseline (ERM) | nothing | 1 | 1 | ")


def test_a_failed_run_is_exit_status_1(pool, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("AIMFAIR_PROGRESS", "off")
    (pool.parent / "broken").mkdir(exist_ok=True)
    broken = command(pool.parent / "broken", tmp_path, "--methods", "supplementation")
    assert cli.main(broken) == 1
    said = capsys.readouterr()
    assert said.out.endswith("0 done, 1 failed\n") and said.err.startswith(
        "failed: Figure 6, Smiling / Male: Data supplementation"
    )


def test_the_runs_of_a_table_are_published_with_its_variations(tmp_path, monkeypatch, capsys):
    (tmp_path / "data").mkdir()
    for part in ("notebooks", "data/prompts", "data/paper"):
        (tmp_path / part).symlink_to(home() / part)
    monkeypatch.setenv("AIMFAIR_HOME", str(tmp_path))
    given = [
        part for name, value in changes(draw_pool(tmp_path / "pool")).items() for part in ("-p", f"{name}={value}")
    ]
    common = ["--profile", "smoke", "--device", "cpu", *given]
    for ratio in ("0.5", "1.0", "0.25"):  # the last is none of the table's
        chosen = ["--hyper", "lr=0.03", "-p", f"synthetic_ratio={ratio}"]
        assert cli.main(["run", "full-finetuning", *common, *chosen]) == 0
    capsys.readouterr()
    assert cli.main(["publish", "--table", "7", *common]) == 0
    assert "data/published/smoke/full-finetuning.0001.parquet" in capsys.readouterr().out
    found = runs.published_runs(tmp_path / "data" / "published", "smoke", "full-finetuning")
    assert sorted(run.config["study"].get("synthetic_ratio", 1.0) for run in found) == [0.5, 1.0]
