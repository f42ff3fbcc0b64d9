"""LfF: its loss and its weights against numbers worked out by hand, and which shortcut it unlearns."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from toys import Linear, fit_linear, gaussian_toy, group_accuracies

from aimfair import methods, models
from aimfair.environment import AimfairError
from aimfair.methods._pair import Pair
from aimfair.methods.lff import (
    LearningFromFailure,
    class_share,
    difficulty,
    generalised_cross_entropy,
    released_cross_entropy,
)
from aimfair.training import binary_cross_entropy

CE = -torch.tensor([0.9, 0.5, 0.1]).log()


def gradient(function, q):
    ce = CE.clone().requires_grad_()
    function(ce, q).sum().backward()
    return ce.grad


def test_generalised_cross_entropy_of_the_worked_example():
    assert generalised_cross_entropy(CE, 0.7).tolist() == pytest.approx([0.10157, 0.54918, 1.14353], abs=1e-5)
    assert gradient(generalised_cross_entropy, 0.7).tolist() == pytest.approx([0.9289, 0.6156, 0.1995], abs=1e-4)


def test_its_limits_are_the_cross_entropy_and_the_error_probability():
    assert torch.equal(generalised_cross_entropy(CE, 0.0), CE)
    assert torch.allclose(generalised_cross_entropy(CE, 1e-4), CE, rtol=1e-3)
    assert torch.allclose(generalised_cross_entropy(CE, 1.0), torch.tensor([0.1, 0.5, 0.9]))


def test_weights_that_diverge_are_told_with_the_rate(bench):
    method = methods.get("lff")
    wild = replace(bench, pretraining=replace(bench.pretraining, lr=1e10))
    with pytest.raises(AimfairError, match=r"the loss is not finite in epoch 1 .*smaller"):
        method.fit(wild.seen_by(method), method.hyper())


@pytest.mark.parametrize("q", [0.1, 0.7, 1.0])
def test_the_released_form_has_q_times_the_gradient(q):
    assert torch.allclose(gradient(released_cross_entropy, q), q * gradient(generalised_cross_entropy, q))


def memory(target):
    return LearningFromFailure(target, lambda: torch.zeros(len(target)))


def test_the_average_starts_at_the_first_loss():
    loss, index = memory(torch.tensor([0, 1])), torch.tensor([1])
    values = []
    for now in (1.0, 0.0, 2.0):
        loss.weights(torch.tensor([now]), torch.tensor([1.0]), index)
        values.append(loss.biased[1].item())
    assert values == pytest.approx([1.0, 0.7, 1.09])
    assert loss.biased[0] == 0 and loss.seen.tolist() == [False, True]


def test_weights_of_the_worked_example():
    target, index = torch.tensor([0, 0, 1, 1]), torch.arange(4)
    loss = memory(target)
    biased, debiased = torch.tensor([0.1, 2, 0.5, 0.5]), torch.tensor([0.1, 1, 1, 0.25])
    assert loss.weights(biased, debiased, index).tolist() == pytest.approx([0.3333, 0.5, 0.5, 0.8], abs=1e-4)
    # of a batch, against the class maximum of the whole table
    assert class_share(loss.biased, target, torch.tensor([0])).item() == pytest.approx(0.05)


def test_equal_difficulties_weigh_half_and_a_class_without_losses_is_no_division_by_zero():
    share = torch.tensor([0.01, 0.4, 1.0])
    assert torch.allclose(difficulty(share, share), torch.tensor(0.5))
    zeros = memory(torch.tensor([0, 1])).weights(torch.zeros(2), torch.zeros(2), torch.arange(2))
    assert zeros.tolist() == [0, 0]


def test_with_q_zero_and_equal_networks_the_first_step_is_erm_at_half_the_rate():
    x, y, _ = gaussian_toy(200)
    pair, biased, halved = Pair(Linear(13), Linear(13)), Linear(13), Linear(13)
    everyone = torch.arange(200)
    loss = LearningFromFailure(y, pair.other, q=0.0)
    for model, criterion, lr in (
        (pair, loss, 0.2),
        (biased, binary_cross_entropy, 0.2),
        (halved, binary_cross_entropy, 0.1),
    ):
        criterion(model(x), y.float(), everyone).backward()
        torch.optim.SGD(model.parameters(), lr).step()
    assert torch.allclose(pair.first.weight, halved.weight, atol=1e-6)
    assert torch.allclose(pair.second.weight, biased.weight, atol=1e-6)


def test_no_gradient_passes_from_one_network_to_the_other():
    x, y, _ = gaussian_toy(200)
    torch.manual_seed(0)
    pair = Pair(Linear(13), Linear(13))
    for parameter in pair.parameters():
        torch.nn.init.normal_(parameter)
    loss = LearningFromFailure(y, pair.other)
    loss(pair(x), y.float(), torch.arange(200)).backward()
    ce = F.binary_cross_entropy_with_logits(pair.second(x), y.float(), reduction="none")
    alone = torch.autograd.grad(generalised_cross_entropy(ce, 0.7).mean(), pair.second.weight)[0]
    assert torch.allclose(pair.second.weight.grad, alone, atol=1e-6)


def test_the_pair_is_judged_by_the_network_that_is_kept(bench):
    pair = Pair(models.build("resnet18-slim", 1), models.build("resnet18-slim", 2))
    assert torch.equal(models.evaluate(pair, bench.validation), models.evaluate(pair.first, bench.validation))
    method = methods.get("lff")
    fitted = method.fit(bench.seen_by(method), method.hyper())
    assert type(fitted.model) is type(bench.fresh_model()) and 0.3 < fitted.scores["mean_weight"] < 0.7


@pytest.mark.parametrize(
    ("q", "gce", "low", "high"), [(0.7, "true", 0.78, 0.86), (0.1, "true", 0.45, 0.60), (0.7, "released", 0.60, 0.72)]
)
def test_on_the_gaussian_toy_it_lies_between_erm_and_balanced_groups(q, gce, low, high):
    """Worst group: ERM .375, balanced groups .83; weight of the shortcut 1.27 and -.03. Measured: true form .51 at q .1,
    .74 at .3, .82 at .5, .84 (.00) at .7, .83 at .9; released form, whose biased network learns q times as fast: .37,
    .42, .51, .66, .79. Trained longer the true form overshoots a little: .78 (-.13) at q .7."""
    x, y, _ = gaussian_toy()
    fair = gaussian_toy(40_000, agree=0.5, seed=1)
    pair = Pair(Linear(13), Linear(13))
    fit_linear(x, y, LearningFromFailure(y, pair.other, q, gce=gce), model=pair, epochs=6, batch_size=250)
    worst, biased = (min(group_accuracies(m(fair[0]).detach(), *fair[1:])) for m in (pair.first, pair.second))
    print(f"LfF q {q} {gce}: worst group {worst:.3f}, of the biased network {biased:.3f}")
    assert low < worst < high and biased < 0.36, (worst, biased)


@pytest.mark.parametrize("bad", [{"q": 1.5}, {"decay": 1.0}, {"gce": "soft"}, {"gce": "released", "q": 0.0}])
def test_impossible_settings_are_refused(bench, bad):
    method = methods.get("lff")
    with pytest.raises(AimfairError, match="LfF"):
        method.fit(bench, method.hyper(**bad))
