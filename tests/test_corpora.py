"""Captioned corpora: captions tell the truth in the words of the prompts, and no person is shared with the classifier."""

import re
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from aimfair import datasets, prompts, sampling
from aimfair.environment import AimfairError
from aimfair.generate import corpora
from aimfair.study import profiles
from aimfair.study.corpus import corpus_root, load_corpus

RACES = ("White", "Black", "East Asian", "Southeast Asian", "Indian", "Middle Eastern", "Latino_Hispanic")
N = 1200

HAIR = tuple(f"{kind}_Hair" for kind in ("Black", "Brown", "Blond", "Gray", "Straight", "Wavy"))
CELEBA_NAMES = (*corpora.WORDS["celeba"]["words"], *HAIR, "Bald", "Male", "No_Beard", "Smiling", "Young")


@pytest.fixture(scope="module")
def celeba_root(tmp_path_factory):
    """CelebA's layout with noise for faces: random attributes, 400 people, the last tenth of the images for testing."""
    root = tmp_path_factory.mktemp("data") / "celeba"
    (root / "img_align_celeba").mkdir(parents=True)
    rng = np.random.default_rng(0)
    values = rng.choice((-1, 1), (N, len(CELEBA_NAMES)), p=(0.7, 0.3))
    names = [f"{i:06d}.jpg" for i in range(1, N + 1)]
    for i, name in enumerate(names):
        Image.new("RGB", (8, 10), (i % 256, i // 256, 0)).save(root / "img_align_celeba" / name, "PNG")
    rows = "\n".join(f"{name} {' '.join(map(str, row))}" for name, row in zip(names, values, strict=True))
    (root / "list_attr_celeba.txt").write_text(f"{N}\n{' '.join(CELEBA_NAMES)}\n{rows}\n")
    splits = (f"{name} {2 * (i >= 0.9 * N):d}\n" for i, name in enumerate(names))
    (root / "list_eval_partition.txt").write_text("".join(splits))
    people = (f"{name} {i % 400 + 400 * (i >= 0.9 * N)}\n" for i, name in enumerate(names))
    (root / "identity_CelebA.txt").write_text("".join(people))
    return root


@pytest.fixture(scope="module")
def fairface_root(tmp_path_factory):
    """FairFace's layout: black pictures of 68 px in a white frame of 2 px."""
    root = tmp_path_factory.mktemp("data") / "fairface"
    (root / "train").mkdir(parents=True)
    picture = Image.new("RGB", (68, 68), "white")
    picture.paste((0, 0, 0), (2, 2, 66, 66))
    rng = np.random.default_rng(0)
    lines = ["file,age,gender,race,service_test"]
    for i in range(1, 601):
        picture.save(root / "train" / f"{i}.jpg", "PNG")
        age, gender, race = (
            rng.choice(list(x)) for x in (corpora.WORDS["fairface"]["ages"], ("Male", "Female"), RACES)
        )
        lines.append(f"train/{i}.jpg,{age},{gender},{race},True")
    (root / "fairface_label_train.csv").write_text("\n".join(lines) + "\n")
    return root


def celeba_profile(**changes):
    return profiles.load("celeba-smiling-male", **changes)


@pytest.fixture(scope="module")
def celeba(celeba_root):
    return load_corpus(celeba_profile(), str(celeba_root))


@pytest.fixture(scope="module")
def fairface(fairface_root):
    return load_corpus(profiles.load("utkface"), str(fairface_root.parent / "utkface"))


@pytest.fixture(scope="module")
def faceworld():
    return corpora.faceworld("", 64, n=2000)


def chosen_rows(root):
    """The table's rows of the corpus, found again without the corpus' own code."""
    table = datasets.load("celeba", str(root)).attributes
    return table[(table["split"] == "train") & (table["identity"] % 2 == 1)].reset_index(drop=True)


def test_celeba_corpus_shares_nobody_with_the_classifier(celeba, celeba_root):
    table = datasets.load("celeba", str(celeba_root)).attributes
    numbers = celeba.images[:, 0, 0, 0].long() + 256 * celeba.images[:, 1, 0, 0].long()
    mine = set(table["identity"].to_numpy()[numbers.numpy()])
    train = np.flatnonzero(table["split"] == "train")
    even, odd = sampling.by_identity(table["identity"].to_numpy()[train])
    classifier = set(table["identity"].to_numpy()[train[even]]) | set(table["identity"][table["split"] != "train"])
    assert len(odd) > 500 and np.array_equal(numbers.numpy(), train[odd])
    assert not mine & classifier


def test_celeba_captions_are_true(celeba, celeba_root):
    table = chosen_rows(celeba_root)
    said_age, clauses = 0, Counter()
    by_words = {words: name for name, words in corpora.WORDS["celeba"]["words"].items()}
    for caption, (_, face) in zip(celeba.captions, table.iterrows(), strict=True):
        who, _, seen = caption.removeprefix("Portrait face photo of a ").removesuffix(".").partition(" with ")
        smile, *age, gender = who.split()
        assert (smile == "smiling") == bool(face["Smiling"]) and smile in ("smiling", "neutral", "serious")
        assert gender == ("male" if face["Male"] else "female")
        assert age in ([], ["young" if face["Young"] else "old"])
        said_age += len(age)
        listed = [c for c in re.split(r", and |, | and ", seen) if c]
        assert len(listed) <= 3
        for clause in listed:
            clauses[clause] += 1
            if clause == "a beard":
                assert face["Male"] and not face["No_Beard"]
            elif clause == "a bald head":
                assert face["Bald"]
            elif clause.endswith("hair"):
                *form, tone, _ = clause.split()
                assert face[f"{tone.capitalize()}_Hair"] and not face["Bald"]
                assert all(face[f"{word.capitalize()}_Hair"] for word in form)
            else:
                assert face[by_words[clause]]
    assert 0.85 < said_age / len(table) < 0.95
    assert set(by_words) < set(clauses)
    assert celeba.labels.dtype == torch.int64 and list(celeba.names) == corpora.WORDS["celeba"]["labels"]
    assert np.array_equal(celeba.labels, table[list(celeba.names)])


def words_of(texts):
    return Counter(word for text in texts for word in re.findall(r"[\w-]+", text))


@pytest.mark.parametrize("variant", ["no-pose", "plain"])
def test_prompts_speak_like_the_captions(celeba, fairface, variant):
    celeba_words = words_of(celeba.captions) + Counter(["an"])
    for task in ("celeba/Smiling_Male", "celeba/Smiling_Young", "celeba/Young_Male"):
        assert not set(words_of(p.text for p in prompts.bank(task, variant))) - set(celeba_words)
    utkface = words_of(p.text for p in prompts.bank("utkface/Female_White", variant))
    assert not set(utkface) - set(words_of(fairface.captions))


def test_fairface_captions_and_labels_are_true(fairface, fairface_root):
    table = datasets.load("fairface", str(fairface_root)).attributes
    kinds = Counter()
    for caption, (_, face) in zip(fairface.captions, table.iterrows(), strict=True):
        said = re.fullmatch(r"Portrait face photo of an? (?:(\d+) year old )?(.+) (female|male)\.", caption)
        age, race, gender = said.groups()
        assert gender == face["gender"].lower()
        assert race in (face["race"].replace("_", " "), "white" if face["White"] else "non-white")
        if age is not None:
            first, *last = re.findall(r"\d+", face["age"])
            assert int(first) <= int(age) <= int(last[0] if last else 90)
        kinds.update([race, age is None])
    assert 30 < kinds[True] < 90 and 25 < kinds["non-white"] < 80
    old = table["age"].isin(("40-49", "50-59", "60-69", "more than 70"))
    assert np.array_equal(fairface.labels[:, [0, 1, 4]], np.stack([table["Female"], table["White"], old], 1))
    assert fairface.labels.max() == 1 and (fairface.labels.float().mean(0) > 0).all()
    assert corpora.fairface(str(fairface_root), 8).captions == fairface.captions


def test_fairface_is_cropped_to_utkface_framing(fairface):
    assert fairface.images.shape == (600, 3, 64, 64) and fairface.focus.shape == (1, 1, 64, 64)
    assert fairface.images.max() == 0  # the frame of 2 px in 68 is outside


def test_faceworld_captions_are_true(faceworld):
    table = datasets.load("faceworld", style="web", train=0, validation=0, test=0, corpus=2000).attributes
    assert len(faceworld.images) == len(faceworld.captions) == 2000
    assert np.array_equal(faceworld.labels, table[list(faceworld.names)])
    spoken = [caption.replace(",", " ").split() for caption in faceworld.captions]
    for word, column in (("smiling", "Smiling"), ("male", "Male")):
        assert ([word in words for words in spoken] == table[column]).all()
    for said, true in (
        (" young ", table.Young == 1),
        (" old ", table.Young == 0),
        ("eyeglasses", table.Eyeglasses == 1),
        ("a hat", table.Wearing_Hat == 1),
        ("long", table.Long_Hair == 1),
        ("short", table.Long_Hair == 0),
        ("black hair", table.Black_Hair == 1),
        ("goatee", table.Goatee == 1),
        ("lipstick", table.Wearing_Lipstick == 1),
        ("bald", table.Bald == 1),
        ("turned slightly right", table.yaw > 0.25),
        ("tilted slightly left", table.roll < -0.25),
        ("downward", table.pitch > 0.25),
    ):
        where = np.array([said in caption for caption in faceworld.captions])
        assert where.any() and true[where].all(), said
    aged = np.mean([" young " in caption or " old " in caption for caption in faceworld.captions])
    assert 0.86 < aged < 0.94
    assert len({word.strip(".") for words in spoken for word in words}) < 60
    assert corpora.faceworld("", 8, n=2000).captions == faceworld.captions


def test_focus_is_on_eyes_and_mouth(faceworld):
    focus = corpora.aligned_focus(eyes=0.28, mouth=0.70, size=64)[0, 0]
    assert focus.shape == (64, 64) and focus.min() >= 1 and focus[0, 0] < 1.2
    rows = focus[:, 32]
    assert abs(int(rows.argmax()) - 45) <= 1  # 0.70 of 64 px
    assert rows[18] > 1.2 * rows[30]  # the eyes' line against the nose
    assert torch.allclose(focus, focus.flip(1), atol=1e-5)

    weight = faceworld.focus[:50]
    assert weight.shape == (50, 1, 64, 64) and weight.dtype == torch.float32
    assert float(weight.min()) >= 1 and float(weight.amax((1, 2, 3)).min()) > 4
    table = datasets.load("faceworld", style="web", train=0, validation=0, test=0, corpus=2000).attributes[:50]
    mouth_y = table.head_y + table.head_scale * (0.6 + 0.07 * table.pitch) * np.cos(np.deg2rad(table["roll"]))
    assert np.abs((weight.flatten(1).argmax(1).numpy() // 64 + 0.5) / 32 - 1 - mouth_y).max() < 0.12


def test_where_a_corpus_is_looked_for(celeba_root, fairface_root, tmp_path):
    utkface = profiles.load("utkface")
    assert corpus_root(profiles.load("demo", corpus="faceworld"), "") == ""
    assert corpus_root(celeba_profile(), str(celeba_root)) == str(celeba_root)
    assert corpus_root(utkface, str(fairface_root.parent / "utkface")) == str(fairface_root)
    assert corpus_root(profiles.load("utkface", corpus_root=str(tmp_path)), "") == str(tmp_path)
    for profile, data_root in ((utkface, ""), (utkface, str(tmp_path / "utkface")), (celeba_profile(), "")):
        with pytest.raises(AimfairError, match="set corpus_root to the .* that holds"):
            corpus_root(profile, data_root)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"corpus": "imagenet"}, "corpus must be one of faceworld, celeba, fairface"),
        ({"split": "official"}, "share people of celeba; set split: identities"),
        ({}, "no identity_CelebA"),
    ],
)
def test_what_cannot_be_a_corpus(celeba_root, tmp_path, changes, said):
    for part in ("img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"):
        (tmp_path / part).symlink_to(celeba_root / part)
    with pytest.raises(AimfairError, match=said):
        load_corpus(celeba_profile(**changes), str(tmp_path))
