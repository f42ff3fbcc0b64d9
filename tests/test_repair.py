"""aimfair.repair: any classifier of images and any batches, by the very steps of the book's methods."""

import json
import re
import shlex
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from timm import create_model
from tiny_pipelines import stable_diffusion
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18
from toys import same, state, toy_faces

import aimfair
from aimfair import cli, repairing
from aimfair.environment import AimfairError, home
from aimfair.models import as_input, build
from aimfair.practice import job, synthetic
from aimfair.practice.evaluation import evaluate
from aimfair.practice.export import make_classifier
from aimfair.practice.job import WRITTEN, Job, run
from aimfair.practice.synthetic import draw_sets, look_at
from aimfair.training import Schedule

QUICK = {"epochs": 1, "batch_size": 16, "device": "cpu"}


def dataset(counts=(8, 8, 8, 8), seed=0, classes=2):
    """Toy faces as a user has them: normalised tensors with targets, of which some are made a third class."""
    faces = toy_faces(counts, seed)
    target = torch.where((faces.groups == 3) & (classes == 3), 2, faces.target)
    return TensorDataset(as_input(faces.images), target)


REAL, BIASED, BALANCED, HELD = (
    dataset(c, s) for s, c in enumerate([(4, 12, 12, 4), (4, 12, 12, 4), (8,) * 4, (8,) * 4])
)


def tiny_cnn(outputs=1):
    """A convolution, a batch norm, a dropout and a last layer."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 5, 4), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.1)
    return nn.Sequential(*layers, nn.Linear(16, outputs))


def of_transformers():
    from transformers import ResNetConfig, ResNetForImageClassification

    return ResNetForImageClassification(
        ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", num_labels=2)
    )


MODELS = {
    "torchvision, one logit": lambda: resnet18(num_classes=1),
    "torchvision, two logits": lambda: resnet18(num_classes=2),
    "timm, no batch norm": lambda: create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=1),
    "transformers": of_transformers,
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_classifier_of_any_library_learns_its_mask_and_nothing_else(make):
    model = make()
    before, names = state(model), [name for name, _ in model.named_parameters()]
    found = aimfair.repair(model, REAL, BIASED, BALANCED, HELD, k=45, **QUICK)
    assert same(state(model), before) and [*found.domain_gap] == [*found.bias_gap] == names
    after = found.model.state_dict()
    assert {name for name in names if not torch.equal(before[name], after[name])} == found.mask
    assert 0 < len(found.mask) < len(names) and found.history.chosen == 0 and len(found.history.loss) == 1


def test_the_books_aim_fair_is_the_same_function():
    """On the book's faces and network: the gaps, the mask and every weight of the steps that its methods take."""
    sets = [toy_faces(c, s) for s, c in enumerate([(4, 12, 12, 4), (4, 12, 12, 4), (8,) * 4, (8,) * 4])]
    model, schedule = build("resnet18-slim", 0), Schedule(epochs=2, batch_size=16, milestones=(), ties="first")
    gaps = repairing.gradient_gaps(model, *sets[:3], seed=5, mode="train", batch_size=16)
    steps = build("resnet18-slim", 0)
    history = repairing.finetune(steps, *sets[2:], schedule, 5, mask=repairing.choose_mask(*gaps, 55))
    found = aimfair.repair(model, *sets, seed=5, **QUICK | {"epochs": 2})
    assert (found.domain_gap, found.bias_gap) == gaps and same(state(found), state(steps))
    assert replace(found.history, seconds=0) == replace(history, seconds=0)


def test_batches_datasets_and_loaders_give_what_their_images_give():
    model, loader = tiny_cnn(), DataLoader(BALANCED, 16)
    model[5].p = 0.0  # a loader takes a random number for itself, and dropout then has others
    batches = [BALANCED[:16], BALANCED[16:]]
    first, second, third = (
        state(aimfair.repair(model, REAL, BIASED, given, seed=3, **QUICK)) for given in (loader, loader, batches)
    )
    assert same(first, second) and all(torch.allclose(first[name], third[name], atol=1e-5) for name in first)
    again, other = (state(aimfair.repair(model, REAL, BIASED, BALANCED, seed=seed, **QUICK)) for seed in (3, 4))
    assert not same(again, other)


