"""Group DRO, balanced sampling and sub-sampling; and what holds for every method that is told group labels."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from toys import fit_linear, gaussian_toy, group_accuracies, toy_faces

from aimfair import methods, sampling
from aimfair.environment import AimfairError
from aimfair.methods._group_dro import GroupDRO, balanced_order
from aimfair.methods.subsampling import repeated_order
from aimfair.training import binary_cross_entropy

FROM_SCRATCH = ("balanced-sampling", "group-dro", "subsampling")
ORACLES = (*FROM_SCRATCH, "bmft", "dfr", "dfr-train", "last-layer-fairness")


def fit(bench, name, **hyper):
    method = methods.get(name)
    return method.fit(bench.seen_by(method), method.hyper(**hyper))


@pytest.mark.parametrize("name", ORACLES)
def test_an_oracle_says_so_and_reads_every_label_that_it_asks_for(bench, name):
    method = methods.get(name)
    assert method.is_oracle and method.title.endswith("(oracle)")
    for need in method.needs:
        told_less = bench.seen_by(replace(method, needs=method.needs - {need}))
        with pytest.raises(AimfairError, match="withheld"):
            method.fit(told_less, method.hyper())


def test_oracles_stand_last_in_the_tables():
    order = [method.is_oracle for method in methods.registry().values()]
    assert order == sorted(order) and any(order) and not methods.get("dfr-synthetic").is_oracle


@pytest.mark.parametrize("name", FROM_SCRATCH)
def test_the_epoch_is_chosen_by_the_worst_validation_group(bench, name):
    three = replace(bench, pretraining=replace(bench.pretraining, epochs=3))
    history = fit(three, name).history
    worst = history.validation_worst_group
    assert len(worst) == 3 and worst[history.chosen] == max(worst)


@pytest.mark.parametrize("name", FROM_SCRATCH)
def test_rate_and_weight_decay_reach_the_training(bench, name):
    def weights(**hyper):
        return fit(bench, name, **hyper).model.conv1.weight

    assert torch.equal(weights(), weights(lr=bench.pretraining.lr))
    assert not torch.equal(weights(), weights(lr=0.01)) and not torch.equal(weights(), weights(weight_decay=0.1))


def test_group_dro_without_steps_is_the_mean_of_the_group_means_and_its_weights_climb_otherwise(bench):
    assert fit(bench, "group-dro", eta=0.0).scores["group_weights"] == [0.25] * 4
    climbed = fit(bench, "group-dro", eta=1.0).scores["group_weights"]
    assert sum(climbed) == pytest.approx(1, abs=1e-4) and max(climbed) > 0.3


def test_with_the_adjustment_the_weights_of_small_groups_climb_faster(bench):
    plain, adjusted = (fit(bench, "group-dro", eta=0.1, adjustment=c) for c in (0.0, 5.0))
    q, larger = plain.scores["group_weights"], adjusted.scores["group_weights"]
    assert larger[0] > q[0] and larger[3] > q[3]  # 6 faces each; the others have 54
    assert not torch.equal(plain.model.conv1.weight, adjusted.model.conv1.weight)


def test_group_dro_of_all_groups_shuffled_is_not_group_dro_balanced(bench):
    shuffled, balanced = (fit(bench, "group-dro", sampling=s).model.conv1.weight for s in ("shuffled", "balanced"))
    assert not torch.equal(shuffled, balanced)
    with pytest.raises(AimfairError, match="sampling must be balanced or shuffled, got 'by name'"):
        fit(bench, "group-dro", sampling="by name")


def test_balanced_sampling_is_neither_erm_nor_group_dro_that_never_moves_its_weights(bench):
    """The latter sees the same faces, but averages within each group of a batch first."""
    selected = replace(bench, pretraining=replace(bench.pretraining, weight_decay=0.001))
    runs = (fit(selected, n, **h) for n, h in (("balanced-sampling", {}), ("group-dro", {"eta": 0.0}), ("erm", {})))
    rwg, dro, erm = (run.model.conv1.weight for run in runs)
    assert not torch.equal(rwg, dro) and not torch.equal(rwg, erm) and not torch.equal(dro, erm)


def test_a_group_without_training_faces_is_noted_or_refused(bench):
    lacking = replace(bench, train=toy_faces((0, 50, 50, 20), 1))
    for name in ("group-dro", "balanced-sampling"):
        assert "counts (0, 50, 50, 20)" in fit(lacking, name).scores["note"]
    assert fit(lacking, "group-dro").scores["group_weights"][0] == 0
    with pytest.raises(AimfairError, match=r"a training face of every group; the counts are \(0, 50, 50, 20\)"):
        fit(lacking, "subsampling")


def test_sub_sampling_keeps_the_smallest_group_whole_and_as_many_of_the_others(bench):
    assert fit(bench, "subsampling").scores["faces"] == 24
    kept = torch.tensor([3, 1, 4, 15, 9])
    order = repeated_order(kept, 23)
    drawn = order(torch.Generator().manual_seed(0))
    counts = Counter(drawn.tolist())
    assert len(drawn) == 23 and set(counts) == set(kept.tolist()) and set(counts.values()) <= {4, 5}
    assert sorted(drawn[:5].tolist()) == sorted(kept.tolist()) == sorted(drawn[5:10].tolist())
    assert len(repeated_order(kept, 5)(torch.Generator())) == 5


def test_sub_sampling_trains_as_long_as_erm_unless_told_otherwise(bench):
    long, short = (fit(bench, "subsampling", same_updates=same).model.bn1.num_batches_tracked for same in (True, False))
    assert (long, short) == (120 // 32, 1)


@pytest.fixture(scope="module")
def toy():
    return gaussian_toy(10_000), gaussian_toy(seed=1)


def learned(toy, loss=binary_cross_entropy, order=None):
    (x, y, _), (test_x, test_y, test_s) = toy
    model = fit_linear(x, y, loss, order, epochs=12, batch_size=250)
    return model.weight.detach(), group_accuracies(model(test_x).detach(), test_y, test_s)


def test_gaussian_toy_erm_leans_on_the_spurious_coordinate_and_every_oracle_drops_it(toy):
    """Worst group: ERM .42; no rule is above .841 in all groups, but for the noise of 520 test samples in each minority.
    Measured: balanced sampling .829, sub-sampling .833, Group DRO .828 with either order, and .814 at eta 1, which leaves
    a weight of .10 on the shortcut where the others have .01."""
    (_, y, s), _ = toy
    groups = 2 * y + s
    weight, accuracies = learned(toy)
    assert weight[1] > 1.1 and max(accuracies[1:3]) < 0.45 and min(accuracies[0], accuracies[3]) > 0.95
    kept = torch.from_numpy(sampling.balanced(y.numpy(), s.numpy(), int(groups.bincount().min()), 0))
    for loss, order in (
        (binary_cross_entropy, balanced_order(groups)),
        (binary_cross_entropy, repeated_order(kept, len(y))),
        (GroupDRO(groups, eta=0.01), balanced_order(groups)),
        (GroupDRO(groups, eta=0.01), None),
        (GroupDRO(groups, eta=1.0), balanced_order(groups)),
    ):
        weight, accuracies = learned(toy, loss, order)
        assert weight[0] > 1.5 and abs(weight[1]) < 0.15 and 0.8 < min(accuracies) < 0.85, accuracies
