"""Judges: a trained classifier and CLIP say what a picture shows; how often that is what its label says."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_tiny_sd import CAPTIONS
from toys import toy_faces

from aimfair import study
from aimfair.audit import judges
from aimfair.environment import AimfairError, home
from aimfair.faces import FaceSet
from aimfair.generate import classifier, tiny_sd
from aimfair.generate.corpora import Corpus
from aimfair.study import audit, profiles

NAMES = {"target": "Bar", "protected": "Red"}


def train(seed=1, counts=(150,) * 4, **more):
    faces = toy_faces(counts, 9)
    labels = torch.stack([faces.target, faces.protected], 1)
    return classifier.train_classifier(faces.images, labels, ("Bar", "Red"), batch_size=32, seed=seed, **more)


def empty_home(folder):
    """A checkout of its own, whose cache is empty."""
    for part in ("notebooks", "data/tiny-sd", "data/prompts"):
        (folder / "home" / part).parent.mkdir(parents=True, exist_ok=True)
        (folder / "home" / part).symlink_to(home() / part)
    return folder / "home"


@pytest.fixture(scope="module")
def judge():
    return train(epochs=5)


def test_it_agrees_with_true_labels_and_not_with_false_ones(judge):
    faces = toy_faces((50,) * 4, 1)
    true = judges.agreement(judge, faces, NAMES)
    assert list(true) == ["Bar", "Red"] and min(true.values()) > 95
    false = FaceSet(faces.images, 1 - faces.target, 1 - faces.protected, faces.names)
    assert max(judges.agreement(judge, false, NAMES).values()) < 5


def test_agreement_is_counted_in_each_group(judge):
    faces = toy_faces((50, 50, 50, 50), 2)
    wrong = faces.groups == 2
    claimed = torch.where(wrong, 1, faces.protected)  # all of group (1, 0) is said to be (1, 1)
    said = FaceSet(faces.images, faces.target, claimed, faces.names)
    table = judges.agreement_by_group(judge, said, NAMES)
    assert table["faces"].tolist() == [50, 50, 0, 100]
    assert table["Bar"].drop(2).min() > 90 and np.isnan(table["Red"][2]) and table["Red"][3] == pytest.approx(50, abs=5)


def test_the_same_seed_gives_the_same_classifier_and_another_another():
    images = toy_faces((5,) * 4, 3).images
    one, two, other = (train(seed, (16,) * 4, epochs=1).logits(images) for seed in (5, 5, 6))
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_a_classifier_comes_back_from_disk_and_looks_at_pictures_of_any_size(judge, tmp_path):
    judge.save(tmp_path / "judge.safetensors")
    again, images = classifier.load_classifier(tmp_path / "judge.safetensors"), toy_faces((9,) * 4, 4).images
    assert again.attributes == ("Bar", "Red") and again.size == 32
    assert torch.allclose(judge.logits(images), again.logits(images), atol=0.05)
    large = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(again.logits(large) >= 0, again.logits(images) >= 0)


def test_the_corpus_judge_learns_and_keeps_every_tenth_face_back():
    faces = toy_faces((80,) * 4, 3)
    labels = torch.stack([faces.target, faces.protected], 1)
    corpus = Corpus(faces.images, [""] * len(faces), torch.ones(1, 1, 32, 32), labels, ("Bar", "Red"))
    judge, held = judges.train_corpus_judge(corpus)
    assert held.tolist() == list(range(9, 320, 10)) and judge.attributes == ("Bar", "Red")
    assert judges.agreement(judge, faces.subset(held), NAMES)["Red"] > 90


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A CLIP of random weights with a tokenizer and a processor of its own, saved as a hub model is."""
    return tiny_clip(tmp_path_factory.mktemp("clip"))


def tiny_clip(folder):
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    tokenizer = tiny_sd.train_tokenizer(CAPTIONS, folder / "tokenizer", 600)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    marks = {"bos_token_id": len(tokenizer) - 2, "eos_token_id": len(tokenizer) - 1, "pad_token_id": len(tokenizer) - 1}
    text = {**small, "vocab_size": len(tokenizer), "max_position_embeddings": 40, **marks}
    vision = {**small, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).save_pretrained(folder)
    square = {"height": 32, "width": 32}
    CLIPProcessor(CLIPImageProcessor(size=square, crop_size=square), tokenizer).save_pretrained(folder)
    return folder


