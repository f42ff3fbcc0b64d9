"""The lean has closed forms; a model that follows the style is found out; the measurement is a run like any other."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_grid import changes, draw_pool
from torch import nn
from toys import toy_faces

from aimfair import cli, study
from aimfair.analysis import style
from aimfair.environment import AimfairError
from aimfair.methods import repairing


class Answers(nn.Module):
    """Positive where the first pixel of a face is brighter than one that all faces have alike."""

    def forward(self, x):
        return x[:, 0, 0, 0] - x[:, 0, 1, 1]


def answering(said, counts=(20, 20, 20, 20)):
    """Faces of four groups whose first pixel makes :class:`Answers` call them positive as ``said`` tells, per group."""
    faces = toy_faces(counts, 0)
    images = torch.full_like(faces.images, 100)
    images[:, 0, 0, 0] = torch.where(torch.as_tensor(said)[faces.groups], 255, 0).to(images.dtype)
    return replace(faces, images=images)


@pytest.mark.parametrize(
    ("said", "lean"),
    [
        ((False, True, False, True), 100.0),  # calls s = 1 positive
        ((True, False, True, False), -100.0),  # "not s"
        ((False, False, True, True), 0.0),  # the target
        ((False, True, True, True), 50.0),  # s decides where the target is 0
    ],
)
def test_the_lean_of_a_rule(said, lean):
    assert style.lean(Answers(), answering(said)) == pytest.approx(lean)


def test_the_lean_does_not_depend_on_how_many_faces_a_group_has():
    said = (False, True, False, True)
    assert style.lean(Answers(), answering(said, (5, 40, 9, 31))) == pytest.approx(100)
    with pytest.raises(AimfairError, match="all four groups"):
        style.lean(Answers(), answering(said, (5, 0, 9, 31)))


def test_faces_that_were_seen_are_left_out_unless_none_is_left():
    pool = toy_faces((6, 6, 6, 6), 1)
    some = pool.subset(np.flatnonzero(np.arange(24) % 3 == 0))
    rest = style.unseen(pool, some)
    assert not set(rest.names) & set(some.names) and len(rest) + len(some) == 24
    whole_group = pool.subset(np.flatnonzero(pool.groups.numpy() == 2))
    assert style.unseen(pool, whole_group) is pool


def test_the_measurement_is_stored_found_again_and_looks_at_the_repaired_model(tmp_path, capsys):
    given = changes(draw_pool(tmp_path / "pool"))
    lab = study.open_study("smoke", changes=given, device="cpu", runs_root=str(tmp_path / "runs"))
    lab.split["test"] = lab.split["test"][:200]
    found = lab.measure("style-lean", 100, of="repairing")
    assert lab.measure("style-lean", 100, of="repairing").folder == found.folder and len(found.predictions) == 0
    seen, _, _ = repairing.repaired(lab.faces("train"), lab.profile.shares(), lab.pool, 102)
    drawn, model = style.unseen(lab.pool, seen), lab.classifier("repairing", 100)
    assert found.scores["real"] == style.lean(model, lab.faces("test"))
    assert found.scores["synthetic"] == style.lean(model, drawn)
    assert lab.measure("style-lean", 100, of="erm").scores["real"] != found.scores["real"]
    with pytest.raises(AimfairError, match="nothing"):
        lab.measure("style-lean", 100, of="nothing")
    changed = [part for name, value in given.items() for part in ("-p", f"{name}={value}")]
    command = ["measure", "styles", "erm", "--profile", "smoke", "--device", "cpu", "--runs", str(tmp_path / "runs")]
    assert cli.main([*command, *changed]) == 0
    assert "erm                        100   " in capsys.readouterr().out
