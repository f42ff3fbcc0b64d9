"""What is told of a pool: the probe sees a difference only where there is one; the autoencoder's passage keeps the form."""

import torch
from toys import toy_faces

from aimfair import audit, models
from aimfair.analysis import inspection
from aimfair.auditing import judges
from aimfair.faces import FaceSet
from aimfair.tiny_sd import autoencoder, corpora


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
