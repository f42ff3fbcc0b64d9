"""Interpolation, batch norm of real images, finer masks, noise-scaled scores and the checkpoint rule, on the toy bench."""

from dataclasses import replace

import pytest
import torch
from toys import toy_faces

from aimfair import masks, methods
from aimfair.environment import AimfairError
from aimfair.gradients import gap, mean_gradients
from aimfair.methods.finetuning import three_gradients
from aimfair.models import as_input, evaluate

methods.registry()  # from here on the files of notebooks/methods can be imported
from aimfair.methods.batchnorm_real import reestimate  # noqa: E402
from aimfair.methods.gradient_scores import moments, signal_to_noise  # noqa: E402
from aimfair.methods.unit_masks import spread, unit_gaps, unit_sizes, within, worse_rank  # noqa: E402
from aimfair.methods.weight_interpolation import between  # noqa: E402


def fit(bench, name, **hyper):
    method = methods.get(name)
    return method.fit(bench.seen_by(method), method.hyper(**hyper))


def state(fitted):
    return fitted.model.state_dict()


def same(first, second, names=None):
    return all(torch.equal(first[name], second[name]) for name in names or first)


def parameters(model):
    return {name for name, _ in model.named_parameters()}


# ------------------------------------------------------------------------------------------------------ interpolation


def test_the_ends_of_the_interpolation_are_the_biased_and_the_fully_fine_tuned_model(bench):
    full = state(fit(bench, "full-finetuning", lr=0.03))
    assert same(full, state(fit(bench, "weight-interpolation", lr=0.03, a=1.0)))
    biased = bench.biased_model().state_dict()
    start = state(fit(bench, "weight-interpolation", lr=0.03, a=0))
    assert same(biased, start, [name for name, value in biased.items() if value.is_floating_point()])


def test_every_weight_and_statistic_lies_at_its_share_of_the_way(bench):
    biased, full = bench.biased_model().state_dict(), state(fit(bench, "full-finetuning"))
    middle = state(fit(bench, "weight-interpolation", a=0.3))
    for name, value in middle.items():
        wanted = 0.7 * biased[name] + 0.3 * full[name] if value.is_floating_point() else full[name]
        torch.testing.assert_close(value, wanted)


def test_a_linear_model_between_two_has_the_logits_between_theirs():
    first, second = (torch.nn.Linear(3, 1).double() for _ in range(2))
    x = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(between(first, second, 0.25)(x), 0.75 * first(x) + 0.25 * second(x))


def test_re_estimated_statistics_change_no_weight(bench):
    mixed, again = (
        state(fit(bench, "weight-interpolation", statistics=name)) for name in ("interpolated", "re-estimated")
    )
    assert same(mixed, again, parameters(bench.biased_model()))
    assert not torch.equal(mixed["bn1.running_mean"], again["bn1.running_mean"])


@pytest.mark.parametrize("wrong", [{"a": 1.5}, {"a": -0.1}, {"statistics": "none"}])
def test_impossible_interpolations_are_named(bench, wrong):
    with pytest.raises(AimfairError, match="a must be 0 to 1 and statistics interpolated or re-estimated, got"):
        fit(bench, "weight-interpolation", **wrong)


# --------------------------------------------------------------------------------------------------------- batch norm


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
    biased = bench.biased_model().state_dict()
    after = fit(bench, "batchnorm-real", mask="none")
    moved = {name for name in biased if not torch.equal(biased[name], state(after)[name])}
    assert moved and all("running" in name or "num_batches" in name for name in moved)
    assert after.history.chosen == -1 and after.history.loss == []
    flipped = replace(bench, train=replace(bench.train, target=1 - bench.train.target))
    assert same(state(after), state(fit(flipped, "batchnorm-real", mask="none")))


def test_a_network_without_batch_norm_and_an_unknown_mask_are_told(bench):
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 1))
    with pytest.raises(AimfairError, match="no batch norm, so there are no statistics"):
        reestimate(plain, bench.train, 32, 0, "cpu")
    with pytest.raises(AimfairError, match="no images"):
        reestimate(bench.biased_model(), bench.train.subset([]), 32, 0, "cpu")
    with pytest.raises(AimfairError, match="mask must be one of none, all, aim-fair, random, got 'some'"):
        fit(bench, "batchnorm-real", mask="some")


# ------------------------------------------------------------------------------------------------------- finer masks

TWO = {"a": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "b": torch.tensor([5.0, 6.0, 7.0])}
ZERO = {name: torch.zeros_like(value) for name, value in TWO.items()}


