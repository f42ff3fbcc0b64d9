"""Profiles: every shipped one loads; every mistake is named before anything is trained."""

import dataclasses

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
def test_every_shipped_profile_loads_under_its_own_name(name):
    profile = profiles.load(name)
    assert profile.profile == name
    assert sum(profile.shares()) == pytest.approx(1)


@pytest.mark.parametrize("name", profiles.available())
def test_every_shipped_profile_has_prompts_for_all_its_groups(name):
    profile = profiles.load(name)
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


def test_the_shares_are_the_papers():
    assert profiles.load("demo").shares() == pytest.approx((0.05, 0.45, 0.45, 0.05))


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
    ("changes", "said"),
    [
        ({"traim_images": 5}, "unknown key 'traim_images'; allowed are: profile, dataset"),
        ({"train_images": "many"}, "train_images must be int, got 'many'"),
        ({"train_images": True}, "train_images must be int, got True"),
        ({"train_images": 0}, "train_images must be above 0"),
        ({"minority": 1.5}, "minority must be a ratio above 0, at most 1"),
        ({"assumed_minority": -0.1}, "assumed_minority must be a ratio, at most 1, or 0 for the true one"),
        ({"synthetic_ratio": 0.0}, "synthetic_ratio must be above 0"),
        ({"pretrain_lr": float("inf")}, "pretrain_lr must be a finite number, got inf"),
        ({"guidance": float("nan")}, "guidance must be a finite number, got nan"),
        ({"backbone": "vgg"}, "backbone must be one of resnet18"),
        ({"backbone": "vit-s-32"}, "image_size must be 224 for vit-s-32, got 64"),
        ({"dataset": "lfw"}, "dataset must be one of celeba"),
        ({"target": "Male"}, "target must be another attribute than protected"),
        ({"prompts": "poetic"}, "prompts must be one of contextual"),
    ],
)
def test_each_mistake_is_named_with_what_is_allowed(changes, said):
    with pytest.raises(AimfairError) as error:
        profiles.load("demo", **changes)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_an_integer_is_a_fine_float():
    assert profiles.load("demo", guidance=4).guidance == 4.0


def test_files_of_ones_own(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("train_images: 100\nseed: 3\n")
    assert profiles.load(str(file)).profile == "mine"
    file.write_text("- a\n- list\n")
    with pytest.raises(AimfairError, match="one flat mapping"):
        profiles.load(str(file))
    file.write_text("a: [")
    with pytest.raises(AimfairError, match="not valid YAML"):
        profiles.load(str(file))
    with pytest.raises(AimfairError, match=r"no profile 'dmeo'; there are: .*demo"):
        profiles.load("dmeo")


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
