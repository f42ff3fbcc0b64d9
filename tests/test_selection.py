"""Selection rules on features made by hand; then in a study, where they must not see a label of a real face."""

from itertools import combinations

import numpy as np
import pytest
import torch
from small_grid import SMALL, changes, draw_pool

from aimfair import study
from aimfair.audit import selection
from aimfair.audit.selection import Candidates
from aimfair.environment import AimfairError
from aimfair.faces import FaceSet
from aimfair.study import profiles, runs


def given(features, agreement=None, distance=None):
    x = torch.tensor(features, dtype=torch.float32).reshape(len(features), -1)
    ones = torch.ones(len(x))
    agreement = ones if agreement is None else torch.tensor(agreement)
    return Candidates(agreement, ones if distance is None else torch.tensor(distance), x)


def chosen(rule, known, budget, seed=0):
    return selection.RULES[rule](known, budget, seed).tolist()


def test_agreement_and_realism_take_the_best_and_the_lower_place_of_a_tie():
    known = given([0] * 5, [0.2, 0.9, 0.5, 0.9, 0.5], [3.0, 1.0, 2.0, 1.0, 0.5])
    assert chosen("agreement", known, 3) == [1, 3, 2]
    assert chosen("realism", known, 3) == [4, 1, 3]


def test_diversity_starts_in_the_middle_and_goes_to_the_ends():
    assert chosen("diversity", given(range(11)), 3) == [5, 0, 10]
    assert chosen("diversity", given([1.0] * 4), 4) == [0, 1, 2, 3]  # all alike: still four different faces


def test_diversity_is_within_twice_the_best_radius():
    x = torch.randn(12, 2, generator=torch.Generator().manual_seed(3))
    known = given(x.tolist())

    def radius(places):
        return float(torch.cdist(x, x[list(places)]).amin(1).max())

    best = min(radius(places) for places in combinations(range(12), 4))
    assert radius(chosen("diversity", known, 4)) <= 2 * best


