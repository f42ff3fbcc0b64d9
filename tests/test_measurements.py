"""Measurements are runs like any other; the library's own, and those that files beside the chapters declare."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_grid import changes, draw_pool
from torch import nn
from toys import toy_faces

from aimfair import cli, methods, models, study
from aimfair.audit import features
from aimfair.environment import AimfairError
from aimfair.gradients import gap, mean_gradients
from aimfair.study import measurements, search
from beyond import stability

EXTENSIONS = {module.__name__.rpartition(".")[2]: module for module in methods.modules()}
score_noise, style_lean = EXTENSIONS["score_noise"], EXTENSIONS["style_lean"]


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    return changes(draw_pool(tmp_path_factory.mktemp("pool")))


@pytest.fixture(scope="module")
def lab(given, tmp_path_factory):
    opened = study.open_study(
        "smoke", changes=given, device="cpu", runs_root=str(tmp_path_factory.mktemp("measurements"))
    )
    opened.split["test"] = opened.split["test"][:200]
    with pytest.MonkeyPatch.context() as quicker:
        quicker.setattr(features, "STRENGTHS", (0.01, 1.0))
        yield opened


def test_measurements_of_files_outside_the_library_are_found():
    assert list(measurements.MEASUREMENTS) == ["gradient-gaps", "feature-map"]
    assert {*measurements.registry()} >= {*measurements.MEASUREMENTS, "score-noise", "style-lean", "inspection"}
    assert not {"score-noise", "style-lean", "inspection"} & set(methods.registry())


# ----------------------------------------------------------------------------------- what features reveal


def correlated(n=600, agree=0.9, seed=0):
    """Labels y and s that agree in a share of the samples, and two columns of pure noise."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    s = np.where(rng.random(n) < agree, y, 1 - y)
    return y, s, rng.normal(size=(n, 2))


def test_features_that_know_only_the_target_reveal_the_protected_attribute_to_a_naive_probe_only():
    y, s, noise = correlated()
    x = noise + 4 * y[:, None]
    value, low, high = features.readable(x, s, y)
    assert low <= 50 <= high and abs(value - 50) < 6
    assert np.mean((x[:, 0] > 2) == s) > 0.85  # without the condition it would look readable
    with pytest.raises(AimfairError, match="10 samples of each cell"):
        features.readable(x[:60], s[:60], y[:60])


def test_a_protected_attribute_that_is_there_is_read_within_each_target():
    y, s, noise = correlated(agree=0.75)
    noise[:, 1] += 2 * s
    value, low, high = features.readable(noise, s, y)
    assert 75 < low < 84.1 < high < 93 and low < value < high  # Phi(1) is the best that can be done
    assert features.readable(noise * [1, 0], s, y)[0] < low
    widths = []
    for n in (200, 3200):
        y, s, noise = correlated(n, agree=0.5)
        _, low, high = features.readable(noise + s[:, None], s, y)
        widths.append(high - low)
    assert 3 < widths[0] / widths[1] < 5.5  # the square root of 16


def test_neighbours_stay_neighbours_and_the_map_is_repeatable():
    label = np.repeat([0, 1, 2], 40)
    x = np.random.default_rng(1).normal(size=(120, 8)) + 12 * np.eye(8)[label]
    place = features.embedding(x)
    assert place.dtype == np.float16 and (features.embedding(x) == place).all()
    apart = np.linalg.norm(place[:, None].astype(float) - place, axis=2) + 1e9 * np.eye(120)
    assert (label[apart.argmin(1)] == label).all()


def test_a_portrait_has_equal_groups_of_faces_that_depend_on_labels_alone():
    model, faces = models.build("resnet18-slim", 1), toy_faces((14, 30, 25, 12), 3)
    found = features.portrait(model, faces)
    assert found["probed"] == 12 and found["shown"] == 12
    rows = features.on_map(faces.target, faces.protected)
    assert faces.subset(rows).counts() == (12,) * 4
    assert all(low <= value <= high for part in ("protected", "target") for value, low, high in found[part].values())
    frame = features.placed(found, faces.target.numpy(), faces.protected.numpy())
    assert frame.groupby(["target", "protected"]).size().tolist() == [12] * 4
    place = features.embedding(models.evaluate(model, faces.subset(rows), output="features").numpy())
    assert frame[["x", "y"]].to_numpy() == pytest.approx(place.astype(float), abs=0.02)
    with pytest.raises(AimfairError, match="a map of 48 faces"):
        features.placed(found, faces.target[:-20], faces.protected[:-20])
    for others, message in (
        (faces.without_protected(), "withheld"),
        (toy_faces((9, 30, 30, 30), 3), "10 faces of each"),
    ):
        with pytest.raises(AimfairError, match=message):
            features.portrait(model, others)


@pytest.mark.parametrize("of", ["untrained", "supplementation", "linear-probing"])
def test_the_map_of_a_method_is_that_of_the_classifier_that_made_its_predictions(lab, of):
    found = lab.measure("feature-map", 100, of=of)
    assert lab.measure("feature-map", 100, of=of).folder == found.folder and len(found.predictions) == 0
    if of == "untrained":
        assert "agrees" not in found.scores
    else:
        assert found.scores["agrees"] == 100
        assert found.scores["hyper"] == search.run(lab, of, 100).config["hyper"]
    test = lab.faces("test")
    assert len(features.placed(found.scores, test.target, test.protected)) == 4 * found.scores["shown"]


