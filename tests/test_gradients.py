"""Dataset-mean gradients and the masks made of them: the invariants of the method."""

import copy

import numpy as np
import pytest
import torch
from toys import toy_faces

from aimfair import gradients, masks, models, repairing
from aimfair.augment import augment
from aimfair.environment import AimfairError
from aimfair.training import Schedule, fit


@pytest.fixture(scope="module")
def model():
    model = models.build("resnet18-slim", 0)
    schedule = Schedule(epochs=2, lr=0.05, batch_size=16, crop_scale=(0.7, 1.0))
    fit(model, toy_faces((4, 36, 36, 4), 1), toy_faces(seed=2), schedule, seed=0)
    return model


def close(a, b, tolerance=1e-6):
    return all(torch.allclose(a[n], b[n], rtol=1e-3, atol=tolerance) for n in a)


def test_eval_mode_is_the_gradient_of_the_mean_loss_for_any_batch_size(model, faces):
    data = faces((5, 7, 3, 9))
    direct = models.build("resnet18-slim", 0)
    direct.load_state_dict(model.state_dict())
    direct.eval()
    torch.nn.functional.binary_cross_entropy_with_logits(
        direct(models.as_input(data.images)), data.target.float()
    ).backward()
    expected = {n: p.grad for n, p in direct.named_parameters()}
    assert close(gradients.mean_gradients(model, data), expected)
    assert close(gradients.mean_gradients(model, data, batch_size=5), expected)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_model_is_left_exactly_as_it_was(model, faces, mode):
    before = {n: v.clone() for n, v in model.state_dict().items()}
    training = model.training
    gradients.mean_gradients(model, faces(), mode=mode, batch_size=8)
    assert all(torch.equal(before[n], v) for n, v in model.state_dict().items())
    assert model.training == training and all(p.grad is None for p in model.parameters())


def test_the_official_form_repeats_with_its_seed(model, faces):
    first, second, other = (
        gradients.mean_gradients(model, faces(), mode="train", batch_size=8, seed=seed) for seed in (1, 1, 2)
    )
    assert close(first, second, 0.0) and not close(first, other)


def test_the_official_form_is_the_mean_of_full_shuffled_batches_of_crops_in_training_mode(model, faces):
    data, twin = faces((5, 7, 3, 6)), copy.deepcopy(model).train()
    generator = torch.Generator().manual_seed(3)
    order = torch.randperm(21, generator=generator)
    for index in order[:16].split(8):  # the last five are left out
        logits = twin(augment(data.images[index], generator, (0.5, 0.9)))
        (torch.nn.functional.binary_cross_entropy_with_logits(logits, data.target[index].float()) / 2).backward()
    frozen = copy.deepcopy(model).requires_grad_(False)  # every tensor has a gradient nevertheless
    found = gradients.mean_gradients(frozen, data, mode="train", batch_size=8, seed=3, crop_scale=(0.5, 0.9))
    assert close(found, {n: p.grad for n, p in twin.named_parameters()})
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_the_mean_is_linear_in_the_group_shares(model, faces):
    pool = faces((20,) * 4, 5)
    by_group = gradients.group_gradients(model, pool)
    keep = [torch.nonzero(pool.groups == g).squeeze(1)[:n] for g, n in enumerate((2, 18, 18, 2))]
    matching = gradients.group_gradients(model, pool.subset(torch.cat(keep)))
    tilted = gradients.combine(matching, (0.05, 0.45, 0.45, 0.05))
    assert close(tilted, gradients.mean_gradients(model, pool.subset(torch.cat(keep))))
    assert close(gradients.combine(by_group, gradients.BALANCED), gradients.mean_gradients(model, pool))