def test_clip_compares_pictures_with_sentences(clip):
    judge, images = judges.load_clip(clip), toy_faces((3,) * 4, 1, size=48).images
    logits, features = judge.see(images, batch_size=5)
    assert logits.shape == (12, 5) and features.norm(dim=1).tolist() == pytest.approx([1] * 12, abs=1e-4)
    assert torch.allclose(logits, judge.logits(images, batch_size=12), atol=1e-4)
    male, female = logits[:, judge.column("Male")], logits[:, judge.column("Female")]
    assert torch.allclose(male, -female, atol=1e-4) and male.std() > 0
    sentences = [f"a portrait photo of {s}" for side in judges.SENTENCES["White"] for s in side]
    inputs = judge.processor(text=sentences, images=list(images), return_tensors="pt", padding=True)
    with torch.inference_mode():
        shares = judge.model(**inputs).logits_per_image.softmax(1)  # what transformers itself makes of it
    assert torch.allclose(logits[:, judge.column("White")].sigmoid(), shares[:, -1], atol=1e-4)


@pytest.mark.parametrize("damage", ["half", "lacking", "a web page"])
def test_a_clip_model_that_is_not_whole_is_refused(damage, clip, tmp_path):
    shutil.copytree(clip, tmp_path / "clip")
    file = tmp_path / "clip" / "model.safetensors"
    whole = load_file(file)
    if damage == "lacking":  # what is not there would be drawn at random
        save_file({name: value for name, value in whole.items() if "projection" not in name}, file, {"format": "pt"})
    else:
        file.write_bytes(file.read_bytes()[:5000] if damage == "half" else b"<html>404</html>")
    with pytest.raises(AimfairError, match="the CLIP model .* cannot be read") as caught:
        judges.load_clip(tmp_path / "clip")
    assert "\n" not in str(caught.value) and (damage != "lacking" or "its weights lack" in str(caught.value))


def test_a_kept_judge_is_trained_once(tmp_path, monkeypatch):
    monkeypatch.setenv("AIMFAIR_HOME", str(empty_home(tmp_path)))
    trained, images = [], toy_faces().images
    first, again = (
        judges.kept_judge("test", lambda: trained.append(1) or train(counts=(4,) * 4, epochs=1)) for _ in range(2)
    )
    assert trained == [1] and torch.equal(first.logits(images), again.logits(images))


def test_a_study_is_judged_by_the_shipped_judge_or_by_clip_alone(clip, tmp_path, monkeypatch):
    monkeypatch.setenv("AIMFAIR_HOME", str(empty_home(tmp_path)))
    utkface = profiles.load("utkface")
    judge = audit.judge_of(utkface)
    assert {"Female", "White"} <= set(judge.attributes) and judge.size == 64
    assert audit.judge_identity(utkface).startswith("fairface@") and not list((home() / "data").glob("cache/judge*"))
    first, second = audit.choose_judges(study.open_study("smoke", device="cpu"), str(clip))
    assert isinstance(first, classifier.Classifier) and isinstance(second, judges.Clip)
    celeba = study.open_study("celeba-smiling-male", device="cpu")
    first, second = audit.choose_judges(celeba, str(clip))
    assert isinstance(first, judges.Clip) and second is None
    with pytest.raises(audit.NoJudge):
        audit.choose_judges(celeba)


def test_the_judges_of_the_shipped_corpora_keep_their_identity():
    """Runs on selected faces are found by it."""
    assert audit.judge_identity(profiles.load("demo")) == "faceworld@e0963044"
    assert audit.judge_identity(profiles.load("celeba-smiling-male")) == "celeba-64"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda judge, clip: classifier.load_classifier(clip / "none.safetensors"), "no classifier at"),
        (lambda judge, clip: judge.column("Happy"), "no 'Happy', only Bar, Red"),
        (lambda judge, clip: judges.load_clip(clip).column("Happy"), "no 'Happy', only Smiling, Male"),
        (lambda judge, clip: judges.load_clip("no-such-folder"), "no folder no-such-folder"),
        (lambda judge, clip: judges.load_clip(clip / "tokenizer"), "the CLIP model .* cannot be read"),
        (
            lambda judge, clip: classifier.train_classifier(toy_faces().images, torch.zeros(32, 2), ("a", "b", "c")),
            "32 images and 3 attributes",
        ),
        (lambda judge, clip: audit.judge_of(profiles.load("utkface", corpus="")), "names no corpus .*--clip FOLDER"),
        (
            lambda judge, clip: audit.judge_of(profiles.load("celeba-smiling-male")),
            "learns from celeba, which is not here: .*set corpus_root to the folder .*, or have CLIP",
        ),
    ],
)
def test_bad_input_gives_one_line_that_says_what_is_wrong(judge, clip, wrong, says):
    with pytest.raises(AimfairError, match=says) as caught:
        wrong(judge, clip)
    assert "\n" not in str(caught.value)