def test_maps_differ_between_models_and_are_published_and_found(lab, given, tmp_path):
    mine = lab.measure("feature-map", 100, of="erm")
    assert mine.scores["map"] != lab.measure("feature-map", 100, of="untrained").scores["map"]
    lab.published_root = tmp_path / "published"
    lab.publish()
    reader = study.open_study("smoke", changes=given, device="cpu", runs_root=str(tmp_path / "empty"))
    reader.published_root = lab.published_root
    found = reader.measure("feature-map", 100, of="erm").scores
    assert found["map"] == mine.scores["map"] and not (tmp_path / "empty").exists()
    assert found["target"]["features"] == pytest.approx(mine.scores["target"]["features"])


@pytest.mark.parametrize("name", ["feature-map", "style-lean"])
def test_an_unknown_method_is_refused_before_anything_is_trained(lab, name):
    with pytest.raises(AimfairError, match="nothing"):
        lab.measure(name, 100, of="nothing")


# --------------------------------------------------------------------------------- noise of the gradient scores


def test_halves_share_no_face_and_have_the_same_groups():
    faces = toy_faces((10, 20, 30, 40))
    first, second = score_noise.halves(faces, 3)
    assert first.counts() == second.counts() == (5, 10, 15, 20) and not set(first.names) & set(second.names)
    first, second = score_noise.halves(faces.without_protected(), 3)
    assert first.protected is None and int(first.target.sum()) == int(second.target.sum()) == 35
    assert set(score_noise.halves(faces, 4)[0].names) != set(first.names)


def test_the_floor_predicts_the_gap_between_independent_sets_of_the_whole_size():
    model = models.build("resnet18-slim", 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    floors, gaps = [], []
    for i in range(4):
        sets = [toy_faces((16,) * 4, 100 * i + j) for j in (1, 2)]
        half = [score_noise.half_gap(model, faces, i) for faces in sets]
        floors.append(np.mean(list(stability.floor(*half).values())))
        gaps.append(np.mean(list(gap(*(mean_gradients(model, faces) for faces in sets)).values())))
    assert np.mean(gaps) / np.mean(floors) == pytest.approx(1, abs=0.2)
    score_noise.half_gap(model, toy_faces((8,) * 4), 0, mode="train", batch_size=8)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_score_noise_is_a_run_of_its_own(lab):
    run = lab.measure("score-noise", 100)
    assert set(run.scores) == {"real", "biased", "balanced", "seconds"} and len(run.scores["real"]) == 62
    assert min(run.scores["real"].values()) >= 0 and max(run.scores["balanced"].values()) > 0
    assert lab.measure("score-noise", 100).folder == run.folder and run.id != lab.measure("gradient-gaps", 100).id


# -------------------------------------------------------------------------------------------- real or drawn


class Answers(nn.Module):
    """Positive where the first pixel of a face is brighter than one that all faces have alike."""

    def forward(self, x):
        return x[:, 0, 0, 0] - x[:, 0, 1, 1]


def answering(calls, counts=(20, 20, 20, 20)):
    """Faces of four groups whose first pixel makes :class:`Answers` call them positive or not, per group."""
    faces = toy_faces(counts, 0)
    images = torch.full_like(faces.images, 100)
    images[:, 0, 0, 0] = torch.where(torch.as_tensor(calls)[faces.groups], 255, 0).to(images.dtype)
    return replace(faces, images=images)


@pytest.mark.parametrize(
    ("calls", "counts", "lean"),
    [
        ((False, True, False, True), (20, 20, 20, 20), 100.0),  # calls s = 1 positive
        ((False, True, False, True), (5, 40, 9, 31), 100.0),  # whatever the sizes of the groups
        ((True, False, True, False), (20, 20, 20, 20), -100.0),  # "not s"
        ((False, False, True, True), (20, 20, 20, 20), 0.0),  # the target
        ((False, True, True, True), (20, 20, 20, 20), 50.0),  # s decides where the target is 0
    ],
)
def test_the_lean_of_a_rule(calls, counts, lean):
    assert style_lean.lean(Answers(), answering(calls, counts)) == pytest.approx(lean)


def test_faces_that_were_seen_are_left_out_unless_none_is_left():
    pool = toy_faces((6, 6, 6, 6), 1)
    some = pool.subset(np.flatnonzero(np.arange(24) % 3 == 0))
    rest = style_lean.unseen(pool, some)
    assert not set(rest.names) & set(some.names) and len(rest) + len(some) == 24
    assert style_lean.unseen(pool, pool.subset(np.flatnonzero(pool.groups.numpy() == 2))) is pool
    with pytest.raises(AimfairError, match="all four groups"):
        style_lean.lean(Answers(), answering((True,) * 4, (5, 0, 9, 31)))


def test_the_lean_is_that_of_the_repaired_model_and_the_command_prints_it(lab, given, capsys):
    found = lab.measure("style-lean", 100, of="repairing")
    seen, _, _ = style_lean.real_and_synthetic.repaired(lab.faces("train"), lab.profile.shares(), lab.pool, 102)
    drawn, model = style_lean.unseen(lab.pool, seen), lab.classifier("repairing", 100)
    assert found.scores["real"] == style_lean.lean(model, lab.faces("test"))
    assert found.scores["synthetic"] == style_lean.lean(model, drawn)
    assert lab.measure("style-lean", 100, of="erm").scores["real"] != found.scores["real"]
    assert cli.main(["measure"]) == 0
    assert {"score-noise", "style-lean"} <= set(capsys.readouterr().out.split())
    options = [part for name, value in given.items() for part in ("-p", f"{name}={value}")]
    options += ["--profile", "smoke", "--device", "cpu", "--runs", str(lab.runs_root)]
    assert cli.main(["measure", "style-lean", "repairing", *options]) == 0
    line = capsys.readouterr().out
    assert line.startswith("style-lean") and f"synthetic {found.scores['synthetic']:.4g}" in line
