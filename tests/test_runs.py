"""Runs on disk: identity, atomicity, two writers, damage, publishing."""

import multiprocessing
import os
import signal

import numpy as np
import pandas as pd
import pytest

from aimfair import models
from aimfair.environment import AimfairError, home
from aimfair.study import profiles, runs


def predictions(n=40, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "split": ["test"] * (n // 2) + ["validation"] * (n // 2),
            "name": [f"face-{i}" for i in range(n)],
            "target": np.tile([0, 0, 1, 1], n // 4).astype(np.int8),
            "protected": np.tile([0, 1, 0, 1], n // 4).astype(np.int8),
            "logit": rng.normal(size=n).astype(np.float32),
        }
    )


def config(seed=100, method="erm", **hyper):
    return {"protocol": 1, "study": {"dataset": "toy"}, "method": method, "hyper": hyper, "seed": seed}


def test_the_id_ignores_the_order_of_keys_and_notices_every_value():
    first = config(lr=0.1, k=55)
    assert runs.run_id(first) == runs.run_id(dict(reversed(first.items())))
    assert runs.run_id(first) == runs.run_id(config(k=55, lr=0.1))
    others = [config(seed=200, lr=0.1, k=55), config(lr=0.1, k=54), config("x", lr=0.1, k=55)]
    assert len({runs.run_id(c) for c in [first, *others]}) == 4


def test_a_stored_run_comes_back_and_its_table_is_computed_from_the_predictions(tmp_path):
    table = predictions()
    stored = runs.store(tmp_path, config(), table, {"seconds": 1.5}, models.build("resnet18-slim", 0))
    found = runs.find(tmp_path, config())
    pd.testing.assert_frame_equal(found.predictions.drop(columns="predicted"), table)
    assert found.scores == {"seconds": 1.5} and found.id == stored.id
    assert (found.folder / "model.safetensors").exists()
    test = table[table.split == "test"]
    assert found.report().acc == pytest.approx(100 * ((test.logit >= 0) == test.target).mean())
    assert runs.find(tmp_path, config(seed=5)) is None
    assert [run.id for run in runs.all_runs(tmp_path)] == [stored.id]


def test_the_history_of_a_run_says_which_epoch_was_kept(tmp_path):
    told = {"loss": [0.6, 0.4], "validation_accuracy": [70.0, 80.0], "chosen_epoch": 1}
    history = runs.store(tmp_path, config(), predictions(), told).history
    assert (history.loss, history.validation_accuracy, history.chosen) == ([0.6, 0.4], [70.0, 80.0], 1)
    assert history.validation_worst_group == []


def test_half_a_run_is_never_found(tmp_path, monkeypatch):
    def dies(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", dies)
    with pytest.raises(AimfairError, match=r"cannot write .*No space left.*--runs"):
        runs.store(tmp_path, config(), predictions(), {})
    assert runs.find(tmp_path, config()) is None and not list(tmp_path.iterdir())
    (tmp_path / ".1234-left-by-a-kill").mkdir()
    assert list(runs.all_runs(tmp_path)) == []


def _write(folder, seed):
    runs.store(folder, config(), predictions(seed=seed), {"writer": seed})


def test_two_processes_that_finish_the_same_run_leave_one_whole_result(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(tmp_path, seed)) for seed in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [w.exitcode for w in writers] == [0] * 6
    found = runs.find(tmp_path, config())
    assert (found.predictions["logit"] == predictions(seed=found.scores["writer"])["logit"]).all()
    assert len(list(tmp_path.iterdir())) == 1


def test_published_runs_keep_every_decision_and_grow_by_batches(tmp_path):
    shipped = tmp_path / "published"
    stored = [runs.store(tmp_path / "runs", config(seed=s), predictions(seed=s), {"gap": 1 / 3}) for s in (100, 200)]
    first = runs.publish(stored[:1], shipped, "toy", logits={stored[0].id})
    before = {path: path.read_bytes() for path in first}
    assert [path.name for path in runs.publish(stored, shipped, "toy")] == ["erm.0002.parquet"]
    assert runs.publish(stored, shipped, "toy") == []
    other = runs.store(tmp_path / "runs", config(method="aim-fair"), predictions(seed=3), {})
    runs.publish([other], shipped, "toy")
    assert {path: path.read_bytes() for path in first} == before
    assert {path.name for path in first} == {"erm.0001.parquet", "faces.parquet"}
    assert [r.seed for r in runs.published_runs(shipped, "toy", "erm")] == [100, 200]
    assert [c["seed"] for c, _ in runs.published_scores(shipped, "toy") if c["method"] == "erm"] == [100, 200]
    for run in stored:
        found = runs.find_published(shipped, "toy", run.config)
        assert found.scores == {"gap": 0.3333333} and (found.report().cells == run.report().cells).all()
        assert found.accuracy() == run.accuracy() and runs.is_published(shipped, "toy", run.config)
    assert np.allclose(runs.find_published(shipped, "toy", stored[0].config).logits(), stored[0].logits(), rtol=1e-3)
    with pytest.raises(AimfairError, match=rf"{stored[1].id} .*without its logits"):
        found.logits()
    assert runs.find_published(shipped, "toy", config(seed=300)) is None
    assert runs.find_published(shipped, "other", config()) is None


def test_a_published_run_is_not_replaced_by_one_of_another_machine(tmp_path):
    shipped = tmp_path / "published"
    runs.publish([runs.store(tmp_path / "one", config(), predictions(seed=1), {"seconds": 1})], shipped, "toy")
    other = runs.store(tmp_path / "other", config(), predictions(seed=2), {"seconds": 2})
    runs.publish([other, runs.store(tmp_path / "other", config(seed=200), predictions(), {})], shipped, "toy")
    found = runs.find_published(shipped, "toy", config())
    assert found.scores == {"seconds": 1} and (found.predictions["predicted"] == (predictions(seed=1).logit >= 0)).all()
    assert [run.seed for run in runs.published_runs(shipped, "toy", "erm")] == [100, 200]


def test_publishing_runs_on_other_faces_is_refused(tmp_path):
    first = runs.store(tmp_path / "runs", config(), predictions(), {})
    other = runs.store(tmp_path / "runs", config(seed=200), predictions().iloc[::-1].reset_index(drop=True), {})
    with pytest.raises(AimfairError, match="other faces"):
        runs.publish([first, other], tmp_path / "published", "toy")
    assert not (tmp_path / "published").exists()


def test_a_measurement_can_be_published_and_nothing_leaves_nothing_behind(tmp_path):
    assert runs.publish([], tmp_path / "published", "toy") == [] and not (tmp_path / "published").exists()
    run = runs.store(tmp_path / "runs", config(method="gradient-gaps"), predictions().iloc[:0], {"train": [1, 2]})
    runs.publish([run], tmp_path / "published", "toy")
    found = runs.find_published(tmp_path / "published", "toy", run.config)
    assert found.scores == {"train": [1, 2]} and found.predictions.empty


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(AimfairError, match="cannot write .*--runs"):
        runs.store(tmp_path / "file" / "runs", config(), predictions(), {})


def test_another_folder_for_runs_can_be_named(tmp_path, monkeypatch):
    monkeypatch.setenv("AIMFAIR_RUNS", str(tmp_path))
    assert runs.default_root() == tmp_path
    monkeypatch.delenv("AIMFAIR_RUNS")
    assert runs.default_root().parts[-2:] == ("data", "runs")


def _publish_and_die(mine, out, writes):
    """As a kill -9 in the middle: after so many files the next one is written aside, and never named."""
    real, names = os.replace, []

    def replace(aside, path):
        if len(names) == writes:
            os.kill(os.getpid(), signal.SIGKILL)
        names.append(path)
        real(aside, path)

    os.replace = replace
    runs.publish(list(runs.all_runs(mine)), out, "toy")


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_publishing_that_is_killed_loses_nothing_and_is_done_again(tmp_path, writes):
    for method in ("erm", "jtt"):
        for seed in (100, 200):
            runs.store(tmp_path / "runs", config(seed, method), predictions(seed=seed), {})
    killed = multiprocessing.get_context("fork").Process(
        target=_publish_and_die, args=(tmp_path / "runs", tmp_path / "out", writes)
    )
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    mine = list(runs.all_runs(tmp_path / "runs"))
    runs.publish(mine, tmp_path / "out", "toy")
    assert runs.publish(mine, tmp_path / "out", "toy") == []
    for run in mine:
        found = runs.find_published(tmp_path / "out", "toy", run.config)
        for split in ("test", "validation"):
            assert found.report(split).as_dict() == run.report(split).as_dict()


def _publish_one(seed, mine, out):
    runs.publish([runs.find(mine, config(seed))], out, "toy")


def test_two_that_publish_at_once_keep_both_their_runs(tmp_path):
    seeds = range(100, 700, 100)
    for seed in seeds:
        runs.store(tmp_path / "runs", config(seed), predictions(seed=seed), {})
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_publish_one, args=(s, tmp_path / "runs", tmp_path / "out")) for s in seeds]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert all(runs.is_published(tmp_path / "out", "toy", config(seed)) for seed in seeds)


def test_headline_numbers_follow_from_the_published_predictions_by_other_code():
    """The metrics once more, from the definition, for every published run of three methods of the main study."""
    for method in ("erm", "full-finetuning", "aim-fair"):
        for run in runs.published_runs(home() / "data" / "published", profiles.MAIN, method):
            faces = run.predictions[run.predictions["split"] == "test"]
            said_yes = faces.groupby(["target", "protected"])["predicted"].mean()
            right = {(t, p): yes if t else 1 - yes for (t, p), yes in said_yes.items()}
            gaps = [abs(said_yes[t, 0] - said_yes[t, 1]) for t in (0, 1)]
            expected = ((faces["predicted"] == faces["target"]).mean(), min(right.values()), max(gaps), sum(gaps) / 2)
            report = run.report()
            shown = (report.acc, report.wst, report.eo_max, report.eo_mean)
            assert shown == pytest.approx([100 * value for value in expected], abs=1e-9), run.id
