"""BMFT: importances by hand, the mask at its limits, weights outside it bit-identical, both steps."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from toys import gaussian_toy, group_accuracies, toy_faces

from aimfair import methods, models, sampling, training
from aimfair.environment import AimfairError
from aimfair.faces import FaceSet
from aimfair.methods import _penalties, bmft
from aimfair.methods._head import last_layer
from aimfair.training import Schedule, binary_cross_entropy

NAMES = ("bmft", "bmft-synthetic")


def fit(bench, name="bmft", **hyper):
    method = methods.get(name)
    return method.fit(bench.seen_by(method), method.hyper(**hyper))


class Pixel(nn.Module):
    """A logit that is the image's mean times a weight: its gradients are known."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5]))

    def forward(self, x):
        return x.mean((1, 2, 3)) * self.weight


def test_importance_is_the_mean_of_squared_batch_gradients():
    faces = toy_faces((5, 5, 5, 5))
    found = bmft.importance(Pixel(), faces, binary_cross_entropy, batch_size=6, seed=3)["weight"].item()
    order = torch.randperm(20, generator=torch.Generator().manual_seed(3))
    mean = models.as_input(faces.images).mean((1, 2, 3))
    each = (torch.sigmoid(mean * 0.5) - faces.target) * mean
    batches = [each[order[i : i + 6]].mean() ** 2 for i in (0, 6, 12)]
    assert found == pytest.approx((sum(batches) / 3).item(), rel=1e-4)


