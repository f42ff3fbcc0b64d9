"""MAPLE: projection, masks, the one-step hyper-gradient, and what is selected from a biased toy."""

import math
from dataclasses import replace

import pytest
import torch
from toys import gaussian_toy, group_accuracies

from aimfair import methods
from aimfair.environment import AimfairError
from aimfair.methods import Fitted, _maple, maple
from aimfair.methods.subsampling import repeated_order
from aimfair.training import History

FIT = maple.fit


def weights(fitted):
    return torch.cat([value.flatten().double() for value in fitted.model.state_dict().values()])


def test_the_projection_keeps_the_budget_and_is_the_nearest_point():
    assert torch.allclose(
        _maple.project(torch.tensor([0.9, 0.8, 0.1]).double(), 1.0), torch.tensor([0.55, 0.45, 0.0]).double()
    )
    inside = torch.tensor([0.2, 1.7, -0.3]).double()
    assert torch.equal(_maple.project(inside, 1.5), inside.clamp(0, 1))  # within the budget: only clipped
    generator = torch.Generator().manual_seed(0)
    for budget in (1.0, 30.0, 299.0, 500.0):
        s = 3 * torch.randn(1000, generator=generator, dtype=torch.float64)
        p = _maple.project(s, budget)
        assert p.min() >= 0 and p.max() <= 1 and p.sum() <= budget + 1e-3
        if s.clamp(0, 1).sum() > budget:
            between = (p > 0) & (p < 1)
            assert abs(p.sum() - budget) < 1e-6 and (s - p)[between].std() < 1e-9  # one v for all
            for _ in range(20):  # no feasible point is nearer
                q = torch.rand(1000, generator=generator, dtype=torch.float64)
                q *= min(1.0, budget / q.sum().item())
                assert (s - p).norm() < (s - q).norm()


def test_temperature_and_budget_follow_their_schedules():
    assert _maple.temperature(0.0) == pytest.approx(1.0) and _maple.temperature(1.0) == pytest.approx(1 / 0.03)
    falling = [_maple.budget_of(300, 1000, t / 30) for t in range(31)]
    assert falling[:5] == [1000] * 5 and falling[18:] == [300] * 13 and falling == sorted(falling, reverse=True)
    assert _maple.budget_of(300, 1000, 0.38) == pytest.approx(300 + 700 / 8)  # half way, cubed
    assert _maple.budget_of(300, 300, 0.3) == 300


def test_masks_keep_each_sample_with_its_probability_at_any_temperature():
    s = torch.linspace(0, 1, 11, dtype=torch.float64)
    for temperature in (1.0, 33.0):
        generator = torch.Generator().manual_seed(1)
        kept = torch.stack([_maple.draw(s, temperature, generator)[0] for _ in range(4000)]).double().mean(0)
        assert (kept - s).abs().max() < 0.03 and kept[0] == 0 and kept[-1] == 1


def test_the_slope_of_a_mask_is_that_of_the_sigmoid_behind_it():
    s = torch.linspace(0.05, 0.95, 10, dtype=torch.float64).requires_grad_()
    _, slope = _maple.draw(s.detach(), 3.0, torch.Generator().manual_seed(2))
    noise = torch.rand(10, generator=torch.Generator().manual_seed(2), dtype=torch.float64).logit()
    torch.sigmoid(3.0 * (s.logit() + noise)).sum().backward()
    assert torch.allclose(slope, s.grad)


