"""Chance overlap against brute force, halves that are halves, a noise floor that predicts the noise."""

from itertools import combinations

import numpy as np
import pytest
import torch
from toys import toy_faces

from aimfair import masks, models
from aimfair.analysis import stability
from aimfair.environment import AimfairError
from aimfair.gradients import gap, mean_gradients

NAMES = [f"t{i:02d}" for i in range(12)]


def test_expected_overlap_is_the_mean_over_all_masks():
    fixed = set(NAMES[:5])
    every = [masks.jaccard(fixed, set(other)) for other in combinations(NAMES, 7)]
    assert stability.expected_jaccard(5, 7, 12) == pytest.approx(np.mean(every))
    assert stability.expected_jaccard(12, 12, 12) == 1
    with pytest.raises(AimfairError, match="sizes lie between"):
        stability.expected_jaccard(0, 3, 12)


def test_intersections_of_random_rankings_of_one_size_overlap_as_expected():
    rng = np.random.default_rng(0)
    drawn = []
    while len(drawn) < 300:
        scores = [dict(zip(NAMES, rng.random(12), strict=True)) for _ in range(2)]
        mask = masks.select(*scores, k=9)
        drawn += [mask] if len(mask) == 7 else []
    pairs = [masks.jaccard(a, b) for a, b in combinations(drawn, 2)]
    assert np.mean(pairs) == pytest.approx(stability.expected_jaccard(7, 7, 12), abs=0.01)


def test_equal_masks_overlap_more_than_chance_and_random_ones_do_not():
    same = stability.overlap([set(NAMES[:6])] * 4, 12, draws=300)
    assert same.observed == 1 and same.corrected == 1 and same.p == pytest.approx(1 / 301)
    assert same.expected == pytest.approx(stability.expected_jaccard(6, 6, 12))
    p = [
        stability.overlap([masks.random_mask(NAMES, 6, 10 * s + i) for i in range(4)], 12, draws=99).p
        for s in range(30)
    ]
    assert 0.3 < np.mean(p) < 0.7
    whole = stability.overlap([set(NAMES)] * 2, 12, draws=20)
    assert whole.p == 1 and np.isnan(whole.corrected)
    with pytest.raises(AimfairError, match="needs two masks"):
        stability.overlap([set(NAMES)], 12)


def test_halves_share_no_face_and_have_the_same_groups():
    faces = toy_faces((10, 20, 30, 40))
    first, second = stability.halves(faces, 3)
    assert first.counts() == second.counts() == (5, 10, 15, 20) and not set(first.names) & set(second.names)
    first, second = stability.halves(faces.without_protected(), 3)
    assert first.protected is None and int(first.target.sum()) == int(second.target.sum()) == 35
    assert set(stability.halves(faces, 4)[0].names) != set(first.names)


def test_the_floor_predicts_the_gap_between_independent_sets_of_the_whole_size():
    model = models.build("resnet18-slim", 3)

    def gradient(seed):
        return mean_gradients(model, toy_faces((16,) * 4, seed))

    floors, gaps = [], []
    for i in range(4):
        half = [stability.half_gap(model, toy_faces((16,) * 4, 100 * i + j), i) for j in (1, 2)]
        floors.append(np.mean(list(stability.floor(*half).values())))
        gaps.append(np.mean(list(gap(gradient(100 * i + 1), gradient(100 * i + 2)).values())))
    assert np.mean(gaps) / np.mean(floors) == pytest.approx(1, abs=0.2)


def test_what_noise_explains_is_taken_off():
    score, noise = {"a": 5.0, "b": 1.0}, {"a": 3.0, "b": 2.0}
    assert stability.above_noise(score, noise) == pytest.approx({"a": 4.0, "b": 0.0})
    assert stability.floor({"a": 6.0}, {"a": 8.0}) == pytest.approx({"a": 5.0})
    with pytest.raises(AimfairError, match="same tensors"):
        stability.floor({"a": 1.0}, {"b": 1.0})


def test_the_model_is_left_as_it_was():
    model = models.build("resnet18-slim", 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stability.half_gap(model, toy_faces((8,) * 4), 0, mode="train", batch_size=8)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
