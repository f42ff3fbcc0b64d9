"""Files that are damaged, or only bear another's name: whoever reads them says so in one line, and what it is."""

import io
import json
import shutil
import tarfile
import zipfile

import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_runs import config, predictions
from toys import toy_faces

from aimfair import models, prompts, sampling, training
from aimfair.datasets import load
from aimfair.environment import AimfairError, home
from aimfair.generate.classifier import load_classifier
from aimfair.generate.manifest import read_settings
from aimfair.generate.tiny_sd import stage
from aimfair.study import profiles, runs
from aimfair.study.grid import costs

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
DAMAGES = {
    "nothing": (b"", "is empty"),
    "a pointer": (POINTER, "pointer of Git LFS"),
    "a web page": (b"\n<!DOCTYPE html>\n<html><body>404: Not Found</body></html>", "is a web page"),
    "half": (None, "."),
    "bytes": (b"\x00\xff\xfe\x93 no such thing \xe9\n" * 40, "."),
}


def picture():
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (9, 90, 200)).save(file, "PNG")
    return file.getvalue()


def faces_of(folder):
    for group in ("0_0", "0_1", "1_0", "1_1"):
        (folder / group).mkdir(parents=True)
        (folder / group / "a.png").write_bytes(picture())
    return folder


def folder_manifest(folder):
    file = faces_of(folder) / "manifest.csv"
    file.write_text("path,target,protected\n" + "".join(f"{t}_{p}/a.png,{t},{p}\n" for t in (0, 1) for p in (0, 1)))
    return file, lambda: load("folder", folder)


def folder_image(folder):
    file = faces_of(folder) / "1_0" / "a.png"
    return file, lambda: load("folder", folder).read(range(4), 8)


def utkface(folder, kind):
    folder.mkdir()
    file, member = folder / f"UTKFace.{kind}", "UTKFace/1_0_0_2017.jpg.chip.jpg"
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(member, picture())
    else:
        (folder / "one").write_bytes(picture() * 99)
        with tarfile.open(file, "w:gz") as archive:
            archive.add(folder / "one", member)
    return file, lambda: load("utkface", folder)


def fairface_list(folder):
    folder.mkdir()
    file = folder / "fairface_label_train.csv"
    file.write_text("file,age,gender,race\ntrain/1.jpg,3-9,Male,White\n")
    (folder / "train").mkdir()
    (folder / "train" / "1.jpg").write_bytes(picture())
    return file, lambda: load("fairface", folder)


def weights(folder, name):
    folder.mkdir()
    model = models.build("resnet18-slim", 1)
    if name.endswith("pth"):
        torch.save(model.state_dict(), folder / name)
    else:
        models.save(model, folder / name)
    return folder / name, lambda: models.build("resnet18-slim", 1, str(folder / name))


def judge(folder):
    folder.mkdir()
    shutil.copy(home() / "data" / "tiny-sd" / "judge.safetensors", folder / "judge.safetensors")
    return folder / "judge.safetensors", lambda: load_classifier(folder / "judge.safetensors")


def run_file(folder, name):
    stored = runs.store(folder, config(), predictions(), {"seconds": 1.0})
    everything = {"config.json": lambda: list(runs.all_runs(folder)), "scores.json": lambda: list(costs._mine(folder))}
    return stored.folder / name, everything.get(name, lambda: runs.load(stored.folder))


def published(folder, name):
    runs.publish([runs.store(folder / "runs", config(), predictions(), {})], folder, "toy")
    copy = folder / "again"  # of which nothing was read yet
    shutil.copytree(folder / "toy", copy / "toy")
    return copy / "toy" / name, lambda: list(runs.published_runs(copy, "toy", "erm"))


def split(folder):
    folder.mkdir()
    sampling.write_split(folder / "split.csv", {"train": ["a"], "test": ["b"]})
    return folder / "split.csv", lambda: sampling.read_split(folder / "split.csv")


def bank(folder):
    folder.mkdir()
    shutil.copy(prompts.path_of("faceworld/Smiling_Male"), folder / "bank.json")
    return folder / "bank.json", lambda: prompts.read_file(folder / "bank.json")


def profile(folder):
    folder.mkdir()
    shutil.copy(home() / "notebooks" / "profiles" / "smoke.yaml", folder / "own.yaml")
    return folder / "own.yaml", lambda: profiles.load(str(folder / "own.yaml"), seeds="x")  # half of it may be whole


def settings(folder):
    folder_manifest(folder)
    (folder / "settings.json").write_text(json.dumps({"steps": 3, "model": "toy", "more": "x" * 90}))
    return folder / "settings.json", lambda: read_settings(folder)


