"""JTT: who is repeated and how often, the cases in which it is ERM, and how far it gets."""

from dataclasses import replace

import pytest
import torch
from toys import fit_linear, gaussian_toy, group_accuracies

from aimfair import methods
from aimfair.environment import AimfairError
from aimfair.methods._inferred import early_logits, unpacked, wrong
from aimfair.methods.jtt import multiplicities, remark, repeated_order
from aimfair.models import evaluate
from aimfair.training import binary_cross_entropy

JTT, ERM = methods.get("jtt"), methods.get("erm")


def same(first, second):
    return all(torch.equal(v, second.model.state_dict()[n]) for n, v in first.model.state_dict().items())


def generator():
    return torch.Generator().manual_seed(5)


def test_both_conventions_of_lambda():
    errors = torch.tensor([False, True, False])
    assert multiplicities(errors, 5).tolist() == [1, 5, 1]
    assert multiplicities(errors, 5, added=True).tolist() == [1, 6, 1]


def test_an_epoch_is_cut_to_the_training_set_or_whole():
    times = torch.tensor([1, 4, 1, 2, 1])
    whole = repeated_order(times, whole=True)(generator())
    assert torch.equal(torch.bincount(whole), times)
    assert torch.equal(repeated_order(times)(generator()), whole[:5])
    drawn = torch.cat([repeated_order(times)(torch.Generator().manual_seed(i)) for i in range(4000)])
    assert torch.allclose(torch.bincount(drawn) / len(drawn), times / 9, atol=0.01)


def test_nothing_repeated_is_the_training_loops_own_order():
    order = repeated_order(torch.ones(100, dtype=torch.int64))
    assert torch.equal(order(generator()), torch.randperm(100, generator=generator()))


def test_an_upweight_of_one_is_erm_bit_for_bit(bench):
    fitted = JTT.fit(bench, JTT.hyper(upweight=1, first_epochs=1))
    assert fitted.scores["errors"] > 0 and same(fitted, ERM.fit(bench, {}))


def test_without_errors_it_is_erm_bit_for_bit_and_says_so(bench):
    often = replace(bench, pretraining=replace(bench.pretraining, batch_size=8))
    fitted = JTT.fit(often, JTT.hyper(upweight=20, first_epochs=3))
    assert fitted.scores["errors"] == 0 and "no errors" in fitted.scores["note"]
    assert same(fitted, ERM.fit(often, {}))


def test_a_first_model_that_tells_nothing_is_noted(bench):
    target = torch.tensor([0, 0, 1, 1])
    assert "predicts one class" in remark(torch.tensor([1.0, 2.0, 0.0, 3.0]), target)
    assert "predicts one class" in remark(-torch.ones(4), target)
    assert "no errors" in remark(torch.tensor([-1.0, -2.0, 1.0, 2.0]), target)
    assert remark(torch.tensor([-1.0, 2.0, 1.0, 2.0]), target) is None
    fitted = JTT.fit(bench, JTT.hyper(first_epochs=1))
    assert 0 in fitted.scores["errors_by_class"] and "predicts one class" in fitted.scores["note"]


def test_the_errors_are_those_of_erms_first_epochs_on_whole_images(bench):
    longer = replace(bench, pretraining=replace(bench.pretraining, epochs=3))
    fitted = JTT.fit(longer, JTT.hyper(first_epochs=1))
    logits = early_logits(longer, 1, "test")
    expected = wrong(logits, bench.train.target)
    assert torch.equal(unpacked(fitted.scores["error_set"], len(bench.train)), expected)
    assert fitted.scores["errors"] == int(expected.sum())
    first = ERM.fit(bench, {})  # one epoch of the same training
    assert torch.equal(evaluate(first.model, bench.train), logits)


def test_with_the_minorities_as_errors_and_lambda_nine_groups_are_balanced():
    group = torch.arange(4).repeat_interleave(torch.tensor([100, 900, 900, 100]))
    times = multiplicities((group == 0) | (group == 3), 9)
    assert torch.bincount(group, weights=times.double()).tolist() == [900] * 4
    x, y, s = gaussian_toy()
    fair = gaussian_toy(40_000, agree=0.5, seed=1)
    ideal = fit_linear(x, y, binary_cross_entropy, order=repeated_order(multiplicities(s != y, 19)))  # 95 to 5
    weight = torch.where(s != y, 19.0, 1.0)

    def reweighted(logits, target, index):
        losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return (weight[index] * losses).mean() / 1.9  # the mean weight

    other = fit_linear(x, y, reweighted)
    a, b = (group_accuracies(m(fair[0]).detach(), *fair[1:]) for m in (ideal, other))
    assert min(a) > 0.80 and max(abs(i - j) for i, j in zip(a, b, strict=True)) < 0.03, (a, b)


def test_on_the_gaussian_toy_it_lies_between_erm_and_balanced_groups_until_lambda_is_too_large():
    """Worst group: ERM .375, balanced groups .83. Measured with a first model of one epoch: .62 at lambda 5, .74 at 10,
    .82 at 20, where the weight of the shortcut is -.01; with a converged first model, whose errors are half majority:
    .49, .56, .67, and at lambda 50 it overshoots to .47, the majorities being the worst."""
    x, y, s = gaussian_toy()
    fair = gaussian_toy(40_000, agree=0.5, seed=1)
    errors = wrong(fit_linear(x, y, binary_cross_entropy, epochs=1, lr=0.1)(x).detach(), y)
    assert errors[s != y].float().mean() > 0.8
    worst = []
    for upweight in (1, 5, 10, 20):
        model = fit_linear(x, y, binary_cross_entropy, order=repeated_order(multiplicities(errors, upweight)))
        worst.append(min(group_accuracies(model(fair[0]).detach(), *fair[1:])))
    print("JTT lambda 1, 5, 10, 20: worst group", [round(value, 3) for value in worst])
    assert worst == sorted(worst) and worst[0] < 0.42 and worst[2] > 0.68 and 0.78 < worst[3] < 0.85, worst


@pytest.mark.parametrize("bad", [{"upweight": 0}, {"upweight": 2.5}, {"first_epochs": 0}])
def test_impossible_settings_are_refused(bench, bad):
    with pytest.raises(AimfairError, match="JTT"):
        JTT.fit(bench, JTT.hyper(**bad))
