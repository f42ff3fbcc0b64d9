import numpy as np
import pytest
import torch

from aimfair.datasets import faceworld
from aimfair.environment import AimfairError

SMALL = {"train": 1_500, "validation": 100, "test": 1_200, "corpus": 1_000}


@pytest.fixture(scope="module", params=faceworld.STYLES)
def faces(request):
    return faceworld.catalogue(style=request.param, **SMALL)


def of_split(faces, split):
    return np.flatnonzero(faces.attributes["split"] == split)


def test_a_face_has_the_same_bits_in_any_order_batch_and_company_with_any_number_of_threads(faces):
    some = np.array([3, 1499, 1550, 1600, 2801, 3799])
    alone = torch.cat([faces.read(np.array([i]), 64) for i in some])
    assert alone.shape == (6, 3, 64, 64) and alone.dtype == torch.uint8
    crowd = np.concatenate([np.arange(70), some[::-1], np.arange(40, 101)])
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        assert torch.equal(alone, faces.read(crowd, 64)[70:76].flip(0))


def test_a_face_does_not_depend_on_how_many_there_are():
    few = faceworld.catalogue(train=20, validation=5, test=5, corpus=5)
    many = faceworld.catalogue(**SMALL)
    where = {name: i for i, name in enumerate(many.names)}
    same = np.array([where[name] for name in few.names])
    assert few.attributes.equals(many.attributes.iloc[same].reset_index(drop=True))
    assert torch.equal(few.read(np.arange(35), 32), many.read(same, 32))


def test_another_seed_is_another_world_and_another_style_the_same_one():
    first, other = (faceworld.catalogue(seed=seed, **SMALL) for seed in (0, 1))
    web = faceworld.catalogue(style="web", **SMALL)
    assert not first.attributes.equals(other.attributes)
    assert first.attributes.equals(web.attributes)
    assert not torch.equal(first.read(np.arange(4), 32), web.read(np.arange(4), 32))


def test_every_face_differs_and_names_are_unique(faces):
    pictures = faces.read(np.arange(300), 16).flatten(1)
    assert len(torch.unique(pictures, dim=0)) == 300
    assert len(set(faces.names)) == len(faces) == 3_800
    assert faces.names[0].endswith("-0000000") and faces.names[-1].endswith("-3000999")


def test_natural_splits_are_distributed_as_celeba():
    table = faceworld.catalogue(validation=0, test=0, corpus=0, train=20_000).attributes
    group = np.bincount(2 * table.Smiling + table.Male, minlength=4) / len(table)
    assert np.abs(group - (0.268, 0.250, 0.315, 0.167)).max() < 0.015
    assert abs(table.Young.mean() - 0.774) < 0.015
    assert table.Young.corr(table.Male) < -0.2 < 0 < table.Young.corr(table.Smiling) < 0.1


def test_corpus_is_balanced_and_independent(faces):
    table = faces.attributes.iloc[of_split(faces, "corpus")]
    counts = np.bincount(4 * table.Smiling + 2 * table.Male + table.Young, minlength=8)
    assert counts.tolist() == [125] * 8


def test_labels_are_binary_and_exclude_each_other(faces):
    table = faces.attributes
    for name in ("Smiling", "Male", "Young", "Eyeglasses", "No_Beard", "Long_Hair", "Bald", "Wearing_Lipstick"):
        assert set(table[name]) == {0, 1} and table[name].dtype == np.int64
    hair = table[["Black_Hair", "Brown_Hair", "Blond_Hair", "Red_Hair", "Gray_Hair", "Bald"]]
    assert (hair.sum(axis=1) == 1).all()
    bearded = table[["5_o_Clock_Shadow", "Mustache", "Goatee", "Full_Beard"]].max(axis=1)
    assert (table.No_Beard == 1 - bearded).all()
    assert bearded[table.Male == 0].sum() == 0


def test_hair_and_hat_are_drawn_as_labelled(faces):
    """The crown is brighter under blond than under black hair, at the place where the table says the head is."""
    table = faces.attributes[(faces.attributes.Wearing_Hat == 0) & (faces.attributes.roll.abs() < 4)]

    def crown(rows):
        picture = faces.read(rows.index.to_numpy(), 64).float().mean(1)
        column = ((rows.head_x + 1) * 32).astype(int).to_list()
        row = ((rows.head_y - 0.95 * rows.head_scale + 1) * 32).astype(int).to_list()
        return picture[torch.arange(len(rows)), row, column].mean()

    assert crown(table[table.Blond_Hair == 1][:100]) > 50 + crown(table[table.Black_Hair == 1][:100])


def test_any_size(faces):
    for size in (24, 64, 97):
        assert faces.read(np.arange(3), size).shape == (3, 3, size, size)
    coarse = torch.nn.functional.avg_pool2d(faces.read(np.arange(3), 128).float(), 2)
    assert float((coarse - faces.read(np.arange(3), 64).float()).abs().mean()) < 15
    assert faces.read(np.array([], dtype=np.int64), 64).shape == (0, 3, 64, 64)


def test_a_set_label_changes_what_follows_from_it_and_nothing_else(faces):
    style, label = str(faces.names[0]).split("-")[0], faces.labels("Male")
    women, men = (faceworld.catalogue(style=style, **SMALL, do={"Male": value}) for value in (0, 1))
    assert not women.labels("Male").any() and men.labels("Male").all()
    kept = ["Smiling", "Young", "Dark_Skin", "yaw", "roll", "pitch", "head_x", "head_y", "head_scale", "split"]
    assert women.attributes[kept].equals(faces.attributes[kept]) and men.attributes[kept].equals(faces.attributes[kept])
    assert not women.attributes["Full_Beard"].any() and not men.attributes["Wearing_Lipstick"].any()
    same, changed = np.flatnonzero(label == 1)[:20], np.flatnonzero(label == 0)[:20]
    assert torch.equal(men.read(same, 32), faces.read(same, 32))
    assert not torch.equal(men.read(changed, 32), faces.read(changed, 32))
    assert not set(men.names) & set(faces.names)

    smiling = faceworld.catalogue(style=style, **SMALL, do={"Smiling": 1})
    assert smiling.labels("Smiling").all()
    assert smiling.attributes.drop(columns="Smiling").equals(faces.attributes.drop(columns="Smiling"))


def test_errors_say_what_to_do(faces):
    with pytest.raises(AimfairError, match="choose one of real, web"):
        faceworld.catalogue(style="oil")
    with pytest.raises(AimfairError, match="each to 0 or 1"):
        faceworld.catalogue(do={"Bangs": 1})
    with pytest.raises(AimfairError, match="ask for fewer"):
        faceworld.catalogue(train=2_000_000)


def test_age_shows_in_the_web_style_whatever_the_hair():
    """Hair is gray in six of ten old faces; that the skin has lost its colour shows in all of them."""

    def cheeks(young):
        faces = faceworld.catalogue(style="web", train=0, validation=0, test=0, corpus=300, do={"Young": young})
        table, pictures = faces.attributes, faces.read(np.arange(300), 64).float()
        column = ((table.head_x + 0.2 * table.yaw * table.head_scale + 1) * 32).astype(int).to_list()
        row = ((table.head_y + 0.4 * table.head_scale + 1) * 32).astype(int).to_list()
        colour = pictures[torch.arange(300), :, row, column]
        return (colour.amax(1) - colour.amin(1)) / colour.amax(1)

    assert (cheeks(young=0) < cheeks(young=1)).double().mean() > 0.9
