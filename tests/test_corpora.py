"""Captioned corpora: captions tell the truth in the words of the prompts, and no person is shared with the classifier."""

import re
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from aimfair import datasets, prompts, sampling
from aimfair.environment import AimfairError
from aimfair.generate.tiny_sd import corpora
from aimfair.study import profiles

RACES = ("White", "Black", "East Asian", "Southeast Asian", "Indian", "Middle Eastern", "Latino_Hispanic")
N = 1200

HAIR = tuple(f"{kind}_Hair" for kind in ("Black", "Brown", "Blond", "Gray", "Straight", "Wavy"))
CELEBA_NAMES = (*corpora.CELEBA_WORDS, *HAIR, "Bald", "Male", "No_Beard", "Smiling", "Young")


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
        age, gender, race = (rng.choice(list(x)) for x in (corpora.FAIRFACE_AGES, ("Male", "Female"), RACES))
        lines.append(f"train/{i}.jpg,{age},{gender},{race},True")
    (root / "fairface_label_train.csv").write_text("\n".join(lines) + "\n")
    return root


def celeba_profile(**changes):
    return profiles.load("celeba-smiling-male", **changes)


@pytest.fixture(scope="module")
def celeba(celeba_root):
    return corpora.load(celeba_profile(), str(celeba_root))


@pytest.fixture(scope="module")
def fairface(fairface_root):
    return corpora.load(profiles.load("utkface"), str(fairface_root.parent / "utkface"))


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
    assert len(celeba.images) == len(odd) > 500
    assert not mine & classifier
    assert np.array_equal(numbers.numpy(), train[odd])


def test_celeba_captions_are_true(celeba, celeba_root):
    table = chosen_rows(celeba_root)
    said_age, clauses = 0, Counter()
    by_words = {words: name for name, words in corpora.CELEBA_WORDS.items()}
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


def test_celeba_labels(celeba, celeba_root):
    table = chosen_rows(celeba_root)
    assert celeba.labels.dtype == torch.int64
    for column, name in enumerate(corpora.CELEBA_LABELS):
        assert np.array_equal(celeba.labels[:, column], table[name])


def words_of(texts):
    return Counter(word for text in texts for word in re.findall(r"[\w-]+", text))


@pytest.mark.parametrize("variant", ["no-pose", "plain"])
def test_prompts_speak_like_the_captions(celeba, fairface, variant):
    celeba_words = words_of(celeba.captions) + Counter(["an"])
    for task in ("celeba/Smiling_Male", "celeba/Smiling_Young", "celeba/Young_Male"):
        assert not set(words_of(p.text for p in prompts.bank(task, variant))) - set(celeba_words)
    assert not set(words_of(p.text for p in prompts.bank("utkface/Female_White", variant))) - set(
        words_of(fairface.captions)
    )


def test_fairface_captions_are_true(fairface, fairface_root):
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


def test_fairface_is_cropped_to_utkface_framing(fairface):
    assert fairface.images.shape == (600, 3, 64, 64)
    assert fairface.focus.shape == (1, 1, 64, 64)
    assert fairface.images.max() == 0  # the frame of 2 px in 68 is outside


def test_fairface_labels(fairface, fairface_root):
    table = datasets.load("fairface", str(fairface_root)).attributes
    assert np.array_equal(fairface.labels[:, 0], table["Female"])
    assert np.array_equal(fairface.labels[:, 1], table["White"])
    old = table["age"].isin(("40-49", "50-59", "60-69", "more than 70"))
    assert np.array_equal(fairface.labels[:, 4], old)
    assert fairface.labels.max() == 1 and (fairface.labels.float().mean(0) > 0).all()


def test_captions_are_the_same_every_time(fairface, fairface_root):
    assert corpora.fairface(str(fairface_root), 8).captions == fairface.captions


def test_faceworld_corpus():
    assert corpora.root_of(profiles.load("demo", corpus="faceworld"), "") == ""
    corpus = corpora.web_faces("", 8, n=2000)
    assert len(corpus.images) == len(corpus.captions) == len(corpus.focus) == len(corpus.labels) == 2000
    for column, word in enumerate(("smiling", " male", "young")):
        named = torch.tensor([word in caption for caption in corpus.captions])
        assert corpus.labels[:, column].float().mean() == 0.5
        assert not (named & (corpus.labels[:, column] == 0)).any()
    assert corpus.focus.shape == (2000, 1, 8, 8)


def test_focus_is_on_eyes_and_mouth():
    focus = corpora.aligned_focus(eyes=0.28, mouth=0.70, size=64)[0, 0]
    assert focus.shape == (64, 64) and focus.min() >= 1
    rows = focus[:, 32]
    assert abs(int(rows.argmax()) - 45) <= 1  # 0.70 of 64 px
    assert rows[18] > 1.2 * rows[30]  # the eyes' line against the nose
    assert focus[0, 0] < 1.2
    assert torch.allclose(focus, focus.flip(1), atol=1e-5)


def test_where_a_corpus_is_looked_for(celeba_root, fairface_root, tmp_path):
    assert corpora.root_of(celeba_profile(), str(celeba_root)) == str(celeba_root)
    utkface = profiles.load("utkface")
    assert corpora.root_of(utkface, str(fairface_root.parent / "utkface")) == str(fairface_root)
    given = profiles.load("utkface", corpus_root=str(tmp_path))
    assert corpora.root_of(given, "") == str(tmp_path)
    with pytest.raises(AimfairError, match="set corpus_root to the folder that holds fairface"):
        corpora.root_of(utkface, "")
    with pytest.raises(AimfairError, match=r"fairface is no folder: set corpus_root"):
        corpora.root_of(utkface, str(tmp_path / "utkface"))


def test_what_cannot_be_a_corpus(celeba_root, tmp_path):
    with pytest.raises(AimfairError, match="corpus must be one of faceworld, celeba, fairface"):
        corpora.load(celeba_profile(corpus="imagenet"), str(celeba_root))
    with pytest.raises(AimfairError, match="share people of celeba; set split: identities"):
        corpora.load(celeba_profile(split="official"), str(celeba_root))
    for part in ("img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"):
        (tmp_path / part).symlink_to(celeba_root / part)
    with pytest.raises(AimfairError, match="no identity_CelebA"):
        corpora.load(celeba_profile(), str(tmp_path))
