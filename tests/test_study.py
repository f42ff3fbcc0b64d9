"""A study end to end on FaceWorld faces and a toy synthetic pool: splits, benches, runs, kills, published results."""

import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from aimfair import environment, gradients, methods, prompts, study
from aimfair.environment import AimfairError
from aimfair.study import runs, search, tables

SMALL = {
    "train_images": 160,
    "validation_images": 80,
    "images_per_group": 80,
    "pretrain_epochs": 3,
    "finetune_epochs": 2,
    "batch_size": 32,
    "image_size": 32,
}


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Rendered web-style faces in the layout of a folder of images made elsewhere."""
    from aimfair import datasets

    root = tmp_path_factory.mktemp("pool")
    world = datasets.load("faceworld", style="web", seed=3, train=0, validation=0, test=0, corpus=600)
    target, protected = world.labels("Smiling"), world.labels("Male")
    for t, p in ((0, 0), (0, 1), (1, 0), (1, 1)):
        folder = root / "Smiling_Male" / f"{t}_{p}"
        folder.mkdir(parents=True)
        index = np.flatnonzero((target == t) & (protected == p))[:80]
        for number, image in enumerate(world.read(index, 32)):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number:05d}.png")
    return root


@pytest.fixture
def lab(pool, tmp_path):
    return small(pool, tmp_path / "runs")


def small(pool, runs_root, **changes):
    changes = {**SMALL, "generator": f"folder:{pool}", **changes}
    opened = study.open_study("smoke", changes=changes, device="cpu", runs_root=str(runs_root))
    opened.split["test"] = opened.split["test"][:120]  # a small test set for a quick test
    return opened


def test_a_file_that_holds_something_else_makes_other_runs(pool, tmp_path, monkeypatch):
    shutil.copytree(pool, tmp_path / "faces")
    weights, bank = tmp_path / "mine.safetensors", tmp_path / "bank.json"
    image, labels = tmp_path / "faces/Smiling_Male/0_0/00000.png", tmp_path / "faces/Smiling_Male/manifest.csv"
    recorded = prompts.path_of("faceworld/Smiling_Male").read_text()
    weights.write_bytes(b"weights")
    bank.write_text(recorded)
    names = sorted(path.relative_to(labels.parent).as_posix() for path in labels.parent.rglob("*.png"))
    rows = [f"{name},{name[0]},{name[2]},train" for name in names]
    labels.write_text("\n".join(["path,target,protected,split", *rows]))
    monkeypatch.setattr(prompts, "path_of", lambda task: bank)

    def ids(**changes):
        lab = study.open_study("smoke", changes=changes, data_root=str(tmp_path / "faces"), runs_root=str(tmp_path))
        return [runs.run_id(lab.config(method, {}, 100)) for method in ("erm", "aim-fair")]

    for changes, file, old, new, others in (
        ({}, bank, b"full beard", b"grey beard", [False, True]),  # ERM is given no synthetic face
        ({"weights": str(weights)}, weights, b"w", b"W", [True, True]),
        ({"generator": f"folder:{tmp_path / 'faces'}"}, image, image.read_bytes()[-40:-20], bytes(20), [False, True]),
        ({"dataset": "folder"}, labels, b"0_0/00001.png,0,0,train", b"0_0/00001.png,0,0,test", [True, True]),
    ):
        before, plain, content = ids(**changes), ids(), file.read_bytes()
        assert before == ids(**changes) and old in content
        file.write_bytes(content.replace(old, new))
        assert [a != b for a, b in zip(before, ids(**changes), strict=True)] == others
        assert (plain == ids()) == bool(changes)  # runs that do not name it stay


def test_the_training_set_has_the_quotas_and_shares_nothing_with_the_others(lab):
    assert lab.faces("train").counts() == (8, 72, 72, 8)
    names = [set(lab.faces(split).names) for split in ("train", "validation", "test")]
    assert not (names[0] & names[1] or names[0] & names[2] or names[1] & names[2])


def test_synthetic_sets_of_a_seed_have_the_papers_shares_and_differ_between_seeds(lab):
    balanced, biased = lab.synthetic_sets(100)
    assert balanced.counts() == (40, 40, 40, 40) and biased.counts() == (8, 72, 72, 8)
    again, _ = lab.synthetic_sets(100)
    other, tilted = lab.synthetic_sets(200)
    assert (again.names == balanced.names).all() and set(other.names) != set(balanced.names)
    few = set(biased.names[np.isin(biased.groups, (0, 3))])
    assert not few <= set(balanced.names) and not few <= set(tilted.names)  # drawn independently, and anew for a seed


def test_what_is_assumed_changes_the_synthetic_sets_and_nothing_of_the_biased_model(pool, lab, tmp_path):
    wrong, fewer = lab.varied(assumed_minority=0.25), lab.varied(synthetic_ratio=0.5)
    assert [lab.faces("train").counts(), wrong.faces("train").counts()] == [(8, 72, 72, 8)] * 2
    assert [faces.counts() for faces in wrong.synthetic_sets(100)] == [(40,) * 4, (16, 64, 64, 16)]
    assert [faces.counts() for faces in fewer.synthetic_sets(100)] == [(20,) * 4, (8, 72, 72, 8)]
    assert lab.varied(synthetic_ratio=2.0).synthetic_sets(100)[0].counts() == (80,) * 4
    for other in (wrong, fewer):
        assert other.config("erm", {}, 100) == lab.config("erm", {}, 100)
        assert other.config("aim-fair", {}, 100) != lab.config("aim-fair", {}, 100)


def test_gaps_are_there_for_the_ratio_that_is_assumed(lab):
    odd = lab.varied(assumed_minority=0.6)  # 0.3125 each: none of the paper's
    exact = odd.measure("gradient-gaps", 100).scores["eval"]
    assert list(exact) == ["0.45", "0.40", "0.35", "0.31", "0.30"]
    assert odd.gaps(100, "absolute", "eval") == tuple(exact["0.31"]["absolute"])
    true = lab.measure("gradient-gaps", 100).scores["eval"]
    assert list(true) == ["0.45", "0.40", "0.35", "0.30"] and true["0.40"] == exact["0.40"]


def test_a_run_is_found_again_and_restored_to_the_same_numbers_when_deleted(lab):
    first = lab.run("aim-fair", 100, lr=0.03)
    assert first.folder == lab.run("aim-fair", 100, lr=0.03).folder
    assert set(first.predictions["split"]) == {"test", "validation"} and len(first.predictions) == 200
    for run in runs.all_runs(lab.runs_root):
        shutil.rmtree(run.folder)
    lab._gaps.clear()
    pd.testing.assert_frame_equal(lab.run("aim-fair", 100, lr=0.03).predictions, first.predictions)


KILLED = """
import os, signal, sys
import test_study
from aimfair import training
training.SECONDS_BETWEEN = 0.0
save = training.Checkpoint.save
def save_and_die(*arguments):
    save(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
training.Checkpoint.save = save_and_die
test_study.small(sys.argv[1], sys.argv[2]).run("erm", 100)
"""


def test_a_run_killed_in_the_middle_goes_on_to_the_numbers_of_an_undisturbed_one(pool, tmp_path):
    undisturbed = small(pool, tmp_path / "undisturbed").run("erm", 100)
    for _ in range(2):  # three epochs: killed after the first, then after the second
        died = subprocess.run([sys.executable, "-c", KILLED, str(pool), str(tmp_path / "killed")], cwd="tests")
        assert died.returncode == -9
        assert not list(runs.all_runs(tmp_path / "killed"))
    halves = list((tmp_path / "killed").glob(".*.safetensors"))
    assert len(halves) == 1
    resumed = small(pool, tmp_path / "killed").run("erm", 100)
    assert resumed.scores["loss"] == undisturbed.scores["loss"]
    pd.testing.assert_frame_equal(resumed.predictions, undisturbed.predictions)
    assert not halves[0].exists()


def test_published_runs_are_found_with_reuse_and_only_then(pool, tmp_path):
    trained = small(pool, tmp_path / "mine")
    run = trained.run("erm", 100)
    runs.publish([run], tmp_path / "published", "smoke")
    reader = small(pool, tmp_path / "empty")
    reader.published_root = tmp_path / "published"
    assert reader.run("erm", 100).folder is None  # nothing was trained
    assert [r.id for r in reader.results("erm")] == [run.id]
    reader.reuse = False
    assert reader.find(run.config) is None


def test_the_biased_model_is_trained_again_where_only_predictions_were_published(pool, tmp_path):
    trained = small(pool, tmp_path / "mine")
    runs.publish([trained.run("erm", 100)], tmp_path / "published", "smoke")
    reader = small(pool, tmp_path / "empty")
    reader.published_root = tmp_path / "published"
    ours, theirs = reader.biased_model(100).state_dict(), trained.biased_model(100).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_what_was_published_counts_before_a_run_of_this_machine_with_its_weights(pool, tmp_path):
    trained = small(pool, tmp_path / "theirs")
    trained.published_root = tmp_path / "published"
    theirs = trained.run("erm", 100)
    trained.publish()
    weights = trained.published_root / "smoke" / f"erm-100-{theirs.id}.safetensors"
    shutil.copy(theirs.folder / "model.safetensors", weights)
    reader = small(pool, tmp_path / "mine")
    reader.published_root = trained.published_root
    model = trained.biased_model(100)
    with torch.no_grad():
        model.fc.bias += 100.0  # another processor, exaggerated
    opposite = theirs.predictions.assign(logit=-theirs.predictions["logit"])
    mine = runs.store(reader.runs_root, theirs.config, opposite, dict(theirs.scores), model)
    for reuse, expected, above in ((True, theirs, False), (False, mine, True)):
        reader.reuse = reuse
        assert reader.run("erm", 100).report().as_dict() == expected.report().as_dict()
        assert (reader.biased_model(100).fc.bias > 50).all() == above
    assert mine.report().as_dict() != theirs.report().as_dict()


def test_publishing_the_main_study_packs_its_runs_some_logits_and_the_weights_of_its_biased_models(
    pool, tmp_path, monkeypatch
):
    trained = small(pool, tmp_path / "mine")
    trained.published_root = tmp_path / "published"
    reader = small(pool, tmp_path / "empty")
    monkeypatch.setattr(study.study.profiles, "load", lambda name: trained.profile)
    run = trained.run("linear-probing", 100, lr=0.01)
    baseline = trained.run("erm", 200)
    names = {path.name for path in trained.publish()}
    assert {"erm.0001.parquet", "linear-probing.0001.parquet", "faces.parquet"} <= names
    assert sorted(name[:8] for name in names if name.endswith(".safetensors")) == ["erm-100-", "erm-200-"]
    assert trained.publish() == []
    reader.published_root = tmp_path / "published"
    assert (reader.run("linear-probing", 100, lr=0.01).report().cells == run.report().cells).all()
    assert np.allclose(reader.run("erm", 200).logits(), baseline.logits(), atol=2e-2)
    with pytest.raises(AimfairError, match="linear-probing, seed 100.*without its logits"):
        reader.run("linear-probing", 100, lr=0.01).logits()
    ours, theirs = reader.biased_model(100).state_dict(), trained.biased_model(100).state_dict()
    assert all(torch.allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-4) for name in ours)
    assert not list(runs.all_runs(tmp_path / "empty"))


def test_gaps_are_measured_once_as_in_a_training_step_and_the_bias_ranking_ignores_the_assumed_ratio(lab):
    measured = lab.measure("gradient-gaps", 100)
    assert lab.measure("gradient-gaps", 100).folder == measured.folder
    exact = measured.scores["eval"]
    orders = [sorted(exact[r]["absolute"][1], key=exact[r]["absolute"][1].get) for r in exact]
    assert len(orders) == 4 and all(order == orders[0] for order in orders)
    model, (balanced, biased) = lab.biased_model(100), lab.synthetic_sets(100)
    step = {"mode": "train", "batch_size": 32, "crop_scale": (lab.profile.crop_scale_min, 1.0)}
    sets = enumerate((lab.faces("train"), biased, balanced), 100)
    real, tilted, level = (gradients.mean_gradients(model, faces, seed=seed, **step) for seed, faces in sets)
    for score, (domain, bias) in measured.scores["train"].items():
        assert domain == pytest.approx(gradients.gap(real, tilted, score), abs=1e-6)
        assert bias == pytest.approx(gradients.gap(tilted, level, score), abs=1e-6)


def test_the_rate_is_chosen_by_validation_accuracy_without_group_labels(lab):
    best = search.run(lab, "linear-probing", 100)
    tried = [lab.run("linear-probing", 100, lr=rate) for rate in methods.LEARNING_RATES]
    assert best.accuracy("validation") == max(run.accuracy("validation") for run in tried)
    chosen = tables.choose(tables.frame(tried))
    assert chosen["lr"].tolist() == [best.config["hyper"]["lr"]]


def test_a_method_without_synthetic_faces_is_the_same_run_with_others_and_needs_none(pool, tmp_path):
    drawn = small(pool, tmp_path)
    none = small(pool, tmp_path, generator=f"folder:{tmp_path / 'not-there'}", prompts="plain", images_per_group=7)
    assert drawn.config("erm", {}, 100) == none.config("erm", {}, 100)
    assert drawn.config("synthetic-only", {}, 100) != none.config("synthetic-only", {}, 100)
    trained = none.run("erm", 100)  # would fail if a pool were looked for
    assert drawn.run("erm", 100).folder == trained.folder
    seen = drawn.bench(100).seen_by(methods.get("jtt"))
    assert len(seen.balanced) == len(seen.biased) == 0 and seen.pool is None and seen.edited is None


def test_settings_that_decide_numbers_lead_to_other_runs(pool, tmp_path, lab):
    one = lab.config("erm", {}, 100)
    other = small(pool, tmp_path, train_images=100).config("erm", {}, 100)
    assert runs.run_id(one) != runs.run_id(other)


def test_a_varied_study_differs_where_it_is_told_and_shares_the_faces(lab):
    other, smaller = lab.varied(selection="random", selected_per_group=20), lab.varied(train_images=80)
    assert other.faces("train") is lab.faces("train") and len(smaller.faces("train")) == 80
    assert len(other.selected(100)) == 80 and other.profile == replace(
        lab.profile, selection="random", selected_per_group=20
    )
    assert (other.runs_root, other.reuse, other.device) == (lab.runs_root, lab.reuse, lab.device)
    with pytest.raises(AimfairError, match="selection must be 'none'"):
        lab.varied(selection="best")


def test_mistakes_are_named_before_anything_is_trained(lab, tmp_path):
    with pytest.raises(AimfairError, match="no method 'aimfair'; there are"):
        lab.run("aimfair")
    with pytest.raises(AimfairError, match="score must be one of absolute, cosine, got 'relative'"):
        lab.gaps(100, "relative")
    with pytest.raises(AimfairError, match="gradients must be one of train, eval, got 'test'"):
        lab.gaps(100, mode="test")
    with pytest.raises(AimfairError, match=r"device 'tpu' is not available here|device 'cuda"):
        environment.choose_device("cuda" if not torch.cuda.is_available() else "tpu")
    with pytest.raises(AimfairError, match="no data set|does not exist|path"):
        study.open_study("utkface", data_root=str(tmp_path / "nowhere")).catalogue.labels("Female")
    with pytest.raises(AimfairError, match=r"group \(.*wanted|wants|only"):
        study.open_study("demo", changes={"train_images": 10**6}).split  # noqa: B018
