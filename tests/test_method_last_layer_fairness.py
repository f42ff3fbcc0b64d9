"""Last-layer fairness: the penalties by hand and by their limits, the layer against logistic regression."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from toys import gaussian_toy, group_accuracies, toy_faces

from aimfair import methods, sampling
from aimfair.environment import AimfairError
from aimfair.methods import _dfr, _penalties
from aimfair.methods.last_layer_fairness import fit_layer, objective
from aimfair.metrics import fairness_report

QUICK = {"lr": 0.01, "weight_decay": 0.0005, "epochs": 400, "penalty": "eo", "alpha": 0.0}


def labels(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 2, (n,), generator=generator) for _ in range(2)]


def toy(n=5000, balanced=False, seed=0):
    x, y, s = gaussian_toy(n, seed=seed)
    labelled = x[:, :-1].double().numpy(), y.numpy(), s.numpy()
    if balanced:
        size = _dfr.smallest_group(labelled)
        labelled = _dfr.part(labelled, sampling.balanced(labelled[1], labelled[2], size, seed))
    return labelled


def soft_eo(labelled, layer):
    x, y, s = map(torch.from_numpy, labelled)
    return _penalties.equalised_odds(x @ layer[:-1] + layer[-1], y, s).item()


def test_soft_error_rates_by_hand():
    target = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1])
    protected = torch.tensor([0, 1, 1, 1, 0, 0, 0, 1, 1])
    p = torch.tensor([0.2, 0.1, 0.3, 0.8, 0.6, 0.9, 0.3, 0.5, 0.6], dtype=torch.float64)
    fp, fn = _penalties.rate_gaps(p, target, protected)
    assert fp.item() == pytest.approx(0.4 - 0.2) and fn.item() == pytest.approx(0.45 - 0.4)
    fp, fn = _penalties.rate_gaps(p, target, protected, joint=True)  # five faces of protected 1, four of 0
    assert fp.item() == pytest.approx(1.2 / 5 - 0.2 / 4) and fn.item() == pytest.approx(0.9 / 5 - 1.2 / 4)


def test_of_hard_decisions_the_soft_gaps_are_the_reports():
    target, protected = labels(400)
    decision = (torch.rand(400, generator=torch.Generator().manual_seed(1)) < 0.3 + 0.3 * target).long()
    logits = torch.where(decision == 1, 50.0, -50.0).double()
    report = fairness_report(target, decision, protected)
    assert _penalties.equalised_odds(logits, target, protected).item() == pytest.approx(report.eo_sum / 100)


def test_on_balanced_groups_the_released_form_is_half_and_elsewhere_it_is_not():
    logits = torch.randn(80, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target, protected = torch.arange(80) % 2, torch.arange(80) // 2 % 2
    ours, released = (_penalties.equalised_odds(logits, target, protected, joint) for joint in (False, True))
    assert released.item() == pytest.approx(ours.item() / 2) and ours > 0.05
    protected = torch.where(torch.arange(80) < 60, target, protected)
    ours, released = (_penalties.equalised_odds(logits, target, protected, joint) for joint in (False, True))
    assert released.item() != pytest.approx(ours.item() / 2, rel=0.05)


@pytest.mark.parametrize(
    "measure", [*_penalties.PENALTIES.values(), _penalties.worst_group_loss], ids=[*_penalties.PENALTIES, "mmf"]
)
def test_gradients_agree_with_finite_differences(measure):
    target, protected = labels(30)
    logits = torch.randn(30, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: measure(z, target, protected), logits)


def test_equal_scores_in_both_groups_cost_nothing():
    target = torch.arange(40) % 2
    logits = torch.randn(40, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).repeat(2)
    target, protected = target.repeat(2), torch.arange(80) // 40
    for name in ("eo", "eo-joint", "ae"):
        assert _penalties.PENALTIES[name](logits, target, protected).item() == pytest.approx(0, abs=1e-12)
    assert _penalties.PENALTIES["di"](logits, target, protected).item() == pytest.approx(-1)


def test_an_empty_cell_makes_no_gap():
    target, protected = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])
    logits = torch.tensor([0.0, 4.0, 1.0], dtype=torch.float64, requires_grad=True)
    fp, fn = _penalties.rate_gaps(torch.sigmoid(logits), target, protected)
    assert fn == 0 and fp > 0.4
    alone = [measure(logits, target, torch.ones(3)) for measure in _penalties.PENALTIES.values()]
    assert [value.item() for value in alone] == [0, 0, 0, -1]
    torch.stack(alone).sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_other_penalties_by_hand():
    target, protected = torch.tensor([1, 1, 0, 0]), torch.tensor([0, 1, 0, 1])
    p = torch.tensor([0.9, 0.6, 0.2, 0.5], dtype=torch.float64)
    ce = -np.log([0.9, 0.6, 0.8, 0.5])
    logits = torch.logit(p)
    assert _penalties.error_gap(logits, target, protected).item() == pytest.approx((ce[1] + ce[3] - ce[0] - ce[2]) / 2)
    assert _penalties.disparate_impact(logits, target, protected).item() == pytest.approx(-0.55 / 0.55)
    assert _penalties.worst_group_loss(logits, target, protected).item() == pytest.approx(ce[3])
    assert objective(logits, target, protected, "mmf", 7.0).item() == pytest.approx(ce[3])


def test_without_a_penalty_it_is_logistic_regression():
    x, y, s = toy(balanced=True)
    layer, _ = fit_layer((x, y, s), QUICK | {"lr": 0.1, "weight_decay": 0.01})
    with_one = np.concatenate([x, np.ones((len(x), 1))], 1)
    exact = LogisticRegression(C=1 / (0.01 * len(x)), fit_intercept=False, tol=1e-10, max_iter=1000).fit(with_one, y)
    assert np.allclose(layer.numpy(), exact.coef_[0], atol=1e-3)


def test_a_rarer_class_weighs_more():
    target, protected = torch.tensor([1, 0, 0, 0]), torch.tensor([0, 1, 0, 1])
    logits = torch.tensor([0.3, -0.2, 1.0, 0.1], dtype=torch.float64)
    expected = torch.nn.functional.cross_entropy(
        torch.stack([torch.zeros(4), logits], 1).double(), target, torch.tensor([1.0, 3.0], dtype=torch.float64)
    )
    assert objective(logits, target, protected, "eo", 0.0).item() == pytest.approx(expected.item())


def test_gaussian_toy_balanced_samples_or_the_penalty_alone_drop_the_spurious_coordinate():
    """Worst group: without a penalty .38; no rule is above .841 in all groups, but for the noise of 520 test samples in
    each minority. Measured: M2 .820, the penalty on biased samples .818, its released form there .24."""
    test_x, test_y, test_s = map(torch.from_numpy, toy(20_000, seed=1))
    biased = toy()
    spurious = {}
    for name, labelled, alpha, penalty in (
        ("biased", biased, 0.0, "eo"),
        ("M2", toy(20_000, balanced=True), 2.0, "eo"),
        ("biased, penalised", biased, 2.0, "eo"),
        ("biased, released penalty", biased, 2.0, "eo-joint"),
    ):
        layer, _ = fit_layer(labelled, QUICK | {"alpha": alpha, "penalty": penalty})
        worst = min(group_accuracies(test_x @ layer[:-1] + layer[-1], test_y, test_s))
        spurious[name] = layer[1].item()
        assert 0.8 < worst < 0.85 if abs(spurious[name]) < 0.1 else worst < 0.42, (name, worst)
    assert abs(spurious["M2"]) < 0.1 and abs(spurious["biased, penalised"]) < 0.1 and spurious["biased"] > 0.9
    # Joint rates of a biased set reward what they should punish: the gap of the rare cells hardly counts.
    assert spurious["biased, released penalty"] > spurious["biased"]


def test_a_larger_penalty_leaves_less_unfairness_at_the_price_of_loss():
    labelled = toy()
    layers = [fit_layer(labelled, QUICK | {"alpha": alpha})[0] for alpha in (0.0, 0.1, 0.2, 0.5)]
    unfairness = [soft_eo(labelled, layer) for layer in layers]
    assert unfairness == sorted(unfairness, reverse=True) and unfairness[0] > 0.7 and unfairness[-1] < 0.05
    x, y, s = map(torch.from_numpy, labelled)
    losses = [objective(x @ layer[:-1] + layer[-1], y, s, "eo", 0.0).item() for layer in layers]
    assert losses == sorted(losses) and losses[-1] > losses[0] + 0.05


def fit(bench, **hyper):
    method = methods.get("last-layer-fairness")
    return method.fit(bench.seen_by(method), method.hyper(epochs=20, **hyper))


def test_the_layer_is_fitted_on_equal_groups_of_training_and_validation_faces_together(bench):
    assert fit(bench).scores["faces"] == 4 * 16  # 6 and 10 faces of the smallest group
    assert fit(bench, data="validation").scores["faces"] == 40 and fit(bench, data="train").scores["faces"] == 120


def test_only_the_last_layer_changes(bench):
    before, after = bench.biased_model().state_dict(), fit(bench, penalty="mmf").model.state_dict()
    assert {n for n in before if not torch.equal(before[n], after[n])} == {"fc.weight", "fc.bias"}


def test_mistakes_are_named(bench):
    with pytest.raises(AimfairError, match="penalty must be one of eo, eo-joint, ae, di or mmf, got 'dp'"):
        fit(bench, penalty="dp")
    with pytest.raises(AimfairError, match="data must be one of both, validation, train, got 'test'"):
        fit(bench, data="test")
    lacking = replace(bench, train=toy_faces((0, 9, 9, 9)), validation=toy_faces((0, 9, 9, 9)))
    with pytest.raises(AimfairError, match="a face of every group"):
        fit(lacking)
    with pytest.raises(AimfairError, match="not finite"):
        fit(bench, lr=1e300)
