"""Baselines that are not in the paper: AFR, and synthetic faces first."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import expit
from toys import fit_method as fit
from toys import same, same_weights, state

from aimfair.environment import AimfairError
from aimfair.methods import afr
from aimfair.methods.erm import from_scratch


def test_faces_that_are_misread_weigh_more_and_classes_alike():
    logits, target = torch.tensor([3.0, 3.0, -3.0, 3.0]).double(), torch.tensor([0, 1, 1, 1])
    right = torch.sigmoid(torch.tensor([-3.0, 3.0, -3.0, 3.0])).double()
    wanted = torch.exp(-2 * right) / torch.tensor([1, 3, 3, 3])
    torch.testing.assert_close(afr.error_weights(logits, target, 2.0), wanted / wanted.sum())
    assert afr.error_weights(logits, target, 0.0).tolist() == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6])


def test_the_rule_is_the_minimum_of_the_weighted_loss_and_the_pull_back():
    x, target = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 2
    start, weights = np.array([1.0, 1.0, 1.0, 0.5]), np.full(60, 1 / 60)
    rule, _ = afr.reweighted(x, target, weights, start, 0.1)
    error = (expit(x @ rule[:-1] + rule[-1]) - target) * weights  # the gradient of the loss with respect to the logits
    gradient = np.append(x.T @ error, error.sum()) + 0.2 * (rule - start)
    assert np.abs(gradient).max() < 1e-7 and np.abs(rule - start).max() > 0.1
    assert np.allclose(afr.reweighted(x, target, weights, start, 1e9)[0], start)


def test_only_the_last_layer_of_afr_depends_on_its_settings_and_negative_ones_are_refused(bench):
    few, many = state(fit(bench, "afr", gamma=0.5)), state(fit(bench, "afr", gamma=4.0))
    assert {name for name in few if not torch.equal(few[name], many[name])} == {"fc.weight", "fc.bias"}
    for hyper in ({"gamma": -1.0}, {"strength": -0.1}):
        with pytest.raises(AimfairError, match="gamma and strength >= 0"):
            fit(bench, "afr", **hyper)


def test_ffr_is_training_on_synthetic_faces_and_then_erm_from_there(bench):
    first = fit(bench, "synthetic-only").model
    assert same_weights(from_scratch(bench, "by hand", first), fit(bench, "ffr"))
    slower = replace(bench, pretraining=replace(bench.pretraining, lr=0.01))
    first = fit(bench, "synthetic-only").model
    assert same_weights(from_scratch(slower, "by hand", first), fit(bench, "ffr", lr=0.01))


def test_real_faces_reach_the_last_layer_alone(bench):
    first, after = state(fit(bench, "synthetic-only")), state(fit(bench, "synthetic-then-head"))
    assert {name for name in first if not torch.equal(first[name], after[name])} == {"fc.weight", "fc.bias"}
    follow = state(fit(bench, "synthetic-then-head", batchnorm="train"))
    assert same(follow, after, ["conv1.weight"]) and not same(follow, after, ["bn1.running_mean"])
