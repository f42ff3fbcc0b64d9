"""JTT, EIIL, XRM and LfF: whom they take for a minority and what they make of it; trainings of two networks."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from toys import Linear, fit_linear, fit_method, gaussian_toy, same_weights, worst_group_on_fair_toy

from aimfair import models
from aimfair.methods import Fitted, inferred, lff, xrm
from aimfair.methods.erm import shuffled
from aimfair.methods.group_dro import GroupDRO, balanced_order
from aimfair.methods.inferred import (
    early_logits,
    multiplicities,
    packed,
    scale_gradients,
    sign_split,
    train_on_environments,
    unpacked,
    violation,
    wrong,
)
from aimfair.methods.lff import LearningFromFailure, Pair
from aimfair.methods.xrm import CrossRisk, class_balanced, flip_probability
from aimfair.training import History, binary_cross_entropy


def often(bench):
    """The bench with small batches, so that three epochs fit the training set."""
    return replace(bench, pretraining=replace(bench.pretraining, batch_size=8))


# --------------------------------------------------------------------------------------------------------- early models


def test_a_mask_survives_packing():
    mask = torch.rand(13, generator=torch.Generator().manual_seed(0)) < 0.3
    assert torch.equal(unpacked(packed(mask), 13), mask) and len(packed(mask)) == 4


def test_the_validation_set_chooses_the_epoch_of_erm_and_eiil_and_not_that_of_the_first_model(undecided):
    longer = replace(undecided, pretraining=replace(undecided.pretraining, epochs=2))
    turned = replace(longer, validation=replace(longer.validation, target=1 - longer.validation.target))
    for name, hyper in (("erm", {}), ("eiil", {"reference_epochs": 1})):
        assert {fit_method(b, name, **hyper).history.chosen for b in (longer, turned)} == {0, 1}
    assert torch.equal(early_logits(longer, 2, "test"), early_logits(turned, 2, "test"))


def test_the_first_model_is_erms_after_its_first_epochs_and_its_errors_are_counted_on_whole_images(bench):
    longer = replace(bench, pretraining=replace(bench.pretraining, epochs=3))
    logits = models.evaluate(fit_method(bench, "erm").model, bench.train)  # one epoch of the same training
    errors = unpacked(fit_method(longer, "jtt", first_epochs=1).scores["error_set"], 120)
    assert torch.equal(early_logits(longer, 1, "test"), logits)
    assert torch.equal(errors, wrong(logits, bench.train.target))


# ------------------------------------------------------------------------------------------------------------------ JTT


def test_a_lambda_as_large_as_the_imbalance_balances_the_groups():
    assert multiplicities(torch.tensor([False, True, False]), 5).tolist() == [1, 5, 1]
    group = torch.arange(4).repeat_interleave(torch.tensor([100, 900, 900, 100]))
    times = multiplicities((group == 0) | (group == 3), 9)
    assert torch.bincount(group, weights=times.double()).tolist() == [900] * 4


def test_an_epoch_of_jtt_repeats_errors_and_is_cut_to_the_training_set(bench, monkeypatch):
    given = []
    monkeypatch.setattr(inferred, "early_logits", lambda *_: 2.0 * errors * (1 - 2 * target) + 2 * target - 1)
    monkeypatch.setattr(inferred, "from_scratch", lambda *_, order: given.append(order) or Fitted(None, History()))
    target, errors = bench.train.target, torch.arange(120) < 12
    fit_method(bench, "jtt", upweight=4)
    drawn = given[0](torch.Generator().manual_seed(0))
    times = drawn.bincount(minlength=120)
    assert len(drawn) == 120 and (times <= torch.where(errors, 4, 1)).all() and times[errors].sum() > 24


def test_an_upweight_of_one_or_no_errors_are_erm_bit_for_bit_and_a_poor_first_model_is_noted(bench):
    one = fit_method(bench, "jtt", upweight=1, first_epochs=1)
    assert one.scores["errors"] > 0 and same_weights(one, fit_method(bench, "erm"))
    assert 0 in one.scores["errors_by_class"] and "predicts one class" in one.scores["note"]
    none = fit_method(often(bench), "jtt", upweight=20, first_epochs=3)
    assert none.scores["errors"] == 0 and "no errors" in none.scores["note"]
    assert same_weights(none, fit_method(often(bench), "erm"))


def test_on_the_gaussian_toy_jtt_lies_between_erm_and_balanced_groups():
    """Worst group: ERM .375, balanced groups .83; measured .62 at lambda 5, .74 at 10, .82 at 20."""
    x, y, s = gaussian_toy()
    errors = wrong(fit_linear(x, y, binary_cross_entropy, epochs=1, lr=0.1)(x).detach(), y)
    assert errors[s != y].float().mean() > 0.8
    repeated = (torch.arange(len(y)).repeat_interleave(multiplicities(errors, n)) for n in (1, 5, 10, 20))
    models_ = (fit_linear(x, y, binary_cross_entropy, order=shuffled(faces, len(y))) for faces in repeated)
    worst = [worst_group_on_fair_toy(model) for model in models_]
    assert worst == sorted(worst) and worst[0] < 0.42 and worst[2] > 0.68 and 0.78 < worst[3] < 0.85, worst


# ----------------------------------------------------------------------------------------------------------------- EIIL


def test_the_split_of_the_worked_example_of_eight():
    target, colour = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), torch.tensor([0, 0, 0, 1, 1, 1, 1, 0])
    d, agree = scale_gradients(4.0 * colour - 2, target), colour == target
    assert torch.allclose(d, torch.where(agree, -0.2384, 1.7616), atol=1e-4)
    assert torch.equal(sign_split(d), ~agree)
    assert violation(agree.float(), d).item() == pytest.approx(0.11296, abs=1e-5)
    assert violation((~agree).float(), d).item() == pytest.approx(0.11296, abs=1e-5)
    assert violation(torch.full((8,), 0.5), d).item() == pytest.approx(0.01711, abs=1e-5)


def test_the_sign_split_is_the_best_of_all_splits():
    d = torch.randn(10, generator=torch.Generator().manual_seed(0))
    best = max(violation(torch.tensor(q), d).item() for q in itertools.product((0.0, 1.0), repeat=10))
    assert violation(sign_split(d).float(), d).item() == pytest.approx(best, rel=1e-5)
    soft = torch.rand(1000, 10, generator=torch.Generator().manual_seed(1))
    assert all(violation(q, d).item() < best for q in soft)


def test_the_gradient_is_that_of_a_scale_on_the_logit_and_its_sign_shows_what_is_wrong():
    logits, target = torch.tensor([-3.0, -0.2, 0.1, 2.0]), torch.tensor([0, 1, 1, 0])
    scale = torch.ones(4, requires_grad=True)
    F.binary_cross_entropy_with_logits(scale * logits, target.float(), reduction="sum").backward()
    assert torch.allclose(scale_gradients(logits, target), scale.grad)
    assert torch.equal(sign_split(scale.grad), wrong(logits, target))


def test_a_reference_that_fits_everything_leaves_the_classes_and_a_note(bench):
    scores = fit_method(often(bench), "eiil", reference_epochs=3).scores
    assert scores["groups"] == [60, 0, 60, 0] and "environment 1 is empty" in scores["note"]
    everyone = torch.ones(120, dtype=torch.bool)
    other = train_on_environments(bench, everyone, 0.01, "test").scores
    assert other["groups"] == [0, 60, 0, 60] and "environment 0 is empty" in other["note"]
    assert other["group_weights"][::2] == [0, 0]


def test_inferred_groups_are_drawn_alike(bench, monkeypatch):
    given = {}
    monkeypatch.setattr(inferred, "from_scratch", lambda *_, **how: given.update(how) or Fitted(None, History()))
    environment = torch.arange(120) < 12
    train_on_environments(bench, environment, 0.01, "test")
    groups = 2 * bench.train.target + environment.long()
    drawn = torch.cat([given["order"](torch.Generator().manual_seed(seed)) for seed in range(50)])
    assert len(drawn) == 50 * 120 and (groups[drawn].bincount() / len(drawn) - 0.25).abs().max() < 0.03


# ------------------------------------------------------------------------------------------------------------------ XRM


def twins_on(x, y, epochs=15):
    twins = Pair(Linear(x.shape[1]), Linear(x.shape[1]))
    loss = CrossRisk(y, twins.other, 0)
    fit_linear(x, y, loss, model=twins, epochs=epochs)
    return wrong(twins.first(x).detach(), y) | wrong(twins.second(x).detach(), y)


@pytest.mark.parametrize(("eta", "at_least"), [(0.001, 0.80), (0.01, 0.65)])
@pytest.mark.parametrize("guess", ["eiil", "xrm"])
def test_on_the_gaussian_toy_group_dro_over_a_guess_lies_between_erm_and_balanced_groups(guess, eta, at_least):
    """Worst group: ERM .375, balanced groups .83; the larger step overshoots, since the errors hold unlucky majority
    samples too, and the minorities become the better groups."""
    x, y, _ = gaussian_toy()
    if guess == "xrm":
        environment = twins_on(x, y)
    else:
        reference = fit_linear(x, y, binary_cross_entropy, epochs=1, lr=0.1)
        environment = sign_split(scale_gradients(reference(x).detach(), y))
    groups = 2 * y + environment.long()
    worst = worst_group_on_fair_toy(fit_linear(x, y, GroupDRO(groups, eta), order=balanced_order(groups)))
    assert at_least < worst < 0.85, worst


def test_the_twins_loss_is_the_sum_of_the_class_means():
    logits = torch.randn(10, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([1.0] * 2 + [0.0] * 8)
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    assert torch.allclose(class_balanced(logits, target), losses[:2].mean() + losses[2:].mean())
    assert torch.allclose(class_balanced(logits[2:], target[2:]), losses[2:].mean())


def test_each_twin_learns_its_own_samples_only():
    target = torch.randint(0, 2, (100,), generator=torch.Generator().manual_seed(1))
    first, second = torch.zeros(100, requires_grad=True), torch.zeros(100, requires_grad=True)
    loss = CrossRisk(target, lambda: second, seed=3)
    loss(first, target.float(), torch.arange(100)).backward()
    assert 30 < loss.mine.sum() < 70
    assert torch.equal(first.grad != 0, loss.mine) and torch.equal(second.grad != 0, ~loss.mine)


def test_only_the_held_out_twin_flips_and_a_flip_stays():
    target, index = torch.zeros(100, dtype=torch.int64), torch.arange(100)
    sure, unsure = torch.full((100,), 60.0), torch.zeros(100)
    loss = CrossRisk(target, lambda: unsure, seed=3)
    for logits in (sure, unsure):  # the first twin is sure of 1 everywhere, held out where a sample is not its own
        loss(logits, target.float(), index)
        assert torch.equal(loss.working == 1, ~loss.mine)


def test_flips_have_the_stated_probability_and_repeat():
    assert flip_probability(torch.tensor([0.0, 50.0, -50.0])).tolist() == [0, 1, 1]
    target, index, logits = torch.zeros(20_000, dtype=torch.int64), torch.arange(20_000), torch.ones(20_000)
    first, second = (CrossRisk(target, lambda: logits, seed=7) for _ in range(2))
    for loss in (first, second):
        loss(logits, target.float(), index)
    assert first.working.mean().item() == pytest.approx(flip_probability(torch.tensor(1.0)).item(), abs=0.015)
    assert torch.equal(first.working, second.working)
    before = first.working.clone()
    first(logits, target.float(), index)  # another step draws anew
    assert first.working.sum() > before.sum() and (first.working >= before).all()


def test_whoever_either_twin_misses_is_in_environment_one_on_both_sets_without_a_label(bench, monkeypatch):
    kept = []
    monkeypatch.setattr(xrm, "Pair", lambda *twins: kept.append(Pair(*twins)) or kept[-1])
    fitted = fit_method(bench, "xrm", twin_epochs=1)
    missed = []
    for faces in (bench.train, bench.validation):
        first, second = (wrong(models.evaluate(m, faces), faces.target) for m in (kept[0].first, kept[0].second))
        assert not torch.equal(first, second)
        missed.append(first | second)
    assert torch.equal(unpacked(fitted.scores["environment"], 120), missed[0])
    groups = 2 * bench.validation.target + missed[1].long()
    assert fitted.scores["validation_groups"] == groups.bincount(minlength=4).tolist()
    assert 0 <= fitted.scores["flipped"] < 0.5 and not xrm.METHOD.needs
    assert len(fitted.history.validation_worst_group) == bench.pretraining.epochs


@pytest.mark.parametrize("known", [{120, 40}, {40}], ids=["both sets", "validation"])
def test_twins_that_miss_no_face_leave_the_classes_and_notes(bench, monkeypatch, known):
    def right(twin, faces, device):
        return 2.0 * faces.target - 1 if len(faces) in known else models.evaluate(twin, faces, device)

    monkeypatch.setattr(xrm, "evaluate", right)
    scores = fit_method(bench, "xrm", twin_epochs=1).scores
    *train, validation = scores["note"].split("; ")
    assert validation.startswith("environment 1 of the validation set is empty: its worse class chooses")
    assert scores["validation_groups"] == [20, 0, 20, 0]
    assert [note.startswith("environment 1 is empty") for note in train] == [True] * (len(known) - 1)


# ------------------------------------------------------------------------------------------------------------------ LfF

CE = -torch.tensor([0.9, 0.5, 0.1]).log()


def gradient(function, q):
    ce = CE.clone().requires_grad_()
    function(ce, q).sum().backward()
    return ce.grad


def test_generalised_cross_entropy_has_its_worked_example_and_its_limits():
    assert lff.generalised_cross_entropy(CE, 0.7).tolist() == pytest.approx([0.10157, 0.54918, 1.14353], abs=1e-5)
    assert gradient(lff.generalised_cross_entropy, 0.7).tolist() == pytest.approx([0.9289, 0.6156, 0.1995], abs=1e-4)
    assert torch.equal(lff.generalised_cross_entropy(CE, 0.0), CE)
    assert torch.allclose(lff.generalised_cross_entropy(CE, 1e-4), CE, rtol=1e-3)
    assert torch.allclose(lff.generalised_cross_entropy(CE, 1.0), torch.tensor([0.1, 0.5, 0.9]))


def memory(target):
    return LearningFromFailure(target, lambda: torch.zeros(len(target)))


def test_the_average_starts_at_the_first_loss():
    loss, values = memory(torch.tensor([0, 1])), []
    for now in (1.0, 0.0, 2.0):
        loss.weights(torch.tensor([now]), torch.tensor([1.0]), torch.tensor([1]))
        values.append(loss.biased[1].item())
    assert values == pytest.approx([1.0, 0.7, 1.09])
    assert loss.biased[0] == 0 and loss.seen.tolist() == [False, True]


def test_weights_of_the_worked_example_and_of_no_difficulty():
    target = torch.tensor([0, 0, 1, 1])
    loss = memory(target)
    biased, debiased = torch.tensor([0.1, 2, 0.5, 0.5]), torch.tensor([0.1, 1, 1, 0.25])
    found = loss.weights(biased, debiased, torch.arange(4)).tolist()
    assert found == pytest.approx([0.3333, 0.5, 0.5, 0.8], abs=1e-4)
    # Of a batch, against the class maximum of the whole table:
    assert lff.class_share(loss.biased, target, torch.tensor([0])).item() == pytest.approx(0.05)
    share = torch.tensor([0.01, 0.4, 1.0])
    assert torch.allclose(lff.difficulty(share, share), torch.tensor(0.5))
    zeros = memory(torch.tensor([0, 1])).weights(torch.zeros(2), torch.zeros(2), torch.arange(2))
    assert zeros.tolist() == [0, 0]


def test_no_gradient_passes_from_one_network_to_the_other():
    x, y, _ = gaussian_toy(200)
    torch.manual_seed(0)
    pair = Pair(Linear(13), Linear(13))
    for parameter in pair.parameters():
        torch.nn.init.normal_(parameter)
    LearningFromFailure(y, pair.other)(pair(x), y.float(), torch.arange(200)).backward()
    ce = F.binary_cross_entropy_with_logits(pair.second(x), y.float(), reduction="none")
    alone = torch.autograd.grad(lff.generalised_cross_entropy(ce, 0.7).mean(), pair.second.weight)[0]
    assert torch.allclose(pair.second.weight.grad, alone, atol=1e-6)


def test_the_pair_is_judged_by_the_network_that_is_kept(bench):
    pair = Pair(models.build("resnet18-slim", 1), models.build("resnet18-slim", 2))
    assert torch.equal(models.evaluate(pair, bench.validation), models.evaluate(pair.first, bench.validation))
    fitted = fit_method(bench, "lff")
    assert type(fitted.model) is type(bench.fresh_model()) and 0.3 < fitted.scores["mean_weight"] < 0.7


@pytest.mark.parametrize(("q", "low", "high"), [(0.7, 0.78, 0.86), (0.1, 0.45, 0.60)])
def test_on_the_gaussian_toy_lff_lies_between_erm_and_balanced_groups(q, low, high):
    """Worst group: ERM .375, balanced groups .83."""
    x, y, _ = gaussian_toy()
    pair = Pair(Linear(13), Linear(13))
    fit_linear(x, y, LearningFromFailure(y, pair.other, q), model=pair, epochs=6, batch_size=250)
    worst, biased = worst_group_on_fair_toy(pair.first), worst_group_on_fair_toy(pair.second)
    assert low < worst < high and biased < 0.36, (worst, biased)
