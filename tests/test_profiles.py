"""Profiles: every shipped one loads; every mistake is named before anything is trained."""

import dataclasses
import json

import pytest

from aimfair import prompts, sampling
from aimfair.environment import AimfairError
from aimfair.study import profiles


def notebook(**injected):
    """The variables of a notebook after its parameters cell and what papermill injected."""
    import torch

    common = {"profile": "demo", "seed": 100, "device": "auto", "data_root": "", "runs_root": "", "reuse": True}
    annotations = {"__annotations__": dict.fromkeys([*common, "k"], object)}
    return {"torch": torch, "In": [""], "Out": {}, "_": "", "k": 55} | annotations | common | injected


@pytest.mark.parametrize("name", profiles.available())
def test_every_shipped_profile_loads_under_its_own_name_and_has_prompts_for_all_its_groups(name):
    profile = profiles.load(name)
    assert profile.profile == name
    bank = prompts.bank(f"{profile.dataset}/{profile.task}", profile.prompts)
    assert {(p.target, p.protected) for p in bank} == {(0, 0), (0, 1), (1, 0), (1, 1)} and len(bank) == 200


TASKS = ("smiling-male", "smiling-young", "young-male", "male-young")


@pytest.mark.parametrize("name", [*(f"paper-celeba-{task}" for task in TASKS), "paper-utkface"])
def test_the_papers_protocol_at_its_own_scale(name):
    p = profiles.load(name)
    assert (p.generator, p.steps, p.guidance, p.image_size) == ("sd21-base", 50, 9.0, 224)
    assert p.images_per_group == 15 * 14 * 50 and (p.backbone, p.weights) == ("resnet18", "imagenet")
    assert sampling.quotas(p.train_images, p.minority) == (
        (500, 4500, 4500, 500) if p.dataset == "utkface" else (1000, 9000, 9000, 1000)
    )
    first, then = p.pretraining(), p.finetuning()
    assert (first.epochs, first.lr, first.milestones, first.crop_scale) == (15, 0.01, (10,), (0.08, 1.0))
    assert (then.epochs, then.milestones, then.ties, then.batch_size, p.seeds) == (10, (), "first", 128, 10)
    assert p.shares() == pytest.approx((0.05, 0.45, 0.45, 0.05))
    assert (first.momentum, first.weight_decay, first.gamma, first.ties) == (0.9, 1e-4, 0.1, "last")
    assert {(s.select, s.batchnorm) for s in (first, then)} == {("validation-accuracy", "train")}
    assert profiles.SEEDS == (100, 200, 300, 400, 500, 600, 700, 800, 900, 1000)


def test_photographs_have_a_small_study_for_each_task_of_the_paper():
    small = [profiles.load(f"celeba-{task}") for task in TASKS]
    assert [p.task.lower().replace("_", "-") for p in small] == list(TASKS)
    assert len({p.generator for p in small}) == 1


def test_changes_override_and_are_part_of_what_identifies_a_study():
    demo, changed = profiles.load("demo"), profiles.load("demo", train_images=800)
    assert changed.train_images == 800 and demo.settings() != changed.settings()
    assert demo.settings() == profiles.load("demo", seeds=3).settings()  # how many seeds decides no run's number