READERS = {
    "a manifest": folder_manifest,
    "an image": folder_image,
    "a zip": lambda folder: utkface(folder, "zip"),
    "a tar": lambda folder: utkface(folder, "tar.gz"),
    "a list": fairface_list,
    "safetensors": lambda folder: weights(folder, "own.safetensors"),
    "pth": lambda folder: weights(folder, "own.pth"),
    "a judge": judge,
    **{name: lambda folder, name=name: run_file(folder, name) for name in ("config.json", "scores.json")},
    "predictions.parquet": lambda folder: run_file(folder, "predictions.parquet"),
    "a batch": lambda folder: published(folder, "erm.0001.parquet"),
    "a list of faces": lambda folder: published(folder, "faces.parquet"),
    "a split": split,
    "a bank": bank,
    "a profile": profile,
    "settings": settings,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_or_foreign_file_is_told_in_one_line(reader, damage, tmp_path, monkeypatch):
    monkeypatch.setattr("aimfair.datasets._images.cache_folder", lambda: tmp_path / "cache")
    file, read = READERS[reader](tmp_path / "there")
    content, said = DAMAGES[damage]
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(AimfairError, match=said) as error:
        read()
    assert file.name in str(error.value) or reader in ("a profile", "an image"), error.value
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"state_dict": {}, "epoch": 3}, "no tensors by name but state_dict, epoch"),
        ([1, 2], "no tensors by name but list"),
        (torch.nn.Linear(2, 2), "cannot be read"),  # a whole model: unpickling it could run anything
        ({"conv1.weight": torch.zeros(3)}, "does not fit resnet18-slim"),
        (models.build("resnet18", 0).state_dict(), "does not fit resnet18-slim"),
    ],
)
def test_what_a_pth_file_may_hold_instead_of_the_networks_tensors(content, says, tmp_path):
    torch.save(content, tmp_path / "own.pth")
    with pytest.raises(AimfairError, match=says) as error:
        models.build("resnet18-slim", 1, str(tmp_path / "own.pth"))
    assert "\n" not in str(error.value)


def test_what_may_not_be_read_is_no_damage(tmp_path, monkeypatch):
    stored = runs.store(tmp_path, config(), predictions(), {})

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pd, "read_parquet", refuse)
    with pytest.raises(AimfairError, match="may not be read by this user") as error:
        runs.load(stored.folder)
    assert "delete" not in str(error.value)


def fitted(checkpoint):
    model, (train, validation) = models.build("resnet18-slim", 1), (toy_faces((8,) * 4, seed) for seed in (1, 2))
    history = training.fit(model, train, validation, training.Schedule(3, batch_size=8), 1, resume=checkpoint)
    return history.loss, model.state_dict()


@pytest.fixture
def half(tmp_path, monkeypatch):
    """The checkpoint of a training that was stopped after its first epoch."""
    save = training.Checkpoint.save

    def stop(self, *state):
        save(self, *state)
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(training, "SECONDS_BETWEEN", -1.0)
        killed.setattr(training.Checkpoint, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            fitted(tmp_path / "half.safetensors")
    return tmp_path / "half.safetensors"


@pytest.mark.parametrize("damage", [*DAMAGES, "another network", "no history"])
def test_a_damaged_checkpoint_is_dropped_and_the_training_begins_again(damage, half):
    if damage in DAMAGES:
        whole = half.read_bytes()
        half.write_bytes(whole[: len(whole) // 2] if DAMAGES[damage][0] is None else DAMAGES[damage][0])
    else:
        with safe_open(half, "pt") as opened:
            about = opened.metadata()
        changed = {"best/conv1.weight": torch.zeros(3)} if damage == "another network" else {}
        save_file(load_file(half) | changed, half, about if changed else {"settings": about["settings"]})
    with pytest.warns(UserWarning, match=r"half\.safetensors is damaged .*starts afresh"):
        loss, state = fitted(half)
    again, same = fitted(None)
    assert loss == again and all(torch.equal(value, same[name]) for name, value in state.items()) and not half.exists()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_of_the_generator_is_dropped_too(damage, tmp_path):
    def trained():
        layer = torch.nn.Linear(1, 1)
        torch.nn.init.zeros_(layer.weight)
        stage.train_stage(
            "s",
            layer,
            lambda i, _: layer(i[:, None] / 8).square().mean(),
            n=8,
            folder=tmp_path,
            batch_size=4,
            lr=0.1,
            steps=3,
        )
        return layer.weight.item()

    torch.manual_seed(0)
    first = trained()
    file = tmp_path / "s.pt"
    file.write_bytes(file.read_bytes()[:300] if DAMAGES[damage][0] is None else DAMAGES[damage][0])
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match=r"s\.pt is damaged: this stage starts afresh"):
        assert trained() == first
