"""The extensions in notebooks/methods, on the toy bench."""

from dataclasses import replace

import pytest
import torch
from toys import fit_method as fit
from toys import same, state, toy_faces

from aimfair import masks, methods, training
from aimfair.environment import AimfairError, Diverged
from aimfair.gradients import gap, mean_gradients
from aimfair.methods import edit_add_tune
from aimfair.methods.batchnorm_real import reestimate
from aimfair.methods.finetuning import three_gradients
from aimfair.methods.gradient_scores import moments, signal_to_noise
from aimfair.methods.unit_masks import spread, unit_gaps, unit_sizes, within, worse_rank
from aimfair.models import as_input


def parameters(model):
    return {name for name, _ in model.named_parameters()}


# ------------------------------------------------------------------------------------------- interpolation, batch norm


def test_interpolation_goes_from_the_biased_to_the_fully_fine_tuned_model(bench):
    biased, full = bench.biased_model().state_dict(), state(fit(bench, "full-finetuning", lr=0.03))
    start, middle, end = (state(fit(bench, "weight-interpolation", lr=0.03, a=a)) for a in (0, 0.3, 1.0))
    assert same(full, end) and same(biased, start, [n for n, value in biased.items() if value.is_floating_point()])
    for name, value in middle.items():
        wanted = 0.7 * biased[name] + 0.3 * full[name] if value.is_floating_point() else full[name]
        torch.testing.assert_close(value, wanted)
    again = state(fit(bench, "weight-interpolation", lr=0.03, a=0.3, statistics="re-estimated"))
    assert same(middle, again, parameters(bench.biased_model()))
    assert not torch.equal(middle["bn1.running_mean"], again["bn1.running_mean"])


