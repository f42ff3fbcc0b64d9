"""The judge: learns plain attributes, and its verdicts come back per attribute and per group."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aimfair.audit import judge as audit
from aimfair.environment import AimfairError
from aimfair.faces import FaceSet

NAMES = ("Bright", "Red")


def pictures(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise that is bright or dark, reddish or not."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (n, 2), generator=generator)
    images = torch.randint(0, 80, (n, 3, 32, 32), generator=generator)
    images += 90 * labels[:, 0].view(-1, 1, 1, 1)
    images[:, 0] += 70 * labels[:, 1].view(-1, 1, 1)
    return images.to(torch.uint8), labels


@pytest.fixture(scope="module")
def judge() -> audit.Judge:
    return audit.train_judge(*pictures(384, 0), NAMES, epochs=6, batch_size=32, seed=1)


def test_it_agrees_with_true_labels_and_not_with_false_ones(judge):
    images, labels = pictures(200, 1)
    assert min(audit.agreement(judge, images, labels).values()) > 95
    assert max(audit.agreement(judge, images, 1 - labels).values()) < 5
    assert list(audit.agreement(judge, images, labels)) == list(NAMES)


def test_the_audit_counts_each_group(judge):
    images, labels = pictures(200, 2)
    claimed = labels.clone()
    wrong = (labels[:, 0] == 1) & (labels[:, 1] == 0)
    claimed[wrong, 1] = 1  # all of group (1, 0) is said to be (1, 1)
    faces = FaceSet(images, claimed[:, 0], claimed[:, 1], np.arange(200).astype(str))
    table = audit.audit(judge, faces, {"target": "Bright", "protected": "Red"})
    assert table["faces"].tolist() == list(faces.counts())
    assert table["Bright"].drop(2).min() > 95 and table["faces"][2] == 0 and np.isnan(table["Red"][2])
    share = 100 * float((~wrong)[faces.groups == 3].double().mean())
    assert abs(table["Red"][3] - share) < 5


def test_the_same_seed_gives_the_same_judge_and_another_another():
    images, labels = pictures(64, 3)
    one, two, other = (audit.train_judge(images, labels, epochs=1, batch_size=32, seed=s) for s in (5, 5, 6))
    assert torch.equal(one.logits(images), two.logits(images))
    assert not torch.equal(one.logits(images), other.logits(images))


def test_a_judge_comes_back_from_disk(judge, tmp_path):
    images, _ = pictures(50, 4)
    judge.save(tmp_path / "judge.safetensors")
    again = audit.load_judge(tmp_path / "judge.safetensors")
    assert again.attributes == NAMES
    assert torch.allclose(judge.logits(images), again.logits(images), atol=0.05)


def test_what_is_wrong_is_said(judge, tmp_path):
    images, labels = pictures(8, 5)
    with pytest.raises(AimfairError, match="no judge at"):
        audit.load_judge(tmp_path / "none.safetensors")
    with pytest.raises(AimfairError, match="no 'Happy', only Bright, Red"):
        judge.column("Happy")
    with pytest.raises(AimfairError, match="8 images and 3 attributes"):
        audit.train_judge(images, labels, ("a", "b", "c"))