def test_the_two_bias_losses():
    target, protected = torch.tensor([0.0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    logits, index = torch.tensor([-1.0, 1.0, 2.0, 1.5]), torch.arange(4)
    fp, fn = _penalties.rate_gaps(torch.sigmoid(logits), target, protected)
    ours, released = (bmft.bias_loss(protected, form)(logits, target, index) for form in ("absolute", "signed"))
    assert ours.item() == pytest.approx(((fp.abs() + fn.abs()) / 2).item())
    assert released.item() == pytest.approx(abs(2.0 + -0.5) / 2)  # gaps of the mean logits: +2 at target 0, -.5 at 1
    cancelling = torch.tensor([-1.0, 1.0, 2.0, 0.0])
    assert bmft.bias_loss(protected, "signed")(cancelling, target, index).item() == 0
    assert bmft.bias_loss(protected, "absolute")(cancelling, target, index).item() > 0.3
    with pytest.raises(AimfairError, match="absolute or signed"):
        bmft.bias_loss(protected, "squared")


def random_importances(seed, **shapes):
    generator = torch.Generator().manual_seed(seed)
    return [{n: torch.rand(s, generator=generator) for n, s in shapes.items()} for _ in range(2)]


@pytest.mark.parametrize("rate", [0, 10, 50, 90, 100])
def test_the_masks_density_is_one_minus_the_rate(rate):
    masks = bmft.select_weights(*random_importances(0, a=(40, 50), b=(30,), c=(10, 3, 3, 3)), rate)
    kept = torch.cat([mask.flatten() for mask in masks.values()])
    # at rate 0 the smallest ratios stay out: one weight per tensor has no importance for bias at all
    assert kept.double().mean().item() == pytest.approx(1 - rate / 100, abs=3 / len(kept))
    assert rate < 100 or not kept.any()


def test_a_weight_is_selected_where_bias_outweighs_the_prediction():
    bias, prediction = torch.tensor([0.0, 4.0, 1.0, 2.0]), torch.tensor([1.0, 0.5, 3.0, 0.0])
    mask = bmft.select_weights({"w": bias}, {"w": prediction}, 50)["w"]
    assert mask.tolist() == [False, True, False, True]
    scaled = bmft.select_weights({"w": 8 * bias}, {"w": 0.5 * prediction}, 50)["w"]
    assert torch.equal(mask, scaled)
    with pytest.raises(AimfairError, match="percentile, 0 to 100, got 101"):
        bmft.select_weights({"w": bias}, {"w": prediction}, 101)


def body(model):
    return {n: p.detach() for n, p in model.named_parameters() if not n.startswith("fc.")}


def expected_mask(bench, rate):
    model, faces = bench.biased_model(), bench.balanced
    losses = (bmft.bias_loss(faces.protected, "absolute"), binary_cross_entropy)
    both = [bmft.importance(model, faces, loss, bench.finetuning.batch_size, bench.seed) for loss in losses]
    return bmft.select_weights(*({n: f[n] for n in body(model)} for f in both), rate)


def test_weights_outside_the_mask_stay_bit_identical_with_momentum_and_weight_decay(bench):
    strong = replace(bench, finetuning=replace(bench.finetuning, epochs=2, weight_decay=0.1))
    fitted = fit(strong, "bmft-synthetic", lr=0.03, rate=70)
    masks, before, after = expected_mask(strong, 70), body(bench.biased_model()), body(fitted.model)
    assert all(torch.equal(before[n][~masks[n]], after[n][~masks[n]]) for n in masks)
    moved = sum(int((before[n] != after[n]).sum()) for n in masks)
    assert moved > 0.9 * sum(int(m.sum()) for m in masks.values())
    assert fitted.scores["density"] == pytest.approx(0.3, abs=0.001)


@pytest.mark.parametrize("name", NAMES)
def test_at_rate_100_only_the_head_moves(bench, name):
    before = bench.biased_model().state_dict()
    none = fit(bench, name, rate=100)
    assert {n for n, v in none.model.state_dict().items() if not torch.equal(before[n], v)} == {"fc.weight", "fc.bias"}
    assert none.scores["density"] == 0


def test_at_rate_0_every_weight_learns_that_the_bias_loss_reaches(bench):
    faces, model = bench.balanced, bench.biased_model()
    reached = bmft.importance(model, faces, bmft.bias_loss(faces.protected, "absolute"), 32, bench.seed)
    masks = expected_mask(bench, 0)
    for name, mask in masks.items():  # at 32 px most taps of the last kernels only ever see padding
        assert torch.equal(mask, reached[name] > reached[name].min()), name
    weights = sum(mask.numel() for mask in masks.values())
    assert fit(bench, "bmft-synthetic", rate=0).scores["density"] == sum(int(m.sum()) for m in masks.values()) / weights


def test_the_head_starts_from_zero_and_learns_alone_in_the_second_step(bench):
    slow = fit(bench, head_lr=1e-6)
    assert slow.model.fc.weight.abs().max() < 1e-4 and slow.model.fc.bias.abs() < 1e-4
    fast = fit(bench, head_lr=0.01)
    assert all(torch.equal(v, body(fast.model)[n]) for n, v in body(slow.model).items())
    assert fast.model.fc.weight.abs().max() > 100 * slow.model.fc.weight.abs().max()


@pytest.mark.parametrize(
    ("hyper", "moves"),
    [({"lr": 0.1}, "body"), ({"bias_loss": "signed"}, "body"), ({"beta": 1.0}, "head"), ({"beta": 0.0}, "head")],
    ids=str,
)
def test_rate_of_the_first_step_form_and_weight_of_the_bias_loss_reach_the_training(bench, hyper, moves):
    # A layer of zeros has no gaps, and so the bias loss no gradient: it counts from the second step on.
    steps = replace(bench, finetuning=replace(bench.finetuning, batch_size=8))
    usual, other = (fit(steps, **given).model for given in ({}, hyper))
    assert all(torch.equal(value, body(other)[n]) for n, value in body(usual).items()) == (moves == "head")
    assert not torch.equal(usual.fc.weight, other.fc.weight)


def test_without_a_bias_loss_in_it_the_second_step_is_cross_entropy_alone(bench):
    fitted = fit(bench, beta=0.0, rate=100)
    model, faces = bench.biased_model(), bench.validation
    kept = sampling.balanced(faces.target.numpy(), faces.protected.numpy(), min(faces.counts()), bench.seed)
    for parameter in model.fc.parameters():
        nn.init.zeros_(parameter)
    schedule = replace(bench.finetuning, lr=0.01, batchnorm="eval", select="last")
    training.fit(model, faces.subset(kept), faces, schedule, bench.seed + 1, trainable={"fc.weight", "fc.bias"})
    assert torch.equal(fitted.model.fc.weight, model.fc.weight)


def test_the_epoch_of_the_second_step_is_chosen_by_the_worst_group_or_on_synthetic_faces_by_accuracy(bench):
    long = replace(bench, finetuning=replace(bench.finetuning, epochs=3))
    oracle, synthetic = (fit(long, name, head_lr=0.5).history for name in NAMES)
    for history, values in (
        (oracle, oracle.validation_worst_group),
        (synthetic, synthetic.validation_accuracy),
    ):
        assert len(values) == 3 and history.chosen == values.index(max(values)) < 2
    assert synthetic.validation_worst_group == []


class TwoLayers(nn.Sequential):
    """A logit of images of a single pixel, from its three channels."""

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1), nn.Flatten(0))


