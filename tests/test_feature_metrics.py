"""Variety, distance and copies: closed forms, and copies that were planted."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from toys import toy_faces

from aimfair.audit import feature_metrics as fm
from aimfair.environment import AimfairError


def cloud(n=400, d=5, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_the_vendi_score_counts_what_has_nothing_in_common():
    assert fm.vendi_score(torch.ones(7, 3)) == pytest.approx(1)
    assert fm.vendi_score(torch.eye(6)) == pytest.approx(6)
    clusters = torch.eye(3).repeat_interleave(torch.tensor([5, 3, 2]), 0)
    entropy = -sum(p * math.log(p) for p in (0.5, 0.3, 0.2))
    assert fm.vendi_score(clusters) == pytest.approx(math.exp(entropy))
    assert fm.vendi_score(10 * clusters) == pytest.approx(math.exp(entropy))  # a matter of directions alone
    wide = cloud(4, 9)  # fewer faces than features: the other of the two matrices
    assert fm.vendi_score(wide) == pytest.approx(fm.vendi_score(torch.cat([wide, wide])))


def test_the_mean_distance_is_that_of_all_pairs(monkeypatch):
    assert fm.mean_distance(torch.eye(4)) == pytest.approx(math.sqrt(2))
    assert fm.mean_distance(torch.ones(1, 3)) == 0
    x = cloud(50)
    pairs = [(x[i] - x[j]).norm() for i in range(50) for j in range(i)]
    monkeypatch.setattr(fm, "BLOCK", 7)
    assert fm.mean_distance(x) == pytest.approx(float(torch.stack(pairs).mean()), rel=1e-5)


def test_the_frechet_distance_has_its_closed_forms():
    x = cloud()
    assert fm.frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    shift = torch.tensor([1.0, -2.0, 0.0, 0.5, 0.0])
    assert fm.frechet_distance(x, x + shift) == pytest.approx(float(shift.square().sum()), rel=1e-5)
    centred = x - x.mean(0)
    assert fm.frechet_distance(centred, 3 * centred) == pytest.approx(4 * float(centred.T.cov().trace()), rel=1e-4)
    turn = torch.linalg.qr(cloud(5, 5, 1)).Q
    other = 2 * cloud(300, 5, 2) + 1
    assert fm.frechet_distance(x @ turn, other @ turn) == pytest.approx(fm.frechet_distance(x, other), rel=1e-4)
    assert fm.frechet_distance(other, x) == pytest.approx(fm.frechet_distance(x, other), rel=1e-6)


def test_small_samples_make_it_larger():
    same = [fm.frechet_distance(cloud(n, 5, 1), cloud(n, 5, 2)) for n in (10, 100, 5000)]
    assert same[0] > same[1] > same[2] > 0


def test_nearest_is_the_mean_of_the_k_nearest():
    line = torch.tensor([[0.0], [1.0], [3.0], [10.0]])
    assert fm.nearest(torch.tensor([[0.0], [4.0]]), line, k=2).tolist() == [0.5, 2.0]
    assert fm.nearest(torch.tensor([[0.0]]), line, k=9).tolist() == [3.5]


@pytest.mark.parametrize("block", [5, 2048])
def test_copies_are_found_and_nothing_else(monkeypatch, block):
    monkeypatch.setattr(fm, "BLOCK", block)
    images = toy_faces((5,) * 4, 1, size=48).images
    light = (images[3].float() * 0.9 + 20).clamp(0, 255).to(torch.uint8)
    buffer = io.BytesIO()
    Image.fromarray(images[7].permute(1, 2, 0).numpy()).save(buffer, "jpeg", quality=95)
    packed = torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)
    more = torch.cat([images, light[None], packed[None], images[11:12]])
    pairs = fm.near_duplicates(more)
    assert set(zip(pairs["first"], pairs["second"], strict=True)) == {(3, 20), (7, 21), (11, 22)}
    assert pairs["difference"].is_monotonic_increasing and pairs["difference"][0] == pytest.approx(0, abs=0.1)
    between = fm.near_duplicates(more[20:], images)
    assert set(zip(between["first"], between["second"], strict=True)) == {(0, 3), (1, 7), (2, 11)}
    assert fm.near_duplicates(images).empty and fm.near_duplicates(images[:0]).empty


def test_nothing_to_measure_is_said():
    for measure in (fm.vendi_score, fm.mean_distance):
        with pytest.raises(AimfairError, match="no faces to measure"):
            measure(torch.empty(0, 3))
    with pytest.raises(AimfairError, match="two faces in each, got 1 and 5"):
        fm.frechet_distance(cloud(1), cloud(5))
