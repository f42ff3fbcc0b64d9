import os

import numpy as np
import pandas as pd
import pytest
import torch

from aimfair import sampling
from aimfair.datasets import Catalogue, celeba
from aimfair.environment import AimfairError


def random_labels(seed, n=200, shares=(0.25, 0.25, 0.25, 0.25)):
    group = np.random.default_rng(seed).choice(4, n, p=shares)
    return group // 2, group % 2


def labels(counts=(60, 60, 60, 60), seed=0):
    """Target and protected labels with so many faces of each group, in a random order."""
    group = np.random.default_rng(seed).permutation(np.arange(4).repeat(counts))
    return group // 2, group % 2


def counted(splits, given):
    return {split: np.bincount(2 * given[0][rows] + given[1][rows]).tolist() for split, rows in splits.items()}


def scan(target, protected, n, ratio):
    """The paper's sampler, face by face: take each whose group is still open, stop when all are full."""
    small, large = round(n * ratio / (1 + ratio) / 2), round(n / (1 + ratio) / 2)
    open_places = {(0, 0): small, (0, 1): large, (1, 0): large, (1, 1): small}
    taken = []
    for i in range(len(target)):
        if not any(open_places.values()):
            break
        group = (int(target[i]), int(protected[i]))
        if open_places[group]:
            open_places[group] -= 1
            taken.append(i)
    return taken, open_places


@pytest.mark.parametrize(
    ("n", "ratio", "wanted"),
    [
        (20_000, 1 / 9, (1000, 9000, 9000, 1000)),
        (2_000, 1 / 9, (100, 900, 900, 100)),
        (20_000, 3 / 7, (3000, 7000, 7000, 3000)),
        (400, 1, (100, 100, 100, 100)),
    ],
)
def test_quotas(n, ratio, wanted):
    assert sampling.quotas(n, ratio) == wanted


def test_the_biased_sampler_equals_a_scan_face_by_face():
    checked = short = 0
    for seed in range(300):
        rng = np.random.default_rng(1000 + seed)
        target, protected = random_labels(seed, int(rng.integers(4, 200)), rng.dirichlet([2] * 4))
        n, ratio = int(rng.integers(1, 100)), float(rng.uniform(0.01, 1))
        taken, open_places = scan(target, protected, n, ratio)
        if any(open_places.values()):
            short += 1
            with pytest.raises(AimfairError, match=r"group .* faces wanted .* available"):
                sampling.biased_quota(target, protected, n, ratio)
        else:
            checked += 1
            assert sampling.biased_quota(target, protected, n, ratio).tolist() == taken
    assert checked > 50 and short > 50


def test_draws_per_group_have_the_counts_asked_for_and_follow_the_seed():
    target, protected = random_labels(3)
    draw = sampling.per_group(target, protected, (5, 0, 17, 30), seed=100)
    assert counted({"draw": draw}, (target, protected)) == {"draw": [5, 0, 17, 30]}
    assert draw.dtype == np.int64 and (np.diff(draw) > 0).all()
    assert np.array_equal(draw, sampling.per_group(target, protected, (5, 0, 17, 30), seed=100))
    assert not np.array_equal(draw, sampling.per_group(target, protected, (5, 0, 17, 30), seed=200))
    small, large = (sampling.balanced(target, protected, k, seed=100) for k in (8, 20))
    assert len(small) == 32 and set(small) < set(large)
    assert sampling.balanced(*labels((5, 5, 5, 5)), 5, seed=1).tolist() == list(range(20))


def test_no_identity_is_in_two_parts():
    identity = np.random.default_rng(0).integers(1, 50, 300)
    even, odd = sampling.by_identity(identity)
    assert set(identity[even] % 2) == {0} and set(identity[odd] % 2) == {1}
    assert sorted([*even, *odd]) == list(range(300))
    assert len(sampling.by_identity(identity, 3)) == 3


OPTIONS = {"train": 80, "test_per_group": 10, "validation_per_group": 6}


def test_splits_are_disjoint_and_have_their_quotas():
    given = labels()
    splits = sampling.draw_splits(*given, **OPTIONS, seed=3)
    assert list(splits) == ["train", "validation", "test"]
    assert counted(splits, given) == {"train": [4, 36, 36, 4], "validation": [6] * 4, "test": [10] * 4}
    assert len(np.unique(np.concatenate(list(splits.values())))) == 80 + 24 + 40
    assert not np.array_equal(splits["test"], sampling.draw_splits(*given, **OPTIONS, seed=4)["test"])
    other = sampling.draw_splits(*given, **(OPTIONS | {"train": 40, "validation_per_group": 0}), seed=3)
    assert np.array_equal(splits["test"], other["test"]) and len(other["validation"]) == 0


