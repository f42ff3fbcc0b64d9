"""Group DRO minimises the loss of the worst group, with every group label known. How much of it is its sampling?

So balanced sampling and sub-sampling stand beside it. All three are oracles.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aimfair import sampling
from aimfair.environment import AimfairError
from aimfair.methods import Bench, Fitted, Method
from aimfair.methods.erm import from_scratch, shuffled
from aimfair.training import Order


def updated_weights(q: Tensor, losses: Tensor, present: Tensor, eta: float) -> Tensor:
    """``q_g * exp(eta * losses_g)`` for the groups that are present, scaled so that their sum stays what it was.

    q, losses (G,) and present (G,) bool -> (G,) with the same sum. A group without a sample in the batch keeps its
    weight; the released code takes 0 for its loss, so that a group loses weight for being rare.
    """
    tiny = torch.finfo(q.dtype).tiny  # a weight that underflowed can grow again
    logits = (q.clamp_min(tiny).log() + eta * losses).masked_fill(~present, -torch.inf)
    return torch.where(present, q[present].sum() * torch.softmax(logits, 0), q)


class GroupDRO(nn.Module):
    """Loss ``sum_g q_g L_g``, whose group weights q are updated at every call, before they are used.

    groups      (N,) group of each training sample, 0 to 3, whether it is given or inferred
    eta         step size of the weights; at 0 q stays uniform, and the loss is the mean of the group means
    adjustment  C: the weights climb with ``L_g + C / sqrt(n_g)``, n_g being the samples of the group in the training set
    A group without any sample starts, and stays, at weight 0. Raises AimfairError for no samples or negative values.
    """

    q: Tensor
    groups: Tensor
    margin: Tensor

    def __init__(self, groups: Tensor, eta: float = 0.01, adjustment: float = 0.0) -> None:
        super().__init__()
        if len(groups) == 0 or eta < 0 or adjustment < 0:
            raise AimfairError(
                f"Group DRO needs at least one sample, eta >= 0 and adjustment >= 0, got {len(groups)}, {eta}, {adjustment}"
            )
        counts = torch.bincount(groups, minlength=4)
        self.eta = eta
        self.register_buffer("q", (counts > 0).float() / (counts > 0).sum())
        # A checkpoint leaves out what follows from the arguments.
        self.register_buffer("groups", groups, persistent=False)
        self.register_buffer("margin", adjustment / counts.clamp_min(1).sqrt(), persistent=False)

    def forward(self, logits: Tensor, target: Tensor, index: Tensor) -> Tensor:
        """Update q from the batch's group means and return their weighted sum; no gradient passes through q."""
        losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        member = F.one_hot(self.groups[index], len(self.q)).to(losses.dtype)  # (B, G)
        counts = member.sum(0)
        means = (member * losses[:, None]).sum(0) / counts.clamp_min(1)
        self.q = updated_weights(self.q, means.detach() + self.margin, counts > 0, self.eta)
        return (self.q * means).sum()


def balanced_order(groups: Tensor) -> Order:
    """Draw as many indices as there are samples, with replacement, every group that occurs equally likely."""
    weights = 1.0 / torch.bincount(groups).clamp_min(1)[groups].double()
    return lambda generator: torch.multinomial(weights, len(groups), replacement=True, generator=generator)


def train_oracle(bench: Bench, hyper: Mapping[str, Any], what: str, **how: Any) -> Fitted:
    """Train as ERM and keep the epoch with the best worst group on the validation set.

    lr            None: the rate of the profile's ERM
    weight_decay  in place of ERM's. It is what the oracles search: without strong regularisation a network fits the few
                  minority faces by heart, and the losses that the oracles read vanish (Sagawa et al., section 3.2)
    """
    schedule = replace(
        bench.pretraining,
        lr=hyper["lr"] or bench.pretraining.lr,
        weight_decay=hyper["weight_decay"],
        select="validation-worst-group",
    )
    fitted = from_scratch(replace(bench, pretraining=schedule), what, **how)
    if min(bench.train.counts()) == 0:
        fitted.scores["note"] = f"a group has no training face, and so no part in it: counts {bench.train.counts()}"
    return fitted


def fit_group_dro(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """Group DRO over the groups of target and protected label; see also :func:`train_oracle`.

    eta         step size of the weights (official .01)
    adjustment  C of the generalisation term C / sqrt(n_g); 0 as in the official command for CelebA (searched: 0 to 5)
    Each group is equally likely to be drawn, with replacement, as in the official command. For a difference in the loss see
    :func:`updated_weights`.
    """
    loss = GroupDRO(bench.train.groups, hyper["eta"], hyper["adjustment"])
    fitted = train_oracle(bench, hyper, "Group DRO", loss=loss, order=balanced_order(bench.train.groups))
    fitted.scores["group_weights"] = [round(weight, 5) for weight in loss.q.tolist()]
    return fitted


def fit_balanced(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """ERM whose steps draw every group equally often, with replacement (RWG); see :func:`train_oracle`."""
    return train_oracle(bench, hyper, "balanced sampling", order=balanced_order(bench.train.groups))


def fit_subsampled(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """ERM on as many faces of each group as the smallest one has, drawn once per seed (SUBG); see :func:`train_oracle`.

    same_updates  true: as many steps per epoch as ERM, by several passes over the faces that are left, so that the
                  methods differ in their data and not in the length of training; false: one pass per epoch
    Raises AimfairError where a group has no training face.
    """
    groups, smallest = bench.train.groups, min(bench.train.counts())
    if smallest == 0:
        raise AimfairError(f"sub-sampling needs a training face of every group; the counts are {bench.train.counts()}")
    kept = sampling.balanced(groups // 2, groups % 2, smallest, bench.seed)
    order = shuffled(torch.from_numpy(kept), len(groups) if hyper["same_updates"] else len(kept))
    fitted = train_oracle(bench, hyper, f"sub-sampling to 4 x {smallest}", order=order)
    fitted.scores["faces"] = len(kept)
    return fitted


BALANCED = Method(
    name="balanced-sampling",
    title="Balanced sampling (oracle)",
    source="Idrissi et al., CLeaR 2022 (RWG)",
    start="scratch",
    fit=fit_balanced,
    needs=frozenset({"train protected", "validation protected"}),
    defaults={"lr": None, "weight_decay": 0.001},
    search={"weight_decay": (0.0001, 0.0003, 0.001, 0.003, 0.01)},
)
SUBSAMPLING = replace(
    BALANCED,
    name="subsampling",
    title="Sub-sampling (oracle)",
    source="Idrissi et al., CLeaR 2022 (SUBG)",
    fit=fit_subsampled,
    defaults={**BALANCED.defaults, "same_updates": True},
)
GROUP_DRO = replace(
    BALANCED,
    name="group-dro",
    title="Group DRO (oracle)",
    source="Sagawa et al., ICLR 2020, arXiv 1911.08731",
    fit=fit_group_dro,
    defaults={**BALANCED.defaults, "eta": 0.01, "adjustment": 0.0},
    fixed={"sampling": "balanced"},
)
METHODS = (BALANCED, GROUP_DRO, SUBSAMPLING)
