"""One automatic test for every registered method, and what the methods promise each other."""

from dataclasses import replace

import pytest
import torch

from aimfair import methods, models
from aimfair.errors import AimfairError


def weights(fitted):
    return {name: value.clone() for name, value in fitted.model.state_dict().items()}


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
    assert all(torch.equal(weights(second)[n], v) for n, v in weights(first).items())


def test_no_fine_tuning_method_touches_the_biased_model(bench):
    before = {n: v.clone() for n, v in bench.biased_model().state_dict().items()}
    for name in ("linear-probing", "aim-fair"):
        methods.get(name).fit(bench, methods.get(name).hyper())
    assert all(torch.equal(before[n], v) for n, v in bench.biased_model().state_dict().items())


def test_all_tensors_selected_is_full_fine_tuning_bit_for_bit(bench):
    full = methods.get("full-finetuning")
    aim = methods.get("aim-fair")
    a = weights(full.fit(bench, full.hyper(lr=0.03)))
    b = weights(aim.fit(bench, aim.hyper(lr=0.03, k=62)))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_aim_fair_moves_exactly_its_mask(bench):
    method = methods.get("aim-fair")
    fitted = method.fit(bench, method.hyper(lr=0.03))
    before = bench.biased_model().state_dict()
    moved = {n for n, p in fitted.model.named_parameters() if not torch.equal(before[n], p)}
    assert moved <= set(fitted.scores["mask"]) and 48 <= len(fitted.scores["mask"]) <= 55
    assert len(moved) >= 0.9 * len(fitted.scores["mask"])


def test_linear_probing_leaves_the_backbone_and_its_statistics_bit_identical(bench):
    method = methods.get("linear-probing")
    after = weights(method.fit(bench, method.hyper(lr=0.1)))
    before = bench.biased_model().state_dict()
    assert {n for n in before if not torch.equal(before[n], after[n])} == {"fc.weight", "fc.bias"}
    drifting = weights(method.fit(bench, method.hyper(lr=0.1, batchnorm="train")))
    assert not torch.equal(before["bn1.running_mean"], drifting["bn1.running_mean"])


def test_a_random_mask_has_the_size_of_aim_fairs_and_another_draw_another_mask(bench):
    aim, control = methods.get("aim-fair"), methods.get("random-mask")
    size = len(aim.fit(bench, aim.hyper(k=50)).scores["mask"])
    drawn = [control.fit(bench, control.hyper(k=50, draw=d)).scores["mask"] for d in (0, 1)]
    assert [len(mask) for mask in drawn] == [size, size] and drawn[0] != drawn[1]


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
    told = {name: methods.get(name).told for name in ("erm", "aim-fair", "maple", "group-dro")}
    assert told == {
        "erm": "nothing",
        "aim-fair": "synthetic faces",
        "maple": "group labels (validation)",
        "group-dro": "group labels (train, validation)",
    }


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(AimfairError, match=r"no method 'magic'; there are: .*\berm, .*full-finetuning"):
        methods.get("magic")
    with pytest.raises(AimfairError, match="aim-fair has no hyper-parameter 'kk'; it has: lr"):
        methods.get("aim-fair").hyper(kk=3)
