"""Methods that train from scratch and guess no group: CVaR DRO, mixtures of real and synthetic faces, DiGA-style editing."""

from dataclasses import replace

import pytest
import torch
from toys import (
    fit_linear,
    fit_method,
    gaussian_toy,
    same_weights,
    toy_faces,
    worst_group_on_fair_toy,
)

from aimfair import sampling
from aimfair.environment import AimfairError
from aimfair.methods import Fitted, diga
from aimfair.methods import real_and_synthetic as both_sets
from aimfair.methods.cvar_dro import cvar, cvar_loss, worst_share
from aimfair.study import profiles
from aimfair.training import History, binary_cross_entropy, fit

FOUR = torch.tensor([4.0, 1.0, 3.0, 2.0])
FIVE = torch.tensor([5.0, 1.0, 2.0, 4.0, 3.0])
SHARES = (0.05, 0.45, 0.45, 0.05)


def generator():
    return torch.Generator().manual_seed(3)


# ------------------------------------------------------------------------------------------------------------- CVaR DRO


def some_losses(m=37):
    return torch.randn(m, generator=torch.Generator().manual_seed(0)).exp()


@pytest.mark.parametrize(
    ("losses", "alpha", "value", "weights"),
    [
        (FOUR, 0.5, 3.5, [0.5, 0, 0.5, 0]),
        (FOUR, 0.3, 3.83333, [0.83333, 0, 0.16667, 0]),
        (FOUR, 0.25, 4.0, [1, 0, 0, 0]),
        (FIVE, 0.5, 4.2, [0.4, 0, 0, 0.4, 0.2]),
    ],
)
def test_worked_examples_of_the_cvar(losses, alpha, value, weights):
    assert worst_share(losses, alpha).tolist() == pytest.approx(weights, abs=1e-5)
    assert cvar(losses, alpha).item() == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize("alpha", [0.01, 1 / 37, 0.1, 0.3, 0.77, 1.0])
def test_primal_is_dual_and_weights_are_a_distribution_under_the_cap(alpha):
    losses = some_losses()
    # eta + mean(relu(l - eta)) / alpha is convex and has its kinks at the losses: the minimum is at one of them.
    dual = min((eta + (losses - eta).relu().mean() / alpha).item() for eta in losses)
    assert cvar(losses, alpha).item() == pytest.approx(dual, rel=1e-5)
    limits = {0.01: losses.max(), 1 / 37: losses.max(), 1.0: losses.mean()}
    assert dual == pytest.approx(limits.get(alpha, torch.tensor(dual)).item(), rel=1e-5)
    weights = worst_share(losses, alpha)
    assert weights.sum().item() == pytest.approx(1, abs=1e-5)
    assert weights.min() >= 0 and weights.max().item() <= 1 / (alpha * 37) + 1e-6


def test_the_gradient_of_the_cvar_is_its_weights():
    losses = some_losses(12).double().requires_grad_()
    cvar(losses, 0.4).backward()
    step = 1e-4  # the envelope theorem against central differences of the whole function
    for i in range(12):
        moved = [cvar(losses.detach() + sign * step * torch.eye(12)[i], 0.4).item() for sign in (1, -1)]
        assert losses.grad[i].item() == pytest.approx((moved[0] - moved[1]) / (2 * step), abs=1e-4)


def test_alpha_one_is_erm_and_a_small_alpha_is_not(bench):
    erm = fit_method(bench, "erm").history.loss
    same, other = (fit_method(bench, "cvar-dro", alpha=alpha).history.loss for alpha in (1.0, 0.1))
    assert same == pytest.approx(erm, rel=1e-4) and other[0] > 1.2 * erm[0]


def test_on_the_gaussian_toy_the_cvar_stays_with_erm_or_collapses():
    """Where the classes overlap the worst losses are the samples that no rule gets right, in every group: CVaR does not
    unlearn the shortcut. At alpha .1 the weights shrink to nothing."""
    x, y, _ = gaussian_toy()
    before = worst_group_on_fair_toy(fit_linear(x, y, binary_cross_entropy))
    worst, weights = {}, {}
    for alpha in (0.8, 0.4, 0.1):
        robust = fit_linear(x, y, cvar_loss(alpha), batch_size=128, lr=0.2, epochs=5)
        worst[alpha], weights[alpha] = worst_group_on_fair_toy(robust), robust.weight.detach().norm().item()
    assert all(before - 0.03 < worst[alpha] < before + 0.03 for alpha in (0.8, 0.4)), worst
    assert weights[0.1] < 0.1 * weights[0.8], weights


# -------------------------------------------------------------------------------------------------- real and synthetic


