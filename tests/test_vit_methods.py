"""What names tensors, or trains some of them, does so on a vision transformer as on a ResNet."""

from dataclasses import replace

import pytest
import torch
from toys import toy_faces

from aimfair import gradients, masks, methods, models
from aimfair.environment import AimfairError
from aimfair.training import Schedule, fit


@pytest.fixture(scope="module")
def bench(bench):
    """The bench of the other tests with a slim ViT and images of its size."""
    train, biased, balanced, validation = (
        toy_faces(counts, seed, 64)
        for counts, seed in (((3, 27, 27, 3), 1), ((3, 27, 27, 3), 3), ((15,) * 4, 4), ((5,) * 4, 2))
    )
    schedule = Schedule(epochs=1, lr=0.01, batch_size=20, milestones=(), crop_scale=(0.7, 1.0))
    trained = models.build("vit-slim", 1)
    fit(trained, train, validation, schedule, seed=1)

    def biased_model():
        model = models.build("vit-slim", 1)
        model.load_state_dict(trained.state_dict())
        return model

    mean = [gradients.mean_gradients(trained, f, mode="train", batch_size=20) for f in (train, biased, balanced)]

    def gaps(score, mode):
        return gradients.gap(mean[0], mean[1], score), gradients.gap(mean[1], mean[2], score)

    return replace(
        bench,
        train=train,
        validation=validation,
        balanced=balanced,
        biased=biased,
        pretraining=schedule,
        finetuning=replace(schedule, ties="first"),
        fresh_model=lambda: models.build("vit-slim", 1),
        biased_model=biased_model,
        gaps=gaps,
        edited=lambda draw, weakest, strongest: train,
    )


def fitted(bench, name, **given):
    method = methods.get(name)
    return method.fit(bench.seen_by(method), method.hyper(**given))


def moved(bench, name, **given):
    """The run, and the tensors that it changed."""
    before, run = bench.biased_model().state_dict(), fitted(bench, name, lr=0.1, **given)
    return run, {n for n, value in run.model.state_dict().items() if not torch.equal(before[n], value)}


def test_gradients_reach_every_tensor_of_a_vit(bench):
    domain_gap, bias_gap = bench.gaps("absolute", "train")
    assert set(domain_gap) == {n for n, _ in bench.fresh_model().named_parameters()}
    assert min(domain_gap.values()) > 0 and min(bias_gap.values()) > 0


@pytest.mark.parametrize("name", ["aim-fair", "aim-fair-cosine"])
def test_aim_fair_moves_exactly_its_mask_of_a_vit(bench, name):
    n = len(list(bench.fresh_model().parameters()))
    run, changed = moved(bench, name)
    k = masks.scaled(55, n)
    assert changed == set(run.scores["mask"]) and max(0, 2 * k - n) <= len(changed) <= k
    control, changed = moved(bench, "random-mask")
    assert changed == set(control.scores["mask"])


def test_k_of_all_resnet_tensors_is_full_fine_tuning_of_a_vit(bench):
    a = fitted(bench, "aim-fair", k=62).model.state_dict()
    b = fitted(bench, "full-finetuning").model.state_dict()
    assert all(torch.equal(value, b[name]) for name, value in a.items())


def test_linear_probing_of_a_vit_moves_its_head_alone(bench):
    assert moved(bench, "linear-probing")[1] == {"head.weight", "head.bias"}


def test_lora_of_a_vit_moves_query_key_value_and_head_alone(bench):
    expected = {f"blocks.{i}.attn.qkv.weight" for i in range(6)} | {"head.weight", "head.bias"}
    run, changed = moved(bench, "lora")
    assert changed == expected and run.scores == {"trained_parameters": 6 * (8 * 96 + 288 * 8) + 97}


def test_lora_of_a_vit_has_the_rank_and_the_layers_that_it_is_given(bench):
    run, changed = moved(bench, "lora", rank=2, targets="attn.proj", alpha=3.0)
    assert changed == {f"blocks.{i}.attn.proj.weight" for i in range(6)} | {"head.weight", "head.bias"}
    assert run.scores == {"trained_parameters": 6 * (2 * 96 + 96 * 2) + 97}


NEEDS_A_RESNET = {
    "batchnorm-real": "this backbone has no batch norm",
    "freeze-one-block": "pos_embed is in none of the blocks stem, .*: blocks need a ResNet",
    "update-one-block": "pos_embed is in none of the blocks stem, .*: blocks need a ResNet",
}


@pytest.mark.parametrize("name", [name for name in methods.registry() if name not in NEEDS_A_RESNET])
def test_every_other_method_trains_a_vit(bench, name):
    model = fitted(bench, name).model
    assert torch.isfinite(models.evaluate(model, bench.validation)).all()
    assert model.state_dict().keys() == bench.fresh_model().state_dict().keys()


@pytest.mark.parametrize("name", NEEDS_A_RESNET)
def test_a_method_of_blocks_or_of_batch_norm_refuses_a_vit(bench, name):
    with pytest.raises(AimfairError, match=NEEDS_A_RESNET[name]):
        fitted(bench, name)