def test_re_estimated_statistics_are_mean_and_variance_of_the_images(bench):
    faces, model = bench.train, bench.biased_model()
    weights = {name: value.clone() for name, value in model.named_parameters()}
    reestimate(model, faces.without_protected(), batch_size=len(faces), seed=3, device="cpu")
    seen = model.conv1(as_input(faces.images)).double()  # (120, C, H, W): what the first batch norm is given
    torch.testing.assert_close(model.bn1.running_mean.double(), seen.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.bn1.running_var.double(), seen.var((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert same(weights, dict(model.named_parameters())) and model.bn1.momentum == 0.1


def test_of_several_batches_the_statistics_are_the_mean_and_what_they_were_before_does_not_count(bench):
    one, other = bench.biased_model(), bench.biased_model()
    torch.nn.init.constant_(other.bn1.running_mean, 7.0)
    for model in (one, other):
        reestimate(model, bench.train, batch_size=40, seed=3, device="cpu")
    assert same(one.state_dict(), other.state_dict())
    overall = one.conv1(as_input(bench.train.images)).mean((0, 2, 3))  # three full batches: the mean of means
    torch.testing.assert_close(one.bn1.running_mean, overall, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("mask", "name", "hyper"), [("aim-fair", "aim-fair", {"k": 50}), ("random", "random-mask", {"k": 50, "draw": 1})]
)
def test_statistics_of_real_images_come_after_the_same_fine_tuning(bench, mask, name, hyper):
    plain = fit(bench, name, lr=0.03, **hyper)
    real = fit(bench, "batchnorm-real", lr=0.03, mask=mask, **hyper)
    assert same(state(plain), state(real), parameters(real.model)) and real.scores["mask"] == plain.scores["mask"]
    reestimate(plain.model, bench.train, 32, bench.seed, "cpu")
    assert same(state(plain), state(real))


def test_with_nothing_fine_tuned_only_statistics_change_and_labels_do_not_matter(bench):
    biased, after = bench.biased_model().state_dict(), fit(bench, "batchnorm-real", mask="none")
    moved = {name for name in biased if not torch.equal(biased[name], state(after)[name])}
    assert moved and all("running" in name or "num_batches" in name for name in moved)
    assert after.history.chosen == -1 and after.history.loss == []
    flipped = replace(bench, train=replace(bench.train, target=1 - bench.train.target))
    assert same(state(after), state(fit(flipped, "batchnorm-real", mask="none")))


def test_a_network_without_batch_norm_and_no_images_are_refused(bench):
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 1))
    with pytest.raises(AimfairError, match="no batch norm, so there are no statistics"):
        reestimate(plain, bench.train, 32, 0, "cpu")
    with pytest.raises(AimfairError, match="no images"):
        reestimate(bench.biased_model(), bench.train.subset([]), 32, 0, "cpu")


# ------------------------------------------------------------------------------------------------------- finer masks

TWO = {"a": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "b": torch.tensor([5.0, 6.0, 7.0])}
ZERO = {name: torch.zeros_like(value) for name, value in TWO.items()}


def test_units_are_counted_and_their_gaps_averaged(bench):
    assert unit_sizes(TWO, "channel").tolist() == [2, 2, 1, 1, 1] and unit_sizes(TWO, "scalar").tolist() == [1] * 7
    assert unit_gaps(TWO, ZERO, "channel").tolist() == [1.5, 3.5, 5, 6, 7]
    assert unit_gaps(ZERO, TWO, "scalar").tolist() == [1, 2, 3, 4, 5, 6, 7]
    with pytest.raises(AimfairError, match="unit must be one of channel, scalar, got 'row'"):
        unit_sizes(TWO, "row")
    on_real, on_biased, on_balanced = three_gradients(bench, "eval")
    per_channel = unit_gaps(on_biased, on_balanced, "channel").split([len(t) for t in on_real.values()])
    for wanted, found in zip(gap(on_biased, on_balanced).values(), per_channel, strict=True):
        assert found.mean().item() == pytest.approx(wanted, rel=1e-5)  # channels of a tensor have one size
    # 20 convolutions and shortcuts each with a batch norm: three tensors per output channel; the head two units more.
    assert sum(map(len, per_channel)) == 3 * 1200 + 2


def test_units_are_selected_by_ranks_as_the_papers_tensors_are():
    d1, d2 = torch.tensor([0.1, 0.6, 0.2, 0.5, 0.3, 0.4]), torch.tensor([0.9, 0.8, 0.1, 0.7, 0.2, 0.3])
    rank, gaps = worse_rank(d1, d2), [dict(zip("abcdef", d.tolist(), strict=True)) for d in (d1, d2)]
    for k in (3, 4, 5, 6):
        assert {n for n, r in zip("abcdef", rank, strict=True) if r < k} == masks.select(*gaps, k)
    with pytest.raises(AimfairError, match="not finite"):
        worse_rank(d1, torch.tensor([float("nan")] * 6))


def test_a_budget_is_filled_in_order_and_never_exceeded():
    sizes, order = torch.tensor([2, 2, 1, 1, 1]), torch.tensor([4, 0, 1, 2, 3])
    assert within(order, sizes, 4).tolist() == [True, False, False, False, True]  # the next would make five
    single = torch.ones(7, dtype=torch.int64)
    assert [int(within(torch.arange(7), single, n).sum()) for n in (0, 3, 7, 9)] == [0, 3, 7, 7]
    elements = spread(torch.tensor([False, True, False, True, False]), TWO, "channel")
    assert elements["a"].tolist() == [[False, False], [True, True]] and elements["b"].tolist() == [False, True, False]
    with pytest.raises(AimfairError, match="the mask is empty"):
        spread(torch.zeros(5, dtype=torch.bool), TWO, "channel")


@pytest.mark.parametrize(("unit", "ranking"), [("channel", "gaps"), ("channel", "random"), ("scalar", "gaps")])
def test_only_chosen_weights_move_and_they_are_as_many_as_aim_fairs(bench, unit, ranking):
    before = dict(bench.biased_model().named_parameters())
    total = sum(p.numel() for p in before.values())
    tensors = sum(before[n].numel() for n in masks.select(*bench.gaps("absolute", "train"), 50))
    fitted = fit(bench, f"{unit}-mask", lr=0.03, k=50, ranking=ranking)
    chosen = round(fitted.scores["scalar_share"] * total)
    assert tensors - int(unit_sizes(before, unit).max()) < chosen <= tensors
    assert unit == "channel" or chosen == tensors
    moved = {n: p != before[n] for n, p in fitted.model.named_parameters()}
    assert 0.97 * chosen < sum(int(m.sum()) for m in moved.values()) <= chosen  # a dead weight may stay
    for tensor, share in fitted.scores["tensor_shares"].items():
        assert moved[tensor].double().mean().item() <= share + 1e-4
        if unit == "channel":  # a channel moves as a whole or stays to the last bit
            each = moved[tensor].reshape(len(moved[tensor]), -1).double().mean(1)
            assert ((each == 0) | (each > 0.5)).all()


# ------------------------------------------------------------------------------------------------- noise-scaled scores


def test_signal_to_noise_is_1_where_only_chance_differs_and_has_no_unit():
    zero = torch.zeros(2)
    first = {"a": torch.tensor([3.0, 4.0]), "b": zero}, {"a": torch.tensor([1.0, 2.0]), "b": zero}
    second = {"a": zero, "b": zero}, {"a": torch.tensor([0.5, 0.5]), "b": zero}
    assert signal_to_noise(first, second) == {"a": pytest.approx(5 / 2), "b": 0.0}
    scaled = [({n: 1e3 * v for n, v in m.items()}, {n: 1e6 * v for n, v in s.items()}) for m, s in (first, second)]
    assert signal_to_noise(*scaled)["a"] == pytest.approx(5 / 2)
    with pytest.raises(AimfairError, match="same tensors"):
        signal_to_noise(first, ({"a": zero}, {"a": zero}))
    generator = torch.Generator().manual_seed(0)

    def drawn(scale, batches=20):
        each = scale * torch.randn(batches, 5000, generator=generator, dtype=torch.float64)
        return {"a": each.mean(0)}, {"a": each.var(0) / batches}

    assert signal_to_noise(drawn(3.0), drawn(0.2))["a"] ** 2 == pytest.approx(1, abs=0.1)


def test_moments_are_mean_and_standard_error_of_the_batches(bench):
    model, faces = bench.biased_model(), bench.train
    mean, variance = moments(model, faces, batch_size=40, mode="eval", seed=2)
    exact = mean_gradients(model, faces, mode="eval")
    for name in exact:  # three full batches of 120 faces
        torch.testing.assert_close(mean[name].float(), exact[name], rtol=1e-3, atol=1e-5)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(2)).split(40)
    each = torch.stack([mean_gradients(model, faces.subset(part))["fc.weight"] for part in order]).double()
    torch.testing.assert_close(variance["fc.weight"], each.var(0) / 3, rtol=1e-4, atol=1e-9)
    with pytest.raises(AimfairError, match="less than two batches of 128"):
        moments(model, faces)


