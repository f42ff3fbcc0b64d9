"""The probe sees an attribute where it is, not where it only goes along with another; maps keep what is near."""

import numpy as np
import pytest
from small_grid import changes, draw_pool
from toys import toy_faces

from aimfair import models, study
from aimfair.analysis import features
from aimfair.environment import AimfairError
from aimfair.study import search


def correlated(n=600, agree=0.9, seed=0):
    """Labels y and s that agree in a share of the samples, and two columns of pure noise."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    s = np.where(rng.random(n) < agree, y, 1 - y)
    return y, s, rng.normal(size=(n, 2))


def test_features_that_know_only_the_target_give_the_protected_attribute_away_to_a_naive_probe_only():
    y, s, noise = correlated()
    x = noise + 4 * y[:, None]
    told, low, high = features.readable(x, s, y)
    assert low <= 50 <= high and abs(told - 50) < 6
    assert np.mean((x[:, 0] > 2) == s) > 0.85  # without the condition it would look readable


def test_a_protected_attribute_that_is_there_is_read_within_each_target():
    y, s, noise = correlated(agree=0.75)
    noise[:, 1] += 2 * s
    told, low, high = features.readable(noise, s, y)
    assert 75 < low < 84.1 < high < 93 and low < told < high  # Phi(1) is the best that can be done
    weak = features.readable(noise * [1, 0], s, y)[0]
    assert weak < low


def test_the_interval_narrows_with_the_number_of_faces():
    widths = []
    for n in (200, 3200):
        y, s, noise = correlated(n, agree=0.5)
        _, low, high = features.readable(noise + s[:, None], s, y)
        widths.append(high - low)
    assert 3 < widths[0] / widths[1] < 5.5  # the square root of 16


def test_too_few_samples_of_a_cell_are_refused():
    y, s, noise = correlated(60, agree=0.99)
    with pytest.raises(AimfairError, match="10 samples of each cell"):
        features.readable(noise, s, y)


def test_neighbours_stay_neighbours_and_the_map_is_repeatable():
    rng = np.random.default_rng(1)
    label = np.repeat([0, 1, 2], 40)
    x = rng.normal(size=(120, 8)) + 12 * np.eye(8)[label]
    place = features.embedding(x)
    assert place.dtype == np.float16 and (features.embedding(x) == place).all()
    apart = np.linalg.norm(place[:, None].astype(float) - place, axis=2) + 1e9 * np.eye(120)
    assert (label[apart.argmin(1)] == label).all()
    assert (features.unpack(features.pack(place)) == place).all()


def test_a_portrait_has_equal_groups_of_faces_that_depend_on_labels_alone():
    model, faces = models.build("resnet18-slim", 1), toy_faces((14, 30, 25, 12), 3)
    told = features.portrait(model, faces)
    assert told["probed"] == 12 and told["shown"] == 12
    rows = features.on_map(faces.target, faces.protected)
    assert faces.subset(rows).counts() == (12,) * 4 and len(features.unpack(told["map"])) == 48
    assert all(low <= value <= high for part in ("protected", "target") for value, low, high in told[part].values())
    frame = features.placed(told, faces.target.numpy(), faces.protected.numpy())
    assert frame.groupby(["target", "protected"]).size().tolist() == [12] * 4
    assert (frame[["x", "y"]].to_numpy() == features.unpack(told["map"])).all()
    with pytest.raises(AimfairError, match="a map of 48 faces"):
        features.placed(told, faces.target[:-20], faces.protected[:-20])
    with pytest.raises(AimfairError, match="withheld"):
        features.portrait(model, faces.without_protected())
    with pytest.raises(AimfairError, match="10 faces of each group"):
        features.portrait(model, toy_faces((9, 30, 30, 30), 3))


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    pool = draw_pool(tmp_path_factory.mktemp("pool"))
    root = tmp_path_factory.mktemp("runs")
    opened = study.open_study("smoke", changes=changes(pool), device="cpu", runs_root=str(root))
    opened.split["test"] = opened.split["test"][:200]
    with pytest.MonkeyPatch.context() as quicker:
        quicker.setattr(features, "STRENGTHS", (0.01, 1.0))
        yield opened


@pytest.mark.parametrize("of", ["untrained", "supplementation", "linear-probing"])
def test_the_map_of_a_method_is_that_of_the_classifier_that_made_its_predictions(lab, of):
    found = lab.measure("feature-map", 100, of=of)
    assert lab.measure("feature-map", 100, of=of).folder == found.folder and len(found.predictions) == 0
    if of == "untrained":
        assert "agrees" not in found.scores
    else:
        assert found.scores["agrees"] == 100
        assert found.scores["hyper"] == search.run(lab, of, 100).config["hyper"]


def test_maps_differ_between_models_but_show_the_same_faces(lab):
    maps = {of: features.unpack(lab.measure("feature-map", 100, of=of).scores["map"]) for of in ("untrained", "erm")}
    shown = features.on_map(lab.faces("test").target, lab.faces("test").protected)
    assert {len(places) for places in maps.values()} == {len(shown)}
    assert not np.allclose(maps["untrained"], maps["erm"])


def test_maps_are_published_and_found(lab, tmp_path):
    mine = lab.measure("feature-map", 100, of="erm")
    lab.published_root = tmp_path / "published"
    written = lab.publish()
    packed = next(path for path in written if path.name == "feature-map.jsonl")
    assert packed.stat().st_size < 4000 * len(lab.published("feature-map"))
    reader = study.open_study("smoke", changes=lab_changes(lab), device="cpu", runs_root=str(tmp_path / "empty"))
    reader.published_root = lab.published_root
    assert reader.measure("feature-map", 100, of="erm").scores == mine.scores and not (tmp_path / "empty").exists()


def lab_changes(lab):
    names = ("train_images", "validation_images", "images_per_group", "image_size", "batch_size", "generator")
    return {name: getattr(lab.profile, name) for name in names}


def test_an_unknown_method_is_refused_before_anything_is_trained(lab):
    with pytest.raises(AimfairError, match="no method 'nothing'"):
        lab.measure("feature-map", 100, of="nothing")
