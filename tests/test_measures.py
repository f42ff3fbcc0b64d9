"""Variety, distance, copies and detected faces: closed forms, and what was planted."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from toys import toy_faces

from aimfair import models
from aimfair.audit import measures
from aimfair.datasets import faceworld
from aimfair.environment import AimfairError
from aimfair.faces import FaceSet


def cloud(n=400, d=5, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_the_vendi_score_counts_what_has_nothing_in_common():
    assert measures.vendi_score(torch.ones(7, 3)) == pytest.approx(1)
    assert measures.vendi_score(torch.eye(6)) == pytest.approx(6)
    clusters = torch.eye(3).repeat_interleave(torch.tensor([5, 3, 2]), 0)
    entropy = -sum(p * math.log(p) for p in (0.5, 0.3, 0.2))
    for scale in (1, 10):  # a matter of directions alone
        assert measures.vendi_score(scale * clusters) == pytest.approx(math.exp(entropy))
    wide = cloud(4, 9)  # fewer faces than features: the other of the two matrices
    assert measures.vendi_score(wide) == pytest.approx(measures.vendi_score(torch.cat([wide, wide])))


def test_the_mean_distance_is_that_of_all_pairs(monkeypatch):
    assert measures.mean_distance(torch.eye(4)) == pytest.approx(math.sqrt(2))
    assert measures.mean_distance(torch.ones(1, 3)) == 0
    monkeypatch.setattr(measures, "BLOCK", 7)
    x = cloud(50)
    assert measures.mean_distance(x) == pytest.approx(float(torch.pdist(x).mean()), rel=1e-5)


def test_the_frechet_distance_has_its_closed_forms():
    x, other = cloud(), 2 * cloud(300, 5, 2) + 1
    assert measures.frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    shift = torch.tensor([1.0, -2.0, 0.0, 0.5, 0.0])
    assert measures.frechet_distance(x, x + shift) == pytest.approx(float(shift.square().sum()), rel=1e-5)
    centred = x - x.mean(0)
    stretched = measures.frechet_distance(centred, 3 * centred)
    assert stretched == pytest.approx(4 * float(centred.T.cov().trace()), rel=1e-4)
    turn, distance = torch.linalg.qr(cloud(5, 5, 1)).Q, measures.frechet_distance(x, other)
    assert measures.frechet_distance(x @ turn, other @ turn) == pytest.approx(distance, rel=1e-4)
    assert measures.frechet_distance(other, x) == pytest.approx(distance, rel=1e-6)
    same = [measures.frechet_distance(cloud(n, 5, 1), cloud(n, 5, 2)) for n in (10, 100, 5000)]
    assert same[0] > same[1] > same[2] > 0  # small samples make it larger


def test_nearest_is_the_mean_of_the_k_nearest():
    line = torch.tensor([[0.0], [1.0], [3.0], [10.0]])
    assert measures.nearest(torch.tensor([[0.0], [4.0]]), line, k=2).tolist() == [0.5, 2.0]
    assert measures.nearest(torch.tensor([[0.0]]), line, k=9).tolist() == [3.5]


@pytest.mark.parametrize("block", [5, 2048])
def test_copies_are_found_and_nothing_else(monkeypatch, block):
    monkeypatch.setattr(measures, "BLOCK", block)
    images = toy_faces((5,) * 4, 1, size=48).images
    light = (images[3].float() * 0.9 + 20).clamp(0, 255).to(torch.uint8)
    buffer = io.BytesIO()
    Image.fromarray(images[7].permute(1, 2, 0).numpy()).save(buffer, "jpeg", quality=95)
    packed = torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)
    more = torch.cat([images, light[None], packed[None], images[11:12]])
    pairs = measures.near_duplicates(more)
    assert set(zip(pairs["first"], pairs["second"], strict=True)) == {(3, 20), (7, 21), (11, 22)}
    assert pairs["difference"].is_monotonic_increasing and pairs["difference"][0] == pytest.approx(0, abs=0.1)
    between = measures.near_duplicates(more[20:], images)
    assert set(zip(between["first"], between["second"], strict=True)) == {(0, 3), (1, 7), (2, 11)}
    assert measures.near_duplicates(images).empty and measures.near_duplicates(images[:0]).empty


def test_nothing_to_measure_is_said():
    for measure in (measures.vendi_score, measures.mean_distance):
        with pytest.raises(AimfairError, match="no faces to measure"):
            measure(torch.empty(0, 3))
    with pytest.raises(AimfairError, match="two faces in each, got 1 and 5"):
        measures.frechet_distance(cloud(1), cloud(5))


def test_the_probe_tells_apart_what_differs_and_nothing_else():
    model = models.build("resnet18-slim", 1)
    one, other = toy_faces((50,) * 4, 1), toy_faces((50,) * 4, 2)
    darker = FaceSet((other.images * 0.5).to(torch.uint8), other.target, other.protected, other.names)
    assert 30 < measures.probe(model, one, other) < 70
    assert measures.probe(model, one, darker) > 90


def shuffled(images, side):
    """(N, 3, H, W) pictures cut into squares of ``side`` pixels, which change places."""
    squares = torch.nn.functional.unfold(images.float(), side, stride=side)
    order = torch.from_numpy(np.random.default_rng(0).permutation(squares.shape[2]))
    return torch.nn.functional.fold(squares[..., order], images.shape[2:], side, stride=side).to(torch.uint8)


@pytest.mark.skipif(measures.detector() is None, reason="OpenCV 4 is not installed")
@pytest.mark.parametrize("size", [64, 96])
def test_faces_are_detected_and_their_pieces_are_not(size):
    """FaceWorld is drawn, so that a detector of photographs misses some."""
    images = faceworld.catalogue(style="real", train=60, validation=0, test=0, corpus=0).read(np.arange(60), size)
    faces, pieces, nothing = (
        measures.detect(x) for x in (images, shuffled(images, size // 4), torch.full_like(images, 90))
    )
    assert faces.dtype == torch.bool and len(faces) == 60
    assert faces.double().mean() > 0.6 and pieces.double().mean() < 0.2 and not nothing.any()
