import numpy as np
import pytest
import torch
from torch import nn

from aimfair import study
from aimfair.analysis import interventions
from aimfair.environment import AimfairError
from aimfair.models import as_input

CHANGES = {"train_images": 80, "validation_images": 40, "image_size": 32}


class Brightness(nn.Module):
    """Calls a face 1 if it is bright in one place: a model that can be computed by hand."""

    def forward(self, x):
        return x[:, :, 20, 16].mean(1)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    opened = study.open_study("smoke", changes=CHANGES, device="cpu", runs_root=str(tmp_path_factory.mktemp("runs")))
    opened.split["test"] = opened.split["test"][:150]
    return opened


def test_the_label_as_it_is_changes_nothing_and_the_other_one_gives_the_other_picture(lab):
    first, second = interventions.redrawn(lab, Brightness(), "Male")
    as_drawn = Brightness()(as_input(lab.faces("test").images)).numpy()
    is_male = lab.faces("test").protected.numpy() == 1
    assert np.array_equal(np.where(is_male, second, first), as_drawn)
    assert (np.where(is_male, first, second) != as_drawn).mean() > 0.5


def test_effects_are_means_over_the_redrawn_faces(lab):
    table = interventions.effects(lab, Brightness())
    first, second = interventions.redrawn(lab, Brightness(), "Smiling")
    assert list(table.index) == ["Smiling", "Male"]
    assert table.loc["Smiling", "mean change of the logit"] == pytest.approx((second - first).mean())
    changed = 100 * ((second >= 0) != (first >= 0)).mean()
    assert table.loc["Smiling", "predictions changed (%)"] == pytest.approx(changed)


def test_the_swayed_are_of_their_group_and_lose_most_first(lab):
    found = interventions.swayed(lab, Brightness(), n=5)
    first, second = interventions.redrawn(lab, Brightness(), "Male")
    at = [lab.split["test"].tolist().index(i) for i in found]
    assert len(at) > 1 and (lab.faces("test").groups.numpy()[at] == 3).all()
    assert (first[at] >= 0).all() and (second[at] < 0).all() and (np.diff((second - first)[at]) >= 0).all()
    men, women = (interventions.pictures(lab, found, value) for value in (1, 0))
    assert torch.equal(men, lab.faces("test").images[at]) and not torch.equal(men, women)


def test_photographs_cannot_be_drawn_again():
    lab = study.open_study("utkface", device="cpu")
    assert not interventions.possible(lab)
    with pytest.raises(AimfairError, match="photographs"):
        interventions.redrawn(lab, Brightness(), "White")
