"""What is told of a pool: the probe sees a difference only where there is one; the autoencoder's passage keeps the form."""

import torch
from toys import toy_faces

from aimfair import models
from aimfair.analysis import inspection
from aimfair.audit import judge as audit
from aimfair.audit import judges
from aimfair.faces import FaceSet
from aimfair.generate import corpora
from aimfair.generate.tiny_sd import autoencoder
from aimfair.study import profiles


def test_the_probe_tells_apart_what_differs_and_nothing_else():
    model = models.build("resnet18-slim", 1)
    one, other = toy_faces((50,) * 4, 1), toy_faces((50,) * 4, 2)
    darker = FaceSet((other.images * 0.5).to(torch.uint8), other.target, other.protected, other.names)
    assert 30 < inspection.probe(model, one, other) < 70
    assert inspection.probe(model, one, darker) > 90


def test_the_autoencoders_passage_gives_pictures_of_the_same_form_for_any_batch():
    vae, images = autoencoder.build(32), toy_faces((2,) * 4, 1).images[:, :, :32, :32]
    again = inspection.reconstruct(vae, images)
    assert again.shape == images.shape and again.dtype == torch.uint8
    one_by_one = inspection.reconstruct(vae, images, batch_size=1)
    assert (again.int() - one_by_one.int()).abs().max() <= 1


def test_the_corpus_judge_learns_and_keeps_every_tenth_face_back():
    faces = toy_faces((80,) * 4, 3)
    order = torch.randperm(len(faces), generator=torch.Generator().manual_seed(0))
    labels = torch.stack([faces.target, faces.protected], 1)[order]
    corpus = corpora.Corpus(faces.images[order], [""] * len(order), torch.ones(1, 1, 64, 64), labels, ("T", "P"))
    judge, held = judges.train_corpus_judge(corpus)
    assert held.tolist() == list(range(9, 320, 10)) and judge.attributes == ("T", "P")
    assert audit.agreement(judge, corpus.images[held], labels[held])["P"] > 90


def test_training_records_are_told_without_their_loss_curves():
    record = {"images": 3, "autoencoder": {"step": 2, "losses": [1.0, 0.5]}}
    assert inspection._short(record) == {"images": 3, "autoencoder": {"step": 2}}


def elsewhere(**changes):
    """A study whose synthetic faces no generator of this book drew."""
    return profiles.load("utkface", generator="folder:somewhere", **changes)


def test_faces_from_elsewhere_are_judged_by_the_shipped_judge_alone():
    pool, validation = toy_faces((9, 8, 7, 6), 1), toy_faces((5,) * 4, 2)
    model = models.build("resnet18-slim", 1)
    found = inspection.inspect(elsewhere(), pool, validation, model)
    assert found["training"] == {} and found["unjudged"] == ""
    assert set(found["judged"]) == {"validation faces", "synthetic faces"}
    assert [row["faces"] for row in found["groups"]] == [9, 8, 7, 6] and all("White" in row for row in found["groups"])
    large = FaceSet(
        pool.images.repeat_interleave(2, 2).repeat_interleave(2, 3), pool.target, pool.protected, pool.names
    )
    again = inspection.inspect(elsewhere(), large, validation, model)["judged"]["synthetic faces"]
    assert all(abs(again[name] - right) < 20 for name, right in found["judged"]["synthetic faces"].items())


def test_without_a_judge_the_faces_are_counted_and_it_is_said_why():
    pool, validation = toy_faces((9, 8, 7, 6), 1), toy_faces((5,) * 4, 2)
    found = inspection.inspect(elsewhere(corpus=""), pool, validation, models.build("resnet18-slim", 1))
    assert found["judged"] == {} and "names no corpus on which a judge" in found["unjudged"]
    assert [(row["target"], row["protected"], row["faces"]) for row in found["groups"]] == [
        (0, 0, 9), (0, 1, 8), (1, 0, 7), (1, 1, 6)
    ]  # fmt: skip