def test_more_than_two_classes():
    sets = [dataset((8, 8, 8, 8), seed, classes=3) for seed in range(4)]
    found = aimfair.repair(tiny_cnn(3), *sets, k=62, **QUICK)
    assert found.history.validation_accuracy and len(found.mask) == 6


@pytest.mark.parametrize("batchnorm", ["train", "keep", "re-estimate"])
def test_running_statistics_follow_stay_or_are_those_of_the_real_images(batchnorm):
    model = tiny_cnn()
    found = state(aimfair.repair(model, REAL, BIASED, BALANCED, batchnorm=batchnorm, **QUICK))
    assert torch.equal(found["1.running_mean"], model.state_dict()["1.running_mean"]) == (batchnorm == "keep")
    if batchnorm == "re-estimate":
        head = nn.Conv2d(3, 4, 5, 4)
        head.load_state_dict({"weight": found["0.weight"], "bias": found["0.bias"]})
        assert torch.allclose(found["1.running_mean"], head(REAL.tensors[0]).mean((0, 2, 3)), atol=1e-3)


def test_own_loss_optimiser_schedule_and_selection():
    model, asked = tiny_cnn(), []

    def loss(logits, target):
        asked.append(len(target))
        return nn.functional.binary_cross_entropy_with_logits(logits, target.float())

    how = {"loss": loss, "optimiser": torch.optim.AdamW, "lr": 1e-3, **QUICK | {"epochs": 3}}
    how["scheduler"] = lambda optimiser: torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.0)
    found = aimfair.repair(model, None, None, BALANCED, selection={"6.weight"}, **how)
    once = aimfair.repair(model, None, None, BALANCED, selection={"6.weight"}, **how | {"epochs": 1})
    assert found.mask == {"6.weight"} and found.domain_gap == {} and asked == [16, 16] * 4
    assert torch.equal(found.model[6].weight, once.model[6].weight)  # the rate falls to nothing after an epoch
    assert not torch.equal(found.model[6].weight, model[6].weight) and torch.equal(found.model[6].bias, model[6].bias)


def test_what_the_user_froze_stays_frozen():
    model = tiny_cnn()
    model[0].requires_grad_(False)
    found = aimfair.repair(model, REAL, BIASED, BALANCED, selection="all", **QUICK)
    assert found.mask == {"1.weight", "1.bias", "6.weight", "6.bias"} and {*found.bias_gap} == found.mask
    assert torch.equal(found.model[0].weight, model[0].weight) and not found.model[0].weight.requires_grad


def test_the_learning_rate_is_chosen_by_validation_and_one_that_diverges_is_no_good():
    found = aimfair.repair(tiny_cnn(), REAL, BIASED, BALANCED, HELD, lr=[1e30, 0.1, 1e-6], selection="all", **QUICK)
    one = aimfair.repair(tiny_cnn(), REAL, BIASED, BALANCED, HELD, lr=found.lr, selection="all", **QUICK)
    assert found.lr in (0.1, 1e-6) and same(state(found), state(one))


def test_a_stopped_repair_goes_on_where_it_was(tmp_path, monkeypatch):
    from aimfair import training

    how = {"optimiser": torch.optim.Adam, "resume": tmp_path / "half.safetensors", **QUICK | {"epochs": 4}}
    unbroken = aimfair.repair(tiny_cnn(), REAL, BIASED, BALANCED, HELD, **how)
    epochs, usual = iter(range(9)), training.train_epoch
    monkeypatch.setattr(training, "SECONDS_BETWEEN", -1.0)
    with monkeypatch.context() as stopped, pytest.raises(KeyboardInterrupt):
        stopped.setattr(
            training,
            "train_epoch",
            lambda *a: usual(*a) if next(epochs) < 2 else (_ for _ in ()).throw(KeyboardInterrupt),
        )
        aimfair.repair(tiny_cnn(), REAL, BIASED, BALANCED, HELD, **how)
    assert how["resume"].exists()
    assert same(state(aimfair.repair(tiny_cnn(), REAL, BIASED, BALANCED, HELD, **how)), state(unbroken))


