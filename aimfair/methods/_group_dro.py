"""Group DRO over any grouping of the training set, given or inferred: a loss that remembers, and a balanced order.

Sagawa et al., ICLR 2020, arXiv 1911.08731. The weights of the groups climb with their losses (exponentiated
gradient), and the model descends on the weighted sum of the group means.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aimfair.environment import AimfairError
from aimfair.training import Order


def updated_weights(q: Tensor, losses: Tensor, present: Tensor, eta: float) -> Tensor:
    """``q_g * exp(eta * losses_g)`` for the groups that are present, which then share what they had before.

    q, losses (G,) and present (G,) bool -> (G,) with the same sum. A group without a sample in the batch keeps its
    weight. The released code counts its loss as 0, and so lets it lose weight each time it is missing, which no setting
    brings back here; for a batch that has all groups both are the same.
    """
    tiny = torch.finfo(q.dtype).tiny  # a weight that underflowed can grow again
    logits = (q.clamp_min(tiny).log() + eta * losses).masked_fill(~present, -torch.inf)
    return torch.where(present, q[present].sum() * torch.softmax(logits, 0), q)


class GroupDRO(nn.Module):
    """Loss ``sum_g q_g L_g``, the group weights q kept in a buffer and updated at every call before they are used.

    groups      (N,) group of each training sample, 0 to n_groups - 1
    eta         step size of the weights; 0: q stays uniform, the loss is the mean of the group means
    adjustment  C: the weights climb with ``L_g + C / sqrt(n_g)``, n_g the samples of the group in the training set
    A group that has no sample starts, and stays, at weight 0. Raises AimfairError for no samples or negative values.
    """

    q: Tensor
    groups: Tensor
    margin: Tensor

    def __init__(self, groups: Tensor, eta: float = 0.01, adjustment: float = 0.0, n_groups: int | None = None) -> None:
        super().__init__()
        if len(groups) == 0:
            raise AimfairError("Group DRO needs the group of at least one training sample")
        if eta < 0 or adjustment < 0:
            raise AimfairError(f"Group DRO needs eta >= 0 and adjustment >= 0, got {eta} and {adjustment}")
        counts = torch.bincount(groups, minlength=n_groups or 0)
        if n_groups is not None and len(counts) > n_groups:
            raise AimfairError(f"group {len(counts) - 1} is not one of {n_groups} groups")
        self.eta = eta
        self.register_buffer("q", (counts > 0).float() / (counts > 0).sum())
        # What follows from the arguments is not part of the memory.
        self.register_buffer("groups", groups, persistent=False)
        self.register_buffer("margin", adjustment / counts.clamp_min(1).sqrt(), persistent=False)

    def forward(self, logits: Tensor, target: Tensor, index: Tensor) -> Tensor:
        """Update q from the batch's group means, then return their weighted sum; no gradient passes through q."""
        losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        member = F.one_hot(self.groups[index], len(self.q)).to(losses.dtype)  # (B, G)
        counts = member.sum(0)
        means = (member * losses[:, None]).sum(0) / counts.clamp_min(1)
        self.q = updated_weights(self.q, means.detach() + self.margin, counts > 0, self.eta)
        return (self.q * means).sum()


def balanced_order(groups: Tensor) -> Order:
    """As many draws per epoch as there are samples, with replacement, every group that occurs equally likely."""
    weights = 1.0 / torch.bincount(groups).clamp_min(1)[groups].double()

    def draw(generator: torch.Generator) -> Tensor:
        return torch.multinomial(weights, len(groups), replacement=True, generator=generator)

    return draw