def test_the_mixtures_are_erm_on_their_sets_bit_for_bit(bench):
    bench = replace(bench, pool=toy_faces((60,) * 4, 4))
    sets = {
        "synthetic-only": bench.balanced,
        "supplementation": bench.train + bench.balanced,
        "repairing": both_sets.repaired(bench.train, bench.shares, bench.pool, bench.seed + 2)[0],
    }
    for name, faces in sets.items():
        assert same_weights(fit_method(bench, name), fit_method(replace(bench, train=faces), "erm")), name
    # The paper's bias of one to nine becomes one of three to seven: 6,000 and 14,000, here at a five-hundredth.
    assert (toy_faces((2, 18, 18, 2)) + toy_faces((10,) * 4)).counts() == (12, 28, 28, 12)


@pytest.mark.parametrize(
    ("name", "given", "steps"),
    [("erm", {}, 3), ("supplementation", {}, 7), ("supplementation", {"equal_steps": True}, 3)],
)
def test_an_epoch_has_the_steps_of_both_sets_or_those_of_the_real_one(bench, monkeypatch, name, given, steps):
    assert int(fit_method(bench, name, **given).model.bn1.num_batches_tracked) == steps
    if given:
        orders = []
        monkeypatch.setattr(
            both_sets, "from_scratch", lambda *_, order: orders.append(order) or Fitted(None, History())
        )
        fit_method(bench, name, **given)
        drawn = orders[0](generator())
        assert len(drawn) == len(drawn.unique()) == 120 and drawn.max() >= 120  # of both sets, not of the real one


@pytest.mark.parametrize("name", profiles.available())
def test_the_shares_of_a_profile_count_what_its_training_set_lacks_without_a_label(name):
    assert both_sets.missing(SHARES, 20_000) == [8000, 0, 0, 8000]  # the paper's
    profile = profiles.load(name)
    counts = sampling.quotas(profile.train_images, profile.minority)
    assert both_sets.missing(profile.shares(), sum(counts)) == [max(counts) - count for count in counts]


def test_repaired_groups_are_exactly_equal_and_the_real_faces_all_there():
    real, pool = toy_faces((6, 54, 54, 6), 1), toy_faces((60,) * 4, 4)
    faces, added, wanted = both_sets.repaired(real, SHARES, pool, seed=3)
    assert faces.counts() == (54,) * 4 and added == wanted == [48, 0, 0, 48]
    assert faces.names[: len(real)].tolist() == real.names.tolist()
    assert len(set(faces.names)) == 216  # no synthetic face twice
    blind, *_ = both_sets.repaired(real.without_protected(), SHARES, pool, seed=3)
    assert blind.names.tolist() == faces.names.tolist()
    other, *_ = both_sets.repaired(real, SHARES, pool, seed=4)
    assert set(other.names) != set(faces.names)


def test_a_pool_that_is_too_small_is_used_up_and_noted_and_a_set_without_bias_needs_none(bench):
    short = fit_method(bench, "repairing")  # 30 balanced faces of each group, no larger pool
    assert short.scores["added"] == [30, 0, 0, 30]
    assert short.scores["note"].startswith("the groups stay unequal: [48, 0, 0, 48] synthetic faces are wanted")
    full = fit_method(replace(bench, pool=toy_faces((60,) * 4, 4)), "repairing")
    assert full.scores == {"added": [48, 0, 0, 48]}
    level = fit_method(replace(bench, shares=(0.25,) * 4), "repairing")
    assert level.scores["added"] == [0, 0, 0, 0] and same_weights(level, fit_method(bench, "erm"))


def test_the_blend_of_targets_is_the_blend_of_cross_entropies():
    inputs = torch.randn(16, 3, 4, 4, generator=generator())
    target = torch.randint(0, 2, (16,), generator=generator()).float()
    images, soft = both_sets.mixed(inputs, target, 0.3)
    assert torch.allclose(images, 0.3 * inputs[:8] + 0.7 * inputs[8:])
    logits, index = torch.randn(8, generator=generator()), torch.arange(8)
    of_real, of_synthetic, blended = (
        binary_cross_entropy(logits, y, index).item() for y in (target[:8], target[8:], soft)
    )
    assert blended == pytest.approx(0.3 * of_real + 0.7 * of_synthetic, abs=1e-6)


@pytest.mark.parametrize("given", [{}, {"a": 0.2}, {"pairing": "same label"}], ids=["usual", "a", "pairing"])
def test_mixing_trains_the_biased_model_on_blends_of_its_pairs_and_its_law(bench, given):
    a, pairing, model = given.get("a", 1.0), given.get("pairing", "any"), bench.biased_model()
    history = fit(
        model,
        bench.train + bench.balanced,
        bench.validation,
        replace(bench.finetuning, lr=0.03, batchnorm="eval", batch_size=64),
        seed=bench.seed + 1,
        order=both_sets.paired(bench.train.target, bench.balanced.target, 32, pairing),
        blend=lambda inputs, target, dice: both_sets.mixed(inputs, target, both_sets.beta(a, dice)),
    )
    assert same_weights(fit_method(bench, "ltgc-mixing", lr=0.03, batchnorm="eval", **given), Fitted(model, history))