X, Y = BALANCED.tensors
FROZEN, NAN = tiny_cnn().requires_grad_(False), tiny_cnn()
NAN[6].bias.data.fill_(torch.nan)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": FROZEN}, "every parameter of the model is frozen"),
        ({"model": NAN}, "logits are not finite"),
        ({"model": nn.Conv2d(3, 1, 1)}, "one logit or K logits per image: of 16 it makes \\(16, 1, 32, 32\\)"),
        ({"balanced": TensorDataset(X, Y + 5)}, "balanced synthetic images: targets must be 0 to 1"),
        ({"balanced": TensorDataset(X, 0 * Y)}, "balanced synthetic images: every target is 0"),
        ({"balanced": TensorDataset(127 + 127 * X, Y)}, "are not normalised"),
        ({"balanced": [(X, torch.stack([Y, Y], 1))]}, "32 images with targets of shape"),
        ({"balanced": [X]}, "must be a pair"),
        ({"balanced": []}, "there are no images"),
        ({"real": iter([(X, Y)])}, "used up after one pass"),
        ({"real": None}, "needs the real training images"),
        ({"selection": {"6.weights"}}, "tensors that the model does not have"),
        ({"selection": set()}, "the mask is empty"),
        ({"selection": "some"}, "selection must be"),
        ({"batchnorm": "eval"}, "batchnorm must be"),
        ({"lr": [0.1, 0.2]}, "give validation images"),
        ({"lr": 1e30}, "loss is not finite"),
    ],
)
def test_bad_input_is_told_in_one_line(change, says):
    given = {"model": tiny_cnn(), "real": REAL, "biased": BIASED, "balanced": BALANCED, "lr": 0.01} | change
    with pytest.raises(AimfairError, match=says) as error:
        aimfair.repair(**given, **QUICK)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu():
    found = aimfair.repair(tiny_cnn(), REAL, BIASED, BALANCED, HELD, **QUICK | {"device": "cuda"})
    assert not next(found.model.parameters()).is_cuda and found.history.loss


# --------------------------------------------------------------------------------- files on disk: `aimfair repair`

TINY = "timm:test_resnet"