def test_other_groups_differ_by_more_than_chance(bench):
    model = bench.biased_model()
    level, again, tilted = (
        moments(model, toy_faces(counts, seed), batch_size=40, mode="eval")
        for counts, seed in (((50,) * 4, 11), ((50,) * 4, 12), ((10, 90, 90, 10), 13))
    )
    chance = torch.tensor(list(signal_to_noise(level, again).values()))
    bias = torch.tensor(list(signal_to_noise(level, tilted).values()))
    assert chance.square().mean() < 2 and bias.mean() > 2 * chance.mean()


def test_the_noise_scaled_mask_follows_from_the_scores_it_keeps(bench):
    fitted = fit(bench, "aim-fair-noise", k=50)
    domain, bias = fitted.scores["noise_gaps"]
    assert set(domain) == set(bias) == parameters(fitted.model)
    mask = set(fitted.scores["mask"])
    assert 38 <= len(mask) <= 50 and min(bias[n] for n in mask) >= sorted(bias.values())[11]
    assert max(domain[n] for n in mask) <= sorted(domain.values())[50]
    biased = bench.biased_model().state_dict()
    assert {n for n in domain if not torch.equal(biased[n], state(fitted)[n])} <= mask


# ------------------------------------------------------------------------------------------------------ edit, add, tune


@pytest.mark.parametrize(
    ("reached", "rate"), [({0.1: None}, 0.0), ({0.003: 101.0, 0.01: 102.0, 0.03: 102.0}, 0.01)], ids=["none", "three"]
)
def test_the_best_of_erm_on_all_faces_and_of_its_tunings_is_kept(bench, monkeypatch, reached, rate):
    """``reached`` is what a tuning claims to reach on validation faces (None: it diverges), at other rates nothing."""
    everything = bench.train.without_protected() + bench.edited(0, 0.4, 0.8) + bench.edited(1, 0.4, 0.8)
    trained, seen = bench.fresh_model(), {}
    training.fit(trained, everything + bench.balanced, bench.validation, bench.pretraining, bench.seed)
    tune = edit_add_tune.tune

    def observe(part, hyper):
        accuracy = reached.get(hyper["lr"], -1.0)
        if accuracy is None:
            raise Diverged("not finite")
        fitted = tune(part, hyper)
        fitted.history.validation_accuracy[fitted.history.chosen] = accuracy
        seen[hyper["lr"]] = (state(part.biased_model()), fitted)
        return fitted

    monkeypatch.setattr(edit_add_tune, "tune", observe)
    fitted = fit(bench, "edit-add-tune")
    assert [*seen] == [lr for lr in methods.LEARNING_RATES if reached.get(lr, 0) is not None]
    assert all(same(start, state(trained)) for start, _ in seen.values()) and fitted.scores["rate"] == rate
    assert [*fitted.scores["by_rate"]] == ["0", *(f"{lr:g}" for lr in seen)]
    if rate:  # the smaller of two that are equal, with the mask of AIM-Fair by cosine from there
        real, biased, balanced = three_gradients(replace(bench, biased_model=lambda: trained), "train")
        gaps = gap(real, biased, "cosine"), gap(biased, balanced, "cosine")
        assert fitted.model is seen[rate][1].model and fitted.scores["mask"] == sorted(masks.select(*gaps, 55))
    else:
        assert same(state(fitted), state(trained)) and fitted.scores["mask"] == []


def test_a_bench_without_an_editor_is_refused_before_anything_is_trained(bench):
    with pytest.raises(AimfairError, match="no edited faces"):
        fit(replace(bench, edited=None, fresh_model=None), "edit-add-tune")