@pytest.mark.parametrize("pairing", both_sets.PAIRINGS)
def test_every_step_has_half_of_each_class_of_each_set(pairing):
    real, synthetic = torch.tensor([0] * 50 + [1] * 14), torch.tensor([1] * 9 + [0] * 30)
    target = torch.cat([real, synthetic])
    order = both_sets.paired(real, synthetic, 16, pairing)(generator()).view(-1, 2, 16)
    assert len(order) == 4  # the steps of one pass through the real set
    assert (order[:, 0] < 64).all() and (order[:, 1] >= 64).all()
    assert (target[order].sum(2) == 8).all()
    agree = (target[order[:, 0]] == target[order[:, 1]]).double().mean().item()
    assert agree == 1 if pairing == "same label" else 0.25 < agree < 0.75
    assert len(order.unique()) > 40  # faces of every part, not the same few


def test_the_share_follows_its_law_and_its_generator():
    dice = generator()
    draws = torch.tensor([both_sets.beta(0.5, dice) for _ in range(2000)])
    assert draws.mean().item() == pytest.approx(0.5, abs=0.03)
    assert draws.var().item() == pytest.approx(1 / 8, abs=0.01)  # 1 / (4 (2a + 1))
    assert both_sets.beta(0.5, generator()) == both_sets.beta(0.5, generator())


# ----------------------------------------------------------------------------------------------------------------- DiGA


def test_an_epoch_holds_every_face_and_its_edits_side_by_side():
    order = diga.families(5)(generator())
    assert sorted(order.tolist()) == list(range(15))
    face = order.view(5, 3)
    assert (face[:, 0] < 5).all() and (face[:, 1] == face[:, 0] + 5).all() and (face[:, 2] == face[:, 0] + 10).all()


def test_the_penalty_is_the_mean_squared_difference_within_pairs_of_edits():
    n = 10
    index = torch.tensor([15, 25, 3, 13, 23, 4, 14])  # a pair whose face is cut off, a whole family, half a family
    logits = torch.tensor([1.0, 1.6, 50.0, 2.0, 1.2, -9.0, 7.0], requires_grad=True)
    penalty = diga.pair_difference(logits, index, n)
    assert penalty.item() == pytest.approx((0.6**2 + 0.8**2) / 2)
    penalty.backward()
    assert torch.allclose(logits.grad, torch.tensor([-0.6, 0.6, 0, 0.8, -0.8, 0, 0]))
    far = diga.pair_difference(10 * logits, index, n)  # differences 6 and 8: 2 d - 1 in place of d * d
    assert far.item() == pytest.approx((11 + 15) / 2)
    assert diga.pair_difference(logits[:2], torch.tensor([3, 13]), n).item() == 0.0  # no two edits of one face


def test_edits_make_a_linear_classifier_fair_and_the_penalty_makes_it_fairer():
    """Features whose spurious coordinate an edit draws anew, though only half as far as the real one lies."""
    x, y, _ = gaussian_toy(6000)
    dice = torch.Generator().manual_seed(1)
    asked, copies = torch.randint(0, 2, (len(x),), generator=dice), [x]
    for value in (asked, 1 - asked):
        edit = x.clone()
        edit[:, 1] = 1.0 * (2 * value - 1) + torch.randn(len(x), generator=dice)
        copies.append(edit)

    def fitted(weight):
        def loss(logits, target, index):
            return binary_cross_entropy(logits, target, index) + weight * diga.pair_difference(logits, index, len(x))

        return fit_linear(torch.cat(copies), y.repeat(3), loss, order=diga.families(len(x)), epochs=8)

    three = fit_linear(x, y, binary_cross_entropy, epochs=8), fitted(0.0), fitted(0.3)
    worst = [worst_group_on_fair_toy(model) for model in three]
    lean = [abs(model.weight[1] / model.weight[0]).item() for model in three]
    assert worst[0] < 0.5 < worst[1] < worst[2] < 0.85 and lean[0] > 2 * lean[1] > 2 * lean[2]


def test_strengths_reach_the_two_edits_and_the_penalty_the_training(bench):
    asked = []
    watched = replace(bench, edited=lambda *given: asked.append(given) or bench.edited(*given))
    paired, free = (fit_method(watched, "diga", consistency=value, weakest=0.3, strongest=0.6) for value in (1.0, 0.0))
    assert asked == [(0, 0.3, 0.6), (1, 0.3, 0.6)] * 2 and not same_weights(paired, free)
    assert len(paired.scores["mean_change"]) == 2 and min(paired.scores["mean_change"]) > 0


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("ltgc-mixing", {"train": toy_faces((0, 0, 9, 9))}, "real and synthetic faces of both classes"),
        ("diga", {"edited": None}, "no edited faces"),
    ],
)
def test_a_bench_that_a_method_cannot_work_with_is_refused(bench, name, changes, said):
    with pytest.raises(AimfairError, match=said):
        fit_method(replace(bench, **changes), name)
