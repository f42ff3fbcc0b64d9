"""What names tensors, or trains some of them, does so on a vision transformer as on a ResNet."""

from dataclasses import replace

import pytest
import torch
from toys import fit_method, toy_faces

from aimfair import masks, methods, models, repairing
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
        gaps=lambda score, mode: repairing.gradient_gaps(
            trained, train, biased, balanced, score=score, mode="train", batch_size=20
        ),
        edited=lambda draw, weakest, strongest: train,
    )


def moved(bench, name, **given):
    """The run, and the tensors that it changed."""
    before, run = bench.biased_model().state_dict(), fit_method(bench, name, lr=0.1, **given)
    return run, {n for n, value in run.model.state_dict().items() if not torch.equal(before[n], value)}


def test_gradients_reach_every_tensor_of_a_vit(bench):
    domain_gap, bias_gap = bench.gaps("absolute", "train")
    assert set(domain_gap) == {n for n, _ in bench.fresh_model().named_parameters()}
    assert min(domain_gap.values()) > 0 and min(bias_gap.values()) > 0


@pytest.mark.parametrize("name", ["aim-fair", "aim-fair-cosine", "random-mask"])
def test_a_method_with_a_mask_moves_exactly_its_tensors_of_a_vit(bench, name):
    n = len(list(bench.fresh_model().parameters()))
    run, changed = moved(bench, name)
    k = masks.scaled(55, n)
    assert changed == set(run.scores["mask"]) and max(0, 2 * k - n) <= len(changed) <= k


QKV = {f"blocks.{i}.attn.qkv.weight" for i in range(6)}
PROJECTIONS = {f"blocks.{i}.attn.proj.weight" for i in range(6)}


@pytest.mark.parametrize(
    ("name", "hyper", "tensors", "scores"),
    [
        ("linear-probing", {}, set(), {}),
        ("lora", {}, QKV, {"trained_parameters": 6 * (8 * 96 + 288 * 8) + 97}),
        (
            "lora",
            {"rank": 2, "targets": "attn.proj", "alpha": 3.0},
            PROJECTIONS,
            {"trained_parameters": 6 * (2 * 96 + 96 * 2) + 97},
        ),
    ],
)
def test_probing_and_lora_of_a_vit_move_the_head_and_the_layers_that_are_named(bench, name, hyper, tensors, scores):
    run, changed = moved(bench, name, **hyper)
    assert changed == tensors | {"head.weight", "head.bias"} and run.scores == scores


NEEDS_A_RESNET = {
    "batchnorm-real": "this backbone has no batch norm",
    "freeze-one-block": "pos_embed is in none of the blocks stem, .*: blocks need a ResNet",
    "update-one-block": "pos_embed is in none of the blocks stem, .*: blocks need a ResNet",
}


@pytest.mark.parametrize("name", methods.registry())
def test_every_method_trains_a_vit_or_says_that_it_needs_a_resnet(bench, name):
    if name in NEEDS_A_RESNET:
        with pytest.raises(AimfairError, match=NEEDS_A_RESNET[name]):
            fit_method(bench, name)
        return
    model = fit_method(bench, name).model
    assert torch.isfinite(models.evaluate(model, bench.validation)).all()
    assert model.state_dict().keys() == bench.fresh_model().state_dict().keys()