@pytest.mark.parametrize("outer", _maple.OUTER)
def test_the_hyper_gradient_is_that_of_one_step_by_finite_differences(outer):
    """Five samples, three kept: move each weight a little, replay the last step, measure the outer risk."""
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(5, 3, generator=generator).double(), torch.tensor([0.0, 1, 1, 0, 1]).double()
    outside = (torch.randn(40, 3, generator=generator).double(), torch.arange(40).double() % 2, torch.arange(40) % 4)
    mask, rate = torch.tensor([1.0, 1, 0, 0, 1]).double(), 0.3
    theta, before = _maple.descend(x[mask > 0], y[mask > 0], rate, 6)

    def gradient(m):
        return x.T @ (m * (torch.sigmoid(x @ before) - y)) / m.sum()

    carried = theta - before + rate * gradient(mask)  # what momentum adds to the last step, whatever the weights

    def risk(m):
        return _maple.outer_risk(before + carried - rate * gradient(m), *outside, outer)[0]

    _, direction = _maple.outer_risk(theta, *outside, outer)
    ours = _maple.hypergradient(x, y, mask, before, direction, rate)
    small = 1e-6
    theirs = [(risk(mask + small * e) - risk(mask - small * e)) / (2 * small) for e in torch.eye(5).double()]
    assert torch.allclose(ours, torch.tensor(theirs).double(), rtol=1e-5, atol=1e-9) and ours.abs().min() > 1e-4
    assert abs((mask * ours).sum()) < 1e-12  # only the shares of the kept samples matter, not their scale


@pytest.mark.parametrize("outer", _maple.OUTER)
def test_the_selection_from_a_biased_toy_moves_towards_balance_and_its_erm_is_fair(outer):
    """Worst group: ERM .38, the rule on the first coordinate alone .84. Measured: .77 under the worst-group risk (weight of
    the shortcut .27, 69 per cent of the selected from the majorities), .76 under the balanced one (.24, 67)."""
    x, y, s = gaussian_toy(4000)
    outside = gaussian_toy(1000, agree=0.5, seed=1)
    fresh, target, protected = gaussian_toy(10_000, agree=0.5, seed=2)
    found = _maple.choose(x, y, (outside[0], outside[1], 2 * outside[1] + outside[2]), budget=800, outer=outer)
    everything = torch.ones(4000, dtype=torch.bool)

    def worst_group(kept):
        theta, _ = _maple.descend(x[kept].double(), y[kept].double(), 1 / _maple.curvature(x.double()), 300)
        return min(group_accuracies(fresh.double() @ theta, target, protected))

    majority = (s == y).double()
    assert found.selected.sum() <= 850 and found.probabilities.sum() <= 800 + 1e-3
    assert majority.mean() > 0.94 and majority[found.selected].mean() < 0.8
    print(f"MAPLE {outer}: worst group {worst_group(found.selected):.3f}")
    assert worst_group(everything) < 0.45 and 0.7 < worst_group(found.selected) < 0.85
    assert found.risks[-1] < 0.5 * found.risks[0] and len(found.risks) == 30


def outside_of(x, y, s, scale=1.0):
    return scale * x, y, 2 * y + s


def test_the_outer_gradient_is_cut_to_a_norm_of_three_and_a_smaller_one_left_alone(monkeypatch):
    norms = []

    class Watched(torch.optim.Adam):
        def step(self):
            norms.append(self.param_groups[0]["params"][0].grad.norm().item())
            super().step()

    monkeypatch.setattr(torch.optim, "Adam", Watched)
    (x, y, _), fair = gaussian_toy(500), gaussian_toy(200, agree=0.5, seed=1)
    for scale in (1.0, 1e5):
        _maple.choose(x, y, outside_of(*fair, scale), 100, rounds=1)
    assert norms[0] < 1 and norms[1] == pytest.approx(3, abs=1e-4)


def test_no_outer_rate_leaves_the_probabilities_at_the_budget_and_a_larger_start_is_where_they_begin():
    x, y, s = gaussian_toy(200)
    for start, share in ((0.0, 0.25), (160.0, 0.8)):
        found = _maple.choose(x, y, outside_of(x, y, s), 50, rounds=1, inner_steps=2, outer_lr=0.0, start=start)
        assert torch.allclose(found.probabilities, torch.tensor(share).double())


def test_a_round_without_a_sample_ends_the_search_with_a_note(bench, monkeypatch):
    x, y, s = gaussian_toy(500)
    found = _maple.choose(x, y, outside_of(x, y, s), 0.5)
    assert found.note.startswith("no sample was left in round 1:") and found.risks == []
    assert torch.allclose(found.probabilities, torch.tensor(0.001).double())
    monkeypatch.setattr(maple, "choose", lambda *_: _maple.Choice(torch.ones(120) > 0, torch.ones(120), [], found.note))
    assert FIT(bench, maple.METHOD.hyper()).scores["note"] == found.note


