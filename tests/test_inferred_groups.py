"""What JTT, EIIL and XRM share, that no hyper-parameter of the methods without group labels is without effect, and that
trainings of two networks go on after they were killed."""

from dataclasses import replace

import pytest
import torch
from toys import toy_faces

from aimfair import checkpoint, methods, models
from aimfair.environment import AimfairError
from aimfair.methods import Fitted, _inferred
from aimfair.methods._inferred import early_logits, group_dro, packed, unpacked
from aimfair.methods._pair import Pair
from aimfair.methods.lff import LearningFromFailure
from aimfair.methods.xrm import CrossRisk
from aimfair.training import History, fit


def smaller(faces):
    return replace(faces, images=faces.images[..., ::2, ::2])


@pytest.fixture(scope="module")
def undecided(bench):
    """Faces of half the size and a rate at which the first epochs leave faces of both classes right and wrong."""
    schedule = replace(bench.pretraining, lr=0.02)
    return replace(bench, train=smaller(bench.train), validation=smaller(bench.validation), pretraining=schedule)


def turned(bench, epochs):
    """The bench with so many epochs, and once more with the wrong target on every validation face."""
    longer = replace(bench, pretraining=replace(bench.pretraining, epochs=epochs))
    return longer, replace(longer, validation=replace(bench.validation, target=1 - bench.validation.target))


@pytest.mark.parametrize("n", [1, 8, 13, 120])
def test_a_mask_survives_packing(n):
    mask = torch.rand(n, generator=torch.Generator().manual_seed(n)) < 0.3
    assert torch.equal(unpacked(packed(mask), n), mask) and len(packed(mask)) == 2 * -(-n // 8)


def test_an_empty_environment_leaves_the_classes_and_a_note(bench):
    seen = bench.train.without_protected()
    part = replace(bench, train=seen, validation=bench.validation.without_protected())
    none, all_ = (
        group_dro(part, torch.full((len(seen),), value), part.validation, 0.01, "last", "test")
        for value in (False, True)
    )
    assert none.scores["groups"] == [60, 0, 60, 0] and all_.scores["groups"] == [0, 60, 0, 60]
    assert "environment 1 is empty" in none.scores["note"] and "environment 0 is empty" in all_.scores["note"]
    assert none.scores["group_weights"][1::2] == [0, 0] and none.history.loss == all_.history.loss


def test_a_first_model_needs_an_epoch(bench):
    with pytest.raises(AimfairError, match="at least 1 epoch"):
        early_logits(bench, 0, "test")


def test_the_first_model_is_that_of_its_last_epoch_whatever_the_validation_set_says(undecided):
    right, wrong = turned(undecided, 2)
    assert {methods.get("erm").fit(b, {}).history.chosen for b in (right, wrong)} == {0, 1}
    assert torch.equal(early_logits(right, 2, "test"), early_logits(wrong, 2, "test"))


def test_eiil_chooses_the_epoch_as_erm_does(undecided):
    eiil = methods.get("eiil")
    benches = turned(undecided, 2)
    assert {eiil.fit(b, eiil.hyper(reference_epochs=1)).history.chosen for b in benches} == {0, 1}


def test_inferred_groups_are_drawn_alike(bench, monkeypatch):
    given = {}
    monkeypatch.setattr(_inferred, "from_scratch", lambda *_, **how: given.update(how) or Fitted(None, History()))
    environment = torch.arange(120) < 12
    group_dro(bench, environment, bench.validation, 0.01, "last", "test")
    groups = 2 * bench.train.target + environment.long()
    drawn = torch.cat([given["order"](torch.Generator().manual_seed(seed)) for seed in range(50)])
    assert len(drawn) == 50 * 120 and (groups[drawn].bincount() / len(drawn) - 0.25).abs().max() < 0.03


@pytest.mark.parametrize(("name", "epochs"), [("eiil", "reference_epochs"), ("xrm", "twin_epochs")])
def test_group_weights_stay_uniform_without_a_step_and_move_with_a_large_one(undecided, name, epochs):
    method = methods.get(name)
    still, moved = (
        method.fit(undecided, method.hyper(**{epochs: 1, "eta": eta})).scores["group_weights"] for eta in (0.0, 10.0)
    )
    assert still == [0.25] * 4 and max(moved) > 0.3


@pytest.mark.parametrize(
    ("name", "usual", "changes"),
    [
        ("jtt", {"first_epochs": 1, "upweight": 3}, ({"first_epochs": 3}, {"added": True}, {"whole_epochs": True})),
        ("lff", {}, ({"q": 0.3}, {"decay": 0.2}, {"gce": "released"})),
        ("eiil", {"reference_epochs": 1, "split": "adam", "steps": 200, "lr": 0.05}, ({"steps": 1}, {"lr": 1e-6})),
        ("eiil", {"reference_epochs": 1}, ({"reference_epochs": 3},)),
        ("xrm", {"twin_epochs": 1}, ({"twin_epochs": 2},)),
        (
            "maple",
            {"rounds": 3, "inner_steps": 5},
            ({"outer": "balanced"}, {"inner_steps": 3}, {"outer_lr": 0.01}, {"anneal_from": 0.9}),
        ),
    ],
    ids=["jtt", "lff", "eiil-adam", "eiil", "xrm", "maple"],
)
def test_no_hyper_parameter_is_without_effect(undecided, name, usual, changes):
    method = methods.get(name)
    twice = turned(undecided, 2 if name == "lff" else 1)[0]  # a running average needs a second visit

    def outcome(changed):
        fitted = method.fit(twice, method.hyper(**usual | changed))
        return fitted.history.loss, fitted.scores

    before = outcome({})
    assert outcome({}) == before
    for changed in changes:
        assert outcome(changed) != before, changed


class Killed(Exception):
    pass


@pytest.mark.parametrize("make", [LearningFromFailure, lambda y, other: CrossRisk(y, other, 5)], ids=["lff", "xrm"])
def test_a_training_of_two_goes_on_from_its_checkpoint(bench, make, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SECONDS_BETWEEN", 0.0)
    train, validation = toy_faces(), toy_faces(seed=1)
    schedule = replace(bench.pretraining, epochs=4, batch_size=16, select="last")
    file = tmp_path / "half.safetensors"

    def run(resume=None, dies_at=0):
        pair = Pair(models.build("resnet18-slim", 0), models.build("resnet18-slim", 1))
        loss, steps = make(train.target, pair.other), []

        def dies(module, arguments):
            steps.append(1)
            if len(steps) == dies_at:
                raise Killed

        loss.register_forward_pre_hook(dies)
        return fit(pair, train, validation, schedule, 3, loss=loss, resume=resume), pair, loss

    expected, pair, loss = run()
    with pytest.raises(Killed):
        run(file, dies_at=6)
    history, resumed, again = run(file)
    assert history.loss == expected.loss
    assert all(torch.equal(v, resumed.state_dict()[n]) for n, v in pair.state_dict().items())
    assert all(torch.equal(v, again.state_dict()[n]) for n, v in loss.state_dict().items())