def test_units_are_counted_and_their_gaps_averaged():
    assert unit_sizes(TWO, "channel").tolist() == [2, 2, 1, 1, 1]
    assert unit_sizes(TWO, "scalar").tolist() == [1] * 7
    assert unit_gaps(TWO, ZERO, "channel").tolist() == [1.5, 3.5, 5, 6, 7]
    assert unit_gaps(ZERO, TWO, "scalar").tolist() == [1, 2, 3, 4, 5, 6, 7]
    with pytest.raises(AimfairError, match="unit must be one of channel, scalar, got 'row'"):
        unit_sizes(TWO, "row")


def test_a_slim_network_has_so_many_channels(bench):
    model = dict(bench.biased_model().named_parameters())
    sizes = unit_sizes(model, "channel")
    # 20 convolutions and shortcuts each with a batch norm: three tensors per output channel; the head two units more.
    assert len(sizes) == sum(len(value) for value in model.values()) == 3 * 1200 + 2
    assert int(sizes.sum()) == int(unit_sizes(model, "scalar").sum()) == sum(p.numel() for p in model.values())


def test_the_toy_of_the_papers_selection_by_ranks():
    d1, d2 = torch.tensor([0.1, 0.6, 0.2, 0.5, 0.3, 0.4]), torch.tensor([0.9, 0.8, 0.1, 0.7, 0.2, 0.3])
    rank = worse_rank(d1, d2)
    names = list("abcdef")
    for k, selected in ((3, "a"), (4, "af"), (5, "adef"), (6, "abcdef")):
        assert "".join(n for n, r in zip(names, rank, strict=True) if r < k) == selected
        assert masks.select(
            dict(zip(names, d1.tolist(), strict=True)), dict(zip(names, d2.tolist(), strict=True)), k
        ) == (set(selected))
    with pytest.raises(AimfairError, match="not finite"):
        worse_rank(d1, torch.tensor([float("nan")] * 6))


def test_a_budget_is_filled_in_order_and_never_exceeded():
    sizes, order = torch.tensor([2, 2, 1, 1, 1]), torch.tensor([4, 0, 1, 2, 3])
    assert within(order, sizes, 4).tolist() == [True, False, False, False, True]  # the next would make five
    assert [int(within(torch.arange(7), torch.ones(7, dtype=torch.int64), n).sum()) for n in (0, 3, 7, 9)] == [
        0,
        3,
        7,
        7,
    ]
    elements = spread(torch.tensor([False, True, False, True, False]), TWO, "channel")
    assert elements["a"].tolist() == [[False, False], [True, True]] and elements["b"].tolist() == [False, True, False]
    with pytest.raises(AimfairError, match="the mask is empty"):
        spread(torch.zeros(5, dtype=torch.bool), TWO, "channel")


def test_gradients_of_the_units_are_those_of_the_tensors(bench):
    on_real, on_biased, on_balanced = three_gradients(bench, "eval")
    per_tensor = gap(on_biased, on_balanced)
    per_channel = unit_gaps(on_biased, on_balanced, "channel").split([len(t) for t in on_real.values()])
    for wanted, found in zip(per_tensor.values(), per_channel, strict=True):
        assert found.mean().item() == pytest.approx(wanted, rel=1e-5)  # channels of a tensor have one size


@pytest.mark.parametrize(("unit", "ranking"), [("channel", "gaps"), ("channel", "random"), ("scalar", "gaps")])
def test_only_chosen_weights_move_and_they_are_as_many_as_aim_fairs(bench, unit, ranking):
    before = dict(bench.biased_model().named_parameters())
    total = sum(p.numel() for p in before.values())
    tensors = sum(before[n].numel() for n in masks.select(*bench.gaps("absolute", "train"), 50))
    fitted = fit(bench, f"{unit}-mask", lr=0.03, k=50, ranking=ranking)
    chosen = round(fitted.scores["scalar_share"] * total)
    assert tensors - int(unit_sizes(before, unit).max()) < chosen <= tensors and (
        unit == "channel" or chosen == tensors
    )
    moved = {n: p != before[n] for n, p in fitted.model.named_parameters()}
    assert 0.97 * chosen < sum(int(m.sum()) for m in moved.values()) <= chosen  # a dead weight may stay
    for tensor, share in fitted.scores["tensor_shares"].items():
        assert moved[tensor].double().mean().item() <= share + 1e-4
        if unit == "channel":  # a channel moves as a whole or stays to the last bit
            each = moved[tensor].reshape(len(moved[tensor]), -1).double().mean(1)
            assert ((each == 0) | (each > 0.5)).all()