def test_without_an_inner_step_every_round_has_the_risk_of_a_coin(bench):
    fitted = FIT(bench, maple.METHOD.hyper(rounds=4, inner_steps=0))
    assert fitted.scores["outer_risk"] == [round(math.log(2), 4)] * 4


def test_one_half_of_the_validation_set_selects_the_faces_and_the_other_the_epoch(bench, monkeypatch):
    given = {}
    monkeypatch.setattr(maple, "from_scratch", lambda *_, **how: given.update(how) or Fitted(None, History()))
    outer, inner = maple.halves(bench.validation.groups)

    def risks(dark):
        images = bench.validation.images.clone()
        images[dark] = 0
        half_dark = replace(bench, validation=replace(bench.validation, images=images))
        return FIT(half_dark, maple.METHOD.hyper(rounds=2, inner_steps=5)).scores["outer_risk"]

    assert risks(inner) == risks([]) != risks(outer)
    assert given["validation"].names.tolist() == bench.validation.names[inner].tolist()


def test_keeping_everything_is_erm_bit_for_bit(bench):
    erm = methods.get("erm").fit(bench, {})
    kept = FIT(bench, maple.METHOD.hyper(share=1.0))
    assert torch.equal(weights(erm), weights(kept)) and kept.scores == {"selected": 120}


def test_a_selection_is_trained_on_as_long_as_everything(bench):
    drawn = repeated_order(torch.tensor([1, 4, 8, 9]), 10)(torch.Generator().manual_seed(0)).tolist()
    assert len(drawn) == 10 and sorted(drawn[:4]) == sorted(drawn[4:8]) == [1, 4, 8, 9] and set(drawn) == {1, 4, 8, 9}
    fitted = FIT(bench, maple.METHOD.hyper())
    assert 10 < fitted.scores["selected"] < 60 and len(fitted.scores["outer_risk"]) == 30
    assert not torch.equal(weights(fitted), weights(methods.get("erm").fit(bench, {})))


def test_the_validation_set_is_halved_within_each_group():
    groups = torch.tensor([0, 0, 0, 0, 1, 1, 2, 3, 3, 3])
    first, second = maple.halves(groups)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(10))
    assert groups[first].bincount().tolist() == [2, 1, 1, 2] and groups[second].bincount(minlength=4).tolist() == [
        2,
        1,
        0,
        1,
    ]


def test_no_group_of_a_training_face_is_read_and_those_of_validation_must_be_given(bench):
    seen = bench.seen_by(maple.METHOD)
    assert torch.equal(weights(FIT(seen, maple.METHOD.hyper())), weights(FIT(bench, maple.METHOD.hyper())))
    with pytest.raises(AimfairError, match="withheld"):
        FIT(bench.seen_by(replace(maple.METHOD, needs=frozenset())), maple.METHOD.hyper())


def test_a_selection_that_cannot_be_trained_on_is_replaced_and_said(bench):
    fitted = FIT(bench, maple.METHOD.hyper(share=0.005))
    assert "trained on all samples" in fitted.scores["note"] and fitted.scores["selected"] == 120


def test_what_diverges_is_said():
    x, y, s = gaussian_toy(500)
    with pytest.raises(AimfairError, match="the inner regression diverges at rate 1e"):
        _maple.descend(x.double(), y.double(), 1e3, 50)
    broken = x.clone()
    broken[3, 2] = torch.inf
    with pytest.raises(AimfairError, match="the features are not finite"):
        _maple.choose(broken, y, (x, y, 2 * y + s), 100)
    with pytest.raises(AimfairError, match="the outer risk is not finite in round 1"):
        _maple.choose(x, y, (broken, y, 2 * y + s), 100)


def test_impossible_settings_are_refused(bench):
    for wrong in ({"share": 0.0}, {"share": 1.2}, {"anneal_from": 2.0}):
        with pytest.raises(AimfairError, match="share lies above 0"):
            FIT(bench, maple.METHOD.hyper(**wrong))
    with pytest.raises(AimfairError, match="outer must be one of worst-group, balanced"):
        FIT(bench, maple.METHOD.hyper(outer="best"))
