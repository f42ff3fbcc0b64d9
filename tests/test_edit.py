"""Editing: each face an edit of its own, decided without its protected label, the same however it is drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from aimfair import datasets, environment, prompts, study
from aimfair.environment import AimfairError
from aimfair.faces import FaceSet
from aimfair.generate import edit
from aimfair.generate.classifier import Classifier, load_classifier
from aimfair.generate.manifest import read_manifest
from aimfair.generate.pipelines import load_pipeline
from aimfair.study import profiles
from aimfair.study.pool import edited_faces

PAIR = "Smiling_Male"
BANK = prompts.bank(f"faceworld/{PAIR}")
MODEL = environment.home() / "data" / "tiny-sd" / "faceworld"


@pytest.fixture(scope="module")
def real() -> FaceSet:
    """A dozen real-style faces of each group."""
    world = datasets.load("faceworld", train=300, validation=0, test=0, corpus=0)
    group = 2 * world.labels("Smiling") + world.labels("Male")
    rows = np.concatenate([np.flatnonzero(group == g)[:12] for g in range(4)])
    return world.faces(rows, "Smiling", "Male", 64)


@pytest.fixture(scope="module")
def pipeline():
    return load_pipeline(MODEL)


@pytest.fixture(scope="module")
def judge() -> Classifier:
    return load_classifier(MODEL.parent / "judge.safetensors")


def plan(faces, draw=0, steps=8, weakest=0.4, strongest=0.8):
    return edit.edits(faces.without_protected(), BANK, PAIR, draw, steps, weakest, strongest)


def redraw(pipeline, faces, todo, folder, steps=8, batch_size=32):
    settings = {"steps": steps, "guidance": 4.0, "size": faces.images.shape[-1], "batch_size": batch_size}
    edit.edit(pipeline, faces, todo, folder, **settings)
    return edit.read_edits(faces, todo, folder)


def change(edited, faces):
    return (edited.images.float() - faces.images.float()).abs().mean().item()


def test_a_face_is_edited_in_the_same_way_in_every_set(real):
    whole, part = plan(real), plan(real.subset(range(40, 9, -1)))
    by_face = {edit.face: edit for edit in whole}
    assert [replace(by_face[edit.face], number=edit.number) for edit in part] == part
    assert [edit.face for edit in part] == list(real.names[40:9:-1])
    other = real.images.clone()
    other[0, 0, 0, 0] ^= 1
    moved = plan(replace(real, images=other))
    assert moved[0].path != whole[0].path and moved[1:] == whole[1:]  # another picture under the same name


def test_the_protected_label_of_a_face_plays_no_part(real):
    turned = replace(real, protected=1 - real.protected)
    arguments = (BANK, PAIR, 0, 8, 0.4, 0.8)
    without = edit.edits(real.without_protected(), *arguments)
    assert edit.edits(real, *arguments) == edit.edits(turned, *arguments) == without
    asked = torch.tensor([edit.protected for edit in without])
    assert 0.25 < asked.double().mean() < 0.75
    assert 0.25 < (asked == real.protected).double().mean() < 0.75


def test_prompts_name_the_target_that_the_face_has_and_two_draws_ask_for_opposite_values(real):
    first, second = plan(real, 0), plan(real, 1)
    texts = {prompt.text: (prompt.target, prompt.protected) for prompt in BANK}
    for a, b, target in zip(first, second, real.target.tolist(), strict=True):
        assert texts[a.prompt] == (target, a.protected) and texts[b.prompt] == (target, b.protected)
        assert a.protected + b.protected == 1
    assert len({edit.seed for edit in first + second}) == len({edit.path for edit in first + second}) == 2 * len(real)
    assert len({edit.prompt for edit in first}) > 20 and {edit.strength for edit in first} == {0.5, 0.625, 0.75}


def test_strengths_are_what_the_steps_allow():
    assert edit.strengths(8, 0.4, 0.8) == [0.5, 0.625, 0.75]
    assert edit.strengths(2, 0.6, 0.8) == [0.5] and edit.strengths(1, 0.1, 0.2) == [1.0]
    assert edit.strengths(3, 1 / 3, 1) == [0.3333, 0.6667, 1.0]
    for wrong in ((0.0, 0.5), (0.8, 0.4), (0.5, 1.1)):
        with pytest.raises(AimfairError, match="strengths of edits lie above 0"):
            edit.strengths(8, *wrong)


def test_neither_the_batch_size_nor_an_interruption_changes_an_edit(pipeline, real, tmp_path):
    faces = real.subset(range(0, 48, 6))
    todo = plan(faces, steps=4, weakest=0.25, strongest=0.75)
    whole = redraw(pipeline, faces, todo, tmp_path / "8", steps=4, batch_size=8)
    one = redraw(pipeline, faces, todo, tmp_path / "1", steps=4, batch_size=1)
    redraw(pipeline, faces.subset(range(3)), todo[:3], tmp_path / "parts", steps=4, batch_size=2)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").rglob("*.png")}
    parts = redraw(pipeline, faces, todo, tmp_path / "parts", steps=4, batch_size=3)
    for other in (one, parts):
        assert (whole.images.int() - other.images.int()).abs().max() <= 1
        assert torch.equal(whole.protected, other.protected) and (whole.names == other.names).all()
    assert len(kept) == 3 and all(path.stat().st_mtime_ns == at for path, at in kept.items())
    rows = read_manifest(tmp_path / "parts").set_index("path")
    assert len(rows) == 8 and set(rows["face"]) == set(faces.names)
    assert all(rows.loc[edit.path, name] == getattr(edit, name) for edit in todo for name in ("strength", "seed"))


def test_an_edit_begins_at_the_autoencoders_reconstruction_and_leaves_less_of_the_face_the_stronger_it_is(
    pipeline, real, tmp_path
):
    faces = real.subset(range(0, 48, 6))
    with torch.inference_mode():
        latents = pipeline.vae.encode(faces.images.float() / 127.5 - 1).latent_dist.mode()
        decoded = pipeline.vae.decode(latents).sample
    reconstructed = replace(faces, images=((decoded + 1) * 127.5).clamp(0, 255).round().to(torch.uint8))
    away = []
    for steps, strength in ((1000, 0.001), (8, 0.25), (8, 0.625), (8, 1.0)):
        todo = plan(faces, steps=steps, weakest=strength, strongest=strength)
        away.append(change(redraw(pipeline, faces, todo, tmp_path / str(strength), steps=steps), reconstructed))
    assert away == sorted(away) and away[0] < 4 and away[3] > 20, away


def test_edits_show_the_target_of_the_face_and_the_protected_value_of_the_prompt(pipeline, judge, real, tmp_path):
    faces = real.subset(range(0, 48, 2))
    edited = redraw(pipeline, faces, plan(faces), tmp_path)
    assert torch.equal(edited.target, faces.target)
    labels = torch.stack([edited.target, edited.protected], 1)
    seen = judge.logits(edited.images)[:, [judge.column("Smiling"), judge.column("Male")]] >= 0
    target, protected = (seen == labels.bool()).double().mean(0).tolist()
    flipped = edited.protected != faces.protected
    assert target > 0.8 and protected > 0.8
    assert flipped.sum() > 5 and (seen[flipped, 1] == edited.protected[flipped]).double().mean() > 0.75


def test_a_face_whose_edit_is_not_there_stays_as_it_was_and_other_sizes_are_resized_on_the_way(
    pipeline, real, tmp_path
):
    half = replace(real.subset([0, 20, 40]), images=real.images[[0, 20, 40], :, ::2, ::2])
    todo = plan(half, steps=2)
    drawn = redraw(pipeline, half.subset([0, 2]), [todo[0], todo[2]], tmp_path, steps=2)
    assert drawn.images.shape == (2, 3, 32, 32)
    same = (edit.read_edits(half, todo, tmp_path).images == half.images).flatten(1).all(1)
    assert same.tolist() == [False, True, False]


def test_what_cannot_be_edited_is_refused(pipeline, real, tmp_path):
    from diffusers import DDPMPipeline, DDPMScheduler

    plain = DDPMPipeline(pipeline.unet, DDPMScheduler())
    plain.source, plain.preset, plain.scheduler_name = pipeline.source, pipeline.preset, "DDPMScheduler"
    with pytest.raises(AimfairError, match="DDPMPipeline has no image-to-image form"):
        redraw(plain, real.subset([0]), plan(real.subset([0])), tmp_path)
    with pytest.raises(AimfairError, match=r"no prompt for group \(1, [01]\) of Smiling_Male"):
        edit.edits(real, [p for p in BANK if p.target == 0], PAIR, 0, 8, 0.4, 0.8)
    with pytest.raises(AimfairError, match="images from folder:some/where, and a folder cannot edit"):
        edited_faces(profiles.load("smoke", generator="folder:some/where"), real)


def test_a_study_edits_its_training_faces_once(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    for name in ("notebooks", "data/prompts", "data/tiny-sd"):
        (tmp_path / name).symlink_to(environment.home() / name)
    monkeypatch.setenv("AIMFAIR_HOME", str(tmp_path))
    changes = {"train_images": 16, "image_size": 64}
    first = study.open_study("smoke", changes=changes, device="cpu", runs_root=str(tmp_path / "runs"))
    edited = first.edited(0, 0.4, 0.8)
    assert first.edited(0, 0.4, 0.8) is edited
    assert torch.equal(edited.target, first.faces("train").target) and change(edited, first.faces("train")) > 5
    drawn = {path: path.stat().st_mtime_ns for path in (tmp_path / "data" / "synthetic").rglob("*.png")}
    again = study.open_study("smoke", changes=changes | {"train_images": 8}, device="cpu")
    theirs = again.edited(0, 0.4, 0.8)  # faces of the smaller set are among those of the larger
    place = {name: row for row, name in enumerate(edited.names)}
    assert torch.equal(theirs.images, edited.images[[place[name] for name in theirs.names]])
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "data" / "synthetic").rglob("*.png")}
    assert len(drawn) == 16 and drawn == after