def test_the_bias_ranking_depends_on_neither_ratio_nor_direction_and_vanishes_without_bias(model, faces):
    by_group = gradients.group_gradients(model, faces((20,) * 4, 5))
    level = gradients.combine(by_group, gradients.BALANCED)

    def order(r):
        scores = gradients.gap(gradients.combine(by_group, (0.5 - r, r, r, 0.5 - r)), level)
        return sorted(scores, key=lambda name: -scores[name]), scores

    reference, scores = order(0.45)
    assert all(order(r)[0][:55] == reference[:55] for r in (0.40, 0.05))
    full, half = (np.array([found[name] for name in scores]) for found in (scores, order(0.35)[1]))
    assert np.allclose(half, 0.5 * full, rtol=1e-3, atol=1e-7)  # (.35 - .25) / (.45 - .25)
    assert (full > 1e-6).sum() >= 60  # all but what cancels to rounding, such as the offset of the head
    assert max(gradients.gap(level, level).values()) == 0


def test_synthetic_faces_equal_to_the_real_ones_leave_no_domain_gap_and_a_deterministic_mask(model, faces):
    real = faces((4, 36, 36, 4), 1)
    on_real = gradients.mean_gradients(model, real)
    domain = gradients.gap(on_real, gradients.mean_gradients(model, real))
    assert set(domain.values()) == {0.0}
    bias = gradients.gap(on_real, gradients.mean_gradients(model, faces((20,) * 4, 3)))
    shuffled = dict(sorted(domain.items(), key=lambda item: hash(item[0])))
    assert masks.select(domain, bias, 30) == masks.select(shuffled, bias, 30)


def test_the_gaps_of_a_repair_are_those_of_its_three_gradients_and_k_is_a_share_of_the_tensors(model):
    sets = [toy_faces(c, s) for c, s in (((4, 20, 20, 4), 1), ((4, 20, 20, 4), 2), ((9,) * 4, 3))]
    how = {"mode": "train", "batch_size": 8}
    found = repairing.gradient_gaps(model, *sets, seed=5, score="cosine", **how)
    g = [gradients.mean_gradients(model, faces, seed=5 + i, **how) for i, faces in enumerate(sets)]
    assert found == (gradients.gap(g[0], g[1], "cosine"), gradients.gap(g[1], g[2], "cosine"))
    assert repairing.choose_mask(*found, 40) == masks.select(*found, 40)
    assert repairing.choose_mask(DOMAIN, BIAS, 52) == set("adef")  # of six tensors five
    assert [masks.scaled(k, 62) for k in range(1, 63)] == list(range(1, 63))
    assert [masks.scaled(k, 152) for k in (1, 55, 62)] == [2, 135, 152]


def test_cosine_ignores_the_length_of_each_gradient_and_absolute_difference_does_not():
    a, b = {"w": torch.tensor([3.0, 4.0])}, {"w": torch.tensor([4.0, 3.0])}
    assert gradients.gap({"w": 8 * a["w"]}, {"w": 0.5 * b["w"]}, "cosine")["w"] == pytest.approx(1 - 24 / 25)
    assert gradients.gap({"w": 8 * a["w"]}, {"w": 8 * b["w"]})["w"] == pytest.approx(8.0)  # no rank changes
    assert gradients.gap(a, b, "cosine")["w"] == pytest.approx(1 - 24 / 25)
    assert gradients.gap({"w": 5 * a["w"]}, b, "cosine")["w"] == pytest.approx(1 - 24 / 25)
    assert gradients.gap(a, b)["w"] == pytest.approx(1.0)
    assert gradients.gap({"w": 5 * a["w"]}, b)["w"] == pytest.approx(14.0)
    assert gradients.gap({"w": torch.zeros(2)}, b, "cosine")["w"] == 1.0
    one = {"same": torch.tensor([2.0]), "opposite": torch.tensor([-2.0])}
    assert gradients.gap(one, dict.fromkeys(one, torch.tensor([0.5])), "cosine") == {"same": 0.0, "opposite": 2.0}


def test_the_relative_difference_ignores_a_common_length_and_lies_between_0_and_1():
    a, b = {"w": torch.tensor([3.0, 4.0])}, {"w": torch.tensor([4.0, 3.0])}
    assert gradients.gap(a, b, "relative")["w"] == pytest.approx(2 / 14)
    assert gradients.gap({"w": 5 * a["w"]}, {"w": 5 * b["w"]}, "relative")["w"] == pytest.approx(2 / 14)
    assert gradients.gap(a, {"w": -3 * a["w"]}, "relative")["w"] == pytest.approx(1)
    nothing = {"w": torch.zeros(2)}
    assert (gradients.gap(nothing, nothing, "relative")["w"], gradients.gap(a, nothing, "relative")["w"]) == (0, 1)


