"""Fine-tunings that are kept: the same weights as if they had been trained again, and only where they would have been."""

from dataclasses import replace

import pytest
import torch

from aimfair import methods
from aimfair.faces import FaceSet
from aimfair.methods import _finetune, _kept

LONGER = {"epochs": 4, "lr": 0.03}


@pytest.fixture
def trained(monkeypatch):
    """Fine-tunings are kept; the list of those that were trained."""
    trainings = []

    def fit(*arguments, **named):
        trainings.append(named["what"])
        return real(*arguments, **named)

    real = _finetune.fit
    monkeypatch.setattr(_finetune, "fit", fit)
    monkeypatch.setattr(_kept, "BYTES", 100_000_000)
    _kept.forget()
    yield trainings
    _kept.forget()


@pytest.fixture
def longer(bench):
    return replace(bench, finetuning=replace(bench.finetuning, **LONGER))


def fitted(bench, name, **given):
    method = methods.get(name)
    return method.fit(bench, method.hyper(**given))


def state(fit):
    return fit.model.state_dict()


def alike(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


ASKED = (
    ("full-finetuning", {"select": "last"}),
    ("full-finetuning", {}),
    ("batchnorm-real", {"mask": "all"}),
    ("batchnorm-real", {"mask": "all", "select": "last"}),
    ("weight-interpolation", {"a": 0.1}),
    ("weight-interpolation", {"a": 0.9, "statistics": "re-estimated"}),
)


def test_what_is_kept_is_what_would_have_been_trained(longer, trained):
    kept = [fitted(longer, name, lr=0.1, **given) for name, given in ASKED]
    assert len(trained) == 1
    for (name, given), found in zip(ASKED, kept, strict=True):
        _kept.forget()
        again = fitted(longer, name, lr=0.1, **given)
        assert alike(state(found), state(again))
        assert replace(found.history, seconds=0) == replace(again.history, seconds=0)
    assert len(trained) == 1 + len(ASKED)
    assert len({tuple(state(one)["fc.weight"].flatten().tolist()) for one in kept}) > 2


def test_the_rules_are_two_where_the_last_epoch_is_not_the_best(longer, trained, monkeypatch):
    falling = iter((90.0, 80.0, 70.0, 60.0) * 2)
    right = lambda model, faces, device: torch.where(  # noqa: E731
        torch.arange(len(faces)) < len(faces) * next(falling) / 100, 2 * faces.target - 1, 1 - 2 * faces.target
    )
    monkeypatch.setattr("aimfair.training.evaluate", right)
    first, last = (fitted(longer, "full-finetuning", lr=0.1, select=s) for s in _finetune.RULES)
    assert (first.history.chosen, last.history.chosen) == (0, 3) and len(trained) == 1
    assert not alike(state(first), state(last))
    one_epoch = replace(longer, finetuning=replace(longer.finetuning, epochs=1))
    assert alike(state(first), state(fitted(one_epoch, "full-finetuning", lr=0.1)))


def test_a_model_that_is_handed_out_is_the_callers_own(longer, trained):
    before = {name: value.clone() for name, value in state(fitted(longer, "full-finetuning")).items()}
    given = fitted(longer, "full-finetuning").model
    with torch.no_grad():
        for parameter in given.parameters():
            parameter.zero_()
    assert alike(before, state(fitted(longer, "full-finetuning"))) and len(trained) == 1


def other_pixel(faces):
    images = faces.images.clone()
    images[0, 0, 0, 0] ^= 1
    return FaceSet(images, faces.target, faces.protected, faces.names)


def other_target(faces):
    target = faces.target.clone()
    target[0] ^= 1
    return FaceSet(faces.images, target, faces.protected, faces.names)


def biased_otherwise(bench):
    model = bench.biased_model()
    with torch.no_grad():
        model.fc.bias += 1e-3
    return model


@pytest.mark.parametrize(
    ("change", "hyper"),
    [
        (lambda b: {"balanced": other_pixel(b.balanced)}, {}),
        (lambda b: {"balanced": other_target(b.balanced)}, {}),
        (lambda b: {"validation": other_target(b.validation)}, {}),
        (lambda b: {"biased_model": lambda: biased_otherwise(b)}, {}),
        (lambda b: {"seed": b.seed + 1}, {}),
        (lambda b: {"finetuning": replace(b.finetuning, epochs=2)}, {}),
        (lambda b: {}, {"lr": 0.05}),
        (lambda b: {}, {"batchnorm": "eval"}),
        (lambda b: {}, {"select": "validation-worst-group"}),
    ],
    ids=["image", "target", "validation", "biased model", "seed", "epochs", "rate", "batch norm", "rule"],
)
def test_whatever_decides_a_training_makes_another_one(bench, trained, change, hyper):
    fitted(bench, "full-finetuning", lr=0.03)
    fitted(replace(bench, **change(bench)), "full-finetuning", **{"lr": 0.03} | hyper)
    assert len(trained) == 2


def test_another_mask_is_another_training_and_the_same_one_by_another_name_is_not(bench, trained):
    for name, given in (("aim-fair", {}), ("random-mask", {}), ("batchnorm-real", {"mask": "aim-fair"})):
        fitted(bench, name, lr=0.03, **given)
    assert len(trained) == 2


def test_adapters_of_another_scale_are_trained_and_not_found(bench, trained):
    alone = fitted(bench, "lora", lr=0.1, alpha=1.0)
    _kept.forget()
    fitted(bench, "lora", lr=0.1, alpha=16.0)
    assert alike(state(fitted(bench, "lora", lr=0.1, alpha=1.0)), state(alone)) and len(trained) == 3


def test_no_more_is_kept_than_fits(bench, trained, monkeypatch):
    size = 2 * sum(value.nbytes for value in bench.biased_model().state_dict().values())
    monkeypatch.setattr(_kept, "BYTES", 2 * size + 1)
    for rate in (0.01, 0.02, 0.01, 0.03):  # .02 has to go for .03
        fitted(bench, "full-finetuning", lr=rate)
    assert len(trained) == 3
    fitted(bench, "full-finetuning", lr=0.01)
    assert len(trained) == 3
    fitted(bench, "full-finetuning", lr=0.02)
    assert len(trained) == 4


def test_a_training_that_failed_is_tried_again(bench, trained):
    empty = replace(bench, balanced=bench.balanced.subset([]))
    for _ in range(2):
        with pytest.raises(methods.AimfairError, match="nothing to train on"):
            fitted(empty, "full-finetuning", lr=0.03)
    assert len(trained) == 2
