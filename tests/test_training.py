"""The training loop: augmentation, frozen tensors, batch-norm policy, checkpoint rule, resuming, bad input."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from aimfair import models, training
from aimfair.augment import augment, random_crops
from aimfair.environment import AimfairError, Diverged
from aimfair.training import Checkpoint, Schedule, batches, binary_cross_entropy, fit, freeze_all_but

QUICK = Schedule(epochs=3, lr=0.05, batch_size=16, milestones=(2,), crop_scale=(0.7, 1.0))


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_crop_of_the_whole_image_is_the_image_or_its_mirror():
    images = torch.randint(0, 256, (64, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    plain = models.as_input(images)
    out = augment(images, torch.Generator().manual_seed(0), (1.0, 1.0))
    # area 1 leaves only the aspect ratio, and no aspect but 1 fits: each result is the image itself, perhaps mirrored
    mirrored = [torch.allclose(o, p.flip(2), atol=1e-4) for o, p in zip(out, plain, strict=True)]
    kept = [torch.allclose(o, p, atol=1e-4) for o, p in zip(out, plain, strict=True)]
    assert all(m or k for m, k in zip(mirrored, kept, strict=True))
    assert 15 < sum(mirrored) < 50


def test_a_crop_agrees_with_bilinear_sampling():
    images = torch.randint(0, 256, (8, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(3)
    crops = random_crops(8, torch.Generator().manual_seed(3), (0.3, 0.8))
    out = augment(images, generator, (0.3, 0.8))
    top, left, height, width = crops.T
    theta = torch.zeros(8, 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = width, 2 * left + width - 1
    theta[:, 1, 1], theta[:, 1, 2] = height, 2 * top + height - 1
    grid = F.affine_grid(theta, [8, 3, 20, 20], align_corners=False)
    expected = F.grid_sample(models.as_input(images), grid, padding_mode="border", align_corners=False)
    agree = [
        torch.allclose(o, e, atol=1e-3) or torch.allclose(o, e.flip(2), atol=1e-3)
        for o, e in zip(out, expected, strict=True)
    ]
    assert all(agree)


def test_crops_stay_inside_and_have_the_asked_area():
    crops = random_crops(2000, torch.Generator().manual_seed(0), (0.3, 0.6))
    top, left, height, width = crops.T
    assert (crops >= 0).all() and (top + height <= 1 + 1e-6).all() and (left + width <= 1 + 1e-6).all()
    area = height * width
    assert area.min() >= 0.3 - 1e-5 and area.max() <= 0.6 + 1e-5


def test_an_epoch_visits_every_face_at_most_once_and_drops_the_rest():
    index = torch.cat(list(batches(torch.randperm(37, generator=torch.Generator().manual_seed(0)), 8)))
    assert len(index) == 32 and len(set(index.tolist())) == 32


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


def test_every_epoch_visits_the_faces_in_an_order_of_its_own(faces):
    seen = []

    def looks(logits, target, index):
        seen.append(index)
        return binary_cross_entropy(logits, target, index)

    fit(models.build("resnet18-slim", 0), faces(), faces(seed=1), QUICK, seed=0, loss=looks)
    orders = [torch.cat(seen[2 * epoch : 2 * epoch + 2]).tolist() for epoch in range(3)]
    assert all(sorted(order) == list(range(32)) for order in orders) and len(set(map(tuple, orders))) == 3


def test_it_learns_and_keeps_the_best_epoch(faces):
    model = models.build("resnet18-slim", 0)
    history = fit(model, faces((40,) * 4, 1), faces((20,) * 4, 2), replace(QUICK, epochs=6, milestones=()), seed=1)
    assert max(history.validation_accuracy) > 80
    assert history.validation_accuracy[history.chosen] == max(history.validation_accuracy)
    correct = (models.evaluate(model, faces((20,) * 4, 2)) >= 0) == (faces((20,) * 4, 2).target == 1)
    assert 100 * correct.double().mean() == pytest.approx(max(history.validation_accuracy))


def test_the_weights_of_the_last_epoch_are_kept_beside_the_best(faces, monkeypatch):
    accuracies = iter((90.0, 60.0) * 2)
    falling = lambda model, faces, device: torch.where(  # noqa: E731
        torch.arange(len(faces)) < len(faces) * next(accuracies) / 100, 2.0 * faces.target - 1, 1 - 2.0 * faces.target
    )
    monkeypatch.setattr(training, "evaluate", falling)
    best, last = (models.build("resnet18-slim", 0) for _ in range(2))
    schedule = replace(QUICK, epochs=2)
    chosen = fit(best, faces(), faces(seed=1), schedule, seed=0)
    whole = fit(last, faces(), faces(seed=1), replace(schedule, select="last"), seed=0)
    assert (chosen.chosen, whole.chosen) == (0, 1) and same(chosen.last, state(last)) and same(whole.last, state(last))
    assert not same(state(best), state(last))


@pytest.mark.parametrize(("ties", "chosen"), [("first", 0), ("last", 2)])
def test_ties_between_epochs_follow_the_named_rule(faces, ties, chosen):
    model = models.build("resnet18-slim", 0)
    schedule = replace(QUICK, lr=1e-12, batchnorm="eval", ties=ties)  # nothing changes: every epoch is equally good
    assert fit(model, faces(), faces(seed=1), schedule, seed=0).chosen == chosen


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(faces):
    results = []
    for seed in (1, 1, 2):
        model = models.build("resnet18-slim", 0)
        fit(model, faces(), faces(seed=1), QUICK, seed=seed)
        results.append(state(model))
    assert same(results[0], results[1]) and not same(results[0], results[2])


def test_frozen_tensors_stay_bit_identical_in_spite_of_decay_and_old_gradients(faces):
    model = models.build("resnet18-slim", 0)
    fit(model, faces(), faces(seed=1), QUICK, seed=0)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = state(model)
    mask = {"layer1.0.conv1.weight", "layer4.1.bn2.bias", "fc.bias"}
    fit(model, faces(seed=2), faces(seed=1), replace(QUICK, weight_decay=0.1, select="last"), seed=0, trainable=mask)
    after = state(model)
    changed = {name for name, _ in model.named_parameters() if not torch.equal(before[name], after[name])}
    assert changed == mask
    assert not torch.equal(before["bn1.running_mean"], after["bn1.running_mean"])  # the official policy


def test_batchnorm_eval_leaves_every_buffer_unchanged(faces):
    model = models.build("resnet18-slim", 0)
    before = state(model)
    fit(model, faces(), faces(seed=1), replace(QUICK, batchnorm="eval", select="last"), seed=0, trainable={"fc.weight"})
    after = state(model)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"fc.weight"}


class Killed(Exception):
    pass


def test_a_training_that_is_killed_goes_on_to_the_same_weights(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SECONDS_BETWEEN", 0.0)
    schedule = replace(QUICK, epochs=4)
    undisturbed = models.build("resnet18-slim", 0)
    expected = fit(undisturbed, faces(), faces(seed=1), schedule, seed=7)
    steps = 0

    def dies(logits, target, index):
        nonlocal steps
        steps += 1
        if steps == 5:
            raise Killed
        return binary_cross_entropy(logits, target, index)

    file = tmp_path / "half.safetensors"
    with pytest.raises(Killed):
        fit(models.build("resnet18-slim", 0), faces(), faces(seed=1), schedule, seed=7, loss=dies, resume=file)
    assert file.exists()
    resumed = models.build("resnet18-slim", 99)  # its own weights do not matter
    history = fit(resumed, faces(), faces(seed=1), schedule, seed=7, resume=file)
    assert same(state(undisturbed), state(resumed)) and not file.exists()
    assert history.loss == expected.loss and history.chosen == expected.chosen


class Remembering(torch.nn.Module):
    """A loss whose scale grows with every step it has seen, and that dies when told to."""

    def __init__(self, dies_at=-1):
        super().__init__()
        self.dies_at = dies_at
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, logits, target, index):
        self.steps += 1
        if int(self.steps) == self.dies_at:
            raise Killed
        return self.steps * binary_cross_entropy(logits, target, index)


def test_a_loss_with_a_memory_goes_on_too(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SECONDS_BETWEEN", 0.0)
    schedule = replace(QUICK, epochs=4, lr=1e-3)
    undisturbed, loss = models.build("resnet18-slim", 0), Remembering()
    expected = fit(undisturbed, faces(), faces(seed=1), schedule, seed=7, loss=loss)
    assert len(set(expected.loss)) == 4
    file = tmp_path / "half.safetensors"
    with pytest.raises(Killed):
        killed = models.build("resnet18-slim", 0)
        fit(killed, faces(), faces(seed=1), schedule, seed=7, loss=Remembering(int(loss.steps)), resume=file)
    resumed = models.build("resnet18-slim", 99)
    again = Remembering()
    history = fit(resumed, faces(), faces(seed=1), schedule, seed=7, loss=again, resume=file)
    assert history.loss[-1] == expected.loss[-1] and again.steps == loss.steps


def test_the_order_of_an_epoch_can_be_chosen(faces):
    seen = []

    def looks(logits, target, index):
        seen.extend(index.tolist())
        return binary_cross_entropy(logits, target, index)

    def only_the_first_ten(generator):
        return torch.randint(0, 10, (2 * QUICK.batch_size,), generator=generator)

    fit(models.build("resnet18-slim", 0), faces(), faces(seed=1), QUICK, seed=0, loss=looks, order=only_the_first_ten)
    assert len(seen) == 2 * QUICK.batch_size * QUICK.epochs and set(seen) <= set(range(10))


def test_choosing_by_the_worst_group_reads_protected_labels(faces):
    schedule = replace(QUICK, epochs=4, select="validation-worst-group", ties="first")
    history = fit(models.build("resnet18-slim", 0), faces(), faces(seed=1), schedule, seed=0)
    worst = history.validation_worst_group
    assert len(worst) == 4 and history.chosen == worst.index(max(worst))
    assert all(a <= b + 1e-9 for a, b in zip(worst, history.validation_accuracy, strict=True))
    with pytest.raises(AimfairError, match="withheld"):
        fit(models.build("resnet18-slim", 0), faces(), faces(seed=1).without_protected(), schedule, seed=0)


@pytest.mark.parametrize("other", ["learning rate", "mask"])
def test_a_checkpoint_of_another_training_is_not_taken(faces, tmp_path, monkeypatch, other):
    """Not of another mask either: momentum is stored by place among what learns and would belong to another tensor."""
    monkeypatch.setattr(training, "SECONDS_BETWEEN", 0.0)
    file, kept, save = tmp_path / "half.safetensors", {}, Checkpoint.save

    def save_and_keep(self, *state):
        save(self, *state)
        kept["bytes"] = self.path.read_bytes()

    monkeypatch.setattr(Checkpoint, "save", save_and_keep)

    def train(mask, lr, resume=None):
        model = models.build("resnet18-slim", 0)
        fit(model, faces(), faces(seed=1), replace(QUICK, lr=lr), seed=0, trainable=mask, resume=resume)
        return state(model)

    mask, lr = {"fc.bias", "bn1.bias"}, 0.05
    train(mask if other != "mask" else {"fc.bias", "bn1.weight"}, lr if other == "mask" else 0.5, file)
    expected = train(mask, lr)
    file.write_bytes(kept["bytes"])
    assert same(train(mask, lr, file), expected)


@pytest.mark.parametrize("select", ["last", "validation-accuracy"])
def test_a_model_that_breaks_in_its_very_last_step_has_diverged(faces, select):
    wild = replace(QUICK, epochs=1, lr=1e38, select=select)
    one_step = lambda generator: torch.arange(QUICK.batch_size)  # noqa: E731
    with pytest.raises(Diverged, match="not finite in epoch 1"):
        fit(models.build("resnet18-slim", 0), faces(), faces(seed=1), wild, seed=0, order=one_step)


def test_a_training_that_diverges_leaves_no_checkpoint(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SECONDS_BETWEEN", 0.0)
    file, steps = tmp_path / "half.safetensors", []

    def breaks_late(logits, target, index):
        steps.append(file.exists())
        return binary_cross_entropy(logits, target, index) * (float("nan") if file.exists() else 1.0)

    with pytest.raises(Diverged):
        fit(models.build("resnet18-slim", 0), faces(), faces(seed=1), QUICK, seed=0, loss=breaks_late, resume=file)
    assert any(steps) and not file.exists()


def test_a_loss_that_is_not_finite_is_one_clear_error(faces):
    def diverges(logits, target, index):
        return logits.sum() * float("nan")

    with pytest.raises(AimfairError, match=r"not finite in epoch 1 .*learning rate"):
        fit(models.build("resnet18-slim", 0), faces(), faces(seed=1), QUICK, seed=0, loss=diverges)


def test_an_empty_mask_an_unknown_tensor_and_no_faces_are_refused(faces):
    model = models.build("resnet18-slim", 0)
    with pytest.raises(AimfairError, match="mask is empty"):
        freeze_all_but(model, set())
    with pytest.raises(AimfairError, match=r"does not have.*module.fc"):
        freeze_all_but(model, {"module.fc.weight"})
    with pytest.raises(AimfairError, match="nothing to train on"):
        fit(model, faces((0, 0, 0, 0)), faces(), QUICK, seed=0)
    with pytest.raises(AimfairError, match="batchnorm must be one of"):
        replace(QUICK, batchnorm="off")
