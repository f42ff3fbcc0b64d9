"""ERM on as many faces of each group as the smallest one has. An oracle."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from aimfair import sampling
from aimfair.environment import AimfairError
from aimfair.methods import Bench, Fitted, Method
from aimfair.methods._oracle import DEFAULTS, WEIGHT_DECAYS, train_oracle
from aimfair.training import Order


def repeated_order(kept: Tensor, length: int) -> Order:
    """Shuffled passes over ``kept``, one after the other, until an epoch has ``length`` indices."""

    def draw(generator: torch.Generator) -> Tensor:
        passes = -(-length // len(kept))
        order = [kept[torch.randperm(len(kept), generator=generator)] for _ in range(passes)]
        return torch.cat(order)[:length]

    return draw


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """Drop faces of the larger groups at random, once per seed (SUBG of the source); else as ERM.

    same_updates  true: as many steps per epoch as ERM, by several passes over the faces that are left, so that the
                  methods differ in their data and not in the length of training; false: one pass per epoch
    lr, weight_decay  as for :mod:`aimfair.methods.group_dro`
    Raises AimfairError where a group has no training face.
    """
    faces = bench.train
    smallest = min(faces.counts())
    if smallest == 0:
        raise AimfairError(f"sub-sampling needs a training face of every group; the counts are {faces.counts()}")
    assert faces.protected is not None
    kept = torch.from_numpy(sampling.balanced(faces.target.numpy(), faces.protected.numpy(), smallest, bench.seed))
    length = len(faces) if hyper["same_updates"] else len(kept)
    fitted = train_oracle(bench, hyper, repeated_order(kept, length), f"sub-sampling to 4 x {smallest}")
    fitted.scores["faces"] = len(kept)
    return fitted


METHOD = Method(
    name="subsampling",
    title="Sub-sampling (oracle)",
    source="Idrissi et al., CLeaR 2022 (SUBG)",
    start="scratch",
    fit=fit,
    needs=frozenset({"train protected", "validation protected"}),
    defaults={**DEFAULTS, "same_updates": True},
    search={"weight_decay": WEIGHT_DECAYS},
)
