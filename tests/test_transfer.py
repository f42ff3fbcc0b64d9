"""Tests elsewhere are runs of their own: same classifier, other faces, found again, published beside the study."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from small_grid import changes, draw_pool

from aimfair import study
from aimfair.environment import AimfairError
from aimfair.study import runs
from beyond import transfer, travel
from beyond.transfer import Place

HERE = {
    "new-faces": Place("others", "faceworld", "test", options={**transfer.NONE_BUT_TEST, "seed": 1, "test": 60}),
    "cartoons": Place("drawn", "faceworld", "test", options={**transfer.NONE_BUT_TEST, "style": "web", "test": 60}),
}


@pytest.fixture
def lab(tmp_path_factory, tmp_path, monkeypatch):
    monkeypatch.setitem(transfer.PLACES, "faceworld", HERE)
    pool = tmp_path_factory.getbasetemp() / "transfer-pool"
    if not pool.exists():
        draw_pool(pool)
    opened = study.open_study("smoke", changes=changes(pool), device="cpu", runs_root=str(tmp_path / "runs"))
    opened.published_root = tmp_path / "published"
    opened.split["test"] = opened.split["test"][:50]
    return opened


def test_one_classifier_is_tested_here_and_there_and_the_tests_are_found_again(lab, monkeypatch):
    home = lab.run("aim-fair", 100, lr=0.03)
    found = transfer.tests(lab, "aim-fair", 100, list(HERE), lr=0.03)
    assert set(found) == set(HERE)
    for run in found.values():
        assert run.predictions.groupby("split").size().to_dict() == {"home": 50, "test": 60, "validation": 40}
        assert run.scores["drift"] == 0
        at_home = run.predictions[run.predictions["split"] == "home"]["logit"].to_numpy()
        assert (at_home == home.predictions[home.predictions["split"] == "test"]["logit"].to_numpy()).all()
        assert run.accuracy("validation") == home.accuracy("validation")
    new, drawn = (found[name].predictions.query("split == 'test'")["logit"].to_numpy() for name in HERE)
    assert not np.array_equal(new, drawn)

    monkeypatch.setattr(lab, "classifier", lambda *a, **k: pytest.fail("trained again"))
    again = transfer.tests(lab, "aim-fair", 100, list(HERE), lr=0.03)
    assert [run.folder for run in again.values()] == [run.folder for run in found.values()]
    assert len(lab.fresh("aim-fair")) == 1  # they are no runs of the study
    assert [run.id for run in transfer.results(lab, "cartoons", "aim-fair")] == [found["cartoons"].id]
    assert transfer.results(lab, "cartoons", "erm") == []
    with pytest.raises(AimfairError, match=r"no place 'moon'.*new-faces, cartoons"):
        transfer.tests(lab, "erm", 100, ["moon"])


def test_drift_is_the_distance_to_the_run_at_home(lab):
    run = lab.run("erm", 100)
    stored = pd.read_parquet(run.folder / "predictions.parquet")
    stored.assign(logit=stored["logit"] + 0.25).to_parquet(run.folder / "predictions.parquet", index=False)
    drift = transfer.tests(lab, "erm", 100, ["cartoons"])["cartoons"].scores["drift"]
    assert drift == pytest.approx(0.25, abs=1e-3)


def test_published_tests_are_found_without_those_of_this_machine(lab, tmp_path):
    assert travel.frame(lab).empty
    made = transfer.tests(lab, "erm", 100, list(HERE))
    table = travel.frame(lab).set_index("place")
    assert list(table.index) == list(HERE) and set(table["method"]) == {"Baseline (ERM)"}
    assert table.loc["cartoons", "wst"] == made["cartoons"].report().wst
    assert table.loc["cartoons", "home acc"] == made["cartoons"].report("home").acc
    assert (lab.published_root / "smoke-on-cartoons") in {path.parent for path in transfer.publish(lab)}
    clone = study.Study(lab.profile, device="cpu", runs_root=str(tmp_path / "none"))
    clone.published_root = lab.published_root
    (found,) = transfer.results(clone, "cartoons", "erm")
    assert found.id == made["cartoons"].id and found.report().cells == pytest.approx(made["cartoons"].report().cells)
    assert found.report("home").acc == pytest.approx(made["cartoons"].report("home").acc)
    assert transfer.tests(clone, "erm", 100, ["cartoons"])["cartoons"].folder is None  # nothing was trained
    assert not clone.fresh("erm")


def fairface(folder, per_group=12):
    """Plain pictures in FairFace's layout; the border, which is cut off, is white."""
    rows = []
    (folder / "train").mkdir(parents=True)
    for i in range(4 * per_group):
        name = f"train/{i + 1}.jpg"
        picture = np.full((68, 68, 3), 255, np.uint8)
        picture[2:66, 2:66] = 40 + i
        Image.fromarray(picture).save(folder / name, quality=100, subsampling=0)
        gender, race = ("Male", "Female")[i % 2], ("Black", "White")[i // 2 % 2]
        rows.append({"file": name, "age": "20-29", "gender": gender, "race": race, "service_test": False})
    pd.DataFrame(rows).to_csv(folder / "fairface_label_train.csv", index=False)
    return folder


def test_another_collection_is_read_balanced_and_framed_as_at_home(tmp_path, monkeypatch):
    root = fairface(tmp_path / "fairface")
    small = Place("photographs", "fairface", "train", per_group=10, margin=4 / 64)
    monkeypatch.setitem(transfer.PLACES, "utkface", {"fairface": small, "later": Place("x", "fairface", "validation")})
    lab = study.open_study("utkface", device="cpu", data_root=str(tmp_path / "utkface"), changes={"corpus": ""})
    faces = transfer.faces(lab, "fairface", str(root))
    assert faces.counts() == (10, 10, 10, 10) and faces.images.shape[-2:] == (64, 64)
    assert faces.images.max() < 130  # the white border is cut off
    assert torch.equal(transfer.faces(lab, "fairface").images, faces.images)  # found beside the data_root
    with pytest.raises(AimfairError, match="no validation faces"):
        transfer.faces(lab, "later", str(root))


def test_places_say_what_the_generator_has_seen():
    known = {name: place for places in transfer.PLACES.values() for name, place in places.items()}
    assert known["fairface-training"].drawn_from and known["cartoons"].drawn_from and not known["fairface"].drawn_from
    celeba = study.open_study("celeba-smiling-male", device="cpu")
    assert transfer.places(celeba) == {} and transfer.publish(celeba) == []


def test_what_another_sample_of_faces_does_is_no_effect_of_the_place(lab):
    """Three seeds that answer alike: over seeds the difference has no width, over faces it has the binomial one."""
    rng, n = np.random.default_rng(0), 400
    one = pd.DataFrame({"target": np.tile([0, 0, 1, 1], n // 2), "protected": np.tile([0, 1], n)})
    drawn = [
        one.assign(split=s, logit=np.where(rng.random(2 * n) < 0.8, 1.0, -1.0) * (2 * one["target"] - 1))
        for s in ("test", "home")
    ]
    both = pd.concat([*drawn, drawn[0].assign(split="validation")], ignore_index=True)
    both["name"] = np.arange(len(both)).astype(str)
    for seed in (100, 200, 300):
        wanted = transfer.config(lab, "cartoons", "erm", {}, seed)
        runs.store(lab.runs_root, wanted, both[["split", "name", "target", "protected", "logit"]], {"drift": 0.0})
    moved = travel.moved(lab, "cartoons", "erm", "acc")
    right = [((part["logit"] > 0) == (part["target"] == 1)).mean() for part in drawn]
    assert moved.n == 3 and moved.mean == pytest.approx(100 * (right[0] - right[1]))
    width = 1.96 * 100 * np.sqrt(sum(share * (1 - share) for share in right) / (2 * n))
    assert moved.high - moved.mean == pytest.approx(moved.mean - moved.low) == pytest.approx(width, rel=0.1)
    worst = travel.moved(lab, "cartoons", "erm", "wst")
    assert worst.low < worst.mean < worst.high
    with pytest.raises(AimfairError, match="no test of erm on new-faces yet"):
        travel.moved(lab, "new-faces", "erm", "acc")
