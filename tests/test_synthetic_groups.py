"""Groups taught by synthetic faces: the guess, its cut, its use; and that no real group label is read."""

import math
from dataclasses import replace

import pytest
import torch
from toys import fit_method as fit
from toys import toy_faces

from aimfair.environment import AimfairError
from aimfair.methods import synthetic_groups as groups
from aimfair.methods.inferred import unpacked


@pytest.fixture(scope="module")
def taught(bench):
    """A bench whose teacher learns the tint of the toy faces from 400 synthetic ones."""
    return replace(bench, pool=toy_faces((100,) * 4, 7), finetuning=replace(bench.finetuning, epochs=9))


def guesses(bench, fitted):
    return unpacked(fitted.scores["guesses"], len(bench.train)).long()


def test_the_guess_finds_the_groups_of_real_faces_at_the_assumed_shares_without_reading_one(taught):
    fitted = fit(taught, "synthetic-groups")  # fit_method withholds the labels
    assert fitted.scores["shares"] == [0.05, 0.45, 0.45, 0.05] and fitted.scores["synthetic_faces"] == 360
    assert (guesses(taught, fitted) == taught.train.protected).float().mean() > 0.95
    assert fitted.scores["synthetic_accuracy"] > 95


def test_fewer_synthetic_faces_lie_within_more_and_none_of_those_held_out_is_learnt(taught):
    (few, same), (all_, held_out) = (groups.lessons(taught.pool, each, 3) for each in (20, 0))
    assert len(few) == 80 and len(all_) == 360 and len(held_out) == 40
    assert {*few.names} < {*all_.names} and not {*all_.names} & {*held_out.names} and {*same.names} == {*held_out.names}
    assert few.target.float().mean() == 0.5 and few.protected is None
    with pytest.raises(AimfairError, match="91 synthetic faces of each group to learn from: the pool has 90"):
        groups.lessons(taught.pool, 91, 3)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_the_cut_leaves_the_share_above_it(share):
    logits = torch.randn(40, generator=torch.Generator().manual_seed(0)) + 3
    assert int((logits - groups.cut_at(logits, share) >= 0).sum()) == round(40 * share)


def test_a_share_is_corrected_by_the_confusion():
    guessed = 0.3 * 0.9 + 0.7 * 0.2  # of 30 per cent
    assert math.isclose(groups.corrected_share(guessed, 0.9, 0.2), 0.3)
    assert groups.corrected_share(0.05, 0.9, 0.2) == 0 and groups.corrected_share(0.4, 0.5, 0.5) == 0.4


def test_groups_are_drawn_alike_by_hard_and_by_soft_guesses():
    target = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    p = torch.tensor([0.9, 0.1, 0.2, 0.4, 0.7, 0.8, 0.6, 0.1])
    hard, soft = (groups.equal_groups(p, target, soft) for soft in (False, True))
    assert hard.tolist() == pytest.approx([1, *[1 / 3] * 6, 1])
    assert float((soft * p)[target == 0].sum()) == pytest.approx(float((soft * (1 - p))[target == 0].sum()), rel=0.5)
    assert soft.sum().item() == pytest.approx(4)
    one_class = groups.equal_groups(torch.full((8,), 0.9), target, False)
    assert one_class.tolist() == pytest.approx([0.25] * 8)  # an empty group takes no weight


def test_impossible_options_are_refused(bench):
    for hyper in ({"cut": "third"}, {"balance": "weights"}, {"balance": "group-dro", "soft": True}):
        with pytest.raises(AimfairError, match="must be"):
            fit(bench, "synthetic-groups", **hyper)