def test_all_of_the_units_are_full_fine_tuning_up_to_rounding(bench):
    full = state(fit(bench, "full-finetuning"))
    every = state(fit(bench, "scalar-mask", k=62, size="share"))
    assert all(torch.allclose(full[n].float(), every[n].float(), rtol=1e-2, atol=1e-3) for n in full)


@pytest.mark.parametrize("wrong", [{"size": "tensors"}, {"ranking": "best"}])
def test_unknown_words_of_a_finer_mask_are_answered_with_the_known(bench, wrong):
    with pytest.raises(AimfairError, match=r"(size must be weights or share|ranking must be gaps or random), got"):
        fit(bench, "channel-mask", **wrong)


# ------------------------------------------------------------------------------------------------- noise-scaled scores


def test_signal_to_noise_in_numbers():
    first = ({"a": torch.tensor([3.0, 4.0]), "b": torch.zeros(2)}, {"a": torch.tensor([1.0, 2.0]), "b": torch.zeros(2)})
    second = (
        ZERO_TWO := {"a": torch.zeros(2), "b": torch.zeros(2)},
        {"a": torch.tensor([0.5, 0.5]), "b": torch.zeros(2)},
    )
    assert signal_to_noise(first, second) == {"a": pytest.approx(5 / 2), "b": 0.0}
    scaled = [({n: 1e3 * v for n, v in m.items()}, {n: 1e6 * v for n, v in s.items()}) for m, s in (first, second)]
    assert signal_to_noise(*scaled)["a"] == pytest.approx(5 / 2)
    with pytest.raises(AimfairError, match="same tensors"):
        signal_to_noise(first, ({"a": ZERO_TWO["a"]}, {"a": ZERO_TWO["a"]}))


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


def test_the_square_is_one_on_average_where_only_chance_differs():
    generator = torch.Generator().manual_seed(0)

    def drawn(scale, batches=20):
        each = scale * torch.randn(batches, 5000, generator=generator, dtype=torch.float64)
        return {"a": each.mean(0)}, {"a": each.var(0) / batches}

    assert signal_to_noise(drawn(3.0), drawn(0.2))["a"] ** 2 == pytest.approx(1, abs=0.1)


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


# ----------------------------------------------------------------------------------------------------- checkpoint rule

FINETUNING = """
aim-fair aim-fair-cosine aim-fair-relative aim-fair-noise full-finetuning linear-probing random-mask random-ratio
update-one-block freeze-one-block lora channel-mask scalar-mask batchnorm-real weight-interpolation
""".split()


def test_every_method_that_fine_tunes_by_the_one_schedule_has_the_checkpoint_rule():
    having = {name for name, method in methods.registry().items() if method.options}
    assert having >= set(FINETUNING)
    assert all(methods.get(name).options.items() >= methods.CHECKPOINT_RULE.items() for name in having)


def test_the_usual_checkpoint_rule_is_no_hyper_parameter_of_a_run():
    aim = methods.get("aim-fair")
    assert aim.hyper(select="validation-accuracy") == aim.hyper() == aim.defaults
    assert aim.hyper(select="last") == {**aim.defaults, "select": "last"}
    with pytest.raises(AimfairError, match="erm has no hyper-parameter 'select'; it has: none"):
        methods.get("erm").hyper(select="last")
    with pytest.raises(AimfairError, match="gradients, select, rankings$"):
        aim.hyper(checkpoint="last")


@pytest.mark.parametrize(("name", "hyper"), [("full-finetuning", {}), ("random-ratio", {"unit": "element"})])
def test_the_last_epoch_is_kept_where_the_rule_says_so(bench, name, hyper):
    longer = replace(bench, finetuning=replace(bench.finetuning, epochs=3))
    best, last = (fit(longer, name, lr=0.1, **hyper, **rule) for rule in ({}, {"select": "last"}))
    assert best.history.loss == last.history.loss and last.history.chosen == 2
    kept = best.history.validation_accuracy
    assert best.history.chosen == kept.index(max(kept))
    right = (evaluate(last.model, longer.validation) >= 0) == (longer.validation.target == 1)
    assert 100 * right.double().mean().item() == pytest.approx(kept[-1])
    with pytest.raises(AimfairError, match="select must be one of"):
        fit(bench, name, **hyper, select="first")


def test_the_rule_of_the_worst_group_finds_its_labels_withheld(bench):
    with pytest.raises(AimfairError, match="withheld"):
        fit(bench, "full-finetuning", select="validation-worst-group")
