"""The training loop: augmentation, frozen tensors, batch-norm policy, checkpoint rule, resuming, bad input."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from toys import same, state

from aimfair import models, training
from aimfair.augment import augment, random_crops
from aimfair.environment import AimfairError, Diverged
from aimfair.training import Checkpoint, Schedule, batches, binary_cross_entropy, fit, freeze_all_but

QUICK = Schedule(epochs=3, lr=0.05, batch_size=16, milestones=(2,), crop_scale=(0.7, 1.0))


@pytest.fixture
def train(faces):
    """Train a slim network on 32 toy faces; returns it and the history."""

    def run(schedule=QUICK, seed=0, weights=0, **how):
        model = models.build("resnet18-slim", weights)
        return model, fit(model, faces(), faces(seed=1), schedule, seed=seed, **how)

    return run


def test_a_crop_of_the_whole_image_is_the_image_or_its_mirror():
    images = torch.randint(0, 256, (64, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    # area 1 leaves only the aspect ratio, and no aspect but 1 fits: each result is the image itself, perhaps mirrored
    pairs = list(
        zip(augment(images, torch.Generator().manual_seed(0), (1.0, 1.0)), models.as_input(images), strict=True)
    )
    mirrored = [torch.allclose(found, plain.flip(2), atol=1e-4) for found, plain in pairs]
    assert all(m or torch.allclose(*pair, atol=1e-4) for m, pair in zip(mirrored, pairs, strict=True))
    assert 15 < sum(mirrored) < 50


def test_a_crop_agrees_with_bilinear_sampling():
    images = torch.randint(0, 256, (8, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    out = augment(images, torch.Generator().manual_seed(3), (0.3, 0.8))
    top, left, height, width = random_crops(8, torch.Generator().manual_seed(3), (0.3, 0.8)).T
    theta = torch.zeros(8, 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = width, 2 * left + width - 1
    theta[:, 1, 1], theta[:, 1, 2] = height, 2 * top + height - 1
    grid = F.affine_grid(theta, [8, 3, 20, 20], align_corners=False)
    expected = F.grid_sample(models.as_input(images), grid, padding_mode="border", align_corners=False)
    for found, wanted in zip(out, expected, strict=True):
        assert torch.allclose(found, wanted, atol=1e-3) or torch.allclose(found, wanted.flip(2), atol=1e-3)


def test_crops_stay_inside_and_have_the_asked_area():
    crops = random_crops(2000, torch.Generator().manual_seed(0), (0.3, 0.6))
    top, left, height, width = crops.T
    assert (crops >= 0).all() and (top + height <= 1 + 1e-6).all() and (left + width <= 1 + 1e-6).all()
    assert (height * width).min() >= 0.3 - 1e-5 and (height * width).max() <= 0.6 + 1e-5


def test_a_training_is_sgd_with_momentum_and_decay_at_a_rate_that_falls_at_milestones(faces):
    """On faces that are their own mirror images, taken whole and in order: nothing is left to chance."""
    data = faces()
    half = data.images[..., :16]
    even = replace(data, images=torch.cat([half, half.flip(3)], 3))
    schedule = replace(QUICK, milestones=(1,), momentum=0.8, weight_decay=0.02, crop_scale=(1.0, 1.0), select="last")
    ours, theirs = (models.build("resnet18-slim", 0) for _ in range(2))
    fit(ours, even, faces(seed=1), schedule, seed=0, order=lambda generator: torch.arange(32))
    optimiser = torch.optim.SGD(theirs.train().parameters(), 0.05, 0.8, weight_decay=0.02)
    rate = torch.optim.lr_scheduler.MultiStepLR(optimiser, [1], 0.1)
    for _ in range(3):
        for index in torch.arange(32).split(16):
            optimiser.zero_grad()
            logits = theirs(models.as_input(even.images[index]))
            F.binary_cross_entropy_with_logits(logits, even.target[index].float()).backward()
            optimiser.step()
        rate.step()
    expected = state(theirs)
    assert all(torch.allclose(value, expected[name], atol=1e-4) for name, value in state(ours).items())


def test_every_epoch_has_an_order_of_its_own_or_the_chosen_one_and_drops_an_incomplete_batch(train):
    index = torch.cat(list(batches(torch.randperm(37, generator=torch.Generator().manual_seed(0)), 8)))
    assert len(index) == 32 and len(set(index.tolist())) == 32
    seen = []

    def looks(logits, target, index):
        seen.append(index)
        return binary_cross_entropy(logits, target, index)

    train(loss=looks)
    orders = [torch.cat(seen[2 * epoch : 2 * epoch + 2]).tolist() for epoch in range(3)]
    assert all(sorted(order) == list(range(32)) for order in orders) and len(set(map(tuple, orders))) == 3
    seen.clear()
    train(loss=looks, order=lambda generator: torch.randint(0, 10, (32,), generator=generator))
    assert len(torch.cat(seen)) == 96 and set(torch.cat(seen).tolist()) <= set(range(10))


def test_it_learns_and_keeps_the_best_epoch(faces):
    model, held = models.build("resnet18-slim", 0), faces((20,) * 4, 2)
    history = fit(model, faces((40,) * 4, 1), held, replace(QUICK, epochs=6, milestones=()), seed=1)
    best = max(history.validation_accuracy)
    assert best > 80 and history.validation_accuracy[history.chosen] == best
    right = (models.evaluate(model, held) >= 0) == (held.target == 1)
    assert 100 * right.double().mean() == pytest.approx(best)


def test_the_best_epoch_or_the_last_is_kept(train, monkeypatch):
    accuracies = iter((90.0, 60.0) * 3)
    falling = lambda model, faces, device: torch.where(  # noqa: E731
        torch.arange(len(faces)) < len(faces) * next(accuracies) / 100, 2.0 * faces.target - 1, 1 - 2.0 * faces.target
    )
    monkeypatch.setattr(training, "evaluate", falling)
    best, chosen = train(replace(QUICK, epochs=2))
    last, whole = train(replace(QUICK, epochs=2, select="last"))
    assert (chosen.chosen, whole.chosen) == (0, 1) and not same(state(best), state(last))
    assert same(state(best), state(train(replace(QUICK, epochs=1, select="last"))[0]))


@pytest.mark.parametrize(("ties", "chosen"), [("first", 0), ("last", 2)])
def test_ties_between_epochs_follow_the_named_rule(train, ties, chosen):
    unchanging = replace(QUICK, lr=1e-12, batchnorm="eval", ties=ties)  # every epoch is equally good
    assert train(unchanging)[1].chosen == chosen


def test_choosing_by_the_worst_group_reads_protected_labels(train, faces):
    schedule = replace(QUICK, epochs=4, select="validation-worst-group", ties="first")
    _, history = train(schedule)
    worst = history.validation_worst_group
    assert len(worst) == 4 and history.chosen == worst.index(max(worst))
    assert all(a <= b + 1e-9 for a, b in zip(worst, history.validation_accuracy, strict=True))
    with pytest.raises(AimfairError, match="withheld"):
        fit(models.build("resnet18-slim", 0), faces(), faces(seed=1).without_protected(), schedule, seed=0)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(train):
    first, again, other = (state(train(seed=seed)[0]) for seed in (1, 1, 2))
    assert same(first, again) and not same(first, other)


def test_frozen_tensors_stay_bit_identical_in_spite_of_decay_and_old_gradients(train, faces):
    model, _ = train()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before, mask = state(model), {"layer1.0.conv1.weight", "layer4.1.bn2.bias", "fc.bias"}
    fit(model, faces(seed=2), faces(seed=1), replace(QUICK, weight_decay=0.1, select="last"), seed=0, trainable=mask)
    after = state(model)
    assert {name for name, _ in model.named_parameters() if not torch.equal(before[name], after[name])} == mask
    assert not torch.equal(before["bn1.running_mean"], after["bn1.running_mean"])  # the official policy


def test_batchnorm_eval_leaves_every_buffer_unchanged(train):
    before = state(models.build("resnet18-slim", 0))
    after = state(train(replace(QUICK, batchnorm="eval", select="last"), trainable={"fc.weight"})[0])
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"fc.weight"}


class Killed(Exception):
    pass


class Remembering(torch.nn.Module):
    """A loss that may grow with every step it has seen, and dies when told to."""

    def __init__(self, grows, dies_at=-1):
        super().__init__()
        self.grows, self.dies_at = grows, dies_at
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, logits, target, index):
        self.steps += 1
        if int(self.steps) == self.dies_at:
            raise Killed
        return (self.steps if self.grows else 1) * binary_cross_entropy(logits, target, index)


@pytest.mark.parametrize("grows", [False, True], ids=["plain loss", "loss with a memory"])
def test_a_training_that_is_killed_goes_on_to_the_same_weights(train, tmp_path, monkeypatch, grows):
    monkeypatch.setattr(training, "SECONDS_BETWEEN", 0.0)
    schedule, file = replace(QUICK, epochs=4, lr=0.001 if grows else 0.05), tmp_path / "half.safetensors"
    undisturbed, expected = train(schedule, 7, loss=Remembering(grows))
    with pytest.raises(Killed):
        train(schedule, 7, loss=Remembering(grows, dies_at=5), resume=file)
    assert file.exists()
    loss = Remembering(grows)
    resumed, history = train(schedule, 7, weights=99, loss=loss, resume=file)  # its own weights do not matter
    assert same(state(undisturbed), state(resumed)) and loss.steps == 8 and not file.exists()
    assert history.loss == expected.loss and history.chosen == expected.chosen


@pytest.mark.parametrize("other", ["learning rate", "mask"])
def test_a_checkpoint_of_another_training_is_not_taken(train, tmp_path, monkeypatch, other):
    """Not of another mask either: momentum is stored by place among what learns and would belong to another tensor."""
    monkeypatch.setattr(training, "SECONDS_BETWEEN", 0.0)
    file, kept, save = tmp_path / "half.safetensors", {}, Checkpoint.save

    def save_and_keep(self, *state):
        save(self, *state)
        kept["bytes"] = self.path.read_bytes()

    monkeypatch.setattr(Checkpoint, "save", save_and_keep)
    mask = {"fc.bias", "bn1.bias"}
    if other == "mask":
        train(trainable={"fc.bias", "bn1.weight"}, resume=file)
    else:
        train(replace(QUICK, lr=0.5), trainable=mask, resume=file)
    expected = state(train(trainable=mask)[0])
    file.write_bytes(kept["bytes"])
    assert same(state(train(trainable=mask, resume=file)[0]), expected)


@pytest.mark.parametrize("select", ["last", "validation-accuracy"])
def test_a_model_that_breaks_in_its_very_last_step_has_diverged(train, select):
    wild = replace(QUICK, epochs=1, lr=1e38, select=select)
    with pytest.raises(Diverged, match=r"not finite in epoch 1 .*learning rate"):
        train(wild, order=lambda generator: torch.arange(QUICK.batch_size))


def test_a_training_that_diverges_leaves_no_checkpoint(train, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SECONDS_BETWEEN", 0.0)
    file, steps = tmp_path / "half.safetensors", []

    def breaks_late(logits, target, index):
        steps.append(file.exists())
        return binary_cross_entropy(logits, target, index) * (float("nan") if file.exists() else 1.0)

    with pytest.raises(Diverged, match="not finite in epoch 2"):
        train(loss=breaks_late, resume=file)
    assert any(steps) and not file.exists()


@pytest.mark.parametrize(
    ("attempt", "fault"),
    [
        (lambda faces: freeze_all_but(models.build("resnet18-slim", 0), set()), "mask is empty"),
        (lambda faces: freeze_all_but(models.build("resnet18-slim", 0), {"module.fc.bias"}), "not have.*module.fc"),
        (lambda faces: fit(None, faces((0,) * 4), faces(), QUICK, seed=0), "nothing to train on"),
        (lambda faces: replace(QUICK, batchnorm="off"), "batchnorm must be one of"),
        (lambda faces: replace(QUICK, epochs=0), "needs epochs >= 1"),
    ],
)
def test_bad_input_is_named(faces, attempt, fault):
    with pytest.raises(AimfairError, match=fault):
        attempt(faces)
