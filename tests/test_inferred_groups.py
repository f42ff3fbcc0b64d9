"""What JTT, EIIL and XRM share, and that trainings of two networks go on after they were killed."""

from dataclasses import replace

import pytest
import torch
from toys import toy_faces

from aimfair import checkpoint, models
from aimfair.errors import AimfairError
from aimfair.methods._inferred import early_logits, group_dro, packed, unpacked
from aimfair.methods._pair import Pair
from aimfair.methods.lff import LearningFromFailure
from aimfair.methods.xrm import CrossRisk
from aimfair.training import fit


@pytest.mark.parametrize("n", [1, 8, 13, 120])
def test_a_mask_survives_packing(n):
    mask = torch.rand(n, generator=torch.Generator().manual_seed(n)) < 0.3
    assert torch.equal(unpacked(packed(mask), n), mask) and len(packed(mask)) == 2 * -(-n // 8)


def test_an_empty_environment_leaves_the_classes_and_a_note(bench):
    seen = bench.train.without_protected()
    part = replace(bench, train=seen, validation=bench.validation.without_protected())
    none, all_ = (
        group_dro(part, torch.full((len(seen),), value), part.validation, 0.01, "last", "test")
        for value in (False, True)
    )
    assert none.scores["groups"] == [60, 0, 60, 0] and all_.scores["groups"] == [0, 60, 0, 60]
    assert "environment 1 is empty" in none.scores["note"] and "environment 0 is empty" in all_.scores["note"]
    assert none.scores["group_weights"][1::2] == [0, 0] and none.history.loss == all_.history.loss


def test_a_first_model_needs_an_epoch(bench):
    with pytest.raises(AimfairError, match="at least 1 epoch"):
        early_logits(bench, 0, "test")


class Killed(Exception):
    pass


@pytest.mark.parametrize("make", [LearningFromFailure, lambda y, other: CrossRisk(y, other, 5)], ids=["lff", "xrm"])
def test_a_training_of_two_goes_on_from_its_checkpoint(bench, make, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SECONDS_BETWEEN", 0.0)
    train, validation = toy_faces(), toy_faces(seed=1)
    schedule = replace(bench.pretraining, epochs=4, batch_size=16, select="last")
    file = tmp_path / "half.safetensors"

    def run(resume=None, dies_at=0):
        pair = Pair(models.build("resnet18-slim", 0), models.build("resnet18-slim", 1))
        loss, steps = make(train.target, pair.other), []

        def dies(module, arguments):
            steps.append(1)
            if len(steps) == dies_at:
                raise Killed

        loss.register_forward_pre_hook(dies)
        return fit(pair, train, validation, schedule, 3, loss=loss, resume=resume), pair, loss

    expected, pair, loss = run()
    with pytest.raises(Killed):
        run(file, dies_at=6)
    history, resumed, again = run(file)
    assert history.loss == expected.loss
    assert all(torch.equal(v, resumed.state_dict()[n]) for n, v in pair.state_dict().items())
    assert all(torch.equal(v, again.state_dict()[n]) for n, v in loss.state_dict().items())
