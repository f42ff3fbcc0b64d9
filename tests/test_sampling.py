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


def catalogue(counts=(60, 60, 60, 60), seed=0):
    group = np.random.default_rng(seed).permutation(np.arange(4).repeat(counts))
    names = np.array([f"face-{i:04d}.jpg" for i in range(len(group))])
    table = pd.DataFrame({"Female": group // 2, "White": group % 2})
    return Catalogue("toy", names, table, lambda index, size: torch.zeros(len(index), 3, size, size, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("n", "ratio", "wanted"),
    [
        (20_000, 1 / 9, (1000, 9000, 9000, 1000)),
        (10_000, 1 / 9, (500, 4500, 4500, 500)),
        (5_000, 1 / 9, (250, 2250, 2250, 250)),
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


def test_a_short_group_is_named_with_what_is_wanted_and_there():
    target, protected = np.array([0, 0, 1, 1, 0, 1, 0, 1]), np.array([0, 1, 0, 1, 1, 0, 1, 0])
    with pytest.raises(AimfairError, match=r"group \(target 0, protected 1\): 9 faces wanted .*, 3 available"):
        sampling.biased_quota(target, protected, 20)


@pytest.mark.parametrize("n", [0, -20])
def test_n_must_be_positive(n):
    with pytest.raises(AimfairError, match="positive number"):
        sampling.biased_quota(*random_labels(0), n)


@pytest.mark.parametrize("ratio", [0, -0.1, 1.5, float("nan")])
def test_the_ratio_must_be_in_range(ratio):
    with pytest.raises(AimfairError, match="ratio"):
        sampling.biased_quota(*random_labels(0), 20, ratio)


@pytest.mark.parametrize(("target", "protected"), [([0, 1], [0]), ([0, 2], [0, 1]), ([[0, 1]], [[0, 1]])])
def test_labels_must_be_binary_and_paired(target, protected):
    with pytest.raises(AimfairError, match="labels"):
        sampling.biased_quota(target, protected, 20)


def test_draws_per_group_have_the_counts_asked_for_and_follow_the_seed():
    target, protected = random_labels(3)
    group = 2 * target + protected
    draw = sampling.per_group(target, protected, (5, 0, 17, 30), seed=100)
    assert np.bincount(group[draw], minlength=4).tolist() == [5, 0, 17, 30]
    assert draw.dtype == np.int64 and (np.diff(draw) > 0).all()
    assert np.array_equal(draw, sampling.per_group(target, protected, (5, 0, 17, 30), seed=100))
    assert not np.array_equal(draw, sampling.per_group(target, protected, (5, 0, 17, 30), seed=200))


def test_a_smaller_draw_lies_within_a_larger_one():
    target, protected = random_labels(4)
    small, large = (sampling.balanced(target, protected, k, seed=100) for k in (8, 20))
    assert len(small) == 32 and set(small) < set(large)


def test_balanced_covers_every_face_when_all_are_asked_for():
    target, protected = np.repeat([0, 0, 1, 1], 5), np.tile(np.repeat([0, 1], 5), 2)
    assert sampling.balanced(target, protected, 5, seed=1).tolist() == list(range(20))


@pytest.mark.parametrize("counts", [(1, 2, 3), (0, 0, 0, 0), (1, -1, 1, 1)])
def test_impossible_counts_are_refused(counts):
    with pytest.raises(AimfairError, match="counts"):
        sampling.per_group(*random_labels(0), counts, seed=0)


def test_draws_that_are_too_large_are_refused():
    with pytest.raises(AimfairError, match=r"group \(target 0, protected 0\): 999 faces wanted"):
        sampling.balanced(*random_labels(0), 999, seed=0)
    with pytest.raises(AimfairError, match="positive"):
        sampling.balanced(*random_labels(0), 0, seed=0)


def test_no_identity_is_in_two_parts():
    identity = np.random.default_rng(0).integers(1, 50, 300)
    even, odd = sampling.by_identity(identity)
    assert set(identity[even] % 2) == {0} and set(identity[odd] % 2) == {1}
    assert sorted([*even, *odd]) == list(range(300))
    assert len(sampling.by_identity(identity, 3)) == 3
    with pytest.raises(AimfairError, match="parts"):
        sampling.by_identity(identity, 0)


OPTIONS = {"train": 80, "test_per_group": 10, "validation_per_group": 6}


def test_splits_are_disjoint_and_have_their_quotas():
    faces = catalogue()
    group = 2 * faces.labels("Female") + faces.labels("White")
    splits = sampling.utkface_splits(faces, **OPTIONS, seed=3)
    assert list(splits) == ["train", "validation", "test"]
    counts = {split: np.bincount(group[rows]).tolist() for split, rows in splits.items()}
    assert counts == {"train": [4, 36, 36, 4], "validation": [6] * 4, "test": [10] * 4}
    together = np.concatenate(list(splits.values()))
    assert len(set(together)) == len(together)
    assert not np.array_equal(splits["test"], sampling.utkface_splits(faces, **OPTIONS, seed=4)["test"])


def test_the_test_set_does_not_depend_on_what_follows():
    faces = catalogue()
    one = sampling.utkface_splits(faces, **OPTIONS)
    other = sampling.utkface_splits(faces, **(OPTIONS | {"train": 40, "validation_per_group": 0}))
    assert np.array_equal(one["test"], other["test"]) and len(other["validation"]) == 0


def test_the_usual_splits_of_utkface_leave_177_white_men_for_validation():
    faces = catalogue((2000, 5477, 6000, 2000))
    group = 2 * faces.labels("Female") + faces.labels("White")
    counts = {split: np.bincount(group[rows]).tolist() for split, rows in sampling.utkface_splits(faces).items()}
    assert counts == {"train": [500, 4500, 4500, 500], "validation": [150] * 4, "test": [800] * 4}
    assert len(sampling.utkface_splits(faces, validation_per_group=177)["validation"]) == 4 * 177
    with pytest.raises(AimfairError, match=r"target 0, protected 1\): 5478 faces wanted"):
        sampling.utkface_splits(faces, validation_per_group=178)


def test_a_group_too_small_for_the_splits_is_named():
    with pytest.raises(
        AimfairError, match=r"\(target 0, protected 1\): 52 .*10 for test, 6 for validation, 36 for train"
    ):
        sampling.utkface_splits(catalogue((60, 50, 60, 60)), **OPTIONS)
    with pytest.raises(AimfairError, match="negative"):
        sampling.utkface_splits(catalogue(), **(OPTIONS | {"test_per_group": -1}))


def test_a_split_is_read_back_as_written(tmp_path):
    faces = catalogue()
    splits = sampling.utkface_splits(faces, **OPTIONS)
    names = {split: faces.names[rows] for split, rows in splits.items()}
    names["train"][0] = '24_0_1, "quoted" .jpg'
    digest = sampling.write_split(tmp_path / "deep" / "split.csv", names)
    back = sampling.read_split(tmp_path / "deep" / "split.csv")
    assert list(back) == list(names) and all(np.array_equal(back[split], names[split]) for split in names)
    assert digest == sampling.write_split(tmp_path / "again.csv", names) and len(digest) == 64
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["split.csv"]
    assert np.array_equal(sampling.positions(faces, back["test"]), splits["test"])


def test_an_edited_split_is_refused(tmp_path):
    path = tmp_path / "split.csv"
    sampling.write_split(path, {"train": ["a.jpg"], "test": ["b.jpg"]})
    path.write_text(path.read_text().replace("b.jpg", "c.jpg"))
    with pytest.raises(AimfairError, match="sha256"):
        sampling.read_split(path)
    with pytest.raises(AimfairError, match="no split can be read"):
        sampling.read_split(tmp_path / "nothing.csv")


def test_a_split_of_another_copy_is_refused():
    with pytest.raises(AimfairError, match=r"lacks 1 of the 2 faces wanted, the first is b\.jpg"):
        sampling.positions(catalogue(), ["face-0001.jpg", "b.jpg"])


@pytest.fixture(scope="module")
def complete_celeba():
    if "AIMFAIR_CELEBA" not in os.environ:
        pytest.skip("AIMFAIR_CELEBA does not name a folder with CelebA's attribute list")
    table = celeba.attributes(os.environ["AIMFAIR_CELEBA"])
    if len(table) != 202_599:
        pytest.skip(f"the attribute list has {len(table)} faces; the complete one has 202,599")
    return table


@pytest.mark.parametrize(
    ("target", "protected", "last"),
    [("Smiling", "Male", "035382"), ("Smiling", "Young", "080833"), ("Young", "Male", "059353")],
)
def test_the_papers_training_sets_end_where_its_lists_end(complete_celeba, target, protected, last):
    train = complete_celeba[complete_celeba["split"] == "train"]
    index = sampling.biased_quota(train[target], train[protected], 20_000)
    assert train.index[index[-1]] == f"{last}.jpg" and len(index) == 20_000


@pytest.mark.parametrize(
    ("target", "protected", "wanted"),
    [
        ("Smiling", "Male", [5354, 4621, 6893, 3094]),
        ("Smiling", "Young", [2358, 7617, 2490, 7497]),
        ("Young", "Male", [1916, 2932, 10331, 4783]),
    ],
)
def test_the_official_test_set_has_the_known_groups(complete_celeba, target, protected, wanted):
    test = complete_celeba[complete_celeba["split"] == "test"]
    assert np.bincount(2 * test[target] + test[protected]).tolist() == wanted


def test_a_hash_tells_faces_and_their_order():
    names = {"train": ["a.jpg", "b.jpg"], "test": ["c.jpg"]}
    others = (
        names | {"train": ["b.jpg", "a.jpg"]},
        {"train": ["a.jpg"], "test": ["b.jpg", "c.jpg"]},
        names | {"test": ["d.jpg"]},
    )
    hashes = {sampling.split_hash(each) for each in (names, *others)}
    assert len(hashes) == 4 and sampling.split_hash({k: np.array(v) for k, v in names.items()}) in hashes