def test_an_assumption_changes_the_study_only_where_it_is_not_the_truth():
    demo = profiles.load("demo")
    same = profiles.load("demo", assumed_minority=1 / 9, synthetic_ratio=1)
    wrong, more = profiles.load("demo", assumed_minority=0.25), profiles.load("demo", synthetic_ratio=2.0)
    assert demo.settings() == same.settings() and not {"assumed_minority", "synthetic_ratio"} & demo.settings().keys()
    assert wrong.shares() == pytest.approx((0.1, 0.4, 0.4, 0.1)) and wrong.settings()["minority"] == 1 / 9
    assert wrong.settings() != demo.settings() != more.settings()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"traim_images": 5}, "unknown key 'traim_images'; allowed are: profile, dataset"),
        ({"train_images": "many"}, "train_images"),
        ({"train_images": True}, "train_images"),
        ({"train_images": "400"}, "train_images must be a number, got '400'"),
        ({"minority": "0.1"}, "minority must be a number, got '0.1'"),
        ({"target": 1}, "target"),
        ({"train_images": 0}, "train_images"),
        ({"minority": 1.5}, "minority"),
        ({"assumed_minority": -0.1}, "assumed_minority"),
        ({"synthetic_ratio": 0.0}, "synthetic_ratio"),
        ({"pretrain_lr": float("inf")}, "pretrain_lr"),
        ({"guidance": float("nan")}, "guidance"),
        ({"backbone": "vgg"}, "backbone must be 'resnet18'"),
        ({"backbone": "vit-s-32"}, "backbone needs image_size 224"),
        ({"dataset": "lfw"}, "dataset must be 'celeba'"),
        ({"target": "Male"}, "protected must be another attribute than target"),
        ({"prompts": "poetic"}, "prompts must be one of contextual"),
        ({"selection": "best"}, "selection must be 'none'"),
        ({"selected_per_group": 2001}, "selected_per_group"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(changes, name):
    with pytest.raises(AimfairError) as error:
        profiles.load("demo", **changes)
    assert str(error.value).startswith((f"parameter: {name}", f"demo.yaml: {name}")) and "\n" not in str(error.value)


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("train_images: many\nminority: 2\nspeed: 1\npretrain_lr: 1e-3\n")
    with pytest.raises(AimfairError) as error:
        profiles.load(str(file))
    assert sorted(line.split()[1] for line in str(error.value).splitlines()) == ["minority", "train_images", "unknown"]


def test_numbers_are_taken_as_they_are_meant(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("pretrain_lr: 1e-3\nguidance: 4\ntrain_images: 1E3\n")  # YAML takes two of them for text
    p = profiles.load(str(file), minority="+5.e-1")
    assert (p.pretrain_lr, p.guidance, type(p.guidance), p.minority) == (0.001, 4.0, float, 0.5)
    assert p.train_images == 1000 and type(p.train_images) is int


def test_the_schema_for_editors_is_current(tmp_path, monkeypatch):
    shipped = json.loads((profiles.folder() / "schema.json").read_text())
    monkeypatch.setattr(profiles, "folder", lambda: tmp_path)
    assert json.loads(profiles.write_schema().read_text()) == shipped
    assert profiles.FIELDS.keys() == shipped["properties"].keys()


def test_files_of_ones_own(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("train_images: 100\n")
    assert profiles.load(str(file)).profile == "mine"
    file.write_text("- a\n- list\n")
    with pytest.raises(AimfairError, match="one flat mapping"):
        profiles.load(str(file))
    file.write_text("a: [")
    with pytest.raises(AimfairError, match="mend it, as YAML"):
        profiles.load(str(file))
    with pytest.raises(AimfairError, match=r"no profile 'dmeo'; there are: .*demo"):
        profiles.load("dmeo")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed: 300", "seed: not of a profile, but of a run"),
        ("reuse: false\ndevice: cpu", "device, reuse: not of a profile"),
        ("runs_root: x", "runs_root: not of a profile"),
        ("1: 2", "unknown key '1'"),
        ("true: 2", "unknown key 'True'"),
        ("null: 2", "unknown key 'None'"),
        ("2020-01-01: 2", "unknown key '2020-01-01'"),
        ("minority: 0.5\nminority: 0.1", "given twice: minority"),
        ("train_images: '400'", "train_images must be a number, got '400'"),
        ("minority: ' 0.1'", "minority must be a number"),
        ("steps: [2]", "steps must be a valid integer, got [2]"),
        ("steps:", "steps must be a valid integer, got None"),
    ],
)
def test_every_key_of_a_file_is_honoured_or_refused(tmp_path, text, says):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(AimfairError) as error:
        profiles.load(str(tmp_path / "mine.yaml"))
    assert str(error.value).startswith(f"mine.yaml: {says}") and "\n" not in str(error.value)


def test_a_notebook_takes_fields_however_papermill_injected_them():
    profile, common = profiles.from_parameters(notebook(train_images=123, seed=300))
    assert profile.train_images == 123 and common["seed"] == 300


def test_a_whole_profile_injected_as_papermill_f_does():
    flat = dataclasses.asdict(profiles.load("smoke"))
    profile, _ = profiles.from_parameters(notebook(**flat))
    assert profile == profiles.load("smoke")


def test_a_misspelt_parameter_is_refused_though_papermill_would_inject_it():
    with pytest.raises(AimfairError, match=r"unknown parameter 'lr_rate'; allowed are: profile, seed, .*k, dataset"):
        profiles.from_parameters(notebook(lr_rate=0.1))
    with pytest.raises(AimfairError, match="seed must be int, got 'one'"):
        profiles.from_parameters(notebook(seed="one"))