DOMAIN = dict(zip("abcdef", [0.1, 0.6, 0.2, 0.5, 0.3, 0.4], strict=True))
BIAS = dict(zip("abcdef", [0.9, 0.8, 0.1, 0.7, 0.2, 0.3], strict=True))


@pytest.mark.parametrize(("k", "selected"), [(3, "a"), (4, "af"), (5, "adef"), (6, "abcdef")])
def test_mask_algebra(k, selected):
    one = {name: masks.select(DOMAIN, BIAS, k, name) for name in ("domain", "bias")}
    assert all(len(mask) == k for mask in one.values()) and one["domain"] & one["bias"] == set(selected)
    assert masks.select(DOMAIN, BIAS, k) == set(selected)


def test_the_size_of_a_mask_lies_between_2k_minus_n_and_k():
    generator = np.random.default_rng(0)
    names = [f"t{i}" for i in range(62)]
    for k in (40, 45, 50, 55, 60, 62):
        for _ in range(20):
            scores = [dict(zip(names, generator.random(62), strict=True)) for _ in range(2)]
            assert max(0, 2 * k - 62) <= len(masks.select(*scores, k)) <= k
    correlated = dict(zip(names, range(62), strict=True))
    assert len(masks.select(correlated, correlated, 55)) == 48  # competing rankings: the middle band remains
    opposite = {name: -value for name, value in correlated.items()}
    assert len(masks.select(correlated, opposite, 55)) == 55


def test_ties_are_settled_by_name_whatever_the_order_of_the_mapping():
    same = dict.fromkeys("abcdef", 1.0)
    assert masks.select(same, same, 3) == masks.select(dict(reversed(same.items())), same, 3) == set("abc")


def test_random_masks_and_overlap():
    names = [f"t{i}" for i in range(62)]
    first, again, other = (masks.random_mask(names, 50, seed) for seed in (1, 1, 2))
    assert first == again != other and len(first) == 50
    assert masks.random_mask(names, 62, 0) == set(names)
    assert masks.jaccard({"a", "b"}, {"b", "c"}) == pytest.approx(1 / 3)
    assert masks.rank_correlation(DOMAIN, DOMAIN) == pytest.approx(1)


@pytest.mark.parametrize(
    ("attempt", "fault"),
    [
        (lambda model: gradients.mean_gradients(model, toy_faces((0,) * 4)), "no faces"),
        (lambda model: gradients.mean_gradients(model, toy_faces(), mode="test"), "mode must be eval or train"),
        (lambda model: gradients.group_gradients(model, toy_faces((0, 4, 4, 4))), "every group needs faces"),
        (lambda model: gradients.combine([{}] * 4, (0.1, 0.2, 0.3, 0.3)), "sum to 1"),
        (lambda model: gradients.gap({}, {}, "rms"), "score must be absolute, relative or cosine, got 'rms'"),
        (lambda model: gradients.gap({"a": 1}, {"b": 1}), "same tensors"),
        (lambda model: masks.select(DOMAIN, BIAS, 0), "between 1 and the 6 tensors"),
        (lambda model: masks.select(DOMAIN, BIAS, 7), "between 1 and the 6 tensors"),
        (lambda model: masks.select(DOMAIN | {"a": float("nan")}, BIAS, 3), "not finite"),
        (
            lambda model: masks.select(DOMAIN, BIAS, 3, "first"),
            "rankings must be one of both, domain, bias, got 'first'",
        ),
        (lambda model: masks.select({"a": 1.0}, BIAS, 1), "same tensors"),
        (lambda model: masks.random_mask("abc", 4, 0), "a random mask needs between 1 and 3"),
    ],
)
def test_bad_input_is_named(model, attempt, fault):
    with pytest.raises(AimfairError, match=fault):
        attempt(model)
