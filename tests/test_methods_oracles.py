"""Group DRO's loss, the oracles of sampling, MAPLE; and what holds for every method that is told group labels."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from toys import (
    fit_linear,
    fit_method,
    gaussian_toy,
    group_accuracies,
    same_weights,
    toy_faces,
    worst_group_on_fair_toy,
)

from aimfair import methods, sampling
from aimfair.environment import AimfairError
from aimfair.methods import Fitted, maple
from aimfair.methods.erm import shuffled
from aimfair.methods.group_dro import GroupDRO, balanced_order, updated_weights
from aimfair.training import History, binary_cross_entropy

FROM_SCRATCH = ("balanced-sampling", "group-dro", "subsampling")
UNIFORM, LOSSES, ALL = torch.full((4,), 0.25), torch.tensor([0.2, 1.0, 0.1, 2.0]), torch.ones(4, dtype=torch.bool)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------------------------------------------- Group DRO's loss


def batch(groups):
    logits = torch.randn(len(groups), generator=generator())
    return logits, (torch.arange(len(groups)) % 2).float(), torch.arange(len(groups))


def test_weights_and_loss_of_the_worked_example():
    q = updated_weights(UNIFORM, LOSSES, ALL, eta=0.01)
    assert q.tolist() == pytest.approx([0.24844, 0.25043, 0.24819, 0.25295], abs=1e-5)
    assert (q * LOSSES).sum().item() == pytest.approx(0.83083, abs=1e-5)
    groups = torch.arange(4).repeat_interleave(torch.tensor([9000, 1000, 9000, 1000]))
    q = updated_weights(UNIFORM, LOSSES + GroupDRO(groups, adjustment=2.0).margin, ALL, eta=0.01)
    assert q.tolist() == pytest.approx([0.24838, 0.25048, 0.24813, 0.25300], abs=1e-5)


def test_eta_zero_is_the_mean_of_the_group_means_and_one_group_is_erm():
    groups = torch.tensor([0] * 20 + [1] * 3 + [2] * 5 + [3] * 2)
    loss, (logits, target, index) = GroupDRO(groups, eta=0.0), batch(groups)
    each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    expected = torch.stack([each[groups == g].mean() for g in range(4)]).mean()
    assert torch.allclose(loss(logits, target, index), expected) and torch.equal(loss.q, UNIFORM)
    alone = GroupDRO(torch.zeros(30, dtype=torch.int64), eta=1.0)
    assert torch.allclose(alone(logits, target, index), binary_cross_entropy(logits, target, index))


def test_weights_stay_in_the_simplex_and_a_large_eta_puts_all_on_the_worst():
    q = UNIFORM
    for _ in range(50):
        q = updated_weights(q, LOSSES, ALL, eta=1e4)
        assert q.sum().item() == pytest.approx(1, abs=1e-6) and (q >= 0).all()
    assert torch.allclose(q, torch.tensor([0.0, 0.0, 0.0, 1.0]), atol=1e-6)
    for _ in range(50):  # what underflowed is not lost
        q = updated_weights(q, LOSSES.flip(0), ALL, eta=1.0)
    assert q[0] > 0.9


def test_an_absent_group_keeps_its_weight_one_without_samples_has_none_and_only_the_weights_are_remembered():
    loss = GroupDRO(torch.tensor([0, 0, 1, 3]), eta=1.0)
    assert torch.allclose(loss.q, torch.tensor([1, 1, 0, 1]) / 3) and list(loss.state_dict()) == ["q"]
    loss(torch.tensor([3.0, -3.0]), torch.zeros(2), torch.tensor([0, 2]))
    assert loss.q[3].item() == pytest.approx(1 / 3) and loss.q[0] > 0.6 and loss.q.sum().item() == pytest.approx(1)


def test_no_gradient_passes_through_the_weights():
    loss, logits = GroupDRO(torch.arange(4), eta=5.0), torch.zeros(4, requires_grad=True)
    loss(logits, torch.tensor([0.0, 0, 1, 1]), torch.arange(4)).backward()
    assert torch.allclose(logits.grad, loss.q * torch.tensor([0.5, 0.5, -0.5, -0.5]))


def test_the_balanced_order_draws_every_group_alike():
    groups = torch.tensor([0] * 900 + [1] * 100 + [3] * 3000)
    shares = torch.bincount(groups[balanced_order(groups)(generator())], minlength=4) / len(groups)
    assert torch.allclose(shares, torch.tensor([1, 1, 0, 1]) / 3, atol=0.03)


@pytest.mark.parametrize(("groups", "given"), [([0], {"eta": -1.0}), ([0], {"adjustment": -1.0}), ([], {})], ids=str)
def test_impossible_arguments_are_refused(groups, given):
    with pytest.raises(AimfairError, match="at least one sample, eta >= 0 and adjustment >= 0"):
        GroupDRO(torch.tensor(groups, dtype=torch.int64), **given)


def test_passes_are_shuffled_whole_and_cut_to_the_length_of_an_epoch():
    kept = torch.tensor([3, 1, 4, 15, 9])
    drawn = shuffled(kept, 23)(generator()).tolist()
    counts = Counter(drawn)
    assert len(drawn) == 23 and set(counts) == set(kept.tolist()) and set(counts.values()) <= {4, 5}
    assert sorted(drawn[:5]) == sorted(kept.tolist()) == sorted(drawn[5:10])
    assert torch.equal(shuffled(torch.arange(100), 100)(generator()), torch.randperm(100, generator=generator()))


# -------------------------------------------------------------------------------------------------------- the oracles


@pytest.mark.parametrize("name", [name for name, method in methods.registry().items() if method.is_oracle])
def test_an_oracle_reads_every_label_that_it_asks_for(bench, name):
    method = methods.get(name)
    for need in method.needs:
        told_less = bench.seen_by(replace(method, needs=method.needs - {need}))
        with pytest.raises(AimfairError, match="withheld"):
            method.fit(told_less, method.hyper())


@pytest.mark.parametrize("name", FROM_SCRATCH)
def test_the_epoch_is_chosen_by_the_worst_validation_group(bench, name):
    history = fit_method(replace(bench, pretraining=replace(bench.pretraining, epochs=3)), name).history
    worst = history.validation_worst_group
    assert len(worst) == 3 and worst[history.chosen] == max(worst)


def test_group_dros_weights_climb_and_those_of_small_groups_faster_with_the_adjustment(bench):
    still, climbed, plain, adjusted = (
        fit_method(bench, "group-dro", **hyper).scores["group_weights"]
        for hyper in ({"eta": 0.0}, {"eta": 1.0}, {"eta": 0.1}, {"eta": 0.1, "adjustment": 5.0})
    )
    assert still == [0.25] * 4 and sum(climbed) == pytest.approx(1, abs=1e-4) and max(climbed) > 0.3
    assert adjusted[0] > plain[0] and adjusted[3] > plain[3]  # 6 faces each; the others have 54


def test_a_group_without_training_faces_is_noted_or_refused(bench):
    lacking = replace(bench, train=toy_faces((0, 50, 50, 20), 1))
    dro, rwg = (fit_method(lacking, name).scores for name in ("group-dro", "balanced-sampling"))
    assert "counts (0, 50, 50, 20)" in dro["note"] and "counts (0, 50, 50, 20)" in rwg["note"]
    assert dro["group_weights"][0] == 0
    with pytest.raises(AimfairError, match=r"a training face of every group; the counts are \(0, 50, 50, 20\)"):
        fit_method(lacking, "subsampling")


def test_sub_sampling_keeps_as_many_of_each_group_and_trains_as_long_as_erm_unless_told_otherwise(bench):
    long, short = (fit_method(bench, "subsampling", same_updates=same) for same in (True, False))
    assert long.scores["faces"] == 24
    assert [int(fitted.model.bn1.num_batches_tracked) for fitted in (long, short)] == [120 // 32, 1]


def test_on_the_gaussian_toy_erm_leans_on_the_shortcut_and_every_oracle_drops_it():
    """Worst group: ERM .42; no rule is above .841 in all groups, but for noise. Group DRO at eta 1 leaves a weight of .10
    on the shortcut where the others have .01."""
    x, y, s = gaussian_toy(10_000)
    groups = 2 * y + s
    erm = fit_linear(x, y, binary_cross_entropy, epochs=12, batch_size=250)
    assert erm.weight[1] > 1.1 and worst_group_on_fair_toy(erm) < 0.45
    kept = torch.from_numpy(sampling.balanced(y, s, int(groups.bincount().min()), 0))
    for loss, order in (
        (binary_cross_entropy, balanced_order(groups)),
        (binary_cross_entropy, shuffled(kept, len(y))),
        (GroupDRO(groups, eta=0.01), balanced_order(groups)),
        (GroupDRO(groups, eta=0.01), None),
        (GroupDRO(groups, eta=1.0), balanced_order(groups)),
    ):
        model = fit_linear(x, y, loss, order, epochs=12, batch_size=250)
        assert model.weight[0] > 1.5 and abs(model.weight[1]) < 0.15 and 0.8 < worst_group_on_fair_toy(model) < 0.85


# -------------------------------------------------------------------------------------------------------------- MAPLE


def test_the_projection_keeps_the_budget_and_is_the_nearest_point():
    three = maple.project(torch.tensor([0.9, 0.8, 0.1]).double(), 1.0)
    assert three.tolist() == pytest.approx([0.55, 0.45, 0.0])
    inside = torch.tensor([0.2, 1.7, -0.3]).double()
    assert torch.equal(maple.project(inside, 1.5), inside.clamp(0, 1))  # within the budget: only clipped
    s = 3 * torch.randn(1000, generator=generator(), dtype=torch.float64)
    p = maple.project(s, 30.0)
    between = (p > 0) & (p < 1)
    assert p.min() >= 0 and p.max() <= 1 and abs(p.sum() - 30) < 1e-6
    assert (s - p)[between].std() < 1e-9  # one v for all


def test_masks_keep_each_sample_with_its_probability_and_their_slope_is_that_of_the_sigmoid_behind_them():
    s = torch.linspace(0, 1, 11, dtype=torch.float64)
    for temperature in (1.0, 33.0):
        dice = generator(1)
        kept = torch.stack([maple.draw(s, temperature, dice)[0] for _ in range(4000)]).double().mean(0)
        assert (kept - s).abs().max() < 0.03 and kept[0] == 0 and kept[-1] == 1
    s = torch.linspace(0.05, 0.95, 10, dtype=torch.float64).requires_grad_()
    _, slope = maple.draw(s.detach(), 3.0, generator(2))
    noise = torch.rand(10, generator=generator(2), dtype=torch.float64).logit()
    torch.sigmoid(3.0 * (s.logit() + noise)).sum().backward()
    assert torch.allclose(slope, s.grad)


def test_the_hyper_gradient_is_that_of_one_step_by_finite_differences():
    """Five samples, three kept: move each weight a little, replay the last step, measure the outer risk."""
    dice = generator(3)
    x, y = torch.randn(5, 3, generator=dice).double(), torch.tensor([0.0, 1, 1, 0, 1]).double()
    outside = (torch.randn(40, 3, generator=dice).double(), torch.arange(40).double() % 2, torch.arange(40) % 4)
    mask, rate = torch.tensor([1.0, 1, 0, 0, 1]).double(), 0.3
    theta, before = maple.descend(x[mask > 0], y[mask > 0], rate, 6)

    def gradient(m):
        return x.T @ (m * (torch.sigmoid(x @ before) - y)) / m.sum()

    carried = theta - before + rate * gradient(mask)  # what momentum adds to the last step, whatever the weights

    def risk(m):
        return maple.outer_risk(before + carried - rate * gradient(m), *outside)[0]

    ours = maple.hypergradient(x, y, mask, before, maple.outer_risk(theta, *outside)[1], rate)
    small = 1e-6
    theirs = [(risk(mask + small * e) - risk(mask - small * e)) / (2 * small) for e in torch.eye(5).double()]
    assert torch.allclose(ours, torch.tensor(theirs).double(), rtol=1e-5, atol=1e-9) and ours.abs().min() > 1e-4
    assert abs((mask * ours).sum()) < 1e-12  # only the shares of the kept samples matter, not their scale


def test_the_selection_from_a_biased_toy_moves_towards_balance_and_its_erm_is_fair():
    """Worst group: ERM .38, the rule on the first coordinate alone .84; measured .77."""
    x, y, s = gaussian_toy(4000)
    outside = gaussian_toy(1000, agree=0.5, seed=1)
    fresh, target, protected = gaussian_toy(10_000, agree=0.5, seed=2)
    found = maple.choose(x, y, (outside[0], outside[1], 2 * outside[1] + outside[2]), budget=800)

    def worst_group(kept):
        theta, _ = maple.descend(x[kept].double(), y[kept].double(), 1 / maple.curvature(x.double()), 300)
        return min(group_accuracies(fresh.double() @ theta, target, protected))

    majority = (s == y).double()
    assert found.selected.sum() <= 850 and found.probabilities.sum() <= 800 + 1e-3
    assert majority.mean() > 0.94 and majority[found.selected].mean() < 0.8
    assert worst_group(torch.ones(4000, dtype=torch.bool)) < 0.45 and 0.7 < worst_group(found.selected) < 0.85
    assert found.risks[-1] < 0.5 * found.risks[0] and len(found.risks) == 30


def outside_of(x, y, s, scale=1.0):
    return scale * x, y, 2 * y + s


def test_a_round_without_a_sample_ends_the_search_with_a_note(bench, monkeypatch):
    x, y, s = gaussian_toy(500)
    found = maple.choose(x, y, outside_of(x, y, s), 0.5)
    assert found.note.startswith("no sample was left in round 1:") and found.risks == []
    assert torch.allclose(found.probabilities, torch.tensor(0.001).double())
    choice = maple.Choice(torch.ones(120) > 0, torch.ones(120), [], found.note)
    monkeypatch.setattr(maple, "choose", lambda *_, **__: choice)
    assert fit_method(bench, "maple").scores["note"] == found.note


def test_the_validation_set_is_halved_within_each_group_one_half_selects_faces_and_the_other_the_epoch(
    bench, monkeypatch
):
    groups = torch.tensor([0, 0, 0, 0, 1, 1, 2, 3, 3, 3])
    first, second = maple.halves(groups)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(10))
    assert groups[first].bincount(minlength=4).tolist() == [2, 1, 1, 2]
    given = []
    monkeypatch.setattr(maple, "from_scratch", lambda bench, *_, **__: given.append(bench) or Fitted(None, History()))
    outer, inner = maple.halves(bench.validation.groups)

    def risks(dark):
        images = bench.validation.images.clone()
        images[dark] = 0
        half_dark = replace(bench, validation=replace(bench.validation, images=images))
        return fit_method(half_dark, "maple", rounds=2, inner_steps=5).scores["outer_risk"]

    assert risks(inner) == risks([]) != risks(outer)
    assert given[0].validation.names.tolist() == bench.validation.names[inner].tolist()


def test_keeping_everything_is_erm_and_a_selection_is_trained_on_as_long(bench):
    erm, some, kept = fit_method(bench, "erm"), fit_method(bench, "maple"), fit_method(bench, "maple", share=1.0)
    assert same_weights(erm, kept) and kept.scores == {"selected": 120}
    assert not same_weights(erm, some)
    assert torch.equal(erm.model.bn1.num_batches_tracked, some.model.bn1.num_batches_tracked)


def test_a_selection_that_cannot_be_trained_on_is_replaced_and_said(bench):
    scores = fit_method(bench, "maple", share=0.005).scores
    assert "trained on all samples" in scores["note"] and scores["selected"] == 120


def test_what_diverges_is_said():
    x, y, s = gaussian_toy(500)
    broken = x.clone()
    broken[3, 2] = torch.inf
    with pytest.raises(AimfairError, match="the inner regression diverges at rate 1e"):
        maple.descend(x.double(), y.double(), 1e3, 50)
    with pytest.raises(AimfairError, match="the features are not finite"):
        maple.choose(broken, y, outside_of(x, y, s), 100)
    with pytest.raises(AimfairError, match="the outer risk is not finite in round 1"):
        maple.choose(x, y, outside_of(broken, y, s), 100)
