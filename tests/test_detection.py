"""Whether a detector finds a face: in drawn faces mostly, in the same pictures shuffled hardly ever."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_pool_audit import NAMES, judge  # noqa: F401
from toys import toy_faces

from aimfair.audit import datasheet, detection, pool_audit
from aimfair.datasets import faceworld

needs_opencv = pytest.mark.skipif(detection.detector() is None, reason="OpenCV 4 is not installed")


def shuffled(images, side):
    """(N, 3, H, W) pictures cut into squares of ``side`` pixels, which change places."""
    n, c, h, w = images.shape
    parts = (
        images.reshape(n, c, h // side, side, w // side, side).permute(0, 2, 4, 1, 3, 5).reshape(n, -1, c, side, side)
    )
    order = torch.from_numpy(np.random.default_rng(0).permutation(parts.shape[1]))
    parts = parts[:, order].reshape(n, h // side, w // side, c, side, side)
    return parts.permute(0, 3, 1, 4, 2, 5).reshape(n, c, h, w)


@needs_opencv
@pytest.mark.parametrize("size", [64, 96])
def test_faces_are_found_and_their_pieces_are_not(size):
    """FaceWorld is drawn, so that a detector of photographs misses some."""
    images = faceworld.catalogue(style="real", train=60, validation=0, test=0, corpus=0).read(np.arange(60), size)
    faces, pieces, nothing = (
        detection.detected(x) for x in (images, shuffled(images, size // 4), torch.full_like(images, 90))
    )
    assert faces.dtype == torch.bool and len(faces) == 60
    assert faces.double().mean() > 0.6 and pieces.double().mean() < 0.2 and not nothing.any()


@needs_opencv
def test_a_set_without_faces_is_told_beside_real_ones(judge):  # noqa: F811
    world = faceworld.catalogue(style="real", train=120, validation=0, test=0, corpus=0)
    real = world.faces(np.arange(120), "Smiling", "Male", 64)
    found = pool_audit.examine(toy_faces((20,) * 4, 3, size=64), judge, NAMES, real)
    table = found.table.set_index(["set", "group"])["face"]
    assert table["synthetic", "all"] < 20 and table["real", "all"] > 60
    assert "detector of photographed faces finds one in" in "".join(datasheet.caveats(found))
    assert "`face`: in how many per cent" in datasheet.page(found)
    look = "whose look it did not learn"  # a judge of drawn faces; that of photographs did
    for dataset, has_it in (("faceworld", True), ("celeba", False)):
        about = {"dataset": dataset} | NAMES
        told = "".join(datasheet.caveats(replace(found, about=about)))
        assert "the judge is right about" in told and (look in told) == has_it
    same = pool_audit.examine(real, judge, NAMES, real)
    assert "photographed faces" not in "".join(datasheet.caveats(same))


def test_without_a_detector_the_datasheet_says_so(judge, monkeypatch):  # noqa: F811
    monkeypatch.setattr(detection, "detector", lambda: None)
    found = pool_audit.examine(toy_faces((20,) * 4, 3), judge, NAMES)
    assert "face" not in found.table and "`face`" not in datasheet.page(found)
    assert "Whether a face is to be seen at all was not measured" in "".join(datasheet.caveats(found))