def gaussian_pixels(n, seed, agree=0.95):
    """The first three coordinates of the Gaussian toy as the channels of one pixel, which crops and flips leave alone."""
    x, y, s = gaussian_toy(n, agree=agree, seed=seed)
    images = (x[:, :3] * 32 + 127.5).clamp(0, 255).to(torch.uint8).view(n, 3, 1, 1)
    return FaceSet(images, y, s, np.arange(n).astype(str))


def test_gaussian_toy_bmft_drops_the_shortcut_that_two_layers_learnt(bench):
    """Worst group: ERM .35; no rule is above .841 in all groups, but for noise. Measured: .829, and .35 where only the
    second step is taken, which at this rate leaves the shortcut."""
    train, validation, fair = gaussian_pixels(4000, 0), gaussian_pixels(4000, 1), gaussian_pixels(20_000, 2, agree=0.5)
    schedule = Schedule(epochs=5, lr=0.3, milestones=(), crop_scale=(1.0, 1.0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        biased = TwoLayers()
    training.fit(biased, train, validation, schedule, seed=0)
    short = replace(schedule, epochs=5, batch_size=32)
    toy = replace(bench, train=train, validation=validation, finetuning=short, biased_model=lambda: deepcopy(biased))
    worst = {}
    for name, model in {
        "ERM": biased,
        "BMFT": fit(toy, lr=0.1, head_lr=0.1).model,
        "head alone": fit(toy, rate=100, head_lr=0.1).model,
    }.items():
        worst[name] = min(group_accuracies(models.evaluate(model, fair), fair.target, fair.protected))
    print("BMFT: worst group", worst)
    assert worst["ERM"] < 0.42 and 0.8 < worst["BMFT"] < 0.85 and worst["head alone"] < worst["BMFT"] - 0.05, worst


def test_running_statistics_stay_unless_told_otherwise(bench):
    before = bench.biased_model().bn1.running_mean
    assert torch.equal(before, fit(bench).model.bn1.running_mean)
    assert not torch.equal(before, fit(bench, batchnorm="train").model.bn1.running_mean)


def test_the_first_step_lowers_the_bias_loss(bench):
    long = replace(bench, finetuning=replace(bench.finetuning, epochs=5, crop_scale=(1.0, 1.0)))
    losses = fit(long, "bmft-synthetic", lr=0.03).scores["bias_loss"]
    assert losses[0] > 0 and min(losses[-2:]) < 0.8 * losses[0]


def test_it_debiases_on_equal_groups_of_the_validation_set_or_on_all_synthetic_faces(bench):
    uneven = replace(bench, validation=toy_faces((5, 12, 9, 7), 2))
    assert fit(uneven).scores["faces"] == 20 and fit(bench, "bmft-synthetic").scores["faces"] == 120
    with pytest.raises(AimfairError, match=r"a validation face of every group; the counts are \(0, 4, 4, 4\)"):
        fit(replace(bench, validation=toy_faces((0, 4, 4, 4), 2)))
    assert methods.get("bmft-synthetic").needs == {"synthetic"}


def test_the_last_layer_is_found_by_its_place():
    model = models.build("resnet18-slim", 0)
    assert last_layer(model) is model.fc
