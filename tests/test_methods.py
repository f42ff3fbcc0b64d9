"""One automatic test for every registered method, and what the methods promise each other."""

import inspect
import math
import pkgutil
import re
from dataclasses import replace
from itertools import count

import pytest
import torch
from toys import fit_method, same_weights

from aimfair import methods, models, training
from aimfair.environment import AimfairError


@pytest.mark.parametrize("name", methods.registry())
def test_every_method_fits_predicts_and_repeats(bench, name):
    method = methods.get(name)
    assert method.title and method.source and method.start in ("scratch", "biased model")
    assert set(method.search) <= set(method.defaults)
    seen = bench.seen_by(method)
    assert (seen.train.protected is None) == ("train protected" not in method.needs)
    assert (seen.validation.protected is None) == ("validation protected" not in method.needs)
    first, second = (method.fit(seen, method.hyper()) for _ in range(2))
    logits = models.evaluate(first.model, bench.validation)
    assert logits.shape == (40,) and torch.isfinite(logits).all()
    assert same_weights(first, second)


CHANGES = {
    "jtt": ({"first_epochs": 1, "upweight": 3}, {"first_epochs": 3}, {"upweight": 9}),
    "lff": ({}, {"q": 0.3}, {"decay": 0.2}),
    "eiil": ({"reference_epochs": 1}, {"reference_epochs": 3}, {"eta": 10.0}),
    "xrm": ({"twin_epochs": 1}, {"twin_epochs": 2}, {"eta": 10.0}),
    "maple": ({"rounds": 3, "inner_steps": 5}, {"rounds": 1}, {"inner_steps": 3}, {"outer_lr": 0.01}),
    "group-dro": ({}, {"lr": 0.01}, {"weight_decay": 0.1}, {"eta": 1.0}, {"adjustment": 5.0}),
    "balanced-sampling": ({}, {"lr": 0.01}, {"weight_decay": 0.1}),
    "subsampling": ({}, {"lr": 0.01}, {"weight_decay": 0.1}, {"same_updates": False}),
    "bmft": ({}, {"lr": 0.1}, {"head_lr": 0.1}, {"beta": 1.0}, {"rate": 95}, {"batchnorm": "train"}),
    "afr": ({}, {"gamma": 4.0}, {"strength": 1.0}),
    "ffr": ({}, {"lr": 0.01}, {"batchnorm": "eval"}),
    "synthetic-groups": (
        {},
        *({"cut": "half"}, {"cut": "confusion"}, {"reestimate": False}),
        *({"soft": True}, {"balance": "group-dro"}, {"faces": 5}),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_no_hyper_parameter_is_without_effect(undecided, name):
    usual, *changes = CHANGES[name]
    epochs = 2 if name == "lff" else 1  # a running average needs a second visit
    plans = {
        plan: replace(getattr(undecided, plan), epochs=epochs, batch_size=16) for plan in ("pretraining", "finetuning")
    }
    fitted = [fit_method(replace(undecided, **plans), name, **usual | changed) for changed in ({}, *changes)]
    for changed, other in zip(changes, fitted[1:], strict=True):
        assert other.scores != fitted[0].scores or not same_weights(other, fitted[0]), changed


@pytest.mark.parametrize(
    ("name", "hyper", "dies_at"),
    [
        ("lff", {}, 2),
        ("jtt", {"first_epochs": 2}, 4),
        *(("xrm", {"twin_epochs": 3}, epoch) for epoch in (2, 5)),
        *(("synthetic-groups-tuned", {"lr": 0.01}, epoch) for epoch in (1, 4, 7)),  # teacher, target, tuning
    ],
)
def test_killed_and_called_again_it_ends_where_an_unbroken_one_does(
    undecided, name, hyper, dies_at, tmp_path, monkeypatch
):
    plans = {plan: replace(getattr(undecided, plan), epochs=3) for plan in ("pretraining", "finetuning")}
    long = replace(undecided, resume=tmp_path / "run.safetensors", **plans)
    unbroken = fit_method(long, name, **hyper)
    monkeypatch.setattr(training, "SECONDS_BETWEEN", -1.0)
    epochs, usual = count(), training.train_epoch

    def dies(*args, **kwargs):
        if next(epochs) == dies_at:
            raise KeyboardInterrupt
        return usual(*args, **kwargs)

    monkeypatch.setattr(training, "train_epoch", dies)
    with pytest.raises(KeyboardInterrupt):
        fit_method(long, name, **hyper)
    assert [*tmp_path.glob("*.safetensors")]
    again = fit_method(long, name, **hyper)
    assert same_weights(again, unbroken) and again.scores == unbroken.scores
    assert not [*tmp_path.glob("*.safetensors")]


def documentation(fit):
    """The docstring of a method's ``fit`` and those of what it refers to in this package."""
    fit = getattr(fit, "func", fit)  # of a family
    text = inspect.getdoc(fit)
    for name in re.findall(r":(?:func|class|mod|data):`([\w.]+)`", text):
        target = pkgutil.resolve_name(name if name.startswith("aimfair.") else f"{fit.__module__}.{name}")
        text += "\n" + inspect.getdoc(getattr(target, "fit", target))  # a method is named by its module
    return text


@pytest.mark.parametrize("name", methods.registry())
def test_every_hyper_parameter_is_explained_and_one_at_most_is_searched_in_five_values(name):
    method = methods.get(name)
    text = documentation(method.fit)
    entry = r"``{0}``|\[\"{0}\"\]|^ *(\w+, )*{0}(, \w+)*  +\S"
    assert [hyper for hyper in method.defaults if not re.search(entry.format(hyper), text, re.MULTILINE)] == []
    assert len(method.search) <= 1 and all(len(set(values)) == len(values) == 5 for values in method.search.values())


def test_labels_that_were_not_asked_for_cannot_be_read(bench):
    seen = bench.seen_by(methods.get("erm"))
    with pytest.raises(AimfairError, match="withheld"):
        seen.train.counts()


@pytest.mark.parametrize("name", [name for name, method in methods.registry().items() if method.needs])
def test_a_bench_without_what_a_method_needs_is_refused_by_name(bench, name):
    method = methods.get(name)
    without = {
        "train protected": replace(bench, train=bench.train.without_protected()),
        "validation protected": replace(bench, validation=bench.validation.without_protected()),
        "synthetic": replace(bench, balanced=bench.balanced.subset([])),
    }
    for need in method.needs:
        what = "synthetic faces" if need == "synthetic" else f"protected labels of {need.split()[0]} faces"
        with pytest.raises(AimfairError, match=f"^{name} needs {what}, and this bench has none$"):
            without[need].seen_by(method)


def test_what_a_method_is_told_is_said_in_words():
    told = {name: methods.get(name).extra_data for name in ("erm", "aim-fair", "maple", "group-dro")}
    assert told == {
        "erm": "nothing",
        "aim-fair": "synthetic faces",
        "maple": "group labels (validation)",
        "group-dro": "group labels (train, validation)",
    }


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(AimfairError, match=r"no method 'magic'; there are: .*\berm, .*full-finetuning"):
        methods.get("magic")
    with pytest.raises(AimfairError, match="aim-fair has no hyper-parameter 'kk'; it has: lr"):
        methods.get("aim-fair").hyper(kk=3)


@pytest.mark.parametrize(
    ("name", "given", "wanted"),
    [
        ("aim-fair", {"lr": "much"}, "a number"),
        ("aim-fair", {"lr": 0}, "above 0"),
        ("aim-fair", {"lr": math.inf}, "a finite number"),
        ("diga", {"consistency": math.nan}, "a finite number"),
        ("group-dro", {"lr": -0.1}, "above 0"),
        ("aim-fair", {"k": 0}, "above 0"),
        ("aim-fair", {"k": 1.5}, "a whole number"),
        ("aim-fair", {"k": None}, "a whole number"),
        ("aim-fair", {"score": 3}, "text, such as absolute"),
        ("aim-fair", {"select": 3}, "text, such as validation-accuracy"),
        ("subsampling", {"same_updates": 2}, "true or false, such as True"),
        ("jtt", {"added": True}, "False, the only value that it has here"),
        ("lff", {"gce": "released"}, "true, the only value that it has here"),
        ("jtt", {"upweight": True}, "a whole number"),
        ("xrm", {"twin_epochs": 2.5}, "a whole number"),
        ("random-mask", {"draw": 0.5}, "a whole number"),
        ("synthetic-groups", {"faces": 10.0}, "a whole number"),
    ],
)
def test_an_impossible_hyper_parameter_is_refused(name, given, wanted):
    ((key, value),) = given.items()
    with pytest.raises(AimfairError, match=re.escape(f"{name}: {key} must be {wanted}, got {value!r}")):
        methods.get(name).hyper(**given)


def test_possible_hyper_parameters_are_taken_as_they_are_and_fixed_ones_are_part_of_the_identity():
    lff = methods.get("lff")
    assert lff.hyper(gce=True, q=1) == lff.hyper(q=1) == {"q": 1, "decay": 0.7, "gce": "true"}
    assert methods.get("group-dro").hyper(lr=None)["lr"] is None and methods.get("group-dro").hyper(lr=1)["lr"] == 1
    assert methods.get("subsampling").hyper(same_updates=False)["same_updates"] is False


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("cvar-dro", [{"alpha": 0.0}, {"alpha": 1.1}], "0 < alpha <= 1, got"),
        ("ltgc-mixing", [{"a": 0.0}, {"pairing": "random"}], "a must be above 0 and pairing any or same label"),
        ("jtt", [{"upweight": 0}, {"first_epochs": 0}], "JTT"),
        ("eiil", [{"reference_epochs": 0}, {"eta": -0.1}], "EIIL"),
        ("xrm", [{"twin_epochs": 0}, {"eta": -0.1}], "XRM"),
        ("lff", [{"q": 1.5}, {"decay": 1.0}], "LfF"),
        ("maple", [{"share": 0.0}, {"share": 1.2}], "share lies above 0"),
        ("last-layer-fairness", [{"lr": 1e300, "epochs": 20}], "not finite"),
        ("bmft", [{"rate": 101}], "percentile, 0 to 100, got 101"),
        (
            "random-ratio",
            [{"ratio": 1.2}, {"ratio": -0.1}, {"unit": "layer"}],
            "ratio must be 0 to 1 and unit tensor or element",
        ),
        ("freeze-one-block", [{"block": "layer5"}], "block must be best or one of stem, .*, fc, got 'layer5'"),
        ("lora", [{"targets": "qvk"}], "no layer is called 'qvk'; there are: .*layer4.1.conv2"),
        ("lora", [{"rank": 0}], "rank must be at least 1, got 0"),
        ("aim-fair", [{"rankings": "first"}], "rankings must be one of both, domain, bias"),
        ("aim-fair", [{"k": 63}], "k must be between 1 and the 62 tensors"),
        ("aim-fair-relative", [{"rankings": "bias"}], "has no hyper-parameter 'rankings'"),
        ("channel-mask", [{"rankings": "bias"}], "has no hyper-parameter 'rankings'"),
        ("channel-mask", [{"size": "tensors"}], "size must be weights or share, got 'tensors'"),
        ("channel-mask", [{"ranking": "best"}], "ranking must be gaps or random, got 'best'"),
        ("weight-interpolation", [{"a": 1.5}, {"statistics": "none"}], "a must be 0 to 1 and statistics interpol"),
        ("batchnorm-real", [{"mask": "some"}], "mask must be one of none, all, aim-fair, random, got 'some'"),
    ],
)
def test_settings_that_a_method_cannot_work_with_are_refused(bench, name, given, said):
    for hyper in given:
        with pytest.raises(AimfairError, match=said):
            fit_method(bench, name, **hyper)