def test_the_usual_splits_of_utkface_leave_177_white_men_for_validation():
    given = labels((2000, 5477, 6000, 2000))
    wanted = {"train": [500, 4500, 4500, 500], "validation": [150] * 4, "test": [800] * 4}
    assert counted(sampling.draw_splits(*given), given) == wanted
    assert len(sampling.draw_splits(*given, validation_per_group=177)["validation"]) == 4 * 177
    with pytest.raises(AimfairError, match=r"target 0, protected 1\): 5478 faces wanted"):
        sampling.draw_splits(*given, validation_per_group=178)


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (lambda: sampling.quotas(0), "positive number"),
        (lambda: sampling.biased_quota(*random_labels(0), -20), "positive number"),
        *((lambda r=r: sampling.biased_quota(*random_labels(0), 20, r), "ratio") for r in (0, -0.1, 1.5, float("nan"))),
        (lambda: sampling.biased_quota([0, 1], [0], 20), "labels"),
        (lambda: sampling.biased_quota([0, 2], [0, 1], 20), "labels"),
        (lambda: sampling.biased_quota([[0, 1]], [[0, 1]], 20), "labels"),
        (lambda: sampling.biased_quota(*labels((4, 3, 9, 4)), 20), r"\(target 0, protected 1\): 9 .*, 3 available"),
        (lambda: sampling.per_group(*random_labels(0), (1, 2, 3), 0), "counts"),
        (lambda: sampling.per_group(*random_labels(0), (1, -1, 1, 1), 0), "counts"),
        (lambda: sampling.balanced(*random_labels(0), 0, 0), "counts"),
        (lambda: sampling.balanced(*random_labels(0), 999, 0), r"group \(target 0, protected 0\): 999 faces wanted"),
        (lambda: sampling.by_identity([1, 2], 0), "parts"),
        (
            lambda: sampling.draw_splits(*labels((60, 50, 60, 60)), **OPTIONS),
            r"\(target 0, protected 1\): 52 .*10 for test, 6 for validation, 36 for train",
        ),
        (lambda: sampling.draw_splits(*labels(), **(OPTIONS | {"test_per_group": -1})), "negative"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, said):
    with pytest.raises(AimfairError, match=said):
        draw()


# Splits as files


def test_a_split_is_read_back_as_written(tmp_path):
    names = {"train": ['24_0_1, "quoted" .jpg', "NA", "01"], "validation": ["b.jpg"], "test": ["c.jpg", "a.jpg"]}
    digest = sampling.write_split(tmp_path / "deep" / "split.csv", names)
    back = sampling.read_split(tmp_path / "deep" / "split.csv")
    assert list(back) == list(names) and all(back[split].tolist() == names[split] for split in names)
    assert digest == sampling.write_split(tmp_path / "again.csv", names) == sampling.split_hash(back)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["split.csv"]


def test_an_edited_split_is_refused(tmp_path):
    path = tmp_path / "split.csv"
    sampling.write_split(path, {"train": ["a.jpg"], "test": ["b.jpg"]})
    path.write_text(path.read_text().replace("b.jpg", "c.jpg"))
    with pytest.raises(AimfairError, match="sha256"):
        sampling.read_split(path)
    with pytest.raises(AimfairError, match="no split can be read"):
        sampling.read_split(tmp_path / "nothing.csv")


def test_a_hash_tells_faces_and_their_order():
    names = {"train": ["a.jpg", "b.jpg"], "test": ["c.jpg"]}
    others = [names | {"train": ["b.jpg", "a.jpg"]}, {"train": ["a.jpg"], "test": ["b.jpg", "c.jpg"]}]
    hashes = {sampling.split_hash(each) for each in (names, *others, names | {"test": ["d.jpg"]})}
    assert len(hashes) == 4 and sampling.split_hash({k: np.array(v) for k, v in names.items()}) in hashes


def test_names_are_found_in_a_catalogue_and_those_of_another_copy_refused():
    names = np.array(["a.jpg", "b.jpg", "c.jpg"])
    faces = Catalogue("toy", names, pd.DataFrame({"Female": [0, 1, 0]}), lambda index, size: torch.zeros(0))
    assert faces.positions(np.array(["c.jpg", "a.jpg"])).tolist() == [2, 0]
    with pytest.raises(AimfairError, match=r"lacks 1 of the 2 faces wanted, the first is d\.jpg"):
        faces.positions(["a.jpg", "d.jpg"])


# The paper's data


@pytest.fixture(scope="module")
def complete_celeba():
    if "AIMFAIR_CELEBA" not in os.environ:
        pytest.skip("AIMFAIR_CELEBA does not name a folder with CelebA's attribute list")
    table = celeba.attributes(os.environ["AIMFAIR_CELEBA"])
    if len(table) != 202_599:
        pytest.skip(f"the attribute list has {len(table)} faces; the complete one has 202,599")
    return table


@pytest.mark.parametrize(
    ("target", "protected", "last", "tested"),
    [
        ("Smiling", "Male", "035382", [5354, 4621, 6893, 3094]),
        ("Smiling", "Young", "080833", [2358, 7617, 2490, 7497]),
        ("Young", "Male", "059353", [1916, 2932, 10331, 4783]),
    ],
)
def test_the_papers_sets_end_where_its_lists_end(complete_celeba, target, protected, last, tested):
    train, test = (complete_celeba[complete_celeba["split"] == split] for split in ("train", "test"))
    index = sampling.biased_quota(train[target], train[protected], 20_000)
    assert train.index[index[-1]] == f"{last}.jpg" and len(index) == 20_000
    assert np.bincount(2 * test[target] + test[protected]).tolist() == tested