def write_images(faces, folder, names):
    for image, name in zip(faces.images, names, strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Photographs that are biased in training and balanced in the test, with labels in words, and synthetic images."""
    folder, tables = tmp_path_factory.mktemp("files"), []
    for part, counts in {"train": (4, 12, 12, 4), "validation": (4, 4, 4, 4), "test": (10, 10, 10, 10)}.items():
        faces = toy_faces(counts, seed=len(part))
        names = [f"{name}.png" for name in faces.names]
        write_images(faces, folder / "photos", names)
        labels = {"file": names, "smile": np.array(["no", "yes"])[faces.target], "sex": faces.protected, "split": part}
        tables.append(pd.DataFrame(labels))
    pd.concat(tables).to_csv(folder / "labels.csv", index=False, sep=";")
    faces = toy_faces((10, 10, 10, 10), seed=9)
    groups = [f"{'yes' if t else 'no'}_{p}" for t, p in zip(faces.target, faces.protected, strict=True)]
    write_images(faces, folder / "faces", [f"{g}/{n}.png" for g, n in zip(groups, faces.names, strict=True)])
    return folder


def job_of(files, out, **changes):
    given = {
        "images": files / "photos",
        "labels": files / "labels.csv",
        "synthetic": files / "faces",
        "target": "smile",
    }
    quick = {"size": 32, "epochs": 1, "pretrain_epochs": 1, "batch_size": 16, "device": "cpu"}
    return Job(**given | quick | {"model": TINY, "out": out} | changes)


@pytest.fixture
def no_onnx(monkeypatch):
    monkeypatch.setattr(job, "write_onnx", lambda *_: "no ONNX here")


def test_a_repair_from_files_writes_the_model_its_report_its_card_and_what_it_says(files, tmp_path):
    said = run(job_of(files, tmp_path / "out", protected=("sex",)))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*WRITTEN, "biased.safetensors", "settings.json"}
    assert "Before and after, by sex" in said and "counted by sex" in said and "gives the same logits" in said
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert len(table) == 40 and {*table["before"], *table["after"]} <= {"no", "yes"}
    before, after = (load_file(tmp_path / "out" / f"{name}.safetensors") for name in ("biased", "model"))
    changed = sum(not torch.equal(before[name], after[name]) for name in before)
    assert 0 < changed < len(before)
    again = make_classifier(TINY, 2, tmp_path / "out" / "model.safetensors").model
    assert same(state(again), after)
    card = (tmp_path / "out" / "card.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["pipeline_tag"] == "image-classification" and "| EO max" in card
    assert "EO max" in (tmp_path / "out" / "report.html").read_text()
    report = evaluate(tmp_path / "out" / "predictions.csv", "smile", "after", ["sex"])
    assert "By sex" in report
    assert run(job_of(files, tmp_path / "out", protected=("sex",))).startswith("The repair is done")
    with pytest.raises(AimfairError, match="other settings"):
        run(job_of(files, tmp_path / "out"))


def test_without_protected_labels_the_report_says_what_cannot_be_known(files, tmp_path, no_onnx):
    torch.manual_seed(0)
    mine = make_classifier(TINY, 2, seed=5).model
    save_file(mine.state_dict(), tmp_path / "mine.safetensors")
    said = run(job_of(files, tmp_path / "out", weights=tmp_path / "mine.safetensors"))
    assert "cannot be known" in said and "EO max" not in said and "No protected label says" in said
    assert not (tmp_path / "out" / "biased.safetensors").exists()


def test_a_model_with_two_logits_is_known_by_its_weights(tmp_path):
    for outputs in (1, 2):
        save_file(create_model("test_resnet", num_classes=outputs).state_dict(), tmp_path / "mine.safetensors")
        assert make_classifier(TINY, 2, tmp_path / "mine.safetensors").model.num_classes == outputs
    assert make_classifier(TINY, 3).model.num_classes == 3


def test_a_stopped_job_goes_on_with_the_biased_model_it_had_trained(files, tmp_path, no_onnx, monkeypatch):
    unbroken = run(job_of(files, tmp_path / "whole"))
    with monkeypatch.context() as stopped, pytest.raises(KeyboardInterrupt):
        stopped.setattr(job, "repair", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        run(job_of(files, tmp_path / "out"))
    monkeypatch.setattr(job, "fit", None)  # it is not trained again
    assert run(job_of(files, tmp_path / "out")).replace(str(tmp_path / "out"), "") == unbroken.replace(
        str(tmp_path / "whole"), ""
    )


def test_a_generator_draws_what_a_bank_of_sentences_asks_for_once(files, tmp_path, no_onnx, monkeypatch):
    bank = {f"{c}_{g}": [f"Photo of one who is {c} and {g}."] for c in ("no", "yes") for g in ("1", "2", "new")}
    (tmp_path / "bank.json").write_text(json.dumps(bank))
    given = {"synthetic": None, "generator": str(stable_diffusion(tmp_path)), "prompts": tmp_path / "bank.json"}
    given |= {"per_group": 3, "steps": 1, "guidance": 1.5}
    with monkeypatch.context() as stopped, pytest.raises(KeyboardInterrupt):
        stopped.setattr(job, "repair", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        run(job_of(files, tmp_path / "out", **given))
    monkeypatch.setattr(synthetic, "load_pipeline", None)  # nothing is drawn again
    said = run(job_of(files, tmp_path / "out", **given))
    assert len([*(tmp_path / "out" / "faces").glob("*_*/*.png")]) == 18 and "18 balanced" in said
    assert (tmp_path / "out" / "faces" / "yes_new" / "00002.png").exists()


def test_copies_and_what_is_there_twice_are_seen():
    drawn, photographs = toy_faces((5, 5, 5, 5), seed=1).images, toy_faces((9, 9, 9, 9), seed=2).images
    drawn[0], drawn[1] = drawn[19], photographs[7]
    groups = pd.DataFrame({"class": ["a"] * 10 + ["b"] * 10, "group": (["x"] * 5 + ["y"] * 5) * 2})
    found = look_at(drawn, groups, photographs).set_index(["class", "group"])
    assert found["twice"].tolist()[:4] == [20, 0, 0, 20] and found["copies"].tolist()[:4] == [20, 0, 0, 0]
    assert found.index[-1][0] == "photographs" and 0 <= found["faces"].min() <= 100


def test_sets_have_the_shares_of_the_real_images_or_equal_groups():
    groups = pd.DataFrame({"class": ["0", "0", "1", "1"] * 90, "group": ["a", "b"] * 180})
    shares = pd.Series([0.05, 0.45, 0.45, 0.05], pd.MultiIndex.from_product([["0", "1"], ["a", "b"]]))
    biased, balanced = (groups.iloc[places].value_counts() for places in draw_sets(groups, shares, seed=1))
    assert biased.loc["0", "b"] == biased.loc["1", "a"] == 90 and biased.loc["0", "a"] == 10
    assert {*balanced} == {90}


DRAWN = {"synthetic": None, "generator": "nowhere"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "resnet18"}, "timm:NAME or torchvision:NAME"),
        ({"model": "timm:nothing18"}, "timm makes no model 'nothing18'"),
        ({"target": "smiles"}, "has no column smiles; it has: file, smile, sex, split"),
        ({"protected": ("race",)}, "has no column race"),
        ({"images": "nowhere"}, "no such folder"),
        ({"synthetic": "nowhere"}, "no such folder"),
        ({"synthetic": "photos"}, "has no image in {class}_{group}/"),
        ({"synthetic": "lacking"}, "has no image in yes_1/"),
        ({"synthetic": None}, "--synthetic FOLDER, or --generator NAME and --prompts FILE"),
        ({**DRAWN, "prompts": "labels.csv"}, "labels.csv cannot be read .*: mend it"),
        ({**DRAWN, "prompts": "other.json"}, "maybe_1 is no {class}_{group} .* of the classes \\['no', 'yes'\\]"),
        ({**DRAWN, "prompts": "bank.json", "generator": "no/where"}, "give --steps and --guidance"),
        ({**DRAWN, "prompts": "bank.json", "steps": 1}, "no prompt for group \\(yes, 1\\) of the bank"),
        ({"weights": "nowhere"}, "no weights at"),
        ({"weights": "other.safetensors"}, "does not fit: .* tensors differ from timm:test_resnet"),
        ({"labels": "one.csv"}, "every smile is yes"),
        ({"labels": "others.csv"}, "none of them is there"),
        ({"labels": "unsplit.csv"}, "the validation images are none, or all of one smile"),
    ],
)
def test_bad_files_are_told_in_one_line_and_nothing_is_written(files, tmp_path, change, says):
    labels = pd.read_csv(files / "labels.csv", sep=";")
    labels.assign(smile="yes").to_csv(files / "one.csv", index=False)
    labels.assign(file=labels["file"] + ".gif").to_csv(files / "others.csv", index=False)
    labels.assign(split="train").to_csv(files / "unsplit.csv", index=False)
    save_file({"fc.weight": torch.zeros(2, 2)}, files / "other.safetensors")
    (files / "bank.json").write_text(json.dumps({"no_0": ["a"], "no_1": ["b"], "yes_0": ["c"]}))
    (files / "other.json").write_text(json.dumps({"no_0": ["a"], "maybe_1": ["b"]}))
    for group in ("no_0", "no_1", "yes_0"):
        (files / "lacking" / group).mkdir(parents=True, exist_ok=True)
        shutil.copy(next((files / "faces" / group).iterdir()), files / "lacking" / group / "a.png")
    paths = ("images", "labels", "synthetic", "weights", "prompts")
    given = {name: files / value if name in paths and value else value for name, value in change.items()}
    with pytest.raises(AimfairError, match=says) as error:
        run(job_of(files, tmp_path / "out", **given))
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_the_worked_example_of_the_page_runs(tmp_path, monkeypatch):
    """Its Python as it stands, on a tenth of the faces and for an epoch; its commands as the parser takes them."""
    page = (home() / "book" / "repair_your_own.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.S))
    small = re.sub(r"\b(\d+)0(?=[,)])", r"\1", code.replace("epochs=8", "epochs=1")).replace("64)", "32)")
    monkeypatch.chdir(tmp_path)
    ran = {"tiny": tiny_cnn}
    exec(small.replace("resnet18(num_classes=1)", "tiny()"), ran)
    assert (tmp_path / "repaired.pt").exists() and ran["repaired"].mask
    for command in re.findall(r"python -m aimfair (.*?)\n(?!    )", page, re.S):
        cli.parser().parse_args(shlex.split(command.replace("\\\n", "")))