def test_faithful_drops_mistakes_first_then_half_of_the_rest_by_distance_then_what_repeats():
    #         mistake |          far |    three alike       | apart
    features = [9.0, 50.0, 60.0, 0.0, 0.1, 0.2, 4.0, 8.0]
    agreement = [0.1, 0.9, 0.8, 0.9, 0.9, 0.9, 0.7, 0.6]
    distance = [0.0, 9.0, 8.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    # Of eight, four must go: the mistake; of the three left, one by distance (the farthest), two by diversity.
    assert sorted(chosen("faithful", given(features, agreement, distance), 4)) == [2, 3, 6, 7]
    # With five to go, two go by distance: both far ones. Three are chosen of 0, .1, .2, 4, 8.
    assert sorted(chosen("faithful", given(features, agreement, distance), 3)) == [3, 6, 7]


def test_faithful_keeps_to_its_budget_where_mistakes_are_many():
    known = given([0.0, 1.0, 2.0, 3.0], [0.1, 0.9, 0.4, 0.2], [1.0] * 4)
    assert sorted(chosen("faithful", known, 3)) == [1, 2, 3]  # the surest mistake goes


def test_random_is_a_matter_of_the_seed_alone():
    known = given([0] * 50)
    assert chosen("random", known, 20, 1) == chosen("random", given(range(50)), 20, 1)
    assert chosen("random", known, 20, 1) != chosen("random", known, 20, 2)
    groups = torch.arange(80) % 4
    picked = selection.select("random", given([0] * 80), groups, 10, seed=1)
    assert len({tuple(picked[picked % 4 == g] // 4) for g in range(4)}) == 4  # a lot of its own for each group


class Sure:
    """A judge that thinks the same of every picture; its feature is the grey level."""

    def see(self, images):
        return torch.tensor([[9.0, 2.0, -1.0]]).expand(len(images), 3), images[:, :1, 0, 0].float()

    def column(self, attribute):
        return ("Young", "Smiling", "Male").index(attribute)


def test_a_candidate_is_as_sure_as_the_less_certain_of_its_labels_and_as_far_as_five_real_faces_are():
    grey = torch.arange(16, dtype=torch.uint8).view(16, 1, 1, 1).expand(16, 3, 8, 8)
    faces = FaceSet(grey[:4], torch.tensor([1, 1, 0, 0]), torch.tensor([1, 0, 1, 0]), np.array(list("abcd")))
    known = selection.candidates(faces, Sure(), {"target": "Smiling", "protected": "Male"}, grey[10:])
    smiling, male = 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(1))
    assert known.agreement.tolist() == pytest.approx([male, 1 - male, 1 - smiling, 1 - smiling])
    assert known.distance.tolist() == [12, 11, 10, 9] and known.features.flatten().tolist() == [0, 1, 2, 3]


def test_a_rule_of_ones_own_is_one_more_entry(monkeypatch):
    monkeypatch.setitem(selection.RULES, "last", lambda known, budget, seed: torch.arange(len(known))[-budget:])
    assert selection.select("last", given(range(8)), torch.arange(8) % 4, 1, 0).tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize("rule", selection.RULES)
def test_every_rule_chooses_as_many_different_faces_as_it_may(rule):
    generator = torch.Generator().manual_seed(1)
    known = Candidates(*(torch.rand(30, generator=generator) for _ in "ab"), torch.rand(30, 4, generator=generator))
    for budget in (1, 7, 29, 30):
        places = chosen(rule, known, budget)
        assert len(set(places)) == budget and set(places) <= set(range(30))
        assert chosen(rule, known, budget) == places
    groups = torch.arange(30) % 4
    picked = selection.select(rule, known, groups, 5, seed=3)
    assert torch.bincount(groups[picked]).tolist() == [5] * 4 and (np.diff(picked) > 0).all()


def select(rule="realism", groups=(0, 0, 0, 1, 1, 1, 2, 2, 3), budget=1):
    return selection.select(rule, given(range(9)), torch.tensor(groups), budget, 0)


@pytest.mark.parametrize(
    ("choose", "says"),
    [
        (lambda: select(budget=3), r"\(target 1, protected 0\) has 2 faces to choose 3 from: lower the budget"),
        (lambda: select(groups=[0, 1, 2] * 3), r"\(target 1, protected 1\) has 0 faces to choose 1 from"),
        (lambda: select(budget=0), "the budget is 0"),
        (lambda: select("best"), "no selection rule 'best'; there are: agreement, "),
        (lambda: profiles.load("smoke", selection="best"), "selection.*agreement"),
        (lambda: profiles.load("smoke", selected_per_group=999), "selected_per_group"),
    ],
)
def test_what_cannot_be_chosen_is_said(choose, says):
    with pytest.raises(AimfairError, match=says):
        choose()


# In a study


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return draw_pool(tmp_path_factory.mktemp("pool"))


def opened(pool, runs_root, **more):
    lab = study.open_study("smoke", changes=changes(pool) | more, device="cpu", runs_root=str(runs_root))
    lab.split["test"] = lab.split["test"][:80]
    return lab


def test_a_run_id_holds_the_selection_where_it_decides_something(pool, tmp_path):
    half = SMALL["images_per_group"] // 2
    lab = {
        "plain": opened(pool, tmp_path),
        "unused": opened(pool, tmp_path, selected_per_group=5),
        "random": opened(pool, tmp_path, selection="random"),
        "faithful": opened(pool, tmp_path, selection="faithful"),
        "by hand": opened(pool, tmp_path, selection="faithful", selected_per_group=half),
    }
    ids = {name: runs.run_id(study.config("aim-fair", {}, 100)) for name, study in lab.items()}
    assert ids["plain"] == ids["unused"] and ids["faithful"] == ids["by hand"] and len(set(ids.values())) == 3
    assert len({runs.run_id(study.config("erm", {}, 100)) for study in lab.values()}) == 1  # given no synthetic face
    assert not set(profiles.SELECTION) & set(lab["plain"].config("aim-fair", {}, 100)["study"])


def test_a_pool_is_the_first_images_of_each_group(pool, tmp_path):
    few, more = (opened(pool, tmp_path, images_per_group=n).pool for n in (3, 5))
    assert few.counts() == (3,) * 4 and more.counts() == (5,) * 4
    assert few.names.tolist() == [name for i, name in enumerate(more.names) if i % 5 < 3]


def test_selection_works_without_any_label_of_a_real_face(pool, tmp_path):
    sighted, blind = (opened(pool, tmp_path, selection="faithful", selected_per_group=6) for _ in range(2))
    real = blind.faces("train")
    blind._faces["train"] = type(real)(real.images, torch.zeros_like(real.target), None, real.names)
    assert (sighted.selected(100).names == blind.selected(100).names).all()


def test_both_protocols_run_on_as_many_selected_faces_as_drawn_by_lot(pool, tmp_path):
    labs = {rule: opened(pool, tmp_path, selection=rule, selected_per_group=8) for rule in ("random", "faithful")}
    for lab in labs.values():
        whole, mine = lab.pool, lab.selected(100)
        assert mine.counts() == (8,) * 4 and set(mine.names) < set(whole.names)
        assert lab.synthetic_sets(100)[0].counts() == (8,) * 4
        for method, hyper in (("synthetic-only", {}), ("aim-fair", {"lr": 0.03})):
            assert len(lab.run(method, 100, **hyper).predictions)
    assert set(labs["random"].selected(100).names) != set(labs["random"].selected(200).names)
    assert set(labs["faithful"].selected(100).names) == set(labs["faithful"].selected(200).names)
    trained = [run.config["method"] for run in runs.all_runs(tmp_path)]
    assert sorted(trained) == ["aim-fair"] * 2 + ["erm"] + ["gradient-gaps"] * 2 + ["synthetic-only"] * 2
